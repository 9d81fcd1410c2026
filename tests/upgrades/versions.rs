//! Updates from released versions, and what the folder `sql/` has for them.

use std::collections::BTreeMap;

use harness::{Cluster, Preload, run, send};

use crate::catalog::{assert_same, catalog, differences};

const INSTALL: &str = include_str!("../../sql/pg_session_jwt--1.0.0.sql");
const FROM_NEON: &str = include_str!("../../sql/pg_session_jwt--0.5.0--1.0.0.sql");
const CHANGELOG: &str = include_str!("../../CHANGELOG.md");
const CONTROL: &str = include_str!("../../pg_session_jwt.control");

const PAGE: &str = include_str!("../../docs/upgrading.md");

/// The version that `CREATE EXTENSION` creates.
fn default_version() -> &'static str {
    let (_, rest) = CONTROL.split_once("default_version = '").expect("a version");
    rest.split('\'').next().unwrap_or_default()
}

/// Objects that use the extension.
const APPLICATION: &str = "
    CREATE TABLE todos (owner text DEFAULT auth.user_id(), task text);
    ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON todos USING (owner = auth.user_id() AND auth.allows('data_read', 'todos'));
    CREATE VIEW mine AS SELECT task, auth.claim('name') FROM todos WHERE owner = auth.user_id();
    SELECT auth.protect('todos');
    SELECT auth.protect_schema();
    GRANT EXECUTE ON FUNCTION auth.provider_keys(text) TO app;
    GRANT SELECT ON auth.provider_status TO app";

/// The differences between the catalogs after an update and those of a new database, by the version before.
/// It updates from each version that the cluster has an install script for.
fn update_from_each_version(cluster: &Cluster) -> BTreeMap<String, Vec<String>> {
    let mut admin = cluster.admin();
    run(&mut admin, "CREATE ROLE app");
    run(&mut admin, "CREATE DATABASE fresh");
    let versions = "SELECT v.version FROM pg_available_extension_versions v
                    WHERE name = 'pg_session_jwt' AND version <> $$default$$
                      AND EXISTS (SELECT FROM pg_extension_update_paths('pg_session_jwt') p
                                  WHERE p.source = v.version AND p.target = $$default$$ AND p.path <> '')";
    let versions = send(&mut admin, &versions.replace("default", default_version())).unwrap();
    let database = |name: &str| cluster.as_role("postgres").database(name).client();
    let mut fresh = database("fresh");
    run(&mut fresh, "CREATE EXTENSION pg_session_jwt");
    run(&mut fresh, APPLICATION);
    let fresh = catalog(&mut fresh);
    let outcomes = versions.lines("").into_iter().map(|version| {
        run(&mut admin, &format!("CREATE DATABASE \"{version}\""));
        let mut client = database(&version);
        run(&mut client, &format!("CREATE EXTENSION pg_session_jwt VERSION '{version}'"));
        run(&mut client, APPLICATION);
        run(&mut client, "ALTER EXTENSION pg_session_jwt UPDATE");
        let outcome = differences(&fresh, &catalog(&mut client));
        (version, outcome)
    });
    outcomes.collect()
}

/// For the versions in `sql/`. Two versions that do not exist show that the comparison finds differences.
#[test]
fn an_update_from_each_released_version_ends_in_the_catalogs_of_a_new_database() {
    let cluster = Cluster::start_bare(Preload::Shared, &[]);
    let update = "SET LOCAL search_path = pg_catalog, pg_temp;";
    for (version, script) in
        [("0.9.8", INSTALL.replacen("COST 100", "COST 99", 1)), ("0.9.9", INSTALL.to_owned())]
    {
        cluster.install(&format!("pg_session_jwt--{version}.sql"), &script);
        cluster.install(&format!("pg_session_jwt--{version}--{}.sql", default_version()), update);
    }
    let mut outcomes = update_from_each_version(&cluster);
    let different = outcomes.remove("0.9.8").expect("0.9.8");
    assert_eq!(different.len(), 2, "another cost: {different:#?}");
    assert!(different.iter().all(|line| line.contains("COST") || line.contains("procost")));
    assert!(outcomes.contains_key("0.9.9"), "{outcomes:?}");
    for (version, differences) in &outcomes {
        assert!(differences.is_empty(), "{version}: {differences:#?}");
    }
}

