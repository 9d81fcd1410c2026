//! Nodes of Postgres: lists, range tables, and the parse tree of a utility statement.

use std::ffi::CStr;
use std::marker::PhantomData;

use pgrx::pg_sys::{self, Oid};

pub(crate) use pgrx::pg_sys::{AlterTableType, NodeTag, ObjectType};

/// The parse tree of a utility statement. Each method answers for the statements that it names, and
/// returns None, false or an empty list for all others.
#[derive(Clone, Copy)]
pub(crate) struct Statement<'t> {
    node: *const pg_sys::Node,
    tree: PhantomData<&'t pg_sys::Node>,
}

impl<'t> Statement<'t> {
    /// # Safety
    /// The node is the parse tree of a utility statement, as the grammar and the analysis of Postgres make
    /// it, and stays unchanged for `'t`.
    pub(crate) unsafe fn new(node: *const pg_sys::Node) -> Self {
        Self { node, tree: PhantomData }
    }

    /// The tag, which names the kind of statement.
    pub(crate) fn tag(self) -> NodeTag {
        // SAFETY: every node begins with its tag, and the node is valid for `'t`.
        unsafe { (*self.node).type_ }
    }

    /// The node as a `T`, if it is one.
    fn get<T: Tagged>(self) -> Option<&'t T> {
        // SAFETY: `Tagged` promises that a node with the tag is a `T`; it is valid for `'t`.
        (self.tag() == T::TAG).then(|| unsafe { &*self.node.cast::<T>() })
    }

    /// The type of object that `ALTER … RENAME`, `ALTER … OWNER TO`, `GRANT`, `REVOKE`, `COMMENT`,
    /// `SECURITY LABEL`, or a `CREATE` with a list of attributes, such as `CREATE OPERATOR`, is for.
    pub(crate) fn object_type(self) -> Option<ObjectType::Type> {
        self.get::<pg_sys::RenameStmt>()
            .map(|statement| statement.renameType)
            .or_else(|| Some(self.get::<pg_sys::AlterOwnerStmt>()?.objectType))
            .or_else(|| Some(self.get::<pg_sys::GrantStmt>()?.objtype))
            .or_else(|| Some(self.get::<pg_sys::CommentStmt>()?.objtype))
            .or_else(|| Some(self.get::<pg_sys::SecLabelStmt>()?.objtype))
            .or_else(|| Some(self.get::<pg_sys::DefineStmt>()?.kind))
    }

    /// The relations that `REINDEX`, `CLUSTER`, `VACUUM`, `ANALYZE` or `TRUNCATE` names. None where the
    /// statement names no relation, such as `VACUUM` for the whole database.
    pub(crate) fn relations(self) -> Option<Vec<RelationName<'t>>> {
        let names: Vec<*const pg_sys::RangeVar> =
            if let Some(statement) = self.get::<pg_sys::ReindexStmt>() {
                vec![statement.relation]
            } else if let Some(statement) = self.get::<pg_sys::ClusterStmt>() {
                vec![statement.relation]
            } else if let Some(statement) = self.get::<pg_sys::VacuumStmt>() {
                // SAFETY: the grammar makes a list of `VacuumRelation`, as valid as the statement.
                let tables = unsafe { elements::<pg_sys::VacuumRelation>(statement.rels) };
                tables.map(|table| table.relation.cast_const()).collect()
            } else if let Some(statement) = self.get::<pg_sys::TruncateStmt>() {
                // SAFETY: the grammar makes a list of `RangeVar`, as valid as the statement.
                unsafe { elements::<pg_sys::RangeVar>(statement.relations) }
                    .map(std::ptr::from_ref)
                    .collect()
            } else {
                return None;
            };
        // SAFETY: each is null or a node of the tree.
        let names: Option<Vec<_>> =
            names.into_iter().map(|name| unsafe { RelationName::new(name) }).collect();
        names.filter(|names| !names.is_empty())
    }

    /// The relation that `CREATE TABLE AS`, `SELECT INTO` or `CREATE MATERIALIZED VIEW` creates.
    pub(crate) fn created_relation(self) -> Option<RelationName<'t>> {
        let into = self.get::<pg_sys::CreateTableAsStmt>()?.into;
        // SAFETY: the grammar always makes this clause, with a node of the tree for the name.
        unsafe { RelationName::new((*into).rel) }
    }

    /// Whether it is `VACUUM`, which has the same node as `ANALYZE`.
    pub(crate) fn is_vacuum(self) -> bool {
        self.get::<pg_sys::VacuumStmt>().is_some_and(|statement| statement.is_vacuumcmd)
    }

    /// Whether it is `TRUNCATE … CASCADE`.
    pub(crate) fn truncates_cascading(self) -> bool {
        self.get::<pg_sys::TruncateStmt>()
            .is_some_and(|statement| statement.behavior == pg_sys::DropBehavior::DROP_CASCADE)
    }

    /// Whether it is `DISCARD ALL` or `RESET ALL`.
    pub(crate) fn resets_all(self) -> bool {
        let is_discard = self
            .get::<pg_sys::DiscardStmt>()
            .is_some_and(|statement| statement.target == pg_sys::DiscardMode::DISCARD_ALL);
        let is_reset = self
            .get::<pg_sys::VariableSetStmt>()
            .is_some_and(|statement| statement.kind == pg_sys::VariableSetKind::VAR_RESET_ALL);
        is_discard || is_reset
    }

    /// Whether it is `SET LOCAL`.
    pub(crate) fn is_set_local(self) -> bool {
        self.get::<pg_sys::VariableSetStmt>().is_some_and(|statement| statement.is_local)
    }

    /// Whether it is `CREATE INDEX` or `DROP INDEX` with `CONCURRENTLY`.
    pub(crate) fn is_concurrent(self) -> bool {
        self.get::<pg_sys::IndexStmt>().is_some_and(|statement| statement.concurrent)
            || self.get::<pg_sys::DropStmt>().is_some_and(|statement| statement.concurrent)
    }

    /// The utility statement that `EXPLAIN` is for.
    pub(crate) fn explained(self) -> Option<Self> {
        let query = self.get::<pg_sys::ExplainStmt>()?.query;
        // SAFETY: the analysis has put a query there, which is as valid as the statement. Its utility
        // statement is null or the parse tree of one.
        unsafe {
            if query.is_null() || (*query).type_ != NodeTag::T_Query {
                return None;
            }
            let node = (*query.cast::<pg_sys::Query>()).utilityStmt;
            (!node.is_null()).then(|| Self::new(node))
        }
    }

    /// The kinds of the subcommands of `ALTER TABLE`.
    pub(crate) fn subcommands(self) -> impl Iterator<Item = AlterTableType::Type> {
        self.alterations().map(|command| command.subtype)
    }

    fn alterations(self) -> impl Iterator<Item = &'t pg_sys::AlterTableCmd> {
        let list = self.get::<pg_sys::AlterTableStmt>().map(|statement| statement.cmds);
        // SAFETY: the grammar makes a list of `AlterTableCmd`, as valid as the statement.
        unsafe { elements(list.unwrap_or(std::ptr::null_mut())) }
    }

    /// The names of the options of `EXPLAIN`, `CREATE DATABASE`, `ALTER DEFAULT PRIVILEGES`, or of the
    /// attributes of a `CREATE` that has a list of them.
    pub(crate) fn option_names(self) -> impl Iterator<Item = &'t CStr> {
        self.options().map(|(name, _)| name)
    }

    /// Whether an option has a boolean value that is true. The last option of a name counts.
    ///
    /// It raises the error of Postgres where the value is no boolean.
    pub(crate) fn is_option_on(self, wanted: &CStr) -> bool {
        let option = self.options().filter(|(name, _)| *name == wanted).last();
        // SAFETY: the option is a node of the tree, which the call only reads.
        option.is_some_and(|(_, option)| unsafe {
            pg_sys::defGetBoolean(std::ptr::from_ref(option).cast_mut())
        })
    }

    fn options(self) -> impl Iterator<Item = (&'t CStr, &'t pg_sys::DefElem)> {
        let list = self
            .get::<pg_sys::ExplainStmt>()
            .map(|statement| statement.options)
            .or_else(|| Some(self.get::<pg_sys::CreatedbStmt>()?.options))
            .or_else(|| Some(self.get::<pg_sys::AlterDefaultPrivilegesStmt>()?.options))
            .or_else(|| Some(self.get::<pg_sys::DefineStmt>()?.definition));
        // SAFETY: the grammar makes a list of `DefElem`, as valid as the statement. Each has a name.
        unsafe {
            elements::<pg_sys::DefElem>(list.unwrap_or(std::ptr::null_mut()))
                .map(|option| (CStr::from_ptr(option.defname), option))
        }
    }

    /// The roles that `ALTER … OWNER TO`, `ALTER TABLE … OWNER TO` or `CREATE SCHEMA … AUTHORIZATION` makes
    /// owners, and the roles of `ALTER DEFAULT PRIVILEGES FOR ROLE`, whose later objects it is for. A role
    /// that does not exist is [`Oid::INVALID`].
    pub(crate) fn named_owners(self) -> Vec<Oid> {
        let alone = self
            .get::<pg_sys::AlterOwnerStmt>()
            .map(|statement| statement.newowner)
            .or_else(|| Some(self.get::<pg_sys::CreateSchemaStmt>()?.authrole));
        let of_tables = self
            .alterations()
            .filter(|command| command.subtype == AlterTableType::AT_ChangeOwner)
            .map(|command| command.newowner);
        let is_for_roles = self.tag() == NodeTag::T_AlterDefaultPrivilegesStmt;
        let of_defaults = self
            .options()
            .filter(|(name, _)| is_for_roles && *name == c"roles")
            // SAFETY: the argument of this option is a list of `RoleSpec`, as valid as the statement.
            .flat_map(|(_, option)| unsafe { elements::<pg_sys::RoleSpec>(option.arg.cast()) })
            .map(|role| std::ptr::from_ref(role).cast_mut());
        let roles = alone.into_iter().chain(of_tables).chain(of_defaults);
        // SAFETY: each is a node of the tree, which the call only reads. It looks into the catalogs.
        roles
            .filter(|role| !role.is_null())
            .map(|role| unsafe { pg_sys::get_rolespec_oid(role, true) })
            .collect()
    }
}

