//! Random sequences of tokens with roles, statements, cursors, portals, functions and savepoints: each
//! row that goes out is one that some single token of the sequence may see, by its own role and its own
//! claims.
//!
//! A sequence has few tokens, so that most rows that one token's role would show to the claims of
//! another are rows that none of them may see.

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use fastrand::Rng;
use harness::{Answer, Cluster, Connection, Preload, Wire, now, run};
use mint::{Algorithm, Key};
use serde_json::json;

/// How many sequences there are, and how many sessions take turns.
const SEQUENCES: u64 = 3_000;
const SESSIONS: u64 = 20;
const STEPS: usize = 40;

/// Sequence `n` has the seed `FIRST_SEED + n`, unless `MODEL_SEED` says with which to begin.
const FIRST_SEED: u64 = 1;

const ORGANIZATIONS: [&str; 2] = ["acme", "globex"];
const USERS: [&str; 2] = ["uma", "vic"];
const ROLES: [Option<&str>; 4] = [Some("org_admin"), Some("member"), Some("auditor"), None];

const SCHEMA: &str = "
    CREATE ROLE locked LOGIN NOINHERIT; CREATE ROLE strict LOGIN NOINHERIT; ALTER ROLE app NOINHERIT;
    CREATE ROLE org_admin; CREATE ROLE member; CREATE ROLE auditor;
    GRANT org_admin, member, auditor TO app, locked, strict;
    ALTER ROLE strict SET pg_session_jwt.identity_scope = transaction;
    CREATE TABLE docs (org text, owner text, body text);
    INSERT INTO docs SELECT o, u, o || '/' || u || '/' || n
      FROM unnest('{acme,globex}'::text[]) o, unnest('{uma,vic}'::text[]) u, generate_series(1, 3) n;
    CREATE INDEX ON docs (owner); ANALYZE docs;
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
    CREATE POLICY admins ON docs TO org_admin USING (org = auth.claim('org'));
    CREATE POLICY members ON docs TO member
      USING (org = auth.claim('org') AND owner = (SELECT auth.user_id()));
    CREATE POLICY auditors ON docs TO auditor USING (owner = auth.user_id());
    CREATE POLICY logins ON docs TO app, locked, strict
      USING (org <> auth.claim('org') AND owner = auth.user_id());
    GRANT ALL ON docs TO org_admin, member, auditor, app, locked, strict;
    -- What is deleted is there again for the next statement.
    CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
      AS 'BEGIN INSERT INTO public.docs SELECT OLD.*; RETURN OLD; END';
    CREATE TRIGGER keep BEFORE DELETE ON docs FOR EACH ROW EXECUTE FUNCTION keep();
    -- What another role may do by privilege alone.
    CREATE VIEW organization AS SELECT * FROM docs WHERE org = auth.claim('org');
    GRANT SELECT ON organization TO org_admin;
    CREATE TABLE deferred (body text); GRANT ALL ON deferred TO PUBLIC;
    CREATE FUNCTION token(n int) RETURNS text LANGUAGE sql STABLE
      AS 'SELECT current_setting(''token.t'' || n)';
    CREATE FUNCTION present(n int) RETURNS int LANGUAGE plpgsql VOLATILE
      AS 'BEGIN PERFORM auth.jwt_session_init(token(n), n % 2 = 0); RETURN n; END';
    CREATE FUNCTION present_stable(n int) RETURNS int LANGUAGE plpgsql STABLE
      AS 'BEGIN PERFORM auth.jwt_session_init(token(n)); RETURN n; END';
    CREATE FUNCTION reset_stable() RETURNS int LANGUAGE plpgsql STABLE
      AS 'BEGIN PERFORM set_config(''pg_session_jwt.jwt'', NULL, false); RETURN 1; END';
    CREATE FUNCTION reset_token() RETURNS int LANGUAGE plpgsql
      AS 'BEGIN RESET pg_session_jwt.jwt; RETURN 1; END';
    CREATE FUNCTION definer(n int) RETURNS int LANGUAGE plpgsql SECURITY DEFINER
      AS 'BEGIN PERFORM auth.jwt_session_init(token(n)); RETURN n; END';
    CREATE FUNCTION clear() RETURNS int LANGUAGE plpgsql SECURITY DEFINER
      AS 'BEGIN PERFORM auth.jwt_session_init(NULL); RETURN 1; END';
    CREATE FUNCTION tried(n int) RETURNS int LANGUAGE plpgsql AS $$
      BEGIN
        BEGIN PERFORM auth.jwt_session_init(token(n)); RAISE 'back';
        EXCEPTION WHEN raise_exception OR SQLSTATE '28J09' THEN NULL; END;
        RETURN 1;
      END $$;
    CREATE FUNCTION two(n int) RETURNS SETOF docs LANGUAGE sql
      AS 'SELECT auth.jwt_session_init(token(n)); SELECT * FROM docs';
    CREATE FUNCTION two_atomic(n int) RETURNS SETOF docs LANGUAGE sql
      BEGIN ATOMIC SELECT auth.jwt_session_init(token(n)); SELECT * FROM docs; END;
    CREATE FUNCTION planned(n int) RETURNS SETOF docs LANGUAGE sql
      BEGIN ATOMIC SELECT FROM generate_series(1, 2) g WHERE g = present_stable(n);
                   SELECT * FROM docs; END;
    CREATE FUNCTION planned_reset() RETURNS SETOF docs LANGUAGE sql
      BEGIN ATOMIC SELECT FROM generate_series(1, 2) g WHERE g = reset_stable();
                   SELECT * FROM docs; END;
    CREATE FUNCTION opened(n int) RETURNS SETOF docs LANGUAGE plpgsql AS $$
      DECLARE c refcursor; d docs;
      BEGIN
        IF n % 2 = 0 THEN OPEN c FOR UPDATE docs SET org = org RETURNING *;
        ELSE OPEN c FOR SELECT * FROM docs; END IF;
        PERFORM auth.jwt_session_init(token(n));
        LOOP FETCH c INTO d; EXIT WHEN NOT FOUND; RETURN NEXT d; END LOOP;
        CLOSE c;
      END $$;
    CREATE FUNCTION left_open(n int) RETURNS text LANGUAGE plpgsql AS $$
      DECLARE c refcursor := 'f' || n;
      BEGIN
        IF n = 0 THEN OPEN c FOR EXECUTE 'UPDATE docs SET org = org RETURNING body';
        ELSIF n = 1 THEN OPEN c FOR DELETE FROM docs RETURNING body;
        ELSE OPEN c FOR SELECT body FROM docs; END IF;
        RETURN c;
      END $$;
    CREATE FUNCTION looped(n int) RETURNS SETOF docs LANGUAGE plpgsql AS $$
      DECLARE d docs;
      BEGIN
        FOR d IN SELECT * FROM docs ORDER BY body DESC LOOP
          RETURN NEXT d; PERFORM auth.jwt_session_init(token(n));
        END LOOP;
      END $$;
    CREATE FUNCTION with_clause(n int) RETURNS SETOF docs LANGUAGE sql SET pg_session_jwt.jwt = ''
      AS 'SELECT auth.jwt_session_init(token(n), true); SELECT * FROM docs';
    CREATE FUNCTION in_turn(a int, b int) RETURNS SETOF docs LANGUAGE plpgsql AS $$
      BEGIN
        PERFORM present(a); RETURN QUERY SELECT * FROM docs;
        PERFORM present(b); RETURN QUERY SELECT * FROM docs;
      END $$;
    CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
      DECLARE seen text;
      BEGIN
        SELECT string_agg(body, ',') INTO seen FROM docs;
        RAISE NOTICE 'seen: %', seen;
        RETURN NULL;
      END $$;
    CREATE CONSTRAINT TRIGGER later AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW EXECUTE FUNCTION at_commit();
    CREATE VIEW shop AS SELECT 1 AS n;
    CREATE RULE twice AS ON INSERT TO shop DO INSTEAD (
      SELECT auth.jwt_session_init(token(NEW.n)); UPDATE docs SET org = org RETURNING NULL::int);
    GRANT ALL ON shop TO PUBLIC;
