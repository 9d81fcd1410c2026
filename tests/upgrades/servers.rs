//! Upgrades to another major version of Postgres, which `make test-matrix` provides the older server for.

use harness::{
    Cluster, Code, INSUFFICIENT_PRIVILEGE, Installation, Preload, SUCCESS, contents, key,
    note_skipped, present, run, sqlstate, text, token_of, user,
};
use mint::Key;
use postgres::Client;

use crate::catalog::{assert_same, differences};

/// Roles that a dump of a database does not contain.
const ROLES: &str =
    "CREATE ROLE app LOGIN; CREATE ROLE keeper; CREATE ROLE editor; GRANT editor TO app";

/// A database with all that the extension knows: providers, policies, permissions, event triggers, and
/// privileges on the extension's objects that differ from the initial ones.
fn prepare(cluster: &Cluster, key: &Key) {
    let mut admin = cluster.admin();
    run(&mut admin, ROLES);
    run(&mut admin, "CREATE SCHEMA auth; GRANT USAGE ON SCHEMA auth TO app");
    run(&mut admin, "CREATE EXTENSION pg_session_jwt");
    let add = "SELECT auth.add_provider('p', issuer => 'p', jwks => $1::text::json,
                                        role_claim => 'role', allowed_roles => '{editor}')";
    admin.execute(add, &[&key.public_jwk().to_string()]).unwrap();
    run(
        &mut admin,
        "CREATE TABLE todos (owner text DEFAULT auth.user_id(), task text);
         INSERT INTO todos VALUES ('alice', 'a'), ('bob', 'b');
         GRANT SELECT, INSERT, UPDATE, DELETE ON todos TO editor;
         ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON todos USING (owner = auth.user_id());
         CREATE TABLE notes (id int);
         SELECT auth.protect('notes', restrictive => true);
         GRANT SELECT ON notes TO editor;
         GRANT CREATE ON SCHEMA public TO editor;
         CREATE VIEW mine AS SELECT task, auth.claim('name') AS name FROM todos;
         SELECT auth.protect_schema();
         REVOKE USAGE ON SCHEMA auth FROM PUBLIC;
         GRANT USAGE ON SCHEMA auth TO editor;
         GRANT SELECT ON auth.providers, auth.provider_status TO keeper;
         GRANT UPDATE (last_error) ON auth.providers TO keeper;
         GRANT EXECUTE ON FUNCTION auth.provider_keys(text) TO keeper;
         REVOKE EXECUTE ON FUNCTION auth.jwt_verify(text) FROM PUBLIC",
    );
}

/// What a client gets in this database.
fn check(cluster: &Cluster, database: &str, key: &Key, label: &str) {
    let mut client = cluster.as_role("app").database(database).client();
    let claims = serde_json::json!({
        "iss": "p", "sub": "bob", "role": "editor", "exp": harness::now() + 600
    });
    assert_eq!(present(&mut client, &key.sign(&claims)), SUCCESS, "{label}");
    assert_eq!(user(&mut client).as_deref(), Some("bob"), "{label}");
    assert_eq!(
        text(&mut client, "SELECT current_user::text").as_deref(),
        Some("editor"),
        "{label}"
    );
    let tasks = "SELECT string_agg(task, ',') FROM todos";
    assert_eq!(text(&mut client, tasks).as_deref(), Some("b"), "{label}: the policy");
    for (statement, code) in [
        ("CREATE TABLE public.x ()", Code::Forbidden.sqlstate()),
        ("SELECT auth.jwt_verify('x')", INSUFFICIENT_PRIVILEGE),
        ("TABLE auth.providers", INSUFFICIENT_PRIVILEGE),
    ] {
        assert_eq!(sqlstate(client.batch_execute(statement)), code, "{label}: {statement}");
    }
    let wrong = token_of(&harness::key("k1"), "p", "bob");
    assert_eq!(present(&mut client, &wrong), Code::Signature.sqlstate(), "{label}");
}

/// The contents of a database in lines. Since 17, an owner has the privilege `MAINTAIN` (m) too.
fn lines(client: &mut Client) -> Vec<String> {
    let contents = contents(client).join("\n").replace("arwdDxtm/", "arwdDxt/");
    contents.lines().map(str::to_owned).collect()
}

/// An older server that the tested one can upgrade. Where there is none, it says so.
fn older() -> Option<Cluster> {
    let installations = Installation::older();
    let installation = installations.iter().find(|older| older.can_be_upgraded());
    if installation.is_none() && !installations.is_empty() {
        note_skipped("this release cannot upgrade the older servers, which have pg_attver");
    }
    installation.map(start)
}

fn start(installation: &Installation) -> Cluster {
    let cluster = Cluster::initialize(installation, Preload::Shared, &[], &["--data-checksums"]);
    cluster.start_server();
    cluster
}

