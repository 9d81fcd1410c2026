//! Questions that are asked in public about row-level security, each as a setup and the sentence that answers it.
//! A comment names the kind of source.

use std::sync::Arc;

use harness::{Preload, SUCCESS, Site, now, present, quote, run};
use postgres::Client;
use serde_json::{Value, json};

use crate::explain::{Row, explain};

/// Who asks.
pub enum Who {
    /// The session of a role, with a token that has these claims, or without one.
    Session(&'static str, Option<&'static str>),
    /// An administrator, for a role and claims.
    Given(&'static str, &'static str),
}

struct Puzzle {
    name: &'static str,
    /// It runs in a schema of its own, after [`TABLE`].
    setup: &'static str,
    who: Who,
    relation: &'static str,
    command: &'static str,
    outcome: &'static str,
    /// A part of the answer.
    answer: &'static str,
}

/// A table with rows of alice and bob, and no policy yet.
pub const TABLE: &str = "
    CREATE TABLE t (id int PRIMARY KEY, owner text, uid uuid, org text, body text);
    INSERT INTO t VALUES (1, 'alice', '00000000-0000-0000-0000-000000000001', 'acme', 'a'),
                         (2, 'bob', '00000000-0000-0000-0000-000000000002', 'globex', 'b'),
                         (3, 'bob', NULL, 'acme', 'c');
    ALTER TABLE t ENABLE ROW LEVEL SECURITY;
    GRANT SELECT, INSERT, UPDATE, DELETE ON t TO app, anon, authenticated;";

const OWN: &str = "CREATE POLICY own ON t USING (owner = auth.user_id());";

