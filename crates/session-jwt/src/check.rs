//! The checks of a token, by the names that an inspection gives them.

/// A check of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    /// The length of the text.
    Size,
    /// Three parts in base64url.
    Form,
    /// The JSON of the first part, and its parameters.
    Header,
    /// The JSON of the second part.
    Payload,
    /// A provider serves the issuer.
    Provider,
    /// The provider has the key that the header names.
    Key,
    /// The key may be used with the algorithm.
    Algorithm,
    /// The key verifies the signature.
    Signature,
    /// `iss`
    Issuer,
    /// `aud`
    Audience,
    /// The claims that the provider asks for.
    RequiredClaims,
    /// `sub`, and the claim with the user id.
    Subject,
    /// The database role that the claims name.
    Role,
    /// `jsonb` and the database's encoding can represent the claims.
    Representability,
    /// `exp`, `nbf` and `iat`.
    Time,
    /// The token is not revoked.
    Revocation,
    /// `jti` is above that of the last token.
    Replay,
}

impl Check {
    /// Every check, in the order in which they run.
    pub const ALL: [Check; 17] = [
        Check::Size,
        Check::Form,
        Check::Header,
        Check::Payload,
        Check::Provider,
        Check::Key,
        Check::Algorithm,
        Check::Signature,
        Check::Issuer,
        Check::Audience,
        Check::RequiredClaims,
        Check::Subject,
        Check::Role,
        Check::Representability,
        Check::Time,
        Check::Revocation,
        Check::Replay,
    ];

    /// The name, in the words of the documentation's table.
    pub const fn name(self) -> &'static str {
        match self {
            Check::Size => "size",
            Check::Form => "form",
            Check::Header => "header",
            Check::Payload => "payload",
            Check::Provider => "provider",
            Check::Key => "key",
            Check::Algorithm => "algorithm",
            Check::Signature => "signature",
            Check::Issuer => "issuer",
            Check::Audience => "audience",
            Check::RequiredClaims => "required claims",
            Check::Subject => "subject",
            Check::Role => "role",
            Check::Representability => "representability",
            Check::Time => "time",
            Check::Revocation => "revocation",
            Check::Replay => "replay",
        }
    }
}
