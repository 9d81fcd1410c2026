//! What the server reads from its files: changes that reach sessions, and configurations that are wrong.

use harness::{
    Cluster, Code, INSUFFICIENT_PRIVILEGE, Preload, Wire, quote, sqlstate, test_each_preload, user,
};
use postgres::Client;
use postgres::error::DbError;
use serde_json::json;

use super::site::*;

test_each_preload! {
    a_reload_reaches_live_sessions,
    a_malformed_configuration_is_believed_by_nobody,
}

/// A change of the server's configuration reaches sessions that are there already: who was
/// believed by the old key is so no more. The other settings follow too.
fn a_reload_reaches_live_sessions(preload: Preload) {
    let jwk = KEYS.configured.public_jwk().to_string();
    let other = KEYS.other.public_jwk().to_string();
    let attacker = KEYS.attacker.public_jwk().to_string();
    let site = Site::with(preload, &[(JWK, &jwk)]);
    let context = format!("{preload:?}");
    let mut client = site.session("app");
    let mut idle = site.role("app").client();
    assert_eq!(presented(&mut client, &alice()), "alice", "{context}");

    site.loaded_admin(&format!("ALTER SYSTEM SET {JWK} = {}", quote(&other)));
    assert_eq!(user(&mut client).as_deref(), Some("alice"), "{context}");
    site.cluster.reload();
    let code = attempt(&mut client, "SELECT auth.user_id()");
    assert_eq!(code, Code::Signature.sqlstate(), "{context}");
    assert_eq!(whose(&mut client, &oscar()), "oscar", "{context}");
    assert_eq!(whose(&mut client, &alice()), Code::Signature.sqlstate(), "{context}");
    assert_eq!(whose(&mut idle, &oscar()), "oscar", "{context}");
    assert_eq!(whose(&mut idle, &alice()), Code::Signature.sqlstate(), "{context}");

    // What ALTER SYSTEM has set outranks postgresql.conf until it is reset.
    assert_eq!(presented(&mut client, &oscar()), "oscar", "{context}");
    site.cluster.append_configuration(&[(JWK, &attacker)]);
    site.cluster.reload();
    assert_eq!(user(&mut client).as_deref(), Some("oscar"), "{context}");
    site.loaded_admin(&format!("ALTER SYSTEM RESET {JWK}"));
    site.cluster.reload();
    let code = attempt(&mut client, "SELECT auth.user_id()");
    assert_eq!(code, Code::Signature.sqlstate(), "{context}");
    assert_eq!(whose(&mut client, &mallory()), "mallory", "{context}");
    assert_eq!(whose(&mut client, &oscar()), Code::Signature.sqlstate(), "{context}");

    // A session that was started with a key of its own keeps it.
    let mut proxy = site.role("proxy").option(JWK, &jwk).client();
    assert_eq!(presented(&mut proxy, &alice()), "alice", "{context}");
    // What is malformed changes nothing, and where the library is there to say so first, the
    // log does not quote it. (Elsewhere the server itself logs what has changed in the file.)
    let token = mallory();
    let malformed = [(JWK, "{\"k\": \"MARKER\"}"), ("pg_session_jwt.jwt", &token)];
    site.cluster.append_configuration(&malformed);
    site.cluster.reload();
    assert_eq!(whose(&mut client, &mallory()), "mallory", "{context}");
    assert_eq!(user(&mut client), None, "{context}");
    assert_eq!(user(&mut site.role("app").client()), None, "{context}");
    if preload == Preload::Shared {
        let log = site.cluster.log();
        assert!(!log.contains("MARKER"), "{context}: {log}");
        assert_without_token(&log, &token, &context);
    }
    // No key at all is a configuration too.
    site.cluster.append_configuration(&[(JWK, "")]);
    site.cluster.reload();
    assert_refused(&whose(&mut client, &mallory()), &context);
    let code = attempt(&mut client, "SELECT auth.init()");
    assert_eq!(code, Code::Configuration.sqlstate(), "{context}");
    assert_eq!(user(&mut proxy).as_deref(), Some("alice"), "{context}");

    trust_follows_the_configuration(&site, &mut site.session("app"));
}

/// `request.jwt.claims` is believed while a superuser wants it so, and a token outranks it.
fn trust_follows_the_configuration(site: &Site, client: &mut Client) {
    const TRUST: &str = "pg_session_jwt.trust_request_claims";
    let context = format!("{:?}", site.preload);
    let jwk = KEYS.configured.public_jwk().to_string();
    let claims = "SELECT set_config('request.jwt.claims', '{\"sub\": \"rita\"}', false)";
    client.batch_execute(claims).unwrap();
    assert_eq!(user(client), None, "{context}");

    let on = [(JWK, jwk.as_str()), (TRUST, "on")];
    site.cluster.append_configuration(&on);
    site.cluster.reload();
    assert_eq!(user(client).as_deref(), Some("rita"), "{context}");
    assert_eq!(presented(client, &alice()), "alice", "{context}");
    client.batch_execute("RESET pg_session_jwt.jwt").unwrap();
    assert_eq!(user(client).as_deref(), Some("rita"), "{context}");
    let code = attempt(client, &format!("SET {TRUST} = off"));
    assert_eq!(code, INSUFFICIENT_PRIVILEGE, "{context}");

    site.cluster.append_configuration(&[(TRUST, "off")]);
    site.cluster.reload();
    assert_eq!(user(client), None, "{context}");
}

