//! A hostile owner of a table, whose policy calls a function of the owner, and others who explain the access to
//! the table.

use harness::{
    Code, INSUFFICIENT_PRIVILEGE, READ_ONLY_SQL_TRANSACTION, Site, lacks_library, note_skipped,
    quote, run, send, text, user,
};
use postgres::Client;

use crate::explain::{Row, explain};
use crate::puzzles::{client, start};

/// `invalid_parameter_value`
const INVALID_PARAMETER: &str = "22023";

/// What a statement in the trap comes to.
enum Outcome {
    /// An error with this SQLSTATE.
    Fails(&'static str),
    /// It succeeds, and is undone.
    IsUndone,
}

const ATTACKS: &[(&str, Outcome)] = &[
    // Another role.
    ("SET ROLE postgres", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    ("RESET ROLE", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    ("SET SESSION AUTHORIZATION postgres", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    ("RESET SESSION AUTHORIZATION", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    ("SELECT set_config('role', 'none', false)", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    (
        "SELECT set_config('session_authorization', 'postgres', false)",
        Outcome::Fails(INSUFFICIENT_PRIVILEGE),
    ),
    // Writing.
    ("INSERT INTO evil.loot VALUES ('x')", Outcome::Fails(READ_ONLY_SQL_TRANSACTION)),
    ("CREATE TABLE evil.more ()", Outcome::Fails(READ_ONLY_SQL_TRANSACTION)),
    ("SELECT nextval('evil.counter')", Outcome::Fails(READ_ONLY_SQL_TRANSACTION)),
    ("TRUNCATE evil.loot", Outcome::Fails(READ_ONLY_SQL_TRANSACTION)),
    ("ALTER ROLE app SUPERUSER", Outcome::Fails(READ_ONLY_SQL_TRANSACTION)),
    ("COMMIT", Outcome::Fails("0A000")),
    // What a rollback does not undo.
    ("SELECT pg_advisory_lock(1)", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    ("SELECT pg_try_advisory_lock_shared(1, 2)", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    ("SELECT pg_advisory_unlock_all()", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    ("SELECT pg_terminate_backend(pg_backend_pid())", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    ("SELECT pg_logical_emit_message(false, 'x', 'y')", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    ("SELECT setseed(0.5)", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    (
        "SELECT pg_create_physical_replication_slot('stolen')",
        Outcome::Fails(INSUFFICIENT_PRIVILEGE),
    ),
    ("SELECT pg_drop_replication_slot('kept')", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    ("SELECT pg_replication_slot_advance('kept', '0/1')", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    (
        "SELECT pg_logical_slot_get_changes('kept', NULL, NULL)",
        Outcome::Fails(INSUFFICIENT_PRIVILEGE),
    ),
    ("SELECT pg_reload_conf()", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    ("PREPARE stolen AS SELECT 1", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    ("DECLARE stolen CURSOR WITH HOLD FOR SELECT 1", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    ("LISTEN evil", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    ("DISCARD ALL", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    ("CREATE TEMP TABLE stolen ()", Outcome::Fails(READ_ONLY_SQL_TRANSACTION)),
    ("SELECT pg_advisory_xact_lock(1)", Outcome::IsUndone),
    ("NOTIFY evil, 'x'", Outcome::IsUndone),
    ("SELECT set_config('search_path', 'evil', false)", Outcome::IsUndone),
    ("SELECT set_config('request.jwt.claims', '{\"sub\": \"mallory\"}', false)", Outcome::IsUndone),
    ("SELECT set_config('row_security', 'off', false)", Outcome::IsUndone),
    // Files and large objects.
    ("SELECT pg_read_file('PG_VERSION')", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    ("COPY evil.loot TO PROGRAM 'true'", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    ("SELECT lo_import('PG_VERSION')", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    // Identities.
    ("SELECT auth.jwt_session_init('@token@')", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    (
        "SELECT set_config('pg_session_jwt.jwt', '@token@', false)",
        Outcome::Fails(INVALID_PARAMETER),
    ),
    ("SELECT set_config('pg_session_jwt.jwt', 'x.y.z', false)", Outcome::Fails(INVALID_PARAMETER)),
    ("SELECT set_config('pg_session_jwt.jwt', '', false)", Outcome::IsUndone),
    ("RESET pg_session_jwt.jwt", Outcome::IsUndone),
    ("SELECT auth.refresh_provider('plain')", Outcome::Fails(INSUFFICIENT_PRIVILEGE)),
    // The functions themselves.
    (
        "SELECT auth.explain_access('evil.t', claims => '{\"sub\": \"x\"}', role => 'app')",
        Outcome::Fails(INSUFFICIENT_PRIVILEGE),
    ),
    (
        "SELECT auth.try_as('postgres'::regrole, NULL, '', 'SELECT NULL::text[]', NULL::text[])",
        Outcome::Fails(INSUFFICIENT_PRIVILEGE),
    ),
    (
        "SELECT auth.try_as('app'::regrole, NULL, '', 'SELECT NULL::text[]', NULL::text[])",
        Outcome::Fails(INSUFFICIENT_PRIVILEGE),
    ),
];

/// A trap in a policy of a table of mallory. The trap runs the statement in the text, and shows its SQLSTATE by
/// the number of rows that pass: 1 if it succeeds.
fn set_trap(site: &Site) {
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE ROLE mallory LOGIN; CREATE SCHEMA evil AUTHORIZATION mallory;
         -- Privileges that Postgres itself would ask for.
         ALTER ROLE app REPLICATION; GRANT EXECUTE ON FUNCTION pg_reload_conf TO app;
         SELECT pg_create_physical_replication_slot('kept');
         GRANT USAGE, CREATE ON SCHEMA evil TO PUBLIC",
    );
    let mut mallory = site.cluster.as_role("mallory").client();
    run(
        &mut mallory,
        "CREATE TABLE evil.loot (what text); GRANT ALL ON evil.loot TO PUBLIC;
         CREATE SEQUENCE evil.counter; GRANT ALL ON SEQUENCE evil.counter TO PUBLIC;
         CREATE TABLE evil.t (id int); INSERT INTO evil.t VALUES (1);
         ALTER TABLE evil.t ENABLE ROW LEVEL SECURITY;
         GRANT SELECT ON evil.t TO PUBLIC;
         CREATE FUNCTION evil.trap(attack text) RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN EXECUTE attack; RETURN true; END $$;
         CREATE FUNCTION evil.quiet(attack text) RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN EXECUTE attack; RETURN true; EXCEPTION WHEN OTHERS THEN RETURN false; END $$;
         CREATE POLICY p ON evil.t USING (true)",
    );
}

/// Whether anything is left of an attack, in the session of the victim or in the database.
fn check(
    victim: &mut Client,
    admin: &mut Client,
    expected_user: Option<&str>,
    role: &str,
    label: &str,
) {
    let state = "SELECT concat_ws(' ', current_user, session_user, current_setting('search_path'),
        current_setting('row_security'), current_setting('transaction_read_only'),
        coalesce(current_setting('request.jwt.claims', true), ''),
        (SELECT count(*) FROM pg_prepared_statements WHERE name = 'stolen'),
        (SELECT count(*) FROM pg_cursors WHERE name = 'stolen'),
        (SELECT count(*) FROM pg_listening_channels()),
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),
        (SELECT count(*) FROM pg_class WHERE relname IN ('stolen', 'more')),
        (SELECT count(*) FROM pg_largeobject_metadata))";
    let expected = format!("{role} {role} \"$user\", public on off  0 0 0 0 0 0");
    assert_eq!(text(victim, state).as_deref(), Some(expected.as_str()), "{label}");
    assert_eq!(user(victim).as_deref(), expected_user, "{label}: the user");
    let loot = "SELECT concat(count(*), ' ', (SELECT is_called FROM evil.counter),
                              (SELECT rolsuper FROM pg_roles WHERE rolname = 'app'),
                              (SELECT string_agg(slot_name, '') FROM pg_replication_slots)) FROM evil.loot";
    assert_eq!(text(admin, loot).as_deref(), Some("0 ffkept"), "{label}: the database");
}

fn answer(rows: &[Row]) -> &Row {
    rows.iter().find(|row| row.item == "answer" && row.command == "SELECT").expect("an answer")
}

/// The policy is evaluated as the role, and can change nothing: for an administrator and for a client itself.
#[test]
fn a_trap_in_a_policy_gains_nothing() {
    let site = start();
    set_trap(&site);
    let (mut admin, mut mallory) = (site.cluster.admin(), site.cluster.as_role("mallory").client());
    let mut listener = site.cluster.as_role("mallory").client();
    run(&mut listener, "LISTEN evil");
    let token = site.token("mallory");
    let given = r#"'evil.t', claims => '{"sub": "alice"}', role => 'app'"#;
    let mut victims = [
        ("postgres", site.cluster.admin(), given, None),
        ("postgres", site.cluster.admin(), "'evil.t', role => 'app'", None),
        ("app", client(&site, "app", Some(r#"{"sub": "alice"}"#)), "'evil.t'", Some("alice")),
    ];
    for (attack, outcome) in ATTACKS {
        let attack = attack.replace("@token@", &token);
        for trap in ["trap", "quiet"] {
            let policy =
                format!("ALTER POLICY p ON evil.t USING (evil.{trap}({}))", quote(&attack));
            run(&mut mallory, &policy);
            for (role, victim, arguments, user) in &mut victims {
                // A client reads the rows of the table under the policy itself, where the trap is no trial.
                let is_own = *role == "app";
                let label = format!("{trap}, {role}, {arguments}: {attack}");
                run(victim, "BEGIN");
                let rows = explain(victim, arguments);
                check(victim, &mut admin, *user, role, &label);
                run(victim, "COMMIT");
                check(victim, &mut admin, *user, role, &label);
                let detail = &answer(&rows).detail;
                match outcome {
                    Outcome::Fails(code) if trap == "trap" && !is_own => {
                        let expected = format!("raises an error: {code}:");
                        assert!(detail.contains(&expected), "{label}: {detail}");
                    }
                    Outcome::IsUndone if !is_own => assert_eq!(detail, "1 of 1 rows.", "{label}"),
                    _ => {}
                }
            }
        }
    }
    run(&mut listener, "SELECT 1");
    use postgres::fallible_iterator::FallibleIterator;
    assert_eq!(listener.notifications().iter().count().expect("notifications"), 0, "notifications");
}

/// Functions in C of extensions, which may keep connections.
#[test]
fn a_trap_connects_to_no_other_server() {
    if lacks_library(&["dblink"]) {
        return note_skipped("the server has no dblink");
    }
    let site = start();
    set_trap(&site);
    let mut admin = site.cluster.admin();
    run(&mut admin, "CREATE EXTENSION dblink");
    let mut mallory = site.cluster.as_role("mallory").client();
    let connect =
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", site.cluster.port());
    for attack in [
        format!("SELECT dblink_connect('stolen', '{connect}')"),
        format!("SELECT * FROM dblink('{connect}', 'SELECT 1') AS x (y int)"),
    ] {
        run(
            &mut mallory,
            &format!("ALTER POLICY p ON evil.t USING (evil.trap({}))", quote(&attack)),
        );
        let rows = explain(&mut admin, r#"'evil.t', claims => '{"sub": "alice"}', role => 'app'"#);
        let expected =
            format!("raises an error: {INSUFFICIENT_PRIVILEGE}: function cannot be called while");
        assert!(answer(&rows).detail.contains(&expected), "{attack}: {rows:#?}");
        assert_eq!(
            text(&mut admin, "SELECT dblink_get_connections()::text"),
            None,
            "{attack}: connections"
        );
    }
}

/// The trap finds the role and the claims that are given, and never the administrator.
#[test]
fn a_policy_is_not_evaluated_as_the_administrator() {
    let site = start();
    set_trap(&site);
    let mut admin = site.cluster.admin();
    let mut mallory = site.cluster.as_role("mallory").client();
    run(
        &mut mallory,
        "CREATE FUNCTION evil.show() RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'I am % % %', current_user, auth.user_id(), current_setting('is_superuser');
         END $$;
         ALTER POLICY p ON evil.t USING (evil.show())",
    );
    let rows = explain(&mut admin, r#"'evil.t', claims => '{"sub": "alice"}', role => 'app'"#);
    assert!(answer(&rows).detail.contains("I am app alice"), "{rows:#?}");
    // Policies do not apply to these callers, and are not evaluated.
    run(&mut admin, "GRANT SELECT ON evil.t TO service");
    for role in ["postgres", "service", "mallory"] {
        let mut caller = site.cluster.as_role(role).client();
        let rows = explain(&mut caller, "'evil.t'");
        assert!(rows.iter().all(|row| !row.detail.contains("I am")), "{role}: {rows:#?}");
        assert!(answer(&rows).detail.starts_with("All rows"), "{role}: {rows:#?}");
    }
    // Nor as a superuser that is given.
    run(&mut admin, "CREATE ROLE boss SUPERUSER; ALTER TABLE evil.t FORCE ROW LEVEL SECURITY");
    let call = "SELECT auth.explain_access('evil.t', role => 'boss')";
    assert_eq!(
        send(&mut admin, call).err().as_deref(),
        Some(INSUFFICIENT_PRIVILEGE),
        "a superuser"
    );
}

/// The query runs as another role only where the caller could do the same without the function.
#[test]
fn the_functions_below_give_no_role_and_no_claims() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE ROLE member LOGIN IN ROLE app; GRANT CREATE ON SCHEMA public TO member",
    );
    let query = "'SELECT ARRAY[current_user::text, auth.user_id()]', NULL::text[]";
    for (caller, role, claims, expected) in [
        ("app", "app", "NULL", Ok("{app,NULL}")),
        ("app", "postgres", "NULL", Err(INSUFFICIENT_PRIVILEGE)),
        ("app", "anon", "NULL", Err(INSUFFICIENT_PRIVILEGE)),
        ("app", "app", "'{\"sub\": \"alice\"}'", Err(INSUFFICIENT_PRIVILEGE)),
        ("member", "app", "NULL", Ok("{app,NULL}")),
        ("member", "app", "'{\"sub\": \"alice\"}'", Err(INSUFFICIENT_PRIVILEGE)),
        ("postgres", "app", "'{\"sub\": \"alice\"}'", Ok("{app,alice}")),
        ("postgres", "postgres", "'{\"sub\": \"alice\"}'", Err(INSUFFICIENT_PRIVILEGE)),
    ] {
        let mut client = site.cluster.as_role(caller).client();
        let call = format!(
            "SELECT auth.try_as({}::regrole, {claims}, 'public', {query})::text",
            quote(role)
        );
        let found = send(&mut client, &call).map(|reply| reply.lines("").join(""));
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(found, expected, "{caller}: {role}, {claims}");
    }
    // A security-definer function of the administrator does not pass its rights on within a trial.
    run(
        &mut admin,
        "CREATE FUNCTION public.lifted() RETURNS text[] LANGUAGE sql SECURITY DEFINER AS
         $$ SELECT auth.try_as('app'::regrole, '{\"sub\": \"x\"}', 'public', 'SELECT NULL::text[]', NULL::text[]) $$",
    );
    let mut app = site.cluster.as_role("app").client();
    let nested = "SELECT auth.try_as('app'::regrole, NULL, 'public', 'SELECT public.lifted()', NULL::text[])";
    assert_eq!(send(&mut app, nested).err().as_deref(), Some(Code::Forbidden.sqlstate()), "nested");
}

/// A call of `auth.try_as()` as the current role.
fn trial(query: &str, rows: &str) -> String {
    let query = quote(query);
    format!("SELECT auth.try_as(current_user::regrole, NULL, 'pg_catalog', {query}, {rows})::text")
}

/// The value of a query that is tried is read as `text[]`, and so must be one.
#[test]
fn queries_that_are_tried_return_texts() {
    let site = start();
    let mut client = site.client();
    for (query, code) in [
        ("SELECT 1", INVALID_PARAMETER),
        ("SELECT 1.5::float8", INVALID_PARAMETER),
        ("SELECT 'a'::text", INVALID_PARAMETER),
        ("SELECT '\\x01000000'::bytea", INVALID_PARAMETER),
        ("SELECT ARRAY[1]", INVALID_PARAMETER),
        ("SELECT ARRAY['a'::name]", INVALID_PARAMETER),
        ("SELECT", INVALID_PARAMETER),
        ("", INVALID_PARAMETER),
        ("SELECT ARRAY['a']; SELECT 2", INVALID_PARAMETER),
        // A command without a query plan, which SPI does not run in a read-only call.
        ("SET work_mem = 64", "0A000"),
        // NULL is no parameter, and so has no type.
        ("SELECT ARRAY[$1::text]", "42P02"),
    ] {
        let failed = send(&mut client, &trial(query, "NULL::int[]")).err();
        assert_eq!(failed.as_deref(), Some(code), "{query}");
    }
}

/// The result is the first value of the first row, and the query is run no further.
#[test]
fn queries_that_are_tried_return_their_first_value() {
    let site = start();
    let mut client = site.client();
    for (query, rows, expected) in [
        ("SELECT ARRAY['a'], 2", "NULL::int[]", Some("{a}")),
        ("SELECT NULL::text[]", "NULL::int[]", None),
        ("SELECT ARRAY['a'] WHERE false", "NULL::int[]", None),
        (
            "SELECT ARRAY[(1 / (2 - n))::text] FROM generate_series(1, 3) n",
            "NULL::int[]",
            Some("{1}"),
        ),
        ("SELECT $1::text[]", "ARRAY[1, 2]", Some("{1,2}")),
    ] {
        assert_eq!(text(&mut client, &trial(query, rows)).as_deref(), expected, "{query}");
    }
    // A value that Postgres would return to the operating system with the memory of the query.
    let long = trial("SELECT ARRAY[repeat('x', 4000000)]", "NULL::int[]");
    let length = format!("SELECT length(x)::text FROM ({long} AS x) y");
    assert_eq!(text(&mut client, &length).as_deref(), Some("4000002"), "a long value");
}

/// The check of the caller does not hold within a security-restricted operation, whose user is another one.
#[test]
fn a_security_restricted_operation_tries_nothing() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE MATERIALIZED VIEW tried AS
         SELECT auth.try_as(oid, NULL, 'public', 'SELECT NULL::text[]', NULL::text[])
         FROM pg_roles WHERE rolname = 'app' WITH NO DATA",
    );
    let failed = send(&mut admin, "REFRESH MATERIALIZED VIEW tried").err();
    assert_eq!(failed.as_deref(), Some(INSUFFICIENT_PRIVILEGE));
}

/// An administrator who explains a table evaluates no expression of its owner.
#[test]
fn a_sample_evaluates_nothing() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE ROLE owner LOGIN; CREATE SCHEMA trap AUTHORIZATION owner; SET ROLE owner;
         CREATE FUNCTION trap.spring() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
             IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
                 EXECUTE 'ALTER ROLE owner SUPERUSER';
             END IF;
             RETURN 1;
         END $$;
         CREATE FUNCTION trap.fixed(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
             $$ BEGIN PERFORM trap.spring(); RETURN $1; END $$;
         CREATE TABLE trap.t (id int, owner text);
         INSERT INTO trap.t VALUES (1, 'a'), (2, 'b');
         CREATE INDEX ON trap.t ((trap.fixed(1) + id));
         CREATE STATISTICS trap.s ON (trap.fixed(1) + id), owner FROM trap.t;
         ALTER TABLE trap.t ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON trap.t USING (owner = auth.user_id());
         GRANT USAGE ON SCHEMA trap TO app; GRANT SELECT ON trap.t TO app;
         RESET ROLE",
    );
    let rows = explain(&mut admin, r#"'trap.t', claims => '{"sub": "a"}', role => 'app'"#);
    let tried = rows.iter().find(|row| row.item == "rows").and_then(|row| row.tried);
    assert_eq!(tried, Some(2), "{rows:#?}");
    let is_super = "SELECT rolsuper::text FROM pg_roles WHERE rolname = 'owner'";
    assert_eq!(text(&mut admin, is_super).as_deref(), Some("false"));
    // The function reads only what the caller may read, and only as the row type of the table.
    for (call, code) in [
        ("auth.sample('trap.t'::regclass, NULL::trap.t[])", INSUFFICIENT_PRIVILEGE),
        ("auth.sample('pg_class'::regclass, NULL::int[])", INSUFFICIENT_PRIVILEGE),
        ("auth.sample('pg_authid'::regclass, NULL::pg_authid[])", INSUFFICIENT_PRIVILEGE),
        ("auth.sample('auth.sessions'::regclass, NULL::auth.sessions[])", "42809"),
        ("auth.sample(NULL, NULL::int[])", INVALID_PARAMETER),
    ] {
        let failed = send(&mut site.client(), &format!("SELECT {call}")).err().expect(call);
        assert!([code, INSUFFICIENT_PRIVILEGE].contains(&&*failed), "{call}: {failed}");
    }
}

/// The rows of all children, under the columns of the parent, as the statement sees them.
#[test]
fn a_sample_has_the_rows_of_children() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE TABLE t (id int, owner text) PARTITION BY LIST (id);
         CREATE TABLE one PARTITION OF t FOR VALUES IN (1) PARTITION BY LIST (owner);
         CREATE TABLE one_a PARTITION OF one FOR VALUES IN ('a');
         CREATE TABLE two (owner text, dropped int, id int); ALTER TABLE two DROP dropped;
         ALTER TABLE t ATTACH PARTITION two FOR VALUES IN (2);
         INSERT INTO t VALUES (1, 'a'), (2, 'b');
         CREATE TABLE parent (id int); INSERT INTO parent VALUES (1)",
    );
    let sample =
        |table: &str| format!("SELECT auth.sample('{table}'::regclass, NULL::{table}[])::text");
    assert_eq!(
        text(&mut admin, &sample("t")).as_deref(),
        Some("{\"(2,b)\",\"(1,a)\"}"),
        "partitions"
    );
    // The rows of a temporary table are in the memory of its session.
    let mut other = site.cluster.admin();
    run(&mut other, "CREATE TEMP TABLE own () INHERITS (parent); INSERT INTO own VALUES (2)");
    assert_eq!(text(&mut admin, &sample("parent")).as_deref(), Some("{(1)}"), "a temporary child");
    run(&mut admin, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM parent");
    run(&mut other, "INSERT INTO parent VALUES (3)");
    assert_eq!(text(&mut admin, &sample("parent")).as_deref(), Some("{(1)}"), "the snapshot");
    run(&mut admin, "COMMIT");
    let count = "SELECT cardinality(auth.sample('parent'::regclass, NULL::parent[]))::text";
    run(&mut admin, "INSERT INTO parent SELECT generate_series(1, 2000)");
    assert_eq!(text(&mut admin, count).as_deref(), Some("1000"), "the limit");
    // It reads no other server, and no view, whose query would be evaluated.
    run(
        &mut admin,
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
         CREATE FOREIGN TABLE far () INHERITS (parent) SERVER s; CREATE VIEW v AS SELECT 1 AS id",
    );
    for table in ["parent", "far", "v"] {
        let failed = send(&mut admin, &sample(table)).err();
        assert_eq!(failed.as_deref(), Some(INSUFFICIENT_PRIVILEGE), "{table}");
    }
}
