//! `auth.allows()`: what a token says about a table.

use harness::{Code, Preload, SUCCESS, Shared, now, present, run};
use postgres::{Client, Statement};
use serde_json::{Value, json};

use super::fixture::*;

#[test]
fn claims_decide() {
    let fixture = SITES.beside_others(Preload::Shared);
    let mut client = fixture.client();
    assert_eq!(
        allows(&mut client, "data_read", "'comments'"),
        "f",
        "allows(data_read, 'comments')"
    );
    assert_eq!(allows(&mut client, "data_read", "NULL"), "f", "allows(data_read, NULL)");
    let comments = |claims: &Value| {
        let mut client = fixture.client();
        fixture.be(&mut client, claims);
        ["data_read", "data_add", "schema_delete"]
            .map(|action| {
                ["'comments'", "'secrets'", "NULL"]
                    .map(|table| allows(&mut client, action, table))
                    .concat()
            })
            .join(" ")
    };
    for (claims, expected) in [
        (json!({}), "fff fff fff"),
        (json!({"a": "rw"}), "ttt ttt ttt"),
        (json!({"a": "ro"}), "ttt fff fff"),
        (json!({"a": "x", "perm": "x"}), "fff fff fff"),
        (
            json!({"perm": [{"a": ["data_read"]}, {"t": "comments", "a": ["data_read"]}]}),
            "fff fff fff",
        ),
        (json!({"perm": [{"t": ["all"], "a": ["data_add"]}]}), "fff ttt fff"),
        (
            json!({"perm": [{"t": null, "a": ["data_read"]},
                         {"t": ["comments"], "a": ["data_add", "schema_delete"]}]}),
            "ttt tff tff",
        ),
        (
            json!({"a": "ro", "perm": [{"t": ["public.secrets"], "a": ["data_add", "no"]}]}),
            "ttt ftf fff",
        ),
    ] {
        assert_eq!(comments(&claims), expected, "{claims}");
    }
}

#[test]
fn other_actions_and_relations_are_not_allowed() {
    let fixture = SITES.beside_others(Preload::Shared);
    let mut client = fixture.client();
    fixture.grant(&mut client, &["comments:data_read"]);
    assert_eq!(
        allows(&mut client, "data_write", "'comments'"),
        Code::Configuration.sqlstate(),
        "allows(data_write, 'comments')"
    );
    assert_eq!(
        allows(&mut client, "DATA_READ", "'comments'"),
        Code::Configuration.sqlstate(),
        "allows(DATA_READ, 'comments')"
    );
    assert_eq!(
        answer(&mut client, "SELECT auth.allows(NULL, 'comments')"),
        "-",
        "answer(SELECT auth.allows(NULL, 'comments'))"
    );
    // A relation that is not there, whatever is granted.
    fixture.be(&mut client, &json!({"a": "rw"}));
    assert_eq!(
        allows(&mut client, "data_read", "'comments'"),
        "t",
        "a relation that is not there, whatever is granted"
    );
    assert_eq!(
        allows(&mut client, "data_read", "4000000000::oid::regclass"),
        "f",
        "a relation that is not there, whatever is granted"
    );
    assert_eq!(
        allows(&mut client, "data_read", "0::oid::regclass"),
        "f",
        "a relation that is not there, whatever is granted"
    );
}

#[test]
fn an_expired_token_is_an_error() {
    let fixture = SITES.beside_others(Preload::Shared);
    let mut client = fixture.client();
    let expired = fixture.key.sign(&json!({"sub": "alice", "exp": now() + 1, "a": "rw"}));
    assert_eq!(present(&mut client, &expired), SUCCESS, "present(expired)");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(
        allows(&mut client, "data_read", "'comments'"),
        Code::Expired.sqlstate(),
        "allows(data_read, 'comments') after expired"
    );
    assert_eq!(
        allows(&mut client, "data_read", "NULL"),
        Code::Expired.sqlstate(),
        "allows(data_read, NULL) after expired"
    );
}

