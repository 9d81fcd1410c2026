//! The cost of a policy: for each row of a scan, in joins, in parallel plans, and in index scans.

use std::time::Duration;

use harness::{Cluster, Site, run};
use postgres::Client;
use serde_json::json;

use crate::measure::{Runner, latency, shortest};
use crate::report::{Budget, Growth, Line, Table};

/// The number of rows of the scanned table.
const ROWS: usize = 1_000_000;

/// The numbers of rows of the growing tables.
const GROWING: [usize; 4] = [10_000, 100_000, 1_000_000, 10_000_000];

/// The user whose rows the queries find: one row in a thousand.
pub const USER: &str = "user-0000007";
pub const USER_UUID: &str = "00000000-0000-0000-0000-000000000007";

/// The title of the table of costs per row.
pub const PER_ROW: &str = "Cost per row";

/// The number of calls in one condition, for the table of costs per call. With many calls the noise of the scan
/// does not matter.
const CALLS: usize = 20;
const CALLING_ROWS: usize = 50_000;

/// How a policy's condition uses the value of a call.
#[derive(Clone, Copy)]
enum Use {
    /// It is compared with the `text` column `owner`.
    Owner,
    /// It is compared with the `uuid` column `owner_id`.
    OwnerId,
    /// It is checked for NULL.
    Any,
}

/// A role with a policy of its own on every table.
struct Policy {
    role: &'static str,
    what: &'static str,
    call: &'static str,
    used: Use,
    /// The limit for its cost, as a multiple of the control's.
    budget: Budget,
    /// Whether it is so slow that it is measured in a few rounds only.
    is_slow: bool,
}

impl Policy {
    fn condition(&self) -> String {
        match self.used {
            Use::Owner => format!("owner = {}", self.call),
            Use::OwnerId => format!("owner_id = {}", self.call),
            Use::Any => format!("num_nulls(owner, {}) = 1", self.call),
        }
    }

    /// The role whose condition has a literal instead of the call.
    fn base(&self) -> &'static str {
        match self.used {
            Use::Owner => "literal",
            Use::OwnerId => "literal_uuid",
            Use::Any => "literal_any",
        }
    }

    fn is_literal(&self) -> bool {
        self.role.starts_with("literal")
    }

    /// Whether the function is called once for each row.
    fn is_called(&self) -> bool {
        !self.is_literal() && !self.call.starts_with('(')
    }
}

const fn policy(role: &'static str, what: &'static str, call: &'static str, used: Use) -> Policy {
    Policy { role, what, call, used, budget: Budget::None, is_slow: false }
}

const fn limited(policy: Policy, most: f64) -> Policy {
    Policy { budget: Budget::Most(most), ..policy }
}

const fn slow(policy: Policy) -> Policy {
    Policy { is_slow: true, ..policy }
}

/// The role of the control function.
const CONTROL: &str = "control";

