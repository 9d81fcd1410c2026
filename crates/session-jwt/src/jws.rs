//! The compact serialization of a JWS (RFC 7515 sections 3.1 and 7.1): three strictly encoded
//! parts, and a header that asks for nothing we do not do.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::algorithm::Algorithm;
use crate::json::Json;
use crate::rejection::{Code, Rejection, quoted, quoted_list, reject};

/// The longest token in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Header parameters that say that the payload is compressed or encrypted (RFC 7516): a token that
/// has one is refused rather than read as if it had none. Parameters that bring a key along (`jwk`,
/// `jku`, `x5u`, `x5c`, `x5t`: RFC 7515 sections 4.1.2 to 4.1.8) are ignored: the key is chosen by
/// `kid` among those of the provider, and nothing is fetched.
const REFUSED_PARAMETERS: [&str; 2] = ["zip", "enc"];

/// A parsed token. Nothing about it has been verified.
pub(crate) struct Jws<'a> {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
    /// What the signature covers: the first two parts and the dot between them.
    pub(crate) signing_input: &'a str,
    /// The third part, known to be well-formed base64url.
    pub(crate) signature: &'a str,
}

/// The header parameters that verification uses.
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<String>,
    pub(crate) typ: Option<String>,
}

impl<'a> Jws<'a> {
    pub(crate) fn parse(token: &'a str) -> Result<Self, Rejection> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(reject(Code::Malformed, "token is too long").with_detail(format!(
                "It has {} bytes; the limit is {MAX_TOKEN_BYTES}.",
                token.len()
            )));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(not_compact(token));
        };
        let decode = |part, name| decode(part, name).map_err(|rejection| explain(token, rejection));
        Ok(Self {
            header: Header::parse(&decode(header, "header")?)?,
            payload: decode(payload, "payload")?,
            signature: decode(signature, "signature").map(|_| signature)?,
            signing_input: &token[..header.len() + 1 + payload.len()],
        })
    }
}

fn not_compact(token: &str) -> Rejection {
    let parts = token.split('.').count();
    let rejection = reject(Code::Malformed, "token is not a compact JWS").with_detail(format!(
        "It has {parts} {} separated by dots; a compact JWS has three.",
        if parts == 1 { "part" } else { "parts" }
    ));
    explain(token, rejection)
}

/// Adds what the text is in place of a token, and what to do about it, where its form tells.
fn explain(text: &str, rejection: Rejection) -> Rejection {
    match recognize(text) {
        None => rejection,
        Some((what, hint)) => {
            let detail = format!("{} {what}", rejection.detail().unwrap_or_default());
            rejection.with_detail(detail).with_hint(hint)
        }
    }
}

const OPAQUE: &str = "Ask the identity provider for a JWT: Auth0 issues one where the application names \
                      an audience, Logto where it names a resource, others where the type of access \
                      tokens is JWT.";

/// How other things begin that are presented for tokens, in lower case; what they are, and what to do.
const BEGINNINGS: [(&str, &str, &str); 18] = [
    ("bearer", SCHEME, "Present the token alone, without the word \"Bearer\"."),
    ("basic ", SCHEME, "Present a token: user names and passwords are none."),
    ("authorization:", SCHEME, "Present the token alone, without the name of the header."),
    ("jwt ", SCHEME, "Present the token alone, without the word before it."),
    ("token ", SCHEME, "Present the token alone, without the word before it."),
    (
        "{",
        "It is a JSON document.",
        "Present one token alone: the value of \"access_token\" or of \
      \"id_token\" in it. The JSON serialization of a JWS is not supported.",
    ),
    (
        "-----begin",
        "It is a key or a certificate in PEM.",
        "Present a token that is signed with the key.",
    ),
    ("http://", "It is a URL.", "Present the token itself."),
    ("https://", "It is a URL.", "Present the token itself."),
    (
        "sb_",
        "It is an opaque token: an API key of Supabase.",
        "Present the access token of the user's session, which is a JWT.",
    ),
    ("gh", GITHUB, GITHUB_HINT),
    ("github_pat_", GITHUB, GITHUB_HINT),
    (
        "ya29.",
        "It is an opaque token: an access token of Google.",
        "Present the ID token, which is a JWT.",
    ),
    (
        "ory_",
        "It is an opaque token of Ory.",
        "Set Ory's access token strategy to jwt, or tokenize the \
      session.",
    ),
    ("zxlk", BASE64, BASE64_HINT),
    ("ilzxlk", BASE64, BASE64_HINT),
    // In quotes, and with the word Bearer.
    ("imv5s", BASE64, BASE64_HINT),
    ("qmvhcmvyigv5s", BASE64, BASE64_HINT),
];
const BASE64: &str = "It is a JWT in base64 once more.";
const BASE64_HINT: &str = "Decode it from base64 first.";
const SCHEME: &str = "It begins with the name of an authentication scheme.";
const GITHUB: &str = "It is an opaque token of GitHub.";
const GITHUB_HINT: &str = "GitHub issues JWTs as ID tokens of Actions alone.";

