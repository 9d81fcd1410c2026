//! Whose identity a session has, when: revocation, expiry, changes of key.

use harness::{
    Answer, Cluster, Code, LOCK_NOT_AVAILABLE, Preload, SUCCESS, Site, Wire, now, present,
    present_locally, run, sqlstate, text, user, wait_for,
};
use mint::{Algorithm, Key};
use serde_json::json;

#[test]
fn a_refused_token_leaves_nobody() {
    let fixture = Site::start(Preload::Shared, &[]);
    let good = fixture.token("alice");
    let bad = Key::generate(Algorithm::ES256).sign(&json!({"sub": "bob", "exp": now() + 600}));
    let init = format!("SELECT auth.jwt_session_init('{bad}')");
    let local = format!("SELECT auth.jwt_session_init('{bad}', true)");
    let set = format!("SET pg_session_jwt.jwt = '{bad}'");
    let set_local = format!("SET LOCAL pg_session_jwt.jwt = '{bad}'");
    let set_config = format!("SELECT set_config('pg_session_jwt.jwt', '{bad}', false)");
    for way in [&init, &local, &set, &set_local, &set_config] {
        // On its own; the transaction is gone when the error comes back.
        let mut client = fixture.client();
        assert_eq!(present(&mut client, &good), SUCCESS, "{way:?}: on its own");
        assert_eq!(sqlstate(client.batch_execute(way)), Code::Signature.sqlstate(), "{way}");
        assert_eq!(user(&mut client), None, "{way}");

        // Within a transaction that is rolled back, with an identity from before it.
        assert_eq!(present(&mut client, &good), SUCCESS, "{way:?}");
        run(&mut client, "BEGIN");
        assert_eq!(sqlstate(client.batch_execute(way)), Code::Signature.sqlstate(), "{way:?}");
        run(&mut client, "ROLLBACK");
        assert_eq!(user(&mut client), None, "{way}, ROLLBACK");
        run(&mut client, "RESET pg_session_jwt.jwt");
        assert_eq!(user(&mut client), None, "{way:?}: after RESET pg_session_jwt.jwt");

        // In a savepoint that is rolled back to, with identities from before the transaction,
        // from before the savepoint, and from within it.
        assert_eq!(present(&mut client, &good), SUCCESS, "{way:?}");
        run(&mut client, "BEGIN");
        assert_eq!(present_locally(&mut client, &good), SUCCESS, "{way:?}: after BEGIN");
        run(&mut client, "SAVEPOINT s");
        assert_eq!(present_locally(&mut client, &good), SUCCESS, "{way:?}: after SAVEPOINT s");
        assert_eq!(user(&mut client).as_deref(), Some("alice"), "{way:?}: after SAVEPOINT s");
        assert_eq!(sqlstate(client.batch_execute(way)), Code::Signature.sqlstate(), "{way:?}");
        run(&mut client, "ROLLBACK TO s");
        assert_eq!(user(&mut client), None, "{way}, ROLLBACK TO");
        run(&mut client, "COMMIT");
        assert_eq!(user(&mut client), None, "{way}, COMMIT after ROLLBACK TO");

        // Where PL/pgSQL swallows the error.
        assert_eq!(present(&mut client, &good), SUCCESS, "{way:?}");
        let perform = way.replace("SELECT", "PERFORM");
        run(
            &mut client,
            &format!(
                "DO $do$ BEGIN
                   BEGIN {perform}; EXCEPTION WHEN OTHERS THEN
                     IF SQLSTATE <> '28J03' THEN RAISE; END IF;
                   END;
                   IF auth.user_id() IS NOT NULL THEN RAISE 'still %', auth.user_id(); END IF;
                 END $do$"
            ),
        );
        assert_eq!(user(&mut client), None, "{way}, EXCEPTION");

        // A token that is good makes somebody again.
        assert_eq!(present(&mut client, &good), SUCCESS, "{way:?}");
        assert_eq!(user(&mut client).as_deref(), Some("alice"), "{way:?}");
    }

    // Not even the identity of the startup packet comes back.
    let mut client = fixture.app().option("pg_session_jwt.jwt", &good).client();
    assert_eq!(
        user(&mut client).as_deref(),
        Some("alice"),
        "not even the identity of the startup packet comes back"
    );
    assert_eq!(
        present(&mut client, &bad),
        Code::Signature.sqlstate(),
        "not even the identity of the startup packet comes back"
    );
    assert_eq!(user(&mut client), None, "not even the identity of the startup packet comes back");
    run(&mut client, "DISCARD ALL");
    assert_eq!(user(&mut client), None, "not even the identity of the startup packet comes back");
}

