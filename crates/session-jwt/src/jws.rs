//! The compact serialization of a JWS (RFC 7515 sections 3.1 and 7.1): three strictly encoded parts,
//! and a header without unsupported parameters.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::algorithm::Algorithm;
use crate::json::Json;
use crate::not_a_token::{OPAQUE, explain};
use crate::rejection::{Code, Rejection, quoted, quoted_list, reject};

/// The maximum length of a token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Header parameters of compressed or encrypted payloads (RFC 7516). A token with one of them is
/// rejected. Parameters that contain or name a key (`jwk`, `jku`, `x5u`, `x5c`, `x5t`: RFC 7515
/// sections 4.1.2 to 4.1.8) are ignored: `kid` selects one of the provider's keys, and nothing is
/// fetched.
const UNSUPPORTED_PARAMETERS: [&str; 2] = ["zip", "enc"];

/// A parsed token. None of its contents are verified.
pub(crate) struct Jws<'a> {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
    /// The signing input: the first two parts and the dot between them.
    pub(crate) signing_input: &'a str,
    /// The third part, which is valid base64url.
    pub(crate) signature: &'a str,
}

/// The header parameters that verification uses.
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<String>,
    pub(crate) typ: Option<String>,
}

/// The three parts of a token.
pub(crate) struct Parts<'a> {
    /// The bytes of the first part.
    pub(crate) header: Vec<u8>,
    /// The bytes of the second part.
    pub(crate) payload: Vec<u8>,
    signing_input: &'a str,
    signature: &'a str,
}

impl<'a> Jws<'a> {
    pub(crate) fn parse(token: &'a str) -> Result<Self, Rejection> {
        check_length(token.len())?;
        let parts = Parts::decode(token)?;
        let header = Header::parse(&parts.header)?;
        Ok(parts.with_header(header))
    }
}

/// Checks the length of a token, in bytes.
pub(crate) fn check_length(bytes: usize) -> Result<(), Rejection> {
    if bytes <= MAX_TOKEN_BYTES {
        return Ok(());
    }
    Err(reject(Code::Malformed, "token is too long")
        .with_detail(format!("It has {bytes} bytes; the limit is {MAX_TOKEN_BYTES}."))
        .with_hint("Have the identity provider leave claims out, such as lists of groups."))
}

impl<'a> Parts<'a> {
    pub(crate) fn decode(token: &'a str) -> Result<Self, Rejection> {
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(not_compact(token));
        };
        let decode = |part, name| decode(part, name).map_err(|rejection| explain(token, rejection));
        Ok(Self {
            header: decode(header, "header")?,
            payload: decode(payload, "payload")?,
            signature: decode(signature, "signature").map(|_| signature)?,
            signing_input: &token[..header.len() + 1 + payload.len()],
        })
    }

    pub(crate) fn with_header(self, header: Header) -> Jws<'a> {
        let Self { payload, signing_input, signature, .. } = self;
        Jws { header, payload, signing_input, signature }
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

/// Decodes base64url without padding, white space or stray bits (RFC 7515 section 2).
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
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Rejection> {
        let malformed = |detail: String| {
            reject(Code::Malformed, "token header is malformed").with_detail(detail)
        };
        let value = Json::parse(text).map_err(|error| {
            let rejection = malformed(error.to_string());
            // The parts of opaque tokens are not JSON.
            if text.first() == Some(&b'{') { rejection } else { rejection.with_hint(OPAQUE) }
        })?;
        let Some(object) = value.as_object() else {
            return Err(malformed(format!("It is {}, not an object.", value.type_name())));
        };
        let unsupported = |detail: String| {
            reject(Code::Malformed, "token header has an unsupported parameter").with_detail(detail)
        };
        if let Some(name) =
            UNSUPPORTED_PARAMETERS.into_iter().find(|name| object.present(name).is_some())
        {
            return Err(unsupported(format!("It has the parameter {}.", quoted(name))).with_hint(
                "Present a token that is signed, and neither encrypted nor compressed.",
            ));
        }
        // A critical extension must be understood (RFC 7515 section 4.1.11). No extension is supported.
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
        // With `b64` false, the payload is not base64url (RFC 7797).
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

    /// The parameters of a header that [`Header::parse`] rejects, for checks that do not depend on the
    /// rejected ones. None without a supported algorithm.
    pub(crate) fn salvage(text: &[u8]) -> Option<Self> {
        let value = Json::parse(text).ok()?;
        let object = value.as_object()?;
        let string = |name: &str| object.present(name).and_then(Json::as_str);
        Some(Self {
            algorithm: Algorithm::from_name(string("alg")?)?,
            kid: string("kid").map(str::to_owned),
            typ: string("typ").map(str::to_owned),
        })
    }
}

/// The `typ` of a header that is a JSON object, whether or not [`Header::parse`] accepts the header.
pub(crate) fn salvaged_type(header: &[u8]) -> Option<String> {
    let value = Json::parse(header).ok()?;
    value.as_object()?.present("typ").and_then(Json::as_str).map(str::to_owned)
}

/// Checks that `typ` is one of the `expected` types. By default it is that of a JWT (RFC 7519
/// section 5.1, RFC 9068 section 2.1), or absent, or `JOSE`, which stands for any JWS and is used
/// in JWT-SVIDs.
pub(crate) fn check_type(typ: Option<&str>, expected: Option<&[String]>) -> Result<(), Rejection> {
    let accepted = match (typ, expected) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some(typ), None) => matches!(bare_type(typ).as_str(), "jwt" | "at+jwt" | "jose"),
        // A logout token is nobody's identity, even where the provider lists its type.
        (Some(typ), Some(_)) if bare_type(typ) == LOGOUT_TYPE => false,
        (Some(typ), Some(expected)) => {
            expected.iter().any(|other| bare_type(other) == bare_type(typ))
        }
    };
    if accepted {
        return Ok(());
    }
    Err(reject(Code::Malformed, "token type is not accepted").with_detail(format!(
        "Its header has {}; accepted are {}.",
        typ.map_or_else(|| "no typ".to_owned(), |typ| format!("typ {}", quoted(typ))),
        accepted_types(expected)
    )))
}

/// The `typ` of a logout token (OpenID Connect Back-Channel Logout 1.0 section 2.4).
const LOGOUT_TYPE: &str = "logout+jwt";

/// Checks that `typ` is that of a logout token, of any JWT, or absent.
pub(crate) fn check_logout_type(typ: Option<&str>) -> Result<(), Rejection> {
    match typ {
        Some(typ) if !["jwt", LOGOUT_TYPE].contains(&bare_type(typ).as_str()) => {
            Err(reject(Code::Malformed, "token type is not accepted").with_detail(format!(
                "Its header has typ {}; accepted are {}.",
                quoted(typ),
                quoted_list([LOGOUT_TYPE, "JWT"])
            )))
        }
        _ => Ok(()),
    }
}

/// The types that [`check_type`] accepts, for a message.
pub(crate) fn accepted_types(expected: Option<&[String]>) -> String {
    match expected {
        None => quoted_list(["JWT", "at+jwt", "JOSE"]),
        Some(expected) => quoted_list(expected.iter().map(String::as_str)),
    }
}

/// Normalizes a media type for comparison: case does not matter, and neither does the prefix
/// "application/" (RFC 7515 section 4.1.9).
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

/// Whether a signature is two numbers in DER (RFC 3279 section 2.2.3), as X.509 libraries write it.
pub(crate) fn is_der_signature(signature: &str) -> bool {
    let octets = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    // The length of the INTEGER that the octets begin with.
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
