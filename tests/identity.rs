//! The main job: a session presents a token, readers return what it says, and row-level security
//! obeys it. All as a role that is neither superuser nor owner.

use harness::{Cluster, Preload, now, present, run, sqlstate, text};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::{Value, json};

/// A cluster that trusts one key by `pg_session_jwt.jwk`.
fn cluster_with(key: &Key) -> Cluster {
    Cluster::start(Preload::Shared, &[("pg_session_jwt.jwk", &key.public_jwk().to_string())])
}

/// A payload as written, digits and all.
fn sign_text(key: &Key, payload: &str) -> String {
    key.sign_raw(br#"{"alg":"ES256"}"#, payload.as_bytes())
}

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

    assert_eq!(rows(&mut client), Vec::<String>::new());
    for insert in
        ["INSERT INTO todos (task) VALUES ('x')", "INSERT INTO todos VALUES ('alice', 'x')"]
    {
        assert_eq!(sqlstate(client.execute(insert, &[])), "42501", "nobody writes as somebody");
    }
    for (token, task) in [(&alice, "a1"), (&alice, "a2"), (&bob, "b1")] {
        assert_eq!(present(&mut client, token), "00000");
        client.execute("INSERT INTO todos (task) VALUES ($1)", &[&task]).unwrap();
    }
    assert_eq!(rows(&mut client), ["b1"]);
    assert_eq!(
        client.execute("UPDATE todos SET task = 'x' WHERE owner = 'alice'", &[]).unwrap(),
        0
    );
    assert_eq!(client.execute("DELETE FROM todos WHERE owner = 'alice'", &[]).unwrap(), 0);
    assert_eq!(sqlstate(client.execute("INSERT INTO todos VALUES ('alice', 'x')", &[])), "42501");
    assert_eq!(sqlstate(client.execute("UPDATE todos SET owner = 'alice'", &[])), "42501");
    assert_eq!(present(&mut client, &alice), "00000");
    assert_eq!(rows(&mut client), ["a1", "a2"]);

    // Each provider's key is good for its own issuer only.
    let claims = json!({"iss": "https://acme.example", "aud": "todos", "sub": "alice",
                        "exp": now() + 60});
    assert_eq!(present(&mut client, &globex.sign(&claims)), "28J02");
    assert_eq!(rows(&mut client), Vec::<String>::new());
    let mut elsewhere = claims.clone();
    elsewhere["aud"] = "billing".into();
    assert_eq!(present(&mut client, &acme.sign(&elsewhere)), "28J07");
    elsewhere["iss"] = "https://acme.example/".into();
    assert_eq!(present(&mut client, &acme.sign(&elsewhere)), "28J02");
    elsewhere.as_object_mut().unwrap().remove("iss");
    assert_eq!(present(&mut client, &acme.sign(&elsewhere)), "28J06");
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
    // Nor is a path looked at without an identity.
    assert_eq!(read(&mut client, "auth.claim('/a~')"), None);

    let uuid = "7d8e1f00-1234-4abc-9def-0123456789ab";
    let claims = json!({
        "sub": uuid, "role": "authenticated", "email": "a@b.example", "exp": now() + 60,
        "a.b": "dotted", "": "empty name", "/x": "slashed", "null": null, "yes": true,
        "list": ["x", {"y~/z": [1, 2]}], "https://example.org/org": {"id": 7},
        "unicode": "\u{e9}\u{1f600}",
    });
    assert_eq!(present(&mut client, &key.sign(&claims)), "00000");
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
    assert_eq!(sqlstate(client.query("SELECT auth.claim('/a~')", &[])), "22023");

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
        assert_eq!(present(&mut client, &token), "00000");
        // An empty string is nobody's id.
        let user_id = sub.as_str().filter(|sub| !sub.is_empty());
        assert_eq!(read(&mut client, "auth.user_id()").as_deref(), user_id);
        assert_eq!(read(&mut client, "auth.uid()").as_deref(), uid, "{sub}");
    }
    let token = key.sign(&json!({"exp": now() + 60}));
    assert_eq!(present(&mut client, &token), "00000");
    assert_eq!(read(&mut client, "auth.user_id()"), None);
    assert_eq!(read(&mut client, "auth.session() IS NOT NULL").as_deref(), Some("true"));
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
        assert_eq!(present(&mut client, &token), "00000");
        assert_eq!(text(&mut client, "SELECT auth.user_id()").as_deref(), Some("alice"));
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
    assert_eq!(present(&mut client, &token("alice", now() + 60)), "00000");
    let row = client.query_one(
        "SELECT auth.jwt_verify($1) ->> 'sub', auth.user_id()",
        &[&token("bob", now() + 60)],
    );
    let row = row.unwrap();
    assert_eq!((row.get(0), row.get(1)), (Some("bob"), Some("alice")));
    let verify = "SELECT auth.jwt_verify($1)::text";
    assert_eq!(sqlstate(client.query(verify, &[&token("bob", now() - 600)])), "28J04");
    assert_eq!(sqlstate(client.query(verify, &[&"x"])), "28J01");
    assert_eq!(sqlstate(client.query(verify, &[&""])), "28J01");
    let nothing: Option<String> = client.query_one(verify, &[&None::<&str>]).unwrap().get(0);
    assert_eq!(nothing, None);
    assert_eq!(text(&mut client, "SELECT auth.user_id()").as_deref(), Some("alice"));
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
        assert_eq!(present(&mut client, &token), "00000", "{name}");
        assert_eq!(text(&mut client, "SELECT auth.user_id()"), Some(name.clone()));
        let (rest, _) = token.rsplit_once('.').unwrap();
        let other = key.sign(&json!({"iss": name, "sub": "other", "exp": now() + 60}));
        let (_, signature) = other.rsplit_once('.').unwrap();
        assert_eq!(present(&mut client, &format!("{rest}.{signature}")), "28J03", "{name}");
        assert_eq!(text(&mut client, "SELECT auth.user_id()"), None);
    }
}

