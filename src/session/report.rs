//! What `auth.whoami()` tells about the identity of the session.

use session_jwt::Rejection;

use super::identity::ValidIdentity;
use super::{absence, lifetime};
use crate::pg::backend::{self, Timestamp, seconds};
use crate::pg::function::Row;
use crate::settings::JWT;

/// The row of `auth.whoami()`. Where the session has no identity, the row says why.
pub(crate) fn whoami() -> Row {
    match super::identity() {
        Ok(Some(identity)) => present(&identity),
        Ok(None) => absent(absence::reason()),
        Err(rejection) => absent(sentences(&rejection)),
    }
}

/// user_id, issuer, provider, role, scope, expires_in, reason
fn present(identity: &ValidIdentity) -> Row {
    let claims = identity.claims();
    let text = |text: Option<&str>| text.map(str::to_owned);
    let (provider, scope) = if JWT.is_set() {
        (claims.provider(), if lifetime::is_session_wide() { "session" } else { "transaction" })
    } else {
        ("request.jwt.claims", "setting")
    };
    let until = identity.expires_at();
    let left = (until - backend::statement_start()) / seconds(1);
    let no_user = "The identity has no user id: its claims lack sub, or the claim that the provider's \
                   user_id_claim names.";
    vec![
        text(claims.user_id()),
        text(claims.issuer()),
        text(Some(provider)),
        text(claims.database_role()),
        text(Some(scope)),
        (until != Timestamp::MAX).then(|| format!("{left} seconds")),
        claims.user_id().is_none().then(|| no_user.to_owned()),
    ]
}

fn absent(reason: String) -> Row {
    vec![None, None, None, None, None, None, Some(reason)]
}

/// A rejection as sentences in one line.
fn sentences(rejection: &Rejection) -> String {
    let description = rejection.description();
    match rejection.hint() {
        None => description,
        Some(hint) => format!("{description} {hint}"),
    }
}
