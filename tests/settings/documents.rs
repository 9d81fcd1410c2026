//! The settings `jwk` and `providers`: who may set, store and reset them, and which of them count.

use harness::{
    Code, Connection, INSUFFICIENT_PRIVILEGE, Preload, SUCCESS, is_older_than, quote, sqlstate,
    test_each_preload,
};
use serde_json::json;

use super::site::*;

test_each_preload! {
    crate::site::SITES:
    documents_are_not_for_sessions_to_set,
    resets_leave_the_configured_documents,
    startup_options_are_for_those_who_may,
    a_blanked_setting_loses_trust,
    a_blanked_document_leaves_its_issuer_to_no_other,
    documents_are_stored_by_superusers_only,
    documents_are_hidden_from_ordinary_roles,
    init_says_whether_there_are_keys,
    two_providers_without_issuer_are_believed_neither,
}

/// No session changes whom it trusts, whoever it belongs to and whatever the statement.
fn documents_are_not_for_sessions_to_set(site: &Site) {
    // What the ordinary role, the granted one and the superuser get.
    const REFUSED: [&str; 3] =
        [INSUFFICIENT_PRIVILEGE, Code::Configuration.sqlstate(), Code::Configuration.sqlstate()];
    let ways = [
        ("SET {name} = {value}", REFUSED),
        ("SET {name} = ''", REFUSED),
        ("BEGIN; SET LOCAL {name} = {value}", REFUSED),
        ("BEGIN; SAVEPOINT a; SET LOCAL {name} = {value}", REFUSED),
        ("SELECT set_config('{name}', {value}, false)", REFUSED),
        ("SELECT set_config('{name}', {value}, true)", REFUSED),
        ("DO $$BEGIN EXECUTE {set}; END$$", REFUSED),
        ("CREATE FUNCTION {f} SET {name} = {value} {body}; SELECT pg_temp.f()", REFUSED),
        // With the rights of a superuser.
        ("SELECT tools.run_as_owner({set})", [Code::Configuration.sqlstate(); 3]),
        // With those of an ordinary role; only the granted one is no member of it.
        ("SET ROLE app; SET {name} = {value}", [INSUFFICIENT_PRIVILEGE; 3]),
        // Who does not see the row does not update it.
        (
            "UPDATE pg_settings SET setting = {value} WHERE name = '{name}'",
            [SUCCESS, SUCCESS, Code::Configuration.sqlstate()],
        ),
    ];
    for (place, role) in ROLES.iter().enumerate() {
        let mut client = site.session(role);
        for document in documents(&KEYS.attacker, "mallory") {
            for (way, expected) in &ways {
                let context = format!("{:?}, {role}, {}: {way}", site.preload, document.setting);
                let statements = filled(way, document.setting, &document.value);
                let code = attempt(&mut client, &statements);
                assert_eq!(code, expected[place], "{context}");
                client.batch_execute("RESET ROLE").unwrap();
                assert_eq!(
                    whose(&mut client, &document.token),
                    Code::Signature.sqlstate(),
                    "{context}"
                );
                assert_eq!(whose(&mut client, &alice()), "alice", "{context}");
                assert_eq!(whose(&mut client, &ida("api")), "ida", "{context}");
            }
        }
    }
}

/// Taking a document back means what an administrator has configured, not nothing.
fn resets_leave_the_configured_documents(site: &Site) {
    let ways = [
        ("RESET {name}", [INSUFFICIENT_PRIVILEGE, SUCCESS, SUCCESS]),
        ("SET {name} TO DEFAULT", [INSUFFICIENT_PRIVILEGE, SUCCESS, SUCCESS]),
        // Which also shows the value.
        (
            "SELECT set_config('{name}', NULL, false)",
            [INSUFFICIENT_PRIVILEGE, INSUFFICIENT_PRIVILEGE, SUCCESS],
        ),
        ("RESET ALL", [SUCCESS; 3]),
        ("DISCARD ALL", [SUCCESS; 3]),
    ];
    for (place, role) in ROLES.iter().enumerate() {
        let mut client = site.session(role);
        for setting in [JWK, PROVIDERS] {
            for (way, expected) in &ways {
                let context = format!("{:?}, {role}, {setting}: {way}", site.preload);
                let code = attempt(&mut client, &filled(way, setting, ""));
                assert_eq!(code, expected[place], "{context}");
                assert_eq!(whose(&mut client, &alice()), "alice", "{context}");
                assert_eq!(whose(&mut client, &ida("api")), "ida", "{context}");
                assert_eq!(whose(&mut client, &mallory()), Code::Signature.sqlstate(), "{context}");
            }
        }
    }
}

