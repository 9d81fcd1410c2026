//! `auth.stats()`, `auth.stats_reset()` and `auth.sessions`: statistics in shared memory.

mod access;
mod counters;
mod fixture;
mod load;
mod monitoring;
mod providers;
mod sessions;
