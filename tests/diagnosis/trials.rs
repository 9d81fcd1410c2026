//! What a query that is tried can leave behind, and what it leaves in the server log. A hostile owner has written
//! the function in the policy, with the owner's own privileges.

use std::collections::BTreeSet;

use harness::{
    CANT_CHANGE_RUNTIME_PARAM, FEATURE_NOT_SUPPORTED, INSUFFICIENT_PRIVILEGE,
    READ_ONLY_SQL_TRANSACTION, Site, lacks_library, postgres_version, quote, run, send, text,
};
use postgres::Client;

use crate::explain::explain;
use crate::puzzles::start;

/// `active_sql_transaction`
const ACTIVE_TRANSACTION: &str = "25001";

const EXPLAIN: &str = r#"'mal.t', claims => '{"sub": "alice"}', role => 'app'"#;

/// A table of mallory whose policy calls a function of mallory.
fn set_up(site: &Site) -> (Client, Client) {
    let mut admin = site.cluster.admin();
    run(&mut admin, "CREATE ROLE mallory LOGIN; CREATE SCHEMA mal AUTHORIZATION mallory");
    let mut mallory = site.cluster.as_role("mallory").client();
    run(
        &mut mallory,
        "GRANT USAGE ON SCHEMA mal TO PUBLIC;
         CREATE SEQUENCE mal.s;
         CREATE TABLE mal.loot (what text);
         CREATE TABLE mal.t (a int, body text);
         INSERT INTO mal.t SELECT i, 'marker of ' || i FROM generate_series(1, 3) i;
         ALTER TABLE mal.t ENABLE ROW LEVEL SECURITY;
         GRANT SELECT ON mal.t TO app;
         CREATE FUNCTION mal.f(int) RETURNS boolean LANGUAGE sql AS 'SELECT true';
         CREATE POLICY p ON mal.t FOR SELECT TO app USING (mal.f(a))",
    );
    (admin, mallory)
}

/// Lets the policy's function, or another one that returns an array of texts, run a statement as mallory.
fn arm(mallory: &mut Client, attack: &str, is_quiet: bool) {
    let handler = if is_quiet { "EXCEPTION WHEN OTHERS THEN NULL;" } else { "" };
    let body = |result: &str| {
        format!(
            "LANGUAGE plpgsql SECURITY DEFINER AS $x$ BEGIN
            BEGIN EXECUTE {}; {handler} END; RETURN {result}; END $x$",
            quote(attack)
        )
    };
    run(
        mallory,
        &format!(
            "CREATE OR REPLACE FUNCTION mal.f(int) RETURNS boolean {};
             CREATE OR REPLACE FUNCTION mal.g() RETURNS text[] {}",
            body("true"),
            body("'{}'")
        ),
    );
}

const TRY: &str =
    "SELECT auth.try_as('app'::regrole, NULL, 'public', 'SELECT mal.g()', NULL::int[])";

/// The characteristics of the transaction, and settings.
const CHARACTERISTICS: &str = "SELECT concat_ws(' ', current_setting('transaction_isolation'),
    current_setting('transaction_read_only'), current_setting('transaction_deferrable'),
    current_setting('default_transaction_isolation'), current_setting('default_transaction_read_only'),
    current_setting('search_path'))";

/// What is left in the database and in the session.
const TRACES: &str = "SELECT concat_ws(' ', (SELECT last_value FROM mal.s),
    (SELECT count(*) FROM mal.loot), to_regclass('mal.more'),
    (SELECT data_type FROM information_schema.columns WHERE (table_name, column_name) = ('t', 'a')),
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'))";

