//! Identities: what a token makes of a session, and for how long.

mod demands;
mod encodings;
mod fixture;
mod grants;
mod inspection;
mod readers;
mod remembered;
mod scope;
mod session;
mod shared_cache;
mod unused;
mod whoami;
