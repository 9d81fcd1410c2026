//! Creation of triggers on the tables of the extension, which their owner may do only.

use session_jwt::{Code, Rejection};

use crate::pg::relation::{Oid, OpenRelation};
use crate::pg::role::has_privileges_of;
use crate::pg::trigger::relation_of_trigger;
use crate::providers::Table;
use crate::revocations;

/// Rejects a trigger that was just created on a table of the extension, unless the current role has the
/// privileges of the table's owner. A foreign key that references the table creates such triggers too.
/// With the privilege REFERENCES or TRIGGER alone, a role could keep a provider from being removed, or a token from
/// being revoked.
pub(crate) fn check_trigger(trigger: Oid) -> Result<(), Rejection> {
    let is_own = |relation: &Oid| {
        Table::find().is_some_and(|table| table.is(*relation)) || revocations::is_table(*relation)
    };
    let Some(relation) = relation_of_trigger(trigger).filter(is_own) else {
        return Ok(());
    };
    let owner = OpenRelation::open(relation).map(|relation| relation.owner());
    if owner.is_some_and(has_privileges_of) {
        return Ok(());
    }
    Err(Rejection::new(Code::Forbidden, "permission denied to attach to table of the extension")
        .with_detail("Only its owner creates triggers on it and foreign keys that reference it."))
}
