//! How long a role lasts, and what else changes it.

use std::time::{Duration, Instant};

use harness::{
    Answer, Code, DIVISION_BY_ZERO, INSUFFICIENT_PRIVILEGE, Preload, SUCCESS, Shared, Wire,
    backend_pid, is_older_than, now, present, run, sqlstate, text, user, wait_for,
};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::json;

use super::fixture::*;

/// Clusters whose roles tests do not change.
static FIXTURES: Shared<Fixture> = Shared::new(|preload| Fixture::start(preload, &[]));

#[test]
fn the_role_comes_with_the_token() {
    let fixture = FIXTURES.beside_others(Preload::Shared);
    let (editor, reader) = (fixture.token("editor"), fixture.token("reader"));
    let nobody = fixture.sign(json!({}));
    let mut client = fixture.client();
    assert_eq!(
        notes(&mut client),
        Err(INSUFFICIENT_PRIVILEGE.to_owned()),
        "the notes that are seen"
    );
    assert_eq!(present(&mut client, &editor), SUCCESS, "present(editor)");
    assert_eq!(
        (role(&mut client), notes(&mut client)),
        ("editor".to_owned(), Ok(2)),
        "role and notes after editor"
    );
    assert_eq!(present(&mut client, &reader), SUCCESS, "present(reader)");
    assert_eq!(
        (role(&mut client), notes(&mut client)),
        ("reader".to_owned(), Ok(1)),
        "role and notes after reader"
    );
    assert_eq!(present(&mut client, &nobody), SUCCESS, "present(nobody)");
    assert_eq!(role(&mut client), "app", "the role after nobody");
    assert_eq!(user(&mut client).as_deref(), Some("alice"), "the user after nobody");
}

#[test]
fn the_role_goes_with_the_token() {
    let fixture = FIXTURES.beside_others(Preload::Shared);
    let mut client = fixture.client();
    let editor = fixture.token("editor");
    for way in [
        "SELECT auth.jwt_session_init(NULL)",
        "SELECT auth.jwt_session_init('')",
        "RESET pg_session_jwt.jwt",
        "SET pg_session_jwt.jwt = ''",
        "RESET ALL",
        "DISCARD ALL",
    ] {
        assert_eq!(present(&mut client, &editor), SUCCESS, "{way:?}");
        assert_eq!(role(&mut client), "editor", "{way:?}");
        run(&mut client, way);
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None), "{way}");
        assert_eq!(notes(&mut client), Err(INSUFFICIENT_PRIVILEGE.to_owned()), "{way}");
    }
}

/// Over a session's role and over none.
#[test]
fn the_role_of_a_transaction_ends_with_it() {
    let fixture = FIXTURES.beside_others(Preload::Shared);
    let mut client = fixture.client();
    let (editor, reader) = (fixture.token("editor"), fixture.token("reader"));
    let nobody = fixture.sign(json!({}));
    for before in [None, Some(&reader)] {
        let outside = before.map_or("app", |_| "reader");
        if let Some(token) = before {
            assert_eq!(present(&mut client, token), SUCCESS, "{before:?}");
        }
        let ways = [
            format!("SELECT auth.jwt_session_init('{editor}', true)"),
            format!("SET LOCAL pg_session_jwt.jwt = '{editor}'"),
            format!("SELECT set_config('pg_session_jwt.jwt', '{editor}', true)"),
            // As the session's, but rolled back.
            format!("SELECT auth.jwt_session_init('{editor}')"),
            format!("SET pg_session_jwt.jwt = '{editor}'"),
        ];
        for (place, way) in ways.iter().enumerate() {
            for end in ["COMMIT", "ROLLBACK"] {
                if place > 2 && end == "COMMIT" {
                    continue;
                }
                run(&mut client, "BEGIN");
                run(&mut client, way);
                assert_eq!(role(&mut client), "editor", "{way}");
                run(&mut client, "SAVEPOINT s");
                assert_eq!(present(&mut client, &nobody), SUCCESS, "{way:?}, {end:?}");
                assert_eq!(role(&mut client), "app", "{way:?}, {end:?}: after SAVEPOINT s");
                run(&mut client, "SAVEPOINT t");
                assert_eq!(present(&mut client, &reader), SUCCESS, "{way:?}, {end:?}");
                run(&mut client, "RELEASE t");
                assert_eq!(role(&mut client), "reader", "{way:?}, {end:?}: after RELEASE t");
                run(&mut client, "ROLLBACK TO s");
                assert_eq!(role(&mut client), "editor", "{way}, ROLLBACK TO");
                run(&mut client, end);
                assert_eq!(role(&mut client), outside, "{way}, {end}");
            }
        }
        // An error ends it as well.
        run(&mut client, "BEGIN");
        run(&mut client, &ways[0]);
        assert_eq!(sqlstate(client.batch_execute("SELECT 1/0")), DIVISION_BY_ZERO, "{before:?}");
        run(&mut client, "ROLLBACK");
        assert_eq!(role(&mut client), outside, "{before:?}: after ROLLBACK");
    }
}

