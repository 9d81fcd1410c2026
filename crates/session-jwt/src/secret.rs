//! Tells a secret from a public text. If an HMAC key is public, anyone can sign tokens. So a text is
//! rejected as a secret if it contains a public text in any encoding.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};

use crate::address;
use crate::der;
use crate::encoding;
use crate::json::{Json, Object};

/// The kind of text that was found in place of a secret or of a key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Pem,
    Private,
    Der,
    Ssh,
    Point,
    Jwk,
    JwkSet,
    KeyList,
    Discovery,
    CertificateMap,
    Realm,
    Json,
    Markup,
    Url,
    Token,
    Publishable,
    PrintedKey,
    OtherKey,
    Fingerprint,
    Name,
    /// A text in the place of a secret that is elsewhere.
    StandIn,
    /// The decodings exceed the limits, so the text cannot be told from a public one.
    Unclear,
}

impl Found {
    /// The kind, with its article.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Found::Pem => "a key or a certificate in PEM",
            Found::Private => "a private key",
            Found::Der => "the base64 or the bytes of a key or a certificate in DER",
            Found::Ssh => "a public key in the format of SSH",
            Found::Point => "a point on an elliptic curve, which is a public key",
            Found::Jwk => "a JWK",
            Found::JwkSet => "a JWK set",
            Found::KeyList => "an array of JWKs",
            Found::Discovery => "an OpenID discovery document",
            Found::CertificateMap => "a map of certificates by key id",
            Found::Realm => "the description of a Keycloak realm",
            Found::Json => "a JSON document",
            Found::Markup => "HTML or XML",
            Found::Url => "a URL",
            Found::Token => "a token",
            Found::Publishable => "a publishable API key, which is public",
            Found::PrintedKey => "a key or a certificate as openssl prints it",
            Found::OtherKey => "a public key of a kind that is not used for tokens",
            Found::Fingerprint => {
                "a key that is named public, or the fingerprint of a key or a certificate"
            }
            Found::Name => "an address or a name, which is public",
            Found::StandIn => "a placeholder, a masked text, or the name of a file or a variable",
            Found::Unclear => {
                "encoded so often or so long that it cannot be told from a public text"
            }
        }
    }

    /// The member to use for a text of this kind, as a whole sentence.
    pub(crate) fn place(self) -> &'static str {
        match self {
            Found::Pem => "Give a public key in PEM as \"public_key\".",
            Found::Private => {
                "If others have seen this text, replace the key pair. Give the public key as \
                 \"public_key\"."
            }
            Found::Der => {
                "Give it as \"public_key\", in base64 or in PEM, if it is a public key or a certificate."
            }
            Found::Ssh => {
                "Convert it to PEM, as with ssh-keygen -e -m PKCS8, and give that as \"public_key\"."
            }
            Found::Point => {
                "Give it as a JWK of kty \"EC\" in \"jwks\". If the bytes are random, generate \
                 other bytes."
            }
            Found::Jwk | Found::JwkSet => "Give it as \"jwks\", as a JSON object.",
            Found::KeyList => "Give them as \"jwks\", within an object: {\"keys\": [...]}.",
            Found::Discovery => {
                "In a row of the table of providers, give its issuer as \"issuer\" without \
                 \"jwks_url\", so that discovery is used, or its \"jwks_uri\" as \"jwks_url\"."
            }
            Found::CertificateMap => {
                "Give the URL of the same keys as a JWK set as \"jwks_url\"; for Firebase that is \
                 https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com."
            }
            Found::Realm => {
                "In a row of the table of providers, give its issuer as \"issuer\" without \
                 \"jwks_url\", so that discovery is used."
            }
            Found::Json => "Give a JWK or a JWK set as \"jwks\".",
            Found::Markup => {
                "Give a JWK set as \"jwks\", its URL as \"jwks_url\", or a key in PEM as \
                 \"public_key\"."
            }
            Found::Url => {
                "Give the URL of a JWK set as \"jwks_url\" in a row of the table of providers, and the \
                 URL of an identity provider as \"issuer\"."
            }
            Found::Token => {
                "A token is what the key signs. Give the key: as \"secret\", \"jwks\" or \
                 \"public_key\"."
            }
            Found::Publishable => "Give the secret that signs the tokens, or the keys as \"jwks\".",
            Found::PrintedKey => {
                "Give the key in PEM, as openssl prints it without -text and -modulus, as \"public_key\"."
            }
            Found::OtherKey => {
                "Give the key that signs the tokens: as \"secret\", \"jwks\" or \"public_key\"."
            }
            Found::Fingerprint => {
                "Give the key itself: in PEM as \"public_key\", as a JWK as \"jwks\", or its URL as \
                 \"jwks_url\"."
            }
            Found::Name => {
                "Give the URL of an identity provider as \"issuer\", that of a JWK set as \"jwks_url\", and \
                 an application's name as \"audience\"."
            }
            Found::StandIn => "Give the secret itself in its place.",
            Found::Unclear => {
                "Give at least 32 random bytes as \"secret\", such as those of openssl rand \
                 -base64 32."
            }
        }
    }
}

