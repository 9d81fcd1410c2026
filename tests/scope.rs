//! How long an identity lasts: transactions, savepoints, pipelines, procedures, functions with SET
//! clauses, cursors, and `pg_session_jwt.identity_scope`.

use std::thread::sleep;
use std::time::Duration;

use harness::{Preload, Site, Wire, now, wait_for};
use mint::{Algorithm, Key};
use serde_json::json;

const NOBODY: &str = "nobody";
const DONE: &str = "00000";

/// A site with rows that have owners.
fn start(preload: Preload, settings: &[(&str, &str)]) -> Site {
    let site = Site::start(preload, &[settings, &[("max_prepared_transactions", "9")]].concat());
    site.cluster
        .admin()
        .batch_execute(
            "CREATE TABLE notes (owner text NOT NULL DEFAULT auth.user_id());
             INSERT INTO notes VALUES ('alice'), ('bob'), ('bob');
             ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON notes USING (owner = auth.user_id());
             GRANT SELECT, INSERT ON notes TO app;
             CREATE FUNCTION who() RETURNS text LANGUAGE sql
                 AS $$ SELECT coalesce(auth.user_id(), 'nobody') $$",
        )
        .unwrap();
    site
}

fn connect(site: &Site) -> Wire {
    Wire::connect(&site.app()).unwrap()
}

fn forged() -> String {
    Key::generate(Algorithm::ES256).sign(&json!({"sub": "mallory", "exp": now() + 600}))
}

/// What one statement of one column came to: its rows, with nobody for NULL, or the SQLSTATE.
fn outcome(answer: harness::Answer) -> Vec<String> {
    match answer {
        Ok(rows) => rows
            .into_iter()
            .flatten()
            .map(|value| value.unwrap_or_else(|| NOBODY.to_owned()))
            .collect(),
        Err(fields) => vec![fields.sqlstate().to_owned()],
    }
}

/// Statements in one message: the SQLSTATE of the first that fails.
fn run(client: &mut Wire, sql: &str) -> String {
    let failed = client.query(sql).unwrap().into_iter().find_map(Result::err);
    failed.map_or_else(|| DONE.to_owned(), |fields| fields.sqlstate().to_owned())
}

fn init(client: &mut Wire, token: &str, is_local: bool) -> String {
    let init = format!("SELECT auth.jwt_session_init($1, {is_local})");
    match client.ask(&init, &[token]).unwrap() {
        Ok(_) => DONE.to_owned(),
        Err(fields) => fields.sqlstate().to_owned(),
    }
}

/// Who the session is, or the SQLSTATE.
fn who(client: &mut Wire) -> String {
    outcome(client.ask("SELECT who()", &[]).unwrap()).concat()
}

/// What the session sees of others' and its own.
fn notes(client: &mut Wire) -> Vec<String> {
    outcome(client.ask("SELECT owner FROM notes ORDER BY owner", &[]).unwrap())
}

#[test]
fn local_identities_end_with_their_transaction() {
    let site = start(Preload::Shared, &[]);
    let mut client = connect(&site);
    let (alice, bob) = (site.token("alice"), site.token("bob"));
    let ends = ["COMMIT", "ROLLBACK", "PREPARE TRANSACTION 'p'", "COMMIT AND CHAIN; COMMIT"];
    for outer in ["", &alice] {
        let before = if outer.is_empty() { NOBODY } else { "alice" };
        for end in ends {
            assert_eq!(init(&mut client, outer, false), DONE);
            for carrier in [
                format!("SELECT auth.jwt_session_init('{bob}', true)"),
                format!("SET LOCAL pg_session_jwt.jwt = '{bob}'"),
                format!("SELECT set_config('pg_session_jwt.jwt', '{bob}', true)"),
            ] {
                run(&mut client, "BEGIN");
                assert_eq!(run(&mut client, &carrier), DONE);
                assert_eq!(who(&mut client), "bob");
                assert_eq!(notes(&mut client), ["bob", "bob"]);
                assert_eq!(run(&mut client, end), DONE);
                assert_eq!(who(&mut client), before, "{carrier}; {end}");
                if end.starts_with("PREPARE") {
                    run(&mut client, "COMMIT PREPARED 'p'");
                    assert_eq!(who(&mut client), before);
                }
                // Without a transaction block, the statement is the transaction.
                assert_eq!(run(&mut client, &carrier), DONE);
                assert_eq!(who(&mut client), before, "{carrier}");
            }
        }
    }

    // A session's identity that is presented in a transaction follows the transaction; for
    // settings, preparing it for two-phase commit is committing it.
    for (end, after) in [
        ("COMMIT", "bob"),
        ("ROLLBACK", NOBODY),
        ("SELECT 1/0; COMMIT", NOBODY),
        ("PREPARE TRANSACTION 'p'; ROLLBACK PREPARED 'p'", "bob"),
    ] {
        assert_eq!(init(&mut client, "", false), DONE);
        run(&mut client, "BEGIN");
        assert_eq!(init(&mut client, &bob, false), DONE);
        for statement in end.split("; ") {
            run(&mut client, statement);
        }
        assert_eq!(who(&mut client), after, "{end}");
    }
}

