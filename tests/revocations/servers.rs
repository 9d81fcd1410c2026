//! Revocations on a standby, in a dump, in two phases, after a crash, and in other databases.

use harness::{Code, Preload, SUCCESS, present, run, user};

use super::fixture::*;

const REVOKED: &str = Code::Revoked.sqlstate();

#[test]
fn a_standby_replays_revocations() {
    let site = Site::start(Preload::Shared, &[]);
    let standby = site.cluster.standby();
    standby.catch_up(&site.cluster);
    let alice = site.token_of("alice");
    let mut admin = site.cluster.admin();
    let mut client = standby.as_role("app").client();
    let mut block = standby.as_role("app").client();
    assert_eq!(present(&mut client, &alice), SUCCESS);
    assert_eq!(present(&mut block, &alice), SUCCESS);
    run(&mut block, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM notes");
    let id = revoke(&mut admin, "subject => 'alice'");
    standby.catch_up(&site.cluster);
    assert_eq!(code_of_user(&mut client), REVOKED, "an open session");
    assert_eq!(code_of_user(&mut block), REVOKED, "a transaction");
    assert_eq!(present(&mut standby.as_role("app").client(), &alice), REVOKED, "presented");
    unrevoke(&mut admin, id);
    standby.catch_up(&site.cluster);
    assert_eq!(user(&mut client).as_deref(), Some("alice"), "taken back");
    // What only reads works there.
    run(&mut standby.admin(), "SELECT FROM auth.revocation_status");
    standby.promote();
    revoke(&mut standby.admin(), "subject => 'alice'");
    assert_eq!(code_of_user(&mut client), REVOKED, "promoted");
}

#[test]
fn revocations_in_two_phases() {
    let site = Site::start(Preload::Shared, &[("max_prepared_transactions", "5")]);
    let alice = site.token_of("alice");
    let (mut admin, mut client) = (site.cluster.admin(), site.client());
    assert_eq!(present(&mut client, &alice), SUCCESS);
    run(&mut admin, "BEGIN; SELECT auth.revoke(subject => 'alice'); PREPARE TRANSACTION 'x'");
    assert_eq!(user(&mut client).as_deref(), Some("alice"), "prepared");
    run(&mut admin, "COMMIT PREPARED 'x'");
    assert_eq!(code_of_user(&mut client), REVOKED, "committed");
}

#[test]
fn a_crash_loses_nothing() {
    let site = Site::start(Preload::Shared, &[]);
    let alice = site.token_of("alice");
    revoke(&mut site.cluster.admin(), "subject => 'alice'");
    site.cluster.restart_in_mode("immediate");
    assert_eq!(present(&mut site.client(), &alice), REVOKED);
}

#[test]
fn a_dump_has_the_revocations() {
    let site = Site::start(Preload::Shared, &[]);
    let mut admin = site.cluster.admin();
    let alice = site.token_of("alice");
    let id = revoke(&mut admin, "subject => 'alice', reason => 'lost', before => 'infinity'");
    run(&mut admin, "UPDATE auth.revocations SET created = '2020-01-01', created_by = 'someone'");
    let rows = "SELECT string_agg(r::text, '; ') FROM auth.revocations r";
    let before = cell(&mut admin, rows);
    let pid = std::process::id();
    for (format, inserts) in [("custom", ""), ("plain", ""), ("plain", "--inserts")] {
        let file = std::env::temp_dir().join(format!("revocations-{pid}.dump"));
        let mut dump = site.cluster.program("pg_dump");
        let port = site.cluster.port().to_string();
        let connection = ["-h", "127.0.0.1", "-U", "postgres", "-p", &port];
        dump.args(connection).args(["-d", "postgres", "-F", format, "-f"]).arg(&file);
        if !inserts.is_empty() {
            dump.arg(inserts);
        }
        assert!(dump.status().unwrap().success(), "{format} {inserts}: pg_dump");
        run(&mut admin, "DROP DATABASE IF EXISTS restored WITH (FORCE)");
        run(&mut admin, "CREATE DATABASE restored");
        let mut restore = if format == "custom" {
            let mut restore = site.cluster.program("pg_restore");
            restore.args(connection).args(["-d", "restored", "--exit-on-error"]).arg(&file);
            restore
        } else {
            let mut restore = site.cluster.program("psql");
            restore
                .args(connection)
                .args(["-qX", "-v", "ON_ERROR_STOP=1", "-d", "restored", "-f"])
                .arg(&file);
            restore
        };
        let output = restore.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{format} {inserts}: restored: {errors}");
        std::fs::remove_file(&file).unwrap();
        let mut there = site.cluster.as_role("postgres").database("restored").client();
        assert_eq!(cell(&mut there, rows), before, "{format} {inserts}");
        let mut client = site.cluster.as_role("app").database("restored").client();
        assert_eq!(present(&mut client, &alice), REVOKED, "{format} {inserts}");
        assert!(revoke(&mut there, "subject => 'bob'") > id, "{format} {inserts}: the next number");
    }
}

/// A revocation is of its database.
#[test]
fn other_databases_have_their_own() {
    let site = Site::start(Preload::Shared, &[]);
    let mut admin = site.cluster.admin();
    run(&mut admin, "CREATE DATABASE other");
    let mut there = site.cluster.as_role("postgres").database("other").client();
    run(&mut there, "CREATE EXTENSION pg_session_jwt");
    let alice = site.token_of("alice");
    revoke(&mut admin, "subject => 'alice'");
    assert_eq!(present(&mut there, &alice), SUCCESS, "the other database");
    assert_eq!(present(&mut site.client(), &alice), REVOKED, "this database");
}

/// With the shared cache of signatures and without, and with a cache of one token.
#[test]
fn no_cache_hides_a_revocation() {
    for settings in [
        &[("pg_session_jwt.shared_cache_size", "0")][..],
        &[("pg_session_jwt.token_cache_size", "1")],
        &[],
    ] {
        let site = Site::start(Preload::Shared, settings);
        let mut admin = site.cluster.admin();
        let (alice, bob) = (site.token_of("alice"), site.token_of("bob"));
        let mut clients: Vec<_> = (0..3).map(|_| site.client()).collect();
        for client in &mut clients {
            assert_eq!(present(client, &alice), SUCCESS);
            assert_eq!(present(client, &bob), SUCCESS);
        }
        for round in 0..3 {
            let id = revoke(&mut admin, "subject => 'alice'");
            for client in &mut clients {
                assert_eq!(present(client, &alice), REVOKED, "{settings:?} {round}");
                assert_eq!(present(client, &bob), SUCCESS, "{settings:?} {round}");
            }
            unrevoke(&mut admin, id);
            for client in &mut clients {
                assert_eq!(present(client, &alice), SUCCESS, "{settings:?} {round}");
            }
        }
    }
}

/// By the worker of a subscription, for whose rows only triggers that are enabled always fire.
#[test]
fn a_subscription_brings_revocations() {
    let site = Site::start(Preload::Shared, &[("wal_level", "logical")]);
    let mut publisher = site.cluster.admin();
    run(&mut publisher, "CREATE DATABASE subscriber");
    run(&mut publisher, "CREATE PUBLICATION p FOR TABLE auth.revocations");
    let mut subscriber = site.cluster.as_role("postgres").database("subscriber").client();
    run(&mut subscriber, "CREATE EXTENSION pg_session_jwt");
    // On one server, the slot is created before the subscription waits for it.
    run(&mut publisher, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
    let port = site.cluster.port();
    run(
        &mut subscriber,
        &format!(
            "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={port} user=postgres dbname=postgres'
             PUBLICATION p WITH (create_slot = false, slot_name = 's')"
        ),
    );
    let alice = site.token_of("alice");
    let mut client = site.cluster.as_role("app").database("subscriber").client();
    assert_eq!(present(&mut client, &alice), SUCCESS);
    let id = revoke(&mut publisher, "subject => 'alice'");
    harness::wait_for("the revocation", || code_of_user(&mut client) == REVOKED);
    unrevoke(&mut publisher, id);
    harness::wait_for("its end", || code_of_user(&mut client) == SUCCESS);
    run(&mut subscriber, "DROP SUBSCRIPTION s");
}

/// A pooled connection after a revoked client.
#[test]
fn a_pooler_passes_no_revoked_identity_on() {
    let site = Site::start(Preload::Shared, &[]);
    let pooler = site.cluster.pooler("transaction", &[("default_pool_size", "1")]);
    let mut admin = site.cluster.admin();
    let (alice, bob) = (site.token_of("alice"), site.token_of("bob"));
    let mut clients = [(); 2].map(|()| pooler.as_role("app").client());
    let [first, second] = &mut clients;
    for round in 0..5 {
        run(first, "BEGIN");
        assert_eq!(harness::present_locally(first, &alice), SUCCESS, "{round}");
        assert_eq!(user(first).as_deref(), Some("alice"), "{round}");
        let id = revoke(&mut admin, "subject => 'alice'");
        assert_eq!(code_of_user(first), REVOKED, "{round}");
        run(first, "ROLLBACK");
        run(second, "BEGIN");
        assert_eq!(user(second), None, "{round}: nobody");
        assert_eq!(harness::present_locally(second, &bob), SUCCESS, "{round}");
        assert_eq!(user(second).as_deref(), Some("bob"), "{round}");
        run(second, "COMMIT");
        run(first, "BEGIN");
        assert_eq!(harness::present_locally(first, &alice), REVOKED, "{round}");
        run(first, "ROLLBACK");
        assert_eq!(user(second), None, "{round}: nobody");
        unrevoke(&mut admin, id);
    }
}

/// Without the extension, a database has no revocations.
#[test]
fn without_the_extension_nothing_is_revoked() {
    let site = Site::start(Preload::Shared, &[]);
    let mut admin = site.cluster.admin();
    revoke(&mut admin, "subject => 'alice'");
    run(&mut admin, "CREATE DATABASE bare TEMPLATE template0");
    let mut client = site.cluster.as_role("app").database("bare").client();
    run(&mut client, &format!("SET pg_session_jwt.jwt = '{}'", site.token_of("alice")));
}
