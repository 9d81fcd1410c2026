//! What may be in the table.

use harness::{
    Cluster, Code, INVALID_TEXT_REPRESENTATION, Preload, SUCCESS, UNIQUE_VIOLATION, db_error, key,
    now, present, run, sqlstate, text, token_of, user, wait_for,
};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::{Value, json};

use super::table::*;

#[test]
fn rows_are_held_to_the_rules_of_the_settings() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    let jwks = key("k").public_jwk();
    let private = key("k").private_jwk().unwrap();
    // What a setting would say, and what a row says.
    let cases: &[(&str, Value, &str)] = &[
        ("issuer", json!(""), Code::Configuration.sqlstate()),
        ("audience", json!([]), Code::Configuration.sqlstate()),
        ("audience", json!([""]), Code::Configuration.sqlstate()),
        ("algorithms", json!([]), Code::Configuration.sqlstate()),
        ("algorithms", json!(["none"]), Code::Configuration.sqlstate()),
        ("algorithms", json!(["HS256"]), Code::Configuration.sqlstate()),
        ("leeway", json!(-1), Code::Configuration.sqlstate()),
        ("leeway", json!(3601), Code::Configuration.sqlstate()),
        ("required_claims", json!([""]), Code::Configuration.sqlstate()),
        ("user_id_claim", json!("/~"), Code::Configuration.sqlstate()),
        ("role_claim", json!(""), Code::Configuration.sqlstate()),
        ("allowed_roles", json!([""]), Code::Configuration.sqlstate()),
        ("typ", json!([]), Code::Configuration.sqlstate()),
        ("jwks", json!({}), Code::Configuration.sqlstate()),
        ("jwks", json!([]), Code::Configuration.sqlstate()),
        ("jwks", private, Code::Configuration.sqlstate()),
        ("secret", json!("short"), Code::Configuration.sqlstate()),
        (
            "secret",
            json!("-----BEGIN PUBLIC KEY----- 0123456789abcdef"),
            Code::Configuration.sqlstate(),
        ),
        ("public_key", json!("0123456789abcdef"), Code::Configuration.sqlstate()),
        ("jwks", json!("https://example.com/jwks.json"), Code::Configuration.sqlstate()),
        ("secret", json!("0123456789abcdef0123456789abcdef"), SUCCESS),
        ("issuer", json!("i"), SUCCESS),
        ("audience", json!(["a", "b"]), SUCCESS),
        ("algorithms", json!(["ES256"]), SUCCESS),
        ("leeway", json!(0), SUCCESS),
        ("typ", json!(["at+jwt"]), SUCCESS),
        ("monotonic_jti", json!(true), SUCCESS),
        ("issuer", json!("https://x.example "), Code::Configuration.sqlstate()),
        (
            "issuer",
            json!("https://x.example/.well-known/openid-configuration"),
            Code::Configuration.sqlstate(),
        ),
        ("audience", json!(["app "]), Code::Configuration.sqlstate()),
        ("audience", json!(["a\u{1}b"]), Code::Configuration.sqlstate()),
        ("typ", json!(["JWT\n"]), Code::Configuration.sqlstate()),
        ("default_role", json!(" r"), Code::Configuration.sqlstate()),
        ("user_id_claim", json!("$.sub"), Code::Configuration.sqlstate()),
        ("role_claim", json!("/roles[0]"), Code::Configuration.sqlstate()),
        ("allowed_roles_claim", json!(".roles"), Code::Configuration.sqlstate()),
        ("claims_namespace", json!("h[\"x\"]"), Code::Configuration.sqlstate()),
        ("required_claims", json!(["$.sub"]), Code::Configuration.sqlstate()),
        ("required_claims", json!(["/o/id"]), SUCCESS),
        ("issuer", json!("https://x.example/jwks"), Code::Configuration.sqlstate()),
        ("issuer", json!("https://{tenant}.example"), Code::Configuration.sqlstate()),
        ("issuer", json!("accounts.example.com"), SUCCESS),
        ("audience", json!(["app,other"]), Code::Configuration.sqlstate()),
        ("allowed_roles", json!(["{reader}"]), Code::Configuration.sqlstate()),
        ("role_claim", json!("realm_access/roles"), Code::Configuration.sqlstate()),
        ("role_claim", json!("/roles/*"), Code::Configuration.sqlstate()),
        ("role_claim", json!("https://x.example/roles"), SUCCESS),
        ("required_claims", json!(["claims.role"]), Code::Configuration.sqlstate()),
        ("require", json!({"azp": "${CLIENT}"}), Code::Configuration.sqlstate()),
        ("require", json!({"azp": "app", "/o/id": [1, true]}), SUCCESS),
        ("require", json!({}), Code::Configuration.sqlstate()),
        ("require", json!("azp"), Code::Configuration.sqlstate()),
        ("require", json!({"azp": []}), Code::Configuration.sqlstate()),
        ("require", json!({"azp": [1.5]}), Code::Configuration.sqlstate()),
        ("require", json!({"azp": {"a": 1}}), Code::Configuration.sqlstate()),
        ("require", json!({"$.azp": "app"}), Code::Configuration.sqlstate()),
        ("max_token_age", json!(300), SUCCESS),
        ("max_token_age", json!(0), Code::Configuration.sqlstate()),
        ("max_token_age", json!(-1), Code::Configuration.sqlstate()),
    ];
    for (member, value, code) in cases {
        let mut row = json!({"name": "p", "jwks": jwks});
        row[*member] = value.clone();
        let what = format!("{member} {value}");
        let setting = row.to_string().replace('\'', "''");
        let in_settings = admin.execute(
            &format!("ALTER DATABASE postgres SET pg_session_jwt.providers = '{setting}'"),
            &[],
        );
        row["failures"] = json!(0);
        let insert = "INSERT INTO auth.providers
                      SELECT * FROM json_populate_record(NULL::auth.providers, $1::text::json)";
        let in_table = admin.execute(insert, &[&row.to_string()]);
        if *code == SUCCESS {
            assert!(
                in_settings.is_ok() && in_table.is_ok(),
                "{what}: {in_settings:?} {in_table:?}"
            );
            run(&mut admin, "ALTER DATABASE postgres RESET pg_session_jwt.providers");
            run(&mut admin, "SELECT auth.remove_provider('p')");
            continue;
        }
        let (in_settings, in_table) = (db_error(in_settings), db_error(in_table));
        assert_eq!(in_settings.code().code(), *code, "{what}");
        assert_eq!(in_table.code().code(), *code, "{what}");
        // The setting's own words come first, then the same.
        let (setting, table) = (in_settings.detail().unwrap(), in_table.detail().unwrap());
        assert!(setting.ends_with(table), "{what}: {setting} / {table}");
        let message = in_table.message();
        let said = setting.to_lowercase().contains(&message.to_lowercase());
        assert!(said, "{what}: {setting} / {message}");
    }
    assert_eq!(
        text(&mut admin, "SELECT count(*)::text FROM auth.providers").as_deref(),
        Some("0"),
        "after SELECT auth.remove_provider('p')"
    );
}

