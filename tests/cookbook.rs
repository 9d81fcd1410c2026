//! The recipes of `docs/cookbook.md`, as they stand there, against clients that send hostile SQL.
//!
//! A recipe runs in a database of its own, as `author`, an ordinary role. Clients are `app`, which
//! owns nothing, with somebody's token, without one, or with one that has expired.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use harness::{Preload, Site, block_of, now, present, run, wait_for};
use postgres::{Client, NoTls, SimpleQueryMessage};
use serde_json::{Value, json};

const COOKBOOK: &str = include_str!("../docs/cookbook.md");

/// Statements by which a client might read `{c}` of `{t}`; each sees the same rows.
const READS: [&str; 10] = [
    "SELECT {c} FROM {t}",
    "SELECT {c} FROM {t} TABLESAMPLE BERNOULLI (100)",
    "SELECT (SELECT x.{c} FROM {t} x WHERE x.ctid = y.ctid AND x.tableoid = y.tableoid) FROM {t} y",
    "SELECT x.{c} FROM (VALUES (1)) v CROSS JOIN LATERAL (SELECT * FROM {t} OFFSET 0) x",
    "WITH x AS MATERIALIZED (SELECT * FROM {t}) SELECT {c} FROM x",
    "BEGIN; DECLARE x CURSOR FOR SELECT {c} FROM {t}; FETCH ALL FROM x; COMMIT",
    "SELECT {c} FROM {t}_through_view",
    "SELECT {c} FROM pg_temp.own_view",
    "SELECT {c} FROM {t} WHERE pg_temp.leaks({c})",
    "SELECT {c} FROM {t} WHERE {c} OPERATOR(pg_temp.<<<) {c}",
];

/// Statements that show a function what is in `{c}` of `{t}`, whether they are allowed or not.
const PEEKS: [&str; 6] = [
    "UPDATE {t} SET {c} = {c} WHERE pg_temp.leaks({c})",
    "UPDATE {t} SET {c} = {c} WHERE pg_temp.leaks({c}) RETURNING pg_temp.leaks({c})",
    "DELETE FROM {t} WHERE pg_temp.leaks({c}) RETURNING *",
    "SELECT FROM {t} WHERE pg_temp.leaks({c}) FOR UPDATE",
    "SELECT FROM {t} WHERE pg_temp.leaks({c}) FOR KEY SHARE",
    "MERGE INTO {t} USING (VALUES (1)) v ON pg_temp.leaks({c}) WHEN MATCHED THEN DO NOTHING",
];

/// Statements on `{t}` that are nobody's but an owner's or a superuser's.
const SEIZURES: [&str; 13] = [
    "SET row_security = off; SELECT FROM {t}",
    "SET row_security = off; SELECT FROM {t}_through_view",
    "TRUNCATE {t}",
    "TRUNCATE {t} CASCADE",
    "ALTER TABLE {t} DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE {t} OWNER TO app",
    "CREATE POLICY open ON {t} USING (true)",
    "CREATE TRIGGER look AFTER INSERT ON {t} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "DROP TABLE {t} CASCADE",
    "SET ROLE author",
    "SET SESSION AUTHORIZATION author",
    "SET pg_session_jwt.trust_request_claims = on",
    "CREATE FUNCTION pg_temp.sly(text) RETURNS boolean LANGUAGE sql LEAKPROOF AS 'SELECT true'",
];

