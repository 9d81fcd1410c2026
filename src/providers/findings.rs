//! What `auth.health()` finds about the library, the documents in settings, and providers. The findings about
//! catalogs are queries in the install script.

use session_jwt::{Code, Provider, Rejection, in_words, json_string, quoted};

use super::lookup::{self, PRECEDENCE, ends};
use super::row::Row;
use super::table::{Rows, Table};
use crate::pg::backend::{self, seconds};
use crate::pg::datum::Varlena;
use crate::pg::role;
use crate::revocations;
use crate::settings::{self, TRUST_REQUEST_CLAIMS};

/// Something that an administrator should change.
struct Finding {
    severity: Severity,
    subject: String,
    /// The same for all subjects.
    finding: &'static str,
    advice: String,
}

/// `error`: a token that should be rejected may be accepted, or tokens that should be accepted are not.
/// `warning`: the same under a condition. `info`: nothing is wrong yet.
#[derive(Clone, Copy)]
enum Severity {
    Error,
    Warning,
    Info,
}

/// Collects findings about one subject.
struct Findings<'f> {
    subject: String,
    list: &'f mut Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, severity: Severity, finding: &'static str, advice: impl Into<String>) {
        let (subject, advice) = (self.subject.clone(), advice.into());
        self.list.push(Finding { severity, subject, finding, advice });
    }
}

/// The findings as a JSON array of objects with the columns of `auth.health()`. `locks` says why locked roles
/// are not locked.
pub(crate) fn findings(locks: Option<Rejection>) -> Result<Varlena, Rejection> {
    let mut list = Vec::new();
    about_library(locks, &mut list);
    let has_settings = about_settings(&mut list);
    let has_rows = about_table(&mut list);
    about_revocations(&mut list);
    if !has_settings && !has_rows && !TRUST_REQUEST_CLAIMS.get() {
        let mut about = Findings { subject: "providers".to_owned(), list: &mut list };
        about.add(
            Severity::Error,
            "no provider is configured: every token is rejected",
            "Call auth.add_provider(), or set pg_session_jwt.providers.",
        );
    }
    // A character that the database's encoding lacks becomes an escape.
    let document = |encode: fn(&str) -> String| {
        let objects = list.iter().map(|finding| finding.to_json(encode));
        Varlena::jsonb(&format!("[{}]", objects.collect::<Vec<_>>().join(", ")))
    };
    document(json_string)
        .or_else(|_| document(|text| json_string(&text.escape_default().to_string())))
        .map_err(|_| Rejection::new(Code::Configuration, "findings cannot be converted to jsonb"))
}

impl Finding {
    fn to_json(&self, encode: fn(&str) -> String) -> String {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        };
        format!(
            "{{\"severity\": {}, \"subject\": {}, \"finding\": {}, \"advice\": {}}}",
            encode(severity),
            encode(&self.subject),
            encode(self.finding),
            encode(&self.advice)
        )
    }
}

fn about_library(locks: Option<Rejection>, list: &mut Vec<Finding>) {
    let mut about = Findings { subject: "library".to_owned(), list };
    if settings::loaded_late() {
        about.add(
            Severity::Warning,
            "the library is not preloaded",
            "Until a session calls a function of the extension, its token is not checked, and every role can read \
             the settings. Add pg_session_jwt to shared_preload_libraries, and restart the server.",
        );
    }
    if let Some(rejection) = locks {
        about.subject = "setting pg_session_jwt.locked_roles".to_owned();
        about.add(
            Severity::Error,
            "locked roles are not locked: every token is rejected",
            cure(&rejection),
        );
    }
}

/// Whether the settings have a provider, or cannot be read.
fn about_settings(list: &mut Vec<Finding>) -> bool {
    match lookup::from_settings() {
        Err(rejection) => {
            let subject = "settings pg_session_jwt.jwk and pg_session_jwt.providers".to_owned();
            Findings { subject, list }.add(
                Severity::Error,
                "the documents cannot be read: every token is rejected",
                cure(&rejection),
            );
            true
        }
        Ok(verifier) => {
            for provider in verifier.providers() {
                let subject = format!("provider {} in the settings", quoted(provider.name()));
                about_provider(provider, &mut Findings { subject, list: &mut *list });
            }
            !verifier.providers().is_empty()
        }
    }
}