#[test]
fn each_refusal_leaves_nobody() {
    let fixture = Site::start(Preload::Shared, &[]);
    let mut client = fixture.client();
    let good = fixture.token("alice");
    let claims = json!({"sub": "bob", "exp": now() + 600});
    let stranger = Key::generate(Algorithm::ES256);
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        fixture.key.sign(&claims)
    };
    for (token, code) in [
        ("x".to_owned(), Code::Malformed.sqlstate()),
        ("\u{e9}.\u{e9}.\u{e9}".to_owned(), Code::Malformed.sqlstate()),
        (format!("{good}="), Code::Malformed.sqlstate()),
        ("a".repeat(20_000), Code::Malformed.sqlstate()),
        (with("iss", json!("counting")), Code::Algorithm.sqlstate()),
        (stranger.sign(&claims), Code::Signature.sqlstate()),
        (with("exp", json!(now() - 1)), Code::Expired.sqlstate()),
        (with("nbf", json!(now() + 60)), Code::NotYetValid.sqlstate()),
        (
            fixture.counting.sign(&json!({"iss": "counting", "jti": "x", "exp": now() + 60})),
            Code::Claim.sqlstate(),
        ),
        (with("sub", json!(7.5)), Code::Claim.sqlstate()),
        (
            format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap()),
            Code::Algorithm.sqlstate(),
        ),
    ] {
        assert_eq!(present(&mut client, &good), SUCCESS, "present(good)");
        assert_eq!(present(&mut client, &token), code, "present(token)");
        assert_eq!(user(&mut client), None, "{code}");
    }
}

#[test]
fn expiry_is_checked_at_every_read() {
    let fixture = Site::start(Preload::Shared, &[]);
    let mut client = fixture.client();
    let exp = now() + 4;
    assert_eq!(
        present(&mut client, &fixture.token_until("alice", exp)),
        SUCCESS,
        "present(fixture.token_until(alice, exp))"
    );
    let count = "SELECT count(*)::text FROM generate_series(1, 1000) n
                 WHERE auth.user_id() = 'alice' || left(n::text, 0)";
    assert_eq!(
        text(&mut client, count).as_deref(),
        Some("1000"),
        "text(count) after fixture.token_until(alice, exp)"
    );
    // A statement that began before goes on to its end.
    let slow = "SELECT count(*)::text FROM (SELECT n, CASE n WHEN 1 THEN pg_sleep(5) END
                FROM generate_series(1, 3) n OFFSET 0) AS s
                WHERE auth.user_id() = 'alice' || left(n::text, 0)";
    assert_eq!(
        text(&mut client, slow).as_deref(),
        Some("3"),
        "a statement that began before goes on to its end"
    );
    assert!(now() >= exp, "a statement that began before goes on to its end");
    for reader in ["user_id()", "uid()", "session()", "jwt()", "role()", "email()", "claim('sub')"]
    {
        assert_eq!(
            sqlstate(client.query(&format!("SELECT auth.{reader}"), &[])),
            Code::Expired.sqlstate(),
            "{reader:?}"
        );
    }
    // It stays an error until the session is given another token, or none.
    assert_eq!(
        sqlstate(client.query("SELECT auth.user_id()", &[])),
        Code::Expired.sqlstate(),
        "it stays an error until the session is given another token"
    );
    assert_eq!(
        present(&mut client, &fixture.token_until("alice", now() - 1)),
        Code::Expired.sqlstate(),
        "it stays an error until the session is given another token"
    );
    assert_eq!(
        user(&mut client),
        None,
        "it stays an error until the session is given another token"
    );
}

