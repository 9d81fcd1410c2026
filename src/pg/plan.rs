//! What plans are made for, and whose claims they read: both of one token.
//!
//! Postgres chooses policies while it rewrites a statement, for the role of that moment, and checks
//! privileges when the plan starts. Two rules keep the claims of another token out of such a plan:
//!
//! 1. **A transaction has one role by token.** The first plan that touches tables, or calls a function
//!    that is not for everybody, binds the transaction to the role. A token with another role is rejected
//!    from then on, and while the planner runs. A change that cannot be rejected, such as `RESET`, leaves
//!    the transaction bound: statements that touch tables fail until the role is back or the transaction
//!    has ended.
//! 2. **A plan with policies reads one token.** While it runs, another token is rejected; where one
//!    comes into force all the same, readers fail. A cursor does not go on under another token.
//!
//! Postgres has no hook for the rewriter. A statement that a client sends is planned right after it is
//! rewritten, and the role cannot change while the planner runs. A function in SQL is analysed and
//! rewritten as a whole before its first statement is planned, and analysis may run a user's code: there
//! the analysis binds. Cached plans are those of `CachedPlan.planRoleId`.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int, c_void};

use pgrx::pg_sys::{self, Oid};
use session_jwt::{Code, Rejection, quoted};

use super::{BackendLocal, role};

/// The number of the token in force; see [`super::guc::Passed`]. 0 where there is none.
pub(crate) type TokenNumber = u64;

/// The token in force.
static TOKEN: BackendLocal<Cell<TokenNumber>> = BackendLocal::new(Cell::new(0));

/// The role by token that the transaction is bound to; [`Oid::INVALID`] stands for none.
static BOUND: BackendLocal<Cell<Option<Oid>>> = BackendLocal::new(Cell::new(None));

/// Plans that touch tables, have started and have not ended.
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
    /// The token whose claims it may have read; None where it has not run.
    token: Option<TokenNumber>,
    /// The nesting level of the subtransaction that it ends with.
    level: c_int,
    /// Whether it runs as the owner of a security-definer function.
    is_definers: bool,
}

unsafe extern "C-unwind" {
    // By hand, without `pgrx`'s guard: they read static variables.
    safe fn GetCurrentTransactionNestLevel() -> c_int;
    safe fn GetUserId() -> Oid;
    // They may raise an error where the stack is too deep, and are called from frames that own nothing.
    fn query_tree_walker(
        query: *const pg_sys::Query,
        walker: Walker,
        context: *mut c_void,
        flags: c_int,
    ) -> bool;
    fn expression_tree_walker(
        node: *const pg_sys::Node,
        walker: Walker,
        context: *mut c_void,
    ) -> bool;
}

/// Visits a node; true ends the walk.
type Walker = unsafe extern "C-unwind" fn(*const pg_sys::Node, *mut c_void) -> bool;

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
                    "The transaction has touched tables with {}; the token in force names {}.",
                    described(bound),
                    described(role)
                ))
                .with_hint(
                    "End the transaction, and present the token at the beginning of the next one.",
                ))
        }
    }
}

/// Notes that a plan starts that touches tables. It counts as running until [`leave`].
///
/// # Errors
/// Where the transaction is bound to another role, or the plan was made for another one.
pub(super) fn start(query: Query) -> Result<(), Rejection> {
    bind()?;
    if is_cached_for_another(query) && role::has_changed() {
        return Err(role::changed());
    }
    let token = TOKEN.get();
    let plan = Open {
        query,
        // Which partitions are read is decided when the plan starts.
        // SAFETY: Postgres' own.
        token: unsafe { has_partitions((*query).plannedstmt) }.then_some(token),
        level: GetCurrentTransactionNestLevel(),
        is_definers: !role::may_change(),
    };
    // The memory may have been that of a plan which has failed.
    end(query);
    OPEN.borrow_mut().push(plan);
    RUNNING.borrow_mut().push(Open { token: Some(token), ..plan });
    Ok(())
}

/// Whether a plan is a portal's, and Postgres has cached it for another user. A portal may keep a cached
/// plan for longer than the role: from Bind to Execute, or from a cursor's opening to its first FETCH.
fn is_cached_for_another(query: Query) -> bool {
    // SAFETY: Postgres' own; a portal's plans are there for as long as it is the active one.
    unsafe {
        let plan = (*query).plannedstmt;
        pg_sys::ActivePortal.as_ref().is_some_and(|portal| {
            portal.cplan.as_ref().is_some_and(|cached| {
                cached.dependsOnRole
                    && cached.planRoleId != GetUserId()
                    && super::node::elements::<pg_sys::PlannedStmt>(portal.stmts)
                        .any(|planned| std::ptr::eq(planned, plan))
            })
        })
    }
}

