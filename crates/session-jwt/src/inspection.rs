//! Inspects a token: runs the checks of [`Verifier::authenticate`] in the same order and with the same
//! functions, and goes on after a failure where the next check has a meaning. The result is a report, and
//! never a verified claim.

use std::sync::Arc;

use crate::algorithm::{Algorithm, AlgorithmSet};
use crate::check::Check;
use crate::claim_checks;
use crate::claims::Claims;
use crate::duration::in_words;
use crate::grants;
use crate::issuer::near_miss;
use crate::json::{Json, Object};
use crate::jws::{
    Header, Jws, MAX_TOKEN_BYTES, Parts, accepted_types, check_length, check_type, salvaged_type,
};
use crate::key_set::KeySet;
use crate::not_a_token::token_within;
use crate::provider::Provider;
use crate::rejection::{Code, Rejection, quoted, quoted_list};
use crate::sign_in::SignIn;
use crate::vendors;
use crate::verifier::{Unverified, Verifier, describe_provider, verify_signature};

/// The length from which on only the size of a text is judged, in bytes.
pub const MAX_INSPECTED_BYTES: usize = 4 * MAX_TOKEN_BYTES;

/// The providers that an inspection looks at.
pub struct Candidates {
    /// The provider of the token, as the choice of [`Verifier::authenticate`] finds it.
    pub chosen: Result<Arc<Provider>, Rejection>,
    /// Why its keys do not count, such as their age.
    pub keys: Result<(), Rejection>,
    /// Other providers, for hints: those with a similar issuer first.
    pub others: Vec<Arc<Provider>>,
}

/// The report of an inspection.
pub struct Inspection {
    /// A row for each check, in the order of [`Check::ALL`].
    pub rows: Vec<Inspected>,
    /// The database role that the session would take.
    pub role: Option<String>,
    /// The claims that a revocation compares, unverified.
    pub claims: Option<Claims>,
    /// The provider with `monotonic_jti`, and the token's `jti`.
    pub sequence: Option<(String, i64)>,
    /// The payload, if it is JSON.
    pub payload: Option<String>,
}

/// The outcome of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The token passes.
    Passed,
    /// The token is rejected.
    Failed(Rejection),
    /// An earlier failure leaves nothing to judge.
    NotReached,
}

/// A check of an inspection.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// The check.
    pub check: Check,
    /// Its outcome.
    pub outcome: Outcome,
    /// The value that was found; for a failure, the code, the message and the detail of the rejection.
    pub found: Option<String>,
    /// The rule, with the values of the provider.
    pub expected: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Outcome {
    /// The name of the outcome.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed(_) => "failed",
            Outcome::NotReached => "not reached",
        }
    }
}

impl Inspection {
    fn new() -> Self {
        let row = |check| Inspected {
            check,
            outcome: Outcome::NotReached,
            found: None,
            expected: String::new(),
            hint: None,
        };
        let rows = Check::ALL.map(row).into();
        Self { rows, role: None, claims: None, sequence: None, payload: None }
    }

    /// The row of a check.
    pub fn row(&mut self, check: Check) -> &mut Inspected {
        // `Check::ALL` has the order of the variants.
        &mut self.rows[check as usize]
    }

    /// Whether no check has failed, and all were reached.
    pub fn is_accepted(&self) -> bool {
        self.rows.iter().all(|row| row.outcome == Outcome::Passed)
    }

    /// The rejection that a session gets: that of the first check that failed.
    pub fn rejection(&self) -> Option<&Rejection> {
        self.rows.iter().find_map(|row| match &row.outcome {
            Outcome::Failed(rejection) => Some(rejection),
            _ => None,
        })
    }
}

impl Inspected {
    /// Notes that the token passes.
    pub fn pass(&mut self, found: impl Into<String>) {
        self.outcome = Outcome::Passed;
        self.found = Some(found.into());
    }

    /// Notes a failure. The first one of a check counts.
    pub fn fail(&mut self, rejection: Rejection) {
        if matches!(self.outcome, Outcome::Failed(_)) {
            return;
        }
        self.found = Some(rejection.description());
        self.hint = None;
        self.add_hint(rejection.hint().map(str::to_owned));
        self.outcome = Outcome::Failed(rejection);
    }

