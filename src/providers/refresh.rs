//! How a session has keys fetched.
//!
//! A session never sends a request itself. It takes the session lock of the row, starts a background
//! worker and waits for it; other sessions wait for the lock, and find the new keys when they get it.

use std::cell::RefCell;
use std::time::Duration;

use session_jwt::{Code, KeyChanges, Provider, Rejection, in_words, quoted};

use super::row::{Fetching, Row};
use super::schedule::{
    RefreshReason, is_due, may_fetch_for_token, seconds_until_next_token, session_lock, worker_lock,
};
use super::table::{Rows, Table};
use crate::pg::backend::{self, BackendLocal, Timestamp, seconds};
use crate::pg::error;
use crate::pg::worker::{self, Task, Worker, sleep};
use crate::settings::JWKS_TIMEOUT;

const STILL_FETCHING: &str = "Its keys are still being fetched.";

const UNFINISHED: &str = "The fetch has not ended, or was interrupted.";

const NOT_ASKED: &str = "The background worker ended before it asked: the provider's row is not \
                         committed, or is locked by another transaction, or the server's log says \
                         why.";

const NO_WORKER: &str = "No background worker can be started to fetch its keys: all of \
                         max_worker_processes are in use.";

/// Starts a worker for a row whose scheduled time has come. It does not wait for the keys: the present ones
/// stay in use.
pub(super) fn fetch_due(table: Table, row: &Row) {
    if hindrance().is_some() {
        return;
    }
    let lock = session_lock(table, &row.name);
    if !lock.try_acquire() {
        return;
    }
    // The lock is held until the worker has recorded that the fetch begins, or for 100 ms. So the next
    // session does not start another worker.
    if let Some(worker) = start(RefreshReason::Due, &row.name) {
        let has_begun = || match table.row(Rows::Named(&row.name)) {
            Ok(Some(row)) => !is_due(&row, backend::now()),
            _ => true,
        };
        wait(&worker, Duration::from_millis(100), has_begun);
    }
    lock.release();
}

/// Has keys fetched because no known key verifies a token, and waits for them. The error is a
/// sentence. `is_satisfied` tells whether a row that was read again has keys that may verify it.
pub(super) fn fetch_for_token(
    table: Table,
    name: &str,
    is_satisfied: impl Fn(&Row) -> bool,
) -> Result<(), String> {
    if let Some(hindrance) = hindrance() {
        return Err(hindrance.to_owned());
    }
    let until = backend::now() + 1000 * JWKS_TIMEOUT.get() as Timestamp;
    let lock = session_lock(table, name);
    // Another session that holds the lock waits for the keys already.
    while !lock.try_acquire() {
        if backend::now() >= until {
            return Err(STILL_FETCHING.to_owned());
        }
        sleep(Duration::from_millis(10));
    }
    let outcome = fetch_under_lock(table, name, &is_satisfied, until);
    lock.release();
    outcome
}

fn fetch_under_lock(
    table: Table,
    name: &str,
    is_satisfied: &dyn Fn(&Row) -> bool,
    until: Timestamp,
) -> Result<(), String> {
    let read = || match table.row(Rows::Named(name)) {
        Ok(Some(row)) => Ok(row),
        _ => Err("The provider's row does not exist any more.".to_owned()),
    };
    let mut row = read()?;
    // A worker may be fetching the keys for another reason, such as the schedule.
    while is_being_fetched(table, &row) && backend::now() < until {
        sleep(Duration::from_millis(10));
        row = read()?;
    }
    if is_satisfied(&row) {
        return Ok(());
    }
    let now = backend::now();
    if !may_fetch_for_token(&row, now) {
        return Err(format!(
            "{} For a token with an unknown key, they are fetched again in {} at the earliest; \
             auth.refresh_provider() fetches them at once.",
            describe(&row),
            in_words(seconds_until_next_token(&row, now))
        ));
    }
    let reason = if has_keys(&row) { RefreshReason::UnknownKey } else { RefreshReason::FirstKeys };
    let Some(worker) = start(reason, name) else {
        return Err(NO_WORKER.to_owned());
    };
    let left = u64::try_from(until - now).unwrap_or(0);
    let has_stopped = wait(&worker, Duration::from_micros(left), || false);
    let row = read()?;
    if is_satisfied(&row) {
        Ok(())
    } else if !has_stopped {
        Err(STILL_FETCHING.to_owned())
    } else if reason == RefreshReason::FirstKeys && has_keys(&row) {
        // Another worker has fetched the first keys, and they do not verify the token. The reason is now
        // `UnknownKey`, so that this call does not repeat itself.
        fetch_under_lock(table, name, is_satisfied, until)
    } else if row.fetching.last_fetch.is_none_or(|time| time < now) {
        Err(NOT_ASKED.to_owned())
    } else {
        Err(describe(&row))
    }
}

