//! The script that replaces Supabase's functions, in a database with a schema `auth` like Supabase's.

use harness::{Cluster, Code, Preload, SUCCESS, jwks, key, now, present, run, sqlstate, text};
use postgres::Client;
use serde_json::json;

use crate::catalog::{assert_same, catalog};

const SCRIPT: &str = include_str!("../../sql/pg_session_jwt_supabase.sql");

const USER: &str = "00000000-0000-0000-0000-00000000000a";

/// The schema `auth`, restored on a server of one's own: the roles exist, and the superuser owns the schema.
const SUPABASE: &str = r#"
    GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role, supabase_auth_admin;
    CREATE TABLE auth.users (id uuid PRIMARY KEY, email text UNIQUE, raw_app_meta_data jsonb);
    CREATE TABLE auth.identities (id text PRIMARY KEY, user_id uuid REFERENCES auth.users);
    ALTER TABLE auth.users OWNER TO supabase_auth_admin;
    ALTER TABLE auth.identities OWNER TO supabase_auth_admin;
    CREATE TYPE auth.aal_level AS ENUM ('aal1', 'aal2', 'aal3')"#;

/// The functions, with the results that Supabase's have.
const FUNCTIONS: &str = r#"
    CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS
        $$ SELECT coalesce(nullif(current_setting('request.jwt.claim', true), ''),
                           nullif(current_setting('request.jwt.claims', true), ''))::jsonb $$;
    CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS
        $$ SELECT (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid $$;
    CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS
        $$ SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role' $$;
    CREATE FUNCTION auth.email() RETURNS text LANGUAGE sql STABLE AS
        $$ SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email' $$;
    COMMENT ON FUNCTION auth.uid() IS 'Deprecated. Use auth.jwt() -> ''sub'' instead.';
    ALTER FUNCTION auth.uid() OWNER TO supabase_auth_admin;
    ALTER FUNCTION auth.jwt() OWNER TO supabase_auth_admin;
    ALTER FUNCTION auth.role() OWNER TO supabase_auth_admin;
    ALTER FUNCTION auth.email() OWNER TO supabase_auth_admin"#;

const APPLICATION: &str = "
    CREATE TABLE profiles (
        id       uuid PRIMARY KEY REFERENCES auth.users DEFAULT auth.uid(),
        email    text DEFAULT auth.email(),
        is_admin boolean NOT NULL DEFAULT false
    );
    ALTER TABLE profiles ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON profiles TO authenticated USING ((SELECT auth.uid()) = id)
        WITH CHECK (auth.uid() = id AND auth.role() = 'authenticated');
    CREATE POLICY second_factor ON profiles AS RESTRICTIVE FOR DELETE TO authenticated
        USING (auth.jwt() ->> 'aal' = 'aal2');
    CREATE TABLE tenants (id int, name text, CHECK (name <> coalesce(auth.email(), '')));
    CREATE VIEW me WITH (security_invoker) AS SELECT id, auth.jwt() -> 'app_metadata' AS metadata FROM profiles;
    CREATE FUNCTION is_me(id uuid) RETURNS boolean LANGUAGE sql STABLE RETURN id = auth.uid();
    CREATE FUNCTION notify() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
    CREATE TRIGGER notify BEFORE UPDATE ON profiles FOR EACH ROW
        WHEN (old.id = auth.uid()) EXECUTE FUNCTION notify();
    GRANT SELECT, INSERT, UPDATE, DELETE ON profiles, me TO authenticated;
    GRANT SELECT ON me TO anon";

fn start() -> Cluster {
    let cluster = Cluster::start_bare(Preload::Shared, &[]);
    let roles = "CREATE ROLE anon NOLOGIN; CREATE ROLE authenticated NOLOGIN; CREATE ROLE service_role BYPASSRLS;
                 CREATE ROLE supabase_auth_admin LOGIN CREATEROLE NOINHERIT;
                 CREATE ROLE authenticator LOGIN NOINHERIT;
                 GRANT anon, authenticated, service_role TO authenticator";
    run(&mut cluster.admin(), roles);
    cluster
}

fn database(cluster: &Cluster, name: &str, statements: &[&str]) -> Client {
    run(&mut cluster.admin(), &format!("CREATE DATABASE {name}"));
    let mut client = cluster.as_role("postgres").database(name).client();
    for sql in statements {
        run(&mut client, sql);
    }
    client
}

const OIDS: &str = "SELECT string_agg(concat(p.oid, ' ', p.oid::regprocedure), ', ' ORDER BY p.oid) FROM pg_proc p
                    WHERE pronamespace = 'auth'::regnamespace AND proname IN ('uid', 'jwt', 'role', 'email')";

#[test]
fn functions_are_replaced_under_what_uses_them() {
    let cluster = start();
    let schema = "CREATE SCHEMA auth";
    let mut client = database(&cluster, "app", &[schema, SUPABASE, FUNCTIONS, APPLICATION]);
    let (oids, before) = (text(&mut client, OIDS), catalog(&mut client));

    // The dry run does all of it, lists what uses the functions, and changes nothing.
    let report = cluster.psql_in("app", &[], SCRIPT).unwrap();
    for object in [
        "policy own on table public.profiles",
        "policy second_factor on table public.profiles",
        "default value for column id of table public.profiles",
        "default value for column email of table public.profiles",
        "constraint tenants_name_check on table public.tenants",
        "rule _RETURN on view public.me",
        "function public.is_me(uuid)",
        "trigger notify on table public.profiles",
    ] {
        assert!(report.contains(object), "{object}: {report}");
    }
    assert!(report.contains("Dry run: nothing is changed"), "{report}");
    assert_same(&before, &catalog(&mut client), "the dry run");

    let report = cluster.psql_in("app", &[("apply", "on")], SCRIPT).unwrap();
    assert!(report.contains("The functions are replaced"), "{report}");
    assert_eq!(text(&mut client, OIDS), oids, "the OIDs");
    let mut fresh = database(
        &cluster,
        "fresh",
        &[schema, SUPABASE, "CREATE EXTENSION pg_session_jwt", APPLICATION],
    );
    assert_same(&catalog(&mut fresh), &catalog(&mut client), "the catalogs");

    let key = key("k1");
    let add =
        "SELECT auth.add_provider('s', issuer => 'https://p.supabase.co/auth/v1', jwks => $1::text,
                                        role_claim => 'role', allowed_roles => '{authenticated}')";
    client.execute(add, &[&jwks(&[&key]).to_string()]).unwrap();
    run(&mut client, &format!("INSERT INTO auth.users VALUES ('{USER}', 'a@x.example')"));
    let mut user = cluster.as_role("authenticator").database("app").client();
    let claims = json!({
        "iss": "https://p.supabase.co/auth/v1", "sub": USER, "role": "authenticated",
        "email": "a@x.example", "app_metadata": {"tenant": "t"}, "aal": "aal1", "exp": now() + 600
    });
    assert_eq!(present(&mut user, &key.sign(&claims)), SUCCESS, "present");
    run(&mut user, "INSERT INTO profiles DEFAULT VALUES");
    let row = "SELECT concat_ws(' ', p.id, email, metadata ->> 'tenant', is_me(p.id)) FROM profiles p, me";
    let expected = format!("{USER} a@x.example t t");
    assert_eq!(text(&mut user, row).as_deref(), Some(expected.as_str()), "the row");
    assert_eq!(user.execute("DELETE FROM profiles", &[]).unwrap(), 0, "without a second factor");
    // The claims that every client can write count no more.
    run(&mut user, "SELECT auth.jwt_session_init(NULL)");
    run(
        &mut user,
        &format!(r#"SET request.jwt.claims = '{{"sub": "{USER}", "role": "authenticated"}}'"#),
    );
    assert_eq!(text(&mut user, "SELECT auth.uid()::text"), None, "request.jwt.claims");
}

#[test]
fn privileges_on_the_functions_stay_and_are_dumped() {
    let cluster = start();
    let mut client = database(&cluster, "app", &["CREATE SCHEMA auth", SUPABASE, FUNCTIONS]);
    run(
        &mut client,
        "REVOKE EXECUTE ON FUNCTION auth.email() FROM PUBLIC; GRANT EXECUTE ON FUNCTION auth.email() TO anon",
    );
    cluster.psql_in("app", &[("apply", "on")], SCRIPT).unwrap();
    let mut dump = cluster.program("pg_dump");
    dump.args(["-h", "127.0.0.1", "-p", &cluster.port().to_string(), "-U", "postgres", "app"]);
    let dump = String::from_utf8(dump.output().unwrap().stdout).unwrap();
    let mut restored = database(&cluster, "restored", &[]);
    cluster.psql_in("restored", &[], &dump).unwrap();
    for client in [&mut client, &mut restored] {
        let allowed =
            "SELECT concat_ws(' ', has_function_privilege('public', 'auth.email()', 'EXECUTE'),
                                        has_function_privilege('anon', 'auth.email()', 'EXECUTE'),
                                        has_function_privilege('public', 'auth.uid()', 'EXECUTE'))";
        assert_eq!(text(client, allowed).as_deref(), Some("f t t"), "privileges");
    }
}

