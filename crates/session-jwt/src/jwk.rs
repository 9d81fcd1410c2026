//! One JSON Web Key (RFC 7517 section 4, RFC 7518 section 6, RFC 8037): which keys are strong enough,
//! and which algorithms a key may be used with.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curve25519_dalek::edwards::CompressedEdwardsY;
use jsonwebtoken::{DecodingKey, DecodingKeyKind};

use crate::algorithm::{Algorithm, AlgorithmSet, KeyType};
use crate::encoding::Encoding;
use crate::json::{Json, Object, json_string};
use crate::rejection::quoted;
use crate::secret::{self, Found};

/// The accepted lengths of RSA moduli, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The members that only a private key has (RFC 7518 sections 6.2.2 and 6.3.2).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "priv"];

/// One usable key.
pub(crate) struct Key {
    pub(crate) kid: Option<String>,
    /// Its position in the set, from zero.
    pub(crate) index: u32,
    /// Whether the token's `kid` is ignored. A bare secret and a key in PEM have no `kid`.
    pub(crate) any_kid: bool,
    pub(crate) key_type: KeyType,
    /// The `alg` of the JWK, which then is its only algorithm.
    pub(crate) declared: Option<Algorithm>,
    /// The length of an HMAC key; zero for other keys.
    pub(crate) secret_bytes: usize,
    /// The encoding that the secret seems to be written in.
    pub(crate) encoding: Option<Encoding>,
    material: DecodingKey,
    pub(crate) algorithms: AlgorithmSet,
}

impl Key {
    /// Reads one JWK, which must be public or symmetric. The error is a sentence.
    pub(crate) fn from_jwk(entry: &Json<'_>) -> Result<Self, String> {
        let Some(object) = entry.as_object() else {
            return Err(format!("It is {}, not an object.", entry.type_name()));
        };
        object.check_names().map_err(|error| error.to_string())?;
        let kid = string(object, "kid")?.map(str::to_owned);
        // SPIFFE's bundles use "jwt-svid", and have other keys for X.509.
        if let Some(usage) = nonempty_string(object, "use")?
            && !["sig", "jwt-svid"].contains(&usage)
        {
            return Err(format!("Its use is {}, not \"sig\".", quoted(usage)));
        }
        if let Some(operations) = member(object, "key_ops") {
            let Some(operations) = operations.as_strings() else {
                return Err("Its key_ops is not an array of strings.".to_owned());
            };
            if !operations.contains(&"verify") {
                return Err("Its key_ops does not contain \"verify\".".to_owned());
            }
            // RFC 7517 section 4.3 forbids duplicates.
            if operations.iter().enumerate().any(|(index, op)| operations[..index].contains(op)) {
                return Err("Its key_ops names one operation twice.".to_owned());
            }
        }
        let declared = match nonempty_string(object, "alg")? {
            None => None,
            Some(name) => Some(
                Algorithm::from_name(name)
                    .ok_or_else(|| format!("Its alg {} is not supported.", quoted(name)))?,
            ),
        };
        let key = match required(object, "kty")? {
            "oct" => Self::hmac(&bytes(object, "k")?, declared)?,
            "RSA" => Self::rsa(&bytes(object, "n")?, &bytes(object, "e")?)?,
            "EC" => Self::ec(required(object, "crv")?, &bytes(object, "x")?, &bytes(object, "y")?)?,
            "OKP" => Self::okp(required(object, "crv")?, &bytes(object, "x")?)?,
            other => return Err(format!("Its kty {} is not supported.", quoted(other))),
        };
        match declared {
            Some(algorithm) if algorithm.key_type() != key.key_type => {
                Err(format!("Its alg {} does not fit its type.", algorithm.name()))
            }
            Some(algorithm) => {
                let algorithms = [algorithm].into_iter().collect();
                Ok(Self { kid, declared, algorithms, ..key })
            }
            None => Ok(Self { kid, ..key }),
        }
    }

    fn new(key_type: KeyType, material: DecodingKey) -> Self {
        Self {
            kid: None,
            index: 0,
            any_kid: false,
            key_type,
            declared: None,
            secret_bytes: 0,
            encoding: None,
            material,
            algorithms: [key_type.default_algorithm()].into_iter().collect(),
        }
    }

