//! Counters by database and by provider.
//!
//! A database and a provider get a slot at their first event. A slot that is free is claimed by a compare-and-swap.
//! A counter is an atomic, and no lock is taken, so that an event can be counted anywhere.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use session_jwt::{Code, Rejection, json_string};

use crate::pg::backend::{self, BackendLocal};
use crate::pg::compat;
use crate::pg::datum::to_server_encoding;
use crate::pg::function::Row;
use crate::pg::relation::{self, Oid};
use crate::pg::shmem::{Area, SharedText};

/// The number of databases that have counters of their own. The events of others are counted together.
const MOST_DATABASES: usize = 128;

/// The number of providers that have counters of their own. The events of others are counted for the database only.
const MOST_PROVIDERS: usize = 512;

/// The name of the row for databases that have no counters of their own.
const OTHERS: &str = "(other databases)";

/// The last slot is for the databases that find no other one.
static DATABASES: Area<Database> = Area::new(c"pg_session_jwt databases");

static PROVIDERS: Area<Provider> = Area::new(c"pg_session_jwt providers");

/// The one slot is the time of the last reset, or of the start of the server.
static SINCE: Area<AtomicI64> = Area::new(c"pg_session_jwt reset");

/// The counters of a database.
#[derive(Default)]
struct Database {
    /// 0 while the slot is free.
    oid: AtomicU32,
    refreshes: AtomicU64,
    failures: AtomicU64,
    /// In the order of [`Code::ALL`].
    rejections: [AtomicU64; Code::ALL.len()],
    /// Each backend counts in one of them, and their sum counts. So few backends write to one cache line.
    lanes: [Lane; LANES],
}

const LANES: usize = 8;

/// The counters that every presentation of a token increments.
#[derive(Default)]
#[repr(align(64))]
struct Lane {
    accepted: AtomicU64,
    verified: AtomicU64,
    cache_hits: AtomicU64,
    shared_cache_hits: AtomicU64,
}

/// The counters of a provider whose keys are fetched.
#[derive(Default)]
struct Provider {
    /// [`FREE`], [`CLAIMED`] or [`NAMED`].
    state: AtomicU32,
    database: AtomicU32,
    name: SharedText,
    refreshes: AtomicU64,
    failures: AtomicU64,
    last_refresh: AtomicI64,
    last_failure: AtomicI64,
}

const FREE: u32 = 0;
/// A worker writes the database and the name.
const CLAIMED: u32 = 1;
/// Database and name do not change any more.
const NAMED: u32 = 2;

pub(super) fn request_memory() {
    DATABASES.request(MOST_DATABASES + 1);
    PROVIDERS.request(MOST_PROVIDERS);
    SINCE.request(1);
}

pub(super) fn lay_out_memory() {
    DATABASES.lay_out();
    PROVIDERS.lay_out();
    SINCE.lay_out();
    note_reset();
}

fn note_reset() {
    for since in SINCE.slots() {
        since.store(backend::now(), Ordering::Relaxed);
    }
}

/// Counts a token that was presented and accepted. It cannot fail.
pub(crate) fn count_accepted() {
    count_in_lane(|lane| &lane.accepted);
}

/// Counts a token whose signature this backend has verified. It cannot fail.
pub(crate) fn count_verified() {
    count_in_lane(|lane| &lane.verified);
}

/// Counts a token that this backend had verified before. It cannot fail.
pub(crate) fn count_cache_hit() {
    count_in_lane(|lane| &lane.cache_hits);
}

/// Counts a token that this backend had not cached, and whose signature a backend had verified. It cannot fail.
pub(crate) fn count_shared_cache_hit() {
    count_in_lane(|lane| &lane.shared_cache_hits);
}

/// Counts a token that was presented and rejected. It cannot fail.
pub(crate) fn count_rejected(code: Code) {
    let place = Code::ALL.iter().position(|known| *known == code);
    if let Some(counter) = database().zip(place).and_then(|(own, place)| own.rejections.get(place))
    {
        increment(counter);
    }
}

