//! Scopes, roles, groups and the sign-in of the user: what policies ask about a token.

use std::thread::sleep;
use std::time::Duration;

use harness::{
    Cluster, Code, Fixture, Preload, SUCCESS, Shared, Wire, db_error, is_older_than, now,
    parallel_query_setting, quote, run,
};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::{Value, json};

/// A cluster with providers that name their claims of roles. `plain` serves tokens without an issuer.
pub struct Site {
    pub cluster: Cluster,
    key: Key,
}

impl Fixture for Site {
    fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

pub static SITES: Shared<Site> = Shared::new(|preload| {
    let key = Key::generate(Algorithm::ES256);
    let jwk = key.public_jwk();
    let providers = json!([
        {"name": "plain", "jwks": jwk, "leeway": 5},
        {"name": "listing", "issuer": "listing", "jwks": jwk, "role_claim": "/app/roles",
         "allowed_roles": ["reader", "writer"], "allowed_roles_claim": "x-roles"},
        {"name": "default", "issuer": "default", "jwks": jwk, "default_role": "reader"},
    ]);
    let providers = providers.to_string();
    let settings = [("pg_session_jwt.providers", providers.as_str()), ("jit", "off")];
    let cluster = Cluster::start(preload, &settings);
    run(
        &mut cluster.admin(),
        "CREATE ROLE reader; CREATE ROLE writer; GRANT reader, writer TO app;
         GRANT EXECUTE ON FUNCTION auth.inspect(text) TO app;
         CREATE ROLE trusting LOGIN; ALTER ROLE trusting SET pg_session_jwt.trust_request_claims = on",
    );
    Site { cluster, key }
});

impl Site {
    pub fn client(&self) -> Wire {
        Wire::connect(&self.cluster.as_role("app")).unwrap()
    }

    pub fn token(&self, claims: &Value) -> String {
        harness::sign(&self.key, claims.clone())
    }

