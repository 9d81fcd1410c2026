//! Locked sessions, which change their role by token alone.

use harness::{
    CANT_CHANGE_RUNTIME_PARAM, Code, Preload, SUCCESS, Shared, present, run, sqlstate, text, user,
};

use super::fixture::*;

const LOCKED_ROLES: &str = "pg_session_jwt.locked_roles";

/// The login roles that are locked.
const LOGINS: [&str; 3] = ["locked", "Locked too", "postgres2"];

static FIXTURES: Shared<Fixture> = Shared::new(start);

fn start(preload: Preload) -> Fixture {
    let locked = [(LOCKED_ROLES, "locked, \"Locked too\", postgres2")];
    let fixture = Fixture::start(preload, &locked);
    run(
        &mut fixture.cluster.admin(),
        "CREATE FUNCTION as_reader() RETURNS text LANGUAGE sql SET role = reader
           AS 'SELECT current_user::text';
         CREATE FUNCTION reset_role() RETURNS void LANGUAGE plpgsql AS 'BEGIN RESET ROLE; END';
         CREATE ROLE postgres2 LOGIN SUPERUSER;
         GRANT SET ON PARAMETER pg_session_jwt.locked_roles TO locked",
    );
    fixture
}

/// Statements that change the role are refused, and those that reset it change nothing.
#[test]
fn locked_sessions_change_their_role_by_token_alone() {
    let fixture = FIXTURES.alone(Preload::Shared);
    let editor = fixture.token("editor");
    let refused = [
        "SET ROLE reader",
        "SET ROLE editor",
        "SET ROLE NONE",
        "SET LOCAL ROLE reader",
        "SET SESSION ROLE reader",
        "SET role TO 'reader'",
        "SELECT set_config('role', 'reader', false)",
        "SELECT set_config('ROLE', 'none', true)",
        "UPDATE pg_settings SET setting = set_config('role', 'reader', false)",
        "DO $$ BEGIN SET LOCAL ROLE reader; END $$",
        "DO $$ BEGIN EXECUTE 'SET ROLE NONE'; END $$",
        "DO $$ BEGIN PERFORM set_config('role', 'none', false); END $$",
        "SELECT as_reader()",
        "SET SESSION AUTHORIZATION locked",
        "SET LOCAL SESSION AUTHORIZATION postgres",
        "SELECT set_config('session_authorization', 'app', false)",
    ];
    // None of these changes the role.
    let harmless = [
        "RESET ROLE",
        "SET ROLE TO DEFAULT",
        "RESET SESSION AUTHORIZATION",
        "SET SESSION AUTHORIZATION DEFAULT",
        "SELECT reset_role()",
        "DO $$ BEGIN RESET ROLE; RESET SESSION AUTHORIZATION; END $$",
        "BEGIN; RESET ROLE; ROLLBACK",
        "BEGIN; SAVEPOINT s; RESET SESSION AUTHORIZATION; ROLLBACK TO s; COMMIT",
        "DISCARD PLANS",
    ];
    for login in LOGINS {
        let mut client = fixture.cluster.as_role(login).client();
        for token in ["", &editor] {
            assert_eq!(present(&mut client, token), SUCCESS, "{login:?}");
            let expected = if token.is_empty() { login } else { "editor" };
            for statement in refused {
                let outcome = sqlstate(client.batch_execute(statement));
                assert_eq!(outcome, Code::Forbidden.sqlstate(), "{login}: {statement}");
                assert_eq!(role(&mut client), expected, "{login}: {statement}");
            }
            for statement in harmless {
                run(&mut client, statement);
                assert_eq!(role(&mut client), expected, "{login}: {statement}");
            }
            assert_eq!(
                user(&mut client).as_deref(),
                (!token.is_empty()).then_some("alice"),
                "{login:?}"
            );
        }
    }
}

