//! Database roles by token: a session takes the role that its token names, for as long as the token is
//! in force, and locked sessions change it in no other way.

use std::time::{Duration, Instant};

use harness::{Cluster, Connection, Preload, Wire, now, present, run, sqlstate, text, user};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::{Value, json};

/// A cluster whose roles `editor` and `reader` the login roles `app` and `locked` may take.
struct Fixture {
    cluster: Cluster,
    key: Key,
}

const ROLES: &str = "
    ALTER ROLE app NOINHERIT;
    CREATE ROLE locked LOGIN NOINHERIT;
    CREATE ROLE \"Locked too\" LOGIN NOINHERIT;
    CREATE ROLE editor; CREATE ROLE reader; CREATE ROLE stranger;
    CREATE ROLE boss SUPERUSER;
    GRANT editor, reader, boss TO app, locked, \"Locked too\";
    CREATE TABLE notes (note text);
    INSERT INTO notes VALUES ('public'), ('secret');
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
    CREATE POLICY edit ON notes TO editor USING (true);
    CREATE POLICY read ON notes FOR SELECT TO reader USING (note = 'public');
    GRANT ALL ON notes TO editor; GRANT SELECT ON notes TO reader;
    GRANT CREATE ON SCHEMA public TO PUBLIC;
    CREATE SEQUENCE numbers; GRANT USAGE ON numbers TO editor;
";

impl Fixture {
    fn start(preload: Preload, settings: &[(&str, &str)]) -> Self {
        let key = Key::generate(Algorithm::ES256);
        let keys = key.public_jwk();
        let providers = json!([
            {"name": "plain", "jwks": keys, "role_claim": "role", "leeway": 0},
            {"issuer": "bounded", "jwks": keys, "role_claim": "/app/role",
             "allowed_roles": ["reader"], "default_role": "reader"},
            {"issuer": "listed", "jwks": keys, "role_claim": "role",
             "allowed_roles_claim": "roles"},
            {"issuer": "by-default", "jwks": keys, "default_role": "boss"},
            {"issuer": "without", "jwks": keys},
            {"issuer": "several", "jwks": keys, "role_claim": "/realm_access/roles",
             "allowed_roles": ["editor", "reader"], "default_role": "stranger"},
            {"issuer": "unbounded", "jwks": keys, "role_claim": "/realm_access/roles"},
        ])
        .to_string();
        let mut all = vec![("pg_session_jwt.providers", providers.as_str())];
        all.extend_from_slice(settings);
        let cluster = Cluster::start(preload, &all);
        run(&mut cluster.admin(), ROLES);
        Self { cluster, key }
    }

    fn app(&self) -> Connection {
        self.cluster.as_role("app")
    }

    fn client(&self) -> Client {
        self.app().client()
    }

    /// A token with these claims, for ten minutes.
    fn sign(&self, mut claims: Value) -> String {
        let members = claims.as_object_mut().unwrap();
        members.entry("exp").or_insert_with(|| (now() + 600).into());
        members.entry("sub").or_insert_with(|| "alice".into());
        self.key.sign(&claims)
    }

    /// One that names this role.
    fn token(&self, role: &str) -> String {
        self.sign(json!({"role": role}))
    }
}

/// The role in force, which the setting `role` shows as well, if any is.
fn role(client: &mut Client) -> String {
    let row = client
        .query_one("SELECT current_user::text, current_setting('role'), session_user::text", &[])
        .unwrap();
    let (user, setting, login): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    assert!(setting == user || setting == "none" && user == login, "{setting} {user} {login}");
    user
}

/// The notes that the session sees.
fn notes(client: &mut Client) -> Result<i64, String> {
    match client.query_one("SELECT count(*) FROM notes", &[]) {
        Ok(row) => Ok(row.get(0)),
        Err(error) => Err(error.code().map(|code| code.code().to_owned()).unwrap_or_default()),
    }
}

/// Of the roles that a token lists, the session takes the first that its provider names.
#[test]
fn one_of_several_roles_is_taken() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    run(&mut fixture.cluster.admin(), "GRANT stranger TO app");
    let mut client = fixture.client();
    let token = |issuer: &str, roles: Value| {
        fixture.sign(json!({"iss": issuer, "realm_access": {"roles": roles}}))
    };
    for (roles, taken) in [
        (json!(["offline_access", "reader"]), "reader"),
        (json!(["reader", "boss", "editor"]), "editor"),
        (json!([null, "reader"]), "reader"),
        (json!("[\"reader\"]"), "reader"),
        (json!("reader"), "reader"),
        (json!(["boss"]), "stranger"),
        (json!([]), "stranger"),
        (json!(null), "stranger"),
    ] {
        assert_eq!(present(&mut client, &token("several", roles.clone())), "00000", "{roles}");
        assert_eq!(role(&mut client), taken, "{roles}");
    }
    for (issuer, roles) in [
        ("several", json!(["reader", 1])),
        ("several", json!({"reader": true})),
        ("unbounded", json!(["reader"])),
        ("unbounded", json!("[\"reader\"]")),
    ] {
        assert_eq!(
            present(&mut client, &token(issuer, roles.clone())),
            "28J09",
            "{issuer} {roles}"
        );
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None));
    }
}

