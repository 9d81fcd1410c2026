//! The warning for a token that ends with the transaction in which it was presented, before anything can
//! use it.

use harness::{NO_ACTIVE_SQL_TRANSACTION, Preload, Site, Wire, postgres_version, run};

/// The SQLSTATEs of the warnings since the last time, and the last one's hint.
fn warnings(client: &mut Wire) -> (Vec<String>, String) {
    let notices = client.notices();
    let warnings = notices.iter().filter(|notice| notice.get(b'S') == Some("WARNING"));
    let hint = notices.last().and_then(|notice| notice.get(b'H')).unwrap_or_default().to_owned();
    (warnings.map(|notice| notice.sqlstate().to_owned()).collect(), hint)
}

/// Statements of one message each, with a token in place of `{}`.
const UNUSED: [&str; 6] = [
    "SELECT auth.jwt_session_init('{}', true)",
    "SELECT set_config('pg_session_jwt.jwt', '{}', true)",
    "DO $$ BEGIN PERFORM auth.jwt_session_init('{}', true); END $$",
    "DO $$ BEGIN EXECUTE 'SET LOCAL pg_session_jwt.jwt = ''{}'''; END $$",
    // Read before it is there.
    "SELECT auth.user_id(), auth.jwt_session_init('{}', true)",
    "DO $$ BEGIN PERFORM auth.jwt_session_init('{}', true); COMMIT; PERFORM auth.user_id(); END $$",
];

const USED: [&str; 16] = [
    "SELECT auth.jwt_session_init('{}', true), auth.user_id()",
    "SELECT auth.jwt_session_init('{}', true), auth.claim('sub')",
    "SELECT auth.jwt_session_init('{}', true); SELECT auth.user_id()",
    "SELECT auth.jwt_session_init('{}', true); TABLE todos",
    // A block, even if nothing comes after it.
    "SELECT 1; SELECT auth.jwt_session_init('{}', true)",
    "BEGIN; SELECT auth.jwt_session_init('{}', true); COMMIT",
    "BEGIN; SELECT auth.jwt_session_init('{}', true); ROLLBACK",
    "DO $$ BEGIN PERFORM auth.jwt_session_init('{}', true); PERFORM * FROM todos; END $$",
    "DO $$ DECLARE u text; BEGIN PERFORM auth.jwt_session_init('{}', true); u := auth.user_id(); END $$",
    "CALL as_user('{}')",
    "SELECT rows_of('{}')",
    "INSERT INTO todos SELECT WHERE auth.jwt_session_init('{}', true) IS NOT NULL OR true",
    // For the session, too or alone.
    "SELECT auth.jwt_session_init('{}')",
    "SELECT auth.jwt_session_init('{}'), auth.jwt_session_init('{}', true)",
    // Nothing is presented.
    "SELECT auth.jwt_session_init('', true)",
    "SELECT auth.jwt_session_init('{}', true), 1 / (random()::int * 0)",
];

fn site(settings: &[(&str, &str)]) -> Site {
    let site = Site::start(Preload::Shared, settings);
    run(
        &mut site.cluster.admin(),
        "CREATE TABLE todos (owner text DEFAULT auth.user_id());
         GRANT ALL ON todos TO app;
         CREATE PROCEDURE as_user(t text) LANGUAGE plpgsql AS
         $$ BEGIN PERFORM auth.jwt_session_init(t, true); INSERT INTO todos DEFAULT VALUES; END $$;
         CREATE FUNCTION rows_of(t text) RETURNS bigint LANGUAGE sql AS
         $$ SELECT auth.jwt_session_init(t, true); SELECT count(*) FROM todos $$;",
    );
    site
}

#[test]
fn a_local_token_outside_of_a_block_is_warned_of_where_nothing_uses_it() {
    let site = site(&[]);
    let token = site.token("alice");
    for (statements, expected) in [(&UNUSED[..], &[NO_ACTIVE_SQL_TRANSACTION][..]), (&USED, &[])] {
        for statement in statements {
            let mut client = Wire::connect(&site.app()).unwrap();
            client.query(&statement.replace("{}", &token)).unwrap();
            let (codes, hint) = warnings(&mut client);
            assert_eq!(codes, expected, "{statement}");
            assert_eq!(
                hint.contains("BEGIN") && hint.contains("is_local"),
                !codes.is_empty(),
                "{statement:?}, {statements:?}"
            );
            // Once: the next statement has nothing to do with it.
            client.query("SELECT 1").unwrap();
            assert_eq!(warnings(&mut client).0.len(), 0, "{statement}");
        }
    }
    // As Postgres itself warns.
    let mut client = Wire::connect(&site.app()).unwrap();
    client.query(&format!("SET LOCAL pg_session_jwt.jwt = '{token}'")).unwrap();
    assert_eq!(warnings(&mut client).0, [NO_ACTIVE_SQL_TRANSACTION], "as Postgres itself warns");
    // It is a warning, not an error; and errors that are none of ours do not bring it back.
    let init = "SELECT auth.jwt_session_init($1, true)";
    for bad in ["", "no token"] {
        let _ = client.ask(init, &[bad]).unwrap();
        assert_eq!(warnings(&mut client).0.len(), 0, "{bad}");
    }
}

