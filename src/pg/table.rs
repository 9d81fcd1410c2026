//! The table of providers: read as Postgres reads its own catalogs, whoever the session's role is,
//! with the newest snapshot, and with none of the executor's hooks, policies or search paths.

use std::cell::Cell;
use std::ffi::{CStr, c_int};

use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use session_jwt::Rejection;

use super::datum::{Varlena, from_server_encoding, text_datum_bytes};
use super::{BackendLocal, Timestamp};

const EXTENSION: &CStr = c"pg_session_jwt";
const TABLE: &CStr = c"providers";

/// The places of the columns that are looked at by themselves; the install script has the order.
mod column {
    pub(super) const NAME: usize = 1;
    pub(super) const ISSUER: usize = 2;
    /// Those until here are what a provider is.
    pub(super) const LAST_OF_DOCUMENT: usize = 17;
    pub(super) const KEYS_URL: usize = 18;
    pub(super) const ETAG: usize = 19;
    pub(super) const LAST_MODIFIED: usize = 20;
    pub(super) const LAST_FETCH: usize = 21;
    pub(super) const LAST_DEMAND: usize = 22;
    pub(super) const NEXT_REFRESH: usize = 23;
    pub(super) const LAST_SUCCESS: usize = 24;
    pub(super) const FAILURES: usize = 25;
    pub(super) const LAST_ERROR: usize = 26;
    pub(super) const COUNT: usize = 27;
}

/// The table of the extension that is installed in this database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Table {
    relation: Oid,
    schema: Oid,
}

/// Which rows to read.
#[derive(Clone, Copy)]
pub(crate) enum Rows<'r> {
    All,
    /// The one of that name.
    Named(&'r str),
    /// The one of that issuer; for None, the one that has no issuer.
    Serving(Option<&'r str>),
}

/// One row.
#[derive(Clone)]
pub(crate) struct Row {
    /// What the provider is, as a JSON object. It stays the same when only what is below changes.
    pub(crate) document: String,
    pub(crate) name: String,
    pub(crate) issuer: Option<String>,
    pub(crate) fetching: Fetching,
}

/// How fetching a row's keys goes.
#[derive(Clone, Default)]
pub(crate) struct Fetching {
    pub(crate) keys_url: Option<String>,
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
    pub(crate) last_fetch: Option<Timestamp>,
    pub(crate) last_demand: Option<Timestamp>,
    pub(crate) next_refresh: Option<Timestamp>,
    pub(crate) last_success: Option<Timestamp>,
    pub(crate) failures: i32,
    pub(crate) last_error: Option<String>,
}

/// Whose changes count.
#[derive(Clone, Copy)]
enum Watched {
    /// Nobody has looked since the last one.
    Nothing,
    /// There was no table: any relation may become it.
    Any,
    One(Table),
}

static WATCHED: BackendLocal<Cell<Watched>> = BackendLocal::new(Cell::new(Watched::Nothing));

type Callback = fn();

static CHANGED: BackendLocal<Cell<Option<Callback>>> = BackendLocal::new(Cell::new(None));

/// Calls `callback`, which must not fail, whenever the table may have changed in a way that matters,
/// in whatever session.
pub(crate) fn on_change(callback: Callback) {
    unsafe extern "C-unwind" fn at_invalidation(_argument: Datum, relation: Oid) {
        let counts = match WATCHED.get() {
            Watched::Nothing => false,
            Watched::Any => true,
            Watched::One(table) => relation == Oid::INVALID || relation == table.relation,
        };
        if counts {
            WATCHED.set(Watched::Nothing);
            if let Some(callback) = CHANGED.get() {
                callback();
            }
        }
    }
    CHANGED.set(Some(callback));
    // SAFETY: the callback lives as long as the library, which is never unloaded.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(at_invalidation), Datum::null()) }
}

/// At the beginning of a statement: where what the session has seen in the table counts for it, has it
/// learn of the changes that others have committed.
pub(super) fn look_for_changes() {
    if !matches!(WATCHED.get(), Watched::Nothing) && super::in_transaction() {
        // SAFETY: within a transaction; it may rebuild caches, as opening any table does.
        unsafe { pg_sys::AcceptInvalidationMessages() }
    }
}

/// An open relation, which a transaction that fails closes by itself.
struct Relation(pg_sys::Relation);

impl Relation {
    fn open(relation: Oid) -> Option<Self> {
        // SAFETY: it waits for whoever changes the table's definition; null where it has gone.
        let relation = unsafe {
            pg_sys::try_relation_open(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE)
        };
        (!relation.is_null()).then_some(Self(relation))
    }

    fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: it is open.
        unsafe { (*self.0).rd_att }
    }

    fn close(self) {
        // SAFETY: it is open; the lock stays no longer than the look.
        unsafe { pg_sys::relation_close(self.0, pg_sys::AccessShareLock as pg_sys::LOCKMODE) }
    }
}

