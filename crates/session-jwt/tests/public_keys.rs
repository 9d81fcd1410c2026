//! Keys in PEM, keys of several kinds in one provider, and texts in place of a key set.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mint::{Algorithm, Key};
use serde_json::{Value, json};
use session_jwt::{Code, KeySet, Provider, Verifier};

const NOW: i64 = 2_000_000_000;
const SECRET: &str = "a secret of at least 32 bytes, I would say";
const URL: &str = "https://keys.example/jwks.json";

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let length = contents.len();
    let head = match length {
        0..=0x7f => vec![tag, length as u8],
        0x80..=0xff => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [head, contents].concat()
}

fn member(jwk: &Value, name: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap()
}

fn pkcs1(jwk: &Value) -> Vec<u8> {
    let integer = |name| der(2, &[&[0], &member(jwk, name)]);
    // The first bit of the exponent is not set.
    der(0x30, &[&integer("n"), &der(2, &[&member(jwk, "e")])])
}

fn info(jwk: &Value) -> Vec<u8> {
    const RSA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    const EC: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    let point = |size: &[u8]| {
        let bits = der(3, &[&[0, 4], &member(jwk, "x"), &member(jwk, "y")]);
        der(0x30, &[&der(0x30, &[EC, size]), &bits])
    };
    match jwk["kty"].as_str().unwrap() {
        "RSA" => der(0x30, &[&der(0x30, &[RSA]), &der(3, &[&[0], &pkcs1(jwk)])]),
        "OKP" => {
            let bits = der(3, &[&[0], &member(jwk, "x")]);
            der(0x30, &[&der(0x30, &[&[6, 3, 0x2b, 0x65, 0x70]]), &bits])
        }
        _ if jwk["crv"] == "P-256" => point(&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]),
        _ => point(&[6, 5, 0x2b, 0x81, 4, 0, 0x22]),
    }
}

fn certificate(jwk: &Value) -> Vec<u8> {
    let nothing = der(0x30, &[]);
    let version = der(0xa0, &[&[2, 1, 2]]);
    let names = [&nothing[..]; 4].concat();
    let body = der(0x30, &[&version, &[2, 1, 1], &names, &info(jwk)]);
    der(0x30, &[&body, &nothing, &der(3, &[&[0]])])
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn code(document: &Value, token: &str) -> &'static str {
    let verifier = Verifier::new(Provider::parse_all(&document.to_string()).unwrap()).unwrap();
    verifier.verify(token, NOW).map_or_else(|refusal| refusal.code().sqlstate(), |_| "00000")
}

fn token(key: &Key) -> String {
    key.sign(&json!({"sub": "alice", "exp": NOW + 1}))
}

#[test]
fn a_key_in_pem_verifies() {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA] {
        let (key, other) = (Key::generate(algorithm), Key::generate(algorithm));
        let jwk = key.bare_public_jwk();
        let mut texts =
            vec![pem("PUBLIC KEY", &info(&jwk)), pem("CERTIFICATE", &certificate(&jwk))];
        if algorithm == Algorithm::RS256 {
            texts.push(pem("RSA PUBLIC KEY", &pkcs1(&jwk)));
        }
        for text in texts {
            for text in [
                text.clone(),
                text.trim_end().to_owned(),
                text.replace('\n', "\r\n"),
                text.replace('\n', "\\n"),
                format!("\u{feff}{text}"),
                format!("# the key\nsubject=CN = x\n\n{text}\n# no more\n"),
                format!("  {text}"),
            ] {
                let document = json!({"public_key": text});
                assert_eq!(code(&document, &token(&key)), "00000", "{text}");
                assert_eq!(code(&document, &token(&other)), "28J03", "{text}");
                // The token's `kid` is ignored for a key without `kid`.
                let named = Key::from_private_jwk(&key.private_jwk().unwrap()).unwrap();
                assert_eq!(code(&document, &token(&named.with_kid("any"))), "00000", "{text}");
                let row = json!({"name": "p", "public_key": text, "issuer": "https://i.example"});
                assert!(Provider::from_row(&row.to_string()).unwrap().remote().is_none());
            }
        }
    }
    // The key in PEM beside a key set.
    let (one, two) =
        (Key::generate(Algorithm::EdDSA), Key::generate(Algorithm::ES256).with_kid("k"));
    let text = pem("PUBLIC KEY", &info(&one.bare_public_jwk()));
    let document = json!({"public_key": text, "jwks": two.public_jwk(), "secret": SECRET});
    assert_eq!(code(&document, &token(&one.with_kid("x"))), "00000");
    assert_eq!(code(&document, &token(&two)), "00000");
}

