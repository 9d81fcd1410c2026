//! A site with rows of owners.

use harness::{Preload, Shared, Site, Wire, now, values};
use mint::{Algorithm, Key};
use serde_json::json;

pub const NOBODY: &str = "nobody";

/// A site with rows that have owners.
pub fn start(preload: Preload, settings: &[(&str, &str)]) -> Site {
    let site = Site::start(preload, &[settings, &[("max_prepared_transactions", "9")]].concat());
    site.cluster
        .admin()
        .batch_execute(
            "CREATE TABLE notes (owner text NOT NULL DEFAULT auth.user_id());
             INSERT INTO notes VALUES ('alice'), ('bob'), ('bob');
             ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON notes USING (owner = auth.user_id());
             GRANT SELECT, INSERT ON notes TO app;
             CREATE FUNCTION who() RETURNS text LANGUAGE sql
                 AS $$ SELECT coalesce(auth.user_id(), 'nobody') $$",
        )
        .unwrap();
    site
}

/// The sites that tests share, with the rows that they have at the start.
pub static SITES: Shared<Site> = Shared::new(|preload| start(preload, &[]));

pub fn connect(site: &Site) -> Wire {
    Wire::connect(&site.app()).unwrap()
}

pub fn forged() -> String {
    Key::generate(Algorithm::ES256).sign(&json!({"sub": "mallory", "exp": now() + 600}))
}

/// Who the session is, or the SQLSTATE.
pub fn who(client: &mut Wire) -> String {
    client.answer("SELECT who()", &[])
}

/// What the session sees of others' and its own.
pub fn notes(client: &mut Wire) -> Vec<String> {
    let answer = client.ask("SELECT owner FROM notes ORDER BY owner", &[]).unwrap();
    values(&answer).into_iter().map(str::to_owned).collect()
}

pub const CARRIERS: [&str; 6] = [
    "SELECT auth.jwt_session_init('{}')",
    "SELECT auth.jwt_session_init('{}', true)",
    "SET pg_session_jwt.jwt = '{}'",
    "SET LOCAL pg_session_jwt.jwt = '{}'",
    "SELECT set_config('pg_session_jwt.jwt', '{}', false)",
    "DO $$ BEGIN PERFORM auth.jwt_session_init('{}'); END $$",
];
