//! JSON Web Keys and sets of them (RFC 7517, RFC 7518 section 6, RFC 8037), read entry by entry:
//! what a key may be used for is decided here, once, when it is loaded.

use std::collections::{HashMap, HashSet};

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curve25519_dalek::edwards::CompressedEdwardsY;
use jsonwebtoken::{DecodingKey, DecodingKeyKind};

use crate::algorithm::{Algorithm, AlgorithmSet, KeyType};
use crate::json::{Json, JsonError, Object, json_string, push};
use crate::memory;
use crate::provider::check_document_length;
use crate::rejection::{Code, Rejection, quoted, quoted_list, reject};

/// RSA moduli in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The members that only a private key has (RFC 7518 sections 6.2.2 and 6.3.2).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "priv"];

/// A JWK or a JWK set, checked: the keys that tokens may be verified with.
///
/// Its `Debug` form names no key material.
pub struct KeySet {
    keys: Vec<Key>,
    /// Where in `keys` each key id is.
    by_kid: HashMap<String, usize>,
    /// A bare secret has no key id to match, so a token's kid does not matter.
    any_kid: bool,
    /// The first of the entries that cannot be used.
    unusable: Vec<UnusableKey>,
    /// How many there are.
    unusable_count: usize,
}

/// One usable key.
pub(crate) struct Key {
    kid: Option<String>,
    key_type: KeyType,
    /// Whether the JWK itself names its algorithm, which then is the only one.
    bound: bool,
    /// Nought but for HMAC keys.
    secret_bytes: usize,
    material: DecodingKey,
    algorithms: AlgorithmSet,
}

/// Where a set comes from, and so what a single entry may cost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// An administrator wrote it, and is told what is wrong with it.
    Configured,
    /// A provider published it: one bad entry does not cost the others, and a symmetric key is
    /// everybody's.
    Fetched,
}

/// What a provider has published, reduced to what is used of it.
pub struct FetchedKeys {
    /// A JWK set of the usable keys, in ASCII, ordered by key id: the same keys give the same text.
    pub jwks: String,
    /// The entries that were passed over.
    pub passed_over: Vec<UnusableKey>,
}

/// The most keys that a fetched set may have.
const MOST_FETCHED: usize = 100;

/// How many bytes a fetched set may have, both as it is published and as it is kept.
pub const MAX_FETCHED_BYTES: usize = 256 * 1024;

/// Of how many entries that cannot be used a set keeps the reasons, which may be longer than the
/// entries: as many as a fetched set may have.
const MOST_REASONS: usize = MOST_FETCHED;

/// An entry of a JWK set that is passed over, as RFC 7517 section 5 asks, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusableKey {
    /// Its place in the set, from nought.
    pub index: usize,
    /// Its key id, where it has one.
    pub kid: Option<String>,
    /// Why no token is verified with it; a whole sentence.
    pub reason: String,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kids: Vec<_> = self.keys.iter().map(|key| &key.kid).collect();
        f.debug_struct("KeySet").field("kids", &kids).field("unusable", &self.unusable).finish()
    }
}

