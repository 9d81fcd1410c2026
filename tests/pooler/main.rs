//! Identities behind PgBouncer, which lends one server connection to one client after the other.

mod modes;
mod site;
mod storms;
