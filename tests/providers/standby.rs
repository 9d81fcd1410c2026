//! Identities on a hot standby, whose transactions can only read, and beyond its promotion.

use std::thread::sleep;
use std::time::Duration;

use harness::{
    Cluster, Code, INSUFFICIENT_PRIVILEGE, Preload, READ_ONLY_SQL_TRANSACTION, SUCCESS, Shared,
    T_R_SERIALIZATION_FAILURE, now, present, present_locally, run, sqlstate, text, token, user,
    wait_for,
};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::json;

/// A primary and its standby, with a row of Alice's, two of Bob's, and many of Zoe's.
struct Fixture {
    // Dropped in this order: the standby first.
    standby: Cluster,
    primary: Cluster,
    key: Key,
}

impl Fixture {
    fn new(settings: &[(&str, &str)]) -> Self {
        let key = Key::generate(Algorithm::ES256);
        let providers = providers(&[&key]);
        let mut all = vec![("pg_session_jwt.providers", providers.as_str())];
        all.extend_from_slice(settings);
        let primary = Cluster::start(Preload::Shared, &all);
        run(
            &mut primary.admin(),
            "CREATE TABLE notes (owner text DEFAULT auth.user_id(), note text);
             INSERT INTO notes VALUES ('alice', 'a'), ('bob', 'b'), ('bob', 'c');
             INSERT INTO notes SELECT 'zoe', n::text FROM generate_series(1, 20000) n;
             ANALYZE notes; ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
             CREATE POLICY p ON notes USING (owner = auth.user_id());
             GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO app",
        );
        let standby = primary.standby();
        standby.catch_up(&primary);
        Self { standby, primary, key }
    }

    /// A client of the standby.
    fn client(&self) -> Client {
        self.standby.as_role("app").client()
    }

    fn token(&self, sub: &str) -> String {
        token(&self.key, sub)
    }
}

fn providers(keys: &[&Key]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| key.bare_public_jwk()).collect();
    json!({"jwks": {"keys": keys}, "leeway": 0}).to_string()
}

fn rows(client: &mut Client) -> i64 {
    client.query_one("SELECT count(*) FROM notes", &[]).unwrap().get(0)
}

/// A primary and a standby, of which tests change nothing.
static SERVERS: Shared<Fixture> = Shared::new(|_| Fixture::new(&[]));

impl harness::Fixture for Fixture {
    fn cluster(&self) -> &Cluster {
        &self.standby
    }
}

#[test]
fn a_standby_verifies_tokens() {
    let fixture = SERVERS.beside_others(Preload::Shared);
    let bob = fixture.token("bob");
    let forged = token(&Key::generate(Algorithm::ES256), "bob");
    let mut client = fixture.client();
    assert_eq!(
        text(&mut client, "SHOW transaction_read_only").as_deref(),
        Some("on"),
        "text(SHOW transaction_read_only)"
    );
    run(&mut client, "SELECT auth.init()");
    let verify = "SELECT auth.jwt_verify($1) ->> 'sub'";
    let sub: String = client.query_one(verify, &[&bob]).unwrap().get(0);
    assert_eq!(sub, "bob", "after SELECT auth.init()");
    assert_eq!(
        sqlstate(client.query_one(verify, &[&forged])),
        Code::Signature.sqlstate(),
        "after SELECT auth.init()"
    );
    assert_eq!((user(&mut client), rows(&mut client)), (None, 0), "after SELECT auth.init()");
}

#[test]
fn identities_of_sessions_transactions_and_savepoints() {
    let fixture = SERVERS.beside_others(Preload::Shared);
    let (alice, bob) = (fixture.token("alice"), fixture.token("bob"));
    let mut client = fixture.client();
    assert_eq!(present(&mut client, &alice), SUCCESS, "present(alice)");
    assert_eq!(
        (user(&mut client).as_deref(), rows(&mut client)),
        (Some("alice"), 1),
        "user and rows after alice"
    );
    for end in ["COMMIT", "ROLLBACK"] {
        run(&mut client, "BEGIN READ ONLY");
        assert_eq!(present_locally(&mut client, &bob), SUCCESS, "{end:?}: after BEGIN READ ONLY");
        assert_eq!((user(&mut client).as_deref(), rows(&mut client)), (Some("bob"), 2), "{end:?}");
        run(&mut client, &format!("SAVEPOINT s; SET LOCAL pg_session_jwt.jwt = '{alice}'"));
        assert_eq!(
            (user(&mut client).as_deref(), rows(&mut client)),
            (Some("alice"), 1),
            "{end:?}"
        );
        run(&mut client, "ROLLBACK TO s");
        assert_eq!((user(&mut client).as_deref(), rows(&mut client)), (Some("bob"), 2), "{end:?}");
        run(&mut client, &format!("SET LOCAL pg_session_jwt.jwt = '{alice}'; RELEASE s"));
        assert_eq!(rows(&mut client), 1, "{end:?}: after ROLLBACK TO s");
        assert_eq!(present_locally(&mut client, ""), SUCCESS, "{end:?}: after ROLLBACK TO s");
        assert_eq!((user(&mut client), rows(&mut client)), (None, 0), "{end:?}");
        run(&mut client, end);
        assert_eq!((user(&mut client).as_deref(), rows(&mut client)), (Some("alice"), 1), "{end}");
    }
}

