//! The decodings of a text: alphabets, lists of numbers, escapes, compression.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use crate::json::Json;

/// The minimum length of a word that is decoded. A shorter word cannot encode a key, and a passphrase
/// may contain it.
const MIN_WORD_BYTES: usize = 22;

/// The minimum length of a list of numbers that is decoded. A shorter list cannot encode a key.
const MIN_LIST_BYTES: usize = 16;

/// Decodes a text or bytes. None if they are not in the encoding.
type Decoder<T> = fn(&T) -> Option<Vec<u8>>;

/// Calls `visit` with each decoding of the bytes. Some decodings are accidental: random letters are
/// valid base64.
pub(crate) fn each_decoding(bytes: &[u8], visit: &mut dyn FnMut(Vec<u8>)) {
    const PACKINGS: [Decoder<[u8]>; 2] = [from_utf16, decompressed];
    const NOTATIONS: [Decoder<str>; 6] =
        [quoted, from_json, unescaped, from_entities, from_percent, from_printable];
    PACKINGS.iter().filter_map(|unpack| unpack(bytes)).for_each(&mut *visit);
    let Some(text) = as_text(bytes) else {
        return;
    };
    NOTATIONS.iter().filter_map(|read| read(&text)).for_each(&mut *visit);
    each_list(&text, visit);
    each_word(&text, visit);
}

/// The bytes as text, if at least three quarters of them are text.
pub(crate) fn as_text(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let text = String::from_utf8_lossy(bytes);
    let is_odd = |character: &char| {
        *character == '\u{fffd}' || character.is_control() && !character.is_whitespace()
    };
    let odd = text.chars().filter(is_odd).count();
    (odd <= bytes.len() / 4).then_some(text)
}

/// Decodes the ASCII characters of UTF-16 or UTF-32 in either byte order.
fn from_utf16(bytes: &[u8]) -> Option<Vec<u8>> {
    let zeros = bytes.iter().filter(|byte| **byte == 0).count();
    let is_marked = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    if bytes.len() <= MIN_WORD_BYTES || zeros < bytes.len() / if is_marked { 8 } else { 3 } {
        return None;
    }
    let is_mark = |byte: u8| matches!(byte, 0 | 0xfe | 0xff);
    Some(bytes.iter().copied().filter(|byte| !is_mark(*byte)).collect())
}

/// Decompresses gzip, zlib or raw deflate, complete or cut off.
fn decompressed(bytes: &[u8]) -> Option<Vec<u8>> {
    /// The maximum ratio of decompressed to compressed bytes.
    const MAX_RATIO: u64 = 8;
    /// The maximum number of decompressed bytes. A prefix of this length shows the kind of a text.
    const MAX_OUTPUT: u64 = 1024 * 1024;
    /// The same ratio for a stream without a header. Keys, and texts with keys, expand less than threefold.
    const MAX_BARE_RATIO: usize = 4;
    /// A key has more different bytes.
    const MIN_DISTINCT: usize = 16;
    let most = (bytes.len() as u64).saturating_mul(MAX_RATIO).min(MAX_OUTPUT);
    let mut out = Vec::new();
    let outcome = match bytes {
        [0x1f, 0x8b, 8, ..] => MultiGzDecoder::new(bytes).take(most).read_to_end(&mut out),
        [first, second, ..]
            if first & 0x8f == 8 && (u32::from(*first) << 8 | u32::from(*second)) % 31 == 0 =>
        {
            ZlibDecoder::new(bytes).take(most).read_to_end(&mut out)
        }
        _ => {
            let mut rest = bytes;
            let outcome = DeflateDecoder::new(&mut rest).take(most).read_to_end(&mut out);
            // Most byte strings are the beginning of some deflate stream, so the stream must be
            // complete. A stream by accident repeats a few bytes.
            let is_long = out.len() > MAX_BARE_RATIO.saturating_mul(bytes.len());
            let mut seen = [false; 256];
            out.iter().for_each(|byte| seen[usize::from(*byte)] = true);
            let distinct = seen.iter().filter(|is_seen| **is_seen).count();
            if outcome.is_err() || !rest.is_empty() || is_long || distinct < MIN_DISTINCT {
                return None;
            }
            outcome
        }
    };
    // Bytes that were decompressed before an error are kept.
    drop(outcome);
    (out.len() >= MIN_LIST_BYTES).then_some(out)
}