#[test]
fn pg_upgrade_keeps_everything() {
    let Some(older) = older() else {
        return;
    };
    let key = key("k1");
    prepare(&older, &key);
    check(&older, "postgres", &key, "before");
    let before = lines(&mut older.admin());
    let newer =
        Cluster::initialize(&Installation::tested(), Preload::Shared, &[], &["--data-checksums"]);
    newer.upgrade_from(&older);
    let mut admin = newer.admin();
    // pg_upgrade does not keep the privileges on the row type of a table. The page has this statement.
    let lost = [
        "- providers{postgres=U/postgres}",
        "- revocations{postgres=U/postgres}",
        "+ providers{}",
        "+ revocations{}",
    ];
    assert_eq!(differences(&before, &lines(&mut admin)), lost, "after pg_upgrade");
    let statement = "REVOKE ALL ON TYPE auth.providers, auth.revocations FROM PUBLIC";
    assert!(include_str!("../../docs/upgrading.md").contains(statement), "the page");
    run(&mut admin, statement);
    assert_same(&before, &lines(&mut admin), "after pg_upgrade");
    check(&newer, "postgres", &key, "after pg_upgrade");
    // The extension is the same version, so that nothing is left to update.
    run(&mut admin, "ALTER EXTENSION pg_session_jwt UPDATE; DROP EXTENSION pg_session_jwt CASCADE");
}

/// The older server has Neon's functions, and the newer one our library.
#[test]
fn pg_upgrade_and_an_update_from_neon() {
    let Some(older) = older() else {
        return;
    };
    older.install("pg_session_jwt--0.5.0.control", "schema = 'public'\n");
    older.install("pg_session_jwt--0.5.0.sql", &crate::neon::install_script("0.5.0"));
    run(
        &mut older.admin(),
        "CREATE ROLE authenticated LOGIN; CREATE EXTENSION pg_session_jwt VERSION '0.5.0'",
    );
    run(&mut older.admin(), crate::neon::APPLICATION);
    let newer =
        Cluster::initialize(&Installation::tested(), Preload::Shared, &[], &["--data-checksums"]);
    newer.upgrade_from(&older);
    let mut client = newer.as_role("authenticated").client();
    let count = "SELECT count(*)::text FROM todos";
    assert_eq!(sqlstate(client.batch_execute(count)), Code::Prerequisite.sqlstate(), "before");
    run(&mut newer.admin(), "ALTER EXTENSION pg_session_jwt UPDATE");
    assert_eq!(text(&mut client, count).as_deref(), Some("0"), "after the update");
}

/// With `pg_dump` of the older server, and with that of the newer one where Postgres can restore its dump.
#[test]
fn a_dump_is_restored_in_a_newer_server() {
    let key = key("k1");
    for installation in Installation::older() {
        let older = start(&installation);
        prepare(&older, &key);
        let newer = Cluster::start_bare(Preload::Shared, &[]);
        run(&mut newer.admin(), ROLES);
        let mut programs = vec![("older", older.program("pg_dump"))];
        if installation.can_be_upgraded() {
            programs.push(("newer", newer.program("pg_dump")));
        }
        for (label, mut dump) in programs {
            let label = format!("after the dump by the {label} pg_dump");
            let port = older.port().to_string();
            dump.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "postgres"]);
            let output = dump.output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && errors.is_empty(), "{label}: {errors}");
            run(&mut newer.admin(), "DROP DATABASE IF EXISTS restored");
            run(&mut newer.admin(), "CREATE DATABASE restored");
            let dump = String::from_utf8(output.stdout).unwrap();
            newer
                .psql_in("restored", &[], &dump)
                .unwrap_or_else(|errors| panic!("{label}: {errors}"));
            let mut restored = newer.as_role("postgres").database("restored").client();
            assert_same(&lines(&mut older.admin()), &lines(&mut restored), &label);
            drop(restored);
            check(&newer, "restored", &key, &label);
        }
    }
}

/// The same within one server, which every machine has.
#[test]
fn a_dump_keeps_privileges_on_the_schema() {
    let key = key("k1");
    let cluster = Cluster::start_bare(Preload::Shared, &[]);
    prepare(&cluster, &key);
    let mut dump = cluster.program("pg_dump");
    dump.args(["-h", "127.0.0.1", "-p", &cluster.port().to_string(), "-U", "postgres", "postgres"]);
    let dump = String::from_utf8(dump.output().unwrap().stdout).unwrap();
    run(&mut cluster.admin(), "CREATE DATABASE restored");
    cluster.psql_in("restored", &[], &dump).unwrap_or_else(|errors| panic!("{errors}"));
    let mut restored = cluster.as_role("postgres").database("restored").client();
    assert_same(&lines(&mut cluster.admin()), &lines(&mut restored), "after the dump");
    check(&cluster, "restored", &key, "after the dump");
    // A role with privileges from before the extension can be dropped.
    run(&mut restored, "CREATE DATABASE other");
    let mut other = cluster.as_role("postgres").database("other").client();
    run(
        &mut other,
        "CREATE ROLE temporary; CREATE SCHEMA auth; GRANT USAGE ON SCHEMA auth TO temporary;
         CREATE EXTENSION pg_session_jwt; REVOKE USAGE ON SCHEMA auth FROM temporary; DROP ROLE temporary",
    );
}
