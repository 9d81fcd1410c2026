//! The SQL functions. `sql/` declares them; each is one line here.

use session_jwt::{Action, Code, MAX_TOKEN_BYTES, Rejection, permission_claims};

use crate::pg::datum::Varlena;
use crate::pg::definition;
use crate::pg::function::{self, Arguments, Limit, Outcome, SettingChange, sql_function};
use crate::pg::relation;
use crate::session::{self, Reading, Value};
use crate::{providers, settings};

/// A token.
const TOKEN: Limit =
    Limit { bytes: MAX_TOKEN_BYTES, code: Code::Malformed, message: "token is too long" };

/// A claim's name or path: no name in a token is as long, escaped as it may be.
const PATH: Limit = Limit::new(2 * MAX_TOKEN_BYTES, "name of a claim is too long");

/// The name of a provider, a schema or a table, which all have less than 100 bytes in UTF-8.
const NAME: Limit = Limit::new(1024, "name is too long");

/// The name of an action or of a scope.
const WORD: Limit = Limit::new(1024, "word is too long");

/// Permissions: more than fit a token.
const PERMISSIONS: Limit = Limit::new(4 * MAX_TOKEN_BYTES, "permissions are too long");

macro_rules! reader {
    ($symbol:ident, $finfo:ident, $value:expr) => {
        sql_function!($symbol, $finfo, read, || session::ready($value), || {
            session::resolved($value)
        });
    };
}

reader!(pg_session_jwt_user_id, pg_finfo_pg_session_jwt_user_id, Value::UserId);
reader!(pg_session_jwt_uid, pg_finfo_pg_session_jwt_uid, Value::Uid);
reader!(pg_session_jwt_session, pg_finfo_pg_session_jwt_session, Value::Claims);
reader!(pg_session_jwt_role, pg_finfo_pg_session_jwt_role, Value::Role);
reader!(pg_session_jwt_email, pg_finfo_pg_session_jwt_email, Value::Email);
reader!(pg_session_jwt_organization, pg_finfo_pg_session_jwt_organization, Value::Organization);
reader!(
    pg_session_jwt_organization_id,
    pg_finfo_pg_session_jwt_organization_id,
    Value::OrganizationId
);

macro_rules! reader_of {
    ($symbol:ident, $finfo:ident, $reading:expr) => {
        sql_function!($symbol, $finfo, read_of, &PATH, session::owner, |argument| {
            session::read($reading, argument)
        });
    };
}

reader_of!(pg_session_jwt_claim, pg_finfo_pg_session_jwt_claim, Reading::Claim);
reader_of!(pg_session_jwt_claim_jsonb, pg_finfo_pg_session_jwt_claim_jsonb, Reading::ClaimJsonb);
reader_of!(
    pg_session_jwt_session_variable,
    pg_finfo_pg_session_jwt_session_variable,
    Reading::SessionVariable
);

// `auth.allows(action text, "table" regclass)`
sql_function!(
    pg_session_jwt_allows,
    pg_finfo_pg_session_jwt_allows,
    read_permit,
    &WORD,
    session::owner_and_names,
    session::allows
);

sql_function!(pg_session_jwt_demand, pg_finfo_pg_session_jwt_demand, call, demand);
sql_function!(
    pg_session_jwt_check_ddl_start,
    pg_finfo_pg_session_jwt_check_ddl_start,
    call_event_trigger,
    check_ddl_start
);
sql_function!(pg_session_jwt_is_new, pg_finfo_pg_session_jwt_is_new, call, is_new);
sql_function!(pg_session_jwt_template, pg_finfo_pg_session_jwt_template, call, template);

sql_function!(pg_session_jwt_init, pg_finfo_pg_session_jwt_init, call, init);
sql_function!(pg_session_jwt_verify, pg_finfo_pg_session_jwt_verify, call, verify);
sql_function!(
    pg_session_jwt_session_init,
    pg_finfo_pg_session_jwt_session_init,
    call_setting,
    session_init
);

sql_function!(
    pg_session_jwt_refresh_provider,
    pg_finfo_pg_session_jwt_refresh_provider,
    call,
    refresh_provider
);
sql_function!(
    pg_session_jwt_provider_keys,
    pg_finfo_pg_session_jwt_provider_keys,
    call,
    provider_keys
);
sql_function!(
    pg_session_jwt_check_provider,
    pg_finfo_pg_session_jwt_check_provider,
    call_trigger,
    providers::check_row
);

/// `auth.init()`
fn init(_: &Arguments) -> Outcome {
    settings::check_locks()?;
    providers::warn_of_unusable_keys()?;
    Ok(Some(function::VOID))
}

/// `auth.jwt_session_init(jwt text, is_local boolean)`
fn session_init(arguments: &Arguments) -> SettingChange<'_> {
    SettingChange {
        name: settings::JWT_NAME,
        // The check hook refuses what is too long, and takes away the identity from before.
        value: arguments.prefix(0, &TOKEN).unwrap_or_default(),
        is_local: arguments.boolean(1),
    }
}

/// `auth.jwt_verify(jwt text)`
fn verify(arguments: &Arguments) -> Outcome {
    let token = arguments.text(0, &TOKEN)?.unwrap_or_default();
    Ok(Some(function::copied(&session::claims_of(token)?)))
}

/// `auth.refresh_provider(name text)`
fn refresh_provider(arguments: &Arguments) -> Outcome {
    let name = arguments.utf8(0, &NAME)?.unwrap_or_default();
    Ok(Some(function::copied(&providers::refresh_provider(&name)?)))
}

/// `auth.provider_keys(name text)`
fn provider_keys(arguments: &Arguments) -> Outcome {
    let name = arguments.utf8(0, &NAME)?.unwrap_or_default();
    Ok(providers::provider_keys(&name)?.as_ref().map(function::copied))
}

/// `auth.demand(action text, "schema" text, "table" text)`
fn demand(arguments: &Arguments) -> Outcome {
    let action = Action::expect(&arguments.utf8(0, &WORD)?.unwrap_or_default())?;
    let (schema, name) = (arguments.utf8(1, &NAME)?, arguments.utf8(2, &NAME)?);
    let schema = schema.unwrap_or_default();
    session::demand(action, name.as_deref().map(|name| (schema.as_str(), name)))?;
    Ok(Some(function::VOID))
}

/// `auth.is_new(class oid, object oid)`
fn is_new(arguments: &Arguments) -> Outcome {
    let place = arguments.oid(0).zip(arguments.oid(1));
    Ok(Some(place.is_some_and(|(class, object)| definition::is_new(class, object)).into()))
}

/// `auth.check_ddl_start()`, the event trigger for `ddl_command_start`
fn check_ddl_start(needed: Action) -> Result<(), Rejection> {
    if relation::is_superuser() { Ok(()) } else { session::demand(needed, None) }
}

/// `auth.jwt_template(scope text, permissions text[])`
fn template(arguments: &Arguments) -> Outcome {
    let scope = arguments.utf8(0, &WORD)?;
    let permissions = arguments.texts(1, &PERMISSIONS)?;
    let permissions: Vec<&str> = permissions.iter().map(String::as_str).collect();
    let claims = Varlena::jsonb(&permission_claims(scope.as_deref(), &permissions)?);
    Ok(Some(function::copied(&claims.map_err(|_| session::unrepresentable())?)))
}
