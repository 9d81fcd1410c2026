//! Which tokens a revocation covers.

use harness::{Code, SUCCESS, now, present};
use serde_json::json;

use super::fixture::*;

#[test]
fn values_narrow_each_other() {
    let site = site();
    let mut admin = site.cluster.admin();
    let token = site.token(json!({"sub": "alice", "jti": "j1", "sid": "s1"}));
    let other = site.token(json!({"sub": "bob", "jti": "j2", "sid": "s2"}));
    let bare = site.token(json!({"sub": "alice"}));
    for (arguments, revoked, bare_too) in [
        ("subject => 'alice'", true, true),
        ("jti => 'j1'", true, false),
        ("sid => 's1'", true, false),
        ("issuer => 'https://id.example.com', subject => 'alice'", true, true),
        (
            "issuer => 'https://id.example.com', subject => 'alice', jti => 'j1', sid => 's1'",
            true,
            false,
        ),
        ("issuer => 'https://id.example.com/', subject => 'alice'", false, false),
        ("issuer => 'https://other.example.com', jti => 'j1'", false, false),
        ("subject => 'bob', jti => 'j1'", false, false),
        ("subject => 'alice', sid => 's2'", false, false),
        ("subject => 'Alice'", false, false),
        ("subject => 'alice '", false, false),
        ("subject => 'j1'", false, false),
        ("sid => 'j1'", false, false),
        ("jti => 's1'", false, false),
        ("issuer => 'alice'", false, false),
    ] {
        revoke(&mut admin, arguments);
        let mut client = site.client();
        let expected = |is_revoked| if is_revoked { Code::Revoked.sqlstate() } else { SUCCESS };
        assert_eq!(present(&mut client, &token), expected(revoked), "{arguments}");
        assert_eq!(present(&mut client, &bare), expected(bare_too), "{arguments}: without ids");
        assert_eq!(present(&mut client, &other), SUCCESS, "{arguments}: another user");
        unrevoke_all(&mut admin);
        assert_eq!(present(&mut client, &token), SUCCESS, "{arguments}: removed");
    }

    // Everybody of a provider.
    revoke(&mut admin, "issuer => 'https://id.example.com'");
    let mut client = site.client();
    for token in [&token, &other, &bare] {
        assert_eq!(present(&mut client, token), Code::Revoked.sqlstate(), "everybody");
    }
    assert_eq!(
        present(&mut client, &site.token(json!({"sub": "alice", "iat": now() + 1}))),
        SUCCESS
    );
    unrevoke_all(&mut admin);
}

#[test]
fn times_of_issue_are_compared() {
    let site = site();
    let mut admin = site.cluster.admin();
    let mut client = site.client();
    let at = now() - 300;
    for (iat, code) in [
        (json!(at), Code::Revoked.sqlstate()),
        (json!(at - 1), Code::Revoked.sqlstate()),
        (json!(at as f64 + 0.75), Code::Revoked.sqlstate()),
        (json!(at + 1), SUCCESS),
        (json!(at as f64 + 1.25), SUCCESS),
        // No time, or one that says nothing.
        (json!(null), Code::Revoked.sqlstate()),
        (json!((at + 1).to_string()), Code::Revoked.sqlstate()),
        (json!((at + 1) * 1000), Code::Revoked.sqlstate()),
        (json!(now() + 3600), Code::Revoked.sqlstate()),
        (json!(true), Code::Revoked.sqlstate()),
    ] {
        let token = site.token(json!({"sub": "alice", "iat": iat}));
        assert_eq!(present(&mut client, &token), SUCCESS, "{iat}: before");
        revoke(&mut admin, &format!("subject => 'alice', before => to_timestamp({at})"));
        assert_eq!(present(&mut client, &token), code, "{iat}");
        assert_eq!(present(&mut site.client(), &token), code, "{iat}: another session");
        unrevoke_all(&mut admin);
    }

    // At its ends.
    let token = site.fresh("alice");
    for (before, code) in [
        ("'infinity'", Code::Revoked.sqlstate()),
        ("'-infinity'", SUCCESS),
        ("NULL", Code::Revoked.sqlstate()),
        ("now() + interval '1 day'", Code::Revoked.sqlstate()),
        ("now() - interval '1 day'", SUCCESS),
        ("'294276-12-31'", Code::Revoked.sqlstate()),
        ("'4713-01-01 BC'", SUCCESS),
    ] {
        revoke(&mut admin, &format!("subject => 'alice', before => {before}"));
        assert_eq!(present(&mut client, &token), code, "{before}");
        unrevoke_all(&mut admin);
    }
}

