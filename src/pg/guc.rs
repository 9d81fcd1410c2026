//! Custom GUCs: their variables and definitions.

use std::cell::Cell;
use std::ffi::{CStr, OsStr, c_char, c_int};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use pgrx::pg_sys;
use session_jwt::Rejection;

use super::backend::{self, BackendLocal};
use super::error;
use super::guc_record::{TextHooks, value_of};

/// The source of a new value, as far as check hooks of this extension distinguish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Configuration files, the command line of the postmaster, and values that `ALTER SYSTEM`, `ALTER
    /// DATABASE` and `ALTER ROLE` have stored.
    Stored,
    /// The startup packet.
    Startup,
    /// `SET`, `set_config` and other changes within a session.
    Session,
    /// A value that is only validated, for `ALTER DATABASE`, `ALTER ROLE` and `CREATE FUNCTION … SET`.
    Test,
    /// A parallel worker that restores the value of its leader.
    Worker,
}

impl Source {
    fn from_raw(source: pg_sys::GucSource::Type) -> Self {
        use pg_sys::GucSource::*;
        match source {
            _ if backend::is_restoring_worker() => Source::Worker,
            PGC_S_CLIENT => Source::Startup,
            PGC_S_TEST => Source::Test,
            PGC_S_SESSION | PGC_S_INTERACTIVE | PGC_S_OVERRIDE => Source::Session,
            _ => Source::Stored,
        }
    }
}

/// Runs a check hook. `check` gets the new value, empty where it is null; `report` gets a rejection and
/// hands it to Postgres. None where `check` rejects the value.
///
/// # Safety
/// `new_value` and `source` are the arguments of a check hook.
pub(crate) unsafe fn check<T>(
    new_value: *mut *mut c_char,
    source: pg_sys::GucSource::Type,
    check: impl FnOnce(&[u8], Source) -> Result<T, Rejection>,
    report: impl FnOnce(&Rejection),
) -> Option<T> {
    error::guarded(|| {
        // SAFETY: Postgres passes a pointer to a C string, or to null.
        let value = unsafe {
            let value = new_value.read();
            if value.is_null() { b"" } else { CStr::from_ptr(value).to_bytes() }
        };
        check(value, Source::from_raw(source)).inspect_err(report).ok()
    })
}

/// The visibility of a GUC that only superusers, and roles with the privilege SET on the parameter, may
/// set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// Superusers and members of `pg_read_all_settings` see the value.
    Hidden,
    /// All roles see the value.
    Public,
}

impl Visibility {
    fn flags(self) -> c_int {
        let flags = match self {
            Visibility::Hidden => pg_sys::GUC_SUPERUSER_ONLY,
            Visibility::Public => 0,
        };
        (flags | pg_sys::GUC_NOT_IN_SAMPLE) as c_int
    }
}

/// The unit of an integer GUC.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    None = 0,
    Milliseconds = pg_sys::GUC_UNIT_MS as isize,
}

/// The variable of a GUC whose configured value a client must not be able to replace by the boot value.
pub(crate) struct Variable<T> {
    value: BackendLocal<Cell<T>>,
    loss: Loss,
}

/// The assign hook of a boolean GUC.
pub(crate) type BoolAssignHook = pg_sys::GucBoolAssignHook;

/// The assign hook of an enum GUC.
pub(crate) type EnumAssignHook = pg_sys::GucEnumAssignHook;

/// The variable of a boolean GUC.
pub(crate) type BoolVariable = Variable<bool>;

/// The variable of an enum GUC: the index of the word.
pub(crate) type EnumVariable = Variable<c_int>;

impl<T: Copy> Variable<T> {
    pub(crate) const fn new(boot_value: T) -> Self {
        Self { value: BackendLocal::new(Cell::new(boot_value)), loss: Loss::new() }
    }

    pub(crate) fn get(&self) -> T {
        self.value.get()
    }

    /// Whether the configured value was lost, see [`Loss`].
    pub(crate) fn is_lost(&self) -> bool {
        self.loss.is_lost.get()
    }

    /// Counts an assignment. The assign hook calls it.
    pub(crate) fn count_assignment(&self) {
        let count = &self.loss.assignments;
        count.set(count.get().saturating_add(1));
    }
}

