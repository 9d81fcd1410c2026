//! Tokens and secrets in text that others will read: statements and log lines.

use std::ops::Range;

use memchr::{memchr, memchr2, memchr2_iter};

/// Of what a text speaks in which documents may hold a secret, in any case: of our settings, of the
/// function that adds a provider, and of the table of them.
const SUBJECTS: [&[u8]; 3] = [b"pg_session_jwt", b"add_provider", b"providers"];

/// The argument of that function, and the column, that is a secret, in any case.
const SECRET_ARGUMENT: &[u8] = b"secret";

/// A secret that can be used has at least as many bytes (RFC 7518 section 3.2).
const SHORTEST_SECRET: usize = 32;

/// The members of documents that hold a secret, up to the closing quote: a provider's, and a
/// symmetric JWK's (RFC 7518 section 6.4.1).
const SECRET_MEMBERS: [&[u8]; 2] = [b"\"secret", b"\"k"];

/// A header or a payload is longer.
const SHORTEST_PART: usize = 10;

/// The functions that take a token, in any case.
const TOKEN_FUNCTIONS: [&[u8]; 2] = [b"jwt_session_init", b"jwt_verify"];

/// The prefix of the settings, and the name of the one that holds a token.
const SETTING_PREFIX: &[u8] = b"pg_session_jwt";
const TOKEN_SETTING: &[u8] = b"jwt";

/// A shorter part of a token tells nothing.
const SHORTEST_TOKEN_PART: usize = 16;

/// What pgAudit begins its log lines with.
const AUDIT_PREFIX: &[u8] = b"AUDIT: ";

/// What a text may quote, beside what looks like a token or a secret by itself.
#[derive(Clone, Copy, Default)]
pub struct Quotes {
    /// A provider's secret: quoted text that is as long as a secret is overwritten.
    pub secrets: bool,
    /// Parts of a token: quoted text that may be such a part is overwritten.
    pub token_parts: bool,
}

impl Quotes {
    /// What a statement quotes, and so do its parameters and the errors that it raises.
    pub fn of_statement(statement: &[u8]) -> Self {
        if !may_have_secrets(statement) {
            return Self::default();
        }
        Self { secrets: may_give_secrets(statement), token_parts: may_give_token_parts(statement) }
    }

    /// What either quotes.
    pub fn or(self, other: Self) -> Self {
        Self {
            secrets: self.secrets || other.secrets,
            token_parts: self.token_parts || other.token_parts,
        }
    }
}

/// Overwrites what looks like a token (RFC 7515 section 7.1) with asterisks; secrets in documents, where
/// the text names one of the settings or a provider; quoted text that is long enough for a secret, in a
/// statement that may give a provider one; and quoted text that may be a part of a token, in a statement
/// that presents one. The length stays the same, and all that is not quoted keeps its meaning in SQL.
pub fn conceal(text: &mut [u8]) {
    conceal_with(text, Quotes::of_statement(text));
}

/// The same, with what the text is known to quote: that of the statement that it goes with, such as its
/// parameters and the errors that it raises, or nothing.
pub fn conceal_with(text: &mut [u8], quotes: Quotes) {
    conceal_literals(text, quotes, literals);
}

/// The same in the context of an error. A statement that stands there between double quotes is no value:
/// it is read as a statement, so that what is between quotes in it is overwritten, and not all of it.
pub fn conceal_context(context: &mut [u8], quotes: Quotes) {
    conceal_literals(context, quotes, literals_in_context);
}

fn conceal_literals(text: &mut [u8], quotes: Quotes, literals: Literals) {
    if !quotes.secrets && !quotes.token_parts && !may_have_secrets(text) {
        return;
    }
    // They are found first: a text that was overwritten in part has other quotes.
    for found in found(text, quotes, literals) {
        overwrite(text, found);
    }
    let mut from = 0;
    while let Some(found) = token(text, from) {
        from = found.end;
        overwrite(text, found);
    }
}