/// A statement that takes the token away takes the role.
#[test]
fn the_role_of_a_locked_session_goes_with_its_token() {
    let fixture = FIXTURES.alone(Preload::Shared);
    let editor = fixture.token("editor");
    for login in LOGINS {
        let mut client = fixture.cluster.as_role(login).client();
        assert_eq!(present(&mut client, &fixture.token("reader")), SUCCESS, "{login:?}");
        assert_eq!(role(&mut client), "reader", "{login:?}");
        for statement in ["RESET ALL", "DISCARD ALL", "RESET pg_session_jwt.jwt"] {
            assert_eq!(present(&mut client, &editor), SUCCESS, "{statement:?}, {login:?}");
            run(&mut client, statement);
            assert_eq!(
                (role(&mut client), user(&mut client)),
                (login.to_owned(), None),
                "{statement:?}, {login:?}"
            );
        }
    }
}

/// By options of the startup packet, or by what is stored for the role or the database.
#[test]
fn locked_sessions_do_not_start_in_another_role() {
    let fixture = FIXTURES.alone(Preload::Shared);
    let editor = fixture.token("editor");
    let mut admin = fixture.cluster.admin();
    for login in LOGINS {
        for option in ["role", "session_authorization"] {
            let connection = fixture.cluster.as_role(login).option(option, "reader");
            assert_eq!(
                sqlstate(connection.try_client()),
                Code::Forbidden.sqlstate(),
                "{login}: {option}"
            );
        }
        for way in [
            format!("ALTER ROLE \"{login}\" SET role = 'reader'"),
            format!("ALTER ROLE \"{login}\" IN DATABASE postgres SET role = 'reader'"),
            "ALTER DATABASE postgres SET role = 'reader'".to_owned(),
        ] {
            run(&mut admin, &way);
            let mut client = fixture.cluster.as_role(login).client();
            assert_eq!(role(&mut client), login, "{way}");
            run(&mut client, "RESET ROLE");
            assert_eq!(role(&mut client), login, "{way}");
            run(&mut client, "DISCARD ALL");
            assert_eq!(role(&mut client), login, "{way}");
            assert_eq!(present(&mut client, &editor), SUCCESS, "{way:?}, {login:?}");
            assert_eq!(role(&mut client), "editor", "{way}");
            run(&mut admin, &way.replace("SET role = 'reader'", "RESET role"));
        }
    }
}

/// A superuser's session does not, either.
#[test]
fn no_session_unlocks_itself() {
    let fixture = FIXTURES.alone(Preload::Shared);
    for login in LOGINS {
        let mut client = fixture.cluster.as_role(login).client();
        assert_eq!(text(&mut client, "SELECT auth.user_id()"), None, "{login}");
        let outcome = sqlstate(client.batch_execute("SET pg_session_jwt.locked_roles = ''"));
        assert_eq!(outcome, CANT_CHANGE_RUNTIME_PARAM, "{login}");
        let option = fixture.cluster.as_role(login).option("pg_session_jwt.locked_roles", "");
        assert_eq!(sqlstate(option.try_client()), CANT_CHANGE_RUNTIME_PARAM, "{login}");
    }
}

