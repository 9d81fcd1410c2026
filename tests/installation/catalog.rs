//! What the extension creates, and where.

use harness::{
    Cluster, DUPLICATE_FUNCTION, Fixture, INSUFFICIENT_PRIVILEGE, Preload, Shared, Wire, run,
    sqlstate, text,
};

#[test]
fn the_catalog_says_what_functions_are() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut client = cluster.as_role("app").client();
    let functions = client
        .query(
            "SELECT proname::text, provolatile::text, proparallel::text, proleakproof, procost,
                    obj_description(oid, 'pg_proc') IS NOT NULL,
                    has_function_privilege(oid, 'EXECUTE'), NOT prosecdef, proconfig IS NULL
             FROM pg_proc WHERE pronamespace = 'auth'::regnamespace ORDER BY 1",
            &[],
        )
        .unwrap();
    let names: Vec<&str> = functions.iter().map(|row| row.get(0)).collect();
    let readers = [
        "allows",
        "claim",
        "claim_jsonb",
        "email",
        "has_acr",
        "has_amr",
        "has_role",
        "has_scope",
        "in_group",
        "jwt",
        "organization",
        "organization_id",
        "provider_keys",
        "role",
        "session",
        "session_variable",
        "signed_in_within",
        "uid",
        "user_id",
    ];
    let for_administrators =
        ["add_provider", "added_provider", "refresh_provider", "remove_provider"];
    let for_triggers = [
        "check_ddl_drop",
        "check_ddl_end",
        "check_ddl_start",
        "check_provider",
        "check_revocation",
        "keep_revocations",
    ];
    // They run as the owner of the extension, for roles that may execute them.
    let of_revocations = ["logout", "prune_revocations", "revoke", "unrevoke"];
    // Whoever calls them runs with the search path that they name.
    let with_settings = ["protect", "protect_schema", "unprotect", "unprotect_schema"];
    let mut expected =
        ["demand", "init", "inspect", "is_new", "jwt_template", "jwt_verify", "table_of", "whoami"]
            .to_vec();
    expected.push("verify_logout");
    expected.extend(readers.iter().chain(&for_administrators).chain(&of_revocations));
    expected.extend(for_triggers.iter().chain(&with_settings));
    // With and without is_local.
    expected.extend(["jwt_session_init"; 2]);
    let of_types = ["texts_in", "texts_out"];
    expected.extend(of_types);
    let for_monitors =
        ["health", "policy_findings", "provider_findings", "role_findings", "server_findings"];
    expected.extend(for_monitors);
    let for_explanations =
        ["explain_access", "explain_access_of", "policy_condition", "sample", "try_all", "try_as"];
    expected.extend(for_explanations);
    let of_statistics = ["session_list", "stats", "stats_reset"];
    expected.extend(of_statistics);
    let demands = ["require_fresh", "require_scope"];
    expected.extend(demands);
    expected.sort();
    assert_eq!(names, expected, "whoever calls them runs with the search path that they name");
    let changes = include_str!("../../CHANGELOG.md");
    for row in &functions {
        let name: &str = row.get(0);
        let is_listed = changes.contains(&format!("`auth.{name}`"));
        let is_internal = for_triggers.contains(&name) || of_types.contains(&name);
        assert_eq!(is_listed, !is_internal, "{name} in the changelog");
        assert!(!row.get::<_, bool>(3), "{name} is not leakproof");
        assert!(row.get::<_, bool>(5), "{name} has a comment");
        // Those for administrators ask for privileges on the table, or tell of it.
        let is_for_all = !["inspect", "provider_keys", "verify_logout"].contains(&name)
            && !of_revocations.contains(&name)
            && !for_triggers.contains(&name)
            && !for_monitors.contains(&name)
            && !of_statistics.contains(&name);
        assert_eq!(row.get::<_, bool>(6), is_for_all, "who may execute {name}");
        let is_of_owner = of_revocations.contains(&name);
        assert_eq!(row.get::<_, bool>(7), !is_of_owner, "{name} runs as its caller");
        let has_settings = ["add_provider", "check_ddl_drop", "check_ddl_end", "remove_provider"]
            .contains(&name)
            || is_of_owner
            || name == "keep_revocations"
            || with_settings.contains(&name)
            || for_monitors.contains(&name) && name != "provider_findings"
            || ["explain_access_of", "policy_condition", "try_all"].contains(&name);
        assert_eq!(row.get::<_, bool>(8), !has_settings, "the settings of {name}");
        let kind: (&str, &str) = (row.get(1), row.get(2));
        if name == "jwt_template" || of_types.contains(&name) {
            assert_eq!(kind, ("i", "s"), "{name}");
        } else if ["check_ddl_drop", "demand", "policy_condition", "table_of"].contains(&name)
            || for_monitors.contains(&name)
        {
            assert_eq!(kind, ("s", "u"), "{name}");
        } else if name == "inspect" {
            // It compares the clock and the session's last jti.
            assert_eq!(kind, ("v", "r"), "{name}");
        } else if demands.contains(&name) {
            // The planner does not leave out a volatile function, nor evaluate it for an estimate.
            assert_eq!(kind, ("v", "r"), "{name}");
        } else if ["session_list", "stats"].contains(&name) {
            assert_eq!(kind, ("s", "r"), "{name}");
        } else if ["jwt_verify", "whoami"].contains(&name) {
            // An error in a worker would be logged by the leader, with the statement.
            assert_eq!(kind, ("s", "r"), "{name}");
        } else if readers.contains(&name) {
            assert_eq!(kind, ("s", "s"), "{name}");
            let is_cheap = row.get::<_, f32>(4) == 1.0;
            assert!(is_cheap, "the cost of {name}");
        } else {
            assert_eq!(kind, ("v", "u"), "{name}");
        }
    }
    let usage = "SELECT has_schema_privilege('auth', 'USAGE')::text";
    assert_eq!(
        text(&mut client, usage).as_deref(),
        Some("true"),
        "whoever calls them runs with the search path that they name"
    );
}