#[test]
fn numbers_keep_every_digit_and_what_jsonb_cannot_hold_is_refused() {
    let key = Key::generate(Algorithm::ES256);
    let cluster = cluster_with(&key);
    let mut client = cluster.as_role("app").client();
    let exp = now() + 60;
    let digits = "123456789012345678901234567890";
    let payload = format!(
        r#"{{"exp":{exp},"big":{digits},"huge":1e400,"exact":0.10,"most":9e131071,"least":1e-16383}}"#
    );
    assert_eq!(present(&mut client, &sign_text(&key, &payload)), "00000");
    let claim = |client: &mut Client, name: &str| {
        text(client, &format!("SELECT auth.session() ->> '{name}'")).unwrap()
    };
    assert_eq!(claim(&mut client, "big"), digits);
    assert_eq!(claim(&mut client, "huge"), format!("1{}", "0".repeat(400)));
    assert_eq!(claim(&mut client, "exact"), "0.10");
    assert_eq!(claim(&mut client, "most").len(), 131_072);
    assert_eq!(claim(&mut client, "least").len(), 2 + 16_383);
    for (wrong, code) in [
        (r#""x":"a\u0000b""#, "28J09"),
        (r#""x":{"a\u0000":1}"#, "28J09"),
        (r#""x":[9e131072]"#, "28J09"),
        (r#""x":1e-16384"#, "28J09"),
        (r#""x":1e999999999999"#, "28J09"),
        (r#""x":"\ud800""#, "28J01"),
        (r#""x":"\udc00\ud800""#, "28J01"),
    ] {
        let token = sign_text(&key, &format!(r#"{{"exp":{exp},"sub":"alice",{wrong}}}"#));
        assert_eq!(present(&mut client, &token), code, "{wrong}");
        assert_eq!(text(&mut client, "SELECT auth.user_id()"), None, "{wrong}");
    }
}

#[test]
fn other_encodings() {
    let key = Key::generate(Algorithm::ES256);
    let cluster = cluster_with(&key);
    let mut admin = cluster.admin();
    for encoding in ["LATIN1", "SQL_ASCII"] {
        admin
            .batch_execute(&format!(
                "CREATE DATABASE {encoding} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
            ))
            .unwrap();
        let mut owner = cluster.as_role("postgres").database(&encoding.to_lowercase()).client();
        owner.batch_execute("CREATE EXTENSION pg_session_jwt").unwrap();
    }
    let token = |sub: &str| key.sign(&json!({"sub": sub, "exp": now() + 60}));
    let mut latin = cluster.as_role("app").database("latin1").client();
    assert_eq!(present(&mut latin, &token("ren\u{e9}")), "00000");
    assert_eq!(text(&mut latin, "SELECT auth.user_id()").as_deref(), Some("ren\u{e9}"));
    let length: i32 = latin.query_one("SELECT octet_length(auth.user_id())", &[]).unwrap().get(0);
    assert_eq!(length, 4);
    let names = key.sign(&json!({"n\u{e9}": "right", "n\u{c3}\u{a9}": "wrong", "exp": now() + 60}));
    assert_eq!(present(&mut latin, &names), "00000");
    assert_eq!(text(&mut latin, "SELECT auth.claim('n\u{e9}')").as_deref(), Some("right"));
    assert_eq!(text(&mut latin, "SELECT auth.claim('n\u{c3}\u{a9}')").as_deref(), Some("wrong"));
    // Latin-1 has no euro sign.
    assert_eq!(present(&mut latin, &token("\u{20ac}")), "28J09");
    assert_eq!(text(&mut latin, "SELECT auth.user_id()"), None);
    assert_eq!(present(&mut latin, &token("alice")), "00000");
    let mut ascii = cluster.as_role("app").database("sql_ascii").client();
    assert_eq!(present(&mut ascii, &token("alice")), "00000");
    assert_eq!(text(&mut ascii, "SELECT auth.user_id()").as_deref(), Some("alice"));
}

/// Some conversions map several characters to one. A text that does not convert back to itself is
/// rejected, so that no two users share an identity, and no two claims or tables a name.
#[test]
fn texts_convert_back_to_themselves() {
    let key = Key::generate(Algorithm::ES256);
    let cluster = cluster_with(&key);
    let mut admin = cluster.admin();
    run(
        &mut admin,
        "CREATE FUNCTION there(text, encoding text) RETURNS bytea LANGUAGE plpgsql AS
             'BEGIN RETURN convert_to($1, $2); EXCEPTION WHEN OTHERS THEN RETURN NULL; END';
         CREATE FUNCTION back(bytea, encoding text) RETURNS text LANGUAGE plpgsql AS
             'BEGIN RETURN convert_from($1, $2); EXCEPTION WHEN OTHERS THEN RETURN NULL; END'",
    );
    let token = |claims: &str| {
        let payload = format!("{{{claims},\"exp\":{}}}", now() + 600);
        key.sign_raw(br#"{"alg":"ES256"}"#, payload.as_bytes())
    };
    let mut lossy = Vec::new();
    for encoding in [
        "EUC_JP",
        "EUC_KR",
        "EUC_CN",
        "EUC_TW",
        "EUC_JIS_2004",
        "LATIN1",
        "WIN1252",
        "WIN1258",
        "KOI8R",
    ] {
        // The characters that become another one on the way there and back.
        let rows = admin
            .query(
                "SELECT chr(c), back(there(chr(c), $1), $1) FROM generate_series(128, 65535) c
                 WHERE c NOT BETWEEN 55296 AND 57343 AND back(there(chr(c), $1), $1) <> chr(c)",
                &[&encoding],
            )
            .unwrap();
        let pairs: Vec<(String, String)> =
            rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        if pairs.is_empty() {
            continue;
        }
        lossy.push(encoding);
        run(
            &mut admin,
            &format!(
                "CREATE DATABASE {encoding} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
            ),
        );
        let database = encoding.to_lowercase();
        let mut owner = cluster.as_role("postgres").database(&database).client();
        run(&mut owner, "CREATE EXTENSION pg_session_jwt");
        let mut client = cluster.as_role("app").database(&database).client();
        for (one, other) in pairs.iter().take(8) {
            let code = |text: &str| {
                text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect::<String>()
            };
            let sub = |text: &str| token(&format!("\"sub\":\"{text}\""));
            assert_eq!(present(&mut client, &sub(other)), "00000", "{encoding} {other}");
            assert_eq!(text(&mut client, "SELECT auth.user_id()").as_ref(), Some(other));
            assert_eq!(present(&mut client, &sub(one)), "28J09", "{encoding} {one}");
            assert_eq!(text(&mut client, "SELECT auth.user_id()"), None);
            // As an escape, and behind other escapes.
            assert_eq!(present(&mut client, &sub(&code(other))), "00000", "{encoding} {other}");
            assert_eq!(text(&mut client, "SELECT auth.user_id()").as_ref(), Some(other));
            for claims in [
                format!("\"sub\":\"{}\"", code(one)),
                format!("\"sub\":\"a\",\"x\":\"\\\\\\\"{}\"", code(one)),
                format!("\"sub\":\"a\",\"x\":[{{\"{}\":1}}]", code(one)),
                format!("\"sub\":\"a\",\"{one}\":1"),
                format!("\"sub\":\"a\",\"role\":\"{one}\""),
                format!("\"sub\":\"a\",\"email\":\"{}\"", code(one)),
            ] {
                assert_eq!(present(&mut client, &token(&claims)), "28J09", "{encoding} {claims}");
                let verify = client.query("SELECT auth.jwt_verify($1)", &[&token(&claims)]);
                assert_eq!(sqlstate(verify), "28J09", "{encoding} {claims}");
            }
            // An escaped backslash before what looks like an escape.
            let claims = format!("\"sub\":\"a\",\"x\":\"\\\\{}\"", &code(one)[1..]);
            assert_eq!(present(&mut client, &token(&claims)), "00000", "{encoding} {claims}");
            assert_eq!(
                text(&mut client, "SELECT auth.claim('x')"),
                Some(code(one)),
                "{encoding} {claims}"
            );
        }
        assert_eq!(present(&mut client, &token(r#""sub":"\u00e9\ud83d\ude00""#)), "28J09");
    }
    assert!(lossy.contains(&"EUC_JP"), "{lossy:?}");
}

#[test]
fn the_catalog_says_what_functions_are() {
    let key = Key::generate(Algorithm::ES256);
    let cluster = cluster_with(&key);
    let mut client = cluster.as_role("app").client();
    let functions = client
        .query(
            "SELECT proname::text, provolatile::text, proparallel::text, proleakproof, procost,
                    obj_description(oid, 'pg_proc') IS NOT NULL,
                    has_function_privilege(oid, 'EXECUTE'), NOT prosecdef, proconfig IS NULL
             FROM pg_proc WHERE pronamespace = 'auth'::regnamespace ORDER BY 1",
            &[],
        )
        .unwrap();
    let names: Vec<&str> = functions.iter().map(|row| row.get(0)).collect();
    let readers = [
        "allows",
        "claim",
        "claim_jsonb",
        "email",
        "jwt",
        "organization",
        "organization_id",
        "provider_keys",
        "role",
        "session",
        "session_variable",
        "uid",
        "user_id",
    ];
    let for_administrators = ["add_provider", "refresh_provider", "remove_provider"];
    let for_triggers = ["check_ddl_drop", "check_ddl_end", "check_ddl_start", "check_provider"];
    // Whoever calls them runs with the search path that they name.
    let with_settings = ["protect", "protect_schema", "unprotect", "unprotect_schema"];
    let mut expected =
        ["demand", "init", "is_new", "jwt_session_init", "jwt_template", "jwt_verify", "table_of"]
            .to_vec();
    expected.extend(readers.iter().chain(&for_administrators));
    expected.extend(for_triggers.iter().chain(&with_settings));
    expected.sort();
    assert_eq!(names, expected);
    let changes = include_str!("../CHANGELOG.md");
    for row in &functions {
        let name: &str = row.get(0);
        let is_told = changes.contains(&format!("`auth.{name}`"));
        assert_eq!(is_told, !for_triggers.contains(&name), "{name} in the changelog");
        assert!(!row.get::<_, bool>(3), "{name} is not leakproof");
        assert!(row.get::<_, bool>(5), "{name} has a comment");
        // Those for administrators ask for privileges on the table.
        let is_for_all = name != "provider_keys" && !for_triggers.contains(&name);
        assert_eq!(row.get::<_, bool>(6), is_for_all, "who may execute {name}");
        assert!(row.get::<_, bool>(7), "{name} runs as its caller");
        let has_settings = ["add_provider", "check_ddl_drop", "check_ddl_end", "remove_provider"]
            .contains(&name)
            || with_settings.contains(&name);
        assert_eq!(row.get::<_, bool>(8), !has_settings, "the settings of {name}");
        let kind: (&str, &str) = (row.get(1), row.get(2));
        if name == "jwt_template" {
            assert_eq!(kind, ("i", "s"), "{name}");
        } else if ["check_ddl_drop", "demand", "table_of"].contains(&name) {
            assert_eq!(kind, ("s", "u"), "{name}");
        } else if name == "jwt_verify" {
            // An error in a worker would be logged by the leader, with the statement.
            assert_eq!(kind, ("s", "r"), "{name}");
        } else if readers.contains(&name) {
            assert_eq!(kind, ("s", "s"), "{name}");
            let is_cheap = row.get::<_, f32>(4) == 1.0;
            assert!(is_cheap, "the cost of {name}");
        } else {
            assert_eq!(kind, ("v", "u"), "{name}");
        }
    }
    let usage = "SELECT has_schema_privilege('auth', 'USAGE')::text";
    assert_eq!(text(&mut client, usage).as_deref(), Some("true"));
}

#[test]
fn create_extension() {
    let cluster = Cluster::start_bare(Preload::Neither, &[]);
    let mut admin = cluster.admin();
    admin.batch_execute("CREATE ROLE owner LOGIN; CREATE ROLE app LOGIN").unwrap();
    let database = |admin: &mut Client, name: &str, owner: &str| {
        admin.batch_execute(&format!("CREATE DATABASE {name} OWNER {owner}")).unwrap();
    };

    // By somebody who only owns the database, with and without a schema auth.
    for (name, before) in [("fresh", ""), ("prepared", "CREATE SCHEMA auth; CREATE TABLE auth.x()")]
    {
        database(&mut admin, name, "owner");
        let mut owner = cluster.as_role("owner").database(name).client();
        owner.batch_execute(before).unwrap();
        owner.batch_execute("CREATE EXTENSION pg_session_jwt").unwrap();
        let mut app = cluster.as_role("app").database(name).client();
        assert_eq!(text(&mut app, "SELECT auth.user_id()"), None);
        // What runs in everybody's session belongs to the superuser, not to the owner.
        assert_eq!(
            sqlstate(owner.batch_execute("ALTER FUNCTION auth.user_id() OWNER TO owner")),
            "42501"
        );
        owner.batch_execute("DROP EXTENSION pg_session_jwt").unwrap();
    }

    // Not into a schema where somebody else could plant functions of their own.
    for (name, before) in [
        ("owned", "CREATE SCHEMA auth AUTHORIZATION app"),
        ("granted", "CREATE SCHEMA auth; GRANT CREATE ON SCHEMA auth TO app"),
        ("public", "CREATE SCHEMA auth; GRANT CREATE ON SCHEMA auth TO PUBLIC"),
    ] {
        database(&mut admin, name, "owner");
        let mut superuser = cluster.as_role("postgres").database(name).client();
        superuser.batch_execute(before).unwrap();
        let outcome = superuser.batch_execute("CREATE EXTENSION pg_session_jwt");
        assert_eq!(sqlstate(outcome), "42501", "{name}");
    }
    database(&mut admin, "harmless", "owner");
    let mut superuser = cluster.as_role("postgres").database("harmless").client();
    let before = "CREATE SCHEMA auth AUTHORIZATION owner; GRANT USAGE ON SCHEMA auth TO app";
    superuser.batch_execute(before).unwrap();
    superuser.batch_execute("CREATE EXTENSION pg_session_jwt").unwrap();

    // Not by somebody who may not create anything there, and never over a function that is there.
    database(&mut admin, "other", "postgres");
    let mut app = cluster.as_role("app").database("other").client();
    assert_eq!(sqlstate(app.batch_execute("CREATE EXTENSION pg_session_jwt")), "42501");
    let mut owner = cluster.as_role("postgres").database("other").client();
    let planted = "CREATE SCHEMA auth;
                   CREATE FUNCTION auth.user_id() RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$";
    owner.batch_execute(planted).unwrap();
    assert_eq!(sqlstate(owner.batch_execute("CREATE EXTENSION pg_session_jwt")), "42723");
}

#[test]
fn the_reference_lists_the_settings() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let rows = cluster
        .admin()
        .query(
            "SELECT name, coalesce(boot_val, 'none') FROM pg_settings
             WHERE name LIKE 'pg\\_session\\_jwt.%' ORDER BY name",
            &[],
        )
        .unwrap();
    let mut settings: Vec<(String, String)> =
        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    // The one that is never shown.
    settings.push(("pg_session_jwt.jwt".to_owned(), "none".to_owned()));
    settings.sort();
    let reference = include_str!("../docs/reference.md");
    let mut documented: Vec<(String, String)> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `pg_session_jwt."))
        .map(|line| {
            let mut cells = line.split(" | ").map(|cell| cell.trim_matches('`').to_owned());
            let name = format!("pg_session_jwt.{}", cells.next().unwrap());
            (name, cells.next().unwrap())
        })
        .collect();
    documented.sort();
    assert_eq!(documented, settings);
}
