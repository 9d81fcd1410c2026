//! Which provider serves a token.

use harness::{
    Cluster, Code, Preload, SUCCESS, Wire, key, now, present, present_locally, run, sqlstate, text,
    token_of, user, wait_for,
};
use serde_json::json;

use super::table::*;

#[test]
fn a_providers_keys_are_good_for_its_issuer_only() {
    let cluster = cluster();
    let mut admin = cluster.admin();
    // Both call their key the same.
    let (first, second, third) = (key("k"), key("k"), key("k"));
    add(&mut admin, "a", &first);
    add(&mut admin, "b", &second);
    let mut app = client(&cluster);
    let cases = [
        ("a", &first, SUCCESS),
        ("b", &second, SUCCESS),
        ("a", &second, Code::Signature.sqlstate()),
        ("b", &first, Code::Signature.sqlstate()),
        ("c", &first, Code::NoKey.sqlstate()),
        ("A", &first, Code::NoKey.sqlstate()),
        ("a ", &first, Code::NoKey.sqlstate()),
        ("a/", &first, Code::NoKey.sqlstate()),
    ];
    for (issuer, key, code) in cases {
        assert_eq!(present(&mut app, &token_of(key, issuer, "x")), code, "{issuer}");
        assert_eq!(user(&mut app).is_some(), code == SUCCESS, "{issuer}");
    }
    let unnamed = first.sign(&json!({"sub": "x", "exp": now() + 60}));
    assert_eq!(
        present(&mut app, &unnamed),
        Code::Issuer.sqlstate(),
        "both call their key the same"
    );

    // The one without issuer serves whoever is nobody's.
    let jwk = third.public_jwk().to_string();
    admin.execute(ADD, &[&"none", &None::<&str>, &jwk]).unwrap();
    let unnamed = third.sign(&json!({"sub": "x", "exp": now() + 60}));
    for (token, code) in [
        (unnamed, SUCCESS),
        (token_of(&third, "c", "x"), SUCCESS),
        (token_of(&third, "a", "x"), Code::Signature.sqlstate()),
        (token_of(&first, "c", "x"), Code::Signature.sqlstate()),
    ] {
        assert_eq!(
            present(&mut app, &token),
            code,
            "the one without issuer serves whoever is nobody's"
        );
    }
    // Once an issuer has a provider of its own, that one alone vouches for it.
    assert_eq!(
        present(&mut app, &token_of(&third, "c", "x")),
        SUCCESS,
        "once an issuer has a provider of its own"
    );
    add(&mut admin, "c", &first);
    assert_eq!(
        code_of_user(&mut app),
        Code::Signature.sqlstate(),
        "once an issuer has a provider of its own"
    );
    assert_eq!(
        present(&mut app, &token_of(&first, "c", "x")),
        SUCCESS,
        "once an issuer has a provider of its own"
    );
}

#[test]
fn settings_come_before_rows() {
    let (of_setting, of_jwk, of_row) = (key("k"), key("k"), key("k"));
    let providers = json!({"issuer": "a", "jwks": of_setting.public_jwk()}).to_string();
    let jwk = of_jwk.public_jwk().to_string();
    let settings =
        [("pg_session_jwt.providers", providers.as_str()), ("pg_session_jwt.jwk", jwk.as_str())];
    let cluster = Cluster::start(Preload::Shared, &settings);
    let mut admin = cluster.admin();
    add(&mut admin, "a", &of_row);
    add(&mut admin, "b", &of_row);
    admin.execute(ADD, &[&"none", &None::<&str>, &of_row.public_jwk().to_string()]).unwrap();
    let mut app = client(&cluster);
    for (issuer, key, code) in [
        ("a", &of_setting, SUCCESS),
        ("a", &of_row, Code::Signature.sqlstate()),
        ("b", &of_row, SUCCESS),
        ("b", &of_jwk, Code::Signature.sqlstate()),
        ("c", &of_jwk, SUCCESS),
        ("c", &of_row, Code::Signature.sqlstate()),
    ] {
        assert_eq!(present(&mut app, &token_of(key, issuer, "x")), code, "{issuer}");
    }
    let mut wire = Wire::connect(&cluster.as_role("postgres")).unwrap();
    wire.ask("UPDATE auth.providers SET leeway = 1 WHERE name = 'a'", &[]).unwrap().unwrap();
    let warned = wire.notices();
    assert_eq!(
        warned[0].get(b'M'),
        Some("provider is not used"),
        "warned[0].get(b'M') after token_of(key, issuer, x)"
    );
    wire.ask("UPDATE auth.providers SET leeway = 1 WHERE name = 'b'", &[]).unwrap().unwrap();
    assert!(wire.notices().is_empty(), "wire.notices.is_empty after token_of(key, issuer, x)");
    // Without the settings, the rows serve.
    let set = [("pg_session_jwt.providers", ""), ("pg_session_jwt.jwk", "")];
    assert_eq!(
        present(&mut app, &token_of(&of_setting, "a", "x")),
        SUCCESS,
        "without the settings, the rows serve"
    );
    cluster.append_configuration(&set);
    cluster.reload();
    wait_for("the live session to notice", || app.query("SELECT auth.user_id()", &[]).is_err());
    assert_eq!(
        present(&mut app, &token_of(&of_row, "a", "x")),
        SUCCESS,
        "without the settings, the rows serve"
    );
    assert_eq!(
        present(&mut app, &token_of(&of_row, "c", "x")),
        SUCCESS,
        "without the settings, the rows serve"
    );

    // A setting that a client gets rid of takes the rows along.
    let cluster = Cluster::start(Preload::Session, &settings);
    add(&mut cluster.admin(), "b", &of_row);
    let lost = cluster.as_role("app").option("pg_session_jwt.jwk", "x");
    assert_eq!(
        present(&mut lost.client(), &token_of(&of_row, "b", "x")),
        Code::Configuration.sqlstate(),
        "a setting that a client gets rid of takes the rows along"
    );
}

