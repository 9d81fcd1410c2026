//! A cache of digests in memory that processes share. The digests stand for signatures that one of them has verified.
//!
//! The memory is a slice of [`Set`]s. A digest belongs to one set, where it may be in each of sixteen slots. A call
//! looks at the slots of one set, and takes no lock: a slot that another process is writing holds nothing, and is
//! passed over. So a process that ends while it writes makes one slot useless, and nothing else.
//!
//! A new digest replaces at most one other: one that has expired, or else one that was not found again since the last
//! round through the set. So digests that are in use outlast others that come once, however many they are.

#![forbid(unsafe_code)]

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering, fence};

/// A digest. Its bits must be evenly distributed.
pub type Digest = [u8; 32];

/// A digest in words, which slots keep.
type Words = [u64; 4];

/// The number of slots of a set.
const WAYS: usize = 16;

/// The number of digests for which a set is meant. Where every set has half as many digests as slots on average, few
/// sets have too many.
const PLANNED: usize = WAYS / 2;

/// The number of sets for so many digests.
pub const fn sets_for(digests: usize) -> usize {
    digests.div_ceil(PLANNED)
}

/// Whether one of the sets holds the digest.
pub fn contains(sets: &[Set], digest: &Digest) -> bool {
    let digest = words(digest);
    set_of(sets, &digest).is_some_and(|set| set.contains(&digest))
}

/// Adds a digest that is of no use any more from `expires` on. `now` has the same unit.
pub fn insert(sets: &[Set], digest: &Digest, expires: i64, now: i64) {
    let digest = words(digest);
    if let Some(set) = set_of(sets, &digest) {
        set.insert(&digest, expires, now);
    }
}

fn words(digest: &Digest) -> Words {
    let (words, _) = digest.as_chunks();
    std::array::from_fn(|place| u64::from_le_bytes(words[place]))
}

fn set_of<'s>(sets: &'s [Set], digest: &Words) -> Option<&'s Set> {
    let place = (u128::from(digest[0]) * sets.len() as u128) >> u64::BITS;
    sets.get(place as usize)
}

/// A set of slots. Its default value holds nothing.
#[derive(Default)]
pub struct Set {
    /// The slot that is considered next when one has to be freed.
    hand: AtomicU32,
    slots: [Slot; WAYS],
}

/// A place for a digest.
#[derive(Default)]
struct Slot {
    /// 0 for a slot that was never written, odd while it is being written.
    version: AtomicU32,
    /// Whether the digest was found since the hand has passed.
    is_used: AtomicBool,
    expires: AtomicI64,
    digest: [AtomicU64; 4],
}

impl Set {
    fn contains(&self, digest: &Words) -> bool {
        let found = self.slots.iter().find(|slot| slot.holds(digest));
        // Without the first condition, backends that find the same digest would write to its memory in turns.
        if let Some(slot) = found
            && !slot.is_used.load(Ordering::Relaxed)
        {
            slot.is_used.store(true, Ordering::Relaxed);
        }
        found.is_some()
    }

    fn insert(&self, digest: &Words, expires: i64, now: i64) {
        if self.slots.iter().any(|slot| slot.holds(digest)) {
            return;
        }
        let is_free = |slot: &&Slot| {
            let version = slot.version.load(Ordering::Relaxed);
            version == 0
                || !is_being_written(version) && slot.expires.load(Ordering::Relaxed) <= now
        };
        if let Some(slot) = self.slots.iter().find(is_free).or_else(|| self.evict()) {
            slot.write(digest, expires);
        }
    }

    /// The first slot from the hand on whose digest was not found since the hand has passed. None where others find
    /// every digest at the same time.
    fn evict(&self) -> Option<&Slot> {
        (0..2 * WAYS).find_map(|_| {
            let place = self.hand.fetch_add(1, Ordering::Relaxed) as usize % WAYS;
            let slot = self.slots.get(place)?;
            let is_whole = !is_being_written(slot.version.load(Ordering::Relaxed));
            (!slot.is_used.swap(false, Ordering::Relaxed) && is_whole).then_some(slot)
        })
    }
}

fn is_being_written(version: u32) -> bool {
    version % 2 == 1
}

impl Slot {
    /// Whether it holds exactly this digest, and was not written meanwhile.
    fn holds(&self, digest: &Words) -> bool {
        let version = self.version.load(Ordering::Acquire);
        if version == 0 || is_being_written(version) {
            return false;
        }
        let mut words = self.digest.iter().zip(digest);
        if !words.all(|(word, wanted)| word.load(Ordering::Relaxed) == *wanted) {
            return false;
        }
        fence(Ordering::Acquire);
        self.version.load(Ordering::Relaxed) == version
    }

    /// Writes a digest, unless another process is writing.
    fn write(&self, digest: &Words, expires: i64) {
        let version = self.version.fetch_or(1, Ordering::Acquire);
        if is_being_written(version) {
            return;
        }
        // A reader that sees a part of what follows sees the odd version, too.
        fence(Ordering::Release);
        for (word, value) in self.digest.iter().zip(digest) {
            word.store(*value, Ordering::Relaxed);
        }
        self.expires.store(expires, Ordering::Relaxed);
        self.is_used.store(false, Ordering::Relaxed);
        // 0 stands for a slot that was never written.
        self.version.store(version.wrapping_add(2).max(2), Ordering::Release);
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests;

#[cfg(all(test, feature = "loom"))]
mod orders {
    //! Every order of the steps of writers and readers, as far as loom tries them.

    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    const FIRST: Words = [1; 4];
    const SECOND: Words = [2; 4];

    /// Each mixture of the two digests, and of one with a slot that was never written.
    fn mixtures() -> impl Iterator<Item = Words> {
        (0..81_u32)
            .map(|number| [1, 3, 9, 27].map(|place| u64::from(number / place % 3)))
            .filter(|digest| !matches!(*digest, FIRST | SECOND))
    }

    fn model(test: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(4);
        builder.check(test);
    }

    #[test]
    fn a_slot_never_holds_a_mixture() {
        for mixture in mixtures() {
            model(move || {
                let slot = Arc::new(Slot::default());
                let writer = {
                    let slot = Arc::clone(&slot);
                    thread::spawn(move || {
                        slot.write(&FIRST, 0);
                        slot.write(&SECOND, 0);
                    })
                };
                assert!(!slot.holds(&mixture), "{mixture:?}");
                writer.join().unwrap();
                assert!(slot.holds(&SECOND));
            });
        }
    }

    #[test]
    fn two_writers_leave_no_mixture() {
        for mixture in mixtures() {
            model(move || {
                let slot = Arc::new(Slot::default());
                let writer = {
                    let slot = Arc::clone(&slot);
                    thread::spawn(move || slot.write(&FIRST, 0))
                };
                slot.write(&SECOND, 0);
                assert!(!slot.holds(&mixture), "{mixture:?}");
                writer.join().unwrap();
                assert!(!slot.holds(&mixture), "{mixture:?}");
            });
        }
    }
}
