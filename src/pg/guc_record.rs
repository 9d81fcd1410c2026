//! The records of text GUCs, of this extension and of others, and the stacks of their values.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};

use pgrx::pg_sys;

use super::backend::BackendLocal;
use super::compat::{self, GucPlace};

/// The hooks of a text GUC.
pub(crate) type TextHooks =
    (pg_sys::GucStringCheckHook, pg_sys::GucStringAssignHook, pg_sys::GucShowHook);

/// Calls `body` with the value of any GUC; None where there is no such GUC.
pub(crate) fn value_of<T>(name: &CStr, body: impl FnOnce(&[u8]) -> T) -> Option<T> {
    // SAFETY: with `missing_ok` and without a privilege check, the function raises no error. Its result is
    // valid until a GUC changes or the function is called again.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| body(CStr::from_ptr(value).to_bytes()))
    }
}

/// Whether the current transaction has set a text GUC.
pub(crate) fn is_set_in_transaction(name: &CStr) -> bool {
    find_record(name).is_some_and(|(record, _)| !record.gen_.stack.is_null())
}

/// Whether the current transaction has set a text GUC by `SET LOCAL` only. The caller is not within a
/// subtransaction: the state of the innermost level decides.
pub(crate) fn is_set_locally(name: &CStr) -> bool {
    // SAFETY: the stack is null or belongs to the record. Nothing changes it before this function returns.
    let stack = find_record(name).and_then(|(record, _)| unsafe { record.gen_.stack.as_ref() });
    stack.is_some_and(|stack| stack.state == pg_sys::GucStackState::GUC_LOCAL)
}

/// The record of a text GUC, and where it was found; None where there is no such GUC.
pub(super) fn find_record(name: &CStr) -> Option<(&'static mut pg_sys::config_string, GucPlace)> {
    let (record, place) = compat::find_guc(name)?;
    // SAFETY: a record of type PGC_STRING is a config_string. It lives until the GUC is defined again.
    // Each caller uses the reference in one function, in which no other reference exists.
    unsafe {
        ((*record).vartype == pg_sys::config_type::PGC_STRING)
            .then(|| (&mut *record.cast::<pg_sys::config_string>(), place))
    }
}

