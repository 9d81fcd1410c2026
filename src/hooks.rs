//! Every registration with Postgres. Each function has the name that Postgres gives to its hook or
//! callback. It calls the modules below, and the hook that was installed before it.
//!
//! An error of Postgres in the next hook is a long jump past the frames of these functions. No destructor
//! runs, so the frames own nothing. Code that may raise an error itself is called within [`guarded`].

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};

use pgrx::pg_sys::{self, Datum, Oid};
use session_jwt::Rejection;

use crate::audit;
use crate::permissions;
use crate::pg::backend::{self, BackendLocal};
use crate::pg::compat::{self, executor_run_hook};
use crate::pg::error::{self, guarded, guarded_result};
use crate::pg::guc;
use crate::pg::memory;
use crate::pg::node::Statement;
use crate::pg::plan::{self, Plan, Query, RunningPlan};
use crate::pg::token::TokenVariable;
use crate::pg::{redact, relation, role, worker};
use crate::providers;
use crate::revocations;
use crate::roles::{self, locked, token_role, transaction};
use crate::session::{
    self, Need, absence, admission, current, lifetime, presence, request_claims, trial,
};
use crate::settings::{
    self, AUDIT_LOG, Document, IDENTITY_SCOPE, JWK, JWKS_HTTP_HOSTS_NAME, JWT, LOCKED_ROLES_NAME,
    PROVIDERS, ROLE, SESSION_AUTHORIZATION, TRUST_REQUEST_CLAIMS,
};
use crate::signatures;
use crate::statistics::{self, sessions};

/// Registers all hooks, callbacks and GUCs, when the postmaster or a backend loads the library. Interrupts
/// are held, so that a query cancel does not leave some of them unregistered.
pub(crate) fn register() {
    error::replace_panic_hook();
    memory::fill_reserve();
    guarded(|| {
        backend::hold_interrupts(|| {
            register_emit_log_hook();
            if backend::is_preloading() {
                register_shmem_hooks();
            } else {
                register_statement_hooks();
            }
            register_callbacks();
            transaction::bind_at_load();
            settings::define(&settings::Hooks {
                jwk: (Some(jwk_check), Some(jwk_assign), None),
                providers: (Some(providers_check), Some(providers_assign), None),
                jwks_http_hosts: (Some(jwks_http_hosts_check), None, None),
                locked_roles: (Some(locked_roles_check), None, None),
                trust_request_claims: Some(trust_request_claims_assign),
                audit_log: Some(audit_log_assign),
                identity_scope: Some(identity_scope_assign),
                jwt: (Some(jwt_check), Some(jwt_assign), Some(jwt_show)),
                role: (Some(role_check), Some(role_assign), Some(role_show)),
                session_authorization: (
                    Some(session_authorization_check),
                    Some(session_authorization_assign),
                    None,
                ),
                request_claims: (None, Some(request_claims_assign), None),
            });
            lifetime::start();
        });
    });
}

/// The hook that was installed before one of this module. The hook of this module calls it.
type Next<T> = BackendLocal<Cell<Option<T>>>;

macro_rules! install {
    ($($hook:ident, $function:ident, $next:ident;)+) => {
        // SAFETY: hooks are installed while the library is loaded, once, on the only thread.
        $(unsafe {
            $next.set(pg_sys::$hook);
            pg_sys::$hook = Some($function);
        })+
    };
}

fn register_emit_log_hook() {
    install! { emit_log_hook, emit_log, NEXT_EMIT_LOG; }
}

fn register_shmem_hooks() {
    install! {
        shmem_request_hook, shmem_request, NEXT_SHMEM_REQUEST;
        shmem_startup_hook, shmem_startup, NEXT_SHMEM_STARTUP;
    }
}

