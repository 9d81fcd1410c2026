//! An identity provider: its issuer, its keys, and the policy for its tokens.

use std::sync::Arc;

use crate::algorithm::AlgorithmSet;
use crate::document::misconfigured;
use crate::endpoint::{Endpoint, HttpHosts};
use crate::json::Json;
use crate::key_set::KeySet;
use crate::path::ClaimPath;
use crate::rejection::{Rejection, quoted};
use crate::signature_digest::{DocumentDigest, SignatureDigest};

/// An identity provider: its issuer, its keys, and the policy for its tokens.
///
/// Its `Debug` form contains no key material.
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
    /// `role_claim`, and `allowed_roles_claim` if there is one.
    pub(crate) role_claims: Arc<[ClaimPath]>,
    pub(crate) claims_namespace: Option<ClaimPath>,
    pub(crate) monotonic_jti: bool,
    pub(crate) typ: Option<Vec<String>>,
    pub(crate) require: Box<[Requirement]>,
    pub(crate) max_token_age: Option<i64>,
    pub(crate) algorithms: Option<AlgorithmSet>,
    pub(crate) remote: Option<Remote>,
    /// The digest of the text that the provider was read from, which has everything above.
    pub(crate) document: Option<DocumentDigest>,
}

/// A claim that must have one of several values.
#[derive(Debug)]
pub(crate) struct Requirement {
    pub(crate) path: ClaimPath,
    pub(crate) values: Box<[RequiredValue]>,
}

/// A required value of a claim.
#[derive(Debug, PartialEq)]
pub(crate) enum RequiredValue {
    Text(Box<str>),
    /// The decimal digits, possibly with a minus sign.
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

/// The source of a provider's keys.
#[derive(Clone, Debug, PartialEq)]
pub enum KeySource {
    /// The URL of a JWK set.
    Url(Endpoint),
    /// The discovery document of an issuer, which names the URL of the JWK set.
    Discovery {
        /// The issuer, as in `iss`.
        issuer: String,
        /// The URL of the discovery document.
        document: Endpoint,
    },
}

impl KeySource {
    /// The URL of the first request.
    pub fn url(&self) -> &str {
        match self {
            KeySource::Url(url) => url.as_str(),
            KeySource::Discovery { document, .. } => document.as_str(),
        }
    }

    /// Checks the scheme of the URL, given the hosts that may be asked over `http`.
    ///
    /// # Errors
    /// [`Code::Configuration`](crate::Code::Configuration), without hint: the caller knows where the
    /// hosts are listed.
    pub fn check_scheme(&self, http: &HttpHosts) -> Result<(), Rejection> {
        let (member, endpoint) = match self {
            KeySource::Url(url) => ("jwks_url", url),
            KeySource::Discovery { document, .. } => ("issuer", document),
        };
        endpoint.check_scheme(http).map_err(|problem| {
            misconfigured("keys cannot be fetched over http").with_detail(format!(
                "The member {} {problem}, and the host {} is not listed for http.",
                quoted(member),
                quoted(endpoint.host())
            ))
        })
    }
}

/// The source of fetched keys, and how long they are kept.
#[derive(Debug)]
pub struct Remote {
    pub(crate) source: KeySource,
    pub(crate) keep_keys: i64,
}

impl Provider {
    /// The name for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The `iss` of the provider's tokens; None for tokens whose `iss` belongs to no other provider.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// The keys.
    pub fn keys(&self) -> &KeySet {
        &self.keys
    }

    /// The source of fetched keys; None if the keys are configured.
    pub fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    /// The roles that tokens may name, and the role of tokens that name none.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.allowed_roles.iter().flatten().chain(&self.default_role).map(String::as_str)
    }

    /// Advice on checks that most providers need and this one lacks, each as sentences.
    pub fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        if self.accepts_every_audience() {
            advice.push(
                "Tokens for every audience are accepted. Set audience to the audience of your API."
                    .to_owned(),
            );
        }
        if let Some(user) = self.optional_user_claim() {
            let user = quoted(user);
            advice.push(format!(
                "Tokens without a user id are accepted. Add {user} to required_claims."
            ));
        }
        advice
    }

    /// Whether `aud` does not matter.
    pub fn accepts_every_audience(&self) -> bool {
        self.audience.is_empty()
    }

    /// The claim with the user id, if a token without it is accepted.
    pub fn optional_user_claim(&self) -> Option<&str> {
        let user = &self.user_id_claim;
        let is_required = self.required_claims.contains(user)
            || self.require.iter().any(|requirement| requirement.path == *user);
        (!is_required).then(|| user.text())
    }

    /// The digest of a token and of this provider's document; None where the provider was not read from a document.
    /// `scope` keeps apart callers that share digests and not providers.
    pub fn signature_digest(&self, scope: u32, token: &str) -> Option<SignatureDigest> {
        Some(SignatureDigest::new(scope, self.document?, token))
    }

    /// The listed algorithms, if any.
    pub fn algorithms(&self) -> Option<AlgorithmSet> {
        self.algorithms
    }
}

impl Remote {
    /// The source of the keys.
    pub fn source(&self) -> &KeySource {
        &self.source
    }

    /// The number of seconds for which keys may be used after the last successful fetch.
    pub fn keep_keys(&self) -> i64 {
        self.keep_keys
    }
}
