//! SQL functions: the calling convention (version 1) over safe Rust functions.

use std::ffi::{CStr, CString, c_char, c_int};

use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Pg_finfo_record};
use session_jwt::{Code, Rejection, Span};

use super::datum::{
    Reference, from_server_encoding, plain_text, raw_size, text_datum_bytes, to_server_encoding,
};
use super::error::{guarded, guarded_result};
use super::relation::Oid;

/// Exports a Rust function to SQL as the C function `$symbol`. `$runner` runs it.
macro_rules! sql_function {
    ($symbol:ident, $runner:path, $($argument:expr),+) => {
        #[allow(unsafe_code)]
        const _: () = {
            use ::pgrx::pg_sys;

            // SAFETY: the symbol is exported for Postgres, which calls it as the install script declares.
            #[unsafe(no_mangle)]
            unsafe extern "C-unwind" fn $symbol(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
                // SAFETY: Postgres makes the call.
                unsafe { $runner(fcinfo, $($argument),+) }
            }

            // SAFETY: the symbol is exported for Postgres, which asks for the calling convention.
            #[unsafe(export_name = concat!("pg_finfo_", stringify!($symbol)))]
            extern "C" fn finfo() -> &'static $crate::pg::function::Finfo {
                &$crate::pg::function::FINFO
            }
        };
    };
}
pub(crate) use sql_function;

/// The record by which a function declares the version 1 calling convention.
pub(crate) static FINFO: Finfo = Finfo(Pg_finfo_record { api_version: 1 });

/// A record that is never written, so that it can be static.
#[repr(transparent)]
pub(crate) struct Finfo(Pg_finfo_record);

/// The result of a function: a Datum, or None for SQL null.
pub(crate) type Outcome = Result<Option<Datum>, Rejection>;

/// The result of a function that returns `void`.
pub(crate) const VOID: Datum = Datum::null();

/// Runs a function that is not on the hot path.
///
/// # Safety
/// Postgres makes the call, with the arguments that the SQL declaration names.
pub(crate) unsafe fn call(fcinfo: FunctionCallInfo, body: fn(&Arguments) -> Outcome) -> Datum {
    let outcome = guarded_result(|| body(&Arguments(fcinfo)));
    // SAFETY: the caller upholds the contract.
    unsafe { answer(fcinfo, outcome) }
}

/// A row: the input of each column's type, or None for SQL null.
pub(crate) type Row = Vec<Option<String>>;

/// Runs a function that returns a row.
///
/// # Safety
/// Postgres makes the call, with the arguments that the SQL declaration names.
pub(crate) unsafe fn call_row(
    fcinfo: FunctionCallInfo,
    body: fn(&Arguments) -> Result<Row, Rejection>,
) -> Datum {
    let row = guarded_result(|| {
        let row = body(&Arguments(fcinfo))?;
        // SAFETY: Postgres makes the call.
        Ok(unsafe { row_datum(fcinfo, &row) })
    });
    // SAFETY: the caller upholds the contract.
    unsafe { answer(fcinfo, Some(row)) }
}