/// In the type in which a caller has them, and whatever they are instead.
#[test]
fn keys_are_given_in_any_type() {
    let cluster = cluster();
    let mut admin = cluster.admin();
    run(&mut admin, "CREATE ROLE dba LOGIN; GRANT SELECT, INSERT, DELETE ON auth.providers TO dba");
    let mut dba = cluster.as_role("dba").client();
    let jwk = key("k").public_jwk().to_string();
    for call in [
        format!("auth.add_provider('p', jwks => '{jwk}')"),
        format!("auth.add_provider('p', jwks => '{jwk}'::text)"),
        format!("auth.add_provider('p', jwks => '{jwk}'::json)"),
        format!("auth.add_provider('p', jwks => '{jwk}'::jsonb)"),
        format!("auth.add_provider('p', NULL, NULL, '{jwk}')"),
        format!("auth.add_provider('p', NULL, NULL, '{jwk}'::jsonb)"),
    ] {
        run(&mut dba, &format!("SELECT {call}; SELECT auth.remove_provider('p')"));
    }
    let add = "SELECT auth.add_provider('p', jwks => $1)";
    dba.execute(add, &[&jwk]).unwrap();
    run(&mut dba, "SELECT auth.remove_provider('p')");
    for (jwks, hint) in [
        ("-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----", "\"public_key\""),
        ("https://example.com/jwks.json", "\"jwks_url\""),
        ("eyJhbGciOiJFUzI1NiJ9.e30.AAAA", "A token is what the key signs"),
        (
            "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=",
            "\"public_key\", in base64",
        ),
        ("{\"issuer\": \"x\", \"jwks_uri\": \"y\"}", "discovery"),
    ] {
        let error = db_error(dba.execute(add, &[&jwks]));
        assert_eq!(error.code().code(), Code::Configuration.sqlstate(), "{jwks}");
        assert!(error.hint().unwrap().contains(hint), "{error:?}");
        for name in ["jwk", "providers"] {
            let value =
                if name == "jwk" { jwks.to_owned() } else { json!({"jwks": jwks}).to_string() };
            let set = format!("ALTER DATABASE postgres SET pg_session_jwt.{name} = '{value}'");
            assert_eq!(
                sqlstate(admin.batch_execute(&format!("LOAD 'pg_session_jwt'; {set}"))),
                Code::Configuration.sqlstate(),
                "{name:?}, {jwks:?}"
            );
        }
    }
    // What is not JSON does not come to a column of that type.
    let insert = "INSERT INTO auth.providers (name, jwks) VALUES ('p', '-----BEGIN')";
    assert_eq!(
        sqlstate(dba.batch_execute(insert)),
        INVALID_TEXT_REPRESENTATION,
        "what is not JSON does not come to a column of that type"
    );
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
               -----END PUBLIC KEY-----";
    dba.execute("SELECT auth.add_provider('p', issuer => 'p', public_key => $1)", &[&pem]).unwrap();
    let status = "SELECT source || ' ' || state FROM auth.provider_status";
    assert_eq!(
        text(&mut admin, status).as_deref(),
        Some("public_key own keys"),
        "what is not JSON does not come to a column of that type"
    );
}

