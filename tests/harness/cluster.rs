//! Throwaway clusters with the extension in them.
//!
//! A cluster lives in a temporary folder of its own, together with a copy of Postgres' programs:
//! they look for their files relative to where they are, so the extension can be put beside them
//! without touching the machine's installation, and without being root. Where we are root, the
//! server runs as `postgres`, since it refuses to run as root.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use postgres::Client;

use crate::{Connection, free_port, note_skipped, now, send_signal, text, wait_for};

/// Whether and how the server loads the library before it is first called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preload {
    /// `shared_preload_libraries`
    Shared,
    /// `session_preload_libraries`
    Session,
    /// Neither: the first call of a function loads it.
    Neither,
}

impl Preload {
    /// All three.
    pub const ALL: [Preload; 3] = [Preload::Shared, Preload::Session, Preload::Neither];
}

/// A running server. Dropping it stops the server and removes the folder. So does the end of the
/// process, in whichever way it ends.
pub struct Cluster {
    folder: PathBuf,
    programs: PathBuf,
    libraries: PathBuf,
    extensions: PathBuf,
    port: u16,
    guard: Option<Child>,
}

/// A Postgres, and the extension's library for it.
pub struct Installation {
    pg_config: String,
    library: PathBuf,
}

impl Installation {
    /// The Postgres and the library that are tested.
    pub fn tested() -> Self {
        let pg_config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".to_owned());
        Self { pg_config, library: library() }
    }

    /// The older servers that `make test-matrix` provides for upgrades to the tested one. Where there are
    /// none, it says so.
    pub fn older() -> Vec<Self> {
        let variable = |name| std::env::var(name).ok();
        let found = variable("OLDER_PG_CONFIG").zip(variable("OLDER_EXTENSION_LIBRARY"));
        let Some((pg_configs, library)) = found else {
            note_skipped("no older server to upgrade from, which make test-matrix provides");
            return Vec::new();
        };
        let installation = |pg_config: &str| {
            let library = PathBuf::from(&library);
            Self { pg_config: pg_config.to_owned(), library }
        };
        pg_configs.split(':').map(installation).collect()
    }

    /// Whether the tested Postgres can upgrade this one. The releases of November 2026 store `pg_attver` in the
    /// options of columns. `pg_dump` of the earlier releases dumps it, and their servers reject it.
    pub fn can_be_upgraded(&self) -> bool {
        Self::tested().is_of_november_2026() || !self.is_of_november_2026()
    }

    /// Whether this is a release of November 2026 or a later one.
    pub(crate) fn is_of_november_2026(&self) -> bool {
        let (major, minor) = self.release();
        let first = match major {
            15 => 20,
            16 => 16,
            17 => 12,
            18 => 7,
            _ => 0,
        };
        minor >= first
    }

    /// The major and the minor version of Postgres.
    fn release(&self) -> (u32, u32) {
        let version = self.path("--version");
        let numbers = version.to_str().and_then(|version| version.strip_prefix("PostgreSQL "));
        let mut numbers = numbers.unwrap_or_default().split(['.', ' ']).map(str::parse);
        let (Some(Ok(major)), minor) = (numbers.next(), numbers.next()) else {
            panic!("{} has no version", version.display());
        };
        // A release before the first one, such as 19beta4, has no minor version.
        (major, minor.and_then(Result::ok).unwrap_or(0))
    }

    /// What `pg_config` says for an option.
    fn path(&self, option: &str) -> PathBuf {
        let output = Command::new(&self.pg_config).arg(option).output();
        let output =
            output.unwrap_or_else(|error| panic!("cannot run {}: {error}", self.pg_config));
        PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
    }
}

impl Cluster {
    /// Starts a cluster whose `postgresql.conf` has these settings, with the extension created in
    /// the database `postgres`, and an ordinary login role `app`.
    pub fn start(preload: Preload, settings: &[(&str, &str)]) -> Self {
        let cluster = Self::start_bare(preload, settings);
        cluster
            .admin()
            .batch_execute("CREATE EXTENSION pg_session_jwt; CREATE ROLE app LOGIN;")
            .unwrap();
        cluster
    }

