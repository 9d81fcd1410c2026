//! Transactions, savepoints and pipelines.

use harness::{Code, DIVISION_BY_ZERO, NO_ACTIVE_SQL_TRANSACTION, Preload, SUCCESS, Wire, values};

use super::fixture::*;

#[test]
fn local_identities_end_with_their_transaction() {
    let site = SITES.alone(Preload::Shared);
    let mut client = connect(&site);
    let (alice, bob) = (site.token("alice"), site.token("bob"));
    let ends = ["COMMIT", "ROLLBACK", "PREPARE TRANSACTION 'p'", "COMMIT AND CHAIN; COMMIT"];
    for outer in ["", &alice] {
        let before = if outer.is_empty() { NOBODY } else { "alice" };
        for end in ends {
            assert_eq!(client.present(outer, false), SUCCESS, "{end:?}, {outer:?}");
            for carrier in [
                format!("SELECT auth.jwt_session_init('{bob}', true)"),
                format!("SET LOCAL pg_session_jwt.jwt = '{bob}'"),
                format!("SELECT set_config('pg_session_jwt.jwt', '{bob}', true)"),
            ] {
                client.run("BEGIN");
                assert_eq!(client.run(&carrier), SUCCESS, "{end:?}, {carrier:?}: after BEGIN");
                assert_eq!(who(&mut client), "bob", "{end:?}, {carrier:?}: after BEGIN");
                assert_eq!(notes(&mut client), ["bob", "bob"], "{end:?}, {carrier:?}: after BEGIN");
                assert_eq!(client.run(end), SUCCESS, "{end:?}, {carrier:?}: after BEGIN");
                assert_eq!(who(&mut client), before, "{carrier}; {end}");
                if end.starts_with("PREPARE") {
                    client.run("COMMIT PREPARED 'p'");
                    assert_eq!(who(&mut client), before, "{end:?}, {carrier:?}");
                }
                // Without a transaction block, the statement is the transaction.
                assert_eq!(client.run(&carrier), SUCCESS, "{end:?}, {carrier:?}");
                assert_eq!(who(&mut client), before, "{carrier}");
            }
        }
    }
}

/// For settings, preparing a transaction for two-phase commit is committing it.
#[test]
fn session_identities_follow_the_transaction_that_presents_them() {
    let site = SITES.alone(Preload::Shared);
    let mut client = connect(&site);
    let bob = site.token("bob");
    for (end, after) in [
        ("COMMIT", "bob"),
        ("ROLLBACK", NOBODY),
        ("SELECT 1/0; COMMIT", NOBODY),
        ("PREPARE TRANSACTION 'p'; ROLLBACK PREPARED 'p'", "bob"),
    ] {
        assert_eq!(client.present("", false), SUCCESS, "{end:?}, {after:?}");
        client.run("BEGIN");
        assert_eq!(client.present(&bob, false), SUCCESS, "{end:?}, {after:?}: after BEGIN");
        for statement in end.split("; ") {
            client.run(statement);
        }
        assert_eq!(who(&mut client), after, "{end}");
    }
}

/// Every step, with who the session is after it.
#[test]
fn savepoints() {
    let site = SITES.alone(Preload::Shared);
    let (alice, bob) = (site.token("alice"), site.token("bob"));
    let local = |token: &str| format!("SELECT auth.jwt_session_init('{token}', true)");
    let session = |token: &str| format!("SELECT auth.jwt_session_init('{token}')");
    let steps: &[&[(&str, &str)]] = &[
        &[
            ("BEGIN", NOBODY),
            ("SAVEPOINT a", NOBODY),
            (&local(&alice), "alice"),
            ("ROLLBACK TO a", NOBODY),
            (&local(&alice), "alice"),
            ("RELEASE a", "alice"),
            ("COMMIT", NOBODY),
        ],
        &[
            ("BEGIN", NOBODY),
            (&session(&alice), "alice"),
            ("SAVEPOINT a", "alice"),
            (&local(&bob), "bob"),
            ("RELEASE a", "bob"),
            ("COMMIT", "alice"),
        ],
        &[
            (&session(&alice), "alice"),
            ("BEGIN", "alice"),
            (&local(&bob), "bob"),
            ("SAVEPOINT a", "bob"),
            (&session(&alice), "alice"),
            (&local(""), NOBODY),
            ("SAVEPOINT b", NOBODY),
            (&local(&bob), "bob"),
            ("ROLLBACK TO b", NOBODY),
            ("RELEASE a", NOBODY),
            ("COMMIT", "alice"),
        ],
        &[
            (&session(&alice), "alice"),
            ("BEGIN", "alice"),
            (&local(&bob), "bob"),
            ("SAVEPOINT a", "bob"),
            ("RESET pg_session_jwt.jwt", NOBODY),
            ("ROLLBACK TO a", "bob"),
            ("ROLLBACK", "alice"),
        ],
    ];
    for steps in steps {
        let mut client = connect(&site);
        for (statement, expected) in *steps {
            assert_eq!(client.run(statement), SUCCESS, "{statement}");
            assert_eq!(who(&mut client), *expected, "{statement}");
        }
    }
}

