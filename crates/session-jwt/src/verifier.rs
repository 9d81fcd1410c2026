//! From a token's text to its verified claims: parse, choose the provider by issuer, choose the
//! key, verify the signature, check the claims. Each step only hands on to the next.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::algorithm::{Algorithm, KeyType};
use crate::claim_checks;
use crate::claims::{Claims, UnjudgedClaims};
use crate::issuer::{self, near_miss};
use crate::jws::{Jws, is_der_signature};
use crate::key_set::KeySet;
use crate::memory;
use crate::provider::Provider;
use crate::rejection::{Code, Rejection, quoted, quoted_list, reject};

/// Verifies tokens against a fixed set of providers.
#[derive(Debug, Default)]
pub struct Verifier {
    providers: Vec<Arc<Provider>>,
    /// Where in `providers` each issuer's is.
    by_issuer: HashMap<String, usize>,
    /// Where the one is that names no issuer.
    without_issuer: Option<usize>,
    names: HashSet<String>,
}

impl Verifier {
    /// A verifier that trusts these providers.
    ///
    /// # Errors
    /// As for [`Verifier::with`].
    pub fn new(providers: Vec<Provider>) -> Result<Self, Rejection> {
        providers.into_iter().try_fold(Self::default(), Self::with)
    }

    /// The same, trusting one more.
    ///
    /// # Errors
    /// [`Code::Configuration`] where two have one name or one issuer, or where two have no
    /// issuer: which provider a token belongs to must never be a matter of trying.
    pub fn with(mut self, provider: Provider) -> Result<Self, Rejection> {
        let place = self.providers.len();
        let earlier = match &provider.issuer {
            Some(issuer) => self.by_issuer.insert(issuer.clone(), place),
            None => self.without_issuer.replace(place),
        };
        if let Some(earlier) = earlier {
            return Err(reject(Code::Configuration, "two providers serve one issuer").with_detail(
                format!(
                    "The providers {} and {} {}.",
                    quoted(&self.providers[earlier].name),
                    quoted(&provider.name),
                    match &provider.issuer {
                        Some(issuer) => format!("both have the issuer {}", quoted(issuer)),
                        None => "both have no issuer".to_owned(),
                    }
                ),
            ));
        }
        if !self.names.insert(provider.name.clone()) {
            return Err(reject(Code::Configuration, "two providers have one name")
                .with_detail(format!("The name is {}.", quoted(&provider.name))));
        }
        self.providers.push(Arc::new(provider));
        Ok(self)
    }

    /// The providers, in the order in which they were given.
    pub fn providers(&self) -> &[Arc<Provider>] {
        &self.providers
    }

    /// The provider of exactly this issuer; for None, the one that names no issuer.
    pub fn provider_of(&self, issuer: Option<&str>) -> Option<&Arc<Provider>> {
        let place = match issuer {
            Some(issuer) => self.by_issuer.get(issuer).copied(),
            None => self.without_issuer,
        };
        self.providers.get(place?)
    }

    /// Whether a provider has this name.
    pub fn has_name(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether a symmetric key is among the keys, by which whoever can read it can also sign.
    pub fn has_secret(&self) -> bool {
        self.providers.iter().any(|provider| provider.keys.is_symmetric())
    }

    /// Verifies a token at the time `now`, in seconds since 1970.
    pub fn verify(&self, token: &str, now: i64) -> Result<Claims, Rejection> {
        let claims = self.authenticate(token)?;
        claims.judge_presentation(now)?;
        Ok(claims.0)
    }

    /// Verifies everything about a token but its times.
    pub fn authenticate(&self, token: &str) -> Result<UnjudgedClaims, Rejection> {
        authenticate(token, |unverified| {
            let provider = unverified.issuer.and_then(|issuer| self.provider_of(Some(issuer)));
            let provider = provider.or_else(|| self.provider_of(None)).map(Arc::clone);
            let issuers = || self.providers.iter().filter_map(|provider| provider.issuer());
            provider.ok_or_else(|| unverified.no_provider(self.providers.is_empty(), issuers()))
        })
    }
}

/// What a token says of itself, before anything about it has been verified.
pub struct Unverified<'t> {
    /// `iss`
    pub issuer: Option<&'t str>,
    /// The header's `kid`.
    pub kid: Option<&'t str>,
    algorithm: Algorithm,
}

