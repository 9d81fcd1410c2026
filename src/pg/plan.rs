//! What plans are made for, and whose claims they read: both of one token.
//!
//! Postgres chooses policies while it rewrites a statement, for the role of that moment, and checks
//! privileges when the plan starts. Two rules keep the claims of another token out of such a plan:
//!
//! 1. **A transaction has one role by token.** The first plan that touches tables binds the transaction
//!    to the role. A token with another role is rejected from then on, and while the planner runs. A
//!    change that cannot be rejected, such as `RESET`, leaves the transaction bound: statements that
//!    touch tables fail until the role is back or the transaction has ended.
//! 2. **A plan with policies reads one token.** While it runs, another token is rejected; where one
//!    comes into force all the same, readers fail. A cursor does not go on under another token.
//!
//! Postgres has no hook for the rewriter. The first rule does not need one: nothing that a user can
//! write runs between the rewriter and the planner, and the role cannot change while the planner runs.
//! Plans that Postgres has cached are those of `CachedPlan.planRoleId`.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};

use pgrx::pg_sys::{self, Oid};
use session_jwt::{Code, Rejection, quoted};

use super::{BackendLocal, role};

/// The number of the token in force; see [`super::guc::Passed`]. 0 where there is none.
pub(crate) type TokenNumber = u64;

/// The token in force.
static TOKEN: BackendLocal<Cell<TokenNumber>> = BackendLocal::new(Cell::new(0));

/// The role by token that the transaction is bound to; [`Oid::INVALID`] stands for none.
static BOUND: BackendLocal<Cell<Option<Oid>>> = BackendLocal::new(Cell::new(None));

/// Plans that touch tables, have run and have not ended.
static OPEN: BackendLocal<RefCell<Vec<Open>>> = BackendLocal::new(RefCell::new(Vec::new()));

/// Those of them that the executor is in, from the outermost.
static RUNNING: BackendLocal<RefCell<Vec<Open>>> = BackendLocal::new(RefCell::new(Vec::new()));

/// The subtransactions within which the planner runs, from the outermost call.
static PLANNING: BackendLocal<RefCell<Vec<c_int>>> = BackendLocal::new(RefCell::new(Vec::new()));

/// What identifies a plan from its start to its end.
type Query = *const pg_sys::QueryDesc;

#[derive(Clone, Copy)]
struct Open {
    query: Query,
    /// The token that was in force when it ran first.
    token: TokenNumber,
    /// The nesting level of the subtransaction that it ends with.
    level: c_int,
}

unsafe extern "C-unwind" {
    // By hand, without `pgrx`'s guard: they read static variables.
    safe fn GetCurrentTransactionNestLevel() -> c_int;
    safe fn GetUserId() -> Oid;
}

/// Registers the callback for subtransactions.
pub(crate) fn watch() {
    unsafe extern "C-unwind" fn at_subtransaction(
        event: pg_sys::SubXactEvent::Type,
        _: pg_sys::SubTransactionId,
        _: pg_sys::SubTransactionId,
        _: *mut c_void,
    ) {
        use pg_sys::SubXactEvent::{SUBXACT_EVENT_ABORT_SUB, SUBXACT_EVENT_COMMIT_SUB};
        let level = GetCurrentTransactionNestLevel();
        match event {
            SUBXACT_EVENT_ABORT_SUB => {
                OPEN.borrow_mut().retain(|plan| plan.level < level);
                RUNNING.borrow_mut().retain(|plan| plan.level < level);
                PLANNING.borrow_mut().retain(|planning| *planning < level);
            }
            // A cursor goes on in the transaction around it.
            SUBXACT_EVENT_COMMIT_SUB => {
                for plan in OPEN.borrow_mut().iter_mut().filter(|plan| plan.level == level) {
                    plan.level -= 1;
                }
            }
            _ => {}
        }
    }
    // SAFETY: the callback lives as long as the library, which is never unloaded.
    unsafe { pg_sys::RegisterSubXactCallback(Some(at_subtransaction), std::ptr::null_mut()) }
}

/// Unbinds at the end of a transaction. It cannot fail.
pub(crate) fn end_transaction() {
    BOUND.set(None);
    OPEN.borrow_mut().clear();
    RUNNING.borrow_mut().clear();
    PLANNING.borrow_mut().clear();
}

