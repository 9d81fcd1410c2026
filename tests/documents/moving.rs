//! `docs/moving.md`, with databases as dumps of Supabase, Neon and Hasura have them.

use std::fs;

use harness::{Cluster, Preload, jwks, key, now, sqlstate};
use mint::Key;
use serde_json::{Value, json};

use crate::blocks::{Reader, page};

const ALICE: &str = "5f3c1a52-6f0b-4d0e-9d3f-0a1b2c3d4e5f";
const BOB: &str = "8e2d7c44-1111-4222-8333-444455556666";

/// A reader who has followed a section of the page, and has added a provider in the new database.
struct Moved {
    reader: Reader,
    key: Key,
    claims: Value,
}

impl Moved {
    /// The old server has run the dump. The claims are those of all tokens.
    fn from(section: &str, dump: &str, claims: Value, provider: &str) -> Self {
        let old = Cluster::start_bare(Preload::Shared, &[]);
        if section != "From Neon" {
            old.psql(&[], dump);
        }
        let mut reader = Reader::default();
        fs::write(reader.machine().folder.join("neon.sql"), dump).expect("the dump");
        reader.type_into_shell(&format!(
            "OLD=postgresql://postgres@127.0.0.1:{}/postgres",
            old.port()
        ));
        let text = page("docs/moving.md");
        let (_, text) = text.split_once(&format!("\n## {section}\n")).expect(section);
        reader.follow(text.split("\n## ").next().unwrap_or_default(), "docs/moving.md");
        let key = key("k1");
        let issuer = claims["iss"].as_str().expect("an issuer");
        let keys = jwks(&[&key]);
        let add = format!(
            "SELECT auth.add_provider('p', issuer => '{issuer}', jwks => '{keys}'{provider});"
        );
        let moved = Self { reader, key, claims };
        moved.psql("postgres", "", &add);
        moved
    }

    /// What psql prints as this login role, with the token in a transaction before the statements.
    fn psql(&self, role: &str, token: &str, sql: &str) -> String {
        let present = format!("BEGIN; SELECT auth.jwt_session_init('{token}', is_local => true);");
        let sql =
            if token.is_empty() { sql.to_owned() } else { format!("{present} {sql} COMMIT;") };
        let script = format!(
            "sudo -u postgres psql -d app -Atq 2>&1 <<'END_OF_SQL' || true\n\
             \\set VERBOSITY sqlstate\nSET SESSION AUTHORIZATION {role};\n{sql}\nEND_OF_SQL\n"
        );
        self.reader.ready().run(&script, &script).trim().to_owned()
    }

    fn token(&self, user: &str, more: Value) -> String {
        let mut claims = self.claims.clone();
        claims["sub"] = user.into();
        claims["exp"] = (now() + 600).into();
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.key.sign(&claims)
    }
}

#[test]
fn from_supabase() {
    let dump = include_str!("dumps/supabase.sql");
    let claims = json!({"iss": "https://ref.supabase.co/auth/v1", "aud": "authenticated", "role": "authenticated",
                        "aal": "aal1"});
    let provider =
        ", audience => 'authenticated', role_claim => 'role', allowed_roles => 'authenticated'";
    let moved = Moved::from("From Supabase", dump, claims, provider);
    let alice = moved.token(
        ALICE,
        json!({"email": "alice@example.com", "user_metadata": {"full_name": "Alice"}}),
    );
    let bob = moved
        .token(BOB, json!({"email": "bob@example.com", "user_metadata": {"full_name": "Bob"}}));
    let ask = |token: &str, sql: &str| moved.psql("authenticator", token, sql);

    assert_eq!(
        ask(&alice, "SELECT current_user, task FROM todos;"),
        "authenticated|water the plants"
    );
    assert_eq!(ask(&bob, "SELECT task FROM todos;"), "");
    let insert = "INSERT INTO todos (task) VALUES ('call Alice') RETURNING user_id;";
    assert!(ask(&bob, insert).contains("23503"), "a user who has not signed in");
    let signed_in =
        ask(&bob, "SELECT sign_in(); SELECT full_name FROM profiles WHERE id = auth.uid();");
    assert_eq!(signed_in, "Bob", "the trigger of new users");
    assert_eq!(ask(&bob, insert), BOB);
    assert_eq!(ask(&bob, "SELECT sign_in(); SELECT task FROM todos;"), "call Alice", "again");
    let steal = format!("INSERT INTO todos (user_id, task) VALUES ('{ALICE}', 'send Bob money');");
    assert!(ask(&bob, &steal).contains("42501"), "a row of another user");
    let update = "UPDATE todos SET is_complete = true RETURNING task;";
    assert_eq!(ask(&bob, update), "", "without a second factor");
    assert_eq!(ask(&moved.token(BOB, json!({"aal": "aal2"})), update), "call Alice");
    assert!(ask(&bob, "TRUNCATE todos;").contains("42501"), "TRUNCATE");
    assert!(ask(&bob, "SELECT FROM auth.users;").contains("42501"), "the table of users");
    // Without a token, and with claims that every client can write.
    let forged =
        format!("SET request.jwt.claims = '{{\"sub\": \"{ALICE}\"}}'; SET ROLE authenticated;");
    let tasks = ask("", &format!("{forged} SELECT task FROM todos;"));
    assert_eq!(tasks, "WARNING:  01000", "forged claims are ignored");
    assert!(ask("", &format!("{forged} SELECT sign_in();")).contains("23502"), "nobody signs in");
    assert_eq!(ask("", "SET ROLE anon; SELECT count(*) FROM profiles;"), "2");
    let defaults = moved.psql("postgres", "", "SELECT count(*) FROM pg_default_acl;");
    assert_eq!(defaults, "0", "default privileges");

    // In a database with Supabase's own functions, the extension names them.
    let old = Cluster::start_bare(Preload::Shared, &[]);
    old.psql(&[], dump);
    let mut admin = old.admin();
    harness::run(
        &mut admin,
        "ALTER SCHEMA auth OWNER TO postgres; REVOKE CREATE ON SCHEMA auth FROM supabase_auth_admin",
    );
    let error = admin.batch_execute("CREATE EXTENSION pg_session_jwt").unwrap_err();
    let detail =
        error.as_db_error().and_then(|error| error.detail()).unwrap_or_default().to_owned();
    assert_eq!(sqlstate::<()>(Err(error)), "42723", "{detail}");
    for function in ["auth.email()", "auth.jwt()", "auth.role()", "auth.uid()"] {
        assert!(detail.contains(function), "{function}: {detail}");
    }
}

