//! Triggers: how Postgres calls them, and what its catalogs say of them.

use std::ffi::{CStr, c_int};

use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use session_jwt::{Code, Rejection};

use super::function::guarded_result;
use super::node::Statement;
use super::relation::{Key, KeyValue, Oid, OpenRelation, Visible};

// Event triggers.

/// Runs an event trigger whose `body` judges the command that fires it.
///
/// # Safety
/// Postgres makes the call.
pub(crate) unsafe fn call_event_trigger(
    fcinfo: FunctionCallInfo,
    body: fn(Statement<'_>) -> Result<(), Rejection>,
) -> Datum {
    // SAFETY: the caller promises that Postgres makes the call, and the tree lasts for the call.
    guarded_result(|| body(unsafe { command(fcinfo)? }));
    Datum::null()
}

/// The command that fires an event trigger.
///
/// # Safety
/// Postgres makes the call, and `'t` does not outlive it.
unsafe fn command<'t>(fcinfo: FunctionCallInfo) -> Result<Statement<'t>, Rejection> {
    // SAFETY: the context of a call is null or a node. That of an event trigger has the parse tree of the
    // command, which is a utility statement.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData {
            return Err(Rejection::new(
                Code::Configuration,
                "function must be called as an event trigger",
            )
            .with_detail("It is for ddl_command_start; auth.protect_schema() installs it."));
        }
        Ok(Statement::new((*context.cast::<pg_sys::EventTriggerData>()).parsetree))
    }
}

/// Whether the database has an event trigger of that name, which is not disabled.
pub(crate) fn is_event_trigger_enabled(name: &CStr) -> bool {
    // SAFETY: the calls read a catalog; the row is released after it was read.
    unsafe {
        let oid = pg_sys::get_event_trigger_oid(name.as_ptr(), true);
        let cache = pg_sys::SysCacheIdentifier::EVENTTRIGGEROID as c_int;
        let row = pg_sys::SearchSysCache1(cache, Datum::from(oid));
        if row.is_null() {
            return false;
        }
        let trigger = pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_event_trigger>();
        let is_enabled = (*trigger).evtenabled as u8 != pg_sys::TRIGGER_DISABLED;
        pg_sys::ReleaseSysCache(row);
        is_enabled
    }
}

// The catalog of triggers.

/// The relation of a trigger, which the current command may have created.
pub(crate) fn relation_of_trigger(trigger: Oid) -> Option<Oid> {
    let catalog = OpenRelation::open(pg_sys::TriggerRelationId)?;
    let key = Key { place: pg_sys::Anum_pg_trigger_oid as usize, value: KeyValue::Oid(trigger) };
    let mut relation = None;
    let index = Some(Oid::from(pg_sys::TriggerOidIndexId));
    catalog.scan(index, Some(key), Visible::WithCurrentCommand, |row| {
        relation = row.oid(pg_sys::Anum_pg_trigger_tgrelid as usize);
        false
    });
    relation
}
