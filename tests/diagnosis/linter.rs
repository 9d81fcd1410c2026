//! The findings about tables, policies, views and functions.

use harness::{Cluster, Preload, run, send};

use crate::cases::{Case, Cure, expect_none, findings};

/// A table without a finding, in the schema of the case.
const TABLE: &str = "
    CREATE TABLE t (id int PRIMARY KEY, owner text DEFAULT auth.user_id(), team int, uid uuid, org text,
                    short varchar(40));
    CREATE INDEX ON t (owner);
    CREATE INDEX ON t (team);
    CREATE INDEX ON t (uid);
    CREATE INDEX ON t (short);
    ALTER TABLE t ENABLE ROW LEVEL SECURITY;
    GRANT SELECT, INSERT, UPDATE, DELETE ON t TO app;
    CREATE POLICY own ON t TO app USING (owner = auth.user_id());";

const OWN: &str =
    "DROP POLICY IF EXISTS own ON t; CREATE POLICY own ON t TO app USING (owner = auth.user_id())";

pub const CASES: &[Case] = &[
    Case {
        severity: "error",
        subject: "table c.t",
        finding: "policies have no effect: row-level security is off",
        make: "ALTER TABLE t DISABLE ROW LEVEL SECURITY",
        cure: Cure::Advice,
    },
    Case {
        severity: "warning",
        subject: "table c.t",
        finding: "row-level security is on without a policy: clients see no rows",
        make: "DROP POLICY own ON t",
        cure: Cure::Statements(OWN),
    },
    Case {
        severity: "warning",
        subject: "table c.t",
        finding: "all policies are restrictive: clients see no rows",
        make: "DROP POLICY own ON t; CREATE POLICY own ON t AS RESTRICTIVE TO app USING (owner = auth.user_id())",
        cure: Cure::Statements(OWN),
    },
    // No other role has privileges: so the clients are the owner.
    Case {
        severity: "error",
        subject: "table c.t",
        finding: "policies do not apply to the owner, as which clients log in",
        make: "ALTER TABLE t OWNER TO author; REVOKE ALL ON t FROM app",
        cure: Cure::Advice,
    },
    // A policy names the owner.
    Case {
        severity: "error",
        subject: "table c.t",
        finding: "policies do not apply to the owner, as which clients log in",
        make: "ALTER TABLE t OWNER TO author;
               CREATE POLICY mine ON t FOR SELECT TO author USING (owner = auth.user_id())",
        cure: Cure::Advice,
    },
    // The owner has settings of the extension.
    Case {
        severity: "error",
        subject: "table c.t",
        finding: "policies do not apply to the owner, as which clients log in",
        make: "ALTER TABLE t OWNER TO author;
               ALTER ROLE author SET pg_session_jwt.identity_scope = 'transaction'",
        cure: Cure::Statements("ALTER ROLE author RESET ALL"),
    },
    Case {
        severity: "error",
        subject: "table c.child",
        finding: "a partition or child can be read around the policies of its parent",
        make: "CREATE TABLE child () INHERITS (t); GRANT SELECT ON child TO app",
        cure: Cure::Statements("REVOKE ALL ON child FROM app"),
    },
    Case {
        severity: "warning",
        subject: "table c.plain",
        finding: "clients have privileges on a table without row-level security",
        make: "CREATE TABLE plain (id int); GRANT SELECT ON plain TO app",
        cure: Cure::Statements("REVOKE ALL ON plain FROM app"),
    },
    Case {
        severity: "warning",
        subject: "table c.plain",
        finding: "clients have privileges on a table without row-level security",
        make: "CREATE TABLE plain (id int); GRANT UPDATE (id) ON plain TO PUBLIC",
        cure: Cure::Statements("REVOKE UPDATE (id) ON plain FROM PUBLIC"),
    },
    Case {
        severity: "warning",
        subject: "policy open on c.t",
        finding: "a policy for writing is always true",
        make: "CREATE POLICY open ON t FOR INSERT TO app WITH CHECK (true)",
        cure: Cure::Statements("ALTER POLICY open ON t WITH CHECK (owner = auth.user_id())"),
    },
    Case {
        severity: "error",
        subject: "policy open on c.t",
        finding: "a policy for writing is always true",
        make: "CREATE POLICY open ON t FOR DELETE USING (1 = 1)",
        cure: Cure::Statements(
            "CREATE POLICY limits ON t AS RESTRICTIVE FOR DELETE USING (owner = auth.user_id())",
        ),
    },
    Case {
        severity: "info",
        subject: "table c.t",
        finding: "several permissive policies for one role and command",
        make: "CREATE POLICY second ON t TO app USING (id = 1)",
        cure: Cure::Statements("DROP POLICY second ON t"),
    },
    Case {
        severity: "error",
        subject: "policy staff on c.t",
        finding: "a policy trusts a claim that users can edit",
        make: "CREATE POLICY staff ON t FOR SELECT TO app
               USING (auth.claim('/user_metadata/role') = 'staff')",
        cure: Cure::Statements(
            "ALTER POLICY staff ON t USING (auth.claim('/app_metadata/role') = 'staff')",
        ),
    },
    Case {
        severity: "error",
        subject: "policy staff on c.t",
        finding: "a policy trusts a claim that users can edit",
        make: "CREATE POLICY staff ON t FOR SELECT TO app
               USING (auth.claim_jsonb('unsafeMetadata') @> '{\"staff\": true}')",
        cure: Cure::Statements("DROP POLICY staff ON t"),
    },
    Case {
        severity: "error",
        subject: "policy claims on c.t",
        finding: "a policy trusts a setting that every role can set",
        make: "CREATE POLICY claims ON t FOR SELECT TO app
               USING (owner = current_setting('request.jwt.claims', true)::json ->> 'sub')",
        cure: Cure::Statements("DROP POLICY claims ON t"),
    },
    Case {
        severity: "warning",
        subject: "policy claims on c.t",
        finding: "a policy trusts a setting that every role can set",
        make: "CREATE POLICY claims ON t FOR SELECT TO app USING (owner = current_setting('app.user'))",
        cure: Cure::Statements("ALTER POLICY claims ON t USING (owner = auth.user_id())"),
    },
    Case {
        severity: "info",
        subject: "policy org on c.t",
        finding: "a policy searches the claims for each row",
        make: "CREATE INDEX ON t (org);
               CREATE POLICY org ON t FOR SELECT TO app USING (auth.jwt() ->> 'org' = org)",
        cure: Cure::Statements("ALTER POLICY org ON t USING (auth.claim('org') = org)"),
    },
    Case {
        severity: "info",
        subject: "policy own_uid on c.t",
        finding: "a cast of the column defeats its index",
        make: "CREATE POLICY own_uid ON t FOR SELECT TO app USING (uid::text = auth.user_id())",
        cure: Cure::Statements("ALTER POLICY own_uid ON t USING (uid = auth.uid())"),
    },
    Case {
        severity: "info",
        subject: "policy org on c.t",
        finding: "a compared column has no index",
        make: "CREATE POLICY org ON t FOR SELECT TO app USING (org = auth.claim('org'))",
        cure: Cure::Advice,
    },
    // The identity on the left, a cast of it, and a sub-select.
    Case {
        severity: "info",
        subject: "policy org on c.t",
        finding: "a compared column has no index",
        make: "CREATE POLICY org ON t FOR SELECT TO app USING ((SELECT auth.claim('org'))::text = org)",
        cure: Cure::Advice,
    },
    Case {
        severity: "info",
        subject: "policy org on c.t",
        finding: "a checked column has no default",
        make: "CREATE POLICY org ON t FOR INSERT TO app WITH CHECK (org = auth.claim('org'))",
        cure: Cure::Advice,
    },
    Case {
        severity: "info",
        subject: "policy team on c.t",
        finding: "IN with a sub-select cannot use the index of the column",
        make: "CREATE TABLE m (team int, member text);
               CREATE POLICY team ON t FOR SELECT TO app
                   USING (team IN (SELECT team FROM m WHERE member = auth.user_id()))",
        cure: Cure::Statements(
            "ALTER POLICY team ON t
                 USING (team = ANY (ARRAY(SELECT team FROM m WHERE member = auth.user_id())))",
        ),
    },
    Case {
        severity: "info",
        subject: "policy admin on c.t",
        finding: "a function without columns is called for each row",
        make: "CREATE FUNCTION is_admin(text) RETURNS boolean STABLE LANGUAGE sql AS 'SELECT $1 = ''x''';
               CREATE POLICY admin ON t FOR SELECT TO app USING (is_admin(auth.user_id()))",
        cure: Cure::Statements("ALTER POLICY admin ON t USING ((SELECT is_admin(auth.user_id())))"),
    },
    Case {
        severity: "error",
        subject: "view c.v",
        finding: "a view of its owner shows all rows of a protected table",
        make: "CREATE VIEW inner_view AS SELECT * FROM t; CREATE VIEW v AS SELECT * FROM inner_view;
               GRANT SELECT ON v TO app",
        cure: Cure::Statements("ALTER VIEW inner_view SET (security_invoker);
                                ALTER VIEW v SET (security_invoker = on)"),
    },
    Case {
        severity: "warning",
        subject: "view c.v",
        finding: "a view of its owner shows all rows of a protected table",
        make: "CREATE VIEW v WITH (security_barrier) AS SELECT * FROM t WHERE owner = auth.user_id();
               GRANT SELECT ON v TO app",
        cure: Cure::Advice,
    },
    Case {
        severity: "error",
        subject: "materialized view c.v",
        finding: "a materialized view stores rows of a protected table",
        make: "CREATE MATERIALIZED VIEW v AS SELECT count(*) FROM t; GRANT SELECT ON v TO app",
        cure: Cure::Statements("REVOKE ALL ON v FROM app"),
    },
    Case {
        severity: "warning",
        subject: "foreign table c.f",
        finding: "no policy can restrict the rows of a foreign table",
        make: "CREATE FOREIGN TABLE f (id int) SERVER elsewhere; GRANT SELECT ON f TO app",
        cure: Cure::Statements("REVOKE ALL ON f FROM app"),
    },
    Case {
        severity: "error",
        subject: "function c.rows()",
        finding: "every role may call a security-definer function over a protected table",
        make: "CREATE FUNCTION rows() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
                   SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN (SELECT count(*) FROM c.t); END'",
        cure: Cure::Advice,
    },
    // A body in standard SQL has dependencies, and no names.
    Case {
        severity: "error",
        subject: "function c.rows()",
        finding: "every role may call a security-definer function over a protected table",
        make: "CREATE FUNCTION rows() RETURNS bigint LANGUAGE sql SECURITY DEFINER
                   BEGIN ATOMIC SELECT count(*) FROM t; END",
        cure: Cure::Advice,
    },
    Case {
        severity: "warning",
        subject: "function c.mine()",
        finding: "a security-definer function has no fixed search_path",
        make: "CREATE FUNCTION mine() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER
                   AS 'SELECT count(*) FROM c.t WHERE owner = auth.user_id()'",
        cure: Cure::Advice,
    },
    Case {
        severity: "error",
        subject: "function c.me()",
        finding: "a function that reads the identity is marked IMMUTABLE or LEAKPROOF",
        make: "CREATE FUNCTION me() RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT auth.user_id()'",
        cure: Cure::Advice,
    },
    Case {
        severity: "warning",
        subject: "view c.v",
        finding: "a view filters by the identity, and is no security barrier",
        make: "CREATE TABLE u (owner text); CREATE VIEW v AS SELECT * FROM u WHERE owner = auth.user_id();
               GRANT SELECT ON v TO app",
        cure: Cure::Advice,
    },
    Case {
        severity: "warning",
        subject: "materialized view c.v",
        finding: "a materialized view stores values of the identity of its last refresh",
        make: "CREATE MATERIALIZED VIEW v AS SELECT auth.user_id(); GRANT SELECT ON v TO app",
        cure: Cure::Statements("REVOKE ALL ON v FROM app"),
    },
    Case {
        severity: "warning",
        subject: "constraint own_rows on c.t",
        finding: "a constraint reads the identity",
        make: "ALTER TABLE t ADD CONSTRAINT own_rows CHECK (owner = auth.user_id())",
        cure: Cure::Statements("ALTER TABLE t DROP CONSTRAINT own_rows"),
    },
];

/// A cluster with the roles of the cases.
fn start() -> Cluster {
    let cluster = Cluster::start(Preload::Shared, &[]);
    run(
        &mut cluster.admin(),
        "CREATE ROLE author LOGIN; CREATE FOREIGN DATA WRAPPER nothing;
         CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing",
    );
    cluster
}

#[test]
fn each_finding_appears_and_disappears() {
    let cluster = start();
    let mut admin = cluster.admin();
    run(&mut admin, "SET client_min_messages = error");
    for case in CASES {
        run(&mut admin, "CREATE SCHEMA c; SET search_path = c");
        run(&mut admin, TABLE);
        case.check(&mut admin, "policy_findings", "");
        run(&mut admin, "ALTER ROLE author RESET ALL; DROP SCHEMA c CASCADE; RESET search_path");
    }
}

/// Setups that are near to a finding.
#[test]
fn sound_setups_have_no_finding() {
    let cluster = start();
    let mut admin = cluster.admin();
    for make in [
        // Of no role but the owner, who is no client.
        "CREATE TABLE locked (id int); ALTER TABLE locked ENABLE ROW LEVEL SECURITY",
        "CREATE TABLE internal (id int)",
        "ALTER TABLE t OWNER TO author",
        "CREATE TABLE child () INHERITS (t)",
        // The same for all.
        "CREATE POLICY all_rows ON t FOR SELECT TO app USING (true)",
        "CREATE POLICY base ON t FOR DELETE USING (true);
         CREATE POLICY limits ON t AS RESTRICTIVE USING (owner = auth.user_id())",
        // Other commands, and other roles.
        "CREATE POLICY shared ON t FOR SELECT TO app USING (id = 1)",
        "CREATE POLICY of_author ON t TO author USING (owner = auth.user_id())",
        "CREATE POLICY staff ON t FOR SELECT TO app USING (auth.claim('/app_metadata/role') = 'staff')",
        "CREATE POLICY words ON t FOR SELECT TO app USING (org = 'user_metadata')",
        "CREATE POLICY zone ON t FOR SELECT TO app USING (org = current_setting('TimeZone'))",
        // A cast that the index knows, and other indexes.
        "CREATE POLICY short ON t FOR SELECT TO app USING (short = auth.user_id())",
        "CREATE INDEX ON t (org, team);
         CREATE POLICY org ON t FOR SELECT TO app USING (org = auth.claim('org') AND team = auth.claim('team')::int)",
        // A role that cannot insert needs no default.
        "REVOKE INSERT ON t FROM app; CREATE INDEX ON t (org);
         CREATE POLICY org ON t FOR INSERT TO app WITH CHECK (org = auth.claim('org'))",
        "CREATE FUNCTION has(t) RETURNS boolean STABLE LANGUAGE sql AS 'SELECT $1.id = 1';
         CREATE POLICY has ON t FOR SELECT TO app USING (has(t))",
        "CREATE VIEW v WITH (security_invoker = true) AS SELECT * FROM t; GRANT SELECT ON v TO app",
        "CREATE VIEW v AS SELECT * FROM t",
        "CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             SET search_path = pg_catalog AS 'BEGIN PERFORM FROM c.t; RETURN NULL; END'",
        "CREATE FUNCTION mine() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
             AS 'SELECT count(*) FROM c.t WHERE owner = auth.user_id()'",
        "CREATE TEMP TABLE scratch (id int); GRANT SELECT ON scratch TO app",
    ] {
        run(&mut admin, "CREATE SCHEMA c; SET search_path = c");
        run(&mut admin, TABLE);
        run(&mut admin, make);
        let found = findings(&mut admin, "policy_findings", "");
        assert!(found.is_empty(), "{make}: {found:#?}");
        run(&mut admin, "DROP TABLE IF EXISTS pg_temp.scratch; DROP SCHEMA c CASCADE; RESET search_path");
    }
}

/// Names of objects are quoted, in subjects and in statements. No text of a user is run or is taken for a
/// pattern.
#[test]
fn hostile_names_are_quoted() {
    let cluster = start();
    let mut admin = cluster.admin();
    let name = r#""a'b""c (.*) = auth.user_id( %s \1 $1;-- "#;
    run(
        &mut admin,
        &format!(
            r#"CREATE SCHEMA {name}";
               CREATE TABLE {name}".{name}" ({name}" text);
               ALTER TABLE {name}".{name}" ENABLE ROW LEVEL SECURITY;
               GRANT SELECT ON {name}".{name}" TO app;
               CREATE POLICY {name}" ON {name}".{name}" FOR SELECT TO app USING ({name}" = auth.user_id());
               CREATE FUNCTION {name}".{name}"() RETURNS bigint LANGUAGE sql SECURITY DEFINER
                   SET search_path = pg_catalog AS $$ SELECT count(*) FROM {name}".{name}" $$"#
        ),
    );
    let found = findings(&mut admin, "policy_findings", "");
    let [finding] = found.as_slice() else {
        panic!("{found:#?}");
    };
    assert_eq!(finding.subject, format!(r#"policy {name}" on {name}".{name}""#), "the subject");
    let index = format!(r#"CREATE INDEX ON {name}".{name}" ({name}");"#);
    assert_eq!(finding.advice, format!("Run: {index}"), "the advice");
    run(&mut admin, &index);
    expect_none(&mut admin, "SELECT * FROM auth.policy_findings()", "with the index");
}

/// The function runs as its caller, and calls nothing that another role has created: neither in the search path
/// nor in policies, defaults or types.
#[test]
fn it_runs_no_code_of_others() {
    let cluster = start();
    let mut admin = cluster.admin();
    run(
        &mut admin,
        "CREATE SCHEMA evil AUTHORIZATION app; GRANT USAGE ON SCHEMA evil TO PUBLIC;
         CREATE TABLE evil.called (what text); GRANT INSERT ON evil.called TO PUBLIC",
    );
    let mut app = cluster.as_role("app").client();
    let trap =
        "LANGUAGE plpgsql AS $$ BEGIN INSERT INTO evil.called VALUES ('x'); RETURN true; END $$";
    run(
        &mut app,
        &format!(
            "CREATE FUNCTION evil.equal(text, text) RETURNS boolean {trap};
             CREATE OPERATOR evil.= (FUNCTION = evil.equal, LEFTARG = text, RIGHTARG = text);
             CREATE FUNCTION evil.equal(oid, oid) RETURNS boolean {trap};
             CREATE OPERATOR evil.= (FUNCTION = evil.equal, LEFTARG = oid, RIGHTARG = oid);
             CREATE FUNCTION evil.trap() RETURNS boolean {trap};
             CREATE TABLE evil.t (id int, ok boolean DEFAULT evil.trap());
             ALTER TABLE evil.t ENABLE ROW LEVEL SECURITY;
             CREATE POLICY p ON evil.t USING (evil.trap() AND id = (SELECT 1 WHERE evil.trap()));
             CREATE VIEW evil.v AS SELECT evil.trap() FROM evil.t; GRANT SELECT ON evil.v TO PUBLIC"
        ),
    );
    run(&mut admin, "SET search_path = evil, pg_catalog");
    let count = "SELECT pg_catalog.count(*) FROM auth.health()";
    let found = send(&mut admin, count).expect("the findings").lines("");
    assert_ne!(found, ["0"], "findings");
    run(&mut admin, "RESET search_path");
    expect_none(&mut admin, "SELECT * FROM evil.called", "functions of others");
}

/// Each of two thousand tables has its findings, and the lists of columns do not mix.
#[test]
fn many_tables_have_their_own_findings() {
    let cluster = start();
    let mut admin = cluster.admin();
    run(
        &mut admin,
        "DO $$ BEGIN
             FOR i IN 1..2000 LOOP
                 EXECUTE format('CREATE TABLE t%1$s (id int PRIMARY KEY, owner text DEFAULT auth.user_id());
                     ALTER TABLE t%1$s ENABLE ROW LEVEL SECURITY;
                     CREATE POLICY own ON t%1$s TO app USING (owner = auth.user_id());
                     CREATE POLICY pub ON t%1$s FOR SELECT TO app USING (id IN (SELECT id FROM t1));
                     GRANT SELECT, INSERT, UPDATE, DELETE ON t%1$s TO app', i);
             END LOOP;
         END $$",
    );
    let count = "SELECT count(*) FROM auth.health() WHERE finding ~ 'no index'";
    let found = send(&mut admin, count).expect("the findings").lines("");
    assert_eq!(found, ["2000"], "the findings");
}
