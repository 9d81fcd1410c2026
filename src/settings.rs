//! The GUCs: their variables, who may set them, and the documents in them.
//!
//! Where the library is not preloaded, a client without privileges can make Postgres fall back to the boot
//! value of a GUC, by naming it in the startup options. The configured value is then lost. A lost value
//! must not widen trust. So each GUC that decides which tokens are trusted is one self-contained document,
//! whose boot value trusts no token.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::ops::RangeInclusive;

use session_jwt::{Code, HttpHosts, KeySource, Provider, Rejection, Verifier};

use crate::pg::backend::{self, BackendLocal, OnDrop};
use crate::pg::error;
use crate::pg::guc::{
    self, BoolAssignHook, BoolVariable, EnumAssignHook, EnumVariable, IntVariable, Source,
    TextVariable, Unit, Visibility,
};
use crate::pg::guc_record::{InterceptedVariable, PlaceholderVariable, TextHooks};
use crate::pg::token::TokenVariable;

/// A JWK or a JWK set, which makes one provider with the default policy.
pub(crate) static JWK: Document<Provider> = Document::new(
    c"pg_session_jwt.jwk",
    |text| Provider::of_keys(JWK_PROVIDER, text),
    |provider| provider.keys().is_symmetric(),
);

/// The name of the provider that `pg_session_jwt.jwk` makes.
const JWK_PROVIDER: &str = "pg_session_jwt.jwk";

/// Providers, as a JSON object or an array of objects.
pub(crate) static PROVIDERS: Document<Verifier> = Document::new(
    c"pg_session_jwt.providers",
    |text| Verifier::new(Provider::parse_all(text)?),
    Verifier::has_secret,
);

/// The token of the session.
pub(crate) static JWT: TokenVariable = TokenVariable::new();

pub(crate) const JWT_NAME: &CStr = c"pg_session_jwt.jwt";

/// Whether `request.jwt.claims` counts where the session has no token. Every role that can run SQL can
/// forge it, so that the boot value is off.
pub(crate) static TRUST_REQUEST_CLAIMS: BoolVariable = BoolVariable::new(false);

/// Whether to write a log line when a token is accepted, rejected or cleared.
pub(crate) static AUDIT_LOG: BoolVariable = BoolVariable::new(false);

/// The longest lifetime of an identity, as an index into [`SCOPES`]. With `transaction`, an identity ends
/// with the transaction in which its token was presented, so that a connection that clients share carries
/// none from one to the next. A lost value counts as `transaction`.
pub(crate) static IDENTITY_SCOPE: EnumVariable = EnumVariable::new(0);

const SCOPES: [&CStr; 2] = [c"session", c"transaction"];

/// The index of `transaction` in [`SCOPES`].
pub(crate) const TRANSACTION_SCOPE: i32 = 1;

/// The number of verified tokens that a backend caches; 0 turns the cache off.
pub(crate) static TOKEN_CACHE_SIZE: IntVariable = IntVariable::new(128);

const TOKEN_CACHE_SIZES: RangeInclusive<i32> = 0..=65_536;

/// The number of verified signatures that all backends share; 0 turns the shared cache off.
pub(crate) static SHARED_CACHE_SIZE: IntVariable = IntVariable::new(10_000);

const SHARED_CACHE_SIZES: RangeInclusive<i32> = 0..=10_000_000;

/// A file with certificates of authorities. The background worker trusts them, and those of the operating
/// system, when it fetches keys.
pub(crate) static JWKS_CA_FILE: TextVariable = TextVariable::new();

/// The hosts from which keys may be fetched over http: a provider on the same machine, or in a network that
/// others cannot reach. Only configuration files set it.
static JWKS_HTTP_HOSTS: TextVariable = TextVariable::new();

pub(crate) const JWKS_HTTP_HOSTS_NAME: &CStr = c"pg_session_jwt.jwks_http_hosts";

/// How long a session waits for keys, in milliseconds. The fetch itself ends a little earlier.
pub(crate) static JWKS_TIMEOUT: IntVariable = IntVariable::new(5000);

const JWKS_TIMEOUTS: RangeInclusive<i32> = 100..=60_000;

/// The login roles whose sessions change their role by a token only.
pub(crate) static LOCKED_ROLES: TextVariable = TextVariable::new();

pub(crate) const LOCKED_ROLES_NAME: &CStr = c"pg_session_jwt.locked_roles";

/// The GUC `role` of Postgres.
pub(crate) static ROLE: InterceptedVariable = InterceptedVariable::new();

/// The GUC `session_authorization` of Postgres.
pub(crate) static SESSION_AUTHORIZATION: InterceptedVariable = InterceptedVariable::new();

