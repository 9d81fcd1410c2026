//! Runs `examples/drizzle`, `node`, `python`, `java`, `go` and `rust`: what applications do, with their drivers,
//! through PgBouncer in transaction mode. `make clients` fetches what they need.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use harness::{
    Cluster, Code, INSUFFICIENT_PRIVILEGE, Preload, SUCCESS, note_skipped, now, present_locally,
    run, sqlstate, text, token, user,
};
use mint::{Algorithm, Key};
use serde_json::json;

const ALICE: &str = "a11ce000-0000-4000-8000-000000000000";
const BOB: &str = "b0b00000-0000-4000-8000-000000000000";

/// A cluster with the tables of Drizzle's migration.
struct Fixture {
    cluster: Cluster,
    key: Arc<Key>,
}

impl Fixture {
    /// With the tables that Drizzle makes.
    fn new() -> Self {
        let fixture = Self::without_tables();
        let owner = url("migrator", fixture.cluster.port());
        let mut migrate = program("drizzle", "node_modules/.bin/drizzle-kit");
        complete(migrate.arg("migrate").env("DATABASE_URL", owner));
        fixture
    }

    /// With the same tables from the committed migration, without Drizzle.
    fn with_tables() -> Self {
        let fixture = Self::without_tables();
        let mut owner = fixture.cluster.as_role("migrator").client();
        run(&mut owner, &read("examples/drizzle/drizzle/0000_tables.sql"));
        fixture
    }

    fn without_tables() -> Self {
        let key = Arc::new(Key::generate(Algorithm::ES256));
        let jwk = key.public_jwk().to_string();
        let settings = [
            ("pg_session_jwt.jwk", jwk.as_str()),
            ("pg_session_jwt.audit_log", "on"),
            ("log_statement", "all"),
        ];
        let cluster = Cluster::start_bare(Preload::Shared, &settings);
        run(&mut cluster.admin(), &read("examples/drizzle/setup.sql"));
        Self { cluster, key }
    }

    fn token(&self, sub: &str) -> String {
        token(&self.key, sub)
    }

    /// Runs an example, which checks what it sees, and looks at what it has left: in the tables, on
    /// the one connection that all share, and in the log.
    fn run(&self, example: &mut Command) {
        run(&mut self.cluster.admin(), "TRUNCATE todos");
        let logged = self.cluster.log().len();
        // JDBC's driver sends extra_float_digits.
        let settings =
            [("default_pool_size", "1"), ("ignore_startup_parameters", "extra_float_digits")];
        let pooler = self.cluster.pooler("transaction", &settings);
        let expired = self.key.sign(&json!({"sub": ALICE, "exp": now() - 600}));
        let forged = token(&Key::generate(Algorithm::ES256), ALICE);
        complete(
            example
                .env("DATABASE_URL", url("app", pooler.port()))
                .env("TOKEN_ALICE", self.token(ALICE))
                .env("TOKEN_BOB", self.token(BOB))
                .env("TOKEN_EXPIRED", expired)
                .env("TOKEN_FORGED", forged),
        );

        let todos = "SELECT user_id, task, done FROM todos ORDER BY task COLLATE \"C\"";
        let rows = self.cluster.admin().query(todos, &[]).unwrap();
        let rows: Vec<(&str, &str, bool)> =
            rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        assert_eq!(
            rows,
            [(BOB, "call Alice", true), (ALICE, "water the plants", false)],
            "the rows"
        );

        assert_eq!(user(&mut pooler.as_role("app").client()), None, "user(.as_role(app).client)");
        let servers = "SELECT count(*)::text FROM pg_stat_activity WHERE usename = 'app'";
        assert_eq!(
            text(&mut self.cluster.admin(), servers).as_deref(),
            Some("1"),
            "text(.cluster.admin, servers)"
        );

        let log = &self.cluster.log()[logged..];
        let lines = |part: &str| log.lines().filter(|line| line.contains(part)).count();
        for code in [Code::Signature.sqlstate(), Code::Expired.sqlstate()] {
            assert_eq!(lines(&format!("outcome=rejected code={code}")), 1, "{code}");
        }
        // As a parameter, and for the transaction.
        let bound = lines("auth.jwt_session_init($1, is_local => true)");
        assert_ne!(bound, 0, "as a parameter, and for the transaction");
        assert_eq!(bound, lines("jwt_session_init"), "as a parameter, and for the transaction");
    }
}

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the checkout")
}

fn url(role: &str, port: u16) -> String {
    format!("postgres://{role}@127.0.0.1:{port}/postgres")
}

