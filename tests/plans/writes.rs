//! Statements that write, foreign keys and triggers.

use std::io::Read;

use harness::{
    Code, FEATURE_NOT_SUPPORTED, FOREIGN_KEY_VIOLATION, INSUFFICIENT_PRIVILEGE,
    INVALID_OBJECT_DEFINITION, Preload, Shared, UNIQUE_VIOLATION, is_older_than, run,
    shows_rows_to_do_update,
};

use super::fixture::*;

/// A site to which each test adds tables of its own.
static SITES: Shared<Fixture> = Shared::new(|_| Fixture::new(&[], ""));

#[test]
fn statements_write_what_the_policy_lets_them() {
    let fixture = SITES.alone(Preload::Shared);
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
        (
            "INSERT INTO docs (id) VALUES (9) RETURNING owner",
            ["alice", "bob", INSUFFICIENT_PRIVILEGE],
        ),
        (
            "INSERT INTO docs VALUES (9, 'alice')",
            ["1 touched", INSUFFICIENT_PRIVILEGE, INSUFFICIENT_PRIVILEGE],
        ),
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
        ("UPDATE docs SET owner = 'bob'", [INSUFFICIENT_PRIVILEGE, "1 touched", "0 touched"]),
        (
            "UPDATE docs SET owner = 'alice' WHERE id = 3",
            ["0 touched", INSUFFICIENT_PRIVILEGE, "0 touched"],
        ),
        (
            "UPDATE docs SET owner = NULL",
            [INSUFFICIENT_PRIVILEGE, INSUFFICIENT_PRIVILEGE, "0 touched"],
        ),
        ("DELETE FROM docs RETURNING id", ["1, 2", "3", ""]),
        (
            "DELETE FROM posts USING docs WHERE docs.id <> posts.id RETURNING posts.id",
            ["1, 2", "", ""],
        ),
        // What one writes but cannot read is not returned either.
        (
            "INSERT INTO letters VALUES (1, 'bob')",
            ["1 touched", "1 touched", INSUFFICIENT_PRIVILEGE],
        ),
        (
            "INSERT INTO letters VALUES (1, 'bob') RETURNING id",
            [INSUFFICIENT_PRIVILEGE, "1", INSUFFICIENT_PRIVILEGE],
        ),
        // A key that is taken shows, though the row that has it does not.
        (
            "INSERT INTO docs (id) VALUES (3)",
            [UNIQUE_VIOLATION, UNIQUE_VIOLATION, INSUFFICIENT_PRIVILEGE],
        ),
        (
            "INSERT INTO docs (id) VALUES (3) ON CONFLICT DO NOTHING",
            ["0 touched", "0 touched", INSUFFICIENT_PRIVILEGE],
        ),
        (
            "INSERT INTO docs (id) VALUES (3), (9) ON CONFLICT (id) DO UPDATE SET size = 0
          RETURNING id, owner, size",
            [INSUFFICIENT_PRIVILEGE, "3 bob 0, 9 bob -", INSUFFICIENT_PRIVILEGE],
        ),
        (
            "INSERT INTO docs (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET owner = 'bob'",
            [INSUFFICIENT_PRIVILEGE, INSUFFICIENT_PRIVILEGE, INSUFFICIENT_PRIVILEGE],
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
            [UNIQUE_VIOLATION, UNIQUE_VIOLATION, INSUFFICIENT_PRIVILEGE],
        ),
        (
            "MERGE INTO docs USING generate_series(1, 9, 8) s (id) ON docs.id = s.id
          WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)",
            ["2 touched", UNIQUE_VIOLATION, INSUFFICIENT_PRIVILEGE],
        ),
        (
            "MERGE INTO docs USING (VALUES (1)) s (id) ON docs.id = s.id
          WHEN MATCHED THEN UPDATE SET owner = 'bob'",
            [INSUFFICIENT_PRIVILEGE, "0 touched", "0 touched"],
        ),
        ("UPDATE posts SET size = 0", ["2 touched", "1 touched", "0 touched"]),
        (
            "MERGE INTO posts USING (VALUES (1)) s (id) ON posts.id = s.id
          WHEN MATCHED THEN DELETE",
            ["1 touched", INSUFFICIENT_PRIVILEGE, INSUFFICIENT_PRIVILEGE],
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
            [INSUFFICIENT_PRIVILEGE, "0", "0"],
        ),
        ("COPY docs FROM STDIN", [FEATURE_NOT_SUPPORTED; 3]),
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
        assert_eq!(
            answer(&mut client, &format!("CREATE TEMP TABLE t {definition}")),
            INVALID_OBJECT_DEFINITION,
            "{definition:?}"
        );
    }
    run(&mut client, "CREATE TEMP TABLE t (owner text)");
    for index in ["((auth.user_id()))", "(owner) WHERE owner = auth.user_id()"] {
        assert_eq!(
            answer(&mut client, &format!("CREATE INDEX ON t {index}")),
            INVALID_OBJECT_DEFINITION,
            "{index}"
        );
    }
}