const POLICIES: &[Policy] = &[
    policy("literal", "a literal", "'user-0000007'", Use::Owner),
    policy("literal_uuid", "a literal", "'00000000-0000-0000-0000-000000000007'", Use::OwnerId),
    policy("literal_any", "a literal", "'{}'::jsonb", Use::Any),
    policy(CONTROL, "C function, constant text", "control_text()", Use::Owner),
    policy("until", "C function, constant text with expiry", "control_text_until()", Use::Owner),
    policy("control_uuid", "C function, constant uuid", "control_uuid()", Use::OwnerId),
    policy(
        "control_any",
        "C function, constant text, checked for NULL",
        "control_text()",
        Use::Any,
    ),
    limited(policy("user_id", "`auth.user_id()`", "auth.user_id()", Use::Owner), 1.6),
    limited(policy("uid", "`auth.uid()`", "auth.uid()", Use::OwnerId), 1.6),
    limited(
        policy("session", "`auth.session()`, checked for NULL", "auth.session()", Use::Any),
        1.6,
    ),
    limited(policy("jwt", "`auth.jwt()`, checked for NULL", "auth.jwt()", Use::Any), 1.6),
    limited(policy("role", "`auth.role()`", "auth.role()", Use::Owner), 1.6),
    limited(policy("email", "`auth.email()`", "auth.email()", Use::Owner), 1.6),
    limited(policy("claim", "`auth.claim('sub')`", "auth.claim('sub')", Use::Owner), 5.0),
    limited(
        policy("pointer", "`auth.claim('/org/name')`", "auth.claim('/org/name')", Use::Owner),
        5.0,
    ),
    limited(
        policy(
            "jsonb",
            "`auth.claim_jsonb('org')`, checked for NULL",
            "auth.claim_jsonb('org')",
            Use::Any,
        ),
        5.0,
    ),
    limited(
        policy(
            "variable",
            "`auth.session_variable('x-hasura-user-id')`",
            "auth.session_variable('x-hasura-user-id')",
            Use::Owner,
        ),
        5.0,
    ),
    policy(
        "allows",
        "`auth.allows('data_read', 'docs')`, checked for NULL",
        "auth.allows('data_read', 'docs'::regclass)",
        Use::Any,
    ),
    limited(
        policy(
            "has_scope",
            "`auth.has_scope('todos:write')`, checked for NULL",
            "auth.has_scope('todos:write')",
            Use::Any,
        ),
        3.0,
    ),
    limited(
        policy(
            "signed_in",
            "`auth.signed_in_within('1 hour')`, checked for NULL",
            "auth.signed_in_within('1 hour')",
            Use::Any,
        ),
        3.0,
    ),
    policy("trusting", "`auth.user_id()` from `request.jwt.claims`", "auth.user_id()", Use::Owner),
    policy("member", "`auth.jwt() ->> 'sub'`", "auth.jwt() ->> 'sub'", Use::Owner),
    policy(
        "current_setting",
        "`current_setting('bench.owner')`",
        "current_setting('bench.owner')",
        Use::Owner,
    ),
    slow(policy(
        "claims_setting",
        "`current_setting('request.jwt.claims')::jsonb ->> 'sub'`",
        "current_setting('request.jwt.claims')::jsonb ->> 'sub'",
        Use::Owner,
    )),
    slow(policy(
        "sql_uid",
        "`uid()` in SQL over `request.jwt.claims`",
        "by_sql.uid()",
        Use::OwnerId,
    )),
    policy(
        "sql_uid_once",
        "`(SELECT uid())`, one call of that function",
        "(SELECT by_sql.uid())",
        Use::OwnerId,
    ),
    policy("user_id_once", "`(SELECT auth.user_id())`", "(SELECT auth.user_id())", Use::Owner),
];

/// A session of this role, with a token or with the settings that its policy reads.
fn client(site: &Site, role: &str) -> Client {
    let mut client = site.cluster.as_role(role).client();
    let mut claims = crate::claims();
    match role {
        "uid" => claims["sub"] = USER_UUID.into(),
        "allows" => claims["perm"] = json!([{"t": ["docs"], "a": ["data_read"]}]),
        "has_scope" => claims["scope"] = "openid profile todos:read todos:write".into(),
        "signed_in" => claims["auth_time"] = harness::now().into(),
        "variable" => claims["claims.jwt.hasura.io"] = json!({"X-Hasura-User-Id": USER}),
        _ => {}
    }
    run(&mut client, &format!("SET bench.owner = '{USER}'"));
    match role {
        "claims_setting" | "sql_uid" | "sql_uid_once" | "trusting" => {
            let claims = claims.to_string().replace('\'', "''");
            run(&mut client, &format!("SET request.jwt.claims = '{claims}'"));
        }
        _ => assert_eq!(harness::present(&mut client, &site.key.sign(&claims)), "00000"),
    }
    client
}

