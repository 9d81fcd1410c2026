//! What a token allows on tables: `auth.allows()`, the policies and the event triggers that ask it,
//! and templates for tokens. All as roles that are not superusers, with tokens as Turso issues
//! them.

mod allows;
mod commands;
mod fixture;
mod schema;
mod tables;
mod templates;
