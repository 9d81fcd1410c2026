//! The identity of the session: from the token GUC to the values that readers return.
//!
//! The token is stored in the token GUC only, so that the rules of Postgres for GUCs decide about scope,
//! rollback and parallel workers. The check hook verifies a token that a statement presents
//! ([`admission`]). The assign hook verifies nothing: it invalidates the identity in force, and makes the
//! role of the token the current role. The next reader resolves the identity: it finds the token among
//! those that this backend has verified, or verifies it, and puts its identity in force ([`current`]). The
//! identity stays in force until the GUC or the keys change, or it expires.

pub(crate) mod absence;
pub(crate) mod admission;
mod cache;
pub(crate) mod current;
pub(crate) mod grants;
pub(crate) mod identity;
pub(crate) mod inspection;
pub(crate) mod lifetime;
pub(crate) mod presence;
pub(crate) mod report;
pub(crate) mod request_claims;
pub(crate) mod trial;
mod verified;

use std::cell::RefCell;
use std::rc::Rc;

use session_jwt::{Code, MAX_TOKEN_BYTES, Rejection};

use crate::audit;
use crate::pg::backend::{self, BackendLocal, OnDrop, Timestamp};
use crate::pg::datum::{Reference, Unrepresentable, Varlena};
use crate::pg::function::{Answer, Row};
use crate::pg::plan::RunningPlan;
use crate::pg::redact;
use crate::pg::token::Standing;
use crate::providers;
use crate::revocations;
use crate::roles::{locked, token_role, transaction};
use crate::settings::{JWT, REQUEST_CLAIMS};
use crate::statistics::{counters, sessions};
use admission::{admit, admit_in_worker, now};
use identity::{Identity, Lookup, Reader, ValidIdentity, unrepresentable};

/// The moment at which an identity is resolved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Before a statement is rewritten, so that its policies are those for the role of the token.
    BetweenStatements,
    /// Within a statement, whose policies are chosen already.
    WithinStatement,
}

/// Resolves the identity, and returns the value of a reader.
pub(crate) fn value(reader: Reader) -> Result<Option<Reference>, Rejection> {
    resolve(Moment::WithinStatement)?;
    Ok(current::value(reader))
}

/// The value of a reader with an argument, which is in the database's encoding.
pub(crate) fn look_up(lookup: Lookup, argument: &[u8]) -> Result<Answer, Rejection> {
    if !current::is_ready() {
        resolve(Moment::WithinStatement)?;
    }
    current::look_up(lookup, argument)
}

/// The identity of the session; None where there is none.
pub(crate) fn identity() -> Result<Option<ValidIdentity>, Rejection> {
    if !current::is_ready() {
        resolve(Moment::WithinStatement)?;
    }
    Ok(current::identity())
}

/// Verifies a token and its times, and returns its claims as `jsonb`. It does not change the identity of
/// the session.
pub(crate) fn verify(token: &[u8]) -> Result<Varlena, Rejection> {
    redact::redact_statement();
    if token.len() > MAX_TOKEN_BYTES {
        return Err(verified::too_long("token is too long"));
    }
    let text = String::from_utf8_lossy(token);
    let (claims, _) = beside_the_session(|| providers::verify(&text))?;
    let claims = claims.judge_presentation(now())?;
    revocations::check(claims, now())?;
    Varlena::jsonb(claims.json()).map_err(|Unrepresentable| unrepresentable())
}

/// Verifies a logout token, and returns its issuer, its subject, its session id and the second of its issue since
/// 1970. It does not change the identity of the session.
pub(crate) fn verify_logout(token: &[u8], audience: Option<&str>) -> Result<Row, Rejection> {
    redact::redact_statement();
    let text = String::from_utf8_lossy(token);
    let logout = beside_the_session(|| providers::verify_logout(&text, audience, now()))?;
    Ok(vec![logout.issuer, logout.subject, logout.session_id, Some(logout.issued.to_string())])
}

