//! What `auth.inspect()` tells about a token. The core runs the checks that need no database. An inspection
//! reads providers, roles and the last `jti`, and changes nothing: it makes no identity, and asks for no keys.

use session_jwt::{Check, Inspected, Inspection, Outcome, quoted};

use super::admission::{self, now};
use super::identity::unrepresentable;
use crate::pg::datum::Varlena;
use crate::pg::function::Row;
use crate::pg::{redact, role};
use crate::providers;
use crate::revocations;
use crate::roles::token_role;

/// The rows of `auth.inspect()`. `text` may lack what is beyond the limit; `length` is that of the whole text,
/// and None for NULL.
pub(crate) fn inspect(text: &[u8], length: Option<usize>) -> Vec<Row> {
    redact::redact_statement();
    let text = String::from_utf8_lossy(text);
    let length = length.unwrap_or_default();
    let mut report = session_jwt::inspect(&text, length, now(), providers::candidates);
    if length == 0 {
        report.row(Check::Form).add_hint([
            "NULL and an empty text are no token: they clear the identity of the session. Check the variable \
             of the application."
                .to_owned(),
        ]);
    }
    check_role(&mut report);
    check_representability(&mut report);
    check_revocation(&mut report);
    check_sequence(&mut report);
    report.rows.into_iter().map(row).collect()
}

/// check, outcome, found, expected, hint
fn row(inspected: Inspected) -> Row {
    let Inspected { check, outcome, found, expected, hint } = inspected;
    vec![
        Some(check.name().to_owned()),
        Some(outcome.name().to_owned()),
        found,
        Some(expected),
        hint,
    ]
}

/// Checks whether the session user may take the role of the token.
fn check_role(report: &mut Inspection) {
    let Some(name) = report.role.take() else {
        return;
    };
    let login = role::display_name(role::session_user()).unwrap_or_default();
    let row = report.row(Check::Role);
    row.expected = format!("{}, which the login role {} may set", row.expected, quoted(&login));
    if let Err(rejection) = token_role::look_up(&name) {
        row.fail(rejection);
    }
}

/// Checks whether `jsonb` and the database's encoding can represent the claims.
fn check_representability(report: &mut Inspection) {
    if let Some(payload) = report.payload.take()
        && report.row(Check::Representability).outcome == Outcome::Passed
        && Varlena::jsonb(&payload).is_err()
    {
        report.row(Check::Representability).fail(unrepresentable());
    }
}

/// Checks whether a revocation covers the token.
fn check_revocation(report: &mut Inspection) {
    if let Some(claims) = report.claims.take()
        && report.row(Check::Revocation).outcome == Outcome::Passed
        && let Err(rejection) = revocations::check(&claims, now())
    {
        let row = report.row(Check::Revocation);
        row.fail(rejection);
        row.add_hint([
            "To accept the token again, pass the number of the revocation to auth.unrevoke()."
                .to_owned(),
        ]);
    }
}

/// Checks whether the session has seen the `jti`, which stays unrecorded.
fn check_sequence(report: &mut Inspection) {
    if let Some((provider, jti)) = report.sequence.take()
        && report.row(Check::Replay).outcome == Outcome::Passed
        && let Err(rejection) = admission::check_sequence(&provider, jti)
    {
        report.row(Check::Replay).fail(rejection);
    }
}
