//! Runs `examples/federation`: foreign tables whose rows lie behind policies on another server,
//! which verifies the token itself.

use harness::{
    Cluster, Code, INSUFFICIENT_PRIVILEGE, Preload, QUERY_CANCELED, RAISE_EXCEPTION, SUCCESS,
    Shared, lacks_library, now, run, sqlstate, text, token, wait_for,
};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::json;

/// Two servers that know a key together, and each another one.
struct Fixture {
    near: Cluster,
    far: Cluster,
    key: Key,
    near_key: Key,
    far_key: Key,
}

/// The servers that the tests share.
static SERVERS: Shared<Fixture> = Shared::new(|_| Fixture::new());

impl harness::Fixture for Fixture {
    fn cluster(&self) -> &Cluster {
        &self.near
    }
}

impl Fixture {
    fn new() -> Self {
        let [key, near_key, far_key] = [(); 3].map(|()| Key::generate(Algorithm::ES256));
        let start = |other: &Key| {
            let keys = [&key, other].map(Key::public_jwk);
            let providers = json!({"jwks": {"keys": keys}, "leeway": 0}).to_string();
            let settings = [
                ("pg_session_jwt.providers", providers.as_str()),
                ("log_statement", "all"),
                ("log_parameter_max_length_on_error", "-1"),
            ];
            Cluster::start_bare(Preload::Shared, &settings)
        };
        let (near, far) = (start(&near_key), start(&far_key));
        let fixture = Self { near, far, key, near_key, far_key };
        fixture.psql(&fixture.far, include_str!("../../examples/federation/far.sql"));
        fixture.psql(&fixture.near, include_str!("../../examples/federation/near.sql"));
        let mut client = fixture.client();
        for (name, tasks) in [("alice", 1), ("bob", 2)] {
            run(&mut client, "BEGIN");
            assert_eq!(present(&mut client, &fixture.token(name)), SUCCESS, "{name:?}, {tasks:?}");
            let project = "INSERT INTO new_projects VALUES ($1)";
            client.execute(project, &[&format!("{name}'s")]).unwrap();
            for task in 0..tasks {
                let todo = "INSERT INTO new_todos VALUES ($1, $2)";
                client.execute(todo, &[&format!("{name}'s"), &format!("{name} {task}")]).unwrap();
            }
            run(&mut client, "COMMIT");
        }
        fixture
    }

    /// Runs a file of the example as the superuser.
    fn psql(&self, cluster: &Cluster, sql: &str) {
        let port = self.far.port().to_string();
        cluster.psql(&[("far_host", "127.0.0.1"), ("far_port", &port)], sql);
    }

    fn client(&self) -> Client {
        self.near.as_role("app").client()
    }

    fn token(&self, sub: &str) -> String {
        token(&self.key, sub)
    }

