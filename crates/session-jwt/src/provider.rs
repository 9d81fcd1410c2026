//! Identity providers: whose tokens are believed, by which keys, and under which policy.

use crate::algorithm::{Algorithm, AlgorithmSet};
use crate::json::{Json, Object};
use crate::jwk::KeySet;
use crate::path::ClaimPath;
use crate::rejection::{Code, Rejection, quoted, reject};

/// The leeway of a provider that names none, in seconds.
const DEFAULT_LEEWAY: i64 = 60;

/// The largest leeway, in seconds.
const MAX_LEEWAY: i64 = 3600;

/// One identity provider.
///
/// Its `Debug` form names no key material.
#[derive(Debug)]
pub struct Provider {
    pub(crate) name: String,
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Vec<String>,
    pub(crate) keys: KeySet,
    pub(crate) leeway: i64,
    pub(crate) required_claims: Vec<String>,
    pub(crate) user_id_claim: ClaimPath,
    pub(crate) role_claim: ClaimPath,
    pub(crate) names_role_claim: bool,
    pub(crate) allowed_roles: Option<Vec<String>>,
    pub(crate) monotonic_jti: bool,
}

/// One member of a provider document.
pub struct ProviderMember {
    /// Its name.
    pub name: &'static str,
    /// What it is and what holds without it, in the words of the documentation's table.
    pub meaning: &'static str,
    read: fn(&Json<'_>, &mut Draft) -> Result<(), String>,
}

/// What a document has said so far.
#[derive(Default)]
struct Draft {
    name: Option<String>,
    issuer: Option<String>,
    audience: Vec<String>,
    jwks: Option<KeySet>,
    secret: Option<KeySet>,
    algorithms: Option<AlgorithmSet>,
    leeway: Option<i64>,
    required_claims: Option<Vec<String>>,
    user_id_claim: Option<ClaimPath>,
    role_claim: Option<ClaimPath>,
    allowed_roles: Option<Vec<String>>,
    monotonic_jti: Option<bool>,
    /// A key document that was refused, with its own message.
    key_error: Option<Rejection>,
}

/// Every member that a provider document may have; any other is an error.
pub const PROVIDER_MEMBERS: [ProviderMember; 12] = [
    ProviderMember {
        name: "name",
        meaning: "a string by which messages call the provider; the issuer without it",
        read: |value, draft| set(&mut draft.name, text(value)),
    },
    ProviderMember {
        name: "issuer",
        meaning: "the `iss` that the provider's tokens have, exactly; without it the provider \
                  serves tokens whose `iss` belongs to no other",
        read: |value, draft| set(&mut draft.issuer, text(value)),
    },
    ProviderMember {
        name: "audience",
        meaning: "a string or an array of strings, one of which `aud` must contain; without it \
                  `aud` does not matter",
        read: |value, draft| {
            draft.audience = match value {
                Json::String(_) => vec![text(value)?],
                _ => texts(value)?,
            };
            if draft.audience.is_empty() { Err("is empty".to_owned()) } else { Ok(()) }
        },
    },
    ProviderMember {
        name: "jwks",
        meaning: "a JWK or a JWK set of public keys, or of symmetric ones; this or `secret` must \
                  be there",
        read: |value, draft| {
            KeySet::from_json(value)
                .map(|keys| draft.jwks = Some(keys))
                .unwrap_or_else(|error| draft.key_error = Some(error));
            Ok(())
        },
    },
    ProviderMember {
        name: "secret",
        meaning: "a string whose bytes are the HS256 key, at least 32 of them; the token's `kid` \
                  does not matter then",
        read: |value, draft| {
            KeySet::from_secret(&text(value)?)
                .map(|keys| draft.secret = Some(keys))
                .unwrap_or_else(|error| draft.key_error = Some(error));
            Ok(())
        },
    },
    ProviderMember {
        name: "algorithms",
        meaning: "an array of algorithms to allow; without it each key's own `alg`, or else the \
                  usual one of its type",
        read: |value, draft| {
            let names = texts(value)?;
            let listed = names.iter().map(|name| {
                Algorithm::from_name(name)
                    .ok_or_else(|| format!("names {}, which is not supported", quoted(name)))
            });
            let listed: AlgorithmSet = listed.collect::<Result<Vec<_>, _>>()?.into_iter().collect();
            if listed.is_empty() {
                return Err("is empty".to_owned());
            }
            draft.algorithms = Some(listed);
            Ok(())
        },
    },
    ProviderMember {
        name: "leeway",
        meaning: "seconds by which clocks may differ, 0 to 3600; 60 without it",
        read: |value, draft| {
            let seconds = match value {
                Json::Number(number) => number.as_i64(),
                _ => None,
            };
            let seconds = seconds.filter(|seconds| (0..=MAX_LEEWAY).contains(seconds));
            draft.leeway = Some(seconds.ok_or("is not an integer from 0 to 3600")?);
            Ok(())
        },
    },
    ProviderMember {
        name: "required_claims",
        meaning: "an array of the claims that must be there; `[\"exp\"]` without it",
        read: |value, draft| set(&mut draft.required_claims, texts(value)),
    },
    ProviderMember {
        name: "user_id_claim",
        meaning: "the claim that `auth.user_id()` returns, by name or JSON Pointer; `sub` without \
                  it",
        read: |value, draft| set(&mut draft.user_id_claim, path(value)),
    },
    ProviderMember {
        name: "role_claim",
        meaning: "the claim that `auth.role()` returns, by name or JSON Pointer; `role` without it",
        read: |value, draft| set(&mut draft.role_claim, path(value)),
    },
    ProviderMember {
        name: "allowed_roles",
        meaning: "an array of the roles that a token may name; without it any",
        read: |value, draft| set(&mut draft.allowed_roles, texts(value)),
    },
    ProviderMember {
        name: "monotonic_jti",
        meaning: "`true` where `jti` is an integer that must rise with each token that a session \
                  presents; `false` without it",
        read: |value, draft| match value {
            Json::Bool(value) => set(&mut draft.monotonic_jti, Ok(*value)),
            other => Err(format!("is {}, not a boolean", other.type_name())),
        },
    },
];

impl Provider {
    /// A provider of the default policy, with no issuer and no audience, that serves tokens
    /// whose `iss` belongs to no other provider.
    pub fn with_default_policy(name: &str, keys: KeySet) -> Self {
        let draft = Draft { name: Some(name.to_owned()), ..Draft::default() };
        draft.finish(keys, name)
    }