/// A transaction stays read only, whatever the query does to the settings of the transaction.
#[test]
fn a_trial_stays_read_only() {
    let site = start();
    let (mut admin, mut mallory) = set_up(&site);
    for change in [
        "RESET transaction_read_only",
        "SET transaction_read_only TO DEFAULT",
        "SET transaction_read_only = off",
        "SET TRANSACTION READ WRITE",
        "SELECT set_config('transaction_read_only', NULL, false)",
        "SELECT set_config('transaction_read_only', NULL, true)",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "RESET transaction_isolation",
        "SELECT set_config('transaction_isolation', NULL, false)",
        "RESET transaction_deferrable",
        "RESET ALL",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SET default_transaction_read_only = off",
    ] {
        for write in [
            "SELECT setval('mal.s', 42)",
            "INSERT INTO mal.loot VALUES ('x')",
            "CREATE TABLE mal.more ()",
            "ALTER TABLE mal.t ALTER a TYPE text",
        ] {
            for is_quiet in [false, true] {
                // The write follows the change in one statement too.
                let attack = match change.strip_prefix("SELECT ") {
                    Some(call) if write.starts_with("SELECT ") => {
                        format!("SELECT {call}, {}", &write["SELECT ".len()..])
                    }
                    _ => format!("{change}; {write}"),
                };
                let label = format!("{attack} ({})", if is_quiet { "quiet" } else { "loud" });
                arm(&mut mallory, &attack, is_quiet);
                run(&mut admin, "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE");
                let rows = explain(&mut admin, EXPLAIN);
                let answer = rows.iter().find(|row| row.item == "answer").expect("an answer");
                let expected = "repeatable read off off read committed off \"$user\", public";
                assert_eq!(
                    text(&mut admin, CHARACTERISTICS).as_deref(),
                    Some(expected),
                    "{label}: explained"
                );
                let tried = send(&mut admin, &format!("SAVEPOINT s; {TRY}"));
                if tried.is_err() {
                    run(&mut admin, "ROLLBACK TO s");
                }
                assert_eq!(
                    text(&mut admin, CHARACTERISTICS).as_deref(),
                    Some(expected),
                    "{label}: tried"
                );
                run(&mut admin, "COMMIT");
                assert_eq!(
                    text(&mut admin, TRACES).as_deref(),
                    Some("1 0 integer 0"),
                    "{label}: traces"
                );
                if !is_quiet {
                    // From 16 on, a reset is FEATURE_NOT_SUPPORTED.
                    let codes = [
                        READ_ONLY_SQL_TRANSACTION,
                        CANT_CHANGE_RUNTIME_PARAM,
                        ACTIVE_TRANSACTION,
                        FEATURE_NOT_SUPPORTED,
                    ];
                    let failed = tried.err().unwrap_or_default();
                    assert!(codes.contains(&&*failed), "{label}: {failed}");
                    assert!(
                        codes.iter().any(|code| answer.detail.contains(&format!("error: {code}:"))),
                        "{label}: {}",
                        answer.detail
                    );
                }
            }
        }
    }
}

/// A query that is tried directly leaves the settings as they were. `auth.try_all()` rolls all of it back.
#[test]
fn a_trial_changes_no_setting_and_is_rolled_back() {
    let site = start();
    let (mut admin, mut mallory) = set_up(&site);
    let try_all = "SELECT FROM auth.try_all('app'::regrole, NULL, 'public', ARRAY['SELECT mal.g()'], NULL::int[])";
    for (attack, is_refused) in [
        // In 15, no value can be set.
        ("EXECUTE 'SET transaction_read_only = on'", postgres_version() < 16),
        ("PERFORM set_config('transaction_read_only', 'on', true)", postgres_version() < 16),
        ("PERFORM set_config('search_path', 'mal', false)", false),
        ("PERFORM set_config('default_transaction_isolation', 'serializable', false)", false),
        ("OPEN kept FOR SELECT 1", false),
        ("PERFORM pg_advisory_xact_lock(1)", false),
    ] {
        run(
            &mut mallory,
            &format!(
                "CREATE OR REPLACE FUNCTION mal.g() RETURNS text[] LANGUAGE plpgsql SECURITY DEFINER AS $x$
                 DECLARE kept refcursor := 'kept'; BEGIN {attack}; RETURN '{{}}'; END $x$"
            ),
        );
        for (call, rolls_back) in [(TRY, false), (try_all, true)] {
            let label = format!("{attack}: {call}");
            run(&mut admin, "BEGIN; SAVEPOINT s");
            let failed = send(&mut admin, call).err();
            let expected = (is_refused && !rolls_back).then_some(CANT_CHANGE_RUNTIME_PARAM);
            assert_eq!(failed.as_deref(), expected, "{label}");
            if failed.is_some() {
                run(&mut admin, "ROLLBACK TO s");
            }
            assert_eq!(
                text(&mut admin, CHARACTERISTICS).as_deref(),
                Some("read committed off off read committed off \"$user\", public"),
                "{label}"
            );
            let left = "SELECT ((SELECT count(*) FROM pg_cursors WHERE name = 'kept')
                        + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'))::text";
            let is_left = ["kept", "lock"].iter().any(|word| attack.contains(word)) && !rolls_back;
            let expected = if is_left { "1" } else { "0" };
            assert_eq!(text(&mut admin, left).as_deref(), Some(expected), "{label}: left");
            run(&mut admin, "INSERT INTO mal.loot VALUES ('x'); ROLLBACK");
        }
    }
}