/// By a rollback, and by the end of a transaction where the clearing was local.
#[test]
fn a_cleared_role_comes_back_with_the_token() {
    let fixture = FIXTURES.beside_others(Preload::Shared);
    let mut client = fixture.client();
    let editor = fixture.token("editor");
    for (way, end) in [
        ("SELECT auth.jwt_session_init(NULL)", "ROLLBACK"),
        ("SELECT auth.jwt_session_init(NULL, true)", "COMMIT"),
        ("DISCARD PLANS; RESET pg_session_jwt.jwt", "ROLLBACK"),
    ] {
        assert_eq!(present(&mut client, &editor), SUCCESS, "{way:?}, {end:?}");
        run(&mut client, &format!("BEGIN; {way}"));
        assert_eq!(role(&mut client), "app", "{way}");
        run(&mut client, end);
        assert_eq!((role(&mut client), notes(&mut client)), ("editor".to_owned(), Ok(2)), "{way}");
    }
}

/// Within a security-definer function the user is not the session's to change.
#[test]
fn security_definer_functions_change_no_role() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    let mut admin = fixture.cluster.admin();
    run(
        &mut admin,
        "CREATE FUNCTION present(token text) RETURNS text SECURITY DEFINER LANGUAGE plpgsql AS $$
           BEGIN PERFORM auth.jwt_session_init(token); RETURN current_user; END $$;
         CREATE FUNCTION try(token text) RETURNS text SECURITY DEFINER LANGUAGE plpgsql AS $$
           BEGIN
             BEGIN PERFORM auth.jwt_session_init(token);
             EXCEPTION WHEN SQLSTATE '28J09' THEN NULL; END;
             RETURN current_user;
           END $$",
    );
    let mut client = fixture.client();
    let (editor, nobody) = (fixture.token("editor"), fixture.sign(json!({})));
    let call = |function: &str, token: &str| format!("SELECT {function}('{token}')");

    assert_eq!(
        sqlstate(client.batch_execute(&call("present", &editor))),
        Code::Claim.sqlstate(),
        "sqlstate(client.batch_execute(call(present, editor)))"
    );
    assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None), "role and user");
    // A token without a role is as good as anywhere, and takes the one before with it.
    for (token, expected) in [(nobody.as_str(), Some("alice".to_owned())), ("", None)] {
        assert_eq!(
            present(&mut client, &editor),
            SUCCESS,
            "a token without a role is as good as anywhere"
        );
        assert_eq!(
            text(&mut client, &call("present", token)).as_deref(),
            Some("postgres"),
            "a token without a role is as good as anywhere"
        );
        assert_eq!(
            (role(&mut client), user(&mut client)),
            ("app".to_owned(), expected.clone()),
            "a token without a role is as good as anywhere"
        );
        // In a transaction, from the next statement on.
        assert_eq!(
            present(&mut client, &editor),
            SUCCESS,
            "in a transaction, from the next statement on"
        );
        run(&mut client, "BEGIN");
        assert_eq!(
            text(&mut client, &call("present", token)).as_deref(),
            Some("postgres"),
            "after BEGIN"
        );
        assert_eq!(
            (role(&mut client), user(&mut client)),
            ("app".to_owned(), expected),
            "after BEGIN"
        );
        assert_eq!(notes(&mut client), Err(INSUFFICIENT_PRIVILEGE.to_owned()), "after BEGIN");
        run(&mut client, "ROLLBACK");
        assert_eq!(
            (role(&mut client), notes(&mut client)),
            ("editor".to_owned(), Ok(2)),
            "after ROLLBACK"
        );
    }
    // Statements that were analysed before ask nobody again.
    let whoami = client.prepare("SELECT current_user::text").unwrap();
    let count = client.prepare("SELECT count(*) FROM notes").unwrap();
    let attempt = client.prepare("SELECT try($1)").unwrap();
    for token in ["", &editor] {
        for statement in [&whoami, &count] {
            assert_eq!(present(&mut client, &editor), SUCCESS, "{statement:?}");
            assert_eq!(client.query_one(&count, &[]).unwrap().get::<_, i64>(0), 2, "{statement:?}");
            run(&mut client, "BEGIN");
            client.query_one(&attempt, &[&token]).unwrap();
            match client.query_one(statement, &[]) {
                Ok(row) => assert_eq!(row.get::<_, &str>(0), "app", "{statement:?}: after BEGIN"),
                Err(error) => {
                    assert_eq!(sqlstate::<()>(Err(error)), INSUFFICIENT_PRIVILEGE, "{statement:?}")
                }
            }
            run(&mut client, "ROLLBACK");
        }
    }
    // A refusal that is swallowed there takes the role, too.
    for around in ["", "BEGIN; SAVEPOINT s"] {
        assert_eq!(present(&mut client, &editor), SUCCESS, "{around:?}");
        run(&mut client, around);
        assert_eq!(
            text(&mut client, &call("try", &editor)).as_deref(),
            Some("postgres"),
            "{around:?}"
        );
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None), "{around:?}");
        run(&mut client, if around.is_empty() { "" } else { "ROLLBACK TO s" });
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None), "{around:?}");
        run(&mut client, "COMMIT");
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None), "{around:?}");
    }
}

