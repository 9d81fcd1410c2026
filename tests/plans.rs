//! Plans: what policies answer through prepared statements, every kind of relation and statement,
//! and parallel workers. All as a role that is neither superuser nor owner.

use std::io::Read;
use std::ops::{Deref, Range};
use std::thread::{scope, sleep};
use std::time::Duration;

use harness::{Preload, Site, now, present, run, sqlstate};
use postgres::{Client, SimpleQueryMessage, Statement};
use serde_json::{Value, json};

/// A site whose role `app` may become others, but is not subject to their policies until it does.
struct Fixture {
    site: Site,
    exp: i64,
}

impl Deref for Fixture {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Fixture {
    fn new(settings: &[(&str, &str)], schema: &str) -> Self {
        let site = Site::start(Preload::Shared, settings);
        let mut admin = site.cluster.admin();
        let roles = "ALTER ROLE app NOINHERIT; CREATE ROLE keeper; CREATE ROLE editor;
                     GRANT keeper, editor TO app;";
        run(&mut admin, roles);
        run(&mut admin, schema);
        Self { site, exp: now() + 600 }
    }

    fn claims(&self, who: &str) -> Value {
        json!({"sub": who, "exp": self.exp, "role": format!("role of {who}"),
               "email": format!("{who}@example.com"), "org_id": format!("org of {who}"),
               "deep": {"list": [0, format!("deep {who}")]}})
    }

    fn token(&self, who: &str) -> String {
        self.key.sign(&self.claims(who))
    }

    /// Gives the session an identity, or none.
    fn be(&self, client: &mut Client, who: Option<&str>) {
        let token = who.map(|who| self.token(who)).unwrap_or_default();
        assert_eq!(present(client, &token), "00000");
    }

    /// Gives the transaction an identity, or none.
    fn be_locally(&self, client: &mut Client, who: Option<&str>) {
        let token = who.map(|who| self.token(who)).unwrap_or_default();
        let init = "SELECT auth.jwt_session_init($1, true)";
        assert_eq!(sqlstate(client.execute(init, &[&token])), "00000");
    }

    /// What a statement answers to Alice, to Bob and to nobody, each in a transaction of its own
    /// that is rolled back.
    fn answers(&self, client: &mut Client, sql: &str) -> [String; 3] {
        [Some("alice"), Some("bob"), None].map(|who| {
            run(client, "BEGIN");
            self.be_locally(client, who);
            let answer = answer(client, sql);
            run(client, "ROLLBACK");
            answer
        })
    }
}

/// What a statement answers: its rows; how many it touched where it returns none; an SQLSTATE.
fn answer(client: &mut Client, sql: &str) -> String {
    let messages = match client.simple_query(sql) {
        Ok(messages) => messages,
        error => return sqlstate(error),
    };
    let (mut rows, mut count, mut returns) = (Vec::new(), 0, false);
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                let columns = (0..row.len()).map(|column| row.get(column).unwrap_or("-"));
                rows.push(columns.collect::<Vec<_>>().join(" "));
            }
            SimpleQueryMessage::RowDescription(_) => returns = true,
            SimpleQueryMessage::CommandComplete(touched) => count = touched,
            _ => {}
        }
    }
    if returns { rows.join(", ") } else { format!("{count} touched") }
}

fn explain(client: &mut Client, sql: &str) -> String {
    answer(client, &format!("EXPLAIN (COSTS OFF) {sql}")).replace(", ", "\n")
}

/// The rows of a prepared statement's first column, by the extended protocol.
fn execute(client: &mut Client, statement: &Statement, argument: i32) -> String {
    match client.query(statement, &[&argument]) {
        Ok(rows) => {
            let rows = rows.iter().map(|row| row.get::<_, i32>(0).to_string());
            rows.collect::<Vec<_>>().join(", ")
        }
        error => sqlstate(error),
    }
}

const NOTES: &str = "
    CREATE TABLE notes (n int, owner text DEFAULT auth.user_id());
    INSERT INTO notes VALUES (1, 'alice'), (2, 'bob'), (3, 'bob'), (4, 'carol');
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON notes USING (owner = auth.user_id());
    CREATE POLICY all_rows ON notes TO editor USING (true);
    GRANT ALL ON notes TO app, editor;
";

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
        assert_eq!(execute(&mut client, &statement, 0), "1, 2, 3, 4");
        run(&mut client, "RESET ROLE");
        assert_eq!(execute(&mut client, &statement, 0), "4");

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
                assert_eq!(execute(&mut client, &update, 0), "");
                assert_eq!(execute(&mut client, &delete, 0), "");
                assert_eq!(execute(&mut client, &insert, 8), "42501");
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

