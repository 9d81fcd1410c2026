//! Who may write the table, and what the others can do to it.

use harness::{
    Cluster, Code, DEPENDENT_OBJECTS_STILL_EXIST, INSUFFICIENT_PRIVILEGE, INVALID_TABLE_DEFINITION,
    INVALID_TEXT_REPRESENTATION, Preload, SUCCESS, Shared, UNIQUE_VIOLATION, Wire, key, now,
    present, run, sqlstate, text, token_of, user,
};
use mint::{Algorithm, Key};
use serde_json::json;

use super::table::*;

/// A cluster with the provider `p`; the tests that share it leave that provider as it is.
struct Fixture {
    cluster: Cluster,
    key: Key,
    mallory: Key,
}

static FIXTURES: Shared<Fixture> = Shared::new(|preload| {
    let cluster = Cluster::start(preload, &[]);
    let (key, mallory) = (key("k"), key("k"));
    add(&mut cluster.admin(), "p", &key);
    Fixture { cluster, key, mallory }
});

impl harness::Fixture for Fixture {
    fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

#[test]
fn ordinary_roles_neither_read_nor_write_the_table() {
    let fixture = FIXTURES.alone(Preload::Neither);
    let mut app = client(&fixture.cluster);
    let jwk = fixture.mallory.public_jwk().to_string();
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
        assert_eq!(sqlstate(app.batch_execute(sql)), INSUFFICIENT_PRIVILEGE, "{sql}");
    }
    assert_eq!(
        sqlstate(app.execute(ADD, &[&"q", &"q", &jwk])),
        INSUFFICIENT_PRIVILEGE,
        "sqlstate(app.execute(ADD, [q, q, jwk]))"
    );
}

/// In another schema, before the table in a search path, or in a database without the extension.
#[test]
fn look_alikes_of_the_table_do_not_count() {
    let fixture = FIXTURES.alone(Preload::Neither);
    let Fixture { cluster, key: first, mallory } = &*fixture;
    let (mut admin, mut app) = (cluster.admin(), client(cluster));
    let jwk = mallory.public_jwk().to_string();
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
    assert_eq!(
        present(&mut app, &token_of(mallory, "m", "root")),
        Code::NoKey.sqlstate(),
        "present(token_of(mallory, m, root))"
    );
    assert_eq!(
        present(&mut app, &token_of(first, "p", "alice")),
        SUCCESS,
        "present(token_of(first, p, alice))"
    );

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
    assert_eq!(
        sqlstate(bare.execute(set, &[&token_of(mallory, "m", "root")])),
        Code::NoKey.sqlstate(),
        "sqlstate(bare.execute(set, [token_of(mallory, m, root)]))"
    );
}

#[test]
fn a_table_that_is_not_the_extensions_does_not_count() {
    let fixture = FIXTURES.alone(Preload::Neither);
    let Fixture { cluster, key: first, .. } = &*fixture;
    let mut admin = cluster.admin();
    run(&mut admin, "ALTER EXTENSION pg_session_jwt DROP TABLE auth.providers");
    assert_eq!(
        present(&mut client(cluster), &token_of(first, "p", "alice")),
        Code::NoKey.sqlstate(),
        "present(token_of(first, p, alice))"
    );
    run(&mut admin, "ALTER EXTENSION pg_session_jwt ADD TABLE auth.providers");
    assert_eq!(
        present(&mut client(cluster), &token_of(first, "p", "alice")),
        SUCCESS,
        "present(token_of(first, p, alice))"
    );
}

