//! Databases that have objects of the extension's names already, and dumps of databases that have the
//! extension.

use std::process::Output;

use harness::{
    Cluster, DUPLICATE_FUNCTION, DUPLICATE_OBJECT, DUPLICATE_TABLE, FEATURE_NOT_SUPPORTED,
    INSUFFICIENT_PRIVILEGE, Preload, SUCCESS, contents, present, run, sqlstate, text, user,
};
use mint::{Algorithm, Key};
use postgres::error::DbError;
use serde_json::json;

const CREATE: &str = "CREATE EXTENSION pg_session_jwt";

/// The error of creating the extension in a new database in which this has been run.
fn refusal(cluster: &Cluster, preparation: &str) -> Box<DbError> {
    let mut admin = cluster.admin();
    run(&mut admin, "DROP DATABASE IF EXISTS existing");
    run(&mut admin, "CREATE DATABASE existing");
    let mut client = cluster.as_role("postgres").database("existing").client();
    run(&mut client, preparation);
    let error = client.batch_execute(CREATE).expect_err(preparation);
    Box::new(error.as_db_error().expect("the server's error").clone())
}

#[test]
fn existing_objects_are_named() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    for (preparation, code, names) in [
        (
            "CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid';
             CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql AS 'SELECT NULL'",
            DUPLICATE_FUNCTION,
            "function auth.role(), function auth.uid()",
        ),
        // With other arguments it could be called in place of the extension's.
        (
            "CREATE FUNCTION auth.jwt_session_init(text) RETURNS void LANGUAGE sql AS ''",
            DUPLICATE_FUNCTION,
            "function auth.jwt_session_init(pg_catalog.text)",
        ),
        (
            "CREATE PROCEDURE auth.init() LANGUAGE sql AS ''",
            DUPLICATE_FUNCTION,
            "procedure auth.init()",
        ),
        ("CREATE TABLE auth.providers (name text)", DUPLICATE_TABLE, "table auth.providers"),
        (
            "CREATE VIEW auth.provider_status AS SELECT 1",
            DUPLICATE_TABLE,
            "view auth.provider_status",
        ),
        (
            "CREATE SEQUENCE auth.providers_pkey; CREATE TYPE auth.provider_status AS (x int)",
            DUPLICATE_TABLE,
            "composite type auth.provider_status, sequence auth.providers_pkey",
        ),
        ("CREATE TYPE auth.providers AS ENUM ('x')", DUPLICATE_OBJECT, "type auth.providers"),
        ("CREATE DOMAIN auth.providers AS text", DUPLICATE_OBJECT, "type auth.providers"),
    ] {
        let error = refusal(&cluster, &format!("CREATE SCHEMA auth; {preparation}"));
        assert_eq!(error.code().code(), code, "{preparation}: {error:?}");
        assert_eq!(error.detail(), Some(format!("They are: {names}.").as_str()), "{preparation}");
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains("rename") && hint.contains("docs/migration.md"), "{hint}");
    }
    // The names are what matters, whoever owns them.
    let foreign = "CREATE ROLE stranger; CREATE SCHEMA auth AUTHORIZATION stranger;
                   SET ROLE stranger; CREATE FUNCTION auth.uid() RETURNS int LANGUAGE sql AS 'SELECT 1';
                   RESET ROLE";
    assert_eq!(
        refusal(&cluster, foreign).code().code(),
        DUPLICATE_FUNCTION,
        "the names are what matters, whoever owns them"
    );
    // The way out that the page describes, and none that it does not.
    let mut client = cluster.as_role("postgres").database("existing").client();
    assert_eq!(
        sqlstate(client.batch_execute(&format!("{CREATE} SCHEMA public"))),
        FEATURE_NOT_SUPPORTED,
        "the way out that the page describes, and none that it does not"
    );
    run(&mut client, "ALTER FUNCTION auth.uid() RENAME TO old_uid");
    assert_eq!(
        sqlstate(client.batch_execute(CREATE)),
        INSUFFICIENT_PRIVILEGE,
        "after ALTER FUNCTION auth.uid() RENAME TO old_uid"
    );
    run(&mut client, "ALTER SCHEMA auth RENAME TO old_auth");
    run(&mut client, CREATE);
    // Other objects may stay.
    run(&mut client, "DROP EXTENSION pg_session_jwt");
    run(&mut client, "CREATE SCHEMA IF NOT EXISTS auth; CREATE TABLE auth.users (id uuid)");
    run(&mut client, CREATE);
}

