//! Parallel workers: they have the identity of their leader.

use harness::{Code, Preload, SUCCESS, Site, note_skipped, now, present, run, sqlstate};
use postgres::Client;
use serde_json::{Value, json};

use super::fixture::*;

/// Each reader returns its claim of `who`, in workers as in the leader.
fn readers_return(client: &mut Client, who: Option<&Value>) {
    let reading = reading(client, 0..READERS.len());
    for (mode, in_leader) in [(SERIAL, "t"), (GATHER, "f"), (FORCED[0], "f"), (FORCED[1], "f")] {
        run(client, mode);
        let expected = READERS.map(|(_, claim)| {
            let value = who.map_or("-".to_owned(), |claims| {
                answer(client, &format!("SELECT {claim} FROM (SELECT '{claims}'::jsonb AS c) c"))
            });
            format!("{value} {value} {in_leader} 200 20100")
        });
        assert_eq!(answer(client, &reading), expected.join(", "), "{mode}");
    }
}

/// Each reader raises this error, in workers as in the leader.
fn readers_raise(client: &mut Client, code: &str) {
    for (place, (reader, _)) in READERS.iter().enumerate() {
        let reading = reading(client, place..place + 1);
        for mode in [SERIAL, GATHER, FORCED[0], FORCED[1]] {
            run(client, mode);
            assert_eq!(answer(client, &reading), code, "{reader}, {mode}");
        }
    }
}

#[test]
fn readers_return_in_workers_what_they_return_in_the_leader() {
    let fixture = Fixture::new(&PARALLEL, "");
    create_reader_tables(&fixture);
    let (alice, bob) = (fixture.claims(ALICE), fixture.claims(BOB));
    let mut client = fixture.client();

    // The plans are what they are meant to be: the policy and the answer are the workers' work.
    for (place, (reader, _)) in READERS.iter().enumerate() {
        let reading = reading(&mut client, place..place + 1);
        let analyze = format!("EXPLAIN (ANALYZE, VERBOSE, COSTS OFF, TIMING OFF) {reading}");
        run(&mut client, GATHER);
        let plan = answer(&mut client, &analyze);
        let (_, workers) = plan.split_once("Workers Launched: 2").expect(&plan);
        let (_, scan) = workers.split_once("Parallel Seq Scan on").expect(workers);
        let (output, filter) = scan.split_once("Filter: ").expect(scan);
        for part in [output, filter] {
            assert!(part.contains(reader.split('\'').next().unwrap()), "{plan}");
        }
        run(&mut client, FORCED[0]);
        let plan = answer(&mut client, &analyze);
        assert!(plan.contains("Workers Launched: 1, "), "{plan}");
        assert!(plan.contains("Single Copy: true"), "{plan}");
    }
    let all = reading(&mut client, 0..READERS.len());
    for (mode, launched) in [(GATHER, 1), (FORCED[0], 1), (SERIAL, 0)] {
        run(&mut client, mode);
        let plan = answer(&mut client, &format!("EXPLAIN (ANALYZE, COSTS OFF) {all}"));
        assert_eq!(plan.matches("Workers Launched: ").count(), launched, "{plan}");
    }

    // Nobody; for the session; for the transaction; for the transaction over the session's.
    readers_return(&mut client, None);
    fixture.be(&mut client, Some(BOB));
    readers_return(&mut client, Some(&bob));
    run(&mut client, "BEGIN");
    fixture.be_locally(&mut client, Some(ALICE));
    readers_return(&mut client, Some(&alice));
    run(&mut client, "SAVEPOINT s");
    fixture.be_locally(&mut client, None);
    readers_return(&mut client, None);
    run(&mut client, "ROLLBACK TO s");
    readers_return(&mut client, Some(&alice));
    run(&mut client, "ROLLBACK TO s; SAVEPOINT t");
    assert_eq!(present(&mut client, "rubbish"), Code::Malformed.sqlstate(), "nobody");
    run(&mut client, "ROLLBACK TO t");
    readers_return(&mut client, None);
    run(&mut client, "COMMIT");
    readers_return(&mut client, None);
    // For a role that the session has become.
    fixture.be(&mut client, Some(BOB));
    run(&mut client, "SET ROLE editor");
    readers_return(&mut client, Some(&bob));

    // From the startup packet, below one for the transaction, and past its time.
    let mut client = fixture.app().option("pg_session_jwt.jwt", &fixture.token(ALICE)).client();
    readers_return(&mut client, Some(&alice));
    run(&mut client, "BEGIN; SAVEPOINT s");
    fixture.be_locally(&mut client, Some(BOB));
    readers_return(&mut client, Some(&bob));
    run(&mut client, "ROLLBACK TO s");
    readers_return(&mut client, Some(&alice));
    let expired = fixture.token_until(ALICE, now() - 1);
    let mut client = fixture.app().option("pg_session_jwt.jwt", &expired).client();
    readers_raise(&mut client, Code::Expired.sqlstate());
}

