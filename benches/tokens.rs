//! The cost of a token: at its first verification, and when it is presented again.

use std::hint::black_box;
use std::time::Instant;

use harness::{Cluster, Preload, Site, now, run};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{DecodingKey, Validation};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::{Value, json};
use session_jwt::{Provider, Verifier};

use crate::measure::{Runner, medians, shortest};
use crate::report::{Budget, Growth, Line, Table};

const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::HS256,
    Algorithm::RS256,
    Algorithm::PS256,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

const ISSUER: &str = "https://issuer.example";

fn provider(issuer: &str, keys: &[Value]) -> Value {
    json!({"issuer": issuer, "audience": "todos", "jwks": {"keys": keys}})
}

/// Claims with a padding of that many bytes.
fn padded(bytes: usize) -> Value {
    let mut claims = crate::claims();
    if bytes > 0 {
        claims["padding"] = "x".repeat(bytes).into();
    }
    claims
}

/// Verification in this process, compared with a library that checks less.
pub fn verification() -> Table {
    const TIMES: usize = 50;
    let mut lines = Vec::new();
    for algorithm in ALGORITHMS {
        let key = Key::generate(algorithm).with_kid("k");
        let token = key.sign(&padded(0));
        let providers = provider(ISSUER, &[key.public_jwk()]).to_string();
        let verifier = Verifier::new(Provider::parse_all(&providers).unwrap()).unwrap();
        let jwk: Jwk = serde_json::from_value(key.public_jwk()).unwrap();
        let material = DecodingKey::from_jwk(&jwk).unwrap();
        let mut validation = Validation::new(algorithm.name().parse().unwrap());
        validation.set_audience(&["todos"]);
        validation.set_issuer(&[ISSUER]);
        let now = now();
        let mut runners: [Runner<'_>; 2] = [
            Box::new(|| {
                for _ in 0..TIMES {
                    black_box(verifier.verify(black_box(&token), now).unwrap());
                }
            }),
            Box::new(|| {
                for _ in 0..TIMES {
                    let token = black_box(&token);
                    black_box(
                        jsonwebtoken::decode::<Value>(token, &material, &validation).unwrap(),
                    );
                }
            }),
        ];
        let times = shortest(150, &mut runners);
        lines.push(Line {
            what: algorithm.name(),
            this: times[0] / TIMES as f64 * 1e6,
            control: times[1] / TIMES as f64 * 1e6,
            control_name: "`jsonwebtoken::decode::<Value>`".to_owned(),
            budget: Budget::Most(1.0),
        });
    }
    Table {
        title: "First verification",
        explanation:
            "The verification of one token with all checks, in one process without Postgres."
                .to_owned(),
        unit: "µs",
        lines,
    }
}

/// Creates a role whose sessions cache no tokens.
pub fn add_role_without_cache(cluster: &Cluster) {
    run(
        &mut cluster.admin(),
        "CREATE ROLE fresh LOGIN; ALTER ROLE fresh SET pg_session_jwt.token_cache_size = 0",
    );
}

/// The number of calls of a function in one query.
const CALLS: i32 = 200;

/// The shortest time of one call within a query, in seconds, for each cluster, role, call and text.
pub fn calls(calls: &[(&Cluster, &str, &str, &str)]) -> Vec<f64> {
    let mut clients: Vec<Client> =
        calls.iter().map(|(cluster, role, ..)| cluster.as_role(role).client()).collect();
    let mut runners: Vec<Runner<'_>> = Vec::new();
    for (client, (.., call, text)) in clients.iter_mut().zip(calls) {
        let query = format!("SELECT count({call}::text) FROM generate_series(1, $2::int)");
        let statement = client.prepare(&query).unwrap();
        let text = (*text).to_owned();
        runners.push(Box::new(move || {
            client.query_one(&statement, &[&text, &CALLS]).unwrap();
        }));
    }
    shortest(40, &mut runners).into_iter().map(|time| time / f64::from(CALLS)).collect()
}

/// Each backend verifies signatures itself.
pub const NOT_SHARED: (&str, &str) = ("pg_session_jwt.shared_cache_size", "0");

pub const PRESENT: &str = "auth.jwt_session_init($1, true)";
const SET_CONFIG: &str = "set_config('bench.claims', $1, true)";

