//! Every difference between the server versions, behind named functions.
//!
//! Each item states what changes in a later version. PostgreSQL 15 is the version that is built.

use std::ffi::{CStr, c_char, c_int, c_void};

use pgrx::pg_sys::{self, Oid};

/// All records of GUCs. A record stays in place until its GUC is defined again, and the slice until a GUC
/// is added.
///
/// From 16 on, `get_guc_variables` takes a pointer to the count and returns a copy in the current memory
/// context.
pub(super) fn guc_records<'a>() -> &'a [*mut pg_sys::config_generic] {
    unsafe extern "C-unwind" {
        // Declared by hand, without the guard of `pgrx`: they read static variables and cannot raise.
        safe fn GetNumConfigOptions() -> c_int;
        safe fn get_guc_variables() -> *const *mut pg_sys::config_generic;
    }
    let count = usize::try_from(GetNumConfigOptions()).unwrap_or(0);
    // SAFETY: Postgres keeps an array of `count` pointers.
    unsafe { std::slice::from_raw_parts(get_guc_variables(), count) }
}

/// Allocates memory in which Postgres keeps the values of GUCs and the `extra` of check hooks; null where
/// there is none left.
///
/// From 16 on, this is `guc_malloc`.
pub(super) fn guc_malloc(size: usize) -> *mut c_void {
    // SAFETY: any size may be requested.
    unsafe { libc::malloc(size) }
}

/// Frees memory of a GUC.
///
/// From 16 on, this is `guc_free`.
///
/// # Safety
/// [`guc_malloc`] or Postgres has allocated it for a GUC, and nothing refers to it.
pub(super) unsafe fn guc_free(memory: *mut c_void) {
    // SAFETY: the caller passes memory that malloc(3) has returned.
    unsafe { libc::free(memory) }
}

/// Whether a session user may take a role by `SET ROLE`.
///
/// From 16 on, a membership has the option SET, and `member_can_set_role` decides.
pub(super) fn can_set_role(session_user: Oid, role: Oid) -> bool {
    // SAFETY: within a transaction, the function reads the catalogs.
    unsafe { pg_sys::is_member_of_role(session_user, role) }
}

/// Whether PUBLIC may call a function.
///
/// From 16 on, `object_aclcheck` takes the catalog too.
pub(super) fn is_executable_by_public(function: Oid) -> bool {
    let mode = pg_sys::AclMode::from(pg_sys::ACL_EXECUTE);
    // SAFETY: within a transaction, the function reads the catalogs. No role has the OID 0, so that the
    // answer is what PUBLIC may do.
    let result = unsafe { pg_sys::pg_proc_aclcheck(function, Oid::INVALID, mode) };
    result == pg_sys::AclResult::ACLCHECK_OK
}

/// The columns of a tuple descriptor, dropped ones included.
///
/// In 18, `TupleDesc.attrs` is gone and `TupleDescAttr` is to be used.
///
/// # Safety
/// The descriptor is one of Postgres, and outlives the slice.
pub(super) unsafe fn columns<'d>(
    descriptor: pg_sys::TupleDesc,
) -> &'d [pg_sys::FormData_pg_attribute] {
    // SAFETY: the caller passes a descriptor, which ends with `natts` columns.
    unsafe {
        let descriptor = &*descriptor;
        descriptor.attrs.as_slice(usize::try_from(descriptor.natts).unwrap_or(0))
    }
}

/// Defines `$hook` with the signature of `ExecutorRun_hook`: it calls `$around` with the plan and a closure
/// that runs `$next`, the next hook, or else the standard function.
///
/// In 18, the argument `execute_once` is gone.
macro_rules! executor_run_hook {
    ($hook:ident, $next:expr, $around:expr) => {
        unsafe extern "C-unwind" fn $hook(
            query: *mut ::pgrx::pg_sys::QueryDesc,
            direction: ::pgrx::pg_sys::ScanDirection::Type,
            count: u64,
            execute_once: bool,
        ) {
            let run = $next.unwrap_or($crate::pg::compat::standard_ExecutorRun);
            let around: fn(*mut ::pgrx::pg_sys::QueryDesc, &dyn Fn()) = $around;
            around(query, &|| {
                // SAFETY: Postgres calls the hook, and its arguments are passed on.
                unsafe { run(query, direction, count, execute_once) }
            });
        }
    };
}
pub(crate) use executor_run_hook;

