//! Rows of the table of providers, and tokens for them.

use harness::{Cluster, Preload, sqlstate};
use mint::Key;
use postgres::Client;

pub const ADD: &str = "SELECT auth.add_provider($1, issuer => $2, jwks => $3::text::json)";

pub fn cluster() -> Cluster {
    Cluster::start(Preload::Neither, &[])
}

pub fn client(cluster: &Cluster) -> Client {
    cluster.as_role("app").client()
}

/// Adds a provider whose issuer is its name.
pub fn add(client: &mut Client, name: &str, key: &Key) {
    client.execute(ADD, &[&name, &name, &key.public_jwk().to_string()]).unwrap();
}

pub fn code_of_user(client: &mut Client) -> String {
    sqlstate(client.query("SELECT auth.user_id()", &[]))
}