/// What every client brings along. `n` makes short work of UUIDs.
const TOOLS: &str = "
    SET statement_timeout = '20s';
    CREATE FUNCTION pg_temp.n(number int) RETURNS uuid IMMUTABLE LANGUAGE sql
        AS $$ SELECT lpad(number::text, 32, '0')::uuid $$;
    CREATE FUNCTION pg_temp.leaks(value text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001
        AS $$ BEGIN RAISE NOTICE 'leaked %', value; RETURN true; END $$;
    CREATE FUNCTION pg_temp.leaks(value text, text) RETURNS boolean LANGUAGE plpgsql
        COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'leaked %', value; RETURN true; END $$;
    CREATE OPERATOR pg_temp.<<< (FUNCTION = pg_temp.leaks, LEFTARG = text, RIGHTARG = text);";

/// A recipe that has been followed.
struct Recipe {
    site: Arc<Site>,
    database: String,
}

/// A client of the recipe's database.
struct Actor {
    name: String,
    client: Client,
    leaked: Arc<Mutex<Vec<String>>>,
}

/// The cluster that all tests share that run at the same time.
fn site() -> Arc<Site> {
    static SHARED: Mutex<Weak<Site>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(site) = shared.upgrade() {
        return site;
    }
    let site = Arc::new(Site::start(Preload::Shared, &[]));
    run(&mut site.cluster.admin(), "CREATE ROLE author LOGIN; CREATE ROLE visitor LOGIN;");
    *shared = Arc::downgrade(&site);
    site
}

impl Recipe {
    /// Follows the recipe of that heading.
    fn follow(heading: &str) -> Self {
        let site = site();
        let database = heading.to_lowercase().replace(' ', "_");
        run(&mut site.cluster.admin(), &format!("CREATE DATABASE {database} OWNER author"));
        let mut admin = site.cluster.as_role("postgres").database(&database).client();
        run(&mut admin, "CREATE EXTENSION pg_session_jwt");
        let recipe = Self { site, database };
        run(&mut recipe.author().client, block_of(COOKBOOK, heading));
        recipe
    }

    /// A client of that role, without a token.
    fn connect(&self, role: &str, name: &str) -> Actor {
        let leaked = Arc::new(Mutex::new(Vec::new()));
        let heard = leaked.clone();
        let connection = self.site.cluster.as_role(role).database(&self.database);
        let mut configuration = connection.configuration();
        configuration.notice_callback(move |notice| {
            if let Some(value) = notice.message().strip_prefix("leaked ") {
                heard.lock().unwrap().push(value.to_owned());
            }
        });
        let mut client = configuration.connect(NoTls).unwrap();
        run(&mut client, TOOLS);
        Actor { name: name.to_owned(), client, leaked }
    }

    /// The owner of the tables, to whom no policy applies.
    fn author(&self) -> Actor {
        self.connect("author", "the author")
    }

    /// A client with a token that says this, for ten minutes.
    fn client(&self, claims: Value) -> Actor {
        self.client_for(600, claims)
    }

    /// The same for so many seconds.
    fn client_for(&self, seconds: i64, mut claims: Value) -> Actor {
        let mut actor = self.connect("app", &claims.to_string());
        claims["exp"] = json!(now() + seconds);
        assert_eq!(present(&mut actor.client, &self.site.key.sign(&claims)), "00000");
        actor
    }

    /// A client with this user's token.
    fn user(&self, sub: &str) -> Actor {
        self.client(json!({ "sub": sub }))
    }

    /// A client of that role without a token, which says that it is alice and everything else.
    fn nobody(&self, role: &str) -> Actor {
        let mut actor = self.connect(role, "nobody");
        let claims = json!({"sub": "alice", "roles": ["admin"], "app_metadata": {"role": "admin"},
                            "tenant": "acme", "org_id": "acme"});
        run(&mut actor.client, &format!("SET request.jwt.claims = '{claims}'"));
        actor
    }

    /// Tries by all means to have `actor` read other rows of a table than those with these values
    /// in a column of text, and to take the table over.
    fn besiege(&self, actor: &mut Actor, table: &str, column: &str, seen: &[&str]) {
        let view = format!("{table}_through_view");
        let prepared = format!(
            "CREATE OR REPLACE VIEW {view} WITH (security_invoker) AS SELECT * FROM {table};
             GRANT SELECT ON {view} TO PUBLIC; ANALYZE {table}"
        );
        run(&mut self.author().client, &prepared);
        let own = format!("CREATE OR REPLACE TEMP VIEW own_view AS SELECT * FROM {table}");
        run(&mut actor.client, &format!("DROP VIEW IF EXISTS pg_temp.own_view; {own}"));
        let seen = sorted(seen.iter().map(|value| (*value).to_owned()).collect());
        let fill = |template: &str| template.replace("{t}", table).replace("{c}", column);

        for statement in READS.map(fill) {
            let rows = actor.rows(&statement).unwrap_or_else(|code| panic!("{statement}: {code}"));
            assert_eq!(sorted(rows), seen, "{}: {statement}", actor.name);
            let leaked = actor.take_leaked();
            // Where the function is called, it must have been called: else it proves nothing.
            let expected = if statement.contains("pg_temp.leaks") || statement.contains("<<<") {
                &seen[..]
            } else {
                &[]
            };
            assert_eq!(leaked, expected, "{}: {statement}", actor.name);
        }
        for statement in PEEKS.map(fill) {
            actor.answer(&format!("BEGIN; {statement}; ROLLBACK"));
            let leaked = actor.take_leaked();
            let stolen: Vec<_> = leaked.iter().filter(|value| !seen.contains(value)).collect();
            assert!(stolen.is_empty(), "{}: {statement}: {stolen:?}", actor.name);
        }
        for statement in SEIZURES.map(fill) {
            assert_eq!(actor.answer(&statement), "42501", "{}: {statement}", actor.name);
        }
        let copied = actor.copy(&format!("COPY (SELECT {column} FROM {table}) TO STDOUT"));
        assert_eq!(sorted(copied), seen, "{}: COPY (SELECT)", actor.name);
        if actor.answer(&format!("SELECT relkind FROM pg_class WHERE relname = '{table}'")) == "r" {
            let copied = actor.copy(&format!("COPY {table} ({column}) TO STDOUT"));
            assert_eq!(sorted(copied), seen, "{}: COPY", actor.name);
        }
        let copying = actor.answer(&format!("COPY {table} FROM STDIN"));
        assert!(["0A000", "42501"].contains(&copying.as_str()), "{}: {copying}", actor.name);
        let statistics = format!("SELECT count(*) FROM pg_stats WHERE tablename = '{table}'");
        actor.expect(&[(&statistics, "0")]);
    }
}

impl Actor {
    /// The rows of the statements, in their order, the columns joined; or the SQLSTATE.
    fn rows(&mut self, sql: &str) -> Result<Vec<String>, String> {
        let (rows, _) = self.outcome(sql)?;
        Ok(rows)
    }

    /// The same in one text, sorted; without rows, how many the last statement concerned.
    fn answer(&mut self, sql: &str) -> String {
        match self.outcome(sql) {
            Ok((rows, count)) if rows.is_empty() => format!("#{count}"),
            Ok((rows, _)) => sorted(rows).join("; "),
            Err(code) => code,
        }
    }

    /// The rows and that number, or the SQLSTATE. An error leaves no transaction open.
    fn outcome(&mut self, sql: &str) -> Result<(Vec<String>, u64), String> {
        let messages = match self.client.simple_query(sql) {
            Ok(messages) => messages,
            Err(error) => {
                let code = error.code().unwrap_or_else(|| panic!("{sql}: {error:?}")).code();
                self.client.simple_query("ROLLBACK").unwrap();
                return Err(code.to_owned());
            }
        };
        let (mut rows, mut last) = (Vec::new(), 0);
        for message in messages {
            match message {
                SimpleQueryMessage::Row(row) => {
                    let columns = (0..row.len()).map(|column| row.get(column).unwrap_or("-"));
                    rows.push(columns.collect::<Vec<_>>().join("|"));
                }
                SimpleQueryMessage::CommandComplete(count) => last = count,
                _ => {}
            }
        }
        Ok((rows, last))
    }

    /// Runs each statement, and compares what it comes to.
    fn expect(&mut self, cases: &[(&str, &str)]) {
        for (sql, expected) in cases {
            assert_eq!(self.answer(sql), *expected, "{}: {sql}", self.name);
        }
    }

    /// Waits until the token has expired; then each statement is refused because of that.
    fn expect_expired(&mut self, statements: &[&str]) {
        wait_for("the token to expire", || self.answer("SELECT auth.user_id()") == "28J04");
        for sql in statements {
            assert_eq!(self.answer(sql), "28J04", "{}: {sql}", self.name);
        }
    }

    /// These indexes serve the policies that apply to a read of the table.
    fn expect_indexes(&mut self, table: &str, indexes: &[&str]) {
        let plan = format!("SET enable_seqscan = off; EXPLAIN (COSTS OFF) SELECT * FROM {table}");
        let plan = self.rows(&plan).unwrap().join("\n");
        for index in indexes {
            let scan = plan.split_once(index).and_then(|(_, rest)| rest.split_once('\n'));
            let condition = scan.map_or("", |(_, rest)| rest.trim_start());
            assert!(condition.starts_with("Index Cond:"), "{index}: {plan}");
        }
        run(&mut self.client, "RESET enable_seqscan");
    }

    /// The lines that `COPY … TO STDOUT` sends.
    fn copy(&mut self, sql: &str) -> Vec<String> {
        let mut text = String::new();
        let mut reader = self.client.copy_out(sql).unwrap();
        std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// The values that functions have been shown since the last time, each once.
    fn take_leaked(&mut self) -> Vec<String> {
        let mut leaked = sorted(std::mem::take(&mut *self.leaked.lock().unwrap()));
        leaked.dedup();
        leaked
    }
}

fn sorted(mut values: Vec<String>) -> Vec<String> {
    values.sort();
    values
}

#[test]
fn every_recipe_is_tested() {
    let tests = include_str!("cookbook.rs");
    let headings: Vec<&str> =
        COOKBOOK.split("\n## ").skip(1).filter_map(|section| section.lines().next()).collect();
    assert!(!headings.is_empty());
    for heading in headings {
        assert!(tests.contains(&format!("Recipe::follow(\"{heading}\")")), "{heading}");
    }
}

#[test]
fn own_rows() {
    let recipe = Recipe::follow("Own rows");
    let mut late = recipe.client_for(3, json!({"sub": "alice"}));
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| recipe.user(name));
    alice.expect(&[
        ("INSERT INTO notes (id, body) VALUES (pg_temp.n(1), 'of alice')", "#1"),
        ("INSERT INTO notes (body) VALUES ('more of alice') RETURNING owner", "alice"),
    ]);
    bob.expect(&[
        ("INSERT INTO notes (id, body) VALUES (pg_temp.n(2), 'of bob')", "#1"),
        ("INSERT INTO notes (owner, body) VALUES ('alice', 'x')", "42501"),
        ("INSERT INTO notes (owner, body) VALUES (NULL, 'x')", "42501"),
        ("INSERT INTO notes (body) VALUES ('x'), (NULL)", "23502"),
        ("UPDATE notes SET owner = 'alice'", "42501"),
        ("UPDATE notes SET owner = 'alice' WHERE id = pg_temp.n(2) RETURNING *", "42501"),
        ("UPDATE notes SET body = 'x' WHERE id = pg_temp.n(1) RETURNING body", "#0"),
        ("UPDATE notes SET owner = 'bob' WHERE owner = 'alice'", "#0"),
        ("DELETE FROM notes WHERE owner = 'alice' RETURNING *", "#0"),
        ("SELECT body FROM notes WHERE id = pg_temp.n(1) FOR UPDATE", "#0"),
        (
            "INSERT INTO notes (id, body) VALUES (pg_temp.n(1), 'x')
             ON CONFLICT (id) DO UPDATE SET owner = 'bob'",
            "42501",
        ),
        // What shows to those who know the key.
        ("INSERT INTO notes (id, body) VALUES (pg_temp.n(1), 'x')", "23505"),
        (
            "INSERT INTO notes AS n (id, body) VALUES (pg_temp.n(1), 'x')
             ON CONFLICT (id) DO UPDATE SET body = 'x' WHERE pg_temp.leaks(n.body)",
            "42501",
        ),
        (
            "MERGE INTO notes USING (VALUES (1)) v ON id = pg_temp.n(1)
             WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (owner, body)
             VALUES ('alice', 'x')",
            "42501",
        ),
        ("WITH x AS (DELETE FROM notes WHERE owner <> 'bob' RETURNING *) SELECT FROM x", "#0"),
        ("UPDATE notes SET body = 'of bob' RETURNING owner", "bob"),
    ]);
    assert!(bob.take_leaked().is_empty());
    let mut nobody = recipe.nobody("app");
    nobody.expect(&[
        ("INSERT INTO notes (body) VALUES ('x')", "42501"),
        ("INSERT INTO notes (owner, body) VALUES ('alice', 'x')", "42501"),
        ("UPDATE notes SET owner = NULL", "#0"),
        ("DELETE FROM notes", "#0"),
    ]);
    recipe.besiege(&mut alice, "notes", "body", &["more of alice", "of alice"]);
    recipe.besiege(&mut bob, "notes", "body", &["of bob"]);
    recipe.besiege(&mut nobody, "notes", "body", &[]);
    recipe.besiege(&mut recipe.client(json!({"email": "alice"})), "notes", "body", &[]);
    alice.expect_indexes("notes", &["notes_owner_idx"]);
    late.expect_expired(&[
        "SELECT * FROM notes",
        "INSERT INTO notes (body) VALUES ('x')",
        "INSERT INTO notes (owner, body) VALUES ('alice', 'x')",
        "UPDATE notes SET body = 'x'",
        "DELETE FROM notes",
        "COPY notes TO STDOUT",
    ]);
    let all = "of alice; more of alice; of bob".split("; ").map(str::to_owned).collect();
    recipe.author().expect(&[("SELECT body FROM notes", &sorted(all).join("; "))]);
}

#[test]
fn shared_rows() {
    let recipe = Recipe::follow("Shared rows");
    let mut late = recipe.client_for(3, json!({"sub": "carol"}));
    let [mut alice, mut bob, mut carol, mut dave] =
        ["alice", "bob", "carol", "dave"].map(|name| recipe.user(name));
    alice.expect(&[
        (
            "INSERT INTO documents (id, body) VALUES (pg_temp.n(1), 'shared'),
             (pg_temp.n(2), 'private')",
            "#2",
        ),
        (
            "INSERT INTO shares (document_id, user_id, can_write)
             VALUES (pg_temp.n(1), 'bob', false), (pg_temp.n(1), 'carol', true)",
            "#2",
        ),
    ]);
    // Bob may read, carol may write, dave knows the ids.
    let hostile = [
        ("INSERT INTO documents (owner, body) VALUES ('alice', 'x')", "42501"),
        ("UPDATE documents SET owner = auth.user_id() WHERE id = pg_temp.n(1)", "42501"),
        ("UPDATE documents SET id = pg_temp.n(3)", "42501"),
        ("DELETE FROM documents RETURNING body", "#0"),
        (
            "INSERT INTO documents (id, body) VALUES (pg_temp.n(2), 'x')
             ON CONFLICT (id) DO UPDATE SET body = 'x'",
            "42501",
        ),
        ("INSERT INTO shares (document_id, user_id) VALUES (pg_temp.n(2), 'dave')", "23503"),
        // What others share shows by no other error than what nobody shares.
        ("INSERT INTO shares (document_id, user_id) VALUES (pg_temp.n(1), 'carol')", "23503"),
        ("INSERT INTO shares (document_id, user_id) VALUES (pg_temp.n(9), 'carol')", "23503"),
        (
            "INSERT INTO shares (document_id, owner, user_id)
             VALUES (pg_temp.n(1), 'alice', 'dave')",
            "42501",
        ),
        (
            "INSERT INTO shares (document_id, owner, user_id, can_write)
             VALUES (pg_temp.n(1), 'alice', auth.user_id(), true)
             ON CONFLICT (user_id, document_id, owner) DO UPDATE SET can_write = true",
            "42501",
        ),
        ("UPDATE shares SET can_write = true", "#0"),
        ("UPDATE shares SET document_id = pg_temp.n(2)", "42501"),
        ("UPDATE shares SET owner = auth.user_id()", "42501"),
        ("DELETE FROM shares", "#0"),
    ];
    for actor in [&mut bob, &mut carol, &mut dave] {
        actor.expect(&hostile);
    }
    bob.expect(&[
        ("UPDATE documents SET body = 'x' RETURNING body", "#0"),
        ("SELECT body FROM documents FOR UPDATE", "#0"),
        ("SELECT user_id FROM shares", "bob"),
    ]);
    carol.expect(&[
        ("UPDATE documents SET body = 'shared' RETURNING owner, body", "alice|shared"),
        ("SELECT body FROM documents FOR UPDATE", "shared"),
        ("INSERT INTO documents (body) VALUES ('of carol') RETURNING owner", "carol"),
    ]);
    let mut nobody = recipe.nobody("app");
    nobody.expect(&[
        ("INSERT INTO documents (body) VALUES ('x')", "42501"),
        ("UPDATE documents SET body = 'x'", "#0"),
        ("INSERT INTO shares (document_id, user_id) VALUES (pg_temp.n(1), 'dave')", "42501"),
        ("DELETE FROM shares", "#0"),
    ]);
    recipe.besiege(&mut alice, "documents", "body", &["private", "shared"]);
    recipe.besiege(&mut bob, "documents", "body", &["shared"]);
    recipe.besiege(&mut carol, "documents", "body", &["of carol", "shared"]);
    recipe.besiege(&mut dave, "documents", "body", &[]);
    recipe.besiege(&mut nobody, "documents", "body", &[]);
    recipe.besiege(&mut alice, "shares", "user_id", &["bob", "carol"]);
    recipe.besiege(&mut bob, "shares", "user_id", &["bob"]);
    recipe.besiege(&mut dave, "shares", "user_id", &[]);
    recipe.besiege(&mut nobody, "shares", "user_id", &[]);
    alice.expect(&[
        ("UPDATE shares SET can_write = false WHERE user_id = 'carol'", "#1"),
        ("DELETE FROM shares WHERE user_id = 'bob'", "#1"),
    ]);
    carol.expect(&[("UPDATE documents SET body = 'x' WHERE owner = 'alice'", "#0")]);
    bob.expect(&[("SELECT body FROM documents", "#0")]);
    alice.expect_indexes("documents", &["documents_owner_idx"]);
    late.expect_expired(&[
        "SELECT * FROM documents",
        "UPDATE documents SET body = 'x'",
        "SELECT * FROM shares",
    ]);
    alice.expect(&[("DELETE FROM documents", "#2")]);
    recipe.author().expect(&[
        ("SELECT owner, body FROM documents", "carol|of carol"),
        ("SELECT count(*) FROM shares", "0"),
    ]);
}

#[test]
fn teams() {
    let recipe = Recipe::follow("Teams");
    let mut late = recipe.client_for(3, json!({"sub": "alice"}));
    run(
        &mut recipe.author().client,
        "INSERT INTO teams VALUES (pg_temp.n(1), 'red'), (pg_temp.n(2), 'blue');
         INSERT INTO members VALUES (pg_temp.n(1), 'alice', true), (pg_temp.n(1), 'bob', false),
             (pg_temp.n(2), 'bob', false), (pg_temp.n(2), 'carol', true);
         INSERT INTO projects VALUES (pg_temp.n(1), pg_temp.n(1), 'of red'),
             (pg_temp.n(2), pg_temp.n(2), 'of blue')",
    );
    let [mut alice, mut bob, mut carol, mut dave] =
        ["alice", "bob", "carol", "dave"].map(|name| recipe.user(name));
    let hostile = [
        ("INSERT INTO members VALUES (pg_temp.n(1), auth.user_id(), true)", "42501"),
        ("INSERT INTO members VALUES (pg_temp.n(1), 'eve', false)", "42501"),
        (
            "INSERT INTO members VALUES (pg_temp.n(1), auth.user_id(), true)
             ON CONFLICT (user_id, team_id) DO UPDATE SET is_admin = true",
            "42501",
        ),
        ("UPDATE members SET is_admin = true WHERE team_id = pg_temp.n(1) RETURNING *", "#0"),
        ("UPDATE members SET team_id = pg_temp.n(1)", "42501"),
        ("UPDATE members SET user_id = auth.user_id()", "42501"),
        ("DELETE FROM members WHERE team_id = pg_temp.n(1)", "#0"),
        ("INSERT INTO teams (name) VALUES ('mine')", "42501"),
        ("UPDATE teams SET name = 'mine'", "42501"),
        ("DELETE FROM teams", "42501"),
        ("UPDATE projects SET team_id = pg_temp.n(1)", "42501"),
        // A team that there is and one that there is not answer alike.
        ("INSERT INTO projects (team_id, name) VALUES (pg_temp.n(9), 'x')", "42501"),
    ];
    for actor in [&mut bob, &mut carol, &mut dave] {
        actor.expect(&hostile);
    }
    carol.expect(&[
        ("INSERT INTO projects (team_id, name) VALUES (pg_temp.n(1), 'x')", "42501"),
        ("UPDATE projects SET name = 'x' WHERE id = pg_temp.n(1)", "#0"),
        ("DELETE FROM projects WHERE id = pg_temp.n(1)", "#0"),
        (
            "INSERT INTO projects VALUES (pg_temp.n(1), pg_temp.n(2), 'x')
             ON CONFLICT (id) DO UPDATE SET name = 'x'",
            "42501",
        ),
        ("SELECT * FROM my_teams(false) EXCEPT VALUES (pg_temp.n(2))", "#0"),
        // A schema of the client's does not come before the function's.
        (
            "CREATE TEMP TABLE members AS SELECT pg_temp.n(1) AS team_id, 'carol' AS user_id,
             true AS is_admin; SET search_path = pg_temp, public;
             SELECT count(*) FROM my_teams(true)",
            "1",
        ),
        ("DROP TABLE pg_temp.members; RESET search_path", "#0"),
    ]);
    bob.expect(&[
        ("UPDATE projects SET name = name || '!' RETURNING name", "of blue!; of red!"),
        ("UPDATE projects SET name = rtrim(name, '!')", "#2"),
        ("SELECT name FROM projects FOR UPDATE", "of blue; of red"),
        ("SELECT count(*) FROM members", "4"),
    ]);
    let mut nobody = recipe.nobody("app");
    nobody.expect(&[
        ("INSERT INTO projects (team_id, name) VALUES (pg_temp.n(1), 'x')", "42501"),
        ("INSERT INTO members VALUES (pg_temp.n(1), 'alice', true)", "42501"),
        ("DELETE FROM projects", "#0"),
        ("SELECT * FROM my_teams(false)", "#0"),
    ]);
    let mut visitor = recipe.nobody("visitor");
    visitor.expect(&[("SELECT my_teams(false)", "42501"), ("SELECT FROM projects", "42501")]);
    recipe.besiege(&mut alice, "projects", "name", &["of red"]);
    recipe.besiege(&mut bob, "projects", "name", &["of blue", "of red"]);
    recipe.besiege(&mut carol, "projects", "name", &["of blue"]);
    recipe.besiege(&mut dave, "projects", "name", &[]);
    recipe.besiege(&mut nobody, "projects", "name", &[]);
    recipe.besiege(&mut carol, "members", "user_id", &["bob", "carol"]);
    recipe.besiege(&mut dave, "members", "user_id", &[]);
    recipe.besiege(&mut carol, "teams", "name", &["blue"]);
    recipe.besiege(&mut nobody, "teams", "name", &[]);
    alice.expect(&[
        ("UPDATE members SET is_admin = true WHERE user_id = 'bob'", "#1"),
        ("INSERT INTO members VALUES (pg_temp.n(1), 'dave') RETURNING user_id", "dave"),
        ("INSERT INTO members VALUES (pg_temp.n(2), 'dave')", "42501"),
        ("DELETE FROM members WHERE user_id = 'bob'", "#1"),
    ]);
    // At once, for a session that is under way.
    bob.expect(&[("SELECT name FROM projects", "of blue")]);
    bob.expect_indexes("projects", &["projects_team_id_idx"]);
    bob.expect_indexes("members", &["members_team_id_idx"]);
    late.expect_expired(&[
        "SELECT * FROM projects",
        "SELECT * FROM my_teams(true)",
        "INSERT INTO members VALUES (pg_temp.n(1), 'eve')",
    ]);
    // What is said about policies that look into their own table.
    recipe.author().expect(&[(
        "CREATE POLICY endless ON members TO app USING (team_id IN (SELECT team_id FROM members))",
        "#0",
    )]);
    alice.expect(&[("SELECT FROM members", "42P17")]);
}

#[test]
fn organisations() {
    let (one, two) =
        ("00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002");
    let recipe = Recipe::follow("Organisations");
    let mut late =
        recipe.client_for(3, json!({"o": {"id": one, "role": "admin"}, "org_id": "alice"}));
    let member = |sub: &str, id: &str, role: Value| {
        recipe.client(json!({"sub": sub, "o": {"id": id, "role": role}, "org_id": sub}))
    };
    let mut alice = member("alice", one, json!("admin"));
    let mut ann = member("ann", one, json!(["viewer", "admin"]));
    let mut bob = member("bob", one, json!("viewer"));
    let mut carol = member("carol", two, json!("admin"));
    alice.expect(&[
        ("INSERT INTO invoices (id, memo) VALUES (pg_temp.n(1), 'of one')", "#1"),
        ("INSERT INTO contacts (email) VALUES ('a@one')", "#1"),
    ]);
    ann.expect(&[("UPDATE invoices SET memo = 'of one' RETURNING memo", "of one")]);
    carol.expect(&[
        ("INSERT INTO invoices (memo) VALUES ('of two')", "#1"),
        ("INSERT INTO invoices VALUES (DEFAULT, pg_temp.n(1), 'x')", "42501"),
        ("UPDATE invoices SET organization_id = pg_temp.n(1)", "42501"),
        ("UPDATE invoices SET memo = 'x' WHERE id = pg_temp.n(1)", "#0"),
        (
            "INSERT INTO invoices (id, memo) VALUES (pg_temp.n(1), 'x')
             ON CONFLICT (id) DO UPDATE SET organization_id = pg_temp.n(2)",
            "42501",
        ),
        ("DELETE FROM invoices WHERE id = pg_temp.n(1)", "#0"),
        ("INSERT INTO contacts (org_id, email) VALUES ('alice', 'x')", "42501"),
        ("INSERT INTO contacts (email) VALUES ('c@two') RETURNING org_id", "carol"),
        ("UPDATE contacts SET org_id = 'alice'", "42501"),
    ]);
    let mut others: Vec<Actor> = ["administrator", "Admin", "admin ", "", "[\"admin\"]"]
        .into_iter()
        .map(|role| member("bob", one, json!(role)))
        .collect();
    others.extend(
        [json!(null), json!(1), json!([["admin"]]), json!(["Admin"])]
            .map(|role| member("bob", one, role)),
    );
    others.push(recipe.client(json!({"o": {"id": one}, "rol": "admin", "role": "admin"})));
    for actor in others.iter_mut().chain([&mut bob]) {
        actor.expect(&[
            ("SELECT memo FROM invoices", "of one"),
            ("INSERT INTO invoices (memo) VALUES ('x')", "42501"),
            ("UPDATE invoices SET memo = 'x' RETURNING memo", "#0"),
            ("SELECT memo FROM invoices FOR UPDATE", "#0"),
            ("DELETE FROM invoices", "#0"),
        ]);
    }
    let mut outsiders = [
        recipe.nobody("app"),
        recipe.user("alice"),
        recipe.client(json!({"o": "admin", "role": "admin", "organization_id": one})),
        recipe.client(json!({"o": {"id": [one], "role": "admin"}})),
        recipe.client(json!({"o": {"id": "org_1", "role": "admin"}, "org_id": null})),
    ];
    for actor in &mut outsiders {
        actor.expect(&[
            ("INSERT INTO invoices (memo) VALUES ('x')", "42501"),
            ("INSERT INTO contacts (email) VALUES ('x')", "42501"),
        ]);
        recipe.besiege(actor, "invoices", "memo", &[]);
        recipe.besiege(actor, "contacts", "email", &[]);
    }
    for actor in [&mut alice, &mut bob] {
        recipe.besiege(actor, "invoices", "memo", &["of one"]);
    }
    recipe.besiege(&mut carol, "invoices", "memo", &["of two"]);
    recipe.besiege(&mut carol, "contacts", "email", &["c@two"]);
    alice.expect_indexes("invoices", &["invoices_organization_id_idx"]);
    alice.expect_indexes("contacts", &["contacts_org_id_idx"]);
    late.expect_expired(&[
        "SELECT * FROM invoices",
        "INSERT INTO invoices (memo) VALUES ('x')",
        "SELECT * FROM contacts",
        "DELETE FROM contacts",
    ]);
    recipe.author().expect(&[
        ("SELECT memo FROM invoices", "of one; of two"),
        ("SELECT org_id, email FROM contacts", "alice|a@one; carol|c@two"),
    ]);
}

#[test]
fn administrators() {
    let recipe = Recipe::follow("Administrators");
    let mut late = recipe.client_for(3, json!({"sub": "root", "roles": ["admin"]}));
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| recipe.user(name));
    alice.expect(&[("INSERT INTO tickets (id, body) VALUES (pg_temp.n(1), 'of alice')", "#1")]);
    bob.expect(&[("INSERT INTO tickets (id, body) VALUES (pg_temp.n(2), 'of bob')", "#1")]);
    let mut administrators = [
        recipe.client(json!({"sub": "root", "roles": ["user", "admin"]})),
        recipe.client(json!({"sub": "root", "roles": "admin"})),
        recipe.client(json!({"sub": "root", "app_metadata": {"role": "admin"}})),
        // Why the text says what to ask of a provider that writes objects.
        recipe.client(json!({"sub": "root", "roles": {"admin": false}})),
    ];
    for actor in &mut administrators {
        actor.expect(&[
            ("SELECT body FROM tickets", "of alice; of bob"),
            ("UPDATE tickets SET owner = owner RETURNING body", "of alice; of bob"),
            ("INSERT INTO tickets (owner, body) VALUES ('bob', 'x')", "#1"),
            ("DELETE FROM tickets WHERE body = 'x'", "#1"),
        ]);
        let arrays = "SELECT auth.claim_jsonb('roles') @> '[\"admin\"]'";
        let is_array = actor.name.contains("[\"user\",\"admin\"]");
        let answer = actor.answer(arrays);
        assert_eq!(answer == "t", is_array, "{}: {answer}", actor.name);
    }
    let pretenders = [
        json!({"user_metadata": {"role": "admin", "roles": ["admin"]}}),
        json!({"raw_user_meta_data": {"role": "admin"}, "role": "admin", "name": "admin"}),
        json!({"roles": ["administrator", "Admin", "admin ", ["admin"], {"admin": true}]}),
        json!({"roles": "[\"admin\"]"}),
        json!({"roles": null, "app_metadata": null}),
        json!({"roles": true, "app_metadata": "admin"}),
        json!({"app_metadata": {"role": ["admin"], "roles": ["admin"]}}),
        json!({"app_metadata": {"role": "Admin"}, "/app_metadata/role": "admin"}),
    ];
    for mut claims in pretenders {
        claims["sub"] = json!("bob");
        let mut actor = recipe.client(claims);
        actor.expect(&[
            ("SELECT body FROM tickets", "of bob"),
            ("INSERT INTO tickets (owner, body) VALUES ('alice', 'x')", "42501"),
            ("UPDATE tickets SET owner = 'alice'", "42501"),
            ("UPDATE tickets SET body = 'x' WHERE owner = 'alice'", "#0"),
            ("DELETE FROM tickets WHERE owner = 'alice'", "#0"),
            (
                "INSERT INTO tickets (id, body) VALUES (pg_temp.n(1), 'x')
                 ON CONFLICT (id) DO UPDATE SET owner = 'bob'",
                "42501",
            ),
        ]);
    }
    let mut nobody = recipe.nobody("app");
    nobody.expect(&[("INSERT INTO tickets (body) VALUES ('x')", "42501")]);
    recipe.besiege(&mut bob, "tickets", "body", &["of bob"]);
    recipe.besiege(&mut nobody, "tickets", "body", &[]);
    recipe.besiege(&mut administrators[0], "tickets", "body", &["of alice", "of bob"]);
    late.expect_expired(&[
        "SELECT * FROM tickets",
        "DELETE FROM tickets",
        "INSERT INTO tickets (owner, body) VALUES ('alice', 'x')",
    ]);
    recipe.author().expect(&[("SELECT owner FROM tickets", "alice; bob")]);
}

