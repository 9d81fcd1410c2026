//! The identity changes while a statement runs: what was handed out before stays what it was.
//!
//! Values are pointers into identities, which a cache of one entry throws out at each change.
//! `make valgrind` runs this file with a server that reports any use of memory after it was freed.

use harness::{Preload, SUCCESS, Site, now, run, sign, sqlstate, text, user};
use serde_json::json;

/// How many rows, each of which changes the identity.
const ROWS: usize = 3_000;

/// A site that remembers so many tokens, with a token in each row of a table.
fn start(cache: &str) -> Site {
    let site = Site::start(Preload::Shared, &[("pg_session_jwt.token_cache_size", cache)]);
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE TABLE tokens (n int, token text); GRANT SELECT ON tokens TO app;
         CREATE FUNCTION present(token text) RETURNS text LANGUAGE sql VOLATILE
             AS $$ SELECT auth.jwt_session_init(token)::text $$;
         CREATE FUNCTION join_all(VARIADIC parts text[]) RETURNS text LANGUAGE sql
             AS $$ SELECT array_to_string(parts, '|', 'nobody') $$;
         CREATE FUNCTION kept(before text, changed text, claims jsonb, after text)
             RETURNS text LANGUAGE plpgsql AS $$
             BEGIN RETURN join_all(before, claims ->> 'sub', after); END $$",
    );
    let tokens: Vec<String> = (0..ROWS).map(|n| token(&site, &name(n))).collect();
    let numbers: Vec<i32> = (0..ROWS as i32).collect();
    let insert = "INSERT INTO tokens SELECT * FROM unnest($1::int[], $2::text[])";
    admin.execute(insert, &[&numbers, &tokens]).unwrap();
    site
}

fn token(site: &Site, sub: &str) -> String {
    let padding = "x".repeat(sub.len() * 7 % 300);
    sign(&site.key, json!({"sub": sub, "email": padding, "role": sub, "exp": now() + 3600}))
}

/// Names of many lengths, so that memory is not given out again for the same purpose.
fn name(n: usize) -> String {
    format!("user {n} {}", "y".repeat(n % 200))
}

/// Every reader before and after the change, row by row.
#[test]
fn from_row_to_row() {
    for size in ["0", "1", "128"] {
        let site = start(size);
        let mut client = site.client();
        let rows = client
            .query(
                "SELECT auth.user_id(), auth.role(), auth.claim('sub'),
                        auth.jwt_session_init(token)::text,
                        auth.user_id(), auth.session() ->> 'sub', auth.claim('/sub'), auth.role(),
                        kept(auth.user_id(), present(token), auth.session(), auth.user_id())
                 FROM (SELECT token FROM tokens ORDER BY n) t",
                &[],
            )
            .unwrap();
        assert_eq!(rows.len(), ROWS, "{size:?}");
        for (place, row) in rows.iter().enumerate() {
            let (before, now) = (place.checked_sub(1).map(name), name(place));
            for column in 0..3 {
                assert_eq!(row.get::<_, Option<String>>(column), before, "{size:?}, {column:?}");
            }
            for column in 4..8 {
                assert_eq!(row.get::<_, String>(column), now, "{size:?}, {column:?}");
            }
            assert_eq!(row.get::<_, String>(8), format!("{now}|{now}|{now}"), "{size:?}");
        }
        assert_eq!(user(&mut client), Some(name(ROWS - 1)), "{size:?}");
    }
}

/// Pointers that wait in arguments, aggregates, sorts and hash tables while the identity changes.
#[test]
fn in_arguments_and_aggregates() {
    let site = start("1");
    let mut client = site.client();
    let last = ROWS - 1;
    // Arguments are evaluated from left to right, and used when all are there.
    let kept = "SELECT kept(auth.user_id(), present(token), auth.session(), auth.user_id())
                FROM (SELECT token, n FROM tokens ORDER BY n) t";
    for (place, row) in client.query(kept, &[]).unwrap().iter().enumerate() {
        let before = place.checked_sub(1).map_or_else(|| "nobody".to_owned(), name);
        let now = name(place);
        assert_eq!(
            row.get::<_, String>(0),
            format!("{before}|{now}|{now}"),
            "arguments are evaluated from left to right"
        );
    }
    let many =
        "SELECT join_all(auth.user_id(), present(a), auth.user_id(), present(b), auth.user_id(),
                       present(a), auth.user_id())
                FROM (SELECT token a, lead(token) OVER (ORDER BY n) b FROM tokens LIMIT 500) t";
    for (place, row) in client.query(many, &[]).unwrap().iter().enumerate() {
        let (a, b) = (name(place), name(place + 1));
        let before = if place == 0 { name(last) } else { name(place - 1) };
        assert_eq!(
            row.get::<_, String>(0),
            format!("{before}||{a}||{b}||{a}"),
            "arguments are evaluated from left to right"
        );
    }

    let mut expected: Vec<String> = (0..ROWS).map(name).collect();
    expected.sort();
    for query in [
        "SELECT array_agg(who ORDER BY who COLLATE \"C\") FROM (SELECT present(token), auth.user_id() AS who
         FROM tokens OFFSET 0) t",
        "SELECT array_agg(DISTINCT who COLLATE \"C\") FROM (SELECT present(token), auth.user_id() AS who
         FROM tokens OFFSET 0) t",
        "SELECT array_agg(who ORDER BY who COLLATE \"C\") FROM (SELECT who FROM (SELECT present(token),
         auth.user_id() AS who FROM tokens OFFSET 0) t GROUP BY who) t",
        "SELECT array_agg(who ORDER BY who COLLATE \"C\") FROM (SELECT max(auth.claim('sub')) AS who FROM
         (SELECT present(token), n FROM tokens OFFSET 0) t GROUP BY n, auth.user_id()) t",
    ] {
        let found: Vec<String> = client.query_one(query, &[]).unwrap().get(0);
        assert_eq!(found, expected, "{query}");
    }
    let widest =
        "SELECT max(auth.session()::text), min(auth.email()), count(DISTINCT auth.user_id())
                  FROM (SELECT present(token) FROM tokens OFFSET 0) t";
    let row = client.query_one(widest, &[]).unwrap();
    assert_eq!(row.get::<_, i64>(2), ROWS as i64, "how many users there were");
}