/// A proxy gives its key in the startup packet and is believed. An ordinary client that tries is
/// turned away where the library is preloaded by the server; elsewhere Postgres lets it blank the
/// setting, and what it gave is never believed.
fn startup_options_are_for_those_who_may(site: &Site) {
    let attacks = documents(&KEYS.attacker, "mallory");
    for document in &attacks {
        let context = format!("{:?}, {}", site.preload, document.setting);
        for role in ["proxy", "postgres"] {
            let connection = site.role(role).option(document.setting, &document.value);
            let mut client = connection.client();
            assert_eq!(whose(&mut client, &document.token), "mallory", "{context}");
            // It takes the place of what was configured.
            let (left, gone) = match document.setting {
                JWK => ((ida("api"), "ida"), alice()),
                _ => ((alice(), "alice"), ida("api")),
            };
            assert_eq!(whose(&mut client, &left.0), left.1, "{context}");
            assert_refused(&whose(&mut client, &gone), &context);
            // And stays: it is no session's to take back.
            client.batch_execute("RESET ALL").unwrap();
            assert_eq!(whose(&mut client, &document.token), "mallory", "{context}");
        }
    }
    for document in &attacks {
        let context = format!("{:?}, {}", site.preload, document.setting);
        let upper = document.setting.to_uppercase();
        let dashes = document.setting.replace('_', "-");
        let value = document.value.as_str();
        for options in [
            vec![(document.setting, value)],
            vec![(&upper, value)],
            vec![(&dashes, value)],
            vec![(document.setting, "")],
            vec![(document.setting, "{")],
            vec![(document.setting, ""), (&upper, value)],
        ] {
            let context = format!("{context}, {options:?}");
            let mut connection = site.role("app");
            for (name, value) in options {
                connection = connection.option(name, value);
            }
            let client = connection.try_client();
            if site.preload == Preload::Shared {
                assert_eq!(sqlstate(client), INSUFFICIENT_PRIVILEGE, "{context}");
                continue;
            }
            let mut client = client.unwrap();
            // Nothing that the client does gives its document a second chance.
            for reset in ["", "RESET ALL", "DISCARD ALL"] {
                client.batch_execute(reset).unwrap();
                for attack in &attacks {
                    assert_refused(&whose(&mut client, &attack.token), &context);
                }
                // What is left may be believed; what was blanked is not.
                let (kept, lost) = match document.setting {
                    JWK => ((ida("api"), "ida"), alice()),
                    _ => ((alice(), "alice"), ida("api")),
                };
                assert_refused(&whose(&mut client, &lost), &context);
                let code = whose(&mut client, &kept.0);
                if code != kept.1 {
                    assert_refused(&code, &context);
                }
            }
        }
    }
    let both = site.role("app").option(JWK, &attacks[0].value);
    match both.option(PROVIDERS, &attacks[1].value).try_client() {
        Err(error) => {
            assert_eq!(sqlstate::<()>(Err(error)), INSUFFICIENT_PRIVILEGE, "after RESET ALL")
        }
        Ok(mut client) => {
            for token in [&attacks[0].token, &attacks[1].token, &alice(), &ida("api")] {
                assert_refused(&whose(&mut client, token), "both");
            }
        }
    }
}

/// Where providers ask for an audience and a client has blanked them, no token is believed, least
/// of all one for another audience.
fn a_blanked_setting_loses_trust(site: &Site) {
    let lax = json!({"issuer": "https://idp", "jwks": KEYS.idp.public_jwk()}).to_string();
    site.database("federated", &[(JWK, "")]);
    let mut client = site.role("app").database("federated").client();
    assert_eq!(presented(&mut client, &ida("api")), "ida", "presented(ida(api))");
    assert_eq!(
        presented(&mut client, &ida("other")),
        Code::Audience.sqlstate(),
        "presented(ida(other))"
    );
    for value in ["", "[]", "{", &idp_document(), &lax] {
        let context = format!("{:?}, {value}", site.preload);
        let connection = site.role("app").database("federated");
        let client = connection.option(PROVIDERS, value).try_client();
        if site.preload == Preload::Shared {
            assert_eq!(sqlstate(client), INSUFFICIENT_PRIVILEGE, "{context}");
            continue;
        }
        let mut client = client.unwrap();
        for token in [ida("other"), ida("api"), alice(), mallory()] {
            assert_refused(&presented(&mut client, &token), &context);
        }
        let code = attempt(&mut client, "SELECT auth.init()");
        assert_eq!(code, Code::Configuration.sqlstate(), "{context}");
    }
}

