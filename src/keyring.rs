//! Whom this backend trusts: the providers in the settings, and those in the table `auth.providers`,
//! each looked up when a token names its issuer. Where both serve one issuer, the settings do.
//!
//! Nothing here is told what has changed, only that something has: then the epoch goes on, and
//! whatever was found before is looked at again before it counts.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use session_jwt::{
    Claims, Code, Provider, Rejection, Unverified, Verifier, authenticate, no_key_configured,
};

use crate::pg::table::{Row, Rows, Table};
use crate::pg::{self, BackendLocal, Timestamp, seconds};
use crate::settings::{JWK, PROVIDERS};
use crate::{audit, refresh, session};

type Loaded = Result<Rc<Verifier>, Rejection>;

/// The settings, and whether they have changed since they were read.
static LOADED: BackendLocal<RefCell<Option<Loaded>>> = BackendLocal::new(RefCell::new(None));
static STALE: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(true));

/// Counts the changes of settings and table that this backend has heard of.
static EPOCH: BackendLocal<Cell<u64>> = BackendLocal::new(Cell::new(1));

/// The rows that were found, by issuer; the empty one, which none can have, stands for none.
static ROWS: BackendLocal<RefCell<Option<Found>>> = BackendLocal::new(RefCell::new(None));

type Found = HashMap<Box<str>, Rc<Known>>;

/// An epoch in which there was no row at all, or no table.
static EMPTY: BackendLocal<Cell<u64>> = BackendLocal::new(Cell::new(0));

/// A row that was found.
struct Known {
    /// The epoch in which it was read.
    epoch: u64,
    row: Row,
    provider: Result<Arc<Provider>, Rejection>,
}

/// The name of the provider that `pg_session_jwt.jwk` makes.
const JWK_PROVIDER: &str = "pg_session_jwt.jwk";

/// The provider that a token was verified for, and for how long nobody needs to look again.
pub(crate) struct Trust {
    provider: Arc<Provider>,
    epoch: Cell<u64>,
    ends: Cell<Timestamp>,
    due: Cell<Timestamp>,
    /// Whether it was by the provider's secret, which does not become too old.
    by_secret: bool,
}

/// A provider as it is in this epoch.
struct Chosen {
    provider: Arc<Provider>,
    epoch: u64,
    /// Its row, where its keys are fetched.
    remote: Option<Rc<Known>>,
    by_secret: bool,
}

/// Why a token was refused, and whether newer keys could change that.
struct Refused {
    rejection: Rejection,
    missing: Option<Missing>,
}

/// What a provider's newer keys must be for a token to be verified once more.
struct Missing {
    known: Rc<Known>,
    what: Wanted,
}

enum Wanted {
    /// Keys that are not too old.
    Fresh,
    /// A key with this id.
    Kid(String),
    /// Other keys than those that did not verify the token. The provider may have replaced a key and
    /// kept its id, or publish keys without ids.
    Others,
}

/// Notes that a document in a setting has changed. It may run while the backend is not able to do
/// anything.
pub(crate) fn forget() {
    STALE.set(true);
    table_changed();
}

/// Notes that rows of the table may have changed. As above.
pub(crate) fn table_changed() {
    EPOCH.set(EPOCH.get() + 1);
    session::forget();
}

/// The count of changes.
pub(crate) fn epoch() -> u64 {
    EPOCH.get()
}

/// Verifies everything about a token but its times. Where the provider's keys are fetched, and those
/// that are known do not verify the token, this waits for newer ones and tries once more.
pub(crate) fn verify(token: &str) -> Result<(Claims, Trust), Rejection> {
    let refused = match attempt(token) {
        Ok(verified) => return Ok(verified),
        Err(refused) => refused,
    };
    let (Some(missing), Some(table)) = (refused.missing, Table::find()) else {
        return Err(refused.rejection);
    };
    let name = &missing.known.row.name;
    match refresh::on_demand(table, name, |row| missing.has_come(row)) {
        Ok(()) => {
            // The row may be seen before word of it has come.
            table_changed();
            attempt(token).map_err(|refused| refused.rejection)
        }
        Err(why) => {
            let detail = refused.rejection.detail().unwrap_or_default();
            let detail = format!("{detail} {why}");
            Err(refused.rejection.with_detail(detail))
        }
    }
}