/// Alice's are 1, 2 and 5, Bob's 3 and 4, Carol's 6; each but the first hangs on the one before.
const TREE: &str = "
    CREATE TABLE tree (id int PRIMARY KEY, owner text, parent int);
    INSERT INTO tree VALUES (1, 'alice', NULL), (2, 'alice', 1), (3, 'bob', 2), (4, 'bob', 3),
                            (5, 'alice', 4), (6, 'carol', 5);
    ALTER TABLE tree ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON tree USING (owner = auth.user_id());
    GRANT SELECT, UPDATE ON tree TO app;
    -- What would be told of rows that are somebody else's, if it were ever called for them.
    CREATE FUNCTION nosy(owner text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
      BEGIN
        IF owner IS DISTINCT FROM auth.user_id() THEN RAISE SQLSTATE 'P1234'; END IF;
        RETURN true;
      END $$;
";

#[test]
fn queries_answer_for_the_identity() {
    let fixture = Fixture::new(&[], TREE);
    queries_of_every_shape_answer(&fixture);
    cursors_answer_for_one_token(&fixture);
}

fn queries_of_every_shape_answer(fixture: &Fixture) {
    let mut client = fixture.client();
    for (sql, expected) in [
        ("SELECT id FROM tree ORDER BY id", ["1, 2, 5", "3, 4", ""]),
        (
            "TABLE tree UNION TABLE tree ORDER BY id",
            ["1 alice -, 2 alice 1, 5 alice 4", "3 bob 2, 4 bob 3", ""],
        ),
        (
            "SELECT generate_series(1, 6) EXCEPT SELECT id FROM tree ORDER BY 1",
            ["3, 4, 6", "1, 2, 5, 6", "1, 2, 3, 4, 5, 6"],
        ),
        ("SELECT generate_series(2, 3) INTERSECT ALL SELECT id FROM tree", ["2", "3", ""]),
        (
            "SELECT n FROM generate_series(1, 6) n WHERE n IN (SELECT id FROM tree) ORDER BY n",
            ["1, 2, 5", "3, 4", ""],
        ),
        (
            "SELECT n FROM generate_series(1, 6) n
          WHERE NOT EXISTS (SELECT FROM tree WHERE id = n) ORDER BY n",
            ["3, 4, 6", "1, 2, 5, 6", "1, 2, 3, 4, 5, 6"],
        ),
        (
            "SELECT (SELECT max(id) FROM tree), ARRAY(SELECT id FROM tree ORDER BY id)",
            ["5 {1,2,5}", "4 {3,4}", "- {}"],
        ),
        (
            "SELECT n, s.id FROM generate_series(1, 3) n,
            LATERAL (SELECT id FROM tree WHERE id >= n ORDER BY id LIMIT 1) s ORDER BY n",
            ["1 1, 2 2, 3 5", "1 3, 2 3, 3 3", ""],
        ),
        (
            "SELECT id, sum(id) OVER (ORDER BY id), count(*) OVER () FROM tree ORDER BY id",
            ["1 1 3, 2 3 3, 5 8 3", "3 3 2, 4 7 2", ""],
        ),
        (
            "SELECT owner, count(*) FROM tree GROUP BY ROLLUP (owner) ORDER BY 1",
            ["alice 3, - 3", "bob 2, - 2", "- 0"],
        ),
        (
            "SELECT a.id, b.id FROM tree a LEFT JOIN tree b ON b.id = a.parent ORDER BY 1",
            ["1 -, 2 1, 5 -", "3 -, 4 3", ""],
        ),
        (
            "SELECT a.id, b.id FROM tree a FULL JOIN generate_series(2, 3) b (id) USING (id)
          ORDER BY coalesce(a.id, b.id)",
            ["1 -, 2 2, - 3, 5 -", "- 2, 3 3, 4 -", "- 2, - 3"],
        ),
        // A walk does not get past a row that is somebody else's.
        (
            "WITH RECURSIVE walk AS (
            SELECT id FROM tree WHERE id IN (1, 3)
            UNION ALL SELECT tree.id FROM tree JOIN walk ON tree.parent = walk.id)
          SELECT id FROM walk ORDER BY id",
            ["1, 2", "3, 4", ""],
        ),
        ("WITH t AS MATERIALIZED (SELECT * FROM tree) SELECT count(*) FROM t", ["3", "2", "0"]),
        ("SELECT id FROM tree ORDER BY id FOR UPDATE", ["1, 2, 5", "3, 4", ""]),
        ("SELECT id FROM tree TABLESAMPLE SYSTEM (100) ORDER BY id", ["1, 2, 5", "3, 4", ""]),
        // The policy comes first, however cheap the other condition is.
        ("SELECT id FROM tree WHERE nosy(owner) ORDER BY id", ["1, 2, 5", "3, 4", ""]),
        ("SELECT id FROM tree WHERE id = 6 AND 1 / (id - 6) = 1", ["", "", ""]),
        // Who asks for all or nothing gets nothing.
        ("SET LOCAL row_security = off; SELECT id FROM tree", ["42501", "42501", "42501"]),
    ] {
        assert_eq!(fixture.answers(&mut client, sql), expected, "{sql}");
    }
}

