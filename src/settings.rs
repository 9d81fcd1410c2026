//! The settings: their names, who may set them, and what is asked of a new value.
//!
//! Losing a setting must never widen trust: where the library is not preloaded, an ordinary
//! client that names a setting in its startup options makes Postgres fall back to the built-in
//! default. So each setting that decides whom to trust is one self-contained document whose
//! default is to trust nobody.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::ops::RangeInclusive;

use session_jwt::{Code, HttpHosts, KeySet, KeySource, Provider, Rejection, Verifier};

use crate::pg::guc::{
    self, BoolVariable, EnumVariable, IntVariable, Privilege, Source, TextVariable, TokenVariable,
    Unit,
};
use crate::pg::{self, BackendLocal, error};
use crate::session;

/// Whether settings are being registered.
static LOADING: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));

/// Whether the client could run statements before the library was loaded.
static LOADED_LATE: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));

/// The registration of settings, which ends when this is dropped.
pub(crate) struct Loading(());

impl Loading {
    pub(crate) fn begin() -> Self {
        LOADED_LATE.set(pg::within_statement());
        LOADING.set(true);
        Self(())
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        LOADING.set(false);
    }
}

/// Whether settings are being registered.
pub(crate) fn is_loading() -> bool {
    LOADING.get()
}

/// Whether the client could run statements before the library was loaded.
pub(crate) fn loaded_late() -> bool {
    LOADED_LATE.get()
}

/// The name of the setting that holds the token.
pub(crate) const JWT_NAME: &CStr = c"pg_session_jwt.jwt";

/// A JWK or a JWK set that makes one provider of the default policy.
pub(crate) static JWK: Document<KeySet> =
    Document::new(c"pg_session_jwt.jwk", KeySet::parse, KeySet::is_symmetric);

/// Providers as a JSON object or an array of them.
pub(crate) static PROVIDERS: Document<Verifier> = Document::new(
    c"pg_session_jwt.providers",
    |text| Verifier::new(Provider::parse_all(text)?),
    Verifier::has_secret,
);

/// The session's token.
pub(crate) static JWT: TokenVariable = TokenVariable::new();

/// Whether to believe `request.jwt.claims` where the session has no token. Whoever can run SQL
/// can forge it, hence off.
pub(crate) static TRUST_REQUEST_CLAIMS: BoolVariable = BoolVariable::new(false);

/// Whether to write a log line when a token is accepted, refused or cleared.
pub(crate) static AUDIT_LOG: BoolVariable = BoolVariable::new(false);

/// How long identities last at most. With `transaction`, none outlives the transaction in which it
/// was presented, whatever carried it: where connections are shared, what one client forgot does
/// not become the next one's identity. A lost value counts as `transaction`.
pub(crate) static IDENTITY_SCOPE: EnumVariable = EnumVariable::new(0);

const SCOPES: [&CStr; 2] = [c"session", c"transaction"];

/// The place of `transaction` among them.
pub(crate) const TRANSACTION_SCOPE: i32 = 1;

/// How many verified tokens the backend remembers; 0 for none.
pub(crate) static TOKEN_CACHE_SIZE: IntVariable = IntVariable::new(128);

const TOKEN_CACHE_SIZES: RangeInclusive<i32> = 0..=65_536;

/// A file with certificates of authorities that may vouch for the servers from which keys are
/// fetched, beside those of the operating system. The background worker reads it.
pub(crate) static JWKS_CA_FILE: TextVariable = TextVariable::new();

/// The hosts that keys may be fetched from over http: a provider on the same machine, or in a network
/// that nobody else can reach. Only those who may write the configuration files widen it.
static JWKS_HTTP_HOSTS: TextVariable = TextVariable::new();

const JWKS_HTTP_HOSTS_NAME: &CStr = c"pg_session_jwt.jwks_http_hosts";

/// How long a session waits for keys that are being fetched, in milliseconds; fetching itself ends a
/// little earlier.
pub(crate) static JWKS_TIMEOUT: IntVariable = IntVariable::new(5000);

/// Login roles whose sessions change their role by a token alone.
pub(crate) static LOCKED_ROLES: TextVariable = TextVariable::new();

const LOCKED_ROLES_NAME: &CStr = c"pg_session_jwt.locked_roles";

/// Whether the postmaster has loaded the library: else a client could change its role before.
static PRELOADED: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));

const JWKS_TIMEOUTS: RangeInclusive<i32> = 100..=60_000;

