//! The cache of tokens that this backend has verified: the least recently used one is evicted first.
//!
//! The key of an entry is the whole token. Tokens are hashed with a random key, and compared where the
//! hashes agree. The comparison stops at the first difference. To learn a cached token from the time that
//! it takes, a client would have to present a token with the same 64-bit hash, and so to know the hash key.

use std::rc::Rc;

use lru::LruCache;

/// The limit of the cache is a number of tokens. A token that takes up to this memory, in bytes, counts as one.
const SMALL: usize = 6 * 1024;

/// A token that takes more memory counts as one for each of these units, in bytes.
const UNIT: usize = 4 * 1024;

/// Verified tokens and their values.
pub(crate) struct TokenCache<T> {
    tokens: LruCache<Box<[u8]>, Entry<T>>,
    /// The sum of the weights of all entries.
    weight: usize,
}

struct Entry<T> {
    value: Rc<T>,
    weight: usize,
}

impl<T> Default for TokenCache<T> {
    fn default() -> Self {
        Self { tokens: LruCache::unbounded(), weight: 0 }
    }
}

impl<T> TokenCache<T> {
    /// The value of a token. The weight is reduced to `limit` first, because the GUC may have a lower value
    /// now.
    pub(crate) fn get(&mut self, token: &[u8], limit: usize) -> Option<Rc<T>> {
        self.shrink(limit);
        self.tokens.get(token).map(|entry| Rc::clone(&entry.value))
    }

    /// Adds a token whose value takes about `size` bytes, and evicts others where the weight exceeds
    /// `limit`.
    pub(crate) fn put(&mut self, token: &[u8], value: &Rc<T>, size: usize, limit: usize) {
        let size = token.len() + size;
        let weight = if size <= SMALL { 1 } else { size.div_ceil(UNIT) };
        self.weight += weight;
        let entry = Entry { value: Rc::clone(value), weight };
        if let Some(before) = self.tokens.put(token.into(), entry) {
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