#[test]
fn from_neon() {
    let issuer = "https://ep-quiet-sun-123456.neonauth.eu-central-1.aws.neon.tech";
    let dump = include_str!("dumps/neon.sql");
    let moved = Moved::from("From Neon", dump, json!({"iss": issuer, "aud": issuer}), "");
    let ask = |token: &str, sql: &str| moved.psql("app", token, sql);
    let alice = moved.token(ALICE, json!({"name": "Alice", "email": "new@example.com"}));
    let bob = moved.token(BOB, json!({"name": "Bob", "email": "bob@example.com"}));

    assert_eq!(ask(&alice, "SELECT task FROM todos;"), "water the plants");
    assert_eq!(ask(&bob, "SELECT task FROM todos;"), "");
    let insert = "INSERT INTO todos (task) VALUES ('call Alice') RETURNING user_id;";
    assert!(ask(&bob, insert).contains("23503"), "a user who has not signed in");
    assert_eq!(ask(&bob, &format!("SELECT sign_in(); {insert}")), BOB);
    assert_eq!(ask(&alice, "SELECT sign_in();"), "");
    assert!(ask(&bob, "SELECT FROM neon_auth.users_sync;").contains("42501"), "the table of users");
    let users =
        "SELECT name, email, created_at::date FROM neon_auth.users_sync WHERE name = 'Alice';";
    assert_eq!(moved.psql("postgres", "", users), "Alice|new@example.com|2025-01-01");
    assert!(ask("", "SELECT sign_in();").contains("23502"), "nobody signs in");

    // Without the extension, the dump fails.
    let other = Cluster::start_bare(Preload::Shared, &[]);
    let outcome = other
        .admin()
        .batch_execute("CREATE EXTENSION IF NOT EXISTS pg_session_jwt WITH SCHEMA public");
    assert_eq!(sqlstate(outcome), "0A000", "WITH SCHEMA");
}

#[test]
fn from_hasura() {
    let dump = include_str!("dumps/hasura.sql");
    let provider = ", role_claim => '/https:~1~1hasura.io~1jwt~1claims/x-hasura-default-role'";
    let moved =
        Moved::from("From Hasura", dump, json!({"iss": "https://hasura.example"}), provider);
    let ask = |token: &str, sql: &str| moved.psql("app", token, sql);
    let token = |user: &str| {
        let variables = json!({"x-hasura-user-id": user, "x-hasura-default-role": "user"});
        moved.token(user, json!({"https://hasura.io/jwt/claims": variables}))
    };
    let (alice, bob, carol) = (token("alice"), token("bob"), token("carol"));
    let titles = "SELECT title FROM tasks ORDER BY 1;";

    assert_eq!(ask(&alice, titles), "paint");
    assert_eq!(ask(&carol, titles), "paint", "of the same team");
    assert_eq!(ask(&bob, titles), "sand");
    assert!(
        ask(&alice, "SELECT notes FROM tasks;").contains("42501"),
        "a column that is not listed"
    );
    let insert = "INSERT INTO tasks (team_id, title) VALUES (1, 'varnish') RETURNING author;";
    assert_eq!(ask(&carol, insert), "carol", "the preset");
    let forged = "INSERT INTO tasks (team_id, title, author) VALUES (1, 'x', 'alice');";
    assert!(ask(&carol, forged).contains("42501"), "a column with a preset");
    assert!(ask(&bob, insert).contains("42501"), "another team");
    let update = "UPDATE tasks SET title = 'polish' RETURNING title;";
    assert_eq!(ask(&carol, update), "polish", "only the row of the author");
    assert_eq!(ask(&alice, titles), "paint\npolish");
    let updated = "SELECT updated_by FROM tasks WHERE title = 'polish';";
    assert_eq!(moved.psql("backoffice", "", updated), "carol", "the trigger, and the admin secret");
    assert!(ask("", titles).contains("42501"), "without a token");
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'hdb_catalog';";
    assert_eq!(moved.psql("postgres", "", schemas), "0", "Hasura's schema");
}
