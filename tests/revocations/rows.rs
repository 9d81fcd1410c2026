//! The rows of `auth.revocations`: who writes them, and which are rejected.

use harness::{
    Code, INSUFFICIENT_PRIVILEGE, OBJECT_NOT_IN_PREREQUISITE_STATE, Preload, SUCCESS, Wire,
    db_error, present, run, sqlstate,
};
use postgres::Client;

use super::fixture::*;

const WRONG: &str = Code::Configuration.sqlstate();

#[test]
fn rows_that_name_no_token_are_rejected() {
    let site = site();
    let mut admin = site.cluster.admin();
    let long = format!("repeat('x', {})", session_jwt::MAX_TOKEN_BYTES + 1);
    let fits = format!("repeat('x', {})", session_jwt::MAX_TOKEN_BYTES);
    for (arguments, code) in [
        ("".to_owned(), WRONG),
        ("reason => 'because'".to_owned(), WRONG),
        ("before => 'infinity'".to_owned(), WRONG),
        ("subject => ''".to_owned(), WRONG),
        ("subject => 'a', jti => ''".to_owned(), WRONG),
        ("issuer => '', subject => 'a'".to_owned(), WRONG),
        ("sid => ''".to_owned(), WRONG),
        (format!("jti => {long}"), WRONG),
        (format!("subject => 'a', reason => {long}"), WRONG),
        (format!("jti => {fits}"), SUCCESS),
        ("subject => 'a', reason => ''".to_owned(), SUCCESS),
        ("issuer => 'a'".to_owned(), SUCCESS),
        ("subject => 'a', expires => '-infinity'".to_owned(), SUCCESS),
    ] {
        let outcome = admin.query(&format!("SELECT auth.revoke({arguments})"), &[]);
        assert_eq!(sqlstate(outcome), code, "{arguments:.40}");
    }
    let error = db_error(admin.query("SELECT auth.revoke()", &[]));
    assert_eq!(error.message(), "revocation is wrong");
    assert!(error.hint().unwrap().starts_with("Give a subject, a jti or a sid."), "{error:?}");
    let update = "UPDATE auth.revocations SET issuer = NULL, subject = NULL";
    assert_eq!(sqlstate(admin.batch_execute(update)), WRONG, "{update}");
    unrevoke_all(&mut admin);
}