unsafe extern "C-unwind" {
    // Declared by hand: the guard of `pgrx` would replace the SQLSTATE of an error of this extension.
    pub(crate) fn standard_ExecutorRun(
        query: *mut pg_sys::QueryDesc,
        direction: pg_sys::ScanDirection::Type,
        count: u64,
        execute_once: bool,
    );
    // From 16 on, these two have the suffix `_impl`. They may raise an error where the stack is too deep.
    pub(super) fn query_tree_walker(
        query: *const pg_sys::Query,
        walker: TreeWalker,
        context: *mut c_void,
        flags: c_int,
    ) -> bool;
    pub(super) fn expression_tree_walker(
        node: *const pg_sys::Node,
        walker: TreeWalker,
        context: *mut c_void,
    ) -> bool;
}

/// Visits a node of a tree; true ends the walk.
pub(super) type TreeWalker = unsafe extern "C-unwind" fn(*const pg_sys::Node, *mut c_void) -> bool;

/// The format of the message of a reload about a GUC with a new value.
pub(super) const CHANGED_GUC_MESSAGE: &CStr = c"parameter \"%s\" changed to \"%s\"";

/// The format of the message of a dump of a parse tree or a plan (`elog_node_display`).
pub(super) const DUMP_MESSAGE: &CStr = c"%s:";

/// The first letters of the source files whose errors have a context with an excerpt of JSON.
pub(super) const JSON_SOURCE_PREFIX: &[u8] = b"json";

/// Installs the handler of SIGTERM that lets `CHECK_FOR_INTERRUPTS` end the process.
///
/// In 18, `pqsignal` is a macro for `pqsignal_be`.
///
/// # Safety
/// The process is a background worker whose signals are blocked.
pub(super) unsafe fn handle_sigterm() {
    unsafe extern "C-unwind" {
        fn die(signal: c_int);
    }
    // SAFETY: signals are blocked, as the caller promises. The handler is the one of backends.
    unsafe { pg_sys::pqsignal(pg_sys::SIGTERM as c_int, Some(die)) };
}

/// Whether an entry of a range table is a view.
///
/// From 16 on, the entry of a view that the rewriter has replaced is an RTE_SUBQUERY with `relid` set.
pub(super) fn is_view(entry: &pg_sys::RangeTblEntry) -> bool {
    entry.relkind as u8 == pg_sys::RELKIND_VIEW
}

/// Reports a new text for the running statement, as `pg_stat_activity` shows it. The report of a text
/// resets the query id, so the function reports the id again.
///
/// # Safety
/// `text` is a C string.
pub(super) unsafe fn report_running_statement(text: *const c_char) {
    // SAFETY: the functions copy the text into shared memory and cannot raise an error.
    unsafe {
        let query_id = pg_sys::pgstat_get_my_query_id();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text);
        pg_sys::pgstat_report_query_id(query_id, true);
    }
}

/// The signatures of hooks.
pub(crate) type Planner = unsafe extern "C-unwind" fn(
    *mut pg_sys::Query,
    *const c_char,
    c_int,
    pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt;
pub(crate) type ExecutorStart = unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc, c_int);
pub(crate) type ExecutorRun =
    unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc, pg_sys::ScanDirection::Type, u64, bool);
pub(crate) type ExecutorFinish = unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc);
pub(crate) type ExecutorEnd = unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc);
pub(crate) type ProcessUtility = unsafe extern "C-unwind" fn(
    *mut pg_sys::PlannedStmt,
    *const c_char,
    bool,
    pg_sys::ProcessUtilityContext::Type,
    pg_sys::ParamListInfo,
    *mut pg_sys::QueryEnvironment,
    *mut pg_sys::DestReceiver,
    *mut pg_sys::QueryCompletion,
);

unsafe extern "C-unwind" {
    // Declared by hand: the guard of `pgrx` would replace the SQLSTATE of an error of this extension.
    pub(crate) fn standard_planner(
        query: *mut pg_sys::Query,
        text: *const c_char,
        options: c_int,
        parameters: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;
    pub(crate) fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
    pub(crate) fn standard_ExecutorFinish(query: *mut pg_sys::QueryDesc);
    pub(crate) fn standard_ExecutorEnd(query: *mut pg_sys::QueryDesc);
    pub(crate) fn standard_ProcessUtility(
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
