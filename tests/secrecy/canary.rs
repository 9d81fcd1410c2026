//! No token and no secret in anything that others can read, with everything logged that can be.

use std::collections::HashSet;
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use harness::{
    Cluster, Preload, Site, Wire, backend_pid, is_older_than, lacks_library, now, text, wait_for,
};
use mint::{Algorithm, Key};
use postgres::NoTls;
use serde_json::json;

/// What must be found nowhere: tokens and secrets.
#[derive(Default)]
struct Canaries(Vec<String>);

/// Where something may stand must not be decided by how a text is cut or wrapped.
const CHUNK: usize = 12;

impl Canaries {
    /// A token that is like no other, in each of its parts.
    fn token(&mut self, key: &Key, lifetime: i64) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let header = json!({"alg": "ES256", "canary": format!("canary {count}")});
        let claims =
            json!({"sub": format!("user {count}"), "exp": now() + lifetime, "canary": count});
        let token = key.sign_raw(header.to_string().as_bytes(), claims.to_string().as_bytes());
        self.0.push(token.clone());
        token
    }

    fn secret(&mut self, name: &str) -> String {
        let secret = format!("canary-secret-{name}-0123456789-0123456789-0123456789");
        self.0.push(secret.clone());
        secret
    }

    /// No part of any of them is in the text.
    fn assert_absent(&self, text: &str, place: &str) {
        let chunks: HashSet<&[u8]> =
            self.0.iter().flat_map(|canary| canary.as_bytes().chunks_exact(CHUNK)).collect();
        if let Some(found) =
            text.as_bytes().windows(CHUNK).position(|window| chunks.contains(window))
        {
            let start = text[..found].rfind('\n').map_or(0, |end| end + 1);
            let line = text[start..].lines().next().unwrap_or_default();
            panic!("{} is in {place}: {line}", &text[found..found + CHUNK]);
        }
    }
}

/// Statements with a token in place of `{}`, by ordinary roles.
const LITERALS: [&str; 25] = [
    "SELECT auth.jwt_session_init('{}')",
    "SELECT auth.jwt_session_init('{}', true)",
    "SELECT auth.jwt_session_init(E'{}')",
    "SET pg_session_jwt.jwt = '{}'",
    "BEGIN; SET LOCAL pg_session_jwt.jwt = '{}'; COMMIT",
    "BEGIN; SET LOCAL pg_session_jwt.jwt = '{}'; SELECT 1/0; COMMIT",
    "SELECT set_config('pg_session_jwt.jwt', '{}', false)",
    "SELECT auth.jwt_session_init('{}'), 1 / (random()::int * 0)",
    "SELECT auth.jwt_verify('{}') IS NULL",
    "SELECT * FROM auth.inspect('{}')",
    "SELECT auth.inspect('Bearer {}')",
    "DO $$ BEGIN PERFORM auth.jwt_session_init('{}'); END $$",
    "DO $$ BEGIN EXECUTE 'SET LOCAL pg_session_jwt.jwt = ''{}'''; END $$",
    "DO $$ BEGIN RAISE EXCEPTION 'with {}'; END $$",
    "PREPARE p AS SELECT auth.jwt_session_init('{}')",
    "PREPARE q AS SELECT auth.jwt_session_init($1); EXECUTE q('{}'); DEALLOCATE q",
    "EXPLAIN SELECT auth.jwt_session_init('{}')",
    "EXPLAIN ANALYZE SELECT auth.user_id(), auth.jwt_session_init('{}')",
    "COPY (SELECT auth.jwt_session_init('{}')) TO STDOUT",
    "DECLARE c CURSOR WITH HOLD FOR SELECT auth.jwt_session_init('{}')",
    "SELECT '{}'::int",
    "SELECT nonsense('{}')",
    "CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE sql SET pg_session_jwt.jwt = '{}' AS 'SELECT 1'",
    "ALTER ROLE app SET pg_session_jwt.jwt = '{}'",
    "SET Pg_Session_Jwt.JWT = '{}'",
];

/// Statements with a token as their parameter.
const PARAMETERS: [&str; 7] = [
    "SELECT auth.jwt_session_init($1)",
    "SELECT auth.jwt_session_init($1, true)",
    "SELECT set_config('pg_session_jwt.jwt', $1, false)",
    "SELECT auth.jwt_verify($1) IS NULL",
    "SELECT count(*)::text FROM auth.inspect($1)",
    "SELECT auth.jwt_session_init($1), 1 / (random()::int * 0)",
    "SELECT $1::int",
];