/// The DER decides the format. Labels, armour and padding do not matter.
#[test]
fn a_key_counts_by_what_its_der_holds() {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let (key, other) = (Key::generate(algorithm), Key::generate(algorithm));
        let jwk = key.bare_public_jwk();
        let mut forms = vec![info(&jwk), certificate(&jwk)];
        if algorithm == Algorithm::RS256 {
            forms.push(pkcs1(&jwk));
        }
        for der_of in &forms {
            let base64 = STANDARD.encode(der_of);
            let mut texts: Vec<String> = [
                "PUBLIC KEY",
                "RSA PUBLIC KEY",
                "EC PUBLIC KEY",
                "CERTIFICATE",
                "X509 CERTIFICATE",
                "TRUSTED CERTIFICATE",
            ]
            .iter()
            .map(|label| pem(label, der_of))
            .collect();
            texts.extend([
                base64.clone(),
                base64.trim_end_matches('=').to_owned(),
                URL_SAFE_NO_PAD.encode(der_of),
                format!("\"{base64}\"\n"),
                pem("PUBLIC KEY", der_of).replace('=', ""),
            ]);
            for text in texts {
                let document = json!({"public_key": text});
                assert_eq!(code(&document, &token(&key)), "00000", "{text}");
                assert_eq!(code(&document, &token(&other)), "28J03", "{text}");
            }
        }
        // OpenSSL appends to a certificate the purposes that it is trusted for.
        let trusted = [certificate(&jwk), der(0x30, &[&[0x30, 0]])].concat();
        let document = json!({"public_key": pem("TRUSTED CERTIFICATE", &trusted)});
        assert_eq!(code(&document, &token(&key)), "00000");
        let document = json!({"public_key": pem("CERTIFICATE", &trusted)}).to_string();
        assert!(Provider::parse_all(&document).is_err());
    }
}

/// Some libraries write an empty string for a value that is not set.
#[test]
fn an_empty_use_and_alg_are_absent() {
    let key = Key::generate(Algorithm::RS256);
    let mut jwk = key.bare_public_jwk();
    for name in ["use", "alg"] {
        jwk[name] = "".into();
    }
    assert_eq!(code(&json!({"jwks": jwk}), &token(&key)), "00000");
    // An empty string allows nothing more.
    let stronger = Key::from_private_jwk(&key.private_jwk().unwrap()).unwrap();
    let stronger = stronger.with_algorithm(Algorithm::RS512);
    assert_eq!(code(&json!({"jwks": jwk}), &token(&stronger)), "28J10");
    jwk["use"] = " ".into();
    assert!(Provider::parse_all(&json!({"jwks": jwk}).to_string()).is_err());
    // A `kid` is compared exactly.
    jwk["use"] = "".into();
    jwk["kid"] = "".into();
    let set = json!({"jwks": {"keys": [jwk, Key::generate(Algorithm::RS256).with_kid("k").public_jwk()]}});
    let private = key.private_jwk().unwrap();
    let named = |kid: &str| Key::from_private_jwk(&private).unwrap().with_kid(kid);
    assert_eq!(code(&set, &token(&named(""))), "00000");
    assert_eq!(code(&set, &token(&named("x"))), "28J02");
    jwk["kty"] = "".into();
    assert!(Provider::parse_all(&json!({"jwks": jwk}).to_string()).is_err());
}

