//! The table of providers: what may be in it, who may write it, and how soon it counts.

use harness::{
    Cluster, Preload, Wire, now, present, present_locally, run, sqlstate, text, user, wait_for,
};
use mint::{Algorithm, Key};
use postgres::Client;
use postgres::error::DbError;
use serde_json::{Value, json};

const ADD: &str = "SELECT auth.add_provider($1, issuer => $2, jwks => $3::text::json)";

fn cluster() -> Cluster {
    Cluster::start(Preload::Neither, &[])
}

fn key(kid: &str) -> Key {
    Key::generate(Algorithm::ES256).with_kid(kid)
}

fn client(cluster: &Cluster) -> Client {
    cluster.as_role("app").client()
}

/// Adds a provider whose issuer is its name.
fn add(client: &mut Client, name: &str, key: &Key) {
    client.execute(ADD, &[&name, &name, &key.public_jwk().to_string()]).unwrap();
}

fn token(key: &Key, issuer: &str, sub: &str) -> String {
    key.sign(&json!({"iss": issuer, "sub": sub, "exp": now() + 600}))
}

fn code_of_user(client: &mut Client) -> String {
    sqlstate(client.query("SELECT auth.user_id()", &[]))
}

fn error(outcome: Result<u64, postgres::Error>) -> DbError {
    outcome.unwrap_err().as_db_error().unwrap().clone()
}

#[test]
fn rows_are_held_to_the_rules_of_the_settings() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    let jwks = key("k").public_jwk();
    let private = key("k").private_jwk().unwrap();
    // What a setting would say, and what a row says.
    let cases: &[(&str, Value, &str)] = &[
        ("issuer", json!(""), "22023"),
        ("audience", json!([]), "22023"),
        ("audience", json!([""]), "22023"),
        ("algorithms", json!([]), "22023"),
        ("algorithms", json!(["none"]), "22023"),
        ("algorithms", json!(["HS256"]), "22023"),
        ("leeway", json!(-1), "22023"),
        ("leeway", json!(3601), "22023"),
        ("required_claims", json!([""]), "22023"),
        ("user_id_claim", json!("/~"), "22023"),
        ("role_claim", json!(""), "22023"),
        ("allowed_roles", json!([""]), "22023"),
        ("typ", json!([]), "22023"),
        ("jwks", json!({}), "22023"),
        ("jwks", json!([]), "22023"),
        ("jwks", private, "22023"),
        ("secret", json!("short"), "22023"),
        ("secret", json!("-----BEGIN PUBLIC KEY----- 0123456789abcdef"), "22023"),
        ("public_key", json!("0123456789abcdef"), "22023"),
        ("jwks", json!("https://example.com/jwks.json"), "22023"),
        ("secret", json!("0123456789abcdef0123456789abcdef"), "00000"),
        ("issuer", json!("i"), "00000"),
        ("audience", json!(["a", "b"]), "00000"),
        ("algorithms", json!(["ES256"]), "00000"),
        ("leeway", json!(0), "00000"),
        ("typ", json!(["at+jwt"]), "00000"),
        ("monotonic_jti", json!(true), "00000"),
        ("issuer", json!("https://x.example "), "22023"),
        ("issuer", json!("https://x.example/.well-known/openid-configuration"), "22023"),
        ("audience", json!(["app "]), "22023"),
        ("audience", json!(["a\u{1}b"]), "22023"),
        ("typ", json!(["JWT\n"]), "22023"),
        ("default_role", json!(" r"), "22023"),
        ("user_id_claim", json!("$.sub"), "22023"),
        ("role_claim", json!("/roles[0]"), "22023"),
        ("allowed_roles_claim", json!(".roles"), "22023"),
        ("claims_namespace", json!("h[\"x\"]"), "22023"),
        ("required_claims", json!(["$.sub"]), "22023"),
        ("required_claims", json!(["/o/id"]), "00000"),
        ("issuer", json!("https://x.example/jwks"), "22023"),
        ("issuer", json!("https://{tenant}.example"), "22023"),
        ("issuer", json!("accounts.example.com"), "00000"),
        ("audience", json!(["app,other"]), "22023"),
        ("allowed_roles", json!(["{reader}"]), "22023"),
        ("role_claim", json!("realm_access/roles"), "22023"),
        ("role_claim", json!("/roles/*"), "22023"),
        ("role_claim", json!("https://x.example/roles"), "00000"),
        ("required_claims", json!(["claims.role"]), "22023"),
        ("require", json!({"azp": "${CLIENT}"}), "22023"),
        ("require", json!({"azp": "app", "/o/id": [1, true]}), "00000"),
        ("require", json!({}), "22023"),
        ("require", json!("azp"), "22023"),
        ("require", json!({"azp": []}), "22023"),
        ("require", json!({"azp": [1.5]}), "22023"),
        ("require", json!({"azp": {"a": 1}}), "22023"),
        ("require", json!({"$.azp": "app"}), "22023"),
        ("max_token_age", json!(300), "00000"),
        ("max_token_age", json!(0), "22023"),
        ("max_token_age", json!(-1), "22023"),
    ];
    for (member, value, code) in cases {
        let mut row = json!({"name": "p", "jwks": jwks});
        row[*member] = value.clone();
        let what = format!("{member} {value}");
        let setting = row.to_string().replace('\'', "''");
        let in_settings = admin.execute(
            &format!("ALTER DATABASE postgres SET pg_session_jwt.providers = '{setting}'"),
            &[],
        );
        row["failures"] = json!(0);
        let insert = "INSERT INTO auth.providers
                      SELECT * FROM json_populate_record(NULL::auth.providers, $1::text::json)";
        let in_table = admin.execute(insert, &[&row.to_string()]);
        if *code == "00000" {
            assert!(
                in_settings.is_ok() && in_table.is_ok(),
                "{what}: {in_settings:?} {in_table:?}"
            );
            run(&mut admin, "ALTER DATABASE postgres RESET pg_session_jwt.providers");
            run(&mut admin, "SELECT auth.remove_provider('p')");
            continue;
        }
        let (in_settings, in_table) = (error(in_settings), error(in_table));
        assert_eq!(in_settings.code().code(), *code, "{what}");
        assert_eq!(in_table.code().code(), *code, "{what}");
        // The setting's own words come first, then the same.
        let (setting, table) = (in_settings.detail().unwrap(), in_table.detail().unwrap());
        assert!(setting.ends_with(table), "{what}: {setting} / {table}");
        let message = in_table.message();
        let said = setting.to_lowercase().contains(&message.to_lowercase());
        assert!(said, "{what}: {setting} / {message}");
    }
    assert_eq!(text(&mut admin, "SELECT count(*)::text FROM auth.providers").as_deref(), Some("0"));
}

