//! A provider in the making: the values of its members so far, and the rules that concern several
//! members.

use crate::algorithm::AlgorithmSet;
use crate::document::misconfigured;
use crate::endpoint::Endpoint;
use crate::json::Object;
use crate::key_set::KeySet;
use crate::own_values::OwnValues;
use crate::path::ClaimPath;
use crate::provider::{Provider, Requirement};
use crate::rejection::{Rejection, quoted};
use crate::signature_digest::{DocumentDigest, Reading};

/// The default leeway, in seconds.
const DEFAULT_LEEWAY: i64 = 60;

/// The members that were read so far.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) name: Option<String>,
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Vec<String>,
    pub(crate) jwks: Option<KeySet>,
    pub(crate) secret: Option<KeySet>,
    pub(crate) algorithms: Option<AlgorithmSet>,
    pub(crate) leeway: Option<i64>,
    pub(crate) required_claims: Option<Vec<ClaimPath>>,
    pub(crate) user_id_claim: Option<ClaimPath>,
    pub(crate) role_claim: Option<ClaimPath>,
    pub(crate) default_role: Option<String>,
    pub(crate) allowed_roles: Option<Vec<String>>,
    pub(crate) allowed_roles_claim: Option<ClaimPath>,
    pub(crate) claims_namespace: Option<ClaimPath>,
    pub(crate) monotonic_jti: Option<bool>,
    pub(crate) typ: Option<Vec<String>>,
    pub(crate) public_key: Option<KeySet>,
    pub(crate) require: Option<Box<[Requirement]>>,
    pub(crate) max_token_age: Option<i64>,
    pub(crate) jwks_url: Option<Endpoint>,
    pub(crate) keep_keys: Option<i64>,
    pub(crate) fetched: Option<KeySet>,
    pub(crate) fetched_from: Option<String>,
    /// Whether the public keys are fetched.
    pub(crate) is_remote: bool,
    /// The rejection of a member with keys, which has a message of its own.
    pub(crate) key_error: Option<Rejection>,
}

impl Provider {
    /// A provider with the default policy, without issuer and without audience. It serves tokens whose
    /// `iss` belongs to no other provider.
    pub fn with_default_policy(name: &str, keys: KeySet) -> Self {
        let draft = Draft { name: Some(name.to_owned()), ..Draft::default() };
        draft.into_provider(keys, name)
    }

    /// A provider with the default policy, given the text of a JWK or a JWK set.
    ///
    /// # Errors
    /// Those of [`KeySet::parse`].
    pub fn of_keys(name: &str, text: &str) -> Result<Self, Rejection> {
        let provider = Self::with_default_policy(name, KeySet::parse(text)?);
        Ok(Self { document: Some(DocumentDigest::new(Reading::Keys, text)), ..provider })
    }

    /// The policy for claims that another server has verified: it has no keys and requires no claims.
    pub(crate) fn of_trusted_claims() -> Self {
        let draft = Draft { required_claims: Some(Vec::new()), ..Draft::default() };
        draft.into_provider(KeySet::empty(), "trusted claims")
    }
}

impl Draft {
    /// Rejects a secret that consists of public values of the document.
    pub(crate) fn check_secrets(&self, object: &Object<'_>, label: &str) -> Result<(), Rejection> {
        let sets = || [&self.jwks, &self.secret, &self.public_key].into_iter().flatten();
        if !sets().any(KeySet::is_symmetric) {
            return Ok(());
        }
        let own = OwnValues::of(object, sets());
        match sets().flat_map(KeySet::secrets).find_map(|secret| own.found_in(secret)) {
            None => Ok(()),
            Some(value) => Err(misconfigured("secret cannot be used")
                .with_detail(format!(
                    "{label}: The secret is or contains {value}, which is public."
                ))
                .with_hint(
                    "Give at least 32 random bytes, such as those of openssl rand -base64 32.",
                )),
        }
    }

    /// Replaces a secret that the provider has published in its keys by an unusable one. This is not an
    /// error, since the row was valid before the keys were fetched.
    pub(crate) fn drop_published_secret(&mut self) {
        let Some((secret, fetched)) = self.secret.as_ref().zip(self.fetched.as_ref()) else {
            return;
        };
        let own = OwnValues::of_keys([fetched].into_iter());
        let found = secret.secrets().find_map(|secret| own.found_in(secret));
        if let Some(value) = found {
            let reason = format!("It is or contains {value} that was fetched, which is public.");
            self.secret = Some(KeySet::unusable_secret(reason));
        }
    }