/// Visits each value, with its `extra`, that a text GUC has or may get again without a check: the current
/// value, the reset value, and the values on the stack.
pub(super) fn visit_values(
    record: &pg_sys::config_string,
    mut visit: impl FnMut(*mut c_char, *mut c_void),
) {
    // SAFETY: record and stack belong to Postgres, and the values of a text GUC are pointers to text. The
    // field `masked` is set in the state GUC_SET_LOCAL only.
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

/// Empties a value of a text GUC in place. The reset value and values on the stack may share its memory,
/// and are then empty too.
pub(super) fn wipe(value: *mut c_char) {
    if !value.is_null() {
        // SAFETY: values of text GUCs are heap copies of at least one byte, which Postgres frees but never
        // reads beyond the NUL.
        unsafe { value.write(0) };
    }
}

/// Empties the current value of a text GUC in place, unless it is the reset value, which a value of the startup
/// packet is. Returns whether it has done so.
pub(super) fn discard(record: &pg_sys::config_string) -> bool {
    // SAFETY: the variable of the record is the one of the GUC.
    let value = unsafe { record.variable.read() };
    let is_own = value != record.reset_val;
    if is_own {
        wipe(value);
    }
    is_own
}

/// A text GUC of Postgres itself. This extension puts its own hooks in front of those of Postgres.
pub(crate) struct InterceptedVariable {
    record: BackendLocal<Cell<*const pg_sys::config_string>>,
    hooks: BackendLocal<Cell<TextHooks>>,
}

impl InterceptedVariable {
    pub(crate) const fn new() -> Self {
        Self {
            record: BackendLocal::new(Cell::new(std::ptr::null())),
            hooks: BackendLocal::new(Cell::new((None, None, None))),
        }
    }

    /// Installs hooks; where one is None, the hook of Postgres stays.
    pub(crate) fn intercept(&self, name: &CStr, (check, assign, show): TextHooks) {
        if let Some((record, _)) = find_record(name) {
            self.record.set(record);
            self.hooks.set((record.check_hook, record.assign_hook, record.show_hook));
            record.check_hook = check.or(record.check_hook);
            record.assign_hook = assign.or(record.assign_hook);
            record.show_hook = show.or(record.show_hook);
        }
    }

    /// The identity of the current value: the address of the `extra` that the check hook of Postgres left.
    pub(crate) fn current_extra(&self) -> Option<*mut c_void> {
        self.record().map(|record| record.gen_.extra)
    }

    /// The identities of all values that the GUC has or may get again.
    pub(crate) fn live_extras(&self) -> Vec<*mut c_void> {
        let mut live = Vec::new();
        if let Some(record) = self.record() {
            visit_values(record, |_, extra| live.push(extra));
        }
        live
    }

    /// Assigns the current value again, by the assign hook of Postgres, which cannot fail.
    pub(crate) fn reassign(&self) {
        if let Some(record) = self.record() {
            // SAFETY: value and extra are the current ones of the GUC.
            unsafe { self.assign(record.variable.read(), record.gen_.extra) };
        }
    }

    fn record(&self) -> Option<&pg_sys::config_string> {
        // SAFETY: it is null or a record of a GUC of Postgres itself, which is static.
        unsafe { self.record.get().as_ref() }
    }

    /// Runs the check hook of Postgres.
    ///
    /// # Safety
    /// The arguments are those of a check hook of this GUC, and no frame up to Postgres owns anything.
    pub(crate) unsafe fn check(
        &self,
        new_value: *mut *mut c_char,
        extra: *mut *mut c_void,
        source: pg_sys::GucSource::Type,
    ) -> bool {
        let (check, _, _) = self.hooks.get();
        // SAFETY: the caller passes the arguments on.
        check.is_none_or(|check| unsafe { check(new_value, extra, source) })
    }

    /// Runs the assign hook of Postgres.
    ///
    /// # Safety
    /// Value and extra are those of an assign hook of this GUC, or its current ones.
    pub(crate) unsafe fn assign(&self, value: *const c_char, extra: *mut c_void) {
        if let (_, Some(assign), _) = self.hooks.get() {
            // SAFETY: the caller passes the arguments on.
            unsafe { assign(value, extra) };
        }
    }

    /// Runs the show hook of Postgres; None where there is none.
    ///
    /// # Safety
    /// Postgres calls the show hook of this GUC.
    pub(crate) unsafe fn show(&self) -> Option<*const c_char> {
        let (_, _, show) = self.hooks.get();
        // SAFETY: the caller upholds the contract.
        show.map(|show| unsafe { show() })
    }
}

/// A text GUC that clients create, as a placeholder.
pub(crate) struct PlaceholderVariable {
    name: &'static CStr,
    /// The assign hook that is to be installed.
    assign: BackendLocal<Cell<pg_sys::GucStringAssignHook>>,
    /// The record that has the assign hook, and where it was found.
    hooked: BackendLocal<Cell<Option<(*const pg_sys::config_string, GucPlace)>>>,
}

impl PlaceholderVariable {
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Self {
            name,
            assign: BackendLocal::new(Cell::new(None)),
            hooked: BackendLocal::new(Cell::new(None)),
        }
    }

    /// Sets the assign hook that [`PlaceholderVariable::hook`] installs once the GUC exists.
    pub(crate) fn prepare(&self, (_, assign, _): TextHooks) {
        self.assign.set(assign);
    }

    /// Installs the assign hook where the GUC is a placeholder, which has none; whether it is installed.
    pub(crate) fn hook(&self) -> bool {
        if self.is_hooked() {
            return true;
        }
        let Some((record, place)) = find_record(self.name) else {
            return false;
        };
        if record.gen_.flags as u32 & pg_sys::GUC_CUSTOM_PLACEHOLDER == 0 {
            return false;
        }
        record.assign_hook = self.assign.get();
        self.hooked.set(Some((record, place)));
        true
    }

    /// Whether the assign hook is still installed: a library that defines the GUC replaces the record.
    pub(crate) fn is_hooked(&self) -> bool {
        let Some((record, place)) = self.hooked.get() else {
            return false;
        };
        // SAFETY: the pointer refers to a live record, and one of type PGC_STRING is a config_string.
        unsafe {
            compat::has_guc_record(self.name, record.cast(), place)
                && (*record).gen_.vartype == pg_sys::config_type::PGC_STRING
                && (*record).assign_hook.map(|hook| hook as usize)
                    == self.assign.get().map(|hook| hook as usize)
        }
    }

    /// Calls `body` with the value; None where there is no such GUC.
    pub(crate) fn with<T>(&self, body: impl FnOnce(&[u8]) -> T) -> Option<T> {
        value_of(self.name, body)
    }

    /// Empties the current value, unless it is the reset value. No assign hook runs.
    pub(crate) fn discard(&self) {
        if let Some((record, _)) = find_record(self.name) {
            discard(record);
        }
    }

    /// Empties the value and all values that the GUC may get again, for parallel workers too. With
    /// `keep_current`, values that the current transaction has set stay. No assign hook runs.
    pub(crate) fn wipe(&self, keep_current: bool) {
        let Some((record, _)) = find_record(self.name) else {
            return;
        };
        if !keep_current || record.gen_.stack.is_null() {
            return visit_values(record, |value, _| wipe(value));
        }
        wipe(record.reset_val);
        // SAFETY: record and stack belong to Postgres. The last entry is the first one of the transaction,
        // and its prior value is from before the transaction.
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