/// Where an administrator may look, in an order that shows everything.
const PLACES: [&str; 6] = [
    "SELECT query FROM pg_stat_activity",
    "SELECT query FROM pg_stat_statements",
    "SELECT s::text FROM pg_settings s",
    "SELECT s::text FROM pg_prepared_statements s",
    "SELECT s::text FROM pg_cursors s",
    "SELECT s::text FROM pg_db_role_setting s",
];

/// With a log that has only what must be, so that nothing but the statement itself draws attention
/// to the token.
#[test]
fn nothing_is_shown() {
    let key = Key::generate(Algorithm::ES256);
    let stranger = Key::generate(Algorithm::ES256);
    let mut canaries = Canaries::default();
    let jwk = key.public_jwk().to_string();
    let cluster = Cluster::start(
        Preload::Shared,
        &[("pg_session_jwt.jwk", &jwk), ("log_min_messages", "panic")],
    );
    let mut admin = Wire::connect(&cluster.as_role("postgres")).unwrap();
    let ours = |statement: &&&str| statement.contains("jwt") || statement.starts_with("DO");
    for statement in LITERALS.iter().filter(ours) {
        for (key, lifetime) in [(&key, 600), (&key, -600), (&stranger, 600)] {
            let mut client = Wire::connect(&cluster.as_role("app")).unwrap();
            client.query(&statement.replace("{}", &canaries.token(key, lifetime))).unwrap();
            let shown = "SELECT query FROM pg_stat_activity WHERE usename = 'app'";
            let queries: Vec<_> =
                admin.ask(shown, &[]).unwrap().unwrap().into_iter().flatten().flatten().collect();
            assert!(queries.concat().contains("****"), "{statement}: {queries:?}");
            canaries.assert_absent(&queries.join("\n"), statement);
        }
    }

    // Parallel workers show the whole message of their leader's.
    let settings = "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; \
                    SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = off";
    let mut client = Wire::connect(&cluster.as_role("app")).unwrap();
    admin
        .query("CREATE TABLE t AS SELECT generate_series(1, 3) n; GRANT SELECT ON t TO app")
        .unwrap();
    client.query(settings).unwrap();
    let message = format!(
        "SET pg_session_jwt.jwt = '{}'; SELECT count(*) FROM t WHERE auth.user_id() || n <> '' \
         AND pg_sleep(0.3) IS NOT NULL",
        canaries.token(&key, 600)
    );
    let waiting = std::thread::spawn(move || client.query(&message).unwrap());
    let workers = "SELECT query FROM pg_stat_activity \
                   WHERE backend_type = 'parallel worker' AND wait_event = 'PgSleep'";
    let mut queries = Vec::new();
    wait_for("a worker that waits", || {
        let rows = admin.ask(workers, &[]).unwrap().unwrap();
        queries = rows.into_iter().flatten().flatten().collect();
        !queries.is_empty()
    });
    assert!(queries.concat().contains("****"), "{queries:?}");
    canaries.assert_absent(&queries.join("\n"), "a parallel worker's statement");
    waiting.join().unwrap();
}

/// Postgres shows the beginning of a statement, which may not tell that it has a secret.
#[test]
fn the_part_that_is_shown_is_judged_by_the_whole() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut canaries = Canaries::default();
    let secret = canaries.secret("shown");
    let padding = "-".repeat(2000);
    let update = format!(
        "WITH s AS (SELECT '{secret}' AS v FROM pg_sleep(2)) /* {padding} */
         UPDATE auth.providers SET secret = s.v FROM s"
    );
    // Thirty bytes of the secret are within the part that is shown, of a statement that is not kept.
    let call = "SELECT pg_sleep(2), auth.add_provider('p', 'https://p', NULL, NULL, /*";
    let padding = "-".repeat(1023 - 30 - "*/'".len() - call.len());
    let call = format!("{call}{padding}*/'{secret}') /*{}*/", "-".repeat(40_000));
    for (statement, end) in [(update, "SELECT '****"), (call, "-*/'******************************")]
    {
        let mut admin = Wire::connect(&cluster.as_role("postgres")).unwrap();
        let pid = admin.answer("SELECT pg_backend_pid()", &[]);
        let running = std::thread::spawn(move || admin.query(&statement).unwrap());
        let mut observer = cluster.admin();
        let shown = format!(
            "SELECT query FROM pg_stat_activity
             WHERE pid = {pid} AND wait_event = 'PgSleep'"
        );
        wait_for("the statement", || !observer.query(&shown, &[]).unwrap().is_empty());
        // The hooks redact the statement right after Postgres has shown it.
        std::thread::sleep(std::time::Duration::from_millis(500));
        let query: String = observer.query_one(&shown, &[]).unwrap().get(0);
        canaries.assert_absent(&query, "pg_stat_activity");
        assert!(query.contains(end), "the statement is shown: {query}");
        running.join().unwrap();
    }
}