/// Scans a relation by one key, or without, in a snapshot of this moment.
fn scan(
    relation: &Relation,
    index: Oid,
    key: Option<(usize, Option<Datum>, pg_sys::RegProcedure)>,
    mut visit: impl FnMut(pg_sys::HeapTuple) -> bool,
) {
    let mut keys = [pg_sys::ScanKeyData::default()];
    if let Some((place, value, equal)) = key {
        let flags = if value.is_some() { 0 } else { pg_sys::SK_ISNULL | pg_sys::SK_SEARCHNULL };
        let strategy = if value.is_some() { pg_sys::BTEqualStrategyNumber } else { 0 };
        // SAFETY: the key is ours. Names and issuers compare as in the collation C.
        unsafe {
            pg_sys::ScanKeyEntryInitialize(
                keys.as_mut_ptr(),
                flags as c_int,
                place as pg_sys::AttrNumber,
                strategy as pg_sys::StrategyNumber,
                Oid::INVALID,
                pg_sys::C_COLLATION_OID,
                if value.is_some() { equal } else { pg_sys::RegProcedure::INVALID },
                value.unwrap_or(Datum::null()),
            );
        }
    }
    // SAFETY: the relation is open; a scan without a snapshot of ours takes one of this moment. A
    // tuple is valid until the next.
    unsafe {
        let scan = pg_sys::systable_beginscan(
            relation.0,
            index,
            index != Oid::INVALID,
            std::ptr::null_mut(),
            c_int::from(key.is_some()),
            keys.as_mut_ptr(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() || !visit(tuple) {
                break;
            }
        }
        pg_sys::systable_endscan(scan);
    }
}

/// The value of a column; None where it is null.
fn attribute(relation: &Relation, tuple: pg_sys::HeapTuple, place: usize) -> Option<Datum> {
    let mut is_null = false;
    // SAFETY: the tuple is the relation's, and the column one that it has.
    let value =
        unsafe { pg_sys::heap_getattr(tuple, place as c_int, relation.descriptor(), &mut is_null) };
    (!is_null).then_some(value)
}

impl Table {
    /// Finds it; None where the extension is not installed in this database.
    pub(crate) fn find() -> Option<Self> {
        if let Watched::One(table) = WATCHED.get() {
            return Some(table);
        }
        // Before anything is read: what changes meanwhile counts.
        WATCHED.set(Watched::Any);
        // SAFETY: it reads a catalog; nought where there is no such extension.
        let extension = unsafe { pg_sys::get_extension_oid(EXTENSION.as_ptr(), true) };
        if extension == Oid::INVALID {
            return None;
        }
        let catalog = Relation::open(pg_sys::ExtensionRelationId)?;
        let mut schema = None;
        let (oid, place) = (Datum::from(extension), pg_sys::Anum_pg_extension_oid as usize);
        let key = (place, Some(oid), pg_sys::RegProcedure::from(pg_sys::F_OIDEQ));
        scan(&catalog, Oid::from(pg_sys::ExtensionOidIndexId), Some(key), |tuple| {
            schema = attribute(&catalog, tuple, pg_sys::Anum_pg_extension_extnamespace as usize);
            false
        });
        catalog.close();
        let schema = Oid::from(u32::try_from(schema?.value()).ok()?);
        // SAFETY: they read catalogs; nought where there is nothing.
        let (relation, is_ours) = unsafe {
            let relation = pg_sys::get_relname_relid(TABLE.as_ptr(), schema);
            let owner = pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, relation);
            let kind = pg_sys::get_rel_relkind(relation) as u8;
            (relation, owner == extension && kind == pg_sys::RELKIND_RELATION)
        };
        let table = is_ours.then_some(Self { relation, schema })?;
        // Unless it has just changed.
        if matches!(WATCHED.get(), Watched::Any) {
            WATCHED.set(Watched::One(table));
        }
        Some(table)
    }

    /// Reads rows until `visit` returns false. Nothing is borrowed meanwhile.
    pub(crate) fn read(self, rows: Rows<'_>, mut visit: impl FnMut(Row) -> bool) {
        let Some(relation) = Relation::open(self.relation) else {
            return;
        };
        // Another's, put in its place under an identity that came round again.
        // SAFETY: it is open.
        if unsafe { (*relation.descriptor()).natts } < column::COUNT as c_int {
            relation.close();
            return;
        }
        let text = |text: &str| Varlena::text(text).ok();
        let (index, wanted) = match rows {
            Rows::All => (None, None),
            Rows::Named(name) => (Some(c"providers_pkey"), Some((column::NAME, text(name)))),
            Rows::Serving(Some(issuer)) => {
                (Some(c"providers_issuer_key"), Some((column::ISSUER, text(issuer))))
            }
            Rows::Serving(None) => (Some(c"providers_issuer_key"), Some((column::ISSUER, None))),
        };
        // A name that the database's encoding cannot have is nobody's.
        let is_null = matches!(rows, Rows::Serving(None));
        if matches!(wanted, Some((_, None))) && !is_null {
            relation.close();
            return;
        }
        let key = wanted.as_ref().map(|(place, value)| {
            let equal = pg_sys::RegProcedure::from(pg_sys::F_TEXTEQ);
            (*place, value.as_ref().map(Varlena::datum), equal)
        });
        // SAFETY: it reads a catalog.
        let index = index.map_or(Oid::INVALID, |name| unsafe {
            pg_sys::get_relname_relid(name.as_ptr(), self.schema)
        });
        scan(&relation, index, key, |tuple| match Row::read(&relation, tuple) {
            Some(row) => visit(row),
            None => true,
        });
        relation.close();
    }

    /// The one row that is meant.
    pub(crate) fn row(self, rows: Rows<'_>) -> Option<Row> {
        let mut found = None;
        self.read(rows, |row| {
            found = Some(row);
            false
        });
        found
    }

    /// Raises Postgres' own error where the session's role may not change rows.
    pub(crate) fn demand_update(self) {
        // SAFETY: they read catalogs and static variables; the name is a C string.
        unsafe {
            let mode = pg_sys::ACL_UPDATE as pg_sys::AclMode;
            let result = pg_sys::pg_class_aclcheck(self.relation, pg_sys::GetUserId(), mode);
            if result != pg_sys::AclResult::ACLCHECK_OK {
                let kind = pg_sys::ObjectType::OBJECT_TABLE;
                pg_sys::aclcheck_error(result, kind, TABLE.as_ptr());
            }
        }
    }

    /// The table's own number among the objects of the database.
    pub(crate) fn number(self) -> u32 {
        self.relation.to_u32()
    }

    /// Runs a statement on the table, as its owner and with the restrictions of maintenance: its
    /// triggers are somebody's code. `$1` and the like stand for the texts, `@table` for the table.
    pub(crate) fn update(self, statement: &str, arguments: &[Option<&str>]) {
        use pgrx::datum::DatumWithOid;
        let Some(relation) = Relation::open(self.relation) else {
            return;
        };
        // SAFETY: it is open.
        let owner = unsafe { (*(*relation.0).rd_rel).relowner };
        relation.close();
        let (mut user, mut context) = (Oid::INVALID, 0);
        // SAFETY: the two calls belong together; a transaction that fails restores both itself.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
            let restricted = context | pg_sys::SECURITY_RESTRICTED_OPERATION as c_int;
            pg_sys::SetUserIdAndSecContext(owner, restricted);
        }
        // SAFETY: they read catalogs, and give C strings.
        let name = unsafe {
            let schema = pg_sys::get_namespace_name(self.schema);
            let table = pg_sys::get_rel_name(self.relation);
            if schema.is_null() || table.is_null() {
                return;
            }
            CStr::from_ptr(pg_sys::quote_qualified_identifier(schema, table)).to_string_lossy()
        };
        let statement = statement.replace("@table", &name);
        // In the database's encoding, which has what came from there, and ASCII.
        let arguments: Vec<Option<Varlena>> = arguments
            .iter()
            .map(|argument| argument.and_then(|argument| Varlena::text(argument).ok()))
            .collect();
        let arguments: Vec<DatumWithOid<'_>> = arguments
            .iter()
            .map(|argument| {
                let datum = argument.as_ref().map(Varlena::datum);
                // SAFETY: it is a text, which outlives the statement.
                unsafe { DatumWithOid::new(datum, pg_sys::TEXTOID) }
            })
            .collect();
        let outcome = pgrx::Spi::connect_mut(|client| {
            client.update(&statement, None, &arguments).map(|_| ())
        });
        if let Err(error) = outcome {
            super::error::log(&format!("pg_session_jwt: auth.providers: {error}"));
        }
        // SAFETY: as above.
        unsafe { pg_sys::SetUserIdAndSecContext(user, context) };
    }
}

