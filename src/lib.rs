//! pg_session_jwt: verified JWT identities for sessions and row-level security.
//!
//! The modules stand on floors, from the top: [`hooks`] registers everything with Postgres; [`functions`]
//! are the SQL functions; [`permissions`], [`session`] and [`roles`] judge what a session may do, and who
//! it is; [`providers`] decides which tokens are trusted; [`audit`] and [`settings`] are the log and the
//! GUCs; [`pg`] is the interface to Postgres. `ARCHITECTURE.md` has the plan.

#![deny(unsafe_code)]

mod audit;
mod functions;
#[allow(unsafe_code)]
mod hooks;
mod permissions;
#[allow(unsafe_code)]
mod pg;
mod providers;
mod roles;
mod session;
mod settings;

pgrx::pg_module_magic!(name, version);

/// The entry point, which Postgres calls when it loads the library.
#[allow(unsafe_code, non_snake_case)]
// SAFETY: the symbol is exported for Postgres, which calls it once, on the thread of the process.
#[unsafe(no_mangle)]
extern "C-unwind" fn _PG_init() {
    hooks::register();
}
