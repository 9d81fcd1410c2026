//! Every difference between the server versions, behind named functions.
//!
//! Each item states what differs. A feature of the package chooses the version: `pg15`, `pg16`, `pg17` or
//! `pg18`.

use std::ffi::{CStr, c_char, c_int, c_void};

use pgrx::pg_sys::{self, Oid};

/// Where the record of a GUC was found: its index among all records. From 16 on, records are in a hash table.
#[cfg(feature = "pg15")]
pub(super) type GucPlace = usize;
#[cfg(not(feature = "pg15"))]
pub(super) type GucPlace = ();

/// The record of a GUC. It stays in place until the GUC is defined again.
///
/// The search is linear: clients add placeholders, and the order of Postgres depends on the signedness of its
/// characters.
#[cfg(feature = "pg15")]
pub(super) fn find_guc(name: &CStr) -> Option<(*mut pg_sys::config_generic, GucPlace)> {
    let records = guc_records();
    let place = records.iter().position(|record| {
        // SAFETY: Postgres keeps an array of pointers to records with names.
        let found = unsafe { CStr::from_ptr((**record).name) }.to_bytes();
        found.eq_ignore_ascii_case(name.to_bytes())
    })?;
    Some((*records.get(place)?, place))
}
#[cfg(not(feature = "pg15"))]
pub(super) fn find_guc(name: &CStr) -> Option<(*mut pg_sys::config_generic, GucPlace)> {
    unsafe extern "C-unwind" {
        // Declared by hand, without the guard of `pgrx`.
        fn find_option(
            name: *const c_char,
            create_placeholders: bool,
            skip_errors: bool,
            level: c_int,
        ) -> *mut pg_sys::config_generic;
    }
    // SAFETY: the name is a C string. The function reads a hash table, and with these arguments it neither
    // changes the table nor raises an error.
    let record = unsafe { find_option(name.as_ptr(), false, true, 0) };
    (!record.is_null()).then_some((record, ()))
}

/// Whether a GUC still has the record that was found in that place. The record may be gone.
#[cfg(feature = "pg15")]
pub(super) fn has_guc_record(
    _name: &CStr,
    record: *const pg_sys::config_generic,
    place: GucPlace,
) -> bool {
    guc_records().get(place).is_some_and(|found| found.cast_const() == record)
}
#[cfg(not(feature = "pg15"))]
pub(super) fn has_guc_record(
    name: &CStr,
    record: *const pg_sys::config_generic,
    (): GucPlace,
) -> bool {
    find_guc(name).is_some_and(|(found, ())| found.cast_const() == record)
}

/// All records of GUCs. The slice stays in place until a GUC is added.
#[cfg(feature = "pg15")]
fn guc_records<'a>() -> &'a [*mut pg_sys::config_generic] {
    unsafe extern "C-unwind" {
        // Declared by hand, without the guard of `pgrx`: they read static variables and cannot raise.
        safe fn GetNumConfigOptions() -> c_int;
        safe fn get_guc_variables() -> *const *mut pg_sys::config_generic;
    }
    let count = usize::try_from(GetNumConfigOptions()).unwrap_or(0);
    // SAFETY: Postgres keeps an array of `count` pointers.
    unsafe { std::slice::from_raw_parts(get_guc_variables(), count) }
}

/// Whether statements may change the isolation level of the running transaction, and whether it is read only or
/// deferrable. A reset is no such change from 16 on, where Postgres rejects it. In 15, a reset calls no check hook,
/// so that it would end a trial's read-only state.
pub(crate) fn allow_transaction_changes(are_allowed: bool) {
    #[cfg(feature = "pg15")]
    {
        use pg_sys::GucContext::{PGC_INTERNAL, PGC_USERSET};
        for name in [c"transaction_isolation", c"transaction_read_only", c"transaction_deferrable"]
        {
            if let Some((record, _)) = find_guc(name) {
                // SAFETY: Postgres keeps the record, whose context is PGC_USERSET. With another one, it rejects
                // new values, and still restores earlier ones.
                unsafe { (*record).context = if are_allowed { PGC_USERSET } else { PGC_INTERNAL } };
            }
        }
    }
    #[cfg(not(feature = "pg15"))]
    let _ = are_allowed;
}

