//! Updates from Neon's extension of the same name. A library of the tests stands in for Neon's, and scripts
//! of the tests declare the functions that each of its versions has.

use std::process::Command;

use harness::{
    Cluster, Code, DUPLICATE_FUNCTION, DUPLICATE_OBJECT, DUPLICATE_TABLE, FEATURE_NOT_SUPPORTED,
    INSUFFICIENT_PRIVILEGE, OBJECT_NOT_IN_PREREQUISITE_STATE, Preload, SUCCESS, UNDEFINED_FUNCTION,
    db_error, jwks, key, pg_config, present, run, sqlstate, text, token_of, user,
};
use mint::Key;
use postgres::Client;

use crate::catalog::{assert_same, catalog};

/// The versions that had other functions, or other names, than the one before.
const VERSIONS: [&str; 9] =
    ["0.0.1", "0.1.0", "0.1.1", "0.1.2", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "0.5.0"];

/// What the versions create: a function, its result and symbol, and the places in `VERSIONS` of the first and
/// of the last version that creates it so.
const FUNCTIONS: &[(&str, &str, &str, usize, usize)] = &[
    ("init(kid bigint, s jsonb)", "void STRICT", "init_wrapper", 0, 0),
    ("jwt_session_init(s text)", "void STRICT", "jwt_session_init_wrapper", 0, 0),
    ("session(s text)", "jsonb STRICT", "session_wrapper", 0, 0),
    ("user_id()", "text STRICT", "user_id_wrapper", 0, 1),
    ("init()", "void STRICT", "init_wrapper", 1, 8),
    ("jwt_session_init(jwt text)", "void STRICT", "jwt_session_init_wrapper", 1, 8),
    ("session()", "jsonb STRICT", "session_wrapper", 1, 1),
    ("session()", "jsonb STRICT STABLE PARALLEL SAFE", "session_wrapper", 2, 8),
    ("user_id()", "text STRICT STABLE PARALLEL SAFE", "user_id_wrapper", 2, 8),
    ("uid()", "uuid STRICT STABLE PARALLEL SAFE", "uid_wrapper", 7, 8),
    ("jwt()", "jsonb STRICT STABLE PARALLEL SAFE", "jwt_wrapper", 7, 8),
    ("organization()", "jsonb STRICT STABLE PARALLEL SAFE", "organization_wrapper", 8, 8),
    ("organization_id()", "uuid STRICT STABLE PARALLEL SAFE", "organization_id_wrapper", 8, 8),
];

/// The user of the stand-in's claims.
const USER: &str = "00000000-0000-0000-0000-00000000000a";

/// The objects of an application that uses the functions of 0.5.0.
pub const APPLICATION: &str = "
    GRANT USAGE ON SCHEMA auth TO authenticated;
    GRANT EXECUTE ON FUNCTION auth.user_id() TO authenticated;
    CREATE TABLE todos (
        owner text NOT NULL DEFAULT auth.user_id(),
        id    uuid DEFAULT auth.uid(),
        org   uuid DEFAULT auth.organization_id(),
        task  text
    );
    ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON todos USING (owner = auth.user_id() AND (auth.session() ->> 'sub') = owner)
        WITH CHECK (id = auth.uid());
    CREATE POLICY organization ON todos AS RESTRICTIVE FOR DELETE
        USING (org = auth.organization_id() AND auth.organization() IS NOT NULL);
    GRANT SELECT, INSERT, UPDATE, DELETE ON todos TO authenticated;
    CREATE VIEW mine AS SELECT task, auth.jwt() AS claims FROM todos WHERE owner = auth.user_id();
    CREATE VIEW login AS SELECT auth.jwt_session_init('')::text AS done, auth.init()::text AS loaded;
    CREATE FUNCTION me() RETURNS text LANGUAGE sql STABLE RETURN auth.user_id();
    GRANT SELECT ON mine, login TO authenticated";

