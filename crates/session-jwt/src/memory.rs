//! Whether memory has run out, where a library reports nothing but that something has failed.

use crate::rejection::{Code, Rejection, reject};

/// More than any operation on one key needs, and more than the C library asks the system for at once
/// (1 MiB, where its heap cannot grow): where this can be had, the operation had what it needed.
const PROBE_BYTES: usize = 2 * 1024 * 1024;

/// Whether memory is so short that an operation may have failed for want of it. The cryptographic
/// library allocates by itself, and does not tell such a failure from a wrong signature or key. So
/// this is asked before a failure counts as a verdict; a success needs no such question.
pub fn is_memory_short() -> bool {
    let mut probe: Vec<u8> = Vec::new();
    let outcome = probe.try_reserve_exact(PROBE_BYTES);
    // The compiler may leave out an allocation that nothing uses.
    std::hint::black_box(&probe);
    outcome.is_err()
}

/// The error in the place of a verdict.
pub(crate) fn out_of_memory() -> Rejection {
    reject(Code::OutOfMemory, "out of memory").with_detail("A cryptographic operation has failed.")
}