#[test]
fn the_role_comes_and_goes_with_the_token() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    let (editor, reader) = (fixture.token("editor"), fixture.token("reader"));
    let nobody = fixture.sign(json!({}));
    let mut client = fixture.client();
    assert_eq!(notes(&mut client), Err("42501".to_owned()));

    // For the session.
    assert_eq!(present(&mut client, &editor), "00000");
    assert_eq!((role(&mut client), notes(&mut client)), ("editor".to_owned(), Ok(2)));
    assert_eq!(present(&mut client, &reader), "00000");
    assert_eq!((role(&mut client), notes(&mut client)), ("reader".to_owned(), Ok(1)));
    assert_eq!(present(&mut client, &nobody), "00000");
    assert_eq!(role(&mut client), "app");
    assert_eq!(user(&mut client).as_deref(), Some("alice"));

    // Whatever takes the token away takes the role.
    for way in [
        "SELECT auth.jwt_session_init(NULL)",
        "SELECT auth.jwt_session_init('')",
        "RESET pg_session_jwt.jwt",
        "SET pg_session_jwt.jwt = ''",
        "RESET ALL",
        "DISCARD ALL",
    ] {
        assert_eq!(present(&mut client, &editor), "00000");
        assert_eq!(role(&mut client), "editor");
        run(&mut client, way);
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None), "{way}");
        assert_eq!(notes(&mut client), Err("42501".to_owned()), "{way}");
    }

    // For the transaction, over a session's and over none.
    for before in [None, Some(&reader)] {
        let outside = before.map_or("app", |_| "reader");
        if let Some(token) = before {
            assert_eq!(present(&mut client, token), "00000");
        }
        let ways = [
            format!("SELECT auth.jwt_session_init('{editor}', true)"),
            format!("SET LOCAL pg_session_jwt.jwt = '{editor}'"),
            format!("SELECT set_config('pg_session_jwt.jwt', '{editor}', true)"),
            // As the session's, but rolled back.
            format!("SELECT auth.jwt_session_init('{editor}')"),
            format!("SET pg_session_jwt.jwt = '{editor}'"),
        ];
        for (place, way) in ways.iter().enumerate() {
            for end in ["COMMIT", "ROLLBACK"] {
                if place > 2 && end == "COMMIT" {
                    continue;
                }
                run(&mut client, "BEGIN");
                run(&mut client, way);
                assert_eq!(role(&mut client), "editor", "{way}");
                run(&mut client, "SAVEPOINT s");
                assert_eq!(present(&mut client, &nobody), "00000");
                assert_eq!(role(&mut client), "app");
                run(&mut client, "SAVEPOINT t");
                assert_eq!(present(&mut client, &reader), "00000");
                run(&mut client, "RELEASE t");
                assert_eq!(role(&mut client), "reader");
                run(&mut client, "ROLLBACK TO s");
                assert_eq!(role(&mut client), "editor", "{way}, ROLLBACK TO");
                run(&mut client, end);
                assert_eq!(role(&mut client), outside, "{way}, {end}");
            }
        }
        // An error ends it as well.
        run(&mut client, "BEGIN");
        run(&mut client, &ways[0]);
        assert_eq!(sqlstate(client.batch_execute("SELECT 1/0")), "22012");
        run(&mut client, "ROLLBACK");
        assert_eq!(role(&mut client), outside);
    }

    // Clearing it is undone by a rollback, and by the end of a transaction where it was local.
    for (way, end) in [
        ("SELECT auth.jwt_session_init(NULL)", "ROLLBACK"),
        ("SELECT auth.jwt_session_init(NULL, true)", "COMMIT"),
        ("DISCARD PLANS; RESET pg_session_jwt.jwt", "ROLLBACK"),
    ] {
        assert_eq!(present(&mut client, &editor), "00000");
        run(&mut client, &format!("BEGIN; {way}"));
        assert_eq!(role(&mut client), "app", "{way}");
        run(&mut client, end);
        assert_eq!((role(&mut client), notes(&mut client)), ("editor".to_owned(), Ok(2)), "{way}");
    }
}

#[test]
fn the_role_is_one_that_the_session_may_take() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    let good = fixture.token("editor");
    let mut client = fixture.client();
    for (claims, code) in [
        (json!({"role": "stranger"}), "28J09"),
        (json!({"role": "nobody"}), "28J09"),
        (json!({"role": "none"}), "28J09"),
        (json!({"role": "NONE"}), "28J09"),
        (json!({"role": "public"}), "28J09"),
        (json!({"role": ""}), "28J09"),
        (json!({"role": "Editor"}), "28J09"),
        (json!({"role": "\"editor\""}), "28J09"),
        (json!({"role": "editor; RESET ROLE"}), "28J09"),
        (json!({"role": format!("editor{}", " ".repeat(80))}), "28J09"),
        (json!({"role": "ed\u{1f5}tor"}), "28J09"),
        (json!({"role": ["editor"]}), "28J09"),
        (json!({"role": "boss"}), "28J09"),
        (json!({"role": "postgres"}), "28J09"),
        (json!({"role": "pg_read_all_data"}), "28J09"),
        (json!({"iss": "by-default"}), "28J09"),
        (json!({"iss": "bounded", "app": {"role": "editor"}}), "28J09"),
        (json!({"iss": "bounded", "app": {"role": 1}}), "28J09"),
        (json!({"iss": "listed", "role": "editor"}), "28J09"),
        (json!({"iss": "listed", "role": "editor", "roles": ["reader"]}), "28J09"),
        (json!({"role": "editor", "exp": now() - 1}), "28J04"),
        (json!({"role": "editor", "nbf": now() + 600}), "28J05"),
    ] {
        let token = fixture.sign(claims.clone());
        // What was there before is gone: identity and role.
        assert_eq!(present(&mut client, &good), "00000");
        assert_eq!(role(&mut client), "editor");
        assert_eq!(present(&mut client, &token), code, "{claims}");
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None), "{claims}");

        // In a savepoint, over those of the session, the transaction and the savepoint.
        assert_eq!(present(&mut client, &good), "00000");
        run(&mut client, "BEGIN");
        run(&mut client, &format!("SELECT auth.jwt_session_init('{good}', true); SAVEPOINT s"));
        run(&mut client, &format!("SELECT auth.jwt_session_init('{good}', true)"));
        assert_eq!(present(&mut client, &token), code, "{claims}");
        run(&mut client, "ROLLBACK TO s");
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None), "{claims}");
        run(&mut client, "COMMIT");
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None), "{claims}");

        // Where PL/pgSQL swallows the error.
        assert_eq!(present(&mut client, &good), "00000");
        run(
            &mut client,
            &format!(
                "DO $do$ BEGIN
                   BEGIN PERFORM auth.jwt_session_init('{token}');
                   EXCEPTION WHEN OTHERS THEN IF SQLSTATE <> '{code}' THEN RAISE; END IF; END;
                   IF current_user <> 'app' THEN RAISE 'still %', current_user; END IF;
                 END $do$"
            ),
        );
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None), "{claims}");
    }
    for (claims, expected) in [
        (json!({"role": "editor"}), "editor"),
        (json!({"role": null}), "app"),
        (json!({}), "app"),
        (json!({"role": "app"}), "app"),
        (json!({"iss": "bounded", "app": {"role": "reader"}}), "reader"),
        (json!({"iss": "bounded", "app": "{\"role\": \"reader\"}"}), "reader"),
        (json!({"iss": "bounded", "role": "editor"}), "reader"),
        (json!({"iss": "listed", "role": "editor", "roles": ["reader", "editor"]}), "editor"),
        (json!({"iss": "listed", "roles": ["reader"]}), "app"),
        (json!({"iss": "without", "role": "editor"}), "app"),
    ] {
        assert_eq!(present(&mut client, &fixture.sign(claims.clone())), "00000", "{claims}");
        assert_eq!(role(&mut client), expected, "{claims}");
    }
    // A superuser's session may take any role, but none that is one.
    let mut admin = fixture.cluster.admin();
    assert_eq!(present(&mut admin, &fixture.token("stranger")), "00000");
    assert_eq!(role(&mut admin), "stranger");
    assert_eq!(text(&mut admin, "SHOW is_superuser").as_deref(), Some("off"));
    assert_eq!(sqlstate(admin.batch_execute("SELECT pg_read_file('PG_VERSION')")), "42501");
    assert_eq!(present(&mut admin, &fixture.token("boss")), "28J09");
    assert_eq!(text(&mut admin, "SHOW is_superuser").as_deref(), Some("on"));
}

