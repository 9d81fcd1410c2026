//! The updates of rows by the background worker.

use jwks_fetch::Validators;

use super::schedule::RefreshReason;
use super::table::Table;
use crate::pg::spi;

/// Keys to store.
pub(super) struct NewKeys<'k> {
    pub(super) jwks: &'k str,
    /// The URL of the source in the row, before discovery and redirects.
    pub(super) fetched_from: &'k str,
    pub(super) validators: &'k Validators,
    /// Which keys of the set cannot be used, and why.
    pub(super) passed_over: &'k str,
    /// Whether the row had no keys before.
    pub(super) are_first: bool,
}

/// Records that a fetch begins. Returns whether there is such a row.
pub(super) fn claim(table: Table, name: &str, reason: RefreshReason) -> bool {
    // If the worker ends before it records the outcome, the keys are due again in a minute.
    let rows = update(
        table,
        "UPDATE @table SET last_fetch = clock_timestamp(),
             fetch_began = clock_timestamp(),
             next_refresh = clock_timestamp() + interval '1 minute',
             last_demand = CASE WHEN $2::boolean THEN clock_timestamp() ELSE last_demand END
         WHERE name = $1",
        &[Some(name), Some(boolean(reason.is_caused_by_token()))],
    );
    rows != 0
}

/// Records that the keys are the same as before, and for how many seconds they are fresh.
pub(super) fn keep_keys(table: Table, name: &str, fresh: i64) {
    update(
        table,
        "UPDATE @table SET last_success = clock_timestamp(), failures = 0,
             fetch_began = NULL, last_error = NULL,
             next_refresh = clock_timestamp() + $2::integer * interval '1 second'
         WHERE name = $1",
        &[Some(name), Some(&fresh.to_string())],
    );
}

/// Stores new keys, and for how many seconds they are fresh.
pub(super) fn store_keys(table: Table, name: &str, keys: &NewKeys<'_>, fresh: i64) {
    // The first keys of a provider clear `last_demand`. So a token with a key that was added right
    // afterwards causes a request at once.
    update(
        table,
        "UPDATE @table SET fetched_jwks = $3::json, fetched_from = $4,
             keys_url = $5, etag = $6, last_modified = $7,
             passed_over = nullif($8, ''),
             last_demand = CASE WHEN $9::boolean THEN NULL ELSE last_demand END,
             last_success = clock_timestamp(), failures = 0,
             fetch_began = NULL, last_error = NULL,
             next_refresh = clock_timestamp() + $2::integer * interval '1 second'
         WHERE name = $1",
        &[
            Some(name),
            Some(&fresh.to_string()),
            Some(keys.jwks),
            Some(keys.fetched_from),
            keys.validators.url.as_deref(),
            keys.validators.etag.as_deref(),
            keys.validators.last_modified.as_deref(),
            Some(keys.passed_over),
            Some(boolean(keys.are_first)),
        ],
    );
}

/// Records a failure, and after how many milliseconds the keys are fetched again.
pub(super) fn record_failure(table: Table, name: &str, reason: &str, retry: i64) {
    update(
        table,
        "UPDATE @table SET failures = coalesce(failures, 0) + 1,
             fetch_began = NULL, last_error = $2,
             next_refresh = clock_timestamp() + $3::integer * interval '1 millisecond'
         WHERE name = $1",
        &[Some(name), Some(reason), Some(&retry.to_string())],
    );
}

fn update(table: Table, statement: &str, arguments: &[Option<&str>]) -> usize {
    spi::update_as_owner(table.oid(), statement, arguments)
}

fn boolean(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}
