//! What policies and procedures ask about the words and the sign-in of the session's token.

use session_jwt::{Grant, Rejection, ScopeDemand, SignInDemand, Span};

use super::current;
use crate::pg::backend;
use crate::pg::function::Verdict;

/// Whether the session's token grants a word, which is in the database's encoding.
pub(crate) fn has(grant: Grant, word: &[u8]) -> Result<Verdict, Rejection> {
    let identity = super::identity()?;
    Ok(Verdict {
        owner: identity.as_ref().map_or(current::NO_OWNER, |identity| identity.number()),
        is_granted: identity.is_some_and(|identity| identity.grants(grant, word)),
    })
}

/// Whether the user signed in within a span before the start of the statement.
pub(crate) fn signed_in_within(span: Span) -> Result<bool, Rejection> {
    let sign_in = super::identity()?.and_then(|identity| identity.claims().sign_in());
    Ok(sign_in.is_some_and(|sign_in| sign_in.is_within(span, statement_start())))
}

/// Demands a scope of the session's token.
pub(crate) fn require_scope(scope: Option<String>) -> Result<(), Rejection> {
    let demand = ScopeDemand::new(scope)?;
    demand.check(super::identity()?.as_ref().map(|identity| identity.claims()))
}

/// Demands a sign-in that is at most as old as `max_age`, and of the class `acr` if it is given.
pub(crate) fn require_fresh(max_age: Option<Span>, acr: Option<String>) -> Result<(), Rejection> {
    let demand = SignInDemand::new(max_age, acr)?;
    let identity = super::identity()?;
    demand.check(identity.as_ref().map(|identity| identity.claims()), statement_start())
}

/// In microseconds since 1970.
fn statement_start() -> i64 {
    backend::to_unix_microseconds(backend::statement_start())
}
