//! What is remembered so that it need not be found out again, and that it is never wrong: verified
//! tokens, what `auth.claim()` has found, `request.jwt.claims`.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use fastrand::Rng;
use harness::{Cluster, Code, Preload, SUCCESS, Site, Wire, now, wait_for};
use mint::{Algorithm, Key};
use serde_json::json;

/// What the server says, at DEBUG1, when it does what need not be done again.
const VERIFIED: &str = "token signature verified";
const READ: &str = "request.jwt.claims have been read";

/// Only what the backend itself remembers counts.
const ALONE: (&str, &str) = ("pg_session_jwt.shared_cache_size", "0");

/// A client of `app` that is told.
fn connect(cluster: &Cluster) -> Wire {
    let mut client = Wire::connect(&cluster.as_role("app")).unwrap();
    client.query("SET client_min_messages = debug1").unwrap();
    client.notices();
    client
}

// Verified tokens

/// Random tokens against a list of those that were used last: which are verified again, and whose
/// they are, step by step.
#[test]
fn tokens_are_remembered_until_others_were_used_more_lately() {
    const TOKENS: usize = 12;
    for limit in [0, 1, 5, 8, 128] {
        let size = limit.to_string();
        let settings = [("pg_session_jwt.token_cache_size", &*size), ALONE];
        let site = Site::start(Preload::Shared, &settings);
        let tokens: Vec<String> = (0..TOKENS).map(|n| site.token(&format!("user{n}"))).collect();
        let stranger = Key::generate(Algorithm::ES256);
        let forged = stranger.sign(&json!({"sub": "user0", "exp": now() + 600}));
        let mut client = connect(&site.cluster);
        let mut random = Rng::with_seed(limit);
        // The one that was used last comes first.
        let mut lately: Vec<usize> = Vec::new();
        for step in 0..400 {
            let context = format!("size {limit}, step {step}: {lately:?}");
            match random.u32(0..40) {
                // Refused, it is not remembered, nor does it drive another one out.
                0 => {
                    assert_eq!(
                        client.present(&forged, false),
                        Code::Signature.sqlstate(),
                        "{context}"
                    );
                    assert_eq!(client.count_notices(VERIFIED), 0, "{context}");
                    assert_eq!(client.user(), "nobody", "{context}");
                    continue;
                }
                1 => {
                    assert_eq!(client.answer("DISCARD ALL", &[]), "", "{context}");
                    client.query("SET client_min_messages = debug1").unwrap();
                    client.notices();
                    continue;
                }
                _ => {}
            }
            let chosen = random.usize(0..TOKENS);
            let known = lately.contains(&chosen);
            assert_eq!(client.present(&tokens[chosen], false), SUCCESS, "{context}");
            assert_eq!(client.user(), format!("user{chosen}"), "{context}");
            assert_eq!(client.count_notices(VERIFIED), usize::from(!known), "{chosen}, {context}");
            lately.retain(|earlier| *earlier != chosen);
            lately.insert(0, chosen);
            lately.truncate(limit as usize);
        }
    }
}

/// What takes much memory counts as several.
#[test]
fn large_tokens_leave_room_for_few() {
    let site = Site::start(Preload::Shared, &[("pg_session_jwt.token_cache_size", "24"), ALONE]);
    let mut client = connect(&site.cluster);
    let small: Vec<String> = (0..4).map(|n| site.token(&format!("user{n}"))).collect();
    let large = |n: usize| {
        let sub = format!("large{n}");
        site.key.sign(&json!({"sub": sub, "x": "x".repeat(11_000), "exp": now() + 600}))
    };
    for token in &small {
        assert_eq!(client.present(token, false), SUCCESS, "client.present(token, false)");
    }
    assert_eq!(client.count_notices(VERIFIED), 4, "client.count_notices(VERIFIED) after token");
    let first = large(0);
    assert_eq!(client.present(&first, false), SUCCESS, "client.present(first, false)");
    assert_eq!(client.present(&first, false), SUCCESS, "client.present(first, false)");
    assert_eq!(client.present(&small[3], false), SUCCESS, "client.present(small[3], false)");
    assert_eq!(client.count_notices(VERIFIED), 1, "all are remembered");
    assert_eq!(client.present(&large(1), false), SUCCESS, "client.present(large(1), false)");
    assert_eq!(client.present(&large(2), false), SUCCESS, "client.present(large(2), false)");
    client.count_notices(VERIFIED);
    assert_eq!(client.present(&small[3], false), SUCCESS, "client.present(small[3], false)");
    assert_eq!(client.present(&first, false), SUCCESS, "client.present(first, false)");
    assert_eq!(client.count_notices(VERIFIED), 2, "they were driven out");
}