    /// Adds sentences to the hint.
    pub fn add_hint(&mut self, hint: impl IntoIterator<Item = String>) {
        for hint in hint {
            self.hint = Some(match self.hint.take() {
                None => hint,
                Some(before) => format!("{before} {hint}"),
            });
        }
    }
}

impl Verifier {
    /// Inspects a token at the time `now`, in seconds since 1970. The token is accepted exactly if
    /// [`Verifier::verify`] accepts it.
    pub fn inspect(&self, token: &str, now: i64) -> Inspection {
        inspect(token, token.len(), now, |unverified| {
            let chosen = self.choose(unverified);
            let is_other = |provider: &&Arc<Provider>| {
                !chosen.as_ref().is_ok_and(|chosen| Arc::ptr_eq(chosen, provider))
            };
            let others = self.providers().iter().filter(is_other).cloned().collect();
            Candidates { chosen, keys: Ok(()), others }
        })
    }
}

/// Inspects a text at the time `now`, in seconds since 1970. `length` is that of the whole text in bytes;
/// `text` may lack what is beyond [`MAX_INSPECTED_BYTES`]. `find` finds the providers for the token.
pub fn inspect(
    text: &str,
    length: usize,
    now: i64,
    find: impl FnOnce(&Unverified<'_>) -> Candidates,
) -> Inspection {
    let mut report = Inspection::new();
    expect_any(&mut report);
    match check_length(length) {
        Ok(()) => report.row(Check::Size).pass(format!("{length} bytes")),
        Err(rejection) => report.row(Check::Size).fail(rejection),
    }
    if length > MAX_INSPECTED_BYTES {
        return report;
    }
    let within;
    let parts = match Parts::decode(text) {
        Ok(parts) => {
            report.row(Check::Form).pass("three parts in base64url");
            parts
        }
        Err(rejection) => {
            report.row(Check::Form).fail(rejection);
            within = token_within(text).unwrap_or_default();
            let Ok(parts) = Parts::decode(&within) else {
                return report;
            };
            let note = "The checks below are of the token in the text.";
            report.row(Check::Form).add_hint([note.to_owned()]);
            parts
        }
    };
    let typ = salvaged_type(&parts.header);
    let header = match Header::parse(&parts.header) {
        Ok(header) => {
            report.row(Check::Header).pass(format!(
                "alg {}, kid {}, typ {}",
                quoted(header.algorithm.name()),
                or_none(header.kid.as_deref()),
                or_none(header.typ.as_deref())
            ));
            Some(header)
        }
        Err(rejection) => {
            report.row(Check::Header).fail(rejection);
            Header::salvage(&parts.header)
        }
    };
    let payload = parts.payload.clone();
    let value = match claim_checks::parse(&payload) {
        Ok(value) => value,
        Err(rejection) => {
            report.row(Check::Payload).fail(rejection);
            return report;
        }
    };
    // `claim_checks::parse` accepts only objects.
    let Some(claims) = value.as_object() else {
        return report;
    };
    report.row(Check::Payload).pass("a JSON object");
    report.payload = Some(String::from_utf8_lossy(&payload).into_owned());
    let issuer = claim_checks::string(claims, "iss");
    let token = Token {
        claims,
        issuer: issuer.as_ref().ok().copied().flatten(),
        jws: header.map(|header| parts.with_header(header)),
        now,
    };
    let unverified = Unverified::new(token.issuer, token.jws.as_ref().map(|jws| &jws.header));
    let found = find(&unverified);
    // The verifier looks for no provider if `iss` is of the wrong type.
    let chosen = issuer.and(found.chosen);
    let basis = token.inspect_provider(&mut report, chosen, &found.others);
    if let Basis::Chosen(provider) = &basis {
        report.row(Check::Header).expected = expected_header(provider);
        if let Err(rejection) = check_type(typ.as_deref(), provider.typ.as_deref()) {
            report.row(Check::Header).fail(rejection);
        }
    }
    if let Some(provider) = basis.provider() {
        token.inspect_keys(&mut report, provider, found.keys, &found.others);
    }
    token.inspect_claims(&mut report, &basis, &found.others);
    report
}

/// The rules that no provider changes.
fn expect_any(report: &mut Inspection) {
    let mut expect = |check, text: &str| report.row(check).expected = text.to_owned();
    expect(Check::Size, &format!("at most {MAX_TOKEN_BYTES} bytes"));
    expect(Check::Form, "three parts in base64url without padding, separated by dots");
    expect(Check::Header, "a JSON object with a supported alg, without zip, enc and crit");
    expect(Check::Payload, "a JSON object");
    expect(Check::Provider, "a provider whose issuer is the token's iss");
    expect(Check::Key, "a key of the provider, by kid");
    expect(Check::Algorithm, "an algorithm of the key");
    expect(Check::Signature, "a signature by the key");
    expect(Check::RequiredClaims, "the claims that the provider requires");
    expect(Check::Issuer, "the issuer of the provider");
    expect(Check::Audience, "an audience of the provider");
    expect(Check::Subject, "a user id");
    expect(Check::Role, "a role that the provider allows");
    expect(
        Check::Representability,
        "claims that jsonb and the encoding of the database can represent",
    );
    expect(Check::Time, "exp in the future, nbf in the past");
    expect(Check::Revocation, "no row of auth.revocations that covers the token");
    expect(Check::Replay, "a jti above that of the last token, if the provider has monotonic_jti");
}

fn expected_header(provider: &Provider) -> String {
    format!(
        "a JSON object with a supported alg, without zip, enc and crit; typ {}{}",
        accepted_types(provider.typ.as_deref()),
        if provider.typ.is_none() { " or none" } else { "" }
    )
}

fn or_none(text: Option<&str>) -> String {
    text.map_or_else(|| "none".to_owned(), quoted)
}

/// The provider that the later checks are judged by.
enum Basis {
    Chosen(Arc<Provider>),
    /// No provider serves the issuer. This one is nearly meant: its issuer is similar, or its key verifies
    /// the signature.
    Near(Arc<Provider>),
    /// The default policy.
    Default(Box<Provider>),
}

impl Basis {
    /// The provider whose keys are tried.
    fn provider(&self) -> Option<&Provider> {
        match self {
            Basis::Chosen(provider) | Basis::Near(provider) => Some(provider),
            Basis::Default(_) => None,
        }
    }

    fn policy(&self) -> &Provider {
        match self {
            Basis::Chosen(provider) | Basis::Near(provider) => provider,
            Basis::Default(provider) => provider,
        }
    }

    /// Whether the policy says something about a check of the claims.
    fn covers(&self, check: Check) -> bool {
        match self {
            Basis::Chosen(_) => true,
            // The row of the provider has the issuer, which a revocation compares.
            Basis::Near(_) => !matches!(check, Check::Issuer | Check::Revocation),
            Basis::Default(_) => !matches!(
                check,
                Check::Issuer | Check::Audience | Check::Role | Check::Revocation | Check::Replay
            ),
        }
    }
}

/// A token whose parts could be read.
struct Token<'t> {
    claims: &'t Object<'t>,
    issuer: Option<&'t str>,
    /// None if the algorithm is not supported.
    jws: Option<Jws<'t>>,
    now: i64,
}