    pub fn be(&self, client: &mut Wire, claims: &Value) {
        assert_eq!(client.present(&self.token(claims), false), SUCCESS, "{claims}");
    }
}

/// A call of each function, and claims under which it is true.
fn calls() -> [(&'static str, Value); 6] {
    [
        ("auth.has_scope('it')", json!({"scope": "it"})),
        ("auth.has_role('it')", json!({"role": "it"})),
        ("auth.in_group('it')", json!({"groups": ["it"]})),
        ("auth.has_acr('it')", json!({"acr": "it"})),
        ("auth.has_amr('it')", json!({"amr": ["it"]})),
        ("auth.signed_in_within('1 hour')", json!({"auth_time": now()})),
    ]
}

#[test]
fn claims_decide() {
    let site = SITES.beside_others(Preload::Shared);
    let mut client = site.client();
    for (claims, call, expected) in [
        (json!({"scope": "a todos:write"}), "has_scope('todos:write')", "t"),
        (json!({"scope": "a todos:write"}), "has_scope('todos')", "f"),
        (json!({"scope": "a todos:write"}), "has_scope('A')", "f"),
        (json!({"scope": "a todos:write"}), "has_scope('a todos:write')", "f"),
        (json!({"scope": "a todos:write"}), "has_scope('')", "f"),
        (json!({"scope": "a", "scp": ["b"], "permissions": ["c"]}), "has_scope('b')", "t"),
        (json!({"scope": "a", "scp": ["b"], "permissions": ["c"]}), "has_scope('c')", "t"),
        (json!({"scope": 7, "scp": ["b"]}), "has_scope('b')", "t"),
        (json!({"scope": 7}), "has_scope('7')", "f"),
        (json!({"scp": ["b", 7]}), "has_scope('b')", "f"),
        (json!({"scope": "\u{e9}\u{1f600}"}), "has_scope('\u{e9}\u{1f600}')", "t"),
        (json!({"role": "it"}), "has_role('it')", "t"),
        (json!({"role": "it is"}), "has_role('it')", "f"),
        (json!({"role": ["a", "it"]}), "has_role('it')", "t"),
        (json!({"role": "[\"a\",\"it\"]"}), "has_role('it')", "t"),
        (json!({"roles": ["it"]}), "has_role('it')", "f"),
        (json!({"groups": "Domain Users"}), "in_group('Domain Users')", "t"),
        (json!({"groups": "Domain Users"}), "in_group('Users')", "f"),
        (json!({"groups": ["a"], "cognito:groups": ["b"]}), "in_group('b')", "t"),
        (json!({"groups": {"a": "b"}}), "in_group('b')", "f"),
        (json!({"acr": "urn:gold"}), "has_acr('urn:gold')", "t"),
        (json!({"acr": ["urn:gold"]}), "has_acr('urn:gold')", "f"),
        (json!({"amr": ["pwd", "mfa"]}), "has_amr('mfa')", "t"),
        (json!({"amr": "mfa"}), "has_amr('mfa')", "t"),
        (json!({"amr": [{"method": "totp", "timestamp": 1}]}), "has_amr('totp')", "t"),
        (json!({"amr": [{"method": "totp", "timestamp": 1}]}), "has_amr('timestamp')", "f"),
        (json!({"amr": {"method": "totp"}}), "has_amr('totp')", "f"),
    ] {
        site.be(&mut client, &claims);
        let asked = format!("SELECT auth.{call}");
        assert_eq!(client.answer(&asked, &[]), expected, "{call} of {claims}");
    }
    // The roles of a provider that names their claims; those that a session may take do not limit them.
    let roles = "SELECT auth.role(), auth.has_role('writer'), auth.has_role('other'), auth.has_role('third'),
                 auth.has_role('fourth')";
    for (claims, expected) in [
        (
            json!({"app": {"roles": ["writer", "other"]}, "x-roles": ["writer", "third"]}),
            "writer t t t f",
        ),
        (json!({"app": "{\"roles\": [\"writer\"]}", "x-roles": "[\"writer\"]"}), "writer t f f f"),
        (json!({"x-roles": ["third"], "role": "fourth", "roles": ["fourth"]}), "nobody f f t f"),
    ] {
        let mut claims = claims;
        claims["iss"] = "listing".into();
        site.be(&mut client, &claims);
        assert_eq!(client.answer(roles, &[]), expected, "{claims}");
    }
    // The default role is in no claim.
    site.be(&mut client, &json!({"iss": "default"}));
    let default = "SELECT auth.role(), auth.has_role('reader')";
    assert_eq!(client.answer(default, &[]), "reader f", "default_role");
}

#[test]
fn what_is_missing_is_false() {
    let site = SITES.beside_others(Preload::Shared);
    let mut client = site.client();
    for (call, claims) in calls() {
        let name = call.split_once('(').unwrap().0;
        let null = if name.ends_with("within") { "NULL::interval" } else { "NULL::text" };
        // A NULL, also from a column, is false and not NULL, so that its negation is true.
        let nulls =
            format!("SELECT {name}({null}), NOT {name}(v), {name}(v) FROM (VALUES ({null})) n (v)");
        let asked = format!("SELECT {call}, NOT {call}");
        assert_eq!(client.present("", false), SUCCESS, "{call}");
        assert_eq!(client.answer(&asked, &[]), "f t", "{call} without an identity");
        assert_eq!(client.answer(&nulls, &[]), "f t f", "{name}(NULL) without an identity");
        site.be(&mut client, &json!({"sub": "alice"}));
        assert_eq!(client.answer(&asked, &[]), "f t", "{call} without the claim");
        site.be(&mut client, &claims);
        assert_eq!(client.answer(&asked, &[]), "t f", "{call} of {claims}");
        assert_eq!(client.answer(&nulls, &[]), "f t f", "{name}(NULL)");
        let claim = claims.as_object().unwrap().keys().next().unwrap().clone();
        for value in [
            json!(null),
            json!(7e300),
            json!(true),
            json!({"it": "it"}),
            json!([["it"]]),
            json!([7]),
        ] {
            let wrong = json!({claim.as_str(): value});
            site.be(&mut client, &wrong);
            assert_eq!(client.answer(&asked, &[]), "f t", "{call} of {wrong}");
        }
    }
}

#[test]
fn rejected_and_expired_tokens_are_errors() {
    for preload in [Preload::Shared, Preload::Neither] {
        let site = SITES.beside_others(preload);
        let mut expiring = site.client();
        let mut claims = json!({"exp": now() - 3});
        for (_, more) in calls() {
            claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        }
        site.be(&mut expiring, &claims);
        for (call, _) in calls() {
            // Each keeps its answer at its place in a plan.
            expiring.prepare(call, &format!("SELECT {call}"));
            expiring.execute(call, &[]);
            let answers = expiring.sync().unwrap();
            assert!(answers.iter().all(Result::is_ok), "{call}: {answers:?}");
        }
        sleep(Duration::from_millis(2_100));
        for (call, _) in calls() {
            expiring.execute(call, &[]);
            let answers = expiring.sync().unwrap();
            let code = answers[0].as_ref().unwrap_err().sqlstate();
            assert_eq!(code, Code::Expired.sqlstate(), "{call}, {preload:?}");
            assert_eq!(
                expiring.answer(&format!("SELECT {call}"), &[]),
                Code::Expired.sqlstate(),
                "{call}, {preload:?}"
            );
        }
        // A token of the startup packet that is rejected.
        let connection = site.cluster.as_role("app").option("pg_session_jwt.jwt", "a.b.c");
        let mut rejected = Wire::connect(&connection).unwrap();
        for (call, _) in calls() {
            assert_eq!(
                rejected.answer(&format!("SELECT {call}"), &[]),
                Code::Malformed.sqlstate(),
                "{call} of a rejected token, {preload:?}"
            );
        }
    }
}

#[test]
fn spans_of_sign_ins() {
    let site = SITES.beside_others(Preload::Shared);
    let mut client = site.client();
    let day = 86_400;
    for (auth_time, span, expected) in [
        (json!(now() - 100), "2 minutes", "t"),
        (json!(now() - 100), "90 seconds", "f"),
        (json!(now() - 100), "0", "f"),
        (json!(now() - 100), "-1 hour", "f"),
        (json!(now() - 100), "1 month -31 days", "f"),
        (json!(now() - 30 * day - 100), "1 month", "f"),
        (json!(now() - 30 * day + 100), "1 month", "t"),
        (json!(now() - 360 * day - 100), "1 year", "f"),
        (json!(now() - 360 * day + 100), "1 year", "t"),
        (json!(0), "178000000 years", "t"),
        (json!(-62_135_596_800i64), "178000000 years", "t"),
        (json!(now() as f64 - 100.5), "2 minutes", "t"),
        (json!(now() as f64 - 100.5), "90 seconds", "f"),
        // The leeway is five seconds.
        (json!(now() + 2), "1 hour", "t"),
        (json!(now() + 2), "-1 second", "f"),
        (json!(now() + 60), "1 hour", "f"),
        (json!(now() + 60), "178000000 years", "f"),
        (json!(now() * 1000), "178000000 years", "f"),
        (json!(now().to_string()), "1 hour", "f"),
        (json!([now()]), "1 hour", "f"),
        (json!({"time": now()}), "1 hour", "f"),
        (json!(true), "1 hour", "f"),
        (json!(null), "178000000 years", "f"),
        (json!(-62_135_596_801i64), "178000000 years", "f"),
    ] {
        let claims = json!({"auth_time": auth_time, "iat": now(), "updated_at": now()});
        site.be(&mut client, &claims);
        let asked = format!("SELECT auth.signed_in_within('{span}')");
        assert_eq!(client.answer(&asked, &[]), expected, "{span} of {claims}");
    }
    // `iat` says when the token was issued, which a refresh renews.
    site.be(&mut client, &json!({"iat": now()}));
    let asked = "SELECT auth.signed_in_within('178000000 years')";
    assert_eq!(client.answer(asked, &[]), "f", "iat");
    if !is_older_than(17, "infinite intervals") {
        let infinite =
            "SELECT auth.signed_in_within('infinity'), auth.signed_in_within('-infinity')";
        for (claims, expected) in [
            (json!({"auth_time": 0}), "t f"),
            (json!({"auth_time": now() + 60}), "f f"),
            (json!({}), "f f"),
        ] {
            site.be(&mut client, &claims);
            assert_eq!(client.answer(infinite, &[]), expected, "{claims}");
        }
    }
}

/// Nothing keeps the result, whatever lasts longer than a statement: plans, call sites, cursors.
#[test]
fn sign_ins_are_judged_at_every_statement() {
    for preload in Preload::ALL {
        let site = SITES.beside_others(preload);
        let mut client = site.client();
        let function = "CREATE FUNCTION pg_temp.is_fresh() RETURNS boolean LANGUAGE plpgsql STABLE
                        AS $$ BEGIN RETURN auth.signed_in_within('3 seconds'); END $$";
        assert_eq!(client.run(function), SUCCESS, "{preload:?}");
        let signed_in = now();
        site.be(&mut client, &json!({"auth_time": signed_in}));
        client.prepare("fresh", "SELECT auth.signed_in_within('3 seconds'), pg_temp.is_fresh()");
        client.sync().unwrap();
        let ask = |client: &mut Wire| {
            client.execute("fresh", &[]);
            let answers = client.sync().unwrap();
            harness::values(answers.last().unwrap()).join(" ")
        };
        for _ in 0..7 {
            assert_eq!(ask(&mut client), "t t", "{preload:?}");
        }
        let begin = "BEGIN; DECLARE c CURSOR FOR SELECT auth.signed_in_within('3 seconds'), pg_temp.is_fresh()
                     FROM generate_series(1, 3) n";
        assert_eq!(client.run(begin), SUCCESS, "{preload:?}");
        assert_eq!(client.answer("FETCH c", &[]), "t t", "{preload:?}");
        // A statement has one time, its start.
        let long = "SELECT bool_and(auth.signed_in_within('3 seconds') AND pg_temp.is_fresh()),
                    count(pg_sleep(1.1)) FROM generate_series(1, 4) n";
        assert_eq!(client.answer(long, &[]), "t 4", "{preload:?}");
        assert!(now() >= signed_in + 4, "{preload:?}");
        assert_eq!(client.answer("FETCH c", &[]), "f f", "{preload:?}");
        assert_eq!(ask(&mut client), "f f", "{preload:?}");
        assert_eq!(client.run("COMMIT"), SUCCESS, "{preload:?}");
        assert_eq!(ask(&mut client), "f f", "{preload:?}");
        // The same token again, from the cache.
        site.be(&mut client, &json!({"auth_time": signed_in}));
        assert_eq!(ask(&mut client), "f f", "{preload:?}");
        site.be(&mut client, &json!({"auth_time": now()}));
        assert_eq!(ask(&mut client), "t t", "{preload:?}");
    }
}

/// A call site asks for one identity and word after the other.
#[test]
fn kept_answers_follow_identities_and_words() {
    let site = SITES.beside_others(Preload::Shared);
    let mut client = site.client();
    assert_eq!(client.run("SET plan_cache_mode = force_generic_plan"), SUCCESS, "the plan cache");
    let (at_64, at_65) = ("w".repeat(64), "w".repeat(65));
    let mine = json!({"scope": format!("a b {at_64}"), "groups": ["g"], "role": "a", "acr": "a", "amr": ["a"],
                      "sub": "alice"});
    let others =
        json!({"scope": format!("c {at_65}"), "groups": "h", "role": "c", "acr": "c", "amr": "c"});
    let kept = [
        "SELECT auth.has_scope('a'), auth.in_group('g'), auth.has_role('a'), auth.has_acr('a'), auth.has_amr('a')",
        "SELECT string_agg(left(pg_temp.ask(word)::text, 1), '' ORDER BY n)
         FROM (VALUES (1, 'a'), (2, 'b'), (3, 'a'), (4, NULL), (5, 'c'), (6, $1), (7, 'a')) w (n, word)",
        "SELECT string_agg(left(auth.has_scope(word)::text, 1), '' ORDER BY n)
         FROM (VALUES (1, 'a'), (2, 'b'), (3, 'a'), (4, NULL), (5, 'c'), (6, repeat('w', 64)),
               (7, repeat('w', 65)), (8, repeat('w', 64)), (9, 'a'), (10, ''), (11, 'a ')) w (n, word)",
    ];
    let function = "CREATE FUNCTION pg_temp.ask(word text) RETURNS boolean LANGUAGE plpgsql STABLE
                    AS $$ BEGIN RETURN auth.has_scope(word); END $$";
    assert_eq!(client.run(function), SUCCESS, "{function}");
    for (place, query) in kept.iter().enumerate() {
        client.prepare(&place.to_string(), query);
        client.sync().unwrap();
    }
    let ask = |client: &mut Wire| {
        let answers = [&[][..], &["b"], &[]].into_iter().enumerate().map(|(place, parameters)| {
            client.execute(&place.to_string(), parameters);
            let answers = client.sync().unwrap();
            harness::values(answers.last().unwrap()).join("")
        });
        answers.collect::<Vec<_>>().join(" ")
    };
    let of_mine = "ttttt tttfftt tttfftfttff";
    let of_others = "fffff fffftff fffftftffff";
    let of_none = "fffff fffffff fffffffffff";
    for _ in 0..3 {
        site.be(&mut client, &mine);
        assert_eq!(ask(&mut client), of_mine, "mine");
        site.be(&mut client, &others);
        assert_eq!(ask(&mut client), of_others, "the other's");
        assert_eq!(client.present("", false), SUCCESS, "no token");
        assert_eq!(ask(&mut client), of_none, "without a token");
        assert_eq!(client.present("rubbish", false), Code::Malformed.sqlstate(), "rejected");
        assert_eq!(ask(&mut client), of_none, "after a rejected token");
    }
    // In a transaction, with savepoints.
    site.be(&mut client, &mine);
    assert_eq!(client.run("BEGIN; SAVEPOINT s"), SUCCESS, "SAVEPOINT s");
    assert_eq!(client.present(&site.token(&others), true), SUCCESS, "the other's, locally");
    assert_eq!(ask(&mut client), of_others, "in the savepoint");
    assert_eq!(client.run("ROLLBACK TO s"), SUCCESS, "ROLLBACK TO s");
    assert_eq!(ask(&mut client), of_mine, "after the rollback to the savepoint");
    assert_eq!(client.present(&site.token(&others), true), SUCCESS, "the other's, locally");
    assert_eq!(ask(&mut client), of_others, "before the end");
    assert_eq!(client.run("COMMIT"), SUCCESS, "COMMIT");
    assert_eq!(ask(&mut client), of_mine, "after the transaction");
    // Within one statement.
    let within = format!(
        "DO $$ BEGIN
             IF NOT pg_temp.ask('a') THEN RAISE 'mine'; END IF;
             PERFORM auth.jwt_session_init({});
             IF pg_temp.ask('a') OR NOT pg_temp.ask('c') THEN RAISE 'the other''s'; END IF;
             PERFORM auth.jwt_session_init(NULL);
             IF pg_temp.ask('a') OR pg_temp.ask('c') THEN RAISE 'none'; END IF;
         END $$",
        quote(&site.token(&others))
    );
    assert_eq!(client.run(&within), SUCCESS, "within a statement");
}

#[test]
fn large_claims_and_hostile_words() {
    let site = SITES.beside_others(Preload::Shared);
    let mut client = site.client();
    let groups: Vec<String> = (0..1_200).map(|n| format!("g{n}")).collect();
    let fill = "SELECT count(auth.claim('/groups/' || n)) FROM generate_series(0, 1300) n";
    let count = "SELECT count(*) FILTER (WHERE auth.in_group('g' || n)),
                 count(*) FILTER (WHERE auth.has_scope('g' || n)), count(*)
                 FROM generate_series(-500, 2000) n";
    // Where auth.claim has found many claims before, the identity has no room for the words.
    for (order, queries) in [[count, fill], [fill, count]].into_iter().enumerate() {
        let claims = json!({"groups": groups, "permissions": groups[..200], "order": order});
        assert_eq!(client.present(&site.token(&claims), false), SUCCESS, "{order}");
        for query in queries {
            let expected = if query == count { "1200 200 2501" } else { "1200" };
            assert_eq!(client.answer(query, &[]), expected, "{query}, {order}");
        }
    }
    for word in [
        "'g1'::text || chr(1)",
        "'%'",
        "'g_'",
        "' g1'",
        "'g1 '",
        "'G1'",
        "'[\"g1\"]'",
        "'g1,g2'",
        "repeat('g1', 100000)",
        "repeat('g', 10000000)",
        "(SELECT string_agg('g' || n, ' ') FROM generate_series(0, 1199) n)",
    ] {
        for name in ["has_scope", "has_role", "in_group", "has_acr", "has_amr"] {
            let asked = format!("SELECT auth.{name}({word}), auth.{name}({word}) IS NULL");
            assert_eq!(client.answer(&asked, &[]), "f f", "{name}({word})");
        }
    }
    // A word in each form that a text has in a table: short, long, compressed, out of line.
    let words = ["x".to_owned(), "y".repeat(200), "z".repeat(4_000), "0123456789".repeat(300)];
    site.be(&mut client, &json!({"groups": words}));
    assert_eq!(
        client.run(
            "CREATE TEMP TABLE stored (word text);
             INSERT INTO stored SELECT auth.claim('/groups/' || n) FROM generate_series(0, 3) n;
             INSERT INTO stored SELECT word || 'x' FROM stored"
        ),
        SUCCESS,
        "words in a table"
    );
    let stored = "SELECT count(*) FILTER (WHERE auth.in_group(word)), count(*) FROM stored";
    assert_eq!(client.answer(stored, &[]), "4 8", "words in a table");
}

/// A client's queries with parallel plans, in which workers evaluate the policies.
fn parallel(client: &mut Client) {
    run(
        client,
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
         SET parallel_leader_participation = off; SET max_parallel_workers_per_gather = 2",
    );
}

#[test]
fn policies_ask_in_workers_too() {
    let site = SITES.alone(Preload::Shared);
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE TABLE rows_of (n int, word text, span interval);
         INSERT INTO rows_of SELECT n, CASE n % 3 WHEN 0 THEN 'it' WHEN 1 THEN 'other' END,
             CASE n % 3 WHEN 0 THEN interval '1 hour' WHEN 1 THEN interval '0' END FROM generate_series(1, 3000) n;
         ALTER TABLE rows_of SET (parallel_workers = 2); ALTER TABLE rows_of ENABLE ROW LEVEL SECURITY;
         GRANT SELECT ON rows_of TO app; ANALYZE rows_of",
    );
    let mut client = site.cluster.as_role("app").client();
    parallel(&mut client);
    for (call, mut claims) in calls() {
        let (name, argument) = call.split_once('(').unwrap();
        if name == "auth.signed_in_within" {
            claims["auth_time"] = json!(now() - 60);
        }
        let column = if argument.contains("hour") { "span" } else { "word" };
        for (condition, some) in [(call.to_owned(), 3000), (format!("{name}({column})"), 1000)] {
            run(
                &mut admin,
                &format!(
                    "DROP POLICY IF EXISTS p ON rows_of; CREATE POLICY p ON rows_of USING ({condition})"
                ),
            );
            // Not a gate above the scan, but a part of its filter.
            let count = "SELECT count(*) FROM rows_of WHERE n > 0";
            let none = json!({"sub": "alice"});
            let setting = parallel_query_setting();
            for mode in ["off", "on"] {
                run(&mut client, &format!("SET {setting} = {mode}"));
                for (claims, expected) in [(&claims, some), (&none, 0)] {
                    assert_eq!(
                        harness::present(&mut client, &site.token(claims)),
                        SUCCESS,
                        "{claims}"
                    );
                    let found: i64 = client.query_one(count, &[]).unwrap().get(0);
                    assert_eq!(found, expected, "{condition}, {setting} = {mode}, {claims}");
                }
            }
            let plan =
                client.simple_query(&format!("EXPLAIN (ANALYZE, COSTS OFF) {count}")).unwrap();
            assert!(format!("{plan:?}").contains("Workers Launched: "), "{condition}: {plan:?}");
        }
    }
    // The planner leaves the calls to the executor.
    let plan = client
        .simple_query("EXPLAIN SELECT auth.has_scope('it'), auth.signed_in_within('1 h')")
        .unwrap();
    let verbose = client
        .simple_query("EXPLAIN (VERBOSE) SELECT auth.has_scope('it'), auth.signed_in_within('1 h')")
        .unwrap();
    assert!(format!("{verbose:?}").contains("auth.signed_in_within("), "{plan:?} {verbose:?}");
    run(&mut admin, "DROP TABLE rows_of");
}

#[test]
fn trusted_request_claims_grant() {
    let site = SITES.beside_others(Preload::Shared);
    let mut trusting = Wire::connect(&site.cluster.as_role("trusting")).unwrap();
    let mut app = site.client();
    for (call, claims) in calls() {
        let set = format!("SET request.jwt.claims = {}", quote(&claims.to_string()));
        let asked = format!("SELECT {call}");
        assert_eq!(trusting.run(&set), SUCCESS, "{set}");
        assert_eq!(trusting.answer(&asked, &[]), "t", "{call} of {claims}");
        assert_eq!(trusting.run("SET request.jwt.claims = '{\"sub\": \"bob\"}'"), SUCCESS, "bob");
        assert_eq!(trusting.answer(&asked, &[]), "f", "{call} of other claims");
        assert_eq!(trusting.run("SET request.jwt.claims = ''"), SUCCESS, "no claims");
        assert_eq!(trusting.answer(&asked, &[]), "f", "{call} without claims");
        assert_eq!(app.run(&set), SUCCESS, "{set}");
        assert_eq!(app.answer(&asked, &[]), "f", "{call} of claims that are not trusted");
    }
}

#[test]
fn trials_have_the_grants_of_their_claims() {
    let site = SITES.alone(Preload::Shared);
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE TABLE tried (n int); INSERT INTO tried VALUES (1), (2); ALTER TABLE tried ENABLE ROW LEVEL SECURITY;
         GRANT SELECT ON tried TO app",
    );
    let mut explained = |condition: &str, claims: &Value| -> String {
        run(
            &mut admin,
            &format!(
                "DROP POLICY IF EXISTS p ON tried; CREATE POLICY p ON tried USING ({condition})"
            ),
        );
        let query = "SELECT outcome FROM auth.explain_access('tried', claims => $1::text::jsonb, role => 'app')
                     WHERE command = 'SELECT' AND item = 'answer'";
        admin.query_one(query, &[&claims.to_string()]).unwrap().get(0)
    };
    for (call, claims) in calls() {
        assert_eq!(explained(call, &claims), "all", "{call} of {claims}");
        assert_eq!(explained(call, &json!({"sub": "alice"})), "none", "{call} without the claim");
    }
    // The provider names the claims with roles in a trial, too.
    let listing = json!({"iss": "listing", "app": {"roles": ["a"]}, "x-roles": ["b"], "role": "c"});
    for (role, expected) in [("a", "all"), ("b", "all"), ("c", "none")] {
        assert_eq!(explained(&format!("auth.has_role('{role}')"), &listing), expected, "{role}");
    }
    run(&mut admin, "DROP TABLE tried");
}

