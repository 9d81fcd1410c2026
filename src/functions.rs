//! The SQL functions, as the install script in `sql/` declares them.

use session_jwt::{
    Action, Code, Grant, MAX_INSPECTED_BYTES, MAX_TOKEN_BYTES, Rejection, permission_claims,
};

use crate::permissions::{self, commands};
use crate::pg::backend;
use crate::pg::datum::{self, Varlena};
use crate::pg::function::{self, Arguments, GucChange, Limit, Outcome, Row, VOID, sql_function};
use crate::pg::sample;
use crate::pg::sandbox::{self, SandboxedQuery};
use crate::pg::trigger::{RowChange, StoredRow};
use crate::pg::{error, relation, trigger};
use crate::roles::locked;
use crate::session::identity::{Lookup, Reader, readers, unrepresentable};
use crate::session::{self, current, grants, inspection, lifetime, trial};
use crate::statistics::{counters, sessions};
use crate::{providers, revocations, settings};

/// The limit for a token.
const TOKEN: Limit =
    Limit { bytes: MAX_TOKEN_BYTES, code: Code::Malformed, message: "token is too long" };

/// The limit for an audience. A token cannot hold a longer one.
const AUDIENCE: Limit = Limit::new(MAX_TOKEN_BYTES, "audience is too long");

/// The part of a text that an inspection reads.
const INSPECTED: Limit =
    Limit { bytes: MAX_INSPECTED_BYTES, code: Code::Malformed, message: "token is too long" };

/// The limit for a name or a path of a claim. No name in a token is as long, even where each byte is
/// escaped.
const PATH: Limit = Limit::new(2 * MAX_TOKEN_BYTES, "name of a claim is too long");

/// The limit for a name of a provider, a schema or a table. Names in use are much shorter.
const NAME: Limit = Limit::new(1024, "name is too long");

/// The limit for a query and a search path. The conditions of policies are a part of a query.
const QUERY: Limit = Limit::new(16 * 1024 * 1024, "query is too long");

/// The limit for a name of an action or a scope.
const WORD: Limit = Limit::new(1024, "word is too long");

/// The limit for a word in a token, which cannot hold a longer one.
const GRANTED: Limit = Limit::new(MAX_TOKEN_BYTES, "word is too long");

/// The limit for a list of permissions. A token cannot hold as many.
const PERMISSIONS: Limit = Limit::new(4 * MAX_TOKEN_BYTES, "permissions are too long");

macro_rules! export_readers {
    ($($reader:ident $symbol:ident $find:expr;)+) => {
        $(sql_function!(
            $symbol,
            function::read,
            || current::ready(Reader::$reader),
            || session::value(Reader::$reader)
        );)+
    };
}
readers!(export_readers);

macro_rules! export_lookup {
    ($symbol:ident, $lookup:expr) => {
        sql_function!($symbol, function::look_up, &PATH, current::owner, |argument| {
            session::look_up($lookup, argument)
        });
    };
}
export_lookup!(pg_session_jwt_claim, Lookup::Claim);
export_lookup!(pg_session_jwt_claim_jsonb, Lookup::ClaimJsonb);
export_lookup!(pg_session_jwt_session_variable, Lookup::SessionVariable);

sql_function!(
    pg_session_jwt_allows,
    function::permit,
    &WORD,
    permissions::owner_and_names,
    permissions::allows
);
sql_function!(pg_session_jwt_demand, function::call, demand);

macro_rules! export_grant {
    ($symbol:ident, $grant:expr) => {
        sql_function!($symbol, function::ask, &GRANTED, current::owner, |word| {
            grants::has($grant, word)
        });
    };
}
export_grant!(pg_session_jwt_has_scope, Grant::Scope);
export_grant!(pg_session_jwt_has_role, Grant::Role);
export_grant!(pg_session_jwt_in_group, Grant::Group);
export_grant!(pg_session_jwt_has_acr, Grant::Acr);
export_grant!(pg_session_jwt_has_amr, Grant::Amr);
sql_function!(
    pg_session_jwt_signed_in_within,
    function::judge_span,
    current::signed_in_within,
    grants::signed_in_within
);
sql_function!(pg_session_jwt_require_scope, function::call, require_scope);
sql_function!(pg_session_jwt_require_fresh, function::call, require_fresh);

sql_function!(
    pg_session_jwt_check_ddl_start,
    trigger::call_event_trigger,
    commands::check_ddl_start
);
sql_function!(pg_session_jwt_is_new, function::call, is_new);
sql_function!(pg_session_jwt_template, function::call, template);