const PUZZLES: &[Puzzle] = &[
    // Supabase issues: an empty array since row-level security is on.
    Puzzle {
        name: "no policy",
        setup: "",
        who: Who::Session("app", Some(r#"{"sub": "alice"}"#)),
        relation: "t",
        command: "SELECT",
        outcome: "none",
        answer: "No row is visible: row-level security is on, and the table has no policy.",
    },
    // Supabase questions: rows are inserted and never seen.
    Puzzle {
        name: "a policy for another command",
        setup: "CREATE POLICY add ON t FOR INSERT WITH CHECK (owner = auth.user_id())",
        who: Who::Session("app", Some(r#"{"sub": "alice"}"#)),
        relation: "t",
        command: "SELECT",
        outcome: "none",
        answer: "No row is visible: the policies are for other commands.",
    },
    // Supabase and PostgREST questions: insert().select(), or return=representation.
    Puzzle {
        name: "RETURNING without a policy for SELECT",
        setup: "CREATE POLICY add ON t FOR INSERT WITH CHECK (owner = auth.user_id())",
        who: Who::Session("app", Some(r#"{"sub": "alice"}"#)),
        relation: "t",
        command: "INSERT",
        outcome: "depends",
        answer: "RETURNING needs a policy for SELECT too, and fails (42501).",
    },
    // Supabase issues: the policy names authenticated, and the request is of anon.
    Puzzle {
        name: "a policy for another role",
        setup: "CREATE POLICY own ON t TO authenticated USING (owner = auth.user_id())",
        who: Who::Session("anon", None),
        relation: "t",
        command: "SELECT",
        outcome: "none",
        answer: "the policies for SELECT are for other roles than anon: authenticated.",
    },
    // Supabase documentation issues: auth.uid() is null without a session.
    Puzzle {
        name: "no token",
        setup: OWN,
        who: Who::Session("app", None),
        relation: "t",
        command: "SELECT",
        outcome: "none",
        answer: "The session has no user, and the policies compare with it. No token has been presented",
    },
    // Clerk, Auth0 and Firebase questions: ids that are no UUIDs.
    Puzzle {
        name: "an id that is no UUID",
        setup: "CREATE POLICY own ON t USING (uid = auth.uid())",
        who: Who::Session("app", Some(r#"{"sub": "user_2abc"}"#)),
        relation: "t",
        command: "SELECT",
        outcome: "none",
        answer: "auth.uid() is NULL, because the user id 'user_2abc' is not a UUID.",
    },
    // Clerk issues: invalid input syntax for type uuid.
    Puzzle {
        name: "a cast that fails",
        setup: "CREATE POLICY own ON t USING (uid = auth.user_id()::uuid)",
        who: Who::Given("app", r#"{"sub": "user_2abc"}"#),
        relation: "t",
        command: "SELECT",
        outcome: "error",
        answer: "The policy own raises an error: 22P02: invalid input syntax for type uuid",
    },
    // Neon and Supabase questions: a policy over a membership table that has row-level security itself.
    Puzzle {
        name: "another table without a policy",
        setup: "CREATE TABLE members (org text, member text); INSERT INTO members VALUES ('acme', 'alice');
                ALTER TABLE members ENABLE ROW LEVEL SECURITY; GRANT SELECT ON members TO app;
                CREATE POLICY org ON t USING (org IN (SELECT org FROM members WHERE member = auth.user_id()))",
        who: Who::Session("app", Some(r#"{"sub": "alice"}"#)),
        relation: "t",
        command: "SELECT",
        outcome: "none",
        answer: "A policy reads p.members, of which app sees no row.",
    },
    // PostgREST questions: permission denied for a table in a policy.
    Puzzle {
        name: "another table without a privilege",
        setup: "CREATE TABLE members (org text, member text);
                CREATE POLICY org ON t USING (EXISTS (
                    SELECT FROM members m WHERE m.org = t.org AND m.member = auth.user_id()))",
        who: Who::Given("app", r#"{"sub": "alice"}"#),
        relation: "t",
        command: "SELECT",
        outcome: "error",
        answer: "The policy org raises an error: 42501: permission denied for table members.",
    },
    // Every forum: a policy is not a privilege.
    Puzzle {
        name: "no privilege",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()); REVOKE SELECT ON t FROM app",
        who: Who::Session("app", Some(r#"{"sub": "alice"}"#)),
        relation: "t",
        command: "SELECT",
        outcome: "error",
        answer: "Permission denied for table t (42501). Run: GRANT SELECT ON p.t TO app;",
    },
    // PostgREST issues: permission denied for schema.
    Puzzle {
        name: "no privilege on the schema",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()); REVOKE USAGE ON SCHEMA p FROM PUBLIC",
        who: Who::Given("app", r#"{"sub": "alice"}"#),
        relation: "t",
        command: "SELECT",
        outcome: "error",
        answer: "Permission denied for schema p (42501). Run: GRANT USAGE ON SCHEMA p TO app;",
    },
    // Stack Overflow questions: the policy is there, and all rows are visible.
    Puzzle {
        name: "row-level security is off",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()); ALTER TABLE t DISABLE ROW LEVEL SECURITY",
        who: Who::Session("app", Some(r#"{"sub": "alice"}"#)),
        relation: "t",
        command: "SELECT",
        outcome: "all",
        answer: "All rows: row-level security is off.",
    },
    // Neon and Stack Overflow questions: the application logs in as the owner.
    Puzzle {
        name: "the owner",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()); ALTER TABLE t OWNER TO author",
        who: Who::Session("author", Some(r#"{"sub": "alice"}"#)),
        relation: "t",
        command: "SELECT",
        outcome: "all",
        answer: "All rows: policies do not apply, because author owns the table.",
    },
    // Neon issues: roles that its console creates have BYPASSRLS.
    Puzzle {
        name: "a role with BYPASSRLS",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()); GRANT SELECT ON t TO service",
        who: Who::Session("service", None),
        relation: "t",
        command: "SELECT",
        outcome: "all",
        answer: "All rows: policies do not apply, because service has BYPASSRLS.",
    },
    // Stack Overflow questions: the owner sees nothing once it is forced.
    Puzzle {
        name: "forced for the owner",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()); ALTER TABLE t OWNER TO author;
                ALTER TABLE t FORCE ROW LEVEL SECURITY",
        who: Who::Session("author", None),
        relation: "t",
        command: "SELECT",
        outcome: "none",
        answer: "The session has no user",
    },
    // Supabase issues: infinite recursion detected in policy.
    Puzzle {
        name: "recursion",
        setup: "CREATE POLICY own ON t USING (org IN (SELECT x.org FROM t x WHERE x.owner = auth.user_id()))",
        who: Who::Session("app", Some(r#"{"sub": "alice"}"#)),
        relation: "t",
        command: "SELECT",
        outcome: "error",
        answer: "42P17: infinite recursion detected in policy for relation \"t\"",
    },
    // PostgreSQL mailing lists: restrictive policies alone.
    Puzzle {
        name: "restrictive policies alone",
        setup: "CREATE POLICY own ON t AS RESTRICTIVE USING (owner = auth.user_id())",
        who: Who::Session("app", Some(r#"{"sub": "alice"}"#)),
        relation: "t",
        command: "SELECT",
        outcome: "none",
        answer: "all policies for SELECT are restrictive, and a row needs a permissive one too.",
    },
    Puzzle {
        name: "a restrictive policy",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id());
                CREATE POLICY live ON t AS RESTRICTIVE USING (body IS NULL)",
        who: Who::Given("app", r#"{"sub": "alice"}"#),
        relation: "t",
        command: "SELECT",
        outcome: "none",
        answer: "The policy live is restrictive, and no row passes it: (body IS NULL).",
    },
    // Supabase questions: an update changes nothing, and reports no error.
    Puzzle {
        name: "UPDATE without a policy for SELECT",
        setup: "CREATE POLICY change ON t FOR UPDATE USING (owner = auth.user_id())",
        who: Who::Given("app", r#"{"sub": "alice"}"#),
        relation: "t",
        command: "UPDATE",
        outcome: "none",
        answer: "A statement with WHERE or RETURNING needs a policy for SELECT too, and finds no row.",
    },
    // PostgREST issues: policies that read its setting, in sessions that it does not open.
    Puzzle {
        name: "claims of PostgREST",
        setup: "CREATE POLICY own ON t USING (owner = current_setting('request.jwt.claim.sub', true))",
        who: Who::Session("app", Some(r#"{"sub": "alice"}"#)),
        relation: "t",
        command: "SELECT",
        outcome: "none",
        answer: "The setting request.jwt.claim.sub is empty. Compare with auth.user_id() or auth.claim() instead.",
    },
    // Hasura and Auth0 questions: ids and mail addresses in another case.
    Puzzle {
        name: "letters of another case",
        setup: OWN,
        who: Who::Given("app", r#"{"sub": " Alice"}"#),
        relation: "t",
        command: "SELECT",
        outcome: "none",
        answer: "auth.user_id() is ' Alice', and the column owner differs only by letter case or white space, in 1 rows.",
    },
    // Every forum: the id of another environment or provider.
    Puzzle {
        name: "another id",
        setup: OWN,
        who: Who::Given("app", r#"{"sub": "auth0|alice"}"#),
        relation: "t",
        command: "DELETE",
        outcome: "none",
        answer: "auth.user_id() is 'auth0|alice', and the column owner has other values, such as 'alice'.",
    },
    // Clerk and WorkOS questions: no organisation is active.
    Puzzle {
        name: "a claim that is missing",
        setup: "CREATE POLICY org ON t USING (org = auth.claim('org_id'))",
        who: Who::Session("app", Some(r#"{"sub": "alice"}"#)),
        relation: "t",
        command: "SELECT",
        outcome: "none",
        answer: "The claims lack 'org_id'.",
    },
    // Supabase questions: a custom claim that the hook does not add.
    Puzzle {
        name: "a member of the claims that is missing",
        setup: "CREATE POLICY org ON t USING (org = (auth.jwt() ->> 'org'))",
        who: Who::Given("app", r#"{"sub": "alice"}"#),
        relation: "t",
        command: "SELECT",
        outcome: "none",
        answer: "The claims lack 'org'.",
    },
    // PostgreSQL mailing lists: policies of the partitioned table.
    Puzzle {
        name: "a child",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id());
                CREATE TABLE child () INHERITS (t); GRANT SELECT ON child TO app",
        who: Who::Session("app", Some(r#"{"sub": "alice"}"#)),
        relation: "child",
        command: "all",
        outcome: "off",
        answer: "Policies of p.t apply to statements that name the parent, and not here.",
    },
    // Supabase issues: a view shows everything.
    Puzzle {
        name: "a view",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id());
                CREATE VIEW v AS SELECT * FROM t; GRANT SELECT ON v TO app",
        who: Who::Session("app", Some(r#"{"sub": "alice"}"#)),
        relation: "v",
        command: "all",
        outcome: "none",
        answer: "It is a view: privileges and policies of its tables are those of its owner postgres.",
    },
    // PostgREST issues: a second policy that is true for all rows.
    Puzzle {
        name: "policies are joined by OR",
        setup: "CREATE POLICY own ON t FOR SELECT USING (owner = auth.user_id());
                CREATE POLICY edit ON t USING (true)",
        who: Who::Given("app", r#"{"sub": "alice"}"#),
        relation: "t",
        command: "SELECT",
        outcome: "all",
        answer: "3 of 3 rows.",
    },
    // Stack Overflow questions: a function in a policy that clients may not call.
    Puzzle {
        name: "a function without EXECUTE",
        setup: "CREATE FUNCTION mine(text) RETURNS boolean STABLE LANGUAGE sql AS 'SELECT $1 = auth.user_id()';
                REVOKE EXECUTE ON FUNCTION mine FROM PUBLIC; CREATE POLICY own ON t USING (mine(owner))",
        who: Who::Given("app", r#"{"sub": "alice"}"#),
        relation: "t",
        command: "SELECT",
        outcome: "error",
        answer: "The policy own raises an error: 42501: permission denied for function mine.",
    },
    // Supabase and PostgREST questions: permission denied for sequence.
    Puzzle {
        name: "a sequence",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()); ALTER TABLE t ADD number serial",
        who: Who::Session("app", Some(r#"{"sub": "alice"}"#)),
        relation: "t",
        command: "INSERT",
        outcome: "error",
        answer: "Permission denied for sequence p.t_number_seq (42501), which a default uses. Run: GRANT USAGE",
    },
    // And where nothing is wrong.
    Puzzle {
        name: "some rows",
        setup: OWN,
        who: Who::Given("app", r#"{"sub": "bob"}"#),
        relation: "t",
        command: "UPDATE",
        outcome: "some",
        answer: "2 of 3 rows.",
    },
    Puzzle {
        name: "a table without rows",
        setup: "CREATE POLICY own ON t USING (owner = auth.user_id()); DELETE FROM t",
        who: Who::Given("app", r#"{"sub": "bob"}"#),
        relation: "t",
        command: "SELECT",
        outcome: "none",
        answer: "The table has no rows.",
    },
];

pub fn start() -> Arc<Site> {
    let site = Site::start(Preload::Shared, &[]);
    run(
        &mut site.cluster.admin(),
        "CREATE ROLE anon LOGIN; CREATE ROLE authenticated LOGIN; CREATE ROLE author LOGIN;
         CREATE ROLE service LOGIN BYPASSRLS",
    );
    Arc::new(site)
}

/// A client of a role, with a token that has these claims for ten minutes.
pub fn client(site: &Site, role: &str, claims: Option<&str>) -> Client {
    let mut client = site.cluster.as_role(role).client();
    if let Some(claims) = claims {
        let mut claims: Value = serde_json::from_str(claims).expect("claims");
        claims["exp"] = json!(now() + 600);
        assert_eq!(present(&mut client, &site.key.sign(&claims)), SUCCESS, "{claims}");
    }
    client
}

#[test]
fn each_puzzle_has_an_answer() {
    let site = start();
    let mut admin = site.cluster.admin();
    for puzzle in PUZZLES {
        let Puzzle { name, setup, who, relation, command, outcome, answer } = puzzle;
        run(&mut admin, "CREATE SCHEMA p; GRANT USAGE ON SCHEMA p TO PUBLIC; SET search_path = p");
        run(&mut admin, TABLE);
        run(&mut admin, setup);
        run(&mut admin, "RESET search_path");
        let relation = format!("p.{relation}");
        let rows = match who {
            Who::Session(role, claims) => {
                let mut client = client(&site, role, *claims);
                // The schema may be closed to it.
                explain(&mut client, &quote(&relation))
            }
            Who::Given(role, claims) => explain(
                &mut admin,
                &format!("{}, claims => {}, role => '{role}'", quote(&relation), quote(claims)),
            ),
        };
        let item = if *command == "all" { "row-level security" } else { "answer" };
        let found: Vec<&Row> =
            rows.iter().filter(|row| row.command == *command && row.item == item).collect();
        let [row] = found.as_slice() else {
            panic!("{name}: {rows:#?}");
        };
        assert!(row.detail.contains(answer), "{name}: {rows:#?}");
        assert_eq!(row.outcome, *outcome, "{name}: {rows:#?}");
        run(&mut admin, "DROP SCHEMA p CASCADE");
    }
    assert!(PUZZLES.len() >= 20, "{} puzzles", PUZZLES.len());
}

/// The answer agrees with what the commands do, for an identity as for a token.
#[test]
fn the_counts_are_those_of_the_commands() {
    let site = start();
    let mut admin = site.cluster.admin();
    run(&mut admin, "CREATE SCHEMA p; GRANT USAGE ON SCHEMA p TO PUBLIC; SET search_path = p");
    run(&mut admin, TABLE);
    run(
        &mut admin,
        "CREATE POLICY own ON t USING (owner = auth.user_id());
         CREATE POLICY shared ON t FOR SELECT USING (org = auth.claim('org'));
         CREATE POLICY first ON t AS RESTRICTIVE FOR DELETE USING (id < 3);
         RESET search_path",
    );
    for claims in [
        r#"{"sub": "alice"}"#,
        r#"{"sub": "bob"}"#,
        r#"{"sub": "bob", "org": "acme"}"#,
        r#"{"sub": "carol", "org": "globex"}"#,
    ] {
        let given = format!("'p.t', claims => {}, role => 'app'", quote(claims));
        let rows = explain(&mut admin, &given);
        let mut app = client(&site, "app", Some(claims));
        for (command, statement) in [
            ("SELECT", "SELECT FROM p.t"),
            ("UPDATE", "UPDATE p.t SET body = body WHERE id > 0"),
            ("DELETE", "DELETE FROM p.t WHERE id > 0"),
        ] {
            run(&mut app, "BEGIN");
            let touched = i64::try_from(app.execute(statement, &[]).expect(statement)).unwrap();
            run(&mut app, "ROLLBACK");
            let row = rows
                .iter()
                .find(|row| row.command == command && row.item == "all policies")
                .unwrap_or_else(|| panic!("{command}: {rows:#?}"));
            assert_eq!((row.passed, row.tried), (Some(touched), Some(3)), "{claims}, {command}");
        }
    }
}