/// Runs a function that returns a set of rows.
///
/// # Safety
/// Postgres makes the call, with the arguments that the SQL declaration names.
pub(crate) unsafe fn call_rows(
    fcinfo: FunctionCallInfo,
    body: fn(&Arguments) -> Result<Vec<Row>, Rejection>,
) -> Datum {
    guarded_result(|| {
        let rows = body(&Arguments(fcinfo))?;
        // SAFETY: Postgres makes the call. `InitMaterializedSRF` raises an error where the caller accepts no
        // set; afterwards, `resultinfo` has a tuple store and its descriptor.
        unsafe {
            pg_sys::InitMaterializedSRF(fcinfo, 0);
            let result = &*(*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            for row in rows {
                let tuple = build_tuple(result.setDesc, &row);
                pg_sys::tuplestore_puttuple(result.setResult, tuple);
            }
        }
        Ok(())
    });
    // SAFETY: the caller upholds the contract.
    unsafe { answer(fcinfo, None) }
}

/// # Safety
/// Postgres makes the call of a function that returns as many columns.
unsafe fn row_datum(fcinfo: FunctionCallInfo, row: &[Option<String>]) -> Datum {
    // SAFETY: the caller.
    unsafe {
        let mut descriptor = std::ptr::null_mut();
        pg_sys::get_call_result_type(fcinfo, std::ptr::null_mut(), &mut descriptor);
        let tuple = build_tuple(descriptor, row);
        pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
    }
}

/// # Safety
/// The descriptor has as many columns as the row.
unsafe fn build_tuple(descriptor: pg_sys::TupleDesc, row: &[Option<String>]) -> pg_sys::HeapTuple {
    // A character that the database's encoding lacks becomes an escape.
    let encoded = |text: &String| {
        to_server_encoding(text)
            .or_else(|| to_server_encoding(&text.escape_default().to_string()))
            .unwrap_or_default()
    };
    let texts: Vec<Option<CString>> = row.iter().map(|text| text.as_ref().map(encoded)).collect();
    let mut inputs: Vec<*mut c_char> = texts
        .iter()
        .map(|text| text.as_ref().map_or(std::ptr::null_mut(), |text| text.as_ptr().cast_mut()))
        .collect();
    // SAFETY: the caller; the inputs are null or C strings, one for each column, and are only read.
    unsafe {
        let types = pg_sys::TupleDescGetAttInMetadata(descriptor);
        pg_sys::BuildTupleFromCStrings(types, inputs.as_mut_ptr())
    }
}

/// Runs a function that ends with the change of a GUC. Postgres raises the error of a rejected value in
/// this frame, which owns nothing.
///
/// # Safety
/// Postgres makes the call, with the arguments that the SQL declaration names.
pub(crate) unsafe fn call_guc_change(
    fcinfo: FunctionCallInfo,
    body: fn(&Arguments) -> GucChange,
) -> Datum {
    let change = guarded(|| body(&Arguments(fcinfo)).prepare());
    // SAFETY: name and value are C strings; the value is in the current memory context.
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

/// The change of a GUC, as by `SET` or `SET LOCAL`.
pub(crate) struct GucChange<'a> {
    pub(crate) name: &'static CStr,
    pub(crate) value: &'a [u8],
    pub(crate) is_local: bool,
}

/// The arguments of `set_config_option`, in a struct that owns nothing.
#[derive(Clone, Copy)]
struct PreparedChange {
    name: *const c_char,
    value: *const c_char,
    action: pg_sys::GucAction::Type,
}

impl GucChange<'_> {
    fn prepare(&self) -> PreparedChange {
        PreparedChange {
            name: self.name.as_ptr(),
            // SAFETY: pointer and length are those of a slice; `pnstrdup` copies it and adds the NUL.
            value: unsafe { pg_sys::pnstrdup(self.value.as_ptr().cast(), self.value.len()) },
            action: if self.is_local {
                pg_sys::GucAction::GUC_ACTION_LOCAL
            } else {
                pg_sys::GucAction::GUC_ACTION_SET
            },
        }
    }
}

unsafe extern "C-unwind" {
    // Declared by hand: the guard of `pgrx` would replace the SQLSTATE of a rejection.
    pub(super) fn set_config_option(
        name: *const c_char,
        value: *const c_char,
        context: pg_sys::GucContext::Type,
        source: pg_sys::GucSource::Type,
        action: pg_sys::GucAction::Type,
        change: bool,
        level: c_int,
        is_reload: bool,
    ) -> c_int;
}

/// The arguments of a call.
pub(crate) struct Arguments(pub(super) FunctionCallInfo);

impl Arguments {
    /// The argument at a place, a `text`, in the database's encoding; None where it is null.
    pub(crate) fn text(&self, place: usize, limit: &Limit) -> Result<Option<&[u8]>, Rejection> {
        // SAFETY: the SQL declaration makes the argument a text; the memory lasts as long as the call.
        unsafe {
            let Some(datum) = pgrx::fcinfo::pg_getarg_datum(self.0, place) else {
                return Ok(None);
            };
            limit.check(datum)?;
            let text = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
            Ok(Some(pgrx::varlena::varlena_to_byte_slice(text)))
        }
    }

