//! Postgres itself: every raw call and all `unsafe` of the extension, behind safe functions.
//!
//! What makes them safe is the same everywhere: a backend is one process with one thread, which
//! runs Postgres' code and ours in turn; nothing here is reachable from another thread. Calls
//! into Postgres that can raise an error go through `pgrx`, which turns the long jump into a
//! panic that unwinds to [`function::guarded`]; the few that are declared here by hand either
//! cannot raise, or are made from frames that own nothing.

pub(crate) mod datum;
pub(crate) mod definition;
pub(crate) mod error;
pub(crate) mod function;
pub(crate) mod guc;
pub(crate) mod memory;
pub(crate) mod plan;
pub(crate) mod relation;
pub(crate) mod role;
pub(crate) mod secrets;
pub(crate) mod spi;
pub(crate) mod statement;
pub(crate) mod trigger;
pub(crate) mod worker;

use std::cell::Cell;
use std::ops::Deref;

use pgrx::pg_sys;

/// The symbols by which Postgres knows a loadable module: the magic block and `_PG_init`.
macro_rules! module_entry {
    ($on_load:path) => {
        ::pgrx::pg_module_magic!(name, version);

        #[allow(unsafe_code, non_snake_case)]
        // SAFETY: Postgres calls it once, on the backend's thread, after loading the library.
        #[unsafe(no_mangle)]
        extern "C-unwind" fn _PG_init() {
            $crate::pg::on_load($on_load);
        }
    };
}
pub(crate) use module_entry;

/// What [`module_entry`] runs.
pub(crate) fn on_load(register: impl FnOnce()) {
    error::replace_panic_hook();
    memory::fill_reserve();
    function::guarded(register);
}

/// A value that belongs to this backend.
pub(crate) struct BackendLocal<T>(T);

// SAFETY: a backend has one thread; see the module's comment.
unsafe impl<T> Sync for BackendLocal<T> {}

impl<T> BackendLocal<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for BackendLocal<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// A time as Postgres counts it: microseconds since 2000-01-01 00:00 UTC.
pub(crate) type Timestamp = i64;

/// Seconds between 1970 and 2000.
const POSTGRES_EPOCH: i64 = 946_684_800;

const MICROSECONDS: i64 = 1_000_000;

unsafe extern "C-unwind" {
    /// Reads a static variable and cannot raise, so it needs none of `pgrx`'s guard, which would
    /// cost more than all the rest of a reader.
    safe fn GetCurrentStatementStartTimestamp() -> Timestamp;
}

/// When the current statement began; in a parallel worker, when the leader's did.
#[inline(always)]
pub(crate) fn statement_start() -> Timestamp {
    GetCurrentStatementStartTimestamp()
}