/// Whether the table has a row, or cannot be read.
fn about_table(list: &mut Vec<Finding>) -> bool {
    let Some(table) = Table::find() else {
        return false;
    };
    let mut rows = Vec::new();
    let read = table.read(Rows::All, |row| {
        rows.push(row);
        true
    });
    if let Err(rejection) = read {
        Findings { subject: "table auth.providers".to_owned(), list }.add(
            Severity::Error,
            "the table was altered: tokens of its providers are rejected",
            cure(&rejection),
        );
        return true;
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    for row in &rows {
        let subject = format!("provider {}", quoted(&row.name));
        let mut about = Findings { subject, list: &mut *list };
        match Provider::from_row(&row.document) {
            Err(rejection) => about.add(
                Severity::Error,
                "the provider cannot be read: its tokens are rejected",
                cure(&rejection),
            ),
            Ok(provider) => {
                about_provider(&provider, &mut about);
                if lookup::is_in_settings(&provider) {
                    about.add(
                        Severity::Warning,
                        "its issuer is served twice",
                        format!("The row is not used. {PRECEDENCE} Remove one of the two."),
                    );
                }
                about_fetching(row, &provider, &mut about);
            }
        }
    }
    !rows.is_empty()
}

fn about_revocations(list: &mut Vec<Finding>) {
    let mut about = Findings { subject: "table auth.revocations".to_owned(), list };
    match revocations::has_expired_rows() {
        Ok(false) => {}
        Ok(true) => about.add(
            Severity::Info,
            "revocations have expired",
            "Run SELECT auth.prune_revocations() now and then: sessions look tokens up in fewer rows.",
        ),
        Err(rejection) => about.add(
            Severity::Error,
            "the table was altered: every token is rejected",
            cure(&rejection),
        ),
    }
}

fn about_provider(provider: &Provider, about: &mut Findings<'_>) {
    if provider.accepts_every_audience() {
        about.add(
            Severity::Warning,
            "tokens for every audience are accepted",
            "Set audience to the audience of your API.",
        );
    }
    if let Some(claim) = provider.optional_user_claim() {
        about.add(
            Severity::Warning,
            "tokens without a user id are accepted",
            format!("Add {} to required_claims.", quoted(claim)),
        );
    }
    for name in provider.roles().filter(|name| role::find(name).is_none()) {
        about.add(
            Severity::Warning,
            "a role that its tokens may name does not exist",
            format!("Create the role {}, and grant it to the login role.", quoted(name)),
        );
    }
    for (kid, reason) in provider.keys().weak_secrets() {
        let key =
            kid.map_or_else(|| "The secret".to_owned(), |kid| format!("The key {}", quoted(kid)));
        about.add(
            Severity::Error,
            "a secret can be guessed",
            format!(
                "{key}: {reason} A holder of one token can try secrets, and then sign tokens. Use 32 random bytes, \
                 such as those of openssl rand -hex 32."
            ),
        );
    }
    for key in provider.keys().unusable() {
        about.add(
            Severity::Info,
            "a key is not used",
            format!("Correct or remove key {}: {}", key.index + 1, key.reason),
        );
    }
}

fn about_fetching(row: &Row, provider: &Provider, about: &mut Findings<'_>) {
    let Some(remote) = provider.remote() else {
        return;
    };
    let (fetching, now) = (&row.fetching, backend::now());
    let reason = match &fetching.last_error {
        Some(error) => format!("The last error: {error}"),
        None => "auth.provider_status shows the last error.".to_owned(),
    };
    let has_keys = provider.keys().public().next().is_some();
    let left = ends(row, provider).saturating_sub(now);
    if !has_keys && fetching.failures > 0 {
        about.add(Severity::Error, "its keys cannot be fetched: its tokens are rejected", reason);
    } else if !has_keys {
        about.add(
            Severity::Warning,
            "its keys were never fetched",
            format!("Run: SELECT auth.refresh_provider({});", literal(provider.name())),
        );
    } else if left <= 0 {
        about.add(Severity::Error, "its keys are too old: its tokens are rejected", reason);
    } else if left < seconds(remote.keep_keys()) / 4 {
        let left = in_words(left / seconds(1));
        about.add(
            Severity::Warning,
            "its keys expire soon",
            format!("They were not fetched for long, and count for {left} more. {reason}"),
        );
    } else if fetching.failures > 0 {
        about.add(Severity::Warning, "its keys cannot be fetched", reason);
    }
    if fetching.has_passed_over {
        about.add(
            Severity::Info,
            "fetched keys are not used",
            "passed_over in auth.provider_status has the reasons.",
        );
    }
    if remote.source().url().starts_with("http:") {
        about.add(
            Severity::Info,
            "its keys are fetched over http",
            "An attacker on the way can replace them. Use https unless the server is on the same machine.",
        );
    }
}

/// What to do about a rejection, as sentences.
fn cure(rejection: &Rejection) -> String {
    let mut text = rejection.message().to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text.push('.');
    for sentence in [rejection.detail(), rejection.hint()].into_iter().flatten() {
        text.push(' ');
        text.push_str(sentence);
    }
    text
}

/// An SQL literal. A name has no control character.
fn literal(name: &str) -> String {
    let quoted = name.replace('\'', "''");
    if name.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}
