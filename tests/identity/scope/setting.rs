//! `pg_session_jwt.identity_scope`.

use std::thread::sleep;
use std::time::Duration;

use harness::{
    Code, INSUFFICIENT_PRIVILEGE, Preload, SUCCESS, Shared, Site, Wire, test_each_preload, text,
    values, wait_for,
};

use super::fixture::*;

const SCOPE: &str = "pg_session_jwt.identity_scope";

static SITES: Shared<Site> = Shared::new(|preload| start(preload, &[(SCOPE, "transaction")]));

test_each_preload! {
    super::SITES:
    each_way_to_present_is_for_the_transaction,
    earlier_values_are_not_of_the_transaction,
    a_startup_token_is_of_no_transaction,
    sessions_do_not_change_the_scope,
}

fn each_way_to_present_is_for_the_transaction(site: &Site) {
    let alice = site.token("alice");
    for carrier in CARRIERS {
        let carrier = carrier.replace("{}", &alice);
        // The first statement of a connection may be what loads the library.
        for mut client in [connect(site), connect(site)] {
            assert_eq!(client.run(&carrier), SUCCESS, "{carrier}");
            assert_eq!(who(&mut client), NOBODY, "{carrier}");
            for end in ["COMMIT", "ROLLBACK", "PREPARE TRANSACTION 'p'"] {
                client.run("BEGIN");
                assert_eq!(client.run(&carrier), SUCCESS, "{carrier}");
                assert_eq!(who(&mut client), "alice", "{carrier}");
                client.run("SAVEPOINT a");
                assert_eq!(
                    client.present(&site.token("bob"), false),
                    SUCCESS,
                    "{end:?}, {carrier:?}"
                );
                assert_eq!(notes(&mut client), ["bob", "bob"], "{carrier}");
                client.run("ROLLBACK TO a");
                assert_eq!(notes(&mut client), ["alice"], "{carrier}");
                assert_eq!(client.run(end), SUCCESS, "{end:?}, {carrier:?}: after ROLLBACK TO a");
                assert_eq!(who(&mut client), NOBODY, "{carrier}; {end}");
                client.run("ROLLBACK PREPARED 'p'");
                for reset in ["RESET pg_session_jwt.jwt", "RESET ALL", "DISCARD ALL"] {
                    client.run(reset);
                    assert_eq!(who(&mut client), NOBODY, "{carrier}; {end}; {reset}");
                }
            }
            // A refused one leaves nobody, as ever.
            client.run("BEGIN");
            assert_eq!(client.run(&carrier), SUCCESS, "{carrier:?}: after BEGIN");
            client.run("SAVEPOINT a");
            assert_eq!(client.present(&forged(), true), Code::Signature.sqlstate(), "{carrier:?}");
            client.run("ROLLBACK TO a");
            assert_eq!(who(&mut client), NOBODY, "{carrier}");
            client.run("COMMIT");
        }
        // A transaction that sets it first and loads the library later.
        let mut client = connect(site);
        client.run("BEGIN");
        assert_eq!(client.run(&carrier), SUCCESS, "{carrier:?}: after BEGIN");
        assert_eq!(notes(&mut client), ["alice"], "{carrier}");
        client.run("COMMIT");
        assert!(notes(&mut client).is_empty(), "{carrier}");
    }
}

/// What is set before the library is loaded, or before the transaction, is from before it.
fn earlier_values_are_not_of_the_transaction(site: &Site) {
    let alice = site.token("alice");
    let mut client = connect(site);
    client.run(&format!("SET pg_session_jwt.jwt = '{alice}'"));
    client.run(&format!("BEGIN; SET LOCAL pg_session_jwt.jwt = '{}'", site.token("bob")));
    assert_eq!(who(&mut client), "bob", "the user");
    client.run("COMMIT");
    assert_eq!(who(&mut client), NOBODY, "after COMMIT");
}

/// The startup packet is in no transaction; a client that relies on it is warned, once.
fn a_startup_token_is_of_no_transaction(site: &Site) {
    let alice = site.token("alice");
    let mut client = Wire::connect(&site.app().option("pg_session_jwt.jwt", &alice)).unwrap();
    assert_eq!(who(&mut client), NOBODY, "the user");
    let told = client.notices();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].get(b'M').unwrap().contains("startup packet"), "{told:?}");
    client.run("DISCARD ALL");
    assert_eq!(who(&mut client), NOBODY, "after DISCARD ALL");
    assert_eq!(client.notices().len(), 0, "after DISCARD ALL");
}

