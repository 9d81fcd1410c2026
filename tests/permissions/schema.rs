//! `auth.protect_schema()`: event triggers that ask the token.

use harness::{
    Code, INSUFFICIENT_PRIVILEGE, Preload, SUCCESS, is_older_than, now, present, run, sqlstate,
};
use serde_json::json;

use super::commands::*;
use super::fixture::*;

#[test]
fn only_superusers_protect_the_schema() {
    let fixture = Fixture::new();
    let (mut admin, mut dev) = (fixture.admin(), fixture.dev());
    assert_eq!(
        attempt(&mut dev, "SELECT auth.protect_schema()"),
        Code::Forbidden.sqlstate(),
        "attempt(SELECT auth.protect_schema)"
    );
    assert_eq!(attempt(&mut dev, "CREATE TABLE x ()"), SUCCESS, "attempt(CREATE TABLE x )");
    run(&mut admin, "SELECT auth.protect_schema()");
    assert_eq!(
        attempt(&mut dev, "SELECT auth.unprotect_schema()"),
        Code::Forbidden.sqlstate(),
        "after SELECT auth.protect_schema()"
    );
    assert_eq!(
        attempt(&mut dev, "CREATE TABLE x ()"),
        Code::Forbidden.sqlstate(),
        "after SELECT auth.protect_schema()"
    );
    // Superusers need no token, wherever they act as themselves.
    assert_eq!(
        attempt(&mut admin, "CREATE TABLE x (); DROP TABLE x; ALTER TABLE comments RENAME TO c"),
        SUCCESS,
        "superusers need no token, wherever they act as themselves"
    );
    assert_eq!(
        attempt(&mut admin, "SET ROLE dev; CREATE TABLE x ()"),
        Code::Forbidden.sqlstate(),
        "superusers need no token, wherever they act as themselves"
    );
    // Nor does a setting that turns ordinary triggers off help.
    run(&mut admin, "GRANT SET ON PARAMETER session_replication_role TO dev");
    assert_eq!(
        attempt(&mut dev, "SET session_replication_role = replica; CREATE TABLE x ()"),
        Code::Forbidden.sqlstate(),
        "nor does a setting that turns ordinary triggers off help"
    );
    // What is temporary is the session's own.
    let temporary = "CREATE TEMP TABLE x (id serial PRIMARY KEY); CREATE INDEX ON x (id);
        ALTER TABLE x ADD c int; COMMENT ON COLUMN x.c IS 'c'; CREATE VIEW pg_temp.v AS TABLE x;
        CREATE RULE r AS ON UPDATE TO x DO INSTEAD NOTHING; DROP RULE r ON x;
        DROP TABLE x CASCADE; CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'";
    assert_eq!(attempt(&mut dev, temporary), SUCCESS, "what is temporary is the session's own");
    // A token that has expired is told so.
    let expired = fixture.key.sign(&json!({"sub": "alice", "exp": now() + 1, "a": "rw"}));
    assert_eq!(present(&mut dev, &expired), SUCCESS, "a token that has expired is told so");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(
        attempt(&mut dev, "CREATE TABLE x ()"),
        Code::Expired.sqlstate(),
        "a token that has expired is told so"
    );
    run(&mut admin, "SELECT auth.unprotect_schema()");
    assert_eq!(
        attempt(&mut dev, "CREATE TABLE x ()"),
        SUCCESS,
        "a token that has expired is told so"
    );
}

/// From 17 on, a parameter turns event triggers off, but not what is judged without them.
#[test]
fn only_superusers_turn_event_triggers_off() {
    if is_older_than(17, "the parameter event_triggers") {
        return;
    }
    let fixture = Fixture::new();
    let (mut admin, mut dev) = (fixture.admin(), fixture.dev());
    run(&mut admin, "SELECT auth.protect_schema()");
    let off = "SET event_triggers = off";
    assert_eq!(attempt(&mut dev, off), INSUFFICIENT_PRIVILEGE, "without the privilege");
    run(&mut admin, "GRANT SET ON PARAMETER event_triggers TO dev");
    for (sql, expected) in [
        ("CREATE TABLE x ()", SUCCESS),
        ("REINDEX TABLE comments", Code::Forbidden.sqlstate()),
        ("CLUSTER comments USING comments_pkey", Code::Forbidden.sqlstate()),
        ("TRUNCATE comments", Code::Forbidden.sqlstate()),
    ] {
        assert_eq!(attempt(&mut dev, sql), Code::Forbidden.sqlstate(), "{sql}");
        assert_eq!(attempt(&mut dev, &format!("{off}; {sql}")), expected, "{off}; {sql}");
    }
}