/// Where the postmaster loads the library, these hooks are installed after all libraries are loaded. The
/// hook that is installed last runs first, and a library whose hook runs earlier gets the text with the
/// token.
fn register_statement_hooks() {
    install! {
        post_parse_analyze_hook, post_parse_analyze, NEXT_POST_PARSE_ANALYZE;
        planner_hook, planner, NEXT_PLANNER;
        get_relation_info_hook, get_relation_info, NEXT_GET_RELATION_INFO;
        get_relation_stats_hook, get_relation_stats, NEXT_GET_RELATION_STATS;
        get_index_stats_hook, get_index_stats, NEXT_GET_INDEX_STATS;
        ExecutorStart_hook, executor_start, NEXT_EXECUTOR_START;
        ExecutorRun_hook, executor_run, NEXT_EXECUTOR_RUN;
        ExecutorFinish_hook, executor_finish, NEXT_EXECUTOR_FINISH;
        ExecutorEnd_hook, executor_end, NEXT_EXECUTOR_END;
        ProcessUtility_hook, process_utility, NEXT_PROCESS_UTILITY;
        object_access_hook, object_access, NEXT_OBJECT_ACCESS;
    }
}

fn register_callbacks() {
    use pg_sys::SysCacheIdentifier::{AUTHMEMROLEMEM, AUTHOID, DATABASEOID, NAMESPACEOID};
    // SAFETY: the callbacks last as long as the library, which Postgres never unloads.
    unsafe {
        pg_sys::RegisterXactCallback(Some(xact_callback), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subxact_callback), std::ptr::null_mut());
        pg_sys::CacheRegisterRelcacheCallback(Some(relcache_callback), Datum::null());
        // The owner of the database is a member of pg_database_owner.
        for cache in [AUTHOID, AUTHMEMROLEMEM, DATABASEOID] {
            let callback = Some(role_syscache_callback as _);
            pg_sys::CacheRegisterSyscacheCallback(cache as c_int, callback, Datum::null());
        }
        let callback = Some(namespace_syscache_callback as _);
        pg_sys::CacheRegisterSyscacheCallback(NAMESPACEOID as c_int, callback, Datum::null());
    }
}

// Statements.

type PostParseAnalyze = unsafe extern "C-unwind" fn(
    *mut pg_sys::ParseState,
    *mut pg_sys::Query,
    *mut pg_sys::JumbleState,
);

static NEXT_POST_PARSE_ANALYZE: Next<PostParseAnalyze> = BackendLocal::new(Cell::new(None));

/// Postgres calls it after the analysis of a statement, and before the rewriter adds the policies for the
/// role.
unsafe extern "C-unwind" fn post_parse_analyze(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: the arguments are those of the hook. A redacted text has the same length, so that constants
    // stay at their places; after the analysis, only hooks read it.
    unsafe {
        if !backend::is_parallel_worker() {
            if request_claims::is_trusted() {
                register_exit_callback();
            }
            if session::is_to_be_prepared() {
                guarded(session::prepare_statement);
            }
            if !transaction::is_idle() && Query::from_raw(query).touches_tables() {
                guarded_result(transaction::bind);
            }
        }
        let text = (*state).p_sourcetext;
        (*state).p_sourcetext = redact::redacted(text);
        if let Some(next) = NEXT_POST_PARSE_ANALYZE.get() {
            next(state, query, jumble);
        }
    }
}

static NEXT_PLANNER: Next<compat::Planner> = BackendLocal::new(Cell::new(None));

/// Gives the next planner the redacted text. Binds the transaction to the role of the token, where the plan
/// touches tables. The planner may evaluate functions, or replace their calls by their bodies, with the privileges
/// of the role. So the token is checked before a statement is planned, as it is again before the statement runs.
unsafe extern "C-unwind" fn planner(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    let next = NEXT_PLANNER.get().unwrap_or(compat::standard_planner);
    // SAFETY: the arguments are those of the hook, and the next one returns a plan.
    unsafe {
        if backend::is_parallel_worker() {
            return next(query, text, options, parameters);
        }
        if transaction::is_idle() {
            accept_invalidations();
            let query = Query::from_raw(query);
            check_role(|| if query.touches_tables() { Need::PlannedRole } else { Need::Nothing });
        }
        let text = redact::redacted(text);
        let before = transaction::start_planning();
        // A parallel worker does not know the identity of a trial.
        let options =
            if trial::is_active() { plan::without_parallel_plans(options) } else { options };
        let plan = next(query, text, options, parameters);
        guarded_result(|| transaction::end_planning(before, Plan::from_raw(plan)));
        plan
    }
}

