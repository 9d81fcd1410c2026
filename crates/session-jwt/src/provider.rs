//! Identity providers: whose tokens are believed, by which keys, and under which policy.

use crate::algorithm::{Algorithm, AlgorithmSet, KeyType};
use crate::endpoint::{Endpoint, HttpHosts};
use crate::issuer::{self, is_invisible};
use crate::json::{Json, Object, push};
use crate::jwk::{KeySet, MAX_FETCHED_BYTES, check_document_length, not_json};
use crate::own_values::OwnValues;
use crate::path::ClaimPath;
use crate::rejection::{Code, Rejection, quoted, quoted_list, reject};
use crate::secret::{self, Found};
use crate::slips;

/// The leeway of a provider that names none, in seconds.
const DEFAULT_LEEWAY: i64 = 60;

/// The largest leeway, in seconds.
const MAX_LEEWAY: i64 = 3600;

/// How long the last good keys are kept where none can be fetched, in seconds, at most and where a
/// provider does not say.
const MAX_KEEP_KEYS: i64 = 86_400;

/// The shortest such time, in seconds.
const MIN_KEEP_KEYS: i64 = 300;

/// The largest age to which tokens can be limited, in seconds: ten years.
const MAX_TOKEN_AGE: i64 = 315_360_000;

/// How many claims a provider may ask to have certain values, and how many values each.
const MAX_REQUIREMENTS: usize = 16;
const MAX_REQUIRED_VALUES: usize = 64;

/// The longest name of a provider that is a row, in bytes: it is handed to a background worker.
pub const MAX_ROW_NAME_BYTES: usize = 90;

/// How many bytes a row of the table of providers may have, as JSON: room for as many keys as can be
/// fetched, and as much again for all the rest. Roles that are no administrators write rows, and each
/// session reads them.
pub const MAX_ROW_BYTES: usize = 2 * MAX_FETCHED_BYTES;

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
    pub(crate) required_claims: Vec<ClaimPath>,
    pub(crate) user_id_claim: ClaimPath,
    pub(crate) role_claim: ClaimPath,
    pub(crate) names_role_claim: bool,
    pub(crate) default_role: Option<String>,
    pub(crate) allowed_roles: Option<Vec<String>>,
    pub(crate) allowed_roles_claim: Option<ClaimPath>,
    pub(crate) claims_namespace: Option<ClaimPath>,
    pub(crate) monotonic_jti: bool,
    pub(crate) typ: Option<Vec<String>>,
    pub(crate) require: Box<[Requirement]>,
    pub(crate) max_token_age: Option<i64>,
    algorithms: Option<AlgorithmSet>,
    remote: Option<Remote>,
}

/// A claim that must have one of these values.
#[derive(Debug)]
pub(crate) struct Requirement {
    pub(crate) path: ClaimPath,
    pub(crate) values: Box<[RequiredValue]>,
}

/// A value that a claim may be asked to have.
#[derive(Debug, PartialEq)]
pub(crate) enum RequiredValue {
    Text(Box<str>),
    /// Its digits.
    Integer(Box<str>),
    Bool(bool),
}

impl RequiredValue {
    pub(crate) fn of(value: &Json<'_>) -> Option<Self> {
        match value {
            Json::String(text) => Some(Self::Text(text.as_ref().into())),
            Json::Number(number) => Some(Self::Integer(number.integer_text()?.into())),
            Json::Bool(value) => Some(Self::Bool(*value)),
            _ => None,
        }
    }
}

impl std::fmt::Display for RequiredValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Integer(digits) if digits.len() > 40 => write!(f, "{}...", &digits[..40]),
            Self::Integer(digits) => f.write_str(digits),
            Self::Bool(value) => write!(f, "{value}"),
        }
    }
}

/// Where a provider's keys are fetched from.
#[derive(Clone, Debug, PartialEq)]
pub enum KeySource {
    /// The URL of a JWK set.
    Url(Endpoint),
    /// An issuer, whose discovery document names the URL.
    Discovery {
        /// The issuer, as tokens name it.
        issuer: String,
        /// Where its document is.
        document: Endpoint,
    },
}

