//! How long an identity lasts: transactions, savepoints, pipelines, procedures, functions with SET
//! clauses, cursors, and `pg_session_jwt.identity_scope`.

mod claims;
mod fixture;
mod functions;
mod setting;
mod transactions;
