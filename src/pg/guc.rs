//! Custom settings (GUCs): their variables, their hooks, and the memory that hooks leave behind.

use std::cell::Cell;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use pgrx::pg_sys;
use session_jwt::{Code, Rejection};

use super::{BackendLocal, error, function, plan, role};

/// Where a new value comes from, as far as our hooks care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Configuration files, the postmaster's command line, and what `ALTER SYSTEM`, `ALTER
    /// DATABASE` and `ALTER ROLE` have stored.
    Stored,
    /// The startup packet.
    Startup,
    /// `SET`, `set_config` and the like, within a session.
    Session,
    /// Only to be validated, for `ALTER DATABASE`, `ALTER ROLE` and `CREATE FUNCTION … SET`.
    Test,
    /// A parallel worker takes over what its leader has.
    Worker,
}

impl Source {
    fn from_raw(source: pg_sys::GucSource::Type) -> Self {
        use pg_sys::GucSource::*;
        match source {
            _ if super::restoring_worker() => Source::Worker,
            PGC_S_CLIENT => Source::Startup,
            PGC_S_TEST => Source::Test,
            PGC_S_SESSION | PGC_S_INTERACTIVE | PGC_S_OVERRIDE => Source::Session,
            _ => Source::Stored,
        }
    }
}

/// Who may set a setting, and who may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// A superuser, or a role that was granted `SET ON PARAMETER`; only superusers and members of
    /// `pg_read_all_settings` see the value.
    SuperuserHidden,
    /// The same, and everybody sees the value.
    Superuser,
}

impl Privilege {
    fn flags(self) -> c_int {
        let flags = match self {
            Privilege::SuperuserHidden => pg_sys::GUC_SUPERUSER_ONLY,
            Privilege::Superuser => 0,
        };
        (flags | pg_sys::GUC_NOT_IN_SAMPLE) as c_int
    }
}

/// What an integer counts.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    None = 0,
    Milliseconds = pg_sys::GUC_UNIT_MS as isize,
}

/// The memory of a setting whose configured value a client must not get rid of.
pub(crate) struct Variable<T> {
    value: BackendLocal<Cell<T>>,
    loss: Loss,
}

/// The memory of a boolean setting.
pub(crate) type BoolVariable = Variable<bool>;

/// The memory of a setting that is one of several words: the place of the word among them.
pub(crate) type EnumVariable = Variable<c_int>;

/// Whether a value was there before the library was loaded, and was not taken over: by naming the
/// setting in its startup options, a client can put its own in place of the configured one, and
/// Postgres then takes neither. What is lost stays lost: a reload would bring what the server has,
/// not what the database or the role has.
struct Loss {
    /// How often Postgres has assigned a value.
    assigned: BackendLocal<Cell<u32>>,
    lost: BackendLocal<Cell<bool>>,
}

impl Loss {
    const fn new() -> Self {
        Self {
            assigned: BackendLocal::new(Cell::new(0)),
            lost: BackendLocal::new(Cell::new(false)),
        }
    }

    /// What the setting's assign hook does.
    fn assign(&self) {
        self.assigned.set(self.assigned.get().saturating_add(1));
    }

    /// Runs the setting's definition.
    fn watch(&self, name: &CStr, define: impl FnOnce()) {
        let was_set = foreign(name, |_| ()).is_some();
        define();
        // The first value that is assigned is the built-in default.
        self.lost.set(was_set && self.assigned.get() < 2);
    }
}

/// The memory of an integer setting.
pub(crate) struct IntVariable(BackendLocal<Cell<c_int>>);

/// The memory of a text setting.
pub(crate) struct TextVariable {
    text: BackendLocal<Cell<*mut c_char>>,
    /// Whether there was a value before the library was loaded.
    was_set: BackendLocal<Cell<bool>>,
}

impl<T: Copy> Variable<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { value: BackendLocal::new(Cell::new(value)), loss: Loss::new() }
    }

    pub(crate) fn get(&self) -> T {
        self.value.get()
    }

    /// Whether the configured value was lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.loss.lost.get()
    }

    /// What the assign hook does.
    pub(crate) fn assign(&self) {
        self.loss.assign();
    }
}

