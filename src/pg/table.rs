//! The table of providers: read as Postgres reads its own catalogs, whoever the session's role is,
//! with the newest snapshot, and with none of the executor's hooks, policies or search paths.

use std::cell::Cell;
use std::ffi::{CStr, c_int};

use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use session_jwt::{Code, MAX_ROW_BYTES, MAX_TOKEN_BYTES, Rejection};

use super::datum::{Varlena, from_server_encoding, raw_size, text_datum_bytes};
use super::function::guarded;
use super::{BackendLocal, Timestamp};

const EXTENSION: &CStr = c"pg_session_jwt";
const TABLE: &CStr = c"providers";

/// The columns, in the order of the install script. A table that was altered is not read: a value of
/// another type would be taken for what it is not, and conversions of a type of somebody's own would
/// run that one's code.
const COLUMNS: [(&CStr, Oid); 33] = [
    (c"name", pg_sys::TEXTOID),
    (c"issuer", pg_sys::TEXTOID),
    (c"audience", pg_sys::TEXTARRAYOID),
    (c"jwks", pg_sys::JSONOID),
    (c"secret", pg_sys::TEXTOID),
    (c"jwks_url", pg_sys::TEXTOID),
    (c"algorithms", pg_sys::TEXTARRAYOID),
    (c"leeway", pg_sys::INT4OID),
    (c"required_claims", pg_sys::TEXTARRAYOID),
    (c"user_id_claim", pg_sys::TEXTOID),
    (c"role_claim", pg_sys::TEXTOID),
    (c"default_role", pg_sys::TEXTOID),
    (c"allowed_roles", pg_sys::TEXTARRAYOID),
    (c"allowed_roles_claim", pg_sys::TEXTOID),
    (c"claims_namespace", pg_sys::TEXTOID),
    (c"monotonic_jti", pg_sys::BOOLOID),
    (c"typ", pg_sys::TEXTARRAYOID),
    (c"keep_keys", pg_sys::INT4OID),
    (c"public_key", pg_sys::TEXTOID),
    (c"require", pg_sys::JSONBOID),
    (c"max_token_age", pg_sys::INT4OID),
    (c"fetched_jwks", pg_sys::JSONOID),
    (c"fetched_from", pg_sys::TEXTOID),
    (c"keys_url", pg_sys::TEXTOID),
    (c"etag", pg_sys::TEXTOID),
    (c"last_modified", pg_sys::TEXTOID),
    (c"last_fetch", pg_sys::TIMESTAMPTZOID),
    (c"last_demand", pg_sys::TIMESTAMPTZOID),
    (c"next_refresh", pg_sys::TIMESTAMPTZOID),
    (c"last_success", pg_sys::TIMESTAMPTZOID),
    (c"failures", pg_sys::INT4OID),
    (c"last_error", pg_sys::TEXTOID),
    (c"passed_over", pg_sys::TEXTOID),
];

/// How many bytes a value in a column of that type may have; None where all have the same size. A claim
/// longer than a token matches nothing, and neither does a longer issuer or role.
fn longest(kind: Oid) -> Option<usize> {
    match kind {
        pg_sys::TEXTOID => Some(MAX_TOKEN_BYTES),
        pg_sys::TEXTARRAYOID | pg_sys::JSONBOID => Some(4 * MAX_TOKEN_BYTES),
        pg_sys::JSONOID => Some(MAX_ROW_BYTES),
        _ => None,
    }
}

/// The trigger that checks rows and tells of changes.
const TRIGGER: &CStr = c"check_provider";

/// The places of the columns that are looked at by themselves, from one.
mod column {
    pub(super) const NAME: usize = 1;
    pub(super) const ISSUER: usize = 2;
    pub(super) const JWKS: usize = 4;
    pub(super) const SECRET: usize = 5;
    pub(super) const JWKS_URL: usize = 6;
    pub(super) const PUBLIC_KEY: usize = 19;
    /// Those until here are what a provider is.
    pub(super) const LAST_OF_DOCUMENT: usize = 23;
    pub(super) const KEYS_URL: usize = LAST_OF_DOCUMENT + 1;
    pub(super) const ETAG: usize = LAST_OF_DOCUMENT + 2;
    pub(super) const LAST_MODIFIED: usize = LAST_OF_DOCUMENT + 3;
    pub(super) const LAST_FETCH: usize = LAST_OF_DOCUMENT + 4;
    pub(super) const LAST_DEMAND: usize = LAST_OF_DOCUMENT + 5;
    pub(super) const NEXT_REFRESH: usize = LAST_OF_DOCUMENT + 6;
    pub(super) const LAST_SUCCESS: usize = LAST_OF_DOCUMENT + 7;
    pub(super) const FAILURES: usize = LAST_OF_DOCUMENT + 8;
    pub(super) const LAST_ERROR: usize = LAST_OF_DOCUMENT + 9;
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
pub(crate) struct Row {
    /// What the provider is, as a JSON object. It stays the same when only what is below changes.
    pub(crate) document: String,
    pub(crate) name: String,
    pub(crate) issuer: Option<String>,
    pub(crate) fetching: Fetching,
}

/// How fetching a row's keys goes.
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
        guarded(|| unsafe { pg_sys::AcceptInvalidationMessages() });
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