#[test]
fn every_version_in_the_changelog_has_its_scripts() {
    let versions: Vec<&str> =
        CHANGELOG.lines().filter_map(|line| line.strip_prefix("## ")?.split(' ').next()).collect();
    assert_eq!(versions.first(), Some(&default_version()), "the newest version");
    assert_eq!(default_version(), env!("CARGO_PKG_VERSION"), "the control file");
    let cluster = Cluster::start_bare(Preload::Neither, &[]);
    let mut client = cluster.admin();
    for version in versions {
        cluster.installed(&format!("pg_session_jwt--{version}.sql"));
        let path = format!(
            "SELECT count(*) FROM pg_extension_update_paths('pg_session_jwt')
             WHERE source = '{version}' AND target = '{}' AND path <> ''",
            default_version()
        );
        let expected = if version == default_version() { "0" } else { "1" };
        assert_eq!(send(&mut client, &path).unwrap().lines(""), [expected], "{version}");
    }
}

/// Nothing leads away from the newest version, and nothing but Neon's versions leads to it in two steps.
#[test]
fn the_update_paths_are_those_that_are_documented() {
    let cluster = Cluster::start_bare(Preload::Neither, &[]);
    let paths = "SELECT source, path FROM pg_extension_update_paths('pg_session_jwt')
                 WHERE path <> '' AND target NOT LIKE '0.%' ORDER BY 1";
    let found = send(&mut cluster.admin(), paths).unwrap().lines(": ");
    let expected: Vec<String> =
        ["0.0.1", "0.1.0", "0.1.1", "0.1.2", "0.2.0", "0.3.0", "0.3.1", "0.4.0"]
            .map(|version| format!("{version}: {version}--0.5.0--1.0.0"))
            .into_iter()
            .chain(["0.5.0: 0.5.0--1.0.0".to_owned()])
            .collect();
    assert_eq!(found, expected, "paths");
    let sources: Vec<&str> = found.iter().filter_map(|path| path.split(':').next()).collect();
    let (last, others) = sources.split_last().expect("versions");
    let listed = format!("The versions {} and\n{last} can be updated.", others.join(", "));
    assert!(PAGE.contains(&listed), "{listed}");
}

/// Both create the same objects. In the update script, functions of Neon's extension are replaced, and
/// `@extschema@` would be the schema of Neon's extension.
#[test]
fn the_script_from_neon_contains_the_install_script() {
    let start = "GRANT USAGE ON SCHEMA @extschema@ TO PUBLIC;";
    let (_, created) = INSTALL.split_once(start).expect("the objects");
    let (_, updated) =
        FROM_NEON.split_once(&start.replace("@extschema@", "auth")).expect("the objects");
    let created = created.replace("@extschema@", "auth");
    let updated = updated.replace("CREATE OR REPLACE FUNCTION", "CREATE FUNCTION");
    for (number, (created, updated)) in created.lines().zip(updated.lines()).enumerate() {
        assert_eq!(created, updated, "line {number} after GRANT USAGE: change both scripts");
    }
    assert_eq!(created.lines().count(), updated.lines().count(), "change both scripts");
    // Both check the same names.
    for list in ["functions CONSTANT", "relations CONSTANT", "types CONSTANT"] {
        let names = |script: &'static str| {
            let rest = script.split_once(list).expect("a list").1;
            rest.split_once("}'").expect("the end").0
        };
        assert_eq!(names(INSTALL), names(FROM_NEON), "{list}");
    }
}

/// The comparison is exact.
#[test]
fn catalogs_are_compared_line_by_line() {
    let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_same(&lines("a b"), &lines("a b"), "same");
    assert_eq!(differences(&lines("a b"), &lines("a c")), ["- b", "+ c"], "different");
    assert_eq!(differences(&lines("a a"), &lines("a")), ["- a"], "fewer");
}