impl Row {
    /// None where it cannot be read, as in another encoding.
    fn read(relation: &Relation, tuple: pg_sys::HeapTuple) -> Option<Self> {
        let text = |place| {
            let bytes = text_datum_bytes(attribute(relation, tuple, place)?);
            from_server_encoding(&bytes)
        };
        let time =
            |place| attribute(relation, tuple, place).map(|value| value.value() as Timestamp);
        Some(Self {
            document: document(relation.descriptor(), tuple)?,
            name: text(column::NAME)?,
            issuer: text(column::ISSUER),
            fetching: Fetching {
                keys_url: text(column::KEYS_URL),
                etag: text(column::ETAG),
                last_modified: text(column::LAST_MODIFIED),
                last_fetch: time(column::LAST_FETCH),
                last_demand: time(column::LAST_DEMAND),
                next_refresh: time(column::NEXT_REFRESH),
                last_success: time(column::LAST_SUCCESS),
                failures: attribute(relation, tuple, column::FAILURES)
                    .map_or(0, |value| value.value() as i32),
                last_error: text(column::LAST_ERROR),
            },
        })
    }
}

/// What a row says of the provider, as a JSON object in UTF-8.
fn document(descriptor: pg_sys::TupleDesc, tuple: pg_sys::HeapTuple) -> Option<String> {
    // SAFETY: the tuple is of that type. What is made of it is a copy in the current context;
    // `row_to_json` returns a plain text.
    unsafe {
        let count = usize::try_from((*descriptor).natts).unwrap_or(0);
        let (mut values, mut nulls) = (vec![Datum::null(); count], vec![true; count]);
        pg_sys::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        for is_null in nulls.iter_mut().skip(column::LAST_OF_DOCUMENT) {
            *is_null = true;
        }
        let copy = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        let row = pg_sys::heap_copy_tuple_as_datum(copy, descriptor);
        pg_sys::heap_freetuple(copy);
        let text = document_of(row);
        pg_sys::pfree(row.cast_mut_ptr());
        text
    }
}

