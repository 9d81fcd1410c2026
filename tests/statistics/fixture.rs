//! A monitoring role, and what it reads.

use std::collections::BTreeMap;

use harness::{Cluster, run};
use postgres::Client;
use serde_json::Value;

/// A client of the role `monitor`, which is a member of `pg_monitor`.
pub fn monitor(cluster: &Cluster) -> Client {
    run(
        &mut cluster.admin(),
        "DO $$ BEGIN CREATE ROLE monitor LOGIN IN ROLE pg_monitor; EXCEPTION WHEN duplicate_object THEN END $$",
    );
    cluster.as_role("monitor").client()
}

/// The counters of a database.
#[derive(Debug, Default, PartialEq)]
pub struct Stats {
    pub accepted: i64,
    pub rejected: i64,
    pub rejections: BTreeMap<String, i64>,
    pub verified: i64,
    pub cache_hits: i64,
    pub shared_cache_hits: i64,
    pub refreshes: i64,
    pub failures: i64,
    pub providers: Value,
}

/// The counters of a database; None where it has none.
pub fn stats(client: &mut Client, database: &str) -> Option<Stats> {
    let query = "SELECT accepted, rejected, rejections::text, verified, cache_hits, shared_cache_hits, refreshes,
                        refresh_failures, providers::text
                 FROM auth.stats() WHERE database = $1";
    let row = client.query_opt(query, &[&database]).unwrap()?;
    let json = |place: usize| serde_json::from_str(row.get(place)).unwrap();
    let rejections: Value = json(2);
    let rejections = rejections.as_object().unwrap().iter();
    Some(Stats {
        accepted: row.get(0),
        rejected: row.get(1),
        rejections: rejections.map(|(code, n)| (code.clone(), n.as_i64().unwrap())).collect(),
        verified: row.get(3),
        cache_hits: row.get(4),
        shared_cache_hits: row.get(5),
        refreshes: row.get(6),
        failures: row.get(7),
        providers: json(8),
    })
}

/// What `auth.sessions` shows of a process: user id, issuer and role by token, with `-` for NULL. None where the process
/// has no row.
pub fn shown(client: &mut Client, pid: i32) -> Option<String> {
    let query =
        "SELECT concat_ws(' ', coalesce(user_id, '-'), coalesce(issuer, '-'), coalesce(role, '-'))
                 FROM auth.sessions WHERE pid = $1";
    client.query_opt(query, &[&pid]).unwrap().map(|row| row.get(0))
}
