//! A session's memory does not grow with the tokens and claims that it sees in one statement or
//! transaction.

use harness::{Cluster, Preload, backend_pid, now, peak_memory, run};
use mint::{Algorithm, Key};
use serde_json::json;

/// How many tokens there are, more than the cache holds.
const TOKENS: usize = 16;

/// How long the padding of each is, in bytes.
const PADDING: usize = 8_000;

/// How many megabytes a session may take for many tokens beside what it takes for few.
const MOST: usize = 24;

/// A cluster with a table of tokens.
fn start() -> Cluster {
    let key = Key::generate(Algorithm::ES256);
    let jwk = key.public_jwk().to_string();
    let settings =
        [("pg_session_jwt.jwk", &*jwk), ("pg_session_jwt.token_cache_size", "4"), ("jit", "off")];
    let cluster = Cluster::start(Preload::Shared, &settings);
    let mut admin = cluster.admin();
    run(
        &mut admin,
        "CREATE TABLE tokens (n int, token text); GRANT SELECT ON tokens TO PUBLIC;
         ALTER ROLE app SET pg_session_jwt.trust_request_claims = on;
         CREATE PROCEDURE commits(times int) LANGUAGE plpgsql AS $$
           DECLARE t text;
           BEGIN
             FOR i IN 1..times LOOP
               SELECT token INTO t FROM tokens WHERE n = i % 16;
               PERFORM auth.jwt_session_init(t), auth.user_id(), auth.session();
               COMMIT;
             END LOOP;
           END $$;
         CREATE PROCEDURE in_subtransactions(times int) LANGUAGE plpgsql AS $$
           DECLARE t text;
           BEGIN
             FOR i IN 1..times LOOP
               SELECT token INTO t FROM tokens WHERE n = i % 16;
               BEGIN
                 PERFORM auth.jwt_session_init(t, i % 2 = 0), auth.user_id();
                 IF i % 3 = 0 THEN RAISE 'back'; END IF;
               EXCEPTION WHEN raise_exception THEN PERFORM auth.user_id(); END;
             END LOOP;
           END $$;",
    );
    for n in 0..TOKENS {
        let claims = json!({"sub": format!("user {n}"), "exp": now() + 3600,
                            "padding": format!("{n}").repeat(PADDING)[..PADDING]});
        admin
            .execute("INSERT INTO tokens VALUES ($1, $2)", &[&(n as i32), &key.sign(&claims)])
            .unwrap();
    }
    cluster
}

#[test]
fn many_identities_take_no_more_memory_than_few() {
    let cluster = start();
    for (few, many) in [
        // Each row presents a token, and reads what it brings in several ways.
        (
            "SELECT count(auth.jwt_session_init(token)), count(auth.user_id()),
                    count(auth.session()), count(auth.claim('sub')), count(auth.claim_jsonb('padding'))
             FROM generate_series(1, 4) g, tokens",
            "SELECT count(auth.jwt_session_init(token)), count(auth.user_id()),
                    count(auth.session()), count(auth.claim('sub')), count(auth.claim_jsonb('padding'))
             FROM generate_series(1, 1000) g, tokens",
        ),
        // An outer row holds a value while tokens change.
        (
            "SELECT count(*) FROM (SELECT auth.session() AS s FROM tokens OFFSET 0) o,
               LATERAL (SELECT o.s, auth.jwt_session_init(token), auth.user_id() FROM tokens
                        WHERE n < 2 OFFSET 0) i",
            "SELECT count(*) FROM (SELECT auth.session() AS s FROM tokens, generate_series(1, 40) OFFSET 0) o,
               LATERAL (SELECT o.s, auth.jwt_session_init(token), auth.user_id() FROM tokens OFFSET 0) i",
        ),
        ("CALL commits(64)", "CALL commits(10000)"),
        ("CALL in_subtransactions(64)", "CALL in_subtransactions(10000)"),
        // Claims without a token.
        (
            "SELECT count(set_config('request.jwt.claims',
                      format('{\"sub\": \"u%s\", \"p\": \"%s\"}', g, repeat('x', 8000)), true)),
                    count(auth.user_id()), count(auth.session())
             FROM generate_series(1, 50) g",
            "SELECT count(set_config('request.jwt.claims',
                      format('{\"sub\": \"u%s\", \"p\": \"%s\"}', g, repeat('x', 8000)), true)),
                    count(auth.user_id()), count(auth.session())
             FROM generate_series(1, 15000) g",
        ),
    ] {
        let measure = |statement: &str| {
            let mut client = cluster.as_role("app").client();
            run(&mut client, statement);
            peak_memory(backend_pid(&mut client)) >> 20
        };
        let (before, after) = (measure(few), measure(many));
        println!("{before} MB, {after} MB: {}", many.split_whitespace().collect::<Vec<_>>().join(" "));
        assert!(after < before + MOST, "{before} MB, {after} MB: {many}");
    }
}

/// Values that are copies, since many identities have gone by, are the right ones, and last.
#[test]
fn copies_are_as_good_as_values() {
    let cluster = start();
    let mut client = cluster.as_role("app").client();
    let rows = client
        .query(
            "SELECT n, o.who, auth.jwt_session_init(token)::text, auth.user_id(),
                    auth.session() ->> 'sub', auth.claim('sub'), auth.claim_jsonb('sub') #>> '{}',
                    auth.uid()::text, i.who
             FROM (SELECT n, token, auth.user_id() AS who FROM tokens, generate_series(1, 100) OFFSET 0) o,
                  LATERAL (SELECT o.who, auth.user_id() AS again OFFSET 0) i",
            &[],
        )
        .unwrap();
    assert_eq!(rows.len(), 100 * TOKENS, "how many rows there are");
    let mut before = None;
    for row in rows {
        let expected = Some(format!("user {}", row.get::<_, i32>(0)));
        assert_eq!(row.get::<_, Option<String>>(1), before, "the value of the row before");
        for column in 3..7 {
            assert_eq!(row.get::<_, Option<String>>(column), expected, "column {column}");
        }
        assert_eq!(row.get::<_, Option<String>>(7), None, "auth.uid() of what is no UUID");
        assert_eq!(row.get::<_, Option<String>>(8), before, "the value of the row before");
        before = expected;
    }
}
