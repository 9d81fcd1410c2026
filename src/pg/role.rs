//! The database role that a session has by its token, beside the one that the setting `role` gives it.
//!
//! Whichever was given later is in force. Postgres keeps a token's role with the token's value, so
//! it comes and goes with it, through savepoints, rollbacks and resets; the setting `role` is not
//! touched. To know when either changes, and to keep locked sessions from changing theirs, this
//! stands in front of Postgres' own hooks of the settings `role` and `session_authorization`.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_int, c_void};

use pgrx::pg_sys::{self, Oid};
use session_jwt::{Code, Rejection, quoted};

use super::function::guarded;
use super::{BackendLocal, datum, error, guc};

/// A role that a token has the session take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Role {
    oid: Oid,
    /// Whose session it was.
    session_user: Oid,
    /// Later ones have higher numbers.
    number: u64,
}

/// The role of the token in force.
static TOKEN: BackendLocal<Cell<Option<Role>>> = BackendLocal::new(Cell::new(None));

/// Whether it is the session's.
static IN_FORCE: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));

/// Whether it has changed in this transaction: an abort brings back the user that there was before
/// without a word.
static DUE: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));

/// Whether it could not be put in force, as within a security-definer function.
static WAITING: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));

/// The number that was given last.
static LAST_NUMBER: BackendLocal<Cell<u64>> = BackendLocal::new(Cell::new(0));

/// The numbers of the values of the setting `role`, by what Postgres' check hook has left with them.
/// Those that were there before us have none, as the one that `RESET` brings back.
static NUMBERS: BackendLocal<RefCell<Vec<(*mut c_void, u64)>>> =
    BackendLocal::new(RefCell::new(Vec::new()));

/// Says whether the sessions of a login role may not change their role.
static IS_LOCKED: BackendLocal<Cell<IsLocked>> = BackendLocal::new(Cell::new(|_| true));

const ROLE: &CStr = c"role";
const SESSION_AUTHORIZATION: &CStr = c"session_authorization";

type IsLocked = fn(Option<&[u8]>) -> bool;

/// What Postgres has of a setting of its own, which stays where it is.
struct Hooks {
    record: BackendLocal<Cell<*const pg_sys::config_string>>,
    check: BackendLocal<Cell<pg_sys::GucStringCheckHook>>,
    assign: BackendLocal<Cell<pg_sys::GucStringAssignHook>>,
    show: BackendLocal<Cell<pg_sys::GucShowHook>>,
}

impl Hooks {
    const fn new() -> Self {
        Self {
            record: BackendLocal::new(Cell::new(std::ptr::null())),
            check: BackendLocal::new(Cell::new(None)),
            assign: BackendLocal::new(Cell::new(None)),
            show: BackendLocal::new(Cell::new(None)),
        }
    }

    /// Keeps what is there.
    fn keep(&self, record: &pg_sys::config_string) {
        self.record.set(record);
        self.check.set(record.check_hook);
        self.assign.set(record.assign_hook);
        self.show.set(record.show_hook);
    }

    fn record(&self) -> Option<&pg_sys::config_string> {
        // SAFETY: it is null or Postgres' own record, which is static.
        unsafe { self.record.get().as_ref() }
    }

    /// # Safety
    /// Postgres makes the call.
    unsafe fn check(
        &self,
        new_value: *mut *mut c_char,
        extra: *mut *mut c_void,
        source: pg_sys::GucSource::Type,
    ) -> bool {
        // SAFETY: the caller's; no frame up to Postgres' owns anything.
        self.check.get().is_none_or(|check| unsafe { check(new_value, extra, source) })
    }

    /// # Safety
    /// Postgres makes the call, or the value and `extra` are the setting's own.
    unsafe fn assign(&self, value: *const c_char, extra: *mut c_void) {
        if let Some(assign) = self.assign.get() {
            // SAFETY: the caller's.
            unsafe { assign(value, extra) };
        }
    }
}

static OF_ROLE: Hooks = Hooks::new();
static OF_SESSION_AUTHORIZATION: Hooks = Hooks::new();

unsafe extern "C-unwind" {
    // By hand, without `pgrx`'s guard: they set and read static variables. That the first of them
    // tells the client of `is_superuser` does not make it fail.
    safe fn SetCurrentRoleId(role: Oid, is_superuser: bool);
    safe fn GetCurrentRoleId() -> Oid;
    safe fn GetSessionUserId() -> Oid;
    fn GetUserIdAndSecContext(user: *mut Oid, context: *mut c_int);
}

