//! Helpers that write SQL, and the keys and tokens in it.

use mint::{Algorithm, Key};
use postgres::Client;
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

/// Everything of the database that the extension is about, in an order that does not depend on OIDs.
pub fn contents(client: &mut Client) -> Vec<String> {
    [
        "SELECT string_agg(p::text, E'\\n' ORDER BY p.name) FROM auth.providers p",
        // Privileges of all that is in the schemas, of the row type too. pg_upgrade drops a list of privileges that is
        // the default.
        "SELECT string_agg(o, E'\\n' ORDER BY o) FROM (
             SELECT oid::regclass || array(SELECT unnest(coalesce(relacl,
                     acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", relowner)))::text ORDER BY 1)::text
             FROM pg_class
             WHERE relnamespace IN ('auth'::regnamespace, 'public'::regnamespace) AND relkind <> 'i'
             UNION ALL SELECT oid::regprocedure || coalesce(array(SELECT unnest(proacl)::text ORDER BY 1)::text, '')
             FROM pg_proc WHERE pronamespace = 'auth'::regnamespace
             UNION ALL SELECT typname || coalesce(array(SELECT unnest(typacl)::text ORDER BY 1)::text, '')
             FROM pg_type WHERE typnamespace = 'auth'::regnamespace
             UNION ALL SELECT nspname || array(SELECT unnest(nspacl)::text ORDER BY 1)::text
             FROM pg_namespace WHERE nspname = 'auth'
             UNION ALL SELECT attrelid::regclass || attname || attacl::text
             FROM pg_attribute WHERE attacl IS NOT NULL AND attrelid >= 16384
         ) x (o)",
        "SELECT string_agg(p::text, E'\\n' ORDER BY p::text) FROM pg_policies p",
        "SELECT string_agg(concat(tgrelid::regclass, ' ', tgname, ' ', tgenabled, ' ', tgfoid::regproc), E'\\n'
             ORDER BY tgrelid::regclass::text, tgname)
         FROM pg_trigger WHERE NOT tgisinternal",
        "SELECT string_agg(concat(evtname, ' ', evtenabled, ' ', evtfoid::regproc), E'\\n' ORDER BY evtname)
         FROM pg_event_trigger",
    ]
    .iter()
    .map(|query| crate::text(client, query).expect(query))
    .collect()
}
