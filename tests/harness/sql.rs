//! Helpers that write SQL, and the keys and tokens in it.

use mint::{Algorithm, Key};
use serde_json::{Value, json};

use crate::now;

/// An SQL literal.
pub fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A new key of this id.
pub fn key(kid: &str) -> Key {
    Key::generate(Algorithm::ES256).with_kid(kid)
}

/// A set of these public keys.
pub fn jwks(keys: &[&Key]) -> Value {
    let keys: Vec<_> = keys.iter().map(|key| key.public_jwk()).collect();
    json!({ "keys": keys })
}

/// A token with these claims, for ten minutes where they do not say for how long.
pub fn sign(key: &Key, mut claims: Value) -> String {
    if claims["exp"].is_null() {
        claims["exp"] = json!(now() + 600);
    }
    key.sign(&claims)
}

/// A token for this user.
pub fn token(key: &Key, sub: &str) -> String {
    sign(key, json!({ "sub": sub }))
}

/// A token of this issuer for this user.
pub fn token_of(key: &Key, issuer: &str, sub: &str) -> String {
    sign(key, json!({"iss": issuer, "sub": sub}))
}
