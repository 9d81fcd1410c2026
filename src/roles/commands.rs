//! Utility statements: which of them need no role, and which a locked session may not run.

use session_jwt::{Code, Rejection};

use super::locked::is_session_locked;
use crate::pg::node::{NodeTag, ObjectType, Statement};
use crate::pg::role::{current_user, is_current_superuser};

/// Whether a utility statement may run without the role of the token. Such a statement controls the
/// transaction or the state of the session, or it runs other statements, which are judged themselves.
pub(crate) fn needs_no_role(statement: Statement<'_>) -> bool {
    use NodeTag::*;
    matches!(
        statement.tag(),
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

/// Rejects statements by which a locked session could act as another role: those that transfer
/// ownership, because a function or a view runs with the privileges of its owner, and those that change
/// roles and memberships. They are not rejected where the current user is a superuser, such as in a
/// security-definer function of a superuser.
pub(crate) fn check_locked_session(statement: Statement<'_>) -> Result<(), Rejection> {
    let message = if transfers_ownership(statement) {
        "permission denied to transfer ownership"
    } else if changes_roles(statement) {
        "permission denied to change roles"
    } else {
        return Ok(());
    };
    if is_current_superuser() || !is_session_locked() {
        return Ok(());
    }
    Err(Rejection::new(Code::Forbidden, message)
        .with_detail("The session's login role is in pg_session_jwt.locked_roles.")
        .with_hint("An administrator can do it, in a session that is not locked."))
}

/// Whether a statement makes another role than the current one the owner of an object that exists or
/// will be created.
fn transfers_ownership(statement: Statement<'_>) -> bool {
    use NodeTag::*;
    match statement.tag() {
        // The option is rejected whatever role it names: a role that creates a database for itself can
        // omit it.
        T_CreatedbStmt => statement.option_names().any(|name| name == c"owner"),
        T_ReassignOwnedStmt => true,
        _ => {
            let current = current_user();
            statement.named_owners().into_iter().any(|owner| owner != current)
        }
    }
}

/// Whether a statement creates, alters or drops a role, or changes who is a member of one.
fn changes_roles(statement: Statement<'_>) -> bool {
    use NodeTag::*;
    match statement.tag() {
        // Statements for users and groups have the same nodes.
        T_CreateRoleStmt | T_AlterRoleStmt | T_AlterRoleSetStmt | T_DropRoleStmt
        | T_GrantRoleStmt => true,
        T_RenameStmt => statement.object_type() == Some(ObjectType::OBJECT_ROLE),
        _ => false,
    }
}