/// The redacted statement is reported again, and its id with it.
#[test]
fn a_redacted_statement_keeps_its_query_id() {
    let key = Key::generate(Algorithm::ES256);
    let mut canaries = Canaries::default();
    let cluster = Cluster::start(
        Preload::Shared,
        &[("pg_session_jwt.jwk", &key.public_jwk().to_string()), ("compute_query_id", "on")],
    );
    let (mut client, mut admin) = (cluster.as_role("app").client(), cluster.admin());
    let shown = format!(
        "SELECT query, query_id FROM pg_stat_activity WHERE pid = {}",
        backend_pid(&mut client)
    );
    let mut report = |sql: &str| {
        client.batch_execute(sql).unwrap();
        let row = admin.query_one(&shown, &[]).unwrap();
        (row.get::<_, String>(0), row.get::<_, Option<i64>>(1))
    };
    for statement in [
        "SELECT auth.jwt_session_init('{}')",
        "SELECT set_config('pg_session_jwt.jwt', '{}', false) FROM pg_class LIMIT 1",
    ] {
        // An id does not depend on constants.
        let (_, expected) = report(&statement.replace("{}", ""));
        let (query, id) = report(&statement.replace("{}", &canaries.token(&key, 600)));
        canaries.assert_absent(&query, statement);
        assert!(query.contains("****"), "{statement}: {query}");
        assert!(expected.is_some(), "{statement}: an empty token");
        assert_eq!(id, expected, "{statement}");
    }
}

/// From 17 on, `COPY` reports the values that it skips.
#[test]
fn values_that_copy_skips_are_redacted() {
    if is_older_than(17, "ON_ERROR of COPY") {
        return;
    }
    let key = Key::generate(Algorithm::ES256);
    let mut canaries = Canaries::default();
    let cluster = Cluster::start(Preload::Shared, &[("log_min_messages", "debug1")]);
    let token = canaries.token(&key, 600);
    let document = format!("{{\"kty\":\"oct\",\"k\":\"{}", canaries.secret("skipped"));
    let file = cluster.data().join("skipped");
    std::fs::write(&file, format!("shared\t{document}")).unwrap();
    let options = "(ON_ERROR ignore, LOG_VERBOSITY verbose)";
    let schema = format!(
        "CREATE TABLE numbers (n int);
         CREATE FUNCTION load() RETURNS void LANGUAGE plpgsql
         AS $$ BEGIN COPY auth.providers (name, jwks) FROM 'skipped' {options}; END $$"
    );
    cluster.admin().batch_execute(&schema).unwrap();
    for (statement, value, left) in [
        ("COPY numbers FROM STDIN", token.clone(), "column \"n\": \"****"),
        ("COPY numbers FROM STDIN", format!("a token {token}"), "column \"n\": \"a token ****"),
        (
            "COPY auth.providers (name, jwks) FROM STDIN",
            format!("shared\t{document}"),
            "column \"jwks\": \"****",
        ),
        ("SELECT load()", String::new(), "column \"jwks\": \"****"),
    ] {
        let notices = Arc::new(Mutex::new(String::new()));
        let heard = notices.clone();
        let mut configuration = cluster.as_role("postgres").configuration();
        configuration.notice_callback(move |notice| {
            *heard.lock().unwrap() += &format!("{}\n{:?}\n", notice.message(), notice.where_());
        });
        let mut client = configuration.connect(NoTls).unwrap();
        if value.is_empty() {
            client.batch_execute(statement).unwrap();
        } else {
            let mut copy = client.copy_in(&format!("{statement} {options}")).unwrap();
            copy.write_all(value.as_bytes()).unwrap();
            assert_eq!(copy.finish().unwrap(), 0, "{statement}: the row is skipped");
        }
        let (notices, log) = (notices.lock().unwrap().clone(), cluster.log());
        for (place, text) in [("the notices", &notices), ("the log", &log)] {
            assert!(text.contains(left), "{statement}: {left} is not in {place}: {text}");
            canaries.assert_absent(text, &format!("{place} of {statement}"));
        }
    }
}

