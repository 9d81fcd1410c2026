//! A public key in PEM (RFC 7468): SubjectPublicKeyInfo, PKCS #1, or a certificate, of which only the
//! key is used.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::der::{self, Elements};
use crate::encoding;
use crate::rejection::quoted;
use crate::secret::{self, Found};

/// Accepts base64 with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The numbers of a public key.
#[derive(Debug)]
pub(crate) enum PublicKey {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The name of the curve in JOSE, and the two coordinates.
    Ec {
        crv: &'static str,
        x: Vec<u8>,
        y: Vec<u8>,
    },
    Ed25519(Vec<u8>),
}

/// The error in a text that should be a public key, and the correction. Both are whole sentences.
#[derive(Debug)]
pub(crate) struct KeyError {
    pub(crate) detail: String,
    pub(crate) hint: &'static str,
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

const EXPECTED_HINT: &str = "Give one block in PEM: PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE, with a key \
                        of RSA, P-256, P-384 or Ed25519.";

const REPLACE_HINT: &str =
    "If others have seen this text, replace the key pair. Give the public key.";

impl PublicKey {
    /// Reads the one block of a text. Text around the block, a byte order mark, and line ends of any
    /// kind (also `\n` as two characters) are allowed. The DER decides the kind of key, so the label
    /// does not matter, and the armour may be missing.
    pub(crate) fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.replace("\\r", "").replace("\\n", "\n").replace('\r', "\n");
        let armoured = text.contains(BEGIN);
        let (label, body) = match armoured {
            true => only_block(&text)?,
            false => ("", encoding::trimmed(&text)),
        };
        let digits: String = body
            .chars()
            .filter(|c| !c.is_ascii_whitespace())
            .map(|c| match c {
                '-' => '+',
                '_' => '/',
                other => other,
            })
            .collect();
        let unreadable = |what: &str| KeyError {
            detail: format!("Its block {label} is not {what}."),
            hint: EXPECTED_HINT,
        };
        let Ok(der) = BASE64.decode(digits) else {
            return Err(if armoured { unreadable("base64") } else { not_pem(&text) });
        };
        if der::begins_as_private(&der) {
            return Err(private());
        }
        // OpenSSL appends to a certificate the purposes that it is trusted for.
        let der = match Elements::of(&der).take_whole() {
            Some(certificate) if label.starts_with("TRUSTED") => certificate,
            _ => &der,
        };
        // The three formats exclude each other.
        let key = from_info(der).or_else(|| from_pkcs1(der)).or_else(|| from_certificate(der));
        key.unwrap_or_else(|| {
            Err(match armoured {
                true => unreadable("a public key or a certificate in DER"),
                false => not_pem(&text),
            })
        })
    }
}

/// The error in a text without a block.
fn not_pem(text: &str) -> KeyError {
    let (what, hint) = match secret::find(text.as_bytes()) {
        Some(Found::Private) => return private(),
        Some(Found::Der) => {
            ("base64 of another structure than a public key or a certificate", EXPECTED_HINT)
        }
        Some(found) if found != Found::Unclear => (found.description(), found.place()),
        _ => ("a text without a block in PEM", EXPECTED_HINT),
    };
    KeyError { detail: format!("It is {what}."), hint }
}

fn private() -> KeyError {
    KeyError { detail: "It has a private key.".to_owned(), hint: REPLACE_HINT }
}

/// The label and the body of the one block.
fn only_block(text: &str) -> Result<(&str, &str), KeyError> {
    let broken = || KeyError {
        detail: "Its block does not begin and end with lines of one label.".to_owned(),
        hint: EXPECTED_HINT,
    };
    let (_, block) = text.split_once(BEGIN).ok_or_else(broken)?;
    if secret::has_private_block(text) {
        return Err(private());
    }
    if block.contains(BEGIN) {
        return Err(KeyError {
            detail: "It has more than one block.".to_owned(),
            hint: EXPECTED_HINT,
        });
    }
    let (label, rest) = block.split_once(DASHES).ok_or_else(broken)?;
    let (body, end) = rest.split_once(END).ok_or_else(broken)?;
    let same = end.strip_prefix(label).is_some_and(|rest| rest.starts_with(DASHES));
    match label {
        _ if !same => Err(broken()),
        _ if label.ends_with("PUBLIC KEY") || label.ends_with("CERTIFICATE") => Ok((label, body)),
        _ => Err(KeyError {
            detail: format!("Its block is {}.", quoted(label)),
            hint: EXPECTED_HINT,
        }),
    }
}

/// The key, or the reason why it is rejected. None if the DER has another structure.
type Read = Option<Result<PublicKey, KeyError>>;

/// Reads SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7).
fn from_info(der: &[u8]) -> Read {
    let mut info = Elements::of(Elements::only(der, der::SEQUENCE)?);
    let mut algorithm = Elements::of(info.take(der::SEQUENCE)?);
    let bits = info.take(der::BIT_STRING)?;
    info.is_empty().then_some(())?;
    // The number of unused bits must be zero.
    let (0, key) = bits.split_first()? else {
        return None;
    };
    let unsupported = |what: &str| {
        Some(Err(KeyError { detail: format!("Its key is {what}."), hint: EXPECTED_HINT }))
    };
    match algorithm.take(der::OBJECT_IDENTIFIER)? {
        der::RSA => from_pkcs1(key),
        der::EC => {
            let (crv, length) = match algorithm.take(der::OBJECT_IDENTIFIER) {
                Some(der::P256) => ("P-256", 32),
                Some(der::P384) => ("P-384", 48),
                _ => return unsupported("of a curve that is not supported"),
            };
            match key.split_first()? {
                (4, point) if point.len() == 2 * length => {
                    let (x, y) = point.split_at(length);
                    Some(Ok(PublicKey::Ec { crv, x: x.to_vec(), y: y.to_vec() }))
                }
                _ => unsupported("not an uncompressed point of its curve"),
            }
        }
        der::ED25519 => Some(Ok(PublicKey::Ed25519(key.to_vec()))),
        der::RSA_PSS => unsupported("restricted to RSASSA-PSS, which is not supported"),
        _ => unsupported("of an algorithm that is not supported"),
    }
}

/// Reads an RSAPublicKey (RFC 8017 appendix A.1.1).
fn from_pkcs1(der: &[u8]) -> Read {
    let mut key = Elements::of(Elements::only(der, der::SEQUENCE)?);
    let (n, e) = (key.take(der::INTEGER)?, key.take(der::INTEGER)?);
    // If the first bit is set, the number is negative.
    let is_positive = |number: &[u8]| number.first().is_some_and(|first| *first < 0x80);
    (key.is_empty() && is_positive(n) && is_positive(e)).then_some(())?;
    Some(Ok(PublicKey::Rsa { n: n.to_vec(), e: e.to_vec() }))
}

/// Reads the key of a certificate (RFC 5280 section 4.1).
fn from_certificate(der: &[u8]) -> Read {
    let mut certificate = Elements::of(Elements::only(der, der::SEQUENCE)?);
    let mut body = Elements::of(certificate.take(der::SEQUENCE)?);
    certificate.take(der::SEQUENCE)?;
    certificate.take(der::BIT_STRING)?;
    certificate.is_empty().then_some(())?;
    body.skip_optional(der::EXPLICIT_0);
    body.take(der::INTEGER)?;
    // Skips signature algorithm, issuer, validity and subject.
    for _ in 0..4 {
        body.take(der::SEQUENCE)?;
    }
    from_info(body.take_whole()?)
}
