//! This process: its values, its transaction, and its clock.

use std::cell::RefCell;
use std::ffi::{CStr, c_int};
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::ops::Deref;

use pgrx::pg_sys;

/// A static value of this process. Only the thread on which Postgres runs may use it.
pub(crate) struct BackendLocal<T>(T);

// SAFETY: a backend is one process, and Postgres runs the extension's code on one thread. The only other
// thread is the one of `worker::run_on_thread`, whose contract forbids it to use a value of this type.
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

/// Hashes bytes with a key that is random in each backend. Nobody can make two texts with the same hash
/// without the key.
pub(crate) fn keyed_hash(bytes: &[u8]) -> u64 {
    static HASHER: BackendLocal<RefCell<Option<RandomState>>> =
        BackendLocal::new(RefCell::new(None));
    HASHER.borrow_mut().get_or_insert_default().hash_one(bytes)
}

/// Runs a closure at the end of a block, also where an error unwinds.
pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A time as Postgres counts it: microseconds since 2000-01-01 00:00 UTC.
pub(crate) type Timestamp = i64;

/// Seconds between 1970 and 2000.
const POSTGRES_EPOCH: i64 = 946_684_800;

const MICROSECONDS: i64 = 1_000_000;

unsafe extern "C-unwind" {
    // Declared by hand, without the guard of `pgrx`: these functions read the clock or static variables
    // and cannot raise an error. A reader calls the first one for each row, and the guard would cost more
    // than the rest of the reader.
    safe fn GetCurrentStatementStartTimestamp() -> Timestamp;
    safe fn GetCurrentTransactionStartTimestamp() -> Timestamp;
    safe fn GetCurrentTimestamp() -> Timestamp;
    safe fn GetCurrentTransactionNestLevel() -> c_int;
    safe fn IsTransactionState() -> bool;
    safe fn IsTransactionBlock() -> bool;
    safe fn InSecurityRestrictedOperation() -> bool;
}

/// The start time of the current statement; in a parallel worker, that of the leader's statement.
#[inline(always)]
pub(crate) fn statement_start() -> Timestamp {
    GetCurrentStatementStartTimestamp()
}

/// The start of the transaction.
pub(crate) fn transaction_start() -> Timestamp {
    GetCurrentTransactionStartTimestamp()
}

/// The snapshot of the statement that a parallel worker runs; null in another process, and where a transaction has
/// one snapshot for all statements.
pub(super) fn worker_snapshot() -> pg_sys::Snapshot {
    // SAFETY: the variables are static. A worker that runs a statement has an active snapshot.
    unsafe {
        let has_one = pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as std::ffi::c_int;
        match is_parallel_worker() && !has_one && pg_sys::ActiveSnapshotSet() {
            true => pg_sys::GetActiveSnapshot(),
            false => std::ptr::null_mut(),
        }
    }
}

/// The current time.
pub(crate) fn now() -> Timestamp {
    GetCurrentTimestamp()
}

/// A time as an input of `timestamptz`, in the ISO format.
pub(crate) fn format_time(time: Timestamp) -> String {
    // SAFETY: the result is a C string in a static buffer, which is copied at once.
    let text = unsafe { CStr::from_ptr(pg_sys::timestamptz_to_str(time)) };
    text.to_string_lossy().into_owned()
}

/// A Postgres time as whole seconds since 1970.
pub(crate) fn to_unix(timestamp: Timestamp) -> i64 {
    timestamp.div_euclid(MICROSECONDS) + POSTGRES_EPOCH
}

/// A Postgres time as microseconds since 1970.
#[inline(always)]
pub(crate) fn to_unix_microseconds(timestamp: Timestamp) -> i64 {
    timestamp.saturating_add(POSTGRES_EPOCH * MICROSECONDS)
}

/// Seconds since 1970 as a Postgres time. The caller keeps them within the years 1 to 10000.
pub(crate) fn from_unix(seconds: i64) -> Timestamp {
    (seconds - POSTGRES_EPOCH).saturating_mul(MICROSECONDS)
}

/// A number of seconds as a difference between Postgres times.
pub(crate) const fn seconds(seconds: i64) -> Timestamp {
    seconds * MICROSECONDS
}

