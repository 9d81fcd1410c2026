//! The counters of `auth.stats()` by database.

use std::collections::BTreeMap;

use harness::{
    Cluster, Code, Preload, SUCCESS, Site, now, present, present_locally, run, send_signal, sign,
    sqlstate, text, token, user, wait_for,
};
use mint::{Algorithm, Key};
use serde_json::json;

use super::fixture::*;

/// Each presentation is counted once, by its outcome; a rejection by its code.
#[test]
fn each_outcome_is_counted() {
    let [key, other] = [(); 2].map(|()| Key::generate(Algorithm::ES256).with_kid("k"));
    let providers = json!([
        {"name": "a", "issuer": "https://a", "audience": "api", "algorithms": ["ES256"], "leeway": 0,
         "jwks": key.public_jwk()},
        {"name": "b", "issuer": "https://b", "monotonic_jti": true, "jwks": key.public_jwk()},
    ]);
    let settings = [("pg_session_jwt.providers", &*providers.to_string())];
    let cluster = Cluster::start(Preload::Shared, &settings);
    let mut monitor = monitor(&cluster);
    assert_eq!(stats(&mut monitor, "postgres"), None, "before the first token");
    let claims = |change: serde_json::Value| {
        let mut claims = json!({"iss": "https://a", "aud": "api", "sub": "ann"});
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let good = sign(&key, claims(json!({})));
    let counted = |jti: i64| sign(&key, json!({"iss": "https://b", "sub": "ben", "jti": jti}));
    let unsigned =
        key.sign_raw(br#"{"alg":"EdDSA","kid":"k"}"#, claims(json!({})).to_string().as_bytes());
    let cases = [
        ("a malformed text", "garbage".to_owned(), Code::Malformed),
        ("an unknown issuer", sign(&key, claims(json!({"iss": "https://c"}))), Code::NoKey),
        ("a forged signature", sign(&other, claims(json!({}))), Code::Signature),
        ("an old token", sign(&key, claims(json!({"exp": 1}))), Code::Expired),
        ("an early token", sign(&key, claims(json!({"nbf": now() + 300}))), Code::NotYetValid),
        ("no issuer", sign(&key, json!({"sub": "ann"})), Code::Issuer),
        ("another audience", sign(&key, claims(json!({"aud": "web"}))), Code::Audience),
        ("a replayed jti", counted(7), Code::Replayed),
        ("a wrong sub", sign(&key, claims(json!({"sub": ["ann"]}))), Code::Claim),
        ("another algorithm", unsigned, Code::Algorithm),
    ];
    let mut client = cluster.as_role("app").client();
    assert_eq!(present(&mut client, &counted(7)), SUCCESS, "the first jti");
    let mut expected = Stats { accepted: 1, verified: 1, providers: json!({}), ..Stats::default() };
    for (name, token, code) in cases {
        let state = code.sqlstate();
        assert_eq!(present(&mut client, &token), state, "{name}");
        *expected.rejections.entry(state.to_owned()).or_default() += 1;
        expected.rejected += 1;
        // Claims are checked after the signature.
        expected.verified += i64::from([Code::NotYetValid].contains(&code));
        expected.cache_hits += i64::from(code == Code::Replayed);
        let found = stats(&mut monitor, "postgres").unwrap();
        // Whether the signature was verified depends on the order of the checks.
        let found = Stats { verified: 0, cache_hits: 0, ..found };
        let expected = Stats {
            verified: 0,
            cache_hits: 0,
            rejections: expected.rejections.clone(),
            providers: json!({}),
            ..expected
        };
        assert_eq!(found, expected, "after {name}");
    }
    for round in 0..3 {
        let before = stats(&mut monitor, "postgres").unwrap();
        assert_eq!(present(&mut client, &good), SUCCESS, "round {round}");
        // Readers count nothing.
        assert_eq!(user(&mut client).as_deref(), Some("ann"), "round {round}");
        assert_eq!(user(&mut client).as_deref(), Some("ann"), "round {round}");
        let after = stats(&mut monitor, "postgres").unwrap();
        let of_first = i64::from(round == 0);
        assert_eq!(after.accepted - before.accepted, 1, "round {round}");
        assert_eq!(after.rejected - before.rejected, 0, "round {round}");
        assert_eq!(after.verified - before.verified, of_first, "round {round}");
        assert_eq!(after.cache_hits - before.cache_hits, 1 - of_first, "round {round}");
    }
    // A token that the session clears, and one that is only verified, are no presentations.
    let before = stats(&mut monitor, "postgres");
    run(&mut client, "SELECT auth.jwt_session_init(NULL)");
    let verify = "SELECT auth.jwt_verify($1)::text";
    client.query_one(verify, &[&good]).unwrap();
    assert_eq!(stats(&mut monitor, "postgres"), before, "no presentation");
}

/// A token in the startup packet is presented at its first use, once.
#[test]
fn tokens_of_the_startup_packet_are_counted_once() {
    let site = Site::start(Preload::Shared, &[]);
    let mut monitor = monitor(&site.cluster);
    let forged = token(&Key::generate(Algorithm::ES256), "mallory");
    for (name, token, accepted, rejected) in
        [("accepted", site.token("alice"), 1, 0), ("rejected", forged, 1, 1)]
    {
        let mut client = site.app().option("pg_session_jwt.jwt", &token).client();
        for _ in 0..3 {
            let _ = client.execute("SELECT auth.user_id()", &[]);
        }
        let found = stats(&mut monitor, "postgres").unwrap();
        assert_eq!((found.accepted, found.rejected), (accepted, rejected), "{name}: {found:?}");
    }
}

/// A parallel worker has the token of its leader: it verifies the signature, and presents nothing.
#[test]
fn parallel_workers_present_nothing() {
    let site = Site::start(Preload::Shared, &[]);
    let mut monitor = monitor(&site.cluster);
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE TABLE many AS SELECT n FROM generate_series(1, 10000) n; ANALYZE many;
         GRANT SELECT ON many TO app",
    );
    let mut client = site.client();
    run(
        &mut client,
        &format!(
            "SET {} = on; SET parallel_setup_cost = 0; SET min_parallel_table_scan_size = 0;
             SET parallel_leader_participation = off; SET max_parallel_workers_per_gather = 1",
            harness::parallel_query_setting()
        ),
    );
    assert_eq!(present(&mut client, &site.token("alice")), SUCCESS, "alice");
    let before = stats(&mut monitor, "postgres").unwrap();
    let pid = harness::backend_pid(&mut client);
    // The worker reads the identity for each row, for some seconds.
    let query = "SELECT count(*)::text FROM many
                 WHERE auth.user_id() = 'alice' AND pg_sleep(0.0002) IS NOT NULL";
    let rows = "SELECT string_agg(pid::text, ' ') FROM auth.sessions";
    let workers =
        "SELECT count(*)::text FROM pg_stat_activity WHERE backend_type = 'parallel worker'";
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        let scan = scope.spawn(|| text(&mut client, query));
        wait_for("the worker", || text(&mut monitor, workers).as_deref() == Some("1"));
        while !scan.is_finished() {
            seen.push(text(&mut monitor, rows).unwrap_or_default());
        }
        assert_eq!(scan.join().unwrap().as_deref(), Some("10000"), "the scan");
    });
    assert!(seen.len() > 20, "{} reads", seen.len());
    seen.dedup();
    assert_eq!(seen, [pid.to_string()], "the leader only");
    let after = stats(&mut monitor, "postgres").unwrap();
    assert_eq!(after.accepted, before.accepted, "accepted");
    // Its leader has shared the signature.
    assert_eq!(after.verified, before.verified, "verified");
    assert!(after.shared_cache_hits > before.shared_cache_hits, "a worker: {after:?}");
}