/// The limit for the total bytes of decoded texts: a base plus a number per byte of the text, with a
/// maximum. Random bytes need about a hundredth of it.
const EFFORT_PER_BYTE: usize = 64;
const BASE_EFFORT: usize = 512 * 1024;
const MAX_EFFORT: usize = 8 * 1024 * 1024;

/// The limit for the bytes of decoded texts that wait at a time: a base plus a number per byte of the
/// text.
const WAITING_PER_BYTE: usize = 16;
const BASE_WAITING: usize = 32 * 1024;

/// The maximum depth of nested encodings. Programs do not generate secrets with a greater depth.
const MAX_DEPTH: usize = 32;

/// The minimum length of a key in DER. A key of Ed25519 has 44 bytes.
const MIN_DER_BYTES: usize = 40;

/// The kind of public text that the bytes contain, if any.
pub(crate) fn find(bytes: &[u8]) -> Option<Found> {
    let mut found = None;
    let complete = any_decoding(bytes, |form| {
        found = recognize(form);
        found.is_some()
    });
    match complete {
        // A text in the place of a secret is not encoded.
        Some(false) if is_stand_in(&String::from_utf8_lossy(bytes)) => Some(Found::StandIn),
        Some(_) => found,
        None => Some(Found::Unclear),
    }
}

/// Whether the predicate accepts the bytes or one of their decodings at any depth. None if the search
/// exceeds its limits. The search is depth-first, so that few decodings wait at a time.
pub(crate) fn any_decoding(bytes: &[u8], mut accepts: impl FnMut(&[u8]) -> bool) -> Option<bool> {
    /// The cost of a decoding, in addition to its bytes.
    const COST_PER_FORM: usize = 32;
    let mut effort = (bytes.len().saturating_mul(EFFORT_PER_BYTE) + BASE_EFFORT).min(MAX_EFFORT);
    let mut room = bytes.len().saturating_mul(WAITING_PER_BYTE) + BASE_WAITING;
    if accepts(bytes) {
        return Some(true);
    }
    let hasher = RandomState::new();
    let mut seen = HashSet::from([hasher.hash_one(bytes)]);
    let mut waiting = vec![(bytes.to_vec(), 0)];
    let mut is_complete = true;
    while let Some((form, depth)) = waiting.pop() {
        if depth > 0 {
            room += form.len() + COST_PER_FORM;
            if accepts(&form) {
                return Some(true);
            }
        }
        encoding::each_decoding(&form, &mut |decoded| {
            let cost = decoded.len() + COST_PER_FORM;
            if !seen.insert(hasher.hash_one(&decoded[..])) {
                return;
            }
            if depth == MAX_DEPTH || cost > effort || cost > room {
                is_complete = false;
                return;
            }
            effort -= cost;
            room -= cost;
            waiting.push((decoded, depth + 1));
        });
    }
    is_complete.then_some(false)
}

/// A predicate for a kind of public text, and the kind.
type Recognizer<T> = (fn(&T) -> bool, Found);

