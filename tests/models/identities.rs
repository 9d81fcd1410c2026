//! Random sequences of whatever changes an identity, held against a small model of who it must be.
//!
//! Beside the sessions, keys change, and the tokens of users are revoked and accepted again.
//!
//! The model knows two things of a session: whose the token setting is now, and whose it will be
//! once the transaction is committed. A savepoint keeps both, a rollback brings both back, and a
//! refused token makes nobody of all of them.

use std::fmt::Write;
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use harness::{Answer, Cluster, Code, DIVISION_BY_ZERO, Preload, Wire};
use mint::{Algorithm, Key};
use serde_json::{Value, json};

/// What holds at the beginning.
const ALL: Trust = Trust { keys: [true; 2], revoked: [false; 3] };

/// How many sequences there are with shared signatures and without, and how many sessions take turns.
const SEQUENCES: u64 = 2_000;
const SESSIONS: u64 = 40;
const STEPS: usize = 30;

/// Sequence `n` has the seed `FIRST_SEED + n`, unless `MODEL_SEED` says with which to begin.
const FIRST_SEED: u64 = 1;

/// What changes beside the sessions.
#[derive(Clone, Copy, Debug)]
struct Trust {
    /// Which of the two keys of the first provider are configured; the other provider's always is.
    keys: [bool; 2],
    /// Which of [`USERS`] have all tokens revoked.
    revoked: [bool; 3],
}

const USERS: [&str; 3] = ["alice", "bob", "carol"];

impl Trust {
    fn is_revoked(&self, token: &Token) -> bool {
        USERS.iter().zip(self.revoked).any(|(user, revoked)| *user == token.sub && revoked)
    }
}

/// Those that sign: two that are configured at times, one that always is and counts `jti`, and one
/// that never is.
struct Signers {
    rotated: [Key; 2],
    counting: Key,
    stranger: Key,
}

impl Signers {
    fn document(&self, keys: [bool; 2]) -> String {
        let both = self.rotated.iter().zip(keys);
        let configured: Vec<Value> =
            both.filter(|(_, there)| *there).map(|(key, _)| key.bare_public_jwk()).collect();
        json!([
            {"name": "rotated", "jwks": {"keys": configured}, "leeway": 0},
            {"name": "counting", "issuer": "counting", "jwks": self.counting.public_jwk(),
             "monotonic_jti": true, "leeway": 0},
        ])
        .to_string()
    }
}

/// A token as the model knows it.
#[derive(Clone, Debug)]
struct Token {
    text: String,
    sub: &'static str,
    /// Which of the rotated keys it needs; None for the counting provider's.
    key: Option<usize>,
    jti: Option<i64>,
    exp: i64,
    /// What it is refused with whatever the keys are.
    flaw: Option<&'static str>,
}

/// What the session is, or will be.
#[derive(Clone, Debug, Default)]
struct Standing {
    now: Option<Token>,
    committed: Option<Token>,
}

/// Everything that can come to be in force.
#[derive(Debug, Default)]
struct Model {
    /// Whether no identity outlives its transaction.
    transaction_scope: bool,
    standing: Standing,
    /// What a rollback goes back to, in a transaction block.
    before: Option<Standing>,
    savepoints: Vec<Standing>,
    /// What a reset goes back to.
    startup: Option<Token>,
    aborted: bool,
    last_jti: i64,
}

impl Model {
    /// A refused token leaves nobody, and nobody to go back to.
    fn void(&mut self) {
        self.standing = Standing::default();
        self.before = self.before.take().map(|_| Standing::default());
        self.savepoints.fill(Standing::default());
        self.startup = None;
    }

    fn end(&mut self, commit: bool) {
        let before = self.before.take().unwrap_or_default();
        if commit && !self.aborted {
            self.standing.now = self.standing.committed.clone();
        } else {
            self.standing = before;
        }
        self.savepoints.clear();
        self.aborted = false;
        if self.transaction_scope {
            self.void();
        }
    }

    /// Does what one statement does, which is a transaction where there is no block.
    fn statement(&mut self, body: impl FnOnce(&mut Self) -> bool) {
        let alone = self.before.is_none();
        if alone {
            self.before = Some(self.standing.clone());
        }
        let done = body(self);
        self.aborted = !done;
        if alone {
            self.end(done);
        }
    }

    fn set(&mut self, value: Option<Token>, is_local: bool) {
        if !is_local {
            self.standing.committed = value.clone();
        }
        self.standing.now = value;
    }

