//! `examples/monitoring`: the queries of the exporter, and the dashboard over their metrics.

use std::collections::BTreeSet;

use harness::{
    Code, Collector, Idp, Preload, SUCCESS, Site, key, present, run, token_of, wait_for,
};
use serde_json::Value;

use super::fixture::*;

const DASHBOARD: &str = include_str!("../../examples/monitoring/dashboard.json");

/// Each query runs as a member of `pg_monitor`, and has the labels and the value of its metrics.
#[test]
fn the_exporter_reads_the_statistics() {
    let idp = Idp::start();
    let key = key("k");
    idp.set_keys(&[&key]);
    let settings = [("pg_session_jwt.jwks_ca_file", idp.ca_file().to_str().unwrap())];
    let site = Site::start(Preload::Shared, &settings);
    let mut monitor = monitor(&site.cluster);
    let add = "SELECT auth.add_provider('acme', issuer => 'acme', jwks_url => $1)";
    site.cluster.admin().execute(add, &[&idp.jwks_url()]).unwrap();
    wait_for("the keys", || {
        stats(&mut monitor, "postgres").is_some_and(|stats| stats.refreshes > 0)
    });
    let mut client = site.client();
    let token = token_of(&key, "acme", "ann");
    for _ in 0..3 {
        assert_eq!(present(&mut client, "garbage"), Code::Malformed.sqlstate(), "garbage");
    }
    for _ in 0..2 {
        assert_eq!(present(&mut client, &token), SUCCESS, "acme's token");
    }
    let collector = Collector::example();
    let samples = collector.collect(&mut monitor);
    let value = |name: &str, labels: &[&str]| {
        let found = samples.iter().find(|sample| sample.metric == name && sample.labels == labels);
        found.unwrap_or_else(|| panic!("{name} {labels:?} in {samples:?}")).value
    };
    assert_eq!(value("pg_session_jwt_accepted_total", &["postgres"]), 2.0, "accepted");
    assert_eq!(value("pg_session_jwt_verified_total", &["postgres"]), 1.0, "verified");
    assert_eq!(value("pg_session_jwt_cache_hits_total", &["postgres"]), 1.0, "cache hits");
    assert_eq!(value("pg_session_jwt_shared_cache_hits_total", &["postgres"]), 0.0, "shared");
    let rejected = |code| value("pg_session_jwt_rejected_total", &["postgres", code]);
    assert_eq!(rejected("28J01"), 3.0, "malformed");
    assert_eq!(rejected("28J03"), 0.0, "signatures");
    let of_acme = ["postgres", "acme"];
    assert_eq!(value("pg_session_jwt_refreshes_total", &of_acme), 1.0, "refreshes");
    assert_eq!(value("pg_session_jwt_refresh_failures_total", &of_acme), 0.0, "failures");
    let age = harness::now() as f64 - value("pg_session_jwt_last_refresh_seconds", &of_acme);
    assert!((-5.0..120.0).contains(&age), "the last refresh was {age} s ago");
    assert_eq!(value("pg_session_jwt_sessions", &of_acme), 1.0, "sessions");
    assert_eq!(value("pg_session_jwt_sessions_expired", &of_acme), 0.0, "expired sessions");
    let with_values: BTreeSet<&str> = samples.iter().map(|sample| &*sample.metric).collect();
    let all: BTreeSet<&str> = collector.metrics.iter().map(|metric| &*metric.name).collect();
    assert_eq!(with_values, all, "each metric has a value");
    // Each rejection of a presented token has a value.
    for code in Code::ALL.iter().filter(|code| code.sqlstate().starts_with("28J")) {
        if ![Code::Fetching, Code::Insufficient].contains(code) {
            rejected(code.sqlstate());
        }
    }
    run(&mut site.cluster.admin(), "SELECT auth.stats_reset()");
}

/// The dashboard shows each metric of the exporter, and no other one, with the labels that it has.
#[test]
fn the_dashboard_shows_the_metrics_of_the_exporter() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        expressions.extend(targets.iter().map(|target| target["expr"].as_str().unwrap()));
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    expressions.extend(variables.filter_map(|variable| variable["query"]["query"].as_str()));
    let metrics = Collector::example().metrics;
    let mut shown = BTreeSet::new();
    for expression in expressions {
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let used: Vec<&str> = words.filter(|word| word.starts_with("pg_session_jwt")).collect();
        let [name] = used[..] else { panic!("one metric in {expression}") };
        let metric = metrics.iter().find(|metric| metric.name == name);
        let metric = metric.unwrap_or_else(|| panic!("{name} is not exported: {expression}"));
        if let Some((_, rest)) = expression.split_once("by (") {
            let label = rest.split(')').next().unwrap();
            assert!(metric.labels.iter().any(|known| known == label), "{label}: {expression}");
        }
        shown.insert(name);
    }
    let exported: BTreeSet<&str> = metrics.iter().map(|metric| &*metric.name).collect();
    assert_eq!(shown, exported, "what the dashboard shows");
}
