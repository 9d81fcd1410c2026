//! The background worker that fetches keys.

use std::thread::sleep;
use std::time::Duration;

use harness::{Behaviour, Code, SUCCESS, key, present, run, text, user, wait_for};

use super::fixture::*;

#[test]
fn what_could_not_be_fetched_at_once_is_fetched_all_the_same() {
    let fixture = Fixture::new(&[("max_worker_processes", "2")]);
    let mut admin = fixture.cluster.admin();
    fixture.idp.behave(Behaviour::Slow(Duration::from_millis(200)));
    let add = "SELECT auth.add_provider($1, issuer => $1, jwks_url => $2)";
    for n in 0..8 {
        admin.execute(add, &[&format!("issuer-{n}"), &fixture.idp.jwks_url()]).unwrap();
    }
    let good = "SELECT count(*)::text FROM auth.provider_status WHERE state = 'good'";
    wait_for("the keys", || text(&mut admin, good).as_deref() == Some("8"));
    assert_eq!(fixture.idp.requests(), 8, "fixture.idp.requests");
}

#[test]
fn a_worker_that_is_ended_takes_nothing_along() {
    let fixture = Fixture::ready(&[("log_min_messages", "info")]);
    let second = key("k2");
    fixture.idp.set_keys(&[&fixture.key, &second]);
    let token = fixture.token(&second, "bob");
    let started = "SELECT pg_postmaster_start_time()::text";
    let before = text(&mut fixture.cluster.admin(), started);
    let mut bystander = fixture.client();
    assert_eq!(
        present(&mut bystander, &fixture.token(&fixture.key, "alice")),
        SUCCESS,
        "present(fixture.token(fixture.key, alice))"
    );
    for behaviour in [Behaviour::Hang, Behaviour::HangMidBody, Behaviour::Drip, Behaviour::Hang] {
        fixture.idp.behave(behaviour);
        fixture.forget_demand();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| refusal(&mut fixture.client(), &token));
            wait_for("the worker", || !fixture.workers().is_empty());
            // Somewhere on its way.
            wait_for("the record of the fetch", || {
                fixture.status("last_error").is_some_and(|text| text.contains("being fetched"))
            });
            sleep(Duration::from_millis(100));
            let kill = "SELECT pg_terminate_backend($1)";
            for pid in fixture.workers() {
                fixture.cluster.admin().execute(kill, &[&pid]).unwrap();
            }
            let error = waiting.join().unwrap();
            assert_eq!(error.code().code(), Code::NoKey.sqlstate(), "{error:?}");
            assert!(detail(&error).contains("has not ended"), "{error:?}");
        });
        wait_for("the worker's end", || fixture.workers().is_empty());
        let status = fixture.status("last_error").unwrap();
        assert!(status.contains("was interrupted"), "{status}");
    }
    assert_eq!(text(&mut fixture.cluster.admin(), started), before, "the server has crashed");
    assert_eq!(
        user(&mut bystander).as_deref(),
        Some("alice"),
        "the user after fixture.token(fixture.key, alice)"
    );
    fixture.idp.behave(Behaviour::Serve);
    fixture.forget_demand();
    assert_eq!(present(&mut bystander, &token), SUCCESS, "present(token)");
    assert_eq!(fixture.status("last_error"), None, "the fetch has ended");

    // It dies with the server, however that ends.
    fixture.idp.behave(Behaviour::Hang);
    fixture.update("next_refresh = NULL");
    assert_eq!(
        present(&mut fixture.client(), &token),
        SUCCESS,
        "it dies with the server, however that ends"
    );
    wait_for("the worker", || !fixture.workers().is_empty());
    let worker = fixture.workers()[0];
    fixture.cluster.kill_postmaster();
    let process = std::path::PathBuf::from(format!("/proc/{worker}"));
    wait_for("the worker's end", || !process.exists());
}

