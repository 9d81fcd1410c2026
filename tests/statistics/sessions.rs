//! `auth.sessions` through all that begins or ends an identity.

use harness::{
    Code, Preload, QUERY_CANCELED, SUCCESS, Site, backend_pid, now, present, run, send, sqlstate,
    text, token, token_of, user, wait_for,
};
use mint::{Algorithm, Key};
use serde_json::json;

use super::fixture::*;

/// The row follows the token GUC, also where an earlier value comes back.
#[test]
fn the_row_follows_the_token() {
    let site = Site::start(Preload::Shared, &[]);
    run(
        &mut site.cluster.admin(),
        "GRANT SET ON PARAMETER pg_session_jwt.identity_scope TO app;
         CREATE FUNCTION present(token text) RETURNS void LANGUAGE plpgsql
             SET pg_session_jwt.jwt = '' AS $$ BEGIN PERFORM auth.jwt_session_init(token, true); END $$",
    );
    let mut monitor = monitor(&site.cluster);
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|sub| site.token(sub));
    let forged = token(&Key::generate(Algorithm::ES256), "mallory");
    const ALICE: Option<&str> = Some("alice - -");
    const BOB: Option<&str> = Some("bob - -");
    const CAROL: Option<&str> = Some("carol - -");
    // Statements, each with the row after it; `!` marks one that fails.
    let cases: &[&[(&str, Option<&str>)]] = &[
        &[("SELECT 1", None), ("SELECT auth.user_id()", None)],
        &[("SET pg_session_jwt.jwt = '{a}'", ALICE), ("SELECT auth.jwt_session_init('{b}')", BOB)],
        &[
            ("SELECT auth.jwt_session_init('{a}')", ALICE),
            ("SELECT auth.jwt_session_init(NULL)", None),
        ],
        &[("SELECT auth.jwt_session_init('{a}')", ALICE), ("SET pg_session_jwt.jwt = ''", None)],
        &[("SELECT auth.jwt_session_init('{a}')", ALICE), ("RESET pg_session_jwt.jwt", None)],
        &[("SELECT auth.jwt_session_init('{a}')", ALICE), ("RESET ALL", None)],
        &[("SELECT auth.jwt_session_init('{a}')", ALICE), ("DISCARD ALL", None)],
        // A rejection ends the identity, also within a transaction that rolls back.
        &[
            ("SELECT auth.jwt_session_init('{a}')", ALICE),
            ("!SELECT auth.jwt_session_init('{m}')", None),
        ],
        &[
            ("SELECT auth.jwt_session_init('{a}')", ALICE),
            ("BEGIN", ALICE),
            ("SAVEPOINT s", ALICE),
            ("!SELECT auth.jwt_session_init('{m}')", None),
            ("ROLLBACK TO s", None),
            ("COMMIT", None),
        ],
        // Transactions.
        &[("BEGIN", None), ("SELECT auth.jwt_session_init('{a}', true)", ALICE), ("COMMIT", None)],
        &[
            ("SELECT auth.jwt_session_init('{a}')", ALICE),
            ("BEGIN", ALICE),
            ("SELECT auth.jwt_session_init('{b}', true)", BOB),
            ("COMMIT", ALICE),
        ],
        &[
            ("SELECT auth.jwt_session_init('{a}')", ALICE),
            ("BEGIN", ALICE),
            ("SELECT auth.jwt_session_init('{b}')", BOB),
            ("ROLLBACK", ALICE),
        ],
        &[("BEGIN", None), ("SELECT auth.jwt_session_init('{a}')", ALICE), ("ROLLBACK", None)],
        &[("BEGIN", None), ("SELECT auth.jwt_session_init('{a}')", ALICE), ("COMMIT", ALICE)],
        // Savepoints.
        &[
            ("BEGIN", None),
            ("SELECT auth.jwt_session_init('{a}')", ALICE),
            ("SAVEPOINT s", ALICE),
            ("SELECT auth.jwt_session_init('{b}')", BOB),
            ("SAVEPOINT t", BOB),
            ("SELECT auth.jwt_session_init('{c}', true)", CAROL),
            ("ROLLBACK TO t", BOB),
            ("SELECT auth.jwt_session_init(NULL)", None),
            ("ROLLBACK TO s", ALICE),
            ("!SELECT 1/0", ALICE),
            ("ROLLBACK", None),
        ],
        &[
            ("BEGIN", None),
            ("SELECT auth.jwt_session_init('{a}')", ALICE),
            ("SAVEPOINT s", ALICE),
            ("SELECT auth.jwt_session_init('{b}')", BOB),
            ("RELEASE s", BOB),
            ("COMMIT", BOB),
        ],
        // A function with a SET clause restores the value.
        &[("SELECT auth.jwt_session_init('{a}')", ALICE), ("SELECT present('{b}')", ALICE)],
        // The scope of identities.
        &[
            ("SET pg_session_jwt.identity_scope = 'transaction'", None),
            ("BEGIN", None),
            ("SELECT auth.jwt_session_init('{a}')", ALICE),
            ("SELECT auth.user_id()", ALICE),
            ("COMMIT", None),
        ],
        &[
            ("SELECT auth.jwt_session_init('{a}')", ALICE),
            ("SET pg_session_jwt.identity_scope = 'transaction'", None),
        ],
    ];
    for case in cases {
        let mut client = site.client();
        let pid = backend_pid(&mut client);
        let mut steps = String::new();
        for (sql, expected) in *case {
            let sql = sql.replace("{a}", &alice).replace("{b}", &bob).replace("{c}", &carol);
            let sql = sql.replace("{m}", &forged);
            steps.push_str(&format!("{}; ", sql.chars().take(60).collect::<String>()));
            let fails = sql.starts_with('!');
            let outcome = send(&mut client, sql.trim_start_matches('!'));
            assert_eq!(outcome.is_err(), fails, "{steps}: {:?}", outcome.err());
            assert_eq!(shown(&mut monitor, pid).as_deref(), *expected, "{steps}");
        }
        // The row agrees with the readers.
        let last = case.last().unwrap().1.map(|row| row.split(' ').next().unwrap().to_owned());
        assert_eq!(user(&mut client), last, "{steps}");
        assert_eq!(
            shown(&mut monitor, pid).as_deref(),
            case.last().unwrap().1,
            "{steps}: a reader"
        );
    }
}

