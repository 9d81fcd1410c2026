//! `auth.require_scope()` and `auth.require_fresh()`: demands whose error says what the client must request.

use harness::{
    Code, INSUFFICIENT_PRIVILEGE, Preload, SUCCESS, Wire, now, parallel_query_setting, quote, run,
};
use serde_json::{Value, json};

use super::grants::SITES;

/// The SQLSTATE of statements, with the detail of a demand as JSON.
fn told(client: &mut Wire, sql: &str) -> (String, Value) {
    let answers = client.query(sql).unwrap();
    let Some(fields) = answers.into_iter().find_map(Result::err) else {
        return (SUCCESS.to_owned(), Value::Null);
    };
    let detail = fields.get(b'D').unwrap_or_default();
    let hint = fields.get(b'H').unwrap_or_default();
    if fields.sqlstate() == Code::Insufficient.sqlstate() {
        assert!(hint.contains("DETAIL"), "{sql}: {hint}");
    }
    (fields.sqlstate().to_owned(), serde_json::from_str(detail).unwrap_or(json!(detail)))
}

fn insufficient(detail: &Value) -> (String, Value) {
    (Code::Insufficient.sqlstate().to_owned(), detail.clone())
}

fn met() -> (String, Value) {
    (SUCCESS.to_owned(), Value::Null)
}

#[test]
fn a_demand_says_what_the_client_must_request() {
    for preload in Preload::ALL {
        let site = SITES.beside_others(preload);
        let mut client = site.client();
        let scope = json!({"error": "insufficient_scope", "scope": "todos:write"});
        let fresh = json!({"error": "insufficient_user_authentication", "max_age": 300});
        let strong = json!({"error": "insufficient_user_authentication", "max_age": 300, "acr_values": "urn:gold"});
        let (require_scope, require_fresh, require_strong) = (
            "SELECT auth.require_scope('todos:write')",
            "SELECT auth.require_fresh('5 minutes')",
            "SELECT auth.require_fresh('5 minutes', 'urn:gold')",
        );
        // Without an identity.
        for (demand, detail) in
            [(require_scope, &scope), (require_fresh, &fresh), (require_strong, &strong)]
        {
            assert_eq!(told(&mut client, demand), insufficient(detail), "{demand}, {preload:?}");
        }
        for (claims, has_scope, is_fresh, is_strong) in [
            (json!({}), false, false, false),
            (json!({"scp": ["todos:write"]}), true, false, false),
            (json!({"auth_time": now() - 60, "acr": "urn:silver"}), false, true, false),
            (json!({"auth_time": now() - 60, "acr": "urn:gold"}), false, true, true),
            (
                json!({"auth_time": now() - 600, "acr": "urn:gold", "iat": now()}),
                false,
                false,
                false,
            ),
            (json!({"auth_time": now() + 60, "acr": "urn:gold"}), false, false, false),
        ] {
            site.be(&mut client, &claims);
            for (demand, is_met, detail) in [
                (require_scope, has_scope, &scope),
                (require_fresh, is_fresh, &fresh),
                (require_strong, is_strong, &strong),
            ] {
                let expected = if is_met { met() } else { insufficient(detail) };
                assert_eq!(
                    told(&mut client, demand),
                    expected,
                    "{demand} of {claims}, {preload:?}"
                );
            }
        }
        // The identity is not revoked: the token is valid.
        site.be(&mut client, &json!({"sub": "alice"}));
        assert_eq!(told(&mut client, require_scope), insufficient(&scope), "{preload:?}");
        assert_eq!(client.user(), "alice", "{preload:?}");
        // Nor that of the transaction, where a savepoint catches the error.
        assert_eq!(client.run("BEGIN"), SUCCESS, "{preload:?}");
        assert_eq!(
            client.present(&site.token(&json!({"sub": "bob"})), true),
            SUCCESS,
            "{preload:?}"
        );
        assert_eq!(client.run("SAVEPOINT s"), SUCCESS, "{preload:?}");
        assert_eq!(told(&mut client, require_fresh), insufficient(&fresh), "{preload:?}");
        assert_eq!(client.run("ROLLBACK TO s"), SUCCESS, "{preload:?}");
        assert_eq!(client.user(), "bob", "{preload:?}");
        assert_eq!(client.run("COMMIT"), SUCCESS, "{preload:?}");
    }
}

#[test]
fn a_demand_that_no_token_meets_is_an_error_of_the_caller() {
    let site = SITES.beside_others(Preload::Shared);
    let mut client = site.client();
    let claims = json!({"scope": "a b", "scp": ["", "a b"], "auth_time": now(), "acr": "a b"});
    for is_present in [false, true] {
        if is_present {
            site.be(&mut client, &claims);
        }
        for demand in [
            "auth.require_scope(NULL)",
            "auth.require_scope('')",
            "auth.require_scope('a b')",
            "auth.require_scope(E'a\\n')",
            "auth.require_scope(repeat('a', 2000))",
            "auth.require_fresh(NULL)",
            "auth.require_fresh(NULL, 'a')",
            "auth.require_fresh('-1 second')",
            "auth.require_fresh('1 month -31 days')",
            "auth.require_fresh('1 hour', '')",
            "auth.require_fresh('1 hour', 'a b')",
            "auth.require_fresh('1 hour', repeat('a', 2000))",
        ] {
            let (code, _) = told(&mut client, &format!("SELECT {demand}"));
            assert_eq!(code, Code::Configuration.sqlstate(), "{demand}, {is_present}");
        }
    }
    // NULL demands no class. A maximum age without end is one that a client can read.
    assert_eq!(told(&mut client, "SELECT auth.require_fresh('1 hour', NULL)"), met(), "acr NULL");
    site.be(&mut client, &json!({}));
    let detail = json!({"error": "insufficient_user_authentication", "max_age": 2_147_483_647});
    let eternal = "SELECT auth.require_fresh('178000000 years')";
    assert_eq!(told(&mut client, eternal), insufficient(&detail), "{eternal}");
}

