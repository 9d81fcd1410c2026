//! Searches for words of SQL, in any case.

use memchr::memchr2;

/// Whether a text contains a word, in any case. The word is in lower case.
pub(crate) fn contains(text: &[u8], word: &[u8]) -> bool {
    find_ignoring_case(text, word, 0).is_some()
}

/// The position of a word, in any case, at or after `from`. The word is in lower case.
pub(crate) fn find_ignoring_case(text: &[u8], word: &[u8], mut from: usize) -> Option<usize> {
    let first = *word.first()?;
    loop {
        let rest = text.get(from..)?;
        let start = from + memchr2(first, first.to_ascii_uppercase(), rest)?;
        let found = text.get(start..start + word.len());
        if found.is_some_and(|found| found.eq_ignore_ascii_case(word)) {
            return Some(start);
        }
        from = start + 1;
    }
}

/// Whether a byte may be part of an identifier of SQL.
pub(crate) fn is_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}