// While a query is tried, the planner finds no statistics. With them, it estimates how many rows pass a condition: it
// calls the functions of operators, also of one that a hostile owner has made of a built-in function, and Postgres
// calls no hook before such a call.

type GetRelationInfo =
    unsafe extern "C-unwind" fn(*mut pg_sys::PlannerInfo, Oid, bool, *mut pg_sys::RelOptInfo);

static NEXT_GET_RELATION_INFO: Next<GetRelationInfo> = BackendLocal::new(Cell::new(None));

/// Postgres calls it when the planner has read what the catalogs tell of a relation, with its extended statistics.
unsafe extern "C-unwind" fn get_relation_info(
    root: *mut pg_sys::PlannerInfo,
    relation: Oid,
    inherits: bool,
    info: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: the arguments are those of the hook, and an empty list is null.
    unsafe {
        if let Some(next) = NEXT_GET_RELATION_INFO.get() {
            next(root, relation, inherits, info);
        }
        if trial::is_active() {
            (*info).statlist = std::ptr::null_mut();
        }
    }
}

type GetRelationStats = unsafe extern "C-unwind" fn(
    *mut pg_sys::PlannerInfo,
    *mut pg_sys::RangeTblEntry,
    pg_sys::AttrNumber,
    *mut pg_sys::VariableStatData,
) -> bool;

static NEXT_GET_RELATION_STATS: Next<GetRelationStats> = BackendLocal::new(Cell::new(None));

/// Postgres calls it before it reads the statistics of a column; true means that there are none but those that a
/// hook has left in the last argument.
unsafe extern "C-unwind" fn get_relation_stats(
    root: *mut pg_sys::PlannerInfo,
    entry: *mut pg_sys::RangeTblEntry,
    column: pg_sys::AttrNumber,
    found: *mut pg_sys::VariableStatData,
) -> bool {
    trial::is_active()
        // SAFETY: the arguments are those of the hook.
        || NEXT_GET_RELATION_STATS.get().is_some_and(|next| unsafe { next(root, entry, column, found) })
}

type GetIndexStats = unsafe extern "C-unwind" fn(
    *mut pg_sys::PlannerInfo,
    Oid,
    pg_sys::AttrNumber,
    *mut pg_sys::VariableStatData,
) -> bool;

static NEXT_GET_INDEX_STATS: Next<GetIndexStats> = BackendLocal::new(Cell::new(None));

/// The same for an expression of an index.
unsafe extern "C-unwind" fn get_index_stats(
    root: *mut pg_sys::PlannerInfo,
    index: Oid,
    column: pg_sys::AttrNumber,
    found: *mut pg_sys::VariableStatData,
) -> bool {
    trial::is_active()
        // SAFETY: the arguments are those of the hook.
        || NEXT_GET_INDEX_STATS.get().is_some_and(|next| unsafe { next(root, index, column, found) })
}

static NEXT_EXECUTOR_START: Next<compat::ExecutorStart> = BackendLocal::new(Cell::new(None));

/// Checks whether the token is still valid and its role still granted, and binds the transaction where the
/// plan touches tables. The next hooks get the redacted text.
unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    let next = NEXT_EXECUTOR_START.get().unwrap_or(compat::standard_ExecutorStart);
    // SAFETY: the arguments are those of the hook. The redacted text lasts as long as the memory of the
    // plan, to which it is attached once that exists.
    unsafe {
        if backend::is_parallel_worker() {
            // The worker has just reported the statement of its leader, with the text that the client sent.
            guarded(redact::redact_statement);
            return next(query, flags);
        }
        lifetime::note_use();
        accept_invalidations();
        let running = RunningPlan::from_raw(query);
        let plan = running.plan();
        check_role(|| if plan.has_relations() { Need::PlannedRole } else { Need::Nothing });
        let touches_tables = plan.touches_tables();
        if touches_tables && !transaction::start_at_once(running) {
            guarded_result(|| transaction::start(running));
        }
        let text = redact::redact_source(query);
        next(query, flags);
        if !text.is_null() {
            pg_sys::MemoryContextSetParent(text, (*(*query).estate).es_query_cxt);
        }
        if touches_tables {
            transaction::leave();
        }
    }
}

