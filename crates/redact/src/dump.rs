//! Redacts dumps of parse trees and plans (`nodeToString`), which `debug_print_parse` and similar
//! settings write to the log.

/// The length of the longest name of a field or a node, and of the longest number, in bytes.
const MAX_WORD_BYTES: usize = 31;

/// The fields whose values are names of relations and columns, or labels of columns.
const NAME_FIELDS: [&[u8]; 6] =
    [b":aliasname", b":relname", b":schemaname", b":colname", b":ctename", b":resname"];

/// Overwrites each word of a dump that is not known to be structure. Structure is: names of nodes and
/// fields, numbers, booleans, and names of relations and columns. A token is in a dump as the bytes of a
/// constant, complete or in pieces, of any type, or as a string. Postgres breaks the lines of a dump at
/// any byte, so whitespace stays. The length stays the same.
pub fn redact_dump(text: &mut [u8]) {
    let mut place = 0;
    let (mut in_bytes, mut is_name, mut opened) = (false, false, false);
    while let Some(byte) = text.get(place) {
        match byte {
            b' ' | b'\n' | b'\t' => place += 1,
            b'{' | b'}' | b'(' | b')' if !in_bytes => {
                opened = *byte == b'{';
                place += 1;
            }
            _ => {
                let end = place + word_length(&text[place..]);
                let word = &mut text[place..end];
                // The bytes of a constant stand between brackets.
                let ends_bytes = in_bytes && *word == b"]"[..];
                let begins_bytes = *word == b"["[..];
                let is_value = (in_bytes && !ends_bytes) || !is_structure(word, opened, is_name);
                is_name = NAME_FIELDS.contains(&&*word);
                in_bytes = (in_bytes || begins_bytes) && !ends_bytes;
                opened = false;
                if is_value {
                    for byte in word.iter_mut().filter(|byte| !byte.is_ascii_whitespace()) {
                        *byte = b'*';
                    }
                }
                place = end;
            }
        }
    }
}

/// The length of the first word of a text. A word ends at whitespace, a brace or a parenthesis; within a
/// word, a backslash stands before such a byte.
fn word_length(text: &[u8]) -> usize {
    let mut length = 0;
    while let Some(byte) = text.get(length) {
        match byte {
            b'\\' => length += 2,
            b' ' | b'\n' | b'\t' | b'{' | b'}' | b'(' | b')' => break,
            _ => length += 1,
        }
    }
    length.clamp(1, text.len())
}

/// Whether a word of a dump is structure and not a value. `opened` says that the word follows an opening
/// brace; `is_name` says that it is the value of one of [`NAME_FIELDS`].
fn is_structure(word: &[u8], opened: bool, is_name: bool) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.".contains(byte);
    match word {
        b"[" | b"]" | b"<>" | b"true" | b"false" | b"?column?" => true,
        // The first letter of lists of integers and of sets, or a code such as relkind.
        [letter] if letter.is_ascii_lowercase() => true,
        _ if opened => {
            word.len() <= MAX_WORD_BYTES
                && word.iter().all(|byte| byte.is_ascii_uppercase() || b"_".contains(byte))
        }
        [b':', name @ ..] => name.len() <= MAX_WORD_BYTES && name.iter().all(is_word),
        _ if is_name => {
            word.len() < 64 && word.iter().all(|byte| is_word(byte) && !b".".contains(byte))
        }
        _ => word.len() <= MAX_WORD_BYTES && is_number(word),
    }
}

fn is_number(word: &[u8]) -> bool {
    word.iter().any(u8::is_ascii_digit)
        && word.iter().all(|byte| byte.is_ascii_digit() || b"+-.e".contains(byte))
}
