//! Tokens in the compact serialization (RFC 7515 section 7.1), and parts of tokens.

use std::ops::Range;

use memchr::{memchr, memchr_iter, memchr2_iter};

use crate::search::{contains, find_ignoring_case, is_identifier};

/// The prefix of the settings of the extension.
pub(crate) const SETTING_PREFIX: &[u8] = b"pg_session_jwt";

/// The setting that takes a token, without the prefix.
pub(crate) const TOKEN_SETTING: &[u8] = b"jwt";

/// A shorter part of a token stays: it discloses nothing that can be used.
pub(crate) const MIN_TOKEN_PART_BYTES: usize = 16;

/// The functions that take a token.
const TOKEN_FUNCTIONS: [&[u8]; 2] = [b"jwt_session_init", b"jwt_verify"];

/// The function that inspects a token. Its name is a usual word, so it counts only after a dot.
const INSPECTION: &[u8] = b"inspect";

/// A header or a payload is longer, in bytes.
const MIN_PART_BYTES: usize = 10;

/// Whether a text may contain anything that is redacted: the beginning of a token, or the name of a
/// function, a setting or a table. This runs for every statement, so it looks for the rarest letters of
/// these words.
pub fn may_contain_secrets(text: &[u8]) -> bool {
    let follows = |place: usize, rest: &[u8]| {
        let found = text.get(place..place + rest.len());
        found.is_some_and(|found| found.eq_ignore_ascii_case(rest))
    };
    memchr2_iter(b'j', b'J', text).any(|place| follows(place, TOKEN_SETTING))
        || memchr2_iter(b'v', b'V', text).any(|place| follows(place, b"vider"))
        || memchr2_iter(b'y', b'w', text).any(|place| place > 0 && begins_token(&text[place - 1..]))
        || names_inspection(text)
}

/// Whether a text names the function that inspects a token, with a schema, quoted or not.
fn names_inspection(text: &[u8]) -> bool {
    memchr_iter(b'.', text).any(|dot| {
        let rest = &text[dot + 1..];
        let between = rest.iter().take_while(|byte| b" \t\r\n\"".contains(byte)).count();
        let name = rest[between..].get(..INSPECTION.len());
        name.is_some_and(|name| name.eq_ignore_ascii_case(INSPECTION))
    })
}

/// A table that is true for these bytes.
const fn table(bytes: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut place = 0;
    while place < bytes.len() {
        table[bytes[place] as usize] = true;
        place += 1;
    }
    table
}

/// The next token at or after `from`: text that begins like the base64url of a JSON object and contains
/// a dot.
pub(crate) fn next_token(text: &[u8], mut from: usize) -> Option<Range<usize>> {
    const PART: [bool; 256] =
        table(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=");
    let is_part = |byte: &u8| PART[usize::from(*byte)];
    loop {
        let start = from + memchr(b'e', text.get(from..)?)?;
        let rest = text.get(start..)?;
        if !begins_token(rest) {
            from = start + 1;
            continue;
        }
        let header = rest.iter().take_while(|byte| is_part(byte)).count();
        from = start + header;
        if header < MIN_PART_BYTES {
            // The text after it may be a token.
            continue;
        }
        let length = rest.iter().take_while(|byte| is_part(byte) || **byte == b'.').count();
        from = start + length;
        if length > header + MIN_PART_BYTES {
            return Some(start..from);
        }
    }
}

/// Whether a text begins like the base64url of a JSON object: the encoding of `{"`, of `{` and a space,
/// of `{` and a line end, or of `{` and a tab.
pub(crate) fn begins_token(text: &[u8]) -> bool {
    matches!(text, [b'e', b'y', b'J' | b'A', ..] | [b'e', b'w', b'o' | b'0' | b'k', ..])
}

/// Whether a statement may contain parts of a token: it names a function or the setting that takes a
/// token, or it concatenates strings of which one begins like a token.
pub(crate) fn may_contain_token_parts(statement: &[u8]) -> bool {
    let has = |word: &[u8]| contains(statement, word);
    let begins = || {
        memchr2_iter(b'y', b'w', statement).any(|place| {
            place > 1
                && begins_token(&statement[place - 1..])
                && !is_identifier(statement[place - 2])
        })
    };
    let joins =
        || memchr::memmem::find(statement, b"||").is_some() || has(b"concat") || has(b"format");
    TOKEN_FUNCTIONS.iter().any(|function| has(function))
        || names_inspection(statement)
        || names_token_setting(statement)
        || begins() && joins()
}

/// Whether a text names the setting that takes a token, quoted or not.
fn names_token_setting(text: &[u8]) -> bool {
    let mut from = 0;
    while let Some(place) = find_ignoring_case(text, SETTING_PREFIX, from) {
        from = place + SETTING_PREFIX.len();
        let rest = &text[from..];
        let between = rest.iter().take_while(|byte| b" \t\r\n\".".contains(byte)).count();
        let name = &rest[between..];
        let length = name.iter().take_while(|byte| is_identifier(**byte)).count();
        if between > 0 && name[..length].eq_ignore_ascii_case(TOKEN_SETTING) {
            return true;
        }
    }
    false
}

/// Adds the ranges of a literal that may be a part of a token. A literal of one word is such a part, except
/// the name of a setting. Of other literals, the words with a digit or a capital letter are. Errors
/// put names between double quotes, so a single word between double quotes is judged like one among several.
pub(crate) fn add_token_parts(text: &[u8], literal: Range<usize>, found: &mut Vec<Range<usize>>) {
    let body = &text[literal.clone()];
    const SEPARATOR: [bool; 256] = table(b" \t\n\x0c\r'\"$(),;");
    let is_separator = |byte: &u8| SEPARATOR[usize::from(*byte)];
    let may_be_name = literal.start > 0 && text[literal.start - 1] == b'"';
    if !may_be_name && !body.iter().any(is_separator) {
        if body.len() >= MIN_TOKEN_PART_BYTES && !contains(body, SETTING_PREFIX) {
            found.push(literal);
        }
        return;
    }
    let mut start = literal.start;
    for word in body.split(|byte| is_separator(byte)) {
        let end = start + word.len();
        let is_varied = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        if word.len() >= MIN_TOKEN_PART_BYTES && word.iter().any(is_varied) {
            found.push(start..end);
        }
        start = end + 1;
    }
}