/// Allocates memory in which Postgres keeps the values of GUCs and the `extra` of check hooks; null where
/// there is none left. From 16 on, Postgres keeps them in a memory context.
pub(super) fn guc_malloc(size: usize) -> *mut c_void {
    #[cfg(feature = "pg15")]
    // SAFETY: any size may be requested.
    unsafe {
        libc::malloc(size)
    }
    #[cfg(not(feature = "pg15"))]
    {
        unsafe extern "C-unwind" {
            // Declared by hand, without the guard of `pgrx`: below level ERROR it cannot raise. The callers
            // ask for less than 1 GB.
            safe fn guc_malloc(level: c_int, size: usize) -> *mut c_void;
        }
        guc_malloc(pg_sys::DEBUG5 as c_int, size)
    }
}

/// Frees memory of a GUC.
///
/// # Safety
/// [`guc_malloc`] or Postgres has allocated it for a GUC, and nothing refers to it.
pub(super) unsafe fn guc_free(memory: *mut c_void) {
    #[cfg(feature = "pg15")]
    // SAFETY: the caller passes memory that malloc(3) has returned.
    unsafe {
        libc::free(memory)
    }
    #[cfg(not(feature = "pg15"))]
    {
        unsafe extern "C-unwind" {
            // Declared by hand, as above.
            fn guc_free(memory: *mut c_void);
        }
        // SAFETY: the caller passes memory of the context.
        unsafe { guc_free(memory) }
    }
}

/// Whether a session user may take a role by `SET ROLE`. From 16 on, a membership may lack the option SET.
pub(super) fn can_set_role(session_user: Oid, role: Oid) -> bool {
    #[cfg(feature = "pg15")]
    use pg_sys::is_member_of_role as decide;
    #[cfg(not(feature = "pg15"))]
    use pg_sys::member_can_set_role as decide;
    // SAFETY: within a transaction, the function reads the catalogs.
    unsafe { decide(session_user, role) }
}

/// Whether PUBLIC may call a function.
pub(super) fn is_executable_by_public(function: Oid) -> bool {
    let mode = pg_sys::AclMode::from(pg_sys::ACL_EXECUTE);
    // SAFETY: within a transaction, the functions read the catalogs. No role has the OID 0, so that the
    // answer is what PUBLIC may do.
    #[cfg(feature = "pg15")]
    let result = unsafe { pg_sys::pg_proc_aclcheck(function, Oid::INVALID, mode) };
    #[cfg(not(feature = "pg15"))]
    // SAFETY: as above.
    let result = unsafe {
        pg_sys::object_aclcheck(pg_sys::ProcedureRelationId, function, Oid::INVALID, mode)
    };
    result == pg_sys::AclResult::ACLCHECK_OK
}

/// The columns of a tuple descriptor, dropped ones included. In 18, they follow an array of abbreviated
/// descriptions.
///
/// # Safety
/// The descriptor is one of Postgres, and outlives the slice.
pub(super) unsafe fn columns<'d>(
    descriptor: pg_sys::TupleDesc,
) -> &'d [pg_sys::FormData_pg_attribute] {
    // SAFETY: the caller passes a descriptor, which ends with `natts` columns.
    unsafe {
        let count = usize::try_from((*descriptor).natts).unwrap_or(0);
        #[cfg(not(feature = "pg18"))]
        return (*descriptor).attrs.as_slice(count);
        #[cfg(feature = "pg18")]
        return std::slice::from_raw_parts(
            (&raw const (*descriptor).compact_attrs)
                .cast::<pg_sys::CompactAttribute>()
                .add(count)
                .cast(),
            count,
        );
    }
}

/// Defines `$hook` with the signature of `ExecutorRun_hook`: it calls `$around` with the plan and a closure
/// that runs `$next`, the next hook, or else the standard function. In 18, the argument `execute_once` is
/// gone.
macro_rules! executor_run_hook {
    ($hook:ident, $next:expr, $around:expr) => {
        unsafe extern "C-unwind" fn $hook(
            query: *mut ::pgrx::pg_sys::QueryDesc,
            direction: ::pgrx::pg_sys::ScanDirection::Type,
            count: u64,
            #[cfg(not(feature = "pg18"))] execute_once: bool,
        ) {
            let run = $next.unwrap_or($crate::pg::compat::standard_ExecutorRun);
            let around: fn(*mut ::pgrx::pg_sys::QueryDesc, &dyn Fn()) = $around;
            around(query, &|| {
                // SAFETY: Postgres calls the hook, and its arguments are passed on.
                #[cfg(not(feature = "pg18"))]
                unsafe {
                    run(query, direction, count, execute_once)
                }
                // SAFETY: as above.
                #[cfg(feature = "pg18")]
                unsafe {
                    run(query, direction, count)
                }
            });
        }
    };
}
pub(crate) use executor_run_hook;

