//! The tokens that `auth.revocations` takes back.
//!
//! Rows are looked up when a token is presented, and again when a session reads its identity after the table has
//! changed. Nothing is kept of the rows: the table may have millions. The epoch counts the changes, so that an
//! identity remembers in which epoch no row covered it.

use std::cell::Cell;
use std::ffi::CStr;

use session_jwt::{Claims, Code, MAX_TOKEN_BYTES, Rejection, Revocation};

use crate::audit;
use crate::pg::backend::{self, BackendLocal, Timestamp};
use crate::pg::datum::Varlena;
use crate::pg::relation::{
    INT8OID, Key, KeyValue, Oid, OpenRelation, TEXTOID, TIMESTAMPTZOID, Tuple, Visible,
};
use crate::pg::role;
use crate::pg::table::{self, Found, OwnColumn, Watch};
use crate::pg::trigger::{RowChange, StoredRow};

static WATCH: BackendLocal<Watch> = BackendLocal::new(Watch::new(c"revocations"));

/// The trigger that checks rows and invalidates the table.
const ROW_TRIGGER: &CStr = c"check_revocation";

/// The trigger that rejects TRUNCATE.
const TRUNCATE_TRIGGER: &CStr = c"keep_revocations";

/// The columns, in the order of the install script.
const COLUMNS: [(&str, Oid); 11] = [
    ("id", INT8OID),
    ("issuer", TEXTOID),
    ("subject", TEXTOID),
    ("jti", TEXTOID),
    ("sid", TEXTOID),
    ("before", TIMESTAMPTZOID),
    ("reason", TEXTOID),
    ("expires", TIMESTAMPTZOID),
    ("created", TIMESTAMPTZOID),
    ("created_by", TEXTOID),
    // A hash of the first of jti, sid, subject and issuer that is not null, with that of the issuer as its seed.
    ("key", INT8OID),
];

/// The places of columns, from 1.
mod place {
    pub(super) const ID: usize = 1;
    pub(super) const ISSUER: usize = 2;
    pub(super) const SUBJECT: usize = 3;
    pub(super) const JTI: usize = 4;
    pub(super) const SESSION_ID: usize = 5;
    pub(super) const BEFORE: usize = 6;
    pub(super) const REASON: usize = 7;
    pub(super) const EXPIRES: usize = 8;
    pub(super) const CREATED: usize = 9;
    pub(super) const CREATED_BY: usize = 10;
    pub(super) const KEY: usize = 11;
}

/// The limit for the columns that hold a value of a token, and for the reason, in bytes.
const LONGEST: usize = MAX_TOKEN_BYTES;

/// The number of changes of the rows or the table that this backend has noticed, from 1.
static EPOCH: BackendLocal<Cell<u64>> = BackendLocal::new(Cell::new(1));

/// An epoch in which there were no rows, or no table, because the extension was not installed.
static EPOCH_WITHOUT_ROWS: BackendLocal<Cell<u64>> = BackendLocal::new(Cell::new(0));

/// The number of changes of the table itself that this backend has noticed, from 1.
static TABLE_EPOCH: BackendLocal<Cell<u64>> = BackendLocal::new(Cell::new(1));

/// The table as it was in an epoch of it.
static TABLE: BackendLocal<Cell<Option<(u64, CheckedTable)>>> = BackendLocal::new(Cell::new(None));

/// The relation whose invalidation tells of a change of rows: the TOAST table. That of the table itself would have
/// each session build the table's cache entry anew.
static SIGNAL: BackendLocal<Cell<Oid>> = BackendLocal::new(Cell::new(Oid::INVALID));

/// The table, which is as it was installed.
#[derive(Clone, Copy)]
struct CheckedTable {
    relation: Oid,
    /// An index that finds rows by their key.
    index: Option<Oid>,
}

/// The current epoch.
pub(crate) fn epoch() -> u64 {
    EPOCH.get()
}

/// Notes the invalidation of a relation's cache entry, or of all entries where `relation` is invalid. Returns whether
/// tokens may have been revoked since. It cannot fail.
pub(crate) fn relcache_callback(relation: Oid) -> bool {
    let has_changed = WATCH.note_invalidation(relation);
    if has_changed {
        TABLE_EPOCH.set(TABLE_EPOCH.get() + 1);
    }
    let is_signal = relation != Oid::INVALID && relation == SIGNAL.get();
    if has_changed || is_signal {
        EPOCH.set(EPOCH.get() + 1);
    }
    has_changed || is_signal
}

/// Whether this session has looked for the table since the last invalidation that concerned it.
pub(crate) fn has_read_table() -> bool {
    WATCH.is_active()
}

/// Whether a relation is the table.
pub(crate) fn is_table(relation: Oid) -> bool {
    matches!(WATCH.find(), Found::Table(table) if table.relation == relation)
}