/// The same for version 0.0.1.
const FIRST_APPLICATION: &str = "
    CREATE TABLE todos (owner text NOT NULL DEFAULT auth.user_id(), task text);
    ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON todos USING (owner = auth.user_id() AND (auth.session('sub') #>> '{}') = owner);
    GRANT SELECT ON todos TO authenticated;
    CREATE VIEW login AS SELECT auth.jwt_session_init('')::text AS done";

/// The script of the tests that creates what this version has.
pub fn install_script(version: &str) -> String {
    let version = VERSIONS.iter().position(|known| *known == version).expect("a version");
    let functions =
        FUNCTIONS.iter().filter(|function| (function.3..=function.4).contains(&version));
    functions.fold("CREATE SCHEMA IF NOT EXISTS auth;\n".to_owned(), |script, function| {
        let (declaration, result, symbol, ..) = function;
        script
            + &format!(
                "CREATE FUNCTION auth.{declaration} RETURNS {result} LANGUAGE c AS 'MODULE_PATHNAME', '{symbol}';\n"
            )
    })
}

/// A cluster in which Neon's extension is installed, with a database for each of its versions.
struct Fixture {
    cluster: Cluster,
    /// What is installed in place of ours.
    library: Vec<u8>,
    control: String,
    key: Key,
}

impl Fixture {
    fn start() -> Self {
        let key = key("k1");
        let providers = format!(r#"{{"issuer": "i", "jwks": {}}}"#, jwks(&[&key]));
        // Before it is replaced, the library of the session is Neon's, which has no such setting.
        let settings = [("pg_session_jwt.providers", providers.as_str())];
        let cluster = Cluster::start_bare(Preload::Neither, &settings);
        let fixture = Self {
            library: std::fs::read(cluster.library()).unwrap(),
            control: cluster.installed("pg_session_jwt.control"),
            cluster,
            key,
        };
        fixture.cluster.replace_library(&stand_in());
        let control = "default_version = '0.5.0'\nmodule_pathname = '$libdir/pg_session_jwt'\n\
                       relocatable = false\nsuperuser = true\ntrusted = true\n\
                       comment = 'sessions with tokens'\n";
        fixture.cluster.install("pg_session_jwt.control", control);
        for version in VERSIONS {
            let name = format!("pg_session_jwt--{version}.sql");
            fixture.cluster.install(&name, &install_script(version));
        }
        run(
            &mut fixture.cluster.admin(),
            "CREATE ROLE authenticated LOGIN; CREATE ROLE owner LOGIN",
        );
        fixture
    }

    /// Creates a database with this version of Neon's extension, as this role, which owns the database.
    fn database(&self, version: &str, owner: &str) -> Client {
        let name = database_of(version, owner);
        run(&mut self.cluster.admin(), &format!("CREATE DATABASE \"{name}\" OWNER {owner}"));
        let mut client = self.client(owner, &name);
        run(&mut client, &format!("CREATE EXTENSION pg_session_jwt VERSION '{version}'"));
        client
    }

    fn client(&self, user: &str, database: &str) -> Client {
        self.cluster.as_role(user).database(database).client()
    }

    /// Installs our extension in place of Neon's.
    fn replace(&self) {
        self.cluster.replace_library(&self.library);
        self.cluster.install("pg_session_jwt.control", &self.control);
    }
}

fn database_of(version: &str, owner: &str) -> String {
    format!("{owner}-{version}")
}

/// The stand-in for Neon's library, compiled for the tested Postgres.
fn stand_in() -> Vec<u8> {
    let path = std::env::temp_dir().join(format!("neon.{}.so", std::process::id()));
    let compiled = Command::new("gcc")
        .args(["-shared", "-fPIC", "-I"])
        .arg(pg_config("--includedir-server"))
        .arg("-o")
        .arg(&path)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/upgrades/neon.c"))
        .status();
    assert!(compiled.unwrap().success(), "neon.c compiles");
    let library = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    library
}

/// What 0.5.0 declares. Neon's scripts declare some functions as strict in one version and not in another, which
/// means nothing for functions without arguments.
const DECLARATIONS: &str = "
    SELECT string_agg(concat_ws(' ', oid::regprocedure, proargnames, prorettype::regtype, provolatile,
                                proparallel, prosrc), E'\\n' ORDER BY oid::regprocedure::text)
    FROM pg_proc
    WHERE pronamespace = 'auth'::regnamespace
      -- Of 0.0.1, until the next update.
      AND oid::regprocedure::text NOT IN ('auth.init(bigint,jsonb)', 'auth.session(text)')";

/// The functions by their OIDs.
fn functions(client: &mut Client) -> String {
    text(
        client,
        "SELECT string_agg(concat(oid, ' ', oid::regprocedure), ', ' ORDER BY oid) FROM pg_proc
         WHERE oid::regprocedure::text IN (
             'auth.init()', 'auth.jwt_session_init(text)', 'auth.user_id()', 'auth.uid()', 'auth.session()',
             'auth.jwt()', 'auth.organization()', 'auth.organization_id()')",
    )
    .unwrap_or_default()
}

#[test]
fn every_version_becomes_ours_and_what_uses_it_stays() {
    let fixture = Fixture::start();
    let mut databases = Vec::new();
    for owner in ["postgres", "owner"] {
        for version in VERSIONS {
            let mut client = fixture.database(version, owner);
            // The application of 0.5.0 runs where its functions are; the older ones get it after the update.
            let application = match version {
                "0.5.0" => APPLICATION,
                "0.0.1" => FIRST_APPLICATION,
                _ => "",
            };
            if owner == "postgres" {
                run(&mut client, application);
            }
            databases.push((owner, version));
        }
    }
    let insert =
        format!("INSERT INTO todos (task) VALUES ('a'); INSERT INTO todos VALUES ('{USER}x')");
    let mut current = fixture.client("postgres", &database_of("0.5.0", "postgres"));
    run(&mut current, &insert);
    let mut rows = fixture.client("authenticated", &database_of("0.5.0", "postgres"));
    let count = "SELECT count(*)::text FROM todos";
    assert_eq!(text(&mut rows, count).as_deref(), Some("1"), "with Neon's library");
    let before = functions(&mut current);
    drop((rows, current));

    fixture.replace();
    let token = token_of(&fixture.key, "i", USER);
    for (owner, version) in databases {
        let name = database_of(version, owner);
        let label = format!("{version} of {owner}");
        // A superuser may update the extension of another role, with the same outcome.
        let updater = if version < "0.3.0" { "postgres" } else { owner };
        let mut client = fixture.client(updater, &name);
        run(&mut client, "SET client_min_messages = error");
        let with_search_path = text(&mut client, "SHOW search_path");
        if owner == "owner" && version != "0.5.0" {
            run(&mut client, "ALTER EXTENSION pg_session_jwt UPDATE TO '0.5.0'");
            let mut newest = fixture.client("owner", &database_of("0.5.0", "owner"));
            let expected = text(&mut newest, DECLARATIONS);
            assert!(expected.is_some(), "{label}: the functions of 0.5.0");
            assert_eq!(text(&mut client, DECLARATIONS), expected, "{label}: as 0.5.0");
        }
        run(&mut client, "ALTER EXTENSION pg_session_jwt UPDATE");
        assert_eq!(text(&mut client, "SHOW search_path"), with_search_path, "{label}");

        // The same database made anew.
        let fresh = format!("fresh-{name}");
        run(&mut fixture.cluster.admin(), &format!("CREATE DATABASE \"{fresh}\" OWNER {owner}"));
        let mut fresh = fixture.client(owner, &fresh);
        run(&mut fresh, "CREATE EXTENSION pg_session_jwt");
        match (owner, version) {
            ("postgres", "0.5.0") => {
                run(&mut fresh, APPLICATION);
                assert_eq!(functions(&mut client), before, "{label}: the OIDs");
                let mut user = fixture.client("authenticated", &name);
                assert_eq!(text(&mut user, count).as_deref(), Some("0"), "{label}");
                assert_eq!(present(&mut user, &token), SUCCESS, "{label}");
                assert_eq!(text(&mut user, count).as_deref(), Some("1"), "{label}");
                let claims = "SELECT claims ->> 'sub' FROM mine";
                assert_eq!(text(&mut user, claims).as_deref(), Some(USER), "{label}");
                assert_eq!(
                    sqlstate(user.batch_execute("INSERT INTO todos (task) VALUES ('b')")),
                    SUCCESS,
                    "{label}: the defaults"
                );
            }
            ("postgres", "0.0.1") => {
                // The function that the policy uses is the application's now.
                let kept = "CREATE FUNCTION auth.session(s text) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
                                RETURN auth.session() -> s";
                run(&mut fresh, kept);
                run(&mut fresh, FIRST_APPLICATION);
                run(&mut client, &format!("INSERT INTO todos VALUES ('{USER}', 'a'), ('x', 'b')"));
                let mut user = fixture.client("authenticated", &name);
                assert_eq!(present(&mut user, &token), SUCCESS, "{label}");
                assert_eq!(text(&mut user, count).as_deref(), Some("1"), "{label}");
            }
            _ => {}
        }
        assert_same(&catalog(&mut fresh), &catalog(&mut client), &label);
    }
}

/// Between the replacement of the library and the update.
#[test]
fn the_functions_of_neon_fail_until_the_update() {
    let fixture = Fixture::start();
    let mut admin = fixture.database("0.5.0", "postgres");
    let name = database_of("0.5.0", "postgres");
    run(&mut admin, APPLICATION);
    run(&mut admin, &format!("INSERT INTO todos (task) VALUES ('{USER}')"));
    let mut earlier = fixture.client("authenticated", &name);
    let count = "SELECT count(*)::text FROM todos";
    assert_eq!(text(&mut earlier, count).as_deref(), Some("1"), "with Neon's library");
    fixture.replace();
    assert_eq!(text(&mut earlier, count).as_deref(), Some("1"), "a session keeps its library");

    let token = token_of(&fixture.key, "i", USER);
    let mut client = fixture.client("authenticated", &name);
    for call in [
        "auth.init()",
        "auth.jwt_session_init('x')",
        "auth.user_id()",
        "auth.uid()",
        "auth.session()",
        "auth.jwt()",
        "auth.organization()",
        "auth.organization_id()",
    ] {
        let error = db_error(client.batch_execute(&format!("SELECT {call}")));
        assert_eq!(error.code().code(), OBJECT_NOT_IN_PREREQUISITE_STATE, "{call}");
        assert_eq!(error.code().code(), Code::Prerequisite.sqlstate(), "{call}");
        assert!(
            error.hint().unwrap_or_default().contains("ALTER EXTENSION pg_session_jwt UPDATE"),
            "{call}"
        );
    }
    assert_eq!(sqlstate(client.batch_execute(count)), Code::Prerequisite.sqlstate(), "a policy");
    assert_eq!(
        sqlstate(client.batch_execute("SELECT * FROM mine")),
        Code::Prerequisite.sqlstate(),
        "a view"
    );
    assert_eq!(
        sqlstate(client.batch_execute("INSERT INTO todos (task) VALUES ('b')")),
        Code::Prerequisite.sqlstate(),
        "a default"
    );
    // A token in the setting is ours already. The old function ends its identity.
    let set = "SELECT set_config('pg_session_jwt.jwt', $1, false)";
    client.execute(set, &[&token]).unwrap();
    assert_eq!(present(&mut client, &token), Code::Prerequisite.sqlstate(), "present");
    // A session that has loaded Neon's library cannot update the extension.
    let update = "ALTER EXTENSION pg_session_jwt UPDATE";
    assert_eq!(sqlstate(admin.batch_execute(update)), UNDEFINED_FUNCTION, "an earlier session");
    run(&mut fixture.client("postgres", &name), update);
    assert_eq!(user(&mut client), None, "the identity from before");
    // The same session has the new functions.
    assert_eq!(present(&mut client, &token), SUCCESS, "after the update");
    assert_eq!(user(&mut client).as_deref(), Some(USER), "after the update");
}

/// The state of a database with 0.5.0 that another role has prepared for the update, and how the update ends.
const ATTACKS: &[(&str, &str, &str)] = &[
    ("nothing", "", SUCCESS),
    ("a role owns the schema", "ALTER SCHEMA auth OWNER TO attacker", INSUFFICIENT_PRIVILEGE),
    (
        "a role may create in the schema",
        "GRANT CREATE ON SCHEMA auth TO attacker",
        INSUFFICIENT_PRIVILEGE,
    ),
    ("all roles may", "GRANT CREATE ON SCHEMA auth TO PUBLIC", INSUFFICIENT_PRIVILEGE),
    (
        "a function that the update creates",
        "CREATE FUNCTION auth.email() RETURNS text LANGUAGE sql AS 'SELECT NULL'",
        DUPLICATE_FUNCTION,
    ),
    (
        "a function that fits a call better",
        "CREATE FUNCTION auth.jwt_session_init(varchar) RETURNS void LANGUAGE sql AS ''",
        DUPLICATE_FUNCTION,
    ),
    ("a procedure", "CREATE PROCEDURE auth.allows() LANGUAGE sql AS ''", DUPLICATE_FUNCTION),
    (
        "a function of Neon's that is no member",
        "ALTER EXTENSION pg_session_jwt DROP FUNCTION auth.user_id()",
        DUPLICATE_FUNCTION,
    ),
    (
        "another function as a member",
        "CREATE FUNCTION auth.email() RETURNS text LANGUAGE sql AS 'SELECT NULL';
         ALTER EXTENSION pg_session_jwt ADD FUNCTION auth.email()",
        DUPLICATE_FUNCTION,
    ),
    (
        "a member that fits a call better",
        "CREATE FUNCTION auth.jwt_session_init(varchar) RETURNS void LANGUAGE sql AS '';
         ALTER EXTENSION pg_session_jwt ADD FUNCTION auth.jwt_session_init(varchar)",
        DUPLICATE_FUNCTION,
    ),
    ("a table", "CREATE TABLE auth.providers (name text)", DUPLICATE_TABLE),
    (
        "an index",
        "CREATE TABLE auth.x (y int); CREATE INDEX providers_pkey ON auth.x (y)",
        DUPLICATE_TABLE,
    ),
    ("a type", "CREATE TYPE auth.provider_status AS ENUM ('x')", DUPLICATE_OBJECT),
    ("a type that is no relation", "CREATE TYPE auth.texts AS ENUM ('x')", DUPLICATE_OBJECT),
];

#[test]
fn an_update_stops_at_what_other_roles_have_prepared() {
    let fixture = Fixture::start();
    run(&mut fixture.cluster.admin(), "CREATE ROLE attacker");
    fixture.replace();
    for (number, (label, preparation, expected)) in ATTACKS.iter().enumerate() {
        let name = format!("attacked{number}");
        run(&mut fixture.cluster.admin(), &format!("CREATE DATABASE {name}"));
        let mut client = fixture.client("postgres", &name);
        // The install script of 0.5.0 does not run with our control file, but its functions can be declared.
        run(&mut client, "SELECT 1");
        fixture.cluster.install("pg_session_jwt--0.5.0.control", "schema = 'public'\n");
        run(&mut client, "CREATE EXTENSION pg_session_jwt VERSION '0.5.0'");
        run(&mut client, preparation);
        match client.batch_execute("ALTER EXTENSION pg_session_jwt UPDATE") {
            Ok(()) => assert_eq!(*expected, SUCCESS, "{label}"),
            outcome => {
                let error = db_error(outcome);
                assert_eq!(error.code().code(), *expected, "{label}");
                // The script finds the object, before Postgres does.
                let message = if *expected == INSUFFICIENT_PRIVILEGE {
                    "other roles own schema auth"
                } else {
                    "schema auth already contains"
                };
                assert!(error.message().starts_with(message), "{label}: {}", error.message());
            }
        }
        let version = "SELECT extversion FROM pg_extension WHERE extname = 'pg_session_jwt'";
        let stands = if *expected == SUCCESS { "1.0.0" } else { "0.5.0" };
        assert_eq!(text(&mut client, version).as_deref(), Some(stands), "{label}");
    }
}

/// The owner of the extension is no superuser, and the script runs as one.
#[test]
fn the_owner_of_the_extension_gains_nothing_by_an_update() {
    let fixture = Fixture::start();
    let mut owner = fixture.database("0.5.0", "owner");
    let name = database_of("0.5.0", "owner");
    let mut admin = fixture.client("postgres", &name);
    // A superuser's function that the former superuser owns, and replaced.
    run(
        &mut admin,
        "ALTER FUNCTION auth.uid() OWNER TO owner; GRANT CREATE ON SCHEMA auth TO owner;
         REVOKE EXECUTE ON FUNCTION auth.session() FROM PUBLIC",
    );
    run(
        &mut owner,
        "CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER
             SET search_path = public AS 'BEGIN RAISE ''code of owner''; END';
         CREATE FUNCTION public.mine() RETURNS text LANGUAGE sql SECURITY DEFINER
             AS 'SELECT current_user::text';
         ALTER EXTENSION pg_session_jwt ADD FUNCTION public.mine();
         -- Operators and functions that fit better than those of pg_catalog.
         CREATE FUNCTION public.equal(oid, regclass) RETURNS boolean LANGUAGE plpgsql
             AS 'BEGIN RAISE ''code of owner''; END';
         CREATE OPERATOR public.= (FUNCTION = public.equal, LEFTARG = oid, RIGHTARG = regclass);
         CREATE FUNCTION public.concat_ws(text, text, regprocedure) RETURNS text LANGUAGE plpgsql
             AS 'BEGIN RAISE ''code of owner''; END';
         CREATE TYPE public.regclass AS ENUM ();
         CREATE TEMPORARY TABLE pg_extension (oid oid, extname name);
         CREATE TEMPORARY TABLE pg_depend (objid oid)",
    );
    fixture.replace();
    let mut owner = fixture.client("owner", &name);
    run(
        &mut owner,
        "SET search_path = public; SET standard_conforming_strings = off; SET array_nulls = off;
         SET transform_null_equals = on; SET client_min_messages = error;
         CREATE TEMPORARY TABLE pg_extension (oid oid, extname name);
         ALTER EXTENSION pg_session_jwt UPDATE",
    );
    let owned = "SELECT string_agg(p.oid::regprocedure::text, ', ') FROM pg_proc p
                 WHERE proowner = 'owner'::regrole AND pronamespace = 'auth'::regnamespace";
    assert_eq!(text(&mut admin, owned), None, "the functions of the extension");
    assert_eq!(
        text(&mut owner, "SELECT public.mine()").as_deref(),
        Some("owner"),
        "its own function"
    );
    let uid = "SELECT concat(prosecdef, proconfig, probin) FROM pg_proc WHERE oid = 'auth.uid()'::regprocedure";
    assert_eq!(text(&mut admin, uid).as_deref(), Some("f$libdir/pg_session_jwt"), "auth.uid()");
    let captured = "SELECT string_agg(pg_describe_object(classid, objid, objsubid), ', ') FROM pg_depend
                    WHERE refobjid IN ('public.equal'::regproc, 'public.=(oid, regclass)'::regoperator,
                                       'public.regclass'::regtype)
                      AND classid NOT IN ('pg_operator'::regclass, 'pg_type'::regclass)";
    assert_eq!(text(&mut admin, captured), None, "operators and types of the owner");
    let session = "SELECT has_function_privilege('public', 'auth.session()', 'EXECUTE')::text";
    assert_eq!(text(&mut admin, session).as_deref(), Some("false"), "a revoked privilege");
    let log = fixture.cluster.log();
    let warning = "WARNING:  functions of the extension are not executable by PUBLIC";
    assert!(log.contains(warning) && log.contains("privileges: auth.session()."), "{log}");
    // As after CREATE EXTENSION, the owner reads the table for a dump, and changes nothing.
    assert_eq!(sqlstate(owner.batch_execute("TABLE auth.providers")), SUCCESS, "for a dump");
    assert_eq!(
        sqlstate(owner.batch_execute("INSERT INTO auth.providers (name) VALUES ('x')")),
        INSUFFICIENT_PRIVILEGE,
        "providers"
    );
    let setting = "SHOW standard_conforming_strings";
    assert_eq!(text(&mut owner, setting).as_deref(), Some("off"), "the session's settings");
}

/// A dump of a database with Neon's extension names another schema for it.
#[test]
fn a_dump_is_restored_after_the_extension_is_created() {
    let fixture = Fixture::start();
    let mut admin = fixture.database("0.5.0", "postgres");
    run(&mut admin, APPLICATION);
    let name = database_of("0.5.0", "postgres");
    let mut dump = fixture.cluster.program("pg_dump");
    dump.args([
        "-h",
        "127.0.0.1",
        "-p",
        &fixture.cluster.port().to_string(),
        "-U",
        "postgres",
        &name,
    ]);
    let dump = dump.output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let dump = String::from_utf8(dump.stdout).unwrap();
    fixture.replace();
    let create = "CREATE EXTENSION IF NOT EXISTS pg_session_jwt WITH SCHEMA public";
    assert!(dump.contains(create), "{dump}");
    run(&mut fixture.cluster.admin(), "CREATE DATABASE restored");
    let mut restored = fixture.client("postgres", "restored");
    assert_eq!(sqlstate(restored.batch_execute(create)), FEATURE_NOT_SUPPORTED, "the schema");
    run(&mut restored, "CREATE EXTENSION pg_session_jwt");
    drop(restored);
    fixture.cluster.psql_in("restored", &[], &dump).unwrap_or_else(|errors| panic!("{errors}"));
    let mut restored = fixture.client("authenticated", "restored");
    assert_eq!(present(&mut restored, &token_of(&fixture.key, "i", USER)), SUCCESS, "restored");
    assert_eq!(text(&mut restored, "SELECT me()").as_deref(), Some(USER), "restored");
}
