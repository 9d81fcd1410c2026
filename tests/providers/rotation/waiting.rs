//! Sessions that wait for keys.

use std::time::Duration;

use harness::{
    Behaviour, Code, Idp, QUERY_CANCELED, SUCCESS, key, now, present, run, user, wait_for,
};
use serde_json::json;

use super::fixture::*;

#[test]
fn a_token_waits_for_its_own_provider_only() {
    let fixture = Fixture::ready(&[
        ("pg_session_jwt.jwks_timeout", "2s"),
        ("pg_session_jwt.jwks_http_hosts", "localhost"),
    ]);
    let slow = Idp::start_plain();
    slow.behave(Behaviour::Hang);
    let mut admin = fixture.cluster.admin();
    // Never asked, though nobody has been told: as if no worker could have been started.
    let add = "INSERT INTO auth.providers (name, issuer, jwks_url, fetched_from, fetched_jwks)
               SELECT n::text, n::text, $1, $1, $2::text::json FROM generate_series(1, 2) n";
    let jwks = json!({"keys": [fixture.key.public_jwk()]}).to_string();
    admin.execute(add, &[&slow.jwks_url(), &jwks]).unwrap();
    let second = key("k2");
    fixture.idp.set_keys(&[&second]);
    assert_eq!(
        present(&mut fixture.client(), &fixture.token(&second, "bob")),
        SUCCESS,
        "never asked, though nobody has been told"
    );
    // Those others are asked all the same.
    wait_for("the other requests", || slow.requests() == 2);
}

#[test]
fn whoever_does_not_commit_holds_nobody_up_for_long() {
    let fixture = Fixture::ready(&[]);
    let second = key("k2");
    fixture.idp.set_keys(&[&fixture.key, &second]);
    let mut admin = fixture.cluster.admin();
    run(&mut admin, "BEGIN; UPDATE auth.providers SET leeway = 5");
    let error = refusal(&mut fixture.client(), &fixture.token(&second, "bob"));
    assert_eq!(
        error.code().code(),
        Code::NoKey.sqlstate(),
        "after BEGIN; UPDATE auth.providers SET leeway = 5"
    );
    assert!(detail(&error).contains("locked by another transaction"), "{error:?}");
    let error = fixture.refresh().unwrap_err();
    assert!(detail(&error).contains("locked by another transaction"), "{error:?}");
    run(&mut admin, "ROLLBACK");
    assert_eq!(
        present(&mut fixture.client(), &fixture.token(&second, "bob")),
        SUCCESS,
        "after ROLLBACK"
    );

    // Nor can a provider be asked whose row nobody else sees.
    run(&mut admin, "BEGIN");
    let add = "SELECT auth.add_provider('other', issuer => $1, jwks_url => $2)";
    admin.execute(add, &[&"other", &fixture.idp.jwks_url()]).unwrap();
    let token = fixture.key.sign(&json!({"iss": "other", "sub": "alice", "exp": now() + 600}));
    let error = refusal(&mut admin, &token);
    assert!(detail(&error).contains("is not committed"), "{error:?}");
    run(&mut admin, "ROLLBACK");
}

#[test]
fn whoever_comes_meanwhile_waits_for_the_same_fetch() {
    let fixture = Fixture::ready(&[]);
    let second = key("k2");
    fixture.idp.set_keys(&[&second]);
    fixture.idp.behave(Behaviour::Slow(Duration::from_millis(500)));
    std::thread::scope(|scope| {
        for n in 0..20 {
            let (fixture, second) = (&fixture, &second);
            scope.spawn(move || {
                let mut client = fixture.client();
                let name = format!("user {n}");
                assert_eq!(present(&mut client, &fixture.token(second, &name)), SUCCESS, "{n:?}");
                assert_eq!(user(&mut client).as_deref(), Some(name.as_str()), "{n:?}");
            });
        }
    });
    assert_eq!(fixture.idp.requests(), 2, "fixture.idp.requests after fixture.token(second, name)");
}

#[test]
fn a_fetch_under_way_may_have_begun_before_the_tokens_key_was_published() {
    let fixture = Fixture::ready(&[]);
    let second = key("k2");
    let mut client = fixture.client();
    fixture.idp.behave(Behaviour::Slow(Duration::from_secs(1)));
    fixture.update("next_refresh = NULL");
    let known = fixture.token(&fixture.key, "alice");
    assert_eq!(present(&mut client, &known), SUCCESS, "the known key");
    wait_for("the scheduled request", || fixture.idp.requests() == 2);
    fixture.idp.set_keys(&[&fixture.key, &second]);
    fixture.idp.behave(Behaviour::Serve);
    // The token waits for that fetch, and then has the keys fetched once more.
    assert_eq!(present(&mut client, &fixture.token(&second, "bob")), SUCCESS, "the new key");
    assert_eq!(fixture.idp.requests(), 3, "the requests");
}

#[test]
fn waiting_ends_in_time_and_can_be_cancelled() {
    let fixture = Fixture::ready(&[("pg_session_jwt.jwks_timeout", "30s")]);
    let second = key("k2");
    fixture.idp.set_keys(&[&fixture.key, &second]);
    fixture.idp.behave(Behaviour::Hang);
    let token = fixture.token(&second, "bob");
    let mut client = fixture.client();
    // With someone there before: what is cancelled has presented nothing that was accepted.
    assert_eq!(
        present(&mut client, &fixture.token(&fixture.key, "alice")),
        SUCCESS,
        "with someone there before"
    );
    run(&mut client, "SET statement_timeout = '300ms'");
    assert_eq!(present(&mut client, &token), QUERY_CANCELED, "with someone there before");
    assert_eq!(user(&mut client), None, "with someone there before");

    // Others wait no longer than they are told, and are told that it is under way.
    let mut admin = fixture.cluster.admin();
    run(&mut admin, "SET pg_session_jwt.jwks_timeout = '300ms'");
    fixture.forget_demand();
    let error = refusal(&mut admin, &token);
    assert_eq!(
        error.code().code(),
        Code::NoKey.sqlstate(),
        "others wait no longer than they are told"
    );
    assert!(detail(&error).contains("are still being fetched"), "{error:?}");

    // A token whose key is known waits for nothing.
    assert_eq!(
        present(&mut client, &fixture.token(&fixture.key, "alice")),
        SUCCESS,
        "a token whose key is known waits for nothing"
    );
}