/// Only signatures are remembered: each time, the token must not have expired, and whatever the
/// configuration says now counts.
#[test]
fn what_is_remembered_is_judged_again() {
    let key = Key::generate(Algorithm::ES256).with_kid("k");
    let other = Key::generate(Algorithm::ES256).with_kid("k");
    let provider = |key: &Key, audience: &str| {
        json!({"jwks": {"keys": [key.public_jwk()]}, "audience": audience, "leeway": 0}).to_string()
    };
    let setting = "pg_session_jwt.providers";
    let cluster = Cluster::start(Preload::Shared, &[(setting, &provider(&key, "here")), ALONE]);
    let mut client = connect(&cluster);
    let token = |exp| key.sign(&json!({"sub": "alice", "aud": "here", "exp": exp}));
    let (short, long) = (token(now() + 2), token(now() + 600));
    for token in [&short, &long, &short, &long] {
        assert_eq!(client.present(token, false), SUCCESS, "client.present(token, false)");
    }
    assert_eq!(client.count_notices(VERIFIED), 2, "client.count_notices(VERIFIED) after token");
    sleep(Duration::from_millis(2_100));
    assert_eq!(
        client.present(&short, false),
        Code::Expired.sqlstate(),
        "client.present(short, false)"
    );
    assert_eq!(client.present(&long, false), SUCCESS, "client.present(long, false)");
    assert_eq!(client.count_notices(VERIFIED), 0, "client.count_notices(VERIFIED) after long");

    for (configured, outcome) in [
        (provider(&key, "there"), Code::Audience.sqlstate()),
        (provider(&other, "here"), Code::Signature.sqlstate()),
        (provider(&key, "here"), SUCCESS),
    ] {
        cluster.append_configuration(&[(setting, &configured)]);
        cluster.reload();
        // The session reads the configuration between two statements.
        wait_for("the session to notice", || client.present(&long, false) == outcome);
    }
    assert_eq!(client.count_notices(VERIFIED), 1, "client.count_notices(VERIFIED) after long");

    // Fewer are remembered from the moment at which the setting says so.
    let mut superuser = Wire::connect(&cluster.as_role("postgres")).unwrap();
    superuser.query("SET client_min_messages = debug1").unwrap();
    for (size, verified) in [(128, 1), (0, 2), (1, 1)] {
        superuser.query(&format!("SET pg_session_jwt.token_cache_size = {size}")).unwrap();
        superuser.notices();
        assert_eq!(superuser.present(&long, false), SUCCESS, "{size:?}, {verified:?}");
        assert_eq!(superuser.present(&long, false), SUCCESS, "{size:?}, {verified:?}");
        assert_eq!(superuser.count_notices(VERIFIED), verified, "{size}");
    }
}

