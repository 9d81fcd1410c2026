//! What is done around each statement: before it is planned, before its plan begins, and in the place
//! of a utility statement's beginning.

use std::cell::Cell;
use std::ffi::{c_char, c_int};

use pgrx::pg_sys;
use session_jwt::Rejection;

use super::BackendLocal;
use super::function::{guarded, guarded_result};
use super::{role, secrets, table};

static NEXT_ANALYSIS_HOOK: BackendLocal<Cell<pg_sys::post_parse_analyze_hook_type>> =
    BackendLocal::new(Cell::new(None));

static NEXT_EXECUTOR_HOOK: BackendLocal<Cell<pg_sys::ExecutorStart_hook_type>> =
    BackendLocal::new(Cell::new(None));

static NEXT_UTILITY_HOOK: BackendLocal<Cell<pg_sys::ProcessUtility_hook_type>> =
    BackendLocal::new(Cell::new(None));

/// Says who the session is, before a statement is planned for that role.
static PREPARE: BackendLocal<Cell<fn()>> = BackendLocal::new(Cell::new(|| ()));

/// Says whether the role of the session's token still counts.
static VOUCH: BackendLocal<Cell<Vouch>> = BackendLocal::new(Cell::new(|| Ok(())));

type Vouch = fn() -> Result<(), Rejection>;

/// Installs the hooks: `prepare` is called before each statement is planned, `vouch` before one that
/// touches tables begins under the role of a token.
pub(crate) fn watch(prepare: fn(), vouch: Vouch) {
    PREPARE.set(prepare);
    VOUCH.set(vouch);
    // SAFETY: hooks are installed while the library is loaded, once, and call the one before.
    unsafe {
        NEXT_ANALYSIS_HOOK.set(pg_sys::post_parse_analyze_hook);
        pg_sys::post_parse_analyze_hook = Some(at_analysis);
        NEXT_EXECUTOR_HOOK.set(pg_sys::ExecutorStart_hook);
        pg_sys::ExecutorStart_hook = Some(at_start);
        NEXT_UTILITY_HOOK.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(at_utility);
    }
}

unsafe extern "C-unwind" {
    // By hand, without `pgrx`'s guard, which would replace the SQLSTATE of an error of ours.
    fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
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
/// the role.
unsafe extern "C-unwind" fn at_analysis(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    if !super::is_parallel_worker() {
        guarded(PREPARE.get());
    }
    if let Some(next) = NEXT_ANALYSIS_HOOK.get() {
        // SAFETY: the arguments are Postgres' own.
        unsafe { next(state, query, jumble) };
    }
}

/// Begins a plan. A parallel worker has just shown its leader's statement as the client sent it; others
/// look whether providers have changed, which has no hook of its own, and whether the role counts.
unsafe extern "C-unwind" fn at_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    if super::is_parallel_worker() {
        guarded(secrets::conceal_statement);
    } else {
        table::look_for_changes();
        // SAFETY: Postgres' own, with the plan that is to begin.
        if role::is_in_force() && unsafe { touches_tables((*query).plannedstmt) } {
            guarded_result(VOUCH.get());
        }
    }
    // SAFETY: the arguments are Postgres' own. This frame owns nothing, for errors pass through it.
    unsafe { NEXT_EXECUTOR_HOOK.get().unwrap_or(standard_ExecutorStart)(query, flags) }
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
    table::look_for_changes();
    // SAFETY: Postgres' own. This frame owns nothing, for errors pass through it.
    unsafe {
        if role::is_in_force() && !is_free((*statement).utilityStmt) {
            guarded_result(VOUCH.get());
        }
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
    }
}

/// Whether a plan has to do with any table; what calls functions alone, as `SELECT
/// auth.jwt_session_init(…)`, has not.
///
/// # Safety
/// The plan is Postgres'.
unsafe fn touches_tables(plan: *const pg_sys::PlannedStmt) -> bool {
    // SAFETY: the range table is null or a list of pointers to range table entries.
    unsafe {
        let Some(range_table) = (*plan).rtable.as_ref() else {
            return false;
        };
        let entries = usize::try_from(range_table.length).unwrap_or(0);
        let entries = std::slice::from_raw_parts(range_table.elements, entries);
        entries.iter().any(|entry| {
            let entry = entry.ptr_value.cast::<pg_sys::RangeTblEntry>();
            (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
        })
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
    )
}
