//! The columns of `auth.providers`, and a row as it is read from the table.

use session_jwt::{Code, MAX_ROW_BYTES, MAX_TOKEN_BYTES, Rejection};

use crate::pg::backend::Timestamp;
use crate::pg::relation::{
    BOOLOID, INT4OID, JSONBOID, JSONOID, NoJson, Oid, TEXTARRAYOID, TEXTOID, TIMESTAMPTZOID, Tuple,
};

/// A column.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Oid,
    part: Part,
}

/// What a column is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// It belongs to the provider's document.
    Document,
    /// It makes the next fetch conditional: the provider then sends keys only where they have changed.
    Validator,
    /// It records the progress of fetches. The row trigger clears it where the provider has changed, and
    /// has no keys from its present address.
    Progress,
    /// The extension writes it for administrators, and does not read it. Its length is not limited.
    Report,
}

/// The columns, in the order of the install script.
pub(super) const COLUMNS: [Column; 34] = {
    use Part::{Document, Progress, Report, Validator};
    [
        column("name", TEXTOID, Document),
        column("issuer", TEXTOID, Document),
        column("audience", TEXTARRAYOID, Document),
        column("jwks", JSONOID, Document),
        column("secret", TEXTOID, Document),
        column("jwks_url", TEXTOID, Document),
        column("algorithms", TEXTARRAYOID, Document),
        column("leeway", INT4OID, Document),
        column("required_claims", TEXTARRAYOID, Document),
        column("user_id_claim", TEXTOID, Document),
        column("role_claim", TEXTOID, Document),
        column("default_role", TEXTOID, Document),
        column("allowed_roles", TEXTARRAYOID, Document),
        column("allowed_roles_claim", TEXTOID, Document),
        column("claims_namespace", TEXTOID, Document),
        column("monotonic_jti", BOOLOID, Document),
        column("typ", TEXTARRAYOID, Document),
        column("keep_keys", INT4OID, Document),
        column("public_key", TEXTOID, Document),
        column("require", JSONBOID, Document),
        column("max_token_age", INT4OID, Document),
        column("fetched_jwks", JSONOID, Document),
        column("fetched_from", TEXTOID, Document),
        column("keys_url", TEXTOID, Validator),
        column("etag", TEXTOID, Validator),
        column("last_modified", TEXTOID, Validator),
        column("last_fetch", TIMESTAMPTZOID, Progress),
        column("fetch_began", TIMESTAMPTZOID, Progress),
        column("last_demand", TIMESTAMPTZOID, Progress),
        column("next_refresh", TIMESTAMPTZOID, Progress),
        column("last_success", TIMESTAMPTZOID, Progress),
        column("failures", INT4OID, Progress),
        column("last_error", TEXTOID, Progress),
        column("passed_over", TEXTOID, Report),
    ]
};

/// The places, from 1, of the columns that are read one by one. A name that [`COLUMNS`] lacks is an error
/// of the compiler.
pub(super) mod place {
    use super::{COLUMNS, place_in};

    pub(crate) const NAME: usize = place_in(&COLUMNS, "name");
    pub(crate) const ISSUER: usize = place_in(&COLUMNS, "issuer");
    pub(super) const JWKS: usize = place_in(&COLUMNS, "jwks");
    pub(super) const SECRET: usize = place_in(&COLUMNS, "secret");
    pub(super) const JWKS_URL: usize = place_in(&COLUMNS, "jwks_url");
    pub(super) const PUBLIC_KEY: usize = place_in(&COLUMNS, "public_key");
    pub(super) const KEYS_URL: usize = place_in(&COLUMNS, "keys_url");
    pub(super) const ETAG: usize = place_in(&COLUMNS, "etag");
    pub(super) const LAST_MODIFIED: usize = place_in(&COLUMNS, "last_modified");
    pub(super) const LAST_FETCH: usize = place_in(&COLUMNS, "last_fetch");
    pub(super) const FETCH_BEGAN: usize = place_in(&COLUMNS, "fetch_began");
    pub(super) const LAST_DEMAND: usize = place_in(&COLUMNS, "last_demand");
    pub(super) const NEXT_REFRESH: usize = place_in(&COLUMNS, "next_refresh");
    pub(super) const LAST_SUCCESS: usize = place_in(&COLUMNS, "last_success");
    pub(super) const FAILURES: usize = place_in(&COLUMNS, "failures");
    pub(super) const LAST_ERROR: usize = place_in(&COLUMNS, "last_error");
    pub(super) const PASSED_OVER: usize = place_in(&COLUMNS, "passed_over");
}

/// One row.
pub(super) struct Row {
    /// The provider as a JSON object, with its keys. A change of the progress columns does not change it.
    pub(super) document: String,
    pub(super) name: String,
    pub(super) issuer: Option<String>,
    pub(super) fetching: Fetching,
}

/// The recorded progress of fetching a row's keys, and the validators for the next request.
pub(super) struct Fetching {
    pub(super) keys_url: Option<String>,
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    pub(super) last_fetch: Option<Timestamp>,
    /// The start of a fetch whose outcome is not recorded yet.
    pub(super) fetch_began: Option<Timestamp>,
    pub(super) last_demand: Option<Timestamp>,
    pub(super) next_refresh: Option<Timestamp>,
    pub(super) last_success: Option<Timestamp>,
    pub(super) failures: i32,
    pub(super) last_error: Option<String>,
    /// Whether the last fetch has skipped keys.
    pub(super) has_passed_over: bool,
}

