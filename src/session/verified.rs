//! Tokens that this backend has verified: the identities of the values of the token GUC, and the cache.

use std::cell::RefCell;
use std::rc::Rc;

use session_jwt::{Code, MAX_TOKEN_BYTES, Rejection};

use super::cache::TokenCache;
use super::identity::Identity;
use crate::pg::backend::{self, BackendLocal};
use crate::pg::error;
use crate::pg::token::Fingerprint;
use crate::providers;
use crate::settings::{JWT, JWT_NAME, TOKEN_CACHE_SIZE};
use crate::statistics::counters;

#[derive(Default)]
struct Verified {
    /// The identities of the values of the token GUC, by the number of the value, so that a value that
    /// Postgres restores is not verified again. Some entries are of values that the GUC cannot get again.
    by_value: Vec<(u64, Rc<Identity>)>,
    /// The length of `by_value` from which on [`Verified::keep`] drops entries.
    by_value_limit: usize,
    /// The memory that these identities take, in bytes.
    by_value_size: usize,
    /// The memory in bytes from which on [`Verified::keep`] drops entries.
    by_value_size_limit: usize,
    cache: TokenCache<Identity>,
}

static VERIFIED: BackendLocal<RefCell<Option<Verified>>> = BackendLocal::new(RefCell::new(None));

/// The identity of a token.
struct Found {
    identity: Rc<Identity>,
    /// Whether it was found by the token, and not by the value of the token GUC.
    is_cache_hit: bool,
}

/// `body` calls no function of Postgres that can raise an error, so that the borrow ends with this
/// function.
fn with_verified<T>(body: impl FnOnce(&mut Verified) -> T) -> T {
    body(VERIFIED.borrow_mut().get_or_insert_default())
}

/// The fingerprint of a token; 0 stands for none.
pub(crate) fn fingerprint(token: &[u8]) -> Fingerprint {
    if token.is_empty() {
        return 0;
    }
    // Sessions present the same token again. To compare is faster than to hash.
    with_verified(|verified| verified.cache.last_fingerprint(token))
        .unwrap_or_else(|| backend::keyed_hash(token).max(1))
}

/// Verifies everything about a token except its times, unless this backend has done so with the present
/// keys. `number` is the number of the value of the token GUC, and `fingerprint` that of the token.
pub(crate) fn verify(
    token: &[u8],
    fingerprint: Fingerprint,
    number: u64,
) -> Result<Rc<Identity>, Rejection> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(too_long("token is too long"));
    }
    if let Some(found) = with_verified(|verified| verified.find(token, fingerprint, number))
        && found.identity.is_current()
    {
        if found.is_cache_hit {
            counters::count_cache_hit();
        }
        return Ok(found.identity);
    }
    let text = std::str::from_utf8(token).map_err(|_| {
        Rejection::new(Code::Malformed, "token is not base64url")
            .with_detail("It has a byte that is not ASCII.")
    })?;
    let (claims, trust) = providers::verify(text)?;
    if trust.signature().is_some_and(|signature| signature.was_known) {
        counters::count_shared_cache_hit();
    } else {
        counters::count_verified();
        error::debug("token signature verified");
    }
    let identity = Identity::new(claims, Some(trust))?;
    with_verified(|verified| {
        let limit = TOKEN_CACHE_SIZE.get();
        verified.cache.put(fingerprint, token, &identity, identity.size(), limit);
        // An earlier identity of the value is outdated: its provider or keys have changed.
        verified.by_value.retain(|(known, _)| *known != number);
        verified.by_value_size = verified.by_value.iter().map(|(_, kept)| kept.size()).sum();
        verified.keep(number, &identity);
    });
    Ok(identity)
}

/// The identity of a value of the token GUC, if it is still known. It cannot fail.
pub(super) fn of_value(number: u64) -> Option<Rc<Identity>> {
    VERIFIED.try_borrow().ok()?.as_ref()?.of_value(number)
}

/// The error of a text that is longer than a token may be.
pub(crate) fn too_long(message: &'static str) -> Rejection {
    Rejection::new(Code::Malformed, message)
        .with_detail(format!("The limit is {MAX_TOKEN_BYTES} bytes."))
}

impl Verified {
    fn find(&mut self, token: &[u8], fingerprint: Fingerprint, number: u64) -> Option<Found> {
        if let Some(identity) = self.of_value(number) {
            return Some(Found { identity, is_cache_hit: false });
        }
        let identity = self.cache.get(fingerprint, token, TOKEN_CACHE_SIZE.get())?;
        self.keep(number, &identity);
        Some(Found { identity, is_cache_hit: true })
    }

    fn of_value(&self, number: u64) -> Option<Rc<Identity>> {
        let of_value = self.by_value.iter().rev().find(|(known, _)| *known == number);
        of_value.map(|(_, identity)| Rc::clone(identity))
    }

    /// Keeps the identity of a value. When the list is long, it drops the entries of values that the GUC
    /// cannot get again, and the oldest of the others where they take too much memory. A token whose
    /// identity was dropped is verified again.
    fn keep(&mut self, number: u64, identity: &Rc<Identity>) {
        /// Up to this number and this memory in bytes, no entry is dropped.
        const FEW: usize = 16;
        const LITTLE: usize = 32 * 1024;
        /// The limit of the memory of the entries that stay, in bytes.
        const MOST_KEPT: usize = 512 * 1024;
        let is_large = self.by_value_size > self.by_value_size_limit.max(LITTLE);
        if is_large || self.by_value.len() >= self.by_value_limit.max(FEW) {
            let live = JWT.live_numbers(JWT_NAME);
            let mut left = MOST_KEPT;
            let mut kept = Vec::new();
            // From the latest to the oldest.
            for (number, identity) in self.by_value.drain(..).rev() {
                if live.contains(&number)
                    && let Some(rest) = left.checked_sub(identity.size())
                {
                    left = rest;
                    kept.push((number, identity));
                }
            }
            kept.reverse();
            self.by_value = kept;
            self.by_value_limit = 2 * self.by_value.len();
            self.by_value_size = MOST_KEPT - left;
            self.by_value_size_limit = 2 * self.by_value_size;
        }
        self.by_value.push((number, Rc::clone(identity)));
        self.by_value_size += identity.size();
    }
}
