//! The figures that the dashboard of `examples/monitoring` shows, from a server with two providers, one of which has
//! a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use harness::{Behaviour, Cluster, Collector, Idp, Preload, Sample, now, present, run};
use mint::Key;
use postgres::Client;
use serde_json::{Value, json};

use crate::report::Panel;

const CLIENTS: u64 = 16;

/// The length of the run and of a step of it.
const END: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_secs(2);

/// When the first provider replaces its key while it answers no request, and when it answers again.
const FAILURE: Duration = Duration::from_secs(40);
const RECOVERY: Duration = Duration::from_secs(60);

/// From then on, some clients present tokens that have expired.
const EXPIRY: Duration = Duration::from_secs(80);

/// Runs the server, and returns the panels of the dashboard.
pub fn panels() -> Vec<Panel> {
    let idps = [Idp::start(), Idp::start()];
    let keys = [harness::key("a1"), harness::key("b1"), harness::key("a2")];
    idps[0].set_keys(&[&keys[0]]);
    idps[1].set_keys(&[&keys[1]]);
    // Both servers of keys need their authority in one file.
    let ca_file = std::env::temp_dir().join(format!("pg_session_jwt.ca.{}", std::process::id()));
    let authorities = idps.each_ref().map(|idp| std::fs::read_to_string(idp.ca_file()).unwrap());
    std::fs::write(&ca_file, authorities.concat()).unwrap();
    let settings = [("pg_session_jwt.jwks_ca_file", ca_file.to_str().expect("a path in UTF-8"))];
    let cluster = Cluster::start(Preload::Shared, &settings);
    let mut admin = cluster.admin();
    let add = "SELECT auth.add_provider($1, issuer => $2, jwks_url => $3)";
    for (name, idp) in ["acme", "globex"].into_iter().zip(&idps) {
        let issuer = format!("https://{name}.example");
        admin.execute(add, &[&name, &issuer, &idp.jwks_url()]).unwrap();
    }
    let good = "SELECT count(*)::text FROM auth.provider_status WHERE state = 'good'";
    harness::wait_for("the keys", || harness::text(&mut admin, good).as_deref() == Some("2"));
    let load = Load {
        signer: RwLock::new(&keys[0]),
        other: &keys[1],
        has_ended: AtomicBool::new(false),
        has_expired_tokens: AtomicBool::new(false),
        users: AtomicU64::new(0),
    };
    let samples = Mutex::new(Vec::new());
    scope(|scope| {
        for number in 0..CLIENTS {
            let (load, cluster) = (&load, &cluster);
            scope.spawn(move || load.send(number, cluster.as_role("app").client()));
        }
        let begin = Instant::now();
        let collector = Collector::example();
        let mut phases =
            [(FAILURE, Phase::Failure), (RECOVERY, Phase::Recovery), (EXPIRY, Phase::Expiry)]
                .into_iter()
                .peekable();
        while begin.elapsed() < END {
            while let Some((_, phase)) = phases.next_if(|(at, _)| begin.elapsed() >= *at) {
                match phase {
                    Phase::Failure => {
                        idps[0].behave(Behaviour::Status(503));
                        idps[0].set_keys(&[&keys[2]]);
                        *load.signer.write().unwrap() = &keys[2];
                    }
                    Phase::Recovery => {
                        idps[0].behave(Behaviour::Serve);
                        run(&mut admin, "SELECT auth.refresh_provider('acme')");
                    }
                    Phase::Expiry => load.has_expired_tokens.store(true, Ordering::Relaxed),
                }
            }
            let time = begin.elapsed().as_secs_f64();
            samples.lock().unwrap().push((time, now() as f64, collector.collect(&mut admin)));
            sleep(STEP);
        }
        load.has_ended.store(true, Ordering::Relaxed);
    });
    let _ = std::fs::remove_file(&ca_file);
    let samples = samples.into_inner().unwrap();
    let rate = |metric, label| series(&samples, metric, label, Form::Rate);
    let value = |metric, label| series(&samples, metric, label, Form::Value);
    let named = |name: &str, mut series: Vec<Series>| {
        series.iter_mut().for_each(|series| series.0 = name.to_owned());
        series
    };
    let of = |suffix: &str, mut series: Vec<Series>| {
        series.iter_mut().for_each(|series| series.0.push_str(suffix));
        series
    };
    let panel =
        |title, unit, parts: Vec<Vec<Series>>| Panel { title, unit, series: parts.concat() };
    vec![
        panel("Accepted tokens", "per second", vec![rate("accepted_total", 0)]),
        panel("Rejected tokens", "per second", vec![without_zeros(rate("rejected_total", 1))]),
        panel(
            "Verified signatures and cache hits",
            "per second",
            vec![
                named("verified", rate("verified_total", 0)),
                named("cache hits", rate("cache_hits_total", 0)),
                named("shared cache hits", rate("shared_cache_hits_total", 0)),
            ],
        ),
        panel("Sessions with an identity", "sessions", vec![value("sessions", 1)]),
        panel(
            "Fetches of keys",
            "since the start",
            vec![
                value("refreshes_total", 1),
                of(", failed", without_zeros(value("refresh_failures_total", 1))),
            ],
        ),
        panel(
            "Age of keys",
            "seconds",
            vec![series(&samples, "last_refresh_seconds", 1, Form::Age)],
        ),
    ]
}

