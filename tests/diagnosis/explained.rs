//! The rows of `auth.explain_access()` besides the answers: for relations of each kind, and for policies that apply or do
//! not.

use harness::{db_error, quote, run, text};

use crate::explain::{Row, explain};
use crate::puzzles::{TABLE, Who, client, start};

struct Case {
    name: &'static str,
    /// It runs in a schema of its own, after [`TABLE`].
    setup: &'static str,
    who: Who,
    relation: &'static str,
    /// Rows as `command|item|outcome|passed of tried|detail`, where the detail is a part. A row without an outcome must
    /// not be there.
    rows: &'static [&'static str],
}

const ALICE: Who = Who::Session("app", Some(r#"{"sub": "alice"}"#));
const AS_ALICE: Who = Who::Given("app", r#"{"sub": "alice"}"#);
const OWN: &str = "CREATE POLICY own ON t USING (owner = auth.user_id());";

const CASES: &[Case] = &[
    Case {
        name: "policies of each kind",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()) WITH CHECK (body = 'a');
                CREATE POLICY live ON t AS RESTRICTIVE FOR SELECT USING (id < 3);
                CREATE POLICY other ON t TO anon USING (true);
                CREATE POLICY slow ON t TO author USING (pg_sleep(60) IS NOT NULL)",
        who: AS_ALICE,
        relation: "t",
        rows: &[
            "all|role|app|-|It is the given role.",
            "all|identity|alice|-|It is that of the given claims.",
            "all|row-level security|on|-|Policies apply to app.",
            "all|rows|sampled|- of 3|Of about 3 rows.",
            "SELECT|privilege|allowed|-|",
            "SELECT|policy own USING|permissive|1 of 3|(owner = auth.user_id())",
            "SELECT|policy live USING|restrictive|2 of 3|(id < 3)",
            "SELECT|policy other USING|does not apply|-|For anon: true",
            "SELECT|policy own WITH CHECK||",
            "SELECT|all policies|some|1 of 3|",
            "INSERT|policy own WITH CHECK|permissive|1 of 3|(body = 'a'::text)",
            "INSERT|policy own USING||",
            "INSERT|policy live USING||",
            "INSERT|policy live WITH CHECK||",
            "INSERT|all policies|some|1 of 3|Of existing rows, as if they were new.",
            "UPDATE|policy own USING|permissive|1 of 3|",
            "UPDATE|policy own WITH CHECK|permissive|1 of 3|",
            "UPDATE|all policies|some|1 of 3|With the policies for SELECT. The new row",
            "DELETE|all policies|some|1 of 3|With the policies for SELECT.",
        ],
    },
    Case {
        name: "all rows and no row",
        setup: "CREATE POLICY every ON t FOR SELECT USING (auth.user_id() IS NOT NULL);
                CREATE POLICY change ON t FOR UPDATE USING (owner = auth.user_id())",
        who: Who::Session("app", Some(r#"{"sub": "carol"}"#)),
        relation: "t",
        rows: &[
            "all|role|app|-|It is the current role.",
            "all|identity|carol|-|It is the identity of the session.",
            "all|rows|visible|- of 3|Only rows that app may read are counted.",
            "SELECT|answer|all|-|3 of 3 rows.",
            "SELECT|all policies|all|3 of 3|",
            // The values of rows are shown to administrators only.
            "UPDATE|answer|none|-|No row can be updated: the conditions are false, or the table has no rows.",
            "UPDATE|all policies|none|0 of 3|",
            "DELETE|answer|none|-|No row can be deleted: the policies are for other commands.",
        ],
    },
    Case {
        name: "no visible row",
        setup: OWN,
        who: Who::Session("app", Some(r#"{"sub": "carol"}"#)),
        relation: "t",
        rows: &[
            "all|rows|visible|- of 0|",
            "SELECT|policy own USING|permissive|-|",
            "SELECT|all policies||",
            "SELECT|answer|none|-|No row is visible: the conditions are false, or the table has no rows.",
        ],
    },
    Case {
        name: "a bounded number of visible rows",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id());
                INSERT INTO t (id, owner) SELECT n, 'alice' FROM generate_series(10, 1500) n",
        who: ALICE,
        relation: "t",
        rows: &["all|rows|visible|- of 1000|", "SELECT|all policies|all|1000 of 1000|"],
    },
    Case {
        name: "conditions that are false",
        setup: "CREATE POLICY one ON t USING (id > 10)",
        who: AS_ALICE,
        relation: "t",
        rows: &[
            "SELECT|answer|none|-|No row is visible: the conditions are false for the rows that were tried.",
        ],
    },
    Case {
        name: "the first failure of the command's own policies",
        setup: "CREATE TABLE members (member text); INSERT INTO members VALUES ('alice');
                GRANT SELECT ON members TO app;
                CREATE POLICY bad ON t FOR SELECT USING (uid = auth.user_id()::uuid);
                CREATE POLICY strange ON t FOR SELECT TO anon USING (id / 0 = 1);
                CREATE POLICY add ON t FOR INSERT WITH CHECK (
                    EXISTS (SELECT FROM members m WHERE m.member = auth.user_id()));
                CREATE POLICY change ON t FOR UPDATE USING (true)",
        who: AS_ALICE,
        relation: "t",
        rows: &[
            "SELECT|answer|error|-|The policy bad raises an error: 22P02",
            "SELECT|policy bad USING|permissive|-|22P02: invalid input syntax for type uuid",
            "INSERT|answer|depends|-|A new row must pass the condition below.",
            "UPDATE|answer|error|-|The policy bad raises an error: 22P02",
        ],
    },
    Case {
        name: "row-level security is off",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()); ALTER TABLE t DISABLE ROW LEVEL SECURITY",
        who: AS_ALICE,
        relation: "t",
        rows: &[
            "all|row-level security|off|-|The policies have no effect. Run: ALTER TABLE",
            "all|rows||",
            "SELECT|policy own USING|does not apply|-|",
            "SELECT|all policies||",
            "INSERT|answer|all|-|All rows: row-level security is off.",
        ],
    },
    Case {
        name: "row-level security is off, without policies",
        setup: "ALTER TABLE t DISABLE ROW LEVEL SECURITY",
        who: ALICE,
        relation: "t",
        rows: &["all|row-level security|off|-|Only privileges count."],
    },
    Case {
        name: "a superuser",
        setup: OWN,
        who: Who::Session("postgres", None),
        relation: "t",
        rows: &[
            "all|identity|none|-|No token has been presented",
            "all|row-level security|bypassed|-|Policies do not apply: postgres is a superuser.",
            "all|rows||",
            "SELECT|answer|all|-|All rows: policies do not apply, because postgres is a superuser.",
            "SELECT|policy own USING|does not apply|-|",
        ],
    },
    Case {
        name: "a member of the owner",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()); ALTER TABLE t OWNER TO author;
                CREATE ROLE apprentice LOGIN IN ROLE author",
        who: Who::Session("apprentice", None),
        relation: "t",
        rows: &[
            "SELECT|answer|all|-|All rows: policies do not apply, because apprentice is a member of the owner author.",
        ],
    },
    Case {
        name: "forced",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()); ALTER TABLE t FORCE ROW LEVEL SECURITY",
        who: ALICE,
        relation: "t",
        rows: &["all|row-level security|forced|-|Policies apply to app."],
    },
    Case {
        name: "columns",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()); REVOKE ALL ON t FROM app;
                GRANT SELECT (id, owner), UPDATE (body) ON t TO app",
        who: ALICE,
        relation: "t",
        rows: &[
            "all|rows|visible|- of 1|",
            "SELECT|privilege|columns|-|Of the columns id, owner.",
            "UPDATE|privilege|columns|-|Of the columns body.",
            "INSERT|privilege|denied|-|",
            "DELETE|privilege|denied|-|",
            "DELETE|answer|error|-|Permission denied for table t (42501). Run: GRANT DELETE ON p.t TO app;",
        ],
    },
    Case {
        name: "no privilege to read",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()); REVOKE SELECT ON t FROM app",
        who: ALICE,
        relation: "t",
        rows: &["all|rows|not tried|-|The role may not read them, or some are on another server."],
    },
    Case {
        name: "no privilege on the schema",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()); REVOKE USAGE ON SCHEMA p FROM PUBLIC",
        who: AS_ALICE,
        relation: "t",
        rows: &["SELECT|privilege|denied|-|", "all|rows|sampled|- of 3|"],
    },
    Case {
        name: "a foreign child of a child",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()); CREATE TABLE near () INHERITS (t);
                CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
                CREATE FOREIGN TABLE far () INHERITS (near) SERVER s",
        who: AS_ALICE,
        relation: "t",
        rows: &[
            "all|row-level security|on|-|Policies of its children do not apply to statements that name it.",
            "all|rows|not tried|-|The role may not read them, or some are on another server.",
        ],
    },
    Case {
        name: "a foreign table",
        setup: "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
                CREATE FOREIGN TABLE far (id int) SERVER s; GRANT SELECT ON far TO app",
        who: AS_ALICE,
        relation: "far",
        rows: &[
            "all|row-level security|none|-|It is a foreign table: the other server decides which rows it has.",
            "SELECT|answer|depends|-|The tables behind it decide which rows.",
        ],
    },
    Case {
        name: "a materialized view",
        setup: "CREATE MATERIALIZED VIEW m AS SELECT * FROM t; GRANT ALL ON m TO app",
        who: AS_ALICE,
        relation: "m",
        rows: &[
            "all|row-level security|none|-|It is a materialized view: it has the rows that its owner postgres saw",
            "all|table p.t|bypassed|-|Its policies do not apply to postgres.",
            "SELECT|answer|all|-|All its rows are visible.",
            "UPDATE|answer|error|-|A materialized view cannot be changed.",
        ],
    },
    Case {
        name: "a view over a view",
        setup: "CREATE TABLE plain (id int); CREATE TABLE forced (id int); ALTER TABLE forced OWNER TO author;
                ALTER TABLE forced ENABLE ROW LEVEL SECURITY; ALTER TABLE forced FORCE ROW LEVEL SECURITY;
                CREATE TABLE owned (id int); ALTER TABLE owned OWNER TO author;
                ALTER TABLE owned ENABLE ROW LEVEL SECURITY;
                GRANT SELECT ON t, plain TO author;
                CREATE VIEW inner_view AS SELECT t.id FROM t, plain, forced, owned;
                CREATE VIEW v AS SELECT * FROM inner_view; ALTER VIEW v OWNER TO author; GRANT SELECT ON v TO app",
        who: AS_ALICE,
        relation: "v",
        rows: &[
            "all|row-level security|none|-|It is a view: privileges and policies of its tables are those of its owner author.",
            "all|table p.t|on|-|SELECT * FROM auth.explain_access('p.t') tells more.",
            "all|table p.plain|off|-|",
            "all|table p.forced|on|-|",
            "all|table p.owned|bypassed|-|Its policies do not apply to author.",
            "SELECT|answer|depends|-|The tables behind it decide which rows.",
        ],
    },
    Case {
        name: "a view of the invoker",
        setup: "CREATE VIEW v WITH (security_invoker = true) AS SELECT * FROM t; GRANT SELECT ON v TO app",
        who: AS_ALICE,
        relation: "v",
        rows: &[
            "all|row-level security|none|-|It is a view with security_invoker: privileges and policies of its tables are those of app.",
            "all|table p.t|on|-|",
        ],
    },
    Case {
        name: "a view that is not of the invoker",
        setup: "CREATE VIEW v WITH (security_invoker = false) AS SELECT * FROM t; GRANT SELECT ON v TO app",
        who: AS_ALICE,
        relation: "v",
        rows: &["all|row-level security|none|-|It is a view: ", "all|table p.t|bypassed|-|"],
    },
    Case {
        name: "a parent without row-level security",
        setup: "ALTER TABLE t DISABLE ROW LEVEL SECURITY; CREATE TABLE child () INHERITS (t)",
        who: AS_ALICE,
        relation: "child",
        rows: &["all|row-level security|off|-|Only privileges count.$"],
    },
    Case {
        name: "a table whose name begins that of another",
        setup: "CREATE TABLE tasks (member text); GRANT SELECT ON tasks TO app; INSERT INTO tasks VALUES ('bob');
                CREATE POLICY org ON t USING (EXISTS (SELECT FROM tasks WHERE member = auth.user_id()))",
        who: AS_ALICE,
        relation: "t",
        rows: &[
            "SELECT|answer|none|-|No row is visible: the conditions are false for the rows that were tried.",
        ],
    },
    Case {
        name: "a user that only other policies compare with",
        setup: "CREATE POLICY one ON t FOR SELECT USING (id > 10);
                CREATE POLICY own ON t FOR DELETE USING (owner = auth.user_id() AND uid = auth.uid())",
        who: Who::Given("app", r#"{"role": "x"}"#),
        relation: "t",
        rows: &[
            "SELECT|answer|none|-|No row is visible: the conditions are false for the rows that were tried.",
            "DELETE|answer|none|-|No row can be deleted: The session has no user",
        ],
    },
    Case {
        name: "a claim, a setting and a table that only other policies read",
        setup: "CREATE TABLE members (member text); GRANT SELECT ON members TO app;
                CREATE POLICY one ON t FOR SELECT USING (id > 10);
                CREATE POLICY org ON t FOR UPDATE USING (org = auth.claim('org') AND EXISTS (SELECT FROM members));
                CREATE POLICY near ON t FOR INSERT WITH CHECK (owner = auth.email())",
        who: Who::Given("app", r#"{"sub": "alice", "email": "x"}"#),
        relation: "t",
        rows: &[
            "SELECT|answer|none|-|No row is visible: the conditions are false for the rows that were tried.",
            "INSERT|answer|depends|-|A new row must pass the condition below.",
        ],
    },
    Case {
        name: "an identity that cannot be read",
        setup: "CREATE POLICY own ON t FOR SELECT USING (owner = auth.user_id());
                CREATE POLICY one ON t FOR INSERT WITH CHECK (id > 10);
                REVOKE EXECUTE ON FUNCTION auth.uid FROM PUBLIC",
        who: Who::Given("app", r#"{"sub": "carol"}"#),
        relation: "t",
        rows: &[
            "all|identity|carol|-|42501: permission denied for function uid",
            "SELECT|answer|none|-|No row is visible: The identity cannot be read: 42501: permission denied for function uid.",
            "INSERT|answer|depends|-|A new row must pass the condition below.",
        ],
    },
    Case {
        name: "a restrictive policy of the command",
        setup: "GRANT EXECUTE ON FUNCTION auth.uid TO PUBLIC;
                CREATE POLICY own ON t USING (owner = auth.user_id());
                CREATE POLICY a ON t AS RESTRICTIVE FOR DELETE USING (id > 20);
                CREATE POLICY b ON t AS RESTRICTIVE FOR SELECT USING (id < 10);
                CREATE POLICY c ON t AS RESTRICTIVE FOR SELECT USING (id > 10)",
        who: AS_ALICE,
        relation: "t",
        rows: &["SELECT|answer|none|-|No row is visible: The policy c is restrictive, and no row passes it: (id > 10)."],
    },
    Case {
        name: "a permissive policy that no row passes",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id());
                CREATE POLICY live ON t AS RESTRICTIVE USING (id > 10)",
        who: Who::Given("app", r#"{"sub": "carol"}"#),
        relation: "t",
        rows: &["SELECT|answer|none|-|auth.user_id() is 'carol', and the column owner has other values"],
    },
    Case {
        name: "the column that nearly fits comes first",
        setup: "CREATE POLICY own ON t USING (body = auth.user_id() AND owner = auth.user_id())",
        who: Who::Given("app", r#"{"sub": "ALICE"}"#),
        relation: "t",
        rows: &["SELECT|answer|none|-|the column owner differs only by letter case or white space, in 1 rows."],
    },
    Case {
        name: "a claim of another value",
        setup: "CREATE POLICY org ON t USING (org = auth.claim('org'))",
        who: Who::Given("app", r#"{"sub": "alice", "org": "none"}"#),
        relation: "t",
        rows: &["SELECT|answer|none|-|auth.claim('org'::text) is 'none', and the column org has other values"],
    },
    Case {
        name: "another table whose policy fails",
        setup: "CREATE TABLE members (n int); INSERT INTO members VALUES (1); GRANT SELECT ON members TO app;
                ALTER TABLE members ENABLE ROW LEVEL SECURITY; CREATE POLICY n ON members USING (1 / (n - 1) = 1);
                CREATE POLICY org ON t USING (id > 10 AND EXISTS (SELECT FROM members))",
        who: AS_ALICE,
        relation: "t",
        rows: &["SELECT|answer|none|-|No row is visible: A policy reads p.members, which fails: 22012: division by zero."],
    },
    Case {
        name: "another table, of which one row is read",
        setup: "CREATE TABLE members (n int); INSERT INTO members VALUES (2), (1); GRANT SELECT ON members TO app;
                ALTER TABLE members ENABLE ROW LEVEL SECURITY; CREATE POLICY n ON members USING (1 / (n - 1) = 1);
                CREATE POLICY org ON t USING (id > 10 AND EXISTS (SELECT FROM members))",
        who: AS_ALICE,
        relation: "t",
        rows: &["SELECT|answer|none|-|No row is visible: the conditions are false for the rows that were tried."],
    },
    Case {
        name: "a restrictive policy after a permissive one",
        setup: "CREATE POLICY a ON t USING (id > 10); CREATE POLICY own ON t USING (owner = auth.user_id());
                CREATE POLICY z ON t AS RESTRICTIVE USING (id > 20)",
        who: AS_ALICE,
        relation: "t",
        rows: &["SELECT|answer|none|-|No row is visible: The policy z is restrictive, and no row passes it: (id > 20)."],
    },
    Case {
        name: "a claim that the policy for SELECT reads",
        setup: "CREATE POLICY read ON t FOR SELECT USING (org = auth.claim('org'));
                CREATE POLICY change ON t FOR UPDATE USING (true)",
        who: AS_ALICE,
        relation: "t",
        rows: &["UPDATE|answer|none|-|No row can be updated: The claims lack 'org'."],
    },
    Case {
        name: "policies of another role that read claims and fail",
        setup: "CREATE POLICY a ON t FOR SELECT TO anon USING (org = auth.claim('org'));
                CREATE POLICY one ON t FOR SELECT USING (id > 10);
                CREATE POLICY b ON t FOR DELETE TO anon USING (uid = auth.user_id()::uuid);
                CREATE POLICY c ON t FOR DELETE USING (uid = auth.user_id()::uuid)",
        who: AS_ALICE,
        relation: "t",
        rows: &[
            "SELECT|answer|none|-|No row is visible: the conditions are false for the rows that were tried.",
            "DELETE|answer|error|-|The policy c raises an error: 22P02",
        ],
    },
    Case {
        name: "the same condition for another role",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id());
                CREATE POLICY other ON t TO anon USING (owner = auth.user_id())",
        who: AS_ALICE,
        relation: "t",
        rows: &["SELECT|policy own USING|permissive|1 of 3|", "SELECT|policy other USING|does not apply|-|For anon:"],
    },
    Case {
        name: "own rows that cannot be read",
        setup: "CREATE POLICY own ON t USING (uid = auth.user_id()::uuid);
                REVOKE EXECUTE ON FUNCTION auth.whoami FROM PUBLIC",
        who: ALICE,
        relation: "t",
        rows: &[
            "all|identity|none|-|42501: permission denied for function whoami",
            "all|rows|not tried|-|22P02: invalid input syntax for type uuid",
        ],
    },
    Case {
        name: "views of owners to which no policy applies",
        setup: "GRANT EXECUTE ON FUNCTION auth.whoami TO PUBLIC; GRANT SELECT ON t TO service;
                ALTER TABLE t FORCE ROW LEVEL SECURITY; CREATE VIEW v AS SELECT * FROM t; ALTER VIEW v OWNER TO service",
        who: AS_ALICE,
        relation: "v",
        rows: &["all|table p.t|bypassed|-|Its policies do not apply to service."],
    },
    Case {
        name: "permissions that cannot be read",
        setup: "CREATE POLICY own ON t USING (auth.allows('data_read', 't'));
                REVOKE EXECUTE ON FUNCTION auth.allows FROM PUBLIC",
        who: AS_ALICE,
        relation: "t",
        rows: &["SELECT|permission of the token|denied|-|42501: permission denied for function allows"],
    },
    Case {
        name: "a column without values",
        setup: "UPDATE t SET owner = NULL; CREATE POLICY own ON t USING (owner = auth.user_id())",
        who: AS_ALICE,
        relation: "t",
        rows: &["SELECT|answer|none|-|No row is visible: the conditions are false for the rows that were tried."],
    },
    Case {
        name: "new rows that pass for no identity",
        setup: "CREATE POLICY org ON t FOR INSERT WITH CHECK (org = auth.claim('org'))",
        who: AS_ALICE,
        relation: "t",
        rows: &[
            "INSERT|answer|none|-|No row can be inserted: The claims lack 'org'. RETURNING needs a policy for SELECT too",
        ],
    },
    Case {
        name: "new rows beside values of others",
        setup: OWN,
        who: Who::Given("app", r#"{"sub": "carol"}"#),
        relation: "t",
        rows: &["INSERT|answer|depends|-|A new row must pass the condition below.$"],
    },
    Case {
        name: "a sequence of an identity column, and one that the role may use",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()); ALTER TABLE t ADD number serial;
                ALTER TABLE t ADD other int GENERATED ALWAYS AS IDENTITY; GRANT USAGE ON SEQUENCE t_number_seq TO app",
        who: AS_ALICE,
        relation: "t",
        rows: &["INSERT|answer|depends|-|A new row must pass"],
    },
    Case {
        name: "policies for SELECT that do not help to read",
        setup: "CREATE POLICY change ON t FOR UPDATE USING (owner = auth.user_id());
                CREATE POLICY strict ON t AS RESTRICTIVE FOR SELECT USING (true);
                CREATE POLICY other ON t FOR SELECT TO anon USING (true)",
        who: AS_ALICE,
        relation: "t",
        rows: &["UPDATE|answer|none|-|A statement with WHERE or RETURNING needs a policy for SELECT too, and finds no row."],
    },
    Case {
        name: "a table without rows",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()); DELETE FROM t",
        who: AS_ALICE,
        relation: "t",
        rows: &["all|rows|sampled|- of 0|Of about 0 rows.", "UPDATE|answer|none|-|The table has no rows."],
    },
];

/// Whether a row is as expected, but for a part of the detail; a `$` ends the detail.
fn is_expected(row: &Row, expected: &[&str]) -> bool {
    let number = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
    let counts = match (row.passed, row.tried) {
        (None, None) => "-".to_owned(),
        (passed, tried) => format!("{} of {}", number(passed), number(tried)),
    };
    let is_detail = match expected[4].strip_suffix('$') {
        Some(end) => row.detail.ends_with(end),
        None => row.detail.contains(expected[4]),
    };
    row.outcome == expected[2] && counts == expected[3] && is_detail
}

#[test]
fn each_row_is_as_the_catalogs_and_the_policies_say() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(&mut admin, "SET statement_timeout = '20s'");
    for Case { name, setup, who, relation, rows: expected } in CASES {
        run(&mut admin, "CREATE SCHEMA p; GRANT USAGE ON SCHEMA p TO PUBLIC; SET search_path = p");
        run(&mut admin, TABLE);
        run(&mut admin, setup);
        run(&mut admin, "RESET search_path");
        let relation = quote(&format!("p.{relation}"));
        let rows = match who {
            Who::Session(role, claims) => explain(&mut client(&site, role, *claims), &relation),
            Who::Given(role, claims) => explain(
                &mut admin,
                &format!("{relation}, claims => {}, role => '{role}'", quote(claims)),
            ),
        };
        for line in *expected {
            let parts: Vec<&str> = line.splitn(5, '|').collect();
            let found: Vec<&Row> =
                rows.iter().filter(|row| row.command == parts[0] && row.item == parts[1]).collect();
            match found.as_slice() {
                [] if parts[2].is_empty() => {}
                [row] if parts.len() == 5 && is_expected(row, &parts) => {}
                _ => panic!("{name}: {line}: {found:#?} in {rows:#?}"),
            }
        }
        run(&mut admin, "DROP SCHEMA p CASCADE; DROP FOREIGN DATA WRAPPER IF EXISTS w CASCADE");
    }
}

/// Who reads all rows of a table may explain it for another role; a view has no rows of its own.
#[test]
fn another_role_is_explained_to_readers_of_all_rows() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(&mut admin, TABLE);
    run(
        &mut admin,
        "CREATE ROLE member LOGIN IN ROLE app; CREATE ROLE blind LOGIN NOINHERIT BYPASSRLS IN ROLE app;
         CREATE VIEW v AS SELECT * FROM t",
    );
    for role in ["member", "blind"] {
        let mut caller = site.cluster.as_role(role).client();
        let error = db_error(caller.execute("SELECT auth.explain_access('t', role => 'app')", &[]));
        assert_eq!(
            error.message(),
            "permission denied to explain the access of another role",
            "{role}"
        );
        assert!(!explain(&mut caller, "'v', role => 'app'").is_empty(), "{role}: a view");
    }
}