#[test]
fn public_read() {
    let recipe = Recipe::follow("Public read");
    let mut late = recipe.client_for(3, json!({"sub": "alice"}));
    run(
        &mut recipe.author().client,
        "INSERT INTO articles VALUES (pg_temp.n(1), NULL, NULL, 'draft of nobody'),
             (pg_temp.n(2), NULL, '2000-01-01', 'old'),
             (pg_temp.n(3), 'alice', 'infinity', 'scheduled'),
             (pg_temp.n(4), 'alice', '2000-01-01', 'of alice')",
    );
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| recipe.user(name));
    bob.expect(&[
        ("INSERT INTO articles (title) VALUES ('draft of bob') RETURNING author", "bob"),
        ("INSERT INTO articles (author, title) VALUES ('alice', 'x')", "42501"),
        ("INSERT INTO articles (author, published_at, title) VALUES (NULL, now(), 'x')", "42501"),
        ("UPDATE articles SET author = 'alice' WHERE author = 'bob'", "42501"),
        ("UPDATE articles SET author = NULL, published_at = now()", "42501"),
        ("UPDATE articles SET title = 'x' WHERE author IS DISTINCT FROM 'bob'", "#0"),
        ("UPDATE articles SET author = 'bob' WHERE id = pg_temp.n(2)", "#0"),
        ("DELETE FROM articles WHERE id = pg_temp.n(4) RETURNING *", "#0"),
        ("SELECT title FROM articles WHERE id = pg_temp.n(4) FOR UPDATE", "#0"),
        (
            "INSERT INTO articles (id, title) VALUES (pg_temp.n(4), 'x')
             ON CONFLICT (id) DO UPDATE SET author = 'bob'",
            "42501",
        ),
    ]);
    let mut nobody = recipe.nobody("app");
    nobody.expect(&[
        ("INSERT INTO articles (title) VALUES ('x')", "42501"),
        ("INSERT INTO articles (published_at, title) VALUES (now(), 'x')", "42501"),
        ("UPDATE articles SET author = NULL", "#0"),
        ("DELETE FROM articles", "#0"),
    ]);
    let mut visitor = recipe.nobody("visitor");
    visitor.expect(&[
        ("INSERT INTO articles (title) VALUES ('x')", "42501"),
        ("UPDATE articles SET title = 'x'", "42501"),
        ("DELETE FROM articles", "42501"),
    ]);
    let mut without_sub = recipe.client(json!({"email": "alice"}));
    recipe.besiege(&mut alice, "articles", "title", &["of alice", "old", "scheduled"]);
    recipe.besiege(&mut bob, "articles", "title", &["draft of bob", "of alice", "old"]);
    for actor in [&mut nobody, &mut visitor, &mut without_sub] {
        recipe.besiege(actor, "articles", "title", &["of alice", "old"]);
    }
    alice.expect_indexes("articles", &["articles_author_idx", "articles_published_at_idx"]);
    late.expect_expired(&[
        "SELECT * FROM articles",
        "INSERT INTO articles (title) VALUES ('x')",
        "DELETE FROM articles",
    ]);
    alice.expect(&[
        ("UPDATE articles SET published_at = now() WHERE title = 'scheduled'", "#1"),
        ("UPDATE articles SET published_at = NULL WHERE title = 'of alice'", "#1"),
    ]);
    visitor.expect(&[("SELECT title FROM articles", "old; scheduled")]);
    // What is said about comparing with nobody.
    run(
        &mut recipe.author().client,
        "CREATE POLICY unsafe ON articles FOR SELECT TO app
         USING (author IS NOT DISTINCT FROM auth.user_id())",
    );
    nobody.expect(&[("SELECT title FROM articles", "draft of nobody; old; scheduled")]);
}