/// A secret verifies before the public keys are fetched, and asks for none.
#[test]
fn a_secret_stands_beside_keys_that_are_fetched() {
    let cluster = cluster();
    let mut admin = cluster.admin();
    let secret = "a secret of at least 32 bytes, I would say";
    let add = "SELECT auth.add_provider('p', issuer => 'p', secret => $1,
                   jwks_url => 'https://127.0.0.1:9/jwks.json')";
    admin.execute(add, &[&secret]).unwrap();
    let legacy = Key::from_secret(Algorithm::HS256, secret.as_bytes()).with_kid("unknown");
    let mut app = client(&cluster);
    assert_eq!(
        present(&mut app, &token_of(&legacy, "p", "alice")),
        SUCCESS,
        "present(token_of(legacy, p, alice))"
    );
    assert_eq!(
        user(&mut app).as_deref(),
        Some("alice"),
        "the user after token_of(legacy, p, alice)"
    );
    let forged = Key::generate(Algorithm::HS256).with_kid("unknown");
    assert_eq!(
        present(&mut client(&cluster), &token_of(&forged, "p", "root")),
        Code::Signature.sqlstate(),
        "present(token_of(forged, p, root))"
    );
    let demands = "SELECT count(last_demand)::text FROM auth.providers";
    assert_eq!(
        text(&mut admin, demands).as_deref(),
        Some("0"),
        "text(demands) after token_of(legacy, p, alice)"
    );
    // Keys that are too old are no matter of the secret.
    let keys = json!({"keys": [key("k").public_jwk()]}).to_string();
    let set = "UPDATE auth.providers SET fetched_jwks = $1::text::json, fetched_from = jwks_url,
                   last_success = now() - interval '2 days', next_refresh = now() + interval '1 hour'";
    admin.execute(set, &[&keys]).unwrap();
    assert_eq!(
        present(&mut app, &token_of(&legacy, "p", "alice")),
        SUCCESS,
        "keys that are too old are no matter of the secret"
    );
    assert_eq!(
        user(&mut app).as_deref(),
        Some("alice"),
        "keys that are too old are no matter of the secret"
    );
    let state = "SELECT source || ' ' || state FROM auth.provider_status";
    assert_eq!(
        text(&mut admin, state).as_deref(),
        Some("jwks_url too old"),
        "keys that are too old are no matter of the secret"
    );
    assert_eq!(
        text(&mut admin, demands).as_deref(),
        Some("0"),
        "keys that are too old are no matter of the secret"
    );
}

