//! The findings about the library, the documents in settings, and providers.

use harness::{Behaviour, Cluster, Idp, Preload, Site, jwks, key, quote, run, send};
use serde_json::json;

use crate::cases::{Finding, findings};

/// The texts of the findings whose subject contains a text.
fn texts(client: &mut postgres::Client, subject: &str) -> Vec<String> {
    let found = findings(client, "health", subject);
    found.into_iter().map(|finding| finding.finding).collect()
}

#[test]
fn a_provider_without_checks_is_found() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    assert_eq!(
        texts(&mut admin, "providers"),
        ["no provider is configured: every token is rejected"],
        "without a provider"
    );
    let keys = jwks(&[&key("k1")]).to_string();
    let add =
        format!("SELECT auth.add_provider('p', issuer => 'p', jwks => {}::json)", quote(&keys));
    run(&mut admin, &add);
    assert!(texts(&mut admin, "providers").is_empty(), "with a provider");
    for (finding, cure) in [
        ("tokens for every audience are accepted", "UPDATE auth.providers SET audience = '{app}'"),
        (
            "tokens without a user id are accepted",
            "UPDATE auth.providers SET required_claims = '{exp,sub}'",
        ),
    ] {
        assert!(texts(&mut admin, "provider \"p\"").contains(&finding.to_owned()), "{finding}");
        run(&mut admin, cure);
        assert!(!texts(&mut admin, "provider \"p\"").contains(&finding.to_owned()), "{cure}");
    }
    assert!(texts(&mut admin, "provider \"p\"").is_empty(), "with checks");
    run(&mut admin, "UPDATE auth.providers SET default_role = 'reader'");
    let missing = "a role that its tokens may name does not exist";
    assert_eq!(texts(&mut admin, "provider \"p\""), [missing], "without the role");
    run(&mut admin, "CREATE ROLE reader");
    assert!(texts(&mut admin, "provider \"p\"").is_empty(), "with the role");
    // The trigger would reject this row.
    run(
        &mut admin,
        "ALTER TABLE auth.providers DISABLE TRIGGER check_provider;
         UPDATE auth.providers SET algorithms = '{none}';
         ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER check_provider",
    );
    let unreadable = "the provider cannot be read: its tokens are rejected";
    assert_eq!(texts(&mut admin, "provider \"p\""), [unreadable], "a malformed row");
    run(&mut admin, "UPDATE auth.providers SET algorithms = NULL");
    assert!(texts(&mut admin, "provider \"p\"").is_empty(), "a corrected row");
    run(&mut admin, "ALTER TABLE auth.providers ENABLE TRIGGER check_provider");
    let altered = "the table was altered: tokens of its providers are rejected";
    assert_eq!(texts(&mut admin, "auth.providers"), [altered], "an altered table");
    run(&mut admin, "ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER check_provider");
    assert!(texts(&mut admin, "auth.providers").is_empty(), "the table as installed");
}

/// The finding quotes no secret.
#[test]
fn weak_secrets_and_unusable_keys_are_found() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    run(
        &mut admin,
        "SELECT auth.add_provider('p', issuer => 'p', audience => 'a', required_claims => '{exp,sub}',
                                  secret => 'qwertz-is-a-keyboard-and-no-secret-1')",
    );
    let [Finding { severity, finding, advice, .. }] =
        &findings(&mut admin, "health", "provider")[..]
    else {
        panic!("one finding");
    };
    assert_eq!((severity.as_str(), finding.as_str()), ("error", "a secret can be guessed"));
    assert!(advice.contains("words") && !advice.contains("qwertz"), "{advice}");
    for (secret, is_weak) in [
        ("0123012301230123012301230123012301230123", true),
        ("CORRECT HORSE BATTERY STAPLE CORRECT HORSE", true),
        ("3f1de9c07ab24586a1b0c9d8e7f60514", false),
        ("kJ8vQ2+xWm3Zp7Lr0Tn5Yd9Bf4Hc6Gs1Aq", false),
    ] {
        run(&mut admin, &format!("UPDATE auth.providers SET secret = {}", quote(secret)));
        assert_eq!(!texts(&mut admin, "provider").is_empty(), is_weak, "{secret}");
    }
    let short = json!({"kty": "oct", "kid": "short", "k": "c2hvcnQ"});
    let long =
        json!({"kty": "oct", "kid": "long", "k": "a0o4dlEyLXhXbTNacDdMcjBUbjVZZDlCZjRIYzZHczFBcQ"});
    let keys = json!({"keys": [short, long]}).to_string();
    run(&mut admin, &format!("UPDATE auth.providers SET secret = NULL, jwks = {}", quote(&keys)));
    assert_eq!(texts(&mut admin, "provider"), ["a key is not used"], "a short key");
    let keys = json!({"keys": [long]}).to_string();
    run(&mut admin, &format!("UPDATE auth.providers SET jwks = {}", quote(&keys)));
    assert!(texts(&mut admin, "provider").is_empty(), "a long key");
}