/// Counts a fetch of a provider's keys. It is for background workers; only one of them fetches the keys of a
/// provider at a time, so that one of them claims the slot. It cannot fail.
pub(crate) fn count_refresh(name: &str, has_succeeded: bool) {
    if let Some(database) = database() {
        increment(if has_succeeded { &database.refreshes } else { &database.failures });
    }
    if let Some(provider) = provider(name) {
        let (counter, last) = if has_succeeded {
            (&provider.refreshes, &provider.last_refresh)
        } else {
            (&provider.failures, &provider.last_failure)
        };
        increment(counter);
        last.store(backend::now(), Ordering::Relaxed);
    }
}

#[inline(always)]
fn count_in_lane(counter: impl FnOnce(&Lane) -> &AtomicU64) {
    let lane = compat::backend_slot().unwrap_or(0) % LANES;
    if let Some(lane) = database().and_then(|database| database.lanes.get(lane)) {
        increment(counter(lane));
    }
}

#[inline(always)]
fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The counters of this database; None where there is no shared memory.
#[inline(always)]
fn database() -> Option<&'static Database> {
    static OWN: BackendLocal<Cell<Option<&'static Database>>> = BackendLocal::new(Cell::new(None));
    OWN.get().or_else(|| {
        OWN.set(claim_database());
        OWN.get()
    })
}

/// Finds the slot of this database, or claims one.
#[cold]
fn claim_database() -> Option<&'static Database> {
    let own = backend::database().to_u32();
    let (others, slots) = DATABASES.slots().split_last()?;
    let is_own = |slot: &&Database| match slot.oid.compare_exchange(
        0,
        own,
        Ordering::Relaxed,
        Ordering::Relaxed,
    ) {
        Ok(_) => true,
        Err(known) => known == own,
    };
    Some(slots.iter().find(is_own).unwrap_or(others))
}

/// Finds the slot of a provider of this database, or claims one; None where all are in use. Names are compared as far as
/// they are kept.
fn provider(name: &str) -> Option<&'static Provider> {
    let own = backend::database().to_u32();
    PROVIDERS.slots().iter().find(|slot| {
        match slot.state.compare_exchange(FREE, CLAIMED, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => {
                slot.database.store(own, Ordering::Relaxed);
                slot.name.write(Some(name));
                slot.state.store(NAMED, Ordering::Release);
                true
            }
            Err(NAMED) => {
                slot.database.load(Ordering::Relaxed) == own
                    && slot.name.read().as_deref() == Some(SharedText::kept(name))
            }
            // The slot of another provider.
            Err(_) => false,
        }
    })
}

/// The counters of a database at one time.
#[derive(Default)]
struct Totals {
    accepted: u64,
    verified: u64,
    cache_hits: u64,
    shared_cache_hits: u64,
    refreshes: u64,
    failures: u64,
    rejections: [u64; Code::ALL.len()],
    /// The providers, as the members of a JSON object.
    providers: Vec<String>,
}

impl Totals {
    fn add(&mut self, database: &Database) {
        for lane in &database.lanes {
            self.accepted += lane.accepted.load(Ordering::Relaxed);
            self.verified += lane.verified.load(Ordering::Relaxed);
            self.cache_hits += lane.cache_hits.load(Ordering::Relaxed);
            self.shared_cache_hits += lane.shared_cache_hits.load(Ordering::Relaxed);
        }
        self.refreshes += database.refreshes.load(Ordering::Relaxed);
        self.failures += database.failures.load(Ordering::Relaxed);
        for (total, counter) in self.rejections.iter_mut().zip(&database.rejections) {
            *total += counter.load(Ordering::Relaxed);
        }
    }

    fn is_zero(&self) -> bool {
        let all = [
            self.accepted,
            self.verified,
            self.cache_hits,
            self.shared_cache_hits,
            self.refreshes,
            self.failures,
        ];
        all.iter().chain(&self.rejections).all(|total| *total == 0)
    }

    /// database, accepted, rejected, rejections, verified, cache_hits, shared_cache_hits, refreshes, refresh_failures,
    /// providers, since
    fn row(self, database: String, since: Option<String>) -> Row {
        let number = |number: u64| Some(number.to_string());
        let rejections: Vec<String> = Code::ALL
            .into_iter()
            .zip(self.rejections)
            .filter(|(_, count)| *count > 0)
            .map(|(code, count)| format!("\"{}\": {count}", code.sqlstate()))
            .collect();
        vec![
            Some(database),
            number(self.accepted),
            number(self.rejections.iter().sum()),
            Some(format!("{{{}}}", rejections.join(", "))),
            number(self.verified),
            number(self.cache_hits),
            number(self.shared_cache_hits),
            number(self.refreshes),
            number(self.failures),
            Some(format!("{{{}}}", self.providers.join(", "))),
            since,
        ]
    }
}

