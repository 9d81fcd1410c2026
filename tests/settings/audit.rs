//! The audit log.

use harness::{
    Cluster, Preload, SUCCESS, backend_pid, now, present, test_each_preload, text, user, wait_for,
};
use mint::{Algorithm, Key};
use serde_json::json;

use super::site::*;

test_each_preload! {
    crate::site::SITES:
    the_audit_log_tells_who_came_and_who_was_turned_away,
    the_audit_log_tells_of_tokens_from_the_startup_packet,
    the_audit_log_tells_of_every_way_to_clear,
    ordinary_clients_do_not_silence_the_audit_log,
    repetitions_of_a_rejection_are_counted,
}

/// The lines of the audit log that sessions of this role have written, without what Postgres puts
/// before them.
fn audit_lines(site: &Site, role: &str) -> Vec<String> {
    let start = format!(" {role} LOG:  pg_session_jwt: outcome=");
    let log = site.cluster.log();
    let lines = log.lines();
    lines.filter_map(|line| Some(line.split_once(&start)?.1.to_owned())).collect()
}

/// A database in which the audit log is on, and a role whose lines are this test's.
fn audited(site: &Site, name: &str) {
    site.admin(&format!("CREATE ROLE {name} LOGIN"));
    site.database(name, &[("pg_session_jwt.audit_log", "on")]);
}

fn the_audit_log_tells_who_came_and_who_was_turned_away(site: &Site) {
    audited(site, "audit");
    let context = format!("{:?}", site.preload);
    let mut client = site.role("audit").database("audit").client();
    let claims = json!({
        "sub": "ida", "iss": "https://idp", "aud": ["api", "web"], "jti": "j-1",
    });
    let accepted = sign(&KEYS.idp, claims);
    let forged = sign(
        &KEYS.configured,
        json!({"sub": "x\n2026-01-01 LOG:  pg_session_jwt: outcome=accepted sub=\"root\"\r\n\"y\u{202e}\u{7}"}),
    );
    let expired = sign(&KEYS.configured, json!({"sub": "old", "exp": 1}));
    presented(&mut client, &accepted);
    for _ in 0..3 {
        text(&mut client, "SELECT auth.claim('jti')");
        user(&mut client);
    }
    presented(&mut client, &forged);
    let (wrong, astray, last) = (mallory(), ida("other"), alice());
    presented(&mut client, &wrong);
    presented(&mut client, &expired);
    presented(&mut client, "garbage");
    presented(&mut client, &astray);
    presented(&mut client, &last);
    presented(&mut client, "");
    let lines = audit_lines(site, "audit");
    let expected: [&[&str]; 8] = [
        &[
            "accepted ",
            "provider=\"idp\"",
            "sub=\"ida\"",
            "iss=\"https://idp\"",
            "aud=\"api web\"",
            "jti=\"j-1\"",
            "kid=\"idp\"",
        ],
        &[
            "accepted ",
            "provider=\"pg_session_jwt.jwk\"",
            "sub=\"x\\n2026-01-01 LOG:",
            "sub=\\\"root\\\"\\r\\n\\\"y\\u{202e}\\u{7}\"",
            "kid=\"k\"",
        ],
        &[
            "rejected ",
            "code=28J03 ",
            "reason=\"",
            "provider=\"pg_session_jwt.jwk\"",
            "sub=\"mallory\"",
            "kid=\"k\"",
            "\\\"k\\\"",
        ],
        &[
            "rejected ",
            "code=28J04 ",
            "reason=\"",
            "provider=\"pg_session_jwt.jwk\"",
            "sub=\"old\"",
        ],
        &["rejected ", "code=28J01 ", "reason=\""],
        &[
            "rejected ",
            "code=28J07 ",
            "reason=\"",
            "provider=\"idp\"",
            "aud=\"other\"",
            "\\\"other\\\"",
        ],
        &["accepted ", "sub=\"alice\""],
        &["cleared"],
    ];
    assert_eq!(lines.len(), expected.len(), "{context}: {lines:#?}");
    for (line, parts) in lines.iter().zip(expected) {
        assert!(line.starts_with(parts[0]), "{context}: {line}");
        assert!(line.contains(" client=\"127.0.0.1:"), "{context}: {line}");
        for part in parts {
            assert!(line.contains(part), "{context}: {part} in {line}");
        }
    }
    let log = site.cluster.log();
    for token in [accepted, forged, wrong, expired, astray, last] {
        assert_without_token(&log, &token, &context);
    }
    // Where it is off, there is nothing.
    let mut client = site.role("audit").client();
    presented(&mut client, &alice());
    presented(&mut client, &mallory());
    assert_eq!(audit_lines(site, "audit"), lines, "{context}");
}

