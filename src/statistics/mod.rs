//! Statistics in shared memory: [`counters`] by database and by provider, and the [`sessions`] that have an identity.
//! They contain no token, no key, and no claim but user id and issuer.

pub(crate) mod counters;
pub(crate) mod sessions;

use session_jwt::{Code, Rejection};

use crate::pg::backend::{self, Timestamp};

/// Requests the shared memory. `shmem_request_hook` calls it.
pub(crate) fn request_memory() {
    counters::request_memory();
    sessions::request_memory();
}

/// Lays the shared memory out, with all counters at zero. `shmem_startup_hook` calls it.
pub(crate) fn lay_out_memory() {
    counters::lay_out_memory();
    sessions::lay_out_memory();
}

/// The error of a function that needs shared memory.
fn not_preloaded() -> Rejection {
    Rejection::new(Code::Prerequisite, "pg_session_jwt must be loaded via shared_preload_libraries")
        .with_detail("Statistics are in shared memory, which the server reserves when it starts.")
        .with_hint("Add pg_session_jwt to shared_preload_libraries, and restart the server.")
}

/// A time as an input of `timestamptz`; None for a time that was not set.
fn time(time: Timestamp) -> Option<String> {
    (time != 0).then(|| backend::format_time(time))
}
