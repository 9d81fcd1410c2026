//! The object access hook.

use std::cell::Cell;
use std::ffi::{c_int, c_void};

use pgrx::pg_sys::{self, Oid};

use super::BackendLocal;
use super::function::guarded_result;
use crate::permissions::attachment;

static NEXT_ACCESS_HOOK: BackendLocal<Cell<pg_sys::object_access_hook_type>> =
    BackendLocal::new(Cell::new(None));

/// Installs the object access hook.
pub(crate) fn watch() {
    // SAFETY: the hook is installed once, while the library is loaded, and calls the next one.
    unsafe {
        NEXT_ACCESS_HOOK.set(pg_sys::object_access_hook);
        pg_sys::object_access_hook = Some(object_access_hook);
    }
}

/// Runs after a command has created an object.
unsafe extern "C-unwind" fn object_access_hook(
    access: pg_sys::ObjectAccessType::Type,
    class: Oid,
    object: Oid,
    part: c_int,
    argument: *mut c_void,
) {
    let is_created = access == pg_sys::ObjectAccessType::OAT_POST_CREATE;
    if is_created && class == pg_sys::TriggerRelationId {
        guarded_result(|| attachment::check_trigger(object));
    }
    if let Some(next) = NEXT_ACCESS_HOOK.get() {
        // SAFETY: the arguments are Postgres' own. This frame owns nothing, for errors pass through it.
        unsafe { next(access, class, object, part, argument) };
    }
}