";

/// Statements; `{n}` stands for a token of the sequence, `{m}` for another.
const STATEMENTS: &[&str] = &[
    "SELECT body FROM docs",
    "SELECT body FROM docs",
    "SELECT body FROM docs ORDER BY body DESC",
    "SELECT body FROM organization",
    "UPDATE docs SET org = org RETURNING body",
    "DELETE FROM docs RETURNING body",
    "WITH d AS (DELETE FROM docs RETURNING body) SELECT body FROM d",
    "SELECT body FROM two({n})",
    "SELECT (two({n})).body",
    "SELECT body FROM two_atomic({n})",
    "SELECT (two_atomic({n})).body",
    "SELECT body FROM planned({n})",
    "SELECT body FROM planned_reset()",
    "SELECT body FROM opened({n})",
    "SELECT body FROM looped({n})",
    "SELECT body FROM with_clause({n})",
    "SELECT body FROM in_turn({n}, {m})",
    "SELECT body, present({n}) FROM docs",
    "SELECT body, definer({n}) FROM docs",
    "SELECT body, clear() FROM docs",
    "SELECT body, reset_token() FROM docs",
    "SELECT body, tried({n}) FROM docs",
    "SELECT body, set_config('pg_session_jwt.jwt', NULL, false) FROM docs",
    "SELECT body, set_config('pg_session_jwt.jwt', token({n}), true) FROM docs",
    "SELECT d.body FROM (SELECT present({n}) OFFSET 0) x, docs d",
    "SELECT d.body FROM (SELECT reset_token() OFFSET 0) x, docs d",
    "SELECT d.body FROM generate_series(1, 2) g, LATERAL (SELECT present({n}) WHERE g = 2) x, docs d",
    "SELECT body FROM docs WHERE length(body) <> present_stable({n})",
    "SELECT body FROM docs WHERE length(body) <> reset_stable()",
    "UPDATE docs SET org = org RETURNING body, present({n})",
    "EXECUTE p1",
    "EXECUTE p2",
    "EXECUTE p3({n})",
    "SELECT left_open({n})",
    "FETCH ALL FROM f0",
    "FETCH ALL FROM f1",
    "FETCH 1 FROM f2",
    "DECLARE c1 CURSOR FOR SELECT body FROM docs",
    "DECLARE c1 CURSOR WITH HOLD FOR SELECT body FROM docs",
    "DECLARE c2 CURSOR FOR SELECT body FROM organization",
    "DECLARE c2 SCROLL CURSOR FOR SELECT d.body FROM docs d, docs e WHERE d.body = e.body",
    "FETCH 1 FROM c1",
    "FETCH 2 FROM c1",
    "FETCH ALL FROM c1",
    "FETCH 1 FROM c2",
    "FETCH ALL FROM c2",
    "CLOSE ALL",
    "INSERT INTO shop VALUES ({n})",
    "INSERT INTO deferred VALUES ('x')",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "DO $$ BEGIN PERFORM present({n}); PERFORM FROM docs; END $$",
    "SELECT tried({n})",
    "SELECT clear()",
    "SELECT body FROM docs; SELECT present({n}); SELECT body FROM docs",
];