/// Databases in which the script stops, with the SQLSTATE, and leaves everything as it was.
#[test]
fn the_script_changes_all_or_nothing() {
    let cluster = start();
    let other_type = "CREATE FUNCTION auth.uid() RETURNS text LANGUAGE sql STABLE AS 'SELECT NULL'";
    let member = "CREATE EXTENSION pg_trgm; ALTER EXTENSION pg_trgm ADD FUNCTION auth.jwt()";
    let has_modules = harness::pg_config("--sharedir").join("extension/pg_trgm.control").exists();
    if !has_modules {
        harness::note_skipped("a function of another extension, which needs pg_trgm");
    }
    for (label, code, statements) in [
        ("another type", "42P13", &["CREATE SCHEMA auth", other_type][..]),
        (
            "a procedure",
            "42P13",
            &["CREATE SCHEMA auth", "CREATE PROCEDURE auth.uid() LANGUAGE sql AS ''"],
        ),
        (
            "a member",
            "55000: function is a member of another extension",
            &["CREATE SCHEMA auth", FUNCTIONS, member],
        ),
        (
            "another function of the extension's name",
            "42723",
            &[
                "CREATE SCHEMA auth",
                FUNCTIONS,
                "CREATE FUNCTION auth.claim(text) RETURNS text LANGUAGE sql AS 'SELECT NULL'",
            ],
        ),
        (
            "an overload",
            "42723",
            &[
                "CREATE SCHEMA auth",
                FUNCTIONS,
                "CREATE FUNCTION auth.uid(text) RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
            ],
        ),
        (
            "a schema of another role",
            "42501",
            &["CREATE SCHEMA auth AUTHORIZATION supabase_auth_admin", FUNCTIONS],
        ),
        (
            "a schema in which another role creates",
            "42501",
            &[
                "CREATE SCHEMA auth",
                "GRANT CREATE ON SCHEMA auth TO supabase_auth_admin",
                FUNCTIONS,
            ],
        ),
        ("the extension", "42710", &["CREATE EXTENSION pg_session_jwt"]),
    ] {
        if statements.contains(&member) && !has_modules {
            continue;
        }
        let name = label.replace([' ', '\''], "_");
        let mut client = database(&cluster, &name, statements);
        let before = text(&mut client, OIDS);
        for apply in ["off", "on"] {
            let errors = cluster.psql_in(&name, &[("apply", apply)], SCRIPT).expect_err(label);
            assert!(
                errors.contains(&format!("ERROR:  {code}")),
                "{label}, apply={apply}: {errors}"
            );
        }
        assert_eq!(text(&mut client, OIDS), before, "{label}");
    }
    // Roles that are no superusers.
    let mut client = database(&cluster, "plain", &["CREATE SCHEMA auth", FUNCTIONS]);
    run(&mut client, "GRANT CREATE ON DATABASE plain TO supabase_auth_admin");
    let script = format!("SET SESSION AUTHORIZATION supabase_auth_admin;\n{SCRIPT}");
    let errors = cluster.psql_in("plain", &[("apply", "on")], &script).expect_err("no superuser");
    assert!(errors.contains("ERROR:  42501: must be superuser"), "{errors}");
    assert_eq!(
        sqlstate(client.batch_execute("SELECT auth.uid()")),
        SUCCESS,
        "{}",
        Code::NoKey.sqlstate()
    );
}
