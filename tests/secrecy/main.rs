//! Tokens and secrets stay out of all that Postgres shows and writes.

mod canary;
mod dumps;
mod neighbours;