/// A role that owns the schema of the extension can create functions whose types fit the calls better.
#[test]
fn event_triggers_call_no_other_functions() {
    let fixture = Fixture::new();
    let (mut admin, mut dev) = (fixture.admin(), fixture.dev());
    run(
        &mut admin,
        "CREATE FUNCTION auth.is_new(regclass, oid) RETURNS boolean LANGUAGE plpgsql AS
           $$ BEGIN RAISE 'another function'; END $$;
         CREATE FUNCTION auth.demand(text, name, name) RETURNS void LANGUAGE plpgsql AS
           $$ BEGIN RAISE 'another function'; END $$;
         SELECT auth.protect_schema()",
    );
    for sql in [
        "CREATE TABLE x ()",
        "CREATE TABLE x (LIKE comments, FOREIGN KEY (id) REFERENCES comments)",
        "ALTER TABLE comments ADD COLUMN x int",
        "DROP TABLE comments",
        "CREATE FUNCTION x() RETURNS int LANGUAGE sql RETURN 1",
    ] {
        assert_eq!(attempt(&mut dev, sql), Code::Forbidden.sqlstate(), "{sql}");
    }
}

/// Since 17, a role that is not the owner maintains a table.
#[test]
fn the_privilege_maintain_does_not_replace_the_token() {
    if is_older_than(17, "the privilege MAINTAIN") {
        return;
    }
    let fixture = Fixture::new();
    let (mut admin, mut app) = (fixture.admin(), fixture.cluster.as_role("app").client());
    fixture.create_objects();
    run(&mut admin, "GRANT MAINTAIN ON comments, kept TO app; SELECT auth.protect_schema()");
    for (sql, needed) in [
        ("CLUSTER comments USING comments_pkey", "comments:schema_update"),
        ("REINDEX TABLE comments", "comments:schema_update"),
        ("REINDEX INDEX CONCURRENTLY comments_pkey", "comments:schema_update"),
        ("REFRESH MATERIALIZED VIEW kept", "kept:schema_update"),
        ("VACUUM comments", "comments:schema_update"),
    ] {
        assert_eq!(present(&mut app, ""), SUCCESS, "{sql}");
        assert_eq!(sqlstate(app.batch_execute(sql)), Code::Forbidden.sqlstate(), "{sql}");
        fixture.grant(&mut app, &[needed]);
        assert_eq!(sqlstate(app.batch_execute(sql)), SUCCESS, "{sql} with {needed}");
    }
}

