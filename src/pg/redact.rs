//! Tokens and keys in the texts that Postgres and other libraries show or keep: the server log,
//! `pg_stat_activity`, `pg_stat_statements`.
//!
//! Postgres shows and logs the text of statements, and so the tokens that clients write as literals in
//! them. Text that looks like a token or a secret is overwritten in each log line, in the statement that
//! `pg_stat_activity` shows, and in the text of a statement before other libraries get it.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};

use pgrx::pg_sys;
use redact_statements::Quotes;

use super::backend::BackendLocal;
use super::compat::{self, CHANGED_GUC_MESSAGE, DUMP_MESSAGE, JSON_SOURCE_PREFIX};
use super::error::{self, guarded};
use super::sqlstate::is_of_subclass;

/// The last text without tokens and secrets, if it is short. Several hooks judge the text of one statement, and
/// clients run the same statements again.
struct Clean {
    length: usize,
    bytes: [u8; Self::MAX_BYTES],
}

impl Clean {
    /// A longer text is judged each time.
    const MAX_BYTES: usize = 512;

    const fn new() -> Self {
        Self { length: 0, bytes: [0; Self::MAX_BYTES] }
    }

    fn text(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn keep(&mut self, text: &[u8]) {
        if let Some(bytes) = self.bytes.get_mut(..text.len()) {
            bytes.copy_from_slice(text);
            self.length = text.len();
        }
    }
}

static LAST_CLEAN: BackendLocal<RefCell<Clean>> = BackendLocal::new(RefCell::new(Clean::new()));

/// Whether a text surely contains neither a token nor a secret. It allocates nothing and cannot fail.
fn is_clean(text: &[u8]) -> bool {
    let mut last = LAST_CLEAN.borrow_mut();
    if last.text() == text {
        return true;
    }
    let is_clean = !redact_statements::may_contain_secrets(text);
    if is_clean {
        last.keep(text);
    }
    is_clean
}

/// The last text that was not clean, and what was found in it.
struct Judged {
    text: Box<[u8]>,
    /// The redacted text; None where the text has no secrets.
    redacted: Option<Box<[u8]>>,
}

static LAST_JUDGED: BackendLocal<RefCell<Option<Judged>>> = BackendLocal::new(RefCell::new(None));

/// A longer text is judged each time. A statement that presents a token is shorter.
const MAX_KEPT_BYTES: usize = 32 << 10;

/// Whether a text contains tokens or secrets.
fn has_secrets(text: &[u8]) -> bool {
    if is_clean(text) {
        return false;
    }
    if text.len() > MAX_KEPT_BYTES {
        return redact_statements::contains_secrets(text);
    }
    let mut last = LAST_JUDGED.borrow_mut();
    let judged = match last.take().filter(|judged| *judged.text == *text) {
        Some(judged) => judged,
        None => Judged { text: text.into(), redacted: redact_statements::redacted(text) },
    };
    last.insert(judged).redacted.is_some()
}

/// Calls `body` with the redacted text, if it is known from [`has_secrets`].
fn with_redacted<T>(text: &[u8], body: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
    let last = LAST_JUDGED.borrow();
    let judged = last.as_ref().filter(|judged| *judged.text == *text)?;
    body(judged.redacted.as_deref()?)
}

/// Redacts a copy of a text with secrets, or of its beginning. `text` is the whole text.
fn redact_copy(copy: &mut [u8], text: &[u8]) {
    let is_done = with_redacted(text, |redacted| {
        copy.copy_from_slice(redacted.get(..copy.len())?);
        Some(())
    });
    if is_done.is_none() {
        // Judged as a part of the whole: its own words may not tell that it has a secret.
        redact_statements::redact_with(copy, Quotes::of_statement(text));
    }
}

/// Redacts the client's statement in `pg_stat_activity`, which shows it until the next one begins. Returns
/// whether the statement has a token or a secret.
pub(crate) fn redact_statement() -> bool {
    // SAFETY: the statement is null where none is running, or a C string.
    unsafe {
        let statement = pg_sys::debug_query_string;
        if statement.is_null() {
            return false;
        }
        let statement = CStr::from_ptr(statement).to_bytes();
        if !has_secrets(statement) {
            return false;
        }
        // Postgres shows only so many bytes of a statement, which may be of any length. A secret at their end
        // is recognized by what follows.
        let shown = usize::try_from(pg_sys::pgstat_track_activity_query_size - 1).unwrap_or(0);
        let is_redacted = with_redacted(statement, |redacted| {
            Some(is_shown(redacted.get(..shown).unwrap_or(redacted)))
        });
        if is_redacted != Some(true) {
            let judged = shown.saturating_add(MAX_KEPT_BYTES);
            let mut text = statement.get(..judged).unwrap_or(statement).to_vec();
            redact_copy(&mut text, statement);
            text.truncate(shown);
            let text = CString::new(text).unwrap_or_default();
            compat::report_running_statement(text.as_ptr());
        }
        true
    }
}

/// Whether `pg_stat_activity` shows this text as the current statement.
fn is_shown(text: &[u8]) -> bool {
    // SAFETY: the entry is null or the one of this process, which no other process writes. It has room for a C
    // string of the length that the GUC names.
    unsafe {
        let Some(entry) =
            pg_sys::MyBEEntry.as_ref().filter(|entry| !entry.st_activity_raw.is_null())
        else {
            return false;
        };
        CStr::from_ptr(entry.st_activity_raw).to_bytes() == text
    }
}

/// Does the same before the executor runs. Most statements are clean, and enter no guard.
pub(crate) fn redact_running() {
    // SAFETY: the statement is null where none is running, or a C string.
    let is_clean = unsafe {
        let statement = pg_sys::debug_query_string;
        statement.is_null() || is_clean(CStr::from_ptr(statement).to_bytes())
    };
    if !is_clean {
        guarded(redact_statement);
    }
}

/// Redacts a report before Postgres writes it to the log and sends it to the client.
///
/// # Safety
/// The pointer is null or a report of Postgres, with texts in memory of its own.
pub(crate) unsafe fn redact_report(report: *mut pg_sys::ErrorData) {
    // SAFETY: the caller passes a report, whose texts are null or C strings; the statement is null or a C
    // string.
    unsafe {
        let Some(report) = report.as_mut().filter(|report| !report.message.is_null()) else {
            return;
        };
        let is_check_error = error::take_check_error(CStr::from_ptr(report.message));
        // A parallel worker's error keeps the SQLSTATE of a rejection when the leader raises it again.
        if is_check_error || is_of_subclass(report.sqlerrcode, "28J00") {
            report.hide_stmt = true;
            report.hide_ctx = true;
        } else {
            cut_changed_value(report);
        }
        // Errors of Postgres and of other libraries quote parts of the statement, which may be parts of a
        // token or of a provider's definition. Errors of this extension quote only what the client must
        // see, such as issuers.
        let statement = pg_sys::debug_query_string;
        let is_own = error::is_own(report) || is_check_error;
        let quotes_of = |text: *const c_char| {
            if is_own || text.is_null() {
                Quotes::default()
            } else {
                Quotes::of_statement(CStr::from_ptr(text).to_bytes())
            }
        };
        let mut of_statement = quotes_of(statement);
        // A function may run the statement that sets a secret.
        of_statement.secrets |= quotes_of(report.context).secrets;
        if !statement.is_null() && has_json_context(report) {
            redact_json_context(report, CStr::from_ptr(statement).to_bytes());
        }
        if !is_own {
            spoil_audit_line(report);
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
                    redact_statements::redact_dump(bytes);
                }
                let quotes = if is_own {
                    of_statement
                } else {
                    of_statement.or(Quotes::of_statement(bytes))
                };
                if text == report.context {
                    redact_statements::redact_context(bytes, quotes);
                } else {
                    redact_statements::redact_report(bytes, quotes);
                }
            }
        }
        report.hide_stmt |= redact_statement();
    }
}

