//! Errors, warnings and log lines, with SQLSTATEs that Postgres itself does not know.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int};

use pgrx::pg_sys;
use session_jwt::{Code, Rejection};

use super::BackendLocal;
use super::function::guarded;

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

/// An SQLSTATE as Postgres stores it: six bits a character (`MAKE_SQLSTATE`).
fn packed(sqlstate: &str) -> c_int {
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
            errfinish(c"pg_session_jwt".as_ptr(), 0, std::ptr::null());
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

/// Sends the client a warning.
pub(crate) fn warn(message: &str, hint: &str) {
    Report {
        level: pg_sys::WARNING as c_int,
        sqlstate: packed("01000"),
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

/// Tells Postgres why a check hook refuses a token.
pub(crate) fn refuse_token(rejection: &Rejection) {
    refuse_value(rejection.message(), rejection.code(), rejection.detail(), rejection.hint());
}

/// Tells Postgres why a check hook is about to return false. `message` takes the place of the
/// usual one, which quotes the value.
fn refuse_value(message: &str, code: Code, detail: Option<&str>, hint: Option<&str>) {
    REFUSED.replace(CString::new(message).ok());
    // SAFETY: these are what the macros GUC_check_errmsg and its siblings set; Postgres reads
    // them when the hook returns, and their memory lasts until then.
    unsafe {
        pg_sys::GUC_check_errcode(packed(code.sqlstate()));
        pg_sys::GUC_check_errmsg_string = palloced(message);
        pg_sys::GUC_check_errdetail_string = detail.map_or(std::ptr::null_mut(), palloced);
        pg_sys::GUC_check_errhint_string = hint.map_or(std::ptr::null_mut(), palloced);
    }
}

/// The message of the last value that a check hook refused, until it has been logged. Postgres
/// raises it, so it cannot be told there that the statement is to stay out of the log.
static REFUSED: BackendLocal<RefCell<Option<CString>>> = BackendLocal::new(RefCell::new(None));

static NEXT_LOG_HOOK: BackendLocal<Cell<pg_sys::emit_log_hook_type>> =
    BackendLocal::new(Cell::new(None));

/// Keeps tokens and keys out of the server's log: the statement and the context where a value is
/// refused, for a statement may hold it as a literal; and the new value of a setting, which
/// Postgres logs when its configuration changes.
pub(crate) fn guard_log() {
    unsafe extern "C-unwind" fn at_log(report: *mut pg_sys::ErrorData) {
        // SAFETY: Postgres hands over the report that it is about to write.
        unsafe {
            if let Some(report) = report.as_mut()
                && !report.message.is_null()
            {
                if is_refusal(report) {
                    report.hide_stmt = true;
                    report.hide_ctx = true;
                } else {
                    drop_value(report);
                }
            }
            if let Some(next) = NEXT_LOG_HOOK.get() {
                next(report);
            }
        }
    }
    // SAFETY: hooks are installed while the library is loaded, once, and call the one before.
    unsafe {
        NEXT_LOG_HOOK.set(pg_sys::emit_log_hook);
        pg_sys::emit_log_hook = Some(at_log);
    }
}

/// Whether a report tells of a refusal: by its SQLSTATE, which a parallel worker's error keeps when
/// the leader raises it anew, or by the message of the value that was refused last.
///
/// # Safety
/// The report is Postgres', with a message.
unsafe fn is_refusal(report: &pg_sys::ErrorData) -> bool {
    const SUBCLASS: c_int = (1 << 18) - 1;
    if report.sqlerrcode & SUBCLASS == packed("28J00") & SUBCLASS {
        return true;
    }
    // SAFETY: the message is a C string.
    let message = unsafe { CStr::from_ptr(report.message) };
    REFUSED.borrow_mut().take_if(|refused| refused.as_c_str() == message).is_some()
}

/// Where a report is Postgres' line about the new value of one of our settings, ends it after the
/// name.
///
/// # Safety
/// The report is Postgres', with a message.
unsafe fn drop_value(report: &pg_sys::ErrorData) {
    const CHANGED: &CStr = c"parameter \"%s\" changed to \"%s\"";
    const PREFIX: &[u8] = b"pg_session_jwt.";
    const END: &[u8] = b"\" changed\0";
    // SAFETY: the format and the message are C strings; the latter is this report's own copy, and
    // what is written stays within it.
    unsafe {
        if report.message_id.is_null() || CStr::from_ptr(report.message_id) != CHANGED {
            return;
        }
        let message = CStr::from_ptr(report.message).to_bytes();
        let Some(name) = message.windows(PREFIX.len()).position(|part| part == PREFIX) else {
            return;
        };
        let is_name = |byte: &&u8| byte.is_ascii_lowercase() || b"._".contains(*byte);
        let end = name + message.iter().skip(name).take_while(is_name).count();
        let tail = if end + END.len() <= message.len() { END } else { b"\0" };
        report.message.add(end).cast::<u8>().copy_from_nonoverlapping(tail.as_ptr(), tail.len());
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
