//! Helpers that write SQL, settings and the documents in them.

/// An SQL literal.
pub fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}
