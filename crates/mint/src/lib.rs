//! Generates keys and signs tokens like an identity provider, for tests, demos and experiments. Not for
//! production: private keys are not protected.

pub mod faults;

use std::error::Error;

use aws_lc_rs::encoding::{AsBigEndian, AsDer, EcPrivateKeyBin, Pkcs8V1Der};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeyPairComponents, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use aws_lc_rs::{hmac, signature::RsaEncoding};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The result of an operation. The errors are private keys that cannot be read, and arguments that do
/// not fit each other.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A JWS algorithm (RFC 7518 section 3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Algorithm {
    /// Every algorithm.
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

    /// The name in the IANA registry.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// The algorithm of exactly that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// A signing key with its algorithm and its `kid`.
pub struct Key {
    algorithm: Algorithm,
    kid: Option<String>,
    pair: Pair,
}

enum Pair {
    Secret(Vec<u8>),
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
    Ed(Ed25519KeyPair),
}

impl Key {
    /// Generates a key: RSA with 2048 bits, EC on the curve of the algorithm, or a secret of 64 bytes.
    ///
    /// # Panics
    /// If the system's random number generator fails.
    pub fn generate(algorithm: Algorithm) -> Self {
        Self::try_generate(algorithm, KeySize::Rsa2048).expect("the system has randomness")
    }

    /// Generates an RSA key of another size.
    ///
    /// # Panics
    /// If the system's random number generator fails.
    pub fn generate_rsa(algorithm: Algorithm, size: KeySize) -> Self {
        Self::try_generate(algorithm, size).expect("the system has randomness")
    }

    fn try_generate(algorithm: Algorithm, size: KeySize) -> Result<Self> {
        use Algorithm::*;
        let pair = match algorithm {
            HS256 | HS384 | HS512 => {
                let mut secret = vec![0; 64];
                SystemRandom::new().fill(&mut secret)?;
                Pair::Secret(secret)
            }
            RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => {
                Pair::Rsa(Box::new(RsaKeyPair::generate(size)?))
            }
            ES256 | ES384 => Pair::Ec(Box::new(EcdsaKeyPair::generate(curve(algorithm))?)),
            EdDSA => Pair::Ed(Ed25519KeyPair::generate()?),
        };
        Ok(Self { algorithm, kid: None, pair })
    }

    /// An HMAC key with these bytes.
    pub fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Self {
        Self { algorithm, kid: None, pair: Pair::Secret(secret.to_vec()) }
    }

    /// Reads a private or symmetric JWK with `alg`.
    ///
    /// # Errors
    /// A member is missing or invalid.
    pub fn from_private_jwk(jwk: &Value) -> Result<Self> {
        let text = |name: &str| {
            jwk[name].as_str().ok_or_else(|| format!("the private JWK has no string \"{name}\""))
        };
        let bytes = |name: &str| -> Result<Vec<u8>> { Ok(URL_SAFE_NO_PAD.decode(text(name)?)?) };
        let algorithm = Algorithm::from_name(text("alg")?).ok_or("the JWK's alg is unknown")?;
        let pair = match text("kty")? {
            "oct" => Pair::Secret(bytes("k")?),
            "RSA" => Pair::Rsa(Box::new(RsaKeyPair::from_components(&KeyPairComponents {
                public_key: PublicKeyComponents { n: bytes("n")?, e: bytes("e")? },
                d: bytes("d")?,
                p: bytes("p")?,
                q: bytes("q")?,
                dP: bytes("dp")?,
                dQ: bytes("dq")?,
                qInv: bytes("qi")?,
            })?)),
            "EC" => Pair::Ec(Box::new(EcdsaKeyPair::from_private_key_and_public_key(
                curve(algorithm),
                &bytes("d")?,
                &[vec![4], bytes("x")?, bytes("y")?].concat(),
            )?)),
            "OKP" => {
                Pair::Ed(Ed25519KeyPair::from_seed_and_public_key(&bytes("d")?, &bytes("x")?)?)
            }
            other => return Err(format!("the JWK's kty {other} is unknown").into()),
        };
        Ok(Self { algorithm, kid: jwk["kid"].as_str().map(str::to_owned), pair })
    }

    /// Sets the `kid`.
    pub fn with_kid(mut self, kid: &str) -> Self {
        self.kid = Some(kid.to_owned());
        self
    }

    /// Sets another algorithm of the same key type.
    pub fn with_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// The public JWK for a verifier's configuration, with `alg`, `use` and, if set, `kid`. The JWK of
    /// an HMAC key contains the secret.
    pub fn public_jwk(&self) -> Value {
        let mut jwk = self.bare_public_jwk();
        jwk["alg"] = self.algorithm.name().into();
        jwk["use"] = "sig".into();
        if let Some(kid) = &self.kid {
            jwk["kid"] = kid.as_str().into();
        }
        jwk
    }

