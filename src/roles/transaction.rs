//! The role of a transaction, and the token of a plan: each transaction has one role of a token, and each
//! plan with policies reads the claims of one token.
//!
//! Postgres chooses policies while it rewrites a statement, for the role of that moment, and checks
//! privileges when the plan starts. Two rules keep the claims of another token out of such a plan:
//!
//! 1. **A transaction has one role of a token.** The first plan that touches tables, or calls a function that
//!    is not granted to PUBLIC, binds the transaction to the role. From then on, and while the planner runs,
//!    a token with another role is rejected. Some changes cannot be rejected, such as `RESET`. They leave
//!    the transaction bound: statements that touch tables fail until the role is back or the transaction
//!    has ended.
//! 2. **A plan with policies reads one token.** While the plan runs, another token is rejected. Where
//!    another token comes into force by a change that cannot be rejected, readers fail. A cursor does not
//!    continue under another token.
//!
//! Postgres has no hook for the rewriter. A statement that a client sends is planned right after it is
//! rewritten, and the role cannot change while the planner runs. Before 18, a function in SQL is analysed and
//! rewritten as a whole before its first statement is planned, and analysis may run code of a user; there, the
//! analysis binds. For a cached plan, Postgres records the role in `CachedPlan.planRoleId`.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;

use session_jwt::{Code, Rejection, quoted};

use super::token_role;
use crate::pg::backend::{self, BackendLocal, nest_level};
use crate::pg::plan::{self, Plan, RunningPlan};
use crate::pg::relation::Oid;
use crate::pg::role;
use crate::pg::token::{Fingerprint, TokenRole};
use crate::settings::JWT;

/// The role of a token that the transaction is bound to. [`Oid::INVALID`] means that it is bound to have
/// none; None, that it is not bound yet.
static BOUND_ROLE: BackendLocal<Cell<Option<Oid>>> = BackendLocal::new(Cell::new(None));

/// The plans that touch tables, have started and have not ended.
static STARTED: BackendLocal<RefCell<Vec<StartedPlan>>> =
    BackendLocal::new(RefCell::new(Vec::new()));

/// Those of [`STARTED`] in which the executor is now, from the outermost.
static RUNNING: BackendLocal<RefCell<Vec<StartedPlan>>> =
    BackendLocal::new(RefCell::new(Vec::new()));

/// One entry for each call of the planner that has not returned, from the outermost: the nest level of its
/// subtransaction.
static PLANNER_LEVELS: BackendLocal<RefCell<Vec<c_int>>> =
    BackendLocal::new(RefCell::new(Vec::new()));

/// A plan that touches tables, and what its execution depends on.
#[derive(Clone, Copy)]
struct StartedPlan {
    plan: RunningPlan,
    /// The token whose claims the plan may have read; None where it has not run.
    token: Option<Fingerprint>,
    /// The nest level of the subtransaction whose abort ends the plan.
    level: c_int,
    /// Whether the plan started with the user of a security-definer function.
    runs_as_definer: bool,
}

impl StartedPlan {
    /// Whether policies, a view or a security-definer function stand between the session and rows. A plan
    /// over plain tables may read the claims of any number of tokens.
    fn has_policies(&self) -> bool {
        self.runs_as_definer || self.plan.has_policies()
    }
}

/// Whether no statement is being planned or runs in a portal.
pub(crate) fn is_idle() -> bool {
    !backend::within_portal() && RUNNING.borrow().is_empty() && !is_planning()
}

fn is_planning() -> bool {
    !PLANNER_LEVELS.borrow().is_empty()
}

/// Binds the transaction to the role of the token in force.
///
/// # Errors
/// Where it is bound to another role, or the current user is still that of an earlier token.
pub(crate) fn bind() -> Result<(), Rejection> {
    if bind_at_once() {
        return Ok(());
    }
    if token_role::is_overdue() {
        return Err(token_role::changed());
    }
    let role = token_role::oid();
    match BOUND_ROLE.get() {
        Some(bound) if bound != role => {
            Err(Rejection::new(Code::Forbidden, "role has changed within the transaction")
                .with_detail(format!(
                    "The transaction has touched tables with {}; the token in force names {}.",
                    described(bound),
                    described(role)
                ))
                .with_hint(
                    "End the transaction, and present the token at the beginning of the next one.",
                ))
        }
        _ => {
            BOUND_ROLE.set(Some(role));
            Ok(())
        }
    }
}

/// Binds the transaction where no change of the role waits, and it is not bound to another role; whether it
/// has. It cannot fail.
#[inline]
fn bind_at_once() -> bool {
    let role = token_role::oid();
    let is_bound = !token_role::is_waiting() && BOUND_ROLE.get().is_none_or(|bound| bound == role);
    if is_bound {
        BOUND_ROLE.set(Some(role));
    }
    is_bound
}

/// Whether there is memory for another plan in both lists.
fn has_room() -> bool {
    let has_room = |plans: &RefCell<Vec<StartedPlan>>| {
        let plans = plans.borrow();
        plans.len() < plans.capacity()
    };
    has_room(&STARTED) && has_room(&RUNNING)
}