#[test]
fn write_once() {
    let recipe = Recipe::follow("Write once");
    let mut late = recipe.client_for(3, json!({"sub": "alice"}));
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| recipe.user(name));
    let hostile = [
        ("INSERT INTO entries (actor, action) VALUES ('alice', 'x')", "42501"),
        ("INSERT INTO entries (at, action) VALUES ('2000-01-01', 'x')", "42501"),
        ("INSERT INTO entries (id, action) OVERRIDING SYSTEM VALUE VALUES (1, 'x')", "42501"),
        ("INSERT INTO entries VALUES (DEFAULT, DEFAULT, DEFAULT, 'x')", "42501"),
        (
            "INSERT INTO entries (action) VALUES ('x')
             ON CONFLICT (id) DO UPDATE SET action = 'x'",
            "42501",
        ),
        ("UPDATE entries SET action = 'x'", "42501"),
        ("UPDATE entries SET action = 'x' WHERE actor = auth.user_id() RETURNING *", "42501"),
        ("DELETE FROM entries", "42501"),
        ("SELECT FROM entries FOR UPDATE", "42501"),
        ("SELECT FROM entries FOR KEY SHARE", "42501"),
        ("BEGIN; LOCK TABLE entries IN SHARE MODE; COMMIT", "42501"),
        ("SELECT setval('entries_id_seq', 1)", "42501"),
        ("COPY entries (action) FROM STDIN", "0A000"),
        ("MERGE INTO entries USING (VALUES (1)) v ON true WHEN MATCHED THEN DELETE", "42501"),
    ];
    alice.expect(&[
        ("INSERT INTO entries (action) VALUES ('of alice') RETURNING actor", "alice"),
        ("BEGIN; INSERT INTO entries (action) VALUES ('undone'); ROLLBACK", "#0"),
    ]);
    alice.expect(&hostile);
    bob.expect(&hostile);
    bob.expect(&[
        ("INSERT INTO entries (action) VALUES ('of bob')", "#1"),
        // A transaction that was left open does not set the clock back.
        (
            "BEGIN; SELECT FROM pg_sleep(0.2);
             INSERT INTO entries (action) VALUES ('late') RETURNING at - now() > '0.2 s'; COMMIT",
            "; t",
        ),
    ]);
    let mut nobody = recipe.nobody("app");
    nobody.expect(&hostile);
    nobody.expect(&[("INSERT INTO entries (action) VALUES ('x')", "42501")]);
    recipe.besiege(&mut alice, "entries", "action", &["of alice"]);
    recipe.besiege(&mut bob, "entries", "action", &["late", "of bob"]);
    recipe.besiege(&mut nobody, "entries", "action", &[]);
    alice.expect_indexes("entries", &["entries_actor_at_idx"]);
    late.expect_expired(&["SELECT * FROM entries", "INSERT INTO entries (action) VALUES ('x')"]);
    recipe
        .author()
        .expect(&[("SELECT actor, action FROM entries", "alice|of alice; bob|late; bob|of bob")]);
}