#[test]
fn the_state_of_fetched_keys_is_found() {
    let signer = key("k1");
    let idp = Idp::start();
    idp.set_keys(&[&signer]);
    let ca_file = idp.ca_file().to_str().expect("a path");
    let cluster = Cluster::start(Preload::Shared, &[("pg_session_jwt.jwks_ca_file", ca_file)]);
    let mut admin = cluster.admin();
    run(
        &mut admin,
        &format!(
            "BEGIN; SELECT auth.add_provider('p', issuer => 'p', audience => 'a', required_claims => '{{exp,sub}}',
                                             jwks_url => {})",
            quote(&idp.jwks_url())
        ),
    );
    assert_eq!(texts(&mut admin, "provider"), ["its keys were never fetched"], "before the commit");
    run(&mut admin, "COMMIT; SELECT auth.refresh_provider('p')");
    assert!(texts(&mut admin, "provider").is_empty(), "with keys");
    idp.behave(Behaviour::Status(500));
    let _ = admin.batch_execute("SELECT auth.refresh_provider('p')");
    assert_eq!(texts(&mut admin, "provider"), ["its keys cannot be fetched"], "after a failure");
    let age = |client: &mut postgres::Client, age: &str| {
        run(
            client,
            &format!(
                "UPDATE auth.providers SET last_success = now() - interval '{age}', keep_keys = 3600"
            ),
        );
    };
    age(&mut admin, "50 minutes");
    assert_eq!(texts(&mut admin, "provider"), ["its keys expire soon"], "at the end");
    age(&mut admin, "61 minutes");
    assert_eq!(
        texts(&mut admin, "provider"),
        ["its keys are too old: its tokens are rejected"],
        "after the end"
    );
    idp.behave(Behaviour::Serve);
    run(&mut admin, "SELECT auth.refresh_provider('p')");
    assert!(texts(&mut admin, "provider").is_empty(), "after a fetch");
}

#[test]
fn an_issuer_that_is_served_twice_is_found() {
    let signer = key("k1");
    let provider = json!({"name": "configured", "issuer": "p", "audience": "a",
                          "required_claims": ["exp", "sub"], "jwks": signer.public_jwk()});
    let cluster = Cluster::start(
        Preload::Shared,
        &[("pg_session_jwt.providers", provider.to_string().as_str())],
    );
    let mut admin = cluster.admin();
    assert!(texts(&mut admin, "provider").is_empty(), "in the settings");
    let add = "SELECT auth.add_provider('row', issuer => 'p', audience => 'a',
                                        required_claims => '{exp,sub}', jwks => $1::text::json)";
    admin.execute(add, &[&signer.public_jwk().to_string()]).unwrap();
    assert_eq!(texts(&mut admin, "provider \"row\""), ["its issuer is served twice"], "in both");
    run(&mut admin, "SELECT auth.remove_provider('row')");
    assert!(texts(&mut admin, "provider").is_empty(), "in the settings again");
}

