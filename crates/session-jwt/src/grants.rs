//! The words that a token grants: scopes, roles, groups, and how the user signed in. Providers write them as
//! a text or as an array. A claim of another type grants nothing, and does not reject the token, since other
//! providers use claims of these names for other purposes.

use crate::check::Check;
use crate::claim_checks::sign_in;
use crate::claims::Claims;
use crate::json::{Json, Object};
use crate::path::{self, ClaimPath};
use crate::provider::Provider;
use crate::rejection::quoted;

/// A kind of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Scopes: `scope`, `scp` and `permissions`.
    Scope,
    /// Roles: the claims that the provider names.
    Role,
    /// Groups: `groups` and `cognito:groups`.
    Group,
    /// The class of the sign-in: `acr`.
    Acr,
    /// The methods of the sign-in: `amr`.
    Amr,
}

impl Grant {
    /// Every kind, in the order of the variants.
    pub const ALL: [Grant; 5] = [Grant::Scope, Grant::Role, Grant::Group, Grant::Acr, Grant::Amr];

    /// The SQL function that asks for a word.
    pub const fn function(self) -> &'static str {
        match self {
            Grant::Scope => "auth.has_scope()",
            Grant::Role => "auth.has_role()",
            Grant::Group => "auth.in_group()",
            Grant::Acr => "auth.has_acr()",
            Grant::Amr => "auth.has_amr()",
        }
    }

    /// The claims that no provider changes.
    const fn claims(self) -> &'static [&'static str] {
        match self {
            Grant::Scope => &["scope", "scp", "permissions"],
            Grant::Role => &[],
            Grant::Group => &["groups", "cognito:groups"],
            Grant::Acr => &["acr"],
            Grant::Amr => &["amr"],
        }
    }

    /// The type of the claims, for messages.
    const fn expected(self) -> &'static str {
        match self {
            Grant::Scope | Grant::Role | Grant::Group => "a string or an array of strings",
            Grant::Acr => "a string",
            Grant::Amr => {
                "a string, an array of strings, or an array of objects with a string method"
            }
        }
    }

    /// Calls `look` with the words of a claim, and with None if the claim is of another type. Items of an
    /// array that are null are ignored.
    fn with_words<T>(self, value: &Json<'_>, look: impl FnOnce(Option<Vec<&str>>) -> T) -> T {
        match (self, value) {
            // RFC 6749 section 3.3: words are separated by spaces.
            (Grant::Scope, Json::String(text)) => look(Some(text.split(' ').collect())),
            (Grant::Role, Json::String(text)) => match path::open(text) {
                Some(array @ Json::Array(_)) => self.with_words(&array, look),
                _ => look(Some(vec![text])),
            },
            (_, Json::String(text)) => look(Some(vec![text])),
            (Grant::Acr, _) => look(None),
            (_, Json::Array(items)) => {
                let items = items.iter().filter(|item| !matches!(item, Json::Null));
                look(items.map(|item| self.word(item)).collect())
            }
            _ => look(None),
        }
    }

    /// The word of an item of an array.
    fn word<'c>(self, item: &'c Json<'_>) -> Option<&'c str> {
        match (self, item) {
            (_, Json::String(text)) => Some(text),
            (Grant::Amr, Json::Object(method)) => method.get("method")?.as_str(),
            _ => None,
        }
    }
}

/// The words of one kind that a token grants, without duplicates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    text: Box<str>,
    /// The bytes of each word in the text, in the order of the words.
    places: Box<[(u32, u32)]>,
}

impl Words {
    /// An empty word is none.
    fn new(mut words: Vec<&str>) -> Self {
        words.retain(|word| !word.is_empty());
        words.sort_unstable();
        words.dedup();
        let text = words.concat().into_boxed_str();
        let mut end = 0;
        let places = words.iter().map(|word| {
            let begin = end;
            end += word.len() as u32;
            (begin, end)
        });
        Self { places: places.collect(), text }
    }

    /// Whether the word is among them, exactly.
    pub fn has(&self, word: &str) -> bool {
        let found = self
            .places
            .binary_search_by(|(begin, end)| self.text[*begin as usize..*end as usize].cmp(word));
        found.is_ok()
    }