/// The columns of a row, with the role by token and the end of the token.
#[test]
fn a_row_has_the_columns_of_the_reference() {
    let key = Key::generate(Algorithm::ES256);
    let providers = json!([{"name": "p", "jwks": key.public_jwk(), "role_claim": "role", "leeway": 0,
                            "allowed_roles": ["member"]}]);
    let site =
        Site::start(Preload::Shared, &[("pg_session_jwt.providers", &providers.to_string())]);
    run(&mut site.cluster.admin(), "CREATE ROLE member; GRANT member TO app");
    let mut monitor = monitor(&site.cluster);
    let mut client = site.client();
    let exp = now() + 600;
    let token = key.sign(&json!({
        "iss": "https://a", "sub": "ann", "exp": exp, "role": "member", "secret": "no other claim",
    }));
    let before = now();
    assert_eq!(present(&mut client, &token), SUCCESS, "the token");
    let row = monitor
        .query_one(
            "SELECT pid, database, login_role, user_id, issuer, role, extract(epoch FROM since)::bigint,
                    extract(epoch FROM expires)::bigint, s::text
             FROM auth.sessions s",
            &[],
        )
        .unwrap();
    let text = |place: usize| row.get::<_, Option<String>>(place).unwrap_or_default();
    let texts = [text(1), text(2), text(3), text(4), text(5)];
    assert_eq!(texts, ["postgres", "app", "ann", "https://a", "member"], "the texts");
    assert_eq!(row.get::<_, i32>(0), backend_pid(&mut client), "pid");
    assert!((before - 1..=now() + 1).contains(&row.get::<_, i64>(6)), "since");
    assert_eq!(row.get::<_, i64>(7), exp, "expires");
    let all = text(8);
    assert!(!all.contains("no other claim") && !all.contains("eyJ"), "{all}");
    // A token without sub has no user id.
    let nameless = key.sign(&json!({"iss": "i", "exp": exp, "role": "member"}));
    assert_eq!(present(&mut client, &nameless), SUCCESS, "no sub");
    let query = "SELECT concat_ws(' ', coalesce(user_id, '-'), issuer, role) FROM auth.sessions";
    assert_eq!(harness::text(&mut monitor, query).as_deref(), Some("- i member"), "no sub");
    run(&mut client, "SELECT auth.jwt_session_init(NULL)");
    assert_eq!(
        harness::text(&mut monitor, "SELECT count(*)::text FROM auth.sessions").as_deref(),
        Some("0"),
        "cleared"
    );
}