/// In one function, which keeps values in its variables, and where tokens are refused and taken
/// back on the way.
#[test]
fn in_a_function() {
    let site = start("1");
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE FUNCTION walk(is_local boolean, every int) RETURNS text LANGUAGE plpgsql AS $$
         DECLARE
           item record; before text; claims jsonb; seen bigint := 0;
         BEGIN
           FOR item IN SELECT n, token FROM tokens ORDER BY n LOOP
             before := auth.user_id();
             claims := auth.session();
             BEGIN
               PERFORM auth.jwt_session_init(item.token, is_local);
               IF item.n % every = 1 THEN
                 PERFORM auth.jwt_session_init('rubbish', is_local);
               ELSIF item.n % every = 2 THEN
                 RAISE 'back' USING ERRCODE = 'P9999';
               END IF;
               IF auth.user_id() <> 'user ' || item.n || ' ' || repeat('y', item.n % 200) THEN
                 RAISE 'user % at %', auth.user_id(), item.n;
               END IF;
             EXCEPTION WHEN SQLSTATE '28J01' THEN
               IF auth.user_id() IS NOT NULL THEN RAISE 'still % at %', auth.user_id(), item.n; END IF;
             WHEN SQLSTATE 'P9999' THEN
               IF auth.user_id() IS DISTINCT FROM before THEN
                 RAISE 'user % instead of % at %', auth.user_id(), before, item.n;
               END IF;
             END;
             IF before IS DISTINCT FROM claims ->> 'sub' THEN RAISE 'torn at %', item.n; END IF;
             seen := seen + 1;
           END LOOP;
           RETURN seen || ' ' || coalesce(auth.user_id(), 'nobody');
         END $$",
    );
    let mut client = site.client();
    // Row 2,999 is neither refused nor taken back.
    let expected = format!("{ROWS} {}", name(ROWS - 1));
    for (is_local, after) in [("false", Some(name(ROWS - 1))), ("true", None)] {
        run(&mut client, "RESET pg_session_jwt.jwt");
        let walk = format!("SELECT walk({is_local}, 10)");
        assert_eq!(text(&mut client, &walk), Some(expected.clone()), "{is_local:?}, {after:?}");
        assert_eq!(user(&mut client), after, "{is_local:?}, {after:?}");
    }
}

/// A procedure's argument may be a value that a reader handed out, and outlives the transaction.
#[test]
fn over_a_commit_within_a_procedure() {
    let site = start("1");
    let mut admin = site.cluster.admin();
    run(
        &mut admin,
        "CREATE PROCEDURE change(who text, claims jsonb, tokens text[]) LANGUAGE plpgsql AS $$
         DECLARE token text;
         BEGIN
           FOREACH token IN ARRAY tokens LOOP
             PERFORM auth.jwt_session_init(token);
             PERFORM auth.user_id();
             COMMIT;
           END LOOP;
           IF who <> 'alice' OR claims ->> 'sub' <> 'alice' THEN
             RAISE 'who is %, claims are %', who, claims;
           END IF;
         END $$",
    );
    let mut client = site.client();
    let tokens: Vec<String> = (0..50).map(|n| token(&site, &format!("user{n}"))).collect();
    for _ in 0..20 {
        let init = "SELECT auth.jwt_session_init($1)";
        assert_eq!(
            sqlstate(client.execute(init, &[&token(&site, "alice")])),
            SUCCESS,
            "sqlstate(client.execute(init, [token(site, alice)]))"
        );
        client.execute("CALL change(auth.user_id(), auth.session(), $1)", &[&tokens]).unwrap();
        assert_eq!(user(&mut client).as_deref(), Some("user49"), "the user");
    }
}

/// The same with claims that are believed because they are in a setting.
#[test]
fn believed_claims() {
    let site = start("1");
    run(&mut site.cluster.admin(), "ALTER ROLE app SET pg_session_jwt.trust_request_claims = on");
    let mut client = site.client();
    let set =
        "set_config('request.jwt.claims', json_build_object('sub', 'user ' || n)::text, true)";
    let query = format!(
        "SELECT join_all(auth.user_id(), left({set}, 0), auth.user_id(), auth.claim('sub'))
         FROM generate_series(1, {ROWS}) n"
    );
    for (place, row) in client.query(&query, &[]).unwrap().iter().enumerate() {
        let (before, now) = (format!("user {place}"), format!("user {}", place + 1));
        let before = if place == 0 { "nobody" } else { &before };
        assert_eq!(row.get::<_, String>(0), format!("{before}||{now}|{now}"), "row {place}");
    }
    assert_eq!(user(&mut client), None, "the user");
}
