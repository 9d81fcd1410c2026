//! Signatures that one backend has verified, and others do not verify again: which count, and that nothing but the
//! signature is taken as known.

use std::thread::{scope, sleep};
use std::time::Duration;

use fastrand::Rng;
use harness::{
    CANT_CHANGE_RUNTIME_PARAM, CRASH_SHUTDOWN, Cluster, Code, Preload, SUCCESS, Site, Wire,
    backend_pid, now, present, quote, run, send_signal, sqlstate, text, token, token_of, wait_for,
};
use mint::{Algorithm, Key};
use serde_json::json;

/// What a backend says, at DEBUG1, when it has verified a signature, and the claims hold.
const VERIFIED: &str = "token signature verified";

/// Presents a token in a new backend. Returns the SQLSTATE, and whether the backend has verified the signature.
fn present_anew(cluster: &Cluster, database: &str, token: &str) -> (String, bool) {
    let mut client = Wire::connect(&cluster.as_role("app").database(database)).unwrap();
    client.query("SET client_min_messages = debug1").unwrap();
    client.notices();
    let outcome = client.present(token, false);
    let count = client.count_notices(VERIFIED);
    assert!(count < 2, "{count} verifications");
    (outcome, count == 1)
}

const FRESH: bool = true;
const KNOWN: bool = false;

/// Asserts the outcome in a new backend of the database `postgres`, and whether the signature was verified there.
#[track_caller]
fn expect(cluster: &Cluster, token: &str, outcome: &str, is_fresh: bool, context: &str) {
    expect_in(cluster, "postgres", token, outcome, is_fresh, context);
}

#[track_caller]
fn expect_in(
    cluster: &Cluster,
    database: &str,
    token: &str,
    outcome: &str,
    is_fresh: bool,
    context: &str,
) {
    assert_eq!(present_anew(cluster, database, token), (outcome.to_owned(), is_fresh), "{context}");
}

#[test]
fn a_signature_is_verified_once_for_all_backends() {
    let site = Site::start(Preload::Shared, &[]);
    let tokens: Vec<String> = (0..100).map(|n| site.token(&format!("user{n}"))).collect();
    for (is_fresh, context) in [(FRESH, "first"), (KNOWN, "second"), (KNOWN, "third")] {
        let mut client = Wire::connect(&site.app()).unwrap();
        client.query("SET client_min_messages = debug1").unwrap();
        for (n, token) in tokens.iter().enumerate() {
            assert_eq!(client.present(token, false), SUCCESS, "{context}, {n}");
            assert_eq!(client.user(), format!("user{n}"), "{context}, {n}");
        }
        let expected = if is_fresh { tokens.len() } else { 0 };
        assert_eq!(client.count_notices(VERIFIED), expected, "{context}");
    }
    let counts =
        "SELECT verified || ' ' || shared_cache_hits FROM auth.stats() WHERE database = 'postgres'";
    assert_eq!(text(&mut site.cluster.admin(), counts).as_deref(), Some("100 200"));
    site.cluster.restart();
    expect(&site.cluster, &tokens[0], SUCCESS, FRESH, "after a restart");
}

/// A token in the startup packet and one that a parallel worker verifies find the signature, too.
#[test]
fn every_way_to_an_identity_finds_known_signatures() {
    let site = Site::start(Preload::Shared, &[]);
    let alice = site.token("alice");
    assert_eq!(present(&mut site.client(), &alice), SUCCESS);
    let counts =
        "SELECT verified || ' ' || shared_cache_hits FROM auth.stats() WHERE database = 'postgres'";
    let mut admin = site.cluster.admin();
    assert_eq!(text(&mut admin, counts).as_deref(), Some("1 0"), "by a statement");

    let mut started = site.app().option("pg_session_jwt.jwt", &alice).client();
    assert_eq!(harness::user(&mut started).as_deref(), Some("alice"));
    assert_eq!(text(&mut admin, counts).as_deref(), Some("1 1"), "in the startup packet");

    run(
        &mut admin,
        "CREATE TABLE numbers AS SELECT 1 AS n FROM generate_series(1, 10000);
         GRANT SELECT ON numbers TO app; ANALYZE numbers",
    );
    run(
        &mut started,
        "SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
         SET parallel_leader_participation = off; SET max_parallel_workers_per_gather = 2",
    );
    let query =
        "SELECT count(*)::text FROM numbers WHERE auth.user_id() = 'alice' || repeat('', n)";
    assert_eq!(text(&mut started, query).as_deref(), Some("10000"));
    // One worker may read all rows before the other begins.
    let found = text(&mut admin, counts);
    assert!(matches!(found.as_deref(), Some("1 2" | "1 3")), "in parallel workers: {found:?}");
}

