//! Tokens and secrets beside the libraries that keep statements: pg_stat_statements, auto_explain,
//! pgAudit, pg_stat_kcache and pg_qualstats, whichever comes first in `shared_preload_libraries`.

use std::collections::HashSet;
use std::fs;

use harness::{Cluster, Preload, Wire, lacks_library, now, run};
use mint::{Algorithm, Key};
use serde_json::json;

const NEIGHBOURS: &str = "pg_stat_statements, auto_explain, pgaudit, pg_stat_kcache, pg_qualstats";

/// Any part of this length of a token's payload or signature, or of a secret, must be found nowhere.
const WINDOW: usize = 16;

/// What must be found nowhere, by the statement that it was sent with.
#[derive(Default)]
struct Hidden {
    parts: Vec<(String, String)>,
    count: usize,
}

impl Hidden {
    fn hide(&mut self, part: &str, statement: &str) {
        self.parts.push((part.to_owned(), statement.to_owned()));
    }

    /// A token that is like no other, with a role where one is named.
    fn token(&mut self, key: &Key, lifetime: i64, role: Option<&str>, statement: &str) -> String {
        self.count += 1;
        let mut claims = json!({
            "iss": "roles", "exp": now() + lifetime,
            "sub": format!("user {} {}", self.count, fastrand::u64(..)),
        });
        if let Some(role) = role {
            claims["role"] = json!(role);
        }
        let token = key.sign(&claims);
        for part in token.split('.').skip(1) {
            self.hide(part, statement);
        }
        token
    }

    fn secret(&mut self, statement: &str) -> String {
        self.count += 1;
        let secret =
            format!("Secret_{}_{:016x}_{:016x}", self.count, fastrand::u64(..), fastrand::u64(..));
        self.hide(&secret, statement);
        secret
    }

    /// Fails where a text has any part of them. `place` says what text it is.
    fn assert_absent(&self, place: &str, text: &[u8]) {
        let windows: HashSet<&[u8]> =
            self.parts.iter().flat_map(|(part, _)| part.as_bytes().windows(WINDOW)).collect();
        // All of them are of the characters of base64url.
        let runs = text.split(|byte| !byte.is_ascii_alphanumeric() && !b"-_".contains(byte));
        let mut leaks = Vec::new();
        for run in runs.filter(|run| run.len() >= WINDOW) {
            if let Some(window) = run.windows(WINDOW).find(|window| windows.contains(window)) {
                let window = String::from_utf8_lossy(window).into_owned();
                let of = self.parts.iter().find(|(part, _)| part.contains(&window));
                leaks.push((String::from_utf8_lossy(run), of.map(|(_, statement)| statement)));
            }
        }
        assert!(leaks.is_empty(), "{place} has {:#?}", &leaks[..leaks.len().min(10)]);
    }
}

