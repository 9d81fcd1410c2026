//! The identity providers that this database trusts, and their keys.
//!
//! [`lookup`] finds the provider of a token and verifies the token; [`table`] reads `auth.providers`,
//! and [`row`] knows its columns; [`trigger`] checks its rows. [`schedule`] says when keys are
//! fetched. A session asks for keys ([`refresh`]), a background worker fetches them ([`worker`]) and
//! records the outcome ([`writer`]). [`report`] has what SQL functions tell about providers, and [`findings`] what
//! `auth.health()` finds.
//!
//! These modules do not know the session's identity. A caller of [`invalidate`] or [`invalidate_settings`]
//! also invalidates the identity. [`verify`] may raise the epoch when it waits for keys, so its callers
//! compare [`epoch`] before and after.

mod findings;
mod lookup;
mod refresh;
mod report;
mod row;
mod schedule;
mod table;
mod trigger;
mod worker;
mod writer;

pub(crate) use findings::findings;
pub(crate) use lookup::{
    Trust, assume, candidates, epoch, invalidate, invalidate_settings, is_current, serves, verify,
    verify_logout,
};
pub(crate) use refresh::transaction_ended;
pub(crate) use report::{added_provider, provider_keys, refresh_provider, warn_of_unusable_keys};
pub(crate) use table::{Table, has_read_table, relcache_callback};
pub(crate) use trigger::check_row;
pub(crate) use worker::run;
