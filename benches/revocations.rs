//! Revocations: what a million of them costs, and how soon one takes effect.

use std::time::Instant;

use harness::{Cluster, Preload, Wire, present, run};
use mint::{Algorithm, Key};
use serde_json::json;

use crate::measure::{Runner, median, shortest};
use crate::report::{Budget, Line, Table};
use crate::sessions::memory_after;
use crate::tokens::{NOT_SHARED, PRESENT, add_role_without_cache, calls};

/// The number of revocations.
const ROWS: i32 = 1_000_000;

/// The number of sessions that a revocation ends.
const SESSIONS: usize = 500;

/// The number of calls of a reader in one query.
const READS: i32 = 1_000_000;

/// The tables of figures about revocations.
pub fn tables() -> Vec<Table> {
    let key = Key::generate(Algorithm::ES256).with_kid("k");
    let providers = json!({"jwks": key.public_jwk()}).to_string();
    let settings = [
        ("pg_session_jwt.providers", providers.as_str()),
        ("shared_buffers", "512MB"),
        ("max_wal_size", "4GB"),
        ("max_connections", "600"),
        NOT_SHARED,
    ];
    let clusters = [(); 2].map(|()| Cluster::start(Preload::Shared, &settings));
    let [with, without] = &clusters;
    // As many of each kind.
    run(
        &mut with.admin(),
        &format!(
            "INSERT INTO auth.revocations (issuer, subject, jti, sid)
             SELECT CASE WHEN n % 2 = 0 THEN 'https://issuer.example' END,
                 CASE WHEN n % 3 = 0 THEN 'user-' || n END, CASE WHEN n % 3 = 1 THEN 'jti-' || n END,
                 CASE WHEN n % 3 = 2 THEN 'sid-' || n END
             FROM generate_series(1, {ROWS}) n"
        ),
    );
    run(&mut with.admin(), "VACUUM ANALYZE auth.revocations");
    let token = key.sign(&crate::claims());
    let table =
        |title, unit, explanation: String, lines: Vec<(&str, [f64; 2], &str, Budget)>| Table {
            title,
            explanation,
            unit,
            lines: lines
                .into_iter()
                .map(|(what, [this, control], control_name, budget)| Line {
                    what: what.to_owned(),
                    this,
                    control,
                    control_name: control_name.to_owned(),
                    budget,
                })
                .collect(),
        };
    const NONE: &str = "no revocations";
    let rows = format!("{ROWS} rows in `auth.revocations`, none of which covers the token.");

    let read = reads(&clusters, &token).map(|time| time * 1e9);
    add_role_without_cache(with);
    add_role_without_cache(without);
    let times = calls(&[
        (with, "app", PRESENT, &token),
        (without, "app", PRESENT, &token),
        (with, "fresh", PRESENT, &token),
        (without, "fresh", PRESENT, &token),
    ]);
    let [known, known_control, new, new_control] = times[..] else { unreachable!() };
    let microseconds = |this: f64, control: f64| [this * 1e6, control * 1e6];
    let memory = [with, without].map(|cluster| {
        let client = cluster.as_role("app").client();
        memory_after(client, std::slice::from_ref(&token))
    });
    let effect = effects(with, &key);
    vec![
        table(
            "Reading beside revocations",
            "ns",
            format!("The time of one call in a query with {READS} calls. {rows}"),
            vec![("`auth.user_id()`", read, NONE, Budget::More(1.0))],
        ),
        table(
            "Presenting beside revocations",
            "µs",
            format!("The time of one call of `jwt_session_init`. {rows}"),
            vec![
                ("a known token", microseconds(known, known_control), NONE, Budget::More(0.5)),
                ("a new token", microseconds(new, new_control), NONE, Budget::None),
            ],
        ),
        table(
            "Memory beside revocations",
            "KiB",
            format!("The private memory of a backend. {rows}"),
            vec![("one token", memory, NONE, Budget::None)],
        ),
        table(
            "Effect of a revocation",
            "ms",
            format!(
                "{SESSIONS} sessions with the token are in a transaction. Right after the commit, each gets a \
                 statement that reads the identity, all at once, and rejects the token. {rows}"
            ),
            vec![(
                "from the commit to the last of 500 rejections",
                effect,
                "the answers before the revocation",
                Budget::Within(100.0),
            )],
        ),
    ]
}

/// The time of one call of a reader in seconds, in each cluster.
fn reads(clusters: &[Cluster; 2], token: &str) -> [f64; 2] {
    let mut clients = clusters.each_ref().map(|cluster| cluster.as_role("app").client());
    let mut runners: Vec<Runner<'_>> = Vec::new();
    for client in &mut clients {
        assert_eq!(present(client, token), "00000");
        let query = format!(
            "SELECT count(*) FROM generate_series(1, {READS}) n WHERE auth.user_id() = n::text"
        );
        let statement = client.prepare(&query).unwrap();
        runners.push(Box::new(move || {
            client.query_one(&statement, &[]).unwrap();
        }));
    }
    let times = shortest(15, &mut runners);
    [times[0], times[1]].map(|time| time / f64::from(READS))
}

/// The time in milliseconds until all sessions have answered a statement that reads the identity, sent to all of them
/// at once: after the commit of a revocation, when each must be rejected, and before it.
fn effects(cluster: &Cluster, key: &Key) -> [f64; 2] {
    let mut sessions: Vec<Wire> =
        (0..SESSIONS).map(|_| Wire::connect(&cluster.as_role("app")).unwrap()).collect();
    let mut admin = cluster.admin();
    let (mut effects, mut trips) = (Vec::new(), Vec::new());
    for round in 0..5 {
        let (sub, now) = (format!("thief {round}"), harness::now());
        let token = key.sign(&json!({"sub": sub, "iat": now, "exp": now + 3600}));
        for session in &mut sessions {
            assert_eq!(session.run("ROLLBACK; BEGIN"), "00000");
            assert_eq!(session.present(&token, true), "00000");
        }
        let mut ask_all = |is_revoked: bool| {
            let start = Instant::now();
            for session in &mut sessions {
                session.statement("SELECT auth.user_id()", &[]);
                session.send().unwrap();
            }
            for session in &mut sessions {
                let answers = session.answers().unwrap();
                assert_eq!(answers.iter().any(Result::is_err), is_revoked, "the revocation counts");
            }
            start.elapsed().as_secs_f64() * 1e3
        };
        trips.push((0..3).map(|_| ask_all(false)).fold(f64::INFINITY, f64::min));
        admin.query_one("SELECT auth.revoke(subject => $1)", &[&sub]).unwrap();
        effects.push(ask_all(true));
    }
    [median(effects), median(trips)]
}