/// In the type in which a caller has them, and whatever they are instead.
#[test]
fn keys_are_given_in_any_type() {
    let cluster = cluster();
    let mut admin = cluster.admin();
    run(&mut admin, "CREATE ROLE dba LOGIN; GRANT SELECT, INSERT, DELETE ON auth.providers TO dba");
    let mut dba = cluster.as_role("dba").client();
    let jwk = key("k").public_jwk().to_string();
    for call in [
        format!("auth.add_provider('p', jwks => '{jwk}')"),
        format!("auth.add_provider('p', jwks => '{jwk}'::text)"),
        format!("auth.add_provider('p', jwks => '{jwk}'::json)"),
        format!("auth.add_provider('p', jwks => '{jwk}'::jsonb)"),
        format!("auth.add_provider('p', NULL, NULL, '{jwk}')"),
        format!("auth.add_provider('p', NULL, NULL, '{jwk}'::jsonb)"),
    ] {
        run(&mut dba, &format!("SELECT {call}; SELECT auth.remove_provider('p')"));
    }
    let add = "SELECT auth.add_provider('p', jwks => $1)";
    dba.execute(add, &[&jwk]).unwrap();
    run(&mut dba, "SELECT auth.remove_provider('p')");
    for (jwks, hint) in [
        ("-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----", "\"public_key\""),
        ("https://example.com/jwks.json", "\"jwks_url\""),
        ("eyJhbGciOiJFUzI1NiJ9.e30.AAAA", "A token is what the key signs"),
        (
            "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=",
            "\"public_key\", in base64",
        ),
        ("{\"issuer\": \"x\", \"jwks_uri\": \"y\"}", "discovery"),
    ] {
        let error = error(dba.execute(add, &[&jwks]));
        assert_eq!(error.code().code(), "22023", "{jwks}");
        assert!(error.hint().unwrap().contains(hint), "{error:?}");
        for name in ["jwk", "providers"] {
            let value =
                if name == "jwk" { jwks.to_owned() } else { json!({"jwks": jwks}).to_string() };
            let set = format!("ALTER DATABASE postgres SET pg_session_jwt.{name} = '{value}'");
            assert_eq!(
                sqlstate(admin.batch_execute(&format!("LOAD 'pg_session_jwt'; {set}"))),
                "22023"
            );
        }
    }
    // What is not JSON does not come to a column of that type.
    let insert = "INSERT INTO auth.providers (name, jwks) VALUES ('p', '-----BEGIN')";
    assert_eq!(sqlstate(dba.batch_execute(insert)), "22P02");
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
               -----END PUBLIC KEY-----";
    dba.execute("SELECT auth.add_provider('p', issuer => 'p', public_key => $1)", &[&pem]).unwrap();
    let status = "SELECT source || ' ' || state FROM auth.provider_status";
    assert_eq!(text(&mut admin, status).as_deref(), Some("public_key own keys"));
}

/// A secret verifies before the public keys are fetched, and asks for none.
#[test]
fn a_secret_stands_beside_keys_that_are_fetched() {
    let cluster = cluster();
    let mut admin = cluster.admin();
    let secret = "a secret of at least 32 bytes, I would say";
    let add = "SELECT auth.add_provider('p', issuer => 'p', secret => $1,
                   jwks_url => 'https://127.0.0.1:9/jwks.json')";
    admin.execute(add, &[&secret]).unwrap();
    let legacy = Key::from_secret(Algorithm::HS256, secret.as_bytes()).with_kid("unknown");
    let mut app = client(&cluster);
    assert_eq!(present(&mut app, &token(&legacy, "p", "alice")), "00000");
    assert_eq!(user(&mut app).as_deref(), Some("alice"));
    let forged = Key::generate(Algorithm::HS256).with_kid("unknown");
    assert_eq!(present(&mut client(&cluster), &token(&forged, "p", "root")), "28J03");
    let demands = "SELECT count(last_demand)::text FROM auth.providers";
    assert_eq!(text(&mut admin, demands).as_deref(), Some("0"));
    // Keys that are too old are no matter of the secret.
    let keys = json!({"keys": [key("k").public_jwk()]}).to_string();
    let set = "UPDATE auth.providers SET fetched_jwks = $1::text::json, fetched_from = jwks_url,
                   last_success = now() - interval '2 days', next_refresh = now() + interval '1 hour'";
    admin.execute(set, &[&keys]).unwrap();
    assert_eq!(present(&mut app, &token(&legacy, "p", "alice")), "00000");
    assert_eq!(user(&mut app).as_deref(), Some("alice"));
    let state = "SELECT source || ' ' || state FROM auth.provider_status";
    assert_eq!(text(&mut admin, state).as_deref(), Some("jwks_url too old"));
    assert_eq!(text(&mut admin, demands).as_deref(), Some("0"));
}