    /// The same without extension and role.
    pub fn start_bare(preload: Preload, settings: &[(&str, &str)]) -> Self {
        let cluster = Self::initialize(&Installation::tested(), preload, settings, &[]);
        cluster.start_server();
        cluster
    }

    /// A cluster that is not started, made by `initdb` with these options.
    pub fn initialize(
        installation: &Installation,
        preload: Preload,
        settings: &[(&str, &str)],
        options: &[&str],
    ) -> Self {
        let cluster = Self::without_data(installation);
        complete(
            cluster
                .program("initdb")
                .args(["--no-sync", "--no-instructions", "-U", "postgres"])
                .args(["-A", "trust", "-E", "UTF8", "--locale=C"])
                .args(options)
                .arg("-D")
                .arg(cluster.data()),
        );
        let library = match preload {
            Preload::Shared => "shared_preload_libraries",
            Preload::Session => "session_preload_libraries",
            Preload::Neither => "",
        };
        let mut configuration = vec![
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", ""),
            ("fsync", "off"),
            ("max_connections", "200"),
            ("log_line_prefix", "%m [%p] %q%u "),
            ("log_destination", "stderr"),
            ("logging_collector", "off"),
        ];
        if !library.is_empty() {
            configuration.push((library, "pg_session_jwt"));
        }
        configuration.extend_from_slice(settings);
        cluster.append_configuration(&configuration);
        cluster
    }

    /// Takes the data of a cluster of an older Postgres over with `pg_upgrade`, and starts the server. The
    /// older server is stopped.
    pub fn upgrade_from(&self, older: &Cluster) {
        older.stop_server("fast");
        complete(
            self.program("pg_upgrade")
                .args(["--no-sync", "-U", "postgres", "-b"])
                .arg(&older.programs)
                .arg("-B")
                .arg(&self.programs)
                .arg("-d")
                .arg(older.data())
                .arg("-D")
                .arg(self.data())
                .args(["-p", &older.port.to_string(), "-P", &self.port.to_string(), "-s"])
                .arg(self.home()),
        );
        self.start_server();
    }

    /// Writes a file of the extension, such as its control file.
    pub fn install(&self, name: &str, text: &str) {
        fs::write(self.extensions.join(name), text).unwrap();
    }

    /// The text of a file of the extension.
    pub fn installed(&self, name: &str) -> String {
        fs::read_to_string(self.extensions.join(name)).unwrap()
    }