fn attempt(token: &str) -> Result<(Claims, Trust), Refused> {
    // What the choice was, though it comes to nothing.
    let chosen = Cell::new(None);
    let (may_be_published, is_symmetric) = (Cell::new(false), Cell::new(false));
    let outcome = authenticate(token, |unverified| {
        let found = choose(unverified.issuer)?.ok_or_else(|| nobody(unverified))?;
        let provider = Arc::clone(&found.provider);
        let found =
            if is_by_secret(&found.provider, unverified) { found.by_secret() } else { found };
        let is_old = found.ends() <= pg::now();
        let what = match unverified.kid {
            _ if is_old => Wanted::Fresh,
            Some(kid) if !provider.keys().has_kid(kid) => Wanted::Kid(kid.to_owned()),
            _ => Wanted::Others,
        };
        let missing = found.remote.clone().map(|known| Missing { known, what });
        may_be_published.set(unverified.may_have_published_key(&provider));
        is_symmetric.set(unverified.is_symmetric());
        chosen.set(Some((found, missing)));
        if is_old { Err(too_old()) } else { Ok(provider) }
    });
    match (outcome, chosen.take()) {
        (Ok(claims), Some((found, _))) => {
            found.refresh_when_due();
            Ok((claims, Trust::of(found)))
        }
        // Nothing is accepted without a choice.
        (Ok(_), None) => Err(Refused { rejection: no_key_configured(Code::NoKey), missing: None }),
        (Err(rejection), chosen) => {
            let newer_keys_may_help = match rejection.code() {
                // No key that is fetched verifies a token of a secret.
                Code::NoKey => !is_symmetric.get(),
                Code::Signature | Code::Algorithm => may_be_published.get(),
                _ => false,
            };
            let missing = chosen.and_then(|(_, missing)| missing).filter(|_| newer_keys_may_help);
            Err(Refused { rejection, missing })
        }
    }
}

/// Whether a token that was verified before would be again, for the same provider with the same
/// keys.
pub(crate) fn is_current(trust: &Trust, issuer: Option<&str>) -> bool {
    let until = trust.ends.get().min(trust.due.get());
    if trust.epoch.get() == EPOCH.get() && (until == Timestamp::MAX || pg::now() < until) {
        return true;
    }
    let chosen = choose(issuer).map(|found| match trust.by_secret {
        true => found.map(Chosen::by_secret),
        false => found,
    });
    match chosen {
        Ok(Some(found))
            if Arc::ptr_eq(&found.provider, &trust.provider) && pg::now() < found.ends() =>
        {
            found.refresh_when_due();
            trust.renew(&found);
            true
        }
        _ => false,
    }
}

impl Trust {
    fn of(chosen: Chosen) -> Self {
        let (epoch, ends, due) = (chosen.epoch, chosen.ends(), chosen.due());
        Self {
            provider: chosen.provider,
            epoch: Cell::new(epoch),
            ends: Cell::new(ends),
            due: Cell::new(due),
            by_secret: chosen.by_secret,
        }
    }

    fn renew(&self, chosen: &Chosen) {
        self.epoch.set(chosen.epoch);
        self.ends.set(chosen.ends());
        self.due.set(chosen.due());
    }

    /// The first moment at which the keys are too old.
    pub(crate) fn ends(&self) -> Timestamp {
        self.ends.get()
    }
}

impl Chosen {
    /// The same for a token of the provider's secret: how fetching goes does not matter.
    fn by_secret(self) -> Self {
        Self { remote: None, by_secret: true, ..self }
    }