    /// The checks of a token that is presented.
    fn refusal(&self, token: &Token, trust: Trust, time: Time) -> Expected {
        if let Some(code) = token.flaw {
            return Expected::Code(code);
        }
        if token.key.is_some_and(|key| !trust.keys[key]) {
            return Expected::Code(Code::Signature.sqlstate());
        }
        match time.is_past(token.exp) {
            Some(true) => return Expected::Code(Code::Expired.sqlstate()),
            None => return Expected::Unknown,
            Some(false) => {}
        }
        if trust.is_revoked(token) {
            return Expected::Code(Code::Revoked.sqlstate());
        }
        match token.jti {
            Some(jti) if jti <= self.last_jti => Expected::Code(Code::Replayed.sqlstate()),
            _ => Expected::Done,
        }
    }
}

/// What must come of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Done,
    Code(&'static str),
    /// A token's time ran out just then.
    Unknown,
}

/// From when to when something took place.
#[derive(Clone, Copy, Debug)]
struct Time {
    begin: f64,
    end: f64,
}

impl Time {
    fn is_past(self, moment: i64) -> Option<bool> {
        match moment as f64 {
            moment if self.end < moment => Some(false),
            moment if self.begin >= moment => Some(true),
            _ => None,
        }
    }
}

fn clock() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// One session, its model, and what has happened so far.
struct Run<'a> {
    signers: &'a Signers,
    trust: &'a RwLock<Trust>,
    /// What holds during the present step.
    present: Trust,
    random: Rng,
    client: Wire,
    model: Model,
    /// Tokens made before, to be presented again.
    tokens: Vec<Token>,
    log: String,
}

