//! Prepared statements.

use harness::{INSUFFICIENT_PRIVILEGE, run};

use super::fixture::*;

#[test]
fn prepared_statements_answer_for_each_execution() {
    let indexed = "
        CREATE TABLE indexed AS
          SELECT n, (ARRAY['alice', 'bob', 'carol', 'dave'])[1 + n % 4] AS owner
          FROM generate_series(0, 9) n;
        CREATE INDEX ON indexed (owner, n);
        ALTER TABLE indexed ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON indexed USING (owner = auth.user_id());
        CREATE TABLE split (n int, owner text) PARTITION BY LIST (owner);
        CREATE TABLE split_a PARTITION OF split FOR VALUES IN ('alice');
        CREATE TABLE split_b PARTITION OF split FOR VALUES IN ('bob');
        INSERT INTO split VALUES (1, 'alice'), (2, 'bob'), (3, 'bob');
        ALTER TABLE split ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON split USING (owner = auth.user_id());
        GRANT SELECT ON indexed, split TO app;";
    let fixture = Fixture::new(&[], &format!("{NOTES}{indexed}"));
    let people = [(Some("alice"), "1"), (Some("bob"), "2, 3"), (None, "")];
    let query = "SELECT n FROM notes WHERE n > $1 ORDER BY n";
    for (mode, generic, custom) in
        [("force_generic_plan", 12, 0), ("force_custom_plan", 0, 12), ("auto", 7, 5)]
    {
        let mut client = fixture.client();
        run(&mut client, &format!("SET plan_cache_mode = {mode}; PREPARE q (int) AS {query}"));
        let statement = client.prepare(query).unwrap();
        for (who, expected) in people.repeat(4) {
            fixture.be(&mut client, who);
            assert_eq!(execute(&mut client, &statement, 0), expected, "{who:?}, {mode}");
            assert_eq!(answer(&mut client, "EXECUTE q(0)"), expected, "{who:?}, {mode}");
        }
        let plans = "SELECT generic_plans, custom_plans FROM pg_prepared_statements
                     WHERE statement LIKE '%FROM notes WHERE%'";
        let counted = format!("{generic} {custom}");
        assert_eq!(answer(&mut client, plans), format!("{counted}, {counted}"), "{mode}");

        // Identities that come and go within a transaction.
        fixture.be(&mut client, Some("carol"));
        let mut step = |sql: &str, who: Option<Option<&str>>, expected: &str| {
            run(&mut client, sql);
            if let Some(who) = who {
                fixture.be_locally(&mut client, who);
            }
            assert_eq!(execute(&mut client, &statement, 0), expected, "{sql}, {mode}");
            assert_eq!(answer(&mut client, "EXECUTE q(0)"), expected, "{sql}, {mode}");
        };
        step("BEGIN", None, "4");
        step("", Some(Some("bob")), "2, 3");
        step("SAVEPOINT s", Some(None), "");
        step("ROLLBACK TO s", None, "2, 3");
        step("SAVEPOINT s", Some(Some("alice")), "1");
        step("RELEASE s", None, "1");
        step("COMMIT", None, "4");

        // A role has policies of its own, and the plan is made anew for it.
        run(&mut client, "SET ROLE editor");
        assert_eq!(execute(&mut client, &statement, 0), "1, 2, 3, 4", "{mode:?}, {generic:?}");
        run(&mut client, "RESET ROLE");
        assert_eq!(execute(&mut client, &statement, 0), "4", "{mode:?}, {generic:?}");

        // Statements that write.
        let insert = "INSERT INTO notes (n) VALUES ($1) RETURNING n";
        let update = "UPDATE notes SET n = n + 100 WHERE n > $1 RETURNING n";
        let delete = "DELETE FROM notes WHERE n > $1 RETURNING n";
        let [insert, update, delete] = [insert, update, delete]
            .map(|sql| client.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}")));
        for _ in 0..3 {
            run(&mut client, "BEGIN");
            for (who, own) in [("alice", "101, 107"), ("bob", "102, 103, 107")] {
                fixture.be_locally(&mut client, Some(who));
                assert_eq!(execute(&mut client, &insert, 7), "7", "{who}, {mode}");
                assert_eq!(execute(&mut client, &update, 0), own, "{who}, {mode}");
                run(&mut client, "SAVEPOINT s");
                fixture.be_locally(&mut client, None);
                assert_eq!(execute(&mut client, &update, 0), "", "{mode:?}, {who:?}");
                assert_eq!(execute(&mut client, &delete, 0), "", "{mode:?}, {who:?}");
                assert_eq!(
                    execute(&mut client, &insert, 8),
                    INSUFFICIENT_PRIVILEGE,
                    "{mode:?}, {who:?}: after SAVEPOINT s"
                );
                run(&mut client, "ROLLBACK TO s");
                assert_eq!(execute(&mut client, &delete, 0), own, "{who}, {mode}");
                assert_eq!(execute(&mut client, &delete, 0), "", "{who}, {mode}");
            }
            run(&mut client, "ROLLBACK");
        }
    }

    // A plan that looks the policy's answer up in an index, or chooses partitions by it.
    let mut client = fixture.client();
    run(
        &mut client,
        "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;
         SET enable_bitmapscan = off; SET enable_indexonlyscan = off; SET enable_sort = off;
         PREPARE by_index (int) AS SELECT n FROM indexed WHERE n >= $1 ORDER BY n;
         PREPARE by_partition (int) AS SELECT n FROM split WHERE n >= $1",
    );
    for _ in 0..3 {
        for (who, by_index, by_partition) in
            [(Some("alice"), "0, 4, 8", "1"), (Some("bob"), "1, 5, 9", "2, 3"), (None, "", "")]
        {
            fixture.be(&mut client, who);
            assert_eq!(answer(&mut client, "EXECUTE by_index(0)"), by_index, "{who:?}");
            assert_eq!(answer(&mut client, "EXECUTE by_partition(0)"), by_partition, "{who:?}");
            let plan = explain(&mut client, "EXECUTE by_index(0)");
            assert!(plan.contains("Index Scan using"), "{plan}");
            assert!(
                plan.contains("Index Cond: ((owner = auth.user_id()) AND (n >= $1))"),
                "{plan}"
            );
            let plan = explain(&mut client, "EXECUTE by_partition(0)");
            let removed = if who.is_some() { 1 } else { 2 };
            assert!(plan.contains(&format!("Subplans Removed: {removed}")), "{plan}");
        }
    }
}