    /// The processes of the far server that serve the near one.
    fn far_servers(&self) -> Vec<i32> {
        let query = "SELECT pid FROM pg_stat_activity WHERE usename = 'near' ORDER BY pid";
        let rows = self.far.admin().query(query, &[]).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

fn present(client: &mut Client, token: &str) -> String {
    sqlstate(client.execute("SELECT present($1)", &[&token]))
}

/// Who is there on this side, and what the other side lets through.
fn seen(client: &mut Client) -> (Option<String>, Vec<String>) {
    let rows = client.query("SELECT task FROM todos ORDER BY task COLLATE \"C\"", &[]).unwrap();
    let tasks = rows.iter().map(|row| row.get(0)).collect();
    (text(client, "SELECT auth.user_id()"), tasks)
}

fn nobody() -> (Option<String>, Vec<String>) {
    (None, Vec::new())
}

fn alice() -> (Option<String>, Vec<String>) {
    (Some("alice".to_owned()), vec!["alice 0".to_owned()])
}

fn bob() -> (Option<String>, Vec<String>) {
    (Some("bob".to_owned()), vec!["bob 0".to_owned(), "bob 1".to_owned()])
}

#[test]
fn the_far_identity_is_the_near_transactions() {
    if lacks_library(&["postgres_fdw"]) {
        return;
    }
    let fixture = SERVERS.alone(Preload::Shared);
    let (a, b) = (fixture.token("alice"), fixture.token("bob"));
    let mut client = fixture.client();
    assert_eq!(seen(&mut client), nobody(), "seen on both sides");
    wait_for("the connections of earlier clients to end", || fixture.far_servers().len() == 1);
    let servers = fixture.far_servers();

    // Two users in turn, on one connection.
    for round in 0..5 {
        for (token, who) in [(&a, alice()), (&b, bob())] {
            for end in ["COMMIT", "ROLLBACK"] {
                run(&mut client, "BEGIN");
                assert_eq!(seen(&mut client), nobody(), "{round}");
                assert_eq!(present(&mut client, token), SUCCESS, "{end:?}, {round:?}: after BEGIN");
                assert_eq!(seen(&mut client), who, "{round}");
                run(&mut client, end);
                assert_eq!(seen(&mut client), nobody(), "{round}, {end}");
            }
        }
    }
    // Without a transaction block, the statement is the transaction.
    assert_eq!(
        present(&mut client, &a),
        SUCCESS,
        "without a transaction block, the statement is the transaction"
    );
    assert_eq!(
        seen(&mut client),
        nobody(),
        "without a transaction block, the statement is the transaction"
    );

    // Savepoints, one of which is released.
    run(&mut client, "BEGIN; SAVEPOINT r");
    assert_eq!(present(&mut client, &a), SUCCESS, "savepoints, one of which is released");
    run(&mut client, "RELEASE r; SAVEPOINT s");
    assert_eq!(seen(&mut client), alice(), "savepoints, one of which is released");
    assert_eq!(present(&mut client, &b), SUCCESS, "savepoints, one of which is released");
    assert_eq!(seen(&mut client), bob(), "savepoints, one of which is released");
    run(&mut client, "ROLLBACK TO s");
    assert_eq!(seen(&mut client), alice(), "savepoints, one of which is released");
    assert_eq!(present(&mut client, ""), SUCCESS, "savepoints, one of which is released");
    assert_eq!(seen(&mut client), nobody(), "savepoints, one of which is released");
    run(&mut client, "ROLLBACK TO s");
    assert_eq!(seen(&mut client), alice(), "savepoints, one of which is released");
    run(&mut client, "COMMIT");
    assert_eq!(seen(&mut client), nobody(), "savepoints, one of which is released, after COMMIT");

    // What is presented on this side alone stays there, whatever it is presented for.
    run(&mut client, &format!("BEGIN; SET LOCAL pg_session_jwt.jwt = '{a}'"));
    assert_eq!(
        seen(&mut client),
        (alice().0, vec![]),
        "what is presented on this side alone stays there"
    );
    run(&mut client, "COMMIT");
    client.execute("SELECT auth.jwt_session_init($1)", &[&a]).unwrap();
    assert_eq!(seen(&mut client), (alice().0, vec![]), "after SELECT auth.jwt_session_init($1)");
    run(&mut client, "BEGIN");
    assert_eq!(present(&mut client, &b), SUCCESS, "after BEGIN");
    assert_eq!(seen(&mut client), bob(), "what is presented on this side alone stays there");
    run(&mut client, "COMMIT");
    assert_eq!(seen(&mut client), (alice().0, vec![]), "after COMMIT");

    // A statement that is cancelled has presented nothing on either side.
    run(&mut client, "BEGIN");
    assert_eq!(present(&mut client, &a), SUCCESS, "after BEGIN");
    run(&mut client, "SAVEPOINT s; SET LOCAL statement_timeout = '200ms'");
    let slow = "SELECT present($1), pg_sleep(60)";
    assert_eq!(
        sqlstate(client.query(slow, &[&b])),
        QUERY_CANCELED,
        "sqlstate(client.query(slow, [b])) after a"
    );
    run(&mut client, "ROLLBACK TO s");
    assert_eq!(seen(&mut client), alice(), "after ROLLBACK TO s");
    run(&mut client, "ROLLBACK");

    assert_eq!(fixture.far_servers(), servers, "one connection for all");
}

#[test]
fn what_either_side_refuses_leaves_nobody_on_both() {
    if lacks_library(&["postgres_fdw"]) {
        return;
    }
    let fixture = SERVERS.alone(Preload::Shared);
    let a = fixture.token("alice");
    let stranger = Key::generate(Algorithm::ES256);
    let expired = fixture.key.sign(&json!({"sub": "bob", "exp": now() - 1}));
    let mut client = fixture.client();
    for (refused, code) in [
        ("rubbish", Code::Malformed.sqlstate()),
        (&token(&stranger, "bob"), Code::Signature.sqlstate()),
        (&token(&fixture.near_key, "bob"), Code::Signature.sqlstate()),
        (&token(&fixture.far_key, "bob"), Code::Signature.sqlstate()),
        (&expired, Code::Expired.sqlstate()),
    ] {
        assert_eq!(present(&mut client, refused), code, "{refused:?}");
        assert_eq!(seen(&mut client), nobody(), "{refused:?}");
        run(&mut client, "BEGIN");
        assert_eq!(present(&mut client, &a), SUCCESS, "{refused:?}: after BEGIN");
        assert_eq!(present(&mut client, refused), code, "{refused:?}: after BEGIN");
        run(&mut client, "ROLLBACK");
        assert_eq!(seen(&mut client), nobody(), "{refused:?}: after ROLLBACK");

        // Also for who goes on in the transaction, and for the session's identity.
        client.execute("SELECT auth.jwt_session_init($1)", &[&a]).unwrap();
        run(&mut client, "BEGIN");
        assert_eq!(present(&mut client, &a), SUCCESS, "{refused:?}: after BEGIN");
        run(&mut client, "SAVEPOINT s");
        assert_eq!(present(&mut client, refused), code, "{refused:?}: after SAVEPOINT s");
        run(&mut client, "ROLLBACK TO s");
        assert_eq!(seen(&mut client), nobody(), "{code}");
        assert_eq!(present(&mut client, &a), SUCCESS, "{refused:?}: after ROLLBACK TO s");
        assert_eq!(seen(&mut client), alice(), "{code}");
        run(&mut client, "COMMIT");
        assert_eq!(seen(&mut client), nobody(), "{code}");
    }

    // On the far side each FETCH of postgres_fdw is a statement of its own, so that a token may
    // expire there in the middle of a near statement.
    run(&mut client, "BEGIN");
    assert_eq!(present(&mut client, &a), SUCCESS, "after BEGIN");
    let fill = "INSERT INTO new_todos SELECT 'alice''s', n::text FROM generate_series(1, 200) n";
    run(&mut client, fill);
    let soon = fixture.key.sign(&json!({"sub": "alice", "exp": now() + 3}));
    assert_eq!(present(&mut client, &soon), SUCCESS, "present(soon)");
    assert_eq!(
        client.query("SELECT * FROM todos", &[]).unwrap().len(),
        201,
        "client.query(SELECT * FROM todos, []).len after soon"
    );
    let slow = "SELECT CASE task WHEN 'alice 0' THEN pg_sleep(4) END FROM todos";
    assert_eq!(
        sqlstate(client.query(slow, &[])),
        Code::Expired.sqlstate(),
        "sqlstate(client.query(slow, [])) after soon"
    );
    run(&mut client, "ROLLBACK");
}

#[test]
fn the_far_side_decides_about_rows() {
    if lacks_library(&["postgres_fdw"]) {
        return;
    }
    let fixture = SERVERS.alone(Preload::Shared);
    let mut client = fixture.client();
    let write = "INSERT INTO new_todos VALUES ('alice''s', 'n')";
    assert_eq!(
        sqlstate(client.batch_execute(write)),
        INSUFFICIENT_PRIVILEGE,
        "sqlstate(client.batch_execute(write))"
    );

    run(&mut client, "BEGIN");
    assert_eq!(present(&mut client, &fixture.token("alice")), SUCCESS, "after BEGIN");
    // A column that is left out is sent as NULL, which nobody owns.
    for refused in [
        "INSERT INTO todos (project, task) VALUES ('alice''s', 'n')",
        "INSERT INTO todos VALUES ('bob', 'alice''s', 'n')",
        "UPDATE todos SET owner = 'bob'",
        "UPDATE todos SET owner = 'bob' WHERE random() >= 0",
    ] {
        run(&mut client, "SAVEPOINT s");
        let error = client.batch_execute(refused).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), INSUFFICIENT_PRIVILEGE, "{refused}");
        assert!(error.message().contains("row-level security policy"), "{error:?}");
        run(&mut client, "ROLLBACK TO s");
    }
    assert_eq!(client.execute(write, &[]).unwrap(), 1, "after ROLLBACK TO s");
    let owners = "SELECT string_agg(DISTINCT owner, ' ') FROM todos";
    assert_eq!(text(&mut client, owners).as_deref(), Some("alice"), "after ROLLBACK TO s");
    // Conditions that postgres_fdw does not ship are as good.
    for condition in ["owner = 'bob'", "owner <> auth.user_id()"] {
        for statement in ["UPDATE todos SET task = 'm' WHERE", "DELETE FROM todos WHERE"] {
            let statement = format!("{statement} {condition}");
            assert_eq!(client.execute(&statement, &[]).unwrap(), 0, "{statement}");
        }
    }
    assert_eq!(
        client.execute("UPDATE todos SET task = 'm'", &[]).unwrap(),
        2,
        "conditions that postgres_fdw does not ship are as good"
    );
    assert_eq!(
        client.execute("DELETE FROM todos WHERE owner = auth.user_id()", &[]).unwrap(),
        2,
        "after UPDATE todos SET task = 'm'"
    );
    run(&mut client, "ROLLBACK");