/// A rollback brings nobody back.
#[test]
fn a_refused_token_leaves_nobody_on_a_standby() {
    let fixture = SERVERS.beside_others(Preload::Shared);
    let (alice, bob) = (fixture.token("alice"), fixture.token("bob"));
    let forged = token(&Key::generate(Algorithm::ES256), "bob");
    let expired = fixture.key.sign(&json!({"sub": "bob", "exp": now() - 1}));
    let mut client = fixture.client();
    for (refused, code) in [
        (forged.as_str(), Code::Signature.sqlstate()),
        (&expired, Code::Expired.sqlstate()),
        ("x", Code::Malformed.sqlstate()),
    ] {
        for way in [present, present_locally] {
            assert_eq!(present(&mut client, &alice), SUCCESS, "{way:?}, {refused:?}");
            assert_eq!(way(&mut client, refused), code, "{way:?}, {refused:?}");
            assert_eq!((user(&mut client), rows(&mut client)), (None, 0), "{way:?}, {refused:?}");

            assert_eq!(present(&mut client, &alice), SUCCESS, "{way:?}, {refused:?}");
            run(&mut client, "BEGIN");
            assert_eq!(present_locally(&mut client, &bob), SUCCESS, "{way:?}, {refused:?}");
            run(&mut client, "SAVEPOINT s");
            assert_eq!(way(&mut client, refused), code, "{way:?}, {refused:?}: after SAVEPOINT s");
            run(&mut client, "ROLLBACK TO s");
            assert_eq!((user(&mut client), rows(&mut client)), (None, 0), "{way:?}, {refused:?}");
            run(&mut client, "ROLLBACK");
            assert_eq!((user(&mut client), rows(&mut client)), (None, 0), "{way:?}, {refused:?}");
        }
    }
}

#[test]
fn no_identity_writes_on_a_standby() {
    let fixture = SERVERS.beside_others(Preload::Shared);
    let alice = fixture.token("alice");
    let mut client = fixture.client();
    assert_eq!(present(&mut client, &alice), SUCCESS, "present(alice)");
    for write in [
        "INSERT INTO notes (note) VALUES ('n')",
        "UPDATE notes SET note = 'n'",
        "DELETE FROM notes",
        "SELECT FROM notes FOR UPDATE",
    ] {
        assert_eq!(sqlstate(client.batch_execute(write)), READ_ONLY_SQL_TRANSACTION, "{write}");
        assert_eq!(user(&mut client).as_deref(), Some("alice"), "{write:?}");
    }
}

#[test]
fn a_standby_takes_a_token_from_the_startup_packet() {
    let fixture = SERVERS.beside_others(Preload::Shared);
    let bob = fixture.token("bob");
    let forged = token(&Key::generate(Algorithm::ES256), "bob");
    let started =
        |token: &str| fixture.standby.as_role("app").option("pg_session_jwt.jwt", token).client();
    let mut client = started(&bob);
    assert_eq!(
        (user(&mut client).as_deref(), rows(&mut client)),
        (Some("bob"), 2),
        "user and rows"
    );
    let mut client = started(&forged);
    assert_eq!(
        sqlstate(client.query("SELECT count(*) FROM notes", &[])),
        Code::Signature.sqlstate(),
        "sqlstate(client.query(SELECT count(*) FROM notes, []))"
    );
}

