//! The choice of the keys that a token is verified with, by its `kid` and its algorithm, and the messages
//! if there is none.

use crate::algorithm::{Algorithm, AlgorithmSet, KeyType};
use crate::encoding::Encoding;
use crate::jwk::Key;
use crate::key_set::KeySet;
use crate::rejection::{Code, Rejection, quoted, quoted_list, reject};

/// The maximum number of secrets that are tried again with a line end, for a message.
const MAX_SECRETS: usize = 4;

impl KeySet {
    /// The keys that a token may have been signed with: they have its `kid`, or any `kid` if the token
    /// has none, and its algorithm.
    ///
    /// # Errors
    /// [`Code::NoKey`] if no key has the `kid`; [`Code::Algorithm`] if none of these keys has the
    /// algorithm.
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
        // The key without `kid` stands beside keys with `kid`: the token may be signed with a new one
        // of those.
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
        match self.describe_short_secret(algorithm) {
            None if algorithm.key_type() == KeyType::Oct && !self.is_symmetric() => rejection
                .with_hint(
                    "The token is signed with a shared secret, and the provider has public keys only. \
                     Tokens of a Supabase project from before its signing keys, and its keys anon and \
                     service_role, are signed so: give the legacy JWT secret as \"secret\", beside the \
                     public keys.",
                ),
            None => rejection,
            Some(sentence) => rejection.with_hint(format!(
                "{sentence} Use a longer secret, or have tokens signed with {}.",
                allowed.names()
            )),
        }
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

    /// The encoding that a secret seems to be written in, for a token with an HMAC algorithm.
    pub(crate) fn likely_encoding(&self, algorithm: Algorithm) -> Option<Encoding> {
        let is_secret = algorithm.key_type() == KeyType::Oct;
        self.keys.iter().filter(|_| is_secret).find_map(|key| key.encoding)
    }

    /// The line end with which a secret verifies the signature. The issuer may read its secret from a
    /// file that ends with a line end.
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
        secrets.take(MAX_SECRETS).find_map(|key| {
            let secret = key.secret()?;
            let signed = |(end, _): &&(&[u8], &str)| {
                let longer = [secret, *end].concat();
                Key::of_secret(&longer).verify(algorithm, signing_input, signature)
            };
            ENDS.iter().find(signed).map(|(_, name)| *name)
        })
    }
}
