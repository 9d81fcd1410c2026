//! Identities behind PgBouncer, which lends one server connection to one client after the other.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use harness::{Answer, Cluster, Connection, Pooler, Preload, Wire, now};
use mint::{Algorithm, Key};
use serde_json::json;

/// As many as there are rows of two each.
const CLIENTS: usize = 50;

struct Site {
    cluster: Cluster,
    key: Key,
    stranger: Key,
}

impl Site {
    fn new(scope: &str) -> Self {
        let key = Key::generate(Algorithm::ES256);
        let jwk = key.public_jwk().to_string();
        let settings =
            [("pg_session_jwt.jwk", jwk.as_str()), ("pg_session_jwt.identity_scope", scope)];
        let cluster = Cluster::start(Preload::Shared, &settings);
        cluster
            .admin()
            .batch_execute(&format!(
                "CREATE TABLE notes (owner text);
                 INSERT INTO notes SELECT 'user ' || n % {CLIENTS} FROM generate_series(1, 2 * {CLIENTS}) n;
                 CREATE TABLE written (owner text DEFAULT auth.user_id(), writer text);
                 ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
                 ALTER TABLE written ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY own ON notes USING (owner = auth.user_id());
                 CREATE POLICY own ON written USING (owner = auth.user_id());
                 GRANT SELECT ON notes TO app; GRANT INSERT ON written TO app"
            ))
            .unwrap();
        Self { cluster, key, stranger: Key::generate(Algorithm::ES256) }
    }

    fn token(&self, sub: &str) -> String {
        self.key.sign(&json!({"sub": sub, "exp": now() + 600}))
    }
}

fn connect(pooler: &Pooler) -> Wire {
    Wire::connect(&pooler.as_role("app")).unwrap()
}

/// The rows of one column, NULL as nobody, or the SQLSTATE.
fn outcome(answer: &Answer) -> Vec<&str> {
    match answer {
        Ok(rows) => {
            rows.iter().flatten().map(|value| value.as_deref().unwrap_or("nobody")).collect()
        }
        Err(fields) => vec![fields.sqlstate()],
    }
}

fn ask(client: &mut Wire, sql: &str, parameters: &[&str]) -> String {
    outcome(&client.ask(sql, parameters).unwrap()).join(" ")
}

fn who(client: &mut Wire) -> String {
    ask(client, "SELECT auth.user_id()", &[])
}

const SESSION: &str = "SELECT auth.jwt_session_init($1)";
const LOCAL: &str = "SELECT auth.jwt_session_init($1, is_local => true)";
const SERVER: &str = "SELECT pg_backend_pid()";

/// Identities are presented in each transaction, for the transaction.
#[test]
fn transaction_pooling() {
    let site = Site::new("session");
    let pooler = site.cluster.pooler("transaction", &[("default_pool_size", "1")]);
    let [mut first, mut second] = [connect(&pooler), connect(&pooler)];
    assert_eq!(ask(&mut first, SERVER, &[]), ask(&mut second, SERVER, &[]), "one for both");
    for round in 0..10 {
        for (client, name) in [(&mut first, "user 1"), (&mut second, "user 2")] {
            client.statement("BEGIN", &[]);
            client.statement("SELECT auth.user_id()", &[]);
            client.statement(LOCAL, &[&site.token(name)]);
            client.statement("SELECT owner FROM notes", &[]);
            client.statement("COMMIT", &[]);
            let answers = client.sync().unwrap();
            assert_eq!(outcome(&answers[1]), ["nobody"], "round {round}");
            assert_eq!(outcome(&answers[3]), [name, name], "round {round}");
            assert_eq!(who(client), "nobody");
        }
    }

    // What a client presents for the session stays with the connection, which the next client
    // gets. If that presents a token that is refused, it is nobody.
    ask(&mut first, SESSION, &[&site.token("user 1")]);
    assert_eq!(who(&mut second), "user 1");
    assert_eq!(ask(&mut second, LOCAL, &["rubbish"]), "28J01");
    assert_eq!(who(&mut second), "nobody");
    assert_eq!(who(&mut first), "nobody");
}

