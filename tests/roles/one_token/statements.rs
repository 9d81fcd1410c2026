//! Statements and cursors with policies.

use harness::{Code, DIVISION_BY_ZERO, Preload, SUCCESS, Shared, present, run, sqlstate, text};
use postgres::Client;

use super::fixture::*;

/// A statement or cursor with policies reads one token to its end, also where both tokens have its role.
static FIXTURES: Shared<Fixture> = Shared::new(|_| {
    let fixture = Fixture::start();
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
    fixture
});

const PLANS: [&str; 2] = ["SET LOCAL enable_seqscan = on", "SET LOCAL enable_seqscan = off"];

const QUERY: &str = "SELECT body FROM docs";

/// Begins a transaction with the token, for plans of one kind.
fn begin_with(client: &mut Client, plan: &str, token: &str) {
    run(client, "ROLLBACK");
    run(client, &format!("BEGIN; {plan}"));
    assert_eq!(present(client, token), SUCCESS, "{plan}");
}

/// With one token's user and another's organization, there would be a row of neither.
#[test]
fn a_cursor_that_was_read_is_of_its_token() {
    let fixture = FIXTURES.alone(Preload::Shared);
    let (b, c) = (fixture.token("B"), fixture.token("C"));
    let mut client = fixture.cluster.as_role("app").client();
    for plan in PLANS {
        let begin = |client: &mut Client| begin_with(client, plan, &b);
        begin(&mut client);
        run(
            &mut client,
            &format!(
                "DECLARE c SCROLL CURSOR FOR {QUERY}; FETCH 1 FROM c; MOVE BACKWARD ALL FROM c"
            ),
        );
        assert_eq!(present(&mut client, &c), SUCCESS, "{plan:?}");
        let error = client.batch_execute("FETCH ALL FROM c").unwrap_err();
        let message = error.as_db_error().unwrap().message();
        assert_eq!(message, "token has changed within a statement with policies", "{plan:?}");
    }
}

/// The same token, presented again or back in force, is the same one.
#[test]
fn a_cursor_that_was_not_read_is_of_the_token_that_reads_it() {
    let fixture = FIXTURES.alone(Preload::Shared);
    let (b, c) = (fixture.token("B"), fixture.token("C"));
    let mut client = fixture.cluster.as_role("app").client();
    for plan in PLANS {
        let begin = |client: &mut Client| begin_with(client, plan, &b);
        begin(&mut client);
        run(&mut client, &format!("DECLARE c CURSOR FOR {QUERY}"));
        assert_eq!(present(&mut client, &c), SUCCESS, "{plan:?}");
        assert_eq!(text(&mut client, "FETCH ALL FROM c").as_deref(), Some("acme two"), "{plan:?}");
        // The same token, presented again or back in force, is the same one.
        assert_eq!(present(&mut client, &c), SUCCESS, "{plan:?}: the same token");
        run(&mut client, "FETCH ALL FROM c; SAVEPOINT s");
        assert_eq!(present(&mut client, &b), SUCCESS, "{plan:?}: the same token");
        run(&mut client, "ROLLBACK TO s; FETCH ALL FROM c");
    }
}