#[test]
fn inspections_hint_at_claims_that_grant_nothing() {
    let site = SITES.beside_others(Preload::Shared);
    let mut client = site.client();
    let mut hint = |claims: Value| {
        let query = "SELECT \"check\", outcome, hint FROM auth.inspect($1) WHERE hint IS NOT NULL AND \"check\" <> 'subject'";
        client.answer(query, &[&site.token(&claims)])
    };
    assert_eq!(hint(json!({"scope": "a", "groups": [], "auth_time": now()})), "", "nothing to say");
    for (claims, said) in [
        (
            json!({"scope": 1}),
            "required claims passed auth.has_scope() ignores the claim \"scope\", which is a number",
        ),
        (
            json!({"groups": [1]}),
            "required claims passed auth.in_group() ignores the claim \"groups\"",
        ),
        (json!({"acr": 1}), "required claims passed auth.has_acr() ignores the claim \"acr\""),
        (json!({"amr": {}}), "required claims passed auth.has_amr() ignores the claim \"amr\""),
        (json!({"role": 1}), "role passed auth.has_role() ignores the claim \"role\""),
        (json!({"auth_time": now() * 1000}), "time passed auth.signed_in_within() is false."),
        (json!({"auth_time": "x"}), "time passed auth.signed_in_within() is false."),
    ] {
        let hinted = hint(claims.clone());
        assert!(hinted.starts_with(said), "{claims}: {hinted}");
        let mut client = site.client();
        site.be(&mut client, &claims);
    }
    let time = "SELECT found FROM auth.inspect($1) WHERE \"check\" = 'time'";
    let found = client.answer(time, &[&site.token(&json!({"auth_time": now() - 60}))]);
    assert!(found.contains("auth_time"), "{found}");
}

