//! When providers' keys are fetched: what sessions ask for, and what the background worker does.
//!
//! A session never goes out itself. It starts a worker, which claims the provider, asks without any
//! transaction open, and writes down what came of it. Two locks keep that single: one is held by the
//! session that starts a worker, so that others wait for the same one; the other by the worker.

use std::cell::RefCell;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::time::Duration;

use jwks_fetch::{Request, Response, Source, Validators, fetch};
use session_jwt::{Code, KeyChanges, KeySet, KeySource, Provider, Rejection, quoted};

use crate::pg::table::{Fetching, Row, Rows, Table};
use crate::pg::worker::{self, Against, Lock, Task, Worker, nap};
use crate::pg::{self, BackendLocal, Timestamp, error, seconds};
use crate::settings::{self, JWKS_CA_FILE, JWKS_TIMEOUT};

/// How long a set is good where its provider does not say, in seconds, and the bounds of what it
/// may say.
const FRESH: i64 = 3600;
const LEAST_FRESH: i64 = 300;
const MOST_FRESH: i64 = 86_400;

/// How often tokens that no known key verifies may have a provider asked, in seconds. Refreshes for
/// other reasons do not count: those that are due, those of an administrator, and the first one.
const DEMAND_INTERVAL: i64 = 30;

/// How long after the first failure to try again, in seconds; each further one doubles it.
const FIRST_RETRY: i64 = 30;

/// Why a worker fetches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The keys are older than the provider wants them to be, or not there yet.
    Due = 1,
    /// No known key verifies a token.
    Demand = 2,
    /// An administrator wants it.
    Order = 3,
    /// A token needs the first keys of a provider, which another worker may be fetching.
    First = 4,
}

impl Why {
    fn from_number(number: u8) -> Option<Self> {
        [Why::Due, Why::Demand, Why::Order, Why::First].into_iter().find(|why| *why as u8 == number)
    }
}

/// Whether the keys of that row are to be fetched again.
pub(crate) fn is_due(row: &Row, now: Timestamp) -> bool {
    // What is farther off than ever, the clock has been set back for.
    row.fetching.next_refresh.is_none_or(|due| due <= now || due > now + seconds(MOST_FRESH + 1))
}

/// Whether a token that no known key verifies may have the provider asked.
fn may_demand(row: &Row, now: Timestamp) -> bool {
    let last = row.fetching.last_demand;
    last.is_none_or(|last| last <= now - seconds(DEMAND_INTERVAL) || last > now)
}

/// What this session may not do about keys, if anything.
fn hindrance() -> Option<&'static str> {
    if worker::is_standby() {
        Some(
            "This server is a standby, which fetches nothing: keys come from the primary by \
             replication.",
        )
    } else if pg::is_parallel_worker() {
        Some("A parallel worker fetches no keys.")
    } else {
        None
    }
}

/// Has keys fetched whose time has come. The ones that are there serve on meanwhile.
pub(crate) fn when_due(table: Table, row: &Row) {
    if hindrance().is_some() {
        return;
    }
    let lock = lock(table, &row.name, Against::Launchers);
    if !lock.try_take() {
        return;
    }
    // Until the worker has claimed the row, lest the next session start another one.
    if let Some(worker) = start(Why::Due, &row.name) {
        let claimed = || match table.row(Rows::Named(&row.name)) {
            Ok(Some(row)) => !is_due(&row, pg::now()),
            _ => true,
        };
        wait(&worker, Duration::from_millis(100), claimed);
    }
    lock.give_back(false);
}

/// Has keys fetched because no known key verifies a token, and waits for them. The error is a sentence.
///
/// `is_known` tells whether other keys have come that may verify it, from newly read rows.
pub(crate) fn on_demand(
    table: Table,
    name: &str,
    is_known: impl Fn(&Row) -> bool,
) -> Result<(), String> {
    if let Some(hindrance) = hindrance() {
        return Err(hindrance.to_owned());
    }
    let began = pg::now();
    let until = began + 1000 * JWKS_TIMEOUT.get() as Timestamp;
    let lock = lock(table, name, Against::Launchers);
    while !lock.try_take() {
        // Another session is at it.
        if pg::now() >= until {
            return Err(STILL.to_owned());
        }
        nap(Duration::from_millis(10));
    }
    let outcome = demand(table, name, &is_known, until);
    lock.give_back(false);
    outcome
}