impl Run<'_> {
    fn token(&mut self) -> Token {
        if !self.tokens.is_empty() && self.random.bool() {
            let place = self.random.usize(..self.tokens.len());
            return self.tokens[place].clone();
        }
        let now = clock() as i64;
        let kind = self.random.u8(..12);
        let exp = if kind == 0 { now + 2 } else { now + 600 };
        let key = match kind {
            1..=3 => None,
            _ => Some(self.random.usize(..2)),
        };
        let sub = match key {
            Some(key) => ["alice", "bob"][key],
            None => "carol",
        };
        let mut claims = json!({"sub": sub, "exp": exp, "n": self.random.u32(..)});
        let mut token = Token { text: String::new(), sub, key, jti: None, exp, flaw: None };
        let mut signer = match key {
            Some(key) => &self.signers.rotated[key],
            None => &self.signers.counting,
        };
        if key.is_none() {
            let jti = self.random.i64(1..50);
            token.jti = Some(jti);
            claims["iss"] = json!("counting");
            claims["jti"] = json!(jti);
        }
        match kind {
            9 => {
                (signer, token.flaw) = (&self.signers.stranger, Some(Code::Signature.sqlstate()));
            }
            10 if key.is_some() => {
                (claims["nbf"], token.flaw) =
                    (json!(now + 300), Some(Code::NotYetValid.sqlstate()));
                // A key that is not there is noticed first.
                token.key = None;
                signer = &self.signers.counting;
                claims["iss"] = json!("counting");
                claims["jti"] = json!(1_000);
            }
            11 => token.flaw = Some(Code::Malformed.sqlstate()),
            _ => {}
        }
        token.text = signer.sign(&claims);
        if token.flaw == Some(Code::Malformed.sqlstate()) {
            token.text.push('=');
        }
        self.tokens.push(token.clone());
        token
    }

    fn note(&mut self, what: &str) {
        let _ = writeln!(self.log, "  {what}");
    }

    /// Sends one message and tells when that was.
    fn send(&mut self, sql: &str) -> (Result<(), String>, Time) {
        let shown = match sql.find("eyJ") {
            Some(place) => {
                format!("{}…{}", &sql[..place], &sql[sql.rfind('\'').unwrap_or(place)..])
            }
            None => sql.to_owned(),
        };
        self.note(&shown);
        let begin = clock();
        let answers = self.client.query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let time = Time { begin, end: clock() };
        let failed = answers.into_iter().find_map(Answer::err);
        (failed.map_or(Ok(()), |fields| Err(fields.sqlstate().to_owned())), time)
    }

    /// A statement that must succeed.
    fn must(&mut self, sql: &str) {
        let (outcome, _) = self.send(sql);
        assert_eq!(outcome, Ok(()), "{sql}");
    }

    /// Presents a token, by a statement with `{}` in place of it. `apply` says what becomes of the
    /// model where it is accepted, and whether the statement then succeeds.
    fn present(&mut self, statement: &str, apply: impl FnOnce(&mut Model, Option<Token>) -> bool) {
        let token = (self.random.u8(..10) > 0).then(|| self.token());
        if let Some(token) = &token {
            let Token { sub, key, jti, exp, flaw, .. } = token;
            let left = *exp as f64 - clock();
            self.note(&format!("{sub}, key {key:?}, jti {jti:?}, {left:.1} s, flaw {flaw:?}:"));
        }
        let text = token.as_ref().map_or("", |token| &token.text);
        let (outcome, time) = self.send(&statement.replace("{}", text));
        let expected = token
            .as_ref()
            .map_or(Expected::Done, |token| self.model.refusal(token, self.present, time));
        let outcome = outcome.as_ref().map_err(String::as_str);
        let swallows = statement.starts_with("DO");
        let refused = match (expected, outcome) {
            (Expected::Unknown, Err(code))
                if [Code::Expired.sqlstate(), Code::Revoked.sqlstate()].contains(&code) =>
            {
                true
            }
            (Expected::Unknown, _) => panic!("cannot tell, {outcome:?}"),
            (Expected::Code(code), outcome) => {
                let wanted = if swallows { Ok(&()) } else { Err(code) };
                assert_eq!(outcome, wanted, "presenting");
                true
            }
            (Expected::Done, _) => false,
        };
        self.model.statement(|model| {
            if refused {
                model.void();
                return swallows;
            }
            if let Some(jti) = token.as_ref().and_then(|token| token.jti) {
                model.last_jti = jti;
            }
            let done = apply(model, token);
            assert_eq!(outcome, if done { Ok(&()) } else { Err(DIVISION_BY_ZERO) }, "presenting");
            done
        });
    }

    /// Asks who the session is, in one of several ways.
    fn observe(&mut self) {
        let begin = clock();
        let answer = match self.random.u8(..3) {
            0 => self.client.ask("SELECT auth.user_id()", &[]).unwrap(),
            1 => self.client.ask("SELECT owner FROM notes", &[]).unwrap(),
            _ => {
                // A token that was rejected at its first use is checked again when a statement is
                // analysed, which this one is not.
                self.client.ask("SELECT 1", &[]).unwrap().unwrap();
                self.client.execute("again", &[]);
                self.client.sync().unwrap().remove(0)
            }
        };
        let time = Time { begin, end: clock() };
        let who = self.model.standing.now.clone();
        let seen = match &answer {
            Ok(rows) => rows.iter().flatten().find_map(Option::as_deref).unwrap_or("nobody"),
            Err(fields) => fields.sqlstate(),
        }
        .to_owned();
        self.note(&format!("-- {seen}"));
        let expected = match &who {
            None => vec!["nobody"],
            Some(token) if token.key.is_some_and(|key| !self.present.keys[key]) => {
                vec![Code::Signature.sqlstate()]
            }
            Some(token) => {
                let is_revoked = self.present.is_revoked(token);
                let valid = if is_revoked { Code::Revoked.sqlstate() } else { token.sub };
                match time.is_past(token.exp) {
                    Some(true) => vec![Code::Expired.sqlstate()],
                    Some(false) => vec![valid],
                    None => vec![Code::Expired.sqlstate(), valid],
                }
            }
        };
        assert!(expected.contains(&seen.as_str()), "{seen} instead of {expected:?}");
        let done = answer.is_ok();
        self.model.statement(|_| done);
    }

    fn step(&mut self) {
        // Nobody changes the keys or revokes tokens in the middle of a step.
        let trust = self.trust;
        let steady = trust.read().unwrap();
        self.present = *steady;
        if self.model.aborted {
            match self.model.savepoints.last().cloned() {
                Some(standing) if self.random.bool() => {
                    let depth = self.model.savepoints.len();
                    self.must(&format!("ROLLBACK TO s{depth}"));
                    self.model.standing = standing;
                    self.model.aborted = false;
                }
                _ => {
                    let end = if self.random.bool() { "ROLLBACK" } else { "COMMIT" };
                    self.must(end);
                    self.model.end(false);
                }
            }
            return;
        }
        let in_block = self.model.before.is_some();
        match self.random.u8(..24) {
            choice @ 0..=6 => {
                let (statement, is_local) = [
                    ("SELECT auth.jwt_session_init('{}', true)", true),
                    ("SELECT auth.jwt_session_init('{}')", false),
                    ("SET pg_session_jwt.jwt = '{}'", false),
                    ("SET LOCAL pg_session_jwt.jwt = '{}'", true),
                    ("SELECT set_config('pg_session_jwt.jwt', '{}', true)", true),
                    ("SELECT set_config('pg_session_jwt.jwt', '{}', false)", false),
                    ("SELECT auth.jwt_session_init('{}', true)", true),
                ][usize::from(choice)];
                self.present(statement, |model, token| {
                    model.set(token, is_local);
                    true
                });
            }
            // The error comes after the token was accepted.
            7 => self
                .present("SELECT auth.jwt_session_init('{}'), 1 / (random()::int * 0)", |_, _| {
                    false
                }),
            8 => self.present(
                "DO $$ BEGIN
                   PERFORM auth.jwt_session_init('{}');
                   PERFORM 1 / 0;
                 EXCEPTION WHEN OTHERS THEN NULL; END $$",
                |_, _| true,
            ),
            9 => self.present("SELECT cleared('{}', true)", |_, _| true),
            10 => self.present("SELECT cleared('{}', false)", |model, token| {
                model.set(token, false);
                true
            }),
            11 => {
                let reset =
                    ["RESET pg_session_jwt.jwt", "RESET ALL", "SET pg_session_jwt.jwt TO DEFAULT"];
                let reset = reset[self.random.usize(..3)];
                self.must(reset);
                let startup = self.model.startup.clone();
                self.model.statement(|model| {
                    model.set(startup, false);
                    true
                });
            }
            12 if !in_block => {
                self.must("DISCARD ALL");
                self.client.prepare("again", "SELECT owner FROM notes");
                self.client.sync().unwrap();
                let startup = self.model.startup.clone();
                self.model.statement(|model| {
                    model.set(startup, false);
                    true
                });
            }
            13 => {
                let role = ["SET ROLE other", "RESET ROLE", "SET LOCAL ROLE other"];
                let role = role[self.random.usize(..3)];
                self.must(role);
                self.model.statement(|_| true);
            }
            14 => self.observe(),
            _ if !in_block => {
                self.must("BEGIN");
                self.model.before = Some(self.model.standing.clone());
            }
            15 | 16 => {
                self.must("COMMIT");
                self.model.end(true);
            }
            17 => {
                self.must("ROLLBACK");
                self.model.end(false);
            }
            18 => {
                let name = format!("t{}", self.random.u64(..));
                // Whoever has prepared a transaction may finish it.
                self.must("RESET ROLE");
                self.must(&format!("PREPARE TRANSACTION '{name}'"));
                self.model.end(true);
                self.must(&format!("ROLLBACK PREPARED '{name}'"));
                self.model.statement(|_| true);
            }
            19..=21 => {
                let depth = self.model.savepoints.len() + 1;
                self.must(&format!("SAVEPOINT s{depth}"));
                self.model.savepoints.push(self.model.standing.clone());
            }
            choice => {
                let depth = self.model.savepoints.len();
                if depth > 0 {
                    let kept = self.random.usize(..depth);
                    if choice == 22 {
                        self.must(&format!("RELEASE s{}", kept + 1));
                        self.model.savepoints.truncate(kept);
                    } else {
                        self.must(&format!("ROLLBACK TO s{}", kept + 1));
                        self.model.savepoints.truncate(kept + 1);
                        self.model.standing = self.model.savepoints[kept].clone();
                    }
                }
            }
        }
        if !self.model.aborted {
            self.observe();
        }
    }

    /// Waits until a token that is in force, or may be again, has expired.
    fn wait(&mut self) {
        let model = &self.model;
        let standings = model.savepoints.iter().chain(&model.before).chain([&model.standing]);
        let tokens = standings.flat_map(|standing| [&standing.now, &standing.committed]).flatten();
        let now = clock();
        if let Some(exp) = tokens.map(|token| token.exp).filter(|exp| *exp as f64 - now < 3.0).max()
        {
            self.note(&format!("-- until {exp}"));
            thread::sleep(Duration::from_secs_f64((exp as f64 + 0.02 - now).max(0.0)));
        }
    }
}

