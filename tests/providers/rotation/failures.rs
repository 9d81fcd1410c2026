//! What a provider or the network does wrong.

use std::thread::sleep;
use std::time::Duration;

use harness::{Behaviour, Certificate, Code, Idp, SUCCESS, key, present, user};
use serde_json::json;

use super::fixture::*;

#[test]
fn failures_cost_nothing_that_was_good() {
    let fixture = Fixture::ready(&[("pg_session_jwt.jwks_timeout", "3s")]);
    let mut client = fixture.client();
    let known = fixture.token(&fixture.key, "alice");
    let unknown = fixture.token(&key("k9"), "bob");
    let idp = &fixture.idp;
    let good = json!({"keys": [fixture.key.public_jwk()]}).to_string();
    let elsewhere = Idp::start();
    let too_many: Vec<_> = (0..101).map(|n| key(&format!("k{n}")).public_jwk()).collect();
    let failing: &[(&str, &dyn Fn(), &str)] = &[
        ("down", &|| idp.stop(), "the connection was refused"),
        ("404", &|| idp.behave(Behaviour::Status(404)), "the status 404"),
        ("500", &|| idp.behave(Behaviour::Status(500)), "the status 500"),
        ("304", &|| idp.behave(Behaviour::Status(304)), "the status 304"),
        ("slow", &|| idp.behave(Behaviour::Slow(Duration::from_secs(9))), "the time-out"),
        ("hanging", &|| idp.behave(Behaviour::Hang), "the time-out"),
        ("hanging mid-body", &|| idp.behave(Behaviour::HangMidBody), "the time-out"),
        ("redirecting", &|| idp.behave(Behaviour::Redirect(elsewhere.jwks_url())), "redirect"),
        (
            "redirecting to http",
            &|| idp.behave(Behaviour::Redirect(idp.jwks_url().replace("https", "http"))),
            "redirect",
        ),
        ("oversized", &|| idp.behave(Behaviour::Oversized), "larger than 256 KiB"),
        ("expired", &|| idp.use_certificate(Certificate::Expired), "expired"),
        ("wrong host", &|| idp.use_certificate(Certificate::WrongHost), "host"),
        ("other authority", &|| idp.use_certificate(Certificate::OtherCa), "certificate"),
        ("not JSON", &|| idp.set_body("/jwks.json", "sorry"), "key set is not valid JSON"),
        ("a page", &|| idp.set_body("/jwks.json", "<html>"), "the answer is a page of HTML"),
        ("empty", &|| idp.set_body("/jwks.json", r#"{"keys": []}"#), "It has no keys."),
        ("no set", &|| idp.set_body("/jwks.json", "{}"), "It has neither"),
        (
            "too many keys",
            &|| idp.set_body("/jwks.json", json!({"keys": too_many}).to_string()),
            "It has 101",
        ),
        (
            "only bad keys",
            &|| idp.set_body("/jwks.json", r#"{"keys": [{"kty": "RSA"}]}"#),
            "It has no n.",
        ),
    ];
    for (count, (name, fail, reason)) in (1..).zip(failing) {
        fail();
        let error = fixture.refresh().unwrap_err();
        assert_eq!(error.code().code(), Code::Fetching.sqlstate(), "{name}");
        assert!(detail(&error).contains(reason), "{name}: {error:?}");
        // The good keys serve on, and refusals say why there are no newer ones.
        assert_eq!(present(&mut client, &known), SUCCESS, "{name}");
        assert_eq!(user(&mut client).as_deref(), Some("alice"), "{name:?}, {reason:?}");
        fixture.forget_demand();
        let error = refusal(&mut client, &unknown);
        assert_eq!(error.code().code(), Code::NoKey.sqlstate(), "{name}");
        assert!(detail(&error).contains(reason), "{name}: {error:?}");
        assert!(detail(&error).contains("kids \"k1\""), "{name}: {error:?}");
        assert_eq!(user(&mut client), None, "{name:?}, {reason:?}: the good keys serve on");
        assert_eq!(fixture.status("failures"), Some((2 * count).to_string()), "{name}");
        assert!(fixture.status("last_error").unwrap().contains(reason), "{name}");
        // The first again within a minute or so, later ones at most one and a half hours.
        let wait = fixture.seconds("last_fetch", "next_refresh");
        let least = f64::from(30 << (2 * count - 1).min(7)).min(3600.0);
        assert!((least..=1.5 * least + 2.0).contains(&wait), "{name}: {wait}");

        idp.behave(Behaviour::Serve);
        idp.use_certificate(Certificate::Good);
        idp.set_body("/jwks.json", good.clone());
        if *name == "down" {
            idp.restart();
        }
    }
    assert_eq!(elsewhere.requests(), 0, "elsewhere.requests after known");
    fixture.refresh().unwrap();
    assert_eq!(
        fixture.status("failures").as_deref(),
        Some("0"),
        "fixture.status(failures) after known"
    );
    assert_eq!(fixture.status("last_error"), None, "fixture.status(last_error) after known");
    let log = fixture.cluster.log();
    assert!(log.contains("the keys of provider \"idp\" could not be fetched"), "{log}");
    // No process has crashed.
    assert!(!log.contains("terminating any other active server processes"), "{log}");
}

#[test]
fn keys_that_grow_too_old_vouch_for_nobody() {
    let fixture = Fixture::ready(&[("pg_session_jwt.jwks_timeout", "1s")]);
    let token = fixture.token(&fixture.key, "alice");
    let mut client = fixture.client();
    assert_eq!(present(&mut client, &token), SUCCESS, "present(token)");

    // A provider that answers is asked, and nobody notices.
    fixture.update("last_success = now() - interval '25 hours'");
    assert_eq!(
        present(&mut fixture.client(), &token),
        SUCCESS,
        "a provider that answers is asked, and nobody notices"
    );
    assert_eq!(fixture.idp.requests(), 2, "a provider that answers is asked, and nobody notices");

    // One that does not is believed for that long and no longer, in sessions under way, too.
    fixture.idp.stop();
    for (keep_keys, age) in [("NULL", 86_400), ("300", 300)] {
        let set = format!(
            "keep_keys = {keep_keys}, last_demand = NULL,
             last_success = clock_timestamp() - interval '{age} seconds' + interval '3 seconds'"
        );
        fixture.update(&set);
        let mut client = fixture.client();
        assert_eq!(present(&mut client, &token), SUCCESS, "{keep_keys:?}, {age:?}");
        assert_eq!(user(&mut client).as_deref(), Some("alice"), "{keep_keys:?}, {age:?}");
        sleep(Duration::from_secs(3));
        let error = client.query("SELECT auth.user_id()", &[]).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), Code::NoKey.sqlstate(), "{keep_keys:?}, {age:?}");
        assert_eq!(error.message(), "provider's keys are too old", "{keep_keys:?}, {age:?}");
        assert!(detail(error).contains("refused"), "{error:?}");
        assert_eq!(present(&mut client, &token), Code::NoKey.sqlstate(), "{keep_keys:?}, {age:?}");
        assert_eq!(user(&mut client), None, "{keep_keys:?}, {age:?}");
    }
}