/// What the server's configuration says has been read already, but is not what counts in a database
/// that has its own, also when the server's changes before the session's first token.
#[test]
fn what_is_configured_is_read_where_it_counts() {
    const JWK: &str = "pg_session_jwt.jwk";
    let keys = [(); 3].map(|()| Key::generate(Algorithm::ES256));
    let [server, database, later] = keys.each_ref().map(|key| key.public_jwk().to_string());
    let cluster = Cluster::start(Preload::Shared, &[(JWK, &server)]);
    let mut admin = cluster.admin();
    admin.execute("CREATE DATABASE tenant", &[]).unwrap();
    admin.execute(&format!("ALTER DATABASE tenant SET {JWK} = '{database}'"), &[]).unwrap();
    let tenant = cluster.as_role("postgres").database("tenant");
    tenant.client().execute("CREATE EXTENSION pg_session_jwt", &[]).unwrap();
    let tokens = keys.map(|key| key.sign(&json!({"sub": "alice", "exp": now() + 600})));
    let outcomes = |client: &mut Wire| tokens.each_ref().map(|token| client.present(token, false));
    let connect_to =
        |database: &str| Wire::connect(&cluster.as_role("app").database(database)).unwrap();
    let mut sessions = ["tenant", "postgres"].map(connect_to);
    assert_eq!(
        outcomes(&mut connect_to("tenant")),
        [Code::Signature.sqlstate(), SUCCESS, Code::Signature.sqlstate()],
        "after CREATE EXTENSION pg_session_jwt"
    );
    assert_eq!(
        outcomes(&mut connect_to("postgres")),
        [SUCCESS, Code::Signature.sqlstate(), Code::Signature.sqlstate()],
        "after CREATE EXTENSION pg_session_jwt"
    );

    cluster.append_configuration(&[(JWK, &later)]);
    cluster.reload();
    let expected = [
        [Code::Signature.sqlstate(), SUCCESS, Code::Signature.sqlstate()],
        [Code::Signature.sqlstate(), Code::Signature.sqlstate(), SUCCESS],
    ];
    for (client, expected) in sessions.iter_mut().zip(expected) {
        // The signal has been sent; the session heeds it between two statements.
        sleep(Duration::from_millis(200));
        assert_eq!(client.answer("SELECT 1", &[]), "1", "the signal has been sent");
        assert_eq!(outcomes(client), expected, "the signal has been sent");
    }
    for (database, expected) in ["tenant", "postgres"].into_iter().zip(expected) {
        assert_eq!(outcomes(&mut connect_to(database)), expected, "{database:?}");
    }
}

// What auth.claim() has found

