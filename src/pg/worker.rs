//! Background workers that are started on demand, and locks by which sessions and workers keep out
//! of each other's way.

use std::ffi::{CStr, c_char, c_int};
use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;

use pgrx::pg_sys;

use super::function::guarded;
use super::table::Table;

/// The library and the function in it that a worker runs.
const LIBRARY: &CStr = c"pg_session_jwt";
const FUNCTION: &CStr = c"pg_session_jwt_refresh";
const NAME: &CStr = c"pg_session_jwt key refresh";

/// The exported function, which takes no argument that matters.
macro_rules! worker_entry {
    ($main:path) => {
        #[allow(unsafe_code)]
        // SAFETY: Postgres calls it once, in a process of its own.
        #[unsafe(no_mangle)]
        extern "C-unwind" fn pg_session_jwt_refresh(_argument: ::pgrx::pg_sys::Datum) {
            $crate::pg::worker::run($main);
        }
    };
}
pub(crate) use worker_entry;

/// What a worker is to do, in at most 123 bytes.
pub(crate) struct Task<'t> {
    /// One byte of the caller's.
    pub(crate) kind: u8,
    pub(crate) text: &'t str,
}

/// A worker that was started, or is about to be.
pub(crate) struct Worker(*mut pg_sys::BackgroundWorkerHandle);

/// Asks for a worker in this session's database; None where all slots are taken.
pub(crate) fn start(task: &Task<'_>) -> Option<Worker> {
    let mut handle = std::ptr::null_mut();
    register(task, &mut handle).then_some(Worker(handle))
}

/// The same where nobody waits for it; whether there was a slot. It allocates nothing of Postgres' and
/// so cannot fail otherwise, which it may not when a transaction has been committed.
pub(crate) fn start_unwatched(task: &Task<'_>) -> bool {
    register(task, std::ptr::null_mut())
}

fn register(task: &Task<'_>, handle: *mut *mut pg_sys::BackgroundWorkerHandle) -> bool {
    // SAFETY: these are static variables.
    let (database, notify) = unsafe { (pg_sys::MyDatabaseId, pg_sys::MyProcPid) };
    let mut worker = pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION)
            as c_int,
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        bgw_restart_time: pg_sys::BGW_NEVER_RESTART,
        bgw_notify_pid: notify,
        ..Default::default()
    };
    copy(LIBRARY.to_bytes(), &mut worker.bgw_library_name);
    copy(FUNCTION.to_bytes(), &mut worker.bgw_function_name);
    copy(NAME.to_bytes(), &mut worker.bgw_name);
    copy(NAME.to_bytes(), &mut worker.bgw_type);
    let mut extra = database.to_u32().to_ne_bytes().to_vec();
    extra.push(task.kind);
    extra.extend(task.text.as_bytes());
    if extra.len() >= worker.bgw_extra.len() {
        return false;
    }
    copy(&extra, &mut worker.bgw_extra);
    // SAFETY: the worker is described as Postgres asks; the handle, where one is wanted, is made in
    // the current context.
    unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut worker, handle) }
}

/// Copies bytes; what is left over is nought, as it was.
fn copy(from: &[u8], to: &mut [c_char]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from as c_char;
    }
}

impl Worker {
    /// Whether it has come to its end, or never will begin.
    pub(crate) fn has_stopped(&self) -> bool {
        let mut pid = 0;
        // SAFETY: the handle is Postgres', and lives as long as the context in which it was made.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.0, &mut pid) };
        matches!(
            status,
            pg_sys::BgwHandleStatus::BGWH_STOPPED | pg_sys::BgwHandleStatus::BGWH_POSTMASTER_DIED
        )
    }
}

/// Sleeps for that long at most; wakes when something may have happened. A cancelled statement and
/// the end of the server end it with an error.
pub(crate) fn nap(longest: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let milliseconds = longest.as_millis().max(1) as std::ffi::c_long;
    // SAFETY: the latch is this process' own.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as c_int,
            milliseconds,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}

/// Wakes this process from its nap, from whichever thread.
struct Alarm(*mut pg_sys::Latch);

// SAFETY: setting a latch is what signal handlers and other processes do; it touches nothing else.
unsafe impl Send for Alarm {}

unsafe extern "C-unwind" {
    /// By hand, for `pgrx` lets only the main thread through its guard; this one cannot raise.
    fn SetLatch(latch: *mut pg_sys::Latch);
    /// The handler of SIGTERM that has `CHECK_FOR_INTERRUPTS` end the process.
    fn die(signal: c_int);
}