impl KeySource {
    /// The URL that is asked first.
    pub fn url(&self) -> &str {
        match self {
            KeySource::Url(url) => url.as_str(),
            KeySource::Discovery { document, .. } => document.as_str(),
        }
    }

    /// Whether the URL may be asked, given the hosts for which `http` may be used.
    ///
    /// # Errors
    /// [`Code::Configuration`]. What to do about it depends on where the hosts are listed.
    pub fn check_scheme(&self, http: &HttpHosts) -> Result<(), Rejection> {
        let (member, endpoint) = match self {
            KeySource::Url(url) => ("jwks_url", url),
            KeySource::Discovery { document, .. } => ("issuer", document),
        };
        endpoint.check_scheme(http).map_err(|problem| {
            wrong("keys cannot be fetched over http").with_detail(format!(
                "The member {} {problem}, and the host {} is not listed for http.",
                quoted(member),
                quoted(endpoint.host())
            ))
        })
    }
}

/// A provider whose keys are fetched.
#[derive(Debug)]
pub struct Remote {
    source: KeySource,
    keep_keys: i64,
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
    required_claims: Option<Vec<ClaimPath>>,
    user_id_claim: Option<ClaimPath>,
    role_claim: Option<ClaimPath>,
    default_role: Option<String>,
    allowed_roles: Option<Vec<String>>,
    allowed_roles_claim: Option<ClaimPath>,
    claims_namespace: Option<ClaimPath>,
    monotonic_jti: Option<bool>,
    typ: Option<Vec<String>>,
    public_key: Option<KeySet>,
    require: Option<Box<[Requirement]>>,
    max_token_age: Option<i64>,
    jwks_url: Option<Endpoint>,
    keep_keys: Option<i64>,
    fetched: Option<KeySet>,
    fetched_from: Option<String>,
    /// Whether its keys are fetched, but for a secret.
    is_remote: bool,
    /// A key document that was refused, with its own message.
    key_error: Option<Rejection>,
}

/// Every member that a provider document may have; any other is an error.
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

/// What a row of the table of providers may have beside the members of a document.
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

impl Provider {
    /// A provider of the default policy, with no issuer and no audience, that serves tokens
    /// whose `iss` belongs to no other provider.
    pub fn with_default_policy(name: &str, keys: KeySet) -> Self {
        let draft = Draft { name: Some(name.to_owned()), ..Draft::default() };
        draft.provider(keys, name)
    }

    /// The policy for claims that somebody else has verified: no key, and no claim required.
    pub(crate) fn of_trusted_claims() -> Self {
        let draft = Draft { required_claims: Some(Vec::new()), ..Draft::default() };
        draft.provider(KeySet::none(), "trusted claims")
    }

    /// Reads the providers of a JSON object or of an array of them.
    ///
    /// # Errors
    /// [`Code::Configuration`], with the provider and the member in the detail; also where the text is
    /// longer than [`crate::MAX_DOCUMENT_BYTES`].
    pub fn parse_all(text: &str) -> Result<Vec<Self>, Rejection> {
        check_document_length(text)?;
        let value = Json::parse(text.as_bytes())
            .map_err(|error| not_json("providers are not valid JSON", text, &error))?;
        match &value {
            Json::Object(object) => Ok(vec![Self::from_object(object, 1)?]),
            Json::Array(items) => {
                let mut providers = Vec::new();
                for (item, place) in items.iter().zip(1..) {
                    let Some(object) = item.as_object() else {
                        return Err(not_an_object(item, &format!("Provider {place}")));
                    };
                    push(&mut providers, Self::from_object(object, place)?);
                }
                Ok(providers)
            }
            other => Err(not_an_object(other, "It")),
        }
    }