const TOKENS: &[&str] = &[
    "SELECT auth.jwt_session_init(token({n}), true)",
    "SELECT auth.jwt_session_init(token({n}), true)",
    "SELECT auth.jwt_session_init(token({n}))",
    "SELECT auth.jwt_session_init(token({n}))",
    "SELECT auth.jwt_session_init(token({n}))",
    "SELECT present({n})",
    "SELECT set_config('pg_session_jwt.jwt', token({n}), true)",
    "SELECT definer({n})",
    "SELECT auth.jwt_session_init(NULL)",
    "RESET pg_session_jwt.jwt",
    "RESET ALL",
];

struct Token {
    role: Option<&'static str>,
    organization: &'static str,
    user: &'static str,
    text: String,
}

impl Token {
    fn sees(&self, organization: &str, owner: &str) -> bool {
        match self.role {
            Some("org_admin") => organization == self.organization,
            Some("member") => organization == self.organization && owner == self.user,
            Some(_) => owner == self.user,
            None => organization != self.organization && owner == self.user,
        }
    }
}

/// What all sequences came to.
#[derive(Default)]
struct Totals {
    statements: AtomicU64,
    refused: AtomicU64,
    rows: AtomicU64,
}

struct Sequence<'t> {
    random: Rng,
    wire: Wire,
    /// The rows that some token may see.
    allowed: HashSet<String>,
    tokens: usize,
    savepoints: usize,
    totals: &'t Totals,
    log: String,
}

