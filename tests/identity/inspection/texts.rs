//! Any text can be inspected, in any encoding, and the report does not show it.

use harness::{Code, SUCCESS, now, run, sqlstate, text};
use mint::{Algorithm, Key};
use serde_json::json;

use super::{Site, inspect};

#[test]
fn texts_that_are_no_tokens() {
    let site = Site::start();
    let mut client = site.client();
    let good = site.realm.sign(&site.realm.draft(now()));
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    for (name, given) in [
        ("NULL", None),
        ("empty", Some(String::new())),
        ("a space", Some(" ".to_owned())),
        ("dots", Some("..".to_owned())),
        ("many dots", Some(".".repeat(20_000))),
        ("1 MB", Some("x".repeat(1 << 20))),
        ("1 MB of tokens", Some(good.repeat((1 << 20) / good.len()))),
        ("other characters", Some("\u{1f600}\u{202e}\u{e9}'\"\\".repeat(50))),
        ("braces", Some("{".repeat(10_000))),
        ("percent signs", Some("%2".repeat(10_000))),
        ("headers", Some("eyJ".repeat(5_000))),
        ("without payload", Some(format!("{header}..{signature}"))),
        ("without header", Some(format!(".{payload}.{signature}"))),
        ("deep", Some(format!("{header}.{}.{signature}", "W1tb".repeat(4_000)))),
    ] {
        let report = inspect(&mut client, given.as_deref());
        assert!(!report.with("failed").is_empty(), "{name}");
        let failed = report.with("failed");
        assert!(
            failed.iter().all(|check| ["size", "form", "header", "payload"].contains(check)),
            "{name}"
        );
        for text in report.texts() {
            assert!(text.chars().all(|c| matches!(c, ' '..='~')), "{name}: {text:?}");
        }
    }
    for given in [None, Some("")] {
        let report = inspect(&mut client, given);
        let hint = report.hint("form");
        assert!(hint.contains("they clear the identity"), "{given:?}: {hint}");
    }
    let long = inspect(&mut client, Some(&"x".repeat(1 << 20)));
    assert!(long.found("size").contains("It has 1048576 bytes; the limit is 16384."));
    assert_eq!(long.with("not reached").len(), super::CHECKS.len() - 1);
    // In the list of results, too.
    let rows = client.query("SELECT auth.inspect('x')", &[]).unwrap();
    assert_eq!(rows.len(), super::CHECKS.len());
}

/// Edits of a token at random places.
#[test]
fn odd_texts() {
    let site = Site::start();
    let mut client = site.client();
    let good = site.realm.sign(&site.realm.draft(now()));
    let odd = ["", "=", "%", "\u{e9}", "\n", "\"", "'", ".", "eyJ", "\u{feff}", "{}", "Bearer "];
    for (n, place) in (0..good.len()).step_by(3).enumerate() {
        let end = good.len().min(place + n % 17);
        let given = format!("{}{}{}", &good[..place], odd[n % odd.len()], &good[end..]);
        let report = inspect(&mut client, Some(&given));
        let verified = sqlstate(client.query("SELECT auth.jwt_verify($1)", &[&given]));
        assert_eq!(report.with("failed").is_empty(), verified == SUCCESS, "{given}");
    }
}