/// Many rows of a user, of which the last one covers the token.
#[test]
fn one_of_many_rows_suffices() {
    let site = site();
    let mut admin = site.cluster.admin();
    let mut client = site.client();
    let token = site.token(json!({"sub": "alice", "jti": "j1"}));
    for arguments in [
        "subject => 'alice', issuer => 'https://x' || n",
        "subject => 'alice', jti => 'x' || n",
        "subject => 'alice', before => now() - n * interval '1 hour'",
        "jti => 'j1', subject => 'x' || n",
        "issuer => 'https://id.example.com', sid => 'x' || n",
        "issuer => 'https://id.example.com', before => now() - n * interval '1 hour'",
    ] {
        revoke_many(&mut admin, arguments);
        assert_eq!(present(&mut client, &token), SUCCESS, "{arguments}");
    }
    let last = revoke(&mut admin, "issuer => 'https://id.example.com', subject => 'alice'");
    assert_eq!(present(&mut client, &token), Code::Revoked.sqlstate());
    unrevoke(&mut admin, last);
    assert_eq!(present(&mut client, &token), SUCCESS);
    // Behind those with the same jti.
    revoke(&mut admin, "jti => 'j1'");
    assert_eq!(present(&mut client, &token), Code::Revoked.sqlstate());
    unrevoke_all(&mut admin);
}

fn revoke_many(client: &mut postgres::Client, arguments: &str) {
    let call = format!("SELECT count(auth.revoke({arguments})) FROM generate_series(1, 500) n");
    client.query_one(&call, &[]).unwrap_or_else(|error| panic!("{call}: {error:?}"));
}

#[test]
fn long_and_strange_values_are_compared() {
    let site = site();
    let mut admin = site.cluster.admin();
    let mut client = site.client();
    let long = "x".repeat(10_000);
    for value in [long.as_str(), "é\u{1F600}", "'", "\\", "a\nb", "%", "NULL", " "] {
        let token = site.token(json!({"sub": "alice", "jti": value}));
        let other = site.token(json!({"sub": "alice", "jti": format!("{value}x")}));
        assert_eq!(present(&mut client, &token), SUCCESS, "{value:.20}: before");
        let id: i64 = admin.query_one("SELECT auth.revoke(jti => $1)", &[&value]).unwrap().get(0);
        assert_eq!(present(&mut client, &token), Code::Revoked.sqlstate(), "{value:.20}");
        assert_eq!(present(&mut client, &other), SUCCESS, "{value:.20}: another");
        unrevoke(&mut admin, id);
    }
    // Digits, as SQL shows them.
    for (claims, arguments) in [
        (json!({"sub": 17}), "subject => '17'"),
        (json!({"sub": "a", "jti": 18}), "jti => '18'"),
        (json!({"sub": "a", "sid": 19}), "sid => '19'"),
        (json!({"sub": "a", "session_id": "20"}), "sid => '20'"),
    ] {
        let token = site.token(claims);
        let id = revoke(&mut admin, arguments);
        assert_eq!(present(&mut client, &token), Code::Revoked.sqlstate(), "{arguments}");
        unrevoke(&mut admin, id);
    }
}

/// A subject is the claim `sub`, and the user id where the provider takes it from another claim.
#[test]
fn a_subject_is_also_the_user_id() {
    let site = site();
    let mut admin = site.cluster.admin();
    let key = harness::key("k");
    let jwk = key.public_jwk();
    admin
        .execute(
            "SELECT auth.add_provider('oid', issuer => 'https://oid', jwks => $1::text, user_id_claim => 'oid')",
            &[&jwk.to_string()],
        )
        .unwrap();
    let claims = json!({"iss": "https://oid", "sub": "pairwise", "oid": "alice", "iat": now() - 9});
    let token = harness::sign(&key, claims);
    let mut client = site.client();
    for (subject, code) in [
        ("alice", Code::Revoked.sqlstate()),
        ("pairwise", Code::Revoked.sqlstate()),
        ("oid", SUCCESS),
    ] {
        let id = revoke(&mut admin, &format!("issuer => 'https://oid', subject => '{subject}'"));
        assert_eq!(present(&mut client, &token), code, "{subject}");
        unrevoke(&mut admin, id);
    }
    harness::run(&mut admin, "SELECT auth.remove_provider('oid')");
}
