//! The floor plan of `ARCHITECTURE.md`, held against the code: a file uses only files on lower floors, or
//! files that the plan lists below it on its own floor.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The directory whose files have a plan.
const PLANNED: &str = "src";

#[test]
fn the_code_keeps_to_the_floor_plan() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let architecture = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let faults = faults(&plan(&architecture, PLANNED), &sources(&root.join(PLANNED)));
    assert!(faults.is_empty(), "{faults}");
}

/// The files of a directory in the order of the plan, from the top. The plan is a table whose second column
/// lists files; the files of one cell are listed from the top too.
fn plan(architecture: &str, directory: &str) -> Vec<String> {
    let prefix = format!("{directory}/");
    let rows = architecture.lines().filter(|line| line.starts_with("| ") || line.starts_with("|-"));
    let cells = rows.filter_map(|row| row.split('|').nth(2));
    let words = cells.flat_map(|cell| cell.split([' ', ',']));
    let files = words.filter_map(|word| word.strip_prefix('`')?.strip_suffix('`'));
    files
        .filter_map(|file| file.strip_prefix(&prefix))
        .filter(|file| file.ends_with(".rs"))
        .map(str::to_owned)
        .collect()
}

/// The text of each file below a directory.
fn sources(directory: &Path) -> BTreeMap<String, String> {
    fn visit(root: &Path, directory: PathBuf, sources: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(root, path, sources);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                sources.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut sources = BTreeMap::new();
    visit(directory, directory.to_owned(), &mut sources);
    sources
}

/// The violations of a plan, one a line.
fn faults(plan: &[String], sources: &BTreeMap<String, String>) -> String {
    let mut faults = String::new();
    let floor = |file: &str| plan.iter().position(|planned| planned == file);
    for file in sources.keys().filter(|file| floor(file).is_none()) {
        writeln!(faults, "{file} is on no floor").unwrap();
    }
    for (place, file) in plan.iter().enumerate() {
        if !sources.contains_key(file) {
            writeln!(faults, "{file} is planned but does not exist").unwrap();
        }
        if plan.iter().take(place).any(|earlier| earlier == file) {
            writeln!(faults, "{file} is planned twice").unwrap();
        }
    }
    for (file, source) in sources {
        for used in used_files(file, source, sources) {
            // A file higher up, or the same one again: the order makes circles impossible.
            if floor(&used).zip(floor(file)).is_some_and(|(used, user)| used < user) {
                writeln!(faults, "{file} uses {used}, which is above it").unwrap();
            }
        }
    }
    faults
}

/// The files that a file refers to by a path: in `use`, in expressions and types, and in macros.
fn used_files(file: &str, source: &str, sources: &BTreeMap<String, String>) -> Vec<String> {
    let module = module_of(file);
    let mut paths = Vec::new();
    let tokens: TokenStream = source.parse().unwrap();
    collect_paths(tokens, &module, sources, &mut paths);
    let mut used: Vec<String> = paths
        .iter()
        .filter_map(|path| file_of(path, sources))
        .filter(|used| used != file)
        .collect();
    used.sort();
    used.dedup();
    used
}

/// The module of a file: `pg/guc.rs` is `pg::guc`, and `pg/mod.rs` is `pg`.
fn module_of(file: &str) -> Vec<String> {
    let mut module: Vec<String> =
        file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    module
}

/// The file of the module that the beginning of a path names, as long as possible.
fn file_of(path: &[String], sources: &BTreeMap<String, String>) -> Option<String> {
    (1..=path.len()).rev().find_map(|length| {
        let module = path[..length].join("/");
        [format!("{module}.rs"), format!("{module}/mod.rs")]
            .into_iter()
            .find(|file| sources.contains_key(file))
    })
}

/// Collects the absolute paths in tokens: those that begin with `crate`, `super`, `self` or a child module.
fn collect_paths(
    tokens: TokenStream,
    module: &[String],
    sources: &BTreeMap<String, String>,
    paths: &mut Vec<Vec<String>>,
) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (place, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => {
                let inline = inline_module(&tokens, place);
                let module = [module, inline.as_slice()].concat();
                collect_paths(group.stream(), &module, sources, paths);
            }
            // `pub(super)` and a receiver `self` are no paths.
            TokenTree::Ident(ident)
                if !follows_path(&tokens, place) && is_path_separator(&tokens, place + 1) =>
            {
                let mut start = module.to_vec();
                match ident.to_string().as_str() {
                    "crate" => start.clear(),
                    "self" => {}
                    "super" => drop(start.pop()),
                    child => {
                        start.push(child.to_owned());
                        let is_child = !module.is_empty()
                            && file_of(&start, sources) != file_of(module, sources);
                        if !is_child {
                            continue;
                        }
                    }
                }
                follow_path(&tokens, place + 1, start, paths);
            }
            _ => {}
        }
    }
}