#[test]
fn what_is_not_one_public_key_in_pem_is_refused() {
    let (rsa, ec) = (Key::generate(Algorithm::RS256), Key::generate(Algorithm::ES256));
    let der_of = info(&rsa.bare_public_jwk());
    let good = pem("PUBLIC KEY", &der_of);
    let mut p521 = info(&ec.bare_public_jwk());
    p521[22] = 9;
    let mut longer = der_of.clone();
    longer.push(0);
    let set = json!({"keys": [ec.public_jwk()]}).to_string();
    let version = &[2, 1, 0][..];
    let pkcs8 =
        der(0x30, &[version, &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70], &[4, 34, 4, 32], &[9; 32]]);
    let sec1 = der(0x30, &[&[2, 1, 1], &[4, 32], &[9; 32]]);
    let private_rsa = der(0x30, &[version, &der(2, &[&[0], &[0xc1; 256]]), &[2, 1, 3]]);
    let scheme = der(0x30, &[&[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 13], &[0x30, 0]]);
    let encrypted = der(0x30, &[&scheme, &der(4, &[&[9; 64]])]);
    for (name, text, detail) in [
        ("two blocks", format!("{good}{good}"), "more than one block"),
        ("a private key", pem("PRIVATE KEY", &[0x30, 0]), "private key"),
        ("an encrypted one", pem("ENCRYPTED PRIVATE KEY", &[0x30, 0]), "private key"),
        (
            "a private key too",
            format!("{good}{}", pem("EC PRIVATE KEY", &[0x30, 0])),
            "private key",
        ),
        ("another label", pem("EC PARAMETERS", &[6, 1, 0]), "EC PARAMETERS"),
        ("labels that differ", good.replace("END PUBLIC", "END RSA PUBLIC"), "one label"),
        ("cut off", good[..good.len() - 30].to_owned(), "one label"),
        ("something behind it", pem("PUBLIC KEY", &longer), "not a public key"),
        ("a private key under another label", pem("PUBLIC KEY", &pkcs8), "private key"),
        ("a private key of SEC 1 under another label", pem("CERTIFICATE", &sec1), "private key"),
        ("a private key of PKCS #1 without armour", STANDARD.encode(&private_rsa), "private key"),
        ("an encrypted private key without armour", STANDARD.encode(&encrypted), "private key"),
        ("a request for a certificate", pem("CERTIFICATE REQUEST", &der_of), "CERTIFICATE REQUEST"),
        ("a key of PGP", pem("PGP PUBLIC KEY BLOCK", &der_of), "PGP PUBLIC KEY BLOCK"),
        (
            "another structure",
            STANDARD.encode(der(0x30, &[&[2, 1, 7], &[4, 40], &[9; 40]])),
            "another structure",
        ),
        ("no base64", good.replace("MII", "M!I"), "not base64"),
        ("another curve", pem("PUBLIC KEY", &p521), "curve"),
        ("a JWK set", set, "a JWK set"),
        ("a URL", URL.to_owned(), "a URL"),
        ("anything", "anything".to_owned(), "without a block"),
    ] {
        let document = json!({"public_key": text}).to_string();
        let refusal = Provider::parse_all(&document).expect_err(name);
        assert_eq!(refusal.code(), Code::Configuration, "{name}");
        assert!(refusal.detail().unwrap().contains(detail), "{name}: {refusal:?}");
        assert!(refusal.hint().is_some(), "{name}");
    }
    let row = json!({"name": "p", "public_key": good, "jwks_url": URL}).to_string();
    assert_eq!(Provider::from_row(&row).unwrap_err().message(), "provider has two kinds of keys");
}

