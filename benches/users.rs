//! Many users on few connections: the shared cache of verified signatures.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use fastrand::Rng;
use harness::{Cluster, Pooler, Preload, Wire, run};
use mint::{Algorithm, Key};

use crate::measure::medians;
use crate::report::{Budget, Growth, Line, Table};

/// The users that take turns in random order, and the connections of the pooler to the server.
const USERS: usize = 10_000;
const CONNECTIONS: usize = 20;

const ALGORITHMS: [Algorithm; 3] = [Algorithm::ES256, Algorithm::RS256, Algorithm::HS256];

/// A cluster that trusts a key, with PgBouncer in front of it.
struct Server {
    cluster: Cluster,
}

impl Server {
    /// `shared` is the number of tokens whose signatures are shared.
    fn start(key: &Key, shared: usize) -> Self {
        let settings = [
            ("pg_session_jwt.jwk", &*key.public_jwk().to_string()),
            ("pg_session_jwt.shared_cache_size", &*shared.to_string()),
            ("max_connections", "150"),
        ];
        let cluster = Cluster::start(Preload::Shared, &settings);
        run(
            &mut cluster.admin(),
            "CREATE TABLE pooled (id int PRIMARY KEY);
             INSERT INTO pooled SELECT n FROM generate_series(1, 1000) n; GRANT SELECT ON pooled TO app",
        );
        Self { cluster }
    }

    fn pooler(&self, connections: usize) -> Pooler<'_> {
        let connections = connections.to_string();
        let settings = [("default_pool_size", &*connections), ("max_client_conn", "200")];
        self.cluster.pooler("transaction", &settings)
    }

    /// Has each token verified once.
    fn present_all(&self, tokens: &[String]) {
        let mut client = Wire::connect(&self.cluster.as_role("app")).unwrap();
        for token in tokens {
            assert_eq!(client.run(token), harness::SUCCESS);
        }
    }
}

/// The statements that set the identity of each user, by a token and by claims.
struct Statements {
    tokens: Vec<String>,
    claims: Vec<String>,
}

impl Statements {
    fn new(key: &Key, users: usize) -> Self {
        let (mut tokens, mut all_claims) = (Vec::new(), Vec::new());
        for user in 0..users {
            let mut claims = crate::claims();
            claims["sub"] = format!("user-{user:07}").into();
            tokens.push(format!("SELECT auth.jwt_session_init('{}', true)", key.sign(&claims)));
            all_claims.push(format!("SELECT set_config('request.jwt.claims', '{claims}', true)"));
        }
        Self { tokens, claims: all_claims }
    }
}

