//! Providers whose keys are fetched: how rotations go by unnoticed, and what becomes of everything
//! that a provider, the network or the server can do wrong.

mod copies;
mod failures;
mod fixture;
mod keys;
mod schedule;
mod waiting;
mod workers;
