//! Data definition: what a command needs before it runs, which objects are new, and who may attach
//! something to the table of providers.
//!
//! Event triggers judge most commands, at their end. This module judges the others: before the command
//! begins, from its parse tree.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};

use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use session_jwt::{Action, Code, Rejection};

use super::BackendLocal;
use super::function::guarded_result;
use super::relation::{Name, is_superuser};
use super::statement::elements;
use crate::providers::Table;

/// Rejects an action on the table of a schema and a name, or on the database as a whole, that the
/// session's token does not allow.
type Demand = fn(Action, Option<(&str, &str)>) -> Result<(), Rejection>;

static DEMAND: BackendLocal<Cell<Demand>> = BackendLocal::new(Cell::new(|_, _| Ok(())));

static NEXT_ACCESS_HOOK: BackendLocal<Cell<pg_sys::object_access_hook_type>> =
    BackendLocal::new(Cell::new(None));

/// The event trigger that `auth.protect_schema()` creates for `ddl_command_start`.
const EVENT_TRIGGER: &CStr = c"pg_session_jwt_ddl_start";

/// Installs the object access hook; `demand` is asked for the commands that event triggers do not see.
pub(crate) fn watch(demand: Demand) {
    DEMAND.set(demand);
    // SAFETY: the hook is installed once, while the library is loaded, and calls the next one.
    unsafe {
        NEXT_ACCESS_HOOK.set(pg_sys::object_access_hook);
        pg_sys::object_access_hook = Some(object_access_hook);
    }
}

/// What a command needs an action on.
enum Target {
    Database,
    /// A relation that exists; for an index, its table.
    Existing(*const pg_sys::RangeVar),
    /// A relation that the command creates.
    New(*const pg_sys::RangeVar),
}

/// Judges a utility statement that fires no event trigger in some version of Postgres, where
/// `auth.protect_schema()` is in force and the role is no superuser.
///
/// # Safety
/// The statement is Postgres'.
pub(super) unsafe fn check_utility(statement: *const pg_sys::Node) -> Result<(), Rejection> {
    // SAFETY: the caller's.
    let needs = unsafe { needs(statement) };
    if needs.is_empty() || is_superuser() || !is_protected() {
        return Ok(());
    }
    needs.into_iter().try_for_each(|(action, target)| {
        let relation = match target {
            Target::Database => None,
            // SAFETY: it is Postgres' own, as the statement is.
            Target::Existing(name) => match unsafe { existing(name) } {
                // One that another session creates now would be judged by nothing.
                None => None,
                Some(relation) if is_temporary(relation) => return Ok(()),
                Some(relation) => Name::of(relation),
            },
            // SAFETY: as above.
            Target::New(name) => match unsafe { created(name) } {
                None => return Ok(()),
                Some(name) => Some(name),
            },
        };
        match &relation {
            Some(Name::Known { schema, name }) => DEMAND.get()(action, Some((schema, name))),
            // No token can name it.
            Some(Name::Unrepresentable) | None => DEMAND.get()(action, None),
        }
    })
}

