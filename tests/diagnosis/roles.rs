//! The findings about login roles.

use harness::{Cluster, Preload, run};

use crate::cases::{Case, Cure, findings};

pub const CASES: &[Case] = &[
    Case {
        severity: "error",
        subject: "role boss",
        finding: "a login role is a superuser",
        make: "CREATE ROLE boss LOGIN SUPERUSER",
        cure: Cure::Statements("ALTER ROLE boss NOSUPERUSER"),
    },
    Case {
        severity: "error",
        subject: "role deputy",
        finding: "a login role is a member of a superuser",
        make: "CREATE ROLE boss SUPERUSER; CREATE ROLE between IN ROLE boss; CREATE ROLE deputy LOGIN IN ROLE between",
        cure: Cure::Statements("REVOKE between FROM deputy"),
    },
    Case {
        severity: "warning",
        subject: "role service",
        finding: "a login role bypasses row-level security",
        make: "CREATE ROLE service LOGIN BYPASSRLS",
        cure: Cure::Advice,
    },
    Case {
        severity: "warning",
        subject: "role authenticator",
        finding: "a login role is a member of a role that bypasses row-level security",
        make: "CREATE ROLE service BYPASSRLS; CREATE ROLE authenticator LOGIN IN ROLE service",
        cure: Cure::Statements("REVOKE service FROM authenticator"),
    },
    Case {
        severity: "warning",
        subject: "role author",
        finding: "a login role owns protected tables",
        make: "CREATE ROLE author LOGIN; CREATE TABLE t (id int);
               ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t OWNER TO author",
        cure: Cure::Statements("ALTER TABLE t FORCE ROW LEVEL SECURITY"),
    },
];

#[test]
fn each_finding_appears_and_disappears() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    for case in CASES {
        case.check(&mut admin, "role_findings", "");
        run(
            &mut admin,
            "DROP TABLE IF EXISTS t; DROP ROLE IF EXISTS boss, between, deputy, service, authenticator, author",
        );
    }
}

/// Only a token gives a locked login role another role.
#[test]
fn a_locked_role_may_be_a_member() {
    let cluster = Cluster::start(
        Preload::Shared,
        &[("pg_session_jwt.locked_roles", "authenticator, \"Odd, name\"")],
    );
    let mut admin = cluster.admin();
    run(
        &mut admin,
        "CREATE ROLE service BYPASSRLS; CREATE ROLE authenticator LOGIN IN ROLE service;
         CREATE ROLE \"Odd, name\" LOGIN IN ROLE service; CREATE ROLE open LOGIN IN ROLE service",
    );
    let subjects: Vec<String> = findings(&mut admin, "role_findings", "")
        .into_iter()
        .map(|finding| finding.subject)
        .collect();
    assert_eq!(subjects, ["role open"], "members");
}
