//! Whose identity is left when something ends early: statements that are cancelled, sessions that
//! are terminated, clients and servers that die.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use fastrand::Rng;
use harness::{
    ADMIN_SHUTDOWN, Cluster, Code, INSUFFICIENT_PRIVILEGE, LOCK_NOT_AVAILABLE, Pooler, Preload,
    QUERY_CANCELED, SUCCESS, Site, T_R_DEADLOCK_DETECTED, backend_pid, present, present_locally,
    run, send_signal, sqlstate, text, token, user, wait_for,
};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::json;

/// A site with a table of which everybody sees their own rows.
fn start() -> Site {
    let site = Site::start(Preload::Shared, &[]);
    run(
        &mut site.cluster.admin(),
        "CREATE TABLE notes (owner text DEFAULT auth.user_id(), note text);
         ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON notes USING (owner = auth.user_id());
         GRANT SELECT, INSERT ON notes TO app",
    );
    site
}

/// PgBouncer, which opens a second server connection only while the first is in use, and gets over
/// a lost one soon.
fn pooler(cluster: &Cluster) -> Pooler<'_> {
    cluster.pooler("transaction", &[("default_pool_size", "2"), ("server_login_retry", "1")])
}

fn rows(client: &mut Client) -> i64 {
    client.query_one("SELECT count(*) FROM notes", &[]).unwrap().get(0)
}

/// Waits until the backend is within this wait event.
fn wait_for_event(admin: &mut Client, pid: i32, event: &str) {
    let query = format!(
        "SELECT count(*)::text FROM pg_stat_activity
         WHERE pid = {pid} AND wait_event = '{event}' AND state = 'active'"
    );
    wait_for(event, || text(admin, &query).as_deref() == Some("1"));
}

fn wait_for_end(admin: &mut Client, pid: i32) {
    let query = format!("SELECT count(*)::text FROM pg_stat_activity WHERE pid = {pid}");
    wait_for("the backend to end", || text(admin, &query).as_deref() == Some("0"));
}

/// Turns off `statement_timeout`, which may end this statement too. Where it strikes after a
/// statement's last look for interrupts, which a `SET` takes early, Postgres ends the next one.
fn end_timeouts(client: &mut Client) {
    while sqlstate(client.batch_execute("SET statement_timeout = 0")) == QUERY_CANCELED {}
    while sqlstate(client.batch_execute("SELECT")) == QUERY_CANCELED {}
}

fn terminate(admin: &mut Client, pid: i32) {
    run(admin, &format!("SELECT pg_terminate_backend({pid})"));
    wait_for_end(admin, pid);
}

#[test]
fn a_server_that_dies_comes_back_with_nobody() {
    let Site { cluster, key, .. } = start();
    let pooler = pooler(&cluster);
    let (alice, bob) = (token(&key, "alice"), token(&key, "bob"));
    let write = "INSERT INTO notes (note) VALUES ('n')";
    for (round, way) in [(1, "kill"), (2, "fast"), (3, "immediate")] {
        let mut victim = cluster.as_role("app").client();
        assert_eq!(present(&mut victim, &alice), SUCCESS, "{way:?}, {round:?}");
        assert_eq!(victim.execute(write, &[]).unwrap(), 1, "{way:?}, {round:?}");
        run(&mut victim, &format!("BEGIN; {write}"));
        let mut other = cluster.as_role("app").client();
        assert_eq!(present(&mut other, &bob), SUCCESS, "{way:?}, {round:?}");
        let mut idle = pooler.as_role("app").client();
        assert_eq!(present(&mut idle, &bob), SUCCESS, "{way:?}, {round:?}");
        let mut pooled = pooler.as_role("app").client();
        run(&mut pooled, "BEGIN");
        assert_eq!(present_locally(&mut pooled, &alice), SUCCESS, "{way:?}, {round:?}");

        match way {
            // The postmaster ends all others, lest the dead one has spoilt what they share.
            "kill" => send_signal("KILL", backend_pid(&mut victim) as u32),
            mode => cluster.restart_in_mode(mode),
        }
        wait_for("the others to be ended", || other.batch_execute("SELECT").is_err());
        wait_for("the server", || cluster.as_role("app").try_client().is_ok());
        assert!(victim.batch_execute("SELECT").is_err(), "{way:?}, {round:?}: after SELECT");
        assert!(pooled.batch_execute("COMMIT").is_err(), "{way:?}, {round:?}: after SELECT");

        for _ in 0..8 {
            let mut client = cluster.as_role("app").client();
            assert_eq!((user(&mut client), rows(&mut client)), (None, 0), "{way}");
        }
        // PgBouncer keeps its clients, but not what the session was that they shared.
        wait_for("PgBouncer", || idle.batch_execute("SELECT").is_ok());
        assert_eq!((user(&mut idle), rows(&mut idle)), (None, 0), "{way}");
        let mut pooled = pooler.as_role("app").client();
        run(&mut pooled, "BEGIN");
        assert_eq!((user(&mut pooled), rows(&mut pooled)), (None, 0), "{way}");
        assert_eq!(present_locally(&mut pooled, &alice), SUCCESS, "{way:?}, {round:?}");
        assert_eq!(rows(&mut pooled), round, "{way}");
        run(&mut pooled, "COMMIT");
    }
    let log = cluster.log();
    assert!(log.contains("was terminated by signal 9"), "{log}");
}