#[test]
fn data_definition_asks_the_token() {
    let fixture = Fixture::new();
    let (mut admin, mut dev) = (fixture.admin(), fixture.dev());
    fixture.create_objects();
    for (sql, _) in COMMANDS {
        assert_eq!(attempt(&mut dev, sql), SUCCESS, "{sql}");
    }
    run(&mut admin, "SELECT auth.protect_schema()");
    for (sql, needed) in COMMANDS {
        assert_eq!(present(&mut dev, ""), SUCCESS, "{sql:?}, {needed:?}");
        assert_eq!(attempt(&mut dev, sql), Code::Forbidden.sqlstate(), "{sql}");
        fixture.grant(&mut dev, needed);
        assert_eq!(attempt(&mut dev, sql), SUCCESS, "{sql} with {needed:?}");
        // All that is granted but one permission, for which every other action is.
        for (place, missing) in needed.iter().enumerate() {
            let (table, action) = missing.rsplit_once(':').unwrap();
            let others = SCHEMA.into_iter().filter(|other| *other != action);
            let others = others.collect::<Vec<_>>().join(",");
            let mut less: Vec<String> =
                needed.iter().map(|permission| (*permission).to_owned()).collect();
            less[place] = format!("{table}:data_read,data_add,data_update,data_delete,{others}");
            let less: Vec<&str> = less.iter().map(String::as_str).collect();
            fixture.grant(&mut dev, &less);
            assert_eq!(attempt(&mut dev, sql), Code::Forbidden.sqlstate(), "{sql} with {less:?}");
            // Every action on every table by name is not the database as a whole.
            if table == "all" {
                let tables = [
                    "comments",
                    "secrets",
                    "child",
                    "parted",
                    "part1",
                    "part2",
                    "viewed",
                    "viewing",
                    "hidden.other",
                    "other",
                    "hidden.comments",
                    "fresh",
                    "loose",
                ];
                let all = tables.map(|table| format!("{table}:{}", SCHEMA.join(",")));
                fixture.grant(&mut dev, &all.each_ref().map(String::as_str));
                assert_eq!(
                    attempt(&mut dev, sql),
                    Code::Forbidden.sqlstate(),
                    "{sql} with {all:?}"
                );
            }
        }
    }
    // The refusal names what is missing.
    for (granted, sql, refusal) in [
        (
            None,
            "TRUNCATE comments CASCADE",
            "The statement needs schema_update on the database as a whole. The session has no \
             token.",
        ),
        (
            Some("comments:schema_delete"),
            "DROP TABLE secrets",
            "The statement needs schema_delete on the table \"public\".\"secrets\". The \
             session's token does not grant it.",
        ),
    ] {
        assert_eq!(present(&mut dev, ""), SUCCESS, "{sql}");
        if let Some(granted) = granted {
            fixture.grant(&mut dev, &[granted]);
        }
        let error = dev.batch_execute(sql).expect_err(sql);
        assert_eq!(error.as_db_error().and_then(|error| error.detail()), Some(refusal), "{sql}");
    }
}

#[test]
fn the_event_trigger_function_is_not_called_as_a_function() {
    let fixture = Fixture::new();
    let error = fixture.admin().batch_execute("SELECT auth.check_ddl_start()").unwrap_err();
    let error = error.as_db_error().expect("the server's error");
    assert_eq!(error.code().code(), Code::Configuration.sqlstate(), "{error:?}");
    assert_eq!(error.message(), "function must be called as an event trigger", "{error:?}");
}

/// Statements that do something outside of their transaction, or cannot run in one, and what each
/// needs. Where they are judged too late, they have had their effect.
const OUTSIDE: &[(&str, &str)] = &[
    ("CREATE INDEX CONCURRENTLY late ON comments (body)", "all:schema_update"),
    ("DROP INDEX CONCURRENTLY secrets_body", "all:schema_update"),
    ("ALTER TABLE parted DETACH PARTITION part1 CONCURRENTLY", "all:schema_update"),
    ("REINDEX TABLE CONCURRENTLY comments", "comments:schema_update"),
    ("REINDEX INDEX CONCURRENTLY comments_pkey", "comments:schema_update"),
    ("REINDEX (CONCURRENTLY) TABLE comments", "comments:schema_update"),
    ("REINDEX TABLE parted", "parted:schema_update"),
    ("REINDEX SCHEMA hidden", "all:schema_update"),
    ("REINDEX SCHEMA CONCURRENTLY hidden", "all:schema_update"),
    ("CLUSTER", "all:schema_update"),
    ("VACUUM comments", "comments:schema_update"),
    ("VACUUM FULL comments", "comments:schema_update"),
    ("VACUUM (ANALYZE) comments (id)", "comments:schema_update"),
    ("VACUUM", "all:schema_update"),
    ("CREATE DATABASE fresh", "all:schema_add"),
    ("ALTER DATABASE mine RENAME TO yours", "all:schema_update"),
    ("DROP DATABASE yours", "all:schema_delete"),
];