impl Alarm {
    /// For this process.
    fn new() -> Self {
        // SAFETY: it reads a static variable.
        Self(unsafe { pg_sys::MyLatch })
    }

    fn ring(self) {
        // SAFETY: the latch is in shared memory, which outlives every thread.
        unsafe { SetLatch(self.0) }
    }
}

/// Whom a lock keeps out.
#[derive(Clone, Copy)]
pub(crate) enum Against {
    /// Other sessions that want a worker.
    Launchers = 1,
    /// Other workers.
    Workers = 2,
}

/// A lock on one thing in a table, which no statement can take.
pub(crate) struct Lock(pg_sys::LOCKTAG);

impl Lock {
    /// `thing` is a hash: two things may share a lock, and then wait for each other.
    pub(crate) fn new(table: Table, thing: u32, against: Against) -> Self {
        Self(pg_sys::LOCKTAG {
            // SAFETY: it reads a static variable.
            locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
            locktag_field2: table.number(),
            locktag_field3: thing,
            locktag_field4: against as u16,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            // Of its locks, a process gives back those of this method however it ends.
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        })
    }

    /// Takes it until it is given back, or the transaction ends; whether it was free.
    pub(crate) fn try_take(&self) -> bool {
        self.acquire(false)
    }

    /// The same, across transactions, until it is given back or the process ends.
    pub(crate) fn try_take_for_process(&self) -> bool {
        self.acquire(true)
    }

    fn acquire(&self, for_process: bool) -> bool {
        let mode = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
        // SAFETY: the tag is complete. Nobody waits in a queue.
        let result = unsafe { pg_sys::LockAcquire(&self.0, mode, for_process, true) };
        result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }

    pub(crate) fn give_back(&self, for_process: bool) {
        let mode = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
        // SAFETY: it is held.
        unsafe { pg_sys::LockRelease(&self.0, mode, for_process) };
    }
}

/// Whether this server only replays what another one writes.
pub(crate) fn is_standby() -> bool {
    // SAFETY: it reads shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Runs a worker's `main` with its task, connected to the database from which it was started, as
/// the superuser that no one can drop. `pg_terminate_backend` ends it at its next nap.
pub(crate) fn run(main: fn(u8, &str)) {
    guarded(|| {
        // SAFETY: Postgres has started this process as a worker, with the description that `start`
        // has made; signals are blocked until their handlers are in place.
        let (kind, text) = unsafe {
            pg_sys::pqsignal(pg_sys::SIGTERM as c_int, Some(die));
            pg_sys::BackgroundWorkerUnblockSignals();
            let extra = (*pg_sys::MyBgworkerEntry).bgw_extra.map(|byte| byte as u8);
            let [a, b, c, d, kind, text @ ..] = extra;
            let database = pg_sys::Oid::from(u32::from_ne_bytes([a, b, c, d]));
            pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::Oid::INVALID, 0);
            let text: Vec<u8> = text.into_iter().take_while(|byte| *byte != 0).collect();
            (kind, String::from_utf8_lossy(&text).into_owned())
        };
        main(kind, &text);
    });
}

/// Sets settings of a worker's, over whatever is configured.
pub(crate) fn set(settings: &[(&CStr, &str)]) {
    for (name, value) in settings {
        let value = std::ffi::CString::new(*value).unwrap_or_default();
        // SAFETY: they are C strings, which Postgres copies.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

/// Runs a transaction of a worker's.
pub(crate) fn transaction<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: the calls come in the order in which Postgres asks for them. One that fails ends the
    // process.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let result = body();
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
        result
    }
}

/// Runs something on a thread of its own, which must not call Postgres, and naps until it is done;
/// None where it has come to no end. Signals stay with this one.
pub(crate) fn aside<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let alarm = Alarm::new();
    let (sender, receiver) = mpsc::sync_channel(1);
    // SAFETY: the thread inherits the mask, under which no handler of Postgres' runs on it.
    unsafe {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        // Where there can be none, the sender is dropped, as where it panics.
        let _ = std::thread::Builder::new().spawn(move || {
            let _ = sender.send(body());
            alarm.ring();
        });
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
    }
    loop {
        match receiver.try_recv() {
            Ok(result) => return Some(result),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => nap(Duration::from_millis(100)),
        }
    }
}
