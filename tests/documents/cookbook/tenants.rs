//! Recipes for tenants, and for trees of folders.

use harness::{INSUFFICIENT_PRIVILEGE, INVALID_OBJECT_DEFINITION, run};
use serde_json::json;

use super::recipe::*;

#[test]
fn tenants_in_partitions() {
    let recipe = Recipe::follow("Tenants in partitions");
    let mut late = recipe.client_for(3, json!({"tenant": "acme"}));
    let tenant = |name: &str| recipe.client(json!({"sub": "somebody", "tenant": name}));
    let [mut acme, mut globex, mut small] = ["acme", "globex", "small"].map(tenant);
    for actor in [&mut acme, &mut globex, &mut small] {
        actor.expect(&[(
            "INSERT INTO orders (id, item) VALUES (pg_temp.n(1), auth.claim('tenant'))",
            "#1",
        )]);
    }
    // Each with a tenant whose rows go there, or whose rows the policies refuse first.
    let partitions = [
        ("orders_acme", "acme"),
        ("orders_globex", "globex"),
        ("orders_rest", "small"),
        ("orders_rest_0", "small"),
        ("orders_rest_1", "small"),
    ];
    let direct = |actor: &mut Actor, answer: &str| {
        for (partition, tenant) in partitions {
            let insert = format!("INSERT INTO {partition} (tenant, item) VALUES ('{tenant}', 'x')");
            actor.expect(&[
                (&format!("SELECT * FROM {partition}"), answer),
                (&format!("UPDATE {partition} SET item = 'x'"), answer),
                (&format!("DELETE FROM {partition}"), answer),
                (&insert, INSUFFICIENT_PRIVILEGE),
            ]);
        }
    };
    globex.expect(&[
        ("INSERT INTO orders (tenant, item) VALUES ('acme', 'x')", INSUFFICIENT_PRIVILEGE),
        ("UPDATE orders SET tenant = 'acme'", INSUFFICIENT_PRIVILEGE),
        ("UPDATE orders SET tenant = 'small' RETURNING *", INSUFFICIENT_PRIVILEGE),
        ("UPDATE orders SET item = 'x' WHERE tenant = 'acme'", "#0"),
        ("DELETE FROM orders WHERE tenant <> 'globex'", "#0"),
        ("SELECT * FROM orders WHERE tenant = 'acme' FOR UPDATE", "#0"),
        (
            "INSERT INTO orders VALUES ('acme', pg_temp.n(1), 'x')
             ON CONFLICT (tenant, id) DO UPDATE SET item = 'x'",
            INSUFFICIENT_PRIVILEGE,
        ),
        // One's own row of the same id.
        (
            "INSERT INTO orders (id, item) VALUES (pg_temp.n(1), 'x')
             ON CONFLICT (tenant, id) DO UPDATE SET item = 'globex' RETURNING tenant",
            "globex",
        ),
        ("ALTER TABLE orders DETACH PARTITION orders_acme", INSUFFICIENT_PRIVILEGE),
        ("CREATE TABLE mine PARTITION OF orders FOR VALUES IN ('x')", INSUFFICIENT_PRIVILEGE),
    ]);
    direct(&mut globex, INSUFFICIENT_PRIVILEGE);
    let mut nobody = recipe.nobody("app");
    nobody.expect(&[
        ("INSERT INTO orders (item) VALUES ('x')", INSUFFICIENT_PRIVILEGE),
        ("INSERT INTO orders (tenant, item) VALUES ('acme', 'x')", INSUFFICIENT_PRIVILEGE),
        ("DELETE FROM orders", "#0"),
    ]);
    recipe.besiege(&mut acme, "orders", "item", &["acme"]);
    recipe.besiege(&mut globex, "orders", "item", &["globex"]);
    recipe.besiege(&mut small, "orders", "item", &["small"]);
    recipe.besiege(&mut nobody, "orders", "item", &[]);
    recipe.besiege(&mut recipe.client(json!({"tenant": ["acme"]})), "orders", "item", &[]);
    recipe.besiege(&mut tenant("ACME"), "orders", "item", &[]);

    let plan = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT * FROM orders";
    let reads = [(&mut acme, "orders_acme"), (&mut globex, "orders_globex")];
    for (actor, partition) in reads {
        let plan = actor.rows(plan).unwrap().join("\n");
        assert!(plan.contains("Subplans Removed: 3"), "{plan}");
        assert_eq!(plan.matches(" on orders").count(), 1, "{plan}");
        assert!(plan.contains(partition), "{plan}");
    }
    let plan = small.rows(plan).unwrap().join("\n");
    assert!(plan.contains("Subplans Removed: 3"), "{plan}");
    assert_eq!(plan.matches(" on orders_rest_").count(), 1, "{plan}");

    late.expect_expired(&[
        "SELECT * FROM orders",
        "INSERT INTO orders (item) VALUES ('x')",
        "DELETE FROM orders",
    ]);
    // The grant that should not have been.
    run(&mut recipe.author().client, "GRANT ALL ON ALL TABLES IN SCHEMA public TO app");
    direct(&mut globex, "#0");
    recipe
        .author()
        .expect(&[("SELECT tenant, item FROM orders", "acme|acme; globex|globex; small|small")]);
}

