//! Rejections: one error type for tokens and for configuration.

use std::borrow::Cow;

/// The kind of a rejection. Each kind has an SQLSTATE of its own, so that a client can tell by the code
/// whether to refresh the token or to log out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The token is not a well-formed compact JWS that this library accepts.
    Malformed,
    /// No provider serves the token's issuer, or no key of that provider has the token's kid.
    NoKey,
    /// The signature does not verify.
    Signature,
    /// `exp` has passed.
    Expired,
    /// `nbf` is in the future.
    NotYetValid,
    /// The token has no issuer but needs one, or its issuer is not the provider's.
    Issuer,
    /// The token's audience does not contain the provider's audience.
    Audience,
    /// `jti` is not greater than the last one of this session.
    Replayed,
    /// A claim is missing, of the wrong type, or not allowed.
    Claim,
    /// The key may not be used with the token's algorithm.
    Algorithm,
    /// A provider's keys could not be fetched for an administrator.
    Fetching,
    /// The token has been revoked.
    Revoked,
    /// The token is valid, and the action needs another one: with another scope, or from a fresh sign-in.
    Insufficient,
    /// No provider has the given name, or no revocation the given number.
    NoProvider,
    /// A key, a provider, a setting or an argument is wrong.
    Configuration,
    /// The token does not grant an action that a statement needs, the session may not change its role,
    /// or the role or the token changed after the statement was planned.
    Forbidden,
    /// Memory ran out before verification ended. The code says nothing about the token.
    OutOfMemory,
    /// The database has the functions of an older version of the extension, or the server has not preloaded the
    /// library.
    Prerequisite,
}

impl Code {
    /// Every code, in the order of the SQLSTATEs.
    pub const ALL: [Code; 18] = [
        Code::Malformed,
        Code::NoKey,
        Code::Signature,
        Code::Expired,
        Code::NotYetValid,
        Code::Issuer,
        Code::Audience,
        Code::Replayed,
        Code::Claim,
        Code::Algorithm,
        Code::Fetching,
        Code::Revoked,
        Code::Insufficient,
        Code::Configuration,
        Code::Forbidden,
        Code::NoProvider,
        Code::OutOfMemory,
        Code::Prerequisite,
    ];

    /// The five characters of the SQLSTATE: class 28 (invalid authorization specification) with
    /// implementation-defined subclasses, and Postgres' own `22023` (invalid parameter value),
    /// `42501` (insufficient privilege), `42704` (undefined object), `53200` (out of memory) and `55000`
    /// (object not in prerequisite state).
    pub const fn sqlstate(self) -> &'static str {
        self.describe().0
    }

    /// The meaning of the code, in the words of the documentation's table.
    pub const fn meaning(self) -> &'static str {
        self.describe().1
    }

    const fn describe(self) -> (&'static str, &'static str) {
        match self {
            Code::Malformed => ("28J01", "malformed token"),
            Code::NoKey => ("28J02", "no matching key or provider"),
            Code::Signature => ("28J03", "signature does not verify"),
            Code::Expired => ("28J04", "expired, or older than the provider's `max_token_age`"),
            Code::NotYetValid => (
                "28J05",
                "not yet valid: before `nbf`, or before `iat` where there is `max_token_age`",
            ),
            Code::Issuer => ("28J06", "issuer missing or not the provider's"),
            Code::Audience => ("28J07", "audience missing or not the provider's"),
            Code::Replayed => ("28J08", "replayed (`jti` not above the last one)"),
            Code::Claim => (
                "28J09",
                "a claim is missing (`iat` with `max_token_age`), of the wrong type, or not what the provider asks for (`require`, roles); or the session cannot take the token's role, or not now",
            ),
            Code::Algorithm => ("28J10", "algorithm not allowed"),
            Code::Fetching => ("28J11", "keys could not be fetched"),
            Code::Revoked => ("28J12", "revoked, by a row of `auth.revocations`"),
            Code::Insufficient => (
                "28J13",
                "valid, and the action needs another token: with a scope, or from a fresh sign-in",
            ),
            Code::NoProvider => ("42704", "no provider or revocation of that name"),
            Code::OutOfMemory => ("53200", "memory ran out; says nothing about the token"),
            Code::Prerequisite => (
                "55000",
                "the server is not prepared for the call: the database has an older version of the extension, or the library is not preloaded",
            ),
            Code::Configuration => {
                ("22023", "a key, a provider, a setting or an argument is wrong")
            }
            Code::Forbidden => (
                "42501",
                "the token does not grant what a statement needs, the role is locked, or role or token have changed meanwhile",
            ),
        }
    }
}

