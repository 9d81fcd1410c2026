//! pg_session_jwt: verified JWT identities for sessions and row-level security.
//!
//! The modules stand on floors, from the top: [`hooks`] registers everything with Postgres; [`functions`]
//! are the SQL functions; [`permissions`], [`session`] and [`roles`] judge what a session may do, and who
//! it is; [`providers`] decides which tokens are trusted; [`audit`], [`settings`], [`signatures`] and
//! [`statistics`] are the log, the GUCs, and what backends share; [`pg`] is the interface to Postgres.
//! `ARCHITECTURE.md` has the plan.

#![deny(unsafe_code)]

use std::ffi::CStr;

mod audit;
mod functions;
#[allow(unsafe_code)]
mod hooks;
mod permissions;
#[allow(unsafe_code)]
mod pg;
mod providers;
mod revocations;
mod roles;
mod session;
mod settings;
mod signatures;
mod statistics;

/// The version that `pg_get_loaded_modules()` of Postgres 18 shows.
const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("the version has a NUL character"),
    };

// Without a value, `version` would replace the name: `pgrx` 0.18.1 stores it there.
pgrx::pg_module_magic!(name, version = VERSION);

/// The entry point, which Postgres calls when it loads the library.
#[allow(unsafe_code, non_snake_case)]
// SAFETY: the symbol is exported for Postgres, which calls it once, on the thread of the process.
#[unsafe(no_mangle)]
extern "C-unwind" fn _PG_init() {
    hooks::register();
}