impl BoolVariable {
    pub(crate) fn define(
        &'static self,
        name: &'static CStr,
        description: &'static CStr,
        privilege: Privilege,
        assign: pg_sys::GucBoolAssignHook,
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
                    privilege.flags(),
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
        privilege: Privilege,
        assign: pg_sys::GucEnumAssignHook,
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
        // Postgres reads it for as long as the process lives.
        let entries: &'static [_] = entries.leak();
        self.loss.watch(name, || {
            // SAFETY: as for a boolean; the entries are static, and end with one without a name.
            unsafe {
                pg_sys::DefineCustomEnumVariable(
                    name.as_ptr(),
                    description.as_ptr(),
                    std::ptr::null(),
                    self.value.as_ptr(),
                    self.value.get(),
                    entries.as_ptr(),
                    pg_sys::GucContext::PGC_SUSET,
                    privilege.flags(),
                    None,
                    assign,
                    None,
                );
            }
        });
    }
}

impl IntVariable {
    pub(crate) const fn new(value: c_int) -> Self {
        Self(BackendLocal::new(Cell::new(value)))
    }

    /// The value; settings of this kind are never below nought.
    pub(crate) fn get(&self) -> usize {
        usize::try_from(self.0.get()).unwrap_or(0)
    }

    pub(crate) fn define(
        &'static self,
        name: &'static CStr,
        description: &'static CStr,
        range: RangeInclusive<c_int>,
        privilege: Privilege,
        unit: Unit,
    ) {
        // SAFETY: as for a boolean.
        unsafe {
            pg_sys::DefineCustomIntVariable(
                name.as_ptr(),
                description.as_ptr(),
                std::ptr::null(),
                self.0.as_ptr(),
                self.0.get(),
                *range.start(),
                *range.end(),
                pg_sys::GucContext::PGC_SUSET,
                privilege.flags() | unit as c_int,
                None,
                None,
                None,
            );
        }
    }
}

/// The hooks of a text setting that decides whom to trust.
pub(crate) type DocumentHooks = (pg_sys::GucStringCheckHook, pg_sys::GucStringAssignHook);

impl TextVariable {
    pub(crate) const fn new() -> Self {
        Self {
            text: BackendLocal::new(Cell::new(std::ptr::null_mut())),
            was_set: BackendLocal::new(Cell::new(false)),
        }
    }

    /// Whether a value that was there before the library was loaded was not taken over, and no other
    /// has come since.
    pub(crate) fn is_lost(&self) -> bool {
        self.was_set.get() && self.is_null()
    }

    /// Lends the value; empty where there is none. `body` must not change the setting.
    pub(crate) fn with<T>(&self, body: impl FnOnce(&[u8]) -> T) -> T {
        let value = self.text.get();
        if value.is_null() {
            return body(b"");
        }
        // SAFETY: Postgres keeps a C string there, and changes it only when the setting changes.
        body(unsafe { CStr::from_ptr(value) }.to_bytes())
    }

    /// Whether the setting has its built-in default.
    pub(crate) fn is_null(&self) -> bool {
        self.text.get().is_null()
    }

    /// The value as the path of a file.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStrExt;
        self.with(|path| (!path.is_empty()).then(|| OsStr::from_bytes(path).into()))
    }

    /// Defines a setting for configuration files alone.
    pub(crate) fn define_in_files(
        &'static self,
        name: &'static CStr,
        description: &'static CStr,
        check: pg_sys::GucStringCheckHook,
    ) {
        self.define(name, description, pg_sys::GucContext::PGC_SIGHUP, (check, None));
    }

    pub(crate) fn define_document(
        &'static self,
        name: &'static CStr,
        description: &'static CStr,
        hooks: DocumentHooks,
    ) {
        self.define(name, description, pg_sys::GucContext::PGC_SUSET, hooks);
    }

    fn define(
        &'static self,
        name: &'static CStr,
        description: &'static CStr,
        context: pg_sys::GucContext::Type,
        (check, assign): DocumentHooks,
    ) {
        let privilege = Privilege::SuperuserHidden;
        self.was_set.set(foreign(name, |_| ()).is_some());
        // SAFETY: as for a boolean.
        unsafe {
            pg_sys::DefineCustomStringVariable(
                name.as_ptr(),
                description.as_ptr(),
                std::ptr::null(),
                self.text.as_ptr(),
                std::ptr::null(),
                context,
                privilege.flags(),
                check,
                assign,
                None,
            );
        }
    }
}