/// If the text of the public key were accepted as a secret, anyone could sign. A secret beside the
/// public key must not change that.
#[test]
fn the_algorithm_decides_between_a_secret_and_public_keys() {
    let asymmetric = Key::generate(Algorithm::ES256).with_kid("k");
    let jwk = asymmetric.public_jwk();
    let legacy = |kid: Option<&str>| {
        let key = Key::from_secret(Algorithm::HS256, SECRET.as_bytes());
        token(&kid.map_or_else(
            || Key::from_secret(Algorithm::HS256, SECRET.as_bytes()),
            |kid| key.with_kid(kid),
        ))
    };
    let forged = [
        jwk.to_string().into_bytes(),
        member(&jwk, "x"),
        pem("PUBLIC KEY", &info(&jwk)).into_bytes(),
    ];
    let document = json!({"jwks": {"keys": [jwk]}, "secret": SECRET});
    let in_pem = json!({"public_key": pem("PUBLIC KEY", &info(&jwk)), "secret": SECRET});
    for document in [&document, &in_pem] {
        assert_eq!(code(document, &token(&asymmetric)), "00000");
        for kid in [None, Some("k"), Some("unknown"), Some("")] {
            assert_eq!(code(document, &legacy(kid)), "00000", "{kid:?}");
        }
        for bytes in &forged {
            let key = Key::from_secret(Algorithm::HS256, bytes);
            assert_eq!(code(document, &token(&key)), "28J03");
            assert_eq!(code(document, &token(&key.with_kid("k"))), "28J03");
        }
    }
    let unknown = Key::generate(Algorithm::ES256).with_kid("other");
    assert_eq!(code(&document, &token(&unknown)), "28J02");
    // If a list excludes all keys of a member, the member is rejected.
    for (algorithms, member) in [(["ES256"], "\"secret\""), (["HS256"], "\"jwks\"")] {
        let mut listed = document.clone();
        listed["algorithms"] = json!(algorithms);
        let refusal = Provider::parse_all(&listed.to_string()).unwrap_err();
        assert_eq!(refusal.message(), "no key fits the listed algorithms");
        assert!(refusal.detail().unwrap().contains(member), "{refusal:?}");
    }

    // Before and after the keys are fetched.
    let verify = |row: &Value, token: &str| {
        let provider = Provider::from_row(&row.to_string()).unwrap();
        let verifier = Verifier::default().with(provider).unwrap();
        verifier.verify(token, NOW).map_or_else(|refusal| refusal.code().sqlstate(), |_| "00000")
    };
    let mut row = json!({"name": "p", "jwks_url": URL, "secret": SECRET});
    assert_eq!(verify(&row, &legacy(Some("x"))), "00000");
    assert_eq!(verify(&row, &token(&asymmetric)), "28J02");
    row["algorithms"] = json!(["ES256", "HS256"]);
    assert_eq!(verify(&row, &legacy(None)), "00000");
    row["fetched_jwks"] = json!({"keys": [jwk]});
    row["fetched_from"] = json!(URL);
    for (token, expected) in
        [(legacy(Some("x")), "00000"), (token(&asymmetric), "00000"), (token(&unknown), "28J02")]
    {
        assert_eq!(verify(&row, &token), expected);
    }
    assert!(!Provider::from_row(&row.to_string()).unwrap().keys().has_kid("x"));
    row["algorithms"] = json!(["HS256"]);
    assert!(Provider::from_row(&row.to_string()).is_err());
    // A set that mixes both kinds is rejected. The hint names the member for the secret.
    let set = json!({"keys": [jwk, {"kty": "oct", "k": URL_SAFE_NO_PAD.encode([7; 32])}]});
    let refusal = KeySet::parse(&set.to_string()).unwrap_err();
    assert!(refusal.hint().unwrap().contains("\"secret\""), "{refusal:?}");
}