/// What a client can do where its role is not locked.
#[test]
fn the_later_of_token_and_set_role_counts() {
    let fixture = FIXTURES.beside_others(Preload::Shared);
    let (editor, reader) = (fixture.token("editor"), fixture.token("reader"));
    let mut client = fixture.client();
    run(&mut client, "SET ROLE reader");
    assert_eq!(present(&mut client, &editor), SUCCESS, "after SET ROLE reader");
    assert_eq!(role(&mut client), "editor", "after SET ROLE reader");
    // Without the token, what was there before.
    assert_eq!(present(&mut client, ""), SUCCESS, "without the token, what was there before");
    assert_eq!(role(&mut client), "reader", "without the token, what was there before");
    run(&mut client, "RESET ROLE");
    assert_eq!(role(&mut client), "app", "without the token, what was there before");

    assert_eq!(present(&mut client, &editor), SUCCESS, "after RESET ROLE");
    run(&mut client, "SET ROLE reader");
    assert_eq!(role(&mut client), "reader", "after SET ROLE reader");
    run(&mut client, "RESET ROLE");
    assert_eq!(role(&mut client), "editor", "after RESET ROLE");
    run(&mut client, "SET ROLE NONE");
    assert_eq!(role(&mut client), "app", "after SET ROLE NONE");
    assert_eq!(user(&mut client).as_deref(), Some("alice"), "after SET ROLE NONE");
    assert_eq!(present(&mut client, &reader), SUCCESS, "after SET ROLE NONE");
    assert_eq!(role(&mut client), "reader", "after SET ROLE NONE");
    run(&mut client, "BEGIN; SET LOCAL ROLE editor");
    assert_eq!(role(&mut client), "editor", "after BEGIN; SET LOCAL ROLE editor");
    run(&mut client, "COMMIT");
    assert_eq!(role(&mut client), "reader", "after COMMIT");
    run(&mut client, "BEGIN; SET ROLE NONE; SAVEPOINT s; SET ROLE editor; ROLLBACK TO s");
    assert_eq!(role(&mut client), "app", "the role after reader");
    run(&mut client, "ROLLBACK");
    assert_eq!(role(&mut client), "reader", "after ROLLBACK");
    assert_eq!(
        sqlstate(client.batch_execute("SET ROLE stranger")),
        INSUFFICIENT_PRIVILEGE,
        "after ROLLBACK"
    );
    run(
        &mut client,
        "CREATE FUNCTION pg_temp.whose() RETURNS text LANGUAGE sql SET role = editor
           AS 'SELECT current_user::text'",
    );
    assert_eq!(
        text(&mut client, "SELECT pg_temp.whose()").as_deref(),
        Some("editor"),
        "text(SELECT pg_temp.whose) after reader"
    );
    assert_eq!(role(&mut client), "reader", "the role after reader");
    // Many values of the setting do no harm.
    for _ in 0..200 {
        run(&mut client, "BEGIN; SET LOCAL ROLE editor; SAVEPOINT s; SET LOCAL ROLE NONE; COMMIT");
    }
    assert_eq!(role(&mut client), "reader", "many values of the setting do no harm");
    run(&mut client, "DISCARD ALL");
    assert_eq!(role(&mut client), "app", "many values of the setting do no harm");
}