fn demand(
    table: Table,
    name: &str,
    is_known: &dyn Fn(&Row) -> bool,
    until: Timestamp,
) -> Result<(), String> {
    let read = || match table.row(Rows::Named(name)) {
        Ok(Some(row)) => Ok(row),
        _ => Err("It is gone.".to_owned()),
    };
    let mut row = read()?;
    // Somebody else may have it asked for another reason.
    while is_under_way(table, &row) && pg::now() < until {
        nap(Duration::from_millis(10));
        row = read()?;
    }
    if is_known(&row) {
        return Ok(());
    }
    let now = pg::now();
    if !may_demand(&row, now) {
        let since = row.fetching.last_demand.map_or(0, |last| (now - last) / seconds(1));
        let left = DEMAND_INTERVAL - since;
        return Err(format!(
            "{} The next token may have them fetched again in {left} s; \
             auth.refresh_provider() fetches them at once.",
            how_it_stands(&row)
        ));
    }
    let why = if has_keys(&row) { Why::Demand } else { Why::First };
    let Some(worker) = start(why, name) else {
        return Err(NO_WORKER.to_owned());
    };
    let left = u64::try_from(until - now).unwrap_or(0);
    let done = wait(&worker, Duration::from_micros(left), || false);
    let row = read()?;
    if is_known(&row) {
        Ok(())
    } else if done && why == Why::First && has_keys(&row) {
        // They are another worker's, and the token's key is not among them.
        demand(table, name, is_known, until)
    } else if !done {
        Err(STILL.to_owned())
    } else if row.fetching.last_fetch.is_none_or(|time| time < now) {
        Err(NOT_ASKED.to_owned())
    } else {
        Err(how_it_stands(&row))
    }
}

/// Whether keys were fetched for a row, from where it names them now.
fn has_keys(row: &Row) -> bool {
    Provider::from_row(&row.document).is_ok_and(|provider| !provider.keys().is_empty())
}

/// What stands in the place of the last error while keys are being fetched.
const UNDER_WAY: &str = "It is under way, or was ended.";

/// Whether a worker is asking for the keys of that row.
fn is_under_way(table: Table, row: &Row) -> bool {
    if row.fetching.last_error.as_deref() != Some(UNDER_WAY) {
        return false;
    }
    let lock = lock(table, &row.name, Against::Workers);
    let is_free = lock.try_take();
    if is_free {
        lock.give_back(false);
    }
    !is_free
}

const STILL: &str = "Its keys are being fetched still.";

const NOT_ASKED: &str = "The background worker ended before it asked: the provider's row is not \
                         committed, or is locked by another transaction, or the server's log says \
                         why.";

/// How a row's keys stand where a token's is not among them.
fn how_it_stands(row: &Row) -> String {
    let ago = |time: Timestamp| pg::now().saturating_sub(time) / seconds(1);
    let Fetching { last_success, last_fetch, last_error, .. } = &row.fetching;
    let fetched = match last_success {
        Some(time) => format!("Its keys were fetched last {} s ago", ago(*time)),
        None => "Its keys have never been fetched".to_owned(),
    };
    match (last_error, last_fetch) {
        (Some(error), Some(time)) => {
            format!("{fetched}; trying {} s ago failed: {error}", ago(*time))
        }
        _ => format!("{fetched}."),
    }
}

const NO_WORKER: &str = "No background worker can be started to fetch its keys: all of \
                         max_worker_processes are taken.";

