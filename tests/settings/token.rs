//! The setting `jwt`: its value is never shown and never stored, and a reset takes the identity away.

use harness::{
    Code, INSUFFICIENT_PRIVILEGE, Preload, SUCCESS, parallel_query_setting, postgres_version,
    quote, run, test_each_preload, text, user,
};
use postgres::Client;
use serde_json::json;

use super::site::*;

test_each_preload! {
    crate::site::SITES:
    the_token_is_never_shown,
    the_absence_of_a_token_is_shown,
    tokens_cannot_be_stored,
    resets_take_the_identity_away,
    a_refused_token_leaves_nobody_to_go_back_to,
}

/// Everything that lists settings, as a client would read it.
const LISTINGS: [&str; 10] = [
    "SHOW pg_session_jwt.jwt",
    "SELECT current_setting('pg_session_jwt.jwt')",
    "SELECT current_setting('PG_SESSION_JWT.JWT', true)",
    "SHOW ALL",
    "SELECT * FROM pg_settings",
    "SELECT name, setting, boot_val, reset_val FROM pg_show_all_settings()",
    "SELECT s FROM pg_settings AS s WHERE s::text ILIKE '%pg_session_jwt%'",
    "SELECT * FROM pg_db_role_setting",
    "EXPLAIN (SETTINGS, VERBOSE) SELECT auth.user_id()",
    "SELECT proconfig FROM pg_proc WHERE proconfig IS NOT NULL",
];

fn the_token_is_never_shown(site: &Site) {
    for role in ["app", "reader", "postgres"] {
        let token = sign(&KEYS.configured, json!({"sub": role}));
        for way in [
            "startup packet",
            "SET {name} = {value}",
            "SELECT set_config('{name}', {value}, false)",
            "SELECT auth.jwt_session_init({value})",
            "BEGIN; SET LOCAL {name} = {value}",
            "BEGIN; SELECT set_config('{name}', {value}, true)",
            "BEGIN; SELECT auth.jwt_session_init({value}, true)",
            "BEGIN; SAVEPOINT a; SET LOCAL {name} = {value}",
            "UPDATE pg_settings SET setting = {value} WHERE name = '{name}'",
        ] {
            for loaded_first in [false, true] {
                let context = format!("{:?}, {role}: {way}, {loaded_first}", site.preload);
                let mut connection = site.role(role);
                if way == "startup packet" {
                    connection = connection.option("pg_session_jwt.jwt", &token);
                }
                let mut client = connection.client();
                if loaded_first {
                    user(&mut client);
                }
                if way != "startup packet" {
                    let statements = filled(way, "pg_session_jwt.jwt", &token);
                    let said = reply(&mut client, &statements);
                    // Until the library is there, it is any setting, given by the client.
                    if loaded_first || !site.is_late() {
                        assert_without_token(&said, &token, &context);
                    }
                }
                if user(&mut client).is_none() {
                    // The row is no one's to update.
                    assert!(way.starts_with("UPDATE"), "{context}");
                    continue;
                }
                for listing in LISTINGS {
                    let said = reply(&mut client, listing);
                    assert_without_token(&said, &token, &format!("{context}: {listing}"));
                }
                let shown = text(&mut client, "SHOW pg_session_jwt.jwt");
                assert_eq!(shown.as_deref(), Some("[redacted]"), "{context}");
                let rows = "SELECT count(*)::text FROM pg_settings WHERE name LIKE '%.jwt'";
                assert_eq!(text(&mut client, rows).as_deref(), Some("0"), "{context}");
                // What it says does not get stored or presented as a token either.
                let copy = "CREATE FUNCTION {f} SET pg_session_jwt.jwt FROM CURRENT {body}";
                let code = attempt(&mut client, &filled(copy, "", ""));
                assert_eq!(code, Code::Configuration.sqlstate(), "{context}");
            }
        }
    }
}

/// Without a token there is nothing to redact, so that a client can tell.
fn the_absence_of_a_token_is_shown(site: &Site) {
    let mut client = site.session("app");
    let shown = |client: &mut Client| text(client, "SHOW pg_session_jwt.jwt").unwrap();
    assert_eq!(shown(&mut client), "", "shown");
    assert_eq!(presented(&mut client, &alice()), "alice", "presented(alice)");
    assert_eq!(shown(&mut client), "[redacted]", "shown");
    assert_eq!(
        presented(&mut client, &mallory()),
        Code::Signature.sqlstate(),
        "presented(mallory)"
    );
    assert_eq!(shown(&mut client), "", "shown");
}