/// Binds the transaction in which the library was loaded to have no role of a token. Its running plans were
/// made without such a role, and are unknown here. Where the statement only calls a function, as `SELECT
/// auth.jwt_session_init($1)` does, no such plan runs, and the transaction stays unbound.
pub(crate) fn bind_at_load() {
    if backend::within_statement() && !plan::is_portal_single_call() {
        BOUND_ROLE.set(Some(Oid::INVALID));
    }
}

/// Binds the transaction where it is about to call a function that is not granted to PUBLIC: Postgres has
/// just checked that the role may call it. Functions of this extension bind nothing.
pub(crate) fn check_function(function: Oid) -> Result<(), Rejection> {
    if plan::is_function_for_all(function) { Ok(()) } else { bind() }
}

/// The role of the token and the current user when the planner starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlannedFor {
    role: Oid,
    user: Oid,
}

impl PlannedFor {
    fn now() -> Self {
        Self { role: token_role::oid(), user: role::current_user() }
    }
}

/// Notes that the planner starts.
pub(crate) fn start_planning() -> PlannedFor {
    PLANNER_LEVELS.borrow_mut().push(nest_level());
    PlannedFor::now()
}

/// Notes that the planner has returned a plan, and binds the transaction where the plan touches tables.
///
/// # Errors
/// Where the role or the user has changed. Postgres has rewritten the statement for the earlier one, and a
/// caller may have rewritten other statements that it is about to plan.
pub(crate) fn end_planning(before: PlannedFor, plan: Plan) -> Result<(), Rejection> {
    PLANNER_LEVELS.borrow_mut().pop();
    if PlannedFor::now() != before {
        return Err(token_role::changed());
    }
    if plan.touches_tables() { bind() } else { Ok(()) }
}

/// Notes that a plan that touches tables starts. The plan counts as running until [`leave`].
///
/// # Errors
/// Where the transaction is bound to another role, or the plan was made for another one.
pub(crate) fn start(plan: RunningPlan) -> Result<(), Rejection> {
    bind()?;
    if token_role::has_changed() && plan.is_cached_for_another_user() {
        return Err(token_role::changed());
    }
    note_start(plan);
    Ok(())
}

/// Does the same as [`start`] where nothing can fail; whether it has.
pub(crate) fn start_at_once(plan: RunningPlan) -> bool {
    let can_start = bind_at_once() && !token_role::has_changed() && has_room();
    if can_start {
        note_start(plan);
    }
    can_start
}

fn note_start(plan: RunningPlan) {
    let token = JWT.fingerprint();
    let started = StartedPlan {
        plan,
        // With partitions, the start itself may read claims: the executor evaluates expressions to choose
        // partitions.
        token: plan.has_partitions().then_some(token),
        level: nest_level(),
        runs_as_definer: !role::can_change(),
    };
    // An earlier plan may have failed without its end, and have had the same address.
    end(plan);
    STARTED.borrow_mut().push(started);
    RUNNING.borrow_mut().push(StartedPlan { token: Some(token), ..started });
}

/// Notes that the executor runs a plan that touches tables, from its start or from where it stopped.
///
/// # Errors
/// Where the transaction is bound to another role, or the plan has policies and ran under another token
/// before.
pub(crate) fn enter(plan: RunningPlan) -> Result<(), Rejection> {
    bind()?;
    let token = JWT.fingerprint();
    let level = nest_level();
    let Some(started) = find(plan) else {
        // The plan started before the library was loaded, with the policies for a session without a role of
        // a token.
        if token_role::oid() != Oid::INVALID {
            return Err(token_role::changed());
        }
        let runs_as_definer = !role::can_change();
        let started = StartedPlan { plan, token: Some(token), level, runs_as_definer };
        STARTED.borrow_mut().push(started);
        RUNNING.borrow_mut().push(started);
        return Ok(());
    };
    if started.token.is_some_and(|before| before != token) && started.has_policies() {
        return Err(mixed());
    }
    note_run(plan, token);
    Ok(())
}

/// Does the same as [`enter`] where nothing can fail; whether it has.
pub(crate) fn enter_at_once(plan: RunningPlan) -> bool {
    let token = JWT.fingerprint();
    let reads_one_token =
        || find(plan).is_some_and(|started| started.token.is_none_or(|before| before == token));
    let can_enter = bind_at_once() && has_room() && reads_one_token();
    if can_enter {
        note_run(plan, token);
    }
    can_enter
}

/// Notes that a plan that has started runs under a token, unless it ran under another one before.
fn note_run(plan: RunningPlan, token: Fingerprint) {
    let mut started = STARTED.borrow_mut();
    if let Some(started) = started.iter_mut().rev().find(|started| started.plan == plan) {
        let token = Some(*started.token.get_or_insert(token));
        RUNNING.borrow_mut().push(StartedPlan { token, level: nest_level(), ..*started });
    }
}

