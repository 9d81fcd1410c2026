//! `auth.health()` and `auth.explain_access()`.

mod attacks;
mod cases;
mod explain;
mod explained;
mod health;
mod linter;
mod providers;
mod puzzles;
mod roles;
mod trials;
