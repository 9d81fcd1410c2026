//! Strict JSON for tokens (RFC 8259, RFC 7515 section 4): valid UTF-8, no byte order mark, no duplicate
//! member names at any depth, bounded nesting, numbers kept as written. `hifijson` is the lexer; this
//! module adds the rules.

use std::borrow::Cow;

use hifijson::num::LexWrite;
use hifijson::str::LexAlloc;
use hifijson::token::Lex;
use hifijson::{Expect, SliceLexer};

use crate::rejection::quoted;

/// The maximum nesting depth of arrays and objects.
pub(crate) const MAX_DEPTH: usize = 32;

/// Up to this number of members, names are compared pairwise; above it, they are sorted. Room for this
/// number of members is allocated at once, and unused room is given back.
const FEW_MEMBERS: usize = 16;

/// A JSON value. It borrows from its text, except strings with escapes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    Number(Number<'a>),
    String(Cow<'a, str>),
    Array(Box<[Json<'a>]>),
    Object(Object<'a>),
}

/// The members of an object, in the order of the text, with distinct names.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Object<'a>(Box<[(Cow<'a, str>, Json<'a>)]>);

/// The reason why a text is rejected. Positions are byte offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JsonError {
    Syntax { offset: usize },
    DuplicateName(String),
    TooDeep,
}

impl std::fmt::Display for JsonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            JsonError::Syntax { offset } => write!(f, "It is not valid JSON at byte {offset}."),
            JsonError::DuplicateName(name) => {
                write!(f, "An object has the member {} twice.", quoted(name))
            }
            JsonError::TooDeep => write!(f, "It nests deeper than {MAX_DEPTH} levels."),
        }
    }
}

impl<'a> Json<'a> {
    /// Reads a text that consists of one JSON value.
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, JsonError> {
        Self::parse_with(text, |object| object.check_names())
    }

    /// Reads a JSON value whose objects may have duplicate names. [`Object::check_names`] finds them.
    pub(crate) fn parse_leniently(text: &'a [u8]) -> Result<Self, JsonError> {
        Self::parse_with(text, |_| Ok(()))
    }

    fn parse_with(
        text: &'a [u8],
        check: fn(&Object<'_>) -> Result<(), JsonError>,
    ) -> Result<Self, JsonError> {
        let mut lexer = SliceLexer::new(text);
        let parsed = lexer.exactly_one(Lex::ws_peek, |next, lexer| value(next, lexer, 0, check));
        parsed.map_err(|problem| match problem {
            Problem::Syntax => JsonError::Syntax { offset: text.len() - lexer.as_slice().len() },
            Problem::Rule(error) => error,
        })
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Json::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Json::Object(object) => Some(object),
            _ => None,
        }
    }

    pub(crate) fn as_array(&self) -> Option<&[Json<'a>]> {
        match self {
            Json::Array(items) => Some(&items[..]),
            _ => None,
        }
    }

    /// The items of an array of strings. None if another type of item is in the array.
    pub(crate) fn as_strings(&self) -> Option<Vec<&str>> {
        let items = self.as_array()?;
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            texts.push(item.as_str()?);
        }
        Some(texts)
    }

    /// The name of the type, with its article, for messages.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(_) => "a number",
            Json::String(_) => "a string",
            Json::Array(_) => "an array",
            Json::Object(_) => "an object",
        }
    }

    /// Whether Postgres' `jsonb` can store the value: no U+0000 in a name or a string, no number beyond
    /// the range of `numeric`. The error names the reason as a clause.
    pub(crate) fn fits_jsonb(&self) -> Result<(), &'static str> {
        const NUL: &str = "a string holds the character U+0000";
        match self {
            Json::Null | Json::Bool(_) => Ok(()),
            Json::Number(number) if number.fits_numeric() => Ok(()),
            Json::Number(_) => Err("a number is beyond the range of numeric"),
            Json::String(text) if text.contains('\0') => Err(NUL),
            Json::String(_) => Ok(()),
            Json::Array(items) => items.iter().try_for_each(Json::fits_jsonb),
            Json::Object(object) => object.iter().try_for_each(|(name, value)| {
                if name.contains('\0') { Err(NUL) } else { value.fits_jsonb() }
            }),
        }
    }
}