    /// Reads a row of the table of providers, as a JSON object: members that are null are not
    /// there, and others than those of [`PROVIDER_MEMBERS`] and [`ROW_MEMBERS`] do not matter.
    ///
    /// # Errors
    /// As for [`Provider::parse_all`]; a row may have [`MAX_ROW_BYTES`].
    pub fn from_row(text: &str) -> Result<Self, Rejection> {
        if text.len() > MAX_ROW_BYTES {
            return Err(wrong("provider is too long")
                .with_detail(format!("The limit for the row as JSON is {MAX_ROW_BYTES} bytes.")));
        }
        let value = Json::parse(text.as_bytes())
            .map_err(|error| wrong("provider cannot be read").with_detail(error.to_string()))?;
        let Some(row) = value.as_object() else {
            return Err(not_an_object(&value, "It"));
        };
        let label = label(row, 1);
        let mut draft = Draft::default();
        for (name, value) in row.iter().filter(|(_, value)| !matches!(value, Json::Null)) {
            let mut members = PROVIDER_MEMBERS.iter().chain(&ROW_MEMBERS);
            if let Some(member) = members.find(|member| member.name == name) {
                draft.read(member, value, &label)?;
            }
        }
        let Some(name) = &draft.name else {
            return Err(wrong("provider has no name").with_detail("A row must have one."));
        };
        if name.len() > MAX_ROW_NAME_BYTES {
            return Err(wrong("provider has a wrong member").with_detail(format!(
                "{label}: the member \"name\" is longer than {MAX_ROW_NAME_BYTES} bytes."
            )));
        }
        draft.check_secrets(row, &label)?;
        let has_own = draft.has_keys() || draft.key_error.is_some();
        let source = match (&draft.jwks_url, &draft.issuer) {
            (Some(url), _) => Some(KeySource::Url(url.clone())),
            (None, Some(issuer)) if !has_own => {
                let document = Endpoint::discovery(issuer).map_err(|problem| {
                    wrong("provider has no key").with_detail(format!(
                        "{label} has none of {KEY_COLUMNS}, and its issuer, by which OpenID \
                         discovery would find a URL, {problem}."
                    ))
                })?;
                Some(KeySource::Discovery { issuer: issuer.clone(), document })
            }
            _ => None,
        };
        let Some(source) = source else {
            if !has_own {
                return Err(wrong("provider has no key").with_detail(format!(
                    "{label} has none of {KEY_COLUMNS}, and no issuer by which OpenID discovery \
                     would find a URL."
                )));
            }
            return draft.finish(&label, "provider");
        };
        if draft.jwks.is_some() || draft.public_key.is_some() {
            return Err(two_kinds_of_keys(&label, "\"jwks_url\" and \"jwks\" or \"public_key\"")
                .with_hint("Set those that do not count any more to NULL."));
        }
        let is_symmetric = |algorithm: &Algorithm| algorithm.key_type() == KeyType::Oct;
        if let Some(listed) = draft.algorithms {
            if listed.iter().all(|algorithm| is_symmetric(&algorithm)) {
                return Err(wrong("provider has a wrong member").with_detail(format!(
                    "{label}: the member \"algorithms\" names {} alone, but keys that are fetched are \
                     public.",
                    listed.names()
                )));
            }
            if let Some(algorithm) = listed.iter().find(is_symmetric)
                && draft.secret.is_none()
            {
                return Err(wrong("provider has a wrong member").with_detail(format!(
                    "{label}: the member \"algorithms\" names {}, but keys that are fetched are \
                     public.",
                    algorithm.name()
                )));
            }
        }
        // Keys of another place say nothing here.
        let is_from_there = draft.fetched_from.as_deref() == Some(source.url());
        draft.fetched = draft.fetched.take().filter(|_| is_from_there);
        draft.is_remote = true;
        draft.drop_published_secret();
        let keep_keys = draft.keep_keys.unwrap_or(MAX_KEEP_KEYS);
        Ok(Self { remote: Some(Remote { source, keep_keys }), ..draft.finish(&label, "provider")? })
    }