/// Without preloading, much of the protection begins late.
#[test]
fn the_extension_warns_where_it_is_not_preloaded() {
    for (preload, expected) in
        [(Preload::Shared, false), (Preload::Session, false), (Preload::Neither, true)]
    {
        let cluster = Cluster::start_bare(preload, &[]);
        let mut wire = Wire::connect(&cluster.as_role("postgres")).unwrap();
        wire.ask("CREATE EXTENSION pg_session_jwt", &[]).unwrap().unwrap();
        let hints: Vec<String> = wire
            .notices()
            .iter()
            .filter(|notice| notice.get(b'M') == Some("pg_session_jwt is not preloaded"))
            .filter_map(|notice| notice.get(b'H').map(str::to_owned))
            .collect();
        let hint = "Add pg_session_jwt to shared_preload_libraries, and restart the server.";
        assert_eq!(hints == [hint], expected, "{preload:?}: {hints:?}");
    }
}

/// A cluster without the extension, with the roles `owner` and `app`.
struct Bare(Cluster);

static CLUSTERS: Shared<Bare> = Shared::new(|preload| {
    let cluster = Cluster::start_bare(preload, &[]);
    run(&mut cluster.admin(), "CREATE ROLE owner LOGIN; CREATE ROLE app LOGIN");
    Bare(cluster)
});

impl Fixture for Bare {
    fn cluster(&self) -> &Cluster {
        &self.0
    }
}

fn database(cluster: &Cluster, name: &str, owner: &str) {
    run(&mut cluster.admin(), &format!("CREATE DATABASE {name} OWNER {owner}"));
}

/// With and without a schema `auth`.
#[test]
fn the_owner_of_a_database_creates_the_extension() {
    let bare = CLUSTERS.beside_others(Preload::Neither);
    let cluster = bare.cluster();
    for (name, before) in [("fresh", ""), ("prepared", "CREATE SCHEMA auth; CREATE TABLE auth.x()")]
    {
        database(cluster, name, "owner");
        let mut owner = cluster.as_role("owner").database(name).client();
        owner.batch_execute(before).unwrap();
        owner.batch_execute("CREATE EXTENSION pg_session_jwt").unwrap();
        let mut app = cluster.as_role("app").database(name).client();
        assert_eq!(text(&mut app, "SELECT auth.user_id()"), None, "{name:?}, {before:?}");
        // What runs in everybody's session belongs to the superuser, not to the owner.
        assert_eq!(
            sqlstate(owner.batch_execute("ALTER FUNCTION auth.user_id() OWNER TO owner")),
            INSUFFICIENT_PRIVILEGE,
            "{name:?}, {before:?}"
        );
        owner.batch_execute("DROP EXTENSION pg_session_jwt").unwrap();
    }
}

