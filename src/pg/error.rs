//! Errors, warnings and log lines, with SQLSTATEs that Postgres does not define.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::io::Write;

use pgrx::pg_sys;
use session_jwt::{Code, Rejection};

use super::backend::{self, BackendLocal};
use super::memory;
use super::sqlstate::packed;

/// Runs Rust code that Postgres calls. A panic, an error that Postgres raises in `body`, and a lack of
/// memory become an error of Postgres once the Rust frames are gone.
pub(crate) fn guarded<T>(body: impl FnOnce() -> T) -> T {
    let body = std::panic::AssertUnwindSafe(|| memory::checked(body));
    // SAFETY: Postgres calls this code on its own thread, and the frames between Postgres and this one
    // own no Rust value.
    unsafe { pg_sys::panic::pgrx_extern_c_guard(body) }
}

/// Runs Rust code that Postgres calls and that can reject: a rejection becomes an error with its own
/// SQLSTATE.
#[inline(never)]
pub(crate) fn guarded_result<T>(body: impl FnOnce() -> Result<T, Rejection>) -> T {
    match guarded(body) {
        Ok(value) => value,
        // This frame owns the rejection only, and `raise` takes it.
        Err(rejection) => raise(rejection),
    }
}

/// Raises a rejection as an error. The caller's frame, and every frame up to Postgres, must own nothing
/// that has to be dropped.
fn raise(rejection: Rejection) -> ! {
    let report = guarded(move || Report {
        level: pg_sys::elog::PgLogLevel::ERROR as c_int,
        sqlstate: packed(rejection.code().sqlstate()),
        message: palloced(rejection.message()),
        detail: rejection.detail().map_or(std::ptr::null_mut(), palloced),
        hint: rejection.hint().map_or(std::ptr::null_mut(), palloced),
    });
    report.emit();
    unreachable!("an ERROR does not return")
}

/// Sends the client a warning.
pub(crate) fn warn(message: &str, hint: &str) {
    warn_with("01000", message, hint);
}

/// Sends the client a warning with the SQLSTATE of `SET LOCAL` outside of a transaction block.
pub(crate) fn warn_of_no_block(message: &str, hint: &str) {
    warn_with("25P01", message, hint);
}

fn warn_with(sqlstate: &str, message: &str, hint: &str) {
    Report {
        level: pg_sys::WARNING as c_int,
        sqlstate: packed(sqlstate),
        message: palloced(message),
        detail: std::ptr::null_mut(),
        hint: palloced(hint),
    }
    .send();
}

/// Sends a message of level DEBUG1.
pub(crate) fn debug(message: &str) {
    Report {
        level: pg_sys::DEBUG1 as c_int,
        sqlstate: 0,
        message: palloced(message),
        detail: std::ptr::null_mut(),
        hint: std::ptr::null_mut(),
    }
    .send();
}

/// Writes a line to the server log only, without the statement.
pub(crate) fn log(message: &str) {
    Report {
        level: pg_sys::LOG_SERVER_ONLY as c_int,
        sqlstate: 0,
        message: palloced(message),
        detail: std::ptr::null_mut(),
        hint: std::ptr::null_mut(),
    }
    .send();
}

/// Gives Postgres the error of a check hook that is about to return false.
pub(crate) fn reject_value(rejection: &Rejection) {
    set_check_error(rejection.message(), rejection.code(), rejection.detail(), rejection.hint());
}

/// Gives Postgres the error of a check hook that is about to return false: the message is the one of
/// Postgres without the value, which may be a key, and the rejection becomes the detail.
pub(crate) fn reject_value_of(name: &CStr, rejection: &Rejection) {
    let message = rejection.message();
    let mut detail = String::with_capacity(message.len() + 2);
    let mut characters = message.chars();
    detail.extend(characters.next().into_iter().flat_map(char::to_uppercase));
    detail.push_str(characters.as_str());
    detail.push('.');
    if let Some(rest) = rejection.detail() {
        detail.push(' ');
        detail.push_str(rest);
    }
    set_check_error(
        &format!("invalid value for parameter \"{}\"", name.to_string_lossy()),
        rejection.code(),
        Some(&detail),
        rejection.hint(),
    );
}

fn set_check_error(message: &str, code: Code, detail: Option<&str>, hint: Option<&str>) {
    CHECK_ERROR.replace(CString::new(message).ok());
    // SAFETY: the macros GUC_check_errmsg and so on set these variables. Postgres reads them when the
    // hook returns, and ErrorContext keeps the texts until then.
    unsafe {
        pg_sys::GUC_check_errcode(packed(code.sqlstate()));
        pg_sys::GUC_check_errmsg_string = palloced(message);
        pg_sys::GUC_check_errdetail_string = detail.map_or(std::ptr::null_mut(), palloced);
        pg_sys::GUC_check_errhint_string = hint.map_or(std::ptr::null_mut(), palloced);
    }
}

