//! Runs a query as another role: as a security-restricted operation and read only. The role cannot return to the
//! caller's, and settings that the query changes return to their values.

use std::ffi::{CStr, c_char, c_int};

use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use session_jwt::{Code, Rejection};

use super::error::{guarded, guarded_result};
use super::function::{Arguments, answer, set_config_option};

/// A query to run, in a struct that owns nothing.
#[derive(Clone, Copy)]
pub(crate) struct SandboxedQuery {
    pub(crate) role: Oid,
    pub(crate) search_path: *const c_char,
    pub(crate) query: *const c_char,
    /// The place of the argument that is the query's parameter. Its type is that of the call.
    pub(crate) parameter: usize,
    /// The type of the first column, which the function returns.
    pub(crate) result: Oid,
}

/// Runs a function that ends with a query, and returns the first value of its first row. `prepare` may change
/// the state of the session. `leave` changes it back after the query. Where the query raises an error, the
/// callbacks for the abort of the transaction or subtransaction do so.
///
/// # Safety
/// Postgres makes the call, with the arguments that the SQL declaration names.
pub(crate) unsafe fn call_sandboxed(
    fcinfo: FunctionCallInfo,
    prepare: fn(&Arguments) -> Result<SandboxedQuery, Rejection>,
    leave: fn(),
) -> Datum {
    let query = guarded_result(|| prepare(&Arguments(fcinfo)));
    let (mut user, mut context) = (Oid::INVALID, 0);
    // SAFETY: the frame owns nothing, so that an error of Postgres may pass it. The abort of the transaction or
    // subtransaction then restores the user, the settings and whether the transaction is read only. The strings
    // are C strings.
    unsafe {
        GetUserIdAndSecContext(&mut user, &mut context);
        let was_read_only = pg_sys::XactReadOnly;
        let level = NewGUCNestLevel();
        set(c"search_path", query.search_path);
        set(c"row_security", c"on".as_ptr());
        pg_sys::XactReadOnly = true;
        let restricted = context | pg_sys::SECURITY_RESTRICTED_OPERATION as c_int;
        SetUserIdAndSecContext(query.role, restricted);
        let value = run(fcinfo, query);
        SetUserIdAndSecContext(user, context);
        // In this order: where the query has set it, the first call restores the value within the trial.
        AtEOXact_GUC(false, level);
        pg_sys::XactReadOnly = was_read_only;
        guarded(leave);
        answer(fcinfo, value)
    }
}

/// # Safety
/// The frame of the caller owns nothing.
unsafe fn set(name: &CStr, value: *const c_char) {
    // SAFETY: both are C strings.
    unsafe {
        set_config_option(
            name.as_ptr(),
            value,
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
}

/// # Safety
/// Postgres makes the call, and the frame of the caller owns nothing.
unsafe fn run(fcinfo: FunctionCallInfo, query: SandboxedQuery) -> Option<Datum> {
    // SAFETY: Postgres passes the call's own struct. The parameter has the type of the argument, and lasts as long
    // as the call. `SPI_datumTransfer` copies the value, an array, to the memory of the caller.
    unsafe {
        let argument = (*fcinfo).args.as_ptr().add(query.parameter).read();
        let list = makeParamList(c_int::from(!argument.isnull));
        if !argument.isnull {
            (*list).params.as_mut_ptr().write(pg_sys::ParamExternData {
                value: argument.value,
                isnull: false,
                pflags: 0,
                ptype: get_fn_expr_argtype((*fcinfo).flinfo, query.parameter as c_int),
            });
        }
        (*list).paramFetch = Some(fetch_parameter);
        let options = pg_sys::SPIExecuteOptions {
            params: list,
            read_only: true,
            tcount: 1,
            ..Default::default()
        };
        SPI_connect();
        SPI_execute_extended(query.query, &options);
        let table = pg_sys::SPI_tuptable;
        // A value of another type would be read as one of the type that the function returns.
        if table.is_null() || pg_sys::SPI_gettypeid((*table).tupdesc, 1) != query.result {
            guarded_result(|| Err::<(), _>(other_type()));
        }
        let mut is_null = true;
        let mut result = Datum::null();
        if pg_sys::SPI_processed > 0 {
            result = SPI_getbinval(*(*table).vals, (*table).tupdesc, 1, &mut is_null);
            if !is_null {
                result = SPI_datumTransfer(result, false, -1);
            }
        }
        SPI_finish();
        (!is_null).then_some(result)
    }
}

/// Finds the parameter. It may contain rows that must not be in a log line: Postgres and its extensions do not log
/// the values of parameters that a function finds, nor replace them by constants in a plan without the flag
/// `PARAM_FLAG_CONST`.
unsafe extern "C-unwind" fn fetch_parameter(
    list: pg_sys::ParamListInfo,
    number: c_int,
    _is_speculative: bool,
    _workspace: *mut pg_sys::ParamExternData,
) -> *mut pg_sys::ParamExternData {
    // SAFETY: Postgres passes the list, and a number from 1 to that of its parameters.
    unsafe { (*list).params.as_mut_ptr().offset(number as isize - 1) }
}

fn other_type() -> Rejection {
    Rejection::new(Code::Configuration, "query to try returns another type").with_detail(
        "The first column of its last statement must have the type that the function returns.",
    )
}

unsafe extern "C-unwind" {
    // Declared by hand: the guard of `pgrx` would replace the SQLSTATE of an error of this extension.
    fn GetUserIdAndSecContext(user: *mut Oid, context: *mut c_int);
    fn SetUserIdAndSecContext(user: Oid, context: c_int);
    fn NewGUCNestLevel() -> c_int;
    fn AtEOXact_GUC(is_commit: bool, level: c_int);
    fn get_fn_expr_argtype(function: *mut pg_sys::FmgrInfo, argument: c_int) -> Oid;
    fn SPI_connect() -> c_int;
    fn SPI_finish() -> c_int;
    fn makeParamList(count: c_int) -> pg_sys::ParamListInfo;
    fn SPI_execute_extended(
        query: *const c_char,
        options: *const pg_sys::SPIExecuteOptions,
    ) -> c_int;
    fn SPI_getbinval(
        tuple: pg_sys::HeapTuple,
        descriptor: pg_sys::TupleDesc,
        column: c_int,
        is_null: *mut bool,
    ) -> Datum;
    fn SPI_datumTransfer(value: Datum, is_by_value: bool, length: c_int) -> Datum;
}