/// The claims are judged at each presentation, in each backend.
#[test]
fn nothing_but_the_signature_is_known() {
    let key = Key::generate(Algorithm::ES256);
    let setting = "pg_session_jwt.providers";
    let provider = |more: serde_json::Value| {
        let mut provider = json!({"name": "p", "issuer": "https://p", "jwks": key.public_jwk(),
                                  "leeway": 0, "role_claim": "role", "allowed_roles": ["reader"]});
        for (name, value) in more.as_object().unwrap() {
            provider[name] = value.clone();
        }
        provider.to_string()
    };
    let first = provider(json!({"audience": "here"}));
    let cluster = Cluster::start(Preload::Shared, &[(setting, &first)]);
    let mut admin = cluster.admin();
    run(&mut admin, "CREATE ROLE reader; GRANT reader TO app");
    let sign = |more: serde_json::Value| {
        let mut claims = json!({"iss": "https://p", "sub": "ann", "aud": "here", "role": "reader",
                                "exp": now() + 600});
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        key.sign(&claims)
    };

    // Times
    let short = sign(json!({"exp": now() + 3}));
    expect(&cluster, &short, SUCCESS, FRESH, "a short token");
    expect(&cluster, &short, SUCCESS, KNOWN, "a short token again");
    sleep(Duration::from_millis(3_100));
    expect(&cluster, &short, Code::Expired.sqlstate(), KNOWN, "a short token, expired");

    // The role, which the session may not take any more.
    let long = sign(json!({}));
    expect(&cluster, &long, SUCCESS, FRESH, "a long token");
    run(&mut admin, "REVOKE reader FROM app");
    expect(&cluster, &long, Code::Claim.sqlstate(), KNOWN, "a role that was revoked");
    run(&mut admin, "GRANT reader TO app");
    expect(&cluster, &long, SUCCESS, KNOWN, "a role that was granted again");

    // Whatever the provider requires now. No signature is known for another document.
    let configure = |document: &str| {
        cluster.append_configuration(&[(setting, document)]);
        cluster.reload();
    };
    for (name, changed, code) in [
        ("audience", json!({"audience": "there"}), Code::Audience.sqlstate()),
        ("issuer", json!({"issuer": "https://q"}), Code::NoKey.sqlstate()),
        ("allowed_roles", json!({"allowed_roles": ["writer"]}), Code::Claim.sqlstate()),
        ("required_claims", json!({"required_claims": ["email"]}), Code::Claim.sqlstate()),
        ("require", json!({"require": {"sub": ["bob"]}}), Code::Claim.sqlstate()),
        ("typ", json!({"typ": "at+jwt"}), Code::Malformed.sqlstate()),
    ] {
        configure(&provider(changed));
        let (outcome, _) = present_anew(&cluster, "postgres", &long);
        assert_eq!(outcome, code, "{name}");
    }
    configure(&first);
    expect(&cluster, &long, SUCCESS, KNOWN, "the first document again");
}