    /// Reads an HMAC key, which must be at least as long as the hash (RFC 7518 section 3.2).
    pub(crate) fn hmac(secret: &[u8], algorithm: Option<Algorithm>) -> Result<Self, String> {
        let algorithm = algorithm.unwrap_or(KeyType::Oct.default_algorithm());
        if secret.len() < algorithm.min_secret_bytes() {
            return Err(format!(
                "It has {} bytes; {} needs at least {} (RFC 7518 section 3.2).",
                secret.len(),
                algorithm.name(),
                algorithm.min_secret_bytes()
            ));
        }
        Ok(Self::of_secret(secret))
    }

    /// An HMAC key without a check of its length.
    pub(crate) fn of_secret(secret: &[u8]) -> Self {
        let key = Self::new(KeyType::Oct, DecodingKey::from_secret(secret));
        Self { secret_bytes: secret.len(), ..key }
    }

    pub(crate) fn rsa(n: &[u8], e: &[u8]) -> Result<Self, String> {
        // Leading zeros violate RFC 7518 section 2, but do not change the number.
        let (n, e) = (without_zeros(n), without_zeros(e));
        if n.is_empty() || e.is_empty() {
            return Err("Its n or e is empty or zero.".to_owned());
        }
        let bits = n.len() * 8 - n[0].leading_zeros() as usize;
        if !RSA_BITS.contains(&bits) {
            return Err(format!(
                "Its modulus has {bits} bits; accepted are {} to {}.",
                RSA_BITS.start(),
                RSA_BITS.end()
            ));
        }
        let exponent = e.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        // The cryptographic library accepts exponents of at most 33 bits.
        if e.len() > 5 || exponent >> 33 != 0 || exponent < 3 || exponent.is_multiple_of(2) {
            return Err("Its exponent is not an odd number from 3 up, below 2^33.".to_owned());
        }
        if n[n.len() - 1].is_multiple_of(2) {
            return Err("Its modulus is even.".to_owned());
        }
        Ok(Self::new(KeyType::Rsa, DecodingKey::from_rsa_raw_components(n, e)))
    }

