//! Digests that stand for a signature that was verified: of a token, and of everything that decides whether its
//! signature verifies.

use aws_lc_rs::digest::{Context, SHA256};

/// The SHA-256 of a token and of the provider's document with its keys. Where both are the same, so is the outcome of
/// the verification of the signature: where keys, algorithms or anything else in the document change, no earlier
/// digest equals a new one. It tells nothing about whether the claims are accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SignatureDigest([u8; 32]);

impl SignatureDigest {
    /// The digest of a token for the provider of a document. `scope` keeps apart callers that share digests and not
    /// providers.
    pub(crate) fn new(scope: u32, document: DocumentDigest, token: &str) -> Self {
        let mut context = Context::new(&SHA256);
        // What comes before the token has a fixed length.
        context.update(&scope.to_le_bytes());
        context.update(&document.0);
        context.update(token.as_bytes());
        Self(bytes(context.finish().as_ref()))
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
        let mut context = Context::new(&SHA256);
        context.update(&[reading as u8]);
        context.update(text.as_bytes());
        Self(bytes(context.finish().as_ref()))
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

fn bytes(digest: &[u8]) -> [u8; 32] {
    std::array::from_fn(|place| digest[place])
}