/// A row stays when the token expires, and shows when it did. `since` is the time of the presentation, also for a value
/// that comes back.
#[test]
fn times_are_those_of_the_presentation() {
    let site = Site::start(Preload::Shared, &[]);
    let mut monitor = monitor(&site.cluster);
    let mut client = site.client();
    let pid = backend_pid(&mut client);
    assert_eq!(present(&mut client, &site.token_until("alice", now() + 2)), SUCCESS, "alice");
    let expired = "SELECT (expires < clock_timestamp())::text FROM auth.sessions";
    wait_for("the expiry", || text(&mut monitor, expired).as_deref() == Some("true"));
    let read = client.query("SELECT auth.user_id()", &[]);
    assert_eq!(sqlstate(read), Code::Expired.sqlstate(), "a reader");
    assert_eq!(shown(&mut monitor, pid).as_deref(), Some("alice - -"), "after the expiry");

    let since = "SELECT since::text FROM auth.sessions";
    assert_eq!(present(&mut client, &site.token("bob")), SUCCESS, "bob");
    let of_bob = text(&mut monitor, since);
    run(&mut client, "BEGIN");
    assert_eq!(present(&mut client, &site.token("carol")), SUCCESS, "carol");
    assert_ne!(text(&mut monitor, since), of_bob, "another time");
    run(&mut client, "ROLLBACK");
    assert_eq!(shown(&mut monitor, pid).as_deref(), Some("bob - -"), "bob comes back");
    assert_eq!(text(&mut monitor, since), of_bob, "with his time");
}

/// A token of the startup packet is shown once it is accepted; the reset brings it back.
#[test]
fn tokens_of_the_startup_packet_are_shown_at_their_first_use() {
    let site = Site::start(Preload::Shared, &[]);
    let mut monitor = monitor(&site.cluster);
    let mut client = site.app().option("pg_session_jwt.jwt", &site.token("alice")).client();
    let pid = backend_pid(&mut client);
    assert_eq!(shown(&mut monitor, pid).as_deref(), Some("alice - -"), "after the first statement");
    assert_eq!(present(&mut client, &site.token("bob")), SUCCESS, "bob");
    assert_eq!(shown(&mut monitor, pid).as_deref(), Some("bob - -"), "bob");
    run(&mut client, "RESET pg_session_jwt.jwt");
    assert_eq!(shown(&mut monitor, pid).as_deref(), Some("alice - -"), "after the reset");
    let forged = token(&Key::generate(Algorithm::ES256), "mallory");
    let mut client = site.app().option("pg_session_jwt.jwt", &forged).client();
    let pid = backend_pid(&mut client);
    assert_eq!(shown(&mut monitor, pid), None, "a rejected token");
    assert_eq!(
        sqlstate(client.query("SELECT auth.user_id()", &[])),
        Code::Signature.sqlstate(),
        "a reader"
    );
    assert_eq!(shown(&mut monitor, pid), None, "a rejected token after a reader");
    // The signature of this one verifies.
    let early = harness::sign(&site.key, json!({"sub": "eve", "nbf": now() + 300}));
    let mut client = site.app().option("pg_session_jwt.jwt", &early).client();
    let pid = backend_pid(&mut client);
    let outcome = sqlstate(client.query("SELECT auth.user_id()", &[]));
    assert_eq!(outcome, Code::NotYetValid.sqlstate(), "an early token");
    assert_eq!(shown(&mut monitor, pid), None, "an early token");
    assert_eq!(present(&mut client, &site.token("bob")), SUCCESS, "bob");
    run(&mut client, "RESET pg_session_jwt.jwt");
    assert_eq!(shown(&mut monitor, pid), None, "an early token that comes back");
}

/// Where the provider goes, the next reader ends the row; where it comes back, the next one shows it again.
#[test]
fn the_row_follows_the_provider() {
    let site = Site::start(Preload::Shared, &[]);
    let mut monitor = monitor(&site.cluster);
    let mut admin = site.cluster.admin();
    let key = Key::generate(Algorithm::ES256);
    let add = format!(
        "SELECT auth.add_provider('own', issuer => 'own', jwks => '{}')",
        json!({"keys": [key.public_jwk()]})
    );
    run(&mut admin, &add);
    let mut client = site.client();
    let pid = backend_pid(&mut client);
    assert_eq!(present(&mut client, &token_of(&key, "own", "ann")), SUCCESS, "ann");
    assert_eq!(shown(&mut monitor, pid).as_deref(), Some("ann own -"), "with the provider");
    run(&mut admin, "SELECT auth.remove_provider('own')");
    assert_ne!(
        sqlstate(client.query("SELECT auth.user_id()", &[])),
        SUCCESS,
        "without the provider"
    );
    assert_eq!(shown(&mut monitor, pid), None, "without the provider");
    run(&mut admin, &add);
    assert_eq!(user(&mut client).as_deref(), Some("ann"), "with the provider again");
    assert_eq!(shown(&mut monitor, pid).as_deref(), Some("ann own -"), "with the provider again");
}