impl Sequence<'_> {
    /// Checks what the server has answered.
    fn check(&mut self, what: &str, answers: Vec<Answer>) {
        let _ = writeln!(self.log, "  {what}");
        let mut bodies = Vec::new();
        for answer in answers {
            self.totals.statements.fetch_add(1, Ordering::Relaxed);
            match answer {
                Ok(rows) => {
                    bodies.extend(
                        rows.into_iter().filter_map(|row| row.into_iter().next().flatten()),
                    );
                }
                Err(fields) => {
                    let _ = writeln!(self.log, "  -- {}", fields.sqlstate());
                    self.totals.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        for notice in self.wire.notices() {
            let text = notice.get(b'M').unwrap_or_default();
            let seen = text.strip_prefix("seen: ").filter(|seen| *seen != "<NULL>");
            bodies.extend(seen.into_iter().flat_map(|seen| seen.split(',')).map(str::to_owned));
        }
        let bodies: Vec<String> = bodies.into_iter().filter(|body| body.contains('/')).collect();
        let _ = writeln!(self.log, "  -- {}", bodies.join(" "));
        for body in bodies {
            self.totals.rows.fetch_add(1, Ordering::Relaxed);
            assert!(self.allowed.contains(&body), "{what}: {body} is for none of the tokens");
        }
    }

    fn send(&mut self, sql: &str) {
        let answers = self.wire.query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        self.check(sql, answers);
    }

    fn fill(&mut self, statement: &str) -> String {
        let (n, m) = (self.random.usize(..self.tokens), self.random.usize(..self.tokens));
        statement.replace("{n}", &n.to_string()).replace("{m}", &m.to_string())
    }

    fn pick(&mut self, statements: &[&'static str]) -> String {
        let place = self.random.usize(..statements.len());
        self.fill(statements[place])
    }

    fn step(&mut self) {
        let status = self.wire.status();
        match (self.random.u8(..20), status) {
            (_, 'E') => {
                let back = self.savepoints > 0 && self.random.u8(..3) > 0;
                if back {
                    let kept = self.random.usize(..self.savepoints);
                    self.savepoints = kept + 1;
                    self.send(&format!("ROLLBACK TO s{kept}"));
                } else {
                    self.send("ROLLBACK");
                }
            }
            (0..=3, 'I') => {
                self.send("BEGIN");
                let sql = self.pick(TOKENS);
                self.send(&sql);
            }
            (0, 'T') => self.send("COMMIT"),
            (1, 'T') => self.send("ROLLBACK"),
            (2 | 3, 'T') => {
                let name = self.savepoints;
                self.savepoints += 1;
                self.send(&format!("SAVEPOINT s{name}"));
            }
            (4, 'T') if self.savepoints > 0 => {
                let kept = self.random.usize(..self.savepoints);
                if self.random.bool() {
                    self.savepoints = kept + 1;
                    self.send(&format!("ROLLBACK TO s{kept}"));
                } else {
                    self.savepoints = kept;
                    self.send(&format!("RELEASE s{kept}"));
                }
            }
            (5..=9, _) => {
                let sql = self.pick(TOKENS);
                self.send(&sql);
            }
            (10..=12, _) => self.pipeline(),
            _ => {
                let sql = self.pick(STATEMENTS);
                self.send(&sql);
            }
        }
        if self.wire.status() == 'I' {
            self.savepoints = 0;
        }
    }

    /// Messages of the extended protocol up to one `Sync`: portals that are bound, and read a part at a
    /// time, with tokens between them.
    fn pipeline(&mut self) {
        let mut what = "pipeline:".to_owned();
        for _ in 0..self.random.usize(1..7) {
            let portal = ["a", "b"][self.random.usize(..2)];
            match self.random.u8(..7) {
                0 | 1 => {
                    let name = ["q1", "q2", "q3", "q4", "q5"][self.random.usize(..5)];
                    self.wire.bind(portal, name, &[]);
                    let _ = write!(what, " bind {portal} {name};");
                }
                2..=4 => {
                    let rows = self.random.u32(..3);
                    self.wire.continue_portal(portal, rows);
                    let _ = write!(what, " run {portal} {rows};");
                }
                _ => {
                    let sql = self.pick(TOKENS);
                    self.wire.statement(&sql, &[]);
                    let _ = write!(what, " {sql};");
                }
            }
        }
        let answers = self.wire.sync().unwrap();
        self.check(&what, answers);
    }
}

fn run_sequence(connection: Connection, key: &Key, seed: u64, totals: &Totals) {
    let mut random = Rng::with_seed(seed);
    let count = random.usize(2..4);
    let tokens: Vec<Token> = (0..count)
        .map(|_| {
            let role = ROLES[random.usize(..ROLES.len())];
            let (organization, user) = (ORGANIZATIONS[random.usize(..2)], USERS[random.usize(..2)]);
            let mut claims = json!({"sub": user, "org": organization, "exp": now() + 600});
            if let Some(role) = role {
                claims["role"] = role.into();
            }
            Token { role, organization, user, text: key.sign(&claims) }
        })
        .collect();
    let login = ["app", "locked", "strict"][random.usize(..3)];
    let mut connection = connection.user(login);
    for (place, token) in tokens.iter().enumerate() {
        connection = connection.option(&format!("token.t{place}"), &token.text);
    }
    if random.u8(..3) == 0 {
        connection = connection.option("pg_session_jwt.jwt", &tokens[0].text);
    }
    let mode = ["auto", "force_custom_plan", "force_generic_plan"][random.usize(..3)];
    connection = connection.option("plan_cache_mode", mode);
    let mut wire = Wire::connect(&connection).unwrap();
    for (name, sql) in [
        ("q1", "SELECT body FROM docs"),
        ("q2", "UPDATE docs SET org = org RETURNING body"),
        ("q3", "WITH d AS (DELETE FROM docs RETURNING body) SELECT body FROM d"),
        ("q4", "SELECT body FROM organization"),
        ("q5", "DELETE FROM docs RETURNING body"),
    ] {
        wire.prepare(name, sql);
    }
    wire.sync().unwrap();
    let prepared = "PREPARE p1 AS SELECT body FROM docs;
                    PREPARE p2 AS UPDATE docs SET org = org RETURNING body;
                    PREPARE p3(int) AS SELECT body FROM two_atomic($1)";
    wire.query(prepared).unwrap();
    let mut allowed = HashSet::new();
    let mut log = format!("seed {seed}, as {login}, {mode}\n");
    for token in &tokens {
        let Token { role, organization, user, .. } = token;
        let _ = writeln!(log, "  token: {role:?} {organization} {user}");
        for organization in ORGANIZATIONS {
            for owner in USERS.into_iter().filter(|owner| token.sees(organization, owner)) {
                allowed.extend((1..=3).map(|n| format!("{organization}/{owner}/{n}")));
            }
        }
    }
    let mut sequence =
        Sequence { random, wire, allowed, tokens: count, savepoints: 0, totals, log };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..STEPS {
            sequence.step();
        }
    }));
    if let Err(panic) = outcome {
        eprintln!("--- the sequence that failed: {}", sequence.log);
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn rows_are_of_one_token() {
    let _turn = crate::ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let key = Key::generate(Algorithm::ES256);
    let providers =
        json!([{"name": "p", "jwks": key.public_jwk(), "role_claim": "role"}]).to_string();
    let cluster = Cluster::start(
        Preload::Shared,
        &[("pg_session_jwt.providers", &providers), ("pg_session_jwt.locked_roles", "locked")],
    );
    let mut admin = cluster.admin();
    run(&mut admin, SCHEMA);
    // A database for each session, whose rows no other session locks.
    for session in 0..SESSIONS {
        run(&mut admin, &format!("CREATE DATABASE s{session} TEMPLATE postgres"));
    }
    drop(admin);
    let first = std::env::var("MODEL_SEED").map_or(FIRST_SEED, |seed| seed.parse().unwrap());
    let sequences =
        std::env::var("MODEL_SEQUENCES").map_or(SEQUENCES, |count| count.parse().unwrap());
    let totals = Totals::default();
    thread::scope(|scope| {
        for session in 0..SESSIONS {
            let (cluster, key, totals) = (&cluster, &key, &totals);
            scope.spawn(move || {
                for number in (session..sequences).step_by(SESSIONS as usize) {
                    let connection = cluster.as_role("app").database(&format!("s{session}"));
                    run_sequence(connection, key, first + number, totals);
                }
            });
        }
    });
    let [statements, refused, rows] = [&totals.statements, &totals.refused, &totals.rows]
        .map(|total| total.load(Ordering::Relaxed));
    println!("{sequences} sequences, {statements} answers, {refused} errors, {rows} rows compared");
    // Else the sequences would show nothing.
    assert!(rows > sequences * 5, "only {rows} rows");
}
