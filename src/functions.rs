//! The SQL functions. `sql/` declares them; each is one line here.

use crate::pg::error;
use crate::pg::function::{self, Arguments, Outcome, SettingChange, sql_function};
use crate::session::{self, Value};
use crate::{keyring, settings};

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

/// `auth.init()`
fn init(_: &Arguments) -> Outcome {
    let (verifier, _) = keyring::verifier()?;
    if verifier.providers().is_empty() {
        return Err(keyring::no_key());
    }
    for provider in verifier.providers() {
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