impl Token<'_> {
    fn inspect_provider(
        &self,
        report: &mut Inspection,
        chosen: Result<Arc<Provider>, Rejection>,
        others: &[Arc<Provider>],
    ) -> Basis {
        let row = report.row(Check::Provider);
        let rejection = match chosen {
            Ok(provider) => {
                row.pass(match provider.issuer() {
                    Some(issuer) => {
                        format!("{} serves the iss {}", quoted(&provider.name), quoted(issuer))
                    }
                    None => format!(
                        "{} has no issuer, and serves the iss {}",
                        quoted(&provider.name),
                        or_none(self.issuer)
                    ),
                });
                return Basis::Chosen(provider);
            }
            Err(rejection) => rejection,
        };
        let is_unknown = matches!(rejection.code(), Code::NoKey | Code::Issuer);
        row.fail(rejection);
        let similar = others.iter().find(|other| {
            self.issuer
                .zip(other.issuer())
                .is_some_and(|(iss, other)| near_miss(iss, other).is_some())
        });
        if let Some(near) = similar {
            return Basis::Near(Arc::clone(near));
        }
        if let Some(signer) = self.signer(others.iter()) {
            // Keys that many customers share say nothing about the issuer.
            let other_unit = self.issuer.zip(signer.issuer());
            let other_unit = other_unit.and_then(|(iss, other)| vendors::other_unit(iss, other));
            row.add_hint([other_unit.unwrap_or_else(|| {
                format!(
                    "A key of the provider {} verifies the signature. If its issuer is meant, change {} to \
                     the token's iss.",
                    quoted(&signer.name),
                    match signer.issuer() {
                        Some(issuer) => format!("its issuer {}", quoted(issuer)),
                        None => "its issuer".to_owned(),
                    }
                )
            })]);
            return Basis::Near(Arc::clone(signer));
        }
        if is_unknown {
            row.add_hint(self.other_unit(others));
            let algorithm = self.jws.as_ref().map(|jws| jws.header.algorithm);
            let is_taken = |name: &str| others.iter().any(|other| other.name == name);
            row.add_hint(vendors::suggestion(self.claims, algorithm, is_taken));
        }
        Basis::Default(Box::new(Provider::with_default_policy("default", KeySet::empty())))
    }

    /// The hint if another provider is of the same vendor.
    fn other_unit(&self, others: &[Arc<Provider>]) -> Option<String> {
        let issuers = others.iter().filter_map(|other| other.issuer());
        let issuer = self.issuer?;
        issuers.into_iter().find_map(|other| vendors::other_unit(issuer, other))
    }

    /// The first of the providers that has a key, by any kid, that verifies the signature.
    fn signer<'p>(
        &self,
        mut providers: impl Iterator<Item = &'p Arc<Provider>>,
    ) -> Option<&'p Arc<Provider>> {
        let jws = self.jws.as_ref()?;
        providers.find(|provider| is_signer(jws, &provider.keys))
    }

    fn inspect_keys(
        &self,
        report: &mut Inspection,
        provider: &Provider,
        are_good: Result<(), Rejection>,
        others: &[Arc<Provider>],
    ) {
        let keys = &provider.keys;
        let has_any_kid = keys.usable().any(|(kid, _)| kid.is_none());
        report.row(Check::Key).expected = format!(
            "a key of the provider {}: {}{}",
            quoted(&provider.name),
            quoted_list(keys.kids()),
            if has_any_kid { ", or one without kid" } else { "" }
        );
        report.row(Check::Algorithm).expected = match keys.algorithms().is_empty() {
            true => "an algorithm of the key".to_owned(),
            false => keys.algorithms().names(),
        };
        let outdated = are_good.err();
        let is_outdated = outdated.is_some();
        if let Some(rejection) = outdated {
            report.row(Check::Key).fail(rejection);
        }
        let Some(jws) = &self.jws else {
            return;
        };
        let (algorithm, kid) = (jws.header.algorithm, jws.header.kid.as_deref());
        let of_provider = |rejection| describe_provider(rejection, self.issuer, provider);
        let pass_key = |report: &mut Inspection| {
            if !is_outdated {
                report.row(Check::Key).pass(match kid {
                    Some(kid) => format!("kid {}", quoted(kid)),
                    None => "no kid".to_owned(),
                });
            }
        };
        match keys.candidates(algorithm, kid).map(|_| ()) {
            Ok(()) => {
                pass_key(report);
                report.row(Check::Algorithm).pass(algorithm.name());
                match verify_signature(jws, keys) {
                    Ok(()) => report.row(Check::Signature).pass("verified"),
                    Err(rejection) => {
                        let row = report.row(Check::Signature);
                        row.fail(of_provider(rejection));
                        row.add_hint(self.other_signer(provider, others));
                        row.add_hint(rotation(provider));
                    }
                }
            }
            Err(rejection) if rejection.code() == Code::Algorithm => {
                pass_key(report);
                report.row(Check::Algorithm).fail(of_provider(rejection));
                self.hint_at_listed(report, provider, algorithm);
            }
            Err(rejection) => {
                let row = report.row(Check::Key);
                row.fail(of_provider(rejection));
                if is_signer(jws, keys) {
                    row.add_hint(["Another key of the provider verifies the signature: the kid of the \
                         token is not the one of its key. Compare the kid of the configured key with that \
                         of the issuer."
                        .to_owned()]);
                } else {
                    row.add_hint(self.other_signer(provider, others));
                    row.add_hint(rotation(provider));
                }
                // Whether any key could have the algorithm.
                match keys.candidates(algorithm, None).map(|_| ()) {
                    Ok(()) => report.row(Check::Algorithm).pass(algorithm.name()),
                    Err(rejection) if rejection.code() == Code::Algorithm => {
                        report.row(Check::Algorithm).fail(of_provider(rejection));
                        self.hint_at_listed(report, provider, algorithm);
                    }
                    Err(_) => {}
                }
            }
        }
    }

    /// The hint if the key is that of another provider.
    fn other_signer(&self, provider: &Provider, others: &[Arc<Provider>]) -> Option<String> {
        let jws = self.jws.as_ref()?;
        let describe = |other: &Provider| {
            let issuer = or_none(other.issuer());
            format!("{}, whose issuer is {issuer}", quoted(&other.name))
        };
        if let Some(signer) = self.signer(others.iter()) {
            return Some(format!(
                "A key of the provider {}, verifies the signature: the token's iss does not belong to its \
                 key.",
                describe(signer)
            ));
        }
        let kid = jws.header.kid.as_deref()?;
        let has_kid = |other: &&Arc<Provider>| other.keys.kids().any(|known| known == kid);
        if let Some(other) = others.iter().find(has_kid).filter(|_| !provider.keys.has_kid(kid)) {
            return Some(format!("The provider {}, has a key with this kid.", describe(other)));
        }
        // A provider without an issuer serves the tokens whose issuer is misspelt.
        let (None, Some(iss)) = (provider.issuer(), self.issuer) else {
            return None;
        };
        others.iter().find_map(|other| near_miss(iss, other.issuer()?))
    }

    /// The hint if the provider lists its algorithms.
    fn hint_at_listed(&self, report: &mut Inspection, provider: &Provider, algorithm: Algorithm) {
        let fits = |(_, algorithms): (Option<&str>, AlgorithmSet)| {
            algorithms.iter().any(|other| other.key_type() == algorithm.key_type())
        };
        if provider.algorithms.is_some_and(|listed| !listed.contains(algorithm))
            && provider.keys.usable().any(fits)
        {
            report.row(Check::Algorithm).add_hint([format!(
                "If the issuer is to sign with {}, add it to the algorithms of the provider.",
                algorithm.name()
            )]);
        }
    }

    fn inspect_claims(&self, report: &mut Inspection, basis: &Basis, others: &[Arc<Provider>]) {
        let policy = basis.policy();
        expect_policy(report, policy, self.now);
        let is_meant = |check| basis.covers(check);
        let claims = Claims::inspect(self.claims, policy, is_meant, |check, rejection| {
            report.row(check).fail(rejection);
        });
        let registered = &claims.registered;
        self.pass(report, basis, Check::RequiredClaims, "all of them".to_owned());
        self.pass(report, basis, Check::Issuer, or_none(self.issuer));
        let audience = registered.audience.iter().map(String::as_str);
        self.pass(report, basis, Check::Audience, quoted_list(audience));
        self.pass(
            report,
            basis,
            Check::Subject,
            match claims.user_id() {
                Some(user_id) => quoted(user_id),
                None => "none".to_owned(),
            },
        );
        let role = match (claims.database_role(), claims.role()) {
            (Some(role), _) => format!("{}, which the session takes", quoted(role)),
            (None, Some(role)) => format!("{}, which the session does not take", quoted(role)),
            (None, None) => "none".to_owned(),
        };
        self.pass(report, basis, Check::Role, role);
        self.pass(report, basis, Check::Representability, "jsonb can represent them".to_owned());
        if !matches!(report.row(Check::Time).outcome, Outcome::Failed(_)) {
            let judged =
                claims.check_not_before(self.now).and_then(|()| claims.check_expiry(self.now));
            match judged {
                Ok(()) => report.row(Check::Time).pass(self.times(&claims)),
                Err(rejection) => report.row(Check::Time).fail(rejection),
            }
        }
        self.pass(report, basis, Check::Revocation, "not revoked".to_owned());
        let jti =
            claims.sequence.map_or_else(|| "not judged".to_owned(), |jti| format!("jti {jti}"));
        self.pass(report, basis, Check::Replay, jti);
        self.hint_at_audience(report, &claims, others);
        self.hint_at_user_id(report, &claims, policy);
        self.hint_at_clock(report, policy);
        self.hint_at_grants(report, policy);
        if matches!(report.row(Check::Role).outcome, Outcome::Passed) {
            report.role = claims.database_role().map(str::to_owned);
        }
        report.sequence = claims.sequence.map(|jti| (claims.provider.clone(), jti));
        report.claims = Some(claims);
    }

    /// Passes a check of the claims that has not failed, and that the policy covers.
    fn pass(&self, report: &mut Inspection, basis: &Basis, check: Check, found: String) {
        let row = report.row(check);
        if basis.covers(check) && row.outcome == Outcome::NotReached {
            row.pass(found);
        }
    }

    fn times(&self, claims: &Claims) -> String {
        let told = |name: &str, time: Option<i64>| {
            time.map(|time| {
                let (distance, now) = (in_words(time.saturating_sub(self.now)), self.now);
                match time > now {
                    true => format!("{name} {time} (in {distance})"),
                    false => format!("{name} {time} ({distance} ago)"),
                }
            })
        };
        let times = [
            told("exp", claims.registered.expires),
            told("nbf", claims.registered.not_before),
            told("iat", self.issued()),
            told("auth_time", claims.registered.sign_in.map(SignIn::time)),
        ];
        let times: Vec<String> = times.into_iter().flatten().collect();
        if times.is_empty() { "no times".to_owned() } else { times.join(", ") }
    }

    /// `iat`, which is judged only with `max_token_age`.
    fn issued(&self) -> Option<i64> {
        match self.claims.get("iat") {
            Some(Json::Number(number)) => number.floor(),
            _ => None,
        }
    }

    fn hint_at_audience(&self, report: &mut Inspection, claims: &Claims, others: &[Arc<Provider>]) {
        let row = report.row(Check::Audience);
        if !matches!(row.outcome, Outcome::Failed(_)) {
            return;
        }
        let audience: Vec<&str> = match self.claims.get("aud") {
            Some(Json::String(one)) => vec![one],
            Some(other) => {
                other.as_array().unwrap_or_default().iter().filter_map(Json::as_str).collect()
            }
            None => claims.registered.audience.iter().map(String::as_str).collect(),
        };
        let expects = |other: &&Arc<Provider>| {
            other.audience.iter().any(|expected| audience.contains(&expected.as_str()))
        };
        row.add_hint(others.iter().find(expects).map(|other| {
            format!(
                "The provider {}, whose issuer is {}, expects this audience.",
                quoted(&other.name),
                or_none(other.issuer())
            )
        }));
    }

    /// The hint if the token would be accepted, and the session would have no user id.
    fn hint_at_user_id(&self, report: &mut Inspection, claims: &Claims, policy: &Provider) {
        let row = report.row(Check::Subject);
        if claims.user_id().is_some() || row.outcome != Outcome::Passed {
            return;
        }
        let user_id = policy.user_id_claim.text();
        let likely = vendors::likely_user_id(self.claims).filter(|likely| *likely != user_id);
        row.add_hint([format!(
            "auth.user_id() would be NULL: the token has no user id in the claim {}. {} To reject such \
             tokens, add the claim to required_claims.",
            quoted(user_id),
            match likely {
                Some(likely) => {
                    format!("If {} is the user id, name it in user_id_claim.", quoted(likely))
                }
                None => "Name the claim with the user id in user_id_claim.".to_owned(),
            }
        )]);
    }

    /// The hints at claims of scopes, roles, groups and sign-ins whose type no function reads.
    fn hint_at_grants(&self, report: &mut Inspection, policy: &Provider) {
        for (check, hint) in grants::hints(self.claims, policy) {
            let row = report.row(check);
            if row.outcome != Outcome::NotReached {
                row.add_hint([hint]);
            }
        }
    }

    /// The hint if the token was issued in the future, which is no failure without `max_token_age`.
    fn hint_at_clock(&self, report: &mut Inspection, policy: &Provider) {
        let ahead = self.issued().map_or(0, |issued| issued.saturating_sub(self.now));
        let row = report.row(Check::Time);
        let is_told = row.hint.as_ref().is_some_and(|hint| hint.contains("clocks"));
        if ahead > policy.leeway && !is_told && row.outcome != Outcome::NotReached {
            row.add_hint([if ahead > MILLISECONDS {
                "Its iat is in milliseconds. A NumericDate counts seconds since 1970.".to_owned()
            } else {
                format!(
                    "Its iat is {} in the future. Compare the clocks of the issuer and of this server.",
                    in_words(ahead)
                )
            }]);
        }
    }
}

