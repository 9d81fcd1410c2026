//! Finds the provider of a token by the token's issuer, and verifies the token with the provider's keys. A
//! provider is in the settings, or is a row of `auth.providers`, which is read when a token names its
//! issuer. Where both have the same issuer, the one in the settings is used. Where no provider has the
//! issuer, the provider without an issuer is used.
//!
//! Invalidation carries no detail: it raises the epoch, and cached rows are read again at their next
//! use.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use session_jwt::{
    Candidates, Code, Logout, MOST_COUNTED, Provider, Rejection, UnjudgedClaims, Unverified,
    Verifier, authenticate, authenticate_logout, no_provider_configured,
};

use super::refresh;
use super::row::Row;
use super::schedule::is_due;
use super::table::{Rows, Table};
use crate::audit;
use crate::pg::backend::{self, BackendLocal, Timestamp, seconds};
use crate::pg::role;
use crate::settings::{self, JWK, PROVIDERS};
use crate::signatures::{self, Signature};

/// The epoch: the number of invalidations of settings and rows in this backend, from 1.
static EPOCH: BackendLocal<Cell<u64>> = BackendLocal::new(Cell::new(1));

/// The providers in the settings as they were read last, and whether the settings have changed since.
static SETTINGS: BackendLocal<RefCell<Option<FromSettings>>> =
    BackendLocal::new(RefCell::new(None));
static SETTINGS_CHANGED: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(true));

type FromSettings = Result<Rc<Verifier>, Rejection>;

/// The cached rows by issuer. The key of the row without an issuer is the empty text, which is no issuer.
static ROWS: BackendLocal<RefCell<Option<RowsByIssuer>>> = BackendLocal::new(RefCell::new(None));

type RowsByIssuer = HashMap<Box<str>, Rc<CachedRow>>;

/// An epoch in which the table had no rows, or there was no table.
static EPOCH_WITHOUT_ROWS: BackendLocal<Cell<u64>> = BackendLocal::new(Cell::new(0));

struct CachedRow {
    /// The epoch in which it was read.
    epoch: u64,
    row: Row,
    provider: Result<Arc<Provider>, Rejection>,
}

/// Makes the next use read the settings again. It may run outside of a transaction, and cannot fail.
pub(crate) fn invalidate_settings() {
    SETTINGS_CHANGED.set(true);
    invalidate();
}

/// Makes the next use read rows of the table again. It may run outside of a transaction, and cannot fail.
pub(crate) fn invalidate() {
    EPOCH.set(EPOCH.get() + 1);
}

/// The current epoch. Where it is the same before and after, no invalidation has arrived in between.
pub(crate) fn epoch() -> u64 {
    EPOCH.get()
}

/// The provider for which a token was verified. [`is_current`] selects the provider again only in another
/// epoch, and from `ends` or `due` on.
pub(crate) struct Trust {
    provider: Arc<Provider>,
    /// The epoch in which the provider was selected last.
    epoch: Cell<u64>,
    /// The first moment at which the keys are too old.
    ends: Cell<Timestamp>,
    /// The time of the next scheduled fetch.
    due: Cell<Timestamp>,
    /// Whether the provider's secret has verified the token. A secret does not become too old.
    by_secret: bool,
    /// The signature of the token, where backends share signatures.
    signature: Option<Signature>,
}

/// The provider of an issuer, as it was in an epoch.
struct Selected {
    provider: Arc<Provider>,
    epoch: u64,
    /// Its row, where its keys are fetched.
    remote: Option<Rc<CachedRow>>,
    /// Whether the provider's secret verifies the token.
    by_secret: bool,
}

/// A rejection, and which newer keys could change it.
struct Failure {
    rejection: Rejection,
    missing: Option<MissingKeys>,
}

/// The keys that a row lacks, and with which a second attempt may accept the token.
struct MissingKeys {
    row: Rc<CachedRow>,
    wanted: WantedKeys,
}

enum WantedKeys {
    /// Keys that are not too old.
    Fresh,
    /// A key with this id.
    Kid(String),
    /// Other keys than those that did not verify the token. The provider may have replaced a key and
    /// kept its id, or publish keys without ids.
    Others,
}

