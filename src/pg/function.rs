//! SQL functions in C's calling convention (version 1), over safe Rust ones.

use std::ffi::c_char;

use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Pg_finfo_record};
use session_jwt::{Code, Rejection};

use super::datum::{
    Reference, Varlena, from_server_encoding, plain_text, raw_size, text_datum_bytes,
};
use super::relation::Oid;
use super::trigger::{RowChange, StoredRow};
use super::{definition, error, memory};

/// Runs safe code that Postgres called: a panic, an error that Postgres raised below it, or a lack of
/// memory becomes an error to Postgres once the Rust frames are gone.
pub(crate) fn guarded<T>(body: impl FnOnce() -> T) -> T {
    let body = std::panic::AssertUnwindSafe(|| memory::checked(body));
    // SAFETY: we are called by Postgres, on its thread; the frames above own nothing of Rust's.
    unsafe { pg_sys::panic::pgrx_extern_c_guard(body) }
}

/// The same for code that refuses: the refusal is raised with its own SQLSTATE.
#[inline(never)]
pub(super) fn guarded_result<T>(body: impl FnOnce() -> Result<T, Rejection>) -> T {
    match guarded(body) {
        Ok(value) => value,
        // Nothing else is alive in this frame.
        Err(rejection) => error::raise(rejection),
    }
}

/// What a function returns: a Datum, or SQL NULL.
pub(crate) type Outcome = Result<Option<Datum>, Rejection>;

/// How long an argument may be. Every accessor of [`Arguments`] for a type of varying length takes
/// one, and asks before it detoasts or copies anything: a client can pass up to 1 GB.
pub(crate) struct Limit {
    /// The length of the value in bytes, without its header, however it is stored.
    pub(crate) bytes: usize,
    /// How a longer value is refused.
    pub(crate) code: Code,
    pub(crate) message: &'static str,
}

impl Limit {
    /// A limit whose violation is a wrong argument (22023).
    pub(crate) const fn new(bytes: usize, message: &'static str) -> Self {
        Self { bytes, code: Code::Configuration, message }
    }

    /// # Safety
    /// The datum is a valid varlena.
    unsafe fn check(&self, datum: Datum) -> Result<(), Rejection> {
        // SAFETY: the caller's.
        if unsafe { raw_size(datum) } <= self.bytes {
            return Ok(());
        }
        let detail = format!("The limit is {} bytes.", self.bytes);
        Err(Rejection::new(self.code, self.message).with_detail(detail))
    }
}

/// The arguments of one call.
pub(crate) struct Arguments(FunctionCallInfo);

impl Arguments {
    /// The argument at that place, which is a `text`; None where it is null.
    ///
    /// Bytes, not a `str`: in a database of another encoding it need not be UTF-8.
    pub(crate) fn text(&self, place: usize, limit: &Limit) -> Result<Option<&[u8]>, Rejection> {
        // SAFETY: the SQL declaration makes the argument a text; the memory lasts for the call.
        unsafe {
            let Some(datum) = pgrx::fcinfo::pg_getarg_datum(self.0, place) else {
                return Ok(None);
            };
            limit.check(datum)?;
            let text = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
            Ok(Some(pgrx::varlena::varlena_to_byte_slice(text)))
        }
    }

    /// The same for a value that another check refuses where it is too long: no more of it than tells
    /// that it is.
    pub(crate) fn prefix(&self, place: usize, limit: &Limit) -> Option<&[u8]> {
        // SAFETY: as for `text`. A slice of a value that is stored elsewhere is fetched alone.
        unsafe {
            let datum = pgrx::fcinfo::pg_getarg_datum(self.0, place)?;
            let text = match limit.check(datum) {
                Ok(()) => pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr()),
                Err(_) => {
                    let end = i32::try_from(limit.bytes + 1).unwrap_or(i32::MAX);
                    pg_sys::pg_detoast_datum_slice(datum.cast_mut_ptr(), 0, end)
                }
            };
            Some(pgrx::varlena::varlena_to_byte_slice(text))
        }
    }

    /// The same as [`Arguments::text`], in UTF-8; None where it is null.
    pub(crate) fn utf8(&self, place: usize, limit: &Limit) -> Result<Option<String>, Rejection> {
        let Some(text) = self.text(place, limit)? else {
            return Ok(None);
        };
        let text = from_server_encoding(text);
        text.map(Some)
            .ok_or_else(|| Rejection::new(Code::Configuration, "text cannot be converted to UTF-8"))
    }

    /// The argument at that place, which is a `boolean`; false where it is null.
    pub(crate) fn boolean(&self, place: usize) -> bool {
        // SAFETY: the SQL declaration makes the argument a boolean.
        unsafe {
            pgrx::fcinfo::pg_getarg_datum(self.0, place).is_some_and(|datum| datum.value() != 0)
        }
    }
}

