//! Tokens that are presented after they were revoked, in every way.

use harness::{Code, SUCCESS, db_error, present, run, sqlstate, text, user};
use serde_json::json;

use super::fixture::*;

const REVOKED: &str = Code::Revoked.sqlstate();

#[test]
fn every_way_of_presenting_a_token() {
    let site = site();
    let mut admin = site.cluster.admin();
    let alice = site.token_of("alice");
    let mut knowing = site.client();
    assert_eq!(present(&mut knowing, &alice), SUCCESS, "cached by this backend");
    run(&mut knowing, "RESET pg_session_jwt.jwt");
    revoke(&mut admin, "subject => 'alice'");
    for way in [
        format!("SELECT auth.jwt_session_init('{alice}')"),
        format!("BEGIN; SELECT auth.jwt_session_init('{alice}', true); COMMIT"),
        format!("SET pg_session_jwt.jwt = '{alice}'"),
        format!("BEGIN; SET LOCAL pg_session_jwt.jwt = '{alice}'; COMMIT"),
        format!("SELECT set_config('pg_session_jwt.jwt', '{alice}', false)"),
        format!("SELECT auth.jwt_verify('{alice}')"),
    ] {
        // Known to this backend, and to another one.
        for client in [&mut knowing, &mut site.client()] {
            assert_eq!(sqlstate(client.batch_execute(&way)), REVOKED, "{way:.30}");
            run(client, "ROLLBACK");
            assert_eq!(user(client), None, "{way:.30}");
        }
    }
    let mut startup = site.cluster.as_role("app").option("pg_session_jwt.jwt", &alice).client();
    assert_eq!(code_of_user(&mut startup), REVOKED, "in the startup packet");

    // The client is told what to do, and not what the administrator noted.
    let mut client = site.client();
    let error = db_error(client.execute("SELECT auth.jwt_session_init($1)", &[&alice]));
    assert_eq!(error.message(), "token has been revoked");
    assert!(error.detail().unwrap().contains("(10 minutes ago); revocation "), "{error:?}");
    assert_eq!(error.hint(), Some("Sign in again, and present the new token."));
    unrevoke_all(&mut admin);
}

/// A revocation before the key changes, and after it has changed back.
#[test]
fn a_rotated_key_gives_no_second_life() {
    let site = site();
    let mut admin = site.cluster.admin();
    let (first, second) = (harness::key("k1"), harness::key("k2"));
    let set = |client: &mut postgres::Client, key: &mint::Key| {
        client
            .execute(
                "UPDATE auth.providers SET jwks = $1::text::json",
                &[&key.public_jwk().to_string()],
            )
            .unwrap();
    };
    admin
        .execute(
            "SELECT auth.add_provider('p', issuer => 'https://p', jwks => $1::text)",
            &[&first.public_jwk().to_string()],
        )
        .unwrap();
    let token = harness::sign(
        &first,
        json!({"iss": "https://p", "sub": "alice", "iat": harness::now() - 60}),
    );
    let mut client = site.client();
    assert_eq!(present(&mut client, &token), SUCCESS);
    revoke(&mut admin, "subject => 'alice', issuer => 'https://p'");
    set(&mut admin, &second);
    assert_ne!(code_of_user(&mut client), SUCCESS, "another key");
    set(&mut admin, &first);
    assert_eq!(code_of_user(&mut client), REVOKED, "the first key again");
    assert_eq!(present(&mut client, &token), REVOKED, "the first key again");
    run(&mut admin, "DELETE FROM auth.revocations; SELECT auth.remove_provider('p')");
}

#[test]
fn an_expired_token_is_expired_first() {
    let site = site();
    let mut admin = site.cluster.admin();
    let token = site.token(json!({"sub": "alice", "exp": harness::now() - 300}));
    revoke(&mut admin, "subject => 'alice'");
    // The client refreshes the token, and is told then.
    assert_eq!(present(&mut site.client(), &token), Code::Expired.sqlstate());
    unrevoke_all(&mut admin);
}

#[test]
fn inspections_and_whoami_tell() {
    let site = site();
    let mut admin = site.cluster.admin();
    let alice = site.token_of("alice");
    let row = |client: &mut postgres::Client| {
        let row = client
            .query_one(
                "SELECT outcome, found, expected, hint FROM auth.inspect($1) WHERE \"check\" = 'revocation'",
                &[&alice],
            )
            .unwrap();
        (0..4)
            .map(|column| row.get::<_, Option<String>>(column).unwrap_or_default())
            .collect::<Vec<_>>()
    };
    let expected = "no row of auth.revocations that covers the token";
    assert_eq!(row(&mut admin), ["passed", "not revoked", expected, ""]);
    let mut client = site.client();
    assert_eq!(present(&mut client, &alice), SUCCESS);
    let id = revoke(&mut admin, "subject => 'alice'");
    let found = row(&mut admin);
    assert_eq!(found[0], "failed");
    assert!(found[1].starts_with("28J12, token has been revoked. Its iat is "), "{found:?}");
    assert!(found[1].contains(&format!("revocation {id} covers")), "{found:?}");
    let hint = "Sign in again, and present the new token. To accept the token again, pass the number of the revocation \
                to auth.unrevoke().";
    assert_eq!(found[3], hint);
    let failed =
        "SELECT string_agg(\"check\", ', ') FROM auth.inspect($1) WHERE outcome <> 'passed'";
    let failed: Option<String> = admin.query_one(failed, &[&alice]).unwrap().get(0);
    assert_eq!(failed.as_deref(), Some("revocation"), "and nothing else");

    let reason = text(&mut client, "SELECT reason FROM auth.whoami()").unwrap();
    assert!(reason.starts_with("28J12, token has been revoked."), "{reason}");
    run(&mut client, "SELECT 1");
    assert_eq!(
        text(&mut admin, "SELECT string_agg(user_id, ', ') FROM auth.sessions").as_deref(),
        None,
        "auth.sessions"
    );
    assert_eq!(present(&mut client, &alice), REVOKED);
    let reason = text(&mut client, "SELECT reason FROM auth.whoami()").unwrap();
    assert!(reason.contains("28J12, token has been revoked"), "{reason}");
    unrevoke_all(&mut admin);
}