/// Runs a verification of a token that is not the session's. It may wait for new keys, which may not be those of the
/// session's token, also where an error of Postgres unwinds.
fn beside_the_session<T>(verify: impl FnOnce() -> T) -> T {
    let epoch = providers::epoch();
    let _invalidation = OnDrop(|| {
        if epoch != providers::epoch() {
            current::invalidate();
        }
    });
    verify()
}

/// Makes the role of the token the role of the session, before a statement is rewritten. It is not for
/// parallel workers. A token that no statement has presented is checked first, and so is one that was
/// rejected at its first use: its key may have been added since, or its `nbf` may have passed. Where it is
/// rejected, readers raise the error.
pub(crate) fn prepare_statement() {
    let is_open = || JWT.is_set() && JWT.standing() != Standing::Admitted;
    if is_open() && transaction::is_idle() && backend::in_transaction() {
        let _ = resolve(Moment::BetweenStatements);
    }
    token_role::set(JWT.role());
    token_role::settle_waiting();
}

/// Whether [`prepare_statement`] has anything to do. It cannot fail.
pub(crate) fn is_to_be_prepared() -> bool {
    JWT.is_set() || token_role::exists() || token_role::is_waiting()
}

/// Checks before a plan that has run before goes on whether the session still has its identity, where policies stand
/// between the session and rows: the plan may keep what it has read once, such as the key of an index.
pub(crate) fn check_continued(plan: RunningPlan) -> Result<(), Rejection> {
    if plan.has_policies() { identity().map(|_| ()) } else { Ok(()) }
}

/// How far a statement depends on the role of the token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// It can run without the role of the token.
    Nothing,
    /// It is a utility statement that may touch tables.
    Role,
    /// It is a plan that touches tables, and that may have been made for the role.
    PlannedRole,
}

/// Checks before a statement whether the session still has the role of its token: the token must be valid
/// now. Where it is not, a statement that needs no role runs without it.
pub(crate) fn check_role(need: Need) -> Result<(), Rejection> {
    if token_role::settle_waiting() && need == Need::PlannedRole {
        return Err(token_role::changed());
    }
    if !token_role::exists() || current::is_role_confirmed() && !token_role::is_suspended() {
        return Ok(());
    }
    let confirmed = resolve(Moment::WithinStatement).and_then(|()| {
        let known = current::invalidations();
        let identity = current::identity();
        let role = identity.as_ref().and_then(|identity| identity.claims().database_role());
        token_role::confirm(role)?;
        current::set_role_confirmed(known);
        Ok(())
    });
    let has_changed = token_role::suspend(confirmed.is_err());
    match confirmed {
        Err(rejection) if need != Need::Nothing => Err(rejection),
        Ok(()) if has_changed && need == Need::PlannedRole => Err(token_role::changed()),
        _ => Ok(()),
    }
}