#[test]
fn keys_of_one_id_are_told_apart_by_algorithm() {
    let rsa = [(); 2].map(|()| Key::generate(Algorithm::RS256).private_jwk().unwrap());
    let key = |place: usize, algorithm: Algorithm| {
        Key::from_private_jwk(&rsa[place]).unwrap().with_algorithm(algorithm).with_kid("k")
    };
    let (rs256, rs512) = (key(0, Algorithm::RS256), key(0, Algorithm::RS512));
    let ec = Key::generate(Algorithm::ES256).with_kid("k");
    let mut enc = key(1, Algorithm::RS256).public_jwk();
    enc["use"] = "enc".into();
    let jwks = [enc, rs256.public_jwk(), ec.public_jwk(), rs512.public_jwk()];
    let fetched =
        |keys: &[Value]| KeySet::fetched(&json!({"keys": keys}).to_string(), None).unwrap();
    let stored = fetched(&jwks).jwks;
    assert_eq!(stored.matches("\"kty\"").count(), 3);
    let mut reversed = jwks.clone();
    reversed.reverse();
    assert_eq!(fetched(&reversed).jwks, stored);
    for set in
        [json!({"keys": jwks}), json!({"keys": reversed}), serde_json::from_str(&stored).unwrap()]
    {
        for key in [&rs256, &rs512, &ec] {
            assert_eq!(code(&json!({"jwks": set}), &token(key)), "00000");
        }
        let other = key(1, Algorithm::RS256);
        assert_eq!(code(&json!({"jwks": set}), &token(&other)), "28J03");
    }
    // Two keys with the same algorithm are ambiguous, unless a list excludes one.
    let (one, two) = (key(0, Algorithm::RS256), key(1, Algorithm::RS256));
    let set = json!({"keys": [one.public_jwk(), two.public_jwk()]});
    let refusal = Provider::parse_all(&json!({"jwks": set}).to_string()).unwrap_err();
    assert_eq!(refusal.message(), "key set has a duplicate key id");
    let two = key(1, Algorithm::RS512);
    let mut one_bare = one.bare_public_jwk();
    one_bare["kid"] = "k".into();
    let set = json!({"keys": [one_bare, two.public_jwk()]});
    assert_eq!(code(&json!({"jwks": set}), &token(&two)), "00000");
    let wide = json!({"jwks": set, "algorithms": ["RS256", "RS512"]}).to_string();
    assert_eq!(Provider::parse_all(&wide).unwrap_err().message(), "key set has a duplicate key id");
    let passed_over = fetched(&[one.public_jwk(), key(1, Algorithm::RS256).public_jwk()]);
    assert_eq!(passed_over.passed_over[0].index, 1);
    assert!(passed_over.passed_over[0].reason.contains("same algorithm"));
}

#[test]
fn what_is_given_in_place_of_a_key_set_is_named() {
    let key = Key::generate(Algorithm::RS256);
    let der_of = info(&key.bare_public_jwk());
    let text = pem("PUBLIC KEY", &der_of);
    let certificate = pem("CERTIFICATE", &certificate(&key.bare_public_jwk()));
    let discovery = json!({"issuer": "https://i.example", "jwks_uri": URL}).to_string();
    let map = json!({"a1": certificate, "b2": certificate}).to_string();
    for (text, detail, hint) in [
        (text.clone(), "in PEM", "\"public_key\""),
        (certificate.clone(), "in PEM", "\"public_key\""),
        (STANDARD.encode(&der_of), "in DER", "\"public_key\""),
        (URL.to_owned(), "a URL", "\"jwks_url\""),
        (token(&key), "a token", "\"jwks\""),
        ("<!DOCTYPE html><html><body>Sign in</body></html>".to_owned(), "HTML", "JWK set"),
        (discovery, "discovery document", "without \"jwks_url\""),
        (map, "map of certificates", "securetoken@system"),
        (json!([key.public_jwk()]).to_string(), "array of JWKs", "{\"keys\": [...]}"),
        (
            json!({"realm": "x", "public_key": STANDARD.encode(&der_of)}).to_string(),
            "Keycloak",
            "issuer",
        ),
    ] {
        let as_string = json!({"jwks": text}).to_string();
        let as_value: Option<Value> = serde_json::from_str(&text).ok();
        let documents = [
            Some(KeySet::parse(&text).map(drop)),
            Some(KeySet::fetched(&text, None).map(drop)),
            as_value
                .map(|value| Provider::parse_all(&json!({"jwks": value}).to_string()).map(drop)),
            (!text.starts_with(['{', '['])).then(|| Provider::parse_all(&as_string).map(drop)),
        ];
        for outcome in documents.into_iter().flatten() {
            let refusal = outcome.expect_err(&text);
            assert_eq!(refusal.code(), Code::Configuration, "{text}");
            assert!(refusal.detail().unwrap().contains(detail), "{text}: {refusal:?}");
            assert!(refusal.hint().unwrap_or_default().contains(hint), "{text}: {refusal:?}");
        }
    }
}
