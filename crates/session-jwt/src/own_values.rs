//! The public values in a provider's document: its names, and the values of its public keys. A secret
//! must not consist of them.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::encoding::decode_base64;
use crate::json::{Json, Object};
use crate::key_set::KeySet;
use crate::secret;

/// The length of the prefix by which a value of a key is recognized, in bytes.
const PREFIX_BYTES: usize = 22;

/// The members whose strings are compared, and the maximum number of strings.
const NAME_MEMBERS: [&str; 4] = ["issuer", "jwks_url", "audience", "name"];
const MAX_NAMES: usize = 32;

/// The minimum length of a name. Shorter names are parts of other words.
const MIN_NAME_BYTES: usize = 6;

/// The minimum number of characters that a secret must have besides the names.
const MIN_OTHER_CHARACTERS: usize = 16;

/// The public values of one document.
pub(crate) struct OwnValues {
    /// The member and its string in lower case; the longest strings come first.
    names: Vec<(&'static str, String)>,
    prefixes: HashSet<[u8; PREFIX_BYTES]>,
}

impl OwnValues {
    /// The public values of a document and of the keys that were read from it.
    pub(crate) fn of<'k>(object: &Object<'_>, keys: impl Iterator<Item = &'k KeySet>) -> Self {
        let mut values = Self::of_keys(keys);
        for member in NAME_MEMBERS {
            let texts = object
                .get(member)
                .into_iter()
                .flat_map(|value| value.as_array().unwrap_or(std::slice::from_ref(value)).iter());
            for text in texts.filter_map(Json::as_str) {
                values.add_name(member, text);
            }
        }
        if let Some(set) = object.get("jwks") {
            let set = set.as_object();
            let entries = set.and_then(|set| set.get("keys")).and_then(Json::as_array);
            let entries = entries.unwrap_or_default().iter().filter_map(Json::as_object);
            for (name, value) in entries.chain(set).flat_map(|entry| entry.iter()) {
                match value.as_str() {
                    Some(text) if name != "k" => {
                        values.add_value(text.as_bytes());
                        decode_base64(text).iter().for_each(|bytes| values.add_value(bytes));
                    }
                    _ => {}
                }
            }
        }
        values.names.sort_by_key(|(_, name)| std::cmp::Reverse(name.len()));
        values
    }

    /// The public values of keys.
    pub(crate) fn of_keys<'k>(keys: impl Iterator<Item = &'k KeySet>) -> Self {
        let mut values = Self { names: Vec::new(), prefixes: HashSet::new() };
        for set in keys {
            for kid in set.kids() {
                values.add_name("kid", kid);
                values.add_value(kid.as_bytes());
            }
            for value in set.public_values() {
                values.add_value(&value);
                values.add_value(URL_SAFE_NO_PAD.encode(&value).as_bytes());
                values.add_value(STANDARD.encode(&value).as_bytes());
                let hexadecimal: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                values.add_value(hexadecimal.as_bytes());
            }
        }
        values
    }

    fn add_name(&mut self, member: &'static str, name: &str) {
        if name.len() >= MIN_NAME_BYTES && self.names.len() < MAX_NAMES {
            self.names.push((member, name.to_lowercase()));
        }
    }

    fn add_value(&mut self, value: &[u8]) {
        if let Some(prefix) = value.first_chunk() {
            self.prefixes.insert(*prefix);
        }
    }

    /// The public value that a secret contains in any encoding, if any.
    pub(crate) fn found_in(&self, secret: &[u8]) -> Option<&'static str> {
        if self.names.is_empty() && self.prefixes.is_empty() {
            return None;
        }
        let mut found = None;
        secret::any_decoding(secret, |form| {
            found = self.value_in(form).or_else(|| self.name_in(form));
            found.is_some()
        });
        found
    }

    fn value_in(&self, form: &[u8]) -> Option<&'static str> {
        let is_known = |window: &[u8]| {
            window.first_chunk::<PREFIX_BYTES>().is_some_and(|start| self.prefixes.contains(start))
        };
        let holds =
            |bytes: &[u8]| !self.prefixes.is_empty() && bytes.windows(PREFIX_BYTES).any(is_known);
        (holds(form) || holds(&form.to_ascii_lowercase())).then_some("a value of its public keys")
    }

    fn name_in(&self, form: &[u8]) -> Option<&'static str> {
        let mut rest = std::str::from_utf8(form).ok()?.to_lowercase();
        let mut found = None;
        for (member, name) in &self.names {
            if rest.contains(name) {
                rest = rest.replace(name, "");
                found = found.or(Some(match *member {
                    "issuer" => "its issuer",
                    "jwks_url" => "its jwks_url",
                    "audience" => "its audience",
                    "kid" => "the kid of a key",
                    _ => "its name",
                }));
            }
        }
        let rest = rest.chars().filter(|c| c.is_alphanumeric()).count();
        found.filter(|_| rest < MIN_OTHER_CHARACTERS)
    }
}