impl KeySet {
    /// Reads a JWK or a JWK set. Each key is bound to the algorithm it names, or else to the
    /// usual one of its type: RS256, ES256 or ES384 by curve, EdDSA, HS256.
    ///
    /// # Errors
    /// [`Code::Configuration`] where the text is neither, where no key in it can be used, where
    /// two keys have one kid, where a key is private, and where a set mixes symmetric and
    /// asymmetric keys; and where the text is longer than [`crate::MAX_DOCUMENT_BYTES`].
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        check_document_length(text)?;
        let value = Json::parse(text.as_bytes())
            .map_err(|error| wrong("key set is not valid JSON").with_detail(error.to_string()))?;
        Self::from_json(&value)
    }

    /// Reads what a provider has published. An entry that cannot be used, for whatever reason, is
    /// passed over; so is a symmetric one, and a private one.
    ///
    /// # Errors
    /// [`Code::Configuration`] where it is neither a JWK nor a JWK set, where no key in it can be
    /// used, with these `algorithms` if any are given, and where there are more than a hundred or
    /// they are longer than [`MAX_FETCHED_BYTES`].
    pub fn fetched(text: &str, algorithms: Option<AlgorithmSet>) -> Result<FetchedKeys, Rejection> {
        let invalid =
            |error: JsonError| wrong("key set is not valid JSON").with_detail(error.to_string());
        check_fetched_length(text)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // A name that stands twice in one key costs no other.
        let value = Json::parse_leniently(text.as_bytes()).map_err(invalid)?;
        if let Some(object) = value.as_object() {
            object.check_names().map_err(invalid)?;
        }
        let mut set = Self::from_fetched(&value)?;
        let passed_over = std::mem::take(&mut set.unusable);
        let is_used = |index: &usize| passed_over.iter().all(|unusable| unusable.index != *index);
        let mut used: Vec<(&Option<String>, String)> = Self::entries(&value)?
            .iter()
            .enumerate()
            .filter(|(index, _)| is_used(index))
            .zip(&set.keys)
            .map(|((_, entry), key)| (&key.kid, published(entry)))
            .collect();
        used.sort();
        let entries: Vec<String> = used.into_iter().map(|(_, entry)| entry).collect();
        let jwks = format!("{{\"keys\":[{}]}}", entries.join(","));
        check_fetched_length(&jwks)?;
        match algorithms {
            None => {}
            Some(listed) => drop(set.with_algorithms(listed)?),
        }
        Ok(FetchedKeys { jwks, passed_over })
    }

    pub(crate) fn from_fetched(value: &Json<'_>) -> Result<Self, Rejection> {
        Self::from_entries(Self::entries(value)?, Origin::Fetched)
    }

    pub(crate) fn from_json(value: &Json<'_>) -> Result<Self, Rejection> {
        Self::from_entries(Self::entries(value)?, Origin::Configured)
    }

    /// The entries of a set; a single JWK is one.
    fn entries<'v>(value: &'v Json<'v>) -> Result<&'v [Json<'v>], Rejection> {
        let Some(object) = value.as_object() else {
            return Err(wrong("key set is not a JWK or a JWK set")
                .with_detail(format!("It is {}, not an object.", value.type_name())));
        };
        match (object.get("keys"), object.get("kty")) {
            (Some(_), Some(_)) => Err(wrong("key set is not a JWK or a JWK set")
                .with_detail("It has both \"keys\" and \"kty\".")),
            (None, None) => Err(wrong("key set is not a JWK or a JWK set")
                .with_detail("It has neither \"keys\" nor \"kty\".")
                .with_hint(
                    "A JWK is an object with a \"kty\", a JWK set one with an array of them as \
                     \"keys\".",
                )),
            (Some(keys), None) => match keys.as_array() {
                Some(entries) => Ok(entries),
                None => Err(wrong("key set is not a JWK or a JWK set")
                    .with_detail(format!("Its \"keys\" is {}, not an array.", keys.type_name()))),
            },
            (None, Some(_)) => Ok(std::slice::from_ref(value)),
        }
    }

    /// No keys, so that nothing verifies.
    pub(crate) fn none() -> Self {
        Self::new(Vec::new(), Vec::new())
    }

    fn new(keys: Vec<Key>, unusable: Vec<UnusableKey>) -> Self {
        let with_place = |(place, key): (usize, &Key)| Some((key.kid.clone()?, place));
        let by_kid = keys.iter().enumerate().filter_map(with_place).collect();
        Self { keys, by_kid, any_kid: false, unusable_count: unusable.len(), unusable }
    }

    /// A bare HMAC secret, its bytes being those of the text in UTF-8. It verifies HS256 and the
    /// token's kid, which nothing here could match, is not considered.
    ///
    /// # Errors
    /// [`Code::Configuration`] where it is too short, or looks like what is no secret: a public key as
    /// a secret would let everybody sign.
    pub(crate) fn from_secret(secret: &str) -> Result<Self, Rejection> {
        let looks = secret.trim_start();
        let is_json =
            || Json::parse(secret.as_bytes()).is_ok_and(|json| json.as_object().is_some());
        let what = match looks {
            _ if looks.starts_with("-----BEGIN") => Some("a key in PEM"),
            _ if looks.starts_with("https://") || looks.starts_with("http://") => Some("a URL"),
            _ if looks.starts_with('{') && is_json() => Some("a JSON object"),
            _ => None,
        };
        if let Some(what) = what {
            return Err(wrong("secret cannot be used")
                .with_detail(format!("It is {what}."))
                .with_hint("Give keys as \"jwks\", and a URL as \"jwks_url\"."));
        }
        let key = Key::hmac(secret.as_bytes(), None)
            .map_err(|reason| wrong("secret cannot be used").with_detail(reason))?;
        Ok(Self { any_kid: true, ..Self::new(vec![key], Vec::new()) })
    }

    fn from_entries(entries: &[Json<'_>], origin: Origin) -> Result<Self, Rejection> {
        let is_fetched = origin == Origin::Fetched;
        let types = || entries.iter().filter_map(key_type_name);
        let (all, symmetric) = (types().count(), types().filter(|kty| *kty == "oct").count());
        if !is_fetched && symmetric != 0 && symmetric != all {
            return Err(wrong("key set mixes symmetric and asymmetric keys")
                .with_detail(format!("Of its {all} keys {symmetric} have the kty \"oct\".")));
        }
        if is_fetched && entries.len() > MOST_FETCHED {
            return Err(wrong("key set has too many keys").with_detail(format!(
                "It has {}; the limit for a set that is fetched is {MOST_FETCHED}.",
                entries.len()
            )));
        }
        let mut kids = HashSet::new();
        let (mut keys, mut unusable, mut unusable_count) = (Vec::new(), Vec::new(), 0);
        for (index, entry) in entries.iter().enumerate() {
            let object = entry.as_object();
            let kid = object.and_then(|object| object.get("kid")).and_then(Json::as_str);
            let private = object.and_then(private_member);
            if let Some(kid) = kid
                && !is_fetched
                && !kids.insert(kid)
            {
                return Err(wrong("key set has one key id twice")
                    .with_detail(format!("Two of its keys have the kid {}.", quoted(kid))));
            }
            if let Some(member) = private
                && !is_fetched
            {
                return Err(wrong("key is private")
                    .with_detail(format!(
                        "Key {} has the member {}, which only a private key has.",
                        place(index, kid),
                        quoted(member)
                    ))
                    .with_hint(
                        "Configure the public key, without the members of the private one; \
                         replace the key pair if this text has been seen by others.",
                    ));
            }
            let key = match private {
                Some(member) => Err(format!("It is private, for it has the member \"{member}\".")),
                None => Key::from_jwk(entry).and_then(|key| match kid {
                    _ if is_fetched && key.key_type == KeyType::Oct => {
                        Err("It is symmetric, and so no secret once it is published.".to_owned())
                    }
                    Some(kid) if is_fetched && kid.contains('\0') => {
                        Err("Its kid holds the character U+0000.".to_owned())
                    }
                    Some(kid) if is_fetched && !kids.insert(kid) => {
                        Err("Its kid is that of a key before it.".to_owned())
                    }
                    _ => Ok(key),
                }),
            };
            match key {
                Ok(key) => push(&mut keys, key),
                // A point that could not be looked at is not one that cannot be used.
                Err(_) if key_type_name(entry) == Some("EC") && memory::is_memory_short() => {
                    return Err(memory::out_of_memory());
                }
                Err(reason) => {
                    unusable_count += 1;
                    if unusable.len() < MOST_REASONS {
                        unusable.push(UnusableKey { index, kid: kid.map(str::to_owned), reason });
                    }
                }
            }
        }
        if keys.is_empty() {
            let detail = match unusable.first() {
                None => "It has no keys.".to_owned(),
                Some(first) => {
                    format!("Key {}: {}", place(first.index, first.kid.as_deref()), first.reason)
                }
            };
            return Err(wrong("key set has no key that can be used").with_detail(detail));
        }
        Ok(Self { unusable_count, ..Self::new(keys, unusable) })
    }

    /// The same keys, for these algorithms only: a key that names its algorithm keeps it where
    /// it is listed, another gets those listed that fit its type and strength.
    ///
    /// # Errors
    /// [`Code::Configuration`] where that leaves no key with any algorithm.
    pub fn with_algorithms(mut self, listed: AlgorithmSet) -> Result<Self, Rejection> {
        for key in &mut self.keys {
            key.algorithms = listed
                .iter()
                .filter(|algorithm| {
                    if key.bound {
                        key.algorithms.contains(*algorithm)
                    } else {
                        algorithm.key_type() == key.key_type
                            && algorithm.least_secret() <= key.secret_bytes
                    }
                })
                .collect();
        }
        if self.algorithms().is_empty() {
            return Err(wrong("no key fits the algorithms listed")
                .with_detail(format!("Listed are {}.", listed.names())));
        }
        Ok(self)
    }

    /// Whether a token with this key id could have been signed with one of the keys.
    pub fn has_kid(&self, kid: &str) -> bool {
        self.any_kid || self.by_kid.contains_key(kid)
    }

    /// Whether there is no key at all, as before the first ones were fetched.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The usable keys: their key ids, and the algorithms that they may be used with.
    pub fn usable(&self) -> impl Iterator<Item = (Option<&str>, AlgorithmSet)> {
        self.keys.iter().map(|key| (key.kid.as_deref(), key.algorithms))
    }

    /// The usable keys: their key ids and their material.
    pub(crate) fn materials(&self) -> impl Iterator<Item = (Option<&str>, Vec<u8>)> {
        self.keys.iter().map(|key| (key.kid.as_deref(), key.canonical_material()))
    }

    /// The key ids of the keys that can be used.
    pub fn kids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter_map(|key| key.kid.as_deref())
    }

    /// The entries that are passed over, the first hundred of them.
    pub fn unusable(&self) -> &[UnusableKey] {
        &self.unusable
    }

    /// How many entries are passed over.
    pub fn unusable_count(&self) -> usize {
        self.unusable_count
    }

    /// Whether the keys are secrets, by which whoever can read them can also sign.
    pub fn is_symmetric(&self) -> bool {
        self.keys.iter().any(|key| key.key_type == KeyType::Oct)
    }

    /// All algorithms that some key may be used with.
    pub fn algorithms(&self) -> AlgorithmSet {
        algorithms(&self.keys)
    }

    /// The keys that a token with this header may have been signed with: the one with its kid,
    /// or, where it names none, each whose algorithm fits.
    pub(crate) fn candidates(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> Result<impl Iterator<Item = &Key>, Rejection> {
        let named = match kid {
            Some(kid) if !self.any_kid => {
                let place = self.by_kid.get(kid).and_then(|place| self.keys.get(*place));
                place.map_or(&[][..], std::slice::from_ref)
            }
            _ => &self.keys,
        };
        if named.is_empty() {
            return Err(self.no_key(algorithm, kid));
        }
        let allowed = algorithms(named);
        if !allowed.contains(algorithm) {
            return Err(reject(Code::Algorithm, "token algorithm is not allowed").with_detail(
                format!(
                    "The token's alg is {}; {} may be used with {}.",
                    algorithm.name(),
                    if kid.is_none() { "the provider's keys" } else { "its key" },
                    allowed.names()
                ),
            ));
        }
        Ok(named.iter().filter(move |key| key.algorithms.contains(algorithm)))
    }

    fn no_key(&self, algorithm: Algorithm, kid: Option<&str>) -> Rejection {
        if self.keys.is_empty() {
            return reject(Code::NoKey, "provider has no keys yet").with_detail(format!(
                "The token has kid {} and alg {}.",
                kid.map_or_else(|| "none".to_owned(), quoted),
                algorithm.name()
            ));
        }
        let rejection = reject(Code::NoKey, "no key has the token's key id").with_detail(format!(
            "The token has kid {} and alg {}; the provider's keys have the kids {}.",
            kid.map_or_else(|| "none".to_owned(), quoted),
            algorithm.name(),
            quoted_list(self.kids())
        ));
        if self.kids().next().is_none() {
            rejection.with_hint(
                "A token that names a key id is verified with the key of that id only. \
                 Add \"kid\" to the configured key.",
            )
        } else {
            rejection
        }
    }
}