/// Postgres brings the outer value back, and that it was verified is remembered with the value:
/// not even a cache of no size makes it verified twice, nor is its `jti` judged again.
#[test]
fn an_outer_identity_comes_back_unverified() {
    let no_caches =
        [("pg_session_jwt.token_cache_size", "0"), ("pg_session_jwt.shared_cache_size", "0")];
    let site = start(Preload::Shared, &no_caches);
    let mut client = connect(&site);
    client.run(
        "SET client_min_messages = debug1;
         CREATE FUNCTION pg_temp.as_nobody() RETURNS text LANGUAGE sql
             SET pg_session_jwt.jwt = '' AS 'SELECT who()'",
    );
    let verified = |client: &mut Wire| client.count_notices("token signature verified");
    verified(&mut client);
    assert_eq!(
        client.present(&site.counted(1), false),
        SUCCESS,
        "client.present(site.counted(1), false)"
    );
    assert_eq!(verified(&mut client), 1, "verified after site.counted(1)");
    client.run("BEGIN");
    assert_eq!(client.present(&site.counted(2), true), SUCCESS, "after BEGIN");
    assert_eq!(who(&mut client), "2", "after BEGIN");
    client.run("SAVEPOINT a");
    // More than are remembered at a time, so that what is forgotten must be what is gone.
    for jti in 3..100 {
        assert_eq!(client.present(&site.counted(jti), jti % 2 == 0), SUCCESS, "{jti:?}");
    }
    assert_eq!(who(&mut client), "99", "more than are remembered at a time");
    assert_eq!(verified(&mut client), 98, "more than are remembered at a time");
    client.run("ROLLBACK TO a");
    assert_eq!(who(&mut client), "2", "more than are remembered at a time, after ROLLBACK TO a");
    let cleared = client.ask("SELECT pg_temp.as_nobody() || ' ' || who()", &[]).unwrap();
    assert_eq!(values(&cleared), ["nobody 2"], "more than are remembered at a time");
    client.run("COMMIT");
    assert_eq!(who(&mut client), "1", "more than are remembered at a time, after COMMIT");
    client.run("BEGIN");
    assert_eq!(client.present(&site.counted(100), false), SUCCESS, "after BEGIN");
    client.run("ROLLBACK");
    assert_eq!(who(&mut client), "1", "more than are remembered at a time, after ROLLBACK");
    assert_eq!(verified(&mut client), 1, "only the new one");
}

#[test]
fn session_identities_last() {
    let site = SITES.alone(Preload::Shared);
    let alice = site.token("alice");
    for end in ["RESET pg_session_jwt.jwt", "RESET ALL", "DISCARD ALL"] {
        let mut client = connect(&site);
        assert_eq!(client.present(&alice, false), SUCCESS, "{end:?}");
        for statement in [
            "BEGIN; COMMIT",
            "BEGIN; ROLLBACK",
            "SELECT 1/0",
            "SET ROLE app",
            "RESET ROLE",
            "DISCARD PLANS",
            "DISCARD TEMP",
            "BEGIN; PREPARE TRANSACTION 'p'",
            "ROLLBACK PREPARED 'p'",
        ] {
            client.run(statement);
            assert_eq!(who(&mut client), "alice", "{statement}");
            assert_eq!(notes(&mut client), ["alice"], "{statement:?}, {end:?}");
        }
        assert_eq!(client.run(end), SUCCESS, "{end:?}");
        assert_eq!(who(&mut client), NOBODY, "{end}");
        assert!(notes(&mut client).is_empty(), "{end:?}");
        // The connection's end is the identity's.
        assert_eq!(client.present(&alice, false), SUCCESS, "{end:?}");
        drop(client);
        assert_eq!(who(&mut connect(&site)), NOBODY, "{end:?}");
    }
}