    fn from_object(object: &Object<'_>, place: usize) -> Result<Self, Rejection> {
        let label = label(object, place);
        check_members(object, &label)?;
        let mut draft = Draft::default();
        for (name, value) in object.iter() {
            let Some(member) = PROVIDER_MEMBERS.iter().find(|member| member.name == name) else {
                continue;
            };
            // As a column without a value is.
            if !matches!(value, Json::Null) {
                draft.read(member, value, &label)?;
            }
        }
        draft.check_secrets(object, &label)?;
        draft.finish(&label, &format!("provider {place}"))
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

    /// Where its keys are fetched from, if they are.
    pub fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    /// The algorithms that are listed for it, if any are.
    pub fn algorithms(&self) -> Option<AlgorithmSet> {
        self.algorithms
    }
}

impl Remote {
    /// Where the keys are fetched from.
    pub fn source(&self) -> &KeySource {
        &self.source
    }

    /// For how many seconds keys are good if no newer ones can be had.
    pub fn keep_keys(&self) -> i64 {
        self.keep_keys
    }
}

impl Draft {
    fn read(
        &mut self,
        member: &ProviderMember,
        value: &Json<'_>,
        label: &str,
    ) -> Result<(), Rejection> {
        (member.read)(value, self).map_err(|problem| {
            let name = quoted(member.name);
            wrong("provider has a wrong member")
                .with_detail(format!("{label}: the member {name} {problem}."))
        })
    }

    /// Refuses a secret that is made of what the document says to everybody.
    fn check_secrets(&self, object: &Object<'_>, label: &str) -> Result<(), Rejection> {
        let sets = || [&self.jwks, &self.secret, &self.public_key].into_iter().flatten();
        if !sets().any(KeySet::is_symmetric) {
            return Ok(());
        }
        let own = OwnValues::of(object, sets());
        match sets().flat_map(KeySet::secrets).find_map(|secret| own.found_in(secret)) {
            None => Ok(()),
            Some(value) => Err(wrong("secret cannot be used")
                .with_detail(format!(
                    "{label}: The secret is {value}, which is public, or holds it."
                ))
                .with_hint(
                    "Give at least 32 random bytes, as openssl rand -base64 32 makes them.",
                )),
        }
    }

    /// Leaves a secret without effect that the provider has published in its keys. That is no error: the
    /// row was good before they were fetched.
    fn drop_published_secret(&mut self) {
        let Some((secret, fetched)) = self.secret.as_ref().zip(self.fetched.as_ref()) else {
            return;
        };
        let own = OwnValues::of_keys([fetched].into_iter());
        let found = secret.secrets().find_map(|secret| own.found_in(secret));
        if let Some(value) = found {
            let reason = format!("It is {value} that was fetched, which is public, or holds it.");
            self.secret = Some(KeySet::unusable_secret(reason));
        }
    }

    /// The provider that the document describes.
    fn finish(mut self, label: &str, unnamed: &str) -> Result<Provider, Rejection> {
        let in_provider = |error: Rejection| in_provider(label, error);
        if let Some(error) = self.key_error.take() {
            return Err(in_provider(error));
        }
        let keys = self.keys(label).and_then(|keys| match self.is_remote {
            true => Ok(keys),
            false => keys.check_distinct().map(|()| keys).map_err(in_provider),
        })?;
        self.check_audience(label)?;
        Ok(self.provider(keys, unnamed))
    }

