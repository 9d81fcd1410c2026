//! What happens when memory runs out: an error as from Postgres, not the end of the process.
//!
//! Rust's collections end the process where an allocation fails, upon which Postgres ends all sessions.
//! So a piece of address space is kept that nothing uses. Where the system gives no more, it is given
//! back, so that the call that is under way can come to its end; then the call fails with 53200. What one
//! call needs is bounded: the limits of arguments and documents, times a small factor.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use pgrx::pg_sys;

use super::error::packed;

struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// How much is kept. It is never written to, so that it takes no memory, but counts where the system is
/// told not to overcommit. The C library asks for 1 MiB at once where its heap cannot grow.
const RESERVE_BYTES: usize = 2 * 1024 * 1024;

/// The largest request that the reserve is for. A larger one, as [`session_jwt::is_memory_short`] makes to
/// find out how things stand, fails as ever.
const LARGEST_REQUEST: usize = 3 * RESERVE_BYTES / 4;

/// The reserve; null where it has been given back.
static RESERVE: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// How many requests have failed at first.
static FAILURES: AtomicU32 = AtomicU32::new(0);

/// How many there were when the call that is under way began, or the last one ended.
static KNOWN_FAILURES: AtomicU32 = AtomicU32::new(0);

/// Takes the reserve, where it is not there and can be had.
pub(super) fn fill_reserve() {
    if !RESERVE.load(Ordering::Relaxed).is_null() {
        return;
    }
    // SAFETY: a new mapping concerns no memory that is in use.
    let reserve = unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
        libc::mmap(null_mut(), RESERVE_BYTES, protection, flags, -1, 0)
    };
    if reserve != libc::MAP_FAILED {
        RESERVE.store(reserve, Ordering::Relaxed);
    }
}

/// Gives the reserve back to the system; whether there was one.
fn release_reserve() -> bool {
    let reserve = RESERVE.swap(null_mut(), Ordering::Relaxed);
    // SAFETY: it is the mapping that `fill_reserve` has made, which nothing refers to any more.
    !reserve.is_null() && unsafe { libc::munmap(reserve, RESERVE_BYTES) } == 0
}

/// Tries a request once more that has failed.
#[cold]
fn retry(size: usize, request: impl Fn() -> *mut u8) -> *mut u8 {
    if size > LARGEST_REQUEST {
        return null_mut();
    }
    FAILURES.fetch_add(1, Ordering::Relaxed);
    // Another thread may have given it back.
    release_reserve();
    request()
}

// SAFETY: everything is done by the system's allocator, whose contract this is; a second request is made
// only after the first has failed, and so has changed nothing. Nothing unwinds.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        let request = || unsafe { System.alloc(layout) };
        let memory = request();
        if memory.is_null() { retry(layout.size(), request) } else { memory }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        let request = || unsafe { System.alloc_zeroed(layout) };
        let memory = request();
        if memory.is_null() { retry(layout.size(), request) } else { memory }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's; memory that cannot be grown stays as it was.
        let request = || unsafe { System.realloc(memory, layout, size) };
        let grown = request();
        if grown.is_null() { retry(size, request) } else { grown }
    }
}

/// Runs a call. Where memory runs out in it, the reserve is taken anew, and the call fails with
/// Postgres' own error, whatever it came to: it may have met with the lack of memory where no one told.
pub(super) fn checked<T>(body: impl FnOnce() -> T) -> T {
    /// However the call ends: an error of Postgres' passes as a panic.
    struct Call {
        failures: u32,
        context: *mut pg_sys::ErrorContextCallback,
    }
    impl Drop for Call {
        fn drop(&mut self) {
            // SAFETY: it is what was there before; nothing was left above it.
            unsafe { pg_sys::error_context_stack = self.context };
            KNOWN_FAILURES.store(FAILURES.load(Ordering::Relaxed), Ordering::Relaxed);
            fill_reserve();
        }
    }
    // SAFETY: it reads a static variable.
    let context = unsafe { pg_sys::error_context_stack };
    let call = Call { failures: FAILURES.load(Ordering::Relaxed), context };
    KNOWN_FAILURES.store(call.failures, Ordering::Relaxed);
    let mut callback = pg_sys::ErrorContextCallback {
        previous: context,
        callback: Some(at_error),
        arg: null_mut(),
    };
    // SAFETY: this frame outlives the call, and takes the callback away at its end.
    unsafe { pg_sys::error_context_stack = &raw mut callback };
    let result = body();
    if FAILURES.load(Ordering::Relaxed) != call.failures {
        drop((result, call));
        out_of_memory();
    }
    result
}

/// Fails the call that is under way where memory has run out in it: before something that counts is done.
pub(crate) fn check() {
    if FAILURES.load(Ordering::Relaxed) != KNOWN_FAILURES.load(Ordering::Relaxed) {
        out_of_memory();
    }
}

/// Postgres calls it before it raises an error. Where Postgres' own memory has run out, the reserve is given
/// back as well: `pgrx` copies the error in the context of its caller, and where that fails, starts over
/// until the stack of errors is full, which is a PANIC.
unsafe extern "C-unwind" fn at_error(_argument: *mut c_void) {
    unsafe extern "C-unwind" {
        // By hand, without `pgrx`'s guard: it reads the error that is being made, and cannot raise.
        safe fn geterrcode() -> c_int;
    }
    if geterrcode() == packed(session_jwt::Code::OutOfMemory.sqlstate()) {
        FAILURES.fetch_add(1, Ordering::Relaxed);
        release_reserve();
    }
}

/// Raises Postgres' own error, from within [`super::function::guarded`].
fn out_of_memory() -> ! {
    let code = pgrx::PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY;
    pg_sys::panic::ErrorReport::new(code, "out of memory", "pg_session_jwt")
        .set_detail("The extension could not get memory for a call.")
        .report(pgrx::PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}