#[test]
fn privileges() {
    let site = site();
    let mut admin = site.cluster.admin();
    let mut client = site.client();
    for call in [
        "SELECT auth.revoke(subject => 'alice')",
        "SELECT auth.unrevoke(1)",
        "SELECT auth.logout('x')",
        "SELECT auth.prune_revocations()",
        "SELECT auth.verify_logout('x', NULL)",
        "SELECT FROM auth.revocations",
        "SELECT FROM auth.revocation_status",
        "INSERT INTO auth.revocations (subject) VALUES ('alice')",
        "DELETE FROM auth.revocations",
        "TRUNCATE auth.revocations",
        "BEGIN; LOCK TABLE auth.revocations",
    ] {
        assert_eq!(sqlstate(client.batch_execute(call)), INSUFFICIENT_PRIVILEGE, "{call}");
        run(&mut client, "ROLLBACK");
    }

    // The right to revoke is no right to read or to take back.
    run(&mut admin, "GRANT EXECUTE ON FUNCTION auth.revoke, auth.logout TO app");
    let id = revoke(&mut client, "subject => 'alice', reason => 'r'");
    let origin = "SELECT concat_ws(' ', subject, reason, created_by, created = before) FROM auth.revocations";
    assert_eq!(cell(&mut admin, origin), "alice r app t");
    for call in [&format!("SELECT auth.unrevoke({id})"), "SELECT FROM auth.revocations"] {
        assert_eq!(sqlstate(client.batch_execute(call)), INSUFFICIENT_PRIVILEGE, "{call}");
    }
    unrevoke_all(&mut admin);
    run(&mut admin, "CREATE ROLE support; GRANT support TO app");
    run(&mut client, "SET ROLE support");
    assert_eq!(
        sqlstate(client.batch_execute("SELECT auth.revoke(subject => 'alice')")),
        INSUFFICIENT_PRIVILEGE
    );
    run(&mut admin, "GRANT EXECUTE ON FUNCTION auth.revoke TO support");
    revoke(&mut client, "subject => 'alice'");
    run(&mut client, "RESET ROLE");
    assert_eq!(cell(&mut admin, "SELECT created_by FROM auth.revocations"), "support");
    unrevoke_all(&mut admin);
    run(
        &mut admin,
        "REVOKE ALL ON FUNCTION auth.revoke, auth.logout FROM app, support; DROP ROLE support",
    );

    // A role that may write the table says who it is.
    run(&mut admin, "GRANT SELECT, INSERT, UPDATE, DELETE ON auth.revocations TO app");
    run(&mut client, "INSERT INTO auth.revocations (subject) VALUES ('alice')");
    assert_eq!(cell(&mut admin, origin), "alice app t");
    for (statement, code) in [
        (
            "INSERT INTO auth.revocations (subject, created_by) VALUES ('bob', 'postgres')",
            INSUFFICIENT_PRIVILEGE,
        ),
        (
            "INSERT INTO auth.revocations (subject, created) VALUES ('bob', 'epoch')",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("UPDATE auth.revocations SET created_by = 'postgres'", INSUFFICIENT_PRIVILEGE),
        ("UPDATE auth.revocations SET created = 'epoch'", INSUFFICIENT_PRIVILEGE),
        ("UPDATE auth.revocations SET reason = 'more'", SUCCESS),
        ("INSERT INTO auth.revocations (subject, created_by) VALUES ('bob', 'app')", SUCCESS),
        ("TRUNCATE auth.revocations", INSUFFICIENT_PRIVILEGE),
        ("DELETE FROM auth.revocations", SUCCESS),
    ] {
        assert_eq!(sqlstate(client.batch_execute(statement)), code, "{statement}");
    }
    run(
        &mut admin,
        "INSERT INTO auth.revocations (subject, created, created_by) VALUES ('bob', 'epoch', 'x')",
    );
    run(&mut admin, "REVOKE ALL ON auth.revocations FROM app");
    unrevoke_all(&mut admin);

    // With these, a role could have a revocation skipped, or kept from being removed.
    run(
        &mut admin,
        "GRANT TRIGGER, REFERENCES, INSERT ON auth.revocations TO app; GRANT CREATE ON SCHEMA public TO app",
    );
    run(
        &mut client,
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    );
    for statement in [
        "CREATE TRIGGER a BEFORE INSERT ON auth.revocations FOR EACH ROW EXECUTE FUNCTION skip()",
        "CREATE TABLE mine (id bigint REFERENCES auth.revocations)",
    ] {
        assert_eq!(
            sqlstate(client.batch_execute(statement)),
            INSUFFICIENT_PRIVILEGE,
            "{statement}"
        );
    }
    run(&mut client, "DROP FUNCTION skip()");
    run(
        &mut admin,
        "REVOKE ALL ON auth.revocations FROM app; REVOKE CREATE ON SCHEMA public FROM app",
    );
}

#[test]
fn monitoring_names_nobody() {
    let site = site();
    let mut admin = site.cluster.admin();
    revoke(
        &mut admin,
        "subject => 'alice-secret', sid => 'sid-secret', issuer => 'https://i', reason => 'reason-secret'",
    );
    revoke(&mut admin, "jti => 'jti-secret'");
    run(&mut admin, "CREATE ROLE monitor LOGIN; GRANT pg_monitor TO monitor");
    let mut monitor = site.cluster.as_role("monitor").client();
    let rows = "SELECT string_agg(s::text, ' ' ORDER BY id) FROM auth.revocation_status s";
    let rows = cell(&mut monitor, rows);
    assert!(!rows.contains("secret"), "{rows}");
    let names = "SELECT string_agg(concat(issuer, ' ', names), '; ' ORDER BY id) FROM auth.revocation_status";
    assert_eq!(cell(&mut monitor, names), "https://i sid, subject, issuer;  jti");
    drop(monitor);
    run(&mut admin, "DROP ROLE monitor");
    unrevoke_all(&mut admin);
}

#[test]
fn rows_are_pruned_and_removed() {
    let site = site();
    let mut admin = site.cluster.admin();
    let alice = site.token_of("alice");
    revoke(&mut admin, "subject => 'alice', expires => clock_timestamp()");
    revoke(&mut admin, "subject => 'bob', expires => 'infinity'");
    revoke(&mut admin, "subject => 'carol'");
    // It may go, but is there.
    let mut client = site.client();
    assert_eq!(present(&mut client, &alice), Code::Revoked.sqlstate());
    assert_eq!(cell(&mut admin, "SELECT auth.prune_revocations()::text"), "1");
    assert_eq!(present(&mut client, &alice), SUCCESS, "pruned");
    assert_eq!(cell(&mut admin, "SELECT auth.prune_revocations()::text"), "0");
    let left = "SELECT string_agg(subject, ', ' ORDER BY id) FROM auth.revocations";
    assert_eq!(cell(&mut admin, left), "bob, carol");
    for id in ["0", "NULL"] {
        let unrevoke = format!("SELECT auth.unrevoke({id})");
        assert_eq!(
            sqlstate(admin.batch_execute(&unrevoke)),
            Code::NoProvider.sqlstate(),
            "{unrevoke}"
        );
    }
    unrevoke_all(&mut admin);
}

/// Statements that take revocations back without a word.
#[test]
fn the_table_is_not_truncated() {
    let site = site();
    let mut admin = site.cluster.admin();
    revoke(&mut admin, "subject => 'alice'");
    let alice = site.token_of("alice");
    for statement in [
        "TRUNCATE auth.revocations",
        "TRUNCATE auth.revocations CASCADE",
        "SET session_replication_role = replica; TRUNCATE auth.revocations",
    ] {
        assert_eq!(
            sqlstate(admin.batch_execute(statement)),
            OBJECT_NOT_IN_PREREQUISITE_STATE,
            "{statement}"
        );
        run(&mut admin, "RESET session_replication_role");
        assert_eq!(present(&mut site.client(), &alice), Code::Revoked.sqlstate(), "{statement}");
    }
    unrevoke_all(&mut admin);
}

/// Rows that a worker of logical replication writes, or COPY.
#[test]
fn every_writer_invalidates() {
    let site = site();
    let mut admin = site.cluster.admin();
    let alice = site.token_of("alice");
    let mut client = site.client();
    let write = |admin: &mut Client, statement: &str| run(admin, statement);
    for (statement, code) in [
        (
            "SET session_replication_role = replica; INSERT INTO auth.revocations (subject) VALUES ('alice'); RESET session_replication_role",
            Code::Revoked.sqlstate(),
        ),
        ("UPDATE auth.revocations SET subject = 'bob'", SUCCESS),
        ("UPDATE auth.revocations SET subject = 'alice'", Code::Revoked.sqlstate()),
        ("UPDATE auth.revocations SET before = 'epoch'", SUCCESS),
        ("UPDATE auth.revocations SET before = 'infinity'", Code::Revoked.sqlstate()),
        ("UPDATE auth.revocations SET jti = 'x'", SUCCESS),
        ("UPDATE auth.revocations SET jti = NULL", Code::Revoked.sqlstate()),
        ("DELETE FROM auth.revocations", SUCCESS),
        (
            "MERGE INTO auth.revocations r USING (SELECT 'alice' AS s) x ON r.subject = x.s WHEN NOT MATCHED THEN INSERT (subject) VALUES (x.s)",
            Code::Revoked.sqlstate(),
        ),
        ("WITH gone AS (DELETE FROM auth.revocations RETURNING id) SELECT FROM gone", SUCCESS),
    ] {
        write(&mut admin, statement);
        if code == SUCCESS {
            assert_eq!(present(&mut client, &alice), SUCCESS, "{statement}");
        } else {
            assert_eq!(code_of_user_or_present(&mut client, &alice), code, "{statement}");
        }
    }
}

fn code_of_user_or_present(client: &mut Client, token: &str) -> String {
    match client.query_one(WHO, &[]).ok().and_then(|row| row.get::<_, Option<String>>(0)) {
        Some(_) => SUCCESS.to_owned(),
        None => present(client, token),
    }
}

#[test]
fn slips_are_warned_of() {
    let site = site();
    let mut wire = Wire::connect(&site.cluster.as_role("postgres")).unwrap();
    let unserved = "no provider has the issuer of the revocation";
    let everybody = "tokens of all users of the issuer are revoked";
    for (arguments, expected) in [
        ("issuer => 'https://id.example.com', subject => 'alice'", [0, 0]),
        ("issuer => 'https://id.example.com/', subject => 'alice'", [1, 0]),
        ("issuer => 'https://typo', subject => 'alice'", [1, 0]),
        ("subject => 'alice'", [0, 0]),
        ("issuer => 'https://id.example.com', sid => NULL", [0, 1]),
        ("issuer => 'https://typo'", [1, 1]),
    ] {
        wire.ask(&format!("SELECT auth.revoke({arguments})"), &[]).unwrap().unwrap();
        let notices = wire.notices();
        let count = |message: &str| {
            notices.iter().filter(|notice| notice.get(b'M') == Some(message)).count()
        };
        assert_eq!([unserved, everybody].map(count), expected, "{arguments}: {notices:?}");
    }
    unrevoke_all(&mut site.cluster.admin());
}

#[test]
fn the_audit_log_has_each_change() {
    let site = Site::start(Preload::Shared, &[("pg_session_jwt.audit_log", "on")]);
    let mut admin = site.cluster.admin();
    revoke(
        &mut admin,
        "subject => 'ali\"ce', sid => 's1', before => '2026-01-02 03:04:05+00', reason => 'lost'",
    );
    run(&mut admin, "UPDATE auth.revocations SET reason = 'stolen'");
    unrevoke(&mut admin, 1);
    let log = site.cluster.log();
    for line in [
        r#"outcome=revoked id=1 sub="ali\"ce" sid="s1" before="2026-01-02 03:04:05+00" reason="lost" by="postgres""#,
        r#"outcome=revocation-changed id=1 sub="ali\"ce" sid="s1" before="2026-01-02 03:04:05+00" reason="stolen""#,
        r#"outcome=unrevoked id=1 sub="ali\"ce" sid="s1""#,
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
}