/// The same mistake where no identity outlives its transaction.
#[test]
fn transaction_pooling_with_identity_scope() {
    let site = Site::new("transaction");
    let pooler = site.cluster.pooler("transaction", &[("default_pool_size", "1")]);
    let [mut first, mut second] = [connect(&pooler), connect(&pooler)];
    let token = site.token("user 1");
    for careless in [
        SESSION.replace("$1", &format!("'{token}'")),
        format!("SET pg_session_jwt.jwt = '{token}'"),
    ] {
        assert!(first.query(&careless).unwrap().iter().all(Result::is_ok));
        assert_eq!(who(&mut second), "nobody");
        // In a transaction it does what was meant.
        let answers = first.query(&format!("BEGIN; {careless}; SELECT owner FROM notes; COMMIT"));
        assert_eq!(outcome(&answers.unwrap()[2]), ["user 1", "user 1"]);
        assert_eq!(who(&mut second), "nobody");
    }
}

/// PgBouncer sends `server_reset_query`, which is DISCARD ALL, before it lends a connection on.
#[test]
fn session_pooling() {
    let site = Site::new("session");
    let pooler = site.cluster.pooler("session", &[("default_pool_size", "1")]);
    let mut last = None;
    for number in 0..5 {
        let mut client = connect(&pooler);
        assert_eq!(who(&mut client), "nobody", "client {number}");
        let name = format!("user {number}");
        ask(&mut client, SESSION, &[&site.token(&name)]);
        assert_eq!(who(&mut client), name);
        let server = ask(&mut client, SERVER, &[]);
        assert!(last.is_none_or(|last| last == server), "one connection for all");
        last = Some(server);
    }

    // Without it, the next client is the last one. `identity_scope` is no help, for it would end
    // identities within the session too.
    let settings = [("default_pool_size", "1"), ("server_reset_query", "")];
    let pooler = site.cluster.pooler("session", &settings);
    ask(&mut connect(&pooler), SESSION, &[&site.token("user 1")]);
    assert_eq!(who(&mut connect(&pooler)), "user 1");
}

/// A transaction block is refused; what is sent before one `Sync` is one transaction nevertheless.
#[test]
fn statement_pooling() {
    let site = Site::new("session");
    let pooler = site.cluster.pooler("statement", &[("default_pool_size", "1")]);
    let mut client = connect(&pooler);
    assert!(client.query("BEGIN").is_err(), "PgBouncer closes the connection");
    let mut client = connect(&pooler);
    // For the transaction: over when the statement is.
    assert_eq!(ask(&mut client, LOCAL, &[&site.token("user 1")]), "");
    assert_eq!(who(&mut client), "nobody");
    // For the session: anybody's.
    assert_eq!(ask(&mut client, SESSION, &[&site.token("user 1")]), "");
    assert_eq!(who(&mut connect(&pooler)), "user 1");
    assert_eq!(ask(&mut client, SESSION, &[""]), "");
    // Both in one pipeline.
    client.statement(LOCAL, &[&site.token("user 1")]);
    client.statement("SELECT owner FROM notes", &[]);
    assert_eq!(outcome(&client.sync().unwrap()[1]), ["user 1", "user 1"]);
    assert_eq!(who(&mut client), "nobody");
}

// Many clients

/// What clients do besides what they should.
#[derive(Clone, Copy)]
struct Storm {
    /// How many transactions all clients together see through.
    transactions: u64,
    /// Presents tokens for the session, which `identity_scope` is there to forgive.
    careless: bool,
    /// Whether a transaction may be more than one pipeline.
    blocks: bool,
    /// How often a server connection is killed. Running statements are cancelled ten times as
    /// often.
    kill: Duration,
    /// Whether a client leaves after a few transactions, as session pooling needs it.
    leave: bool,
    progress: bool,
}