/// A role that owns a function or a view lets the session act as that role.
#[test]
fn locked_sessions_transfer_no_ownership() {
    let fixture = FIXTURES.alone(Preload::Shared);
    let mut admin = fixture.cluster.admin();
    let mut client = fixture.cluster.as_role("locked").client();
    run(
        &mut client,
        "CREATE FUNCTION pg_temp.f() RETURNS text SECURITY DEFINER LANGUAGE sql AS 'SELECT 1::text';
         CREATE TEMP TABLE t (); CREATE TEMP VIEW v AS SELECT; CREATE TEMP SEQUENCE s;
         CREATE TYPE pg_temp.e AS ENUM (); CREATE TYPE pg_temp.c AS (n int)",
    );
    run(&mut admin, "GRANT CREATE ON DATABASE postgres TO locked; ALTER ROLE locked CREATEDB");
    for gift in [
        "ALTER FUNCTION pg_temp.f() OWNER TO reader",
        "ALTER TABLE t OWNER TO reader",
        "ALTER TABLE t ADD COLUMN n int, OWNER TO reader",
        "ALTER VIEW v OWNER TO reader",
        "ALTER SEQUENCE s OWNER TO reader",
        "ALTER TYPE pg_temp.e OWNER TO reader",
        "ALTER TYPE pg_temp.c OWNER TO reader",
        "CREATE SCHEMA x AUTHORIZATION reader",
        "CREATE SCHEMA AUTHORIZATION reader CREATE VIEW v AS SELECT",
        "ALTER DEFAULT PRIVILEGES FOR ROLE reader GRANT ALL ON TABLES TO locked",
        "ALTER DEFAULT PRIVILEGES FOR ROLE locked, reader GRANT ALL ON TABLES TO locked",
        "CREATE DATABASE x OWNER reader",
        "REASSIGN OWNED BY locked TO reader",
        "DO $$ BEGIN ALTER FUNCTION pg_temp.f() OWNER TO reader; END $$",
        "DO $$ BEGIN EXECUTE 'CREATE SCHEMA x AUTHORIZATION reader'; END $$",
    ] {
        let error = client.batch_execute(gift).unwrap_err();
        let message = error.as_db_error().map(|error| error.message().to_owned());
        assert_eq!(message.as_deref(), Some("permission denied to transfer ownership"), "{gift}");
        assert_eq!(sqlstate::<()>(Err(error)), Code::Forbidden.sqlstate(), "{gift}");
    }
    for harmless in [
        "ALTER TABLE t OWNER TO locked",
        "ALTER FUNCTION pg_temp.f() OWNER TO CURRENT_USER",
        "CREATE SCHEMA mine AUTHORIZATION locked; DROP SCHEMA mine",
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO reader",
        "ALTER DEFAULT PRIVILEGES FOR ROLE locked REVOKE ALL ON TABLES FROM reader",
        "ALTER TABLE t ADD COLUMN m int",
    ] {
        run(&mut client, harmless);
    }
    let mut free = fixture.client();
    run(&mut free, "CREATE TEMP TABLE t (); ALTER TABLE t OWNER TO reader");
}

#[test]
fn other_sessions_change_their_role() {
    let fixture = FIXTURES.alone(Preload::Shared);
    let mut client = fixture.client();
    run(&mut client, "SET ROLE reader");
    assert_eq!(role(&mut client), "reader", "after SET ROLE reader");
    assert_eq!(
        text(&mut client, "SELECT as_reader()").as_deref(),
        Some("reader"),
        "after SET ROLE reader"
    );
}

/// A list that is wrong leaves the earlier one in force.
#[test]
fn a_lock_that_comes_later_binds_live_sessions() {
    let fixture = start(Preload::Shared);
    let editor = fixture.token("editor");
    let mut client = fixture.client();
    assert_eq!(present(&mut client, &editor), SUCCESS, "present(editor)");
    fixture.cluster.append_configuration(&[("pg_session_jwt.locked_roles", "app")]);
    fixture.cluster.reload();
    harness::wait_for("the lock", || {
        sqlstate(client.batch_execute("BEGIN; SET LOCAL ROLE NONE; COMMIT"))
            == Code::Forbidden.sqlstate()
            || {
                run(&mut client, "ROLLBACK");
                false
            }
    });
    run(&mut client, "ROLLBACK");
    // A list that is none leaves the one before in force.
    fixture.cluster.append_configuration(&[("pg_session_jwt.locked_roles", "app, , x")]);
    fixture.cluster.reload();
    harness::wait_for("the log", || fixture.cluster.log().contains("It is not a list of names"));
    assert_eq!(
        sqlstate(client.batch_execute("SET ROLE reader")),
        Code::Forbidden.sqlstate(),
        "a list that is none leaves the one before in force"
    );
}