enum Phase {
    Failure,
    Recovery,
    Expiry,
}

/// What the clients send.
struct Load<'k> {
    /// The key that the first provider signs with.
    signer: RwLock<&'k Key>,
    other: &'k Key,
    has_ended: AtomicBool,
    has_expired_tokens: AtomicBool,
    users: AtomicU64,
}

impl Load<'_> {
    /// Presents a token of one of some users every few milliseconds, and now and then that of a new user.
    fn send(&self, number: u64, mut client: Client) {
        let mut tokens: Vec<String> = Vec::new();
        let mut round = number;
        while !self.has_ended.load(Ordering::Relaxed) {
            round += 1;
            if tokens.len() < 4 || round.is_multiple_of(8) {
                let claims = self.claims(number);
                let token = match number % 4 {
                    0 => self.other.sign(&claims),
                    _ => self.signer.read().unwrap().sign(&claims),
                };
                tokens.insert(0, token);
                tokens.truncate(4);
            }
            let place = usize::try_from(round).unwrap_or(0) % tokens.len();
            present(&mut client, &tokens[place]);
            sleep(Duration::from_millis(10 + number));
        }
    }

    fn claims(&self, number: u64) -> Value {
        let user = self.users.fetch_add(1, Ordering::Relaxed);
        let issuer = if number.is_multiple_of(4) { "globex" } else { "acme" };
        let is_old = number.is_multiple_of(5) && self.has_expired_tokens.load(Ordering::Relaxed);
        let exp = if is_old { now() - 3600 } else { now() + 600 };
        json!({"iss": format!("https://{issuer}.example"), "sub": format!("user-{user}"), "exp": exp})
    }
}

type Series = (String, Vec<(f64, f64)>);

/// What is shown of a metric.
#[derive(Clone, Copy)]
enum Form {
    Value,
    /// The increase in a second.
    Rate,
    /// The seconds since the value.
    Age,
}

/// One series for each value of the label at a place.
fn series(
    samples: &[(f64, f64, Vec<Sample>)],
    metric: &str,
    label: usize,
    form: Form,
) -> Vec<Series> {
    let metric = format!("pg_session_jwt_{metric}");
    let of_metric = |samples: &[Sample]| -> BTreeMap<String, f64> {
        let found = samples.iter().filter(|sample| sample.metric == metric);
        found.map(|sample| (sample.labels[label].clone(), sample.value)).collect()
    };
    let names: BTreeSet<String> =
        samples.iter().flat_map(|(.., samples)| of_metric(samples).into_keys()).collect();
    let mut values: BTreeMap<String, Vec<(f64, f64, f64)>> = BTreeMap::new();
    for (time, clock, samples) in samples {
        let found = of_metric(samples);
        for name in &names {
            // A metric without a row counts nothing.
            let value = found.get(name).copied().unwrap_or_default();
            values.entry(name.clone()).or_default().push((*time, *clock, value));
        }
    }
    let series = values.into_iter().map(|(name, points)| {
        let points = match form {
            Form::Value => points.iter().map(|(time, _, value)| (*time, *value)).collect(),
            Form::Age => points.iter().map(|(time, clock, value)| (*time, clock - value)).collect(),
            Form::Rate => points
                .windows(2)
                .map(|pair| (pair[1].0, (pair[1].2 - pair[0].2) / (pair[1].0 - pair[0].0)))
                .collect(),
        };
        (name, points)
    });
    series.collect()
}

fn without_zeros(mut series: Vec<Series>) -> Vec<Series> {
    series.retain(|(_, points)| points.iter().any(|(_, value)| *value > 0.0));
    series
}
