//! What the documentation and the examples say works as they say.

mod blocks;
mod clients;
mod cookbook;
mod demo;
mod federation;
mod identity_providers;
mod migration;
mod moving;
