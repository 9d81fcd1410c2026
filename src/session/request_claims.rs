//! Identities from `request.jwt.claims`, which PostgREST and similar servers set for each request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use session_jwt::{Code, MAX_TOKEN_BYTES, Rejection, UnjudgedClaims};

use super::identity::{Identity, ValidIdentity};
use super::verified::too_long;
use crate::pg::backend::{self, BackendLocal};
use crate::pg::datum::from_server_encoding;
use crate::pg::error;
use crate::settings::{REQUEST_CLAIMS, TRUST_REQUEST_CLAIMS};
use crate::statistics::sessions;

/// The last value of the GUC that was read, and its identity.
static LAST: BackendLocal<RefCell<Option<Claimed>>> = BackendLocal::new(RefCell::new(None));

type Claimed = (Box<[u8]>, Rc<Identity>);

/// Whether the session has trusted the claims at any time.
static WAS_TRUSTED: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));

/// Whether the session was warned that the claims do not count.
static HAS_WARNED: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));

/// Whether the claims count where the session has no token.
pub(crate) fn is_trusted() -> bool {
    TRUST_REQUEST_CLAIMS.get() && !TRUST_REQUEST_CLAIMS.is_lost()
}

/// Notes that the claims count from now on.
pub(crate) fn note_trust() {
    WAS_TRUSTED.set(true);
}

/// The identity of the claims; None where the GUC does not exist or is empty.
pub(crate) fn identity() -> Result<Option<ValidIdentity>, Rejection> {
    let claims = REQUEST_CLAIMS.with(|value| match value.len() {
        0..=MAX_TOKEN_BYTES => Ok(value.to_vec()),
        _ => Err(too_long("request.jwt.claims is too long")),
    });
    match claims.transpose()? {
        Some(claims) if !claims.is_empty() => {
            let now = backend::to_unix(backend::statement_start());
            read(&claims)?.judge(now).map(Some).map_err(of_request_claims)
        }
        _ => Ok(None),
    }
}

fn read(text: &[u8]) -> Result<Rc<Identity>, Rejection> {
    let last = LAST
        .borrow()
        .as_ref()
        .and_then(|(known, identity)| (**known == *text).then(|| Rc::clone(identity)));
    if let Some(identity) = last {
        return Ok(identity);
    }
    let json = from_server_encoding(text).ok_or_else(|| {
        Rejection::new(Code::Malformed, "request.jwt.claims is malformed")
            .with_detail("It cannot be converted to UTF-8.")
    })?;
    let claims = UnjudgedClaims::trusted(&json).map_err(of_request_claims)?;
    let identity = Identity::new(claims, None)?;
    error::debug("request.jwt.claims have been read");
    LAST.replace(Some((text.into(), Rc::clone(&identity))));
    Ok(identity)
}

/// Rewords a rejection about a token for `request.jwt.claims`.
fn of_request_claims(rejection: Rejection) -> Rejection {
    let (message, detail) = (rejection.message(), rejection.detail().unwrap_or_default());
    Rejection::new(rejection.code(), "request.jwt.claims is rejected")
        .with_detail(format!("As for a token: {message}. {detail}"))
}

/// Warns that the claims do not count, once in a session.
pub(crate) fn warn_of_ignored_claims() {
    let is_set = REQUEST_CLAIMS.with(|value| !value.is_empty()).unwrap_or(false);
    if is_set && !backend::is_parallel_worker() && !HAS_WARNED.replace(true) {
        error::warn(
            "request.jwt.claims is ignored",
            "Every role that can run SQL can set it. Present a token, or have a superuser set \
             pg_session_jwt.trust_request_claims.",
        );
    }
}

/// Empties `request.jwt.claims` where the claims have counted in this session, so that they do not outlive
/// a revocation or the end of the identity. With `keep_current`, the values that the current transaction
/// has set stay. It cannot fail.
pub(crate) fn wipe(keep_current: bool) {
    sessions::clear_request_claims();
    if WAS_TRUSTED.get() {
        REQUEST_CLAIMS.wipe(keep_current);
    }
}

/// Empties the value of the session. It cannot fail.
pub(crate) fn discard() {
    sessions::clear_request_claims();
    if WAS_TRUSTED.get() {
        REQUEST_CLAIMS.discard();
    }
}