/// Notes that the executor runs a plan that touches tables, from its beginning or from where it was.
///
/// # Errors
/// Where the transaction is bound to another role, or the plan has policies and ran under another
/// token before.
pub(super) fn enter(query: Query) -> Result<(), Rejection> {
    bind()?;
    let token = TOKEN.get();
    let Some(plan) = find(query) else {
        // It started before the library was there, with the policies of no token's role.
        if role::of_token() != Oid::INVALID {
            return Err(role::changed());
        }
        let level = GetCurrentTransactionNestLevel();
        let plan = Open { query, token: Some(token), level, is_definers: !role::may_change() };
        OPEN.borrow_mut().push(plan);
        RUNNING.borrow_mut().push(plan);
        return Ok(());
    };
    if plan.token.is_some_and(|before| before != token) && has_policies(&plan) {
        return Err(mixed());
    }
    if let Some(open) = OPEN.borrow_mut().iter_mut().find(|open| open.query == query) {
        open.token.get_or_insert(token);
    }
    let level = GetCurrentTransactionNestLevel();
    RUNNING.borrow_mut().push(Open { token: Some(plan.token.unwrap_or(token)), level, ..plan });
    Ok(())
}

/// Notes that the executor finishes a plan that touches tables, as it does for a cursor that is closed.
/// Whatever it reads is checked by [`check_reader`].
pub(super) fn finish(query: Query) {
    let (token, level) = (TOKEN.get(), GetCurrentTransactionNestLevel());
    let plan = find(query).unwrap_or(Open { query, token: None, level, is_definers: false });
    RUNNING.borrow_mut().push(Open { token: Some(plan.token.unwrap_or(token)), level, ..plan });
}

fn find(query: Query) -> Option<Open> {
    OPEN.borrow().iter().find(|plan| plan.query == query).copied()
}

/// Notes that a plan has ended.
pub(super) fn end(query: Query) {
    let mut open = OPEN.borrow_mut();
    if let Some(place) = open.iter().position(|plan| plan.query == query) {
        open.swap_remove(place);
    }
}

/// Notes that the executor leaves the innermost of the running plans.
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
                "The token in force names {}; the token presented names {}.",
                described(role::of_token()),
                described(role)
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
                "The transaction has touched tables with {}; the token names {}.",
                described(bound),
                described(role)
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
    running.iter().any(|plan| plan.token != Some(token) && has_policies(plan))
}

/// Whether a plan stands between the session and rows: by policies, by a view, or by a security-definer
/// function. Plans over plain tables may read the claims of as many tokens as they like, and so may those
/// that insert into a view, whose trigger may present them.
fn has_policies(plan: &Open) -> bool {
    // SAFETY: Postgres' own; a plan's tables are there for as long as it has not ended.
    unsafe {
        let planned = (*plan.query).plannedstmt;
        let target = match (*planned).resultRelations.as_ref() {
            Some(list) if (*planned).commandType == pg_sys::CmdType::CMD_INSERT => {
                list.elements.as_ref().map(|cell| cell.int_value)
            }
            _ => None,
        };
        let entries = super::node::elements::<pg_sys::RangeTblEntry>((*planned).rtable);
        let is_guard = |(entry, index): (&pg_sys::RangeTblEntry, c_int)| {
            let is_view = entry.relkind as u8 == pg_sys::RELKIND_VIEW;
            is_table(entry)
                && if is_view {
                    target != Some(index)
                } else {
                    pg_sys::check_enable_rls(entry.relid, Oid::INVALID, true)
                        != pg_sys::CheckEnableRlsResult::RLS_NONE as c_int
                }
        };
        plan.is_definers || entries.zip(1..).any(is_guard)
    }
}

/// Whether a query that was analysed has to do with tables, as [`touches_tables`] has it of plans.
///
/// # Safety
/// The query is Postgres'. An error may pass through this frame.
pub(super) unsafe fn query_touches_tables(query: *const pg_sys::Query) -> bool {
    unsafe extern "C-unwind" fn walk(node: *const pg_sys::Node, context: *mut c_void) -> bool {
        // SAFETY: the walkers pass nodes of the tree, or null; a node's tag tells its type.
        unsafe {
            let Some(tag) = node.as_ref().map(|node| node.type_) else {
                return false;
            };
            match tag {
                pg_sys::NodeTag::T_RangeTblEntry => is_table(&*node.cast()),
                pg_sys::NodeTag::T_Query => {
                    let flags = pg_sys::QTW_EXAMINE_RTES_BEFORE as c_int;
                    query_tree_walker(node.cast(), walk, context, flags)
                }
                _ => expression_tree_walker(node, walk, context),
            }
        }
    }
    // SAFETY: the caller's.
    unsafe { walk(query.cast(), std::ptr::null_mut()) }
}