/// What a row asks of claims and of a token's age is asked when the token is presented, and again when
/// the row or the clock says otherwise.
#[test]
fn required_values_and_ages() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    let key = key("k");
    let jwks = key.public_jwk().to_string();
    let add = "SELECT auth.add_provider('p', issuer => 'p', jwks => $1::text::json, leeway => 0,
                   require => '{\"azp\": [\"web\", \"app\"], \"/o/id\": 7}', max_token_age => 300)";
    admin.execute(add, &[&jwks]).unwrap();
    let token = |more: Value| {
        let mut claims = json!({"iss": "p", "sub": "alice", "exp": now() + 600, "iat": now(),
                                "azp": "app", "o": {"id": 7}});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key.sign(&claims)
    };
    let mut app = client(&cluster);
    for (more, code) in [
        (json!({}), SUCCESS),
        (json!({"azp": ["x", "web"]}), SUCCESS),
        (json!({"azp": "other"}), Code::Claim.sqlstate()),
        (json!({"azp": null}), Code::Claim.sqlstate()),
        (json!({"o": {"id": "7"}}), Code::Claim.sqlstate()),
        (json!({"iat": null}), Code::Claim.sqlstate()),
        (json!({"iat": "now"}), Code::Claim.sqlstate()),
        (json!({"iat": now() - 301}), Code::Expired.sqlstate()),
        (json!({"iat": now() + 100}), Code::NotYetValid.sqlstate()),
        (json!({"iat": now() - 200}), SUCCESS),
    ] {
        assert_eq!(present(&mut app, &token(more.clone())), code, "{more}");
        let expected = (code == SUCCESS).then_some("alice");
        assert_eq!(user(&mut app).as_deref(), expected, "{more}");
    }
    let refused = app.execute("SELECT auth.jwt_session_init($1)", &[&token(json!({"azp": "x"}))]);
    let detail = "The claim \"azp\" is \"x\"; expected is \"web\", \"app\".";
    assert_eq!(db_error(refused).detail(), Some(detail), "after SELECT auth.jwt_session_init($1)");

    // A session's token is held to the row as it is now.
    assert_eq!(
        present(&mut app, &token(json!({}))),
        SUCCESS,
        "a session's token is held to the row as it is now"
    );
    run(&mut admin, "UPDATE auth.providers SET require = '{\"azp\": \"web\"}'");
    assert_eq!(
        code_of_user(&mut app),
        Code::Claim.sqlstate(),
        "a session's token is held to the row as it is now"
    );
    run(&mut admin, "UPDATE auth.providers SET require = NULL");
    assert_eq!(
        user(&mut app).as_deref(),
        Some("alice"),
        "after UPDATE auth.providers SET require = NULL"
    );
    run(&mut admin, "UPDATE auth.providers SET require = '{\"azp\": \"app\"}'");

    // Age is one more expiry, for the tokens that the session remembers, too.
    let old = token(json!({"iat": now() - 297}));
    assert_eq!(present(&mut app, &old), SUCCESS, "age is one more expiry");
    assert_eq!(user(&mut app).as_deref(), Some("alice"), "age is one more expiry");
    wait_for("the token to be too old", || code_of_user(&mut app) == Code::Expired.sqlstate());
    assert_eq!(present(&mut app, &old), Code::Expired.sqlstate(), "age is one more expiry");
    assert_eq!(user(&mut app), None, "age is one more expiry");
}