/// Every step, with who the session is after it.
#[test]
fn savepoints() {
    let site = start(Preload::Shared, &[]);
    let (alice, bob) = (site.token("alice"), site.token("bob"));
    let local = |token: &str| format!("SELECT auth.jwt_session_init('{token}', true)");
    let session = |token: &str| format!("SELECT auth.jwt_session_init('{token}')");
    let steps: &[&[(&str, &str)]] = &[
        &[
            ("BEGIN", NOBODY),
            ("SAVEPOINT a", NOBODY),
            (&local(&alice), "alice"),
            ("ROLLBACK TO a", NOBODY),
            (&local(&alice), "alice"),
            ("RELEASE a", "alice"),
            ("COMMIT", NOBODY),
        ],
        &[
            ("BEGIN", NOBODY),
            (&session(&alice), "alice"),
            ("SAVEPOINT a", "alice"),
            (&local(&bob), "bob"),
            ("RELEASE a", "bob"),
            ("COMMIT", "alice"),
        ],
        &[
            (&session(&alice), "alice"),
            ("BEGIN", "alice"),
            (&local(&bob), "bob"),
            ("SAVEPOINT a", "bob"),
            (&session(&alice), "alice"),
            (&local(""), NOBODY),
            ("SAVEPOINT b", NOBODY),
            (&local(&bob), "bob"),
            ("ROLLBACK TO b", NOBODY),
            ("RELEASE a", NOBODY),
            ("COMMIT", "alice"),
        ],
        &[
            (&session(&alice), "alice"),
            ("BEGIN", "alice"),
            (&local(&bob), "bob"),
            ("SAVEPOINT a", "bob"),
            ("RESET pg_session_jwt.jwt", NOBODY),
            ("ROLLBACK TO a", "bob"),
            ("ROLLBACK", "alice"),
        ],
    ];
    for steps in steps {
        let mut client = connect(&site);
        for (statement, expected) in *steps {
            assert_eq!(run(&mut client, statement), DONE, "{statement}");
            assert_eq!(who(&mut client), *expected, "{statement}");
        }
    }
}

/// Postgres brings the outer value back, and that it was verified is remembered with the value:
/// not even a cache of no size makes it verified twice, nor is its `jti` judged again.
#[test]
fn an_outer_identity_comes_back_unverified() {
    let site = start(Preload::Shared, &[("pg_session_jwt.token_cache_size", "0")]);
    let mut client = connect(&site);
    run(
        &mut client,
        "SET client_min_messages = debug1;
         CREATE FUNCTION pg_temp.as_nobody() RETURNS text LANGUAGE sql
             SET pg_session_jwt.jwt = '' AS 'SELECT who()'",
    );
    fn verified(client: &mut Wire) -> usize {
        let message = "token signature verified";
        client.notices().iter().filter(|notice| notice.get(b'M') == Some(message)).count()
    }
    verified(&mut client);
    assert_eq!(init(&mut client, &site.counted(1), false), DONE);
    assert_eq!(verified(&mut client), 1);
    run(&mut client, "BEGIN");
    assert_eq!(init(&mut client, &site.counted(2), true), DONE);
    assert_eq!(who(&mut client), "2");
    run(&mut client, "SAVEPOINT a");
    // More than are remembered at a time, so that what is forgotten must be what is gone.
    for jti in 3..100 {
        assert_eq!(init(&mut client, &site.counted(jti), jti % 2 == 0), DONE);
    }
    assert_eq!(who(&mut client), "99");
    assert_eq!(verified(&mut client), 98);
    run(&mut client, "ROLLBACK TO a");
    assert_eq!(who(&mut client), "2");
    let cleared = client.ask("SELECT pg_temp.as_nobody() || ' ' || who()", &[]).unwrap();
    assert_eq!(outcome(cleared), ["nobody 2"]);
    run(&mut client, "COMMIT");
    assert_eq!(who(&mut client), "1");
    run(&mut client, "BEGIN");
    assert_eq!(init(&mut client, &site.counted(100), false), DONE);
    run(&mut client, "ROLLBACK");
    assert_eq!(who(&mut client), "1");
    assert_eq!(verified(&mut client), 1, "only the new one");
}