    /// The policy for claims that somebody else has verified: no key, and no claim required.
    pub(crate) fn of_trusted_claims() -> Self {
        let draft = Draft { required_claims: Some(Vec::new()), ..Draft::default() };
        draft.finish(KeySet::none(), "trusted claims")
    }

    /// Reads the providers of a JSON object or of an array of them.
    ///
    /// # Errors
    /// [`Code::Configuration`], with the provider and the member in the detail.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, Rejection> {
        let value = Json::parse(text.as_bytes()).map_err(|error| {
            wrong("providers are not valid JSON").with_detail(error.to_string())
        })?;
        match &value {
            Json::Object(object) => Ok(vec![Self::from_object(object, 1)?]),
            Json::Array(items) => items
                .iter()
                .zip(1..)
                .map(|(item, place)| match item.as_object() {
                    Some(object) => Self::from_object(object, place),
                    None => Err(not_an_object(item, &format!("Provider {place}"))),
                })
                .collect(),
            other => Err(not_an_object(other, "It")),
        }
    }

    fn from_object(object: &Object<'_>, place: usize) -> Result<Self, Rejection> {
        let label = ["name", "issuer"]
            .iter()
            .find_map(|member| object.get(member).and_then(Json::as_str))
            .map_or_else(
                || format!("Provider {place}"),
                |name| format!("Provider {}", quoted(name)),
            );
        let mut draft = Draft::default();
        for (name, value) in object.iter() {
            let Some(member) = PROVIDER_MEMBERS.iter().find(|member| member.name == name) else {
                let known = PROVIDER_MEMBERS.map(|member| member.name).join(", ");
                return Err(wrong("provider has an unknown member")
                    .with_detail(format!("{label} has the member {}.", quoted(name)))
                    .with_hint(match name {
                        "keys" | "kty" => {
                            format!("A JWK or a JWK set goes into \"jwks\". Known are {known}.")
                        }
                        _ => format!("Known are {known}."),
                    }));
            };
            (member.read)(value, &mut draft).map_err(|problem| {
                wrong("provider has a wrong member")
                    .with_detail(format!("{label}: the member {} {problem}.", quoted(name)))
            })?;
        }
        let in_provider = |error: Rejection| {
            let detail = format!("{label}: {}", error.detail().unwrap_or_default());
            error.with_detail(detail)
        };
        if let Some(error) = draft.key_error.take() {
            return Err(in_provider(error));
        }
        let keys = match (draft.jwks.take(), draft.secret.take()) {
            (Some(keys), None) | (None, Some(keys)) => keys,
            (None, None) => {
                return Err(wrong("provider has no key")
                    .with_detail(format!("{label} has neither \"jwks\" nor \"secret\".")));
            }
            (Some(_), Some(_)) => {
                return Err(wrong("provider has two kinds of keys")
                    .with_detail(format!("{label} has both \"jwks\" and \"secret\".")));
            }
        };
        let keys = match draft.algorithms {
            None => keys,
            Some(listed) => keys.with_algorithms(listed).map_err(in_provider)?,
        };
        Ok(draft.finish(keys, &format!("provider {place}")))
    }

