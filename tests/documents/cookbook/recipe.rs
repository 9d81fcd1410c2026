//! Recipes that were followed, and clients that attack them.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use harness::{
    Code, FEATURE_NOT_SUPPORTED, INSUFFICIENT_PRIVILEGE, Preload, SUCCESS, Site, block_of, now,
    present, run, send, wait_for,
};
use postgres::{Client, NoTls};
use serde_json::{Value, json};

pub const COOKBOOK: &str = include_str!("../../../docs/cookbook.md");

/// Statements by which a client might read `{c}` of `{t}`; each sees the same rows.
pub const READS: [&str; 10] = [
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
pub const PEEKS: [&str; 6] = [
    "UPDATE {t} SET {c} = {c} WHERE pg_temp.leaks({c})",
    "UPDATE {t} SET {c} = {c} WHERE pg_temp.leaks({c}) RETURNING pg_temp.leaks({c})",
    "DELETE FROM {t} WHERE pg_temp.leaks({c}) RETURNING *",
    "SELECT FROM {t} WHERE pg_temp.leaks({c}) FOR UPDATE",
    "SELECT FROM {t} WHERE pg_temp.leaks({c}) FOR KEY SHARE",
    "MERGE INTO {t} USING (VALUES (1)) v ON pg_temp.leaks({c}) WHEN MATCHED THEN DO NOTHING",
];

/// Statements on `{t}` that are nobody's but an owner's or a superuser's.
pub const SEIZURES: [&str; 13] = [
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
pub const TOOLS: &str = "
    SET statement_timeout = '20s';
    CREATE FUNCTION pg_temp.n(number int) RETURNS uuid IMMUTABLE LANGUAGE sql
        AS $$ SELECT lpad(number::text, 32, '0')::uuid $$;
    CREATE FUNCTION pg_temp.leaks(value text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001
        AS $$ BEGIN RAISE NOTICE 'leaked %', value; RETURN true; END $$;
    CREATE FUNCTION pg_temp.leaks(value text, text) RETURNS boolean LANGUAGE plpgsql
        COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'leaked %', value; RETURN true; END $$;
    CREATE OPERATOR pg_temp.<<< (FUNCTION = pg_temp.leaks, LEFTARG = text, RIGHTARG = text);";

/// A recipe that has been followed.
pub struct Recipe {
    pub site: Arc<Site>,
    pub database: String,
}

/// A client of the recipe's database.
pub struct Actor {
    pub name: String,
    pub client: Client,
    pub leaked: Arc<Mutex<Vec<String>>>,
}

/// The cluster that all tests share that run at the same time.
pub fn site() -> Arc<Site> {
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
    pub fn follow(heading: &str) -> Self {
        Self::follow_again(heading, &heading.to_lowercase().replace(' ', "_"))
    }

    /// The same in a database of this name, for a second test of the recipe.
    pub fn follow_again(heading: &str, database: &str) -> Self {
        let (site, database) = (site(), database.to_owned());
        run(&mut site.cluster.admin(), &format!("CREATE DATABASE {database} OWNER author"));
        let mut admin = site.cluster.as_role("postgres").database(&database).client();
        run(&mut admin, "CREATE EXTENSION pg_session_jwt");
        let recipe = Self { site, database };
        run(&mut recipe.author().client, block_of(COOKBOOK, heading));
        recipe
    }

    /// A client of that role, without a token.
    pub fn connect(&self, role: &str, name: &str) -> Actor {
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
    pub fn author(&self) -> Actor {
        self.connect("author", "the author")
    }

    /// A client with a token that says this, for ten minutes.
    pub fn client(&self, claims: Value) -> Actor {
        self.client_for(600, claims)
    }

    /// The same for so many seconds.
    pub fn client_for(&self, seconds: i64, mut claims: Value) -> Actor {
        let mut actor = self.connect("app", &claims.to_string());
        claims["exp"] = json!(now() + seconds);
        assert_eq!(
            present(&mut actor.client, &self.site.key.sign(&claims)),
            SUCCESS,
            "present(self.site.key.sign(claims))"
        );
        actor
    }

    /// A client with this user's token.
    pub fn user(&self, sub: &str) -> Actor {
        self.client(json!({ "sub": sub }))
    }

    /// A client of that role without a token, which says that it is alice and everything else.
    pub fn nobody(&self, role: &str) -> Actor {
        let mut actor = self.connect(role, "nobody");
        let claims = json!({"sub": "alice", "roles": ["admin"], "app_metadata": {"role": "admin"},
                            "tenant": "acme", "org_id": "acme"});
        run(&mut actor.client, &format!("SET request.jwt.claims = '{claims}'"));
        actor
    }

    /// Tries by all means to have `actor` read other rows of a table than those with these values
    /// in a column of text, and to take the table over.
    pub fn besiege(&self, actor: &mut Actor, table: &str, column: &str, seen: &[&str]) {
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
            assert_eq!(
                actor.answer(&statement),
                INSUFFICIENT_PRIVILEGE,
                "{}: {statement}",
                actor.name
            );
        }
        let copied = actor.copy(&format!("COPY (SELECT {column} FROM {table}) TO STDOUT"));
        assert_eq!(sorted(copied), seen, "{}: COPY (SELECT)", actor.name);
        if actor.answer(&format!("SELECT relkind FROM pg_class WHERE relname = '{table}'")) == "r" {
            let copied = actor.copy(&format!("COPY {table} ({column}) TO STDOUT"));
            assert_eq!(sorted(copied), seen, "{}: COPY", actor.name);
        }
        let copying = actor.answer(&format!("COPY {table} FROM STDIN"));
        assert!(
            [FEATURE_NOT_SUPPORTED, INSUFFICIENT_PRIVILEGE].contains(&copying.as_str()),
            "{}: {copying}",
            actor.name
        );
        let statistics = format!("SELECT count(*) FROM pg_stats WHERE tablename = '{table}'");
        actor.expect(&[(&statistics, "0")]);
    }
}

impl Actor {
    /// The rows of the statements, in their order, the columns joined; or the SQLSTATE.
    pub fn rows(&mut self, sql: &str) -> Result<Vec<String>, String> {
        let (rows, _) = self.outcome(sql)?;
        Ok(rows)
    }

    /// The same in one text, sorted; without rows, how many the last statement concerned.
    pub fn answer(&mut self, sql: &str) -> String {
        match self.outcome(sql) {
            Ok((rows, count)) if rows.is_empty() => format!("#{count}"),
            Ok((rows, _)) => sorted(rows).join("; "),
            Err(code) => code,
        }
    }

    /// The rows and that number, or the SQLSTATE. An error leaves no transaction open.
    pub fn outcome(&mut self, sql: &str) -> Result<(Vec<String>, u64), String> {
        match send(&mut self.client, sql) {
            Ok(reply) => Ok((reply.lines("|"), reply.touched)),
            Err(code) => {
                run(&mut self.client, "ROLLBACK");
                Err(code)
            }
        }
    }

    /// Runs each statement, and compares what it comes to.
    pub fn expect(&mut self, cases: &[(&str, &str)]) {
        for (sql, expected) in cases {
            assert_eq!(self.answer(sql), *expected, "{}: {sql}", self.name);
        }
    }

    /// Waits until the token has expired; then each statement is refused because of that.
    pub fn expect_expired(&mut self, statements: &[&str]) {
        wait_for("the token to expire", || {
            self.answer("SELECT auth.user_id()") == Code::Expired.sqlstate()
        });
        for sql in statements {
            assert_eq!(self.answer(sql), Code::Expired.sqlstate(), "{}: {sql}", self.name);
        }
    }

    /// These indexes serve the policies that apply to a read of the table.
    pub fn expect_indexes(&mut self, table: &str, indexes: &[&str]) {
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
    pub fn copy(&mut self, sql: &str) -> Vec<String> {
        let mut text = String::new();
        let mut reader = self.client.copy_out(sql).unwrap();
        std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// The values that functions have been shown since the last time, each once.
    pub fn take_leaked(&mut self) -> Vec<String> {
        let mut leaked = sorted(std::mem::take(&mut *self.leaked.lock().unwrap()));
        leaked.dedup();
        leaked
    }
}

pub fn sorted(mut values: Vec<String>) -> Vec<String> {
    values.sort();
    values
}