/// Ways to send a token as a part of a statement, each by a client of its own. `{}` is the token, `{1}`,
/// `{2}` and `{3}` are its thirds, `{header}`, `{payload}` and `{signature}` its parts, `{bytes}` its
/// bytes in hexadecimal digits, `{hex}` and `{unicode}` its characters as escapes.
const STATEMENTS: [&str; 55] = [
    "SELECT auth.jwt_session_init('{}')",
    "SELECT auth.jwt_session_init('{}', true)",
    "SELECT auth.jwt_session_init('{}'), count(*) FROM todos",
    "SELECT auth.jwt_session_init('{}') FROM generate_series(1, 2) WHERE 1 / (random()::int * 0) > 0",
    "SELECT set_config('pg_session_jwt.jwt', '{}', false)",
    "SELECT set_config(name, '{}', true) FROM (VALUES ('pg_session_jwt.jwt')) v (name)",
    "SET pg_session_jwt.jwt = '{}'",
    "BEGIN; SET LOCAL pg_session_jwt.jwt TO '{}'; SELECT count(*) FROM todos; COMMIT",
    "SET \"pg_session_jwt\" . \"jwt\" = '{}'",
    "SELECT 1; SELECT auth.jwt_session_init('{}'); SELECT count(*) FROM todos WHERE task <> 'x'",
    "DO $$ BEGIN PERFORM auth.jwt_session_init('{}'); PERFORM count(*) FROM todos; END $$",
    "DO $$ BEGIN EXECUTE 'SELECT auth.jwt_session_init(''{}'')'; END $$",
    "DO $$ BEGIN EXECUTE 'SET LOCAL pg_session_jwt.jwt = ''{}'''; END $$",
    "DO $$ BEGIN EXECUTE format('SET pg_session_jwt.jwt = %L', '{}'); END $$",
    "DO $$ DECLARE t text := '{}'; BEGIN PERFORM auth.jwt_session_init(t); END $$",
    "DO $$ BEGIN RAISE EXCEPTION 'with %', '{}'; END $$",
    "PREPARE p AS SELECT auth.jwt_session_init('{}'); EXECUTE p; EXECUTE p",
    "PREPARE p (text) AS SELECT auth.jwt_session_init($1); EXECUTE p ('{}')",
    "PREPARE p (text) AS SELECT auth.jwt_session_init($1); EXPLAIN ANALYZE EXECUTE p ('{}')",
    "BEGIN; DECLARE c CURSOR FOR SELECT auth.jwt_session_init('{}'); FETCH c; CLOSE c; COMMIT",
    "DECLARE c CURSOR WITH HOLD FOR SELECT auth.jwt_session_init('{}'); FETCH c",
    "COPY (SELECT auth.jwt_session_init('{}')) TO STDOUT",
    "CREATE TEMP TABLE t AS SELECT auth.jwt_session_init('{}')::text AS x",
    "SELECT auth.jwt_session_init('{}')::text AS x INTO TEMP t",
    "CREATE TEMP VIEW v AS SELECT auth.jwt_session_init('{}')::text AS x; TABLE v",
    "EXPLAIN (VERBOSE) SELECT auth.jwt_session_init('{}')",
    "EXPLAIN ANALYZE SELECT auth.jwt_session_init('{}'), auth.user_id()",
    "SELECT auth.jwt_session_init(NULL) /* {} */",
    "SELECT /* of https://example.com/{} */ 'constant', count(*) FROM todos",
    "SELECT count(*) FROM todos -- isn't it {}",
    "SELECT auth.jwt_session_init('{1}' || '{2}' || '{3}')",
    "SELECT auth.jwt_session_init(concat('{header}.', '{payload}', '.', '{signature}'))",
    "SELECT auth.jwt_session_init('{1}'\n'{2}'\n'{3}')",
    "SELECT set_config('pg_session_jwt.jwt', '{1}' || '{2}{3}', false)",
    "DO $$ BEGIN PERFORM auth.jwt_session_init('{1}' || '{2}' || '{3}'); END $$",
    "SELECT presented('{header}' || '.{payload}.' || '{signature}')",
    "SELECT auth.jwt_session_init($token${}$token$)",
    "SELECT auth.jwt_session_init($${1}$$ || $x${2}{3}$x$)",
    "SELECT auth.jwt_session_init(E'{hex}')",
    "SELECT auth.jwt_session_init(U&'{unicode}')",
    "SELECT auth.jwt_session_init(convert_from('\\x{bytes}', 'UTF8'))",
    "SELECT auth.jwt_session_init(convert_from(decode('{bytes}', 'hex'), 'UTF8'))",
    "SELECT presented('{}')",
    "SELECT presented_by_sql('{}')",
    "SELECT presented_by_sql('{}'), presented('{}') FROM todos",
    "CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE sql AS $$ SELECT auth.jwt_session_init('{}') $$;
     SELECT pg_temp.f(); SELECT pg_temp.f()",
    "CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE sql BEGIN ATOMIC
     SELECT auth.jwt_session_init('{}'); SELECT 'x'; END; SELECT pg_temp.f()",
    "CREATE PROCEDURE pg_temp.f(t text) LANGUAGE plpgsql AS $$ BEGIN
     PERFORM auth.jwt_session_init(t, true); COMMIT; PERFORM count(*) FROM todos; END $$;
     CALL pg_temp.f('{}')",
    "SELECT auth.jwt_verify('{}') ->> 'sub'",
    // Errors quote values, and statements within others in their contexts.
    "SELECT auth.jwt_session_init('{1}' || ('{2}' || '{3}')::int::text)",
    "SELECT auth.jwt_session_init(NULL), \"{header}\", \"{payload}\", \"{signature}\"",
    "DO $$ BEGIN EXECUTE 'SELECT auth.jwt_session_init(''{1}'' || ''{2}'' || ''{3}''), x FROM todos';
     END $$",
    "DO $$ DECLARE \"t\" text := '{1}' || '{2}'; BEGIN \"t\" := \"t\" || '{3}'; PERFORM
     auth.jwt_session_init(\"t\"), ('{1}' || '{2}')::int; END $$",
    "SELECT '{}'::int",
    "INSERT INTO todos SELECT 'alice', '{}' WHERE auth.jwt_session_init('{}') IS NULL RETURNING owner",
];

/// The same with a token as the parameter, or its halves as two.
const PARAMETERS: [&str; 6] = [
    "SELECT auth.jwt_session_init($1)",
    "SELECT set_config('pg_session_jwt.jwt', $1, false)",
    "SELECT auth.jwt_session_init($1), 1 / (random()::int * 0)",
    "SELECT presented($1)",
    "SELECT $1::int",
    "SELECT auth.jwt_session_init($1 || $2)",
];

/// Ways to give a provider a secret.
const SECRETS: [&str; 16] = [
    "SELECT auth.add_provider('{n}', issuer => '{n}', secret => '{}')",
    "SELECT auth.add_provider('{n}', '{n}', NULL, NULL, '{}')",
    "SELECT auth.add_provider('{n}', '{n}', NULL, NULL, $x${}$x$) -- it isn't shown",
    "DO $$ BEGIN PERFORM auth.add_provider('{n}', '{n}', secret => '{}'); END $$",
    "SELECT auth.add_provider('{n}\\', '{n}', NULL, NULL, '{}')",
    "INSERT INTO auth.providers (name, issuer, secret) VALUES ('{n}', '{n}', '{}')",
    "UPDATE auth.providers SET secret = '{}' WHERE name = '{n}'",
    "DO $$ BEGIN EXECUTE 'SELECT auth.add_provider(''{n}'', ''{n}'', secret => ''{}'')'; END $$",
    "ALTER SYSTEM SET pg_session_jwt.providers = '[{\"name\": \"{n}\", \"secret\": \"{}\"}]'",
    "SELECT auth.add_provider('{n}', '{n}', NULL, NULL, E'{}') FROM nowhere",
    "SELECT auth.add_provider('{n}', '{n}', NULL, NULL, '{}', leeway => -1)",
    "DO $$ BEGIN EXECUTE 'SELECT auth.add_provider(''{n}'', \"x\", NULL, NULL, ''{}'') -- isn\"''t';
     END $$",
    "DO $$ DECLARE s text := '{}'; BEGIN EXECUTE 'INSERT INTO auth.providers (name, secret, leeway)
     VALUES (''{n}'', ''' || s || ''', -1)'; END $$",
    "DO $$ DECLARE s text; BEGIN s := '{}' || 1 / 0; PERFORM auth.add_provider('{n}', secret => s); END $$",
    // An error about JSON shows an excerpt, which begins anywhere.
    "INSERT INTO auth.providers (name, jwks) VALUES ('{n}', '{\"kty\":\"oct\",\"k\":\"{}\",}')",
    "SELECT auth.add_provider('{n}', '{n}', jwks => '{\"kty\":\"oct\",\"k\":\"{}\",}'::json)",
];

/// A statement with a token in it.
fn filled(statement: &str, token: &str) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let third = token.len() / 3;
    let each = |format: &dyn Fn(u8) -> String| token.bytes().map(format).collect::<String>();
    [
        ("{}", token),
        ("{1}", &token[..third]),
        ("{2}", &token[third..2 * third]),
        ("{3}", &token[2 * third..]),
        ("{header}", parts[0]),
        ("{payload}", parts[1]),
        ("{signature}", parts[2]),
        ("{bytes}", &each(&|byte| format!("{byte:02x}"))),
        ("{hex}", &each(&|byte| format!("\\x{byte:02x}"))),
        ("{unicode}", &each(&|byte| format!("\\{byte:04x}"))),
    ]
    .iter()
    .fold(statement.to_owned(), |statement, (name, value)| statement.replace(name, value))
}