/// What is stored for a database outranks the server's configuration. A client that has blanked
/// it does not get the latter instead, neither at once nor when the server reads its files again.
#[test]
fn what_a_database_had_is_not_replaced_by_what_the_server_has() {
    const TRUST: &str = "pg_session_jwt.trust_request_claims";
    let jwk = KEYS.configured.public_jwk().to_string();
    let other = KEYS.other.public_jwk().to_string();
    // With `shared_preload_libraries`, Postgres refuses such clients.
    for preload in [Preload::Session, Preload::Neither] {
        let site = Site::with(preload, &[(JWK, &jwk), (TRUST, "on")]);
        site.database("tenant", &[(JWK, &other), (TRUST, "off")]);
        let connection = || site.role("app").database("tenant");
        let mut client = connection().client();
        assert_eq!(presented(&mut client, &oscar()), "oscar", "{preload:?}");
        assert_eq!(presented(&mut client, &alice()), Code::Signature.sqlstate(), "{preload:?}");
        let blank = |(name, value)| loaded(connection().option(name, value).client());
        let mut keyless = [(JWK, ""), (JWK, other.as_str())].map(blank);
        let mut distrusting = [(TRUST, "on"), (TRUST, "off")].map(blank);
        let claims = "SET request.jwt.claims = '{\"sub\": \"rita\"}'";
        for reloaded in [false, true] {
            let context = format!("{preload:?}, reloaded {reloaded}");
            for client in &mut distrusting {
                client.batch_execute(claims).unwrap();
                assert_eq!(user(client), None, "{context}");
                client.batch_execute("RESET request.jwt.claims").unwrap();
            }
            for client in &mut keyless {
                assert_refused(&presented(client, &alice()), &context);
            }
            site.cluster.reload();
        }
    }
}

/// What is wrong in `postgresql.conf` when the server starts lets it start, has nobody believed,
/// and is told to whoever asks; a token in there is nobody's.
fn a_malformed_configuration_is_believed_by_nobody(preload: Preload) {
    let secret = "MARKER-".repeat(5);
    let malformed = json!({"secret": secret, "audience": 1}).to_string();
    let token = alice();
    let context = format!("{preload:?}");
    let settings = [(PROVIDERS, malformed.as_str()), ("pg_session_jwt.jwt", &token)];
    let site = Site::with(preload, &settings);
    for role in ROLES {
        let context = format!("{context}, {role}");
        let (client, notices) = listening(&site.role(role));
        let mut client = client.unwrap();
        assert_eq!(user(&mut client), None, "{context}");
        let error = client.batch_execute("SELECT auth.init()").unwrap_err();
        let said = format!("{error:?} {:?}", notices.take());
        let detail = error.as_db_error().and_then(DbError::detail);
        assert!(detail.is_some_and(|detail| detail.contains("audience")), "{context}: {said}");
        assert!(!said.contains("MARKER"), "{context}: {said}");
        assert_without_token(&said, &token, &context);
        assert_eq!(sqlstate::<()>(Err(error)), Code::Configuration.sqlstate(), "{context}");
        assert_eq!(whose(&mut client, &alice()), Code::Configuration.sqlstate(), "{context}");
        assert_eq!(whose(&mut client, &mallory()), Code::Configuration.sqlstate(), "{context}");
    }
    let log = site.cluster.log();
    assert!(!log.contains("MARKER"), "{context}: {log}");
    assert_without_token(&log, &token, &context);
}

/// What was wrong before is not the reason any more once it is gone.
#[test]
fn a_mended_configuration_is_blamed_no_longer() {
    let site = Site::with(Preload::Shared, &[(JWK, "{}")]);
    let mut before = site.session("app");
    let detail = |client: &mut Client| {
        let error = client.batch_execute("SELECT auth.init()").unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), Code::Configuration.sqlstate(), "after SELECT auth.init()");
        error.detail().map(str::to_owned)
    };
    assert!(detail(&mut before).is_some(), "after SELECT auth.init()");
    site.cluster.append_configuration(&[(JWK, "")]);
    site.cluster.reload();
    assert_eq!(detail(&mut before), None, "after SELECT auth.init()");
    assert_eq!(detail(&mut site.session("app")), None, "after SELECT auth.init()");
    assert_eq!(whose(&mut before, &alice()), Code::NoKey.sqlstate(), "after SELECT auth.init()");
}

/// What is stored for a role or a database, all can read: whoever stores a secret there is told.
#[test]
fn stored_secrets_are_warned_of() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = Wire::connect(&cluster.as_role("postgres")).unwrap();
    let secret = json!({"kty": "oct", "alg": "HS256", "k": "c2VjcmV0".repeat(8)});
    let public = KEYS.configured.public_jwk();
    for (setting, value, warnings) in [
        (JWK, &secret, 1),
        (JWK, &public, 0),
        (PROVIDERS, &json!({"jwks": secret}), 1),
        (PROVIDERS, &json!({"secret": "s".repeat(32)}), 1),
        (PROVIDERS, &json!({"jwks": public}), 0),
    ] {
        for target in ["ROLE app", "DATABASE postgres"] {
            let alter = format!("ALTER {target} SET {setting} = '{value}'");
            assert!(admin.query(&alter).unwrap().iter().all(Result::is_ok), "{alter}");
            let message = "every role can read the secret in this setting";
            let notices = admin.notices();
            let told = notices.iter().filter(|notice| notice.get(b'M') == Some(message)).count();
            assert_eq!(told, warnings, "{alter}");
        }
    }
}