#[test]
fn rejected_and_expired_tokens_are_errors() {
    let site = SITES.beside_others(Preload::Shared);
    let mut client = site.client();
    site.be(&mut client, &json!({"exp": now() - 3, "scope": "a", "auth_time": now()}));
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let connection = site.cluster.as_role("app").option("pg_session_jwt.jwt", "a.b.c");
    let mut rejected = Wire::connect(&connection).unwrap();
    for demand in ["SELECT auth.require_scope('a')", "SELECT auth.require_fresh('1 hour')"] {
        assert_eq!(told(&mut client, demand).0, Code::Expired.sqlstate(), "{demand}");
        assert_eq!(told(&mut rejected, demand).0, Code::Malformed.sqlstate(), "{demand}");
    }
}

/// A caller cannot have a demand left out: the planner evaluates it where the statement calls it.
#[test]
fn procedures_and_triggers_demand() {
    let site = SITES.alone(Preload::Shared);
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE TABLE demanded (n int); INSERT INTO demanded VALUES (1), (2); GRANT ALL ON demanded TO app;
         CREATE PROCEDURE remove(int) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$ BEGIN
             PERFORM auth.require_fresh('5 minutes', 'gold');
             DELETE FROM public.demanded WHERE n = $1; END $$;
         CREATE FUNCTION write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM auth.require_scope('write'); RETURN NEW; END $$;
         CREATE TRIGGER write BEFORE INSERT OR UPDATE ON demanded FOR EACH ROW EXECUTE FUNCTION write();
         CREATE FUNCTION in_sql() RETURNS bigint LANGUAGE sql AS $$
             SELECT auth.require_scope('write'); SELECT count(*) FROM demanded $$;
         CREATE FUNCTION in_sql_once() RETURNS bigint LANGUAGE sql AS $$
             SELECT count(*) FROM (SELECT auth.require_scope('write'), n FROM demanded) d $$",
    );
    let mut client = site.client();
    let code = Code::Insufficient.sqlstate();
    let weak = json!({"scope": "read", "auth_time": now() - 3600, "acr": "gold"});
    let strong = json!({"scope": "read write", "auth_time": now(), "acr": "gold"});
    let statements = [
        "CALL remove(1)",
        "INSERT INTO demanded VALUES (3)",
        "UPDATE demanded SET n = n",
        "SELECT in_sql()",
        "SELECT in_sql_once()",
        "SELECT count(*) FROM (SELECT auth.require_scope('write'), n FROM demanded) d",
        "SELECT n FROM demanded, LATERAL (SELECT auth.require_scope('write')) d",
        "WITH d AS MATERIALIZED (SELECT auth.require_scope('write')) SELECT FROM d",
        "SELECT FROM auth.require_scope('write')",
        "DO $$ BEGIN PERFORM auth.require_scope('write'); END $$",
    ];
    for setting in ["off", "on"] {
        assert_eq!(
            client.run(&format!("SET {} = {setting}", parallel_query_setting())),
            SUCCESS,
            "{setting}"
        );
        for statement in statements {
            site.be(&mut client, &weak);
            assert_eq!(told(&mut client, statement).0, code, "{statement}, {setting}");
            site.be(&mut client, &strong);
            assert_eq!(
                told(&mut client, &format!("BEGIN; {statement}; ROLLBACK")),
                met(),
                "{statement}, {setting}"
            );
        }
    }
    let left = "SELECT string_agg(n::text, ' ' ORDER BY n) FROM demanded";
    assert_eq!(client.answer(left, &[]), "1 2", "nothing has changed");
    // A handler gets the detail.
    site.be(&mut client, &weak);
    let caught = "DO $$ DECLARE detail text; BEGIN
                      PERFORM auth.require_scope('write');
                  EXCEPTION WHEN SQLSTATE '28J13' THEN
                      GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
                      IF detail::jsonb ->> 'scope' <> 'write' THEN RAISE 'wrong'; END IF;
                  END $$";
    assert_eq!(client.run(caught), SUCCESS, "caught");
    // The demand needs no privilege of its caller, and gives none.
    assert_eq!(
        told(&mut client, "SET ROLE reader; SELECT auth.require_scope('read')"),
        met(),
        "another role"
    );
    assert_eq!(client.run("DELETE FROM demanded"), INSUFFICIENT_PRIVILEGE, "another role");
    run(
        &mut admin,
        "DROP TABLE demanded; DROP PROCEDURE remove; DROP FUNCTION in_sql, in_sql_once, write",
    );
}

#[test]
fn trusted_request_claims_meet_demands() {
    let site = SITES.beside_others(Preload::Shared);
    let mut client = Wire::connect(&site.cluster.as_role("trusting")).unwrap();
    let claims = json!({"scope": "a", "auth_time": now(), "acr": "gold"}).to_string();
    let set = format!("SET request.jwt.claims = {}", quote(&claims));
    let demands = ["SELECT auth.require_scope('a')", "SELECT auth.require_fresh('1 hour', 'gold')"];
    for demand in demands {
        assert_eq!(client.run("SET request.jwt.claims = ''"), SUCCESS, "{demand}");
        assert_eq!(client.run(demand), Code::Insufficient.sqlstate(), "{demand}");
        assert_eq!(client.run(&set), SUCCESS, "{demand}");
        assert_eq!(client.run(demand), SUCCESS, "{demand}");
    }
}