/// Databases count apart. A database that was dropped takes its counters along.
#[test]
fn databases_are_counted_apart() {
    let site = Site::start(Preload::Shared, &[]);
    let mut monitor = monitor(&site.cluster);
    let create = || {
        run(&mut site.cluster.admin(), "CREATE DATABASE second");
        let mut admin = site.cluster.as_role("postgres").database("second").client();
        run(&mut admin, "CREATE EXTENSION pg_session_jwt");
    };
    let mut present_in = |database: &str, times: usize| {
        let mut client = site.app().database(database).client();
        for _ in 0..times {
            assert_eq!(present(&mut client, &site.token("alice")), SUCCESS, "{database}");
        }
        stats(&mut monitor, database).unwrap().accepted
    };
    create();
    assert_eq!(present_in("postgres", 2), 2, "postgres");
    assert_eq!(present_in("second", 3), 3, "second");
    assert_eq!(present_in("postgres", 1), 3, "postgres again");
    run(&mut site.cluster.admin(), "DROP DATABASE second WITH (FORCE)");
    create();
    assert_eq!(present_in("second", 1), 1, "another database of the name");
}

/// There are 128 places. A reset gives those of dropped databases free.
#[test]
fn databases_without_a_place_are_counted_together() {
    let site = Site::start(Preload::Shared, &[]);
    let mut admin = site.cluster.admin();
    run(&mut admin, "CREATE DATABASE source");
    run(
        &mut site.cluster.as_role("postgres").database("source").client(),
        "CREATE EXTENSION pg_session_jwt",
    );
    let others =
        "SELECT max(accepted)::text FROM auth.stats() WHERE database = '(other databases)'";
    let list = "SELECT count(*)::text FROM auth.stats()";
    for n in 0..130 {
        let name = format!("d{n}");
        run(&mut admin, &format!("CREATE DATABASE {name} TEMPLATE source"));
        let mut client = site.app().database(&name).client();
        assert_eq!(present(&mut client, &site.token("alice")), SUCCESS, "{name}");
        drop(client);
        if n < 127 {
            let alive =
                format!("SELECT count(*)::text FROM pg_stat_activity WHERE datname = '{name}'");
            wait_for("the session's end", || text(&mut admin, &alive).as_deref() == Some("0"));
            run(&mut admin, &format!("DROP DATABASE {name}"));
        }
    }
    assert_eq!(text(&mut admin, others).as_deref(), Some("2"), "d128 and d129");
    assert_eq!(text(&mut admin, list).as_deref(), Some("2"), "d127 and the others");
    run(&mut admin, "SELECT auth.stats_reset()");
    let mut client = site.client();
    assert_eq!(present(&mut client, &site.token("alice")), SUCCESS, "after the reset");
    assert_eq!(text(&mut admin, others), None, "others after the reset");
    let mut monitor = monitor(&site.cluster);
    assert_eq!(stats(&mut monitor, "postgres").unwrap().accepted, 1, "a place was free");
}

