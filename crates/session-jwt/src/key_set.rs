//! Sets of JSON Web Keys (RFC 7517 section 5), from a configured document or from a provider. Each
//! entry is checked and bound to its algorithms when the set is read.

use std::collections::HashMap;

use crate::algorithm::{Algorithm, AlgorithmSet, KeyType};
use crate::document::{
    check_document_length, misconfigured, reject_kind, reject_non_json, reject_non_json_setting,
};
use crate::encoding;
use crate::json::{Json, push};
use crate::jwk::{Key, key_type_name, member, private_member, public_secret};
use crate::memory;
use crate::public_key::PublicKey;
use crate::rejection::{Rejection, quoted};
use crate::secret::{self, Found};

/// The maximum length of a fetched set, in bytes, as published and as stored.
pub const MAX_FETCHED_BYTES: usize = 256 * 1024;

/// The maximum number of keys in a fetched set.
const MAX_FETCHED_KEYS: usize = 100;

/// The maximum number of unusable entries whose reasons are kept. A reason may be longer than its
/// entry.
const MAX_REASONS: usize = MAX_FETCHED_KEYS;

const NOT_JSON: &str = "key set is not valid JSON";

/// The checked keys of a JWK or a JWK set.
///
/// Its `Debug` form contains no key material.
pub struct KeySet {
    /// The keys that ignore the token's `kid` come last.
    pub(crate) keys: Vec<Key>,
    /// The positions in `keys` of the keys of each `kid`.
    pub(crate) by_kid: HashMap<String, Vec<usize>>,
    /// The number of keys before those that ignore the token's `kid`.
    pub(crate) identified: usize,
    /// Whether the token's algorithm selects the kind of key: the secret for HMAC, the public keys for
    /// other algorithms.
    pub(crate) by_kind: bool,
    /// Whether the public keys are still to be fetched for the first time.
    pub(crate) is_waiting: bool,
    /// The first unusable entries.
    unusable: Vec<UnusableKey>,
    /// The number of all unusable entries.
    unusable_count: usize,
}

/// The origin of a set, which decides how an entry with an error is handled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// An administrator wrote the set. An error in an entry is reported.
    Configured,
    /// A provider published the set. An entry with an error is skipped, and so is a symmetric key,
    /// which is public.
    Fetched,
}

/// A published key set, reduced to the members that are used.
pub struct FetchedKeys {
    /// A JWK set of the usable keys, in ASCII, ordered by `kid`. The same keys always give the same
    /// text.
    pub jwks: String,
    /// The entries that were skipped.
    pub passed_over: Vec<UnusableKey>,
}

/// An entry of a JWK set that was skipped, as RFC 7517 section 5 requires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusableKey {
    /// Its position in the set, from zero.
    pub index: usize,
    /// Its `kid`, if it has one.
    pub kid: Option<String>,
    /// The reason, as a whole sentence.
    pub reason: String,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kids: Vec<_> = self.keys.iter().map(|key| &key.kid).collect();
        f.debug_struct("KeySet").field("kids", &kids).field("unusable", &self.unusable).finish()
    }
}