#[test]
fn a_session_that_ends_takes_its_identity_along() {
    let Site { cluster, key, .. } = start();
    let pooler = pooler(&cluster);
    let mut admin = cluster.admin();
    let alice = token(&key, "alice");
    let nobody_on_another = |last: i32| {
        let mut client = pooler.as_role("app").client();
        wait_for("another server connection", || client.batch_execute("SELECT").is_ok());
        assert_ne!(backend_pid(&mut client), last, "after SELECT");
        assert_eq!((user(&mut client), rows(&mut client)), (None, 0), "after SELECT");
    };

    for pooled in [false, true] {
        let connect =
            || if pooled { pooler.as_role("app") } else { cluster.as_role("app") }.client();
        // Terminated within a transaction.
        let mut client = connect();
        run(&mut client, "BEGIN");
        assert_eq!(present_locally(&mut client, &alice), SUCCESS, "{pooled:?}: after BEGIN");
        run(&mut client, "INSERT INTO notes (note) VALUES ('n')");
        let pid = backend_pid(&mut client);
        terminate(&mut admin, pid);
        assert!(client.batch_execute("COMMIT").is_err(), "{pooled:?}");
        nobody_on_another(pid);

        // With an identity that was for the session.
        let mut client = connect();
        assert_eq!(present(&mut client, &alice), SUCCESS, "{pooled:?}");
        let pid = backend_pid(&mut client);
        terminate(&mut admin, pid);
        nobody_on_another(pid);

        // Within the statement that presents the token.
        let mut client = connect();
        let pid = backend_pid(&mut client);
        let error = scope(|threads| {
            let wait = "SELECT auth.jwt_session_init($1), pg_sleep(60)";
            let waiting = threads.spawn(|| client.query(wait, &[&alice]).unwrap_err());
            wait_for_event(&mut admin, pid, "PgSleep");
            terminate(&mut admin, pid);
            waiting.join().unwrap()
        });
        // The client library may be told of the closed connection before it has read the error.
        assert!(error.code().is_none_or(|code| code.code() == ADMIN_SHUTDOWN), "{error:?}");
        nobody_on_another(pid);

        // By timeouts, in a transaction and out of it.
        let mut client = connect();
        run(&mut client, "BEGIN");
        assert_eq!(present_locally(&mut client, &alice), SUCCESS, "{pooled:?}: after BEGIN");
        let pid = backend_pid(&mut client);
        run(&mut client, "SET LOCAL idle_in_transaction_session_timeout = '200ms'");
        wait_for_end(&mut admin, pid);
        assert!(client.batch_execute("COMMIT").is_err(), "{pooled:?}");
        nobody_on_another(pid);

        let mut client = connect();
        assert_eq!(present(&mut client, &alice), SUCCESS, "{pooled:?}: after COMMIT");
        let pid = backend_pid(&mut client);
        run(&mut client, "SET idle_session_timeout = '200ms'");
        wait_for_end(&mut admin, pid);
        nobody_on_another(pid);
    }
    let mut client = cluster.as_role("app").client();
    assert_eq!(present(&mut client, &alice), SUCCESS, "after SET idle_session_timeout = '200ms'");
    assert_eq!(rows(&mut client), 0, "nothing was committed");
}

