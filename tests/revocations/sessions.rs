//! When a revocation counts in open sessions.

use std::time::{Duration, Instant};

use harness::{Code, SUCCESS, present, present_locally, run, sqlstate, test_each_preload, user};
use serde_json::json;

use super::fixture::*;

const REVOKED: &str = Code::Revoked.sqlstate();

test_each_preload!(crate::fixture::SITE: open_sessions);

fn open_sessions(site: &Site) {
    let mut admin = site.cluster.admin();
    let (alice, bob) = (site.token_of("alice"), site.token_of("bob"));
    let mut sessions: Vec<_> = (0..6).map(|_| site.client()).collect();
    for session in &mut sessions {
        assert_eq!(present(session, &alice), SUCCESS, "before");
        assert_eq!(user(session).as_deref(), Some("alice"), "before");
    }
    let mut other = site.client();
    assert_eq!(present(&mut other, &bob), SUCCESS, "another user");
    let [idle, block, repeatable, prepared, cursor, local] = &mut sessions[..] else {
        unreachable!()
    };
    run(block, "BEGIN; SELECT count(*) FROM notes");
    run(repeatable, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM notes");
    let statement = prepared.prepare("SELECT count(*) FROM notes").unwrap();
    prepared.query(&statement, &[]).unwrap();
    run(cursor, "BEGIN; DECLARE c CURSOR FOR SELECT owner FROM notes; FETCH 0 FROM c");
    run(local, "RESET pg_session_jwt.jwt; BEGIN");
    assert_eq!(present_locally(local, &alice), SUCCESS, "for a transaction");

    // Not committed, and rolled back.
    run(&mut admin, "BEGIN");
    revoke(&mut admin, "subject => 'alice'");
    assert_eq!(user(idle).as_deref(), Some("alice"), "not committed");
    assert_eq!(user(block).as_deref(), Some("alice"), "not committed");
    assert_eq!(present(&mut site.client(), &alice), SUCCESS, "not committed");
    run(&mut admin, "ROLLBACK");
    assert_eq!(user(idle).as_deref(), Some("alice"), "rolled back");

    let id = revoke(&mut admin, "subject => 'alice'");
    let rows = "SELECT count(*) FROM notes";
    assert_eq!(sqlstate(idle.query(rows, &[])), REVOKED, "idle");
    assert_eq!(code_of_user(idle), REVOKED, "idle, again");
    assert_eq!(sqlstate(block.query(rows, &[])), REVOKED, "in a transaction");
    assert_eq!(
        sqlstate(repeatable.query(rows, &[])),
        REVOKED,
        "in a transaction with one snapshot"
    );
    assert_eq!(sqlstate(prepared.query(&statement, &[])), REVOKED, "prepared");
    assert_eq!(sqlstate(cursor.batch_execute("FETCH ALL FROM c")), REVOKED, "cursor");
    assert_eq!(sqlstate(local.query(rows, &[])), REVOKED, "for a transaction");
    assert_eq!(user(&mut other).as_deref(), Some("bob"), "another user");
    for session in [&mut *block, repeatable, cursor, local] {
        run(session, "ROLLBACK");
    }
    // A statement that asks nobody.
    run(idle, "SELECT 1");
    assert_eq!(present(idle, &alice), REVOKED, "presented again");
    assert_eq!(user(idle), None, "a rejected token leaves nobody");
    assert_eq!(present(idle, &bob), SUCCESS, "another token");
    assert_eq!(user(idle).as_deref(), Some("bob"), "another token");
    assert_eq!(present(&mut site.client(), &alice), REVOKED, "a new session");
    assert_eq!(present(&mut site.client(), &site.fresh_later("alice")), SUCCESS, "a new token");

    // Sessions with the revoked token have their identity again.
    unrevoke(&mut admin, id);
    assert_eq!(user(prepared).as_deref(), Some("alice"), "taken back");
    assert_eq!(user(block).as_deref(), Some("alice"), "taken back");
}

impl Site {
    /// A token that is newer than any revocation until now.
    fn fresh_later(&self, sub: &str) -> String {
        self.token(json!({"sub": sub, "iat": harness::now() + 1}))
    }
}

#[test]
fn a_session_can_revoke_itself() {
    let site = site();
    let mut admin = site.cluster.admin();
    run(&mut admin, "GRANT EXECUTE ON FUNCTION auth.revoke TO app");
    let mut client = site.client();
    let alice = site.token_of("alice");

    // In the transaction with which the application signs the user out.
    for end in ["COMMIT", "ROLLBACK"] {
        assert_eq!(present(&mut client, &alice), SUCCESS, "{end}");
        run(&mut client, "BEGIN; SELECT count(*) FROM notes");
        revoke(&mut client, "subject => auth.user_id(), issuer => auth.claim('iss')");
        run(&mut client, "SAVEPOINT s");
        assert_eq!(code_of_user(&mut client), REVOKED, "{end}: in the transaction");
        run(&mut client, "ROLLBACK TO s");
        run(&mut client, end);
        let expected = if end == "COMMIT" { REVOKED } else { SUCCESS };
        assert_eq!(code_of_user(&mut client), expected, "{end}: afterwards");
        unrevoke_all(&mut admin);
    }
    unrevoke_all(&mut admin);
    assert_eq!(present(&mut client, &alice), SUCCESS);
    run(&mut client, "BEGIN; SAVEPOINT s");
    revoke(&mut client, "subject => 'alice'");
    run(&mut client, "ROLLBACK TO s");
    assert_eq!(user(&mut client).as_deref(), Some("alice"), "rolled back to a savepoint");
    run(&mut client, "COMMIT");
    run(&mut admin, "REVOKE EXECUTE ON FUNCTION auth.revoke FROM app");
}

/// A statement that has begun goes on with the identity that it has.
#[test]
fn a_statement_goes_on_to_its_end() {
    let site = site();
    let mut admin = site.cluster.admin();
    // The function locks a table that the statement has not locked, so that Postgres accepts invalidations; a
    // subtransaction makes the session look its identity up again.
    run(
        &mut admin,
        "CREATE TABLE locked (n int); GRANT ALL ON locked TO app;
         CREATE FUNCTION who(n int) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
         BEGIN
             EXECUTE 'LOCK TABLE locked IN ACCESS SHARE MODE';
             BEGIN PERFORM 1 / (n % 2); EXCEPTION WHEN division_by_zero THEN NULL; END;
             PERFORM pg_sleep(0.02);
             RETURN auth.user_id();
         END $$;
         CREATE TABLE written (owner text, n int); GRANT ALL ON written TO app;
         CREATE FUNCTION written() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF who(NEW.n) IS DISTINCT FROM NEW.owner THEN RAISE 'another user'; END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER t AFTER INSERT ON written FOR EACH ROW EXECUTE FUNCTION written()",
    );
    let alice = site.token_of("alice");
    for (name, query) in [
        ("by a function", "SELECT who(n) FROM generate_series(1, 100) n"),
        (
            "by a reader",
            "SELECT auth.user_id() FROM generate_series(1, 100) n, LATERAL pg_sleep(0.02 + 0 * n) s",
        ),
        (
            "by triggers",
            "INSERT INTO written SELECT who(n), n FROM generate_series(1, 100) n RETURNING owner",
        ),
    ] {
        let mut client = site.client();
        assert_eq!(present(&mut client, &alice), SUCCESS, "{name}");
        let begun = Instant::now();
        let running = std::thread::spawn(move || {
            let rows = client.query(query, &[]);
            let answers = rows.map(|rows| {
                rows.iter().map(|row| row.get::<_, Option<String>>(0)).collect::<Vec<_>>()
            });
            (answers, client)
        });
        std::thread::sleep(Duration::from_millis(400));
        revoke(&mut admin, "subject => 'alice'");
        let (answers, mut client) = running.join().unwrap();
        assert!(begun.elapsed() > Duration::from_secs(1), "{name}: the statement has lasted");
        let answers = answers.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(answers, vec![Some("alice".to_owned()); 100], "{name}");
        assert_eq!(code_of_user(&mut client), REVOKED, "{name}: the next statement");
        unrevoke_all(&mut admin);
    }

    // The statements of a procedure are statements.
    let mut client = site.client();
    assert_eq!(present(&mut client, &alice), SUCCESS);
    let running = std::thread::spawn(move || {
        let block = "DO $$ BEGIN FOR n IN 1 .. 200 LOOP PERFORM auth.user_id(); PERFORM pg_sleep(0.02); END LOOP; END $$";
        sqlstate(client.batch_execute(block))
    });
    std::thread::sleep(Duration::from_millis(400));
    revoke(&mut admin, "subject => 'alice'");
    assert_eq!(running.join().unwrap(), REVOKED, "in a procedure");
    run(
        &mut admin,
        "DELETE FROM auth.revocations; DROP TABLE written, locked; DROP FUNCTION written(), who(int)",
    );
}

/// Workers of a statement have the identity of the statement.
#[test]
fn parallel_workers() {
    let site = site();
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE TABLE many AS SELECT n, 'alice' AS owner FROM generate_series(1, 5000) n;
         ALTER TABLE many SET (parallel_workers = 2); GRANT SELECT ON many TO app;
         ALTER TABLE many ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON many USING (owner = auth.user_id());
         ANALYZE many",
    );
    let alice = site.token_of("alice");
    let mut client = site.client();
    run(
        &mut client,
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
         SET parallel_leader_participation = off",
    );
    let count = "SELECT count(*) FROM many";
    assert_eq!(present(&mut client, &alice), SUCCESS);
    let plan: Vec<String> = client
        .query(&format!("EXPLAIN {count}"), &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(plan.concat().contains("Workers Planned: 2"), "{plan:?}");
    assert_eq!(client.query_one(count, &[]).unwrap().get::<_, i64>(0), 5000);
    let id = revoke(&mut admin, "subject => 'alice'");
    assert_eq!(sqlstate(client.query(count, &[])), REVOKED, "read by workers only");
    unrevoke(&mut admin, id);
    assert_eq!(client.query_one(count, &[]).unwrap().get::<_, i64>(0), 5000);

    // Revoked between the start of the statement and that of its workers.
    let late =
        "SELECT (SELECT count(*) FROM many), s::text FROM (SELECT pg_sleep(1) AS s OFFSET 0) s";
    let plan: Vec<String> = client
        .query(&format!("EXPLAIN {late}"), &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(plan.concat().contains("Workers Planned: 2"), "{plan:?}");
    let running = std::thread::spawn(move || {
        let rows = client.query(late, &[]).map(|rows| rows[0].get::<_, i64>(0));
        (rows.map_err(|error| sqlstate::<()>(Err(error))), client)
    });
    std::thread::sleep(Duration::from_millis(300));
    revoke(&mut admin, "subject => 'alice'");
    let (rows, mut client) = running.join().unwrap();
    assert_eq!(rows, Ok(5000), "revoked before the workers have started");
    assert_eq!(sqlstate(client.query(count, &[])), REVOKED, "the next statement");
    run(&mut admin, "DELETE FROM auth.revocations; DROP TABLE many");
}

/// A plan may read a claim once, and keep it: in the condition of an index, or in a sort.
#[test]
fn a_cursor_does_not_go_on() {
    let site = site();
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE TABLE marks (owner text, n int); INSERT INTO marks SELECT 'alice', n FROM generate_series(1, 9) n;
         CREATE INDEX ON marks (owner); ALTER TABLE marks ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON marks USING (owner = auth.user_id()); GRANT SELECT ON marks TO app;
         CREATE TABLE plain AS SELECT generate_series(1, 9) n; GRANT SELECT ON plain TO app",
    );
    for plan in ["SET enable_seqscan = off", "SET enable_seqscan = on; SET enable_sort = on"] {
        for (what, exp, code) in
            [("revoked", 600, REVOKED), ("expired", 2, Code::Expired.sqlstate())]
        {
            let now = harness::now();
            let token = site.token(json!({"sub": "alice", "exp": now + exp - 60}));
            let mut client = site.client();
            if exp == 600 {
                assert_eq!(present(&mut client, &site.token_of("alice")), SUCCESS);
            } else {
                // The leeway is 60 s.
                assert_eq!(present(&mut client, &token), SUCCESS, "{plan}");
            }
            run(
                &mut client,
                &format!(
                    "{plan}; BEGIN; DECLARE c CURSOR FOR SELECT n FROM marks ORDER BY n; FETCH 2 FROM c;
                     DECLARE other CURSOR FOR SELECT n FROM plain; FETCH 2 FROM other; SAVEPOINT s"
                ),
            );
            if exp == 600 {
                revoke(&mut admin, "subject => 'alice'");
            } else {
                harness::wait_for("the expiry", || harness::now() > now + exp);
            }
            assert_eq!(sqlstate(client.batch_execute("FETCH 2 FROM c")), code, "{plan}, {what}");
            run(&mut client, "ROLLBACK TO s");
            assert_eq!(
                sqlstate(client.batch_execute("FETCH 2 FROM other")),
                SUCCESS,
                "{plan}, {what}"
            );
            run(&mut client, "ROLLBACK");
            unrevoke_all(&mut admin);
        }
    }
    run(&mut admin, "DROP TABLE marks, plain");
}

/// A role by token ends with the token.
#[test]
fn the_role_of_a_revoked_token_ends() {
    let site = site();
    let mut admin = site.cluster.admin();
    let token = editor_of_drafts(&mut admin);
    let mut client = site.client();
    assert_eq!(present(&mut client, &token), SUCCESS);
    run(&mut client, "INSERT INTO drafts VALUES (1)");
    run(&mut client, "BEGIN; INSERT INTO drafts VALUES (2)");
    revoke(&mut admin, "subject => 'alice'");
    // The statement reads no claim.
    assert_eq!(
        sqlstate(client.batch_execute("INSERT INTO drafts VALUES (3)")),
        REVOKED,
        "its role"
    );
    run(&mut client, "ROLLBACK");
    assert_eq!(
        sqlstate(client.batch_execute("INSERT INTO drafts VALUES (4)")),
        REVOKED,
        "its role"
    );
    without_drafts(&mut admin);
}

/// Claims that PostgREST has verified.
#[test]
fn trusted_request_claims_are_revoked_too() {
    let site = site();
    let mut admin = site.cluster.admin();
    let mut client = site
        .cluster
        .as_role("postgres")
        .option("pg_session_jwt.trust_request_claims", "on")
        .client();
    run(
        &mut client,
        &format!(
            "SET request.jwt.claims = '{{\"sub\": \"alice\", \"iat\": {}}}'",
            harness::now() - 60
        ),
    );
    assert_eq!(user(&mut client).as_deref(), Some("alice"), "before");
    revoke(&mut admin, "subject => 'alice'");
    assert_eq!(code_of_user(&mut client), REVOKED);
    run(&mut client, "SET request.jwt.claims = '{\"sub\": \"bob\"}'");
    assert_eq!(user(&mut client).as_deref(), Some("bob"), "another user");
    unrevoke_all(&mut admin);
}
