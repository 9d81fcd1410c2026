//! The role of the token: the database role that a session has because its token names it.
//!
//! A session may have two roles to choose from: the role of the token, and the value of the GUC `role`,
//! which a token does not change. The later of the two is the current role. Postgres keeps the role of a
//! token in the `extra` of the token's value, so that both come and go together, through savepoints,
//! rollbacks and `RESET`. To order the two, the check hook in front of that of `role` numbers the values of
//! `role` on the timeline of the token's values.

use std::cell::Cell;
use std::ffi::c_void;

use session_jwt::{Code, Rejection, quoted};

use crate::pg::backend::{self, BackendLocal};
use crate::pg::relation::Oid;
use crate::pg::role;
use crate::pg::token::{RoleNumbers, TokenRole, timeline};
use crate::settings::ROLE;

/// The role of the token in force.
#[derive(Clone, Copy)]
enum State {
    /// There is no token, or it names no role.
    None,
    /// The session has the role, unless a later value of the GUC `role` is in force.
    Active(TokenRole),
    /// The token does not pass its checks any more, such as `exp`. The session has the role that it would
    /// have without the token.
    Suspended(TokenRole),
}

impl State {
    fn role(self) -> Option<TokenRole> {
        match self {
            State::None => None,
            State::Active(role) | State::Suspended(role) => Some(role),
        }
    }
}

static STATE: BackendLocal<Cell<State>> = BackendLocal::new(Cell::new(State::None));

/// Whether the current user was changed to follow the state. A change that Postgres makes when it restores
/// the GUCs at the end of a transaction follows [`end_transaction`], and so counts for the next
/// transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Settlement {
    /// The state has not changed in this transaction.
    Settled,
    /// The state has changed in this transaction, and the current user with it. The abort of a
    /// subtransaction may restore the earlier user without a call of an assign hook, so that [`settle`] has
    /// to change it again.
    Changed,
    /// The state has changed in this transaction, but the current user cannot, as within a security-definer
    /// function.
    Waiting,
}

static SETTLEMENT: BackendLocal<Cell<Settlement>> =
    BackendLocal::new(Cell::new(Settlement::Settled));

/// The numbers of the values of the GUC `role`.
static ROLE_NUMBERS: RoleNumbers = RoleNumbers::new();

/// Finds the role that a token names.
///
/// # Errors
/// Where the session user may not take the role by `SET ROLE`, the role is a superuser, or the current user
/// cannot change now.
pub(crate) fn find(name: &str) -> Result<TokenRole, Rejection> {
    if !role::can_change() {
        return Err(rejected("A security-definer function is running."));
    }
    let oid = look_up(name)?;
    Ok(TokenRole { oid, session_user: role::session_user(), number: timeline::next() })
}

/// Checks that the token in force, which was verified again, would still get the role that it has.
///
/// # Errors
/// Where it would get another one, or the session may not take the role any more.
pub(crate) fn confirm(name: Option<&str>) -> Result<(), Rejection> {
    let oid = name.map(look_up).transpose()?;
    if oid == STATE.get().role().map(|role| role.oid) {
        return Ok(());
    }
    Err(Rejection::new(Code::Claim, "role of the token has changed")
        .with_detail("The provider names another claim for it than when the token was presented.")
        .with_hint("Present the token again."))
}

/// The role of a name, which the session user may take by `SET ROLE`.
///
/// # Errors
/// Where the session user may not, or the role is a superuser.
pub(crate) fn look_up(name: &str) -> Result<Oid, Rejection> {
    let oid = role::find(name)
        .ok_or_else(|| rejected(format!("The role {} does not exist.", quoted(name))))?;
    if role::is_superuser(oid) {
        return Err(rejected(format!("The role {} is a superuser.", quoted(name))));
    }
    if !role::can_set(oid) {
        let login = role::display_name(role::session_user()).unwrap_or_default();
        let (login, name) = (quoted(&login), quoted(name));
        return Err(if role::is_member(oid) {
            rejected(format!(
                "The login role {login} is a member of the role {name} without the option SET."
            ))
            .with_hint("Have an administrator grant the role to the login role WITH SET TRUE.")
        } else {
            rejected(format!("The login role {login} is not a member of the role {name}."))
                .with_hint("Have an administrator grant the role to the login role.")
        });
    }
    Ok(oid)
}