/// SET SESSION AUTHORIZATION takes the role away, and its reset brings it back.
#[test]
fn the_role_is_of_the_session_user() {
    let fixture = FIXTURES.beside_others(Preload::Shared);
    let editor = fixture.token("editor");
    let mut admin = fixture.cluster.admin();
    assert_eq!(
        present(&mut admin, &fixture.token("stranger")),
        SUCCESS,
        "present(fixture.token(stranger))"
    );
    run(&mut admin, "SET SESSION AUTHORIZATION app");
    assert_eq!(role(&mut admin), "app", "after SET SESSION AUTHORIZATION app");
    run(&mut admin, "RESET ROLE");
    assert_eq!(role(&mut admin), "app", "after RESET ROLE");
    assert_eq!(user(&mut admin).as_deref(), Some("alice"), "after RESET ROLE");
    run(&mut admin, "RESET SESSION AUTHORIZATION");
    assert_eq!(role(&mut admin), "stranger", "after RESET SESSION AUTHORIZATION");
    run(&mut admin, "BEGIN; SET LOCAL SESSION AUTHORIZATION app; ROLLBACK");
    assert_eq!(role(&mut admin), "stranger", "the role after fixture.token(stranger)");
    run(&mut admin, "SET ROLE reader");
    run(&mut admin, "BEGIN; SET SESSION AUTHORIZATION app; ROLLBACK");
    assert_eq!(role(&mut admin), "reader", "the role after fixture.token(stranger)");
    run(&mut admin, "RESET ROLE");
    assert_eq!(role(&mut admin), "stranger", "after RESET ROLE");
    assert_eq!(present(&mut admin, ""), SUCCESS, "after RESET ROLE");
    assert_eq!(role(&mut admin), "postgres", "after RESET ROLE");
    run(&mut admin, "SET ROLE reader; SET SESSION AUTHORIZATION app");
    assert_eq!(present(&mut admin, &editor), SUCCESS, "present(editor)");
    assert_eq!(role(&mut admin), "editor", "the role after editor");
    assert_eq!(present(&mut admin, ""), SUCCESS, "present");
    assert_eq!(role(&mut admin), "app", "the role after no token");
}

