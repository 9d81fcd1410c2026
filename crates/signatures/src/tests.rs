//! Tests of one thread, and of many at once.

use std::thread;

use super::*;

fn of_words(words: Words) -> Digest {
    let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    bytes.try_into().unwrap()
}

/// A digest that belongs to the first of several sets.
fn digest(number: u64) -> Digest {
    of_words([number, number.wrapping_mul(0x9e37_79b9), !number, 7])
}

/// A digest of any set, by a generator of Weyl and its mixing (splitmix64).
fn spread(number: u64) -> Digest {
    of_words([1, 2, 3, 4].map(|part: u64| {
        let mut word = (4 * number + part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }))
}

fn sets(digests: usize) -> Vec<Set> {
    (0..sets_for(digests)).map(|_| Set::default()).collect()
}

const NEVER: i64 = i64::MAX;

#[test]
fn a_digest_is_found_once_it_is_inserted() {
    let sets = sets(100);
    assert!(!contains(&sets, &digest(1)));
    insert(&sets, &digest(1), NEVER, 0);
    assert!(contains(&sets, &digest(1)));
    assert!(!contains(&sets, &digest(2)));
}

#[test]
fn every_bit_of_a_digest_counts() {
    let sets = sets(1);
    let inserted = spread(1);
    insert(&sets, &inserted, NEVER, 0);
    for bit in 0..256 {
        let mut other = inserted;
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(!contains(&sets, &other), "bit {bit}");
    }
    assert!(contains(&sets, &inserted));
}

#[test]
fn an_empty_cache_holds_nothing() {
    insert(&[], &digest(1), NEVER, 0);
    assert!(!contains(&[], &digest(1)));
    // The memory of a slot that was never written is zero.
    assert!(!contains(&sets(1), &[0; 32]));
}

#[test]
fn a_slot_that_is_being_written_holds_nothing_and_is_passed_over() {
    let sets = sets(1);
    insert(&sets, &digest(1), NEVER, 0);
    // A process that ended while it wrote.
    sets[0].slots[0].version.fetch_add(1, Ordering::Relaxed);
    assert!(!contains(&sets, &digest(1)));
    for number in 2..100 {
        insert(&sets, &digest(number), NEVER, 0);
    }
    let kept = (1..100).filter(|number| contains(&sets, &digest(*number))).count();
    assert_eq!(kept, WAYS - 1);
}

/// A process that was stopped while it wrote to a slot that was free, or whose digest had expired.
#[test]
fn a_free_slot_that_is_being_written_leaves_the_others_in_use() {
    for before in [0, 1] {
        let sets = sets(1);
        for number in 0..before {
            insert(&sets, &digest(number), 1, 0);
        }
        sets[0].slots[0].version.fetch_or(1, Ordering::Relaxed);
        for number in 2..100 {
            insert(&sets, &digest(number), NEVER, 2);
            assert!(contains(&sets, &digest(number)), "{before}, {number}");
        }
        let kept = (2..100).filter(|number| contains(&sets, &digest(*number))).count();
        assert_eq!(kept, WAYS - 1, "{before}");
    }
}

#[test]
fn the_planned_number_of_digests_is_kept() {
    const TOKENS: u64 = 10_000;
    let sets = sets(TOKENS as usize);
    for number in 0..TOKENS {
        insert(&sets, &spread(number), NEVER, 0);
    }
    let kept = (0..TOKENS).filter(|number| contains(&sets, &spread(*number))).count();
    assert!(kept >= 9_980, "{kept} of {TOKENS}");
}

#[test]
fn a_digest_takes_at_most_a_hundred_bytes() {
    let bytes = sets_for(10_000) * size_of::<Set>();
    assert!(bytes <= 100 * 10_000, "{bytes}");
}

#[test]
fn expired_digests_are_replaced_first() {
    let sets = sets(1);
    for number in 0..WAYS as u64 {
        insert(&sets, &digest(number), if number == 5 { 10 } else { NEVER }, 0);
        assert!(contains(&sets, &digest(number)));
    }
    insert(&sets, &digest(100), NEVER, 9);
    let lost = (0..WAYS as u64).filter(|number| !contains(&sets, &digest(*number))).count();
    assert_eq!(lost, 1, "a digest that has not expired was replaced");
    let sets = self::sets(1);
    for number in 0..WAYS as u64 {
        insert(&sets, &digest(number), if number == 5 { 10 } else { NEVER }, 0);
    }
    insert(&sets, &digest(100), NEVER, 10);
    let lost: Vec<u64> =
        (0..WAYS as u64).filter(|number| !contains(&sets, &digest(*number))).collect();
    assert_eq!(lost, [5]);
}

#[test]
fn digests_in_use_outlast_those_that_come_once() {
    let sets = sets(1);
    for number in 0..4 {
        insert(&sets, &digest(number), NEVER, 0);
    }
    for number in 100..100_000 {
        insert(&sets, &digest(number), NEVER, 0);
        for used in 0..4 {
            assert!(contains(&sets, &digest(used)), "{used} after {number}");
        }
    }
}

#[test]
fn one_digest_replaces_at_most_one() {
    let sets = sets(1);
    for number in 0..1000 {
        let before = (0..1000).filter(|other| contains(&sets, &digest(*other))).count();
        insert(&sets, &digest(number), NEVER, 0);
        assert!(contains(&sets, &digest(number)));
        let after = (0..1000).filter(|other| contains(&sets, &digest(*other))).count();
        assert!(after >= before, "{number}");
    }
}

#[test]
fn a_digest_is_kept_once() {
    let sets = sets(1);
    for _ in 0..100 {
        insert(&sets, &digest(1), NEVER, 0);
    }
    let slots = sets[0].slots.iter();
    assert_eq!(slots.filter(|slot| slot.holds(&words(&digest(1)))).count(), 1);
}

/// Writers write digests of which all words are equal to the same few slots, and readers look for mixtures.
#[test]
fn many_threads_find_no_mixture() {
    const ROUNDS: u64 = 200_000;
    let sets = sets(1);
    thread::scope(|scope| {
        for writer in 0..4_u64 {
            let sets = &sets;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    insert(sets, &of_words([writer * ROUNDS + round + 1; 4]), NEVER, 0);
                }
            });
        }
        for reader in 0..2_u64 {
            let sets = &sets;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let (one, other) = (round + 1, (reader + 1) * ROUNDS + round + 1);
                    assert!(!contains(sets, &of_words([one, one, other, other])));
                    assert!(!contains(sets, &of_words([one, other, one, one])));
                    for slot in &sets[0].slots {
                        let first = slot.digest[0].load(Ordering::Relaxed);
                        let last = slot.digest[3].load(Ordering::Relaxed);
                        assert!(first == last || !slot.holds(&[first, first, last, last]));
                    }
                }
            });
        }
    });
}
