//! Tells a secret from what everybody can read. A public text as an HMAC key would let everybody sign,
//! so a text is judged by what it holds, however it is wrapped.

use std::borrow::Cow;

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::der;
use crate::json::{Json, Object};

/// What was found in place of a secret, or of a key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Pem,
    PrivatePem,
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
}

impl Found {
    /// What it is, with its article.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Found::Pem => "a key or a certificate in PEM",
            Found::PrivatePem => "a private key in PEM",
            Found::Der => {
                "the base64 or the bytes of a key or a certificate in DER, without PEM's armour"
            }
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
            Found::Publishable => "a publishable API key, which everybody can read",
        }
    }

    /// Where it belongs; a whole sentence.
    pub(crate) fn place(self) -> &'static str {
        match self {
            Found::Pem => "Give a public key in PEM as \"public_key\".",
            Found::PrivatePem => {
                "Replace the key pair if this text has been seen by others, and give the public key \
                 as \"public_key\"."
            }
            Found::Der => {
                "Give it as \"public_key\", between the lines -----BEGIN PUBLIC KEY----- and \
                 -----END PUBLIC KEY-----."
            }
            Found::Ssh => {
                "Convert it to PEM, as with ssh-keygen -e -m PKCS8, and give that as \"public_key\"."
            }
            Found::Point => "Give it as a JWK of kty \"EC\" in \"jwks\".",
            Found::Jwk | Found::JwkSet => "Give it as \"jwks\", as a JSON object.",
            Found::KeyList => "Give them as \"jwks\", within an object: {\"keys\": [...]}.",
            Found::Discovery => {
                "Give its issuer as \"issuer\" to auth.add_provider(), without \"jwks_url\", so that \
                 discovery is used, or its \"jwks_uri\" as \"jwks_url\"."
            }
            Found::CertificateMap => {
                "Give the URL of the same keys as a JWK set as \"jwks_url\"; for Firebase that is \
                 https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com."
            }
            Found::Realm => {
                "Give its issuer as \"issuer\" to auth.add_provider(), without \"jwks_url\", so that \
                 discovery is used."
            }
            Found::Json => "Give a JWK or a JWK set as \"jwks\".",
            Found::Markup => {
                "Give a JWK set as \"jwks\", its URL as \"jwks_url\", or a key in PEM as \
                 \"public_key\"."
            }
            Found::Url => {
                "Give the URL of a JWK set as \"jwks_url\" to auth.add_provider(), and that of an \
                 identity provider as \"issuer\"."
            }
            Found::Token => {
                "A token is what the key signs. Give the key: as \"secret\", \"jwks\" or \
                 \"public_key\"."
            }
            Found::Publishable => {
                "Give the secret by which tokens are signed, or the keys as \"jwks\"."
            }
        }
    }
}

/// How many wrappings are undone.
const MAX_DEPTH: usize = 4;

/// Shorter words are not decoded: fewer bytes are no key, and a passphrase may have such a word.
const SHORTEST_ENCODED: usize = 22;

/// What the bytes hold that everybody can read, if anything.
pub(crate) fn find(bytes: &[u8]) -> Option<Found> {
    // No secret is longer: what is, is looked at once.
    const LONGEST: usize = 64 * 1024;
    find_within(bytes, if bytes.len() > LONGEST { 1 } else { MAX_DEPTH })
}

fn find_within(bytes: &[u8], depth: usize) -> Option<Found> {
    if let Some(found) = find_binary(bytes) {
        return Some(found);
    }
    // UTF-16 has a zero for each second byte of ASCII.
    let zeros = bytes.iter().filter(|byte| **byte == 0).count();
    if depth > 0 && bytes.len() > SHORTEST_ENCODED && zeros >= bytes.len() / 2 - 1 {
        let others: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).collect();
        return find_within(&others, depth - 1);
    }
    let text = String::from_utf8_lossy(bytes);
    find_text(&text, depth)
}

fn find_binary(bytes: &[u8]) -> Option<Found> {
    const LEAST: usize = 16;
    match bytes {
        _ if bytes.len() < LEAST => None,
        _ if der::is_structure(bytes) || der::begins_as_key(bytes) => Some(Found::Der),
        _ if is_ssh(bytes) => Some(Found::Ssh),
        _ if is_point(bytes) => Some(Found::Point),
        _ => None,
    }
}

