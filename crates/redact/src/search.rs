//! Searches for words in any case, and the check that most statements end at.

use memchr::{memchr2, memchr2_iter};

use crate::tokens::{TOKEN_SETTING, begins_token};

/// Whether a text may contain anything that is redacted: the beginning of a token, or the name of a
/// function, a setting or a table. This runs for every statement, so it looks for the rarest letters of
/// these words.
pub(crate) fn may_contain_secrets(text: &[u8]) -> bool {
    let follows = |place: usize, rest: &[u8]| {
        let found = text.get(place..place + rest.len());
        found.is_some_and(|found| found.eq_ignore_ascii_case(rest))
    };
    memchr2_iter(b'j', b'J', text).any(|place| follows(place, TOKEN_SETTING))
        || memchr2_iter(b'v', b'V', text).any(|place| follows(place, b"vider"))
        || memchr2_iter(b'y', b'w', text).any(|place| place > 0 && begins_token(&text[place - 1..]))
}

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