/// What has happened, by name.
#[derive(Default)]
struct Tally(Mutex<BTreeMap<&'static str, u64>>);

impl Tally {
    fn count(&self, what: &'static str) {
        *self.0.lock().unwrap().entry(what).or_default() += 1;
    }

    fn get(&self, what: &str) -> u64 {
        self.0.lock().unwrap().get(what).copied().unwrap_or_default()
    }

    fn say(&self) -> String {
        let tally = self.0.lock().unwrap();
        tally.iter().map(|(what, count)| format!("{what}: {count}")).collect::<Vec<_>>().join(", ")
    }
}

/// One client of many, with a name of its own.
struct Guest<'a> {
    storm: Storm,
    site: &'a Site,
    connection: Connection,
    tally: &'a Tally,
    name: String,
    tokens: Vec<String>,
    random: Rng,
    client: Wire,
}

impl Guest<'_> {
    /// Whether what came back is another's: the end of the test.
    fn check(&self, answer: &Answer) {
        for found in outcome(answer) {
            let mine = found == self.name || matches!(found, "nobody" | "" | "57014" | "25P02");
            assert!(mine, "{} was answered {found}", self.name);
        }
    }

    fn token(&mut self) -> String {
        if self.tokens.len() < 5 || self.random.u8(..100) == 0 {
            self.tokens.truncate(4);
            let claims = json!({"sub": self.name, "exp": now() + 600, "n": self.random.u32(..)});
            self.tokens.push(self.site.key.sign(&claims));
        }
        self.random.choice(&self.tokens).unwrap().clone()
    }

    /// A token that is refused, and with what.
    fn bad_token(&mut self) -> (String, &'static str) {
        let claims = json!({"sub": self.name, "exp": now() + 600});
        match self.random.u8(..3) {
            0 => (self.site.stranger.sign(&claims), "28J03"),
            1 => (self.site.key.sign(&json!({"sub": self.name, "exp": now() - 600})), "28J04"),
            _ => (self.token() + ".", "28J01"),
        }
    }

    fn init(&self) -> &'static str {
        if self.storm.careless { SESSION } else { LOCAL }
    }

    /// Presents, reads and writes in one round trip.
    fn pipeline(&mut self) -> io::Result<()> {
        let (token, name) = (self.token(), self.name.clone());
        let block = self.storm.blocks && self.random.bool();
        if block {
            self.client.statement("BEGIN", &[]);
        }
        self.client.statement(self.init(), &[&token]);
        self.client.statement("SELECT auth.user_id()", &[]);
        self.client.statement("INSERT INTO written (writer) VALUES ($1)", &[&name]);
        self.client.statement("SELECT owner FROM notes", &[]);
        if block {
            self.client.statement("COMMIT", &[]);
        }
        let answers = self.client.sync()?;
        answers.iter().for_each(|answer| self.check(answer));
        if answers.iter().all(Result::is_ok) {
            let first = usize::from(block);
            assert_eq!(outcome(&answers[first + 1]), [&name]);
            assert_eq!(outcome(&answers[first + 3]), [&name, &name]);
        }
        self.settle()
    }

    /// The same, a round trip each.
    fn conversation(&mut self) -> io::Result<()> {
        let (token, name) = (self.token(), self.name.clone());
        self.client.query("BEGIN")?;
        let local = self.random.bool();
        if local {
            self.client.query("SAVEPOINT s")?;
        }
        let init = self.init();
        let _ = self.client.ask(init, &[&token])?;
        let answer = self.client.ask("SELECT auth.user_id()", &[])?;
        self.check(&answer);
        if local && answer.is_ok() {
            self.client.query("ROLLBACK TO s")?;
            let answer = self.client.ask("SELECT auth.user_id()", &[])?;
            // In session pooling, one's own from before the transaction is there again.
            let back = match outcome(&answer)[..] {
                ["nobody" | "57014" | "25P02"] => true,
                [found] => self.storm.leave && found == name,
                _ => false,
            };
            assert!(back, "{name}: {answer:?}");
            let _ = self.client.ask(init, &[&token])?;
        }
        let answer = self.client.ask("SELECT owner FROM notes", &[])?;
        self.check(&answer);
        if answer.is_ok() && self.client.status() == 'T' {
            assert_eq!(outcome(&answer), [&name, &name]);
        }
        self.client.query("COMMIT")?;
        Ok(())
    }

    /// Without a token one is nobody, whoever was there before.
    fn nobody(&mut self) -> io::Result<()> {
        self.client.statement("SELECT auth.user_id()", &[]);
        self.client.statement("SELECT owner FROM notes", &[]);
        let answers = self.client.sync()?;
        let [Ok(_), Ok(rows)] = &answers[..] else { return Ok(()) };
        assert_eq!(outcome(&answers[0]), ["nobody"], "{}", self.name);
        assert!(rows.is_empty(), "{}: {rows:?}", self.name);
        self.tally.count("without a token");
        Ok(())
    }

    fn refused(&mut self) -> io::Result<()> {
        let (token, code) = self.bad_token();
        self.client.statement(self.init(), &[&token]);
        self.client.statement("SELECT owner FROM notes", &[]);
        let answers = self.client.sync()?;
        let first = outcome(&answers[0]);
        assert!(first == [code] || first == ["57014"], "{}: {answers:?}", self.name);
        self.tally.count("refused tokens");
        Ok(())
    }

    /// A statement is cancelled by the client, in the middle of things.
    fn cancelled(&mut self) -> io::Result<()> {
        let token = self.token();
        self.client.statement(self.init(), &[&token]);
        self.client.statement("SELECT auth.user_id() FROM pg_sleep(0.05)", &[]);
        let cancel = self.client.canceller();
        let pause = Duration::from_micros(self.random.u64(..50_000));
        let answers = thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(pause);
                // The server may be gone by now.
                let _ = cancel();
            });
            self.client.sync()
        })?;
        answers.iter().for_each(|answer| self.check(answer));
        if answers.iter().any(|answer| outcome(answer) == ["57014"]) {
            self.tally.count("statements cancelled by the client");
        }
        self.settle()
    }

    /// The client dies within a transaction.
    fn dead(&mut self) -> io::Result<()> {
        let token = self.token();
        if self.storm.blocks {
            self.client.statement("BEGIN", &[]);
        }
        self.client.statement(self.init(), &[&token]);
        self.client.statement("SELECT owner FROM notes", &[]);
        self.client.flush()?;
        self.tally.count("clients that died");
        self.reconnect();
        Ok(())
    }

    /// Ends a transaction that a cancel request has left open.
    fn settle(&mut self) -> io::Result<()> {
        if self.client.status() != 'I' {
            self.client.query("ROLLBACK")?;
        }
        Ok(())
    }

    fn reconnect(&mut self) {
        let start = Instant::now();
        loop {
            match Wire::connect(&self.connection) {
                Ok(client) => break self.client = client,
                Err(error) if start.elapsed() > Duration::from_secs(30) => panic!("{error}"),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn transaction(&mut self) {
        let outcome = match self.random.u16(..1000) {
            0..50 => self.refused(),
            50..100 if !self.storm.leave => self.nobody(),
            100..103 => self.cancelled(),
            103..113 => self.dead(),
            113..300 if self.storm.blocks => self.conversation(),
            _ => self.pipeline(),
        };
        if outcome.is_err() {
            self.tally.count("connections lost");
            self.reconnect();
        }
        if self.storm.leave && self.random.u8(..10) == 0 {
            self.reconnect();
            let lost = self.nobody().is_err();
            if lost {
                self.reconnect();
            }
        }
    }
}

fn storm(site: &Site, pooler: &Pooler, storm: Storm) -> Tally {
    let tally = Tally::default();
    let (left, over) = (AtomicU64::new(storm.transactions), AtomicBool::new(false));
    let take =
        || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    thread::scope(|scope| {
        let guests: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (take, tally) = (&take, &tally);
                scope.spawn(move || {
                    let connection = pooler.as_role("app");
                    let mut guest = Guest {
                        storm,
                        site,
                        client: Wire::connect(&connection).unwrap(),
                        connection,
                        tally,
                        name: format!("user {number}"),
                        tokens: Vec::new(),
                        random: Rng::with_seed(number as u64),
                    };
                    while take().is_ok() {
                        guest.transaction();
                    }
                })
            })
            .collect();
        let (over, counted) = (&over, &tally);
        scope.spawn(move || {
            let mut admin = site.cluster.admin();
            let one = "FROM pg_stat_activity WHERE usename = 'app' AND state = 'active'
                       ORDER BY random() LIMIT 1";
            let cancel = format!("SELECT count(pg_cancel_backend(pid)) FROM (SELECT pid {one}) a");
            let kill = format!("SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid {one}) a");
            for turn in 1.. {
                thread::sleep(storm.kill / 10);
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let (fault, what) = match turn % 10 {
                    0 => (&kill, "server connections killed"),
                    _ => (&cancel, "running statements cancelled"),
                };
                if admin.query_one(fault, &[]).unwrap().get::<_, i64>(0) > 0 {
                    counted.count(what);
                }
            }
        });
        let start = Instant::now();
        let mut said = 0;
        while !guests.iter().all(|guest| guest.is_finished()) {
            thread::sleep(Duration::from_millis(50));
            if pooler.revive() {
                tally.count("PgBouncers that died");
            }
            let (seconds, left) = (start.elapsed().as_secs(), left.load(Ordering::Relaxed));
            if storm.progress && seconds >= said + 10 {
                said = seconds;
                println!("{seconds} s: {} transactions to go; {}", left, tally.say());
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    let foreign = "SELECT count(*) FROM written WHERE owner IS DISTINCT FROM writer";
    let foreign: i64 = site.cluster.admin().query_one(foreign, &[]).unwrap().get(0);
    assert_eq!(foreign, 0, "rows written in another's name");
    tally
}

impl Storm {
    /// A short one, in which enough goes wrong all the same.
    const SHORT: Storm =
        Storm { transactions: 3_000, kill: Duration::from_millis(5), ..Storm::USUAL };

    const USUAL: Storm = Storm {
        transactions: 10_000,
        careless: false,
        blocks: true,
        kill: Duration::from_millis(100),
        leave: false,
        progress: false,
    };
}

/// Everything that a storm is to contain has happened.
fn assert_stormy(tally: &Tally) {
    for what in [
        "refused tokens",
        "without a token",
        "running statements cancelled",
        "clients that died",
        "server connections killed",
        "connections lost",
    ] {
        assert!(tally.get(what) > 0, "no {what}: {}", tally.say());
    }
    println!("{}", tally.say());
}

#[test]
fn many_clients_in_transaction_mode() {
    for (scope, careless) in [("session", false), ("transaction", true)] {
        let site = Site::new(scope);
        let pooler = site.cluster.pooler("transaction", &[("default_pool_size", "5")]);
        assert_stormy(&storm(&site, &pooler, Storm { careless, ..Storm::USUAL }));
    }
}

#[test]
fn many_clients_in_session_mode() {
    let site = Site::new("session");
    let pooler = site.cluster.pooler("session", &[("default_pool_size", "60")]);
    let plan = Storm { transactions: 8_000, careless: true, leave: true, ..Storm::SHORT };
    assert_stormy(&storm(&site, &pooler, plan));
}

#[test]
fn many_clients_in_statement_mode() {
    let site = Site::new("session");
    let pooler = site.cluster.pooler("statement", &[("default_pool_size", "5")]);
    let plan = Storm { blocks: false, ..Storm::SHORT };
    assert_stormy(&storm(&site, &pooler, plan));
}

#[test]
#[ignore = "a million transactions; `make soak` runs it"]
fn soak() {
    for (scope, careless) in [("session", false), ("transaction", true)] {
        let site = Site::new(scope);
        let pooler = site.cluster.pooler("transaction", &[("default_pool_size", "5")]);
        let plan = Storm {
            transactions: 500_000,
            careless,
            kill: Duration::from_millis(500),
            progress: true,
            ..Storm::USUAL
        };
        println!("identity_scope = {scope}, {CLIENTS} clients, {} transactions", plan.transactions);
        let start = Instant::now();
        let tally = storm(&site, &pooler, plan);
        assert_stormy(&tally);
        println!("done in {} s; {}; foreign rows: 0", start.elapsed().as_secs(), tally.say());
    }
}