/// Processes invalidations before a statement, where the session has read the tables of providers or revocations, or
/// has a role by token. Postgres itself does so when a transaction begins and when a relation is locked; a later
/// statement without new locks would miss the removal of a provider or of a membership, and a revocation.
fn accept_invalidations() {
    let depends =
        || revocations::has_read_table() || providers::has_read_table() || token_role::exists();
    if depends() && backend::in_transaction() {
        relation::accept_invalidations();
    }
}

/// Checks the role of the token, where the token names a role, or a change of the role waits.
fn check_role(need: impl FnOnce() -> Need) {
    if token_role::exists() || token_role::is_waiting() {
        let need = need();
        guarded_result(|| session::check_role(need));
    }
}

static NEXT_EXECUTOR_RUN: Next<compat::ExecutorRun> = BackendLocal::new(Cell::new(None));

// Checks, before the executor runs a plan or continues it, whether the plan may read the token in force.
executor_run_hook!(executor_run, NEXT_EXECUTOR_RUN.get(), |query, run: &dyn Fn()| {
    // A message may run a plan that an earlier one has started.
    if !current::is_in_run() && !backend::is_parallel_worker() {
        accept_invalidations();
        // SAFETY: the argument is the one of the hook, and the plan has started.
        let plan = unsafe { RunningPlan::from_raw(query) };
        check_role(|| if plan.plan().has_relations() { Need::PlannedRole } else { Need::Nothing });
        if plan.has_run() && !current::is_ready() {
            guarded_result(|| session::check_continued(plan));
        }
    }
    // SAFETY: the argument is the one of the hook, and the plan has started.
    let plan = unsafe { touching_tables(query) };
    if let Some(plan) = plan
        && !transaction::enter_at_once(plan)
    {
        guarded_result(|| transaction::enter(plan));
    }
    let is_outermost = current::enter_run();
    if is_outermost {
        // An Execute message has just reported the text that the client has sent in a Parse message.
        redact::redact_running();
    }
    run();
    if is_outermost {
        current::leave_run();
    }
    if plan.is_some() {
        transaction::leave();
    }
});

static NEXT_EXECUTOR_FINISH: Next<compat::ExecutorFinish> = BackendLocal::new(Cell::new(None));

/// The executor runs data-modifying `WITH` queries of a plan to their end here, and fires AFTER triggers.
unsafe extern "C-unwind" fn executor_finish(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the argument is the one of the hook, and the plan has started.
    unsafe {
        let plan = touching_tables(query);
        if let Some(plan) = plan {
            transaction::finish(plan);
        }
        let is_outermost = current::reenter_run();
        NEXT_EXECUTOR_FINISH.get().unwrap_or(compat::standard_ExecutorFinish)(query);
        if is_outermost {
            current::leave_run();
        }
        if plan.is_some() {
            transaction::leave();
        }
    }
}

/// The plan, if it touches tables and the process is no parallel worker, which presents no tokens.
///
/// # Safety
/// The plan is a `QueryDesc` of Postgres, and has started.
unsafe fn touching_tables(query: *mut pg_sys::QueryDesc) -> Option<RunningPlan> {
    if backend::is_parallel_worker() {
        return None;
    }
    // SAFETY: the caller passes a plan that has not ended.
    let plan = unsafe { RunningPlan::from_raw(query) };
    plan.plan().touches_tables().then_some(plan)
}

static NEXT_EXECUTOR_END: Next<compat::ExecutorEnd> = BackendLocal::new(Cell::new(None));

unsafe extern "C-unwind" fn executor_end(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the argument is the one of the hook.
    unsafe {
        transaction::end(RunningPlan::from_raw(query));
        NEXT_EXECUTOR_END.get().unwrap_or(compat::standard_ExecutorEnd)(query);
    }
}

static NEXT_PROCESS_UTILITY: Next<compat::ProcessUtility> = BackendLocal::new(Cell::new(None));