sql_function!(pg_session_jwt_init, function::call, init);
sql_function!(pg_session_jwt_verify, function::call, verify);
sql_function!(pg_session_jwt_whoami, function::call_row, whoami);
sql_function!(pg_session_jwt_inspect, function::call_rows, inspect);
sql_function!(pg_session_jwt_try_as, sandbox::call_sandboxed, try_as, trial::leave);
sql_function!(pg_session_jwt_session_init, function::call_guc_change, session_init);

sql_function!(pg_session_jwt_texts_in, function::call, texts_in);
sql_function!(pg_session_jwt_refresh_provider, function::call, refresh_provider);
sql_function!(pg_session_jwt_added_provider, function::call_row, added_provider);
sql_function!(pg_session_jwt_provider_keys, function::call, provider_keys);
sql_function!(pg_session_jwt_sample, function::call, sample);
sql_function!(pg_session_jwt_provider_findings, function::call, provider_findings);
sql_function!(pg_session_jwt_check_revocation, trigger::call_row_trigger, check_revocation);
sql_function!(pg_session_jwt_verify_logout, function::call_row, verify_logout);
sql_function!(pg_session_jwt_check_provider, trigger::call_row_trigger, providers::check_row);

sql_function!(pg_session_jwt_stats, function::call_rows, |_| counters::rows());
sql_function!(pg_session_jwt_stats_reset, function::call, stats_reset);
sql_function!(pg_session_jwt_session_list, function::call_rows, |_| sessions::rows());

/// The symbols of Neon's extension of the same name. A database has its functions until `ALTER EXTENSION`
/// updates them.
macro_rules! export_outdated {
    ($($symbol:ident)+) => {
        $(sql_function!($symbol, function::call, |_| Err(outdated()));)+
    };
}
export_outdated!(
    init_wrapper session_wrapper jwt_wrapper user_id_wrapper uid_wrapper organization_wrapper
    organization_id_wrapper
);
sql_function!(jwt_session_init_wrapper, function::call, outdated_session_init);

/// `auth.init()`
fn init(_: &Arguments) -> Outcome {
    locked::check_locks()?;
    providers::warn_of_unusable_keys()?;
    Ok(Some(VOID))
}

/// `auth.jwt_session_init(jwt text)` and `auth.jwt_session_init(jwt text, is_local boolean)`
fn session_init(arguments: &Arguments) -> GucChange<'_> {
    GucChange {
        name: settings::JWT_NAME,
        // The check hook rejects a token that is too long, and then voids the earlier identities. So the
        // function does not reject it.
        value: arguments.prefix(0, &TOKEN).unwrap_or_default(),
        is_local: arguments.boolean(1),
    }
}

/// `auth.jwt_verify(jwt text)`
fn verify(arguments: &Arguments) -> Outcome {
    let token = arguments.text(0, &TOKEN)?.unwrap_or_default();
    Ok(Some(session::verify(token)?.palloced()))
}

/// The trigger of `auth.revocations`
fn check_revocation(change: Option<&RowChange<'_>>) -> Result<StoredRow, Rejection> {
    let stored = revocations::check_row(change)?;
    if let Some(issuer) = change.and_then(revocations::new_issuer)
        && !providers::serves(&issuer)
    {
        error::warn(
            "no provider has the issuer of the revocation",
            "No token is revoked unless its iss is exactly this text. The issuers are in auth.providers and in the \
             setting pg_session_jwt.providers.",
        );
    }
    Ok(stored)
}

/// `auth.verify_logout(token text, audience text)`
fn verify_logout(arguments: &Arguments) -> Result<Row, Rejection> {
    let token = arguments.text(0, &TOKEN)?.unwrap_or_default();
    session::verify_logout(token, arguments.utf8(1, &AUDIENCE)?.as_deref())
}

/// `auth.whoami()`
fn whoami(_: &Arguments) -> Result<Row, Rejection> {
    Ok(session::report::whoami())
}

/// `auth.inspect(token text)`
fn inspect(arguments: &Arguments) -> Result<Vec<Row>, Rejection> {
    let text = arguments.prefix(0, &INSPECTED).unwrap_or_default();
    Ok(inspection::inspect(text, arguments.length(0)))
}

