//! The cluster that most tests use.

use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::json;

use crate::{Cluster, Connection, Fixture, Preload, sign, token};

/// A cluster that trusts two providers: one without leeway, and one whose `jti` must rise.
pub struct Site {
    /// The cluster, with the extension and the role `app`.
    pub cluster: Cluster,
    /// The key of the first provider, which has no issuer.
    pub key: Key,
    /// The key of the second, whose issuer is `counting`.
    pub counting: Key,
}

impl Site {
    /// Starts the cluster.
    pub fn start(preload: Preload, settings: &[(&str, &str)]) -> Self {
        let key = Key::generate(Algorithm::ES256);
        let counting = Key::generate(Algorithm::EdDSA);
        let providers = json!([
            {"name": "plain", "jwks": key.public_jwk(), "leeway": 0},
            {"name": "counting", "issuer": "counting", "jwks": counting.public_jwk(),
             "monotonic_jti": true},
        ]);
        let providers = providers.to_string();
        let mut all = vec![("pg_session_jwt.providers", providers.as_str())];
        all.extend_from_slice(settings);
        Self { cluster: Cluster::start(preload, &all), key, counting }
    }

    /// A connection as `app`.
    pub fn app(&self) -> Connection {
        self.cluster.as_role("app")
    }

    /// A client as `app`.
    pub fn client(&self) -> Client {
        self.app().client()
    }

    /// The first provider's token for this user, for ten minutes.
    pub fn token(&self, sub: &str) -> String {
        token(&self.key, sub)
    }

    /// The same, until then.
    pub fn token_until(&self, sub: &str, exp: i64) -> String {
        self.key.sign(&json!({"sub": sub, "exp": exp}))
    }

    /// The second provider's token with this `jti`, whose user is called like it.
    pub fn counted(&self, jti: i64) -> String {
        sign(&self.counting, json!({"iss": "counting", "sub": jti.to_string(), "jti": jti}))
    }
}

impl Fixture for Site {
    fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}
