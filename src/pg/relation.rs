//! Relations: their names, open relations, and scans of them.
//!
//! A scan reads a relation as Postgres reads its catalogs: whatever the current role is, without the
//! executor and its hooks, row-level security or the search path.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};
use std::marker::PhantomData;

use pgrx::pg_sys::{self, Datum};

use super::backend::{self, BackendLocal, Timestamp};
use super::compat;
use super::datum::{Varlena, from_server_encoding, raw_size, text_datum_bytes};
use super::error::guarded;

pub(crate) use pgrx::pg_sys::Oid;

/// The OIDs of types.
pub(crate) use pgrx::pg_sys::{
    BOOLOID, INT4OID, INT8OID, JSONBOID, JSONOID, TEXTARRAYOID, TEXTOID, TIMESTAMPTZOID,
};

/// Counts invalidations of relations and schemas, each of which may stand for a new name.
static NAMES: BackendLocal<Cell<u64>> = BackendLocal::new(Cell::new(0));

/// Notes an invalidation of a relation or a schema, which may have a new name. It cannot fail.
pub(crate) fn count_rename() {
    NAMES.set(NAMES.get() + 1);
}

/// The count of possible renames. A result of [`Name::of`] is outdated where the count has changed since; a
/// caller reads the count before the name.
#[inline(always)]
pub(crate) fn names() -> u64 {
    NAMES.get()
}

/// The schema and the name of a relation, in UTF-8.
pub(crate) enum Name {
    Known {
        schema: String,
        name: String,
    },
    /// UTF-8 cannot represent the name or the schema, so that no token can name the relation.
    Unrepresentable,
}

impl Name {
    /// The name of a relation; None where the relation does not exist.
    pub(crate) fn of(relation: Oid) -> Option<Self> {
        // SAFETY: the calls read catalogs. `get_rel_name` returns null or a copy that belongs to the
        // caller.
        let (schema, name) = unsafe {
            let name = take_c_string(pg_sys::get_rel_name(relation))?;
            (pg_sys::get_rel_namespace(relation), name)
        };
        Some(Self::within(schema, &name))
    }

    /// The name of a relation, which need not exist, given its schema and its name without the schema, in
    /// the database's encoding.
    pub(crate) fn within(schema: Oid, name: &[u8]) -> Self {
        // SAFETY: the call reads a catalog, and returns null or a copy that belongs to the caller.
        let schema = unsafe { take_c_string(pg_sys::get_namespace_name(schema)) };
        let schema = schema.and_then(|schema| from_server_encoding(&schema));
        schema
            .zip(from_server_encoding(name))
            .map_or(Self::Unrepresentable, |(schema, name)| Self::Known { schema, name })
    }
}

/// The name of a database of the server; None where it does not exist. UTF-8 may not represent each character.
pub(crate) fn database_name(database: Oid) -> Option<String> {
    // SAFETY: the call reads a catalog, and returns null or a copy that belongs to the caller.
    let name = unsafe { take_c_string(pg_sys::get_database_name(database)) }?;
    Some(from_server_encoding(&name).unwrap_or_else(|| String::from_utf8_lossy(&name).into_owned()))
}

/// Copies a C string into memory of the extension, and frees it. None for null.
///
/// # Safety
/// The pointer is null, or a C string that Postgres has allocated by `palloc` and nothing else refers to.
unsafe fn take_c_string(text: *mut c_char) -> Option<Vec<u8>> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller passes a C string of `palloc`, which is copied before it is freed.
    unsafe {
        let copy = CStr::from_ptr(text).to_bytes().to_vec();
        pg_sys::pfree(text.cast());
        Some(copy)
    }
}

/// An extension that is installed in this database.
pub(crate) struct Extension {
    oid: Oid,
    pub(crate) schema: Oid,
    pub(crate) version: String,
}

impl Extension {
    pub(crate) fn named(name: &CStr) -> Option<Self> {
        // SAFETY: the call reads a catalog, and returns 0 where there is no such extension.
        let oid = unsafe { pg_sys::get_extension_oid(name.as_ptr(), true) };
        if oid == Oid::INVALID {
            return None;
        }
        let catalog = OpenRelation::open(pg_sys::ExtensionRelationId)?;
        let index = Oid::from(pg_sys::ExtensionOidIndexId);
        let place = pg_sys::Anum_pg_extension_oid as usize;
        let mut found = None;
        catalog.scan(
            Some(index),
            &[Key { place, value: KeyValue::Oid(oid) }],
            Visible::Now,
            |row| {
                let schema = row.oid(pg_sys::Anum_pg_extension_extnamespace as usize);
                // A version is a short text.
                let version = row.text(pg_sys::Anum_pg_extension_extversion as usize, 1024);
                found = schema.zip(version);
                false
            },
        );
        let (schema, version) = found?;
        Some(Self { oid, schema, version })
    }