/// With the reason.
#[test]
fn settings_that_cannot_be_read_are_found() {
    let cluster = Cluster::start(Preload::Neither, &[("pg_session_jwt.jwk", "nonsense")]);
    let mut admin = cluster.admin();
    let found = findings(&mut admin, "health", "pg_session_jwt.jwk and");
    let [finding] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(finding.finding, "the documents cannot be read: every token is rejected");
    assert!(finding.advice.contains("pg_session_jwt.jwk"), "{finding:?}");
    run(&mut admin, "ALTER SYSTEM SET pg_session_jwt.jwk = ''");
    run(&mut admin, "SELECT pg_reload_conf()");
    harness::wait_for("the reload", || texts(&mut admin, "pg_session_jwt.jwk and").is_empty());
}

#[test]
fn a_library_that_is_not_preloaded_is_found() {
    for (preload, expected) in [(Preload::Shared, 0), (Preload::Session, 0), (Preload::Neither, 1)]
    {
        let cluster = Cluster::start(preload, &[]);
        let found = findings(&mut cluster.admin(), "health", "library");
        assert_eq!(found.len(), expected, "{preload:?}: {found:?}");
        assert!(found.iter().all(|finding| finding.finding == "the library is not preloaded"));
    }
}

/// They are in force only where the postmaster has loaded the library.
#[test]
fn locked_roles_that_are_not_locked_are_found() {
    for (preload, expected) in [(Preload::Shared, 0), (Preload::Session, 1)] {
        let site = Site::start(preload, &[("pg_session_jwt.locked_roles", "app")]);
        let found = findings(&mut site.cluster.admin(), "health", "locked_roles");
        assert_eq!(found.len(), expected, "{preload:?}: {found:?}");
        let text = "locked roles are not locked: every token is rejected";
        assert!(found.iter().all(|finding| finding.finding == text), "{found:?}");
    }
}

#[test]
fn names_of_providers_are_quoted() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    let name = "o'b\\r\"ien";
    let url = "https://127.0.0.1:1/jwks";
    let add = "SELECT auth.add_provider($1, issuer => 'p', audience => 'a',
                                        required_claims => '{exp,sub}', jwks_url => $2)";
    run(&mut admin, "BEGIN");
    admin.execute(add, &[&name, &url]).unwrap();
    let found = findings(&mut admin, "health", "provider");
    let [finding] = found.as_slice() else {
        panic!("{found:?}");
    };
    let call = finding.advice.strip_prefix("Run: SELECT auth.refresh_provider(").expect("the call");
    let literal = call.strip_suffix(");").expect("the end");
    let same = format!("SELECT ({literal} = (SELECT name FROM auth.providers))::text");
    assert_eq!(send(&mut admin, &same).expect("a comparison").lines(""), ["true"], "{literal}");
}

#[test]
fn the_table_of_revocations_is_looked_at() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    let subject = "table auth.revocations";
    assert!(texts(&mut admin, subject).is_empty(), "without rows");
    run(&mut admin, "SELECT auth.revoke(subject => 'alice', expires => now() - interval '1 hour')");
    assert!(texts(&mut admin, subject).is_empty(), "a row that has just expired");
    run(&mut admin, "SELECT auth.revoke(subject => 'bob', expires => now() - interval '25 hours')");
    assert_eq!(texts(&mut admin, subject), ["revocations have expired"]);
    run(&mut admin, "SELECT auth.prune_revocations()");
    assert!(texts(&mut admin, subject).is_empty(), "pruned");
    for (alter, restore) in [
        ("DISABLE TRIGGER check_revocation", "ENABLE ALWAYS TRIGGER check_revocation"),
        ("ENABLE TRIGGER keep_revocations", "ENABLE ALWAYS TRIGGER keep_revocations"),
        ("RENAME sid TO other", "RENAME other TO sid"),
    ] {
        run(&mut admin, &format!("ALTER TABLE auth.revocations {alter}"));
        let altered = "the table was altered: every token is rejected";
        assert_eq!(texts(&mut admin, subject), [altered], "{alter}");
        run(&mut admin, &format!("ALTER TABLE auth.revocations {restore}"));
        assert!(texts(&mut admin, subject).is_empty(), "{restore}");
    }
}
