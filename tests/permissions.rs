//! What a token allows on tables: `auth.allows()`, the policies and the event triggers that ask it,
//! and templates for tokens. All as roles that are not superusers, with tokens as Turso issues
//! them.

use std::ops::Deref;

use harness::{Preload, Site, now, present, run, sqlstate};
use postgres::{Client, SimpleQueryMessage};
use serde_json::{Value, json};

/// A site with the role `dev`, which may create objects in the database and owns some.
struct Fixture(Site);

impl Deref for Fixture {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.0
    }
}

const TABLES: &str = "
    CREATE ROLE dev LOGIN; CREATE ROLE other; CREATE ROLE granted; GRANT other, granted TO dev;
    GRANT CREATE ON DATABASE postgres TO dev;
    GRANT CREATE ON SCHEMA public TO dev;
    CREATE SCHEMA hidden AUTHORIZATION dev;
    SET ROLE dev;
    CREATE TABLE comments (id int PRIMARY KEY, body text);
    CREATE TABLE secrets (id int PRIMARY KEY, body text);
    CREATE TABLE \"Comments\" (id int);
    CREATE TABLE \"all\" (id int);
    CREATE TABLE hidden.comments (id int);
    INSERT INTO comments SELECT n, 'x' FROM generate_series(1, 3) n;
    INSERT INTO secrets SELECT n, 'x' FROM generate_series(1, 3) n;
    GRANT ALL ON comments, secrets, \"Comments\", \"all\", hidden.comments TO app;
    GRANT USAGE ON SCHEMA hidden TO app;
    RESET ROLE;
";

impl Fixture {
    fn new() -> Self {
        let site = Site::start(Preload::Shared, &[]);
        run(&mut site.cluster.admin(), TABLES);
        Self(site)
    }

    fn admin(&self) -> Client {
        self.cluster.admin()
    }

    fn dev(&self) -> Client {
        self.cluster.as_role("dev").client()
    }

    /// Creates what the statements of [`COMMANDS`] are about.
    fn create_objects(&self) {
        let mut admin = self.admin();
        run(&mut admin, "CREATE DATABASE mine");
        run(
            &mut admin,
            "ALTER DATABASE mine OWNER TO dev;
             CREATE FOREIGN DATA WRAPPER wrapper; GRANT USAGE ON FOREIGN DATA WRAPPER wrapper TO dev",
        );
        run(&mut self.dev(), MORE);
    }

    /// Gives the session a token with these claims.
    fn be(&self, client: &mut Client, claims: &Value) {
        let mut all = json!({"sub": "alice", "exp": now() + 600});
        let (Some(all_members), Some(members)) = (all.as_object_mut(), claims.as_object()) else {
            panic!("claims are an object: {claims}");
        };
        all_members.extend(members.clone());
        assert_eq!(present(client, &self.key.sign(&all)), "00000");
    }

    /// Gives the session a token that grants these permissions, as `table:action,action` has them.
    fn grant(&self, client: &mut Client, permissions: &[&str]) {
        self.be(client, &perm(permissions));
    }
}

/// The claim `perm` for these permissions; `all` is null.
fn perm(permissions: &[&str]) -> Value {
    let entries = permissions.iter().map(|permission| {
        let (table, actions) = permission.rsplit_once(':').unwrap();
        let tables = if table == "all" { Value::Null } else { json!([table]) };
        json!({"t": tables, "a": actions.split(',').collect::<Vec<_>>()})
    });
    json!({"perm": entries.collect::<Vec<_>>()})
}

/// What the first column of a query is, row by row; or the SQLSTATE.
fn answer(client: &mut Client, sql: &str) -> String {
    let messages = match client.simple_query(sql) {
        Ok(messages) => messages,
        error => return sqlstate(error),
    };
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("-").to_owned()),
        _ => None,
    });
    rows.collect::<Vec<_>>().join(" ")
}

/// The SQLSTATE of statements that are rolled back.
fn attempt(client: &mut Client, sql: &str) -> String {
    run(client, "BEGIN");
    let state = sqlstate(client.batch_execute(sql));
    run(client, "ROLLBACK");
    state
}

fn allows(client: &mut Client, action: &str, table: &str) -> String {
    answer(client, &format!("SELECT auth.allows('{action}', {table})"))
}

#[test]
fn claims_decide() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    assert_eq!(allows(&mut client, "data_read", "'comments'"), "f");
    assert_eq!(allows(&mut client, "data_read", "NULL"), "f");
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

    fixture.grant(&mut client, &["comments:data_read"]);
    assert_eq!(allows(&mut client, "data_write", "'comments'"), "22023");
    assert_eq!(allows(&mut client, "DATA_READ", "'comments'"), "22023");
    assert_eq!(answer(&mut client, "SELECT auth.allows(NULL, 'comments')"), "-");
    // A relation that is not there, whatever is granted.
    fixture.be(&mut client, &json!({"a": "rw"}));
    assert_eq!(allows(&mut client, "data_read", "'comments'"), "t");
    assert_eq!(allows(&mut client, "data_read", "4000000000::oid::regclass"), "f");
    assert_eq!(allows(&mut client, "data_read", "0::oid::regclass"), "f");
    // A token that has expired is an error, not a no.
    let expired = fixture.key.sign(&json!({"sub": "alice", "exp": now() + 1, "a": "rw"}));
    assert_eq!(present(&mut client, &expired), "00000");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(allows(&mut client, "data_read", "'comments'"), "28J04");
    assert_eq!(allows(&mut client, "data_read", "NULL"), "28J04");
}

#[test]
fn names_are_those_of_the_catalogs() {
    let fixture = Fixture::new();
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
    // A temporary table of the name is none of `public`.
    fixture.grant(&mut client, &["comments:data_read"]);
    run(&mut client, "RESET search_path; CREATE TEMP TABLE comments (id int)");
    assert_eq!(allows(&mut client, "data_read", "'comments'"), "f");
    assert_eq!(allows(&mut client, "data_read", "'public.comments'"), "t");
}

