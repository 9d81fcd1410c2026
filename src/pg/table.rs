//! Tables of the extension: how they are found, whether they are as they were installed, and which invalidations
//! concern them.

use std::cell::Cell;
use std::ffi::CStr;

use super::relation::{Extension, Oid, OpenRelation};

const EXTENSION: &CStr = c"pg_session_jwt";

/// A table of the extension that is installed in this database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnTable {
    pub(crate) relation: Oid,
    pub(crate) schema: Oid,
}

/// The result of a search for a table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Table(OwnTable),
    /// The extension of this database lacks the table.
    Missing,
    /// The extension is not installed, or in a version before 1.0.0, which had no tables.
    NotInstalled,
}

/// A column as the extension reads it.
pub(crate) struct OwnColumn {
    pub(crate) name: &'static str,
    pub(crate) kind: Oid,
    /// Whether Postgres computes the value from other columns.
    pub(crate) is_generated: bool,
}

/// Which relcache invalidations concern a table.
#[derive(Clone, Copy)]
enum Watched {
    /// No invalidation concerns it: the session has not looked for the table since the last one that did.
    Nothing,
    /// Every invalidation: the table was not found, or is being looked for, and any relation may be it.
    AnyRelation,
    /// The invalidations of this table, and those of all relations at once.
    One(OwnTable),
}

/// Finds a table, and notes what concerns it from then on.
pub(crate) struct Watch {
    name: &'static CStr,
    watched: Cell<Watched>,
}

impl Watch {
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Self { name, watched: Cell::new(Watched::Nothing) }
    }

    /// Finds the table.
    pub(crate) fn find(&self) -> Found {
        if let Watched::One(table) = self.watched.get() {
            return Found::Table(table);
        }
        // The state is set before the catalogs are read, so that an invalidation during the reads resets
        // it.
        self.watched.set(Watched::AnyRelation);
        let Some(extension) = Extension::named(EXTENSION) else {
            return Found::NotInstalled;
        };
        let Some(relation) = extension.table(self.name) else {
            let had_no_tables = extension.version.starts_with("0.");
            return if had_no_tables { Found::NotInstalled } else { Found::Missing };
        };
        let table = OwnTable { relation, schema: extension.schema };
        // Another state means that an invalidation arrived during the reads: the next use looks again.
        if matches!(self.watched.get(), Watched::AnyRelation) {
            self.watched.set(Watched::One(table));
        }
        Found::Table(table)
    }

    /// Notes the invalidation of a relation's cache entry, or of all entries where `relation` is invalid.
    /// Returns whether rows that were read before may have changed since. It cannot fail.
    pub(crate) fn note_invalidation(&self, relation: Oid) -> bool {
        let is_concerned = match self.watched.get() {
            Watched::Nothing => false,
            Watched::AnyRelation => true,
            Watched::One(table) => relation == Oid::INVALID || table.relation == relation,
        };
        if is_concerned {
            self.watched.set(Watched::Nothing);
        }
        is_concerned
    }

    /// Whether this session has looked for the table since the last invalidation that concerned it.
    pub(crate) fn is_active(&self) -> bool {
        !matches!(self.watched.get(), Watched::Nothing)
    }
}

/// The first of the columns that is not as it was installed. Values of other types cannot be read as theirs, and
/// conversions of a user-defined type would run its owner's code. Additional columns at the end are allowed.
pub(crate) fn altered_column(
    relation: &OpenRelation,
    columns: impl IntoIterator<Item = OwnColumn>,
) -> Option<&'static str> {
    let mut found = relation.columns();
    columns.into_iter().find_map(|column| {
        let is_installed = found.next().is_some_and(|found| {
            !found.is_dropped
                && found.name.to_bytes() == column.name.as_bytes()
                && found.kind == column.kind
                && found.is_generated == column.is_generated
        });
        (!is_installed).then_some(column.name)
    })
}