#[test]
fn pipelines_are_not_warned_of() {
    let site = site(&[]);
    let token = site.token("alice");
    let init = "SELECT auth.jwt_session_init($1, true)";
    let mut client = Wire::connect(&site.app()).unwrap();
    assert!(client.ask(init, &[&token]).unwrap().is_ok(), "client.ask(init, [token]).is_ok");
    assert_eq!(warnings(&mut client).0, [NO_ACTIVE_SQL_TRANSACTION], "the warnings");
    // Sync alone, then one with more before it.
    for next in ["SELECT auth.user_id()", "TABLE todos", "SELECT 1", "SHOW search_path", "BEGIN"] {
        client.statement(init, &[&token]);
        client.statement(next, &[]);
        assert!(client.sync().unwrap().iter().all(Result::is_ok), "{next}");
        assert_eq!(warnings(&mut client).0.len(), 0, "{next}");
    }
    client.query("ROLLBACK").unwrap();
    warnings(&mut client);
    // The last one of a pipeline; and one whose next statement fails.
    client.statement("SELECT 1", &[]);
    client.statement(init, &[&token]);
    let _ = client.sync().unwrap();
    // From 18 on, the statements of a pipeline after the first one are in an implicit block.
    let warned = if postgres_version() < 18 { vec![NO_ACTIVE_SQL_TRANSACTION] } else { vec![] };
    assert_eq!(warnings(&mut client).0, warned, "the last one of a pipeline");
    client.statement("SELECT 1", &[]);
    client.statement("SET LOCAL work_mem = '1MB'", &[]);
    let _ = client.sync().unwrap();
    assert_eq!(warnings(&mut client).0, warned, "Postgres warns of SET LOCAL there as well");
    client.statement(init, &[&token]);
    client.statement("SELECT nonsense", &[]);
    let _ = client.sync().unwrap();
    assert_eq!(warnings(&mut client).0.len(), 0, "the last one of a pipeline");
    // Prepared under a name, and in a block.
    client.prepare("init", init);
    client.execute("init", &[&token]);
    client.execute("init", &[&token]);
    let _ = client.sync().unwrap();
    warnings(&mut client);
    client.query("BEGIN").unwrap();
    client.execute("init", &[&token]);
    let _ = client.sync().unwrap();
    client.query("COMMIT").unwrap();
    assert_eq!(warnings(&mut client).0.len(), 0, "prepared under a name, and in a block");
}

#[test]
fn so_is_each_token_where_identities_end_with_their_transaction() {
    let site = site(&[("pg_session_jwt.identity_scope", "transaction")]);
    let token = site.token("alice");
    let mut client = Wire::connect(&site.app()).unwrap();
    let init = "SELECT auth.jwt_session_init($1)";
    assert!(client.ask(init, &[&token]).unwrap().is_ok(), "client.ask(init, [token]).is_ok");
    let (codes, hint) = warnings(&mut client);
    assert_eq!(codes, [NO_ACTIVE_SQL_TRANSACTION], "the warnings of the token");
    assert!(hint.contains("identity_scope"), "{hint}");
    client.query(&format!("SET pg_session_jwt.jwt = '{token}'")).unwrap();
    assert_eq!(warnings(&mut client).0, [NO_ACTIVE_SQL_TRANSACTION], "the warnings");
    client.statement(init, &[&token]);
    client.statement("SELECT auth.user_id()", &[]);
    assert_eq!(
        client.sync().unwrap()[1].as_ref().unwrap()[0][0].as_deref(),
        Some("alice"),
        "client.sync[1][0][0]"
    );
    assert_eq!(warnings(&mut client).0.len(), 0, "warnings.0.len");
}