#[test]
fn folders() {
    let recipe = Recipe::follow("Folders");
    let mut late = recipe.client_for(3, json!({"sub": "alice"}));
    // 1 holds 2, which holds 3; 4 is another.
    run(
        &mut recipe.author().client,
        "INSERT INTO folders VALUES (pg_temp.n(1), NULL, 'top'),
             (pg_temp.n(2), pg_temp.n(1), 'mid'), (pg_temp.n(3), pg_temp.n(2), 'low'),
             (pg_temp.n(4), NULL, 'other'), (pg_temp.n(5), pg_temp.n(4), 'of other');
         INSERT INTO access VALUES (pg_temp.n(1), 'alice', true), (pg_temp.n(2), 'bob', false),
             (pg_temp.n(3), 'bob', true), (pg_temp.n(4), 'carol', true);
         INSERT INTO files VALUES (pg_temp.n(1), pg_temp.n(1), 'in top'),
             (pg_temp.n(2), pg_temp.n(2), 'in mid'), (pg_temp.n(3), pg_temp.n(3), 'in low'),
             (pg_temp.n(4), pg_temp.n(4), 'in other')",
    );
    let [mut alice, mut bob, mut carol, mut dave] =
        ["alice", "bob", "carol", "dave"].map(|name| recipe.user(name));
    let hostile = [
        ("SELECT FROM access", INSUFFICIENT_PRIVILEGE),
        ("INSERT INTO access VALUES (pg_temp.n(1), auth.user_id(), true)", INSUFFICIENT_PRIVILEGE),
        ("UPDATE access SET can_write = true", INSUFFICIENT_PRIVILEGE),
        ("DELETE FROM access", INSUFFICIENT_PRIVILEGE),
        ("INSERT INTO folders (name) VALUES ('top of mine')", INSUFFICIENT_PRIVILEGE),
        (
            "INSERT INTO folders (parent_id, name) VALUES (pg_temp.n(2), 'x')",
            INSUFFICIENT_PRIVILEGE,
        ),
        (
            "INSERT INTO folders (parent_id, name) VALUES (pg_temp.n(9), 'x')",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("INSERT INTO folders VALUES (pg_temp.n(9), pg_temp.n(9), 'x')", INSUFFICIENT_PRIVILEGE),
        (
            "INSERT INTO folders VALUES (pg_temp.n(8), pg_temp.n(9), 'x'),
             (pg_temp.n(9), pg_temp.n(8), 'x')",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("UPDATE folders SET parent_id = pg_temp.n(2)", INSUFFICIENT_PRIVILEGE),
        ("UPDATE folders SET parent_id = NULL", INSUFFICIENT_PRIVILEGE),
        ("UPDATE folders SET name = 'x' WHERE name IN ('top', 'mid', 'other')", "#0"),
        ("DELETE FROM folders WHERE name IN ('top', 'mid', 'other')", "#0"),
        ("INSERT INTO files (folder_id, body) VALUES (pg_temp.n(2), 'x')", INSUFFICIENT_PRIVILEGE),
        ("INSERT INTO files (folder_id, body) VALUES (pg_temp.n(9), 'x')", INSUFFICIENT_PRIVILEGE),
        ("UPDATE files SET body = 'x' WHERE body IN ('in top', 'in mid')", "#0"),
        ("DELETE FROM files WHERE body IN ('in top', 'in mid')", "#0"),
        (
            "INSERT INTO files VALUES (pg_temp.n(2), pg_temp.n(3), 'x')
             ON CONFLICT (id) DO UPDATE SET body = 'x'",
            INSUFFICIENT_PRIVILEGE,
        ),
    ];
    for actor in [&mut bob, &mut carol, &mut dave] {
        actor.expect(&hostile);
    }
    bob.expect(&[
        ("UPDATE files SET body = 'in low' RETURNING body", "in low"),
        ("UPDATE files SET folder_id = pg_temp.n(2) WHERE body = 'in low'", INSUFFICIENT_PRIVILEGE),
        ("UPDATE folders SET name = 'x'", "#0"),
        ("SELECT body FROM files FOR UPDATE", "in low"),
        ("INSERT INTO files (folder_id, body) VALUES (pg_temp.n(3), 'of bob')", "#1"),
    ]);
    alice.expect(&[
        (
            "INSERT INTO folders (id, parent_id, name) VALUES (pg_temp.n(6), pg_temp.n(3), 'new')
          RETURNING name",
            "new",
        ),
        (
            "INSERT INTO files (folder_id, body) VALUES (pg_temp.n(6), 'in new') RETURNING body",
            "in new",
        ),
        ("UPDATE folders SET name = 'low' WHERE name = 'low' RETURNING name", "low"),
        ("UPDATE files SET folder_id = pg_temp.n(4)", INSUFFICIENT_PRIVILEGE),
    ]);
    let mut nobody = recipe.nobody("app");
    nobody.expect(&hostile);
    nobody.expect(&[
        ("SELECT my_folders(false)", "#0"),
        ("INSERT INTO files (folder_id, body) VALUES (pg_temp.n(1), 'x')", INSUFFICIENT_PRIVILEGE),
        ("DELETE FROM files", "#0"),
    ]);
    recipe.nobody("visitor").expect(&[("SELECT my_folders(false)", INSUFFICIENT_PRIVILEGE)]);
    let all = ["in low", "in mid", "in new", "in top", "of bob"];
    recipe.besiege(&mut alice, "files", "body", &all);
    recipe.besiege(&mut bob, "files", "body", &["in low", "in mid", "in new", "of bob"]);
    recipe.besiege(&mut carol, "files", "body", &["in other"]);
    recipe.besiege(&mut dave, "files", "body", &[]);
    recipe.besiege(&mut nobody, "files", "body", &[]);
    recipe.besiege(&mut alice, "folders", "name", &["low", "mid", "new", "top"]);
    recipe.besiege(&mut bob, "folders", "name", &["low", "mid", "new"]);
    recipe.besiege(&mut carol, "folders", "name", &["of other", "other"]);
    recipe.besiege(&mut nobody, "folders", "name", &[]);
    alice.expect_indexes("folders", &["folders_pkey", "folders_parent_id_idx"]);
    alice.expect_indexes("files", &["files_folder_id_idx"]);
    late.expect_expired(&[
        "SELECT * FROM folders",
        "SELECT * FROM files",
        "SELECT my_folders(false)",
        "INSERT INTO files (folder_id, body) VALUES (pg_temp.n(1), 'x')",
    ]);
    // A circle is the owner's to make, and does not keep the function from ending.
    run(
        &mut recipe.author().client,
        "UPDATE folders SET parent_id = pg_temp.n(6) WHERE name = 'top'",
    );
    alice.expect(&[("SELECT name FROM folders", "low; mid; new; top")]);
    bob.expect(&[("DELETE FROM folders WHERE name = 'new' RETURNING name", "new")]);
    recipe.author().expect(&[("SELECT name FROM folders", "of other; other")]);
    // What is said about policies that look into their own table.
    run(
        &mut recipe.author().client,
        "CREATE POLICY endless ON folders TO app USING (parent_id IN (SELECT id FROM folders))",
    );
    carol.expect(&[("SELECT FROM folders", INVALID_OBJECT_DEFINITION)]);
}
