//! The suggested `auth.add_provider` makes the token work.

use harness::{Cluster, Idp, Preload, SUCCESS, jwks, now, present, run, wait_for};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::{Value, json};

use super::{Report, inspect};

/// The call in the hint of the provider.
#[track_caller]
fn call(report: &Report) -> String {
    let hint = report.hint("provider");
    let start = hint.find("SELECT auth.add_provider(").unwrap_or_else(|| panic!("{hint:?}"));
    hint[start..].to_owned()
}

/// Adds the suggested provider of a token, which is accepted then.
#[track_caller]
fn works(cluster: &Cluster, name: &str, token: &str, change: impl Fn(String) -> String) -> String {
    let mut admin = cluster.admin();
    let report = inspect(&mut admin, Some(token));
    assert_eq!(report.with("failed"), ["provider"], "{name}: before");
    let call = change(call(&report));
    run(&mut admin, &call);
    let mut client: Client = cluster.as_role("app").client();
    wait_for(name, || present(&mut client, token) == SUCCESS);
    let report = inspect(&mut admin, Some(token));
    assert_eq!(report.with("passed").len(), super::CHECKS.len(), "{name}: {call}");
    call
}

fn sign(key: &Key, issuer: &str, mut claims: Value) -> String {
    claims["iss"] = json!(issuer);
    claims["exp"] = json!(now() + 600);
    key.sign(&claims)
}

#[test]
fn for_issuers_whose_keys_are_fetched() {
    let key = Key::generate(Algorithm::RS256).with_kid("k1");
    let other = Key::generate(Algorithm::ES256).with_kid("k2");
    let third = Key::generate(Algorithm::ES384).with_kid("k3");
    let ed = Key::generate(Algorithm::EdDSA).with_kid("e1");
    let (idp, plain) = (Idp::start(), Idp::start_plain());
    idp.set_keys(&[&key]);
    plain.set_keys(&[&third]);
    for (idp, key) in [(&idp, &key), (&plain, &other)] {
        let realm = format!("{}/realms/acme", idp.issuer());
        let document = json!({"issuer": realm, "jwks_uri": format!("{realm}/certs")});
        idp.set_body("/realms/acme/.well-known/openid-configuration", document.to_string());
        idp.set_body("/realms/acme/certs", jwks(&[key]).to_string());
    }
    idp.set_body("/api/auth/jwks", jwks(&[&ed]).to_string());
    let host = plain.issuer().replace("http://", "");
    let ca_file = idp.ca_file().to_str().unwrap();
    let settings = [
        ("pg_session_jwt.jwks_ca_file", ca_file),
        ("pg_session_jwt.jwks_http_hosts", host.as_str()),
    ];
    let cluster = Cluster::start(Preload::Shared, &settings);
    let user = json!({"sub": "alice", "aud": ["account", "todos"], "typ": "Bearer"});
    let realm = format!("{}/realms/acme", idp.issuer());

    let keycloak = works(&cluster, "Keycloak", &sign(&key, &realm, user.clone()), |call| call);
    assert!(keycloak.contains("('keycloak', "), "{keycloak}");
    assert!(keycloak.contains("audience => 'todos'"), "{keycloak}");
    assert!(keycloak.contains(r#"require => '{"typ": "Bearer"}'"#), "{keycloak}");

    let realm = format!("{}/realms/acme", plain.issuer());
    let over_http = works(&cluster, "over http", &sign(&other, &realm, user.clone()), |call| call);
    assert!(over_http.contains("('keycloak-2', "), "{over_http}");

    // The issuer and the audience of Better Auth are the address of the application.
    let app = json!({"sub": "alice", "aud": idp.issuer()});
    let better_auth = works(&cluster, "Better Auth", &sign(&ed, &idp.issuer(), app), |call| call);
    let address = format!("jwks_url => '{}/api/auth/jwks'", idp.issuer());
    assert!(better_auth.contains(&address), "{better_auth}");

    let oid = json!({"oid": "o1", "aud": "todos"});
    let discovery = works(&cluster, "discovery", &sign(&third, &plain.issuer(), oid), |call| call);
    assert!(discovery.contains("user_id_claim => 'oid'"), "{discovery}");
    assert!(!discovery.contains("jwks"), "{discovery}");
}

/// Gives the key in place of the placeholder.
fn with_key(key: &Key) -> impl Fn(String) -> String {
    let set = harness::quote(&jwks(&[key]).to_string());
    move |call| call.replace("'<JWKS>'", &set)
}

#[test]
fn for_issuers_whose_keys_are_given() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let [key, second, third] = [(); 3].map(|()| Key::generate(Algorithm::ES256));
    let user = json!({"sub": "alice", "aud": "it's"});
    let named = works(&cluster, "a name", &sign(&key, "my-app", user), with_key(&key));
    assert!(named.contains("audience => 'it''s'"), "{named}");

    let path = "https://localhost/\u{e9}";
    let token = sign(&second, path, json!({"sub": "alice"}));
    let beyond = works(&cluster, "beyond ASCII", &token, with_key(&second));
    assert!(beyond.contains("E'https://localhost/\\U000000E9'"), "{beyond}");

    let secret = "hunter2-hunter2-hunter2-hunter2-hunter2";
    let hmac = Key::from_secret(Algorithm::HS256, secret.as_bytes());
    let supabase = "https://abcdefghijklmnop.supabase.co/auth/v1";
    let user = json!({"sub": "u1", "aud": "authenticated"});
    let symmetric = works(&cluster, "a secret", &sign(&hmac, supabase, user), |call| {
        call.replace("<SECRET>", secret)
    });
    assert!(symmetric.contains("('supabase', "), "{symmetric}");

    let without = third.sign(&json!({"sub": "alice", "exp": now() + 600}));
    let any = works(&cluster, "without iss", &without, with_key(&third));
    assert!(!any.contains("issuer =>"), "{any}");
}

/// The placeholders are no values.
#[test]
fn a_call_that_lacks_a_value_is_rejected() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    let hmac = Key::generate(Algorithm::HS256);
    let es = Key::generate(Algorithm::ES256);
    for (name, token) in [
        ("a secret", sign(&hmac, "https://a.example", json!({"sub": "a"}))),
        ("keys", sign(&es, "app", json!({"sub": "a"}))),
        ("an audience", sign(&es, "https://accounts.google.com", json!({"sub": "a"}))),
    ] {
        let call = call(&inspect(&mut admin, Some(&token)));
        let code = harness::sqlstate(admin.batch_execute(&call));
        assert_eq!(code, harness::Code::Configuration.sqlstate(), "{name}: {call}");
    }
}