#[test]
fn session_identities_last() {
    let site = start(Preload::Shared, &[]);
    let alice = site.token("alice");
    for end in ["RESET pg_session_jwt.jwt", "RESET ALL", "DISCARD ALL"] {
        let mut client = connect(&site);
        assert_eq!(init(&mut client, &alice, false), DONE);
        for statement in [
            "BEGIN; COMMIT",
            "BEGIN; ROLLBACK",
            "SELECT 1/0",
            "SET ROLE app",
            "RESET ROLE",
            "DISCARD PLANS",
            "DISCARD TEMP",
            "BEGIN; PREPARE TRANSACTION 'p'",
            "ROLLBACK PREPARED 'p'",
        ] {
            run(&mut client, statement);
            assert_eq!(who(&mut client), "alice", "{statement}");
            assert_eq!(notes(&mut client), ["alice"]);
        }
        assert_eq!(run(&mut client, end), DONE);
        assert_eq!(who(&mut client), NOBODY, "{end}");
        assert!(notes(&mut client).is_empty());
        // The connection's end is the identity's.
        assert_eq!(init(&mut client, &alice, false), DONE);
        drop(client);
        assert_eq!(who(&mut connect(&site)), NOBODY);
    }
}

/// What is sent before one `Sync`, or in one message of the simple protocol, is one transaction.
#[test]
fn pipelines() {
    let site = start(Preload::Shared, &[]);
    let mut client = connect(&site);
    let (alice, bob) = (site.token("alice"), site.token("bob"));
    let local = "SELECT auth.jwt_session_init($1, true)";
    let owners = "SELECT owner FROM notes";

    client.statement(local, &[&alice]);
    client.statement(owners, &[]);
    client.statement("INSERT INTO notes DEFAULT VALUES RETURNING owner", &[]);
    client.statement(local, &[&bob]);
    client.statement(owners, &[]);
    let answers: Vec<_> = client.sync().unwrap().into_iter().map(outcome).collect();
    assert_eq!(answers[1..3], [["alice"], ["alice"]]);
    assert_eq!(answers[4], ["bob", "bob"]);
    assert_eq!(who(&mut client), NOBODY);

    // The first `SET LOCAL` of a pipeline warns that it is in no transaction block, and counts
    // nevertheless.
    client.statement(&format!("SET LOCAL pg_session_jwt.jwt = '{alice}'"), &[]);
    client.statement("SELECT who()", &[]);
    assert_eq!(outcome(client.sync().unwrap().remove(1)), ["alice"]);
    assert_eq!(client.notices()[0].sqlstate(), "25P01");
    assert_eq!(who(&mut client), NOBODY);

    // A block that ends within the pipeline.
    for (statement, parameters) in [
        ("BEGIN", vec![]),
        (local, vec![alice.as_str()]),
        ("SELECT who()", vec![]),
        ("COMMIT", vec![]),
        ("SELECT who()", vec![]),
    ] {
        client.statement(statement, &parameters);
    }
    let answers: Vec<_> = client.sync().unwrap().into_iter().map(outcome).collect();
    assert_eq!(answers[2], ["alice"]);
    assert_eq!(answers[4], [NOBODY]);

    // One that fails takes the rest of the pipeline with it, and every identity before.
    for earlier in ["SELECT auth.jwt_session_init($1)", local] {
        assert_eq!(init(&mut client, &bob, false), DONE);
        client.statement(earlier, &[&alice]);
        client.statement(local, &[&forged()]);
        client.statement(owners, &[]);
        let answers: Vec<_> = client.sync().unwrap().into_iter().map(outcome).collect();
        assert_eq!(answers.len(), 2);
        assert_eq!(answers[1], ["28J03"]);
        assert_eq!(who(&mut client), NOBODY, "{earlier}");
    }

    // Simple protocol.
    let message = format!(
        "SELECT auth.jwt_session_init('{alice}', true); SELECT who(); COMMIT; SELECT who()"
    );
    let answers: Vec<_> = client.query(&message).unwrap().into_iter().map(outcome).collect();
    assert_eq!([&answers[1], &answers[3]], [&["alice"], &[NOBODY]]);
    let message = format!("SELECT auth.jwt_session_init('{alice}', true); SELECT 1/0");
    assert_eq!(run(&mut client, &message), "22012");
    assert_eq!(who(&mut client), NOBODY);
}

