//! What each `pool_mode` needs.

use harness::{Code, values};

use super::site::*;

/// Identities are presented in each transaction, for the transaction.
#[test]
fn transaction_pooling() {
    let site = start("session");
    let pooler = site.cluster.pooler("transaction", &[("default_pool_size", "1")]);
    let [mut first, mut second] = [connect(&pooler), connect(&pooler)];
    assert_eq!(first.answer(SERVER, &[]), second.answer(SERVER, &[]), "one for both");
    for round in 0..10 {
        for (client, name) in [(&mut first, "user 1"), (&mut second, "user 2")] {
            client.statement("BEGIN", &[]);
            client.statement("SELECT auth.user_id()", &[]);
            client.statement(LOCAL, &[&site.token(name)]);
            client.statement("SELECT owner FROM notes", &[]);
            client.statement("COMMIT", &[]);
            let answers = client.sync().unwrap();
            assert_eq!(values(&answers[1]), ["nobody"], "round {round}");
            assert_eq!(values(&answers[3]), [name, name], "round {round}");
            assert_eq!(client.user(), "nobody", "{name:?}, {round:?}");
        }
    }

    // What a client presents for the session stays with the connection, which the next client
    // gets. If that presents a token that is refused, it is nobody.
    first.answer(SESSION, &[&site.token("user 1")]);
    assert_eq!(
        second.user(),
        "user 1",
        "what a client presents for the session stays with the connection"
    );
    assert_eq!(
        second.answer(LOCAL, &["rubbish"]),
        Code::Malformed.sqlstate(),
        "what a client presents for the session stays with the connection"
    );
    assert_eq!(
        second.user(),
        "nobody",
        "what a client presents for the session stays with the connection"
    );
    assert_eq!(
        first.user(),
        "nobody",
        "what a client presents for the session stays with the connection"
    );
}

/// The same mistake where no identity outlives its transaction.
#[test]
fn transaction_pooling_with_identity_scope() {
    let site = start("transaction");
    let pooler = site.cluster.pooler("transaction", &[("default_pool_size", "1")]);
    let [mut first, mut second] = [connect(&pooler), connect(&pooler)];
    let token = site.token("user 1");
    for careless in [
        SESSION.replace("$1", &format!("'{token}'")),
        format!("SET pg_session_jwt.jwt = '{token}'"),
    ] {
        assert!(first.query(&careless).unwrap().iter().all(Result::is_ok), "{careless:?}");
        assert_eq!(second.user(), "nobody", "{careless:?}");
        // In a transaction it does what was meant.
        let answers = first.query(&format!("BEGIN; {careless}; SELECT owner FROM notes; COMMIT"));
        assert_eq!(values(&answers.unwrap()[2]), ["user 1", "user 1"], "{careless:?}");
        assert_eq!(second.user(), "nobody", "{careless:?}");
    }
}

/// PgBouncer sends `server_reset_query`, which is DISCARD ALL, before it lends a connection on.
#[test]
fn session_pooling() {
    let site = start("session");
    let pooler = site.cluster.pooler("session", &[("default_pool_size", "1")]);
    let mut last = None;
    for number in 0..5 {
        let mut client = connect(&pooler);
        assert_eq!(client.user(), "nobody", "client {number}");
        let name = format!("user {number}");
        client.answer(SESSION, &[&site.token(&name)]);
        assert_eq!(client.user(), name, "{number:?}");
        let server = client.answer(SERVER, &[]);
        assert!(last.is_none_or(|last| last == server), "one connection for all");
        last = Some(server);
    }

    // Without it, the next client is the last one. `identity_scope` is no help, for it would end
    // identities within the session too.
    let settings = [("default_pool_size", "1"), ("server_reset_query", "")];
    let pooler = site.cluster.pooler("session", &settings);
    connect(&pooler).answer(SESSION, &[&site.token("user 1")]);
    assert_eq!(connect(&pooler).user(), "user 1", "without it, the next client is the last one");
}

/// A transaction block is refused; what is sent before one `Sync` is one transaction nevertheless.
#[test]
fn statement_pooling() {
    let site = start("session");
    let pooler = site.cluster.pooler("statement", &[("default_pool_size", "1")]);
    let mut client = connect(&pooler);
    assert!(client.query("BEGIN").is_err(), "PgBouncer closes the connection");
    let mut client = connect(&pooler);
    // For the transaction: over when the statement is.
    assert_eq!(client.answer(LOCAL, &[&site.token("user 1")]), "", "for the transaction");
    assert_eq!(client.user(), "nobody", "for the transaction");
    // For the session: anybody's.
    assert_eq!(client.answer(SESSION, &[&site.token("user 1")]), "", "for the session");
    assert_eq!(connect(&pooler).user(), "user 1", "for the session");
    assert_eq!(client.answer(SESSION, &[""]), "", "for the session");
    // Both in one pipeline.
    client.statement(LOCAL, &[&site.token("user 1")]);
    client.statement("SELECT owner FROM notes", &[]);
    assert_eq!(values(&client.sync().unwrap()[1]), ["user 1", "user 1"], "both in one pipeline");
    assert_eq!(client.user(), "nobody", "both in one pipeline");
}
