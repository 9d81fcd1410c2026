//! What is done around each statement: before it is planned, before its plan begins, and in the place
//! of a utility statement's beginning.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};

use pgrx::pg_sys;
use session_jwt::Rejection;

use super::BackendLocal;
use super::function::{guarded, guarded_result};
use super::{definition, plan, role, secrets};

static NEXT_ANALYSIS_HOOK: BackendLocal<Cell<pg_sys::post_parse_analyze_hook_type>> =
    BackendLocal::new(Cell::new(None));

static NEXT_PLANNER_HOOK: BackendLocal<Cell<pg_sys::planner_hook_type>> =
    BackendLocal::new(Cell::new(None));

static NEXT_EXECUTOR_HOOK: BackendLocal<Cell<pg_sys::ExecutorStart_hook_type>> =
    BackendLocal::new(Cell::new(None));

static NEXT_RUN_HOOK: BackendLocal<Cell<pg_sys::ExecutorRun_hook_type>> =
    BackendLocal::new(Cell::new(None));

static NEXT_FINISH_HOOK: BackendLocal<Cell<pg_sys::ExecutorFinish_hook_type>> =
    BackendLocal::new(Cell::new(None));

static NEXT_END_HOOK: BackendLocal<Cell<pg_sys::ExecutorEnd_hook_type>> =
    BackendLocal::new(Cell::new(None));

static NEXT_ACCESS_HOOK: BackendLocal<Cell<pg_sys::object_access_hook_type>> =
    BackendLocal::new(Cell::new(None));

static NEXT_UTILITY_HOOK: BackendLocal<Cell<pg_sys::ProcessUtility_hook_type>> =
    BackendLocal::new(Cell::new(None));

/// Says who the session is, before a statement is planned for that role.
static PREPARE: BackendLocal<Cell<fn()>> = BackendLocal::new(Cell::new(|| ()));

/// Says whether the role of the session's token still counts for a statement of this kind.
static VOUCH: BackendLocal<Cell<Vouch>> = BackendLocal::new(Cell::new(|_| Ok(())));

type Vouch = fn(Kind) -> Result<(), Rejection>;

/// Whether a token has been presented outside of a transaction block, and nothing has come after it in
/// its transaction.
static IS_UNUSED: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));

/// Notes that a token has been presented.
pub(crate) fn note_presentation() {
    IS_UNUSED.set(!super::in_transaction_block());
}

/// Notes that something comes that may use the token: a statement, or a read of the identity. Returns
/// whether it is the first.
pub(crate) fn note_use() -> bool {
    IS_UNUSED.replace(false)
}

/// What a statement has to do with the role.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing, so that it may go on without.
    Free,
    /// It is a utility statement that may touch tables.
    Utility,
    /// It touches tables, with a plan that may have been made for the role.
    Plan,
}

/// Installs the hooks: `prepare` is called before each statement is planned, `vouch` before one begins
/// while the session has the role of a token, or is about to lose it.
pub(crate) fn watch(prepare: fn(), vouch: Vouch) {
    PREPARE.set(prepare);
    VOUCH.set(vouch);
    // SAFETY: hooks are installed while the library is loaded, once, and call the one before.
    unsafe {
        NEXT_ANALYSIS_HOOK.set(pg_sys::post_parse_analyze_hook);
        pg_sys::post_parse_analyze_hook = Some(at_analysis);
        NEXT_PLANNER_HOOK.set(pg_sys::planner_hook);
        pg_sys::planner_hook = Some(at_planning);
        NEXT_EXECUTOR_HOOK.set(pg_sys::ExecutorStart_hook);
        pg_sys::ExecutorStart_hook = Some(at_start);
        NEXT_RUN_HOOK.set(pg_sys::ExecutorRun_hook);
        pg_sys::ExecutorRun_hook = Some(at_run);
        NEXT_FINISH_HOOK.set(pg_sys::ExecutorFinish_hook);
        pg_sys::ExecutorFinish_hook = Some(at_finish);
        NEXT_END_HOOK.set(pg_sys::ExecutorEnd_hook);
        pg_sys::ExecutorEnd_hook = Some(at_end);
        NEXT_ACCESS_HOOK.set(pg_sys::object_access_hook);
        pg_sys::object_access_hook = Some(at_access);
        NEXT_UTILITY_HOOK.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(at_utility);
    }
}