/// Puts itself in front of the settings' hooks. `is_locked` is told a login role, or None where its
/// name is not known.
pub(crate) fn guard(is_locked: IsLocked) {
    unsafe extern "C-unwind" fn at_subtransaction(
        event: pg_sys::SubXactEvent::Type,
        _: pg_sys::SubTransactionId,
        _: pg_sys::SubTransactionId,
        _: *mut c_void,
    ) {
        if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
            settle_due();
        }
    }
    IS_LOCKED.set(is_locked);
    if let Some(record) = guc::record(ROLE) {
        OF_ROLE.keep(record);
        record.check_hook = Some(check_role);
        record.assign_hook = Some(assign_role);
        record.show_hook = Some(show_role);
    }
    if let Some(record) = guc::record(SESSION_AUTHORIZATION) {
        OF_SESSION_AUTHORIZATION.keep(record);
        record.check_hook = Some(check_session_authorization);
        record.assign_hook = Some(assign_session_authorization);
    }
    // SAFETY: the callback lives as long as the library, which is never unloaded.
    unsafe { pg_sys::RegisterSubXactCallback(Some(at_subtransaction), std::ptr::null_mut()) };
}

/// The role of that name, for the session to take.
///
/// # Errors
/// Where the session may not, or not now.
pub(crate) fn find(name: &str) -> Result<Role, Rejection> {
    if !may_change() {
        return Err(refused("A security-definer function is running."));
    }
    let oid = look_up(name)?;
    Ok(Role { oid, session_user: GetSessionUserId(), number: next_number() })
}

/// A role that the session may take.
fn look_up(name: &str) -> Result<Oid, Rejection> {
    let unknown = || refused(format!("There is no role {}.", quoted(name)));
    let stored = datum::to_server_encoding(name).ok_or_else(unknown)?;
    let session_user = GetSessionUserId();
    // SAFETY: within a transaction they look into the catalogs; the name is a C string.
    let (oid, is_superuser, is_member) = unsafe {
        let oid = pg_sys::get_role_oid(stored.as_ptr(), true);
        if oid == Oid::INVALID {
            return Err(unknown());
        }
        (oid, pg_sys::superuser_arg(oid), pg_sys::is_member_of_role(session_user, oid))
    };
    if is_superuser {
        return Err(refused(format!("The role {} is a superuser.", quoted(name))));
    }
    if !is_member {
        let login = with_name(session_user, |login| {
            String::from_utf8_lossy(login.unwrap_or_default()).into_owned()
        });
        return Err(refused(format!(
            "The login role {} is not a member of the role {}.",
            quoted(&login),
            quoted(name)
        ))
        .with_hint("Have an administrator grant the role to the login role."));
    }
    Ok(oid)
}

fn refused(detail: impl Into<String>) -> Rejection {
    Rejection::new(Code::Claim, "role cannot be taken").with_detail(detail)
}

/// Whether the session has the role of its token.
#[inline(always)]
pub(crate) fn is_in_force() -> bool {
    IN_FORCE.get()
}

/// Checks that the token in force, whose claims were verified anew, would still have the session take
/// the role that it has.
pub(crate) fn confirm(name: Option<&str>) -> Result<(), Rejection> {
    let oid = name.map(look_up).transpose()?;
    if oid == TOKEN.get().map(|role| role.oid) {
        return Ok(());
    }
    Err(Rejection::new(Code::Claim, "role is not the token's any more")
        .with_detail("The provider names another claim for it than when the token was presented.")
        .with_hint("Present the token again."))
}

/// Takes note of the role of the token in force. It may run during a rollback and cannot fail.
pub(crate) fn set(role: Option<Role>) {
    if TOKEN.replace(role) != role {
        DUE.set(true);
        settle_due();
    }
}

/// Puts in force what has changed in this transaction, or notes that it has to wait.
fn settle_due() {
    if DUE.get() && !super::is_parallel_worker() {
        WAITING.set(!may_change());
        if !WAITING.get() {
            settle();
        }
    }
}

/// Puts in force what had to wait. It cannot fail.
pub(crate) fn settle_waiting() {
    if WAITING.get() {
        settle_due();
    }
}

/// Puts in force at the end of a transaction what its abort has taken out of it. It cannot fail.
pub(crate) fn end_transaction() {
    settle_due();
    DUE.set(false);
}

/// Puts the later of the token's role and the setting's in force.
fn settle() {
    let Some(setting) = OF_ROLE.record() else {
        return;
    };
    if !put_in_force(setting.gen_.extra) {
        // SAFETY: the value and what Postgres' check hook has left with it are the setting's own.
        unsafe { OF_ROLE.assign(setting.variable.read(), setting.gen_.extra) };
    }
}

/// Puts the token's role in force where it is later than the value of the setting that Postgres' check
/// hook has left `extra` with; whether it is. A role is the session's whose user took it.
fn put_in_force(extra: *mut c_void) -> bool {
    let is_later = |role: &Role| role.number > number_of(extra);
    let role = TOKEN.get().filter(is_later);
    let role = role.filter(|role| role.session_user == GetSessionUserId());
    if let Some(role) = role {
        SetCurrentRoleId(role.oid, false);
    }
    IN_FORCE.set(role.is_some());
    role.is_some()
}