    // A join that is pushed down, though the tables are small.
    run(&mut client, "SET enable_hashjoin = off; SET enable_mergejoin = off");
    run(&mut client, "SET enable_nestloop = off");
    let join = "SELECT string_agg(p.name || ': ' || t.task, ', ' ORDER BY t.task)
                FROM todos t JOIN projects p ON p.name = t.project";
    let plan = client.query(&format!("EXPLAIN (VERBOSE, COSTS OFF) {join}"), &[]).unwrap();
    let pushed = |line: &str| line.contains("Remote SQL") && line.contains("INNER JOIN");
    assert!(plan.iter().any(|row| pushed(row.get(0))), "{plan:?}");
    assert_eq!(text(&mut client, join), None, "after SET enable_nestloop = off");
    for (name, seen) in
        [("alice", "alice's: alice 0"), ("bob", "bob's: bob 0, bob's: bob 1"), ("carol", "")]
    {
        run(&mut client, "BEGIN");
        assert_eq!(present(&mut client, &fixture.token(name)), SUCCESS, "{name:?}: after BEGIN");
        assert_eq!(text(&mut client, join).unwrap_or_default(), seen, "{name:?}: after BEGIN");
        run(&mut client, "COMMIT");
    }
    let everything = fixture.far.admin().query("SELECT FROM todos", &[]).unwrap();
    assert_eq!(everything.len(), 3, "a join that is pushed down, though the tables are small");
}

