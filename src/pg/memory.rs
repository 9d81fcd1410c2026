//! The allocator, and errors where memory runs out.
//!
//! Rust's collections abort the process where an allocation fails, and Postgres then restarts all
//! sessions. To avoid that, the allocator holds a reserve of address space. Where the system gives no
//! more memory, the allocator releases the reserve, so that the current call can finish; the call then
//! fails with SQLSTATE 53200. The memory of one call is bounded: the limits of arguments and documents,
//! times a small factor.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use pgrx::pg_sys;

use super::sqlstate::packed;

/// Runs a call. Where memory has run out in it, the call fails with SQLSTATE 53200, whatever its result is:
/// a library may have reported the lack of memory as another error. The reserve is taken again at the end
/// of each call.
pub(super) fn checked<T>(body: impl FnOnce() -> T) -> T {
    /// The state to restore at the end of the call. An error of Postgres unwinds as a panic, so that the
    /// drop runs after an error too.
    struct Call {
        failures: u32,
        context: *mut pg_sys::ErrorContextCallback,
    }
    impl Drop for Call {
        fn drop(&mut self) {
            // SAFETY: the value is the one at the start of the call. Callbacks that were pushed in the call
            // are gone, because their frames are.
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
        callback: Some(error_context_callback),
        arg: null_mut(),
    };
    // SAFETY: this frame outlives the call, and the drop of `call` removes the callback.
    unsafe { pg_sys::error_context_stack = &raw mut callback };
    let result = body();
    if FAILURES.load(Ordering::Relaxed) != call.failures {
        drop((result, call));
        raise_out_of_memory();
    }
    result
}

/// Fails the current call where memory has run out in it. A caller uses it before a step that cannot be
/// undone.
pub(crate) fn check() {
    if FAILURES.load(Ordering::Relaxed) != KNOWN_FAILURES.load(Ordering::Relaxed) {
        raise_out_of_memory();
    }
}

/// Takes the reserve, where it is not held and the system has it.
pub(crate) fn fill_reserve() {
    if !RESERVE.load(Ordering::Relaxed).is_null() {
        return;
    }
    // SAFETY: a new mapping overlaps no memory in use.
    let reserve = unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
        libc::mmap(null_mut(), RESERVE_BYTES, protection, flags, -1, 0)
    };
    if reserve != libc::MAP_FAILED {
        RESERVE.store(reserve, Ordering::Relaxed);
    }
}

/// The size of the reserve. It is never written to, so that it takes no memory, but it counts where the
/// system is configured not to overcommit. The C library asks for 1 MiB at once where its heap cannot
/// grow.
const RESERVE_BYTES: usize = 2 * 1024 * 1024;

/// The largest request that the reserve serves. A larger one fails as without the reserve;
/// [`session_jwt::is_memory_short`] makes such a request as a probe.
const LARGEST_REQUEST: usize = 3 * RESERVE_BYTES / 4;

/// The reserve; null where it is released.
static RESERVE: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// Counts the requests that failed before the reserve was released.
static FAILURES: AtomicU32 = AtomicU32::new(0);

/// The count at the start of the current call, or at the end of the last one.
static KNOWN_FAILURES: AtomicU32 = AtomicU32::new(0);

/// Returns the reserve to the system; whether it was held.
fn release_reserve() -> bool {
    let reserve = RESERVE.swap(null_mut(), Ordering::Relaxed);
    // SAFETY: it is the mapping of `fill_reserve`, and nothing refers to it after the swap.
    !reserve.is_null() && unsafe { libc::munmap(reserve, RESERVE_BYTES) } == 0
}

struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

// SAFETY: the system's allocator does all the work, and its contract is the same. A request is repeated
// only after it has failed, and so has changed nothing. Nothing unwinds.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the contract.
        let request = || unsafe { System.alloc(layout) };
        let memory = request();
        if memory.is_null() { retry(layout.size(), request) } else { memory }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the contract.
        let request = || unsafe { System.alloc_zeroed(layout) };
        let memory = request();
        if memory.is_null() { retry(layout.size(), request) } else { memory }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller upholds the contract; a failed request leaves the memory as it was.
        let request = || unsafe { System.realloc(memory, layout, size) };
        let grown = request();
        if grown.is_null() { retry(size, request) } else { grown }
    }
}

/// Repeats a request that has failed.
#[cold]
fn retry(size: usize, request: impl Fn() -> *mut u8) -> *mut u8 {
    if size > LARGEST_REQUEST {
        return null_mut();
    }
    FAILURES.fetch_add(1, Ordering::Relaxed);
    // Another thread may have released the reserve already. The request is repeated in both cases.
    release_reserve();
    request()
}

/// Postgres calls this function while it makes an error. Where the memory of Postgres has run out, it
/// releases the reserve: `pgrx` copies the error into the memory context of its caller. If that copy fails,
/// the next error is copied in the same way, until the error stack is full, which is a PANIC.
unsafe extern "C-unwind" fn error_context_callback(_argument: *mut c_void) {
    unsafe extern "C-unwind" {
        // Declared by hand, without the guard of `pgrx`: it reads the error in progress and cannot raise.
        safe fn geterrcode() -> c_int;
    }
    if geterrcode() == packed(session_jwt::Code::OutOfMemory.sqlstate()) {
        FAILURES.fetch_add(1, Ordering::Relaxed);
        release_reserve();
    }
}

/// Raises the out-of-memory error of Postgres. The caller runs within [`super::error::guarded`].
fn raise_out_of_memory() -> ! {
    let code = pgrx::PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY;
    pg_sys::panic::ErrorReport::new(code, "out of memory", "pg_session_jwt")
        .set_detail("The extension could not get memory for a call.")
        .report(pgrx::PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}