fn read(path: &str) -> String {
    fs::read_to_string(checkout().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A file of an example.
fn example(path: &str) -> PathBuf {
    checkout().join("examples").join(path)
}

/// A program in an example's folder.
fn program(example: &str, name: &str) -> Command {
    let folder = self::example(example);
    let path = folder.join(name);
    assert!(path.exists(), "{} is not there; `make clients` fetches it", path.display());
    let mut command = Command::new(path);
    command.current_dir(folder);
    command
}

fn complete(command: &mut Command) {
    // What the caller has set for Postgres' clients does not change what is tested.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
        command.env_remove(name);
    }
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let (out, err) = (&output.stdout, &output.stderr);
    let said = format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    assert!(output.status.success(), "{:?} failed:\n{said}", command.get_program());
}

#[test]
fn drizzle() {
    let fixture = Fixture::new();
    complete(&mut program("drizzle", "node_modules/.bin/tsc"));
    fixture.run(program("drizzle", "node_modules/.bin/tsx").arg(example("drizzle/todos.ts")));
    let mut admin = fixture.cluster.admin();
    for (query, row) in [
        ("SELECT user_id || title FROM posts", format!("{ALICE}On plants")),
        ("SELECT user_id || name FROM profiles", format!("{ALICE}Alice")),
    ] {
        assert_eq!(text(&mut admin, query), Some(row), "{query:?}");
    }
}

#[test]
fn node() {
    let fixture = Fixture::with_tables();
    for file in ["node/pg.mjs", "node/postgres.mjs", "node/kysely.mjs", "node/prisma.mjs"] {
        assert!(
            checkout().join("examples/node/node_modules/.prisma").exists(),
            "run `make clients`"
        );
        let mut node = Command::new("node");
        fixture.run(node.arg(example(file)));
    }
}

/// A provider that answers an authorization request with a token, as after a new sign-in: with the scopes and
/// the class that are asked for. It ends with the test's process.
fn authorization_endpoint(key: Arc<Key>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let query = line.split([' ', '?']).nth(2).unwrap_or_default();
            let parameter = |name: &str| {
                let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                let (_, value) = pairs.find(|(found, _)| *found == name)?;
                Some(value.replace('+', " ").replace("%3A", ":"))
            };
            let mut claims = json!({"sub": ALICE, "exp": now() + 600, "scope": parameter("scope")});
            // Only where it is asked for, as OpenID Connect has it.
            if parameter("max_age").as_deref() == Some("300") {
                claims["auth_time"] = now().into();
                claims["acr"] = json!(parameter("acr_values"));
            }
            let body = json!({ "access_token": key.sign(&claims) }).to_string();
            let length = body.len();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
            write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        }
    });
    format!("http://127.0.0.1:{port}/authorize")
}

/// An action that the token does not suffice for: the client gets another one, and repeats it.
#[test]
fn step_up() {
    let fixture = Fixture::with_tables();
    let mut owner = fixture.cluster.as_role("migrator").client();
    run(&mut owner, &read("examples/node/step-up.sql"));
    let rows = format!(
        "INSERT INTO todos (user_id, task) VALUES ('{ALICE}', 'a'), ('{ALICE}', 'b'), ('{BOB}', 'c')"
    );
    run(&mut fixture.cluster.admin(), &rows);
    let pooler = fixture.cluster.pooler("transaction", &[("default_pool_size", "1")]);
    let stale = json!({"sub": ALICE, "exp": now() + 600, "auth_time": now() - 3600, "acr": "phr"});
    complete(
        Command::new("node")
            .arg(example("node/step-up.mjs"))
            .env("DATABASE_URL", url("app", pooler.port()))
            .env("TOKEN", fixture.key.sign(&stale))
            .env("AUTHORIZE_URL", authorization_endpoint(Arc::clone(&fixture.key))),
    );
    let left = "SELECT string_agg(task, ' ') FROM todos";
    assert_eq!(text(&mut fixture.cluster.admin(), left).as_deref(), Some("c"), "the rows");
    assert_eq!(user(&mut pooler.as_role("app").client()), None, "the connection of the pool");
}

#[test]
fn python() {
    let fixture = Fixture::with_tables();
    for file in ["python/todos.py", "python/with_sqlalchemy.py", "python/with_django.py"] {
        fixture.run(program("python", ".venv/bin/python").arg(example(file)));
    }
}