#[test]
fn commands_that_commit_on_their_way_are_judged_before() {
    let fixture = Fixture::new();
    let (mut admin, mut dev) = (fixture.admin(), fixture.dev());
    fixture.create_objects();
    run(&mut admin, "ALTER ROLE dev CREATEDB; SELECT auth.protect_schema()");
    // What the indexes and tables are stored in, which each of the commands changes.
    let state =
        "SELECT string_agg(concat_ws(' ', relname, relfilenode, relpages), ',' ORDER BY oid)
                     || (SELECT count(*) FROM pg_inherits)
                 FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    for (sql, needed) in OUTSIDE {
        let before = answer(&mut admin, state);
        let (table, action) = needed.split_once(':').unwrap();
        let others = SCHEMA.into_iter().filter(|other| *other != action);
        let others = others.collect::<Vec<_>>().join(",");
        for granted in [format!("{table}:{others}"), format!("\"Comments\":{action}")] {
            fixture.grant(&mut dev, &[&granted]);
            assert_eq!(
                sqlstate(dev.batch_execute(sql)),
                Code::Forbidden.sqlstate(),
                "{sql} with {granted}"
            );
        }
        assert_eq!(answer(&mut admin, state), before, "{sql}");
        fixture.grant(&mut dev, &[needed]);
        assert_eq!(sqlstate(dev.batch_execute(sql)), SUCCESS, "{sql} with {needed}");
    }
    // Temporary tables, statistics and superusers are exempt; so are all without protection.
    assert_eq!(
        present(&mut dev, ""),
        SUCCESS,
        "temporary tables, statistics and superusers are exempt"
    );
    run(&mut dev, "CREATE TEMP TABLE t (id int PRIMARY KEY)");
    for harmless in [
        "REINDEX TABLE t",
        "REINDEX TABLE CONCURRENTLY t",
        "REINDEX INDEX t_pkey",
        "CLUSTER t USING t_pkey",
        "TRUNCATE t",
        "VACUUM t",
        "ANALYZE comments",
        "EXPLAIN CREATE TABLE fresh AS TABLE comments",
        "EXPLAIN (ANALYZE, ANALYZE false) CREATE TABLE fresh AS TABLE comments",
        "EXPLAIN ANALYZE CREATE TEMP TABLE u AS TABLE comments",
        "EXPLAIN ANALYZE SELECT * INTO pg_temp.v FROM comments",
    ] {
        assert_eq!(sqlstate(dev.batch_execute(harmless)), SUCCESS, "{harmless}");
    }
    run(&mut admin, "REINDEX TABLE CONCURRENTLY comments; ");
    // A table that is not there may be one in a moment.
    assert_eq!(
        sqlstate(dev.batch_execute("TRUNCATE absent")),
        Code::Forbidden.sqlstate(),
        "a table that is not there may be one in a moment"
    );
    run(&mut admin, "SELECT auth.unprotect_schema()");
    run(&mut dev, "REINDEX TABLE CONCURRENTLY comments");
    run(&mut dev, "TRUNCATE comments");
}

/// From 17 on, REINDEX fires event triggers. The first one loads the library, and judges the command.
#[test]
fn reindex_is_judged_where_it_loads_the_library() {
    if is_older_than(17, "event triggers for REINDEX") {
        return;
    }
    let fixture = Fixture::preloaded(Preload::Neither);
    fixture.create_objects();
    let mut admin = fixture.admin();
    run(&mut admin, "SELECT auth.protect_schema()");
    let state = "SELECT string_agg(concat_ws(' ', relname, relfilenode), ',' ORDER BY oid)
                 FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    for (sql, needed) in OUTSIDE.iter().filter(|(sql, _)| sql.starts_with("REINDEX")) {
        let before = answer(&mut admin, state);
        let dev = fixture.cluster.as_role("dev");
        let outcome = sqlstate(dev.clone().client().batch_execute(sql));
        assert_eq!(outcome, Code::Forbidden.sqlstate(), "{sql} without a token");
        let (_, action) = needed.split_once(':').unwrap();
        for (granted, expected) in [
            (format!("\"Comments\":{action}"), Code::Forbidden.sqlstate()),
            ((*needed).to_owned(), SUCCESS),
        ] {
            assert_eq!(answer(&mut admin, state), before, "{sql} with less than {granted}");
            let token = fixture.signed(&perm(&[&granted]));
            let mut client = dev.clone().option("pg_session_jwt.jwt", &token).client();
            assert_eq!(sqlstate(client.batch_execute(sql)), expected, "{sql} with {granted}");
        }
    }
}

