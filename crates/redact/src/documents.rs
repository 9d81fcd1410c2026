//! Secrets in documents and in arguments of functions.

use std::ops::Range;

use memchr::memchr;

use crate::search::find_ignoring_case;

/// The next value of a member at or after `from`, without its quotes. In a string with escapes, a
/// backslash stands before each quote of the document; in a CSV field, each quote is doubled.
pub(crate) fn secret_member(text: &[u8], member: &[u8], mut from: usize) -> Option<Range<usize>> {
    loop {
        let found = from + memchr::memmem::find(text.get(from..)?, member)?;
        let mut place = found + member.len();
        from = place;
        let is_doubled = found > 0 && text[found - 1] == b'"';
        let at = |place: usize| text.get(place).copied();
        let skip = |place: usize, bytes: &[u8]| {
            let rest = text.get(place..).unwrap_or_default();
            place + rest.iter().take_while(|byte| bytes.contains(byte)).count()
        };
        place = skip(place, b"\\");
        if at(place) != Some(b'"') {
            continue;
        }
        let colon = skip(place + 1 + usize::from(is_doubled), b" \t\r\n\\");
        if at(colon) != Some(b':') {
            continue;
        }
        place = skip(colon + 1, b" \t\r\n");
        let is_escaped = at(place) == Some(b'\\');
        place += usize::from(is_escaped);
        if at(place) != Some(b'"') {
            continue;
        }
        let start = place + 1 + usize::from(is_doubled);
        // Each level of escapes doubles the backslashes.
        let (period, closing) = if is_escaped { (4, 1) } else { (2, 0) };
        let mut backslashes = 0;
        let mut end = start;
        while let Some(byte) = at(end) {
            match byte {
                b'"' if backslashes % period == closing => break,
                b'\\' => backslashes += 1,
                b'"' if is_doubled => {
                    end += 1;
                    backslashes = 0;
                }
                _ => backslashes = 0,
            }
            end += 1;
        }
        let end = end.min(text.len());
        from = end;
        if end > start {
            return Some(start..end);
        }
    }
}

/// The next value of a member at or after `from`, in a document in XML, where each quote is an entity.
pub(crate) fn secret_member_in_xml(
    text: &[u8],
    member: &[u8],
    mut from: usize,
) -> Option<Range<usize>> {
    const QUOTE: &[u8] = b"&quot;";
    let name = member.strip_prefix(b"\"")?;
    let name = name.strip_suffix(b"\"").unwrap_or(name);
    loop {
        let quote = from + memchr::memmem::find(text.get(from..)?, QUOTE)?;
        from = quote + QUOTE.len();
        let rest = &text[from..];
        let Some(rest) = rest.strip_prefix(name).and_then(|rest| rest.strip_prefix(QUOTE)) else {
            continue;
        };
        let Some(rest) = rest.trim_ascii_start().strip_prefix(b":") else { continue };
        let Some(rest) = rest.trim_ascii_start().strip_prefix(QUOTE) else { continue };
        let start = text.len() - rest.len();
        let mut end = start;
        loop {
            let Some(length) = memchr::memmem::find(&text[end..], QUOTE) else {
                end = text.len();
                break;
            };
            end += length;
            let backslashes = text[start..end].iter().rev().take_while(|byte| **byte == b'\\');
            if backslashes.count() % 2 == 0 {
                break;
            }
            end += QUOTE.len();
        }
        from = end;
        if end > start {
            return Some(start..end);
        }
    }
}

/// The next value at or after `from` that an argument has as `name => '...'`, or with `:=` or `=`,
/// without its quotes. A value in dollar quotes ends at the next dollar sign.
pub(crate) fn secret_argument(text: &[u8], name: &[u8], mut from: usize) -> Option<Range<usize>> {
    loop {
        let start = find_ignoring_case(text, name, from)?;
        from = start + name.len();
        let rest = text.get(from..)?;
        let blank =
            |rest: &[u8]| rest.iter().take_while(|byte| b" \t\r\n\"".contains(byte)).count();
        let sign = blank(rest);
        let sign = sign
            + match rest.get(sign..) {
                Some([b'=', b'>', ..] | [b':', b'=', ..]) => 2,
                Some([b'=', ..]) => 1,
                _ => continue,
            };
        let value = sign + blank(&rest[sign..]);
        let value = value + usize::from(matches!(rest.get(value), Some(b'e' | b'E')));
        let (opening, closing) = match rest.get(value) {
            Some(b'\'') => (value + 1, b'\''),
            Some(b'$') => (value + 1 + memchr(b'$', &rest[value + 1..])? + 1, b'$'),
            _ => continue,
        };
        // A doubled quote is one quote of the value.
        let mut end = opening;
        while let Some(byte) = rest.get(end) {
            match byte {
                _ if *byte != closing => end += 1,
                b'\'' if rest.get(end + 1) == Some(&b'\'') => end += 2,
                b'\'' if rest[opening..end].ends_with(b"\\") => end += 1,
                _ => break,
            }
        }
        let found = from + opening..from + end.min(rest.len());
        from = found.end;
        if !found.is_empty() {
            return Some(found);
        }
    }
}