/// Has a provider's keys fetched now, waits for them, and tells what that has changed.
pub(crate) fn order(name: &str) -> Result<KeyChanges, Rejection> {
    let failed = |why: &str| {
        Rejection::new(Code::Fetching, "provider's keys could not be fetched")
            .with_detail(format!("The provider is {}. {why}", quoted(name)))
    };
    let Some(table) = Table::find() else {
        return Err(no_provider(name));
    };
    table.check_privileges();
    let before = table.row(Rows::Named(name))?.ok_or_else(|| no_provider(name))?;
    let provider = Provider::from_row(&before.document)?;
    if provider.remote().is_none() {
        return Err(failed("It has keys of its own, and none are fetched for it."));
    }
    if let Some(hindrance) = hindrance() {
        return Err(failed(hindrance));
    }
    let began = pg::now();
    let worker = start(Why::Order, name).ok_or_else(|| failed(NO_WORKER))?;
    let done = wait(&worker, Duration::from_millis(2 * JWKS_TIMEOUT.get() as u64), || false);
    let after = table.row(Rows::Named(name))?.ok_or_else(|| no_provider(name))?;
    let fetching = &after.fetching;
    if !done {
        return Err(failed(STILL));
    }
    if fetching.last_fetch.is_none_or(|time| time < began) {
        return Err(failed(NOT_ASKED));
    }
    if let Some(error) = &fetching.last_error {
        return Err(failed(error));
    }
    let later = Provider::from_row(&after.document)?;
    Ok(KeyChanges::between(provider.keys(), later.keys()))
}

fn no_provider(name: &str) -> Rejection {
    Rejection::new(Code::NoProvider, "provider does not exist")
        .with_detail(format!("No row of auth.providers has the name {}.", quoted(name)))
}

/// The rows whose keys are to be fetched once the transaction is committed.
static WANTED: BackendLocal<RefCell<Wanted>> = BackendLocal::new(RefCell::new(Wanted::Nothing));

enum Wanted {
    Nothing,
    One(String),
    Several,
}

/// Has the keys of a row fetched if and when the transaction is committed.
pub(crate) fn at_commit(name: &str) {
    if hindrance().is_none() {
        WANTED.replace_with(|wanted| match wanted {
            Wanted::Nothing => Wanted::One(name.to_owned()),
            Wanted::One(same) if same == name => Wanted::One(name.to_owned()),
            _ => Wanted::Several,
        });
    }
}

/// The transaction has ended.
pub(crate) fn end_transaction(committed: bool) {
    let wanted = WANTED.replace(Wanted::Nothing);
    let name = match &wanted {
        Wanted::One(name) => name,
        Wanted::Several => "",
        Wanted::Nothing => return,
    };
    if committed && !worker::start_unwatched(&Task { kind: Why::Due as u8, text: name }) {
        error::log(
            "pg_session_jwt: no background worker can be started to fetch keys; the first token \
             will have them fetched",
        );
    }
}

fn start(why: Why, name: &str) -> Option<Worker> {
    worker::start(&Task { kind: why as u8, text: name })
}

fn lock(table: Table, name: &str, against: Against) -> Lock {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    Lock::new(table, hasher.finish() as u32, against)
}

/// Waits until the worker is done or something holds; whether that came in time.
fn wait(worker: &Worker, longest: Duration, holds: impl Fn() -> bool) -> bool {
    let until = pg::now() + longest.as_micros() as Timestamp;
    loop {
        if worker.has_stopped() || holds() {
            return true;
        }
        let left = until - pg::now();
        if left <= 0 {
            return false;
        }
        // A worker's end wakes us, but what it does before does not.
        nap(Duration::from_micros(left as u64).min(Duration::from_millis(5)));
    }
}

/// The background worker.
pub(crate) fn work(kind: u8, name: &str) {
    let Some(why) = Why::from_number(kind) else {
        return;
    };
    worker::set(&[
        (c"search_path", "pg_catalog, pg_temp"),
        (c"default_transaction_read_only", "off"),
        (c"default_transaction_isolation", "read committed"),
        // No standby is waited for.
        (c"synchronous_commit", "local"),
        // Whoever changes the row, and does not end, does not hold up those who wait for keys.
        (c"lock_timeout", "1s"),
        // No triggers but those that see every change: others may be of roles that own nothing here.
        (c"session_replication_role", "replica"),
    ]);
    if !name.is_empty() {
        refresh(why, name);
    }
    // For those that were added when no worker could be started, or several at once; or whose
    // address has changed meanwhile.
    let left = worker::transaction(unasked);
    if why == Why::Due {
        for name in left {
            refresh(Why::Due, &name);
        }
    } else if !left.is_empty() {
        // Somebody waits for the end of this one.
        worker::start_unwatched(&Task { kind: Why::Due as u8, text: "" });
    }
}

