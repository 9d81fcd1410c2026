//! When a provider is asked.

use std::thread::sleep;
use std::time::{Duration, Instant};

use harness::{Behaviour, Code, SUCCESS, key, now, present, run, user, wait_for};
use mint::{Algorithm, Key};
use serde_json::json;

use super::fixture::*;

#[test]
fn what_no_published_key_can_have_signed_has_nobody_asked() {
    let fixture = Fixture::ready(&[]);
    fixture.update("algorithms = '{ES256}'");
    let mut client = fixture.client();
    let secret = Key::generate(Algorithm::HS256).with_kid("k1");
    let not_listed = Key::generate(Algorithm::RS256).with_kid("k1");
    for key in [&secret, &not_listed] {
        assert_eq!(
            present(&mut client, &fixture.token(key, "mallory")),
            Code::Algorithm.sqlstate(),
            "present(fixture.token(key, mallory))"
        );
    }
    // Nor does a token that is refused for its claims.
    let claims = json!({"iss": fixture.idp.issuer(), "sub": "alice", "exp": now() - 600});
    assert_eq!(
        present(&mut client, &fixture.key.sign(&claims)),
        Code::Expired.sqlstate(),
        "nor does a token that is refused for its claims"
    );
    assert_eq!(fixture.idp.requests(), 1, "nor does a token that is refused for its claims");
}

#[test]
fn the_first_keys_do_not_count_as_a_refresh_on_demand() {
    let fixture = Fixture::new(&[]);
    let mut client = fixture.client();
    // By the token, which may come before the worker that starts at commit.
    for round in 0..3 {
        let (first, second) = (key("k1"), key(if round == 0 { "k2" } else { "k1" }));
        fixture.idp.set_keys(&[&first]);
        fixture.add();
        if round == 2 {
            fixture.wait_for_keys();
        }
        assert_eq!(present(&mut client, &fixture.token(&first, "alice")), SUCCESS, "{round:?}");
        fixture.idp.set_keys(&[&second]);
        assert_eq!(present(&mut client, &fixture.token(&second, "bob")), SUCCESS, "{round}");
        run(&mut fixture.cluster.admin(), "SELECT auth.remove_provider('idp')");
    }
    // But a first fetch that fails does.
    fixture.idp.behave(Behaviour::Status(500));
    fixture.add();
    for _ in 0..5 {
        assert_eq!(
            present(&mut client, &fixture.token(&key("k1"), "mallory")),
            Code::NoKey.sqlstate(),
            "but a first fetch that fails does"
        );
    }
    let requests = fixture.idp.requests();
    for _ in 0..5 {
        assert_eq!(
            present(&mut client, &fixture.token(&key("k1"), "mallory")),
            Code::NoKey.sqlstate(),
            "but a first fetch that fails does"
        );
    }
    assert_eq!(fixture.idp.requests(), requests, "but a first fetch that fails does");
}

#[test]
fn refreshes_for_other_reasons_do_not_count_either() {
    let fixture = Fixture::ready(&[]);
    let mut client = fixture.client();
    fixture.refresh().unwrap();
    let second = key("k1");
    fixture.idp.set_keys(&[&second]);
    assert_eq!(
        present(&mut client, &fixture.token(&second, "alice")),
        SUCCESS,
        "present(fixture.token(second, alice))"
    );
    assert_eq!(
        fixture.idp.requests(),
        3,
        "fixture.idp.requests after fixture.token(second, alice)"
    );
}

#[test]
fn what_is_due_is_fetched_while_the_old_keys_serve() {
    let fixture = Fixture::ready(&[]);
    let token = fixture.token(&fixture.key, "alice");
    let mut client = fixture.client();
    run(&mut client, "SET client_min_messages = debug1");
    assert_eq!(present(&mut client, &token), SUCCESS, "after SET client_min_messages = debug1");
    fixture.idp.behave(Behaviour::Slow(Duration::from_millis(700)));
    for requests in 2..4 {
        // A session looks at the row again when it expects that something is due.
        fixture.update("next_refresh = now() + interval '1 second'");
        let mut client = fixture.client();
        assert_eq!(present(&mut client, &token), SUCCESS, "{requests:?}");
        sleep(Duration::from_secs(1));
        let began = fixture.status("clock_timestamp()").unwrap();
        assert_eq!(present(&mut client, &token), SUCCESS, "{requests:?}");
        assert_eq!(user(&mut client).as_deref(), Some("alice"), "{requests:?}");
        wait_for("the request", || fixture.idp.requests() == requests);
        // Nobody else has it done a second time.
        let mut other = fixture.client();
        assert_eq!(present(&mut other, &token), SUCCESS, "{requests:?}");
        let fetched = format!("(last_success > '{began}')");
        assert_eq!(fixture.status(&fetched).as_deref(), Some("false"), "somebody has waited");
        wait_for("the refresh", || fixture.status(&fetched).as_deref() == Some("true"));
        assert_eq!(fixture.idp.requests(), requests, "{requests:?}");
    }
    // A clock that was set back does not put it off for ever.
    fixture.update("next_refresh = now() + interval '25 hours'");
    assert_eq!(
        present(&mut fixture.client(), &token),
        SUCCESS,
        "a clock that was set back does not put it off for ever"
    );
    wait_for("the refresh", || fixture.idp.requests() == 4);
}