/// Overwrites a setting's text with the empty one, in place: also for whatever shares its memory,
/// such as the value that a `RESET` would bring back.
fn wipe(value: *mut c_char) {
    if !value.is_null() {
        // SAFETY: the values of text settings are heap copies of Postgres', which it frees but
        // never reads past the NUL.
        unsafe { value.write(0) };
    }
}

/// What Postgres itself keeps of a text setting; None where there is none of that name.
pub(super) fn record(name: &CStr) -> Option<&'static mut pg_sys::config_string> {
    place_of(name).map(|(record, _)| record)
}

/// The same, and its place among all settings.
fn place_of(name: &CStr) -> Option<(&'static mut pg_sys::config_string, usize)> {
    // SAFETY: Postgres keeps an array of pointers to records with names. A record of type
    // PGC_STRING is a config_string. It lives until the setting is defined anew; callers keep no
    // reference, and nothing else has one meanwhile.
    unsafe {
        let count = usize::try_from(GetNumConfigOptions()).unwrap_or(0);
        let records = std::slice::from_raw_parts(get_guc_variables(), count);
        // One after the other: clients add names, and what order Postgres keeps them in depends on
        // the signedness of its characters.
        let place = records.iter().position(|record| {
            let found = CStr::from_ptr((**record).name).to_bytes();
            found.eq_ignore_ascii_case(name.to_bytes())
        })?;
        let record = *records.get(place)?;
        ((*record).vartype == pg_sys::config_type::PGC_STRING)
            .then(|| (&mut *record.cast::<pg_sys::config_string>(), place))
    }
}

/// Visits every value that a text setting has or may come to have again without being given one:
/// the current one, the one of `RESET`, those that ends of (sub)transactions bring back. Each with
/// what a check hook has left.
pub(super) fn visit_values(
    record: &pg_sys::config_string,
    mut visit: impl FnMut(*mut c_char, *mut c_void),
) {
    // SAFETY: the record is Postgres', and so is its stack; a text setting's values are pointers
    // to text. `masked` is a value in one state of the stack only.
    unsafe {
        visit(record.variable.read(), record.gen_.extra);
        visit(record.reset_val, record.reset_extra);
        let mut level = record.gen_.stack;
        while let Some(entry) = level.as_ref() {
            visit(entry.prior.val.stringval, entry.prior.extra);
            if entry.state == pg_sys::GucStackState::GUC_SET_LOCAL {
                visit(entry.masked.val.stringval, entry.masked.extra);
            }
            level = entry.prev;
        }
    }
}

