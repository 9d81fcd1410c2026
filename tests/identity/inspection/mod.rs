//! `auth.inspect()`: a row for each check of a token, and no change of the session.

mod faults;
mod privileges;
mod providers;
mod suggestions;
mod texts;

use std::collections::BTreeMap;

use harness::{Cluster, Preload, run};
use mint::faults::Realm;
use postgres::Client;

/// A row: outcome, found, expected and hint.
struct Checked {
    outcome: String,
    found: Option<String>,
    expected: Option<String>,
    hint: Option<String>,
}

/// A report, by the names of the checks.
struct Report(BTreeMap<String, Checked>);

impl Report {
    /// The names of the checks with an outcome.
    fn with(&self, outcome: &str) -> Vec<&str> {
        let rows = self.0.iter().filter(|(_, row)| row.outcome == outcome);
        rows.map(|(name, _)| name.as_str()).collect()
    }

    fn hint(&self, check: &str) -> &str {
        self.0[check].hint.as_deref().unwrap_or_default()
    }

    fn found(&self, check: &str) -> &str {
        self.0[check].found.as_deref().unwrap_or_default()
    }

    /// All texts.
    fn texts(&self) -> impl Iterator<Item = &str> {
        self.0
            .values()
            .flat_map(|row| [&row.found, &row.expected, &row.hint])
            .flatten()
            .map(String::as_str)
    }
}

const INSPECT: &str = "SELECT \"check\", outcome, found, expected, hint FROM auth.inspect($1)";

/// The checks, in the order in which they run.
const CHECKS: [&str; 17] = [
    "size",
    "form",
    "header",
    "payload",
    "provider",
    "key",
    "algorithm",
    "signature",
    "issuer",
    "audience",
    "required claims",
    "subject",
    "role",
    "representability",
    "time",
    "revocation",
    "replay",
];

/// The report of a text. It has a row for each check.
#[track_caller]
fn inspect(client: &mut Client, text: Option<&str>) -> Report {
    let rows =
        client.query(INSPECT, &[&text]).unwrap_or_else(|error| panic!("{text:?}: {error:?}"));
    let names: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(names, CHECKS, "{text:?}");
    let checked = |row: &postgres::Row| Checked {
        outcome: row.get(1),
        found: row.get(2),
        expected: row.get(3),
        hint: row.get(4),
    };
    Report(rows.iter().map(|row| (row.get(0), checked(row))).collect())
}

/// A cluster whose settings have the providers of a realm, and whose role `app` may inspect tokens.
struct Site {
    cluster: Cluster,
    realm: Realm,
}

impl Site {
    fn start() -> Self {
        let realm = Realm::generate();
        let providers = realm.providers().to_string();
        let settings = [("pg_session_jwt.providers", providers.as_str())];
        let cluster = Cluster::start(Preload::Shared, &settings);
        run(
            &mut cluster.admin(),
            "CREATE ROLE reader; CREATE ROLE writer; CREATE ROLE stranger; GRANT reader, writer TO app;
             GRANT EXECUTE ON FUNCTION auth.inspect(text) TO app, reader",
        );
        Self { cluster, realm }
    }

    fn client(&self) -> Client {
        self.cluster.as_role("app").client()
    }
}