/// What a token is cut out of with too much.
struct Surroundings {
    /// How what is before the token ends.
    before: &'static [&'static str],
    /// How what is after the token begins.
    after: &'static [&'static str],
    what: &'static str,
    hint: &'static str,
}

/// The first that fits counts.
const SURROUNDINGS: [Surroundings; 4] = [
    Surroundings {
        before: &[">"],
        after: &["</", "<", "&lt;"],
        what: "It is a part of XML or HTML.",
        hint: "Present the token alone, without the tags around it.",
    },
    Surroundings {
        before: &["\"", "'", "\\", "%22"],
        after: &["\"", "'", "\\", ",", "}", "]", "%22"],
        what: "It is a part of a JSON document.",
        hint: "Present the token alone, without the quotes around it and what is beyond them.",
    },
    Surroundings {
        before: &["=", "%3D"],
        after: &["&", ";", "#"],
        what: "It is a part of a cookie, a form or a URL.",
        hint: "Present the token alone: what is between \"=\" and the next \"&\" or \";\".",
    },
    Surroundings {
        before: &[""],
        after: &[""],
        what: "Something else is before or after the token.",
        hint: "Present the token alone.",
    },
];

/// How long a header may be that is looked for within other text.
const MAX_SOUGHT_HEADER: usize = 1024;

/// Where the headers of tokens begin in a text, the first few of them.
fn headers(text: &str) -> impl Iterator<Item = usize> {
    // Claims begin so, too.
    const SOUGHT: usize = 32;
    let is_header = |place: &usize| {
        let rest = &text.as_bytes()[*place..];
        let end = rest.iter().take(MAX_SOUGHT_HEADER).position(|byte| *byte == b'.');
        let decoded = end.and_then(|end| URL_SAFE_NO_PAD.decode(&rest[..end]).ok());
        decoded.is_some_and(|header| has_member(&header, "alg"))
    };
    text.match_indices("eyJ").map(|(place, _)| place).take(SOUGHT).filter(is_header)
}

fn has_member(header: &[u8], name: &str) -> bool {
    let header = Json::parse(header).ok();
    header.as_ref().and_then(Json::as_object).is_some_and(|header| header.get(name).is_some())
}

/// What is around the one token in a text.
fn surroundings(text: &str) -> Option<(&'static str, &'static str)> {
    let start = headers(text).next()?;
    let (before, rest) = text.split_at(start);
    // Padding is another matter.
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=');
    let after = rest.trim_start_matches(is_of_token);
    let (before, after) = (before.trim(), after.trim());
    if before.is_empty() && after.is_empty() || rest.split('.').count() < 3 {
        return None;
    }
    let fits = |around: &&Surroundings| {
        !before.is_empty() && around.before.iter().any(|end| before.ends_with(end))
            || !after.is_empty() && around.after.iter().any(|start| after.starts_with(start))
    };
    SURROUNDINGS.iter().find(fits).map(|around| (around.what, around.hint))
}

