//! The trial of a query: `auth.try_as()` runs a query as another role, and with the identity of given claims, for
//! `auth.explain_access()`. The query calls functions that the owners of tables have written, so they must not
//! find more than in a session of that role and identity, and must leave nothing behind.

use std::cell::RefCell;
use std::ffi::c_int;

use session_jwt::{Code, Rejection};

use super::current;
use super::identity::{Identity, ValidIdentity};
use crate::pg::backend::{self, BackendLocal};
use crate::pg::compat;
use crate::pg::plan;
use crate::pg::relation::Oid;
use crate::pg::role;
use crate::providers::{self, Table};
use crate::roles::locked;

/// The trial that is running.
struct Trial {
    /// The nest level of the subtransaction whose abort ends it.
    level: c_int,
    /// The identity of the given claims; None where the session keeps its own.
    identity: Option<ValidIdentity>,
}

static TRIAL: BackendLocal<RefCell<Option<Trial>>> = BackendLocal::new(RefCell::new(None));

/// Begins a trial as a role, with the identity of claims where they are given. `has_identity` tells whether the
/// session has an identity of its own, which parallel workers and roles by token would follow.
///
/// # Errors
/// Where the caller may not set the role or issue the claims, and where the claims are malformed or have
/// expired.
pub(crate) fn enter(role: Oid, claims: Option<&str>, has_identity: bool) -> Result<(), Rejection> {
    if backend::in_security_restricted_operation() {
        return Err(denied(
            "A security-restricted operation, such as a query that is tried, tries no other query.",
        ));
    }
    let caller = role::current_user();
    if role != caller || claims.is_some() {
        check_role(role)?;
    }
    if claims.is_some() && has_identity {
        return Err(Rejection::new(
            Code::Configuration,
            "claims are given in a session with an identity",
        )
        .with_hint("Clear the identity of the session first: RESET pg_session_jwt.jwt."));
    }
    let identity = claims.map(assume).transpose()?;
    TRIAL.replace(Some(Trial { level: backend::nest_level(), identity }));
    compat::allow_transaction_changes(false);
    current::invalidate();
    Ok(())
}

/// Ends the trial. It cannot fail.
pub(crate) fn leave() {
    if TRIAL.take().is_some() {
        compat::allow_transaction_changes(true);
        current::invalidate();
    }
}

/// Ends the trial where a subtransaction around it aborts. It cannot fail.
pub(crate) fn end_subtransaction() {
    let level = backend::nest_level();
    if TRIAL.borrow().as_ref().is_some_and(|trial| trial.level >= level) {
        leave();
    }
}

/// Whether a query is being tried.
pub(crate) fn is_active() -> bool {
    TRIAL.borrow().is_some()
}

/// The identity of the given claims, while a query is tried with it.
pub(super) fn identity() -> Option<ValidIdentity> {
    TRIAL.borrow().as_ref().and_then(|trial| trial.identity.clone())
}

/// Rejects the call of a function in a trial, where its effect would outlive the trial.
pub(crate) fn check_function(function: Oid) -> Result<(), Rejection> {
    if plan::outlives_rollback(function) {
        return Err(Rejection::new(
            Code::Forbidden,
            "function cannot be called while a query is tried",
        )
        .with_detail("Its effect may outlive the rollback, or it may connect to another server."));
    }
    Ok(())
}

/// Checks that the caller could set a role to which policies can apply.
fn check_role(role: Oid) -> Result<(), Rejection> {
    if role::is_superuser(role) {
        return Err(denied("The role is a superuser: policies do not apply to it."));
    }
    if locked::is_session_locked() {
        return Err(denied("The session's login role is in pg_session_jwt.locked_roles."));
    }
    if !role::current_can_set(role) {
        return Err(denied("The current role may not SET ROLE to it."));
    }
    Ok(())
}

/// The identity of claims, without a token. Only a caller that could issue such a token assumes it: a superuser,
/// or a role that may add providers. The provider of the claims' issuer names the claim with the user id.
fn assume(claims: &str) -> Result<ValidIdentity, Rejection> {
    if !Table::find().is_some_and(Table::may_insert) {
        return Err(denied(
            "Only superusers and roles with INSERT on auth.providers may give claims.",
        ));
    }
    let claims = providers::assume(claims)?;
    Identity::new(claims, None)?.judge(backend::to_unix(backend::statement_start()))
}

fn denied(detail: &str) -> Rejection {
    Rejection::new(Code::Forbidden, "permission denied to try a query as another role")
        .with_detail(detail)
}