    /// The memory that they take beside the value itself, in bytes.
    pub fn size(&self) -> usize {
        self.text.len() + size_of_val(&*self.places)
    }
}

impl Claims {
    /// The words of one kind that the claims grant.
    pub fn words(&self, grant: Grant) -> Words {
        let Ok(value) = Json::parse(self.json.as_bytes()) else {
            return Words::new(Vec::new());
        };
        let mut found: Vec<String> = Vec::new();
        if let Some(claims) = value.as_object() {
            each_claim(grant, claims, &self.role_claims, |_, value| {
                grant.with_words(value, |words| {
                    found.extend(words.into_iter().flatten().map(str::to_owned));
                });
            });
        }
        Words::new(found.iter().map(String::as_str).collect())
    }
}

/// Calls `visit` with the name and the value of each claim that is present and not null.
fn each_claim(
    grant: Grant,
    claims: &Object<'_>,
    role_claims: &[ClaimPath],
    mut visit: impl FnMut(&str, &Json<'_>),
) {
    for name in grant.claims() {
        if let Some(value) = claims.present(name) {
            visit(name, value);
        }
    }
    for path in role_claims.iter().filter(|_| grant == Grant::Role) {
        path.find(claims, |found| {
            if let Some(value) = found.filter(|value| !matches!(value, Json::Null)) {
                visit(path.text(), value);
            }
        });
    }
}

/// The claims that grant nothing because of their type, as hints for the checks of an inspection.
pub(crate) fn hints(claims: &Object<'_>, provider: &Provider) -> Vec<(Check, String)> {
    let mut hints = Vec::new();
    for grant in Grant::ALL {
        let check = if grant == Grant::Role { Check::Role } else { Check::RequiredClaims };
        each_claim(grant, claims, &provider.role_claims, |name, value| {
            if grant.with_words(value, |words| words.is_none()) {
                let (function, expected) = (grant.function(), grant.expected());
                hints.push((
                    check,
                    format!(
                        "{function} ignores the claim {}, which is {}: it reads {expected}.",
                        quoted(name),
                        match value {
                            Json::Array(_) => "an array with other items",
                            other => other.type_name(),
                        },
                    ),
                ));
            }
        });
    }
    if let Err(rejection) = sign_in(claims, provider.leeway) {
        let texts = [rejection.detail(), rejection.hint()].into_iter().flatten();
        let reason: Vec<&str> = texts.collect();
        hints
            .push((Check::Time, format!("auth.signed_in_within() is false. {}", reason.join(" "))));
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::UnjudgedClaims;
    use crate::key_set::KeySet;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use serde_json::json;

    /// The words of claims, as one text.
    fn words(grant: Grant, claims: &serde_json::Value) -> String {
        words_of(grant, claims, &Provider::with_default_policy("test", KeySet::empty()))
    }

    fn words_of(grant: Grant, claims: &serde_json::Value, provider: &Provider) -> String {
        let claims = UnjudgedClaims::assumed(&claims.to_string(), provider).unwrap();
        let words = claims.unjudged().words(grant);
        let all: Vec<&str> = words
            .places
            .iter()
            .map(|(begin, end)| &words.text[*begin as usize..*end as usize])
            .collect();
        assert!(all.iter().all(|word| words.has(word)), "{all:?}");
        all.join("|")
    }

    #[test]
    fn each_kind_reads_its_claims() {
        use Grant::{Acr, Amr, Group, Role, Scope};
        for (grant, claims, expected) in [
            (Scope, json!({}), ""),
            (Scope, json!({"scope": null, "scp": null, "permissions": null}), ""),
            (Scope, json!({"scope": "b a"}), "a|b"),
            (Scope, json!({"scope": "  a  b "}), "a|b"),
            (Scope, json!({"scope": "a\tb,c\u{a0}d\ne"}), "a\tb,c\u{a0}d\ne"),
            (Scope, json!({"scope": ["a", "b c", null, ""]}), "a|b c"),
            (Scope, json!({"scope": "a", "scp": ["b"], "permissions": "c a"}), "a|b|c"),
            (Scope, json!({"scope": 1, "scp": ["b", 1], "permissions": ["c"]}), "c"),
            (Scope, json!({"scope": {"a": "b"}, "scp": true, "permissions": [["a"]]}), ""),
            (Scope, json!({"scope": "[\"a\"]"}), "[\"a\"]"),
            (Scope, json!({"scopes": "a", "Scope": "b", "app": {"scope": "c"}}), ""),
            (Group, json!({"groups": ["b", "a"], "cognito:groups": ["c"]}), "a|b|c"),
            (Group, json!({"groups": "Domain Users"}), "Domain Users"),
            (Group, json!({"groups": "[\"a\"]"}), "[\"a\"]"),
            (Group, json!({"groups": ["a", 7], "cognito:groups": {"a": 1}}), ""),
            (Group, json!({"roles": ["a"], "group": ["b"]}), ""),
            (Acr, json!({"acr": "urn:mace:gold"}), "urn:mace:gold"),
            (Acr, json!({"acr": "a b"}), "a b"),
            (Acr, json!({"acr": ["a"]}), ""),
            (Acr, json!({"acr": 1}), ""),
            (Acr, json!({"acr": "", "amr": "mfa"}), ""),
            (Amr, json!({"amr": ["pwd", "mfa"]}), "mfa|pwd"),
            (Amr, json!({"amr": "mfa"}), "mfa"),
            (Amr, json!({"amr": "pwd mfa"}), "pwd mfa"),
            (
                Amr,
                json!({"amr": [{"method": "totp", "timestamp": 1}, {"method": "password"}]}),
                "password|totp",
            ),
            (Amr, json!({"amr": ["otp", {"method": "totp"}, null]}), "otp|totp"),
            (Amr, json!({"amr": [{"method": "totp"}, {"name": "x"}]}), ""),
            (Amr, json!({"amr": [{"method": 1}]}), ""),
            (Amr, json!({"amr": {"method": "totp"}}), ""),
            (Role, json!({"role": "editor"}), "editor"),
            (Role, json!({"role": "editor admin"}), "editor admin"),
            (Role, json!({"role": ["b", "a", null]}), "a|b"),
            (Role, json!({"role": "[\"b\",\"a\"]"}), "a|b"),
            (Role, json!({"role": "{\"a\":1}"}), "{\"a\":1}"),
            (Role, json!({"role": ["a", 1]}), ""),
            (Role, json!({"roles": ["a"]}), ""),
        ] {
            assert_eq!(words(grant, &claims), expected, "{grant:?} of {claims}");
        }
    }

    #[test]
    fn roles_are_in_the_claims_that_the_provider_names() {
        let key = mint::Key::generate(mint::Algorithm::ES256);
        let document = json!({
            "name": "p", "jwks": {"keys": [key.public_jwk()]}, "role_claim": "/app/role",
            "allowed_roles_claim": "https://hasura/roles",
        });
        let mut providers = Provider::parse_all(&document.to_string()).unwrap();
        let provider = providers.pop().unwrap();
        for (claims, expected) in [
            (
                json!({"app": {"role": "editor"}, "https://hasura/roles": ["user", "editor"]}),
                "editor|user",
            ),
            (json!({"app": {"role": ["a", "b"]}}), "a|b"),
            (json!({"app": "{\"role\":\"inner\"}"}), "inner"),
            (json!({"https://hasura/roles": "[\"user\"]"}), "user"),
            (json!({"role": "admin", "roles": ["admin"]}), ""),
        ] {
            assert_eq!(words_of(Grant::Role, &claims, &provider), expected, "{claims}");
        }
    }

    #[test]
    fn claims_that_grant_nothing_have_hints() {
        let provider = Provider::with_default_policy("test", KeySet::empty());
        let said = |claims: &serde_json::Value| {
            let text = claims.to_string();
            let value = Json::parse(text.as_bytes()).unwrap();
            let said = hints(value.as_object().unwrap(), &provider).into_iter();
            said.map(|(check, hint)| format!("{}: {hint}", check.name())).collect::<Vec<_>>()
        };
        for quiet in [
            json!({}),
            json!({"scope": "", "scp": [], "permissions": ["a", null], "groups": "x", "acr": "x",
                   "amr": [{"method": "x"}], "role": "[\"a\"]", "auth_time": 1.5}),
            json!({"scope": null, "groups": null, "acr": null, "amr": null, "auth_time": null}),
        ] {
            assert_eq!(said(&quiet), [""; 0], "{quiet}");
        }
        for (claims, part) in [
            (
                json!({"scope": 1}),
                "required claims: auth.has_scope() ignores the claim \"scope\", which is a number",
            ),
            (
                json!({"scp": ["a", 1]}),
                "required claims: auth.has_scope() ignores the claim \"scp\", which is an array with other items",
            ),
            (
                json!({"permissions": {}}),
                "required claims: auth.has_scope() ignores the claim \"permissions\", which is an object",
            ),
            (
                json!({"groups": true}),
                "required claims: auth.in_group() ignores the claim \"groups\"",
            ),
            (
                json!({"cognito:groups": [{}]}),
                "required claims: auth.in_group() ignores the claim \"cognito:groups\"",
            ),
            (json!({"acr": ["a"]}), "required claims: auth.has_acr() ignores the claim \"acr\""),
            (json!({"amr": [1]}), "required claims: auth.has_amr() ignores the claim \"amr\""),
            (
                json!({"role": 1}),
                "role: auth.has_role() ignores the claim \"role\", which is a number",
            ),
            (
                json!({"auth_time": "1700000000"}),
                "time: auth.signed_in_within() is false. The claim \"auth_time\" is a string",
            ),
            (
                json!({"auth_time": 1_700_000_000_000i64}),
                "time: auth.signed_in_within() is false. The claim \"auth_time\" is not between the years 1 and 9999. A NumericDate counts seconds",
            ),
        ] {
            let said = said(&claims);
            assert!(said.len() == 1 && said[0].starts_with(part), "{claims}: {said:?}");
        }
    }

    /// A list of many short words takes a small multiple of its text.
    #[test]
    fn lists_are_small() {
        let items: Vec<String> = (0..3_000).map(|n| format!("{n:x}")).collect();
        let claims = json!({ "groups": items });
        let length = claims.to_string().len();
        let claims = UnjudgedClaims::trusted(&claims.to_string()).unwrap();
        let words = claims.unjudged().words(Grant::Group);
        assert!(words.size() < 2 * length, "{} of {length}", words.size());
        assert!(items.iter().all(|word| words.has(word)) && !words.has("3000"), "{words:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2_000,
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// A list has exactly its words, however it is written; no part, no case, and no two of them.
        #[test]
        fn lists_have_their_words(
            list in prop::collection::vec("[abAB\u{e9}\u{10000}:\"]{1,3}", 0..8),
            probe in "[abAB\u{e9}\u{10000}:\" ]{0,4}",
        ) {
            for (grant, claim, value) in [
                (Grant::Scope, "scope", json!(list.join(" "))),
                (Grant::Scope, "scp", json!(list)),
                (Grant::Scope, "permissions", json!(list)),
                (Grant::Group, "groups", json!(list)),
                (Grant::Role, "role", json!(list)),
                (Grant::Role, "role", json!(json!(list).to_string())),
                (Grant::Amr, "amr", json!(list)),
            ] {
                let claims = json!({claim: value}).to_string();
                let claims = UnjudgedClaims::trusted(&claims).unwrap();
                let words = claims.unjudged().words(grant);
                prop_assert_eq!(words.has(&probe), list.contains(&probe), "{}", claim);
                prop_assert!(list.iter().all(|word| words.has(word)), "{}", claim);
            }
        }

        /// Any claims can be asked, and a hint says of which claims nothing is read.
        #[test]
        fn hostile_claims(
            name in prop::sample::select(vec!["scope", "scp", "permissions", "groups", "acr", "amr", "role"]),
            value in "[\\[\\]{}\",:a1 ]{0,12}",
        ) {
            let text = format!("{{\"{name}\":{value}}}");
            if let Ok(claims) = UnjudgedClaims::trusted(&text) {
                let provider = Provider::with_default_policy("test", KeySet::empty());
                let json = Json::parse(text.as_bytes()).unwrap();
                let is_unread = !hints(json.as_object().unwrap(), &provider).is_empty();
                let found: Vec<Words> =
                    Grant::ALL.into_iter().map(|grant| claims.unjudged().words(grant)).collect();
                prop_assert!(!is_unread || found.iter().all(|words| words.places.is_empty()), "{}", text);
                prop_assert!(found.iter().all(|words| !words.has("")));
            }
        }
    }
}
