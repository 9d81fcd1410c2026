//! Event triggers at the start of a session, which have the token of the startup packet.

use harness::{Code, Preload, SUCCESS, is_older_than, run, sqlstate, text};

use super::fixture::*;

#[test]
fn login_event_triggers_have_the_token_and_its_role() {
    if is_older_than(17, "the event trigger for logins") {
        return;
    }
    for preload in Preload::ALL {
        let fixture = Fixture::start(preload, &[]);
        let mut admin = fixture.cluster.admin();
        run(
            &mut admin,
            "CREATE TABLE logins (login text, who text, role text, notes bigint);
             GRANT INSERT ON logins TO PUBLIC; GRANT SELECT ON notes TO app;
             CREATE FUNCTION note_login() RETURNS event_trigger LANGUAGE plpgsql AS $$
               BEGIN
                 INSERT INTO logins
                 SELECT session_user, auth.user_id(), current_user, count(*) FROM notes;
               END $$;
             CREATE EVENT TRIGGER at_login ON login EXECUTE FUNCTION note_login()",
        );
        let connect = |token: &str| fixture.app().option("pg_session_jwt.jwt", token).try_client();
        let outcome = connect(&fixture.token("editor"));
        // Where the trigger loads the library, its statement was planned without the role.
        if preload == Preload::Neither {
            assert_eq!(sqlstate(outcome), Code::Claim.sqlstate(), "{preload:?}");
            continue;
        }
        assert_eq!(role(&mut outcome.unwrap()), "editor", "{preload:?}");
        let logins = "SELECT string_agg(concat_ws(' ', login, who, role, notes), ', ') FROM logins
                      WHERE login = 'app'";
        assert_eq!(text(&mut admin, logins).as_deref(), Some("app alice editor 2"), "{preload:?}");
        let expired = sqlstate(connect(&fixture.token_for("editor", -5)));
        assert_eq!(expired, Code::Expired.sqlstate(), "{preload:?}: the trigger reads the token");
    }
}

/// A security-definer function takes no role of a token, at a login as elsewhere. The session has the role afterwards.
#[test]
fn a_login_trigger_of_a_definer_reads_no_token_with_a_role() {
    if is_older_than(17, "the event trigger for logins") {
        return;
    }
    let fixture = Fixture::start(Preload::Shared, &[]);
    let mut admin = fixture.cluster.admin();
    run(
        &mut admin,
        "CREATE TABLE logins (login text, who text);
         CREATE FUNCTION note_login() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
           BEGIN
             INSERT INTO logins VALUES (session_user, CASE WHEN session_user = 'locked' THEN auth.user_id() END);
           END $$;
         CREATE EVENT TRIGGER at_login ON login EXECUTE FUNCTION note_login()",
    );
    let connect = |login: &str, token: &str| {
        fixture.cluster.as_role(login).option("pg_session_jwt.jwt", token).try_client()
    };
    let editor = fixture.token("editor");
    let outcome = connect("locked", &editor);
    assert_eq!(sqlstate(outcome), Code::Claim.sqlstate(), "a trigger that reads the token");
    let mut client = connect("app", &editor).unwrap();
    assert_eq!(notes(&mut client), Ok(2), "a trigger that does not read the token");
    assert_eq!(role(&mut client), "editor", "a trigger that does not read the token");
    let nobody = fixture.sign(serde_json::json!({}));
    assert_eq!(sqlstate(connect("locked", &nobody)), SUCCESS, "a token without a role");
    let logins = "SELECT string_agg(concat_ws(' ', login, who), ', ') FROM logins";
    assert_eq!(text(&mut admin, logins).as_deref(), Some("app, locked alice"));
}
