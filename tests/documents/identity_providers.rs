//! Every recipe of `docs/identity-providers.md` is accepted as it stands there.

use harness::{Cluster, Preload, run, text};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::json;

const PAGE: &str = include_str!("../../docs/identity-providers.md");

/// What the policies of the page are for.
const TABLES: &str = "
    CREATE TABLE deployments (repository text);
    CREATE TABLE builds (project text);
    CREATE TABLE jobs (account text);
    CREATE TABLE invoices ();
    CREATE TABLE orders (team text);
";

/// The blocks of SQL.
fn blocks() -> Vec<&'static str> {
    let blocks = PAGE.split("\n```").skip(1).step_by(2);
    blocks.map(|block| block.strip_prefix("sql\n").expect("only SQL is in blocks")).collect()
}

/// The texts between backticks in a piece of prose.
fn code(prose: &str) -> impl Iterator<Item = &str> {
    prose.split('`').skip(1).step_by(2)
}

/// A value with other values for its placeholders, which are words in capitals.
fn filled_in(value: &str) -> String {
    let is_capital = |c: char| c.is_ascii_uppercase() || c == '_';
    let mut filled = String::new();
    for part in value.split_inclusive(|c| !is_capital(c)) {
        let (word, end) = part.split_at(part.find(|c| !is_capital(c)).unwrap_or(part.len()));
        filled += if word.len() > 1 { "filled1" } else { word };
        filled += end;
    }
    filled
}

/// SQL with values for the placeholders in its string constants.
fn with_values(sql: &str) -> String {
    let parts = sql.split('\'').enumerate();
    let parts = parts.map(|(n, part)| if n % 2 == 1 { filled_in(part) } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("'")
}

/// Runs a statement, and takes back what it has done.
fn attempt(client: &mut Client, sql: &str) {
    let outcome = client.batch_execute(&format!("BEGIN; {sql}; ROLLBACK"));
    assert!(outcome.is_ok(), "{sql}: {outcome:?}");
}

#[test]
fn every_recipe_is_accepted() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    let jwks = json!({"keys": [Key::generate(Algorithm::ES256).with_kid("k1").public_jwk()]});
    let jwks = jwks.to_string();

    // The tables: an issuer, where its keys are, and whether its tokens have an audience.
    let rows = PAGE.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
        let [_, issuer, keys, audience, ..] = cells[..] else { return None };
        // It may stand for something that only the reader can look up.
        let issuer = code(issuer).next().filter(|_| issuer.starts_with("`"))?;
        Some((issuer, keys, audience)).filter(|_| issuer != "issuer")
    });
    let mut count = 0;
    for (issuer, keys, audience) in rows {
        let issuer = filled_in(issuer);
        let mut add = format!("SELECT auth.add_provider('p', issuer => '{issuer}'");
        // The third column says so of users' tokens; workloads choose theirs.
        if !audience.starts_with("none") {
            add += ", audience => ARRAY['x']";
        }
        if !keys.starts_with("discovery") {
            add += ", jwks_url => 'https://keys.example/jwks'";
        }
        attempt(&mut admin, &(add + ")"));
        count += 1;
    }
    assert!(count >= 24, "{count} issuers");

    // Arguments in the text, each beside what it needs.
    let fences: Vec<&str> = PAGE.split("\n```").step_by(2).collect();
    let mut count = 0;
    for argument in fences.iter().flat_map(|prose| code(prose)) {
        if argument.contains(" => ") {
            let argument = with_values(argument);
            let allowed = if argument.starts_with("role_claim") { "ARRAY['app']" } else { "NULL" };
            attempt(
                &mut admin,
                &format!(
                    "SELECT auth.add_provider('p', issuer => 'https://p.example', jwks => '{jwks}',
                         allowed_roles => {allowed}, {argument})"
                ),
            );
            count += 1;
        }
    }
    assert!(count >= 6, "{count} arguments");

    // The blocks, all in one database.
    run(&mut admin, TABLES);
    let blocks = blocks();
    for block in &blocks {
        cluster.psql(&[("jwks", &jwks)], &with_values(block));
        assert!(block.is_ascii(), "nothing has to be filled in that is not a name: {block}");
    }
    let count =
        |query: &str, admin: &mut Client| text(admin, query).unwrap().parse::<usize>().unwrap();
    let expected = |statement: &str| blocks.join("\n").matches(statement).count();
    for (statement, query) in [
        ("auth.add_provider(", "SELECT count(*)::text FROM auth.providers"),
        ("CREATE POLICY", "SELECT count(*)::text FROM pg_policy"),
    ] {
        assert_eq!(count(query, &mut admin), expected(statement), "{statement}");
        assert!(expected(statement) > 5, "{statement}");
    }
}