/// Where the same key is in both documents, the one with an issuer and an audience and the other
/// with neither, blanking the former must not hand its tokens to the latter.
fn a_blanked_document_leaves_its_issuer_to_no_other(site: &Site) {
    let strict = json!({
        "issuer": "https://strict", "audience": "api", "jwks": KEYS.configured.public_jwk(),
    });
    let claims = json!({"sub": "sneak", "iss": "https://strict", "aud": "other"});
    let token = sign(&KEYS.configured, claims);
    site.database("strict", &[(PROVIDERS, &strict.to_string())]);
    let connection = || site.role("app").database("strict");
    assert_eq!(
        presented(&mut connection().client(), &token),
        Code::Audience.sqlstate(),
        "presented(token)"
    );
    if let Ok(mut client) = connection().option(PROVIDERS, "").try_client() {
        let context = format!("{:?}", site.preload);
        assert_ne!(presented(&mut client, &token), "sneak", "{context}");
    }
}

/// Before the library is loaded a setting is but a name that anybody may give a value. None of
/// those values is believed once it is, wherever on the stack of settings it was.
#[test]
fn documents_set_before_loading_are_not_believed() {
    let site = SITES.alone(Preload::Neither);
    let ways = [
        "SET {name} = {value}",
        "SET {name} = ''; SET {name} = {value}",
        "SELECT set_config('{name}', {value}, false)",
        "BEGIN; SET LOCAL {name} = {value}",
        "BEGIN; SET {name} = {value}",
        "BEGIN; SET {name} = {value}; SET LOCAL {name} = ''",
        "BEGIN; SET {name} = ''; SET LOCAL {name} = {value}",
        "SET {name} = {value}; BEGIN; SET LOCAL {name} = ''; SAVEPOINT a; SET LOCAL {name} = {value}",
        "BEGIN; SAVEPOINT a; SET {name} = {value}; RELEASE a; SAVEPOINT b; SET {name} = ''",
        "DO $$BEGIN EXECUTE {set}; END$$",
        "SELECT tools.run_as_owner({set})",
        "BEGIN; SELECT tools.run_as_owner({set})",
    ];
    // What loads it: any function, also under another's rights, or in what is rolled back.
    let loads = [
        "SELECT auth.user_id()",
        "SELECT tools.read_as_owner()",
        "DO $$BEGIN PERFORM auth.user_id(); RAISE no_data_found;
            EXCEPTION WHEN no_data_found THEN NULL; END$$",
    ];
    for role in ROLES {
        for document in documents(&KEYS.attacker, "mallory") {
            for way in ways {
                for load in loads {
                    let context = format!("{role}, {}: {way}; {load}", document.setting);
                    let (client, notices) = listening(&site.role(role));
                    let mut client = client.unwrap();
                    let statements = filled(way, document.setting, &document.value);
                    client.batch_execute(&statements).unwrap();
                    client.batch_execute(load).unwrap();
                    let codes = notices.codes();
                    assert!(!codes.is_empty(), "{context}: no warning");
                    for code in codes {
                        assert!(
                            code == INSUFFICIENT_PRIVILEGE
                                || code == Code::Configuration.sqlstate(),
                            "{context}: {code}"
                        );
                    }
                    for end in ["", "ROLLBACK", "RESET ALL"] {
                        client.batch_execute(end).unwrap();
                        assert_eq!(
                            whose(&mut client, &document.token),
                            Code::Signature.sqlstate(),
                            "{context}"
                        );
                        assert_eq!(whose(&mut client, &alice()), "alice", "{context}");
                        assert_eq!(whose(&mut client, &ida("api")), "ida", "{context}");
                    }
                }
            }
        }
    }
}