    /// The first moment at which its keys are too old.
    fn ends(&self) -> Timestamp {
        self.remote.as_ref().map_or(Timestamp::MAX, |known| known.ends())
    }

    /// When its keys are to be fetched again.
    fn due(&self) -> Timestamp {
        let due = |known: &Rc<Known>| known.row.fetching.next_refresh.unwrap_or(Timestamp::MIN);
        self.remote.as_ref().map_or(Timestamp::MAX, due)
    }

    fn refresh_when_due(&self) {
        if let Some(known) = &self.remote
            && refresh::is_due(&known.row, pg::now())
            && let Some(table) = Table::find()
        {
            refresh::when_due(table, &known.row);
        }
    }
}

impl Known {
    fn ends(&self) -> Timestamp {
        self.provider.as_ref().map_or(Timestamp::MAX, |provider| ends(&self.row, provider))
    }

    fn is_remote(&self) -> bool {
        self.provider.as_ref().is_ok_and(|provider| provider.remote().is_some())
    }
}

/// The first moment at which the keys of a row are too old; never where there are none, or they are
/// its own.
fn ends(row: &Row, provider: &Provider) -> Timestamp {
    match provider.remote() {
        Some(remote) if !provider.keys().is_waiting() => {
            let fetched = row.fetching.last_success.unwrap_or(Timestamp::MIN);
            fetched.saturating_add(seconds(remote.keep_keys()))
        }
        _ => Timestamp::MAX,
    }
}

impl Missing {
    /// Whether a row that was read anew has such keys.
    fn has_come(&self, row: &Row) -> bool {
        let Ok(provider) = Provider::from_row(&row.document) else {
            return false;
        };
        let is_there = match &self.what {
            Wanted::Fresh => !provider.keys().is_empty(),
            Wanted::Kid(kid) => provider.keys().has_kid(kid),
            Wanted::Others => row.document != self.known.row.document,
        };
        is_there && pg::now() < ends(row, &provider)
    }
}

/// Whether the provider's secret verifies the token, beside keys that are fetched or without.
fn is_by_secret(provider: &Provider, unverified: &Unverified<'_>) -> bool {
    unverified.is_symmetric() && provider.keys().is_symmetric()
}

fn too_old() -> Rejection {
    Rejection::new(Code::NoKey, "provider's keys are too old")
        .with_detail("None have been fetched for longer than its keep_keys allows.")
}

/// The provider of an issuer; for an issuer that is nobody's, the one that names none.
fn choose(issuer: Option<&str>) -> Result<Option<Chosen>, Rejection> {
    let settings = settings()?;
    for key in issuer.map(Some).into_iter().chain([None]) {
        // Before anything is read: what changes meanwhile is looked at again.
        let epoch = EPOCH.get();
        if let Some(provider) = settings.provider_of(key).map(Arc::clone) {
            return Ok(Some(Chosen { provider, epoch, remote: None, by_secret: false }));
        }
        if let Some(known) = known(key)? {
            let provider = known.provider.clone()?;
            let remote = known.is_remote().then_some(known);
            return Ok(Some(Chosen { provider, epoch, remote, by_secret: false }));
        }
    }
    Ok(None)
}

