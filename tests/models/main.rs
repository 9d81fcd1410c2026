//! Random sequences against models of what must come of them.

mod identities;
mod roles;