/// Binds the transaction where a function is about to be called that is not for everybody: that the role
/// may call it has just been checked. Functions of this extension bind nothing.
pub(super) fn check_function(function: Oid) -> Result<(), Rejection> {
    // SAFETY: within a transaction they look into the catalogs. No role has the OID 0, so that what it
    // may do is what PUBLIC may.
    let (is_public, extension) = unsafe {
        let mode = pg_sys::AclMode::from(pg_sys::ACL_EXECUTE);
        let granted = pg_sys::pg_proc_aclcheck(function, Oid::INVALID, mode);
        if granted == pg_sys::AclResult::ACLCHECK_OK {
            (true, Oid::INVALID)
        } else {
            (false, pg_sys::getExtensionOfObject(pg_sys::ProcedureRelationId, function))
        }
    };
    // SAFETY: as above; the name is a C string.
    let is_own = || extension == unsafe { pg_sys::get_extension_oid(EXTENSION.as_ptr(), true) };
    if is_public || (extension != Oid::INVALID && is_own()) { Ok(()) } else { bind() }
}

const EXTENSION: &CStr = c"pg_session_jwt";

/// Binds the transaction that has loaded the library to no role, for its plans that are under way were
/// made for none, and are not known. The statement may be a mere call of one function with constants or
/// parameters, as `SELECT auth.jwt_session_init($1)`: then no plan is.
pub(crate) fn bind_at_load() {
    // SAFETY: Postgres' own; an active portal's plans are there.
    let is_mere_call = unsafe {
        pg_sys::ActivePortal.as_ref().is_some_and(|portal| {
            let mut plans = super::node::elements::<pg_sys::PlannedStmt>(portal.stmts);
            plans.next().is_some_and(|plan| is_mere_call(plan)) && plans.next().is_none()
        })
    };
    if super::within_statement() && !is_mere_call {
        BOUND.set(Some(Oid::INVALID));
    }
}

/// # Safety
/// The plan is Postgres'.
unsafe fn is_mere_call(plan: &pg_sys::PlannedStmt) -> bool {
    use pg_sys::NodeTag::{T_Const, T_FuncExpr, T_Param, T_RelabelType, T_Result};
    // SAFETY: the caller's; a node's tag tells its type.
    unsafe {
        let elements = super::node::elements::<pg_sys::Node>;
        let tree = plan.planTree;
        if plan.utilityStmt.is_null()
            && !tree.is_null()
            && (*tree).type_ == T_Result
            && (*tree).lefttree.is_null()
            && plan.subplans.is_null()
            && (*tree.cast::<pg_sys::Result>()).resconstantqual.is_null()
        {
            let mut targets = super::node::elements::<pg_sys::TargetEntry>((*tree).targetlist);
            let (Some(target), None) = (targets.next(), targets.next()) else {
                return false;
            };
            let call = target.expr.cast::<pg_sys::FuncExpr>();
            return (*target.expr).type_ == T_FuncExpr
                && elements((*call).args).all(|argument| {
                    let argument: *const pg_sys::Node = argument;
                    let inner = if (*argument).type_ == T_RelabelType {
                        (*argument.cast::<pg_sys::RelabelType>()).arg.cast_const().cast()
                    } else {
                        argument
                    };
                    matches!((*inner).type_, T_Const | T_Param)
                });
        }
        false
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

/// Whether a plan reads partitioned tables, whose partitions it may choose when it starts.
///
/// # Safety
/// The plan is Postgres'.
unsafe fn has_partitions(plan: *const pg_sys::PlannedStmt) -> bool {
    // SAFETY: the caller's.
    unsafe { tables(plan).any(|entry| entry.relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE) }
}

/// # Safety
/// The plan is Postgres', and outlives the iterator.
unsafe fn tables<'p>(
    plan: *const pg_sys::PlannedStmt,
) -> impl Iterator<Item = &'p pg_sys::RangeTblEntry> {
    // SAFETY: the caller's.
    unsafe { super::node::relations(plan) }.filter(|entry| is_table(entry))
}

fn is_table(entry: &pg_sys::RangeTblEntry) -> bool {
    super::node::is_relation(entry) && entry.relid.to_u32() >= pg_sys::FirstNormalObjectId
}

fn mixed() -> Rejection {
    Rejection::new(Code::Forbidden, "token has changed within a statement with policies")
        .with_detail("Its rows so far were chosen by the claims of the token from before.")
        .with_hint("Present tokens between statements, and open cursors anew.")
}

/// A role as a message names it.
fn described(role: Oid) -> String {
    role::with_name(role, |name| match name {
        Some(name) => format!("the role {}", quoted(&String::from_utf8_lossy(name))),
        None => "no role".to_owned(),
    })
}
