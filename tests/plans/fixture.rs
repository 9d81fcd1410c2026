//! A site with policies, statements as clients send them, and settings that make plans parallel.

use std::ops::{Deref, Range};

use harness::{
    Cluster, Preload, SUCCESS, Site, now, present, present_locally, run, send, sqlstate,
};
use postgres::{Client, Statement};
use serde_json::{Value, json};

/// A site whose role `app` may become others, but is not subject to their policies until it does.
pub struct Fixture {
    pub site: Site,
    pub exp: i64,
}

impl Deref for Fixture {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl harness::Fixture for Fixture {
    fn cluster(&self) -> &Cluster {
        &self.site.cluster
    }
}

impl Fixture {
    pub fn new(settings: &[(&str, &str)], schema: &str) -> Self {
        let site = Site::start(Preload::Shared, settings);
        let mut admin = site.cluster.admin();
        let roles = "ALTER ROLE app NOINHERIT; CREATE ROLE keeper; CREATE ROLE editor;
                     GRANT keeper, editor TO app;";
        run(&mut admin, roles);
        run(&mut admin, schema);
        Self { site, exp: now() + 3600 }
    }

    pub fn claims(&self, who: &str) -> Value {
        json!({"sub": who, "exp": self.exp, "role": format!("role of {who}"),
               "email": format!("{who}@example.com"), "org_id": format!("org of {who}"),
               "deep": {"list": [0, format!("deep {who}")]}})
    }

    pub fn token(&self, who: &str) -> String {
        self.key.sign(&self.claims(who))
    }

    /// Gives the session an identity, or none.
    pub fn be(&self, client: &mut Client, who: Option<&str>) {
        let token = who.map(|who| self.token(who)).unwrap_or_default();
        assert_eq!(present(client, &token), SUCCESS, "present(client, token)");
    }

    /// Gives the transaction an identity, or none.
    pub fn be_locally(&self, client: &mut Client, who: Option<&str>) {
        let token = who.map(|who| self.token(who)).unwrap_or_default();
        assert_eq!(present_locally(client, &token), SUCCESS, "present_locally(client, token)");
    }

    /// What a statement answers to Alice, to Bob and to nobody, each in a transaction of its own
    /// that is rolled back.
    pub fn answers(&self, client: &mut Client, sql: &str) -> [String; 3] {
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
pub fn answer(client: &mut Client, sql: &str) -> String {
    match send(client, sql) {
        Ok(reply) if reply.returns_rows => reply.lines(" ").join(", "),
        Ok(reply) => format!("{} touched", reply.touched),
        Err(code) => code,
    }
}

pub fn explain(client: &mut Client, sql: &str) -> String {
    answer(client, &format!("EXPLAIN (COSTS OFF) {sql}")).replace(", ", "\n")
}

/// The rows of a prepared statement's first column, by the extended protocol.
pub fn execute(client: &mut Client, statement: &Statement, argument: i32) -> String {
    match client.query(statement, &[&argument]) {
        Ok(rows) => {
            let rows = rows.iter().map(|row| row.get::<_, i32>(0).to_string());
            rows.collect::<Vec<_>>().join(", ")
        }
        error => sqlstate(error),
    }
}

pub const NOTES: &str = "
    CREATE TABLE notes (n int, owner text DEFAULT auth.user_id());
    INSERT INTO notes VALUES (1, 'alice'), (2, 'bob'), (3, 'bob'), (4, 'carol');
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON notes USING (owner = auth.user_id());
    CREATE POLICY all_rows ON notes TO editor USING (true);
    GRANT ALL ON notes TO app, editor;
";

/// Alice's are 1, 2 and 5, Bob's 3 and 4, Carol's 6; each but the first hangs on the one before.
pub const TREE: &str = "
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

/// Workers alone evaluate what can be evaluated in parallel.
pub const PARALLEL: [(&str, &str); 8] = [
    ("jit", "off"),
    ("parallel_setup_cost", "0"),
    ("parallel_tuple_cost", "0"),
    ("min_parallel_table_scan_size", "0"),
    ("min_parallel_index_scan_size", "0"),
    ("parallel_leader_participation", "off"),
    ("max_worker_processes", "32"),
    ("max_parallel_workers", "32"),
];

pub const SERIAL: &str = "SET max_parallel_workers_per_gather = 0";

// In 16, `force_parallel_mode` became `debug_parallel_query`.
pub const GATHER: &str = "SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0;
     SELECT set_config(name, 'off', false) FROM pg_settings
     WHERE name IN ('force_parallel_mode', 'debug_parallel_query')";

/// Plans that Postgres would not split run in one worker as a whole.
pub const FORCED: [&str; 2] = [
    "SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 1e9;
     SELECT set_config(name, 'on', false) FROM pg_settings
     WHERE name IN ('force_parallel_mode', 'debug_parallel_query')",
    "SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 1e9;
     SELECT set_config(name, 'regress', false) FROM pg_settings
     WHERE name IN ('force_parallel_mode', 'debug_parallel_query')",
];

/// Every reader, and the claim that it returns.
pub const READERS: [(&str, &str); 8] = [
    ("auth.user_id()", "c ->> 'sub'"),
    ("auth.uid()", "c ->> 'sub'"),
    ("auth.session()", "c::text"),
    ("auth.jwt()", "c::text"),
    ("auth.role()", "c ->> 'role'"),
    ("auth.email()", "c ->> 'email'"),
    ("auth.claim('org_id')", "c ->> 'org_id'"),
    ("auth.claim('/deep/list/1')", "c #>> '{deep,list,1}'"),
];

pub const ALICE: &str = "a11ce000-0000-4000-8000-000000000001";

pub const BOB: &str = "b0b00000-0000-4000-8000-000000000002";

/// For each reader a table with rows of Alice's, of Bob's and of nobody's.
pub fn create_reader_tables(fixture: &Fixture) {
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
// From 16 on, an expression without columns would leave the GROUP BY, and the leader would evaluate it.
pub fn reading(client: &mut Client, places: Range<usize>) -> String {
    let leader = answer(client, "SELECT pg_backend_pid()");
    let selects: Vec<String> = places
        .map(|place| {
            let reader = READERS[place].0;
            format!(
                "SELECT {place} AS place, n, value, CASE WHEN n > 0 THEN ({reader})::text END AS who,
                        CASE WHEN n > 0 THEN pid() = {leader} END AS in_leader FROM reader_{place}"
            )
        })
        .collect();
    format!(
        "SELECT value, who, in_leader, count(*), sum(n) FROM ({}) s
         GROUP BY place, 1, 2, 3 ORDER BY place",
        selects.join(" UNION ALL ")
    )
}

pub fn is_from_worker(error: &postgres::Error) -> bool {
    let place = error.as_db_error().and_then(|error| error.where_());
    place.is_some_and(|place| place.contains("parallel worker"))
}
