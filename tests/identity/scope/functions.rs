//! Procedures that commit, functions with SET clauses, and cursors.

use harness::{Code, Preload, SUCCESS, UNDEFINED_CURSOR, now, values, wait_for};

use super::fixture::*;

#[test]
fn procedures_that_commit() {
    let site = SITES.alone(Preload::Shared);
    site.cluster
        .admin()
        .batch_execute(
            "CREATE PROCEDURE steps(token text, is_local boolean, INOUT seen text[])
             LANGUAGE plpgsql AS $$
             BEGIN
               PERFORM auth.jwt_session_init(token, is_local);
               seen := seen || who();
               COMMIT;
               seen := seen || who() || (SELECT count(*)::text FROM notes);
               PERFORM auth.jwt_session_init(token, is_local);
               ROLLBACK;
               seen := seen || who();
             END $$;
             CREATE PROCEDURE hopeful(token text, INOUT seen text[]) LANGUAGE plpgsql AS $$
             BEGIN
               BEGIN
                 PERFORM auth.jwt_session_init(token);
               EXCEPTION WHEN OTHERS THEN
                 seen := seen || SQLSTATE || who();
               END;
               COMMIT;
               seen := seen || who();
             END $$",
        )
        .unwrap();
    let mut client = connect(&site);
    let (alice, bob) = (site.token("alice"), site.token("bob"));
    for (outer, is_local, seen) in [
        ("", "true", "{alice,nobody,0,nobody}"),
        ("", "false", "{alice,alice,1,alice}"),
        (&bob, "true", "{alice,bob,2,bob}"),
        (&bob, "false", "{alice,alice,1,alice}"),
    ] {
        assert_eq!(client.present(outer, false), SUCCESS, "{outer:?}, {is_local:?}");
        let called = client.ask("CALL steps($1, $2, '{}')", &[&alice, is_local]).unwrap();
        assert_eq!(values(&called), [seen], "{is_local}");
    }
    assert_eq!(client.present(&bob, false), SUCCESS, "client.present(bob, false)");
    let called = client.ask("CALL hopeful($1, '{}')", &[&forged()]).unwrap();
    assert_eq!(values(&called), ["{28J03,nobody,nobody}"], "values(called) after bob");
    assert_eq!(who(&mut client), NOBODY, "the user after bob");
}

/// A function's `SET` clause lasts as long as its call. What it does itself with the setting obeys
/// the rules for any setting.
#[test]
fn set_clauses_of_functions() {
    let site = SITES.alone(Preload::Shared);
    site.cluster
        .admin()
        .batch_execute(
            "CREATE FUNCTION inside(token text, is_local boolean) RETURNS text
             LANGUAGE plpgsql AS $$
             BEGIN
               IF token <> '' THEN PERFORM auth.jwt_session_init(token, is_local); END IF;
               RETURN who();
             END $$;
             CREATE FUNCTION cleared(token text, is_local boolean) RETURNS text LANGUAGE sql
             SET pg_session_jwt.jwt = '' AS $$ SELECT inside(token, is_local) $$;
             CREATE FUNCTION pathed(token text, is_local boolean) RETURNS text LANGUAGE sql
             SET search_path = public AS $$ SELECT inside(token, is_local) $$;
             CREATE FUNCTION swallowed(token text, is_local boolean) RETURNS text
             LANGUAGE plpgsql AS $$
             BEGIN
               PERFORM cleared(token, is_local);
               RAISE 'back' USING ERRCODE = 'P9999';
             EXCEPTION WHEN OTHERS THEN
               RETURN SQLSTATE;
             END $$",
        )
        .unwrap();
    let mut client = connect(&site);
    let (alice, bob) = (site.token("alice"), site.token("bob"));
    let forged = forged();
    // The function, its arguments; what it sees, who is there afterwards in the transaction, and
    // after its commit.
    for (function, token, is_local, seen, then, after) in [
        ("cleared", "", "true", NOBODY, "alice", "alice"),
        ("cleared", &bob, "true", "bob", "alice", "alice"),
        ("cleared", &bob, "false", "bob", "bob", "bob"),
        ("pathed", "", "true", "alice", "alice", "alice"),
        ("pathed", &bob, "true", "bob", "bob", "alice"),
        ("pathed", &bob, "false", "bob", "bob", "bob"),
        ("swallowed", &bob, "true", "P9999", "alice", "alice"),
        ("swallowed", &bob, "false", "P9999", "alice", "alice"),
        ("swallowed", &forged, "true", Code::Signature.sqlstate(), NOBODY, NOBODY),
        ("swallowed", &forged, "false", Code::Signature.sqlstate(), NOBODY, NOBODY),
    ] {
        let context = format!("{function}, {is_local}, {seen}");
        assert_eq!(client.present(&alice, false), SUCCESS, "{function:?}, {is_local:?}");
        client.run("BEGIN");
        let call = format!("SELECT {function}($1, $2)");
        assert_eq!(values(&client.ask(&call, &[token, is_local]).unwrap()), [seen], "{context}");
        assert_eq!(who(&mut client), then, "{context}");
        client.run("COMMIT");
        assert_eq!(who(&mut client), after, "{context}");
    }
}

/// A held cursor is what was read by whoever committed it: data, not an identity.
#[test]
fn cursors_held_over_a_commit() {
    let site = SITES.alone(Preload::Shared);
    let mut client = connect(&site);
    let held = "DECLARE c CURSOR WITH HOLD FOR SELECT owner FROM notes";
    client.run("BEGIN");
    assert_eq!(client.present(&site.token("alice"), true), SUCCESS, "after BEGIN");
    client.run(held);
    client.run("COMMIT");
    assert_eq!(who(&mut client), NOBODY, "after COMMIT");
    assert_eq!(client.present(&site.token("bob"), false), SUCCESS, "after COMMIT");
    let fetched = client.query("FETCH ALL FROM c").unwrap().remove(0);
    assert_eq!(values(&fetched), ["alice"], "after COMMIT");
    client.run("DISCARD ALL");
    assert_eq!(client.run("FETCH ALL FROM c"), UNDEFINED_CURSOR, "after DISCARD ALL");

    // Its rows are read at the commit at the latest, by who is there then.
    let exp = now() + 2;
    client.run("BEGIN");
    assert_eq!(client.present(&site.token_until("alice", exp), true), SUCCESS, "after BEGIN");
    assert_eq!(client.run(held), SUCCESS, "its rows are read at the commit at the latest");
    wait_for("the token to expire", || now() > exp);
    assert_eq!(client.run("COMMIT"), Code::Expired.sqlstate(), "after BEGIN");
    assert_eq!(client.run("FETCH ALL FROM c"), UNDEFINED_CURSOR, "after COMMIT");
    assert_eq!(who(&mut client), NOBODY, "its rows are read at the commit at the latest");
}
