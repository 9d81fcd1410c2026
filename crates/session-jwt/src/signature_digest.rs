//! Digests that stand for a signature that was verified: of a token, and of everything that decides whether its
//! signature verifies.

use aws_lc_rs::digest::{SHA256, digest};

/// The SHA-256 of a token and of the provider's document with its keys. Where both are the same, so is the outcome of
/// the verification of the signature: where keys, algorithms or anything else in the document change, no earlier
/// digest equals a new one. It tells nothing about whether the claims are accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SignatureDigest([u8; 32]);

impl SignatureDigest {
    /// The digest of a token for the provider of a document. `scope` keeps apart callers that share digests and not
    /// providers.
    pub(crate) fn new(scope: u32, document: DocumentDigest, token: &str) -> Self {
        // What comes before the token has a fixed length.
        Self(sha256(&[&scope.to_le_bytes()[..], &document.0, token.as_bytes()].concat()))
    }

    /// The 256 bits.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The SHA-256 of a configured text. It has no `Debug` form that shows it, for the text may be a weak secret.
#[derive(Clone, Copy)]
pub(crate) struct DocumentDigest([u8; 32]);

/// How a text is read: one text may mean other keys when it is read in another way.
#[derive(Clone, Copy)]
pub(crate) enum Reading {
    /// A JWK or a JWK set.
    Keys,
    /// A provider, or an array of them.
    Providers,
    /// A row of the table of providers.
    Row,
}

impl DocumentDigest {
    pub(crate) fn new(reading: Reading, text: &str) -> Self {
        Self(sha256(&[&[reading as u8][..], &sha256(text.as_bytes())].concat()))
    }
}

impl std::fmt::Debug for DocumentDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DocumentDigest")
    }
}

impl std::fmt::Debug for SignatureDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignatureDigest")
    }
}

/// In one call, because a `Context` of the library allocates memory, and panics where there is none.
fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest(&SHA256, bytes);
    std::array::from_fn(|place| digest.as_ref()[place])
}
