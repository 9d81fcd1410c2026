//! Every block of code in `README.md` and `docs/` runs as it is printed, in the order of its page.
//!
//! A page is read as a person at a terminal would: a block of `sh` is a script, and a block of `sql` is
//! typed into the psql that the script before it has opened, or into `sudo -u postgres psql`. A block of
//! `ini` goes to the end of `postgresql.conf`. The machine is as Debian sets it up: local connections are
//! of the role that has the name of the user, and connections over TCP need a password.
//!
//! A comment before a block says what else is to be done with it: `<!-- file: NAME -->` that it is a file
//! of this name, `<!-- example: FILE -->` that it is a part of this example, which another test runs, and
//! `<!-- not run: REASON -->` why it cannot run.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::{Cluster, Preload, lacks_library, wait_for};

/// Pages whose blocks other files run, after they have filled in placeholders or have sent what a driver
/// would send.
const ELSEWHERE: [(&str, &str); 4] = [
    ("docs/cookbook.md", include_str!("cookbook/recipe.rs")),
    ("docs/identity-providers.md", include_str!("identity_providers.rs")),
    ("docs/migration.md", include_str!("migration.rs")),
    ("docs/moving.md", include_str!("moving.rs")),
];

/// A block of code on a page.
pub struct Block {
    pub line: usize,
    pub language: String,
    pub code: String,
    /// What the comment before it says.
    mark: Option<String>,
}

impl Block {
    /// What a mark of this kind says.
    pub fn marked(&self, kind: &str) -> Option<&str> {
        self.mark.as_deref()?.strip_prefix(kind)?.strip_prefix(':').map(str::trim)
    }
}