    /// The public JWK with only its type and its material.
    pub fn bare_public_jwk(&self) -> Value {
        match &self.pair {
            Pair::Secret(secret) => json!({"kty": "oct", "k": encode(secret)}),
            Pair::Rsa(pair) => json!({
                "kty": "RSA",
                "n": encode(pair.public_key().modulus().big_endian_without_leading_zero()),
                "e": encode(pair.public_key().exponent().big_endian_without_leading_zero()),
            }),
            Pair::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(coordinate(self.algorithm));
                let crv = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": crv, "x": encode(x), "y": encode(y)})
            }
            Pair::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key())})
            }
        }
    }

    /// The private JWK.
    ///
    /// # Errors
    /// The cryptographic library cannot export the key.
    pub fn private_jwk(&self) -> Result<Value> {
        let mut jwk = self.public_jwk();
        match &self.pair {
            Pair::Secret(_) => {}
            Pair::Rsa(pair) => {
                let der: Pkcs8V1Der = pair.as_der()?;
                let integers = rsa_integers(der.as_ref()).ok_or("the RSA key is not PKCS #8")?;
                // Skips version, n and e (RFC 8017 appendix A.1.2).
                for (name, value) in ["d", "p", "q", "dp", "dq", "qi"].iter().zip(&integers[3..]) {
                    jwk[name] = encode(value).into();
                }
            }
            Pair::Ec(pair) => {
                let private: EcPrivateKeyBin = pair.private_key().as_be_bytes()?;
                jwk["d"] = encode(private.as_ref()).into();
            }
            Pair::Ed(pair) => jwk["d"] = encode(pair.seed()?.as_be_bytes()?.as_ref()).into(),
        }
        Ok(jwk)
    }

    /// Signs a JWT with these claims. The header has `typ` JWT, `alg` and, if set, `kid`.
    ///
    /// # Panics
    /// Like [`Key::sign_raw`].
    pub fn sign(&self, claims: &Value) -> String {
        let mut header = json!({"alg": self.algorithm.name(), "typ": "JWT"});
        if let Some(kid) = &self.kid {
            header["kid"] = kid.as_str().into();
        }
        self.sign_raw(header.to_string().as_bytes(), claims.to_string().as_bytes())
    }

    /// Signs a compact JWS with exactly these bytes as header and payload.
    ///
    /// # Panics
    /// If the key cannot sign with the algorithm, such as an RSA key that is smaller than the hash.
    pub fn sign_raw(&self, header: &[u8], payload: &[u8]) -> String {
        let input = format!("{}.{}", encode(header), encode(payload));
        let signature = self.signature(input.as_bytes()).expect("the key fits the algorithm");
        format!("{input}.{}", encode(signature))
    }

    /// Signs a message and returns the signature, as JWS encodes it.
    ///
    /// # Errors
    /// The key cannot sign with the algorithm.
    pub fn signature(&self, message: &[u8]) -> Result<Vec<u8>> {
        let random = SystemRandom::new();
        Ok(match &self.pair {
            Pair::Secret(secret) => {
                let algorithm = match self.algorithm {
                    Algorithm::HS384 => hmac::HMAC_SHA384,
                    Algorithm::HS512 => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(algorithm, secret), message).as_ref().to_vec()
            }
            Pair::Rsa(pair) => {
                let padding: &'static dyn RsaEncoding = match self.algorithm {
                    Algorithm::RS384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::RS512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::PS256 => &signature::RSA_PSS_SHA256,
                    Algorithm::PS384 => &signature::RSA_PSS_SHA384,
                    Algorithm::PS512 => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut out)?;
                out
            }
            Pair::Ec(pair) => pair.sign(&random, message)?.as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        })
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn curve(algorithm: Algorithm) -> &'static signature::EcdsaSigningAlgorithm {
    match algorithm {
        Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        _ => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
    }
}

fn coordinate(algorithm: Algorithm) -> usize {
    if algorithm == Algorithm::ES384 { 48 } else { 32 }
}

/// The integers of an RSAPrivateKey (RFC 8017 appendix A.1.2) in a PKCS #8 envelope, unsigned
/// and without leading zeros: version, n, e, d, p, q, dp, dq, qi.
fn rsa_integers(pkcs8: &[u8]) -> Option<Vec<&[u8]>> {
    let (_, envelope, _) = der(pkcs8)?;
    let (_, _, rest) = der(envelope)?;
    let (_, _, rest) = der(rest)?;
    let (_, octets, _) = der(rest)?;
    let (_, mut rest, _) = der(octets)?;
    let mut integers = Vec::new();
    while !rest.is_empty() {
        let (tag, value, after) = der(rest)?;
        (tag == 2).then_some(())?;
        let zeros = value.iter().take_while(|byte| **byte == 0).count();
        integers.push(&value[zeros..]);
        rest = after;
    }
    (integers.len() == 9).then_some(integers)
}

/// Splits off the first DER element: its tag, its contents, and the bytes after it.
fn der(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let (length, rest) = rest.split_at_checked(usize::from(*first & 0x7f))?;
        (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
    };
    let (contents, after) = rest.split_at_checked(length)?;
    Some((*tag, contents, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_jwks_sign_again() {
        for algorithm in Algorithm::ALL {
            let key = Key::generate(algorithm).with_kid("k");
            let again = Key::from_private_jwk(&key.private_jwk().unwrap()).unwrap();
            assert_eq!(again.public_jwk(), key.public_jwk());
            assert_eq!(again.sign(&json!({})).split('.').count(), 3);
        }
    }
}
