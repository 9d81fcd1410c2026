//! The background worker that fetches keys.
//!
//! The worker records that a fetch begins, and commits. It requests the keys without an open transaction,
//! and records the outcome in another one.

use std::time::Duration;

use jwks_fetch::{Request, Response, Source, Validators, fetch};
use session_jwt::{KeySet, KeySource, Provider, Rejection, quoted};

use super::row::Row;
use super::schedule::{self, RefreshReason, is_due, may_fetch_for_token};
use super::table::{Rows, Table};
use super::writer::{self, NewKeys};
use crate::pg::backend::{self, Timestamp};
use crate::pg::error;
use crate::pg::worker::{self, Task, sleep};
use crate::settings::{self, JWKS_CA_FILE, JWKS_TIMEOUT};
use crate::statistics::counters;

/// Runs a worker, given a [`RefreshReason`]'s number and the name of a row. An empty name stands for all
/// rows whose keys no worker has requested from their present address.
pub(crate) fn run(reason: u8, name: &str) {
    let Some(reason) = RefreshReason::from_number(reason) else {
        return;
    };
    worker::override_settings(&[
        (c"search_path", "pg_catalog, pg_temp"),
        (c"default_transaction_read_only", "off"),
        (c"default_transaction_isolation", "read committed"),
        // Commits do not wait for a standby.
        (c"synchronous_commit", "local"),
        // A transaction that keeps the row locked does not delay the sessions that wait for keys.
        (c"lock_timeout", "1s"),
        // Only triggers that are enabled ALWAYS fire. Others may be code of other roles, and the worker is
        // a superuser.
        (c"session_replication_role", "replica"),
    ]);
    if !name.is_empty() {
        refresh(reason, name);
    }
    // Other rows may have keys that no worker has requested: no worker could be started for them, or one
    // transaction added several rows, or the address has changed since.
    let left = worker::transaction(|| Table::find().map_or_else(Vec::new, Table::never_fetched));
    if reason == RefreshReason::Due {
        for name in left {
            refresh(RefreshReason::Due, &name);
        }
    } else if !left.is_empty() {
        // Another worker fetches them, because a session waits for the end of this one.
        worker::start_detached(&Task { kind: RefreshReason::Due.number(), text: "" });
    }
}

/// A fetch that this worker has recorded as begun.
struct Claim {
    source: KeySource,
    provider: Provider,
    validators: Validators,
    failures: i32,
}