/// A domain is checked when a client binds a parameter, where no executor runs.
#[test]
fn readers_outside_of_the_executor_check_the_expiry() {
    let fixture = Site::start(Preload::Shared, &[]);
    run(
        &mut fixture.cluster.admin(),
        "CREATE DOMAIN own_text AS text CHECK (value = auth.user_id())",
    );
    let bind = |wire: &mut Wire| {
        wire.execute("p", &["alice"]);
        let failed = wire.sync().unwrap().into_iter().find_map(Answer::err);
        failed.map_or(SUCCESS.to_owned(), |fields| fields.sqlstate().to_owned())
    };
    let failed_run = ["SAVEPOINT s", "SELECT 1 / (length(auth.user_id()) - 5)", "ROLLBACK TO s"];
    for (case, statements) in
        [("after a run", &["SELECT auth.user_id()"][..]), ("after a run that failed", &failed_run)]
    {
        let mut wire = Wire::connect(&fixture.cluster.as_role("app")).unwrap();
        let exp = now() + 2;
        wire.prepare("p", "SELECT $1::own_text");
        assert_eq!(wire.run("BEGIN"), SUCCESS, "{case}");
        assert_eq!(wire.present(&fixture.token_until("alice", exp), true), SUCCESS, "{case}");
        assert_eq!(bind(&mut wire), SUCCESS, "{case}");
        for statement in statements {
            wire.run(statement);
        }
        wait_for("the token to expire", || now() >= exp);
        assert_eq!(bind(&mut wire), Code::Expired.sqlstate(), "{case}");
    }
}

#[test]
fn leeway_and_not_before() {
    let key = Key::generate(Algorithm::ES256);
    let cluster =
        Cluster::start(Preload::Shared, &[("pg_session_jwt.jwk", &key.public_jwk().to_string())]);
    let mut client = cluster.as_role("app").client();
    for (claims, code) in [
        (json!({"exp": now() - 30}), SUCCESS),
        (json!({"exp": now() - 61}), Code::Expired.sqlstate()),
        (json!({"exp": now() + 60, "nbf": now() + 30}), SUCCESS),
        (json!({"exp": now() + 600, "nbf": now() + 90}), Code::NotYetValid.sqlstate()),
        (json!({}), Code::Claim.sqlstate()),
        (json!({"exp": "soon"}), Code::Claim.sqlstate()),
        (json!({"exp": now() * 1000}), Code::Claim.sqlstate()),
    ] {
        assert_eq!(present(&mut client, &key.sign(&claims)), code, "{claims}");
    }
}

