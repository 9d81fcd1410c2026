//! Plans: what policies answer through prepared statements, every kind of relation and statement,
//! and parallel workers. All as a role that is neither superuser nor owner.

mod changes;
mod fixture;
mod prepared;
mod queries;
mod time;
mod workers;
mod writes;
