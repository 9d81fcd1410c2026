//! A site with tables, and clients whose tokens grant permissions.

use std::ops::Deref;

use harness::{Cluster, Preload, SUCCESS, Shared, Site, now, present, run, send, sqlstate};
use postgres::Client;
use serde_json::{Value, json};

/// A site with the role `dev`, which may create objects in the database and owns some.
pub struct Fixture(pub Site);

impl Deref for Fixture {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.0
    }
}

pub const TABLES: &str = "
    CREATE ROLE dev LOGIN; CREATE ROLE other; CREATE ROLE granted; GRANT other, granted TO dev;
    GRANT CREATE ON DATABASE postgres TO dev;
    GRANT CREATE ON SCHEMA public TO dev;
    CREATE SCHEMA hidden AUTHORIZATION dev;
    SET ROLE dev;
    CREATE TABLE comments (id int PRIMARY KEY, body text);
    CREATE TABLE secrets (id int PRIMARY KEY, body text);
    CREATE TABLE \"Comments\" (id int);
    CREATE TABLE \"all\" (id int);
    CREATE TABLE hidden.comments (id int);
    INSERT INTO comments SELECT n, 'x' FROM generate_series(1, 3) n;
    INSERT INTO secrets SELECT n, 'x' FROM generate_series(1, 3) n;
    GRANT ALL ON comments, secrets, \"Comments\", \"all\", hidden.comments TO app;
    GRANT USAGE ON SCHEMA hidden TO app;
    RESET ROLE;
";

impl harness::Fixture for Fixture {
    fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }
}

/// The site of tests that change nothing in it.
pub static SITES: Shared<Fixture> = Shared::new(|_| Fixture::new());

impl Fixture {
    pub fn new() -> Self {
        Self::preloaded(Preload::Shared)
    }

    pub fn preloaded(preload: Preload) -> Self {
        let site = Site::start(preload, &[]);
        run(&mut site.cluster.admin(), TABLES);
        Self(site)
    }

    pub fn admin(&self) -> Client {
        self.cluster.admin()
    }

    pub fn dev(&self) -> Client {
        self.cluster.as_role("dev").client()
    }

    /// Creates what the statements of [`COMMANDS`] are about.
    pub fn create_objects(&self) {
        let mut admin = self.admin();
        run(&mut admin, "CREATE DATABASE mine");
        run(
            &mut admin,
            "ALTER DATABASE mine OWNER TO dev;
             CREATE FOREIGN DATA WRAPPER wrapper; GRANT USAGE ON FOREIGN DATA WRAPPER wrapper TO dev",
        );
        run(&mut self.dev(), MORE);
    }

    /// Gives the session a token with these claims.
    pub fn be(&self, client: &mut Client, claims: &Value) {
        assert_eq!(present(client, &self.signed(claims)), SUCCESS, "{claims}");
    }

    /// A token with these claims.
    pub fn signed(&self, claims: &Value) -> String {
        let mut all = json!({"sub": "alice", "exp": now() + 600});
        let (Some(all_members), Some(members)) = (all.as_object_mut(), claims.as_object()) else {
            panic!("claims are an object: {claims}");
        };
        all_members.extend(members.clone());
        self.key.sign(&all)
    }

    /// Gives the session a token that grants these permissions, as `table:action,action` has them.
    pub fn grant(&self, client: &mut Client, permissions: &[&str]) {
        self.be(client, &perm(permissions));
    }
}

pub const MORE: &str = "
    CREATE TABLE child () INHERITS (comments);
    CREATE TABLE parted (n int) PARTITION BY LIST (n);
    CREATE TABLE part1 PARTITION OF parted FOR VALUES IN (1);
    CREATE TABLE part2 (n int);
    CREATE TABLE viewed (id int, x int); CREATE VIEW viewing AS SELECT id FROM viewed;
    CREATE MATERIALIZED VIEW kept AS SELECT 1;
    CREATE TABLE referred (id int PRIMARY KEY);
    CREATE TABLE referring (id int REFERENCES referred);
    CREATE TABLE hidden.other ();
    CREATE SEQUENCE loose;
    CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE AGGREGATE total(int) (sfunc = int4pl, stype = int);
    CREATE OPERATOR == (leftarg = int, rightarg = int, function = int4eq);
    CREATE PUBLICATION pg_temp;
    CREATE SERVER pg_temp FOREIGN DATA WRAPPER wrapper;
    CREATE STATISTICS stats ON id, body FROM secrets;
    CREATE POLICY pg_temp ON secrets;
    CREATE INDEX secrets_body ON secrets (body);
    CREATE POLICY p ON secrets;
    GRANT SELECT ON secrets TO granted;
    CREATE RULE r AS ON DELETE TO secrets DO INSTEAD NOTHING;
    CREATE TRIGGER t BEFORE UPDATE ON secrets FOR EACH ROW
        EXECUTE FUNCTION suppress_redundant_updates_trigger();
";

/// The claim `perm` for these permissions; `all` is null.
pub fn perm(permissions: &[&str]) -> Value {
    let entries = permissions.iter().map(|permission| {
        let (table, actions) = permission.rsplit_once(':').unwrap();
        let tables = if table == "all" { Value::Null } else { json!([table]) };
        json!({"t": tables, "a": actions.split(',').collect::<Vec<_>>()})
    });
    json!({"perm": entries.collect::<Vec<_>>()})
}

/// What the first column of a query is, row by row; or the SQLSTATE.
pub fn answer(client: &mut Client, sql: &str) -> String {
    let first = |row: &Vec<Option<String>>| row[0].clone().unwrap_or_else(|| "-".to_owned());
    match send(client, sql) {
        Ok(reply) => reply.rows.iter().map(first).collect::<Vec<_>>().join(" "),
        Err(code) => code,
    }
}

/// The SQLSTATE of statements that are rolled back.
pub fn attempt(client: &mut Client, sql: &str) -> String {
    run(client, "BEGIN");
    let state = sqlstate(client.batch_execute(sql));
    run(client, "ROLLBACK");
    state
}

pub fn allows(client: &mut Client, action: &str, table: &str) -> String {
    answer(client, &format!("SELECT auth.allows('{action}', {table})"))
}

pub const DATA: [(&str, &str); 4] = [
    ("data_read", "SELECT count(*) FROM comments"),
    ("data_add", "INSERT INTO comments VALUES (9)"),
    ("data_update", "UPDATE comments SET body = 'y'"),
    ("data_delete", "DELETE FROM comments"),
];

/// What each of these statements comes to: how many rows it reads or touches, or the SQLSTATE.
pub fn data(client: &mut Client) -> String {
    let mut done = Vec::new();
    for (_, sql) in DATA {
        run(client, "BEGIN");
        done.push(match send(client, sql) {
            Ok(reply) if reply.returns_rows => reply.lines(" ").concat(),
            Ok(reply) => reply.touched.to_string(),
            Err(code) => code,
        });
        run(client, "ROLLBACK");
    }
    done.join(" ")
}

pub const SCHEMA: [&str; 3] = ["schema_add", "schema_update", "schema_delete"];
