//! `auth.health()` and `auth.explain_access()`.

mod cases;
mod health;
mod linter;
mod providers;
mod roles;