/// A cursor belongs to the token under which its first row was asked for, whatever its plan has worked
/// out by then.
fn cursors_answer_for_one_token(fixture: &Fixture) {
    let mut admin = fixture.cluster.admin();
    let subquery = "
        CREATE TABLE once AS SELECT * FROM tree;
        ALTER TABLE once ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON once USING (owner = (SELECT auth.user_id()));
        CREATE INDEX ON tree (owner, id);
        GRANT SELECT ON once TO app;";
    run(&mut admin, subquery);
    let mut client = fixture.client();
    let by_index = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off";
    for (settings, query, node) in [
        ("SET LOCAL enable_indexscan = off", "SELECT id FROM tree", "Seq Scan"),
        ("SET LOCAL enable_indexscan = off", "SELECT id FROM tree ORDER BY id", "Sort"),
        (by_index, "SELECT id FROM tree", "Index Cond: (owner = auth.user_id())"),
        ("", "SELECT id FROM once", "InitPlan"),
    ] {
        run(&mut client, &format!("BEGIN; {settings}"));
        fixture.be_locally(&mut client, Some("alice"));
        let plan = explain(&mut client, &format!("DECLARE c CURSOR FOR {query}"));
        assert!(plan.contains(node), "{plan}");
        // What has been declared only belongs to nobody yet.
        run(&mut client, &format!("DECLARE c CURSOR FOR {query}; DECLARE d CURSOR FOR {query}"));
        assert_eq!(answer(&mut client, "FETCH 1 FROM c"), "1", "{node}");
        fixture.be_locally(&mut client, Some("bob"));
        assert_eq!(answer(&mut client, "FETCH ALL FROM d"), "3, 4", "{node}");
        assert_eq!(answer(&mut client, "FETCH ALL FROM c"), "42501", "{node}");
        run(&mut client, "ROLLBACK");
    }

    // What is held beyond the transaction is read at its end, under its identity, and kept: for
    // whoever comes next, too, unless the session is cleaned up.
    let held = "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT id FROM tree ORDER BY id";
    run(&mut client, held);
    fixture.be_locally(&mut client, Some("alice"));
    run(&mut client, "COMMIT");
    fixture.be(&mut client, Some("bob"));
    assert_eq!(answer(&mut client, "FETCH ALL FROM c"), "1, 2, 5");
    run(&mut client, "DISCARD ALL");
    assert_eq!(answer(&mut client, "FETCH ALL FROM c"), "34000");

    // A portal of the protocol is read the same way.
    let mut transaction = client.transaction().unwrap();
    let init = "SELECT auth.jwt_session_init($1, true)";
    transaction.execute(init, &[&fixture.token("alice")]).unwrap();
    let portal = transaction.bind("SELECT id FROM tree", &[]).unwrap();
    let fetch = |transaction: &mut postgres::Transaction, count| -> Vec<i32> {
        let rows = transaction.query_portal(&portal, count).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(fetch(&mut transaction, 1), [1]);
    assert_eq!(fetch(&mut transaction, 1), [2]);
    transaction.execute(init, &[&fixture.token("bob")]).unwrap();
    assert_eq!(sqlstate(transaction.query_portal(&portal, 1)), "42501");
}

#[test]
fn relations_and_functions_answer_for_the_identity() {
    let fixture = Fixture::new(
        &[],
        &format!(
            "{TREE}
             CREATE POLICY also ON tree TO keeper USING (owner = 'carol');
             GRANT SELECT ON tree TO keeper; GRANT CREATE ON SCHEMA public TO keeper;
             SET ROLE keeper;
             CREATE VIEW by_keeper AS SELECT id, auth.user_id(), current_user FROM tree;
             CREATE VIEW by_invoker WITH (security_invoker) AS SELECT * FROM by_keeper;
             CREATE VIEW invoked WITH (security_invoker) AS
               SELECT id, auth.user_id(), current_user FROM tree;
             CREATE FUNCTION as_keeper() RETURNS TABLE (id int, who text, role text)
               LANGUAGE sql SECURITY DEFINER STABLE AS
               'SELECT id, auth.user_id(), current_user FROM tree';
             CREATE FUNCTION as_keeper_counting() RETURNS bigint
               LANGUAGE plpgsql SECURITY DEFINER AS $$
               BEGIN RETURN count(*) FROM tree; END $$;
             CREATE MATERIALIZED VIEW kept AS SELECT id, auth.user_id() FROM tree WITH NO DATA;
             CREATE MATERIALIZED VIEW presented AS
               SELECT auth.jwt_session_init(current_setting('my.token'))::text WITH NO DATA;
             RESET ROLE;
             CREATE VIEW by_owner AS SELECT id FROM tree;
             CREATE VIEW filtered AS SELECT * FROM tree WHERE owner = auth.user_id();
             CREATE VIEW barrier WITH (security_barrier) AS TABLE filtered;
             CREATE FUNCTION is_mine(owner text) RETURNS boolean LANGUAGE sql STABLE AS
               'SELECT owner = auth.user_id()';
             CREATE FUNCTION my_rows() RETURNS SETOF tree LANGUAGE sql STABLE AS
               'SELECT * FROM tree';
             CREATE FUNCTION my_rows_by_plan(above int) RETURNS SETOF tree LANGUAGE plpgsql AS $$
               BEGIN RETURN QUERY SELECT * FROM tree WHERE id > above ORDER BY id; END $$;
             CREATE TABLE mine_by_function AS SELECT * FROM tree;
             ALTER TABLE mine_by_function ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON mine_by_function USING (is_mine(owner));
             CREATE TABLE events (id int, day int, owner text DEFAULT auth.user_id())
               PARTITION BY LIST (day);
             CREATE TABLE monday PARTITION OF events FOR VALUES IN (1);
             CREATE TABLE tuesday PARTITION OF events FOR VALUES IN (2);
             INSERT INTO events VALUES (1, 1, 'alice'), (2, 2, 'alice'), (3, 2, 'bob');
             ALTER TABLE events ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON events USING (owner = auth.user_id());
             GRANT SELECT ON ALL TABLES IN SCHEMA public TO app;
             REVOKE ALL ON monday FROM app; GRANT INSERT, UPDATE, DELETE ON events TO app;"
        ),
    );
    let mut client = fixture.client();
    for (sql, expected) in [
        // Partitions: the policies are those of the table that the statement names.
        ("SELECT id FROM events ORDER BY id", ["1, 2", "3", ""]),
        ("SELECT id FROM events WHERE day = 2", ["2", "3", ""]),
        ("SELECT id FROM monday", ["42501", "42501", "42501"]),
        ("SELECT id FROM tuesday ORDER BY id", ["2, 3", "2, 3", "2, 3"]),
        (
            "INSERT INTO events VALUES (9, 1), (9, 2) RETURNING owner, tableoid::regclass",
            ["alice monday, alice tuesday", "bob monday, bob tuesday", "42501"],
        ),
        ("INSERT INTO events VALUES (9, 1, 'bob')", ["42501", "1 touched", "42501"]),
        (
            "UPDATE events SET day = 3 - day RETURNING id, tableoid::regclass",
            ["1 tuesday, 2 monday", "3 monday", ""],
        ),
        (
            "UPDATE events SET day = 1, owner = 'alice' WHERE day = 2",
            ["1 touched", "42501", "0 touched"],
        ),
        ("DELETE FROM events", ["2 touched", "1 touched", "0 touched"]),
        // Views: the policies are those of the owner, or the invoker; the identity the session's.
        (
            "SELECT * FROM by_keeper ORDER BY id",
            [
                "1 alice app, 2 alice app, 5 alice app, 6 alice app",
                "3 bob app, 4 bob app, 6 bob app",
                "6 - app",
            ],
        ),
        ("SELECT id FROM by_invoker ORDER BY id", ["1, 2, 5, 6", "3, 4, 6", "6"]),
        (
            "SELECT * FROM invoked ORDER BY id",
            ["1 alice app, 2 alice app, 5 alice app", "3 bob app, 4 bob app", ""],
        ),
        ("SELECT id FROM by_owner ORDER BY id", ["1, 2, 3, 4, 5, 6"; 3]),
        ("SELECT id FROM filtered ORDER BY id", ["1, 2, 5", "3, 4", ""]),
        ("SELECT id FROM filtered WHERE nosy(owner)", ["P1234"; 3]),
        ("SELECT id FROM barrier WHERE nosy(owner) ORDER BY id", ["1, 2, 5", "3, 4", ""]),
        // Functions.
        (
            "SELECT * FROM as_keeper() ORDER BY id",
            [
                "1 alice keeper, 2 alice keeper, 5 alice keeper, 6 alice keeper",
                "3 bob keeper, 4 bob keeper, 6 bob keeper",
                "6 - keeper",
            ],
        ),
        ("SELECT id FROM my_rows() ORDER BY id", ["1, 2, 5", "3, 4", ""]),
        ("SELECT id FROM mine_by_function ORDER BY id", ["1, 2, 5", "3, 4", ""]),
    ] {
        assert_eq!(fixture.answers(&mut client, sql), expected, "{sql}");
    }
    let plan = explain(&mut client, "SELECT id FROM my_rows()");
    assert!(plan.contains("Seq Scan on tree") && !plan.contains("Function"), "{plan}");
    let plan = explain(&mut client, "SELECT id FROM mine_by_function");
    assert!(plan.contains("Filter: (owner = auth.user_id())"), "{plan}");
    for _ in 0..4 {
        let by_plan = "SELECT id FROM my_rows_by_plan(0)";
        assert_eq!(fixture.answers(&mut client, by_plan), ["1, 2, 5", "3, 4", ""]);
        let counting = "SELECT as_keeper_counting()";
        assert_eq!(fixture.answers(&mut client, counting), ["4", "3", "1"]);
    }

    // A materialized view holds what whoever refreshed it could see, and shows it to all.
    for (who, content) in [
        (Some("alice"), "1 alice, 2 alice, 5 alice, 6 alice"),
        (Some("bob"), "3 bob, 4 bob, 6 bob"),
        (None, "6 -"),
    ] {
        fixture.be(&mut client, who);
        run(&mut client, "SET ROLE keeper; REFRESH MATERIALIZED VIEW kept; RESET ROLE");
        let kept = "SELECT * FROM kept ORDER BY id";
        assert_eq!(fixture.answers(&mut client, kept), [content; 3], "{who:?}");
    }
    // There, readers answer, but no token can be presented.
    fixture.be(&mut client, Some("alice"));
    run(&mut client, &format!("SET my.token = '{}'; SET ROLE keeper", fixture.token("bob")));
    assert_eq!(answer(&mut client, "REFRESH MATERIALIZED VIEW presented"), "22023");
    assert_eq!(answer(&mut client, "SELECT auth.user_id()"), "alice");
}

#[test]
fn writes_are_held_to_the_identity() {
    let fixture = Fixture::new(&[], "");
    statements_write_what_the_policy_lets_them(&fixture);
    foreign_keys_look_past_policies(&fixture);
    triggers_answer_for_whoever_fires_them(&fixture);
}

fn statements_write_what_the_policy_lets_them(fixture: &Fixture) {
    run(
        &mut fixture.cluster.admin(),
        "CREATE TABLE docs (id int PRIMARY KEY, owner text DEFAULT auth.user_id(), size int);
         CREATE TABLE posts (LIKE docs INCLUDING ALL);
         CREATE TABLE letters (LIKE docs INCLUDING ALL);
         INSERT INTO docs VALUES (1, 'alice', 10), (2, 'alice', 20), (3, 'bob', 30);
         INSERT INTO posts TABLE docs;
         ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
         ALTER TABLE posts ENABLE ROW LEVEL SECURITY;
         ALTER TABLE letters ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON docs USING (owner = auth.user_id());
         CREATE POLICY reading ON posts FOR SELECT USING (true);
         CREATE POLICY adding ON posts FOR INSERT WITH CHECK (owner = auth.user_id());
         CREATE POLICY changing ON posts FOR UPDATE USING (owner = auth.user_id());
         CREATE POLICY removing ON posts FOR DELETE USING (owner = auth.user_id());
         CREATE POLICY reading ON letters FOR SELECT USING (owner = auth.user_id());
         CREATE POLICY adding ON letters FOR INSERT WITH CHECK (auth.user_id() IS NOT NULL);
         GRANT ALL ON docs, posts, letters TO app;",
    );
    let mut client = fixture.client();
    for (sql, expected) in [
        ("INSERT INTO docs (id) VALUES (9) RETURNING owner", ["alice", "bob", "42501"]),
        ("INSERT INTO docs VALUES (9, 'alice')", ["1 touched", "42501", "42501"]),
        (
            "INSERT INTO docs (id, size) SELECT id + 10, size FROM docs RETURNING id",
            ["11, 12", "13", ""],
        ),
        ("UPDATE docs SET size = size + 1 RETURNING id, size", ["1 11, 2 21", "3 31", ""]),
        (
            "UPDATE docs SET size = 0 FROM posts WHERE posts.id > docs.id RETURNING docs.id",
            ["1, 2", "", ""],
        ),
        // No row changes hands, in either direction.
        ("UPDATE docs SET owner = 'bob'", ["42501", "1 touched", "0 touched"]),
        ("UPDATE docs SET owner = 'alice' WHERE id = 3", ["0 touched", "42501", "0 touched"]),
        ("UPDATE docs SET owner = NULL", ["42501", "42501", "0 touched"]),
        ("DELETE FROM docs RETURNING id", ["1, 2", "3", ""]),
        (
            "DELETE FROM posts USING docs WHERE docs.id <> posts.id RETURNING posts.id",
            ["1, 2", "", ""],
        ),
        // What one writes but cannot read is not returned either.
        ("INSERT INTO letters VALUES (1, 'bob')", ["1 touched", "1 touched", "42501"]),
        ("INSERT INTO letters VALUES (1, 'bob') RETURNING id", ["42501", "1", "42501"]),
        // A key that is taken shows, though the row that has it does not.
        ("INSERT INTO docs (id) VALUES (3)", ["23505", "23505", "42501"]),
        (
            "INSERT INTO docs (id) VALUES (3) ON CONFLICT DO NOTHING",
            ["0 touched", "0 touched", "42501"],
        ),
        (
            "INSERT INTO docs (id) VALUES (3), (9) ON CONFLICT (id) DO UPDATE SET size = 0
          RETURNING id, owner, size",
            ["42501", "3 bob 0, 9 bob -", "42501"],
        ),
        (
            "INSERT INTO docs (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET owner = 'bob'",
            ["42501", "42501", "42501"],
        ),
        // To MERGE, a row that one cannot see is not there; one that one sees but may not change
        // is an error, where UPDATE passes it over.
        (
            "MERGE INTO docs USING generate_series(1, 3) s (id) ON docs.id = s.id
          WHEN MATCHED THEN UPDATE SET size = 0",
            ["2 touched", "1 touched", "0 touched"],
        ),
        (
            "MERGE INTO docs USING generate_series(2, 3) s (id) ON docs.id = s.id
          WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)",
            ["23505", "23505", "42501"],
        ),
        (
            "MERGE INTO docs USING generate_series(1, 9, 8) s (id) ON docs.id = s.id
          WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)",
            ["2 touched", "23505", "42501"],
        ),
        (
            "MERGE INTO docs USING (VALUES (1)) s (id) ON docs.id = s.id
          WHEN MATCHED THEN UPDATE SET owner = 'bob'",
            ["42501", "0 touched", "0 touched"],
        ),
        ("UPDATE posts SET size = 0", ["2 touched", "1 touched", "0 touched"]),
        (
            "MERGE INTO posts USING (VALUES (1)) s (id) ON posts.id = s.id
          WHEN MATCHED THEN DELETE",
            ["1 touched", "42501", "42501"],
        ),
        // Statements within a statement.
        (
            "WITH gone AS (DELETE FROM docs RETURNING *),
               put AS (INSERT INTO letters SELECT * FROM gone RETURNING id)
          SELECT (SELECT count(*) FROM docs), (SELECT count(*) FROM gone), id FROM put",
            ["2 2 1, 2 2 2", "1 1 3", ""],
        ),
        (
            "WITH given AS (UPDATE docs SET owner = 'bob' WHERE id = 1 RETURNING id)
          SELECT count(*) FROM given",
            ["42501", "0", "0"],
        ),
        ("COPY docs FROM STDIN", ["0A000"; 3]),
    ] {
        assert_eq!(fixture.answers(&mut client, sql), expected, "{sql}");
    }
    for (who, own) in [(Some("alice"), "1\n2\n"), (Some("bob"), "3\n"), (None, "")] {
        fixture.be(&mut client, who);
        for sql in ["COPY docs (id) TO STDOUT", "COPY (SELECT id FROM docs ORDER BY id) TO STDOUT"]
        {
            let mut copied = String::new();
            client.copy_out(sql).unwrap().read_to_string(&mut copied).unwrap();
            assert_eq!(copied, own, "{sql} as {who:?}");
        }
        let returned = "COPY (UPDATE docs SET size = 0 RETURNING id) TO STDOUT";
        let mut copied = String::new();
        client.copy_out(returned).unwrap().read_to_string(&mut copied).unwrap();
        assert_eq!(copied, own, "{returned} as {who:?}");
    }

    // What must be immutable cannot depend on who asks.
    for definition in [
        "(owner text GENERATED ALWAYS AS (auth.user_id()) STORED)",
        "(owner text) PARTITION BY LIST ((owner || auth.user_id()))",
    ] {
        assert_eq!(answer(&mut client, &format!("CREATE TEMP TABLE t {definition}")), "42P17");
    }
    run(&mut client, "CREATE TEMP TABLE t (owner text)");
    for index in ["((auth.user_id()))", "(owner) WHERE owner = auth.user_id()"] {
        assert_eq!(answer(&mut client, &format!("CREATE INDEX ON t {index}")), "42P17", "{index}");
    }
}