/// The kind of the bytes themselves, without decoding.
fn recognize(bytes: &[u8]) -> Option<Found> {
    const OF_BYTES: [Recognizer<[u8]>; 6] = [
        (is_private_der, Found::Private),
        (is_der, Found::Der),
        (is_ssh, Found::Ssh),
        (is_point, Found::Point),
        (is_packet, Found::OtherKey),
        (is_cose, Found::OtherKey),
    ];
    const OF_TEXT: [Recognizer<str>; 13] = [
        (has_private_block, Found::Private),
        (is_pem, Found::Pem),
        (is_markup, Found::Markup),
        (is_printed_key, Found::PrintedKey),
        (address::is_url, Found::Url),
        (has_token, Found::Token),
        (has_publishable, Found::Publishable),
        (is_ssh_line, Found::Ssh),
        (has_other_key, Found::OtherKey),
        (begins_private_der, Found::Private),
        (begins_der, Found::Der),
        (is_fingerprint, Found::Fingerprint),
        (address::is_name, Found::Name),
    ];
    if let Some((_, found)) = OF_BYTES.iter().find(|(is_such, _)| is_such(bytes)) {
        return Some(*found);
    }
    let text = encoding::as_text(bytes)?;
    let text = encoding::trimmed(&text);
    // A document may contain any of the other kinds, so it is tested first.
    let json = || find_json(text);
    let of_text = |range: std::ops::Range<usize>| {
        OF_TEXT[range].iter().find(|(is_such, _)| is_such(text)).map(|(_, found)| *found)
    };
    of_text(0..2).or_else(json).or_else(|| of_text(2..OF_TEXT.len()))
}

fn is_private_der(bytes: &[u8]) -> bool {
    bytes.len() >= MIN_DER_BYTES && der::begins_as_private(bytes)
}

fn is_der(bytes: &[u8]) -> bool {
    bytes.len() >= MIN_DER_BYTES
        && (der::is_structure(bytes)
            || der::begins_as_key(bytes)
            || (0..bytes.len()).any(|place| der::begins_unmistakably(&bytes[place..])))
}

/// Whether the bytes begin with the length and the name of a key type of SSH (RFC 4253 section 6.6).
fn is_ssh(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_at_checked(4) else {
        return false;
    };
    let is_short = length[..3] == [0; 3] && usize::from(length[3]) <= rest.len();
    is_short && ["ssh-", "ecdsa-", "sk-"].iter().any(|start| rest.starts_with(start.as_bytes()))
}

/// Whether the bytes are an uncompressed point (SEC 1 section 2.3.3) or its two coordinates.
fn is_point(bytes: &[u8]) -> bool {
    let coordinates = match bytes {
        [4 | 6 | 7, coordinates @ ..] if bytes.len() % 2 == 1 => coordinates,
        _ => bytes,
    };
    let curves: &[&'static dyn VerificationAlgorithm] = match coordinates.len() {
        64 => &[&signature::ECDSA_P256_SHA256_FIXED, &signature::ECDSA_P256K1_SHA256_FIXED],
        96 => &[&signature::ECDSA_P384_SHA384_FIXED],
        132 => &[&signature::ECDSA_P521_SHA512_FIXED],
        _ => return false,
    };
    let point = [&[4], coordinates].concat();
    curves.iter().any(|curve| ParsedPublicKey::new(*curve, &point).is_ok())
}