#[test]
fn parallel_workers_of_a_standby_have_the_identity() {
    let fixture = SERVERS.beside_others(Preload::Shared);
    let mut client = fixture.client();
    run(
        &mut client,
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
         SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = off",
    );
    let plan = client.query("EXPLAIN (COSTS OFF) SELECT count(*) FROM notes", &[]).unwrap();
    assert!(plan.iter().any(|row| row.get::<_, &str>(0).contains("Parallel Seq Scan")), "{plan:?}");
    assert_eq!(rows(&mut client), 0, "the rows");
    assert_eq!(present(&mut client, &fixture.token("zoe")), SUCCESS, "present(fixture.token(zoe))");
    assert_eq!(rows(&mut client), 20_000, "the rows after fixture.token(zoe)");
    assert_eq!(present(&mut client, "x"), Code::Malformed.sqlstate(), "present(x)");
    assert_eq!(rows(&mut client), 0, "the rows after x");
}

#[test]
fn a_token_expires_by_the_standbys_clock() {
    let fixture = SERVERS.beside_others(Preload::Shared);
    let mut client = fixture.client();
    let short = fixture.key.sign(&json!({"sub": "alice", "exp": now() + 3}));
    assert_eq!(present(&mut client, &short), SUCCESS, "present(short)");
    assert_eq!(user(&mut client).as_deref(), Some("alice"), "the user after short");
    sleep(Duration::from_secs(3));
    assert_eq!(
        sqlstate(client.query("SELECT count(*) FROM notes", &[])),
        Code::Expired.sqlstate(),
        "sqlstate(client.query(SELECT count(*) FROM notes, [])) after short"
    );
}

#[test]
fn each_server_has_keys_of_its_own() {
    let fixture = Fixture::new(&[]);
    let (first, second) = (&fixture.key, Key::generate(Algorithm::ES256));
    let third = Key::generate(Algorithm::ES256);
    let setting = "pg_session_jwt.providers";
    let mut client = fixture.client();
    assert_eq!(
        present(&mut client, &token(first, "alice")),
        SUCCESS,
        "present(token(first, alice))"
    );

    // The primary's new key is not the standby's, neither by file nor by `ALTER SYSTEM`.
    fixture.primary.append_configuration(&[(setting, &providers(&[&second]))]);
    fixture.primary.reload();
    let mut writer = fixture.primary.as_role("app").client();
    assert_eq!(
        present(&mut writer, &token(first, "alice")),
        Code::Signature.sqlstate(),
        "the primary's new key is not the standby's"
    );
    let alter = format!("ALTER SYSTEM SET {setting} = '{}'", providers(&[&second]));
    run(&mut fixture.primary.admin(), &alter);
    fixture.primary.reload();
    fixture.standby.catch_up(&fixture.primary);
    fixture.standby.reload();
    assert_eq!(
        (user(&mut client).as_deref(), rows(&mut client)),
        (Some("alice"), 1),
        "the primary's new key is not the standby's"
    );
    assert_eq!(
        present(&mut fixture.client(), &token(&second, "bob")),
        Code::Signature.sqlstate(),
        "the primary's new key is not the standby's"
    );

    // The standby's own new key reaches the session that is under way.
    fixture.standby.append_configuration(&[(setting, &providers(&[&third]))]);
    fixture.standby.reload();
    wait_for("the live session to notice", || client.query("SELECT auth.user_id()", &[]).is_err());
    assert_eq!(
        sqlstate(client.query("SELECT count(*) FROM notes", &[])),
        Code::Signature.sqlstate(),
        "the standby's own new key reaches the session that is under way"
    );
    assert_eq!(
        present(&mut client, &token(first, "alice")),
        Code::Signature.sqlstate(),
        "the standby's own new key reaches the session that is under way"
    );
    assert_eq!(
        present(&mut client, &token(&third, "bob")),
        SUCCESS,
        "the standby's own new key reaches the session that is under way"
    );
    assert_eq!(
        (user(&mut client).as_deref(), rows(&mut client)),
        (Some("bob"), 2),
        "the standby's own new key reaches the session that is under way"
    );

    // What is stored for the database stands in a catalog, which the standby shares.
    let alter = format!("ALTER DATABASE postgres SET {setting} = '{}'", providers(&[&second]));
    run(&mut fixture.primary.admin(), &alter);
    fixture.standby.catch_up(&fixture.primary);
    let mut later = fixture.client();
    assert_eq!(
        present(&mut later, &token(&third, "bob")),
        Code::Signature.sqlstate(),
        "what is stored for the database stands in a catalog"
    );
    assert_eq!(
        present(&mut later, &token(&second, "bob")),
        SUCCESS,
        "what is stored for the database stands in a catalog"
    );
    assert_eq!(user(&mut client).as_deref(), Some("bob"), "sessions under way keep what they had");
}

