//! The trigger on the rows of `auth.providers`.

use session_jwt::{Code, Provider, Rejection};

use super::table::{Table, check_columns};
use super::{lookup, refresh, row};
use crate::pg::relation::OpenRelation;
use crate::pg::trigger::{RowChange, StoredRow};
use crate::pg::{error, redact};
use crate::settings;

/// Checks a row before it is stored, and invalidates the table where the provider changes.
pub(crate) fn check_row(change: Option<&RowChange<'_>>) -> Result<StoredRow, Rejection> {
    let is_providers =
        |change: &&RowChange<'_>| Table::find().is_some_and(|table| table.is(change.relation()));
    let change = change.filter(is_providers).ok_or_else(|| {
        Rejection::new(Code::Configuration, "function cannot be called here")
            .with_detail("It is the BEFORE trigger for the rows of auth.providers.")
    })?;
    redact::redact_statement();
    if let Some(relation) = OpenRelation::open(change.relation()) {
        check_columns(&relation)?;
    }
    let Some(new) = change.new_row() else {
        change.invalidate_relation();
        return Ok(change.accept(&[]));
    };
    let document = row::document(new)?;
    let provider = Provider::from_row(&document)?;
    // An old row that cannot be read counts as different. It was stored while the trigger was disabled.
    let is_same =
        change.old_row().is_some_and(|old| row::document(old).is_ok_and(|old| old == document));
    if is_same {
        return Ok(change.accept(&[]));
    }
    let voids_progress = check_provider(&provider)?;
    change.invalidate_relation();
    Ok(if voids_progress { change.accept(&row::progress()) } else { change.accept(&[]) })
}

/// Checks a provider that is new or has changed. Returns whether to clear the columns that record the
/// progress of fetches: it fetches no keys, or has none from its present address.
fn check_provider(provider: &Provider) -> Result<bool, Rejection> {
    let Some(remote) = provider.remote() else {
        warn_of_precedence(provider);
        return Ok(true);
    };
    settings::check_scheme(remote.source())?;
    warn_of_precedence(provider);
    let is_waiting = provider.keys().is_waiting();
    if is_waiting {
        refresh::request_at_commit(provider.name());
    }
    Ok(is_waiting)
}

fn warn_of_precedence(provider: &Provider) {
    if lookup::is_in_settings(provider) {
        error::warn("provider is not used", lookup::PRECEDENCE);
    }
}