/// Whether the bytes are a public key of minisign, or begin as a public key of OpenPGP: an old or a new
/// packet of type 6 or 14, a version, four bytes of time, and an algorithm (RFC 9580 section 5.5.2).
fn is_packet(bytes: &[u8]) -> bool {
    const MINISIGN: usize = 42;
    let body = match bytes {
        [0x99 | 0xb9, 0..=0x20, _, body @ ..] => body,
        [0x98 | 0xb8, 0x20..=0xff, body @ ..] => body,
        [0xc6 | 0xce, 0xc0..=0xdf, _, body @ ..] => body,
        [0xc6 | 0xce, 0x20..=0xbf, body @ ..] => body,
        _ => &[],
    };
    bytes.len() == MINISIGN && bytes.starts_with(b"Ed")
        || matches!(body, [4, _, _, _, _, 1..=3 | 16 | 17, 4..=0x20, 0, ..])
        || matches!(body, [4, _, _, _, _, 18 | 19 | 22, 3..=10, 0x2a | 0x2b, ..])
        || matches!(body, [4, _, _, _, _, 25 | 27, ..] if body.len() == 38)
        || matches!(body, [6, _, _, _, _, 1..=3 | 16..=28, 0, 0, ..])
}

/// Whether the bytes are a public key of COSE, as WebAuthn uses it: a map of two to six entries that
/// begins with the type, 1 to 3, and the algorithm (RFC 9052 section 7).
fn is_cose(bytes: &[u8]) -> bool {
    matches!(bytes, [0xa2..=0xa6, 1, 1..=3, 3, 0x20..=0x39, ..])
        || matches!(bytes, [0xa2..=0xa6, 1, 1..=3, 0x20, 1..=8, 0x21, 0x58, ..])
}

/// Whether a text contains a compact JWS or JWE, complete or cut off (RFC 7515 section 7.1, RFC 7516
/// section 7.1), with any text around it and with any line breaks.
fn has_token(text: &str) -> bool {
    let dense: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let begins = |text: &str, place: usize| {
        let header = encoding::digits_at(text, place);
        let after = &text.as_bytes()[place + header.len()..];
        matches!(after, [b'.', next, ..] if next.is_ascii_alphanumeric() || b"+/-_".contains(next))
            && is_header(header)
    };
    [text, &dense]
        .iter()
        .any(|text| text.match_indices("eyJ").any(|(place, _)| begins(text, place)))
        || encoding::words(text).any(is_token)
}

fn is_token(word: &str) -> bool {
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    word.split_once('.').is_some_and(|(header, rest)| {
        header.len() > 8 && rest.chars().all(is_of_token) && is_header(header)
    })
}

fn is_header(digits: &str) -> bool {
    encoding::decode_base64(digits)
        .is_some_and(|header| matches!(Json::parse_leniently(&header), Ok(Json::Object(_))))
}

fn begins_private_der(text: &str) -> bool {
    contains_base64_of(text, der::begins_as_private)
}

fn begins_der(text: &str) -> bool {
    contains_base64_of(text, der::begins_unmistakably)
}

/// Whether base64 of a kind of DER begins anywhere in a text. The beginnings are so long that random
/// text does not contain them.
fn contains_base64_of(text: &str, is_such: fn(&[u8]) -> bool) -> bool {
    /// The number of characters that are decoded of each beginning.
    const PREFIX_CHARACTERS: usize = 64;
    let begins = |text: &str, place: usize| {
        let digits = encoding::digits_at(text, place);
        let digits = digits.get(..PREFIX_CHARACTERS).unwrap_or(digits);
        // The first octet is that of a SEQUENCE.
        matches!(digits.as_bytes(), [_, b'A'..=b'P', ..])
            && encoding::decode_base64(digits).is_some_and(|bytes| is_such(&bytes))
    };
    let dense: String =
        text.chars().filter(|c| !c.is_whitespace() && !matches!(c, '"' | '\'' | '\\')).collect();
    [text, &dense].iter().any(|text| text.match_indices('M').any(|(place, _)| begins(text, place)))
}

/// Whether a text has the armour of a key or a certificate, possibly broken, or the beginning of one in
/// base64.
fn is_pem(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    let is_armour = |(place, _)| {
        let before = upper[..place].trim_end_matches([' ', '\t']);
        let after =
            upper[place + 5..].trim_start_matches([' ', '\t', '%', '2', '0', '+', '_', '\\']);
        let is_label = |label: &&str| after.starts_with(*label);
        before.ends_with("--")
            || upper.contains("--")
                && ["PUBLIC KEY", "RSA PUBLIC", "CERTIFICATE", "SSH2 ", "PGP "].iter().any(is_label)
    };
    text.contains("LS0tLS") || upper.match_indices("BEGIN").any(is_armour)
}