/// The GUC that PostgREST and similar servers set for each request.
pub(crate) static REQUEST_CLAIMS: PlaceholderVariable =
    PlaceholderVariable::new(c"request.jwt.claims");

/// The hooks of the GUCs, which the caller of [`define`] provides.
pub(crate) struct Hooks {
    pub(crate) jwk: TextHooks,
    pub(crate) providers: TextHooks,
    pub(crate) jwks_http_hosts: TextHooks,
    pub(crate) locked_roles: TextHooks,
    pub(crate) trust_request_claims: BoolAssignHook,
    pub(crate) audit_log: BoolAssignHook,
    pub(crate) identity_scope: EnumAssignHook,
    pub(crate) jwt: TextHooks,
    pub(crate) role: TextHooks,
    pub(crate) session_authorization: TextHooks,
    pub(crate) request_claims: TextHooks,
}

/// Defines every GUC. Where a GUC had a value before the library was loaded, Postgres calls the hooks with
/// it here. The check hook of the token lets such a token pass; the token is verified at its first use.
pub(crate) fn define(hooks: &Hooks) {
    IS_PRELOADED.set(backend::is_preloading());
    LOADED_LATE.set(backend::within_statement());
    IS_LOADING.set(true);
    let _loaded = OnDrop(|| IS_LOADING.set(false));
    REQUEST_CLAIMS.prepare(hooks.request_claims);
    ROLE.intercept(c"role", hooks.role);
    SESSION_AUTHORIZATION.intercept(c"session_authorization", hooks.session_authorization);
    JWK.define(c"JWK or JWK set that tokens are verified with.", hooks.jwk);
    PROVIDERS.define(c"Identity providers, as a JSON object or an array of them.", hooks.providers);
    TRUST_REQUEST_CLAIMS.define(
        c"pg_session_jwt.trust_request_claims",
        c"Trusts request.jwt.claims where the session has no token.",
        Visibility::Public,
        hooks.trust_request_claims,
    );
    AUDIT_LOG.define(
        c"pg_session_jwt.audit_log",
        c"Logs when a token is accepted, rejected or cleared.",
        Visibility::Public,
        hooks.audit_log,
    );
    IDENTITY_SCOPE.define(
        c"pg_session_jwt.identity_scope",
        c"The longest lifetime of an identity: the session or the transaction.",
        &SCOPES,
        Visibility::Public,
        hooks.identity_scope,
    );
    TOKEN_CACHE_SIZE.define(
        c"pg_session_jwt.token_cache_size",
        c"Number of verified tokens that a backend caches; 0 turns the cache off.",
        TOKEN_CACHE_SIZES,
        Visibility::Public,
        Unit::None,
    );
    SHARED_CACHE_SIZE.define_for_start(
        c"pg_session_jwt.shared_cache_size",
        c"Number of tokens whose verified signatures all backends share; 0 turns the shared cache off.",
        SHARED_CACHE_SIZES,
    );
    JWKS_CA_FILE.define_in_files(
        c"pg_session_jwt.jwks_ca_file",
        c"File with certificates of further authorities for servers that keys are fetched from.",
        (None, None, None),
    );
    JWKS_HTTP_HOSTS.define_in_files(
        JWKS_HTTP_HOSTS_NAME,
        c"Hosts that keys may be fetched from over http.",
        hooks.jwks_http_hosts,
    );
    LOCKED_ROLES.define_in_files(
        LOCKED_ROLES_NAME,
        c"Login roles whose sessions change their role by a token only.",
        hooks.locked_roles,
    );
    JWKS_TIMEOUT.define(
        c"pg_session_jwt.jwks_timeout",
        c"How long a token waits for keys that are being fetched.",
        JWKS_TIMEOUTS,
        Visibility::Public,
        Unit::Milliseconds,
    );
    JWT.define(JWT_NAME, c"The token of the session. It is never shown.", hooks.jwt);
    guc::reserve_prefix(c"pg_session_jwt");
}

static IS_PRELOADED: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));
static IS_LOADING: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));
static LOADED_LATE: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));

/// Whether the postmaster has loaded the library.
pub(crate) fn is_preloaded() -> bool {
    IS_PRELOADED.get()
}

/// Whether [`define`] is running, so that Postgres checks values from before the library was loaded.
pub(crate) fn is_loading() -> bool {
    IS_LOADING.get()
}

/// Whether the client could run statements before the library was loaded.
pub(crate) fn loaded_late() -> bool {
    LOADED_LATE.get()
}

/// The check hook of `pg_session_jwt.jwks_http_hosts`.
pub(crate) fn check_http_hosts(value: &[u8]) -> Result<(), Rejection> {
    parse_http_hosts(value).map(|_| ())
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
                "Write host names separated by commas. A name without a port stands for all ports: \
                 keycloak:8080, localhost.",
            )
    })
}

