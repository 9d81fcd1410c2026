//! The tables of the documentation equal those of the code.

use std::collections::BTreeSet;
use std::path::Path;

use session_jwt::{CLAIM_CHECKS, Code, MAX_TOKEN_BYTES, PROVIDER_MEMBERS, ROW_MEMBERS};

const REFERENCE: &str = include_str!("../../../docs/reference.md");

const ERRORS: &str = include_str!("../../../docs/errors.md");

/// The rows of the table under a heading of `docs/reference.md`, without the header row.
fn table(heading: &str) -> Vec<&'static str> {
    rows(section(REFERENCE, heading))
}

fn section(page: &'static str, heading: &str) -> &'static str {
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).expect(heading);
    section.split("\n## ").next().unwrap_or_default()
}

fn rows(section: &'static str) -> Vec<&'static str> {
    section.lines().filter(|line| line.starts_with('|')).skip(2).collect()
}

#[test]
fn error_codes() {
    let overview = rows(ERRORS.split("\n## ").next().unwrap_or_default());
    assert_eq!(overview.len(), Code::ALL.len(), "a row for each code");
    for (row, code) in overview.iter().zip(Code::ALL) {
        let (state, meaning) = (code.sqlstate(), code.meaning());
        let expected = format!("| [{state}](#{}) | {meaning} | ", state.to_lowercase());
        assert!(row.starts_with(&expected), "{expected}: {row}");
    }
}

/// Each section of `docs/errors.md` has the messages of its code, and no other ones.
#[test]
fn error_messages() {
    let known = messages();
    assert!(known.len() > 50, "{known:?}");
    for code in Code::ALL {
        let section = section(ERRORS, code.sqlstate());
        let listed = rows(section).into_iter().flat_map(|row| {
            let cell = row.split(" | ").next().unwrap_or_default();
            cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
        });
        let listed: BTreeSet<String> = listed.collect();
        let raised = known.iter().filter(|(of, _)| *of == code.sqlstate());
        let raised: BTreeSet<String> = raised.map(|(_, message)| message.clone()).collect();
        let of_script = match code {
            Code::Configuration => script_messages("invalid_parameter_value"),
            Code::Forbidden => script_messages("insufficient_privilege"),
            Code::NoProvider => script_messages("undefined_object"),
            Code::Prerequisite => script_messages("object_not_in_prerequisite_state"),
            _ => Vec::new(),
        };
        let invented: Vec<_> =
            listed.difference(&raised).filter(|message| !of_script.contains(message)).collect();
        assert!(invented.is_empty(), "{}: {invented:?}", code.sqlstate());
        // Most messages of this code are about what an administrator writes.
        if code != Code::Configuration {
            let missing: Vec<_> = raised.difference(&listed).collect();
            assert!(missing.is_empty(), "{}: {missing:?}", code.sqlstate());
        }
        assert!(!listed.is_empty(), "{}", code.sqlstate());
    }
}

/// The messages that the install script raises with a condition.
fn script_messages(condition: &str) -> Vec<String> {
    const SCRIPT: &str = include_str!("../../../sql/pg_session_jwt--1.0.0.sql");
    let raised = SCRIPT.split("RAISE EXCEPTION '").skip(1);
    let message = |raised: &str| {
        let (message, rest) = raised.split_once('\'')?;
        let named = rest.split("ERRCODE = '").nth(1)?.split('\'').next()?;
        (named == condition).then(|| message.to_owned())
    };
    raised.filter_map(message).collect()
}

/// The page lists the warnings of the sources and of the scripts, with `…` for a value.
#[test]
fn warnings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut sources = Vec::new();
    let mut folders = vec![root.join("src"), root.join("sql")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                sources.push(std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut raised = BTreeSet::new();
    for (start, quote) in
        [("error::warn(", '"'), ("error::warn_of_no_block(", '"'), ("RAISE WARNING ", '\'')]
    {
        for call in sources.iter().flat_map(|source| source.split(start).skip(1)) {
            let message = call.split(quote).nth(1).expect("a message");
            let parts =
                message.split('{').map(|part| part.split_once('}').map_or(part, |(_, end)| end));
            raised.insert(parts.collect::<Vec<_>>().join("…"));
        }
    }
    let listed: BTreeSet<String> = rows(section(ERRORS, "Warnings"))
        .into_iter()
        .flat_map(|row| {
            let cell = row.split(" | ").next().unwrap_or_default();
            cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(listed, raised);
    assert!(raised.len() > 8, "{raised:?}");
}

/// The SQLSTATEs and messages of all rejections in the sources.
fn messages() -> BTreeSet<(&'static str, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = BTreeSet::new();
    let mut folders = vec![root.join("src"), root.join("crates/session-jwt/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            for call in text.split("reject(").chain(text.split("Rejection::new(")).skip(1) {
                let code =
                    call.trim_start().strip_prefix("Code::").and_then(|rest| rest.split_once(','));
                let Some((name, rest)) = code else { continue };
                let message =
                    rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
                let of_name = Code::ALL.iter().find(|code| format!("{code:?}") == name);
                if let (Some(code), Some(message)) = (of_name, message) {
                    found.insert((code.sqlstate(), message.to_owned()));
                }
            }
        }
    }
    // The messages that are not written beside their code.
    for (code, message) in [
        (Code::NoKey, "no provider is configured"),
        (Code::Forbidden, "permission denied to transfer ownership"),
        (Code::Forbidden, "permission denied to change roles"),
    ] {
        found.insert((code.sqlstate(), message.to_owned()));
    }
    found
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