fn next_number() -> u64 {
    LAST_NUMBER.set(LAST_NUMBER.get() + 1);
    LAST_NUMBER.get()
}

fn number_of(extra: *mut c_void) -> u64 {
    let numbers = NUMBERS.borrow();
    numbers.iter().find(|(known, _)| *known == extra).map_or(0, |(_, number)| *number)
}

/// Numbers a new value of the setting `role`.
fn number(extra: *mut c_void) {
    const FEW: usize = 64;
    let mut numbers = NUMBERS.borrow_mut();
    // The memory may have been another value's before.
    numbers.retain(|(known, _)| *known != extra);
    if numbers.len() >= FEW
        && let Some(record) = OF_ROLE.record()
    {
        let mut live = Vec::new();
        guc::visit_values(record, |_, extra| live.push(extra));
        numbers.retain(|(known, _)| live.contains(known));
    }
    numbers.push((extra, next_number()));
}

/// Whether the user may change: not within a security-definer function and its like, which put the one
/// before back in the end.
fn may_change() -> bool {
    let (mut user, mut context) = (Oid::INVALID, 0);
    // SAFETY: it writes to both.
    unsafe { GetUserIdAndSecContext(&mut user, &mut context) };
    context == 0
}

/// Lends the name of a role; None where it is not known.
fn with_name<T>(role: Oid, body: impl FnOnce(Option<&[u8]>) -> T) -> T {
    if role == Oid::INVALID || !super::in_transaction() {
        return body(None);
    }
    // SAFETY: within a transaction it looks into the catalogs; the name is null or a C string.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() { body(None) } else { body(Some(CStr::from_ptr(name).to_bytes())) }
    }
}

/// Whether a value from there is none of the client's doing, or the session is not locked.
fn is_open(source: pg_sys::GucSource::Type) -> bool {
    use pg_sys::GucSource::*;
    match source {
        PGC_S_DEFAULT | PGC_S_DYNAMIC_DEFAULT | PGC_S_OVERRIDE | PGC_S_TEST => true,
        _ => {
            super::restoring_worker()
                || !with_name(GetSessionUserId(), |login| IS_LOCKED.get()(login))
        }
    }
}

/// Whether a new value from there may be looked at; else Postgres is told why not.
fn admits(source: pg_sys::GucSource::Type) -> bool {
    guarded(|| {
        let open = is_open(source);
        if !open {
            error::refuse(
                &Rejection::new(Code::Forbidden, "role cannot be changed")
                    .with_detail("The session's login role is in pg_session_jwt.locked_roles.")
                    .with_hint("Present a token that names the role."),
            );
        }
        open
    })
}

unsafe extern "C-unwind" fn check_role(
    new_value: *mut *mut c_char,
    extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: Postgres makes the call, and what its own hook leaves in `extra` is the value's.
    unsafe {
        let passed = admits(source) && OF_ROLE.check(new_value, extra, source);
        if passed {
            guarded(|| number(extra.read()));
        }
        passed
    }
}

unsafe extern "C-unwind" fn check_session_authorization(
    new_value: *mut *mut c_char,
    extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: Postgres makes the call.
    admits(source) && unsafe { OF_SESSION_AUTHORIZATION.check(new_value, extra, source) }
}

unsafe extern "C-unwind" fn assign_role(value: *const c_char, extra: *mut c_void) {
    // A worker is told its leader's role, which may be the token's, apart from the setting.
    if super::restoring_worker() {
        return;
    }
    // SAFETY: Postgres makes the call.
    unsafe { OF_ROLE.assign(value, extra) };
    if !super::is_parallel_worker() {
        put_in_force(extra);
    }
}

unsafe extern "C-unwind" fn assign_session_authorization(value: *const c_char, extra: *mut c_void) {
    // SAFETY: Postgres makes the call.
    unsafe { OF_SESSION_AUTHORIZATION.assign(value, extra) };
    // That ends the role, or is followed by a value of `role` that does.
    if !super::is_parallel_worker()
        && let Some(setting) = OF_ROLE.record()
    {
        put_in_force(setting.gen_.extra);
    }
}

/// The role in force, by whatever it is.
unsafe extern "C-unwind" fn show_role() -> *const c_char {
    let role = GetCurrentRoleId();
    let name = if role == Oid::INVALID || !super::in_transaction() {
        std::ptr::null_mut()
    } else {
        // SAFETY: within a transaction it looks into the catalogs.
        guarded(|| unsafe { pg_sys::GetUserNameFromId(role, true) })
    };
    match OF_ROLE.show.get() {
        // SAFETY: Postgres makes the call.
        Some(show) if name.is_null() => unsafe { show() },
        _ if name.is_null() => c"none".as_ptr(),
        _ => name,
    }
}
