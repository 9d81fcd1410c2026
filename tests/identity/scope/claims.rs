//! `request.jwt.claims`, where they are believed.

use harness::{Preload, Wire};

use super::fixture::*;

/// Where `request.jwt.claims` are believed, they are identities too.
#[test]
fn believed_claims_end_like_tokens() {
    let trust = ("pg_session_jwt.trust_request_claims", "on");
    let workers = [
        ("force_parallel_mode", "on"),
        ("parallel_setup_cost", "0"),
        ("parallel_tuple_cost", "0"),
        ("min_parallel_table_scan_size", "0"),
    ];
    let claims = "SET request.jwt.claims = '{\"sub\": \"alice\"}'";
    let local = "SET LOCAL request.jwt.claims = '{\"sub\": \"bob\"}'";

    // A refused token takes them away, from parallel workers too, and whatever is beneath them.
    let site = start(Preload::Shared, &[&workers[..], &[trust]].concat());
    let mut client = connect(&site);
    client.run(claims);
    assert_eq!(notes(&mut client), ["alice"]);
    client.run("BEGIN");
    client.run(local);
    assert_eq!(notes(&mut client), ["bob", "bob"]);
    client.run("SAVEPOINT a");
    assert_eq!(client.present(&forged(), true), "28J03");
    for step in ["ROLLBACK TO a", "COMMIT", "RESET request.jwt.claims"] {
        client.run(step);
        assert_eq!(who(&mut client), NOBODY, "{step}");
        assert!(notes(&mut client).is_empty(), "{step}");
    }
    client.run(claims);
    assert_eq!(notes(&mut client), ["alice"]);

    let scope = ("pg_session_jwt.identity_scope", "transaction");
    for preload in Preload::ALL {
        let site = start(preload, &[&workers[..], &[trust, scope]].concat());
        let mut client = connect(&site);
        client.run(claims);
        assert!(notes(&mut client).is_empty(), "{preload:?}");
        client.run("BEGIN");
        client.run(claims);
        assert_eq!(notes(&mut client), ["alice"], "{preload:?}");
        client.run(local);
        assert_eq!(notes(&mut client), ["bob", "bob"], "{preload:?}");
        client.run("COMMIT");
        assert!(notes(&mut client).is_empty(), "{preload:?}");
        assert_eq!(who(&mut client), NOBODY, "{preload:?}");
        let mut client = connect(&site);
        client.run("BEGIN");
        client.run(local);
        assert_eq!(notes(&mut client), ["bob", "bob"], "{preload:?}");
        client.run("COMMIT");
        assert!(notes(&mut client).is_empty(), "{preload:?}");
    }
}

/// Claims are nobody's afterwards whatever is believed when, and under which names settings hide.
#[test]
fn believed_claims_do_not_come_back() {
    const TRUST: &str = "pg_session_jwt.trust_request_claims";
    const SCOPE: &str = "pg_session_jwt.identity_scope";
    let alice = "SELECT set_config('request.jwt.claims', '{\"sub\": \"alice\"}', false)";
    let bob = "SELECT set_config('request.jwt.claims', '{\"sub\": \"bob\"}', true)";
    let site = start(Preload::Shared, &[(TRUST, "on"), (SCOPE, "transaction")]);

    // Names that Postgres sorts before its own, and others after them.
    let mut client = connect(&site);
    let names = "DO $$ BEGIN FOR n IN 1..800 LOOP PERFORM set_config('é.x' || n, '1', false); \
                 END LOOP; END $$";
    assert_eq!(client.run(names), DONE);
    assert_eq!(client.run(alice), DONE);
    assert_eq!(who(&mut client), NOBODY);
    client.run("BEGIN");
    client.run(alice);
    client.run("SAVEPOINT a");
    assert_eq!(who(&mut client), "alice");
    assert_eq!(client.present(&forged(), true), "28J03");
    client.run("ROLLBACK TO a");
    assert_eq!(who(&mut client), NOBODY);
    client.run("COMMIT");

    // Settings that are others for the transaction in which the claims are set.
    let mut admin = Wire::connect(&site.cluster.as_role("postgres")).unwrap();
    for setting in [format!("{TRUST} = off"), format!("{SCOPE} = session")] {
        admin.run(&format!("BEGIN; SET LOCAL {setting}"));
        assert_eq!(admin.run(alice), DONE);
        admin.run("COMMIT");
        assert_eq!(who(&mut admin), NOBODY, "{setting}");
    }

    // Claims that are believed only later.
    let site = start(Preload::Shared, &[(SCOPE, "transaction")]);
    let mut client = connect(&site);
    assert_eq!(client.run(alice), DONE);
    site.cluster.append_configuration(&[(TRUST, "on")]);
    site.cluster.reload();
    client.run("BEGIN");
    assert_eq!(who(&mut client), NOBODY);
    assert_eq!(client.run(bob), DONE);
    assert_eq!(who(&mut client), "bob");
    client.run("ROLLBACK");

    // What lies beneath when the library comes late, or the scope changes on the way.
    let site = start(Preload::Neither, &[(TRUST, "on"), (SCOPE, "transaction")]);
    let mut client = connect(&site);
    for statement in [alice, "BEGIN", "SAVEPOINT a", bob] {
        assert_eq!(client.run(statement), DONE);
    }
    assert_eq!(who(&mut client), "bob");
    client.run("ROLLBACK TO a");
    assert_eq!(who(&mut client), NOBODY);

    let site = start(Preload::Shared, &[(TRUST, "on")]);
    let mut client = connect(&site);
    for statement in [alice, "BEGIN", "SAVEPOINT a", bob] {
        assert_eq!(client.run(statement), DONE);
    }
    site.cluster.append_configuration(&[(SCOPE, "transaction")]);
    site.cluster.reload();
    assert_eq!(who(&mut client), "bob");
    client.run("ROLLBACK TO a");
    assert_eq!(who(&mut client), NOBODY);
}
