//! What `auth.add_provider()` tells about the provider that it has added, and who may call it.

use harness::{
    Cluster, Code, INSUFFICIENT_PRIVILEGE, INVALID_TEXT_REPRESENTATION, Preload, SUCCESS, db_error,
    key, now, present, run, sqlstate, text,
};
use postgres::Client;
use serde_json::json;

/// The row that a call returns.
fn added(client: &mut Client, arguments: &str) -> (String, Option<String>, String, Vec<String>) {
    let row = client.query_one(&format!("SELECT * FROM auth.add_provider({arguments})"), &[]);
    let row = row.unwrap_or_else(|error| panic!("{arguments}: {error:?}"));
    (row.get("name"), row.get("issuer"), row.get("keys"), row.get("warnings"))
}

#[test]
fn the_row_tells_of_keys_and_of_missing_checks() {
    let settings =
        json!({"name": "fixed", "issuer": "https://fixed.example", "jwks": key("s").public_jwk()});
    let cluster =
        Cluster::start(Preload::Shared, &[("pg_session_jwt.providers", &settings.to_string())]);
    let mut admin = cluster.admin();
    let jwks = json!({"keys": [key("a").public_jwk(), {"kty": "EC", "crv": "secp256k1"}]});
    let own = format!("jwks => '{jwks}'");
    let complete = "audience => '{api}', required_claims => '{sub}'";
    let audience =
        "Tokens for every audience are accepted. Set audience to the audience of your API.";
    let user = "Tokens without a user id are accepted. Add \"sub\" to required_claims.";
    let fetched = "They are fetched after the commit; auth.provider_status shows the result.";
    let own_keys = "\"a\" (ES256); 1 not usable";
    let cases: &[(String, Option<&str>, &str, &[&str])] = &[
        (format!("'n', {own}, {complete}"), None, own_keys, &[]),
        (
            format!("'n', 'https://n.example', {own}"),
            Some("https://n.example"),
            own_keys,
            &[audience, user],
        ),
        (format!("'n', 'https://n.example', {complete}"), Some("https://n.example"), fetched, &[]),
        (format!("'n', jwks_url => 'https://n.example/jwks', {complete}"), None, fetched, &[]),
        (
            format!("'n', {own}, audience => '{{api}}', require => '{{\"sub\": \"a\"}}'"),
            None,
            own_keys,
            &[],
        ),
        (
            format!(
                "'n', {own}, audience => '{{api}}', required_claims => '{{sub}}', user_id_claim => 'oid'"
            ),
            None,
            own_keys,
            &["Tokens without a user id are accepted. Add \"oid\" to required_claims."],
        ),
        (
            format!(
                "'n', {own}, {complete}, role_claim => 'role', allowed_roles => '{{app, \"o\\\"o\\\\o\"}}'"
            ),
            None,
            own_keys,
            &[
                "The role \"o\\\"o\\\\o\" does not exist. Create it, and grant it to the login role.",
            ],
        ),
        (
            format!("'n', 'https://fixed.example', {own}, {complete}"),
            Some("https://fixed.example"),
            own_keys,
            &[
                "The provider is not used. The settings pg_session_jwt.jwk and pg_session_jwt.providers, \
               which serve the same issuer, take precedence.",
            ],
        ),
    ];
    for (arguments, issuer, keys, warnings) in cases {
        run(&mut admin, "BEGIN");
        let row = added(&mut admin, arguments);
        run(&mut admin, "ROLLBACK");
        let warnings = warnings.iter().map(|warning| (*warning).to_owned()).collect();
        let expected = ("n".to_owned(), issuer.map(str::to_owned), (*keys).to_owned(), warnings);
        assert_eq!(row, expected, "{arguments}");
    }
}