#[test]
fn words_are_in_the_encoding_of_the_database() {
    let site = SITES.alone(Preload::Shared);
    let mut admin = site.cluster.admin();
    run(&mut admin, "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    let latin = || site.cluster.as_role("app").database("latin");
    run(&mut latin().user("postgres").client(), "CREATE EXTENSION pg_session_jwt");
    let mut client = latin().client();
    let claims =
        json!({"scope": "ren\u{e9} \u{20ac}", "groups": ["n\u{c3}\u{a9}"], "exp": now() + 60});
    // Latin-1 has no euro sign, so the claims do not fit.
    assert_eq!(
        harness::present(&mut client, &site.token(&claims)),
        Code::Claim.sqlstate(),
        "a euro sign"
    );
    let claims = json!({"scope": "ren\u{e9}", "groups": ["n\u{c3}\u{a9}"]});
    assert_eq!(harness::present(&mut client, &site.token(&claims)), SUCCESS, "{claims}");
    for (call, expected) in [
        ("auth.has_scope('ren\u{e9}')", true),
        ("auth.has_scope('ren\u{c3}\u{a9}')", false),
        ("auth.in_group('n\u{c3}\u{a9}')", true),
        ("auth.in_group('n\u{e9}')", false),
    ] {
        let found: bool = client.query_one(&format!("SELECT {call}"), &[]).unwrap().get(0);
        assert_eq!(found, expected, "{call}");
    }
    // A demand names the scope in ASCII.
    let error = db_error(client.execute("SELECT auth.require_scope('\u{e9}')", &[]));
    assert_eq!(
        error.detail(),
        Some("{\"error\":\"insufficient_scope\",\"scope\":\"\\u00e9\"}"),
        "the detail"
    );
    drop(client);
    run(&mut admin, "DROP DATABASE latin WITH (FORCE)");
}