/// A reset sets everything to zero, in all databases, and notes the time.
#[test]
fn a_reset_begins_again() {
    let site = Site::start(Preload::Shared, &[]);
    let mut monitor = monitor(&site.cluster);
    let mut client = site.client();
    let alice = site.token("alice");
    let since = "SELECT extract(epoch FROM since)::text FROM auth.stats()";
    assert_eq!(present(&mut client, &alice), SUCCESS, "alice");
    assert_eq!(present(&mut client, "garbage"), Code::Malformed.sqlstate(), "garbage");
    let started =
        "SELECT (since BETWEEN pg_postmaster_start_time() - interval '1 minute' AND now())::text
                   FROM auth.stats()";
    assert_eq!(text(&mut monitor, started).as_deref(), Some("true"), "since the start");
    let before = text(&mut monitor, since);
    run(&mut site.cluster.admin(), "SELECT auth.stats_reset()");
    let zero = Stats { providers: json!({}), ..Stats::default() };
    assert_eq!(stats(&mut monitor, "postgres"), Some(zero), "after the reset");
    assert_ne!(text(&mut monitor, since), before, "the time of the reset");
    // Sessions that have counted before the reset count on.
    assert_eq!(present(&mut client, &alice), SUCCESS, "alice again");
    let found = stats(&mut monitor, "postgres").unwrap();
    assert_eq!((found.accepted, found.cache_hits), (1, 1), "{found:?}");
}