    /// Builds the provider.
    pub(crate) fn build(mut self, label: &str, unnamed: &str) -> Result<Provider, Rejection> {
        let in_provider = |error: Rejection| in_provider(label, error);
        if let Some(error) = self.key_error.take() {
            return Err(in_provider(error));
        }
        let keys = self.keys(label).and_then(|keys| match self.is_remote {
            true => Ok(keys),
            false => keys.check_distinct().map(|()| keys).map_err(in_provider),
        })?;
        self.check_audience(label)?;
        Ok(self.into_provider(keys, unnamed))
    }

    /// Joins the keys of all members, restricted to the listed algorithms.
    fn keys(&mut self, label: &str) -> Result<KeySet, Rejection> {
        let in_provider = |error: Rejection| in_provider(label, error);
        if !self.is_remote && !self.has_keys() {
            return Err(misconfigured("provider has no key").with_detail(format!(
                "{label} has none of \"jwks\", \"public_key\" and \"secret\"."
            )));
        }
        if self.jwks.as_ref().is_some_and(KeySet::is_symmetric)
            && (self.secret.is_some() || self.public_key.is_some())
        {
            let kinds = "symmetric keys in \"jwks\" and \"secret\" or \"public_key\"";
            return Err(two_kinds_of_keys(label, kinds).with_hint(
                "Give the one symmetric key as \"secret\", and public keys as \"jwks\".",
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
        // Each member must have a usable key.
        let members = [
            ("jwks", self.jwks.take()),
            ("public_key", self.public_key.take()),
            ("secret", self.secret.take()),
        ];
        let own = members.into_iter().filter_map(|(name, keys)| Some((name, keys?)));
        let own = own.map(|(name, keys)| {
            fit(keys).map_err(|error| {
                let detail = error.detail().unwrap_or_default();
                let detail = format!("The member {} has no such key: {detail}", quoted(name));
                in_provider(error.with_detail(detail))
            })
        });
        let own = KeySet::join(own.collect::<Result<Vec<_>, _>>()?);
        let keys = KeySet::join(fetched.into_iter().chain([own]));
        Ok(if is_waiting { keys.waiting() } else { keys })
    }

    pub(crate) fn has_keys(&self) -> bool {
        self.jwks.is_some() || self.public_key.is_some() || self.secret.is_some()
    }

    /// Rejects a provider without audience if its operator signs the tokens of all its customers with
    /// the same keys.
    fn check_audience(&self, label: &str) -> Result<(), Rejection> {
        let issuer = self.issuer.as_deref().and_then(Endpoint::of_issuer);
        let mut urls = [issuer.as_ref(), self.jwks_url.as_ref()].into_iter().flatten();
        match urls.find_map(Endpoint::shared_by) {
            Some(operator) if self.audience.is_empty() => Err(misconfigured(
                "provider needs an audience",
            )
            .with_detail(format!(
                "{label}: {operator} signs the tokens of all its customers' applications \
                         with the same keys."
            ))
            .with_hint(
                "Set \"audience\" to the value of \"aud\" in the tokens for your application. \
                     Without it, a token for anybody else's application is accepted, too.",
            )),
            _ => Ok(()),
        }
    }

    fn into_provider(self, keys: KeySet, unnamed: &str) -> Provider {
        let claim =
            |path: Option<ClaimPath>, name: &str| path.unwrap_or_else(|| ClaimPath::name(name));
        let role_claim = claim(self.role_claim.clone(), "role");
        let role_claims =
            [&role_claim].into_iter().chain(&self.allowed_roles_claim).cloned().collect();
        Provider {
            name: self.name.or_else(|| self.issuer.clone()).unwrap_or_else(|| unnamed.to_owned()),
            issuer: self.issuer,
            audience: self.audience,
            keys,
            leeway: self.leeway.unwrap_or(DEFAULT_LEEWAY),
            required_claims: self.required_claims.unwrap_or_else(|| vec![ClaimPath::name("exp")]),
            names_role_claim: self.role_claim.is_some(),
            user_id_claim: claim(self.user_id_claim, "sub"),
            role_claim,
            role_claims,
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
            document: None,
        }
    }
}

/// Adds the provider's name to the detail.
fn in_provider(label: &str, error: Rejection) -> Rejection {
    let detail = format!("{label}: {}", error.detail().unwrap_or_default());
    error.with_detail(detail)
}

pub(crate) fn two_kinds_of_keys(label: &str, kinds: &str) -> Rejection {
    misconfigured("provider has two kinds of keys")
        .with_detail(format!("{label} has both {kinds}."))
}