/// Runs a utility statement. The next hooks get the redacted text. Postgres runs the parse tree, which is
/// not changed, and the places of constants in the text stay the same.
unsafe extern "C-unwind" fn process_utility(
    planned: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    lifetime::note_use();
    accept_invalidations();
    // SAFETY: the arguments are those of the hook.
    unsafe {
        let statement = Statement::new((*planned).utilityStmt);
        let is_toplevel = context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL;
        let warns_itself = is_toplevel && statement.is_set_local();
        let needs_no_role = roles::commands::needs_no_role(statement);
        check_role(|| if needs_no_role { Need::Nothing } else { Need::Role });
        if !needs_no_role && !backend::is_parallel_worker() {
            guarded_result(transaction::bind);
        }
        guarded_result(|| roles::commands::check_locked_session(statement));
        guarded_result(|| permissions::commands::check_utility(statement));
        if is_toplevel && statement.resets_all() {
            guarded(lifetime::discard);
        }
        let text = redact::redacted(text);
        let next = NEXT_PROCESS_UTILITY.get().unwrap_or(compat::standard_ProcessUtility);
        next(
            planned,
            text,
            read_only_tree,
            context,
            parameters,
            environment,
            destination,
            completion,
        );
        // Postgres has warned of a SET LOCAL outside of a transaction block. This drops the extension's own
        // warning.
        if warns_itself {
            lifetime::note_use();
        }
    }
}

type ObjectAccess =
    unsafe extern "C-unwind" fn(pg_sys::ObjectAccessType::Type, Oid, Oid, c_int, *mut c_void);

static NEXT_OBJECT_ACCESS: Next<ObjectAccess> = BackendLocal::new(Cell::new(None));

/// Postgres calls it before the call of a function, which a fast-path message makes without a plan, and
/// after the creation of an object.
unsafe extern "C-unwind" fn object_access(
    access: pg_sys::ObjectAccessType::Type,
    class: Oid,
    object: Oid,
    part: c_int,
    argument: *mut c_void,
) {
    use pg_sys::ObjectAccessType::{OAT_FUNCTION_EXECUTE, OAT_POST_CREATE};
    if access == OAT_FUNCTION_EXECUTE && !backend::is_parallel_worker() {
        if request_claims::is_trusted() {
            register_exit_callback();
        }
        if transaction::is_idle() {
            accept_invalidations();
            let before = role::current_user();
            check_role(|| Need::Nothing);
            // Postgres has checked the privilege of the earlier user.
            let has_changed = role::current_user() != before;
            guarded_result(|| if has_changed { Err(token_role::changed()) } else { Ok(()) });
        }
        if token_role::exists() || token_role::is_waiting() {
            guarded_result(|| transaction::check_function(object));
        }
        if trial::is_active() {
            guarded_result(|| trial::check_function(object));
        }
    }
    if access == OAT_POST_CREATE && class == pg_sys::TriggerRelationId {
        guarded_result(|| permissions::attachment::check_trigger(object));
    }
    if let Some(next) = NEXT_OBJECT_ACCESS.get() {
        // SAFETY: the arguments are those of the hook.
        unsafe { next(access, class, object, part, argument) };
    }
}

// The server log.

type EmitLog = unsafe extern "C-unwind" fn(*mut pg_sys::ErrorData);

static NEXT_EMIT_LOG: Next<EmitLog> = BackendLocal::new(Cell::new(None));

/// Postgres calls it before it writes a report to the log and sends it to the client. Where [`emit_log_first`] is
/// installed, that has redacted the report, which is to be redacted once: the error of a check hook is
/// recognized only the first time.
unsafe extern "C-unwind" fn emit_log(report: *mut pg_sys::ErrorData) {
    // SAFETY: the argument is the one of the hook.
    unsafe {
        if LAST_EMIT_LOG.get().is_none() {
            redact::redact_report(report);
        }
        if let Some(next) = NEXT_EMIT_LOG.get() {
            next(report);
        }
    }
}

/// The hook that was installed last when all libraries were loaded.
static LAST_EMIT_LOG: Next<EmitLog> = BackendLocal::new(Cell::new(None));

