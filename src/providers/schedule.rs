//! The times at which keys are fetched, and the locks that let one worker at a time fetch them.

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::time::Duration;

use super::row::Row;
use super::table::Table;
use crate::pg::backend::{Timestamp, seconds};
use crate::pg::worker::Lock;

/// For how many seconds fetched keys are fresh where the response does not say.
const DEFAULT_FRESHNESS: i64 = 3600;
const MIN_FRESHNESS: i64 = 300;
const MAX_FRESHNESS: i64 = 86_400;

/// How many seconds pass at least between two requests that tokens cause. Scheduled requests, those of an
/// administrator, and the one that gets a provider's first keys do not count.
const UNKNOWN_KEY_INTERVAL: i64 = 30;

/// How many seconds after the first failure keys are fetched again. Each further failure doubles the delay,
/// up to [`DEFAULT_FRESHNESS`].
const FIRST_RETRY: i64 = 30;
const MAX_DOUBLINGS: i32 = 7;

/// Why keys are fetched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RefreshReason {
    /// The scheduled time has come, or no time is scheduled.
    Due = 1,
    /// No known key verifies a token.
    UnknownKey = 2,
    /// An administrator has called `auth.refresh_provider()`.
    Administrator = 3,
    /// A token needs a provider's first keys, which another worker may be fetching.
    FirstKeys = 4,
}

impl RefreshReason {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        use RefreshReason::{Administrator, Due, FirstKeys, UnknownKey};
        [Due, UnknownKey, Administrator, FirstKeys]
            .into_iter()
            .find(|reason| reason.number() == number)
    }

    pub(super) fn number(self) -> u8 {
        self as u8
    }

    /// Whether a token causes the request. One such request may begin in each [`UNKNOWN_KEY_INTERVAL`].
    pub(super) fn is_caused_by_token(self) -> bool {
        matches!(self, Self::UnknownKey | Self::FirstKeys)
    }
}

/// Whether the scheduled time of a row's next fetch has come.
pub(super) fn is_due(row: &Row, now: Timestamp) -> bool {
    // A due time beyond the maximum means that the clock was set back.
    row.fetching.next_refresh.is_none_or(|due| due <= now || due > now + seconds(MAX_FRESHNESS + 1))
}

/// Whether a token that no known key verifies may have the row's keys fetched.
pub(super) fn may_fetch_for_token(row: &Row, now: Timestamp) -> bool {
    let last = row.fetching.last_demand;
    last.is_none_or(|last| last <= now - seconds(UNKNOWN_KEY_INTERVAL) || last > now)
}

/// After how many seconds the next token may have the row's keys fetched.
pub(super) fn seconds_until_next_token(row: &Row, now: Timestamp) -> i64 {
    let since = row.fetching.last_demand.map_or(0, |last| (now - last) / seconds(1));
    UNKNOWN_KEY_INTERVAL - since
}

/// For how many seconds keys count as fresh: as long as the response says, within bounds.
pub(super) fn freshness(of_response: Option<Duration>, keep_keys: Option<i64>) -> i64 {
    let fresh = of_response.map_or(DEFAULT_FRESHNESS, |time| time.as_secs() as i64);
    fresh.clamp(MIN_FRESHNESS, MAX_FRESHNESS).min(keep_keys.unwrap_or(MAX_FRESHNESS))
}

/// How many milliseconds to wait after a failure, given the number of earlier ones. Up to half as much
/// is added at random, so that servers do not ask a provider at the same time.
pub(super) fn retry_delay(failures: i32) -> i64 {
    let delay = FIRST_RETRY << failures.clamp(0, MAX_DOUBLINGS);
    let delay = 1000 * delay.min(DEFAULT_FRESHNESS);
    delay + random_below(delay / 2)
}

/// The lock that a session holds while it starts a worker and waits for it. Other sessions that need keys
/// of the row wait for the lock.
pub(super) fn session_lock(table: Table, name: &str) -> Lock {
    lock(table, name, 1)
}

/// The lock that a worker holds while it fetches the keys of a row.
pub(super) fn worker_lock(table: Table, name: &str) -> Lock {
    lock(table, name, 2)
}

fn lock(table: Table, name: &str, holder: u16) -> Lock {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    // Two names may have the same hash. Then only one of the two rows is fetched at a time.
    Lock::new(table.oid().to_u32(), hasher.finish() as u32, holder)
}

/// A random number for which predictability does no harm.
fn random_below(limit: i64) -> i64 {
    let random = RandomState::new().build_hasher().finish();
    i64::try_from(random % limit.max(1).unsigned_abs()).unwrap_or(0)
}