    /// Refuses a table of providers whose columns are not those that were installed. More of them, at
    /// the end, do not matter.
    fn check_columns(&self) -> Result<(), Rejection> {
        // SAFETY: it is open, and so many columns are there.
        let columns = unsafe {
            let descriptor = &*self.descriptor();
            descriptor.attrs.as_slice(usize::try_from(descriptor.natts).unwrap_or(0))
        };
        let mut found = columns.iter();
        for (name, kind) in COLUMNS {
            let is_there = found.next().is_some_and(|column| {
                // SAFETY: names end with a NUL.
                let found = unsafe { CStr::from_ptr(column.attname.data.as_ptr()) };
                !column.attisdropped && found == name && column.atttypid == kind
            });
            if !is_there {
                let name = name.to_string_lossy();
                return Err(altered(format!(
                    "Its column {name} is not where it was, or as it was."
                )));
            }
        }
        Ok(())
    }

    /// Refuses one whose trigger does not see every change.
    fn check_trigger(&self) -> Result<(), Rejection> {
        // SAFETY: it is open; what describes its triggers is there where it has any.
        let triggers = unsafe {
            match (*self.0).trigdesc.as_ref() {
                Some(all) if all.numtriggers > 0 => {
                    std::slice::from_raw_parts(all.triggers, all.numtriggers as usize)
                }
                _ => &[],
            }
        };
        let is_on = triggers.iter().any(|trigger| {
            // SAFETY: the name is a C string.
            let name = unsafe { CStr::from_ptr(trigger.tgname) };
            name == TRIGGER && trigger.tgenabled as u8 == pg_sys::TRIGGER_FIRES_ALWAYS
        });
        if is_on {
            return Ok(());
        }
        Err(altered("Its trigger check_provider does not see every change.".to_owned())
            .with_hint("Use ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER check_provider."))
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

/// The value of a column that is a text, in UTF-8; None also where it is longer than the trigger lets in.
fn text_of(relation: &Relation, tuple: pg_sys::HeapTuple, place: usize) -> Option<String> {
    let value = attribute(relation, tuple, place)?;
    // SAFETY: the column is a text.
    let size = unsafe { raw_size(value) };
    (size <= MAX_TOKEN_BYTES).then(|| from_server_encoding(&text_datum_bytes(value)))?
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
    ///
    /// # Errors
    /// Where the table was altered.
    pub(crate) fn read(
        self,
        rows: Rows<'_>,
        visit: impl FnMut(Row) -> bool,
    ) -> Result<(), Rejection> {
        let Some(relation) = Relation::open(self.relation) else {
            return Ok(());
        };
        let checked = relation.check_columns().and_then(|()| relation.check_trigger());
        if checked.is_ok() {
            self.scan_rows(&relation, rows, visit);
        }
        relation.close();
        checked
    }

    fn scan_rows(self, relation: &Relation, rows: Rows<'_>, mut visit: impl FnMut(Row) -> bool) {
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
            return;
        }
        let key = wanted.as_ref().map(|(place, value)| {
            let equal = pg_sys::RegProcedure::from(pg_sys::F_TEXTEQ);
            (*place, value.as_ref().map(Varlena::datum), equal)
        });
        // SAFETY: they read catalogs; an index of the name may be another table's.
        let index = index.map_or(Oid::INVALID, |name| unsafe {
            let index = pg_sys::get_relname_relid(name.as_ptr(), self.schema);
            let is_its =
                index != Oid::INVALID && pg_sys::IndexGetRelation(index, true) == self.relation;
            if is_its { index } else { Oid::INVALID }
        });
        scan(relation, index, key, |tuple| match Row::read(relation, tuple) {
            Some(row) => visit(row),
            None => true,
        });
    }

    /// The one row that is meant.
    ///
    /// # Errors
    /// As for [`Table::read`].
    pub(crate) fn row(self, rows: Rows<'_>) -> Result<Option<Row>, Rejection> {
        let mut found = None;
        self.read(rows, |row| {
            found = Some(row);
            false
        })?;
        Ok(found)
    }

    /// The names of the rows whose keys are fetched, and of which nobody knows when that is due: for
    /// they were never asked for where they are now.
    pub(crate) fn unasked(self) -> Vec<String> {
        let mut names = Vec::new();
        if let Some(relation) = Relation::open(self.relation) {
            if relation.check_columns().is_ok() {
                scan(&relation, Oid::INVALID, None, |tuple| {
                    let is_null = |place| attribute(&relation, tuple, place).is_none();
                    let own = [column::JWKS, column::PUBLIC_KEY, column::SECRET];
                    let is_fetched = !is_null(column::JWKS_URL) || own.into_iter().all(is_null);
                    if is_fetched && is_null(column::NEXT_REFRESH) {
                        names.extend(text_of(&relation, tuple, column::NAME));
                    }
                    true
                });
            }
            relation.close();
        }
        names
    }

    /// Raises Postgres' own error where the session's role lacks SELECT or UPDATE on the table.
    pub(crate) fn check_privileges(self) {
        // `pg_class_aclcheck` asks for any one of the privileges that it is given.
        for privilege in [pg_sys::ACL_SELECT, pg_sys::ACL_UPDATE] {
            // SAFETY: they read catalogs and static variables; the name is a C string.
            unsafe {
                let mode = privilege as pg_sys::AclMode;
                let result = pg_sys::pg_class_aclcheck(self.relation, pg_sys::GetUserId(), mode);
                if result != pg_sys::AclResult::ACLCHECK_OK {
                    let kind = pg_sys::ObjectType::OBJECT_TABLE;
                    pg_sys::aclcheck_error(result, kind, TABLE.as_ptr());
                }
            }
        }
    }

    /// Whether a relation is the table of providers.
    pub(crate) fn is(self, relation: Oid) -> bool {
        self.relation == relation
    }

    /// The table's own number among the objects of the database.
    pub(crate) fn number(self) -> u32 {
        self.relation.to_u32()
    }

    /// Runs a statement on the table, as its owner and with the restrictions of maintenance: its
    /// triggers are somebody's code. `$1` and the like stand for the texts, `@table` for the table.
    /// How many rows that concerned.
    pub(crate) fn update(self, statement: &str, arguments: &[Option<&str>]) -> usize {
        use pgrx::datum::DatumWithOid;
        let Some(relation) = Relation::open(self.relation) else {
            return 0;
        };
        // SAFETY: it is open.
        let owner = unsafe { (*(*relation.0).rd_rel).relowner };
        relation.close();
        // SAFETY: they read catalogs, and give C strings.
        let name = unsafe {
            let schema = pg_sys::get_namespace_name(self.schema);
            let table = pg_sys::get_rel_name(self.relation);
            if schema.is_null() || table.is_null() {
                return 0;
            }
            CStr::from_ptr(pg_sys::quote_qualified_identifier(schema, table)).to_string_lossy()
        };
        let (mut user, mut context) = (Oid::INVALID, 0);
        // SAFETY: the two calls belong together; a transaction that fails restores both itself.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
            let restricted = context | pg_sys::SECURITY_RESTRICTED_OPERATION as c_int;
            pg_sys::SetUserIdAndSecContext(owner, restricted);
        }
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
            client.update(&statement, None, &arguments).map(|rows| rows.len())
        });
        // SAFETY: as above.
        unsafe { pg_sys::SetUserIdAndSecContext(user, context) };
        outcome.unwrap_or_else(|error| {
            super::error::log(&format!("pg_session_jwt: auth.providers: {error}"));
            0
        })
    }
}