/// Removes a byte order mark, white space and quotes around a text.
pub(crate) fn trimmed(text: &str) -> &str {
    text.trim_matches(|character: char| {
        character.is_whitespace()
            || character.is_control()
            || matches!(
                character,
                '\u{feff}' | '"' | '\'' | '`' | '\u{2018}' | '\u{2019}' | '\u{201c}' | '\u{201d}'
            )
    })
}

fn quoted(text: &str) -> Option<Vec<u8>> {
    let bare = trimmed(text);
    (bare.len() < text.len()).then(|| bare.as_bytes().to_vec())
}

fn from_json(text: &str) -> Option<Vec<u8>> {
    match Json::parse_leniently(text.trim().as_bytes()) {
        Ok(Json::String(inner)) => Some(inner.into_owned().into_bytes()),
        _ => None,
    }
}

/// Replaces the escapes of source code: `\n`, `\"`, `\x30`, `\060`, `\u0030`.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('\\');
    let mut out = parts.next()?.as_bytes().to_vec();
    let mut parts = parts.peekable();
    parts.peek()?;
    while let Some(part) = parts.next() {
        let number = |from: usize, to: usize, radix: u32| {
            part.get(from..to).and_then(|digits| u32::from_str_radix(digits, radix).ok())
        };
        let used = match part.as_bytes().first() {
            // Two backslashes stand for one.
            None => {
                out.push(b'\\');
                out.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
                continue;
            }
            Some(letter @ (b'n' | b'r' | b't')) => {
                out.push(match letter {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    _ => b'\t',
                });
                1
            }
            Some(b'x' | b'X') if let Some(byte) = number(1, 3, 16) => {
                out.push(byte as u8);
                3
            }
            Some(b'u') if let Some(character) = number(1, 5, 16) => {
                let character = char::from_u32(character).unwrap_or('\u{fffd}');
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                5
            }
            Some(b'0'..=b'3') if let Some(byte) = number(0, 3, 8) => {
                out.push(byte as u8);
                3
            }
            _ => 0,
        };
        out.extend_from_slice(part.as_bytes().get(used..).unwrap_or_default());
    }
    Some(out)
}

/// Replaces the character references of HTML and XML.
fn from_entities(text: &str) -> Option<Vec<u8>> {
    const NAMES: [(&str, &str); 6] =
        [("quot", "\""), ("amp", "&"), ("lt", "<"), ("gt", ">"), ("apos", "'"), ("nbsp", " ")];
    let mut parts = text.split('&');
    let mut out = parts.next()?.to_owned();
    let mut found = false;
    for part in parts {
        let decoded = part.split_once(';').and_then(|(name, rest)| {
            let named = NAMES.iter().find(|(known, _)| *known == name);
            if let Some((_, meaning)) = named {
                return Some(((*meaning).to_owned(), rest));
            }
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            Some((char::from_u32(code)?.to_string(), rest))
        });
        match decoded {
            Some((meaning, rest)) => {
                found = true;
                out.push_str(&meaning);
                out.push_str(rest);
            }
            None => {
                out.push('&');
                out.push_str(part);
            }
        }
    }
    found.then(|| out.into_bytes())
}

/// Replaces percent-encoding (RFC 3986 section 2.1).
pub(crate) fn from_percent(text: &str) -> Option<Vec<u8>> {
    from_marked(text, '%')
}

/// Decodes quoted-printable (RFC 2045 section 6.7).
fn from_printable(text: &str) -> Option<Vec<u8>> {
    from_marked(&text.replace("=\r\n", "").replace("=\n", ""), '=')
}

/// Replaces a mark and two hexadecimal digits by the byte that they stand for.
fn from_marked(text: &str, mark: char) -> Option<Vec<u8>> {
    let mut parts = text.split(mark);
    let mut out = parts.next()?.as_bytes().to_vec();
    let mut found = false;
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                found = true;
                out.push(byte);
                out.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => {
                out.extend_from_slice(mark.encode_utf8(&mut [0; 4]).as_bytes());
                out.extend_from_slice(part.as_bytes());
            }
        }
    }
    found.then_some(out)
}

/// Reads a number of a list. The second argument says whether a minus sign stands before it. The result
/// is the value and its length in bytes.
type NumberReader = fn(&str, bool) -> Option<(u64, usize)>;