impl BoolVariable {
    pub(crate) fn define(
        &'static self,
        name: &'static CStr,
        description: &'static CStr,
        visibility: Visibility,
        assign: BoolAssignHook,
    ) {
        self.loss.watch(name, || {
            // SAFETY: the variable is static; name and description are static C strings.
            unsafe {
                pg_sys::DefineCustomBoolVariable(
                    name.as_ptr(),
                    description.as_ptr(),
                    std::ptr::null(),
                    self.value.as_ptr(),
                    self.value.get(),
                    pg_sys::GucContext::PGC_SUSET,
                    visibility.flags(),
                    None,
                    assign,
                    None,
                );
            }
        });
    }
}

impl EnumVariable {
    pub(crate) fn define(
        &'static self,
        name: &'static CStr,
        description: &'static CStr,
        words: &[&'static CStr],
        visibility: Visibility,
        assign: EnumAssignHook,
    ) {
        let mut entries: Vec<_> = (0..)
            .zip(words)
            .map(|(val, word)| pg_sys::config_enum_entry {
                name: word.as_ptr(),
                val,
                hidden: false,
            })
            .collect();
        entries.push(pg_sys::config_enum_entry::default());
        // Postgres refers to the entries as long as the process lives.
        let entries: &'static [_] = entries.leak();
        self.loss.watch(name, || {
            // SAFETY: variable, name, description and entries are static; the last entry has no name.
            unsafe {
                pg_sys::DefineCustomEnumVariable(
                    name.as_ptr(),
                    description.as_ptr(),
                    std::ptr::null(),
                    self.value.as_ptr(),
                    self.value.get(),
                    entries.as_ptr(),
                    pg_sys::GucContext::PGC_SUSET,
                    visibility.flags(),
                    None,
                    assign,
                    None,
                );
            }
        });
    }
}

/// Whether a configured value was lost when the library was loaded. Where the library loads late, a client
/// that names the GUC in its startup options replaces the configured value by a placeholder of its own.
/// Postgres then rejects that value, for the client may not set it, and falls back to the boot value. A
/// later reload would bring the value of the server but not that of the database or the role, so that the
/// loss lasts as long as the session.
struct Loss {
    /// Counts the assignments by Postgres.
    assignments: BackendLocal<Cell<u32>>,
    is_lost: BackendLocal<Cell<bool>>,
}

impl Loss {
    const fn new() -> Self {
        Self {
            assignments: BackendLocal::new(Cell::new(0)),
            is_lost: BackendLocal::new(Cell::new(false)),
        }
    }

    /// Runs the definition of the GUC.
    fn watch(&self, name: &CStr, define: impl FnOnce()) {
        let was_set = value_of(name, |_| ()).is_some();
        define();
        // The first assignment is that of the boot value.
        self.is_lost.set(was_set && self.assignments.get() < 2);
    }
}

/// The variable of an integer GUC.
pub(crate) struct IntVariable(BackendLocal<Cell<c_int>>);

impl IntVariable {
    pub(crate) const fn new(boot_value: c_int) -> Self {
        Self(BackendLocal::new(Cell::new(boot_value)))
    }

    /// The value, which is never negative.
    pub(crate) fn get(&self) -> usize {
        usize::try_from(self.0.get()).unwrap_or(0)
    }

    pub(crate) fn define(
        &'static self,
        name: &'static CStr,
        description: &'static CStr,
        range: RangeInclusive<c_int>,
        visibility: Visibility,
        unit: Unit,
    ) {
        let flags = visibility.flags() | unit as c_int;
        self.define_with(name, description, range, pg_sys::GucContext::PGC_SUSET, flags);
    }

    /// Defines a GUC whose value counts when the server starts. Where it has started already, only configuration files
    /// may set it, because Postgres permits no definition of such a GUC then.
    pub(crate) fn define_for_start(
        &'static self,
        name: &'static CStr,
        description: &'static CStr,
        range: RangeInclusive<c_int>,
    ) {
        let context = match backend::is_preloading() {
            true => pg_sys::GucContext::PGC_POSTMASTER,
            false => pg_sys::GucContext::PGC_SIGHUP,
        };
        self.define_with(name, description, range, context, Visibility::Public.flags());
    }