/// Others could plant functions there.
#[test]
fn the_extension_needs_a_schema_in_which_no_other_role_creates() {
    let bare = CLUSTERS.beside_others(Preload::Neither);
    let cluster = bare.cluster();
    for (name, before) in [
        ("owned", "CREATE SCHEMA auth AUTHORIZATION app"),
        ("granted", "CREATE SCHEMA auth; GRANT CREATE ON SCHEMA auth TO app"),
        ("public", "CREATE SCHEMA auth; GRANT CREATE ON SCHEMA auth TO PUBLIC"),
    ] {
        database(cluster, name, "owner");
        let mut superuser = cluster.as_role("postgres").database(name).client();
        superuser.batch_execute(before).unwrap();
        let outcome = superuser.batch_execute("CREATE EXTENSION pg_session_jwt");
        assert_eq!(sqlstate(outcome), INSUFFICIENT_PRIVILEGE, "{name}");
    }
    database(cluster, "harmless", "owner");
    let mut superuser = cluster.as_role("postgres").database("harmless").client();
    let before = "CREATE SCHEMA auth AUTHORIZATION owner; GRANT USAGE ON SCHEMA auth TO app";
    superuser.batch_execute(before).unwrap();
    superuser.batch_execute("CREATE EXTENSION pg_session_jwt").unwrap();
}

/// Operators that fit better than those of Postgres, from a time when another role could create objects there.
#[test]
fn the_extension_uses_no_operator_of_its_schema() {
    let bare = CLUSTERS.beside_others(Preload::Neither);
    let cluster = bare.cluster();
    database(cluster, "operators", "owner");
    let mut owner = cluster.as_role("owner").database("operators").client();
    run(
        &mut owner,
        "CREATE SCHEMA auth;
         CREATE FUNCTION auth.equal(oid, regclass) RETURNS boolean LANGUAGE sql AS 'SELECT false';
         CREATE OPERATOR auth.= (FUNCTION = auth.equal, LEFTARG = oid, RIGHTARG = regclass);
         CREATE EXTENSION pg_session_jwt",
    );
    let users =
        "SELECT string_agg(pg_describe_object(classid, objid, objsubid), ', ') FROM pg_depend
                 WHERE refclassid = 'pg_operator'::regclass";
    assert_eq!(text(&mut owner, users), None, "what uses the operator");
    let search_path = "SHOW search_path";
    assert_eq!(
        text(&mut owner, search_path).as_deref(),
        Some("\"$user\", public"),
        "the session's"
    );
}

/// And a role that may not create in the database does not create it.
#[test]
fn the_extension_takes_no_function_over() {
    let bare = CLUSTERS.beside_others(Preload::Neither);
    let cluster = bare.cluster();
    database(cluster, "other", "postgres");
    let mut app = cluster.as_role("app").database("other").client();
    assert_eq!(
        sqlstate(app.batch_execute("CREATE EXTENSION pg_session_jwt")),
        INSUFFICIENT_PRIVILEGE,
        "sqlstate(app.batch_execute(CREATE EXTENSION pg_session_jwt))"
    );
    let mut owner = cluster.as_role("postgres").database("other").client();
    let planted = "CREATE SCHEMA auth;
                   CREATE FUNCTION auth.user_id() RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$";
    owner.batch_execute(planted).unwrap();
    assert_eq!(
        sqlstate(owner.batch_execute("CREATE EXTENSION pg_session_jwt")),
        DUPLICATE_FUNCTION,
        "after CREATE EXTENSION pg_session_jwt"
    );
}

#[test]
fn the_reference_lists_the_settings() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let rows = cluster
        .admin()
        .query(
            "SELECT name, coalesce(boot_val, 'none') FROM pg_settings
             WHERE name LIKE 'pg\\_session\\_jwt.%' ORDER BY name",
            &[],
        )
        .unwrap();
    let mut settings: Vec<(String, String)> =
        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    // The one that is never shown.
    settings.push(("pg_session_jwt.jwt".to_owned(), "none".to_owned()));
    settings.sort();
    let reference = include_str!("../../docs/reference.md");
    let mut documented: Vec<(String, String)> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `pg_session_jwt."))
        .map(|line| {
            let mut cells = line.split(" | ").map(|cell| cell.trim_matches('`').to_owned());
            let name = format!("pg_session_jwt.{}", cells.next().unwrap());
            (name, cells.next().unwrap())
        })
        .collect();
    documented.sort();
    assert_eq!(documented, settings, "the one that is never shown");
}