/// Visits the lists of numbers in a text; a number is one byte or more: `48, 130`, `0x30, 0x82`,
/// `30:82`, `3082 0122`, `060 202`.
fn each_list(text: &str, visit: &mut dyn FnMut(Vec<u8>)) {
    const READERS: [NumberReader; 4] = [decimal, hexadecimal, octal, binary];
    let is_part = |c: char| c.is_ascii_alphanumeric();
    let tokens = || {
        text.match_indices(is_part).filter(|(place, _)| !text[..*place].ends_with(is_part)).map(
            |(place, _)| {
                let rest = &text[place..];
                let token = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
                let before = text[..place].strip_suffix('-');
                (token, before.is_some_and(|before| !before.ends_with(is_part)))
            },
        )
    };
    // A list has at least two numbers.
    if tokens().nth(1).is_none() {
        return;
    }
    for read in READERS {
        let mut run = Vec::new();
        for (token, is_negative) in tokens().chain([("", false)]) {
            match read(token, is_negative) {
                Some((value, length)) => {
                    run.extend_from_slice(&value.to_be_bytes()[8 - length..]);
                }
                None if run.len() >= MIN_LIST_BYTES => visit(std::mem::take(&mut run)),
                None => run.clear(),
            }
        }
    }
}

/// Reads a signed or unsigned byte.
fn decimal(token: &str, is_negative: bool) -> Option<(u64, usize)> {
    let value = token.parse::<u8>().ok().filter(|_| token.len() <= 3)?;
    Some((u64::from(if is_negative { value.wrapping_neg() } else { value }), 1))
}

fn hexadecimal(token: &str, _: bool) -> Option<(u64, usize)> {
    let (digits, is_marked) = match token.strip_prefix("0x").or_else(|| token.strip_prefix("0X")) {
        Some(digits) => (digits, true),
        None => match token.strip_suffix(['h', 'H']) {
            Some(digits) => (digits, true),
            None => (token.strip_prefix('x').unwrap_or(token), false),
        },
    };
    let is_whole = is_marked || digits.len().is_multiple_of(2);
    let value = u64::from_str_radix(digits, 16).ok().filter(|_| is_whole && digits.len() <= 16)?;
    Some((value, digits.len().div_ceil(2)))
}

fn octal(token: &str, _: bool) -> Option<(u64, usize)> {
    let digits = token.strip_prefix("0o").unwrap_or(token);
    let value = u8::from_str_radix(digits, 8).ok().filter(|_| digits.len() >= 3)?;
    Some((value.into(), 1))
}

fn binary(token: &str, _: bool) -> Option<(u64, usize)> {
    let digits = token.strip_prefix("0b").unwrap_or(token);
    let value = u8::from_str_radix(digits, 2).ok().filter(|_| digits.len() == 8)?;
    Some((value.into(), 1))
}

/// Decodes the text, the text without separators, and its words, in every alphabet.
fn each_word(text: &str, visit: &mut dyn FnMut(Vec<u8>)) {
    let only = |keep: fn(char) -> bool| text.chars().filter(|c| keep(*c)).collect::<String>();
    let dense = only(|c| !c.is_whitespace());
    // Each line may begin with a mark, and separators may be characters of no alphabet.
    let digits = only(|c| c.is_ascii_alphanumeric() || "+/-_=".contains(c));
    let letters = only(|c| c.is_ascii_alphanumeric());
    let is_long = |part: &&str| part.len() >= MIN_WORD_BYTES;
    let mut parts: Vec<&str> = words(text).filter(is_long).collect();
    parts.extend([&dense[..], &digits, &letters].into_iter().filter(is_long));
    parts.sort_unstable();
    parts.dedup();
    // Marks are digits of these alphabets, so only white space separates words.
    let mut spaced: Vec<&str> =
        text.split_whitespace().chain([&dense[..]]).filter(is_long).collect();
    spaced.sort_unstable();
    spaced.dedup();
    for alphabet in &ALPHABETS {
        let parts = if alphabet.scheme == Scheme::Groups { &spaced } else { &parts };
        parts.iter().filter_map(|part| alphabet.decode(part)).for_each(&mut *visit);
    }
    each_embedded(&dense, visit);
}

/// Visits base64 of JSON, PEM or a URL that begins after other letters.
fn each_embedded(text: &str, visit: &mut dyn FnMut(Vec<u8>)) {
    const STARTS: [&str; 6] = ["eyJ", "eyAi", "ewog", "LS0tLS", "aHR0cDovL", "aHR0cHM6Ly"];
    /// The maximum number of places per beginning.
    const MAX_PLACES: usize = 4;
    for start in STARTS {
        let places = text.match_indices(start).take(MAX_PLACES);
        places.filter_map(|(place, _)| decode_base64(digits_at(text, place))).for_each(&mut *visit);
    }
}

/// The base64 digits of a text from a position on.
pub(crate) fn digits_at(text: &str, place: usize) -> &str {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
    let rest = text.get(place..).unwrap_or_default();
    &rest[..rest.bytes().take_while(|byte| is_digit(byte)).count()]
}

