//! `auth.protect()`: policies that ask the token.

use harness::{
    Code, DEPENDENT_OBJECTS_STILL_EXIST, NULL_VALUE_NOT_ALLOWED, Preload, SUCCESS, WARNING,
    WRONG_OBJECT_TYPE, Wire, run, sqlstate,
};
use serde_json::json;

use super::fixture::*;

/// All policies, and whether they are permissive.
const POLICIES: &str = "SELECT string_agg(polname || ' ' || polcmd::text || polpermissive, ', '
                        ORDER BY polname) FROM pg_policy";

/// Those that `auth.protect()` makes.
fn own_policies(permissive: &str) -> String {
    [("add", "a"), ("delete", "d"), ("read", "r"), ("update", "w")]
        .map(|(name, command)| format!("pg_session_jwt_data_{name} {command}{permissive}"))
        .join(", ")
}

/// The SQLSTATEs of the notices that a statement brings.
fn notices(wire: &mut Wire, sql: &str) -> Vec<String> {
    assert_eq!(wire.run(sql), SUCCESS, "{sql}");
    wire.notices().iter().map(|notice| notice.sqlstate().to_owned()).collect()
}

#[test]
fn owners_protect_tables() {
    let fixture = SITES.beside_others(Preload::Shared);
    let mut dev = fixture.dev();
    let mut client = fixture.client();
    assert_eq!(data(&mut client), "3 1 3 3", "what each statement does");
    for sql in ["SELECT auth.protect('comments')", "SELECT auth.protect('comments', true)"] {
        assert_eq!(attempt(&mut client, sql), Code::Forbidden.sqlstate(), "{sql}");
    }
    assert_eq!(
        attempt(&mut dev, "CREATE VIEW v AS TABLE comments; SELECT auth.protect('v')"),
        WRONG_OBJECT_TYPE,
        "a view is no table"
    );
    assert_eq!(
        attempt(&mut dev, "SELECT auth.protect(NULL)"),
        NULL_VALUE_NOT_ALLOWED,
        "attempt(SELECT auth.protect(NULL))"
    );
    assert_eq!(
        attempt(&mut dev, "SELECT auth.protect('comments', NULL)"),
        NULL_VALUE_NOT_ALLOWED,
        "attempt(SELECT auth.protect('comments', NULL))"
    );
    assert_eq!(data(&mut client), "3 1 3 3", "what each statement does");
}

#[test]
fn protected_tables_ask_the_token() {
    let fixture = Fixture::new();
    let (mut dev, mut client) = (fixture.dev(), fixture.client());
    for _ in 0..2 {
        run(&mut dev, "SELECT auth.protect('comments')");
        assert_eq!(
            answer(&mut dev, POLICIES),
            own_policies("true"),
            "after SELECT auth.protect('comments')"
        );
    }
    assert_eq!(data(&mut client), "0 42501 0 0", "after SELECT auth.protect('comments')");
    for (permissions, expected) in [
        ("comments:data_read", "3 42501 0 0"),
        ("comments:data_add", "0 1 0 0"),
        ("comments:data_update", "0 42501 3 0"),
        ("comments:data_delete", "0 42501 0 3"),
        ("all:data_read,data_add,data_update,data_delete", "3 1 3 3"),
        ("secrets:data_read,data_add,data_update,data_delete", "0 42501 0 0"),
        ("comments:schema_add,schema_update,schema_delete", "0 42501 0 0"),
    ] {
        fixture.grant(&mut client, &[permissions]);
        assert_eq!(data(&mut client), expected, "{permissions}");
    }
    // A table of the same name in the caller's own places changes nothing.
    fixture.grant(&mut client, &["comments:data_read"]);
    run(&mut client, "CREATE TEMP TABLE comments (); SET search_path = pg_temp, hidden, public");
    assert_eq!(
        answer(&mut client, "SELECT count(*) FROM public.comments"),
        "3",
        "answer(SELECT count(*) FROM public.comments)"
    );
    run(&mut client, "DROP TABLE pg_temp.comments; RESET search_path");
}

#[test]
fn policies_follow_the_name_of_the_table() {
    let fixture = Fixture::new();
    let (mut dev, mut client) = (fixture.dev(), fixture.client());
    run(&mut dev, "SELECT auth.protect('comments')");
    run(&mut dev, "ALTER TABLE comments RENAME TO remarks; ALTER TABLE secrets RENAME TO comments");
    assert_eq!(
        answer(&mut client, "SELECT count(*) FROM remarks"),
        "0",
        "answer(SELECT count(*) FROM remarks)"
    );
    fixture.grant(&mut client, &["remarks:data_read"]);
    assert_eq!(
        answer(&mut client, "SELECT count(*) FROM remarks"),
        "3",
        "answer(SELECT count(*) FROM remarks)"
    );
    run(&mut dev, "ALTER TABLE comments RENAME TO secrets; ALTER TABLE remarks RENAME TO comments");
}

