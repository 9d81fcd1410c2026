//! The checks of a signed claims set: issuer, audience, times, and the claims that a provider requires.
//! All tokens are signed correctly, unless a case says otherwise.

use mint::{Algorithm, Key};
use serde_json::{Value, json};
use session_jwt::{Claims, Provider, Rejection, UnjudgedClaims, Verifier};

use crate::{Base, NOW, accepted, base, provider, refused};

/// The expected outcome: accepted, or rejected with a code and words of the message.
type Expected = Result<(), (&'static str, &'static str)>;

const OK: Expected = Ok(());
const WRONG_TYPE: Expected = Err(("28J09", "claim is of the wrong type"));

fn signer() -> &'static Base {
    base(Algorithm::EdDSA)
}

/// Verifies the claims for a provider with these members.
fn verify(members: &Value, claims: &str, now: i64) -> (String, Result<Claims, Rejection>) {
    let token = signer().claims(claims);
    let outcome = provider(signer(), members).verify(&token, now);
    (token, outcome)
}

fn trusted_claims(json: &str) -> Result<Claims, Rejection> {
    UnjudgedClaims::trusted(json).map(|claims| claims.unjudged().clone())
}

#[track_caller]
fn check(members: &Value, cases: &[(&str, Expected)]) {
    for (claims, expected) in cases {
        let name = format!("{claims} for {members}");
        let (token, outcome) = verify(members, claims, NOW);
        match expected {
            Ok(()) => assert_eq!(accepted(&name, outcome).json(), *claims),
            Err((code, words)) => drop(refused(&name, &token, outcome, code, words)),
        }
    }
}

const A: &str = "https://a.example";
const B: &str = "https://b.example";

/// Providers A and B with an issuer each, and one without issuer. Each has one key.
struct Three {
    keys: [Key; 3],
    verifier: Verifier,
}

impl Three {
    fn new(kids: [&str; 3]) -> Self {
        let keys = kids.map(|kid| Key::generate(Algorithm::EdDSA).with_kid(kid));
        let documents = json!([
            {"name": "a", "issuer": A, "jwks": keys[0].public_jwk()},
            {"name": "b", "issuer": B, "jwks": keys[1].public_jwk()},
            {"name": "rest", "jwks": keys[2].public_jwk()},
        ]);
        let providers = Provider::parse_all(&documents.to_string()).unwrap();
        Self { keys, verifier: Verifier::new(providers).unwrap() }
    }
}

#[test]
fn an_issuer_is_served_by_its_own_keys_only() {
    const NO_KEY: Result<&str, &str> = Err("28J02");
    const SIGNATURE: Result<&str, &str> = Err("28J03");
    for (kids, with_kid, foreign) in [
        // The token names a key that the issuer's provider does not have.
        (["ka", "kb", "kr"], true, NO_KEY),
        // The token has no `kid`, or one that both have.
        (["ka", "kb", "kr"], false, SIGNATURE),
        (["k", "k", "k"], true, SIGNATURE),
        (["k", "k", "k"], false, SIGNATURE),
    ] {
        let Three { keys, verifier } = Three::new(kids);
        for (place, key) in keys.iter().enumerate() {
            let others = "\"iss\":\"https://c.example\",";
            for (iss, owner) in [
                (format!("\"iss\":\"{A}\","), 0),
                (format!("\"iss\":\"{B}\","), 1),
                (others.to_owned(), 2),
                (String::new(), 2),
                // The issuer is compared exactly.
                (format!("\"iss\":\"{A}/\","), 2),
                ("\"iss\":\"https://A.example\",".to_owned(), 2),
                (format!("\"iss\":\" {A}\","), 2),
                ("\"iss\":\"\",".to_owned(), 2),
            ] {
                let kid =
                    if with_kid { format!(",\"kid\":\"{}\"", kids[place]) } else { "".into() };
                let claims = format!("{{{iss}\"exp\":1700000300}}");
                let header = format!("{{\"alg\":\"EdDSA\"{kid}}}");
                let token = key.sign_raw(header.as_bytes(), claims.as_bytes());
                let name = format!("{claims} with key {place} and {header}");
                let outcome = verifier.verify(&token, NOW);
                let expected = if place == owner { Ok(["a", "b", "rest"][owner]) } else { foreign };
                match expected {
                    Ok(provider) => assert_eq!(accepted(&name, outcome).provider(), provider),
                    Err(code) => drop(refused(&name, &token, outcome, code, "")),
                }
            }
        }
    }
}