#[test]
fn parallel_plans_of_every_shape_answer_for_the_identity() {
    let fixture = Fixture::new(
        &PARALLEL,
        "CREATE TABLE big AS SELECT n, (ARRAY['alice', 'bob', 'carol'])[1 + n % 3] AS owner
           FROM generate_series(1, 3000) n;
         CREATE TABLE other AS SELECT n, (ARRAY['alice', 'bob'])[1 + n % 2] AS owner
           FROM generate_series(1, 3000) n;
         CREATE INDEX ON big (owner);
         CREATE TABLE split (n int, owner text) PARTITION BY LIST (owner);
         CREATE TABLE split_a PARTITION OF split FOR VALUES IN ('alice');
         CREATE TABLE split_b PARTITION OF split FOR VALUES IN ('bob');
         CREATE TABLE hashed (n int, owner text) PARTITION BY HASH (n);
         CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO split TABLE other; INSERT INTO hashed TABLE big;
         DO $$ DECLARE name text; BEGIN
           FOREACH name IN ARRAY '{big, other, split_a, split_b, hashed_0, hashed_1}'::text[] LOOP
             EXECUTE format('ALTER TABLE %s SET (parallel_workers = 2); ANALYZE %1$s', name);
           END LOOP;
           FOREACH name IN ARRAY '{big, other, split, hashed}'::text[] LOOP
             EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY; ANALYZE %1$s;
                             CREATE POLICY own ON %1$s USING (owner = auth.user_id());
                             GRANT SELECT ON %1$s TO app', name);
           END LOOP;
         END $$;",
    );
    let mut client = fixture.client();
    let by_index = "SET enable_seqscan = off; SET enable_bitmapscan = off";
    let by_hash = "SET enable_mergejoin = off; SET enable_nestloop = off;
                   SET enable_indexscan = off; SET enable_bitmapscan = off;
                   SET parallel_tuple_cost = 1";
    for (settings, nodes, sql, expected) in [
        (
            by_hash,
            &["Parallel Hash Join"][..],
            "SELECT count(*), sum(n), min(big.owner) FROM big JOIN other USING (n)",
            ["500 751500 alice", "500 749000 bob", "0 - -"],
        ),
        (
            "",
            &["Parallel Append"],
            "SELECT count(*), sum(n) FROM hashed",
            ["1000 1501500", "1000 1499500", "0 -"],
        ),
        (
            "",
            &["Parallel Append", "Subplans Removed"],
            "SELECT count(*), sum(n) FROM split",
            ["1500 2251500", "1500 2250000", "0 -"],
        ),
        (
            by_index,
            &["Parallel Index Scan", "Index Cond: (owner = auth.user_id())"],
            "SELECT count(*), sum(n) FROM big",
            ["1000 1501500", "1000 1499500", "0 -"],
        ),
        (
            "SET enable_seqscan = off; SET enable_indexscan = off",
            &["Parallel Bitmap Heap Scan"],
            "SELECT count(*), sum(n) FROM big",
            ["1000 1501500", "1000 1499500", "0 -"],
        ),
        (
            "",
            &["Gather Merge"],
            "SELECT n FROM big ORDER BY n OFFSET 1 LIMIT 3",
            ["6, 9, 12", "4, 7, 10", ""],
        ),
        ("", &["Finalize", "Partial"], "SELECT count(*) FROM big", ["1000", "1000", "0"]),
        (
            "SET jit = on; SET jit_above_cost = 0",
            &["JIT:"],
            "SELECT count(*) FROM big",
            ["1000", "1000", "0"],
        ),
        (
            "SET enable_hashjoin = off; SET enable_mergejoin = off",
            &["Nested Loop"],
            "SELECT count(*) FROM generate_series(1, 3) s (n) JOIN big USING (n)",
            ["1", "1", "0"],
        ),
    ] {
        if nodes.contains(&"JIT:") && answer(&mut client, "SELECT pg_jit_available()") == "f" {
            note_skipped("it has no JIT");
            continue;
        }
        run(&mut client, "RESET ALL");
        run(&mut client, settings);
        run(&mut client, GATHER);
        let analyze = format!("EXPLAIN (ANALYZE, TIMING OFF) {sql}");
        fixture.be(&mut client, Some("alice"));
        let plan = answer(&mut client, &analyze);
        for node in nodes.iter().chain(&["Workers Launched: 2"]) {
            assert!(plan.contains(node), "{node}: {plan}");
        }
        for mode in [GATHER, SERIAL, FORCED[0]] {
            run(&mut client, mode);
            assert_eq!(fixture.answers(&mut client, sql), expected, "{sql}, {mode}");
        }
    }

    // One plan for all, and one that is fetched a part at a time, without workers.
    let mut client = fixture.client();
    run(&mut client, GATHER);
    let statement = client.prepare("SELECT n FROM split WHERE n < $1 ORDER BY n").unwrap();
    run(&mut client, "SET plan_cache_mode = force_generic_plan");
    for (who, own) in [("alice", "2, 4"), ("bob", "1, 3"), ("carol", "")].repeat(3) {
        fixture.be(&mut client, Some(who));
        assert_eq!(execute(&mut client, &statement, 5), own, "{who}");
        let mut transaction = client.transaction().unwrap();
        let portal = transaction.bind(&statement, &[&5]).unwrap();
        let rows = [1, 0].map(|count| transaction.query_portal(&portal, count).unwrap());
        let rows = rows.iter().flatten().map(|row| row.get::<_, i32>(0).to_string());
        assert_eq!(rows.collect::<Vec<_>>().join(", "), own, "{who}");
    }
}