    /// The table of that name in the extension's schema, where it belongs to the extension.
    pub(crate) fn table(&self, name: &CStr) -> Option<Oid> {
        let relation = find(self.schema, name)?;
        // SAFETY: the calls read catalogs.
        let is_its = unsafe {
            pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, relation) == self.oid
                && pg_sys::get_rel_relkind(relation) as u8 == pg_sys::RELKIND_RELATION
        };
        is_its.then_some(relation)
    }
}

/// The table, index or other relation of that name in a schema.
pub(crate) fn find(schema: Oid, name: &CStr) -> Option<Oid> {
    // SAFETY: the call reads a catalog, and returns 0 where there is no such relation.
    let relation = unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) };
    (relation != Oid::INVALID).then_some(relation)
}

/// A privilege on a table.
#[derive(Clone, Copy)]
pub(crate) enum Privilege {
    Select = pg_sys::ACL_SELECT as isize,
    Insert = pg_sys::ACL_INSERT as isize,
    Update = pg_sys::ACL_UPDATE as isize,
}

/// Raises the error of Postgres where the current role lacks one of the privileges on a table of that name.
pub(crate) fn check_privileges(relation: Oid, name: &CStr, privileges: &[Privilege]) {
    // With several privileges in its mode, `pg_class_aclcheck` is satisfied by one of them.
    for &privilege in privileges {
        // SAFETY: the calls read catalogs and static variables; the name is a C string.
        unsafe {
            let mode = privilege as pg_sys::AclMode;
            let result = pg_sys::pg_class_aclcheck(relation, pg_sys::GetUserId(), mode);
            if result != pg_sys::AclResult::ACLCHECK_OK {
                let kind = pg_sys::ObjectType::OBJECT_TABLE;
                pg_sys::aclcheck_error(result, kind, name.as_ptr());
            }
        }
    }
}

/// Whether the current user has a privilege on a relation.
pub(crate) fn has_privilege(relation: Oid, privilege: Privilege) -> bool {
    let mode = privilege as pg_sys::AclMode;
    // SAFETY: the calls read catalogs and static variables.
    let result = unsafe { pg_sys::pg_class_aclcheck(relation, pg_sys::GetUserId(), mode) };
    result == pg_sys::AclResult::ACLCHECK_OK
}

/// Processes the invalidations that other sessions have sent. The caller is within a transaction.
pub(crate) fn accept_invalidations() {
    // SAFETY: within a transaction Postgres may rebuild caches, as it does when it opens a table.
    guarded(|| unsafe { pg_sys::AcceptInvalidationMessages() });
}

/// An open relation, under an `AccessShareLock`. Dropping it closes it and releases the lock.
pub(crate) struct OpenRelation(pg_sys::Relation);

/// A column of a relation.
pub(crate) struct Column<'r> {
    pub(crate) name: &'r CStr,
    /// The OID of its type.
    pub(crate) kind: Oid,
    pub(crate) is_dropped: bool,
    /// Whether Postgres computes its value from other columns.
    pub(crate) is_generated: bool,
}

/// Which versions of a relation's rows a scan visits.
#[derive(Clone, Copy)]
pub(crate) enum Visible {
    /// Versions that are committed now, and those of earlier commands of this transaction.
    Now,
    /// Versions that are committed now, and those of all commands of this transaction, the current one
    /// included.
    WithCurrentCommand,
    /// Every version, also those that are not committed, and dead ones.
    Always,
    /// What the statement sees that is running, in a parallel worker; elsewhere, and where a transaction has one
    /// snapshot, what is committed now.
    ToStatement,
}

/// The condition of a scan: the column at this place, from 1, has this value.
pub(crate) struct Key<'v> {
    pub(crate) place: usize,
    pub(crate) value: KeyValue<'v>,
}

pub(crate) enum KeyValue<'v> {
    Oid(Oid),
    /// A `text`, compared in the collation `C`.
    Text(&'v Varlena),
    Int8(i64),
    /// This time or a later one.
    From(Timestamp),
    Null,
}