/// Runs before the hooks of libraries that were loaded later, so that they get the redacted report. Those
/// hooks call [`emit_log`], which calls the hooks of libraries that were loaded earlier.
unsafe extern "C-unwind" fn emit_log_first(report: *mut pg_sys::ErrorData) {
    // SAFETY: the argument is the one of the hook.
    unsafe {
        redact::redact_report(report);
        if let Some(next) = LAST_EMIT_LOG.get() {
            next(report);
        }
    }
}

// Shared memory.

type ShmemHook = unsafe extern "C-unwind" fn();

static NEXT_SHMEM_REQUEST: Next<ShmemHook> = BackendLocal::new(Cell::new(None));

/// The postmaster calls it once all libraries are loaded, before it allocates shared memory.
unsafe extern "C-unwind" fn shmem_request() {
    // SAFETY: the postmaster calls the hook.
    unsafe {
        if let Some(next) = NEXT_SHMEM_REQUEST.get() {
            next();
        }
    }
    guarded(statistics::request_memory);
    guarded(signatures::request_memory);
}

static NEXT_SHMEM_STARTUP: Next<ShmemHook> = BackendLocal::new(Cell::new(None));

/// Runs once all libraries are loaded, and again when the postmaster restarts after a crash.
unsafe extern "C-unwind" fn shmem_startup() {
    static IS_DONE: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));
    // SAFETY: the postmaster calls the hook on its only thread, and no library runs.
    unsafe {
        if let Some(next) = NEXT_SHMEM_STARTUP.get() {
            next();
        }
        guarded(statistics::lay_out_memory);
        guarded(signatures::lay_out_memory);
        if IS_DONE.replace(true) {
            return;
        }
        register_statement_hooks();
        let last = pg_sys::emit_log_hook;
        if last.is_none_or(|last| last as usize != emit_log as *const () as usize) {
            LAST_EMIT_LOG.set(last);
            pg_sys::emit_log_hook = Some(emit_log_first);
        }
    }
}

// Transactions and caches.

/// Registers the callback for the end of the session. The postmaster's callbacks are not those of its children,
/// so that each session registers it when it gets its first value, and before it can read trusted claims.
fn register_exit_callback() {
    static IS_DONE: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));
    if backend::is_child() && !IS_DONE.replace(true) {
        // SAFETY: the callback lasts as long as the library.
        unsafe { pg_sys::before_shmem_exit(Some(before_shmem_exit), Datum::null()) };
    }
}

/// Postgres calls it before it aborts a transaction that is open, and before another process can get the place of this
/// one in shared memory.
unsafe extern "C-unwind" fn before_shmem_exit(_code: c_int, _: Datum) {
    sessions::end_process();
    guarded(audit::log_repetitions);
}

/// Postgres calls it before a commit, and at the end of a transaction, while the GUCs still have the values
/// of the transaction.
unsafe extern "C-unwind" fn xact_callback(event: pg_sys::XactEvent::Type, _: *mut c_void) {
    use pg_sys::XactEvent::*;
    match event {
        XACT_EVENT_PRE_COMMIT if lifetime::note_use() => guarded(lifetime::warn_of_unused_token),
        XACT_EVENT_COMMIT
        | XACT_EVENT_PARALLEL_COMMIT
        | XACT_EVENT_ABORT
        | XACT_EVENT_PARALLEL_ABORT
        | XACT_EVENT_PREPARE => {
            // These calls must not raise an error: Postgres cannot undo the end of a transaction.
            trial::leave();
            lifetime::end_transaction();
            token_role::end_transaction();
            transaction::end_transaction();
            current::end_transaction();
            presence::end_transaction();
            providers::transaction_ended(event == XACT_EVENT_COMMIT);
        }
        _ => {}
    }
}

unsafe extern "C-unwind" fn subxact_callback(
    event: pg_sys::SubXactEvent::Type,
    _: pg_sys::SubTransactionId,
    _: pg_sys::SubTransactionId,
    _: *mut c_void,
) {
    use pg_sys::SubXactEvent::{SUBXACT_EVENT_ABORT_SUB, SUBXACT_EVENT_COMMIT_SUB};
    match event {
        SUBXACT_EVENT_ABORT_SUB => {
            trial::end_subtransaction();
            transaction::end_subtransaction(false);
            current::abort_subtransaction();
            token_role::settle();
        }
        SUBXACT_EVENT_COMMIT_SUB => transaction::end_subtransaction(true),
        _ => {}
    }
}