/// Rejects a token that is revoked at `now`, in seconds since 1970.
///
/// # Errors
/// Also where the table is missing or was altered.
pub(crate) fn check(claims: &Claims, now: i64) -> Result<(), Rejection> {
    // The epoch is read first, so that an invalidation during the reads raises it above.
    let epoch = EPOCH.get();
    if EPOCH_WITHOUT_ROWS.get() == epoch {
        return Ok(());
    }
    let table = match TABLE.get() {
        Some((of, table)) if of == TABLE_EPOCH.get() => table,
        _ => match find_table()? {
            Some(table) => table,
            None => {
                EPOCH_WITHOUT_ROWS.set(epoch);
                return Ok(());
            }
        },
    };
    let relation = OpenRelation::open(table.relation).ok_or_else(missing)?;
    match find(&relation, table.index, claims, now) {
        None => Ok(()),
        Some(revocation) => Err(revocation.rejection(claims, now)),
    }
}

/// Whether rows have expired a day ago or longer.
///
/// # Errors
/// Where the table is missing or was altered.
pub(crate) fn has_expired_rows() -> Result<bool, Rejection> {
    const DAY: i64 = 86_400;
    let Some(table) = find_table()? else {
        return Ok(false);
    };
    let relation = OpenRelation::open(table.relation).ok_or_else(missing)?;
    let limit = backend::now() - backend::seconds(DAY);
    let mut has_expired = false;
    relation.scan(None, &[], Visible::Now, |row| {
        has_expired = row.timestamptz(place::EXPIRES).is_some_and(|expires| expires <= limit);
        !has_expired
    });
    Ok(has_expired)
}

/// Finds and checks the table. None where it has no rows, or the extension is not installed.
fn find_table() -> Result<Option<CheckedTable>, Rejection> {
    let epoch = TABLE_EPOCH.get();
    let table = match WATCH.find() {
        Found::NotInstalled => return Ok(None),
        Found::Missing => return Err(missing()),
        Found::Table(table) => table,
    };
    let relation = OpenRelation::open(table.relation).ok_or_else(missing)?;
    check_table(&relation)?;
    // Before rows are read.
    SIGNAL.set(relation.toast_or_self());
    // Most databases have no revocations: the cache entries of the indexes take memory.
    if relation.is_empty() {
        return Ok(None);
    }
    let index = relation.index_on(&[place::KEY, place::BEFORE]);
    let table = CheckedTable { relation: table.relation, index };
    TABLE.set(Some((epoch, table)));
    Ok(Some(table))
}

/// A row that covers the token.
fn find(
    relation: &OpenRelation,
    index: Option<Oid>,
    claims: &Claims,
    now: i64,
) -> Option<Revocation> {
    let issued = claims.issued(now).map_or(Timestamp::MIN, backend::from_unix);
    // No row has a value that the database's encoding cannot represent.
    let hash = |value: &str, seed| Varlena::text(value).ok().map(|text| text.hash(seed));
    let of_issuer = claims.issuer().and_then(|issuer| hash(issuer, 0));
    let mut keys: Vec<i64> = of_issuer.into_iter().collect();
    for value in claims.revocable_values() {
        keys.extend(hash(value, 0));
        keys.extend(of_issuer.and_then(|of_issuer| hash(value, of_issuer)));
    }
    let mut found = None;
    for key in keys {
        let keys = [
            Key { place: place::KEY, value: KeyValue::Int8(key) },
            Key { place: place::BEFORE, value: KeyValue::From(issued) },
        ];
        relation.scan(index, &keys, Visible::ToStatement, |tuple| {
            found = read(tuple).filter(|revocation| revocation.covers(claims, now));
            found.is_none()
        });
        if found.is_some() {
            break;
        }
    }
    found
}

/// Reads a row. None where it names nothing, or a value of it is in no token.
fn read(tuple: Tuple<'_>) -> Option<Revocation> {
    let text = |place| match tuple.is_null(place) {
        true => Some(None),
        false => tuple.text(place, LONGEST).map(Some),
    };
    let (issuer, subject) = (text(place::ISSUER)?, text(place::SUBJECT)?);
    let (jti, session_id) = (text(place::JTI)?, text(place::SESSION_ID)?);
    // Infinity stays the greatest value.
    let before = tuple.timestamptz(place::BEFORE)?.saturating_sub(backend::from_unix(0));
    let id = tuple.int8(place::ID)?;
    Some(Revocation { id, issuer, subject, jti, session_id, before })
}