#[test]
fn jti_must_rise_within_the_session() {
    let fixture = Site::start(Preload::Shared, &[]);
    let mut client = fixture.client();
    assert_eq!(present(&mut client, &fixture.counted(5)), SUCCESS, "present(fixture.counted(5))");
    assert_eq!(
        present(&mut client, &fixture.counted(5)),
        Code::Replayed.sqlstate(),
        "present(fixture.counted(5))"
    );
    assert_eq!(user(&mut client), None, "the user after fixture.counted(5)");
    assert_eq!(
        present(&mut client, &fixture.counted(4)),
        Code::Replayed.sqlstate(),
        "present(fixture.counted(4))"
    );
    assert_eq!(present(&mut client, &fixture.counted(6)), SUCCESS, "present(fixture.counted(6))");
    // What was presented in a transaction that was rolled back has been presented.
    run(&mut client, "BEGIN");
    assert_eq!(present(&mut client, &fixture.counted(8)), SUCCESS, "after BEGIN");
    run(&mut client, "ROLLBACK");
    assert_eq!(user(&mut client).as_deref(), Some("6"), "an outer identity comes back");
    assert_eq!(
        present(&mut client, &fixture.counted(7)),
        Code::Replayed.sqlstate(),
        "after ROLLBACK"
    );
    assert_eq!(user(&mut client), None, "after ROLLBACK");
    run(&mut client, "DISCARD ALL");
    assert_eq!(
        present(&mut client, &fixture.counted(8)),
        Code::Replayed.sqlstate(),
        "after DISCARD ALL"
    );
    // Other providers, and other sessions, do not matter; verifying is not presenting.
    assert_eq!(
        present(&mut client, &fixture.token("alice")),
        SUCCESS,
        "other providers, and other sessions, do not matter"
    );
    let verify = "SELECT auth.jwt_verify($1) ->> 'sub'";
    client.query_one(verify, &[&fixture.counted(9)]).unwrap();
    client.query_one(verify, &[&fixture.counted(9)]).unwrap();
    assert_eq!(
        present(&mut client, &fixture.counted(9)),
        SUCCESS,
        "other providers, and other sessions, do not matter"
    );
    assert_eq!(
        present(&mut fixture.client(), &fixture.counted(1)),
        SUCCESS,
        "other providers, and other sessions, do not matter"
    );
    // A refused token does not count.
    let forged = Key::generate(Algorithm::EdDSA)
        .sign(&json!({"iss": "counting", "jti": 1000, "exp": now() + 60}));
    assert_eq!(
        present(&mut client, &forged),
        Code::Signature.sqlstate(),
        "a refused token does not count"
    );
    assert_eq!(
        present(&mut client, &fixture.counted(10)),
        SUCCESS,
        "a refused token does not count"
    );
}

#[test]
fn the_startup_packet_carries_a_token() {
    let fixture = Site::start(Preload::Shared, &[]);
    let mut client = fixture.app().option("pg_session_jwt.jwt", &fixture.token("alice")).client();
    assert_eq!(user(&mut client).as_deref(), Some("alice"), "the user");
    run(&mut client, "DISCARD ALL");
    assert_eq!(user(&mut client).as_deref(), Some("alice"), "it is what RESET goes back to");
    assert_eq!(present(&mut client, ""), SUCCESS, "after DISCARD ALL");
    assert_eq!(user(&mut client), None, "after DISCARD ALL");

    // One that is not good lets the client in, but every read is an error.
    let mut claims = json!({"sub": "alice", "exp": now() + 600, "nbf": now() + 3600});
    for (token, code) in [
        (fixture.key.sign(&claims), Code::NotYetValid.sqlstate()),
        (fixture.token_until("alice", now() - 1), Code::Expired.sqlstate()),
        (
            Key::generate(Algorithm::ES256).sign(&json!({"sub": "x", "exp": now() + 60})),
            Code::Signature.sqlstate(),
        ),
        ("rubbish".to_owned(), Code::Malformed.sqlstate()),
    ] {
        let mut client = fixture.app().option("pg_session_jwt.jwt", &token).client();
        for _ in 0..2 {
            assert_eq!(
                sqlstate(client.query("SELECT auth.user_id()", &[])),
                code,
                "one that is not good lets the client in"
            );
        }
        assert_eq!(
            present(&mut client, &fixture.token("alice")),
            SUCCESS,
            "one that is not good lets the client in"
        );
        assert_eq!(
            user(&mut client).as_deref(),
            Some("alice"),
            "one that is not good lets the client in"
        );
        run(&mut client, "RESET pg_session_jwt.jwt");
        assert_eq!(
            sqlstate(client.query("SELECT auth.user_id()", &[])),
            code,
            "after RESET pg_session_jwt.jwt"
        );
    }
    claims["jti"] = 3.into();
    claims["iss"] = "counting".into();
    claims["nbf"] = 0.into();
    let mut client =
        fixture.app().option("pg_session_jwt.jwt", &fixture.counting.sign(&claims)).client();
    assert_eq!(user(&mut client).as_deref(), Some("alice"), "after RESET pg_session_jwt.jwt");
    assert_eq!(user(&mut client).as_deref(), Some("alice"), "reading again is not replaying");
    assert_eq!(
        present(&mut client, &fixture.counted(3)),
        Code::Replayed.sqlstate(),
        "after RESET pg_session_jwt.jwt"
    );
}