/// Creates the tables, and the policies of each role.
pub fn prepare(cluster: &Cluster, control: &str) {
    let admin = &mut cluster.admin();
    for (name, returns) in [("text", "text"), ("text_until", "text"), ("uuid", "uuid")] {
        run(
            admin,
            &format!(
                "CREATE FUNCTION control_{name}() RETURNS {returns} LANGUAGE c STABLE PARALLEL SAFE \
             COST 1 AS '{control}', 'control_{name}'"
            ),
        );
    }
    // The definition of hosted platforms.
    run(
        admin,
        "CREATE SCHEMA by_sql; GRANT USAGE ON SCHEMA by_sql TO PUBLIC; \
        CREATE FUNCTION by_sql.uid() RETURNS uuid LANGUAGE sql STABLE AS $$ \
        SELECT (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub_id')::uuid $$",
    );
    let mut tables = vec![("docs".to_owned(), ROWS), ("folders".to_owned(), ROWS / 10)];
    tables.extend(GROWING.map(|rows| (format!("docs_{rows}"), rows)));
    for (table, rows) in &tables {
        run(
            admin,
            &format!(
                "CREATE UNLOGGED TABLE {table} (id int, folder int, owner text, owner_id uuid); \
             INSERT INTO {table} SELECT n, n % 1000, 'user-' || lpad((n % 1000)::text, 7, '0'), \
             lpad((n % 1000)::text, 32, '0')::uuid FROM generate_series(1, {rows}) n; \
             ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; GRANT SELECT ON {table} TO PUBLIC"
            ),
        );
        run(admin, &format!("VACUUM (FREEZE, ANALYZE) {table}"));
    }
    run(
        admin,
        "CREATE UNLOGGED TABLE indexed AS TABLE docs; CREATE INDEX ON indexed (owner); \
        CREATE INDEX ON indexed (owner_id); ALTER TABLE indexed ENABLE ROW LEVEL SECURITY; \
        GRANT SELECT ON indexed TO PUBLIC; ANALYZE indexed",
    );
    tables.push(("indexed".to_owned(), ROWS));
    for policy in POLICIES {
        run(admin, &format!("CREATE ROLE {} LOGIN", policy.role));
        for (table, _) in &tables {
            run(
                admin,
                &format!(
                    "CREATE POLICY {0} ON {table} TO {0} USING ({1})",
                    policy.role,
                    policy.condition()
                ),
            );
        }
    }
    // The same functions, with many calls for each row.
    run(
        admin,
        &format!(
            "CREATE UNLOGGED TABLE calling AS SELECT * FROM docs LIMIT {CALLING_ROWS}; \
             ALTER TABLE calling ENABLE ROW LEVEL SECURITY; GRANT SELECT ON calling TO PUBLIC"
        ),
    );
    run(admin, "VACUUM (FREEZE, ANALYZE) calling");
    for policy in POLICIES {
        let (role, calls) = (policy.role, [policy.call; CALLS].join(", "));
        let condition = format!("num_nulls(owner, {calls}) = 1");
        run(admin, &format!("CREATE POLICY {role} ON calling TO {role} USING ({condition})"));
    }
    run(admin, "ALTER ROLE trusting SET pg_session_jwt.trust_request_claims = on");
}

