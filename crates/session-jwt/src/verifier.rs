//! The order of verification: parse the token, choose the provider by issuer, choose the key, verify
//! the signature, check the claims.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::algorithm::{Algorithm, KeyType};
use crate::claim_checks;
use crate::claims::{Claims, UnjudgedClaims};
use crate::issuer::{self, near_miss};
use crate::jws::{Header, Jws, check_type, is_der_signature};
use crate::key_set::KeySet;
use crate::memory;
use crate::provider::Provider;
use crate::rejection::{Code, Rejection, quoted, quoted_list, reject};

/// Verifies tokens for a fixed set of providers.
#[derive(Debug, Default)]
pub struct Verifier {
    providers: Vec<Arc<Provider>>,
    /// The positions in `providers` of the provider of each issuer.
    by_issuer: HashMap<String, usize>,
    /// The position of the provider without issuer.
    without_issuer: Option<usize>,
    names: HashSet<String>,
}

impl Verifier {
    /// A verifier for these providers.
    ///
    /// # Errors
    /// Those of [`Verifier::with`].
    pub fn new(providers: Vec<Provider>) -> Result<Self, Rejection> {
        providers.into_iter().try_fold(Self::default(), Self::with)
    }

    /// Adds a provider.
    ///
    /// # Errors
    /// [`Code::Configuration`] if two providers have the same name or the same issuer, or if both have
    /// no issuer: the provider of a token must be unambiguous.
    pub fn with(mut self, provider: Provider) -> Result<Self, Rejection> {
        let place = self.providers.len();
        let earlier = match &provider.issuer {
            Some(issuer) => self.by_issuer.insert(issuer.clone(), place),
            None => self.without_issuer.replace(place),
        };
        if let Some(earlier) = earlier {
            return Err(reject(Code::Configuration, "two providers have the same issuer")
                .with_detail(format!(
                    "The providers {} and {} {}.",
                    quoted(&self.providers[earlier].name),
                    quoted(&provider.name),
                    match &provider.issuer {
                        Some(issuer) => format!("both have the issuer {}", quoted(issuer)),
                        None => "both have no issuer".to_owned(),
                    }
                )));
        }
        if !self.names.insert(provider.name.clone()) {
            return Err(reject(Code::Configuration, "two providers have the same name")
                .with_detail(format!("The name is {}.", quoted(&provider.name))));
        }
        self.providers.push(Arc::new(provider));
        Ok(self)
    }

    /// The providers, in the order in which they were added.
    pub fn providers(&self) -> &[Arc<Provider>] {
        &self.providers
    }

    /// The provider of exactly this issuer. For None, the provider without issuer.
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

    /// Whether a provider has a secret. A role that can read a secret can sign tokens with it.
    pub fn has_secret(&self) -> bool {
        self.providers.iter().any(|provider| provider.keys.is_symmetric())
    }

    /// Verifies a token at the time `now`, in seconds since 1970.
    ///
    /// # Errors
    /// The rejection of the first check that failed.
    pub fn verify(&self, token: &str, now: i64) -> Result<Claims, Rejection> {
        let claims = self.authenticate(token)?;
        claims.judge_presentation(now)?;
        Ok(claims.0)
    }

    /// Verifies a token, except its times.
    ///
    /// # Errors
    /// The rejection of the first check that failed.
    pub fn authenticate(&self, token: &str) -> Result<UnjudgedClaims, Rejection> {
        authenticate(token, |unverified| self.choose(unverified), |_| false)
    }

    /// The provider of a token.
    ///
    /// # Errors
    /// No provider serves the token's issuer.
    pub(crate) fn choose(&self, unverified: &Unverified<'_>) -> Result<Arc<Provider>, Rejection> {
        let provider = unverified.issuer.and_then(|issuer| self.provider_of(Some(issuer)));
        let provider = provider.or_else(|| self.provider_of(None)).map(Arc::clone);
        provider.ok_or_else(|| {
            let issuers = self.providers.iter().filter_map(|provider| provider.issuer());
            match self.providers.is_empty() {
                true => no_provider_configured(Code::NoKey),
                false => unverified.no_provider(&issuers.collect::<Vec<_>>(), true),
            }
        })
    }
}

