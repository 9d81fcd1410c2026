//! The table `auth.providers`: which relation it is, whether it is as it was installed, and its rows.

use std::ffi::CStr;

use session_jwt::{Code, Rejection};

use super::row::{self, COLUMNS, Row, place};
use crate::pg::backend::BackendLocal;
use crate::pg::datum::Varlena;
use crate::pg::relation::{self, Key, KeyValue, Oid, OpenRelation, Privilege, Visible};
use crate::pg::table::{self, Found, OwnColumn, OwnTable, Watch};

const NAME: &CStr = c"providers";
const INDEX_BY_NAME: &CStr = c"providers_pkey";
const INDEX_BY_ISSUER: &CStr = c"providers_issuer_key";

/// The trigger that checks rows and invalidates the table.
const TRIGGER: &CStr = c"check_provider";

static WATCH: BackendLocal<Watch> = BackendLocal::new(Watch::new(NAME));

/// The table of the extension that is installed in this database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Table(OwnTable);

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
        match WATCH.find() {
            Found::Table(table) => Some(Self(table)),
            Found::Missing | Found::NotInstalled => None,
        }
    }

    /// Whether a relation is this table.
    pub(crate) fn is(self, relation: Oid) -> bool {
        self.0.relation == relation
    }

    pub(super) fn oid(self) -> Oid {
        self.0.relation
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
        let Some(relation) = OpenRelation::open(self.0.relation) else {
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
        let index = index.and_then(|name| relation::find(self.0.schema, name));
        let key = key.map(|(place, value)| Key { place, value });
        relation.scan(index, key.as_slice(), Visible::Now, |tuple| {
            Row::read(tuple).is_none_or(&mut visit)
        });
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
        if let Some(relation) = OpenRelation::open(self.0.relation)
            && check_columns(&relation).is_ok()
        {
            relation.scan(None, &[], Visible::Now, |tuple| {
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
        relation::check_privileges(self.0.relation, NAME, &[Privilege::Select, Privilege::Update]);
    }

    /// Raises the error of Postgres where the current role lacks INSERT on the table.
    pub(super) fn check_insert(self) {
        relation::check_privileges(self.0.relation, NAME, &[Privilege::Insert]);
    }

    /// Whether the current user may add providers, and so issue tokens with any claims.
    pub(crate) fn may_insert(self) -> bool {
        relation::has_privilege(self.0.relation, Privilege::Insert)
    }
}

/// Rejects a table whose first columns are not those that were installed.
pub(super) fn check_columns(relation: &OpenRelation) -> Result<(), Rejection> {
    let columns = COLUMNS.iter().map(|column| OwnColumn {
        name: column.name,
        kind: column.kind,
        is_generated: false,
    });
    match table::altered_column(relation, columns) {
        None => Ok(()),
        Some(name) => {
            Err(altered()
                .with_detail(format!("Its column {name} has another place, name or type.")))
        }
    }
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

/// Notes the invalidation of a relation's cache entry, or of all entries where `relation` is invalid.
/// Returns whether rows that were read before may have changed since. It cannot fail.
pub(crate) fn relcache_callback(relation: Oid) -> bool {
    WATCH.note_invalidation(relation)
}

/// Whether this session has looked for the table since the last invalidation that concerned it.
pub(crate) fn has_read_table() -> bool {
    WATCH.is_active()
}
