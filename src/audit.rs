//! Lines for the server's log, never with a token in them.

use std::fmt::Write;

use session_jwt::{Claims, Rejection, quoted};

use crate::pg::error;
use crate::settings::AUDIT_LOG;

/// A token was presented and accepted.
pub(crate) fn accepted(claims: &Claims) {
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

/// A token was presented and refused.
pub(crate) fn refused(rejection: &Rejection) {
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

/// The client gave the identity up.
pub(crate) fn cleared() {
    write(|line| line.push_str("token cleared"));
}

/// A symmetric key can be read by whoever connects before the library hides it.
pub(crate) fn warn_of_readable_secret() {
    error::log(
        "pg_session_jwt: a symmetric key is configured, but the library was loaded only after the \
         session had begun: until then every role can read the settings; add pg_session_jwt to \
         shared_preload_libraries",
    );
}

fn write(compose: impl FnOnce(&mut String)) {
    // A client that names the setting at its start, and may not, does not get out of the log.
    if AUDIT_LOG.get() || AUDIT_LOG.is_lost() {
        let mut line = "pg_session_jwt: ".to_owned();
        compose(&mut line);
        error::log(&line);
    }
}