#[test]
fn names_are_those_of_the_catalogs() {
    let fixture = SITES.beside_others(Preload::Shared);
    let mut client = fixture.client();
    let tables = [
        "public.comments",
        "public.\"Comments\"",
        "hidden.comments",
        "public.\"all\"",
        "public.secrets",
    ];
    for (name, expected) in [
        ("comments", "tffff"),
        ("COMMENTS", "tffff"),
        ("public.comments", "tffff"),
        ("\"comments\"", "tffff"),
        ("\"Comments\"", "ftfff"),
        ("hidden.comments", "fftff"),
        ("Hidden.\"comments\"", "fftff"),
        ("\"all\"", "ffftf"),
        ("public.all", "ffftf"),
        ("\"public.comments\"", "fffff"),
        ("postgres.public.comments", "fffff"),
        ("comments ", "fffff"),
        ("comments, secrets", "fffff"),
    ] {
        fixture.be(&mut client, &json!({"perm": [{"t": [name], "a": ["data_read"]}]}));
        // Whatever the search path is.
        for path in ["public", "hidden, public", "pg_temp, hidden"] {
            run(&mut client, &format!("SET search_path = {path}"));
            let found = tables
                .map(|table| allows(&mut client, "data_read", &format!("'{table}'")))
                .concat();
            assert_eq!(found, expected, "{name} in {path}");
        }
    }
}

#[test]
fn a_temporary_table_is_none_of_its_namesakes() {
    let fixture = SITES.beside_others(Preload::Shared);
    let mut client = fixture.client();
    fixture.grant(&mut client, &["comments:data_read"]);
    run(&mut client, "CREATE TEMP TABLE comments (id int)");
    assert_eq!(
        allows(&mut client, "data_read", "'comments'"),
        "f",
        "after CREATE TEMP TABLE comments (id int)"
    );
    assert_eq!(
        allows(&mut client, "data_read", "'public.comments'"),
        "t",
        "after CREATE TEMP TABLE comments (id int)"
    );
}

/// A site with functions that ask for a table again and again: a function keeps its call sites, and with them
/// what an answer depends on, for as long as the session lasts. Tests put the names back that they change.
static PLACES: Shared<Fixture> = Shared::new(|_| {
    let fixture = Fixture::new();
    let mut admin = fixture.admin();
    let table = oid_of(&mut admin, "comments");
    run(
        &mut admin,
        &format!(
            "CREATE FUNCTION sticky() RETURNS boolean LANGUAGE plpgsql STABLE
                 AS $$ BEGIN RETURN auth.allows('data_read', {table}); END $$;
             CREATE FUNCTION free(a text, t oid) RETURNS boolean LANGUAGE plpgsql STABLE
                 AS $$ BEGIN RETURN auth.allows(a, t); END $$;
             SET ROLE dev; CREATE TABLE hidden.kept ()"
        ),
    );
    fixture
});

const STICKY: &str = "SELECT sticky()";

fn oid_of(client: &mut Client, table: &str) -> u32 {
    answer(client, &format!("SELECT '{table}'::regclass::oid")).parse().unwrap()
}

/// A client that asks for `comments` at places in plans that it keeps.
struct Asker {
    client: Client,
    ask: Statement,
    oid: u32,
}

impl Asker {
    fn new(fixture: &Fixture) -> Self {
        let mut client = fixture.client();
        run(&mut client, "SET plan_cache_mode = force_generic_plan");
        let oid = oid_of(&mut client, "comments");
        let ask = "SELECT auth.allows(a, t)
                   FROM (VALUES ($1::text, $2::oid)) v (a, t), generate_series(1, 3)";
        let ask = client.prepare(ask).unwrap();
        Self { client, ask, oid }
    }

    /// Whether the action is allowed, which all places say alike.
    fn asked(&mut self, action: &str) -> bool {
        let rows = self.client.query(&self.ask, &[&action, &self.oid]).unwrap();
        let answers: Vec<bool> = rows.iter().map(|row| row.get(0)).collect();
        let first = answers[0];
        assert!(answers.iter().all(|answer| *answer == first), "{action}: {answers:?}");
        let free = answer(&mut self.client, &format!("SELECT free('{action}', {})", self.oid));
        assert_eq!(free == "t", first, "{action}: a function's place");
        if action == "data_read" {
            let sticky = answer(&mut self.client, STICKY);
            assert_eq!(sticky == "t", first, "{action}: a place for one action and table");
        }
        first
    }
}

#[test]
fn kept_answers_follow_the_token() {
    let fixture = PLACES.alone(Preload::Shared);
    let mut asker = Asker::new(&fixture);
    fixture.grant(&mut asker.client, &["comments:data_read"]);
    assert!(asker.asked("data_read"), "asker.asked(data_read)");
    assert!(!asker.asked("data_add"), "!asker.asked(data_add)");
    // Another token, and none.
    fixture.grant(&mut asker.client, &["secrets:data_read"]);
    assert!(!asker.asked("data_read"), "another token, and none");
    assert_eq!(present(&mut asker.client, ""), SUCCESS, "another token, and none");
    assert!(!asker.asked("data_read"), "another token, and none");
    fixture.grant(&mut asker.client, &["comments:data_read"]);
    assert!(asker.asked("data_read"), "another token, and none");
}

