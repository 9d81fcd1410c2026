//! Tokens that this backend has verified before, the least recently used going first.
//!
//! A token is found by its whole text: hashed with a random key, and compared where the hashes
//! agree. The comparison stops at the first difference, which tells nobody anything:
//! whoever could make a guess with the hash of a cached token, all 64 bits of it, would have to
//! know the key. Comparisons whose time matters, those of HMACs, are the cryptographic library's.

use std::rc::Rc;

use lru::LruCache;

/// The memory that one unit of weight stands for, in bytes.
const UNIT: usize = 6 * 1024;

/// Verified tokens and whose they are.
pub(crate) struct TokenCache<T> {
    tokens: LruCache<Box<[u8]>, Entry<T>>,
    /// The sum of all weights.
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
    /// Whose the token is, where it is known and within the `limit`.
    pub(crate) fn get(&mut self, token: &[u8], limit: usize) -> Option<Rc<T>> {
        self.shrink(limit);
        self.tokens.get(token).map(|entry| Rc::clone(&entry.value))
    }

    /// Remembers a token whose value takes about `size` bytes, and forgets others where there are
    /// more than `limit`. One that takes more than 6 KiB counts as several.
    pub(crate) fn put(&mut self, token: &[u8], value: &Rc<T>, size: usize, limit: usize) {
        let weight = (token.len() + size).div_ceil(UNIT);
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
