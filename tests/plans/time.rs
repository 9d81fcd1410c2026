//! A statement has one time: its start.

use std::thread::sleep;
use std::time::Duration;

use harness::{Code, Preload, SUCCESS, Shared, now, present, run, sqlstate};
use postgres::Client;

use super::fixture::*;

/// A site whose tables are read by parallel workers, and functions and triggers that come late.
static SITES: Shared<Fixture> = Shared::new(|_| {
    let fixture = Fixture::new(
        &PARALLEL,
        &format!(
            "CREATE TABLE big AS SELECT n, '{ALICE}' AS owner FROM generate_series(1, 300) n;
             ALTER TABLE big SET (parallel_workers = 2); ANALYZE big;
             CREATE TABLE empty (owner text);
             ALTER TABLE big ENABLE ROW LEVEL SECURITY;
             ALTER TABLE empty ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON big USING (owner = auth.user_id());
             CREATE POLICY own ON empty USING (owner = auth.user_id());
             CREATE FUNCTION late() RETURNS bigint LANGUAGE plpgsql AS $$
               BEGIN
                 PERFORM pg_sleep(4);
                 RETURN count(*) FROM big;
               END $$;
             CREATE FUNCTION who() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN PERFORM auth.user_id(); RETURN NULL; END $$;
             CREATE TABLE notes (n int);
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED
               FOR EACH ROW EXECUTE FUNCTION who();
             GRANT ALL ON big, empty, notes TO app"
        ),
    );
    create_reader_tables(&fixture);
    fixture
});

/// Presents a token that lasts for three seconds; returns when it expires.
fn present_briefly(fixture: &Fixture, client: &mut Client) -> i64 {
    let exp = now() + 3;
    assert_eq!(
        present(client, &fixture.token_until(ALICE, exp)),
        SUCCESS,
        "present(client, fixture.token_until(ALICE, exp))"
    );
    exp
}

/// A statement whose last row comes after the expiry goes on; the next statement is refused, in workers too.
#[test]
fn rows_that_come_late_are_of_the_statements_start() {
    let fixture = SITES.beside_others(Preload::Shared);
    let mut client = fixture.client();
    fixture.be(&mut client, Some(ALICE));
    run(&mut client, "PREPARE empty AS TABLE empty; EXECUTE empty");
    // Plans that are there already, so that nothing is asked for in order to make them.
    for (place, _) in READERS.iter().enumerate() {
        let reading = reading(&mut client, place..place + 1);
        for (name, mode) in [("serial", SERIAL), ("gather", GATHER), ("forced", FORCED[0])] {
            run(&mut client, mode);
            run(&mut client, &format!("PREPARE {name}_{place} AS {reading}"));
            assert_ne!(
                answer(&mut client, &format!("EXECUTE {name}_{place}")),
                "",
                "{name:?}, {mode:?}"
            );
        }
    }
    run(&mut client, GATHER);
    let exp = present_briefly(&fixture, &mut client);
    let slow = "SELECT count(*) FROM big WHERE n > 4 OR pg_sleep(1) IS NOT NULL";
    assert_eq!(answer(&mut client, slow), "300", "plans that are there already");
    assert!(now() >= exp, "plans that are there already");
    for (place, (reader, _)) in READERS.iter().enumerate() {
        for (name, in_worker) in [("serial", false), ("gather", true), ("forced", true)] {
            let error = client.simple_query(&format!("EXECUTE {name}_{place}")).unwrap_err();
            assert_eq!(is_from_worker(&error), in_worker, "{reader}, {name}");
            assert_eq!(sqlstate::<()>(Err(error)), Code::Expired.sqlstate(), "{reader}, {name}");
        }
    }
    // Where a plan is there and no row is, nobody asks who it is.
    assert_eq!(
        answer(&mut client, "EXECUTE empty"),
        "",
        "where a plan is there and no row is, nobody asks who it is"
    );
    assert_eq!(
        answer(&mut client, "TABLE empty"),
        Code::Expired.sqlstate(),
        "where a plan is there and no row is, nobody asks who it is"
    );
}

/// A function that starts workers after the expiry goes on.
#[test]
fn workers_that_start_late_are_of_the_statements_start() {
    let fixture = SITES.beside_others(Preload::Shared);
    let mut client = fixture.client();
    let exp = present_briefly(&fixture, &mut client);
    assert_eq!(answer(&mut client, "SELECT late()"), "300", "answer(SELECT late)");
    assert!(now() >= exp, "now >= exp");
    assert_eq!(
        answer(&mut client, "SELECT count(*) FROM big"),
        Code::Expired.sqlstate(),
        "answer(SELECT count(*) FROM big)"
    );
}

/// Each FETCH is a statement, and so is the COMMIT that fires a deferred trigger.
#[test]
fn statements_that_come_late_are_refused() {
    let fixture = SITES.beside_others(Preload::Shared);
    let mut client = fixture.client();
    let exp = present_briefly(&fixture, &mut client);
    let begin = "BEGIN; INSERT INTO notes VALUES (1); DECLARE c CURSOR FOR SELECT n FROM big";
    run(&mut client, begin);
    assert_eq!(answer(&mut client, "FETCH 1 FROM c"), "1", "answer(FETCH 1 FROM c)");
    run(&mut client, "SAVEPOINT s");
    while now() < exp {
        sleep(Duration::from_millis(100));
    }
    assert_eq!(
        answer(&mut client, "FETCH 1 FROM c"),
        Code::Expired.sqlstate(),
        "after SAVEPOINT s"
    );
    run(&mut client, "ROLLBACK TO s");
    assert_eq!(answer(&mut client, "COMMIT"), Code::Expired.sqlstate(), "after ROLLBACK TO s");
    assert_eq!(answer(&mut client, "SELECT count(*) FROM notes"), "0", "after ROLLBACK TO s");
}
