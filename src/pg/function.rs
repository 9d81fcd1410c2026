//! SQL functions in C's calling convention (version 1), over safe Rust ones.

use std::ffi::c_char;

use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Pg_finfo_record};
use session_jwt::{Code, Rejection};

use super::datum::{
    Reference, Varlena, from_server_encoding, plain_text, raw_size, text_datum_bytes,
};
use super::relation::Oid;
use super::{error, memory, table};

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

/// Runs the trigger of the table of providers.
///
/// # Safety
/// Postgres makes the call.
pub(crate) unsafe fn call_trigger(
    fcinfo: FunctionCallInfo,
    body: fn(&table::Change) -> Result<table::Verdict, Rejection>,
) -> Datum {
    // SAFETY: the caller's.
    guarded_result(|| unsafe { table::trigger(fcinfo, body) })
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

/// The last call at one place of a plan, which is kept in `fn_extra`: its `text` argument, everything else
/// that the answer depends on, and the answer.
#[derive(Clone, Copy)]
struct CallSite<K, A, const LONGEST: usize> {
    key: K,
    answer: A,
    argument: [u8; LONGEST],
    length: usize,
}

/// The call site of a reader with an argument. The key is the number of the identity.
type ReaderSite = CallSite<u64, Option<Reference>, 64>;

/// The call site of `auth.allows()`, whose argument is the name of an action.
type PermitSite = CallSite<PermitKey, bool, 16>;

#[derive(Clone, Copy, PartialEq)]
struct PermitKey {
    owner: u64,
    names: u64,
    table: Option<Oid>,
}

impl<K: Copy + PartialEq, A: Copy, const LONGEST: usize> CallSite<K, A, LONGEST> {
    /// The answer, if the last call had the same argument and the same key.
    ///
    /// # Safety
    /// Postgres makes the call, with a `text` as the first argument. All calls of the C function use the
    /// same type of call site.
    #[inline(always)]
    unsafe fn recall(fcinfo: FunctionCallInfo, key: K) -> Option<A> {
        // SAFETY: Postgres passes the call's own struct. Its `flinfo` is null or belongs to the place in
        // the plan, and `fn_extra` is null or a site that `remember` has stored there.
        let (site, argument) = unsafe {
            let function = (*fcinfo).flinfo.as_ref()?;
            let site = function.fn_extra.cast::<Self>().as_ref()?;
            let argument = (*fcinfo).args.as_slice(1).first()?;
            if argument.isnull {
                return None;
            }
            (site, plain_text(argument.value)?)
        };
        (site.key == key && site.argument.get(..site.length)? == argument).then_some(site.answer)
    }

    /// Keeps an answer, unless its argument is longer than `LONGEST`.
    ///
    /// # Safety
    /// As for [`Self::recall`].
    unsafe fn remember(fcinfo: FunctionCallInfo, key: K, argument: &[u8], answer: A) {
        let mut site = Self { key, answer, argument: [0; _], length: argument.len() };
        let Some(place) = site.argument.get_mut(..argument.len()) else {
            return;
        };
        place.copy_from_slice(argument);
        // SAFETY: `fn_extra` is null or such a site, as in `recall`. Memory of `fn_mcxt` lasts as long as
        // the place in the plan.
        unsafe {
            let Some(function) = (*fcinfo).flinfo.as_mut() else {
                return;
            };
            if function.fn_extra.is_null() {
                function.fn_extra = pg_sys::MemoryContextAlloc(function.fn_mcxt, size_of::<Self>());
            }
            function.fn_extra.cast::<Self>().write(site);
        }
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
                unsafe { ReaderSite::remember(fcinfo, answer.owner, argument, answer.value) };
            }
            Ok(answer.value)
        });
        // SAFETY: the caller's.
        unsafe { answer(fcinfo, value.map(Reference::datum)) }
    }
    // SAFETY: the caller's.
    unsafe {
        match owner().and_then(|owner| ReaderSite::recall(fcinfo, owner)) {
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
    // An OID is the lower half of the Datum.
    Oid::from(datum.value() as u32)
}

/// Whether an action on a table is allowed.
pub(crate) struct Permit {
    /// The number of the identity whose permissions decide.
    pub(crate) owner: u64,
    /// What [`super::relation::names`] returned before the table's name was looked up.
    pub(crate) names: u64,
    pub(crate) allowed: bool,
}

/// Runs a function of a `text` and an OID that answers yes or no. Where its call site has kept the answer
/// to the same arguments, and `current` returns the same owner and names, nothing else is done.
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
            let Permit { owner, names, allowed } = resolve(action, table)?;
            // SAFETY: the caller promises that Postgres makes the call; `read_permit` uses no other type
            // of call site.
            unsafe {
                PermitSite::remember(fcinfo, PermitKey { owner, names, table }, action, allowed);
            }
            Ok(Some(allowed))
        });
        // SAFETY: the caller promises that Postgres makes the call.
        unsafe { answer(fcinfo, allowed.map(Datum::from)) }
    }
    // SAFETY: the caller promises that Postgres makes the call, with two arguments.
    unsafe {
        let known = current().and_then(|(owner, names)| {
            let argument = (*fcinfo).args.as_slice(2).last()?;
            let table = (!argument.isnull).then(|| oid(argument.value));
            PermitSite::recall(fcinfo, PermitKey { owner, names, table })
        });
        match known {
            Some(allowed) => answer(fcinfo, Some(Datum::from(allowed))),
            None => slow(fcinfo, limit, resolve),
        }
    }
}

/// The record by which a function says that it has the version 1 calling convention.
pub(crate) static FINFO: Finfo = Finfo(Pg_finfo_record { api_version: 1 });

/// Wrapper so that the record, which is never written, may be a static.
#[repr(transparent)]
pub(crate) struct Finfo(Pg_finfo_record);

/// Exports `$body` to SQL as the C function `$symbol`, run by `$runner` of this module, or of the module
/// of `pg` that is named.
macro_rules! sql_function {
    ($symbol:ident, $finfo:ident, $runner:ident, $($body:expr),+) => {
        $crate::pg::function::sql_function!($symbol, $finfo, function::$runner, $($body),+);
    };
    ($symbol:ident, $finfo:ident, $module:ident::$runner:ident, $($body:expr),+) => {
        #[allow(unsafe_code)]
        const _: () = {
            use $crate::pg::{function, $module as module};
            use ::pgrx::pg_sys;

            #[unsafe(no_mangle)]
            unsafe extern "C-unwind" fn $symbol(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
                // SAFETY: Postgres calls this, as the install script declares it.
                unsafe { module::$runner(fcinfo, $($body),+) }
            }

            #[unsafe(no_mangle)]
            extern "C" fn $finfo() -> &'static function::Finfo {
                &function::FINFO
            }
        };
    };
}
pub(crate) use sql_function;
