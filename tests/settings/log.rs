//! Errors and the server's log: neither has tokens or keys.

use harness::{Code, sqlstate, test_each_preload};
use serde_json::json;

use super::site::*;

test_each_preload! {
    crate::site::SITES:
    refused_documents_are_not_quoted,
    refused_tokens_are_not_logged,
    tokens_refused_for_other_reasons_are_not_logged,
}

/// Neither the client nor the log is told what was in a document that was refused, not even by
/// way of the statement that would have set it.
fn refused_documents_are_not_quoted(site: &Site) {
    const MARKER: &str = "xMARKERx0123456789012345678901234567890";
    let jwk = KEYS.attacker.public_jwk();
    let keys = [
        json!(MARKER),
        json!({"k": MARKER}),
        json!({"kty": "oct", "alg": "HS512", "k": MARKER}),
        json!({"kty": "EC", "crv": "P-256", "x": MARKER, "y": MARKER}),
        json!({"kty": "EC", "crv": "P-256", "x": jwk["x"], "y": jwk["y"], "d": MARKER}),
        json!({"kty": "RSA", "n": MARKER, "e": "AQAB"}),
        json!({"keys": [MARKER]}),
        json!({"keys": MARKER}),
    ];
    let secret = json!({"secret": MARKER});
    let providers = [
        json!(MARKER),
        json!([secret, MARKER]),
        json!([secret, secret]),
        json!({"secret": MARKER, "jwks": {"kty": "oct", "k": MARKER}}),
        json!({"secret": MARKER, "unknown": MARKER}),
        json!({"secret": MARKER, "leeway": MARKER}),
        json!({"secret": MARKER, "audience": []}),
        json!({"secret": &MARKER[..20]}),
        json!({"jwks": {"kty": "oct", "k": &MARKER[..20]}}),
    ];
    let torn = |values: &[serde_json::Value]| {
        let mut texts: Vec<String> = values.iter().map(ToString::to_string).collect();
        texts.push(format!("{{\"secret\": \"{MARKER}\""));
        texts.push(MARKER.to_owned());
        texts.push(format!("{{\"{MARKER}"));
        texts
    };
    let cases = [(JWK, torn(&keys)), (PROVIDERS, torn(&providers))];
    let silent = |said: &str, context: &str| {
        let quoted = said.contains(&MARKER[..10]);
        assert!(!quoted, "{context} is told {said}");
    };
    let statements = [
        ("SET {name} = {value}", Code::Configuration.sqlstate()),
        ("SELECT set_config('{name}', {value}, false)", Code::Configuration.sqlstate()),
        ("SELECT tools.run_as_owner({set})", Code::Configuration.sqlstate()),
        ("ALTER ROLE refused SET {name} = {value}", Code::Configuration.sqlstate()),
        ("ALTER DATABASE postgres SET {name} = {value}", Code::Configuration.sqlstate()),
        ("ALTER SYSTEM SET {name} = {value}", Code::Configuration.sqlstate()),
        ("CREATE FUNCTION {f} SET {name} = {value} {body}", Code::Configuration.sqlstate()),
    ];
    site.admin("CREATE ROLE refused LOGIN");
    for (setting, values) in &cases {
        for value in values {
            let (client, notices) = listening(&site.role("postgres"));
            let mut client = loaded(client.unwrap());
            for (statement, expected) in statements {
                let context = format!("{:?}: {statement}, {value}", site.preload);
                let statement = filled(statement, setting, value);
                let error = client.batch_execute(&statement).expect_err(&context);
                // Without the context, which is the statement that PL/pgSQL was given.
                let said = error.as_db_error().unwrap();
                let said = (said.message(), said.detail(), said.hint());
                silent(&format!("{said:?} {:?}", notices.take()), &context);
                assert_eq!(sqlstate::<()>(Err(error)), expected, "{context}");
            }
            for role in ["proxy", "postgres"] {
                let context = format!("{:?}: {role}'s option {value}", site.preload);
                let (client, notices) = listening(&site.role(role).option(setting, value));
                match client {
                    Err(error) => silent(&format!("{error:?}"), &context),
                    Ok(client) => {
                        let mut client = loaded(client);
                        silent(&format!("{:?}", notices.take()), &context);
                        assert_refused(&whose(&mut client, &mallory()), &context);
                        let error = client.batch_execute("SELECT auth.init()");
                        silent(&format!("{error:?}"), &context);
                    }
                }
            }
            if site.is_late() {
                // Stored while nobody could say that it is wrong.
                let alter = "ALTER ROLE refused SET {name} = {value}";
                site.admin(&filled(alter, setting, value));
                let (client, notices) = listening(&site.role("refused"));
                let mut client = loaded(client.unwrap());
                let warnings = format!("{:?}", notices.take());
                assert!(warnings.contains(Code::Configuration.sqlstate()), "{warnings}");
                silent(&warnings, value);
                assert_refused(&whose(&mut client, &mallory()), value);
                site.admin(&filled("ALTER ROLE refused RESET {name}", setting, ""));
            }
        }
    }
    silent(&site.cluster.log(), "the log");
}