/// Where this machine has Go, and Debian's package of pgx.
#[test]
fn go() {
    let library = Path::new("/usr/share/gocode");
    let has_pgx = library.join("src/github.com/jackc/pgx/v4").exists();
    if Command::new("go").arg("version").output().is_err() || !has_pgx {
        note_skipped("golang-go or golang-github-jackc-pgx-v4-dev is not installed");
        return;
    }
    let built = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("go");
    let mut go = Command::new("go");
    go.arg("run").arg(example("go/todos.go"));
    go.env("GOPATH", library).env("GO111MODULE", "off").env("GOCACHE", built).env("GOFLAGS", "");
    Fixture::with_tables().run(&mut go);
}

/// Where this machine has a JDK, and Debian's package of the driver.
#[test]
fn java() {
    let driver = Path::new("/usr/share/java/postgresql.jar");
    if Command::new("javac").arg("-version").output().is_err() || !driver.exists() {
        note_skipped("javac or libpostgresql-jdbc-java is not installed");
        return;
    }
    let mut java = Command::new("java");
    java.arg("-cp").arg(driver).arg(example("java/Todos.java"));
    Fixture::with_tables().run(&mut java);
}

#[test]
fn rust() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--locked", "--quiet", "--manifest-path"]).arg(example("rust/Cargo.toml"));
    Fixture::with_tables().run(&mut cargo);
}

/// What is committed is what Drizzle makes of the schema, unchanged.
#[test]
fn the_migration_is_generated() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("drizzle");
    let _ = fs::remove_dir_all(&folder);
    complete(
        program("drizzle", "node_modules/.bin/drizzle-kit")
            .args(["generate", "--dialect=postgresql", "--schema=./schema.ts", "--name=tables"])
            .arg(format!("--out={}", folder.display())),
    );
    let generated = fs::read_to_string(folder.join("0000_tables.sql")).unwrap();
    let committed = read("examples/drizzle/drizzle/0000_tables.sql");
    assert!(generated == committed, "`npm run generate`, after taking drizzle/ away:\n{generated}");
}

/// Also for a session that is of one role only.
#[test]
fn policies_by_role() {
    let fixture = Fixture::new();
    let mut client = fixture.cluster.as_role("app").client();
    run(&mut client, "BEGIN; SET LOCAL ROLE authenticated");
    assert_eq!(
        present_locally(&mut client, &fixture.token(ALICE)),
        SUCCESS,
        "after BEGIN; SET LOCAL ROLE authenticated"
    );
    run(&mut client, "INSERT INTO todos (task) VALUES ('water the plants')");
    run(&mut client, "INSERT INTO posts (title) VALUES ('On plants'); COMMIT");

    for (role, token, todos, insertion) in [
        ("anonymous", fixture.token(ALICE), "0", INSUFFICIENT_PRIVILEGE),
        ("authenticated", fixture.token(ALICE), "1", SUCCESS),
        ("authenticated", fixture.token(BOB), "0", SUCCESS),
        ("authenticated", String::new(), "0", INSUFFICIENT_PRIVILEGE),
        ("app", String::new(), "0", INSUFFICIENT_PRIVILEGE),
    ] {
        run(&mut client, &format!("BEGIN; SET LOCAL ROLE {role}"));
        assert_eq!(present_locally(&mut client, &token), SUCCESS, "{role:?}, {todos:?}");
        let counts = "SELECT (SELECT count(*) FROM posts) || ' ' || (SELECT count(*) FROM todos)";
        assert_eq!(text(&mut client, counts), Some(format!("1 {todos}")), "{role}");
        let insert = "INSERT INTO posts (title) VALUES ('On animals')";
        assert_eq!(sqlstate(client.execute(insert, &[])), insertion, "{role}");
        run(&mut client, "ROLLBACK");
    }
}

/// What the documentation says of `authUid`: an index is of no use to it.
#[test]
fn comparisons_and_indexes() {
    let fixture = Fixture::new();
    let mut admin = fixture.cluster.admin();
    run(&mut admin, "CREATE INDEX ON todos (user_id)");
    let mut client = fixture.cluster.as_role("app").client();
    // Where an index can be used, it is.
    run(&mut client, "SET enable_seqscan = off");
    let mut uses_index = || {
        let plan = client.query("EXPLAIN SELECT * FROM todos", &[]).unwrap();
        plan.iter().any(|row| row.get::<_, &str>(0).contains("Index Cond"))
    };
    assert!(!uses_index(), "where an index can be used, it is, after SET enable_seqscan = off");
    let policy = "ALTER POLICY \"crud-authenticated-policy-select\" ON todos";
    run(&mut admin, &format!("{policy} USING (auth.user_id() = user_id)"));
    assert!(uses_index(), "where an index can be used, it is, after SET enable_seqscan = off");
}
