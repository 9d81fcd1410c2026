//! A provider that publishes keys, and a cluster that may fetch them.

use harness::{Cluster, Idp, Preload, db_error, key, run, text, token_of, wait_for};
use mint::Key;
use postgres::Client;
use postgres::error::DbError;

/// A provider, and a cluster that may fetch from it.
pub struct Fixture {
    pub cluster: Cluster,
    pub idp: Idp,
    pub key: Key,
}

impl Fixture {
    pub fn new(settings: &[(&str, &str)]) -> Self {
        Self::with(Preload::Neither, settings)
    }

    pub fn with(preload: Preload, settings: &[(&str, &str)]) -> Self {
        let idp = Idp::start();
        let key = key("k1");
        idp.set_keys(&[&key]);
        let ca_file = idp.ca_file().to_str().unwrap();
        let mut all = vec![("pg_session_jwt.jwks_ca_file", ca_file)];
        all.extend_from_slice(settings);
        let cluster = Cluster::start(preload, &all);
        Self { cluster, idp, key }
    }

    /// The same with the provider known under the name `idp`, and its keys fetched.
    pub fn ready(settings: &[(&str, &str)]) -> Self {
        let fixture = Self::new(settings);
        fixture.add();
        fixture.wait_for_keys();
        fixture
    }

    pub fn add(&self) {
        let add = "SELECT auth.add_provider('idp', issuer => $1, jwks_url => $2)";
        self.cluster.admin().execute(add, &[&self.idp.issuer(), &self.idp.jwks_url()]).unwrap();
    }

    pub fn wait_for_keys(&self) {
        wait_for("the keys", || self.status("last_success").is_some());
    }

    pub fn client(&self) -> Client {
        self.cluster.as_role("app").client()
    }

    pub fn token(&self, key: &Key, sub: &str) -> String {
        token_of(key, &self.idp.issuer(), sub)
    }

    pub fn status(&self, column: &str) -> Option<String> {
        let query = format!("SELECT ({column})::text FROM auth.provider_status WHERE name = 'idp'");
        text(&mut self.cluster.admin(), &query)
    }

    /// How many seconds lie between two moments of the status.
    pub fn seconds(&self, from: &str, to: &str) -> f64 {
        self.status(&format!("extract(epoch FROM {to} - {from})")).unwrap().parse().unwrap()
    }

    pub fn update(&self, set: &str) {
        run(&mut self.cluster.admin(), &format!("UPDATE auth.providers SET {set}"));
    }

    /// Lets unknown keys have the provider asked again.
    pub fn forget_demand(&self) {
        self.update("last_demand = NULL");
    }

    pub fn refresh(&self) -> Result<String, Box<DbError>> {
        let refresh = "SELECT auth.refresh_provider('idp')::text";
        match self.cluster.admin().query_one(refresh, &[]) {
            Ok(row) => Ok(row.get(0)),
            Err(error) => Err(Box::new(error.as_db_error().unwrap().clone())),
        }
    }

    /// The process ids of the workers.
    pub fn workers(&self) -> Vec<i32> {
        let query = "SELECT pid FROM pg_stat_activity
                     WHERE backend_type = 'pg_session_jwt key refresh'";
        let rows = self.cluster.admin().query(query, &[]).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

/// How a token is refused.
pub fn refusal(client: &mut Client, token: &str) -> DbError {
    let present = "SELECT auth.jwt_session_init($1)";
    db_error(client.execute(present, &[&token]))
}

pub fn detail(error: &DbError) -> &str {
    error.detail().unwrap_or_default()
}