/// After a crash, the server begins with empty shared memory.
#[test]
fn a_crash_begins_again() {
    let site = Site::start(Preload::Shared, &[("restart_after_crash", "on")]);
    let mut monitor = monitor(&site.cluster);
    let mut client = site.client();
    assert_eq!(present(&mut client, &site.token("alice")), SUCCESS, "alice");
    let pid = harness::backend_pid(&mut client);
    assert_eq!(shown(&mut monitor, pid).as_deref(), Some("alice - -"), "before the crash");
    send_signal("KILL", pid as u32);
    wait_for("the restart", || site.app().try_client().is_ok());
    let mut monitor = self::monitor(&site.cluster);
    assert_eq!(stats(&mut monitor, "postgres"), None, "counters after the crash");
    let sessions = "SELECT count(*)::text FROM auth.sessions";
    assert_eq!(text(&mut monitor, sessions).as_deref(), Some("0"), "sessions after the crash");
    let mut client = site.client();
    assert_eq!(present(&mut client, &site.token("bob")), SUCCESS, "bob");
    let pid = harness::backend_pid(&mut client);
    assert_eq!(shown(&mut monitor, pid).as_deref(), Some("bob - -"), "a session after the crash");
    assert_eq!(stats(&mut monitor, "postgres").unwrap().accepted, 1, "counted after the crash");
    let since =
        "SELECT (since BETWEEN pg_postmaster_start_time() AND now())::text FROM auth.stats()";
    assert_eq!(text(&mut monitor, since).as_deref(), Some("true"), "since the restart");
}

/// 200 sessions at a time lose no event.
#[test]
fn concurrent_sessions_lose_no_event() {
    const SESSIONS: i64 = 200;
    let site = Site::start(Preload::Shared, &[("max_connections", "230")]);
    let mut monitor = monitor(&site.cluster);
    let tokens = ["alice", "bob"].map(|sub| site.token(sub));
    let barrier = std::sync::Barrier::new(SESSIONS as usize);
    std::thread::scope(|scope| {
        for _ in 0..SESSIONS {
            scope.spawn(|| {
                let mut client = site.client();
                barrier.wait();
                for round in 0..20 {
                    run(&mut client, "BEGIN");
                    let outcome = present_locally(&mut client, &tokens[round % 2]);
                    assert_eq!(outcome, SUCCESS, "round {round}");
                    run(&mut client, "COMMIT");
                }
                for round in 0..3 {
                    let outcome = present(&mut client, "garbage");
                    assert_eq!(outcome, Code::Malformed.sqlstate(), "round {round}");
                }
            });
        }
    });
    let found = stats(&mut monitor, "postgres").unwrap();
    // Sessions that begin together verify the same signature.
    assert!(found.verified >= 2, "{found:?}");
    assert_eq!(
        found.verified + found.shared_cache_hits,
        2 * SESSIONS,
        "the first ones of a session"
    );
    let found = Stats { verified: 0, shared_cache_hits: 0, ..found };
    let expected = Stats {
        accepted: 20 * SESSIONS,
        rejected: 3 * SESSIONS,
        rejections: BTreeMap::from([(Code::Malformed.sqlstate().to_owned(), 3 * SESSIONS)]),
        cache_hits: 18 * SESSIONS,
        providers: json!({}),
        ..Stats::default()
    };
    assert_eq!(found, expected, "the sums");
    let left = "SELECT count(*)::text FROM auth.sessions";
    assert_eq!(text(&mut monitor, left).as_deref(), Some("0"), "sessions that have ended");
}

/// The smallest server has a place for each of its sessions.
#[test]
fn the_smallest_server_shows_all_sessions() {
    let settings = [
        ("max_connections", "3"),
        ("superuser_reserved_connections", "0"),
        ("max_worker_processes", "0"),
        ("autovacuum_max_workers", "1"),
        ("max_wal_senders", "0"),
    ];
    let site = Site::start(Preload::Shared, &settings);
    let mut monitor = monitor(&site.cluster);
    let count = "SELECT count(*)::text FROM pg_stat_activity WHERE backend_type = 'client backend'";
    wait_for("the end of other sessions", || text(&mut monitor, count).as_deref() == Some("1"));
    let mut clients = [site.client(), site.client()];
    for (client, sub) in clients.iter_mut().zip(["alice", "bob"]) {
        assert_eq!(present(client, &site.token(sub)), SUCCESS, "{sub}");
        let pid = harness::backend_pid(client);
        assert_eq!(shown(&mut monitor, pid), Some(format!("{sub} - -")), "{sub}");
    }
    assert!(sqlstate(site.app().try_client()).starts_with("53"), "no other session");
}