/// Whether a text has the armour of a private key.
pub(crate) fn has_private_block(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    upper.match_indices("BEGIN ").any(|(place, _)| {
        let label = upper[place..].split("--").next().unwrap_or_default();
        label.len() < 64 && label.contains("PRIVATE KEY")
    })
}

fn find_json(text: &str) -> Option<Found> {
    match Json::parse_leniently(text.as_bytes()) {
        Ok(Json::Object(object)) => Some(kind_of_object(&object)),
        Ok(Json::Array(items)) => {
            let is_key = |item: &Json<'_>| {
                item.as_object().is_some_and(|object| object.get("kty").is_some())
            };
            let is_list = items.first().is_some_and(is_key);
            Some(if is_list { Found::KeyList } else { Found::Json })
        }
        _ => broken_json(text),
    }
}

/// Recognizes a JWK or a JWK set with errors in its JSON.
fn broken_json(text: &str) -> Option<Found> {
    const QUOTES: [char; 3] = ['"', '\'', '\\'];
    let lower = text.to_ascii_lowercase();
    let has = |name: &str| {
        lower.match_indices(name).any(|(place, _)| {
            let (before, after) = (&lower[..place], &lower[place + name.len()..]);
            let is_quoted = before.ends_with(QUOTES) || after.starts_with(QUOTES);
            let value = after.trim_start_matches(QUOTES).trim_start();
            is_quoted && value.starts_with([':', '='])
        })
    };
    if has("keys") {
        Some(Found::JwkSet)
    } else if has("kty") || has_key_type(text) || has("crv") || has("n") && has("e") {
        Some(Found::Jwk)
    } else {
        None
    }
}

/// Whether the text has a member kty, possibly without quotes, with a value that JWKs have.
fn has_key_type(text: &str) -> bool {
    const MARKS: [char; 8] = ['"', '\'', '\\', ':', '=', '>', ' ', '\t'];
    text.to_ascii_lowercase().match_indices("kty").any(|(place, name)| {
        let value = text[place + name.len()..].trim_start_matches(MARKS);
        ["RSA", "EC", "OKP", "oct"].iter().any(|kind| value.starts_with(kind))
    })
}

/// The kind of a JSON object.
pub(crate) fn kind_of_object(object: &Object<'_>) -> Found {
    let has = |name: &str| object.get(name).is_some();
    let is_certificate = |value: &Json<'_>| {
        value.as_str().is_some_and(|text| text.contains("-----BEGIN CERTIFICATE"))
    };
    match object {
        _ if has("keys") => Found::JwkSet,
        _ if has("kty") => Found::Jwk,
        _ if has("jwks_uri") => Found::Discovery,
        _ if has("realm") && has("public_key") => Found::Realm,
        _ if object.iter().any(|(_, value)| is_certificate(value)) => Found::CertificateMap,
        _ => Found::Json,
    }
}

pub(crate) fn is_markup(text: &str) -> bool {
    text.starts_with('<') && text.ends_with('>') && (text.contains("</") || text.contains("/>"))
}

/// Whether a text contains a publishable API key, which providers give to browsers.
fn has_publishable(text: &str) -> bool {
    encoding::words(text).any(is_publishable)
}

fn is_publishable(word: &str) -> bool {
    const STARTS: [&str; 14] = [
        "sb_publishable_",
        "pk_live_",
        "pk_test_",
        "pk.eyj",
        "phc_",
        "public-token-live-",
        "public-token-test-",
        "flwpubk",
        "v2.public.",
        "v4.public.",
        "k1.public.",
        "k2.public.",
        "k3.public.",
        "k4.public.",
    ];
    // All of Google's keys for browsers have this length.
    let is_google = word.starts_with("AIza") && word.len() == 39;
    let lower = word.to_ascii_lowercase();
    is_google || word.len() > 20 && STARTS.iter().any(|start| lower.starts_with(start))
}