/// A statement does not go on in the role of a token that has expired, or that nobody vouches for.
#[test]
fn the_role_ends_with_its_token() {
    let fixture = FIXTURES.beside_others(Preload::Shared);
    let mut client = fixture.client();
    let statement = client.prepare("SELECT count(*) FROM notes").unwrap();
    let exp = now() + 2;
    let brief = fixture.sign(json!({"role": "editor", "exp": exp}));
    assert_eq!(present(&mut client, &brief), SUCCESS, "present(brief)");
    assert_eq!(
        client.query_one(&statement, &[]).unwrap().get::<_, i64>(0),
        2,
        "client.query_one(statement, []).get::<_ after brief"
    );
    run(&mut client, "BEGIN; DECLARE c CURSOR FOR SELECT * FROM notes; FETCH 1 FROM c");
    let deadline = Instant::now() + Duration::from_secs(10);
    while now() < exp && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(
        sqlstate(client.batch_execute("FETCH 1 FROM c")),
        Code::Expired.sqlstate(),
        "sqlstate(client.batch_execute(FETCH 1 FROM c)) after brief"
    );
    run(&mut client, "ROLLBACK");
    assert_eq!(notes(&mut client), Err(Code::Expired.sqlstate().to_owned()), "after ROLLBACK");
    assert_eq!(
        sqlstate(client.query_one(&statement, &[])),
        Code::Expired.sqlstate(),
        "after ROLLBACK"
    );
    for statement in [
        "COPY notes TO STDOUT",
        "TRUNCATE notes",
        "LOCK notes",
        "CREATE TABLE mine ()",
        "INSERT INTO notes VALUES ('x')",
        "DO $$ BEGIN PERFORM * FROM notes; END $$",
        "EXPLAIN SELECT * FROM notes",
        // From 16 on, a plan for a view without tables has no relation but the view.
        "SELECT * FROM fixed",
        "WITH n AS (DELETE FROM notes RETURNING 1) SELECT 1",
        "SELECT auth.user_id()",
    ] {
        assert_eq!(
            sqlstate(client.batch_execute(statement)),
            Code::Expired.sqlstate(),
            "{statement}"
        );
    }
}

/// Before a statement begins, a parameter of a domain is checked with the privileges of the role, after Postgres has
/// judged whether the role may execute the function. An expired token's role does not pass.
#[test]
fn parameters_are_not_checked_in_the_role_of_an_expired_token() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    run(
        &mut fixture.cluster.admin(),
        "CREATE FUNCTION checked(text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS
           $$ BEGIN RAISE NOTICE 'checked'; RETURN true; END $$;
         REVOKE ALL ON FUNCTION checked(text) FROM PUBLIC;
         GRANT EXECUTE ON FUNCTION checked(text) TO editor;
         CREATE DOMAIN checked_text AS text CHECK (checked(value))",
    );
    let mut wire = Wire::connect(&fixture.app()).unwrap();
    let exp = now() + 2;
    let brief = fixture.sign(json!({"role": "editor", "exp": exp}));
    assert_eq!(wire.present(&brief, false), SUCCESS, "a brief token");
    wire.prepare("p", "SELECT $1::checked_text");
    let mut bound = || {
        wire.execute("p", &["x"]);
        let answers = wire.sync().unwrap();
        let failed = answers.into_iter().find_map(Answer::err);
        let notices = wire.notices();
        let calls = notices.iter().filter(|notice| notice.get(b'M') == Some("checked")).count();
        (failed.map_or(SUCCESS.to_owned(), |fields| fields.sqlstate().to_owned()), calls)
    };
    let first = bound();
    assert_eq!((first.0.as_str(), first.1 > 0), (SUCCESS, true), "before the token expires");
    wait_for("the token to expire", || now() >= exp);
    for time in ["the first", "the second"] {
        let outcome = bound();
        assert_eq!((outcome.0.as_str(), outcome.1), (INSUFFICIENT_PRIVILEGE, 0), "{time} time");
    }
}

