//! The version of `Cargo.toml`, in the files that packages are made from and in the library.

use std::fs;
use std::path::Path;

use harness::{Cluster, Preload, is_older_than, run, text};
use serde_json::Value;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).expect(file)
}

/// What follows a text in a file, up to the end of the line.
fn rest_of_line(file: &str, start: &str) -> String {
    let text = read(file);
    let rest = text.split_once(start).map(|(_, rest)| rest.lines().next().unwrap_or_default());
    rest.unwrap_or_else(|| panic!("{file} has no {start:?}")).to_owned()
}

#[test]
fn all_files_have_the_version_of_the_release() {
    let meta: Value = serde_json::from_str(&read("META.json")).expect("META.json");
    let provided = &meta["provides"]["pg_session_jwt"];
    let script = format!("sql/pg_session_jwt--{VERSION}.sql");
    for (place, found, expected) in [
        ("META.json: version", &meta["version"], VERSION),
        ("META.json: provides, version", &provided["version"], VERSION),
        ("META.json: provides, file", &provided["file"], script.as_str()),
    ] {
        assert_eq!(found, expected, "{place}");
    }
    assert!(read(&script).contains("CREATE"), "{script}");
    let control = rest_of_line("pg_session_jwt.control", "default_version = ");
    assert_eq!(control, format!("'{VERSION}'"), "the control file");
    for (file, start, end) in
        [("debian/changelog", "pg-session-jwt (", "-"), ("CHANGELOG.md", "## ", " ")]
    {
        let newest = rest_of_line(file, start);
        let found = newest.split_once(end).map_or(newest.as_str(), |(version, _)| version);
        assert_eq!(found, VERSION, "the newest entry of {file}");
    }
}

/// The versions of Postgres are the features of the library.
#[test]
fn each_version_of_postgres_has_a_package() {
    let manifest = read("Cargo.toml");
    let feature =
        |line: &str| line.strip_prefix("pg")?.split_once(" = [").map(|(v, _)| v.to_owned());
    let versions: Vec<String> = manifest.lines().filter_map(feature).collect();
    assert!(versions.len() > 1, "Cargo.toml has features pg15 and so on: {versions:?}");
    let control = read("debian/control");
    let package = |line: &str| {
        let name = line.strip_prefix("Package: postgresql-")?;
        name.strip_suffix("-pg-session-jwt").map(str::to_owned)
    };
    let packages: Vec<String> = control.lines().filter_map(package).collect();
    assert_eq!(
        packages, versions,
        "the packages in debian/control; pg_buildext updatecontrol writes them"
    );
    assert_eq!(read("debian/pgversions"), format!("{}+\n", versions[0]), "debian/pgversions");
}

#[test]
fn the_library_reports_its_name_and_version() {
    if is_older_than(18, "pg_get_loaded_modules()") {
        return;
    }
    let cluster = Cluster::start(Preload::Neither, &[]);
    let mut admin = cluster.admin();
    run(&mut admin, "LOAD 'pg_session_jwt'");
    let reported = "SELECT concat_ws(' ', module_name, version) FROM pg_get_loaded_modules()
                    WHERE file_name LIKE 'pg_session_jwt%'";
    assert_eq!(text(&mut admin, reported), Some(format!("pg_session_jwt {VERSION}")));
}