/// Whether a text is a line of `authorized_keys`, or its key.
fn is_ssh_line(text: &str) -> bool {
    const NAMES: [&str; 6] =
        ["ssh-rsa", "ssh-dss", "ssh-ed25519", "ecdsa-sha2-nistp", "sk-ssh-", "sk-ecdsa-"];
    const STARTS: [&str; 3] = ["AAAAB3NzaC1", "AAAAC3NzaC1", "AAAAE2VjZHNhLX"];
    let mut words = encoding::words(text);
    let is_named = words.next().is_some_and(|word| NAMES.iter().any(|name| word.starts_with(name)));
    is_named && words.next().is_some() || STARTS.iter().any(|start| text.contains(start))
}

/// Whether a text contains a public key with a distinctive prefix: age, Nostr, signify, Curve25519 of
/// NaCl.
fn has_other_key(text: &str) -> bool {
    const BECH32: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    const LENGTH: usize = 58;
    let is_bech32 = |word: &str| {
        let lower = word.to_ascii_lowercase();
        ["age1", "npub1"].iter().any(|start| {
            let data = lower.strip_prefix(start);
            data.is_some_and(|data| {
                data.len() == LENGTH && data.chars().all(|c| BECH32.contains(c))
            })
        })
    };
    let lower = text.to_ascii_lowercase();
    let comment = lower.strip_prefix("untrusted comment:");
    encoding::words(text).any(is_bech32) || comment.is_some_and(|rest| !rest.contains("secret key"))
}

/// Whether a text is a key or a certificate as `openssl` prints it with `-text` or `-modulus`, or a
/// modulus in XML, possibly cut off.
fn is_printed_key(text: &str) -> bool {
    const MARKS: [&str; 5] = [
        "public-key: (",
        "public key: (",
        "public key algorithm:",
        "signature algorithm:",
        "asn1 oid:",
    ];
    /// The minimum number of digits of a modulus.
    const MIN_DIGITS: usize = 24;
    let lower = text.to_ascii_lowercase();
    let is_modulus = |(place, name): (usize, &str)| {
        let value =
            lower[place + name.len()..].trim_start_matches(|c: char| "=:>\"' \t\r\n".contains(c));
        let is_given = value.len() < lower.len() - place - name.len();
        let digits = value.chars().filter(|c| !c.is_whitespace() && *c != ':');
        is_given && digits.take_while(|c| c.is_ascii_hexdigit()).count() >= MIN_DIGITS
    };
    MARKS.iter().any(|mark| lower.contains(mark))
        || has_exponent(text)
        || lower.match_indices("modulus").any(is_modulus)
        || lower.contains("<modulus>")
}

/// Whether a text has the numbers of an RSA key, in any notation: an exponent that most keys have, and another word
/// that is as long as a modulus.
fn has_exponent(text: &str) -> bool {
    const EXPONENTS: [&str; 4] = ["AQAB", "65537", "0x10001", "010001"];
    /// Of 1024 bits in base64.
    const SHORTEST: usize = 170;
    let is_digit = |c: char| c.is_ascii_alphanumeric() || "+/-_".contains(c);
    let words = || text.split(|c| !is_digit(c));
    words().any(|word| EXPONENTS.contains(&word)) && words().any(|word| word.len() >= SHORTEST)
}