/// A time that is farther ahead, in seconds, is in milliseconds.
const MILLISECONDS: i64 = 1_000_000_000_000;

/// Whether a key of the set, by any kid, verifies the signature.
fn is_signer(jws: &Jws<'_>, keys: &KeySet) -> bool {
    let algorithm = jws.header.algorithm;
    keys.candidates(algorithm, None).is_ok_and(|mut keys| {
        keys.any(|key| key.verify(algorithm, jws.signing_input, jws.signature))
    })
}

/// The hint that the provider may have replaced its keys.
fn rotation(provider: &Provider) -> Option<String> {
    provider.remote.as_ref()?;
    let name = provider.name.replace('\'', "''");
    Some(match provider.name.chars().all(|c| matches!(c, ' '..='~') && c != '\\') {
        true => format!(
            "The keys are fetched, and the provider may have replaced them since. A session that presents \
             the token waits for newer keys; to fetch them now, run: SELECT \
             auth.refresh_provider('{name}');"
        ),
        false => "The keys are fetched, and the provider may have replaced them since: call \
                  auth.refresh_provider."
            .to_owned(),
    })
}

/// The rules of the policy.
fn expect_policy(report: &mut Inspection, policy: &Provider, now: i64) {
    let list = |texts: &[String]| quoted_list(texts.iter().map(String::as_str));
    let mut expect = |check, text: String| report.row(check).expected = text;
    let required = policy.required_claims.iter().map(|path| path.text());
    let mut rules = vec![quoted_list(required)];
    rules.extend(policy.require.iter().take(10).map(|requirement| {
        let values: Vec<String> =
            requirement.values.iter().take(10).map(ToString::to_string).collect();
        format!("{} is one of {}", quoted(requirement.path.text()), values.join(", "))
    }));
    if policy.monotonic_jti {
        rules.push("\"jti\" is an integer".to_owned());
    }
    if let Some(namespace) = &policy.claims_namespace {
        rules.push(format!("{} is an object", quoted(namespace.text())));
    }
    expect(Check::RequiredClaims, rules.join("; "));
    expect(Check::Issuer, policy.issuer().map_or_else(|| "any".to_owned(), quoted));
    expect(
        Check::Audience,
        match policy.audience.is_empty() {
            true => "any".to_owned(),
            false => list(&policy.audience),
        },
    );
    expect(
        Check::Subject,
        format!("a user id in the claim {}", quoted(policy.user_id_claim.text())),
    );
    expect(
        Check::Role,
        match (policy.names_role_claim, &policy.allowed_roles) {
            (false, None) => "any".to_owned(),
            (_, Some(allowed)) => {
                format!(
                    "one of {} in the claim {}",
                    list(allowed),
                    quoted(policy.role_claim.text())
                )
            }
            (true, None) => format!("a role in the claim {}", quoted(policy.role_claim.text())),
        },
    );
    let age = policy.max_token_age.map(|age| format!(", iat in the last {age} s"));
    expect(
        Check::Time,
        format!(
            "exp after {now}, nbf not after it{}, with a leeway of {} s",
            age.unwrap_or_default(),
            policy.leeway
        ),
    );
    expect(
        Check::Replay,
        match policy.monotonic_jti {
            true => "a jti above that of the last token of the session".to_owned(),
            false => "any".to_owned(),
        },
    );
}
