//! Providers whose keys are fetched: how rotations go by unnoticed, and what becomes of everything
//! that a provider, the network or the server can do wrong.

use std::thread::sleep;
use std::time::{Duration, Instant};

use harness::{
    Behaviour, Certificate, Cluster, Idp, Preload, now, present, run, sqlstate, text, user,
    wait_for,
};
use mint::{Algorithm, Key};
use postgres::Client;
use postgres::error::DbError;
use serde_json::json;

/// A provider, and a cluster that may fetch from it.
struct Fixture {
    cluster: Cluster,
    idp: Idp,
    key: Key,
}

impl Fixture {
    fn new(settings: &[(&str, &str)]) -> Self {
        Self::with(Preload::Neither, settings)
    }

    fn with(preload: Preload, settings: &[(&str, &str)]) -> Self {
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
    fn ready(settings: &[(&str, &str)]) -> Self {
        let fixture = Self::new(settings);
        fixture.add();
        fixture.wait_for_keys();
        fixture
    }

    fn add(&self) {
        let add = "SELECT auth.add_provider('idp', issuer => $1, jwks_url => $2)";
        self.cluster.admin().execute(add, &[&self.idp.issuer(), &self.idp.jwks_url()]).unwrap();
    }

    fn wait_for_keys(&self) {
        wait_for("the keys", || self.status("last_success").is_some());
    }

    fn client(&self) -> Client {
        self.cluster.as_role("app").client()
    }

    fn token(&self, key: &Key, sub: &str) -> String {
        key.sign(&json!({"iss": self.idp.issuer(), "sub": sub, "exp": now() + 600}))
    }

    fn status(&self, column: &str) -> Option<String> {
        let query = format!("SELECT ({column})::text FROM auth.provider_status WHERE name = 'idp'");
        text(&mut self.cluster.admin(), &query)
    }

    /// How many seconds lie between two moments of the status.
    fn seconds(&self, from: &str, to: &str) -> f64 {
        self.status(&format!("extract(epoch FROM {to} - {from})")).unwrap().parse().unwrap()
    }

    fn update(&self, set: &str) {
        run(&mut self.cluster.admin(), &format!("UPDATE auth.providers SET {set}"));
    }

    /// Lets unknown keys have the provider asked again.
    fn forget_demand(&self) {
        self.update("last_demand = NULL");
    }

    fn refresh(&self) -> Result<String, Box<DbError>> {
        let refresh = "SELECT auth.refresh_provider('idp')::text";
        match self.cluster.admin().query_one(refresh, &[]) {
            Ok(row) => Ok(row.get(0)),
            Err(error) => Err(Box::new(error.as_db_error().unwrap().clone())),
        }
    }

    /// The process ids of the workers.
    fn workers(&self) -> Vec<i32> {
        let query = "SELECT pid FROM pg_stat_activity
                     WHERE backend_type = 'pg_session_jwt key refresh'";
        let rows = self.cluster.admin().query(query, &[]).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

fn key(kid: &str) -> Key {
    Key::generate(Algorithm::ES256).with_kid(kid)
}

/// How a token is refused.
fn refusal(client: &mut Client, token: &str) -> DbError {
    let present = "SELECT auth.jwt_session_init($1)";
    client.execute(present, &[&token]).unwrap_err().as_db_error().unwrap().clone()
}

fn detail(error: &DbError) -> &str {
    error.detail().unwrap_or_default()
}

#[test]
fn keys_are_fetched_once_a_provider_is_added() {
    for preload in Preload::ALL {
        let fixture = Fixture::with(preload, &[]);
        fixture.add();
        fixture.wait_for_keys();
        assert_eq!(fixture.idp.requests(), 1, "{preload:?}");
        let mut client = fixture.client();
        assert_eq!(present(&mut client, &fixture.token(&fixture.key, "alice")), "00000");
        assert_eq!(user(&mut client).as_deref(), Some("alice"));
        assert_eq!(fixture.idp.requests(), 1);
        let keys = fixture.status("keys ->> 0");
        assert_eq!(keys.as_deref(), Some(r#"{"kid": "k1", "algorithms": ["ES256"]}"#));
        assert_eq!(fixture.status("source").as_deref(), Some("jwks_url"));

        // Several at once, too.
        let add = "INSERT INTO auth.providers (name, issuer, jwks_url)
                   SELECT n::text, 'issuer-' || n, $1 FROM generate_series(1, 10) n";
        fixture.cluster.admin().execute(add, &[&fixture.idp.jwks_url()]).unwrap();
        wait_for("the keys", || fixture.idp.requests() == 11);
    }
}

#[test]
fn an_issuer_alone_is_enough() {
    let fixture = Fixture::new(&[]);
    let mut admin = fixture.cluster.admin();
    let mut client = fixture.client();
    let add = "SELECT auth.add_provider('idp', issuer => $1)";
    admin.execute(add, &[&fixture.idp.issuer()]).unwrap();
    // The first token does not wait for anybody to look.
    assert_eq!(present(&mut client, &fixture.token(&fixture.key, "alice")), "00000");
    assert_eq!(fixture.status("source").as_deref(), Some("discovery"));
    assert!(fixture.idp.requests_for("/.well-known/openid-configuration") >= 1);

    // The document speaks for its own issuer only, to the letter.
    run(&mut admin, "SELECT auth.remove_provider('idp')");
    let slash = format!("{}/", fixture.idp.issuer());
    admin.execute(add, &[&slash]).unwrap();
    let claims = json!({"iss": slash, "sub": "alice", "exp": now() + 600});
    let error = refusal(&mut client, &fixture.key.sign(&claims));
    assert_eq!(error.code().code(), "28J02");
    assert!(detail(&error).contains("Discovery failed: the provider's issuer is"), "{error:?}");
    wait_for("the error", || fixture.status("last_error").is_some());
    assert_eq!(user(&mut client), None);
}

#[test]
fn rotations_go_unnoticed() {
    let fixture = Fixture::ready(&[]);
    let (first, second, third) = (&fixture.key, key("k2"), key("k3"));
    let mut client = fixture.client();
    let mut before = fixture.client();
    assert_eq!(present(&mut before, &fixture.token(first, "alice")), "00000");

    // With overlap.
    fixture.idp.set_keys(&[first, &second]);
    assert_eq!(present(&mut client, &fixture.token(&second, "bob")), "00000");
    assert_eq!(user(&mut client).as_deref(), Some("bob"));
    assert_eq!(user(&mut before).as_deref(), Some("alice"));
    assert_eq!(fixture.idp.requests(), 2);

    // Without: the keys that are gone vouch for nobody any more.
    fixture.forget_demand();
    fixture.idp.set_keys(&[&third]);
    assert_eq!(present(&mut client, &fixture.token(&third, "carol")), "00000");
    assert_eq!(user(&mut client).as_deref(), Some("carol"));
    assert_eq!(sqlstate(before.query("SELECT auth.user_id()", &[])), "28J02");
    assert_eq!(present(&mut client, &fixture.token(first, "alice")), "28J02");
    assert_eq!(user(&mut client), None);
    assert_eq!(fixture.idp.requests(), 3);

    // Within 30 seconds, nobody is asked again, until an administrator wants it.
    let fourth = key("k4");
    fixture.idp.set_keys(&[&third, &fourth]);
    let error = refusal(&mut client, &fixture.token(&fourth, "dave"));
    assert_eq!(error.code().code(), "28J02");
    assert!(detail(&error).contains("Its keys were last fetched"), "{error:?}");
    assert_eq!(fixture.idp.requests(), 3);
    let changes = fixture.refresh().unwrap();
    assert_eq!(changes, r#"{"kept": ["k3"], "added": ["k4"], "changed": [], "removed": []}"#);
    assert_eq!(present(&mut client, &fixture.token(&fourth, "dave")), "00000");

    // A forged token brings nobody in, and has nobody asked: its key is known.
    let forged = key("k4");
    assert_eq!(present(&mut client, &fixture.token(&forged, "mallory")), "28J03");
    assert_eq!(fixture.idp.requests(), 4);
}

#[test]
fn keys_without_ids_rotate_too() {
    let fixture = Fixture::new(&[]);
    let (first, second) = (Key::generate(Algorithm::ES256), Key::generate(Algorithm::RS256));
    fixture.idp.set_keys(&[&first]);
    fixture.add();
    fixture.wait_for_keys();
    let mut client = fixture.client();
    assert_eq!(present(&mut client, &fixture.token(&first, "alice")), "00000");
    fixture.idp.set_keys(&[&second]);
    assert_eq!(present(&mut client, &fixture.token(&second, "bob")), "00000");
    assert_eq!(fixture.idp.requests(), 2);
    // What no key has signed is refused after one more look.
    fixture.forget_demand();
    let forged = Key::generate(Algorithm::RS256);
    assert_eq!(present(&mut client, &fixture.token(&forged, "bob")), "28J03");
    assert_eq!(present(&mut client, &fixture.token(&forged, "bob")), "28J03");
    assert_eq!(fixture.idp.requests(), 3);
}

#[test]
fn a_key_that_is_replaced_under_its_id_is_found() {
    let fixture = Fixture::ready(&[]);
    let mut client = fixture.client();
    assert_eq!(present(&mut client, &fixture.token(&fixture.key, "alice")), "00000");

    // Of the same type (28J03), and within 30 seconds of the first keys.
    let second = key("k1");
    fixture.idp.set_keys(&[&second]);
    assert_eq!(present(&mut client, &fixture.token(&second, "bob")), "00000");
    assert_eq!(user(&mut client).as_deref(), Some("bob"));
    assert_eq!(fixture.idp.requests(), 2);
    assert_eq!(present(&mut client, &fixture.token(&fixture.key, "alice")), "28J03");

    // Of another type (28J10), there and back.
    for algorithm in [Algorithm::RS256, Algorithm::EdDSA, Algorithm::ES256] {
        fixture.forget_demand();
        let other = Key::generate(algorithm).with_kid("k1");
        fixture.idp.set_keys(&[&other]);
        let token = fixture.token(&other, "carol");
        assert_eq!(present(&mut client, &token), "00000", "{algorithm:?}");
    }
    assert_eq!(fixture.idp.requests(), 5);

    // A session under way ends with its key.
    let last = key("k1");
    fixture.idp.set_keys(&[&last]);
    let error = refusal(&mut fixture.client(), &fixture.token(&last, "dave"));
    assert_eq!(error.code().code(), "28J03");
    for part in [
        "Its keys were last fetched",
        "The next token may have them fetched again in",
        "auth.refresh_provider() fetches them at once",
    ] {
        assert!(detail(&error).contains(part), "{part}: {error:?}");
    }
    assert_eq!(fixture.idp.requests(), 5);
    let changes = fixture.refresh().unwrap();
    assert_eq!(changes, r#"{"kept": [], "added": [], "changed": ["k1"], "removed": []}"#);
    assert_eq!(present(&mut fixture.client(), &fixture.token(&last, "dave")), "00000");
    assert_eq!(sqlstate(client.query("SELECT auth.user_id()", &[])), "28J03");

    // The same key, written otherwise, is kept; the others are told apart.
    let (gone, new) = (key("gone"), key("new"));
    fixture.idp.set_keys(&[&last, &gone]);
    fixture.refresh().unwrap();
    let mut spelled = last.public_jwk();
    spelled["alg"] = json!("ES256");
    spelled["use"] = json!("sig");
    let set = json!({"keys": [new.public_jwk(), spelled]});
    fixture.idp.set_body("/jwks.json", set.to_string());
    let changes = fixture.refresh().unwrap();
    let expected = r#"{"kept": ["k1"], "added": ["new"], "changed": [], "removed": ["gone"]}"#;
    assert_eq!(changes, expected);
}

#[test]
fn what_no_published_key_can_have_signed_has_nobody_asked() {
    let fixture = Fixture::ready(&[]);
    fixture.update("algorithms = '{ES256}'");
    let mut client = fixture.client();
    let secret = Key::generate(Algorithm::HS256).with_kid("k1");
    let not_listed = Key::generate(Algorithm::RS256).with_kid("k1");
    for key in [&secret, &not_listed] {
        assert_eq!(present(&mut client, &fixture.token(key, "mallory")), "28J10");
    }
    // Nor does a token that is refused for its claims.
    let claims = json!({"iss": fixture.idp.issuer(), "sub": "alice", "exp": now() - 600});
    assert_eq!(present(&mut client, &fixture.key.sign(&claims)), "28J04");
    assert_eq!(fixture.idp.requests(), 1);
}

#[test]
fn the_first_keys_do_not_count_as_a_refresh_on_demand() {
    let fixture = Fixture::new(&[]);
    let mut client = fixture.client();
    // By the token, which may come before the worker that starts at commit.
    for round in 0..3 {
        let (first, second) = (key("k1"), key(if round == 0 { "k2" } else { "k1" }));
        fixture.idp.set_keys(&[&first]);
        fixture.add();
        if round == 2 {
            fixture.wait_for_keys();
        }
        assert_eq!(present(&mut client, &fixture.token(&first, "alice")), "00000");
        fixture.idp.set_keys(&[&second]);
        assert_eq!(present(&mut client, &fixture.token(&second, "bob")), "00000", "{round}");
        run(&mut fixture.cluster.admin(), "SELECT auth.remove_provider('idp')");
    }
    // But a first fetch that fails does.
    fixture.idp.behave(Behaviour::Status(500));
    fixture.add();
    for _ in 0..5 {
        assert_eq!(present(&mut client, &fixture.token(&key("k1"), "mallory")), "28J02");
    }
    let requests = fixture.idp.requests();
    for _ in 0..5 {
        assert_eq!(present(&mut client, &fixture.token(&key("k1"), "mallory")), "28J02");
    }
    assert_eq!(fixture.idp.requests(), requests);
}

#[test]
fn refreshes_for_other_reasons_do_not_count_either() {
    let fixture = Fixture::ready(&[]);
    let mut client = fixture.client();
    fixture.refresh().unwrap();
    let second = key("k1");
    fixture.idp.set_keys(&[&second]);
    assert_eq!(present(&mut client, &fixture.token(&second, "alice")), "00000");
    assert_eq!(fixture.idp.requests(), 3);
}

#[test]
fn what_is_due_is_fetched_while_the_old_keys_serve() {
    let fixture = Fixture::ready(&[]);
    let token = fixture.token(&fixture.key, "alice");
    let mut client = fixture.client();
    run(&mut client, "SET client_min_messages = debug1");
    assert_eq!(present(&mut client, &token), "00000");
    fixture.idp.behave(Behaviour::Slow(Duration::from_millis(700)));
    for requests in 2..4 {
        // A session looks at the row again when it expects that something is due.
        fixture.update("next_refresh = now() + interval '1 second'");
        let mut client = fixture.client();
        assert_eq!(present(&mut client, &token), "00000");
        sleep(Duration::from_secs(1));
        let began = fixture.status("clock_timestamp()").unwrap();
        assert_eq!(present(&mut client, &token), "00000");
        assert_eq!(user(&mut client).as_deref(), Some("alice"));
        wait_for("the request", || fixture.idp.requests() == requests);
        // Nobody else has it done a second time.
        let mut other = fixture.client();
        assert_eq!(present(&mut other, &token), "00000");
        let fetched = format!("(last_success > '{began}')");
        assert_eq!(fixture.status(&fetched).as_deref(), Some("false"), "somebody has waited");
        wait_for("the refresh", || fixture.status(&fetched).as_deref() == Some("true"));
        assert_eq!(fixture.idp.requests(), requests);
    }
    // A clock that was set back does not put it off for ever.
    fixture.update("next_refresh = now() + interval '25 hours'");
    assert_eq!(present(&mut fixture.client(), &token), "00000");
    wait_for("the refresh", || fixture.idp.requests() == 4);
}

#[test]
fn caching_is_the_providers_to_say() {
    let fixture = Fixture::ready(&[]);
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let refreshed = |headers: &[(String, String)]| {
        fixture.idp.behave(Behaviour::Headers(headers.to_vec()));
        fixture.refresh().unwrap();
        fixture.seconds("last_success", "next_refresh").round()
    };
    assert_eq!(refreshed(&[]), 3600.0);
    assert_eq!(refreshed(&[header("Cache-Control", "public, max-age=600")]), 600.0);
    assert_eq!(refreshed(&[header("Cache-Control", "max-age=1")]), 300.0);
    assert_eq!(refreshed(&[header("Cache-Control", "no-store")]), 300.0);
    assert_eq!(refreshed(&[header("Cache-Control", "max-age=8640000")]), 86_400.0);
    assert_eq!(refreshed(&[header("Expires", "Thu, 01 Jan 1970 00:00:00 GMT")]), 300.0);
    fixture.update("keep_keys = 1000");
    assert_eq!(refreshed(&[]), 1000.0);

    // What has not changed is not sent again, and voids nothing.
    let tag = [header("ETag", "\"one\""), header("Cache-Control", "max-age=900")];
    assert_eq!(refreshed(&tag), 900.0);
    assert_eq!(fixture.idp.conditional_requests(), 0);
    let mut client = fixture.client();
    let token = fixture.token(&fixture.key, "alice");
    assert_eq!(present(&mut client, &token), "00000");
    // Only what is due is asked for in that way: whoever wants newer keys gets what is there.
    assert_eq!(refreshed(&tag), 900.0);
    assert_eq!(fixture.idp.conditional_requests(), 0);
    let before = fixture.status("last_success").unwrap();
    fixture.update("next_refresh = now()");
    assert_eq!(present(&mut fixture.client(), &token), "00000");
    wait_for("the refresh", || fixture.status("last_success").unwrap() != before);
    assert_eq!(fixture.idp.conditional_requests(), 1);
    assert_eq!(fixture.seconds("last_success", "next_refresh").round(), 900.0);
    assert_eq!(user(&mut client).as_deref(), Some("alice"));

    // From another URL, or where there are no keys to keep, all is fetched.
    fixture.update(&format!("jwks_url = '{}?'", fixture.idp.jwks_url()));
    assert_eq!(present(&mut client, &token), "00000");
    assert_eq!(fixture.idp.conditional_requests(), 1);
    fixture.update("fetched_jwks = NULL");
    assert_eq!(present(&mut client, &token), "00000");
    assert_eq!(fixture.idp.conditional_requests(), 1);
}

#[test]
fn what_could_not_be_fetched_at_once_is_fetched_all_the_same() {
    let fixture = Fixture::new(&[("max_worker_processes", "2")]);
    let mut admin = fixture.cluster.admin();
    fixture.idp.behave(Behaviour::Slow(Duration::from_millis(200)));
    let add = "SELECT auth.add_provider($1, issuer => $1, jwks_url => $2)";
    for n in 0..8 {
        admin.execute(add, &[&format!("issuer-{n}"), &fixture.idp.jwks_url()]).unwrap();
    }
    let good = "SELECT count(*)::text FROM auth.provider_status WHERE state = 'good'";
    wait_for("the keys", || text(&mut admin, good).as_deref() == Some("8"));
    assert_eq!(fixture.idp.requests(), 8);
}

#[test]
fn a_token_waits_for_its_own_provider_only() {
    let fixture = Fixture::ready(&[
        ("pg_session_jwt.jwks_timeout", "2s"),
        ("pg_session_jwt.jwks_http_hosts", "localhost"),
    ]);
    let slow = Idp::start_plain();
    slow.behave(Behaviour::Hang);
    let mut admin = fixture.cluster.admin();
    // Never asked, though nobody has been told: as if no worker could have been started.
    let add = "INSERT INTO auth.providers (name, issuer, jwks_url, fetched_from, fetched_jwks)
               SELECT n::text, n::text, $1, $1, $2::text::json FROM generate_series(1, 2) n";
    let jwks = json!({"keys": [fixture.key.public_jwk()]}).to_string();
    admin.execute(add, &[&slow.jwks_url(), &jwks]).unwrap();
    let second = key("k2");
    fixture.idp.set_keys(&[&second]);
    assert_eq!(present(&mut fixture.client(), &fixture.token(&second, "bob")), "00000");
    // Those others are asked all the same.
    wait_for("the other requests", || slow.requests() == 2);
}

#[test]
fn whoever_does_not_commit_holds_nobody_up_for_long() {
    let fixture = Fixture::ready(&[]);
    let second = key("k2");
    fixture.idp.set_keys(&[&fixture.key, &second]);
    let mut admin = fixture.cluster.admin();
    run(&mut admin, "BEGIN; UPDATE auth.providers SET leeway = 5");
    let error = refusal(&mut fixture.client(), &fixture.token(&second, "bob"));
    assert_eq!(error.code().code(), "28J02");
    assert!(detail(&error).contains("locked by another transaction"), "{error:?}");
    let error = fixture.refresh().unwrap_err();
    assert!(detail(&error).contains("locked by another transaction"), "{error:?}");
    run(&mut admin, "ROLLBACK");
    assert_eq!(present(&mut fixture.client(), &fixture.token(&second, "bob")), "00000");

    // Nor can a provider be asked whose row nobody else sees.
    run(&mut admin, "BEGIN");
    let add = "SELECT auth.add_provider('other', issuer => $1, jwks_url => $2)";
    admin.execute(add, &[&"other", &fixture.idp.jwks_url()]).unwrap();
    let token = fixture.key.sign(&json!({"iss": "other", "sub": "alice", "exp": now() + 600}));
    let error = refusal(&mut admin, &token);
    assert!(detail(&error).contains("is not committed"), "{error:?}");
    run(&mut admin, "ROLLBACK");
}

#[test]
fn failures_cost_nothing_that_was_good() {
    let fixture = Fixture::ready(&[("pg_session_jwt.jwks_timeout", "1s")]);
    let mut client = fixture.client();
    let known = fixture.token(&fixture.key, "alice");
    let unknown = fixture.token(&key("k9"), "bob");
    let idp = &fixture.idp;
    let good = json!({"keys": [fixture.key.public_jwk()]}).to_string();
    let elsewhere = Idp::start();
    let too_many: Vec<_> = (0..101).map(|n| key(&format!("k{n}")).public_jwk()).collect();
    let failing: &[(&str, &dyn Fn(), &str)] = &[
        ("down", &|| idp.stop(), "the connection was refused"),
        ("404", &|| idp.behave(Behaviour::Status(404)), "the status 404"),
        ("500", &|| idp.behave(Behaviour::Status(500)), "the status 500"),
        ("304", &|| idp.behave(Behaviour::Status(304)), "the status 304"),
        ("slow", &|| idp.behave(Behaviour::Slow(Duration::from_secs(3))), "the time-out"),
        ("hanging", &|| idp.behave(Behaviour::Hang), "the time-out"),
        ("hanging mid-body", &|| idp.behave(Behaviour::HangMidBody), "the time-out"),
        ("redirecting", &|| idp.behave(Behaviour::Redirect(elsewhere.jwks_url())), "redirect"),
        (
            "redirecting to http",
            &|| idp.behave(Behaviour::Redirect(idp.jwks_url().replace("https", "http"))),
            "redirect",
        ),
        ("oversized", &|| idp.behave(Behaviour::Oversized), "larger than 256 KiB"),
        ("expired", &|| idp.use_certificate(Certificate::Expired), "expired"),
        ("wrong host", &|| idp.use_certificate(Certificate::WrongHost), "host"),
        ("other authority", &|| idp.use_certificate(Certificate::OtherCa), "certificate"),
        ("not JSON", &|| idp.set_body("/jwks.json", "sorry"), "key set is not valid JSON"),
        ("a page", &|| idp.set_body("/jwks.json", "<html>"), "the answer is a page of HTML"),
        ("empty", &|| idp.set_body("/jwks.json", r#"{"keys": []}"#), "It has no keys."),
        ("no set", &|| idp.set_body("/jwks.json", "{}"), "It has neither"),
        (
            "too many keys",
            &|| idp.set_body("/jwks.json", json!({"keys": too_many}).to_string()),
            "It has 101",
        ),
        (
            "only bad keys",
            &|| idp.set_body("/jwks.json", r#"{"keys": [{"kty": "RSA"}]}"#),
            "It has no n.",
        ),
    ];
    for (count, (name, fail, reason)) in (1..).zip(failing) {
        fail();
        let error = fixture.refresh().unwrap_err();
        assert_eq!(error.code().code(), "28J11", "{name}");
        assert!(detail(&error).contains(reason), "{name}: {error:?}");
        // The good keys serve on, and refusals say why there are no newer ones.
        assert_eq!(present(&mut client, &known), "00000", "{name}");
        assert_eq!(user(&mut client).as_deref(), Some("alice"));
        fixture.forget_demand();
        let error = refusal(&mut client, &unknown);
        assert_eq!(error.code().code(), "28J02", "{name}");
        assert!(detail(&error).contains(reason), "{name}: {error:?}");
        assert!(detail(&error).contains("kids \"k1\""), "{name}: {error:?}");
        assert_eq!(user(&mut client), None);
        assert_eq!(fixture.status("failures"), Some((2 * count).to_string()), "{name}");
        assert!(fixture.status("last_error").unwrap().contains(reason), "{name}");
        // The first again within a minute or so, later ones at most one and a half hours.
        let wait = fixture.seconds("last_fetch", "next_refresh");
        let least = f64::from(30 << (2 * count - 1).min(7)).min(3600.0);
        assert!((least..=1.5 * least + 2.0).contains(&wait), "{name}: {wait}");

        idp.behave(Behaviour::Serve);
        idp.use_certificate(Certificate::Good);
        idp.set_body("/jwks.json", good.clone());
        if *name == "down" {
            idp.restart();
        }
    }
    assert_eq!(elsewhere.requests(), 0);
    fixture.refresh().unwrap();
    assert_eq!(fixture.status("failures").as_deref(), Some("0"));
    assert_eq!(fixture.status("last_error"), None);
    let log = fixture.cluster.log();
    assert!(log.contains("the keys of provider \"idp\" could not be fetched"), "{log}");
    // No process has crashed.
    assert!(!log.contains("terminating any other active server processes"), "{log}");
}

#[test]
fn keys_that_grow_too_old_vouch_for_nobody() {
    let fixture = Fixture::ready(&[("pg_session_jwt.jwks_timeout", "1s")]);
    let token = fixture.token(&fixture.key, "alice");
    let mut client = fixture.client();
    assert_eq!(present(&mut client, &token), "00000");

    // A provider that answers is asked, and nobody notices.
    fixture.update("last_success = now() - interval '25 hours'");
    assert_eq!(present(&mut fixture.client(), &token), "00000");
    assert_eq!(fixture.idp.requests(), 2);

    // One that does not is believed for that long and no longer, in sessions under way, too.
    fixture.idp.stop();
    for (keep_keys, age) in [("NULL", 86_400), ("300", 300)] {
        let set = format!(
            "keep_keys = {keep_keys}, last_demand = NULL,
             last_success = clock_timestamp() - interval '{age} seconds' + interval '3 seconds'"
        );
        fixture.update(&set);
        let mut client = fixture.client();
        assert_eq!(present(&mut client, &token), "00000");
        assert_eq!(user(&mut client).as_deref(), Some("alice"));
        sleep(Duration::from_secs(3));
        let error = client.query("SELECT auth.user_id()", &[]).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "28J02");
        assert_eq!(error.message(), "provider's keys are too old");
        assert!(detail(error).contains("refused"), "{error:?}");
        assert_eq!(present(&mut client, &token), "28J02");
        assert_eq!(user(&mut client), None);
    }
}

#[test]
fn one_bad_key_does_not_cost_the_good_ones() {
    let fixture = Fixture::new(&[]);
    let secret = Key::generate(Algorithm::HS256).with_kid("secret");
    let private = key("private");
    let (twin, other_twin) = (key("twin"), key("twin"));
    let mut encrypting = key("encrypting").public_jwk();
    encrypting["use"] = json!("enc");
    let set = json!({"keys": [
        7, {"kty": "RSA", "kid": "short", "n": "AQAB", "e": "AQAB"}, {"kty": "PQC"},
        secret.public_jwk(), private.private_jwk().unwrap(), encrypting,
        twin.public_jwk(), other_twin.public_jwk(), fixture.key.public_jwk(),
    ]});
    fixture.idp.set_body("/jwks.json", set.to_string());
    fixture.add();
    fixture.wait_for_keys();
    let kids = "(SELECT string_agg(key ->> 'kid', ' ') FROM jsonb_array_elements(keys) key)";
    assert_eq!(fixture.status(kids).as_deref(), Some("k1 twin"));
    let passed_over = fixture.status("passed_over").unwrap();
    for reason in ["kid \"short\"", "symmetric", "private", "\"enc\"", "Its kid is that of"] {
        assert!(passed_over.contains(reason), "{reason}: {passed_over}");
    }
    let mut client = fixture.client();
    assert_eq!(present(&mut client, &fixture.token(&fixture.key, "alice")), "00000");
    assert_eq!(present(&mut client, &fixture.token(&twin, "alice")), "00000");
    // Neither the published secret nor the published private key signs for anybody.
    for (key, code) in [(&secret, "28J02"), (&private, "28J02"), (&other_twin, "28J03")] {
        assert_eq!(present(&mut client, &fixture.token(key, "mallory")), code);
        assert_eq!(user(&mut client), None);
    }
    // Nothing but public keys is kept.
    let kept = text(&mut fixture.cluster.admin(), "SELECT fetched_jwks::text FROM auth.providers");
    let kept = kept.unwrap();
    assert!(!kept.contains("\"d\"") && !kept.contains("\"k\""), "{kept}");
}

#[test]
fn a_storm_of_unknown_keys_reaches_nobody() {
    let fixture = Fixture::ready(&[]);
    let stranger = Key::generate(Algorithm::ES256);
    assert_storm(&fixture, "28J02", |thread, n, payload| {
        let header = json!({"alg": "ES256", "kid": format!("{thread}-{n}")});
        stranger.sign_raw(header.to_string().as_bytes(), payload)
    });
}

#[test]
fn a_storm_of_wrong_signatures_reaches_nobody() {
    let fixture = Fixture::ready(&[]);
    let stranger = Key::generate(Algorithm::ES256);
    assert_storm(&fixture, "28J03", |thread, _, payload| {
        let kid = if thread % 2 == 0 { json!({"kid": "k1"}) } else { json!({}) };
        let mut header = json!({"alg": "ES256"});
        header.as_object_mut().unwrap().extend(kid.as_object().unwrap().clone());
        stranger.sign_raw(header.to_string().as_bytes(), payload)
    });
}

/// Presents 10,000 tokens that no key verifies, in four sessions.
fn assert_storm(
    fixture: &Fixture,
    code: &str,
    token: impl Fn(usize, usize, &[u8]) -> String + Sync,
) {
    let claims = json!({"iss": fixture.idp.issuer(), "sub": "mallory", "exp": now() + 600});
    let payload = claims.to_string();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (token, payload) = (&token, &payload);
            scope.spawn(move || {
                let mut client = fixture.client();
                for n in 0..2500 {
                    let token = token(thread, n, payload.as_bytes());
                    assert_eq!(present(&mut client, &token), code);
                }
                assert_eq!(user(&mut client), None);
            });
        }
    });
    // One at the beginning, and another for every 30 seconds that it took.
    let most = 2 + began.elapsed().as_secs() as usize / 30;
    let requests = fixture.idp.requests();
    println!("10000 tokens in {:?}: {} requests", began.elapsed(), requests - 1);
    assert!((2..=most).contains(&requests), "{requests} requests");
    assert_eq!(present(&mut fixture.client(), &fixture.token(&fixture.key, "alice")), "00000");
}

#[test]
fn whoever_comes_meanwhile_waits_for_the_same_fetch() {
    let fixture = Fixture::ready(&[]);
    let second = key("k2");
    fixture.idp.set_keys(&[&second]);
    fixture.idp.behave(Behaviour::Slow(Duration::from_millis(500)));
    std::thread::scope(|scope| {
        for n in 0..20 {
            let (fixture, second) = (&fixture, &second);
            scope.spawn(move || {
                let mut client = fixture.client();
                let name = format!("user {n}");
                assert_eq!(present(&mut client, &fixture.token(second, &name)), "00000");
                assert_eq!(user(&mut client).as_deref(), Some(name.as_str()));
            });
        }
    });
    assert_eq!(fixture.idp.requests(), 2);
}

#[test]
fn a_fetch_under_way_may_have_begun_before_the_tokens_key_was_published() {
    let fixture = Fixture::ready(&[]);
    let second = key("k2");
    let mut client = fixture.client();
    fixture.idp.behave(Behaviour::Slow(Duration::from_secs(1)));
    fixture.update("next_refresh = NULL");
    assert_eq!(present(&mut client, &fixture.token(&fixture.key, "alice")), "00000");
    wait_for("the scheduled request", || fixture.idp.requests() == 2);
    fixture.idp.set_keys(&[&fixture.key, &second]);
    fixture.idp.behave(Behaviour::Serve);
    // The token waits for that fetch, and then has the keys fetched once more.
    assert_eq!(present(&mut client, &fixture.token(&second, "bob")), "00000");
    assert_eq!(fixture.idp.requests(), 3);
}

#[test]
fn waiting_ends_in_time_and_can_be_cancelled() {
    let fixture = Fixture::ready(&[("pg_session_jwt.jwks_timeout", "30s")]);
    let second = key("k2");
    fixture.idp.set_keys(&[&fixture.key, &second]);
    fixture.idp.behave(Behaviour::Hang);
    let token = fixture.token(&second, "bob");
    let mut client = fixture.client();
    // With someone there before: what is cancelled has presented nothing that was accepted.
    assert_eq!(present(&mut client, &fixture.token(&fixture.key, "alice")), "00000");
    run(&mut client, "SET statement_timeout = '300ms'");
    assert_eq!(present(&mut client, &token), "57014");
    assert_eq!(user(&mut client), None);

    // Others wait no longer than they are told, and are told that it is under way.
    let mut admin = fixture.cluster.admin();
    run(&mut admin, "SET pg_session_jwt.jwks_timeout = '300ms'");
    fixture.forget_demand();
    let error = refusal(&mut admin, &token);
    assert_eq!(error.code().code(), "28J02");
    assert!(detail(&error).contains("are still being fetched"), "{error:?}");

    // A token whose key is known waits for nothing.
    assert_eq!(present(&mut client, &fixture.token(&fixture.key, "alice")), "00000");
}

#[test]
fn a_worker_that_is_ended_takes_nothing_along() {
    let fixture = Fixture::ready(&[("log_min_messages", "info")]);
    let second = key("k2");
    fixture.idp.set_keys(&[&fixture.key, &second]);
    let token = fixture.token(&second, "bob");
    let started = "SELECT pg_postmaster_start_time()::text";
    let before = text(&mut fixture.cluster.admin(), started);
    let mut bystander = fixture.client();
    assert_eq!(present(&mut bystander, &fixture.token(&fixture.key, "alice")), "00000");
    for behaviour in [Behaviour::Hang, Behaviour::HangMidBody, Behaviour::Drip, Behaviour::Hang] {
        fixture.idp.behave(behaviour);
        fixture.forget_demand();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| refusal(&mut fixture.client(), &token));
            wait_for("the worker", || !fixture.workers().is_empty());
            // Somewhere on its way.
            wait_for("the record of the fetch", || {
                fixture.status("last_error").is_some_and(|text| text.contains("being fetched"))
            });
            sleep(Duration::from_millis(100));
            let kill = "SELECT pg_terminate_backend($1)";
            for pid in fixture.workers() {
                fixture.cluster.admin().execute(kill, &[&pid]).unwrap();
            }
            let error = waiting.join().unwrap();
            assert_eq!(error.code().code(), "28J02");
            assert!(detail(&error).contains("has not ended"), "{error:?}");
        });
        wait_for("the worker's end", || fixture.workers().is_empty());
        let status = fixture.status("last_error").unwrap();
        assert!(status.contains("was interrupted"), "{status}");
    }
    assert_eq!(text(&mut fixture.cluster.admin(), started), before, "the server has crashed");
    assert_eq!(user(&mut bystander).as_deref(), Some("alice"));
    fixture.idp.behave(Behaviour::Serve);
    fixture.forget_demand();
    assert_eq!(present(&mut bystander, &token), "00000");
    assert_eq!(fixture.status("last_error"), None, "the fetch has ended");

    // It dies with the server, however that ends.
    fixture.idp.behave(Behaviour::Hang);
    fixture.update("next_refresh = NULL");
    assert_eq!(present(&mut fixture.client(), &token), "00000");
    wait_for("the worker", || !fixture.workers().is_empty());
    let worker = fixture.workers()[0];
    fixture.cluster.kill_postmaster();
    let process = std::path::PathBuf::from(format!("/proc/{worker}"));
    wait_for("the worker's end", || !process.exists());
}

#[test]
fn the_worker_writes_as_the_tables_owner() {
    let fixture = Fixture::new(&[]);
    let mut admin = fixture.cluster.admin();
    run(
        &mut admin,
        "CREATE ROLE dba LOGIN; GRANT CREATE ON SCHEMA public TO dba;
         ALTER TABLE auth.providers OWNER TO dba",
    );
    let mut dba = fixture.cluster.as_role("dba").client();
    run(
        &mut dba,
        "CREATE TABLE seen (who text, path text, made text);
         CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             BEGIN
                 CREATE ROLE mine SUPERUSER;
             EXCEPTION WHEN OTHERS THEN
                 INSERT INTO public.seen
                     VALUES (current_user, current_setting('search_path'), SQLSTATE);
             END;
             RETURN NEW;
         END $$;
         CREATE TRIGGER spy BEFORE UPDATE ON auth.providers FOR EACH ROW EXECUTE FUNCTION spy();
         ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER spy;
         CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql
             AS 'BEGIN RAISE EXCEPTION ''fooled''; END'",
    );
    run(&mut admin, "ALTER ROLE postgres SET search_path = public, pg_catalog");
    // Nor does it run the triggers of roles that own nothing.
    run(&mut admin, "CREATE ROLE guest LOGIN; GRANT TRIGGER ON auth.providers TO guest");
    run(&mut admin, "GRANT CREATE ON SCHEMA public TO guest");
    run(
        &mut fixture.cluster.as_role("guest").client(),
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''x''; END';
         CREATE TRIGGER fail BEFORE UPDATE ON auth.providers FOR EACH ROW EXECUTE FUNCTION fail()",
    );
    fixture.add();
    fixture.wait_for_keys();
    let seen = "SELECT string_agg(DISTINCT seen::text, ' ') FROM seen";
    assert_eq!(
        text(&mut admin, seen).as_deref(),
        Some("(dba,\"pg_catalog, pg_temp\",42501)"),
        "a trigger runs as somebody else than the table's owner"
    );
    assert_eq!(present(&mut fixture.client(), &fixture.token(&fixture.key, "alice")), "00000");
}

#[test]
fn names_are_in_the_databases_encoding() {
    let fixture = Fixture::new(&[]);
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let create = format!("CREATE DATABASE {encoding} TEMPLATE template0 ENCODING '{encoding}'");
        run(&mut fixture.cluster.admin(), &create);
        let connect =
            |role: &str| fixture.cluster.as_role(role).database(&encoding.to_lowercase()).client();
        let mut admin = connect("postgres");
        run(&mut admin, "CREATE EXTENSION pg_session_jwt");
        let add = "SELECT auth.add_provider('caf\u{e9} \"''x', issuer => $1)";
        admin.execute(add, &[&fixture.idp.issuer()]).unwrap();
        let mut client = connect("app");
        assert_eq!(present(&mut client, &fixture.token(&fixture.key, "alice")), "00000");
        assert_eq!(user(&mut client).as_deref(), Some("alice"));
        let refresh = "SELECT auth.refresh_provider(name)::text FROM auth.providers";
        let changes = text(&mut admin, refresh).unwrap();
        assert_eq!(changes, r#"{"kept": ["k1"], "added": [], "changed": [], "removed": []}"#);
    }
}

#[test]
fn without_a_free_worker_tokens_with_known_keys_go_on() {
    let fixture = Fixture::ready(&[]);
    let limits = [("max_worker_processes", "0"), ("max_logical_replication_workers", "0")];
    fixture.cluster.append_configuration(&limits);
    fixture.cluster.restart();
    let second = key("k2");
    fixture.idp.set_keys(&[&fixture.key, &second]);
    let mut client = fixture.client();
    for _ in 0..2 {
        let error = refusal(&mut client, &fixture.token(&second, "bob"));
        assert_eq!(error.code().code(), "28J02");
        assert!(detail(&error).contains("max_worker_processes"), "{error:?}");
        let error = fixture.refresh().unwrap_err();
        assert_eq!(error.code().code(), "28J11");
        assert!(detail(&error).contains("max_worker_processes"), "{error:?}");
        fixture.update("next_refresh = now()");
        assert_eq!(present(&mut client, &fixture.token(&fixture.key, "alice")), "00000");
        assert_eq!(user(&mut client).as_deref(), Some("alice"));
    }
    run(
        &mut fixture.cluster.admin(),
        "SELECT auth.add_provider('other', issuer => 'https://localhost:1/')",
    );
    wait_for("the log", || fixture.cluster.log().contains("no background worker can be started"));
    fixture.cluster.append_configuration(&[("max_worker_processes", "8")]);
    fixture.cluster.restart();
    assert_eq!(present(&mut fixture.client(), &fixture.token(&second, "bob")), "00000");
}

#[test]
fn what_is_dropped_meanwhile_is_let_go() {
    let fixture = Fixture::new(&[("pg_session_jwt.jwks_timeout", "2s")]);
    let mut admin = fixture.cluster.admin();
    run(&mut admin, "CREATE DATABASE gone");
    fixture.idp.behave(Behaviour::Hang);
    let connection = fixture.cluster.as_role("postgres").database("gone");
    let add = "SELECT auth.add_provider('idp', issuer => $1)";
    let mut gone = connection.client();
    run(&mut gone, "CREATE EXTENSION pg_session_jwt");
    gone.execute(add, &[&fixture.idp.issuer()]).unwrap();
    wait_for("the worker", || !fixture.workers().is_empty());
    drop(gone);
    // Postgres gives others in the database five seconds.
    run(&mut admin, "DROP DATABASE gone");
    assert!(fixture.workers().is_empty());

    // A provider, the extension.
    for drop in ["SELECT auth.remove_provider('idp')", "DROP EXTENSION pg_session_jwt CASCADE"] {
        admin.execute(add, &[&fixture.idp.issuer()]).unwrap();
        wait_for("the worker", || !fixture.workers().is_empty());
        run(&mut admin, drop);
        wait_for("the worker's end", || fixture.workers().is_empty());
    }
    fixture.idp.behave(Behaviour::Serve);
    run(&mut admin, "CREATE EXTENSION pg_session_jwt");
    let mut client = fixture.client();
    assert_eq!(present(&mut client, &fixture.token(&fixture.key, "alice")), "28J02");
    fixture.add();
    assert_eq!(present(&mut client, &fixture.token(&fixture.key, "alice")), "00000");
    let log = fixture.cluster.log();
    assert!(!log.contains("terminating any other active server processes"), "{log}");
}

#[test]
fn what_an_address_is_changed_to_is_asked_at_once() {
    let fixture = Fixture::ready(&[]);
    let (other, second) = (Idp::start(), key("k1"));
    other.set_keys(&[&second]);
    // In the file of authorities of both.
    let both = [&fixture.idp, &other].map(|idp| std::fs::read_to_string(idp.ca_file()).unwrap());
    std::fs::write(fixture.idp.ca_file(), both.concat()).unwrap();
    let mut client = fixture.client();
    let mut before = fixture.client();
    assert_eq!(present(&mut before, &fixture.token(&fixture.key, "alice")), "00000");
    fixture.update(&format!("jwks_url = '{}'", other.jwks_url()));
    // The keys from before count no more, though the new ones have the same id.
    assert_eq!(present(&mut client, &fixture.token(&second, "bob")), "00000");
    assert_eq!(present(&mut client, &fixture.token(&fixture.key, "alice")), "28J03");
    assert_eq!(sqlstate(before.query("SELECT auth.user_id()", &[])), "28J03");
    assert_eq!(fixture.idp.requests(), 1);

    // Also while the former one is being asked.
    fixture.idp.behave(Behaviour::Slow(Duration::from_millis(800)));
    fixture.update(&format!("jwks_url = '{}'", fixture.idp.jwks_url()));
    wait_for("the request", || fixture.idp.requests() == 2);
    fixture.update(&format!("jwks_url = '{}'", other.jwks_url()));
    wait_for("the keys", || fixture.status("keys ->> 0").is_some());
    assert_eq!(present(&mut client, &fixture.token(&second, "bob")), "00000");
}

#[test]
fn keys_outlast_a_restart_a_dump_and_a_switch() {
    let fixture = Fixture::ready(&[]);
    let token = fixture.token(&fixture.key, "alice");
    fixture.cluster.restart_in_mode("fast");
    fixture.idp.stop();
    assert_eq!(present(&mut fixture.client(), &token), "00000");

    // Dumped and restored, with all that is known.
    let port = fixture.cluster.port().to_string();
    let dump = |arguments: &[&str]| {
        let mut command = fixture.cluster.program("pg_dump");
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port]).args(arguments);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let text_dump = dump(&["postgres"]);
    assert!(text_dump.contains("COPY auth.providers"), "{text_dump}");
    run(&mut fixture.cluster.admin(), "CREATE DATABASE restored");
    run(&mut fixture.cluster.admin(), "CREATE DATABASE spoilt");
    let restore = |database: &str, dump: &str| {
        let file = fixture.idp.folder().join("dump.sql");
        std::fs::write(&file, dump).unwrap();
        let mut command = fixture.cluster.program("psql");
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port, "-d", database]);
        command.args(["-q", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-f"]).arg(file);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (restored, errors) = restore("restored", &text_dump);
    assert!(restored, "{errors}");
    let mut client = fixture.cluster.as_role("app").database("restored").client();
    assert_eq!(present(&mut client, &token), "00000");
    assert_eq!(user(&mut client).as_deref(), Some("alice"));
    // What a restore writes is checked like anything else.
    let spoilt = text_dump.replace(&fixture.idp.jwks_url(), "http://example.com/jwks.json");
    let (restored, errors) = restore("spoilt", &spoilt);
    assert!(!restored && errors.contains("22023"), "{errors}");
    assert_eq!(fixture.idp.requests(), 1);
}

#[test]
fn a_standby_has_what_the_primary_fetches() {
    let fixture = Fixture::ready(&[]);
    let standby = fixture.cluster.standby();
    standby.catch_up(&fixture.cluster);
    let second = key("k2");
    let mut reader = standby.as_role("app").client();
    assert_eq!(present(&mut reader, &fixture.token(&fixture.key, "alice")), "00000");
    assert_eq!(user(&mut reader).as_deref(), Some("alice"));

    // It fetches nothing itself, neither for an unknown key nor when the time has come.
    fixture.idp.set_keys(&[&second]);
    let mut other = standby.as_role("app").client();
    let error = refusal(&mut other, &fixture.token(&second, "bob"));
    assert_eq!(error.code().code(), "28J02");
    assert!(detail(&error).contains("standby"), "{error:?}");
    let refresh = "SELECT auth.refresh_provider('idp')";
    assert_eq!(sqlstate(standby.admin().execute(refresh, &[])), "28J11");
    fixture.update("next_refresh = now()");
    standby.catch_up(&fixture.cluster);
    assert_eq!(present(&mut other, &fixture.token(&fixture.key, "alice")), "00000");
    assert_eq!(fixture.idp.requests(), 1);

    // What the primary fetches reaches sessions that are under way there.
    fixture.refresh().unwrap();
    standby.catch_up(&fixture.cluster);
    assert_eq!(sqlstate(reader.query("SELECT auth.user_id()", &[])), "28J02");
    assert_eq!(present(&mut other, &fixture.token(&second, "bob")), "00000");
    // So does a removal.
    run(&mut fixture.cluster.admin(), "SELECT auth.remove_provider('idp')");
    standby.catch_up(&fixture.cluster);
    assert_eq!(sqlstate(other.query("SELECT auth.user_id()", &[])), "28J02");

    // Promoted, it fetches by itself.
    fixture.add();
    fixture.wait_for_keys();
    standby.catch_up(&fixture.cluster);
    standby.promote();
    let third = key("k3");
    fixture.idp.set_keys(&[&third]);
    wait_for("the promotion", || {
        text(&mut other, "SELECT pg_is_in_recovery()::text").as_deref() == Some("false")
    });
    assert_eq!(present(&mut other, &fixture.token(&third, "carol")), "00000");
}