/// The planner calls functions, or replaces their calls, with the privileges of the role. It does not do so in the role
/// of a token that has expired, or that the login role may not take any more.
#[test]
fn the_planner_has_no_role_of_an_invalid_token() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    let mut admin = fixture.cluster.admin();
    let denied = |function: &str, mut client: Client, when: &str| {
        let select = format!("SELECT {function}");
        let outcome = sqlstate(client.batch_execute(&select));
        assert_eq!(outcome, INSUFFICIENT_PRIVILEGE, "{select}, {when}");
        run(&mut client, "ROLLBACK");
        assert_eq!(role(&mut client), "app", "{select}, {when}");
    };
    let functions = ["inlined()", "constant()"];
    let clients = functions.map(|function| {
        let mut client = fixture.client();
        assert_eq!(present(&mut client, &fixture.token_for("editor", 2)), SUCCESS, "{function}");
        let value = text(&mut client, &format!("SELECT {function}"));
        assert_eq!(value.as_deref(), Some("editors only"), "{function}");
        client
    });
    std::thread::sleep(Duration::from_millis(3100));
    for (function, client) in functions.into_iter().zip(clients) {
        denied(function, client, "expired");
    }
    for change in ["REVOKE editor FROM app", "GRANT editor TO app WITH SET FALSE"] {
        if change.contains("SET") && is_older_than(16, "the option SET of memberships") {
            continue;
        }
        for function in functions {
            let mut client = fixture.client();
            assert_eq!(present(&mut client, &fixture.token("editor")), SUCCESS, "{change}");
            run(&mut client, "BEGIN");
            run(&mut client, &format!("SELECT {function}"));
            run(&mut admin, change);
            denied(function, client, change);
            run(&mut admin, "REVOKE editor FROM app; GRANT editor TO app");
        }
    }
}

/// What brings another token, or takes this one away, goes on, without the role.
#[test]
fn statements_without_tables_outlive_the_token() {
    let fixture = FIXTURES.beside_others(Preload::Shared);
    let mut client = fixture.client();
    let expired = fixture.token_for("editor", 1);
    assert_eq!(present(&mut client, &expired), SUCCESS, "present(expired)");
    wait_for("the token to expire", || {
        notes(&mut client) == Err(Code::Expired.sqlstate().to_owned())
    });
    for way in [
        "BEGIN; ROLLBACK",
        "SET work_mem = '1MB'",
        "SHOW work_mem",
        "SELECT 1",
        "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *",
        "LISTEN a; NOTIFY a",
        "BEGIN; SET CONSTRAINTS ALL DEFERRED; COMMIT",
    ] {
        run(&mut client, way);
    }
    assert_eq!(role(&mut client), "app", "the role after expired");
    let next = "SELECT nextval('numbers')";
    assert_eq!(
        sqlstate(client.batch_execute(next)),
        INSUFFICIENT_PRIVILEGE,
        "sqlstate(client.batch_execute(next)) after expired"
    );
    assert_eq!(
        present(&mut client, &fixture.token("editor")),
        SUCCESS,
        "present(fixture.token(editor))"
    );
    run(&mut client, next);
    assert_eq!(
        present(&mut client, &fixture.token("reader")),
        SUCCESS,
        "present(fixture.token(reader))"
    );
    assert_eq!(
        (role(&mut client), notes(&mut client)),
        ("reader".to_owned(), Ok(1)),
        "role and notes after fixture.token(reader)"
    );
}

/// Without its key, or with other rules, a token's role is not in force.
#[test]
fn a_changed_provider_ends_the_role() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    let mut client = fixture.client();
    let mut admin = fixture.cluster.admin();
    let key = Key::generate(Algorithm::ES256);
    let add = format!(
        "SELECT auth.add_provider('row', issuer => 'row', jwks => '{}', role_claim => 'role')",
        key.public_jwk()
    );
    let token = key.sign(&json!({"iss": "row", "sub": "alice", "exp": now() + 600,
                                 "role": "editor", "r": "reader"}));
    for (change, code) in [
        ("UPDATE auth.providers SET leeway = 1".to_owned(), SUCCESS),
        ("UPDATE auth.providers SET role_claim = 'r'".to_owned(), Code::Claim.sqlstate()),
        ("UPDATE auth.providers SET role_claim = NULL".to_owned(), Code::Claim.sqlstate()),
        ("UPDATE auth.providers SET allowed_roles = '{reader}'".to_owned(), Code::Claim.sqlstate()),
        ("UPDATE auth.providers SET audience = '{x}'".to_owned(), Code::Audience.sqlstate()),
        (
            format!("UPDATE auth.providers SET jwks = '{}'", fixture.key.public_jwk()),
            Code::Signature.sqlstate(),
        ),
        // Then it is for the provider without issuer, whose key is another.
        ("SELECT auth.remove_provider('row')".to_owned(), Code::Signature.sqlstate()),
    ] {
        run(&mut admin, "DELETE FROM auth.providers");
        run(&mut admin, &add);
        assert_eq!(present(&mut client, &token), SUCCESS, "{change:?}");
        assert_eq!(notes(&mut client), Ok(2), "{change:?}: after DELETE FROM auth.providers");
        run(&mut admin, &change);
        let found = notes(&mut client).map_or_else(|code| code, |_| SUCCESS.to_owned());
        assert_eq!(found, code, "{change}");
        assert_eq!(present(&mut client, ""), SUCCESS, "{change:?}");
        assert_eq!(role(&mut client), "app", "{change:?}: after DELETE FROM auth.providers");
    }
}

