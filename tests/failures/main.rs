//! What becomes of identities, sessions and the server when something runs out or dies.

mod crashes;
mod limits;
mod memory;
mod out_of_memory;