/// A signature is known for the keys that verified it, and for no others.
#[test]
fn keys_that_are_rotated_back_and_forth_verify_their_own_tokens() {
    let keys = [(); 2].map(|()| Key::generate(Algorithm::ES256).with_kid("k"));
    let tokens = keys.each_ref().map(|key| token(key, "alice"));
    let documents = keys.each_ref().map(|key| key.public_jwk().to_string());
    let setting = "pg_session_jwt.jwk";
    let cluster = Cluster::start(Preload::Shared, &[(setting, &documents[0])]);
    for (round, is_fresh) in [FRESH, FRESH, KNOWN, KNOWN].into_iter().enumerate() {
        let own = round % 2;
        if round > 0 {
            cluster.append_configuration(&[(setting, &documents[own])]);
            cluster.reload();
        }
        let other = &tokens[1 - own];
        let context = format!("round {round}");
        expect(&cluster, other, Code::Signature.sqlstate(), KNOWN, &context);
        expect(&cluster, &tokens[own], SUCCESS, is_fresh, &context);
        expect(&cluster, &tokens[own], SUCCESS, KNOWN, &context);
        expect(&cluster, other, Code::Signature.sqlstate(), KNOWN, &context);
    }
}

/// Providers of the same name and issuer in two databases, and two providers with one key in one database.
#[test]
fn providers_and_databases_share_no_signatures() {
    let keys = [(); 2].map(|()| Key::generate(Algorithm::ES256).with_kid("k"));
    let cluster = Cluster::start(Preload::Shared, &[]);
    let databases = ["one", "two", "three"];
    for (database, key) in databases.into_iter().zip([&keys[0], &keys[1], &keys[0]]) {
        run(&mut cluster.admin(), &format!("CREATE DATABASE {database}"));
        let mut client = cluster.as_role("postgres").database(database).client();
        run(&mut client, "CREATE EXTENSION pg_session_jwt");
        let jwk = quote(&key.public_jwk().to_string());
        for issuer in ["https://a", "https://b"] {
            let add = format!("SELECT auth.add_provider('{issuer}', '{issuer}', jwks => {jwk})");
            run(&mut client, &add);
        }
    }
    let [first, second] = keys.each_ref().map(|key| token_of(key, "https://a", "alice"));
    let refused = Code::Signature.sqlstate();
    expect_in(&cluster, "one", &first, SUCCESS, FRESH, "the first key");
    expect_in(&cluster, "one", &second, refused, KNOWN, "the second key");
    expect_in(
        &cluster,
        "two",
        &first,
        refused,
        KNOWN,
        "the first key, in the database with the second",
    );
    expect_in(&cluster, "two", &second, SUCCESS, FRESH, "the second key");
    expect_in(&cluster, "one", &second, refused, KNOWN, "the second key, verified elsewhere");
    expect_in(&cluster, "two", &first, refused, KNOWN, "the first key, verified elsewhere");
    expect_in(
        &cluster,
        "three",
        &first,
        SUCCESS,
        FRESH,
        "the first key, in another database with it",
    );
    expect_in(&cluster, "three", &first, SUCCESS, KNOWN, "the same again");

    // Two providers with one key: a token is for one of them.
    let other = token_of(&keys[0], "https://b", "alice");
    expect_in(&cluster, "one", &other, SUCCESS, FRESH, "the other provider");
    let mut client = cluster.as_role("postgres").database("one").client();
    run(&mut client, "UPDATE auth.providers SET audience = '{x}' WHERE issuer = 'https://b'");
    let (outcome, _) = present_anew(&cluster, "one", &other);
    assert_eq!(outcome, Code::Audience.sqlstate(), "the other provider, changed");
    expect_in(&cluster, "one", &first, SUCCESS, KNOWN, "the first provider, unchanged");
    run(&mut client, "DELETE FROM auth.providers WHERE issuer = 'https://a'");
    expect_in(&cluster, "one", &first, Code::NoKey.sqlstate(), KNOWN, "without its provider");
}

