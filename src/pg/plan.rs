//! Queries that were analysed, plans, and plans that run, behind safe types.

use std::ffi::{CStr, c_int, c_void};

use pgrx::pg_sys::{self, Oid};

use super::compat::{self, TreeWalker, expression_tree_walker, is_relation, query_tree_walker};
use super::node::elements;
use super::role;

/// A query that was analysed.
#[derive(Clone, Copy)]
pub(crate) struct Query(*const pg_sys::Query);

impl Query {
    /// # Safety
    /// The query is one of Postgres, and outlives the value.
    pub(crate) unsafe fn from_raw(query: *const pg_sys::Query) -> Self {
        Self(query)
    }

    /// Whether the query refers to a table, see [`Plan::touches_tables`]. An error may pass through this
    /// frame, which owns nothing.
    pub(crate) fn touches_tables(self) -> bool {
        unsafe extern "C-unwind" fn walk(node: *const pg_sys::Node, context: *mut c_void) -> bool {
            // SAFETY: the walkers pass nodes of the tree or null, and the tag of a node tells its type.
            unsafe {
                let Some(tag) = node.as_ref().map(|node| node.type_) else {
                    return false;
                };
                match tag {
                    pg_sys::NodeTag::T_RangeTblEntry => is_table(&*node.cast()),
                    pg_sys::NodeTag::T_Query => {
                        let flags = pg_sys::QTW_EXAMINE_RTES_BEFORE as c_int;
                        query_tree_walker(node.cast(), walk as TreeWalker, context, flags)
                    }
                    _ => expression_tree_walker(node, walk as TreeWalker, context),
                }
            }
        }
        // SAFETY: the query is valid.
        unsafe { walk(self.0.cast(), std::ptr::null_mut()) }
    }
}

/// A plan.
#[derive(Clone, Copy)]
pub(crate) struct Plan(*const pg_sys::PlannedStmt);

impl Plan {
    /// # Safety
    /// The plan is one of Postgres, and outlives the value.
    pub(crate) unsafe fn from_raw(plan: *const pg_sys::PlannedStmt) -> Self {
        Self(plan)
    }

    /// Whether the plan refers to a relation, of the system catalogs too.
    pub(crate) fn has_relations(self) -> bool {
        self.entries().any(is_relation)
    }

    /// Whether the plan refers to a table, a view or another relation outside of the system catalogs, which
    /// have no policies. A plan that calls functions only, as `SELECT auth.jwt_session_init(…)`, does not.
    pub(crate) fn touches_tables(self) -> bool {
        self.entries().any(is_table)
    }

    /// Whether the plan reads partitioned tables: the executor may choose partitions when the plan starts.
    fn has_partitions(self) -> bool {
        self.entries().any(|entry| {
            is_table(entry) && entry.relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE
        })
    }

    /// Whether row-level security or a view stands between the session and rows of the plan. A view into
    /// which the plan inserts does not count, because its INSTEAD OF trigger may present tokens. The method
    /// reads the catalogs, and may raise an error.
    fn has_policies(self) -> bool {
        // SAFETY: the plan is valid, and its list of result relations is a list of integers.
        let target = unsafe {
            match (*self.0).resultRelations.as_ref() {
                Some(list) if (*self.0).commandType == pg_sys::CmdType::CMD_INSERT => {
                    list.elements.as_ref().map(|cell| cell.int_value)
                }
                _ => None,
            }
        };
        self.entries().zip(1..).any(|(entry, index): (_, c_int)| {
            is_table(entry)
                && if entry.relkind as u8 == pg_sys::RELKIND_VIEW {
                    target != Some(index)
                } else {
                    // SAFETY: within a transaction, the function reads the catalogs.
                    let state =
                        unsafe { pg_sys::check_enable_rls(entry.relid, Oid::INVALID, true) };
                    state != pg_sys::CheckEnableRlsResult::RLS_NONE as c_int
                }
        })
    }

    /// Whether the plan calls one function with constants or parameters, and does nothing else.
    fn is_single_call(self) -> bool {
        use pg_sys::NodeTag::{T_Const, T_FuncExpr, T_Param, T_RelabelType, T_Result};
        // SAFETY: the plan is valid, and the tag of a node tells its type.
        unsafe {
            let plan = &*self.0;
            let tree = plan.planTree;
            if !plan.utilityStmt.is_null()
                || tree.is_null()
                || (*tree).type_ != T_Result
                || !(*tree).lefttree.is_null()
                || !plan.subplans.is_null()
                || !(*tree.cast::<pg_sys::Result>()).resconstantqual.is_null()
            {
                return false;
            }
            let mut targets = elements::<pg_sys::TargetEntry>((*tree).targetlist);
            let (Some(target), None) = (targets.next(), targets.next()) else {
                return false;
            };
            let call = target.expr.cast::<pg_sys::FuncExpr>();
            (*target.expr).type_ == T_FuncExpr
                && elements::<pg_sys::Node>((*call).args).all(|argument| {
                    let argument: *const pg_sys::Node = argument;
                    let inner = if (*argument).type_ == T_RelabelType {
                        (*argument.cast::<pg_sys::RelabelType>()).arg.cast_const().cast()
                    } else {
                        argument
                    };
                    matches!((*inner).type_, T_Const | T_Param)
                })
        }
    }

    fn entries<'p>(self) -> impl Iterator<Item = &'p pg_sys::RangeTblEntry> {
        // SAFETY: the plan is valid, and its range table is a list of range table entries.
        unsafe { elements::<pg_sys::RangeTblEntry>((*self.0).rtable) }
    }
}

/// A plan that the executor has started, until its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunningPlan(*mut pg_sys::QueryDesc);

