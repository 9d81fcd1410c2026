//! The role that a token names: [`token_role`] makes it the role of the session, [`transaction`] keeps one
//! role in each transaction, [`locked`] lists the login roles whose sessions change their role in no other
//! way, and [`commands`] judges utility statements.

pub(crate) mod commands;
pub(crate) mod locked;
pub(crate) mod token_role;
pub(crate) mod transaction;