/// Ways in which a token stands as a literal in what Postgres would log of a failed statement.
const LITERALS: [&str; 8] = [
    "SELECT auth.jwt_session_init({value})",
    "SET pg_session_jwt.jwt = {value}",
    "BEGIN; SET LOCAL pg_session_jwt.jwt = {value}",
    "SELECT set_config('pg_session_jwt.jwt', {value}, false)",
    "SELECT auth.jwt_verify({value})",
    "DO $$BEGIN PERFORM auth.jwt_session_init({value}); END$$",
    "DO $$BEGIN SET LOCAL pg_session_jwt.jwt = {value}; END$$",
    "DO $$BEGIN EXECUTE 'SELECT auth.jwt_session_init($1)' USING {value}; END$$",
];

/// At the server's default settings a refused token is not in its log, not even as part of the
/// statement or of the function that presented it.
fn refused_tokens_are_not_logged(site: &Site) {
    let broken = {
        let token = alice();
        format!("{}x", &token[..token.len() - 2])
    };
    let expired = sign(&KEYS.configured, json!({"sub": "old", "exp": 1}));
    let tokens = [
        (mallory(), Code::Signature.sqlstate()),
        (ida("other"), Code::Audience.sqlstate()),
        (expired, Code::Expired.sqlstate()),
        (broken, "28J"),
        (sign(&KEYS.idp, json!({"sub": "kidless"})), Code::NoKey.sqlstate()),
        (format!("{}.x", alice()), Code::Malformed.sqlstate()),
    ];
    for (token, expected) in &tokens {
        for way in LITERALS {
            let context = format!("{:?}: {way}", site.preload);
            let mut client = site.session("app");
            let code = attempt(&mut client, &filled(way, "", token));
            assert!(code.starts_with(expected), "{context}: {code}");
            // With parameters, and before the library is there.
            let mut client = site.role("app").client();
            let code = sqlstate(client.execute("SELECT auth.jwt_session_init($1)", &[token]));
            assert!(code.starts_with(expected), "{context}: {code}");
        }
        let connection = site.role("app").option("pg_session_jwt.jwt", token);
        let code = attempt(&mut connection.client(), "SELECT auth.user_id()");
        assert!(code.starts_with(expected), "{:?}: {code}", site.preload);
    }
    let log = site.cluster.log();
    for (token, expected) in &tokens {
        assert!(log.contains(" ERROR:  token "), "errors are logged");
        assert_without_token(&log, token, expected);
    }
}

/// Nor where it is the configuration that is at fault, or that a token was to be stored.
fn tokens_refused_for_other_reasons_are_not_logged(site: &Site) {
    let twin = json!({"jwks": KEYS.other.public_jwk()}).to_string();
    let stores = [
        "ALTER ROLE hoarder SET pg_session_jwt.jwt = {value}",
        "CREATE FUNCTION {f} SET pg_session_jwt.jwt = {value} {body}",
    ];
    site.admin("CREATE ROLE hoarder LOGIN");
    site.database("conflicting", &[(PROVIDERS, &twin)]);
    for way in LITERALS.iter().chain(&stores) {
        let context = format!("{:?}: {way}", site.preload);
        let token = sign(&KEYS.configured, json!({"sub": "zoe"}));
        let connection = site.role("hoarder").database("conflicting");
        let mut client = loaded(connection.client());
        let code = attempt(&mut client, &filled(way, "", &token));
        assert_eq!(code, Code::Configuration.sqlstate(), "{context}");
        assert_without_token(&site.cluster.log(), &token, &context);
    }
}