impl KeySet {
    /// Reads a JWK or a JWK set. Each key is bound to its `alg`, or to the default algorithm of its
    /// type: RS256, ES256 or ES384 by curve, EdDSA, HS256.
    ///
    /// # Errors
    /// [`Code::Configuration`](crate::Code::Configuration) if the text is neither, has no usable key,
    /// has two keys with the same `kid`, has a private key, or mixes symmetric and asymmetric keys; and
    /// if the text is longer than [`crate::MAX_DOCUMENT_BYTES`].
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        check_document_length(text)?;
        let value = Json::parse(text.as_bytes())
            .map_err(|error| reject_non_json_setting(NOT_JSON, text, &error))?;
        let set = Self::from_json(&value)?;
        set.check_distinct()?;
        Ok(set)
    }

    /// Reads a set that a provider has published. Unusable, symmetric and private entries are skipped.
    ///
    /// # Errors
    /// [`Code::Configuration`](crate::Code::Configuration) if the text is neither a JWK nor a JWK set,
    /// if it has no key that can be used with the listed `algorithms`, if it has more than a hundred
    /// keys, or if it is longer than [`MAX_FETCHED_BYTES`].
    pub fn fetched(text: &str, algorithms: Option<AlgorithmSet>) -> Result<FetchedKeys, Rejection> {
        check_fetched_length(text)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // A duplicate name within one key makes only that key unusable.
        let value = Json::parse_leniently(text.as_bytes())
            .map_err(|error| reject_non_json(NOT_JSON, text, &error))?;
        if let Some(object) = value.as_object() {
            object.check_names().map_err(|error| reject_non_json(NOT_JSON, text, &error))?;
        }
        let mut set = Self::from_fetched(&value)?;
        if let Some(listed) = algorithms {
            set = set.with_algorithms(listed)?;
        }
        let set = set.without_duplicates();
        let mut used: Vec<(&Option<String>, String)> =
            set.keys.iter().map(|key| (&key.kid, key.to_jwk())).collect();
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

    /// The entries of a set. A single JWK is one entry.
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
                Some(found @ (Found::Jwk | Found::JwkSet)) => misconfigured(MESSAGE)
                    .with_detail(format!("It is a string that holds {}.", found.description()))
                    .with_hint(
                        "The set must be the JSON object itself, without quotes around it and without \
                         a backslash before each quote in it.",
                    ),
                Some(found) => reject_kind(MESSAGE, found),
                None => misconfigured(MESSAGE)
                    .with_detail(format!("It is {}, not an object.", value.type_name())),
            });
        };
        match (member(object, "keys"), member(object, "kty")) {
            (Some(_), Some(_)) => {
                Err(misconfigured(MESSAGE).with_detail("It has both \"keys\" and \"kty\"."))
            }
            (Some(keys), None) => match keys.as_array() {
                Some(entries) => Ok(entries),
                None => Err(misconfigured(MESSAGE)
                    .with_detail(format!("Its \"keys\" is {}, not an array.", keys.type_name()))),
            },
            (None, Some(_)) => Ok(std::slice::from_ref(value)),
            (None, None) if object.get("keys").is_some_and(|keys| keys.as_array().is_some()) => {
                Ok(&[])
            }
            (None, None) => match secret::kind_of_object(object) {
                found @ (Found::Discovery | Found::CertificateMap | Found::Realm) => {
                    Err(reject_kind(MESSAGE, found))
                }
                _ => Err(misconfigured(MESSAGE)
                    .with_detail("It has neither \"keys\" nor \"kty\".")
                    .with_hint(
                        "A JWK is an object with a \"kty\", a JWK set one with an array of them as \
                         \"keys\".",
                    )),
            },
        }
    }

    /// A set without keys, for a secret that was published after it was configured. `reason` is a
    /// sentence.
    pub(crate) fn unusable_secret(reason: String) -> Self {
        Self::new(Vec::new(), vec![UnusableKey { index: 0, kid: None, reason }])
    }

    /// A set without keys. It verifies no token.
    pub(crate) fn empty() -> Self {
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

    /// A bare HMAC secret: the bytes of the text in UTF-8. It verifies HS256 and ignores the token's
    /// `kid`.
    ///
    /// # Errors
    /// [`Code::Configuration`](crate::Code::Configuration) if the secret is too short, if it begins or
    /// ends with a control character, or if it contains a public text, with which anyone could sign
    /// tokens.
    pub(crate) fn from_secret(secret: &str) -> Result<Self, Rejection> {
        const MESSAGE: &str = "secret cannot be used";
        if let Some(found) = secret::find(secret.as_bytes()) {
            return Err(reject_kind(MESSAGE, found));
        }
        let is_at_edge = |character: Option<char>| {
            character.is_some_and(|c| {
                c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}')
            })
        };
        let (first, last) = (secret.chars().next(), secret.chars().next_back());
        if is_at_edge(first) || is_at_edge(last) {
            let end = if is_at_edge(first) { "begins" } else { "ends" };
            return Err(misconfigured(MESSAGE)
                .with_detail(format!(
                    "It {end} with a line end, a byte order mark or another control character."
                ))
                .with_hint(
                    "Remove the character. If it belongs to the secret, give the bytes as \
                     \"jwks\": a JWK with \"kty\": \"oct\" and the base64url of the bytes as \
                     \"k\".",
                ));
        }
        let mut key = Key::hmac(secret.as_bytes(), None)
            .map_err(|reason| misconfigured(MESSAGE).with_detail(reason))?;
        key.any_kid = true;
        key.encoding = encoding::likely_encoding(secret);
        Ok(Self::new(vec![key], Vec::new()))
    }

    /// A public key in PEM. It ignores the token's `kid`.
    ///
    /// # Errors
    /// [`Code::Configuration`](crate::Code::Configuration) if the text is not exactly one usable public
    /// key.
    pub(crate) fn from_pem(text: &str) -> Result<Self, Rejection> {
        const MESSAGE: &str = "public key cannot be used";
        let key = PublicKey::parse(text).map_err(|error| {
            misconfigured(MESSAGE).with_detail(error.detail).with_hint(error.hint)
        })?;
        let key = match key {
            PublicKey::Rsa { n, e } => Key::rsa(&n, &e),
            PublicKey::Ec { crv, x, y } => Key::ec(crv, &x, &y),
            PublicKey::Ed25519(x) => Key::okp("Ed25519", &x),
        };
        let mut key = key.map_err(|reason| match memory::is_memory_short() {
            true => memory::out_of_memory(),
            false => misconfigured(MESSAGE).with_detail(reason),
        })?;
        key.any_kid = true;
        Ok(Self::new(vec![key], Vec::new()))
    }

    /// Joins the keys of several members of one provider. If one of them is a secret, it is used for
    /// HMAC only, and the other keys for other algorithms.
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

    /// Marks the set as waiting for the first fetch of its public keys.
    pub(crate) fn waiting(self) -> Self {
        Self { by_kind: true, is_waiting: true, ..self }
    }

    /// Rejects two keys with the same `kid` and a common algorithm.
    ///
    /// # Errors
    /// [`Code::Configuration`](crate::Code::Configuration), with the `kid`.
    pub(crate) fn check_distinct(&self) -> Result<(), Rejection> {
        match self.duplicates().first().and_then(|place| self.keys.get(*place)) {
            None => Ok(()),
            Some(key) => Err(misconfigured("key set has a duplicate key id")
                .with_detail(format!(
                    "Two of its keys have the kid {} and may be used with {}.",
                    quoted(key.kid.as_deref().unwrap_or_default()),
                    key.algorithms.names()
                ))
                .with_hint(
                    "Remove one of them. If they have different algorithms, add \"alg\" to each.",
                )),
        }
    }

    /// Removes the later of two keys with the same `kid` and a common algorithm.
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
                let reason = "Its kid is that of an earlier key that fits the same algorithm.";
                self.unusable_count += 1;
                self.unusable.push(UnusableKey {
                    index: key.index as usize,
                    kid: key.kid,
                    reason: reason.to_owned(),
                });
            }
        }
        self.unusable.sort_by_key(|unusable| unusable.index);
        self.unusable.truncate(MAX_REASONS);
        let count = self.unusable_count;
        Self { unusable_count: count, ..Self::new(keys, self.unusable) }
    }

    /// The positions of keys that have the `kid` of an earlier, different key and share an algorithm
    /// with it.
    fn duplicates(&self) -> Vec<usize> {
        let mut found = Vec::new();
        for places in self.by_kid.values().filter(|places| places.len() > 1) {
            // The list has at most one entry per algorithm.
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
            return Err(misconfigured("key set mixes symmetric and asymmetric keys")
                .with_detail(format!("Of its {all} keys {symmetric} have the kty \"oct\"."))
                .with_hint("Give the symmetric key as \"secret\", beside the others."));
        }
        if is_fetched && entries.len() > MAX_FETCHED_KEYS {
            return Err(misconfigured("key set has too many keys").with_detail(format!(
                "It has {}; the limit for a set that is fetched is {MAX_FETCHED_KEYS}.",
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
                return Err(misconfigured("key is private")
                    .with_detail(format!(
                        "Key {} has the member {}, which only a private key has.",
                        place(index, kid),
                        quoted(member)
                    ))
                    .with_hint(
                        "Configure the public key without the private members. If others have \
                         seen this text, replace the key pair.",
                    ));
            }
            if !is_fetched && let Some(found) = object.and_then(public_secret) {
                return Err(reject_kind("key cannot be a secret", found).with_detail(format!(
                    "The k of key {} is {}.",
                    place(index, kid),
                    found.description()
                )));
            }
            let key = match private {
                Some(member) => Err(format!("It is private: it has the member \"{member}\".")),
                None => Key::from_jwk(entry).and_then(|key| match kid {
                    _ if is_fetched && key.key_type == KeyType::Oct => {
                        Err("It is symmetric, and a published key is not secret.".to_owned())
                    }
                    Some(kid) if is_fetched && kid.contains('\0') => {
                        Err("Its kid holds the character U+0000.".to_owned())
                    }
                    _ => Ok(key),
                }),
            };
            match key {
                Ok(mut key) => {
                    key.index = index as u32;
                    push(&mut keys, key);
                }
                // If memory is short, the failed check does not mean that the point is invalid.
                Err(_) if key_type_name(entry) == Some("EC") && memory::is_memory_short() => {
                    return Err(memory::out_of_memory());
                }
                Err(reason) => {
                    unusable_count += 1;
                    if unusable.len() < MAX_REASONS {
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
            return Err(misconfigured("key set has no usable key").with_detail(detail));
        }
        Ok(Self { unusable_count, ..Self::new(keys, unusable) })
    }

    /// Restricts the keys to listed algorithms. A key with `alg` keeps it if it is listed. Another key
    /// gets the listed algorithms that fit its type and its length.
    ///
    /// # Errors
    /// [`Code::Configuration`](crate::Code::Configuration) if no key has an algorithm left.
    pub fn with_algorithms(self, listed: AlgorithmSet) -> Result<Self, Rejection> {
        let set = self.for_algorithms(listed);
        if set.algorithms().is_empty() {
            let describe_short_secret =
                listed.iter().find_map(|algorithm| set.describe_short_secret(algorithm));
            return Err(misconfigured("no key fits the listed algorithms").with_detail(format!(
                "Listed are {}.{}",
                listed.names(),
                describe_short_secret.map_or_else(String::new, |sentence| format!(" {sentence}"))
            )));
        }
        Ok(set)
    }

    /// Restricts the keys to listed algorithms; the result may have no key with an algorithm.
    pub(crate) fn for_algorithms(mut self, listed: AlgorithmSet) -> Self {
        for key in &mut self.keys {
            key.restrict(listed);
        }
        self
    }

    /// Whether a token with this `kid` may have been signed with one of the keys. If the provider has a
    /// secret in addition to public keys, only the public keys count.
    pub fn has_kid(&self, kid: &str) -> bool {
        let counts = |key: &Key| !self.by_kind || !key.is_secret();
        self.by_kid.contains_key(kid) || self.keys[self.identified..].iter().any(counts)
    }

    /// Whether the provider's public keys have not been fetched yet.
    pub fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// Whether the set has no keys.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The `kid` and the algorithms of each usable key.
    pub fn usable(&self) -> impl Iterator<Item = (Option<&str>, AlgorithmSet)> {
        self.keys.iter().map(|key| (key.kid.as_deref(), key.algorithms))
    }

    /// The `kid` and the algorithms of each usable public key.
    pub fn public(&self) -> impl Iterator<Item = (Option<&str>, AlgorithmSet)> {
        let public = self.keys.iter().filter(|key| !key.is_secret());
        public.map(|key| (key.kid.as_deref(), key.algorithms))
    }

    /// The `kid` and the material of each usable public key.
    pub(crate) fn materials(&self) -> impl Iterator<Item = (Option<&str>, Vec<u8>)> {
        let public = self.keys.iter().filter(|key| !key.is_secret());
        public.map(|key| (key.kid.as_deref(), key.canonical_material()))
    }

    /// The bytes of each secret.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.iter().filter_map(Key::secret)
    }

    /// The `kid` of each secret that may be guessed, and the reason as a sentence.
    pub fn weak_secrets(&self) -> impl Iterator<Item = (Option<&str>, &'static str)> {
        self.keys.iter().filter_map(|key| {
            let reason = secret::weakness(key.secret()?)?;
            Some((key.kid.as_deref(), reason))
        })
    }

    /// The numbers and the thumbprint of each public key.
    pub(crate) fn public_values(&self) -> impl Iterator<Item = Vec<u8>> {
        let public = self.keys.iter().filter(|key| !key.is_secret());
        public.flat_map(|key| key.numbers().into_iter().chain([key.thumbprint()]))
    }

    /// The `kid` of each usable key that has one.
    pub fn kids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter_map(|key| key.kid.as_deref())
    }

    /// The first hundred entries that were skipped.
    pub fn unusable(&self) -> &[UnusableKey] {
        &self.unusable
    }

    /// The number of entries that were skipped.
    pub fn unusable_count(&self) -> usize {
        self.unusable_count
    }

    /// Whether the set has a secret. A role that can read a secret can sign tokens with it.
    pub fn is_symmetric(&self) -> bool {
        self.keys.iter().any(Key::is_secret)
    }

    /// The algorithms of all keys.
    pub fn algorithms(&self) -> AlgorithmSet {
        self.keys.iter().fold(AlgorithmSet::default(), |set, key| set.union(key.algorithms))
    }

    /// A sentence if the secrets are shorter than the algorithm requires.
    pub(crate) fn describe_short_secret(&self, algorithm: Algorithm) -> Option<String> {
        let secrets = self.keys.iter().filter(|key| key.is_secret());
        let longest = secrets.map(|key| key.secret_bytes).max()?;
        let is_short =
            algorithm.key_type() == KeyType::Oct && longest < algorithm.min_secret_bytes();
        is_short.then(|| {
            format!(
                "The secret has {longest} bytes; {} needs at least {} (RFC 7518 section 3.2).",
                algorithm.name(),
                algorithm.min_secret_bytes()
            )
        })
    }
}

fn check_fetched_length(text: &str) -> Result<(), Rejection> {
    if text.len() <= MAX_FETCHED_BYTES {
        return Ok(());
    }
    Err(misconfigured("key set is too long")
        .with_detail(format!("The limit for a set that is fetched is {MAX_FETCHED_BYTES} bytes.")))
}

/// The position and the `kid` of an entry, for a message.
fn place(index: usize, kid: Option<&str>) -> String {
    match kid {
        Some(kid) => format!("{} (kid {})", index + 1, quoted(kid)),
        None => (index + 1).to_string(),
    }
}