#[test]
fn tokens_leave_no_trace() {
    if lacks_library(&["postgres_fdw"]) {
        return;
    }
    let fixture = SERVERS.alone(Preload::Shared);
    let mut client = fixture.client();
    for options in ["ADD batch_size '100'", "DROP batch_size"] {
        run(&mut fixture.near.admin(), &format!("ALTER SERVER far OPTIONS ({options})"));
        run(&mut client, "BEGIN");
        assert_eq!(present(&mut client, &fixture.token("alice")), SUCCESS, "{options:?}");
        assert_eq!(seen(&mut client), alice(), "{options:?}: after BEGIN");
        // Nothing comes back, not even to who has inserted it.
        run(&mut client, "SAVEPOINT s");
        let returning = "INSERT INTO far_session VALUES ($1) RETURNING token";
        assert_eq!(
            sqlstate(client.query(returning, &[&fixture.token("bob")])),
            INSUFFICIENT_PRIVILEGE,
            "{options:?}: after SAVEPOINT s"
        );
        run(&mut client, "ROLLBACK TO s");
        assert_eq!(seen(&mut client), alice(), "{options:?}: after ROLLBACK TO s");
        let activity = "SELECT string_agg(query, ' ') FROM pg_stat_activity";
        for cluster in [&fixture.near, &fixture.far] {
            let activity = text(&mut cluster.admin(), activity).unwrap();
            assert!(!activity.contains("eyJ"), "{activity}");
        }
        run(&mut client, "ROLLBACK");
    }
    // Errors that are no refusals, so that only settings keep their parameters out of the log.
    run(&mut client, "BEGIN; SET LOCAL statement_timeout = '200ms'");
    let slow = "SELECT present($1), pg_sleep(60)";
    assert_eq!(
        sqlstate(client.query(slow, &[&fixture.token("alice")])),
        QUERY_CANCELED,
        "errors that are no refusals"
    );
    run(&mut client, "ROLLBACK");
    run(
        &mut fixture.far.admin(),
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''x''; END';
         CREATE TRIGGER then_fail INSTEAD OF INSERT ON gate.session
             FOR EACH ROW EXECUTE FUNCTION fail()",
    );
    run(&mut client, "BEGIN; SAVEPOINT s");
    assert_eq!(
        present(&mut client, &fixture.token("alice")),
        RAISE_EXCEPTION,
        "after BEGIN; SAVEPOINT s"
    );
    run(&mut client, "ROLLBACK TO s");
    assert_eq!(seen(&mut client), nobody(), "errors that are no refusals, after ROLLBACK TO s");
    run(&mut client, "ROLLBACK");
    run(&mut fixture.far.admin(), "DROP TRIGGER then_fail ON gate.session; DROP FUNCTION fail()");
    let forged = token(&Key::generate(Algorithm::ES256), "bob");
    assert_eq!(present(&mut client, &forged), Code::Signature.sqlstate(), "after ROLLBACK");
    assert_eq!(
        present(&mut client, &token(&fixture.near_key, "bob")),
        Code::Signature.sqlstate(),
        "after ROLLBACK"
    );

    for cluster in [&fixture.near, &fixture.far] {
        let log = cluster.log();
        assert!(!log.contains("eyJ"), "{log}");
    }
    let log = fixture.far.log();
    assert!(log.contains("INSERT INTO gate.session(token) VALUES ($1)"), "{log}");
}

