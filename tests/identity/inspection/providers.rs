//! What the report tells about the providers of the database, those of the table and their keys included.

use harness::{Cluster, Code, Idp, Preload, run, token_of};
use mint::{Algorithm, Key};

use super::inspect;

fn key(kid: &str) -> Key {
    Key::generate(Algorithm::ES256).with_kid(kid)
}

/// Adds a row with a key.
fn add(cluster: &Cluster, name: &str, issuer: &str, audience: Option<&str>, key: &Key) {
    let add = "SELECT auth.add_provider($1, issuer => $2, audience => $3::text, jwks => $4::text)";
    let jwk = key.public_jwk().to_string();
    cluster.admin().execute(add, &[&name, &issuer, &audience, &jwk]).unwrap();
}

#[test]
fn rows_of_the_table_are_known() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let (a, b) = (key("a1"), key("b1"));
    add(&cluster, "a", "https://a.example", Some("app"), &a);
    add(&cluster, "b", "https://b.example/", Some("billing"), &b);
    let mut admin = cluster.admin();
    let mut report = |token: &str| inspect(&mut admin, Some(token));

    let good = harness::sign(
        &a,
        serde_json::json!({"iss": "https://a.example", "aud": "app", "sub": "u"}),
    );
    assert_eq!(report(&good).with("passed").len(), super::CHECKS.len(), "a good token");

    let near = report(&token_of(&b, "https://b.example", "u"));
    assert_eq!(near.with("failed"), ["audience", "provider"], "a slash");
    assert!(
        near.hint("provider").contains("\"https://b.example/\": it differs by a slash at the end")
    );

    let other = report(&token_of(&b, "https://a.example", "u"));
    assert_eq!(other.with("failed"), ["audience", "key"], "the key of b");
    assert!(other.hint("key").contains("A key of the provider \"b\""), "{}", other.hint("key"));

    let billing = harness::sign(
        &a,
        serde_json::json!({"iss": "https://a.example", "aud": "billing", "sub": "u"}),
    );
    let billing = report(&billing);
    assert_eq!(billing.with("failed"), ["audience"], "the audience of b");
    let hint = billing.hint("audience");
    assert!(hint.contains("The provider \"b\", whose issuer is \"https://b.example/\""), "{hint}");
}

#[test]
fn keys_that_are_fetched() {
    let idp = Idp::start();
    let (old, new) = (key("k1"), key("k2"));
    idp.set_keys(&[&old]);
    let ca_file = idp.ca_file().to_str().unwrap();
    let cluster = Cluster::start(Preload::Shared, &[("pg_session_jwt.jwks_ca_file", ca_file)]);
    let mut admin = cluster.admin();
    let add = "SELECT auth.add_provider('it''s', issuer => $1)";
    admin.execute(add, &[&idp.issuer()]).unwrap();
    run(&mut admin, "SELECT auth.refresh_provider('it''s')");
    let fetched = idp.requests();
    assert_eq!(
        inspect(&mut admin, Some(&token_of(&old, &idp.issuer(), "u"))).with("passed").len(),
        super::CHECKS.len()
    );

    let rotated = inspect(&mut admin, Some(&token_of(&new, &idp.issuer(), "u")));
    assert_eq!(rotated.with("failed"), ["key"], "another kid");
    assert_eq!(rotated.with("not reached"), ["signature"], "another kid");
    let hint = rotated.hint("key");
    assert!(hint.contains("SELECT auth.refresh_provider('it''s');"), "{hint}");

    let replaced = inspect(&mut admin, Some(&token_of(&key("k1"), &idp.issuer(), "u")));
    assert_eq!(replaced.with("failed"), ["signature"], "the same kid");
    assert!(replaced.hint("signature").contains("auth.refresh_provider"));

    run(&mut admin, "UPDATE auth.providers SET last_success = now() - interval '2 days'");
    // A session that knows the row does not read it again before its keys are due.
    let mut admin = cluster.admin();
    let late = inspect(&mut admin, Some(&token_of(&old, &idp.issuer(), "u")));
    assert_eq!(late.with("failed"), ["key"], "keys that are too old");
    assert_eq!(
        late.found("key"),
        "28J02, provider's keys are too old. The last fetch that succeeded was \
                                   longer ago than its keep_keys allows."
    );
    assert_eq!(late.0["signature"].outcome, "passed", "keys that are too old");
    assert_eq!(idp.requests(), fetched, "nothing was fetched");
}

#[test]
fn a_table_that_was_altered_is_reported() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let a = key("a1");
    add(&cluster, "a", "https://a.example", None, &a);
    let mut admin = cluster.admin();
    let token = token_of(&a, "https://a.example", "u");
    run(&mut admin, "ALTER TABLE auth.providers DISABLE TRIGGER check_provider");
    let report = inspect(&mut admin, Some(&token));
    assert_eq!(report.with("failed"), ["provider"]);
    let found = report.found("provider");
    assert!(found.starts_with(Code::Configuration.sqlstate()), "{found}");
    assert!(!report.hint("provider").contains("auth.add_provider"), "{}", report.hint("provider"));
    run(&mut admin, "ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER check_provider");
    assert_eq!(
        inspect(&mut admin, Some(&token)).with("passed").len(),
        super::CHECKS.len(),
        "as it was"
    );
}
