//! The cache of tokens that this backend has verified: the least recently used one is evicted first.
//!
//! The key of an entry is the fingerprint of the token: a hash with a random key. The tokens are compared where
//! the fingerprints agree. The comparison stops at the first difference. To learn a cached token from the time
//! that it takes, a client would have to present a token with the same fingerprint, and so to know the hash key.

use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use lru::LruCache;

use crate::pg::token::Fingerprint;

/// The limit of the cache is a number of tokens. A token that takes up to this memory, in bytes, counts as one.
const SMALL: usize = 6 * 1024;

/// A token that takes more memory counts as one for each of these units, in bytes.
const UNIT: usize = 2560;

/// Verified tokens and their values.
pub(crate) struct TokenCache<T> {
    tokens: LruCache<Fingerprint, Entry<T>, BuildHasherDefault<Unhashed>>,
    /// The sum of the weights of all entries.
    weight: usize,
}

struct Entry<T> {
    token: Box<[u8]>,
    value: Rc<T>,
    weight: usize,
}

/// The hash of a fingerprint is the fingerprint.
#[derive(Default)]
struct Unhashed(u64);

impl Hasher for Unhashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0.rotate_left(8) ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
}

impl<T> Default for TokenCache<T> {
    fn default() -> Self {
        Self { tokens: LruCache::unbounded_with_hasher(BuildHasherDefault::new()), weight: 0 }
    }
}

impl<T> TokenCache<T> {
    /// The value of a token. The weight is reduced to `limit` first, because the GUC may have a lower value
    /// now.
    pub(crate) fn get(
        &mut self,
        fingerprint: Fingerprint,
        token: &[u8],
        limit: usize,
    ) -> Option<Rc<T>> {
        self.shrink(limit);
        let entry = self.tokens.get(&fingerprint).filter(|entry| *entry.token == *token)?;
        Some(Rc::clone(&entry.value))
    }

    /// The fingerprint of a token, if the token is the one that was used last.
    pub(crate) fn last_fingerprint(&self, token: &[u8]) -> Option<Fingerprint> {
        let (fingerprint, entry) = self.tokens.peek_mru()?;
        (*entry.token == *token).then_some(*fingerprint)
    }

    /// Adds a token whose value takes about `size` bytes, and evicts others where the weight exceeds
    /// `limit`.
    pub(crate) fn put(
        &mut self,
        fingerprint: Fingerprint,
        token: &[u8],
        value: &Rc<T>,
        size: usize,
        limit: usize,
    ) {
        let size = token.len() + size;
        let weight = if size <= SMALL { 1 } else { size.div_ceil(UNIT) };
        self.weight += weight;
        let entry = Entry { token: token.into(), value: Rc::clone(value), weight };
        if let Some(before) = self.tokens.put(fingerprint, entry) {
            self.weight -= before.weight;
        }
        self.shrink(limit);
    }

    fn shrink(&mut self, limit: usize) {
        while self.weight > limit
            && let Some((_, oldest)) = self.tokens.pop_lru()
        {
            self.weight -= oldest.weight;
        }
    }
}