/// What `schema_add` on a table and nothing else allows must not open the table.
#[test]
fn adding_to_a_table_does_not_open_it() {
    let fixture = Fixture::new();
    let (mut admin, mut dev) = (fixture.admin(), fixture.dev());
    run(&mut dev, "SELECT auth.protect('comments'); ALTER TABLE comments FORCE ROW LEVEL SECURITY");
    run(&mut admin, "SELECT auth.protect_schema()");
    fixture.grant(&mut dev, &["comments:schema_add,schema_delete"]);
    for sql in [
        "CREATE POLICY open ON comments USING (true)",
        "ALTER POLICY pg_session_jwt_data_read ON comments USING (true)",
        "DROP POLICY pg_session_jwt_data_read ON comments",
        "CREATE RULE r AS ON UPDATE TO comments DO ALSO SELECT 1",
        "BEGIN; CREATE TABLE t (); CREATE POLICY open ON comments USING (true); COMMIT",
    ] {
        assert_eq!(sqlstate(dev.batch_execute(sql)), Code::Forbidden.sqlstate(), "{sql}");
        run(&mut dev, "ROLLBACK");
        assert_eq!(answer(&mut dev, "SELECT count(*) FROM comments"), "0", "{sql}");
    }
    // Nor is a table new for a transaction whose snapshot is older than it.
    run(&mut dev, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    run(
        &mut admin,
        "SET ROLE dev; SELECT 1; RESET ROLE; CREATE TABLE late (); ALTER TABLE late OWNER TO dev",
    );
    fixture.grant(&mut dev, &["late:schema_add"]);
    let trigger = "CREATE TRIGGER t BEFORE UPDATE ON late FOR EACH ROW
                   EXECUTE FUNCTION suppress_redundant_updates_trigger()";
    assert_eq!(
        sqlstate(dev.batch_execute(trigger)),
        Code::Forbidden.sqlstate(),
        "sqlstate(dev.batch_execute(trigger))"
    );
    run(&mut dev, "ROLLBACK");
}

#[test]
fn every_command_tag_is_decided() {
    let header = harness::pg_config("--includedir-server").join("tcop/cmdtaglist.h");
    let header = std::fs::read_to_string(&header).expect("Postgres' list of command tags");
    let tags: Vec<&str> = header
        .lines()
        .filter(|line| line.starts_with("PG_CMDTAG("))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    assert!(tags.len() > 150, "{}", tags.len());
    let statements = COMMANDS.iter().chain(ON_TABLES).map(|(sql, _)| *sql);
    let statements = statements.chain(WHOLE.iter().chain(OUTSIDE).map(|(sql, _)| *sql));
    let statements: Vec<&str> = statements.collect();
    let untried: Vec<&str> = UNTRIED.iter().flat_map(|(_, tags)| *tags).copied().collect();
    for tag in tags {
        // Statements whose tag is not what they begin with.
        let begins = match tag {
            "CREATE TABLE AS" => "CREATE TABLE fresh AS",
            "SELECT INTO" => "SELECT * INTO",
            "TRUNCATE TABLE" => "TRUNCATE",
            tag => tag,
        };
        let is_tried = statements.iter().any(|sql| {
            sql.strip_prefix(begins).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
        });
        assert!(is_tried || untried.contains(&tag), "{tag} is not decided");
    }

    let fixture = Fixture::new();
    fixture.create_objects();
    let (mut admin, mut dev) = (fixture.admin(), fixture.dev());
    run(&mut dev, OF_EVERY_KIND);
    run(&mut admin, "SELECT auth.protect_schema()");
    let whole = WHOLE.iter().map(|(sql, action)| (*sql, vec![format!("all:{action}")]));
    let on_tables = ON_TABLES.iter().map(|(sql, needed)| {
        (*sql, needed.iter().map(|needed| (*needed).to_owned()).collect::<Vec<_>>())
    });
    for (sql, needed) in whole.chain(on_tables) {
        let needed: Vec<&str> = needed.iter().map(String::as_str).collect();
        fixture.grant(&mut dev, &needed);
        assert_eq!(attempt(&mut dev, sql), SUCCESS, "{sql} with {needed:?}");
        let (table, action) = needed[0].rsplit_once(':').unwrap();
        let others = SCHEMA.into_iter().filter(|other| *other != action);
        let less = format!("{table}:{}", others.collect::<Vec<_>>().join(","));
        fixture.grant(&mut dev, &[&less]);
        assert_eq!(attempt(&mut dev, sql), Code::Forbidden.sqlstate(), "{sql} with {less}");
    }
}
