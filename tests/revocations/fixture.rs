//! A cluster with one provider, whose tokens have ids and times of issue.

use std::sync::RwLockWriteGuard;

use harness::{Cluster, Fixture, Loan, Preload, Shared, now, run, sign, sqlstate, text};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::{Value, json};

pub const ISSUER: &str = "https://id.example.com";

/// The beginning of what [`code_of_user`] reads.
pub const WHO: &str = "SELECT auth.user_id()";

pub struct Site {
    pub cluster: Cluster,
    pub key: Key,
}

impl Site {
    pub fn start(preload: Preload, settings: &[(&str, &str)]) -> Self {
        let key = Key::generate(Algorithm::ES256);
        let provider = json!([{"name": "id", "issuer": ISSUER, "jwks": key.public_jwk()}]);
        let provider = provider.to_string();
        let mut all = vec![("pg_session_jwt.providers", provider.as_str())];
        all.extend_from_slice(settings);
        let cluster = Cluster::start(preload, &all);
        run(
            &mut cluster.admin(),
            "CREATE TABLE notes (owner text); INSERT INTO notes VALUES ('alice'), ('bob');
             ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
             CREATE POLICY p ON notes USING (owner = auth.user_id()); GRANT ALL ON notes TO app",
        );
        Self { cluster, key }
    }

    pub fn client(&self) -> Client {
        self.cluster.as_role("app").client()
    }

    /// A token with these claims besides the issuer and the time of issue, ten minutes ago.
    pub fn token(&self, claims: Value) -> String {
        let mut all = json!({"iss": ISSUER, "iat": now() - 600});
        all.as_object_mut().unwrap().append(&mut claims.as_object().unwrap().clone());
        sign(&self.key, all)
    }

    /// A token of a user.
    pub fn token_of(&self, sub: &str) -> String {
        self.token(json!({"sub": sub}))
    }

    /// A token of a user that is issued now.
    pub fn fresh(&self, sub: &str) -> String {
        self.token(json!({"sub": sub, "iat": now()}))
    }
}

impl Fixture for Site {
    fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

/// A cluster for tests that leave no revocation behind.
pub static SITE: Shared<Site> = Shared::new(|preload| Site::start(preload, &[]));

/// That cluster, without a revocation that another test has left behind.
pub fn site() -> Loan<Site, RwLockWriteGuard<'static, Site>> {
    let site = SITE.alone(Preload::Shared);
    unrevoke_all(&mut site.cluster.admin());
    site
}

/// Revokes tokens; the number of the revocation.
pub fn revoke(client: &mut Client, arguments: &str) -> i64 {
    let call = format!("SELECT auth.revoke({arguments})");
    client.query_one(&call, &[]).unwrap_or_else(|error| panic!("{call}: {error:?}")).get(0)
}

pub fn unrevoke(client: &mut Client, id: i64) {
    client.execute("SELECT auth.unrevoke($1)", &[&id]).unwrap();
}

/// Removes all revocations.
pub fn unrevoke_all(client: &mut Client) {
    run(client, "DELETE FROM auth.revocations");
}

/// What a session gets that reads who it is: the SQLSTATE.
pub fn code_of_user(client: &mut Client) -> String {
    sqlstate(client.query_one(WHO, &[]))
}

/// A cell as text.
pub fn cell(client: &mut Client, query: &str) -> String {
    text(client, query).unwrap_or_else(|| "-".to_owned())
}

/// Creates a role, a table of that role, and a provider whose tokens name the role; such a token of alice.
pub fn editor_of_drafts(admin: &mut Client) -> String {
    let key = harness::key("k");
    run(
        admin,
        "CREATE ROLE editor; GRANT editor TO app; CREATE TABLE drafts AS SELECT generate_series(1, 3) n;
         GRANT ALL ON drafts TO editor",
    );
    let add = "SELECT auth.add_provider('r', issuer => 'https://r', jwks => $1::text, role_claim => 'role')";
    admin.execute(add, &[&key.public_jwk().to_string()]).unwrap();
    sign(&key, json!({"iss": "https://r", "sub": "alice", "role": "editor", "iat": now() - 60}))
}

/// Removes what [`editor_of_drafts`] has created, and all revocations.
pub fn without_drafts(admin: &mut Client) {
    unrevoke_all(admin);
    run(admin, "SELECT auth.remove_provider('r'); DROP TABLE drafts; DROP ROLE editor");
}
