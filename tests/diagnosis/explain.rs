//! `auth.explain_access()`: what it returns, and to whom.

use harness::{
    Cluster, Code, INSUFFICIENT_PRIVILEGE, NULL_VALUE_NOT_ALLOWED, Preload, QUERY_CANCELED,
    SUCCESS, Site, WRONG_OBJECT_TYPE, present, quote, run, send, sqlstate, text, user,
};
use postgres::Client;

use crate::puzzles::{client, start};

/// `undefined_object`
const UNDEFINED_OBJECT: &str = "42704";

/// A row of `auth.explain_access()`.
#[derive(Debug)]
pub struct Row {
    pub command: String,
    pub item: String,
    pub outcome: String,
    pub passed: Option<i64>,
    pub tried: Option<i64>,
    pub detail: String,
}

/// The rows for these arguments.
pub fn explain(client: &mut Client, arguments: &str) -> Vec<Row> {
    let query = format!(
        "SELECT command, item, outcome, passed, tried, coalesce(detail, '') FROM auth.explain_access({arguments})"
    );
    let rows = client.query(&query, &[]).unwrap_or_else(|error| panic!("{arguments}: {error:?}"));
    let read = |row: &postgres::Row| Row {
        command: row.get(0),
        item: row.get(1),
        outcome: row.get(2),
        passed: row.get(3),
        tried: row.get(4),
        detail: row.get(5),
    };
    rows.iter().map(read).collect()
}

/// The SQLSTATE of a call.
fn code(client: &mut Client, arguments: &str) -> String {
    sqlstate(client.batch_execute(&format!("SELECT auth.explain_access({arguments})")))
}

const TABLE: &str = "
    CREATE TABLE t (owner text, body text); INSERT INTO t VALUES ('alice', 'x'), ('bob', 'y');
    ALTER TABLE t ENABLE ROW LEVEL SECURITY; GRANT SELECT ON t TO app;
    CREATE POLICY own ON t USING (owner = auth.user_id());";

