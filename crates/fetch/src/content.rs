//! The content of a response body: decompression, character encoding, and documents in place of JSON.

use std::fmt;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use session_jwt::quoted;
use ureq::http::{HeaderMap, header};

use crate::MAX_BODY_BYTES;

/// The first octets of gzip (RFC 1952 section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The text of a body. Gzip is accepted although the client does not request it, since some servers and
/// caches always send it. The error is a clause.
pub(crate) fn text(headers: &HeaderMap, body: Vec<u8>) -> Result<String, String> {
    let body = decompressed(headers, body)?;
    let is_wide = match body.as_slice() {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        // JSON begins with two ASCII characters.
        [first, second, ..] => (*first == 0) != (*second == 0) || (*first == 0 && *second == 0),
        _ => false,
    };
    if is_wide {
        return Err("the answer is UTF-16 or UTF-32, where JSON is UTF-8 (RFC 8259)".to_owned());
    }
    String::from_utf8(body).map_err(|_| "the answer is not UTF-8".to_owned())
}

fn decompressed(headers: &HeaderMap, body: Vec<u8>) -> Result<Vec<u8>, String> {
    let values = headers.get_all(header::CONTENT_ENCODING).into_iter();
    let codings = values.flat_map(|value| value.to_str().unwrap_or("unknown").split(','));
    let codings: Vec<&str> = codings
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"))
        .collect();
    let is_gzip =
        |coding: &str| coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip");
    if let Some(other) = codings.iter().find(|coding| !is_gzip(coding)) {
        return Err(format!(
            "the answer is compressed as {}, which was not asked for and is not supported",
            quoted(other)
        ));
    }
    if codings.len() > 1 {
        return Err("the answer is compressed more than once".to_owned());
    }
    // The octets decide. The header is missing for files that are stored compressed, and it remains
    // after a proxy has decompressed the body.
    if !body.starts_with(&GZIP) {
        return Ok(body);
    }
    let mut plain = Vec::new();
    // One byte more than the limit detects a body that is too large, without decompressing the rest.
    MultiGzDecoder::new(body.as_slice())
        .take(MAX_BODY_BYTES as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|_| "the answer is not proper gzip".to_owned())?;
    if plain.len() > MAX_BODY_BYTES {
        return Err(format!(
            "the answer is larger than {} KiB once it is decompressed",
            MAX_BODY_BYTES / 1024
        ));
    }
    Ok(plain)
}

/// The kind of a text that is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Empty,
    Html,
    Xml,
    Pem,
    Jwt,
}

/// The kind of a text, if it is a known kind other than JSON. The content type is used only if the text
/// is not an object, since many servers send JSON with another content type.
pub(crate) fn kind(headers: &HeaderMap, text: &str) -> Option<Kind> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_start();
    let start = text.get(..text.floor_char_boundary(1024))?.to_ascii_lowercase();
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let names_html = content_type.is_some_and(|name| {
        let name = name.trim_start().to_ascii_lowercase();
        name.starts_with("text/html") || name.starts_with("application/xhtml")
    });
    match start.as_str() {
        "" => Some(Kind::Empty),
        _ if start.starts_with('<') => {
            let is_html = names_html
                || ["<html", "<!doctype html", "<head", "<body", "<script"]
                    .iter()
                    .any(|tag| start.contains(tag));
            Some(if is_html { Kind::Html } else { Kind::Xml })
        }
        _ if start.starts_with('{') || start.starts_with('[') => None,
        _ if start.contains("-----begin ") => Some(Kind::Pem),
        _ if text.starts_with("eyJ") && text.split('.').count() == 3 => Some(Kind::Jwt),
        _ if names_html => Some(Kind::Html),
        _ => None,
    }
}

impl Kind {
    /// The correction if a JWK set is expected, as a clause.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Kind::Empty | Kind::Xml => "name the URL of the JWK set",
            Kind::Html => "name the URL of the JWK set, which is read without a login",
            Kind::Pem => "name the URL of a JWK set, or give the key itself as public_key",
            Kind::Jwt => "name the URL of the plain JWK set, which is not signed",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Empty => "empty",
            Kind::Html => "a page of HTML",
            Kind::Xml => "XML",
            Kind::Pem => "a key or a certificate in PEM",
            Kind::Jwt => "a signed JWT",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::HeaderValue;

    fn of_type(name: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(name));
        headers
    }

    #[test]
    fn kinds_are_told_apart() {
        for (text, expected) in [
            ("", Some(Kind::Empty)),
            (" \r\n", Some(Kind::Empty)),
            ("<!DOCTYPE html><html>", Some(Kind::Html)),
            ("\u{feff} <HTML lang=en>", Some(Kind::Html)),
            ("<?xml version='1.0'?><!DOCTYPE html PUBLIC", Some(Kind::Html)),
            ("<?xml version='1.0'?><EntityDescriptor>", Some(Kind::Xml)),
            ("<Error><Code>AccessDenied</Code></Error>", Some(Kind::Xml)),
            ("-----BEGIN PUBLIC KEY-----", Some(Kind::Pem)),
            ("# the key\n-----BEGIN CERTIFICATE-----", Some(Kind::Pem)),
            ("eyJhbGciOiJSUzI1NiJ9.eyJrZXlzIjpbXX0.AAAA", Some(Kind::Jwt)),
            ("{\"keys\": []}", None),
            ("{\"a\": \"-----BEGIN CERTIFICATE-----\"}", None),
            ("[]", None),
            ("not found", None),
        ] {
            assert_eq!(kind(&of_type("application/json"), text), expected, "{text}");
        }
        let html = of_type("Text/HTML; charset=utf-8");
        assert_eq!(kind(&html, "Please log in."), Some(Kind::Html));
        assert_eq!(kind(&html, "<div>"), Some(Kind::Html));
        assert_eq!(kind(&html, "{\"keys\": []}"), None);
        assert_eq!(kind(&HeaderMap::new(), &"\u{20ac}".repeat(1000)), None);
    }

    #[test]
    fn texts_are_utf_8() {
        let plain = HeaderMap::new();
        let wide = |text: &str, bom: &[u16], order: fn(u16) -> [u8; 2]| -> Vec<u8> {
            bom.iter().copied().chain(text.encode_utf16()).flat_map(order).collect()
        };
        for bom in [&[0xfeff][..], &[]] {
            for order in [u16::to_le_bytes, u16::to_be_bytes] {
                let error = text(&plain, wide("{}", bom, order)).unwrap_err();
                assert!(error.contains("UTF-16"), "{error}");
            }
        }
        assert!(text(&plain, b"\0\0\0{".to_vec()).unwrap_err().contains("UTF-32"));
        assert_eq!(text(&plain, b"{\xff}".to_vec()).unwrap_err(), "the answer is not UTF-8");
        for good in ["", "7", "{}", "\u{feff}{}"] {
            assert_eq!(text(&plain, good.into()).as_deref(), Ok(good));
        }
    }
}
