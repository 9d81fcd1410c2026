//! Rows of the table of providers, and tokens for them.

use harness::{Cluster, Preload, now, sqlstate};
use mint::{Algorithm, Key};
use postgres::Client;
use postgres::error::DbError;
use serde_json::json;

pub const ADD: &str = "SELECT auth.add_provider($1, issuer => $2, jwks => $3::text::json)";

pub fn cluster() -> Cluster {
    Cluster::start(Preload::Neither, &[])
}

pub fn key(kid: &str) -> Key {
    Key::generate(Algorithm::ES256).with_kid(kid)
}

pub fn client(cluster: &Cluster) -> Client {
    cluster.as_role("app").client()
}

/// Adds a provider whose issuer is its name.
pub fn add(client: &mut Client, name: &str, key: &Key) {
    client.execute(ADD, &[&name, &name, &key.public_jwk().to_string()]).unwrap();
}

pub fn token(key: &Key, issuer: &str, sub: &str) -> String {
    key.sign(&json!({"iss": issuer, "sub": sub, "exp": now() + 600}))
}

pub fn code_of_user(client: &mut Client) -> String {
    sqlstate(client.query("SELECT auth.user_id()", &[]))
}

pub fn error(outcome: Result<u64, postgres::Error>) -> DbError {
    outcome.unwrap_err().as_db_error().unwrap().clone()
}
