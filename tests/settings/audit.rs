//! The audit log.

use harness::{test_each_preload, text, user};
use serde_json::json;

use super::site::*;

test_each_preload! {
    crate::site::SITES:
    the_audit_log_tells_who_came_and_who_was_turned_away,
    the_audit_log_tells_of_tokens_from_the_startup_packet,
    the_audit_log_tells_of_every_way_to_clear,
    ordinary_clients_do_not_silence_the_audit_log,
}

/// The lines of the audit log that sessions of this role have written, without what Postgres puts
/// before them.
fn audit_lines(site: &Site, role: &str) -> Vec<String> {
    let start = format!(" {role} LOG:  pg_session_jwt: token ");
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
        json!({"sub": "x\n2026-01-01 LOG:  pg_session_jwt: token accepted: sub=\"root\"\r\n\"y"}),
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
            "accepted: ",
            "provider=\"idp\"",
            "sub=\"ida\"",
            "iss=\"https://idp\"",
            "aud=\"api web\"",
            "jti=\"j-1\"",
            "kid=\"idp\"",
        ],
        &[
            "accepted: ",
            "provider=\"pg_session_jwt.jwk\"",
            "sub=\"x\\n2026-01-01 LOG:",
            "sub=\\\"root\\\"\\r\\n\\\"y\"",
            "kid=\"k\"",
        ],
        &["refused: ", "code=28J03 ", "reason=\"", "\\\"k\\\""],
        &["refused: ", "code=28J04 ", "reason=\""],
        &["refused: ", "code=28J01 ", "reason=\""],
        &["refused: ", "code=28J07 ", "reason=\"", "\\\"other\\\""],
        &["accepted: ", "sub=\"alice\""],
        &["cleared"],
    ];
    assert_eq!(lines.len(), expected.len(), "{context}: {lines:#?}");
    for (line, parts) in lines.iter().zip(expected) {
        assert!(line.starts_with(parts[0]), "{context}: {line}");
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
        (alice(), "accepted: "),
        (mallory(), "refused: code=28J03 "),
        (sign(&KEYS.configured, json!({"exp": 1})), "refused: code=28J04 "),
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
        assert_eq!(last.as_deref(), Some("cleared"), "{context}");
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