/// A token that is at rest somewhere is nobody's: it is refused where it is stored, and where that
/// cannot be, as in a file, when it is found there.
fn tokens_cannot_be_stored(site: &Site) {
    site.admin("CREATE ROLE store LOGIN");
    site.admin("CREATE DATABASE store OWNER store");
    let statements = [
        ("store", "ALTER ROLE store SET {name} = {value}", Code::Configuration.sqlstate()),
        ("store", "ALTER DATABASE store SET {name} = {value}", Code::Configuration.sqlstate()),
        (
            "store",
            "ALTER ROLE store IN DATABASE store SET {name} = {value}",
            Code::Configuration.sqlstate(),
        ),
        (
            "store",
            "CREATE FUNCTION {f} SET {name} = {value} {body}",
            Code::Configuration.sqlstate(),
        ),
        (
            "store",
            "CREATE FUNCTION {f} SET {name} FROM CURRENT {body}",
            Code::Configuration.sqlstate(),
        ),
        ("store", "ALTER SYSTEM SET {name} = {value}", INSUFFICIENT_PRIVILEGE),
        ("postgres", "ALTER ROLE ALL SET {name} = {value}", Code::Configuration.sqlstate()),
        ("postgres", "ALTER SYSTEM SET {name} = {value}", Code::Configuration.sqlstate()),
    ];
    for (role, statement, expected) in statements {
        let context = format!("{:?}, {role}: {statement}", site.preload);
        let mut client = site.session(role);
        assert_eq!(presented(&mut client, &alice()), "alice", "{context}");
        let statement = filled(statement, "pg_session_jwt.jwt", &alice());
        assert_eq!(attempt(&mut client, &statement), expected, "{context}");
        // Whether it is stored says nothing about the session.
        assert_eq!(user(&mut client).as_deref(), Some("alice"), "{context}");
    }
    // Before the library is there, an ordinary role stores nothing under an unknown name, and
    // what a superuser does is refused at the next login.
    if site.is_late() {
        let mut client = site.role("store").client();
        for (role, statement, _) in statements {
            if role == "store" && statement.contains("{value}") {
                let statement = filled(statement, "pg_session_jwt.jwt", &alice());
                let code = attempt(&mut client, &statement);
                assert_eq!(code, INSUFFICIENT_PRIVILEGE, "{statement}");
            }
        }
        let token = quote(&alice());
        site.admin(&format!("ALTER ROLE store SET pg_session_jwt.jwt = {token}"));
    }
    assert_eq!(user(&mut site.role("store").client()), None, "before the library is there");
    assert_eq!(
        user(&mut site.role("store").database("store").client()),
        None,
        "before the library is there"
    );
}

/// From 17 on, `ALTER SYSTEM` stores settings that no library has defined. Before, the file has the token.
#[test]
fn a_token_that_was_stored_before_loading_is_rejected_and_can_be_removed() {
    const NAME: &str = "pg_session_jwt.jwt";
    let site = Site::start(Preload::Neither);
    if postgres_version() < 17 {
        site.cluster.append_configuration(&[(NAME, &alice())]);
    } else {
        site.admin(&filled("ALTER SYSTEM SET {name} = {value}", NAME, &alice()));
    }
    site.cluster.reload();
    let (client, notices) = listening(&site.role("app"));
    assert_eq!(user(&mut client.unwrap()), None, "a stored token");
    let [warning] = &notices.take()[..] else { panic!("a stored token: not one warning") };
    assert_eq!(warning.code().code(), Code::Configuration.sqlstate(), "{warning:?}");
    assert!(warning.hint().is_some_and(|hint| hint.contains("ALTER SYSTEM")), "{warning:?}");
    // In a session that has loaded the library, too.
    let mut admin = site.session("postgres");
    for statement in ["ALTER SYSTEM SET {name} TO DEFAULT", "ALTER SYSTEM RESET {name}"] {
        assert_eq!(attempt(&mut admin, &filled(statement, NAME, "")), SUCCESS, "{statement}");
    }
    site.cluster.reload();
    let (client, notices) = listening(&site.role("app"));
    assert_eq!(presented(&mut client.unwrap(), &alice()), "alice", "without a stored token");
    let is_left = postgres_version() < 17;
    assert_eq!(notices.codes().is_empty(), !is_left, "without a stored token");
}

