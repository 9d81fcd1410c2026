//! Relations by name: what a relation is called now, and when that may have changed.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};

use pgrx::pg_sys::{self, Datum};

use super::BackendLocal;
use super::datum::from_server_encoding;

pub(crate) use pgrx::pg_sys::Oid;

/// Rises whenever a relation or a schema may have got another name, in whatever session.
static NAMES: BackendLocal<Cell<u64>> = BackendLocal::new(Cell::new(0));

/// Has [`names`] told of changes.
pub(crate) fn watch_names() {
    unsafe extern "C-unwind" fn at_relation(_argument: Datum, _relation: Oid) {
        NAMES.set(NAMES.get() + 1);
    }
    unsafe extern "C-unwind" fn at_schema(_argument: Datum, _cache: c_int, _hash: u32) {
        NAMES.set(NAMES.get() + 1);
    }
    // SAFETY: the callbacks live as long as the library, which is never unloaded.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(at_relation), Datum::null());
        let schemas = pg_sys::SysCacheIdentifier::NAMESPACEOID as c_int;
        pg_sys::CacheRegisterSyscacheCallback(schemas, Some(at_schema), Datum::null());
    }
}

/// A number that stays the same for as long as what [`Name::of`] has said holds. To be read before.
#[inline(always)]
pub(crate) fn names() -> u64 {
    NAMES.get()
}

/// What a relation is called, in UTF-8.
pub(crate) enum Name {
    Known {
        schema: String,
        name: String,
    },
    /// It has no equal in UTF-8, so that no token can name it.
    Unrepresentable,
}

impl Name {
    /// None where there is no such relation, or none any more.
    pub(crate) fn of(relation: Oid) -> Option<Self> {
        // SAFETY: they read catalogs, and give null or a C string of the current context.
        let (schema, name) = unsafe {
            let name = palloced(pg_sys::get_rel_name(relation))?;
            (pg_sys::get_rel_namespace(relation), name)
        };
        Some(Self::within(schema, &name))
    }

    /// What a relation of that name in a schema is called.
    pub(super) fn within(schema: Oid, name: &[u8]) -> Self {
        // SAFETY: it reads a catalog, and gives null or a C string of the current context.
        let schema = unsafe { palloced(pg_sys::get_namespace_name(schema)) };
        let schema = schema.and_then(|schema| from_server_encoding(&schema));
        schema
            .zip(from_server_encoding(name))
            .map_or(Self::Unrepresentable, |(schema, name)| Self::Known { schema, name })
    }
}

/// A copy of a C string, which is freed.
///
/// # Safety
/// It is null or a C string that `palloc` has given, and nobody else's.
unsafe fn palloced(text: *mut c_char) -> Option<Vec<u8>> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's.
    unsafe {
        let copy = CStr::from_ptr(text).to_bytes().to_vec();
        pg_sys::pfree(text.cast());
        Some(copy)
    }
}

/// Whether the current role is a superuser.
pub(crate) fn is_superuser() -> bool {
    // SAFETY: it reads a catalog.
    unsafe { pg_sys::superuser() }
}