    /// Replaces the library by this one, as package managers do: the new file gets the name, and sessions
    /// that have loaded the old file keep it.
    pub fn replace_library(&self, library: &[u8]) {
        let new = self.libraries.join("pg_session_jwt.so.new");
        fs::write(&new, library).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&new, self.library()).unwrap();
    }

    /// The file of the extension's library.
    pub fn library(&self) -> PathBuf {
        self.libraries.join("pg_session_jwt.so")
    }

    /// Starts a hot standby that streams from this cluster, with a copy of its `postgresql.conf`.
    pub fn standby(&self) -> Self {
        let standby = Self::without_data(&Installation::tested());
        complete(
            standby
                .program("pg_basebackup")
                .args(["--no-sync", "--checkpoint=fast", "--write-recovery-conf", "-U", "postgres"])
                .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-D"])
                .arg(standby.data()),
        );
        standby.start_server();
        standby
    }

    /// A folder with Postgres' programs, and a home for the owner to put data in.
    fn without_data(installation: &Installation) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pg_session_jwt.{}.{count}.{}", std::process::id(), now());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a temporary folder");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let programs = inside(&folder, &installation.path("--bindir"));
        let libraries = inside(&folder, &installation.path("--pkglibdir"));
        let extensions = inside(&folder, &installation.path("--sharedir")).join("extension");
        let port = free_port();
        let mut cluster = Self { folder, programs, libraries, extensions, port, guard: None };
        cluster.guard = Some(cluster.start_guard());
        stage(&cluster.folder, installation);
        let home = cluster.home();
        fs::create_dir(&home).unwrap();
        if is_root() {
            complete(Command::new("chown").arg("postgres:").arg(&home));
        }
        cluster
    }

    /// A connection as the superuser, to the database `postgres`.
    pub fn admin(&self) -> Client {
        self.as_role("postgres").client()
    }

    /// A connection as this role, to the database `postgres`.
    pub fn as_role(&self, user: &str) -> Connection {
        Connection::new(self.port, user)
    }

    /// The port on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// One of Postgres' programs, ready to run as the owner of the cluster, in a folder that is
    /// the owner's.
    pub fn program(&self, name: &str) -> Command {
        as_owner(&self.programs.join(name), &self.home())
    }

    /// Writes settings to the end of `postgresql.conf`; the last of a name counts.
    pub fn append_configuration(&self, settings: &[(&str, &str)]) {
        let path = self.data().join("postgresql.conf");
        let mut text = fs::read_to_string(&path).unwrap();
        for (name, value) in settings {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        // Over the file that is there, which keeps its owner.
        fs::write(&path, text).unwrap();
    }

    /// Has the server read its configuration again, and waits until it has.
    pub fn reload(&self) {
        let mut admin = self.admin();
        let loaded = "SELECT pg_conf_load_time()::text";
        let before: String = admin.query_one(loaded, &[]).unwrap().get(0);
        admin.execute("SELECT pg_reload_conf()", &[]).unwrap();
        // The time that a new session inherits is the postmaster's.
        wait_for("the configuration to be read", || {
            let after: String = self.admin().query_one(loaded, &[]).unwrap().get(0);
            after != before
        });
    }

    /// Stops the server and starts it again.
    pub fn restart(&self) {
        self.restart_in_mode("immediate");
    }

    /// The same with this mode of `pg_ctl stop`.
    pub fn restart_in_mode(&self, mode: &str) {
        self.stop_server(mode);
        self.start_server();
    }

    /// Stops the server and starts it again, with these options on its command line.
    pub fn restart_with_options(&self, options: &str) {
        self.stop_server("immediate");
        self.start_server_with(options);
    }

    /// Ends the postmaster so that it can tell nobody, as a lack of memory would.
    pub fn kill_postmaster(&self) {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let pid = file.lines().next().and_then(|line| line.parse().ok()).expect("a process id");
        send_signal("KILL", pid);
    }

    /// Limits the address space of one of the server's processes to what it has, and so many bytes more;
    /// for None, no longer.
    pub fn limit_memory(&self, pid: i32, more: Option<usize>) {
        let space = more.map_or_else(
            || "unlimited".to_owned(),
            |more| (memory_of(pid, "VmSize:") + more).to_string(),
        );
        // The soft limit, which can be raised again.
        complete(as_owner(Path::new("prlimit"), &self.home()).args([
            "--pid",
            &pid.to_string(),
            &format!("--as={space}:"),
        ]));
    }

    /// Waits until this standby has replayed all that `primary` has written until now.
    pub fn catch_up(&self, primary: &Cluster) {
        let written = text(&mut primary.admin(), "SELECT pg_current_wal_lsn()::text").unwrap();
        let replayed = format!("SELECT (pg_last_wal_replay_lsn() >= '{written}')::text");
        let mut admin = self.admin();
        wait_for("the standby to catch up", || {
            text(&mut admin, &replayed).as_deref() == Some("true")
        });
    }

    /// Runs SQL with psql as the superuser, with these variables.
    pub fn psql(&self, variables: &[(&str, &str)], sql: &str) {
        self.psql_in("postgres", variables, sql).unwrap_or_else(|errors| panic!("{errors}\n{sql}"));
    }

    /// The same in another database. Returns the output, or the errors where a statement fails.
    pub fn psql_in(
        &self,
        database: &str,
        variables: &[(&str, &str)],
        sql: &str,
    ) -> Result<String, String> {
        let mut psql = self.program("psql");
        psql.args(["-X", "-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        psql.args(["-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1"]);
        psql.args(["-v", "VERBOSITY=verbose"]);
        for (name, value) in variables {
            psql.args(["-v", &format!("{name}={value}")]);
        }
        // Whoever runs it need not be able to read the checkout.
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = psql.spawn().unwrap();
        child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let [text, errors] = [&output.stdout, &output.stderr]
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        if output.status.success() { Ok(text) } else { Err(errors) }
    }

    /// Makes this standby a primary.
    pub fn promote(&self) {
        complete(self.program("pg_ctl").args(["-w", "-s", "promote", "-D"]).arg(self.data()));
    }

    /// The server's log since the cluster was made.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.home().join("log")).unwrap_or_default()).into_owned()
    }

    /// The folder that belongs to the owner of the cluster: data, log and what poolers need.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.home().join("data")
    }

    /// Starts the server of a cluster that is not started.
    pub fn start_server(&self) {
        self.start_server_with("");
    }

    fn start_server_with(&self, options: &str) {
        if is_under_valgrind() {
            self.wrap_server();
        }
        let mut command = self.program("pg_ctl");
        command.args(["-w", "-s", "-t", "300", "-l", "log", "-D"]).arg(self.data());
        command.args(["-o", &format!("-p {} {options}", self.port), "start"]);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
        if !status.is_ok_and(|status| status.success()) {
            panic!("the server did not start:\n{}", tail(&self.log()));
        }
    }

    /// Puts Valgrind between the server's program and whoever starts it.
    fn wrap_server(&self) {
        let (server, wrapped) = (self.programs.join("postgres"), self.programs.join("wrapped"));
        if !wrapped.exists() {
            fs::rename(&server, &wrapped).unwrap();
            let script = format!(
                "#!/bin/sh\nexec valgrind --quiet --leak-check=no --undef-value-errors=no \
                 --log-file={}/valgrind.%p {} \"$@\"\n",
                self.home().display(),
                wrapped.display(),
            );
            fs::write(&server, script).unwrap();
            fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// What Valgrind has found in any of the server's processes.
    fn faults(&self) -> String {
        let files = fs::read_dir(self.home()).into_iter().flatten().flatten();
        files
            .filter(|file| file.file_name().to_string_lossy().starts_with("valgrind."))
            .map(|file| fs::read_to_string(file.path()).unwrap_or_default())
            .collect()
    }

    fn stop_server(&self, mode: &str) {
        let mut command = self.stop_command(mode);
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }

    fn stop_command(&self, mode: &str) -> Command {
        let mut command = self.program("pg_ctl");
        command.args(["-w", "-s", "-m", mode, "stop", "-D"]).arg(self.data());
        command
    }

    /// Starts a process that stops the server and its poolers, and removes the folder, when this process has ended.
    /// It reads from a pipe; the system closes the other end with this process. A cluster in a static
    /// is never dropped, and a process that is killed drops nothing.
    fn start_guard(&self) -> Child {
        let script = "trap '' INT HUP TERM; read -r _; folder=$1; shift; \"$@\"
            for file in \"$folder\"/home/pgbouncer.*.pid; do kill -KILL \"$(cat \"$file\")\"; done
            rm -rf \"$folder\"";
        let stop = self.stop_command("immediate");
        let mut guard = Command::new("/bin/sh");
        guard.args(["-c", script, "sh"]).arg(&self.folder);
        guard.arg(stop.get_program()).args(stop.get_args()).current_dir("/");
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // An interrupt from the terminal goes to a process group.
        guard.process_group(0).spawn().expect("a shell")
    }

    /// Fails where Valgrind has found something until now.
    pub(crate) fn assert_no_faults(&self) {
        let faults = self.faults();
        assert!(faults.is_empty(), "Valgrind found:\n{faults}");
    }

    /// Says what the server has logged last.
    pub(crate) fn print_log(&self) {
        eprintln!("--- the end of the server's log ---\n{}", tail(&self.log()));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop_server("immediate");
        let faults = self.faults();
        if std::thread::panicking() {
            self.print_log();
        }
        let _ = fs::remove_dir_all(&self.folder);
        if let Some(guard) = &mut self.guard {
            let _ = guard.kill();
            let _ = guard.wait();
        }
        if !std::thread::panicking() {
            assert!(faults.is_empty(), "Valgrind found:\n{faults}");
        }
    }
}

/// Copies Postgres' programs and links its other files into `folder`, laid out as they are
/// installed, with the extension among them.
fn stage(folder: &Path, installation: &Installation) {
    let checkout = checkout();
    let inside = |path: &Path| inside(folder, path);
    let [programs, libraries, shared] =
        ["--bindir", "--pkglibdir", "--sharedir"].map(|option| installation.path(option));
    for original in [&programs, &libraries, &shared] {
        fs::create_dir_all(inside(original)).unwrap();
    }
    for entry in fs::read_dir(&programs).expect("Postgres' programs").map(Result::unwrap) {
        fs::copy(entry.path(), inside(&programs).join(entry.file_name())).unwrap();
    }
    link_entries(&libraries, &inside(&libraries), &[]);
    link_entries(&shared, &inside(&shared), &["extension"]);
    let extensions = inside(&shared).join("extension");
    fs::create_dir(&extensions).unwrap();
    link_entries(&shared.join("extension"), &extensions, &[]);

    copy(&installation.library, &inside(&libraries).join("pg_session_jwt.so"));
    copy(&checkout.join("pg_session_jwt.control"), &extensions.join("pg_session_jwt.control"));
    for entry in fs::read_dir(checkout.join("sql")).unwrap().map(Result::unwrap) {
        copy(&entry.path(), &extensions.join(entry.file_name()));
    }
}

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the checkout")
}

/// The library that is tested: the one that `EXTENSION_LIBRARY` names, or the one that was built last. The
/// tests for several versions of Postgres have a library for each.
pub fn library() -> PathBuf {
    std::env::var_os("EXTENSION_LIBRARY")
        .map_or_else(|| checkout().join("target/release/libpg_session_jwt.so"), PathBuf::from)
}

/// Where a path of the machine's installation lies in a cluster's folder.
fn inside(folder: &Path, path: &Path) -> PathBuf {
    folder.join(path.strip_prefix("/").unwrap_or(path))
}

/// Links everything in one folder into another, but for what is named.
fn link_entries(from: &Path, to: &Path, except: &[&str]) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        let ours = name.to_string_lossy().starts_with("pg_session_jwt");
        if !ours && !except.iter().any(|left| name == *left) {
            symlink(entry.path(), to.join(name)).unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    if let Err(error) = fs::copy(from, to) {
        panic!("cannot copy {}: {error}; `make build` makes it", from.display());
    }
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What `pg_config` of the tested Postgres says for an option.
pub fn pg_config(option: &str) -> PathBuf {
    Installation::tested().path(option)
}

/// The major version of Postgres.
pub fn postgres_version() -> u32 {
    Installation::tested().release().0
}

/// Whether this Postgres lacks one of these libraries, which a test loads beside the extension. It says so.
pub fn lacks_library(names: &[&str]) -> bool {
    let folder = pg_config("--pkglibdir");
    let missing = names.iter().find(|name| !folder.join(format!("{name}.so")).exists());
    if let Some(name) = missing {
        note_skipped(&format!("{} has no {name}", folder.display()));
    }
    missing.is_some()
}

/// A program that runs as somebody whom Postgres accepts, in this folder.
pub(crate) fn as_owner(program: &Path, folder: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir(folder);
    // Neither the caller's connection settings nor its language change what tests see.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").env_remove("RUST_BACKTRACE");
    // `tools/matrix` puts PgBouncer beside the programs of Postgres. Debian keeps it where only administrators'
    // search paths lead.
    let (programs, path) = (pg_config("--bindir"), std::env::var("PATH").unwrap_or_default());
    command.env("PATH", format!("{}:{path}:/usr/sbin", programs.display()));
    command
}

fn complete(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!("cannot run {command:?}: {error}");
    });
    if !output.status.success() {
        panic!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn is_root() -> bool {
    // The owner of our own /proc entry is our effective user.
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Whether servers are to run under Valgrind, which looks for memory that is used after it was
/// freed.
fn is_under_valgrind() -> bool {
    std::env::var_os("VALGRIND").is_some()
}

/// A figure of a process's memory that the system keeps, in bytes.
fn memory_of(pid: i32, figure: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).expect("a figure");
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// The most memory that a backend has taken until now, in bytes.
pub fn peak_memory(pid: i32) -> usize {
    memory_of(pid, "VmHWM:")
}

/// The last lines of a log.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
