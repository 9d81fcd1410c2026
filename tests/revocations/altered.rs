//! A table of revocations that is not as it was installed: no token is accepted.

use harness::{Code, Preload, SUCCESS, db_error, present, run};

use super::fixture::*;

const WRONG: &str = Code::Configuration.sqlstate();

#[test]
fn an_altered_table_accepts_no_token() {
    let site = Site::start(Preload::Shared, &[]);
    let mut admin = site.cluster.admin();
    let (alice, bob) = (site.token_of("alice"), site.token_of("bob"));
    let mut client = site.client();
    revoke(&mut admin, "subject => 'alice'");
    for (alter, restore) in [
        (
            "ALTER TABLE auth.revocations RENAME subject TO s",
            "ALTER TABLE auth.revocations RENAME s TO subject",
        ),
        (
            "ALTER TABLE auth.revocations DISABLE TRIGGER check_revocation",
            "ALTER TABLE auth.revocations ENABLE ALWAYS TRIGGER check_revocation",
        ),
        (
            "ALTER TABLE auth.revocations ENABLE TRIGGER check_revocation",
            "ALTER TABLE auth.revocations ENABLE ALWAYS TRIGGER check_revocation",
        ),
        (
            "ALTER TABLE auth.revocations DISABLE TRIGGER keep_revocations",
            "ALTER TABLE auth.revocations ENABLE ALWAYS TRIGGER keep_revocations",
        ),
        (
            "ALTER TABLE auth.revocations DISABLE TRIGGER ALL",
            "ALTER TABLE auth.revocations ENABLE ALWAYS TRIGGER check_revocation; ALTER TABLE auth.revocations ENABLE ALWAYS TRIGGER keep_revocations",
        ),
        ("ALTER TABLE auth.revocations SET UNLOGGED", "ALTER TABLE auth.revocations SET LOGGED"),
        ("ALTER TABLE auth.revocations ALTER key DROP EXPRESSION", ""),
    ] {
        run(&mut admin, alter);
        assert_eq!(present(&mut client, &bob), WRONG, "{alter}");
        assert_eq!(present(&mut site.client(), &alice), WRONG, "{alter}");
        let error = db_error(client.execute("SELECT auth.jwt_session_init($1)", &[&bob]));
        assert_eq!(error.message(), "table of revocations was altered", "{alter}");
        assert!(error.detail().is_some() && error.hint().is_some(), "{alter}: {error:?}");
        if restore.is_empty() {
            break;
        }
        run(&mut admin, restore);
        assert_eq!(present(&mut client, &bob), SUCCESS, "{restore}");
        assert_eq!(present(&mut client, &alice), Code::Revoked.sqlstate(), "{restore}");
    }
}

/// An open session notices it too.
#[test]
fn an_open_session_has_no_identity_then() {
    let site = Site::start(Preload::Shared, &[]);
    let mut admin = site.cluster.admin();
    let mut client = site.client();
    assert_eq!(present(&mut client, &site.token_of("bob")), SUCCESS);
    run(&mut admin, "ALTER TABLE auth.revocations DISABLE TRIGGER check_revocation");
    assert_eq!(code_of_user(&mut client), WRONG);
    run(&mut admin, "ALTER TABLE auth.revocations ENABLE ALWAYS TRIGGER check_revocation");
    assert_eq!(code_of_user(&mut client), SUCCESS);
}

/// Indexes decide about the speed only.
#[test]
fn an_index_that_lacks_rows_is_not_used() {
    let site = Site::start(Preload::Shared, &[]);
    let mut admin = site.cluster.admin();
    let alice = site.token_of("alice");
    for index in [
        "DROP INDEX auth.revocations_key_idx",
        "CREATE INDEX revocations_key_idx ON auth.revocations (key, before) WHERE id < 0",
        "CREATE INDEX revocations_key_idx ON auth.revocations (before, key)",
        "CREATE INDEX revocations_key_idx ON auth.revocations USING hash (key)",
        "CREATE INDEX revocations_key_idx ON auth.revocations USING brin (key, before)",
        // As after a failure of CREATE INDEX CONCURRENTLY.
        "CREATE INDEX revocations_key_idx ON auth.revocations (key, before);
         UPDATE pg_index SET indisvalid = false, indisready = false
         WHERE indexrelid = 'auth.revocations_key_idx'::regclass",
    ] {
        run(
            &mut admin,
            "DROP INDEX IF EXISTS auth.revocations_key_idx; DELETE FROM auth.revocations",
        );
        if index.starts_with("CREATE") {
            run(&mut admin, index);
        }
        revoke(&mut admin, "subject => 'alice'");
        assert_eq!(present(&mut site.client(), &alice), Code::Revoked.sqlstate(), "{index}");
    }
}