#[test]
fn procedures_that_commit() {
    let site = start(Preload::Shared, &[]);
    site.cluster
        .admin()
        .batch_execute(
            "CREATE PROCEDURE steps(token text, is_local boolean, INOUT seen text[])
             LANGUAGE plpgsql AS $$
             BEGIN
               PERFORM auth.jwt_session_init(token, is_local);
               seen := seen || who();
               COMMIT;
               seen := seen || who() || (SELECT count(*)::text FROM notes);
               PERFORM auth.jwt_session_init(token, is_local);
               ROLLBACK;
               seen := seen || who();
             END $$;
             CREATE PROCEDURE hopeful(token text, INOUT seen text[]) LANGUAGE plpgsql AS $$
             BEGIN
               BEGIN
                 PERFORM auth.jwt_session_init(token);
               EXCEPTION WHEN OTHERS THEN
                 seen := seen || SQLSTATE || who();
               END;
               COMMIT;
               seen := seen || who();
             END $$",
        )
        .unwrap();
    let mut client = connect(&site);
    let (alice, bob) = (site.token("alice"), site.token("bob"));
    for (outer, is_local, seen) in [
        ("", "true", "{alice,nobody,0,nobody}"),
        ("", "false", "{alice,alice,1,alice}"),
        (&bob, "true", "{alice,bob,2,bob}"),
        (&bob, "false", "{alice,alice,1,alice}"),
    ] {
        assert_eq!(init(&mut client, outer, false), DONE);
        let called = client.ask("CALL steps($1, $2, '{}')", &[&alice, is_local]).unwrap();
        assert_eq!(outcome(called), [seen], "{is_local}");
    }
    assert_eq!(init(&mut client, &bob, false), DONE);
    let called = client.ask("CALL hopeful($1, '{}')", &[&forged()]).unwrap();
    assert_eq!(outcome(called), ["{28J03,nobody,nobody}"]);
    assert_eq!(who(&mut client), NOBODY);
}

/// A function's `SET` clause lasts as long as its call. What it does itself with the setting obeys
/// the rules for any setting.
#[test]
fn set_clauses_of_functions() {
    let site = start(Preload::Shared, &[]);
    site.cluster
        .admin()
        .batch_execute(
            "CREATE FUNCTION inside(token text, is_local boolean) RETURNS text
             LANGUAGE plpgsql AS $$
             BEGIN
               IF token <> '' THEN PERFORM auth.jwt_session_init(token, is_local); END IF;
               RETURN who();
             END $$;
             CREATE FUNCTION cleared(token text, is_local boolean) RETURNS text LANGUAGE sql
             SET pg_session_jwt.jwt = '' AS $$ SELECT inside(token, is_local) $$;
             CREATE FUNCTION pathed(token text, is_local boolean) RETURNS text LANGUAGE sql
             SET search_path = public AS $$ SELECT inside(token, is_local) $$;
             CREATE FUNCTION swallowed(token text, is_local boolean) RETURNS text
             LANGUAGE plpgsql AS $$
             BEGIN
               PERFORM cleared(token, is_local);
               RAISE 'back' USING ERRCODE = 'P9999';
             EXCEPTION WHEN OTHERS THEN
               RETURN SQLSTATE;
             END $$",
        )
        .unwrap();
    let mut client = connect(&site);
    let (alice, bob) = (site.token("alice"), site.token("bob"));
    let forged = forged();
    // The function, its arguments; what it sees, who is there afterwards in the transaction, and
    // after its commit.
    for (function, token, is_local, seen, then, after) in [
        ("cleared", "", "true", NOBODY, "alice", "alice"),
        ("cleared", &bob, "true", "bob", "alice", "alice"),
        ("cleared", &bob, "false", "bob", "bob", "bob"),
        ("pathed", "", "true", "alice", "alice", "alice"),
        ("pathed", &bob, "true", "bob", "bob", "alice"),
        ("pathed", &bob, "false", "bob", "bob", "bob"),
        ("swallowed", &bob, "true", "P9999", "alice", "alice"),
        ("swallowed", &bob, "false", "P9999", "alice", "alice"),
        ("swallowed", &forged, "true", "28J03", NOBODY, NOBODY),
        ("swallowed", &forged, "false", "28J03", NOBODY, NOBODY),
    ] {
        let context = format!("{function}, {is_local}, {seen}");
        assert_eq!(init(&mut client, &alice, false), DONE);
        run(&mut client, "BEGIN");
        let call = format!("SELECT {function}($1, $2)");
        assert_eq!(outcome(client.ask(&call, &[token, is_local]).unwrap()), [seen], "{context}");
        assert_eq!(who(&mut client), then, "{context}");
        run(&mut client, "COMMIT");
        assert_eq!(who(&mut client), after, "{context}");
    }
}