/// Postgres checks references as the tables' owner: they reach rows that one cannot see.
fn foreign_keys_look_past_policies(fixture: &Fixture) {
    run(
        &mut fixture.cluster.admin(),
        "CREATE TABLE accounts (id int PRIMARY KEY, owner text DEFAULT auth.user_id());
         CREATE TABLE entries (id int PRIMARY KEY, owner text DEFAULT auth.user_id(),
           account int REFERENCES accounts ON DELETE CASCADE ON UPDATE CASCADE);
         CREATE TABLE strict (account int REFERENCES accounts,
                              owner text DEFAULT auth.user_id());
         INSERT INTO accounts VALUES (1, 'alice'), (2, 'bob'), (3, 'bob');
         INSERT INTO entries VALUES (1, 'alice', 1), (2, 'bob', 1), (3, 'bob', 2);
         INSERT INTO strict VALUES (3, 'alice');
         ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;
         ALTER TABLE entries ENABLE ROW LEVEL SECURITY;
         ALTER TABLE strict ENABLE ROW LEVEL SECURITY;
         ALTER TABLE accounts FORCE ROW LEVEL SECURITY;
         ALTER TABLE entries FORCE ROW LEVEL SECURITY;
         CREATE POLICY own ON accounts USING (owner = auth.user_id());
         CREATE POLICY own ON entries USING (owner = auth.user_id());
         CREATE POLICY own ON strict USING (owner = auth.user_id());
         ALTER TABLE accounts OWNER TO keeper; ALTER TABLE entries OWNER TO keeper;
         GRANT ALL ON accounts, entries, strict TO app;",
    );
    let mut client = fixture.client();
    for (sql, expected) in [
        ("INSERT INTO entries (id, account) VALUES (9, 1)", ["1 touched", "1 touched", "42501"]),
        ("INSERT INTO entries (id, account) VALUES (9, 7)", ["23503", "23503", "42501"]),
        ("UPDATE entries SET account = 3 RETURNING id", ["1", "2, 3", ""]),
        ("DELETE FROM accounts WHERE id = 3", ["0 touched", "23503", "0 touched"]),
    ] {
        assert_eq!(fixture.answers(&mut client, sql), expected, "{sql}");
    }
    // Bob's entry goes with Alice's account, or follows it.
    let mut admin = fixture.cluster.admin();
    let entries = "SELECT id, owner, account FROM entries ORDER BY id";
    fixture.be(&mut client, Some("alice"));
    assert_eq!(answer(&mut client, "UPDATE accounts SET id = 8"), "1 touched");
    assert_eq!(answer(&mut admin, entries), "1 alice 8, 2 bob 8, 3 bob 2");
    assert_eq!(answer(&mut client, "DELETE FROM accounts"), "1 touched");
    assert_eq!(answer(&mut admin, entries), "3 bob 2");
}