fn rejected(detail: impl Into<String>) -> Rejection {
    Rejection::new(Code::Claim, "permission denied to set the role of the token")
        .with_detail(detail)
}

/// The error of a statement that was planned for an earlier role.
pub(crate) fn changed() -> Rejection {
    Rejection::new(Code::Forbidden, "role has changed")
        .with_detail("The statement was planned for the role that the session had before.")
        .with_hint("Run the statement again.")
}

/// Whether the token in force names a role, active or suspended.
#[inline(always)]
pub(crate) fn exists() -> bool {
    STATE.get().role().is_some()
}

/// Whether the role of the token is suspended.
pub(crate) fn is_suspended() -> bool {
    matches!(STATE.get(), State::Suspended(_))
}

/// The role of the token in force, active or suspended; [`Oid::INVALID`] where it names none.
pub(crate) fn oid() -> Oid {
    oid_of(STATE.get().role().as_ref())
}

/// The OID of a role; [`Oid::INVALID`] stands for none.
pub(crate) fn oid_of(role: Option<&TokenRole>) -> Oid {
    role.map_or(Oid::INVALID, |role| role.oid)
}

/// Whether the role has changed in this transaction.
pub(crate) fn has_changed() -> bool {
    SETTLEMENT.get() != Settlement::Settled
}

/// Whether a change of the role waits for the end of a security-definer function or a security-restricted
/// operation.
#[inline(always)]
pub(crate) fn is_waiting() -> bool {
    SETTLEMENT.get() == Settlement::Waiting
}

/// Whether a change of the role waits although the current user can change.
pub(crate) fn is_overdue() -> bool {
    is_waiting() && role::can_change()
}

/// Notes the role of the token in force, and settles. It may run during a rollback and cannot fail.
pub(crate) fn set(role: Option<TokenRole>) {
    if STATE.get().role() != role {
        STATE.set(role.map_or(State::None, State::Active));
        SETTLEMENT.set(Settlement::Changed);
        settle();
    }
}

/// Suspends the role of the token, or makes it active again; whether that has changed the state.
pub(crate) fn suspend(is_suspended: bool) -> bool {
    let state = match (STATE.get(), is_suspended) {
        (State::Active(role), true) => State::Suspended(role),
        (State::Suspended(role), false) => State::Active(role),
        _ => return false,
    };
    STATE.set(state);
    SETTLEMENT.set(Settlement::Changed);
    settle();
    true
}

/// Makes the current user follow the state, where the state has changed in this transaction. It cannot
/// fail.
pub(crate) fn settle() {
    // Postgres gives a parallel worker the user of its leader.
    if SETTLEMENT.get() == Settlement::Settled || backend::is_parallel_worker() {
        return;
    }
    if role::can_change() {
        SETTLEMENT.set(Settlement::Changed);
        if let Some(extra) = ROLE.current_extra()
            && !put_in_force(extra)
        {
            ROLE.reassign();
        }
    } else {
        SETTLEMENT.set(Settlement::Waiting);
    }
}

/// Makes the current user follow a waiting change of the state, where the user can change now. Returns
/// whether the current user is another one afterwards. It cannot fail.
pub(crate) fn settle_waiting() -> bool {
    let before = role::current_user();
    if is_waiting() {
        settle();
    }
    role::current_user() != before
}

/// Settles at the end of a transaction, because its abort has restored the earlier user. It cannot fail.
pub(crate) fn end_transaction() {
    settle();
    SETTLEMENT.set(Settlement::Settled);
}

/// Numbers a new value of the GUC `role`, given the extra that the check hook of Postgres left.
pub(crate) fn number_role_value(extra: *mut c_void) {
    ROLE_NUMBERS.add(extra, || ROLE.live_extras());
}

/// Puts the role of the token in force where it is later than the value of the GUC `role` with that extra,
/// and the session user is the one that presented the token; returns whether it is in force.
pub(crate) fn put_in_force(extra: *mut c_void) -> bool {
    let State::Active(token_role) = STATE.get() else {
        return false;
    };
    let is_in_force = token_role.number > ROLE_NUMBERS.of(extra)
        && token_role.session_user == role::session_user();
    if is_in_force {
        role::set_current(token_role.oid);
    }
    is_in_force
}

/// Puts the role of the token in force again after a change of the GUC `session_authorization`.
pub(crate) fn put_in_force_again() {
    if let Some(extra) = ROLE.current_extra() {
        put_in_force(extra);
    }
}
