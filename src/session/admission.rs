//! The checks when a token is presented: its signature and claims, `nbf` and other times, its role, and its
//! `jti`. A reader repeats only what may change: the keys and the expiry.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use session_jwt::{Claims, Code, Rejection};

use super::identity::Identity;
use super::{absence, lifetime, verified};
use crate::audit;
use crate::pg::backend::{self, BackendLocal};
use crate::pg::guc::Source;
use crate::pg::token::{CheckedValue, Fingerprint, Standing, TokenRole, timeline};
use crate::pg::{memory, redact};
use crate::revocations;
use crate::roles::{locked, token_role, transaction};
use crate::settings;
use crate::statistics::counters;

/// Checks a value of the token GUC. Within a transaction, a token is verified at once, and a rejected token
/// voids every identity of the session; outside, it is verified at its first use.
pub(crate) fn check(token: &[u8], source: Source) -> Result<CheckedValue, Rejection> {
    let number = timeline::next();
    let fingerprint = verified::fingerprint(token);
    let passed = |standing| CheckedValue { number, fingerprint, standing, role: None };
    if token.is_empty() {
        // Also where the session has no identity: an application may have meant to present a token.
        if source == Source::Session && backend::in_transaction() {
            absence::note_cleared();
        }
        return Ok(passed(None));
    }
    match source {
        // The value of the leader begins with the standing already.
        Source::Worker => Ok(passed(None)),
        Source::Startup => Ok(passed(Some(Standing::Pending))),
        Source::Stored | Source::Test => {
            let detail = "All roles can read the settings of databases, roles and functions.";
            let hint = "Present the token in the session that it is for. Reset a stored value with ALTER \
                        SYSTEM, ALTER DATABASE or ALTER ROLE, or remove it from postgresql.conf.";
            Err(Rejection::new(Code::Configuration, "a token cannot be stored in a setting")
                .with_detail(detail)
                .with_hint(hint))
        }
        // Code of another role presents the token, not the client. So the rejection voids nothing.
        Source::Session if backend::in_security_restricted_operation() => Err(Rejection::new(
            Code::Configuration,
            "a token cannot be presented within a security-restricted operation",
        )),
        Source::Session if settings::is_loading() || !backend::in_transaction() => {
            Ok(passed(Some(Standing::Pending)))
        }
        Source::Session => {
            redact::redact_statement();
            // The drop voids the identities also where an error of Postgres unwinds.
            let is_accepted = Cell::new(false);
            let _voiding = backend::OnDrop(|| {
                if !is_accepted.get() {
                    lifetime::void_identities();
                }
            });
            let identity =
                locked::check_locks().and_then(|()| verified::verify(token, fingerprint, number));
            let admitted = identity.and_then(|identity| admit(&identity, fingerprint));
            let role = admitted.inspect_err(|rejection| {
                counters::count_rejected(rejection.code());
                audit::log_rejected(rejection, token);
                absence::note_rejected(rejection);
            })?;
            is_accepted.set(true);
            lifetime::note_presentation();
            Ok(CheckedValue { role, ..passed(Some(Standing::Admitted)) })
        }
    }
}

/// Checks the times of a token, and whether the session may take its role now, and logs that the token is
/// accepted. Returns the role.
pub(super) fn admit(
    identity: &Identity,
    fingerprint: Fingerprint,
) -> Result<Option<TokenRole>, Rejection> {
    admit_claims(identity, fingerprint)
        .map_err(|rejection| rejection.with_provider(identity.provider()))
}

/// Does the same, for rejections without the provider.
fn admit_claims(
    identity: &Identity,
    fingerprint: Fingerprint,
) -> Result<Option<TokenRole>, Rejection> {
    let now = now();
    let claims = identity.judge_presentation(now)?;
    identity.check_revocation(revocations::epoch(), now)?;
    let role = claims.database_role().map(token_role::find).transpose()?;
    transaction::check_presentation(role.as_ref(), fingerprint)?;
    // Before the jti is recorded, which is not undone.
    memory::check();
    if let Some(sequence) = claims.sequence() {
        admit_sequence(claims, sequence)?;
    }
    identity.share_signature(now);
    counters::count_accepted();
    audit::log_accepted(claims);
    Ok(role)
}

/// The last `jti` of each provider with `monotonic_jti` in this session.
static LAST_JTI: BackendLocal<RefCell<Option<HashMap<String, i64>>>> =
    BackendLocal::new(RefCell::new(None));

/// Records a `jti`, which must be higher than the last one of the provider.
fn admit_sequence(claims: &Claims, sequence: i64) -> Result<(), Rejection> {
    check_sequence(claims.provider(), sequence)?;
    let mut last = LAST_JTI.borrow_mut();
    last.get_or_insert_default().insert(claims.provider().to_owned(), sequence);
    Ok(())
}

/// Rejects a `jti` that is not higher than the last one of the provider.
pub(super) fn check_sequence(provider: &str, sequence: i64) -> Result<(), Rejection> {
    match LAST_JTI.borrow().as_ref().and_then(|last| last.get(provider)) {
        Some(last) if sequence <= *last => {
            Err(Rejection::new(Code::Replayed, "token has been used before")
                .with_detail(format!(
                    "Its jti is {sequence}; this session has seen {last} already."
                ))
                .with_hint("Present a token with a higher jti."))
        }
        _ => Ok(()),
    }
}

/// Checks in a parallel worker a token that its leader has not checked. The worker does not know which
/// `jti` the session has seen.
pub(super) fn admit_in_worker(identity: &Identity) -> Result<&Claims, Rejection> {
    let claims = identity.judge_presentation(now())?;
    if claims.sequence().is_some() {
        return Err(Rejection::new(Code::Replayed, "token has not been presented yet")
            .with_detail("A parallel worker cannot tell whether its jti has been used before.")
            .with_hint("Have the session read its identity once before."));
    }
    Ok(claims)
}

/// The current time in seconds since 1970.
pub(super) fn now() -> i64 {
    backend::to_unix(backend::now())
}