/// All that is to be overwritten, but for tokens that are whole.
fn found(text: &[u8], quotes: Quotes, literals: Literals) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut all = |next: &dyn Fn(usize) -> Option<Range<usize>>| {
        let mut from = 0;
        while let Some(range) = next(from) {
            from = range.end.max(from + 1);
            found.push(range);
        }
    };
    if speaks_of_documents(text) {
        for member in SECRET_MEMBERS {
            all(&|from| secret(text, member, from));
            all(&|from| secret_in_xml(text, member, from));
        }
        all(&|from| argument(text, from));
    }
    if !quotes.secrets && !quotes.token_parts {
        return found;
    }
    // Whether a backslash escapes a quote depends on a setting: where there is one, both readings count.
    let readings: &[bool] =
        if memchr::memmem::find(text, b"\\'").is_some() { &[false, true] } else { &[false] };
    for backslashes in readings {
        for literal in literals(text, *backslashes) {
            if quotes.secrets && literal.len() >= SHORTEST_SECRET {
                found.push(literal.clone());
            }
            if quotes.token_parts {
                token_parts(text, literal, &mut found);
            }
        }
    }
    // The parameters are its last field, which is not quoted where it needs no quotes.
    if text.starts_with(AUDIT_PREFIX)
        && let Some(comma) = memchr::memrchr(b',', text)
    {
        let shortest = if quotes.secrets { SHORTEST_SECRET } else { SHORTEST_TOKEN_PART };
        let field = comma + 1..text.len();
        if field.len() >= shortest {
            found.push(field);
        }
    }
    found
}

fn overwrite(text: &mut [u8], range: Range<usize>) {
    let opens_comment = range.start > 0 && text[range.start - 1] == b'/';
    text[range.clone()].fill(b'*');
    // Within a comment or an expression, a slash and an asterisk would open another comment.
    if opens_comment && !range.is_empty() {
        text[range.start] = b'x';
    }
}

/// Adds what may be a part of a token in a literal: all of it, where it is one word, or its words with
/// digits, capital letters or escapes. The name of the setting is none. Errors put names between double
/// quotes, and so what stands there alone is judged as a word among others.
fn token_parts(text: &[u8], literal: Range<usize>, found: &mut Vec<Range<usize>>) {
    let body = &text[literal.clone()];
    let is_structure = |byte: &u8| byte.is_ascii_whitespace() || b"'\"$(),;".contains(byte);
    let may_be_name = literal.start > 0 && text[literal.start - 1] == b'"';
    if !may_be_name && !body.iter().any(is_structure) {
        if body.len() >= SHORTEST_TOKEN_PART
            && find_ignoring_case(body, SETTING_PREFIX, 0).is_none()
        {
            found.push(literal);
        }
        return;
    }
    let mut start = literal.start;
    for word in body.split(|byte| is_structure(byte)) {
        let end = start + word.len();
        let is_varied = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        if word.len() >= SHORTEST_TOKEN_PART && word.iter().any(is_varied) {
            found.push(start..end);
        }
        start = end + 1;
    }
}

/// The longest name of a field or a node in a dump, and the longest number.
const LONGEST_WORD: usize = 31;

/// Fields of a dump whose values are names of relations and columns, or columns' labels.
const NAME_FIELDS: [&[u8]; 6] =
    [b":aliasname", b":relname", b":schemaname", b":colname", b":ctename", b":resname"];

/// Overwrites the values in a dump of a parse tree or a plan (`nodeToString`), as `debug_print_parse` and
/// the like have them written: all but what is known to be none, which is the names of nodes and fields,
/// numbers, booleans, and names of relations and columns. A token stands there as the bytes of a constant,
/// whole or in pieces, of whatever type, or as a text. Whitespace stays, for dumps are broken into lines
/// wherever these are full, and so does the length.
pub fn conceal_dump(text: &mut [u8]) {
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
                // The bytes of a constant, between brackets.
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

/// How long the word is that a text begins with: up to whitespace, a brace or a parenthesis. Such a byte
/// of the word itself has a backslash before it.
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

/// Whether a word of a dump is no value: `opened` tells that it follows a brace, `is_name` that it follows
/// the name of a field that names something.
fn is_structure(word: &[u8], opened: bool, is_name: bool) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.".contains(byte);
    match word {
        b"[" | b"]" | b"<>" | b"true" | b"false" | b"?column?" => true,
        // What lists of integers and sets begin with; a kind of relation, say.
        [letter] if letter.is_ascii_lowercase() => true,
        _ if opened => {
            word.len() <= LONGEST_WORD
                && word.iter().all(|byte| byte.is_ascii_uppercase() || b"_".contains(byte))
        }
        [b':', name @ ..] => name.len() <= LONGEST_WORD && name.iter().all(is_word),
        _ if is_name => {
            word.len() < 64 && word.iter().all(|byte| is_word(byte) && !b".".contains(byte))
        }
        _ => word.len() <= LONGEST_WORD && is_number(word),
    }
}

