//! JSON Web Keys and sets of them (RFC 7517, RFC 7518 section 6, RFC 8037), read entry by entry:
//! what a key may be used for is decided here, once, when it is loaded.

use std::collections::HashMap;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curve25519_dalek::edwards::CompressedEdwardsY;
use jsonwebtoken::{DecodingKey, DecodingKeyKind};

use crate::algorithm::{Algorithm, AlgorithmSet, KeyType};
use crate::encoding::{self, Encoding};
use crate::json::{Json, JsonError, Object, json_string, push};
use crate::memory;
use crate::public_key::PublicKey;
use crate::rejection::{Code, Rejection, quoted, quoted_list, reject};
use crate::secret::{self, Found};
use crate::slips;

/// RSA moduli in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The members that only a private key has (RFC 7518 sections 6.2.2 and 6.3.2).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "priv"];

/// A JWK or a JWK set, checked: the keys that tokens may be verified with.
///
/// Its `Debug` form names no key material.
pub struct KeySet {
    /// Those for which the token's key id does not matter come last.
    keys: Vec<Key>,
    /// Where in `keys` the keys of each key id are.
    by_kid: HashMap<String, Vec<usize>>,
    /// How many keys come before those for which the token's key id does not matter.
    identified: usize,
    /// Whether a token's algorithm decides which keys count at all: for HMAC the secret, for any other
    /// the public ones.
    by_kind: bool,
    /// Whether the public keys have not been fetched yet.
    is_waiting: bool,
    /// The first of the entries that cannot be used.
    unusable: Vec<UnusableKey>,
    /// How many there are.
    unusable_count: usize,
}