/// The words of a text. White space, quotes, brackets and other marks separate them.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    let ends_word = |c: char| c.is_whitespace() || "\"'`,;:=|()[]{}<>\\&?\u{feff}".contains(c);
    text.split(ends_word).filter(|word| !word.is_empty())
}

/// The digits of an encoding of bytes.
struct Alphabet {
    /// The value of each byte as a digit, or `NO_DIGIT`.
    values: [u8; 256],
    radix: u32,
    scheme: Scheme,
}

#[derive(Clone, Copy, PartialEq)]
enum Scheme {
    /// A digit is this number of bits.
    Bits(u32),
    /// Five digits are four bytes.
    Groups,
    /// All digits are one number.
    Number,
}

const NO_DIGIT: u8 = u8::MAX;
const BASE64: usize = 0;
const HEXADECIMAL: usize = 1;

/// The alphabets. Each lists its digits in every spelling.
static ALPHABETS: [Alphabet; 13] = [
    // RFC 4648 sections 4 and 5.
    Alphabet::new(
        &[
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
        ],
        Scheme::Bits(6),
    ),
    Alphabet::new(&[b"0123456789abcdef", b"0123456789ABCDEF"], Scheme::Bits(4)),
    // RFC 4648 sections 6 and 7, Crockford's, and z-base-32.
    Alphabet::new(
        &[b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"abcdefghijklmnopqrstuvwxyz234567"],
        Scheme::Bits(5),
    ),
    Alphabet::new(
        &[b"0123456789ABCDEFGHIJKLMNOPQRSTUV", b"0123456789abcdefghijklmnopqrstuv"],
        Scheme::Bits(5),
    ),
    Alphabet::new(
        &[b"0123456789ABCDEFGHJKMNPQRSTVWXYZ", b"0123456789abcdefghjkmnpqrstvwxyz"],
        Scheme::Bits(5),
    ),
    Alphabet::new(&[b"ybndrfg8ejkmcpqxot1uwisza345h769"], Scheme::Bits(5)),
    Alphabet::new(&[b"01"], Scheme::Bits(1)),
    // Ascii85, Z85 and RFC 1924.
    Alphabet::new(
        &[b"!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstu"],
        Scheme::Groups,
    ),
    Alphabet::new(
        &[b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"],
        Scheme::Groups,
    ),
    Alphabet::new(
        &[b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"],
        Scheme::Groups,
    ),
    Alphabet::new(&[b"0123456789"], Scheme::Number),
    Alphabet::new(
        &[b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"],
        Scheme::Number,
    ),
    Alphabet::new(
        &[b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"],
        Scheme::Number,
    ),
];

impl Alphabet {
    const fn new(digits: &[&[u8]], scheme: Scheme) -> Self {
        let mut values = [NO_DIGIT; 256];
        let mut way = 0;
        while way < digits.len() {
            let mut value = 0;
            while value < digits[way].len() {
                values[digits[way][value] as usize] = value as u8;
                value += 1;
            }
            way += 1;
        }
        Self { values, radix: digits[0].len() as u32, scheme }
    }

    /// Decodes a text, padded or not, complete or cut off.
    fn decode(&self, text: &str) -> Option<Vec<u8>> {
        // Few alphabets fit a text: the first digits decide.
        if text.bytes().take(MIN_WORD_BYTES).any(|digit| !self.may_begin(digit)) {
            return None;
        }
        match self.scheme {
            Scheme::Bits(4) => {
                let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix('x'));
                self.decode_bits(digits.unwrap_or(text), 4)
            }
            Scheme::Bits(bits) => self.decode_bits(text, bits),
            Scheme::Groups => self.decode_groups(text),
            Scheme::Number => self.decode_number(text),
        }
    }

    /// Whether the byte may be near the beginning of a text in this alphabet, as a digit or as a mark.
    fn may_begin(&self, byte: u8) -> bool {
        self.values[usize::from(byte)] != NO_DIGIT || b"=x<~z".contains(&byte)
    }

    fn value(&self, digit: u8) -> Option<u32> {
        Some(self.values[usize::from(digit)]).filter(|value| *value != NO_DIGIT).map(u32::from)
    }

    fn decode_bits(&self, text: &str, bits: u32) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(text.len() * bits as usize / 8);
        let (mut sum, mut held) = (0, 0);
        for digit in text.trim_end_matches('=').bytes() {
            sum = sum << bits | self.value(digit)?;
            held += bits;
            if held >= 8 {
                held -= 8;
                out.push((sum >> held) as u8);
                sum &= (1 << held) - 1;
            }
        }
        Some(out)
    }

    fn decode_groups(&self, text: &str) -> Option<Vec<u8>> {
        // The marks of Ascii85, unless the tilde is a digit.
        let (mut text, has_marks) = (text, self.value(b'~').is_none());
        if has_marks {
            text = text.split_once("<~").map_or(text, |(_, rest)| rest);
            text = text.split_once("~>").map_or(text, |(rest, _)| rest);
        }
        let mut out = Vec::with_capacity(text.len());
        let (mut sum, mut held) = (0, 0);
        for digit in text.bytes() {
            // In Ascii85 the letter stands for four zero bytes. In Z85 and RFC 1924 it is a digit.
            if digit == b'z' && self.value(digit).is_none() && held == 0 {
                out.extend_from_slice(&[0; 4]);
                continue;
            }
            sum = sum * u64::from(self.radix) + u64::from(self.value(digit)?);
            held += 1;
            if held == 5 {
                out.extend_from_slice(&u32::try_from(sum).ok()?.to_be_bytes());
                (sum, held) = (0, 0);
            }
        }
        if held > 1 {
            let last = (held..5).fold(sum, |sum, _| (sum + 1) * u64::from(self.radix) - 1);
            out.extend_from_slice(&u32::try_from(last).ok()?.to_be_bytes()[..held - 1]);
        }
        Some(out)
    }

    fn decode_number(&self, text: &str) -> Option<Vec<u8>> {
        /// The maximum number of digits. An RSA key of 4096 bits has fewer decimal digits.
        const MAX_DIGITS: usize = 1400;
        if text.len() > MAX_DIGITS {
            return None;
        }
        // The least significant limb comes first.
        let mut limbs: Vec<u32> = Vec::new();
        let mut add = |factor: u64, part: u64| {
            let mut carry = part;
            for limb in &mut limbs {
                carry += u64::from(*limb) * factor;
                *limb = carry as u32;
                carry >>= 32;
            }
            if carry != 0 {
                limbs.push(carry as u32);
            }
        };
        let radix = u64::from(self.radix);
        let (mut factor, mut part) = (1, 0);
        for digit in text.bytes() {
            part = part * radix + u64::from(self.value(digit)?);
            factor *= radix;
            if factor * radix > u64::from(u32::MAX) {
                add(factor, part);
                (factor, part) = (1, 0);
            }
        }
        add(factor, part);
        let bytes: Vec<u8> = limbs.iter().rev().flat_map(|limb| limb.to_be_bytes()).collect();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Some(bytes[zeros..].to_vec())
    }
}

/// Decodes base64 in either alphabet, padded or not, complete or cut off.
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    ALPHABETS[BASE64].decode(text)
}

pub(crate) fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix('\\').unwrap_or(text);
    let digits = digits.strip_prefix("0x").or_else(|| digits.strip_prefix('x')).unwrap_or(digits);
    digits.len().is_multiple_of(2).then(|| ALPHABETS[HEXADECIMAL].decode(digits))?
}

