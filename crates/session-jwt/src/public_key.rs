//! A public key in PEM (RFC 7468): as SubjectPublicKeyInfo, in the form of PKCS #1, or within a
//! certificate, of which the key counts and nothing else.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::der::{self, Elements};
use crate::encoding;
use crate::rejection::quoted;
use crate::secret::{self, Found};

/// With its padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A public key as its numbers.
#[derive(Debug)]
pub(crate) enum PublicKey {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The curve's name in JOSE, and the two coordinates.
    Ec {
        crv: &'static str,
        x: Vec<u8>,
        y: Vec<u8>,
    },
    Ed25519(Vec<u8>),
}

/// What is wrong with a text that should be a public key, and what to do; whole sentences.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) detail: String,
    pub(crate) hint: &'static str,
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

const EXPECTED: &str = "Give one block in PEM: PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE, with a key \
                        of RSA, P-256, P-384 or Ed25519.";

const REPLACE: &str = "Replace the key pair if this text has been seen by others, and give the public \
                       key.";

impl PublicKey {
    /// Reads the one block of a text. Lines around it, a byte order mark, line ends of any kind, also
    /// as `\n` in two characters, do not matter. The DER says what it holds, so its label does not matter
    /// either, nor whether there is any armour at all.
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
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
        let unreadable = |what: &str| Wrong {
            detail: format!("Its block {label} is not {what}."),
            hint: EXPECTED,
        };
        let Ok(der) = BASE64.decode(digits) else {
            return Err(if armoured { unreadable("base64") } else { unarmoured(&text) });
        };
        if der::begins_as_private(&der) {
            return Err(private());
        }
        // OpenSSL puts what a certificate is trusted for behind it.
        let der = match Elements::of(&der).take_whole() {
            Some(certificate) if label.starts_with("TRUSTED") => certificate,
            _ => &der,
        };
        // No bytes are more than one of these.
        let key = from_info(der).or_else(|| from_pkcs1(der)).or_else(|| from_certificate(der));
        key.unwrap_or_else(|| {
            Err(match armoured {
                true => unreadable("a public key or a certificate in DER"),
                false => unarmoured(&text),
            })
        })
    }
}

/// What a text without a block is.
fn unarmoured(text: &str) -> Wrong {
    let (what, hint) = match secret::find(text.as_bytes()) {
        Some(Found::Private) => return private(),
        Some(Found::Der) => {
            ("base64 of another structure than a public key or a certificate", EXPECTED)
        }
        Some(found) if found != Found::Unclear => (found.description(), found.place()),
        _ => ("a text without a block in PEM", EXPECTED),
    };
    Wrong { detail: format!("It is {what}."), hint }
}

fn private() -> Wrong {
    Wrong { detail: "It has a private key.".to_owned(), hint: REPLACE }
}

/// The label and the body of the one block.
fn only_block(text: &str) -> Result<(&str, &str), Wrong> {
    let broken = || Wrong {
        detail: "Its block does not begin and end with lines of one label.".to_owned(),
        hint: EXPECTED,
    };
    let (_, block) = text.split_once(BEGIN).ok_or_else(broken)?;
    if secret::has_private_block(text) {
        return Err(private());
    }
    if block.contains(BEGIN) {
        return Err(Wrong { detail: "It has more than one block.".to_owned(), hint: EXPECTED });
    }
    let (label, rest) = block.split_once(DASHES).ok_or_else(broken)?;
    let (body, end) = rest.split_once(END).ok_or_else(broken)?;
    let same = end.strip_prefix(label).is_some_and(|rest| rest.starts_with(DASHES));
    match label {
        _ if !same => Err(broken()),
        _ if label.ends_with("PUBLIC KEY") || label.ends_with("CERTIFICATE") => Ok((label, body)),
        _ => Err(Wrong { detail: format!("Its block is {}.", quoted(label)), hint: EXPECTED }),
    }
}

/// A key, or why it is none; None where the DER is not what it should be.
type Read = Option<Result<PublicKey, Wrong>>;

/// RFC 5280 section 4.1.2.7.
fn from_info(der: &[u8]) -> Read {
    let mut info = Elements::of(Elements::only(der, der::SEQUENCE)?);
    let mut algorithm = Elements::of(info.take(der::SEQUENCE)?);
    let bits = info.take(der::BIT_STRING)?;
    info.is_empty().then_some(())?;
    // No bit is unused.
    let (0, key) = bits.split_first()? else {
        return None;
    };
    let unsupported =
        |what: &str| Some(Err(Wrong { detail: format!("Its key is {what}."), hint: EXPECTED }));
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

/// RFC 8017 appendix A.1.1.
fn from_pkcs1(der: &[u8]) -> Read {
    let mut key = Elements::of(Elements::only(der, der::SEQUENCE)?);
    let (n, e) = (key.take(der::INTEGER)?, key.take(der::INTEGER)?);
    // A first bit that is set would make it negative.
    let is_positive = |number: &[u8]| number.first().is_some_and(|first| *first < 0x80);
    (key.is_empty() && is_positive(n) && is_positive(e)).then_some(())?;
    Some(Ok(PublicKey::Rsa { n: n.to_vec(), e: e.to_vec() }))
}

/// RFC 5280 section 4.1.
fn from_certificate(der: &[u8]) -> Read {
    let mut certificate = Elements::of(Elements::only(der, der::SEQUENCE)?);
    let mut body = Elements::of(certificate.take(der::SEQUENCE)?);
    certificate.take(der::SEQUENCE)?;
    certificate.take(der::BIT_STRING)?;
    certificate.is_empty().then_some(())?;
    body.skip_optional(der::EXPLICIT_0);
    body.take(der::INTEGER)?;
    // Signature algorithm, issuer, validity, subject.
    for _ in 0..4 {
        body.take(der::SEQUENCE)?;
    }
    from_info(body.take_whole()?)
}
