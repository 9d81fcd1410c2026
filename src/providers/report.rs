//! The results of the SQL functions about providers and their keys.

use session_jwt::{Code, KeySet, Provider, Rejection, json_string, quoted};

use super::table::{Rows, Table};
use super::{lookup, refresh};
use crate::pg::datum::{Varlena, array_element};
use crate::pg::function::Row;
use crate::pg::{error, role};
use lookup::PRECEDENCE;

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

/// The row of `auth.added_provider()`: name, issuer, keys, warnings.
pub(crate) fn added_provider(name: &str) -> Result<Row, Rejection> {
    let table = Table::find();
    table.inspect(|table| table.check_insert());
    let row = table.map_or(Ok(None), |table| table.row(Rows::Named(name)))?;
    let Some(row) = row else {
        return Err(refresh::no_such_row(name));
    };
    let provider = Provider::from_row(&row.document)?;
    let keys = match provider.remote() {
        Some(_) if provider.keys().is_waiting() => match refresh::hindrance() {
            None => "They are fetched after the commit; auth.provider_status shows the result."
                .to_owned(),
            Some(hindrance) => hindrance.to_owned(),
        },
        _ => list_keys(provider.keys()),
    };
    let mut warnings = provider.advice();
    let missing = provider.roles().filter(|name| role::find(name).is_none());
    warnings.extend(missing.map(|name| {
        format!(
            "The role {} does not exist. Create it, and grant it to the login role.",
            quoted(name)
        )
    }));
    if lookup::is_in_settings(&provider) {
        warnings.push(format!("The provider is not used. {PRECEDENCE}"));
    }
    let warnings = warnings.iter().map(|warning| array_element(warning.as_bytes()));
    let warnings = warnings.collect::<Vec<_>>().join(&b',');
    let warnings = String::from_utf8_lossy(&warnings);
    Ok(vec![
        Some(provider.name().to_owned()),
        provider.issuer().map(str::to_owned),
        Some(keys),
        Some(format!("{{{warnings}}}")),
    ])
}

/// The usable keys of a set in a line, and how many are not usable.
fn list_keys(keys: &KeySet) -> String {
    const LISTED: usize = 10;
    let usable = keys.usable().map(|(id, algorithms)| {
        let algorithms: Vec<&str> = algorithms.iter().map(|algorithm| algorithm.name()).collect();
        format!(
            "{} ({})",
            id.map_or_else(|| "without kid".to_owned(), quoted),
            algorithms.join(", ")
        )
    });
    let mut listed: Vec<String> = usable.collect();
    if listed.len() > LISTED {
        let more = listed.len() - LISTED;
        listed.truncate(LISTED);
        listed.push(format!("and {more} more"));
    }
    match keys.unusable_count() {
        0 => listed.join(", "),
        count => format!("{}; {count} not usable", listed.join(", ")),
    }
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