impl OpenRelation {
    /// Opens a relation. It waits for other transactions that hold an `AccessExclusiveLock`. None where the
    /// relation does not exist.
    pub(crate) fn open(relation: Oid) -> Option<Self> {
        // SAFETY: the call takes any OID, and returns null where there is no such relation.
        let relation = unsafe {
            pg_sys::try_relation_open(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE)
        };
        (!relation.is_null()).then(|| Self(relation))
    }

    pub(crate) fn oid(&self) -> Oid {
        // SAFETY: the relation is open, so that its cache entry stays in place.
        unsafe { (*self.0).rd_id }
    }

    /// The OID of the role that owns it.
    pub(crate) fn owner(&self) -> Oid {
        // SAFETY: the relation is open, so that its cache entry and its row of pg_class stay in place.
        unsafe { (*(*self.0).rd_rel).relowner }
    }

    /// The columns in their order, dropped ones included.
    pub(crate) fn columns(&self) -> impl Iterator<Item = Column<'_>> {
        // SAFETY: the relation is open, which keeps its descriptor valid.
        let columns = unsafe { attributes(self.descriptor()) };
        columns.iter().map(|column| Column {
            // SAFETY: a name ends with a NUL, and lies within the column's description.
            name: unsafe { CStr::from_ptr(column.attname.data.as_ptr()) },
            kind: column.atttypid,
            is_dropped: column.attisdropped,
            is_generated: column.attgenerated as u8 == pg_sys::ATTRIBUTE_GENERATED_STORED,
        })
    }

    /// Whether it has a trigger of that name that fires whatever `session_replication_role` is.
    pub(crate) fn has_trigger_enabled_always(&self, name: &CStr) -> bool {
        // SAFETY: the relation is open; the description of its triggers is null or an array of
        // `numtriggers` elements, each with a C string as its name.
        unsafe {
            let triggers = match (*self.0).trigdesc.as_ref() {
                Some(all) if all.numtriggers > 0 => {
                    std::slice::from_raw_parts(all.triggers, all.numtriggers as usize)
                }
                _ => &[],
            };
            triggers.iter().any(|trigger| {
                CStr::from_ptr(trigger.tgname) == name
                    && trigger.tgenabled as u8 == pg_sys::TRIGGER_FIRES_ALWAYS
            })
        }
    }

    /// Whether it is permanent: it is replicated and survives a crash.
    pub(crate) fn is_permanent(&self) -> bool {
        // SAFETY: the relation is open, so that its row of pg_class stays in place.
        unsafe { (*(*self.0).rd_rel).relpersistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT }
    }

    /// Its TOAST table, which is replaced only where the relation changes too; itself where it has none.
    pub(crate) fn toast_or_self(&self) -> Oid {
        // SAFETY: the relation is open, so that its row of pg_class stays in place.
        let toast = unsafe { (*(*self.0).rd_rel).reltoastrelid };
        if toast == Oid::INVALID { self.oid() } else { toast }
    }

    /// Whether its file is empty: there has never been a row, or VACUUM has removed all of them.
    pub(crate) fn is_empty(&self) -> bool {
        let main = pg_sys::ForkNumber::MAIN_FORKNUM;
        // SAFETY: the relation is open, and has a file.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.0, main) == 0 }
    }

    /// An index whose first columns are at these places, and that has every row; None where there is none.
    pub(crate) fn index_on(&self, places: &[usize]) -> Option<Oid> {
        // SAFETY: the relation is open. The list and its cells are in the current context. An index is open until it
        // is closed, and its entries stay in place until then; `indkey` has `indnatts` elements.
        unsafe {
            let list = pg_sys::RelationGetIndexList(self.0);
            let indexes: Vec<Oid> = match list.as_ref() {
                Some(list) => std::slice::from_raw_parts(list.elements, list.length as usize)
                    .iter()
                    .map(|cell| cell.oid_value)
                    .collect(),
                None => Vec::new(),
            };
            pg_sys::list_free(list);
            indexes.into_iter().find(|index| {
                let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
                let open = pg_sys::index_open(*index, lock);
                let entry = &*(*open).rd_index;
                let is_btree = (*(*open).rd_rel).relam == pg_sys::BTREE_AM_OID;
                let columns = entry.indkey.values.as_slice(entry.indnkeyatts.max(0) as usize);
                let is_usable = is_btree
                    && entry.indisvalid
                    && columns.len() >= places.len()
                    && columns.iter().zip(places).all(|(column, place)| *column as usize == *place)
                    && pg_sys::RelationGetIndexPredicate(open).is_null();
                pg_sys::index_close(open, lock);
                is_usable
            })
        }
    }

    /// Visits the rows that the keys select, or without keys all rows, until `visit` returns false. An index that
    /// is not the relation's is not used; the keys must be those of its first columns. A key of another type than
    /// its column selects nothing.
    pub(crate) fn scan(
        &self,
        index: Option<Oid>,
        keys: &[Key<'_>],
        visible: Visible,
        mut visit: impl FnMut(Tuple<'_>) -> bool,
    ) {
        let mut entries = vec![pg_sys::ScanKeyData::default(); keys.len()];
        if !keys.iter().zip(&mut entries).all(|(key, entry)| self.fill_key(key, entry)) {
            return;
        }
        let index = index.filter(|index| self.has_index(*index));
        let snapshot = match visible {
            Visible::Now => std::ptr::null_mut(),
            Visible::WithCurrentCommand => &raw mut pg_sys::SnapshotSelfData,
            Visible::Always => &raw mut pg_sys::SnapshotAnyData,
            Visible::ToStatement => backend::worker_snapshot(),
        };
        // SAFETY: the relation is open, and the index belongs to it. A null snapshot makes Postgres take
        // one of this moment; the others are static. A row is valid until the next call for one.
        unsafe {
            let scan = pg_sys::systable_beginscan(
                self.0,
                index.unwrap_or(Oid::INVALID),
                index.is_some(),
                snapshot,
                keys.len() as c_int,
                entries.as_mut_ptr(),
            );
            loop {
                let tuple = pg_sys::systable_getnext(scan);
                if tuple.is_null() || !visit(Tuple::new(tuple, self.descriptor())) {
                    break;
                }
            }
            pg_sys::systable_endscan(scan);
        }
    }

    /// Fills in the scan key. Returns false where the relation lacks the column, or the column has another
    /// type.
    fn fill_key(&self, key: &Key<'_>, entry: &mut pg_sys::ScanKeyData) -> bool {
        // SAFETY: the relation is open, which keeps its descriptor valid.
        let Some(column) = (unsafe { attribute(self.descriptor(), key.place) }) else {
            return false;
        };
        let kind = column.atttypid;
        const EQUAL: u32 = pg_sys::BTEqualStrategyNumber;
        let (flags, strategy, equal, value) = match key.value {
            KeyValue::Oid(oid) if kind == pg_sys::OIDOID => {
                (0, EQUAL, pg_sys::F_OIDEQ, Datum::from(oid))
            }
            KeyValue::Text(text) if kind == pg_sys::TEXTOID => {
                (0, EQUAL, pg_sys::F_TEXTEQ, text.datum())
            }
            KeyValue::Int8(value) if kind == pg_sys::INT8OID => {
                (0, EQUAL, pg_sys::F_INT8EQ, Datum::from(value))
            }
            KeyValue::From(value) if kind == pg_sys::TIMESTAMPTZOID => {
                let from = pg_sys::BTGreaterEqualStrategyNumber;
                (0, from, pg_sys::F_TIMESTAMPTZ_GE, Datum::from(value))
            }
            KeyValue::Null => (pg_sys::SK_ISNULL | pg_sys::SK_SEARCHNULL, 0, 0, Datum::null()),
            _ => return false,
        };
        // SAFETY: nothing else refers to the entry; the function compares values of the column's type.
        unsafe {
            pg_sys::ScanKeyEntryInitialize(
                entry,
                flags as c_int,
                key.place as pg_sys::AttrNumber,
                strategy as pg_sys::StrategyNumber,
                Oid::INVALID,
                pg_sys::C_COLLATION_OID,
                pg_sys::RegProcedure::from(equal),
                value,
            );
        }
        true
    }

    fn has_index(&self, index: Oid) -> bool {
        // SAFETY: the call reads a catalog, and returns 0 where there is no such index.
        index != Oid::INVALID && unsafe { pg_sys::IndexGetRelation(index, true) } == self.oid()
    }

    fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: the relation is open, so that its cache entry stays in place.
        unsafe { (*self.0).rd_att }
    }
}

