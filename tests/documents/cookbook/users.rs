//! Recipes for rows of users.

use harness::{
    Code, FOREIGN_KEY_VIOLATION, INSUFFICIENT_PRIVILEGE, NOT_NULL_VIOLATION, SUCCESS,
    UNIQUE_VIOLATION, now, present, run, shows_rows_to_do_update,
};
use serde_json::{Value, json};

use super::recipe::*;

#[test]
fn own_rows() {
    let recipe = Recipe::follow("Own rows");
    let mut late = recipe.client_for(3, json!({"sub": "alice"}));
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| recipe.user(name));
    alice.expect(&[
        ("INSERT INTO notes (id, body) VALUES (pg_temp.n(1), 'of alice')", "#1"),
        ("INSERT INTO notes (body) VALUES ('more of alice') RETURNING owner", "alice"),
    ]);
    bob.expect(&[
        ("INSERT INTO notes (id, body) VALUES (pg_temp.n(2), 'of bob')", "#1"),
        ("INSERT INTO notes (owner, body) VALUES ('alice', 'x')", INSUFFICIENT_PRIVILEGE),
        ("INSERT INTO notes (owner, body) VALUES (NULL, 'x')", INSUFFICIENT_PRIVILEGE),
        ("INSERT INTO notes (body) VALUES ('x'), (NULL)", NOT_NULL_VIOLATION),
        ("UPDATE notes SET owner = 'alice'", INSUFFICIENT_PRIVILEGE),
        (
            "UPDATE notes SET owner = 'alice' WHERE id = pg_temp.n(2) RETURNING *",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("UPDATE notes SET body = 'x' WHERE id = pg_temp.n(1) RETURNING body", "#0"),
        ("UPDATE notes SET owner = 'bob' WHERE owner = 'alice'", "#0"),
        ("DELETE FROM notes WHERE owner = 'alice' RETURNING *", "#0"),
        ("SELECT body FROM notes WHERE id = pg_temp.n(1) FOR UPDATE", "#0"),
        (
            "INSERT INTO notes (id, body) VALUES (pg_temp.n(1), 'x')
             ON CONFLICT (id) DO UPDATE SET owner = 'bob'",
            INSUFFICIENT_PRIVILEGE,
        ),
        // What shows to those who know the key.
        ("INSERT INTO notes (id, body) VALUES (pg_temp.n(1), 'x')", UNIQUE_VIOLATION),
        (
            "INSERT INTO notes AS n (id, body) VALUES (pg_temp.n(1), 'x')
             ON CONFLICT (id) DO UPDATE SET body = 'x' WHERE pg_temp.leaks(n.body)",
            INSUFFICIENT_PRIVILEGE,
        ),
        (
            "MERGE INTO notes USING (VALUES (1)) v ON id = pg_temp.n(1)
             WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (owner, body)
             VALUES ('alice', 'x')",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("WITH x AS (DELETE FROM notes WHERE owner <> 'bob' RETURNING *) SELECT FROM x", "#0"),
        ("UPDATE notes SET body = 'of bob' RETURNING owner", "bob"),
    ]);
    let leaked = bob.take_leaked();
    let is_shown = shows_rows_to_do_update() && leaked == ["of alice"];
    assert!(is_shown || leaked.is_empty(), "{leaked:?}");
    let mut nobody = recipe.nobody("app");
    nobody.expect(&[
        ("INSERT INTO notes (body) VALUES ('x')", INSUFFICIENT_PRIVILEGE),
        ("INSERT INTO notes (owner, body) VALUES ('alice', 'x')", INSUFFICIENT_PRIVILEGE),
        ("UPDATE notes SET owner = NULL", "#0"),
        ("DELETE FROM notes", "#0"),
    ]);
    recipe.besiege(&mut alice, "notes", "body", &["more of alice", "of alice"]);
    recipe.besiege(&mut bob, "notes", "body", &["of bob"]);
    recipe.besiege(&mut nobody, "notes", "body", &[]);
    recipe.besiege(&mut recipe.client(json!({"email": "alice"})), "notes", "body", &[]);
    alice.expect_indexes("notes", &["notes_owner_idx"]);
    late.expect_expired(&[
        "SELECT * FROM notes",
        "INSERT INTO notes (body) VALUES ('x')",
        "INSERT INTO notes (owner, body) VALUES ('alice', 'x')",
        "UPDATE notes SET body = 'x'",
        "DELETE FROM notes",
        "COPY notes TO STDOUT",
    ]);
    let all = "of alice; more of alice; of bob".split("; ").map(str::to_owned).collect();
    recipe.author().expect(&[("SELECT body FROM notes", &sorted(all).join("; "))]);
}

#[test]
fn shared_rows() {
    let recipe = Recipe::follow("Shared rows");
    let mut late = recipe.client_for(3, json!({"sub": "carol"}));
    let [mut alice, mut bob, mut carol, mut dave] =
        ["alice", "bob", "carol", "dave"].map(|name| recipe.user(name));
    alice.expect(&[
        (
            "INSERT INTO documents (id, body) VALUES (pg_temp.n(1), 'shared'),
             (pg_temp.n(2), 'private')",
            "#2",
        ),
        (
            "INSERT INTO shares (document_id, user_id, can_write)
             VALUES (pg_temp.n(1), 'bob', false), (pg_temp.n(1), 'carol', true)",
            "#2",
        ),
    ]);
    // Bob may read, carol may write, dave knows the ids.
    let hostile = [
        ("INSERT INTO documents (owner, body) VALUES ('alice', 'x')", INSUFFICIENT_PRIVILEGE),
        (
            "UPDATE documents SET owner = auth.user_id() WHERE id = pg_temp.n(1)",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("UPDATE documents SET id = pg_temp.n(3)", INSUFFICIENT_PRIVILEGE),
        ("DELETE FROM documents RETURNING body", "#0"),
        (
            "INSERT INTO documents (id, body) VALUES (pg_temp.n(2), 'x')
             ON CONFLICT (id) DO UPDATE SET body = 'x'",
            INSUFFICIENT_PRIVILEGE,
        ),
        (
            "INSERT INTO shares (document_id, user_id) VALUES (pg_temp.n(2), 'dave')",
            FOREIGN_KEY_VIOLATION,
        ),
        // What others share shows by no other error than what nobody shares.
        (
            "INSERT INTO shares (document_id, user_id) VALUES (pg_temp.n(1), 'carol')",
            FOREIGN_KEY_VIOLATION,
        ),
        (
            "INSERT INTO shares (document_id, user_id) VALUES (pg_temp.n(9), 'carol')",
            FOREIGN_KEY_VIOLATION,
        ),
        (
            "INSERT INTO shares (document_id, owner, user_id)
             VALUES (pg_temp.n(1), 'alice', 'dave')",
            INSUFFICIENT_PRIVILEGE,
        ),
        (
            "INSERT INTO shares (document_id, owner, user_id, can_write)
             VALUES (pg_temp.n(1), 'alice', auth.user_id(), true)
             ON CONFLICT (user_id, document_id, owner) DO UPDATE SET can_write = true",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("UPDATE shares SET can_write = true", "#0"),
        ("UPDATE shares SET document_id = pg_temp.n(2)", INSUFFICIENT_PRIVILEGE),
        ("UPDATE shares SET owner = auth.user_id()", INSUFFICIENT_PRIVILEGE),
        ("DELETE FROM shares", "#0"),
    ];
    for actor in [&mut bob, &mut carol, &mut dave] {
        actor.expect(&hostile);
    }
    bob.expect(&[
        ("UPDATE documents SET body = 'x' RETURNING body", "#0"),
        ("SELECT body FROM documents FOR UPDATE", "#0"),
        ("SELECT user_id FROM shares", "bob"),
    ]);
    carol.expect(&[
        ("UPDATE documents SET body = 'shared' RETURNING owner, body", "alice|shared"),
        ("SELECT body FROM documents FOR UPDATE", "shared"),
        ("INSERT INTO documents (body) VALUES ('of carol') RETURNING owner", "carol"),
    ]);
    let mut nobody = recipe.nobody("app");
    nobody.expect(&[
        ("INSERT INTO documents (body) VALUES ('x')", INSUFFICIENT_PRIVILEGE),
        ("UPDATE documents SET body = 'x'", "#0"),
        (
            "INSERT INTO shares (document_id, user_id) VALUES (pg_temp.n(1), 'dave')",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("DELETE FROM shares", "#0"),
    ]);
    recipe.besiege(&mut alice, "documents", "body", &["private", "shared"]);
    recipe.besiege(&mut bob, "documents", "body", &["shared"]);
    recipe.besiege(&mut carol, "documents", "body", &["of carol", "shared"]);
    recipe.besiege(&mut dave, "documents", "body", &[]);
    recipe.besiege(&mut nobody, "documents", "body", &[]);
    recipe.besiege(&mut alice, "shares", "user_id", &["bob", "carol"]);
    recipe.besiege(&mut bob, "shares", "user_id", &["bob"]);
    recipe.besiege(&mut dave, "shares", "user_id", &[]);
    recipe.besiege(&mut nobody, "shares", "user_id", &[]);
    alice.expect(&[
        ("UPDATE shares SET can_write = false WHERE user_id = 'carol'", "#1"),
        ("DELETE FROM shares WHERE user_id = 'bob'", "#1"),
    ]);
    carol.expect(&[("UPDATE documents SET body = 'x' WHERE owner = 'alice'", "#0")]);
    bob.expect(&[("SELECT body FROM documents", "#0")]);
    alice.expect_indexes("documents", &["documents_owner_idx"]);
    late.expect_expired(&[
        "SELECT * FROM documents",
        "UPDATE documents SET body = 'x'",
        "SELECT * FROM shares",
    ]);
    alice.expect(&[("DELETE FROM documents", "#2")]);
    recipe.author().expect(&[
        ("SELECT owner, body FROM documents", "carol|of carol"),
        ("SELECT count(*) FROM shares", "0"),
    ]);
}

#[test]
fn public_read() {
    let recipe = Recipe::follow("Public read");
    let mut late = recipe.client_for(3, json!({"sub": "alice"}));
    run(
        &mut recipe.author().client,
        "INSERT INTO articles VALUES (pg_temp.n(1), NULL, NULL, 'draft of nobody'),
             (pg_temp.n(2), NULL, '2000-01-01', 'old'),
             (pg_temp.n(3), 'alice', 'infinity', 'scheduled'),
             (pg_temp.n(4), 'alice', '2000-01-01', 'of alice')",
    );
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| recipe.user(name));
    bob.expect(&[
        ("INSERT INTO articles (title) VALUES ('draft of bob') RETURNING author", "bob"),
        ("INSERT INTO articles (author, title) VALUES ('alice', 'x')", INSUFFICIENT_PRIVILEGE),
        (
            "INSERT INTO articles (author, published_at, title) VALUES (NULL, now(), 'x')",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("UPDATE articles SET author = 'alice' WHERE author = 'bob'", INSUFFICIENT_PRIVILEGE),
        ("UPDATE articles SET author = NULL, published_at = now()", INSUFFICIENT_PRIVILEGE),
        ("UPDATE articles SET title = 'x' WHERE author IS DISTINCT FROM 'bob'", "#0"),
        ("UPDATE articles SET author = 'bob' WHERE id = pg_temp.n(2)", "#0"),
        ("DELETE FROM articles WHERE id = pg_temp.n(4) RETURNING *", "#0"),
        ("SELECT title FROM articles WHERE id = pg_temp.n(4) FOR UPDATE", "#0"),
        (
            "INSERT INTO articles (id, title) VALUES (pg_temp.n(4), 'x')
             ON CONFLICT (id) DO UPDATE SET author = 'bob'",
            INSUFFICIENT_PRIVILEGE,
        ),
    ]);
    let mut nobody = recipe.nobody("app");
    nobody.expect(&[
        ("INSERT INTO articles (title) VALUES ('x')", INSUFFICIENT_PRIVILEGE),
        ("INSERT INTO articles (published_at, title) VALUES (now(), 'x')", INSUFFICIENT_PRIVILEGE),
        ("UPDATE articles SET author = NULL", "#0"),
        ("DELETE FROM articles", "#0"),
    ]);
    let mut visitor = recipe.nobody("visitor");
    visitor.expect(&[
        ("INSERT INTO articles (title) VALUES ('x')", INSUFFICIENT_PRIVILEGE),
        ("UPDATE articles SET title = 'x'", INSUFFICIENT_PRIVILEGE),
        ("DELETE FROM articles", INSUFFICIENT_PRIVILEGE),
    ]);
    let mut without_sub = recipe.client(json!({"email": "alice"}));
    recipe.besiege(&mut alice, "articles", "title", &["of alice", "old", "scheduled"]);
    recipe.besiege(&mut bob, "articles", "title", &["draft of bob", "of alice", "old"]);
    for actor in [&mut nobody, &mut visitor, &mut without_sub] {
        recipe.besiege(actor, "articles", "title", &["of alice", "old"]);
    }
    alice.expect_indexes("articles", &["articles_author_idx", "articles_published_at_idx"]);
    late.expect_expired(&[
        "SELECT * FROM articles",
        "INSERT INTO articles (title) VALUES ('x')",
        "DELETE FROM articles",
    ]);
    alice.expect(&[
        ("UPDATE articles SET published_at = now() WHERE title = 'scheduled'", "#1"),
        ("UPDATE articles SET published_at = NULL WHERE title = 'of alice'", "#1"),
    ]);
    visitor.expect(&[("SELECT title FROM articles", "old; scheduled")]);
    // What is said about comparing with nobody.
    run(
        &mut recipe.author().client,
        "CREATE POLICY unsafe ON articles FOR SELECT TO app
         USING (author IS NOT DISTINCT FROM auth.user_id())",
    );
    nobody.expect(&[("SELECT title FROM articles", "draft of nobody; old; scheduled")]);
}

#[test]
fn sign_out() {
    let recipe = Recipe::follow("Sign out");
    let mut admin = recipe.connect("postgres", "an administrator");
    let keys = ["https://a", "https://b"].map(|issuer| (issuer, harness::key("k")));
    for (issuer, key) in &keys {
        let add = "SELECT auth.add_provider($1, issuer => $1, jwks => $2::text)";
        admin.client.execute(add, &[issuer, &key.public_jwk().to_string()]).unwrap();
    }
    run(&mut admin.client, "GRANT EXECUTE ON FUNCTION auth.revoke TO author");
    let connect = |place: usize, claims: Value| {
        let (issuer, key) = &keys[place];
        let mut all = json!({"iss": issuer, "iat": now() - 60, "exp": now() + 600});
        all.as_object_mut().unwrap().append(&mut claims.as_object().unwrap().clone());
        let mut actor = recipe.connect("app", &all.to_string());
        assert_eq!(present(&mut actor.client, &key.sign(&all)), SUCCESS, "{all}");
        actor
    };
    const WHO: &str = "SELECT auth.user_id()";
    let revoked = Code::Revoked.sqlstate();

    // Neither without a token, nor with one that names nobody, nor by the functions of the extension.
    let [mut alice, mut alone] = [json!({"sub": "alice", "sid": "1"}), json!({"sub": "alice"})]
        .map(|claims| connect(0, claims));
    let mut nobody = recipe.nobody("app");
    let mut without_issuer = recipe.user("alice");
    for actor in [&mut nobody, &mut without_issuer] {
        actor.expect(&[
            ("SELECT sign_out_everywhere()", INSUFFICIENT_PRIVILEGE),
            ("SELECT sign_out()", INSUFFICIENT_PRIVILEGE),
        ]);
    }
    alone.expect(&[("SELECT sign_out()", INSUFFICIENT_PRIVILEGE)]);
    alice.expect(&[
        ("SELECT auth.revoke(subject => 'bob')", INSUFFICIENT_PRIVILEGE),
        ("SELECT auth.unrevoke(1)", INSUFFICIENT_PRIVILEGE),
        ("INSERT INTO auth.revocations (subject) VALUES ('bob')", INSUFFICIENT_PRIVILEGE),
        ("SET request.jwt.claims = '{\"sub\": \"bob\", \"iss\": \"https://a\"}'", "#0"),
        ("SET search_path = pg_temp, public", "#0"),
    ]);
    let mut visitor = recipe.connect("visitor", "a visitor");
    visitor.expect(&[("SELECT sign_out_everywhere()", INSUFFICIENT_PRIVILEGE)]);

    // The session of the token, and no other.
    let mut second = connect(0, json!({"sub": "alice", "sid": "2"}));
    let mut bob = connect(0, json!({"sub": "bob", "sid": "1"}));
    let mut other = connect(1, json!({"sub": "alice", "sid": "1"}));
    alice.expect(&[("BEGIN; SELECT public.sign_out(); COMMIT", ""), (WHO, revoked)]);
    second.expect(&[(WHO, "alice")]);
    alone.expect(&[(WHO, "alice")]);
    bob.expect(&[(WHO, "bob")]);
    other.expect(&[(WHO, "alice")]);

    // All sessions of the user at this issuer.
    second.expect(&[("SELECT sign_out_everywhere()", ""), (WHO, revoked)]);
    alone.expect(&[(WHO, revoked)]);
    bob.expect(&[(WHO, "bob")]);
    other.expect(&[(WHO, "alice")]);
    without_issuer.expect(&[(WHO, "alice")]);
    let rows = "SELECT string_agg(concat(issuer, ' ', subject, ' ', sid, ' ', created_by), '; ' ORDER BY id)
                FROM auth.revocations WHERE expires > now()";
    admin.expect(&[(rows, "https://a alice 1 app; https://a alice  app")]);
}