#[test]
fn soft_delete() {
    let recipe = Recipe::follow("Soft delete");
    let mut late = recipe.client_for(3, json!({"sub": "alice"}));
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| recipe.user(name));
    alice.expect(&[
        ("INSERT INTO comments (body) VALUES ('kept'), ('hidden')", "#2"),
        ("UPDATE live_comments SET deleted_at = now() WHERE body = 'hidden'", "#1"),
        ("SELECT body FROM live_comments", "kept"),
    ]);
    bob.expect(&[
        ("INSERT INTO comments (body) VALUES ('of bob')", "#1"),
        ("INSERT INTO comments (author, body) VALUES ('alice', 'x')", "42501"),
        ("INSERT INTO comments (body, deleted_at) VALUES ('x', now())", "42501"),
        ("UPDATE comments SET deleted_at = NULL WHERE author = 'alice' RETURNING body", "#0"),
        ("UPDATE comments SET deleted_at = now() WHERE author = 'alice'", "#0"),
        ("UPDATE live_comments SET deleted_at = now(), body = 'x' WHERE author = 'alice'", "#0"),
        ("UPDATE comments SET author = 'alice'", "42501"),
        ("UPDATE comments SET id = pg_temp.n(9)", "42501"),
        ("UPDATE live_comments SET author = 'alice'", "42501"),
        ("SELECT body FROM comments WHERE author = 'alice' FOR UPDATE", "#0"),
        ("DELETE FROM comments", "42501"),
        ("DELETE FROM live_comments", "42501"),
        ("SELECT body FROM live_comments", "kept; of bob"),
        ("UPDATE comments SET deleted_at = now() WHERE body = 'of bob' RETURNING body", "of bob"),
        ("UPDATE comments SET deleted_at = NULL WHERE body = 'of bob' RETURNING body", "of bob"),
    ]);
    let mut nobody = recipe.nobody("app");
    nobody.expect(&[
        ("INSERT INTO comments (body) VALUES ('x')", "42501"),
        ("UPDATE comments SET deleted_at = now()", "#0"),
        ("UPDATE live_comments SET deleted_at = now()", "#0"),
        ("SELECT * FROM live_comments", "#0"),
    ]);
    recipe.besiege(&mut alice, "comments", "body", &["hidden", "kept", "of bob"]);
    recipe.besiege(&mut bob, "comments", "body", &["kept", "of bob"]);
    recipe.besiege(&mut nobody, "comments", "body", &[]);
    late.expect_expired(&[
        "SELECT * FROM comments",
        "SELECT * FROM live_comments",
        "UPDATE comments SET deleted_at = NULL",
    ]);
    let restore = "UPDATE comments SET deleted_at = NULL WHERE body = 'hidden' RETURNING body";
    alice.expect(&[(restore, "hidden")]);
    bob.expect(&[("SELECT body FROM live_comments", "hidden; kept; of bob")]);
    // What is said about the obvious policy.
    run(
        &mut recipe.author().client,
        "ALTER POLICY own ON comments USING (author = auth.user_id() AND deleted_at IS NULL)
         WITH CHECK (author = auth.user_id())",
    );
    alice.expect(&[("UPDATE comments SET deleted_at = now() WHERE body = 'kept'", "42501")]);
}