#[test]
fn caching_is_the_providers_to_say() {
    let fixture = Fixture::ready(&[]);
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let refreshed = |headers: &[(String, String)]| {
        fixture.idp.behave(Behaviour::Headers(headers.to_vec()));
        fixture.refresh().unwrap();
        fixture.seconds("last_success", "next_refresh").round()
    };
    assert_eq!(refreshed(&[]), 3600.0, "refreshed([])");
    assert_eq!(
        refreshed(&[header("Cache-Control", "public, max-age=600")]),
        600.0,
        "refreshed([header(Cache-Control, public, max-age=600)])"
    );
    assert_eq!(
        refreshed(&[header("Cache-Control", "max-age=1")]),
        300.0,
        "refreshed([header(Cache-Control, max-age=1)])"
    );
    assert_eq!(
        refreshed(&[header("Cache-Control", "no-store")]),
        300.0,
        "refreshed([header(Cache-Control, no-store)])"
    );
    assert_eq!(
        refreshed(&[header("Cache-Control", "max-age=8640000")]),
        86_400.0,
        "refreshed([header(Cache-Control, max-age=8640000)])"
    );
    assert_eq!(
        refreshed(&[header("Expires", "Thu, 01 Jan 1970 00:00:00 GMT")]),
        300.0,
        "refreshed([header(Expires, Thu, 01 Jan 1970 00:00:00 GMT)])"
    );
    fixture.update("keep_keys = 1000");
    assert_eq!(refreshed(&[]), 1000.0, "refreshed([])");

    // What has not changed is not sent again, and voids nothing.
    let tag = [header("ETag", "\"one\""), header("Cache-Control", "max-age=900")];
    assert_eq!(refreshed(&tag), 900.0, "what has not changed is not sent again, and voids nothing");
    assert_eq!(
        fixture.idp.conditional_requests(),
        0,
        "what has not changed is not sent again, and voids nothing"
    );
    let mut client = fixture.client();
    let token = fixture.token(&fixture.key, "alice");
    assert_eq!(
        present(&mut client, &token),
        SUCCESS,
        "what has not changed is not sent again, and voids nothing"
    );
    // Only what is due is asked for in that way: whoever wants newer keys gets what is there.
    assert_eq!(refreshed(&tag), 900.0, "only what is due is asked for in that way");
    assert_eq!(fixture.idp.conditional_requests(), 0, "only what is due is asked for in that way");
    let before = fixture.status("last_success").unwrap();
    fixture.update("next_refresh = now()");
    assert_eq!(
        present(&mut fixture.client(), &token),
        SUCCESS,
        "only what is due is asked for in that way"
    );
    wait_for("the refresh", || fixture.status("last_success").unwrap() != before);
    assert_eq!(fixture.idp.conditional_requests(), 1, "only what is due is asked for in that way");
    assert_eq!(
        fixture.seconds("last_success", "next_refresh").round(),
        900.0,
        "only what is due is asked for in that way"
    );
    assert_eq!(
        user(&mut client).as_deref(),
        Some("alice"),
        "only what is due is asked for in that way"
    );

    // From another URL, or where there are no keys to keep, all is fetched.
    fixture.update(&format!("jwks_url = '{}?'", fixture.idp.jwks_url()));
    assert_eq!(present(&mut client, &token), SUCCESS, "from another URL");
    assert_eq!(fixture.idp.conditional_requests(), 1, "from another URL");
    fixture.update("fetched_jwks = NULL");
    assert_eq!(present(&mut client, &token), SUCCESS, "from another URL");
    assert_eq!(fixture.idp.conditional_requests(), 1, "from another URL");
}

#[test]
fn a_storm_of_unknown_keys_reaches_nobody() {
    let fixture = Fixture::ready(&[]);
    let stranger = Key::generate(Algorithm::ES256);
    assert_storm(&fixture, Code::NoKey.sqlstate(), |thread, n, payload| {
        let header = json!({"alg": "ES256", "kid": format!("{thread}-{n}")});
        stranger.sign_raw(header.to_string().as_bytes(), payload)
    });
}

#[test]
fn a_storm_of_wrong_signatures_reaches_nobody() {
    let fixture = Fixture::ready(&[]);
    let stranger = Key::generate(Algorithm::ES256);
    assert_storm(&fixture, Code::Signature.sqlstate(), |thread, _, payload| {
        let kid = if thread % 2 == 0 { json!({"kid": "k1"}) } else { json!({}) };
        let mut header = json!({"alg": "ES256"});
        header.as_object_mut().unwrap().extend(kid.as_object().unwrap().clone());
        stranger.sign_raw(header.to_string().as_bytes(), payload)
    });
}

/// Presents 10,000 tokens that no key verifies, in four sessions.
fn assert_storm(
    fixture: &Fixture,
    code: &str,
    token: impl Fn(usize, usize, &[u8]) -> String + Sync,
) {
    let claims = json!({"iss": fixture.idp.issuer(), "sub": "mallory", "exp": now() + 600});
    let payload = claims.to_string();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (token, payload) = (&token, &payload);
            scope.spawn(move || {
                let mut client = fixture.client();
                for n in 0..2500 {
                    let token = token(thread, n, payload.as_bytes());
                    assert_eq!(present(&mut client, &token), code, "{n:?}, {thread:?}");
                }
                assert_eq!(user(&mut client), None, "{thread:?}");
            });
        }
    });
    // One at the beginning, and another for every 30 seconds that it took.
    let most = 2 + began.elapsed().as_secs() as usize / 30;
    let requests = fixture.idp.requests();
    println!("10000 tokens in {:?}: {} requests", began.elapsed(), requests - 1);
    assert!((2..=most).contains(&requests), "{requests} requests");
    assert_eq!(
        present(&mut fixture.client(), &fixture.token(&fixture.key, "alice")),
        SUCCESS,
        "one at the beginning"
    );
}
