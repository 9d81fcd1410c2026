//! A plan and the claims that it reads are of one token: no row goes out by the policies of one token's
//! role and the claims of another.
//!
//! One person is `org_admin` of acme by token A and plain `member` of globex by token B. Whatever she
//! does, she sees acme's rows and her own row of globex; the row that both tokens together would show
//! is globex' secret.

use harness::{Answer, Cluster, Connection, Preload, Wire, now, present, run, sqlstate, text};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::{Value, json};

const SECRET: &str = "globex secret";

const SCHEMA: &str = "
    CREATE ROLE locked LOGIN NOINHERIT; CREATE ROLE strict LOGIN NOINHERIT; ALTER ROLE app NOINHERIT;
    CREATE ROLE org_admin; CREATE ROLE member;
    GRANT org_admin, member TO app, locked, strict;
    GRANT CREATE ON SCHEMA public TO PUBLIC;
    ALTER ROLE strict SET pg_session_jwt.identity_scope = transaction;
    CREATE TABLE docs (org text, owner text, body text);
    INSERT INTO docs VALUES ('acme', 'uma', 'acme one'), ('acme', 'vic', 'acme two'),
                            ('globex', 'uma', 'globex own'), ('globex', 'vic', 'globex secret');
    CREATE INDEX ON docs (owner);
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
    CREATE POLICY admins ON docs TO org_admin USING (org = auth.claim('org'));
    CREATE POLICY members ON docs TO member
      USING (org = auth.claim('org') AND owner = (SELECT auth.user_id()));
    GRANT ALL ON docs TO org_admin, member;
    CREATE TABLE plain (n int); INSERT INTO plain SELECT generate_series(1, 4);
    CREATE TABLE deferred (n int);
    GRANT ALL ON plain, deferred TO PUBLIC;
    -- Not from a table, which would bind the transaction.
    CREATE FUNCTION token(n text) RETURNS text LANGUAGE sql STABLE
      AS 'SELECT current_setting(''token.'' || n)';
    -- What the attacker writes, with rights on the schema public.
    CREATE FUNCTION present(n text) RETURNS text LANGUAGE plpgsql VOLATILE
      AS 'BEGIN PERFORM auth.jwt_session_init(token(n)); RETURN n; END';
    CREATE FUNCTION present_stable(n text) RETURNS text LANGUAGE plpgsql STABLE
      AS 'BEGIN PERFORM auth.jwt_session_init(token(n)); RETURN n; END';
    CREATE FUNCTION reset_stable() RETURNS text LANGUAGE plpgsql STABLE
      AS 'BEGIN PERFORM set_config(''pg_session_jwt.jwt'', NULL, false); RETURN 1; END';
    CREATE FUNCTION reset_token() RETURNS text LANGUAGE plpgsql VOLATILE
      AS 'BEGIN RESET pg_session_jwt.jwt; RETURN 1; END';
    -- A comes into force, and goes when the block fails: B is back, and no statement presents it.
    CREATE FUNCTION roll_back() RETURNS text LANGUAGE plpgsql VOLATILE AS $$
      BEGIN
        BEGIN PERFORM auth.jwt_session_init(token('A')); RAISE 'back';
        EXCEPTION WHEN raise_exception THEN NULL; END;
        RETURN 1;
      END $$;
    CREATE FUNCTION returning_cursor() RETURNS SETOF docs LANGUAGE plpgsql AS $$
      DECLARE c refcursor; d docs;
      BEGIN
        OPEN c FOR UPDATE docs SET body = body RETURNING *;
        PERFORM auth.jwt_session_init(token('B'));
        LOOP FETCH c INTO d; EXIT WHEN NOT FOUND; RETURN NEXT d; END LOOP;
      END $$;
    CREATE FUNCTION plain_cursor() RETURNS SETOF docs LANGUAGE plpgsql AS $$
      DECLARE c CURSOR FOR SELECT * FROM docs; d docs;
      BEGIN
        OPEN c;
        PERFORM auth.jwt_session_init(token('B'));
        LOOP FETCH c INTO d; EXIT WHEN NOT FOUND; RETURN NEXT d; END LOOP;
      END $$;
    CREATE FUNCTION loop() RETURNS SETOF docs LANGUAGE plpgsql AS $$
      DECLARE d docs;
      BEGIN
        FOR d IN DELETE FROM docs RETURNING * LOOP
          RETURN NEXT d; PERFORM auth.jwt_session_init(token('B'));
        END LOOP;
      END $$;
    CREATE FUNCTION two_statements(n text) RETURNS SETOF docs LANGUAGE sql
      AS 'SELECT auth.jwt_session_init(token(n)); SELECT * FROM docs';
    CREATE FUNCTION two_statements_atomic(n text) RETURNS SETOF docs LANGUAGE sql
      BEGIN ATOMIC SELECT auth.jwt_session_init(token(n)); SELECT * FROM docs; END;
    CREATE FUNCTION delete_atomic(n text) RETURNS SETOF docs LANGUAGE sql
      BEGIN ATOMIC SELECT auth.jwt_session_init(token(n)); DELETE FROM docs RETURNING *; END;
    CREATE FUNCTION set_and_select() RETURNS SETOF docs LANGUAGE sql
      AS 'SELECT set_config(''pg_session_jwt.jwt'', token(''B''), false); TABLE docs';
    CREATE FUNCTION while_planned() RETURNS SETOF docs LANGUAGE sql
      BEGIN ATOMIC SELECT 1 FROM generate_series(1, 2) g WHERE g::text = present_stable('B');
                   SELECT * FROM docs; END;
    CREATE FUNCTION reset_while_planned() RETURNS SETOF docs LANGUAGE sql
      BEGIN ATOMIC SELECT 1 FROM generate_series(1, 2) g WHERE g::text = reset_stable();
                   SELECT * FROM docs; END;
    -- Rewritten as a whole before its first statement, which needs no table.
    CREATE FUNCTION free_first() RETURNS SETOF docs LANGUAGE sql
      BEGIN ATOMIC SELECT 1; SELECT * FROM docs; END;
    CREATE FUNCTION with_clause() RETURNS SETOF docs LANGUAGE sql SET pg_session_jwt.jwt = ''
      AS 'SELECT auth.jwt_session_init(token(''B'')); SELECT * FROM docs';
    CREATE FUNCTION nested() RETURNS SETOF docs LANGUAGE plpgsql AS $$
      BEGIN RETURN QUERY SELECT d.* FROM docs d, LATERAL present('B'); END $$;
    CREATE FUNCTION definer(n text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
      AS 'BEGIN PERFORM auth.jwt_session_init(token(n)); RETURN n; END';
    -- The cause of a rejection ends while it runs.
    CREATE FUNCTION after_a_while() RETURNS text LANGUAGE plpgsql AS $$
      BEGIN PERFORM pg_sleep(2.1); RETURN (SELECT string_agg(body, ', ') FROM docs); END $$;
    CREATE FUNCTION clear() RETURNS text LANGUAGE plpgsql SECURITY DEFINER
      AS 'BEGIN PERFORM auth.jwt_session_init(NULL); RETURN 1; END';
    -- A literal of such a type runs the domain's check while the statement is analysed.
    CREATE FUNCTION switch(v text) RETURNS boolean LANGUAGE plpgsql AS $$
      BEGIN
        IF current_setting('my.switch', true) = 'present' THEN PERFORM present(v);
        ELSIF current_setting('my.switch', true) = 'reset' THEN PERFORM reset_token(); END IF;
        RETURN true;
      END $$;
    CREATE DOMAIN switching AS text CHECK (switch(VALUE));
    CREATE TYPE pair AS (x switching);
    SET check_function_bodies = off;
    CREATE FUNCTION while_analysed() RETURNS text LANGUAGE sql AS $$
      SELECT set_config('my.out', string_agg(body, ', '), false) FROM docs;
      SELECT ('(B)'::pair)::text $$;
    RESET check_function_bodies;
    -- What one role may call, with the claims of whoever calls it.
    CREATE FUNCTION report() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER STABLE
      AS $$ SELECT body FROM docs WHERE org = auth.claim('org') $$;
    CREATE PROCEDURE purge(note text) LANGUAGE plpgsql SECURITY DEFINER
      AS $$ BEGIN UPDATE docs SET body = note WHERE org = auth.claim('org'); END $$;
    REVOKE ALL ON FUNCTION report() FROM PUBLIC; GRANT EXECUTE ON FUNCTION report() TO org_admin;
    REVOKE ALL ON PROCEDURE purge FROM PUBLIC; GRANT EXECUTE ON PROCEDURE purge TO org_admin;
    CREATE FUNCTION first_report() RETURNS text LANGUAGE sql SECURITY DEFINER STABLE
      AS $$ SELECT string_agg(body, ', ') FROM docs WHERE org = auth.claim('org') $$;
    REVOKE ALL ON FUNCTION first_report() FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION first_report() TO org_admin;
    CREATE FUNCTION wrapper() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN first_report(); END';
    CREATE VIEW shop AS SELECT 'x'::text AS token;
    CREATE RULE twice AS ON INSERT TO shop DO INSTEAD (
      SELECT auth.jwt_session_init(token(NEW.token));
      UPDATE docs SET body = 'changed');
    CREATE RULE also AS ON UPDATE TO shop DO INSTEAD (
      SELECT auth.jwt_session_init(token(NEW.token));
      DELETE FROM docs);
    GRANT ALL ON shop TO PUBLIC;
    CREATE FUNCTION through_rule() RETURNS void LANGUAGE plpgsql
      AS 'BEGIN INSERT INTO shop VALUES (''B''); END';
    CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql
      AS 'BEGIN UPDATE docs SET body = ''changed''; RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER later AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW EXECUTE FUNCTION at_commit();
    CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$
      DECLARE c CURSOR FOR SELECT * FROM docs; d docs;
      BEGIN
        PERFORM auth.jwt_session_init(token('A'));
        FOR d IN SELECT * FROM docs LOOP
          IF d.body = 'globex secret' THEN RAISE 'seen'; END IF;
          COMMIT;
          PERFORM auth.jwt_session_init(token('B'));
        END LOOP;
      END $$;
";

struct Fixture {
    cluster: Cluster,
    key: Key,
}

impl Fixture {
    fn start() -> Self {
        let key = Key::generate(Algorithm::ES256);
        let providers = json!([
            {"name": "p", "jwks": key.public_jwk(), "role_claim": "role", "leeway": 0}
        ]);
        let settings = [
            ("pg_session_jwt.providers", &*providers.to_string()),
            ("pg_session_jwt.locked_roles", "locked"),
        ];
        let cluster = Cluster::start(Preload::Shared, &settings);
        let mut admin = cluster.admin();
        run(&mut admin, SCHEMA);
        let fixture = Self { cluster, key };
        for (name, claims) in [
            ("A", json!({"sub": "uma", "org": "acme", "role": "org_admin"})),
            ("B", json!({"sub": "uma", "org": "globex", "role": "member"})),
            // Of the same role as B, and of another one's row.
            ("C", json!({"sub": "vic", "org": "acme", "role": "member"})),
            ("none", json!({"sub": "uma", "org": "globex"})),
        ] {
            let token = fixture.sign(claims);
            run(&mut admin, &format!("ALTER DATABASE postgres SET token.{name} = '{token}'"));
        }
        fixture
    }

    fn sign(&self, mut claims: Value) -> String {
        claims.as_object_mut().unwrap().entry("exp").or_insert_with(|| (now() + 600).into());
        self.key.sign(&claims)
    }

    fn token(&self, name: &str) -> String {
        text(&mut self.cluster.admin(), &format!("SELECT token('{name}')")).unwrap()
    }

    fn logins(&self) -> [Connection; 3] {
        ["app", "locked", "strict"].map(|login| self.cluster.as_role(login))
    }

    /// That nothing was changed that no token may change.
    fn check_table(&self, after: &str) {
        let mut admin = self.cluster.admin();
        let count = format!("SELECT count(*)::text FROM docs WHERE body = '{SECRET}'");
        assert_eq!(text(&mut admin, &count).as_deref(), Some("1"), "{after}");
        run(
            &mut admin,
            "DELETE FROM docs WHERE body <> 'globex secret';
             INSERT INTO docs VALUES ('acme', 'uma', 'acme one'), ('acme', 'vic', 'acme two'),
                                     ('globex', 'uma', 'globex own')",
        );
    }
}

/// What a message of the simple protocol comes to; nothing that the server sends has the secret.
fn attempt(wire: &mut Wire, sql: &str) -> String {
    wire.record();
    let answers = wire.query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let received = wire.record();
    let has_secret = received.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
    assert!(!has_secret, "{sql}");
    let failed = answers.into_iter().find_map(Answer::err);
    failed.map_or_else(|| "00000".to_owned(), |fields| fields.sqlstate().to_owned())
}

/// Each way in which A's role could meet B's claims, in one transaction and in statements of their own.
#[test]
fn claims_of_one_token_meet_no_role_of_another() {
    let fixture = Fixture::start();
    let (a, b) = (fixture.token("A"), fixture.token("B"));
    let rejected = "28J09";
    let changed = "42501";
    let attacks: &[(&str, &str)] = &[
        ("SELECT * FROM returning_cursor()", rejected),
        ("SELECT * FROM plain_cursor()", rejected),
        ("SELECT * FROM loop()", rejected),
        ("SELECT * FROM two_statements('B')", rejected),
        ("SELECT two_statements('B')", rejected),
        ("SELECT * FROM two_statements_atomic('B')", rejected),
        ("SELECT * FROM two_statements_atomic('none')", rejected),
        ("SELECT * FROM delete_atomic('B')", rejected),
        ("SELECT * FROM set_and_select()", rejected),
        ("SELECT * FROM while_planned()", rejected),
        ("SELECT * FROM reset_while_planned()", changed),
        ("SELECT * FROM with_clause()", rejected),
        ("SET LOCAL my.switch = 'present'; SELECT while_analysed(); SHOW my.out", rejected),
        ("SET LOCAL my.switch = 'reset'; SELECT while_analysed(); SHOW my.out", changed),
        ("SELECT present('B'), report()", rejected),
        ("SELECT r FROM (SELECT present('none') OFFSET 0) x, LATERAL report() r", rejected),
        ("CALL purge(present('B'))", rejected),
        ("DO $$ DECLARE c CURSOR FOR SELECT report(); r text; BEGIN OPEN c; PERFORM present('B');
          FETCH c INTO r; END $$", rejected),
        // The definer's user comes back when the function ends, and with it the role of before.
        ("SELECT definer('none'), free_first()", changed),
        ("SELECT clear(), free_first()", changed),
        ("SELECT * FROM nested()", rejected),
        ("SELECT d.*, present('B') FROM docs d", rejected),
        ("SELECT d.*, present('none') FROM docs d", rejected),
        ("SELECT d.*, definer('none') FROM docs d", rejected),
        ("SELECT d.* FROM docs d WHERE body = present_stable('B')", rejected),
        ("SELECT d.* FROM docs d WHERE body = reset_stable()", changed),
        ("SELECT d.* FROM (SELECT present('B') OFFSET 0) x, docs d", rejected),
        ("SELECT d.* FROM (SELECT present('A') OFFSET 0) x, docs d", "00000"),
        ("WITH x AS MATERIALIZED (SELECT present('B')) SELECT d.* FROM x, docs d", rejected),
        ("WITH x AS (DELETE FROM docs RETURNING *) SELECT x.*, present('B') FROM x", rejected),
        ("WITH x AS (DELETE FROM docs RETURNING *) SELECT present('B')", rejected),
        ("UPDATE docs SET body = present('B')", rejected),
        ("UPDATE docs SET body = body RETURNING docs.*, present('B')", rejected),
        ("SELECT d.*, set_config('pg_session_jwt.jwt', NULL, false) FROM docs d", changed),
        ("SELECT d.*, set_config('pg_session_jwt.jwt', '', false) FROM docs d", changed),
        ("SELECT d.*, reset_token() FROM docs d", changed),
        ("SELECT d.* FROM (SELECT reset_token() OFFSET 0) x, docs d", changed),
        ("SELECT d.* FROM (SELECT clear() OFFSET 0) x, docs d", changed),
        ("INSERT INTO shop VALUES ('B')", rejected),
        ("UPDATE shop SET token = 'B'", rejected),
        ("SELECT through_rule()", rejected),
        ("COPY (SELECT d.*, present('B') FROM docs d) TO STDOUT", rejected),
        ("CREATE TEMP TABLE t AS SELECT d.*, present('B') FROM docs d", rejected),
        ("EXPLAIN ANALYZE SELECT d.*, present('B') FROM docs d", rejected),
        ("DO $$ BEGIN PERFORM FROM docs; PERFORM present('B'); END $$", rejected),
        (
            "DECLARE c CURSOR FOR SELECT * FROM docs; SELECT present('B'); FETCH ALL FROM c",
            rejected,
        ),
        (
            "DECLARE c CURSOR FOR SELECT * FROM docs; RESET pg_session_jwt.jwt; FETCH ALL FROM c",
            changed,
        ),
        ("DECLARE c CURSOR WITH HOLD FOR TABLE docs; RESET pg_session_jwt.jwt; COMMIT", changed),
        (
            "DECLARE c CURSOR FOR SELECT * FROM plain; SELECT present('B'); FETCH ALL FROM c",
            rejected,
        ),
        (
            "SELECT * FROM docs; SELECT auth.jwt_session_init(token('B')); SELECT * FROM docs",
            rejected,
        ),
        ("SELECT * FROM docs; RESET pg_session_jwt.jwt; SELECT * FROM docs", changed),
        ("SELECT * FROM docs; SELECT auth.jwt_session_init(NULL); SELECT * FROM docs", changed),
        ("SELECT * FROM docs; RESET pg_session_jwt.jwt; COPY docs FROM STDIN", changed),
        ("SELECT * FROM docs; RESET pg_session_jwt.jwt; LOCK docs", changed),
        ("SELECT * FROM docs; RESET pg_session_jwt.jwt; TRUNCATE docs", changed),
        ("INSERT INTO deferred VALUES (1); SELECT present('B'); COMMIT", rejected),
        ("INSERT INTO deferred VALUES (1); RESET pg_session_jwt.jwt; COMMIT", changed),
        (
            "INSERT INTO deferred VALUES (1); RESET pg_session_jwt.jwt; SET CONSTRAINTS ALL IMMEDIATE",
            changed,
        ),
    ];
    for login in fixture.logins() {
        // Without and with a token of the startup packet, which comes back without being presented.
        for startup in [None, Some(&b)] {
            let connection = match startup {
                Some(token) => login.clone().option("pg_session_jwt.jwt", token),
                None => login.clone(),
            };
            for (attack, expected) in attacks {
                let mut wire = Wire::connect(&connection).unwrap();
                let begin = |token: &str| format!("BEGIN; SELECT auth.jwt_session_init('{token}')");
                assert_eq!(attempt(&mut wire, &begin(&a)), "00000");
                assert_eq!(attempt(&mut wire, attack), *expected, "{attack}, {startup:?}");
                // The transaction is lost, and the next one is like new.
                attempt(&mut wire, "ROLLBACK");
                assert_eq!(attempt(&mut wire, &begin(&b)), "00000", "{attack}");
                let rows = wire.ask("SELECT body FROM docs", &[]).unwrap().unwrap();
                assert_eq!(rows, [[Some("globex own".to_owned())]], "{attack}");
                attempt(&mut wire, "ROLLBACK");
                fixture.check_table(attack);
            }
        }
        // A function that has checked its caller in an earlier transaction.
        let mut wire = Wire::connect(&login).unwrap();
        for sql in ["SELECT wrapper()", "SELECT wrapper()", "SELECT definer('none'), wrapper()"] {
            attempt(&mut wire, &format!("BEGIN; SELECT auth.jwt_session_init('{a}')"));
            let expected = if sql.contains("none") { changed } else { "00000" };
            assert_eq!(attempt(&mut wire, sql), expected, "{sql}");
            attempt(&mut wire, "ROLLBACK");
        }
        // The same with plans that Postgres has cached in earlier transactions.
        let mut wire = Wire::connect(&login).unwrap();
        let cached = |attack: &str| attack.starts_with("SELECT * FROM ") && !attack.contains(';');
        for round in 0..8 {
            for (attack, _) in attacks.iter().filter(|(attack, _)| cached(attack)) {
                attempt(&mut wire, &format!("BEGIN; SELECT auth.jwt_session_init('{a}')"));
                // A cached plan that has not started is found out when it starts.
                let outcome = attempt(&mut wire, attack);
                assert!([rejected, changed].contains(&&*outcome), "{attack}, {round}: {outcome}");
                attempt(&mut wire, "ROLLBACK");
                fixture.check_table(attack);
            }
        }
    }
}

/// Parse and Bind under A, Execute under B, in the same transaction and with plans of earlier ones.
#[test]
fn portals_are_of_the_role_that_they_were_bound_in() {
    let fixture = Fixture::start();
    let (a, b) = (fixture.token("A"), fixture.token("B"));
    for login in fixture.logins() {
        for mode in ["force_custom_plan", "force_generic_plan"] {
            for sql in [
                "UPDATE docs SET body = body WHERE org <> $1 RETURNING body",
                "WITH d AS (DELETE FROM docs WHERE org <> $1 RETURNING *) SELECT body FROM d",
                "DELETE FROM docs WHERE org <> $1 RETURNING body",
                "SELECT body FROM docs WHERE org <> $1",
                "SELECT body FROM docs WHERE org <> $1 FOR UPDATE",
            ] {
                let mut client = login.clone().client();
                run(&mut client, &format!("SET plan_cache_mode = {mode}"));
                let statement = client.prepare(sql).unwrap();
                for round in 0..3 {
                    // Portal and token in one transaction, before which the plan may be cached.
                    let mut transaction = client.transaction().unwrap();
                    transaction.execute("SELECT auth.jwt_session_init($1)", &[&a]).unwrap();
                    let portal = transaction.bind(&statement, &[&""]).unwrap();
                    let presented =
                        sqlstate(transaction.execute("SELECT auth.jwt_session_init($1)", &[&b]));
                    let outcome = match presented.as_str() {
                        "00000" => sqlstate(transaction.query_portal(&portal, 0).map(|rows| {
                            assert!(
                                rows.iter().all(|row| row.get::<_, &str>(0) != SECRET),
                                "{sql}"
                            );
                        })),
                        _ => presented,
                    };
                    assert!(
                        ["28J09", "42501"].contains(&outcome.as_str()),
                        "{sql}, {mode}, {round}: {outcome}"
                    );
                    drop(portal);
                    transaction.rollback().unwrap();
                    fixture.check_table(sql);
                    // As a rule: one role a transaction, and the plan is for all of them.
                    for (token, count) in [(&a, 2), (&b, 1)] {
                        let mut transaction = client.transaction().unwrap();
                        transaction.execute("SELECT auth.jwt_session_init($1)", &[token]).unwrap();
                        let rows = transaction.query(&statement, &[&""]).unwrap();
                        assert_eq!(rows.len(), count, "{sql}");
                        transaction.rollback().unwrap();
                    }
                }
            }
        }
    }
}

/// What a transaction may do: any token before it touches tables, and any of its role afterwards.
#[test]
fn a_transaction_has_one_role_by_token() {
    let fixture = Fixture::start();
    let (a, b, c, none) =
        (fixture.token("A"), fixture.token("B"), fixture.token("C"), fixture.token("none"));
    let mut client = fixture.cluster.as_role("app").client();
    let bodies = |client: &mut Client| {
        let rows = client.query("SELECT body FROM docs ORDER BY 1", &[])?;
        Ok::<_, postgres::Error>(rows.iter().map(|row| row.get(0)).collect::<Vec<String>>())
    };
    // Neither other tokens, nor the catalogs, nor expressions bind the transaction.
    run(&mut client, "BEGIN");
    for token in [&a, &none, &b, &c, &a] {
        assert_eq!(present(&mut client, token), "00000");
        run(
            &mut client,
            "SELECT * FROM pg_class LIMIT 1; SELECT auth.user_id(), now(); SHOW work_mem",
        );
        run(
            &mut client,
            "WITH x AS (SELECT 1) SELECT * FROM x, (VALUES (1)) v, generate_series(1, 2) g",
        );
        run(&mut client, "SELECT * FROM information_schema.tables LIMIT 1");
        let _ = client.prepare("SELECT * FROM docs").unwrap();
    }
    // Nor does a statement that fails while it is planned.
    run(&mut client, "SAVEPOINT p");
    assert_eq!(sqlstate(client.batch_execute("SELECT FROM docs WHERE 1 / 0 = 1")), "22012");
    run(&mut client, "ROLLBACK TO p");
    for token in [&b, &a] {
        assert_eq!(present(&mut client, token), "00000");
    }
    assert_eq!(bodies(&mut client).unwrap(), ["acme one", "acme two"]);
    // The same token, and none in a savepoint that is rolled back.
    assert_eq!(present(&mut client, &a), "00000");
    run(&mut client, "SAVEPOINT s; SELECT auth.jwt_session_init(NULL)");
    let error = client.batch_execute("SELECT * FROM docs").unwrap_err();
    let report = error.as_db_error().unwrap();
    assert_eq!(report.message(), "role has changed within the transaction");
    assert_eq!(
        report.detail(),
        Some(
            "The transaction has touched tables with the role \"org_admin\"; the token in force names no role."
        )
    );
    run(&mut client, "ROLLBACK TO s");
    assert_eq!(bodies(&mut client).unwrap(), ["acme one", "acme two"]);
    // A rejected token ends every identity.
    let error = client.execute("SELECT auth.jwt_session_init($1)", &[&b]).unwrap_err();
    let report = error.as_db_error().unwrap();
    assert_eq!(report.code().code(), "28J09");
    assert_eq!(report.message(), "role differs from that of the transaction");
    assert_eq!(
        report.detail(),
        Some(
            "The transaction has touched tables with the role \"org_admin\"; the token names the role \"member\"."
        )
    );
    run(&mut client, "ROLLBACK TO s");
    assert_eq!(sqlstate(bodies(&mut client)), "42501");
    run(&mut client, "ROLLBACK TO s");
    // Functions that need no table go on.
    assert_eq!(text(&mut client, "SELECT auth.user_id()"), None);
    run(&mut client, "ROLLBACK");

    // Other tokens of the same role take turns within a transaction.
    run(&mut client, "BEGIN");
    for (token, seen) in [(&b, "globex own"), (&c, "acme two"), (&b, "globex own")] {
        assert_eq!(present(&mut client, token), "00000");
        assert_eq!(bodies(&mut client).unwrap(), [seen]);
    }
    run(&mut client, "COMMIT");
    // Transactions are free of each other, whether the token is the session's or not.
    for (token, seen) in [(&a, 2), (&b, 1), (&c, 1), (&a, 2)] {
        assert_eq!(present(&mut client, token), "00000");
        assert_eq!(bodies(&mut client).unwrap().len(), seen);
    }
    // A procedure's transactions are transactions.
    run(&mut client, "CALL commits()");
    assert_eq!(bodies(&mut client).unwrap(), ["globex own"]);
    // A function that presents a token, as middlewares call it.
    run(&mut client, "BEGIN; SELECT present('A'); SELECT * FROM docs; COMMIT");
    run(&mut client, "DO $$ BEGIN PERFORM present('B'); PERFORM FROM docs; END $$");
    // The login role's statements bind as well.
    assert_eq!(present(&mut client, ""), "00000");
    run(&mut client, "BEGIN; SELECT * FROM plain");
    assert_eq!(present(&mut client, &a), "28J09");
    run(&mut client, "ROLLBACK; BEGIN; CREATE TEMP TABLE mine ()");
    assert_eq!(present(&mut client, &a), "28J09");
    run(&mut client, "ROLLBACK; BEGIN; SELECT * FROM plain");
    assert_eq!(present(&mut client, &none), "00000");
    run(&mut client, "ROLLBACK");
}

/// A statement or cursor with policies reads one token to its end, also where both have its role.
#[test]
fn a_plan_with_policies_reads_one_token() {
    let fixture = Fixture::start();
    let (b, c) = (fixture.token("B"), fixture.token("C"));
    run(
        &mut fixture.cluster.admin(),
        "CREATE TABLE parted (org text, owner text) PARTITION BY LIST (org);
         CREATE TABLE parted_a PARTITION OF parted FOR VALUES IN ('acme');
         CREATE TABLE parted_g PARTITION OF parted FOR VALUES IN ('globex');
         INSERT INTO parted VALUES ('acme', 'vic'), ('globex', 'uma');
         GRANT SELECT ON parted TO member;
         -- Who is listed for the organization does not see its rows.
         CREATE TABLE filed AS SELECT * FROM docs;
         ALTER TABLE filed ENABLE ROW LEVEL SECURITY; GRANT SELECT ON filed TO member;
         CREATE POLICY unlisted ON filed TO member USING (org = auth.claim('org')
           AND NOT EXISTS (SELECT FROM parted p WHERE p.org = auth.claim('org')
                           AND p.owner = auth.user_id()));
         CREATE FUNCTION at_third(n text) RETURNS text LANGUAGE plpgsql STABLE AS $$
           BEGIN
             PERFORM set_config('my.calls', (coalesce(nullif(current_setting('my.calls', true), ''), '0')::int
                                             + 1)::text, true);
             IF current_setting('my.calls')::int >= 3 THEN PERFORM auth.jwt_session_init(token(n)); END IF;
             RETURN 'acme';
           END $$;
         CREATE TABLE copied AS SELECT * FROM docs;
         CREATE VIEW guarded WITH (security_barrier) AS SELECT * FROM copied
           WHERE org = auth.claim('org') AND owner = (SELECT auth.user_id());
         GRANT SELECT ON guarded TO member;
         CREATE FUNCTION my_docs() RETURNS SETOF copied LANGUAGE sql SECURITY DEFINER
           AS $$ SELECT * FROM copied WHERE org = auth.claim('org') AND owner = (SELECT auth.user_id()) $$",
    );
    let mut client = fixture.cluster.as_role("app").client();
    for plan in ["SET LOCAL enable_seqscan = on", "SET LOCAL enable_seqscan = off"] {
        let begin = |client: &mut Client| {
            run(client, "ROLLBACK");
            run(client, &format!("BEGIN; {plan}"));
            assert_eq!(present(client, &b), "00000");
        };
        // With B's user, C's organization: a row of neither.
        let query = "SELECT body FROM docs";
        begin(&mut client);
        run(
            &mut client,
            &format!(
                "DECLARE c SCROLL CURSOR FOR {query}; FETCH 1 FROM c; MOVE BACKWARD ALL FROM c"
            ),
        );
        assert_eq!(present(&mut client, &c), "00000");
        let error = client.batch_execute("FETCH ALL FROM c").unwrap_err();
        let message = error.as_db_error().unwrap().message();
        assert_eq!(message, "token has changed within a statement with policies");
        // One that was not read yet belongs to the token that reads it.
        begin(&mut client);
        run(&mut client, &format!("DECLARE c CURSOR FOR {query}"));
        assert_eq!(present(&mut client, &c), "00000");
        assert_eq!(text(&mut client, "FETCH ALL FROM c").as_deref(), Some("acme two"));
        // The same token, presented again or back in force, is the same one.
        assert_eq!(present(&mut client, &c), "00000");
        run(&mut client, "FETCH ALL FROM c; SAVEPOINT s");
        assert_eq!(present(&mut client, &b), "00000");
        run(&mut client, "ROLLBACK TO s; FETCH ALL FROM c");
        // A cursor that was opened in a savepoint goes on after it, and remembers.
        begin(&mut client);
        run(
            &mut client,
            &format!("SAVEPOINT s; DECLARE c CURSOR FOR {query}; FETCH 1 FROM c; RELEASE s"),
        );
        run(&mut client, "SAVEPOINT t; SELECT 1; ROLLBACK TO t");
        assert_eq!(present(&mut client, &c), "00000");
        assert_eq!(sqlstate(client.batch_execute("FETCH ALL FROM c")), "42501");
        // A cursor is read to its end at the commit.
        begin(&mut client);
        run(&mut client, &format!("DECLARE c CURSOR WITH HOLD FOR {query}; FETCH 1 FROM c"));
        assert_eq!(present(&mut client, &c), "00000");
        assert_eq!(sqlstate(client.batch_execute("COMMIT")), "42501");
        // One that was read in a savepoint goes on after its end, and remembers what it has read.
        begin(&mut client);
        run(&mut client, &format!("DECLARE c CURSOR FOR {query}; SAVEPOINT s; FETCH 1 FROM c"));
        run(&mut client, "ROLLBACK TO s");
        assert_eq!(present(&mut client, &c), "00000");
        assert_eq!(sqlstate(client.batch_execute("FETCH ALL FROM c")), "42501");
        // Under the token from before it goes on; under any it can be closed, by a COMMIT too.
        begin(&mut client);
        run(&mut client, &format!("DECLARE c CURSOR FOR {query}; FETCH 1 FROM c"));
        for token in [&c, &b] {
            assert_eq!(present(&mut client, token), "00000");
        }
        run(&mut client, "FETCH ALL FROM c");
        for end in ["CLOSE c; COMMIT", "COMMIT"] {
            begin(&mut client);
            run(&mut client, &format!("DECLARE c CURSOR FOR {query}; FETCH 1 FROM c"));
            assert_eq!(present(&mut client, &c), "00000");
            run(&mut client, end);
            assert_eq!(present(&mut client, ""), "00000");
        }
        // A cursor that has failed leaves nothing to those after it.
        for _ in 0..20 {
            begin(&mut client);
            run(
                &mut client,
                &format!("SAVEPOINT s; DECLARE c CURSOR FOR {query} WHERE 1 / length(body) = 9"),
            );
            run(&mut client, &format!("DECLARE d CURSOR FOR {query}; FETCH 1 FROM d; SAVEPOINT t"));
            let _ = client.batch_execute("FETCH ALL FROM c; SELECT 1 / 0");
            run(&mut client, "ROLLBACK TO t; CLOSE c");
            assert_eq!(present(&mut client, &c), "00000");
            run(&mut client, &format!("DECLARE e CURSOR FOR {query}; FETCH ALL FROM e"));
        }
        // What is decided when the plan starts: which partitions are read.
        begin(&mut client);
        run(&mut client, "DECLARE c CURSOR FOR SELECT body FROM filed");
        assert_eq!(present(&mut client, &c), "00000");
        assert_eq!(sqlstate(client.batch_execute("FETCH ALL FROM c")), "42501");
        begin(&mut client);
        let within = "SELECT f.body FROM filed f, parted p WHERE p.org = at_third('C')";
        assert_eq!(sqlstate(client.batch_execute(within)), "28J09");
        // Views and functions that stand between the session and the rows.
        for guard in ["guarded", "my_docs()"] {
            begin(&mut client);
            let within = format!("SELECT present('C'), * FROM {guard}");
            let outcome = sqlstate(client.batch_execute(&within));
            assert!(["28J09", "00000"].contains(&&*outcome), "{guard}: {outcome}");
            begin(&mut client);
            run(
                &mut client,
                &format!("DECLARE c CURSOR FOR SELECT * FROM {guard}; FETCH 1 FROM c"),
            );
            assert_eq!(present(&mut client, &c), "00000");
            let rest = client.query("FETCH ALL FROM c", &[]);
            // A function that was called has read everything under one token.
            let rows = rest.map_or(Vec::new(), |rows| rows);
            assert!(rows.iter().all(|row| row.get::<_, &str>("body") != "acme one"), "{guard}");
        }
        begin(&mut client);
        let lazily = "SELECT my_docs(), present('C')";
        assert_eq!(sqlstate(client.batch_execute(lazily)), "42501");
        // Within a statement.
        for (query, code) in [
            ("SELECT body, present('C') FROM docs", "28J09"),
            ("SELECT body, present('B') FROM docs", "00000"),
            // What is left to the end of the plan, after its last row.
            ("WITH d AS (UPDATE docs SET body = present('C') RETURNING *) SELECT 1", "28J09"),
            ("SELECT n, present('C') FROM plain", "00000"),
            (
                "SELECT body, set_config('pg_session_jwt.jwt', '', true), auth.user_id() FROM docs",
                "42501",
            ),
            (
                "WITH d AS (UPDATE docs SET body = body RETURNING *) SELECT present('C') FROM plain",
                "28J09",
            ),
        ] {
            begin(&mut client);
            assert_eq!(sqlstate(client.batch_execute(query)), code, "{query}");
        }
        // What failed is not running any more.
        begin(&mut client);
        run(&mut client, "SAVEPOINT s");
        assert_eq!(
            sqlstate(client.batch_execute("SELECT 1 / (count(*) - count(*)) FROM docs")),
            "22012"
        );
        run(&mut client, "ROLLBACK TO s");
        assert_eq!(present(&mut client, &c), "00000");
        assert_eq!(text(&mut client, query).as_deref(), Some("acme two"));
    }
}

/// A token of the startup packet that was rejected counts from the next statement on, at the earliest.
#[test]
fn a_rejected_startup_token_waits_for_the_next_statement() {
    let fixture = Fixture::start();
    let mut admin = fixture.cluster.admin();
    run(
        &mut admin,
        "CREATE POLICY logins ON docs TO app, locked, strict USING (org = auth.claim('org')); GRANT SELECT ON docs TO app, locked, strict",
    );
    for login in fixture.logins() {
        for role in [Some("member"), None] {
            let mut claims = json!({"sub": "uma", "org": "globex", "nbf": now() + 2});
            if let Some(role) = role {
                claims["role"] = role.into();
            }
            let connection = login.clone().option("pg_session_jwt.jwt", &fixture.sign(claims));
            let mut wire = Wire::connect(&connection).unwrap();
            let ask = |wire: &mut Wire, sql: &str| match wire.ask(sql, &[]).unwrap() {
                Ok(rows) => rows.into_iter().flatten().flatten().collect::<Vec<_>>().join(", "),
                Err(fields) => fields.sqlstate().to_owned(),
            };
            if ask(&mut wire, "SHOW pg_session_jwt.identity_scope") == "transaction" {
                // There it ends before it begins.
                assert_eq!(ask(&mut wire, "SELECT body FROM docs"), "");
                continue;
            }
            assert_eq!(ask(&mut wire, "SELECT auth.user_id()"), "28J05");
            assert_eq!(ask(&mut wire, "SELECT after_a_while()"), "28J05");
            // Then it counts, with its role.
            let expected = if role.is_some() { "globex own" } else { "globex own, globex secret" };
            assert_eq!(ask(&mut wire, "SELECT body FROM docs ORDER BY 1"), expected);
            assert_eq!(ask(&mut wire, "SELECT auth.user_id()"), "uma");
        }
    }
}