impl Drop for OpenRelation {
    fn drop(&mut self) {
        // After an error of Postgres, the end of the transaction closes the relation.
        if !std::thread::panicking() {
            // SAFETY: the relation was opened with that lock, and is open.
            unsafe { pg_sys::relation_close(self.0, pg_sys::AccessShareLock as pg_sys::LOCKMODE) }
        }
    }
}

/// A row of a relation, valid for the visit of a scan or the call of a trigger. Places of columns
/// count from 1. A column that does not exist, or has another type, reads as null.
#[derive(Clone, Copy)]
pub(crate) struct Tuple<'r> {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
    lifetime: PhantomData<&'r ()>,
}

/// Why a row cannot be written as JSON.
pub(crate) enum NoJson {
    TooLong,
    /// UTF-8 cannot represent its text.
    Unrepresentable,
}

impl Tuple<'_> {
    /// # Safety
    /// The tuple is of that descriptor's type; both are valid for the lifetime.
    pub(super) unsafe fn new(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Self {
        Self { tuple, descriptor, lifetime: PhantomData }
    }

    pub(crate) fn is_null(self, place: usize) -> bool {
        self.value(place).is_none()
    }

    pub(crate) fn oid(self, place: usize) -> Option<Oid> {
        let value = self.value_of_type(place, pg_sys::OIDOID)?;
        // An OID is the lower half of the Datum.
        Some(Oid::from(value.value() as u32))
    }

    pub(crate) fn int4(self, place: usize) -> Option<i32> {
        self.value_of_type(place, pg_sys::INT4OID).map(|value| value.value() as i32)
    }

    pub(crate) fn int8(self, place: usize) -> Option<i64> {
        self.value_of_type(place, pg_sys::INT8OID).map(|value| value.value() as i64)
    }

    pub(crate) fn timestamptz(self, place: usize) -> Option<Timestamp> {
        self.value_of_type(place, pg_sys::TIMESTAMPTZOID).map(|value| value.value() as Timestamp)
    }

    /// The `text` at that place, in UTF-8. None where it is null, has more than `limit` bytes, or UTF-8
    /// cannot represent it.
    pub(crate) fn text(self, place: usize, limit: usize) -> Option<String> {
        let value = self.value_of_type(place, pg_sys::TEXTOID)?;
        // SAFETY: the value is a `text` of the row.
        let size = unsafe { raw_size(value) };
        (size <= limit).then(|| from_server_encoding(&text_datum_bytes(value)))?
    }

    /// The size in bytes that a value of varying length has when it is detoasted, without its header. The
    /// method does not detoast it.
    pub(crate) fn size(self, place: usize) -> Option<usize> {
        let value = self.value(place)?;
        // SAFETY: the length -1 stands for a varlena.
        (self.attribute(place)?.attlen == -1).then(|| unsafe { raw_size(value) })
    }

    /// Whether the current transaction, or a subtransaction of it, has written this version of the row.
    pub(crate) fn is_of_current_transaction(self) -> bool {
        // SAFETY: the tuple is valid, and has its header.
        unsafe {
            let creator = pg_sys::HeapTupleHeaderGetXmin((*self.tuple).t_data);
            pg_sys::TransactionIdIsCurrentTransactionId(creator)
        }
    }

    /// The row as a JSON object in UTF-8 of at most `limit` bytes, with null for the columns at other
    /// places than `includes` selects.
    pub(crate) fn to_json(
        self,
        includes: impl Fn(usize) -> bool,
        limit: usize,
    ) -> Result<String, NoJson> {
        // SAFETY: the descriptor is valid for the tuple's lifetime.
        let columns = unsafe { attributes(self.descriptor) }.len();
        let (mut values, mut nulls) = (vec![Datum::null(); columns], vec![true; columns]);
        // SAFETY: the tuple is of the descriptor's type, and the arrays have an element for each
        // column. The tuple that is formed and the composite value that is made of it are copies in
        // the current context. `row_to_json` takes such a value, and returns a plain `text`.
        unsafe {
            let (value, null) = (values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::heap_deform_tuple(self.tuple, self.descriptor, value, null);
            for (place, is_null) in (1..).zip(&mut nulls) {
                *is_null |= !includes(place);
            }
            let (value, null) = (values.as_mut_ptr(), nulls.as_mut_ptr());
            let copy = pg_sys::heap_form_tuple(self.descriptor, value, null);
            let row = pg_sys::heap_copy_tuple_as_datum(copy, self.descriptor);
            pg_sys::heap_freetuple(copy);
            let json = pgrx::direct_function_call_as_datum(pg_sys::row_to_json, &[Some(row)]);
            pg_sys::pfree(row.cast_mut_ptr());
            let json = json.ok_or(NoJson::Unrepresentable)?;
            if raw_size(json) > limit {
                return Err(NoJson::TooLong);
            }
            let text = from_server_encoding(&text_datum_bytes(json));
            pg_sys::pfree(json.cast_mut_ptr());
            text.ok_or(NoJson::Unrepresentable)
        }
    }

    /// A copy in the current context, with null at some places. The columns must exist.
    pub(super) fn with_nulls(self, places: &[usize]) -> pg_sys::HeapTuple {
        let mut places: Vec<c_int> = places.iter().map(|place| *place as c_int).collect();
        let (mut values, mut nulls) = (vec![Datum::null(); places.len()], vec![true; places.len()]);
        // SAFETY: the tuple is of the descriptor's type; each array has `places.len()` elements. Postgres
        // raises an error for a place without column.
        unsafe {
            pg_sys::heap_modify_tuple_by_cols(
                self.tuple,
                self.descriptor,
                places.len() as c_int,
                places.as_mut_ptr(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            )
        }
    }

    fn value_of_type(self, place: usize, kind: Oid) -> Option<Datum> {
        if self.attribute(place)?.atttypid != kind {
            return None;
        }
        self.value(place)
    }

    fn value(self, place: usize) -> Option<Datum> {
        self.attribute(place)?;
        let mut is_null = false;
        // SAFETY: the tuple is of the descriptor's type, which has that column.
        let value = unsafe {
            pg_sys::heap_getattr(self.tuple, place as c_int, self.descriptor, &mut is_null)
        };
        (!is_null).then_some(value)
    }

    fn attribute(&self, place: usize) -> Option<&pg_sys::FormData_pg_attribute> {
        // SAFETY: the descriptor is valid for the tuple's lifetime.
        unsafe { attribute(self.descriptor, place) }
    }
}

/// The column at that place, from 1; None where there is no column, or a dropped one.
///
/// # Safety
/// The descriptor is valid for the lifetime.
unsafe fn attribute<'d>(
    descriptor: pg_sys::TupleDesc,
    place: usize,
) -> Option<&'d pg_sys::FormData_pg_attribute> {
    // SAFETY: the caller promises a valid descriptor.
    let column = unsafe { attributes(descriptor) }.get(place.checked_sub(1)?)?;
    (!column.attisdropped).then_some(column)
}