/// Fetches a provider's keys through a worker at once, and returns how they differ from the earlier ones.
pub(super) fn fetch_now(name: &str) -> Result<KeyChanges, Rejection> {
    let failed = |reason: &str| {
        Rejection::new(Code::Fetching, "provider's keys could not be fetched")
            .with_detail(format!("The provider is {}. {reason}", quoted(name)))
    };
    let not_found = || no_such_row(name);
    let table = Table::find().ok_or_else(not_found)?;
    table.check_privileges();
    let before = table.row(Rows::Named(name))?.ok_or_else(not_found)?;
    let provider = Provider::from_row(&before.document)?;
    if provider.remote().is_none() {
        return Err(failed("Its row has the keys themselves, and none are fetched for it."));
    }
    if let Some(hindrance) = hindrance() {
        return Err(failed(hindrance));
    }
    let began = backend::now();
    let worker = start(RefreshReason::Administrator, name).ok_or_else(|| failed(NO_WORKER))?;
    let longest = Duration::from_millis(2 * JWKS_TIMEOUT.get() as u64);
    let has_stopped = wait(&worker, longest, || false);
    let after = table.row(Rows::Named(name))?.ok_or_else(not_found)?;
    let Fetching { last_fetch, fetch_began, last_error, .. } = &after.fetching;
    if !has_stopped {
        return Err(failed(STILL_FETCHING));
    }
    if last_fetch.is_none_or(|time| time < began) {
        return Err(failed(NOT_ASKED));
    }
    if fetch_began.is_some() {
        return Err(failed(UNFINISHED));
    }
    if let Some(error) = last_error {
        return Err(failed(error));
    }
    let later = Provider::from_row(&after.document)?;
    Ok(KeyChanges::between(provider.keys(), later.keys()))
}

/// The error where no row has the name.
pub(super) fn no_such_row(name: &str) -> Rejection {
    Rejection::new(Code::NoProvider, "provider does not exist")
        .with_detail(format!("No row of auth.providers has the name {}.", quoted(name)))
}

/// The rows whose keys are to be fetched after the transaction is committed.
static REQUESTED: BackendLocal<RefCell<Requested>> =
    BackendLocal::new(RefCell::new(Requested::Nothing));

enum Requested {
    Nothing,
    One(String),
    Several,
}

/// Has a row's keys fetched once the transaction is committed.
pub(super) fn request_at_commit(name: &str) {
    if hindrance().is_none() {
        REQUESTED.replace_with(|requested| match requested {
            Requested::Nothing => Requested::One(name.to_owned()),
            Requested::One(same) if same == name => Requested::One(name.to_owned()),
            _ => Requested::Several,
        });
    }
}

/// Starts the worker that [`request_at_commit`] asks for. The transaction callback calls it at the end of
/// the transaction. It must not fail.
pub(crate) fn transaction_ended(committed: bool) {
    let requested = REQUESTED.replace(Requested::Nothing);
    let name = match &requested {
        Requested::One(name) => name,
        Requested::Several => "",
        Requested::Nothing => return,
    };
    let task = Task { kind: RefreshReason::Due.number(), text: name };
    if committed && !worker::start_detached(&task) {
        error::log(
            "pg_session_jwt: no background worker can be started to fetch keys; the first token \
             will have them fetched",
        );
    }
}

/// The reason, as a sentence, why this process must not start a worker; None where it may.
pub(super) fn hindrance() -> Option<&'static str> {
    if worker::is_standby() {
        Some(
            "This server is a standby, which fetches no keys: they come from the primary by \
             replication.",
        )
    } else if backend::is_parallel_worker() {
        Some("A parallel worker fetches no keys.")
    } else {
        None
    }
}

fn start(reason: RefreshReason, name: &str) -> Option<Worker> {
    worker::start(&Task { kind: reason.number(), text: name })
}

/// Waits until the worker has stopped or a condition holds. Returns false where neither happens in time.
fn wait(worker: &Worker, longest: Duration, holds: impl Fn() -> bool) -> bool {
    let until = backend::now() + longest.as_micros() as Timestamp;
    loop {
        if worker.has_stopped() || holds() {
            return true;
        }
        let left = until - backend::now();
        if left <= 0 {
            return false;
        }
        // The end of a worker sets the latch of this process. A change of the row does not, so the sleep is
        // short.
        sleep(Duration::from_micros(left as u64).min(Duration::from_millis(5)));
    }
}

/// Whether keys have been fetched from the present address of a row.
fn has_keys(row: &Row) -> bool {
    Provider::from_row(&row.document).is_ok_and(|provider| !provider.keys().is_empty())
}

/// Whether a worker is fetching the keys of a row. A worker that was interrupted has released its
/// lock.
fn is_being_fetched(table: Table, row: &Row) -> bool {
    if row.fetching.fetch_began.is_none() {
        return false;
    }
    let lock = worker_lock(table, &row.name);
    let is_free = lock.try_acquire();
    if is_free {
        lock.release();
    }
    !is_free
}

/// The progress of fetching the keys of a row, as a sentence in the rejection of a token.
fn describe(row: &Row) -> String {
    let ago = |time: Timestamp| in_words(backend::now().saturating_sub(time) / seconds(1));
    let Fetching { last_success, last_fetch, fetch_began, last_error, .. } = &row.fetching;
    let fetched = match last_success {
        Some(time) => format!("Its keys were last fetched {} ago", ago(*time)),
        None => "Its keys have never been fetched".to_owned(),
    };
    match (fetch_began, last_error, last_fetch) {
        (Some(time), _, _) => {
            format!("{fetched}; a fetch that began {} ago has not ended.", ago(*time))
        }
        (None, Some(error), Some(time)) => {
            format!("{fetched}; the attempt {} ago failed: {error}", ago(*time))
        }
        _ => format!("{fetched}."),
    }
}
