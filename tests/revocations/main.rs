//! Revocation: tokens that are good, and that the database does not accept any more.

mod altered;
mod attacks;
mod fixture;
mod logout;
mod matching;
mod presented;
mod rows;
mod servers;
mod sessions;