#[test]
fn the_worker_writes_as_the_tables_owner() {
    let fixture = Fixture::new(&[]);
    let mut admin = fixture.cluster.admin();
    run(
        &mut admin,
        "CREATE ROLE dba LOGIN; GRANT CREATE ON SCHEMA public TO dba;
         ALTER TABLE auth.providers OWNER TO dba",
    );
    let mut dba = fixture.cluster.as_role("dba").client();
    run(
        &mut dba,
        "CREATE TABLE seen (who text, path text, made text);
         CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             BEGIN
                 CREATE ROLE mine SUPERUSER;
             EXCEPTION WHEN OTHERS THEN
                 INSERT INTO public.seen
                     VALUES (current_user, current_setting('search_path'), SQLSTATE);
             END;
             RETURN NEW;
         END $$;
         CREATE TRIGGER spy BEFORE UPDATE ON auth.providers FOR EACH ROW EXECUTE FUNCTION spy();
         ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER spy;
         CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql
             AS 'BEGIN RAISE EXCEPTION ''fooled''; END'",
    );
    run(&mut admin, "ALTER ROLE postgres SET search_path = public, pg_catalog");
    // Nor does it run the triggers of roles that own nothing.
    run(&mut admin, "CREATE ROLE guest LOGIN; GRANT TRIGGER ON auth.providers TO guest");
    run(&mut admin, "GRANT CREATE ON SCHEMA public TO guest");
    run(
        &mut fixture.cluster.as_role("guest").client(),
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''x''; END';
         CREATE TRIGGER fail BEFORE UPDATE ON auth.providers FOR EACH ROW EXECUTE FUNCTION fail()",
    );
    fixture.add();
    fixture.wait_for_keys();
    let seen = "SELECT string_agg(DISTINCT seen::text, ' ') FROM seen";
    assert_eq!(
        text(&mut admin, seen).as_deref(),
        Some("(dba,\"pg_catalog, pg_temp\",42501)"),
        "a trigger runs as somebody else than the table's owner"
    );
    assert_eq!(
        present(&mut fixture.client(), &fixture.token(&fixture.key, "alice")),
        SUCCESS,
        "after GRANT CREATE ON SCHEMA public TO guest"
    );
}

#[test]
fn without_a_free_worker_tokens_with_known_keys_go_on() {
    let fixture = Fixture::ready(&[]);
    let limits = [("max_worker_processes", "0"), ("max_logical_replication_workers", "0")];
    fixture.cluster.append_configuration(&limits);
    fixture.cluster.restart();
    let second = key("k2");
    fixture.idp.set_keys(&[&fixture.key, &second]);
    let mut client = fixture.client();
    for _ in 0..2 {
        let error = refusal(&mut client, &fixture.token(&second, "bob"));
        assert_eq!(error.code().code(), Code::NoKey.sqlstate(), "error.code.code");
        assert!(detail(&error).contains("max_worker_processes"), "{error:?}");
        let error = fixture.refresh().unwrap_err();
        assert_eq!(error.code().code(), Code::Fetching.sqlstate(), "error.code.code");
        assert!(detail(&error).contains("max_worker_processes"), "{error:?}");
        fixture.update("next_refresh = now()");
        assert_eq!(
            present(&mut client, &fixture.token(&fixture.key, "alice")),
            SUCCESS,
            "present(fixture.token(fixture.key, alice))"
        );
        assert_eq!(
            user(&mut client).as_deref(),
            Some("alice"),
            "the user after fixture.token(fixture.key, alice)"
        );
    }
    run(
        &mut fixture.cluster.admin(),
        "SELECT auth.add_provider('other', issuer => 'https://localhost:1/')",
    );
    wait_for("the log", || fixture.cluster.log().contains("no background worker can be started"));
    fixture.cluster.append_configuration(&[("max_worker_processes", "8")]);
    fixture.cluster.restart();
    assert_eq!(
        present(&mut fixture.client(), &fixture.token(&second, "bob")),
        SUCCESS,
        "present(fixture.token(second, bob))"
    );
}

#[test]
fn what_is_dropped_meanwhile_is_let_go() {
    let fixture = Fixture::new(&[("pg_session_jwt.jwks_timeout", "2s")]);
    let mut admin = fixture.cluster.admin();
    run(&mut admin, "CREATE DATABASE gone");
    fixture.idp.behave(Behaviour::Hang);
    let connection = fixture.cluster.as_role("postgres").database("gone");
    let add = "SELECT auth.add_provider('idp', issuer => $1)";
    let mut gone = connection.client();
    run(&mut gone, "CREATE EXTENSION pg_session_jwt");
    gone.execute(add, &[&fixture.idp.issuer()]).unwrap();
    wait_for("the worker", || !fixture.workers().is_empty());
    drop(gone);
    // Postgres gives others in the database five seconds.
    run(&mut admin, "DROP DATABASE gone");
    assert!(fixture.workers().is_empty(), "Postgres gives others in the database five seconds");

    // A provider, the extension.
    for drop in ["SELECT auth.remove_provider('idp')", "DROP EXTENSION pg_session_jwt CASCADE"] {
        admin.execute(add, &[&fixture.idp.issuer()]).unwrap();
        wait_for("the worker", || !fixture.workers().is_empty());
        run(&mut admin, drop);
        wait_for("the worker's end", || fixture.workers().is_empty());
    }
    fixture.idp.behave(Behaviour::Serve);
    run(&mut admin, "CREATE EXTENSION pg_session_jwt");
    let mut client = fixture.client();
    assert_eq!(
        present(&mut client, &fixture.token(&fixture.key, "alice")),
        Code::NoKey.sqlstate(),
        "a provider, the extension"
    );
    fixture.add();
    assert_eq!(
        present(&mut client, &fixture.token(&fixture.key, "alice")),
        SUCCESS,
        "a provider, the extension"
    );
    let log = fixture.cluster.log();
    assert!(!log.contains("terminating any other active server processes"), "{log}");
}