/// The names in a text that lists them as SQL does, separated by commas; None where it does not.
pub(crate) fn names(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    // SAFETY: the text is copied, for it is changed; the list is of C strings in the copy.
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

/// Whether a text setting was given its value within the current transaction.
pub(crate) fn is_set_in_transaction(name: &CStr) -> bool {
    record(name).is_some_and(|record| !record.gen_.stack.is_null())
}

/// Whether a setting has a value for the transaction alone, and was given none for the session in it.
pub(crate) fn is_set_locally(name: &CStr) -> bool {
    // SAFETY: the stack is null or Postgres' own, and stays where it is.
    let stack = record(name).and_then(|record| unsafe { record.gen_.stack.as_ref() });
    stack.is_some_and(|stack| stack.state == pg_sys::GucStackState::GUC_LOCAL)
}

unsafe extern "C-unwind" {
    // By hand, without `pgrx`'s guard: they read static variables and cannot raise.
    safe fn GetNumConfigOptions() -> c_int;
    safe fn get_guc_variables() -> *const *mut pg_sys::config_generic;
}

/// The hook by which one is told that a setting has changed.
pub(crate) type ForeignAssignHook = pg_sys::GucStringAssignHook;

/// A text setting that is not ours, and whose changes are told of all the same.
pub(crate) struct ForeignVariable {
    name: &'static CStr,
    /// Where its record is, and at which place among all.
    record: BackendLocal<Cell<(*const pg_sys::config_string, usize)>>,
}

impl ForeignVariable {
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Self { name, record: BackendLocal::new(Cell::new((std::ptr::null(), 0))) }
    }

    /// Has `assign` called whenever the setting is given another value; whether that is possible.
    /// It is where the setting is a placeholder of Postgres', whose record has room for a hook.
    pub(crate) fn watch(&self, assign: ForeignAssignHook) -> bool {
        if self.is_watched(assign) {
            return true;
        }
        let Some((record, place)) = place_of(self.name) else {
            return false;
        };
        if record.gen_.flags as u32 & pg_sys::GUC_CUSTOM_PLACEHOLDER == 0 {
            return false;
        }
        // Nobody else gives a placeholder a hook.
        record.assign_hook = assign;
        self.record.set((record, place));
        true
    }

    /// Whether `assign` is still called: a library that defines the setting replaces its record.
    pub(crate) fn is_watched(&self, assign: ForeignAssignHook) -> bool {
        let (record, place) = self.record.get();
        if place >= usize::try_from(GetNumConfigOptions()).unwrap_or(0) {
            return false;
        }
        // SAFETY: the place is one of the array's, whose pointers are to records. One of the type
        // PGC_STRING is a config_string.
        unsafe {
            let found = get_guc_variables().add(place).read().cast_const();
            found == record.cast()
                && (*found).vartype == pg_sys::config_type::PGC_STRING
                && (*record).assign_hook.map(|hook| hook as usize)
                    == assign.map(|hook| hook as usize)
        }
    }

    /// Lends the value, where there is one.
    pub(crate) fn with<T>(&self, body: impl FnOnce(&[u8]) -> T) -> Option<T> {
        foreign(self.name, body)
    }

    /// Takes away the value, and all that the setting could come to have again, for parallel workers
    /// too. Within a transaction, `earlier_only` spares what was set in it. Nobody is told.
    pub(crate) fn wipe(&self, earlier_only: bool) {
        let Some(record) = record(self.name) else {
            return;
        };
        if !earlier_only || record.gen_.stack.is_null() {
            return visit_values(record, |value, _| wipe(value));
        }
        wipe(record.reset_val);
        // SAFETY: as for `visit_values`. The last entry is the transaction's first, and what it
        // holds as the prior value is from before it.
        unsafe {
            let mut level = record.gen_.stack;
            while let Some(entry) = level.as_ref() {
                if entry.prev.is_null() {
                    wipe(entry.prior.val.stringval);
                }
                level = entry.prev;
            }
        }
    }
}

/// The assign hook by which a [`ForeignVariable`] tells `$changed`, which cannot fail.
macro_rules! foreign_assign_hook {
    ($changed:expr) => {{
        extern "C-unwind" fn assign(_: *const std::ffi::c_char, _: *mut std::ffi::c_void) {
            $changed();
        }
        Some(assign as _)
    }};
}
pub(crate) use foreign_assign_hook;

/// Reserves a prefix: from here on nobody can make up settings under it.
pub(crate) fn reserve_prefix(prefix: &'static CStr) {
    // SAFETY: it is a C string.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) }
}

/// The value of a setting that is not ours, where there is one.
pub(crate) fn foreign<T>(name: &CStr, body: impl FnOnce(&[u8]) -> T) -> Option<T> {
    // SAFETY: with `missing_ok` and without a privilege check it does not raise; the text it
    // returns is valid until a setting changes or the function is called again.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| body(CStr::from_ptr(value).to_bytes()))
    }
}

/// Runs a check hook. `check` gets the new value, empty where there is none.
///
/// # Safety
/// Postgres makes the call.
pub(crate) unsafe fn check<T>(
    new_value: *mut *mut c_char,
    source: pg_sys::GucSource::Type,
    check: impl FnOnce(&[u8], Source) -> Result<T, Rejection>,
    explain: impl FnOnce(&Rejection),
) -> Option<T> {
    function::guarded(|| {
        // SAFETY: Postgres passes a pointer to a C string, or to null.
        let value = unsafe {
            let value = new_value.read();
            if value.is_null() { b"" } else { CStr::from_ptr(value).to_bytes() }
        };
        check(value, Source::from_raw(source)).inspect_err(explain).ok()
    })
}

