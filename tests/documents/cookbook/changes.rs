//! Recipes for rows that change in one way only.

use harness::run;
use serde_json::json;

use super::recipe::*;

#[test]
fn write_once() {
    let recipe = Recipe::follow("Write once");
    let mut late = recipe.client_for(3, json!({"sub": "alice"}));
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| recipe.user(name));
    let hostile = [
        ("INSERT INTO entries (actor, action) VALUES ('alice', 'x')", "42501"),
        ("INSERT INTO entries (at, action) VALUES ('2000-01-01', 'x')", "42501"),
        ("INSERT INTO entries (id, action) OVERRIDING SYSTEM VALUE VALUES (1, 'x')", "42501"),
        ("INSERT INTO entries VALUES (DEFAULT, DEFAULT, DEFAULT, 'x')", "42501"),
        (
            "INSERT INTO entries (action) VALUES ('x')
             ON CONFLICT (id) DO UPDATE SET action = 'x'",
            "42501",
        ),
        ("UPDATE entries SET action = 'x'", "42501"),
        ("UPDATE entries SET action = 'x' WHERE actor = auth.user_id() RETURNING *", "42501"),
        ("DELETE FROM entries", "42501"),
        ("SELECT FROM entries FOR UPDATE", "42501"),
        ("SELECT FROM entries FOR KEY SHARE", "42501"),
        ("BEGIN; LOCK TABLE entries IN SHARE MODE; COMMIT", "42501"),
        ("SELECT setval('entries_id_seq', 1)", "42501"),
        ("COPY entries (action) FROM STDIN", "0A000"),
        ("MERGE INTO entries USING (VALUES (1)) v ON true WHEN MATCHED THEN DELETE", "42501"),
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
    nobody.expect(&[("INSERT INTO entries (action) VALUES ('x')", "42501")]);
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
        ("INSERT INTO comments (author, body) VALUES ('alice', 'x')", "42501"),
        ("INSERT INTO comments (body, deleted_at) VALUES ('x', now())", "42501"),
        ("UPDATE comments SET deleted_at = NULL WHERE author = 'alice' RETURNING body", "#0"),
        ("UPDATE comments SET deleted_at = now() WHERE author = 'alice'", "#0"),
        ("UPDATE live_comments SET deleted_at = now(), body = 'x' WHERE author = 'alice'", "#0"),
        ("UPDATE comments SET author = 'alice'", "42501"),
        ("UPDATE comments SET id = pg_temp.n(9)", "42501"),
        ("UPDATE live_comments SET author = 'alice'", "42501"),
        ("SELECT body FROM comments WHERE author = 'alice' FOR UPDATE", "#0"),
        ("DELETE FROM comments", "42501"),
        ("DELETE FROM live_comments", "42501"),
        ("SELECT body FROM live_comments", "kept; of bob"),
        ("UPDATE comments SET deleted_at = now() WHERE body = 'of bob' RETURNING body", "of bob"),
        ("UPDATE comments SET deleted_at = NULL WHERE body = 'of bob' RETURNING body", "of bob"),
    ]);
    let mut nobody = recipe.nobody("app");
    nobody.expect(&[
        ("INSERT INTO comments (body) VALUES ('x')", "42501"),
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
    alice.expect(&[("UPDATE comments SET deleted_at = now() WHERE body = 'kept'", "42501")]);
}