/// The same place in a plan is asked for one claim after the other.
#[test]
fn claims_at_paths_that_change() {
    let site = Site::start(Preload::Shared, &[]);
    let mut client = connect(&site.cluster);
    // More, and longer, than is remembered.
    let long = "y".repeat(5_000);
    let mut claims = json!({"exp": now() + 600, "sub": "alice", "none": null, "long": long});
    for n in 0..300 {
        claims[format!("claim{n:03}")] = format!("value {n}").into();
    }
    claims["n".repeat(64)] = "at 64".into();
    claims["n".repeat(65)] = "at 65".into();
    assert_eq!(
        client.present(&site.key.sign(&claims), false),
        SUCCESS,
        "more, and longer, than is remembered"
    );
    let setup = "CREATE TEMP TABLE paths AS
                     SELECT n, 'claim' || lpad((n % 300)::text, 3, '0') AS path
                     FROM generate_series(0, 1999) n;
                 INSERT INTO paths VALUES (2000, repeat('n', 64)), (2001, repeat('n', 65)),
                     (2002, 'none'), (2003, NULL), (2004, 'nothing'), (2005, 'long'),
                     (2006, 'sub'), (2007, repeat('z', 32768)), (2008, 'sub')";
    client.query(setup).unwrap();
    let wrong = "SELECT count(*) FROM (SELECT n, auth.claim(path) AS found FROM paths ORDER BY n) p
                 WHERE found IS DISTINCT FROM CASE WHEN n < 2000 THEN 'value ' || n % 300
                     WHEN n = 2000 THEN 'at 64' WHEN n = 2001 THEN 'at 65'
                     WHEN n = 2005 THEN repeat('y', 5000) WHEN n IN (2006, 2008) THEN 'alice' END";
    for _ in 0..3 {
        assert_eq!(client.answer(wrong, &[]), "0", "more, and longer, than is remembered");
    }
    // There was no room for these, so they are found anew for each row.
    for path in ["long", "claim299"] {
        let rows = format!(
            "SELECT count(DISTINCT md5(auth.claim('{path}'))), min(auth.claim('{path}') || n % 1)
                 = auth.session() ->> '{path}' || 0, count(nullif(repeat('x', n), 'x'))
             FROM generate_series(1, 3000) n"
        );
        assert_eq!(client.answer(&rows, &[]), "1 t 2999", "{path}");
    }
    // One and the same path, in each form in which a text can come.
    let same = "SELECT count(*) FROM (VALUES ('sub'), ('sub'), ('sub')) v (path)
                WHERE auth.claim(path) = 'alice' AND auth.claim('sub') = 'alice'
                    AND auth.claim('/sub') = 'alice' AND auth.claim($1) = 'alice'";
    assert_eq!(
        client.answer(same, &["sub"]),
        "3",
        "one and the same path, in each form in which a text can come"
    );
    // Longer than any name in a token.
    let longer = "SELECT auth.claim(repeat('/', 32769))";
    assert_eq!(
        client.answer(longer, &[]),
        Code::Configuration.sqlstate(),
        "longer than any name in a token"
    );
    let malformed = "SELECT auth.claim(path) FROM (VALUES ('/sub'), ('/su~'), ('/sub')) v (path)";
    assert_eq!(
        client.answer(malformed, &[]),
        Code::Configuration.sqlstate(),
        "longer than any name in a token"
    );
    // A place that lasts longer than a statement.
    client
        .query(
            "CREATE FUNCTION pg_temp.ask(path text) RETURNS text LANGUAGE plpgsql
                 AS $$ BEGIN RETURN auth.claim(path); END $$",
        )
        .unwrap();
    for sub in ["alice", "robin", "carol"] {
        assert_eq!(client.present(&site.token(sub), false), SUCCESS, "{sub:?}");
        for path in ["sub", "exp", "sub"] {
            let found = client.answer("SELECT pg_temp.ask($1) = auth.session() ->> $1", &[path]);
            assert_eq!(found, "t", "{sub}, {path}");
        }
        assert_eq!(client.answer("SELECT pg_temp.ask('sub')", &[]), sub, "{sub:?}");
    }
    let within = format!(
        "DO $$ BEGIN
             PERFORM auth.jwt_session_init('{}');
             IF pg_temp.ask('sub') <> 'robin' THEN RAISE 'wrong'; END IF;
             PERFORM auth.jwt_session_init(NULL);
             IF pg_temp.ask('sub') IS NOT NULL THEN RAISE 'wrong'; END IF;
         END $$",
        site.token("robin")
    );
    assert!(
        client.query(&within).unwrap().into_iter().all(|answer| answer.is_ok()),
        "a place that lasts longer than a statement"
    );
}

/// What was found at a place does not outlive the token's time.
#[test]
fn claims_expire() {
    let site = Site::start(Preload::Shared, &[]);
    let mut client = connect(&site.cluster);
    assert_eq!(
        client.present(&site.token_until("alice", now() + 2), false),
        SUCCESS,
        "client.present(site.token_until(alice, now + 2), false)"
    );
    let ask_later = "SELECT pg_temp.ask('sub')";
    let create = "CREATE FUNCTION pg_temp.ask(path text) RETURNS text LANGUAGE plpgsql
                      AS $$ BEGIN RETURN auth.claim(path); END $$";
    client.query(create).unwrap();
    client.query("BEGIN").unwrap();
    assert_eq!(
        client.answer(ask_later, &[]),
        "alice",
        "client.answer(ask_later, []) after site.token_until(alice, now + 2)"
    );
    sleep(Duration::from_millis(2_100));
    assert_eq!(
        client.answer(ask_later, &[]),
        Code::Expired.sqlstate(),
        "client.answer(ask_later, []) after site.token_until(alice, now + 2)"
    );
}