/// After the end of a savepoint, in which it was opened or read, and at the commit.
#[test]
fn a_cursor_remembers_its_token() {
    let fixture = FIXTURES.alone(Preload::Shared);
    let (b, c) = (fixture.token("B"), fixture.token("C"));
    let mut client = fixture.cluster.as_role("app").client();
    for plan in PLANS {
        let begin = |client: &mut Client| begin_with(client, plan, &b);
        begin(&mut client);
        run(
            &mut client,
            &format!("SAVEPOINT s; DECLARE c CURSOR FOR {QUERY}; FETCH 1 FROM c; RELEASE s"),
        );
        run(&mut client, "SAVEPOINT t; SELECT 1; ROLLBACK TO t");
        assert_eq!(present(&mut client, &c), SUCCESS, "{plan:?}");
        assert_eq!(
            sqlstate(client.batch_execute("FETCH ALL FROM c")),
            Code::Forbidden.sqlstate(),
            "{plan:?}"
        );
        // A cursor is read to its end at the commit.
        begin(&mut client);
        run(&mut client, &format!("DECLARE c CURSOR WITH HOLD FOR {QUERY}; FETCH 1 FROM c"));
        assert_eq!(present(&mut client, &c), SUCCESS, "{plan:?}");
        assert_eq!(
            sqlstate(client.batch_execute("COMMIT")),
            Code::Forbidden.sqlstate(),
            "{plan:?}"
        );
        // One that was read in a savepoint goes on after its end, and remembers what it has read.
        begin(&mut client);
        run(&mut client, &format!("DECLARE c CURSOR FOR {QUERY}; SAVEPOINT s; FETCH 1 FROM c"));
        run(&mut client, "ROLLBACK TO s");
        assert_eq!(present(&mut client, &c), SUCCESS, "{plan:?}: after ROLLBACK TO s");
        assert_eq!(
            sqlstate(client.batch_execute("FETCH ALL FROM c")),
            Code::Forbidden.sqlstate(),
            "{plan:?}: after ROLLBACK TO s"
        );
    }
}

/// By a COMMIT, too.
#[test]
fn a_cursor_goes_on_under_its_token_and_closes_under_any() {
    let fixture = FIXTURES.alone(Preload::Shared);
    let (b, c) = (fixture.token("B"), fixture.token("C"));
    let mut client = fixture.cluster.as_role("app").client();
    for plan in PLANS {
        let begin = |client: &mut Client| begin_with(client, plan, &b);
        begin(&mut client);
        run(&mut client, &format!("DECLARE c CURSOR FOR {QUERY}; FETCH 1 FROM c"));
        for token in [&c, &b] {
            assert_eq!(present(&mut client, token), SUCCESS, "{plan:?}");
        }
        run(&mut client, "FETCH ALL FROM c");
        for end in ["CLOSE c; COMMIT", "COMMIT"] {
            begin(&mut client);
            run(&mut client, &format!("DECLARE c CURSOR FOR {QUERY}; FETCH 1 FROM c"));
            assert_eq!(present(&mut client, &c), SUCCESS, "{end:?}, {plan:?}");
            run(&mut client, end);
            assert_eq!(present(&mut client, ""), SUCCESS, "{end:?}, {plan:?}");
        }
    }
}

#[test]
fn a_failed_cursor_leaves_nothing_to_later_ones() {
    let fixture = FIXTURES.alone(Preload::Shared);
    let (b, c) = (fixture.token("B"), fixture.token("C"));
    let mut client = fixture.cluster.as_role("app").client();
    for plan in PLANS {
        let begin = |client: &mut Client| begin_with(client, plan, &b);
        for _ in 0..20 {
            begin(&mut client);
            run(
                &mut client,
                &format!("SAVEPOINT s; DECLARE c CURSOR FOR {QUERY} WHERE 1 / length(body) = 9"),
            );
            run(&mut client, &format!("DECLARE d CURSOR FOR {QUERY}; FETCH 1 FROM d; SAVEPOINT t"));
            let _ = client.batch_execute("FETCH ALL FROM c; SELECT 1 / 0");
            run(&mut client, "ROLLBACK TO t; CLOSE c");
            assert_eq!(present(&mut client, &c), SUCCESS, "{plan:?}: after ROLLBACK TO t; CLOSE c");
            run(&mut client, &format!("DECLARE e CURSOR FOR {QUERY}; FETCH ALL FROM e"));
        }
    }
}

/// Which partitions are read.
#[test]
fn what_is_decided_at_the_start_of_a_plan_is_of_one_token() {
    let fixture = FIXTURES.alone(Preload::Shared);
    let (b, c) = (fixture.token("B"), fixture.token("C"));
    let mut client = fixture.cluster.as_role("app").client();
    for plan in PLANS {
        let begin = |client: &mut Client| begin_with(client, plan, &b);
        begin(&mut client);
        run(&mut client, "DECLARE c CURSOR FOR SELECT body FROM filed");
        assert_eq!(present(&mut client, &c), SUCCESS, "{plan:?}");
        assert_eq!(
            sqlstate(client.batch_execute("FETCH ALL FROM c")),
            Code::Forbidden.sqlstate(),
            "{plan:?}"
        );
        begin(&mut client);
        let within = "SELECT f.body FROM filed f, parted p WHERE p.org = at_third('C')";
        assert_eq!(sqlstate(client.batch_execute(within)), Code::Claim.sqlstate(), "{plan:?}");
    }
}