/// What Postgres keeps with a value of the token setting, through savepoints, rollbacks and resets,
/// and frees as plain memory.
#[repr(C)]
struct Presentation {
    /// Counts the values that this backend has been given.
    generation: u64,
    /// The number of the token.
    token: plan::TokenNumber,
    /// The role that the token has the session take.
    role: Option<role::Role>,
}

/// What has come of the checks that belong to a token's presentation, such as `nbf`. It stands
/// before the token, as the first byte of the setting's text: a parallel worker is given the text
/// and nothing else, and must not take for admitted what its leader has not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The token has not been looked at.
    Pending = b'?' as isize,
    /// It was accepted.
    Admitted = b'!' as isize,
    /// It was refused when it was first used.
    Refused = b'-' as isize,
}

/// What a check hook says of a value of the token setting that it lets pass.
pub(crate) struct Passed {
    /// The value's number.
    pub(crate) generation: u64,
    /// The number of the token; 0 where there is none.
    pub(crate) token: plan::TokenNumber,
    /// What to put before a token; None where there is none, or a mark already.
    pub(crate) mark: Option<Standing>,
    /// The role that the token has the session take.
    pub(crate) role: Option<role::Role>,
}

/// The setting that holds the token.
pub(crate) struct TokenVariable {
    text: TextVariable,
    presentation: BackendLocal<Cell<*mut Presentation>>,
    /// Values of earlier generations are revoked.
    revoked_below: BackendLocal<Cell<u64>>,
}

impl TokenVariable {
    pub(crate) const fn new() -> Self {
        Self {
            text: TextVariable::new(),
            presentation: BackendLocal::new(Cell::new(std::ptr::null_mut())),
            revoked_below: BackendLocal::new(Cell::new(0)),
        }
    }

    /// Lends the token; empty where there is none.
    pub(crate) fn with<T>(&self, body: impl FnOnce(&[u8]) -> T) -> T {
        self.text.with(|text| body(text.get(1..).unwrap_or_default()))
    }

    /// What has come of the current token's presentation.
    pub(crate) fn standing(&self) -> Standing {
        self.text.with(|text| match text.first() {
            Some(b'!') => Standing::Admitted,
            Some(b'-') => Standing::Refused,
            _ => Standing::Pending,
        })
    }

    /// Notes what has come of it. Where the token is refused, the values before it are revoked.
    pub(crate) fn set_standing(&self, standing: Standing) {
        if self.text.with(<[u8]>::is_empty) {
            return;
        }
        // SAFETY: the text has a first byte, and is a heap copy of Postgres' (see `wipe`).
        unsafe { self.text.text.get().write(standing as c_char) };
        if standing == Standing::Refused {
            self.revoke_below(self.generation());
        }
    }

    /// Takes away every value before `generation`, the current one and those that a rollback or a
    /// `RESET` would bring back: each is emptied in place, so that parallel workers, which get
    /// the text and nothing else, see it gone too.
    pub(crate) fn revoke_below(&self, generation: u64) {
        self.revoked_below.set(self.revoked_below.get().max(generation));
        if self.generation() < generation {
            wipe(self.text.text.get());
            plan::set_token(0);
            role::set(None);
        }
    }

    /// The role that the token in force has the session take.
    pub(crate) fn role(&self) -> Option<role::Role> {
        let role = self.presented_role();
        role.filter(|_| self.with(|token| !token.is_empty()))
    }

    /// The same, whatever the text is.
    fn presented_role(&self) -> Option<role::Role> {
        // SAFETY: as for `generation`.
        unsafe { self.presentation.get().as_ref() }.and_then(|current| current.role)
    }

    /// Notes the role of a token that was looked at after its presentation. It is put in force by
    /// whoever knows the moment.
    pub(crate) fn set_role(&self, role: Option<role::Role>) {
        // SAFETY: as for `generation`; nobody has a reference to it.
        if let Some(current) = unsafe { self.presentation.get().as_mut() } {
            current.role = role;
        }
    }

