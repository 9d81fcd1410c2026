//! A cluster with one key.

use harness::{Cluster, Preload};
use mint::Key;

/// A cluster that trusts one key by `pg_session_jwt.jwk`.
pub fn cluster_with(key: &Key) -> Cluster {
    Cluster::start(Preload::Shared, &[("pg_session_jwt.jwk", &key.public_jwk().to_string())])
}

/// A payload as written, digits and all.
pub fn sign_text(key: &Key, payload: &str) -> String {
    key.sign_raw(br#"{"alg":"ES256"}"#, payload.as_bytes())
}