/// The name of the module, if the tokens at a place are its body.
fn inline_module(tokens: &[TokenTree], place: usize) -> Option<String> {
    let before = |distance: usize| place.checked_sub(distance).and_then(|place| tokens.get(place));
    match (before(2), before(1)) {
        (Some(TokenTree::Ident(keyword)), Some(TokenTree::Ident(name))) if keyword == "mod" => {
            Some(name.to_string())
        }
        _ => None,
    }
}

/// Whether the identifier at a place continues a path or is a field or a method.
fn follows_path(tokens: &[TokenTree], place: usize) -> bool {
    let is = |token: Option<&TokenTree>, character| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character);
    let before = |distance: usize| place.checked_sub(distance).and_then(|place| tokens.get(place));
    is(before(1), '.') || (is(before(1), ':') && is(before(2), ':'))
}

fn is_path_separator(tokens: &[TokenTree], place: usize) -> bool {
    let is_colon = |place| matches!(tokens.get(place), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    is_colon(place) && is_colon(place + 1)
}

/// Adds the paths that continue `path` from a place in the tokens: one, or those of a group in braces.
fn follow_path(
    tokens: &[TokenTree],
    mut place: usize,
    mut path: Vec<String>,
    paths: &mut Vec<Vec<String>>,
) {
    while is_path_separator(tokens, place) {
        match tokens.get(place + 2) {
            Some(TokenTree::Ident(ident)) if ident == "super" => drop(path.pop()),
            Some(TokenTree::Ident(ident)) if ident == "self" => {}
            Some(TokenTree::Ident(ident)) => path.push(ident.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
                for tree in inner.split(is_comma) {
                    let mut path = path.clone();
                    match tree.first() {
                        Some(TokenTree::Ident(ident)) if ident == "self" => {}
                        Some(TokenTree::Ident(ident)) => path.push(ident.to_string()),
                        _ => continue,
                    }
                    follow_path(tree, 1, path, paths);
                }
                return;
            }
            _ => break,
        }
        place += 3;
    }
    paths.push(path);
}

/// A plan with two floors and files that keep to it.
fn example() -> (Vec<String>, BTreeMap<String, String>) {
    let plan = ["lib.rs", "top.rs", "rooms/mod.rs", "rooms/a.rs", "rooms/b.rs", "base.rs"];
    let sources = [
        ("lib.rs", "mod base; mod rooms; mod top;"),
        ("top.rs", "use crate::rooms::{self, a::{A, B as C}}; fn f() { rooms::g() }"),
        ("rooms/mod.rs", "mod a; mod b; pub(crate) use b::g;"),
        ("rooms/a.rs", "use super::b; use crate::base::Base;"),
        ("rooms/b.rs", "pub(super) fn g(self) { f!(crate::base::now()) }"),
        ("base.rs", "use std::fmt; mod inner { use super::Base; }"),
    ];
    let owned = |(file, source): (&str, &str)| (file.to_owned(), source.to_owned());
    (plan.map(str::to_owned).to_vec(), sources.map(owned).into_iter().collect())
}

#[test]
fn violations_are_found() {
    let (plan, sources) = example();
    assert_eq!(faults(&plan, &sources), "", "the example keeps to the plan");
    for (file, source, fault) in [
        ("base.rs", "use crate::top;", "base.rs uses top.rs, which is above it\n"),
        ("base.rs", "use crate::{rooms::{b}};", "base.rs uses rooms/b.rs, which is above it\n"),
        ("base.rs", "fn f() -> super::top::T {}", "base.rs uses top.rs, which is above it\n"),
        (
            "base.rs",
            "fn f() { m!(x, crate::top::f()) }",
            "base.rs uses top.rs, which is above it\n",
        ),
        (
            "base.rs",
            "macro_rules! m { () => { $crate::top::f() } }",
            "base.rs uses top.rs, which is above it\n",
        ),
        ("rooms/b.rs", "use super::a::A;", "rooms/b.rs uses rooms/a.rs, which is above it\n"),
        ("rooms/b.rs", "use super::g;", "rooms/b.rs uses rooms/mod.rs, which is above it\n"),
        ("rooms/b.rs", "use super::*;", "rooms/b.rs uses rooms/mod.rs, which is above it\n"),
        ("rooms/c.rs", "", "rooms/c.rs is on no floor\n"),
    ] {
        let mut changed = sources.clone();
        changed.insert(file.to_owned(), source.to_owned());
        assert_eq!(faults(&plan, &changed), fault, "{file}: {source}");
    }
    let mut missing = sources.clone();
    missing.remove("base.rs");
    assert_eq!(faults(&plan, &missing), "base.rs is planned but does not exist\n");
    let twice = [plan.clone(), vec!["top.rs".to_owned()]].concat();
    assert_eq!(faults(&twice, &sources), "top.rs is planned twice\n");
}

#[test]
fn the_plan_is_read_from_the_table() {
    let text = "| floor | files | purpose |\n|---|---|---|\n| 2 | `src/top.rs`, `src/rooms/a.rs` | \
                uses `src/no.rs` |\n| 1 | `src/base.rs`, `crates/x` | |\n";
    assert_eq!(plan(text, "src"), ["top.rs", "rooms/a.rs", "base.rs"], "in the order of the table");
}
