//! Queries, cursors, and every kind of relation and function.

use harness::{Code, INSUFFICIENT_PRIVILEGE, Preload, Shared, UNDEFINED_CURSOR, run, sqlstate};

use super::fixture::*;

/// A site with a tree, of which tests change nothing.
static SITES: Shared<Fixture> = Shared::new(|_| Fixture::new(&[], TREE));

#[test]
fn queries_of_every_shape_answer_for_the_identity() {
    let fixture = SITES.beside_others(Preload::Shared);
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
        (
            "SET LOCAL row_security = off; SELECT id FROM tree",
            [INSUFFICIENT_PRIVILEGE, INSUFFICIENT_PRIVILEGE, INSUFFICIENT_PRIVILEGE],
        ),
    ] {
        assert_eq!(fixture.answers(&mut client, sql), expected, "{sql}");
    }
}

/// A cursor belongs to the token under which its first row was asked for, whatever its plan has worked
/// out by then.
#[test]
fn cursors_answer_for_one_token() {
    let fixture = SITES.alone(Preload::Shared);
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
        assert_eq!(answer(&mut client, "FETCH ALL FROM c"), INSUFFICIENT_PRIVILEGE, "{node}");
        run(&mut client, "ROLLBACK");
    }
}

/// What is held beyond the transaction is read at its end, under its identity, and kept: for the next user,
/// too, unless the session is cleaned up.
#[test]
fn held_cursors_are_of_the_identity_at_the_commit() {
    let fixture = SITES.beside_others(Preload::Shared);
    let mut client = fixture.client();
    let held = "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT id FROM tree ORDER BY id";
    run(&mut client, held);
    fixture.be_locally(&mut client, Some("alice"));
    run(&mut client, "COMMIT");
    fixture.be(&mut client, Some("bob"));
    assert_eq!(answer(&mut client, "FETCH ALL FROM c"), "1, 2, 5", "after COMMIT");
    run(&mut client, "DISCARD ALL");
    assert_eq!(answer(&mut client, "FETCH ALL FROM c"), UNDEFINED_CURSOR, "after DISCARD ALL");
}

/// A portal of the protocol is read like a cursor.
#[test]
fn portals_answer_for_one_token() {
    let fixture = SITES.beside_others(Preload::Shared);
    let mut client = fixture.client();
    let mut transaction = client.transaction().unwrap();
    let init = "SELECT auth.jwt_session_init($1, true)";
    transaction.execute(init, &[&fixture.token("alice")]).unwrap();
    let portal = transaction.bind("SELECT id FROM tree", &[]).unwrap();
    let fetch = |transaction: &mut postgres::Transaction, count| -> Vec<i32> {
        let rows = transaction.query_portal(&portal, count).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(fetch(&mut transaction, 1), [1], "fetch(1)");
    assert_eq!(fetch(&mut transaction, 1), [2], "fetch(1)");
    transaction.execute(init, &[&fixture.token("bob")]).unwrap();
    assert_eq!(
        sqlstate(transaction.query_portal(&portal, 1)),
        INSUFFICIENT_PRIVILEGE,
        "sqlstate(transaction.query_portal(portal, 1))"
    );
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
        (
            "SELECT id FROM monday",
            [INSUFFICIENT_PRIVILEGE, INSUFFICIENT_PRIVILEGE, INSUFFICIENT_PRIVILEGE],
        ),
        ("SELECT id FROM tuesday ORDER BY id", ["2, 3", "2, 3", "2, 3"]),
        (
            "INSERT INTO events VALUES (9, 1), (9, 2) RETURNING owner, tableoid::regclass",
            ["alice monday, alice tuesday", "bob monday, bob tuesday", INSUFFICIENT_PRIVILEGE],
        ),
        (
            "INSERT INTO events VALUES (9, 1, 'bob')",
            [INSUFFICIENT_PRIVILEGE, "1 touched", INSUFFICIENT_PRIVILEGE],
        ),
        (
            "UPDATE events SET day = 3 - day RETURNING id, tableoid::regclass",
            ["1 tuesday, 2 monday", "3 monday", ""],
        ),
        (
            "UPDATE events SET day = 1, owner = 'alice' WHERE day = 2",
            ["1 touched", INSUFFICIENT_PRIVILEGE, "0 touched"],
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
        assert_eq!(
            fixture.answers(&mut client, by_plan),
            ["1, 2, 5", "3, 4", ""],
            "fixture.answers(by_plan)"
        );
        let counting = "SELECT as_keeper_counting()";
        assert_eq!(
            fixture.answers(&mut client, counting),
            ["4", "3", "1"],
            "fixture.answers(counting)"
        );
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
    assert_eq!(
        answer(&mut client, "REFRESH MATERIALIZED VIEW presented"),
        Code::Configuration.sqlstate(),
        "there, readers answer, but no token can be presented"
    );
    assert_eq!(
        answer(&mut client, "SELECT auth.user_id()"),
        "alice",
        "there, readers answer, but no token can be presented"
    );
}