    pub(crate) fn ec(crv: &str, x: &[u8], y: &[u8]) -> Result<Self, String> {
        let (key_type, length, verification): (_, _, &'static dyn VerificationAlgorithm) = match crv
        {
            "P-256" => (KeyType::P256, 32, &signature::ECDSA_P256_SHA256_FIXED),
            "P-384" => (KeyType::P384, 48, &signature::ECDSA_P384_SHA384_FIXED),
            other => return Err(format!("Its crv {} is not supported.", quoted(other))),
        };
        // A coordinate of another length violates RFC 7518 section 6.2.1.2, but leading zeros do not
        // change the number.
        let (numbers, zeros) = ([without_zeros(x), without_zeros(y)], [0; 48]);
        if x.is_empty() || y.is_empty() || numbers.iter().any(|number| number.len() > length) {
            return Err(format!(
                "Its coordinates have {} and {} bytes; {crv} needs {length} each.",
                x.len(),
                y.len()
            ));
        }
        // The uncompressed point of SEC 1 section 2.3.3.
        let mut point = vec![4];
        for number in numbers {
            point.extend_from_slice(&zeros[..length - number.len()]);
            point.extend_from_slice(number);
        }
        if ParsedPublicKey::new(verification, &point).is_err() {
            return Err(format!("Its coordinates are no point on {crv}."));
        }
        // For this key type, `jsonwebtoken` passes the point on unchanged.
        Ok(Self::new(key_type, DecodingKey::from_ec_der(&point)))
    }

    pub(crate) fn okp(crv: &str, x: &[u8]) -> Result<Self, String> {
        if crv != "Ed25519" {
            return Err(format!("Its crv {} is not supported.", quoted(crv)));
        }
        let Ok(compressed) = CompressedEdwardsY::from_slice(x) else {
            return Err(format!("Its x has {} bytes; Ed25519 needs 32.", x.len()));
        };
        let point = compressed.decompress();
        let Some(point) = point.filter(|point| point.compress() == compressed) else {
            return Err("Its x is no point on Ed25519.".to_owned());
        };
        // With such a key, every message has a valid signature.
        if point.is_small_order() {
            return Err("Its x is a point of small order.".to_owned());
        }
        Ok(Self::new(KeyType::Ed25519, DecodingKey::from_ed_der(x)))
    }

    /// Verifies a signature. The algorithm must be one of the key's.
    pub(crate) fn verify(
        &self,
        algorithm: Algorithm,
        signing_input: &str,
        signature: &str,
    ) -> bool {
        jsonwebtoken::crypto::verify(
            signature,
            signing_input.as_bytes(),
            &self.material,
            algorithm.primitive(),
        )
        .unwrap_or(false)
    }

    /// The bytes of an HMAC key; None for a public key.
    pub(crate) fn secret(&self) -> Option<&[u8]> {
        match self.material.kind() {
            DecodingKeyKind::SecretOrDer(bytes) if self.is_secret() => Some(bytes),
            _ => None,
        }
    }

    /// Restricts the key to listed algorithms. A key with `alg` keeps it if it is listed; another key
    /// gets the listed algorithms that fit its type and its length.
    pub(crate) fn restrict(&mut self, listed: AlgorithmSet) {
        self.algorithms = listed
            .iter()
            .filter(|algorithm| match self.declared {
                Some(declared) => *algorithm == declared,
                None => {
                    algorithm.key_type() == self.key_type
                        && algorithm.min_secret_bytes() <= self.secret_bytes
                }
            })
            .collect();
    }

    /// The key's type and numbers in a canonical form, which is the same for equal keys.
    pub(crate) fn canonical_material(&self) -> Vec<u8> {
        let mut material = format!("{:?}", self.key_type).into_bytes();
        match self.material.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => append(&mut material, bytes),
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                for number in [n, e] {
                    let zeros = number.iter().take_while(|byte| **byte == 0).count();
                    append(&mut material, number.get(zeros..).unwrap_or_default());
                }
            }
        }
        material
    }

    /// Whether both keys have the same material. Key id and algorithms do not matter.
    pub(crate) fn is_same_key(&self, other: &Self) -> bool {
        use DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
        match (self.material.kind(), other.material.kind()) {
            (SecretOrDer(one), SecretOrDer(two)) => self.key_type == other.key_type && one == two,
            (RsaModulusExponent { n, e }, RsaModulusExponent { n: n2, e: e2 }) => {
                n == n2 && e == e2
            }
            _ => false,
        }
    }

    pub(crate) fn is_secret(&self) -> bool {
        self.key_type == KeyType::Oct
    }

    /// A public key as a JWK in ASCII, with a fixed order of members and without unused members.
    pub(crate) fn to_jwk(&self) -> String {
        let mut members = Vec::new();
        let mut add = |name: &str, value: &str| {
            members.push(format!("\"{name}\":{}", json_string(value)));
        };
        if let Some(kid) = &self.kid {
            add("kid", kid);
        }
        let (kty, crv) = self.names();
        add("kty", kty);
        if let Some(algorithm) = self.declared {
            add("alg", algorithm.name());
        }
        if let Some(crv) = crv {
            add("crv", crv);
        }
        for (name, number) in self.number_names().iter().zip(self.numbers()) {
            add(name, &URL_SAFE_NO_PAD.encode(number));
        }
        format!("{{{}}}", members.join(","))
    }

    /// The JWK thumbprint of a public key (RFC 7638 section 3).
    pub(crate) fn thumbprint(&self) -> Vec<u8> {
        let (kty, crv) = self.names();
        let numbers = self.number_names().iter().zip(self.numbers());
        let mut members: Vec<String> = numbers
            .map(|(name, number)| format!("\"{name}\":\"{}\"", URL_SAFE_NO_PAD.encode(number)))
            .chain(crv.map(|crv| format!("\"crv\":\"{crv}\"")))
            .chain([format!("\"kty\":\"{kty}\"")])
            .collect();
        members.sort();
        let text = format!("{{{}}}", members.join(","));
        digest::digest(&digest::SHA256, text.as_bytes()).as_ref().to_vec()
    }

    /// The values of `kty` and `crv`.
    fn names(&self) -> (&'static str, Option<&'static str>) {
        match self.key_type {
            KeyType::Oct => ("oct", None),
            KeyType::Rsa => ("RSA", None),
            KeyType::P256 => ("EC", Some("P-256")),
            KeyType::P384 => ("EC", Some("P-384")),
            KeyType::Ed25519 => ("OKP", Some("Ed25519")),
        }
    }

    fn number_names(&self) -> &'static [&'static str] {
        match self.key_type {
            KeyType::Oct => &["k"],
            KeyType::Rsa => &["n", "e"],
            KeyType::P256 | KeyType::P384 => &["x", "y"],
            KeyType::Ed25519 => &["x"],
        }
    }

    /// The values of the members that [`Key::number_names`] lists.
    pub(crate) fn numbers(&self) -> Vec<Vec<u8>> {
        match self.material.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => vec![n.to_vec(), e.to_vec()],
            DecodingKeyKind::SecretOrDer(bytes) => match (self.key_type, bytes.split_first()) {
                (KeyType::P256 | KeyType::P384, Some((_, point))) => {
                    let (x, y) = point.split_at(point.len() / 2);
                    vec![x.to_vec(), y.to_vec()]
                }
                _ => vec![bytes.to_vec()],
            },
        }
    }
}