/// The columns of a descriptor, dropped ones included.
///
/// # Safety
/// The descriptor is valid for the lifetime.
unsafe fn attributes<'d>(descriptor: pg_sys::TupleDesc) -> &'d [pg_sys::FormData_pg_attribute] {
    // SAFETY: the caller promises a valid descriptor.
    unsafe { compat::columns(descriptor) }
}

/// Whether a relation is temporary.
pub(crate) fn is_temporary(relation: Oid) -> bool {
    // SAFETY: the call reads a catalog, and takes any OID.
    unsafe { pg_sys::get_rel_persistence(relation) as u8 == pg_sys::RELPERSISTENCE_TEMP }
}

/// Whether the current transaction has created an object, given its catalog and its OID: no other
/// transaction has written a version of the object's row. `CREATE OR REPLACE` leaves the version that it
/// replaces.
pub(crate) fn is_new(class: Oid, object: Oid) -> bool {
    // SAFETY: the calls look into static tables of Postgres, for catalogs whose rows have OIDs.
    let (index, column) = unsafe {
        if !pg_sys::is_objectclass_supported(class) {
            return false;
        }
        (pg_sys::get_object_oid_index(class), pg_sys::get_object_attnum_oid(class))
    };
    let place = usize::try_from(column).unwrap_or(0);
    if index == Oid::INVALID || place == 0 {
        return false;
    }
    let (mut is_there, mut is_ours) = (false, true);
    if let Some(catalog) = OpenRelation::open(class) {
        let key = Key { place, value: KeyValue::Oid(object) };
        catalog.scan(Some(index), &[key], Visible::Always, |version| {
            is_there = true;
            is_ours &= version.is_of_current_transaction();
            true
        });
    }
    is_there && is_ours
}