/// The function that answers is kept by its place in a plan, which outlives names and tokens.
#[test]
fn answers_that_are_kept_follow_names_and_tokens() {
    let fixture = Fixture::new();
    let mut dev = fixture.dev();
    let mut client = fixture.client();
    run(&mut client, "SET plan_cache_mode = force_generic_plan");
    let table = answer(&mut client, "SELECT 'comments'::regclass::oid");
    let ask = client
        .prepare(
            "SELECT auth.allows(a, t) FROM (VALUES ($1::text, $2::oid)) v (a, t), \
                  generate_series(1, 3)",
        )
        .unwrap();
    // A function keeps its call sites for as long as the session lasts.
    run(
        &mut fixture.admin(),
        &format!(
            "CREATE FUNCTION sticky() RETURNS boolean LANGUAGE plpgsql STABLE
             AS $$ BEGIN RETURN auth.allows('data_read', {table}); END $$;
         CREATE FUNCTION free(a text, t oid) RETURNS boolean LANGUAGE plpgsql STABLE
             AS $$ BEGIN RETURN auth.allows(a, t); END $$"
        ),
    );
    let oid: u32 = table.parse().unwrap();
    let asked = |client: &mut Client, action: &str| {
        let rows = client.query(&ask, &[&action, &oid]).unwrap();
        let answers: Vec<bool> = rows.iter().map(|row| row.get(0)).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        let free = answer(client, &format!("SELECT free('{action}', {oid})"));
        assert_eq!(free == "t", answers[0]);
        if action == "data_read" {
            assert_eq!(answer(client, "SELECT sticky()") == "t", answers[0]);
        }
        answers[0]
    };
    fixture.grant(&mut client, &["comments:data_read"]);
    assert!(asked(&mut client, "data_read"));
    assert!(!asked(&mut client, "data_add"));
    // Another token, and none.
    fixture.grant(&mut client, &["secrets:data_read"]);
    assert!(!asked(&mut client, "data_read"));
    assert_eq!(present(&mut client, ""), "00000");
    assert!(!asked(&mut client, "data_read"));
    fixture.grant(&mut client, &["comments:data_read"]);
    assert!(asked(&mut client, "data_read"));

    // Renamed by another session, each in turn.
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
        assert!(!asked(&mut client, "data_read"), "{rename}");
        run(&mut dev, back);
        assert!(asked(&mut client, "data_read"), "{back}");
    }
    // A schema that is renamed: no relation changes.
    fixture.grant(&mut client, &["hidden.kept:data_read", "comments:data_read"]);
    run(&mut dev, "ALTER TABLE hidden.comments RENAME TO other; CREATE TABLE hidden.kept ()");
    let kept: u32 = answer(&mut client, "SELECT 'hidden.kept'::regclass::oid").parse().unwrap();
    let kept_allowed = |client: &mut Client| {
        let answers = answer(client, &format!("SELECT free('data_read', {kept})"));
        answers == "t"
    };
    assert!(kept_allowed(&mut client));
    run(&mut dev, "ALTER SCHEMA hidden RENAME TO shown");
    assert!(!kept_allowed(&mut client));
    run(&mut dev, "ALTER SCHEMA shown RENAME TO hidden");
    assert!(kept_allowed(&mut client));

    // In one's own transaction, and back.
    let mut own = fixture.dev();
    run(&mut own, "SET plan_cache_mode = force_generic_plan");
    fixture.grant(&mut own, &["comments:data_read"]);
    let sticky = "SELECT sticky()";
    assert_eq!(answer(&mut own, sticky), "t");
    run(&mut own, "BEGIN; ALTER TABLE comments RENAME TO c");
    assert_eq!(answer(&mut own, sticky), "f");
    run(&mut own, "SAVEPOINT s; ALTER TABLE c RENAME TO comments");
    assert_eq!(answer(&mut own, sticky), "t");
    run(&mut own, "ROLLBACK TO s");
    assert_eq!(answer(&mut own, sticky), "f");
    run(&mut own, "ROLLBACK");
    assert_eq!(answer(&mut own, sticky), "t");
    // At one place in a plan, which lasts for a transaction: other names, actions, tables, tokens.
    let free = format!("SELECT free('data_read', {oid})");
    run(&mut own, "BEGIN");
    assert_eq!(answer(&mut own, &free), "t");
    run(&mut own, "ALTER TABLE comments RENAME TO c");
    assert_eq!(answer(&mut own, &free), "f");
    run(&mut own, "ALTER TABLE c RENAME TO comments");
    assert_eq!(answer(&mut own, &free), "t");
    let kept_free = format!("SELECT free('data_read', {kept})");
    fixture.grant(&mut own, &["hidden.kept:data_read"]);
    // Something else finds out who it is before.
    assert_eq!(answer(&mut own, "SELECT auth.user_id()"), "alice");
    assert_eq!(answer(&mut own, &free), "f");
    assert_eq!(answer(&mut own, &kept_free), "t");
    // A cursor's plan goes on whatever happens.
    let cursor = format!(
        "DECLARE c CURSOR FOR SELECT auth.allows('data_read', {kept}) FROM generate_series(1, 2)"
    );
    run(&mut own, &cursor);
    assert_eq!(answer(&mut own, "FETCH c"), "t");
    run(&mut own, "ALTER SCHEMA hidden RENAME TO shown");
    assert_eq!(answer(&mut own, "FETCH c"), "f");
    run(&mut own, "ROLLBACK");
    fixture.grant(&mut own, &["comments:data_read"]);
    let each = format!(
        "SELECT auth.allows(a, t) FROM (VALUES ('data_read', {oid}::oid), ('data_add', {oid}),
         ('data_read', {oid}), ('data_read', {kept}), ('data_read', NULL), ('data_read', {oid}))
         v (a, t)"
    );
    assert_eq!(answer(&mut own, &each), "t f t f f t");
    // It is dropped, and another one takes its name.
    run(&mut own, "BEGIN; DROP TABLE comments; CREATE TABLE comments ()");
    assert_eq!(answer(&mut own, sticky), "f");
    assert_eq!(allows(&mut own, "data_read", "'comments'"), "t");
    run(&mut own, "ROLLBACK");
    assert_eq!(answer(&mut own, sticky), "t");
}

#[test]
fn request_claims_and_parallel_workers() {
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
    assert_eq!(answer(&mut client, count), "0");
    fixture.grant(&mut client, &["many:data_read"]);
    assert_eq!(answer(&mut client, count), "20000");
    fixture.grant(&mut client, &["comments:data_read"]);
    assert_eq!(answer(&mut client, count), "0");

    let claims = perm(&["comments:data_read"]).to_string();
    let mut client = fixture.client();
    run(&mut client, &format!("SET request.jwt.claims = '{claims}'"));
    assert_eq!(allows(&mut client, "data_read", "'comments'"), "f");
    run(&mut fixture.admin(), "ALTER ROLE app SET pg_session_jwt.trust_request_claims = on");
    let mut client = fixture.client();
    assert_eq!(allows(&mut client, "data_read", "'comments'"), "f");
    run(&mut client, &format!("SET request.jwt.claims = '{claims}'"));
    assert_eq!(allows(&mut client, "data_read", "'comments'"), "t");
    assert_eq!(allows(&mut client, "data_read", "'secrets'"), "f");
    run(&mut client, "SET request.jwt.claims = ''");
    assert_eq!(allows(&mut client, "data_read", "'comments'"), "f");
}

const DATA: [(&str, &str); 4] = [
    ("data_read", "SELECT count(*) FROM comments"),
    ("data_add", "INSERT INTO comments VALUES (9)"),
    ("data_update", "UPDATE comments SET body = 'y'"),
    ("data_delete", "DELETE FROM comments"),
];

/// What each of these statements comes to: how many rows it reads or touches, or the SQLSTATE.
fn data(client: &mut Client) -> String {
    let mut done = Vec::new();
    for (_, sql) in DATA {
        run(client, "BEGIN");
        done.push(match client.simple_query(sql) {
            Err(error) => sqlstate::<()>(Err(error)),
            Ok(messages) => messages
                .into_iter()
                .find_map(|message| match message {
                    SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    SimpleQueryMessage::CommandComplete(count) => Some(count.to_string()),
                    _ => None,
                })
                .unwrap_or_default(),
        });
        run(client, "ROLLBACK");
    }
    done.join(" ")
}

