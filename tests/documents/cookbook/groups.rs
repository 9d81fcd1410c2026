//! Recipes for rows of teams and organisations.

use harness::{
    INSUFFICIENT_PRIVILEGE, INVALID_OBJECT_DEFINITION, NOT_NULL_VIOLATION, RESTRICT_VIOLATION,
    T_R_SERIALIZATION_FAILURE, run, wait_for,
};
use serde_json::{Value, json};

use super::recipe::*;

#[test]
fn teams() {
    let recipe = Recipe::follow("Teams");
    let mut late = recipe.client_for(3, json!({"sub": "alice"}));
    run(
        &mut recipe.author().client,
        "INSERT INTO teams VALUES (pg_temp.n(1), 'red'), (pg_temp.n(2), 'blue');
         INSERT INTO members VALUES (pg_temp.n(1), 'alice', true), (pg_temp.n(1), 'bob', false),
             (pg_temp.n(2), 'bob', false), (pg_temp.n(2), 'carol', true);
         INSERT INTO projects VALUES (pg_temp.n(1), pg_temp.n(1), 'of red'),
             (pg_temp.n(2), pg_temp.n(2), 'of blue')",
    );
    let [mut alice, mut bob, mut carol, mut dave] =
        ["alice", "bob", "carol", "dave"].map(|name| recipe.user(name));
    let hostile = [
        ("INSERT INTO members VALUES (pg_temp.n(1), auth.user_id(), true)", INSUFFICIENT_PRIVILEGE),
        ("INSERT INTO members VALUES (pg_temp.n(1), 'eve', false)", INSUFFICIENT_PRIVILEGE),
        (
            "INSERT INTO members VALUES (pg_temp.n(1), auth.user_id(), true)
             ON CONFLICT (user_id, team_id) DO UPDATE SET is_admin = true",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("UPDATE members SET is_admin = true WHERE team_id = pg_temp.n(1) RETURNING *", "#0"),
        ("UPDATE members SET team_id = pg_temp.n(1)", INSUFFICIENT_PRIVILEGE),
        ("UPDATE members SET user_id = auth.user_id()", INSUFFICIENT_PRIVILEGE),
        ("DELETE FROM members WHERE team_id = pg_temp.n(1) AND user_id <> auth.user_id()", "#0"),
        ("INSERT INTO teams (name) VALUES ('mine')", INSUFFICIENT_PRIVILEGE),
        ("UPDATE teams SET name = 'mine' WHERE id = pg_temp.n(1)", "#0"),
        ("UPDATE teams SET id = pg_temp.n(3)", INSUFFICIENT_PRIVILEGE),
        ("DELETE FROM teams WHERE id = pg_temp.n(1)", "#0"),
        ("UPDATE projects SET team_id = pg_temp.n(1)", INSUFFICIENT_PRIVILEGE),
        // A team that there is and one that there is not answer alike.
        ("INSERT INTO projects (team_id, name) VALUES (pg_temp.n(9), 'x')", INSUFFICIENT_PRIVILEGE),
    ];
    for actor in [&mut bob, &mut carol, &mut dave] {
        actor.expect(&hostile);
    }
    carol.expect(&[
        ("INSERT INTO projects (team_id, name) VALUES (pg_temp.n(1), 'x')", INSUFFICIENT_PRIVILEGE),
        ("UPDATE projects SET name = 'x' WHERE id = pg_temp.n(1)", "#0"),
        ("DELETE FROM projects WHERE id = pg_temp.n(1)", "#0"),
        (
            "INSERT INTO projects VALUES (pg_temp.n(1), pg_temp.n(2), 'x')
             ON CONFLICT (id) DO UPDATE SET name = 'x'",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("SELECT * FROM my_teams(false) EXCEPT VALUES (pg_temp.n(2))", "#0"),
        // A schema of the client's does not come before the function's.
        (
            "CREATE TEMP TABLE members AS SELECT pg_temp.n(1) AS team_id, 'carol' AS user_id,
             true AS is_admin; SET search_path = pg_temp, public;
             SELECT count(*) FROM my_teams(true)",
            "1",
        ),
        ("DROP TABLE pg_temp.members; RESET search_path", "#0"),
    ]);
    bob.expect(&[
        ("UPDATE projects SET name = name || '!' RETURNING name", "of blue!; of red!"),
        ("UPDATE projects SET name = rtrim(name, '!')", "#2"),
        ("SELECT name FROM projects FOR UPDATE", "of blue; of red"),
        ("SELECT count(*) FROM members", "4"),
    ]);
    let mut nobody = recipe.nobody("app");
    nobody.expect(&[
        ("INSERT INTO projects (team_id, name) VALUES (pg_temp.n(1), 'x')", INSUFFICIENT_PRIVILEGE),
        ("INSERT INTO members VALUES (pg_temp.n(1), 'alice', true)", INSUFFICIENT_PRIVILEGE),
        ("DELETE FROM projects", "#0"),
        ("SELECT * FROM my_teams(false)", "#0"),
        ("SELECT found_team('of nobody')", NOT_NULL_VIOLATION),
        ("DELETE FROM members", "#0"),
    ]);
    let mut visitor = recipe.nobody("visitor");
    visitor.expect(&[
        ("SELECT my_teams(false)", INSUFFICIENT_PRIVILEGE),
        ("SELECT found_team('x')", INSUFFICIENT_PRIVILEGE),
        ("SELECT FROM projects", INSUFFICIENT_PRIVILEGE),
    ]);
    recipe.besiege(&mut alice, "projects", "name", &["of red"]);
    recipe.besiege(&mut bob, "projects", "name", &["of blue", "of red"]);
    recipe.besiege(&mut carol, "projects", "name", &["of blue"]);
    recipe.besiege(&mut dave, "projects", "name", &[]);
    recipe.besiege(&mut nobody, "projects", "name", &[]);
    recipe.besiege(&mut carol, "members", "user_id", &["bob", "carol"]);
    recipe.besiege(&mut dave, "members", "user_id", &[]);
    recipe.besiege(&mut carol, "teams", "name", &["blue"]);
    recipe.besiege(&mut nobody, "teams", "name", &[]);
    alice.expect(&[
        ("UPDATE members SET is_admin = true WHERE user_id = 'bob'", "#1"),
        ("INSERT INTO members VALUES (pg_temp.n(1), 'dave') RETURNING user_id", "dave"),
        ("INSERT INTO members VALUES (pg_temp.n(2), 'dave')", INSUFFICIENT_PRIVILEGE),
        ("DELETE FROM members WHERE user_id = 'bob'", "#1"),
    ]);
    // At once, for a session that is under way.
    bob.expect(&[("SELECT name FROM projects", "of blue")]);
    bob.expect_indexes("projects", &["projects_team_id_idx"]);
    bob.expect_indexes("members", &["members_team_id_idx"]);
    late.expect_expired(&[
        "SELECT * FROM projects",
        "SELECT * FROM my_teams(true)",
        "INSERT INTO members VALUES (pg_temp.n(1), 'eve')",
    ]);
    // What is said about policies that look into their own table.
    recipe.author().expect(&[(
        "CREATE POLICY endless ON members TO app USING (team_id IN (SELECT team_id FROM members))",
        "#0",
    )]);
    alice.expect(&[("SELECT FROM members", INVALID_OBJECT_DEFINITION)]);
}

#[test]
fn founding_and_leaving_teams() {
    let recipe = Recipe::follow_again("Teams", "teams_and_their_members");
    let [mut alice, mut bob, mut carol] = ["alice", "bob", "carol"].map(|name| recipe.user(name));
    alice.expect(&[
        ("SELECT count(found_team('red'))", "1"),
        ("SELECT user_id, is_admin FROM members", "alice|t"),
        // Whoever is alone in a team may leave it, and nobody can join what is left.
        ("DELETE FROM members", "#1"),
        ("SELECT name FROM teams", "#0"),
        ("SELECT count(found_team('blue'))", "1"),
        ("INSERT INTO members SELECT my_teams(true), 'bob'", "#1"),
        // The last administrator neither leaves nor steps down, in any way.
        ("DELETE FROM members WHERE user_id = 'alice'", RESTRICT_VIOLATION),
        ("UPDATE members SET is_admin = false WHERE user_id = 'alice'", RESTRICT_VIOLATION),
        ("UPDATE members SET is_admin = (user_id = 'carol')", RESTRICT_VIOLATION),
        (
            "INSERT INTO members SELECT my_teams(true), 'alice'
             ON CONFLICT (user_id, team_id) DO UPDATE SET is_admin = false",
            RESTRICT_VIOLATION,
        ),
        // One statement may hand the team over.
        ("UPDATE members SET is_admin = (user_id = 'bob')", "#2"),
        ("DELETE FROM members WHERE user_id = 'bob'", "#0"),
    ]);
    // A member who is no administrator leaves, and only for himself.
    bob.expect(&[("INSERT INTO members SELECT my_teams(true), 'carol'", "#1")]);
    carol.expect(&[("DELETE FROM members", "#1"), ("SELECT name FROM teams", "#0")]);
    bob.expect(&[
        ("SELECT user_id FROM members", "alice; bob"),
        ("UPDATE members SET is_admin = true", "#2"),
        ("UPDATE teams SET name = 'green' RETURNING name", "green"),
    ]);

    // Two administrators leave at the same time. With an old snapshot, the second one fails as well.
    for (isolation, expected) in
        [("READ COMMITTED", RESTRICT_VIOLATION), ("REPEATABLE READ", T_R_SERIALIZATION_FAILURE)]
    {
        bob.answer("INSERT INTO members SELECT my_teams(true), 'carol' ON CONFLICT DO NOTHING");
        let begin = format!("BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM members");
        alice.expect(&[(&begin, "3"), ("DELETE FROM members WHERE user_id = 'alice'", "#1")]);
        bob.expect(&[(&begin, "3")]);
        let leave = "DELETE FROM members WHERE user_id = 'bob'";
        assert_eq!(
            answer_after_commit(&recipe, &mut bob, leave, &mut alice),
            expected,
            "{isolation}"
        );
        bob.expect(&[("INSERT INTO members SELECT my_teams(true), 'alice', true", "#1")]);
    }
    // The last member leaves while he adds another one.
    let mut bob_again = recipe.user("bob");
    bob.expect(&[
        ("DELETE FROM members WHERE user_id <> 'bob'", "#2"),
        ("BEGIN; INSERT INTO members SELECT my_teams(true), 'carol'", "#1"),
    ]);
    let leave = "DELETE FROM members WHERE user_id = 'bob'";
    let answer = answer_after_commit(&recipe, &mut bob_again, leave, &mut bob);
    assert_eq!(answer, RESTRICT_VIOLATION, "the last member leaves while he adds another one");
    bob.expect(&[("INSERT INTO members SELECT my_teams(true), 'alice', true", "#1")]);

    // An administrator deletes the team with all that belongs to it.
    alice.expect(&[
        ("INSERT INTO projects (team_id, name) SELECT my_teams(true), 'x'", "#1"),
        ("DELETE FROM teams", "#1"),
        ("SELECT count(*) FROM projects", "0"),
    ]);
    recipe
        .author()
        .expect(&[("SELECT name FROM teams", "red"), ("SELECT count(*) FROM members", "0")]);
}

/// What the statement of one client comes to, which waits until the transaction of the other has committed.
fn answer_after_commit(recipe: &Recipe, waits: &mut Actor, sql: &str, other: &mut Actor) -> String {
    let mut admin = recipe.site.cluster.admin();
    let blocked = "SELECT count(*)::text FROM pg_stat_activity
                   WHERE datname = $1 AND cardinality(pg_blocking_pids(pid)) > 0";
    std::thread::scope(|threads| {
        let answer = threads.spawn(|| waits.answer(sql));
        wait_for("the client to wait", || {
            let count: String = admin.query_one(blocked, &[&recipe.database]).unwrap().get(0);
            count != "0"
        });
        other.expect(&[("COMMIT", "#0")]);
        answer.join().expect("an answer")
    })
}

#[test]
fn organisations() {
    let (one, two) =
        ("00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002");
    let recipe = Recipe::follow("Organisations");
    let mut late =
        recipe.client_for(3, json!({"o": {"id": one, "role": "admin"}, "org_id": "alice"}));
    let member = |sub: &str, id: &str, role: Value| {
        recipe.client(json!({"sub": sub, "o": {"id": id, "role": role}, "org_id": sub}))
    };
    let mut alice = member("alice", one, json!("admin"));
    let mut ann = member("ann", one, json!(["viewer", "admin"]));
    let mut bob = member("bob", one, json!("viewer"));
    let mut carol = member("carol", two, json!("admin"));
    alice.expect(&[
        ("INSERT INTO invoices (id, memo) VALUES (pg_temp.n(1), 'of one')", "#1"),
        ("INSERT INTO contacts (email) VALUES ('a@one')", "#1"),
    ]);
    ann.expect(&[("UPDATE invoices SET memo = 'of one' RETURNING memo", "of one")]);
    carol.expect(&[
        ("INSERT INTO invoices (memo) VALUES ('of two')", "#1"),
        ("INSERT INTO invoices VALUES (DEFAULT, pg_temp.n(1), 'x')", INSUFFICIENT_PRIVILEGE),
        ("UPDATE invoices SET organization_id = pg_temp.n(1)", INSUFFICIENT_PRIVILEGE),
        ("UPDATE invoices SET memo = 'x' WHERE id = pg_temp.n(1)", "#0"),
        (
            "INSERT INTO invoices (id, memo) VALUES (pg_temp.n(1), 'x')
             ON CONFLICT (id) DO UPDATE SET organization_id = pg_temp.n(2)",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("DELETE FROM invoices WHERE id = pg_temp.n(1)", "#0"),
        ("INSERT INTO contacts (org_id, email) VALUES ('alice', 'x')", INSUFFICIENT_PRIVILEGE),
        ("INSERT INTO contacts (email) VALUES ('c@two') RETURNING org_id", "carol"),
        ("UPDATE contacts SET org_id = 'alice'", INSUFFICIENT_PRIVILEGE),
    ]);
    let mut others: Vec<Actor> = ["administrator", "Admin", "admin ", "", "[\"admin\"]"]
        .into_iter()
        .map(|role| member("bob", one, json!(role)))
        .collect();
    others.extend(
        [json!(null), json!(1), json!([["admin"]]), json!(["Admin"]), json!({"admin": true})]
            .map(|role| member("bob", one, role)),
    );
    others.push(recipe.client(json!({"o": {"id": one}, "rol": "admin", "role": "admin"})));
    for actor in others.iter_mut().chain([&mut bob]) {
        actor.expect(&[
            ("SELECT memo FROM invoices", "of one"),
            ("INSERT INTO invoices (memo) VALUES ('x')", INSUFFICIENT_PRIVILEGE),
            ("UPDATE invoices SET memo = 'x' RETURNING memo", "#0"),
            ("SELECT memo FROM invoices FOR UPDATE", "#0"),
            ("DELETE FROM invoices", "#0"),
        ]);
    }
    let mut outsiders = [
        recipe.nobody("app"),
        recipe.user("alice"),
        recipe.client(json!({"o": "admin", "role": "admin", "organization_id": one})),
        recipe.client(json!({"o": {"id": [one], "role": "admin"}})),
        recipe.client(json!({"o": {"id": "org_1", "role": "admin"}, "org_id": null})),
    ];
    for actor in &mut outsiders {
        actor.expect(&[
            ("INSERT INTO invoices (memo) VALUES ('x')", INSUFFICIENT_PRIVILEGE),
            ("INSERT INTO contacts (email) VALUES ('x')", INSUFFICIENT_PRIVILEGE),
        ]);
        recipe.besiege(actor, "invoices", "memo", &[]);
        recipe.besiege(actor, "contacts", "email", &[]);
    }
    for actor in [&mut alice, &mut bob] {
        recipe.besiege(actor, "invoices", "memo", &["of one"]);
    }
    recipe.besiege(&mut carol, "invoices", "memo", &["of two"]);
    recipe.besiege(&mut carol, "contacts", "email", &["c@two"]);
    alice.expect_indexes("invoices", &["invoices_organization_id_idx"]);
    alice.expect_indexes("contacts", &["contacts_org_id_idx"]);
    late.expect_expired(&[
        "SELECT * FROM invoices",
        "INSERT INTO invoices (memo) VALUES ('x')",
        "SELECT * FROM contacts",
        "DELETE FROM contacts",
    ]);
    recipe.author().expect(&[
        ("SELECT memo FROM invoices", "of one; of two"),
        ("SELECT org_id, email FROM contacts", "alice|a@one; carol|c@two"),
    ]);
}

#[test]
fn administrators() {
    let recipe = Recipe::follow("Administrators");
    let mut late = recipe.client_for(3, json!({"sub": "root", "roles": ["admin"]}));
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| recipe.user(name));
    alice.expect(&[("INSERT INTO tickets (id, body) VALUES (pg_temp.n(1), 'of alice')", "#1")]);
    bob.expect(&[("INSERT INTO tickets (id, body) VALUES (pg_temp.n(2), 'of bob')", "#1")]);
    let mut administrators = [
        recipe.client(json!({"sub": "root", "roles": ["user", "admin"]})),
        recipe.client(json!({"sub": "root", "roles": "admin"})),
        recipe.client(json!({"sub": "root", "app_metadata": {"role": "admin"}})),
    ];
    for actor in &mut administrators {
        actor.expect(&[
            ("SELECT body FROM tickets", "of alice; of bob"),
            ("UPDATE tickets SET owner = owner RETURNING body", "of alice; of bob"),
            ("INSERT INTO tickets (owner, body) VALUES ('bob', 'x')", "#1"),
            ("DELETE FROM tickets WHERE body = 'x'", "#1"),
        ]);
    }
    // What is said about the operator that is not safe.
    let mut object = recipe.client(json!({"sub": "bob", "roles": {"admin": false}}));
    object.expect(&[("SELECT auth.claim_jsonb('roles') ? 'admin'", "t")]);
    let pretenders = [
        json!({"user_metadata": {"role": "admin", "roles": ["admin"]}}),
        json!({"raw_user_meta_data": {"role": "admin"}, "role": "admin", "name": "admin"}),
        json!({"roles": ["administrator", "Admin", "admin ", ["admin"], {"admin": true}]}),
        json!({"roles": "[\"admin\"]"}),
        json!({"roles": {"admin": false}}),
        json!({"roles": {"admin": true}}),
        json!({"roles": {"0": "admin"}}),
        json!({"roles": null, "app_metadata": null}),
        json!({"roles": true, "app_metadata": "admin"}),
        json!({"app_metadata": {"role": ["admin"], "roles": ["admin"]}}),
        json!({"app_metadata": {"role": "Admin"}, "/app_metadata/role": "admin"}),
    ];
    for mut claims in pretenders {
        claims["sub"] = json!("bob");
        let mut actor = recipe.client(claims);
        actor.expect(&[
            ("SELECT body FROM tickets", "of bob"),
            ("INSERT INTO tickets (owner, body) VALUES ('alice', 'x')", INSUFFICIENT_PRIVILEGE),
            ("UPDATE tickets SET owner = 'alice'", INSUFFICIENT_PRIVILEGE),
            ("UPDATE tickets SET body = 'x' WHERE owner = 'alice'", "#0"),
            ("DELETE FROM tickets WHERE owner = 'alice'", "#0"),
            (
                "INSERT INTO tickets (id, body) VALUES (pg_temp.n(1), 'x')
                 ON CONFLICT (id) DO UPDATE SET owner = 'bob'",
                INSUFFICIENT_PRIVILEGE,
            ),
        ]);
    }
    let mut nobody = recipe.nobody("app");
    nobody.expect(&[("INSERT INTO tickets (body) VALUES ('x')", INSUFFICIENT_PRIVILEGE)]);
    recipe.besiege(&mut bob, "tickets", "body", &["of bob"]);
    recipe.besiege(&mut nobody, "tickets", "body", &[]);
    recipe.besiege(&mut administrators[0], "tickets", "body", &["of alice", "of bob"]);
    late.expect_expired(&[
        "SELECT * FROM tickets",
        "DELETE FROM tickets",
        "INSERT INTO tickets (owner, body) VALUES ('alice', 'x')",
    ]);
    recipe.author().expect(&[("SELECT owner FROM tickets", "alice; bob")]);
}