/// The claims and header parameters that select the provider of a token. They are not verified.
pub struct Unverified<'t> {
    /// `iss`
    pub issuer: Option<&'t str>,
    /// The header's `kid`.
    pub kid: Option<&'t str>,
    typ: Option<&'t str>,
    /// None for an algorithm that is not supported, whose token only an inspection goes on with.
    algorithm: Option<Algorithm>,
    /// Whether the token is a logout token, whose type was checked.
    is_logout: bool,
}

impl<'t> Unverified<'t> {
    /// `header` is None if its algorithm is not supported.
    pub(crate) fn new(issuer: Option<&'t str>, header: Option<&'t Header>) -> Self {
        let string =
            |of: fn(&Header) -> &Option<String>| header.and_then(|header| of(header).as_deref());
        Self {
            issuer,
            kid: string(|header| &header.kid),
            typ: string(|header| &header.typ),
            algorithm: header.map(|header| header.algorithm),
            is_logout: false,
        }
    }

    pub(crate) fn of_logout(issuer: Option<&'t str>, header: &'t Header) -> Self {
        Self { is_logout: true, ..Self::new(issuer, Some(header)) }
    }

    /// Whether the token's algorithm is an HMAC.
    pub fn is_symmetric(&self) -> bool {
        self.algorithm.is_some_and(|algorithm| algorithm.key_type() == KeyType::Oct)
    }

    /// Checks that the provider accepts tokens of this type. [`authenticate`] does so after the choice of
    /// the provider. A choice that fails for another reason may do so before.
    ///
    /// # Errors
    /// [`Code::Malformed`] if the header's `typ` is another one.
    pub fn check_type(&self, provider: &Provider) -> Result<(), Rejection> {
        if self.is_logout { Ok(()) } else { check_type(self.typ, provider.typ.as_deref()) }
    }

    /// Whether one of the provider's published keys may have signed the token: the algorithm is
    /// asymmetric, and is listed if the provider lists algorithms.
    pub fn may_have_published_key(&self, provider: &Provider) -> bool {
        let listed = provider.algorithms();
        self.algorithm.is_some_and(|algorithm| {
            algorithm.key_type() != KeyType::Oct
                && listed.is_none_or(|listed| listed.contains(algorithm))
        })
    }

    /// The rejection if no provider serves the token's issuer. `issuers` are those of the providers, or the
    /// first [`MOST_COUNTED`] of them and one more. The message lists them, or with `are_listed` false only
    /// says how many there are.
    pub fn no_provider(&self, issuers: &[&str], are_listed: bool) -> Rejection {
        let configured = match issuers.len() {
            _ if are_listed => {
                format!("the issuers configured are {}", quoted_list(issuers.iter().copied()))
            }
            1 => "1 issuer is configured".to_owned(),
            2..=MOST_COUNTED => format!("{} issuers are configured", issuers.len()),
            0 => "none is configured".to_owned(),
            _ => format!("more than {MOST_COUNTED} issuers are configured"),
        };
        let Some(issuer) = self.issuer else {
            return reject(Code::Issuer, "token issuer is not accepted")
                .with_detail(format!("Its iss is missing; {configured}."));
        };
        let near = issuers.iter().find_map(|other| near_miss(issuer, other));
        let rejection = reject(Code::NoKey, "no provider serves the token's issuer");
        let rejection = rejection.with_detail(format!(
            "The token has iss {}, kid {} and alg {}; {configured}.",
            quoted(issuer),
            self.kid.map_or_else(|| "none".to_owned(), quoted),
            self.algorithm.map_or("of no supported name", Algorithm::name),
        ));
        match near {
            Some(hint) => rejection.with_hint(hint),
            None => rejection,
        }
    }

    /// The spellings of the token's issuer that may be configured in its place: with another scheme, in
    /// lower case, with or without a slash at the end, and similar.
    pub fn near_issuers(&self) -> Vec<String> {
        self.issuer.map(issuer::variants).unwrap_or_default()
    }
}