/// What a row asks of claims and of a token's age is asked when the token is presented, and again when
/// the row or the clock says otherwise.
#[test]
fn required_values_and_ages() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    let key = key("k");
    let jwks = key.public_jwk().to_string();
    let add = "SELECT auth.add_provider('p', issuer => 'p', jwks => $1::text::json, leeway => 0,
                   require => '{\"azp\": [\"web\", \"app\"], \"/o/id\": 7}', max_token_age => 300)";
    admin.execute(add, &[&jwks]).unwrap();
    let token = |more: Value| {
        let mut claims = json!({"iss": "p", "sub": "alice", "exp": now() + 600, "iat": now(),
                                "azp": "app", "o": {"id": 7}});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key.sign(&claims)
    };
    let mut app = client(&cluster);
    for (more, code) in [
        (json!({}), "00000"),
        (json!({"azp": ["x", "web"]}), "00000"),
        (json!({"azp": "other"}), "28J09"),
        (json!({"azp": null}), "28J09"),
        (json!({"o": {"id": "7"}}), "28J09"),
        (json!({"iat": null}), "28J09"),
        (json!({"iat": "now"}), "28J09"),
        (json!({"iat": now() - 301}), "28J04"),
        (json!({"iat": now() + 100}), "28J05"),
        (json!({"iat": now() - 200}), "00000"),
    ] {
        assert_eq!(present(&mut app, &token(more.clone())), code, "{more}");
        let expected = (code == "00000").then_some("alice");
        assert_eq!(user(&mut app).as_deref(), expected, "{more}");
    }
    let refused = app.execute("SELECT auth.jwt_session_init($1)", &[&token(json!({"azp": "x"}))]);
    let detail = "The claim \"azp\" is \"x\"; expected is \"web\", \"app\".";
    assert_eq!(error(refused).detail(), Some(detail));

    // A session's token is held to the row as it is now.
    assert_eq!(present(&mut app, &token(json!({}))), "00000");
    run(&mut admin, "UPDATE auth.providers SET require = '{\"azp\": \"web\"}'");
    assert_eq!(code_of_user(&mut app), "28J09");
    run(&mut admin, "UPDATE auth.providers SET require = NULL");
    assert_eq!(user(&mut app).as_deref(), Some("alice"));
    run(&mut admin, "UPDATE auth.providers SET require = '{\"azp\": \"app\"}'");

    // Age is one more expiry, for the tokens that the session remembers, too.
    let old = token(json!({"iat": now() - 297}));
    assert_eq!(present(&mut app, &old), "00000");
    assert_eq!(user(&mut app).as_deref(), Some("alice"));
    wait_for("the token to be too old", || code_of_user(&mut app) == "28J04");
    assert_eq!(present(&mut app, &old), "28J04");
    assert_eq!(user(&mut app), None);
}

#[test]
fn rows_are_checked_whatever_writes_them() {
    let cluster = cluster();
    let mut admin = cluster.admin();
    let first = key("k");
    add(&mut admin, "p", &first);
    let alice = token(&first, "p", "alice");
    let mut session = client(&cluster);
    assert_eq!(present(&mut session, &alice), "00000");

    let bad = |client: &mut Client, sql: &str| sqlstate(client.batch_execute(sql));
    for sql in [
        "UPDATE auth.providers SET leeway = 9999",
        "UPDATE auth.providers SET jwks_url = 'https://example.com/jwks.json'",
        "UPDATE auth.providers SET jwks = NULL",
        "UPDATE auth.providers SET jwks = NULL, jwks_url = 'http://example.com/'",
        "UPDATE auth.providers SET jwks = NULL, jwks_url = 'https://a:b@example.com/'",
        "UPDATE auth.providers SET jwks = NULL, issuer = NULL, jwks_url = NULL",
        "UPDATE auth.providers SET fetched_jwks = '{}'",
        "UPDATE auth.providers SET keep_keys = 86401",
        "UPDATE auth.providers SET keep_keys = 299",
        "SET session_replication_role = replica; UPDATE auth.providers SET leeway = 9999",
        "INSERT INTO auth.providers (name) VALUES ('q')",
        "INSERT INTO auth.providers (name, issuer) VALUES ('q', 'not a url')",
        "INSERT INTO auth.providers (name, issuer) VALUES (repeat('x', 91), 'https://example.com')",
        "SELECT auth.add_provider('q', issuer => 'https://example.com', secret => 'x')",
        "MERGE INTO auth.providers USING (SELECT 1) x ON true WHEN MATCHED THEN UPDATE SET leeway = -1",
    ] {
        assert_eq!(bad(&mut admin, sql), "22023", "{sql}");
    }
    run(&mut admin, "RESET session_replication_role");
    // As does COPY.
    let mut copy = admin.copy_in("COPY auth.providers (name, issuer, leeway) FROM STDIN").unwrap();
    std::io::Write::write_all(&mut copy, b"q\thttps://example.com\t9999\n").unwrap();
    assert_eq!(sqlstate(copy.finish()), "22023");
    // Names and issuers are there once.
    let jwks = first.public_jwk().to_string();
    for (name, issuer) in [("p", Some("q")), ("q", Some("p"))] {
        assert_eq!(sqlstate(admin.execute(ADD, &[&name, &issuer, &jwks])), "23505");
    }
    admin.execute(ADD, &[&"without", &None::<&str>, &jwks]).unwrap();
    assert_eq!(sqlstate(admin.execute(ADD, &[&"without too", &None::<&str>, &jwks])), "23505");
    for name in ["remove", "refresh"] {
        let missing = format!("SELECT auth.{name}_provider('missing')");
        assert_eq!(sqlstate(admin.execute(&missing, &[])), "42704");
    }
    assert_eq!(sqlstate(admin.execute("SELECT auth.refresh_provider('p')", &[])), "28J11");

    // Where all have one operator's keys, an audience is asked for.
    for issuer in ["https://accounts.google.com", "https://securetoken.google.com/x"] {
        let add = "SELECT auth.add_provider('g', issuer => $1)";
        let error = error(admin.execute(add, &[&issuer]));
        assert_eq!(error.code().code(), "22023");
        assert!(error.hint().unwrap().contains("anybody else's application"), "{error:?}");
    }
    run(
        &mut admin,
        "BEGIN; SELECT auth.add_provider('g', issuer => 'https://accounts.google.com',
             audience => ARRAY['me']); ROLLBACK",
    );
    // Nothing that was refused has cost anything.
    assert_eq!(user(&mut session).as_deref(), Some("alice"));

    // The trigger is for this table alone.
    run(&mut admin, "CREATE TABLE other (LIKE auth.providers)");
    run(
        &mut admin,
        "CREATE TRIGGER t BEFORE INSERT ON other FOR EACH ROW EXECUTE FUNCTION auth.check_provider()",
    );
    assert_eq!(bad(&mut admin, "INSERT INTO other SELECT * FROM auth.providers"), "22023");
    run(&mut admin, "CREATE TABLE small (x int)");
    run(
        &mut admin,
        "CREATE TRIGGER t BEFORE INSERT ON small FOR EACH ROW EXECUTE FUNCTION auth.check_provider()",
    );
    assert_eq!(bad(&mut admin, "INSERT INTO small VALUES (1)"), "22023");
    assert_eq!(bad(&mut admin, "SELECT auth.check_provider()"), "22023");
}