    /// The number of the current value.
    pub(crate) fn generation(&self) -> u64 {
        // SAFETY: it is null or what `keep` made, and lasts as long as the value is the current one.
        unsafe { self.presentation.get().as_ref() }.map_or(0, |current| current.generation)
    }

    /// The number of the token in force; 0 where there is none.
    pub(crate) fn token(&self) -> plan::TokenNumber {
        // SAFETY: as for `generation`.
        let current = unsafe { self.presentation.get().as_ref() };
        current.filter(|_| self.with(|token| !token.is_empty())).map_or(0, |current| current.token)
    }

    /// The numbers of the values that are or may come into force without being presented again.
    pub(crate) fn live_generations(&self, name: &CStr) -> Vec<u64> {
        let mut live = Vec::new();
        if let Some(record) = record(name) {
            visit_values(record, |_, presentation| {
                // SAFETY: as for the current one; Postgres keeps it with the value.
                let presentation = unsafe { presentation.cast::<Presentation>().as_ref() };
                live.extend(presentation.map(|presentation| presentation.generation));
            });
        }
        live
    }

    /// What the assign hook does, the token's role included. It may run during a rollback and must
    /// not fail. Returns whether there is a token now.
    ///
    /// # Safety
    /// Postgres makes the call, with the value and the memory that a check hook left.
    pub(crate) unsafe fn assign(&self, value: *const c_char, presentation: *mut c_void) -> bool {
        let presentation = presentation.cast::<Presentation>();
        self.presentation.set(presentation);
        // SAFETY: it is null or what `keep` made; the value is null or a C string.
        unsafe {
            if let Some(presentation) = presentation.as_ref()
                && presentation.generation < self.revoked_below.get()
            {
                wipe(value.cast_mut());
            }
            let is_there = !value.is_null() && value.read() != 0;
            let token = presentation.as_ref().map_or(0, |presentation| presentation.token);
            plan::set_token(if is_there { token } else { 0 });
            role::set(self.presented_role().filter(|_| is_there));
            is_there
        }
    }

    pub(crate) fn define(
        &'static self,
        name: &'static CStr,
        description: &'static CStr,
        hooks: (pg_sys::GucStringCheckHook, pg_sys::GucStringAssignHook, pg_sys::GucShowHook),
    ) {
        let flags =
            pg_sys::GUC_NO_SHOW_ALL | pg_sys::GUC_NOT_IN_SAMPLE | pg_sys::GUC_DISALLOW_IN_FILE;
        // SAFETY: as for a boolean.
        unsafe {
            pg_sys::DefineCustomStringVariable(
                name.as_ptr(),
                description.as_ptr(),
                std::ptr::null(),
                self.text.text.as_ptr(),
                std::ptr::null(),
                pg_sys::GucContext::PGC_USERSET,
                flags as c_int,
                hooks.0,
                hooks.1,
                hooks.2,
            );
        }
    }
}

/// The check hook of the text setting `$name`, by safe code.
macro_rules! check_hook {
    ($name:expr, $check:expr) => {{
        #[allow(unsafe_code)]
        unsafe extern "C-unwind" fn check(
            new_value: *mut *mut std::ffi::c_char,
            _extra: *mut *mut std::ffi::c_void,
            source: ::pgrx::pg_sys::GucSource::Type,
        ) -> bool {
            let explain = |rejection: &_| $crate::pg::error::refuse_setting($name, rejection);
            // SAFETY: Postgres calls this as the check hook it is.
            unsafe { $crate::pg::guc::check(new_value, source, $check, explain) }.is_some()
        }
        Some(check as _)
    }};
}
pub(crate) use check_hook;

/// The hooks of the document `$document`, which is a `settings::Document`.
macro_rules! document_hooks {
    ($document:expr) => {{
        extern "C-unwind" fn assign(value: *const std::ffi::c_char, _: *mut std::ffi::c_void) {
            $document.assign(value.is_null());
        }
        let check = $crate::pg::guc::check_hook!($document.name, |value: &[u8], source| {
            $document.check(value, source)
        });
        (check, Some(assign as _))
    }};
}
pub(crate) use document_hooks;