/// Its values would be taken for what they are not. More columns do not matter.
#[test]
fn an_altered_table_is_refused() {
    let fixture = FIXTURES.alone(Preload::Neither);
    let Fixture { cluster, key: first, .. } = &*fixture;
    let (mut admin, mut app) = (cluster.admin(), client(cluster));
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
        assert_eq!(present(&mut app, &token_of(first, "p", "alice")), SUCCESS, "{alter:?}");
        let view = "DROP VIEW IF EXISTS auth.provider_status";
        run(
            &mut admin,
            &format!(
                "BEGIN; ALTER EXTENSION pg_session_jwt DROP VIEW auth.provider_status; {view}; {alter}"
            ),
        );
        assert_eq!(
            present(&mut admin, &token_of(first, "p", "alice")),
            Code::Configuration.sqlstate(),
            "{alter}"
        );
        run(&mut admin, "ROLLBACK");
        assert_eq!(present(&mut admin, &token_of(first, "p", "alice")), SUCCESS, "{alter}");
        assert_eq!(user(&mut app).as_deref(), Some("alice"), "{alter:?}: after ROLLBACK");
    }
    // More columns do not matter, of whatever type.
    run(&mut admin, "ALTER TABLE auth.providers ADD note tag DEFAULT 'x'");
    assert_eq!(
        present(&mut client(cluster), &token_of(first, "p", "alice")),
        SUCCESS,
        "more columns do not matter, of whatever type"
    );
    run(&mut admin, "ALTER TABLE auth.providers DROP note");
}

#[test]
fn granted_privileges_count_and_monitors_see_no_secrets() {
    let fixture = FIXTURES.alone(Preload::Neither);
    let Fixture { cluster, mallory, .. } = &*fixture;
    let (mut admin, mut app) = (cluster.admin(), client(cluster));
    let secret = "a secret of more than 32 bytes, I would say";
    let add_secret = "SELECT auth.add_provider('s', issuer => 's', secret => $1)";
    admin.execute(add_secret, &[&secret]).unwrap();
    run(
        &mut admin,
        "CREATE ROLE dba LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON auth.providers TO dba;
         CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher",
    );
    let mut dba = cluster.as_role("dba").client();
    add(&mut dba, "q", mallory);
    assert_eq!(
        present(&mut app, &token_of(mallory, "q", "bob")),
        SUCCESS,
        "present(token_of(mallory, q, bob))"
    );
    run(&mut dba, "SELECT auth.remove_provider('q')");
    assert_eq!(
        code_of_user(&mut app),
        Code::NoKey.sqlstate(),
        "after SELECT auth.remove_provider('q')"
    );
    let mut watcher = cluster.as_role("watcher").client();
    let status = "SELECT string_agg(s::text, ' ' ORDER BY name) FROM auth.provider_status s";
    let status = text(&mut watcher, status).unwrap();
    assert!(status.contains("ES256") && status.contains("HS256"), "{status}");
    assert!(!status.contains(secret), "{status}");
    assert_eq!(
        sqlstate(watcher.execute("SELECT secret FROM auth.providers", &[])),
        INSUFFICIENT_PRIVILEGE,
        "after SELECT auth.remove_provider('q')"
    );
    run(&mut admin, "SELECT auth.remove_provider('s')");
}

/// Also one that has created the extension; but it may dump the database.
#[test]
fn an_owner_of_the_database_is_no_superuser() {
    let fixture = FIXTURES.alone(Preload::Neither);
    let Fixture { cluster, mallory, .. } = &*fixture;
    let mut admin = cluster.admin();
    let jwk = mallory.public_jwk().to_string();
    run(&mut admin, "CREATE ROLE landlord LOGIN");
    run(&mut admin, "CREATE DATABASE let OWNER landlord");
    let mut landlord = cluster.as_role("landlord").database("let").client();
    run(&mut landlord, "CREATE EXTENSION pg_session_jwt");
    assert_eq!(
        sqlstate(landlord.execute(ADD, &[&"m", &"m", &jwk])),
        INSUFFICIENT_PRIVILEGE,
        "after CREATE EXTENSION pg_session_jwt"
    );
    for sql in [
        "ALTER TABLE auth.providers RENAME TO old",
        "ALTER TABLE auth.providers DISABLE TRIGGER ALL",
        "ALTER EXTENSION pg_session_jwt DROP TABLE auth.providers",
    ] {
        assert_eq!(sqlstate(landlord.batch_execute(sql)), INSUFFICIENT_PRIVILEGE, "{sql}");
    }
    assert_eq!(
        sqlstate(landlord.batch_execute("DROP TABLE auth.providers")),
        DEPENDENT_OBJECTS_STILL_EXIST,
        "after CREATE EXTENSION pg_session_jwt"
    );
    let index = "DROP INDEX auth.providers_issuer_key";
    assert_eq!(
        sqlstate(landlord.batch_execute(index)),
        DEPENDENT_OBJECTS_STILL_EXIST,
        "after DROP TABLE auth.providers"
    );
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
    assert_eq!(
        present(&mut landlord, &token_of(mallory, "m", "root")),
        Code::NoKey.sqlstate(),
        "but may dump the database"
    );
}

