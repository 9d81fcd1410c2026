//! The database role that a session has by its token, beside the one that the setting `role` gives it.
//!
//! Whichever was given later is in force. Postgres keeps a token's role with the token's value, so
//! it comes and goes with it, through savepoints, rollbacks and resets; the setting `role` is not
//! touched. To know when either changes, and to keep locked sessions from changing theirs, this
//! stands in front of Postgres' own hooks of the settings `role` and `session_authorization`.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_int, c_void};

use pgrx::pg_sys::{self, Datum, Oid};
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

/// Whether it is out of force, for nobody vouches for its token.
static SUSPENDED: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));

/// Is told when roles or their memberships have changed.
static TOLD: BackendLocal<Cell<fn()>> = BackendLocal::new(Cell::new(|| ()));

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
    safe fn GetUserId() -> Oid;
    fn GetUserIdAndSecContext(user: *mut Oid, context: *mut c_int);
}

/// Puts itself in front of the settings' hooks. `is_locked` is told a login role, or None where its
/// name is not known; `changed` is called when roles have changed, and cannot fail.
pub(crate) fn guard(is_locked: IsLocked, changed: fn()) {
    unsafe extern "C-unwind" fn at_change(_argument: Datum, _cache: c_int, _hash: u32) {
        TOLD.get()();
    }
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
    TOLD.set(changed);
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
    // SAFETY: the callbacks live as long as the library, which is never unloaded.
    unsafe {
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction), std::ptr::null_mut());
        use pg_sys::SysCacheIdentifier::{AUTHMEMROLEMEM, AUTHOID};
        for cache in [AUTHOID, AUTHMEMROLEMEM] {
            pg_sys::CacheRegisterSyscacheCallback(cache as c_int, Some(at_change), Datum::null());
        }
    }
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
    // SAFETY: within a transaction it looks into the catalogs; the name is a C string.
    let oid = unsafe { pg_sys::get_role_oid(stored.as_ptr(), true) };
    if oid == Oid::INVALID {
        return Err(unknown());
    }
    check(oid, name)?;
    Ok(oid)
}

/// Refuses a role that the session may not take.
fn check(oid: Oid, name: &str) -> Result<(), Rejection> {
    let session_user = GetSessionUserId();
    // SAFETY: within a transaction they look into the catalogs.
    let (is_superuser, is_member) =
        unsafe { (pg_sys::superuser_arg(oid), pg_sys::is_member_of_role(session_user, oid)) };
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
    Ok(())
}

fn refused(detail: impl Into<String>) -> Rejection {
    Rejection::new(Code::Claim, "role cannot be taken").with_detail(detail)
}

/// Whether the session has a role of its token, in force or not.
#[inline(always)]
pub(crate) fn is_there() -> bool {
    TOKEN.get().is_some()
}

/// Whether nobody vouches for it.
pub(crate) fn is_suspended() -> bool {
    SUSPENDED.get()
}

/// Takes the token's role out of force, or puts it back; whether that has changed anything.
pub(crate) fn suspend(suspended: bool) -> bool {
    let changed = SUSPENDED.replace(suspended) != suspended;
    if changed {
        DUE.set(true);
        settle_due();
    }
    changed
}

/// The role of the token in force, whether or not it is the session's; [`Oid::INVALID`] where it names
/// none.
pub(super) fn of_token() -> Oid {
    oid_of(TOKEN.get().as_ref())
}

/// The OID of a role; [`Oid::INVALID`] stands for none.
pub(super) fn oid_of(role: Option<&Role>) -> Oid {
    role.map_or(Oid::INVALID, |role| role.oid)
}

/// Whether the role of the token has changed in this transaction.
pub(super) fn has_changed() -> bool {
    DUE.get()
}

/// The refusal of a statement that was planned for the role before.
pub(crate) fn changed() -> Rejection {
    Rejection::new(Code::Forbidden, "role has changed")
        .with_detail("The statement was planned for the role that the session had before.")
        .with_hint("Run it again.")
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
        SUSPENDED.set(false);
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

/// Whether something has to wait.
#[inline(always)]
pub(crate) fn is_waiting() -> bool {
    WAITING.get()
}

/// Whether something has waited for longer than it had to.
pub(super) fn is_overdue() -> bool {
    WAITING.get() && may_change()
}

/// Puts in force what had to wait; whether the user is another one now. It cannot fail.
pub(crate) fn settle_waiting() -> bool {
    let before = GetUserId();
    if WAITING.get() {
        settle_due();
    }
    GetUserId() != before
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
    let role = TOKEN.get().filter(is_later).filter(|_| !SUSPENDED.get());
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
pub(super) fn may_change() -> bool {
    let (mut user, mut context) = (Oid::INVALID, 0);
    // SAFETY: it writes to both.
    unsafe { GetUserIdAndSecContext(&mut user, &mut context) };
    context == 0
}

/// Lends the name of a role; None where it is not known.
pub(super) fn with_name<T>(role: Oid, body: impl FnOnce(Option<&[u8]>) -> T) -> T {
    if role == Oid::INVALID || !super::in_transaction() {
        return body(None);
    }
    // SAFETY: within a transaction it looks into the catalogs; the name is null or a C string.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() { body(None) } else { body(Some(CStr::from_ptr(name).to_bytes())) }
    }
}

/// Whether the session's login role is locked.
pub(crate) fn is_locked() -> bool {
    with_name(GetSessionUserId(), |login| IS_LOCKED.get()(login))
}

/// Whether the current role is a superuser.
pub(crate) fn is_superuser() -> bool {
    // SAFETY: the call reads a catalog.
    unsafe { pg_sys::superuser() }
}

/// The current role.
pub(crate) fn current_role() -> Oid {
    GetUserId()
}

/// Whether the current role has the privileges of another role: it is that role, a member that inherits
/// from it, or a superuser.
pub(crate) fn has_privileges_of(role: Oid) -> bool {
    // SAFETY: the call reads catalogs, and takes any OID.
    unsafe { pg_sys::has_privs_of_role(GetUserId(), role) }
}

/// Whether a value from there is none of the client's doing, or the session is not locked.
fn is_open(source: pg_sys::GucSource::Type) -> bool {
    use pg_sys::GucSource::*;
    match source {
        PGC_S_DEFAULT | PGC_S_DYNAMIC_DEFAULT | PGC_S_OVERRIDE | PGC_S_TEST => true,
        _ => super::restoring_worker() || !is_locked(),
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
