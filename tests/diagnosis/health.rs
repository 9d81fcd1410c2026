//! `auth.health()` as a whole: who may call it, where it works, and the findings about the server.

use harness::{
    Cluster, Connection, INSUFFICIENT_PRIVILEGE, Preload, block_of, run, send, sqlstate,
};

use crate::cases::{documented, findings, statements};
use crate::{linter, roles};

const SCRIPT: &str = include_str!("../../sql/pg_session_jwt--1.0.0.sql");
const PROVIDERS: &str = include_str!("../../src/providers/findings.rs");
const COOKBOOK: &str = include_str!("../../docs/cookbook.md");

/// Each finding of the reference stands in the code, and the tables of cases have those of catalogs.
#[test]
fn the_reference_lists_the_findings() {
    let tested: Vec<&str> =
        linter::CASES.iter().chain(roles::CASES).map(|case| case.finding).collect();
    let (_, script) = SCRIPT.split_once("-- Findings about the setup.").expect("the section");
    let (_, policies) = script.split_once("policy_findings(\n").expect("the function");
    for (_, finding) in documented() {
        let in_script = script.contains(&format!("'{finding}'"));
        assert!(in_script || PROVIDERS.contains(&format!("\"{finding}\"")), "{finding}");
        if policies.contains(&format!("'{finding}'")) {
            assert!(tested.contains(&finding.as_str()), "no case for: {finding}");
        }
    }
}

/// The recipes have none of the linter's findings.
#[test]
fn the_cookbook_has_no_findings() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    run(&mut cluster.admin(), "CREATE ROLE author LOGIN");
    let headings = COOKBOOK.split("\n## ").skip(1).filter_map(|section| section.lines().next());
    for (number, heading) in headings.enumerate() {
        let database = format!("recipe_{number}");
        run(&mut cluster.admin(), &format!("CREATE DATABASE {database} OWNER author"));
        let mut admin = cluster.as_role("postgres").database(&database).client();
        run(&mut admin, "CREATE EXTENSION pg_session_jwt");
        let mut author = cluster.as_role("author").database(&database).client();
        run(&mut author, block_of(COOKBOOK, heading));
        let found = findings(&mut admin, "policy_findings", "");
        assert!(found.is_empty(), "{heading}: {found:#?}");
    }
}

#[test]
fn administrators_may_call_it() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    run(
        &mut admin,
        "CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE ROLE granted LOGIN;
         GRANT EXECUTE ON FUNCTION auth.health(), auth.provider_findings(), auth.server_findings(),
             auth.role_findings(), auth.policy_findings() TO granted",
    );
    let call = "SELECT * FROM auth.health()";
    for (role, code) in [
        ("watcher", harness::SUCCESS),
        ("granted", harness::SUCCESS),
        ("app", INSUFFICIENT_PRIVILEGE),
    ] {
        let mut client = cluster.as_role(role).client();
        assert_eq!(sqlstate(client.batch_execute(call)), code, "{role}");
        // The parts have the privileges of the whole.
        for part in ["provider", "server", "role", "policy"] {
            let call = format!("SELECT auth.{part}_findings()");
            assert_eq!(sqlstate(client.batch_execute(&call)), code, "{role}: {part}");
        }
        let read_only = format!("BEGIN READ ONLY; {call}; COMMIT");
        assert_eq!(sqlstate(client.batch_execute(&read_only)), code, "{role}, read only");
    }
}

/// The severest first.
#[test]
fn findings_are_in_an_order() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    run(&mut admin, "CREATE ROLE service LOGIN BYPASSRLS; CREATE ROLE boss LOGIN SUPERUSER");
    let severities: Vec<String> =
        findings(&mut admin, "health", "").into_iter().map(|finding| finding.severity).collect();
    let rank =
        |severity: &String| ["error", "warning", "info"].iter().position(|one| one == severity);
    assert!(severities.is_sorted_by_key(rank), "{severities:?}");
    assert!(severities.len() >= 3, "{severities:?}");
}

/// The text of the query is that of the function, with the number of another release.
#[test]
fn releases_with_a_known_flaw_are_found() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    let body = send(&mut admin, "SELECT prosrc FROM pg_proc WHERE proname = 'server_findings'");
    let body = body.expect("the body").lines("").join("\n");
    let setting = "current_setting('server_version_num')";
    assert!(body.contains(setting), "{body}");
    for (number, is_known) in [
        (150_019, true),
        (150_020, false),
        (160_000, true),
        (160_015, true),
        (160_016, false),
        (170_011, true),
        (170_012, false),
        (180_006, true),
        (180_007, false),
        (190_000, false),
    ] {
        let query = format!(
            "SELECT count(*) FROM ({}) f (severity, subject, finding, advice)
             WHERE finding = 'the minor release has a known flaw of row-level security'",
            body.replace(setting, &format!("'{number}'"))
        );
        let found = send(&mut admin, &query).expect("the findings").lines("");
        assert_eq!(found, [if is_known { "1" } else { "0" }], "{number}");
    }
}

#[test]
fn settings_of_the_server_are_found() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    for (subject, set, reset) in [
        (
            "trust_request_claims",
            "SET pg_session_jwt.trust_request_claims = on",
            "RESET pg_session_jwt.trust_request_claims",
        ),
        (
            "trust_request_claims",
            "ALTER DATABASE postgres SET pg_session_jwt.trust_request_claims = on",
            "ALTER DATABASE postgres RESET pg_session_jwt.trust_request_claims",
        ),
        ("audit_log", "SET pg_session_jwt.audit_log = off", "SET pg_session_jwt.audit_log = on"),
        (
            "schema auth",
            "CREATE ROLE planter; GRANT CREATE ON SCHEMA auth TO planter",
            "REVOKE CREATE ON SCHEMA auth FROM planter",
        ),
        (
            "schema auth",
            "GRANT CREATE ON SCHEMA auth TO PUBLIC",
            "REVOKE CREATE ON SCHEMA auth FROM PUBLIC",
        ),
        (
            "schema auth",
            "ALTER SCHEMA auth OWNER TO planter",
            "ALTER SCHEMA auth OWNER TO postgres",
        ),
    ] {
        run(&mut admin, set);
        let found = findings(&mut admin, "server_findings", subject);
        assert_eq!(found.len(), 1, "{set}: {found:?}");
        run(&mut admin, reset);
        let found = findings(&mut admin, "server_findings", subject);
        assert!(found.is_empty(), "{reset}: {found:?}");
    }
}

/// Five connections of one program are a pool, and so is one of a pooler.
#[test]
fn pooled_sessions_with_lasting_identities_are_found() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    let connect = |name: &str| {
        Connection::clone(&cluster.as_role("app")).option("application_name", name).client()
    };
    let mut clients: Vec<_> = (0..4).map(|_| connect("web")).collect();
    assert!(findings(&mut admin, "server_findings", "role app").is_empty(), "four sessions");
    clients.push(connect("web"));
    let found = findings(&mut admin, "server_findings", "role app");
    assert_eq!(found.len(), 1, "five sessions");
    drop(clients);
    harness::wait_for("the sessions to end", || {
        findings(&mut admin, "server_findings", "role app").is_empty()
    });
    let pooler = connect("PgBouncer");
    let found = findings(&mut admin, "server_findings", "role app");
    let [finding] = found.as_slice() else {
        panic!("a pooler: {found:?}");
    };
    run(&mut admin, &statements(&finding.advice));
    let found = findings(&mut admin, "server_findings", "role app");
    assert!(found.is_empty(), "with the setting of the role: {found:?}");
    drop(pooler);
}
