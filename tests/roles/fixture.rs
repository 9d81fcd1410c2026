//! A cluster with roles that tokens may name.

use harness::{Cluster, Connection, Preload, now, run, sign};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::{Value, json};

/// A cluster whose roles `editor` and `reader` the login roles `app` and `locked` may take.
pub struct Fixture {
    pub cluster: Cluster,
    pub key: Key,
}

pub const ROLES: &str = "
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
    CREATE VIEW fixed AS SELECT 1 AS n; GRANT SELECT ON fixed TO PUBLIC;
    -- The planner replaces the call of the first one, and evaluates the second one.
    CREATE FUNCTION inlined() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'editors only' $$;
    CREATE FUNCTION constant() RETURNS text LANGUAGE plpgsql IMMUTABLE
      AS $$ BEGIN RETURN 'editors only'; END $$;
    REVOKE ALL ON FUNCTION inlined(), constant() FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION inlined(), constant() TO editor;
";

impl harness::Fixture for Fixture {
    fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

impl Fixture {
    pub fn start(preload: Preload, settings: &[(&str, &str)]) -> Self {
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

    pub fn app(&self) -> Connection {
        self.cluster.as_role("app")
    }

    pub fn client(&self) -> Client {
        self.app().client()
    }

    /// A token with these claims, for ten minutes.
    pub fn sign(&self, mut claims: Value) -> String {
        if claims["sub"].is_null() {
            claims["sub"] = json!("alice");
        }
        sign(&self.key, claims)
    }

    /// One that names this role, for so many seconds.
    pub fn token_for(&self, role: &str, seconds: i64) -> String {
        self.sign(json!({"role": role, "exp": now() + seconds}))
    }

    /// One that names this role.
    pub fn token(&self, role: &str) -> String {
        self.sign(json!({"role": role}))
    }
}

/// The role in force, which the setting `role` shows as well, if any is.
pub fn role(client: &mut Client) -> String {
    let row = client
        .query_one("SELECT current_user::text, current_setting('role'), session_user::text", &[])
        .unwrap();
    let (user, setting, login): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    assert!(setting == user || setting == "none" && user == login, "{setting} {user} {login}");
    user
}

/// The notes that the session sees.
pub fn notes(client: &mut Client) -> Result<i64, String> {
    match client.query_one("SELECT count(*) FROM notes", &[]) {
        Ok(row) => Ok(row.get(0)),
        Err(error) => Err(error.code().map(|code| code.code().to_owned()).unwrap_or_default()),
    }
}