/// The planner estimates selectivities with statistics of columns: it calls the functions of operators, and no hook
/// sees these calls.
#[test]
fn the_planner_calls_no_function_of_an_operator() {
    let site = start();
    let (mut admin, mut mallory) = set_up(&site);
    run(
        &mut mallory,
        "CREATE TABLE mal.big (a int, b int); CREATE TABLE mal.other (a int);
         INSERT INTO mal.big SELECT i % 3, i % 3 FROM generate_series(1, 3000) i;
         INSERT INTO mal.other SELECT i % 3 FROM generate_series(1, 3000) i;
         CREATE INDEX ON mal.big ((a + b));
         CREATE STATISTICS mal.together (mcv) ON a, b FROM mal.big;
         CREATE OPERATOR mal.=== (FUNCTION = pg_try_advisory_lock, LEFTARG = int, RIGHTARG = int,
             RESTRICT = eqsel, JOIN = eqjoinsel, COMMUTATOR = OPERATOR(mal.===), NEGATOR = OPERATOR(mal.!==));
         CREATE FUNCTION mal.differs(int, int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
             'BEGIN RETURN $1 <> $2; END';
         CREATE FUNCTION mal.hidden(int) RETURNS boolean LANGUAGE sql AS 'SELECT $1 OPERATOR(mal.===) 1';
         CREATE OPERATOR mal.!== (FUNCTION = mal.differs, LEFTARG = int, RIGHTARG = int,
             RESTRICT = neqsel, JOIN = neqjoinsel, NEGATOR = OPERATOR(mal.===));
         CREATE OPERATOR mal.<== (FUNCTION = pg_try_advisory_lock_shared, LEFTARG = int, RIGHTARG = int,
             RESTRICT = scalarltsel, JOIN = scalarltjoinsel);
         ANALYZE mal.big; ANALYZE mal.other",
    );
    let locks = "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory'";
    for condition in [
        "mal.big WHERE a OPERATOR(mal.===) 1",
        "mal.big WHERE mal.hidden(a)",
        "mal.big WHERE a OPERATOR(mal.!==) 1",
        "mal.big WHERE NOT a OPERATOR(mal.!==) 1",
        "mal.big WHERE a OPERATOR(mal.<==) 1",
        "mal.big WHERE (a + b) OPERATOR(mal.===) 1",
        "mal.big WHERE a OPERATOR(mal.===) 1 AND b OPERATOR(mal.===) 1",
        "mal.big WHERE a OPERATOR(mal.===) ANY (ARRAY[1, 2])",
        "mal.big JOIN mal.other ON big.a OPERATOR(mal.===) other.a",
        "mal.big JOIN mal.other ON big.a OPERATOR(mal.!==) other.a",
    ] {
        let attack = format!("EXPLAIN SELECT FROM {condition}");
        // It is an attack: outside of a trial, the planner takes the locks.
        run(&mut mallory, &attack);
        assert_ne!(text(&mut admin, locks).as_deref(), Some("0"), "{condition}: no attack");
        run(&mut mallory, "SELECT pg_advisory_unlock_all()");
        for is_quiet in [false, true] {
            arm(&mut mallory, &attack, is_quiet);
            explain(&mut admin, EXPLAIN);
            assert_eq!(text(&mut admin, locks).as_deref(), Some("0"), "{condition}: explained");
            // EXPLAIN prepares the executor too, which rejects the function.
            let failed = send(&mut admin, TRY).err();
            assert!(failed.is_none_or(|code| code == INSUFFICIENT_PRIVILEGE), "{condition}: tried");
            assert_eq!(text(&mut admin, locks).as_deref(), Some("0"), "{condition}: tried");
        }
        // A call is seen.
        if condition.contains("===") && !condition.contains("JOIN") {
            arm(&mut mallory, &format!("SELECT FROM {condition}"), false);
            assert_eq!(
                send(&mut admin, TRY).err().as_deref(),
                Some(INSUFFICIENT_PRIVILEGE),
                "{condition}: executed"
            );
        }
    }
}

/// The volatile functions of Postgres that a query may call while it is tried. All others are rejected, so that
/// a function of a later version is rejected until it is in this list and in that of `outlives_rollback`. Those of
/// SQL call others.
const CALLABLE: &[&str] = &[
    "array_sample",
    "array_shuffle",
    "clock_timestamp",
    "current_query",
    "currval",
    "gen_random_uuid",
    "lastval",
    "lo_get",
    "nextval",
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_blocking_pids",
    "pg_is_in_recovery",
    "pg_lock_status",
    "pg_notify",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "pg_try_advisory_xact_lock",
    "pg_try_advisory_xact_lock_shared",
    "pg_xact_commit_timestamp",
    "pg_xact_status",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "random",
    "random_normal",
    "set_config",
    "setval",
    "timeofday",
    "ts_rewrite",
    "ts_stat",
    "txid_status",
    "uuidv4",
    "uuidv7",
];

/// Each volatile function of this server is either in the list, or rejected.
#[test]
fn volatile_functions_are_rejected_unless_they_are_known() {
    let site = start();
    let (mut admin, mut mallory) = set_up(&site);
    run(
        &mut mallory,
        "CREATE FUNCTION mal.probe(calls text[]) RETURNS text[] LANGUAGE plpgsql AS $$
         DECLARE call text; outcomes text[] := '{}';
         BEGIN
             FOREACH call IN ARRAY calls LOOP
                 BEGIN
                     EXECUTE call;
                     outcomes := outcomes || 'callable'::text;
                 EXCEPTION WHEN OTHERS THEN
                     outcomes := outcomes || SQLERRM;
                 END;
             END LOOP;
             RETURN outcomes;
         END $$",
    );
    // The privileges of a role do not decide.
    run(&mut admin, "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pg_catalog TO PUBLIC");
    // The executor finds each function in the plan, and calls none: no row passes the condition.
    run(
        &mut admin,
        "CREATE TABLE public.probes AS
         SELECT p.proname::text AS name,
                format('SELECT %I(%s) FROM (SELECT 1 %s OFFSET 0) x WHERE random() < 0', p.proname,
                       string_agg(CASE WHEN p.provariadic <> 0 AND n = p.pronargs THEN 'VARIADIC ' ELSE '' END || 'x.a' || n, ', ' ORDER BY n) FILTER (WHERE n > 0),
                       coalesce(string_agg(format(', NULL::%s AS a%s', t.used, n), '' ORDER BY n) FILTER (WHERE n > 0), '')) AS call
         FROM pg_proc p
         LEFT JOIN LATERAL unnest(p.proargtypes) WITH ORDINALITY k (type, n) ON true
         LEFT JOIN LATERAL (SELECT CASE format_type(k.type, NULL)
                                   WHEN 'anyarray' THEN 'int[]' WHEN 'anyelement' THEN 'int' WHEN '\"any\"' THEN 'int[]'
                                   ELSE format_type(k.type, NULL) END AS used) t ON true
         WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.oid < 16384 AND p.provolatile = 'v'
           AND p.prokind = 'f' AND 'internal'::regtype <> ALL (p.proargtypes)
           AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
         GROUP BY p.oid, p.proname",
    );
    let rows = admin
        .query(
            "SELECT name, outcome
             FROM (SELECT array_agg(name ORDER BY name, call) AS names, array_agg(call ORDER BY name, call) AS calls
                   FROM public.probes) p,
                  unnest(p.names, auth.try_as('app'::regrole, NULL, 'pg_catalog', 'SELECT mal.probe($1)', p.calls))
                  AS o (name, outcome)",
            &[],
        )
        .expect("probes");
    assert!(rows.len() > 200, "{}", rows.len());
    let mut callable = BTreeSet::new();
    for row in &rows {
        let (name, outcome): (String, String) = (row.get(0), row.get(1));
        match outcome.as_str() {
            "callable" => drop(callable.insert(name)),
            "function cannot be called while a query is tried" => {}
            other => panic!("{name}: {other}"),
        }
    }
    let names: Vec<String> = admin
        .query("SELECT DISTINCT name FROM public.probes", &[])
        .expect("names")
        .iter()
        .map(|row| row.get(0))
        .collect();
    let expected: BTreeSet<String> =
        names.into_iter().filter(|name| CALLABLE.contains(&name.as_str())).collect();
    assert_eq!(callable, expected);
}

/// The rows of the sample are a parameter: no plan and no line of the log contains them.
#[test]
fn the_server_log_contains_no_row_of_the_sample() {
    if lacks_library(&["auto_explain"]) {
        return;
    }
    let site = start();
    let (mut admin, _mallory) = set_up(&site);
    run(
        &mut admin,
        "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_verbose = on;
         SET auto_explain.log_nested_statements = on; SET auto_explain.log_analyze = on; SET log_min_duration_statement = 0;
         SET log_parameter_max_length = -1",
    );
    let has_parameters =
        text(&mut admin, "SELECT current_setting('auto_explain.log_parameter_max_length', true)");
    for mode in ["auto", "force_custom_plan", "force_generic_plan"] {
        run(&mut admin, &format!("SET plan_cache_mode = {mode}"));
        let rows = explain(&mut admin, EXPLAIN);
        let tried = rows.iter().find(|row| row.item == "answer").map(|row| row.detail.clone());
        assert_eq!(tried.as_deref(), Some("3 of 3 rows."), "{mode}: {has_parameters:?}");
    }
    let log = site.cluster.log();
    assert!(log.contains("Query Text: SELECT ") && log.contains("unnest($1)"), "no plan: {log}");
    let found = log.lines().find(|line| line.contains("marker of"));
    assert_eq!(found, None);
}
