//! Attacks on revocation.

use std::time::Duration;

use super::fixture::*;
use harness::{Code, SUCCESS, present, run, sqlstate, user};

const REVOKED: &str = Code::Revoked.sqlstate();

/// A revocation that a session notices within a statement, before the first reader of the statement.
#[test]
fn a_revocation_within_a_statement_binds_the_next_one() {
    let site = site();
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE TABLE locked (n int); GRANT ALL ON locked TO app;
         CREATE FUNCTION late(n int) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
         BEGIN
             PERFORM pg_sleep(1);
             EXECUTE 'LOCK TABLE locked IN ACCESS SHARE MODE';
             RETURN auth.user_id();
         END $$",
    );
    let alice = site.token_of("alice");
    let mut client = site.client();
    assert_eq!(present(&mut client, &alice), SUCCESS);
    let running = std::thread::spawn(move || {
        let answer =
            client.query_one("SELECT late(1)", &[]).map(|row| row.get::<_, Option<String>>(0));
        (answer, client)
    });
    std::thread::sleep(Duration::from_millis(400));
    revoke(&mut admin, "subject => 'alice'");
    let (_, mut client) = running.join().unwrap();
    let next: Vec<_> = (0..3).map(|_| code_of_user(&mut client)).collect();
    let rows = sqlstate(client.query("SELECT count(*) FROM notes", &[]));
    run(&mut admin, "DELETE FROM auth.revocations; DROP FUNCTION late(int); DROP TABLE locked");
    assert_eq!(next, [REVOKED; 3], "the next statements");
    assert_eq!(rows, REVOKED);
}

/// An invalidation that arrives while the table is looked up (here: a lock of another session).
#[test]
fn a_revocation_during_a_lookup_loses_no_later_one() {
    let site = site();
    let mut admin = site.cluster.admin();
    let mut other = site.cluster.admin();
    let alice = site.token_of("alice");
    let mut client = site.client();
    revoke(&mut admin, "subject => 'nobody'");
    assert_eq!(present(&mut client, &alice), SUCCESS);
    assert_eq!(user(&mut client).as_deref(), Some("alice"));
    // Makes the session look again.
    revoke(&mut admin, "subject => 'nobody 2'");
    run(&mut other, "BEGIN; LOCK TABLE auth.revocations IN ACCESS EXCLUSIVE MODE");
    revoke(&mut other, "subject => 'nobody 3'");
    let running = std::thread::spawn(move || (user(&mut client), client));
    std::thread::sleep(Duration::from_millis(500));
    run(&mut other, "COMMIT");
    let (answer, mut client) = running.join().unwrap();
    assert_eq!(answer.as_deref(), Some("alice"));
    revoke(&mut admin, "subject => 'alice'");
    let next: Vec<_> = (0..3).map(|_| code_of_user(&mut client)).collect();
    let rows = sqlstate(client.query("SELECT count(*) FROM notes", &[]));
    unrevoke_all(&mut admin);
    assert_eq!(next, [REVOKED; 3], "the next statements");
    assert_eq!(rows, REVOKED);
}