#[test]
fn protected_tables_ask_the_token() {
    let fixture = Fixture::new();
    let mut dev = fixture.dev();
    let mut client = fixture.client();
    assert_eq!(data(&mut client), "3 1 3 3");
    // Not by others than the owner, and for tables only.
    for sql in ["SELECT auth.protect('comments')", "SELECT auth.protect('comments', true)"] {
        assert_eq!(attempt(&mut client, sql), "42501", "{sql}");
    }
    assert_eq!(
        attempt(&mut dev, "CREATE VIEW v AS TABLE comments; SELECT auth.protect('v')"),
        "42809"
    );
    assert_eq!(attempt(&mut dev, "SELECT auth.protect(NULL)"), "22004");
    assert_eq!(attempt(&mut dev, "SELECT auth.protect('comments', NULL)"), "22004");
    assert_eq!(data(&mut client), "3 1 3 3");

    let policies = "SELECT string_agg(polname || ' ' || polcmd::text || polpermissive, ', '
                    ORDER BY polname) FROM pg_policy";
    let four = |permissive: &str| {
        [("add", "a"), ("delete", "d"), ("read", "r"), ("update", "w")]
            .map(|(name, command)| format!("pg_session_jwt_data_{name} {command}{permissive}"))
            .join(", ")
    };
    for _ in 0..2 {
        run(&mut dev, "SELECT auth.protect('comments')");
        assert_eq!(answer(&mut dev, policies), four("true"));
    }
    assert_eq!(data(&mut client), "0 42501 0 0");
    for (permissions, expected) in [
        ("comments:data_read", "3 42501 0 0"),
        ("comments:data_add", "0 1 0 0"),
        ("comments:data_update", "0 42501 3 0"),
        ("comments:data_delete", "0 42501 0 3"),
        ("all:data_read,data_add,data_update,data_delete", "3 1 3 3"),
        ("secrets:data_read,data_add,data_update,data_delete", "0 42501 0 0"),
        ("comments:schema_add,schema_update,schema_delete", "0 42501 0 0"),
    ] {
        fixture.grant(&mut client, &[permissions]);
        assert_eq!(data(&mut client), expected, "{permissions}");
    }
    // A table of the same name in the caller's own places changes nothing.
    fixture.grant(&mut client, &["comments:data_read"]);
    run(&mut client, "CREATE TEMP TABLE comments (); SET search_path = pg_temp, hidden, public");
    assert_eq!(answer(&mut client, "SELECT count(*) FROM public.comments"), "3");
    run(&mut client, "DROP TABLE pg_temp.comments; RESET search_path");
    // The policies stay the table's through renames, and follow the new name.
    run(&mut dev, "ALTER TABLE comments RENAME TO remarks; ALTER TABLE secrets RENAME TO comments");
    assert_eq!(answer(&mut client, "SELECT count(*) FROM remarks"), "0");
    fixture.grant(&mut client, &["remarks:data_read"]);
    assert_eq!(answer(&mut client, "SELECT count(*) FROM remarks"), "3");
    run(&mut dev, "ALTER TABLE comments RENAME TO secrets; ALTER TABLE remarks RENAME TO comments");

    // Permissive policies of others count beside it, of which a warning tells; not beside restrictive
    // ones.
    run(&mut dev, "CREATE POLICY few ON comments USING (id < 3)");
    let mut wire = harness::Wire::connect(&fixture.cluster.as_role("dev")).unwrap();
    let warned = |wire: &mut harness::Wire, sql: &str| {
        wire.query(sql).unwrap();
        wire.notices().iter().map(|notice| notice.sqlstate().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(warned(&mut wire, "SELECT auth.protect('comments')"), ["01000"]);
    fixture.be(&mut client, &json!({}));
    assert_eq!(data(&mut client), "2 42501 2 2");
    assert!(warned(&mut wire, "SELECT auth.protect('comments', true)").is_empty());
    assert_eq!(data(&mut client), "0 42501 0 0");
    fixture.grant(&mut client, &["comments:data_read,data_update"]);
    assert_eq!(data(&mut client), "2 42501 2 0");
    fixture.be(&mut client, &json!({"a": "rw"}));
    assert_eq!(data(&mut client), "2 42501 2 2");
    assert_eq!(answer(&mut dev, policies), format!("few *true, {}", four("false")));

    // Unprotecting does not open the table, and is the owner's.
    assert_eq!(attempt(&mut client, "SELECT auth.unprotect('comments')"), "42501");
    run(&mut dev, "DROP POLICY few ON comments");
    assert_eq!(warned(&mut wire, "SELECT auth.unprotect('comments')"), ["00000"]);
    assert_eq!(answer(&mut dev, policies), "-");
    assert_eq!(data(&mut client), "0 42501 0 0");
    run(&mut dev, "SELECT auth.unprotect('comments')");
    // A protected table can be dropped.
    run(&mut dev, "SELECT auth.protect('comments'); DROP TABLE comments");
}

#[test]
fn the_extension_goes_with_its_policies_or_not_at_all() {
    let fixture = Fixture::new();
    let (mut admin, mut client) = (fixture.admin(), fixture.client());
    run(&mut admin, "SELECT auth.protect_schema(); SELECT auth.protect_schema()");
    assert_eq!(sqlstate(admin.batch_execute("DROP EXTENSION pg_session_jwt")), "2BP01");
    run(&mut admin, "SELECT auth.unprotect_schema(); SELECT auth.unprotect_schema()");
    assert_eq!(attempt(&mut admin, "DROP EXTENSION pg_session_jwt"), "00000");
    run(&mut admin, "SELECT auth.protect('comments')");
    assert_eq!(sqlstate(admin.batch_execute("DROP EXTENSION pg_session_jwt")), "2BP01");
    run(&mut admin, "SELECT auth.protect_schema(); DROP EXTENSION pg_session_jwt CASCADE");
    assert_eq!(data(&mut client), "0 42501 0 0");
    run(&mut fixture.dev(), "CREATE TABLE free ()");
}

#[test]
fn only_superusers_protect_the_schema() {
    let fixture = Fixture::new();
    let (mut admin, mut dev) = (fixture.admin(), fixture.dev());
    assert_eq!(attempt(&mut dev, "SELECT auth.protect_schema()"), "42501");
    assert_eq!(attempt(&mut dev, "CREATE TABLE x ()"), "00000");
    run(&mut admin, "SELECT auth.protect_schema()");
    assert_eq!(attempt(&mut dev, "SELECT auth.unprotect_schema()"), "42501");
    assert_eq!(attempt(&mut dev, "CREATE TABLE x ()"), "42501");
    // Superusers need no token, wherever they act as themselves.
    assert_eq!(
        attempt(&mut admin, "CREATE TABLE x (); DROP TABLE x; ALTER TABLE comments RENAME TO c"),
        "00000"
    );
    assert_eq!(attempt(&mut admin, "SET ROLE dev; CREATE TABLE x ()"), "42501");
    // Nor does a setting that turns ordinary triggers off help.
    run(&mut admin, "GRANT SET ON PARAMETER session_replication_role TO dev");
    assert_eq!(
        attempt(&mut dev, "SET session_replication_role = replica; CREATE TABLE x ()"),
        "42501"
    );
    // What is temporary is the session's own.
    let temporary = "CREATE TEMP TABLE x (id serial PRIMARY KEY); CREATE INDEX ON x (id);
        ALTER TABLE x ADD c int; COMMENT ON COLUMN x.c IS 'c'; CREATE VIEW pg_temp.v AS TABLE x;
        CREATE RULE r AS ON UPDATE TO x DO INSTEAD NOTHING; DROP RULE r ON x;
        DROP TABLE x CASCADE; CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'";
    assert_eq!(attempt(&mut dev, temporary), "00000");
    // A token that has expired is told so.
    let expired = fixture.key.sign(&json!({"sub": "alice", "exp": now() + 1, "a": "rw"}));
    assert_eq!(present(&mut dev, &expired), "00000");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(attempt(&mut dev, "CREATE TABLE x ()"), "28J04");
    run(&mut admin, "SELECT auth.unprotect_schema()");
    assert_eq!(attempt(&mut dev, "CREATE TABLE x ()"), "00000");
}

/// Statements of a role that owns the tables, and the permissions with which alone each succeeds:
/// it fails without any one of them, and with all actions on other tables.
const COMMANDS: &[(&str, &[&str])] = &[
    ("CREATE TABLE fresh (id serial PRIMARY KEY, n int UNIQUE)", &["fresh:schema_add"]),
    ("CREATE TABLE hidden.fresh (LIKE comments INCLUDING ALL)", &["hidden.fresh:schema_add"]),
    ("CREATE TABLE fresh AS TABLE secrets", &["fresh:schema_add"]),
    ("SELECT * INTO fresh FROM comments", &["fresh:schema_add"]),
    ("CREATE VIEW fresh AS TABLE comments", &["fresh:schema_add"]),
    ("CREATE MATERIALIZED VIEW fresh AS TABLE comments", &["fresh:schema_add"]),
    ("CREATE TABLE fresh () INHERITS (secrets)", &["fresh:schema_add", "secrets:schema_update"]),
    ("CREATE TEMP TABLE fresh () INHERITS (secrets)", &["secrets:schema_update"]),
    (
        "CREATE TABLE parted1 PARTITION OF parted DEFAULT",
        &["parted1:schema_add", "parted:schema_update"],
    ),
    ("CREATE INDEX ON comments (body)", &["comments:schema_update"]),
    ("CREATE STATISTICS st ON id, body FROM comments", &["comments:schema_update"]),
    ("CREATE POLICY p ON comments", &["comments:schema_update"]),
    ("CREATE RULE r AS ON DELETE TO comments DO INSTEAD NOTHING", &["comments:schema_update"]),
    (
        "CREATE TRIGGER t BEFORE UPDATE ON comments FOR EACH ROW
      EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        &["comments:schema_update"],
    ),
    ("CREATE SEQUENCE s", &["all:schema_add"]),
    ("CREATE SCHEMA fresh", &["all:schema_add"]),
    (
        "CREATE SCHEMA fresh CREATE TABLE t (id serial PRIMARY KEY) CREATE VIEW v AS TABLE t",
        &["all:schema_add"],
    ),
    (
        "CREATE SCHEMA fresh GRANT SELECT ON public.secrets TO other",
        &["all:schema_add", "all:schema_update"],
    ),
    ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", &["all:schema_add"]),
    ("CREATE TYPE kind AS ENUM ('a')", &["all:schema_add"]),
    ("CREATE DOMAIN positive AS int CHECK (VALUE > 0)", &["all:schema_add"]),
    ("ALTER TABLE comments ADD c int DEFAULT 7 CHECK (c > 0)", &["comments:schema_update"]),
    ("ALTER TABLE comments ADD c serial", &["comments:schema_update"]),
    ("ALTER TABLE comments ALTER id ADD GENERATED ALWAYS AS IDENTITY", &["comments:schema_update"]),
    ("ALTER TABLE comments ALTER body TYPE varchar", &["comments:schema_update"]),
    ("ALTER TABLE comments DROP COLUMN body", &["comments:schema_update", "child:schema_update"]),
    ("ALTER TABLE secrets DROP COLUMN body", &["secrets:schema_update"]),
    ("ALTER TABLE comments DROP CONSTRAINT comments_pkey", &["comments:schema_update"]),
    (
        "ALTER TABLE viewed DROP COLUMN id CASCADE",
        &["viewed:schema_update", "viewing:schema_delete"],
    ),
    (
        "ALTER TABLE referred DROP CONSTRAINT referred_pkey CASCADE",
        &["referred:schema_update", "referring:schema_update"],
    ),
    ("ALTER TABLE comments DISABLE ROW LEVEL SECURITY", &["comments:schema_update"]),
    ("ALTER TABLE comments RENAME body TO text", &["comments:schema_update"]),
    ("ALTER TABLE comments RENAME CONSTRAINT comments_pkey TO k", &["comments:schema_update"]),
    ("ALTER INDEX comments_pkey SET (fillfactor = 50)", &["comments:schema_update"]),
    ("COMMENT ON TABLE comments IS 'c'", &["comments:schema_update"]),
    ("COMMENT ON COLUMN comments.id IS 'c'", &["comments:schema_update"]),
    ("COMMENT ON CONSTRAINT comments_pkey ON comments IS 'c'", &["comments:schema_update"]),
    ("ALTER VIEW viewing SET (security_barrier)", &["viewing:schema_update"]),
    ("ALTER TABLE comments INHERIT secrets", &["all:schema_update"]),
    ("ALTER TABLE child NO INHERIT comments", &["all:schema_update"]),
    ("ALTER TABLE parted ATTACH PARTITION part2 FOR VALUES IN (2)", &["all:schema_update"]),
    ("ALTER TABLE parted DETACH PARTITION part1", &["all:schema_update"]),
    // No name changes its meaning by what a token may do with either.
    ("ALTER TABLE secrets RENAME TO fresh", &["all:schema_update"]),
    ("ALTER TABLE comments RENAME TO fresh", &["all:schema_update"]),
    ("ALTER INDEX comments RENAME TO fresh", &["all:schema_update"]),
    ("ALTER VIEW viewing RENAME TO fresh", &["all:schema_update"]),
    ("ALTER SEQUENCE loose RENAME TO fresh", &["all:schema_update"]),
    ("ALTER SCHEMA hidden RENAME TO fresh", &["all:schema_update"]),
    ("ALTER TABLE hidden.other SET SCHEMA public", &["all:schema_update"]),
    ("ALTER SEQUENCE loose OWNED BY comments.id", &["all:schema_update"]),
    ("GRANT SELECT ON comments TO other", &["all:schema_update"]),
    ("REVOKE SELECT ON comments FROM app", &["all:schema_update"]),
    ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO other", &["all:schema_update"]),
    ("REFRESH MATERIALIZED VIEW kept", &["kept:schema_update"]),
    ("DROP TABLE comments CASCADE", &["comments:schema_delete", "child:schema_delete"]),
    ("DROP TABLE viewed CASCADE", &["viewed:schema_delete", "viewing:schema_delete"]),
    ("DROP TABLE referred CASCADE", &["referred:schema_delete", "referring:schema_update"]),
    ("DROP TABLE parted", &["parted:schema_delete", "part1:schema_delete"]),
    ("DROP TABLE secrets, \"all\"", &["secrets:schema_delete", "\"all\":schema_delete"]),
    ("DROP TABLE \"Comments\"", &["\"Comments\":schema_delete"]),
    ("DROP VIEW viewing", &["viewing:schema_delete"]),
    ("DROP INDEX secrets_body", &["secrets:schema_update"]),
    ("DROP POLICY p ON secrets", &["secrets:schema_update"]),
    ("DROP TRIGGER t ON secrets", &["secrets:schema_update"]),
    ("DROP RULE r ON secrets", &["secrets:schema_update"]),
    ("DROP SEQUENCE loose", &["all:schema_delete"]),
    ("DROP SCHEMA hidden CASCADE", &["all:schema_delete"]),
    ("DROP OWNED BY other", &["all:schema_delete"]),
    // It revokes what the role has been granted, too.
    ("DROP OWNED BY granted", &["all:schema_delete", "all:schema_update"]),
    ("DROP OWNED BY dev", &["all:schema_delete", "all:schema_update"]),
    ("DO 'BEGIN DROP INDEX secrets_body; END'", &["secrets:schema_update"]),
    (
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1; DROP INDEX secrets_body",
        &["secrets:schema_update"],
    ),
    ("CREATE INDEX new ON comments (body); DROP INDEX new", &["comments:schema_update"]),
    ("COMMENT ON SCHEMA hidden IS 'h'", &["all:schema_update"]),
    // A part of a table changes what the table means, and so does what replaces or ties it.
    ("CREATE UNIQUE INDEX ON comments (id)", &["comments:schema_update"]),
    ("CREATE POLICY p ON comments USING (true)", &["comments:schema_update"]),
    ("CREATE OR REPLACE RULE r AS ON DELETE TO secrets DO NOTHING", &["secrets:schema_update"]),
    (
        "CREATE OR REPLACE TRIGGER t BEFORE UPDATE ON secrets FOR EACH ROW
         EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        &["secrets:schema_update"],
    ),
    (
        "CREATE CONSTRAINT TRIGGER c AFTER UPDATE ON secrets FOR EACH ROW
         EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        &["secrets:schema_update"],
    ),
    ("CREATE OR REPLACE VIEW fresh AS SELECT 1", &["fresh:schema_add"]),
    ("CREATE OR REPLACE VIEW viewing AS SELECT 1 AS id", &["viewing:schema_update"]),
    ("CREATE OR REPLACE VIEW viewing AS SELECT 1 AS id, 2 AS x", &["viewing:schema_update"]),
    (
        "CREATE TABLE fresh (id int REFERENCES comments)",
        &["fresh:schema_add", "comments:schema_update"],
    ),
    ("CREATE TABLE fresh (id int PRIMARY KEY, up int REFERENCES fresh)", &["fresh:schema_add"]),
    (
        "ALTER TABLE part2 ADD FOREIGN KEY (n) REFERENCES comments",
        &["part2:schema_update", "comments:schema_update"],
    ),
    (
        "ALTER TABLE part2 ADD c int REFERENCES comments",
        &["part2:schema_update", "comments:schema_update"],
    ),
    (
        "ALTER TABLE parted ADD FOREIGN KEY (n) REFERENCES comments",
        &["parted:schema_update", "comments:schema_update"],
    ),
    ("CREATE SEQUENCE s OWNED BY comments.id", &["all:schema_add", "comments:schema_update"]),
    // All that is done to a table in the transaction that creates it.
    (
        "CREATE TABLE fresh (id int); CREATE INDEX ON fresh (id); CREATE POLICY p ON fresh;
         ALTER TABLE fresh ADD PRIMARY KEY (id); COMMENT ON TABLE fresh IS 'f'",
        &["fresh:schema_add"],
    ),
    (
        "SAVEPOINT s; CREATE TABLE fresh (); RELEASE s; ALTER TABLE fresh ADD c int",
        &["fresh:schema_add"],
    ),
    ("CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", &["all:schema_add"]),
    (
        "CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 2'",
        &["all:schema_update"],
    ),
    (
        "CREATE OR REPLACE AGGREGATE total(int) (sfunc = int4pl, stype = int)",
        &["all:schema_update"],
    ),
    (
        "CREATE OPERATOR === (leftarg = int, rightarg = int, function = int4eq, commutator = ==)",
        &["all:schema_add", "all:schema_update"],
    ),
    (
        "CREATE OPERATOR !== (leftarg = int, rightarg = int, function = int4ne, negator = ==)",
        &["all:schema_add", "all:schema_update"],
    ),
    // With its child.
    (
        "CREATE PUBLICATION fresh FOR TABLE comments",
        &["all:schema_add", "comments:schema_update", "child:schema_update"],
    ),
    ("CREATE PUBLICATION fresh FOR TABLE secrets", &["all:schema_add", "secrets:schema_update"]),
    ("ALTER PUBLICATION pg_temp ADD TABLE comments", &["all:schema_update"]),
    // The names of temporary objects' schema make nothing temporary.
    ("DROP PUBLICATION pg_temp", &["all:schema_delete"]),
    ("DROP SERVER pg_temp CASCADE", &["all:schema_delete"]),
    ("CREATE PUBLICATION pg_temp2", &["all:schema_add"]),
    ("COMMENT ON PUBLICATION pg_temp IS 'p'", &["all:schema_update"]),
    ("CREATE TABLE pg_temp_fresh ()", &["pg_temp_fresh:schema_add"]),
    ("DROP POLICY pg_temp ON secrets", &["secrets:schema_update"]),
    // Only the statistics are temporary.
    ("CREATE STATISTICS pg_temp.st ON id, body FROM comments", &["comments:schema_update"]),
    ("DROP STATISTICS stats", &["secrets:schema_update"]),
    // What fires no event trigger, in some version of Postgres at least.
    ("REINDEX TABLE comments", &["comments:schema_update"]),
    ("REINDEX INDEX secrets_body", &["secrets:schema_update"]),
    ("REINDEX TABLE hidden.other", &["hidden.other:schema_update"]),
    ("CLUSTER comments USING comments_pkey", &["comments:schema_update"]),
    ("TRUNCATE comments", &["comments:schema_update"]),
    ("TRUNCATE comments, secrets", &["comments:schema_update", "secrets:schema_update"]),
    ("TRUNCATE referred CASCADE", &["all:schema_update"]),
    ("DO 'BEGIN TRUNCATE comments; END'", &["comments:schema_update"]),
    ("REASSIGN OWNED BY other TO dev", &["all:schema_update"]),
    ("EXPLAIN ANALYZE CREATE TABLE fresh AS TABLE secrets", &["fresh:schema_add"]),
    ("EXPLAIN (ANALYZE) SELECT * INTO hidden.fresh FROM comments", &["hidden.fresh:schema_add"]),
    ("EXPLAIN ANALYZE CREATE MATERIALIZED VIEW fresh AS SELECT 1", &["fresh:schema_add"]),
    ("ALTER DATABASE mine SET work_mem = '1MB'", &["all:schema_update"]),
    ("ALTER DATABASE mine OWNER TO dev", &["all:schema_update"]),
    ("GRANT CREATE ON DATABASE mine TO other", &["all:schema_update"]),
    ("COMMENT ON DATABASE mine IS 'm'", &["all:schema_update"]),
    ("ALTER DATABASE mine CONNECTION LIMIT 3", &["all:schema_update"]),
    ("DO 'BEGIN EXECUTE ''DROP TABLE \"Comments\"''; END'", &["\"Comments\":schema_delete"]),
];

const MORE: &str = "
    CREATE TABLE child () INHERITS (comments);
    CREATE TABLE parted (n int) PARTITION BY LIST (n);
    CREATE TABLE part1 PARTITION OF parted FOR VALUES IN (1);
    CREATE TABLE part2 (n int);
    CREATE TABLE viewed (id int, x int); CREATE VIEW viewing AS SELECT id FROM viewed;
    CREATE MATERIALIZED VIEW kept AS SELECT 1;
    CREATE TABLE referred (id int PRIMARY KEY);
    CREATE TABLE referring (id int REFERENCES referred);
    CREATE TABLE hidden.other ();
    CREATE SEQUENCE loose;
    CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE AGGREGATE total(int) (sfunc = int4pl, stype = int);
    CREATE OPERATOR == (leftarg = int, rightarg = int, function = int4eq);
    CREATE PUBLICATION pg_temp;
    CREATE SERVER pg_temp FOREIGN DATA WRAPPER wrapper;
    CREATE STATISTICS stats ON id, body FROM secrets;
    CREATE POLICY pg_temp ON secrets;
    CREATE INDEX secrets_body ON secrets (body);
    CREATE POLICY p ON secrets;
    GRANT SELECT ON secrets TO granted;
    CREATE RULE r AS ON DELETE TO secrets DO INSTEAD NOTHING;
    CREATE TRIGGER t BEFORE UPDATE ON secrets FOR EACH ROW
        EXECUTE FUNCTION suppress_redundant_updates_trigger();
";

const SCHEMA: [&str; 3] = ["schema_add", "schema_update", "schema_delete"];

#[test]
fn data_definition_asks_the_token() {
    let fixture = Fixture::new();
    let (mut admin, mut dev) = (fixture.admin(), fixture.dev());
    fixture.create_objects();
    for (sql, _) in COMMANDS {
        assert_eq!(attempt(&mut dev, sql), "00000", "{sql}");
    }
    run(&mut admin, "SELECT auth.protect_schema()");
    for (sql, needed) in COMMANDS {
        assert_eq!(present(&mut dev, ""), "00000");
        assert_eq!(attempt(&mut dev, sql), "42501", "{sql}");
        fixture.grant(&mut dev, needed);
        assert_eq!(attempt(&mut dev, sql), "00000", "{sql} with {needed:?}");
        // All that is granted but one permission, for which every other action is.
        for (place, missing) in needed.iter().enumerate() {
            let (table, action) = missing.rsplit_once(':').unwrap();
            let others = SCHEMA.into_iter().filter(|other| *other != action);
            let others = others.collect::<Vec<_>>().join(",");
            let mut less: Vec<String> =
                needed.iter().map(|permission| (*permission).to_owned()).collect();
            less[place] = format!("{table}:data_read,data_add,data_update,data_delete,{others}");
            let less: Vec<&str> = less.iter().map(String::as_str).collect();
            fixture.grant(&mut dev, &less);
            assert_eq!(attempt(&mut dev, sql), "42501", "{sql} with {less:?}");
            // Every action on every table by name is not the database as a whole.
            if table == "all" {
                let tables = [
                    "comments",
                    "secrets",
                    "child",
                    "parted",
                    "part1",
                    "part2",
                    "viewed",
                    "viewing",
                    "hidden.other",
                    "other",
                    "hidden.comments",
                    "fresh",
                    "loose",
                ];
                let all = tables.map(|table| format!("{table}:{}", SCHEMA.join(",")));
                fixture.grant(&mut dev, &all.each_ref().map(String::as_str));
                assert_eq!(attempt(&mut dev, sql), "42501", "{sql} with {all:?}");
            }
        }
    }
    // The refusal names what is missing.
    for (granted, sql, refusal) in [
        (
            None,
            "TRUNCATE comments CASCADE",
            "The statement needs schema_update on the database as a whole. The session has no \
             token.",
        ),
        (
            Some("comments:schema_delete"),
            "DROP TABLE secrets",
            "The statement needs schema_delete on the table \"public\".\"secrets\". The \
             session's token does not grant it.",
        ),
    ] {
        assert_eq!(present(&mut dev, ""), "00000");
        if let Some(granted) = granted {
            fixture.grant(&mut dev, &[granted]);
        }
        let error = dev.batch_execute(sql).expect_err(sql);
        assert_eq!(error.as_db_error().and_then(|error| error.detail()), Some(refusal), "{sql}");
    }
}

#[test]
fn the_event_trigger_function_is_not_called_as_a_function() {
    let fixture = Fixture::new();
    let error = fixture.admin().batch_execute("SELECT auth.check_ddl_start()").unwrap_err();
    let error = error.as_db_error().expect("the server's error");
    assert_eq!(error.code().code(), "22023");
    assert_eq!(error.message(), "function must be called as an event trigger");
}

/// Further statements, so that each command tag occurs: what needs the database as a whole.
const WHOLE: &[(&str, &str)] = &[
    ("ALTER AGGREGATE total(int) OWNER TO dev", "schema_update"),
    ("ALTER COLLATION coll OWNER TO dev", "schema_update"),
    ("ALTER CONVERSION conv OWNER TO dev", "schema_update"),
    ("ALTER DOMAIN dom ADD CHECK (VALUE > 1)", "schema_update"),
    ("ALTER FUNCTION one() COST 7", "schema_update"),
    ("ALTER LARGE OBJECT 4711 OWNER TO dev", "schema_update"),
    ("ALTER OPERATOR == (int, int) OWNER TO dev", "schema_update"),
    ("ALTER PROCEDURE proc() SECURITY DEFINER", "schema_update"),
    ("ALTER ROUTINE proc() RESET ALL", "schema_update"),
    ("ALTER SERVER pg_temp OPTIONS (ADD x 'y')", "schema_update"),
    ("ALTER TEXT SEARCH CONFIGURATION conf DROP MAPPING IF EXISTS FOR word", "schema_update"),
    ("ALTER TEXT SEARCH DICTIONARY dict (stopwords)", "schema_update"),
    ("ALTER TYPE enumeration ADD VALUE 'c'", "schema_update"),
    ("ALTER TYPE composite ADD ATTRIBUTE c int", "schema_update"),
    ("ALTER USER MAPPING FOR dev SERVER pg_temp OPTIONS (ADD x 'y')", "schema_update"),
    ("ALTER TRIGGER t ON secrets DEPENDS ON EXTENSION plpgsql", "schema_update"),
    ("CREATE AGGREGATE fresh(int) (sfunc = int4pl, stype = int)", "schema_add"),
    ("CREATE CAST (composite AS text) WITH INOUT", "schema_add"),
    ("CREATE COLLATION fresh FROM \"C\"", "schema_add"),
    ("CREATE CONVERSION fresh FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8", "schema_add"),
    ("CREATE OPERATOR ==== (leftarg = int, rightarg = int, function = int4eq)", "schema_add"),
    ("CREATE PROCEDURE fresh() LANGUAGE sql AS ''", "schema_add"),
    ("CREATE SERVER fresh FOREIGN DATA WRAPPER wrapper", "schema_add"),
    ("CREATE TEXT SEARCH CONFIGURATION fresh (parser = \"default\")", "schema_add"),
    ("CREATE TEXT SEARCH DICTIONARY fresh (template = simple)", "schema_add"),
    ("CREATE USER MAPPING FOR CURRENT_USER SERVER other", "schema_add"),
    ("DROP AGGREGATE total(int)", "schema_delete"),
    ("DROP CAST (composite AS varchar)", "schema_delete"),
    ("DROP COLLATION coll", "schema_delete"),
    ("DROP CONVERSION conv", "schema_delete"),
    ("DROP DOMAIN dom", "schema_delete"),
    ("DROP FUNCTION one()", "schema_delete"),
    ("DROP OPERATOR == (int, int)", "schema_delete"),
    ("DROP PROCEDURE proc()", "schema_delete"),
    ("DROP ROUTINE proc()", "schema_delete"),
    ("DROP SEQUENCE loose", "schema_delete"),
    ("DROP TEXT SEARCH CONFIGURATION conf", "schema_delete"),
    ("DROP TEXT SEARCH DICTIONARY dict", "schema_delete"),
    ("DROP TYPE enumeration", "schema_delete"),
    ("DROP USER MAPPING FOR dev SERVER pg_temp", "schema_delete"),
];

/// Statements about one table, for the tags that [`COMMANDS`] lacks.
const ON_TABLES: &[(&str, &[&str])] = &[
    ("ALTER FOREIGN TABLE remote ADD c int", &["remote:schema_update"]),
    ("ALTER MATERIALIZED VIEW kept SET (fillfactor = 50)", &["kept:schema_update"]),
    ("ALTER POLICY p ON secrets USING (true)", &["secrets:schema_update"]),
    ("ALTER RULE r ON secrets RENAME TO s", &["secrets:schema_update"]),
    ("ALTER STATISTICS stats SET STATISTICS 7", &["secrets:schema_update"]),
    ("ALTER TRIGGER t ON secrets RENAME TO u", &["secrets:schema_update"]),
    ("CREATE FOREIGN TABLE fresh (id int) SERVER pg_temp", &["fresh:schema_add"]),
    ("DROP FOREIGN TABLE remote", &["remote:schema_delete"]),
    ("DROP MATERIALIZED VIEW kept", &["kept:schema_delete"]),
];

const OF_EVERY_KIND: &str = "
    CREATE COLLATION coll FROM \"C\";
    CREATE CONVERSION conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
    CREATE DOMAIN dom AS int;
    CREATE PROCEDURE proc() LANGUAGE sql AS '';
    CREATE TEXT SEARCH CONFIGURATION conf (parser = \"default\");
    CREATE TEXT SEARCH DICTIONARY dict (template = simple);
    CREATE TYPE enumeration AS ENUM ('a');
    CREATE TYPE composite AS (n int);
    CREATE CAST (composite AS varchar) WITH INOUT;
    CREATE SERVER other FOREIGN DATA WRAPPER wrapper;
    CREATE USER MAPPING FOR dev SERVER pg_temp;
    CREATE FOREIGN TABLE remote (id int) SERVER pg_temp;
    SELECT lo_create(4711);
";

/// The command tags that change definitions and that no statement here tries, with the reason.
const UNTRIED: &[(&str, &[&str])] = &[
    (
        "no command has the tag",
        &[
            "ALTER ACCESS METHOD",
            "ALTER CAST",
            "ALTER CONSTRAINT",
            "ALTER TRANSFORM",
            "CREATE ROUTINE",
            "DROP CONSTRAINT",
        ],
    ),
    (
        "only superusers run or own it",
        &[
            "ALTER EVENT TRIGGER",
            "ALTER EXTENSION",
            "ALTER FOREIGN DATA WRAPPER",
            "ALTER LANGUAGE",
            "ALTER OPERATOR CLASS",
            "ALTER OPERATOR FAMILY",
            "ALTER SUBSCRIPTION",
            "ALTER SYSTEM",
            "ALTER TEXT SEARCH PARSER",
            "ALTER TEXT SEARCH TEMPLATE",
            "CREATE ACCESS METHOD",
            "CREATE EVENT TRIGGER",
            "CREATE EXTENSION",
            "CREATE FOREIGN DATA WRAPPER",
            "CREATE LANGUAGE",
            "CREATE OPERATOR CLASS",
            "CREATE OPERATOR FAMILY",
            "CREATE SUBSCRIPTION",
            "CREATE TEXT SEARCH PARSER",
            "CREATE TEXT SEARCH TEMPLATE",
            "CREATE TRANSFORM",
            "DROP ACCESS METHOD",
            "DROP EVENT TRIGGER",
            "DROP EXTENSION",
            "DROP FOREIGN DATA WRAPPER",
            "DROP LANGUAGE",
            "DROP OPERATOR CLASS",
            "DROP OPERATOR FAMILY",
            "DROP SUBSCRIPTION",
            "DROP TEXT SEARCH PARSER",
            "DROP TEXT SEARCH TEMPLATE",
            "DROP TRANSFORM",
        ],
    ),
    ("a label needs a provider, which a library registers", &["SECURITY LABEL"]),
    (
        "a wrapper with a handler is needed; each of its tables is created",
        &["IMPORT FOREIGN SCHEMA"],
    ),
    (
        "not judged: it belongs to the cluster, not to the database",
        &[
            "ALTER ROLE",
            "ALTER TABLESPACE",
            "CREATE ROLE",
            "CREATE TABLESPACE",
            "DROP ROLE",
            "DROP TABLESPACE",
            "GRANT ROLE",
            "REVOKE ROLE",
        ],
    ),
    (
        "it defines nothing",
        &[
            "???",
            "ANALYZE",
            "BEGIN",
            "CALL",
            "CHECKPOINT",
            "CLOSE",
            "CLOSE CURSOR",
            "CLOSE CURSOR ALL",
            "COMMIT",
            "COMMIT PREPARED",
            "COPY",
            "COPY FROM",
            "DEALLOCATE",
            "DEALLOCATE ALL",
            "DECLARE CURSOR",
            "DELETE",
            "DISCARD",
            "DISCARD ALL",
            "DISCARD PLANS",
            "DISCARD SEQUENCES",
            "DISCARD TEMP",
            "EXECUTE",
            "FETCH",
            "INSERT",
            "LISTEN",
            "LOAD",
            "LOCK TABLE",
            "MERGE",
            "MOVE",
            "NOTIFY",
            "PREPARE",
            "PREPARE TRANSACTION",
            "RELEASE",
            "RESET",
            "ROLLBACK",
            "ROLLBACK PREPARED",
            "SAVEPOINT",
            "SELECT",
            "SELECT FOR KEY SHARE",
            "SELECT FOR NO KEY UPDATE",
            "SELECT FOR SHARE",
            "SELECT FOR UPDATE",
            "SET CONSTRAINTS",
            "SHOW",
            "START TRANSACTION",
            "UNLISTEN",
            "UPDATE",
        ],
    ),
];

#[test]
fn every_command_tag_is_decided() {
    let header = harness::pg_config("--includedir-server").join("tcop/cmdtaglist.h");
    let header = std::fs::read_to_string(&header).expect("Postgres' list of command tags");
    let tags: Vec<&str> = header
        .lines()
        .filter(|line| line.starts_with("PG_CMDTAG("))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    assert!(tags.len() > 150, "{}", tags.len());
    let statements = COMMANDS.iter().chain(ON_TABLES).map(|(sql, _)| *sql);
    let statements = statements.chain(WHOLE.iter().chain(OUTSIDE).map(|(sql, _)| *sql));
    let statements: Vec<&str> = statements.collect();
    let untried: Vec<&str> = UNTRIED.iter().flat_map(|(_, tags)| *tags).copied().collect();
    for tag in tags {
        // Statements whose tag is not what they begin with.
        let begins = match tag {
            "CREATE TABLE AS" => "CREATE TABLE fresh AS",
            "SELECT INTO" => "SELECT * INTO",
            "TRUNCATE TABLE" => "TRUNCATE",
            tag => tag,
        };
        let is_tried = statements.iter().any(|sql| {
            sql.strip_prefix(begins).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
        });
        assert!(is_tried || untried.contains(&tag), "{tag} is not decided");
    }

    let fixture = Fixture::new();
    fixture.create_objects();
    let (mut admin, mut dev) = (fixture.admin(), fixture.dev());
    run(&mut dev, OF_EVERY_KIND);
    run(&mut admin, "SELECT auth.protect_schema()");
    let whole = WHOLE.iter().map(|(sql, action)| (*sql, vec![format!("all:{action}")]));
    let on_tables = ON_TABLES.iter().map(|(sql, needed)| {
        (*sql, needed.iter().map(|needed| (*needed).to_owned()).collect::<Vec<_>>())
    });
    for (sql, needed) in whole.chain(on_tables) {
        let needed: Vec<&str> = needed.iter().map(String::as_str).collect();
        fixture.grant(&mut dev, &needed);
        assert_eq!(attempt(&mut dev, sql), "00000", "{sql} with {needed:?}");
        let (table, action) = needed[0].rsplit_once(':').unwrap();
        let others = SCHEMA.into_iter().filter(|other| *other != action);
        let less = format!("{table}:{}", others.collect::<Vec<_>>().join(","));
        fixture.grant(&mut dev, &[&less]);
        assert_eq!(attempt(&mut dev, sql), "42501", "{sql} with {less}");
    }
}

/// Statements that do something outside of their transaction, or cannot run in one, and what each
/// needs. Where they are judged too late, they have had their effect.
const OUTSIDE: &[(&str, &str)] = &[
    ("CREATE INDEX CONCURRENTLY late ON comments (body)", "all:schema_update"),
    ("DROP INDEX CONCURRENTLY secrets_body", "all:schema_update"),
    ("ALTER TABLE parted DETACH PARTITION part1 CONCURRENTLY", "all:schema_update"),
    ("REINDEX TABLE CONCURRENTLY comments", "comments:schema_update"),
    ("REINDEX INDEX CONCURRENTLY comments_pkey", "comments:schema_update"),
    ("REINDEX (CONCURRENTLY) TABLE comments", "comments:schema_update"),
    ("REINDEX TABLE parted", "parted:schema_update"),
    ("REINDEX SCHEMA hidden", "all:schema_update"),
    ("REINDEX SCHEMA CONCURRENTLY hidden", "all:schema_update"),
    ("CLUSTER", "all:schema_update"),
    ("VACUUM comments", "comments:schema_update"),
    ("VACUUM FULL comments", "comments:schema_update"),
    ("VACUUM (ANALYZE) comments (id)", "comments:schema_update"),
    ("VACUUM", "all:schema_update"),
    ("CREATE DATABASE fresh", "all:schema_add"),
    ("ALTER DATABASE mine RENAME TO yours", "all:schema_update"),
    ("DROP DATABASE yours", "all:schema_delete"),
];

#[test]
fn commands_that_commit_on_their_way_are_judged_before() {
    let fixture = Fixture::new();
    let (mut admin, mut dev) = (fixture.admin(), fixture.dev());
    fixture.create_objects();
    run(&mut admin, "ALTER ROLE dev CREATEDB; SELECT auth.protect_schema()");
    // What the indexes and tables are stored in, which each of the commands changes.
    let state =
        "SELECT string_agg(concat_ws(' ', relname, relfilenode, relpages), ',' ORDER BY oid)
                     || (SELECT count(*) FROM pg_inherits)
                 FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    for (sql, needed) in OUTSIDE {
        let before = answer(&mut admin, state);
        let (table, action) = needed.split_once(':').unwrap();
        let others = SCHEMA.into_iter().filter(|other| *other != action);
        let others = others.collect::<Vec<_>>().join(",");
        for granted in [format!("{table}:{others}"), format!("\"Comments\":{action}")] {
            fixture.grant(&mut dev, &[&granted]);
            assert_eq!(sqlstate(dev.batch_execute(sql)), "42501", "{sql} with {granted}");
        }
        assert_eq!(answer(&mut admin, state), before, "{sql}");
        fixture.grant(&mut dev, &[needed]);
        assert_eq!(sqlstate(dev.batch_execute(sql)), "00000", "{sql} with {needed}");
    }
    // Temporary tables, statistics and superusers are exempt; so are all without protection.
    assert_eq!(present(&mut dev, ""), "00000");
    run(&mut dev, "CREATE TEMP TABLE t (id int PRIMARY KEY)");
    for harmless in [
        "REINDEX TABLE t",
        "REINDEX TABLE CONCURRENTLY t",
        "REINDEX INDEX t_pkey",
        "CLUSTER t USING t_pkey",
        "TRUNCATE t",
        "VACUUM t",
        "ANALYZE comments",
        "EXPLAIN CREATE TABLE fresh AS TABLE comments",
        "EXPLAIN (ANALYZE, ANALYZE false) CREATE TABLE fresh AS TABLE comments",
        "EXPLAIN ANALYZE CREATE TEMP TABLE u AS TABLE comments",
        "EXPLAIN ANALYZE SELECT * INTO pg_temp.v FROM comments",
    ] {
        assert_eq!(sqlstate(dev.batch_execute(harmless)), "00000", "{harmless}");
    }
    run(&mut admin, "REINDEX TABLE CONCURRENTLY comments; ");
    // A table that is not there may be one in a moment.
    assert_eq!(sqlstate(dev.batch_execute("TRUNCATE absent")), "42501");
    run(&mut admin, "SELECT auth.unprotect_schema()");
    run(&mut dev, "REINDEX TABLE CONCURRENTLY comments");
    run(&mut dev, "TRUNCATE comments");
}

/// What `schema_add` on a table and nothing else allows must not open the table.
#[test]
fn adding_to_a_table_does_not_open_it() {
    let fixture = Fixture::new();
    let (mut admin, mut dev) = (fixture.admin(), fixture.dev());
    run(&mut dev, "SELECT auth.protect('comments'); ALTER TABLE comments FORCE ROW LEVEL SECURITY");
    run(&mut admin, "SELECT auth.protect_schema()");
    fixture.grant(&mut dev, &["comments:schema_add,schema_delete"]);
    for sql in [
        "CREATE POLICY open ON comments USING (true)",
        "ALTER POLICY pg_session_jwt_data_read ON comments USING (true)",
        "DROP POLICY pg_session_jwt_data_read ON comments",
        "CREATE RULE r AS ON UPDATE TO comments DO ALSO SELECT 1",
        "BEGIN; CREATE TABLE t (); CREATE POLICY open ON comments USING (true); COMMIT",
    ] {
        assert_eq!(sqlstate(dev.batch_execute(sql)), "42501", "{sql}");
        run(&mut dev, "ROLLBACK");
        assert_eq!(answer(&mut dev, "SELECT count(*) FROM comments"), "0", "{sql}");
    }
    // Nor is a table new for a transaction whose snapshot is older than it.
    run(&mut dev, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    run(
        &mut admin,
        "SET ROLE dev; SELECT 1; RESET ROLE; CREATE TABLE late (); ALTER TABLE late OWNER TO dev",
    );
    fixture.grant(&mut dev, &["late:schema_add"]);
    let trigger = "CREATE TRIGGER t BEFORE UPDATE ON late FOR EACH ROW
                   EXECUTE FUNCTION suppress_redundant_updates_trigger()";
    assert_eq!(sqlstate(dev.batch_execute(trigger)), "42501");
    run(&mut dev, "ROLLBACK");
}

#[test]
fn templates_grant_what_they_say() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    for (arguments, claims) in [
        ("'full-access'", json!({"a": "rw"})),
        ("'read-only'", json!({"a": "ro"})),
        ("permissions => '{all:data_read,\"comments:data_add,data_update\"}'",
         json!({"perm": "22023"})),
        ("permissions => ARRAY['all:data_read', 'comments:data_add,data_update']",
         json!({"perm": [{"t": null, "a": ["data_read"]},
                         {"t": ["comments"], "a": ["data_add", "data_update"]}]})),
        ("'read-only', ARRAY['\"Comments\":data_add', '\"all\":data_update', 'hidden.comments:data_add',
                             'Hidden.Comments:data_delete', '\"Comments\":data_add']",
         json!({"a": "ro", "perm": [{"t": ["\"Comments\""], "a": ["data_add"]},
                                    {"t": ["\"all\""], "a": ["data_update"]},
                                    {"t": ["hidden.comments"], "a": ["data_add", "data_delete"]}]})),
    ] {
        let found = answer(&mut client, &format!("SELECT auth.jwt_template({arguments})"));
        if claims["perm"] == "22023" {
            // Two elements, for the comma stands in quotes.
            assert!(found.contains("data_update"), "{found}");
            continue;
        }
        let found: Value = serde_json::from_str(&found).expect(arguments);
        assert_eq!(found, claims, "{arguments}");
        fixture.be(&mut client, &found);
    }
    for (action, table, allowed) in [
        ("data_read", "'secrets'", "t"),
        ("data_add", "'\"Comments\"'", "t"),
        ("data_add", "'comments'", "f"),
        ("data_update", "'\"all\"'", "t"),
        ("data_update", "'comments'", "f"),
        ("data_update", "NULL", "f"),
        ("data_delete", "'hidden.comments'", "t"),
    ] {
        assert_eq!(allows(&mut client, action, table), allowed, "{action} {table}");
    }
    for arguments in [
        "",
        "NULL, NULL",
        "NULL, '{}'",
        "'rw'",
        "''",
        "NULL, '{NULL}'",
        "NULL, '{comments}'",
        "NULL, '{comments:}'",
        "NULL, '{:data_read}'",
        "NULL, '{a b:data_read}'",
        "NULL, '{comments:data_reed}'",
        "'full-access', '{x.y.z:data_read}'",
    ] {
        let error = client.query(&format!("SELECT auth.jwt_template({arguments})"), &[]);
        let error = error.expect_err(arguments);
        let error = error.as_db_error().expect("the server's error");
        assert_eq!(error.code().code(), "22023", "{arguments}");
        assert!(error.detail().is_some(), "{arguments}");
    }
}
