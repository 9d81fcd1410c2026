//! Identities: what a token makes of a session, and for how long.

mod encodings;
mod fixture;
mod inspection;
mod readers;
mod remembered;
mod scope;
mod session;
mod unused;
mod whoami;
