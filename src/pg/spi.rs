//! SQL statements that the extension itself runs.

use std::ffi::{CStr, c_int};

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::{self, Oid};

use super::datum::Varlena;
use super::error;
use super::relation::OpenRelation;

/// Runs a statement that changes a table. The current user is the table's owner, and the statement is a
/// security-restricted operation, because triggers on the table may be code of other roles. In the
/// statement, `@table` stands for the table, and `$1`, `$2`, … for the texts. Returns the number of changed
/// rows; 0 where the table does not exist.
pub(crate) fn update_as_owner(table: Oid, statement: &str, arguments: &[Option<&str>]) -> usize {
    let Some((name, owner)) = qualified_name(table).zip(owner(table)) else {
        return 0;
    };
    let (mut user, mut context) = (Oid::INVALID, 0);
    // SAFETY: both calls read and write static variables. Where the statement raises an error, the abort of
    // the transaction restores them.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        let restricted = context | pg_sys::SECURITY_RESTRICTED_OPERATION as c_int;
        pg_sys::SetUserIdAndSecContext(owner, restricted);
    }
    let statement = statement.replace("@table", &name);
    // The texts come from the database itself or are ASCII, so that its encoding can represent them.
    let arguments: Vec<Option<Varlena>> = arguments
        .iter()
        .map(|argument| argument.and_then(|argument| Varlena::text(argument).ok()))
        .collect();
    let arguments: Vec<DatumWithOid<'_>> = arguments
        .iter()
        .map(|argument| {
            let datum = argument.as_ref().map(Varlena::datum);
            // SAFETY: the value is a `text`, which outlives the statement.
            unsafe { DatumWithOid::new(datum, pg_sys::TEXTOID) }
        })
        .collect();
    let outcome = pgrx::Spi::connect_mut(|client| {
        client.update(&statement, None, &arguments).map(|rows| rows.len())
    });
    // SAFETY: the values are those that the first call has returned.
    unsafe { pg_sys::SetUserIdAndSecContext(user, context) };
    outcome.unwrap_or_else(|error| {
        error::log(&format!("pg_session_jwt: {name}: {error}"));
        0
    })
}

fn owner(table: Oid) -> Option<Oid> {
    OpenRelation::open(table).map(|relation| relation.owner())
}

/// A table's name with that of its schema, quoted where SQL needs it.
fn qualified_name(table: Oid) -> Option<String> {
    // SAFETY: the calls read catalogs, and return null or a C string in the current context.
    unsafe {
        let name = pg_sys::get_rel_name(table);
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(table));
        if schema.is_null() || name.is_null() {
            return None;
        }
        let name = pg_sys::quote_qualified_identifier(schema, name);
        Some(CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}