/// Runs a `BEFORE` trigger for rows. `body` gets None where the function is called in another way.
///
/// # Safety
/// Postgres makes the call.
pub(crate) unsafe fn call_trigger(
    fcinfo: FunctionCallInfo,
    body: fn(Option<&RowChange<'_>>) -> Result<StoredRow, Rejection>,
) -> Datum {
    guarded_result(|| {
        // SAFETY: the caller's; the change is used only during the call.
        let change = unsafe { RowChange::of_call(fcinfo) };
        body(change.as_ref()).map(StoredRow::datum)
    })
}

/// What a function that returns `void` returns.
pub(crate) const VOID: Datum = Datum::null();

/// Runs a function that is not on the hot path.
///
/// # Safety
/// Postgres makes the call, with the arguments that the SQL declaration names.
pub(crate) unsafe fn call(fcinfo: FunctionCallInfo, body: fn(&Arguments) -> Outcome) -> Datum {
    let outcome = guarded_result(|| body(&Arguments(fcinfo)));
    // SAFETY: the caller's.
    unsafe { answer(fcinfo, outcome) }
}

/// Runs a function that ends in a change of a setting, made from a frame that owns nothing, for
/// Postgres raises the error of a refused value straight from there.
///
/// # Safety
/// As for [`call`].
pub(crate) unsafe fn call_setting(
    fcinfo: FunctionCallInfo,
    body: fn(&Arguments) -> SettingChange,
) -> Datum {
    let change = guarded(|| body(&Arguments(fcinfo)).prepare());
    // SAFETY: name and value are C strings, the latter in memory of the current context; no frame
    // up to Postgres owns anything.
    unsafe {
        set_config_option(
            change.name,
            change.value,
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            change.action,
            true,
            0,
            false,
        );
        answer(fcinfo, Some(VOID))
    }
}

/// Runs a reader: `ready` is the hot path, which neither allocates nor fails; where it has
/// nothing, `resolve` finds out.
///
/// # Safety
/// As for [`call`].
#[inline(always)]
pub(crate) unsafe fn read(
    fcinfo: FunctionCallInfo,
    ready: impl FnOnce() -> Option<Option<Reference>>,
    resolve: fn() -> Result<Option<Reference>, Rejection>,
) -> Datum {
    #[cold]
    #[inline(never)]
    unsafe fn slow(
        fcinfo: FunctionCallInfo,
        resolve: fn() -> Result<Option<Reference>, Rejection>,
    ) -> Datum {
        let value = guarded_result(resolve);
        // SAFETY: the caller's.
        unsafe { answer(fcinfo, value.map(Reference::datum)) }
    }
    // SAFETY: the caller's.
    unsafe {
        match ready() {
            Some(value) => answer(fcinfo, value.map(Reference::datum)),
            None => slow(fcinfo, resolve),
        }
    }
}

/// What a reader with an argument answers.
pub(crate) struct Answer {
    /// Whose value it is.
    pub(crate) owner: u64,
    pub(crate) value: Option<Reference>,
    /// Whether the value lasts for as long as the owner is the current one.
    pub(crate) lasting: bool,
}

/// What a reader with an argument keeps at its place in a plan (`fn_extra`): what it was asked and
/// has answered there the last time.
#[derive(Clone, Copy)]
struct CallSite {
    owner: u64,
    value: Option<Reference>,
    argument: [u8; CallSite::LONGEST],
    length: usize,
}

impl CallSite {
    /// How long an argument may be that is kept, in bytes.
    const LONGEST: usize = 64;

    /// Whose answer there is to the argument of this call, if any.
    ///
    /// # Safety
    /// As for [`call`]; the argument is a `text`.
    #[inline(always)]
    unsafe fn recall(fcinfo: FunctionCallInfo, owner: u64) -> Option<Option<Reference>> {
        // SAFETY: Postgres passes a call's own struct, whose `flinfo`, where it has one, is the call
        // site's; `fn_extra` is null or what `remember` left there.
        let (site, argument) = unsafe {
            let function = (*fcinfo).flinfo.as_ref()?;
            let site = function.fn_extra.cast::<Self>().as_ref()?;
            let argument = (*fcinfo).args.as_slice(1).first()?;
            if argument.isnull {
                return None;
            }
            (site, plain_text(argument.value)?)
        };
        (site.owner == owner && site.argument.get(..site.length)? == argument).then_some(site.value)
    }

    /// Keeps an answer where there is room for its argument.
    ///
    /// # Safety
    /// As for [`call`].
    unsafe fn remember(fcinfo: FunctionCallInfo, argument: &[u8], answer: &Answer) {
        let mut site = Self {
            owner: answer.owner,
            value: answer.value,
            argument: [0; _],
            length: argument.len(),
        };
        let Some(place) = site.argument.get_mut(..argument.len()) else {
            return;
        };
        place.copy_from_slice(argument);
        // SAFETY: as above; nothing else is left at the places of these functions.
        unsafe { leave(fcinfo, site) };
    }
}

/// Leaves something at the place of a call in its plan (`fn_extra`).
///
/// # Safety
/// As for [`call`]; whatever is left at this place is a `T`.
unsafe fn leave<T: Copy>(fcinfo: FunctionCallInfo, site: T) {
    // SAFETY: the caller's; memory of `fn_mcxt` lives as long as the call site.
    unsafe {
        let Some(function) = (*fcinfo).flinfo.as_mut() else {
            return;
        };
        if function.fn_extra.is_null() {
            function.fn_extra = pg_sys::MemoryContextAlloc(function.fn_mcxt, size_of::<T>());
        }
        function.fn_extra.cast::<T>().write(site);
    }
}

/// Runs a reader with a `text` argument: where its call site has kept the answer to the same
/// argument, and it belongs to the current `owner`, nothing else is done.
///
/// # Safety
/// As for [`call`].
#[inline(always)]
pub(crate) unsafe fn read_of(
    fcinfo: FunctionCallInfo,
    limit: &Limit,
    owner: impl FnOnce() -> Option<u64>,
    resolve: fn(&[u8]) -> Result<Answer, Rejection>,
) -> Datum {
    #[cold]
    #[inline(never)]
    unsafe fn slow(
        fcinfo: FunctionCallInfo,
        limit: &Limit,
        resolve: fn(&[u8]) -> Result<Answer, Rejection>,
    ) -> Datum {
        let value = guarded_result(|| {
            let arguments = Arguments(fcinfo);
            let Some(argument) = arguments.text(0, limit)? else {
                return Ok(None);
            };
            let answer = resolve(argument)?;
            if answer.lasting {
                // SAFETY: the caller's.
                unsafe { CallSite::remember(fcinfo, argument, &answer) };
            }
            Ok(answer.value)
        });
        // SAFETY: the caller's.
        unsafe { answer(fcinfo, value.map(Reference::datum)) }
    }
    // SAFETY: the caller's.
    unsafe {
        match owner().and_then(|owner| CallSite::recall(fcinfo, owner)) {
            Some(value) => answer(fcinfo, value.map(Reference::datum)),
            None => slow(fcinfo, limit, resolve),
        }
    }
}

/// # Safety
/// As for [`call`].
#[inline(always)]
unsafe fn answer(fcinfo: FunctionCallInfo, value: Option<Datum>) -> Datum {
    // SAFETY: Postgres passes a call's own struct.
    unsafe { (*fcinfo).isnull = value.is_none() };
    value.unwrap_or(Datum::null())
}

unsafe extern "C-unwind" {
    // By hand, without `pgrx`'s guard, which would replace the SQLSTATE of a refusal.
    fn set_config_option(
        name: *const c_char,
        value: *const c_char,
        context: pg_sys::GucContext::Type,
        source: pg_sys::GucSource::Type,
        action: pg_sys::GucAction::Type,
        change: bool,
        level: std::ffi::c_int,
        is_reload: bool,
    ) -> std::ffi::c_int;
}

/// A setting to change, as `SET` or `SET LOCAL` would.
pub(crate) struct SettingChange<'a> {
    pub(crate) name: &'static std::ffi::CStr,
    pub(crate) value: &'a [u8],
    pub(crate) is_local: bool,
}