fn is_number(word: &[u8]) -> bool {
    word.iter().any(u8::is_ascii_digit)
        && word.iter().all(|byte| byte.is_ascii_digit() || b"+-.e".contains(byte))
}

/// Whether a text has anything that [`conceal`] would overwrite. It is asked for every statement.
pub fn has_secrets(text: &[u8]) -> bool {
    if !may_have_secrets(text) {
        return false;
    }
    let quotes = Quotes::of_statement(text);
    quotes.secrets || token(text, 0).is_some() || !found(text, quotes, literals).is_empty()
}

/// Whether a text has what all that is overwritten comes with: a token's beginning, or the name of a
/// function, a setting or a table. It looks for their rarest letters.
fn may_have_secrets(text: &[u8]) -> bool {
    let follows = |place: usize, rest: &[u8]| {
        let found = text.get(place..place + rest.len());
        found.is_some_and(|found| found.eq_ignore_ascii_case(rest))
    };
    memchr2_iter(b'j', b'J', text).any(|place| follows(place, TOKEN_SETTING))
        || memchr2_iter(b'v', b'V', text).any(|place| follows(place, b"vider"))
        || memchr2_iter(b'y', b'w', text).any(|place| place > 0 && begins_token(&text[place - 1..]))
}

/// Whether a text begins like the base64url of a JSON object: of `{"`, `{ `, and `{` before a line's end
/// or a tab.
fn begins_token(text: &[u8]) -> bool {
    matches!(text, [b'e', b'y', b'J' | b'A', ..] | [b'e', b'w', b'o' | b'0' | b'k', ..])
}

/// Whether a statement may give a provider a secret, by the function or by the column.
fn may_give_secrets(statement: &[u8]) -> bool {
    let has = |word: &[u8]| find_ignoring_case(statement, word, 0).is_some();
    let in_table = || has(b"providers") && (has(SECRET_ARGUMENT) || has(b"copy"));
    // A setting is read as what it is.
    has(b"add_provider") || in_table() && !has(SETTING_PREFIX)
}

/// Whether a statement may put a token together from parts: it names a function or the setting that takes
/// one, or joins texts of which one begins like a token.
fn may_give_token_parts(statement: &[u8]) -> bool {
    let has = |word: &[u8]| find_ignoring_case(statement, word, 0).is_some();
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
        || names_token_setting(statement)
        || begins() && joins()
}

/// Whether a text names the setting that holds a token, in quotes or not.
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

fn is_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// Finds the texts in quotes, given whether a backslash escapes a single quote without an `E` before it.
type Literals = fn(&[u8], bool) -> Vec<Range<usize>>;

/// The texts in quotes: single ones, double ones, or dollars with a tag. Those in a comment end with it.
/// `backslashes` says whether a backslash escapes a single quote without an `E` before it.
fn literals(text: &[u8], backslashes: bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    literals_within(text, 0..text.len(), backslashes, true, &mut found);
    found
}

/// The same of an error's context, where statements stand between double quotes.
fn literals_in_context(context: &[u8], backslashes: bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(statement) = statement_in_context(context, from) {
        // Before it is what it is called, with the opening quote.
        let end = statement.end;
        literals_within(context, from..statement.start - 1, backslashes, true, &mut found);
        literals_within(context, statement, backslashes, true, &mut found);
        from = end + 1;
    }
    literals_within(context, from.min(context.len())..context.len(), backslashes, true, &mut found);
    found
}