    /// The name that messages use.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The issuer whose tokens it serves.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Its keys.
    pub fn keys(&self) -> &KeySet {
        &self.keys
    }
}

impl Draft {
    fn finish(self, keys: KeySet, unnamed: &str) -> Provider {
        let claim =
            |path: Option<ClaimPath>, name: &str| path.unwrap_or_else(|| ClaimPath::name(name));
        Provider {
            name: self.name.or_else(|| self.issuer.clone()).unwrap_or_else(|| unnamed.to_owned()),
            issuer: self.issuer,
            audience: self.audience,
            keys,
            leeway: self.leeway.unwrap_or(DEFAULT_LEEWAY),
            required_claims: self.required_claims.unwrap_or_else(|| vec!["exp".to_owned()]),
            names_role_claim: self.role_claim.is_some(),
            user_id_claim: claim(self.user_id_claim, "sub"),
            role_claim: claim(self.role_claim, "role"),
            allowed_roles: self.allowed_roles,
            monotonic_jti: self.monotonic_jti.unwrap_or(false),
        }
    }
}

fn wrong(message: &'static str) -> Rejection {
    reject(Code::Configuration, message)
}

fn not_an_object(found: &Json<'_>, what: &str) -> Rejection {
    wrong("provider is not a JSON object")
        .with_detail(format!("{what} is {}, not an object.", found.type_name()))
}

fn set<T>(member: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    *member = Some(value?);
    Ok(())
}

fn text(value: &Json<'_>) -> Result<String, String> {
    match value.as_str() {
        Some("") => Err("is empty".to_owned()),
        Some(text) if text.contains('\0') => Err("holds the character U+0000".to_owned()),
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("is {}, not a string", value.type_name())),
    }
}

fn texts(value: &Json<'_>) -> Result<Vec<String>, String> {
    let items = value
        .as_array()
        .ok_or_else(|| format!("is {}, not an array of strings", value.type_name()))?;
    items
        .iter()
        .map(|item| text(item).map_err(|error| format!("has an item that {error}")))
        .collect()
}

fn path(value: &Json<'_>) -> Result<ClaimPath, String> {
    ClaimPath::parse(&text(value)?).map_err(|_| "is not a JSON Pointer".to_owned())
}
