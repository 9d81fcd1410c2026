//! Tokens and keys in what Postgres itself writes about statements and settings: the server's log,
//! `pg_stat_activity`, `pg_stat_statements`.
//!
//! A token that is sent as a parameter stands in few places; this is for tokens that are sent as
//! literals. What looks like a token or a secret is overwritten in every line of the log, in the
//! statement that Postgres shows, and in each statement's text before other libraries see it.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int};

use pgrx::pg_sys;
use session_jwt::Quotes;

use super::BackendLocal;
use super::error::{self, packed};

/// The message of the last value that a check hook refused, until it has been logged. Postgres
/// raises it, so it cannot be told there that the statement is to stay out of the log.
static REFUSED: BackendLocal<RefCell<Option<CString>>> = BackendLocal::new(RefCell::new(None));

static NEXT_LOG_HOOK: BackendLocal<Cell<pg_sys::emit_log_hook_type>> =
    BackendLocal::new(Cell::new(None));

/// The hook of the library that was loaded last, where that is another one.
static LAST_LOG_HOOK: BackendLocal<Cell<pg_sys::emit_log_hook_type>> =
    BackendLocal::new(Cell::new(None));

/// Takes note of the message with which Postgres is going to refuse a value.
pub(super) fn expect_refusal(message: &str) {
    REFUSED.replace(CString::new(message).ok());
}

/// Puts itself between Postgres and what it writes.
pub(crate) fn guard() {
    // SAFETY: hooks are installed while the library is loaded, once, and call the one before.
    unsafe {
        NEXT_LOG_HOOK.set(pg_sys::emit_log_hook);
        pg_sys::emit_log_hook = Some(at_log);
    }
}

/// Comes before the log hooks of libraries that were loaded later.
pub(crate) fn guard_first() {
    unsafe extern "C-unwind" fn at_log_first(report: *mut pg_sys::ErrorData) {
        // SAFETY: Postgres hands over its report. The next hooks end in `at_log`, which finds nothing
        // left to overwrite and calls those of libraries that were loaded earlier.
        unsafe {
            conceal_report(report);
            if let Some(next) = LAST_LOG_HOOK.get() {
                next(report);
            }
        }
    }
    // SAFETY: all libraries are loaded, and none of them runs.
    unsafe {
        let last = pg_sys::emit_log_hook;
        if last.is_none_or(|last| last as usize != at_log as *const () as usize) {
            LAST_LOG_HOOK.set(last);
            pg_sys::emit_log_hook = Some(at_log_first);
        }
    }
}

/// Overwrites tokens and secrets in what is shown of the client's statement while it runs and
/// until the next one. Returns whether there are any.
pub(crate) fn conceal_statement() -> bool {
    // SAFETY: the statement is null, as where none is running, or a C string. Postgres copies what
    // is reported, and cannot raise over it.
    unsafe {
        let statement = pg_sys::debug_query_string;
        if statement.is_null() || !has_secrets(statement) {
            return false;
        }
        // No more than is shown: clients make statements as long as they like.
        let shown = usize::try_from(pg_sys::pgstat_track_activity_query_size).unwrap_or(0);
        let text = CStr::from_ptr(statement).to_bytes();
        let mut text = text.get(..shown).unwrap_or(text).to_vec();
        session_jwt::conceal(&mut text);
        let text = CString::new(text).unwrap_or_default();
        let query_id = pg_sys::pgstat_get_my_query_id();
        let state = pg_sys::BackendState::STATE_RUNNING;
        pg_sys::pgstat_report_activity(state, text.as_ptr());
        // That has reset it.
        pg_sys::pgstat_report_query_id(query_id, true);
        true
    }
}