/// The leader evaluates the subquery, and workers get its value. From 17 on, more of such plans are parallel.
#[test]
fn workers_get_the_result_of_a_subquery_in_a_policy() {
    let fixture = Fixture::new(
        &PARALLEL,
        "CREATE TABLE many AS SELECT n, (ARRAY['alice', 'bob', 'carol'])[1 + n % 3] AS owner
           FROM generate_series(1, 3000) n;
         ALTER TABLE many SET (parallel_workers = 2); ANALYZE many;
         ALTER TABLE many ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON many USING (owner = (SELECT auth.user_id()));
         GRANT SELECT ON many TO app",
    );
    let mut client = fixture.client();
    let sql = "SELECT count(*), sum(n), min(owner) FROM many";
    run(&mut client, GATHER);
    fixture.be(&mut client, Some("alice"));
    let plan = answer(&mut client, &format!("EXPLAIN (ANALYZE, TIMING OFF) {sql}"));
    for part in ["InitPlan 1", "Workers Launched: 2"] {
        assert!(plan.contains(part), "{part}: {plan}");
    }
    for mode in [GATHER, SERIAL, FORCED[0], FORCED[1]] {
        run(&mut client, mode);
        let expected = ["1000 1501500 alice", "1000 1499500 bob", "0 - -"];
        assert_eq!(fixture.answers(&mut client, sql), expected, "{mode}");
    }
    // One plan for all.
    run(&mut client, GATHER);
    run(&mut client, "SET plan_cache_mode = force_generic_plan");
    let statement = client.prepare("SELECT n FROM many WHERE n < $1 ORDER BY n").unwrap();
    for (who, own) in [("alice", "3, 6"), ("bob", "1, 4, 7"), ("dan", "")].repeat(2) {
        fixture.be(&mut client, Some(who));
        assert_eq!(execute(&mut client, &statement, 8), own, "{who}");
    }
}

