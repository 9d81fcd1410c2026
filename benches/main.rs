//! `make bench`: measures the costs of the extension and of its alternatives, in one run on one machine.
//! Prints the tables and writes them to `docs/`. With names of parts as arguments, it measures these only,
//! and writes nothing. With `monitoring`, it writes the figures of a dashboard to `docs/monitoring.svg`.

mod measure;
mod monitoring;
mod providers;
mod report;
mod revocations;
mod rows;
mod sessions;
mod tokens;
mod users;

use std::cell::LazyCell;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

use harness::{Preload, Site, now};
use serde_json::{Value, json};

use report::{Growth, Table};
use sessions::Load;

/// Claims as identity providers issue them, of a user who owns rows.
fn claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": "todos", "sub": rows::USER, "iat": now(),
        "exp": now() + 86_400, "role": rows::USER, "email": rows::USER, "org": {"name": rows::USER},
        "sub_id": rows::USER_UUID, "session_id": "9f1c6d3e-6f5e-4a57-9a0c-0d6f3f3f7a11",
    })
}

fn main() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the checkout");
    if env::args().any(|wanted| wanted == "monitoring") {
        let panels = monitoring::panels();
        let path = checkout.join("docs/monitoring.svg");
        return report::draw_panels(&path, &panels).expect("the plot can be drawn");
    }
    let folder = env::temp_dir().join(format!("pg_session_jwt.bench.{}", std::process::id()));
    let control = compile_control(checkout, &folder);

    let (mut tables, mut growths) = (Vec::new(), Vec::new());
    if begin("verification", "Verifying without Postgres") {
        tables.push(tokens::verification());
    }
    if begin("presenting", "Presenting tokens") {
        tables.push(tokens::presenting());
    }
    let site = LazyCell::new(|| {
        let settings = [
            ("shared_buffers", "1GB"),
            ("max_wal_size", "4GB"),
            ("autovacuum", "off"),
            tokens::NOT_SHARED,
        ];
        Site::start(Preload::Shared, &settings)
    });
    if begin("rows", "Filling tables, the largest of 10,000,000 rows") {
        rows::prepare(&site.cluster, &control);
        step("Scanning, joining, looking up");
        tables.extend(rows::tables(&site));
        step("Scanning growing tables");
        growths.push(rows::growth(&site));
        step("Presenting growing tokens");
        growths.push(tokens::token_size(&site));
    }
    if begin("pooler", "Sending transactions through PgBouncer") {
        let load = Load::prepare(&site.cluster, &site.key, None, &folder);
        tables.push(load.rates());
        growths.push(load.growth());
    }
    if begin("roles", "Sending transactions with roles") {
        let (cluster, key) = sessions::cluster_with_roles();
        let scripts = folder.join("roles");
        let load = Load::prepare(&cluster, &key, Some(sessions::MEMBER), &scripts);
        tables.push(load.role_rates());
    }
    if begin("memory", "Measuring memory") {
        tables.push(sessions::backend_memory(&site));
        tables.push(users::shared_memory());
    }
    drop(site);
    if begin("users", "Serving many users through PgBouncer") {
        tables.push(users::rates());
        step("Serving growing numbers of users and connections");
        growths.extend(users::growth());
    }
    if begin("revocations", "Revoking tokens") {
        tables.extend(revocations::tables());
    }
    if begin("connections", "Connecting") {
        tables.push(sessions::connections());
    }
    if begin("bystanders", "Serving sessions without a token") {
        tables.push(sessions::bystanders());
    }
    if begin("providers", "Changing providers") {
        tables.push(providers::providers());
        step("Presenting tokens to many keys and providers");
        growths.extend(tokens::keys_and_providers());
    }
    let _ = fs::remove_dir_all(&folder);

    let text = markdown(&tables, &growths);
    println!("{text}");
    if env::args().len() > 1 {
        return;
    }
    let page = checkout.join("docs").join(page());
    fs::write(page.with_extension("md"), text).expect("docs/ can be written");
    let bars = tables.iter().find(|table| table.title == rows::PER_ROW).expect("the table");
    report::draw(&page.with_extension("svg"), bars, &growths).expect("the plot can be drawn");
    eprintln!("Written to {}.md and .svg.", page.display());
}

/// The name of the page, without its extension. The one of the oldest supported Postgres has no number.
fn page() -> String {
    match harness::postgres_version() {
        15 => "benchmarks".to_owned(),
        version => format!("benchmarks-{version}"),
    }
}

/// Prints the time since the start and the name of the next step, unless arguments name other parts only. The
/// page is written where there are none.
fn begin(part: &str, name: &str) -> bool {
    let is_wanted = env::args().len() == 1 || env::args().any(|wanted| wanted == part);
    if is_wanted {
        step(name);
    }
    is_wanted
}

/// Prints the time since the start, and the name of the next step.
fn step(name: &str) {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed().as_secs();
    eprintln!("[{elapsed:3} s] {name}");
}

/// Compiles the control functions, and returns the path of their library.
fn compile_control(checkout: &Path, folder: &Path) -> String {
    fs::create_dir_all(folder).unwrap();
    let library = folder.join("control.so");
    let include = output(&pg_config(), &["--includedir-server"]);
    let status = Command::new("gcc")
        .args(["-O2", "-shared", "-fPIC", "-I", &include, "-o"])
        .arg(&library)
        .arg(checkout.join("benches/control.c"))
        .status();
    assert!(status.is_ok_and(|status| status.success()), "gcc cannot compile benches/control.c");
    library.to_str().expect("a path in UTF-8").to_owned()
}

fn pg_config() -> String {
    env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".to_owned())
}

/// The standard output of a program.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn markdown(tables: &[Table], growths: &[Growth]) -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor =
        processor.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let library = fs::metadata(harness::library()).unwrap().len();
    let pgbouncer = output("sh", &["-c", "PATH=$PATH:/usr/sbin pgbouncer --version | head -1"]);
    let mut out = format!(
        "# Benchmarks\n\n\
         `make bench` writes this page and its plot; there are pages of [Postgres 15](benchmarks.md) and of \
         [Postgres 18](benchmarks-18.md). It takes some fifteen minutes, and needs an otherwise idle machine \
         and 2 GB of disk space. [performance.md](performance.md) explains the figures. Each figure has a \
         control from the same run. Only the ratio of the two applies to other machines. A budget limits \
         the ratio; with a plus sign, the difference; or the figure itself. Unless the text says \
         otherwise, differences of a tenth are noise.\n\n\
         ![Cost per row, and how costs grow]({}.svg)\n\n\
         | | |\n|---|---|\n\
         | date | {} |\n\
         | processor | {}, {processors} of them |\n\
         | kernel | Linux {} |\n\
         | Postgres | {} |\n\
         | PgBouncer | {pgbouncer} |\n\
         | Rust | {} |\n\
         | library | {} KiB |\n\n{}",
        page(),
        output("date", &["--utc", "+%Y-%m-%d"]),
        processor.unwrap_or("unknown"),
        output("uname", &["-r"]),
        output(&pg_config(), &["--version"]),
        output("rustc", &["--version"]),
        library / 1024,
        report::budgets(tables),
    );
    for table in tables {
        out.push('\n');
        out.push_str(&table.markdown());
    }
    out.push_str("\n# Growth\n");
    for growth in growths {
        out.push('\n');
        out.push_str(&growth.markdown());
    }
    out
}