/// Whether there are tokens or secrets in a text.
///
/// # Safety
/// It is a C string.
unsafe fn has_secrets(text: *const c_char) -> bool {
    // SAFETY: the caller's.
    session_jwt::has_secrets(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// Sees each report before it is written to the log, and sent to the client.
unsafe extern "C-unwind" fn at_log(report: *mut pg_sys::ErrorData) {
    // SAFETY: Postgres hands over the report that it is about to write.
    unsafe {
        conceal_report(report);
        if let Some(next) = NEXT_LOG_HOOK.get() {
            next(report);
        }
    }
}

/// Overwrites tokens and secrets in a report.
///
/// # Safety
/// It is null or Postgres', and its texts are C strings in memory of its own.
unsafe fn conceal_report(report: *mut pg_sys::ErrorData) {
    // SAFETY: the caller's.
    unsafe {
        let Some(report) = report.as_mut().filter(|report| !report.message.is_null()) else {
            return;
        };
        let is_expected = is_expected(report);
        if is_expected || is_rejection(report) {
            report.hide_stmt = true;
            report.hide_ctx = true;
        } else {
            drop_value(report);
        }
        // What a provider is given is quoted in the parameters of the statement, and in errors but
        // ours. So are the parts of a token.
        let statement = pg_sys::debug_query_string;
        // Texts of ours quote what the client has to see, such as issuers.
        let is_ours = error::is_ours(report) || is_expected;
        let of_statement = if is_ours || statement.is_null() {
            Quotes::default()
        } else {
            Quotes::of_statement(CStr::from_ptr(statement).to_bytes())
        };
        if !statement.is_null() && quotes_json(report) {
            conceal_excerpt(report, CStr::from_ptr(statement).to_bytes());
        }
        let is_dump = is_dump(report);
        for text in [
            report.message,
            report.detail,
            report.detail_log,
            report.hint,
            report.context,
            report.internalquery,
        ] {
            if !text.is_null() {
                let length = CStr::from_ptr(text).count_bytes();
                let bytes = std::slice::from_raw_parts_mut(text.cast(), length);
                if is_dump && text == report.detail {
                    session_jwt::conceal_dump(bytes);
                }
                let quotes = if is_ours {
                    of_statement
                } else {
                    of_statement.or(Quotes::of_statement(bytes))
                };
                if text == report.context {
                    session_jwt::conceal_context(bytes, quotes);
                } else {
                    session_jwt::conceal_with(bytes, quotes);
                }
            }
        }
        report.hide_stmt |= conceal_statement();
    }
}

/// The text of a statement as others may see it: a copy in the current memory context, where there is
/// anything to conceal. In a utility hook, that is the portal's, and lives as long as the statement.
///
/// # Safety
/// It is null or a C string.
pub(super) unsafe fn concealed(text: *const c_char) -> *const c_char {
    // SAFETY: the caller's. What outlives the copy has always had to copy the text.
    unsafe {
        if text.is_null() || !has_secrets(text) {
            return text;
        }
        conceal_statement();
        // In Postgres' memory, which says so where there is none left.
        let size = CStr::from_ptr(text).to_bytes_with_nul().len();
        let copy = pg_sys::MemoryContextAllocHuge(pg_sys::CurrentMemoryContext, size);
        copy.copy_from_nonoverlapping(text.cast(), size);
        session_jwt::conceal(std::slice::from_raw_parts_mut(copy.cast(), size - 1));
        copy.cast_const().cast()
    }
}

/// Conceals the text that others find in a plan that is about to start. Returns the memory context that
/// has the copy, or null: the caller hands it to the plan once that has memory of its own.
///
/// # Safety
/// The plan is Postgres'.
pub(super) unsafe fn conceal_source(query: *mut pg_sys::QueryDesc) -> pg_sys::MemoryContext {
    // SAFETY: the caller's. The text is null or a C string.
    unsafe {
        let text = (*query).sourceText;
        if text.is_null() || !has_secrets(text) {
            return std::ptr::null_mut();
        }
        // A function's statement may run many times before its own memory is freed.
        let context = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"pg_session_jwt statement".as_ptr(),
            pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
            pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
            pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
        );
        let before = pg_sys::MemoryContextSwitchTo(context);
        (*query).sourceText = concealed(text);
        pg_sys::MemoryContextSwitchTo(before);
        context
    }
}

/// Whether a report is an error about JSON, whose context begins with an excerpt of it.
///
/// # Safety
/// The report is Postgres'.
unsafe fn quotes_json(report: &pg_sys::ErrorData) -> bool {
    // SAFETY: the file's name is null or a C string.
    !report.filename.is_null()
        && unsafe { CStr::from_ptr(report.filename) }.to_bytes().starts_with(b"json")
        && !report.context.is_null()
}

/// Overwrites the excerpt where the statement speaks of providers, keys or tokens: an excerpt begins
/// anywhere, so that a key or a token in it cannot be told by its beginning.
///
/// # Safety
/// The report is Postgres', with a context.
unsafe fn conceal_excerpt(report: &mut pg_sys::ErrorData, statement: &[u8]) {
    let statement = statement.to_ascii_lowercase();
    let speaks_of = |subject: &[u8]| statement.windows(subject.len()).any(|part| part == subject);
    if ![&b"provider"[..], b"jwk", b"jwt", b"eyj"].into_iter().any(speaks_of) {
        return;
    }
    // SAFETY: the context is a C string in memory of the report's own.
    let context = unsafe {
        let length = CStr::from_ptr(report.context).count_bytes();
        std::slice::from_raw_parts_mut(report.context.cast::<u8>(), length)
    };
    // "JSON data, line 1: …", in whatever language.
    let line = context.split_mut(|byte| *byte == b'\n').next().unwrap_or_default();
    if let Some(place) = line.windows(2).position(|part| part == b": ") {
        line.iter_mut().skip(place + 2).for_each(|byte| *byte = b'*');
    }
}

/// Whether a report has the SQLSTATE of a rejection, which a parallel worker's error keeps when the leader
/// raises it anew.
fn is_rejection(report: &pg_sys::ErrorData) -> bool {
    const SUBCLASS: c_int = (1 << 18) - 1;
    report.sqlerrcode & SUBCLASS == packed("28J00") & SUBCLASS
}

/// Whether a report has the message of the value that a check hook has rejected last: it is raised by
/// Postgres, in our words.
///
/// # Safety
/// The report is Postgres', with a message.
unsafe fn is_expected(report: &pg_sys::ErrorData) -> bool {
    // SAFETY: the message is a C string.
    let message = unsafe { CStr::from_ptr(report.message) };
    REFUSED.borrow_mut().take_if(|refused| refused.as_c_str() == message).is_some()
}

/// Whether a report is a parse tree or a plan, for `debug_print_parse` and the like, which every role may
/// set: its detail shows each constant byte by byte (`elog_node_display`).
///
/// # Safety
/// The report is Postgres'.
unsafe fn is_dump(report: &pg_sys::ErrorData) -> bool {
    const TITLE: &CStr = c"%s:";
    // SAFETY: the format is a C string.
    !report.message_id.is_null() && unsafe { CStr::from_ptr(report.message_id) } == TITLE
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
        // The name is spelled as in the file.
        let is_prefix = |part: &[u8]| part.eq_ignore_ascii_case(PREFIX);
        let Some(name) = message.windows(PREFIX.len()).position(is_prefix) else {
            return;
        };
        let is_name = |byte: &&u8| byte.is_ascii_alphabetic() || b"._".contains(*byte);
        let end = name + message.iter().skip(name).take_while(is_name).count();
        let tail = if end + END.len() <= message.len() { END } else { b"\0" };
        report.message.add(end).cast::<u8>().copy_from_nonoverlapping(tail.as_ptr(), tail.len());
    }
}
