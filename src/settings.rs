//! The settings: their names, who may set them, and what is asked of a new value.
//!
//! Losing a setting must never widen trust: where the library is not preloaded, an ordinary
//! client that names a setting in its startup options makes Postgres fall back to the built-in
//! default. So each setting that decides whom to trust is one self-contained document whose
//! default is to trust nobody.

use std::cell::RefCell;
use std::ffi::CStr;

use session_jwt::{Code, KeySet, Provider, Rejection, Verifier};

use crate::pg::guc::{
    self, BoolVariable, IntVariable, Privilege, Source, TextVariable, TokenVariable,
};
use crate::pg::{BackendLocal, error};
use crate::{keyring, session};

const JWK_NAME: &CStr = c"pg_session_jwt.jwk";
const PROVIDERS_NAME: &CStr = c"pg_session_jwt.providers";
/// The name of the setting that holds the token.
pub(crate) const JWT_NAME: &CStr = c"pg_session_jwt.jwt";

/// A JWK or a JWK set that makes one provider of the default policy.
pub(crate) static JWK: TextVariable = TextVariable::new();

/// Providers as a JSON object or an array of them.
pub(crate) static PROVIDERS: TextVariable = TextVariable::new();

/// The session's token.
pub(crate) static JWT: TokenVariable = TokenVariable::new();

/// Whether to believe `request.jwt.claims` where the session has no token. Whoever can run SQL
/// can forge it, hence off.
pub(crate) static TRUST_REQUEST_CLAIMS: BoolVariable = BoolVariable::new(false);

/// Whether to write a log line when a token is accepted, refused or cleared.
pub(crate) static AUDIT_LOG: BoolVariable = BoolVariable::new(false);

/// How many verified tokens the backend remembers; 0 for none.
pub(crate) static TOKEN_CACHE_SIZE: IntVariable = IntVariable::new(128);

const LARGEST_TOKEN_CACHE: i32 = 65_536;

/// Why the last value of a document was refused, where that came from a place that Postgres only
/// warns about. [`keyring`] tells it to whoever then finds no key.
pub(crate) static LAST_REFUSED: BackendLocal<RefCell<Option<Rejection>>> =
    BackendLocal::new(RefCell::new(None));

/// Defines every setting, the documents first: a token that was set before the library came is
/// to find them.
pub(crate) fn register() {
    session::while_loading(|| {
        JWK.define_document(
            JWK_NAME,
            c"JWK or JWK set that tokens are verified with.",
            guc::document_hooks!(JWK_NAME, check_jwk, keyring::forget),
        );
        PROVIDERS.define_document(
            PROVIDERS_NAME,
            c"Identity providers, as a JSON object or an array of them.",
            guc::document_hooks!(PROVIDERS_NAME, check_providers, keyring::forget),
        );
        TRUST_REQUEST_CLAIMS.define(
            c"pg_session_jwt.trust_request_claims",
            c"Believes request.jwt.claims where the session has no token.",
            Privilege::Superuser,
            guc::bool_assign_hook!(session::forget),
        );
        AUDIT_LOG.define(
            c"pg_session_jwt.audit_log",
            c"Logs when a token is accepted, refused or cleared.",
            Privilege::Superuser,
            None,
        );
        TOKEN_CACHE_SIZE.define(
            c"pg_session_jwt.token_cache_size",
            c"Number of verified tokens that a backend remembers; 0 turns that off.",
            LARGEST_TOKEN_CACHE,
            Privilege::Superuser,
        );
        JWT.define(
            JWT_NAME,
            c"The session's token. It is never shown.",
            guc::token_hooks!(JWT, session::present, session::forget, c"[redacted]"),
        );
        guc::reserve_prefix(c"pg_session_jwt");
    });
}

fn check_jwk(value: &[u8], source: Source) -> Result<(), Rejection> {
    check_document(
        value,
        source,
        |text| Ok(KeySet::parse(text)?.is_symmetric()),
    )
}

fn check_providers(value: &[u8], source: Source) -> Result<(), Rejection> {
    check_document(value, source, |text| {
        Ok(Verifier::new(Provider::parse_all(text)?)?.has_secret())
    })
}

/// Whom to trust is decided outside of sessions; not even a superuser's session, which might be
/// running somebody else's code, changes it for itself. `parse` tells whether there is a secret.
fn check_document(
    value: &[u8],
    source: Source,
    parse: impl FnOnce(&str) -> Result<bool, Rejection>,
) -> Result<(), Rejection> {
    if source == Source::Session {
        return Err(Rejection::new(Code::Configuration, "it cannot be set within a session")
            .with_detail("Who may be trusted is not for a session to decide.")
            .with_hint(
                "Set it in postgresql.conf, by ALTER SYSTEM, ALTER DATABASE or ALTER ROLE, or in \
                 the startup packet.",
            ));
    }
    if value.is_empty() {
        return Ok(());
    }
    let outcome = document_text(value).and_then(parse);
    match (source, &outcome) {
        (Source::Test, Ok(true)) => error::warn(
            "every role can read the secret in this setting",
            "What is stored for a database or a role stands in pg_db_role_setting, which all may \
             read. Put it into postgresql.conf, and pg_session_jwt into shared_preload_libraries.",
        ),
        (Source::Test, _) => {}
        _ => drop(LAST_REFUSED.replace(outcome.as_ref().err().cloned())),
    }
    outcome.map(drop)
}

/// A document's bytes as text.
pub(crate) fn document_text(value: &[u8]) -> Result<&str, Rejection> {
    std::str::from_utf8(value)
        .map_err(|_| Rejection::new(Code::Configuration, "it is not valid UTF-8"))
}