#[test]
fn the_role_ends_with_its_transaction() {
    let fixture =
        Fixture::start(Preload::Shared, &[("pg_session_jwt.identity_scope", "transaction")]);
    let mut client = fixture.client();
    let editor = fixture.token("editor");
    for end in ["COMMIT", "ROLLBACK"] {
        for way in ["SELECT auth.jwt_session_init", "SELECT set_config"] {
            run(&mut client, "BEGIN");
            let set = match way {
                "SELECT set_config" => format!("{way}('pg_session_jwt.jwt', '{editor}', false)"),
                _ => format!("{way}('{editor}')"),
            };
            run(&mut client, &set);
            assert_eq!(
                (role(&mut client), notes(&mut client)),
                ("editor".to_owned(), Ok(2)),
                "{way:?}, {end:?}"
            );
            run(&mut client, end);
            assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None), "{end}");
        }
    }
    assert_eq!(present(&mut client, &editor), SUCCESS, "present(editor)");
    assert_eq!(role(&mut client), "app", "the role after editor");
    // Also for statements that were analysed before.
    let whoami = client.prepare("SELECT current_user::text").unwrap();
    let count = client.prepare("SELECT count(*) FROM notes").unwrap();
    run(&mut client, &format!("BEGIN; SELECT auth.jwt_session_init('{editor}')"));
    assert_eq!(
        client.query_one(&count, &[]).unwrap().get::<_, i64>(0),
        2,
        "also for statements that were analysed before"
    );
    run(&mut client, "COMMIT");
    assert_eq!(client.query_one(&whoami, &[]).unwrap().get::<_, &str>(0), "app", "after COMMIT");
    assert_eq!(sqlstate(client.query_one(&count, &[])), INSUFFICIENT_PRIVILEGE, "after COMMIT");
}

/// The next client of a pooled connection has neither role nor identity of the one before.
#[test]
fn nothing_is_left_on_a_pooled_connection() {
    let fixture = FIXTURES.beside_others(Preload::Shared);
    let pooler = fixture.cluster.pooler("transaction", &[("default_pool_size", "1")]);
    let (mut first, mut second) = (pooler.as_role("app").client(), pooler.as_role("app").client());
    assert_eq!(backend_pid(&mut first), backend_pid(&mut second), "backend_pid");
    let editor = fixture.token("editor");
    for end in ["COMMIT", "ROLLBACK"] {
        run(&mut first, &format!("BEGIN; SELECT auth.jwt_session_init('{editor}', true)"));
        assert_eq!((role(&mut first), notes(&mut first)), ("editor".to_owned(), Ok(2)), "{end:?}");
        run(&mut first, end);
        assert_eq!((role(&mut second), user(&mut second)), ("app".to_owned(), None), "{end:?}");
    }
    // What a client has left behind, a refused token takes away.
    run(&mut first, &format!("SELECT auth.jwt_session_init('{editor}')"));
    let bad = fixture.token("stranger");
    let refused = second.batch_execute(&format!("SELECT auth.jwt_session_init('{bad}', true)"));
    assert_eq!(
        sqlstate(refused),
        Code::Claim.sqlstate(),
        "what a client has left behind, a refused token takes away"
    );
    for client in [&mut first, &mut second] {
        assert_eq!(
            (role(client), user(client)),
            ("app".to_owned(), None),
            "what a client has left behind, a refused token takes away"
        );
    }
}