/// A held cursor is what was read by whoever committed it: data, not an identity.
#[test]
fn cursors_held_over_a_commit() {
    let site = start(Preload::Shared, &[]);
    let mut client = connect(&site);
    let held = "DECLARE c CURSOR WITH HOLD FOR SELECT owner FROM notes";
    run(&mut client, "BEGIN");
    assert_eq!(init(&mut client, &site.token("alice"), true), DONE);
    run(&mut client, held);
    run(&mut client, "COMMIT");
    assert_eq!(who(&mut client), NOBODY);
    assert_eq!(init(&mut client, &site.token("bob"), false), DONE);
    let fetched = client.query("FETCH ALL FROM c").unwrap().remove(0);
    assert_eq!(outcome(fetched), ["alice"]);
    run(&mut client, "DISCARD ALL");
    assert_eq!(run(&mut client, "FETCH ALL FROM c"), "34000");

    // Its rows are read at the commit at the latest, by who is there then.
    let exp = now() + 2;
    run(&mut client, "BEGIN");
    assert_eq!(init(&mut client, &site.token_until("alice", exp), true), DONE);
    assert_eq!(run(&mut client, held), DONE);
    wait_for("the token to expire", || now() > exp);
    assert_eq!(run(&mut client, "COMMIT"), "28J04");
    assert_eq!(run(&mut client, "FETCH ALL FROM c"), "34000");
    assert_eq!(who(&mut client), NOBODY);
}

const CARRIERS: [&str; 6] = [
    "SELECT auth.jwt_session_init('{}')",
    "SELECT auth.jwt_session_init('{}', true)",
    "SET pg_session_jwt.jwt = '{}'",
    "SET LOCAL pg_session_jwt.jwt = '{}'",
    "SELECT set_config('pg_session_jwt.jwt', '{}', false)",
    "DO $$ BEGIN PERFORM auth.jwt_session_init('{}'); END $$",
];