    /// The argument at a place, a `text`, cut to one byte more than the limit. It is for an argument that a
    /// later check rejects where it is longer than the limit.
    pub(crate) fn prefix(&self, place: usize, limit: &Limit) -> Option<&[u8]> {
        // SAFETY: the SQL declaration makes the argument a text; the memory lasts as long as the call. For
        // a slice, Postgres does not read the rest of a value in a TOAST table.
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

    /// The length of the argument at a place, a `text`, in bytes; None where it is null.
    pub(crate) fn length(&self, place: usize) -> Option<usize> {
        // SAFETY: the SQL declaration makes the argument a text.
        unsafe { Some(raw_size(pgrx::fcinfo::pg_getarg_datum(self.0, place)?)) }
    }

    /// The argument at a place, a `text`, in UTF-8; None where it is null.
    pub(crate) fn utf8(&self, place: usize, limit: &Limit) -> Result<Option<String>, Rejection> {
        let Some(text) = self.text(place, limit)? else {
            return Ok(None);
        };
        let text = from_server_encoding(text);
        text.map(Some)
            .ok_or_else(|| Rejection::new(Code::Configuration, "text cannot be converted to UTF-8"))
    }

    /// The type of the argument at a place, as the call declares it; [`Oid::INVALID`] where that is not known.
    pub(crate) fn type_of(&self, place: usize) -> Oid {
        // SAFETY: Postgres passes the call's own struct.
        unsafe { pg_sys::get_fn_expr_argtype((*self.0).flinfo, place as c_int) }
    }

    /// The argument at a place, a `text`, as a C string in the current memory context; None where it is null.
    pub(crate) fn copied(
        &self,
        place: usize,
        limit: &Limit,
    ) -> Result<Option<*const c_char>, Rejection> {
        let text = self.text(place, limit)?;
        // SAFETY: pointer and length are those of a slice; `pnstrdup` copies it and adds the NUL.
        let copy = |text: &[u8]| unsafe { pg_sys::pnstrdup(text.as_ptr().cast(), text.len()) };
        Ok(text.map(|text| copy(text).cast_const()))
    }

    /// The elements of the argument at a place, a `text[]`, in UTF-8; none where it is null.
    ///
    /// # Errors
    /// Where the array is too long, and where an element is null or cannot be converted to UTF-8.
    pub(crate) fn texts(&self, place: usize, limit: &Limit) -> Result<Vec<String>, Rejection> {
        // SAFETY: the SQL declaration makes the argument a `text[]`, and the arguments describe the layout
        // of `text`. Postgres returns two arrays of `count` elements.
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

    /// The argument at a place, a `cstring`, in the database's encoding; None where it is null.
    pub(crate) fn c_string(&self, place: usize) -> Option<&CStr> {
        // SAFETY: the SQL declaration makes the argument a C string; the memory lasts as long as the call.
        unsafe {
            let datum = pgrx::fcinfo::pg_getarg_datum(self.0, place)?;
            Some(CStr::from_ptr(datum.cast_mut_ptr()))
        }
    }

    /// The argument at a place, a `boolean`; false where it is null, and where the function does not have it.
    pub(crate) fn boolean(&self, place: usize) -> bool {
        // SAFETY: Postgres passes the call's own struct, with `nargs` arguments. The SQL declaration makes
        // the argument a boolean.
        unsafe {
            place < usize::try_from((*self.0).nargs).unwrap_or(0)
                && pgrx::fcinfo::pg_getarg_datum(self.0, place)
                    .is_some_and(|datum| datum.value() != 0)
        }
    }

    /// The argument at a place, an `interval`; None where it is null.
    #[inline(always)]
    pub(crate) fn span(&self, place: usize) -> Option<Span> {
        // SAFETY: Postgres passes the call's own struct, with `nargs` arguments. The SQL declaration makes
        // the argument an interval, which is passed by reference and aligned.
        let interval = unsafe {
            let nargs = usize::try_from((*self.0).nargs).unwrap_or(0);
            let argument = (*self.0).args.as_slice(nargs).get(place)?;
            if argument.isnull {
                return None;
            }
            argument.value.cast_mut_ptr::<pg_sys::Interval>().as_ref()?
        };
        Some(Span::new(interval.month, interval.day, interval.time))
    }

    /// The argument at a place, an `oid` or a type like `regclass`; None where it is null.
    pub(crate) fn oid(&self, place: usize) -> Option<Oid> {
        // SAFETY: the SQL declaration makes the argument an OID.
        let datum = unsafe { pgrx::fcinfo::pg_getarg_datum(self.0, place)? };
        Some(oid(datum))
    }
}

/// A Datum that is an OID, which is the lower half of the word.
#[inline(always)]
fn oid(datum: Datum) -> Oid {
    Oid::from(datum.value() as u32)
}

/// The limit of the length of an argument. Every accessor of [`Arguments`] for a type of varying length
/// takes one, and checks it before the value is detoasted or copied: a client can pass up to 1 GB.
pub(crate) struct Limit {
    /// In bytes, detoasted and without the header.
    pub(crate) bytes: usize,
    /// The code and the message of the rejection of a longer value.
    pub(crate) code: Code,
    pub(crate) message: &'static str,
}

impl Limit {
    /// A limit whose rejection has the SQLSTATE 22023.
    pub(crate) const fn new(bytes: usize, message: &'static str) -> Self {
        Self { bytes, code: Code::Configuration, message }
    }

    /// # Safety
    /// The datum is a valid varlena.
    unsafe fn check(&self, datum: Datum) -> Result<(), Rejection> {
        // SAFETY: the caller passes a valid varlena.
        if unsafe { raw_size(datum) } <= self.bytes {
            return Ok(());
        }
        let detail = format!("The limit is {} bytes.", self.bytes);
        Err(Rejection::new(self.code, self.message).with_detail(detail))
    }
}

/// Runs a reader: an SQL function that returns a part of the session's identity. `ready` is the hot path,
/// which neither allocates nor fails; where it returns None, `resolve` finds the value.
///
/// # Safety
/// Postgres makes the call, with the arguments that the SQL declaration names.
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
        // SAFETY: the caller upholds the contract.
        unsafe { answer(fcinfo, value.map(Reference::datum)) }
    }
    // SAFETY: the caller upholds the contract.
    unsafe {
        match ready() {
            Some(value) => answer(fcinfo, value.map(Reference::datum)),
            None => slow(fcinfo, resolve),
        }
    }
}

