//! The main job: a session presents a token, and row-level security obeys it.

use harness::{Cluster, Preload, now, sqlstate, text};
use mint::{Algorithm, Key};
use serde_json::json;

#[test]
fn smoke() {
    let key = Key::generate(Algorithm::ES256).with_kid("k");
    let jwk = key.public_jwk().to_string();
    let cluster = Cluster::start(Preload::Shared, &[("pg_session_jwt.jwk", &jwk)]);
    let mut client = cluster.as_role("app").client();
    assert_eq!(text(&mut client, "SELECT auth.user_id()"), None);
    let token = key.sign(&json!({"sub": "alice", "exp": now() + 60}));
    client
        .execute("SELECT auth.jwt_session_init($1)", &[&token])
        .unwrap();
    assert_eq!(
        text(&mut client, "SELECT auth.user_id()").as_deref(),
        Some("alice")
    );
    assert_eq!(
        sqlstate(client.execute("SELECT auth.jwt_session_init('x')", &[])),
        "28J01"
    );
    assert_eq!(text(&mut client, "SELECT auth.user_id()"), None);
    println!("{}", cluster.log());
}