/// A token that is stored gives no identity, whoever has loaded the library when. Where the server has, the token is
/// in no line of the log.
#[test]
fn stored_tokens_give_no_identity() {
    for preload in Preload::ALL {
        let site = Site::with(
            preload,
            &[
                (JWK, &KEYS.configured.public_jwk().to_string()),
                ("log_min_messages", "debug5"),
                ("max_parallel_workers_per_gather", "2"),
            ],
        );
        site.admin("CREATE ROLE store LOGIN");
        let token = alice();
        // A value that the check hook has admitted begins with this byte.
        for standing in ["", "!"] {
            let value = format!("{standing}{token}");
            let context = |way: &str| format!("{preload:?}: {way} with {standing:?}");
            for file in ["postgresql.conf", "postgresql.auto.conf"] {
                let path = site.cluster.data().join(file);
                let before = std::fs::read_to_string(&path).unwrap();
                let mut open = site.session("app");
                assert_eq!(presented(&mut open, &token), "alice", "{}", context(file));
                let stored = format!("{before}\npg_session_jwt.jwt = '{value}'\n");
                std::fs::write(&path, stored).unwrap();
                site.cluster.reload();
                assert_eq!(user(&mut open).as_deref(), Some("alice"), "{}", context(file));
                run(&mut open, "RESET ALL");
                assert_eq!(user(&mut open), None, "{}", context(file));
                assert_no_identity(&site, "app", &context(file));
                site.cluster.restart();
                assert_no_identity(&site, "app", &context(file));
                std::fs::write(&path, before).unwrap();
            }
            let option = format!("-c 'pg_session_jwt.jwt={value}'");
            site.cluster.restart_with_options(&option);
            assert_no_identity(&site, "app", &context("the command line"));
            site.cluster.reload();
            assert_no_identity(&site, "app", &context("the command line, reloaded"));
            site.cluster.restart();
            // As ALTER ROLE and ALTER DATABASE store it where the library is not loaded.
            for (database, role) in [("0", "'store'"), ("oid", "0"), ("oid", "'store'")] {
                let row = format!("database {database}, role {role}");
                let role = role.replace("'store'", "'store'::regrole");
                site.admin(&format!(
                    "INSERT INTO pg_db_role_setting
                     SELECT {database}, {role}, ARRAY['pg_session_jwt.jwt={value}']
                     FROM pg_database WHERE datname = 'postgres'"
                ));
                assert_no_identity(&site, "store", &context(&row));
                site.admin("ALTER ROLE store RESET ALL; ALTER DATABASE postgres RESET ALL");
                site.admin("ALTER ROLE store IN DATABASE postgres RESET ALL");
                let left = "SELECT count(*)::text FROM pg_db_role_setting";
                let left = text(&mut site.cluster.admin(), left);
                assert_eq!(left.as_deref(), Some("0"), "{}", context(&row));
            }
        }
        if preload == Preload::Shared {
            let log = site.cluster.log();
            assert_without_token(&log, &token, "the log");
            for severity in ["LOG", "WARNING"] {
                let line = format!(" {severity}:  a token cannot be stored in a setting");
                assert!(log.contains(&line), "{line} is not in the log");
            }
        }
    }
}

/// Neither a session that loads the library now, nor a worker that loads it before or with its leader, has an identity.
fn assert_no_identity(site: &Site, role: &str, context: &str) {
    let mut client = site.role(role).client();
    assert_eq!(user(&mut client), None, "{context}");
    assert_eq!(presented(&mut client, &alice()), "alice", "{context}");
    run(&mut client, "RESET ALL");
    assert_eq!(user(&mut client), None, "{context}: after RESET ALL");
    let mut client = site.role(role).client();
    run(&mut client, &format!("SET {} = on", parallel_query_setting()));
    for moment in ["before", "with"] {
        let outcome = client.query_one("SELECT auth.user_id()", &[]);
        let who = outcome.map(|row| row.get::<_, Option<String>>(0));
        assert_eq!(who.unwrap(), None, "{context}: a worker that loads it {moment} its leader");
        run(&mut client, "SELECT auth.jwt_session_init(NULL)");
    }
}

/// Giving the token up takes the identity away; one from the startup packet is what a reset goes
/// back to, as with any setting, until another one has been refused.
fn resets_take_the_identity_away(site: &Site) {
    let resets = [
        "RESET pg_session_jwt.jwt",
        "SET pg_session_jwt.jwt TO DEFAULT",
        "SET pg_session_jwt.jwt = ''",
        "SELECT set_config('pg_session_jwt.jwt', NULL, false)",
        "SELECT auth.jwt_session_init(NULL)",
        "SELECT auth.jwt_session_init('')",
        "RESET ALL",
        "DISCARD ALL",
    ];
    let ways = [
        "SET pg_session_jwt.jwt = {value}",
        "SELECT set_config('pg_session_jwt.jwt', {value}, false)",
        "SELECT auth.jwt_session_init({value})",
    ];
    for role in ROLES {
        let mut client = site.session(role);
        for way in ways {
            for reset in resets {
                let context = format!("{:?}, {role}: {way}, {reset}", site.preload);
                client.batch_execute(&filled(way, "", &alice())).unwrap();
                assert_eq!(user(&mut client).as_deref(), Some("alice"), "{context}");
                client.batch_execute(reset).unwrap();
                assert_eq!(user(&mut client), None, "{context}");
            }
        }
    }
    for reset in ["RESET pg_session_jwt.jwt", "RESET ALL", "DISCARD ALL"] {
        let context = format!("{:?}: {reset}", site.preload);
        let connection = site.role("app").option("pg_session_jwt.jwt", &alice());
        let mut client = connection.client();
        assert_eq!(user(&mut client).as_deref(), Some("alice"), "{context}");
        assert_eq!(presented(&mut client, &ida("api")), "ida", "{context}");
        client.batch_execute(reset).unwrap();
        assert_eq!(user(&mut client).as_deref(), Some("alice"), "{context}");
        assert_eq!(presented(&mut client, &mallory()), Code::Signature.sqlstate(), "{context}");
        client.batch_execute(reset).unwrap();
        assert_eq!(user(&mut client), None, "{context}");
    }
}