/// A client that is killed is gone without a word; one that is interrupted cancels its statement.
#[test]
fn a_client_that_dies_leaves_nobody() {
    let Site { cluster, key, .. } = start();
    let pooler = pooler(&cluster);
    let mut admin = cluster.admin();
    let alice = token(&key, "alice");
    let local = format!("SELECT auth.jwt_session_init('{alice}', true);");
    let sleep = format!("SELECT auth.jwt_session_init('{alice}'), pg_sleep(60);");
    // PgBouncer closes a server connection that it would get back in a transaction or statement.
    for (signal, sql, same_server) in [
        ("KILL", format!("BEGIN; {local} INSERT INTO notes (note) VALUES ('n');"), false),
        ("KILL", format!("BEGIN; {local} COMMIT;"), true),
        ("KILL", sleep.clone(), false),
        ("INT", sleep, true),
    ] {
        let mut psql = cluster.program("psql");
        psql.args(["-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-U", "app", "-d", "postgres"]);
        psql.args(["-p", &pooler.port().to_string()]);
        let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = psql.stdin.take().unwrap();
        let mut output = BufReader::new(psql.stdout.take().unwrap()).lines();
        let ask = "SELECT 'server ' || pg_backend_pid();";
        writeln!(input, "{ask}\n{sql}\n{ask}").unwrap();
        let mut servers = output
            .by_ref()
            .filter_map(|line| line.unwrap().strip_prefix("server ")?.parse::<i32>().ok());
        let pid = servers.next().unwrap();
        if sql.contains("pg_sleep") {
            wait_for_event(&mut admin, pid, "PgSleep");
        } else {
            assert_eq!(servers.next(), Some(pid), "it is done");
        }
        send_signal(signal, psql.id());
        psql.wait().unwrap();

        let mut client = pooler.as_role("app").client();
        assert_eq!(backend_pid(&mut client) == pid, same_server, "{signal}: {sql}");
        assert_eq!((user(&mut client), rows(&mut client)), (None, 0), "{signal}: {sql}");
        run(&mut client, "BEGIN");
        assert_eq!(present_locally(&mut client, &alice), SUCCESS, "{sql:?}, {signal:?}");
        assert_eq!(rows(&mut client), 0, "{signal}: {sql}");
        run(&mut client, "COMMIT");
    }
}

#[test]
fn statements_that_are_ended_present_nothing() {
    let Site { cluster, key, .. } = start();
    let pooler = pooler(&cluster);
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| token(&key, name));
    let mut admin = cluster.admin();
    run(&mut admin, "ALTER ROLE app SET deadlock_timeout = '20ms'; SELECT pg_advisory_lock(3)");
    for connection in [cluster.as_role("app"), pooler.as_role("app")] {
        let mut client = connection.client();
        let pid = backend_pid(&mut client);
        // One that holds a lock and waits for one of ours, and does not look for deadlocks itself.
        run(&mut client, "SELECT pg_advisory_lock(1)");
        let mut partner = cluster.admin();
        run(&mut partner, "SET deadlock_timeout = '1h'; SELECT pg_advisory_lock(2)");
        let partner_pid = backend_pid(&mut partner);
        let partner = std::thread::spawn(move || run(&mut partner, "SELECT pg_advisory_lock(1)"));
        wait_for_event(&mut admin, partner_pid, "advisory");

        for (code, timeout, goes_on) in [
            (QUERY_CANCELED, "statement_timeout = '20ms'", "pg_sleep(60)"),
            (QUERY_CANCELED, "statement_timeout = 0", "pg_sleep(60)"),
            (LOCK_NOT_AVAILABLE, "lock_timeout = '20ms'", "pg_advisory_lock(3)"),
            (T_R_DEADLOCK_DETECTED, "lock_timeout = 0", "pg_advisory_lock(2)"),
        ] {
            let is_cancelled = timeout == "statement_timeout = 0";
            let mut end = |client: &mut Client, is_local: bool| {
                let init = format!("SELECT auth.jwt_session_init($1, {is_local}), {goes_on}");
                run(client, &format!("SET {timeout}"));
                let ended = scope(|threads| {
                    let waiting = threads.spawn(|| sqlstate(client.query(&init, &[&carol])));
                    if is_cancelled {
                        wait_for_event(&mut admin, pid, "PgSleep");
                        run(&mut admin, &format!("SELECT pg_cancel_backend({pid})"));
                    }
                    waiting.join().unwrap()
                });
                assert_eq!(ended, code, "{timeout}");
            };
            for (outer, is_local) in [(None, true), (Some("alice"), false)] {
                let what = format!("{code}, {timeout}, {outer:?}, {is_local}");
                assert_eq!(
                    present(&mut client, outer.map_or("", |_| &alice)),
                    SUCCESS,
                    "{outer:?}, {is_local:?}"
                );
                end(&mut client, is_local);
                end_timeouts(&mut client);
                assert_eq!(user(&mut client).as_deref(), outer, "{what}");

                // Elsewhere, the timeout is rolled back together with the statement.
                run(&mut client, "BEGIN");
                end(&mut client, is_local);
                run(&mut client, "ROLLBACK");
                assert_eq!(user(&mut client).as_deref(), outer, "{what}, ROLLBACK");

                run(&mut client, "BEGIN");
                assert_eq!(present_locally(&mut client, &bob), SUCCESS, "{outer:?}, {is_local:?}");
                run(&mut client, "SAVEPOINT s");
                end(&mut client, is_local);
                run(&mut client, "ROLLBACK TO s");
                assert_eq!(user(&mut client).as_deref(), Some("bob"), "{what}, ROLLBACK TO");
                run(&mut client, "COMMIT");
                assert_eq!(user(&mut client).as_deref(), outer, "{what}, COMMIT");
            }
        }
        assert_eq!(backend_pid(&mut client), pid, "one connection for all");
        run(&mut client, "SELECT pg_advisory_unlock_all()");
        partner.join().unwrap();
    }
}

