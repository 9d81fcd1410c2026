//! The permissions of the session's token: actions on tables, and on the database as a whole.
//!
//! [`allows`] returns whether an action is allowed; policies call it as `auth.allows()`. [`demand`] rejects
//! an action that is not allowed; [`commands`] calls it, and so do the event triggers that
//! `auth.protect_schema()` creates.

pub(crate) mod attachment;
pub(crate) mod commands;

use session_jwt::{Action, Code, Rejection, quoted};

use crate::pg::datum::from_server_encoding;
use crate::pg::function::Permit;
use crate::pg::relation::{self, Name, Oid};
use crate::session::{self, current};

/// The key of an answer of [`allows`] beside its arguments: the number of the session's identity, and the
/// count of possible renames. None where the identity has to be resolved first.
#[inline(always)]
pub(crate) fn owner_and_names() -> Option<(u64, u64)> {
    current::owner().map(|owner| (owner, relation::names()))
}

/// Whether the session's token allows the action of that name, in the database's encoding, on a table;
/// for None, on the database as a whole.
pub(crate) fn allows(action: &[u8], table: Option<Oid>) -> Result<Permit, Rejection> {
    let action = Action::expect(&from_server_encoding(action).unwrap_or_default())?;
    let identity = session::identity()?;
    // The count is read before the name. So a rename in between makes the answer outdated.
    let names = relation::names();
    let is_allowed = identity.as_ref().is_some_and(|identity| {
        let permissions = identity.claims().permissions();
        let Some(table) = table else {
            return permissions.allows(action, None);
        };
        match Name::of(table) {
            Some(Name::Known { schema, name }) => {
                permissions.allows(action, Some((&schema, &name)))
            }
            Some(Name::Unrepresentable) => permissions.allows(action, None),
            None => false,
        }
    });
    let owner = identity.map_or(current::NO_OWNER, |identity| identity.number());
    Ok(Permit { owner, names, is_allowed })
}

/// Rejects an action that the session's token does not allow on the table of that schema and name, which
/// need not exist; for None, on the database as a whole.
pub(crate) fn demand(action: Action, table: Option<(&str, &str)>) -> Result<(), Rejection> {
    let identity = session::identity()?;
    if identity
        .as_ref()
        .is_some_and(|identity| identity.claims().permissions().allows(action, table))
    {
        return Ok(());
    }
    let target = match table {
        Some((schema, name)) => format!("the table {}.{}", quoted(schema), quoted(name)),
        None => "the database as a whole".to_owned(),
    };
    let reason = match identity {
        Some(_) => "The session's token does not grant it.",
        None => "The session has no token.",
    };
    Err(Rejection::new(Code::Forbidden, "token does not allow this")
        .with_detail(format!("The statement needs {} on {target}. {reason}", action.name())))
}
