//! The settings that superusers alone may change, and the prefix of them all.

use harness::{
    Code, INSUFFICIENT_PRIVILEGE, INVALID_NAME, Preload, sqlstate, test_each_preload, text, user,
};
use postgres::Client;

use super::site::*;

test_each_preload! {
    crate::site::SITES:
    ordinary_roles_set_none_of_the_superusers_settings,
    request_claims_are_not_believed_by_default,
    believed_request_claims_follow_the_transaction,
    a_cache_of_any_size_serves,
    the_prefix_is_reserved,
}

/// The settings that an ordinary role must not touch, with a value that is not the configured one.
const SUPERUSER_SETTINGS: [(&str, &str); 4] = [
    ("pg_session_jwt.trust_request_claims", "on"),
    ("pg_session_jwt.audit_log", "on"),
    ("pg_session_jwt.token_cache_size", "7"),
    ("pg_session_jwt.identity_scope", "transaction"),
];

/// What `SHOW` says of them.
fn superuser_settings(client: &mut Client) -> [String; 4] {
    SUPERUSER_SETTINGS.map(|(name, _)| text(client, &format!("SHOW {name}")).unwrap())
}

fn ordinary_roles_set_none_of_the_superusers_settings(site: &Site) {
    let claims = "SELECT set_config('request.jwt.claims', '{\"sub\": \"rita\"}', false)";
    site.admin("CREATE ROLE plain LOGIN");
    site.admin("CREATE DATABASE plain OWNER plain");
    let defaults = ["off", "off", "128", "session"];
    for (setting, value) in SUPERUSER_SETTINGS {
        for role in ["plain", "proxy"] {
            let mut client = site.session(role);
            let ways = [
                "SET {name} = {value}",
                "BEGIN; SET LOCAL {name} = {value}",
                "SELECT set_config('{name}', {value}, false)",
                "UPDATE pg_settings SET setting = {value} WHERE name = '{name}'",
                "DO $$BEGIN EXECUTE {set}; END$$",
                "CREATE FUNCTION {f} SET {name} = {value} {body}",
                "ALTER ROLE {role} SET {name} = {value}",
                "ALTER SYSTEM SET {name} = {value}",
                "RESET {name}",
            ];
            for way in ways {
                let way = way.replace("{role}", role);
                let context = format!("{:?}, {role}, {setting}: {way}", site.preload);
                let code = attempt(&mut client, &filled(&way, setting, value));
                assert_eq!(code, INSUFFICIENT_PRIVILEGE, "{context}");
                assert_eq!(superuser_settings(&mut client), defaults, "{context}");
            }
        }
        let mut owner = site.session("plain");
        let statement = filled("ALTER DATABASE plain SET {name} = {value}", setting, value);
        assert_eq!(attempt(&mut owner, &statement), INSUFFICIENT_PRIVILEGE, "{statement}");

        let context = format!("{:?}, {setting}", site.preload);
        let client = site.role("plain").option(setting, value).try_client();
        if site.preload == Preload::Shared {
            assert_eq!(sqlstate(client), INSUFFICIENT_PRIVILEGE, "{context}");
        } else {
            let mut client = loaded(client.unwrap());
            assert_eq!(superuser_settings(&mut client), defaults, "{context}");
            client.batch_execute(claims).unwrap();
            assert_eq!(user(&mut client), None, "{context}");
        }
        if site.is_late() {
            for way in ["SET {name} = {value}", "BEGIN; SET LOCAL {name} = {value}"] {
                for load in ["SELECT auth.user_id()", "SELECT tools.read_as_owner()"] {
                    let context = format!("{setting}: {way}; {load}");
                    let (client, notices) = listening(&site.role("plain"));
                    let mut client = client.unwrap();
                    client.batch_execute(&filled(way, setting, value)).unwrap();
                    client.batch_execute(claims).unwrap();
                    client.batch_execute(load).unwrap();
                    assert!(
                        notices.codes().contains(&INSUFFICIENT_PRIVILEGE.to_owned()),
                        "{context}"
                    );
                    assert_eq!(superuser_settings(&mut client), defaults, "{context}");
                    assert_eq!(user(&mut client), None, "{context}");
                }
            }
        }
    }
    // A superuser may, for a role, a database, a session.
    let mut superuser = site.session("postgres");
    for (setting, value) in SUPERUSER_SETTINGS {
        for statement in ["ALTER ROLE plain SET {name} = {value}", "SET {name} = {value}"] {
            superuser.batch_execute(&filled(statement, setting, value)).unwrap();
        }
    }
    let wanted = SUPERUSER_SETTINGS.map(|(_, value)| value);
    assert_eq!(
        superuser_settings(&mut superuser),
        wanted,
        "a superuser may, for a role, a database, a session"
    );
    assert_eq!(
        superuser_settings(&mut site.session("plain")),
        wanted,
        "a superuser may, for a role, a database, a session"
    );
}

