//! Errors, warnings and log lines, with SQLSTATEs that Postgres itself does not know.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io::Write;

use pgrx::pg_sys;
use session_jwt::{Code, Rejection};

use super::function::guarded;
use super::secrets;

// Declared by hand because `pgrx` leaves out variadic functions, and because an error raised
// through its guard would be raised again with one of Postgres' own SQLSTATEs instead of ours.
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

/// Where our reports say that they come from.
const SOURCE: &CStr = c"pg_session_jwt";

/// Whether a report is one that this module has made.
///
/// # Safety
/// It is Postgres'.
pub(super) unsafe fn is_ours(report: &pg_sys::ErrorData) -> bool {
    // SAFETY: a report's file is null or a C string.
    !report.filename.is_null() && unsafe { CStr::from_ptr(report.filename) } == SOURCE
}

/// An SQLSTATE as Postgres stores it: six bits a character (`MAKE_SQLSTATE`).
pub(super) fn packed(sqlstate: &str) -> c_int {
    sqlstate.bytes().enumerate().fold(0, |sum, (place, byte)| {
        sum | (c_int::from(byte.wrapping_sub(b'0')) & 0x3f) << (6 * place)
    })
}

/// A C string in Postgres' memory that outlives the frame; NUL where the text has one.
fn palloced(text: &str) -> *mut c_char {
    let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
    // SAFETY: both are valid C strings and contexts; what is copied ends with a NUL.
    unsafe { pg_sys::MemoryContextStrdup(pg_sys::ErrorContext, text.as_ptr()) }
}

/// One message for the client or the log.
struct Report {
    level: c_int,
    sqlstate: c_int,
    message: *mut c_char,
    detail: *mut c_char,
    hint: *mut c_char,
}

impl Report {
    /// Hands a report below level ERROR to Postgres. Should it run out of memory over it, that
    /// error unwinds; a cancelled statement does not end here, in the middle of our business.
    fn send(self) {
        super::hold_interrupts(|| {
            // SAFETY: `emit` makes calls into Postgres and owns nothing. The strings are ours, in
            // memory that nobody else would free.
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

    /// Hands the report to Postgres. At level ERROR this does not return: it jumps to Postgres'
    /// handler, so that the frames in between must own nothing.
    fn emit(&self) {
        const TEXT: &CStr = c"%s";
        // SAFETY: the strings are C strings in ErrorContext, which is reset only once the report
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

/// Raises the rejection as an error. The caller's frame, and every frame up to Postgres', must
/// own nothing that needs dropping.
pub(crate) fn raise(rejection: Rejection) -> ! {
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

/// Replaces the panic hook that `pgrx` installs when the library is loaded. That hook captures a
/// backtrace where the server's environment has `RUST_BACKTRACE`, and `pgrx` writes it into the DETAIL
/// of the error, also of an error that Postgres raised. Without the hook, `pgrx` reports the same
/// message, SQLSTATE, detail and hint.
///
/// A panic's place goes to the server's standard error; its message, which may quote a token, does not.
pub(crate) fn replace_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        // `pgrx` panics with a payload of its own for an error of Postgres'.
        let is_fault = payload.is::<&str>() || payload.is::<String>();
        if is_fault && let Some(place) = panic.location() {
            let (file, line) = (place.file(), place.line());
            // Not `eprintln!`, which panics where standard error is closed.
            let _ = writeln!(std::io::stderr(), "pg_session_jwt: panic at {file}:{line}");
        }
    }));
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

/// Says something to whoever debugs: `client_min_messages = debug1`, or the log with
/// `log_min_messages`.
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

/// Writes a line to the server's log and nowhere else, without the statement.
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

/// Tells Postgres why a check hook refuses a value, in our own words.
pub(crate) fn refuse(rejection: &Rejection) {
    refuse_value(rejection.message(), rejection.code(), rejection.detail(), rejection.hint());
}

/// Tells Postgres why a check hook is about to return false. `message` takes the place of the
/// usual one, which quotes the value.
fn refuse_value(message: &str, code: Code, detail: Option<&str>, hint: Option<&str>) {
    secrets::expect_refusal(message);
    // SAFETY: these are what the macros GUC_check_errmsg and its siblings set; Postgres reads
    // them when the hook returns, and their memory lasts until then.
    unsafe {
        pg_sys::GUC_check_errcode(packed(code.sqlstate()));
        pg_sys::GUC_check_errmsg_string = palloced(message);
        pg_sys::GUC_check_errdetail_string = detail.map_or(std::ptr::null_mut(), palloced);
        pg_sys::GUC_check_errhint_string = hint.map_or(std::ptr::null_mut(), palloced);
    }
}

/// Tells Postgres why a check hook refuses a setting's value: with the words that it would use
/// itself, but for the value, which those would quote.
pub(crate) fn refuse_setting(name: &CStr, rejection: &Rejection) {
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
    refuse_value(
        &format!("invalid value for parameter \"{}\"", name.to_string_lossy()),
        rejection.code(),
        Some(&detail),
        rejection.hint(),
    );
}
