//! The results of the SQL functions about providers and their keys.

use session_jwt::{Code, Provider, Rejection, json_string, quoted};

use super::table::{Rows, Table};
use super::{lookup, refresh};
use crate::pg::datum::Varlena;
use crate::pg::error;

/// Fetches a provider's keys now, and returns as `jsonb` how they differ from the earlier ones.
pub(crate) fn refresh_provider(name: &str) -> Result<Varlena, Rejection> {
    let changes = refresh::fetch_now(name)?;
    jsonb(|kid| {
        let list = |kids: &[Option<String>]| {
            kids.iter().map(|id| kid(id.as_deref())).collect::<Vec<_>>().join(", ")
        };
        format!(
            "{{\"added\": [{}], \"removed\": [{}], \"changed\": [{}], \"kept\": [{}]}}",
            list(&changes.added),
            list(&changes.removed),
            list(&changes.changed),
            list(&changes.kept)
        )
    })
}

/// The ids and algorithms of a provider's usable keys. None where there is no such row.
pub(crate) fn provider_keys(name: &str) -> Result<Option<Varlena>, Rejection> {
    let row = Table::find().map_or(Ok(None), |table| table.row(Rows::Named(name)))?;
    let Some(row) = row else {
        return Ok(None);
    };
    let provider = Provider::from_row(&row.document)?;
    let value = jsonb(|kid| {
        let keys = provider.keys().usable().map(|(id, algorithms)| {
            let algorithms: Vec<String> =
                algorithms.iter().map(|algorithm| json_string(algorithm.name())).collect();
            format!("{{\"kid\": {}, \"algorithms\": [{}]}}", kid(id), algorithms.join(", "))
        });
        format!("[{}]", keys.collect::<Vec<_>>().join(", "))
    });
    value.map(Some)
}

/// Warns of keys in the settings that cannot be used.
///
/// # Errors
/// Where the settings cannot be used, and where there is no provider at all.
pub(crate) fn warn_of_unusable_keys() -> Result<(), Rejection> {
    for provider in lookup::configured()?.providers() {
        let (name, keys) = (quoted(provider.name()), provider.keys());
        for key in keys.unusable() {
            error::warn(
                &format!("key {} of provider {name} is not used: {}", key.index + 1, key.reason),
                "The other keys of the set are used.",
            );
        }
        let more = keys.unusable_count() - keys.unusable().len();
        if more > 0 {
            error::warn(
                &format!("{more} more keys of provider {name} are not used"),
                "Correct the keys that are named above first.",
            );
        }
    }
    Ok(())
}

/// The `jsonb` of a JSON text with key ids. Where the database's encoding cannot represent a character of
/// an id, all ids have escapes for characters beyond ASCII.
fn jsonb(compose: impl Fn(fn(Option<&str>) -> String) -> String) -> Result<Varlena, Rejection> {
    fn exact(kid: Option<&str>) -> String {
        kid.map_or_else(|| "null".to_owned(), json_string)
    }
    fn escaped(kid: Option<&str>) -> String {
        kid.map_or_else(|| "null".to_owned(), |kid| json_string(&kid.escape_default().to_string()))
    }
    let value = Varlena::jsonb(&compose(exact)).or_else(|_| Varlena::jsonb(&compose(escaped)));
    value.map_err(|_| {
        Rejection::new(Code::Claim, "key ids cannot be converted to jsonb")
            .with_detail("The database's encoding cannot represent a character, or jsonb a value.")
    })
}
