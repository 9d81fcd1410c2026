//! Recipes for rows that change in one way only.

use harness::{Code, FEATURE_NOT_SUPPORTED, INSUFFICIENT_PRIVILEGE, now, run};
use serde_json::{Value, json};

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

#[test]
fn step_up_for_sensitive_actions() {
    let recipe = Recipe::follow("Step up for sensitive actions");
    let all = "openid payments:read payments:write";
    let with = |sub: &str, scope: &str, more: Value| {
        let mut claims = json!({"sub": sub, "scope": scope});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        recipe.client(claims)
    };
    let fresh = || json!({"auth_time": now()});
    let mut late = recipe
        .client_for(3, json!({"sub": "alice", "scope": all, "auth_time": now(), "acr": "phr"}));
    let mut alice = with("alice", all, fresh());
    let mut bob = with("bob", all, fresh());
    let insert = "INSERT INTO payments (payee, amount) VALUES ('of alice', 1), ('more', 2)";
    alice.expect(&[(insert, "#2")]);
    bob.expect(&[
        ("INSERT INTO payments (payee, amount) VALUES ('of bob', 3)", "#1"),
        (
            "INSERT INTO payments (owner, payee, amount) VALUES ('alice', 'x', 1)",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("UPDATE payments SET amount = 9", INSUFFICIENT_PRIVILEGE),
        ("DELETE FROM payments WHERE owner = 'alice'", "#0"),
    ]);
    let deletions = [
        "DELETE FROM payments",
        "DELETE FROM payments WHERE false",
        "DELETE FROM payments WHERE payee = 'more' RETURNING *",
        "DELETE FROM payments_through_view",
        "WITH x AS (DELETE FROM payments RETURNING *) SELECT FROM x",
        "MERGE INTO payments USING (VALUES (1)) v ON true WHEN MATCHED THEN DELETE",
        "SELECT erase_payments()",
        "DO $$ BEGIN DELETE FROM payments; END $$",
    ];
    run(
        &mut recipe.author().client,
        "CREATE VIEW payments_through_view WITH (security_invoker) AS SELECT * FROM payments;
         GRANT SELECT, DELETE ON payments_through_view TO app",
    );
    // Those that lack something, however they have it otherwise.
    let insufficient = Code::Insufficient.sqlstate();
    for mut lacking in [
        with("alice", all, json!({})),
        with("alice", all, json!({"iat": now(), "acr": "phr"})),
        with("alice", all, json!({"auth_time": now() - 301, "acr": "phr"})),
        with("alice", all, json!({"auth_time": now() + 100, "acr": "phr"})),
        with("alice", all, json!({"auth_time": now() * 1000, "acr": "phr"})),
        with("alice", all, json!({"auth_time": now().to_string(), "acr": "phr"})),
        with("alice", "payments:read", fresh()),
        with("alice", "payments:read payments:writes", fresh()),
        with("alice", "payments:read,payments:write", fresh()),
        with("alice", "PAYMENTS:WRITE payments:read", fresh()),
        with(
            "alice",
            "payments:read",
            json!({"auth_time": now(), "scp": {"payments:write": true}}),
        ),
        recipe.nobody("app"),
    ] {
        for statement in deletions {
            assert_eq!(lacking.answer(statement), insufficient, "{}: {statement}", lacking.name);
        }
    }
    // A fresh sign-in is not one that withstands phishing.
    for more in [fresh(), json!({"auth_time": now(), "acr": "phrh", "amr": ["phr"]})] {
        with("alice", all, more).expect(&[("SELECT erase_payments()", insufficient)]);
    }
    // Without the scope, no row is seen nor written.
    let mut writer = with("alice", "payments:write", fresh());
    writer.expect(&[
        ("SELECT payee FROM payments", "#0"),
        ("DELETE FROM payments WHERE owner = 'alice'", "#0"),
        ("INSERT INTO payments (payee, amount) VALUES ('blind', 1)", "#1"),
    ]);
    let mut reader = with("alice", "payments:read", fresh());
    reader.expect(&[
        ("INSERT INTO payments (payee, amount) VALUES ('x', 1)", INSUFFICIENT_PRIVILEGE),
        ("SELECT payee FROM payments", "blind; more; of alice"),
    ]);
    // The policy decides, also where the trigger does not run.
    run(&mut recipe.author().client, "ALTER TABLE payments DISABLE TRIGGER demand_fresh_sign_in");
    let mut stale = with("alice", all, json!({"auth_time": now() - 301}));
    stale.expect(&[("DELETE FROM payments", "#0")]);
    run(&mut recipe.author().client, "ALTER TABLE payments ENABLE TRIGGER demand_fresh_sign_in");

    run(&mut recipe.author().client, "DROP VIEW payments_through_view");
    recipe.besiege(&mut alice, "payments", "payee", &["blind", "more", "of alice"]);
    recipe.besiege(&mut bob, "payments", "payee", &["of bob"]);
    recipe.besiege(&mut writer, "payments", "payee", &[]);
    recipe.besiege(&mut stale, "payments", "payee", &["blind", "more", "of alice"]);
    recipe.besiege(&mut recipe.nobody("app"), "payments", "payee", &[]);
    alice.expect_indexes("payments", &["payments_owner_idx"]);
    alice.expect(&[("DELETE FROM payments WHERE payee = 'blind' RETURNING payee", "blind")]);
    let mut strong = with("alice", all, json!({"auth_time": now(), "acr": "phr"}));
    strong.expect(&[("SELECT erase_payments()", "2"), ("SELECT payee FROM payments", "#0")]);
    late.expect_expired(&[
        "SELECT * FROM payments",
        "INSERT INTO payments (payee, amount) VALUES ('x', 1)",
        "DELETE FROM payments",
        "SELECT erase_payments()",
    ]);
    // The owner is not asked.
    recipe.author().expect(&[("DELETE FROM payments RETURNING payee", "of bob")]);
}