/// The same without anything that needs dropping.
#[derive(Clone, Copy)]
struct PreparedChange {
    name: *const c_char,
    value: *const c_char,
    action: pg_sys::GucAction::Type,
}

impl SettingChange<'_> {
    fn prepare(&self) -> PreparedChange {
        PreparedChange {
            name: self.name.as_ptr(),
            // SAFETY: the slice is valid; `pnstrdup` copies it and adds the NUL.
            value: unsafe { pg_sys::pnstrdup(self.value.as_ptr().cast(), self.value.len()) },
            action: if self.is_local {
                pg_sys::GucAction::GUC_ACTION_LOCAL
            } else {
                pg_sys::GucAction::GUC_ACTION_SET
            },
        }
    }
}

/// A copy of the value in the current memory context, for results that nothing of ours keeps.
pub(crate) fn copied(value: &Varlena) -> Datum {
    // SAFETY: it is a plain varlena, and `pg_detoast_datum_copy` copies such.
    unsafe { Datum::from(pg_sys::pg_detoast_datum_copy(value.datum().cast_mut_ptr())) }
}

impl Arguments {
    /// The argument at that place, which is an `oid` or the like; None where it is null.
    pub(crate) fn oid(&self, place: usize) -> Option<Oid> {
        // SAFETY: the SQL declaration makes the argument an OID.
        let datum = unsafe { pgrx::fcinfo::pg_getarg_datum(self.0, place)? };
        Some(oid(datum))
    }

