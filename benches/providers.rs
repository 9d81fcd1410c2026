//! Providers in the table: the cost of the lookup, and the time until a change takes effect.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use harness::{Cluster, Idp, Preload, Wire, now, present, run, text, wait_for};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::json;

use crate::measure::{median, medians};
use crate::report::{Budget, Line, Table};

/// The number of sessions that notice the removal of a provider.
const SESSIONS: usize = 50;

/// The number of tokens with unknown key ids.
const STORM: usize = 10_000;

fn key(kid: &str) -> Key {
    Key::generate(Algorithm::ES256).with_kid(kid)
}

fn token(key: &Key, issuer: &str) -> String {
    key.sign(&json!({"iss": issuer, "sub": "alice", "exp": now() + 3600}))
}

fn client(cluster: &Cluster) -> Client {
    cluster.as_role("app").client()
}

/// The time in milliseconds that a session takes to accept a token.
fn accepted(client: &mut Client, token: &str) -> f64 {
    let start = Instant::now();
    assert_eq!(present(client, token), "00000");
    start.elapsed().as_secs_f64() * 1e3
}

/// The table of figures about providers.
pub fn providers() -> Table {
    let [setting, one, thousand] = lookups();
    let idp = Idp::start();
    let first = key("first");
    idp.set_keys(&[&first]);
    let ca_file = idp.ca_file().to_str().expect("a path in UTF-8");
    let cluster = Cluster::start(Preload::Shared, &[("pg_session_jwt.jwks_ca_file", ca_file)]);
    add(&cluster, &idp);
    let [known, rotated] = rotations(&cluster, &idp, &first);
    let [round_trip, removed] = removals(&cluster, &idp, &first);
    let (requests, seconds) = storm(&cluster, &idp);
    let line = |what: &str, this: f64, control: f64, control_name: &str, budget| Line {
        what: what.to_owned(),
        this,
        control,
        control_name: control_name.to_owned(),
        budget,
    };
    let none = Budget::None;
    Table {
        title: "Providers in the table",
        explanation: format!(
            "The median time from sending a statement to its answer. For the removal, {SESSIONS} sessions \
             read the identity continuously, within transactions. {STORM} tokens with unknown key ids \
             caused {requests} request(s) to the provider in {seconds:.1} s."
        ),
        unit: "ms",
        lines: vec![
            line(
                "a session's first token, one row",
                one,
                setting,
                "a provider in the settings",
                none,
            ),
            line("a session's first token, 1,000 rows", thousand, one, "one row", none),
            line(
                "the first token after a key rotation",
                rotated,
                known,
                "a new token, known key",
                Budget::Within(80.0),
            ),
            line(
                "from the commit of a removal to the last rejection",
                removed,
                round_trip,
                "a statement of one session",
                none,
            ),
        ],
    }
}

/// The time of a session's first token: with the provider in the settings, in the only row, and in one of a
/// thousand rows.
fn lookups() -> [f64; 3] {
    let key = key("k");
    let jwk = key.public_jwk();
    let setting = json!({"issuer": "issuer-0", "jwks": jwk}).to_string();
    let settings = [("pg_session_jwt.providers", setting.as_str())];
    let rows = |count: i32| {
        let cluster = Cluster::start(Preload::Shared, &[]);
        let fill = "INSERT INTO auth.providers (name, issuer, jwks)
                    SELECT 'provider ' || n, 'issuer-' || n, $1::text::json
                    FROM generate_series(0, $2::integer - 1) n";
        cluster.admin().execute(fill, &[&jwk.to_string(), &count]).unwrap();
        cluster
    };
    let clusters = [Cluster::start(Preload::Shared, &settings), rows(1), rows(1000)];
    let token = token(&key, "issuer-0");
    let mut runners: Vec<Box<dyn FnMut() -> f64>> = Vec::new();
    for cluster in &clusters {
        let token = &token;
        runners.push(Box::new(move || accepted(&mut client(cluster), token)));
    }
    let times = medians(50, &mut runners);
    [times[0], times[1], times[2]]
}