fn triggers_answer_for_whoever_fires_them(fixture: &Fixture) {
    run(
        &mut fixture.cluster.admin(),
        "CREATE TABLE log (event text, who text, role text DEFAULT current_user);
         CREATE TABLE notes (n int, owner text);
         CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN NEW.owner := auth.user_id(); RETURN NEW; END $$;
         CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
           BEGIN
             INSERT INTO log VALUES (TG_ARGV[0] || ' ' || coalesce(NEW.n, OLD.n), auth.user_id());
             RETURN NULL;
           END $$;
         CREATE TRIGGER own BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION own();
         CREATE TRIGGER told AFTER INSERT OR UPDATE OR DELETE ON notes
           FOR EACH ROW EXECUTE FUNCTION tell('after');
         CREATE CONSTRAINT TRIGGER late AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW EXECUTE FUNCTION tell('deferred');
         ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON notes USING (owner = auth.user_id());
         GRANT ALL ON notes TO app; GRANT SELECT, DELETE ON log TO app;",
    );
    let mut client = fixture.client();
    let log = "DELETE FROM log RETURNING event, who, role";
    // The trigger comes before the policy: nobody writes for another, or as nobody.
    let insert = "INSERT INTO notes VALUES (1, 'carol') RETURNING owner";
    assert_eq!(fixture.answers(&mut client, insert), ["alice", "bob", "42501"]);

    // Deferred triggers are COMMIT's, and so is the identity, which is still there.
    fixture.be(&mut client, Some("carol"));
    run(&mut client, "BEGIN");
    fixture.be_locally(&mut client, Some("alice"));
    run(&mut client, "INSERT INTO notes VALUES (1)");
    assert_eq!(answer(&mut client, log), "after 1 alice postgres");
    run(&mut client, "COMMIT");
    assert_eq!(answer(&mut client, log), "deferred 1 alice postgres");
    assert_eq!(answer(&mut client, "SELECT auth.user_id()"), "carol");

    // It need not be the one that wrote.
    run(&mut client, "BEGIN");
    fixture.be_locally(&mut client, Some("alice"));
    run(&mut client, "INSERT INTO notes VALUES (2); SAVEPOINT s");
    fixture.be_locally(&mut client, Some("bob"));
    run(&mut client, "INSERT INTO notes VALUES (3); SET CONSTRAINTS late IMMEDIATE");
    let expected = "after 2 alice postgres, after 3 bob postgres, deferred 2 bob postgres, \
                    deferred 3 bob postgres";
    assert_eq!(answer(&mut client, log), expected);
    run(&mut client, "SET CONSTRAINTS late DEFERRED; INSERT INTO notes VALUES (4)");
    run(&mut client, "RELEASE s; UPDATE notes SET n = 5 WHERE n = 4");
    fixture.be_locally(&mut client, None);
    run(&mut client, "COMMIT");
    let expected = "after 4 bob postgres, after 5 bob postgres, deferred 4 - postgres";
    assert_eq!(answer(&mut client, log), expected);

    // One whose identity was rolled back reads what was there before.
    run(&mut client, "BEGIN");
    fixture.be_locally(&mut client, Some("alice"));
    run(&mut client, "INSERT INTO notes VALUES (6); SAVEPOINT s");
    fixture.be_locally(&mut client, Some("bob"));
    run(&mut client, "INSERT INTO notes VALUES (7); ROLLBACK TO s; DELETE FROM notes; COMMIT");
    let expected = "after 6 alice postgres, after 1 alice postgres, after 2 alice postgres, \
                    after 6 alice postgres, deferred 6 alice postgres";
    assert_eq!(answer(&mut client, log), expected);
}

