//! Recipes for stored objects.

use harness::{
    CHECK_VIOLATION, FOREIGN_KEY_VIOLATION, GENERATED_ALWAYS, INSUFFICIENT_PRIVILEGE, run,
};
use serde_json::json;

use super::recipe::*;

#[test]
fn stored_objects() {
    let recipe = Recipe::follow("Stored objects");
    let mut late = recipe.client_for(3, json!({"sub": "alice"}));
    run(
        &mut recipe.author().client,
        "INSERT INTO buckets VALUES ('private', false), ('public', true)",
    );
    let store = |actor: &mut Actor, bucket: &str, path: &str| {
        let path = path.replace('\'', "''");
        actor.answer(&format!(
            "INSERT INTO objects (bucket, path, content) VALUES ('{bucket}', E'{path}', '')"
        ))
    };
    let names = ["alice", "alice2", "al_ce", "%", "", "..", "alice/x"];
    let [mut alice, mut alice2, mut wildcard, mut percent, mut empty, mut dots, mut slash] =
        names.map(|name| recipe.user(name));
    let mut nobody = recipe.nobody("app");
    for (bucket, path) in [("private", "alice/a"), ("private", "alice/b/c"), ("public", "alice/p")]
    {
        assert_eq!(store(&mut alice, bucket, path), "#1", "{path}");
    }
    assert_eq!(
        store(&mut alice, "nowhere", "alice/a"),
        FOREIGN_KEY_VIOLATION,
        "store(nowhere, alice/a)"
    );
    assert_eq!(store(&mut alice2, "private", "alice2/a"), "#1", "store(private, alice2/a)");
    // Another's, whatever it looks like.
    let others = [
        "alice/x",
        "alice/x/",
        "/alice/x",
        "./alice/x",
        "alice",
        "alice//x",
        "ALICE/x",
        "x",
        "",
        "/",
    ];
    for path in others {
        for actor in [&mut alice2, &mut wildcard, &mut percent, &mut slash, &mut nobody] {
            assert_eq!(
                store(actor, "private", path),
                INSUFFICIENT_PRIVILEGE,
                "{}: {path}",
                actor.name
            );
        }
    }
    assert_eq!(
        store(&mut alice, "private", "alice2/x"),
        INSUFFICIENT_PRIVILEGE,
        "another's, whatever it looks like"
    );
    assert_eq!(
        store(&mut alice, "private", "alice2"),
        INSUFFICIENT_PRIVILEGE,
        "another's, whatever it looks like"
    );
    // One's own, but no path.
    let malformed = [
        "alice",
        "alice/",
        "alice//x",
        "alice/x//y",
        "alice/x/",
        "alice/.",
        "alice/./x",
        "alice/..",
        "alice/../alice2/a",
        "alice/x/../y",
        "alice/..\\\\x",
        "alice/%2e%2e/x",
        "alice/x\\n",
        "alice/\\n../x",
        "alice/x\\t",
        "alice/\\x7f",
    ];
    for path in malformed {
        assert_eq!(store(&mut alice, "private", path), CHECK_VIOLATION, "{path}");
    }
    let long = format!("alice/{}", "x".repeat(1019));
    assert_eq!(store(&mut alice, "private", &long), CHECK_VIOLATION, "one's own, but no path");
    // An empty subject is nobody.
    for path in ["/x", "/alice/x", "//"] {
        assert_eq!(store(&mut empty, "private", path), INSUFFICIENT_PRIVILEGE, "{path}");
    }
    for path in ["../x", "../alice/a", ".."] {
        assert_eq!(store(&mut dots, "private", path), CHECK_VIOLATION, "{path}");
    }
    assert_eq!(
        store(&mut percent, "private", "%/x"),
        CHECK_VIOLATION,
        "an empty subject is nobody"
    );
    for path in ["alice/...", "alice/.x", "alice/x..", "alice/a b/ü"] {
        assert_eq!(store(&mut alice, "private", path), "#1", "{path}");
        alice.expect(&[(&format!("DELETE FROM objects WHERE path = '{path}'"), "#1")]);
    }
    for actor in [&mut alice2, &mut nobody] {
        actor.expect(&[
            (
                "INSERT INTO objects (bucket, path, owner, content)
                 VALUES ('private', 'alice/x', auth.user_id(), '')",
                GENERATED_ALWAYS,
            ),
            ("UPDATE objects SET owner = 'alice2' WHERE path = 'alice/p'", GENERATED_ALWAYS),
            ("UPDATE objects SET bucket = 'public'", INSUFFICIENT_PRIVILEGE),
            ("UPDATE objects SET content = 'x' WHERE owner = 'alice' RETURNING *", "#0"),
            ("UPDATE objects SET path = 'alice2/p' WHERE path = 'alice/p'", "#0"),
            ("DELETE FROM objects WHERE bucket = 'public'", "#0"),
            ("SELECT path FROM objects WHERE bucket = 'public' FOR UPDATE", "#0"),
            // A path that is taken and one that is free answer alike.
            (
                "INSERT INTO objects (bucket, path, content) VALUES ('private', 'alice/a', '')
                 ON CONFLICT (bucket, path) DO UPDATE SET content = 'x'",
                INSUFFICIENT_PRIVILEGE,
            ),
            (
                "INSERT INTO objects (bucket, path, content) VALUES ('private', 'alice/a', '')
                 ON CONFLICT DO NOTHING",
                INSUFFICIENT_PRIVILEGE,
            ),
            ("INSERT INTO buckets VALUES ('mine', true)", INSUFFICIENT_PRIVILEGE),
            ("UPDATE buckets SET is_public = true", INSUFFICIENT_PRIVILEGE),
            ("DELETE FROM buckets", INSUFFICIENT_PRIVILEGE),
        ]);
    }
    alice2.expect(&[
        ("UPDATE objects SET path = 'alice/x' WHERE path = 'alice2/a'", INSUFFICIENT_PRIVILEGE),
        ("UPDATE objects SET path = 'alice2/../alice/x' WHERE path = 'alice2/a'", CHECK_VIOLATION),
        ("UPDATE objects SET path = 'alice2/a' WHERE path = 'alice2/a' RETURNING owner", "alice2"),
    ]);
    let own = ["alice/a", "alice/b/c", "alice/p"];
    recipe.besiege(&mut alice, "objects", "path", &own);
    recipe.besiege(&mut alice2, "objects", "path", &["alice/p", "alice2/a"]);
    for actor in [&mut wildcard, &mut percent, &mut empty, &mut dots, &mut slash, &mut nobody] {
        recipe.besiege(actor, "objects", "path", &["alice/p"]);
    }
    recipe.besiege(&mut nobody, "buckets", "name", &["private", "public"]);
    alice.expect_indexes("objects", &["objects_owner_idx", "objects_pkey"]);
    late.expect_expired(&[
        "SELECT * FROM objects",
        "DELETE FROM objects",
        "INSERT INTO objects (bucket, path, content) VALUES ('private', 'alice/x', '')",
    ]);
    recipe.author().expect(&[(
        "SELECT bucket, path FROM objects",
        "private|alice/a; private|alice/b/c; private|alice2/a; public|alice/p",
    )]);
}