unsafe extern "C-unwind" fn relcache_callback(_: Datum, relation: Oid) {
    relation::count_rename();
    if providers::relcache_callback(relation) {
        providers::invalidate();
        current::invalidate();
    }
    if revocations::relcache_callback(relation) {
        current::invalidate();
    }
}

/// Roles or memberships have changed, or the owner of a database.
unsafe extern "C-unwind" fn role_syscache_callback(_: Datum, _: c_int, _: u32) {
    current::invalidate();
}

/// Schemas have changed.
unsafe extern "C-unwind" fn namespace_syscache_callback(_: Datum, _: c_int, _: u32) {
    relation::count_rename();
}

// GUCs with documents and lists.

/// # Safety
/// The arguments are those of the check hook of a document.
unsafe fn check_document<T>(
    document: &Document<T>,
    new_value: *mut *mut c_char,
    source: pg_sys::GucSource::Type,
) -> bool {
    let report = |rejection: &Rejection| error::reject_value_of(document.name, rejection);
    // SAFETY: the caller passes the arguments on.
    unsafe { guc::check(new_value, source, |value, source| document.check(value, source), report) }
        .is_some()
}

fn assign_document<T>(document: &Document<T>, value: *const c_char) {
    document.assign(value.is_null());
    providers::invalidate_settings();
    current::invalidate();
}

unsafe extern "C-unwind" fn jwk_check(
    new_value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the arguments are those of the hook.
    unsafe { check_document(&JWK, new_value, source) }
}

unsafe extern "C-unwind" fn jwk_assign(value: *const c_char, _extra: *mut c_void) {
    assign_document(&JWK, value);
}

unsafe extern "C-unwind" fn providers_check(
    new_value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the arguments are those of the hook.
    unsafe { check_document(&PROVIDERS, new_value, source) }
}

unsafe extern "C-unwind" fn providers_assign(value: *const c_char, _extra: *mut c_void) {
    assign_document(&PROVIDERS, value);
}

/// # Safety
/// The arguments are those of the check hook of a list.
unsafe fn check_list(
    name: &CStr,
    check: fn(&[u8]) -> Result<(), Rejection>,
    new_value: *mut *mut c_char,
    source: pg_sys::GucSource::Type,
) -> bool {
    let report = |rejection: &Rejection| error::reject_value_of(name, rejection);
    // SAFETY: the caller passes the arguments on.
    unsafe { guc::check(new_value, source, |value, _| check(value), report) }.is_some()
}

unsafe extern "C-unwind" fn jwks_http_hosts_check(
    new_value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the arguments are those of the hook.
    unsafe { check_list(JWKS_HTTP_HOSTS_NAME, settings::check_http_hosts, new_value, source) }
}

unsafe extern "C-unwind" fn locked_roles_check(
    new_value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the arguments are those of the hook.
    unsafe { check_list(LOCKED_ROLES_NAME, settings::check_locked_roles, new_value, source) }
}

// Other GUCs of this extension.

unsafe extern "C-unwind" fn trust_request_claims_assign(value: bool, _extra: *mut c_void) {
    TRUST_REQUEST_CLAIMS.count_assignment();
    sessions::clear_request_claims();
    current::invalidate();
    if value {
        request_claims::note_trust();
        lifetime::scope_changed(IDENTITY_SCOPE.get());
    }
}

unsafe extern "C-unwind" fn audit_log_assign(_value: bool, _extra: *mut c_void) {
    AUDIT_LOG.count_assignment();
}

unsafe extern "C-unwind" fn identity_scope_assign(value: c_int, _extra: *mut c_void) {
    IDENTITY_SCOPE.count_assignment();
    lifetime::scope_changed(value);
}

/// Verifies a token that a statement presents, and keeps the result in the extra of the value.
unsafe extern "C-unwind" fn jwt_check(
    new_value: *mut *mut c_char,
    extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    register_exit_callback();
    // SAFETY: the arguments are those of the hook.
    let checked = unsafe { guc::check(new_value, source, admission::check, error::reject_value) };
    checked.is_some_and(|checked| {
        // SAFETY: `new_value` and `extra` are the arguments of the hook.
        let is_kept = unsafe { TokenVariable::keep(checked, new_value, extra) };
        if !is_kept {
            lifetime::void_identities();
        }
        is_kept
    })
}