impl RunningPlan {
    /// # Safety
    /// The pointer is a `QueryDesc` of Postgres. The methods are called only before the end of the plan;
    /// values may be compared after it.
    pub(crate) unsafe fn from_raw(query: *mut pg_sys::QueryDesc) -> Self {
        Self(query)
    }

    /// The plan itself.
    pub(crate) fn plan(self) -> Plan {
        // SAFETY: the plan has not ended.
        Plan(unsafe { (*self.0).plannedstmt })
    }

    /// Whether the executor has run it before, as for an earlier FETCH of a cursor.
    pub(crate) fn has_run(self) -> bool {
        // SAFETY: the plan has not ended.
        unsafe { (*self.0).already_executed }
    }

    /// Whether the executor may choose partitions of the plan when it starts.
    pub(crate) fn has_partitions(self) -> bool {
        self.plan().has_partitions()
    }

    /// Whether row-level security or a view stands between the session and rows of the plan. It reads the
    /// catalogs, and may raise an error.
    pub(crate) fn has_policies(self) -> bool {
        self.plan().has_policies()
    }

    /// Whether the plan is one of the active portal, and Postgres has cached it for another user. A portal
    /// may hold a cached plan while the role changes: from Bind to Execute, and from the opening of a
    /// cursor to its first FETCH.
    pub(crate) fn is_cached_for_another_user(self) -> bool {
        // SAFETY: the plan has not ended, and an active portal holds its plans.
        unsafe {
            let plan = (*self.0).plannedstmt;
            pg_sys::ActivePortal.as_ref().is_some_and(|portal| {
                portal.cplan.as_ref().is_some_and(|cached| {
                    cached.dependsOnRole
                        && cached.planRoleId != role::current_user()
                        && elements::<pg_sys::PlannedStmt>(portal.stmts)
                            .any(|planned| std::ptr::eq(planned, plan))
                })
            })
        }
    }
}

/// Whether the active portal has a single plan, which calls one function with constants or parameters, as
/// `SELECT auth.jwt_session_init($1)`.
pub(crate) fn is_portal_single_call() -> bool {
    // SAFETY: an active portal holds its plans.
    unsafe {
        pg_sys::ActivePortal.as_ref().is_some_and(|portal| {
            let mut plans = elements::<pg_sys::PlannedStmt>(portal.stmts);
            plans.next().is_some_and(|plan| Plan(plan).is_single_call()) && plans.next().is_none()
        })
    }
}

/// Whether a function is a built-in one, is granted to PUBLIC, or belongs to this extension.
pub(crate) fn is_function_for_all(function: Oid) -> bool {
    const EXTENSION: &CStr = c"pg_session_jwt";
    if function.to_u32() < pg_sys::FirstNormalObjectId || compat::is_executable_by_public(function)
    {
        return true;
    }
    // SAFETY: within a transaction, the functions read the catalogs; the name is a C string.
    let (extension, own) = unsafe {
        let extension = pg_sys::getExtensionOfObject(pg_sys::ProcedureRelationId, function);
        (extension, pg_sys::get_extension_oid(EXTENSION.as_ptr(), true))
    };
    extension != Oid::INVALID && extension == own
}

/// The options of a planner, without parallel plans.
pub(crate) fn without_parallel_plans(options: c_int) -> c_int {
    options & !(pg_sys::CURSOR_OPT_PARALLEL_OK as c_int)
}

/// Whether a function may have an effect that the rollback of a read-only transaction does not undo: a volatile
/// function in C of an extension, such as those of dblink, and a built-in volatile one that is not listed here.
pub(crate) fn outlives_rollback(function: Oid) -> bool {
    /// Functions that only read or wait, functions whose effect is undone, and functions that fail where the
    /// transaction is read only.
    const HARMLESS: &[&str] = &[
        "array_sample",
        "array_shuffle",
        "clock_timestamp",
        "current_query",
        "currval",
        "gen_random_uuid",
        "lastval",
        "lo_get",
        "nextval",
        "pg_advisory_xact_lock",
        "pg_advisory_xact_lock_shared",
        "pg_blocking_pids",
        "pg_is_in_recovery",
        "pg_lock_status",
        "pg_notify",
        "pg_sleep",
        "pg_try_advisory_xact_lock",
        "pg_try_advisory_xact_lock_shared",
        "pg_xact_commit_timestamp",
        "pg_xact_status",
        "query_to_xml",
        "query_to_xml_and_xmlschema",
        "query_to_xmlschema",
        "random",
        "random_normal",
        "set_config",
        "setval",
        "timeofday",
        "ts_rewrite",
        "ts_stat",
        "txid_status",
        "uuidv4",
        "uuidv7",
    ];
    /// `INTERNALlanguageId` and `ClanguageId`
    const COMPILED: [u32; 2] = [12, 13];
    // SAFETY: within a transaction, the functions read the catalogs. The tuple is a row of pg_proc, and is not used
    // after its release.
    unsafe {
        let key = pg_sys::Datum::from(function);
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as c_int, key);
        if tuple.is_null() {
            return false;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
        let name = CStr::from_ptr((*form).proname.data.as_ptr()).to_bytes();
        let is_built_in = function.to_u32() < pg_sys::FirstNormalObjectId;
        let is_risky = (*form).provolatile as u8 == pg_sys::PROVOLATILE_VOLATILE
            && COMPILED.contains(&(*form).prolang.to_u32())
            && !(is_built_in && HARMLESS.iter().any(|harmless| harmless.as_bytes() == name));
        pg_sys::ReleaseSysCache(tuple);
        is_risky
    }
}

/// Whether an entry of a range table is a relation outside of the system catalogs.
fn is_table(entry: &pg_sys::RangeTblEntry) -> bool {
    is_relation(entry) && entry.relid.to_u32() >= pg_sys::FirstNormalObjectId
}