/// One usable key.
pub(crate) struct Key {
    kid: Option<String>,
    /// Its place in the set that it comes from, from zero.
    index: u32,
    /// A secret or a key in PEM has no key id to match, so the token's does not matter.
    any_kid: bool,
    key_type: KeyType,
    /// The algorithm that the JWK itself names, which then is the only one.
    declared: Option<Algorithm>,
    /// Zero but for HMAC keys.
    secret_bytes: usize,
    /// In what encoding the secret may be.
    encoding: Option<Encoding>,
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

/// How many bytes a document in a setting may have: a thousand providers or keys with 4 KiB each, which
/// is more than an RSA key of 8192 bits takes.
pub const MAX_DOCUMENT_BYTES: usize = 4 * 1024 * 1024;

/// How many bytes a fetched set may have, both as it is published and as it is kept.
pub const MAX_FETCHED_BYTES: usize = 256 * 1024;

/// Of how many entries that cannot be used a set keeps the reasons, which may be longer than the
/// entries: as many as a fetched set may have.
const MOST_REASONS: usize = MOST_FETCHED;

/// With how many secrets a signature is looked at once more, for a message.
const MOST_SECRETS: usize = 4;

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
        let value =
            Json::parse(text.as_bytes()).map_err(|error| not_json(NOT_JSON, text, &error))?;
        let set = Self::from_json(&value)?;
        set.check_distinct()?;
        Ok(set)
    }

    /// Reads what a provider has published. An entry that cannot be used, for whatever reason, is
    /// passed over; so is a symmetric one, and a private one.
    ///
    /// # Errors
    /// [`Code::Configuration`] where it is neither a JWK nor a JWK set, where no key in it can be
    /// used, with these `algorithms` if any are given, and where there are more than a hundred or
    /// they are longer than [`MAX_FETCHED_BYTES`].
    pub fn fetched(text: &str, algorithms: Option<AlgorithmSet>) -> Result<FetchedKeys, Rejection> {
        check_fetched_length(text)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // A name that stands twice in one key costs no other.
        let value = Json::parse_leniently(text.as_bytes())
            .map_err(|error| misplaced(NOT_JSON, text, &error))?;
        if let Some(object) = value.as_object() {
            object.check_names().map_err(|error| misplaced(NOT_JSON, text, &error))?;
        }
        let mut set = Self::from_fetched(&value)?;
        if let Some(listed) = algorithms {
            set = set.with_algorithms(listed)?;
        }
        let set = set.without_duplicates();
        let mut used: Vec<(&Option<String>, String)> =
            set.keys.iter().map(|key| (&key.kid, key.published())).collect();
        used.sort();
        let entries: Vec<String> = used.into_iter().map(|(_, entry)| entry).collect();
        let jwks = format!("{{\"keys\":[{}]}}", entries.join(","));
        check_fetched_length(&jwks)?;
        Ok(FetchedKeys { jwks, passed_over: set.unusable })
    }

    pub(crate) fn from_fetched(value: &Json<'_>) -> Result<Self, Rejection> {
        Self::from_entries(Self::entries(value)?, Origin::Fetched)
    }

    pub(crate) fn from_json(value: &Json<'_>) -> Result<Self, Rejection> {
        Self::from_entries(Self::entries(value)?, Origin::Configured)
    }

    /// The entries of a set; a single JWK is one.
    fn entries<'v>(value: &'v Json<'v>) -> Result<&'v [Json<'v>], Rejection> {
        const MESSAGE: &str = "key set is not a JWK or a JWK set";
        let Some(object) = value.as_object() else {
            let found = match value {
                Json::String(text) => secret::find(text.as_bytes()),
                Json::Array(items) if items.iter().any(|item| key_type_name(item).is_some()) => {
                    Some(Found::KeyList)
                }
                _ => None,
            };
            return Err(match found {
                Some(found @ (Found::Jwk | Found::JwkSet)) => wrong(MESSAGE)
                    .with_detail(format!("It is a string that holds {}.", found.description()))
                    .with_hint(
                        "The set must be the JSON object itself, without quotes around it and without \
                         a backslash before each quote in it.",
                    ),
                Some(found) => instead(MESSAGE, found),
                None => wrong(MESSAGE)
                    .with_detail(format!("It is {}, not an object.", value.type_name())),
            });
        };
        match (member(object, "keys"), member(object, "kty")) {
            (Some(_), Some(_)) => {
                Err(wrong(MESSAGE).with_detail("It has both \"keys\" and \"kty\"."))
            }
            (Some(keys), None) => match keys.as_array() {
                Some(entries) => Ok(entries),
                None => Err(wrong(MESSAGE)
                    .with_detail(format!("Its \"keys\" is {}, not an array.", keys.type_name()))),
            },
            (None, Some(_)) => Ok(std::slice::from_ref(value)),
            (None, None) if object.get("keys").is_some_and(|keys| keys.as_array().is_some()) => {
                Ok(&[])
            }
            (None, None) => match secret::kind_of_object(object) {
                found @ (Found::Discovery | Found::CertificateMap | Found::Realm) => {
                    Err(instead(MESSAGE, found))
                }
                _ => Err(wrong(MESSAGE)
                    .with_detail("It has neither \"keys\" nor \"kty\".")
                    .with_hint(
                        "A JWK is an object with a \"kty\", a JWK set one with an array of them as \
                         \"keys\".",
                    )),
            },
        }
    }

    /// The same secret where it turns out to be public: no key, and the reason.
    pub(crate) fn unusable_secret(reason: String) -> Self {
        Self::new(Vec::new(), vec![UnusableKey { index: 0, kid: None, reason }])
    }

    /// No keys, so that nothing verifies.
    pub(crate) fn none() -> Self {
        Self::new(Vec::new(), Vec::new())
    }

    fn new(mut keys: Vec<Key>, unusable: Vec<UnusableKey>) -> Self {
        keys.sort_by_key(|key| key.any_kid);
        let mut by_kid: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, key) in keys.iter().enumerate() {
            if let Some(kid) = &key.kid {
                match by_kid.get_mut(kid) {
                    Some(places) => places.push(place),
                    None => drop(by_kid.insert(kid.clone(), vec![place])),
                }
            }
        }
        let identified = keys.iter().filter(|key| !key.any_kid).count();
        let unusable_count = unusable.len();
        let (by_kind, is_waiting) = (false, false);
        Self { keys, by_kid, identified, by_kind, is_waiting, unusable, unusable_count }
    }

    /// A bare HMAC secret, its bytes being those of the text in UTF-8. It verifies HS256, and the
    /// token's kid is not considered.
    ///
    /// # Errors
    /// [`Code::Configuration`] where it is too short, where it begins or ends with a line end, and where
    /// it holds what everybody can read: by a public text as a secret, everybody could sign.
    pub(crate) fn from_secret(secret: &str) -> Result<Self, Rejection> {
        const MESSAGE: &str = "secret cannot be used";
        if let Some(found) = secret::find(secret.as_bytes()) {
            return Err(instead(MESSAGE, found));
        }
        let is_at_edge = |character: Option<char>| {
            character.is_some_and(|c| {
                c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}')
            })
        };
        let (first, last) = (secret.chars().next(), secret.chars().next_back());
        if is_at_edge(first) || is_at_edge(last) {
            let end = if is_at_edge(first) { "begins" } else { "ends" };
            return Err(wrong(MESSAGE)
                .with_detail(format!(
                    "It {end} with a line end, a byte order mark or another control character."
                ))
                .with_hint(
                    "Leave the character out. If it belongs to the secret, give the bytes as \"jwks\": \
                     a JWK with \"kty\": \"oct\" and the base64url of the bytes as \"k\".",
                ));
        }
        let key = Key::hmac(secret.as_bytes(), None)
            .map_err(|reason| wrong(MESSAGE).with_detail(reason))?;
        let encoding = encoding::likely_encoding(secret);
        Ok(Self::new(vec![Key { any_kid: true, encoding, ..key }], Vec::new()))
    }

    /// A public key in PEM. The token's kid is not considered.
    ///
    /// # Errors
    /// [`Code::Configuration`] where the text is not exactly one public key that can be used.
    pub(crate) fn from_pem(text: &str) -> Result<Self, Rejection> {
        const MESSAGE: &str = "public key cannot be used";
        let key = PublicKey::parse(text)
            .map_err(|error| wrong(MESSAGE).with_detail(error.detail).with_hint(error.hint))?;
        let key = match key {
            PublicKey::Rsa { n, e } => Key::rsa(&n, &e),
            PublicKey::Ec { crv, x, y } => Key::ec(crv, &x, &y),
            PublicKey::Ed25519(x) => Key::okp("Ed25519", &x),
        };
        let key = key.map_err(|reason| match memory::is_memory_short() {
            true => memory::out_of_memory(),
            false => wrong(MESSAGE).with_detail(reason),
        })?;
        Ok(Self::new(vec![Key { any_kid: true, ..key }], Vec::new()))
    }

    /// The keys of several members of one provider. Where a secret is among them, it is for HMAC alone,
    /// and the others for anything else.
    pub(crate) fn join(sets: impl IntoIterator<Item = Self>) -> Self {
        let mut sets: Vec<Self> = sets.into_iter().collect();
        if sets.len() == 1
            && let Some(only) = sets.pop()
        {
            return only;
        }
        let mut keys = Vec::with_capacity(sets.iter().map(|set| set.keys.len()).sum());
        let (mut unusable, mut count) = (Vec::new(), 0);
        for set in sets {
            keys.extend(set.keys);
            unusable.extend(set.unusable);
            count += set.unusable_count;
        }
        let by_kind = keys.iter().any(Key::is_secret) && !keys.iter().all(Key::is_secret);
        Self { by_kind, unusable_count: count, ..Self::new(keys, unusable) }
    }

    /// The same where the public keys have not been fetched yet.
    pub(crate) fn waiting(self) -> Self {
        Self { by_kind: true, is_waiting: true, ..self }
    }

    /// Refuses two keys between which a token's kid and algorithm do not decide.
    ///
    /// # Errors
    /// [`Code::Configuration`], with the key id.
    pub(crate) fn check_distinct(&self) -> Result<(), Rejection> {
        match self.duplicates().first().and_then(|place| self.keys.get(*place)) {
            None => Ok(()),
            Some(key) => Err(wrong("key set has one key id twice")
                .with_detail(format!(
                    "Two of its keys have the kid {} and may be used with {}.",
                    quoted(key.kid.as_deref().unwrap_or_default()),
                    key.algorithms.names()
                ))
                .with_hint(
                    "Remove one, or have each name its algorithm in \"alg\", if they differ in it.",
                )),
        }
    }

    /// The same without the later one of two such keys.
    pub(crate) fn without_duplicates(mut self) -> Self {
        let places = self.duplicates();
        if places.is_empty() {
            return self;
        }
        let (mut keys, mut place) = (Vec::new(), 0..);
        for key in std::mem::take(&mut self.keys) {
            if place.next().is_some_and(|place| places.binary_search(&place).is_err()) {
                keys.push(key);
            } else {
                let reason = "Its kid is that of a key before it that fits the same algorithm.";
                self.unusable_count += 1;
                self.unusable.push(UnusableKey {
                    index: key.index as usize,
                    kid: key.kid,
                    reason: reason.to_owned(),
                });
            }
        }
        self.unusable.sort_by_key(|unusable| unusable.index);
        self.unusable.truncate(MOST_REASONS);
        let count = self.unusable_count;
        Self { unusable_count: count, ..Self::new(keys, self.unusable) }
    }

    /// Where the later ones of two keys are that have one kid and a common algorithm, but are not the
    /// same key.
    fn duplicates(&self) -> Vec<usize> {
        let mut found = Vec::new();
        for places in self.by_kid.values().filter(|places| places.len() > 1) {
            // No more than there are algorithms.
            let mut distinct: Vec<(&Key, AlgorithmSet)> = Vec::new();
            for place in places {
                let Some(key) = self.keys.get(*place).filter(|key| !key.algorithms.is_empty())
                else {
                    continue;
                };
                let is_same = |other: &Key| other.is_same_key(key);
                let common = |algorithms: AlgorithmSet| {
                    key.algorithms.iter().any(|algorithm| algorithms.contains(algorithm))
                };
                if distinct.iter().any(|(other, theirs)| !is_same(other) && common(*theirs)) {
                    found.push(*place);
                    continue;
                }
                match distinct.iter_mut().find(|(other, _)| is_same(other)) {
                    Some((_, algorithms)) => *algorithms = algorithms.union(key.algorithms),
                    None => distinct.push((key, key.algorithms)),
                }
            }
        }
        found.sort_unstable();
        found
    }

    fn from_entries(entries: &[Json<'_>], origin: Origin) -> Result<Self, Rejection> {
        let is_fetched = origin == Origin::Fetched;
        let types = || entries.iter().filter_map(key_type_name);
        let (all, symmetric) = (types().count(), types().filter(|kty| *kty == "oct").count());
        if !is_fetched && symmetric != 0 && symmetric != all {
            return Err(wrong("key set mixes symmetric and asymmetric keys")
                .with_detail(format!("Of its {all} keys {symmetric} have the kty \"oct\"."))
                .with_hint("Give the symmetric key as \"secret\", beside the others."));
        }
        if is_fetched && entries.len() > MOST_FETCHED {
            return Err(wrong("key set has too many keys").with_detail(format!(
                "It has {}; the limit for a set that is fetched is {MOST_FETCHED}.",
                entries.len()
            )));
        }
        let (mut keys, mut unusable, mut unusable_count) = (Vec::new(), Vec::new(), 0);
        for (index, entry) in entries.iter().enumerate() {
            let object = entry.as_object();
            let kid = object.and_then(|object| member(object, "kid")).and_then(Json::as_str);
            let private = object.and_then(private_member);
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
            if !is_fetched && let Some(found) = object.and_then(public_secret) {
                return Err(instead("key cannot be a secret", found).with_detail(format!(
                    "The k of key {} is {}.",
                    place(index, kid),
                    found.description()
                )));
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
                    _ => Ok(key),
                }),
            };
            match key {
                Ok(key) => push(&mut keys, Key { index: index as u32, ..key }),
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
    pub fn with_algorithms(self, listed: AlgorithmSet) -> Result<Self, Rejection> {
        let set = self.for_algorithms(listed);
        if set.algorithms().is_empty() {
            let too_short = listed.iter().find_map(|algorithm| set.too_short(algorithm));
            return Err(wrong("no key fits the algorithms listed").with_detail(format!(
                "Listed are {}.{}",
                listed.names(),
                too_short.map_or_else(String::new, |sentence| format!(" {sentence}"))
            )));
        }
        Ok(set)
    }

    /// The same, also where that leaves no key.
    pub(crate) fn for_algorithms(mut self, listed: AlgorithmSet) -> Self {
        for key in &mut self.keys {
            key.algorithms = listed
                .iter()
                .filter(|algorithm| match key.declared {
                    Some(declared) => *algorithm == declared,
                    None => {
                        algorithm.key_type() == key.key_type
                            && algorithm.least_secret() <= key.secret_bytes
                    }
                })
                .collect();
        }
        self
    }

    /// Whether a token with this key id could have been signed with one of the keys; where a secret is
    /// beside public keys, with one of these.
    pub fn has_kid(&self, kid: &str) -> bool {
        let counts = |key: &Key| !self.by_kind || !key.is_secret();
        self.by_kid.contains_key(kid) || self.keys[self.identified..].iter().any(counts)
    }

    /// Whether the keys are those of a provider of which none have been fetched yet.
    pub fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The usable keys: their key ids, and the algorithms that they may be used with.
    pub fn usable(&self) -> impl Iterator<Item = (Option<&str>, AlgorithmSet)> {
        self.keys.iter().map(|key| (key.kid.as_deref(), key.algorithms))
    }

    /// The same without secrets.
    pub fn public(&self) -> impl Iterator<Item = (Option<&str>, AlgorithmSet)> {
        let public = self.keys.iter().filter(|key| !key.is_secret());
        public.map(|key| (key.kid.as_deref(), key.algorithms))
    }

    /// The usable public keys: their key ids and their material.
    pub(crate) fn materials(&self) -> impl Iterator<Item = (Option<&str>, Vec<u8>)> {
        let public = self.keys.iter().filter(|key| !key.is_secret());
        public.map(|key| (key.kid.as_deref(), key.canonical_material()))
    }

    /// The bytes of the secrets.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &[u8]> {
        let secrets = self.keys.iter().filter(|key| key.is_secret());
        secrets.filter_map(|key| match key.material.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => Some(bytes.as_slice()),
            DecodingKeyKind::RsaModulusExponent { .. } => None,
        })
    }

    /// The numbers of the public keys and their thumbprints.
    pub(crate) fn public_values(&self) -> impl Iterator<Item = Vec<u8>> {
        let public = self.keys.iter().filter(|key| !key.is_secret());
        public.flat_map(|key| key.numbers().into_iter().chain([key.thumbprint()]))
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
        self.keys.iter().any(Key::is_secret)
    }

    /// All algorithms that some key may be used with.
    pub fn algorithms(&self) -> AlgorithmSet {
        algorithms(&self.keys)
    }

    /// The keys that a token with this header may have been signed with: of those with its kid, or,
    /// where it names none, of all, those which fit its algorithm.
    pub(crate) fn candidates(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> Result<impl Iterator<Item = &Key>, Rejection> {
        let named = || self.named(algorithm, kid);
        if !named().any(|key| key.algorithms.contains(algorithm)) {
            return Err(self.no_candidate(algorithm, kid, named().map(|key| key.algorithms)));
        }
        Ok(named().filter(move |key| key.algorithms.contains(algorithm)))
    }

    fn named(&self, algorithm: Algorithm, kid: Option<&str>) -> impl Iterator<Item = &Key> {
        let (places, from) = match kid {
            Some(kid) => (self.by_kid.get(kid).map_or(&[][..], Vec::as_slice), self.identified),
            None => (&[][..], 0),
        };
        let of_kid = places.iter().filter_map(|place| self.keys.get(*place));
        let is_secret = algorithm.key_type() == KeyType::Oct;
        let counts = move |key: &&Key| !self.by_kind || key.is_secret() == is_secret;
        of_kid.chain(&self.keys[from..]).filter(counts)
    }

    fn no_candidate(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        named: impl Iterator<Item = AlgorithmSet>,
    ) -> Rejection {
        let is_unknown = kid.is_some_and(|kid| !self.by_kid.contains_key(kid));
        let mut named = named.peekable();
        // A key without key id is there beside others: the token may be of one of those.
        let is_of_others =
            is_unknown && self.identified != 0 && algorithm.key_type() != KeyType::Oct;
        if named.peek().is_none() || is_of_others {
            return self.no_key(algorithm, kid);
        }
        let allowed = named.fold(AlgorithmSet::default(), AlgorithmSet::union);
        let rejection =
            reject(Code::Algorithm, "token algorithm is not allowed").with_detail(format!(
                "The token's alg is {}; {} may be used with {}.",
                algorithm.name(),
                if kid.is_none() { "the provider's keys" } else { "its key" },
                allowed.names()
            ));
        match self.too_short(algorithm) {
            None => rejection,
            Some(sentence) => rejection.with_hint(format!(
                "{sentence} Use a longer secret, or have tokens signed with {}.",
                allowed.names()
            )),
        }
    }

    /// A sentence where the secrets are shorter than the algorithm needs.
    fn too_short(&self, algorithm: Algorithm) -> Option<String> {
        let secrets = self.keys.iter().filter(|key| key.is_secret());
        let longest = secrets.map(|key| key.secret_bytes).max()?;
        let is_short = algorithm.key_type() == KeyType::Oct && longest < algorithm.least_secret();
        is_short.then(|| {
            format!(
                "The secret has {longest} bytes; {} needs at least {} (RFC 7518 section 3.2).",
                algorithm.name(),
                algorithm.least_secret()
            )
        })
    }

    /// In what encoding the secret may be that a token of this algorithm was verified with.
    pub(crate) fn likely_encoding(&self, algorithm: Algorithm) -> Option<Encoding> {
        let is_secret = algorithm.key_type() == KeyType::Oct;
        self.keys.iter().filter(|_| is_secret).find_map(|key| key.encoding)
    }

    /// The line end with which a secret would have verified a token that it does not: a file has one at its
    /// end.
    pub(crate) fn missing_line_end(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        signing_input: &str,
        signature: &str,
    ) -> Option<&'static str> {
        const ENDS: [(&[u8], &str); 2] = [(b"\n", "a line feed"), (b"\r\n", "CR and LF")];
        let secrets = self
            .named(algorithm, kid)
            .filter(|key| key.is_secret() && key.algorithms.contains(algorithm));
        secrets.take(MOST_SECRETS).find_map(|key| {
            let DecodingKeyKind::SecretOrDer(secret) = key.material.kind() else {
                return None;
            };
            let signed = |(end, _): &&(&[u8], &str)| {
                let material = DecodingKey::from_secret(&[secret, *end].concat());
                Key::new(KeyType::Oct, material).verify(algorithm, signing_input, signature)
            };
            ENDS.iter().find(signed).map(|(_, name)| *name)
        })
    }

    fn no_key(&self, algorithm: Algorithm, kid: Option<&str>) -> Rejection {
        if self.keys.is_empty() || self.is_waiting {
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
        // The second is that of SPIFFE's bundles, whose other keys are for X.509.
        if let Some(usage) = filled(object, "use")?
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
            // RFC 7517 section 4.3.
            if operations.iter().enumerate().any(|(index, op)| operations[..index].contains(op)) {
                return Err("Its key_ops names one operation twice.".to_owned());
            }
        }
        let declared = match filled(object, "alg")? {
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
        // Zeros at the beginning are against RFC 7518 section 2, but the number is the same.
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
        // A coordinate with more or fewer zeros at its beginning is against RFC 7518 section 6.2.1.2, but
        // the number is the same.
        let (numbers, zeros) = ([without_zeros(x), without_zeros(y)], [0; 48]);
        if x.is_empty() || y.is_empty() || numbers.iter().any(|number| number.len() > length) {
            return Err(format!(
                "Its coordinates have {} and {} bytes; {crv} needs {length} each.",
                x.len(),
                y.len()
            ));
        }
        // SEC 1 section 2.3.3, uncompressed.
        let mut point = vec![4];
        for number in numbers {
            point.extend_from_slice(&zeros[..length - number.len()]);
            point.extend_from_slice(number);
        }
        if ParsedPublicKey::new(verification, &point).is_err() {
            return Err(format!("Its coordinates are no point on {crv}."));
        }
        // For this key type the primitives take the point as it is.
        Ok(Self::new(key_type, DecodingKey::from_ec_der(&point)))
    }

    /// Whether the material is the same, whatever the key is called and may be used with.
    fn is_same_key(&self, other: &Self) -> bool {
        use DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
        match (self.material.kind(), other.material.kind()) {
            (SecretOrDer(one), SecretOrDer(two)) => self.key_type == other.key_type && one == two,
            (RsaModulusExponent { n, e }, RsaModulusExponent { n: n2, e: e2 }) => {
                n == n2 && e == e2
            }
            _ => false,
        }
    }

    fn is_secret(&self) -> bool {
        self.key_type == KeyType::Oct
    }

    /// A public key as a JWK with the members that matter, in ASCII and in one form.
    fn published(&self) -> String {
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

    /// The hash of a public key (RFC 7638 section 3).
    fn thumbprint(&self) -> Vec<u8> {
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

    /// The type and the curve as a JWK names them.
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

    /// The numbers that have these names.
    fn numbers(&self) -> Vec<Vec<u8>> {
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

fn algorithms(keys: &[Key]) -> AlgorithmSet {
    keys.iter().fold(AlgorithmSet::default(), |set, key| set.union(key.algorithms))
}

/// Refuses a setting's document that is too long, before it is read.
pub(crate) fn check_document_length(text: &str) -> Result<(), Rejection> {
    if text.len() <= MAX_DOCUMENT_BYTES {
        return Ok(());
    }
    Err(wrong("document is too long")
        .with_detail(format!("It has {} bytes; the limit is {MAX_DOCUMENT_BYTES}.", text.len())))
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

const NOT_JSON: &str = "key set is not valid JSON";

/// A setting that is not JSON: in what form it is instead, or what it is and where that belongs.
pub(crate) fn not_json(message: &'static str, text: &str, error: &JsonError) -> Rejection {
    match error {
        JsonError::Syntax { .. } => slips::in_document(text),
        _ => None,
    }
    .map_or_else(
        || misplaced(message, text, error),
        |(what, hint)| wrong(message).with_detail(format!("It is {what}.")).with_hint(hint),
    )
}

/// A text that is not JSON: what it is instead, and where that belongs.
fn misplaced(message: &'static str, text: &str, error: &JsonError) -> Rejection {
    let rejection = wrong(message).with_detail(error.to_string());
    let found = match error {
        JsonError::Syntax { .. } if !text.trim_start().starts_with(['{', '[']) => {
            secret::find(text.as_bytes())
        }
        _ => None,
    };
    match found {
        Some(Found::Jwk | Found::JwkSet | Found::Json) | None => rejection,
        Some(found) => instead(message, found),
    }
}

/// What was found in place of a key, and where it belongs.
fn instead(message: &'static str, found: Found) -> Rejection {
    wrong(message).with_detail(format!("It is {}.", found.description())).with_hint(found.place())
}

/// An entry of a set as a message names it.
fn place(index: usize, kid: Option<&str>) -> String {
    match kid {
        Some(kid) => format!("{} (kid {})", index + 1, quoted(kid)),
        None => (index + 1).to_string(),
    }
}

/// A member of a JWK. One that is null or an empty array is as good as absent: libraries write out
/// what they have no value for.
fn member<'o, 'j>(object: &'o Object<'j>, name: &str) -> Option<&'o Json<'j>> {
    object.get(name).filter(|value| has_value(value))
}

fn has_value(value: &Json<'_>) -> bool {
    !matches!(value, Json::Null) && value.as_array().is_none_or(|items| !items.is_empty())
}

fn key_type_name<'e>(entry: &'e Json<'_>) -> Option<&'e str> {
    member(entry.as_object()?, "kty")?.as_str()
}

fn private_member<'o>(object: &'o Object<'_>) -> Option<&'o str> {
    let mut members = object.iter().filter(|(_, value)| has_value(value)).map(|(name, _)| name);
    members.find(|name| PRIVATE_MEMBERS.contains(name))
}

/// What the bytes of a symmetric key hold that everybody can read.
fn public_secret(object: &Object<'_>) -> Option<Found> {
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

/// The same where an empty string is as good as absent, as some libraries write it: it names no use and no
/// algorithm, and so the key is bound to the usual one of its type. An empty key id is one: tokens are compared
/// with it.
fn filled<'o>(object: &'o Object<'_>, name: &str) -> Result<Option<&'o str>, String> {
    Ok(string(object, name)?.filter(|text| !text.is_empty()))
}

fn required<'o>(object: &'o Object<'_>, name: &str) -> Result<&'o str, String> {
    string(object, name)?.ok_or_else(|| format!("It has no {name}."))
}

/// The bytes of a member: base64url, or base64 in the other alphabet, with the whole padding or
/// without any.
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

/// A number's octets without the zeros at the beginning.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|octet| **octet == 0).count();
    &number[zeros..]
}
