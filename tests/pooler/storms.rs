//! Many clients, of which some do everything wrong.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use harness::{
    Answer, Code, Connection, IN_FAILED_SQL_TRANSACTION, Pooler, QUERY_CANCELED, Site, Wire, now,
    values,
};
use serde_json::json;

use super::site::*;

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
        for found in values(answer) {
            let mine = found == self.name
                || matches!(found, "nobody" | "" | QUERY_CANCELED | IN_FAILED_SQL_TRANSACTION);
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
            0 => (STRANGER.sign(&claims), Code::Signature.sqlstate()),
            1 => (
                self.site.key.sign(&json!({"sub": self.name, "exp": now() - 600})),
                Code::Expired.sqlstate(),
            ),
            _ => (self.token() + ".", Code::Malformed.sqlstate()),
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
            assert_eq!(values(&answers[first + 1]), [&name], "values(answers[first + 1])");
            assert_eq!(values(&answers[first + 3]), [&name, &name], "values(answers[first + 3])");
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
            let back = match values(&answer)[..] {
                ["nobody" | QUERY_CANCELED | IN_FAILED_SQL_TRANSACTION] => true,
                [found] => self.storm.leave && found == name,
                _ => false,
            };
            assert!(back, "{name}: {answer:?}");
            let _ = self.client.ask(init, &[&token])?;
        }
        let answer = self.client.ask("SELECT owner FROM notes", &[])?;
        self.check(&answer);
        if answer.is_ok() && self.client.status() == 'T' {
            assert_eq!(values(&answer), [&name, &name], "in session pooling");
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
        assert_eq!(values(&answers[0]), ["nobody"], "{}", self.name);
        assert!(rows.is_empty(), "{}: {rows:?}", self.name);
        self.tally.count("without a token");
        Ok(())
    }

    fn refused(&mut self) -> io::Result<()> {
        let (token, code) = self.bad_token();
        self.client.statement(self.init(), &[&token]);
        self.client.statement("SELECT owner FROM notes", &[]);
        let answers = self.client.sync()?;
        let first = values(&answers[0]);
        assert!(first == [code] || first == [QUERY_CANCELED], "{}: {answers:?}", self.name);
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
        if answers.iter().any(|answer| values(answer) == [QUERY_CANCELED]) {
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
        let site = start(scope);
        let pooler = site.cluster.pooler("transaction", &[("default_pool_size", "5")]);
        assert_stormy(&storm(&site, &pooler, Storm { careless, ..Storm::USUAL }));
    }
}

#[test]
fn many_clients_in_session_mode() {
    let site = start("session");
    let pooler = site.cluster.pooler("session", &[("default_pool_size", "60")]);
    let plan = Storm { transactions: 8_000, careless: true, leave: true, ..Storm::SHORT };
    assert_stormy(&storm(&site, &pooler, plan));
}

#[test]
fn many_clients_in_statement_mode() {
    let site = start("session");
    let pooler = site.cluster.pooler("statement", &[("default_pool_size", "5")]);
    let plan = Storm { blocks: false, ..Storm::SHORT };
    assert_stormy(&storm(&site, &pooler, plan));
}

#[test]
#[ignore = "a million transactions; `make soak` runs it"]
fn soak() {
    for (scope, careless) in [("session", false), ("transaction", true)] {
        let site = start(scope);
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