#[test]
fn only_administrators_say_whom_to_trust() {
    let cluster = cluster();
    let mut admin = cluster.admin();
    let (first, mallory) = (key("k"), key("k"));
    add(&mut admin, "p", &first);
    let secret = "a secret of more than 32 bytes, I would say";
    let add_secret = "SELECT auth.add_provider('s', issuer => 's', secret => $1)";
    admin.execute(add_secret, &[&secret]).unwrap();
    let mut app = client(&cluster);
    let jwk = mallory.public_jwk().to_string();
    for sql in [
        "SELECT * FROM auth.providers",
        "SELECT * FROM auth.provider_status",
        "SELECT auth.remove_provider('p')",
        "SELECT auth.refresh_provider('p')",
        "UPDATE auth.providers SET leeway = 1",
        "TRUNCATE auth.providers",
        "ALTER TABLE auth.providers DISABLE TRIGGER check_provider",
        "DROP INDEX auth.providers_issuer_key",
        "SELECT auth.add_provider('q', issuer => 'https://example.com')",
        "CREATE TABLE auth.mine (x int)",
        "SELECT auth.provider_keys('p')",
        "CREATE TEMP TABLE t (x auth.providers)",
        "CREATE TEMP TABLE t (x int);
         CREATE TRIGGER t BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION auth.check_provider()",
    ] {
        assert_eq!(sqlstate(app.batch_execute(sql)), "42501", "{sql}");
    }
    assert_eq!(sqlstate(app.execute(ADD, &[&"q", &"q", &jwk])), "42501");

    // Nor do look-alikes count, wherever they are, nor what is in a search path.
    run(&mut admin, "CREATE SCHEMA fake; GRANT ALL ON SCHEMA fake TO app");
    run(
        &mut app,
        "SET search_path = fake, auth;
         CREATE TABLE fake.providers (name text, issuer text, jwks json);
         CREATE FUNCTION fake.row_to_json(record) RETURNS json LANGUAGE plpgsql
             AS 'BEGIN RETURN NULL; END';
         CREATE FUNCTION fake.clock_timestamp() RETURNS timestamptz LANGUAGE sql
             AS 'SELECT null::timestamptz'",
    );
    app.execute("INSERT INTO fake.providers VALUES ('m', 'm', $1::text::json)", &[&jwk]).unwrap();
    assert_eq!(present(&mut app, &token(&mallory, "m", "root")), "28J02");
    assert_eq!(present(&mut app, &token(&first, "p", "alice")), "00000");

    // A table of that name in a database without the extension is a table like any other.
    run(&mut admin, "CREATE DATABASE bare");
    let mut bare = cluster.as_role("postgres").database("bare").client();
    run(
        &mut bare,
        "LOAD 'pg_session_jwt'; CREATE SCHEMA auth;
         CREATE TABLE auth.providers (name text, issuer text, jwks json)",
    );
    bare.execute("INSERT INTO auth.providers VALUES ('m', 'm', $1::text::json)", &[&jwk]).unwrap();
    let set = "SELECT set_config('pg_session_jwt.jwt', $1, false)";
    assert_eq!(sqlstate(bare.execute(set, &[&token(&mallory, "m", "root")])), "28J02");

    // Nor does the table itself, once it is the extension's no more.
    run(&mut admin, "ALTER EXTENSION pg_session_jwt DROP TABLE auth.providers");
    assert_eq!(present(&mut client(&cluster), &token(&first, "p", "alice")), "28J02");
    run(&mut admin, "ALTER EXTENSION pg_session_jwt ADD TABLE auth.providers");
    assert_eq!(present(&mut client(&cluster), &token(&first, "p", "alice")), "00000");

    // A table that was altered is none, and says so: its values would be taken for what they are not.
    run(&mut admin, "CREATE TYPE tag AS ENUM ('x')");
    for alter in [
        "ALTER TABLE auth.providers ALTER etag TYPE bigint USING 5",
        "ALTER TABLE auth.providers ALTER fetched_from TYPE tag USING NULL",
        "ALTER TABLE auth.providers DROP passed_over",
        "ALTER TABLE auth.providers RENAME passed_over TO audience_too",
        "ALTER TABLE auth.providers DISABLE TRIGGER check_provider",
        "ALTER TABLE auth.providers DISABLE TRIGGER ALL; ALTER TABLE auth.providers ENABLE TRIGGER ALL",
        "ALTER TABLE auth.providers ENABLE TRIGGER check_provider",
        "ALTER TRIGGER check_provider ON auth.providers RENAME TO x",
    ] {
        assert_eq!(present(&mut app, &token(&first, "p", "alice")), "00000");
        let view = "DROP VIEW IF EXISTS auth.provider_status";
        run(
            &mut admin,
            &format!(
                "BEGIN; ALTER EXTENSION pg_session_jwt DROP VIEW auth.provider_status; {view}; {alter}"
            ),
        );
        assert_eq!(present(&mut admin, &token(&first, "p", "alice")), "22023", "{alter}");
        run(&mut admin, "ROLLBACK");
        assert_eq!(present(&mut admin, &token(&first, "p", "alice")), "00000", "{alter}");
        assert_eq!(user(&mut app).as_deref(), Some("alice"));
    }
    // More columns do not matter, of whatever type.
    run(&mut admin, "ALTER TABLE auth.providers ADD note tag DEFAULT 'x'");
    assert_eq!(present(&mut client(&cluster), &token(&first, "p", "alice")), "00000");

    // What is granted is granted, and monitors see no secrets.
    run(
        &mut admin,
        "CREATE ROLE dba LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON auth.providers TO dba;
         CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher",
    );
    let mut dba = cluster.as_role("dba").client();
    add(&mut dba, "q", &mallory);
    assert_eq!(present(&mut app, &token(&mallory, "q", "bob")), "00000");
    run(&mut dba, "SELECT auth.remove_provider('q')");
    assert_eq!(code_of_user(&mut app), "28J02");
    let mut watcher = cluster.as_role("watcher").client();
    let status = "SELECT string_agg(s::text, ' ' ORDER BY name) FROM auth.provider_status s";
    let status = text(&mut watcher, status).unwrap();
    assert!(status.contains("ES256") && status.contains("HS256"), "{status}");
    assert!(!status.contains(secret), "{status}");
    assert_eq!(sqlstate(watcher.execute("SELECT secret FROM auth.providers", &[])), "42501");

    // An owner of the database who made the extension is no superuser.
    run(&mut admin, "CREATE ROLE landlord LOGIN");
    run(&mut admin, "CREATE DATABASE let OWNER landlord");
    let mut landlord = cluster.as_role("landlord").database("let").client();
    run(&mut landlord, "CREATE EXTENSION pg_session_jwt");
    assert_eq!(sqlstate(landlord.execute(ADD, &[&"m", &"m", &jwk])), "42501");
    for sql in [
        "ALTER TABLE auth.providers RENAME TO old",
        "ALTER TABLE auth.providers DISABLE TRIGGER ALL",
        "ALTER EXTENSION pg_session_jwt DROP TABLE auth.providers",
    ] {
        assert_eq!(sqlstate(landlord.batch_execute(sql)), "42501", "{sql}");
    }
    assert_eq!(sqlstate(landlord.batch_execute("DROP TABLE auth.providers")), "2BP01");
    let index = "DROP INDEX auth.providers_issuer_key";
    assert_eq!(sqlstate(landlord.batch_execute(index)), "2BP01");
    // But may dump the database.
    let port = cluster.port().to_string();
    let mut dump = cluster.program("pg_dump");
    dump.args(["-h", "127.0.0.1", "-U", "landlord", "-p", &port, "let"]);
    let dump = dump.output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    run(
        &mut landlord,
        "CREATE SCHEMA own; CREATE TABLE own.providers (name text, issuer text, jwks json);
         ALTER EXTENSION pg_session_jwt ADD TABLE own.providers",
    );
    landlord
        .execute("INSERT INTO own.providers VALUES ('m', 'm', $1::text::json)", &[&jwk])
        .unwrap();
    assert_eq!(present(&mut landlord, &token(&mallory, "m", "root")), "28J02");
}