    /// The elements of the argument at that place, a `text[]`, in UTF-8; none where it is null.
    ///
    /// # Errors
    /// Where the array is too long, and where an element is null or has no equal in UTF-8.
    pub(crate) fn texts(&self, place: usize, limit: &Limit) -> Result<Vec<String>, Rejection> {
        // SAFETY: the SQL declaration makes the argument a `text[]`, whose elements are laid out as
        // is said; the arrays that are made of it are as long as is said.
        let elements = unsafe {
            let Some(datum) = pgrx::fcinfo::pg_getarg_datum(self.0, place) else {
                return Ok(Vec::new());
            };
            limit.check(datum)?;
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
            let (mut values, mut nulls) = (std::ptr::null_mut(), std::ptr::null_mut());
            let mut count = 0;
            pg_sys::deconstruct_array(
                array.cast(),
                pg_sys::TEXTOID,
                -1,
                false,
                pg_sys::TYPALIGN_INT as c_char,
                &mut values,
                &mut nulls,
                &mut count,
            );
            let count = usize::try_from(count).unwrap_or(0);
            (0..count).map(|n| (!*nulls.add(n)).then(|| *values.add(n))).collect::<Vec<_>>()
        };
        let texts = elements
            .into_iter()
            .map(|element| element.and_then(|text| from_server_encoding(&text_datum_bytes(text))));
        texts.collect::<Option<_>>().ok_or_else(|| {
            Rejection::new(Code::Configuration, "text in an array cannot be read")
                .with_detail("An element is null, or cannot be converted to UTF-8.")
        })
    }
}

/// An argument that is an OID.
#[inline(always)]
fn oid(datum: Datum) -> Oid {
    // The upper half of the word is nobody's.
    Oid::from(datum.value() as u32)
}

/// Whether an action on a table is allowed.
pub(crate) struct Permit {
    pub(crate) owner: u64,
    /// What [`super::relation::names`] was before it was found out.
    pub(crate) names: u64,
    pub(crate) allowed: bool,
}

/// What `auth.allows()` keeps at its place in a plan (`fn_extra`), like [`CallSite`].
#[derive(Clone, Copy)]
struct PermitSite {
    owner: u64,
    names: u64,
    table: Option<Oid>,
    allowed: bool,
    action: [u8; PermitSite::LONGEST],
    length: usize,
}

impl PermitSite {
    /// How long the name of an action may be that is kept, in bytes.
    const LONGEST: usize = 16;