/// Appends bytes with their length before them, so that different parts never give the same result.
fn append(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(bytes.len().to_be_bytes());
    to.extend(bytes);
}

/// A member of a JWK. A member that is null or an empty array counts as absent, since libraries write
/// such members for values that are not set.
pub(crate) fn member<'o, 'j>(object: &'o Object<'j>, name: &str) -> Option<&'o Json<'j>> {
    object.get(name).filter(|value| has_value(value))
}

fn has_value(value: &Json<'_>) -> bool {
    !matches!(value, Json::Null) && value.as_array().is_none_or(|items| !items.is_empty())
}

pub(crate) fn key_type_name<'e>(entry: &'e Json<'_>) -> Option<&'e str> {
    member(entry.as_object()?, "kty")?.as_str()
}

pub(crate) fn private_member<'o>(object: &'o Object<'_>) -> Option<&'o str> {
    let mut members = object.iter().filter(|(_, value)| has_value(value)).map(|(name, _)| name);
    members.find(|name| PRIVATE_MEMBERS.contains(name))
}

/// The public text that the bytes of a symmetric key contain, if any.
pub(crate) fn public_secret(object: &Object<'_>) -> Option<Found> {
    let is_symmetric = string(object, "kty").is_ok_and(|kty| kty == Some("oct"));
    let secret = is_symmetric.then(|| bytes(object, "k").ok())??;
    secret::find(&secret)
}

fn string<'o>(object: &'o Object<'_>, name: &str) -> Result<Option<&'o str>, String> {
    match member(object, name) {
        None => Ok(None),
        Some(value) => match value.as_str() {
            Some(text) => Ok(Some(text)),
            None => Err(format!("Its {name} is {}, not a string.", value.type_name())),
        },
    }
}

/// A string member of a JWK. An empty string counts as absent, since some libraries write an empty
/// `use` or `alg`. It is not used for `kid`: an empty `kid` is compared with the token's.
fn nonempty_string<'o>(object: &'o Object<'_>, name: &str) -> Result<Option<&'o str>, String> {
    Ok(string(object, name)?.filter(|text| !text.is_empty()))
}

fn required<'o>(object: &'o Object<'_>, name: &str) -> Result<&'o str, String> {
    string(object, name)?.ok_or_else(|| format!("It has no {name}."))
}

/// The bytes of a member, in base64url or base64, with complete padding or without padding.
fn bytes(object: &Object<'_>, name: &str) -> Result<Vec<u8>, String> {
    let text = required(object, name)?;
    let digits = text.trim_end_matches('=');
    let is_padded = digits.len() != text.len();
    let has_either = !(digits.contains(['+', '/']) && digits.contains(['-', '_']));
    let is_whole = !is_padded || text.len() % 4 == 0 && text.len() - digits.len() <= 2;
    let digits = digits.replace('+', "-").replace('/', "_");
    let decoded = URL_SAFE_NO_PAD.decode(digits).ok().filter(|_| has_either && is_whole);
    decoded.ok_or_else(|| format!("Its {name} is not base64url."))
}

/// Removes the leading zeros of a number.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|octet| **octet == 0).count();
    &number[zeros..]
}