/// The page's text.
pub fn page(path: &str) -> String {
    fs::read_to_string(checkout().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The blocks of a page, also those within lists.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    let mut mark = None;
    while let Some((number, line)) = lines.next() {
        let trimmed = line.trim_start();
        if let Some(comment) = trimmed.strip_prefix("<!--") {
            mark =
                Some(comment.strip_suffix("-->").expect("a comment of one line").trim().to_owned());
        } else if let Some(language) = trimmed.strip_prefix("```") {
            let indent = &line[..line.len() - trimmed.len()];
            let mut code = String::new();
            for (_, line) in lines.by_ref().take_while(|(_, line)| line.trim() != "```") {
                code.push_str(line.strip_prefix(indent).unwrap_or(line));
                code.push('\n');
            }
            let language = language.to_owned();
            blocks.push(Block { line: number + 1, language, code, mark: mark.take() });
        } else if !trimmed.is_empty() {
            mark = None;
        }
    }
    blocks
}

/// A machine on which a page is followed.
pub struct Machine {
    cluster: Cluster,
    /// The folder in which the reader works.
    pub folder: PathBuf,
}

impl Machine {
    fn new() -> Self {
        // In the data directory, which the harness has made for the user of the server.
        let cluster = Cluster::start_bare(Preload::Shared, &[("unix_socket_directories", ".")]);
        let folder = cluster.data().with_file_name("reader");
        fs::create_dir(&folder).unwrap();
        let machine = Self { cluster, folder };
        let user = output(Command::new("id").arg("-un"));
        let (user, data) = (user.trim(), machine.cluster.data());
        machine.write(
            &data.join("pg_ident.conf"),
            &format!("debian {user} postgres\ndebian postgres postgres\n"),
        );
        machine.write(
            &data.join("pg_hba.conf"),
            "local all postgres peer map=debian\n\
             local all all peer\n\
             host all all 127.0.0.1/32 scram-sha-256\n",
        );
        machine.cluster.restart_in_mode("fast");
        machine.write(&machine.folder.join("psqlrc"), "\\set ON_ERROR_STOP 1\n");
        // sudo may not be there, and would take the variables away that lead to this cluster.
        let change = if user == "root" {
            "setpriv --reuid=postgres --regid=postgres --clear-groups"
        } else {
            // The server maps the user of the tests to postgres, whose name psql would give itself.
            "env PGUSER=postgres"
        };
        let sudo = "[ \"$1 $2\" = '-u postgres' ] || exit 1\nshift 2\n";
        machine.add_program("sudo", &format!("{sudo}exec {change} \"$@\""));
        // The reader does not leave files in the checkout.
        let (cargo, manifest) = (env!("CARGO"), checkout().join("Cargo.toml"));
        let options = format!("--locked --manifest-path {}", manifest.display());
        machine.add_program(
            "cargo",
            &format!("command=$1\nshift\nexec {cargo} $command {options} \"$@\""),
        );
        machine
    }

    fn add_program(&self, name: &str, script: &str) {
        let path = self.folder.join(name);
        self.write(&path, &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Over the file that may be there, which keeps its owner.
    fn write(&self, path: &Path, text: &str) {
        fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Runs a script of the shell, and returns what it prints.
    pub fn run(&self, script: &str, context: &str) -> String {
        let mut shell = Command::new("/bin/sh");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
            shell.env_remove(name);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        // The cluster's own programs, whose pg_config knows where its files of the extension are.
        let programs = output(self.cluster.program("pg_config").arg("--bindir"));
        shell.env("PATH", format!("{}:{}:{path}", self.folder.display(), programs.trim()));
        shell.env("PGHOST", self.cluster.data()).env("PGPORT", self.cluster.port().to_string());
        shell.env("PSQLRC", self.folder.join("psqlrc")).env("LC_ALL", "C.UTF-8");
        // What the script has started in the background, in the shell's process group, ends with it.
        let script = format!("trap 'trap \"\" TERM; kill 0' EXIT\n{script}");
        shell
            .process_group(0)
            .args(["-eu", "-c", &script])
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        let output = shell.output().expect("a shell");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{context}:\n{script}\n{printed}\n{errors}");
        printed
    }

    fn configure(&self, lines: &str) {
        let path = self.cluster.data().join("postgresql.conf");
        fs::OpenOptions::new()
            .append(true)
            .open(path)
            .unwrap()
            .write_all(lines.as_bytes())
            .unwrap();
        self.cluster.restart_in_mode("fast");
    }
}

/// Follows a page after these statements of a superuser, and returns what it prints.
fn follow(path: &str, setup: &str) -> String {
    let mut reader = Reader::default();
    if !setup.is_empty() {
        reader.type_into_psql(setup);
        reader.leave_psql();
    }
    reader.follow(&page(path), path);
    reader.printed
}

/// A person at a terminal: what is typed, and is still to be run.
#[derive(Default)]
pub struct Reader {
    machine: Option<Machine>,
    script: String,
    /// Whether the script has opened a psql, which reads on.
    is_in_psql: bool,
    printed: String,
}

impl Reader {
    const END: &str = "END_OF_THE_BLOCK";

    /// Follows a text of a page. Its path says where a failure is.
    pub fn follow(&mut self, text: &str, path: &str) {
        for block in blocks(text) {
            let context = format!("{path}:{}", block.line);
            if let Some(reason) = block.marked("not run") {
                assert!(!reason.is_empty(), "{context}: a reason");
            } else if let Some(file) = block.marked("example") {
                let example = page(&format!("examples/{file}"));
                assert!(
                    example.contains(&block.code),
                    "{context}: {file} has not:\n{}",
                    block.code
                );
                // Drizzle's migration is generated from the schema.
                let run = match file {
                    "rust/main.rs" => "\"rust/Cargo.toml\"".to_owned(),
                    "drizzle/schema.ts" => "./schema.ts".to_owned(),
                    _ => format!("{file:?}"),
                };
                assert!(include_str!("clients.rs").contains(&run), "{context}: {file} is not run");
            } else if let Some(name) = block.marked("file") {
                let path = self.machine().folder.join(name);
                fs::write(&path, &block.code).expect(name);
            } else {
                match block.language.as_str() {
                    "sh" => self.type_into_shell(block.code.trim_end()),
                    "sql" => {
                        // A driver's parameters mean nothing to psql.
                        assert!(!block.code.contains("$1"), "{context}: a parameter");
                        self.type_into_psql(&block.code);
                    }
                    "ini" => self.configure(&block.code, path),
                    other => {
                        panic!("{context}: a block of {other:?} neither runs nor says why not")
                    }
                }
            }
        }
        self.run(path);
    }

    /// The machine on which the reader has followed a page.
    pub fn ready(&self) -> &Machine {
        self.machine.as_ref().expect("a page that was followed")
    }

    pub fn machine(&mut self) -> &Machine {
        self.machine.get_or_insert_with(Machine::new)
    }

    pub fn type_into_shell(&mut self, code: &str) {
        self.leave_psql();
        self.is_in_psql = code.lines().last().is_some_and(opens_psql);
        self.script.push_str(code);
        if self.is_in_psql {
            self.script.push_str(&format!(" <<'{}'", Self::END));
        }
        self.script.push('\n');
    }

    fn type_into_psql(&mut self, code: &str) {
        if !self.is_in_psql {
            self.type_into_shell("sudo -u postgres psql");
        }
        self.script.push_str(code);
        self.script.push('\n');
    }

    fn leave_psql(&mut self) {
        if std::mem::take(&mut self.is_in_psql) {
            self.script.push_str(&format!("{}\n", Self::END));
        }
    }

    fn configure(&mut self, lines: &str, context: &str) {
        self.run(context);
        self.machine().configure(lines);
    }

    fn run(&mut self, context: &str) {
        self.leave_psql();
        let script = std::mem::take(&mut self.script);
        if !script.is_empty() {
            let printed = self.machine().run(&script, context);
            self.printed.push_str(&printed);
        }
    }
}

/// Whether a command opens psql for the statements that follow.
fn opens_psql(command: &str) -> bool {
    let words: Vec<&str> = command.split_whitespace().collect();
    let command = words.strip_prefix(&["sudo", "-u", "postgres"]).unwrap_or(&words);
    command.first() == Some(&"psql")
        && !command.iter().any(|word| ["-c", "-f", "<", "|", "-l"].contains(word))
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the checkout")
}

/// Asserts that these lines are printed in this order, among others.
fn assert_prints(printed: &str, lines: &[&str]) {
    let mut rest = printed.lines().map(str::trim);
    for line in lines {
        assert!(rest.any(|printed| printed == *line), "{line:?} is not printed:\n{printed}");
    }
}

#[test]
fn clients() {
    follow("docs/clients.md", "");
}

#[test]
fn errors() {
    follow("docs/errors.md", "");
}

#[test]
fn readme() {
    if lacks_library(&["pgcrypto"]) {
        return;
    }
    let printed = follow("README.md", "");
    assert_prints(&printed, &["alice | water the plants", "(1 row)", "0"]);
}

#[test]
fn getting_started() {
    if lacks_library(&["pgcrypto"]) {
        return;
    }
    let printed = follow("docs/getting-started.md", "");
    // By SQL, by Python and by Node: each token is alice's, and no identity is left.
    let row = "alice | water the plants";
    assert_prints(&printed, &[row, "0", row, row, "0", row, row, row, "0"]);
}

#[test]
fn installation() {
    let printed = follow("docs/installation.md", "");
    let is_token = |line: &str| line.starts_with("ey") && line.split('.').count() == 3;
    assert!(printed.lines().any(is_token), "the token: {printed}");
}

#[test]
fn operations() {
    let setup = format!(
        "{EXTENSION} SELECT auth.add_provider('hmac', secret => 'an-old-secret-of-at-least-32-bytes');
         SELECT auth.add_provider('own', issuer => 'own', secret => repeat('k!8', 20));
         UPDATE auth.providers SET secret = NULL, jwks = '{{\"kty\": \"oct\", \"k\": \"a2V5LWtleS1rZXkta2V5LWtleS1rZXkta2V5LWtleS0\"}}'
         WHERE name = 'own';"
    );
    let printed = follow("docs/operations.md", &setup);
    assert_prints(&printed, &["hmac | own keys", "own  | own keys", "1.0.0"]);
}

#[test]
fn performance() {
    follow("docs/performance.md", &format!("{EXTENSION} CREATE TABLE docs (owner text);"));
}

#[test]
fn permissions() {
    follow("docs/permissions.md", &format!("{EXTENSION} CREATE TABLE comments (body text);"));
}

#[test]
fn poolers() {
    follow(
        "docs/poolers.md",
        &format!("{EXTENSION} CREATE TABLE todos (); CREATE ROLE app LOGIN;"),
    );
}

#[test]
fn providers() {
    let printed = follow("docs/providers.md", &format!("{EXTENSION} CREATE ROLE dba;"));
    // The keys of both examples are fetched: over http from a listed host, and from one with a certificate of its own.
    assert_prints(
        &printed,
        &["alice   | https://login.local.example", "bob     | https://login.private.example"],
    );
    for port in [18080, 18443] {
        let ended = || std::net::TcpStream::connect(("127.0.0.1", port)).is_err();
        wait_for(&format!("the server at port {port} to end"), ended);
    }
}

#[test]
fn roles() {
    follow("docs/roles.md", EXTENSION);
}

#[test]
fn revocation() {
    let printed = follow("docs/revocation.md", &format!("{EXTENSION} CREATE ROLE app LOGIN;"));
    // The first revocation has the number 1, and the last one has not expired.
    assert_prints(&printed, &["1", "CREATE FUNCTION", "6", "0"]);
}

#[test]
fn troubleshooting() {
    let setup = format!(
        "{EXTENSION} CREATE TABLE todos (owner text DEFAULT auth.user_id(), task text);
        ALTER TABLE todos ENABLE ROW LEVEL SECURITY; CREATE ROLE app LOGIN;
        CREATE POLICY own_rows ON todos USING (owner = auth.user_id());
        GRANT SELECT, INSERT, UPDATE, DELETE ON todos TO app;"
    );
    follow("docs/troubleshooting.md", &setup);
}

#[test]
fn upgrading() {
    let setup = format!(
        "{EXTENSION}
        CREATE ROLE supabase_auth_admin; CREATE DATABASE app;
        \\connect app
        CREATE SCHEMA auth AUTHORIZATION supabase_auth_admin;
        GRANT CREATE ON SCHEMA auth TO supabase_auth_admin;
        CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS 'SELECT NULL::uuid';
        CREATE TABLE profiles (id uuid DEFAULT auth.uid());"
    );
    let printed = follow("docs/upgrading.md", &setup);
    let used = "auth.uid()   | default value for column id of table public.profiles";
    let dry_run = "Dry run: nothing is changed. Use -v apply=on to replace the functions.";
    let replaced = "The functions are replaced. Sessions need a token from now on.";
    assert_prints(&printed, &["ALTER EXTENSION", used, dry_run, used, replaced, "REVOKE"]);
}

#[test]
fn reference() {
    let printed = follow("docs/reference.md", EXTENSION);
    assert_prints(&printed, &["CREATE ROLE", "GRANT"]);
}

const EXTENSION: &str = "CREATE EXTENSION pg_session_jwt;";

/// The paths of `README.md` and the pages of the manual.
fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    for entry in fs::read_dir(checkout().join("docs")).unwrap().map(Result::unwrap) {
        pages.extend(entry.file_name().into_string().ok().map(|name| format!("docs/{name}")));
    }
    pages.retain(|path| path.ends_with(".md"));
    pages
}

/// A page with blocks is followed here, or is run by another file.
#[test]
fn every_page_is_run() {
    let mut count = 0;
    for path in &pages() {
        if blocks(&page(path)).is_empty() {
            continue;
        }
        count += 1;
        let name = path.rsplit('/').next().expect("a name");
        let calls = include_str!("blocks.rs").replace(char::is_whitespace, "");
        let is_followed = calls.contains(&format!("follow(\"{path}\","));
        let is_elsewhere = ELSEWHERE.iter().any(|(page, test)| page == path && test.contains(name));
        assert!(is_followed != is_elsewhere, "{path}");
    }
    assert!(count > 12, "{count} pages with blocks");
}

/// Times that were measured are in `docs/benchmarks*.md` alone, so that no page has an outdated one.
#[test]
fn figures_stand_once() {
    let measured = |text: &str| {
        let words: Vec<&str> =
            text.split(|c: char| c.is_whitespace() || "|(),;:".contains(c)).collect();
        let is_number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
        let is_unit = |word: &str| {
            ["ns", "nanoseconds", "µs", "microseconds", "ms", "tps"]
                .contains(&word.trim_end_matches('.'))
        };
        // Also "a few nanoseconds".
        let is_figure = |word: &str| is_number(word) || word == "few";
        words.windows(2).any(|pair| is_figure(pair[0]) && is_unit(pair[1]))
    };
    assert!(measured("It takes 1.5 µs."), "a figure");
    for path in pages().iter().filter(|path| !path.contains("benchmarks")) {
        for line in page(path).lines() {
            assert!(!measured(line), "{path}: {line}");
        }
    }
}

#[test]
fn blocks_are_found() {
    let page = "text\n```sh\na\n\nb\n```\n\n<!-- not run: why -->\n\n- x\n<!-- file: f -->\n  ```sql\n  c\n    d\n  ```\n";
    let blocks = blocks(page);
    let found: Vec<_> =
        blocks.iter().map(|block| (block.line, &*block.language, &*block.code)).collect();
    assert_eq!(found, [(2, "sh", "a\n\nb\n"), (12, "sql", "c\n  d\n")]);
    assert_eq!(blocks[0].marked("not run"), None, "a comment belongs to the block after it");
    assert_eq!(blocks[1].marked("file"), Some("f"), "the last comment counts");
    for (command, opens) in [
        ("sudo -u postgres psql", true),
        ("psql \"postgresql://app@localhost/postgres\" -v token=\"$TOKEN\"", true),
        ("sudo -u postgres psql -c 'SELECT 1'", false),
        ("pg_dump postgres", false),
    ] {
        assert_eq!(opens_psql(command), opens, "{command}");
    }
}