#[test]
fn identity_scope_in_procedures_workers_and_pipelines() {
    let site = start(
        Preload::Shared,
        &[
            (SCOPE, "transaction"),
            ("parallel_setup_cost", "0"),
            ("parallel_tuple_cost", "0"),
            ("min_parallel_table_scan_size", "0"),
            ("parallel_leader_participation", "off"),
        ],
    );
    site.cluster
        .admin()
        .batch_execute(
            "CREATE PROCEDURE steps(token text, INOUT seen text[]) LANGUAGE plpgsql AS $$
             BEGIN
               PERFORM auth.jwt_session_init(token);
               seen := seen || who();
               COMMIT;
               seen := seen || who();
             END $$;
             INSERT INTO notes SELECT 'carol' FROM generate_series(1, 20000); ANALYZE notes",
        )
        .unwrap();
    let mut client = connect(&site);
    let called = client.ask("CALL steps($1, '{}')", &[&site.token("alice")]).unwrap();
    assert_eq!(values(&called), ["{alice,nobody}"], "values(called)");

    let count = "SELECT count(*) FROM notes";
    client.run("BEGIN");
    assert_eq!(client.present(&site.token("carol"), false), SUCCESS, "after BEGIN");
    let plan = client.ask(&format!("EXPLAIN (COSTS OFF) {count}"), &[]).unwrap();
    assert!(values(&plan).iter().any(|line| line.contains("Parallel Seq Scan")), "after BEGIN");
    assert_eq!(values(&client.ask(count, &[]).unwrap()), ["20000"], "after BEGIN");
    client.run("COMMIT");
    assert_eq!(values(&client.ask(count, &[]).unwrap()), ["0"], "after COMMIT");

    client.statement("SELECT auth.jwt_session_init($1)", &[&site.token("alice")]);
    client.statement("SELECT who()", &[]);
    assert_eq!(values(&client.sync().unwrap().remove(1)), ["alice"], "after COMMIT");
    assert_eq!(who(&mut client), NOBODY, "after COMMIT");
}

/// A client that names the scope at its start loses what is configured, and gains nothing.
fn sessions_do_not_change_the_scope(site: &Site) {
    let mut client = connect(site);
    who(&mut client);
    assert_eq!(
        client.run(&format!("SET {SCOPE} = session")),
        INSUFFICIENT_PRIVILEGE,
        "client.run(format!(SET {{SCOPE}} = session))"
    );
    let forgetful = site.app().option(SCOPE, "session");
    let is_preloaded =
        text(&mut site.cluster.admin(), "SHOW shared_preload_libraries").unwrap() != "";
    match Wire::connect(&forgetful) {
        Err(error) => assert!(is_preloaded, "{error}"),
        Ok(mut client) => {
            assert!(!is_preloaded, "the option was let through");
            for _ in 0..2 {
                assert_eq!(
                    client.present(&site.token("alice"), false),
                    SUCCESS,
                    "client.present(site.token(alice), false)"
                );
                assert_eq!(who(&mut client), NOBODY, "the user after site.token(alice)");
                site.cluster.reload();
            }
        }
    }
}

/// A live session follows a reload; what has ended does not come back.
#[test]
fn live_sessions_follow_the_configured_scope() {
    let site = start(Preload::Shared, &[]);
    let mut client = connect(&site);
    assert_eq!(
        client.present(&site.token("alice"), false),
        SUCCESS,
        "client.present(site.token(alice), false)"
    );
    site.cluster.append_configuration(&[(SCOPE, "transaction")]);
    site.cluster.reload();
    wait_for("the live session to notice", || who(&mut client) == NOBODY);
    site.cluster.append_configuration(&[(SCOPE, "session")]);
    site.cluster.reload();
    sleep(Duration::from_millis(100));
    assert_eq!(who(&mut client), NOBODY, "what has ended does not come back");
    assert_eq!(
        client.present(&site.token("alice"), false),
        SUCCESS,
        "client.present(site.token(alice), false)"
    );
    assert_eq!(who(&mut client), "alice", "the user after site.token(alice)");
}

/// What was presented in a transaction stays to its end.
#[test]
fn a_scope_that_changes_within_a_transaction() {
    let site = start(Preload::Shared, &[]);
    let mut admin = Wire::connect(&site.cluster.as_role("postgres")).unwrap();
    assert_eq!(
        admin.present(&site.token("alice"), false),
        SUCCESS,
        "admin.present(site.token(alice), false)"
    );
    admin.run(&format!("BEGIN; SET LOCAL {SCOPE} = transaction"));
    assert_eq!(who(&mut admin), NOBODY, "the user after site.token(alice)");
    assert_eq!(
        admin.present(&site.token("bob"), false),
        SUCCESS,
        "admin.present(site.token(bob), false)"
    );
    admin.run(&format!("SET LOCAL {SCOPE} = session; SET LOCAL {SCOPE} = transaction"));
    assert_eq!(who(&mut admin), "bob", "the user after site.token(bob)");
    admin.run("COMMIT");
    assert_eq!(who(&mut admin), NOBODY, "after COMMIT");
}