// request.jwt.claims

fn trusting() -> Cluster {
    Cluster::start(Preload::Shared, &[("pg_session_jwt.trust_request_claims", "on")])
}

const SET: &str =
    "SELECT set_config('request.jwt.claims', '{\"sub\": \"' || $1 || '\"}', $2::bool)";

/// They are read once for each value, not for each row, statement or call.
#[test]
fn request_claims_are_read_once() {
    let cluster = trusting();
    let mut client = connect(&cluster);
    assert_eq!(client.user(), "nobody", "the user");
    client.answer(SET, &["alice", "false"]);
    let rows = "SELECT count(*) FROM generate_series(1, 1000) n
                WHERE auth.user_id() || n = 'alice' || n AND auth.claim('sub') || n = 'alice' || n";
    for _ in 0..3 {
        assert_eq!(client.answer(rows, &[]), "1000", "client.answer(rows, [])");
    }
    assert_eq!(client.count_notices(READ), 1, "client.count_notices(READ)");
    client.answer(SET, &["alice", "false"]);
    assert_eq!(client.user(), "alice", "the user");
    assert_eq!(client.count_notices(READ), 0, "the same value");
    client.answer(SET, &["robin", "false"]);
    assert_eq!(client.user(), "robin", "the user");
    assert_eq!(client.count_notices(READ), 1, "client.count_notices(READ)");
}

/// Each way in which a setting changes is noticed at once, within a statement too.
#[test]
fn request_claims_change() {
    let cluster = trusting();
    let mut client = connect(&cluster);
    // The first value of all, in the middle of a statement.
    let first = "SELECT auth.user_id(), auth.claim('sub'),
                        length(set_config('request.jwt.claims', '{\"sub\":\"alice\"}', false)),
                        auth.user_id(), auth.claim('sub')";
    assert_eq!(
        client.answer(first, &[]),
        "nobody nobody 15 alice alice",
        "the first value of all, in the middle of a statement"
    );
    for (statement, expected) in [
        ("BEGIN", "alice"),
        ("SET LOCAL request.jwt.claims = '{\"sub\":\"robin\"}'", "robin"),
        ("SAVEPOINT a", "robin"),
        ("SET request.jwt.claims = '{\"sub\":\"carol\"}'", "carol"),
        ("ROLLBACK TO a", "robin"),
        ("COMMIT", "alice"),
        ("BEGIN; SET request.jwt.claims = '{\"sub\":\"carol\"}'", "carol"),
        ("ROLLBACK", "alice"),
        ("RESET request.jwt.claims", "nobody"),
        ("SET request.jwt.claims = '{\"sub\":\"carol\"}'", "carol"),
        ("RESET ALL", "nobody"),
        ("SET request.jwt.claims = '{\"sub\":\"carol\"}'", "carol"),
        ("SET Request.JWT.Claims = '{\"sub\":\"robin\"}'", "robin"),
        ("DISCARD ALL", "nobody"),
        // The same length, and perhaps the same memory.
        ("SET request.jwt.claims = '{\"sub\":\"alice\"}'", "alice"),
        ("SET request.jwt.claims = '{\"sub\":\"clara\"}'", "clara"),
    ] {
        for answer in client.query(statement).unwrap() {
            assert!(answer.is_ok(), "{statement}: {answer:?}");
        }
        assert_eq!(client.user(), expected, "{statement}");
        assert_eq!(client.answer("SELECT auth.claim('sub')", &[]), expected, "{statement}");
    }
    // Their leeway is a minute.
    let exp = now() - 58;
    let claims = format!("SET request.jwt.claims = '{{\"sub\":\"alice\",\"exp\":{exp}}}'");
    client.query(&claims).unwrap();
    assert_eq!(client.user(), "alice", "their leeway is a minute");
    sleep(Duration::from_millis(2_100));
    assert_eq!(client.user(), Code::Expired.sqlstate(), "their leeway is a minute");
}