/// A permissive policy counts beside permissive ones, and not beside restrictive ones.
#[test]
fn other_policies_are_warned_of() {
    let fixture = Fixture::new();
    let (mut dev, mut client) = (fixture.dev(), fixture.client());
    run(&mut dev, "SELECT auth.protect('comments')");
    run(&mut dev, "CREATE POLICY few ON comments USING (id < 3)");
    let mut wire = Wire::connect(&fixture.cluster.as_role("dev")).unwrap();
    assert_eq!(
        notices(&mut wire, "SELECT auth.protect('comments')"),
        [WARNING],
        "after CREATE POLICY few ON comments USING (id < 3)"
    );
    fixture.be(&mut client, &json!({}));
    assert_eq!(
        data(&mut client),
        "2 42501 2 2",
        "after CREATE POLICY few ON comments USING (id < 3)"
    );
    assert!(
        notices(&mut wire, "SELECT auth.protect('comments', true)").is_empty(),
        "after CREATE POLICY few ON comments USING (id < 3)"
    );
    assert_eq!(
        data(&mut client),
        "0 42501 0 0",
        "after CREATE POLICY few ON comments USING (id < 3)"
    );
    fixture.grant(&mut client, &["comments:data_read,data_update"]);
    assert_eq!(
        data(&mut client),
        "2 42501 2 0",
        "after CREATE POLICY few ON comments USING (id < 3)"
    );
    fixture.be(&mut client, &json!({"a": "rw"}));
    assert_eq!(
        data(&mut client),
        "2 42501 2 2",
        "after CREATE POLICY few ON comments USING (id < 3)"
    );
    assert_eq!(
        answer(&mut dev, POLICIES),
        format!("few *true, {}", own_policies("false")),
        "after CREATE POLICY few ON comments USING (id < 3)"
    );
}

/// It is for the owner to do.
#[test]
fn unprotecting_does_not_open_the_table() {
    let fixture = Fixture::new();
    let (mut dev, mut client) = (fixture.dev(), fixture.client());
    let mut wire = Wire::connect(&fixture.cluster.as_role("dev")).unwrap();
    run(&mut dev, "SELECT auth.protect('comments')");
    fixture.be(&mut client, &json!({"a": "rw"}));
    assert_eq!(
        attempt(&mut client, "SELECT auth.unprotect('comments')"),
        Code::Forbidden.sqlstate(),
        "after SELECT auth.protect('comments')"
    );
    assert_eq!(
        notices(&mut wire, "SELECT auth.unprotect('comments')"),
        [SUCCESS],
        "after SELECT auth.protect('comments')"
    );
    assert_eq!(answer(&mut dev, POLICIES), "-", "after SELECT auth.protect('comments')");
    assert_eq!(data(&mut client), "0 42501 0 0", "after SELECT auth.protect('comments')");
    run(&mut dev, "SELECT auth.unprotect('comments')");
    // A protected table can be dropped.
    run(&mut dev, "SELECT auth.protect('comments'); DROP TABLE comments");
}

#[test]
fn the_extension_goes_with_its_policies_or_not_at_all() {
    let fixture = Fixture::new();
    let (mut admin, mut client) = (fixture.admin(), fixture.client());
    run(&mut admin, "SELECT auth.protect_schema(); SELECT auth.protect_schema()");
    assert_eq!(
        sqlstate(admin.batch_execute("DROP EXTENSION pg_session_jwt")),
        DEPENDENT_OBJECTS_STILL_EXIST,
        "sqlstate(admin.batch_execute(DROP EXTENSION pg_session_jwt))"
    );
    run(&mut admin, "SELECT auth.unprotect_schema(); SELECT auth.unprotect_schema()");
    assert_eq!(
        attempt(&mut admin, "DROP EXTENSION pg_session_jwt"),
        SUCCESS,
        "attempt(DROP EXTENSION pg_session_jwt)"
    );
    run(&mut admin, "SELECT auth.protect('comments')");
    assert_eq!(
        sqlstate(admin.batch_execute("DROP EXTENSION pg_session_jwt")),
        DEPENDENT_OBJECTS_STILL_EXIST,
        "after SELECT auth.protect('comments')"
    );
    run(&mut admin, "SELECT auth.protect_schema(); DROP EXTENSION pg_session_jwt CASCADE");
    assert_eq!(data(&mut client), "0 42501 0 0", "what each statement does");
    run(&mut fixture.dev(), "CREATE TABLE free ()");
}