/// The present moment.
pub(crate) fn now() -> Timestamp {
    // SAFETY: it reads the clock and cannot raise.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// A Postgres time as whole seconds since 1970.
pub(crate) fn to_unix(timestamp: Timestamp) -> i64 {
    timestamp.div_euclid(MICROSECONDS) + POSTGRES_EPOCH
}

/// Seconds since 1970 as a Postgres time. The caller keeps them within the years 1 to 10000.
pub(crate) fn from_unix(seconds: i64) -> Timestamp {
    (seconds - POSTGRES_EPOCH).saturating_mul(MICROSECONDS)
}

/// A number of seconds as a distance between Postgres times.
pub(crate) const fn seconds(seconds: i64) -> Timestamp {
    seconds * MICROSECONDS
}

/// Whether catalogs can be read and memory allocated for a transaction.
pub(crate) fn in_transaction() -> bool {
    // SAFETY: it reads static variables.
    unsafe { pg_sys::IsTransactionState() }
}

/// Whether a transaction block is open: a client's, or that of a message with several statements.
pub(crate) fn in_transaction_block() -> bool {
    // SAFETY: it reads static variables.
    unsafe { pg_sys::IsTransactionBlock() }
}

/// Whether this is a parallel worker that is taking over its leader's settings.
pub(crate) fn restoring_worker() -> bool {
    // SAFETY: it reads a static variable.
    unsafe { pg_sys::InitializingParallelWorker }
}

/// Whether this process is a parallel worker.
pub(crate) fn is_parallel_worker() -> bool {
    // SAFETY: it reads a static variable.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

/// Whether Postgres runs somebody's code with restrictions, such as an index function during
/// `ANALYZE`.
pub(crate) fn in_security_restricted_operation() -> bool {
    // SAFETY: it reads static variables.
    unsafe { pg_sys::InSecurityRestrictedOperation() }
}

/// Runs something that a cancelled statement or a timeout is not to interrupt. Should it raise an
/// error, Postgres lets interrupts in again by itself.
pub(crate) fn hold_interrupts<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: these are the macros HOLD_INTERRUPTS and RESUME_INTERRUPTS.
    unsafe { pg_sys::InterruptHoldoffCount += 1 };
    let result = body();
    // SAFETY: as above. An error that was caught on the way has set the count to nought.
    unsafe { pg_sys::InterruptHoldoffCount = pg_sys::InterruptHoldoffCount.saturating_sub(1) };
    result
}

/// Whether some code of Postgres' higher up the stack may still hold values that were handed out:
/// within a portal, as in a procedure that commits.
pub(crate) fn within_portal() -> bool {
    // SAFETY: it reads a static variable.
    unsafe { !pg_sys::ActivePortal.is_null() }
}

/// Whether the postmaster is loading the library, and every session will have it from its start.
pub(crate) fn is_preloading() -> bool {
    // SAFETY: it reads a static variable.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Whether a client's statement is under way, so that the library was not there before it.
pub(crate) fn within_statement() -> bool {
    // SAFETY: it reads a static variable.
    unsafe { !pg_sys::debug_query_string.is_null() }
}

type Procedure = fn();

/// Calls `install` when no library can put its hooks in front of ours any more: where the postmaster is
/// loading the library, once it has loaded all of them; else at once.
pub(crate) fn when_all_are_loaded(install: Procedure) {
    static INSTALL: BackendLocal<Cell<Option<Procedure>>> = BackendLocal::new(Cell::new(None));
    static NEXT: BackendLocal<Cell<pg_sys::shmem_startup_hook_type>> =
        BackendLocal::new(Cell::new(None));
    unsafe extern "C-unwind" fn at_shared_memory_startup() {
        if let Some(next) = NEXT.get() {
            // SAFETY: the next hook, as Postgres would call it.
            unsafe { next() };
        }
        // Once: shared memory is made anew after a crash.
        if let Some(install) = INSTALL.take() {
            function::guarded(install);
        }
    }
    if !is_preloading() {
        return install();
    }
    INSTALL.set(Some(install));
    // SAFETY: hooks are installed while the library is loaded, once, and call the one before.
    unsafe {
        NEXT.set(pg_sys::shmem_startup_hook);
        pg_sys::shmem_startup_hook = Some(at_shared_memory_startup);
    }
}

type Callback = fn(committed: bool);

static COMMIT: BackendLocal<Cell<Option<Procedure>>> = BackendLocal::new(Cell::new(None));

/// Calls `callback` whenever a top-level transaction is about to commit, while it can still fail.
pub(crate) fn on_commit(callback: Procedure) {
    unsafe extern "C-unwind" fn at_event(
        event: pg_sys::XactEvent::Type,
        _argument: *mut std::ffi::c_void,
    ) {
        if event == pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT
            && let Some(callback) = COMMIT.get()
        {
            function::guarded(callback);
        }
    }
    COMMIT.set(Some(callback));
    // SAFETY: the callback lives as long as the library, which is never unloaded.
    unsafe { pg_sys::RegisterXactCallback(Some(at_event), std::ptr::null_mut()) }
}

static TRANSACTION_END: BackendLocal<Cell<Option<Callback>>> = BackendLocal::new(Cell::new(None));

/// Calls `callback`, which must not fail, whenever a top-level transaction has ended: whether what it
/// has done is there for others now.
pub(crate) fn on_transaction_end(callback: Callback) {
    unsafe extern "C-unwind" fn at_event(
        event: pg_sys::XactEvent::Type,
        _argument: *mut std::ffi::c_void,
    ) {
        use pg_sys::XactEvent::*;
        if matches!(
            event,
            XACT_EVENT_COMMIT
                | XACT_EVENT_PARALLEL_COMMIT
                | XACT_EVENT_ABORT
                | XACT_EVENT_PARALLEL_ABORT
                | XACT_EVENT_PREPARE
        ) && let Some(callback) = TRANSACTION_END.get()
        {
            callback(event == XACT_EVENT_COMMIT);
        }
    }
    TRANSACTION_END.set(Some(callback));
    // SAFETY: the callback lives as long as the library, which is never unloaded.
    unsafe { pg_sys::RegisterXactCallback(Some(at_event), std::ptr::null_mut()) }
}