impl Unverified<'_> {
    /// Whether its algorithm needs a secret.
    pub fn is_symmetric(&self) -> bool {
        self.algorithm.key_type() == KeyType::Oct
    }

    /// Whether a key that its provider publishes could have signed it: whether its algorithm is
    /// asymmetric, and among those that are listed for the provider, if any are.
    pub fn may_have_published_key(&self, provider: &Provider) -> bool {
        let listed = provider.algorithms();
        self.algorithm.key_type() != KeyType::Oct
            && listed.is_none_or(|listed| listed.contains(self.algorithm))
    }

    /// The refusal where no provider serves it: because none is there at all, or only others, with
    /// these issuers.
    pub fn no_provider<'i>(
        &self,
        none_at_all: bool,
        issuers: impl Iterator<Item = &'i str>,
    ) -> Rejection {
        if none_at_all {
            return no_provider_configured(Code::NoKey);
        }
        let Some(issuer) = self.issuer else {
            return reject(Code::Issuer, "token has no issuer that is expected")
                .with_detail(format!("Its iss is missing; expected is {}.", quoted_list(issuers)));
        };
        let issuers: Vec<&str> = issuers.collect();
        let near = issuers.iter().find_map(|other| near_miss(issuer, other));
        let rejection = reject(Code::NoKey, "no provider serves the token's issuer");
        let rejection = rejection.with_detail(format!(
            "The token has iss {}, kid {} and alg {}; the issuers configured are {}.",
            quoted(issuer),
            self.kid.map_or_else(|| "none".to_owned(), quoted),
            self.algorithm.name(),
            quoted_list(issuers)
        ));
        match near {
            Some(hint) => rejection.with_hint(hint),
            None => rejection,
        }
    }

    /// The issuers that differ from the token's by a slash at the end, by the scheme or by being in
    /// lower case, which somebody may have configured in its place.
    pub fn near_issuers(&self) -> Vec<String> {
        self.issuer.map(issuer::variants).unwrap_or_default()
    }
}

/// The rejection if no provider is configured.
pub fn no_provider_configured(code: Code) -> Rejection {
    reject(code, "no provider is configured")
}

/// Verifies everything about a token but its times, as [`Verifier::authenticate`] does, for the
/// provider that `choose` finds. It must serve the token's issuer; whether it does is checked.
pub fn authenticate(
    token: &str,
    choose: impl FnOnce(&Unverified<'_>) -> Result<Arc<Provider>, Rejection>,
) -> Result<UnjudgedClaims, Rejection> {
    let jws = Jws::parse(token)?;
    let payload = claim_checks::parse(&jws.payload)?;
    // `claim_checks::parse` gives nothing but objects.
    let Some(unverified) = payload.as_object() else {
        return Err(reject(Code::Malformed, "token payload is malformed"));
    };
    let issuer = claim_checks::string(unverified, "iss")?;
    let provider = choose(&Unverified {
        issuer,
        kid: jws.header.kid.as_deref(),
        algorithm: jws.header.algorithm,
    })?;
    jws.header.check_typ(provider.typ.as_deref())?;
    verify_signature(&jws, &provider.keys).map_err(|rejection| {
        let detail = rejection.detail().unwrap_or_default();
        let served = match (issuer, &provider.issuer) {
            (Some(issuer), None) => {
                format!(", which has no issuer; no other serves the token's iss {}", quoted(issuer))
            }
            _ => String::new(),
        };
        let name = quoted(&provider.name);
        let detail = format!("{detail} The provider is {name}{served}.");
        rejection.with_detail(detail)
    })?;
    let json = String::from_utf8_lossy(&jws.payload).into_owned();
    Claims::check(unverified, json, jws.header.kid, &provider).map(UnjudgedClaims)
}

/// Verifies one compact JWS against one JWK or JWK set and returns the payload's bytes, which
/// need not be JSON.
///
/// This is the layer below [`Verifier::verify`], as strict about encodings, headers, keys and
/// algorithms, but without `typ` and without any check of claims: **what it returns is signed,
/// not valid**.
pub fn verify_jws(jws: &str, keys: &KeySet) -> Result<Vec<u8>, Rejection> {
    let jws = Jws::parse(jws)?;
    verify_signature(&jws, keys)?;
    Ok(jws.payload)
}

fn verify_signature(jws: &Jws<'_>, keys: &KeySet) -> Result<(), Rejection> {
    let algorithm = jws.header.algorithm;
    let kid = jws.header.kid.as_deref();
    let mut candidates = keys.candidates(algorithm, kid)?;
    if candidates.any(|key| key.verify(algorithm, jws.signing_input, jws.signature)) {
        return Ok(());
    }
    if memory::is_memory_short() {
        return Err(memory::out_of_memory());
    }
    let found = format!(
        "The token has kid {} and alg {}.",
        kid.map_or_else(|| "none".to_owned(), quoted),
        algorithm.name()
    );
    let rejection = reject(Code::Signature, "token signature does not verify");
    if matches!(algorithm, Algorithm::ES256 | Algorithm::ES384) && is_der_signature(jws.signature) {
        return Err(rejection.with_detail(format!("{found} Its signature is in DER.")).with_hint(
            "Have the issuer write the signature as JWS needs it: r and s concatenated, not in DER \
             (RFC 7518 section 3.4).",
        ));
    }
    if let Some(end) = keys.missing_line_end(algorithm, kid, jws.signing_input, jws.signature) {
        return Err(rejection
            .with_detail(format!("{found} It was signed with the secret and {end} after it."))
            .with_hint(
                "Have the issuer's secret written without the line end, as a file or echo adds one. If \
                 it is to stay, give the secret's bytes with it as \"jwks\", a JWK of kty \"oct\".",
            ));
    }
    let rejection = rejection.with_detail(found);
    Err(match keys.likely_encoding(algorithm) {
        None => rejection
            .with_hint("The token was changed, or signed with another key than the one configured."),
        Some(encoding) => rejection.with_hint(format!(
            "The token was changed, or signed with another key than the one configured. The secret may \
             be bytes written in {}: give these as \"jwks\", a JWK of kty \"oct\".",
            encoding.name()
        )),
    })
}
