//! Background workers that sessions start, and locks that sessions and workers take.

use std::ffi::{CStr, c_char, c_int};
use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;

use pgrx::pg_sys;

use super::compat;
use super::error::guarded;

/// The library and the function in it that a worker runs.
const LIBRARY: &CStr = c"pg_session_jwt";
const FUNCTION: &CStr = c"pg_session_jwt_refresh";
const NAME: &CStr = c"pg_session_jwt key refresh";

/// The task of a worker. `kind` and `text` have 123 bytes at most; a longer task cannot be registered.
pub(crate) struct Task<'t> {
    /// A number that the caller defines.
    pub(crate) kind: u8,
    pub(crate) text: &'t str,
}

/// A worker that was registered.
pub(crate) struct Worker(*mut pg_sys::BackgroundWorkerHandle);

/// Registers a worker for this session's database. None where all of `max_worker_processes` are in use.
pub(crate) fn start(task: &Task<'_>) -> Option<Worker> {
    let mut handle = std::ptr::null_mut();
    register(task, &mut handle).then_some(Worker(handle))
}

/// Registers a worker for which the session does not wait. Returns false where all of
/// `max_worker_processes` are in use. It allocates no memory of Postgres, so that it raises no error after
/// a commit.
pub(crate) fn start_detached(task: &Task<'_>) -> bool {
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
    // SAFETY: the struct is filled in, and its texts end with a NUL; Postgres allocates the handle, if
    // the pointer to it is not null, in the current context.
    unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut worker, handle) }
}

/// Copies bytes. The rest stays zero.
fn copy(from: &[u8], to: &mut [c_char]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from as c_char;
    }
}

impl Worker {
    /// Whether it has ended, or will never start.
    pub(crate) fn has_stopped(&self) -> bool {
        let mut pid = 0;
        // SAFETY: Postgres has made the handle, in a context that lives longer than the call.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.0, &mut pid) };
        matches!(
            status,
            pg_sys::BgwHandleStatus::BGWH_STOPPED | pg_sys::BgwHandleStatus::BGWH_POSTMASTER_DIED
        )
    }
}

/// Sleeps until the latch of this process is set, but not longer than `longest`. A query cancel raises an
/// error, and so does the termination of the process.
pub(crate) fn sleep(longest: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let milliseconds = longest.as_millis().max(1) as std::ffi::c_long;
    // SAFETY: the latch belongs to this process.
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

/// Ends [`sleep`] in this process, from any thread.
struct Waker(*mut pg_sys::Latch);

// SAFETY: a latch is made to be set by signal handlers and other processes; setting it touches nothing
// else.
unsafe impl Send for Waker {}

unsafe extern "C-unwind" {
    /// Declared by hand, because the guard of `pgrx` lets only the main thread pass. It raises no error.
    fn SetLatch(latch: *mut pg_sys::Latch);
}

impl Waker {
    fn of_this_process() -> Self {
        // SAFETY: it reads a static variable.
        Self(unsafe { pg_sys::MyLatch })
    }

    fn wake(self) {
        // SAFETY: the latch is in shared memory, which outlives every thread of the process.
        unsafe { SetLatch(self.0) }
    }
}

/// A lock on a part of an object in this database. No SQL statement takes such a lock.
pub(crate) struct Lock(pg_sys::LOCKTAG);

impl Lock {
    /// A lock, given numbers of the object and of its part. `kind` tells several locks on one part apart.
    pub(crate) fn new(object: u32, part: u32, kind: u16) -> Self {
        Self(pg_sys::LOCKTAG {
            // SAFETY: the call reads a static variable.
            locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
            locktag_field2: object,
            locktag_field3: part,
            locktag_field4: kind,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            // The method of advisory locks: Postgres releases them however a process ends.
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        })
    }

    /// Takes the lock until it is released or the transaction ends. Returns whether it was free.
    pub(crate) fn try_acquire(&self) -> bool {
        self.acquire(false)
    }

    /// Takes the lock until it is released or the process ends. Returns whether it was free.
    pub(crate) fn try_acquire_for_process(&self) -> bool {
        self.acquire(true)
    }

    /// Releases a lock of [`Lock::try_acquire`].
    pub(crate) fn release(&self) {
        self.give_up(false);
    }

    /// Releases a lock of [`Lock::try_acquire_for_process`].
    pub(crate) fn release_for_process(&self) {
        self.give_up(true);
    }

    fn acquire(&self, for_process: bool) -> bool {
        let mode = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
        // SAFETY: the tag is filled in. The call does not wait.
        let result = unsafe { pg_sys::LockAcquire(&self.0, mode, for_process, true) };
        result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }

    fn give_up(&self, for_process: bool) {
        let mode = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
        // SAFETY: the tag is filled in. Postgres warns where the lock is not held.
        unsafe { pg_sys::LockRelease(&self.0, mode, for_process) };
    }
}

/// Whether this server is a standby, or recovers.
pub(crate) fn is_standby() -> bool {
    // SAFETY: the call reads shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Runs `main` with the task of this worker, connected to the database of the session that started it,
/// as the bootstrap superuser. `pg_terminate_backend` ends the worker the next time it sleeps.
pub(crate) fn run(main: fn(u8, &str)) {
    guarded(|| {
        // SAFETY: Postgres has started this process as a worker, so that `MyBgworkerEntry` is what
        // `register` has filled in. Signals stay blocked until the handler is set.
        let (kind, text) = unsafe {
            compat::handle_sigterm();
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

/// Sets GUCs in this worker, with precedence over the configuration.
pub(crate) fn override_settings(settings: &[(&CStr, &str)]) {
    for (name, value) in settings {
        let value = std::ffi::CString::new(*value).unwrap_or_default();
        // SAFETY: both are C strings, which Postgres copies.
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

/// Runs a transaction in this worker.
pub(crate) fn transaction<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: this is the order of calls that the workers of Postgres have. An error in one of them ends
    // the process.
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

/// Runs `body` on a thread of its own, and sleeps until it has ended. `body` must not call Postgres, and
/// must not use a [`super::backend::BackendLocal`]. None where `body` panics, or no thread can be created.
/// Signals are delivered to the calling thread.
pub(crate) fn run_on_thread<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let waker = Waker::of_this_process();
    let (sender, receiver) = mpsc::sync_channel(1);
    // SAFETY: the thread inherits the mask, which blocks all signals, so that no signal handler of
    // Postgres' runs on it. The calls take masks on the stack.
    unsafe {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        // The sender is dropped where the thread cannot be created, and where it panics.
        let _ = std::thread::Builder::new().spawn(move || {
            let _ = sender.send(body());
            waker.wake();
        });
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
    }
    loop {
        match receiver.try_recv() {
            Ok(result) => return Some(result),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => sleep(Duration::from_millis(100)),
        }
    }
}