/// Defines every setting, the documents first: a token that was set before the library came is
/// to find them.
pub(crate) fn register() {
    session::while_loading(|| {
        JWK.define(c"JWK or JWK set that tokens are verified with.", guc::document_hooks!(JWK));
        PROVIDERS.define(
            c"Identity providers, as a JSON object or an array of them.",
            guc::document_hooks!(PROVIDERS),
        );
        TRUST_REQUEST_CLAIMS.define(
            c"pg_session_jwt.trust_request_claims",
            c"Believes request.jwt.claims where the session has no token.",
            Privilege::Superuser,
            guc::assign_hook!(TRUST_REQUEST_CLAIMS, bool, session::trust_changed),
        );
        AUDIT_LOG.define(
            c"pg_session_jwt.audit_log",
            c"Logs when a token is accepted, refused or cleared.",
            Privilege::Superuser,
            guc::assign_hook!(AUDIT_LOG, bool, |_| ()),
        );
        IDENTITY_SCOPE.define(
            c"pg_session_jwt.identity_scope",
            c"How long an identity lasts at most: the session or the transaction.",
            &SCOPES,
            Privilege::Superuser,
            guc::assign_hook!(IDENTITY_SCOPE, i32, session::scope_changed),
        );
        TOKEN_CACHE_SIZE.define(
            c"pg_session_jwt.token_cache_size",
            c"Number of verified tokens that a backend remembers; 0 turns that off.",
            TOKEN_CACHE_SIZES,
            Privilege::Superuser,
            Unit::None,
        );
        JWKS_CA_FILE.define_in_files(
            c"pg_session_jwt.jwks_ca_file",
            c"File with certificates of further authorities for servers that keys are fetched from.",
            None,
        );
        JWKS_HTTP_HOSTS.define_in_files(
            JWKS_HTTP_HOSTS_NAME,
            c"Hosts that keys may be fetched from over http.",
            guc::check_hook!(JWKS_HTTP_HOSTS_NAME, |value: &[u8], _| parse_http_hosts(value)),
        );
        PRELOADED.set(pg::is_preloading());
        LOCKED_ROLES.define_in_files(
            LOCKED_ROLES_NAME,
            c"Login roles whose sessions change their role by a token alone.",
            guc::check_hook!(LOCKED_ROLES_NAME, |value: &[u8], _| check_names(value)),
        );
        JWKS_TIMEOUT.define(
            c"pg_session_jwt.jwks_timeout",
            c"How long a token waits for keys that are being fetched.",
            JWKS_TIMEOUTS,
            Privilege::Superuser,
            Unit::Milliseconds,
        );
        JWT.define(
            JWT_NAME,
            c"The session's token. It is never shown.",
            guc::token_hooks!(
                JWT,
                session::present,
                session::revoke,
                session::token_changed,
                c"[redacted]",
            ),
        );
        guc::reserve_prefix(c"pg_session_jwt");
    });
}

fn parse_http_hosts(value: &[u8]) -> Result<HttpHosts, Rejection> {
    let parsed = match std::str::from_utf8(value) {
        Ok(list) => HttpHosts::parse(list),
        Err(_) => Err("It is not valid UTF-8.".to_owned()),
    };
    parsed.map_err(|problem| {
        Rejection::new(Code::Configuration, "it is not a list of hosts")
            .with_detail(problem)
            .with_hint(
                "Write host names, each with a port or, for all ports, without, and separated by \
                 commas: keycloak:8080, localhost.",
            )
    })
}

/// The hosts that keys may be fetched from over http; none where the setting is lost.
pub(crate) fn http_hosts() -> HttpHosts {
    JWKS_HTTP_HOSTS.with(parse_http_hosts).unwrap_or_default()
}

/// Refuses a source of keys over http whose host is not listed.
pub(crate) fn check_scheme(source: &KeySource) -> Result<(), Rejection> {
    source.check_scheme(&http_hosts()).map_err(|rejection| {
        rejection.with_hint(
            "Use an https URL, or add the host to pg_session_jwt.jwks_http_hosts in \
             postgresql.conf.",
        )
    })
}

fn check_names(value: &[u8]) -> Result<(), Rejection> {
    match guc::names(value) {
        Some(_) => Ok(()),
        None => Err(Rejection::new(Code::Configuration, "it is not a list of names")
            .with_detail("Names are separated by commas, and quoted as in SQL.")),
    }
}

/// Whether a login role's sessions change their role by a token alone: also where nobody knows.
pub(crate) fn is_locked(login: Option<&[u8]>) -> bool {
    if LOCKED_ROLES.is_lost() {
        return true;
    }
    LOCKED_ROLES.with(|value| match (value, login) {
        (b"", _) => false,
        (_, None) => true,
        (_, Some(login)) => {
            guc::names(value).is_none_or(|names| names.iter().any(|name| name == login))
        }
    })
}

/// Refuses to know anybody where locks would not hold.
pub(crate) fn check_locks() -> Result<(), Rejection> {
    let holds = PRELOADED.get() || LOCKED_ROLES.with(<[u8]>::is_empty);
    if holds && !LOCKED_ROLES.is_lost() {
        return Ok(());
    }
    Err(Rejection::new(Code::Configuration, "locked roles are not locked")
        .with_detail(
            "pg_session_jwt.locked_roles has a value that was not taken over, or the library was \
             loaded only after the session had begun.",
        )
        .with_hint("Add pg_session_jwt to shared_preload_libraries, and name roles as SQL does."))
}