/// Only what the caller could find anyway: with its own rows, as another role, with claims.
#[test]
fn each_caller_gets_what_it_could_find() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(&mut admin, TABLE);
    run(
        &mut admin,
        "ALTER TABLE t OWNER TO author; GRANT SELECT ON t TO service, authenticated;
         CREATE ROLE issuer LOGIN BYPASSRLS IN ROLE app; GRANT SELECT ON t TO issuer;
         GRANT INSERT ON auth.providers TO issuer;
         CREATE ROLE auditor LOGIN BYPASSRLS IN ROLE app; GRANT SELECT ON t TO auditor;
         CREATE ROLE boss SUPERUSER",
    );
    let (own, as_app) = ("'t'", "'t', role => 'app'");
    let claims = r#"'t', claims => '{"sub": "alice"}', role => 'app'"#;
    for (role, arguments, expected) in [
        ("app", own, SUCCESS),
        // Without any privilege on the table: policies are in a catalog that every role can read.
        ("anon", own, SUCCESS),
        ("app", as_app, INSUFFICIENT_PRIVILEGE),
        ("app", claims, INSUFFICIENT_PRIVILEGE),
        // The owner reads all rows, and cannot become app.
        ("author", own, SUCCESS),
        ("author", as_app, INSUFFICIENT_PRIVILEGE),
        // A member of app that reads all rows, and cannot issue tokens.
        ("auditor", as_app, SUCCESS),
        ("auditor", claims, INSUFFICIENT_PRIVILEGE),
        ("issuer", claims, SUCCESS),
        ("issuer", "'t', role => 'authenticated'", INSUFFICIENT_PRIVILEGE),
        ("service", as_app, INSUFFICIENT_PRIVILEGE),
        ("postgres", claims, SUCCESS),
        ("postgres", "'t', role => 'boss'", INSUFFICIENT_PRIVILEGE),
        ("postgres", "'t', role => 'nobody'", UNDEFINED_OBJECT),
        ("postgres", r#"'t', claims => '{"sub": "alice"}'"#, Code::Configuration.sqlstate()),
        ("postgres", "NULL", NULL_VALUE_NOT_ALLOWED),
        ("postgres", "'t_pkey'", WRONG_OBJECT_TYPE),
        ("postgres", "'t', claims => '[]', role => 'app'", Code::Malformed.sqlstate()),
        ("postgres", r#"'t', claims => '{"sub": []}', role => 'app'"#, Code::Claim.sqlstate()),
        (
            "postgres",
            r#"'t', claims => '{"sub": "alice", "exp": 1}', role => 'app'"#,
            Code::Expired.sqlstate(),
        ),
    ] {
        run(&mut admin, "CREATE INDEX IF NOT EXISTS t_pkey ON t (owner)");
        let mut client = site.cluster.as_role(role).client();
        assert_eq!(code(&mut client, arguments), expected, "{role}: {arguments}");
    }
    // A session with an identity does not get another one.
    run(&mut admin, "GRANT INSERT ON auth.providers TO auditor");
    let mut auditor = client(&site, "auditor", Some(r#"{"sub": "alice"}"#));
    assert_eq!(code(&mut auditor, claims), Code::Configuration.sqlstate(), "with a token");
    assert_eq!(code(&mut auditor, as_app), SUCCESS, "with a token, and without claims");
}

/// A session that may not SET ROLE does not explain other roles.
#[test]
fn a_locked_session_explains_itself_alone() {
    let site = Site::start(Preload::Shared, &[("pg_session_jwt.locked_roles", "gate")]);
    let mut admin = site.cluster.admin();
    run(&mut admin, TABLE);
    run(&mut admin, "CREATE ROLE gate LOGIN BYPASSRLS IN ROLE app; GRANT SELECT ON t TO gate");
    let mut gate = site.cluster.as_role("gate").client();
    assert_eq!(code(&mut gate, "'t'"), SUCCESS, "itself");
    assert_eq!(code(&mut gate, "'t', role => 'app'"), INSUFFICIENT_PRIVILEGE, "another role");
}

/// Rows that a policy hides are not counted for the caller.
#[test]
fn hidden_rows_are_not_counted_for_a_client() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(&mut admin, TABLE);
    run(
        &mut admin,
        "INSERT INTO t SELECT 'carol', 'z' FROM generate_series(1, 50);
         CREATE POLICY carol ON t AS PERMISSIVE FOR DELETE USING (owner = 'carol')",
    );
    let mut alice = client(&site, "app", Some(r#"{"sub": "alice"}"#));
    let rows = explain(&mut alice, "'t'");
    assert!(rows.iter().all(|row| row.tried.is_none_or(|tried| tried <= 1)), "{rows:#?}");
    let counted = rows.iter().find(|row| row.item == "rows").expect("the item");
    assert!(counted.detail.contains("role => 'app'"), "{counted:?}");
    let given = r#"'t', claims => '{"sub": "alice"}', role => 'app'"#;
    let rows = explain(&mut admin, given);
    let counted = rows.iter().find(|row| row.item == "rows").expect("the item");
    assert_eq!(counted.tried, Some(52), "{rows:#?}");
}

/// Of a large table, a thousand rows.
#[test]
fn a_sample_is_bounded() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(&mut admin, TABLE);
    run(
        &mut admin,
        "INSERT INTO t SELECT 'carol', 'z' FROM generate_series(1, 100000); ANALYZE t;
         CREATE TABLE wide (owner text, body text);
         INSERT INTO wide SELECT 'alice', repeat(md5(n::text), 40000) FROM generate_series(1, 60) n;
         ALTER TABLE wide ENABLE ROW LEVEL SECURITY; GRANT SELECT ON wide TO app;
         CREATE POLICY own ON wide USING (owner = auth.user_id())",
    );
    let tried = |rows: &[Row]| rows.iter().find(|row| row.item == "rows").and_then(|row| row.tried);
    let claims = r#"claims => '{"sub": "carol"}', role => 'app'"#;
    let rows = explain(&mut admin, &format!("'t', {claims}"));
    assert_eq!(tried(&rows), Some(1000), "{rows:#?}");
    let rows = explain(&mut admin, &format!("'wide', {claims}"));
    let wide = tried(&rows).expect("rows");
    assert!((1..=60).contains(&wide), "{rows:#?}");
    // Values that are stored out of line count with their length.
    run(
        &mut admin,
        "ALTER TABLE wide ALTER body SET STORAGE EXTERNAL;
         CREATE TABLE external (LIKE wide INCLUDING STORAGE);
         INSERT INTO external SELECT owner, body || 'x' FROM wide;
         ALTER TABLE external ENABLE ROW LEVEL SECURITY; GRANT SELECT ON external TO app;
         CREATE POLICY own ON external USING (owner = auth.user_id())",
    );
    let rows = explain(&mut admin, &format!("'external', {claims}"));
    assert_eq!(tried(&rows), Some(27), "{rows:#?}");
}

/// Names and values of every form.
#[test]
fn hostile_names_are_quoted() {
    let site = start();
    let mut admin = site.cluster.admin();
    let name = r#"a'b""c%s$1 \1;-- ""#;
    run(
        &mut admin,
        &format!(
            r#"CREATE SCHEMA "{name}; GRANT USAGE ON SCHEMA "{name} TO app;
               CREATE TABLE "{name}."{name} ("{name} text, t text);
               INSERT INTO "{name}."{name} VALUES ('alice', 'x');
               ALTER TABLE "{name}."{name} ENABLE ROW LEVEL SECURITY; GRANT SELECT ON "{name}."{name} TO app;
               CREATE FUNCTION "{name}."{name}("{name}."{name}) RETURNS boolean LANGUAGE sql
                   AS $$ SELECT $1.t = 'x' $$;
               CREATE POLICY "{name} ON "{name}."{name} USING ("{name} = auth.user_id() AND t = 'x'
                   AND "{name}."{name}("{name}.*));"#
        ),
    );
    let relation = quote(&format!(r#""{name}."{name}"#));
    let rows = explain(
        &mut admin,
        &format!(r#"{relation}, claims => '{{"sub": "alice"}}', role => 'app'"#),
    );
    let answer = rows.iter().find(|row| row.item == "answer").expect("an answer");
    assert_eq!(answer.detail, "1 of 1 rows.", "{rows:#?}");
    let rows =
        explain(&mut admin, &format!(r#"{relation}, claims => '{{"sub": "bob"}}', role => 'app'"#));
    let answer = rows.iter().find(|row| row.item == "answer").expect("an answer");
    assert!(answer.detail.contains("such as 'alice'"), "{rows:#?}");
}

/// The functions that policies call find what they find in a query of the caller.
#[test]
fn functions_have_the_search_path_of_the_caller() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE SCHEMA helpers; GRANT USAGE ON SCHEMA helpers TO app;
         CREATE FUNCTION helpers.me() RETURNS text LANGUAGE sql AS 'SELECT auth.user_id()';
         CREATE FUNCTION mine(text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN $1 = me(); END'",
    );
    run(&mut admin, TABLE);
    run(&mut admin, "ALTER POLICY own ON t USING (mine(owner))");
    let claims = r#"'t', claims => '{"sub": "alice"}', role => 'app'"#;
    for (path, expected) in [("public", "42883"), ("public, helpers", "1 of 2 rows.")] {
        run(&mut admin, &format!("SET search_path = {path}"));
        let rows = explain(&mut admin, claims);
        let answer = rows.iter().find(|row| row.item == "answer").expect("an answer");
        assert!(answer.detail.contains(expected), "{path}: {rows:#?}");
    }
}

/// Which conditions of policies count for a command, and how they are joined.
#[test]
fn the_condition_of_a_command_has_its_policies() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE TABLE t (c int, n int);
         CREATE POLICY p1 ON t USING (c = 1);
         CREATE POLICY p2 ON t USING (c = 2) WITH CHECK (n = 2);
         CREATE POLICY p3 ON t WITH CHECK (n = 3);
         CREATE POLICY p4 ON t FOR INSERT WITH CHECK (n = 4);
         CREATE POLICY p5 ON t FOR SELECT USING (c = 5);
         CREATE POLICY p6 ON t FOR DELETE USING (c = 6);
         CREATE POLICY p7 ON t FOR UPDATE USING (c = 7) WITH CHECK (n = 7);
         CREATE POLICY p8 ON t AS RESTRICTIVE USING (c = 8);
         CREATE POLICY p9 ON t TO anon USING (c = 9);
         CREATE TABLE strict (c int); CREATE POLICY p ON strict AS RESTRICTIVE USING (c = 1)",
    );
    let mut condition = |table: &str, role: &str, command: &str, permissive: bool| {
        let call = format!(
            "SELECT auth.policy_condition('{table}', '{role}'::regrole, '{command}', {permissive})"
        );
        text(&mut admin, &call).expect(&call)
    };
    for (command, expected) in [
        ("SELECT", ["(c = 1)", "(c = 2)", "(c = 5)"].as_slice()),
        ("INSERT", &["(c = 1)", "(n = 2)", "(n = 3)", "(n = 4)"]),
        ("UPDATE", &["(c = 1)", "(c = 2)", "(c = 7)"]),
        ("DELETE", &["(c = 1)", "(c = 2)", "(c = 6)"]),
    ] {
        let permissive = condition("t", "app", command, true);
        let inner = permissive.strip_prefix("((").and_then(|rest| rest.strip_suffix("))"));
        let mut alternatives: Vec<&str> = inner.expect(&permissive).split(") OR (").collect();
        alternatives.sort_unstable();
        assert_eq!(alternatives, expected, "{command}: {permissive}");
        let all = condition("t", "app", command, false);
        assert_eq!(all, format!("{permissive} AND ((c = 8))"), "{command}: with restrictive ones");
    }
    let other = condition("t", "anon", "SELECT", true);
    assert!(other.contains("(c = 9)"), "another role: {other}");
    assert_eq!(condition("strict", "app", "SELECT", false), "(false) AND ((c = 1))", "restrictive");
    assert_eq!(condition("strict", "app", "SELECT", true), "(false)", "no permissive one");
}

/// The permissions of a token, where policies ask for them.
#[test]
fn permissions_of_the_token_are_shown() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(&mut admin, "CREATE TABLE notes (id int); INSERT INTO notes VALUES (1)");
    run(
        &mut admin,
        "GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO app; SELECT auth.protect('notes')",
    );
    let given = r#"'notes', claims => '{"sub": "alice", "a": "ro"}', role => 'app'"#;
    let rows = explain(&mut admin, given);
    let outcomes: Vec<(&str, &str)> = rows
        .iter()
        .filter(|row| row.item == "permission of the token")
        .map(|row| (row.command.as_str(), row.outcome.as_str()))
        .collect();
    let expected =
        [("SELECT", "allowed"), ("INSERT", "denied"), ("UPDATE", "denied"), ("DELETE", "denied")];
    assert_eq!(outcomes, expected, "{rows:#?}");
}

/// The user id is the claim that the provider of the claims' issuer names.
#[test]
fn claims_are_read_as_their_provider_reads_them() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    run(&mut admin, TABLE);
    run(
        &mut admin,
        "SELECT auth.add_provider('p', issuer => 'p', user_id_claim => 'uid',
                                  secret => '3f1de9c07ab24586a1b0c9d8e7f60514')",
    );
    for (claims, expected) in [
        (r#"{"iss": "p", "sub": "bob", "uid": "alice"}"#, "alice"),
        (r#"{"iss": "other", "sub": "bob", "uid": "alice"}"#, "bob"),
        (r#"{"sub": "bob"}"#, "bob"),
    ] {
        let rows = explain(&mut admin, &format!("'t', claims => '{claims}', role => 'app'"));
        let identity = rows.iter().find(|row| row.item == "identity").expect("the item");
        assert_eq!(identity.outcome, expected, "{claims}");
    }
}

/// On every way out: after a result, an error, and a cancellation.
#[test]
fn the_session_is_as_before() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(&mut admin, TABLE);
    run(&mut admin, "CREATE TABLE log (id int)");
    let given = r#"'t', claims => '{"sub": "alice"}', role => 'app'"#;
    let check = |admin: &mut Client, label: &str| {
        assert_eq!(user(admin), None, "{label}: the user");
        let state = "SELECT concat_ws(' ', current_user, session_user, current_setting('transaction_read_only'),
                                      current_setting('row_security'), current_setting('search_path'))";
        assert_eq!(
            text(admin, state).as_deref(),
            Some("postgres postgres off on \"$user\", public"),
            "{label}: the state"
        );
        run(admin, "INSERT INTO log VALUES (1)");
        // Not a security-restricted operation any more, and no trial.
        run(admin, "SET LOCAL ROLE app; RESET ROLE; CREATE TEMP TABLE x (); DROP TABLE x");
        run(admin, "SELECT setseed(0.5)");
    };
    run(&mut admin, "BEGIN");
    explain(&mut admin, given);
    check(&mut admin, "after a result");
    run(&mut admin, "COMMIT");
    check(&mut admin, "in the next transaction");
    run(&mut admin, "ALTER POLICY own ON t USING (auth.user_id()::int = 1)");
    run(&mut admin, "BEGIN");
    explain(&mut admin, given);
    check(&mut admin, "after errors in policies");
    run(&mut admin, "COMMIT; BEGIN; SAVEPOINT s");
    // The function itself, with an error that leaves it.
    let call = r#"SELECT auth.try_as('app'::regrole, '{"sub": "alice"}', 'public',
                                     'SELECT ARRAY[(auth.user_id() || 1 / 0)]', NULL::text[])"#;
    assert_eq!(sqlstate(admin.batch_execute(call)), harness::DIVISION_BY_ZERO, "an error");
    run(&mut admin, "ROLLBACK TO s");
    check(&mut admin, "after an error");
    run(&mut admin, "COMMIT");
    assert_eq!(sqlstate(admin.batch_execute(call)), harness::DIVISION_BY_ZERO, "an error");
    check(&mut admin, "after a transaction with an error");
    run(
        &mut admin,
        "ALTER POLICY own ON t USING (pg_sleep(60) IS NOT NULL AND auth.user_id() IS NOT NULL)",
    );
    run(&mut admin, "SET statement_timeout = '300ms'");
    assert_eq!(code(&mut admin, given), QUERY_CANCELED, "a cancellation");
    run(&mut admin, "RESET statement_timeout");
    check(&mut admin, "after a cancellation");
    // A result of the function itself.
    let call = r#"SELECT (auth.try_as('app'::regrole, '{"sub": "alice"}', 'public',
        'SELECT ARRAY[auth.user_id(), current_user, current_setting(''search_path'')]', NULL::text[]))::text"#;
    assert_eq!(text(&mut admin, call).as_deref(), Some("{alice,app,public}"), "a result");
    check(&mut admin, "after a result of its own");
    // What the query sets ends with the function, not with the transaction.
    let call = r#"SELECT auth.try_as('app'::regrole, '{"sub": "alice"}', 'public',
        'SELECT ARRAY[set_config(''row_security'', ''off'', false)]', NULL::text[])"#;
    run(&mut admin, "BEGIN");
    run(&mut admin, call);
    check(&mut admin, "after a result, in the transaction");
    run(&mut admin, "COMMIT");
}

/// A function of a policy catches an error: the subtransaction ends, and the trial does not.
#[test]
fn a_subtransaction_within_a_policy_keeps_the_identity() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(&mut admin, TABLE);
    run(
        &mut admin,
        "CREATE FUNCTION mine(text) RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN
             BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END;
             RETURN $1 = auth.user_id();
         END $$;
         ALTER POLICY own ON t USING (mine(owner))",
    );
    let rows = explain(&mut admin, r#"'t', claims => '{"sub": "alice"}', role => 'app'"#);
    let answer = rows.iter().find(|row| row.item == "answer").expect("an answer");
    assert_eq!(answer.detail, "1 of 2 rows.", "{rows:#?}");
}

/// The identity of the session counts where no claims are given, and stays.
#[test]
fn the_own_identity_stays() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(&mut admin, TABLE);
    let mut alice = client(&site, "app", Some(r#"{"sub": "alice"}"#));
    run(&mut alice, "BEGIN");
    let rows = explain(&mut alice, "'t'");
    let answer = rows.iter().find(|row| row.item == "answer").expect("an answer");
    assert_eq!(answer.detail, "1 of 1 rows.", "{rows:#?}");
    assert_eq!(user(&mut alice).as_deref(), Some("alice"), "in the transaction");
    run(&mut alice, "COMMIT");
    assert_eq!(user(&mut alice).as_deref(), Some("alice"), "after it");
    let mut admin = site.cluster.admin();
    assert_eq!(present(&mut admin, &site.token("bob")), SUCCESS, "bob's token");
    let rows = explain(&mut admin, "'t', role => 'app'");
    let identity = rows.iter().find(|row| row.item == "identity").expect("the item");
    assert_eq!(identity.outcome, "bob", "{rows:#?}");
    assert_eq!(user(&mut admin).as_deref(), Some("bob"), "the administrator");
}

/// A plan in a trial has no parallel workers, which would not know the identity.
#[test]
fn the_identity_is_in_every_part_of_a_plan() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE TABLE members (org int, member text);
         INSERT INTO members SELECT n, 'alice' FROM generate_series(1, 20000) n; ANALYZE members;
         GRANT SELECT ON members TO app;
         CREATE TABLE t (org int); INSERT INTO t SELECT n FROM generate_series(1, 10) n;
         ALTER TABLE t ENABLE ROW LEVEL SECURITY; GRANT SELECT ON t TO app;
         CREATE POLICY org ON t USING (org IN (SELECT org FROM members WHERE member = auth.user_id()));
         CREATE FUNCTION is_member(int) RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM FROM members WHERE org = $1 AND member = auth.user_id();
             RETURN FOUND;
         END $$",
    );
    run(
        &mut admin,
        &format!(
            "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
             SET parallel_leader_participation = off;
             SET {} = on",
            harness::parallel_query_setting()
        ),
    );
    // Postgres runs the query itself without workers, because one row of it is read. Those of functions have them.
    for condition in
        ["org IN (SELECT org FROM members WHERE member = auth.user_id())", "is_member(org)"]
    {
        run(&mut admin, &format!("ALTER POLICY org ON t USING ({condition})"));
        let rows = explain(&mut admin, r#"'t', claims => '{"sub": "alice"}', role => 'app'"#);
        let answer = rows.iter().find(|row| row.item == "answer").expect("an answer");
        assert_eq!(answer.detail, "10 of 10 rows.", "{condition}: {rows:#?}");
    }
}

#[test]
fn both_functions_work_on_a_standby() {
    let primary = Cluster::start(Preload::Shared, &[]);
    run(&mut primary.admin(), TABLE);
    let standby = primary.standby();
    standby.catch_up(&primary);
    let mut admin = standby.as_role("postgres").client();
    let rows = explain(&mut admin, r#"'t', claims => '{"sub": "alice"}', role => 'app'"#);
    let answer = rows.iter().find(|row| row.item == "answer").expect("an answer");
    assert_eq!(answer.detail, "1 of 2 rows.", "{rows:#?}");
    let found = send(&mut admin, "SELECT count(*) > 0 FROM auth.health()").expect("findings");
    assert_eq!(found.lines(""), ["t"], "findings");
}