impl Key {
    /// The key's type and numbers, in a form that is the same for equal keys.
    fn canonical_material(&self) -> Vec<u8> {
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

    /// Verifies one signature; the algorithm is one of this key's.
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

    /// Reads one JWK, which is known to be public; the error is a sentence.
    fn from_jwk(entry: &Json<'_>) -> Result<Self, String> {
        let Some(object) = entry.as_object() else {
            return Err(format!("It is {}, not an object.", entry.type_name()));
        };
        object.check_names().map_err(|error| error.to_string())?;
        let kid = string(object, "kid")?.map(str::to_owned);
        if let Some(usage) = string(object, "use")?
            && usage != "sig"
        {
            return Err(format!("Its use is {}, not \"sig\".", quoted(usage)));
        }
        if let Some(operations) = object.get("key_ops") {
            let Some(operations) = operations.as_strings() else {
                return Err("Its key_ops is not an array of strings.".to_owned());
            };
            if !operations.contains(&"verify") {
                return Err("Its key_ops does not contain \"verify\".".to_owned());
            }
            // RFC 7517 section 4.3.
            if operations.iter().enumerate().any(|(index, op)| operations[..index].contains(op)) {
                return Err("Its key_ops names one operation twice.".to_owned());
            }
        }
        let declared = match string(object, "alg")? {
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
                Ok(Self { kid, bound: true, algorithms: [algorithm].into_iter().collect(), ..key })
            }
            None => Ok(Self { kid, ..key }),
        }
    }

