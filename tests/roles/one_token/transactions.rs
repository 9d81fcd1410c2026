//! What a transaction may do.

use harness::{
    Code, DIVISION_BY_ZERO, Preload, SUCCESS, Shared, Wire, now, postgres_version, present, run,
    sqlstate, text,
};
use postgres::Client;
use serde_json::json;

use super::fixture::*;

/// Clusters of whose tables these tests change nothing.
static FIXTURES: Shared<Fixture> = Shared::new(|_| Fixture::start());

/// The documents that the session sees.
fn bodies(client: &mut Client) -> Result<Vec<String>, postgres::Error> {
    let rows = client.query("SELECT body FROM docs ORDER BY 1", &[])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A transaction may have any token before it touches tables, and any of the same role afterwards.
#[test]
fn a_transaction_has_one_role_by_token() {
    let fixture = FIXTURES.beside_others(Preload::Shared);
    let (a, b, c, none) =
        (fixture.token("A"), fixture.token("B"), fixture.token("C"), fixture.token("none"));
    let mut client = fixture.cluster.as_role("app").client();
    // Neither other tokens, nor the catalogs, nor expressions bind the transaction.
    run(&mut client, "BEGIN");
    for token in [&a, &none, &b, &c, &a] {
        assert_eq!(present(&mut client, token), SUCCESS, "neither other tokens, after BEGIN");
        run(
            &mut client,
            "SELECT * FROM pg_class LIMIT 1; SELECT auth.user_id(), now(); SHOW work_mem",
        );
        run(
            &mut client,
            "WITH x AS (SELECT 1) SELECT * FROM x, (VALUES (1)) v, generate_series(1, 2) g",
        );
        run(&mut client, "SELECT * FROM information_schema.tables LIMIT 1");
        let _ = client.prepare("SELECT * FROM docs").unwrap();
    }
    // Nor does a statement that fails while it is planned.
    run(&mut client, "SAVEPOINT p");
    assert_eq!(
        sqlstate(client.batch_execute("SELECT FROM docs WHERE 1 / 0 = 1")),
        DIVISION_BY_ZERO,
        "after SAVEPOINT p"
    );
    run(&mut client, "ROLLBACK TO p");
    for token in [&b, &a] {
        assert_eq!(present(&mut client, token), SUCCESS, "after ROLLBACK TO p");
    }
    assert_eq!(bodies(&mut client).unwrap(), ["acme one", "acme two"], "after ROLLBACK TO p");
    // The same token, and none in a savepoint that is rolled back.
    assert_eq!(
        present(&mut client, &a),
        SUCCESS,
        "the same token, and none in a savepoint that is rolled back"
    );
    run(&mut client, "SAVEPOINT s; SELECT auth.jwt_session_init(NULL)");
    let error = client.batch_execute("SELECT * FROM docs").unwrap_err();
    let report = error.as_db_error().unwrap();
    assert_eq!(
        report.message(),
        "role has changed within the transaction",
        "after SELECT * FROM docs"
    );
    assert_eq!(
        report.detail(),
        Some(
            "The transaction has touched tables with the role \"org_admin\"; the token in force names no role."
        ),
        "after SELECT * FROM docs"
    );
    run(&mut client, "ROLLBACK TO s");
    assert_eq!(bodies(&mut client).unwrap(), ["acme one", "acme two"], "after ROLLBACK TO s");
    // A rejected token ends every identity.
    let error = client.execute("SELECT auth.jwt_session_init($1)", &[&b]).unwrap_err();
    let report = error.as_db_error().unwrap();
    assert_eq!(
        report.code().code(),
        Code::Claim.sqlstate(),
        "a rejected token ends every identity"
    );
    assert_eq!(
        report.message(),
        "role differs from that of the transaction",
        "a rejected token ends every identity"
    );
    assert_eq!(
        report.detail(),
        Some(
            "The transaction has touched tables with the role \"org_admin\"; the token names the role \"member\"."
        ),
        "a rejected token ends every identity"
    );
    run(&mut client, "ROLLBACK TO s");
    assert_eq!(sqlstate(bodies(&mut client)), Code::Forbidden.sqlstate(), "after ROLLBACK TO s");
    run(&mut client, "ROLLBACK TO s");
    // Functions that need no table go on.
    assert_eq!(
        text(&mut client, "SELECT auth.user_id()"),
        None,
        "functions that need no table go on"
    );
    run(&mut client, "ROLLBACK");
}

#[test]
fn tokens_of_one_role_take_turns_within_a_transaction() {
    let fixture = FIXTURES.beside_others(Preload::Shared);
    let (b, c) = (fixture.token("B"), fixture.token("C"));
    let mut client = fixture.cluster.as_role("app").client();
    run(&mut client, "BEGIN");
    for (token, seen) in [(&b, "globex own"), (&c, "acme two"), (&b, "globex own")] {
        assert_eq!(present(&mut client, token), SUCCESS, "after BEGIN");
        assert_eq!(bodies(&mut client).unwrap(), [seen], "after BEGIN");
    }
    run(&mut client, "COMMIT");
}

/// Whether the token is the session's or not, and those of a procedure, too.
#[test]
fn transactions_do_not_bind_each_other() {
    let fixture = FIXTURES.beside_others(Preload::Shared);
    let (a, b, c) = (fixture.token("A"), fixture.token("B"), fixture.token("C"));
    let mut client = fixture.cluster.as_role("app").client();
    for (token, seen) in [(&a, 2), (&b, 1), (&c, 1), (&a, 2)] {
        assert_eq!(present(&mut client, token), SUCCESS, "present(token)");
        assert_eq!(bodies(&mut client).unwrap().len(), seen, "bodies.len after token");
    }
    // A procedure's transactions are transactions.
    run(&mut client, "CALL commits()");
    assert_eq!(bodies(&mut client).unwrap(), ["globex own"], "after CALL commits()");
    // A function that presents a token, as middlewares call it.
    run(&mut client, "BEGIN; SELECT present('A'); SELECT * FROM docs; COMMIT");
    run(&mut client, "DO $$ BEGIN PERFORM present('B'); PERFORM FROM docs; END $$");
}

#[test]
fn statements_of_the_login_role_bind_the_transaction() {
    let fixture = FIXTURES.beside_others(Preload::Shared);
    let (a, none) = (fixture.token("A"), fixture.token("none"));
    let mut client = fixture.cluster.as_role("app").client();
    assert_eq!(present(&mut client, ""), SUCCESS, "present");
    run(&mut client, "BEGIN; SELECT * FROM plain");
    assert_eq!(
        present(&mut client, &a),
        Code::Claim.sqlstate(),
        "after BEGIN; SELECT * FROM plain"
    );
    run(&mut client, "ROLLBACK; BEGIN; CREATE TEMP TABLE mine ()");
    assert_eq!(
        present(&mut client, &a),
        Code::Claim.sqlstate(),
        "after ROLLBACK; BEGIN; CREATE TEMP TABLE mine ()"
    );
    run(&mut client, "ROLLBACK; BEGIN; SELECT * FROM plain");
    assert_eq!(present(&mut client, &none), SUCCESS, "after ROLLBACK; BEGIN; SELECT * FROM plain");
    run(&mut client, "ROLLBACK");
}

/// A token of the startup packet that was rejected counts from the next statement on, at the earliest.
#[test]
fn a_rejected_startup_token_waits_for_the_next_statement() {
    let fixture = Fixture::start();
    let mut admin = fixture.cluster.admin();
    run(
        &mut admin,
        "CREATE POLICY logins ON docs TO app, locked, strict USING (org = auth.claim('org')); GRANT SELECT ON docs TO app, locked, strict",
    );
    for login in fixture.logins() {
        for role in [Some("member"), None] {
            let mut claims = json!({"sub": "uma", "org": "globex", "nbf": now() + 2});
            if let Some(role) = role {
                claims["role"] = role.into();
            }
            let connection = login.clone().option("pg_session_jwt.jwt", &fixture.sign(claims));
            let mut wire = Wire::connect(&connection).unwrap();
            let ask = |wire: &mut Wire, sql: &str| match wire.ask(sql, &[]).unwrap() {
                Ok(rows) => rows.into_iter().flatten().flatten().collect::<Vec<_>>().join(", "),
                Err(fields) => fields.sqlstate().to_owned(),
            };
            if ask(&mut wire, "SHOW pg_session_jwt.identity_scope") == "transaction" {
                // There it ends before it begins.
                assert_eq!(ask(&mut wire, "SELECT body FROM docs"), "", "{role:?}");
                continue;
            }
            assert_eq!(
                ask(&mut wire, "SELECT auth.user_id()"),
                Code::NotYetValid.sqlstate(),
                "{role:?}"
            );
            assert_eq!(
                ask(&mut wire, "SELECT after_a_while()"),
                Code::NotYetValid.sqlstate(),
                "{role:?}"
            );
            // Then it counts, with its role.
            let expected = if role.is_some() { "globex own" } else { "globex own, globex secret" };
            assert_eq!(ask(&mut wire, "SELECT body FROM docs ORDER BY 1"), expected, "{role:?}");
            assert_eq!(ask(&mut wire, "SELECT auth.user_id()"), "uma", "{role:?}");
        }
    }
}

/// From 18 on, Postgres runs a deferred trigger as the role that queued it. Before, the trigger runs as the
/// role that the session has by then.
#[test]
fn deferred_triggers_have_no_role_without_its_claims() {
    let fixture = FIXTURES.beside_others(Preload::Shared);
    let (a, b) = (fixture.token("A"), fixture.token("B"));
    let changed = Code::Forbidden.sqlstate();
    let without_token = if postgres_version() < 18 { SUCCESS } else { changed };
    let reset = "INSERT INTO quiet VALUES (1); RESET pg_session_jwt.jwt";
    for login in fixture.logins() {
        for (attack, expected) in [
            ("INSERT INTO quiet VALUES (1); COMMIT".to_owned(), SUCCESS),
            (format!("{reset}; COMMIT"), without_token),
            (format!("{reset}; SET CONSTRAINTS ALL IMMEDIATE"), without_token),
            // A reader has found that there is no identity.
            (format!("{reset}; SELECT auth.claim('org'); COMMIT"), without_token),
            (
                "INSERT INTO quiet VALUES (1); SELECT auth.jwt_session_init(NULL); \
                 SELECT auth.claim('org'), auth.user_id(); COMMIT"
                    .to_owned(),
                without_token,
            ),
        ] {
            let mut wire = Wire::connect(&login).unwrap();
            let begin = format!("BEGIN; SELECT auth.jwt_session_init('{a}')");
            assert_eq!(attempt(&mut wire, &begin), SUCCESS, "{attack}");
            assert_eq!(attempt(&mut wire, &attack), expected, "{attack}");
            attempt(&mut wire, "ROLLBACK");
        }
        // The token of the startup packet comes back without being presented.
        let mut wire = Wire::connect(&login.clone().option("pg_session_jwt.jwt", &b)).unwrap();
        let begin = format!("BEGIN; SELECT auth.jwt_session_init('{a}')");
        assert_eq!(attempt(&mut wire, &begin), SUCCESS, "the startup packet");
        let outcome = attempt(&mut wire, &format!("{reset}; COMMIT"));
        let possible = [without_token, changed, Code::Claim.sqlstate()];
        assert!(possible.contains(&&*outcome), "the startup packet: {outcome}");
        attempt(&mut wire, "ROLLBACK");
    }
}