/// Fetches the keys of one row, unless the reason does not hold any more.
fn refresh(reason: RefreshReason, name: &str) {
    let began = backend::now();
    let Some(table) = worker::transaction(Table::find) else {
        return;
    };
    let lock = schedule::worker_lock(table, name);
    // Another worker that holds the lock performs the scheduled refresh; but a session may hold it for a
    // moment, to see whether a worker does. For the other reasons, the request of the other worker may have
    // been too early to get the new keys, so this worker waits for its end.
    let longest = match reason {
        RefreshReason::Due => 100_000,
        _ => 1000 * JWKS_TIMEOUT.get() as Timestamp,
    };
    let until = began + longest;
    while !worker::transaction(|| lock.try_acquire_for_process()) {
        if backend::now() > until {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    if let Some(claim) = worker::transaction(|| claim(reason, name, began)) {
        let response = ask(&claim);
        let has_succeeded = worker::transaction(|| record(reason, name, claim, response));
        if let Some(has_succeeded) = has_succeeded {
            counters::count_refresh(name, has_succeeded);
        }
    }
    worker::transaction(|| lock.release_for_process());
}

/// Records that the fetch begins, if the row still needs it.
fn claim(reason: RefreshReason, name: &str, began: Timestamp) -> Option<Claim> {
    let table = Table::find()?;
    let row = table.row(Rows::Named(name)).ok()??;
    let provider = Provider::from_row(&row.document).ok()?;
    let source = provider.remote()?.source().clone();
    if !is_needed(reason, &row, &provider, began) || !writer::claim(table, name, reason) {
        return None;
    }
    // `Last-Modified` counts seconds, so that two changes within one second look the same. Where newer
    // keys are expected, or there are none, the whole set is fetched.
    let validators = if reason != RefreshReason::Due || provider.keys().is_waiting() {
        Validators::default()
    } else {
        Validators {
            url: row.fetching.keys_url,
            etag: row.fetching.etag,
            last_modified: row.fetching.last_modified,
        }
    };
    Some(Claim { source, provider, validators, failures: row.fetching.failures })
}

fn is_needed(reason: RefreshReason, row: &Row, provider: &Provider, began: Timestamp) -> bool {
    let now = backend::now();
    match reason {
        RefreshReason::Due => is_due(row, now),
        RefreshReason::UnknownKey => {
            let is_just_done = row.fetching.last_success.is_some_and(|time| time >= began);
            may_fetch_for_token(row, now) && !is_just_done
        }
        RefreshReason::FirstKeys => may_fetch_for_token(row, now) && provider.keys().is_empty(),
        RefreshReason::Administrator => true,
    }
}

/// Requests the keys from the provider. The error is a sentence.
fn ask(claim: &Claim) -> Result<Response, String> {
    // The list of hosts may have changed since the row was written.
    settings::check_scheme(&claim.source).map_err(|rejection| as_sentences(&rejection))?;
    let request = Request {
        source: match &claim.source {
            KeySource::Url(url) => Source::Url(url.clone()),
            KeySource::Discovery { issuer, .. } => Source::Discovery { issuer: issuer.clone() },
        },
        validators: claim.validators.clone(),
        http_hosts: settings::http_hosts(),
        ca_file: JWKS_CA_FILE.path(),
        // The fetch ends before the sessions stop waiting, so that they report the reason of a failure.
        timeout: Duration::from_millis(JWKS_TIMEOUT.get() as u64) * 9 / 10,
    };
    worker::run_on_thread(move || fetch(&request))
        .unwrap_or_else(|| Err("The thread that fetches keys has failed.".to_owned()))
}

/// Records the outcome of a fetch, unless the row names another source now. Returns whether the fetch has succeeded;
/// None where nothing is recorded.
fn record(
    reason: RefreshReason,
    name: &str,
    claim: Claim,
    response: Result<Response, String>,
) -> Option<bool> {
    let table = Table::find()?;
    let row = table.row(Rows::Named(name)).ok().flatten();
    let provider = row.and_then(|row| Provider::from_row(&row.document).ok());
    let remote = provider.as_ref().and_then(Provider::remote);
    if remote.is_none_or(|remote| *remote.source() != claim.source) {
        return None;
    }
    let outcome = response.and_then(|response| store(table, name, &claim, &response));
    let has_succeeded = outcome.is_ok();
    if let Err(failure) = outcome {
        error::log(&format!(
            "pg_session_jwt: the keys of provider {} could not be fetched: {failure}",
            quoted(name)
        ));
        let failures = if reason == RefreshReason::Administrator { 0 } else { claim.failures };
        writer::record_failure(table, name, &failure, schedule::retry_delay(failures));
    }
    Some(has_succeeded)
}

/// Stores the keys of a response. The error is a sentence.
fn store(table: Table, name: &str, claim: &Claim, response: &Response) -> Result<(), String> {
    let keep_keys = claim.provider.remote().map(|remote| remote.keep_keys());
    let fresh = schedule::freshness(response.fresh_for, keep_keys);
    let Some(body) = &response.body else {
        writer::keep_keys(table, name, fresh);
        return Ok(());
    };
    let keys = KeySet::fetched(body, claim.provider.algorithms())
        .map_err(|rejection| unusable(response, &rejection))?;
    let passed_over = keys.passed_over.iter().map(|key| {
        let kid = key.kid.as_deref().map(|kid| format!(" (kid {})", quoted(kid)));
        format!("Key {}{}: {}", key.index + 1, kid.unwrap_or_default(), key.reason)
    });
    let passed_over = passed_over.collect::<Vec<_>>().join(" ");
    let new = NewKeys {
        jwks: &keys.jwks,
        fetched_from: claim.source.url(),
        validators: &response.validators,
        passed_over: &passed_over,
        are_first: claim.provider.keys().is_empty(),
    };
    writer::store_keys(table, name, &new, fresh);
    Ok(())
}

/// Why the keys of a response cannot be used, without the query of its URL, as in other errors.
fn unusable(response: &Response, rejection: &Rejection) -> String {
    let url = response.validators.url.as_deref().unwrap_or_default();
    let url = quoted(url.split('?').next().unwrap_or_default());
    format!("The answer of {url} cannot be used: {}", as_sentences(rejection))
}

/// A rejection with its detail and hint. All but the first are sentences that begin in upper case.
fn as_sentences(rejection: &Rejection) -> String {
    let more = [rejection.detail(), rejection.hint()].into_iter().flatten();
    more.fold(format!("{}.", rejection.message()), |text, sentence| format!("{text} {sentence}"))
}