/// Whether the bytes begin with the name of a type of key and its length (RFC 4253 section 6.6).
fn is_ssh(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_at_checked(4) else {
        return false;
    };
    let is_short = length[..3] == [0; 3] && usize::from(length[3]) <= rest.len();
    is_short && ["ssh-", "ecdsa-", "sk-"].iter().any(|start| rest.starts_with(start.as_bytes()))
}

/// Whether the bytes are an uncompressed point (SEC 1 section 2.3.3) or its two coordinates.
fn is_point(bytes: &[u8]) -> bool {
    let (point, coordinates) = match bytes {
        [4, coordinates @ ..] if bytes.len() % 2 == 1 => (Cow::Borrowed(bytes), coordinates),
        _ => (Cow::Owned([&[4], bytes].concat()), bytes),
    };
    let curves: &[&'static dyn VerificationAlgorithm] = match coordinates.len() {
        64 => &[&signature::ECDSA_P256_SHA256_FIXED, &signature::ECDSA_P256K1_SHA256_FIXED],
        96 => &[&signature::ECDSA_P384_SHA384_FIXED],
        132 => &[&signature::ECDSA_P521_SHA512_FIXED],
        _ => return false,
    };
    curves.iter().any(|curve| ParsedPublicKey::new(*curve, &point).is_ok())
}

fn find_text(text: &str, depth: usize) -> Option<Found> {
    let text = trimmed(text);
    // Quotes as HTML and JSON may write them.
    let unescaped = ["&quot;", "&#34;", "\\u0022"]
        .iter()
        .any(|quote| text.contains(quote))
        .then(|| text.replace("&quot;", "\"").replace("&#34;", "\"").replace("\\u0022", "\""));
    let text = unescaped.as_deref().unwrap_or(text);
    if let Some(found) = find_pem(text)
        .or_else(|| find_json(text, depth))
        .or_else(|| is_markup(text).then_some(Found::Markup))
        .or_else(|| is_url(text).then_some(Found::Url))
    {
        return Some(found);
    }
    if words(text).any(is_token) {
        return Some(Found::Token);
    }
    if words(text).any(is_publishable) {
        return Some(Found::Publishable);
    }
    if words(text).next().is_some_and(is_ssh_name) && words(text).nth(1).is_some() {
        return Some(Found::Ssh);
    }
    let deeper = depth.checked_sub(1)?;
    if text.contains('%')
        && let Some(decoded) = percent_decoded(text)
        && let Some(found) = find_within(&decoded, deeper)
    {
        return Some(found);
    }
    // As it stands in the source of a program, and broken into lines.
    let mut whole = text.replace("\\n", "").replace("\\r", "").replace("\\/", "/");
    whole.retain(|character| !character.is_whitespace() && !matches!(character, '"' | '\'' | '\\'));
    if let Some(found) = find_start(text).or_else(|| find_start(&whole)) {
        return Some(found);
    }
    let data = whole.split_once(";base64,").map_or(whole.as_str(), |(_, data)| data);
    let with_colons = whole.contains(':').then(|| whole.replace(':', ""));
    find_encoded(data, deeper)
        .or_else(|| with_colons.and_then(|whole| find_encoded(&whole, deeper)))
        .or_else(|| words(text).find_map(|word| find_encoded(word, deeper)))
}

/// What begins anywhere in a text, whatever stands before and after it: a token, or a key or certificate in
/// base64. The beginnings are long enough that no random text has them.
fn find_start(text: &str) -> Option<Found> {
    /// As many characters as tell what bytes begin as.
    const ENOUGH: usize = 64;
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte);
    let run = |place: usize| {
        let rest = &text.as_bytes()[place..];
        &text[place..place + rest.iter().take_while(|byte| is_digit(**byte)).count()]
    };
    let begins_token = |(place, _): (usize, &str)| {
        let header = run(place);
        let after = &text.as_bytes()[place + header.len()..];
        after.first() == Some(&b'.')
            && after.get(1).is_some_and(|byte| is_digit(*byte))
            && decode_base64(header)
                .is_some_and(|header| matches!(Json::parse_leniently(&header), Ok(Json::Object(_))))
    };
    if text.match_indices("eyJ").any(begins_token) {
        return Some(Found::Token);
    }
    if text.contains("LS0tLS") {
        return Some(Found::Pem);
    }
    if ["AAAAB3NzaC1", "AAAAC3NzaC1", "AAAAE2VjZHNhLX"].iter().any(|start| text.contains(start)) {
        return Some(Found::Ssh);
    }
    // The first octet of a SEQUENCE.
    let begins_key = |(place, _): (usize, char)| {
        let digits = run(place);
        let digits = digits.get(..ENOUGH).unwrap_or(digits);
        matches!(digits.as_bytes(), [_, b'A'..=b'P', ..])
            && decode_base64(digits).is_some_and(|bytes| der::begins_unmistakably(&bytes))
    };
    text.match_indices('M').map(|(place, _)| (place, 'M')).any(begins_key).then_some(Found::Der)
}