#[test]
fn workers_admit_what_their_leader_would() {
    let fixture = Fixture::new(
        &PARALLEL,
        "CREATE TABLE t AS SELECT n, 'alice' AS owner FROM generate_series(1, 300) n;
         ALTER TABLE t SET (parallel_workers = 2); ANALYZE t;
         ALTER TABLE t ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON t USING (owner = auth.user_id()); GRANT SELECT ON t TO app",
    );
    let count = "SELECT count(*) FROM t";
    let forced = |token: &str| {
        let mut client = fixture.app().option("pg_session_jwt.jwt", token).client();
        run(&mut client, FORCED[0]);
        client
    };
    let mut client = fixture.client();
    assert!(
        explain(&mut client, count).contains("Parallel Seq Scan"),
        "explain(count).contains(Parallel Seq Scan)"
    );

    // A worker never presents: a jti that was used up is no obstacle.
    assert_eq!(present(&mut client, &fixture.counted(3)), SUCCESS, "a worker never presents");
    assert_eq!(answer(&mut client, count), "0", "a worker never presents");
    run(&mut client, FORCED[0]);
    assert_eq!(answer(&mut client, "SELECT auth.user_id()"), "3", "a worker never presents");
    run(&mut client, GATHER);

    // A refused token is gone for workers too, which only get the setting's text.
    fixture.be(&mut client, Some("alice"));
    run(&mut client, "BEGIN");
    assert_eq!(answer(&mut client, count), "300", "a refused token is gone for workers too");
    run(&mut client, "SAVEPOINT s");
    assert_eq!(present(&mut client, "rubbish"), Code::Malformed.sqlstate(), "after SAVEPOINT s");
    run(&mut client, "ROLLBACK TO s");
    assert_eq!(answer(&mut client, count), "0", "a refused token is gone for workers too");
    run(&mut client, "ROLLBACK");
    assert_eq!(answer(&mut client, count), "0", "a refused token is gone for workers too");
    run(&mut client, "RESET ALL");
    assert_eq!(answer(&mut client, count), "0", "a refused token is gone for workers too");

    // The leader has looked at the token of the startup packet: here the planner does not ask for
    // the value, and a worker runs the whole plan.
    let early = json!({"sub": "alice", "exp": now() + 7200, "nbf": now() + 3600});
    for (token, expected) in [
        (fixture.key.sign(&early), Code::NotYetValid.sqlstate()),
        (fixture.counted(1), "1"),
        (fixture.token("alice"), "alice"),
    ] {
        assert_eq!(
            answer(&mut forced(&token), "SELECT auth.user_id()"),
            expected,
            "the leader has looked at the token of the startup packet"
        );
    }

    // The statement stays out of the log when the error comes from a worker.
    let mut client = forced(&fixture.token_until("alice", 1));
    let error = client.query("SELECT auth.user_id(), 'marked'", &[]).unwrap_err();
    assert!(is_from_worker(&error), "{error:?}");
    assert_eq!(sqlstate::<()>(Err(error)), Code::Expired.sqlstate(), "sqlstate(Err(error))");
    let log = fixture.cluster.log();
    assert!(!log.contains("marked"), "{log}");
}

/// Where the library comes with a worker, its leader has not looked at the token.
#[test]
fn workers_look_where_their_leader_has_not() {
    let site = Site::start(Preload::Neither, &PARALLEL);
    let ask = |token: &str| {
        let mut client = site.app().option("pg_session_jwt.jwt", token).client();
        run(&mut client, FORCED[0]);
        let outcome = client.query_one("SELECT auth.user_id(), 'marked'", &[]);
        outcome.map(|row| row.get::<_, String>(0)).map_err(|error| {
            assert!(is_from_worker(&error), "{error:?}");
            sqlstate::<()>(Err(error))
        })
    };
    let early = json!({"sub": "alice", "exp": now() + 7200, "nbf": now() + 3600});
    assert_eq!(ask(&site.token("alice")), Ok("alice".to_owned()), "ask(site.token(alice))");
    for (token, code) in [
        (site.key.sign(&early), Code::NotYetValid.sqlstate()),
        (site.token_until("alice", now() - 1), Code::Expired.sqlstate()),
        // What has been used up, only the leader knows.
        (site.counted(1), Code::Replayed.sqlstate()),
    ] {
        assert_eq!(ask(&token), Err(code.to_owned()), "ask(token)");
    }
    assert!(!site.cluster.log().contains("marked"), "!site.cluster.log.contains(marked)");
}