/// The process id.
pub(crate) fn pid() -> i32 {
    // SAFETY: it reads a static variable.
    unsafe { pg_sys::MyProcPid }
}

/// The database of this process; invalid where it has none.
pub(crate) fn database() -> pg_sys::Oid {
    // SAFETY: it reads a static variable.
    unsafe { pg_sys::MyDatabaseId }
}

/// The highest number of processes with a database at a time.
pub(crate) fn most_backends() -> usize {
    // SAFETY: it reads a static variable, which the postmaster sets before `shmem_request_hook`.
    usize::try_from(unsafe { pg_sys::MaxBackends }).unwrap_or(0)
}

/// The address and the port of the client, or `local` for a Unix socket; None where the process has no client.
pub(crate) fn client_address() -> Option<String> {
    // SAFETY: the entry is null or the one of this process, which no other process writes. The address has the
    // type that its family tells, and is as large as any.
    unsafe {
        let address = &raw const pg_sys::MyBEEntry.as_ref()?.st_clientaddr.addr;
        match c_int::from(address.cast::<libc::sockaddr>().read().sa_family) {
            libc::AF_UNIX => Some("local".to_owned()),
            libc::AF_INET => {
                let address = address.cast::<libc::sockaddr_in>().read();
                let host = Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr));
                Some(SocketAddrV4::new(host, u16::from_be(address.sin_port)).to_string())
            }
            libc::AF_INET6 => {
                let address = address.cast::<libc::sockaddr_in6>().read();
                let host = Ipv6Addr::from(address.sin6_addr.s6_addr);
                Some(SocketAddrV6::new(host, u16::from_be(address.sin6_port), 0, 0).to_string())
            }
            _ => None,
        }
    }
}

/// Whether a transaction is in progress, so that catalogs can be read.
pub(crate) fn in_transaction() -> bool {
    IsTransactionState()
}

/// Whether a transaction block is open: one of `BEGIN`, or the implicit one of a message with several
/// statements.
pub(crate) fn in_transaction_block() -> bool {
    IsTransactionBlock()
}

/// The nesting level of the current subtransaction; 1 for the top-level transaction.
pub(crate) fn nest_level() -> c_int {
    GetCurrentTransactionNestLevel()
}

/// Whether this process is a parallel worker that restores the state of its leader, GUCs included.
pub(crate) fn is_restoring_worker() -> bool {
    // SAFETY: it reads a static variable.
    unsafe { pg_sys::InitializingParallelWorker }
}

/// Whether this process is a parallel worker.
pub(crate) fn is_parallel_worker() -> bool {
    // SAFETY: it reads a static variable.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

/// Whether Postgres runs code of a user in a security-restricted operation, such as an index function
/// during `ANALYZE`.
pub(crate) fn in_security_restricted_operation() -> bool {
    InSecurityRestrictedOperation()
}

/// Runs `body` with interrupts held: a query cancel or a timeout takes effect after `body`. If `body`
/// raises an error, Postgres sets the count of holds to zero while it handles the error.
pub(crate) fn hold_interrupts<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: this is the macro HOLD_INTERRUPTS.
    unsafe { pg_sys::InterruptHoldoffCount += 1 };
    let result = body();
    // SAFETY: this is the macro RESUME_INTERRUPTS, except that an error which `body` has caught may have
    // set the count to zero.
    unsafe { pg_sys::InterruptHoldoffCount = pg_sys::InterruptHoldoffCount.saturating_sub(1) };
    result
}

/// Whether a portal is active. Its executor may still hold values that a reader returned, also after a
/// procedure in it has committed.
pub(crate) fn within_portal() -> bool {
    // SAFETY: it reads a static variable.
    unsafe { !pg_sys::ActivePortal.is_null() }
}

/// Whether this process is a child of the postmaster.
pub(crate) fn is_child() -> bool {
    // SAFETY: it reads a static variable.
    unsafe { pg_sys::IsUnderPostmaster }
}

/// Whether the postmaster is loading the library, so that every session has it from its start.
pub(crate) fn is_preloading() -> bool {
    // SAFETY: it reads a static variable.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Whether a client's statement is being executed.
pub(crate) fn within_statement() -> bool {
    // SAFETY: it reads a static variable.
    unsafe { !pg_sys::debug_query_string.is_null() }
}