/// Rejects a table that is not as it was installed.
fn check_table(relation: &OpenRelation) -> Result<(), Rejection> {
    let columns = COLUMNS.iter().map(|(name, kind)| OwnColumn {
        name,
        kind: *kind,
        is_generated: *name == "key",
    });
    if let Some(name) = table::altered_column(relation, columns) {
        let detail = format!(
            "Its column {name} has another place, name or type, or is not generated as it was."
        );
        return Err(altered(&detail).with_hint("Restore the column as CREATE EXTENSION makes it."));
    }
    for trigger in [ROW_TRIGGER, TRUNCATE_TRIGGER] {
        if !relation.has_trigger_enabled_always(trigger) {
            let name = trigger.to_string_lossy();
            return Err(altered(&format!(
                "Its trigger {name} is missing, or is not enabled for all changes."
            ))
            .with_hint(format!("Use ALTER TABLE auth.revocations ENABLE ALWAYS TRIGGER {name}.")));
        }
    }
    if !relation.is_permanent() {
        return Err(altered("It is unlogged: a crash would empty it.")
            .with_hint("Use ALTER TABLE auth.revocations SET LOGGED."));
    }
    Ok(())
}

fn missing() -> Rejection {
    altered("The table is missing.").with_hint(
        "Run ALTER EXTENSION pg_session_jwt UPDATE. If the table was dropped, drop and create the extension.",
    )
}

fn altered(detail: &str) -> Rejection {
    Rejection::new(Code::Configuration, "table of revocations was altered").with_detail(detail)
}

/// Checks a row before it is stored, and invalidates the table.
pub(crate) fn check_row(change: Option<&RowChange<'_>>) -> Result<StoredRow, Rejection> {
    let change = change.filter(|change| is_table(change.relation())).ok_or_else(|| {
        Rejection::new(Code::Configuration, "function cannot be called here")
            .with_detail("It is the BEFORE trigger for the rows of auth.revocations.")
    })?;
    if let Some(new) = change.new_row() {
        check_values(new)?;
        check_origin(change, new)?;
    }
    log_change(change);
    change.signal();
    Ok(change.accept(&[]))
}

/// The issuer of a row that is inserted.
pub(crate) fn new_issuer(change: &RowChange<'_>) -> Option<String> {
    match change.old_row() {
        None => change.new_row()?.text(place::ISSUER, LONGEST),
        Some(_) => None,
    }
}

fn log_change(change: &RowChange<'_>) {
    let (outcome, row) = match (change.old_row(), change.new_row()) {
        (None, Some(new)) => ("revoked", new),
        (Some(_), Some(new)) => ("revocation-changed", new),
        (Some(old), None) => ("unrevoked", old),
        (None, None) => return,
    };
    let text = |place| row.text(place, LONGEST);
    let values = [
        ("sub", text(place::SUBJECT)),
        ("iss", text(place::ISSUER)),
        ("jti", text(place::JTI)),
        ("sid", text(place::SESSION_ID)),
        ("before", row.timestamptz(place::BEFORE).map(backend::format_time)),
        ("reason", text(place::REASON)),
    ];
    audit::log_revocation(outcome, row.int8(place::ID), &values);
}

fn check_values(row: Tuple<'_>) -> Result<(), Rejection> {
    let wrong = |detail: String| {
        Rejection::new(Code::Configuration, "revocation is wrong").with_detail(detail)
    };
    let named = [place::ISSUER, place::SUBJECT, place::JTI, place::SESSION_ID];
    let name = |place: usize| COLUMNS.get(place - 1).map_or("", |(name, _)| name);
    if named.into_iter().all(|place| row.is_null(place)) {
        return Err(wrong("It names no token.".to_owned()).with_hint(
            "Give a subject, a jti or a sid. To revoke the tokens of all users of a provider, give its issuer.",
        ));
    }
    // Where NOT NULL was dropped.
    if row.is_null(place::BEFORE) {
        return Err(wrong("Its before is NULL.".to_owned()).with_hint(
            "Leave before out to revoke the tokens until now, or give infinity for all.",
        ));
    }
    for place in named.into_iter().chain([place::REASON]) {
        match row.size(place) {
            Some(0) if place != place::REASON => {
                return Err(wrong(format!("Its {} is empty.", name(place)))
                    .with_hint("Give NULL for what does not matter."));
            }
            Some(size) if size > LONGEST => {
                return Err(wrong(format!(
                    "Its {} has {size} bytes; the limit is {LONGEST}.",
                    name(place)
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Rejects a row that says that another role has created it, or at another time. The owner of the table may restore
/// such rows.
fn check_origin(change: &RowChange<'_>, new: Tuple<'_>) -> Result<(), Rejection> {
    let owner = OpenRelation::open(change.relation()).map(|relation| relation.owner());
    if owner.is_some_and(role::has_privileges_of) {
        return Ok(());
    }
    let origin =
        |row: Tuple<'_>| (row.timestamptz(place::CREATED), row.text(place::CREATED_BY, LONGEST));
    let expected = match change.old_row() {
        Some(old) => origin(old),
        None => (Some(backend::transaction_start()), role::display_name(role::session_user())),
    };
    if origin(new) == expected {
        return Ok(());
    }
    Err(Rejection::new(Code::Forbidden, "permission denied to set the origin of a revocation")
        .with_detail("Only the owner of auth.revocations sets created and created_by.")
        .with_hint("Leave these columns out, or call auth.revoke()."))
}