#[test]
fn cancels_at_random_moments() {
    // Tokens do not say which key they were signed with, so all are tried in turn.
    let keys: Vec<Key> = (0..6).map(|_| Key::generate(Algorithm::ES384)).collect();
    let jwks: Vec<_> = keys.iter().map(Key::public_jwk).collect();
    let cluster = Cluster::start(
        Preload::Shared,
        &[
            ("pg_session_jwt.jwk", &json!({"keys": jwks}).to_string()),
            ("pg_session_jwt.token_cache_size", "0"),
            ("pg_session_jwt.shared_cache_size", "0"),
        ],
    );
    let stranger = Key::generate(Algorithm::ES384);
    let mut tokens = vec![("x".to_owned(), Code::Malformed.sqlstate(), None)];
    for name in ["alice", "bob", "carol", "dave"] {
        tokens.push((token(&stranger, name), Code::Signature.sqlstate(), None));
        for key in [&keys[0], &keys[3], &keys[5]] {
            tokens.push((token(key, name), SUCCESS, Some(name)));
        }
    }

    let mut client = cluster.as_role("app").client();
    let pid = backend_pid(&mut client);
    let init = client.prepare("SELECT auth.jwt_session_init($1, $2)").unwrap();
    let slowest = token(&keys[5], "alice");
    let start = Instant::now();
    client.execute(&init, &[&slowest, &false]).unwrap();
    let span = start.elapsed().as_micros() as u64;

    let mut admin = cluster.admin();
    let cancel = admin.prepare("SELECT pg_cancel_backend($1)").unwrap();
    let (order, orders) = mpsc::channel();
    let (report, reports) = mpsc::channel();
    let canceller = std::thread::spawn(move || {
        for delay in orders {
            sleep(Duration::from_micros(delay));
            admin.execute(&cancel, &[&pid]).unwrap();
            report.send(()).unwrap();
        }
    });

    let mut random = Rng::with_seed(0x5eed);
    let mut outcomes: HashMap<String, u32> = HashMap::new();
    let mut session = Some("alice");
    for round in 0..2000 {
        let (token, code, name) = random.choice(&tokens).unwrap();
        let is_local = random.u64(..3) == 0;
        let outcome;
        if random.u64(..2) == 0 {
            // On its own, ended by a timeout or by somebody else.
            if random.u64(..3) == 0 {
                run(&mut client, "SET statement_timeout = '1ms'");
                outcome = if random.u64(..2) == 0 {
                    sqlstate(client.execute(&init, &[token, &is_local]))
                } else {
                    let scope = if is_local { "LOCAL" } else { "SESSION" };
                    let set = format!("SET {scope} pg_session_jwt.jwt = '{token}'");
                    sqlstate(client.batch_execute(&set))
                };
                end_timeouts(&mut client);
            } else {
                order.send(random.u64(..span + span / 2)).unwrap();
                outcome = sqlstate(client.execute(&init, &[token, &is_local]));
                // Later than this, it could end another statement.
                reports.recv().unwrap();
            }
            session = match outcome.as_str() {
                SUCCESS if !is_local => *name,
                SUCCESS | QUERY_CANCELED => session,
                _ => None,
            };
        } else {
            // In a savepoint, with somebody from before it.
            run(&mut client, "BEGIN");
            let mut current = session;
            if let (token, SUCCESS, name) = random.choice(&tokens).unwrap() {
                assert_eq!(present_locally(&mut client, token), SUCCESS, "{round:?}: after BEGIN");
                current = *name;
            }
            run(&mut client, "SAVEPOINT s");
            order.send(random.u64(..span + span / 2)).unwrap();
            outcome = sqlstate(client.execute(&init, &[token, &is_local]));
            reports.recv().unwrap();
            if outcome != SUCCESS {
                run(&mut client, "ROLLBACK TO s");
            }
            match outcome.as_str() {
                SUCCESS => current = *name,
                QUERY_CANCELED => {}
                _ => (current, session) = (None, None),
            }
            assert_eq!(user(&mut client).as_deref(), current, "{round}: {outcome}, {is_local}");
            let end = *random.choice(&["COMMIT", "ROLLBACK"]).unwrap();
            run(&mut client, end);
            if outcome == SUCCESS && !is_local && end == "COMMIT" {
                session = *name;
            }
        }
        assert!(outcome == *code || outcome == QUERY_CANCELED, "{round}: {outcome} for {code}");
        assert_eq!(user(&mut client).as_deref(), session, "{round}: {outcome}, {is_local}");
        *outcomes.entry(outcome).or_default() += 1;
    }
    drop(order);
    canceller.join().unwrap();
    for code in [SUCCESS, QUERY_CANCELED, Code::Malformed.sqlstate(), Code::Signature.sqlstate()] {
        assert!(outcomes.get(code).is_some_and(|times| *times >= 20), "{outcomes:?}");
    }
}