    /// The keys of all members, each for the algorithms that are listed.
    fn keys(&mut self, label: &str) -> Result<KeySet, Rejection> {
        let in_provider = |error: Rejection| in_provider(label, error);
        if !self.is_remote && !self.has_keys() {
            return Err(wrong("provider has no key").with_detail(format!(
                "{label} has none of \"jwks\", \"public_key\" and \"secret\"."
            )));
        }
        if self.jwks.as_ref().is_some_and(KeySet::is_symmetric)
            && (self.secret.is_some() || self.public_key.is_some())
        {
            let kinds = "symmetric keys in \"jwks\" and \"secret\" or \"public_key\"";
            return Err(two_kinds_of_keys(label, kinds).with_hint(
                "Give one symmetric key as \"secret\"; \"jwks\" is for public keys then.",
            ));
        }
        let listed = self.algorithms;
        let fit = |keys: KeySet| match listed {
            Some(listed) if !keys.is_empty() => keys.with_algorithms(listed),
            _ => Ok(keys),
        };
        let fetched = match self.fetched.take() {
            Some(keys) => Some(fit(keys).map_err(in_provider)?.without_duplicates()),
            None => None,
        };
        let is_waiting = self.is_remote && fetched.is_none();
        // Each member by itself: none is there in vain.
        let members = [
            ("jwks", self.jwks.take()),
            ("public_key", self.public_key.take()),
            ("secret", self.secret.take()),
        ];
        let own = members.into_iter().filter_map(|(name, keys)| Some((name, keys?)));
        let own = own.map(|(name, keys)| {
            fit(keys).map_err(|error| {
                let detail = error.detail().unwrap_or_default();
                let detail = format!("The member {} has none: {detail}", quoted(name));
                in_provider(error.with_detail(detail))
            })
        });
        let own = KeySet::join(own.collect::<Result<Vec<_>, _>>()?);
        let keys = KeySet::join(fetched.into_iter().chain([own]));
        Ok(if is_waiting { keys.waiting() } else { keys })
    }

    fn has_keys(&self) -> bool {
        self.jwks.is_some() || self.public_key.is_some() || self.secret.is_some()
    }

    /// Where one operator signs for everybody with the same keys, the audience alone says for whom a
    /// token is.
    fn check_audience(&self, label: &str) -> Result<(), Rejection> {
        // Some issuers are a host name without a scheme.
        let issuer = self.issuer.as_deref().and_then(|issuer| {
            Endpoint::parse(issuer).or_else(|_| Endpoint::parse(&format!("https://{issuer}"))).ok()
        });
        let mut urls = [issuer.as_ref(), self.jwks_url.as_ref()].into_iter().flatten();
        match urls.find_map(Endpoint::shared_by) {
            Some(operator) if self.audience.is_empty() => Err(wrong("provider needs an audience")
                .with_detail(format!(
                    "{label}: {operator} signs the tokens of all its customers' applications \
                         with the same keys."
                ))
                .with_hint(
                    "Name the audience that tokens for your application have in \"aud\": without \
                         it, a token for anybody else's application would be accepted too.",
                )),
            _ => Ok(()),
        }
    }

    fn provider(self, keys: KeySet, unnamed: &str) -> Provider {
        let claim =
            |path: Option<ClaimPath>, name: &str| path.unwrap_or_else(|| ClaimPath::name(name));
        Provider {
            name: self.name.or_else(|| self.issuer.clone()).unwrap_or_else(|| unnamed.to_owned()),
            issuer: self.issuer,
            audience: self.audience,
            keys,
            leeway: self.leeway.unwrap_or(DEFAULT_LEEWAY),
            required_claims: self.required_claims.unwrap_or_else(|| vec![ClaimPath::name("exp")]),
            names_role_claim: self.role_claim.is_some(),
            user_id_claim: claim(self.user_id_claim, "sub"),
            role_claim: claim(self.role_claim, "role"),
            default_role: self.default_role,
            allowed_roles: self.allowed_roles,
            allowed_roles_claim: self.allowed_roles_claim,
            claims_namespace: self.claims_namespace,
            monotonic_jti: self.monotonic_jti.unwrap_or(false),
            typ: self.typ,
            require: self.require.unwrap_or_default(),
            max_token_age: self.max_token_age,
            algorithms: self.algorithms,
            remote: None,
        }
    }
}

/// The columns by which a row says where its keys are.
const KEY_COLUMNS: &str = "\"jwks\", \"public_key\", \"secret\" and \"jwks_url\"";

/// The same refusal, naming the provider.
fn in_provider(label: &str, error: Rejection) -> Rejection {
    let detail = format!("{label}: {}", error.detail().unwrap_or_default());
    error.with_detail(detail)
}

/// What messages call a provider.
fn label(object: &Object<'_>, place: usize) -> String {
    ["name", "issuer"]
        .iter()
        .find_map(|member| object.get(member).and_then(Json::as_str))
        .map_or_else(|| format!("Provider {place}"), |name| format!("Provider {}", quoted(name)))
}

fn two_kinds_of_keys(label: &str, kinds: &str) -> Rejection {
    wrong("provider has two kinds of keys").with_detail(format!("{label} has both {kinds}."))
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
    each(value, item)
}

/// What `read` makes of each item of an array of strings.
fn each<T>(value: &Json<'_>, read: fn(&Json<'_>) -> Result<T, String>) -> Result<Vec<T>, String> {
    let items = value
        .as_array()
        .ok_or_else(|| format!("is {}, not an array of strings", value.type_name()))?;
    if let Some(other) = items.iter().find(|item| item.as_str().is_none()) {
        return Err(format!("has an item that is {}, not a string", other.type_name()));
    }
    // Only now, and of exactly the size that is needed: a text of numbers would make it long.
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        out.push(read(item).map_err(|error| format!("has an item that {error}"))?);
    }
    Ok(out)
}