/// Workers alone evaluate what can be evaluated in parallel.
const PARALLEL: [(&str, &str); 8] = [
    ("jit", "off"),
    ("parallel_setup_cost", "0"),
    ("parallel_tuple_cost", "0"),
    ("min_parallel_table_scan_size", "0"),
    ("min_parallel_index_scan_size", "0"),
    ("parallel_leader_participation", "off"),
    ("max_worker_processes", "32"),
    ("max_parallel_workers", "32"),
];

const SERIAL: &str = "SET max_parallel_workers_per_gather = 0";
const GATHER: &str = "SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0;
                      SET force_parallel_mode = off";
/// Plans that Postgres would not split run in one worker as a whole.
const FORCED: [&str; 2] = [
    "SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 1e9;
     SET force_parallel_mode = on",
    "SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 1e9;
     SET force_parallel_mode = regress",
];

/// Every reader, and the claim that it returns.
const READERS: [(&str, &str); 8] = [
    ("auth.user_id()", "c ->> 'sub'"),
    ("auth.uid()", "c ->> 'sub'"),
    ("auth.session()", "c::text"),
    ("auth.jwt()", "c::text"),
    ("auth.role()", "c ->> 'role'"),
    ("auth.email()", "c ->> 'email'"),
    ("auth.claim('org_id')", "c ->> 'org_id'"),
    ("auth.claim('/deep/list/1')", "c #>> '{deep,list,1}'"),
];