/// A refused token takes along whatever the stack of settings would bring back.
fn a_refused_token_leaves_nobody_to_go_back_to(site: &Site) {
    let before = [
        "SELECT auth.jwt_session_init({value})",
        "SELECT auth.jwt_session_init({value}); BEGIN",
        "BEGIN; SELECT auth.jwt_session_init({value})",
        "BEGIN; SELECT auth.jwt_session_init({value}); SAVEPOINT a",
        "SET pg_session_jwt.jwt = {value}; BEGIN; SET LOCAL pg_session_jwt.jwt = {value}",
        "BEGIN; SET pg_session_jwt.jwt = {value}; SAVEPOINT a;
            SET LOCAL pg_session_jwt.jwt = {value}; SAVEPOINT b",
    ];
    let refused = [
        "SET pg_session_jwt.jwt = {value}",
        "SET LOCAL pg_session_jwt.jwt = {value}",
        "SELECT set_config('pg_session_jwt.jwt', {value}, true)",
        "SELECT auth.jwt_session_init({value})",
        "SELECT tools.whose({value})",
        "SELECT pg_temp.cleared({value})",
    ];
    for before in before {
        for refused in refused {
            for end in ["ROLLBACK", "COMMIT"] {
                let context = format!("{:?}: {before}; {refused}; {end}", site.preload);
                let mut client = site.session("app");
                // Within it there is no identity to take, only one to return to.
                let cleared = "CREATE FUNCTION pg_temp.cleared(token text) RETURNS text
                    LANGUAGE sql SET pg_session_jwt.jwt = '' AS 'SELECT tools.whose(token)'";
                client.batch_execute(cleared).unwrap();
                client.batch_execute(&filled(before, "", &alice())).unwrap();
                assert_eq!(user(&mut client).as_deref(), Some("alice"), "{context}");
                let _ = client.batch_execute(&filled(refused, "", &mallory()));
                client.batch_execute(end).unwrap();
                assert_eq!(user(&mut client), None, "{context}");
                client.batch_execute("RESET ALL").unwrap();
                assert_eq!(user(&mut client), None, "{context}");
            }
        }
    }
}

/// The same where the tokens were set before the library was there to refuse one.
#[test]
fn a_token_refused_at_its_first_use_leaves_nobody_to_go_back_to() {
    let site = SITES.alone(Preload::Neither);
    for refused in [
        "BEGIN; SET LOCAL pg_session_jwt.jwt = {value}",
        "BEGIN; SET pg_session_jwt.jwt = {value}",
        "BEGIN; SAVEPOINT a; SET LOCAL pg_session_jwt.jwt = {value}",
    ] {
        let mut client = site.role("app").client();
        let before = filled("SET pg_session_jwt.jwt = {value}", "", &alice());
        client.batch_execute(&before).unwrap();
        client.batch_execute(&filled(refused, "", &mallory())).unwrap();
        assert_eq!(
            attempt(&mut client, "SELECT auth.user_id()"),
            Code::Signature.sqlstate(),
            "{refused:?}"
        );
        assert_eq!(user(&mut client), None, "{refused}");
    }
    // Where presenting one is what loads the library, those before it go too.
    for token in ["SET pg_session_jwt.jwt = {value}", ""] {
        let connection = site.role("app").option("pg_session_jwt.jwt", &alice());
        let mut client = connection.client();
        client.batch_execute(&filled(token, "", &alice())).unwrap();
        assert_eq!(
            presented(&mut client, &mallory()),
            Code::Signature.sqlstate(),
            "where presenting one is what loads the library"
        );
        client.batch_execute("RESET ALL").unwrap();
        assert_eq!(user(&mut client), None, "{token}");
    }
}