unsafe extern "C-unwind" {
    // By hand, without `pgrx`'s guard, which would replace the SQLSTATE of an error of ours.
    fn standard_planner(
        query: *mut pg_sys::Query,
        text: *const c_char,
        options: c_int,
        parameters: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;
    fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
    fn standard_ExecutorRun(
        query: *mut pg_sys::QueryDesc,
        direction: pg_sys::ScanDirection::Type,
        count: u64,
        execute_once: bool,
    );
    fn standard_ExecutorFinish(query: *mut pg_sys::QueryDesc);
    fn standard_ExecutorEnd(query: *mut pg_sys::QueryDesc);
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// Comes after the analysis of a statement, and before policies are added to it: which ones depends on
/// the role. Other libraries keep the text of the statement from here on.
unsafe extern "C-unwind" fn at_analysis(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    if !super::is_parallel_worker() {
        guarded(PREPARE.get());
        // SAFETY: Postgres' own. This frame owns nothing, for errors pass through it.
        if !plan::is_idle() && unsafe { plan::query_touches_tables(query) } {
            guarded_result(plan::bind);
        }
    }
    // SAFETY: the arguments are Postgres' own. Constants stay at their places in the text, which nothing
    // but these hooks reads after the analysis.
    unsafe {
        let text = (*state).p_sourcetext;
        (*state).p_sourcetext = guarded(|| secrets::concealed(text));
        if let Some(next) = NEXT_ANALYSIS_HOOK.get() {
            next(state, query, jumble);
        }
    }
}

/// Plans a statement. Where its tables are, the transaction is bound to the role.
unsafe extern "C-unwind" fn at_planning(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    let next = NEXT_PLANNER_HOOK.get().unwrap_or(standard_planner);
    // SAFETY: the arguments are Postgres' own. This frame owns nothing, for errors pass through it.
    unsafe {
        if super::is_parallel_worker() {
            return next(query, text, options, parameters);
        }
        let text = guarded(|| secrets::concealed(text));
        let before = plan::begin_planning();
        let planned = next(query, text, options, parameters);
        guarded_result(|| plan::end_planning(before, planned));
        planned
    }
}

/// Starts a plan. A parallel worker has just shown its leader's statement as the client sent it; others
/// look whether providers have changed, which has no hook of its own, and whether the role counts.
unsafe extern "C-unwind" fn at_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: the arguments are Postgres' own. This frame owns nothing, for errors pass through it.
    unsafe {
        let next = NEXT_EXECUTOR_HOOK.get().unwrap_or(standard_ExecutorStart);
        if super::is_parallel_worker() {
            guarded(secrets::conceal_statement);
            return next(query, flags);
        }
        note_use();
        crate::providers::accept_invalidations();
        let plan = (*query).plannedstmt;
        vouch(|| if relations(plan).next().is_some() { Kind::Plan } else { Kind::Free });
        let touches_tables = plan::touches_tables(plan);
        if touches_tables {
            guarded_result(|| plan::start(query));
        }
        // The concealed text is there until the plan's own memory is freed, which is when it ends.
        let text = guarded(|| secrets::conceal_source(query));
        next(query, flags);
        if !text.is_null() {
            pg_sys::MemoryContextSetParent(text, (*(*query).estate).es_query_cxt);
        }
        if touches_tables {
            plan::leave();
        }
    }
}

/// Asks whether the role still counts, where there is one of a token, or is about to be none.
fn vouch(kind: impl FnOnce() -> Kind) {
    if role::is_there() || role::is_waiting() {
        let kind = kind();
        guarded_result(|| VOUCH.get()(kind));
    }
}

/// Runs a plan, from its start or on from where it was, as for a cursor.
unsafe extern "C-unwind" fn at_run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    execute_once: bool,
) {
    // SAFETY: the arguments are Postgres' own. This frame owns nothing, for errors pass through it.
    unsafe {
        let touches_tables = touches_tables(query);
        if touches_tables {
            guarded_result(|| plan::enter(query));
        }
        let next = NEXT_RUN_HOOK.get().unwrap_or(standard_ExecutorRun);
        next(query, direction, count, execute_once);
        if touches_tables {
            plan::leave();
        }
    }
}

/// Runs what a plan has left to its end: data-modifying `WITH` queries and `AFTER` triggers. A cursor has
/// nothing left, and can be closed under any token.
unsafe extern "C-unwind" fn at_finish(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the argument is Postgres' own. This frame owns nothing, for errors pass through it.
    unsafe {
        let touches_tables = touches_tables(query);
        if touches_tables {
            plan::finish(query);
        }
        NEXT_FINISH_HOOK.get().unwrap_or(standard_ExecutorFinish)(query);
        if touches_tables {
            plan::leave();
        }
    }
}

/// Whether a plan touches tables, in a process that presents tokens.
///
/// # Safety
/// The plan is Postgres', and has started.
unsafe fn touches_tables(query: *mut pg_sys::QueryDesc) -> bool {
    // SAFETY: the caller's.
    !super::is_parallel_worker() && unsafe { plan::touches_tables((*query).plannedstmt) }
}