/// Policies and rules on the table concern who writes it, and not which tokens it revokes.
#[test]
fn policies_and_rules_revoke_nothing_less() {
    let site = Site::start(Preload::Shared, &[]);
    let mut admin = site.cluster.admin();
    let alice = site.token_of("alice");
    revoke(&mut admin, "subject => 'alice'");
    run(
        &mut admin,
        "ALTER TABLE auth.revocations ENABLE ROW LEVEL SECURITY; ALTER TABLE auth.revocations FORCE ROW LEVEL SECURITY;
         CREATE POLICY nothing ON auth.revocations AS RESTRICTIVE USING (false)",
    );
    assert_eq!(present(&mut site.client(), &alice), Code::Revoked.sqlstate(), "policies");
    run(
        &mut admin,
        "DROP POLICY nothing ON auth.revocations; ALTER TABLE auth.revocations DISABLE ROW LEVEL SECURITY",
    );
    // A revocation that is not stored is an error.
    run(&mut admin, "CREATE RULE nothing AS ON INSERT TO auth.revocations DO INSTEAD NOTHING");
    let outcome = admin.query("SELECT auth.revoke(subject => 'bob')", &[]);
    assert_ne!(harness::sqlstate(outcome), SUCCESS, "a rule");
    run(
        &mut admin,
        "DROP RULE nothing ON auth.revocations;
         CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER a BEFORE INSERT ON auth.revocations FOR EACH ROW EXECUTE FUNCTION skip()",
    );
    let error = db_error(admin.query("SELECT auth.revoke(subject => 'bob')", &[]));
    assert_eq!(error.message(), "revocation was not stored");
    run(&mut admin, "DROP TRIGGER a ON auth.revocations");
    assert_eq!(present(&mut site.client(), &alice), Code::Revoked.sqlstate());
}

#[test]
fn a_dropped_table_accepts_no_token() {
    let site = Site::start(Preload::Shared, &[]);
    let mut admin = site.cluster.admin();
    let bob = site.token_of("bob");
    let mut client = site.client();
    assert_eq!(present(&mut client, &bob), SUCCESS);
    assert_ne!(
        harness::sqlstate(admin.batch_execute("DROP TABLE auth.revocations CASCADE")),
        SUCCESS
    );
    run(
        &mut admin,
        "ALTER EXTENSION pg_session_jwt DROP VIEW auth.revocation_status; DROP VIEW auth.revocation_status;
         ALTER EXTENSION pg_session_jwt DROP SEQUENCE auth.revocations_id_seq;
         ALTER EXTENSION pg_session_jwt DROP TABLE auth.revocations",
    );
    assert_eq!(present(&mut site.client(), &bob), WRONG, "not of the extension");
    run(&mut admin, "DROP TABLE auth.revocations");
    assert_eq!(present(&mut client, &bob), WRONG, "dropped");
    let error = db_error(client.execute("SELECT auth.jwt_session_init($1)", &[&bob]));
    assert!(error.hint().unwrap().contains("drop and create the extension"), "{error:?}");
    run(&mut admin, "DROP EXTENSION pg_session_jwt CASCADE");
    // Without the extension, there are no revocations.
    run(&mut client, &format!("SET pg_session_jwt.jwt = '{bob}'"));
    run(&mut admin, "CREATE EXTENSION pg_session_jwt");
    assert_eq!(present(&mut client, &bob), SUCCESS, "created again");
    revoke(&mut admin, "subject => 'bob'");
    assert_eq!(code_of_user(&mut client), Code::Revoked.sqlstate());
}

/// The extension is dropped while a session waits for the lock of its table.
#[test]
fn a_table_that_is_dropped_meanwhile_is_missing() {
    let site = Site::start(Preload::Shared, &[]);
    let mut admin = site.cluster.admin();
    let mut client = site.client();
    assert_eq!(present(&mut client, &site.token_of("alice")), SUCCESS);
    revoke(&mut admin, "subject => 'bob'");
    run(&mut admin, "BEGIN; DROP EXTENSION pg_session_jwt CASCADE");
    let token = site.token_of("carol");
    let pid = harness::backend_pid(&mut client);
    let waiting = std::thread::spawn(move || {
        let set = format!("SET pg_session_jwt.jwt = '{token}'");
        (harness::sqlstate(client.batch_execute(&set)), client)
    });
    let mut observer = site.cluster.admin();
    let waits =
        format!("SELECT (wait_event_type = 'Lock')::text FROM pg_stat_activity WHERE pid = {pid}");
    harness::wait_for("the lock", || cell(&mut observer, &waits) == "true");
    run(&mut admin, "COMMIT");
    let (code, mut client) = waiting.join().unwrap();
    assert_eq!(code, WRONG);
    run(&mut client, "SELECT 1");
}
