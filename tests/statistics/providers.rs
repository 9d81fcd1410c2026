//! Fetches of keys in `auth.stats()`, which the background worker counts.

use harness::{
    Behaviour, Cluster, Code, Idp, Preload, SUCCESS, key, now, present, run, sqlstate, token_of,
    wait_for,
};
use serde_json::json;

use super::fixture::*;

/// Fetches that succeed and that fail are counted by provider and by database, with the times of the last ones.
#[test]
fn fetches_are_counted_by_provider() {
    let idp = Idp::start();
    let first = key("k1");
    idp.set_keys(&[&first]);
    let settings = [("pg_session_jwt.jwks_ca_file", idp.ca_file().to_str().unwrap())];
    let cluster = Cluster::start(Preload::Shared, &settings);
    let mut monitor = monitor(&cluster);
    let mut admin = cluster.admin();
    let add = "SELECT auth.add_provider($1, issuer => $2, jwks_url => $3)";
    for (name, issuer) in [("one", "one"), ("zwei ü \"quoted\"", "two")] {
        admin.execute(add, &[&name, &issuer, &idp.jwks_url()]).unwrap();
    }
    let fetched = |monitor: &mut postgres::Client, refreshes| {
        stats(monitor, "postgres").is_some_and(|stats| stats.refreshes >= refreshes)
    };
    wait_for("the first fetches", || fetched(&mut monitor, 2));
    let found = stats(&mut monitor, "postgres").unwrap();
    assert_eq!((found.refreshes, found.failures), (2, 0), "{found:?}");
    for name in ["one", "zwei ü \"quoted\""] {
        let provider = &found.providers[name];
        assert_eq!(provider["refreshes"], json!(1), "{found:?}");
        assert_eq!(provider["failures"], json!(0), "{found:?}");
        assert!(provider["last_refresh"].is_string(), "{found:?}");
        assert!(provider["last_failure"].is_null(), "{found:?}");
    }
    // A fetch of an administrator, which fails.
    idp.behave(Behaviour::Status(500));
    let refresh = "SELECT auth.refresh_provider('one')";
    assert_eq!(sqlstate(admin.query(refresh, &[])), Code::Fetching.sqlstate(), "a failure");
    let found = stats(&mut monitor, "postgres").unwrap();
    assert_eq!((found.refreshes, found.failures), (2, 1), "{found:?}");
    assert_eq!(found.providers["one"]["failures"], json!(1), "{found:?}");
    let seconds = "SELECT extract(epoch FROM (providers->'one'->>'last_failure')::timestamptz)::bigint FROM auth.stats()";
    let failed: i64 = admin.query_one(seconds, &[]).unwrap().get(0);
    assert!((now() - 60..=now() + 1).contains(&failed), "the time of the failure: {failed}");
    // A token with an unknown key has the keys fetched.
    idp.behave(Behaviour::Serve);
    run(&mut admin, "UPDATE auth.providers SET last_demand = NULL");
    let second = key("k2");
    idp.set_keys(&[&first, &second]);
    let mut client = cluster.as_role("app").client();
    assert_eq!(present(&mut client, &token_of(&second, "one", "ann")), SUCCESS, "a rotated key");
    wait_for("the count", || fetched(&mut monitor, 3));
    let found = stats(&mut monitor, "postgres").unwrap();
    assert_eq!(found.providers["one"]["refreshes"], json!(2), "{found:?}");
    assert_eq!(found.accepted, 1, "{found:?}");
    // A reset keeps the providers and the times.
    let times = |found: &Stats| {
        ["last_refresh", "last_failure"].map(|name| found.providers["one"][name].clone())
    };
    let before = times(&found);
    assert!(before.iter().all(serde_json::Value::is_string), "{found:?}");
    run(&mut admin, "SELECT auth.stats_reset()");
    let found = stats(&mut monitor, "postgres").unwrap();
    let counters = ["refreshes", "failures"].map(|name| found.providers["one"][name].as_i64());
    assert_eq!(counters, [Some(0), Some(0)], "{found:?}");
    assert_eq!(times(&found), before, "{found:?}");
    assert_eq!((found.refreshes, found.failures), (0, 0), "{found:?}");
    // In a database whose encoding lacks a character of a name, the name has an escape.
    run(&mut admin, "CREATE DATABASE latin ENCODING 'LATIN2' TEMPLATE template0");
    admin.execute(add, &[&"три", &"three", &idp.jwks_url()]).unwrap();
    wait_for("the fetch", || fetched(&mut monitor, 1));
    let mut admin = cluster.as_role("postgres").database("latin").client();
    run(&mut admin, "CREATE EXTENSION pg_session_jwt");
    let found = stats(&mut admin, "postgres").unwrap();
    assert_eq!(found.providers[r"\u{442}\u{440}\u{438}"]["refreshes"], json!(1), "{found:?}");
    assert!(found.providers["zwei ü \"quoted\""].is_object(), "{found:?}");
}