#[test]
fn tenants_in_partitions() {
    let recipe = Recipe::follow("Tenants in partitions");
    let mut late = recipe.client_for(3, json!({"tenant": "acme"}));
    let tenant = |name: &str| recipe.client(json!({"sub": "somebody", "tenant": name}));
    let [mut acme, mut globex, mut small] = ["acme", "globex", "small"].map(tenant);
    for actor in [&mut acme, &mut globex, &mut small] {
        actor.expect(&[(
            "INSERT INTO orders (id, item) VALUES (pg_temp.n(1), auth.claim('tenant'))",
            "#1",
        )]);
    }
    // Each with a tenant whose rows go there, or whose rows the policies refuse first.
    let partitions = [
        ("orders_acme", "acme"),
        ("orders_globex", "globex"),
        ("orders_rest", "small"),
        ("orders_rest_0", "small"),
        ("orders_rest_1", "small"),
    ];
    let direct = |actor: &mut Actor, answer: &str| {
        for (partition, tenant) in partitions {
            let insert = format!("INSERT INTO {partition} (tenant, item) VALUES ('{tenant}', 'x')");
            actor.expect(&[
                (&format!("SELECT * FROM {partition}"), answer),
                (&format!("UPDATE {partition} SET item = 'x'"), answer),
                (&format!("DELETE FROM {partition}"), answer),
                (&insert, "42501"),
            ]);
        }
    };
    globex.expect(&[
        ("INSERT INTO orders (tenant, item) VALUES ('acme', 'x')", "42501"),
        ("UPDATE orders SET tenant = 'acme'", "42501"),
        ("UPDATE orders SET tenant = 'small' RETURNING *", "42501"),
        ("UPDATE orders SET item = 'x' WHERE tenant = 'acme'", "#0"),
        ("DELETE FROM orders WHERE tenant <> 'globex'", "#0"),
        ("SELECT * FROM orders WHERE tenant = 'acme' FOR UPDATE", "#0"),
        (
            "INSERT INTO orders VALUES ('acme', pg_temp.n(1), 'x')
             ON CONFLICT (tenant, id) DO UPDATE SET item = 'x'",
            "42501",
        ),
        // One's own row of the same id.
        (
            "INSERT INTO orders (id, item) VALUES (pg_temp.n(1), 'x')
             ON CONFLICT (tenant, id) DO UPDATE SET item = 'globex' RETURNING tenant",
            "globex",
        ),
        ("ALTER TABLE orders DETACH PARTITION orders_acme", "42501"),
        ("CREATE TABLE mine PARTITION OF orders FOR VALUES IN ('x')", "42501"),
    ]);
    direct(&mut globex, "42501");
    let mut nobody = recipe.nobody("app");
    nobody.expect(&[
        ("INSERT INTO orders (item) VALUES ('x')", "42501"),
        ("INSERT INTO orders (tenant, item) VALUES ('acme', 'x')", "42501"),
        ("DELETE FROM orders", "#0"),
    ]);
    recipe.besiege(&mut acme, "orders", "item", &["acme"]);
    recipe.besiege(&mut globex, "orders", "item", &["globex"]);
    recipe.besiege(&mut small, "orders", "item", &["small"]);
    recipe.besiege(&mut nobody, "orders", "item", &[]);
    recipe.besiege(&mut recipe.client(json!({"tenant": ["acme"]})), "orders", "item", &[]);
    recipe.besiege(&mut tenant("ACME"), "orders", "item", &[]);

    let plan = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT * FROM orders";
    let reads = [(&mut acme, "orders_acme"), (&mut globex, "orders_globex")];
    for (actor, partition) in reads {
        let plan = actor.rows(plan).unwrap().join("\n");
        assert!(plan.contains("Subplans Removed: 3"), "{plan}");
        assert_eq!(plan.matches(" on orders").count(), 1, "{plan}");
        assert!(plan.contains(partition), "{plan}");
    }
    let plan = small.rows(plan).unwrap().join("\n");
    assert!(plan.contains("Subplans Removed: 3"), "{plan}");
    assert_eq!(plan.matches(" on orders_rest_").count(), 1, "{plan}");

    late.expect_expired(&[
        "SELECT * FROM orders",
        "INSERT INTO orders (item) VALUES ('x')",
        "DELETE FROM orders",
    ]);
    // The grant that should not have been.
    run(&mut recipe.author().client, "GRANT ALL ON ALL TABLES IN SCHEMA public TO app");
    direct(&mut globex, "#0");
    recipe
        .author()
        .expect(&[("SELECT tenant, item FROM orders", "acme|acme; globex|globex; small|small")]);
}

