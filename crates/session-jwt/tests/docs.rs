//! The tables of the documentation equal those of the code.

use session_jwt::{CLAIM_CHECKS, Code, MAX_TOKEN_BYTES, PROVIDER_MEMBERS, ROW_MEMBERS};

const REFERENCE: &str = include_str!("../../../docs/reference.md");

/// The rows of the table under a heading, without the header row.
fn table(heading: &str) -> Vec<&'static str> {
    let (_, section) = REFERENCE.split_once(&format!("\n## {heading}\n")).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    section.lines().filter(|line| line.starts_with('|')).skip(2).collect()
}

#[test]
fn error_codes() {
    let rows: Vec<String> = Code::ALL
        .iter()
        .map(|code| format!("| {} | {} |", code.sqlstate(), code.meaning()))
        .collect();
    assert_eq!(table("Error codes"), rows);
}

#[test]
fn claim_checks() {
    let rows: Vec<String> = CLAIM_CHECKS
        .iter()
        .map(|check| format!("| {} | {} | {} |", check.claim, check.code.sqlstate(), check.rule))
        .collect();
    assert_eq!(table("Checks"), rows);
}

#[test]
fn provider_members() {
    let rows: Vec<String> = PROVIDER_MEMBERS
        .iter()
        .map(|member| format!("| `{}` | {} |", member.name, member.meaning))
        .collect();
    assert_eq!(table("Providers"), rows);
}

#[test]
fn row_members() {
    let rows: Vec<String> = ROW_MEMBERS
        .iter()
        .map(|member| format!("| `{}` | {} |", member.name, member.meaning))
        .collect();
    assert_eq!(table("The table of providers"), rows);
}

#[test]
fn limits() {
    assert_eq!(MAX_TOKEN_BYTES, 16 * 1024);
    assert!(REFERENCE.contains("A token is at most 16 KiB"));
}

/// ARCHITECTURE.md lists each file of these folders.
#[test]
fn files_on_the_map() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let map = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    for (folder, prefix) in [
        ("crates/session-jwt/src", ""),
        ("crates/fetch/src", "crates/fetch/src/"),
        ("crates/mint/src", "crates/mint/src/"),
        ("crates/redact/src", "crates/redact/src/"),
        ("benches", "benches/"),
    ] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            // The modules of the core are listed by name.
            let named = match file.strip_suffix(".rs") {
                Some("lib") if prefix.is_empty() => continue,
                Some(module) if prefix.is_empty() => format!("| `{module}` |"),
                _ if file.ends_with(".toml") => continue,
                _ => format!("| `{prefix}{file}` |"),
            };
            assert!(map.contains(&named), "{named}");
        }
    }
}

/// A module of the core uses only modules above it in ARCHITECTURE.md's table.
#[test]
fn modules_use_only_those_above() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = std::fs::read_to_string(root.join("../../ARCHITECTURE.md")).unwrap();
    let (_, core) = map.split_once("### The core").unwrap();
    let (core, _) = core.split_once("\n### ").unwrap();
    let names = core.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let names: Vec<&str> = names.collect();
    let mut found = 0;
    for (floor, name) in names.iter().enumerate() {
        let path = root.join("src").join(format!("{name}.rs"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("crate::{"), "{name} has one use line for several modules");
        let used = text
            .split("crate::")
            .skip(1)
            .filter_map(|rest| rest.split(|c: char| !(c.is_ascii_lowercase() || c == '_')).next());
        for used in used.filter(|used| !used.is_empty()) {
            found += 1;
            let is_above = names[..floor].contains(&used);
            assert!(is_above, "{name} uses {used}");
        }
    }
    assert!(found > 50, "{found}");
}