/// The answer of a reader with an argument.
pub(crate) struct Answer {
    /// The number of the identity.
    pub(crate) owner: u64,
    pub(crate) value: Option<Reference>,
    /// Whether the value lasts as long as the identity is in force.
    pub(crate) is_lasting: bool,
}

/// Runs a reader with a `text` argument. Where its call site has kept an answer for the same argument and
/// the current `owner`, it returns that answer and does nothing else.
///
/// # Safety
/// Postgres makes the call, with the arguments that the SQL declaration names.
#[inline(always)]
pub(crate) unsafe fn look_up(
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
            if answer.is_lasting {
                // SAFETY: the caller upholds the contract, and the argument is a text.
                unsafe { ReaderSite::remember(fcinfo, answer.owner, argument, answer.value) };
            }
            Ok(answer.value)
        });
        // SAFETY: the caller upholds the contract.
        unsafe { answer(fcinfo, value.map(Reference::datum)) }
    }
    // SAFETY: the caller upholds the contract.
    unsafe {
        match owner().and_then(|owner| ReaderSite::recall(fcinfo, owner)) {
            Some(value) => answer(fcinfo, value.map(Reference::datum)),
            None => slow(fcinfo, limit, resolve),
        }
    }
}

/// The answer of `auth.allows()`.
pub(crate) struct Permit {
    /// The number of the identity.
    pub(crate) owner: u64,
    /// The value of [`super::relation::names`] before the answer was found.
    pub(crate) names: u64,
    pub(crate) is_allowed: bool,
}

/// Runs a function of a `text` and an OID that returns whether an action is allowed. Where its call site
/// has kept an answer for the same arguments and the `current` owner and names, it returns that answer and
/// does nothing else.
///
/// # Safety
/// Postgres makes the call, with the arguments that the SQL declaration names.
#[inline(always)]
pub(crate) unsafe fn permit(
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
        let is_allowed = guarded_result(|| {
            let arguments = Arguments(fcinfo);
            let Some(action) = arguments.text(0, limit)? else {
                return Ok(None);
            };
            let table = arguments.oid(1);
            let Permit { owner, names, is_allowed } = resolve(action, table)?;
            let key = PermitKey { owner, names, table };
            // SAFETY: the caller upholds the contract, and the first argument is a text.
            unsafe { PermitSite::remember(fcinfo, key, action, is_allowed) };
            Ok(Some(is_allowed))
        });
        // SAFETY: the caller upholds the contract.
        unsafe { answer(fcinfo, is_allowed.map(Datum::from)) }
    }
    // SAFETY: the caller upholds the contract, and the second argument is an OID.
    unsafe {
        let kept = current().and_then(|(owner, names)| {
            let [_, table] = (*fcinfo).args.as_slice(2) else {
                return None;
            };
            let table = (!table.isnull).then(|| oid(table.value));
            PermitSite::recall(fcinfo, PermitKey { owner, names, table })
        });
        match kept {
            Some(is_allowed) => answer(fcinfo, Some(Datum::from(is_allowed))),
            None => slow(fcinfo, limit, resolve),
        }
    }
}

/// The answer of a function that asks whether a token grants a word.
pub(crate) struct Verdict {
    /// The number of the identity.
    pub(crate) owner: u64,
    pub(crate) is_granted: bool,
}

