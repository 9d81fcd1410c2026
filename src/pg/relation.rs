//! Relations by name: what a relation is called now, when that may have changed, and which data
//! definition commands are about more than one relation that has a name before and after.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};

use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use session_jwt::{Action, Code, Rejection};

use super::BackendLocal;
use super::datum::from_server_encoding;
use super::statement::elements;

pub(crate) use pgrx::pg_sys::Oid;

/// Rises whenever a relation or a schema may have got another name, in whatever session.
static NAMES: BackendLocal<Cell<u64>> = BackendLocal::new(Cell::new(0));

/// Has [`names`] told of changes.
pub(crate) fn watch_names() {
    unsafe extern "C-unwind" fn at_relation(_argument: Datum, _relation: Oid) {
        NAMES.set(NAMES.get() + 1);
    }
    unsafe extern "C-unwind" fn at_schema(_argument: Datum, _cache: c_int, _hash: u32) {
        NAMES.set(NAMES.get() + 1);
    }
    // SAFETY: the callbacks live as long as the library, which is never unloaded.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(at_relation), Datum::null());
        let schemas = pg_sys::SysCacheIdentifier::NAMESPACEOID as c_int;
        pg_sys::CacheRegisterSyscacheCallback(schemas, Some(at_schema), Datum::null());
    }
}

/// A number that stays the same for as long as what [`Name::of`] has said holds. To be read before.
#[inline(always)]
pub(crate) fn names() -> u64 {
    NAMES.get()
}

/// What a relation is called, in UTF-8.
pub(crate) enum Name {
    Known {
        schema: String,
        name: String,
    },
    /// It has no equal in UTF-8, so that no token can name it.
    Unrepresentable,
}

impl Name {
    /// None where there is no such relation, or none any more.
    pub(crate) fn of(relation: Oid) -> Option<Self> {
        // SAFETY: they read catalogs, and give null or a C string of the current context.
        let (schema, name) = unsafe {
            let name = palloced(pg_sys::get_rel_name(relation))?;
            let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation));
            (palloced(schema)?, name)
        };
        let known = from_server_encoding(&schema).zip(from_server_encoding(&name));
        Some(known.map_or(Self::Unrepresentable, |(schema, name)| Self::Known { schema, name }))
    }
}

/// A copy of a C string, which is freed.
///
/// # Safety
/// It is null or a C string that `palloc` has given, and nobody else's.
unsafe fn palloced(text: *mut c_char) -> Option<Vec<u8>> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's.
    unsafe {
        let copy = CStr::from_ptr(text).to_bytes().to_vec();
        pg_sys::pfree(text.cast());
        Some(copy)
    }
}

/// Whether the current role is a superuser.
pub(crate) fn is_superuser() -> bool {
    // SAFETY: it reads a catalog.
    unsafe { pg_sys::superuser() }
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
            // In transactions of their own, which have been committed by the end.
            T_IndexStmt if (*tree.cast::<pg_sys::IndexStmt>()).concurrent => {
                Some(Action::SchemaAdd)
            }
            T_DropStmt if (*tree.cast::<pg_sys::DropStmt>()).concurrent => {
                Some(Action::SchemaDelete)
            }
            // It takes the role out of policies, too, which no other trigger is told of.
            T_DropOwnedStmt => Some(Action::SchemaDelete),
            _ => None,
        };
        Ok(needed)
    }
}
