//! A cluster with rows of many users, and clients behind the pooler.

use harness::{Answer, Cluster, Pooler, Preload, Wire, now};
use mint::{Algorithm, Key};
use serde_json::json;

/// As many as there are rows of two each.
pub const CLIENTS: usize = 50;

pub struct Site {
    pub cluster: Cluster,
    pub key: Key,
    pub stranger: Key,
}

impl Site {
    pub fn new(scope: &str) -> Self {
        let key = Key::generate(Algorithm::ES256);
        let jwk = key.public_jwk().to_string();
        let settings =
            [("pg_session_jwt.jwk", jwk.as_str()), ("pg_session_jwt.identity_scope", scope)];
        let cluster = Cluster::start(Preload::Shared, &settings);
        cluster
            .admin()
            .batch_execute(&format!(
                "CREATE TABLE notes (owner text);
                 INSERT INTO notes SELECT 'user ' || n % {CLIENTS} FROM generate_series(1, 2 * {CLIENTS}) n;
                 CREATE TABLE written (owner text DEFAULT auth.user_id(), writer text);
                 ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
                 ALTER TABLE written ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY own ON notes USING (owner = auth.user_id());
                 CREATE POLICY own ON written USING (owner = auth.user_id());
                 GRANT SELECT ON notes TO app; GRANT INSERT ON written TO app"
            ))
            .unwrap();
        Self { cluster, key, stranger: Key::generate(Algorithm::ES256) }
    }

    pub fn token(&self, sub: &str) -> String {
        self.key.sign(&json!({"sub": sub, "exp": now() + 600}))
    }
}

pub fn connect(pooler: &Pooler) -> Wire {
    Wire::connect(&pooler.as_role("app")).unwrap()
}

/// The rows of one column, NULL as nobody, or the SQLSTATE.
pub fn outcome(answer: &Answer) -> Vec<&str> {
    match answer {
        Ok(rows) => {
            rows.iter().flatten().map(|value| value.as_deref().unwrap_or("nobody")).collect()
        }
        Err(fields) => vec![fields.sqlstate()],
    }
}

pub fn ask(client: &mut Wire, sql: &str, parameters: &[&str]) -> String {
    outcome(&client.ask(sql, parameters).unwrap()).join(" ")
}

pub fn who(client: &mut Wire) -> String {
    ask(client, "SELECT auth.user_id()", &[])
}

pub const SESSION: &str = "SELECT auth.jwt_session_init($1)";

pub const LOCAL: &str = "SELECT auth.jwt_session_init($1, is_local => true)";

pub const SERVER: &str = "SELECT pg_backend_pid()";