/// Within a security-definer function the user is not the session's to change.
#[test]
fn security_definer_functions_change_no_role() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    let mut admin = fixture.cluster.admin();
    run(
        &mut admin,
        "CREATE FUNCTION present(token text) RETURNS text SECURITY DEFINER LANGUAGE plpgsql AS $$
           BEGIN PERFORM auth.jwt_session_init(token); RETURN current_user; END $$;
         CREATE FUNCTION try(token text) RETURNS text SECURITY DEFINER LANGUAGE plpgsql AS $$
           BEGIN
             BEGIN PERFORM auth.jwt_session_init(token);
             EXCEPTION WHEN SQLSTATE '28J09' THEN NULL; END;
             RETURN current_user;
           END $$",
    );
    let mut client = fixture.client();
    let (editor, nobody) = (fixture.token("editor"), fixture.sign(json!({})));
    let call = |function: &str, token: &str| format!("SELECT {function}('{token}')");

    assert_eq!(sqlstate(client.batch_execute(&call("present", &editor))), "28J09");
    assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None));
    // A token without a role is as good as anywhere, and takes the one before with it.
    for (token, expected) in [(nobody.as_str(), Some("alice".to_owned())), ("", None)] {
        assert_eq!(present(&mut client, &editor), "00000");
        assert_eq!(text(&mut client, &call("present", token)).as_deref(), Some("postgres"));
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), expected.clone()));
        // In a transaction, from the next statement on.
        assert_eq!(present(&mut client, &editor), "00000");
        run(&mut client, "BEGIN");
        assert_eq!(text(&mut client, &call("present", token)).as_deref(), Some("postgres"));
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), expected));
        assert_eq!(notes(&mut client), Err("42501".to_owned()));
        run(&mut client, "ROLLBACK");
        assert_eq!((role(&mut client), notes(&mut client)), ("editor".to_owned(), Ok(2)));
    }
    // Statements that were analysed before ask nobody again.
    let whoami = client.prepare("SELECT current_user::text").unwrap();
    let count = client.prepare("SELECT count(*) FROM notes").unwrap();
    let attempt = client.prepare("SELECT try($1)").unwrap();
    for token in ["", &editor] {
        for statement in [&whoami, &count] {
            assert_eq!(present(&mut client, &editor), "00000");
            assert_eq!(client.query_one(&count, &[]).unwrap().get::<_, i64>(0), 2);
            run(&mut client, "BEGIN");
            client.query_one(&attempt, &[&token]).unwrap();
            match client.query_one(statement, &[]) {
                Ok(row) => assert_eq!(row.get::<_, &str>(0), "app"),
                Err(error) => assert_eq!(sqlstate::<()>(Err(error)), "42501"),
            }
            run(&mut client, "ROLLBACK");
        }
    }
    // A refusal that is swallowed there takes the role, too.
    for around in ["", "BEGIN; SAVEPOINT s"] {
        assert_eq!(present(&mut client, &editor), "00000");
        run(&mut client, around);
        assert_eq!(text(&mut client, &call("try", &editor)).as_deref(), Some("postgres"));
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None));
        run(&mut client, if around.is_empty() { "" } else { "ROLLBACK TO s" });
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None));
        run(&mut client, "COMMIT");
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None));
    }
}

/// Roles and memberships that change while a session has the role.
#[test]
fn the_role_is_still_one_that_the_session_may_take() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    let mut admin = fixture.cluster.admin();
    let mut client = fixture.client();
    let file = client.prepare("SELECT pg_read_file('PG_VERSION')").unwrap();
    let count = client.prepare("SELECT count(*) FROM notes").unwrap();
    let editor = fixture.token("editor");
    for (change, back) in [
        ("ALTER ROLE editor SUPERUSER", "ALTER ROLE editor NOSUPERUSER"),
        ("REVOKE editor FROM app", "GRANT editor TO app"),
    ] {
        // Whether or not anybody has asked who is there.
        for asked in [false, true] {
            assert_eq!(present(&mut client, &editor), "00000");
            if asked {
                assert_eq!(user(&mut client).as_deref(), Some("alice"));
            }
            assert_eq!(role(&mut client), "editor");
            run(&mut admin, change);
            assert_eq!(sqlstate(client.query_one(&file, &[])), "42501", "{change}");
            assert_eq!(sqlstate(client.query_one(&count, &[])), "28J09", "{change}");
            assert_eq!(role(&mut client), "app", "{change}");
            assert_eq!(notes(&mut client), Err("28J09".to_owned()), "{change}");
            assert_eq!(present(&mut client, &editor), "28J09");
            run(&mut admin, back);
            assert_eq!(present(&mut client, &editor), "00000");
            assert_eq!((role(&mut client), notes(&mut client)), ("editor".to_owned(), Ok(2)));
        }
    }
    // What has nothing to do with it does not matter, not even in a transaction that has failed.
    run(&mut client, "BEGIN");
    assert_eq!(sqlstate(client.batch_execute("SELECT 1/0")), "22012");
    run(&mut admin, "CREATE ROLE another");
    run(&mut client, "ROLLBACK");
    assert_eq!((notes(&mut client), role(&mut client)), (Ok(2), "editor".to_owned()));
    run(&mut admin, "CREATE ROLE brief; GRANT brief TO app; GRANT SELECT ON notes TO brief");
    assert_eq!(present(&mut client, &fixture.token("brief")), "00000");
    assert_eq!(notes(&mut client), Ok(0));
    run(&mut admin, "REVOKE SELECT ON notes FROM brief; DROP ROLE brief");
    assert_eq!(notes(&mut client), Err("28J09".to_owned()));
    assert_eq!(role(&mut client), "app");
}

/// What a client can do where its role is not locked.
#[test]
fn the_later_of_token_and_set_role_counts() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    let (editor, reader) = (fixture.token("editor"), fixture.token("reader"));
    let mut client = fixture.client();
    run(&mut client, "SET ROLE reader");
    assert_eq!(present(&mut client, &editor), "00000");
    assert_eq!(role(&mut client), "editor");
    // Without the token, what was there before.
    assert_eq!(present(&mut client, ""), "00000");
    assert_eq!(role(&mut client), "reader");
    run(&mut client, "RESET ROLE");
    assert_eq!(role(&mut client), "app");

    assert_eq!(present(&mut client, &editor), "00000");
    run(&mut client, "SET ROLE reader");
    assert_eq!(role(&mut client), "reader");
    run(&mut client, "RESET ROLE");
    assert_eq!(role(&mut client), "editor");
    run(&mut client, "SET ROLE NONE");
    assert_eq!(role(&mut client), "app");
    assert_eq!(user(&mut client).as_deref(), Some("alice"));
    assert_eq!(present(&mut client, &reader), "00000");
    assert_eq!(role(&mut client), "reader");
    run(&mut client, "BEGIN; SET LOCAL ROLE editor");
    assert_eq!(role(&mut client), "editor");
    run(&mut client, "COMMIT");
    assert_eq!(role(&mut client), "reader");
    run(&mut client, "BEGIN; SET ROLE NONE; SAVEPOINT s; SET ROLE editor; ROLLBACK TO s");
    assert_eq!(role(&mut client), "app");
    run(&mut client, "ROLLBACK");
    assert_eq!(role(&mut client), "reader");
    assert_eq!(sqlstate(client.batch_execute("SET ROLE stranger")), "42501");
    run(
        &mut client,
        "CREATE FUNCTION whose() RETURNS text LANGUAGE sql SET role = editor
           AS 'SELECT current_user::text'",
    );
    assert_eq!(text(&mut client, "SELECT whose()").as_deref(), Some("editor"));
    assert_eq!(role(&mut client), "reader");
    // Many values of the setting do no harm.
    for _ in 0..200 {
        run(&mut client, "BEGIN; SET LOCAL ROLE editor; SAVEPOINT s; SET LOCAL ROLE NONE; COMMIT");
    }
    assert_eq!(role(&mut client), "reader");
    run(&mut client, "DISCARD ALL");
    assert_eq!(role(&mut client), "app");

    // A token's role is that of the session user who took it.
    let mut admin = fixture.cluster.admin();
    assert_eq!(present(&mut admin, &fixture.token("stranger")), "00000");
    run(&mut admin, "SET SESSION AUTHORIZATION app");
    assert_eq!(role(&mut admin), "app");
    run(&mut admin, "RESET ROLE");
    assert_eq!(role(&mut admin), "app");
    assert_eq!(user(&mut admin).as_deref(), Some("alice"));
    run(&mut admin, "RESET SESSION AUTHORIZATION");
    assert_eq!(role(&mut admin), "stranger");
    run(&mut admin, "BEGIN; SET LOCAL SESSION AUTHORIZATION app; ROLLBACK");
    assert_eq!(role(&mut admin), "stranger");
    run(&mut admin, "SET ROLE reader");
    run(&mut admin, "BEGIN; SET SESSION AUTHORIZATION app; ROLLBACK");
    assert_eq!(role(&mut admin), "reader");
    run(&mut admin, "RESET ROLE");
    assert_eq!(role(&mut admin), "stranger");
    assert_eq!(present(&mut admin, ""), "00000");
    assert_eq!(role(&mut admin), "postgres");
    run(&mut admin, "SET ROLE reader; SET SESSION AUTHORIZATION app");
    assert_eq!(present(&mut admin, &editor), "00000");
    assert_eq!(role(&mut admin), "editor");
    assert_eq!(present(&mut admin, ""), "00000");
    assert_eq!(role(&mut admin), "app");
}