/// What a text is that is not a token, and what to do about it. Nothing of it is repeated.
fn recognize(text: &str) -> Option<(&'static str, &'static str)> {
    let is_around = |character: char| character.is_whitespace() || character.is_control();
    let bare = text.trim_matches(is_around).trim_start_matches('\u{feff}');
    let is_quote = |character: char| matches!(character, '"' | '\'' | '`');
    if bare.starts_with(is_quote) && bare.ends_with(is_quote) {
        return Some(("It stands in quotes.", "Present the token without quotes around it."));
    }
    let lower: String =
        bare.chars().take(16).map(|character| character.to_ascii_lowercase()).collect();
    let begins = |(start, ..): &&(&str, &str, &str)| match *start {
        // `gho_`, `ghp_` and the like.
        "gh" => lower.starts_with("gh") && lower.get(3..4) == Some("_"),
        "sb_" => lower.starts_with("sb_publishable_") || lower.starts_with("sb_secret_"),
        start => lower.starts_with(start),
    };
    if let Some((_, what, hint)) = BEGINNINGS.iter().find(begins) {
        return Some((what, hint));
    }
    if headers(text).nth(1).is_some() {
        return Some((
            "It is several tokens, one after the other.",
            "Present one of them alone: the access token, or the ID token.",
        ));
    }
    if let Some(found) = surroundings(text) {
        return Some(found);
    }
    if text.ends_with(is_around) {
        return Some((
            "It ends with white space or a line break.",
            "Present the token without it.",
        ));
    }
    if text.starts_with(is_around) {
        return Some(("It begins with white space.", "Present the token without it."));
    }
    let parts = text.split('.');
    match parts.clone().count() {
        5 if parts.clone().next().is_some_and(is_encrypted) => Some((
            "It is an encrypted token.",
            "Five parts make an encrypted token (JWE). Present a signed one.",
        )),
        3 if parts.clone().any(|part| part.ends_with('=')) => Some((
            "It is padded with \"=\".",
            "Remove each \"=\" from the ends of the parts, if the issuer has signed the token without. \
             AWS's Application Load Balancer pads x-amzn-oidc-data and signs the padding, so that no \
             JWT library verifies it: present the identity provider's own token, which it passes on in \
             x-amzn-oidc-accesstoken.",
        )),
        1 if !text.is_empty() => {
            Some(("It has no dots, so it is an opaque token, not a JWT.", OPAQUE))
        }
        2 if text.starts_with("eyJ") => Some((
            "Its signature is missing.",
            "Present the whole token, as the provider issued it.",
        )),
        2 => Some(("It is an opaque token, not a JWT.", OPAQUE)),
        _ => None,
    }
}

/// Whether a first part is the header of a JWE (RFC 7516 section 4.1.2).
fn is_encrypted(header: &str) -> bool {
    URL_SAFE_NO_PAD.decode(header).is_ok_and(|header| has_member(&header, "enc"))
}

/// Base64url without padding, whitespace or stray bits (RFC 7515 section 2).
fn decode(part: &str, name: &str) -> Result<Vec<u8>, Rejection> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| {
        reject(Code::Malformed, "token is not base64url").with_detail(format!(
            "The {name} is not base64url without padding, as RFC 7515 section 2 requires."
        ))
        .with_hint(
            "A token is letters, digits, \"-\", \"_\" and two dots. Leave out spaces, line ends and \
             quotes around it.",
        )
    })
}

