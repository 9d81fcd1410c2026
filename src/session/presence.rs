//! The identity of this session in `auth.sessions`. The entry shows a token that was admitted as long as the token GUC
//! has it, and claims of `request.jwt.claims` once a reader has put them in force.

use session_jwt::Claims;

use super::identity::{Identity, ValidIdentity};
use super::verified;
use crate::pg::backend::{self, Timestamp};
use crate::pg::relation::Oid;
use crate::pg::token::{AssignedValue, TokenRole};
use crate::settings::{JWT, REQUEST_CLAIMS};
use crate::statistics::sessions::{self, Origin, Shown};

/// Shows a value that Postgres is about to assign to the token GUC. The assign hook calls it, also during a rollback,
/// where an earlier value comes back. It cannot fail.
pub(crate) fn note_assignment(assigned: &AssignedValue) {
    let identity = if assigned.is_admitted { verified::of_value(JWT.number()) } else { None };
    match identity {
        Some(identity) => show_token(&identity, assigned.role),
        // The next reader shows a token whose identity is not known any more.
        None => sessions::clear(),
    }
}

/// Shows the token of the session, which was admitted at its first use, or whose identity is another one since its
/// provider has changed.
pub(super) fn note_token(identity: &Identity) {
    if sessions::origin() != Some(origin(identity)) {
        show_token(identity, JWT.role());
    }
}

/// Shows the identity that a reader has put in force, or that there is none.
pub(super) fn note_request_claims(identity: Option<&ValidIdentity>) {
    let Some(identity) = identity else {
        return sessions::clear();
    };
    let origin = Origin::RequestClaims { identity: identity.number() };
    if sessions::origin() != Some(origin) {
        show(origin, identity.claims(), Oid::INVALID, backend::statement_start());
    }
}

/// Without an assign hook of `request.jwt.claims`, its value may end with the transaction unnoticed. It cannot fail.
pub(crate) fn end_transaction() {
    if matches!(sessions::origin(), Some(Origin::RequestClaims { .. }))
        && !REQUEST_CLAIMS.is_hooked()
    {
        sessions::clear();
    }
}

fn origin(identity: &Identity) -> Origin {
    Origin::Token { value: JWT.number(), identity: identity.number() }
}

fn show_token(identity: &Identity, role: Option<TokenRole>) {
    let role = role.map_or(Oid::INVALID, |role| role.oid);
    show(origin(identity), identity.claims(), role, JWT.since());
}

fn show(origin: Origin, claims: &Claims, role: Oid, since: Timestamp) {
    let shown = Shown {
        user_id: claims.user_id(),
        issuer: claims.issuer(),
        role,
        since,
        expires: claims.valid_until().map_or(Timestamp::MAX, backend::from_unix),
    };
    sessions::show(origin, &shown);
}
