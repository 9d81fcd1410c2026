//! Triggers for rows.

use std::marker::PhantomData;

use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};

use super::relation::Tuple;

/// The change of a row for which Postgres calls a `BEFORE` trigger.
pub(crate) struct RowChange<'c> {
    data: *const pg_sys::TriggerData,
    lifetime: PhantomData<&'c ()>,
}

/// The row that a trigger has Postgres store.
pub(crate) struct StoredRow(pg_sys::HeapTuple);

impl RowChange<'_> {
    /// None where the call is not that of a `BEFORE` trigger for rows.
    ///
    /// # Safety
    /// Postgres makes the call, which lasts for the lifetime.
    pub(super) unsafe fn of_call(fcinfo: FunctionCallInfo) -> Option<Self> {
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

    /// The row as it is; None for INSERT.
    pub(crate) fn old(&self) -> Option<Tuple<'_>> {
        (self.operation() != pg_sys::TRIGGER_EVENT_INSERT)
            .then(|| self.tuple(self.data().tg_trigtuple))
    }

    /// The row as it will be; None for DELETE.
    pub(crate) fn new(&self) -> Option<Tuple<'_>> {
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
        StoredRow(match self.new() {
            // Not null, for which Postgres would not delete the row.
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
    pub(super) fn datum(self) -> Datum {
        Datum::from(self.0)
    }
}