/// The names of the rows whose keys were never asked for where they are now.
fn unasked() -> Vec<String> {
    Table::find().map_or_else(Vec::new, Table::unasked)
}

/// What a worker has to do for one provider.
struct Claim {
    source: KeySource,
    provider: Provider,
    validators: Validators,
    failures: i32,
}

/// Fetches the keys of one provider, if they are still wanted.
fn refresh(why: Why, name: &str) {
    let asked = pg::now();
    let Some(table) = worker::transaction(Table::find) else {
        return;
    };
    let lock = lock(table, name, Against::Workers);
    // Whoever is at it does what is due, but may have begun too early for other reasons.
    let until = asked + 1000 * JWKS_TIMEOUT.get() as Timestamp;
    while !worker::transaction(|| lock.try_take_for_process()) {
        if why == Why::Due || pg::now() > until {
            return;
        }
        nap(Duration::from_millis(10));
    }
    if let Some(claim) = worker::transaction(|| claim(why, name, asked)) {
        let request = Request {
            source: match &claim.source {
                KeySource::Url(url) => Source::Url(url.clone()),
                KeySource::Discovery { issuer, .. } => Source::Discovery { issuer: issuer.clone() },
            },
            validators: claim.validators.clone(),
            http_hosts: settings::http_hosts(),
            ca_file: JWKS_CA_FILE.path(),
            // Whoever waits for us is to hear why it failed.
            timeout: Duration::from_millis(JWKS_TIMEOUT.get() as u64) * 9 / 10,
        };
        // The list of hosts may have changed since the row was written.
        let response = match settings::check_scheme(&claim.source) {
            Err(rejection) => Err(explained(&rejection)),
            Ok(()) => worker::aside(move || fetch(&request))
                .unwrap_or_else(|| Err("The thread that fetches has failed.".to_owned())),
        };
        worker::transaction(|| conclude(why, name, claim, response));
    }
    worker::transaction(|| lock.give_back(true));
}