/// From 17 on, `ALTER SYSTEM` stores settings that no library has defined, and so validates nothing.
#[test]
fn a_document_stored_before_loading_is_judged_when_the_library_loads() {
    if is_older_than(17, "ALTER SYSTEM for settings that no library has defined") {
        return;
    }
    let site = Site::start(Preload::Neither);
    for setting in [JWK, PROVIDERS] {
        site.admin(&filled("ALTER SYSTEM SET {name} = {value}", setting, "{"));
        site.cluster.reload();
        for token in [alice(), ida("api")] {
            let outcome = presented(&mut site.role("app").client(), &token);
            assert_eq!(outcome, Code::Configuration.sqlstate(), "{setting}");
        }
        let mut admin = site.session("postgres");
        for (statement, expected) in [
            ("ALTER SYSTEM SET {name} = {value}", Code::Configuration.sqlstate()),
            ("ALTER SYSTEM RESET {name}", SUCCESS),
        ] {
            let statement = filled(statement, setting, "{");
            assert_eq!(attempt(&mut admin, &statement), expected, "{statement}");
        }
        site.cluster.reload();
        assert_eq!(presented(&mut site.role("app").client(), &alice()), "alice", "{setting}");
    }
}

/// What is stored for a role or a database is a superuser's to say, and then holds.
fn documents_are_stored_by_superusers_only(site: &Site) {
    let [document, _] = documents(&KEYS.other, "oscar");
    let value = quote(&document.value);
    let context = format!("{:?}", site.preload);
    site.admin("CREATE ROLE keeper LOGIN");
    site.admin("CREATE DATABASE kept OWNER keeper");
    for loaded in [false, true] {
        // A role's own settings, and those of a database that it owns, are no way around.
        let mut client = match loaded {
            true => site.session("keeper"),
            false => site.role("keeper").client(),
        };
        for setting in [JWK, PROVIDERS] {
            for statement in [
                "ALTER ROLE keeper SET {name} = {value}",
                "ALTER ROLE keeper SET {name} FROM CURRENT",
                "ALTER ROLE keeper IN DATABASE kept SET {name} = {value}",
                "ALTER DATABASE kept SET {name} = {value}",
                "CREATE FUNCTION {f} SET {name} = {value} {body}",
                "CREATE FUNCTION {f} SET {name} FROM CURRENT {body}",
                "ALTER SYSTEM SET {name} = {value}",
            ] {
                let statement = filled(statement, setting, &document.value);
                let code = attempt(&mut client, &statement);
                assert_eq!(code, INSUFFICIENT_PRIVILEGE, "{context}, loaded {loaded}: {statement}");
            }
        }
    }
    let whose = |connection: Connection, token: &str| presented(&mut connection.client(), token);
    assert_eq!(whose(site.role("keeper"), &oscar()), Code::Signature.sqlstate(), "{context}");

    site.admin(&format!("ALTER ROLE keeper SET {JWK} = {value}"));
    assert_eq!(whose(site.role("keeper"), &oscar()), "oscar", "{context}");
    assert_eq!(whose(site.role("keeper"), &alice()), Code::Signature.sqlstate(), "{context}");
    assert_eq!(whose(site.role("app"), &alice()), "alice", "{context}");

    // Nor is it the role's to take back.
    let mut client = site.role("keeper").client();
    let reset = format!("ALTER ROLE keeper RESET {JWK}");
    assert_eq!(attempt(&mut client, &reset), INSUFFICIENT_PRIVILEGE, "{context}");
    let code = attempt(&mut client, "ALTER ROLE keeper RESET ALL");
    assert_eq!(code, SUCCESS, "{context}");
    assert_eq!(whose(site.role("keeper"), &oscar()), "oscar", "{context}");
    assert_eq!(whose(site.role("keeper"), &alice()), Code::Signature.sqlstate(), "{context}");

    site.admin(&format!("ALTER ROLE keeper RESET {JWK}; ALTER DATABASE kept SET {JWK} = {value}"));
    // Whoever may set a key may store one for itself.
    site.admin(&format!("GRANT SET ON PARAMETER {JWK} TO keeper"));
    let store = format!("ALTER ROLE keeper SET {JWK} = {value}");
    let mut client = site.session("keeper");
    assert_eq!(attempt(&mut client, &store), SUCCESS, "{context}");
    assert_eq!(whose(site.role("keeper"), &oscar()), "oscar", "{context}");
    assert_eq!(attempt(&mut client, &reset), SUCCESS, "{context}");

    let kept = || site.role("app").database("kept");
    assert_eq!(whose(kept(), &oscar()), "oscar", "{context}");
    assert_eq!(whose(kept(), &alice()), Code::Signature.sqlstate(), "{context}");
    assert_eq!(whose(site.role("keeper"), &oscar()), Code::Signature.sqlstate(), "{context}");
}

