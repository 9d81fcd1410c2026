//! Identities behind PgBouncer, which lends one server connection to one client after the other.

use harness::{Cluster, Preload, now, sqlstate, text};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::json;

fn fixture() -> (Cluster, Key) {
    let key = Key::generate(Algorithm::ES256);
    let jwk = key.public_jwk().to_string();
    (Cluster::start(Preload::Shared, &[("pg_session_jwt.jwk", &jwk)]), key)
}

fn token(key: &Key, sub: &str) -> String {
    key.sign(&json!({"sub": sub, "exp": now() + 600}))
}

fn server(client: &mut Client) -> String {
    text(client, "SELECT pg_backend_pid()::text").unwrap()
}

#[test]
fn transaction_pooling() {
    let (cluster, key) = fixture();
    let pooler = cluster.pooler("transaction", &[("default_pool_size", "1")]);
    let mut clients: Vec<Client> = (0..4).map(|_| pooler.as_role("app").client()).collect();
    let servers: Vec<String> = clients.iter_mut().map(server).collect();
    assert!(servers.windows(2).all(|pair| pair[0] == pair[1]), "one connection for all");
    for round in 0..10 {
        for (number, client) in clients.iter_mut().enumerate() {
            let name = format!("user {number}");
            let mut transaction = client.transaction().unwrap();
            let before: Option<String> =
                transaction.query_one("SELECT auth.user_id()", &[]).unwrap().get(0);
            assert_eq!(before, None, "round {round}, client {number}");
            let init = "SELECT auth.jwt_session_init($1, true)";
            transaction.execute(init, &[&token(&key, &name)]).unwrap();
            let who: String = transaction.query_one("SELECT auth.user_id()", &[]).unwrap().get(0);
            assert_eq!(who, name);
            transaction.commit().unwrap();
            assert_eq!(text(client, "SELECT auth.user_id()"), None);
        }
    }

    // A client that forgets `is_local` leaves its identity to the next one; if that presents a
    // token that is refused, it is nobody.
    let [first, second, ..] = &mut clients[..] else { unreachable!() };
    let init = "SELECT auth.jwt_session_init($1)";
    first.execute(init, &[&token(&key, "careless")]).unwrap();
    assert_eq!(text(second, "SELECT auth.user_id()").as_deref(), Some("careless"));
    let local = "SELECT auth.jwt_session_init($1, true)";
    assert_eq!(sqlstate(second.execute(local, &[&"rubbish"])), "28J01");
    assert_eq!(text(second, "SELECT auth.user_id()"), None);
    assert_eq!(text(first, "SELECT auth.user_id()"), None);
}

#[test]
fn session_pooling() {
    let (cluster, key) = fixture();
    let pooler = cluster.pooler("session", &[("default_pool_size", "1")]);
    let mut last = None;
    for number in 0..5 {
        // PgBouncer sends DISCARD ALL before it lends the connection to the next client.
        let mut client = pooler.as_role("app").client();
        assert_eq!(text(&mut client, "SELECT auth.user_id()"), None, "client {number}");
        let name = format!("user {number}");
        client.execute("SELECT auth.jwt_session_init($1)", &[&token(&key, &name)]).unwrap();
        assert_eq!(text(&mut client, "SELECT auth.user_id()"), Some(name));
        let server = server(&mut client);
        assert!(last.is_none_or(|last| last == server), "one connection for all");
        last = Some(server);
    }
}