#[test]
fn locked_sessions_change_no_roles_and_memberships() {
    let settings = [("pg_session_jwt.locked_roles", "locked")];
    let fixture = Fixture::start(Preload::Shared, &settings);
    let mut admin = fixture.cluster.admin();
    run(
        &mut admin,
        "CREATE ROLE given; CREATE ROLE other; ALTER ROLE app CREATEROLE; ALTER ROLE locked CREATEROLE;
         GRANT given TO app, locked WITH ADMIN OPTION;
         -- From 16 on, CREATEROLE alone does not suffice to alter a role.
         GRANT other TO app, locked WITH ADMIN OPTION;
         CREATE FUNCTION grant_given() RETURNS void SECURITY DEFINER LANGUAGE plpgsql
             AS 'BEGIN GRANT given TO other; REVOKE given FROM other; END'",
    );
    let statements = [
        "GRANT given TO other",
        "GRANT given TO other GRANTED BY CURRENT_USER",
        "REVOKE given FROM other",
        "REVOKE ADMIN OPTION FOR given FROM other",
        "ALTER GROUP given ADD USER other",
        "ALTER GROUP given DROP USER other",
        "CREATE ROLE fresh",
        "CREATE USER fresh",
        "CREATE GROUP fresh",
        "CREATE ROLE fresh ROLE CURRENT_USER",
        "ALTER ROLE other LOGIN",
        "ALTER ROLE other RENAME TO another",
        "ALTER GROUP other RENAME TO another",
        "ALTER USER CURRENT_USER PASSWORD 'x'",
        "ALTER ROLE CURRENT_USER SET work_mem = '1MB'",
        "ALTER ROLE CURRENT_USER IN DATABASE postgres SET work_mem = '1MB'",
        "ALTER ROLE CURRENT_USER RESET ALL",
        "DROP ROLE other",
        "DROP USER IF EXISTS absent",
        "DO $$ BEGIN GRANT given TO other; END $$",
        "PREPARE p AS SELECT 1; DO $$ BEGIN EXECUTE 'GRANT given TO other'; END $$",
    ];
    let mut client = fixture.cluster.as_role("locked").client();
    let mut free = fixture.client();
    for statement in statements {
        run(&mut client, "BEGIN");
        let error = client.batch_execute(statement).expect_err(statement);
        let message = error.as_db_error().map(|error| error.message().to_owned());
        assert_eq!(message.as_deref(), Some("permission denied to change roles"), "{statement}");
        assert_eq!(sqlstate::<()>(Err(error)), Code::Forbidden.sqlstate(), "{statement}");
        run(&mut client, "ROLLBACK");
        // A session that is not locked may.
        run(&mut free, "BEGIN");
        run(&mut free, statement);
        run(&mut free, "ROLLBACK");
    }
    // Nor in the role of a token; but a superuser's function may.
    run(&mut admin, "GRANT given TO editor WITH ADMIN OPTION; GRANT editor TO locked");
    assert_eq!(
        present(&mut client, &fixture.token("editor")),
        SUCCESS,
        "nor in the role of a token"
    );
    assert_eq!(
        sqlstate(client.batch_execute("GRANT given TO other")),
        Code::Forbidden.sqlstate(),
        "nor in the role of a token"
    );
    run(&mut client, "SELECT grant_given()");
    run(
        &mut client,
        "CREATE TEMP TABLE t (); GRANT SELECT ON t TO other; REVOKE ALL ON t FROM other",
    );
}

/// Where the library comes late, a client could have changed its role before: nobody is anybody.
#[test]
fn locks_that_would_not_hold_let_nobody_in() {
    for (preload, settings) in [
        (Preload::Session, [("pg_session_jwt.locked_roles", "locked")]),
        (Preload::Neither, [("pg_session_jwt.locked_roles", "locked")]),
        // A list that is none, where there is none before.
        (Preload::Shared, [("pg_session_jwt.locked_roles", "locked,")]),
    ] {
        let fixture = Fixture::start(preload, &settings);
        let editor = fixture.token("editor");
        for login in ["app", "locked"] {
            let mut client = fixture.cluster.as_role(login).client();
            assert_eq!(
                present(&mut client, &editor),
                Code::Configuration.sqlstate(),
                "{preload:?}"
            );
            assert_eq!(role(&mut client), login, "{login:?}, {preload:?}");
            for call in ["SELECT auth.user_id()", "SELECT auth.init()", "SELECT auth.claim('sub')"]
            {
                let outcome = sqlstate(client.batch_execute(call));
                assert_eq!(outcome, Code::Configuration.sqlstate(), "{preload:?}: {call}");
            }
        }
        if preload != Preload::Shared {
            // Nor does it help to name another list.
            let connection = fixture.app().option("pg_session_jwt.locked_roles", "");
            if let Ok(mut client) = connection.try_client() {
                assert_eq!(
                    present(&mut client, &editor),
                    Code::Configuration.sqlstate(),
                    "{preload:?}"
                );
            }
        }
    }
}