/// A statement does not go on in the role of a token that has expired, or that nobody vouches for.
#[test]
fn the_role_ends_with_its_token() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    let mut client = fixture.client();
    let statement = client.prepare("SELECT count(*) FROM notes").unwrap();
    let exp = now() + 2;
    let brief = fixture.sign(json!({"role": "editor", "exp": exp}));
    assert_eq!(present(&mut client, &brief), "00000");
    assert_eq!(client.query_one(&statement, &[]).unwrap().get::<_, i64>(0), 2);
    run(&mut client, "BEGIN; DECLARE c CURSOR FOR SELECT * FROM notes; FETCH 1 FROM c");
    let deadline = Instant::now() + Duration::from_secs(10);
    while now() < exp && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(sqlstate(client.batch_execute("FETCH 1 FROM c")), "28J04");
    run(&mut client, "ROLLBACK");
    assert_eq!(notes(&mut client), Err("28J04".to_owned()));
    assert_eq!(sqlstate(client.query_one(&statement, &[])), "28J04");
    for statement in [
        "COPY notes TO STDOUT",
        "TRUNCATE notes",
        "LOCK notes",
        "CREATE TABLE mine ()",
        "INSERT INTO notes VALUES ('x')",
        "DO $$ BEGIN PERFORM * FROM notes; END $$",
        "EXPLAIN SELECT * FROM notes",
        "WITH n AS (DELETE FROM notes RETURNING 1) SELECT 1",
        "SELECT auth.user_id()",
    ] {
        assert_eq!(sqlstate(client.batch_execute(statement)), "28J04", "{statement}");
    }
    // What brings another token, or takes this one away, goes on.
    for way in [
        "BEGIN; ROLLBACK",
        "SET work_mem = '1MB'",
        "SHOW work_mem",
        "SELECT 1",
        "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *",
        "LISTEN a; NOTIFY a",
        "BEGIN; SET CONSTRAINTS ALL DEFERRED; COMMIT",
    ] {
        run(&mut client, way);
    }
    // They go on without the role.
    assert_eq!(role(&mut client), "app");
    let next = "SELECT nextval('numbers')";
    assert_eq!(sqlstate(client.batch_execute(next)), "42501");
    assert_eq!(present(&mut client, &fixture.token("editor")), "00000");
    run(&mut client, next);
    assert_eq!(present(&mut client, &fixture.token("reader")), "00000");
    assert_eq!((role(&mut client), notes(&mut client)), ("reader".to_owned(), Ok(1)));

    // Neither keys that are gone nor a provider that says otherwise leave it in force.
    let mut admin = fixture.cluster.admin();
    let key = Key::generate(Algorithm::ES256);
    let add = format!(
        "SELECT auth.add_provider('row', issuer => 'row', jwks => '{}', role_claim => 'role')",
        key.public_jwk()
    );
    let token = key.sign(&json!({"iss": "row", "sub": "alice", "exp": now() + 600,
                                 "role": "editor", "r": "reader"}));
    for (change, code) in [
        ("UPDATE auth.providers SET leeway = 1".to_owned(), "00000"),
        ("UPDATE auth.providers SET role_claim = 'r'".to_owned(), "28J09"),
        ("UPDATE auth.providers SET role_claim = NULL".to_owned(), "28J09"),
        ("UPDATE auth.providers SET allowed_roles = '{reader}'".to_owned(), "28J09"),
        ("UPDATE auth.providers SET audience = '{x}'".to_owned(), "28J07"),
        (format!("UPDATE auth.providers SET jwks = '{}'", fixture.key.public_jwk()), "28J03"),
        // Then it is for the provider without issuer, whose key is another.
        ("SELECT auth.remove_provider('row')".to_owned(), "28J03"),
    ] {
        run(&mut admin, "DELETE FROM auth.providers");
        run(&mut admin, &add);
        assert_eq!(present(&mut client, &token), "00000");
        assert_eq!(notes(&mut client), Ok(2));
        run(&mut admin, &change);
        let found = notes(&mut client).map_or_else(|code| code, |_| "00000".to_owned());
        assert_eq!(found, code, "{change}");
        assert_eq!(present(&mut client, ""), "00000");
        assert_eq!(role(&mut client), "app");
    }
}

#[test]
fn the_role_ends_with_its_transaction() {
    let fixture =
        Fixture::start(Preload::Shared, &[("pg_session_jwt.identity_scope", "transaction")]);
    let mut client = fixture.client();
    let editor = fixture.token("editor");
    for end in ["COMMIT", "ROLLBACK"] {
        for way in ["SELECT auth.jwt_session_init", "SELECT set_config"] {
            run(&mut client, "BEGIN");
            let set = match way {
                "SELECT set_config" => format!("{way}('pg_session_jwt.jwt', '{editor}', false)"),
                _ => format!("{way}('{editor}')"),
            };
            run(&mut client, &set);
            assert_eq!((role(&mut client), notes(&mut client)), ("editor".to_owned(), Ok(2)));
            run(&mut client, end);
            assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None), "{end}");
        }
    }
    assert_eq!(present(&mut client, &editor), "00000");
    assert_eq!(role(&mut client), "app");
    // Also for statements that were analysed before.
    let whoami = client.prepare("SELECT current_user::text").unwrap();
    let count = client.prepare("SELECT count(*) FROM notes").unwrap();
    run(&mut client, &format!("BEGIN; SELECT auth.jwt_session_init('{editor}')"));
    assert_eq!(client.query_one(&count, &[]).unwrap().get::<_, i64>(0), 2);
    run(&mut client, "COMMIT");
    assert_eq!(client.query_one(&whoami, &[]).unwrap().get::<_, &str>(0), "app");
    assert_eq!(sqlstate(client.query_one(&count, &[])), "42501");
}