/// The shortest times of a query under each of these policies, in seconds, by role.
fn times(
    site: &Site,
    query: &str,
    policies: &[&'static Policy],
    setup: &str,
    rounds: usize,
) -> Vec<(&'static str, f64)> {
    let mut clients: Vec<Client> =
        policies.iter().map(|policy| client(site, policy.role)).collect();
    clients.iter_mut().for_each(|client| run(client, setup));
    let mut runners: Vec<Runner<'_>> = Vec::new();
    for client in &mut clients {
        let statement = client.prepare(query).unwrap();
        runners.push(Box::new(move || {
            client.query_one(&statement, &[]).unwrap();
        }));
    }
    let times = shortest(rounds, &mut runners);
    policies.iter().map(|policy| policy.role).zip(times).collect()
}

fn of(times: &[(&'static str, f64)], role: &str) -> f64 {
    times.iter().find(|(name, _)| *name == role).unwrap().1
}

fn named(roles: &[&str]) -> Vec<&'static Policy> {
    roles.iter().map(|role| by_role(role)).collect()
}

const ALONE: &str = "SET max_parallel_workers_per_gather = 0; SET jit = off";

fn by_role(role: &str) -> &'static Policy {
    POLICIES.iter().find(|policy| policy.role == role).unwrap()
}

/// The tables of costs per row, per call, of whole queries, and of index scans.
pub fn tables(site: &Site) -> Vec<Table> {
    let (slow, fast): (Vec<_>, Vec<_>) = POLICIES.iter().partition(|policy| policy.is_slow);
    let query = "SELECT count(*) FROM docs";
    let mut all = times(site, query, &fast, ALONE, 25);
    all.extend(times(site, query, &slow, ALONE, 2));
    let table = per_row(&all);
    vec![table, per_call(site), whole(site, &all), index(site)]
}

/// A line for each of these policies. `cost` returns nanoseconds. `budget` returns the limit of a policy.
fn lines(
    policies: impl Iterator<Item = &'static Policy>,
    cost: impl Fn(&Policy) -> f64,
    budget: impl Fn(&Policy) -> Budget,
) -> Vec<Line> {
    policies
        .map(|policy| Line {
            what: policy.what.to_owned(),
            this: cost(policy),
            control: cost(by_role(CONTROL)),
            control_name: by_role(CONTROL).what.to_owned(),
            budget: budget(policy),
        })
        .collect()
}

fn per_row(all: &[(&'static str, f64)]) -> Table {
    let cost =
        |policy: &Policy| (of(all, policy.role) - of(all, policy.base())) / ROWS as f64 * 1e9;
    // The noise of a scan is larger than the cost of a call: the budget of a call is in the next table.
    let policies = POLICIES.iter().filter(|policy| !policy.is_literal());
    let mut lines = lines(policies, cost, |_| Budget::None);
    for (role, control, most) in [
        ("user_id", "current_setting", 0.1),
        ("user_id", "claims_setting", 0.01),
        ("allows", "claim", 3.0),
    ] {
        lines.push(Line {
            what: by_role(role).what.to_owned(),
            this: cost(by_role(role)),
            control: cost(by_role(control)),
            control_name: by_role(control).what.to_owned(),
            budget: Budget::Most(most),
        });
    }
    Table {
        title: PER_ROW,
        explanation: format!(
            "The time that a policy adds to each row of a sequential scan of {ROWS} rows, compared with \
             the same policy with a literal instead of the function. The C functions are controls for \
             this table. They return a constant; with expiry, they first compare the statement's start \
             with a number. \"Checked for NULL\" is a policy that passes the value to `num_nulls()`, \
             because a comparison of `jsonb` with a column takes far longer. `uid()` is a function in SQL \
             that reads `request.jwt.claims`, as on hosted platforms. Differences of 2 ns are noise."
        ),
        unit: "ns",
        lines,
    }
}

fn per_call(site: &Site) -> Table {
    let fast: Vec<_> =
        POLICIES.iter().filter(|policy| !policy.is_slow && policy.role != "control_any").collect();
    let all = times(site, "SELECT count(*) FROM calling", &fast, ALONE, 40);
    let called = fast.into_iter().filter(|policy| policy.is_called());
    let calls = (CALLING_ROWS * CALLS) as f64;
    let cost = |policy: &Policy| (of(&all, policy.role) - of(&all, "literal")) / calls * 1e9;
    Table {
        title: "Cost per call",
        explanation: format!(
            "The same functions in a policy that passes {CALLS} of their values to `num_nulls()` for each \
             row, compared with as many literals. This is the cost of a call without the noise of a scan."
        ),
        unit: "ns",
        lines: lines(called, cost, |policy| policy.budget),
    }
}

fn whole(site: &Site, all: &[(&'static str, f64)]) -> Table {
    let milliseconds = |what: &str, this: f64, control: f64, budget| Line {
        what: what.to_owned(),
        this: this * 1e3,
        control: control * 1e3,
        control_name: "a literal".to_owned(),
        budget,
    };
    let mut lines = Vec::new();
    for policy in named(&["user_id", "role", "email", "uid", "session"]) {
        let what = format!("scan of {ROWS} rows, {}", policy.what);
        lines.push(milliseconds(
            &what,
            of(all, policy.role),
            of(all, policy.base()),
            Budget::Most(1.12),
        ));
    }
    let compared = named(&["literal", "user_id", "current_setting"]);
    for (what, query, setup) in [
        (
            "join of two tables with policies",
            "SELECT count(*) FROM docs JOIN folders ON folders.id = docs.id",
            ALONE,
        ),
        (
            "parallel scan of 10000000 rows, two workers",
            "SELECT count(*) FROM docs_10000000",
            "SET max_parallel_workers_per_gather = 2; SET jit = off; SET parallel_leader_participation = off",
        ),
    ] {
        let times = times(site, query, &compared, setup, 8);
        for policy in &compared[1..] {
            lines.push(milliseconds(
                &format!("{what}, {}", policy.what),
                of(&times, policy.role),
                of(&times, "literal"),
                Budget::None,
            ));
        }
    }
    Table {
        title: "Whole queries",
        explanation:
            "Whole queries under the same policies, compared with a literal instead of the function."
                .to_owned(),
        unit: "ms",
        lines,
    }
}

/// The time of a query that uses an index.
fn index(site: &Site) -> Table {
    let roles = ["literal", "user_id", "user_id_once", "claim", "claims_setting"];
    let query = "SELECT count(*) FROM indexed";
    let mut best = vec![f64::INFINITY; roles.len()];
    let mut clients: Vec<Client> = roles.iter().map(|role| client(site, role)).collect();
    for _ in 0..4 {
        for (client, best) in clients.iter_mut().zip(&mut best) {
            run(client, ALONE);
            let statement = client.prepare(query).unwrap();
            let time = latency(Duration::from_millis(400), || {
                client.query_one(&statement, &[]).unwrap();
            });
            *best = best.min(time);
        }
    }
    let lines = named(&roles[1..]).into_iter().zip(&best[1..]).map(|(policy, time)| Line {
        what: policy.what.to_owned(),
        this: time * 1e6,
        control: best[0] * 1e6,
        control_name: "a literal".to_owned(),
        budget: Budget::None,
    });
    Table {
        title: "Index scan",
        explanation: format!(
            "A prepared query that finds 1000 of {ROWS} rows with an index on the policy's column, \
             measured by the client."
        ),
        unit: "µs",
        lines: lines.collect(),
    }
}

/// The cost per row in tables of growing size.
pub fn growth(site: &Site) -> Growth {
    let policies = named(&["literal", "control", "user_id", "claim", "current_setting"]);
    let mut series: Vec<(&'static str, Vec<(f64, f64)>)> = vec![
        ("a literal", Vec::new()),
        ("C function", Vec::new()),
        ("auth.user_id()", Vec::new()),
        ("auth.claim('sub')", Vec::new()),
        ("current_setting()", Vec::new()),
    ];
    for rows in GROWING {
        let rounds = if rows > 1_000_000 { 7 } else { 20 };
        let times =
            times(site, &format!("SELECT count(*) FROM docs_{rows}"), &policies, ALONE, rounds);
        for ((_, points), (_, time)) in series.iter_mut().zip(times) {
            points.push((rows as f64, time / rows as f64 * 1e9));
        }
    }
    Growth { title: "Whole cost per row", axis: "rows", unit: "ns", series }
}
