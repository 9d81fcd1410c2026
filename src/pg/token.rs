//! The GUC that holds the token: its value, its `extra`, its stack, and the timeline of its values.
//!
//! A check hook leaves an [`Extra`] with each value. Postgres keeps it with the value through savepoints,
//! rollbacks and `RESET`, and frees it as plain memory. The first byte of the value itself is the
//! [`Standing`] of the token: the result of the checks that are made once, when the token is presented,
//! such as the one of `nbf`. A parallel worker gets the value without the `extra`, and must not admit a
//! token that its leader has not checked.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_void};

use pgrx::pg_sys::{self, Oid};
use session_jwt::{Code, Rejection};

use super::backend::{self, BackendLocal, Timestamp};
use super::compat::{guc_free, guc_malloc};
use super::error;
use super::guc::TextVariable;
use super::guc_record::{TextHooks, discard, find_record, visit_values, wipe};

/// Numbers that rise, and order events within this backend. A value of the token GUC, a value of the GUC
/// `role`, the role of a token, and an identity each get a number when they are created.
pub(crate) mod timeline {
    use super::{BackendLocal, Cell};

    /// The number that was given last.
    static LAST: BackendLocal<Cell<u64>> = BackendLocal::new(Cell::new(0));

    /// The highest number that belongs to a transaction which has ended.
    static ENDED: BackendLocal<Cell<u64>> = BackendLocal::new(Cell::new(0));

    /// Gives the next number; the first one is 1.
    pub(crate) fn next() -> u64 {
        LAST.set(LAST.get() + 1);
        LAST.get()
    }

    /// The number that was given last.
    pub(crate) fn last() -> u64 {
        LAST.get()
    }

    /// The highest number that belongs to a transaction which has ended.
    pub(crate) fn ended() -> u64 {
        ENDED.get()
    }

    /// Notes that the transactions to which the numbers up to `last` belong have ended.
    pub(crate) fn set_ended(last: u64) {
        ENDED.set(last);
    }
}

/// Identifies a token within this session: a hash with a random key; 0 where there is no token.
pub(crate) type Fingerprint = u64;

/// The role that a token names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenRole {
    pub(crate) oid: Oid,
    /// The session user that presented the token.
    pub(crate) session_user: Oid,
    /// Its place on the timeline.
    pub(crate) number: u64,
}

/// The result of the checks that are made when a token is presented. It is the first byte of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The checks have not been made: no statement has presented the token.
    Pending = b'?' as isize,
    /// The token has passed them.
    Admitted = b'!' as isize,
    /// The token was rejected at its first use.
    Rejected = b'-' as isize,
}

/// The memory that the check hook leaves with a value.
#[repr(C)]
struct Extra {
    /// The place of the value on the timeline.
    number: u64,
    fingerprint: Fingerprint,
    role: Option<TokenRole>,
    /// The start of the statement that has set the value.
    since: Timestamp,
}

/// A value of the token GUC that the check hook lets pass.
pub(crate) struct CheckedValue {
    /// The place of the value on the timeline.
    pub(crate) number: u64,
    pub(crate) fingerprint: Fingerprint,
    /// The byte to put before the token; None where there is no token, or the byte is there already.
    pub(crate) standing: Option<Standing>,
    pub(crate) role: Option<TokenRole>,
}

/// A value that Postgres is about to assign to the token GUC. Until then, the GUC has the earlier value.
pub(crate) struct AssignedValue {
    /// Whether it is a token.
    pub(crate) is_set: bool,
    /// Whether the token has passed the checks of its presentation.
    pub(crate) is_admitted: bool,
    pub(crate) role: Option<TokenRole>,
}

/// The token GUC.
pub(crate) struct TokenVariable {
    value: TextVariable,
    /// The extra of the current value; null for the boot value.
    extra: BackendLocal<Cell<*mut Extra>>,
    /// Values with a smaller number are void: they count as empty when they come back into force.
    voided_below: BackendLocal<Cell<u64>>,
}