/// An encoding that a secret may be written in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Encoding {
    Base64,
    Hexadecimal,
}

impl Encoding {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Encoding::Base64 => "base64",
            Encoding::Hexadecimal => "hexadecimal digits",
        }
    }
}

/// The encoding that a secret seems to be written in.
pub(crate) fn likely_encoding(secret: &str) -> Option<Encoding> {
    if decode_hex(secret).is_some() {
        return Some(Encoding::Hexadecimal);
    }
    let is_padded = secret.len().is_multiple_of(4);
    let is_mixed = [char::is_uppercase as fn(char) -> bool, char::is_lowercase, char::is_numeric]
        .iter()
        .all(|is_some| secret.chars().any(is_some));
    let has_length = is_padded || !secret.ends_with('=') && secret.len() % 4 != 1;
    (has_length && is_mixed && decode_base64(secret).is_some()).then_some(Encoding::Base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In RFC 1924, the marks of Ascii85 are digits.
    #[test]
    fn digits_are_not_read_as_marks() {
        for (group, bytes) in
            [("0<~00", [0x02, 0xb5, 0x54, 0x49]), ("0~>00", [0x03, 0x1b, 0x6a, 0x77])]
        {
            let mut found = false;
            each_decoding(group.repeat(6).as_bytes(), &mut |decoded| {
                found |= decoded == bytes.repeat(6);
            });
            assert!(found, "{group}");
        }
    }
}
