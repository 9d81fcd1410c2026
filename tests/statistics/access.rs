//! Who may read statistics, and where there are none.

use harness::{
    Cluster, INSUFFICIENT_PRIVILEGE, OBJECT_NOT_IN_PREREQUISITE_STATE, Preload, SUCCESS, Site,
    db_error, present, run, sqlstate, text,
};
use serde_json::json;

use super::fixture::*;

const QUERIES: [&str; 3] =
    ["SELECT FROM auth.stats()", "SELECT FROM auth.sessions", "SELECT FROM auth.session_list()"];

/// Members of `pg_monitor` read, and reset only where that is granted to them.
#[test]
fn monitoring_roles_read_and_do_not_reset() {
    let site = Site::start(Preload::Shared, &[]);
    let mut monitor = monitor(&site.cluster);
    let mut admin = site.cluster.admin();
    run(&mut admin, "CREATE ROLE reader LOGIN; CREATE ROLE resetter LOGIN");
    let reset = "SELECT auth.stats_reset()";
    let mut app = site.client();
    for query in QUERIES {
        assert_eq!(sqlstate(monitor.query(query, &[])), SUCCESS, "{query} by a monitor");
        assert_eq!(sqlstate(app.query(query, &[])), INSUFFICIENT_PRIVILEGE, "{query} by app");
    }
    for client in [&mut monitor, &mut app] {
        assert_eq!(sqlstate(client.query(reset, &[])), INSUFFICIENT_PRIVILEGE, "a reset");
    }
    // The privileges can be granted singly.
    run(
        &mut admin,
        "GRANT EXECUTE ON FUNCTION auth.stats_reset() TO resetter;
         GRANT EXECUTE ON FUNCTION auth.stats() TO reader",
    );
    let mut reader = site.app().user("reader").client();
    let mut resetter = site.app().user("resetter").client();
    let expected = [SUCCESS, INSUFFICIENT_PRIVILEGE, INSUFFICIENT_PRIVILEGE];
    for (query, expected) in QUERIES.into_iter().zip(expected) {
        assert_eq!(sqlstate(reader.query(query, &[])), expected, "{query} by reader");
    }
    run(
        &mut admin,
        "GRANT SELECT ON auth.sessions TO reader;
         GRANT EXECUTE ON FUNCTION auth.session_list() TO reader",
    );
    assert_eq!(sqlstate(reader.query("SELECT FROM auth.sessions", &[])), SUCCESS, "granted");
    assert_eq!(sqlstate(reader.query(reset, &[])), INSUFFICIENT_PRIVILEGE, "a reset by reader");
    assert_eq!(sqlstate(resetter.query(reset, &[])), SUCCESS, "a reset by resetter");
}

/// Without `shared_preload_libraries`, each function says what to do, and tokens work.
#[test]
fn without_preloading_the_error_says_what_to_do() {
    for preload in [Preload::Session, Preload::Neither] {
        let site = Site::start(preload, &[]);
        let mut client = site.client();
        assert_eq!(present(&mut client, &site.token("alice")), SUCCESS, "{preload:?}");
        let mut monitor = monitor(&site.cluster);
        let mut admin = site.cluster.admin();
        for query in QUERIES {
            let error = db_error(monitor.query(query, &[]));
            assert_eq!(
                error.code().code(),
                OBJECT_NOT_IN_PREREQUISITE_STATE,
                "{query}, {preload:?}"
            );
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains("shared_preload_libraries"), "{query}, {preload:?}: {hint}");
        }
        let reset = sqlstate(admin.query("SELECT auth.stats_reset()", &[]));
        assert_eq!(reset, OBJECT_NOT_IN_PREREQUISITE_STATE, "{preload:?}");
    }
}

/// A standby counts what happens on it.
#[test]
fn a_standby_counts_its_own() {
    let site = Site::start(Preload::Shared, &[]);
    drop(monitor(&site.cluster));
    let standby = site.cluster.standby();
    standby.catch_up(&site.cluster);
    let mut on_standby = standby.as_role("monitor").client();
    let mut client = standby.as_role("app").client();
    assert_eq!(present(&mut client, &site.token("alice")), SUCCESS, "on the standby");
    let pid = harness::backend_pid(&mut client);
    assert_eq!(stats(&mut on_standby, "postgres").unwrap().accepted, 1, "counted on the standby");
    assert_eq!(shown(&mut on_standby, pid).as_deref(), Some("alice - -"), "shown on the standby");
    assert_eq!(stats(&mut monitor(&site.cluster), "postgres"), None, "not on the primary");
    run(&mut standby.admin(), "SELECT auth.stats_reset()");
    assert_eq!(stats(&mut on_standby, "postgres").unwrap().accepted, 0, "reset on the standby");
}

/// Each database shows the users of all databases, with escapes for what its encoding lacks.
#[test]
fn other_encodings_get_escapes() {
    let site = Site::start(Preload::Shared, &[]);
    for (name, encoding) in [("latin", "LATIN1"), ("raw", "SQL_ASCII")] {
        let create = format!("CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0");
        run(&mut site.cluster.admin(), &create);
    }
    drop(monitor(&site.cluster));
    let mut client = site.client();
    let token = harness::sign(&site.key, json!({"sub": "żółć"}));
    assert_eq!(present(&mut client, &token), SUCCESS, "in UTF-8");
    for (database, expected) in
        [("postgres", "żółć"), ("latin", r"\u{17c}\u{f3}\u{142}\u{107}"), ("raw", "żółć")]
    {
        if database != "postgres" {
            let mut admin = site.cluster.as_role("postgres").database(database).client();
            run(&mut admin, "CREATE EXTENSION pg_session_jwt");
        }
        let mut monitor = site.cluster.as_role("monitor").database(database).client();
        let found = text(&mut monitor, "SELECT user_id FROM auth.sessions");
        assert_eq!(found.as_deref(), Some(expected), "{database}");
        let count = text(&mut monitor, "SELECT sum(accepted)::text FROM auth.stats()");
        assert_eq!(count.as_deref(), Some("1"), "{database}");
    }
}

/// Two servers on one machine have nothing in common.
#[test]
fn shared_memory_is_the_servers_own() {
    let clusters = [(); 2].map(|()| Cluster::start(Preload::Shared, &[]));
    let mut client = clusters[0].as_role("app").client();
    assert_ne!(present(&mut client, "garbage"), SUCCESS, "a rejection");
    let found = clusters.each_ref().map(|cluster| stats(&mut cluster.admin(), "postgres"));
    assert_eq!(found[0].as_ref().map(|stats| stats.rejected), Some(1), "the first server");
    assert_eq!(found[1], None, "the second server");
}

/// The statistics take little shared memory, which `docs/performance.md` names.
#[test]
fn statistics_take_little_memory() {
    let settings = [("max_connections", "100"), ("pg_session_jwt.shared_cache_size", "0")];
    let cluster = Cluster::start(Preload::Shared, &settings);
    let size = "SELECT sum(allocated_size)::text FROM pg_shmem_allocations WHERE name LIKE 'pg\\_session\\_jwt %'";
    let size: usize = text(&mut cluster.admin(), size).unwrap().parse().unwrap();
    assert!((200..=330).contains(&(size / 1024)), "{size} bytes");
}
