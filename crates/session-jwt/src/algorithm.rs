//! The supported signature algorithms of RFC 7518 section 3.1 and RFC 8037, and sets of them.

use jsonwebtoken::Algorithm as Primitive;

/// A JWS signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are those of the IANA registry")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// The type of key that an algorithm needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyType {
    Oct,
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Algorithm {
    /// Every supported algorithm.
    pub const ALL: [Algorithm; 12] = [
        Algorithm::HS256,
        Algorithm::HS384,
        Algorithm::HS512,
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ];

    /// The algorithm of exactly that name. `Ed25519` (RFC 9864) is an alias of `EdDSA`, since no other
    /// curve is supported.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "Ed25519" {
            return Some(Algorithm::EdDSA);
        }
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The name in the IANA registry, which is the value of `alg`.
    pub const fn name(self) -> &'static str {
        self.describe().0
    }

    pub(crate) const fn key_type(self) -> KeyType {
        self.describe().1
    }

    pub(crate) const fn primitive(self) -> Primitive {
        self.describe().2
    }

    /// The minimum length of an HMAC key in bytes, which is the length of the hash (RFC 7518 section
    /// 3.2). Zero for other algorithms.
    pub(crate) const fn min_secret_bytes(self) -> usize {
        match self {
            Algorithm::HS256 => 32,
            Algorithm::HS384 => 48,
            Algorithm::HS512 => 64,
            _ => 0,
        }
    }

    const fn describe(self) -> (&'static str, KeyType, Primitive) {
        match self {
            Algorithm::HS256 => ("HS256", KeyType::Oct, Primitive::HS256),
            Algorithm::HS384 => ("HS384", KeyType::Oct, Primitive::HS384),
            Algorithm::HS512 => ("HS512", KeyType::Oct, Primitive::HS512),
            Algorithm::RS256 => ("RS256", KeyType::Rsa, Primitive::RS256),
            Algorithm::RS384 => ("RS384", KeyType::Rsa, Primitive::RS384),
            Algorithm::RS512 => ("RS512", KeyType::Rsa, Primitive::RS512),
            Algorithm::PS256 => ("PS256", KeyType::Rsa, Primitive::PS256),
            Algorithm::PS384 => ("PS384", KeyType::Rsa, Primitive::PS384),
            Algorithm::PS512 => ("PS512", KeyType::Rsa, Primitive::PS512),
            Algorithm::ES256 => ("ES256", KeyType::P256, Primitive::ES256),
            Algorithm::ES384 => ("ES384", KeyType::P384, Primitive::ES384),
            Algorithm::EdDSA => ("EdDSA", KeyType::Ed25519, Primitive::EdDSA),
        }
    }
}

impl KeyType {
    /// The algorithm of a key without `alg`.
    pub(crate) const fn default_algorithm(self) -> Algorithm {
        match self {
            KeyType::Oct => Algorithm::HS256,
            KeyType::Rsa => Algorithm::RS256,
            KeyType::P256 => Algorithm::ES256,
            KeyType::P384 => Algorithm::ES384,
            KeyType::Ed25519 => Algorithm::EdDSA,
        }
    }
}

/// A set of algorithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlgorithmSet(u16);

impl AlgorithmSet {
    /// Whether the algorithm is in the set.
    pub fn contains(self, algorithm: Algorithm) -> bool {
        self.0 & (1 << algorithm as u16) != 0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The union of two sets.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The members, in the order of [`Algorithm::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Algorithm> {
        Algorithm::ALL.into_iter().filter(move |algorithm| self.contains(*algorithm))
    }

    /// The names, separated by commas, for a message.
    pub(crate) fn names(self) -> String {
        let names: Vec<&str> = self.iter().map(Algorithm::name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

impl FromIterator<Algorithm> for AlgorithmSet {
    fn from_iter<I: IntoIterator<Item = Algorithm>>(algorithms: I) -> Self {
        Self(algorithms.into_iter().fold(0, |set, algorithm| set | 1 << algorithm as u16))
    }
}
