//! Numbers and texts: nothing is lost, and no two users become one.

use harness::{Code, SUCCESS, now, present, run, sqlstate, text};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::json;

use super::fixture::*;

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
    assert_eq!(
        present(&mut client, &sign_text(&key, &payload)),
        SUCCESS,
        "present(sign_text(key, payload))"
    );
    let claim = |client: &mut Client, name: &str| {
        text(client, &format!("SELECT auth.session() ->> '{name}'")).unwrap()
    };
    assert_eq!(claim(&mut client, "big"), digits, "claim(big) after sign_text(key, payload)");
    assert_eq!(
        claim(&mut client, "huge"),
        format!("1{}", "0".repeat(400)),
        "claim(huge) after sign_text(key, payload)"
    );
    assert_eq!(claim(&mut client, "exact"), "0.10", "claim(exact) after sign_text(key, payload)");
    assert_eq!(
        claim(&mut client, "most").len(),
        131_072,
        "claim(most).len after sign_text(key, payload)"
    );
    assert_eq!(
        claim(&mut client, "least").len(),
        2 + 16_383,
        "claim(least).len after sign_text(key, payload)"
    );
    for (wrong, code) in [
        (r#""x":"a\u0000b""#, Code::Claim.sqlstate()),
        (r#""x":{"a\u0000":1}"#, Code::Claim.sqlstate()),
        (r#""x":[9e131072]"#, Code::Claim.sqlstate()),
        (r#""x":1e-16384"#, Code::Claim.sqlstate()),
        (r#""x":1e999999999999"#, Code::Claim.sqlstate()),
        (r#""x":"\ud800""#, Code::Malformed.sqlstate()),
        (r#""x":"\udc00\ud800""#, Code::Malformed.sqlstate()),
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
    assert_eq!(
        present(&mut latin, &token("ren\u{e9}")),
        SUCCESS,
        "after CREATE EXTENSION pg_session_jwt"
    );
    assert_eq!(
        text(&mut latin, "SELECT auth.user_id()").as_deref(),
        Some("ren\u{e9}"),
        "after CREATE EXTENSION pg_session_jwt"
    );
    let length: i32 = latin.query_one("SELECT octet_length(auth.user_id())", &[]).unwrap().get(0);
    assert_eq!(length, 4, "after CREATE EXTENSION pg_session_jwt");
    let names = key.sign(&json!({"n\u{e9}": "right", "n\u{c3}\u{a9}": "wrong", "exp": now() + 60}));
    assert_eq!(present(&mut latin, &names), SUCCESS, "after CREATE EXTENSION pg_session_jwt");
    assert_eq!(
        text(&mut latin, "SELECT auth.claim('n\u{e9}')").as_deref(),
        Some("right"),
        "after CREATE EXTENSION pg_session_jwt"
    );
    assert_eq!(
        text(&mut latin, "SELECT auth.claim('n\u{c3}\u{a9}')").as_deref(),
        Some("wrong"),
        "after CREATE EXTENSION pg_session_jwt"
    );
    // Latin-1 has no euro sign.
    assert_eq!(
        present(&mut latin, &token("\u{20ac}")),
        Code::Claim.sqlstate(),
        "latin-1 has no euro sign"
    );
    assert_eq!(text(&mut latin, "SELECT auth.user_id()"), None, "latin-1 has no euro sign");
    assert_eq!(present(&mut latin, &token("alice")), SUCCESS, "latin-1 has no euro sign");
    let mut ascii = cluster.as_role("app").database("sql_ascii").client();
    assert_eq!(present(&mut ascii, &token("alice")), SUCCESS, "latin-1 has no euro sign");
    assert_eq!(
        text(&mut ascii, "SELECT auth.user_id()").as_deref(),
        Some("alice"),
        "latin-1 has no euro sign"
    );
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
            assert_eq!(present(&mut client, &sub(other)), SUCCESS, "{encoding} {other}");
            assert_eq!(
                text(&mut client, "SELECT auth.user_id()").as_ref(),
                Some(other),
                "{encoding:?}, {one:?}: after CREATE EXTENSION pg_session_jwt"
            );
            assert_eq!(present(&mut client, &sub(one)), Code::Claim.sqlstate(), "{encoding} {one}");
            assert_eq!(text(&mut client, "SELECT auth.user_id()"), None, "{encoding:?}, {one:?}");
            // As an escape, and behind other escapes.
            assert_eq!(present(&mut client, &sub(&code(other))), SUCCESS, "{encoding} {other}");
            assert_eq!(
                text(&mut client, "SELECT auth.user_id()").as_ref(),
                Some(other),
                "{encoding:?}, {one:?}"
            );
            for claims in [
                format!("\"sub\":\"{}\"", code(one)),
                format!("\"sub\":\"a\",\"x\":\"\\\\\\\"{}\"", code(one)),
                format!("\"sub\":\"a\",\"x\":[{{\"{}\":1}}]", code(one)),
                format!("\"sub\":\"a\",\"{one}\":1"),
                format!("\"sub\":\"a\",\"role\":\"{one}\""),
                format!("\"sub\":\"a\",\"email\":\"{}\"", code(one)),
            ] {
                assert_eq!(
                    present(&mut client, &token(&claims)),
                    Code::Claim.sqlstate(),
                    "{encoding} {claims}"
                );
                let verify = client.query("SELECT auth.jwt_verify($1)", &[&token(&claims)]);
                assert_eq!(sqlstate(verify), Code::Claim.sqlstate(), "{encoding} {claims}");
            }
            // An escaped backslash before what looks like an escape.
            let claims = format!("\"sub\":\"a\",\"x\":\"\\\\{}\"", &code(one)[1..]);
            assert_eq!(present(&mut client, &token(&claims)), SUCCESS, "{encoding} {claims}");
            assert_eq!(
                text(&mut client, "SELECT auth.claim('x')"),
                Some(code(one)),
                "{encoding} {claims}"
            );
        }
        assert_eq!(
            present(&mut client, &token(r#""sub":"\u00e9\ud83d\ude00""#)),
            Code::Claim.sqlstate(),
            "{encoding:?}: after CREATE EXTENSION pg_session_jwt"
        );
    }
    assert!(lossy.contains(&"EUC_JP"), "{lossy:?}");
}