/// The text of a statement for other libraries: the text itself, or a redacted copy in the current memory
/// context. In a utility hook, that context is the one of the portal, which lives as long as the statement.
/// Most texts are clean, and are returned without a guard.
///
/// # Safety
/// The text is null or a C string.
pub(crate) unsafe fn redacted(text: *const c_char) -> *const c_char {
    // SAFETY: the caller passes null or a C string.
    unsafe {
        if text.is_null() || is_clean(CStr::from_ptr(text).to_bytes()) {
            return text;
        }
        guarded(|| redacted_copy(text).unwrap_or(text))
    }
}

/// A redacted copy of a text in the current memory context; None where the text has no secrets.
///
/// # Safety
/// The text is a C string.
unsafe fn redacted_copy(text: *const c_char) -> Option<*const c_char> {
    // SAFETY: the caller passes a C string; the copy has room for all its bytes.
    unsafe {
        let original = CStr::from_ptr(text).to_bytes();
        if !has_secrets(original) {
            return None;
        }
        redact_statement();
        let size = original.len() + 1;
        // Postgres raises an error where it has no memory left.
        let copy = pg_sys::MemoryContextAllocHuge(pg_sys::CurrentMemoryContext, size);
        copy.copy_from_nonoverlapping(text.cast(), size);
        let redacted = std::slice::from_raw_parts_mut(copy.cast(), size - 1);
        redact_copy(redacted, original);
        Some(copy.cast_const().cast())
    }
}