fn one_or_more(value: &Json<'_>) -> Result<Vec<String>, String> {
    let texts = match value {
        Json::String(_) => vec![item(value)?],
        _ => texts(value)?,
    };
    if texts.is_empty() { Err("is empty".to_owned()) } else { Ok(texts) }
}

fn requirements(value: &Json<'_>) -> Result<Box<[Requirement]>, String> {
    let object =
        value.as_object().ok_or_else(|| format!("is {}, not an object", value.type_name()))?;
    let count = object.iter().count();
    if count == 0 || count > MAX_REQUIREMENTS {
        return Err(format!("names {count} claims, not 1 to {MAX_REQUIREMENTS}"));
    }
    let mut out = Vec::with_capacity(count);
    for (name, value) in object.iter() {
        let within = |problem: String| format!("has the claim {} that {problem}", quoted(name));
        let name = Json::String(name.into());
        let path = path(&name).map_err(|problem| format!("names a claim that {problem}"))?;
        out.push(Requirement { path, values: required_values(value).map_err(within)? });
    }
    Ok(out.into_boxed_slice())
}

fn required_values(value: &Json<'_>) -> Result<Box<[RequiredValue]>, String> {
    let values = value.as_array().unwrap_or(std::slice::from_ref(value));
    if values.is_empty() || values.len() > MAX_REQUIRED_VALUES {
        return Err(format!("has {} values, not 1 to {MAX_REQUIRED_VALUES}", values.len()));
    }
    let mut out = Vec::with_capacity(values.len());
    for value in values {
        if matches!(value, Json::String(_)) {
            trimmed(value)
                .and_then(|text| free_of(slips::in_value, text))
                .map_err(|problem| format!("has a value that {problem}"))?;
        }
        out.push(RequiredValue::of(value).ok_or_else(|| match value {
            Json::Number(number) => {
                let whole = number.floor().filter(|_| number.floor() == number.ceil());
                let advice = whole.map_or_else(String::new, |whole| format!("; write {whole}"));
                format!("has a number with a fraction or an exponent{advice}")
            }
            other => {
                let found = other.type_name();
                format!("has a value that is {found}, not a string, an integer or a boolean")
            }
        })?);
    }
    Ok(out.into_boxed_slice())
}

fn seconds(value: &Json<'_>, range: std::ops::RangeInclusive<i64>) -> Result<i64, String> {
    let seconds = match value {
        Json::Number(number) => number.as_i64(),
        _ => None,
    };
    seconds
        .filter(|seconds| range.contains(seconds))
        .ok_or_else(|| format!("is not an integer from {} to {}", range.start(), range.end()))
}

fn path(value: &Json<'_>) -> Result<ClaimPath, String> {
    parse_path(&trimmed(value)?)
}