#[test]
fn kept_answers_follow_names_that_another_session_changes() {
    let fixture = PLACES.alone(Preload::Shared);
    let (mut asker, mut dev) = (Asker::new(&fixture), fixture.dev());
    fixture.grant(&mut asker.client, &["comments:data_read"]);
    for (rename, back) in [
        ("ALTER TABLE comments RENAME TO c", "ALTER TABLE c RENAME TO comments"),
        (
            "ALTER TABLE comments RENAME TO \"COMMENTS\"",
            "ALTER TABLE \"COMMENTS\" RENAME TO comments",
        ),
        (
            "ALTER TABLE hidden.comments RENAME TO x; ALTER TABLE comments SET SCHEMA hidden",
            "ALTER TABLE hidden.comments SET SCHEMA public; ALTER TABLE hidden.x RENAME TO comments",
        ),
    ] {
        run(&mut dev, rename);
        assert!(!asker.asked("data_read"), "{rename}");
        run(&mut dev, back);
        assert!(asker.asked("data_read"), "{back}");
    }
}

/// No relation changes.
#[test]
fn kept_answers_follow_the_name_of_the_schema() {
    let fixture = PLACES.alone(Preload::Shared);
    let (mut asker, mut dev) = (Asker::new(&fixture), fixture.dev());
    fixture.grant(&mut asker.client, &["hidden.kept:data_read", "comments:data_read"]);
    let kept = oid_of(&mut asker.client, "hidden.kept");
    let kept_allowed = |client: &mut Client| {
        let answers = answer(client, &format!("SELECT free('data_read', {kept})"));
        answers == "t"
    };
    assert!(kept_allowed(&mut asker.client), "a schema of another name");
    run(&mut dev, "ALTER SCHEMA hidden RENAME TO shown");
    assert!(!kept_allowed(&mut asker.client), "after ALTER SCHEMA hidden RENAME TO shown");
    run(&mut dev, "ALTER SCHEMA shown RENAME TO hidden");
    assert!(kept_allowed(&mut asker.client), "after ALTER SCHEMA shown RENAME TO hidden");
}

/// Also back, at a rollback.
#[test]
fn kept_answers_follow_names_in_the_own_transaction() {
    let fixture = PLACES.alone(Preload::Shared);
    let mut own = fixture.dev();
    run(&mut own, "SET plan_cache_mode = force_generic_plan");
    fixture.grant(&mut own, &["comments:data_read"]);
    assert_eq!(answer(&mut own, STICKY), "t", "after SET plan_cache_mode = force_generic_plan");
    run(&mut own, "BEGIN; ALTER TABLE comments RENAME TO c");
    assert_eq!(answer(&mut own, STICKY), "f", "after BEGIN; ALTER TABLE comments RENAME TO c");
    run(&mut own, "SAVEPOINT s; ALTER TABLE c RENAME TO comments");
    assert_eq!(answer(&mut own, STICKY), "t", "answer(STICKY)");
    run(&mut own, "ROLLBACK TO s");
    assert_eq!(answer(&mut own, STICKY), "f", "after ROLLBACK TO s");
    run(&mut own, "ROLLBACK");
    assert_eq!(answer(&mut own, STICKY), "t", "after ROLLBACK");
}