/// A setting that decides whom to trust, by a text that says a `T`.
pub(crate) struct Document<T: 'static> {
    pub(crate) name: &'static CStr,
    text: TextVariable,
    parse: fn(&str) -> Result<T, Rejection>,
    has_secret: fn(&T) -> bool,
    /// What the check hook has read last, and from which text. The postmaster's is there in every
    /// session, which then need not read the same again.
    parsed: BackendLocal<RefCell<Option<Parsed<T>>>>,
    /// Why the value that was there when the library was loaded was refused: Postgres only warns
    /// then. It stands until another is assigned.
    refused: BackendLocal<RefCell<Option<Rejection>>>,
    /// Whether a value was there and has not been taken over.
    lost: BackendLocal<Cell<bool>>,
}

/// A text that has been read.
struct Parsed<T> {
    text: Box<[u8]>,
    says: T,
}

impl<T> Document<T> {
    const fn new(
        name: &'static CStr,
        parse: fn(&str) -> Result<T, Rejection>,
        has_secret: fn(&T) -> bool,
    ) -> Self {
        Self {
            name,
            text: TextVariable::new(),
            parse,
            has_secret,
            parsed: BackendLocal::new(RefCell::new(None)),
            refused: BackendLocal::new(RefCell::new(None)),
            lost: BackendLocal::new(Cell::new(false)),
        }
    }

    /// What the text in force says; None where there is none.
    ///
    /// # Errors
    /// Where there should be one. A document that is lost does not leave the others in force: a
    /// provider without issuer would serve the tokens of all the issuers that are gone.
    pub(crate) fn read(&self) -> Result<Option<T>, Rejection> {
        if self.lost.get() {
            return Err(self.lost());
        }
        let outcome = self.text.with(|value| match value {
            b"" => self.refused.borrow().as_ref().map_or(Ok(None), |refused| Err(refused.clone())),
            _ => match self.parsed.borrow_mut().take_if(|parsed| *parsed.text == *value) {
                Some(parsed) => Ok(Some(parsed.says)),
                None => self.parse(value).map(Some),
            },
        });
        outcome.map_err(|rejection| {
            let detail = rejection.detail().unwrap_or_default();
            let detail = format!("In {}: {detail}", self.name.to_string_lossy());
            rejection.with_detail(detail)
        })
    }

    fn parse(&self, value: &[u8]) -> Result<T, Rejection> {
        let text = std::str::from_utf8(value)
            .map_err(|_| Rejection::new(Code::Configuration, "it is not valid UTF-8"))?;
        (self.parse)(text)
    }

    fn lost(&self) -> Rejection {
        Rejection::new(Code::Configuration, "a setting with keys was lost")
            .with_detail(format!(
                "{} had a value before the library was loaded, which this session may not set.",
                self.name.to_string_lossy()
            ))
            .with_hint(
                "Connect without naming the setting in the startup options. With the library in \
                 shared_preload_libraries, Postgres refuses such connections.",
            )
    }

    fn define(&'static self, description: &'static CStr, hooks: guc::DocumentHooks) {
        self.text.define_document(self.name, description, hooks);
        // A value that was refused for what it is can be mended; one that was not even looked at,
        // for the client put its own in its place, cannot be had back.
        let refused = self.refused.borrow().is_some();
        self.lost.set(self.text.is_lost() && !refused);
    }

    /// The check hook. Whom to trust is decided outside of sessions; not even a superuser's
    /// session, which might be running somebody else's code, changes it for itself.
    pub(crate) fn check(&self, value: &[u8], source: Source) -> Result<(), Rejection> {
        if source == Source::Session {
            return Err(Rejection::new(Code::Configuration, "it cannot be set within a session")
                .with_detail("Who may be trusted is not for a session to decide.")
                .with_hint(
                    "Set it in postgresql.conf, by ALTER SYSTEM, ALTER DATABASE or ALTER ROLE, or \
                     in the startup packet.",
                ));
        }
        let outcome = match value {
            b"" => Ok(None),
            _ => self.parse(value).map(Some),
        };
        if is_loading() {
            self.refused.replace(outcome.as_ref().err().cloned());
        }
        let parsed = outcome?;
        if source != Source::Test {
            self.parsed.replace(parsed.map(|says| Parsed { text: value.into(), says }));
        } else if parsed.as_ref().is_some_and(self.has_secret) {
            error::warn(
                "every role can read the secret in this setting",
                "What is stored for a database or a role stands in pg_db_role_setting, which all \
                 may read. Put it into postgresql.conf, and pg_session_jwt into \
                 shared_preload_libraries.",
            );
        }
        Ok(())
    }

    /// The assign hook. What a session has lost at its start stays lost: a reload would bring what
    /// the server has, not what the database or the role has. A parallel worker that had a value,
    /// and gets none from its leader, has lost it as the leader has.
    pub(crate) fn assign(&self, to_null: bool) {
        if pg::restoring_worker() {
            self.lost.set(to_null && (self.lost.get() || !self.text.is_null()));
        }
        self.refused.take();
        crate::documents_changed();
    }
}
