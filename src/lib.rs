//! pg_session_jwt: a Postgres session knows who is asking, because the backend verified the JWT
//! itself. `ARCHITECTURE.md` is the map.
//!
//! [`settings`] says what may be configured and by whom; [`providers`] finds the provider of a token,
//! there or in the table, and has keys fetched; [`session`] keeps the identity,
//! [`cache`] the tokens verified before; [`functions`] are what SQL calls; [`audit`] writes the log;
//! [`pg`] is the only module that touches Postgres itself.

#![deny(unsafe_code)]

mod audit;
mod cache;
mod functions;
#[allow(unsafe_code)]
mod pg;
mod providers;
mod session;
mod settings;

pg::module_entry!(on_load);
pg::worker::worker_entry!(providers::run);

/// What loading the library does, in the postmaster or in a backend: nothing but registering.
fn on_load() {
    // Not to be left half done by a cancelled statement.
    pg::hold_interrupts(|| {
        pg::secrets::guard();
        pg::when_all_are_loaded(|| {
            pg::secrets::guard_first();
            pg::statement::watch(session::prepare, session::vouch);
        });
        pg::role::guard(settings::is_locked, session::forget);
        pg::plan::watch();
        pg::plan::bind_at_load();
        settings::register();
        watch_providers();
        pg::relation::watch_names();
        pg::definition::watch(session::demand);
        pg::on_commit(session::warn_of_unused_token);
        pg::on_transaction_end(|committed| {
            session::end_transaction();
            providers::transaction_ended(committed);
        });
    });
}

/// The assign hook of a document with keys.
fn documents_changed() {
    providers::invalidate_settings();
    session::forget();
}

/// Registers the relation-cache callback for the table of providers.
#[allow(unsafe_code)]
fn watch_providers() {
    use pgrx::pg_sys::{self, Datum, Oid};
    unsafe extern "C-unwind" fn relcache_callback(_argument: Datum, relation: Oid) {
        if providers::relcache_callback(relation) {
            providers::invalidate();
            session::forget();
        }
    }
    // SAFETY: the callback lives as long as the library, which is never unloaded.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(relcache_callback), Datum::null()) }
}