/// What a utility statement needs, if event triggers do not see it.
///
/// # Safety
/// The statement is Postgres'.
unsafe fn needs(statement: *const pg_sys::Node) -> Vec<(Action, Target)> {
    use Action::{SchemaAdd, SchemaDelete, SchemaUpdate};
    use pg_sys::NodeTag::*;
    let existing = |relation: *const pg_sys::RangeVar| {
        let target = if relation.is_null() { Target::Database } else { Target::Existing(relation) };
        (SchemaUpdate, target)
    };
    let database = |action| vec![(action, Target::Database)];
    let of_database = |kind| match kind == pg_sys::ObjectType::OBJECT_DATABASE {
        true => database(SchemaUpdate),
        false => Vec::new(),
    };
    // SAFETY: the tag tells the type of a node, and Postgres' grammar what its lists hold.
    unsafe {
        match (*statement).type_ {
            T_ReindexStmt => vec![existing((*statement.cast::<pg_sys::ReindexStmt>()).relation)],
            T_ClusterStmt => vec![existing((*statement.cast::<pg_sys::ClusterStmt>()).relation)],
            T_VacuumStmt => {
                let statement = statement.cast::<pg_sys::VacuumStmt>();
                let tables = elements::<pg_sys::VacuumRelation>((*statement).rels);
                match ((*statement).is_vacuumcmd, (*statement).rels.is_null()) {
                    // ANALYZE gathers statistics, as autovacuum does by itself.
                    (false, _) => Vec::new(),
                    (true, true) => database(SchemaUpdate),
                    (true, false) => tables.map(|table| existing(table.relation)).collect(),
                }
            }
            T_TruncateStmt => {
                let statement = statement.cast::<pg_sys::TruncateStmt>();
                let tables = elements::<pg_sys::RangeVar>((*statement).relations);
                match (*statement).behavior {
                    // Which tables these are is known only when it runs.
                    pg_sys::DropBehavior::DROP_CASCADE => database(SchemaUpdate),
                    _ => tables.map(|table| existing(table)).collect(),
                }
            }
            T_ExplainStmt => {
                let statement = statement.cast::<pg_sys::ExplainStmt>();
                let into = created_by((*statement).query);
                match into {
                    Some(relation) if analyzes(statement) => {
                        vec![(SchemaAdd, Target::New(relation))]
                    }
                    _ => Vec::new(),
                }
            }
            T_ReassignOwnedStmt
            | T_AlterDatabaseStmt
            | T_AlterDatabaseRefreshCollStmt
            | T_AlterDatabaseSetStmt => database(SchemaUpdate),
            T_CreatedbStmt => database(SchemaAdd),
            T_DropdbStmt => database(SchemaDelete),
            T_RenameStmt => of_database((*statement.cast::<pg_sys::RenameStmt>()).renameType),
            T_AlterOwnerStmt => {
                of_database((*statement.cast::<pg_sys::AlterOwnerStmt>()).objectType)
            }
            T_GrantStmt => of_database((*statement.cast::<pg_sys::GrantStmt>()).objtype),
            T_CommentStmt => of_database((*statement.cast::<pg_sys::CommentStmt>()).objtype),
            T_SecLabelStmt => of_database((*statement.cast::<pg_sys::SecLabelStmt>()).objtype),
            _ => Vec::new(),
        }
    }
}

/// The relation that a statement within `EXPLAIN` creates.
///
/// # Safety
/// It is an analysed query of Postgres'.
unsafe fn created_by(query: *const pg_sys::Node) -> Option<*const pg_sys::RangeVar> {
    // SAFETY: the tag tells the type of a node.
    unsafe {
        if query.is_null() || (*query).type_ != pg_sys::NodeTag::T_Query {
            return None;
        }
        let statement = (*query.cast::<pg_sys::Query>()).utilityStmt;
        if statement.is_null() || (*statement).type_ != pg_sys::NodeTag::T_CreateTableAsStmt {
            return None;
        }
        let into = (*statement.cast::<pg_sys::CreateTableAsStmt>()).into;
        Some((*into).rel.cast_const())
    }
}

/// Whether an `EXPLAIN` runs its statement. The last option of a name counts.
///
/// # Safety
/// The statement is Postgres'.
unsafe fn analyzes(statement: *const pg_sys::ExplainStmt) -> bool {
    // SAFETY: its options are a list of named values.
    unsafe {
        elements::<pg_sys::DefElem>((*statement).options)
            .filter(|option| CStr::from_ptr(option.defname) == c"analyze")
            .last()
            .is_some_and(|option| pg_sys::defGetBoolean(std::ptr::from_ref(option).cast_mut()))
    }
}

/// The relation of that name, or the table of the index of that name. No lock is taken: the role need
/// not have a privilege on it.
///
/// # Safety
/// The name is Postgres'.
unsafe fn existing(name: *const pg_sys::RangeVar) -> Option<Oid> {
    // SAFETY: the caller's; the calls read catalogs.
    unsafe {
        let relation = pg_sys::RangeVarGetRelidExtended(
            name,
            pg_sys::NoLock as pg_sys::LOCKMODE,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        );
        let kind = pg_sys::get_rel_relkind(relation) as u8;
        let is_index = [pg_sys::RELKIND_INDEX, pg_sys::RELKIND_PARTITIONED_INDEX].contains(&kind);
        let table = if is_index { pg_sys::IndexGetRelation(relation, true) } else { relation };
        (table != Oid::INVALID).then_some(table)
    }
}

/// What a relation of that name will be called; None where it will be temporary.
///
/// # Safety
/// The name is Postgres'.
unsafe fn created(name: *const pg_sys::RangeVar) -> Option<Name> {
    // SAFETY: the caller's; the calls read catalogs.
    unsafe {
        let is_temporary = (*name).relpersistence as u8 == pg_sys::RELPERSISTENCE_TEMP;
        let schema = pg_sys::RangeVarGetCreationNamespace(name);
        if is_temporary || pg_sys::isAnyTempNamespace(schema) {
            return None;
        }
        Some(Name::within(schema, CStr::from_ptr((*name).relname).to_bytes()))
    }
}