/// The hooks of the token: `$check` is safe code that verifies it or not, `$revoke` ends the identities
/// from before where Postgres cannot keep the value, `$assign` is told whether a token has gone, `$shown`
/// is what everybody sees in place of a token.
macro_rules! token_hooks {
    ($variable:expr, $check:expr, $revoke:expr, $assign:expr, $shown:expr $(,)?) => {{
        #[allow(unsafe_code)]
        unsafe extern "C-unwind" fn check(
            new_value: *mut *mut std::ffi::c_char,
            extra: *mut *mut std::ffi::c_void,
            source: ::pgrx::pg_sys::GucSource::Type,
        ) -> bool {
            // SAFETY: Postgres calls this as the check hook it is.
            unsafe {
                $crate::pg::guc::check(new_value, source, $check, $crate::pg::error::refuse)
                    .is_some_and(|passed| {
                        let is_kept = $crate::pg::guc::keep(passed, new_value, extra);
                        if !is_kept {
                            $revoke();
                        }
                        is_kept
                    })
            }
        }
        #[allow(unsafe_code)]
        unsafe extern "C-unwind" fn assign(
            value: *const std::ffi::c_char,
            extra: *mut std::ffi::c_void,
        ) {
            let before = $variable.with(|token| !token.is_empty());
            // SAFETY: Postgres calls this as the assign hook it is.
            let after = unsafe { $variable.assign(value, extra) };
            $crate::pg::function::guarded(|| $assign(before && !after));
        }
        extern "C-unwind" fn show() -> *const std::ffi::c_char {
            if $variable.with(<[u8]>::is_empty) { c"".as_ptr() } else { $shown.as_ptr() }
        }
        (Some(check as _), Some(assign as _), Some(show as _))
    }};
}
pub(crate) use token_hooks;

/// The assign hook of the setting `$variable`, whose values are of the type `$type`; `$assign`,
/// which is told the new value before the variable has it, cannot fail.
macro_rules! assign_hook {
    ($variable:expr, $type:ty, $assign:expr) => {{
        extern "C-unwind" fn assign(value: $type, _: *mut std::ffi::c_void) {
            $variable.assign();
            $assign(value);
        }
        Some(assign as _)
    }};
}
pub(crate) use assign_hook;

/// Leaves with Postgres what a check hook has to say of a value: the mark before the token, and the
/// value's number. False, with a message, where there is no memory.
///
/// # Safety
/// `new_value` and `extra` are what Postgres passed to the check hook.
pub(crate) unsafe fn keep(
    passed: Passed,
    new_value: *mut *mut c_char,
    extra: *mut *mut c_void,
) -> bool {
    unsafe extern "C" {
        // Postgres 15 keeps values and what check hooks leave in memory of malloc(3).
        fn malloc(size: usize) -> *mut c_void;
        fn free(memory: *mut c_void);
    }
    // SAFETY: both pieces of memory are as large as what is written to them, and aligned for
    // anything; the old value is Postgres' to be replaced, as the hook's contract has it.
    unsafe {
        let presentation = malloc(size_of::<Presentation>()).cast::<Presentation>();
        let marked = match passed.mark {
            None => new_value.read(),
            Some(mark) => {
                let value = CStr::from_ptr(new_value.read()).to_bytes_with_nul();
                let marked = malloc(value.len() + 1).cast::<u8>();
                if !marked.is_null() {
                    marked.write(mark as u8);
                    marked.add(1).copy_from_nonoverlapping(value.as_ptr(), value.len());
                }
                marked.cast()
            }
        };
        if presentation.is_null() || (marked.is_null() && passed.mark.is_some()) {
            error::refuse(&Rejection::new(Code::OutOfMemory, "out of memory"));
            return false;
        }
        if passed.mark.is_some() {
            free(new_value.replace(marked).cast());
        }
        presentation.write(Presentation {
            generation: passed.generation,
            token: passed.token,
            role: passed.role,
        });
        extra.write(presentation.cast());
        true
    }
}