    /// The answer that there is to the arguments of this call, if any.
    ///
    /// # Safety
    /// As for [`call`]; the arguments are a `text` and an OID.
    #[inline(always)]
    unsafe fn recall(fcinfo: FunctionCallInfo, owner: u64, names: u64) -> Option<bool> {
        // SAFETY: as in `CallSite::recall`.
        let (site, action, table) = unsafe {
            let function = (*fcinfo).flinfo.as_ref()?;
            let site = function.fn_extra.cast::<Self>().as_ref()?;
            let [action, table] = (*fcinfo).args.as_slice(2) else {
                return None;
            };
            if action.isnull {
                return None;
            }
            let table = (!table.isnull).then(|| oid(table.value));
            (site, plain_text(action.value)?, table)
        };
        let same = site.owner == owner
            && site.names == names
            && site.table == table
            && site.action.get(..site.length)? == action;
        same.then_some(site.allowed)
    }

    /// Keeps an answer.
    ///
    /// # Safety
    /// As for [`call`].
    unsafe fn remember(
        fcinfo: FunctionCallInfo,
        action: &[u8],
        table: Option<Oid>,
        permit: &Permit,
    ) {
        let Permit { owner, names, allowed } = *permit;
        let length = action.len();
        let mut site = Self { owner, names, table, allowed, action: [0; _], length };
        let Some(place) = site.action.get_mut(..length) else {
            return;
        };
        place.copy_from_slice(action);
        // SAFETY: as in `CallSite::remember`.
        unsafe { leave(fcinfo, site) };
    }
}

/// Runs a reader of a `text` and an OID that answers yes or no: where its call site has kept the
/// answer to the same arguments, and it holds for the `current` owner and names, nothing else is
/// done.
///
/// # Safety
/// As for [`call`].
#[inline(always)]
pub(crate) unsafe fn read_permit(
    fcinfo: FunctionCallInfo,
    limit: &Limit,
    current: impl FnOnce() -> Option<(u64, u64)>,
    resolve: fn(&[u8], Option<Oid>) -> Result<Permit, Rejection>,
) -> Datum {
    #[cold]
    #[inline(never)]
    unsafe fn slow(
        fcinfo: FunctionCallInfo,
        limit: &Limit,
        resolve: fn(&[u8], Option<Oid>) -> Result<Permit, Rejection>,
    ) -> Datum {
        let allowed = guarded_result(|| {
            let arguments = Arguments(fcinfo);
            let Some(action) = arguments.text(0, limit)? else {
                return Ok(None);
            };
            let table = arguments.oid(1);
            let permit = resolve(action, table)?;
            // SAFETY: the caller's.
            unsafe { PermitSite::remember(fcinfo, action, table, &permit) };
            Ok(Some(permit.allowed))
        });
        // SAFETY: the caller's.
        unsafe { answer(fcinfo, allowed.map(Datum::from)) }
    }
    // SAFETY: the caller's.
    unsafe {
        match current().and_then(|(owner, names)| PermitSite::recall(fcinfo, owner, names)) {
            Some(allowed) => answer(fcinfo, Some(Datum::from(allowed))),
            None => slow(fcinfo, limit, resolve),
        }
    }
}

/// Runs an event trigger for `ddl_command_start`: `body` is told what the command needs on the
/// database as a whole.
///
/// # Safety
/// Postgres makes the call.
pub(crate) unsafe fn call_event_trigger(
    fcinfo: FunctionCallInfo,
    body: fn(session_jwt::Action) -> Result<(), Rejection>,
) -> Datum {
    guarded_result(|| {
        // SAFETY: the caller's.
        unsafe { definition::needed_everywhere(fcinfo)? }.map_or(Ok(()), body)
    });
    VOID
}

/// The record by which a function says that it has the version 1 calling convention.
pub(crate) static FINFO: Finfo = Finfo(Pg_finfo_record { api_version: 1 });

/// Wrapper so that the record, which is never written, may be a static.
#[repr(transparent)]
pub(crate) struct Finfo(Pg_finfo_record);

/// Exports `$body` to SQL as the C function `$symbol`, run by `$runner` of this module.
macro_rules! sql_function {
    ($symbol:ident, $finfo:ident, $runner:ident, $($body:expr),+) => {
        #[allow(unsafe_code)]
        const _: () = {
            use $crate::pg::function;
            use ::pgrx::pg_sys;

            #[unsafe(no_mangle)]
            unsafe extern "C-unwind" fn $symbol(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
                // SAFETY: Postgres calls this, as the install script declares it.
                unsafe { function::$runner(fcinfo, $($body),+) }
            }

            #[unsafe(no_mangle)]
            extern "C" fn $finfo() -> &'static function::Finfo {
                &function::FINFO
            }
        };
    };
}
pub(crate) use sql_function;
