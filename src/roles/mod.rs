//! Roles by token: which role a session has, which transactions and plans have it, and which sessions may
//! change their role in no other way.

pub(crate) mod commands;
pub(crate) mod locked;
pub(crate) mod token_role;
pub(crate) mod transaction;