fn is_temporary(relation: Oid) -> bool {
    // SAFETY: it reads a catalog.
    unsafe { pg_sys::get_rel_persistence(relation) as u8 == pg_sys::RELPERSISTENCE_TEMP }
}

/// Whether `auth.protect_schema()` is in force in this database.
fn is_protected() -> bool {
    // SAFETY: they read a catalog, whose row is released.
    unsafe {
        let oid = pg_sys::get_event_trigger_oid(EVENT_TRIGGER.as_ptr(), true);
        let cache = pg_sys::SysCacheIdentifier::EVENTTRIGGEROID as c_int;
        let row = pg_sys::SearchSysCache1(cache, Datum::from(oid));
        if row.is_null() {
            return false;
        }
        let trigger = pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_event_trigger>();
        let is_enabled = (*trigger).evtenabled as u8 != pg_sys::TRIGGER_DISABLED;
        pg_sys::ReleaseSysCache(row);
        is_enabled
    }
}

/// What makes a table another's child, or ends that.
const TIES: [pg_sys::AlterTableType::Type; 5] = [
    pg_sys::AlterTableType::AT_AddInherit,
    pg_sys::AlterTableType::AT_DropInherit,
    pg_sys::AlterTableType::AT_AttachPartition,
    pg_sys::AlterTableType::AT_DetachPartition,
    pg_sys::AlterTableType::AT_DetachPartitionFinalize,
];

/// The action that the command of an event trigger for `ddl_command_start` needs on the database as a
/// whole, if any: it changes what names mean, ties tables to each other, or is done before the other
/// triggers see it.
///
/// # Safety
/// Postgres makes the call.
pub(super) unsafe fn needed_everywhere(
    fcinfo: FunctionCallInfo,
) -> Result<Option<Action>, Rejection> {
    use pg_sys::NodeTag::*;
    use pg_sys::ObjectType::*;
    // SAFETY: an event trigger's context is its data, with the tree of a command, whose type its tag
    // tells.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != T_EventTriggerData {
            return Err(Rejection::new(Code::Configuration, "function is an event trigger's")
                .with_detail("It is for ddl_command_start; auth.protect_schema() installs it."));
        }
        let tree = (*context.cast::<pg_sys::EventTriggerData>()).parsetree;
        let needed = match (*tree).type_ {
            T_RenameStmt => {
                let kind = (*tree.cast::<pg_sys::RenameStmt>()).renameType;
                // The table that it belongs to keeps its name.
                let is_part = matches!(
                    kind,
                    OBJECT_COLUMN
                        | OBJECT_TABCONSTRAINT
                        | OBJECT_TRIGGER
                        | OBJECT_POLICY
                        | OBJECT_RULE
                );
                (!is_part).then_some(Action::SchemaUpdate)
            }
            T_AlterObjectSchemaStmt => Some(Action::SchemaUpdate),
            T_AlterTableStmt => {
                let commands = (*tree.cast::<pg_sys::AlterTableStmt>()).cmds;
                let mut commands = elements::<pg_sys::AlterTableCmd>(commands);
                let ties = commands.any(|command| TIES.contains(&command.subtype));
                ties.then_some(Action::SchemaUpdate)
            }
            // In transactions of their own, which have been committed by the end. An index is a part
            // of its table.
            T_IndexStmt if (*tree.cast::<pg_sys::IndexStmt>()).concurrent => {
                Some(Action::SchemaUpdate)
            }
            T_DropStmt if (*tree.cast::<pg_sys::DropStmt>()).concurrent => {
                Some(Action::SchemaUpdate)
            }
            // What they do on the publisher is not taken back.
            T_CreateSubscriptionStmt => Some(Action::SchemaAdd),
            T_AlterSubscriptionStmt => Some(Action::SchemaUpdate),
            T_DropSubscriptionStmt => Some(Action::SchemaDelete),
            // It changes the operator that it names as its commutator or negator.
            T_DefineStmt => {
                let definition = tree.cast::<pg_sys::DefineStmt>();
                let is_operator = (*definition).kind == OBJECT_OPERATOR;
                let mut options = elements::<pg_sys::DefElem>((*definition).definition);
                let is_linked = is_operator
                    && options.any(|option| {
                        let name = CStr::from_ptr(option.defname);
                        name == c"commutator" || name == c"negator"
                    });
                is_linked.then_some(Action::SchemaUpdate)
            }
            // It takes the role out of policies, too, which no other trigger is told of.
            T_DropOwnedStmt => Some(Action::SchemaDelete),
            _ => None,
        };
        Ok(needed)
    }
}

