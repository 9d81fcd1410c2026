//! `auth.whoami()`: one row, whatever the state of the session, and never an error.

use harness::{Preload, SUCCESS, Site, now, present, present_locally, run, wait_for};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::json;

/// The row without `expires_in`, with `-` for null.
fn who(client: &mut Client) -> String {
    let row = client
        .query_one("SELECT user_id, issuer, provider, role, scope, reason FROM auth.whoami()", &[])
        .unwrap();
    let fields = (0..6).map(|place| row.get::<_, Option<String>>(place).unwrap_or("-".to_owned()));
    fields.collect::<Vec<_>>().join(" ")
}

#[test]
fn an_identity_is_described() {
    let site = Site::start(Preload::Shared, &[]);
    run(&mut site.cluster.admin(), "GRANT SET ON PARAMETER pg_session_jwt.identity_scope TO app");
    let mut client = site.client();
    assert_eq!(present(&mut client, &site.token("alice")), SUCCESS);
    assert_eq!(who(&mut client), "alice - plain - session -", "for the session");
    run(&mut client, "BEGIN");
    assert_eq!(present_locally(&mut client, &site.counted(7)), SUCCESS);
    assert_eq!(who(&mut client), "7 counting counting - transaction -", "for the transaction");
    run(&mut client, "COMMIT");
    assert_eq!(who(&mut client), "alice - plain - session -", "after the transaction");

    assert_eq!(present(&mut client, &site.token_until("bob", now() + 600)), SUCCESS);
    let left: f64 = client
        .query_one("SELECT extract(epoch FROM expires_in)::float8 FROM auth.whoami()", &[])
        .unwrap()
        .get(0);
    assert!((590.0..=600.0).contains(&left), "expires_in is {left} s");

    let nameless = site.key.sign(&json!({"exp": now() + 600}));
    assert_eq!(present(&mut client, &nameless), SUCCESS, "a token without sub");
    let row = who(&mut client);
    assert!(row.starts_with("- - plain - session The identity has no user id"), "{row}");

    run(&mut client, "SET pg_session_jwt.identity_scope = 'transaction'");
    run(&mut client, "BEGIN");
    assert_eq!(present(&mut client, &site.token("carol")), SUCCESS);
    assert_eq!(who(&mut client), "carol - plain - transaction -", "with identity_scope");
    run(&mut client, "COMMIT");
}

#[test]
fn the_reason_for_no_identity_is_told() {
    let site = Site::start(Preload::Shared, &[]);
    run(&mut site.cluster.admin(), "GRANT SET ON PARAMETER pg_session_jwt.identity_scope TO app");
    let alice = site.token("alice");
    let mallory =
        Key::generate(Algorithm::ES256).sign(&json!({"sub": "alice", "exp": now() + 600}));
    let never = "No token has been presented on this connection.";
    let cleared = "The token was cleared";
    let ended = "The last token ended with its transaction or savepoint";
    let rejected = "The last token was rejected";
    let cases: [(&str, &str); 14] = [
        ("SELECT 1", never),
        ("SELECT auth.jwt_session_init('{a}'); SELECT auth.jwt_session_init(NULL)", cleared),
        // What a driver sends for a variable without a value, as the first token or after another one.
        ("BEGIN; SELECT auth.jwt_session_init(NULL, is_local => true)", cleared),
        (
            "DO $$ BEGIN PERFORM auth.jwt_session_init('{m}'); EXCEPTION WHEN OTHERS THEN NULL; END $$;
             SET pg_session_jwt.jwt = ''",
            cleared,
        ),
        ("SELECT auth.jwt_session_init('{a}'); RESET pg_session_jwt.jwt", cleared),
        ("SET pg_session_jwt.jwt = '{a}'; RESET ALL", cleared),
        ("BEGIN; SET LOCAL pg_session_jwt.jwt = '{a}'; COMMIT", ended),
        ("BEGIN; SELECT auth.jwt_session_init('{a}'); ROLLBACK", ended),
        ("BEGIN; SAVEPOINT s; SELECT auth.jwt_session_init('{a}'); ROLLBACK TO s; COMMIT", ended),
        (
            "SET pg_session_jwt.identity_scope = 'transaction'; SELECT auth.jwt_session_init('{a}'); \
             SELECT auth.user_id()",
            ended,
        ),
        ("SELECT auth.jwt_session_init('{m}')", rejected),
        ("SELECT auth.jwt_session_init('{a}'); SET pg_session_jwt.jwt = '{m}'", rejected),
        (
            "BEGIN; SELECT auth.jwt_session_init('{a}', true); SELECT auth.jwt_session_init('{m}')",
            rejected,
        ),
        (
            "DO $$ BEGIN PERFORM auth.jwt_session_init('{m}'); EXCEPTION WHEN OTHERS THEN NULL; END $$",
            rejected,
        ),
    ];
    for (sql, expected) in cases {
        let mut client = site.client();
        let _ = client.batch_execute(&sql.replace("{a}", &alice).replace("{m}", &mallory));
        run(&mut client, "ROLLBACK");
        let row = who(&mut client);
        assert!(row.starts_with(&format!("- - - - - {expected}")), "{sql}: {row}");
        if expected == rejected {
            assert!(row.ends_with(" ago: 28J03, token signature does not verify."), "{sql}: {row}");
        }
        assert!(!row.contains("alice"), "{sql}: no claim of the rejected token: {row}");
        run(&mut client, "DISCARD ALL");
        let row = who(&mut client);
        let after = if expected == never { never } else { cleared };
        assert!(row.starts_with(&format!("- - - - - {after}")), "{sql}; DISCARD ALL: {row}");
    }

    // A token that was accepted, and has expired since.
    let mut client = site.client();
    assert_eq!(present(&mut client, &site.token_until("alice", now() + 2)), SUCCESS);
    wait_for("the token to expire", || who(&mut client).starts_with("- - - - - "));
    let row = who(&mut client);
    let expected = "- - - - - 28J04, token has expired. Its exp is ";
    assert!(row.starts_with(expected) && row.ends_with("Present a fresh token."), "{row}");

    // A token of the startup packet that is rejected at its first use.
    let mut client = site.app().option("pg_session_jwt.jwt", &mallory).client();
    let row = who(&mut client);
    assert!(row.starts_with("- - - - - 28J03, "), "{row}");
}

#[test]
fn trusted_claims_are_described() {
    let site = Site::start(Preload::Shared, &[("pg_session_jwt.trust_request_claims", "on")]);
    let mut client = site.client();
    run(&mut client, r#"SET request.jwt.claims = '{"sub": "dora"}'"#);
    assert_eq!(who(&mut client), "dora - request.jwt.claims - setting -");
    run(&mut client, "SET request.jwt.claims = 'no JSON'");
    let row = who(&mut client);
    assert!(row.starts_with("- - - - - 28J01, "), "{row}");
}