#[test]
fn refreshing_takes_select_and_update() {
    let cluster = cluster();
    let mut admin = cluster.admin();
    add(&mut admin, "p", &key("k"));
    let refresh = "SELECT auth.refresh_provider('p')";
    for (granted, expected) in [
        ("SELECT", "42501"),
        ("UPDATE", "42501"),
        ("INSERT, DELETE", "42501"),
        // It has keys of its own.
        ("SELECT, UPDATE", "28J11"),
    ] {
        run(&mut admin, &format!("GRANT {granted} ON auth.providers TO app"));
        let mut app = client(&cluster);
        assert_eq!(sqlstate(app.batch_execute(refresh)), expected, "{granted}");
        run(&mut admin, "REVOKE ALL ON auth.providers FROM app");
    }
}

/// With some privilege on the table, short of writing it, a role must not keep a provider there.
#[test]
fn removal_is_not_blocked_by_what_others_attach() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    add(&mut admin, "p", &key("k"));
    run(
        &mut admin,
        "GRANT SELECT, REFERENCES, TRIGGER ON auth.providers TO app; GRANT CREATE ON SCHEMA public TO app;
         GRANT CREATE ON DATABASE postgres TO app;
         CREATE ROLE dba; GRANT SELECT, DELETE ON auth.providers TO dba",
    );
    let mut app = client(&cluster);
    run(
        &mut app,
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TABLE plain (name text, issuer text); CREATE TABLE parted (name text) PARTITION BY LIST (name)",
    );
    for attach in [
        "CREATE TABLE r (name text REFERENCES auth.providers)",
        "CREATE TABLE r (issuer text REFERENCES auth.providers (issuer) ON DELETE SET NULL)",
        "CREATE TABLE r (name text, FOREIGN KEY (name) REFERENCES auth.providers)",
        "CREATE TEMP TABLE r (name text REFERENCES auth.providers)",
        "ALTER TABLE plain ADD FOREIGN KEY (name) REFERENCES auth.providers NOT VALID",
        "ALTER TABLE plain ADD COLUMN p text REFERENCES auth.providers",
        "ALTER TABLE parted ADD FOREIGN KEY (name) REFERENCES auth.providers",
        "CREATE SCHEMA r CREATE TABLE r (name text REFERENCES auth.providers)",
        "CREATE TRIGGER keep BEFORE DELETE ON auth.providers FOR EACH ROW EXECUTE FUNCTION keep()",
        "CREATE OR REPLACE TRIGGER check_provider BEFORE DELETE ON auth.providers
             FOR EACH ROW EXECUTE FUNCTION keep()",
        "CREATE CONSTRAINT TRIGGER keep AFTER DELETE ON auth.providers
             FOR EACH ROW EXECUTE FUNCTION keep()",
        "CREATE TRIGGER keep AFTER DELETE ON auth.providers EXECUTE FUNCTION keep()",
        "CREATE RULE keep AS ON DELETE TO auth.providers DO INSTEAD NOTHING",
        "CREATE POLICY keep ON auth.providers",
        "CREATE TABLE r () INHERITS (auth.providers)",
        "ALTER TABLE auth.providers INHERIT plain",
        "CREATE PUBLICATION r FOR TABLE auth.providers",
        "CREATE STATISTICS r ON name, issuer FROM auth.providers",
        "DO 'BEGIN LOCK TABLE auth.providers IN SHARE MODE; END'",
        "SELECT FROM auth.providers FOR KEY SHARE",
    ] {
        // A temporary table references none that is not.
        let expected = if attach.starts_with("CREATE TEMP") { "42P16" } else { "42501" };
        assert_eq!(sqlstate(app.batch_execute(attach)), expected, "{attach}");
    }
    run(&mut app, "CREATE VIEW v AS SELECT name FROM auth.providers; BEGIN; TABLE v");
    run(&mut admin, "SET ROLE dba; SET lock_timeout = '5s'; SELECT auth.remove_provider('p')");
    // The table's owner may, as with every table.
    run(&mut admin, "RESET ROLE; CREATE TABLE r (name text REFERENCES auth.providers)");
}

