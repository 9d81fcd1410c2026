//! The members of a provider document and the columns of a row, as tables.

use crate::algorithm::{Algorithm, AlgorithmSet};
use crate::document::misconfigured;
use crate::draft::Draft;
use crate::json::Json;
use crate::key_set::KeySet;
use crate::member_values::{
    each, issuer, key_url, one_or_more, path, requirements, role, seconds, text, texts, trimmed,
};
use crate::rejection::{Rejection, quoted};

/// The maximum of `leeway`, in seconds.
const MAX_LEEWAY: i64 = 3600;

/// The maximum of `max_token_age`, in seconds: ten years.
const MAX_TOKEN_AGE: i64 = 315_360_000;

/// The minimum of `keep_keys`, in seconds.
const MIN_KEEP_KEYS: i64 = 300;

/// The maximum and the default of `keep_keys`, in seconds.
pub(crate) const MAX_KEEP_KEYS: i64 = 86_400;

/// One member of a provider document.
pub struct ProviderMember {
    /// The name of the member.
    pub name: &'static str,
    /// The meaning and the default, in the words of the documentation's table.
    pub meaning: &'static str,
    read: fn(&Json<'_>, &mut Draft) -> Result<(), String>,
}

/// All members of a provider document. Any other member is an error.
pub const PROVIDER_MEMBERS: [ProviderMember; 19] = [
    ProviderMember {
        name: "name",
        meaning: "a string by which messages call the provider; the issuer without it",
        read: |value, draft| set(&mut draft.name, trimmed(value)),
    },
    ProviderMember {
        name: "issuer",
        meaning: "the `iss` that the provider's tokens have, exactly; without it the provider \
                  serves tokens whose `iss` belongs to no other",
        read: |value, draft| set(&mut draft.issuer, issuer(value)),
    },
    ProviderMember {
        name: "audience",
        meaning: "a string or an array of strings, one of which `aud` must contain; without it \
                  `aud` does not matter",
        read: |value, draft| {
            draft.audience = one_or_more(value)?;
            Ok(())
        },
    },
    ProviderMember {
        name: "jwks",
        meaning: "a JWK or a JWK set of public keys, or of symmetric ones; this, `public_key` or \
                  `secret` must be there",
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
                  does not matter for it; beside public keys, it is for HMAC tokens alone, and they \
                  for all others",
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
                Algorithm::from_name(name).ok_or_else(|| {
                    let all = Algorithm::ALL.map(Algorithm::name);
                    let near = all.iter().find(|other| other.eq_ignore_ascii_case(name));
                    let advice = match near {
                        Some(near) => format!("write {}", quoted(near)),
                        None => format!("supported are {}", all.join(", ")),
                    };
                    format!("names {}, which is not supported; {advice}", quoted(name))
                })
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
        read: |value, draft| set(&mut draft.leeway, seconds(value, 0..=MAX_LEEWAY)),
    },
    ProviderMember {
        name: "required_claims",
        meaning: "an array of the claims that must be there, by name or JSON Pointer; `[\"exp\"]` \
                  without it",
        read: |value, draft| set(&mut draft.required_claims, each(value, path)),
    },
    ProviderMember {
        name: "user_id_claim",
        meaning: "the claim that `auth.user_id()` returns, by name or JSON Pointer; `sub` without \
                  it",
        read: |value, draft| set(&mut draft.user_id_claim, path(value)),
    },
    ProviderMember {
        name: "role_claim",
        meaning: "the claim that names the database role that the session takes, by name or JSON \
                  Pointer; an array of roles needs `allowed_roles`, of which the first that is in it \
                  counts; without it no claim does, and `auth.role()` returns `role`",
        read: |value, draft| set(&mut draft.role_claim, path(value)),
    },
    ProviderMember {
        name: "default_role",
        meaning: "the database role that the session takes where that claim is absent, or none is \
                  named; without it the session keeps its own",
        read: |value, draft| set(&mut draft.default_role, role(value)),
    },
    ProviderMember {
        name: "allowed_roles",
        meaning: "an array of the roles that a token may name, the preferred one first; without it any",
        read: |value, draft| set(&mut draft.allowed_roles, texts(value)),
    },
    ProviderMember {
        name: "allowed_roles_claim",
        meaning: "the claim that lists the roles that the token may name, by name or JSON Pointer; \
                  without it none needs to",
        read: |value, draft| set(&mut draft.allowed_roles_claim, path(value)),
    },
    ProviderMember {
        name: "claims_namespace",
        meaning: "the claim in which `auth.session_variable()` looks, by name or JSON Pointer; without \
                  it `https://hasura.io/jwt/claims`, or where that is no object \
                  `claims.jwt.hasura.io`",
        read: |value, draft| set(&mut draft.claims_namespace, path(value)),
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
    ProviderMember {
        name: "typ",
        meaning: "a string or an array of strings: the header's `typ` must be there and be one of \
                  them, as `at+jwt` where access tokens alone are to count; without it `JWT`, \
                  `at+jwt`, `JOSE` or none",
        read: |value, draft| set(&mut draft.typ, one_or_more(value)),
    },
    ProviderMember {
        name: "public_key",
        meaning: "a public key or a certificate, whose key counts and nothing else: one block in PEM, or \
                  its base64 alone; the DER says which of them it is, not the label; the token's `kid` does \
                  not matter for it; also beside `jwks`",
        read: |value, draft| {
            KeySet::from_pem(&text(value)?)
                .map(|keys| draft.public_key = Some(keys))
                .unwrap_or_else(|error| draft.key_error = Some(error));
            Ok(())
        },
    },
    ProviderMember {
        name: "require",
        meaning: "an object: for each claim, by name or JSON Pointer, the value that it must have, or an \
                  array of values (strings, booleans, and integers without fraction or exponent) of \
                  which it must have one; of a claim that is an array, one item must; at most 16 \
                  claims with 64 values each",
        read: |value, draft| set(&mut draft.require, requirements(value)),
    },
    ProviderMember {
        name: "max_token_age",
        meaning: "seconds after `iat` for which a token counts, whatever its `exp`, 1 to 315360000; `iat` \
                  must be there then, and must not be in the future; without it `iat` does not matter",
        read: |value, draft| set(&mut draft.max_token_age, seconds(value, 1..=MAX_TOKEN_AGE)),
    },
];

/// The columns of a row of the table of providers, in addition to the members of a document.
pub const ROW_MEMBERS: [ProviderMember; 4] = [
    ProviderMember {
        name: "jwks_url",
        meaning: "the URL of the provider's JWK set, from which the keys are fetched; where there is \
                  none, and none of `jwks`, `public_key` and `secret`, the issuer's OpenID \
                  discovery document names it",
        read: |value, draft| set(&mut draft.jwks_url, key_url(value)),
    },
    ProviderMember {
        name: "keep_keys",
        meaning: "seconds for which keys that were fetched are good if no newer ones can be had, 300 \
                  to 86400; 86400 without it",
        read: |value, draft| {
            set(&mut draft.keep_keys, seconds(value, MIN_KEEP_KEYS..=MAX_KEEP_KEYS))
        },
    },
    ProviderMember {
        name: "fetched_jwks",
        meaning: "the keys that were fetched last",
        read: |value, draft| {
            KeySet::from_fetched(value)
                .map(|keys| draft.fetched = Some(keys))
                .unwrap_or_else(|error| draft.key_error = Some(error));
            Ok(())
        },
    },
    ProviderMember {
        name: "fetched_from",
        meaning: "the URL that was asked for them; keys from another one than that which is \
                  configured do not count",
        read: |value, draft| set(&mut draft.fetched_from, text(value)),
    },
];

impl ProviderMember {
    pub(crate) fn read_into(
        &self,
        value: &Json<'_>,
        draft: &mut Draft,
        label: &str,
    ) -> Result<(), Rejection> {
        (self.read)(value, draft).map_err(|problem| {
            let name = quoted(self.name);
            misconfigured("provider has an invalid member")
                .with_detail(format!("{label}: the member {name} {problem}."))
        })
    }
}

fn set<T>(member: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    *member = Some(value?);
    Ok(())
}
