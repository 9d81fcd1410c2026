//! Statistics in shared memory: [`counters`] by database and by provider, and the [`sessions`] that have an identity.
//! They contain no token, no key, and no claim but user id and issuer.

pub(crate) mod counters;
pub(crate) mod sessions;

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
