//! Quoted text in SQL: string constants, quoted identifiers, and dollar quotes.

use std::ops::Range;

use memchr::{memchr, memchr2};

use crate::search::is_identifier;

/// Finds the quoted texts, without their quotes. The second argument says whether a backslash escapes a
/// single quote in a string that has no `E` before it.
pub(crate) type Literals = fn(&[u8], bool) -> Vec<Range<usize>>;

/// The quoted texts of a statement: between single or double quotes, or in dollar quotes. A quoted text
/// that begins in a comment ends with the comment.
pub(crate) fn literals(text: &[u8], backslashes: bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    literals_within(text, 0..text.len(), backslashes, true, &mut found);
    found
}

/// The quoted texts of an error's context, where statements stand between double quotes.
pub(crate) fn literals_in_context(context: &[u8], backslashes: bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(statement) = statement_in_context(context, from) {
        // The label and the opening quote come before the statement.
        let end = statement.end;
        literals_within(context, from..statement.start - 1, backslashes, true, &mut found);
        literals_within(context, statement, backslashes, true, &mut found);
        from = end + 1;
    }
    literals_within(context, from.min(context.len())..context.len(), backslashes, true, &mut found);
    found
}

/// The first statement or expression of a context at or after `from`, without its quotes. The statement
/// may contain quotes. It ends before the quote that ends the context or that stands before another line
/// of the context.
fn statement_in_context(context: &[u8], from: usize) -> Option<Range<usize>> {
    // The beginnings of lines in English. In another language no statement is found, and the whole
    // quoted text is redacted.
    const STATEMENTS: [&[u8]; 3] =
        [b"SQL statement \"", b"SQL expression \"", b"PL/pgSQL assignment \""];
    const LINES: [&[u8]; 2] = [b"PL/pgSQL function ", b"SQL function \""];
    let opening = |line: &[u8]| {
        let opening = STATEMENTS.iter().find(|opening| line.starts_with(opening));
        opening.map(|opening| opening.len())
    };
    let is_line =
        |line: &[u8]| opening(line).is_some() || LINES.iter().any(|start| line.starts_with(start));
    let rest = context.get(from..)?;
    let mut lines = std::iter::once(0).chain(memchr::memchr_iter(b'\n', rest).map(|end| end + 1));
    let start = lines.find_map(|line| opening(&rest[line..]).map(|length| line + length))?;
    let mut quotes = memchr::memchr_iter(b'"', &rest[start..]).map(|place| start + place);
    let end = quotes.find(|quote| match &rest[quote + 1..] {
        [] => true,
        [b'\n', line @ ..] => is_line(line),
        _ => false,
    })?;
    Some(from + start..from + end)
}

/// Adds the quoted texts within a range of the text.
fn literals_within(
    text: &[u8],
    range: Range<usize>,
    backslashes: bool,
    with_comments: bool,
    found: &mut Vec<Range<usize>>,
) {
    let text = &text[..range.end];
    let mut place = range.start;
    while place < text.len() {
        let rest = &text[place..];
        let start = match rest {
            [b'-', b'-', ..] if with_comments => {
                let end = place + memchr(b'\n', rest).unwrap_or(rest.len());
                literals_within(text, place..end, backslashes, false, found);
                place = end;
                continue;
            }
            [b'/', b'*', ..] if with_comments => {
                let end = place + comment_length(rest);
                literals_within(text, place..end, backslashes, false, found);
                place = end;
                continue;
            }
            [b'\'' | b'"', ..] => place + 1,
            [b'$', ..] => match dollar_quote_length(rest) {
                // A dollar sign may be a part of a name.
                Some(length) if place == 0 || !is_identifier(text[place - 1]) => place + length,
                _ => {
                    place += 1;
                    continue;
                }
            },
            _ => {
                place += 1;
                continue;
            }
        };
        let quote = text[place];
        let body = &text[start..];
        let end = if quote == b'$' {
            memchr::memmem::find(body, &text[place..start])
        } else {
            let is_escape_string = match text[..place] {
                [.., before, b'e' | b'E'] => !is_identifier(before),
                [b'e' | b'E'] => true,
                _ => false,
            };
            closing_quote(body, quote, quote == b'"' || backslashes || is_escape_string)
        };
        let end = start + end.unwrap_or(body.len());
        found.push(start..end);
        place = end + if quote == b'$' { start - place } else { 1 };
    }
}

/// The length of the comment that a text begins with. Comments nest.
fn comment_length(text: &[u8]) -> usize {
    let (mut place, mut depth) = (0, 0);
    while place < text.len() {
        match text[place..] {
            [b'/', b'*', ..] => (place, depth) = (place + 2, depth + 1),
            [b'*', b'/', ..] => (place, depth) = (place + 2, depth - 1),
            _ => place += 1,
        }
        if depth == 0 {
            break;
        }
    }
    place
}

/// The length of the opening quote, if a text begins with a dollar quote.
fn dollar_quote_length(text: &[u8]) -> Option<usize> {
    let tag = text.get(1..)?.iter().position(|byte| !is_identifier(*byte))?;
    let is_tag = text[tag + 1] == b'$' && !text[1].is_ascii_digit();
    is_tag.then_some(tag + 2)
}

/// The position of the quote that closes a quoted text. A doubled quote does not close it; with
/// `backslashes`, neither does a quote after a backslash.
fn closing_quote(body: &[u8], quote: u8, backslashes: bool) -> Option<usize> {
    let mut place = 0;
    loop {
        let rest = body.get(place..)?;
        place += if backslashes { memchr2(quote, b'\\', rest)? } else { memchr(quote, rest)? };
        if body[place] == quote && body.get(place + 1) != Some(&quote) {
            return Some(place);
        }
        place += 2;
    }
}