/// Postgres checks references as the tables' owner: they reach rows that one cannot see.
#[test]
fn foreign_keys_look_past_policies() {
    let fixture = SITES.alone(Preload::Shared);
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
        (
            "INSERT INTO entries (id, account) VALUES (9, 1)",
            ["1 touched", "1 touched", INSUFFICIENT_PRIVILEGE],
        ),
        (
            "INSERT INTO entries (id, account) VALUES (9, 7)",
            [FOREIGN_KEY_VIOLATION, FOREIGN_KEY_VIOLATION, INSUFFICIENT_PRIVILEGE],
        ),
        ("UPDATE entries SET account = 3 RETURNING id", ["1", "2, 3", ""]),
        ("DELETE FROM accounts WHERE id = 3", ["0 touched", FOREIGN_KEY_VIOLATION, "0 touched"]),
    ] {
        assert_eq!(fixture.answers(&mut client, sql), expected, "{sql}");
    }
    // Bob's entry goes with Alice's account, or follows it.
    let mut admin = fixture.cluster.admin();
    let entries = "SELECT id, owner, account FROM entries ORDER BY id";
    fixture.be(&mut client, Some("alice"));
    assert_eq!(
        answer(&mut client, "UPDATE accounts SET id = 8"),
        "1 touched",
        "Bob's entry goes with Alice's account, or follows it"
    );
    assert_eq!(
        answer(&mut admin, entries),
        "1 alice 8, 2 bob 8, 3 bob 2",
        "Bob's entry goes with Alice's account, or follows it"
    );
    assert_eq!(
        answer(&mut client, "DELETE FROM accounts"),
        "1 touched",
        "Bob's entry goes with Alice's account, or follows it"
    );
    assert_eq!(
        answer(&mut admin, entries),
        "3 bob 2",
        "Bob's entry goes with Alice's account, or follows it"
    );
}

#[test]
fn triggers_answer_for_whoever_fires_them() {
    let fixture = SITES.alone(Preload::Shared);
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
    assert_eq!(
        fixture.answers(&mut client, insert),
        ["alice", "bob", INSUFFICIENT_PRIVILEGE],
        "the trigger comes before the policy"
    );

    // Deferred triggers are COMMIT's, and so is the identity, which is still there.
    fixture.be(&mut client, Some("carol"));
    run(&mut client, "BEGIN");
    fixture.be_locally(&mut client, Some("alice"));
    run(&mut client, "INSERT INTO notes VALUES (1)");
    assert_eq!(
        answer(&mut client, log),
        "after 1 alice postgres",
        "deferred triggers are COMMIT's"
    );
    run(&mut client, "COMMIT");
    assert_eq!(answer(&mut client, log), "deferred 1 alice postgres", "after COMMIT");
    assert_eq!(answer(&mut client, "SELECT auth.user_id()"), "carol", "after COMMIT");

    // It need not be the one that wrote.
    run(&mut client, "BEGIN");
    fixture.be_locally(&mut client, Some("alice"));
    run(&mut client, "INSERT INTO notes VALUES (2); SAVEPOINT s");
    fixture.be_locally(&mut client, Some("bob"));
    run(&mut client, "INSERT INTO notes VALUES (3); SET CONSTRAINTS late IMMEDIATE");
    let expected = "after 2 alice postgres, after 3 bob postgres, deferred 2 bob postgres, \
                    deferred 3 bob postgres";
    assert_eq!(answer(&mut client, log), expected, "it need not be the one that wrote");
    run(&mut client, "SET CONSTRAINTS late DEFERRED; INSERT INTO notes VALUES (4)");
    run(&mut client, "RELEASE s; UPDATE notes SET n = 5 WHERE n = 4");
    fixture.be_locally(&mut client, None);
    run(&mut client, "COMMIT");
    let expected = "after 4 bob postgres, after 5 bob postgres, deferred 4 - postgres";
    assert_eq!(answer(&mut client, log), expected, "it need not be the one that wrote");

    // One whose identity was rolled back reads what was there before.
    run(&mut client, "BEGIN");
    fixture.be_locally(&mut client, Some("alice"));
    run(&mut client, "INSERT INTO notes VALUES (6); SAVEPOINT s");
    fixture.be_locally(&mut client, Some("bob"));
    run(&mut client, "INSERT INTO notes VALUES (7); ROLLBACK TO s; DELETE FROM notes; COMMIT");
    let expected = "after 6 alice postgres, after 1 alice postgres, after 2 alice postgres, \
                    after 6 alice postgres, deferred 6 alice postgres";
    assert_eq!(
        answer(&mut client, log),
        expected,
        "one whose identity was rolled back reads what was there before"
    );
}