/// The hosts from which keys may be fetched over http; none where the value is lost.
pub(crate) fn http_hosts() -> HttpHosts {
    JWKS_HTTP_HOSTS.with(parse_http_hosts).unwrap_or_default()
}

/// Rejects a source of keys over http whose host is not listed.
pub(crate) fn check_scheme(source: &KeySource) -> Result<(), Rejection> {
    source.check_scheme(&http_hosts()).map_err(|rejection| {
        rejection.with_hint(
            "Use an https URL, or add the host to pg_session_jwt.jwks_http_hosts in \
             postgresql.conf.",
        )
    })
}

/// The check hook of `pg_session_jwt.locked_roles`.
pub(crate) fn check_locked_roles(value: &[u8]) -> Result<(), Rejection> {
    match guc::split_names(value) {
        Some(_) => Ok(()),
        None => Err(Rejection::new(Code::Configuration, "it is not a list of names")
            .with_detail("Names are separated by commas, and quoted as in SQL.")),
    }
}

/// A GUC whose value is a document that decides which tokens are trusted, parsed as a `T`.
pub(crate) struct Document<T: 'static> {
    pub(crate) name: &'static CStr,
    text: TextVariable,
    parse: fn(&str) -> Result<T, Rejection>,
    has_secret: fn(&T) -> bool,
    /// The document that the check hook has parsed last. A session inherits the document of the postmaster,
    /// and does not parse the same text again.
    parsed: BackendLocal<RefCell<Option<Parsed<T>>>>,
    /// The rejection of a value that the GUC had before the library was loaded. Postgres reports it as a
    /// warning only, so [`Document::read`] returns it until another value is assigned.
    rejection: BackendLocal<RefCell<Option<Rejection>>>,
    /// Whether the GUC had a value before the library was loaded that the session lost.
    is_lost: BackendLocal<Cell<bool>>,
}

struct Parsed<T> {
    text: Box<[u8]>,
    document: T,
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
            rejection: BackendLocal::new(RefCell::new(None)),
            is_lost: BackendLocal::new(Cell::new(false)),
        }
    }

    /// The document of the value in force; None where there is none.
    ///
    /// # Errors
    /// Where the value is lost or was rejected. The caller must then use no other document either: with
    /// this one missing, a provider without an issuer would accept tokens of the issuers in it.
    pub(crate) fn read(&self) -> Result<Option<T>, Rejection> {
        if self.is_lost.get() {
            return Err(self.lost());
        }
        let outcome = self.text.with(|value| match value {
            b"" => self.rejection.borrow().as_ref().map_or(Ok(None), |error| Err(error.clone())),
            _ => match self.parsed.borrow_mut().take_if(|parsed| *parsed.text == *value) {
                Some(parsed) => Ok(Some(parsed.document)),
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
                "Connect without the setting in the startup options. Where the library is in \
                 shared_preload_libraries, Postgres rejects such connections.",
            )
    }

    fn define(&'static self, description: &'static CStr, hooks: TextHooks) {
        self.text.define(self.name, description, hooks);
        // A value that the check hook rejected does not count as lost: an administrator can correct it. A
        // configured value that the client replaced cannot be restored in this session.
        let was_rejected = self.rejection.borrow().is_some();
        self.is_lost.set(self.text.is_lost() && !was_rejected);
    }

    /// The check hook. It rejects `SET` also for superusers: a superuser's session may run code of another
    /// role.
    pub(crate) fn check(&self, value: &[u8], source: Source) -> Result<(), Rejection> {
        if source == Source::Session {
            return Err(Rejection::new(Code::Configuration, "it cannot be set within a session")
                .with_detail("A session does not decide which tokens are trusted.")
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
            self.rejection.replace(outcome.as_ref().err().cloned());
        }
        let parsed = outcome?;
        if source != Source::Test {
            self.parsed.replace(parsed.map(|document| Parsed { text: value.into(), document }));
        } else if parsed.as_ref().is_some_and(self.has_secret) {
            error::warn(
                "every role can read the secret in this setting",
                "Postgres stores the settings of databases and roles in pg_db_role_setting, which all \
                 roles may read. Set it in postgresql.conf, and add pg_session_jwt to \
                 shared_preload_libraries.",
            );
        }
        Ok(())
    }

    /// The assign hook; `is_null` tells whether the new value is the boot value. A lost value stays lost
    /// when another value is assigned: a reload brings the value of the server, but not that of the
    /// database or the role. Where a parallel worker had a value and gets none from its leader, the leader
    /// has lost it, and so has the worker.
    pub(crate) fn assign(&self, is_null: bool) {
        if backend::is_restoring_worker() {
            self.is_lost.set(is_null && (self.is_lost.get() || !self.text.is_null()));
        }
        self.rejection.take();
    }
}