/// The row of that issuer, or of none.
fn known(issuer: Option<&str>) -> Result<Option<Rc<Known>>, Rejection> {
    let (key, epoch) = (issuer.unwrap_or_default(), EPOCH.get());
    if EMPTY.get() == epoch {
        return Ok(None);
    }
    let before = ROWS.borrow().as_ref().and_then(|rows| rows.get(key).cloned());
    if let Some(known) = &before
        && known.epoch == epoch
    {
        let is_settled = || {
            let now = pg::now();
            !refresh::is_due(&known.row, now) && now < known.ends()
        };
        if !known.is_remote() || is_settled() {
            return Ok(before);
        }
    }
    let table = Table::find();
    let row_of = |rows| table.map_or(Ok(None), |table| table.row(rows));
    let row = row_of(Rows::Serving(issuer))?;
    if row.is_none() && row_of(Rows::All)?.is_none() {
        EMPTY.set(epoch);
    }
    let found = row.map(|row| {
        let provider = match &before {
            Some(known) if known.row.document == row.document => known.provider.clone(),
            _ => Provider::from_row(&row.document).map(Arc::new),
        };
        Rc::new(Known { epoch, row, provider })
    });
    // As for the settings.
    if let Some(Err(rejection)) = found.as_ref().map(|known| &known.provider)
        && rejection.code() == Code::OutOfMemory
    {
        return Err(rejection.clone());
    }
    let mut rows = ROWS.borrow_mut();
    let rows = rows.get_or_insert_default();
    match &found {
        Some(known) => rows.insert(key.into(), Rc::clone(known)),
        None => rows.remove(key),
    };
    Ok(found)
}

fn nobody(unverified: &Unverified<'_>) -> Rejection {
    // More than a message names.
    const ENOUGH: usize = 12;
    let settings = settings().unwrap_or_default();
    let of_settings = settings.providers().iter().filter_map(|provider| provider.issuer());
    let mut issuers: Vec<String> = of_settings.map(str::to_owned).collect();
    let mut any = !settings.providers().is_empty();
    if let Some(table) = Table::find() {
        // By the index: a table may have many rows.
        let near = unverified.near_issuers();
        let near: Vec<String> = near
            .iter()
            .filter_map(|near| table.row(Rows::Serving(Some(near))).ok()??.issuer)
            .collect();
        // Had it been altered, nobody would have asked.
        let _ = table.read(Rows::All, |row| {
            any = true;
            issuers.extend(row.issuer.filter(|issuer| !near.contains(issuer)));
            issuers.len() < ENOUGH
        });
        issuers.splice(0..0, near);
    }
    unverified.no_provider(!any, issuers.iter().map(String::as_str))
}

/// The settings' providers, for `auth.init()`.
///
/// # Errors
/// Where there are none, and none in the table.
pub(crate) fn configured() -> Result<Rc<Verifier>, Rejection> {
    let settings = settings()?;
    let row = match Table::find() {
        Some(table) => table.row(Rows::All)?,
        None => None,
    };
    if settings.providers().is_empty() && row.is_none() {
        return Err(no_key_configured(Code::Configuration));
    }
    Ok(settings)
}

/// Whether the settings serve the same issuer.
pub(crate) fn is_shadowed(provider: &Provider) -> bool {
    settings().is_ok_and(|settings| settings.provider_of(provider.issuer()).is_some())
}

fn settings() -> Loaded {
    if STALE.get() {
        let loaded = load().map(Rc::new);
        // What could not be read for want of memory is read again the next time.
        if loaded.as_ref().is_err_and(|rejection| rejection.code() == Code::OutOfMemory) {
            return loaded;
        }
        let warn = loaded.as_ref().is_ok_and(|verifier| readable_secret(verifier));
        LOADED.replace(Some(loaded));
        // Only now: had anything above failed, the keys before would have stayed in force.
        STALE.set(false);
        if warn {
            audit::warn_of_readable_secret();
        }
    }
    match &*LOADED.borrow() {
        Some(loaded) => loaded.clone(),
        None => Ok(Rc::default()),
    }
}

fn load() -> Result<Verifier, Rejection> {
    let verifier = PROVIDERS.read()?.unwrap_or_default();
    match JWK.read()? {
        None => Ok(verifier),
        Some(keys) => verifier.with(Provider::with_default_policy(JWK_PROVIDER, keys)),
    }
}

/// Whether a secret is among the settings although this session's client could read them: before
/// the library is there to hide them, settings of extensions are visible to everybody.
fn readable_secret(verifier: &Verifier) -> bool {
    session::loaded_late() && verifier.has_secret() && !pg::is_parallel_worker()
}
