//! Who may inspect tokens, and that it changes nothing: in transactions that can only read, on a standby.

use std::time::Duration;

use harness::{Code, INSUFFICIENT_PRIVILEGE, SUCCESS, now, present, run, sqlstate, text};

use super::{INSPECT, Site, inspect};

#[test]
fn only_superusers_inspect_until_it_is_granted() {
    let site = Site::start();
    run(
        &mut site.cluster.admin(),
        "CREATE ROLE support LOGIN; CREATE ROLE dba LOGIN;
         GRANT EXECUTE ON FUNCTION auth.inspect(text) TO dba WITH GRANT OPTION",
    );
    let mut support = site.cluster.as_role("support").client();
    let call = |client: &mut postgres::Client| sqlstate(client.query(INSPECT, &[&"a"]));
    assert_eq!(call(&mut support), INSUFFICIENT_PRIVILEGE, "by default");
    let mut dba = site.cluster.as_role("dba").client();
    assert_eq!(call(&mut dba), SUCCESS, "granted");
    run(&mut dba, "GRANT EXECUTE ON FUNCTION auth.inspect(text) TO support");
    assert_eq!(call(&mut support), SUCCESS, "passed on");
    run(&mut dba, "REVOKE EXECUTE ON FUNCTION auth.inspect(text) FROM support");
    assert_eq!(call(&mut support), INSUFFICIENT_PRIVILEGE, "revoked");
    assert_eq!(call(&mut site.cluster.admin()), SUCCESS, "a superuser");
}

#[test]
fn it_reads_only_and_works_on_a_standby() {
    let site = Site::start();
    let key = mint::Key::generate(mint::Algorithm::ES256).with_kid("t1");
    site.cluster
        .admin()
        .execute(
            "SELECT auth.add_provider('table', issuer => 'https://table.example', jwks => $1::text)",
            &[&key.public_jwk().to_string()],
        )
        .unwrap();
    let standby = site.cluster.standby();
    standby.catch_up(&site.cluster);
    let good = site.realm.sign(&site.realm.draft(now()));
    let of_table = harness::token_of(&key, "https://table.example", "alice");
    let of_none = harness::token_of(&key, "https://table.example/", "alice");
    for (name, mut client) in
        [("primary", site.client()), ("standby", standby.as_role("app").client())]
    {
        run(&mut client, "BEGIN READ ONLY");
        for token in [&good, &of_table] {
            assert_eq!(
                inspect(&mut client, Some(token)).with("passed").len(),
                super::CHECKS.len(),
                "{name}"
            );
        }
        let report = inspect(&mut client, Some(&of_none));
        assert_eq!(report.with("failed"), ["provider"], "{name}");
        assert_eq!(report.with("not reached"), ["issuer", "revocation"], "{name}");
        let count = "SELECT count(*)::text FROM auth.inspect('a') WHERE outcome = 'failed'";
        assert_eq!(text(&mut client, count).as_deref(), Some("1"), "{name}");
        run(&mut client, "COMMIT");
        assert_eq!(harness::user(&mut client), None, "{name}: no identity");
    }
}

/// A rejected token ends the identity of a session; an inspected one does not, whatever it is.
#[test]
fn the_identity_stays() {
    let site = Site::start();
    let mut client = site.client();
    run(&mut site.cluster.admin(), "ALTER SYSTEM SET pg_session_jwt.audit_log = on");
    site.cluster.reload();
    let mut draft = site.realm.draft(now());
    assert_eq!(present(&mut client, &site.realm.sign(&draft)), SUCCESS, "the first token");
    let lines = || site.cluster.log().matches("token rejected").count();
    std::thread::sleep(Duration::from_millis(100));
    let before = lines();
    draft.claims.insert("sub".to_owned(), "bob".into());
    draft.claims.insert("jti".to_owned(), 11.into());
    for token in ["", "a", &site.realm.sign(&draft)] {
        run(&mut client, "BEGIN");
        inspect(&mut client, Some(token));
        assert_eq!(harness::user(&mut client).as_deref(), Some("alice"), "{token:?}");
        run(&mut client, "SAVEPOINT s");
        inspect(&mut client, Some(token));
        run(&mut client, "ROLLBACK TO s");
        assert_eq!(harness::user(&mut client).as_deref(), Some("alice"), "{token:?}, rolled back");
        run(&mut client, "COMMIT");
        assert_eq!(harness::user(&mut client).as_deref(), Some("alice"), "{token:?}, committed");
    }
    assert_eq!(lines(), before, "no line in the audit log");
    assert_eq!(present(&mut client, "a"), Code::Malformed.sqlstate(), "the same text presented");
    assert_eq!(harness::user(&mut client), None, "after it was presented");
}