/// A report shows no 12 characters of a payload, a signature or a key.
#[test]
fn neither_tokens_nor_keys_are_shown() {
    let site = Site::start();
    let mut client = site.client();
    let secret = "correct-horse-battery-staple-correct-horse";
    let hmac = Key::from_secret(Algorithm::HS256, secret.as_bytes());
    let es = Key::generate(Algorithm::ES256).with_kid("s1");
    let mut admin = site.cluster.admin();
    admin
        .execute(
            "SELECT auth.add_provider('secret', issuer => 'https://secret.example', secret => $1, \
             jwks => $2::text)",
            &[&secret, &es.public_jwk().to_string()],
        )
        .unwrap();
    let mut tried = 0;
    for (n, faults) in mint::faults::combinations(5, 200).enumerate() {
        let mut draft = site.realm.draft(now());
        let random = Key::generate(Algorithm::ES256).signature(n.to_string().as_bytes()).unwrap();
        draft.claims.insert("note".to_owned(), json!(random));
        for fault in &faults {
            fault.put(&mut draft);
        }
        let mut tokens = vec![site.realm.sign(&draft)];
        for key in [&hmac, &es, &Key::generate(Algorithm::ES256)] {
            tokens.push(
                key.sign(&json!({"iss": "https://secret.example", "exp": now() + 60, "n": n})),
            );
        }
        let documents = site.realm.providers();
        let sets =
            documents.as_array().unwrap().iter().map(|document| document["jwks"].to_string());
        let sets: String = sets.collect();
        let keys = format!("{secret} {} {sets}", es.private_jwk().unwrap());
        for token in tokens {
            let report = inspect(&mut client, Some(&token));
            let hidden = token.split_once('.').map_or("", |(_, rest)| rest);
            for shown in report.texts() {
                let words = shown.split(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c)));
                for word in words.filter(|word| word.len() >= 12) {
                    for start in 0..=word.len() - 12 {
                        let part = &word[start..start + 12];
                        assert!(!hidden.contains(part), "{part} of the token: {shown}");
                        assert!(!keys.contains(part), "{part} of a key: {shown}");
                        tried += 1;
                    }
                }
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}

/// Where the database's encoding lacks a character, or does not keep it, the claims cannot be represented.
#[test]
fn the_encoding_of_the_database_decides() {
    let site = Site::start();
    let mut admin = site.cluster.admin();
    let claims = ["a", "\u{e9}", "\u{1f600}", "\u{a6}", "\u{ffe4}", "\\u00e9", "\u{df}"];
    for encoding in ["LATIN1", "EUC_JP", "SQL_ASCII", "UTF8"] {
        let database = format!("inspect_{}", encoding.to_lowercase());
        run(
            &mut admin,
            &format!(
                "CREATE DATABASE {database} ENCODING {encoding} LOCALE 'C' TEMPLATE template0"
            ),
        );
        let mut client = site.cluster.as_role("postgres").database(&database).client();
        run(&mut client, "CREATE EXTENSION pg_session_jwt");
        let mut failed = 0;
        for claim in claims {
            let mut draft = site.realm.draft(now());
            draft.claims.insert("email".to_owned(), claim.into());
            let mut token = site.realm.sign(&draft);
            if claim.starts_with('\\') {
                // An escape, as many libraries write it.
                let payload = serde_json::Value::from(draft.claims.clone()).to_string();
                let payload = payload.replace("\\\\u", "\\u");
                let header = br#"{"alg":"ES256","kid":"k1"}"#;
                let key = site.realm.key(mint::faults::Signer::Acme);
                token = key.sign_raw(header, payload.as_bytes());
            }
            let report = inspect(&mut client, Some(&token));
            let verified = sqlstate(client.query("SELECT auth.jwt_verify($1)", &[&token]));
            let expected: &[&str] = if verified == SUCCESS { &[] } else { &["representability"] };
            assert_eq!(report.with("failed"), expected, "{encoding}: {claim}");
            if verified != SUCCESS {
                assert_eq!(verified, Code::Claim.sqlstate(), "{encoding}: {claim}");
                failed += 1;
            }
        }
        assert_eq!(failed > 0, encoding != "UTF8", "{encoding}: {failed}");
        // A byte that is not ASCII.
        let count =
            "SELECT count(*)::text FROM auth.inspect(convert_from('\\xe9'::bytea, 'LATIN1'))";
        if encoding == "LATIN1" {
            assert_eq!(text(&mut client, count).as_deref(), Some("17"), "{encoding}");
        }
    }
}