impl<'a> Object<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.iter().find_map(|(member, value)| (member == name).then_some(value))
    }

    /// The member of that name, if it is present and not null.
    pub(crate) fn present(&self, name: &str) -> Option<&Json<'a>> {
        self.get(name).filter(|value| !matches!(value, Json::Null))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Json<'a>)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// Checks that all names are distinct.
    pub(crate) fn check_names(&self) -> Result<(), JsonError> {
        let duplicate = if self.0.len() <= FEW_MEMBERS {
            self.0
                .iter()
                .enumerate()
                .find(|(index, (name, _))| self.0[..*index].iter().any(|(other, _)| other == name))
                .map(|(_, (name, _))| name)
        } else {
            let mut names: Vec<&Cow<'_, str>> = self.0.iter().map(|(name, _)| name).collect();
            names.sort_unstable();
            names.array_windows().find(|[name, next]| name == next).map(|[name, _]| *name)
        };
        match duplicate {
            Some(name) => Err(JsonError::DuplicateName(name.to_string())),
            None => Ok(()),
        }
    }
}

/// Adds an item to a list whose capacity grows by a quarter at a time. Doubling would let a text take a
/// larger multiple of its length.
pub(crate) fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 4).max(4));
    }
    list.push(item);
}

/// Writes a text as a JSON string in ASCII.
pub fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte @ b' '..=b'~') if byte != b'"' && byte != b'\\' => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\u{unit:04x}")),
        }
    }
    out.push('"');
    out
}

/// The reason why parsing stopped: a syntax error at the lexer's position, or a rule of this module.
enum Problem {
    Syntax,
    Rule(JsonError),
}

impl From<Expect> for Problem {
    fn from(_: Expect) -> Self {
        Problem::Syntax
    }
}

/// Reads the value that begins with the byte `next`. `depth` is the number of open containers around
/// it. `check` is called for each object.
fn value<'a>(
    next: u8,
    lexer: &mut SliceLexer<'a>,
    depth: usize,
    check: fn(&Object<'_>) -> Result<(), JsonError>,
) -> Result<Json<'a>, Problem> {
    match next {
        b'a'..=b'z' => match lexer.null_or_bool().ok_or(Problem::Syntax)? {
            Some(value) => Ok(Json::Bool(value)),
            None => Ok(Json::Null),
        },
        b'-' | b'0'..=b'9' => {
            let (text, _) = lexer.num_string().validated().map_err(|_| Problem::Syntax)?;
            Ok(Json::Number(Number(text)))
        }
        b'"' => Ok(Json::String(string(next, lexer)?)),
        b'[' | b'{' if depth == MAX_DEPTH => Err(Problem::Rule(JsonError::TooDeep)),
        b'[' => {
            let mut items = Vec::new();
            lexer.discarded().seq(b']', Lex::ws_peek, |next, lexer| {
                push(&mut items, value(next, lexer, depth + 1, check)?);
                Ok::<_, Problem>(())
            })?;
            Ok(Json::Array(items.into_boxed_slice()))
        }
        b'{' => {
            let mut members = Vec::with_capacity(FEW_MEMBERS);
            lexer.discarded().seq(b'}', Lex::ws_peek, |next, lexer| {
                let name = string(next, lexer)?;
                lexer.expect(Lex::ws_peek, b':').ok_or(Problem::Syntax)?;
                let next = lexer.ws_peek().ok_or(Problem::Syntax)?;
                push(&mut members, (name, value(next, lexer, depth + 1, check)?));
                Ok::<_, Problem>(())
            })?;
            let object = Object(members.into_boxed_slice());
            check(&object).map_err(Problem::Rule)?;
            Ok(Json::Object(object))
        }
        _ => Err(Problem::Syntax),
    }
}

/// Reads the string that begins with the byte `next`.
fn string<'a>(next: u8, lexer: &mut SliceLexer<'a>) -> Result<Cow<'a, str>, Problem> {
    lexer.expect(|_| Some(next), b'"').ok_or(Problem::Syntax)?;
    lexer.str_string().map_err(|_| Problem::Syntax)
}

/// A JSON number as written. All comparisons are exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Number<'a>(&'a str);

/// The decimal digits of a number without leading zeros, and the position of the decimal point among
/// them. The position may be negative or beyond the last digit.
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    /// The number of digits after the decimal point, as `numeric` counts them. Never negative.
    scale: i64,
    point: i64,
}

