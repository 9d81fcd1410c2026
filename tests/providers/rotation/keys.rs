//! Keys that are fetched, replaced and found again.

use std::time::Duration;

use harness::{
    Behaviour, Code, Idp, Preload, SUCCESS, key, now, present, run, sqlstate, test_each_preload,
    text, user, wait_for,
};
use mint::{Algorithm, Key};
use serde_json::json;

use super::fixture::*;

test_each_preload! {
    keys_are_fetched_once_a_provider_is_added,
}

fn keys_are_fetched_once_a_provider_is_added(preload: Preload) {
    let fixture = Fixture::with(preload, &[]);
    fixture.add();
    fixture.wait_for_keys();
    assert_eq!(fixture.idp.requests(), 1, "{preload:?}");
    let mut client = fixture.client();
    assert_eq!(
        present(&mut client, &fixture.token(&fixture.key, "alice")),
        SUCCESS,
        "present(fixture.token(fixture.key, alice))"
    );
    assert_eq!(
        user(&mut client).as_deref(),
        Some("alice"),
        "the user after fixture.token(fixture.key, alice)"
    );
    assert_eq!(
        fixture.idp.requests(),
        1,
        "fixture.idp.requests after fixture.token(fixture.key, alice)"
    );
    let keys = fixture.status("keys ->> 0");
    assert_eq!(
        keys.as_deref(),
        Some(r#"{"kid": "k1", "algorithms": ["ES256"]}"#),
        "keys after fixture.token(fixture.key, alice)"
    );
    assert_eq!(
        fixture.status("source").as_deref(),
        Some("jwks_url"),
        "fixture.status(source) after fixture.token(fixture.key, alice)"
    );

    // Several at once, too.
    let add = "INSERT INTO auth.providers (name, issuer, jwks_url)
               SELECT n::text, 'issuer-' || n, $1 FROM generate_series(1, 10) n";
    fixture.cluster.admin().execute(add, &[&fixture.idp.jwks_url()]).unwrap();
    wait_for("the keys", || fixture.idp.requests() == 11);
}

#[test]
fn an_issuer_alone_is_enough() {
    let fixture = Fixture::new(&[]);
    let mut admin = fixture.cluster.admin();
    let mut client = fixture.client();
    let add = "SELECT auth.add_provider('idp', issuer => $1)";
    admin.execute(add, &[&fixture.idp.issuer()]).unwrap();
    // The first token does not wait for anybody to look.
    assert_eq!(
        present(&mut client, &fixture.token(&fixture.key, "alice")),
        SUCCESS,
        "the first token does not wait for anybody to look"
    );
    assert_eq!(
        fixture.status("source").as_deref(),
        Some("discovery"),
        "the first token does not wait for anybody to look"
    );
    assert!(
        fixture.idp.requests_for("/.well-known/openid-configuration") >= 1,
        "the first token does not wait for anybody to look"
    );

    // The document speaks for its own issuer only, to the letter.
    run(&mut admin, "SELECT auth.remove_provider('idp')");
    let slash = format!("{}/", fixture.idp.issuer());
    admin.execute(add, &[&slash]).unwrap();
    let claims = json!({"iss": slash, "sub": "alice", "exp": now() + 600});
    let error = refusal(&mut client, &fixture.key.sign(&claims));
    assert_eq!(
        error.code().code(),
        Code::NoKey.sqlstate(),
        "after SELECT auth.remove_provider('idp')"
    );
    assert!(detail(&error).contains("Discovery failed: the provider's issuer is"), "{error:?}");
    wait_for("the error", || fixture.status("last_error").is_some());
    assert_eq!(user(&mut client), None, "after SELECT auth.remove_provider('idp')");
}

#[test]
fn rotations_go_unnoticed() {
    let fixture = Fixture::ready(&[]);
    let (first, second, third) = (&fixture.key, key("k2"), key("k3"));
    let mut client = fixture.client();
    let mut before = fixture.client();
    assert_eq!(
        present(&mut before, &fixture.token(first, "alice")),
        SUCCESS,
        "present(fixture.token(first, alice))"
    );

    // With overlap.
    fixture.idp.set_keys(&[first, &second]);
    assert_eq!(present(&mut client, &fixture.token(&second, "bob")), SUCCESS, "with overlap");
    assert_eq!(user(&mut client).as_deref(), Some("bob"), "with overlap");
    assert_eq!(user(&mut before).as_deref(), Some("alice"), "with overlap");
    assert_eq!(fixture.idp.requests(), 2, "with overlap");

    // Without: the keys that are gone vouch for nobody any more.
    fixture.forget_demand();
    fixture.idp.set_keys(&[&third]);
    assert_eq!(present(&mut client, &fixture.token(&third, "carol")), SUCCESS, "without overlap");
    assert_eq!(user(&mut client).as_deref(), Some("carol"), "without overlap");
    assert_eq!(
        sqlstate(before.query("SELECT auth.user_id()", &[])),
        Code::NoKey.sqlstate(),
        "without overlap"
    );
    assert_eq!(
        present(&mut client, &fixture.token(first, "alice")),
        Code::NoKey.sqlstate(),
        "without overlap"
    );
    assert_eq!(user(&mut client), None, "without overlap");
    assert_eq!(fixture.idp.requests(), 3, "without overlap");

    // Within 30 seconds, nobody is asked again, until an administrator wants it.
    let fourth = key("k4");
    fixture.idp.set_keys(&[&third, &fourth]);
    let error = refusal(&mut client, &fixture.token(&fourth, "dave"));
    assert_eq!(error.code().code(), Code::NoKey.sqlstate(), "within 30 seconds");
    assert!(detail(&error).contains("Its keys were last fetched"), "{error:?}");
    assert_eq!(fixture.idp.requests(), 3, "within 30 seconds");
    let changes = fixture.refresh().unwrap();
    assert_eq!(
        changes, r#"{"kept": ["k3"], "added": ["k4"], "changed": [], "removed": []}"#,
        "within 30 seconds"
    );
    assert_eq!(present(&mut client, &fixture.token(&fourth, "dave")), SUCCESS, "within 30 seconds");

    // A forged token brings nobody in, and has nobody asked: its key is known.
    let forged = key("k4");
    assert_eq!(
        present(&mut client, &fixture.token(&forged, "mallory")),
        Code::Signature.sqlstate(),
        "a forged token brings nobody in, and has nobody asked"
    );
    assert_eq!(fixture.idp.requests(), 4, "a forged token brings nobody in, and has nobody asked");
}

#[test]
fn keys_without_ids_rotate_too() {
    let fixture = Fixture::new(&[]);
    let (first, second) = (Key::generate(Algorithm::ES256), Key::generate(Algorithm::RS256));
    fixture.idp.set_keys(&[&first]);
    fixture.add();
    fixture.wait_for_keys();
    let mut client = fixture.client();
    assert_eq!(
        present(&mut client, &fixture.token(&first, "alice")),
        SUCCESS,
        "present(fixture.token(first, alice))"
    );
    fixture.idp.set_keys(&[&second]);
    assert_eq!(
        present(&mut client, &fixture.token(&second, "bob")),
        SUCCESS,
        "present(fixture.token(second, bob))"
    );
    assert_eq!(fixture.idp.requests(), 2, "fixture.idp.requests after fixture.token(second, bob)");
    // What no key has signed is refused after one more look.
    fixture.forget_demand();
    let forged = Key::generate(Algorithm::RS256);
    assert_eq!(
        present(&mut client, &fixture.token(&forged, "bob")),
        Code::Signature.sqlstate(),
        "what no key has signed is refused after one more look"
    );
    assert_eq!(
        present(&mut client, &fixture.token(&forged, "bob")),
        Code::Signature.sqlstate(),
        "what no key has signed is refused after one more look"
    );
    assert_eq!(fixture.idp.requests(), 3, "what no key has signed is refused after one more look");
}

#[test]
fn a_key_that_is_replaced_under_its_id_is_found() {
    let fixture = Fixture::ready(&[]);
    let mut client = fixture.client();
    assert_eq!(
        present(&mut client, &fixture.token(&fixture.key, "alice")),
        SUCCESS,
        "present(fixture.token(fixture.key, alice))"
    );

    // Of the same type (28J03), and within 30 seconds of the first keys.
    let second = key("k1");
    fixture.idp.set_keys(&[&second]);
    assert_eq!(
        present(&mut client, &fixture.token(&second, "bob")),
        SUCCESS,
        "of the same type (28J03)"
    );
    assert_eq!(user(&mut client).as_deref(), Some("bob"), "of the same type (28J03)");
    assert_eq!(fixture.idp.requests(), 2, "of the same type (28J03)");
    assert_eq!(
        present(&mut client, &fixture.token(&fixture.key, "alice")),
        Code::Signature.sqlstate(),
        "of the same type (28J03)"
    );

    // Of another type (28J10), there and back.
    for algorithm in [Algorithm::RS256, Algorithm::EdDSA, Algorithm::ES256] {
        fixture.forget_demand();
        let other = Key::generate(algorithm).with_kid("k1");
        fixture.idp.set_keys(&[&other]);
        let token = fixture.token(&other, "carol");
        assert_eq!(present(&mut client, &token), SUCCESS, "{algorithm:?}");
    }
    assert_eq!(fixture.idp.requests(), 5, "of another type (28J10), there and back");

    // A session under way ends with its key.
    let last = key("k1");
    fixture.idp.set_keys(&[&last]);
    let error = refusal(&mut fixture.client(), &fixture.token(&last, "dave"));
    assert_eq!(
        error.code().code(),
        Code::Signature.sqlstate(),
        "a session under way ends with its key"
    );
    for part in [
        "Its keys were last fetched",
        "they are fetched again in",
        "auth.refresh_provider() fetches them at once",
    ] {
        assert!(detail(&error).contains(part), "{part}: {error:?}");
    }
    assert_eq!(fixture.idp.requests(), 5, "a session under way ends with its key");
    let changes = fixture.refresh().unwrap();
    assert_eq!(
        changes, r#"{"kept": [], "added": [], "changed": ["k1"], "removed": []}"#,
        "a session under way ends with its key"
    );
    assert_eq!(
        present(&mut fixture.client(), &fixture.token(&last, "dave")),
        SUCCESS,
        "a session under way ends with its key"
    );
    assert_eq!(
        sqlstate(client.query("SELECT auth.user_id()", &[])),
        Code::Signature.sqlstate(),
        "a session under way ends with its key"
    );

    // The same key, written otherwise, is kept; the others are told apart.
    let (gone, new) = (key("gone"), key("new"));
    fixture.idp.set_keys(&[&last, &gone]);
    fixture.refresh().unwrap();
    let mut spelled = last.public_jwk();
    spelled["alg"] = json!("ES256");
    spelled["use"] = json!("sig");
    let set = json!({"keys": [new.public_jwk(), spelled]});
    fixture.idp.set_body("/jwks.json", set.to_string());
    let changes = fixture.refresh().unwrap();
    let expected = r#"{"kept": ["k1"], "added": ["new"], "changed": [], "removed": ["gone"]}"#;
    assert_eq!(changes, expected, "the same key, written otherwise, is kept");
}

#[test]
fn one_bad_key_does_not_cost_the_good_ones() {
    let fixture = Fixture::new(&[]);
    let secret = Key::generate(Algorithm::HS256).with_kid("secret");
    let private = key("private");
    let (twin, other_twin) = (key("twin"), key("twin"));
    let mut encrypting = key("encrypting").public_jwk();
    encrypting["use"] = json!("enc");
    let set = json!({"keys": [
        7, {"kty": "RSA", "kid": "short", "n": "AQAB", "e": "AQAB"}, {"kty": "PQC"},
        secret.public_jwk(), private.private_jwk().unwrap(), encrypting,
        twin.public_jwk(), other_twin.public_jwk(), fixture.key.public_jwk(),
    ]});
    fixture.idp.set_body("/jwks.json", set.to_string());
    fixture.add();
    fixture.wait_for_keys();
    let kids = "(SELECT string_agg(key ->> 'kid', ' ') FROM jsonb_array_elements(keys) key)";
    assert_eq!(fixture.status(kids).as_deref(), Some("k1 twin"), "fixture.status(kids)");
    let passed_over = fixture.status("passed_over").unwrap();
    for reason in ["kid \"short\"", "symmetric", "private", "\"enc\"", "Its kid is that of"] {
        assert!(passed_over.contains(reason), "{reason}: {passed_over}");
    }
    let mut client = fixture.client();
    assert_eq!(
        present(&mut client, &fixture.token(&fixture.key, "alice")),
        SUCCESS,
        "present(fixture.token(fixture.key, alice))"
    );
    assert_eq!(
        present(&mut client, &fixture.token(&twin, "alice")),
        SUCCESS,
        "present(fixture.token(twin, alice))"
    );
    // Neither the published secret nor the published private key signs for anybody.
    for (key, code) in [
        (&secret, Code::NoKey.sqlstate()),
        (&private, Code::NoKey.sqlstate()),
        (&other_twin, Code::Signature.sqlstate()),
    ] {
        assert_eq!(
            present(&mut client, &fixture.token(key, "mallory")),
            code,
            "present(fixture.token(key, mallory))"
        );
        assert_eq!(user(&mut client), None, "the user after fixture.token(key, mallory)");
    }
    // Nothing but public keys is kept.
    let kept = text(&mut fixture.cluster.admin(), "SELECT fetched_jwks::text FROM auth.providers");
    let kept = kept.unwrap();
    assert!(!kept.contains("\"d\"") && !kept.contains("\"k\""), "{kept}");
}

#[test]
fn names_are_in_the_databases_encoding() {
    let fixture = Fixture::new(&[]);
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let create = format!("CREATE DATABASE {encoding} TEMPLATE template0 ENCODING '{encoding}'");
        run(&mut fixture.cluster.admin(), &create);
        let connect =
            |role: &str| fixture.cluster.as_role(role).database(&encoding.to_lowercase()).client();
        let mut admin = connect("postgres");
        run(&mut admin, "CREATE EXTENSION pg_session_jwt");
        let add = "SELECT auth.add_provider('caf\u{e9} \"''x', issuer => $1)";
        admin.execute(add, &[&fixture.idp.issuer()]).unwrap();
        let mut client = connect("app");
        assert_eq!(
            present(&mut client, &fixture.token(&fixture.key, "alice")),
            SUCCESS,
            "{encoding:?}"
        );
        assert_eq!(user(&mut client).as_deref(), Some("alice"), "{encoding:?}");
        let refresh = "SELECT auth.refresh_provider(name)::text FROM auth.providers";
        let changes = text(&mut admin, refresh).unwrap();
        assert_eq!(
            changes, r#"{"kept": ["k1"], "added": [], "changed": [], "removed": []}"#,
            "{encoding:?}"
        );
    }
}