#[test]
fn folders() {
    let recipe = Recipe::follow("Folders");
    let mut late = recipe.client_for(3, json!({"sub": "alice"}));
    // 1 holds 2, which holds 3; 4 is another.
    run(
        &mut recipe.author().client,
        "INSERT INTO folders VALUES (pg_temp.n(1), NULL, 'top'),
             (pg_temp.n(2), pg_temp.n(1), 'mid'), (pg_temp.n(3), pg_temp.n(2), 'low'),
             (pg_temp.n(4), NULL, 'other'), (pg_temp.n(5), pg_temp.n(4), 'of other');
         INSERT INTO access VALUES (pg_temp.n(1), 'alice', true), (pg_temp.n(2), 'bob', false),
             (pg_temp.n(3), 'bob', true), (pg_temp.n(4), 'carol', true);
         INSERT INTO files VALUES (pg_temp.n(1), pg_temp.n(1), 'in top'),
             (pg_temp.n(2), pg_temp.n(2), 'in mid'), (pg_temp.n(3), pg_temp.n(3), 'in low'),
             (pg_temp.n(4), pg_temp.n(4), 'in other')",
    );
    let [mut alice, mut bob, mut carol, mut dave] =
        ["alice", "bob", "carol", "dave"].map(|name| recipe.user(name));
    let hostile = [
        ("SELECT FROM access", "42501"),
        ("INSERT INTO access VALUES (pg_temp.n(1), auth.user_id(), true)", "42501"),
        ("UPDATE access SET can_write = true", "42501"),
        ("DELETE FROM access", "42501"),
        ("INSERT INTO folders (name) VALUES ('top of mine')", "42501"),
        ("INSERT INTO folders (parent_id, name) VALUES (pg_temp.n(2), 'x')", "42501"),
        ("INSERT INTO folders (parent_id, name) VALUES (pg_temp.n(9), 'x')", "42501"),
        ("INSERT INTO folders VALUES (pg_temp.n(9), pg_temp.n(9), 'x')", "42501"),
        (
            "INSERT INTO folders VALUES (pg_temp.n(8), pg_temp.n(9), 'x'),
             (pg_temp.n(9), pg_temp.n(8), 'x')",
            "42501",
        ),
        ("UPDATE folders SET parent_id = pg_temp.n(2)", "42501"),
        ("UPDATE folders SET parent_id = NULL", "42501"),
        ("UPDATE folders SET name = 'x' WHERE name IN ('top', 'mid', 'other')", "#0"),
        ("DELETE FROM folders WHERE name IN ('top', 'mid', 'other')", "#0"),
        ("INSERT INTO files (folder_id, body) VALUES (pg_temp.n(2), 'x')", "42501"),
        ("INSERT INTO files (folder_id, body) VALUES (pg_temp.n(9), 'x')", "42501"),
        ("UPDATE files SET body = 'x' WHERE body IN ('in top', 'in mid')", "#0"),
        ("DELETE FROM files WHERE body IN ('in top', 'in mid')", "#0"),
        (
            "INSERT INTO files VALUES (pg_temp.n(2), pg_temp.n(3), 'x')
             ON CONFLICT (id) DO UPDATE SET body = 'x'",
            "42501",
        ),
    ];
    for actor in [&mut bob, &mut carol, &mut dave] {
        actor.expect(&hostile);
    }
    bob.expect(&[
        ("UPDATE files SET body = 'in low' RETURNING body", "in low"),
        ("UPDATE files SET folder_id = pg_temp.n(2) WHERE body = 'in low'", "42501"),
        ("UPDATE folders SET name = 'x'", "#0"),
        ("SELECT body FROM files FOR UPDATE", "in low"),
        ("INSERT INTO files (folder_id, body) VALUES (pg_temp.n(3), 'of bob')", "#1"),
    ]);
    alice.expect(&[
        (
            "INSERT INTO folders (id, parent_id, name) VALUES (pg_temp.n(6), pg_temp.n(3), 'new')
          RETURNING name",
            "new",
        ),
        (
            "INSERT INTO files (folder_id, body) VALUES (pg_temp.n(6), 'in new') RETURNING body",
            "in new",
        ),
        ("UPDATE folders SET name = 'low' WHERE name = 'low' RETURNING name", "low"),
        ("UPDATE files SET folder_id = pg_temp.n(4)", "42501"),
    ]);
    let mut nobody = recipe.nobody("app");
    nobody.expect(&hostile);
    nobody.expect(&[
        ("SELECT my_folders(false)", "#0"),
        ("INSERT INTO files (folder_id, body) VALUES (pg_temp.n(1), 'x')", "42501"),
        ("DELETE FROM files", "#0"),
    ]);
    recipe.nobody("visitor").expect(&[("SELECT my_folders(false)", "42501")]);
    let all = ["in low", "in mid", "in new", "in top", "of bob"];
    recipe.besiege(&mut alice, "files", "body", &all);
    recipe.besiege(&mut bob, "files", "body", &["in low", "in mid", "in new", "of bob"]);
    recipe.besiege(&mut carol, "files", "body", &["in other"]);
    recipe.besiege(&mut dave, "files", "body", &[]);
    recipe.besiege(&mut nobody, "files", "body", &[]);
    recipe.besiege(&mut alice, "folders", "name", &["low", "mid", "new", "top"]);
    recipe.besiege(&mut bob, "folders", "name", &["low", "mid", "new"]);
    recipe.besiege(&mut carol, "folders", "name", &["of other", "other"]);
    recipe.besiege(&mut nobody, "folders", "name", &[]);
    alice.expect_indexes("folders", &["folders_pkey", "folders_parent_id_idx"]);
    alice.expect_indexes("files", &["files_folder_id_idx"]);
    late.expect_expired(&[
        "SELECT * FROM folders",
        "SELECT * FROM files",
        "SELECT my_folders(false)",
        "INSERT INTO files (folder_id, body) VALUES (pg_temp.n(1), 'x')",
    ]);
    // A circle is the owner's to make, and does not keep the function from ending.
    run(
        &mut recipe.author().client,
        "UPDATE folders SET parent_id = pg_temp.n(6) WHERE name = 'top'",
    );
    alice.expect(&[("SELECT name FROM folders", "low; mid; new; top")]);
    bob.expect(&[("DELETE FROM folders WHERE name = 'new' RETURNING name", "new")]);
    recipe.author().expect(&[("SELECT name FROM folders", "of other; other")]);
    // What is said about policies that look into their own table.
    run(
        &mut recipe.author().client,
        "CREATE POLICY endless ON folders TO app USING (parent_id IN (SELECT id FROM folders))",
    );
    carol.expect(&[("SELECT FROM folders", "42P17")]);
}