const ALICE: &str = "a11ce000-0000-4000-8000-000000000001";
const BOB: &str = "b0b00000-0000-4000-8000-000000000002";

/// For each reader a table with rows of Alice's, of Bob's and of nobody's.
fn create_reader_tables(fixture: &Fixture) {
    let mut admin = fixture.cluster.admin();
    run(
        &mut admin,
        "CREATE FUNCTION pid() RETURNS int LANGUAGE internal STABLE PARALLEL SAFE
           AS 'pg_backend_pid'",
    );
    for (place, (reader, claim)) in READERS.iter().enumerate() {
        let [alice, bob] = [ALICE, BOB].map(|who| fixture.claims(who));
        run(
            &mut admin,
            &format!(
                "CREATE TABLE reader_{place} AS SELECT n, {claim} AS value
                   FROM (VALUES (NULL::jsonb), ('{alice}'), ('{bob}')) v (c),
                        generate_series(1, 200) n;
                 ALTER TABLE reader_{place} SET (parallel_workers = 2);
                 ALTER TABLE reader_{place} ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY own ON reader_{place}
                   USING (value IS NOT DISTINCT FROM ({reader})::text);
                 GRANT SELECT ON reader_{place} TO app, editor; ANALYZE reader_{place}"
            ),
        );
    }
}

/// What these readers return, what their policies let through, and whether the leader found out.
fn reading(client: &mut Client, places: Range<usize>) -> String {
    let leader = answer(client, "SELECT pg_backend_pid()");
    let selects: Vec<String> = places
        .map(|place| {
            let reader = READERS[place].0;
            format!(
                "SELECT {place} AS place, n, value, ({reader})::text AS who,
                        pid() = {leader} AS in_leader FROM reader_{place}"
            )
        })
        .collect();
    format!(
        "SELECT value, who, in_leader, count(*), sum(n) FROM ({}) s
         GROUP BY place, 1, 2, 3 ORDER BY place",
        selects.join(" UNION ALL ")
    )
}

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
    assert_eq!(present(&mut client, "rubbish"), "28J01");
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
    readers_raise(&mut client, "28J04");
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
    assert!(explain(&mut client, count).contains("Parallel Seq Scan"));

    // A worker never presents: a jti that was used up is no obstacle.
    assert_eq!(present(&mut client, &fixture.counted(3)), "00000");
    assert_eq!(answer(&mut client, count), "0");
    run(&mut client, FORCED[0]);
    assert_eq!(answer(&mut client, "SELECT auth.user_id()"), "3");
    run(&mut client, GATHER);

    // A refused token is gone for workers too, which only get the setting's text.
    fixture.be(&mut client, Some("alice"));
    run(&mut client, "BEGIN");
    assert_eq!(answer(&mut client, count), "300");
    run(&mut client, "SAVEPOINT s");
    assert_eq!(present(&mut client, "rubbish"), "28J01");
    run(&mut client, "ROLLBACK TO s");
    assert_eq!(answer(&mut client, count), "0");
    run(&mut client, "ROLLBACK");
    assert_eq!(answer(&mut client, count), "0");
    run(&mut client, "RESET ALL");
    assert_eq!(answer(&mut client, count), "0");

    // The leader has looked at the token of the startup packet: here the planner does not ask for
    // the value, and a worker runs the whole plan.
    let early = json!({"sub": "alice", "exp": now() + 7200, "nbf": now() + 3600});
    for (token, expected) in [
        (fixture.key.sign(&early), "28J05"),
        (fixture.counted(1), "1"),
        (fixture.token("alice"), "alice"),
    ] {
        assert_eq!(answer(&mut forced(&token), "SELECT auth.user_id()"), expected);
    }

    // The statement stays out of the log when the error comes from a worker.
    let mut client = forced(&fixture.token_until("alice", 1));
    let error = client.query("SELECT auth.user_id(), 'marked'", &[]).unwrap_err();
    assert!(is_from_worker(&error), "{error:?}");
    assert_eq!(sqlstate::<()>(Err(error)), "28J04");
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
    assert_eq!(ask(&site.token("alice")), Ok("alice".to_owned()));
    for (token, code) in [
        (site.key.sign(&early), "28J05"),
        (site.token_until("alice", now() - 1), "28J04"),
        // What has been used up, only the leader knows.
        (site.counted(1), "28J08"),
    ] {
        assert_eq!(ask(&token), Err(code.to_owned()));
    }
    assert!(!site.cluster.log().contains("marked"));
}