/// The lists of names in the install script are those of what it creates.
#[test]
fn the_names_are_those_of_the_members() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let script = include_str!("../../sql/pg_session_jwt--1.0.0.sql");
    let mut admin = cluster.admin();
    for (list, catalog, name) in
        [("functions", "pg_proc", "proname"), ("relations", "pg_class", "relname")]
    {
        let members = format!(
            "SELECT string_agg(DISTINCT c.{name}, ', ' ORDER BY c.{name}) FROM {catalog} c
             WHERE EXISTS (
                 SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                 WHERE e.extname = 'pg_session_jwt' AND d.deptype = 'e'
                   AND d.refclassid = 'pg_extension'::regclass
                   AND (d.classid = '{catalog}'::regclass AND d.objid IN (c.oid,
                            (SELECT i.indrelid FROM pg_index i
                             WHERE '{catalog}' = 'pg_class' AND i.indexrelid = c.oid))
                        -- Of a composite type, the type is the member.
                        OR '{catalog}' = 'pg_class' AND d.classid = 'pg_type'::regclass
                           AND d.objid = (SELECT t.oid FROM pg_type t
                                          JOIN pg_class r ON r.oid = t.typrelid
                                          WHERE r.relkind = 'c' AND t.typrelid = c.oid)))
               AND c.{}namespace = 'auth'::regnamespace",
            name.trim_end_matches("name"),
        );
        let members = text(&mut admin, &members).expect("members");
        let (_, rest) = script
            .split_once(&format!("{list} CONSTANT pg_catalog.name[] := '{{"))
            .expect("a list");
        let names: Vec<&str> =
            rest.split('}').next().unwrap_or_default().split(',').map(str::trim).collect();
        assert_eq!(members, names.join(", "), "{list}");
    }
}

fn dump(cluster: &Cluster, user: &str, arguments: &[&str]) -> Output {
    let mut command = cluster.program("pg_dump");
    command.args(["-h", "127.0.0.1", "-p", &cluster.port().to_string(), "-U", user]);
    command.args(arguments).output().unwrap()
}

#[test]
fn a_dump_is_silent_and_complete() {
    let key = Key::generate(Algorithm::ES256);
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    let add = "SELECT auth.add_provider('p', issuer => 'p', jwks => $1::text::json)";
    admin.execute(add, &[&key.public_jwk().to_string()]).unwrap();
    run(
        &mut admin,
        "CREATE ROLE keeper; CREATE TABLE todos (owner text DEFAULT auth.user_id(), task text);
         INSERT INTO todos VALUES ('alice', 'a'), ('bob', 'b');
         GRANT SELECT, INSERT, UPDATE, DELETE ON todos TO app;
         ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON todos USING (owner = auth.user_id());
         CREATE TABLE notes (id int); SELECT auth.protect('notes', restrictive => true);
         SELECT auth.protect_schema();
         GRANT SELECT ON auth.providers, auth.provider_status TO keeper;
         GRANT UPDATE (last_error) ON auth.providers TO keeper;
         GRANT EXECUTE ON FUNCTION auth.provider_keys(text) TO keeper;
         REVOKE EXECUTE ON FUNCTION auth.jwt_verify(text) FROM PUBLIC;
         CREATE TRIGGER audit BEFORE UPDATE ON todos FOR EACH ROW
             EXECUTE FUNCTION suppress_redundant_updates_trigger();",
    );
    // The row type is no more open than the table.
    let mut app = cluster.as_role("app").client();
    run(&mut admin, "GRANT CREATE ON SCHEMA public TO app");
    let use_type = "CREATE TABLE taken (p auth.providers)";
    assert_eq!(
        sqlstate(app.batch_execute(use_type)),
        INSUFFICIENT_PRIVILEGE,
        "after GRANT CREATE ON SCHEMA public TO app"
    );
    run(&mut admin, "REVOKE CREATE ON SCHEMA public FROM app");

    let before = contents(&mut admin);
    let file = "dump.sql";
    for arguments in [&["-f", file, "postgres"][..], &["--schema-only", "postgres"]] {
        let output = dump(&cluster, "postgres", arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && errors.is_empty(), "{arguments:?}: {errors}");
    }
    run(&mut admin, "CREATE DATABASE restored");
    let mut psql = cluster.program("psql");
    psql.args(["-X", "-q", "-h", "127.0.0.1", "-p", &cluster.port().to_string()]);
    psql.args(["-U", "postgres", "-d", "restored", "-v", "ON_ERROR_STOP=1", "-f", file]);
    let output = psql.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    let mut restored = cluster.as_role("postgres").database("restored").client();
    for (before, after) in before.iter().zip(contents(&mut restored)) {
        assert_eq!(*before, after, "{before:?}, {after:?}: after CREATE DATABASE restored");
    }
    let mut client = cluster.as_role("app").database("restored").client();
    let claims = json!({"iss": "p", "sub": "bob", "exp": harness::now() + 600});
    assert_eq!(present(&mut client, &key.sign(&claims)), SUCCESS, "after CREATE DATABASE restored");
    assert_eq!(user(&mut client).as_deref(), Some("bob"), "after CREATE DATABASE restored");
    assert_eq!(
        text(&mut client, "SELECT string_agg(task, ',') FROM todos").as_deref(),
        Some("b"),
        "after CREATE DATABASE restored"
    );

    // A database that does not belong to a superuser, by its owner.
    run(&mut admin, "CREATE ROLE landlord LOGIN");
    run(&mut admin, "CREATE DATABASE let OWNER landlord");
    run(&mut cluster.as_role("landlord").database("let").client(), CREATE);
    let output = dump(&cluster, "landlord", &["let"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
}
