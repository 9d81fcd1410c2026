//! Roles: look-ups in the catalogs, and the users of the session.

use std::ffi::{CStr, c_char, c_int};

use pgrx::pg_sys::{self, Oid};

use super::backend;
use super::compat;
use super::datum::to_server_encoding;
use super::error::guarded;

unsafe extern "C-unwind" {
    // Declared by hand, without the guard of `pgrx`: they read and set static variables. The first one also
    // sets the GUC `is_superuser`, which raises no error: from 15.8 and 16.4 on, not in parallel mode either.
    safe fn SetCurrentRoleId(role: Oid, is_superuser: bool);
    safe fn GetCurrentRoleId() -> Oid;
    safe fn GetSessionUserId() -> Oid;
    safe fn GetUserId() -> Oid;
    fn GetUserIdAndSecContext(user: *mut Oid, context: *mut c_int);
}

/// The user whose privileges the current statement has.
pub(crate) fn current_user() -> Oid {
    GetUserId()
}

/// The session user.
pub(crate) fn session_user() -> Oid {
    GetSessionUserId()
}

/// The role that the client has logged in as; invalid where there is no client. `SET SESSION AUTHORIZATION` does not
/// change it.
pub(crate) fn login() -> Oid {
    // SAFETY: it is null or the entry of this process in shared memory, whose role does not change.
    unsafe { pg_sys::MyProc.as_ref() }.map_or(Oid::INVALID, |process| process.roleId)
}

/// Makes a role that is no superuser the current one, as `SET ROLE` does. It cannot fail.
pub(crate) fn set_current(role: Oid) {
    SetCurrentRoleId(role, false);
}

/// Whether the current user can change now. It cannot within a security-definer function or a
/// security-restricted operation, which restore the user at their end.
pub(crate) fn can_change() -> bool {
    let (mut user, mut context) = (Oid::INVALID, 0);
    // SAFETY: the function writes to both variables and cannot raise an error.
    unsafe { GetUserIdAndSecContext(&mut user, &mut context) };
    context == 0
}

/// Whether the current user is a superuser.
pub(crate) fn is_current_superuser() -> bool {
    // SAFETY: within a transaction, the function reads the catalogs.
    unsafe { pg_sys::superuser() }
}

/// Whether the current user has the privileges of `pg_monitor`, as superusers have.
pub(crate) fn is_monitor() -> bool {
    has_privileges_of(Oid::from(pg_sys::ROLE_PG_MONITOR))
}

/// Whether the current user has the privileges of a role.
pub(crate) fn has_privileges_of(role: Oid) -> bool {
    // SAFETY: within a transaction, the function reads the catalogs.
    unsafe { pg_sys::has_privs_of_role(GetUserId(), role) }
}

/// Whether a role is a superuser.
pub(crate) fn is_superuser(role: Oid) -> bool {
    // SAFETY: within a transaction, the function reads the catalogs.
    unsafe { pg_sys::superuser_arg(role) }
}

/// Whether the session user may take a role by `SET ROLE`.
pub(crate) fn can_set(role: Oid) -> bool {
    compat::can_set_role(session_user(), role)
}

/// Whether the current user may take a role by `SET ROLE`, if it were the session user.
pub(crate) fn current_can_set(role: Oid) -> bool {
    compat::can_set_role(current_user(), role)
}

/// Whether the session user is a member of a role, which since 16 need not allow `SET ROLE`.
pub(crate) fn is_member(role: Oid) -> bool {
    // SAFETY: within a transaction, the function reads the catalogs.
    unsafe { pg_sys::is_member_of_role(session_user(), role) }
}

/// The role of a name in UTF-8.
pub(crate) fn find(name: &str) -> Option<Oid> {
    let name = to_server_encoding(name)?;
    // SAFETY: within a transaction, the function reads the catalogs; the name is a C string.
    let oid = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
    (oid != Oid::INVALID).then_some(oid)
}

/// Calls `body` with the name of a role, in the database's encoding; with None where there is no such role,
/// and outside of a transaction.
pub(crate) fn with_name<T>(role: Oid, body: impl FnOnce(Option<&[u8]>) -> T) -> T {
    if role == Oid::INVALID || !backend::in_transaction() {
        return body(None);
    }
    // SAFETY: within a transaction, the function reads the catalogs; the name is null or a C string.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() { body(None) } else { body(Some(CStr::from_ptr(name).to_bytes())) }
    }
}

/// The name of a role for a message.
pub(crate) fn display_name(role: Oid) -> Option<String> {
    with_name(role, |name| name.map(|name| String::from_utf8_lossy(name).into_owned()))
}

/// The name of the current role for the show hook of `role`; null where there is none, or outside of a
/// transaction. The name is in the current memory context.
pub(crate) fn show_current() -> *const c_char {
    let role = GetCurrentRoleId();
    if role == Oid::INVALID || !backend::in_transaction() {
        return std::ptr::null();
    }
    // SAFETY: within a transaction, the function reads the catalogs.
    guarded(|| unsafe { pg_sys::GetUserNameFromId(role, true) })
}