/// A list may be an array, or a text that is its only element.
#[test]
fn a_text_is_a_list_of_one() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    run(&mut admin, "CREATE FUNCTION name() RETURNS text LANGUAGE sql STABLE RETURN 'api'");
    let key = key("k").public_jwk();
    for (value, expected) in [
        ("'api'", r#"{api}"#),
        ("'https://api.example/ x}'", r#"{"https://api.example/ x}"}"#),
        (r#"'a "b\\c"; d'"#, r#"{"a \"b\\\\c\"; d"}"#),
        ("'NULL'", r#"{"NULL"}"#),
        ("name()", "{api}"),
        ("'{a,b}'", "{a,b}"),
        ("' {a, \"b c\"}'", "{a,\"b c\"}"),
        ("ARRAY['a', 'b']", "{a,b}"),
        ("'[2:3]={a,b}'", "[2:3]={a,b}"),
    ] {
        for list in ["audience", "required_claims", "allowed_roles", "typ"] {
            run(&mut admin, "BEGIN");
            let role = if list == "allowed_roles" { ", role_claim => 'role'" } else { "" };
            added(&mut admin, &format!("'n', jwks => '{key}', {list} => {value}{role}"));
            let stored = format!("SELECT {list}::text FROM auth.providers");
            assert_eq!(text(&mut admin, &stored).as_deref(), Some(expected), "{list} => {value}");
            run(&mut admin, "ROLLBACK");
        }
    }
    let add = format!("SELECT auth.add_provider('n', jwks => '{key}', algorithms => 'ES256')");
    assert_eq!(sqlstate(admin.batch_execute(&add)), SUCCESS, "an algorithm");
    let invalid = format!("SELECT auth.add_provider('m', 'm', jwks => '{key}', audience => '{{a')");
    assert_eq!(sqlstate(admin.batch_execute(&invalid)), INVALID_TEXT_REPRESENTATION, "no array");
}

/// The owner of a database may create the extension, but not decide whom the server trusts.
#[test]
fn the_error_says_what_to_grant() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    run(&mut admin, "CREATE ROLE owner LOGIN");
    run(&mut admin, "CREATE DATABASE own OWNER owner");
    let mut owner = cluster.as_role("owner").database("own").client();
    run(&mut owner, "CREATE EXTENSION pg_session_jwt");
    let key = key("k");
    let add = format!("SELECT auth.add_provider('n', jwks => '{}')", key.public_jwk());
    let error = db_error(owner.batch_execute(&add));
    assert_eq!(error.code().code(), INSUFFICIENT_PRIVILEGE, "before the grant");
    let hint =
        "Have a superuser run GRANT SELECT, INSERT, UPDATE, DELETE ON auth.providers TO owner.";
    assert_eq!(error.hint(), Some(hint), "before the grant");
    assert_eq!(
        sqlstate(owner.query("SELECT auth.added_provider('n')", &[])),
        INSUFFICIENT_PRIVILEGE,
        "nor may the role read of a provider"
    );

    let grant = hint.strip_prefix("Have a superuser run ").unwrap().trim_end_matches('.');
    run(&mut cluster.as_role("postgres").database("own").client(), grant);
    assert_eq!(sqlstate(owner.batch_execute(&add)), SUCCESS, "after the grant");
    let token = key.sign(&json!({"sub": "alice", "exp": now() + 600}));
    assert_eq!(present(&mut owner, &token), SUCCESS, "the provider is in use");
}

/// A client learns how many issuers there are and which one is similar; a monitor gets the list.
#[test]
fn other_issuers_are_listed_to_monitors_only() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    run(&mut admin, "CREATE ROLE watcher LOGIN IN ROLE pg_monitor");
    let key = key("k");
    for issuer in ["https://one.example", "https://two.example"] {
        let add = "SELECT auth.add_provider($1, $1, jwks => $2::text)";
        admin.execute(add, &[&issuer, &key.public_jwk().to_string()]).unwrap();
    }
    let token = |issuer: &str| key.sign(&json!({"iss": issuer, "sub": "a", "exp": now() + 600}));
    for (role, lists) in [("app", false), ("watcher", true), ("postgres", true)] {
        let mut client = cluster.as_role(role).client();
        for (issuer, near) in [("https://three.example", false), ("https://two.example/", true)] {
            let init = "SELECT auth.jwt_session_init($1)";
            let error = db_error(client.execute(init, &[&token(issuer)]));
            assert_eq!(error.code().code(), Code::NoKey.sqlstate(), "{role}, {issuer}");
            let detail = error.detail().unwrap();
            assert_eq!(detail.contains("one.example"), lists, "{role}, {issuer}: {detail}");
            assert_eq!(detail.contains("2 issuers are configured"), !lists, "{role}: {detail}");
            let hint = error.hint().unwrap_or_default();
            assert_eq!(hint.contains("\"https://two.example\""), near, "{role}, {issuer}: {hint}");
        }
        let nameless = key.sign(&json!({"sub": "a", "exp": now() + 600}));
        let error = db_error(client.execute("SELECT auth.jwt_session_init($1)", &[&nameless]));
        assert_eq!(error.code().code(), Code::Issuer.sqlstate(), "{role}, no iss");
        let detail = error.detail().unwrap();
        assert_eq!(detail.contains("one.example"), lists, "{role}, no iss: {detail}");
    }
}