/// Verifies everything about a token except its times. Where the provider's keys are fetched, and the known
/// keys do not verify the token, it waits for newer keys and makes a second attempt.
pub(crate) fn verify(token: &str) -> Result<(UnjudgedClaims, Trust), Rejection> {
    let mut signature = None;
    let (claims, selected) = with_newer_keys(|choose| {
        authenticate(token, choose, |provider| {
            signature = signatures::find(provider, token);
            signature.as_ref().is_some_and(|signature| signature.was_known)
        })
    })?;
    Ok((claims, Trust::of(selected, signature)))
}

/// Verifies a logout token at `now`, in seconds since 1970. It waits for newer keys as [`verify`] does. The audience
/// is that of the application, in place of those of the provider.
pub(crate) fn verify_logout(
    token: &str,
    audience: Option<&str>,
    now: i64,
) -> Result<Logout, Rejection> {
    with_newer_keys(|choose| authenticate_logout(token, audience, now, choose))
        .map(|(logout, _)| logout)
}

/// Chooses the provider of a token.
type Choose<'c> = &'c mut dyn FnMut(&Unverified<'_>) -> Result<Arc<Provider>, Rejection>;

/// Runs a verification, and once more if newer keys may help.
fn with_newer_keys<T>(
    mut verify: impl FnMut(Choose<'_>) -> Result<T, Rejection>,
) -> Result<(T, Selected), Rejection> {
    let failure = match attempt(&mut verify) {
        Ok(verified) => return Ok(verified),
        Err(failure) => failure,
    };
    let (Some(missing), Some(table)) = (failure.missing, Table::find()) else {
        return Err(failure.rejection);
    };
    let name = &missing.row.row.name;
    match refresh::fetch_for_token(table, name, |row| missing.are_in(row)) {
        Ok(()) => {
            // The new row may be visible before its invalidation has arrived.
            invalidate();
            attempt(&mut verify).map_err(|failure| failure.rejection)
        }
        Err(reason) => {
            let detail = failure.rejection.detail().unwrap_or_default();
            let detail = format!("{detail} {reason}");
            Err(failure.rejection.with_detail(detail))
        }
    }
}

fn attempt<T>(
    verify: &mut impl FnMut(Choose<'_>) -> Result<T, Rejection>,
) -> Result<(T, Selected), Failure> {
    // The closure stores the selection here, because it is needed where the token is rejected too.
    let selection = Cell::new(None);
    let (may_be_published, is_symmetric) = (Cell::new(false), Cell::new(false));
    let mut choose = |unverified: &Unverified<'_>| {
        let selected = select(unverified.issuer)?.ok_or_else(|| no_provider(unverified))?;
        let provider = Arc::clone(&selected.provider);
        let selected =
            if is_by_secret(&provider, unverified) { selected.by_secret() } else { selected };
        let is_too_old = selected.ends() <= backend::now();
        let wanted = match unverified.kid {
            _ if is_too_old => WantedKeys::Fresh,
            Some(kid) if !provider.keys().has_kid(kid) => WantedKeys::Kid(kid.to_owned()),
            _ => WantedKeys::Others,
        };
        let missing = selected.remote.clone().map(|row| MissingKeys { row, wanted });
        may_be_published.set(unverified.may_have_published_key(&provider));
        is_symmetric.set(unverified.is_symmetric());
        selection.set(Some((selected, missing)));
        if is_too_old {
            unverified.check_type(&provider)?;
            return Err(too_old());
        }
        Ok(provider)
    };
    let outcome = verify(&mut choose);
    match (outcome, selection.take()) {
        (Ok(verified), Some((selected, _))) => {
            selected.fetch_due_keys();
            Ok((verified, selected))
        }
        // This does not happen: a verification accepts a token only after the closure has returned a
        // provider.
        (Ok(_), None) => Err(Failure { rejection: nothing_configured(Code::NoKey), missing: None }),
        (Err(rejection), selection) => {
            let newer_keys_may_help = match rejection.code() {
                // Fetched keys do not verify a token that was signed with a secret.
                Code::NoKey => !is_symmetric.get(),
                Code::Signature | Code::Algorithm => may_be_published.get(),
                _ => false,
            };
            let (selected, missing) = selection.unzip();
            let rejection = match selected {
                Some(selected) => rejection.with_provider(selected.provider.name()),
                None => rejection,
            };
            let missing = missing.flatten().filter(|_| newer_keys_may_help);
            Err(Failure { rejection, missing })
        }
    }
}

/// The providers for the inspection of a token. Keys that are due are not fetched.
pub(crate) fn candidates(unverified: &Unverified<'_>) -> Candidates {
    /// The number of other providers that are read, for hints.
    const MOST_OTHERS: usize = 100;
    let mut keys = Ok(());
    let chosen = select(unverified.issuer).and_then(|selected| {
        let selected = selected.ok_or_else(|| no_provider(unverified))?;
        let is_fetched = !is_by_secret(&selected.provider, unverified);
        if is_fetched && selected.ends() <= backend::now() {
            keys = Err(too_old());
        }
        Ok(selected.provider)
    });
    let settings = from_settings().unwrap_or_default();
    let mut others: Vec<Arc<Provider>> =
        settings.providers().iter().take(MOST_OTHERS).cloned().collect();
    if let Some(table) = Table::find() {
        let mut add = |row: Row| {
            others.extend(Provider::from_row(&row.document).map(Arc::new));
            others.len() < MOST_OTHERS
        };
        // Where the table was altered, `select` has reported the error.
        for near in unverified.near_issuers() {
            let _ = table.read(Rows::OfIssuer(Some(&near)), &mut add);
        }
        let _ = table.read(Rows::All, &mut add);
    }
    if let Ok(chosen) = &chosen {
        others.retain(|other| other.name() != chosen.name());
    }
    Candidates { chosen, keys, others }
}

/// Whether a provider serves the tokens of an issuer, or cannot be read.
pub(crate) fn serves(issuer: &str) -> bool {
    select(Some(issuer)).map_or(true, |selected| selected.is_some())
}

/// Claims without a token, for a caller that could issue one. The provider of their issuer says which claim has
/// the user id, and which one Hasura's session variables.
pub(crate) fn assume(claims: &str) -> Result<UnjudgedClaims, Rejection> {
    let assumed = UnjudgedClaims::trusted(claims)?;
    match select(assumed.unjudged().issuer())? {
        Some(selected) => UnjudgedClaims::assumed(claims, &selected.provider),
        None => Ok(assumed),
    }
}

/// Whether a token that was verified earlier has the same provider now, with the same keys.
pub(crate) fn is_current(trust: &Trust, issuer: Option<&str>) -> bool {
    let until = trust.ends.get().min(trust.due.get());
    if trust.epoch.get() == EPOCH.get() && (until == Timestamp::MAX || backend::now() < until) {
        return true;
    }
    let selected = select(issuer).map(|selected| match trust.by_secret {
        true => selected.map(Selected::by_secret),
        false => selected,
    });
    match selected {
        Ok(Some(selected))
            if Arc::ptr_eq(&selected.provider, &trust.provider)
                && backend::now() < selected.ends() =>
        {
            selected.fetch_due_keys();
            trust.renew(&selected);
            true
        }
        _ => false,
    }
}

impl Trust {
    fn of(selected: Selected, signature: Option<Signature>) -> Self {
        let (epoch, ends, due) = (selected.epoch, selected.ends(), selected.due());
        Self {
            provider: selected.provider,
            epoch: Cell::new(epoch),
            ends: Cell::new(ends),
            due: Cell::new(due),
            by_secret: selected.by_secret,
            signature,
        }
    }

    /// The signature of the token; None where backends share no signatures.
    pub(crate) fn signature(&self) -> Option<&Signature> {
        self.signature.as_ref()
    }

    fn renew(&self, selected: &Selected) {
        self.epoch.set(selected.epoch);
        self.ends.set(selected.ends());
        self.due.set(selected.due());
    }

    /// The first moment at which the keys are too old.
    pub(crate) fn ends(&self) -> Timestamp {
        self.ends.get()
    }
}

impl Selected {
    /// The selection for a token that the provider's secret verifies. Fetched keys do not matter for it.
    fn by_secret(self) -> Self {
        Self { remote: None, by_secret: true, ..self }
    }

    /// The first moment at which its keys are too old.
    fn ends(&self) -> Timestamp {
        self.remote.as_ref().map_or(Timestamp::MAX, |cached| cached.ends())
    }

    /// When its keys are to be fetched again.
    fn due(&self) -> Timestamp {
        let due = |cached: &Rc<CachedRow>| cached.row.fetching.next_refresh;
        self.remote.as_ref().map_or(Timestamp::MAX, |cached| due(cached).unwrap_or(Timestamp::MIN))
    }

    fn fetch_due_keys(&self) {
        if let Some(cached) = &self.remote
            && is_due(&cached.row, backend::now())
            && let Some(table) = Table::find()
        {
            refresh::fetch_due(table, &cached.row);
        }
    }
}

impl CachedRow {
    fn ends(&self) -> Timestamp {
        self.provider.as_ref().map_or(Timestamp::MAX, |provider| ends(&self.row, provider))
    }

    fn is_remote(&self) -> bool {
        self.provider.as_ref().is_ok_and(|provider| provider.remote().is_some())
    }
}

/// The first moment at which the keys of a row are too old. Keys that are not fetched, or not fetched
/// yet, do not become too old.
pub(super) fn ends(row: &Row, provider: &Provider) -> Timestamp {
    match provider.remote() {
        Some(remote) if !provider.keys().is_waiting() => {
            let fetched = row.fetching.last_success.unwrap_or(Timestamp::MIN);
            fetched.saturating_add(seconds(remote.keep_keys()))
        }
        _ => Timestamp::MAX,
    }
}

impl MissingKeys {
    /// Whether a row that was read again has such keys.
    fn are_in(&self, row: &Row) -> bool {
        let Ok(provider) = Provider::from_row(&row.document) else {
            return false;
        };
        let are_there = match &self.wanted {
            WantedKeys::Fresh => !provider.keys().is_empty(),
            WantedKeys::Kid(kid) => provider.keys().has_kid(kid),
            WantedKeys::Others => row.document != self.row.row.document,
        };
        are_there && backend::now() < ends(row, &provider)
    }
}

/// Whether the provider's secret verifies the token. The provider may have fetched keys, too.
fn is_by_secret(provider: &Provider, unverified: &Unverified<'_>) -> bool {
    unverified.is_symmetric() && provider.keys().is_symmetric()
}

fn too_old() -> Rejection {
    Rejection::new(Code::NoKey, "provider's keys are too old")
        .with_detail("The last fetch that succeeded was longer ago than its keep_keys allows.")
}

/// The provider of an issuer. Where no provider has the issuer, the one without issuer.
fn select(issuer: Option<&str>) -> Result<Option<Selected>, Rejection> {
    let settings = from_settings()?;
    for key in issuer.map(Some).into_iter().chain([None]) {
        // The epoch is read first, so that an invalidation during the reads makes the selection outdated.
        let epoch = EPOCH.get();
        if let Some(provider) = settings.provider_of(key).map(Arc::clone) {
            return Ok(Some(Selected { provider, epoch, remote: None, by_secret: false }));
        }
        if let Some(cached) = cached_row(key)? {
            let provider = cached.provider.clone()?;
            let remote = cached.is_remote().then_some(cached);
            return Ok(Some(Selected { provider, epoch, remote, by_secret: false }));
        }
    }
    Ok(None)
}

/// The row of an issuer, from the cache while it is current. For None, the row without issuer.
fn cached_row(issuer: Option<&str>) -> Result<Option<Rc<CachedRow>>, Rejection> {
    let (key, epoch) = (issuer.unwrap_or_default(), EPOCH.get());
    if EPOCH_WITHOUT_ROWS.get() == epoch {
        return Ok(None);
    }
    let before = ROWS.borrow().as_ref().and_then(|rows| rows.get(key).cloned());
    if let Some(cached) = &before
        && cached.epoch == epoch
    {
        // The progress of fetches is written without an invalidation. So a row whose fetch is due is read
        // again.
        let is_settled = || {
            let now = backend::now();
            !is_due(&cached.row, now) && now < cached.ends()
        };
        if !cached.is_remote() || is_settled() {
            return Ok(before);
        }
    }
    let table = Table::find();
    let row_of = |rows| table.map_or(Ok(None), |table| table.row(rows));
    let row = row_of(Rows::OfIssuer(issuer))?;
    if row.is_none() && row_of(Rows::All)?.is_none() {
        EPOCH_WITHOUT_ROWS.set(epoch);
    }
    let found = row.map(|row| {
        let provider = match &before {
            Some(cached) if cached.row.document == row.document => cached.provider.clone(),
            _ => Provider::from_row(&row.document).map(Arc::new),
        };
        Rc::new(CachedRow { epoch, row, provider })
    });
    // A row that could not be read for lack of memory is read again at the next use.
    if let Some(Err(rejection)) = found.as_ref().map(|cached| &cached.provider)
        && rejection.code() == Code::OutOfMemory
    {
        return Err(rejection.clone());
    }
    let mut rows = ROWS.borrow_mut();
    let rows = rows.get_or_insert_default();
    match &found {
        Some(cached) => rows.insert(key.into(), Rc::clone(cached)),
        None => rows.remove(key),
    };
    Ok(found)
}

/// The rejection of a token whose issuer has no provider. It names issuers that are similar. Roles that may read
/// `auth.provider_status` get a list of the others, too.
fn no_provider(unverified: &Unverified<'_>) -> Rejection {
    // A list has ten issuers, and says whether there are more.
    const MOST_LISTED: usize = 12;
    let are_listed = role::is_monitor();
    let most = if are_listed { MOST_LISTED } else { MOST_COUNTED + 1 };
    let settings = from_settings().unwrap_or_default();
    let of_settings = settings.providers().iter().filter_map(|provider| provider.issuer());
    let mut issuers: Vec<String> = of_settings.map(str::to_owned).collect();
    let mut has_providers = !settings.providers().is_empty();
    if let Some(table) = Table::find() {
        // Similar issuers are looked up by the index, because the table may have many rows.
        let near = unverified.near_issuers();
        let near: Vec<String> = near
            .iter()
            .filter_map(|near| table.row(Rows::OfIssuer(Some(near))).ok()??.issuer)
            .collect();
        // The error is that the table was altered, which `select` has reported before.
        let _ = table.read(Rows::All, |row| {
            has_providers = true;
            issuers.extend(row.issuer.filter(|issuer| !near.contains(issuer)));
            issuers.len() < most
        });
        issuers.splice(0..0, near);
    }
    if !has_providers {
        return nothing_configured(Code::NoKey);
    }
    let issuers: Vec<&str> = issuers.iter().map(String::as_str).collect();
    unverified.no_provider(&issuers, are_listed)
}

/// The rejection if neither the settings nor the table have a provider.
fn nothing_configured(code: Code) -> Rejection {
    no_provider_configured(code).with_hint(
        "Set pg_session_jwt.jwk or pg_session_jwt.providers, or call auth.add_provider().",
    )
}

/// The providers in the settings.
///
/// # Errors
/// Where there is no provider in the settings or the table.
pub(super) fn configured() -> Result<Rc<Verifier>, Rejection> {
    let settings = from_settings()?;
    let row = match Table::find() {
        Some(table) => table.row(Rows::All)?,
        None => None,
    };
    if settings.providers().is_empty() && row.is_none() {
        return Err(nothing_configured(Code::Configuration));
    }
    Ok(settings)
}

/// Why a row of the table is not used where [`is_in_settings`] holds.
pub(super) const PRECEDENCE: &str = "The settings pg_session_jwt.jwk and pg_session_jwt.providers, which \
     serve the same issuer, take precedence.";

/// Whether a provider in the settings has the same issuer.
pub(super) fn is_in_settings(provider: &Provider) -> bool {
    from_settings().is_ok_and(|settings| settings.provider_of(provider.issuer()).is_some())
}

pub(super) fn from_settings() -> FromSettings {
    if SETTINGS_CHANGED.get() {
        let read = read_settings().map(Rc::new);
        // Settings that could not be read for lack of memory are read again at the next use.
        if read.as_ref().is_err_and(|rejection| rejection.code() == Code::OutOfMemory) {
            return read;
        }
        let is_readable = read.as_ref().is_ok_and(|verifier| has_readable_secret(verifier));
        SETTINGS.replace(Some(read));
        // The flag is cleared last. If it were cleared before a step that fails, the earlier providers
        // would stay in use.
        SETTINGS_CHANGED.set(false);
        if is_readable {
            audit::log_readable_secret();
        }
    }
    match &*SETTINGS.borrow() {
        Some(read) => read.clone(),
        None => Ok(Rc::default()),
    }
}

fn read_settings() -> Result<Verifier, Rejection> {
    let verifier = PROVIDERS.read()?.unwrap_or_default();
    match JWK.read()? {
        None => Ok(verifier),
        Some(provider) => verifier.with(provider),
    }
}

/// Whether the settings have a secret that this session's client could read: before the library is
/// loaded, every role can read the settings of extensions.
fn has_readable_secret(verifier: &Verifier) -> bool {
    settings::loaded_late() && verifier.has_secret() && !backend::is_parallel_worker()
}