#[test]
fn changed_keys_void_what_was_verified() {
    let fixture = Site::start(Preload::Shared, &[]);
    let mut client = fixture.client();
    let (alice, bob) = (fixture.token("alice"), fixture.token("bob"));
    assert_eq!(present(&mut client, &alice), SUCCESS, "present(alice)");
    assert_eq!(user(&mut client).as_deref(), Some("alice"), "the user after alice");

    let successor = Key::generate(Algorithm::ES256);
    let jwks = |keys: &[&Key]| {
        let keys: Vec<_> = keys.iter().map(|key| key.bare_public_jwk()).collect();
        json!({"jwks": {"keys": keys}}).to_string()
    };
    let configure = |document: &str| {
        fixture.cluster.append_configuration(&[("pg_session_jwt.providers", document)]);
        fixture.cluster.reload();
    };
    // Both keys: nothing changes for the session.
    configure(&jwks(&[&fixture.key, &successor]));
    assert_eq!(user(&mut client).as_deref(), Some("alice"), "both keys");
    // The new one alone: the session's token is no longer believed, nor is another that the old
    // key has signed and that was verified before.
    assert_eq!(present(&mut client, &bob), SUCCESS, "the new one alone");
    assert_eq!(present(&mut client, &alice), SUCCESS, "the new one alone");
    configure(&jwks(&[&successor]));
    wait_for("the live session to notice", || client.query("SELECT auth.user_id()", &[]).is_err());
    assert_eq!(
        sqlstate(client.query("SELECT auth.user_id()", &[])),
        Code::Signature.sqlstate(),
        "the new one alone"
    );
    assert_eq!(present(&mut client, &bob), Code::Signature.sqlstate(), "the new one alone");
    let token = successor.sign(&json!({"sub": "carol", "exp": now() + 60}));
    assert_eq!(present(&mut client, &token), SUCCESS, "the new one alone");
    assert_eq!(user(&mut client).as_deref(), Some("carol"), "the new one alone");
    // No key at all.
    configure("");
    wait_for("the live session to notice", || client.query("SELECT auth.user_id()", &[]).is_err());
    assert_eq!(
        sqlstate(client.query("SELECT auth.user_id()", &[])),
        Code::NoKey.sqlstate(),
        "no key at all"
    );
    assert_eq!(
        sqlstate(client.query("SELECT auth.init()", &[])),
        Code::Configuration.sqlstate(),
        "no key at all"
    );
    // A document that is wrong does not replace one that is good.
    configure(&jwks(&[&successor]));
    configure("{\"jwks\": 7}");
    let mut client = fixture.client();
    assert_eq!(
        present(&mut client, &token),
        SUCCESS,
        "a document that is wrong does not replace one that is good"
    );
}