/// Redacts the source text of a plan that is about to start. Returns the memory context that holds the
/// copy, or null: the caller attaches it to the memory of the plan once the plan has started.
///
/// # Safety
/// The plan is a `QueryDesc` of Postgres.
pub(crate) unsafe fn redact_source(query: *mut pg_sys::QueryDesc) -> pg_sys::MemoryContext {
    // SAFETY: the caller passes a plan, whose text is null or a C string.
    unsafe {
        let text = (*query).sourceText;
        if text.is_null() || is_clean(CStr::from_ptr(text).to_bytes()) {
            return std::ptr::null_mut();
        }
        guarded(|| redact_source_of(query, text))
    }
}

/// # Safety
/// The plan is a `QueryDesc` of Postgres, and the text its source text.
unsafe fn redact_source_of(
    query: *mut pg_sys::QueryDesc,
    text: *const c_char,
) -> pg_sys::MemoryContext {
    // SAFETY: the caller passes a plan and its text.
    unsafe {
        if !has_secrets(CStr::from_ptr(text).to_bytes()) {
            return std::ptr::null_mut();
        }
        // The copy has a context of its own, which lasts as long as the plan. A statement of a function may
        // run many times before the current context is reset, and would leave as many copies in it.
        let context = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"pg_session_jwt statement".as_ptr(),
            pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
            pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
            pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
        );
        let before = pg_sys::MemoryContextSwitchTo(context);
        (*query).sourceText = redacted_copy(text).unwrap_or(text);
        pg_sys::MemoryContextSwitchTo(before);
        context
    }
}

/// The beginning of each line of the audit log.
pub(crate) const AUDIT_PREFIX: &str = "pg_session_jwt: outcome=";

/// Changes the message of another source, such as `RAISE LOG`, that begins like a line of the audit log.
///
/// # Safety
/// The report is one of Postgres, with a message.
unsafe fn spoil_audit_line(report: &mut pg_sys::ErrorData) {
    // SAFETY: the message is a C string in memory of the report.
    unsafe {
        if CStr::from_ptr(report.message).to_bytes().starts_with(AUDIT_PREFIX.as_bytes()) {
            report.message.add(AUDIT_PREFIX.len() - 1).write(b'?' as c_char);
        }
    }
}

/// Whether a report is an error about JSON with a context, which begins with an excerpt of the JSON text.
///
/// # Safety
/// The report is one of Postgres.
unsafe fn has_json_context(report: &pg_sys::ErrorData) -> bool {
    // SAFETY: the file name is null or a C string.
    !report.filename.is_null()
        && unsafe { CStr::from_ptr(report.filename) }.to_bytes().starts_with(JSON_SOURCE_PREFIX)
        && !report.context.is_null()
}

/// Overwrites the excerpt where the statement mentions providers, keys or tokens. An excerpt may begin
/// within a key or a token, which therefore does not look like one.
///
/// # Safety
/// The report is one of Postgres, with a context.
unsafe fn redact_json_context(report: &mut pg_sys::ErrorData, statement: &[u8]) {
    let statement = statement.to_ascii_lowercase();
    let mentions = |subject: &[u8]| statement.windows(subject.len()).any(|part| part == subject);
    if ![&b"provider"[..], b"jwk", b"jwt", b"eyj"].into_iter().any(mentions) {
        return;
    }
    // SAFETY: the context is a C string in memory of the report.
    let context = unsafe {
        let length = CStr::from_ptr(report.context).count_bytes();
        std::slice::from_raw_parts_mut(report.context.cast::<u8>(), length)
    };
    // The first line is "JSON data, line 1: …", in the language of the server.
    let line = context.split_mut(|byte| *byte == b'\n').next().unwrap_or_default();
    if let Some(place) = line.windows(2).position(|part| part == b": ") {
        line.iter_mut().skip(place + 2).for_each(|byte| *byte = b'*');
    }
}

/// Whether a report is a dump of a parse tree or a plan. Every role may set `debug_print_parse` and similar
/// GUCs, which write dumps. The detail of the report has each constant as a list of bytes.
///
/// # Safety
/// The report is one of Postgres.
unsafe fn is_dump(report: &pg_sys::ErrorData) -> bool {
    // SAFETY: the format is null or a C string.
    !report.message_id.is_null() && unsafe { CStr::from_ptr(report.message_id) } == DUMP_MESSAGE
}

/// Cuts the value out of the log line of a reload about a new value of a GUC of this extension.
///
/// # Safety
/// The report is one of Postgres, with a message.
unsafe fn cut_changed_value(report: &pg_sys::ErrorData) {
    const PREFIX: &[u8] = b"pg_session_jwt.";
    const END: &[u8] = b"\" changed\0";
    // SAFETY: format and message are C strings; the message is a copy of this report, and the bytes that
    // are written lie within it.
    unsafe {
        if report.message_id.is_null() || CStr::from_ptr(report.message_id) != CHANGED_GUC_MESSAGE {
            return;
        }
        let message = CStr::from_ptr(report.message).to_bytes();
        // The message spells the name as the configuration file does.
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