#[test]
fn identity_scope_transaction() {
    let scope = ("pg_session_jwt.identity_scope", "transaction");
    for preload in Preload::ALL {
        let site = start(preload, &[scope]);
        let alice = site.token("alice");
        for carrier in CARRIERS {
            let carrier = carrier.replace("{}", &alice);
            let context = format!("{preload:?}: {carrier}");
            // The first statement of a connection may be what loads the library.
            for mut client in [connect(&site), connect(&site)] {
                assert_eq!(run(&mut client, &carrier), DONE, "{context}");
                assert_eq!(who(&mut client), NOBODY, "{context}");
                for end in ["COMMIT", "ROLLBACK", "PREPARE TRANSACTION 'p'"] {
                    run(&mut client, "BEGIN");
                    assert_eq!(run(&mut client, &carrier), DONE, "{context}");
                    assert_eq!(who(&mut client), "alice", "{context}");
                    run(&mut client, "SAVEPOINT a");
                    assert_eq!(init(&mut client, &site.token("bob"), false), DONE);
                    assert_eq!(notes(&mut client), ["bob", "bob"], "{context}");
                    run(&mut client, "ROLLBACK TO a");
                    assert_eq!(notes(&mut client), ["alice"], "{context}");
                    assert_eq!(run(&mut client, end), DONE);
                    assert_eq!(who(&mut client), NOBODY, "{context}; {end}");
                    run(&mut client, "ROLLBACK PREPARED 'p'");
                    for reset in ["RESET pg_session_jwt.jwt", "RESET ALL", "DISCARD ALL"] {
                        run(&mut client, reset);
                        assert_eq!(who(&mut client), NOBODY, "{context}; {end}; {reset}");
                    }
                }
                // A refused one leaves nobody, as ever.
                run(&mut client, "BEGIN");
                assert_eq!(run(&mut client, &carrier), DONE);
                run(&mut client, "SAVEPOINT a");
                assert_eq!(init(&mut client, &forged(), true), "28J03");
                run(&mut client, "ROLLBACK TO a");
                assert_eq!(who(&mut client), NOBODY, "{context}");
                run(&mut client, "COMMIT");
            }
            // A transaction that sets it first and loads the library later.
            let mut client = connect(&site);
            run(&mut client, "BEGIN");
            assert_eq!(run(&mut client, &carrier), DONE);
            assert_eq!(notes(&mut client), ["alice"], "{context}");
            run(&mut client, "COMMIT");
            assert!(notes(&mut client).is_empty(), "{context}");
        }

        // What is set in the background of the first transaction is from before it.
        let mut client = connect(&site);
        run(&mut client, &format!("SET pg_session_jwt.jwt = '{alice}'"));
        run(&mut client, &format!("BEGIN; SET LOCAL pg_session_jwt.jwt = '{}'", site.token("bob")));
        assert_eq!(who(&mut client), "bob");
        run(&mut client, "COMMIT");
        assert_eq!(who(&mut client), NOBODY);

        // The startup packet is no transaction; whoever relies on it is told, once.
        let mut client = Wire::connect(&site.app().option("pg_session_jwt.jwt", &alice)).unwrap();
        assert_eq!(who(&mut client), NOBODY, "{preload:?}");
        let told = client.notices();
        assert_eq!(told.len(), 1, "{preload:?}: {told:?}");
        assert!(told[0].get(b'M').unwrap().contains("startup packet"), "{told:?}");
        run(&mut client, "DISCARD ALL");
        assert_eq!(who(&mut client), NOBODY, "{preload:?}");
        assert_eq!(client.notices().len(), 0);
    }
}

#[test]
fn identity_scope_in_procedures_workers_and_pipelines() {
    let site = start(
        Preload::Shared,
        &[
            ("pg_session_jwt.identity_scope", "transaction"),
            ("parallel_setup_cost", "0"),
            ("parallel_tuple_cost", "0"),
            ("min_parallel_table_scan_size", "0"),
            ("parallel_leader_participation", "off"),
        ],
    );
    site.cluster
        .admin()
        .batch_execute(
            "CREATE PROCEDURE steps(token text, INOUT seen text[]) LANGUAGE plpgsql AS $$
             BEGIN
               PERFORM auth.jwt_session_init(token);
               seen := seen || who();
               COMMIT;
               seen := seen || who();
             END $$;
             INSERT INTO notes SELECT 'carol' FROM generate_series(1, 20000); ANALYZE notes",
        )
        .unwrap();
    let mut client = connect(&site);
    let called = client.ask("CALL steps($1, '{}')", &[&site.token("alice")]).unwrap();
    assert_eq!(outcome(called), ["{alice,nobody}"]);

    let count = "SELECT count(*) FROM notes";
    run(&mut client, "BEGIN");
    assert_eq!(init(&mut client, &site.token("carol"), false), DONE);
    let plan = client.ask(&format!("EXPLAIN (COSTS OFF) {count}"), &[]).unwrap();
    assert!(outcome(plan).iter().any(|line| line.contains("Parallel Seq Scan")));
    assert_eq!(outcome(client.ask(count, &[]).unwrap()), ["20000"]);
    run(&mut client, "COMMIT");
    assert_eq!(outcome(client.ask(count, &[]).unwrap()), ["0"]);

    client.statement("SELECT auth.jwt_session_init($1)", &[&site.token("alice")]);
    client.statement("SELECT who()", &[]);
    assert_eq!(outcome(client.sync().unwrap().remove(1)), ["alice"]);
    assert_eq!(who(&mut client), NOBODY);
}