impl TokenVariable {
    pub(crate) const fn new() -> Self {
        Self {
            value: TextVariable::new(),
            extra: BackendLocal::new(Cell::new(std::ptr::null_mut())),
            voided_below: BackendLocal::new(Cell::new(0)),
        }
    }

    /// Calls `body` with the token, empty where there is none. `body` must not change the GUC.
    pub(crate) fn with<T>(&self, body: impl FnOnce(&[u8]) -> T) -> T {
        self.value.with(|value| body(value.get(1..).unwrap_or_default()))
    }

    /// Whether there is a token.
    pub(crate) fn is_set(&self) -> bool {
        self.with(|token| !token.is_empty())
    }

    /// The standing of the current token.
    pub(crate) fn standing(&self) -> Standing {
        self.value.with(|value| match value.first() {
            Some(b'!') => Standing::Admitted,
            Some(b'-') => Standing::Rejected,
            _ => Standing::Pending,
        })
    }

    /// Sets the standing of the current token. A rejection voids all earlier values.
    pub(crate) fn set_standing(&self, standing: Standing) {
        if self.value.with(<[u8]>::is_empty) {
            return;
        }
        self.value.write_first(standing as u8);
        if standing == Standing::Rejected {
            self.void_below(self.number());
        }
    }

    /// Voids the values whose number is smaller: it empties the current value at once, and the others
    /// when Postgres assigns them again. A value is emptied in place, so that a parallel worker, which gets
    /// the value only, finds it empty too. Returns whether the current value is void.
    pub(crate) fn void_below(&self, number: u64) -> bool {
        self.voided_below.set(self.voided_below.get().max(number));
        let is_current = self.number() < number;
        if is_current {
            self.value.write_first(0);
        }
        is_current
    }

    /// Empties the current value in place, unless it is the reset value. Returns whether it has emptied a
    /// token.
    pub(crate) fn discard(&self, name: &CStr) -> bool {
        self.is_set() && find_record(name).is_some_and(|(record, _)| discard(record))
    }

    /// The place of the current value on the timeline; 0 for the boot value.
    pub(crate) fn number(&self) -> u64 {
        self.extra().map_or(0, |extra| extra.number)
    }