/// A token that was there before the first statement names the role of that statement.
#[test]
fn the_role_of_the_startup_packet() {
    for preload in Preload::ALL {
        let fixture = Fixture::start(preload, &[]);
        let connect = |token: &str| fixture.app().option("pg_session_jwt.jwt", token).client();
        let mut client = connect(&fixture.token("editor"));
        if preload == Preload::Neither {
            // The library comes with the first call.
            assert_eq!(notes(&mut client), Err("42501".to_owned()));
            assert_eq!(user(&mut client).as_deref(), Some("alice"));
        }
        assert_eq!((notes(&mut client), role(&mut client)), (Ok(2), "editor".to_owned()));
        run(&mut client, "DISCARD ALL");
        assert_eq!((notes(&mut client), role(&mut client)), (Ok(2), "editor".to_owned()));
        let mut client = connect(&fixture.token("stranger"));
        for _ in 0..2 {
            assert_eq!(sqlstate(client.query_one("SELECT auth.user_id()", &[])), "28J09");
            assert_eq!(
                (notes(&mut client), role(&mut client)),
                (Err("42501".into()), "app".into())
            );
        }
    }
}

/// Before the library comes, the setting is a placeholder: any text is taken, and no role.
#[test]
fn a_setting_from_before_the_library_takes_its_role_late() {
    let fixture = Fixture::start(Preload::Neither, &[]);
    let nobody = (Err("42501".to_owned()), "app".to_owned());
    let editor = fixture.token("editor");
    for (named, outcome, then) in [
        (editor.as_str(), "00000", (Ok(2), "editor".to_owned())),
        (&fixture.token("stranger"), "28J09", nobody.clone()),
        ("no token", "28J01", nobody.clone()),
    ] {
        let mut client = fixture.client();
        run(&mut client, &format!("SET pg_session_jwt.jwt = '{named}'"));
        assert_eq!((notes(&mut client), role(&mut client)), nobody, "{outcome}");
        // The first call of a function of the extension's loads the library.
        let call = client.query_one("SELECT auth.user_id()", &[]);
        assert_eq!(sqlstate(call), outcome);
        assert_eq!((notes(&mut client), role(&mut client)), then, "{outcome}");
    }
}

/// What was planned and started before the library came was made for no token's role.
#[test]
fn a_late_library_meets_plans_of_the_login_role() {
    let fixture = Fixture::start(Preload::Neither, &[]);
    run(
        &mut fixture.cluster.admin(),
        "CREATE TABLE orgs (org text, owner text);
         INSERT INTO orgs VALUES ('A', 'alice'), ('A', 'secret');
         CREATE FUNCTION is_mine(org text) RETURNS boolean LANGUAGE plpgsql
           AS $$ BEGIN RETURN org = auth.claim('org'); END $$;
         ALTER TABLE orgs ENABLE ROW LEVEL SECURITY;
         CREATE POLICY logins ON orgs TO app USING (is_mine(org));
         CREATE POLICY editors ON orgs TO editor USING (is_mine(org) AND owner = auth.user_id());
         GRANT SELECT ON orgs TO app, editor;
         CREATE FUNCTION present(token text) RETURNS text LANGUAGE plpgsql
           AS 'BEGIN PERFORM auth.jwt_session_init(token); RETURN 1; END';
         CREATE FUNCTION swallow() RETURNS text LANGUAGE plpgsql
           AS 'BEGIN RETURN auth.user_id(); EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END'",
    );
    let token = fixture.sign(json!({"role": "editor", "org": "A"}));
    let owners = |client: &mut Client, sql: &str| -> Result<Vec<String>, String> {
        match client.query(sql, &[]) {
            Ok(rows) => Ok(rows.iter().map(|row| row.get("owner")).collect()),
            error => Err(sqlstate(error)),
        }
    };
    let own = Ok(vec!["alice".to_owned()]);
    let within = format!("SELECT owner FROM (SELECT present('{token}') OFFSET 0) x, orgs");
    let mut client = fixture.client();
    assert_eq!(owners(&mut client, &within), Err("28J09".to_owned()));
    // From the next transaction on it is as with any other.
    assert_eq!(present(&mut client, &token), "00000");
    assert_eq!(owners(&mut client, "SELECT owner FROM orgs"), own);
    let mut client = fixture.client();
    run(&mut client, "BEGIN; DECLARE c CURSOR FOR SELECT owner FROM orgs");
    assert_eq!(present(&mut client, &token), "00000");
    assert_eq!(owners(&mut client, "FETCH ALL FROM c"), Err("42501".to_owned()));
    run(&mut client, "ROLLBACK");
    // A token that was there before.
    for (way, first) in [
        ("SELECT owner FROM orgs", Err("28J09".to_owned())),
        ("SELECT owner FROM (SELECT swallow() OFFSET 0) x, orgs", Err("28J09".to_owned())),
    ] {
        let mut client = fixture.app().option("pg_session_jwt.jwt", &token).client();
        assert_eq!(owners(&mut client, way), first, "{way}");
        assert_eq!(owners(&mut client, "SELECT owner FROM orgs"), own, "{way}");
    }
    // The first statement of a session may be the call that presents a token.
    for call in ["SELECT auth.jwt_session_init($1)", "SELECT auth.jwt_session_init($1, false)"] {
        let mut client = fixture.client();
        client.execute(call, &[&token]).unwrap();
        assert_eq!(owners(&mut client, "SELECT owner FROM orgs"), own);
    }
}