#[test]
fn rows_are_checked_whatever_writes_them() {
    let cluster = cluster();
    let mut admin = cluster.admin();
    let first = key("k");
    add(&mut admin, "p", &first);
    let alice = token_of(&first, "p", "alice");
    let mut session = client(&cluster);
    assert_eq!(present(&mut session, &alice), SUCCESS, "present(alice)");

    let bad = |client: &mut Client, sql: &str| sqlstate(client.batch_execute(sql));
    for sql in [
        "UPDATE auth.providers SET leeway = 9999",
        "UPDATE auth.providers SET jwks_url = 'https://example.com/jwks.json'",
        "UPDATE auth.providers SET jwks = NULL",
        "UPDATE auth.providers SET jwks = NULL, jwks_url = 'http://example.com/'",
        "UPDATE auth.providers SET jwks = NULL, jwks_url = 'https://a:b@example.com/'",
        "UPDATE auth.providers SET jwks = NULL, issuer = NULL, jwks_url = NULL",
        "UPDATE auth.providers SET fetched_jwks = '{}'",
        "UPDATE auth.providers SET keep_keys = 86401",
        "UPDATE auth.providers SET keep_keys = 299",
        "SET session_replication_role = replica; UPDATE auth.providers SET leeway = 9999",
        "INSERT INTO auth.providers (name) VALUES ('q')",
        "INSERT INTO auth.providers (name, issuer) VALUES ('q', 'not a url')",
        "INSERT INTO auth.providers (name, issuer) VALUES (repeat('x', 91), 'https://example.com')",
        "SELECT auth.add_provider('q', issuer => 'https://example.com', secret => 'x')",
        "MERGE INTO auth.providers USING (SELECT 1) x ON true WHEN MATCHED THEN UPDATE SET leeway = -1",
    ] {
        assert_eq!(bad(&mut admin, sql), Code::Configuration.sqlstate(), "{sql}");
    }
    run(&mut admin, "RESET session_replication_role");
    // As does COPY.
    let mut copy = admin.copy_in("COPY auth.providers (name, issuer, leeway) FROM STDIN").unwrap();
    std::io::Write::write_all(&mut copy, b"q\thttps://example.com\t9999\n").unwrap();
    assert_eq!(sqlstate(copy.finish()), Code::Configuration.sqlstate(), "as does COPY");
    // Names and issuers are there once.
    let jwks = first.public_jwk().to_string();
    for (name, issuer) in [("p", Some("q")), ("q", Some("p"))] {
        assert_eq!(
            sqlstate(admin.execute(ADD, &[&name, &issuer, &jwks])),
            UNIQUE_VIOLATION,
            "{name:?}, {issuer:?}"
        );
    }
    admin.execute(ADD, &[&"without", &None::<&str>, &jwks]).unwrap();
    assert_eq!(
        sqlstate(admin.execute(ADD, &[&"without too", &None::<&str>, &jwks])),
        UNIQUE_VIOLATION,
        "names and issuers are there once"
    );
    for name in ["remove", "refresh"] {
        let missing = format!("SELECT auth.{name}_provider('missing')");
        assert_eq!(sqlstate(admin.execute(&missing, &[])), Code::NoProvider.sqlstate(), "{name:?}");
    }
    assert_eq!(
        sqlstate(admin.execute("SELECT auth.refresh_provider('p')", &[])),
        Code::Fetching.sqlstate(),
        "names and issuers are there once"
    );

    // Where all have one operator's keys, an audience is asked for.
    for issuer in ["https://accounts.google.com", "https://securetoken.google.com/x"] {
        let add = "SELECT auth.add_provider('g', issuer => $1)";
        let error = db_error(admin.execute(add, &[&issuer]));
        assert_eq!(error.code().code(), Code::Configuration.sqlstate(), "{issuer:?}");
        assert!(error.hint().unwrap().contains("anybody else's application"), "{error:?}");
    }
    run(
        &mut admin,
        "BEGIN; SELECT auth.add_provider('g', issuer => 'https://accounts.google.com',
             audience => ARRAY['me']); ROLLBACK",
    );
    // Nothing that was refused has cost anything.
    assert_eq!(
        user(&mut session).as_deref(),
        Some("alice"),
        "nothing that was refused has cost anything"
    );

    // The trigger is for this table alone.
    run(&mut admin, "CREATE TABLE other (LIKE auth.providers)");
    run(
        &mut admin,
        "CREATE TRIGGER t BEFORE INSERT ON other FOR EACH ROW EXECUTE FUNCTION auth.check_provider()",
    );
    assert_eq!(
        bad(&mut admin, "INSERT INTO other SELECT * FROM auth.providers"),
        Code::Configuration.sqlstate(),
        "the trigger is for this table alone"
    );
    run(&mut admin, "CREATE TABLE small (x int)");
    run(
        &mut admin,
        "CREATE TRIGGER t BEFORE INSERT ON small FOR EACH ROW EXECUTE FUNCTION auth.check_provider()",
    );
    assert_eq!(
        bad(&mut admin, "INSERT INTO small VALUES (1)"),
        Code::Configuration.sqlstate(),
        "the trigger is for this table alone"
    );
    assert_eq!(
        bad(&mut admin, "SELECT auth.check_provider()"),
        Code::Configuration.sqlstate(),
        "the trigger is for this table alone"
    );
}