/// Whether the current transaction has created an object, given its catalog and its OID: no version of
/// the object's row comes from another transaction. `CREATE OR REPLACE` leaves the version that it
/// replaces.
pub(crate) fn is_new(class: Oid, object: Oid) -> bool {
    // SAFETY: both are static tables of Postgres', for catalogs whose rows have OIDs.
    let (index, column) = unsafe {
        if !pg_sys::is_objectclass_supported(class) {
            return false;
        }
        (pg_sys::get_object_oid_index(class), pg_sys::get_object_attnum_oid(class))
    };
    if index == Oid::INVALID || column <= 0 {
        return false;
    }
    let (mut is_there, mut is_ours) = (false, true);
    // SAFETY: a version is one of the catalog's rows; a row in a buffer has its header.
    let visit = |version: pg_sys::HeapTuple| unsafe {
        is_there = true;
        let creator = pg_sys::HeapTupleHeaderGetXmin((*version).t_data);
        is_ours &= pg_sys::TransactionIdIsCurrentTransactionId(creator);
    };
    // SAFETY: the snapshot is a static one.
    unsafe { scan(class, index, column, object, &raw mut pg_sys::SnapshotAnyData, visit) };
    is_there && is_ours
}

/// Visits the rows of a catalog that have an OID, as far as a snapshot sees them.
///
/// # Safety
/// The relation is a catalog, with that index on its column of OIDs; the snapshot is valid.
unsafe fn scan(
    class: Oid,
    index: Oid,
    column: pg_sys::AttrNumber,
    object: Oid,
    snapshot: pg_sys::Snapshot,
    mut visit: impl FnMut(pg_sys::HeapTuple),
) {
    let mut key = pg_sys::ScanKeyData::default();
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: the caller's. A row is valid until the next; a transaction that fails closes the catalog.
    unsafe {
        pg_sys::ScanKeyInit(
            &mut key,
            column,
            pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
            pg_sys::RegProcedure::from(pg_sys::F_OIDEQ),
            Datum::from(object),
        );
        let catalog = pg_sys::table_open(class, lock);
        let scan = pg_sys::systable_beginscan(catalog, index, true, snapshot, 1, &mut key);
        loop {
            let row = pg_sys::systable_getnext(scan);
            if row.is_null() {
                break;
            }
            visit(row);
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, lock);
    }
}

/// Comes after an object was created, by whatever command.
unsafe extern "C-unwind" fn object_access_hook(
    access: pg_sys::ObjectAccessType::Type,
    class: Oid,
    object: Oid,
    part: c_int,
    argument: *mut c_void,
) {
    let is_created = access == pg_sys::ObjectAccessType::OAT_POST_CREATE;
    if is_created && class == pg_sys::TriggerRelationId {
        guarded_result(|| check_trigger(object));
    }
    if let Some(next) = NEXT_ACCESS_HOOK.get() {
        // SAFETY: the arguments are Postgres' own. This frame owns nothing, for errors pass through it.
        unsafe { next(access, class, object, part, argument) };
    }
}

/// Rejects a trigger on the table of providers, unless the role is its owner's. A foreign key that
/// references the table creates such triggers, too. With the privilege REFERENCES or TRIGGER alone, a
/// role could keep a provider from being removed.
fn check_trigger(trigger: Oid) -> Result<(), Rejection> {
    let mut table = Oid::INVALID;
    // SAFETY: the row is one of that catalog.
    let visit = |row: pg_sys::HeapTuple| unsafe {
        table = (*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_trigger>()).tgrelid;
    };
    let (class, index) = (pg_sys::TriggerRelationId, Oid::from(pg_sys::TriggerOidIndexId));
    let column = pg_sys::Anum_pg_trigger_oid as pg_sys::AttrNumber;
    // SAFETY: the snapshot is a static one, which sees what the current command has written.
    unsafe { scan(class, index, column, trigger, &raw mut pg_sys::SnapshotSelfData, visit) };
    let is_on_providers = Table::find().is_some_and(|providers| providers.is(table));
    if !is_on_providers || is_owner(table) {
        return Ok(());
    }
    Err(Rejection::new(Code::Forbidden, "permission denied to attach to auth.providers")
        .with_detail("Only its owner creates triggers on it and foreign keys that reference it."))
}

/// Whether the current role has the privileges of a relation's owner.
fn is_owner(relation: Oid) -> bool {
    // SAFETY: they read catalogs; the relation is open in between.
    unsafe {
        let open = pg_sys::RelationIdGetRelation(relation);
        if open.is_null() {
            return false;
        }
        let owner = (*(*open).rd_rel).relowner;
        pg_sys::RelationClose(open);
        pg_sys::has_privs_of_role(pg_sys::GetUserId(), owner)
    }
}