/// Without what is put around a text: a byte order mark, white space, quotes.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|character: char| {
        character.is_whitespace()
            || character.is_control()
            || matches!(
                character,
                '\u{feff}' | '"' | '\'' | '`' | '\u{2018}' | '\u{2019}' | '\u{201c}' | '\u{201d}'
            )
    })
}

/// The words of a text: what stands between spaces, quotes, brackets and other marks.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let ends_word = |character: char| {
        character.is_whitespace()
            || matches!(
                character,
                '"' | '\''
                    | '`'
                    | ','
                    | ';'
                    | ':'
                    | '='
                    | '|'
                    | '('
                    | ')'
                    | '['
                    | ']'
                    | '{'
                    | '}'
                    | '<'
                    | '>'
                    | '\\'
                    | '\u{feff}'
            )
    };
    text.split(ends_word).filter(|word| !word.is_empty())
}

fn find_pem(text: &str) -> Option<Found> {
    if has_private_block(text) {
        return Some(Found::PrivatePem);
    }
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
    upper.match_indices("BEGIN").any(is_armour).then_some(Found::Pem)
}

/// Whether a text has the armour of a private key.
pub(crate) fn has_private_block(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    upper.match_indices("BEGIN ").any(|(place, _)| {
        let label = upper[place..].split("--").next().unwrap_or_default();
        label.len() < 64 && label.contains("PRIVATE KEY")
    })
}

fn find_json(text: &str, depth: usize) -> Option<Found> {
    let inner = match Json::parse_leniently(text.as_bytes()) {
        Ok(Json::String(inner)) => inner.into_owned(),
        Ok(Json::Object(object)) => return Some(kind_of_object(&object)),
        Ok(Json::Array(items)) => {
            let is_key = |item: &Json<'_>| {
                item.as_object().is_some_and(|object| object.get("kty").is_some())
            };
            let is_list = items.first().is_some_and(is_key);
            return Some(if is_list { Found::KeyList } else { Found::Json });
        }
        // What stands in quotes may have lost them.
        Err(_) if text.contains("\\\"") => text.replace("\\\"", "\""),
        _ => return broken_json(text),
    };
    match depth.checked_sub(1).and_then(|depth| find_text(&inner, depth)) {
        None => broken_json(text),
        found => found,
    }
}

/// A JWK or a JWK set that is not quite JSON.
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

/// Whether a member kty without quotes has the value that it has in JWKs.
fn has_key_type(text: &str) -> bool {
    const MARKS: [char; 8] = ['"', '\'', '\\', ':', '=', '>', ' ', '\t'];
    text.to_ascii_lowercase().match_indices("kty").any(|(place, name)| {
        let value = text[place + name.len()..].trim_start_matches(MARKS);
        ["RSA", "EC", "OKP", "oct"].iter().any(|kind| value.starts_with(kind))
    })
}

/// What a JSON object is.
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

fn is_url(text: &str) -> bool {
    let lower = text.to_ascii_lowercase().replace("\\/", "/");
    /// What only addresses of identity providers and of their keys have in them.
    const MARKS: [&str; 8] = [
        "http:/",
        "https:/",
        "/.well-known/",
        "openid-connect/",
        "/jwks",
        "/realms/",
        "/oauth2/",
        "/protocol/",
    ];
    if MARKS.iter().any(|mark| lower.contains(mark)) {
        return true;
    }
    // A host is written in one case; random letters are of both.
    let host = text.split(['/', '?', '#']).find(|part| !part.is_empty()).unwrap_or_default();
    let is_mixed = host.contains(char::is_uppercase) && host.contains(char::is_lowercase);
    let is_scheme = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    };
    if lower.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme)) {
        return true;
    }
    match lower.split_once(':') {
        Some(("data", rest)) => {
            let (kind, _) = rest.split_once(',').unwrap_or_default();
            return rest.starts_with(',') || kind.contains('/') && !kind.contains(' ');
        }
        Some(("urn" | "did", rest)) if !lower.contains(' ') && rest.contains(':') => return true,
        _ => {}
    }
    !is_mixed && is_url_without_scheme(&lower)
}