/// Whoever may read all settings sees whom the server trusts; everybody else does not, for the
/// documents may hold a secret.
fn documents_are_hidden_from_ordinary_roles(site: &Site) {
    for setting in [JWK, PROVIDERS] {
        let own = documents(&KEYS.other, "oscar");
        let own = own.into_iter().find(|own| own.setting == setting).unwrap();
        for (role, sees) in [("app", false), ("proxy", false), ("reader", true), ("postgres", true)]
        {
            for startup in [false, true] {
                if startup && (role == "app" || role == "reader") {
                    continue;
                }
                let context = format!("{:?}, {role}, {setting}, {startup}", site.preload);
                let connection = site.role(role);
                let connection = match startup {
                    true => connection.option(setting, &own.value),
                    false => connection,
                };
                let mut client = loaded(connection.client());
                for query in [
                    "SHOW {name}",
                    "SELECT current_setting('{name}')",
                    "SELECT current_setting('{name}', true)",
                ] {
                    let code = attempt(&mut client, &filled(query, setting, ""));
                    let expected = if sees { SUCCESS } else { INSUFFICIENT_PRIVILEGE };
                    assert_eq!(code, expected, "{context}: {query}");
                }
                let all = format!(
                    "{}{}{}",
                    reply(&mut client, "SELECT * FROM pg_settings"),
                    reply(&mut client, "SHOW ALL"),
                    reply(&mut client, "EXPLAIN (SETTINGS) SELECT auth.user_id()"),
                );
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
                let named = all.split(|c| !is_name(c)).any(|word| word == setting);
                assert_eq!(named, sees, "{context}");
                assert_eq!(all.contains("\"kty\""), sees, "{context}");
                for copy in [
                    "CREATE FUNCTION {f} SET {name} FROM CURRENT {body}",
                    "ALTER ROLE app SET {name} FROM CURRENT",
                ] {
                    if role != "postgres" {
                        let code = attempt(&mut client, &filled(copy, setting, ""));
                        assert_eq!(code, INSUFFICIENT_PRIVILEGE, "{context}: {copy}");
                    }
                }
            }
        }
    }
}

fn init_says_whether_there_are_keys(site: &Site) {
    let context = format!("{:?}", site.preload);
    site.database("keyless", &[(JWK, ""), (PROVIDERS, "")]);
    for role in ROLES {
        let mut client = site.role(role).client();
        client.execute("SELECT auth.init()", &[]).unwrap();
        let mut client = site.role(role).database("keyless").client();
        let code = attempt(&mut client, "SELECT auth.init()");
        assert_eq!(code, Code::Configuration.sqlstate(), "{context}");
        assert_eq!(presented(&mut client, &alice()), Code::NoKey.sqlstate(), "{context}");
    }
}

/// Two providers without an issuer, one in each document, are fine each but not together: then
/// nobody is believed, rather than one of them by chance.
fn two_providers_without_issuer_are_believed_neither(site: &Site) {
    let twin = json!({"name": "twin", "jwks": KEYS.other.public_jwk()}).to_string();
    let context = format!("{:?}", site.preload);
    site.database("twins", &[(PROVIDERS, &twin)]);
    let mut client = site.role("app").database("twins").client();
    let code = attempt(&mut client, "SELECT auth.init()");
    assert_eq!(code, Code::Configuration.sqlstate(), "{context}");
    for token in [alice(), oscar(), ida("api"), mallory()] {
        assert_eq!(presented(&mut client, &token), Code::Configuration.sqlstate(), "{context}");
    }
    // A token that is there already does not count either.
    let connection = site.role("app").database("twins");
    let mut client = connection.option("pg_session_jwt.jwt", &alice()).client();
    let code = attempt(&mut client, "SELECT auth.user_id()");
    assert_eq!(code, Code::Configuration.sqlstate(), "{context}");
}