/// Who decides, and what becomes of identities that were there before.
#[test]
fn identity_scope_is_for_superusers() {
    const SCOPE: &str = "pg_session_jwt.identity_scope";
    for preload in Preload::ALL {
        let site = start(preload, &[(SCOPE, "transaction")]);
        let mut client = connect(&site);
        who(&mut client);
        assert_eq!(run(&mut client, &format!("SET {SCOPE} = session")), "42501");
        // A client that names it at its start loses what is configured, and gains nothing.
        let forgetful = site.app().option(SCOPE, "session");
        match Wire::connect(&forgetful) {
            Err(_) => assert_eq!(preload, Preload::Shared),
            Ok(mut client) => {
                assert_ne!(preload, Preload::Shared);
                for _ in 0..2 {
                    assert_eq!(init(&mut client, &site.token("alice"), false), DONE);
                    assert_eq!(who(&mut client), NOBODY, "{preload:?}");
                    site.cluster.reload();
                }
            }
        }
    }

    let site = start(Preload::Shared, &[]);
    let mut client = connect(&site);
    assert_eq!(init(&mut client, &site.token("alice"), false), DONE);
    site.cluster.append_configuration(&[(SCOPE, "transaction")]);
    site.cluster.reload();
    wait_for("the live session to notice", || who(&mut client) == NOBODY);
    site.cluster.append_configuration(&[(SCOPE, "session")]);
    site.cluster.reload();
    sleep(Duration::from_millis(100));
    assert_eq!(who(&mut client), NOBODY, "what has ended does not come back");
    assert_eq!(init(&mut client, &site.token("alice"), false), DONE);
    assert_eq!(who(&mut client), "alice");

    // Within a transaction, what was presented in it stays to its end.
    let mut admin = Wire::connect(&site.cluster.as_role("postgres")).unwrap();
    assert_eq!(init(&mut admin, &site.token("alice"), false), DONE);
    run(&mut admin, &format!("BEGIN; SET LOCAL {SCOPE} = transaction"));
    assert_eq!(who(&mut admin), NOBODY);
    assert_eq!(init(&mut admin, &site.token("bob"), false), DONE);
    run(&mut admin, &format!("SET LOCAL {SCOPE} = session; SET LOCAL {SCOPE} = transaction"));
    assert_eq!(who(&mut admin), "bob");
    run(&mut admin, "COMMIT");
    assert_eq!(who(&mut admin), NOBODY);
}

/// Where `request.jwt.claims` are believed, they are identities too.
#[test]
fn believed_claims_end_like_tokens() {
    let trust = ("pg_session_jwt.trust_request_claims", "on");
    let workers = [
        ("force_parallel_mode", "on"),
        ("parallel_setup_cost", "0"),
        ("parallel_tuple_cost", "0"),
        ("min_parallel_table_scan_size", "0"),
    ];
    let claims = "SET request.jwt.claims = '{\"sub\": \"alice\"}'";
    let local = "SET LOCAL request.jwt.claims = '{\"sub\": \"bob\"}'";

    // A refused token takes them away, from parallel workers too, and whatever is beneath them.
    let site = start(Preload::Shared, &[&workers[..], &[trust]].concat());
    let mut client = connect(&site);
    run(&mut client, claims);
    assert_eq!(notes(&mut client), ["alice"]);
    run(&mut client, "BEGIN");
    run(&mut client, local);
    assert_eq!(notes(&mut client), ["bob", "bob"]);
    run(&mut client, "SAVEPOINT a");
    assert_eq!(init(&mut client, &forged(), true), "28J03");
    for step in ["ROLLBACK TO a", "COMMIT", "RESET request.jwt.claims"] {
        run(&mut client, step);
        assert_eq!(who(&mut client), NOBODY, "{step}");
        assert!(notes(&mut client).is_empty(), "{step}");
    }
    run(&mut client, claims);
    assert_eq!(notes(&mut client), ["alice"]);

    let scope = ("pg_session_jwt.identity_scope", "transaction");
    for preload in Preload::ALL {
        let site = start(preload, &[&workers[..], &[trust, scope]].concat());
        let mut client = connect(&site);
        run(&mut client, claims);
        assert!(notes(&mut client).is_empty(), "{preload:?}");
        run(&mut client, "BEGIN");
        run(&mut client, claims);
        assert_eq!(notes(&mut client), ["alice"], "{preload:?}");
        run(&mut client, local);
        assert_eq!(notes(&mut client), ["bob", "bob"], "{preload:?}");
        run(&mut client, "COMMIT");
        assert!(notes(&mut client).is_empty(), "{preload:?}");
        assert_eq!(who(&mut client), NOBODY, "{preload:?}");
        let mut client = connect(&site);
        run(&mut client, "BEGIN");
        run(&mut client, local);
        assert_eq!(notes(&mut client), ["bob", "bob"], "{preload:?}");
        run(&mut client, "COMMIT");
        assert!(notes(&mut client).is_empty(), "{preload:?}");
    }
}