fn is_from_worker(error: &postgres::Error) -> bool {
    let place = error.as_db_error().and_then(|error| error.where_());
    place.is_some_and(|place| place.contains("parallel worker"))
}

/// Time is a statement's start, for workers that start late and for rows that come late.
#[test]
fn statements_outlive_the_token_that_they_began_with() {
    let fixture = Fixture::new(
        &PARALLEL,
        &format!(
            "CREATE TABLE big AS SELECT n, '{ALICE}' AS owner FROM generate_series(1, 300) n;
             ALTER TABLE big SET (parallel_workers = 2); ANALYZE big;
             CREATE TABLE empty (owner text);
             ALTER TABLE big ENABLE ROW LEVEL SECURITY;
             ALTER TABLE empty ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON big USING (owner = auth.user_id());
             CREATE POLICY own ON empty USING (owner = auth.user_id());
             CREATE FUNCTION late() RETURNS bigint LANGUAGE plpgsql AS $$
               BEGIN
                 PERFORM pg_sleep(4);
                 RETURN count(*) FROM big;
               END $$;
             CREATE FUNCTION who() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN PERFORM auth.user_id(); RETURN NULL; END $$;
             CREATE TABLE notes (n int);
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED
               FOR EACH ROW EXECUTE FUNCTION who();
             GRANT ALL ON big, empty, notes TO app"
        ),
    );
    create_reader_tables(&fixture);
    let expiring = |client: &mut Client| {
        let exp = now() + 3;
        assert_eq!(present(client, &fixture.token_until(ALICE, exp)), "00000");
        exp
    };
    let rows_come_late = || {
        let mut client = fixture.client();
        fixture.be(&mut client, Some(ALICE));
        run(&mut client, "PREPARE empty AS TABLE empty; EXECUTE empty");
        // Plans that are there already, so that nothing is asked for in order to make them.
        for (place, _) in READERS.iter().enumerate() {
            let reading = reading(&mut client, place..place + 1);
            for (name, mode) in [("serial", SERIAL), ("gather", GATHER), ("forced", FORCED[0])] {
                run(&mut client, mode);
                run(&mut client, &format!("PREPARE {name}_{place} AS {reading}"));
                assert_ne!(answer(&mut client, &format!("EXECUTE {name}_{place}")), "");
            }
        }
        run(&mut client, GATHER);
        let exp = expiring(&mut client);
        let slow = "SELECT count(*) FROM big WHERE n > 4 OR pg_sleep(1) IS NOT NULL";
        assert_eq!(answer(&mut client, slow), "300");
        assert!(now() >= exp);
        for (place, (reader, _)) in READERS.iter().enumerate() {
            for (name, in_worker) in [("serial", false), ("gather", true), ("forced", true)] {
                let error = client.simple_query(&format!("EXECUTE {name}_{place}")).unwrap_err();
                assert_eq!(is_from_worker(&error), in_worker, "{reader}, {name}");
                assert_eq!(sqlstate::<()>(Err(error)), "28J04", "{reader}, {name}");
            }
        }
        // Where a plan is there and no row is, nobody asks who it is.
        assert_eq!(answer(&mut client, "EXECUTE empty"), "");
        assert_eq!(answer(&mut client, "TABLE empty"), "28J04");
    };
    let workers_start_late = || {
        let mut client = fixture.client();
        let exp = expiring(&mut client);
        assert_eq!(answer(&mut client, "SELECT late()"), "300");
        assert!(now() >= exp);
        assert_eq!(answer(&mut client, "SELECT count(*) FROM big"), "28J04");
    };
    // Each FETCH is a statement, and so is the COMMIT that fires a deferred trigger.
    let statements_come_late = || {
        let mut client = fixture.client();
        let exp = expiring(&mut client);
        let begin = "BEGIN; INSERT INTO notes VALUES (1); DECLARE c CURSOR FOR SELECT n FROM big";
        run(&mut client, begin);
        assert_eq!(answer(&mut client, "FETCH 1 FROM c"), "1");
        run(&mut client, "SAVEPOINT s");
        while now() < exp {
            sleep(Duration::from_millis(100));
        }
        assert_eq!(answer(&mut client, "FETCH 1 FROM c"), "28J04");
        run(&mut client, "ROLLBACK TO s");
        assert_eq!(answer(&mut client, "COMMIT"), "28J04");
        assert_eq!(answer(&mut client, "SELECT count(*) FROM notes"), "0");
    };
    scope(|threads| {
        threads.spawn(rows_come_late);
        threads.spawn(workers_start_late);
        threads.spawn(statements_come_late);
    });
}
