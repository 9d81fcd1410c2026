//! Random sequences against models of what must come of them.

use std::sync::Mutex;

mod identities;
mod roles;

/// Held by the model that runs: each has many sessions at the same time, and waits for what they do.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
