//! Two organizations, and functions that change the token at every moment.

use harness::{Cluster, Connection, Preload, Wire, run, sign, text};
use mint::{Algorithm, Key};
use serde_json::{Value, json};

pub const SECRET: &str = "globex secret";

pub const SCHEMA: &str = "
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
    -- It touches no table, which would compare the role.
    CREATE TABLE quiet (n int); GRANT ALL ON quiet TO PUBLIC;
    CREATE FUNCTION tell_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF current_user = 'org_admin' AND auth.claim('org') IS DISTINCT FROM 'acme' THEN
          RAISE 'globex secret';
        END IF;
        RETURN NULL;
      END $$;
    CREATE CONSTRAINT TRIGGER later AFTER INSERT ON quiet DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW EXECUTE FUNCTION tell_at_commit();
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

pub struct Fixture {
    pub cluster: Cluster,
    pub key: Key,
}

impl harness::Fixture for Fixture {
    fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

impl Fixture {
    pub fn start() -> Self {
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

    pub fn sign(&self, claims: Value) -> String {
        sign(&self.key, claims)
    }

    pub fn token(&self, name: &str) -> String {
        text(&mut self.cluster.admin(), &format!("SELECT token('{name}')")).unwrap()
    }

    pub fn logins(&self) -> [Connection; 3] {
        ["app", "locked", "strict"].map(|login| self.cluster.as_role(login))
    }

    /// That nothing was changed that no token may change.
    pub fn check_table(&self, after: &str) {
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
pub fn attempt(wire: &mut Wire, sql: &str) -> String {
    wire.record();
    let outcome = wire.run(sql);
    let received = wire.record();
    let has_secret = received.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
    assert!(!has_secret, "{sql}");
    outcome
}
