//! Database roles: those that tokens name, and login roles whose sessions are locked.

pub(crate) mod commands;