/// The transactions per second of so many clients. Each transaction sets the identity of a random user, and reads one
/// row, in four messages of the simple protocol.
fn rate(pooler: &Pooler<'_>, clients: usize, statements: &[String]) -> f64 {
    const WARM_UP: Duration = Duration::from_millis(300);
    const MEASURED: Duration = Duration::from_secs(2);
    let (count, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    scope(|scope| {
        for client in 0..clients {
            let (count, is_over) = (&count, &is_over);
            scope.spawn(move || {
                let mut random = Rng::with_seed(client as u64);
                let mut client = Wire::connect(&pooler.as_role("app")).unwrap();
                while !is_over.load(Ordering::Relaxed) {
                    let identity = &statements[random.usize(..statements.len())];
                    let read = "SELECT count(*) FROM pooled WHERE id = 7";
                    for statement in ["BEGIN", identity, read, "COMMIT"] {
                        for answer in client.query(statement).unwrap() {
                            answer.unwrap_or_else(|error| panic!("{}", error.sqlstate()));
                        }
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        sleep(WARM_UP);
        let (start, before) = (Instant::now(), count.load(Ordering::Relaxed));
        sleep(MEASURED);
        let done = count.load(Ordering::Relaxed) - before;
        let elapsed = start.elapsed();
        is_over.store(true, Ordering::Relaxed);
        done as f64 / elapsed.as_secs_f64()
    })
}

/// The median rates of so many clients, for each pooler and its statements.
fn rates_of(rounds: usize, clients: usize, cases: &[(&Pooler<'_>, &[String])]) -> Vec<f64> {
    let mut runners: Vec<Box<dyn FnMut() -> f64 + '_>> = Vec::new();
    for (pooler, statements) in cases {
        runners.push(Box::new(move || rate(pooler, clients, statements)));
    }
    medians(rounds, &mut runners)
}

/// The rates with the default shared cache and without it, beside claims.
pub fn rates() -> Table {
    let mut lines = Vec::new();
    for algorithm in ALGORITHMS {
        let key = Key::generate(algorithm);
        let Statements { tokens, claims } = Statements::new(&key, USERS);
        let servers = [USERS, 0].map(|size| Server::start(&key, size));
        servers[0].present_all(&tokens);
        let [shared, alone] = &servers.each_ref().map(|server| server.pooler(CONNECTIONS));
        let cases = [(shared, &*tokens), (alone, &*tokens), (shared, &*claims)];
        let rates = rates_of(5, CONNECTIONS, &cases);
        for (what, this, budget) in [
            ("with the shared cache", rates[0], Budget::Least(0.96)),
            ("without it", rates[1], Budget::None),
        ] {
            lines.push(Line {
                what: format!("{}, {what}", algorithm.name()),
                this,
                control: rates[2],
                control_name: "`set_config('request.jwt.claims', …, true)`".to_owned(),
                budget,
            });
        }
    }
    Table {
        title: "Many users",
        explanation: format!(
            "{USERS} users in random order through PgBouncer in transaction mode with {CONNECTIONS} server \
             connections, and as many clients. A transaction sets its identity and reads one row. Every token \
             has been verified before, by one of the backends. Clients, PgBouncer and server share the \
             processors. The median of five runs of 2 s."
        ),
        unit: "tps",
        lines,
    }
}

/// The rates for growing numbers of users, and of connections.
pub fn growth() -> Vec<Growth> {
    let key = Key::generate(Algorithm::ES256);
    let servers = [USERS, 10 * USERS, 0].map(|size| Server::start(&key, size));
    let mut users = [
        ("a token, shared cache of 10,000", Vec::new()),
        ("a token, shared cache of 100,000", Vec::new()),
        ("a token, no shared cache", Vec::new()),
        ("set_config", Vec::new()),
    ];
    {
        let [few, many, none] = &servers.each_ref().map(|server| server.pooler(CONNECTIONS));
        for count in [50, 1_000, 10_000, 100_000] {
            let Statements { tokens, claims } = &Statements::new(&key, count);
            for server in &servers[..2] {
                server.present_all(tokens);
            }
            let cases = [(few, &**tokens), (many, tokens), (none, tokens), (few, claims)];
            let rates = rates_of(3, CONNECTIONS, &cases);
            for ((_, points), rate) in users.iter_mut().zip(rates) {
                points.push((count as f64, rate));
            }
        }
    }
    let Statements { tokens, claims } = &Statements::new(&key, USERS);
    servers[0].present_all(tokens);
    let mut connections = [
        ("a token", Vec::new()),
        ("a token, no shared cache", Vec::new()),
        ("set_config", Vec::new()),
    ];
    for count in [1, 5, 20, 50, 100] {
        let (few, none) = (&servers[0].pooler(count), &servers[2].pooler(count));
        let rates = rates_of(3, count, &[(few, tokens), (none, tokens), (few, claims)]);
        for ((_, points), rate) in connections.iter_mut().zip(rates) {
            points.push((count as f64, rate));
        }
    }
    vec![
        Growth { title: "Many users", axis: "users", unit: "tps", series: users.into() },
        Growth {
            title: "10,000 users",
            axis: "connections",
            unit: "tps",
            series: connections.into(),
        },
    ]
}

/// The shared memory of a token, in a cache of the default size.
pub fn shared_memory() -> Table {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let query =
        "SELECT allocated_size FROM pg_shmem_allocations WHERE name = 'pg_session_jwt signatures'";
    let bytes: i64 = cluster.admin().query_one(query, &[]).unwrap().get(0);
    Table {
        title: "Shared memory",
        explanation: format!(
            "The shared memory of verified signatures, for each of the {USERS} tokens of the default \
             `shared_cache_size`. The control is a digest alone."
        ),
        unit: "bytes",
        lines: vec![Line {
            what: "a token".to_owned(),
            this: bytes as f64 / USERS as f64,
            control: 32.0,
            control_name: "SHA-256".to_owned(),
            budget: Budget::Within(100.0),
        }],
    }
}
