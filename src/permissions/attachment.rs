//! Creation of triggers on `auth.providers`, which its owner may do only.

use session_jwt::{Code, Rejection};

use crate::pg::relation::{Oid, OpenRelation};
use crate::pg::role::has_privileges_of;
use crate::pg::trigger::relation_of_trigger;
use crate::providers::Table;

/// Rejects a trigger that was just created on the table of providers, unless the current role has the
/// privileges of the table's owner. A foreign key that references the table creates such triggers too.
/// With the privilege REFERENCES or TRIGGER alone, a role could keep a provider from being removed.
pub(crate) fn check_trigger(trigger: Oid) -> Result<(), Rejection> {
    let providers = relation_of_trigger(trigger)
        .filter(|relation| Table::find().is_some_and(|table| table.is(*relation)));
    let Some(providers) = providers else {
        return Ok(());
    };
    let owner = OpenRelation::open(providers).map(|relation| relation.owner());
    if owner.is_some_and(has_privileges_of) {
        return Ok(());
    }
    Err(Rejection::new(Code::Forbidden, "permission denied to attach to auth.providers")
        .with_detail("Only its owner creates triggers on it and foreign keys that reference it."))
}