#[test]
fn what_an_address_is_changed_to_is_asked_at_once() {
    let fixture = Fixture::ready(&[]);
    let (other, second) = (Idp::start(), key("k1"));
    other.set_keys(&[&second]);
    // In the file of authorities of both.
    let both = [&fixture.idp, &other].map(|idp| std::fs::read_to_string(idp.ca_file()).unwrap());
    std::fs::write(fixture.idp.ca_file(), both.concat()).unwrap();
    let mut client = fixture.client();
    let mut before = fixture.client();
    assert_eq!(
        present(&mut before, &fixture.token(&fixture.key, "alice")),
        SUCCESS,
        "in the file of authorities of both"
    );
    fixture.update(&format!("jwks_url = '{}'", other.jwks_url()));
    // The keys from before count no more, though the new ones have the same id.
    assert_eq!(
        present(&mut client, &fixture.token(&second, "bob")),
        SUCCESS,
        "the keys from before count no more"
    );
    assert_eq!(
        present(&mut client, &fixture.token(&fixture.key, "alice")),
        Code::Signature.sqlstate(),
        "the keys from before count no more"
    );
    assert_eq!(
        sqlstate(before.query("SELECT auth.user_id()", &[])),
        Code::Signature.sqlstate(),
        "the keys from before count no more"
    );
    assert_eq!(fixture.idp.requests(), 1, "the keys from before count no more");

    // Also while the former one is being asked.
    fixture.idp.behave(Behaviour::Slow(Duration::from_millis(800)));
    fixture.update(&format!("jwks_url = '{}'", fixture.idp.jwks_url()));
    wait_for("the request", || fixture.idp.requests() == 2);
    fixture.update(&format!("jwks_url = '{}'", other.jwks_url()));
    wait_for("the keys", || fixture.status("keys ->> 0").is_some());
    assert_eq!(
        present(&mut client, &fixture.token(&second, "bob")),
        SUCCESS,
        "also while the former one is being asked"
    );
}