/// A client without USAGE on the schema can name the table by its OID.
#[test]
fn rows_in_a_closed_schema_are_not_tried() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(&mut admin, "CREATE SCHEMA p; SET search_path = p");
    run(&mut admin, TABLE);
    run(&mut admin, OWN);
    let oid = text(&mut admin, "SELECT 'p.t'::regclass::oid::text").expect("an OID");
    let rows = explain(&mut client(&site, "app", Some(r#"{"sub": "alice"}"#)), &oid);
    let row = rows.iter().find(|row| row.item == "rows").expect("the item");
    assert_eq!(row.outcome, "not tried", "{rows:#?}");
    assert!(row.detail.starts_with("The role may not read them"), "{rows:#?}");
}

/// A setting that was reset has an empty value.
#[test]
fn an_empty_setting_is_no_value() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(&mut admin, TABLE);
    run(
        &mut admin,
        "CREATE POLICY own ON t USING (owner = current_setting('request.jwt.claim.sub', true));
         SET request.jwt.claim.sub = ''",
    );
    let rows = explain(&mut admin, "'t', role => 'app'");
    let answer = rows.iter().find(|row| row.item == "answer").expect("an answer");
    assert!(answer.detail.contains("The setting request.jwt.claim.sub is empty."), "{rows:#?}");
}

/// The policies count, also in a session that has turned row-level security off to get an error in place of a filter.
#[test]
fn policies_count_where_row_security_is_off() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(&mut admin, TABLE);
    run(&mut admin, OWN);
    let mut alice = client(&site, "app", Some(r#"{"sub": "alice"}"#));
    run(&mut alice, "SET row_security = off");
    let rows = explain(&mut alice, "'t'");
    let answer = rows.iter().find(|row| row.item == "answer").expect("an answer");
    assert_eq!(answer.detail, "1 of 1 rows.", "{rows:#?}");
}

/// The hint of a missing role names the role of the claims, where it exists.
#[test]
fn a_missing_role_is_suggested() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(&mut admin, TABLE);
    for (claims, role) in [("authenticated", "authenticated"), ("nobody", "app")] {
        let call =
            format!("SELECT auth.explain_access('t', claims => '{{\"role\": \"{claims}\"}}')");
        let error = db_error(admin.execute(&call, &[]));
        assert!(error.hint().is_some_and(|hint| hint.contains(&format!("'{role}'"))), "{error:?}");
    }
}
