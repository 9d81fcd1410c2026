//! Reads rows of a table for a caller that could read all of them, without the parser, the planner and the
//! executor: these evaluate expressions of the table's owner, such as those of indexes, and find the table by its
//! name, which may belong to another relation by then.

use std::ffi::c_int;

use pgrx::pg_sys::{self, Datum, Oid};
use session_jwt::{Code, Rejection};

use super::datum::raw_size;

/// The most rows that are read.
const MOST_ROWS: usize = 1000;

/// The most memory that rows take, in bytes.
const MOST_BYTES: usize = 32 << 20;

/// The first rows of a table and its children, as an array of its row type, which is `kind`.
///
/// # Errors
/// Where the relation is no table, or has a foreign table as a child, where the caller may not read all rows, or
/// where `kind` is another type.
pub(crate) fn rows(table: Oid, kind: Oid) -> Result<Datum, Rejection> {
    // SAFETY: the calls take any OID, and raise an error where there is no such relation. The relations stay open
    // and locked while their rows are read. A row is valid until the next call for one, and is copied before. An
    // error of Postgres closes the relations and ends the scan.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(table, lock);
        let form = &*(*relation).rd_rel;
        if !matches!(
            form.relkind as u8,
            pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE
        ) {
            return Err(denied("It is no table."));
        }
        let element = form.reltype;
        if pg_sys::get_element_type(kind) != element {
            return Err(denied("The other argument is no array of its row type."));
        }
        let select = pg_sys::ACL_SELECT as pg_sys::AclMode;
        let privilege = pg_sys::pg_class_aclcheck(table, pg_sys::GetUserId(), select);
        let policies = pg_sys::check_enable_rls(table, Oid::INVALID, true);
        if privilege != pg_sys::AclResult::ACLCHECK_OK
            || policies == pg_sys::CheckEnableRlsResult::RLS_ENABLED as c_int
        {
            return Err(denied("The caller may not read all of its rows."));
        }
        let memory = pg_sys::CurrentMemoryContext;
        let mut found = pg_sys::initArrayResult(element, memory, false);
        let (mut count, mut bytes) = (0, 0);
        let children = find_all_inheritors(table, lock, std::ptr::null_mut());
        let length = usize::try_from((*children).length).unwrap_or(0);
        for child in std::slice::from_raw_parts((*children).elements, length) {
            let child = pg_sys::table_open(child.oid_value, 0);
            let form = &*(*child).rd_rel;
            if form.relkind as u8 == pg_sys::RELKIND_FOREIGN_TABLE {
                return Err(denied("A child is a foreign table."));
            }
            // Another session's temporary table cannot be read.
            let has_rows = form.relkind as u8 == pg_sys::RELKIND_RELATION
                && form.relpersistence as u8 != pg_sys::RELPERSISTENCE_TEMP;
            if !has_rows {
                pg_sys::table_close(child, 0);
                continue;
            }
            let own = (*relation).rd_att;
            let map = pg_sys::convert_tuples_by_name((*child).rd_att, own);
            let snapshot = pg_sys::GetActiveSnapshot();
            let none = std::ptr::null_mut();
            let scan = pg_sys::systable_beginscan(child, Oid::INVALID, false, snapshot, 0, none);
            while count < MOST_ROWS && bytes < MOST_BYTES {
                let tuple = pg_sys::systable_getnext(scan);
                if tuple.is_null() {
                    break;
                }
                let tuple =
                    if map.is_null() { tuple } else { pg_sys::execute_attr_map_tuple(tuple, map) };
                // The copy has the values that are stored out of line.
                let row = pg_sys::heap_copy_tuple_as_datum(tuple, own);
                count += 1;
                bytes += raw_size(row);
                found = pg_sys::accumArrayResult(found, row, false, element, memory);
            }
            pg_sys::systable_endscan(scan);
            pg_sys::table_close(child, 0);
        }
        pg_sys::table_close(relation, 0);
        Ok(pg_sys::makeArrayResult(found, memory))
    }
}

fn denied(detail: &str) -> Rejection {
    Rejection::new(Code::Forbidden, "permission denied to read a sample of a table")
        .with_detail(detail)
}

unsafe extern "C-unwind" {
    // `pgrx` does not declare it.
    fn find_all_inheritors(
        parent: Oid,
        lock: pg_sys::LOCKMODE,
        parents: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::List;
}
