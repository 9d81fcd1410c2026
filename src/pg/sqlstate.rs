//! SQLSTATEs in the form in which Postgres stores them.

use std::ffi::c_int;

/// Bits of a packed SQLSTATE that hold its class, the first two characters (`ERRCODE_TO_CATEGORY`).
const CLASS: c_int = (1 << 12) - 1;

/// Bits that hold the first three characters.
const SUBCLASS: c_int = (1 << 18) - 1;

/// Packs an SQLSTATE, six bits a character (`MAKE_SQLSTATE`).
pub(crate) fn packed(sqlstate: &str) -> c_int {
    sqlstate.bytes().enumerate().fold(0, |sum, (place, byte)| {
        sum | (c_int::from(byte.wrapping_sub(b'0')) & 0x3f) << (6 * place)
    })
}

/// Whether a packed SQLSTATE is of the class of another one.
pub(crate) fn is_of_class(code: c_int, sqlstate: &str) -> bool {
    code & CLASS == packed(sqlstate) & CLASS
}

/// Whether the first three characters of a packed SQLSTATE are those of another one.
pub(crate) fn is_of_subclass(code: c_int, sqlstate: &str) -> bool {
    code & SUBCLASS == packed(sqlstate) & SUBCLASS
}