/// Errors quote names as they quote values, and say no less in a statement that presents a token.
#[test]
fn names_stay_in_errors() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = Wire::connect(&cluster.as_role("postgres")).unwrap();
    admin
        .query(
            "CREATE TABLE customer_accounts (id int CONSTRAINT customers_have_an_id CHECK (id > 0));
             GRANT INSERT ON customer_accounts TO app",
        )
        .unwrap();
    let mut client = Wire::connect(&cluster.as_role("app")).unwrap();
    for (statement, named) in [
        (
            "SELECT auth.jwt_session_init(NULL) FROM customers_of_yesterday",
            "\"customers_of_yesterday\"",
        ),
        ("SELECT auth.jwt_session_init(NULL), \"customer number\"", "\"customer number\""),
        (
            "INSERT INTO customer_accounts SELECT length(auth.jwt_session_init(NULL)::text)",
            "\"customers_have_an_id\"",
        ),
        (
            "DO $$ BEGIN PERFORM auth.jwt_session_init(NULL), sqrt(-1 - random()); END $$",
            "SQL statement \"SELECT auth.jwt_session_init(NULL), sqrt(-1 - random())\"",
        ),
    ] {
        client.record();
        client.query(statement).unwrap();
        let received = String::from_utf8_lossy(&client.record()).into_owned();
        assert!(received.contains(named), "{statement}: {received}");
        assert!(cluster.log().contains(named), "{statement}");
    }
}

