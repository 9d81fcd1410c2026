//! Tells whether memory has run out, for libraries that report only that an operation failed.

use crate::rejection::{Code, Rejection, reject};

/// The number of bytes that [`is_memory_short`] tries to allocate. It exceeds the need of any operation
/// on one key, and the 1 MiB that the C library requests from the system at once if its heap cannot
/// grow. If the allocation succeeds, the operation had enough memory.
const PROBE_BYTES: usize = 2 * 1024 * 1024;

/// Whether an operation may have failed because memory is short. The cryptographic library allocates
/// memory itself and reports a failed allocation like a wrong signature or a wrong key. The caller asks
/// after each failure, before it rejects a token or a key. A success needs no check.
pub fn is_memory_short() -> bool {
    let mut probe: Vec<u8> = Vec::new();
    let outcome = probe.try_reserve_exact(PROBE_BYTES);
    // The compiler may remove an allocation that is not used.
    std::hint::black_box(&probe);
    outcome.is_err()
}

/// The error to return in place of a rejection of the token or the key.
pub(crate) fn out_of_memory() -> Rejection {
    reject(Code::OutOfMemory, "out of memory").with_detail("A cryptographic operation has failed.")
}