const LOCAL: &str = "SELECT auth.jwt_session_init($1, true)";
const OWNERS: &str = "SELECT owner FROM notes";

/// What is sent before one `Sync` is one transaction.
#[test]
fn a_pipeline_is_a_transaction() {
    // A row is written.
    let site = start(Preload::Shared, &[]);
    let mut client = connect(&site);
    let (alice, bob) = (site.token("alice"), site.token("bob"));

    client.statement(LOCAL, &[&alice]);
    client.statement(OWNERS, &[]);
    client.statement("INSERT INTO notes DEFAULT VALUES RETURNING owner", &[]);
    client.statement(LOCAL, &[&bob]);
    client.statement(OWNERS, &[]);
    let answers = client.sync().unwrap();
    let answers: Vec<_> = answers.iter().map(values).collect();
    assert_eq!(answers[1..3], [["alice"], ["alice"]], "answers[1..3]");
    assert_eq!(answers[4], ["bob", "bob"], "answers[4]");
    assert_eq!(who(&mut client), NOBODY, "the user");
}

/// The first `SET LOCAL` of a pipeline warns that it is in no transaction block, and counts nevertheless.
#[test]
fn set_local_counts_in_a_pipeline() {
    let site = SITES.alone(Preload::Shared);
    let mut client = connect(&site);
    let alice = site.token("alice");
    client.statement(&format!("SET LOCAL pg_session_jwt.jwt = '{alice}'"), &[]);
    client.statement("SELECT who()", &[]);
    assert_eq!(
        values(&client.sync().unwrap().remove(1)),
        ["alice"],
        "values(client.sync.remove(1))"
    );
    assert_eq!(
        client.notices()[0].sqlstate(),
        NO_ACTIVE_SQL_TRANSACTION,
        "client.notices[0].sqlstate"
    );
    assert_eq!(who(&mut client), NOBODY, "the user");
}

#[test]
fn a_block_ends_within_a_pipeline() {
    let site = SITES.alone(Preload::Shared);
    let mut client = connect(&site);
    let alice = site.token("alice");
    for (statement, parameters) in [
        ("BEGIN", vec![]),
        (LOCAL, vec![alice.as_str()]),
        ("SELECT who()", vec![]),
        ("COMMIT", vec![]),
        ("SELECT who()", vec![]),
    ] {
        client.statement(statement, &parameters);
    }
    let answers = client.sync().unwrap();
    let answers: Vec<_> = answers.iter().map(values).collect();
    assert_eq!(answers[2], ["alice"], "answers[2]");
    assert_eq!(answers[4], [NOBODY], "answers[4]");
}

/// The rest of the pipeline is skipped, and every earlier identity is gone.
#[test]
fn a_pipeline_that_fails_leaves_nobody() {
    let site = SITES.alone(Preload::Shared);
    let mut client = connect(&site);
    let (alice, bob) = (site.token("alice"), site.token("bob"));
    for earlier in ["SELECT auth.jwt_session_init($1)", LOCAL] {
        assert_eq!(client.present(&bob, false), SUCCESS, "{earlier:?}");
        client.statement(earlier, &[&alice]);
        client.statement(LOCAL, &[&forged()]);
        client.statement(OWNERS, &[]);
        let answers = client.sync().unwrap();
        let answers: Vec<_> = answers.iter().map(values).collect();
        assert_eq!(answers.len(), 2, "{earlier:?}");
        assert_eq!(answers[1], [Code::Signature.sqlstate()], "{earlier:?}");
        assert_eq!(who(&mut client), NOBODY, "{earlier}");
    }
}

/// The statements in one message of the simple protocol are one transaction.
#[test]
fn a_message_is_a_transaction() {
    let site = SITES.alone(Preload::Shared);
    let mut client = connect(&site);
    let alice = site.token("alice");
    let message = format!(
        "SELECT auth.jwt_session_init('{alice}', true); SELECT who(); COMMIT; SELECT who()"
    );
    let answers = client.query(&message).unwrap();
    let answers: Vec<_> = answers.iter().map(values).collect();
    assert_eq!([&answers[1], &answers[3]], [&["alice"], &[NOBODY]], "[answers[1], answers[3]]");
    let message = format!("SELECT auth.jwt_session_init('{alice}', true); SELECT 1/0");
    assert_eq!(client.run(&message), DIVISION_BY_ZERO, "client.run(message)");
    assert_eq!(who(&mut client), NOBODY, "the user");
}
