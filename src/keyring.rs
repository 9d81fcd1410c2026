//! What the settings say about whom to trust, as a verifier that is made when it is needed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use session_jwt::{Code, Provider, Rejection, Verifier};

use crate::pg::{self, BackendLocal};
use crate::settings::{JWK, PROVIDERS};
use crate::{audit, session};

type Loaded = Result<Rc<Verifier>, Rejection>;

static LOADED: BackendLocal<RefCell<Option<Loaded>>> = BackendLocal::new(RefCell::new(None));
static STALE: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(true));

/// Counts how often the configuration was made anew: what was verified under an earlier one
/// counts no more.
static EDITION: BackendLocal<Cell<u64>> = BackendLocal::new(Cell::new(0));

/// The name of the provider that `pg_session_jwt.jwk` makes.
const JWK_PROVIDER: &str = "pg_session_jwt.jwk";

/// Notes that a document has changed. It may run while the backend is not able to do anything.
pub(crate) fn forget() {
    STALE.set(true);
    session::forget();
}

/// The verifier for the settings as they are, and the number of its edition.
pub(crate) fn verifier() -> Result<(Rc<Verifier>, u64), Rejection> {
    if STALE.get() {
        let loaded = load().map(Rc::new);
        let warn = loaded.as_ref().is_ok_and(|verifier| readable_secret(verifier));
        LOADED.replace(Some(loaded));
        EDITION.set(EDITION.get() + 1);
        // Only now: had anything above failed, the keys before would have stayed in force.
        STALE.set(false);
        if warn {
            audit::warn_of_readable_secret();
        }
    }
    match &*LOADED.borrow() {
        Some(Ok(verifier)) => Ok((Rc::clone(verifier), EDITION.get())),
        Some(Err(rejection)) => Err(rejection.clone()),
        None => Err(no_key()),
    }
}

/// What is wrong where nothing is configured.
pub(crate) fn no_key() -> Rejection {
    Rejection::new(Code::Configuration, "no key is configured")
        .with_hint("Set pg_session_jwt.jwk or pg_session_jwt.providers.")
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