/// Whether a text stands in the place of a secret: a variable, a command or a template that was not replaced, the
/// name of a file, or a mask.
fn is_stand_in(text: &str) -> bool {
    let text = encoding::trimmed(text);
    const AROUND: [(&str, &str); 5] =
        [("${", "}"), ("$(", ")"), ("{{", "}}"), ("<", ">"), ("%", "%")];
    const VARIABLES: [&str; 6] =
        ["$", "YOUR_", "process.env.", "import.meta.env.", "os.environ", "ENV["];
    const FOLDERS: [&str; 5] = ["/", "./", "../", "~/", "@/"];
    const MASK: [&str; 3] =
        ["********", "\u{2022}\u{2022}\u{2022}\u{2022}", "\u{25cf}\u{25cf}\u{25cf}\u{25cf}"];
    let is_plain = |text: &str, others: &str| {
        text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
    };
    let inside = |(open, close): &(&str, &str)| text.strip_prefix(open)?.strip_suffix(close);
    let is_variable = |start: &&str| {
        text.strip_prefix(*start)
            .is_some_and(|name| name.contains('_') && is_plain(name, "_.[]()\"'"))
    };
    // Names of files are in one case, and digits of base64 in both.
    let is_file = |start: &&str| {
        let names = text.strip_prefix(*start).filter(|_| !address::is_mixed_case(text));
        names.is_some_and(|names| {
            names.contains('/')
                && names.split('/').all(|name| !name.is_empty() && is_plain(name, "._- "))
        })
    };
    let is_on_drive = || {
        matches!(text.as_bytes(), [drive, b':', b'\\' | b'/', ..] if drive.is_ascii_alphabetic())
            && is_plain(&text[2..], "\\/._- ()")
            && text.matches(['\\', '/']).count() > 1
    };
    AROUND.iter().filter_map(inside).any(|inner| is_plain(inner, " _-.:/|'\"#\\"))
        || VARIABLES.iter().any(is_variable)
        || FOLDERS.iter().any(is_file)
        || is_on_drive()
        || MASK.iter().any(|mask| text.contains(mask))
}

/// Why an HMAC key that is long enough may be guessed offline, given one token. None where it may be random.
pub(crate) fn weakness(bytes: &[u8]) -> Option<&'static str> {
    /// The digits of a random key in hexadecimal have more.
    const FEWEST_DIFFERENT: usize = 8;
    let mut different = bytes.to_vec();
    different.sort_unstable();
    different.dedup();
    let repeats = |period: usize| bytes.iter().zip(&bytes[period..]).all(|(a, b)| a == b);
    if different.len() < FEWEST_DIFFERENT || (1..=bytes.len() / 2).any(repeats) {
        return Some("It repeats the same characters.");
    }
    let is_word = |word: &str| {
        let all = |is: fn(&char) -> bool| word.chars().all(|c| is(&c));
        all(char::is_ascii_digit) || all(char::is_ascii_lowercase) || all(char::is_ascii_uppercase)
    };
    let is_words =
        std::str::from_utf8(bytes).is_ok_and(|text| text.split([' ', '-', '_', '.']).all(is_word));
    is_words.then_some("It consists of words.")
}

/// Whether a text is the fingerprint of a key or a certificate: it names the hash, or it has the length
/// and the colons of MD5 or SHA-1. Longer texts with colons may be random.
fn is_fingerprint(text: &str) -> bool {
    const NAMES: [(&str, usize); 11] = [
        ("md5", 32),
        ("sha1", 27),
        ("sha256", 43),
        ("sha384", 64),
        ("sha512", 86),
        ("x5t#s256", 43),
        ("publickey", 43),
        ("public_key", 43),
        ("public key", 43),
        ("pubkey", 43),
        ("ed25519", 43),
    ];
    let lower = text.to_ascii_lowercase().replace("sha-", "sha");
    let is_named = NAMES.iter().any(|(name, length)| {
        lower.match_indices(name).any(|(place, _)| {
            let rest = &lower[place + name.len()..];
            let rest = rest.trim_start().trim_start_matches("fingerprint").trim_start();
            let is_digit = |c: &char| c.is_ascii_alphanumeric() || "+/-_".contains(*c);
            let digits = rest.get(1..).unwrap_or_default().chars().filter(|c| *c != ':');
            let digits: String =
                digits.skip_while(|c| *c == ' ').take_while(is_digit).take(*length).collect();
            // Between the words of a passphrase are hyphens, too.
            let is_random = !digits.contains('-') || address::is_mixed_case(text);
            rest.starts_with([':', '=', '-']) && digits.len() >= *length && is_random
        })
    });
    let is_pair = |part: &str| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit());
    let has_colons = matches!(text.split(':').count(), 16 | 20) && text.split(':').all(is_pair);
    is_named || has_colons
}