/// A host name with a path or a port; alone, where it ends as most do.
fn is_url_without_scheme(lower: &str) -> bool {
    const USUAL: [&str; 16] = [
        "com", "net", "org", "edu", "gov", "io", "co", "dev", "app", "ai", "uk", "de", "fr", "nl",
        "eu", "jp",
    ];
    let lower = lower.strip_prefix("//").unwrap_or(lower);
    // RFC 3986 section 2.
    let is_of_url = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(c);
    if !lower.chars().all(is_of_url) {
        return false;
    }
    let (authority, rest) = match lower.find(['/', '?', '#']) {
        Some(place) => lower.split_at(place),
        None => (lower, ""),
    };
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let is_label = |label: &str| {
        let is_of_label = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(is_of_label)
    };
    let is_number = |text: &str| text.parse::<u16>().is_ok();
    let host = host.strip_suffix('.').unwrap_or(host);
    if !host.split('.').all(is_label) || !(port.is_empty() || is_number(port)) {
        return false;
    }
    let Some((_, last)) = host.rsplit_once('.') else {
        return !port.is_empty() && !rest.is_empty();
    };
    let is_address = host.split('.').all(is_number);
    let is_name =
        last.len() > 1 && last.chars().all(|c| c.is_ascii_alphabetic()) || last.starts_with("xn--");
    match (rest, port) {
        ("", "") => USUAL.contains(&last),
        _ => is_address || is_name && (USUAL.contains(&last) || host.matches('.').count() > 1),
    }
}

/// A compact JWS or JWE, whole or cut off (RFC 7515 section 7.1, RFC 7516 section 7.1).
fn is_token(word: &str) -> bool {
    let Some((header, rest)) = word.split_once('.') else {
        return false;
    };
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    header.len() > 8
        && rest.chars().all(is_of_token)
        && decode_base64(header)
            .is_some_and(|header| matches!(Json::parse_leniently(&header), Ok(Json::Object(_))))
}

/// What providers give to browsers in place of a token or with it.
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
    // Google's keys for browsers all have this length.
    let is_google = word.starts_with("AIza") && word.len() == 39;
    let lower = word.to_ascii_lowercase();
    is_google || word.len() > 20 && STARTS.iter().any(|start| lower.starts_with(start))
}

fn is_ssh_name(word: &str) -> bool {
    ["ssh-rsa", "ssh-dss", "ssh-ed25519", "ecdsa-sha2-nistp", "sk-ssh-", "sk-ecdsa-"]
        .iter()
        .any(|name| word.starts_with(name))
}

/// What is found in a word once it is decoded.
fn find_encoded(word: &str, depth: usize) -> Option<Found> {
    if word.len() < SHORTEST_ENCODED {
        return None;
    }
    let hex = decode_hex(word).and_then(|bytes| find_within(&bytes, depth));
    hex.or_else(|| find_within(&decode_base64(word)?, depth))
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("\\x"))
        .or_else(|| text.strip_prefix('x'))
        .unwrap_or(text);
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8))
        .collect()
}

/// Base64 in either alphabet, padded or not, whole or cut off.
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::RequireNone),
    );
    let text = text.trim_end_matches('=');
    let whole =
        if text.len() % 4 == 1 { &text.as_bytes()[..text.len() - 1] } else { text.as_bytes() };
    let digits: Vec<u8> = whole
        .iter()
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        })
        .collect();
    ENGINE.decode(digits).ok()
}

pub(crate) fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    out.extend_from_slice(parts.next()?.as_bytes());
    let mut found = false;
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                found = true;
                out.push(byte);
                out.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => {
                out.push(b'%');
                out.extend_from_slice(part.as_bytes());
            }
        }
    }
    found.then_some(out)
}

/// How bytes may be written as a text.
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

/// In what encoding a secret may be, where it looks as if it were encoded.
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