/// Runs a function of a `text` that returns whether a token grants that word. Where its call site has kept an
/// answer for the same word and the current `owner`, it returns that answer and does nothing else. No token
/// grants NULL, nor a word that is longer than the limit.
///
/// # Safety
/// Postgres makes the call, with the arguments that the SQL declaration names.
#[inline(always)]
pub(crate) unsafe fn ask(
    fcinfo: FunctionCallInfo,
    limit: &Limit,
    owner: impl FnOnce() -> Option<u64>,
    resolve: fn(&[u8]) -> Result<Verdict, Rejection>,
) -> Datum {
    #[cold]
    #[inline(never)]
    unsafe fn slow(
        fcinfo: FunctionCallInfo,
        limit: &Limit,
        resolve: fn(&[u8]) -> Result<Verdict, Rejection>,
    ) -> Datum {
        let is_granted = guarded_result(|| {
            let arguments = Arguments(fcinfo);
            let Ok(Some(word)) = arguments.text(0, limit) else {
                return Ok(false);
            };
            let Verdict { owner, is_granted } = resolve(word)?;
            // SAFETY: the caller upholds the contract, and the argument is a text.
            unsafe { WordSite::remember(fcinfo, owner, word, is_granted) };
            Ok(is_granted)
        });
        // SAFETY: the caller upholds the contract.
        unsafe { answer(fcinfo, Some(Datum::from(is_granted))) }
    }
    // SAFETY: the caller upholds the contract.
    unsafe {
        match owner().and_then(|owner| WordSite::recall(fcinfo, owner)) {
            Some(is_granted) => answer(fcinfo, Some(Datum::from(is_granted))),
            None => slow(fcinfo, limit, resolve),
        }
    }
}

/// Runs a function of an `interval` that returns whether something was within it. `ready` is the hot path,
/// which judges the time at each call; where it returns None, `resolve` does. Nothing is within NULL.
///
/// # Safety
/// Postgres makes the call, with the arguments that the SQL declaration names.
#[inline(always)]
pub(crate) unsafe fn judge_span(
    fcinfo: FunctionCallInfo,
    ready: impl FnOnce(Span) -> Option<bool>,
    resolve: fn(Span) -> Result<bool, Rejection>,
) -> Datum {
    #[cold]
    #[inline(never)]
    unsafe fn slow(
        fcinfo: FunctionCallInfo,
        span: Span,
        resolve: fn(Span) -> Result<bool, Rejection>,
    ) -> Datum {
        let is_within = guarded_result(|| resolve(span));
        // SAFETY: the caller upholds the contract.
        unsafe { answer(fcinfo, Some(Datum::from(is_within))) }
    }
    // SAFETY: the caller upholds the contract, and the argument is an interval.
    unsafe {
        let Some(span) = Arguments(fcinfo).span(0) else {
            return answer(fcinfo, Some(Datum::from(false)));
        };
        match ready(span) {
            Some(is_within) => answer(fcinfo, Some(Datum::from(is_within))),
            None => slow(fcinfo, span, resolve),
        }
    }
}

/// The last call at one place of a plan, which is kept in `fn_extra`: its `text` argument, the answer, and
/// the key, which is everything else that the answer depends on.
#[derive(Clone, Copy)]
struct CallSite<K, A, const LONGEST: usize> {
    key: K,
    answer: A,
    argument: [u8; LONGEST],
    length: usize,
}

/// The call site of a reader with an argument. The key is the number of the identity.
type ReaderSite = CallSite<u64, Option<Reference>, 64>;

/// The call site of a function that asks for a word. The key is the number of the identity.
type WordSite = CallSite<u64, bool, 64>;

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
    /// Postgres makes the call, with a `text` as the first argument. All calls of the C function use the
    /// same type of call site.
    unsafe fn remember(fcinfo: FunctionCallInfo, key: K, argument: &[u8], answer: A) {
        let mut site = Self { key, answer, argument: [0; _], length: argument.len() };
        let Some(place) = site.argument.get_mut(..argument.len()) else {
            return;
        };
        place.copy_from_slice(argument);
        // SAFETY: `fn_extra` is null or a site of this type: only this function stores there, and all calls
        // of the C function use one type. Memory of `fn_mcxt` lasts as long as the place in the plan.
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

/// Returns a value to Postgres.
///
/// # Safety
/// Postgres makes the call.
#[inline(always)]
pub(super) unsafe fn answer(fcinfo: FunctionCallInfo, value: Option<Datum>) -> Datum {
    // SAFETY: Postgres passes the call's own struct.
    unsafe { (*fcinfo).isnull = value.is_none() };
    value.unwrap_or(Datum::null())
}