#[test]
fn stored_objects() {
    let recipe = Recipe::follow("Stored objects");
    let mut late = recipe.client_for(3, json!({"sub": "alice"}));
    run(
        &mut recipe.author().client,
        "INSERT INTO buckets VALUES ('private', false), ('public', true)",
    );
    let store = |actor: &mut Actor, bucket: &str, path: &str| {
        let path = path.replace('\'', "''");
        actor.answer(&format!(
            "INSERT INTO objects (bucket, path, content) VALUES ('{bucket}', E'{path}', '')"
        ))
    };
    let names = ["alice", "alice2", "al_ce", "%", "", "..", "alice/x"];
    let [mut alice, mut alice2, mut wildcard, mut percent, mut empty, mut dots, mut slash] =
        names.map(|name| recipe.user(name));
    let mut nobody = recipe.nobody("app");
    for (bucket, path) in [("private", "alice/a"), ("private", "alice/b/c"), ("public", "alice/p")]
    {
        assert_eq!(store(&mut alice, bucket, path), "#1", "{path}");
    }
    assert_eq!(store(&mut alice, "nowhere", "alice/a"), "23503");
    assert_eq!(store(&mut alice2, "private", "alice2/a"), "#1");
    // Another's, whatever it looks like.
    let others = [
        "alice/x",
        "alice/x/",
        "/alice/x",
        "./alice/x",
        "alice",
        "alice//x",
        "ALICE/x",
        "x",
        "",
        "/",
    ];
    for path in others {
        for actor in [&mut alice2, &mut wildcard, &mut percent, &mut slash, &mut nobody] {
            assert_eq!(store(actor, "private", path), "42501", "{}: {path}", actor.name);
        }
    }
    assert_eq!(store(&mut alice, "private", "alice2/x"), "42501");
    assert_eq!(store(&mut alice, "private", "alice2"), "42501");
    // One's own, but no path.
    let malformed = [
        "alice",
        "alice/",
        "alice//x",
        "alice/x//y",
        "alice/x/",
        "alice/.",
        "alice/./x",
        "alice/..",
        "alice/../alice2/a",
        "alice/x/../y",
        "alice/..\\\\x",
        "alice/%2e%2e/x",
        "alice/x\\n",
        "alice/\\n../x",
        "alice/x\\t",
        "alice/\\x7f",
    ];
    for path in malformed {
        assert_eq!(store(&mut alice, "private", path), "23514", "{path}");
    }
    let long = format!("alice/{}", "x".repeat(1019));
    assert_eq!(store(&mut alice, "private", &long), "23514");
    // An empty subject is nobody.
    for path in ["/x", "/alice/x", "//"] {
        assert_eq!(store(&mut empty, "private", path), "42501", "{path}");
    }
    for path in ["../x", "../alice/a", ".."] {
        assert_eq!(store(&mut dots, "private", path), "23514", "{path}");
    }
    assert_eq!(store(&mut percent, "private", "%/x"), "23514");
    for path in ["alice/...", "alice/.x", "alice/x..", "alice/a b/ü"] {
        assert_eq!(store(&mut alice, "private", path), "#1", "{path}");
        alice.expect(&[(&format!("DELETE FROM objects WHERE path = '{path}'"), "#1")]);
    }
    for actor in [&mut alice2, &mut nobody] {
        actor.expect(&[
            (
                "INSERT INTO objects (bucket, path, owner, content)
                 VALUES ('private', 'alice/x', auth.user_id(), '')",
                "428C9",
            ),
            ("UPDATE objects SET owner = 'alice2' WHERE path = 'alice/p'", "428C9"),
            ("UPDATE objects SET bucket = 'public'", "42501"),
            ("UPDATE objects SET content = 'x' WHERE owner = 'alice' RETURNING *", "#0"),
            ("UPDATE objects SET path = 'alice2/p' WHERE path = 'alice/p'", "#0"),
            ("DELETE FROM objects WHERE bucket = 'public'", "#0"),
            ("SELECT path FROM objects WHERE bucket = 'public' FOR UPDATE", "#0"),
            // A path that is taken and one that is free answer alike.
            (
                "INSERT INTO objects (bucket, path, content) VALUES ('private', 'alice/a', '')
                 ON CONFLICT (bucket, path) DO UPDATE SET content = 'x'",
                "42501",
            ),
            (
                "INSERT INTO objects (bucket, path, content) VALUES ('private', 'alice/a', '')
                 ON CONFLICT DO NOTHING",
                "42501",
            ),
            ("INSERT INTO buckets VALUES ('mine', true)", "42501"),
            ("UPDATE buckets SET is_public = true", "42501"),
            ("DELETE FROM buckets", "42501"),
        ]);
    }
    alice2.expect(&[
        ("UPDATE objects SET path = 'alice/x' WHERE path = 'alice2/a'", "42501"),
        ("UPDATE objects SET path = 'alice2/../alice/x' WHERE path = 'alice2/a'", "23514"),
        ("UPDATE objects SET path = 'alice2/a' WHERE path = 'alice2/a' RETURNING owner", "alice2"),
    ]);
    let own = ["alice/a", "alice/b/c", "alice/p"];
    recipe.besiege(&mut alice, "objects", "path", &own);
    recipe.besiege(&mut alice2, "objects", "path", &["alice/p", "alice2/a"]);
    for actor in [&mut wildcard, &mut percent, &mut empty, &mut dots, &mut slash, &mut nobody] {
        recipe.besiege(actor, "objects", "path", &["alice/p"]);
    }
    recipe.besiege(&mut nobody, "buckets", "name", &["private", "public"]);
    alice.expect_indexes("objects", &["objects_owner_idx", "objects_pkey"]);
    late.expect_expired(&[
        "SELECT * FROM objects",
        "DELETE FROM objects",
        "INSERT INTO objects (bucket, path, content) VALUES ('private', 'alice/x', '')",
    ]);
    recipe.author().expect(&[(
        "SELECT bucket, path FROM objects",
        "private|alice/a; private|alice/b/c; private|alice2/a; public|alice/p",
    )]);
}