fn sequence(cluster: &Cluster, signers: &Signers, trust: &RwLock<Trust>, seed: u64) {
    let mut random = Rng::with_seed(seed);
    let role = ["app", "app", "strict"][random.usize(..3)];
    let mut connection = cluster.as_role(role);
    let mut startup = None;
    if random.u8(..4) == 0 {
        let exp = clock() as i64 + 600;
        let text = signers.rotated[0].sign(&json!({"sub": "alice", "exp": exp}));
        connection = connection.option("pg_session_jwt.jwt", &text);
        let token = Token { text, sub: "alice", key: Some(0), jti: None, exp, flaw: None };
        startup = Some(token).filter(|_| role == "app");
    }
    let mut client = {
        let _steady = trust.read().unwrap();
        Wire::connect(&connection).unwrap()
    };
    client.prepare("again", "SELECT owner FROM notes");
    client.sync().unwrap();
    let standing = Standing { now: startup.clone(), committed: startup.clone() };
    let transaction_scope = role == "strict";
    let model = Model { transaction_scope, standing, startup, ..Model::default() };
    let log = format!("seed {seed}, as {role}\n");
    let mut run =
        Run { signers, trust, present: ALL, random, client, model, tokens: Vec::new(), log };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..STEPS {
            if run.random.u8(..20) == 0 {
                run.wait();
            }
            run.step();
        }
    }));
    if let Err(panic) = outcome {
        eprintln!("--- the sequence that failed: {}", run.log);
        eprintln!("{:#?}", run.model);
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn random_sequences() {
    random_sequences_with("10000");
}

#[test]
fn random_sequences_without_shared_signatures() {
    random_sequences_with("0");
}

fn random_sequences_with(shared_cache_size: &str) {
    let _turn = crate::ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let key = || Key::generate(Algorithm::ES256);
    let signers = Signers {
        rotated: [key(), key()],
        counting: Key::generate(Algorithm::EdDSA),
        stranger: key(),
    };
    let providers = signers.document(ALL.keys);
    let cluster = Cluster::start(
        Preload::Shared,
        &[
            ("pg_session_jwt.providers", &providers),
            ("pg_session_jwt.token_cache_size", "2"),
            ("pg_session_jwt.shared_cache_size", shared_cache_size),
            ("max_prepared_transactions", "100"),
        ],
    );
    cluster
        .admin()
        .batch_execute(
            "CREATE ROLE other; GRANT other TO app; CREATE ROLE strict LOGIN; GRANT other TO strict;
             ALTER ROLE strict SET pg_session_jwt.identity_scope = transaction;
             CREATE TABLE notes (owner text);
             INSERT INTO notes VALUES ('alice'), ('bob'), ('carol');
             ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON notes USING (owner = auth.user_id());
             GRANT SELECT ON notes TO PUBLIC;
             CREATE FUNCTION cleared(token text, is_local boolean) RETURNS void LANGUAGE sql
                 SET pg_session_jwt.jwt = ''
                 AS 'SELECT auth.jwt_session_init(token, is_local)'",
        )
        .unwrap();
    let first = std::env::var("MODEL_SEED").map_or(FIRST_SEED, |seed| seed.parse().unwrap());
    let trust = RwLock::new(ALL);
    thread::scope(|scope| {
        let (cluster, signers, trust) = (&cluster, &signers, &trust);
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|session| {
                scope.spawn(move || {
                    for number in (session..SEQUENCES).step_by(SESSIONS as usize) {
                        sequence(cluster, signers, trust, first + number);
                    }
                })
            })
            .collect();
        let mut random = Rng::with_seed(first);
        let mut admin = cluster.admin();
        while !sessions.iter().all(|session| session.is_finished()) {
            thread::sleep(Duration::from_millis(100));
            let mut trust = trust.write().unwrap();
            if random.u8(..3) > 0 {
                let place = random.usize(..USERS.len());
                let change = match trust.revoked[place] {
                    true => "SELECT auth.unrevoke(id) FROM auth.revocations WHERE subject = $1",
                    false => "SELECT auth.revoke(subject => $1)",
                };
                admin.execute(change, &[&USERS[place]]).unwrap();
                trust.revoked[place] ^= true;
                continue;
            }
            let next = [[true, true], [true, true], [true, false], [false, true]];
            trust.keys = next[random.usize(..next.len())];
            let providers = signers.document(trust.keys);
            cluster.append_configuration(&[("pg_session_jwt.providers", &providers)]);
            cluster.reload();
        }
    });
}
