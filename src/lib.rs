//! pg_session_jwt: a Postgres session knows who is asking, because the backend verified the JWT
//! itself. `ARCHITECTURE.md` is the map.
//!
//! [`settings`] says what may be configured and by whom; [`keyring`] finds the provider of a token,
//! there or in the table; [`refresh`] has providers' keys fetched; [`session`] keeps the identity,
//! [`cache`] the tokens verified before; [`permissions`] says what a token allows on tables, [`roles`] what a
//! locked session may not do; [`functions`] are what SQL calls; [`audit`] writes the log;
//! [`pg`] is the only module that touches Postgres itself.

#![deny(unsafe_code)]

mod audit;
mod cache;
mod functions;
mod keyring;
mod permissions;
#[allow(unsafe_code)]
mod pg;
mod refresh;
mod roles;
mod session;
mod settings;

pg::module_entry!(on_load);
pg::worker::worker_entry!(refresh::work);

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
        pg::table::on_change(keyring::table_changed);
        pg::relation::watch_names();
        pg::definition::watch();
        pg::on_commit(session::warn_of_unused_token);
        pg::on_transaction_end(|committed| {
            session::end_transaction();
            refresh::end_transaction(committed);
        });
    });
}