/// What a client may make as long as it likes is refused before it is copied.
#[test]
fn long_values_are_refused() {
    let fixture = Site::start(Preload::Shared, &[]);
    let mut client = fixture.client();
    let long = "x".repeat(40 << 20);
    assert_eq!(present(&mut client, &long), Code::Malformed.sqlstate(), "present(long)");
    let verify = "SELECT auth.jwt_verify($1)::text";
    assert_eq!(
        sqlstate(client.query(verify, &[&long])),
        Code::Malformed.sqlstate(),
        "sqlstate(client.query(verify, [long])) after long"
    );
    let mut admin = fixture.cluster.admin();
    run(&mut admin, "ALTER ROLE app SET pg_session_jwt.trust_request_claims = on");
    let mut client = fixture.client();
    let set = "SELECT set_config('request.jwt.claims', $1, false)";
    client.execute(set, &[&r#"{"sub":"alice"}"#]).unwrap();
    assert_eq!(user(&mut client).as_deref(), Some("alice"), "the user after long");
    let claims = format!(r#"{{"sub":"alice","x":"{}"}}"#, "x".repeat(16 << 10));
    client.execute(set, &[&claims]).unwrap();
    assert_eq!(
        sqlstate(client.query("SELECT auth.user_id()", &[])),
        Code::Malformed.sqlstate(),
        "sqlstate(client.query(SELECT auth.user_id, [])) after long"
    );
    // A refused token takes away the claims that were there, for those are the last client's.
    client.execute(set, &[&r#"{"sub":"alice"}"#]).unwrap();
    assert_eq!(
        present(&mut client, "rubbish"),
        Code::Malformed.sqlstate(),
        "a refused token takes away the claims that were there"
    );
    assert_eq!(user(&mut client), None, "a refused token takes away the claims that were there");
    client.execute(set, &[&r#"{"sub":"bob"}"#]).unwrap();
    assert_eq!(
        user(&mut client).as_deref(),
        Some("bob"),
        "a refused token takes away the claims that were there"
    );
}

/// A token and `request.jwt.claims` are read alike: null is absent, an integer is its digits, and an empty
/// string is nobody's id.
#[test]
fn the_user_of_unusual_subjects() {
    let fixture = Site::start(Preload::Shared, &[]);
    run(
        &mut fixture.cluster.admin(),
        "CREATE ROLE believer LOGIN; ALTER ROLE believer SET pg_session_jwt.trust_request_claims = on",
    );
    let (mut app, mut believer) = (fixture.client(), fixture.cluster.as_role("believer").client());
    let set = "SELECT set_config('request.jwt.claims', $1, false)";
    for (sub, user_id, shown) in [
        ("null", None, None),
        ("\"\"", None, Some("")),
        ("12345", Some("12345"), Some("12345")),
        ("-0", Some("0"), Some("0")),
        (
            "123456789012345678901234567890",
            Some("123456789012345678901234567890"),
            Some("123456789012345678901234567890"),
        ),
        ("\"42\"", Some("42"), Some("42")),
    ] {
        let claims = format!(
            r#"{{"sub":{sub},"iss":null,"aud":null,"nbf":null,"email":"","exp":{}}}"#,
            now() + 600
        );
        let token =
            fixture.key.sign_raw(br#"{"alg":"ES256","kid":null,"crit":[]}"#, claims.as_bytes());
        assert_eq!(present(&mut app, &token), SUCCESS, "{sub}");
        believer.execute(set, &[&claims]).unwrap();
        for client in [&mut app, &mut believer] {
            assert_eq!(user(client).as_deref(), user_id, "{sub}");
            assert_eq!(text(client, "SELECT auth.claim('sub')").as_deref(), shown, "{sub}");
            let elsewhere = text(client, "SELECT auth.session() ->> 'sub'");
            assert_eq!(elsewhere.as_deref(), shown, "{sub}");
            assert_eq!(text(client, "SELECT auth.email()"), None, "{sub:?}, {user_id:?}");
        }
    }
    for sub in ["1.0", "1e3", "true", "[]", "{}"] {
        let claims = format!(r#"{{"sub":{sub},"exp":{}}}"#, now() + 600);
        let token = fixture.key.sign_raw(br#"{"alg":"ES256"}"#, claims.as_bytes());
        assert_eq!(present(&mut app, &token), Code::Claim.sqlstate(), "{sub}");
        believer.execute(set, &[&claims]).unwrap();
        assert_eq!(
            sqlstate(believer.query("SELECT auth.user_id()", &[])),
            Code::Claim.sqlstate(),
            "{sub}"
        );
    }
}

/// Postgres logs the new value of a setting when its configuration changes.
#[test]
fn changed_keys_are_not_logged() {
    let fixture = Site::start(Preload::Shared, &[]);
    let secret = "not-for-the-log-not-for-the-log-not-for-the-log";
    let document = json!({"secret": secret}).to_string();
    fixture.cluster.append_configuration(&[("pg_session_jwt.providers", &document)]);
    fixture.cluster.reload();
    let token = Key::from_secret(Algorithm::HS256, secret.as_bytes());
    let token = token.sign(&json!({"sub": "alice", "exp": now() + 60}));
    assert_eq!(present(&mut fixture.client(), &token), SUCCESS, "present(token)");
    let log = fixture.cluster.log();
    assert!(log.contains("parameter \"pg_session_jwt.providers\" changed"), "{log}");
    assert!(!log.contains("not-for-the-log"), "{log}");
}

/// What never came into force is not held against anybody.
#[test]
fn a_refused_document_changes_nothing() {
    let key = Key::generate(Algorithm::ES256);
    let jwk = key.public_jwk().to_string();
    let cluster = Cluster::start(Preload::Shared, &[("pg_session_jwt.jwk", &jwk)]);
    let token = key.sign(&json!({"sub": "alice", "exp": now() + 60}));
    let mut admin = cluster.admin();
    let wrong = "ALTER SYSTEM SET pg_session_jwt.providers = '{'";
    assert_eq!(
        sqlstate(admin.batch_execute(wrong)),
        Code::Configuration.sqlstate(),
        "sqlstate(admin.batch_execute(wrong))"
    );
    assert_eq!(present(&mut admin, &token), SUCCESS, "present(token)");
    cluster.append_configuration(&[("pg_session_jwt.providers", "{")]);
    cluster.reload();
    run(&mut admin, "SELECT auth.init()");
    assert_eq!(user(&mut admin).as_deref(), Some("alice"), "after SELECT auth.init()");
    assert_eq!(
        present(&mut cluster.as_role("app").client(), &token),
        SUCCESS,
        "after SELECT auth.init()"
    );
    // At a start there is nothing before it that could stay in force.
    cluster.restart();
    let mut client = cluster.as_role("app").client();
    assert_eq!(
        present(&mut client, &token),
        Code::Configuration.sqlstate(),
        "at a start there is nothing before it that could stay in force"
    );
    let error = client.query("SELECT auth.init()", &[]).unwrap_err();
    let detail = error.as_db_error().and_then(|error| error.detail()).unwrap_or_default();
    assert!(detail.contains("pg_session_jwt.providers"), "{error:?}");
}

/// Code that Postgres runs with restrictions, for it may be somebody else's, presents nothing.
#[test]
fn security_restricted_operations_present_nothing() {
    let fixture = Site::start(Preload::Shared, &[]);
    let mut admin = fixture.cluster.admin();
    let token = fixture.token("mallory");
    run(&mut admin, "CREATE SCHEMA app AUTHORIZATION app");
    let mut client = fixture.client();
    let function = format!(
        "CREATE FUNCTION app.present(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
         BEGIN
           PERFORM auth.jwt_session_init('{token}');
           RETURN n;
         END $$;
         CREATE TABLE app.t (n int)"
    );
    run(&mut client, &function);
    let index = "CREATE INDEX ON app.t (app.present(n)); INSERT INTO app.t VALUES (1)";
    run(&mut client, index);
    run(&mut client, "SELECT auth.jwt_session_init(NULL)");
    assert_eq!(
        sqlstate(admin.batch_execute("ANALYZE app.t")),
        Code::Configuration.sqlstate(),
        "after SELECT auth.jwt_session_init(NULL)"
    );
    assert_eq!(user(&mut admin), None, "after ANALYZE app.t");
    // It is not the session's own doing, and takes nothing away from it.
    assert_eq!(
        present(&mut admin, &fixture.token("alice")),
        SUCCESS,
        "it is not the session's own doing"
    );
    assert_eq!(
        sqlstate(admin.batch_execute("ANALYZE app.t")),
        Code::Configuration.sqlstate(),
        "it is not the session's own doing"
    );
    assert_eq!(user(&mut admin).as_deref(), Some("alice"), "it is not the session's own doing");
}

#[test]
fn security_definer_functions_present_and_clear() {
    let fixture = Site::start(Preload::Shared, &[]);
    let mut admin = fixture.cluster.admin();
    run(
        &mut admin,
        "CREATE FUNCTION login(token text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN
           PERFORM auth.jwt_session_init(token);
           RETURN auth.user_id();
         END $$",
    );
    let mut client = fixture.client();
    let mut login = |token: &str| client.query_one("SELECT login($1)", &[&token]);
    let who: Option<String> = login(&fixture.token("alice")).unwrap().get(0);
    assert_eq!(who.as_deref(), Some("alice"), "the user");
    assert_eq!(sqlstate(login("rubbish")), Code::Malformed.sqlstate(), "sqlstate(login(rubbish))");
    let who: Option<String> = login("").unwrap().get(0);
    assert_eq!(who, None, "the user");
    login(&fixture.token("bob")).unwrap();
    assert_eq!(user(&mut client).as_deref(), Some("bob"), "the user");
}

/// PgBouncer gives a connection to the next client even where its reset query has failed.
#[test]
fn an_interrupted_reset_leaves_nobody() {
    let site = Site::start(Preload::Shared, &[]);
    run(&mut site.cluster.admin(), "ALTER ROLE app SET lock_timeout = '10ms'");
    let mut client = site.client();
    run(&mut client, "CREATE TEMPORARY TABLE own (number integer)");
    let own = text(&mut client, "SELECT 'own'::regclass::oid::text").unwrap();
    let table = format!(
        "SELECT format('LOCK TABLE %I.own', relnamespace::regnamespace) FROM pg_class WHERE oid = {own}"
    );
    let mut admin = site.cluster.admin();
    let lock = text(&mut admin, &table).unwrap();
    run(&mut admin, "BEGIN");
    run(&mut admin, &lock);
    run(&mut client, "SET lock_timeout = 0");
    assert_eq!(present(&mut client, &site.token("alice")), SUCCESS);
    assert_eq!(
        sqlstate(client.batch_execute("DISCARD ALL")),
        LOCK_NOT_AVAILABLE,
        "the reset fails after Postgres has reset the settings"
    );
    assert_eq!(text(&mut client, "SHOW lock_timeout").as_deref(), Some("0"), "they come back");
    assert_eq!(user(&mut client), None, "the identity does not");
    run(&mut admin, "ROLLBACK");

    // A reset in a transaction block ends with the block.
    assert_eq!(present(&mut client, &site.token("alice")), SUCCESS);
    run(&mut client, "BEGIN; RESET ALL");
    assert_eq!(user(&mut client), None, "after RESET ALL in a block");
    run(&mut client, "ROLLBACK");
    assert_eq!(user(&mut client).as_deref(), Some("alice"), "after the rollback of the block");

    // A reset restores the token of the startup packet.
    let mut client = site.app().option("pg_session_jwt.jwt", &site.token("carol")).client();
    for reset in ["DISCARD ALL", "RESET ALL"] {
        assert_eq!(user(&mut client).as_deref(), Some("carol"), "before {reset}");
        assert_eq!(present(&mut client, &site.token("alice")), SUCCESS, "before {reset}");
        run(&mut client, reset);
    }
    assert_eq!(user(&mut client).as_deref(), Some("carol"), "after both");
}