/// Notes the token in force. It may run during a rollback and cannot fail.
pub(super) fn set_token(token: TokenNumber) {
    TOKEN.set(token);
}

/// Whether no statement is under way: neither being planned nor running in a portal.
pub(crate) fn is_idle() -> bool {
    !super::within_portal() && RUNNING.borrow().is_empty() && !is_planning()
}

/// Whether the planner runs.
fn is_planning() -> bool {
    !PLANNING.borrow().is_empty()
}

/// For whom the planner began.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Planning {
    /// The role of the token.
    role: Oid,
    user: Oid,
}

impl Planning {
    fn now() -> Self {
        Self { role: role::of_token(), user: GetUserId() }
    }
}

/// Notes that the planner begins.
pub(super) fn begin_planning() -> Planning {
    PLANNING.borrow_mut().push(GetCurrentTransactionNestLevel());
    Planning::now()
}

/// Notes that the planner has ended.
///
/// # Errors
/// Where the role or the user is another one than when it began: what it has planned was rewritten for
/// the one before, and so was what a caller has rewritten and is going to plan.
pub(super) fn end_planning(
    before: Planning,
    plan: *const pg_sys::PlannedStmt,
) -> Result<(), Rejection> {
    PLANNING.borrow_mut().pop();
    if Planning::now() != before {
        return Err(role::changed());
    }
    // SAFETY: the planner's result.
    if unsafe { touches_tables(plan) } { bind() } else { Ok(()) }
}

/// Binds the transaction to the role of the token in force.
///
/// # Errors
/// Where it is bound to another one, or the user is still that of the token before.
pub(super) fn bind() -> Result<(), Rejection> {
    if role::is_overdue() {
        return Err(role::changed());
    }
    let role = role::of_token();
    match BOUND.get() {
        None => {
            BOUND.set(Some(role));
            Ok(())
        }
        Some(bound) if bound == role => Ok(()),
        Some(bound) => {
            Err(Rejection::new(Code::Forbidden, "role has changed within the transaction")
                .with_detail(format!(
                    "The transaction has touched tables {}; it now has {}.",
                    with(bound),
                    by(role)
                ))
                .with_hint(
                    "End the transaction, and present the token at the beginning of the next one.",
                ))
        }
    }
}

/// Checks a plan that starts and touches tables.
///
/// # Errors
/// Where the transaction is bound to another role, or the plan was made for another one.
pub(super) fn check_start(query: Query) -> Result<(), Rejection> {
    bind()?;
    // A portal may keep a cached plan for longer than the role: from Bind to Execute, or from a
    // cursor's opening to its first FETCH.
    // SAFETY: Postgres' own; a portal's plans are there for as long as it is the active one.
    let is_for_another = unsafe {
        let plan = (*query).plannedstmt;
        pg_sys::ActivePortal.as_ref().is_some_and(|portal| {
            portal.cplan.as_ref().is_some_and(|cached| {
                cached.dependsOnRole
                    && cached.planRoleId != GetUserId()
                    && super::statement::elements::<pg_sys::PlannedStmt>(portal.stmts)
                        .any(|planned| std::ptr::eq(planned, plan))
            })
        })
    };
    if is_for_another && role::has_changed() { Err(role::changed()) } else { Ok(()) }
}

/// Notes that the executor runs a plan that touches tables, from its beginning or from where it was.
///
/// # Errors
/// Where the transaction is bound to another role, or the plan has policies and ran under another
/// token before.
pub(super) fn enter(query: Query) -> Result<(), Rejection> {
    bind()?;
    let (token, level) = (TOKEN.get(), GetCurrentTransactionNestLevel());
    let known = OPEN.borrow().iter().rev().find(|plan| plan.query == query).copied();
    let plan = known.unwrap_or(Open { query, token, level });
    if plan.token != token && has_policies(query) {
        return Err(mixed());
    }
    if known.is_none() {
        OPEN.borrow_mut().push(plan);
    }
    RUNNING.borrow_mut().push(Open { level, ..plan });
    Ok(())
}