/// The first statement or expression from there on in a context, without its quotes. Its text may have
/// some: it ends before the one that ends the context, or that another line of it follows.
fn statement_in_context(context: &[u8], from: usize) -> Option<Range<usize>> {
    // What Postgres begins lines with, in English. Else nothing is found, and all is overwritten.
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

/// How long the comment is that a text begins with. Comments are nested.
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

/// How long the opening quote is of the text in dollar quotes that a text begins with.
fn dollar_quote_length(text: &[u8]) -> Option<usize> {
    let tag = text.get(1..)?.iter().position(|byte| !is_identifier(*byte))?;
    let is_tag = text[tag + 1] == b'$' && !text[1].is_ascii_digit();
    is_tag.then_some(tag + 2)
}

/// The next token from there on: what begins like the base64url of a JSON object, and has a dot.
fn token(text: &[u8], mut from: usize) -> Option<Range<usize>> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_+/=".contains(byte);
    loop {
        let start = from + memchr(b'e', text.get(from..)?)?;
        let rest = text.get(start..)?;
        if !begins_token(rest) {
            from = start + 1;
            continue;
        }
        let header = rest.iter().take_while(|byte| is_part(byte)).count();
        from = start + header;
        if header < SHORTEST_PART {
            // What comes after it may be one.
            continue;
        }
        let length = rest.iter().take_while(|byte| is_part(byte) || **byte == b'.').count();
        from = start + length;
        if length > header + SHORTEST_PART {
            return Some(start..from);
        }
    }
}

/// Where the quote is that closes a text; a doubled one does not, nor, with `backslashes`, one behind a
/// backslash.
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

fn speaks_of_documents(text: &[u8]) -> bool {
    SUBJECTS.iter().any(|subject| find_ignoring_case(text, subject, 0).is_some())
}