/// Parallel workers, generic plans and the messages of the extended protocol.
#[test]
fn plans_are_of_the_role() {
    let settings = [
        ("force_parallel_mode", "on"),
        ("parallel_setup_cost", "0"),
        ("parallel_tuple_cost", "0"),
        ("min_parallel_table_scan_size", "0"),
        ("parallel_leader_participation", "off"),
    ];
    let fixture = Fixture::start(Preload::Shared, &settings);
    let mut admin = fixture.cluster.admin();
    run(
        &mut admin,
        "INSERT INTO notes SELECT 'public' FROM generate_series(1, 20000); ANALYZE notes;
         CREATE FUNCTION whose() RETURNS text LANGUAGE sql PARALLEL SAFE STABLE
           AS 'SELECT current_user || '' '' || coalesce(auth.user_id(), ''?'')';
         CREATE FUNCTION pid() RETURNS integer LANGUAGE plpgsql PARALLEL SAFE VOLATILE
           AS 'BEGIN RETURN pg_backend_pid(); END'",
    );
    let mut client = fixture.client();
    let leader: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    run(&mut client, "SET plan_cache_mode = force_generic_plan");
    let statement =
        client.prepare("SELECT whose(), pid(), count(*) FROM notes GROUP BY 1, 2").unwrap();
    for _ in 0..2 {
        for (name, expected) in [("editor", 20_002), ("reader", 20_001)] {
            assert_eq!(present(&mut client, &fixture.token(name)), "00000");
            let rows = client.query(&statement, &[]).unwrap();
            let counted: i64 = rows.iter().map(|row| row.get::<_, i64>(2)).sum();
            assert_eq!(counted, expected, "{name}");
            assert!(rows.iter().any(|row| row.get::<_, i32>(1) != leader), "no worker");
            for row in rows {
                assert_eq!(row.get::<_, &str>(0), format!("{name} alice"));
            }
            assert_eq!(role(&mut client), name);
        }
        assert_eq!(present(&mut client, ""), "00000");
        assert_eq!(sqlstate(client.query(&statement, &[])), "42501");
    }
    // One pipeline is one transaction: it has one role, which ends with it.
    let mut wire = Wire::connect(&fixture.app()).unwrap();
    let present = "SELECT auth.jwt_session_init($1, true)";
    let values = |answer: &harness::Answer| answer.as_ref().unwrap()[0][0].clone();
    for (name, expected, other) in
        [("reader", "reader 20001", "editor"), ("editor", "editor 20002", "reader")]
    {
        wire.statement(present, &[&fixture.token(name)]);
        wire.statement("SELECT current_user || ' ' || count(*) FROM notes", &[]);
        wire.statement(present, &[&fixture.token(other)]);
        let answers = wire.sync().unwrap();
        assert_eq!(values(&answers[1]).as_deref(), Some(expected));
        assert_eq!(answers[2].as_ref().unwrap_err().sqlstate(), "28J09");
        let answer = wire.ask("SELECT current_user", &[]).unwrap();
        assert_eq!(values(&answer).as_deref(), Some("app"));
    }
}

/// The next client of a pooled connection has neither role nor identity of the one before.
#[test]
fn nothing_is_left_on_a_pooled_connection() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    let pooler = fixture.cluster.pooler("transaction", &[("default_pool_size", "1")]);
    let (mut first, mut second) = (pooler.as_role("app").client(), pooler.as_role("app").client());
    let pid = |client: &mut Client| -> i32 {
        client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0)
    };
    assert_eq!(pid(&mut first), pid(&mut second));
    let editor = fixture.token("editor");
    for end in ["COMMIT", "ROLLBACK"] {
        run(&mut first, &format!("BEGIN; SELECT auth.jwt_session_init('{editor}', true)"));
        assert_eq!((role(&mut first), notes(&mut first)), ("editor".to_owned(), Ok(2)));
        run(&mut first, end);
        assert_eq!((role(&mut second), user(&mut second)), ("app".to_owned(), None));
    }
    // What a client has left behind, a refused token takes away.
    run(&mut first, &format!("SELECT auth.jwt_session_init('{editor}')"));
    let bad = fixture.token("stranger");
    let refused = second.batch_execute(&format!("SELECT auth.jwt_session_init('{bad}', true)"));
    assert_eq!(sqlstate(refused), "28J09");
    for client in [&mut first, &mut second] {
        assert_eq!((role(client), user(client)), ("app".to_owned(), None));
    }
}

