//! Back-channel logout tokens.

use harness::{Code, SUCCESS, now, present, run, sqlstate};
use mint::Key;
use postgres::Client;
use serde_json::{Value, json};

use super::fixture::*;

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// A logout token with these claims in place of the usual ones; null removes a claim.
fn logout_token(key: &Key, typ: Option<&str>, changes: Value) -> String {
    let mut claims = json!({
        "iss": ISSUER, "aud": "app", "iat": now(), "exp": now() + 120, "jti": "l1", "sub": "alice",
        "sid": "s1", "events": {EVENT: {}},
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    let mut header = json!({"alg": "ES256"});
    if let Some(typ) = typ {
        header["typ"] = json!(typ);
    }
    key.sign_raw(header.to_string().as_bytes(), claims.to_string().as_bytes())
}

fn logout(client: &mut Client, token: &str) -> String {
    sqlstate(client.execute("SELECT auth.logout($1)", &[&token]))
}

#[test]
fn a_logout_token_becomes_a_revocation() {
    let site = site();
    let mut admin = site.cluster.admin();
    let mut client = site.client();
    let token = site.token(json!({"sub": "alice", "sid": "s1"}));
    let other = site.token(json!({"sub": "alice", "sid": "s2"}));
    let bob = site.token(json!({"sub": "bob", "sid": "s1"}));
    let state = |client: &mut Client| {
        [&token, &other, &bob].map(|token| present(client, token) == Code::Revoked.sqlstate())
    };
    assert_eq!(state(&mut client), [false; 3]);
    for (changes, revoked) in [
        // The session of the user, the session, all sessions of the user.
        (json!({}), [true, false, false]),
        (json!({"sub": null}), [true, false, true]),
        (json!({"sid": null}), [true, true, false]),
    ] {
        for typ in [Some("logout+jwt"), Some("JWT"), Some("application/logout+jwt"), None] {
            let logout_token = logout_token(&site.key, typ, changes.clone());
            assert_eq!(logout(&mut admin, &logout_token), SUCCESS, "{changes} {typ:?}");
            // It arrives again.
            assert_eq!(logout(&mut admin, &logout_token), SUCCESS, "{changes} {typ:?}");
            assert_eq!(
                cell(&mut admin, "SELECT count(*)::text FROM auth.revocations"),
                "1",
                "{changes}"
            );
            assert_eq!(state(&mut client), revoked, "{changes} {typ:?}");
            unrevoke_all(&mut admin);
        }
    }
    // All sessions of the user, by a token that names one.
    let token = logout_token(&site.key, None, json!({}));
    admin.execute("SELECT auth.logout($1, everywhere => true)", &[&token]).unwrap();
    assert_eq!(state(&mut client), [true, true, false], "everywhere");
    unrevoke_all(&mut admin);
    let token = logout_token(&site.key, None, json!({"sub": null}));
    let outcome = admin.execute("SELECT auth.logout($1, everywhere => true)", &[&token]);
    assert_eq!(sqlstate(outcome), Code::Configuration.sqlstate());

    // The rows of a user do not become many.
    for ago in [50, 30, 60] {
        let changes = json!({"sid": null, "iat": now() - ago, "exp": null});
        assert_eq!(logout(&mut admin, &logout_token(&site.key, None, changes)), SUCCESS);
    }
    let state = "SELECT concat(count(*), ' ', bool_and(before BETWEEN now() - interval '31 s' AND now() - interval '29 s'))
                 FROM auth.revocations";
    assert_eq!(cell(&mut admin, state), "1 t", "one row, with the latest time");
    unrevoke_all(&mut admin);
    for (expires, expected) in [
        ("'2100-01-01'", "2100"),
        ("'2200-01-01'", "2200"),
        ("'2150-01-01'", "2200"),
        ("NULL", "-"),
        ("'2300-01-01'", "-"),
    ] {
        let call = format!("SELECT auth.logout($1, expires => {expires})");
        let logout_token = logout_token(&site.key, None, json!({}));
        assert_eq!(sqlstate(admin.execute(&call, &[&logout_token])), SUCCESS, "{expires}");
        let year = "SELECT string_agg(extract(year FROM expires)::text, ' ') FROM auth.revocations";
        assert_eq!(cell(&mut admin, year), expected, "{expires}");
    }
    unrevoke_all(&mut admin);

    // Sessions that begin later are not ended by a token that arrives late or again.
    let late = logout_token(&site.key, None, json!({"sid": null, "iat": now() - 60, "exp": null}));
    assert_eq!(logout(&mut admin, &late), SUCCESS);
    assert_eq!(
        present(&mut client, &site.token(json!({"sub": "alice", "iat": now() - 30}))),
        SUCCESS
    );
    unrevoke_all(&mut admin);
}

#[test]
fn other_tokens_log_nobody_out() {
    let site = site();
    let mut admin = site.cluster.admin();
    let stranger = harness::key("x");
    for (what, token, code) in [
        ("a stranger's", logout_token(&stranger, None, json!({})), Code::Signature),
        ("another issuer", logout_token(&site.key, None, json!({"iss": "https://x"})), Code::NoKey),
        ("typ", logout_token(&site.key, Some("at+jwt"), json!({})), Code::Malformed),
        ("no event", logout_token(&site.key, None, json!({"events": null})), Code::Claim),
        ("another event", logout_token(&site.key, None, json!({"events": {"x": {}}})), Code::Claim),
        ("events as text", logout_token(&site.key, None, json!({"events": EVENT})), Code::Claim),
        (
            "event as text",
            logout_token(&site.key, None, json!({"events": {EVENT: "x"}})),
            Code::Claim,
        ),
        ("event as list", logout_token(&site.key, None, json!({"events": [EVENT]})), Code::Claim),
        ("nonce", logout_token(&site.key, None, json!({"nonce": "n"})), Code::Claim),
        ("nobody", logout_token(&site.key, None, json!({"sub": null, "sid": null})), Code::Claim),
        ("empty", logout_token(&site.key, None, json!({"sub": "", "sid": ""})), Code::Claim),
        ("sub", logout_token(&site.key, None, json!({"sub": ["alice"]})), Code::Claim),
        ("sid", logout_token(&site.key, None, json!({"sid": {}})), Code::Claim),
        ("no iat", logout_token(&site.key, None, json!({"iat": null})), Code::Claim),
        ("iat", logout_token(&site.key, None, json!({"iat": "now"})), Code::Claim),
        ("future", logout_token(&site.key, None, json!({"iat": now() + 3600})), Code::NotYetValid),
        ("milliseconds", logout_token(&site.key, None, json!({"iat": now() * 1000})), Code::Claim),
        ("expired", logout_token(&site.key, None, json!({"exp": now() - 3600})), Code::Expired),
        ("an identity", site.token_of("alice"), Code::Claim),
        ("no token", "x".to_owned(), Code::Malformed),
        ("empty", String::new(), Code::Malformed),
    ] {
        assert_eq!(logout(&mut admin, &token), code.sqlstate(), "{what}");
    }
    assert_eq!(
        sqlstate(admin.execute("SELECT auth.logout(NULL)", &[])),
        Code::Malformed.sqlstate()
    );
    assert_eq!(cell(&mut admin, "SELECT count(*)::text FROM auth.revocations"), "0");
}

#[test]
fn the_audience_is_that_of_the_application() {
    let site = site();
    let mut admin = site.cluster.admin();
    let key = harness::key("k");
    admin
        .execute(
            "SELECT auth.add_provider('a', issuer => 'https://a', jwks => $1::text, audience => 'api')",
            &[&key.public_jwk().to_string()],
        )
        .unwrap();
    for (aud, audience, code) in [
        (json!("api"), None, SUCCESS),
        (json!(["x", "api"]), None, SUCCESS),
        (json!("app"), None, Code::Audience.sqlstate()),
        (json!(null), None, Code::Audience.sqlstate()),
        (json!("app"), Some("app"), SUCCESS),
        (json!("api"), Some("app"), Code::Audience.sqlstate()),
        (json!(null), Some("app"), Code::Audience.sqlstate()),
        (json!("app2"), Some("app"), Code::Audience.sqlstate()),
    ] {
        let claims = json!({"iss": "https://a", "aud": aud});
        let token = key.sign_raw(
            br#"{"alg":"ES256","kid":"k"}"#,
            {
                let mut all = json!({"iat": now(), "sub": "alice", "events": {EVENT: {}}});
                for (name, value) in claims.as_object().unwrap() {
                    all[name] = value.clone();
                }
                all.to_string()
            }
            .as_bytes(),
        );
        let outcome = admin.execute("SELECT auth.logout($1, $2)", &[&token, &audience]);
        assert_eq!(sqlstate(outcome), code, "{aud} {audience:?}");
    }
    run(&mut admin, "DELETE FROM auth.revocations; SELECT auth.remove_provider('a')");
}

/// Neither with the type, nor with the event, nor where a provider lists the type.
#[test]
fn a_logout_token_is_nobody() {
    let site = site();
    let mut admin = site.cluster.admin();
    let key = harness::key("k");
    admin
        .execute(
            "SELECT auth.add_provider('t', issuer => 'https://t', jwks => $1::text, typ => '{JWT,logout+jwt}')",
            &[&key.public_jwk().to_string()],
        )
        .unwrap();
    let mut client = site.client();
    let of = |typ, changes| logout_token(&site.key, typ, changes);
    for (what, token, code) in [
        ("typ", of(Some("logout+jwt"), json!({})), Code::Malformed),
        ("typ alone", of(Some("Logout+JWT"), json!({"events": null})), Code::Malformed),
        ("event", of(Some("JWT"), json!({})), Code::Claim),
        ("event, no typ", of(None, json!({})), Code::Claim),
        ("a wrong event", of(None, json!({"events": {EVENT: null}})), Code::Claim),
        ("with a nonce", of(None, json!({"nonce": "n"})), Code::Claim),
        (
            "a provider that lists the type",
            key.sign_raw(
                br#"{"alg":"ES256","typ":"logout+jwt","kid":"k"}"#,
                json!({"iss": "https://t", "sub": "alice", "exp": now() + 60})
                    .to_string()
                    .as_bytes(),
            ),
            Code::Malformed,
        ),
    ] {
        assert_eq!(present(&mut client, &token), code.sqlstate(), "{what}");
    }
    // A claim of that name with other contents is a claim.
    let party = site.token(json!({"sub": "alice", "events": {"party": {}}}));
    assert_eq!(present(&mut client, &party), SUCCESS);
    run(&mut admin, "SELECT auth.remove_provider('t')");
}

/// A revocation that ends is none for a logout token.
#[test]
fn a_revocation_that_expires_does_not_stand_for_a_logout() {
    let site = site();
    let mut admin = site.cluster.admin();
    let token = site.token_of("alice");
    let iat = now();
    revoke(
        &mut admin,
        &format!(
            "issuer => '{ISSUER}', subject => 'alice', before => to_timestamp({iat}), expires => now()"
        ),
    );
    let logout_token = logout_token(&site.key, None, json!({"sid": null, "iat": iat}));
    assert_eq!(logout(&mut admin, &logout_token), SUCCESS);
    run(&mut admin, "SELECT auth.prune_revocations()");
    assert_eq!(present(&mut site.client(), &token), Code::Revoked.sqlstate());
    unrevoke_all(&mut admin);
}