    fn new(key_type: KeyType, material: DecodingKey) -> Self {
        Self {
            kid: None,
            key_type,
            bound: false,
            secret_bytes: 0,
            material,
            algorithms: [key_type.default_algorithm()].into_iter().collect(),
        }
    }

    /// A secret at least as long as the hash (RFC 7518 section 3.2).
    fn hmac(secret: &[u8], algorithm: Option<Algorithm>) -> Result<Self, String> {
        let algorithm = algorithm.unwrap_or(KeyType::Oct.default_algorithm());
        if secret.len() < algorithm.least_secret() {
            return Err(format!(
                "It has {} bytes; {} needs at least {} (RFC 7518 section 3.2).",
                secret.len(),
                algorithm.name(),
                algorithm.least_secret()
            ));
        }
        let key = Self::new(KeyType::Oct, DecodingKey::from_secret(secret));
        Ok(Self { secret_bytes: secret.len(), ..key })
    }

    fn rsa(n: &[u8], e: &[u8]) -> Result<Self, String> {
        if n.first().is_none_or(|byte| *byte == 0) || e.first().is_none_or(|byte| *byte == 0) {
            return Err("Its n or e is empty or begins with a zero octet, against RFC 7518 \
                        section 2."
                .to_owned());
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
        // The primitives take exponents of at most 33 bits.
        if e.len() > 5 || exponent >> 33 != 0 || exponent < 3 || exponent.is_multiple_of(2) {
            return Err("Its exponent is not an odd number from 3 up, below 2^33.".to_owned());
        }
        if n[n.len() - 1].is_multiple_of(2) {
            return Err("Its modulus is even.".to_owned());
        }
        Ok(Self::new(KeyType::Rsa, DecodingKey::from_rsa_raw_components(n, e)))
    }

    fn ec(crv: &str, x: &[u8], y: &[u8]) -> Result<Self, String> {
        let (key_type, length, verification): (_, _, &'static dyn VerificationAlgorithm) = match crv
        {
            "P-256" => (KeyType::P256, 32, &signature::ECDSA_P256_SHA256_FIXED),
            "P-384" => (KeyType::P384, 48, &signature::ECDSA_P384_SHA384_FIXED),
            other => return Err(format!("Its crv {} is not supported.", quoted(other))),
        };
        if x.len() != length || y.len() != length {
            return Err(format!(
                "Its coordinates have {} and {} bytes; {crv} needs {length} each.",
                x.len(),
                y.len()
            ));
        }
        // SEC 1 section 2.3.3, uncompressed.
        let point = [&[4], x, y].concat();
        if ParsedPublicKey::new(verification, &point).is_err() {
            return Err(format!("Its coordinates are no point on {crv}."));
        }
        // For this key type the primitives take the point as it is.
        Ok(Self::new(key_type, DecodingKey::from_ec_der(&point)))
    }

    fn okp(crv: &str, x: &[u8]) -> Result<Self, String> {
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
        // Every message has a signature that such a key verifies.
        if point.is_small_order() {
            return Err("Its x is a point of small order.".to_owned());
        }
        Ok(Self::new(KeyType::Ed25519, DecodingKey::from_ed_der(x)))
    }
}

/// Appends bytes and, before them, their number, so that two parts cannot be mistaken for another two.
fn append(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(bytes.len().to_be_bytes());
    to.extend(bytes);
}

/// A public key's entry with the members that matter, whose texts are known to be right.
fn published(entry: &Json<'_>) -> String {
    const MEMBERS: [&str; 8] = ["kid", "kty", "alg", "crv", "x", "y", "n", "e"];
    let members = MEMBERS.iter().filter_map(|name| {
        let value = entry.as_object()?.get(name)?.as_str()?;
        Some(format!("\"{name}\":{}", json_string(value)))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn algorithms(keys: &[Key]) -> AlgorithmSet {
    keys.iter().fold(AlgorithmSet::default(), |set, key| set.union(key.algorithms))
}

fn check_fetched_length(text: &str) -> Result<(), Rejection> {
    if text.len() <= MAX_FETCHED_BYTES {
        return Ok(());
    }
    Err(wrong("key set is too long")
        .with_detail(format!("The limit for a set that is fetched is {MAX_FETCHED_BYTES} bytes.")))
}

fn wrong(message: &'static str) -> Rejection {
    reject(Code::Configuration, message)
}

/// An entry of a set as a message names it.
fn place(index: usize, kid: Option<&str>) -> String {
    match kid {
        Some(kid) => format!("{} (kid {})", index + 1, quoted(kid)),
        None => (index + 1).to_string(),
    }
}

fn key_type_name<'e>(entry: &'e Json<'_>) -> Option<&'e str> {
    entry.as_object()?.get("kty")?.as_str()
}

fn private_member<'o>(object: &'o Object<'_>) -> Option<&'o str> {
    object.iter().map(|(name, _)| name).find(|name| PRIVATE_MEMBERS.contains(name))
}

fn string<'o>(object: &'o Object<'_>, name: &str) -> Result<Option<&'o str>, String> {
    match object.get(name) {
        None => Ok(None),
        Some(value) => match value.as_str() {
            Some(text) => Ok(Some(text)),
            None => Err(format!("Its {name} is {}, not a string.", value.type_name())),
        },
    }
}

fn required<'o>(object: &'o Object<'_>, name: &str) -> Result<&'o str, String> {
    string(object, name)?.ok_or_else(|| format!("It has no {name}."))
}

fn bytes(object: &Object<'_>, name: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD
        .decode(required(object, name)?)
        .map_err(|_| format!("Its {name} is not base64url without padding."))
}
