//! The actions that commands need, where `auth.protect_schema()` is in force.
//!
//! The event triggers in SQL judge most commands at their end, by the objects that they have changed. This
//! module judges the other commands before they run, by their parse trees: commands that fire no event
//! trigger, and commands whose effect is not visible at the end.

use std::ffi::CStr;

use session_jwt::{Action, Code, Rejection};

use super::demand;
use crate::pg::node::{AlterTableType, NodeTag, ObjectType, RelationName, Statement};
use crate::pg::relation::{Name, is_temporary};
use crate::pg::role::is_current_superuser;
use crate::pg::trigger::is_event_trigger_enabled;

/// The event trigger that `auth.protect_schema()` creates for `ddl_command_start`.
const EVENT_TRIGGER: &CStr = c"pg_session_jwt_ddl_start";

/// Judges a utility statement that fires no event trigger in some version of Postgres, before it runs.
/// Superusers are exempt.
pub(crate) fn check_utility(statement: Statement<'_>) -> Result<(), Rejection> {
    let needs = needs(statement);
    if needs.is_empty() || is_current_superuser() || !is_event_trigger_enabled(EVENT_TRIGGER) {
        return Ok(());
    }
    demand_all(needs)
}

/// `auth.check_ddl_start()`: judges a command that fires the event trigger for `ddl_command_start`, where
/// it needs an action on the database as a whole, or where [`check_utility`] would judge it. Where the call
/// of this function has loaded the library, that has not judged it. Superusers are exempt.
pub(crate) fn check_ddl_start(statement: Option<Statement<'_>>) -> Result<(), Rejection> {
    let Some(statement) = statement else {
        return Err(Rejection::new(
            Code::Configuration,
            "function must be called as an event trigger",
        )
        .with_detail("It is for ddl_command_start.")
        .with_hint("Call auth.protect_schema(), which creates the event trigger."));
    };
    if is_current_superuser() {
        return Ok(());
    }
    let on_database = needs_on_database(statement).map(|action| (action, Target::Database));
    demand_all(needs(statement).into_iter().chain(on_database))
}

fn demand_all<'t>(needs: impl IntoIterator<Item = (Action, Target<'t>)>) -> Result<(), Rejection> {
    needs.into_iter().try_for_each(|(action, target)| target.demand(action))
}

/// The object on which a command needs an action.
#[derive(Clone, Copy)]
enum Target<'t> {
    Database,
    /// A relation that exists; for an index, its table.
    Existing(RelationName<'t>),
    /// A relation that the command creates.
    Created(RelationName<'t>),
}

impl Target<'_> {
    /// Rejects the action where the session's token does not allow it. Temporary relations need none.
    fn demand(self, action: Action) -> Result<(), Rejection> {
        let name = match self {
            Target::Database => None,
            Target::Existing(name) => match name.existing() {
                // Another session may create the relation before the command looks for it. So the
                // command needs the action everywhere.
                None => None,
                Some(relation) if is_temporary(relation) => return Ok(()),
                Some(relation) => Name::of(relation),
            },
            Target::Created(name) => match name.created() {
                None => return Ok(()),
                Some((schema, name)) => Some(Name::within(schema, name)),
            },
        };
        match &name {
            Some(Name::Known { schema, name }) => demand(action, Some((schema, name))),
            // A token cannot contain a name that has no equal in UTF-8.
            Some(Name::Unrepresentable) | None => demand(action, None),
        }
    }
}

