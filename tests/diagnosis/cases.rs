//! Findings of `auth.health()`: cases in which they appear and disappear.

use harness::{quote, run, send};
use postgres::Client;

const REFERENCE: &str = include_str!("../../docs/reference.md");

/// A setup with one finding.
pub struct Case {
    pub severity: &'static str,
    pub subject: &'static str,
    pub finding: &'static str,
    pub make: &'static str,
    pub cure: Cure,
}

/// What makes the finding disappear.
#[derive(Clone, Copy)]
pub enum Cure {
    /// The statements in the advice, after `Run:`.
    Advice,
    Statements(&'static str),
}

/// A row of `auth.health()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: String,
    pub subject: String,
    pub finding: String,
    pub advice: String,
}

/// The findings of `auth.health()`, or of another function, whose subject contains a text. Each is one that the
/// reference lists, with its severity.
pub fn findings(client: &mut Client, function: &str, subject: &str) -> Vec<Finding> {
    let query = format!(
        "SELECT severity, subject, finding, advice FROM auth.{function}()
         WHERE strpos(subject, {}) > 0",
        quote(subject)
    );
    let rows = client.query(&query, &[]).unwrap_or_else(|error| panic!("{function}: {error:?}"));
    let documented = documented();
    let read = |row: &postgres::Row| {
        let [severity, subject, finding, advice] = [0, 1, 2, 3].map(|place| row.get(place));
        Finding { severity, subject, finding, advice }
    };
    let found: Vec<Finding> = rows.iter().map(read).collect();
    for Finding { severity, finding, advice, .. } in &found {
        let listed = documented.iter().find(|(_, documented)| documented == finding);
        let severities = listed.map(|(severities, _)| severities.as_str()).unwrap_or_default();
        assert!(
            severities.split(", ").any(|one| one == severity),
            "reference: {severity}, {finding}"
        );
        assert!(advice.ends_with(['.', ';']), "{advice}");
    }
    found
}

/// The severities and the texts of the findings that the reference lists.
pub fn documented() -> Vec<(String, String)> {
    let (_, section) = REFERENCE.split_once("\n## Findings\n").expect("the section");
    let (_, table) =
        section.split_once("\n| severity | finding | condition |\n").expect("the table");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with("| "));
    rows.map(|row| {
        let mut cells = row.split(" | ").map(|cell| cell.trim_matches(['|', ' ']).to_owned());
        (cells.next().unwrap_or_default(), cells.next().unwrap_or_default())
    })
    .collect()
}

impl Case {
    /// The finding appears alone for the subject, and disappears with the cure.
    pub fn check(&self, client: &mut Client, function: &str, within: &str) {
        let label = format!("{}: {}", self.finding, self.make);
        let before = findings(client, function, within);
        assert!(before.is_empty(), "before {label}: {before:#?}");
        run(client, self.make);
        let found = findings(client, function, within);
        let [finding] = found.as_slice() else {
            panic!("{label}: {found:#?}");
        };
        assert_eq!(finding.finding, self.finding, "{label}");
        assert_eq!(finding.severity, self.severity, "{label}");
        assert_eq!(finding.subject, self.subject, "{label}");
        match self.cure {
            Cure::Advice => run(client, &statements(&finding.advice)),
            Cure::Statements(statements) => run(client, statements),
        }
        let after = findings(client, function, within);
        assert!(after.is_empty(), "after the cure of {label}: {after:#?}");
    }
}

/// The statements in an advice.
pub fn statements(advice: &str) -> String {
    let start = advice.find("un: ").map(|place| place + 4).expect("Run:");
    let end = advice.rfind(';').expect("a semicolon");
    let statements = &advice[start..=end];
    // Postgres runs several statements in one transaction, and ALTER SYSTEM in none.
    statements.to_owned()
}

/// Checks that a query returns nothing.
pub fn expect_none(client: &mut Client, query: &str, label: &str) {
    let lines = send(client, query).unwrap_or_else(|code| panic!("{label}: {code}")).lines("|");
    assert!(lines.is_empty(), "{label}: {lines:#?}");
}