#[test]
fn init_wants_some_provider() {
    let cluster = cluster();
    let mut app = client(&cluster);
    assert_eq!(
        sqlstate(app.execute("SELECT auth.init()", &[])),
        Code::Configuration.sqlstate(),
        "sqlstate(app.execute(SELECT auth.init, []))"
    );
    assert_eq!(
        present(&mut app, &token_of(&key("k"), "p", "x")),
        Code::NoKey.sqlstate(),
        "after SELECT auth.init()"
    );
    add(&mut cluster.admin(), "p", &key("k"));
    assert_eq!(
        sqlstate(app.execute("SELECT auth.init()", &[])),
        SUCCESS,
        "after SELECT auth.init()"
    );
}

#[test]
fn a_thousand_providers_cost_a_lookup() {
    let cluster = cluster();
    let mut admin = cluster.admin();
    let key = key("k");
    let jwk = key.public_jwk().to_string();
    let fill = "INSERT INTO auth.providers (name, issuer, jwks)
                SELECT 'provider ' || n, 'issuer-' || n, $1::text::json
                FROM generate_series(0, 999) n";
    admin.execute(fill, &[&jwk]).unwrap();

    // By its index, not by reading them all.
    let mut session = client(&cluster);
    let reads = "SELECT idx_scan::text FROM pg_stat_user_indexes
                 WHERE indexrelname = 'providers_issuer_key'";
    let scans = "SELECT seq_scan::text FROM pg_stat_user_tables WHERE relname = 'providers'";
    let flush = "SELECT pg_stat_force_next_flush()";
    run(&mut session, flush);
    let before = (text(&mut admin, reads), text(&mut admin, scans));
    assert_eq!(
        present(&mut session, &token_of(&key, "issuer-500", "alice")),
        SUCCESS,
        "by its index, not by reading them all"
    );
    run(&mut session, flush);
    wait_for("the statistics", || text(&mut admin, reads) != before.0);
    assert_eq!(text(&mut admin, scans), before.1, "by its index, not by reading them all");
    // A change of one voids nothing of another's.
    let mut debugging = Wire::connect(&cluster.as_role("app")).unwrap();
    let verified = |wire: &mut Wire, token: &str| {
        wire.ask("SELECT auth.jwt_session_init($1)", &[token]).unwrap().unwrap();
        let notices = wire.notices();
        notices.iter().any(|notice| notice.get(b'M') == Some("token signature verified"))
    };
    debugging.ask("SET client_min_messages = debug1", &[]).unwrap().unwrap();
    let (kept, changed) = (token_of(&key, "issuer-1", "a"), token_of(&key, "issuer-2", "b"));
    assert!(
        verified(&mut debugging, &kept) && verified(&mut debugging, &changed),
        "a change of one voids nothing of another's"
    );
    assert!(
        !verified(&mut debugging, &kept) && !verified(&mut debugging, &changed),
        "a change of one voids nothing of another's"
    );
    run(&mut admin, "UPDATE auth.providers SET leeway = 1 WHERE name = 'provider 2'");
    assert!(!verified(&mut debugging, &kept), "a change of one voids nothing of another's");
    assert!(verified(&mut debugging, &changed), "a change of one voids nothing of another's");
}

#[test]
fn parallel_workers_believe_what_their_leader_believes() {
    let cluster = cluster();
    let mut admin = cluster.admin();
    let key = key("k");
    add(&mut admin, "p", &key);
    run(
        &mut admin,
        "CREATE TABLE many AS SELECT 'alice' AS owner FROM generate_series(1, 20000);
         ANALYZE many; ALTER TABLE many ENABLE ROW LEVEL SECURITY; GRANT SELECT ON many TO app;
         CREATE POLICY p ON many USING (owner = auth.user_id())",
    );
    let mut app = client(&cluster);
    run(
        &mut app,
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
         SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = off",
    );
    assert_eq!(
        present(&mut app, &token_of(&key, "p", "alice")),
        SUCCESS,
        "present(token_of(key, p, alice))"
    );
    let count = "SELECT count(*) FROM many";
    let plan = app.query(&format!("EXPLAIN {count}"), &[]).unwrap();
    assert!(plan.iter().any(|row| row.get::<_, &str>(0).contains("Parallel")), "{plan:?}");
    assert_eq!(
        app.query_one(count, &[]).unwrap().get::<_, i64>(0),
        20_000,
        "app.query_one(count, []).get::<_ after token_of(key, p, alice)"
    );
    // Also of what is not committed.
    run(
        &mut admin,
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
         SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = off",
    );
    run(&mut admin, "ALTER TABLE many FORCE ROW LEVEL SECURITY; BEGIN");
    add(&mut admin, "q", &key);
    assert_eq!(
        present_locally(&mut admin, &token_of(&key, "q", "alice")),
        SUCCESS,
        "also of what is not committed"
    );
    let users = "SELECT count(*) FROM many WHERE owner = auth.user_id()";
    assert_eq!(
        admin.query_one(users, &[]).unwrap().get::<_, i64>(0),
        20_000,
        "also of what is not committed"
    );
    run(&mut admin, "ROLLBACK");
}