/// They stand between the session and the rows.
#[test]
fn views_and_functions_read_one_token() {
    let fixture = FIXTURES.alone(Preload::Shared);
    let (b, c) = (fixture.token("B"), fixture.token("C"));
    let mut client = fixture.cluster.as_role("app").client();
    for plan in PLANS {
        let begin = |client: &mut Client| begin_with(client, plan, &b);
        for guard in ["guarded", "my_docs()"] {
            begin(&mut client);
            let within = format!("SELECT present('C'), * FROM {guard}");
            let outcome = sqlstate(client.batch_execute(&within));
            assert!([Code::Claim.sqlstate(), SUCCESS].contains(&&*outcome), "{guard}: {outcome}");
            begin(&mut client);
            run(
                &mut client,
                &format!("DECLARE c CURSOR FOR SELECT * FROM {guard}; FETCH 1 FROM c"),
            );
            assert_eq!(present(&mut client, &c), SUCCESS, "{plan:?}, {guard:?}");
            let rest = client.query("FETCH ALL FROM c", &[]);
            // A function that was called has read everything under one token.
            let rows = rest.map_or(Vec::new(), |rows| rows);
            assert!(rows.iter().all(|row| row.get::<_, &str>("body") != "acme one"), "{guard}");
        }
        begin(&mut client);
        let lazily = "SELECT my_docs(), present('C')";
        assert_eq!(sqlstate(client.batch_execute(lazily)), Code::Forbidden.sqlstate(), "{plan:?}");
    }
}

#[test]
fn a_statement_reads_one_token() {
    let fixture = FIXTURES.alone(Preload::Shared);
    let (b, _c) = (fixture.token("B"), fixture.token("C"));
    let mut client = fixture.cluster.as_role("app").client();
    for plan in PLANS {
        let begin = |client: &mut Client| begin_with(client, plan, &b);
        for (query, code) in [
            ("SELECT body, present('C') FROM docs", Code::Claim.sqlstate()),
            ("SELECT body, present('B') FROM docs", SUCCESS),
            // What is left to the end of the plan, after its last row.
            (
                "WITH d AS (UPDATE docs SET body = present('C') RETURNING *) SELECT 1",
                Code::Claim.sqlstate(),
            ),
            ("SELECT n, present('C') FROM plain", SUCCESS),
            (
                "SELECT body, set_config('pg_session_jwt.jwt', '', true), auth.user_id() FROM docs",
                Code::Forbidden.sqlstate(),
            ),
            (
                "WITH d AS (UPDATE docs SET body = body RETURNING *) SELECT present('C') FROM plain",
                Code::Claim.sqlstate(),
            ),
        ] {
            begin(&mut client);
            assert_eq!(sqlstate(client.batch_execute(query)), code, "{query}");
        }
    }
}

#[test]
fn a_failed_statement_does_not_bind() {
    let fixture = FIXTURES.alone(Preload::Shared);
    let (b, c) = (fixture.token("B"), fixture.token("C"));
    let mut client = fixture.cluster.as_role("app").client();
    for plan in PLANS {
        let begin = |client: &mut Client| begin_with(client, plan, &b);
        begin(&mut client);
        run(&mut client, "SAVEPOINT s");
        assert_eq!(
            sqlstate(client.batch_execute("SELECT 1 / (count(*) - count(*)) FROM docs")),
            DIVISION_BY_ZERO,
            "{plan:?}"
        );
        run(&mut client, "ROLLBACK TO s");
        assert_eq!(present(&mut client, &c), SUCCESS, "{plan:?}: after ROLLBACK TO s");
        assert_eq!(text(&mut client, QUERY).as_deref(), Some("acme two"), "{plan:?}");
    }
}