/// A token in the startup packet is presented at its first use, once.
fn the_audit_log_tells_of_tokens_from_the_startup_packet(site: &Site) {
    audited(site, "early");
    for (token, expected) in [
        (alice(), "accepted "),
        (mallory(), "rejected code=28J03 "),
        (sign(&KEYS.configured, json!({"exp": 1})), "rejected code=28J04 "),
    ] {
        let context = format!("{:?}: {expected}", site.preload);
        let before = audit_lines(site, "early").len();
        let connection = site.role("early").database("early");
        let mut client = connection.option("pg_session_jwt.jwt", &token).client();
        let _ = client.execute("SELECT auth.user_id()", &[]);
        let lines = audit_lines(site, "early");
        assert_eq!(lines.len(), before + 1, "{context}: {lines:#?}");
        assert!(lines[before].starts_with(expected), "{context}: {lines:#?}");
        let _ = client.execute("SELECT auth.user_id()", &[]);
        assert_eq!(audit_lines(site, "early").len(), before + 1, "{context}");
    }
}

/// However a client gives its identity up, the log says so.
fn the_audit_log_tells_of_every_way_to_clear(site: &Site) {
    audited(site, "leaver");
    for way in [
        "SELECT auth.jwt_session_init(NULL)",
        "SET pg_session_jwt.jwt = ''",
        "RESET pg_session_jwt.jwt",
        "RESET ALL",
        "DISCARD ALL",
    ] {
        let context = format!("{:?}: {way}", site.preload);
        let mut client = site.role("leaver").database("leaver").client();
        presented(&mut client, &alice());
        client.batch_execute(way).unwrap();
        assert_eq!(user(&mut client), None, "{context}");
        let last = audit_lines(site, "leaver").pop();
        assert!(last.is_some_and(|line| line.starts_with("cleared client=")), "{context}");
    }
}

/// An ordinary client does not get out of the audit log by naming the setting.
fn ordinary_clients_do_not_silence_the_audit_log(site: &Site) {
    const AUDIT: &str = "pg_session_jwt.audit_log";
    audited(site, "quiet");
    let context = format!("{:?}", site.preload);
    let connection = || site.role("quiet").database("quiet");
    let mut clients = Vec::new();
    for value in ["off", "", "on"] {
        clients.extend(connection().option(AUDIT, value).try_client());
    }
    let mut client = connection().client();
    let _ = client.batch_execute(&format!("SET {AUDIT} = off"));
    clients.push(client);
    for mut client in clients {
        let before = audit_lines(site, "quiet").len();
        presented(&mut client, &alice());
        assert_eq!(audit_lines(site, "quiet").len(), before + 1, "{context}");
    }
}