/// Notes that a plan has ended.
pub(super) fn end(query: Query) {
    let mut open = OPEN.borrow_mut();
    if let Some(place) = open.iter().rposition(|plan| plan.query == query) {
        open.swap_remove(place);
    }
}

/// Notes that the executor pauses the innermost of the running plans.
pub(super) fn leave() {
    RUNNING.borrow_mut().pop();
}

/// Checks a token that is presented, with its role, against what the transaction has planned.
///
/// # Errors
/// Where it would meet plans that were made for another role, or read the claims of another token.
pub(crate) fn check_presentation(
    role: Option<&role::Role>,
    token: TokenNumber,
) -> Result<(), Rejection> {
    let role = role::oid_of(role);
    if is_planning() && role != role::of_token() {
        return Err(Rejection::new(Code::Claim, "role changes while a statement is planned")
            .with_detail(format!(
                "The session has {}; the token has {}.",
                by(role::of_token()),
                by(role)
            ))
            .with_hint(
                "Present tokens in statements of their own, and declare functions that present \
                 them VOLATILE.",
            ));
    }
    if let Some(bound) = BOUND.get()
        && bound != role
    {
        return Err(Rejection::new(Code::Claim, "role differs from that of the transaction")
            .with_detail(format!(
                "The transaction has touched tables {}; the token has {}.",
                with(bound),
                by(role)
            ))
            .with_hint("Present the token at the beginning of a transaction."));
    }
    if is_read_with_another(token) {
        return Err(Rejection::new(
            Code::Claim,
            "token is presented within a statement with policies",
        )
        .with_detail("A statement whose tables have policies is running under another token.")
        .with_hint("Present the token in a statement of its own."));
    }
    Ok(())
}

/// Checks that claims of the token in force may be read by the plans that are running.
///
/// # Errors
/// As for [`enter`].
pub(crate) fn check_reader() -> Result<(), Rejection> {
    if RUNNING.borrow().is_empty() {
        return Ok(());
    }
    bind()?;
    if is_read_with_another(TOKEN.get()) { Err(mixed()) } else { Ok(()) }
}

/// Whether a running plan with policies began to run under another token.
fn is_read_with_another(token: TokenNumber) -> bool {
    // A copy, for looking at policies may raise an error.
    let running = RUNNING.borrow().clone();
    running.iter().any(|plan| plan.token != token && has_policies(plan.query))
}

/// Whether a plan that has started reads tables whose policies depend on the session.
fn has_policies(query: Query) -> bool {
    // SAFETY: Postgres' own; a plan's tables are there for as long as it has not ended.
    unsafe {
        tables((*query).plannedstmt).any(|table| {
            let applies = pg_sys::check_enable_rls(table, Oid::INVALID, true);
            applies != pg_sys::CheckEnableRlsResult::RLS_NONE as c_int
        })
    }
}

/// Whether a plan has to do with a table, a view or the like that is not of the system catalogs, which
/// have neither policies nor claims in them. What calls functions alone, as `SELECT
/// auth.jwt_session_init(…)`, has not.
///
/// # Safety
/// The plan is Postgres'.
pub(super) unsafe fn touches_tables(plan: *const pg_sys::PlannedStmt) -> bool {
    // SAFETY: the caller's.
    unsafe { tables(plan).next().is_some() }
}

/// # Safety
/// The plan is Postgres', and outlives the iterator.
unsafe fn tables(plan: *const pg_sys::PlannedStmt) -> impl Iterator<Item = Oid> {
    // SAFETY: the caller's.
    unsafe { super::statement::relations(plan) }
        .filter(|table| table.to_u32() >= pg_sys::FirstNormalObjectId)
}

fn mixed() -> Rejection {
    Rejection::new(Code::Forbidden, "token has changed within a statement with policies")
        .with_detail("Its rows so far were chosen by the claims of the token from before.")
        .with_hint("Present tokens between statements, and open cursors anew.")
}

fn by(role: Oid) -> String {
    role::with_name(role, |name| match name {
        Some(name) => format!("the role {}", quoted(&String::from_utf8_lossy(name))),
        None => "no role of a token".to_owned(),
    })
}

fn with(role: Oid) -> String {
    format!("with {}", by(role))
}
