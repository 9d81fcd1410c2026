//! What each `pool_mode` needs.

use super::site::*;

/// Identities are presented in each transaction, for the transaction.
#[test]
fn transaction_pooling() {
    let site = Site::new("session");
    let pooler = site.cluster.pooler("transaction", &[("default_pool_size", "1")]);
    let [mut first, mut second] = [connect(&pooler), connect(&pooler)];
    assert_eq!(ask(&mut first, SERVER, &[]), ask(&mut second, SERVER, &[]), "one for both");
    for round in 0..10 {
        for (client, name) in [(&mut first, "user 1"), (&mut second, "user 2")] {
            client.statement("BEGIN", &[]);
            client.statement("SELECT auth.user_id()", &[]);
            client.statement(LOCAL, &[&site.token(name)]);
            client.statement("SELECT owner FROM notes", &[]);
            client.statement("COMMIT", &[]);
            let answers = client.sync().unwrap();
            assert_eq!(outcome(&answers[1]), ["nobody"], "round {round}");
            assert_eq!(outcome(&answers[3]), [name, name], "round {round}");
            assert_eq!(who(client), "nobody");
        }
    }

    // What a client presents for the session stays with the connection, which the next client
    // gets. If that presents a token that is refused, it is nobody.
    ask(&mut first, SESSION, &[&site.token("user 1")]);
    assert_eq!(who(&mut second), "user 1");
    assert_eq!(ask(&mut second, LOCAL, &["rubbish"]), "28J01");
    assert_eq!(who(&mut second), "nobody");
    assert_eq!(who(&mut first), "nobody");
}

/// The same mistake where no identity outlives its transaction.
#[test]
fn transaction_pooling_with_identity_scope() {
    let site = Site::new("transaction");
    let pooler = site.cluster.pooler("transaction", &[("default_pool_size", "1")]);
    let [mut first, mut second] = [connect(&pooler), connect(&pooler)];
    let token = site.token("user 1");
    for careless in [
        SESSION.replace("$1", &format!("'{token}'")),
        format!("SET pg_session_jwt.jwt = '{token}'"),
    ] {
        assert!(first.query(&careless).unwrap().iter().all(Result::is_ok));
        assert_eq!(who(&mut second), "nobody");
        // In a transaction it does what was meant.
        let answers = first.query(&format!("BEGIN; {careless}; SELECT owner FROM notes; COMMIT"));
        assert_eq!(outcome(&answers.unwrap()[2]), ["user 1", "user 1"]);
        assert_eq!(who(&mut second), "nobody");
    }
}

/// PgBouncer sends `server_reset_query`, which is DISCARD ALL, before it lends a connection on.
#[test]
fn session_pooling() {
    let site = Site::new("session");
    let pooler = site.cluster.pooler("session", &[("default_pool_size", "1")]);
    let mut last = None;
    for number in 0..5 {
        let mut client = connect(&pooler);
        assert_eq!(who(&mut client), "nobody", "client {number}");
        let name = format!("user {number}");
        ask(&mut client, SESSION, &[&site.token(&name)]);
        assert_eq!(who(&mut client), name);
        let server = ask(&mut client, SERVER, &[]);
        assert!(last.is_none_or(|last| last == server), "one connection for all");
        last = Some(server);
    }

    // Without it, the next client is the last one. `identity_scope` is no help, for it would end
    // identities within the session too.
    let settings = [("default_pool_size", "1"), ("server_reset_query", "")];
    let pooler = site.cluster.pooler("session", &settings);
    ask(&mut connect(&pooler), SESSION, &[&site.token("user 1")]);
    assert_eq!(who(&mut connect(&pooler)), "user 1");
}

/// A transaction block is refused; what is sent before one `Sync` is one transaction nevertheless.
#[test]
fn statement_pooling() {
    let site = Site::new("session");
    let pooler = site.cluster.pooler("statement", &[("default_pool_size", "1")]);
    let mut client = connect(&pooler);
    assert!(client.query("BEGIN").is_err(), "PgBouncer closes the connection");
    let mut client = connect(&pooler);
    // For the transaction: over when the statement is.
    assert_eq!(ask(&mut client, LOCAL, &[&site.token("user 1")]), "");
    assert_eq!(who(&mut client), "nobody");
    // For the session: anybody's.
    assert_eq!(ask(&mut client, SESSION, &[&site.token("user 1")]), "");
    assert_eq!(who(&mut connect(&pooler)), "user 1");
    assert_eq!(ask(&mut client, SESSION, &[""]), "");
    // Both in one pipeline.
    client.statement(LOCAL, &[&site.token("user 1")]);
    client.statement("SELECT owner FROM notes", &[]);
    assert_eq!(outcome(&client.sync().unwrap()[1]), ["user 1", "user 1"]);
    assert_eq!(who(&mut client), "nobody");
}