#[test]
fn secrets_stay_out_of_what_postgres_writes() {
    let settings = [("log_statement", "all"), ("log_min_duration_statement", "0")];
    let cluster = Cluster::start(Preload::Shared, &settings);
    let mut admin = cluster.admin();
    let secret = "SwordfishSwordfishSwordfishSwordfish";
    let key = Key::from_secret(Algorithm::HS256, secret.as_bytes());
    let jwk = json!({"kty": "oct", "k": "U3dvcmRmaXNoU3dvcmRmaXNoU3dvcmRmaXNoU3dvcmRmaXNo"});
    run(&mut admin, &format!("SELECT auth.add_provider('a', issuer => 'a', secret => '{secret}')"));
    run(&mut admin, &format!("SELECT auth.add_provider('b', issuer => 'b', jwks => '{jwk}')"));
    run(&mut admin, &format!("UPDATE auth.providers SET secret = '{secret}' WHERE name = 'a'"));
    for (wrong, code) in [
        (format!("SELECT auth.add_provider('a', issuer => 'c', secret => '{secret}')"), "23505"),
        (format!("SELECT auth.add_provider('a', 'c', NULL, NULL, '{secret}')"), "23505"),
        (
            format!(
                "INSERT INTO auth.providers (name, leeway, secret) VALUES ('x', -1, '{secret}')"
            ),
            "22023",
        ),
        (
            format!("INSERT INTO auth.providers (secret, failures) VALUES ('{secret}', 'x')"),
            "22P02",
        ),
        (
            format!(
                "UPDATE auth.providers SET failures = NULL, secret = U&'{secret}', leeway = -1"
            ),
            "22023",
        ),
    ] {
        assert_eq!(sqlstate(admin.batch_execute(&wrong)), code, "{wrong}");
    }
    // What the error's context says of the statements around it.
    let function = "PL/pgSQL function auth.add_provider(";
    for (wrong, told) in [
        (
            format!("SELECT auth.add_provider('a', issuer => 'c', secret => '{secret}')"),
            ["SQL statement \"INSERT INTO auth.providers (", "add_provider.secret", function],
        ),
        (
            format!(
                "DO $$ BEGIN PERFORM auth.add_provider('a', 'c', NULL, NULL, '{secret}'); END $$"
            ),
            ["SQL statement \"SELECT auth.add_provider('a', 'c', NULL, NULL, '****", "", function],
        ),
    ] {
        let error = admin.batch_execute(&wrong).unwrap_err();
        let context = error.as_db_error().unwrap().where_().unwrap();
        for part in told {
            assert!(context.contains(part), "{part} of {context}");
        }
        assert!(!context.contains("Swordfish"), "{context}");
    }
    let mut copy = admin.copy_in("COPY auth.providers (name, secret, leeway) FROM STDIN").unwrap();
    std::io::Write::write_all(&mut copy, format!("c\t{secret}\tx\n").as_bytes()).unwrap();
    assert_eq!(sqlstate(copy.finish()), "22P02");
    // As a parameter, which log_statement shows, too.
    let mut wire = Wire::connect(&cluster.as_role("postgres")).unwrap();
    let add = "SELECT auth.add_provider('d', issuer => 'd', secret => $1)";
    wire.ask(add, &[secret]).unwrap().unwrap();
    wire.ask(add, &[secret]).unwrap().unwrap_err();
    let shown = "SELECT string_agg(query, ' ') FROM pg_stat_activity";
    let mut other = cluster.admin();
    let activity = text(&mut other, shown).unwrap();
    assert_eq!(
        present(&mut admin, &key.sign(&json!({"iss": "a", "sub": "alice", "exp": now() + 60}))),
        "00000"
    );
    for place in [cluster.log(), activity] {
        assert!(!place.contains("Swordfish") && !place.contains("U3dvcmR"), "{place}");
    }
}

