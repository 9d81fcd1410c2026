//! Postgres' own SQLSTATEs by their names, as constants that tables and patterns can have. Those of this
//! extension are [`session_jwt::Code`]'s.

/// No error.
pub const SUCCESS: &str = "00000";
/// `admin_shutdown`
pub const ADMIN_SHUTDOWN: &str = "57P01";
/// `cant_change_runtime_param`
pub const CANT_CHANGE_RUNTIME_PARAM: &str = "55P02";
/// `check_violation`
pub const CHECK_VIOLATION: &str = "23514";
/// `crash_shutdown`
pub const CRASH_SHUTDOWN: &str = "57P02";
/// `dependent_objects_still_exist`
pub const DEPENDENT_OBJECTS_STILL_EXIST: &str = "2BP01";
/// `division_by_zero`
pub const DIVISION_BY_ZERO: &str = "22012";
/// `duplicate_function`
pub const DUPLICATE_FUNCTION: &str = "42723";
/// `duplicate_object`
pub const DUPLICATE_OBJECT: &str = "42710";
/// `duplicate_table`
pub const DUPLICATE_TABLE: &str = "42P07";
/// `feature_not_supported`
pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
/// `foreign_key_violation`
pub const FOREIGN_KEY_VIOLATION: &str = "23503";
/// `generated_always`
pub const GENERATED_ALWAYS: &str = "428C9";
/// `insufficient_privilege`
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// `invalid_name`
pub const INVALID_NAME: &str = "42602";
/// `invalid_object_definition`
pub const INVALID_OBJECT_DEFINITION: &str = "42P17";
/// `invalid_table_definition`
pub const INVALID_TABLE_DEFINITION: &str = "42P16";
/// `invalid_text_representation`
pub const INVALID_TEXT_REPRESENTATION: &str = "22P02";
/// `in_failed_sql_transaction`
pub const IN_FAILED_SQL_TRANSACTION: &str = "25P02";
/// `lock_not_available`
pub const LOCK_NOT_AVAILABLE: &str = "55P03";
/// `not_null_violation`
pub const NOT_NULL_VIOLATION: &str = "23502";
/// `no_active_sql_transaction`
pub const NO_ACTIVE_SQL_TRANSACTION: &str = "25P01";
/// `null_value_not_allowed`
pub const NULL_VALUE_NOT_ALLOWED: &str = "22004";
/// `object_not_in_prerequisite_state`
pub const OBJECT_NOT_IN_PREREQUISITE_STATE: &str = "55000";
/// `query_canceled`
pub const QUERY_CANCELED: &str = "57014";
/// `raise_exception`
pub const RAISE_EXCEPTION: &str = "P0001";
/// `read_only_sql_transaction`
pub const READ_ONLY_SQL_TRANSACTION: &str = "25006";
/// `restrict_violation`
pub const RESTRICT_VIOLATION: &str = "23001";
/// `t_r_deadlock_detected`
pub const T_R_DEADLOCK_DETECTED: &str = "40P01";
/// `t_r_serialization_failure`
pub const T_R_SERIALIZATION_FAILURE: &str = "40001";
/// `undefined_cursor`
pub const UNDEFINED_CURSOR: &str = "34000";
/// `undefined_function`
pub const UNDEFINED_FUNCTION: &str = "42883";
/// `unique_violation`
pub const UNIQUE_VIOLATION: &str = "23505";
/// `warning`
pub const WARNING: &str = "01000";
/// `wrong_object_type`
pub const WRONG_OBJECT_TYPE: &str = "42809";

#[cfg(test)]
mod tests {
    use postgres::error::SqlState;

    /// The constants are those of the client library, which has them from Postgres' sources.
    #[test]
    fn names_and_codes_go_together() {
        for (code, state) in [
            (super::SUCCESS, SqlState::SUCCESSFUL_COMPLETION),
            (super::ADMIN_SHUTDOWN, SqlState::ADMIN_SHUTDOWN),
            (super::CANT_CHANGE_RUNTIME_PARAM, SqlState::CANT_CHANGE_RUNTIME_PARAM),
            (super::CHECK_VIOLATION, SqlState::CHECK_VIOLATION),
            (super::CRASH_SHUTDOWN, SqlState::CRASH_SHUTDOWN),
            (super::DEPENDENT_OBJECTS_STILL_EXIST, SqlState::DEPENDENT_OBJECTS_STILL_EXIST),
            (super::DIVISION_BY_ZERO, SqlState::DIVISION_BY_ZERO),
            (super::DUPLICATE_FUNCTION, SqlState::DUPLICATE_FUNCTION),
            (super::DUPLICATE_OBJECT, SqlState::DUPLICATE_OBJECT),
            (super::DUPLICATE_TABLE, SqlState::DUPLICATE_TABLE),
            (super::FEATURE_NOT_SUPPORTED, SqlState::FEATURE_NOT_SUPPORTED),
            (super::FOREIGN_KEY_VIOLATION, SqlState::FOREIGN_KEY_VIOLATION),
            (super::GENERATED_ALWAYS, SqlState::GENERATED_ALWAYS),
            (super::INSUFFICIENT_PRIVILEGE, SqlState::INSUFFICIENT_PRIVILEGE),
            (super::INVALID_NAME, SqlState::INVALID_NAME),
            (super::INVALID_OBJECT_DEFINITION, SqlState::INVALID_OBJECT_DEFINITION),
            (super::INVALID_TABLE_DEFINITION, SqlState::INVALID_TABLE_DEFINITION),
            (super::INVALID_TEXT_REPRESENTATION, SqlState::INVALID_TEXT_REPRESENTATION),
            (super::IN_FAILED_SQL_TRANSACTION, SqlState::IN_FAILED_SQL_TRANSACTION),
            (super::LOCK_NOT_AVAILABLE, SqlState::LOCK_NOT_AVAILABLE),
            (super::NOT_NULL_VIOLATION, SqlState::NOT_NULL_VIOLATION),
            (super::NO_ACTIVE_SQL_TRANSACTION, SqlState::NO_ACTIVE_SQL_TRANSACTION),
            (super::NULL_VALUE_NOT_ALLOWED, SqlState::NULL_VALUE_NOT_ALLOWED),
            (super::OBJECT_NOT_IN_PREREQUISITE_STATE, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE),
            (super::QUERY_CANCELED, SqlState::QUERY_CANCELED),
            (super::RAISE_EXCEPTION, SqlState::RAISE_EXCEPTION),
            (super::READ_ONLY_SQL_TRANSACTION, SqlState::READ_ONLY_SQL_TRANSACTION),
            (super::RESTRICT_VIOLATION, SqlState::RESTRICT_VIOLATION),
            (super::T_R_DEADLOCK_DETECTED, SqlState::T_R_DEADLOCK_DETECTED),
            (super::T_R_SERIALIZATION_FAILURE, SqlState::T_R_SERIALIZATION_FAILURE),
            (super::UNDEFINED_CURSOR, SqlState::UNDEFINED_CURSOR),
            (super::UNDEFINED_FUNCTION, SqlState::UNDEFINED_FUNCTION),
            (super::UNIQUE_VIOLATION, SqlState::UNIQUE_VIOLATION),
            (super::WARNING, SqlState::WARNING),
            (super::WRONG_OBJECT_TYPE, SqlState::WRONG_OBJECT_TYPE),
        ] {
            assert_eq!(code, state.code(), "{state:?}");
        }
    }
}