    fn define_with(
        &'static self,
        name: &'static CStr,
        description: &'static CStr,
        range: RangeInclusive<c_int>,
        context: pg_sys::GucContext::Type,
        flags: c_int,
    ) {
        // SAFETY: the variable is static; name and description are static C strings.
        unsafe {
            pg_sys::DefineCustomIntVariable(
                name.as_ptr(),
                description.as_ptr(),
                std::ptr::null(),
                self.0.as_ptr(),
                self.0.get(),
                *range.start(),
                *range.end(),
                context,
                flags,
                None,
                None,
                None,
            );
        }
    }
}

/// The variable of a text GUC. Its boot value is null.
pub(crate) struct TextVariable {
    text: BackendLocal<Cell<*mut c_char>>,
    /// Whether the GUC had a value before the library was loaded.
    was_set: BackendLocal<Cell<bool>>,
}

impl TextVariable {
    pub(crate) const fn new() -> Self {
        Self {
            text: BackendLocal::new(Cell::new(std::ptr::null_mut())),
            was_set: BackendLocal::new(Cell::new(false)),
        }
    }

    /// Whether the GUC had a value before the library was loaded, Postgres rejected that value, and it has
    /// assigned no other one since.
    pub(crate) fn is_lost(&self) -> bool {
        self.was_set.get() && self.is_null()
    }

    /// Calls `body` with the value, empty where there is none. `body` must not change the GUC.
    pub(crate) fn with<T>(&self, body: impl FnOnce(&[u8]) -> T) -> T {
        let value = self.text.get();
        if value.is_null() {
            return body(b"");
        }
        // SAFETY: Postgres keeps a C string in the variable, and replaces it only when the GUC changes.
        body(unsafe { CStr::from_ptr(value) }.to_bytes())
    }

    /// Whether the GUC has its boot value.
    pub(crate) fn is_null(&self) -> bool {
        self.text.get().is_null()
    }

    /// The value as the path of a file.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStrExt;
        self.with(|path| (!path.is_empty()).then(|| OsStr::from_bytes(path).into()))
    }

    /// Overwrites the first character of the value; a NUL character empties it.
    pub(super) fn write_first(&self, character: u8) {
        let text = self.text.get();
        if !text.is_null() {
            // SAFETY: values of text GUCs are heap copies of at least one byte, which Postgres frees but
            // never reads beyond the NUL.
            unsafe { text.write(character as c_char) };
        }
    }

    /// Defines a GUC that only configuration files set.
    pub(crate) fn define_in_files(
        &'static self,
        name: &'static CStr,
        description: &'static CStr,
        hooks: TextHooks,
    ) {
        let flags = Visibility::Hidden.flags();
        let context = pg_sys::GucContext::PGC_SIGHUP;
        self.define_with(name, description, context, flags, hooks);
    }

    /// Defines a GUC that superusers set. Only they, and members of `pg_read_all_settings`, see it.
    pub(crate) fn define(
        &'static self,
        name: &'static CStr,
        description: &'static CStr,
        hooks: TextHooks,
    ) {
        let flags = Visibility::Hidden.flags();
        let context = pg_sys::GucContext::PGC_SUSET;
        self.define_with(name, description, context, flags, hooks);
    }

    pub(super) fn define_with(
        &'static self,
        name: &'static CStr,
        description: &'static CStr,
        context: pg_sys::GucContext::Type,
        flags: c_int,
        (check, assign, show): TextHooks,
    ) {
        self.was_set.set(value_of(name, |_| ()).is_some());
        // SAFETY: the variable is static; name and description are static C strings.
        unsafe {
            pg_sys::DefineCustomStringVariable(
                name.as_ptr(),
                description.as_ptr(),
                std::ptr::null(),
                self.text.as_ptr(),
                std::ptr::null(),
                context,
                flags,
                check,
                assign,
                show,
            );
        }
    }
}

/// Reserves a prefix: from here on, no client can create a placeholder with it.
pub(crate) fn reserve_prefix(prefix: &'static CStr) {
    // SAFETY: it is a C string.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) }
}

/// Splits a list of names as SQL writes them, separated by commas; None where the syntax is wrong.
pub(crate) fn split_names(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    // SAFETY: Postgres splits a copy of the text in place, and the list refers to C strings in it.
    unsafe {
        let copy = pg_sys::pnstrdup(text.as_ptr().cast(), text.len());
        let mut list = std::ptr::null_mut();
        if !pg_sys::SplitIdentifierString(copy, b',' as c_char, &mut list) {
            return None;
        }
        let Some(list) = list.as_ref() else {
            return Some(Vec::new());
        };
        let count = usize::try_from(list.length).unwrap_or(0);
        let names = std::slice::from_raw_parts(list.elements, count).iter();
        Some(names.map(|name| CStr::from_ptr(name.ptr_value.cast()).to_bytes().to_vec()).collect())
    }
}
