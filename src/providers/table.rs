//! The table `auth.providers`: which relation it is, whether it is as it was installed, and its rows.

use std::cell::Cell;
use std::ffi::CStr;

use session_jwt::{Code, Rejection};

use super::row::{self, COLUMNS, Row, place};
use crate::pg::backend::BackendLocal;
use crate::pg::datum::Varlena;
use crate::pg::relation::{self, Extension, Key, KeyValue, Oid, OpenRelation, Privilege, Visible};

const EXTENSION: &CStr = c"pg_session_jwt";
const TABLE: &CStr = c"providers";
const INDEX_BY_NAME: &CStr = c"providers_pkey";
const INDEX_BY_ISSUER: &CStr = c"providers_issuer_key";

/// The trigger that checks rows and invalidates the table.
const TRIGGER: &CStr = c"check_provider";

/// The table of the extension that is installed in this database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Table {
    relation: Oid,
    schema: Oid,
}

/// Which rows to read.
#[derive(Clone, Copy)]
pub(super) enum Rows<'r> {
    All,
    Named(&'r str),
    /// The row of that issuer; for None, the one that has no issuer.
    OfIssuer(Option<&'r str>),
}

impl Table {
    /// Finds the table. None where the extension is not installed in this database.
    pub(crate) fn find() -> Option<Self> {
        if let Watched::One(table) = WATCHED.get() {
            return Some(table);
        }
        // The state is set before the catalogs are read, so that an invalidation during the reads resets
        // it.
        WATCHED.set(Watched::AnyRelation);
        let extension = Extension::named(EXTENSION)?;
        let table = Self { relation: extension.table(TABLE)?, schema: extension.schema };
        // Another state means that an invalidation arrived during the reads: the next use looks again.
        if matches!(WATCHED.get(), Watched::AnyRelation) {
            WATCHED.set(Watched::One(table));
        }
        Some(table)
    }

    /// Whether a relation is this table.
    pub(crate) fn is(self, relation: Oid) -> bool {
        self.relation == relation
    }

    pub(super) fn oid(self) -> Oid {
        self.relation
    }

    /// Reads rows until `visit` returns false. It leaves out rows that [`Row::read`] cannot read.
    ///
    /// # Errors
    /// Where the table was altered.
    pub(super) fn read(
        self,
        rows: Rows<'_>,
        mut visit: impl FnMut(Row) -> bool,
    ) -> Result<(), Rejection> {
        let Some(relation) = OpenRelation::open(self.relation) else {
            return Ok(());
        };
        check_columns(&relation)?;
        check_trigger(&relation)?;
        let text;
        let (index, key) = match rows {
            Rows::All => (None, None),
            Rows::OfIssuer(None) => (Some(INDEX_BY_ISSUER), Some((place::ISSUER, KeyValue::Null))),
            Rows::Named(value) | Rows::OfIssuer(Some(value)) => {
                // No row has a name or an issuer that the database's encoding cannot represent.
                let Ok(value) = Varlena::text(value) else {
                    return Ok(());
                };
                text = value;
                let (index, place) = match rows {
                    Rows::Named(_) => (INDEX_BY_NAME, place::NAME),
                    _ => (INDEX_BY_ISSUER, place::ISSUER),
                };
                (Some(index), Some((place, KeyValue::Text(&text))))
            }
        };
        let index = index.and_then(|name| relation::find(self.schema, name));
        let key = key.map(|(place, value)| Key { place, value });
        relation.scan(index, key, Visible::Now, |tuple| Row::read(tuple).is_none_or(&mut visit));
        Ok(())
    }

    /// Reads the first of the rows.
    ///
    /// # Errors
    /// Where the table was altered.
    pub(super) fn row(self, rows: Rows<'_>) -> Result<Option<Row>, Rejection> {
        let mut found = None;
        self.read(rows, |row| {
            found = Some(row);
            false
        })?;
        Ok(found)
    }

    /// The names of the rows whose keys no worker has requested from their present address.
    pub(super) fn never_fetched(self) -> Vec<String> {
        let mut names = Vec::new();
        if let Some(relation) = OpenRelation::open(self.relation)
            && check_columns(&relation).is_ok()
        {
            relation.scan(None, None, Visible::Now, |tuple| {
                if row::is_never_fetched(tuple) {
                    names.extend(row::name(tuple));
                }
                true
            });
        }
        names
    }

    /// Raises the error of Postgres where the current role lacks SELECT or UPDATE on the table.
    pub(super) fn check_privileges(self) {
        relation::check_privileges(self.relation, TABLE, &[Privilege::Select, Privilege::Update]);
    }

    /// Raises the error of Postgres where the current role lacks INSERT on the table.
    pub(super) fn check_insert(self) {
        relation::check_privileges(self.relation, TABLE, &[Privilege::Insert]);
    }

    /// Whether the current user may add providers, and so issue tokens with any claims.
    pub(crate) fn may_insert(self) -> bool {
        relation::has_privilege(self.relation, Privilege::Insert)
    }
}

/// Rejects a table whose first columns are not those that were installed: values of other types cannot
/// be read as theirs, and conversions of a user-defined type would run its owner's code. Additional
/// columns at the end are allowed.
pub(super) fn check_columns(relation: &OpenRelation) -> Result<(), Rejection> {
    let mut found = relation.columns();
    for column in &COLUMNS {
        let is_installed = found.next().is_some_and(|found| {
            !found.is_dropped
                && found.name.to_bytes() == column.name.as_bytes()
                && found.kind == column.kind
        });
        if !is_installed {
            let name = column.name;
            return Err(altered()
                .with_detail(format!("Its column {name} has another place, name or type.")));
        }
    }
    Ok(())
}

fn check_trigger(relation: &OpenRelation) -> Result<(), Rejection> {
    if relation.has_trigger_enabled_always(TRIGGER) {
        return Ok(());
    }
    Err(altered()
        .with_detail("Its trigger check_provider is missing, or is not enabled for all changes.")
        .with_hint("Use ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER check_provider."))
}

fn altered() -> Rejection {
    Rejection::new(Code::Configuration, "table of providers was altered")
}

/// Which relcache invalidations concern the table.
#[derive(Clone, Copy)]
enum Watched {
    /// No invalidation concerns it: the session has not looked for the table since the last one that did.
    Nothing,
    /// Every invalidation: the table was not found, or is being looked for, and any relation may be it.
    AnyRelation,
    /// The invalidations of this table, and those of all relations at once.
    One(Table),
}

static WATCHED: BackendLocal<Cell<Watched>> = BackendLocal::new(Cell::new(Watched::Nothing));

/// Notes the invalidation of a relation's cache entry, or of all entries where `relation` is invalid.
/// Returns whether rows that were read before may have changed since. It cannot fail.
pub(crate) fn relcache_callback(relation: Oid) -> bool {
    let is_concerned = match WATCHED.get() {
        Watched::Nothing => false,
        Watched::AnyRelation => true,
        Watched::One(table) => relation == Oid::INVALID || table.is(relation),
    };
    if is_concerned {
        WATCHED.set(Watched::Nothing);
    }
    is_concerned
}

/// Whether this session has looked for the table since the last invalidation that concerned it.
pub(crate) fn has_read_table() -> bool {
    !matches!(WATCHED.get(), Watched::Nothing)
}
