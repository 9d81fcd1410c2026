//! Database roles by token: a session takes the role that its token names, for as long as the token is
//! in force, and locked sessions change it in no other way.

mod example;
mod fixture;
mod lasting;
mod locks;
mod login;
mod one_token;
mod plans;
mod taken;