/// What is searched: each of these, with all that superusers see.
const VIEWS: [&str; 8] = [
    "pg_stat_statements",
    "pg_stat_activity",
    "pg_stat_kcache_detail",
    "pg_qualstats",
    "pg_qualstats_all",
    "pg_qualstats_example_queries()",
    "pg_prepared_statements",
    "pg_cursors",
];

fn search(cluster: &Cluster, hidden: &Hidden) {
    let mut admin = cluster.admin();
    for view in VIEWS {
        let rows = admin.query(&format!("SELECT v::text FROM {view} v"), &[]).unwrap();
        let text: Vec<String> = rows.iter().filter_map(|row| row.get(0)).collect();
        hidden.assert_absent(view, text.join("\n").as_bytes());
    }
    // The texts of statements on disk, of those that have not been counted too.
    search_files(cluster, "pg_stat_tmp", hidden);
}

fn search_files(cluster: &Cluster, folder: &str, hidden: &Hidden) {
    for entry in fs::read_dir(cluster.data().join(folder)).unwrap().flatten() {
        hidden.assert_absent(&entry.path().display().to_string(), &fs::read(entry.path()).unwrap());
    }
}

/// Sends everything to a server that has the libraries in this order, with these settings.
fn check(libraries: &str, settings: &[(&str, &str)]) {
    if lacks_library(&NEIGHBOURS.split(", ").collect::<Vec<_>>()) {
        return;
    }
    let key = Key::generate(Algorithm::ES256);
    let providers = json!([{
        "name": "roles", "issuer": "roles", "jwks": key.public_jwk(), "role_claim": "role",
        "allowed_roles": ["reader"],
    }]);
    let providers = providers.to_string();
    let mut all = vec![
        ("shared_preload_libraries", libraries),
        ("pg_session_jwt.providers", &providers),
        ("pg_stat_statements.track", "all"),
        ("pg_stat_statements.track_utility", "on"),
        ("pg_stat_statements.track_planning", "on"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_nested_statements", "on"),
        ("auto_explain.log_analyze", "on"),
        ("auto_explain.log_verbose", "on"),
        ("auto_explain.log_parameter_max_length", "-1"),
        ("pgaudit.log", "all"),
        ("pgaudit.log_parameter", "on"),
        ("pgaudit.log_relation", "on"),
        ("pg_qualstats.track_constants", "on"),
        ("pg_qualstats.track_pg_catalog", "on"),
        ("pg_qualstats.sample_rate", "1"),
        ("pg_stat_kcache.track", "all"),
        ("pg_stat_kcache.track_planning", "on"),
        ("log_statement", "all"),
        ("log_min_duration_statement", "0"),
        ("log_min_error_statement", "debug5"),
        ("log_parameter_max_length_on_error", "-1"),
        ("log_error_verbosity", "verbose"),
        ("logging_collector", "on"),
        ("log_destination", "stderr, csvlog, jsonlog"),
    ];
    all.extend_from_slice(settings);
    let cluster = Cluster::start(Preload::Shared, &all);
    run(
        &mut cluster.admin(),
        "CREATE EXTENSION pg_stat_statements; CREATE EXTENSION pgaudit;
         CREATE EXTENSION pg_stat_kcache; CREATE EXTENSION pg_qualstats;
         CREATE ROLE reader; GRANT reader TO app;
         CREATE TABLE todos (owner text, task text); INSERT INTO todos VALUES ('alice', 'a');
         GRANT SELECT, INSERT ON todos TO app, reader;
         CREATE FUNCTION presented(t text) RETURNS text LANGUAGE plpgsql AS
         $$ BEGIN PERFORM auth.jwt_session_init(t); RETURN count(*) FROM todos; END $$;
         CREATE FUNCTION presented_by_sql(t text) RETURNS bigint LANGUAGE sql AS
         $$ SELECT auth.jwt_session_init(t); SELECT count(*) FROM todos $$",
    );
    let mut hidden = Hidden::default();
    let app = cluster.as_role("app");
    let kinds = [
        (&key, 600, Some("reader")),
        (&key, 600, None),
        (&key, -600, Some("reader")),
        (&key, 600, Some("postgres")),
    ];
    for statement in STATEMENTS {
        for (key, lifetime, role) in kinds {
            let token = hidden.token(key, lifetime, role, statement);
            Wire::connect(&app).unwrap().query(&filled(statement, &token)).unwrap();
        }
        // Nearly a token.
        let token = hidden.token(&key, 600, None, statement);
        for token in [format!(" {token}"), format!("{token}.{}", &token[..9])] {
            Wire::connect(&app).unwrap().query(&filled(statement, &token)).unwrap();
        }
        // By the extended protocol, more often than plans are made anew.
        let token = hidden.token(&key, 600, Some("reader"), statement);
        let mut client = Wire::connect(&app).unwrap();
        client.prepare("s", &filled(statement, &token));
        for _ in 0..6 {
            client.execute("s", &[]);
            let _ = client.sync().unwrap();
        }
    }
    for statement in PARAMETERS {
        for (key, lifetime, role) in kinds {
            let token = hidden.token(key, lifetime, role, statement);
            let (start, end) = token.split_at(token.len() / 2);
            let parameters =
                if statement.contains("$2") { &[start, end][..] } else { &[token.as_str()] };
            let _ = Wire::connect(&app).unwrap().ask(statement, parameters).unwrap();
        }
    }
    // As a role that may add providers, and as one that may not.
    run(&mut cluster.admin(), "CREATE ROLE keeper LOGIN; GRANT ALL ON auth.providers TO keeper");
    for user in ["keeper", "app", "postgres"] {
        for statement in SECRETS {
            let secret = hidden.secret(statement);
            let name = format!("n{}", hidden.count);
            let sql = statement.replace("{n}", &name).replace("{}", &secret);
            Wire::connect(&cluster.as_role(user)).unwrap().query(&sql).unwrap();
        }
        let secret = hidden.secret("parameter");
        let statement = "SELECT auth.add_provider('x', 'x', secret => $1)";
        let _ = Wire::connect(&cluster.as_role(user)).unwrap().ask(statement, &[&secret]).unwrap();
    }
    search(&cluster, &hidden);
    // The libraries have seen the statements.
    let mut admin = cluster.admin();
    for (view, condition) in [
        ("pg_stat_statements", "query LIKE 'SELECT auth.jwt_session_init(%'"),
        ("pg_stat_statements", "query LIKE 'SET pg_session_jwt.jwt = ''****%'"),
        ("pg_stat_statements", "query LIKE '%/* of https://example.com/x***%'"),
        ("pg_stat_kcache_detail", "query LIKE 'SELECT auth.jwt_session_init(%'"),
        ("pg_qualstats_example_queries()", "query LIKE '%****%'"),
    ] {
        let count = format!("SELECT count(*) FROM {view} v WHERE {condition}");
        assert!(admin.query_one(&count, &[]).unwrap().get::<_, i64>(0) > 0, "{count}");
    }
    // What is on disk after the server has been stopped.
    drop(admin);
    cluster.restart_in_mode("fast");
    search_files(&cluster, "pg_stat", &hidden);
    search_files(&cluster, "log", &hidden);
    hidden.assert_absent("the log before the collector", cluster.log().as_bytes());
    let log: String = fs::read_dir(cluster.data().join("log"))
        .unwrap()
        .flatten()
        .map(|entry| String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned())
        .collect();
    for part in ["jwt_session_init('****", "Query Text", "AUDIT: SESSION", "parameters: $1 = '****"]
    {
        assert!(log.contains(part), "{part}");
    }
}

#[test]
fn nothing_is_kept_where_the_extension_is_loaded_last() {
    check(&format!("{NEIGHBOURS}, pg_session_jwt"), &[("auto_explain.log_format", "json")]);
}

#[test]
fn nothing_is_kept_where_the_extension_is_loaded_first() {
    // So few entries that each is evicted again and again.
    check(
        &format!("pg_session_jwt, {NEIGHBOURS}"),
        &[("pg_stat_statements.max", "100"), ("auto_explain.log_format", "text")],
    );
}
