//! Statements in which the role of one token could meet the claims of another.

use harness::{Code, INSUFFICIENT_PRIVILEGE, SUCCESS, Wire, postgres_version, run, sqlstate};

use super::fixture::*;

/// Each way in which A's role could meet B's claims, in one transaction and in statements of their own.
#[test]
fn claims_of_one_token_meet_no_role_of_another() {
    let fixture = Fixture::start();
    let (a, b) = (fixture.token("A"), fixture.token("B"));
    let rejected = Code::Claim.sqlstate();
    let changed = Code::Forbidden.sqlstate();
    // Before 18, Postgres analyses a function in SQL as a whole. From then on, it analyses each statement once
    // the ones before have run, so that it is wholly under the token that they have presented.
    let analysed = |whole: &'static str, by_statement: &'static str| {
        if postgres_version() < 18 { whole } else { by_statement }
    };
    let attacks: &[(&str, &str)] = &[
        ("SELECT * FROM returning_cursor()", rejected),
        ("SELECT * FROM plain_cursor()", rejected),
        ("SELECT * FROM loop()", rejected),
        ("SELECT * FROM two_statements('B')", analysed(rejected, SUCCESS)),
        ("SELECT two_statements('B')", analysed(rejected, SUCCESS)),
        ("SELECT * FROM two_statements_atomic('B')", analysed(rejected, SUCCESS)),
        ("SELECT * FROM two_statements_atomic('none')", analysed(rejected, INSUFFICIENT_PRIVILEGE)),
        ("SELECT * FROM delete_atomic('B')", analysed(rejected, SUCCESS)),
        ("SELECT * FROM set_and_select()", analysed(rejected, SUCCESS)),
        ("SELECT * FROM while_planned()", rejected),
        ("SELECT * FROM reset_while_planned()", changed),
        ("SELECT * FROM with_clause()", analysed(rejected, SUCCESS)),
        ("SET LOCAL my.switch = 'present'; SELECT while_analysed(); SHOW my.out", rejected),
        ("SET LOCAL my.switch = 'reset'; SELECT while_analysed(); SHOW my.out", analysed(changed, SUCCESS)),
        ("SELECT present('B'), report()", rejected),
        ("SELECT r FROM (SELECT present('none') OFFSET 0) x, LATERAL report() r", rejected),
        ("CALL purge(present('B'))", rejected),
        ("DO $$ DECLARE c CURSOR FOR SELECT report(); r text; BEGIN OPEN c; PERFORM present('B');
          FETCH c INTO r; END $$", rejected),
        // The definer's user comes back when the function ends, and with it the role of before.
        ("SELECT definer('none'), free_first()", changed),
        ("SELECT clear(), free_first()", changed),
        ("SELECT * FROM nested()", rejected),
        ("SELECT d.*, present('B') FROM docs d", rejected),
        ("SELECT d.*, present('none') FROM docs d", rejected),
        ("SELECT d.*, definer('none') FROM docs d", rejected),
        ("SELECT d.* FROM docs d WHERE body = present_stable('B')", rejected),
        ("SELECT d.* FROM docs d WHERE body = reset_stable()", changed),
        ("SELECT d.* FROM (SELECT present('B') OFFSET 0) x, docs d", rejected),
        ("SELECT d.* FROM (SELECT present('A') OFFSET 0) x, docs d", SUCCESS),
        ("WITH x AS MATERIALIZED (SELECT present('B')) SELECT d.* FROM x, docs d", rejected),
        ("WITH x AS (DELETE FROM docs RETURNING *) SELECT x.*, present('B') FROM x", rejected),
        ("WITH x AS (DELETE FROM docs RETURNING *) SELECT present('B')", rejected),
        ("UPDATE docs SET body = present('B')", rejected),
        ("UPDATE docs SET body = body RETURNING docs.*, present('B')", rejected),
        ("SELECT d.*, set_config('pg_session_jwt.jwt', NULL, false) FROM docs d", changed),
        ("SELECT d.*, set_config('pg_session_jwt.jwt', '', false) FROM docs d", changed),
        ("SELECT d.*, reset_token() FROM docs d", changed),
        ("SELECT d.* FROM (SELECT reset_token() OFFSET 0) x, docs d", changed),
        ("SELECT d.* FROM (SELECT clear() OFFSET 0) x, docs d", changed),
        ("INSERT INTO shop VALUES ('B')", rejected),
        ("UPDATE shop SET token = 'B'", rejected),
        ("SELECT through_rule()", rejected),
        ("COPY (SELECT d.*, present('B') FROM docs d) TO STDOUT", rejected),
        ("CREATE TEMP TABLE t AS SELECT d.*, present('B') FROM docs d", rejected),
        ("EXPLAIN ANALYZE SELECT d.*, present('B') FROM docs d", rejected),
        ("DO $$ BEGIN PERFORM FROM docs; PERFORM present('B'); END $$", rejected),
        (
            "DECLARE c CURSOR FOR SELECT * FROM docs; SELECT present('B'); FETCH ALL FROM c",
            rejected,
        ),
        (
            "DECLARE c CURSOR FOR SELECT * FROM docs; RESET pg_session_jwt.jwt; FETCH ALL FROM c",
            changed,
        ),
        ("DECLARE c CURSOR WITH HOLD FOR TABLE docs; RESET pg_session_jwt.jwt; COMMIT", changed),
        (
            "DECLARE c CURSOR FOR SELECT * FROM plain; SELECT present('B'); FETCH ALL FROM c",
            rejected,
        ),
        (
            "SELECT * FROM docs; SELECT auth.jwt_session_init(token('B')); SELECT * FROM docs",
            rejected,
        ),
        ("SELECT * FROM docs; RESET pg_session_jwt.jwt; SELECT * FROM docs", changed),
        ("SELECT * FROM docs; SELECT auth.jwt_session_init(NULL); SELECT * FROM docs", changed),
        ("SELECT * FROM docs; RESET pg_session_jwt.jwt; COPY docs FROM STDIN", changed),
        ("SELECT * FROM docs; RESET pg_session_jwt.jwt; LOCK docs", changed),
        ("SELECT * FROM docs; RESET pg_session_jwt.jwt; TRUNCATE docs", changed),
        ("INSERT INTO deferred VALUES (1); SELECT present('B'); COMMIT", rejected),
        ("INSERT INTO deferred VALUES (1); RESET pg_session_jwt.jwt; COMMIT", changed),
        (
            "INSERT INTO deferred VALUES (1); RESET pg_session_jwt.jwt; SET CONSTRAINTS ALL IMMEDIATE",
            changed,
        ),
    ];
    for login in fixture.logins() {
        // Without and with a token of the startup packet, which comes back without being presented.
        for startup in [None, Some(&b)] {
            let connection = match startup {
                Some(token) => login.clone().option("pg_session_jwt.jwt", token),
                None => login.clone(),
            };
            for (attack, expected) in attacks {
                let mut wire = Wire::connect(&connection).unwrap();
                let begin = |token: &str| format!("BEGIN; SELECT auth.jwt_session_init('{token}')");
                assert_eq!(attempt(&mut wire, &begin(&a)), SUCCESS, "{attack:?}");
                assert_eq!(attempt(&mut wire, attack), *expected, "{attack}, {startup:?}");
                // The transaction is lost, and the next one is like new.
                attempt(&mut wire, "ROLLBACK");
                assert_eq!(attempt(&mut wire, &begin(&b)), SUCCESS, "{attack}");
                let rows = wire.ask("SELECT body FROM docs", &[]).unwrap().unwrap();
                assert_eq!(rows, [[Some("globex own".to_owned())]], "{attack}");
                attempt(&mut wire, "ROLLBACK");
                fixture.check_table(attack);
            }
        }
        // A function that has checked its caller in an earlier transaction.
        let mut wire = Wire::connect(&login).unwrap();
        for sql in ["SELECT wrapper()", "SELECT wrapper()", "SELECT definer('none'), wrapper()"] {
            attempt(&mut wire, &format!("BEGIN; SELECT auth.jwt_session_init('{a}')"));
            let expected = if sql.contains("none") { changed } else { SUCCESS };
            assert_eq!(attempt(&mut wire, sql), expected, "{sql}");
            attempt(&mut wire, "ROLLBACK");
        }
        // The same with plans that Postgres has cached in earlier transactions.
        let mut wire = Wire::connect(&login).unwrap();
        let cached = |attack: &str| attack.starts_with("SELECT * FROM ") && !attack.contains(';');
        for round in 0..8 {
            for (attack, expected) in attacks.iter().filter(|(attack, _)| cached(attack)) {
                attempt(&mut wire, &format!("BEGIN; SELECT auth.jwt_session_init('{a}')"));
                // A cached plan that has not started is found out when it starts.
                let outcome = attempt(&mut wire, attack);
                let possible = [*expected, if *expected == rejected { changed } else { expected }];
                assert!(possible.contains(&&*outcome), "{attack}, {round}: {outcome}");
                attempt(&mut wire, "ROLLBACK");
                fixture.check_table(attack);
            }
        }
    }
}

/// Parse and Bind under A, Execute under B, in the same transaction and with plans of earlier ones.
#[test]
fn portals_are_of_the_role_that_they_were_bound_in() {
    let fixture = Fixture::start();
    let (a, b) = (fixture.token("A"), fixture.token("B"));
    for login in fixture.logins() {
        for mode in ["force_custom_plan", "force_generic_plan"] {
            for sql in [
                "UPDATE docs SET body = body WHERE org <> $1 RETURNING body",
                "WITH d AS (DELETE FROM docs WHERE org <> $1 RETURNING *) SELECT body FROM d",
                "DELETE FROM docs WHERE org <> $1 RETURNING body",
                "SELECT body FROM docs WHERE org <> $1",
                "SELECT body FROM docs WHERE org <> $1 FOR UPDATE",
            ] {
                let mut client = login.clone().client();
                run(&mut client, &format!("SET plan_cache_mode = {mode}"));
                let statement = client.prepare(sql).unwrap();
                for round in 0..3 {
                    // Portal and token in one transaction, before which the plan may be cached.
                    let mut transaction = client.transaction().unwrap();
                    transaction.execute("SELECT auth.jwt_session_init($1)", &[&a]).unwrap();
                    let portal = transaction.bind(&statement, &[&""]).unwrap();
                    let presented =
                        sqlstate(transaction.execute("SELECT auth.jwt_session_init($1)", &[&b]));
                    let outcome = match presented.as_str() {
                        SUCCESS => sqlstate(transaction.query_portal(&portal, 0).map(|rows| {
                            assert!(
                                rows.iter().all(|row| row.get::<_, &str>(0) != SECRET),
                                "{sql}"
                            );
                        })),
                        _ => presented,
                    };
                    assert!(
                        [Code::Claim.sqlstate(), Code::Forbidden.sqlstate()]
                            .contains(&outcome.as_str()),
                        "{sql}, {mode}, {round}: {outcome}"
                    );
                    drop(portal);
                    transaction.rollback().unwrap();
                    fixture.check_table(sql);
                    // As a rule: one role a transaction, and the plan is for all of them.
                    for (token, count) in [(&a, 2), (&b, 1)] {
                        let mut transaction = client.transaction().unwrap();
                        transaction.execute("SELECT auth.jwt_session_init($1)", &[token]).unwrap();
                        let rows = transaction.query(&statement, &[&""]).unwrap();
                        assert_eq!(rows.len(), count, "{sql}");
                        transaction.rollback().unwrap();
                    }
                }
            }
        }
    }
}
