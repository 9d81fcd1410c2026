//! Lines in the server log about tokens. They never contain a token.

use std::fmt::Write;

use session_jwt::{Claims, Rejection, quoted};

use crate::pg::error;
use crate::settings::AUDIT_LOG;

/// Logs that a token was presented and accepted.
pub(crate) fn log_accepted(claims: &Claims) {
    write(|line| {
        line.push_str("token accepted: provider=");
        line.push_str(&quoted(claims.provider()));
        let audience = claims.audience().join(" ");
        for (name, value) in [
            ("sub", claims.subject()),
            ("iss", claims.issuer()),
            ("aud", (!audience.is_empty()).then_some(audience.as_str())),
            ("jti", claims.jti()),
            ("kid", claims.kid()),
            ("role", claims.database_role()),
        ] {
            if let Some(value) = value {
                // Writing to a String cannot fail.
                let _ = write!(line, " {name}={}", quoted(value));
            }
        }
    });
}

/// Logs that a token was presented and rejected.
pub(crate) fn log_rejected(rejection: &Rejection) {
    write(|line| {
        let _ = write!(
            line,
            "token refused: code={} reason={} detail={}",
            rejection.code().sqlstate(),
            quoted(rejection.message()),
            quoted(rejection.detail().unwrap_or_default())
        );
    });
}

/// Logs that the client has cleared the token.
pub(crate) fn log_cleared() {
    write(|line| line.push_str("token cleared"));
}

/// Logs that every role could read a symmetric key before the library was loaded.
pub(crate) fn log_readable_secret() {
    error::log(
        "pg_session_jwt: every role can read the settings of a session that loads the library late, \
         and they contain a symmetric key; add pg_session_jwt to shared_preload_libraries",
    );
}

fn write(compose: impl FnOnce(&mut String)) {
    // A lost value counts as on: a client without the privilege to set the GUC must not turn the log off by
    // naming it in the startup options.
    if AUDIT_LOG.get() || AUDIT_LOG.is_lost() {
        let mut line = "pg_session_jwt: ".to_owned();
        compose(&mut line);
        error::log(&line);
    }
}