#[test]
fn nothing_is_found() {
    if lacks_library(&["pg_stat_statements"]) {
        return;
    }
    let key = Key::generate(Algorithm::ES256);
    let stranger = Key::generate(Algorithm::ES256);
    let mut canaries = Canaries::default();
    let providers = |secret: &str| {
        json!([
            {"name": "public", "jwks": key.public_jwk()},
            {"name": "shared", "issuer": "shared", "secret": secret},
        ])
        .to_string()
    };
    let configured = providers(&canaries.secret("configured"));
    let cluster = Cluster::start(
        Preload::Shared,
        &[
            // The one that is to see nothing comes first.
            ("shared_preload_libraries", "pg_stat_statements, pg_session_jwt"),
            ("pg_session_jwt.providers", &configured),
            ("pg_session_jwt.audit_log", "on"),
            ("pg_stat_statements.track", "all"),
            ("pg_stat_statements.track_utility", "on"),
            ("log_statement", "all"),
            ("log_min_duration_statement", "0"),
            ("log_min_messages", "debug1"),
            ("log_parameter_max_length_on_error", "-1"),
            ("log_error_verbosity", "verbose"),
            ("track_activity_query_size", "16384"),
        ],
    );
    cluster.admin().batch_execute("CREATE EXTENSION pg_stat_statements").unwrap();
    let app = cluster.as_role("app");
    // Kept open, so that their last statements stay in view.
    let mut clients = Vec::new();

    for statement in LITERALS {
        for (key, lifetime) in [(&key, 600), (&key, -600), (&stranger, 600)] {
            let mut client = Wire::connect(&app).unwrap();
            client.record();
            let token = canaries.token(key, lifetime);
            client.query(&statement.replace("{}", &token)).unwrap();
            clients.push((client, statement));
        }
    }
    for statement in PARAMETERS {
        for (key, lifetime) in [(&key, 600), (&key, -600), (&stranger, 600)] {
            let mut client = Wire::connect(&app).unwrap();
            client.record();
            let token = canaries.token(key, lifetime);
            let _ = client.ask(statement, &[&token]).unwrap();
            clients.push((client, statement));
        }
    }
    for (key, lifetime) in [(&key, 600), (&key, -600), (&stranger, 600)] {
        let token = canaries.token(key, lifetime);
        let connection = cluster.as_role("app").option("pg_session_jwt.jwt", &token);
        let mut client = Wire::connect(&connection).unwrap();
        client.record();
        for statement in ["SELECT auth.user_id()", "SHOW ALL", "SHOW pg_session_jwt.jwt"] {
            client.query(statement).unwrap();
        }
        clients.push((client, "the startup packet"));
    }

    // Secrets: set, refused, stored, reloaded.
    let mut admin = Wire::connect(&cluster.as_role("postgres")).unwrap();
    let (good, bad) = (canaries.secret("good"), canaries.secret("bad"));
    for document in [
        providers(&good),
        providers(&bad).replace("public", "shared"),
        format!("{{\"secret\": \"{bad}"),
    ] {
        for statement in [
            "ALTER SYSTEM SET pg_session_jwt.providers = '{}'",
            "ALTER ROLE app SET pg_session_jwt.providers = '{}'; ALTER ROLE app RESET ALL",
            "SET pg_session_jwt.providers = '{}'",
            "SELECT set_config('pg_session_jwt.providers', '{}', false)",
            "ALTER SYSTEM SET PG_SESSION_JWT.Providers = '{}'",
            "ALTER SYSTEM SET \"pg_session_jwt\" . \"providers\" = '{}'",
        ] {
            admin.record();
            admin.query(&statement.replace("{}", &document)).unwrap();
            let received = String::from_utf8_lossy(&admin.record()).into_owned();
            canaries.assert_absent(&received, statement);
        }
    }
    admin.query("ALTER SYSTEM RESET pg_session_jwt.providers").unwrap();
    for document in [providers(&good), format!("{{\"secret\": \"{bad}"), configured.clone()] {
        cluster.append_configuration(&[("Pg_Session_JWT.Providers", &document)]);
        cluster.reload();
    }
    wait_for("the refusal to be logged", || cluster.log().contains("invalid value for parameter"));

    for (client, statement) in &mut clients {
        let received = String::from_utf8_lossy(&client.record()).into_owned();
        canaries.assert_absent(&received, &format!("the answers to {statement}"));
        for place in PLACES {
            // As the client itself, who sees its own session's.
            for answer in client.query(place).unwrap() {
                let text: Vec<_> = answer.into_iter().flatten().flatten().flatten().collect();
                canaries.assert_absent(&text.join("\n"), place);
            }
        }
    }
    drop(clients);
    // Those that superusers alone see; what stands in the configuration is theirs.
    let mut configured = Canaries(Vec::new());
    std::mem::swap(&mut configured.0, &mut canaries.0);
    let (secrets, tokens) = configured.0.into_iter().partition(|text| text.starts_with("canary"));
    let (secrets, tokens) = (Canaries(secrets), Canaries(tokens));
    for place in PLACES {
        let mut text = String::new();
        for answer in admin.query(place).unwrap() {
            text.extend(answer.unwrap().into_iter().flatten().flatten().map(|cell| cell + "\n"));
        }
        assert!(text.len() > 10 || !place.contains("pg_s"), "{place} shows nothing");
        tokens.assert_absent(&text, place);
        if !place.contains("pg_settings") {
            secrets.assert_absent(&text, place);
        }
    }
    let log = cluster.log();
    tokens.assert_absent(&log, "the log");
    secrets.assert_absent(&log, "the log");
    assert!(!log.contains("changed to \"[{"), "a document is in the log");
    // They were there, and are not: each way of presenting, and of setting, has left its lines.
    for line in [
        "jwt_session_init('****",
        "SET pg_session_jwt.jwt = '****",
        "parameters: $1 = '****",
        "invalid input syntax for type integer: \"****",
        "\"secret\":\"****",
        "outcome=accepted ",
        "outcome=rejected ",
        "parameter \"Pg_Session_JWT.Providers\" changed",
    ] {
        assert!(log.contains(line), "{line} is not in the log");
    }
}

/// Each message Execute reports the text of its statement again, also of a portal that goes on.
#[test]
fn a_portal_that_goes_on_shows_no_token() {
    let site = Site::start(Preload::Shared, &[("log_min_duration_statement", "-1")]);
    let token = site.token("alice");
    let sql = format!(
        "SELECT auth.jwt_session_init('{token}')::text UNION ALL SELECT 'x' FROM pg_sleep(0)"
    );
    let mut wire = Wire::connect(&site.cluster.as_role("app")).unwrap();
    wire.query("BEGIN").unwrap();
    wire.prepare("p", &sql);
    wire.bind("c", "p", &[]);
    wire.continue_portal("c", 1);
    wire.sync().unwrap();
    wire.continue_portal("c", 0);
    wire.sync().unwrap();
    let shown = "SELECT query FROM pg_stat_activity WHERE usename = 'app'";
    let query = text(&mut site.cluster.admin(), shown).unwrap();
    assert!(query.contains("jwt_session_init('****"), "{query}");
    assert!(!query.contains(&token[..20]), "{query}");
}
