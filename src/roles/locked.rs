//! Locked login roles (`pg_session_jwt.locked_roles`): their sessions change their role by a token only.

use session_jwt::{Code, Rejection};

use crate::pg::guc;
use crate::pg::role;
use crate::settings::{self, LOCKED_ROLES};

/// Whether the session user is a locked login role.
pub(crate) fn is_session_locked() -> bool {
    role::with_name(role::session_user(), is_locked)
}

/// Whether a login role is locked. Where its name cannot be found, it counts as locked if the list names
/// any role.
fn is_locked(login: Option<&[u8]>) -> bool {
    if LOCKED_ROLES.is_lost() {
        return true;
    }
    LOCKED_ROLES.with(|value| match (value, login) {
        (b"", _) => false,
        (_, None) => true,
        (_, Some(login)) => {
            guc::split_names(value).is_none_or(|names| names.iter().any(|name| name == login))
        }
    })
}

/// Rejects a new value of `role` or `session_authorization` in the session of a locked login role.
pub(crate) fn check_role_change() -> Result<(), Rejection> {
    if !is_session_locked() {
        return Ok(());
    }
    Err(Rejection::new(Code::Forbidden, "permission denied to set role")
        .with_detail("The session's login role is in pg_session_jwt.locked_roles.")
        .with_hint("Present a token that names the role."))
}

/// Rejects every identity where locked roles are configured and the extension cannot enforce them: the
/// library was not preloaded, or the configured value was lost.
pub(crate) fn check_locks() -> Result<(), Rejection> {
    let holds = settings::is_preloaded() || LOCKED_ROLES.with(<[u8]>::is_empty);
    if holds && !LOCKED_ROLES.is_lost() {
        return Ok(());
    }
    Err(Rejection::new(Code::Configuration, "locked roles are not locked")
        .with_detail(
            "pg_session_jwt.locked_roles has a value that Postgres did not accept, or the library was \
             loaded only after the session had begun.",
        )
        .with_hint("Add pg_session_jwt to shared_preload_libraries, and write names as in SQL."))
}