/// The actions that a utility statement needs, if event triggers do not see it.
fn needs(statement: Statement<'_>) -> Vec<(Action, Target<'_>)> {
    use Action::{SchemaAdd, SchemaDelete, SchemaUpdate};
    use NodeTag::*;
    let database = |action| vec![(action, Target::Database)];
    let named_relations = || match statement.relations() {
        Some(names) => {
            names.into_iter().map(|name| (SchemaUpdate, Target::Existing(name))).collect()
        }
        None => database(SchemaUpdate),
    };
    match statement.tag() {
        T_ReindexStmt | T_ClusterStmt => named_relations(),
        // ANALYZE only gathers statistics, as autovacuum does.
        T_VacuumStmt if statement.is_vacuum() => named_relations(),
        // Which tables CASCADE adds is known only when the statement runs.
        T_TruncateStmt if statement.truncates_cascading() => database(SchemaUpdate),
        T_TruncateStmt => named_relations(),
        T_ExplainStmt => match statement.explained().and_then(Statement::created_relation) {
            Some(name) if statement.is_option_on(c"analyze") => {
                vec![(SchemaAdd, Target::Created(name))]
            }
            _ => Vec::new(),
        },
        T_ReassignOwnedStmt
        | T_AlterDatabaseStmt
        | T_AlterDatabaseRefreshCollStmt
        | T_AlterDatabaseSetStmt => database(SchemaUpdate),
        T_CreatedbStmt => database(SchemaAdd),
        T_DropdbStmt => database(SchemaDelete),
        T_RenameStmt | T_AlterOwnerStmt | T_GrantStmt | T_CommentStmt | T_SecLabelStmt
            if statement.object_type() == Some(ObjectType::OBJECT_DATABASE) =>
        {
            database(SchemaUpdate)
        }
        _ => Vec::new(),
    }
}

/// The subcommands of `ALTER TABLE` that make a table the child of another one, or end that.
const INHERITANCE: [AlterTableType::Type; 5] = [
    AlterTableType::AT_AddInherit,
    AlterTableType::AT_DropInherit,
    AlterTableType::AT_AttachPartition,
    AlterTableType::AT_DetachPartition,
    AlterTableType::AT_DetachPartitionFinalize,
];

/// The objects that are parts of a table, which keeps its name when they are renamed.
const PARTS: [ObjectType::Type; 5] = [
    ObjectType::OBJECT_COLUMN,
    ObjectType::OBJECT_TABCONSTRAINT,
    ObjectType::OBJECT_TRIGGER,
    ObjectType::OBJECT_POLICY,
    ObjectType::OBJECT_RULE,
];

/// The action that a command needs on the database as a whole, if any. Such a command changes what names
/// mean, connects tables with each other, or has effects before, or without, the other event triggers.
fn needs_on_database(statement: Statement<'_>) -> Option<Action> {
    use Action::{SchemaAdd, SchemaDelete, SchemaUpdate};
    use NodeTag::*;
    match statement.tag() {
        T_RenameStmt => {
            let is_part = statement.object_type().is_some_and(|kind| PARTS.contains(&kind));
            (!is_part).then_some(SchemaUpdate)
        }
        T_AlterObjectSchemaStmt => Some(SchemaUpdate),
        T_AlterTableStmt => {
            let mut subcommands = statement.subcommands();
            subcommands.any(|kind| INHERITANCE.contains(&kind)).then_some(SchemaUpdate)
        }
        // These run in transactions of their own, which are committed before the end. An index is a part
        // of its table.
        T_IndexStmt | T_DropStmt if statement.is_concurrent() => Some(SchemaUpdate),
        // An abort does not undo what these do on the publisher.
        T_CreateSubscriptionStmt => Some(SchemaAdd),
        T_AlterSubscriptionStmt => Some(SchemaUpdate),
        T_DropSubscriptionStmt => Some(SchemaDelete),
        // CREATE OPERATOR changes the operator that it names as its commutator or negator.
        T_DefineStmt if statement.object_type() == Some(ObjectType::OBJECT_OPERATOR) => {
            let mut names = statement.option_names();
            let is_linked = names.any(|name| [c"commutator", c"negator"].contains(&name));
            is_linked.then_some(SchemaUpdate)
        }
        // DROP OWNED also removes the role from policies, which no other event trigger sees.
        T_DropOwnedStmt => Some(SchemaDelete),
        _ => None,
    }
}
