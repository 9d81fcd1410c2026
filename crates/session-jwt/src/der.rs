//! The part of DER (X.690) that tells a key from other bytes and finds the key in a certificate.

/// The maximum nesting depth of structures.
const MAX_DEPTH: usize = 16;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;

/// The tag of a certificate's version, which is optional (RFC 5280 section 4.1).
pub(crate) const EXPLICIT_0: u8 = 0xa0;

/// The bit of a tag that says that the contents are elements.
const CONSTRUCTED: u8 = 0x20;

/// rsaEncryption, id-RSASSA-PSS, id-ecPublicKey, id-Ed25519, secp256r1 and secp384r1: contents of an
/// OBJECT IDENTIFIER (RFC 8017, RFC 5480, RFC 8410).
pub(crate) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
pub(crate) const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
pub(crate) const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
pub(crate) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// The object identifiers of encryption by passwords (PKCS #5) begin so.
const PASSWORD: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5];
pub(crate) const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
pub(crate) const P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];

/// A sequence of elements.
#[derive(Clone, Copy)]
pub(crate) struct Elements<'d>(&'d [u8]);

impl<'d> Elements<'d> {
    pub(crate) fn of(bytes: &'d [u8]) -> Self {
        Self(bytes)
    }

    /// The contents of the element, if the bytes consist of one element of that tag.
    pub(crate) fn only(bytes: &'d [u8], tag: u8) -> Option<&'d [u8]> {
        let mut elements = Self(bytes);
        let contents = elements.take(tag)?;
        elements.is_empty().then_some(contents)
    }

    /// Takes the next element, if it has that tag, and returns its contents.
    pub(crate) fn take(&mut self, tag: u8) -> Option<&'d [u8]> {
        let (found, contents, rest) = element(self.0)?;
        (found == tag).then_some(())?;
        self.0 = rest;
        Some(contents)
    }

    /// Skips the next element, if it has that tag.
    pub(crate) fn skip_optional(&mut self, tag: u8) {
        let _ = self.take(tag);
    }

    /// Takes the next element and returns it with its tag and its length.
    pub(crate) fn take_whole(&mut self) -> Option<&'d [u8]> {
        let (_, _, rest) = element(self.0)?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some(whole)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether the bytes are one SEQUENCE that can be read to the end.
pub(crate) fn is_structure(bytes: &[u8]) -> bool {
    Elements::only(bytes, SEQUENCE)
        .is_some_and(|contents| !contents.is_empty() && are_elements(contents, 1))
}

/// Whether the bytes begin as a key or a certificate does, complete or cut off: a SEQUENCE that names
/// the algorithm of a key near its beginning.
pub(crate) fn begins_as_key(bytes: &[u8]) -> bool {
    // The algorithm is at the beginning of a key, and after the names in a certificate.
    const WITHIN: usize = 1024;
    let start = &bytes[..bytes.len().min(WITHIN)];
    // Two INTEGERs, of which the first has 256 bytes or more and is positive (RFC 8017 appendix A.1.1).
    if matches!(start, [SEQUENCE, 0x82, _, _, INTEGER, 0x82, _, _, 0, ..]) {
        return true;
    }
    start.first() == Some(&SEQUENCE)
        && [RSA, RSA_PSS, EC, ED25519].iter().any(|algorithm| {
            let element = [&[OBJECT_IDENTIFIER, algorithm.len() as u8], *algorithm].concat();
            start.windows(element.len()).any(|window| window == element)
        })
}

/// Whether the bytes begin as a key or a certificate does, with so many fixed octets that random bytes
/// do not match. One of: two SEQUENCEs with long lengths; a SEQUENCE with a long INTEGER; a SEQUENCE
/// with a version; a SEQUENCE with a SEQUENCE that begins with an object identifier of the arcs 1.2 or
/// 1.3.
pub(crate) fn begins_unmistakably(bytes: &[u8]) -> bool {
    let (long, rest) = match bytes {
        [SEQUENCE, 0x82, 0..=0x40, _, rest @ ..] => (true, rest),
        [SEQUENCE, 0x81, 0x80..=0xff, rest @ ..] => (true, rest),
        [SEQUENCE, 0x20..=0x7f, rest @ ..] => (false, rest),
        _ => return false,
    };
    match rest {
        [SEQUENCE, 0x81 | 0x82, ..] | [INTEGER, 0x81 | 0x82, _, _, 0, ..] => long,
        [INTEGER, 0x81, _, 0, ..] => long,
        [INTEGER, 1, 0 | 1, SEQUENCE | 0x04, ..] => true,
        [SEQUENCE, 5..=0x40, OBJECT_IDENTIFIER, 3..=11, 0x2a | 0x2b, ..] => true,
        _ => false,
    }
}

/// Whether the bytes begin as a private key does: a version, followed by an algorithm (PKCS #8), the
/// number itself (SEC 1) or a modulus (PKCS #1).
pub(crate) fn begins_as_private(bytes: &[u8]) -> bool {
    let rest = match bytes {
        [SEQUENCE, 0x82, _, _, rest @ ..] | [SEQUENCE, 0x81, _, rest @ ..] => rest,
        [SEQUENCE, 0x20..=0x7f, rest @ ..] => rest,
        _ => return false,
    };
    let is_encrypted = || {
        let element = [&[OBJECT_IDENTIFIER, PASSWORD.len() as u8 + 1], PASSWORD].concat();
        rest.first() == Some(&SEQUENCE)
            && rest
                .get(..16)
                .is_some_and(|start| start.windows(element.len()).any(|window| window == element))
    };
    match rest {
        [INTEGER, 1, 0 | 1, SEQUENCE, 3..=0x20, OBJECT_IDENTIFIER, ..] => true,
        [INTEGER, 1, 1, OCTET_STRING, 0x18..=0x42, ..] => true,
        [INTEGER, 1, 0, INTEGER, 0x81 | 0x82, ..] => true,
        _ => is_encrypted(),
    }
}

fn are_elements(mut bytes: &[u8], depth: usize) -> bool {
    while !bytes.is_empty() {
        let Some((tag, contents, rest)) = element(bytes) else {
            return false;
        };
        if tag & CONSTRUCTED != 0 && (depth == MAX_DEPTH || !are_elements(contents, depth + 1)) {
            return false;
        }
        bytes = rest;
    }
    true
}

/// Splits off the first element: its tag, its contents, and the bytes after it. The tag must have one
/// byte, and the length its shortest form.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = octets.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet));
            (octets[0] != 0 && length > 0x7f).then_some((length, rest))?
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    (tag & 0x1f != 0x1f).then_some((*tag, contents, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_span_everything() {
        for (bytes, is_one) in [
            (&[0x30, 3, 2, 1, 5][..], true),
            (&[0x30, 5, 0x30, 3, 2, 1, 5], true),
            (&[0x30, 0], false),
            (&[0x30, 3, 2, 1], false),
            (&[0x30, 3, 2, 1, 5, 0], false),
            (&[0x30, 3, 2, 2, 5], false),
            (&[0x30, 0x81, 3, 2, 1, 5], false),
            (&[0x30, 0x80, 2, 1, 5, 0, 0], false),
            (&[0x31, 3, 2, 1, 5], false),
            (&[], false),
        ] {
            assert_eq!(is_structure(bytes), is_one, "{bytes:?}");
        }
        let mut deep = vec![2, 1, 5];
        for _ in 0..40 {
            deep.splice(0..0, [0x30, deep.len() as u8]);
        }
        assert!(!is_structure(&deep));
    }
}
