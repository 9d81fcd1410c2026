//! Signatures that backends of this server have verified, as digests in shared memory. A digest tells that a signature
//! verifies, and nothing about the claims, which are checked at each presentation.

use std::cell::Cell;

use session_jwt::{Provider, SignatureDigest};
use verified_signatures::{Set, contains, insert, sets_for};

use crate::pg::backend;
use crate::pg::shmem::Area;
use crate::settings::SHARED_CACHE_SIZE;

static SETS: Area<Set> = Area::new(c"pg_session_jwt signatures");

/// Requests the shared memory. `shmem_request_hook` calls it.
pub(crate) fn request_memory() {
    SETS.request(sets_for(SHARED_CACHE_SIZE.get()));
}

/// Lays the shared memory out, without signatures. `shmem_startup_hook` calls it.
pub(crate) fn lay_out_memory() {
    SETS.lay_out();
}

/// The signature of a token of this database, verified with a provider.
pub(crate) struct Signature {
    digest: SignatureDigest,
    /// Whether a backend had verified it before.
    pub(crate) was_known: bool,
    is_shared: Cell<bool>,
}

/// Looks up the signature of a token. None where there is no shared memory.
pub(crate) fn find(provider: &Provider, token: &str) -> Option<Signature> {
    let sets = SETS.slots();
    if sets.is_empty() {
        return None;
    }
    let digest = provider.signature_digest(backend::database().to_u32(), token)?;
    let was_known = contains(sets, digest.as_bytes());
    Some(Signature { digest, was_known, is_shared: Cell::new(was_known) })
}

impl Signature {
    /// Has other backends find the signature of a token that was accepted, once. `expires` and `now` are in seconds
    /// since 1970; a token that never expires has none.
    pub(crate) fn share(&self, expires: impl FnOnce() -> Option<i64>, now: i64) {
        if !self.is_shared.replace(true) {
            insert(SETS.slots(), self.digest.as_bytes(), expires().unwrap_or(i64::MAX), now);
        }
    }
}
