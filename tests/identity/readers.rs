//! What the functions that read the identity return.

use harness::{
    Cluster, Code, INSUFFICIENT_PRIVILEGE, Preload, SUCCESS, now, present, sqlstate, text,
};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::{Value, json};

use super::fixture::*;

#[test]
fn row_level_security_obeys_two_providers() {
    let acme = Key::generate(Algorithm::RS256).with_kid("a");
    let globex = Key::generate(Algorithm::ES256).with_kid("g");
    let providers = json!([
        {"issuer": "https://acme.example", "audience": ["todos", "x"], "jwks": acme.public_jwk()},
        {"issuer": "https://globex.example", "jwks": {"keys": [globex.public_jwk()]}},
    ]);
    let providers = providers.to_string();
    let cluster = Cluster::start(Preload::Shared, &[("pg_session_jwt.providers", &providers)]);
    cluster
        .admin()
        .batch_execute(
            "CREATE TABLE todos (owner text NOT NULL DEFAULT auth.user_id(), task text);
             ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON todos USING (owner = auth.user_id());
             GRANT ALL ON todos TO app;",
        )
        .unwrap();
    let mut client = cluster.as_role("app").client();
    let rows = |client: &mut Client| -> Vec<String> {
        let rows = client.query("SELECT task FROM todos ORDER BY 1", &[]).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let alice = acme.sign(&json!({"iss": "https://acme.example", "aud": "todos", "sub": "alice",
                                  "exp": now() + 60}));
    let bob = globex.sign(&json!({"iss": "https://globex.example", "sub": "bob",
                                  "exp": now() + 60}));

    assert_eq!(rows(&mut client), Vec::<String>::new(), "the rows");
    for insert in
        ["INSERT INTO todos (task) VALUES ('x')", "INSERT INTO todos VALUES ('alice', 'x')"]
    {
        assert_eq!(
            sqlstate(client.execute(insert, &[])),
            INSUFFICIENT_PRIVILEGE,
            "nobody writes as somebody"
        );
    }
    for (token, task) in [(&alice, "a1"), (&alice, "a2"), (&bob, "b1")] {
        assert_eq!(present(&mut client, token), SUCCESS, "{task:?}");
        client.execute("INSERT INTO todos (task) VALUES ($1)", &[&task]).unwrap();
    }
    assert_eq!(rows(&mut client), ["b1"], "after INSERT INTO todos (task) VALUES ($1)");
    assert_eq!(
        client.execute("UPDATE todos SET task = 'x' WHERE owner = 'alice'", &[]).unwrap(),
        0,
        "after INSERT INTO todos (task) VALUES ($1)"
    );
    assert_eq!(
        client.execute("DELETE FROM todos WHERE owner = 'alice'", &[]).unwrap(),
        0,
        "client.execute(DELETE FROM todos WHERE owner = 'alice', []) after token"
    );
    assert_eq!(
        sqlstate(client.execute("INSERT INTO todos VALUES ('alice', 'x')", &[])),
        INSUFFICIENT_PRIVILEGE,
        "after DELETE FROM todos WHERE owner = 'alice'"
    );
    assert_eq!(
        sqlstate(client.execute("UPDATE todos SET owner = 'alice'", &[])),
        INSUFFICIENT_PRIVILEGE,
        "after INSERT INTO todos VALUES ('alice', 'x')"
    );
    assert_eq!(present(&mut client, &alice), SUCCESS, "after UPDATE todos SET owner = 'alice'");
    assert_eq!(rows(&mut client), ["a1", "a2"], "after UPDATE todos SET owner = 'alice'");

    // Each provider's key is good for its own issuer only.
    let claims = json!({"iss": "https://acme.example", "aud": "todos", "sub": "alice",
                        "exp": now() + 60});
    assert_eq!(
        present(&mut client, &globex.sign(&claims)),
        Code::NoKey.sqlstate(),
        "each provider's key is good for its own issuer only"
    );
    assert_eq!(
        rows(&mut client),
        Vec::<String>::new(),
        "each provider's key is good for its own issuer only"
    );
    let mut elsewhere = claims.clone();
    elsewhere["aud"] = "billing".into();
    assert_eq!(
        present(&mut client, &acme.sign(&elsewhere)),
        Code::Audience.sqlstate(),
        "each provider's key is good for its own issuer only"
    );
    elsewhere["iss"] = "https://acme.example/".into();
    assert_eq!(
        present(&mut client, &acme.sign(&elsewhere)),
        Code::NoKey.sqlstate(),
        "each provider's key is good for its own issuer only"
    );
    elsewhere.as_object_mut().unwrap().remove("iss");
    assert_eq!(
        present(&mut client, &acme.sign(&elsewhere)),
        Code::Issuer.sqlstate(),
        "each provider's key is good for its own issuer only"
    );
}

#[test]
fn readers_return_the_claims() {
    let key = Key::generate(Algorithm::ES256);
    let cluster = cluster_with(&key);
    let mut client = cluster.as_role("app").client();
    let read = |client: &mut Client, expression: &str| {
        text(client, &format!("SELECT ({expression})::text"))
    };
    let readers = [
        "auth.user_id()",
        "auth.uid()",
        "auth.session()",
        "auth.jwt()",
        "auth.role()",
        "auth.email()",
        "auth.claim('sub')",
        "auth.claim('/sub')",
    ];
    for reader in readers {
        assert_eq!(read(&mut client, reader), None, "{reader} of nobody");
    }
    assert_eq!(read(&mut client, "auth.claim('/a~')"), None, "a path without an identity");

    let uuid = "7d8e1f00-1234-4abc-9def-0123456789ab";
    let claims = json!({
        "sub": uuid, "role": "authenticated", "email": "a@b.example", "exp": now() + 60,
        "a.b": "dotted", "": "empty name", "/x": "slashed", "null": null, "yes": true,
        "list": ["x", {"y~/z": [1, 2]}], "https://example.org/org": {"id": 7},
        "unicode": "\u{e9}\u{1f600}",
    });
    assert_eq!(present(&mut client, &key.sign(&claims)), SUCCESS, "present(key.sign(claims))");
    for (expression, expected) in [
        ("auth.user_id()", Some(uuid)),
        ("auth.uid()", Some(uuid)),
        ("auth.role()", Some("authenticated")),
        ("auth.email()", Some("a@b.example")),
        ("auth.session() = auth.jwt()", Some("true")),
        ("jsonb_typeof(auth.session())", Some("object")),
        ("auth.claim('a.b')", Some("dotted")),
        ("auth.claim('')", Some("empty name")),
        ("auth.claim('/~1x')", Some("slashed")),
        ("auth.claim('/')", Some("empty name")),
        ("auth.claim('null')", None),
        ("auth.claim('missing')", None),
        ("auth.claim(NULL)", None),
        ("auth.claim('yes')", Some("true")),
        ("auth.claim('list')", Some("[\"x\", {\"y~/z\": [1, 2]}]")),
        ("auth.claim('/list/0')", Some("x")),
        ("auth.claim('/list/1/y~0~1z/1')", Some("2")),
        ("auth.claim('/list/-1')", None),
        ("auth.claim('/list/00')", None),
        ("auth.claim('/list/2')", None),
        ("auth.claim('/list/0/x')", None),
        ("auth.claim('https://example.org/org')", Some("{\"id\": 7}")),
        ("auth.claim('/https:~1~1example.org~1org/id')", Some("7")),
        ("auth.claim('unicode')", Some("\u{e9}\u{1f600}")),
    ] {
        assert_eq!(read(&mut client, expression).as_deref(), expected, "{expression}");
    }
    for name in claims.as_object().unwrap().keys() {
        let query = "SELECT auth.claim($1) IS NOT DISTINCT FROM auth.session() ->> $1";
        let name = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        let raw = name[1..].replace("~1", "/").replace("~0", "~");
        let same = query.replacen("$1", "$2", 1);
        let row = client.query_one(&same, &[&raw, &name]).unwrap();
        assert!(row.get::<_, bool>(0), "auth.claim agrees with ->> on {raw:?}");
    }
    assert_eq!(
        sqlstate(client.query("SELECT auth.claim('/a~')", &[])),
        Code::Configuration.sqlstate(),
        "sqlstate(client.query(SELECT auth.claim('/a~'), [])) after key.sign(claims)"
    );

    // A user id that is no UUID is no error.
    for (sub, uid) in [
        (json!("auth0|123"), None),
        (json!("7D8E1F0012344ABC9DEF0123456789AB"), Some(uuid)),
        (json!("{7d8e1f00-1234-4abc-9def-0123456789ab}"), Some(uuid)),
        (json!("7d8e1f00-1234-4abc-9def-0123456789a"), None),
        (json!("7d8e1f00-1234-4abc-9def-0123456789abc"), None),
        (json!("7d8e1f0-01234-4abc-9def-0123456789ab"), None),
        (json!(""), None),
    ] {
        let token = key.sign(&json!({"sub": sub, "exp": now() + 60}));
        assert_eq!(present(&mut client, &token), SUCCESS, "{sub:?}, {uid:?}");
        // An empty string is nobody's id.
        let user_id = sub.as_str().filter(|sub| !sub.is_empty());
        assert_eq!(read(&mut client, "auth.user_id()").as_deref(), user_id, "{sub:?}, {uid:?}");
        assert_eq!(read(&mut client, "auth.uid()").as_deref(), uid, "{sub}");
    }
    let token = key.sign(&json!({"exp": now() + 60}));
    assert_eq!(present(&mut client, &token), SUCCESS, "a user id that is no UUID is no error");
    assert_eq!(read(&mut client, "auth.user_id()"), None, "a user id that is no UUID is no error");
    assert_eq!(
        read(&mut client, "auth.session() IS NOT NULL").as_deref(),
        Some("true"),
        "a user id that is no UUID is no error"
    );
}

#[test]
fn null_and_the_empty_text_clear() {
    let key = Key::generate(Algorithm::ES256);
    let cluster = cluster_with(&key);
    let mut client = cluster.as_role("app").client();
    let token = key.sign(&json!({"sub": "alice", "exp": now() + 60}));
    for clear in [
        "SELECT auth.jwt_session_init(NULL)",
        "SELECT auth.jwt_session_init('')",
        "SELECT auth.jwt_session_init(NULL, NULL)",
        "SET pg_session_jwt.jwt = ''",
        "SET pg_session_jwt.jwt TO DEFAULT",
        "RESET pg_session_jwt.jwt",
        "RESET ALL",
        "DISCARD ALL",
    ] {
        assert_eq!(present(&mut client, &token), SUCCESS, "{clear:?}");
        assert_eq!(
            text(&mut client, "SELECT auth.user_id()").as_deref(),
            Some("alice"),
            "{clear:?}"
        );
        client.batch_execute(clear).unwrap();
        assert_eq!(text(&mut client, "SELECT auth.user_id()"), None, "{clear}");
    }
}

#[test]
fn jwt_verify_installs_nothing() {
    let key = Key::generate(Algorithm::ES256);
    let cluster = cluster_with(&key);
    let mut client = cluster.as_role("app").client();
    let token = |sub: &str, exp: i64| key.sign(&json!({"sub": sub, "exp": exp}));
    assert_eq!(
        present(&mut client, &token("alice", now() + 60)),
        SUCCESS,
        "present(token(alice, now + 60))"
    );
    let row = client.query_one(
        "SELECT auth.jwt_verify($1) ->> 'sub', auth.user_id()",
        &[&token("bob", now() + 60)],
    );
    let row = row.unwrap();
    assert_eq!(
        (row.get(0), row.get(1)),
        (Some("bob"), Some("alice")),
        "(row.get(0), row.get(1)) after token(alice, now + 60)"
    );
    let verify = "SELECT auth.jwt_verify($1)::text";
    assert_eq!(
        sqlstate(client.query(verify, &[&token("bob", now() - 600)])),
        Code::Expired.sqlstate(),
        "sqlstate(client.query(verify, [token(bob, now - 600)])) after token(alice, now + 60)"
    );
    assert_eq!(
        sqlstate(client.query(verify, &[&"x"])),
        Code::Malformed.sqlstate(),
        "sqlstate(client.query(verify, [x])) after token(alice, now + 60)"
    );
    assert_eq!(
        sqlstate(client.query(verify, &[&""])),
        Code::Malformed.sqlstate(),
        "sqlstate(client.query(verify, [])) after token(alice, now + 60)"
    );
    let nothing: Option<String> = client.query_one(verify, &[&None::<&str>]).unwrap().get(0);
    assert_eq!(nothing, None, "nothing after token(alice, now + 60)");
    assert_eq!(
        text(&mut client, "SELECT auth.user_id()").as_deref(),
        Some("alice"),
        "text(SELECT auth.user_id) after token(alice, now + 60)"
    );
}

#[test]
fn every_algorithm_verifies() {
    let keys: Vec<Key> = Algorithm::ALL.map(Key::generate).into();
    let providers: Vec<Value> = keys
        .iter()
        .zip(Algorithm::ALL)
        .map(|(key, algorithm)| json!({"issuer": algorithm.name(), "jwks": key.public_jwk()}))
        .collect();
    let providers = Value::from(providers).to_string();
    let cluster = Cluster::start(Preload::Shared, &[("pg_session_jwt.providers", &providers)]);
    let mut client = cluster.as_role("app").client();
    for (key, algorithm) in keys.iter().zip(Algorithm::ALL) {
        let name = algorithm.name();
        let token = key.sign(&json!({"iss": name, "sub": name, "exp": now() + 60}));
        assert_eq!(present(&mut client, &token), SUCCESS, "{name}");
        assert_eq!(text(&mut client, "SELECT auth.user_id()"), Some(name.clone()), "{algorithm:?}");
        let (rest, _) = token.rsplit_once('.').unwrap();
        let other = key.sign(&json!({"iss": name, "sub": "other", "exp": now() + 60}));
        let (_, signature) = other.rsplit_once('.').unwrap();
        assert_eq!(
            present(&mut client, &format!("{rest}.{signature}")),
            Code::Signature.sqlstate(),
            "{name}"
        );
        assert_eq!(text(&mut client, "SELECT auth.user_id()"), None, "{algorithm:?}");
    }
}
