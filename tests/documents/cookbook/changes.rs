//! Recipes for rows that change in one way only.

use harness::{FEATURE_NOT_SUPPORTED, INSUFFICIENT_PRIVILEGE, run};
use serde_json::json;

use super::recipe::*;

#[test]
fn write_once() {
    let recipe = Recipe::follow("Write once");
    let mut late = recipe.client_for(3, json!({"sub": "alice"}));
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| recipe.user(name));
    let hostile = [
        ("INSERT INTO entries (actor, action) VALUES ('alice', 'x')", INSUFFICIENT_PRIVILEGE),
        ("INSERT INTO entries (at, action) VALUES ('2000-01-01', 'x')", INSUFFICIENT_PRIVILEGE),
        (
            "INSERT INTO entries (id, action) OVERRIDING SYSTEM VALUE VALUES (1, 'x')",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("INSERT INTO entries VALUES (DEFAULT, DEFAULT, DEFAULT, 'x')", INSUFFICIENT_PRIVILEGE),
        (
            "INSERT INTO entries (action) VALUES ('x')
             ON CONFLICT (id) DO UPDATE SET action = 'x'",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("UPDATE entries SET action = 'x'", INSUFFICIENT_PRIVILEGE),
        (
            "UPDATE entries SET action = 'x' WHERE actor = auth.user_id() RETURNING *",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("DELETE FROM entries", INSUFFICIENT_PRIVILEGE),
        ("SELECT FROM entries FOR UPDATE", INSUFFICIENT_PRIVILEGE),
        ("SELECT FROM entries FOR KEY SHARE", INSUFFICIENT_PRIVILEGE),
        ("BEGIN; LOCK TABLE entries IN SHARE MODE; COMMIT", INSUFFICIENT_PRIVILEGE),
        ("SELECT setval('entries_id_seq', 1)", INSUFFICIENT_PRIVILEGE),
        ("COPY entries (action) FROM STDIN", FEATURE_NOT_SUPPORTED),
        (
            "MERGE INTO entries USING (VALUES (1)) v ON true WHEN MATCHED THEN DELETE",
            INSUFFICIENT_PRIVILEGE,
        ),
    ];
    alice.expect(&[
        ("INSERT INTO entries (action) VALUES ('of alice') RETURNING actor", "alice"),
        ("BEGIN; INSERT INTO entries (action) VALUES ('undone'); ROLLBACK", "#0"),
    ]);
    alice.expect(&hostile);
    bob.expect(&hostile);
    bob.expect(&[
        ("INSERT INTO entries (action) VALUES ('of bob')", "#1"),
        // A transaction that was left open does not set the clock back.
        (
            "BEGIN; SELECT FROM pg_sleep(0.2);
             INSERT INTO entries (action) VALUES ('late') RETURNING at - now() > '0.2 s'; COMMIT",
            "; t",
        ),
    ]);
    let mut nobody = recipe.nobody("app");
    nobody.expect(&hostile);
    nobody.expect(&[("INSERT INTO entries (action) VALUES ('x')", INSUFFICIENT_PRIVILEGE)]);
    recipe.besiege(&mut alice, "entries", "action", &["of alice"]);
    recipe.besiege(&mut bob, "entries", "action", &["late", "of bob"]);
    recipe.besiege(&mut nobody, "entries", "action", &[]);
    alice.expect_indexes("entries", &["entries_actor_at_idx"]);
    late.expect_expired(&["SELECT * FROM entries", "INSERT INTO entries (action) VALUES ('x')"]);
    recipe
        .author()
        .expect(&[("SELECT actor, action FROM entries", "alice|of alice; bob|late; bob|of bob")]);
}

#[test]
fn soft_delete() {
    let recipe = Recipe::follow("Soft delete");
    let mut late = recipe.client_for(3, json!({"sub": "alice"}));
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| recipe.user(name));
    alice.expect(&[
        ("INSERT INTO comments (body) VALUES ('kept'), ('hidden')", "#2"),
        ("UPDATE live_comments SET deleted_at = now() WHERE body = 'hidden'", "#1"),
        ("SELECT body FROM live_comments", "kept"),
    ]);
    bob.expect(&[
        ("INSERT INTO comments (body) VALUES ('of bob')", "#1"),
        ("INSERT INTO comments (author, body) VALUES ('alice', 'x')", INSUFFICIENT_PRIVILEGE),
        ("INSERT INTO comments (body, deleted_at) VALUES ('x', now())", INSUFFICIENT_PRIVILEGE),
        ("UPDATE comments SET deleted_at = NULL WHERE author = 'alice' RETURNING body", "#0"),
        ("UPDATE comments SET deleted_at = now() WHERE author = 'alice'", "#0"),
        ("UPDATE live_comments SET deleted_at = now(), body = 'x' WHERE author = 'alice'", "#0"),
        ("UPDATE comments SET author = 'alice'", INSUFFICIENT_PRIVILEGE),
        ("UPDATE comments SET id = pg_temp.n(9)", INSUFFICIENT_PRIVILEGE),
        ("UPDATE live_comments SET author = 'alice'", INSUFFICIENT_PRIVILEGE),
        ("SELECT body FROM comments WHERE author = 'alice' FOR UPDATE", "#0"),
        ("DELETE FROM comments", INSUFFICIENT_PRIVILEGE),
        ("DELETE FROM live_comments", INSUFFICIENT_PRIVILEGE),
        ("SELECT body FROM live_comments", "kept; of bob"),
        ("UPDATE comments SET deleted_at = now() WHERE body = 'of bob' RETURNING body", "of bob"),
        ("UPDATE comments SET deleted_at = NULL WHERE body = 'of bob' RETURNING body", "of bob"),
    ]);
    let mut nobody = recipe.nobody("app");
    nobody.expect(&[
        ("INSERT INTO comments (body) VALUES ('x')", INSUFFICIENT_PRIVILEGE),
        ("UPDATE comments SET deleted_at = now()", "#0"),
        ("UPDATE live_comments SET deleted_at = now()", "#0"),
        ("SELECT * FROM live_comments", "#0"),
    ]);
    recipe.besiege(&mut alice, "comments", "body", &["hidden", "kept", "of bob"]);
    recipe.besiege(&mut bob, "comments", "body", &["kept", "of bob"]);
    recipe.besiege(&mut nobody, "comments", "body", &[]);
    late.expect_expired(&[
        "SELECT * FROM comments",
        "SELECT * FROM live_comments",
        "UPDATE comments SET deleted_at = NULL",
    ]);
    let restore = "UPDATE comments SET deleted_at = NULL WHERE body = 'hidden' RETURNING body";
    alice.expect(&[(restore, "hidden")]);
    bob.expect(&[("SELECT body FROM live_comments", "hidden; kept; of bob")]);
    // What is said about the obvious policy.
    run(
        &mut recipe.author().client,
        "ALTER POLICY own ON comments USING (author = auth.user_id() AND deleted_at IS NULL)
         WITH CHECK (author = auth.user_id())",
    );
    alice.expect(&[(
        "UPDATE comments SET deleted_at = now() WHERE body = 'kept'",
        INSUFFICIENT_PRIVILEGE,
    )]);
}