/// Claims that a client sets for itself are nobody's, and it is told once.
fn request_claims_are_not_believed_by_default(site: &Site) {
    let claims = [
        "SET request.jwt.claims = '{\"sub\": \"rita\"}'",
        "SELECT set_config('request.jwt.claims', '{\"sub\": \"rita\"}', false)",
    ];
    for role in ROLES {
        for claims in claims {
            let context = format!("{:?}, {role}", site.preload);
            let (client, notices) = listening(&site.role(role));
            let mut client = client.unwrap();
            client.batch_execute(claims).unwrap();
            for _ in 0..3 {
                assert_eq!(user(&mut client), None, "{context}");
                assert_eq!(
                    text(&mut client, "SELECT auth.session()::text"),
                    None,
                    "{claims:?}, {role:?}"
                );
            }
            let warnings = notices.take();
            assert_eq!(warnings.len(), 1, "{context}: {warnings:?}");
            assert_eq!(warnings[0].severity(), "WARNING", "{context}");
            assert_eq!(presented(&mut client, &alice()), "alice", "{context}");
        }
    }
}

/// Where they are believed, they count from the moment they are set, as a setting's value does.
fn believed_request_claims_follow_the_transaction(site: &Site) {
    let steps = [
        ("BEGIN", None),
        ("SET LOCAL request.jwt.claims = '{\"sub\": \"rita\"}'", Some("rita")),
        ("SAVEPOINT a", Some("rita")),
        ("SET LOCAL request.jwt.claims = '{\"sub\": \"rosa\"}'", Some("rosa")),
        ("SET LOCAL request.jwt.claims = ''", None),
        ("ROLLBACK TO a", Some("rita")),
        ("COMMIT", None),
    ];
    site.database("believing", &[("pg_session_jwt.trust_request_claims", "on")]);
    let mut client = site.role("app").database("believing").client();
    for (statement, expected) in steps {
        client.batch_execute(statement).unwrap();
        let context = format!("{:?}: {statement}", site.preload);
        assert_eq!(user(&mut client).as_deref(), expected, "{context}");
    }
}

fn a_cache_of_any_size_serves(site: &Site) {
    let context = format!("{:?}", site.preload);
    for size in [0, 1, 2] {
        site.admin(&format!("CREATE ROLE cache{size} LOGIN"));
        site.loaded_admin(&format!(
            "ALTER ROLE cache{size} SET pg_session_jwt.token_cache_size = {size}"
        ));
        let mut client = site.session(&format!("cache{size}"));
        let (alice, ida, mallory) = (alice(), ida("api"), mallory());
        for _ in 0..3 {
            assert_eq!(presented(&mut client, &alice), "alice", "{context}");
            assert_eq!(presented(&mut client, &ida), "ida", "{context}");
            assert_eq!(presented(&mut client, &alice), "alice", "{context}");
            assert_eq!(presented(&mut client, &mallory), Code::Signature.sqlstate(), "{context}");
        }
    }
    // Shrunk while it is full.
    let mut client = site.session("postgres");
    for size in [3, 1, 0, 128] {
        let resize = format!("SET pg_session_jwt.token_cache_size = {size}");
        client.batch_execute(&resize).unwrap();
        for _ in 0..2 {
            assert_eq!(presented(&mut client, &alice()), "alice", "{context}");
            assert_eq!(presented(&mut client, &ida("api")), "ida", "{context}");
        }
    }
    let negative = "SET pg_session_jwt.token_cache_size = -1";
    assert_eq!(attempt(&mut client, negative), Code::Configuration.sqlstate(), "{context}");
}

/// Nobody makes up a setting under the prefix.
fn the_prefix_is_reserved(site: &Site) {
    let name = "pg_session_jwt.anything_else";
    let context = format!("{:?}", site.preload);
    for role in ROLES {
        let mut client = site.session(role);
        for way in [
            "SET {name} = 'x'",
            "BEGIN; SET LOCAL {name} = 'x'",
            "SELECT set_config('{name}', 'x', false)",
            "SET pg_session_jwt.jwk.more = 'x'",
        ] {
            let code = attempt(&mut client, &filled(way, name, "x"));
            assert_eq!(code, INVALID_NAME, "{context}, {role}: {way}");
        }
    }
    let client = site.role("app").option(name, "x").try_client();
    if site.preload == Preload::Shared {
        assert_eq!(sqlstate(client), INVALID_NAME, "{context}");
        return;
    }
    let mut clients = vec![client.unwrap()];
    if site.is_late() {
        let mut client = site.role("app").client();
        client.batch_execute(&format!("SET {name} = 'x'")).unwrap();
        clients.push(client);
    }
    for client in clients {
        let shown = format!("SELECT current_setting('{name}', true)");
        assert_eq!(text(&mut loaded(client), &shown), None, "{context}");
    }
}
