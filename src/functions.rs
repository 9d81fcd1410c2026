//! The SQL functions. `sql/` declares them; each is one line here.

use session_jwt::{Provider, Rejection, json_string};

use crate::pg::datum::Varlena;
use crate::pg::function::{self, Arguments, Outcome, SettingChange, sql_function};
use crate::pg::table::Change;
use crate::pg::{error, secrets};
use crate::session::{self, Value};
use crate::{keyring, refresh, settings};

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

// `auth.claim(path text)`
sql_function!(
    pg_session_jwt_claim,
    pg_finfo_pg_session_jwt_claim,
    read_of,
    session::owner,
    session::claim
);

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
    check_provider
);

/// `auth.init()`
fn init(_: &Arguments) -> Outcome {
    for provider in keyring::configured()?.providers() {
        for key in provider.keys().unusable() {
            error::warn(
                &format!(
                    "key {} of provider {} is not used: {}",
                    key.index + 1,
                    session_jwt::quoted(provider.name()),
                    key.reason
                ),
                "The other keys of the set are.",
            );
        }
    }
    Ok(Some(function::VOID))
}

/// `auth.jwt_session_init(jwt text, is_local boolean)`
fn session_init(arguments: &Arguments) -> SettingChange<'_> {
    SettingChange {
        name: settings::JWT_NAME,
        value: arguments.text(0).unwrap_or_default(),
        is_local: arguments.boolean(1),
    }
}

/// `auth.jwt_verify(jwt text)`
fn verify(arguments: &Arguments) -> Outcome {
    let token = arguments.text(0).unwrap_or_default();
    Ok(Some(function::copied(&session::claims_of(token)?)))
}

/// `auth.refresh_provider(name text)`
fn refresh_provider(arguments: &Arguments) -> Outcome {
    let changes = refresh::order(&arguments.utf8(0)?)?;
    Ok(Some(function::copied(&jsonb(&changes)?)))
}

/// `auth.provider_keys(provider auth.providers)`
fn provider_keys(arguments: &Arguments) -> Outcome {
    let Some(document) = arguments.document(0) else {
        return Ok(None);
    };
    let keys = match Provider::from_row(&document) {
        Ok(provider) => {
            let keys = provider.keys().usable().map(|(kid, algorithms)| {
                let kid = kid.map_or_else(|| "null".to_owned(), json_string);
                let algorithms: Vec<String> =
                    algorithms.iter().map(|algorithm| json_string(algorithm.name())).collect();
                let algorithms = algorithms.join(", ");
                format!("{{\"kid\": {kid}, \"algorithms\": [{algorithms}]}}")
            });
            keys.collect::<Vec<_>>().join(", ")
        }
        // Nothing that the trigger has let in.
        Err(_) => String::new(),
    };
    Ok(Some(function::copied(&jsonb(&format!("[{keys}]"))?)))
}

/// `auth.check_provider()`, the trigger of `auth.providers`
fn check_provider(change: &Change) -> Result<(), Rejection> {
    secrets::conceal_statement();
    if let Some(document) = &change.new {
        let provider = Provider::from_row(document)?;
        let is_wanting = provider.remote().is_some() && provider.keys().is_empty();
        if is_wanting && change.old != change.new {
            refresh::at_commit(provider.name());
        }
    }
    Ok(())
}

fn jsonb(json: &str) -> Result<Varlena, Rejection> {
    Varlena::jsonb(json).map_err(|_| session::unrepresentable())
}