/// Trusted claims are shown once a reader has put them in force, until the setting changes.
#[test]
fn trusted_claims_are_shown_when_they_are_read() {
    let site = Site::start(Preload::Shared, &[("pg_session_jwt.trust_request_claims", "on")]);
    let mut monitor = monitor(&site.cluster);
    let mut client = site.client();
    let pid = backend_pid(&mut client);
    const ANN: Option<&str> = Some("ann i -");
    let read = "SELECT auth.user_id()";
    for (sql, expected) in [
        ("BEGIN", None),
        (r#"SET LOCAL request.jwt.claims = '{"sub":"ann","iss":"i"}'"#, None),
        (read, ANN),
        ("SAVEPOINT s", ANN),
        (r#"SET LOCAL request.jwt.claims = '{"sub":"ben","iss":"i"}'"#, None),
        (read, Some("ben i -")),
        ("ROLLBACK TO s", None),
        (read, ANN),
        ("COMMIT", None),
        (read, None),
        (r#"SET request.jwt.claims = '{"sub":"ann","iss":"i"}'"#, None),
        (read, ANN),
        ("BEGIN", ANN),
        // A token counts before the claims.
        ("SELECT auth.jwt_session_init('{a}')", Some("alice - -")),
        ("ROLLBACK", None),
        (read, ANN),
        ("RESET ALL", None),
        (read, None),
        (r#"SET request.jwt.claims = '{"sub":"ann","iss":"i"}'"#, None),
        (read, ANN),
        ("DISCARD ALL", None),
    ] {
        run(&mut client, &sql.replace("{a}", &site.token("alice")));
        assert_eq!(shown(&mut monitor, pid).as_deref(), expected, "{sql}");
    }
    // Claims without exp have no end.
    run(&mut client, r#"SET request.jwt.claims = '{"sub":"ann","iss":"i"}'"#);
    run(&mut client, read);
    let end = "SELECT coalesce(expires::text, '-') FROM auth.sessions";
    assert_eq!(text(&mut monitor, end).as_deref(), Some("-"), "no exp");
    // Where the trust ends, the row does.
    run(&mut client, r#"SET request.jwt.claims = '{"sub":"ann","iss":"i"}'"#);
    run(&mut client, read);
    assert_eq!(shown(&mut monitor, pid).as_deref(), ANN, "trusted");
    site.cluster.append_configuration(&[("pg_session_jwt.trust_request_claims", "off")]);
    site.cluster.reload();
    run(&mut client, "SELECT 1");
    assert_eq!(shown(&mut monitor, pid), None, "not trusted");
}

/// The row ends with the session, however that ends, and also within a transaction that rolls back to another
/// identity.
#[test]
fn the_row_ends_with_the_session() {
    let site = Site::start(Preload::Shared, &[]);
    let mut monitor = monitor(&site.cluster);
    let mut admin = site.cluster.admin();
    for (name, sql) in [
        ("a session", "SELECT auth.jwt_session_init('{a}')"),
        ("a transaction", "BEGIN; SELECT auth.jwt_session_init('{a}')"),
        (
            "an identity before the transaction",
            "SELECT auth.jwt_session_init('{a}'); BEGIN; SELECT auth.jwt_session_init('{b}')",
        ),
    ] {
        for is_terminated in [false, true] {
            let mut client = site.client();
            let pid = backend_pid(&mut client);
            // One statement a message, so that the first one commits.
            for sql in sql.split("; ") {
                run(
                    &mut client,
                    &sql.replace("{a}", &site.token("alice")).replace("{b}", &site.token("bob")),
                );
            }
            assert!(shown(&mut monitor, pid).is_some(), "{name}");
            if is_terminated {
                run(&mut admin, &format!("SELECT pg_terminate_backend({pid})"));
            }
            drop(client);
            let alive = format!("SELECT count(*)::text FROM pg_stat_activity WHERE pid = {pid}");
            wait_for("the end", || text(&mut admin, &alive).as_deref() == Some("0"));
            assert_eq!(shown(&mut monitor, pid), None, "{name}, terminated: {is_terminated}");
        }
    }
}

/// Texts are cut at 255 bytes, between two characters.
#[test]
fn long_texts_are_cut_between_characters() {
    let site = Site::start(Preload::Shared, &[]);
    let mut monitor = monitor(&site.cluster);
    let mut client = site.client();
    let pid = backend_pid(&mut client);
    for (name, sub, expected) in [
        ("254 bytes", "x".repeat(254), "x".repeat(254)),
        ("255 bytes", "x".repeat(255), "x".repeat(255)),
        ("256 bytes", "x".repeat(256), "x".repeat(255)),
        ("two bytes a character", "é".repeat(200), "é".repeat(127)),
        ("four bytes a character", "😀".repeat(64), "😀".repeat(63)),
        ("nothing", String::new(), "-".to_owned()),
        ("one byte", "y".to_owned(), "y".to_owned()),
    ] {
        assert_eq!(
            present(&mut client, &token_of(&site.key, &format!("i{sub}"), &sub)),
            SUCCESS,
            "{name}"
        );
        let row = shown(&mut monitor, pid).unwrap();
        assert_eq!(row.split(' ').next(), Some(&*expected), "{name}");
        let issuer = row.split(' ').nth(1).unwrap();
        assert!(issuer.len() <= 255 && format!("i{sub}").starts_with(issuer), "{name}: {issuer}");
    }
}

/// A prepared transaction takes no row along.
#[test]
fn prepared_transactions_take_no_row_along() {
    let site = Site::start(Preload::Shared, &[("max_prepared_transactions", "5")]);
    run(&mut site.cluster.admin(), "CREATE TABLE t (); GRANT INSERT ON t TO app");
    let mut monitor = monitor(&site.cluster);
    let mut client = site.client();
    let pid = backend_pid(&mut client);
    for (presentation, after) in [
        ("SELECT auth.jwt_session_init('{a}', true)", None),
        ("SELECT auth.jwt_session_init('{a}')", Some("alice - -")),
    ] {
        for sql in
            ["BEGIN", presentation, "INSERT INTO t DEFAULT VALUES", "PREPARE TRANSACTION 'p'"]
        {
            run(&mut client, &sql.replace("{a}", &site.token("alice")));
        }
        assert_eq!(shown(&mut monitor, pid).as_deref(), after, "{presentation}");
        run(&mut client, "COMMIT PREPARED 'p'");
        assert_eq!(shown(&mut monitor, pid).as_deref(), after, "{presentation}: committed");
    }
}

/// Postgres restores what a cancelled `DISCARD ALL` had reset, but not the identity.
#[test]
fn a_cancelled_reset_ends_the_row() {
    let site = Site::start(Preload::Shared, &[]);
    let mut monitor = monitor(&site.cluster);
    let mut admin = site.cluster.admin();
    let mut client = site.client();
    let pid = backend_pid(&mut client);
    run(&mut client, "CREATE TEMPORARY TABLE t ()");
    let schema = text(&mut client, "SELECT pg_my_temp_schema()::regnamespace::text").unwrap();
    assert_eq!(present(&mut client, &site.token("alice")), SUCCESS, "alice");
    assert_eq!(shown(&mut monitor, pid).as_deref(), Some("alice - -"), "before the reset");
    // The reset drops temporary tables after it has reset the settings.
    run(&mut admin, &format!("BEGIN; LOCK TABLE {schema}.t"));
    let outcome = std::thread::scope(|scope| {
        let reset = scope.spawn(|| sqlstate(client.batch_execute("DISCARD ALL")));
        let waits =
            format!("SELECT count(*)::text FROM pg_locks WHERE pid = {pid} AND NOT granted");
        wait_for("the lock", || text(&mut monitor, &waits).as_deref() == Some("1"));
        run(&mut admin, &format!("SELECT pg_cancel_backend({pid})"));
        reset.join().unwrap()
    });
    assert_eq!(outcome, QUERY_CANCELED, "the reset");
    assert_eq!(shown(&mut monitor, pid), None, "after the reset");
    assert_eq!(user(&mut client), None, "a reader after the reset");
}