/// The time of a new token with a known key, and of one with a key that the provider has just published.
fn rotations(cluster: &Cluster, idp: &Idp, first: &Key) -> [f64; 2] {
    let (mut admin, mut session) = (cluster.admin(), client(cluster));
    let (mut known, mut rotated) = (Vec::new(), Vec::new());
    for n in 0..21 {
        run(&mut admin, "UPDATE auth.providers SET last_demand = NULL");
        let next = key(&format!("next {n}"));
        let [old, new] = [first, &next].map(|key| token(key, &idp.issuer()));
        idp.set_keys(&[first, &next]);
        known.push(accepted(&mut session, &old));
        rotated.push(accepted(&mut session, &new));
    }
    [median(known), median(rotated)]
}

/// The time of reading the identity, and the time from the commit of a removal until the last session's token
/// is rejected.
fn removals(cluster: &Cluster, idp: &Idp, first: &Key) -> [f64; 2] {
    let token = token(first, &idp.issuer());
    let (mut trips, mut removals) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let ready = Barrier::new(SESSIONS + 1);
        std::thread::scope(|scope| {
            let session = || {
                let mut wire = Wire::connect(&cluster.as_role("app")).unwrap();
                wire.ask("BEGIN", &[]).unwrap().unwrap();
                wire.ask("SELECT auth.jwt_session_init($1)", &[&token]).unwrap().unwrap();
                ready.wait();
                let (start, mut count) = (Instant::now(), 1);
                while wire.ask("SELECT auth.user_id()", &[]).unwrap().is_ok() {
                    count += 1;
                }
                (Instant::now(), start.elapsed().as_secs_f64() * 1e3 / f64::from(count))
            };
            let sessions: Vec<_> = (0..SESSIONS).map(|_| scope.spawn(session)).collect();
            ready.wait();
            std::thread::sleep(Duration::from_millis(500));
            run(&mut cluster.admin(), "SELECT auth.remove_provider('idp')");
            let committed = Instant::now();
            let ended = sessions.into_iter().map(|session| session.join().unwrap());
            let (last, trip) = ended.max_by_key(|(end, _)| *end).unwrap();
            removals.push(last.saturating_duration_since(committed).as_secs_f64() * 1e3);
            trips.push(trip);
        });
        add(cluster, idp);
    }
    [median(trips), median(removals)]
}

/// The number of requests to the provider for tokens with unknown key ids, and the time of all these tokens.
fn storm(cluster: &Cluster, idp: &Idp) -> (usize, f64) {
    run(&mut cluster.admin(), "UPDATE auth.providers SET last_demand = NULL");
    let stranger = Key::generate(Algorithm::ES256);
    let claims = json!({"iss": idp.issuer(), "sub": "mallory", "exp": now() + 3600}).to_string();
    let (before, start) = (idp.requests_for("/jwks.json"), Instant::now());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (stranger, claims) = (&stranger, &claims);
            scope.spawn(move || {
                let mut session = client(cluster);
                for n in 0..STORM / 4 {
                    let header = json!({"alg": "ES256", "kid": format!("{thread}-{n}")});
                    let token = stranger.sign_raw(header.to_string().as_bytes(), claims.as_bytes());
                    assert_eq!(present(&mut session, &token), "28J02");
                }
            });
        }
    });
    (idp.requests_for("/jwks.json") - before, start.elapsed().as_secs_f64())
}

/// Adds the provider, and waits until its keys are fetched.
fn add(cluster: &Cluster, idp: &Idp) {
    let mut admin = cluster.admin();
    let add = "SELECT auth.add_provider('idp', issuer => $1)";
    admin.execute(add, &[&idp.issuer()]).unwrap();
    let fetched = "SELECT (last_success IS NOT NULL)::text FROM auth.providers";
    wait_for("the keys", || text(&mut admin, fetched).as_deref() == Some("true"));
}