/// At one place in a plan, which lasts for a transaction.
#[test]
fn kept_answers_follow_names_actions_tables_and_tokens() {
    let fixture = PLACES.alone(Preload::Shared);
    let mut own = fixture.dev();
    run(&mut own, "SET plan_cache_mode = force_generic_plan");
    fixture.grant(&mut own, &["comments:data_read"]);
    let oid = oid_of(&mut own, "comments");
    let kept = oid_of(&mut own, "hidden.kept");
    let free = format!("SELECT free('data_read', {oid})");
    run(&mut own, "BEGIN");
    assert_eq!(answer(&mut own, &free), "t", "after BEGIN");
    run(&mut own, "ALTER TABLE comments RENAME TO c");
    assert_eq!(answer(&mut own, &free), "f", "after ALTER TABLE comments RENAME TO c");
    run(&mut own, "ALTER TABLE c RENAME TO comments");
    assert_eq!(answer(&mut own, &free), "t", "after ALTER TABLE c RENAME TO comments");
    let kept_free = format!("SELECT free('data_read', {kept})");
    fixture.grant(&mut own, &["hidden.kept:data_read"]);
    // Something else finds out who it is before.
    assert_eq!(
        answer(&mut own, "SELECT auth.user_id()"),
        "alice",
        "something else finds out who it is before"
    );
    assert_eq!(answer(&mut own, &free), "f", "something else finds out who it is before");
    assert_eq!(answer(&mut own, &kept_free), "t", "something else finds out who it is before");
    // A cursor's plan goes on whatever happens.
    let cursor = format!(
        "DECLARE c CURSOR FOR SELECT auth.allows('data_read', {kept}) FROM generate_series(1, 2)"
    );
    run(&mut own, &cursor);
    assert_eq!(answer(&mut own, "FETCH c"), "t", "a cursor's plan goes on whatever happens");
    run(&mut own, "ALTER SCHEMA hidden RENAME TO shown");
    assert_eq!(answer(&mut own, "FETCH c"), "f", "a cursor's plan goes on whatever happens");
    run(&mut own, "ROLLBACK");
    fixture.grant(&mut own, &["comments:data_read"]);
    let each = format!(
        "SELECT auth.allows(a, t) FROM (VALUES ('data_read', {oid}::oid), ('data_add', {oid}),
         ('data_read', {oid}), ('data_read', {kept}), ('data_read', NULL), ('data_read', {oid}))
         v (a, t)"
    );
    assert_eq!(answer(&mut own, &each), "t f t f f t", "a cursor's plan goes on whatever happens");
}

/// Another table takes its name.
#[test]
fn kept_answers_follow_a_table_that_is_dropped() {
    let fixture = PLACES.alone(Preload::Shared);
    let mut own = fixture.dev();
    run(&mut own, "SET plan_cache_mode = force_generic_plan");
    fixture.grant(&mut own, &["comments:data_read"]);
    run(&mut own, "BEGIN; DROP TABLE comments; CREATE TABLE comments ()");
    assert_eq!(answer(&mut own, STICKY), "f", "answer(STICKY)");
    assert_eq!(allows(&mut own, "data_read", "'comments'"), "t", "allows(data_read, 'comments')");
    run(&mut own, "ROLLBACK");
    assert_eq!(answer(&mut own, STICKY), "t", "after ROLLBACK");
}

#[test]
fn parallel_workers_have_the_permissions() {
    let fixture = Fixture::new();
    run(
        &mut fixture.admin(),
        "
        CREATE TABLE many AS SELECT n FROM generate_series(1, 20000) n;
        ALTER TABLE many SET (parallel_workers = 2); GRANT SELECT ON many TO app;
        SELECT auth.protect('many')",
    );
    let mut client = fixture.client();
    run(
        &mut client,
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
        SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = off",
    );
    let count = "SELECT count(*) FROM many";
    let plan = answer(&mut client, &format!("EXPLAIN (ANALYZE, COSTS OFF) {count}"));
    assert!(plan.contains("Workers Launched: 2"), "{plan}");
    assert!(plan.contains("auth.allows('data_read'::text, 'many'::regclass)"), "{plan}");
    assert_eq!(answer(&mut client, count), "0", "answer(count)");
    fixture.grant(&mut client, &["many:data_read"]);
    assert_eq!(answer(&mut client, count), "20000", "answer(count)");
    fixture.grant(&mut client, &["comments:data_read"]);
    assert_eq!(answer(&mut client, count), "0", "answer(count)");
}

#[test]
fn believed_request_claims_grant_permissions() {
    let fixture = Fixture::new();
    let claims = perm(&["comments:data_read"]).to_string();
    let mut client = fixture.client();
    run(&mut client, &format!("SET request.jwt.claims = '{claims}'"));
    assert_eq!(
        allows(&mut client, "data_read", "'comments'"),
        "f",
        "allows(data_read, 'comments')"
    );
    run(&mut fixture.admin(), "ALTER ROLE app SET pg_session_jwt.trust_request_claims = on");
    let mut client = fixture.client();
    assert_eq!(
        allows(&mut client, "data_read", "'comments'"),
        "f",
        "allows(data_read, 'comments')"
    );
    run(&mut client, &format!("SET request.jwt.claims = '{claims}'"));
    assert_eq!(
        allows(&mut client, "data_read", "'comments'"),
        "t",
        "allows(data_read, 'comments')"
    );
    assert_eq!(allows(&mut client, "data_read", "'secrets'"), "f", "allows(data_read, 'secrets')");
    run(&mut client, "SET request.jwt.claims = ''");
    assert_eq!(
        allows(&mut client, "data_read", "'comments'"),
        "f",
        "after SET request.jwt.claims = ''"
    );
}