fn parse_path(text: &str) -> Result<ClaimPath, String> {
    let Some(foreign) = ClaimPath::in_foreign_syntax(text) else {
        return match slips::in_claim(text) {
            Some(problem) => Err(format!("is {}, {problem}", quoted(text))),
            None => ClaimPath::parse(text).map_err(|_| "is not a JSON Pointer".to_owned()),
        };
    };
    let pointer = match foreign.pointer.as_str() {
        "" => "a claim's name, or a JSON Pointer such as \"/realm_access/roles/0\"".to_owned(),
        pointer => quoted(pointer),
    };
    let literal = foreign.literal.map(|literal| {
        format!(", or {} for the claim that has exactly this name", quoted(&literal))
    });
    Err(format!(
        "is {}, {}; write {pointer}{}",
        quoted(text),
        foreign.problem,
        literal.unwrap_or_default()
    ))
}

/// A text that is compared with others as a whole: white space around it and control characters come
/// from copying, and would make it match nothing.
fn trimmed(value: &Json<'_>) -> Result<String, String> {
    let text = text(value)?;
    let bare: String = text.chars().filter(|character| !character.is_control()).collect();
    let bare =
        bare.trim_matches(|character: char| character.is_whitespace() || is_invisible(character));
    match bare {
        bare if bare == text => Ok(text),
        "" => Err("is white space".to_owned()),
        bare => Err(format!(
            "is {}, with white space around it or control characters; write {}",
            quoted(&text),
            quoted(bare)
        )),
    }
}

/// The same where tokens have it exactly: what else stands in place of one value would match nothing.
fn item(value: &Json<'_>) -> Result<String, String> {
    free_of(slips::in_item, trimmed(value)?)
}

fn role(value: &Json<'_>) -> Result<String, String> {
    free_of(slips::in_role, trimmed(value)?)
}

fn free_of(slip: fn(&str) -> Option<String>, text: String) -> Result<String, String> {
    match slip(&text) {
        None => Ok(text),
        Some(problem) => Err(format!("is {}, {problem}", quoted(&text))),
    }
}

/// An issuer as a token may have it.
fn issuer(value: &Json<'_>) -> Result<String, String> {
    let text = text(value)?;
    issuer::check(&text).map(|()| text)
}

/// The URL of a JWK set.
fn key_url(value: &Json<'_>) -> Result<Endpoint, String> {
    let text = text(value)?;
    let write = |url: &str| Err(format!("is {}; write {}", quoted(&text), quoted(url)));
    const LONGEST: usize = 4 * 1024;
    match secret::find(text.get(..LONGEST).unwrap_or(&text).as_bytes()) {
        None | Some(Found::Url | Found::Point) => {}
        // It is not repeated.
        Some(found) => {
            return Err(format!(
                "is {}, not the URL of a JWK set: {}",
                found.description(),
                found.place().trim_end_matches('.')
            ));
        }
    }
    if let Some(issuer) = issuer::of_metadata(&text) {
        return Err(format!(
            "is {}, the address of a discovery document, which holds no keys; leave the member out and \
             write {} as \"issuer\", or write what the document has as \"jwks_uri\"",
            quoted(&text),
            quoted(&issuer)
        ));
    }
    if let Some(placeholder) = slips::placeholder(&text) {
        return Err(format!(
            "is {}, with a placeholder; write your own value for {}",
            quoted(&text),
            quoted(placeholder)
        ));
    }
    let bare = text.trim_matches(|c: char| {
        c.is_whitespace() || c.is_control() || is_invisible(c) || "\"'`<>".contains(c)
    });
    let bare = slips::with_scheme(bare).unwrap_or_else(|| bare.to_owned());
    match Endpoint::parse(&bare) {
        Ok(endpoint) if bare == text => Ok(endpoint),
        Ok(_) => write(&bare),
        Err(problem) => match Endpoint::parse(&format!("https://{bare}")) {
            // A host and a path.
            Ok(endpoint) if !bare.contains("://") && endpoint.host().contains('.') => {
                write(endpoint.as_str())
            }
            _ => Err(problem),
        },
    }
}