/// Every way in which a session can change its role, but by token.
#[test]
fn locked_sessions_change_their_role_by_token_alone() {
    let fixture = Fixture::start(
        Preload::Shared,
        &[("pg_session_jwt.locked_roles", "locked, \"Locked too\", postgres2")],
    );
    let mut admin = fixture.cluster.admin();
    run(
        &mut admin,
        "CREATE FUNCTION as_reader() RETURNS text LANGUAGE sql SET role = reader
           AS 'SELECT current_user::text';
         CREATE FUNCTION reset_role() RETURNS void LANGUAGE plpgsql AS 'BEGIN RESET ROLE; END';
         CREATE ROLE postgres2 LOGIN SUPERUSER;
         GRANT SET ON PARAMETER pg_session_jwt.locked_roles TO locked",
    );
    let editor = fixture.token("editor");
    let refused = [
        "SET ROLE reader",
        "SET ROLE editor",
        "SET ROLE NONE",
        "SET LOCAL ROLE reader",
        "SET SESSION ROLE reader",
        "SET role TO 'reader'",
        "SELECT set_config('role', 'reader', false)",
        "SELECT set_config('ROLE', 'none', true)",
        "UPDATE pg_settings SET setting = set_config('role', 'reader', false)",
        "DO $$ BEGIN SET LOCAL ROLE reader; END $$",
        "DO $$ BEGIN EXECUTE 'SET ROLE NONE'; END $$",
        "DO $$ BEGIN PERFORM set_config('role', 'none', false); END $$",
        "SELECT as_reader()",
        "SET SESSION AUTHORIZATION locked",
        "SET LOCAL SESSION AUTHORIZATION postgres",
        "SELECT set_config('session_authorization', 'app', false)",
    ];
    // None of these changes the role.
    let harmless = [
        "RESET ROLE",
        "SET ROLE TO DEFAULT",
        "RESET SESSION AUTHORIZATION",
        "SET SESSION AUTHORIZATION DEFAULT",
        "SELECT reset_role()",
        "DO $$ BEGIN RESET ROLE; RESET SESSION AUTHORIZATION; END $$",
        "BEGIN; RESET ROLE; ROLLBACK",
        "BEGIN; SAVEPOINT s; RESET SESSION AUTHORIZATION; ROLLBACK TO s; COMMIT",
        "DISCARD PLANS",
    ];
    for login in ["locked", "Locked too", "postgres2"] {
        let mut client = fixture.cluster.as_role(login).client();
        for token in ["", &editor] {
            assert_eq!(present(&mut client, token), "00000");
            let expected = if token.is_empty() { login } else { "editor" };
            for statement in refused {
                let outcome = sqlstate(client.batch_execute(statement));
                assert_eq!(outcome, "42501", "{login}: {statement}");
                assert_eq!(role(&mut client), expected, "{login}: {statement}");
            }
            for statement in harmless {
                run(&mut client, statement);
                assert_eq!(role(&mut client), expected, "{login}: {statement}");
            }
            assert_eq!(user(&mut client).as_deref(), (!token.is_empty()).then_some("alice"));
        }
        // Token and role go together.
        assert_eq!(present(&mut client, &fixture.token("reader")), "00000");
        assert_eq!(role(&mut client), "reader");
        for statement in ["RESET ALL", "DISCARD ALL", "RESET pg_session_jwt.jwt"] {
            assert_eq!(present(&mut client, &editor), "00000");
            run(&mut client, statement);
            assert_eq!((role(&mut client), user(&mut client)), (login.to_owned(), None));
        }
        // Nor by what is set for it before its first statement.
        for option in ["role", "session_authorization"] {
            let connection = fixture.cluster.as_role(login).option(option, "reader");
            assert_eq!(sqlstate(connection.try_client()), "42501", "{login}: {option}");
        }
        for way in [
            format!("ALTER ROLE \"{login}\" SET role = 'reader'"),
            format!("ALTER ROLE \"{login}\" IN DATABASE postgres SET role = 'reader'"),
            "ALTER DATABASE postgres SET role = 'reader'".to_owned(),
        ] {
            run(&mut admin, &way);
            let mut client = fixture.cluster.as_role(login).client();
            assert_eq!(role(&mut client), login, "{way}");
            run(&mut client, "RESET ROLE");
            assert_eq!(role(&mut client), login, "{way}");
            run(&mut client, "DISCARD ALL");
            assert_eq!(role(&mut client), login, "{way}");
            assert_eq!(present(&mut client, &editor), "00000");
            assert_eq!(role(&mut client), "editor", "{way}");
            run(&mut admin, &way.replace("SET role = 'reader'", "RESET role"));
        }
        // No session unlocks itself, a superuser's as little.
        let outcome = sqlstate(client.batch_execute("SET pg_session_jwt.locked_roles = ''"));
        assert_eq!(outcome, "55P02", "{login}");
        let option = fixture.cluster.as_role(login).option("pg_session_jwt.locked_roles", "");
        assert_eq!(sqlstate(option.try_client()), "55P02", "{login}");
    }
    // Nor by giving something to a role, to act as that.
    let mut client = fixture.cluster.as_role("locked").client();
    run(
        &mut client,
        "CREATE FUNCTION pg_temp.f() RETURNS text SECURITY DEFINER LANGUAGE sql AS 'SELECT 1::text';
         CREATE TEMP TABLE t (); CREATE TEMP VIEW v AS SELECT; CREATE TEMP SEQUENCE s;
         CREATE TYPE pg_temp.e AS ENUM (); CREATE TYPE pg_temp.c AS (n int)",
    );
    run(&mut admin, "GRANT CREATE ON DATABASE postgres TO locked; ALTER ROLE locked CREATEDB");
    for gift in [
        "ALTER FUNCTION pg_temp.f() OWNER TO reader",
        "ALTER TABLE t OWNER TO reader",
        "ALTER TABLE t ADD COLUMN n int, OWNER TO reader",
        "ALTER VIEW v OWNER TO reader",
        "ALTER SEQUENCE s OWNER TO reader",
        "ALTER TYPE pg_temp.e OWNER TO reader",
        "ALTER TYPE pg_temp.c OWNER TO reader",
        "CREATE SCHEMA x AUTHORIZATION reader",
        "CREATE SCHEMA AUTHORIZATION reader CREATE VIEW v AS SELECT",
        "ALTER DEFAULT PRIVILEGES FOR ROLE reader GRANT ALL ON TABLES TO locked",
        "ALTER DEFAULT PRIVILEGES FOR ROLE locked, reader GRANT ALL ON TABLES TO locked",
        "CREATE DATABASE x OWNER reader",
        "REASSIGN OWNED BY locked TO reader",
        "DO $$ BEGIN ALTER FUNCTION pg_temp.f() OWNER TO reader; END $$",
        "DO $$ BEGIN EXECUTE 'CREATE SCHEMA x AUTHORIZATION reader'; END $$",
    ] {
        let error = client.batch_execute(gift).unwrap_err();
        let message = error.as_db_error().map(|error| error.message().to_owned());
        assert_eq!(message.as_deref(), Some("permission denied to transfer ownership"), "{gift}");
        assert_eq!(sqlstate::<()>(Err(error)), "42501", "{gift}");
    }
    for harmless in [
        "ALTER TABLE t OWNER TO locked",
        "ALTER FUNCTION pg_temp.f() OWNER TO CURRENT_USER",
        "CREATE SCHEMA mine AUTHORIZATION locked; DROP SCHEMA mine",
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO reader",
        "ALTER DEFAULT PRIVILEGES FOR ROLE locked REVOKE ALL ON TABLES FROM reader",
        "ALTER TABLE t ADD COLUMN m int",
    ] {
        run(&mut client, harmless);
    }
    let mut free = fixture.client();
    run(&mut free, "CREATE TEMP TABLE t (); ALTER TABLE t OWNER TO reader");

    // Others are as free as ever.
    let mut client = fixture.client();
    run(&mut client, "SET ROLE reader");
    assert_eq!(role(&mut client), "reader");
    assert_eq!(text(&mut client, "SELECT as_reader()").as_deref(), Some("reader"));

    // A lock that comes later binds sessions that are there.
    assert_eq!(present(&mut client, &editor), "00000");
    fixture.cluster.append_configuration(&[("pg_session_jwt.locked_roles", "app")]);
    fixture.cluster.reload();
    harness::wait_for("the lock", || {
        sqlstate(client.batch_execute("BEGIN; SET LOCAL ROLE NONE; COMMIT")) == "42501" || {
            run(&mut client, "ROLLBACK");
            false
        }
    });
    run(&mut client, "ROLLBACK");
    // A list that is none leaves the one before in force.
    fixture.cluster.append_configuration(&[("pg_session_jwt.locked_roles", "app, , x")]);
    fixture.cluster.reload();
    harness::wait_for("the log", || fixture.cluster.log().contains("It is not a list of names"));
    assert_eq!(sqlstate(client.batch_execute("SET ROLE reader")), "42501");
}

#[test]
fn locked_sessions_change_no_roles_and_memberships() {
    let settings = [("pg_session_jwt.locked_roles", "locked")];
    let fixture = Fixture::start(Preload::Shared, &settings);
    let mut admin = fixture.cluster.admin();
    run(
        &mut admin,
        "CREATE ROLE given; CREATE ROLE other; GRANT given TO locked WITH ADMIN OPTION;
         ALTER ROLE locked CREATEROLE; GRANT given TO app WITH ADMIN OPTION; ALTER ROLE app CREATEROLE;
         CREATE FUNCTION grant_given() RETURNS void SECURITY DEFINER LANGUAGE plpgsql
             AS 'BEGIN GRANT given TO other; REVOKE given FROM other; END'",
    );
    let statements = [
        "GRANT given TO other",
        "GRANT given TO other GRANTED BY CURRENT_USER",
        "REVOKE given FROM other",
        "REVOKE ADMIN OPTION FOR given FROM other",
        "ALTER GROUP given ADD USER other",
        "ALTER GROUP given DROP USER other",
        "CREATE ROLE fresh",
        "CREATE USER fresh",
        "CREATE GROUP fresh",
        "CREATE ROLE fresh ROLE CURRENT_USER",
        "ALTER ROLE other LOGIN",
        "ALTER ROLE other RENAME TO another",
        "ALTER GROUP other RENAME TO another",
        "ALTER USER CURRENT_USER PASSWORD 'x'",
        "ALTER ROLE CURRENT_USER SET work_mem = '1MB'",
        "ALTER ROLE CURRENT_USER IN DATABASE postgres SET work_mem = '1MB'",
        "ALTER ROLE CURRENT_USER RESET ALL",
        "DROP ROLE other",
        "DROP USER IF EXISTS absent",
        "DO $$ BEGIN GRANT given TO other; END $$",
        "PREPARE p AS SELECT 1; DO $$ BEGIN EXECUTE 'GRANT given TO other'; END $$",
    ];
    let mut client = fixture.cluster.as_role("locked").client();
    let mut free = fixture.client();
    for statement in statements {
        run(&mut client, "BEGIN");
        let error = client.batch_execute(statement).expect_err(statement);
        let message = error.as_db_error().map(|error| error.message().to_owned());
        assert_eq!(message.as_deref(), Some("permission denied to change roles"), "{statement}");
        assert_eq!(sqlstate::<()>(Err(error)), "42501", "{statement}");
        run(&mut client, "ROLLBACK");
        // A session that is not locked may.
        run(&mut free, "BEGIN");
        run(&mut free, statement);
        run(&mut free, "ROLLBACK");
    }
    // Nor in the role of a token; but a superuser's function may.
    run(&mut admin, "GRANT given TO editor WITH ADMIN OPTION; GRANT editor TO locked");
    assert_eq!(present(&mut client, &fixture.token("editor")), "00000");
    assert_eq!(sqlstate(client.batch_execute("GRANT given TO other")), "42501");
    run(&mut client, "SELECT grant_given()");
    run(
        &mut client,
        "CREATE TEMP TABLE t (); GRANT SELECT ON t TO other; REVOKE ALL ON t FROM other",
    );
}

