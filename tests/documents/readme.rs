//! The snippets of SQL in `README.md` run in their order, as the roles that the page names.

use harness::{Cluster, Preload, Wire, key, run, sign, values};
use mint::Key;
use serde_json::json;

const PAGE: &str = include_str!("../../README.md");

/// The statements of the snippet at a place.
fn statements(place: usize) -> Vec<&'static str> {
    let snippet = PAGE.split("```sql\n").nth(place + 1).and_then(|rest| rest.split("```").next());
    let statements = snippet.expect("a snippet").split(";").map(str::trim);
    let without_comment = |statement: &'static str| match statement.strip_prefix("--") {
        Some(rest) => rest.split_once('\n').map_or("", |(_, rest)| rest.trim()),
        None => statement,
    };
    statements.map(without_comment).filter(|statement| !statement.is_empty()).collect()
}

#[test]
fn the_snippets_run() {
    let cluster = Cluster::start_bare(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    for statement in statements(0).into_iter().chain(statements(1)) {
        run(&mut admin, statement);
    }
    // The page's provider cannot be reached, so that it gets its keys by hand.
    let key = key("k1");
    let jwks = json!({"keys": [Key::public_jwk(&key)]}).to_string();
    let keys = "UPDATE auth.providers SET jwks = $1::text::json";
    admin.execute(keys, &[&jwks]).expect("keys");
    run(&mut admin, "INSERT INTO todos VALUES ('bob', 'cook')");

    let claims = json!({
        "iss": "https://login.example.com", "aud": "my-app", "sub": "alice", "org_id": "acme",
        "roles": ["admin"],
    });
    let token = sign(&key, claims);
    let mut app = Wire::connect(&cluster.as_role("app")).expect("a connection");
    let mut answers = Vec::new();
    for statement in statements(2).into_iter().chain(statements(3)) {
        let parameters = if statement.contains("$1") { vec![token.as_str()] } else { Vec::new() };
        let answer = app.ask(statement, &parameters).expect("an answer");
        assert!(answer.is_ok(), "{statement}: {answer:?}");
        answers.push((statement, answer));
    }
    for (statement, expected) in [
        ("SELECT * FROM todos", ["alice", "water the plants"].as_slice()),
        ("SELECT auth.user_id(), auth.session()", ["alice"].as_slice()),
    ] {
        let (_, answer) =
            answers.iter().find(|(sql, _)| sql.starts_with(statement)).expect(statement);
        let found = values(answer);
        assert!(found.starts_with(expected), "{statement}: {found:?}");
    }
    let (_, answer) = answers.iter().find(|(sql, _)| sql.contains("auth.claim(")).expect("claims");
    assert!(values(answer).ends_with(&["acme", "t"]), "{answer:?}");
}