#[test]
fn conditions_of_do_update_see_no_rows_of_others() {
    let fixture = SITES.alone(Preload::Shared);
    run(
        &mut fixture.cluster.admin(),
        "CREATE TABLE taken (id int PRIMARY KEY, owner text DEFAULT auth.user_id(), size int);
         INSERT INTO taken VALUES (1, 'alice', 10);
         ALTER TABLE taken ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON taken USING (owner = auth.user_id());
         GRANT ALL ON taken TO app;
         CREATE FUNCTION shown(owner text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
           BEGIN
             IF owner IS DISTINCT FROM auth.user_id() THEN RAISE SQLSTATE 'P1234'; END IF;
             RETURN true;
           END $$;",
    );
    let mut client = fixture.client();
    let sql = "INSERT INTO taken (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET size = 0
               WHERE shown(taken.owner)";
    let [alice, bob, nobody] = fixture.answers(&mut client, sql);
    assert_eq!(alice, "1 touched");
    assert_eq!(nobody, INSUFFICIENT_PRIVILEGE);
    let is_shown = shows_rows_to_do_update() && bob == "P1234";
    assert!(is_shown || bob == INSUFFICIENT_PRIVILEGE, "{bob}");
}

/// From 17 on, MERGE modifies views. A view in which INSTEAD OF triggers write stands before rows, so that these do not
/// present another token; under the token of the statement they write what the policy lets them.
#[test]
fn merge_writes_through_views_under_one_token() {
    if is_older_than(17, "MERGE into views") {
        return;
    }
    let fixture = SITES.alone(Preload::Shared);
    let mut admin = fixture.cluster.admin();
    run(
        &mut admin,
        "CREATE TABLE goods (id int PRIMARY KEY, owner text DEFAULT auth.user_id());
         INSERT INTO goods VALUES (1, 'alice'), (2, 'bob');
         ALTER TABLE goods ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON goods USING (owner = auth.user_id());
         CREATE VIEW updatable WITH (security_invoker) AS SELECT * FROM goods;
         CREATE VIEW shelf WITH (security_invoker) AS SELECT * FROM goods;
         CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
             IF current_setting('my.token', true) <> '' THEN
               PERFORM auth.jwt_session_init(current_setting('my.token'));
             END IF;
             INSERT INTO goods (id) VALUES (NEW.id) RETURNING owner INTO NEW.owner;
             RETURN NEW;
           END $$;
         CREATE TRIGGER put INSTEAD OF INSERT ON shelf FOR EACH ROW EXECUTE FUNCTION put();
         GRANT ALL ON goods, updatable, shelf TO app;",
    );
    let mut client = fixture.client();
    for (sql, expected) in [
        (
            "MERGE INTO updatable USING generate_series(1, 3) s (id) ON updatable.id = s.id
             WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND s.id = 3 THEN INSERT (id) VALUES (s.id)
             RETURNING merge_action(), updatable.id, owner",
            ["DELETE 1 alice, INSERT 3 alice", "DELETE 2 bob, INSERT 3 bob", INSUFFICIENT_PRIVILEGE],
        ),
        (
            "MERGE INTO shelf USING generate_series(1, 3) s (id) ON shelf.id = s.id
             WHEN MATCHED THEN DO NOTHING WHEN NOT MATCHED AND s.id = 3 THEN INSERT (id) VALUES (s.id)
             RETURNING merge_action(), shelf.id, shelf.owner",
            ["INSERT 3 alice", "INSERT 3 bob", INSUFFICIENT_PRIVILEGE],
        ),
        (
            "MERGE INTO goods USING generate_series(1, 2) s (id) ON goods.id = s.id
             WHEN MATCHED THEN UPDATE SET id = goods.id + 10
             RETURNING merge_action(), goods.id, auth.user_id()",
            ["UPDATE 11 alice", "UPDATE 12 bob", ""],
        ),
        // A row that changes hands is not returned.
        (
            "MERGE INTO goods USING generate_series(1, 1) s (id) ON goods.id = s.id
             WHEN MATCHED THEN UPDATE SET owner = 'bob' RETURNING goods.*",
            [INSUFFICIENT_PRIVILEGE, "", ""],
        ),
    ] {
        assert_eq!(fixture.answers(&mut client, sql), expected, "{sql}");
    }
    // The trigger presents Bob's token. INSERT allows it, because nothing of the view is read.
    let insert = "INSERT INTO shelf VALUES (4) RETURNING owner";
    let merge = "MERGE INTO shelf USING (VALUES (4)) s (id) ON shelf.id = s.id
                 WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id) RETURNING shelf.owner";
    run(&mut client, &format!("SET my.token = '{}'", fixture.token("bob")));
    for (sql, expected) in [(insert, "bob"), (merge, Code::Claim.sqlstate())] {
        fixture.be(&mut client, Some("alice"));
        run(&mut client, "BEGIN");
        assert_eq!(answer(&mut client, sql), expected, "{sql}");
        run(&mut client, "ROLLBACK");
    }
}