/// Whatever the server's environment says, no error has a backtrace in it, for the client or the log.
#[test]
fn errors_have_no_backtrace() {
    let Site { cluster, key, .. } = start();
    let mut stop = cluster.program("pg_ctl");
    assert!(
        stop.args(["-w", "-s", "-m", "fast", "stop", "-D", "data"]).status().unwrap().success(),
        "stop.args([-w, -s, -m, fast, stop, -D, data]).status.success"
    );
    let mut start = cluster.program("pg_ctl");
    start.args(["-w", "-s", "-l", "log", "-o", &format!("-p {}", cluster.port()), "-D", "data"]);
    start.arg("start").env("RUST_BACKTRACE", "full").env("RUST_LIB_BACKTRACE", "full");
    start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(start.status().unwrap().success(), "start.status.success");

    let mut admin = cluster.admin();
    let mut client = cluster.as_role("app").client();
    // Errors of Postgres' own, below the extension: in a function, and in a check hook.
    run(&mut admin, "BEGIN; LOCK TABLE auth.providers");
    run(&mut client, "SET lock_timeout = '100ms'");
    let provided = token(&key, "alice");
    for (statement, code, message) in [
        (
            "SELECT auth.refresh_provider('p')".to_owned(),
            INSUFFICIENT_PRIVILEGE,
            "permission denied for table providers",
        ),
        (
            format!("SELECT auth.jwt_verify('{}')", key.sign(&json!({"iss": "other"}))),
            LOCK_NOT_AVAILABLE,
            "canceling statement due to lock timeout",
        ),
        (
            "SELECT auth.demand('schema_add', 'public', 'notes')".to_owned(),
            INSUFFICIENT_PRIVILEGE,
            "token does not allow this",
        ),
        (
            "SELECT auth.allows('no', NULL)".to_owned(),
            Code::Configuration.sqlstate(),
            "action is unknown",
        ),
    ] {
        let error = client.batch_execute(&statement).expect_err(&statement);
        let error = error.as_db_error().expect("the server's error");
        assert_eq!((error.code().code(), error.message()), (code, message), "{statement}");
        for field in [error.detail(), error.hint(), error.where_()] {
            let field = field.unwrap_or_default();
            assert!(!field.contains("core::") && !field.contains(".rs"), "{statement}: {field}");
        }
        if code.starts_with('5') {
            assert_eq!(error.detail(), None, "{statement}");
        }
    }
    run(&mut admin, "COMMIT");
    assert_eq!(present(&mut client, &provided), SUCCESS, "after COMMIT");
    let log = cluster.log();
    for trace in ["core::panicking", "rust_begin_unwind", "pgrx", "stack backtrace"] {
        assert!(!log.contains(trace), "{trace} in {log}");
    }
}