/// A rejection. The message says which check failed and never varies. The detail says which value was
/// found and which was expected. The hint says how to correct it.
///
/// The texts never contain bytes of a token, a signature or a key. Strings from outside are quoted,
/// escaped and shortened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    code: Code,
    message: &'static str,
    detail: Option<String>,
    hint: Option<Cow<'static, str>>,
    provider: Option<Box<str>>,
}

impl Rejection {
    /// A rejection without detail and hint.
    pub fn new(code: Code, message: &'static str) -> Self {
        Self { code, message, detail: None, hint: None, provider: None }
    }

    /// Adds the detail: the value that was found and the value that was expected, in whole sentences.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the hint: how to correct the error, in whole sentences.
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the name of the provider that serves the token's issuer, for log lines.
    pub fn with_provider(mut self, name: &str) -> Self {
        self.provider = Some(name.into());
        self
    }

    /// The kind of the rejection.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The primary message: lower case, without full stop, independent of the input.
    pub fn message(&self) -> &'static str {
        self.message
    }

    /// The value that was found and the value that was expected.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The SQLSTATE, the message and the detail in one line.
    pub fn description(&self) -> String {
        let (code, message) = (self.code.sqlstate(), self.message);
        match &self.detail {
            None => format!("{code}, {message}."),
            Some(detail) => format!("{code}, {message}. {detail}"),
        }
    }

    /// The name of the provider that serves the token's issuer, if it is known.
    pub fn provider(&self) -> Option<&str> {
        self.provider.as_deref()
    }

    /// How to correct the error.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Abbreviates `Rejection::new`.
pub(crate) fn reject(code: Code, message: &'static str) -> Rejection {
    Rejection::new(code, message)
}

/// The maximum number of characters that a message quotes of a string from outside.
const QUOTED_CHARACTERS: usize = 128;

/// Quotes a string from outside for a message or a log line in any encoding. The result is in double
/// quotes, in printable ASCII with escapes, and cut after 128 characters.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(QUOTED_CHARACTERS) + 2);
    out.push('"');
    for (index, character) in text.chars().enumerate() {
        if index == QUOTED_CHARACTERS {
            out.push_str("...");
            break;
        }
        if character == '\'' {
            out.push(character);
        } else {
            out.extend(character.escape_default());
        }
    }
    out.push('"');
    out
}

/// Quotes up to ten strings, separated by commas. The result is "none" for an empty list.
pub(crate) fn quoted_list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    const LISTED: usize = 10;
    let mut texts = texts.into_iter();
    let listed: Vec<String> = texts.by_ref().take(LISTED).map(quoted).collect();
    match (listed.is_empty(), texts.next()) {
        (true, _) => "none".to_owned(),
        (false, None) => listed.join(", "),
        (false, Some(_)) => format!("{} and others", listed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_escapes_and_shortens() {
        assert_eq!(quoted("it's"), "\"it's\"");
        assert_eq!(quoted("a\"b\n\0\u{202e}"), "\"a\\\"b\\n\\u{0}\\u{202e}\"");
        assert_eq!(quoted(&"x".repeat(500)).chars().count(), QUOTED_CHARACTERS + 5);
    }

    #[test]
    fn lists_are_short() {
        assert_eq!(quoted_list([]), "none");
        assert_eq!(quoted_list(["a", "b"]), "\"a\", \"b\"");
        assert!(quoted_list(["a"; 12]).ends_with("\"a\" and others"));
    }

    #[test]
    fn codes_are_distinct() {
        let mut states: Vec<_> = Code::ALL.iter().map(|code| code.sqlstate()).collect();
        states.sort_unstable();
        states.dedup();
        assert_eq!(states.len(), Code::ALL.len());
    }
}
