//! What tests, demos and benchmarks share: throwaway clusters, clients, poolers and providers.
//!
//! Every failure is a panic that says what failed, with the end of the server's log: this is a
//! test harness.

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

mod cluster;
mod collector;
mod connection;
mod idp;
mod pooler;
mod shared;
mod site;
mod sql;
mod sqlstate;
mod wire;

pub use cluster::{
    Cluster, Installation, Preload, lacks_library, library, peak_memory, pg_config,
    postgres_version,
};
pub use collector::{Collector, Metric, Sample};
pub use connection::{
    Connection, Reply, backend_pid, db_error, present, present_locally, run, send, sqlstate, text,
    user,
};
pub use idp::{Behaviour, Certificate, Idp};
pub use pooler::Pooler;
pub use session_jwt::Code;
pub use shared::{Fixture, Loan, Shared};
pub use site::Site;
pub use sql::{contents, jwks, key, quote, sign, token, token_of};
pub use sqlstate::{
    ADMIN_SHUTDOWN, CANT_CHANGE_RUNTIME_PARAM, CHECK_VIOLATION, CRASH_SHUTDOWN,
    DEPENDENT_OBJECTS_STILL_EXIST, DIVISION_BY_ZERO, DUPLICATE_FUNCTION, DUPLICATE_OBJECT,
    DUPLICATE_TABLE, FEATURE_NOT_SUPPORTED, FOREIGN_KEY_VIOLATION, GENERATED_ALWAYS,
    IN_FAILED_SQL_TRANSACTION, INSUFFICIENT_PRIVILEGE, INVALID_NAME, INVALID_OBJECT_DEFINITION,
    INVALID_TABLE_DEFINITION, INVALID_TEXT_REPRESENTATION, LOCK_NOT_AVAILABLE,
    NO_ACTIVE_SQL_TRANSACTION, NOT_NULL_VIOLATION, NULL_VALUE_NOT_ALLOWED,
    OBJECT_NOT_IN_PREREQUISITE_STATE, QUERY_CANCELED, RAISE_EXCEPTION, READ_ONLY_SQL_TRANSACTION,
    RESTRICT_VIOLATION, SUCCESS, T_R_DEADLOCK_DETECTED, T_R_SERIALIZATION_FAILURE,
    UNDEFINED_CURSOR, UNDEFINED_FUNCTION, UNIQUE_VIOLATION, WARNING, WRONG_OBJECT_TYPE,
};
pub use wire::{Answer, Fields, Rows, Wire, values};

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs() as i64
}

/// Whether Postgres is older than this major version, which has what a test is about. It says so.
pub fn is_older_than(version: u32, subject: &str) -> bool {
    let is_older = postgres_version() < version;
    if is_older {
        note_skipped(&format!("{subject} came with {version}"));
    }
    is_older
}

/// Says that a test, or a part of one, is skipped. The line is shown although the test passes.
pub fn note_skipped(reason: &str) {
    let version = postgres_version();
    let _ = writeln!(std::io::stderr(), "skipped on PostgreSQL {version}: {reason}");
}

/// Whether this release of Postgres may show an existing row to the condition of `ON CONFLICT DO UPDATE`
/// before it checks the policy of the row. It says so. README names the releases that do not.
pub fn shows_rows_to_do_update() -> bool {
    let shows = !Installation::tested().is_of_november_2026();
    if shows {
        let version = pg_config("--version");
        let version = version.display();
        note_skipped(&format!("{version} may show rows of others to a condition of DO UPDATE"));
    }
    shows
}

/// The setting with which a plan has a parallel worker wherever that is possible.
pub fn parallel_query_setting() -> &'static str {
    if postgres_version() < 16 { "force_parallel_mode" } else { "debug_parallel_query" }
}

/// Waits up to a minute until something holds.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited a minute in vain for {what}");
}

/// Sends a signal to a process. The shell does so itself, because not every machine has the program kill.
pub fn send_signal(signal: &str, pid: u32) {
    let line = format!("kill -s {signal} {pid}");
    let status = std::process::Command::new("/bin/sh").args(["-c", &line]).status();
    assert!(status.is_ok_and(|status| status.success()), "{line}");
}

/// A port on the loopback address that nobody listens on. Ports from which outgoing connections
/// come are left alone, lest one of those takes it in the meantime.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id() % 10_000;
    loop {
        let offset = (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let port = 20_000 + offset as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The only block of SQL under a heading of a page in Markdown.
pub fn block_of<'p>(page: &'p str, heading: &str) -> &'p str {
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut blocks = section.split("\n```sql\n").skip(1);
    let block = blocks.next().expect("a block");
    assert!(blocks.next().is_none(), "{heading} has more than one block");
    block.split("\n```\n").next().unwrap_or_default()
}