/// A token that was rejected, for whatever reason, leaves nothing behind.
#[test]
fn rejected_tokens_are_not_remembered() {
    let site = Site::start(Preload::Shared, &[]);
    let cluster = &site.cluster;
    let mut admin = cluster.admin();
    let sign = |claims: serde_json::Value| site.key.sign(&claims);

    let early = sign(json!({"sub": "alice", "nbf": now() + 3, "exp": now() + 600}));
    expect(cluster, &early, Code::NotYetValid.sqlstate(), FRESH, "before its nbf");
    sleep(Duration::from_millis(3_100));
    expect(cluster, &early, SUCCESS, FRESH, "the first time from its nbf on");
    expect(cluster, &early, SUCCESS, KNOWN, "the second time");

    let mut client = cluster.as_role("postgres").client();
    run(
        &mut client,
        &format!(
            "SELECT auth.add_provider('roles', 'https://r', jwks => {}, role_claim => 'role', \
                                      allowed_roles => '{{later}}')",
            quote(&site.key.public_jwk().to_string())
        ),
    );
    let later =
        sign(json!({"iss": "https://r", "sub": "alice", "role": "later", "exp": now() + 600}));
    expect(cluster, &later, Code::Claim.sqlstate(), FRESH, "a role that does not exist");
    run(&mut admin, "CREATE ROLE later");
    expect(cluster, &later, Code::Claim.sqlstate(), FRESH, "a role that is not granted");
    run(&mut admin, "GRANT later TO app");
    expect(cluster, &later, SUCCESS, FRESH, "a role that is granted");
    expect(cluster, &later, SUCCESS, KNOWN, "the second time");

    // A jti counts in one session.
    let mut session = Wire::connect(&site.app()).unwrap();
    let (lower, higher) = (site.counted(1), site.counted(2));
    assert_eq!(session.present(&higher, false), SUCCESS, "the higher jti");
    assert_eq!(session.present(&lower, false), Code::Replayed.sqlstate(), "the lower jti");
    expect(cluster, &lower, SUCCESS, FRESH, "the lower jti in another session");
    expect(cluster, &higher, SUCCESS, KNOWN, "the higher jti in another session");

    // The signature is wrong by one bit, at every place.
    let known = site.token("alice");
    expect(cluster, &known, SUCCESS, FRESH, "the token that is changed");
    let mut client = Wire::connect(&site.app()).unwrap();
    for place in 0..known.len() {
        let mut bytes = known.clone().into_bytes();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert_ne!(client.present(&changed, false), SUCCESS, "changed at {place}");
    }
    expect(cluster, &known, SUCCESS, KNOWN, "the token that was changed");

    // auth.jwt_verify() and auth.inspect() present nothing.
    let unpresented = site.token("bob");
    let mut client = cluster.as_role("app").client();
    client.query_one("SELECT auth.jwt_verify($1)::text", &[&unpresented]).unwrap();
    admin.query("SELECT * FROM auth.inspect($1)", &[&unpresented]).unwrap();
    expect(cluster, &unpresented, SUCCESS, FRESH, "a token that was not presented");
}

/// Without the memory, each backend verifies signatures itself.
#[test]
fn each_backend_verifies_where_nothing_is_shared() {
    let without = Site::start(Preload::Shared, &[("pg_session_jwt.shared_cache_size", "0")]);
    let session = Site::start(Preload::Session, &[]);
    for (site, context) in [(&without, "size 0"), (&session, "no shared memory")] {
        let alice = site.token("alice");
        for round in 0..3 {
            expect(&site.cluster, &alice, SUCCESS, FRESH, &format!("{context}, round {round}"));
        }
    }
}