#[test]
fn an_issuer_that_nobody_serves_is_refused() {
    check(
        &json!({"issuer": A}),
        &[
            (r#"{"iss":"https://a.example","exp":1700000300}"#, OK),
            (r#"{"\u0069ss":"https:\/\/a.example","exp":1700000300}"#, OK),
            (r#"{"iss":"https://b.example","exp":1700000300}"#, Err(("28J02", B))),
            (r#"{"iss":"https://b.example","exp":1700000300}"#, Err(("28J02", A))),
            (r#"{"iss":"https://a.example/","exp":1700000300}"#, Err(("28J02", "a.example/"))),
            (r#"{"iss":"https://A.example","exp":1700000300}"#, Err(("28J02", "A.example"))),
            (r#"{"iss":"a.example","exp":1700000300}"#, Err(("28J02", "a.example"))),
            (r#"{"iss":"","exp":1700000300}"#, Err(("28J02", "no provider serves"))),
            (r#"{"ISS":"https://a.example","exp":1700000300}"#, Err(("28J06", "missing"))),
            (r#"{"exp":1700000300}"#, Err(("28J06", A))),
        ],
    );
}

/// An issuer that differs in a detail is rejected. The message names the difference.
#[test]
fn an_issuer_that_is_nearly_served_is_named() {
    let verifier = |issuers: &[&str]| {
        let documents: Vec<Value> = issuers
            .iter()
            .map(|issuer| json!({"issuer": issuer, "audience": "app", "jwks": signer().key.public_jwk()}))
            .collect();
        Verifier::new(Provider::parse_all(&json!(documents).to_string()).unwrap()).unwrap()
    };
    let many: Vec<String> = (0..20).map(|n| format!("https://i{n}.example")).collect();
    let mut all: Vec<&str> = many.iter().map(String::as_str).collect();
    const TENANT: &str = "3f1c2b7e-0a64-4a0e-9f53-1f0a7ad3b6f1";
    let entra_2 = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
    all.extend(["https://A.example/t", "http://b.example/", "c.example"]);
    all.extend([
        "https://d.example:443/x",
        "https://e.example/",
        "https://g.example/a-b%2fc",
        &entra_2,
    ]);
    let verifier = verifier(&all);
    for (iss, words) in [
        ("https://A.example/t/", "is \"https://A.example/t\": it differs by a slash at the end"),
        ("https://a.example/t", "is \"https://A.example/t\": it differs by upper and lower case"),
        ("http://A.example/t", "is \"https://A.example/t\": it differs by http or https"),
        ("HTTP://a.EXAMPLE/T/", "is \"https://A.example/t\": it differs by a slash"),
        ("https://b.example", "is \"http://b.example/\""),
        ("https://c.example", "is \"c.example\": it differs by http or https"),
        ("https://i19.example/", "is \"https://i19.example\": it differs by a slash"),
        (" c.example", "is \"c.example\": it differs by white space"),
        ("https://d.example/x", "it differs by the port of the scheme"),
        ("https://d.example/x/", "by a slash at the end and the port of the scheme"),
        ("https://e.example./", "it differs by a dot at the end of the host"),
        ("https://www.e.example/", "it differs by www."),
        ("https://e.example:443", "by a slash at the end and the port of the scheme"),
        ("https://g.example/a%2Db/c", "it differs by percent-encoding"),
        (&format!("https://sts.windows.net/{TENANT}/"), "by a slash at the end and the version of"),
        (&format!("https://login.microsoftonline.com/{TENANT}"), "the version of Entra's tokens"),
        ("https://e.example/v2.0", "the version of"),
    ] {
        let token = signer().claims(&json!({"iss": iss, "exp": NOW + 300}).to_string());
        refused(iss, &token, verifier.verify(&token, NOW), "28J02", words);
    }
    for iss in [
        "https://a.example",
        "https://A.example/t/u",
        "https://d.example",
        "https://d.example:8443/x",
        "https://e.example.evil.com/",
        "https://wwwe.example/",
        "https://sts.windows.net/3f1c2b7e/",
        "https://sts.windows.net/",
        "",
        "/",
    ] {
        let token = signer().claims(&json!({"iss": iss, "exp": NOW + 300}).to_string());
        let refusal = refused(iss, &token, verifier.verify(&token, NOW), "28J02", "");
        assert_eq!(refusal.hint(), None, "{iss}");
    }
    // The same if another provider was chosen.
    let provider = std::sync::Arc::clone(&verifier.providers()[20]);
    let token = signer().claims(r#"{"iss":"https://A.example/t/","exp":1700000300}"#);
    let outcome = session_jwt::authenticate(&token, |_| Ok(provider), |_| false);
    refused("chosen", &token, outcome, "28J06", "is \"https://A.example/t\"");
}

/// With and without an issuer of the provider.
#[test]
fn the_issuer_is_a_string() {
    for members in [json!({"issuer": A}), json!({})] {
        check(
            &members,
            &[
                (r#"{"iss":"https://a.example","exp":1700000300}"#, OK),
                (r#"{"iss":1,"exp":1700000300}"#, WRONG_TYPE),
                (r#"{"iss":true,"exp":1700000300}"#, WRONG_TYPE),
                (r#"{"iss":[],"exp":1700000300}"#, WRONG_TYPE),
                (r#"{"iss":["https://a.example"],"exp":1700000300}"#, WRONG_TYPE),
                (r#"{"iss":{"https://a.example":1},"exp":1700000300}"#, WRONG_TYPE),
            ],
        );
    }
}

#[test]
fn the_audience_is_one_of_the_providers() {
    for members in [json!({"audience": "app"}), json!({"audience": ["other", "app"]})] {
        const OTHER: Expected = Err(("28J07", "token is for another audience"));
        check(
            &members,
            &[
                (r#"{"aud":"app","exp":1700000300}"#, OK),
                (r#"{"aud":["app"],"exp":1700000300}"#, OK),
                (r#"{"aud":["x","app","y"],"exp":1700000300}"#, OK),
                (r#"{"exp":1700000300}"#, OTHER),
                (r#"{"exp":1700000300}"#, Err(("28J07", "Its aud is none"))),
                (r#"{"Aud":"app","exp":1700000300}"#, OTHER),
                (r#"{"aud":"x","exp":1700000300}"#, OTHER),
                (r#"{"aud":"","exp":1700000300}"#, OTHER),
                (r#"{"aud":"App","exp":1700000300}"#, OTHER),
                (r#"{"aud":"ap","exp":1700000300}"#, OTHER),
                (r#"{"aud":"app2","exp":1700000300}"#, OTHER),
                (r#"{"aud":" app","exp":1700000300}"#, OTHER),
                (r#"{"aud":"app,other","exp":1700000300}"#, OTHER),
                (r#"{"aud":"*","exp":1700000300}"#, OTHER),
                (r#"{"aud":[],"exp":1700000300}"#, OTHER),
                (r#"{"aud":["x"],"exp":1700000300}"#, OTHER),
                (r#"{"aud":[null],"exp":1700000300}"#, OTHER),
                (r#"{"aud":["x",null],"exp":1700000300}"#, Err(("28J07", "Its aud is \"x\";"))),
                (r#"{"aud":["null"],"exp":1700000300}"#, OTHER),
            ],
        );
    }
    check(&json!({"audience": ["other", "app"]}), &[(r#"{"aud":["other"],"exp":1700000300}"#, OK)]);
    check(
        &json!({}),
        &[
            (r#"{"exp":1700000300}"#, OK),
            (r#"{"aud":"anyone","exp":1700000300}"#, OK),
            (r#"{"aud":["any","one"],"exp":1700000300}"#, OK),
            (r#"{"aud":[],"exp":1700000300}"#, OK),
        ],
    );
}

#[test]
fn the_audience_is_strings() {
    for members in [json!({"audience": "app"}), json!({})] {
        check(
            &members,
            &[
                (r#"{"aud":["app"],"exp":1700000300}"#, OK),
                (r#"{"aud":1,"exp":1700000300}"#, WRONG_TYPE),
                (r#"{"aud":true,"exp":1700000300}"#, WRONG_TYPE),
                (r#"{"aud":{"app":1},"exp":1700000300}"#, WRONG_TYPE),
                (r#"{"aud":["app",1],"exp":1700000300}"#, WRONG_TYPE),
                (r#"{"aud":[1,"app"],"exp":1700000300}"#, WRONG_TYPE),
                (r#"{"aud":["app",null],"exp":1700000300}"#, OK),
                (r#"{"aud":[null,"app"],"exp":1700000300}"#, OK),
                (r#"{"aud":["app",null,1],"exp":1700000300}"#, WRONG_TYPE),
                (r#"{"aud":["app",["app"]],"exp":1700000300}"#, WRONG_TYPE),
                (r#"{"aud":[["app"]],"exp":1700000300}"#, WRONG_TYPE),
                (r#"{"aud":{},"exp":1700000300}"#, WRONG_TYPE),
            ],
        );
    }
}

#[test]
fn the_subject_is_a_string_or_an_integer() {
    const TYPE: Expected = Err(("28J09", "expected is a string or an integer"));
    // With and without a `user_id_claim`.
    for members in [json!({}), json!({"user_id_claim": "uid"})] {
        check(
            &members,
            &[
                (r#"{"sub":"alice","exp":1700000300}"#, OK),
                (r#"{"sub":"42","exp":1700000300}"#, OK),
                (r#"{"sub":"","exp":1700000300}"#, OK),
                (r#"{"exp":1700000300}"#, OK),
                (r#"{"sub":null,"exp":1700000300}"#, OK),
                (r#"{"sub":42,"exp":1700000300}"#, OK),
                (r#"{"sub":-0,"exp":1700000300}"#, OK),
                (r#"{"sub":42.0,"exp":1700000300}"#, TYPE),
                (r#"{"sub":42.5,"exp":1700000300}"#, Err(("28J09", "with a fraction"))),
                (r#"{"sub":1e3,"exp":1700000300}"#, TYPE),
                (r#"{"sub":1E+3,"exp":1700000300}"#, TYPE),
                (r#"{"sub":0042,"exp":1700000300}"#, Err(("28J01", "malformed"))),
                (r#"{"sub":true,"exp":1700000300}"#, TYPE),
                (r#"{"sub":["alice"],"exp":1700000300}"#, TYPE),
                (r#"{"sub":[],"exp":1700000300}"#, TYPE),
                (r#"{"sub":{"alice":1},"exp":1700000300}"#, TYPE),
            ],
        );
    }
    for (sub, user) in [
        ("null", None),
        (r#""""#, None),
        (r#"" ""#, Some(" ")),
        ("12345", Some("12345")),
        ("-0", Some("0")),
        ("-7", Some("-7")),
        ("123456789012345678901234567890", Some("123456789012345678901234567890")),
    ] {
        let claims = format!(r#"{{"sub":{sub},"exp":1700000300}}"#);
        let (_, outcome) = verify(&json!({}), &claims, NOW);
        let trusted = trusted_claims(&claims).unwrap();
        for verified in [outcome.unwrap(), trusted] {
            assert_eq!(verified.user_id(), user, "{sub}");
            // The claim is still visible.
            assert_eq!(verified.json(), claims);
        }
    }
    let (_, outcome) = verify(&json!({}), r#"{"exp":1700000300}"#, NOW);
    assert_eq!(outcome.unwrap().user_id(), None);
}

/// Some libraries write null for claims that a token does not have.
#[test]
fn a_registered_claim_that_is_null_is_absent() {
    const MISSING: Expected = Err(("28J09", "required claim is missing"));
    for name in ["iss", "sub", "aud", "nbf", "iat", "jti", "email", "o", "perm", "a", "role"] {
        let claims = format!(r#"{{"{name}":null,"exp":1700000300}}"#);
        check(&json!({}), &[(&claims, OK)]);
        check(&json!({"required_claims": [name]}), &[(&claims, MISSING)]);
    }
    let empty = r#"{"aud":[],"exp":1700000300}"#;
    check(&json!({"required_claims": ["aud"]}), &[(empty, MISSING)]);
    let null = r#"{"iss":null,"aud":null,"jti":null,"exp":null,"sub":null}"#;
    check(&json!({"required_claims": []}), &[(null, OK)]);
    // If the provider requires the claim, null is rejected as absent.
    check(&json!({}), &[(null, MISSING)]);
    check(&json!({"issuer": A}), &[(null, Err(("28J06", "Its iss is missing")))]);
    check(&json!({"audience": "app"}), &[(null, Err(("28J07", "Its aud is none")))]);
    check(
        &json!({"monotonic_jti": true, "required_claims": []}),
        &[(null, Err(("28J09", "no claim \"jti\"")))],
    );
    let trusted = trusted_claims(null).unwrap();
    assert_eq!((trusted.user_id(), trusted.issuer(), trusted.valid_until()), (None, None, None));
}

/// Providers of services and of anonymous users write empty strings. As an id, such a claim would make
/// all of them the same user.
#[test]
fn an_empty_string_identifies_nobody() {
    let claims = r#"{"sub":"","email":"","uid":"","exp":1700000300}"#;
    for members in [json!({}), json!({"user_id_claim": "uid"}), json!({"user_id_claim": "/uid"})] {
        let verified = accepted(claims, verify(&members, claims, NOW).1);
        assert_eq!((verified.user_id(), verified.email()), (None, None), "{members}");
    }
    let trusted = trusted_claims(claims).unwrap();
    assert_eq!((trusted.user_id(), trusted.email()), (None, None));
}

#[test]
fn times_are_numbers_in_range() {
    const RANGE: Expected = Err(("28J09", "claim is out of range"));
    const SYNTAX: Expected = Err(("28J01", "token payload is malformed"));
    const EXPIRED: Expected = Err(("28J04", "token has expired"));
    const EARLY: Expected = Err(("28J05", "token is not yet valid"));
    check(
        &json!({}),
        &[
            (r#"{"exp":1700000300}"#, OK),
            (r#"{"exp":1700000300.0}"#, OK),
            (r#"{"exp":1.7000003e9}"#, OK),
            (r#"{"exp":17000003E+2}"#, OK),
            (r#"{"exp":1700000300000000000000000000000e-21}"#, OK),
            (r#"{"exp":253402300799}"#, OK),
            (r#"{"exp":253402300799.999}"#, OK),
            (r#"{}"#, Err(("28J09", "The token has no claim \"exp\""))),
            (r#"{"Exp":1700000300}"#, Err(("28J09", "The token has no claim \"exp\""))),
            (r#"{"exp":null}"#, Err(("28J09", "The token has no claim \"exp\""))),
            (r#"{"exp":true}"#, WRONG_TYPE),
            (r#"{"exp":"1700000300"}"#, WRONG_TYPE),
            (r#"{"exp":"2023-11-14T22:18:20Z"}"#, WRONG_TYPE),
            // As a required claim, it counts as missing.
            (r#"{"exp":""}"#, Err(("28J09", "The token has no claim \"exp\""))),
            (r#"{"exp":[1700000300]}"#, WRONG_TYPE),
            (r#"{"exp":{"exp":1700000300}}"#, WRONG_TYPE),
            (r#"{"exp":NaN}"#, SYNTAX),
            (r#"{"exp":Infinity}"#, SYNTAX),
            (r#"{"exp":1700000300L}"#, SYNTAX),
            (r#"{"exp":0x65540A2C}"#, SYNTAX),
            (r#"{"exp":1e400}"#, RANGE),
            (r#"{"exp":1e99999}"#, RANGE),
            (r#"{"exp":253402300800}"#, RANGE),
            (r#"{"exp":1700000300000}"#, RANGE),
            (r#"{"exp":9223372036854775807}"#, RANGE),
            (r#"{"exp":9223372036854775808}"#, RANGE),
            (r#"{"exp":18446744073709551616}"#, RANGE),
            (r#"{"exp":-9223372036854775808}"#, RANGE),
            (r#"{"exp":-1e400}"#, RANGE),
            (r#"{"exp":-62135596801}"#, RANGE),
            (r#"{"exp":-62135596800.5}"#, RANGE),
            (r#"{"exp":-62135596800}"#, EXPIRED),
            (r#"{"exp":-1}"#, EXPIRED),
            (r#"{"exp":0}"#, EXPIRED),
            (r#"{"exp":-0}"#, EXPIRED),
            (r#"{"exp":1e-400}"#, EXPIRED),
        ],
    );
    check(&json!({"required_claims": []}), &[(r#"{"exp":""}"#, WRONG_TYPE)]);
    check(
        &json!({}),
        &[
            (r#"{"nbf":1700000000,"exp":1700000300}"#, OK),
            (r#"{"nbf":0,"exp":1700000300}"#, OK),
            (r#"{"nbf":-62135596800.9,"exp":1700000300}"#, OK),
            (r#"{"nbf":null,"exp":1700000300}"#, OK),
            (r#"{"nbf":"1700000000","exp":1700000300}"#, WRONG_TYPE),
            (r#"{"nbf":false,"exp":1700000300}"#, WRONG_TYPE),
            (r#"{"nbf":[],"exp":1700000300}"#, WRONG_TYPE),
            (r#"{"nbf":NaN,"exp":1700000300}"#, SYNTAX),
            (r#"{"nbf":1700000000000,"exp":1700000300}"#, RANGE),
            (r#"{"nbf":253402300799.5,"exp":1700000300}"#, RANGE),
            (r#"{"nbf":-1e400,"exp":1700000300}"#, RANGE),
            (r#"{"nbf":-62135596801,"exp":1700000300}"#, RANGE),
            (r#"{"nbf":253402300799,"exp":1700000300}"#, EARLY),
            (r#"{"nbf":1700000301,"exp":1700000300}"#, EARLY),
        ],
    );
    // By default, neither the time of issue nor its type matters.
    check(
        &json!({}),
        &[
            (r#"{"iat":1800000000,"exp":1700000300}"#, OK),
            (r#"{"iat":"yesterday","exp":1700000300}"#, OK),
            (r#"{"iat":null,"exp":1700000300}"#, OK),
        ],
    );
}

/// RFC 7519 sections 4.1.4 and 4.1.5: valid before `exp`, and from `nbf` on.
#[test]
fn times_are_exact_to_the_second() {
    const EXPIRED: &str = "28J04";
    const EARLY: &str = "28J05";
    for (claims, leeway, now, expected) in [
        (r#"{"exp":1000}"#, 60, 1059, None),
        (r#"{"exp":1000}"#, 60, 1060, Some(EXPIRED)),
        (r#"{"exp":1000}"#, 60, 1061, Some(EXPIRED)),
        (r#"{"exp":1000}"#, 60, i64::MAX, Some(EXPIRED)),
        (r#"{"exp":1000}"#, 60, i64::MIN, None),
        (r#"{"exp":1000}"#, 0, 999, None),
        (r#"{"exp":1000}"#, 0, 1000, Some(EXPIRED)),
        (r#"{"exp":1000}"#, 3600, 4599, None),
        (r#"{"exp":1000}"#, 3600, 4600, Some(EXPIRED)),
        (r#"{"exp":1000.0}"#, 0, 999, None),
        (r#"{"exp":1000.9}"#, 0, 999, None),
        (r#"{"exp":1000.9}"#, 0, 1000, Some(EXPIRED)),
        (r#"{"exp":999.999999999999999999}"#, 0, 998, None),
        (r#"{"exp":999.999999999999999999}"#, 0, 999, Some(EXPIRED)),
        (r#"{"exp":1000.9}"#, 60, 1060, Some(EXPIRED)),
        (r#"{"exp":-0.5}"#, 0, -2, None),
        (r#"{"exp":-0.5}"#, 0, -1, Some(EXPIRED)),
        (r#"{"exp":9e3,"nbf":1000}"#, 60, 940, None),
        (r#"{"exp":9e3,"nbf":1000}"#, 60, 939, Some(EARLY)),
        (r#"{"exp":9e3,"nbf":1000}"#, 60, i64::MIN, Some(EARLY)),
        (r#"{"exp":9e3,"nbf":1000}"#, 0, 1000, None),
        (r#"{"exp":9e3,"nbf":1000}"#, 0, 999, Some(EARLY)),
        (r#"{"exp":9e3,"nbf":1000.1}"#, 0, 1001, None),
        (r#"{"exp":9e3,"nbf":1000.1}"#, 0, 1000, Some(EARLY)),
        (r#"{"exp":9e3,"nbf":1000.1}"#, 60, 940, Some(EARLY)),
        (r#"{"exp":9e3,"nbf":1000.000000000000000001}"#, 0, 1000, Some(EARLY)),
        (r#"{"exp":9e3,"nbf":-0.5}"#, 0, 0, None),
        (r#"{"exp":9e3,"nbf":-0.5}"#, 0, -1, Some(EARLY)),
        // The token is never valid.
        (r#"{"exp":1000,"nbf":1001}"#, 0, 1000, Some(EARLY)),
        (r#"{"exp":1000,"nbf":1001}"#, 0, 1001, Some(EXPIRED)),
    ] {
        let name = format!("{claims} with leeway {leeway} at {now}");
        let (token, outcome) = verify(&json!({"leeway": leeway}), claims, now);
        match expected {
            None => {
                let until = accepted(&name, outcome).valid_until().unwrap();
                let unjudged =
                    provider(signer(), &json!({"leeway": leeway})).authenticate(&token).unwrap();
                assert!(unjudged.judge(until - 1).is_ok(), "{name}");
                let late = unjudged.judge(until).unwrap_err();
                assert_eq!(late.code().sqlstate(), EXPIRED, "{name}");
            }
            Some(code) => drop(refused(&name, &token, outcome, code, "the leeway is")),
        }
        // The default is a minute.
        if leeway == 60 {
            let (_, default) = verify(&json!({}), claims, now);
            let code = default.err().map(|refusal| refusal.code().sqlstate());
            assert_eq!(code, expected, "{name} by default");
        }
    }
}

/// Claims whose times are not judged can be judged later.
#[test]
fn times_may_be_judged_later() {
    let base = signer();
    for (claims, early, expired) in [
        (r#"{"exp":1700000300}"#, false, false),
        (r#"{"exp":1600000000}"#, false, true),
        (r#"{"nbf":1800000000,"exp":1900000000}"#, true, false),
        (r#"{"nbf":1800000000,"exp":1600000000}"#, true, true),
    ] {
        let verified = accepted(claims, base.verifier.authenticate(&base.claims(claims)));
        let code = |outcome: Result<&Claims, Rejection>| outcome.err().map(|r| r.code().sqlstate());
        let expired = expired.then_some("28J04");
        let presented = if early { Some("28J05") } else { expired };
        assert_eq!(code(verified.judge_presentation(NOW)), presented, "{claims}, presented");
        assert_eq!(code(verified.judge(NOW)), expired, "{claims}, read");
    }
    // All other checks run at once.
    let token = base.claims(r#"{"exp":"x"}"#);
    refused("type", &token, base.verifier.authenticate(&token), "28J09", "");
}

#[test]
fn required_claims_are_there() {
    const MISSING: Expected = Err(("28J09", "required claim is missing"));
    check(
        &json!({"required_claims": ["exp", "sub", "tenant"]}),
        &[
            (r#"{"exp":1700000300,"sub":"alice","tenant":1}"#, OK),
            (r#"{"exp":1700000300,"sub":"alice","tenant":false}"#, OK),
            (r#"{"exp":1700000300,"sub":"alice","tenant":0}"#, OK),
            (r#"{"exp":1700000300,"sub":"alice","tenant":[""]}"#, OK),
            (r#"{"exp":1700000300,"sub":"alice","tenant":[]}"#, MISSING),
            (r#"{"exp":1700000300,"sub":"alice","tenant":""}"#, MISSING),
            (r#"{"exp":1700000300,"sub":"","tenant":1}"#, MISSING),
            (r#"{"exp":1700000300,"sub":"alice"}"#, MISSING),
            (r#"{"exp":1700000300,"sub":"alice","tenant":null}"#, MISSING),
            (r#"{"exp":1700000300,"sub":"alice","Tenant":1}"#, MISSING),
            (r#"{"exp":1700000300,"sub":"alice","x":{"tenant":1}}"#, MISSING),
            (r#"{"exp":1700000300,"tenant":1}"#, Err(("28J09", "no claim \"sub\""))),
            (r#"{"sub":"alice","tenant":1}"#, Err(("28J09", "no claim \"exp\""))),
        ],
    );
    check(
        &json!({"required_claims": ["/o/id", "a.b/c", "/c~1d"]}),
        &[
            (r#"{"o":{"id":1},"a.b/c":1,"c/d":1}"#, OK),
            (r#"{"o":{"id":""},"a.b/c":1,"c/d":1}"#, Err(("28J09", "no claim \"/o/id\""))),
            (r#"{"/o/id":1,"a.b/c":1,"c/d":1}"#, Err(("28J09", "no claim \"/o/id\""))),
            (r#"{"o":{"id":1},"a":{"b":1},"c/d":1}"#, Err(("28J09", "no claim \"a.b/c\""))),
            (r#"{"o":{"id":1},"a.b/c":1}"#, Err(("28J09", "no claim \"/c~1d\""))),
        ],
    );
    // If the list does not contain `exp`, it is optional but not ignored.
    for members in [json!({"required_claims": []}), json!({"required_claims": ["sub"]})] {
        check(
            &members,
            &[
                (r#"{"sub":"alice"}"#, OK),
                (r#"{"sub":"alice","exp":1700000300}"#, OK),
                (r#"{"sub":"alice","exp":1600000000}"#, Err(("28J04", ""))),
                (r#"{"sub":"alice","exp":"never"}"#, WRONG_TYPE),
                (r#"{"sub":"alice","exp":null}"#, OK),
            ],
        );
    }
    check(&json!({}), &[(r#"{"sub":"alice"}"#, MISSING), (r#"{"exp":1700000300}"#, OK)]);
}

#[test]
fn claims_fit_jsonb() {
    const UNFIT: Expected = Err(("28J09", "claim cannot be stored as jsonb"));
    const SYNTAX: Expected = Err(("28J01", "token payload is malformed"));
    check(
        &json!({}),
        &[
            (r#"{"exp":1700000300,"x":"\u0001"}"#, OK),
            (r#"{"exp":1700000300,"x":"\\u0000"}"#, OK),
            (r#"{"exp":1700000300,"x":"\u0000"}"#, UNFIT),
            (r#"{"exp":1700000300,"x":"a\u0000b"}"#, Err(("28J09", "U+0000"))),
            (r#"{"exp":1700000300,"x\u0000":1}"#, Err(("28J09", "U+0000"))),
            (r#"{"exp":1700000300,"\u0000":1}"#, UNFIT),
            (r#"{"exp":1700000300,"x":["\u0000"]}"#, UNFIT),
            (r#"{"exp":1700000300,"x":{"y":[{"z":"\u0000"}]}}"#, UNFIT),
            (r#"{"exp":1700000300,"x":{"y\u0000":1}}"#, UNFIT),
            (r#"{"exp":1700000300,"sub":"alice\u0000"}"#, UNFIT),
            (r#"{"exp":1700000300,"iat":"\u0000"}"#, UNFIT),
            (r#"{"exp":1700000300,"x":"\ud83d\ude00"}"#, OK),
            (r#"{"exp":1700000300,"x":"\ud83d"}"#, SYNTAX),
            (r#"{"exp":1700000300,"x":"\ude00"}"#, SYNTAX),
            (r#"{"exp":1700000300,"\ud83d":1}"#, SYNTAX),
            (r#"{"exp":1700000300,"x":1e400}"#, OK),
            (r#"{"exp":1700000300,"x":1e131071}"#, OK),
            (r#"{"exp":1700000300,"x":1e-16383}"#, OK),
            (r#"{"exp":1700000300,"x":0e9999}"#, OK),
            (r#"{"exp":1700000300,"x":1e131072}"#, Err(("28J09", "range of numeric"))),
            (r#"{"exp":1700000300,"x":10e131071}"#, UNFIT),
            (r#"{"exp":1700000300,"x":-1e131072}"#, UNFIT),
            (r#"{"exp":1700000300,"x":1e-16384}"#, UNFIT),
            (r#"{"exp":1700000300,"x":0e-16384}"#, UNFIT),
            (r#"{"exp":1700000300,"x":1e1073741824}"#, UNFIT),
            (r#"{"exp":1700000300,"x":1e99999999999999999999}"#, UNFIT),
            (r#"{"exp":1700000300,"x":1e-99999999999999999999}"#, UNFIT),
            (r#"{"exp":1700000300,"x":[{"y":1e131072}]}"#, UNFIT),
        ],
    );
}

/// Numbers keep every digit, and strings their spelling.
#[test]
fn claims_are_kept_as_they_were_written() {
    let texts = [
        r#"{"exp":1700000300,"x":123456789012345678901234567890}"#.to_owned(),
        r#"{"exp":1700000300,"x":0.1000000000000000055511151231257827021181583404541015625}"#
            .into(),
        r#"{"exp":1700000300,"x":[1.0,1e0,-0,-0.0,1E5,1.50]}"#.into(),
        r#"{"exp":1700000300,"x":1e400,"z":1,"a":2}"#.into(),
        "{ \"exp\" :\t1700000300 ,\r\n\"x\":\"\\u00e9\u{e9}\\/\" }\n".into(),
        format!(r#"{{"exp":1700000300,"x":{}}}"#, "9".repeat(5000)),
        format!(r#"{{"exp":1700000300,"x":0.{}}}"#, "1".repeat(5000)),
    ];
    for text in texts {
        let (_, outcome) = verify(&json!({}), &text, NOW);
        assert_eq!(outcome.unwrap().json(), text);
    }
}

/// The application, the type of token, the tenant: a claim that must have one of several values.
#[test]
fn a_required_value_is_there() {
    const OTHER: &str = "claim does not have a required value";
    for (require, claim, expected) in [
        (json!({"azp": "app"}), r#""azp":"app""#, Ok(())),
        (json!({"azp": ["web", "app"]}), r#""azp":"app""#, Ok(())),
        (json!({"azp": "app"}), r#""azp":["x","app"]"#, Ok(())),
        (json!({"azp": "app"}), r#""azp":"App""#, Err("\"azp\" is \"App\"; expected is \"app\".")),
        (json!({"azp": ["a", "b"]}), r#""azp":"app""#, Err("expected is \"a\", \"b\".")),
        (json!({"azp": "app"}), r#""x":"app""#, Err("\"azp\" is missing; expected is \"app\".")),
        (json!({"azp": "app"}), r#""azp":null"#, Err("is missing")),
        (json!({"azp": "app"}), r#""azp":"""#, Err("is \"\";")),
        (json!({"azp": "app"}), r#""azp":"app ""#, Err("is \"app \";")),
        (json!({"azp": "app"}), r#""azp":[]"#, Err("is an empty array;")),
        (json!({"azp": "app"}), r#""azp":["x",1,null]"#, Err("is an array of \"x\", 1, null;")),
        (json!({"azp": "app"}), r#""azp":[["app"]]"#, Err("is an array of an array;")),
        (json!({"azp": "app"}), r#""azp":{"app":1}"#, Err("is an object;")),
        (json!({"azp": "app"}), r#""azp":"[\"app\"]""#, Err("is \"[")),
        (json!({"azp": "app"}), r#""Azp":"app""#, Err("is missing")),
        (json!({"/a/b": "app"}), r#""a":{"b":"app"}"#, Ok(())),
        (json!({"/a/1": "app"}), r#""a":["x","app"]"#, Ok(())),
        (json!({"/a/b": "app"}), r#""/a/b":"app""#, Err("\"/a/b\" is missing")),
        (json!({"a.b": "app"}), r#""a.b":"app""#, Ok(())),
        (json!({"v": true}), r#""v":true"#, Ok(())),
        (json!({"v": true}), r#""v":false"#, Err("is false; expected is true.")),
        (json!({"v": true}), r#""v":"true""#, Err("is \"true\";")),
        (json!({"v": true}), r#""v":1"#, Err("is 1;")),
        (json!({"v": false}), r#""v":null"#, Err("is missing")),
        (json!({"v": 1}), r#""v":1"#, Ok(())),
        (json!({"v": 1}), r#""v":"1""#, Err("is \"1\"; expected is 1.")),
        (json!({"v": "1"}), r#""v":1"#, Err("is 1; expected is \"1\".")),
        (json!({"v": 1}), r#""v":1.0"#, Err("is a number;")),
        (json!({"v": 1}), r#""v":1e0"#, Err("is a number;")),
        (json!({"v": 1}), r#""v":10"#, Err("is 10;")),
        (json!({"v": 0}), r#""v":-0"#, Ok(())),
        (json!({"v": -7}), r#""v":[7,-7]"#, Ok(())),
        (json!({"a": 1, "b": 2}), r#""a":1,"b":2"#, Ok(())),
        (json!({"a": 1, "b": 2}), r#""a":1,"b":3"#, Err("\"b\" is 3")),
        (json!({"a": 1, "b": 2}), r#""b":2"#, Err("\"a\" is missing")),
    ] {
        let claims = format!(r#"{{"exp":1700000300,{claim}}}"#);
        let name = format!("{claims} for {require}");
        let (token, outcome) = verify(&json!({"require": require}), &claims, NOW);
        match expected {
            Ok(()) => drop(accepted(&name, outcome)),
            Err(words) => {
                assert_eq!(refused(&name, &token, outcome, "28J09", words).message(), OTHER);
            }
        }
    }
    // Every digit matters.
    let document = |digits: &str| {
        let jwk = signer().key.public_jwk();
        let text = format!(r#"{{"jwks":{jwk},"require":{{"v":{digits}}}}}"#);
        Verifier::new(Provider::parse_all(&text).unwrap()).unwrap()
    };
    let token = signer().claims(r#"{"exp":1700000300,"v":123456789012345678901234567890}"#);
    accepted("equal", document("123456789012345678901234567890").verify(&token, NOW));
    let outcome = document("123456789012345678901234567891").verify(&token, NOW);
    refused("another", &token, outcome, "28J09", "expected is 123456789012345678901234567891.");
}

/// The maximum age is another expiry. The earlier of the two counts.
#[test]
fn a_token_may_be_too_old() {
    const OLD: (&str, &str) = ("28J04", "token is too old");
    const EXPIRED: (&str, &str) = ("28J04", "token has expired");
    const FUTURE: (&str, &str) = ("28J05", "token is issued in the future");
    for (claims, leeway, now, expected) in [
        (r#"{"iat":1000,"exp":9000}"#, 0, 1000, Ok(1100)),
        (r#"{"iat":1000,"exp":9000}"#, 0, 1099, Ok(1100)),
        (r#"{"iat":1000,"exp":9000}"#, 0, 1100, Err(OLD)),
        (r#"{"iat":1000,"exp":9000}"#, 60, 1159, Ok(1160)),
        (r#"{"iat":1000,"exp":9000}"#, 60, 1160, Err(OLD)),
        (r#"{"iat":1000,"exp":9000}"#, 60, i64::MAX, Err(OLD)),
        (r#"{"iat":1000,"exp":1050}"#, 0, 1049, Ok(1050)),
        (r#"{"iat":1000,"exp":1050}"#, 0, 1050, Err(EXPIRED)),
        (r#"{"iat":1000,"exp":9000}"#, 0, 999, Err(FUTURE)),
        (r#"{"iat":1000,"exp":9000}"#, 60, 940, Ok(1160)),
        (r#"{"iat":1000,"exp":9000}"#, 60, 939, Err(FUTURE)),
        (r#"{"iat":1000,"exp":9000}"#, 60, i64::MIN, Err(FUTURE)),
        // Fractions count against the token.
        (r#"{"iat":1000.5,"exp":9000}"#, 0, 1000, Err(FUTURE)),
        (r#"{"iat":1000.5,"exp":9000}"#, 0, 1099, Ok(1100)),
        (r#"{"iat":1000.5,"exp":9000}"#, 0, 1100, Err(OLD)),
        (r#"{"iat":1e3,"exp":9000}"#, 0, 1099, Ok(1100)),
        (r#"{"iat":-62135596800,"exp":9000}"#, 0, 0, Err(OLD)),
        (r#"{"iat":253402300799,"exp":9000}"#, 0, 0, Err(FUTURE)),
        (r#"{"exp":9000}"#, 0, 0, Err(("28J09", "no claim \"iat\""))),
        (r#"{"iat":null,"exp":9000}"#, 0, 0, Err(("28J09", "no claim \"iat\""))),
        (r#"{"iat":"1000","exp":9000}"#, 0, 1000, Err(("28J09", "expected is a number"))),
        (r#"{"iat":[1000],"exp":9000}"#, 0, 1000, Err(("28J09", "expected is a number"))),
        (r#"{"iat":1000000000000,"exp":9000}"#, 0, 1000, Err(("28J09", "not milliseconds"))),
        (r#"{"iat":1000}"#, 0, 1000, Err(("28J09", "no claim \"exp\""))),
    ] {
        let name = format!("{claims} with leeway {leeway} at {now}");
        let members = json!({"max_token_age": 100, "leeway": leeway});
        let (token, outcome) = verify(&members, claims, now);
        match expected {
            Ok(until) => {
                let claims = accepted(&name, outcome);
                assert_eq!(claims.valid_until(), Some(until), "{name}");
                let unjudged = provider(signer(), &members).authenticate(&token).unwrap();
                assert!(unjudged.judge(until - 1).is_ok(), "{name}");
                let late = unjudged.judge(until).unwrap_err();
                assert_eq!(late.code().sqlstate(), "28J04", "{name}");
            }
            Err((code, words)) => drop(refused(&name, &token, outcome, code, words)),
        }
    }
    let members = json!({"max_token_age": 100, "leeway": 0, "required_claims": []});
    let (token, outcome) = verify(&members, r#"{"iat":1000}"#, 1230);
    let words = "Its iat is 1000 (3 minutes ago); the provider's max_token_age is 100 s";
    refused("without exp", &token, outcome, "28J04", words);
}

#[test]
fn a_monotonic_jti_is_an_integer() {
    for (jti, sequence) in [
        ("0", Some(0)),
        ("42", Some(42)),
        ("-7", Some(-7)),
        ("9223372036854775807", Some(i64::MAX)),
        ("9223372036854775808", None),
        ("1e2", None),
        ("1.0", None),
        ("1.5", None),
        (r#""42""#, None),
        ("null", None),
        ("true", None),
        ("[42]", None),
        ("{}", None),
    ] {
        let claims = format!(r#"{{"exp":1700000300,"jti":{jti}}}"#);
        let (token, outcome) = verify(&json!({"monotonic_jti": true}), &claims, NOW);
        match sequence {
            Some(_) => assert_eq!(accepted(jti, outcome).sequence(), sequence),
            None => drop(refused(jti, &token, outcome, "28J09", "claim \"jti\"")),
        }
        // Without a maximum age, `iat` is ignored.
        for members in [json!({}), json!({"monotonic_jti": false})] {
            assert_eq!(accepted(jti, verify(&members, &claims, NOW).1).sequence(), None);
        }
    }
    let missing = r#"{"exp":1700000300}"#;
    let (token, outcome) = verify(&json!({"monotonic_jti": true}), missing, NOW);
    refused("no jti", &token, outcome, "28J09", "no claim \"jti\"");
}

#[test]
fn the_user_is_a_string_or_an_integer() {
    for (value, user) in [
        (r#""bob""#, Ok(Some("bob"))),
        (r#""""#, Ok(None)),
        ("42", Ok(Some("42"))),
        ("-0", Ok(Some("0"))),
        ("-1", Ok(Some("-1"))),
        ("9223372036854775807", Ok(Some("9223372036854775807"))),
        ("null", Ok(None)),
        ("1.0", Err(())),
        ("1e3", Err(())),
        ("true", Err(())),
        ("[]", Err(())),
        (r#"["bob"]"#, Err(())),
        (r#"{"id":"bob"}"#, Err(())),
    ] {
        for (path, claims) in [
            ("uid", format!(r#"{{"exp":1700000300,"sub":"alice","uid":{value}}}"#)),
            ("/u/0/id", format!(r#"{{"exp":1700000300,"sub":"alice","u":[{{"id":{value}}}]}}"#)),
            ("a.b", format!(r#"{{"exp":1700000300,"a":{{"b":"mallory"}},"a.b":{value}}}"#)),
            ("/a~1b/~0", format!(r#"{{"exp":1700000300,"a/b":{{"~":{value}}}}}"#)),
        ] {
            let (token, outcome) = verify(&json!({"user_id_claim": path}), &claims, NOW);
            match user {
                Ok(user) => assert_eq!(accepted(&claims, outcome).user_id(), user, "{claims}"),
                Err(()) => {
                    drop(refused(&claims, &token, outcome, "28J09", "a string or an integer"));
                }
            }
        }
    }
    // An integer keeps all of its digits.
    let claims = r#"{"exp":1700000300,"uid":123456789012345678901234567890}"#;
    let (_, outcome) = verify(&json!({"user_id_claim": "uid"}), claims, NOW);
    let digits = Some("123456789012345678901234567890");
    assert_eq!(accepted(claims, outcome).user_id(), digits);
    // Without the claim there is no user id. `sub` does not replace it.
    for claims in [
        r#"{"exp":1700000300,"sub":"alice"}"#,
        r#"{"exp":1700000300,"sub":"alice","Uid":"bob"}"#,
        r#"{"exp":1700000300,"sub":"alice","x":{"uid":"bob"}}"#,
    ] {
        let (_, outcome) = verify(&json!({"user_id_claim": "uid"}), claims, NOW);
        assert_eq!(accepted(claims, outcome).user_id(), None, "{claims}");
    }
}

#[test]
fn the_role_is_an_allowed_string() {
    const NOT_ALLOWED: Expected = Err(("28J09", "role is not allowed"));
    check(
        &json!({"allowed_roles": ["authenticated", "anon"]}),
        &[
            (r#"{"exp":1700000300,"role":"anon"}"#, OK),
            (r#"{"exp":1700000300}"#, OK),
            (r#"{"exp":1700000300,"role":"service_role"}"#, NOT_ALLOWED),
            (r#"{"exp":1700000300,"role":"Anon"}"#, NOT_ALLOWED),
            (r#"{"exp":1700000300,"role":"anon "}"#, NOT_ALLOWED),
            (r#"{"exp":1700000300,"role":""}"#, NOT_ALLOWED),
            (r#"{"exp":1700000300,"role":"anon,authenticated"}"#, NOT_ALLOWED),
        ],
    );
    check(
        &json!({"allowed_roles": []}),
        &[(r#"{"exp":1700000300,"role":"anon"}"#, NOT_ALLOWED), (r#"{"exp":1700000300}"#, OK)],
    );
    check(
        &json!({"role_claim": "/realm/0", "allowed_roles": ["user"]}),
        &[
            (r#"{"exp":1700000300,"realm":["user","admin"]}"#, OK),
            (r#"{"exp":1700000300,"realm":["admin","user"]}"#, NOT_ALLOWED),
            (r#"{"exp":1700000300,"realm":[null]}"#, OK),
            (r#"{"exp":1700000300,"realm":[]}"#, OK),
            (r#"{"exp":1700000300,"realm":["user"],"role":"admin"}"#, OK),
            (r#"{"exp":1700000300,"realm":[1]}"#, WRONG_TYPE),
            (r#"{"exp":1700000300,"realm":[["user"]]}"#, OK),
            (r#"{"exp":1700000300,"realm":[[["user"]]]}"#, WRONG_TYPE),
            (r#"{"exp":1700000300,"realm":[true]}"#, WRONG_TYPE),
        ],
    );
    // By default, a claim `role` that is not a string is ignored.
    for role in ["[\"admin\"]", "{}", "1", "null"] {
        let claims = format!(r#"{{"exp":1700000300,"role":{role}}}"#);
        assert_eq!(accepted(role, verify(&json!({}), &claims, NOW).1).role(), None);
        // If roles are restricted, a claim of another type is rejected.
        let (token, outcome) = verify(&json!({"allowed_roles": ["user"]}), &claims, NOW);
        match role {
            "null" | "[\"admin\"]" => assert_eq!(accepted(role, outcome).role(), None),
            _ => drop(refused(role, &token, outcome, "28J09", "claim is of the wrong type")),
        }
    }
}

/// The role of a session: the provider names a claim or a default for it.
#[test]
fn the_role_to_take() {
    let taken = |members: &Value, claims: &str| {
        let claims = format!(r#"{{"exp":1700000300,{claims}}}"#);
        let claims = accepted(&claims, verify(members, &claims, NOW).1);
        (claims.database_role().map(str::to_owned), claims.role().map(str::to_owned))
    };
    let both = |role: &str| (Some(role.to_owned()), Some(role.to_owned()));
    let role = r#""role":"a","x":{"r":"b"}"#;
    assert_eq!(taken(&json!({}), role), (None, Some("a".to_owned())));
    assert_eq!(taken(&json!({"allowed_roles": ["a"]}), role), (None, Some("a".to_owned())));
    assert_eq!(taken(&json!({"role_claim": "role"}), role), both("a"));
    assert_eq!(taken(&json!({"role_claim": "/x/r"}), role), both("b"));
    // Without `role_claim`, no claim selects the role.
    assert_eq!(taken(&json!({"default_role": "c"}), role), both("c"));
    assert_eq!(taken(&json!({"default_role": "c", "allowed_roles": ["a"]}), role), both("c"));
    assert_eq!(taken(&json!({"role_claim": "role", "default_role": "c"}), role), both("a"));
    assert_eq!(taken(&json!({"default_role": "c"}), r#""role":null"#), both("c"));
    let by_default = json!({"role_claim": "/x/s", "default_role": "c", "allowed_roles": ["a"]});
    assert_eq!(taken(&by_default, role), both("c"));
    assert_eq!(taken(&json!({"role_claim": "/x/s"}), role), (None, None));
    // A path continues within a string that contains an object as strict JSON.
    for (text, expected) in [
        (r#"{\"r\":\"b\"}"#, Some("b")),
        (r#"{\"r\":\"b\",\"r\":\"c\"}"#, None),
        (r#"{\"r\":\"b\"} "#, Some("b")),
        (r#"{\"r\":\"b\"}x"#, None),
        ("b", None),
    ] {
        let claims = format!(r#""x":"{text}""#);
        let (role, _) = taken(&json!({"role_claim": "/x/r"}), &claims);
        assert_eq!(role.as_deref(), expected, "{text}");
    }
}

/// Of an array of roles, the order of the provider decides, not that of the token.
#[test]
fn the_role_of_an_array() {
    let members = json!({"role_claim": "/r", "allowed_roles": ["admin", "editor"]});
    let with_default = json!({
        "role_claim": "/r", "allowed_roles": ["admin", "editor"], "default_role": "reader",
    });
    for (roles, role) in [
        (r#"["offline_access","editor"]"#, Some("editor")),
        (r#"["editor","admin"]"#, Some("admin")),
        (r#"["editor","editor"]"#, Some("editor")),
        (r#"[null,"editor",null]"#, Some("editor")),
        (r#""[\"editor\",\"x\"]""#, Some("editor")),
        (r#""editor""#, Some("editor")),
        (r#"["Editor","editor ","","reader"]"#, None),
        (r#"["offline_access"]"#, None),
        (r#""[\"offline_access\"]""#, None),
        ("[]", None),
        ("[null]", None),
        ("null", None),
    ] {
        let claims = format!(r#"{{"exp":1700000300,"r":{roles}}}"#);
        let verified = accepted(roles, verify(&members, &claims, NOW).1);
        assert_eq!((verified.database_role(), verified.role()), (role, role), "{roles}");
        // An array without an allowed role counts as an absent claim.
        let verified = accepted(roles, verify(&with_default, &claims, NOW).1);
        assert_eq!(verified.database_role(), role.or(Some("reader")), "{roles}");
    }
    for roles in [
        r#"["editor",1]"#,
        r#"["x",["editor"]]"#,
        r#"[{"editor":1}]"#,
        r#"[true]"#,
        r#"{"editor":{}}"#,
        r#""[\"editor\",1]""#,
        "1",
    ] {
        let claims = format!(r#"{{"exp":1700000300,"r":{roles}}}"#);
        let (token, outcome) = verify(&with_default, &claims, NOW);
        refused(roles, &token, outcome, "28J09", "an array of strings");
    }
    // Without a list of roles, the token could choose the order.
    for roles in [r#"["editor"]"#, r#""[\"editor\"]""#, "[]"] {
        let claims = format!(r#"{{"exp":1700000300,"r":{roles}}}"#);
        let (token, outcome) = verify(&json!({"role_claim": "r"}), &claims, NOW);
        refused(roles, &token, outcome, "28J09", "the provider needs allowed_roles");
    }
    check(
        &json!({"role_claim": "r", "allowed_roles": ["b", "a"], "allowed_roles_claim": "all"}),
        &[
            (r#"{"exp":1700000300,"r":["a","c"],"all":["a"]}"#, OK),
            (r#"{"exp":1700000300,"r":["a","b"],"all":["b"]}"#, OK),
            (
                r#"{"exp":1700000300,"r":["a","b"],"all":["a"]}"#,
                Err(("28J09", "role is not allowed")),
            ),
            (r#"{"exp":1700000300,"r":["c"],"all":[]}"#, OK),
        ],
    );
    check(
        &json!({"role_claim": "r", "allowed_roles": []}),
        &[(r#"{"exp":1700000300,"r":["a"]}"#, OK)],
    );
}

/// The roles that a token lists restrict the role that it names, but not the provider's default.
#[test]
fn the_role_is_among_those_of_the_token() {
    const NOT_ALLOWED: Expected = Err(("28J09", "role is not allowed"));
    check(
        &json!({"role_claim": "r", "allowed_roles_claim": "/h/all", "default_role": "z"}),
        &[
            (r#"{"exp":1700000300,"r":"a","h":{"all":["b","a"]}}"#, OK),
            (r#"{"exp":1700000300,"r":"a","h":{"all":"[\"a\"]"}}"#, OK),
            (r#"{"exp":1700000300,"r":"a","h":"{\"all\":[\"a\"]}"}"#, OK),
            (r#"{"exp":1700000300,"r":"c","h":{"all":["b","a"]}}"#, NOT_ALLOWED),
            (r#"{"exp":1700000300,"r":"A","h":{"all":["b","a"]}}"#, NOT_ALLOWED),
            (r#"{"exp":1700000300,"r":"a","h":{"all":[]}}"#, NOT_ALLOWED),
            (r#"{"exp":1700000300,"r":"a","h":{"all":null}}"#, NOT_ALLOWED),
            (r#"{"exp":1700000300,"r":"a","h":{}}"#, NOT_ALLOWED),
            (r#"{"exp":1700000300,"r":"a"}"#, NOT_ALLOWED),
            (r#"{"exp":1700000300,"h":{"all":["b"]}}"#, OK),
            (r#"{"exp":1700000300}"#, OK),
            (r#"{"exp":1700000300,"r":"a","h":{"all":"a"}}"#, WRONG_TYPE),
            (r#"{"exp":1700000300,"r":"a","h":{"all":{"a":1}}}"#, WRONG_TYPE),
            (r#"{"exp":1700000300,"r":"a","h":{"all":["a",1]}}"#, WRONG_TYPE),
            (r#"{"exp":1700000300,"r":["a"],"h":{"all":["a"]}}"#, Err(("28J09", "allowed_roles"))),
            (r#"{"exp":1700000300,"r":"a","h":{"all":[null,"a"]}}"#, OK),
            (r#"{"exp":1700000300,"r":"a","h":{"all":[null]}}"#, NOT_ALLOWED),
        ],
    );
    // Both lists restrict the role.
    check(
        &json!({"allowed_roles": ["a"], "allowed_roles_claim": "all"}),
        &[
            (r#"{"exp":1700000300,"role":"a","all":["a","b"]}"#, OK),
            (r#"{"exp":1700000300,"role":"b","all":["a","b"]}"#, NOT_ALLOWED),
            (r#"{"exp":1700000300,"role":"a","all":["b"]}"#, NOT_ALLOWED),
        ],
    );
}

/// Hasura's session variables, in every supported place.
#[test]
fn session_variables() {
    const AMBIGUOUS: Expected = Err(("28J09", "claim is ambiguous"));
    let old = "https://hasura.io/jwt/claims";
    for (members, claims) in [
        (json!({}), format!(r#""{old}":{{"X-Hasura-Org-Id":"1"}}"#)),
        (json!({}), format!(r#""{old}":"{{\"X-Hasura-Org-Id\":\"1\"}}""#)),
        (json!({}), r#""claims.jwt.hasura.io":{"x-hasura-org-id":"1"}"#.to_owned()),
        (json!({"claims_namespace": "h"}), r#""h":{"x-hasura-org-id":"1"}"#.to_owned()),
        (json!({"claims_namespace": "/h/1"}), r#""h":[0,{"x-hasura-org-id":"1"}]"#.to_owned()),
    ] {
        let claims = format!(r#"{{"exp":1700000300,{claims}}}"#);
        let claims = accepted(&claims, verify(&members, &claims, NOW).1);
        for name in ["x-hasura-org-id", "X-HASURA-ORG-ID"] {
            assert!(claims.session_variable(name).is_some(), "{members} {}", claims.json());
        }
        for name in ["x-hasura-org", "x-hasura-org-id ", "", "org-id"] {
            assert!(claims.session_variable(name).is_none(), "{members} {}", claims.json());
        }
    }
    // A provider's namespace replaces the usual ones. Of the usual ones, the first counts.
    let claims = format!(
        r#"{{"exp":1700000300,"{old}":{{"a":1}},"claims.jwt.hasura.io":{{"b":1}},"h":{{"c":1}}}}"#
    );
    let found = |members: Value| {
        let claims = accepted(&claims, verify(&members, &claims, NOW).1);
        ["a", "b", "c"].map(|name| claims.session_variable(name).is_some())
    };
    assert_eq!(found(json!({})), [true, false, false]);
    assert_eq!(found(json!({"claims_namespace": "h"})), [false, false, true]);
    assert_eq!(found(json!({"claims_namespace": "i"})), [false; 3]);
    for nothing in ["null", "[]", "\"x\"", "7"] {
        let claims =
            format!(r#"{{"exp":1700000300,"{old}":{nothing},"claims.jwt.hasura.io":{{"b":1}}}}"#);
        let claims = accepted(&claims, verify(&json!({}), &claims, NOW).1);
        assert!(claims.session_variable("B").is_some(), "{nothing}");
    }
    check(
        &json!({}),
        &[
            (r#"{"exp":1700000300,"claims.jwt.hasura.io":{"a":1,"A":1}}"#, AMBIGUOUS),
            (r#"{"exp":1700000300,"claims.jwt.hasura.io":"{\"a\":1,\"A\":1}"}"#, AMBIGUOUS),
            (r#"{"exp":1700000300,"claims.jwt.hasura.io":[]}"#, OK),
            (r#"{"exp":1700000300,"claims.jwt.hasura.io":"x"}"#, OK),
            (r#"{"exp":1700000300,"h":{"a":1,"A":1}}"#, OK),
        ],
    );
    check(
        &json!({"claims_namespace": "h"}),
        &[
            (r#"{"exp":1700000300,"h":{"a":1,"b":1,"A":2}}"#, AMBIGUOUS),
            (r#"{"exp":1700000300,"h":{"a":1,"b":1}}"#, OK),
            (r#"{"exp":1700000300}"#, OK),
            (r#"{"exp":1700000300,"h":null}"#, OK),
            (r#"{"exp":1700000300,"h":[]}"#, WRONG_TYPE),
            (r#"{"exp":1700000300,"h":"x"}"#, WRONG_TYPE),
            (r#"{"exp":1700000300,"h":"[]"}"#, WRONG_TYPE),
        ],
    );
}

/// Claims that another server has verified are checked for their format.
#[test]
fn trusted_claims_have_the_same_form() {
    for (claims, expected) in [
        (r#"{"sub":"alice","exp":1700000300}"#, OK),
        (r#"{"sub":"alice"}"#, OK),
        (r#"{}"#, OK),
        (r#"{"iss":"anyone","aud":["any"],"role":"any"}"#, OK),
        (r#"{"sub":1.5}"#, WRONG_TYPE),
        (r#"{"iss":1}"#, WRONG_TYPE),
        (r#"{"aud":[1]}"#, WRONG_TYPE),
        (r#"{"exp":"1700000300"}"#, WRONG_TYPE),
        (r#"{"exp":1700000300000}"#, Err(("28J09", "claim is out of range"))),
        (r#"{"x":"\u0000"}"#, Err(("28J09", "claim cannot be stored as jsonb"))),
        (r#"{"x":1e131072}"#, Err(("28J09", "claim cannot be stored as jsonb"))),
        (r#"{"sub":"alice","sub":"root"}"#, Err(("28J01", "twice"))),
        (r#"{"sub":"alice",}"#, Err(("28J01", "token payload is malformed"))),
        (r#"["sub"]"#, Err(("28J01", "token payload is malformed"))),
        ("", Err(("28J01", "token payload is malformed"))),
    ] {
        match expected {
            Ok(()) => assert_eq!(accepted(claims, trusted_claims(claims)).json(), claims),
            Err((code, words)) => drop(refused(claims, "", trusted_claims(claims), code, words)),
        }
    }
    let trusted = UnjudgedClaims::trusted(r#"{"sub":"alice","exp":1600000000}"#).unwrap();
    assert_eq!(trusted.unjudged().user_id(), Some("alice"));
    assert_eq!(trusted.judge(NOW).unwrap_err().code().sqlstate(), "28J04");
}

/// The claims are judged after the signature, and their times last, so that the code "expired" means
/// that a fresh token will be accepted.
#[test]
fn checks_come_in_order() {
    let members = json!({"issuer": A, "audience": "app", "allowed_roles": ["user"]});
    let verifier = provider(signer(), &members);
    let stranger = Key::generate(Algorithm::EdDSA).with_kid("k1");
    let cases = [
        (r#"{"iss":"https://a.example","aud":"app","exp":1700000300}"#, None),
        (r#"{"iss":"https://a.example","aud":"app","exp":1}"#, Some("28J04")),
        (r#"{"iss":"https://a.example","aud":"app","exp":1,"nbf":1800000000}"#, Some("28J05")),
        (r#"{"iss":"https://a.example","aud":"x","exp":1}"#, Some("28J07")),
        (r#"{"iss":"https://a.example","aud":"app","exp":1,"sub":1.5}"#, Some("28J09")),
        (r#"{"iss":"https://a.example","aud":"app","exp":1,"role":"root"}"#, Some("28J09")),
        (r#"{"iss":"https://a.example","aud":"app","exp":"x"}"#, Some("28J09")),
        (r#"{"iss":"https://a.example","aud":"app","exp":1,"x":"\u0000"}"#, Some("28J09")),
        (r#"{"iss":"https://a.example","aud":"app"}"#, Some("28J09")),
    ];
    for (claims, code) in cases {
        let outcome = verifier.verify(&signer().claims(claims), NOW);
        assert_eq!(outcome.err().map(|refusal| refusal.code().sqlstate()), code, "{claims}");
        let forged = stranger.sign_raw(signer().header().as_bytes(), claims.as_bytes());
        refused(claims, &forged, verifier.verify(&forged, NOW), "28J03", "");
    }
}
