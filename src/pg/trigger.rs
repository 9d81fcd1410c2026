//! Triggers: calls of row triggers and event triggers, and look-ups in the catalogs of triggers.

use std::ffi::{CStr, c_int};
use std::marker::PhantomData;

use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use session_jwt::Rejection;

use super::error::guarded_result;
use super::node::Statement;
use super::relation::{Key, KeyValue, Oid, OpenRelation, Tuple, Visible};

// Row triggers.

/// The change of a row for which Postgres calls a `BEFORE` trigger.
pub(crate) struct RowChange<'c> {
    data: *const pg_sys::TriggerData,
    lifetime: PhantomData<&'c ()>,
}

/// The row that a trigger returns to Postgres: the row to store, or for DELETE the row to delete.
pub(crate) struct StoredRow(pg_sys::HeapTuple);

impl RowChange<'_> {
    /// The change, given the call of a trigger. None where the call is not that of a `BEFORE` trigger for
    /// rows.
    ///
    /// # Safety
    /// Postgres makes the call, which lasts for the lifetime.
    unsafe fn of_call(fcinfo: FunctionCallInfo) -> Option<Self> {
        // SAFETY: the context of a call is null or a node; the node of a trigger's call is its data.
        unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return None;
            }
            let data = context.cast::<pg_sys::TriggerData>().cast_const();
            let before_row = pg_sys::TRIGGER_EVENT_BEFORE | pg_sys::TRIGGER_EVENT_ROW;
            let timing = pg_sys::TRIGGER_EVENT_TIMINGMASK | pg_sys::TRIGGER_EVENT_ROW;
            let is_before_row = (*data).tg_event & timing == before_row;
            is_before_row.then_some(Self { data, lifetime: PhantomData })
        }
    }

    /// The relation whose row changes.
    pub(crate) fn relation(&self) -> Oid {
        // SAFETY: the data and the open relation are valid during the call.
        unsafe { (*(*self.data).tg_relation).rd_id }
    }

    /// The row before the change; None for INSERT.
    pub(crate) fn old_row(&self) -> Option<Tuple<'_>> {
        (self.operation() != pg_sys::TRIGGER_EVENT_INSERT)
            .then(|| self.tuple(self.data().tg_trigtuple))
    }

    /// The row after the change; None for DELETE.
    pub(crate) fn new_row(&self) -> Option<Tuple<'_>> {
        let data = self.data();
        match self.operation() {
            pg_sys::TRIGGER_EVENT_INSERT => Some(self.tuple(data.tg_trigtuple)),
            pg_sys::TRIGGER_EVENT_UPDATE => Some(self.tuple(data.tg_newtuple)),
            _ => None,
        }
    }

    /// Accepts the change, with null for the columns at these places. The columns must exist.
    pub(crate) fn accept(&self, nulls: &[usize]) -> StoredRow {
        let data = self.data();
        StoredRow(match self.new_row() {
            // A null pointer would make Postgres skip the deletion.
            None => data.tg_trigtuple,
            Some(new) if !nulls.is_empty() => new.with_nulls(nulls),
            Some(_) if self.operation() == pg_sys::TRIGGER_EVENT_UPDATE => data.tg_newtuple,
            Some(_) => data.tg_trigtuple,
        })
    }

    /// Invalidates the relation's cache entry: in this session with the next command, and in every
    /// session once the transaction is committed.
    pub(crate) fn invalidate_relation(&self) {
        // SAFETY: the relation is open during the call.
        unsafe { pg_sys::CacheInvalidateRelcache(self.data().tg_relation) }
    }

    /// Does the same for the cache entry of [`OpenRelation::toast_or_self`].
    pub(crate) fn signal(&self) {
        if let Some(relation) = OpenRelation::open(self.relation()) {
            // SAFETY: the TOAST table is there as long as the relation is open.
            unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation.toast_or_self()) }
        }
    }

    fn operation(&self) -> u32 {
        self.data().tg_event & pg_sys::TRIGGER_EVENT_OPMASK
    }

    fn data(&self) -> &pg_sys::TriggerData {
        // SAFETY: the data is valid during the call.
        unsafe { &*self.data }
    }

    fn tuple(&self, tuple: pg_sys::HeapTuple) -> Tuple<'_> {
        // SAFETY: the tuples of a call are of the relation's type, and valid during the call.
        unsafe { Tuple::new(tuple, (*self.data().tg_relation).rd_att) }
    }
}

impl StoredRow {
    fn datum(self) -> Datum {
        Datum::from(self.0)
    }
}

/// Runs a `BEFORE` trigger for rows. `body` gets None where the function is called in another way.
///
/// # Safety
/// Postgres makes the call.
pub(crate) unsafe fn call_row_trigger(
    fcinfo: FunctionCallInfo,
    body: fn(Option<&RowChange<'_>>) -> Result<StoredRow, Rejection>,
) -> Datum {
    guarded_result(|| {
        // SAFETY: Postgres makes the call, and the change is used during the call only.
        let change = unsafe { RowChange::of_call(fcinfo) };
        body(change.as_ref()).map(StoredRow::datum)
    })
}

// Event triggers.

/// Runs an event trigger. `body` gets the command, or None where the function is called in another way.
///
/// # Safety
/// Postgres makes the call.
pub(crate) unsafe fn call_event_trigger(
    fcinfo: FunctionCallInfo,
    body: fn(Option<Statement<'_>>) -> Result<(), Rejection>,
) -> Datum {
    // SAFETY: Postgres makes the call, and the command is used during the call only.
    guarded_result(|| body(unsafe { command(fcinfo) }));
    Datum::null()
}

/// The command that fires an event trigger; None where the call is not that of an event trigger.
///
/// # Safety
/// Postgres makes the call, which lasts for the lifetime.
unsafe fn command<'c>(fcinfo: FunctionCallInfo) -> Option<Statement<'c>> {
    // SAFETY: the context of a call is null or a node. The node of an event trigger's call has the parse
    // tree of the command, which is a utility statement.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData {
            return None;
        }
        Some(Statement::new((*context.cast::<pg_sys::EventTriggerData>()).parsetree))
    }
}

/// Whether the database has an event trigger of that name that is not disabled.
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

/// The relation that a trigger is on. The current command may have created the trigger.
pub(crate) fn relation_of_trigger(trigger: Oid) -> Option<Oid> {
    let catalog = OpenRelation::open(pg_sys::TriggerRelationId)?;
    let key = Key { place: pg_sys::Anum_pg_trigger_oid as usize, value: KeyValue::Oid(trigger) };
    let mut relation = None;
    let index = Some(Oid::from(pg_sys::TriggerOidIndexId));
    catalog.scan(index, &[key], Visible::WithCurrentCommand, |row| {
        relation = row.oid(pg_sys::Anum_pg_trigger_tgrelid as usize);
        false
    });
    relation
}
