//! An identity provider: its issuer, its keys, and the policy for its tokens.

use crate::algorithm::AlgorithmSet;
use crate::document::wrong;
use crate::endpoint::{Endpoint, HttpHosts};
use crate::json::Json;
use crate::key_set::KeySet;
use crate::path::ClaimPath;
use crate::rejection::{Rejection, quoted};

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
    pub(crate) algorithms: Option<AlgorithmSet>,
    pub(crate) remote: Option<Remote>,
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
    pub(crate) source: KeySource,
    pub(crate) keep_keys: i64,
}

impl Provider {
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