impl Row {
    /// Reads a row. None where a value is too long, or UTF-8 cannot represent it; the row trigger rejects
    /// such rows.
    pub(super) fn read(tuple: Tuple<'_>) -> Option<Self> {
        let text = |place| tuple.text(place, MAX_TOKEN_BYTES);
        Some(Self {
            document: document(tuple).ok()?,
            name: name(tuple)?,
            issuer: text(place::ISSUER),
            fetching: Fetching {
                keys_url: text(place::KEYS_URL),
                etag: text(place::ETAG),
                last_modified: text(place::LAST_MODIFIED),
                last_fetch: tuple.timestamptz(place::LAST_FETCH),
                fetch_began: tuple.timestamptz(place::FETCH_BEGAN),
                last_demand: tuple.timestamptz(place::LAST_DEMAND),
                next_refresh: tuple.timestamptz(place::NEXT_REFRESH),
                last_success: tuple.timestamptz(place::LAST_SUCCESS),
                failures: tuple.int4(place::FAILURES).unwrap_or(0),
                last_error: text(place::LAST_ERROR),
                has_passed_over: !tuple.is_null(place::PASSED_OVER),
            },
        })
    }
}

pub(super) fn name(tuple: Tuple<'_>) -> Option<String> {
    tuple.text(place::NAME, MAX_TOKEN_BYTES)
}

/// Whether the row's keys are to be fetched, and no fetch is scheduled. Then no worker has requested them
/// from their present address.
pub(super) fn is_never_fetched(tuple: Tuple<'_>) -> bool {
    let own_keys = [place::JWKS, place::PUBLIC_KEY, place::SECRET];
    let is_fetched =
        !tuple.is_null(place::JWKS_URL) || own_keys.into_iter().all(|place| tuple.is_null(place));
    is_fetched && tuple.is_null(place::NEXT_REFRESH)
}

/// The provider in a row as a JSON object in UTF-8.
///
/// # Errors
/// Where a value is too long, or all values together are; this is decided before a value is detoasted.
/// Where UTF-8 cannot represent the row.
pub(super) fn document(tuple: Tuple<'_>) -> Result<String, Rejection> {
    let mut total = 0;
    for (place, column) in (1..).zip(&COLUMNS) {
        let Some(size) = tuple.size(place) else {
            continue;
        };
        if let Some(limit) = column.limit()
            && size > limit
        {
            return Err(too_long(&format!("column {}", column.name), limit));
        }
        if column.part == Part::Document {
            total += size;
        }
    }
    if total > MAX_ROW_BYTES {
        return Err(too_long("row", MAX_ROW_BYTES));
    }
    let is_of_document =
        |place| (1..).zip(&COLUMNS).any(|(n, column)| n == place && column.part == Part::Document);
    tuple.to_json(is_of_document, MAX_ROW_BYTES).map_err(|reason| match reason {
        // Escapes make JSON longer than the values.
        NoJson::TooLong => too_long("row as JSON", MAX_ROW_BYTES),
        NoJson::Unrepresentable => Rejection::new(Code::Configuration, "provider cannot be read")
            .with_detail(
                "The text of the row cannot be converted from the database's encoding to UTF-8.",
            ),
    })
}

/// The places of the columns that record the progress of fetches.
pub(super) fn progress() -> Vec<usize> {
    let columns = (1..).zip(&COLUMNS).filter(|(_, column)| column.part == Part::Progress);
    columns.map(|(place, _)| place).collect()
}

impl Column {
    /// The limit of a value's length in bytes; None for types of a fixed size, and for reports. A name of a
    /// claim, an issuer or a role that is longer than a token cannot match one in a token.
    fn limit(&self) -> Option<usize> {
        match self.kind {
            _ if self.part == Part::Report => None,
            TEXTOID => Some(MAX_TOKEN_BYTES),
            TEXTARRAYOID | JSONBOID => Some(4 * MAX_TOKEN_BYTES),
            JSONOID => Some(MAX_ROW_BYTES),
            _ => None,
        }
    }
}

const fn column(name: &'static str, kind: Oid, part: Part) -> Column {
    Column { name, kind, part }
}

/// The place of a column in a list, from 1. Where the list lacks the name, the evaluation by the compiler
/// fails.
const fn place_in(columns: &[Column], name: &str) -> usize {
    assert!(!columns.is_empty(), "no column has the name");
    let [first, rest @ ..] = columns else {
        return 0;
    };
    if equal(first.name.as_bytes(), name.as_bytes()) { 1 } else { 1 + place_in(rest, name) }
}

const fn equal(left: &[u8], right: &[u8]) -> bool {
    match (left, right) {
        ([a, left @ ..], [b, right @ ..]) => *a == *b && equal(left, right),
        (left, right) => left.is_empty() && right.is_empty(),
    }
}

fn too_long(part: &str, limit: usize) -> Rejection {
    Rejection::new(Code::Configuration, "provider is too long")
        .with_detail(format!("The limit for the {part} is {limit} bytes."))
}