/// A node that is known by its tag.
///
/// # Safety
/// Every node with the tag is a `Self`.
unsafe trait Tagged {
    const TAG: NodeTag;
}

macro_rules! tagged {
    ($($node:ident $tag:ident),+ $(,)?) => {
        // SAFETY: Postgres names a node's tag after its struct.
        $(unsafe impl Tagged for pg_sys::$node {
            const TAG: NodeTag = NodeTag::$tag;
        })+
    };
}

tagged! {
    AlterDefaultPrivilegesStmt T_AlterDefaultPrivilegesStmt,
    AlterOwnerStmt T_AlterOwnerStmt,
    AlterTableStmt T_AlterTableStmt,
    ClusterStmt T_ClusterStmt,
    CommentStmt T_CommentStmt,
    CreateSchemaStmt T_CreateSchemaStmt,
    CreateTableAsStmt T_CreateTableAsStmt,
    CreatedbStmt T_CreatedbStmt,
    DefineStmt T_DefineStmt,
    DiscardStmt T_DiscardStmt,
    DropStmt T_DropStmt,
    ExplainStmt T_ExplainStmt,
    GrantStmt T_GrantStmt,
    IndexStmt T_IndexStmt,
    ReindexStmt T_ReindexStmt,
    RenameStmt T_RenameStmt,
    SecLabelStmt T_SecLabelStmt,
    TruncateStmt T_TruncateStmt,
    VacuumStmt T_VacuumStmt,
    VariableSetStmt T_VariableSetStmt,
}