#[test]
fn changes_are_transactional() {
    let cluster = cluster();
    let (mut admin, mut app) = (cluster.admin(), client(&cluster));
    let (first, second) = (key("k1"), key("k2"));
    let (alice, bob) = (token(&first, "p", "alice"), token(&second, "q", "bob"));

    // What is not committed is nobody else's business.
    run(&mut admin, "BEGIN");
    add(&mut admin, "p", &first);
    assert_eq!(present(&mut admin, &alice), "00000");
    assert_eq!(present(&mut app, &alice), "28J02");
    run(&mut admin, "ROLLBACK");
    assert_eq!(user(&mut admin), None);
    assert_eq!(present(&mut admin, &alice), "28J02");
    run(&mut admin, "BEGIN");
    add(&mut admin, "p", &first);
    assert_eq!(present(&mut app, &alice), "28J02");
    run(&mut admin, "COMMIT");
    assert_eq!(present(&mut app, &alice), "00000");

    // A removal that is rolled back removes nothing, for others at no time.
    for (begin, end) in [
        ("BEGIN", "ROLLBACK"),
        ("BEGIN; SAVEPOINT s", "ROLLBACK TO s; COMMIT"),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", "ROLLBACK"),
    ] {
        assert_eq!(present(&mut admin, &alice), "00000");
        run(&mut admin, begin);
        run(&mut admin, "SELECT auth.remove_provider('p')");
        run(&mut admin, "SAVEPOINT read");
        assert_eq!(code_of_user(&mut admin), "28J02");
        run(&mut admin, "ROLLBACK TO read");
        assert_eq!(user(&mut app).as_deref(), Some("alice"));
        assert_eq!(present(&mut client(&cluster), &alice), "00000");
        run(&mut admin, end);
        assert_eq!(user(&mut admin).as_deref(), Some("alice"), "{end}");
        assert_eq!(user(&mut app).as_deref(), Some("alice"));
    }

    // One that is committed reaches a transaction whose snapshot is older.
    run(&mut app, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM pg_class");
    assert_eq!(user(&mut app).as_deref(), Some("alice"));
    run(&mut admin, "BEGIN; SELECT auth.remove_provider('p')");
    add(&mut admin, "q", &second);
    run(&mut admin, "COMMIT");
    assert_eq!(code_of_user(&mut app), "28J02");
    run(&mut app, "ROLLBACK");
    assert_eq!(present(&mut app, &bob), "00000");

    // Two phases: it counts from the second on.
    cluster.append_configuration(&[("max_prepared_transactions", "5")]);
    cluster.restart_in_mode("fast");
    let (mut admin, mut app) = (cluster.admin(), client(&cluster));
    assert_eq!(present(&mut app, &bob), "00000");
    run(&mut admin, "BEGIN; SELECT auth.remove_provider('q'); PREPARE TRANSACTION 'x'");
    assert_eq!(user(&mut app).as_deref(), Some("bob"));
    run(&mut admin, "COMMIT PREPARED 'x'");
    assert_eq!(code_of_user(&mut app), "28J02");
}

#[test]
fn changes_count_everywhere_at_once() {
    let cluster = cluster();
    let mut admin = cluster.admin();
    let first = key("k1");
    let jwk = key("k1").public_jwk();
    let alice = token(&first, "p", "alice");
    run(
        &mut admin,
        "CREATE TABLE notes (owner text); INSERT INTO notes VALUES ('alice'), ('bob');
         ALTER TABLE notes ENABLE ROW LEVEL SECURITY; GRANT SELECT ON notes TO app;
         CREATE POLICY p ON notes USING (owner = auth.user_id())",
    );
    let extension = "DROP EXTENSION pg_session_jwt CASCADE; CREATE EXTENSION pg_session_jwt;
                     CREATE POLICY p ON notes USING (owner = auth.user_id())";
    for (change, code) in [
        ("SELECT auth.remove_provider('p')".to_owned(), "28J02"),
        ("DELETE FROM auth.providers".to_owned(), "28J02"),
        ("TRUNCATE auth.providers".to_owned(), "28J02"),
        ("UPDATE auth.providers SET issuer = 'q'".to_owned(), "28J02"),
        ("UPDATE auth.providers SET audience = '{me}'".to_owned(), "28J07"),
        ("UPDATE auth.providers SET algorithms = '{ES384,ES256}'".to_owned(), "00000"),
        ("UPDATE auth.providers SET required_claims = '{exp,jti}'".to_owned(), "28J09"),
        ("UPDATE auth.providers SET user_id_claim = 'exp'".to_owned(), "other"),
        ("UPDATE auth.providers SET typ = '{at+jwt}'".to_owned(), "28J01"),
        (format!("UPDATE auth.providers SET jwks = '{jwk}'"), "28J03"),
        (
            "UPDATE auth.providers SET jwks = NULL, issuer = 'https://localhost:1'".to_owned(),
            "28J02",
        ),
        (extension.to_owned(), "28J02"),
    ] {
        run(&mut admin, "DELETE FROM auth.providers");
        add(&mut admin, "p", &first);
        // Ready, within a transaction, with a prepared statement, in a cursor's transaction.
        let mut sessions: Vec<Client> = (0..4).map(|_| client(&cluster)).collect();
        for session in &mut sessions {
            assert_eq!(present(session, &alice), "00000");
            assert_eq!(user(session).as_deref(), Some("alice"));
        }
        let mut fresh = client(&cluster);
        let [idle, within, prepared, block] = &mut sessions[..] else { unreachable!() };
        let rows = "SELECT count(*) FROM notes";
        assert_eq!(idle.query_one(rows, &[]).unwrap().get::<_, i64>(0), 1);
        run(within, "BEGIN");
        assert_eq!(user(within).as_deref(), Some("alice"));
        let statement = prepared.prepare("SELECT auth.user_id()").unwrap();
        run(prepared, "BEGIN");
        prepared.query(&statement, &[]).unwrap();
        // An expression that is no statement of its own.
        let expression = "DO $$ DECLARE x text := auth.user_id(); BEGIN END $$";
        run(block, &format!("BEGIN; {expression}"));

        run(&mut admin, &change);
        let gone = "0A000 42883 XX000 42P01";
        let check = |code_found: String| {
            let expected = match code {
                "other" => "00000",
                code => code,
            };
            let by_drop = change.starts_with("DROP") && gone.contains(&code_found);
            assert!(code_found == expected || by_drop, "{change}: {code_found}");
        };
        check(sqlstate(idle.query(rows, &[])));
        check(code_of_user(within));
        check(sqlstate(prepared.query(&statement, &[])));
        check(sqlstate(block.batch_execute(expression)));
        check(present(&mut fresh, &alice));
        if code == "other" {
            assert_ne!(user(idle).as_deref(), Some("alice"));
            assert_eq!(idle.query_one(rows, &[]).unwrap().get::<_, i64>(0), 0);
        }
    }
}

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
        ("a", &first, "00000"),
        ("b", &second, "00000"),
        ("a", &second, "28J03"),
        ("b", &first, "28J03"),
        ("c", &first, "28J02"),
        ("A", &first, "28J02"),
        ("a ", &first, "28J02"),
        ("a/", &first, "28J02"),
    ];
    for (issuer, key, code) in cases {
        assert_eq!(present(&mut app, &token(key, issuer, "x")), code, "{issuer}");
        assert_eq!(user(&mut app).is_some(), code == "00000", "{issuer}");
    }
    let unnamed = first.sign(&json!({"sub": "x", "exp": now() + 60}));
    assert_eq!(present(&mut app, &unnamed), "28J06");

    // The one without issuer serves whoever is nobody's.
    let jwk = third.public_jwk().to_string();
    admin.execute(ADD, &[&"none", &None::<&str>, &jwk]).unwrap();
    let unnamed = third.sign(&json!({"sub": "x", "exp": now() + 60}));
    for (token, code) in [
        (unnamed, "00000"),
        (token(&third, "c", "x"), "00000"),
        (token(&third, "a", "x"), "28J03"),
        (token(&first, "c", "x"), "28J03"),
    ] {
        assert_eq!(present(&mut app, &token), code);
    }
    // Once an issuer has a provider of its own, that one alone vouches for it.
    assert_eq!(present(&mut app, &token(&third, "c", "x")), "00000");
    add(&mut admin, "c", &first);
    assert_eq!(code_of_user(&mut app), "28J03");
    assert_eq!(present(&mut app, &token(&first, "c", "x")), "00000");
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
        ("a", &of_setting, "00000"),
        ("a", &of_row, "28J03"),
        ("b", &of_row, "00000"),
        ("b", &of_jwk, "28J03"),
        ("c", &of_jwk, "00000"),
        ("c", &of_row, "28J03"),
    ] {
        assert_eq!(present(&mut app, &token(key, issuer, "x")), code, "{issuer}");
    }
    let mut wire = Wire::connect(&cluster.as_role("postgres")).unwrap();
    wire.ask("UPDATE auth.providers SET leeway = 1 WHERE name = 'a'", &[]).unwrap().unwrap();
    let warned = wire.notices();
    assert_eq!(warned[0].get(b'M'), Some("provider is not used"));
    wire.ask("UPDATE auth.providers SET leeway = 1 WHERE name = 'b'", &[]).unwrap().unwrap();
    assert!(wire.notices().is_empty());
    // Without the settings, the rows serve.
    let set = [("pg_session_jwt.providers", ""), ("pg_session_jwt.jwk", "")];
    assert_eq!(present(&mut app, &token(&of_setting, "a", "x")), "00000");
    cluster.append_configuration(&set);
    cluster.reload();
    wait_for("the live session to notice", || app.query("SELECT auth.user_id()", &[]).is_err());
    assert_eq!(present(&mut app, &token(&of_row, "a", "x")), "00000");
    assert_eq!(present(&mut app, &token(&of_row, "c", "x")), "00000");

    // A setting that a client gets rid of takes the rows along.
    let cluster = Cluster::start(Preload::Session, &settings);
    add(&mut cluster.admin(), "b", &of_row);
    let lost = cluster.as_role("app").option("pg_session_jwt.jwk", "x");
    assert_eq!(present(&mut lost.client(), &token(&of_row, "b", "x")), "22023");
}