    /// The fingerprint of the current token.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.extra().filter(|_| self.is_set()).map_or(0, |extra| extra.fingerprint)
    }

    /// The role of the current token.
    pub(crate) fn role(&self) -> Option<TokenRole> {
        self.extra().filter(|_| self.is_set()).and_then(|extra| extra.role)
    }

    /// The start of the statement that has presented the current token.
    pub(crate) fn since(&self) -> Timestamp {
        self.extra().map_or(0, |extra| extra.since)
    }

    /// Sets the role of a token that was admitted after its presentation.
    pub(crate) fn set_role(&self, role: Option<TokenRole>) {
        // SAFETY: it is null or the extra of the current value, and no other reference to it exists.
        if let Some(extra) = unsafe { self.extra.get().as_mut() } {
            extra.role = role;
        }
    }

    fn extra(&self) -> Option<&Extra> {
        // SAFETY: it is null or the extra of the current value, which Postgres keeps as long as the value.
        unsafe { self.extra.get().as_ref() }
    }

    /// The numbers of the values that the GUC has or may get again.
    pub(crate) fn live_numbers(&self, name: &CStr) -> Vec<u64> {
        let mut live = Vec::new();
        if let Some((record, _)) = find_record(name) {
            visit_values(record, |_, extra| {
                // SAFETY: it is null or the extra that the check hook left with the value.
                let extra = unsafe { extra.cast::<Extra>().as_ref() };
                live.extend(extra.map(|extra| extra.number));
            });
        }
        live
    }

    /// Stores the value and the extra of a token that has passed the check hook where Postgres takes them.
    /// Where there is no memory, returns false, with an error for Postgres to raise.
    ///
    /// # Safety
    /// `new_value` and `extra` are the arguments of the check hook.
    pub(crate) unsafe fn keep(
        checked: CheckedValue,
        new_value: *mut *mut c_char,
        extra: *mut *mut c_void,
    ) -> bool {
        // SAFETY: both allocations are as large as the data written to them, and aligned for any type. A
        // check hook may replace the value, and then frees the old one.
        unsafe {
            let kept = guc_malloc(size_of::<Extra>()).cast::<Extra>();
            let marked = match checked.standing {
                None => new_value.read(),
                Some(standing) => {
                    let value = CStr::from_ptr(new_value.read()).to_bytes_with_nul();
                    let marked = guc_malloc(value.len() + 1).cast::<u8>();
                    if !marked.is_null() {
                        marked.write(standing as u8);
                        marked.add(1).copy_from_nonoverlapping(value.as_ptr(), value.len());
                    }
                    marked.cast()
                }
            };
            if kept.is_null() || (marked.is_null() && checked.standing.is_some()) {
                error::guarded(|| {
                    error::reject_value(&Rejection::new(Code::OutOfMemory, "out of memory"));
                });
                return false;
            }
            if checked.standing.is_some() {
                guc_free(new_value.replace(marked).cast());
            }
            kept.write(Extra {
                number: checked.number,
                fingerprint: checked.fingerprint,
                role: checked.role,
                since: backend::statement_start(),
            });
            extra.write(kept.cast());
            true
        }
    }

    /// Notes the value that Postgres is about to assign, and empties it where it is void. It may run
    /// during a rollback and cannot fail.
    ///
    /// # Safety
    /// The arguments are those of the assign hook.
    pub(crate) unsafe fn assign(&self, value: *const c_char, extra: *mut c_void) -> AssignedValue {
        self.extra.set(extra.cast());
        if self.extra().is_some_and(|extra| extra.number < self.voided_below.get()) {
            wipe(value.cast_mut());
        }
        // SAFETY: the value is null or a C string.
        let first = if value.is_null() { 0 } else { unsafe { value.read() } };
        let is_set = first != 0;
        let role = self.extra().and_then(|extra| extra.role).filter(|_| is_set);
        AssignedValue { is_set, is_admitted: first == Standing::Admitted as c_char, role }
    }

    /// Defines the GUC. Every role may set it, and no view shows it.
    pub(crate) fn define(
        &'static self,
        name: &'static CStr,
        description: &'static CStr,
        hooks: TextHooks,
    ) {
        // Without GUC_DISALLOW_IN_FILE, which forbids ALTER SYSTEM RESET too: 17 stores a token where no session
        // has loaded the library yet. The check hook rejects the value itself.
        let flags = pg_sys::GUC_NO_SHOW_ALL | pg_sys::GUC_NOT_IN_SAMPLE;
        let context = pg_sys::GucContext::PGC_USERSET;
        self.value.define_with(name, description, context, flags as i32, hooks);
    }
}

/// The numbers of the values of the GUC `role`. The key is the address of the `extra` that the check hook
/// of Postgres left with a value. Values from before the library was loaded, such as the reset value, have
/// no number.
pub(crate) struct RoleNumbers(BackendLocal<RefCell<Vec<(*mut c_void, u64)>>>);

impl RoleNumbers {
    pub(crate) const fn new() -> Self {
        Self(BackendLocal::new(RefCell::new(Vec::new())))
    }

    /// The number of a value; 0 where it has none.
    pub(crate) fn of(&self, extra: *mut c_void) -> u64 {
        let numbers = self.0.borrow();
        numbers.iter().find(|(known, _)| *known == extra).map_or(0, |(_, number)| *number)
    }

    /// Gives a new value the next number. `live` lists the extras of all values that the GUC has or may get
    /// again.
    pub(crate) fn add(&self, extra: *mut c_void, live: impl FnOnce() -> Vec<*mut c_void>) {
        /// From this number of entries on, entries whose value the GUC cannot get again are dropped.
        const MOST_UNCHECKED: usize = 64;
        let mut numbers = self.0.borrow_mut();
        // Postgres may have freed another value's extra, and allocated this one in its place.
        numbers.retain(|(known, _)| *known != extra);
        if numbers.len() >= MOST_UNCHECKED {
            let live = live();
            numbers.retain(|(known, _)| live.contains(known));
        }
        numbers.push((extra, timeline::next()));
    }
}
