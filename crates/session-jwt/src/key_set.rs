//! Sets of JSON Web Keys (RFC 7517 section 5), from a configured document or from a provider. A set is
//! read entry by entry: which algorithms a key may be used with is decided here, when it is read.

use std::collections::HashMap;

use crate::algorithm::{Algorithm, AlgorithmSet, KeyType};
use crate::document::{check_document_length, instead, misplaced, not_json, wrong};
use crate::encoding;
use crate::json::{Json, push};
use crate::jwk::{Key, key_type_name, member, private_member, public_secret};
use crate::memory;
use crate::public_key::PublicKey;
use crate::rejection::{Rejection, quoted};
use crate::secret::{self, Found};

/// How many bytes a fetched set may have, both as it is published and as it is kept.
pub const MAX_FETCHED_BYTES: usize = 256 * 1024;

/// The most keys that a fetched set may have.
const MOST_FETCHED: usize = 100;

/// Of how many entries that cannot be used a set keeps the reasons, which may be longer than the
/// entries: as many as a fetched set may have.
const MOST_REASONS: usize = MOST_FETCHED;

const NOT_JSON: &str = "key set is not valid JSON";

/// A JWK or a JWK set, checked: the keys that tokens may be verified with.
///
/// Its `Debug` form names no key material.
pub struct KeySet {
    /// Those for which the token's key id does not matter come last.
    pub(crate) keys: Vec<Key>,
    /// Where in `keys` the keys of each key id are.
    pub(crate) by_kid: HashMap<String, Vec<usize>>,
    /// How many keys come before those for which the token's key id does not matter.
    pub(crate) identified: usize,
    /// Whether a token's algorithm decides which keys count at all: for HMAC the secret, for any other
    /// the public ones.
    pub(crate) by_kind: bool,
    /// Whether the public keys have not been fetched yet.
    pub(crate) is_waiting: bool,
    /// The first of the entries that cannot be used.
    unusable: Vec<UnusableKey>,
    /// How many there are.
    unusable_count: usize,
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
        let mut key = Key::hmac(secret.as_bytes(), None)
            .map_err(|reason| wrong(MESSAGE).with_detail(reason))?;
        key.any_kid = true;
        key.encoding = encoding::likely_encoding(secret);
        Ok(Self::new(vec![key], Vec::new()))
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
        let mut key = key.map_err(|reason| match memory::is_memory_short() {
            true => memory::out_of_memory(),
            false => wrong(MESSAGE).with_detail(reason),
        })?;
        key.any_kid = true;
        Ok(Self::new(vec![key], Vec::new()))
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
                Ok(mut key) => {
                    key.index = index as u32;
                    push(&mut keys, key);
                }
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
            key.restrict(listed);
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
        self.keys.iter().filter_map(Key::secret)
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
        self.keys.iter().fold(AlgorithmSet::default(), |set, key| set.union(key.algorithms))
    }

    /// A sentence where the secrets are shorter than the algorithm needs.
    pub(crate) fn too_short(&self, algorithm: Algorithm) -> Option<String> {
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
}

fn check_fetched_length(text: &str) -> Result<(), Rejection> {
    if text.len() <= MAX_FETCHED_BYTES {
        return Ok(());
    }
    Err(wrong("key set is too long")
        .with_detail(format!("The limit for a set that is fetched is {MAX_FETCHED_BYTES} bytes.")))
}

/// An entry of a set as a message names it.
fn place(index: usize, kid: Option<&str>) -> String {
    match kid {
        Some(kid) => format!("{} (kid {})", index + 1, quoted(kid)),
        None => (index + 1).to_string(),
    }
}