impl Number<'_> {
    /// The number as written.
    pub(crate) fn text(&self) -> &str {
        self.0
    }

    /// Whether the number is written as an integer of any size, without fraction or exponent.
    fn is_integer(&self) -> bool {
        self.0.strip_prefix('-').unwrap_or(self.0).bytes().all(|byte| byte.is_ascii_digit())
    }

    /// The digits of a number that is written as an integer, as Postgres' `jsonb` shows them: `-0` is
    /// `0`.
    pub(crate) fn integer_text(&self) -> Option<&str> {
        self.is_integer().then_some(if self.0 == "-0" { "0" } else { self.0 })
    }

    /// The value of a number that is written without fraction or exponent, if it fits `i64`.
    pub(crate) fn as_i64(&self) -> Option<i64> {
        self.0.parse().ok()
    }

    /// The largest integer that is not greater than the number, if it fits `i64`.
    pub(crate) fn floor(&self) -> Option<i64> {
        let (truncated, exact, negative) = self.truncate()?;
        if negative && !exact { truncated.checked_sub(1) } else { Some(truncated) }
    }

    /// The smallest integer that is not less than the number, if it fits `i64`.
    pub(crate) fn ceil(&self) -> Option<i64> {
        let (truncated, exact, negative) = self.truncate()?;
        if negative || exact { Some(truncated) } else { truncated.checked_add(1) }
    }

    /// Whether Postgres' `numeric` can store the number: at most 131,072 digits before the decimal
    /// point and 16,383 after it (`NUMERIC_WEIGHT_MAX`, `NUMERIC_DSCALE_MAX`).
    pub(crate) fn fits_numeric(&self) -> bool {
        self.as_i64().is_some()
            || self.decimal().is_some_and(|decimal| {
                decimal.scale <= 16_383 && (decimal.digits.is_empty() || decimal.point <= 131_072)
            })
    }

    /// The integer part, whether the number is an integer, and whether it is negative.
    fn truncate(&self) -> Option<(i64, bool, bool)> {
        // Nearly all numbers are such integers.
        if let Some(integer) = self.as_i64() {
            return Some((integer, true, integer < 0));
        }
        let Decimal { negative, digits, point, .. } = self.decimal()?;
        if digits.is_empty() {
            return Some((0, true, negative));
        }
        // i64::MAX has 19 digits.
        let length = usize::try_from(point.max(0)).ok().filter(|length| *length <= 19)?;
        let whole = digits.iter().copied().chain(std::iter::repeat(b'0')).take(length);
        let magnitude = whole.fold(0i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
        let exact = digits.iter().skip(length).all(|digit| *digit == b'0');
        let value = i64::try_from(if negative { -magnitude } else { magnitude }).ok()?;
        Some((value, exact, negative))
    }

    /// None if the exponent exceeds the limit of `numeric` (2^30).
    fn decimal(&self) -> Option<Decimal> {
        let (negative, unsigned) = match self.0.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, self.0),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (unsigned, 0),
        };
        if exponent.unsigned_abs() >= 1 << 30 {
            return None;
        }
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let zeros = all.iter().take_while(|digit| **digit == b'0').count();
        Some(Decimal {
            negative,
            scale: (fraction.len() as i64 - exponent).max(0),
            point: whole.len() as i64 - zeros as i64 + exponent,
            digits: all[zeros..].to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn number(text: &'static str) -> Number<'static> {
        Number(text)
    }

    #[test]
    fn rounding_is_exact() {
        for (text, floor, ceil) in [
            ("0", Some(0), Some(0)),
            ("-0.0", Some(0), Some(0)),
            ("1.5", Some(1), Some(2)),
            ("-1.5", Some(-2), Some(-1)),
            ("0.000001", Some(0), Some(1)),
            ("-1e-300", Some(-1), Some(0)),
            ("17e8", Some(1_700_000_000), Some(1_700_000_000)),
            ("1.7000000005e9", Some(1_700_000_000), Some(1_700_000_001)),
            // As a double, this number is 1700000001.
            ("1700000000.99999999999", Some(1_700_000_000), Some(1_700_000_001)),
            ("9223372036854775807", Some(i64::MAX), Some(i64::MAX)),
            ("9223372036854775808", None, None),
            ("-9223372036854775808", Some(i64::MIN), Some(i64::MIN)),
            ("-9223372036854775808.5", None, Some(i64::MIN)),
            ("1e400", None, None),
            ("1e99999999999999999999", None, None),
        ] {
            assert_eq!(number(text).floor(), floor, "floor of {text}");
            assert_eq!(number(text).ceil(), ceil, "ceil of {text}");
        }
    }

    #[test]
    fn numeric_range() {
        for (text, fits) in [
            ("1e131071", true),
            ("9.99e131071", true),
            ("1e131072", false),
            ("10e131071", false),
            ("0.1e131072", true),
            ("0e999999", true),
            ("1e-16383", true),
            ("1e-16384", false),
            ("0e-16384", false),
            ("1e99999999999999999999", false),
            ("123456789012345678901234567890", true),
        ] {
            assert_eq!(number(text).fits_numeric(), fits, "{text}");
        }
    }

    #[test]
    fn strictness() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        for (text, error) in [
            ("{\"a\":1,\"a\":2}".to_owned(), JsonError::DuplicateName("a".into())),
            ("{\"a\":1,\"\\u0061\":2}".to_owned(), JsonError::DuplicateName("a".into())),
            ("[{\"x\":{\"a\":1,\"a\":1}}]".to_owned(), JsonError::DuplicateName("a".into())),
            (nested(MAX_DEPTH + 1), JsonError::TooDeep),
        ] {
            assert_eq!(Json::parse(text.as_bytes()), Err(error), "{text}");
        }
        assert!(Json::parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        for text in [
            &b""[..],
            b" ",
            b"{",
            b"{}x",
            b"{} {}",
            b"{\"a\":1,}",
            b"[1,]",
            b"{'a':1}",
            b"01",
            b"+1",
            b".5",
            b"1.",
            b"NaN",
            b"Infinity",
            b"tru",
            b"\"\x01\"",
            b"\"\\ud800\"",
            b"\"\\udc00\"",
            b"\"\\ud800\\u0041\"",
            b"\"\\x\"",
            b"\"\xff\"",
            b"\"\xed\xa0\x80\"",
            b"\xef\xbb\xbf{}",
            b"{}\0",
            b"//x\n{}",
        ] {
            assert!(
                matches!(Json::parse(text), Err(JsonError::Syntax { .. })),
                "{}",
                String::from_utf8_lossy(text)
            );
        }
    }

    #[test]
    fn many_members_are_compared_too() {
        let mut members: Vec<String> = (0..2000).map(|n| format!("\"m{n}\":{n}")).collect();
        assert!(Json::parse(format!("{{{}}}", members.join(",")).as_bytes()).is_ok());
        members.push("\"m7\":0".to_owned());
        assert_eq!(
            Json::parse(format!("{{{}}}", members.join(",")).as_bytes()),
            Err(JsonError::DuplicateName("m7".into()))
        );
    }

    #[test]
    fn what_jsonb_cannot_hold() {
        for (text, fits) in [
            (r#"{"a":["\u0000"]}"#, false),
            (r#"{"a\u0000":1}"#, false),
            (r#"{"a":{"b":1e131072}}"#, false),
            (r#"{"a":"\ud83d\ude00","n":1e400}"#, true),
        ] {
            assert_eq!(Json::parse(text.as_bytes()).unwrap().fits_jsonb().is_ok(), fits, "{text}");
        }
    }

    /// The value as serde_json reads it, with numbers as doubles.
    fn as_serde(value: &Json<'_>) -> serde_json::Value {
        match value {
            Json::Null => serde_json::Value::Null,
            Json::Bool(value) => (*value).into(),
            Json::Number(number) => number.text().parse::<f64>().unwrap().into(),
            Json::String(text) => text.as_ref().into(),
            Json::Array(items) => items.iter().map(as_serde).collect(),
            Json::Object(object) => object
                .iter()
                .map(|(name, value)| (name.to_owned(), as_serde(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    fn numbers_as_doubles(value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Number(number) => number.as_f64().into(),
            serde_json::Value::Array(items) => items.into_iter().map(numbers_as_doubles).collect(),
            serde_json::Value::Object(members) => members
                .into_iter()
                .map(|(name, value)| (name, numbers_as_doubles(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            other => other,
        }
    }

    /// Generates texts that are JSON or nearly JSON.
    fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
        let pieces = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\"a\"",
            "\"b\"",
            "\"\\u0041\"",
            "\\",
            "\\ud83d",
            "\\ude00",
            "\\n",
            "true",
            "false",
            "null",
            "0",
            "1",
            "-1",
            "1.5",
            "1e5",
            "1E-2",
            "-",
            ".",
            "e",
            " ",
            "\n",
            "\t",
            "\u{e9}",
            "\u{1}",
            "\"x\":1",
            "{\"a\":[1,2,{}]}",
        ]);
        prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 20_000,
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// This parser and serde_json read a text alike; in addition, this parser reads numbers beyond
        /// the range of doubles.
        #[test]
        fn agrees_with_serde_json(text in nearly_json()) {
            match (Json::parse(&text), serde_json::from_slice::<serde_json::Value>(&text)) {
                (Ok(ours), Ok(theirs)) => {
                    prop_assert_eq!(as_serde(&ours), numbers_as_doubles(theirs));
                }
                (Err(JsonError::DuplicateName(_) | JsonError::TooDeep), _) => {}
                (Err(JsonError::Syntax { .. }), Err(_)) => {}
                (Ok(_), Err(error)) if error.to_string().starts_with("number out of range") => {}
                (ours, theirs) => prop_assert!(false, "{ours:?} against {theirs:?}"),
            }
        }

        #[test]
        fn no_bytes_panic(text in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Json::parse(&text);
        }
    }
}