/// `auth.try_as(role oid, claims text, path text, query text, rows anyarray)`
fn try_as(arguments: &Arguments) -> Result<SandboxedQuery, Rejection> {
    let (role, claims) = (arguments.oid(0), arguments.utf8(1, &TOKEN)?);
    let texts = arguments.copied(2, &QUERY)?.zip(arguments.copied(3, &QUERY)?);
    let Some((role, (search_path, query))) = role.zip(texts) else {
        return Err(Rejection::new(
            Code::Configuration,
            "argument of auth.try_as must not be null",
        )
        .with_detail("The function needs a role, a search path and a query."));
    };
    let has_identity = claims.is_some() && session::identity()?.is_some();
    trial::enter(role, claims.as_deref(), has_identity)?;
    Ok(SandboxedQuery { role, search_path, query, parameter: 4, result: datum::TEXT_ARRAY })
}

/// `auth.added_provider(name text)`
fn added_provider(arguments: &Arguments) -> Result<Row, Rejection> {
    let name = arguments.utf8(0, &NAME)?.unwrap_or_default();
    providers::added_provider(&name)
}

/// The input function of `auth.texts`
fn texts_in(arguments: &Arguments) -> Outcome {
    Ok(arguments.c_string(0).map(datum::parse_texts))
}

/// `auth.refresh_provider(name text)`
fn refresh_provider(arguments: &Arguments) -> Outcome {
    let name = arguments.utf8(0, &NAME)?.unwrap_or_default();
    Ok(Some(providers::refresh_provider(&name)?.palloced()))
}

/// `auth.provider_keys(name text)`
fn provider_keys(arguments: &Arguments) -> Outcome {
    let name = arguments.utf8(0, &NAME)?.unwrap_or_default();
    Ok(providers::provider_keys(&name)?.as_ref().map(Varlena::palloced))
}

/// `auth.sample("table" oid, kind anyarray)`
fn sample(arguments: &Arguments) -> Outcome {
    let missing = || {
        Rejection::new(Code::Configuration, "argument of auth.sample must not be null")
            .with_detail("The function needs a table.")
    };
    let table = arguments.oid(0).ok_or_else(missing)?;
    Ok(Some(sample::rows(table, arguments.type_of(1))?))
}

/// `auth.provider_findings()`
fn provider_findings(_: &Arguments) -> Outcome {
    Ok(Some(providers::findings(locked::check_locks().err())?.palloced()))
}

/// `auth.demand(action text, "schema" text, "table" text)`
fn demand(arguments: &Arguments) -> Outcome {
    let action = Action::expect(&arguments.utf8(0, &WORD)?.unwrap_or_default())?;
    let (schema, name) = (arguments.utf8(1, &NAME)?, arguments.utf8(2, &NAME)?);
    let schema = schema.unwrap_or_default();
    permissions::demand(action, name.as_deref().map(|name| (schema.as_str(), name)))?;
    Ok(Some(VOID))
}

/// `auth.require_scope(scope text)`
fn require_scope(arguments: &Arguments) -> Outcome {
    grants::require_scope(arguments.utf8(0, &WORD)?)?;
    Ok(Some(VOID))
}

/// `auth.require_fresh(max_age interval, acr text)`
fn require_fresh(arguments: &Arguments) -> Outcome {
    grants::require_fresh(arguments.span(0), arguments.utf8(1, &WORD)?)?;
    Ok(Some(VOID))
}

/// `auth.is_new(class oid, object oid)`
fn is_new(arguments: &Arguments) -> Outcome {
    let place = arguments.oid(0).zip(arguments.oid(1));
    Ok(Some(place.is_some_and(|(class, object)| relation::is_new(class, object)).into()))
}

/// `auth.jwt_template(scope text, permissions text[])`
fn template(arguments: &Arguments) -> Outcome {
    let scope = arguments.utf8(0, &WORD)?;
    let permissions = arguments.texts(1, &PERMISSIONS)?;
    let permissions: Vec<&str> = permissions.iter().map(String::as_str).collect();
    let claims = Varlena::jsonb(&permission_claims(scope.as_deref(), &permissions)?);
    Ok(Some(claims.map_err(|_| unrepresentable())?.palloced()))
}

/// `auth.stats_reset()`
fn stats_reset(_: &Arguments) -> Outcome {
    counters::reset()?;
    Ok(Some(VOID))
}

/// The error of a function that an update of the extension replaces.
fn outdated() -> Rejection {
    Rejection::new(Code::Prerequisite, "extension in this database is older than its library")
        .with_detail("The function is from a version that this library does not support.")
        .with_hint("Run ALTER EXTENSION pg_session_jwt UPDATE in this database.")
}

/// Neon's `auth.jwt_session_init(jwt text)`. As any rejected token, it ends the earlier identity.
fn outdated_session_init(_: &Arguments) -> Outcome {
    if !backend::in_security_restricted_operation() {
        lifetime::void_identities();
    }
    Err(outdated())
}
