//! Lines in the server log about tokens. They never contain a token.
//!
//! A line consists of pairs `key=value`. Each value is one word, or is between double quotes in printable ASCII
//! with escapes, so that no value can look like another pair or another line.

use std::cell::RefCell;
use std::fmt::Write;

use session_jwt::{Claims, Rejection, Repeated, Repetitions, TokenNames, quoted};

use crate::pg::backend::{self, BackendLocal};
use crate::pg::error;
use crate::pg::redact::AUDIT_PREFIX;
use crate::pg::role;
use crate::settings::AUDIT_LOG;

/// Logs that a token was presented and accepted.
pub(crate) fn log_accepted(claims: &Claims) {
    if !is_on() {
        return;
    }
    log_repetitions();
    let mut line = Line::new("accepted");
    line.add("provider", Some(claims.provider()));
    line.add("sub", claims.subject());
    line.add("iss", claims.issuer());
    line.add_audience(claims.audience());
    line.add("kid", claims.kid());
    line.add("jti", claims.jti());
    line.add("role", claims.database_role());
    line.add_client();
    line.log();
}

/// The rejections of the session: the lines without the detail, which may contain times.
static REPETITIONS: BackendLocal<RefCell<Repetitions>> =
    BackendLocal::new(RefCell::new(Repetitions::new()));

/// Logs that a token was presented and rejected. The names in the line are those of the token, and not
/// verified. Where the session repeats the same rejection, the repetitions are counted, and logged with the next
/// event, after a minute, or at the end of the session.
pub(crate) fn log_rejected(rejection: &Rejection, token: &[u8]) {
    if !is_on() {
        return;
    }
    let names = std::str::from_utf8(token).map(TokenNames::read).unwrap_or_default();
    let mut line = Line::new("rejected");
    line.add_word("code", rejection.code().sqlstate());
    line.add("reason", Some(rejection.message()));
    line.add("provider", rejection.provider());
    line.add("sub", names.subject.as_deref());
    line.add("iss", names.issuer.as_deref());
    line.add_audience(&names.audience);
    line.add("kid", names.kid.as_deref());
    line.add("jti", names.jti.as_deref());
    line.add_client();
    let now = backend::to_unix(backend::now());
    let Some(before) = REPETITIONS.borrow_mut().count(&line.0, now) else {
        return;
    };
    log_repeated(before);
    line.add("detail", rejection.detail());
    line.log();
}

/// Logs how often the last rejection was repeated, if it was. Another one like it is logged again.
pub(crate) fn log_repetitions() {
    let ended = REPETITIONS.borrow_mut().end();
    log_repeated(ended);
}

fn log_repeated(repeated: Option<Repeated>) {
    if let Some((line, count)) = repeated {
        let mut line = Line(line);
        line.add_word("repetitions", &count.to_string());
        line.log();
    }
}

/// Logs that the client has cleared the token.
pub(crate) fn log_cleared() {
    if is_on() {
        log_repetitions();
        let mut line = Line::new("cleared");
        line.add_client();
        line.log();
    }
}

/// Logs that a revocation is inserted, changed or deleted, in a transaction that may still be rolled back.
pub(crate) fn log_revocation(
    outcome: &str,
    id: Option<i64>,
    revocation: &[(&str, Option<String>)],
) {
    if !is_on() {
        return;
    }
    log_repetitions();
    let mut line = Line::new(outcome);
    if let Some(id) = id {
        line.add_word("id", &id.to_string());
    }
    for (name, value) in revocation {
        line.add(name, value.as_deref());
    }
    line.add("by", role::display_name(role::session_user()).as_deref());
    line.add_client();
    line.log();
}

/// Logs that every role could read a symmetric key before the library was loaded.
pub(crate) fn log_readable_secret() {
    error::log(
        "pg_session_jwt: every role can read the settings of a session that loads the library late, \
         and they contain a symmetric key; add pg_session_jwt to shared_preload_libraries",
    );
}

/// Whether lines are written. A lost value counts as on: a client without the privilege to set the GUC must not
/// turn the log off by naming it in the startup options.
fn is_on() -> bool {
    AUDIT_LOG.get() || AUDIT_LOG.is_lost()
}

/// A line of the log.
struct Line(String);

impl Line {
    fn new(outcome: &str) -> Self {
        Self(format!("{AUDIT_PREFIX}{outcome}"))
    }

    /// Adds a value that is one word.
    fn add_word(&mut self, key: &str, word: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, " {key}={word}");
    }

    /// Adds a value of any characters, if there is one.
    fn add(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add_word(key, &quoted(value));
        }
    }

    fn add_audience(&mut self, audience: &[String]) {
        if !audience.is_empty() {
            self.add("aud", Some(&audience.join(" ")));
        }
    }

    fn add_client(&mut self) {
        self.add("client", backend::client_address().as_deref());
    }

    fn log(&self) {
        error::log(&self.0);
    }
}