/// The number up to which [`Unverified::no_provider`] counts issuers.
pub const MOST_COUNTED: usize = 1000;

/// The rejection if no provider is configured.
pub fn no_provider_configured(code: Code) -> Rejection {
    reject(code, "no provider is configured")
}

/// Verifies a token, except its times, for the provider that `choose` returns. The provider must serve
/// the token's issuer, which is checked. `is_verified` tells whether the signature of this very token was verified with
/// this provider before ([`SignatureDigest`](crate::SignatureDigest)); then only that is not repeated.
///
/// # Errors
/// Those of `choose`, or the rejection of the first check that failed.
pub fn authenticate(
    token: &str,
    choose: impl FnOnce(&Unverified<'_>) -> Result<Arc<Provider>, Rejection>,
    is_verified: impl FnOnce(&Provider) -> bool,
) -> Result<UnjudgedClaims, Rejection> {
    let jws = Jws::parse(token)?;
    let payload = claim_checks::parse(&jws.payload)?;
    // `claim_checks::parse` accepts only objects.
    let Some(unverified) = payload.as_object() else {
        return Err(reject(Code::Malformed, "token payload is malformed"));
    };
    let issuer = claim_checks::string(unverified, "iss")?;
    let token = Unverified::new(issuer, Some(&jws.header));
    let provider = choose(&token)?;
    token.check_type(&provider)?;
    if !is_verified(&provider) {
        check_signature(&jws, issuer, &provider)?;
    }
    let json = String::from_utf8_lossy(&jws.payload).into_owned();
    Claims::check(unverified, json, jws.header.kid, &provider).map(UnjudgedClaims)
}

/// Verifies the signature with the provider's keys.
pub(crate) fn check_signature(
    jws: &Jws<'_>,
    issuer: Option<&str>,
    provider: &Provider,
) -> Result<(), Rejection> {
    verify_signature(jws, &provider.keys)
        .map_err(|rejection| describe_provider(rejection, issuer, provider))
}

/// Adds the provider to the rejection of a key or a signature.
pub(crate) fn describe_provider(
    rejection: Rejection,
    issuer: Option<&str>,
    provider: &Provider,
) -> Rejection {
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
}

/// Verifies one compact JWS with one JWK or JWK set. Returns the bytes of the payload, which need not
/// be JSON.
///
/// This is the layer below [`Verifier::verify`]. It checks encoding, header, keys and algorithms as
/// strictly, but neither `typ` nor claims: **the payload is signed, not valid**.
///
/// # Errors
/// The rejection of the first check that failed.
pub fn verify_jws(jws: &str, keys: &KeySet) -> Result<Vec<u8>, Rejection> {
    let jws = Jws::parse(jws)?;
    verify_signature(&jws, keys)?;
    Ok(jws.payload)
}

pub(crate) fn verify_signature(jws: &Jws<'_>, keys: &KeySet) -> Result<(), Rejection> {
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
            "Configure the issuer to write the signature as JWS requires: r and s concatenated, \
             not in DER (RFC 7518 section 3.4).",
        ));
    }
    if let Some(end) = keys.missing_line_end(algorithm, kid, jws.signing_input, jws.signature) {
        return Err(rejection
            .with_detail(format!("{found} It was signed with the secret followed by {end}."))
            .with_hint(
                "Remove the line end from the issuer's secret; a file or echo adds one. To keep \
                 it, give the bytes of the secret with the line end as \"jwks\", a JWK of kty \
                 \"oct\".",
            ));
    }
    let rejection = rejection.with_detail(found);
    Err(match keys.likely_encoding(algorithm) {
        None => rejection.with_hint(
            "The token was changed, or signed with another key than the one configured.",
        ),
        Some(encoding) => rejection.with_hint(format!(
            "The token was changed, or signed with another key than the one configured. The \
             secret may be bytes written in {}: give the bytes as \"jwks\", a JWK of kty \"oct\".",
            encoding.name()
        )),
    })
}
