//! Tokens and secrets in what `debug_print_parse` and its like write, which every role may set: constants
//! stand there byte by byte.

use harness::{Cluster, Preload, Wire, lacks_library, now, run};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::json;

/// A secret with what ends and begins things in a dump. Dumps of joins have the numbers of columns in order.
const SECRET: &str = "s3cr3t }]\": {x\" [ ( 7390184625abcdefghijklmnopqrstuvwxyz";

/// Fails where any eight bytes of a text stand in the log, as they are or in decimal.
fn assert_hidden(what: &str, log: &str, text: &str) {
    let words: Vec<&str> = log.split_ascii_whitespace().collect();
    let joined = words.join(" ");
    let unbroken = words.concat();
    for window in text.as_bytes().windows(8) {
        let text = String::from_utf8_lossy(window);
        let decimals: Vec<String> = window.iter().map(|byte| (*byte as i8).to_string()).collect();
        for form in [text.as_ref(), &decimals.join(" ")] {
            if let Some(place) = joined.find(form) {
                panic!("{what}: {form:?} in {}", &joined[place.saturating_sub(200)..][..400]);
            }
        }
        // Broken into lines in the middle of a number.
        assert!(!unbroken.contains(&decimals.concat()), "{what}: {decimals:?}");
        if let Some(place) = unbroken.find(text.as_ref()) {
            panic!("{what}: {text:?} in {}", &unbroken[place.saturating_sub(200)..][..400]);
        }
    }
}

fn set_up(client: &mut Client, pretty: &str) {
    run(
        client,
        &format!(
            "SET debug_print_parse = on; SET debug_print_rewritten = on; SET debug_print_plan = on;
             SET debug_pretty_print = {pretty}; SET client_min_messages = log"
        ),
    );
}

#[test]
fn dumps_show_no_constants() {
    let key = Key::generate(Algorithm::ES256);
    let jwk = key.public_jwk().to_string();
    let cluster = Cluster::start(Preload::Shared, &[("pg_session_jwt.jwk", &jwk)]);
    let mut admin = cluster.admin();
    run(
        &mut admin,
        "GRANT ALL ON auth.providers TO app; GRANT CREATE ON SCHEMA public TO app;
         CREATE ROLE reader; GRANT reader TO app;",
    );
    let token = key.sign(&json!({"sub": "alice", "exp": now() + 600}));
    let (start, end) = token.split_at(token.len() / 2);
    let escaped = SECRET.replace('\'', "''");
    let statements = [
        format!("SELECT auth.jwt_session_init('{token}')"),
        format!("SELECT auth.jwt_session_init('{start}' || '{end}')"),
        format!("SELECT auth.jwt_session_init(concat('{start}', lower(''), '{end}'))"),
        format!("SELECT '{{\"token\": \"{token}\"}}'::jsonb, '{token}'::bytea, array['{token}']"),
        format!("SELECT '{{{token}}}'::text[], '{token}'::varchar(2000), '{start}'::name"),
        format!("SELECT * FROM (VALUES ('{token}'), ('{token}')) v (t) WHERE t LIKE '{token}%'"),
        format!("PREPARE p AS SELECT auth.jwt_session_init('{token}')"),
        "EXECUTE p".to_owned(),
        "DEALLOCATE p".to_owned(),
        "PREPARE q (text) AS SELECT auth.jwt_session_init($1)".to_owned(),
        format!("EXECUTE q ('{token}')"),
        "DEALLOCATE q".to_owned(),
        format!("SET pg_session_jwt.jwt = '{token}'"),
        format!("SELECT set_config('pg_session_jwt.jwt', '{token}', false)"),
        format!("DO $do$ BEGIN PERFORM auth.jwt_session_init('{token}'); END $do$"),
        format!("DO $do$ DECLARE t text := '{token}'; BEGIN PERFORM auth.jwt_verify(t); END $do$"),
        format!(
            "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS
             $f$ SELECT auth.jwt_session_init('{token}') $f$; SELECT f(); DROP FUNCTION f()"
        ),
        format!(
            "CREATE FUNCTION g() RETURNS void LANGUAGE sql BEGIN ATOMIC
             SELECT auth.jwt_session_init('{token}'); END; SELECT g(); DROP FUNCTION g()"
        ),
        format!("CREATE TABLE t (token text DEFAULT '{token}'); DROP TABLE t"),
        format!("CREATE VIEW v AS SELECT '{token}'::text; SELECT * FROM v; DROP VIEW v"),
        format!("NOTIFY c, '{token}'"),
        format!("DECLARE c CURSOR WITH HOLD FOR SELECT '{token}'; FETCH c; CLOSE c"),
        format!("EXPLAIN (COSTS off) SELECT auth.jwt_verify('{token}')"),
        format!("SELECT auth.add_provider('p', issuer => 'i', secret => '{escaped}')"),
        "SELECT auth.remove_provider('p')".to_owned(),
        format!("INSERT INTO auth.providers (name, issuer, secret) VALUES ('p', 'i', '{escaped}')"),
        format!("UPDATE auth.providers SET secret = '{escaped}' || '!'"),
        "DELETE FROM auth.providers".to_owned(),
    ];
    for pretty in ["on", "off"] {
        let mut client = cluster.as_role("app").client();
        set_up(&mut client, pretty);
        for statement in &statements {
            let before = cluster.log().len();
            client
                .batch_execute(statement)
                .unwrap_or_else(|error| panic!("{statement}: {error:?}"));
            let log = cluster.log();
            let what = format!("{statement}, pretty {pretty}");
            assert_hidden(&what, &log[before..], &token);
            assert_hidden(&what, &log[before..], SECRET);
        }
        // As parameters, which plans have as constants.
        let before = cluster.log().len();
        client.execute("SELECT auth.jwt_session_init($1)", &[&token]).unwrap();
        client.query("SELECT $1::text || $2::text", &[&start, &end]).unwrap();
        let add = "SELECT auth.add_provider($1, issuer => $2, secret => $3)";
        client.execute(add, &[&"p", &"i", &SECRET]).unwrap();
        client.execute("DELETE FROM auth.providers WHERE secret = $1", &[&SECRET]).unwrap();
        let log = cluster.log();
        let log = &log[before..];
        assert_hidden(&format!("parameters, pretty {pretty}"), log, &token);
        assert_hidden(&format!("parameters, pretty {pretty}"), log, SECRET);
        // The dumps are there, and readable.
        for part in
            ["plan:", "{PLANNEDSTMT", ":commandType 1", "rewritten parse tree:", ":consttype 25"]
        {
            assert!(log.contains(part), "{part}, pretty {pretty}: {log}");
        }
    }
}