#[test]
fn refreshing_takes_select_and_update() {
    let cluster = cluster();
    let mut admin = cluster.admin();
    add(&mut admin, "p", &key("k"));
    let refresh = "SELECT auth.refresh_provider('p')";
    for (granted, expected) in [
        ("SELECT", INSUFFICIENT_PRIVILEGE),
        ("UPDATE", INSUFFICIENT_PRIVILEGE),
        ("INSERT, DELETE", INSUFFICIENT_PRIVILEGE),
        // It has keys of its own.
        ("SELECT, UPDATE", Code::Fetching.sqlstate()),
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
        let expected = if attach.starts_with("CREATE TEMP") {
            INVALID_TABLE_DEFINITION
        } else {
            INSUFFICIENT_PRIVILEGE
        };
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
        (
            format!("SELECT auth.add_provider('a', issuer => 'c', secret => '{secret}')"),
            UNIQUE_VIOLATION,
        ),
        (format!("SELECT auth.add_provider('a', 'c', NULL, NULL, '{secret}')"), UNIQUE_VIOLATION),
        (
            format!(
                "INSERT INTO auth.providers (name, leeway, secret) VALUES ('x', -1, '{secret}')"
            ),
            Code::Configuration.sqlstate(),
        ),
        (
            format!("INSERT INTO auth.providers (secret, failures) VALUES ('{secret}', 'x')"),
            INVALID_TEXT_REPRESENTATION,
        ),
        (
            format!(
                "UPDATE auth.providers SET failures = NULL, secret = U&'{secret}', leeway = -1"
            ),
            Code::Configuration.sqlstate(),
        ),
    ] {
        assert_eq!(sqlstate(admin.batch_execute(&wrong)), code, "{wrong}");
    }
    // The context of an error keeps the statements around it, without their values.
    let function = "PL/pgSQL function auth.add_provider(";
    for (wrong, kept) in [
        (
            format!("SELECT auth.add_provider('a', issuer => 'c', secret => '{secret}')"),
            ["SQL statement \"INSERT INTO auth.providers VALUES (provider.*)\"\n", "", function],
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
        for part in kept {
            assert!(context.contains(part), "{part} of {context}");
        }
        assert!(!context.contains("Swordfish"), "{context}");
        // A line for each function or statement, and none of the function's text.
        assert!(context.lines().count() <= 4, "{context}");
    }
    let mut copy = admin.copy_in("COPY auth.providers (name, secret, leeway) FROM STDIN").unwrap();
    std::io::Write::write_all(&mut copy, format!("c\t{secret}\tx\n").as_bytes()).unwrap();
    assert_eq!(sqlstate(copy.finish()), INVALID_TEXT_REPRESENTATION, "sqlstate(copy.finish)");
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
        SUCCESS,
        "as a parameter, which log_statement shows, too"
    );
    for place in [cluster.log(), activity] {
        assert!(!place.contains("Swordfish") && !place.contains("U3dvcmR"), "{place}");
    }
}