/// The rows of `auth.stats()`.
pub(crate) fn rows() -> Result<Vec<Row>, Rejection> {
    let since = SINCE.required()?.iter().map(|since| since.load(Ordering::Relaxed)).max();
    let since = || since.map(backend::format_time);
    let mut totals: BTreeMap<u32, Totals> = BTreeMap::new();
    // A slot that a reset has given free can be claimed while the database has a later one. So slots are added up.
    for slot in DATABASES.slots() {
        totals.entry(slot.oid.load(Ordering::Relaxed)).or_default().add(slot);
    }
    for slot in PROVIDERS.slots() {
        if slot.state.load(Ordering::Acquire) == NAMED
            && let Some(totals) = totals.get_mut(&slot.database.load(Ordering::Relaxed))
        {
            totals.providers.push(slot.member());
        }
    }
    // The last slot has no OID, and free ones count nothing.
    let others = totals.remove(&0).filter(|others| !others.is_zero());
    let named = totals.into_iter().filter_map(|(oid, totals)| {
        // Dropped databases have no name.
        Some(totals.row(relation::database_name(Oid::from(oid))?, since()))
    });
    let mut rows: Vec<Row> = named.collect();
    rows.extend(others.map(|others| others.row(OTHERS.to_owned(), since())));
    Ok(rows)
}

impl Provider {
    /// The member of a JSON object: the name and the counters.
    fn member(&self) -> String {
        let name = self.name.read().unwrap_or_default();
        // A character that the encoding of the database lacks becomes an escape.
        let name = match to_server_encoding(&name) {
            Some(_) => name,
            None => name.escape_default().to_string(),
        };
        let last = |moment: &AtomicI64| match moment.load(Ordering::Relaxed) {
            0 => "null".to_owned(),
            time => json_string(&backend::format_time(time)),
        };
        format!(
            "{}: {{\"refreshes\": {}, \"failures\": {}, \"last_refresh\": {}, \"last_failure\": {}}}",
            unescaped_json_string(&name),
            self.refreshes.load(Ordering::Relaxed),
            self.failures.load(Ordering::Relaxed),
            last(&self.last_refresh),
            last(&self.last_failure),
        )
    }

    /// The times stay: they tell how old the keys are.
    fn reset(&self) {
        for counter in [&self.refreshes, &self.failures] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// A JSON string without escapes of characters beyond ASCII, which `jsonb` does not accept in every encoding.
fn unescaped_json_string(text: &str) -> String {
    let mut out = "\"".to_owned();
    for character in text.chars() {
        match character.encode_utf8(&mut [0; 4]) {
            ascii if ascii.is_ascii() => out.push_str(json_string(ascii).trim_matches('"')),
            other => out.push_str(other),
        }
    }
    out.push('"');
    out
}

/// Sets all counters to zero, for `auth.stats_reset()`, and gives the slots of databases that do not exist any more
/// free. A database without a name has no backend that could use its slot.
pub(crate) fn reset() -> Result<(), Rejection> {
    SINCE.required()?;
    relation::accept_invalidations();
    for database in DATABASES.slots() {
        database.reset();
        let oid = database.oid.load(Ordering::Relaxed);
        if oid != 0 && relation::database_name(Oid::from(oid)).is_none() {
            database.oid.store(0, Ordering::Relaxed);
        }
    }
    for provider in PROVIDERS.slots() {
        if provider.state.load(Ordering::Acquire) == NAMED {
            provider.reset();
            let database = Oid::from(provider.database.load(Ordering::Relaxed));
            if relation::database_name(database).is_none() {
                provider.state.store(FREE, Ordering::Release);
            }
        }
    }
    note_reset();
    Ok(())
}

impl Database {
    fn reset(&self) {
        let in_lanes = self.lanes.iter().flat_map(|lane| {
            [&lane.accepted, &lane.verified, &lane.cache_hits, &lane.shared_cache_hits]
        });
        let all = self.rejections.iter().chain([&self.refreshes, &self.failures]).chain(in_lanes);
        for counter in all {
            counter.store(0, Ordering::Relaxed);
        }
    }
}
