//! `request.jwt.claims`, where they are believed.

use harness::{Code, Preload, SUCCESS, Wire, parallel_query_setting, test_each_preload};

use super::fixture::*;

const TRUST: &str = "pg_session_jwt.trust_request_claims";
const SCOPE: &str = "pg_session_jwt.identity_scope";

/// Settings with which a plan is parallel wherever it can be.
fn workers() -> [(&'static str, &'static str); 4] {
    [
        (parallel_query_setting(), "on"),
        ("parallel_setup_cost", "0"),
        ("parallel_tuple_cost", "0"),
        ("min_parallel_table_scan_size", "0"),
    ]
}

const CLAIMS: &str = "SET request.jwt.claims = '{\"sub\": \"alice\"}'";
const LOCAL_CLAIMS: &str = "SET LOCAL request.jwt.claims = '{\"sub\": \"bob\"}'";

/// A value for the session, and one for the transaction.
const ALICE: &str = "SELECT set_config('request.jwt.claims', '{\"sub\": \"alice\"}', false)";
const BOB: &str = "SELECT set_config('request.jwt.claims', '{\"sub\": \"bob\"}', true)";

test_each_preload! {
    believed_claims_end_with_their_transaction,
}

/// A refused token takes them away, from parallel workers too, and all that is beneath them.
#[test]
fn a_refused_token_takes_believed_claims_away() {
    let site = start(Preload::Shared, &[&workers()[..], &[(TRUST, "on")]].concat());
    let mut client = connect(&site);
    client.run(CLAIMS);
    assert_eq!(notes(&mut client), ["alice"], "the notes that are seen");
    client.run("BEGIN");
    client.run(LOCAL_CLAIMS);
    assert_eq!(notes(&mut client), ["bob", "bob"], "after BEGIN");
    client.run("SAVEPOINT a");
    assert_eq!(client.present(&forged(), true), Code::Signature.sqlstate(), "after SAVEPOINT a");
    for step in ["ROLLBACK TO a", "COMMIT", "RESET request.jwt.claims"] {
        client.run(step);
        assert_eq!(who(&mut client), NOBODY, "{step}");
        assert!(notes(&mut client).is_empty(), "{step}");
    }
    client.run(CLAIMS);
    assert_eq!(notes(&mut client), ["alice"], "after SAVEPOINT a");
}

fn believed_claims_end_with_their_transaction(preload: Preload) {
    let site = start(preload, &[&workers()[..], &[(TRUST, "on"), (SCOPE, "transaction")]].concat());
    let mut client = connect(&site);
    client.run(CLAIMS);
    assert!(notes(&mut client).is_empty(), "notes.is_empty");
    client.run("BEGIN");
    client.run(CLAIMS);
    assert_eq!(notes(&mut client), ["alice"], "after BEGIN");
    client.run(LOCAL_CLAIMS);
    assert_eq!(notes(&mut client), ["bob", "bob"], "after BEGIN");
    client.run("COMMIT");
    assert!(notes(&mut client).is_empty(), "after COMMIT");
    assert_eq!(who(&mut client), NOBODY, "after COMMIT");
    let mut client = connect(&site);
    client.run("BEGIN");
    client.run(LOCAL_CLAIMS);
    assert_eq!(notes(&mut client), ["bob", "bob"], "after BEGIN");
    client.run("COMMIT");
    assert!(notes(&mut client).is_empty(), "after COMMIT");
}

/// There are names of settings that Postgres sorts before its own, and others after them.
#[test]
fn claims_are_found_among_many_settings() {
    let site = start(Preload::Shared, &[(TRUST, "on"), (SCOPE, "transaction")]);
    let mut client = connect(&site);
    let names = "DO $$ BEGIN FOR n IN 1..800 LOOP PERFORM set_config('é.x' || n, '1', false); \
                 END LOOP; END $$";
    assert_eq!(client.run(names), SUCCESS, "client.run(names)");
    assert_eq!(client.run(ALICE), SUCCESS, "client.run(ALICE)");
    assert_eq!(who(&mut client), NOBODY, "the user");
    client.run("BEGIN");
    client.run(ALICE);
    client.run("SAVEPOINT a");
    assert_eq!(who(&mut client), "alice", "after SAVEPOINT a");
    assert_eq!(client.present(&forged(), true), Code::Signature.sqlstate(), "after SAVEPOINT a");
    client.run("ROLLBACK TO a");
    assert_eq!(who(&mut client), NOBODY, "after ROLLBACK TO a");
    client.run("COMMIT");
}

/// The settings are others for the transaction in which the claims are set.
#[test]
fn claims_set_under_other_settings_end_with_their_transaction() {
    let site = start(Preload::Shared, &[(TRUST, "on"), (SCOPE, "transaction")]);
    let mut admin = Wire::connect(&site.cluster.as_role("postgres")).unwrap();
    for setting in [format!("{TRUST} = off"), format!("{SCOPE} = session")] {
        admin.run(&format!("BEGIN; SET LOCAL {setting}"));
        assert_eq!(admin.run(ALICE), SUCCESS, "{setting:?}");
        admin.run("COMMIT");
        assert_eq!(who(&mut admin), NOBODY, "{setting}");
    }
}

#[test]
fn claims_from_before_they_are_believed_are_not() {
    let site = start(Preload::Shared, &[(SCOPE, "transaction")]);
    let mut client = connect(&site);
    assert_eq!(client.run(ALICE), SUCCESS, "client.run(ALICE)");
    site.cluster.append_configuration(&[(TRUST, "on")]);
    site.cluster.reload();
    client.run("BEGIN");
    assert_eq!(who(&mut client), NOBODY, "after BEGIN");
    assert_eq!(client.run(BOB), SUCCESS, "after BEGIN");
    assert_eq!(who(&mut client), "bob", "after BEGIN");
    client.run("ROLLBACK");
}

#[test]
fn claims_beneath_a_late_library_do_not_come_back() {
    let site = start(Preload::Neither, &[(TRUST, "on"), (SCOPE, "transaction")]);
    let mut client = connect(&site);
    for statement in [ALICE, "BEGIN", "SAVEPOINT a", BOB] {
        assert_eq!(client.run(statement), SUCCESS, "{statement:?}");
    }
    assert_eq!(who(&mut client), "bob", "the user");
    client.run("ROLLBACK TO a");
    assert_eq!(who(&mut client), NOBODY, "after ROLLBACK TO a");
}

#[test]
fn claims_beneath_a_changed_scope_do_not_come_back() {
    let site = start(Preload::Shared, &[(TRUST, "on")]);
    let mut client = connect(&site);
    for statement in [ALICE, "BEGIN", "SAVEPOINT a", BOB] {
        assert_eq!(client.run(statement), SUCCESS, "{statement:?}");
    }
    site.cluster.append_configuration(&[(SCOPE, "transaction")]);
    site.cluster.reload();
    assert_eq!(who(&mut client), "bob", "the user");
    client.run("ROLLBACK TO a");
    assert_eq!(who(&mut client), NOBODY, "after ROLLBACK TO a");
}