/// Claims are nobody's afterwards whatever is believed when, and under which names settings hide.
#[test]
fn believed_claims_do_not_come_back() {
    const TRUST: &str = "pg_session_jwt.trust_request_claims";
    const SCOPE: &str = "pg_session_jwt.identity_scope";
    let alice = "SELECT set_config('request.jwt.claims', '{\"sub\": \"alice\"}', false)";
    let bob = "SELECT set_config('request.jwt.claims', '{\"sub\": \"bob\"}', true)";
    let site = start(Preload::Shared, &[(TRUST, "on"), (SCOPE, "transaction")]);

    // Names that Postgres sorts before its own, and others after them.
    let mut client = connect(&site);
    let names = "DO $$ BEGIN FOR n IN 1..800 LOOP PERFORM set_config('é.x' || n, '1', false); \
                 END LOOP; END $$";
    assert_eq!(run(&mut client, names), DONE);
    assert_eq!(run(&mut client, alice), DONE);
    assert_eq!(who(&mut client), NOBODY);
    run(&mut client, "BEGIN");
    run(&mut client, alice);
    run(&mut client, "SAVEPOINT a");
    assert_eq!(who(&mut client), "alice");
    assert_eq!(init(&mut client, &forged(), true), "28J03");
    run(&mut client, "ROLLBACK TO a");
    assert_eq!(who(&mut client), NOBODY);
    run(&mut client, "COMMIT");

    // Settings that are others for the transaction in which the claims are set.
    let mut admin = Wire::connect(&site.cluster.as_role("postgres")).unwrap();
    for setting in [format!("{TRUST} = off"), format!("{SCOPE} = session")] {
        run(&mut admin, &format!("BEGIN; SET LOCAL {setting}"));
        assert_eq!(run(&mut admin, alice), DONE);
        run(&mut admin, "COMMIT");
        assert_eq!(who(&mut admin), NOBODY, "{setting}");
    }

    // Claims that are believed only later.
    let site = start(Preload::Shared, &[(SCOPE, "transaction")]);
    let mut client = connect(&site);
    assert_eq!(run(&mut client, alice), DONE);
    site.cluster.append_configuration(&[(TRUST, "on")]);
    site.cluster.reload();
    run(&mut client, "BEGIN");
    assert_eq!(who(&mut client), NOBODY);
    assert_eq!(run(&mut client, bob), DONE);
    assert_eq!(who(&mut client), "bob");
    run(&mut client, "ROLLBACK");

    // What lies beneath when the library comes late, or the scope changes on the way.
    let site = start(Preload::Neither, &[(TRUST, "on"), (SCOPE, "transaction")]);
    let mut client = connect(&site);
    for statement in [alice, "BEGIN", "SAVEPOINT a", bob] {
        assert_eq!(run(&mut client, statement), DONE);
    }
    assert_eq!(who(&mut client), "bob");
    run(&mut client, "ROLLBACK TO a");
    assert_eq!(who(&mut client), NOBODY);

    let site = start(Preload::Shared, &[(TRUST, "on")]);
    let mut client = connect(&site);
    for statement in [alice, "BEGIN", "SAVEPOINT a", bob] {
        assert_eq!(run(&mut client, statement), DONE);
    }
    site.cluster.append_configuration(&[(SCOPE, "transaction")]);
    site.cluster.reload();
    assert_eq!(who(&mut client), "bob");
    run(&mut client, "ROLLBACK TO a");
    assert_eq!(who(&mut client), NOBODY);
}