/// Puts the role of the new value in force, and invalidates the identity. It may run during a rollback, and
/// must not fail then.
unsafe extern "C-unwind" fn jwt_assign(value: *const c_char, extra: *mut c_void) {
    let was_set = JWT.is_set();
    // SAFETY: the arguments are those of the hook.
    let assigned = unsafe { JWT.assign(value, extra) };
    token_role::set(assigned.role);
    current::invalidate();
    presence::note_assignment(&assigned);
    if was_set && !assigned.is_set && !backend::is_restoring_worker() {
        if backend::in_transaction() {
            absence::note_cleared();
            guarded(audit::log_cleared);
        } else {
            absence::note_transaction_end();
        }
    }
}

/// The token is never shown.
unsafe extern "C-unwind" fn jwt_show() -> *const c_char {
    if JWT.is_set() { c"[redacted]".as_ptr() } else { c"".as_ptr() }
}

// GUCs of Postgres and of others.

/// Whether a new value of `role` or `session_authorization` is allowed, so far as locked roles go. In a
/// locked session, only values that Postgres itself sets are allowed.
fn can_change_role(source: pg_sys::GucSource::Type) -> bool {
    use pg_sys::GucSource::*;
    let is_internal =
        matches!(source, PGC_S_DEFAULT | PGC_S_DYNAMIC_DEFAULT | PGC_S_OVERRIDE | PGC_S_TEST)
            || backend::is_restoring_worker();
    is_internal || guarded(|| locked::check_role_change().inspect_err(error::reject_value).is_ok())
}

unsafe extern "C-unwind" fn role_check(
    new_value: *mut *mut c_char,
    extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the arguments are those of the hook, and the check hook of Postgres sets `extra`.
    unsafe {
        let has_passed = can_change_role(source) && ROLE.check(new_value, extra, source);
        if has_passed {
            guarded(|| token_role::number_role_value(extra.read()));
        }
        has_passed
    }
}

unsafe extern "C-unwind" fn role_assign(value: *const c_char, extra: *mut c_void) {
    // Postgres gives a parallel worker the current role of its leader, which may be that of the token,
    // apart from the GUC.
    if backend::is_restoring_worker() {
        return;
    }
    // SAFETY: the arguments are those of the hook.
    unsafe { ROLE.assign(value, extra) };
    if !backend::is_parallel_worker() {
        token_role::put_in_force(extra);
    }
}

/// Shows the current role, which may be the role of the token.
unsafe extern "C-unwind" fn role_show() -> *const c_char {
    let current = role::show_current();
    if !current.is_null() {
        return current;
    }
    // SAFETY: Postgres calls the hook.
    unsafe { ROLE.show() }.unwrap_or(c"none".as_ptr())
}

unsafe extern "C-unwind" fn session_authorization_check(
    new_value: *mut *mut c_char,
    extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the arguments are those of the hook.
    can_change_role(source) && unsafe { SESSION_AUTHORIZATION.check(new_value, extra, source) }
}

unsafe extern "C-unwind" fn session_authorization_assign(value: *const c_char, extra: *mut c_void) {
    // SAFETY: the arguments are those of the hook.
    unsafe { SESSION_AUTHORIZATION.assign(value, extra) };
    // A change of the session user resets the current role. The role of the token has to be put in force
    // again.
    if !backend::is_parallel_worker() {
        token_role::put_in_force_again();
    }
}

unsafe extern "C-unwind" fn request_claims_assign(_value: *const c_char, _extra: *mut c_void) {
    sessions::clear_request_claims();
    current::invalidate();
}

// The background worker.

/// The entry point of the background worker that fetches keys.
// SAFETY: the symbol is exported for Postgres, which calls it once in a process of its own.
#[unsafe(no_mangle)]
extern "C-unwind" fn pg_session_jwt_refresh(_argument: Datum) {
    worker::run(providers::run);
}