impl Header {
    fn parse(text: &[u8]) -> Result<Self, Rejection> {
        let malformed = |detail: String| {
            reject(Code::Malformed, "token header is malformed").with_detail(detail)
        };
        let value = Json::parse(text).map_err(|error| {
            let rejection = malformed(error.to_string());
            // As the parts of opaque tokens.
            if text.first() == Some(&b'{') { rejection } else { rejection.with_hint(OPAQUE) }
        })?;
        let Some(object) = value.as_object() else {
            return Err(malformed(format!("It is {}, not an object.", value.type_name())));
        };
        let unsupported = |detail: String| {
            reject(Code::Malformed, "token header asks for what is not supported")
                .with_detail(detail)
        };
        if let Some(name) =
            REFUSED_PARAMETERS.into_iter().find(|name| object.present(name).is_some())
        {
            return Err(unsupported(format!("It has the parameter {}.", quoted(name))).with_hint(
                "Present a token that is signed, and neither encrypted nor compressed.",
            ));
        }
        // What is critical must be understood (RFC 7515 section 4.1.11), and no extension is.
        match object.present("crit") {
            None => {}
            Some(Json::Array(names)) if names.is_empty() => {}
            Some(other) => {
                let names = other.as_strings().map(quoted_list);
                return Err(unsupported(format!(
                    "Its parameter \"crit\" names {}.",
                    names.as_deref().unwrap_or("no list of extensions")
                ))
                .with_hint("No extension is supported, so \"crit\" must be absent or empty."));
            }
        }
        // The payload as it is, rather than in base64url (RFC 7797).
        match object.present("b64") {
            None | Some(Json::Bool(true)) => {}
            Some(_) => return Err(unsupported("It has the parameter \"b64\".".to_owned())),
        }
        let string = |name: &str| match object.present(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(other) => Err(malformed(format!(
                "The parameter {} is {}, not a string.",
                quoted(name),
                other.type_name()
            ))),
        };
        let (kid, typ) = (string("kid")?, string("typ")?);
        let Some(name) = string("alg")? else {
            return Err(malformed("It has no parameter \"alg\".".to_owned()));
        };
        let Some(algorithm) = Algorithm::from_name(name) else {
            return Err(unknown_algorithm(name));
        };
        Ok(Self {
            algorithm,
            kid: kid.cloned().map(Cow::into_owned),
            typ: typ.cloned().map(Cow::into_owned),
        })
    }

    /// The token is a JWT as far as its header says (RFC 7519 section 5.1, RFC 9068 section 2.1; `JOSE`
    /// says no more than that it is a JWS, and stands in JWT-SVIDs), or of one of the types that are
    /// `expected`.
    pub(crate) fn check_typ(&self, expected: Option<&[String]>) -> Result<(), Rejection> {
        let accepted = match (&self.typ, expected) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some(typ), None) => matches!(bare_type(typ).as_str(), "jwt" | "at+jwt" | "jose"),
            (Some(typ), Some(expected)) => {
                expected.iter().any(|other| bare_type(other) == bare_type(typ))
            }
        };
        if accepted {
            return Ok(());
        }
        let expected: Vec<&str> = match expected {
            None => vec!["JWT", "at+jwt", "JOSE"],
            Some(expected) => expected.iter().map(String::as_str).collect(),
        };
        Err(reject(Code::Malformed, "token is of another type").with_detail(format!(
            "Its header has {}; accepted are {}.",
            self.typ
                .as_deref()
                .map_or_else(|| "no typ".to_owned(), |typ| { format!("typ {}", quoted(typ)) }),
            quoted_list(expected)
        )))
    }
}

/// A media type as `typ` is compared: its case does not matter, nor whether "application/" is
/// before it (RFC 7515 section 4.1.9).
fn bare_type(typ: &str) -> String {
    let lower = typ.to_ascii_lowercase();
    lower.strip_prefix("application/").map_or_else(|| lower.clone(), str::to_owned)
}

fn unknown_algorithm(name: &str) -> Rejection {
    let rejection =
        reject(Code::Algorithm, "token algorithm is not supported").with_detail(format!(
            "The token's alg is {}; supported are {}.",
            quoted(name),
            Algorithm::ALL.map(Algorithm::name).join(", ")
        ));
    if name.eq_ignore_ascii_case("none") {
        rejection.with_hint("Unsigned tokens are never accepted.")
    } else {
        rejection
    }
}

/// Whether a signature is two numbers in DER (RFC 3279 section 2.2.3), as libraries for X.509 make it.
pub(crate) fn is_der_signature(signature: &str) -> bool {
    let octets = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    // A number, and what follows it.
    let integer = |octets: &'_ [u8]| -> Option<usize> {
        let (tag, length) = (*octets.first()?, usize::from(*octets.get(1)?));
        (tag == 0x02 && (1..=49).contains(&length)).then_some(2 + length)
    };
    let [0x30, length, numbers @ ..] = &octets[..] else {
        return false;
    };
    usize::from(*length) == numbers.len()
        && integer(numbers).is_some_and(|first| {
            let rest = numbers.get(first..).unwrap_or_default();
            integer(rest) == Some(rest.len())
        })
}
