//! The interface to Postgres: raw calls and unsafe code behind safe functions, without policy.
//!
//! The safety arguments share one premise: a backend is one process, and Postgres runs its own code and
//! that of the extension on one thread. Functions of Postgres that can raise an error are called through
//! `pgrx`, which turns the long jump into a panic that unwinds to [`error::guarded`]. The functions that
//! are declared by hand either cannot raise an error, or are called from frames that own nothing.

pub(crate) mod backend;
pub(crate) mod compat;
pub(crate) mod datum;
pub(crate) mod error;
pub(crate) mod function;
pub(crate) mod guc;
pub(crate) mod guc_record;
pub(crate) mod memory;
pub(crate) mod node;
pub(crate) mod plan;
pub(crate) mod redact;
pub(crate) mod relation;
pub(crate) mod role;
pub(crate) mod sample;
pub(crate) mod sandbox;
pub(crate) mod shmem;
pub(crate) mod spi;
mod sqlstate;
pub(crate) mod table;
pub(crate) mod token;
pub(crate) mod trigger;
pub(crate) mod worker;