#[test]
fn init_wants_some_provider() {
    let cluster = cluster();
    let mut app = client(&cluster);
    assert_eq!(sqlstate(app.execute("SELECT auth.init()", &[])), "22023");
    assert_eq!(present(&mut app, &token(&key("k"), "p", "x")), "28J02");
    add(&mut cluster.admin(), "p", &key("k"));
    assert_eq!(sqlstate(app.execute("SELECT auth.init()", &[])), "00000");
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
    assert_eq!(present(&mut session, &token(&key, "issuer-500", "alice")), "00000");
    run(&mut session, flush);
    wait_for("the statistics", || text(&mut admin, reads) != before.0);
    assert_eq!(text(&mut admin, scans), before.1);
    // A change of one voids nothing of another's.
    let mut debugging = Wire::connect(&cluster.as_role("app")).unwrap();
    let verified = |wire: &mut Wire, token: &str| {
        wire.ask("SELECT auth.jwt_session_init($1)", &[token]).unwrap().unwrap();
        let notices = wire.notices();
        notices.iter().any(|notice| notice.get(b'M') == Some("token signature verified"))
    };
    debugging.ask("SET client_min_messages = debug1", &[]).unwrap().unwrap();
    let (kept, changed) = (token(&key, "issuer-1", "a"), token(&key, "issuer-2", "b"));
    assert!(verified(&mut debugging, &kept) && verified(&mut debugging, &changed));
    assert!(!verified(&mut debugging, &kept) && !verified(&mut debugging, &changed));
    run(&mut admin, "UPDATE auth.providers SET leeway = 1 WHERE name = 'provider 2'");
    assert!(!verified(&mut debugging, &kept));
    assert!(verified(&mut debugging, &changed));
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
    assert_eq!(present(&mut app, &token(&key, "p", "alice")), "00000");
    let count = "SELECT count(*) FROM many";
    let plan = app.query(&format!("EXPLAIN {count}"), &[]).unwrap();
    assert!(plan.iter().any(|row| row.get::<_, &str>(0).contains("Parallel")), "{plan:?}");
    assert_eq!(app.query_one(count, &[]).unwrap().get::<_, i64>(0), 20_000);
    // Also of what is not committed.
    run(
        &mut admin,
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
         SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = off",
    );
    run(&mut admin, "ALTER TABLE many FORCE ROW LEVEL SECURITY; BEGIN");
    add(&mut admin, "q", &key);
    assert_eq!(present_locally(&mut admin, &token(&key, "q", "alice")), "00000");
    let users = "SELECT count(*) FROM many WHERE owner = auth.user_id()";
    assert_eq!(admin.query_one(users, &[]).unwrap().get::<_, i64>(0), 20_000);
    run(&mut admin, "ROLLBACK");
}