/// The message of the last check hook that returned false, until the error is reported. Postgres raises
/// that error, so its report does not name this extension as the source.
static CHECK_ERROR: BackendLocal<RefCell<Option<CString>>> = BackendLocal::new(RefCell::new(None));

/// Whether a report with that message is the error of the last check hook that returned false. A call that
/// answers true forgets the message, so that the next call answers false.
pub(super) fn take_check_error(message: &CStr) -> bool {
    CHECK_ERROR.borrow_mut().take_if(|expected| expected.as_c_str() == message).is_some()
}

/// The source file that reports of this extension name.
const SOURCE: &CStr = c"pg_session_jwt";

/// Whether this extension has made a report.
///
/// # Safety
/// The report is one of Postgres.
pub(super) unsafe fn is_own(report: &pg_sys::ErrorData) -> bool {
    // SAFETY: the file name of a report is null or a C string.
    !report.filename.is_null() && unsafe { CStr::from_ptr(report.filename) } == SOURCE
}

/// Replaces the panic hook that `pgrx` installs when the library is loaded. That hook captures a
/// backtrace where the environment of the server has `RUST_BACKTRACE`, and `pgrx` writes it into the
/// DETAIL of the error, also of an error that Postgres raised. Without the hook, `pgrx` reports the same
/// message, SQLSTATE, detail and hint.
///
/// The hook writes the place of a panic to standard error. It does not write the message, which may
/// quote a token.
pub(crate) fn replace_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        // For an error of Postgres, the payload is a type of `pgrx`.
        let is_fault = payload.is::<&str>() || payload.is::<String>();
        if is_fault && let Some(place) = panic.location() {
            let (file, line) = (place.file(), place.line());
            // `eprintln!` would panic where standard error is closed.
            let _ = writeln!(std::io::stderr(), "pg_session_jwt: panic at {file}:{line}");
        }
    }));
}

/// One report for the client or the log. The texts are null or C strings in ErrorContext.
struct Report {
    level: c_int,
    sqlstate: c_int,
    message: *mut c_char,
    detail: *mut c_char,
    hint: *mut c_char,
}

impl Report {
    /// Sends a report below level ERROR. If Postgres runs out of memory, its error unwinds. Interrupts
    /// are held: Postgres handles a query cancel at the end of a message, which would leave the caller's
    /// work half done.
    fn send(self) {
        backend::hold_interrupts(|| {
            // SAFETY: `emit` calls Postgres and owns nothing. Nothing else refers to the texts.
            unsafe {
                pg_sys::ffi::pg_guard_ffi_boundary(|| self.emit());
                for text in [self.message, self.detail, self.hint] {
                    if !text.is_null() {
                        pg_sys::pfree(text.cast());
                    }
                }
            }
        });
    }

    /// Hands the report to Postgres. At level ERROR the call does not return but jumps to the handler of
    /// Postgres, so that the frames in between must own nothing.
    fn emit(&self) {
        const TEXT: &CStr = c"%s";
        // SAFETY: the texts are C strings in ErrorContext, which Postgres resets only after the report
        // is done; the order of the calls is that of `ereport`.
        unsafe {
            if !errstart(self.level, std::ptr::null()) {
                return;
            }
            errcode(self.sqlstate);
            errmsg_internal(TEXT.as_ptr(), self.message);
            if !self.detail.is_null() {
                errdetail_internal(TEXT.as_ptr(), self.detail);
            }
            if !self.hint.is_null() {
                errhint(TEXT.as_ptr(), self.hint);
            }
            errhidestmt(true);
            errhidecontext(true);
            errfinish(SOURCE.as_ptr(), 0, std::ptr::null());
        }
    }
}

/// A copy of a text in ErrorContext; a NUL character is written as an escape.
fn palloced(text: &str) -> *mut c_char {
    let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
    // SAFETY: ErrorContext exists in every process of Postgres, and the text is a C string.
    unsafe { pg_sys::MemoryContextStrdup(pg_sys::ErrorContext, text.as_ptr()) }
}

// Declared by hand: `pgrx` leaves out variadic functions, and its guard would raise an error of this
// extension anew with an SQLSTATE of Postgres.
unsafe extern "C-unwind" {
    fn errstart(elevel: c_int, domain: *const c_char) -> bool;
    fn errcode(sqlerrcode: c_int) -> c_int;
    fn errmsg_internal(format: *const c_char, ...) -> c_int;
    fn errdetail_internal(format: *const c_char, ...) -> c_int;
    fn errhint(format: *const c_char, ...) -> c_int;
    fn errhidestmt(hide: bool) -> c_int;
    fn errhidecontext(hide: bool) -> c_int;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
}