/// Ends a plan.
unsafe extern "C-unwind" fn at_end(query: *mut pg_sys::QueryDesc) {
    plan::end(query);
    // SAFETY: the argument is Postgres' own. This frame owns nothing, for errors pass through it.
    unsafe { NEXT_END_HOOK.get().unwrap_or(standard_ExecutorEnd)(query) }
}

/// Comes before a function is called. The one that a client's message calls by itself is in no plan.
unsafe extern "C-unwind" fn at_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: c_int,
    argument: *mut c_void,
) {
    if access == pg_sys::ObjectAccessType::OAT_FUNCTION_EXECUTE && !super::is_parallel_worker() {
        if plan::is_idle() {
            vouch(|| Kind::Free);
        }
        if (role::is_there() || role::is_waiting())
            && object.to_u32() >= pg_sys::FirstNormalObjectId
        {
            guarded_result(|| plan::check_function(object));
        }
    }
    if let Some(next) = NEXT_ACCESS_HOOK.get() {
        // SAFETY: the arguments are Postgres' own. This frame owns nothing, for errors pass through it.
        unsafe { next(access, class, object, part, argument) };
    }
}

/// Runs a utility statement, such as `SET` and `DO`, with its text as others may see it: those that
/// keep statements, and come after us. What is done is in the parse tree, and places in the text
/// stay where they are.
unsafe extern "C-unwind" fn at_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    note_use();
    crate::providers::accept_invalidations();
    // SAFETY: Postgres' own. This frame owns nothing, for errors pass through it.
    unsafe {
        let tree = (*statement).utilityStmt;
        let is_warned_of = context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL
            && is_set_local(tree);
        let is_free = is_free(tree);
        vouch(|| if is_free { Kind::Free } else { Kind::Utility });
        if !is_free && !super::is_parallel_worker() {
            guarded_result(plan::bind);
        }
        guarded_result(|| role::reject_locked(tree));
        guarded_result(|| definition::check_utility(tree));
        let text = guarded(|| secrets::concealed(text));
        let next = NEXT_UTILITY_HOOK.get().unwrap_or(standard_ProcessUtility);
        next(
            statement,
            text,
            read_only_tree,
            context,
            parameters,
            environment,
            destination,
            completion,
        );
        // Postgres has sent a warning itself.
        if is_warned_of {
            note_use();
        }
    }
}

/// Whether a utility statement is `SET LOCAL`.
///
/// # Safety
/// The statement is Postgres'.
unsafe fn is_set_local(statement: *const pg_sys::Node) -> bool {
    // SAFETY: every node begins with its tag, which tells its type.
    unsafe {
        (*statement).type_ == pg_sys::NodeTag::T_VariableSetStmt
            && (*statement.cast::<pg_sys::VariableSetStmt>()).is_local
    }
}

/// The relations that a plan has to do with, of the system catalogs too.
///
/// # Safety
/// The plan is Postgres', and outlives the iterator.
pub(super) unsafe fn relations<'p>(
    plan: *const pg_sys::PlannedStmt,
) -> impl Iterator<Item = &'p pg_sys::RangeTblEntry> {
    // SAFETY: the range table is a list of pointers to range table entries.
    unsafe { elements::<pg_sys::RangeTblEntry>((*plan).rtable).filter(|entry| is_relation(entry)) }
}

/// Whether an entry of a range table is a relation's.
pub(super) fn is_relation(entry: &pg_sys::RangeTblEntry) -> bool {
    entry.rtekind == pg_sys::RTEKind::RTE_RELATION
}

/// The elements of a list of pointers.
///
/// # Safety
/// It is null or a list of pointers to `T`, and outlives the iterator.
pub(super) unsafe fn elements<'l, T: 'l>(list: *const pg_sys::List) -> impl Iterator<Item = &'l T> {
    // SAFETY: the caller's.
    unsafe {
        let cells = list.as_ref().map_or(&[][..], |list| {
            std::slice::from_raw_parts(list.elements, usize::try_from(list.length).unwrap_or(0))
        });
        cells.iter().filter_map(|cell| cell.ptr_value.cast::<T>().as_ref())
    }
}

/// Whether a utility statement needs no role: one that ends or changes the session's state, or runs
/// others, which are looked at themselves.
///
/// # Safety
/// The statement is Postgres'.
unsafe fn is_free(statement: *const pg_sys::Node) -> bool {
    use pg_sys::NodeTag::*;
    // SAFETY: every node begins with its tag.
    let tag = unsafe { (*statement).type_ };
    matches!(
        tag,
        T_TransactionStmt
            | T_VariableSetStmt
            | T_VariableShowStmt
            | T_DiscardStmt
            | T_DeallocateStmt
            | T_ClosePortalStmt
            | T_PrepareStmt
            | T_ExecuteStmt
            | T_DoStmt
            | T_CallStmt
            | T_ConstraintsSetStmt
            | T_ListenStmt
            | T_UnlistenStmt
            | T_NotifyStmt
    )
}