/// A server judges a token by its own revocations, whichever server hands the token on.
#[test]
fn each_server_has_its_own_revocations() {
    let fixture = SERVERS.beside_others(Preload::Shared);
    let carol = fixture.token("carol");
    let (mut near, mut far) = (fixture.near.admin(), fixture.far.admin());
    let revoke = "SELECT auth.revoke(subject => 'carol')";
    let unrevoke = "SELECT auth.unrevoke(id) FROM auth.revocations WHERE subject = 'carol'";
    let rows = "SELECT count(*) FROM todos";
    let mut client = fixture.client();
    run(&mut client, "BEGIN");
    assert_eq!(present(&mut client, &carol), SUCCESS, "before");
    run(&mut client, rows);
    run(&mut far, revoke);
    let code = sqlstate(client.batch_execute(rows));
    assert_eq!(code, Code::Revoked.sqlstate(), "by the far server, in an open transaction");
    run(&mut client, "ROLLBACK; BEGIN");
    assert_eq!(present(&mut client, &carol), Code::Revoked.sqlstate(), "by the far server");
    run(&mut client, "ROLLBACK");
    run(&mut far, unrevoke);
    run(&mut near, revoke);
    run(&mut client, "BEGIN");
    assert_eq!(present(&mut client, &carol), Code::Revoked.sqlstate(), "by the near server");
    run(&mut client, "ROLLBACK");
    run(&mut near, unrevoke);
    run(&mut client, "BEGIN");
    assert_eq!(present(&mut client, &carol), SUCCESS, "taken back");
    run(&mut client, rows);
    run(&mut client, "COMMIT");
}