/// Members that other libraries and servers have, in lower case and without separators, and what to write
/// here.
const ELSEWHERE: [(&[&str], &str); 12] = [
    (
        &["key"],
        "a public key in PEM as \"public_key\", an HMAC secret as \"secret\", a JWK or a JWK set as \
         \"jwks\"",
    ),
    (&["keys", "kty", "jwk", "jwkset", "jwksjson", "kid", "x5c"], "a JWK or a JWK set as \"jwks\""),
    (
        &[
            "jwksurl",
            "jwkurl",
            "jwksuri",
            "jwkuri",
            "jwksendpoint",
            "jwkendpoint",
            "url",
            "keysurl",
            "certsurl",
            "jwkseturi",
        ],
        "the URL as \"jwks_url\" in a row of the table of providers; keys are fetched for rows only",
    ),
    (&["publickey", "pem", "cert", "certificate", "pubkey"], "the key in PEM as \"public_key\""),
    (
        &["jwtsecret", "hmac", "secretkey", "sharedsecret", "secretorkey", "signingkey"],
        "the HMAC secret as \"secret\"",
    ),
    (
        &["iss", "issuers", "issuerurl", "issuerbaseurl", "issueruri", "authority", "domain"],
        "the \"iss\" of the tokens as \"issuer\"",
    ),
    (
        &["aud", "audiences", "clientid", "clientids", "appid", "allowedaudiences", "resource"],
        "what the tokens have in \"aud\" as \"audience\"",
    ),
    (
        &["type", "alg", "algs", "algorithm", "signingalgorithm", "allowedalgorithms"],
        "an array of names as \"algorithms\", such as [\"RS256\"], or leave it out",
    ),
    (
        &["allowedskew", "clockskew", "clocktolerance", "clockskewseconds", "skew"],
        "the seconds as \"leeway\"",
    ),
    (&["maxage", "maxtokenage", "tokenmaxage"], "the seconds after \"iat\" as \"max_token_age\""),
    (
        &["role", "roleclaim", "roleclaimkey", "jwtroleclaimkey", "rolesclaim", "rolespath"],
        "the claim's name, or a JSON Pointer, as \"role_claim\"",
    ),
    (
        &["claimsnamespacepath", "claimsmap", "claimsformat", "namespace"],
        "the claim's name, or a JSON Pointer, as \"claims_namespace\"",
    ),
];

/// What to write in place of a member that is not known, where it nearly is one or is one elsewhere.
fn instead_of_member(name: &str) -> Option<String> {
    let plain = |name: &str| -> String {
        name.chars().filter(char::is_ascii_alphanumeric).take(32).collect::<String>()
    };
    let found = plain(name).to_ascii_lowercase();
    let known = PROVIDER_MEMBERS.iter().find(|member| plain(member.name) == found);
    let advice = known.map(|member| quoted(member.name)).or_else(|| {
        let (_, advice) = ELSEWHERE.iter().find(|(names, _)| names.contains(&found.as_str()))?;
        Some((*advice).to_owned())
    })?;
    Some(format!("In place of {} write {advice}.", quoted(name)))
}

/// The refusal of a document that has members of other names.
fn check_members(object: &Object<'_>, label: &str) -> Result<(), Rejection> {
    const SHOWN: usize = 10;
    let is_unknown = |name: &&str| !PROVIDER_MEMBERS.iter().any(|member| member.name == *name);
    let unknown = || object.iter().map(|(name, _)| name).filter(is_unknown);
    if unknown().next().is_none() {
        return Ok(());
    }
    let several = if unknown().nth(1).is_some() { "members" } else { "member" };
    let known = PROVIDER_MEMBERS.map(|member| member.name).join(", ");
    let mut hint: Vec<String> = unknown().take(SHOWN).filter_map(instead_of_member).collect();
    hint.push(format!("Known are {known}."));
    Err(wrong("provider has an unknown member")
        .with_detail(format!("{label} has the {several} {}.", quoted_list(unknown())))
        .with_hint(hint.join(" ")))
}