impl Row {
    /// None where it cannot be read, as in another encoding.
    fn read(relation: &Relation, tuple: pg_sys::HeapTuple) -> Option<Self> {
        let text = |place| text_of(relation, tuple, place);
        let time =
            |place| attribute(relation, tuple, place).map(|value| value.value() as Timestamp);
        Some(Self {
            document: document(relation.descriptor(), tuple).ok()?,
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
///
/// # Errors
/// Where a value or all together are too long, which is found out before anything is detoasted, and
/// where the row has no equal in UTF-8.
fn document(descriptor: pg_sys::TupleDesc, tuple: pg_sys::HeapTuple) -> Result<String, Rejection> {
    // SAFETY: the tuple is of that type, whose columns are those that were installed. What is made of it
    // is a copy in the current context; `row_to_json` returns a plain text.
    unsafe {
        let count = usize::try_from((*descriptor).natts).unwrap_or(0);
        let (mut values, mut nulls) = (vec![Datum::null(); count], vec![true; count]);
        pg_sys::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        let mut total = 0;
        for (place, (name, kind)) in COLUMNS.into_iter().enumerate() {
            let (Some(value), Some(false)) = (values.get(place), nulls.get(place)) else {
                continue;
            };
            let Some(limit) = longest(kind) else {
                continue;
            };
            let size = raw_size(*value);
            // Nothing reads why keys were passed over.
            if size > limit && place < column::LAST_ERROR {
                return Err(too_long(&format!("column {}", name.to_string_lossy()), limit));
            }
            if place < column::LAST_OF_DOCUMENT {
                total += size;
            }
        }
        if total > MAX_ROW_BYTES {
            return Err(too_long("row", MAX_ROW_BYTES));
        }
        for is_null in nulls.iter_mut().skip(column::LAST_OF_DOCUMENT) {
            *is_null = true;
        }
        let copy = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        let row = pg_sys::heap_copy_tuple_as_datum(copy, descriptor);
        pg_sys::heap_freetuple(copy);
        let text = pgrx::direct_function_call_as_datum(pg_sys::row_to_json, &[Some(row)]);
        pg_sys::pfree(row.cast_mut_ptr());
        let text = text.ok_or_else(unreadable)?;
        // Escapes make it longer.
        if raw_size(text) > MAX_ROW_BYTES {
            return Err(too_long("row as JSON", MAX_ROW_BYTES));
        }
        let document = from_server_encoding(&text_datum_bytes(text));
        pg_sys::pfree(text.cast_mut_ptr());
        document.ok_or_else(unreadable)
    }
}

/// What a trigger is told of a row.
pub(crate) struct Change {
    /// What the provider was; None where it is new.
    pub(crate) old: Option<String>,
    /// What it becomes; None where it is removed.
    pub(crate) new: Option<String>,
}

/// What the row trigger makes of a change.
#[derive(PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    /// It does not matter any more how fetching keys went.
    Anew,
}

/// Runs the row trigger: `body` judges the change. Where it accepts one that makes a difference,
/// every session's callback of [`on_change`] is called once it is committed, and this one's with the
/// next command.
///
/// # Safety
/// Postgres makes the call.
pub(crate) unsafe fn trigger(
    fcinfo: FunctionCallInfo,
    body: fn(&Change) -> Result<Verdict, Rejection>,
) -> Result<Datum, Rejection> {
    let misused = || {
        Rejection::new(Code::Configuration, "function is a trigger's")
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
        Relation(relation).check_columns()?;
        let describe = |tuple| document((*relation).rd_att, tuple);
        let event = data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK;
        let (change, mut result) = match event {
            pg_sys::TRIGGER_EVENT_INSERT => {
                (Change { old: None, new: Some(describe(data.tg_trigtuple)?) }, data.tg_trigtuple)
            }
            pg_sys::TRIGGER_EVENT_UPDATE => {
                // One that cannot be read, for the trigger was off when it came, is another.
                let old = Some(describe(data.tg_trigtuple).unwrap_or_default());
                (Change { old, new: Some(describe(data.tg_newtuple)?) }, data.tg_newtuple)
            }
            _ => (Change { old: Some(String::new()), new: None }, data.tg_trigtuple),
        };
        if body(&change)? == Verdict::Anew {
            result = forget_fetching(result, (*relation).rd_att);
        }
        if change.old != change.new {
            pg_sys::CacheInvalidateRelcache(relation);
        }
        Ok(Datum::from(result))
    }
}

/// The same row without what is known of how fetching went.
///
/// # Safety
/// The tuple is of that type.
unsafe fn forget_fetching(
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
) -> pg_sys::HeapTuple {
    let mut places = [
        column::LAST_FETCH,
        column::LAST_DEMAND,
        column::NEXT_REFRESH,
        column::LAST_SUCCESS,
        column::FAILURES,
        column::LAST_ERROR,
    ]
    .map(|place| place as c_int);
    let (mut values, mut nulls) = (places.map(|_| Datum::null()), places.map(|_| true));
    // SAFETY: the caller's; the arrays are as long as is said.
    unsafe {
        pg_sys::heap_modify_tuple_by_cols(
            tuple,
            descriptor,
            places.len() as c_int,
            places.as_mut_ptr(),
            values.as_mut_ptr(),
            nulls.as_mut_ptr(),
        )
    }
}

fn altered(detail: String) -> Rejection {
    Rejection::new(Code::Configuration, "table of providers was altered").with_detail(detail)
}

fn too_long(what: &str, limit: usize) -> Rejection {
    Rejection::new(Code::Configuration, "provider is too long")
        .with_detail(format!("The limit for the {what} is {limit} bytes."))
}

fn unreadable() -> Rejection {
    Rejection::new(Code::Configuration, "provider cannot be read")
        .with_detail("The database's encoding does not give valid UTF-8.")
}