/// Where the library comes late, a client could have changed its role before: nobody is anybody.
#[test]
fn locks_that_would_not_hold_let_nobody_in() {
    for (preload, settings) in [
        (Preload::Session, [("pg_session_jwt.locked_roles", "locked")]),
        (Preload::Neither, [("pg_session_jwt.locked_roles", "locked")]),
        // A list that is none, where there is none before.
        (Preload::Shared, [("pg_session_jwt.locked_roles", "locked,")]),
    ] {
        let fixture = Fixture::start(preload, &settings);
        let editor = fixture.token("editor");
        for login in ["app", "locked"] {
            let mut client = fixture.cluster.as_role(login).client();
            assert_eq!(present(&mut client, &editor), "22023", "{preload:?}");
            assert_eq!(role(&mut client), login);
            for call in ["SELECT auth.user_id()", "SELECT auth.init()", "SELECT auth.claim('sub')"]
            {
                let outcome = sqlstate(client.batch_execute(call));
                assert_eq!(outcome, "22023", "{preload:?}: {call}");
            }
        }
        if preload != Preload::Shared {
            // Nor does it help to name another list.
            let connection = fixture.app().option("pg_session_jwt.locked_roles", "");
            if let Ok(mut client) = connection.try_client() {
                assert_eq!(present(&mut client, &editor), "22023", "{preload:?}");
            }
        }
    }
}

/// `examples/roles`, with tokens as Neon and as Supabase issue them.
#[test]
fn the_example_of_anonymous_users_and_services() {
    const ALICE: &str = "5f3c1a52-6f0b-4d0e-9d3f-0a1b2c3d4e5f";
    const BOB: &str = "8e2d7c44-1111-4222-8333-444455556666";
    const SECRET: &str = "a-project-secret-of-forty-characters-000";
    let neon = "https://ep-quiet-sun-123456.neonauth.eu-central-1.aws.neon.tech";
    let supabase = "https://abcdefghijklmnopqrst.supabase.co/auth/v1";
    for (issuer, audience, algorithm, role_of_user) in [
        (neon, neon, Algorithm::EdDSA, json!({})),
        (supabase, "authenticated", Algorithm::ES256, json!({"role": "authenticated"})),
    ] {
        let key = Key::generate(algorithm).with_kid("k1");
        let project = Key::from_secret(Algorithm::HS256, SECRET.as_bytes());
        let cluster = Cluster::start_bare(Preload::Shared, &[]);
        cluster.psql(
            &[
                ("issuer", issuer),
                ("audience", audience),
                ("jwks", &key.public_jwk().to_string()),
                ("secret", SECRET),
            ],
            include_str!("../examples/roles/roles.sql"),
        );
        let user_token = |sub: &str, more: &Value| {
            let mut claims = json!({"iss": issuer, "aud": audience, "sub": sub,
                                    "exp": now() + 600, "email": "a@example.com"});
            claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            claims
        };
        let service = |role: &str| {
            project.sign(&json!({"iss": "supabase", "ref": "abcdefghijklmnopqrst", "role": role,
                                 "iat": now(), "exp": now() + 600}))
        };
        let mut client = cluster.as_role("authenticator").client();
        let count = |client: &mut Client| text(client, "SELECT count(*)::text FROM posts");
        let whoami = |client: &mut Client| text(client, "SELECT current_user::text").unwrap();

        assert_eq!(whoami(&mut client), "anon");
        assert_eq!(count(&mut client).as_deref(), Some("0"));
        let insert = "INSERT INTO posts (title) VALUES ('draft'); \
                      INSERT INTO posts (title, published) VALUES ('news', true)";
        assert_eq!(sqlstate(client.batch_execute(insert)), "42501");
        let alice = key.sign(&user_token(ALICE, &role_of_user));
        assert_eq!(present(&mut client, &alice), "00000");
        assert_eq!(whoami(&mut client), "authenticated");
        run(&mut client, insert);
        assert_eq!(count(&mut client).as_deref(), Some("2"));
        let steal = format!("UPDATE posts SET author = '{BOB}'");
        assert_eq!(sqlstate(client.batch_execute(&steal)), "42501");

        let bob = key.sign(&user_token(BOB, &role_of_user));
        assert_eq!(present(&mut client, &bob), "00000");
        assert_eq!(count(&mut client).as_deref(), Some("1"));
        assert_eq!(client.execute("UPDATE posts SET title = 'x'", &[]).unwrap(), 0);
        assert_eq!(client.execute("DELETE FROM posts", &[]).unwrap(), 0);
        let as_alice = format!("INSERT INTO posts (author, title) VALUES ('{ALICE}', 'x')");
        assert_eq!(sqlstate(client.batch_execute(&as_alice)), "42501");

        // Services, and keys of clients without a user.
        assert_eq!(present(&mut client, &service("service_role")), "00000");
        assert_eq!(
            (whoami(&mut client), count(&mut client)),
            ("service_role".into(), Some("2".into()))
        );
        assert_eq!(present(&mut client, &service("anon")), "00000");
        assert_eq!((whoami(&mut client), count(&mut client)), ("anon".into(), Some("1".into())));
        assert_eq!(present(&mut client, ""), "00000");
        assert_eq!((whoami(&mut client), count(&mut client)), ("anon".into(), Some("1".into())));

        // Nobody makes more of a token than it is.
        let forged = user_token(ALICE, &json!({"role": "service_role"}));
        for (token, codes) in [
            (key.sign(&forged), &["28J09"][..]),
            (project.sign(&forged), &["28J02", "28J10"]),
            (project.sign(&user_token(ALICE, &role_of_user)), &["28J02", "28J10"]),
            (service("authenticated"), &["28J09"]),
            (service("authenticator"), &["28J09"]),
            (service("postgres"), &["28J09"]),
        ] {
            assert_eq!(present(&mut client, &alice), "00000");
            let code = present(&mut client, &token);
            assert!(codes.contains(&code.as_str()), "{code}");
            assert_eq!((whoami(&mut client), user(&mut client)), ("anon".into(), None));
            assert_eq!(count(&mut client).as_deref(), Some("1"));
        }
    }
}