unsafe extern "C-unwind" {
    // Declared by hand: the guard of `pgrx` would replace the SQLSTATE of an error of this extension.
    #[cfg(not(feature = "pg18"))]
    pub(crate) fn standard_ExecutorRun(
        query: *mut pg_sys::QueryDesc,
        direction: pg_sys::ScanDirection::Type,
        count: u64,
        execute_once: bool,
    );
    #[cfg(feature = "pg18")]
    pub(crate) fn standard_ExecutorRun(
        query: *mut pg_sys::QueryDesc,
        direction: pg_sys::ScanDirection::Type,
        count: u64,
    );
    // These two may raise an error where the stack is too deep.
    #[cfg_attr(not(feature = "pg15"), link_name = "query_tree_walker_impl")]
    pub(super) fn query_tree_walker(
        query: *const pg_sys::Query,
        walker: TreeWalker,
        context: *mut c_void,
        flags: c_int,
    ) -> bool;
    #[cfg_attr(not(feature = "pg15"), link_name = "expression_tree_walker_impl")]
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

/// Sets the handler of SIGTERM by which `CHECK_FOR_INTERRUPTS` ends the process.
///
/// # Safety
/// The process is a background worker whose signals are blocked.
pub(super) unsafe fn handle_sigterm() {
    type Handler = unsafe extern "C-unwind" fn(c_int);
    unsafe extern "C-unwind" {
        fn die(signal: c_int);
        // Declared by hand: in 18, the name is a macro for another one. The result of older versions is not
        // used.
        #[cfg_attr(feature = "pg18", link_name = "pqsignal_be")]
        fn pqsignal(signal: c_int, handler: Handler);
    }
    // SAFETY: the caller; the handler is the one of backends.
    unsafe { pqsignal(pg_sys::SIGTERM as c_int, die) };
}

/// Whether an entry of a range table is a relation. From 16 on, a view that the rewriter has replaced is a
/// subquery that keeps the OID of the view; before, an entry for the view is added.
pub(super) fn is_relation(entry: &pg_sys::RangeTblEntry) -> bool {
    #[cfg(feature = "pg15")]
    let is_view = false;
    #[cfg(not(feature = "pg15"))]
    let is_view = entry.rtekind == pg_sys::RTEKind::RTE_SUBQUERY && entry.relid != Oid::INVALID;
    is_view || entry.rtekind == pg_sys::RTEKind::RTE_RELATION
}

/// Reports the ids of the current statement again after its text was reported, which resets them. In 18,
/// extensions may have given the plan an id too.
///
/// # Safety
/// `text` is a C string.
pub(super) unsafe fn report_running_statement(text: *const c_char) {
    // SAFETY: the functions copy the text into shared memory and cannot raise an error.
    unsafe {
        let query_id = pg_sys::pgstat_get_my_query_id();
        #[cfg(feature = "pg18")]
        let plan_id = pg_sys::pgstat_get_my_plan_id();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text);
        pg_sys::pgstat_report_query_id(query_id, true);
        #[cfg(feature = "pg18")]
        pg_sys::pgstat_report_plan_id(plan_id, true);
    }
}

/// The place of this process among those that may have an identity, from 0 and below `MaxBackends`. None for the
/// postmaster. In 15 and 16, backends count from 1; from 17 on, auxiliary processes come after `MaxBackends`.
pub(crate) fn backend_slot() -> Option<usize> {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    // SAFETY: it reads a static variable.
    let number = unsafe { pg_sys::MyBackendId } - 1;
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    // SAFETY: it reads a static variable.
    let number = unsafe { pg_sys::MyProcNumber };
    usize::try_from(number).ok()
}

/// The signatures of hooks.
pub(crate) type Planner = unsafe extern "C-unwind" fn(
    *mut pg_sys::Query,
    *const c_char,
    c_int,
    pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt;
pub(crate) type ExecutorStart = unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc, c_int);
#[cfg(feature = "pg18")]
pub(crate) type ExecutorRun =
    unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc, pg_sys::ScanDirection::Type, u64);
#[cfg(not(feature = "pg18"))]
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