/// Notes that the executor finishes a plan that touches tables, such as when a cursor is closed. It raises
/// no error. While the plan finishes, [`check_reader`] checks each reader that resolves the identity.
pub(crate) fn finish(plan: RunningPlan) {
    let (token, level) = (JWT.fingerprint(), nest_level());
    let started =
        find(plan).unwrap_or(StartedPlan { plan, token: None, level, runs_as_definer: false });
    let token = Some(started.token.unwrap_or(token));
    RUNNING.borrow_mut().push(StartedPlan { token, level, ..started });
}

/// Notes that the executor leaves the innermost of the running plans.
pub(crate) fn leave() {
    RUNNING.borrow_mut().pop();
}

/// Notes that a plan has ended.
pub(crate) fn end(plan: RunningPlan) {
    let mut started = STARTED.borrow_mut();
    if let Some(place) = started.iter().position(|started| started.plan == plan) {
        started.swap_remove(place);
    }
}

/// Notes the end of a subtransaction. It cannot fail.
pub(crate) fn end_subtransaction(is_committed: bool) {
    let level = nest_level();
    if is_committed {
        // The plan of a cursor continues in the surrounding transaction.
        for started in STARTED.borrow_mut().iter_mut().filter(|started| started.level == level) {
            started.level -= 1;
        }
    } else {
        STARTED.borrow_mut().retain(|started| started.level < level);
        RUNNING.borrow_mut().retain(|running| running.level < level);
        PLANNER_LEVELS.borrow_mut().retain(|planner| *planner < level);
    }
}

/// Forgets the role and the plans at the end of a transaction. It cannot fail.
pub(crate) fn end_transaction() {
    BOUND_ROLE.set(None);
    STARTED.borrow_mut().clear();
    RUNNING.borrow_mut().clear();
    PLANNER_LEVELS.borrow_mut().clear();
}

/// Checks a token that is presented against the plans of the transaction.
///
/// # Errors
/// Where a plan was made for another role, or a plan with policies reads the claims of another token.
pub(crate) fn check_presentation(
    role: Option<&TokenRole>,
    token: Fingerprint,
) -> Result<(), Rejection> {
    let role = token_role::oid_of(role);
    if is_planning() && role != token_role::oid() {
        return Err(Rejection::new(Code::Claim, "role changes while a statement is planned")
            .with_detail(format!(
                "The token in force names {}; the token presented names {}.",
                described(token_role::oid()),
                described(role)
            ))
            .with_hint(
                "Present tokens in statements of their own, and declare functions that present \
                 them VOLATILE.",
            ));
    }
    if let Some(bound) = BOUND_ROLE.get()
        && bound != role
    {
        return Err(Rejection::new(Code::Claim, "role differs from that of the transaction")
            .with_detail(format!(
                "The transaction has touched tables with {}; the token names {}.",
                described(bound),
                described(role)
            ))
            .with_hint("Present the token at the beginning of a transaction."));
    }
    if has_read_another(token) {
        return Err(Rejection::new(
            Code::Claim,
            "token is presented within a statement with policies",
        )
        .with_detail("A statement whose tables have policies is running under another token.")
        .with_hint("Present the token in a statement of its own."));
    }
    Ok(())
}

/// Checks that the running plans and the trigger may read the claims of the token in force.
///
/// From 18 on, Postgres runs a deferred trigger as the role that queued it. That role may be the one to which
/// the transaction is bound, while the token in force names another one or is gone.
///
/// # Errors
/// Where the transaction is bound to another role, or a running plan with policies reads another token.
pub(crate) fn check_reader() -> Result<(), Rejection> {
    if !RUNNING.borrow().is_empty() {
        bind()?;
        return if has_read_another(JWT.fingerprint()) { Err(mixed()) } else { Ok(()) };
    }
    let is_bound_role = || BOUND_ROLE.get() == Some(role::current_user());
    if !has_bound_role() && !role::can_change() && is_bound_role() { bind() } else { Ok(()) }
}

/// Whether the token in force names the role that the transaction is bound to, or the transaction is not
/// bound. Otherwise, readers check at each call, because no hook precedes a trigger.
pub(crate) fn has_bound_role() -> bool {
    BOUND_ROLE.get().is_none_or(|bound| bound == token_role::oid())
}

/// Whether a running plan with policies started to run under another token.
fn has_read_another(token: Fingerprint) -> bool {
    // The plans are copied, so that no borrow is held in `has_policies`: it reads the catalogs, which may
    // raise an error.
    let running = RUNNING.borrow().clone();
    running.iter().any(|plan| plan.token != Some(token) && plan.has_policies())
}

fn find(plan: RunningPlan) -> Option<StartedPlan> {
    STARTED.borrow().iter().rev().find(|started| started.plan == plan).copied()
}

fn mixed() -> Rejection {
    Rejection::new(Code::Forbidden, "token has changed within a statement with policies")
        .with_detail("The claims of the token from before have chosen its rows so far.")
        .with_hint("Present tokens between statements, and open cursors again.")
}

/// A role for a message.
fn described(role: Oid) -> String {
    match role::display_name(role) {
        Some(name) => format!("the role {}", quoted(&name)),
        None => "no role".to_owned(),
    }
}
