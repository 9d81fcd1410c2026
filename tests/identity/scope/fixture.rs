//! A site with rows of owners.

use harness::{Preload, Site, Wire, now};
use mint::{Algorithm, Key};
use serde_json::json;

pub const NOBODY: &str = "nobody";

pub const DONE: &str = "00000";

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

pub fn connect(site: &Site) -> Wire {
    Wire::connect(&site.app()).unwrap()
}

pub fn forged() -> String {
    Key::generate(Algorithm::ES256).sign(&json!({"sub": "mallory", "exp": now() + 600}))
}

/// What one statement of one column came to: its rows, with nobody for NULL, or the SQLSTATE.
pub fn outcome(answer: harness::Answer) -> Vec<String> {
    match answer {
        Ok(rows) => rows
            .into_iter()
            .flatten()
            .map(|value| value.unwrap_or_else(|| NOBODY.to_owned()))
            .collect(),
        Err(fields) => vec![fields.sqlstate().to_owned()],
    }
}

/// Statements in one message: the SQLSTATE of the first that fails.
pub fn run(client: &mut Wire, sql: &str) -> String {
    let failed = client.query(sql).unwrap().into_iter().find_map(Result::err);
    failed.map_or_else(|| DONE.to_owned(), |fields| fields.sqlstate().to_owned())
}

pub fn init(client: &mut Wire, token: &str, is_local: bool) -> String {
    let init = format!("SELECT auth.jwt_session_init($1, {is_local})");
    match client.ask(&init, &[token]).unwrap() {
        Ok(_) => DONE.to_owned(),
        Err(fields) => fields.sqlstate().to_owned(),
    }
}

/// Who the session is, or the SQLSTATE.
pub fn who(client: &mut Wire) -> String {
    outcome(client.ask("SELECT who()", &[]).unwrap()).concat()
}

/// What the session sees of others' and its own.
pub fn notes(client: &mut Wire) -> Vec<String> {
    outcome(client.ask("SELECT owner FROM notes ORDER BY owner", &[]).unwrap())
}

pub const CARRIERS: [&str; 6] = [
    "SELECT auth.jwt_session_init('{}')",
    "SELECT auth.jwt_session_init('{}', true)",
    "SET pg_session_jwt.jwt = '{}'",
    "SET LOCAL pg_session_jwt.jwt = '{}'",
    "SELECT set_config('pg_session_jwt.jwt', '{}', false)",
    "DO $$ BEGIN PERFORM auth.jwt_session_init('{}'); END $$",
];