/// A client that repeats a rejected token writes one line, and its number with the next event or at its end.
fn repetitions_of_a_rejection_are_counted(site: &Site) {
    let role = "stubborn";
    audited(site, role);
    let context = format!("{:?}", site.preload);
    let lines = |after: usize| {
        let lines = audit_lines(site, role).split_off(after);
        let without_client = |line: String| {
            let (start, rest) = line.split_once(" client=").unwrap();
            let count = rest.split_once(" repetitions=").map(|(_, count)| count.to_owned());
            (start.to_owned(), count)
        };
        lines.into_iter().map(without_client).collect::<Vec<_>>()
    };
    let connect = || site.role(role).database(role).client();
    let (wrong, other) = (mallory(), sign(&KEYS.attacker, json!({"sub": "eve"})));
    let mut client = connect();
    for _ in 0..4 {
        presented(&mut client, &wrong);
    }
    assert_eq!(lines(0).len(), 1, "{context}: the same token");
    // Another event: a token of somebody else, with the same reason.
    presented(&mut client, &other);
    let written = lines(0);
    assert_eq!(written.len(), 3, "{context}: {written:#?}");
    assert_eq!(written[1], (written[0].0.clone(), Some("3".to_owned())), "{context}");
    assert!(written[2].0.contains("sub=\"eve\"") && written[2].1.is_none(), "{context}");
    // The same event is new after another one.
    presented(&mut client, &alice());
    presented(&mut client, &other);
    presented(&mut client, &other);
    presented(&mut client, &other);
    assert_eq!(lines(3).len(), 2, "{context}: {:#?}", lines(3));
    // The end of the session.
    drop(client);
    wait_for("the last line", || lines(5).len() == 1);
    assert_eq!(lines(5)[0].1.as_deref(), Some("2"), "{context}");
    // Without repetitions, there is no line at the end.
    let mut client = connect();
    presented(&mut client, &wrong);
    let pid = backend_pid(&mut client);
    drop(client);
    let gone = format!("SELECT count(*)::text FROM pg_stat_activity WHERE pid = {pid}");
    wait_for("the session to end", || {
        text(&mut site.cluster.admin(), &gone).as_deref() == Some("0")
    });
    assert_eq!(lines(6).len(), 1, "{context}: {:#?}", lines(6));
}

/// A client cannot write a line like those of the audit log.
#[test]
fn no_other_message_begins_like_a_line() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut client = cluster.as_role("app").client();
    let forged = "DO $$ BEGIN RAISE LOG 'pg_session_jwt: outcome=accepted sub=\"root\"'; END $$";
    client.batch_execute(forged).unwrap();
    let log = cluster.log();
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains("LOG:  pg_session_jwt: ")).collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("outcome?accepted"), "{lines:#?}");
}

/// The lines are the same in each format of the log, and values do not break it.
#[test]
fn each_format_of_the_log_has_the_lines() {
    let key = Key::generate(Algorithm::ES256);
    let settings = [
        ("pg_session_jwt.jwk", &*key.public_jwk().to_string()),
        ("pg_session_jwt.audit_log", "on"),
        ("logging_collector", "on"),
        ("log_destination", "stderr,csvlog,jsonlog"),
        ("log_directory", "log"),
        ("log_filename", "postgres.log"),
    ];
    let cluster = Cluster::start(Preload::Shared, &settings);
    let mut client = cluster.as_role("app").client();
    let claims =
        json!({"sub": "a,\"b\"\n2026 LOG:  pg_session_jwt: outcome=cleared", "exp": now() + 60});
    assert_eq!(present(&mut client, &key.sign(&claims)), SUCCESS);
    let expected = "pg_session_jwt: outcome=accepted provider=\"pg_session_jwt.jwk\" \
                    sub=\"a,\\\"b\\\"\\n2026 LOG:  pg_session_jwt: outcome=cleared\" client=\"";
    for (extension, expected) in [
        ("log", format!("LOG:  {expected}")),
        ("csv", format!("\"{}", expected.replace('"', "\"\""))),
        ("json", serde_json::to_string(expected).unwrap().trim_end_matches('"').to_owned()),
    ] {
        let path = cluster.data().join("log/postgres").with_extension(extension);
        wait_for("the line", || {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            log.lines().filter(|line| line.contains("outcome=")).count() > 0
        });
        let log = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("outcome=")).collect();
        assert_eq!(lines.len(), 1, "{extension}: {lines:#?}");
        assert!(lines[0].contains(&expected), "{extension}: {expected} in {}", lines[0]);
    }
}
