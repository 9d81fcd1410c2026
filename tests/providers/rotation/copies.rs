//! Restarts, dumps and standbys.

use harness::{Code, SUCCESS, key, present, run, sqlstate, text, user, wait_for};

use super::fixture::*;

#[test]
fn keys_outlast_a_restart_a_dump_and_a_switch() {
    let fixture = Fixture::ready(&[]);
    let token = fixture.token(&fixture.key, "alice");
    fixture.cluster.restart_in_mode("fast");
    fixture.idp.stop();
    assert_eq!(present(&mut fixture.client(), &token), SUCCESS, "present(token)");

    // Dumped and restored, with all that is known.
    let port = fixture.cluster.port().to_string();
    let dump = |arguments: &[&str]| {
        let mut command = fixture.cluster.program("pg_dump");
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port]).args(arguments);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let text_dump = dump(&["postgres"]);
    assert!(text_dump.contains("COPY auth.providers"), "{text_dump}");
    run(&mut fixture.cluster.admin(), "CREATE DATABASE restored");
    run(&mut fixture.cluster.admin(), "CREATE DATABASE spoilt");
    let restore = |database: &str, dump: &str| {
        let file = fixture.idp.folder().join("dump.sql");
        std::fs::write(&file, dump).unwrap();
        let mut command = fixture.cluster.program("psql");
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port, "-d", database]);
        command.args(["-q", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-f"]).arg(file);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (restored, errors) = restore("restored", &text_dump);
    assert!(restored, "{errors}");
    let mut client = fixture.cluster.as_role("app").database("restored").client();
    assert_eq!(
        present(&mut client, &token),
        SUCCESS,
        "dumped and restored, with all that is known"
    );
    assert_eq!(
        user(&mut client).as_deref(),
        Some("alice"),
        "dumped and restored, with all that is known"
    );
    // What a restore writes is checked like anything else.
    let spoilt = text_dump.replace(&fixture.idp.jwks_url(), "http://example.com/jwks.json");
    let (restored, errors) = restore("spoilt", &spoilt);
    assert!(!restored && errors.contains(Code::Configuration.sqlstate()), "{errors}");
    assert_eq!(fixture.idp.requests(), 1, "what a restore writes is checked like anything else");
}

#[test]
fn a_standby_has_what_the_primary_fetches() {
    let fixture = Fixture::ready(&[]);
    let standby = fixture.cluster.standby();
    standby.catch_up(&fixture.cluster);
    let second = key("k2");
    let mut reader = standby.as_role("app").client();
    assert_eq!(
        present(&mut reader, &fixture.token(&fixture.key, "alice")),
        SUCCESS,
        "present(fixture.token(fixture.key, alice))"
    );
    assert_eq!(
        user(&mut reader).as_deref(),
        Some("alice"),
        "the user after fixture.token(fixture.key, alice)"
    );

    // It fetches nothing itself, neither for an unknown key nor when the time has come.
    fixture.idp.set_keys(&[&second]);
    let mut other = standby.as_role("app").client();
    let error = refusal(&mut other, &fixture.token(&second, "bob"));
    assert_eq!(error.code().code(), Code::NoKey.sqlstate(), "it fetches nothing itself");
    assert!(detail(&error).contains("standby"), "{error:?}");
    let refresh = "SELECT auth.refresh_provider('idp')";
    assert_eq!(
        sqlstate(standby.admin().execute(refresh, &[])),
        Code::Fetching.sqlstate(),
        "it fetches nothing itself"
    );
    fixture.update("next_refresh = now()");
    standby.catch_up(&fixture.cluster);
    assert_eq!(
        present(&mut other, &fixture.token(&fixture.key, "alice")),
        SUCCESS,
        "it fetches nothing itself"
    );
    assert_eq!(fixture.idp.requests(), 1, "it fetches nothing itself");

    // What the primary fetches reaches sessions that are under way there.
    fixture.refresh().unwrap();
    standby.catch_up(&fixture.cluster);
    assert_eq!(
        sqlstate(reader.query("SELECT auth.user_id()", &[])),
        Code::NoKey.sqlstate(),
        "sqlstate(reader.query(SELECT auth.user_id, []))"
    );
    assert_eq!(
        present(&mut other, &fixture.token(&second, "bob")),
        SUCCESS,
        "present(fixture.token(second, bob))"
    );
    // So does a removal.
    run(&mut fixture.cluster.admin(), "SELECT auth.remove_provider('idp')");
    standby.catch_up(&fixture.cluster);
    assert_eq!(
        sqlstate(other.query("SELECT auth.user_id()", &[])),
        Code::NoKey.sqlstate(),
        "so does a removal"
    );

    // Promoted, it fetches by itself.
    fixture.add();
    fixture.wait_for_keys();
    standby.catch_up(&fixture.cluster);
    standby.promote();
    let third = key("k3");
    fixture.idp.set_keys(&[&third]);
    wait_for("the promotion", || {
        text(&mut other, "SELECT pg_is_in_recovery()::text").as_deref() == Some("false")
    });
    assert_eq!(
        present(&mut other, &fixture.token(&third, "carol")),
        SUCCESS,
        "promoted, it fetches by itself"
    );
}