/// Where a word in small letters begins, in whatever case it is.
fn find_ignoring_case(text: &[u8], word: &[u8], mut from: usize) -> Option<usize> {
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

/// The next secret from there on that is given as `secret => '…'`, or with `:=` or `=`, between its quotes;
/// in dollar quotes, up to the next dollar sign.
fn argument(text: &[u8], mut from: usize) -> Option<Range<usize>> {
    loop {
        let start = find_ignoring_case(text, SECRET_ARGUMENT, from)?;
        from = start + SECRET_ARGUMENT.len();
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
        // Two quotes are one within the text, which then is overwritten in two pieces at most.
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

/// The next value of that member from there on, between its quotes. Where the document stands in
/// a string with escapes, each quote has a backslash before it; in a field of CSV, each is doubled.
fn secret(text: &[u8], member: &[u8], mut from: usize) -> Option<Range<usize>> {
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
        // One level of escapes doubles backslashes, and two double them twice.
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

/// The same for a document in XML, where each quote is an entity.
fn secret_in_xml(text: &[u8], member: &[u8], mut from: usize) -> Option<Range<usize>> {
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

#[cfg(test)]
mod tests {
    use super::{Quotes, conceal, conceal_context, conceal_dump, conceal_with, has_secrets};

    fn concealed(text: &str) -> (bool, String) {
        let mut bytes = text.as_bytes().to_vec();
        conceal(&mut bytes);
        let found = bytes != text.as_bytes();
        // It may be more careful.
        assert!(has_secrets(text.as_bytes()) || !found, "{text}");
        (found, String::from_utf8(bytes).expect("only ASCII is overwritten"))
    }

    const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl-_";

    #[test]
    fn tokens_are_overwritten_wherever_they_stand() {
        let stars = "*".repeat(TOKEN.len());
        for template in ["{}", "SET x = '{}'; é", "Bearer {}\n{} {}", "{},", "a={}", "E'\\'{}'"] {
            let expected = (true, template.replace("{}", &stars));
            assert_eq!(concealed(&template.replace("{}", TOKEN)), expected, "{template}");
        }
        // Behind something that begins like one.
        assert_eq!(concealed(&format!("keyJ.{TOKEN}")), (true, format!("keyJ.{stars}")));
        // Cut off, as long values in the log are, or without a signature.
        for cut in 31..TOKEN.len() {
            assert_eq!(concealed(&TOKEN[..cut]), (true, "*".repeat(cut)), "{cut}");
        }
    }

    /// However the text repeats itself, each byte is looked at a few times only.
    #[test]
    fn long_texts_take_no_longer_than_they_must() {
        for piece in
            ["eyJ.", "eyJ", "eyJhbGciOiJFUzI1NiJ9.x ", "\"k\":\"", "\"k\": pg_session_jwt."]
        {
            concealed(&piece.repeat(1 << 20));
        }
    }

    #[test]
    fn other_text_stays() {
        for text in [
            "",
            "eyJ",
            "eyJhbGciOiJFUzI1NiJ9",
            "eyJhbGciOiJFUzI1NiJ9 . eyJzdWIiOiJhbGljZSJ9",
            "eyJ.a.b",
            "SELECT auth.jwt_session_init($1, true)",
            "SELECT f('add providers', 'x') -- the secret of 32 bytes is not here",
            "SELECT f(secret => 'public')",
            "INSERT INTO t VALUES ('{\"k\": \"v\", \"secret\": \"s\"}')",
            "ALTER SYSTEM SET pg_session_jwt.jwk = '{\"kty\": \"oct\", \"k\": 7}'",
            "pg_session_jwt. \"k\" \"v\" \"secret\"",
        ] {
            assert_eq!(concealed(text), (false, text.to_owned()));
        }
    }

    #[test]
    fn secrets_of_our_settings_are_overwritten() {
        let set = "ALTER SYSTEM SET pg_session_jwt.providers = '[{\"secret\" : \"a\\\"b\\\\\", \
                   \"name\":\"n\"}, {\"jwks\": {\"k\":\"c\", \"kid\": \"d\"}}, {\"secret\":\"é";
        let expected = "ALTER SYSTEM SET pg_session_jwt.providers = '[{\"secret\" : \"******\", \
                        \"name\":\"n\"}, {\"jwks\": {\"k\":\"*\", \"kid\": \"d\"}}, {\"secret\":\"**";
        assert_eq!(concealed(set), (true, expected.to_owned()));
    }

    #[test]
    fn secrets_of_providers_are_overwritten() {
        for (text, expected) in [
            ("SELECT add_provider('p', secret => 'abc', x => 'd')", "'***', x => 'd')"),
            ("CALL Auth.Add_Provider(SECRET:=E'ab\\'c', x => 'd')", "E'*****', x => 'd')"),
            ("SELECT add_provider(\"secret\"  :=\n'a''b') -- 'c'", "'****') -- 'c'"),
            ("SELECT auth.add_provider('p', secret => $x$abc$x$)", "$x$***$x$)"),
            ("SELECT auth.add_provider('p', secret => 'cut of", "'******"),
            ("UPDATE auth.providers SET secret = 'abc'", "'***'"),
            (
                "SELECT add_provider('p', NULL, 'a secret of at least 32 bytes, it is')",
                "'p', NULL, '************************************')",
            ),
            (
                "INSERT INTO providers (secret) VALUES ($$a secret of at least 32 bytes, it is$$, 'x')",
                "$$************************************$$, 'x')",
            ),
            (
                "COPY providers, line 2: \"x\ty\ta secret of at least 32 bytes, it is\"",
                ": \"****************************************\"",
            ),
            ("UPDATE auth.providers SET jwks = '{\"k\": \"abc\"}'", "'{\"k\": \"***\"}'"),
        ] {
            let (found, concealed) = concealed(text);
            assert!(found && concealed.ends_with(expected), "{concealed}");
            assert_eq!(concealed.len(), text.len());
        }
    }

    #[test]
    fn parts_of_tokens_are_overwritten_where_a_statement_takes_one() {
        for (text, expected) in [
            (
                "jwt_verify('abcdefghijklmnop' || 'short')",
                "jwt_verify('****************' || 'short')",
            ),
            ("SET \"pg_session_jwt\" . jwt = '0123456789abcdefgh'", "jwt = '******************'"),
            ("set_config('pg_session_jwt.jwt', '0123456789abcdef')", ".jwt', '****************')"),
            ("f('eyJ' || '0123456789abcdef')", "f('eyJ' || '****************')"),
            (
                "DO $$ perform auth.jwt_verify('0123456789abcdef' || x) $$",
                "DO $$ perform auth.jwt_verify('****************' || x) $$",
            ),
            // A comment does not hide what comes after it, nor does a backslash.
            (
                "-- isn't\njwt_verify('0123456789abcdef'||'x')",
                "jwt_verify('****************'||'x')",
            ),
            ("/* '/*' */ jwt_verify('\\', '0123456789abcdef')", "'****************')"),
            ("AUDIT: SESSION,\"jwt_verify($1)\",0123456789abcdef", "\",****************"),
        ] {
            let (found, concealed) = concealed(text);
            assert!(found && concealed.ends_with(expected), "{concealed}");
        }
    }

    /// Errors quote names as they quote values.
    #[test]
    fn names_in_errors_stay() {
        let quotes = Quotes { secrets: false, token_parts: true };
        for (text, expected) in [
            ("relation \"customer_accounts\" does not exist", None),
            ("new row violates policy for table \"customer_accounts-of.all\"", None),
            ("trailing junk after \"customer accounts that are not there\"", None),
            ("invalid value \"abcdefghijklmnop1\"", Some("\"*****************\"")),
            ("invalid value \"Abcdefghijklmnop\"", Some("\"****************\"")),
            ("invalid value \"abcdefgh.JKlmnop\"", Some("\"****************\"")),
            ("invalid value \"abcdefgh/+lmnop9\"", Some("\"****************\"")),
            ("invalid value \"x:abcdefghijklmno9\"", Some("\"******************\"")),
            ("invalid value \"\\x65794a68624763\"", Some("\"****************\"")),
            // Values alone stand between single quotes, and in dollar quotes.
            ("parameters: $1 = 'abcdefghijklmnop'", Some("'****************'")),
            ("$$abcdefghijklmnop$$", Some("$$****************$$")),
        ] {
            let mut bytes = text.as_bytes().to_vec();
            conceal_with(&mut bytes, quotes);
            let concealed = String::from_utf8(bytes).unwrap();
            match expected {
                None => assert_eq!(concealed, text),
                Some(end) => assert!(concealed.ends_with(end), "{concealed}"),
            }
        }
    }

    /// A statement in a context is one, and no value.
    #[test]
    fn statements_in_contexts_keep_what_is_no_value() {
        let function = "PL/pgSQL function auth.add_provider(text,text) line 10 at SQL statement";
        let insert = "INSERT INTO auth.providers (name, secret)\n VALUES (p.name, p.\"secret\")";
        let secret = "a secret of at least 32 bytes, it is";
        let stars = "*".repeat(secret.len());
        for (text, expected) in [
            (format!("SQL statement \"{insert}\"\n{function}"), None),
            (format!("SQL statement \"{insert}\""), None),
            (format!("{function}\nSQL statement \"{insert}\"\n{function}\n{function}"), None),
            (format!("SQL expression \"{insert}\"\nSQL statement \"{insert}\"\n{function}"), None),
            (
                format!("PL/pgSQL assignment \"x := '{secret}'\"\n{function}"),
                Some(format!("PL/pgSQL assignment \"x := '{stars}'\"\n{function}")),
            ),
            (
                format!("SQL statement \"SELECT f(\"x\", '{secret}') -- isn't\"\n{function}"),
                Some(format!("SQL statement \"SELECT f(\"x\", '{stars}') -- isn't\"\n{function}")),
            ),
            (
                format!("SQL statement \"SELECT '\"\n{secret}'\"\n{function}"),
                Some(format!("SQL statement \"SELECT '**{stars}'\"\n{function}")),
            ),
            (
                format!("SQL statement \"SELECT $x${secret}$x$, E'it\\'s {secret}'\""),
                Some(format!("SQL statement \"SELECT $x${stars}$x$, E'******{stars}'\"")),
            ),
            // Other lines, and what has no end that is known, are judged as before.
            (
                format!("COPY providers, line 2: \"{secret}\"\nSQL statement \"{insert}\""),
                Some(format!("COPY providers, line 2: \"{stars}\"\nSQL statement \"{insert}\"")),
            ),
            (format!("a SQL statement \"{secret}\""), Some(format!("a SQL statement \"{stars}\""))),
            (
                format!("SQL statement \"{secret}\"\nor what"),
                Some(format!("SQL statement \"{stars}\"\nor what")),
            ),
        ] {
            let mut bytes = text.as_bytes().to_vec();
            conceal_context(&mut bytes, Quotes { secrets: true, token_parts: true });
            let concealed = String::from_utf8(bytes).unwrap();
            assert_eq!(concealed, expected.unwrap_or(text));
        }
        // Documents and whole tokens, as everywhere.
        let text = format!(
            "SQL statement \"SELECT '{TOKEN}', '{{\"k\": \"abc\"}}'\"\nSQL function \"providers\""
        );
        let expected = text.replace(TOKEN, &"*".repeat(TOKEN.len())).replace("abc", "***");
        let mut bytes = text.into_bytes();
        conceal_context(&mut bytes, Quotes::default());
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    /// Libraries scan the text again, for constants.
    #[test]
    fn no_comment_is_opened() {
        let text = format!("/* https://example.com/{TOKEN} */ SELECT 1");
        let (_, concealed) = concealed(&text);
        assert!(concealed.starts_with("/* https://example.com/x***"), "{concealed}");
    }

    #[test]
    fn documents_stand_in_csv_and_xml() {
        for (text, expected) in [
            (
                "pg_session_jwt.jwk = '{\"\"k\"\":\"\"a\\\"\"b\"\", \"\"x\"\": 1}",
                "\"\"k\"\":\"\"*****\"\", \"\"x\"\": 1}",
            ),
            (
                "providers {&quot;secret&quot;: &quot;a\\&quot;b&quot;, &quot;x&quot;: 1}",
                "&quot;secret&quot;: &quot;*********&quot;, &quot;x&quot;: 1}",
            ),
        ] {
            let (found, concealed) = concealed(text);
            assert!(found && concealed.ends_with(expected), "{concealed}");
        }
    }

    #[test]
    fn settings_are_spelled_in_many_ways() {
        for name in ["PG_SESSION_JWT.jwk", "\"pg_session_jwt\".\"jwk\"", "pg_session_jwt . jwk"] {
            let set = format!("ALTER SYSTEM SET {name} = '{{\"k\":\"abc\"}}'");
            assert_eq!(concealed(&set), (true, set.replace("abc", "***")));
        }
        let escaped = r#"SET pg_session_jwt.jwk = E'{\"k\": \"a\\\"b\", \"kid\": \"c\"}'"#;
        let expected = r#"SET pg_session_jwt.jwk = E'{\"k\": \"*******", \"kid\": \"c\"}'"#;
        assert_eq!(concealed(escaped), (true, expected.to_owned()));
    }

    #[test]
    fn dumps_keep_their_structure_and_no_value() {
        for (dump, expected) in [
            (
                "   {CONST \n   :consttype 25 \n   :constbyval false \n   :constisnull false \n   \
                 :location 7 \n   :constvalue 36 [ -112 0 0 \n   0 101 12\n1 74 ]\n   }\n",
                "   {CONST \n   :consttype 25 \n   :constbyval false \n   :constisnull false \n   \
                 :location 7 \n   :constvalue 36 [ **** * * \n   * *** **\n* ** ]\n   }\n",
            ),
            (
                "({QUERY :cteList <> :rtable ({RTE :eref {ALIAS :aliasname my_table :colnames \
                 (\"id\" \"a\\ b\")} :selectedCols (b 8 9) :startup_cost 0.00 :x (o 12 13)})})",
                "({QUERY :cteList <> :rtable ({RTE :eref {ALIAS :aliasname my_table :colnames \
                 (**** *** **)} :selectedCols (b 8 9) :startup_cost 0.00 :x (o 12 13)})})",
            ),
            // A text with what looks like the end of a constant, and broken anywhere.
            (
                "{A_CONST :val \"a]\\ b\\}\\\n:c\"d\" :location 7} :payload eyJhbGci.e \\123",
                "{A_CONST :val **** ****\n***** :location 7} :payload ********** ****",
            ),
            (
                "{SOMETHING :resname eyJhbGciOiJFUzI1NiJ9.eyJz}",
                "{SOMETHING :resname *************************}",
            ),
            (":val \"eyJhbGciOiJ\nFUzI1NiJ9 [ 1 2", ":val ************\n********* [ * *"),
            ("{eyJhbGciOiJ", "{***********"),
            ("\\", "*"),
        ] {
            let mut bytes = dump.as_bytes().to_vec();
            conceal_dump(&mut bytes);
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        }
    }

    #[test]
    fn headers_begin_in_many_ways() {
        for start in ["eyA", "ewo", "ew0", "ewk"] {
            let token = TOKEN.replacen("eyJ", start, 1);
            assert_eq!(concealed(&token), (true, "*".repeat(token.len())));
        }
    }
}
