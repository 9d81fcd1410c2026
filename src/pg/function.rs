//! SQL functions in C's calling convention (version 1), over safe Rust ones.

use std::ffi::c_char;

use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Pg_finfo_record};
use session_jwt::Rejection;

use super::datum::{Reference, Varlena, plain_text};
use super::{error, table};

/// Runs safe code that Postgres called: a panic, or an error that Postgres raised below it,
/// becomes an error to Postgres once the Rust frames are gone.
pub(crate) fn guarded<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: we are called by Postgres, on its thread; the frames above own nothing of Rust's.
    unsafe { pg_sys::panic::pgrx_extern_c_guard(std::panic::AssertUnwindSafe(body)) }
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

/// The arguments of one call.
pub(crate) struct Arguments(FunctionCallInfo);

impl Arguments {
    /// The argument at that place, which is a `text`; None where it is null.
    ///
    /// Bytes, not a `str`: in a database of another encoding it need not be UTF-8.
    pub(crate) fn text(&self, place: usize) -> Option<&[u8]> {
        // SAFETY: the SQL declaration makes the argument a text; the memory lasts for the call.
        unsafe {
            let datum = pgrx::fcinfo::pg_getarg_datum(self.0, place)?;
            let text = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
            Some(pgrx::varlena::varlena_to_byte_slice(text))
        }
    }

    /// The argument at that place, which is a `boolean`; false where it is null.
    pub(crate) fn boolean(&self, place: usize) -> bool {
        // SAFETY: the SQL declaration makes the argument a boolean.
        unsafe {
            pgrx::fcinfo::pg_getarg_datum(self.0, place).is_some_and(|datum| datum.value() != 0)
        }
    }
}

impl Arguments {
    /// The same in UTF-8.
    pub(crate) fn utf8(&self, place: usize) -> Result<String, Rejection> {
        let text = self.text(place).unwrap_or_default();
        super::datum::from_server_encoding(text).ok_or_else(|| {
            Rejection::new(session_jwt::Code::Configuration, "text cannot be converted to UTF-8")
        })
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
        // SAFETY: as above; memory of `fn_mcxt` lives as long as the call site.
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
    owner: impl FnOnce() -> Option<u64>,
    resolve: fn(&[u8]) -> Result<Answer, Rejection>,
) -> Datum {
    #[cold]
    #[inline(never)]
    unsafe fn slow(
        fcinfo: FunctionCallInfo,
        resolve: fn(&[u8]) -> Result<Answer, Rejection>,
    ) -> Datum {
        let value = guarded_result(|| {
            let arguments = Arguments(fcinfo);
            let Some(argument) = arguments.text(0) else {
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
            None => slow(fcinfo, resolve),
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
