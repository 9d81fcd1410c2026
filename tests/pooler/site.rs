//! A cluster with rows of many users, and clients behind the pooler.

use std::sync::LazyLock;

use harness::{Pooler, Preload, Site, Wire, run};
use mint::{Algorithm, Key};

/// As many as there are rows of two each.
pub const CLIENTS: usize = 50;

pub fn connect(pooler: &Pooler) -> Wire {
    Wire::connect(&pooler.as_role("app")).unwrap()
}

/// A key that the cluster does not trust.
pub static STRANGER: LazyLock<Key> = LazyLock::new(|| Key::generate(Algorithm::ES256));

/// A site with rows of every client, and this `identity_scope`.
pub fn start(scope: &str) -> Site {
    let site = Site::start(Preload::Shared, &[("pg_session_jwt.identity_scope", scope)]);
    run(
        &mut site.cluster.admin(),
        &format!(
            "CREATE TABLE notes (owner text);
             INSERT INTO notes SELECT 'user ' || n % {CLIENTS} FROM generate_series(1, 2 * {CLIENTS}) n;
             CREATE TABLE written (owner text DEFAULT auth.user_id(), writer text);
             ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
             ALTER TABLE written ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON notes USING (owner = auth.user_id());
             CREATE POLICY own ON written USING (owner = auth.user_id());
             GRANT SELECT ON notes TO app; GRANT INSERT ON written TO app"
        ),
    );
    site
}

pub const SESSION: &str = "SELECT auth.jwt_session_init($1)";

pub const LOCAL: &str = "SELECT auth.jwt_session_init($1, is_local => true)";

pub const SERVER: &str = "SELECT pg_backend_pid()";