#[test]
fn the_size_is_fixed_when_the_server_starts() {
    const NAME: &str = "pg_session_jwt.shared_cache_size";
    let site = Site::start(Preload::Shared, &[(NAME, "1")]);
    let mut admin = site.cluster.admin();
    let context = format!("SELECT context FROM pg_settings WHERE name = '{NAME}'");
    assert_eq!(text(&mut admin, &context).as_deref(), Some("postmaster"));
    let set = format!("SET {NAME} = 2");
    assert_eq!(sqlstate(admin.batch_execute(&set)), CANT_CHANGE_RUNTIME_PARAM);
    let invalid = Code::Configuration.sqlstate();
    for (value, outcome) in [("-1", invalid), ("10000001", invalid), ("10000000", SUCCESS)] {
        let alter = format!("ALTER SYSTEM SET {NAME} = {value}");
        assert_eq!(sqlstate(admin.batch_execute(&alter)), outcome, "{value}");
    }
    run(&mut admin, &format!("ALTER SYSTEM RESET {NAME}"));
    // One set is the least.
    let tokens: Vec<String> = (0..40).map(|n| site.token(&format!("user{n}"))).collect();
    for token in &tokens {
        assert_eq!(present(&mut site.client(), token), SUCCESS);
    }
    let mut client = Wire::connect(&site.app()).unwrap();
    client.query("SET client_min_messages = debug1").unwrap();
    for token in tokens.iter().rev().take(8) {
        assert_eq!(client.present(token, false), SUCCESS);
    }
    assert_eq!(client.count_notices(VERIFIED), 0, "the last ones of 40");

    let large = Site::start(Preload::Shared, &[(NAME, "300000")]);
    let alice = large.token("alice");
    expect(&large.cluster, &alice, SUCCESS, FRESH, "a large cache");
    expect(&large.cluster, &alice, SUCCESS, KNOWN, "a large cache, again");
}

#[test]
fn a_standby_remembers_signatures_of_its_own() {
    let site = Site::start(Preload::Shared, &[]);
    let standby = site.cluster.standby();
    let alice = site.token("alice");
    expect(&site.cluster, &alice, SUCCESS, FRESH, "on the primary");
    expect(&standby, &alice, SUCCESS, FRESH, "on the standby");
    expect(&standby, &alice, SUCCESS, KNOWN, "on the standby, again");
}

/// Backends are killed while others present tokens. What they leave in shared memory is laid out anew, and no token that
/// was not verified is ever accepted.
#[test]
fn killed_backends_leave_no_signature_behind() {
    const ROUNDS: usize = 8;
    const PRESENTERS: u64 = 4;
    let site = Site::start(Preload::Shared, &[("pg_session_jwt.shared_cache_size", "16")]);
    let stranger = Key::generate(Algorithm::ES256);
    for round in 0..ROUNDS {
        let kept = site.token(&format!("kept{round}"));
        expect(&site.cluster, &kept, SUCCESS, FRESH, "before the crash");
        scope(|scope| {
            for presenter in 0..PRESENTERS {
                let (site, stranger) = (&site, &stranger);
                scope.spawn(move || {
                    let mut random = Rng::with_seed(round as u64 * PRESENTERS + presenter);
                    let mut client = site.client();
                    let victim = backend_pid(&mut client) as u32;
                    let last = 50 + random.usize(..50);
                    for step in 0.. {
                        let sub = format!("{presenter}.{step}");
                        let (forged, good) = (token(stranger, &sub), site.token(&sub));
                        for (token, expected) in
                            [(&forged, Code::Signature.sqlstate()), (&good, SUCCESS)]
                        {
                            let init = "SELECT auth.jwt_session_init($1)";
                            let outcome = client.execute(init, &[token]);
                            // The end of the server, or of this backend alone.
                            if outcome.as_ref().is_err_and(|error| error.code().is_none()) {
                                return;
                            }
                            let outcome = sqlstate(outcome);
                            if outcome == CRASH_SHUTDOWN {
                                return;
                            }
                            assert_eq!(outcome, expected, "round {round}, {sub}");
                        }
                        if presenter == 0 && step == last {
                            send_signal("KILL", victim);
                        }
                    }
                });
            }
        });
        wait_for("the server", || site.app().try_client().is_ok());
        expect(&site.cluster, &kept, SUCCESS, FRESH, "after the crash");
        expect(&site.cluster, &kept, SUCCESS, KNOWN, "after the crash, again");
    }
}
