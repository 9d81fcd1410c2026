//! Attacks on revocation in open sessions: what a session notices late, or in the middle of something.

use std::time::Duration;

use harness::{Answer, Code, SUCCESS, Wire, present, run, sqlstate, user, values};

use super::fixture::*;

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
    let (answer, mut client) = running.join().unwrap();
    assert_eq!(answer.unwrap().as_deref(), Some("alice"), "the statement under way");
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

/// No lock is taken before a call in the fast path, before a parameter is read, and before a portal is continued.
#[test]
fn what_locks_no_table_notices_a_revocation() {
    let site = site();
    let mut admin = site.cluster.admin();
    let app = site.cluster.as_role("app");
    run(&mut admin, "CREATE DOMAIN me AS text CHECK (value = auth.user_id())");
    let function: u32 =
        admin.query_one("SELECT 'auth.user_id()'::regprocedure::oid", &[]).unwrap().get(0);
    let alice = site.token_of("alice");
    let mut open = |before: &dyn Fn(&mut Wire), after: &dyn Fn(&mut Wire) -> String| {
        let mut wire = Wire::connect(&app).unwrap();
        assert_eq!(wire.present(&alice, false), SUCCESS);
        assert_eq!(wire.run("BEGIN"), SUCCESS);
        assert_eq!(wire.user(), "alice");
        before(&mut wire);
        wire.flush().unwrap();
        // The server has run what came before: nothing else tells it, because no message asks for an answer.
        std::thread::sleep(Duration::from_millis(300));
        revoke(&mut admin, "subject => 'alice'");
        let answer = after(&mut wire);
        unrevoke_all(&mut admin);
        answer
    };
    let last = |answers: std::io::Result<Vec<Answer>>| {
        let answers = answers.unwrap();
        values(answers.last().unwrap()).join(" ")
    };
    let nothing = |_: &mut Wire| ();
    assert_eq!(
        open(&nothing, &|wire| last(wire.call(function))),
        REVOKED,
        "a call in the fast path"
    );
    let answer = open(&|wire| wire.prepare("s", "SELECT $1::me"), &|wire| {
        wire.execute("s", &["alice"]);
        last(wire.sync())
    });
    assert_eq!(answer, REVOKED, "a parameter of a domain");
    for rows in [0, 1] {
        let query = "SELECT auth.user_id() FROM generate_series(1, 3)";
        let answer = open(
            &|wire| {
                wire.prepare("", query);
                wire.bind("p", "", &[]);
                if rows > 0 {
                    wire.continue_portal("p", rows);
                }
            },
            &|wire| {
                wire.continue_portal("p", rows);
                last(wire.sync())
            },
        );
        assert_eq!(answer, REVOKED, "a portal: {rows}");
    }
    run(&mut admin, "DROP DOMAIN me");
}

/// A portal whose query reads no claim has the role of the token.
#[test]
fn a_portal_is_not_continued_with_the_role_of_a_revoked_token() {
    let site = site();
    let mut admin = site.cluster.admin();
    let token = editor_of_drafts(&mut admin);
    let mut wire = Wire::connect(&site.cluster.as_role("app")).unwrap();
    assert_eq!(wire.present(&token, false), SUCCESS);
    assert_eq!(wire.run("BEGIN"), SUCCESS);
    wire.prepare("", "SELECT n FROM drafts");
    wire.bind("p", "", &[]);
    wire.continue_portal("p", 1);
    wire.flush().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    revoke(&mut admin, "subject => 'alice'");
    wire.continue_portal("p", 1);
    let answers = wire.sync().unwrap();
    drop(wire);
    without_drafts(&mut admin);
    assert_eq!(values(answers.last().unwrap()), [REVOKED]);
}

/// Where NOT NULL was dropped, no row is stored that revokes nothing.
#[test]
fn a_revocation_without_a_time_is_not_stored() {
    let site = Site::start(harness::Preload::Shared, &[]);
    let mut admin = site.cluster.admin();
    run(&mut admin, "ALTER TABLE auth.revocations ALTER before DROP NOT NULL");
    let insert = "INSERT INTO auth.revocations (subject, before) VALUES ('alice', NULL)";
    assert_eq!(sqlstate(admin.execute(insert, &[])), Code::Configuration.sqlstate());
}

/// Sessions of many users, while others are revoked all the time: no revocation is missed.
#[test]
fn revocations_arrive_while_others_do() {
    let site = site();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let is_over = &is_over;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut admin = site.cluster.admin();
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                revoke(&mut admin, "subject => 'nobody'");
            }
        });
        let mut admin = site.cluster.admin();
        let mut clients: Vec<_> = (0..3).map(|_| site.client()).collect();
        let mut missed = 0;
        for round in 0..300 {
            let sub = format!("user{round}");
            let token = site.token_of(&sub);
            for client in &mut clients {
                assert_eq!(present(client, &token), SUCCESS);
                assert_eq!(user(client).as_deref(), Some(sub.as_str()));
            }
            revoke(&mut admin, &format!("subject => '{sub}'"));
            missed += clients
                .iter_mut()
                .filter_map(|client| (code_of_user(client) != REVOKED).then_some(()))
                .count();
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(missed, 0, "of 900");
    });
    unrevoke_all(&mut site.cluster.admin());
}