/// Puts the identity of the token in force; without a token, that of trusted `request.jwt.claims`, or none.
///
/// # Errors
/// Where the token is rejected or has expired, or the statement may not read its claims.
fn resolve(moment: Moment) -> Result<(), Rejection> {
    current::invalidate();
    if moment == Moment::WithinStatement {
        lifetime::note_use();
    }
    if let Some(assumed) = trial::identity() {
        let until = assumed.expires_at();
        if current::install(Some(assumed)) {
            current::set_ready(until);
        }
        return Ok(());
    }
    locked::check_locks()?;
    transaction::check_reader()?;
    let epoch = providers::epoch();
    let token = JWT.with(|token| token.get(..=MAX_TOKEN_BYTES).unwrap_or(token).to_vec());
    if token.is_empty() {
        return resolve_without_token();
    }
    let standing = JWT.standing();
    if standing == Standing::Rejected && moment == Moment::WithinStatement {
        return Err(earlier_rejection(&token));
    }
    let outcome = verified::verify(&token, JWT.fingerprint(), JWT.number()).and_then(|identity| {
        match standing {
            Standing::Admitted => {}
            _ if backend::is_parallel_worker() => audit::log_accepted(admit_in_worker(&identity)?),
            _ => JWT.set_role(admit(&identity, JWT.fingerprint())?),
        }
        Ok(identity)
    });
    if standing != Standing::Admitted {
        set_standing(standing, &outcome, &token);
    }
    let identity = outcome.inspect_err(|_| sessions::clear())?;
    presence::note_token(&identity);
    let now = backend::to_unix(backend::statement_start());
    let identity = identity.judge(now)?;
    identity
        .check_revocation(current::revocations_to_stand(), now)
        .inspect_err(|_| sessions::clear())?;
    let until = identity.expires_at();
    // Where providers have changed since the start of this function, readers return copies, or the transaction is
    // bound to another role, the values are not made ready: the next reader resolves again.
    let can_lend = current::install(Some(identity.clone()));
    if can_lend && epoch == providers::epoch() && transaction::has_bound_role() {
        match identity.is_unrevoked() {
            true => current::set_ready(until),
            false => current::set_ready_for_run(until),
        }
    }
    Ok(())
}

/// Notes the outcome of the checks of a token that had not passed them before.
fn set_standing(before: Standing, outcome: &Result<Rc<Identity>, Rejection>, token: &[u8]) {
    match outcome {
        Ok(_) => JWT.set_standing(Standing::Admitted),
        Err(rejection) => {
            if before == Standing::Pending {
                if !backend::is_parallel_worker() {
                    counters::count_rejected(rejection.code());
                }
                audit::log_rejected(rejection, token);
                JWT.set_standing(Standing::Rejected);
                request_claims::wipe(false);
            }
            REJECTION.replace(Some((JWT.number(), rejection.clone())));
        }
    }
}

/// The rejection of a value of the token GUC at its first use, with the number of the value.
static REJECTION: BackendLocal<RefCell<Option<(u64, Rejection)>>> =
    BackendLocal::new(RefCell::new(None));

/// The rejection of a token that no statement has presented. It stays the same until the next statement is
/// rewritten, even where its reason does not hold any more.
fn earlier_rejection(token: &[u8]) -> Rejection {
    let number = JWT.number();
    let known = REJECTION.borrow().as_ref().filter(|(of, _)| *of == number).cloned();
    if let Some((_, rejection)) = known {
        return rejection;
    }
    // A parallel worker gets the standing from its leader, but not the reason.
    let again = verified::verify(token, JWT.fingerprint(), number)
        .and_then(|identity| admit_in_worker(&identity).err().map_or(Ok(()), Err));
    match again {
        Err(rejection) => rejection,
        Ok(()) => Rejection::new(Code::Claim, "token was rejected before the statement")
            .with_hint("Present the token again."),
    }
}

fn resolve_without_token() -> Result<(), Rejection> {
    lifetime::warn_of_ended_token();
    if request_claims::is_trusted() {
        let is_hooked = REQUEST_CLAIMS.hook();
        let identity = request_claims::identity()?;
        if let Some(identity) = &identity {
            let now = backend::to_unix(backend::statement_start());
            identity.check_revocation(current::revocations_to_stand(), now)?;
        }
        let until = identity.as_ref().map_or(Timestamp::MAX, |identity| identity.expires_at());
        presence::note_request_claims(identity.as_ref());
        let is_unrevoked = identity.as_ref().is_none_or(ValidIdentity::is_unrevoked);
        let can_lend = current::install(identity);
        // Without the assign hook, changes of the GUC are not noticed: every reader resolves again.
        if is_hooked && is_unrevoked && can_lend && transaction::has_bound_role() {
            current::set_trusted(until);
        }
        return Ok(());
    }
    request_claims::warn_of_ignored_claims();
    sessions::clear();
    current::install(None);
    if transaction::has_bound_role() {
        current::set_ready(Timestamp::MAX);
    }
    Ok(())
}