#[test]
fn a_conflict_cancels_a_statement_and_leaves_the_identity() {
    // No conflicts but ours.
    let fixture = Fixture::new(&[("max_standby_streaming_delay", "0"), ("autovacuum", "off")]);
    let (alice, bob) = (fixture.token("alice"), fixture.token("bob"));

    // What the primary does takes precedence over the standby's statements: the one that is
    // cancelled has presented nothing.
    let mut client = fixture.client();
    assert_eq!(present(&mut client, &alice), SUCCESS, "present(alice)");
    let pid = text(&mut client, "SELECT pg_backend_pid()::text").unwrap();
    let waiting = std::thread::spawn({
        let bob = bob.clone();
        move || {
            let wait = "SELECT auth.jwt_session_init($1), pg_sleep(60)";
            run(&mut client, "BEGIN; SELECT FROM notes");
            let code = sqlstate(client.query(wait, &[&bob]));
            run(&mut client, "ROLLBACK");
            (client, code)
        }
    });
    let mut admin = fixture.standby.admin();
    let asleep = format!("SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}");
    wait_for("the statement to sleep", || text(&mut admin, &asleep).as_deref() == Some("PgSleep"));
    run(&mut fixture.primary.admin(), "BEGIN; LOCK TABLE notes; COMMIT");
    let (mut client, code) = waiting.join().unwrap();
    assert_eq!(code, T_R_SERIALIZATION_FAILURE, "after ROLLBACK");
    assert_eq!(
        (user(&mut client).as_deref(), rows(&mut client)),
        (Some("alice"), 1),
        "after ROLLBACK"
    );
}

/// It goes on to its end as it began; the session's identity then writes what is its own.
#[test]
fn a_transaction_outlasts_the_promotion() {
    let fixture = Fixture::new(&[]);
    let (alice, bob) = (fixture.token("alice"), fixture.token("bob"));
    let mut client = fixture.client();
    assert_eq!(present(&mut client, &alice), SUCCESS, "present(alice)");
    let mut within = fixture.client();
    run(&mut within, "BEGIN");
    assert_eq!(present_locally(&mut within, &bob), SUCCESS, "after BEGIN");
    fixture.standby.promote();

    // A transaction that began in recovery goes on to its end as it began.
    assert_eq!(
        (user(&mut within).as_deref(), rows(&mut within)),
        (Some("bob"), 2),
        "user and rows"
    );
    let write = "INSERT INTO notes (note) VALUES ('n')";
    run(&mut within, "SAVEPOINT s");
    assert_eq!(
        sqlstate(within.batch_execute(write)),
        READ_ONLY_SQL_TRANSACTION,
        "after SAVEPOINT s"
    );
    run(&mut within, "ROLLBACK TO s");
    assert_eq!(user(&mut within).as_deref(), Some("bob"), "after ROLLBACK TO s");
    run(&mut within, "COMMIT");
    assert_eq!(user(&mut within), None, "after COMMIT");
    assert_eq!(sqlstate(within.batch_execute(write)), INSUFFICIENT_PRIVILEGE, "after COMMIT");

    // The session's identity is still there, and writes what is its own.
    assert_eq!(
        user(&mut client).as_deref(),
        Some("alice"),
        "the session's identity is still there"
    );
    assert_eq!(client.execute(write, &[]).unwrap(), 1, "the session's identity is still there");
    assert_eq!(rows(&mut client), 2, "the session's identity is still there");
    assert_eq!(
        client.execute("UPDATE notes SET note = 'm'", &[]).unwrap(),
        2,
        "the session's identity is still there"
    );
    for write in ["INSERT INTO notes VALUES ('bob', 'n')", "UPDATE notes SET owner = 'bob'"] {
        assert_eq!(sqlstate(client.batch_execute(write)), INSUFFICIENT_PRIVILEGE, "{write}");
    }
    assert_eq!(
        client.execute("DELETE FROM notes", &[]).unwrap(),
        2,
        "after UPDATE notes SET note = 'm'"
    );
    assert_eq!(present(&mut client, &bob), SUCCESS, "the session's identity is still there");
    assert_eq!(rows(&mut client), 2, "the session's identity is still there");
}