/// Who sees log messages sees its own dumps, without constants too.
#[test]
fn dumps_sent_to_the_client_show_none() {
    let cluster = Cluster::start(Preload::Session, &[]);
    let mut wire = Wire::connect(&cluster.as_role("app")).unwrap();
    wire.query("SET debug_print_parse = on; SET client_min_messages = log").unwrap();
    wire.query("SELECT 'a text to look for in there'").unwrap();
    let details = wire.notices();
    let details = details.iter().map(|notice| {
        [notice.get(b'M'), notice.get(b'D')].map(Option::unwrap_or_default).join(" ")
    });
    let dump = details.collect::<Vec<_>>().join("\n");
    assert!(dump.contains("parse tree:") && dump.contains("constvalue"), "{dump}");
    assert_hidden("a notice", &dump, "a text to look for in there");
}

/// What else writes statements and plans to the log, at every level.
#[test]
fn plans_and_statements_show_no_tokens() {
    if lacks_library(&["auto_explain"]) {
        return;
    }
    let key = Key::generate(Algorithm::ES256);
    let jwk = key.public_jwk().to_string();
    let cluster = Cluster::start(
        Preload::Shared,
        &[
            ("pg_session_jwt.jwk", &jwk),
            ("session_preload_libraries", "auto_explain"),
            ("auto_explain.log_min_duration", "0"),
            ("auto_explain.log_verbose", "on"),
            ("auto_explain.log_nested_statements", "on"),
            ("log_min_messages", "debug5"),
            ("log_statement", "all"),
            ("log_duration", "on"),
            ("log_parser_stats", "on"),
            ("log_planner_stats", "on"),
            ("log_executor_stats", "on"),
        ],
    );
    run(&mut cluster.admin(), "GRANT ALL ON auth.providers TO app");
    let token = key.sign(&json!({"sub": "alice", "exp": now() + 600}));
    let mut client = cluster.as_role("app").client();
    let secret = SECRET.replace('"', "");
    run(&mut client, "SET debug_print_plan = on; SET debug_print_parse = on");
    for statement in [
        format!("SELECT auth.jwt_session_init('{token}')"),
        format!("SELECT auth.jwt_verify(t), '{token}' FROM (VALUES ('{token}')) v (t)"),
        format!("DO $$ BEGIN PERFORM auth.jwt_session_init('{token}'); END $$"),
        format!("SET LOCAL pg_session_jwt.jwt = '{token}'"),
        format!("SELECT auth.add_provider('p', 'i', NULL, NULL, '{secret}')"),
        format!("UPDATE auth.providers SET secret = '{secret}!'"),
        format!("DELETE FROM auth.providers WHERE secret = '{secret}!'"),
    ] {
        run(&mut client, &statement);
        let log = cluster.log();
        assert_hidden(&statement, &log, &token);
        assert_hidden(&statement, &log, &secret);
    }
    client.execute("SELECT auth.jwt_session_init($1)", &[&token]).unwrap();
    let add = "SELECT auth.add_provider($1, issuer => $2, secret => $3)";
    client.execute(add, &[&"p", &"i", &secret]).unwrap();
    let log = cluster.log();
    assert_hidden("parameters", &log, &token);
    assert_hidden("parameters", &log, &secret);
    assert!(log.contains("Query Text:") && log.contains("plan:"), "{log}");
}