/// The same of a row that is an argument.
///
/// # Safety
/// The datum is a composite value.
pub(crate) unsafe fn document_of(row: Datum) -> Option<String> {
    // SAFETY: the caller's; the function takes any composite value.
    let text = unsafe { pgrx::direct_function_call_as_datum(pg_sys::row_to_json, &[Some(row)]) }?;
    let document = from_server_encoding(&text_datum_bytes(text));
    // SAFETY: it was made for us.
    unsafe { pg_sys::pfree(text.cast_mut_ptr()) };
    document
}

/// What a trigger is told of a row.
pub(crate) struct Change {
    /// What the provider was; None where it is new.
    pub(crate) old: Option<String>,
    /// What it becomes; None where it is removed.
    pub(crate) new: Option<String>,
}

/// Runs the row trigger: `body` judges the change. Where it accepts one that makes a difference,
/// every session's callback of [`on_change`] is called once it is committed, and this one's with the
/// next command.
///
/// # Safety
/// Postgres makes the call.
pub(crate) unsafe fn trigger(
    fcinfo: FunctionCallInfo,
    body: fn(&Change) -> Result<(), Rejection>,
) -> Result<Datum, Rejection> {
    let misused = || {
        Rejection::new(session_jwt::Code::Configuration, "function is a trigger's")
            .with_detail("It is for the rows of auth.providers, before they change.")
    };
    // SAFETY: a trigger's context is its data; the tuples are of the relation's type.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            return Err(misused());
        }
        let data = &*context.cast::<pg_sys::TriggerData>();
        let relation = data.tg_relation;
        let is_table = Table::find().is_some_and(|table| table.relation == (*relation).rd_id);
        let before_row = pg_sys::TRIGGER_EVENT_BEFORE | pg_sys::TRIGGER_EVENT_ROW;
        let timing = pg_sys::TRIGGER_EVENT_TIMINGMASK | pg_sys::TRIGGER_EVENT_ROW;
        if !is_table || data.tg_event & timing != before_row {
            return Err(misused());
        }
        let describe = |tuple| document((*relation).rd_att, tuple).ok_or_else(unreadable);
        let event = data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK;
        let (change, result) = match event {
            pg_sys::TRIGGER_EVENT_INSERT => {
                (Change { old: None, new: Some(describe(data.tg_trigtuple)?) }, data.tg_trigtuple)
            }
            pg_sys::TRIGGER_EVENT_UPDATE => {
                let old = Some(describe(data.tg_trigtuple)?);
                (Change { old, new: Some(describe(data.tg_newtuple)?) }, data.tg_newtuple)
            }
            _ => (Change { old: Some(String::new()), new: None }, data.tg_trigtuple),
        };
        body(&change)?;
        if change.old != change.new {
            pg_sys::CacheInvalidateRelcache(relation);
        }
        Ok(Datum::from(result))
    }
}

fn unreadable() -> Rejection {
    Rejection::new(session_jwt::Code::Configuration, "provider cannot be read")
        .with_detail("The database's encoding does not give valid UTF-8.")
}