/// Takes it upon this worker to fetch the keys, if they are to be fetched.
fn claim(why: Why, name: &str, asked: Timestamp) -> Option<Claim> {
    let table = Table::find()?;
    let row = table.row(Rows::Named(name)).ok()??;
    let provider = Provider::from_row(&row.document).ok()?;
    let source = provider.remote()?.source().clone();
    let now = pg::now();
    let wanted = match why {
        Why::Due => is_due(&row, now),
        // Unless another worker has just brought them.
        Why::Demand => {
            may_demand(&row, now) && row.fetching.last_success.is_none_or(|time| time < asked)
        }
        Why::First => may_demand(&row, now) && provider.keys().is_empty(),
        Why::Order => true,
    };
    if !wanted {
        return None;
    }
    let is_demand = matches!(why, Why::Demand | Why::First);
    // Should this worker not come to an end, another one does it later.
    let claimed = table.update(
        "UPDATE @table SET last_fetch = clock_timestamp(),
             last_error = $3,
             next_refresh = clock_timestamp() + interval '1 minute',
             last_demand = CASE WHEN $2 = 'demand' THEN clock_timestamp() ELSE last_demand END
         WHERE name = $1",
        &[Some(name), Some(if is_demand { "demand" } else { "" }), Some(UNDER_WAY)],
    );
    if claimed == 0 {
        return None;
    }
    // Servers tell the time in seconds: what has changed within one may look as if it had not. So
    // where newer keys are expected, they are fetched whole; and where there are none to keep.
    let validators = if why != Why::Due || provider.keys().is_waiting() {
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

/// Writes down what came of it.
fn conclude(why: Why, name: &str, claim: Claim, response: Result<Response, String>) {
    let Some(table) = Table::find() else {
        return;
    };
    // What was asked for may not be what is wanted any more.
    let row = table.row(Rows::Named(name)).ok().flatten();
    let now_wanted = row.and_then(|row| Provider::from_row(&row.document).ok());
    let is_wanted = now_wanted
        .as_ref()
        .and_then(|provider| provider.remote())
        .is_some_and(|remote| *remote.source() == claim.source);
    if !is_wanted {
        return;
    }
    let keys = response.and_then(|response| {
        let keys = match &response.body {
            None => None,
            Some(body) => Some(
                KeySet::fetched(body, claim.provider.algorithms())
                    .map_err(|error| sentence(&response, &error))?,
            ),
        };
        Ok((response, keys))
    });
    match keys {
        Ok((response, keys)) => {
            let fresh = response.fresh_for.map_or(FRESH, |time| time.as_secs() as i64);
            let keep_keys = claim.provider.remote().map_or(MOST_FRESH, |remote| remote.keep_keys());
            let fresh = fresh.clamp(LEAST_FRESH, MOST_FRESH).min(keep_keys).to_string();
            let validators = &response.validators;
            // The first keys of a provider do not count as a refresh on demand: a key that changes
            // right afterwards is found at once.
            let is_first = claim.provider.keys().is_empty().to_string();
            match keys {
                None => {
                    table.update(
                        "UPDATE @table SET last_success = clock_timestamp(), failures = 0,
                         last_error = NULL,
                         next_refresh = clock_timestamp() + $2::integer * interval '1 second'
                     WHERE name = $1",
                        &[Some(name), Some(&fresh)],
                    );
                }
                Some(keys) => {
                    let passed_over = keys.passed_over.iter().map(|key| {
                        let kid = key.kid.as_deref().map(|kid| format!(" (kid {})", quoted(kid)));
                        let kid = kid.unwrap_or_default();
                        format!("Key {}{kid}: {}", key.index + 1, key.reason)
                    });
                    let passed_over = passed_over.collect::<Vec<_>>().join(" ");
                    table.update(
                        "UPDATE @table SET fetched_jwks = $3::json, fetched_from = $4,
                             keys_url = $5, etag = $6, last_modified = $7,
                             passed_over = nullif($8, ''),
                             last_demand = CASE WHEN $9::boolean THEN NULL ELSE last_demand END,
                             last_success = clock_timestamp(), failures = 0, last_error = NULL,
                             next_refresh = clock_timestamp() + $2::integer * interval '1 second'
                         WHERE name = $1",
                        &[
                            Some(name),
                            Some(&fresh),
                            Some(&keys.jwks),
                            Some(claim.source.url()),
                            validators.url.as_deref(),
                            validators.etag.as_deref(),
                            validators.last_modified.as_deref(),
                            Some(&passed_over),
                            Some(&is_first),
                        ],
                    );
                }
            }
        }
        Err(reason) => {
            error::log(&format!(
                "pg_session_jwt: the keys of provider {} could not be fetched: {reason}",
                quoted(name)
            ));
            let failures = if why == Why::Order { 0 } else { claim.failures.clamp(0, 7) };
            let retry = FIRST_RETRY << failures;
            // Up to half as much again, lest all servers come back at once.
            let retry = retry.min(FRESH) * 1000;
            let retry = retry + random_below(retry / 2);
            table.update(
                "UPDATE @table SET failures = coalesce(failures, 0) + 1, last_error = $2,
                     next_refresh = clock_timestamp() + $3::integer * interval '1 millisecond'
                 WHERE name = $1",
                &[Some(name), Some(&reason), Some(&retry.to_string())],
            );
        }
    }
}

/// A number that nobody relies upon.
fn random_below(limit: i64) -> i64 {
    let random = RandomState::new().build_hasher().finish();
    i64::try_from(random % limit.max(1).unsigned_abs()).unwrap_or(0)
}

/// A refusal of what came back, as a status has it; without the URL's query, as other errors.
fn sentence(response: &Response, rejection: &Rejection) -> String {
    let url = response.validators.url.as_deref().unwrap_or_default();
    let url = quoted(url.split('?').next().unwrap_or_default());
    format!("The answer of {url} cannot be used: {}", explained(rejection))
}

/// A refusal with all that it says, as sentences but for the first letter.
fn explained(rejection: &Rejection) -> String {
    let more = [rejection.detail(), rejection.hint()].into_iter().flatten();
    more.fold(format!("{}.", rejection.message()), |text, sentence| format!("{text} {sentence}"))
}