/// The name of a relation in a statement. Without a schema, Postgres looks it up in the search path.
#[derive(Clone, Copy)]
pub(crate) struct RelationName<'t>(&'t pg_sys::RangeVar);

impl<'t> RelationName<'t> {
    /// The name in a node; None where the pointer is null.
    ///
    /// # Safety
    /// The name is null or a node of a tree that stays unchanged for `'t`.
    unsafe fn new(name: *const pg_sys::RangeVar) -> Option<Self> {
        // SAFETY: the caller promises a valid node.
        unsafe { name.as_ref() }.map(Self)
    }

    /// The relation that has the name now; for an index, its table. It is not locked, because the current
    /// role may lack privileges on it.
    pub(crate) fn existing(self) -> Option<Oid> {
        // SAFETY: the calls read the name and the catalogs.
        unsafe {
            let relation = pg_sys::RangeVarGetRelidExtended(
                self.0,
                pg_sys::NoLock as pg_sys::LOCKMODE,
                pg_sys::RVROption::RVR_MISSING_OK,
                None,
                std::ptr::null_mut(),
            );
            let kind = pg_sys::get_rel_relkind(relation) as u8;
            let is_index =
                [pg_sys::RELKIND_INDEX, pg_sys::RELKIND_PARTITIONED_INDEX].contains(&kind);
            let table = if is_index { pg_sys::IndexGetRelation(relation, true) } else { relation };
            (table != Oid::INVALID).then_some(table)
        }
    }

    /// The schema in which a statement creates a relation of this name, and the name without the schema, in
    /// the database's encoding. None for a temporary relation.
    pub(crate) fn created(self) -> Option<(Oid, &'t [u8])> {
        // SAFETY: the calls read the name and the catalogs; the relation's own name is a C string of the
        // tree.
        unsafe {
            let schema = pg_sys::RangeVarGetCreationNamespace(self.0);
            let is_temporary = self.0.relpersistence as u8 == pg_sys::RELPERSISTENCE_TEMP
                || pg_sys::isAnyTempNamespace(schema);
            (!is_temporary).then(|| (schema, CStr::from_ptr(self.0.relname).to_bytes()))
        }
    }
}

/// The elements of a list of pointers.
///
/// # Safety
/// The list is null or a list of pointers to `T`, and outlives the iterator.
pub(super) unsafe fn elements<'l, T: 'l>(list: *const pg_sys::List) -> impl Iterator<Item = &'l T> {
    // SAFETY: the caller promises a list of pointers, and a list has as many cells as its length says.
    unsafe {
        let cells = list.as_ref().map_or(&[][..], |list| {
            std::slice::from_raw_parts(list.elements, usize::try_from(list.length).unwrap_or(0))
        });
        cells.iter().filter_map(|cell| cell.ptr_value.cast::<T>().as_ref())
    }
}