/// The cost of presenting tokens of each algorithm, new ones and cached ones.
pub fn presenting() -> Table {
    let keys = ALGORITHMS.map(|algorithm| (algorithm, Key::generate(algorithm).with_kid("k")));
    let providers: Value = keys
        .iter()
        .map(|(algorithm, key)| provider(&algorithm.name(), &[key.public_jwk()]))
        .collect();
    let providers = ("pg_session_jwt.providers", &*providers.to_string());
    let alone = &Cluster::start(Preload::Shared, &[providers, NOT_SHARED]);
    let shared = &Cluster::start(Preload::Shared, &[providers]);
    add_role_without_cache(alone);
    add_role_without_cache(shared);
    let mut lines = Vec::new();
    let mut of_secret = f64::INFINITY;
    for (algorithm, key) in &keys {
        let mut claims = padded(0);
        claims["iss"] = algorithm.name().into();
        let token = key.sign(&claims);
        let times = calls(&[
            (alone, "app", PRESENT, &token),
            (alone, "fresh", PRESENT, &token),
            (shared, "fresh", PRESENT, &token),
            (alone, "app", SET_CONFIG, &token),
        ]);
        if *algorithm == Algorithm::HS256 {
            of_secret = times[1];
        }
        let mut line = |what: &str, time: f64, control: f64, name: &str, budget| {
            lines.push(Line {
                what: format!("`jwt_session_init`, {}, {what}", algorithm.name()),
                this: time * 1e6,
                control: control * 1e6,
                control_name: name.to_owned(),
                budget,
            });
        };
        const SET: &str = "`set_config('…', token, true)`";
        line("verified before", times[0], times[3], SET, Budget::Most(2.0));
        line("for the first time", times[1], times[3], SET, Budget::None);
        let what = "verified by another backend";
        line(what, times[2], times[3], SET, Budget::Within(12.0));
        line(what, times[2], of_secret, "HS256 for the first time", Budget::Most(1.5));
    }
    Table {
        title: "Presenting a token",
        explanation: format!(
            "The time of one call, in a query with {CALLS} calls. \"For the first time\" is measured without \
             caches (`token_cache_size = 0`, `shared_cache_size = 0`), \"verified by another backend\" with \
             the shared cache only."
        ),
        unit: "µs",
        lines,
    }
}

/// The cost of presenting tokens of growing size.
pub fn token_size(site: &Site) -> Growth {
    add_role_without_cache(&site.cluster);
    let mut series: Vec<(&'static str, Vec<(f64, f64)>)> = vec![
        ("first time", Vec::new()),
        ("verified before", Vec::new()),
        ("set_config", Vec::new()),
    ];
    for bytes in [0, 700, 2_200, 5_200, 11_200, 11_800] {
        let token = site.key.sign(&padded(bytes));
        let cluster = &site.cluster;
        let times = calls(&[
            (cluster, "fresh", PRESENT, &token),
            (cluster, "app", PRESENT, &token),
            (cluster, "app", SET_CONFIG, &token),
        ]);
        for ((_, points), time) in series.iter_mut().zip(times) {
            points.push((token.len() as f64, time * 1e6));
        }
    }
    Growth { title: "Presenting a token", axis: "bytes of the token", unit: "µs", series }
}

/// The cost of a session's first token, and of further new tokens, for growing numbers of keys and providers.
pub fn keys_and_providers() -> Vec<Growth> {
    let key = Key::generate(Algorithm::ES256).with_kid("mine");
    let token = key.sign(&padded(0));
    let mine = provider(ISSUER, &[key.public_jwk()]);
    let other = Key::generate(Algorithm::ES256).public_jwk();
    let many_keys = |count: usize| {
        let with_kid = |n: usize| {
            let mut jwk = other.clone();
            jwk["kid"] = format!("other-{n}").into();
            jwk
        };
        let mut keys: Vec<Value> = (1..count).map(with_kid).collect();
        keys.push(key.public_jwk());
        provider(ISSUER, &keys)
    };
    let many_providers = |count: usize| {
        let issuers = (1..count).map(|n| format!("https://issuer-{n}.example"));
        let mut all: Vec<Value> =
            issuers.map(|issuer| provider(&issuer, std::slice::from_ref(&other))).collect();
        all.push(mine.clone());
        Value::from(all)
    };
    [
        ("Keys of one provider", "keys", &many_keys as &dyn Fn(usize) -> Value),
        ("Providers", "providers", &many_providers),
    ]
    .into_iter()
    .map(|(title, axis, document)| {
        let mut series: Vec<(&'static str, Vec<(f64, f64)>)> =
            vec![("a session's first token", Vec::new()), ("further tokens", Vec::new())];
        for count in [1, 10, 100, 1000] {
            let document = document(count).to_string();
            let settings = [("pg_session_jwt.providers", document.as_str()), NOT_SHARED];
            let cluster = Cluster::start(Preload::Shared, &settings);
            add_role_without_cache(&cluster);
            let first = medians(
                15,
                &mut [Box::new(|| {
                    let mut client = cluster.as_role("app").client();
                    let statement = client.prepare("SELECT auth.jwt_session_init($1)").unwrap();
                    let start = Instant::now();
                    client.query_one(&statement, &[&token]).unwrap();
                    start.elapsed().as_secs_f64()
                })],
            );
            let further = calls(&[(&cluster, "fresh", PRESENT, &token)]);
            for ((_, points), time) in series.iter_mut().zip([first[0], further[0]]) {
                points.push((count as f64, time * 1e6));
            }
        }
        Growth { title, axis, unit: "µs", series }
    })
    .collect()
}