/// A library that defines the setting replaces what Postgres had, and what it had counts no more: in
/// the same message, statement and transaction.
#[test]
fn request_claims_that_a_library_defines() {
    let cluster = trusting();
    let library = std::env::temp_dir().join(format!("defines.{}.so", std::process::id()));
    let include = Command::new(std::env::var("PG_CONFIG").unwrap_or("pg_config".to_owned()))
        .arg("--includedir-server")
        .output()
        .unwrap();
    let compiled = Command::new("gcc")
        .args(["-shared", "-fPIC", "-I", String::from_utf8_lossy(&include.stdout).trim(), "-o"])
        .arg(&library)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/identity/defines.c"))
        .status();
    assert!(compiled.unwrap().success(), "compiled.success");
    let load = format!(
        "CREATE FUNCTION assigned() RETURNS int LANGUAGE c AS '{}', 'assigned'",
        library.display()
    );
    cluster.admin().batch_execute(&load).unwrap();
    let mut client = connect(&cluster);
    client.answer(SET, &["alice", "false"]);
    assert_eq!(client.user(), "alice", "the user");
    client.query("BEGIN").unwrap();
    // The default, and the values that are taken over.
    let assigned = "SELECT assigned()";
    let before: u32 = client.answer(assigned, &[]).parse().unwrap();
    assert_eq!(client.user(), "alice", "the default, and the values that are taken over");
    for name in ["robin", "carol"] {
        client.answer(SET, &[name, "true"]);
        assert_eq!(client.user(), name, "{name:?}");
        let twice = "SELECT auth.user_id(), left(set_config('request.jwt.claims', '', true), 0),
                            auth.user_id()";
        assert_eq!(client.answer(twice, &[]), format!("{name}  nobody"), "{name:?}");
    }
    let after: u32 = client.answer(assigned, &[]).parse().unwrap();
    assert_eq!(after - before, 4, "the library's own hook is called");
    client.query("ROLLBACK").unwrap();
    assert_eq!(client.user(), "alice", "the default, and the values that are taken over");

    let set = |name: &str, is_local: bool| {
        format!("set_config('request.jwt.claims', '{{\"sub\":\"{name}\"}}', {is_local})")
    };
    let one_message = format!(
        "SELECT {}; SELECT auth.user_id(); SELECT assigned(); SELECT {};
         SELECT auth.user_id() || auth.claim('sub')",
        set("alice", false),
        set("robin", false)
    );
    let mut answers = connect(&cluster).query(&one_message).unwrap();
    assert_eq!(
        answers.pop().unwrap().unwrap()[0][0].as_deref(),
        Some("robinrobin"),
        "answers.pop[0][0]"
    );

    let one_statement = format!(
        "SELECT left({}, 0), auth.user_id(), assigned() * 0, left({}, 0), auth.user_id()",
        set("alice", false),
        set("robin", true)
    );
    assert_eq!(
        connect(&cluster).answer(&one_statement, &[]),
        " alice 0  robin",
        "connect(cluster).answer(one_statement, [])"
    );

    let procedure = format!(
        "DO $$
         DECLARE alice text; robin text;
         BEGIN
             PERFORM {};
             alice := auth.user_id();
             PERFORM assigned(), {};
             COMMIT;
             robin := auth.user_id();
             RESET request.jwt.claims;
             COMMIT;
             RAISE 'they were %, %, %', alice, robin, auth.user_id();
         END $$",
        set("alice", false),
        set("robin", false)
    );
    let raised = connect(&cluster).query(&procedure).unwrap().pop().unwrap().unwrap_err();
    assert_eq!(raised.get(b'M'), Some("they were alice, robin, <NULL>"), "raised.get(b'M')");
    std::fs::remove_file(library).unwrap();
}
