//! The contents of headers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mint::{Algorithm, Key};
use serde_json::{Value, json};
use session_jwt::{KeySet, Provider, Verifier, verify_jws};

use crate::{BASES, Base, CLAIMS, NOW, accepted, base, decode, encode, parts, provider, refused};
use crate::{SECRET, with_algorithm};

#[test]
fn an_unsigned_token_is_nobodys() {
    for base in BASES.iter() {
        base.accepts("signed", &base.token());
        for none in ["none", "None", "NONE", "nOnE", "nONE"] {
            let signed = base.with_header(&format!(r#"{{"alg":"{none}","kid":"k1"}}"#));
            let [header, payload, _] = parts(&signed);
            for (name, token) in [
                ("signed with the key", signed.clone()),
                ("with no signature", format!("{header}.{payload}.")),
                ("with one byte of signature", format!("{header}.{payload}.AA")),
            ] {
                let name = format!("{none}, {name}");
                base.refuses(&name, &token, "28J10", "Unsigned tokens are never accepted.");
            }
        }
    }
}

/// The bytes of the public key, in every form in which a verifier may store them, as an HMAC secret.
#[test]
fn a_public_key_is_no_secret() {
    let hmac = base(Algorithm::HS256);
    hmac.accepts("HS256 with the secret", &hmac.token());
    for algorithm in [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA] {
        let base = base(algorithm);
        base.accepts("as it should be", &base.token());
        let jwk = base.key.public_jwk();
        let mut secrets = public_key_encodings(&jwk);
        secrets.push(("the JWK".to_owned(), jwk.to_string().into_bytes()));
        secrets.push(("the bare JWK".to_owned(), base.key.bare_public_jwk().to_string().into()));
        secrets.push(("the JWK set".to_owned(), json!({"keys": [jwk]}).to_string().into_bytes()));
        secrets.push(("nothing".to_owned(), Vec::new()));
        for (name, secret) in secrets {
            for hash in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let forger = Key::from_secret(hash, &secret);
                for header in [
                    format!(r#"{{"alg":"{}","kid":"k1"}}"#, hash.name()),
                    format!(r#"{{"alg":"{}"}}"#, hash.name()),
                ] {
                    let forged = forger.sign_raw(header.as_bytes(), CLAIMS.as_bytes());
                    let name = format!("{} as {name}", algorithm.name());
                    base.refuses(&name, &forged, "28J10", hash.name().as_str());
                    // The same if an administrator lists both kinds of algorithms.
                    let listed =
                        provider(base, &json!({"algorithms": [algorithm.name(), "HS256"]}));
                    refused(&name, &forged, listed.verify(&forged, NOW), "28J10", "");
                    accepted(&name, listed.verify(&base.token(), NOW));
                }
            }
        }
    }
}

/// A public key in DER and PEM (RFC 8017 appendix A.1.1, RFC 5480, RFC 8410), and its bare bytes.
fn public_key_encodings(jwk: &Value) -> Vec<(String, Vec<u8>)> {
    let bytes = |name: &str| decode(jwk[name].as_str().unwrap());
    let sequence = |contents: &[Vec<u8>]| der(0x30, &contents.concat());
    let bits = |contents: &[u8]| der(0x03, &[&[0], contents].concat());
    let mut forms = Vec::new();
    let info = match jwk["kty"].as_str().unwrap() {
        "RSA" => {
            let (n, e) = (bytes("n"), bytes("e"));
            let key = sequence(&[der(0x02, &[&[0], &n[..]].concat()), der(0x02, &e)]);
            forms.push(("n".to_owned(), n));
            forms.extend(pem("RSA PUBLIC KEY", &key));
            // rsaEncryption, NULL
            let oid = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
            sequence(&[sequence(&[der(0x06, &oid), der(0x05, &[])]), bits(&key)])
        }
        "EC" => {
            let point = [vec![4], bytes("x"), bytes("y")].concat();
            forms.push(("x".to_owned(), bytes("x")));
            forms.push(("the point".to_owned(), point.clone()));
            // ecPublicKey, prime256v1
            let key_type = der(0x06, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]);
            let curve = der(0x06, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
            sequence(&[sequence(&[key_type, curve]), bits(&point)])
        }
        _ => {
            forms.push(("x".to_owned(), bytes("x")));
            sequence(&[sequence(&[der(0x06, &[0x2b, 0x65, 0x70])]), bits(&bytes("x"))])
        }
    };
    forms.extend(pem("PUBLIC KEY", &info));
    for member in ["n", "x"] {
        forms.extend(jwk[member].as_str().map(|text| (member.to_owned(), text.into())));
    }
    forms
}

/// DER, and PEM with and without the last line break.
fn pem(label: &str, der: &[u8]) -> [(String, Vec<u8>); 3] {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|l| str::from_utf8(l).unwrap()).collect();
    let pem = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----", lines.join("\n"));
    [
        (format!("{label} DER"), der.to_vec()),
        (format!("{label} PEM with a line break"), format!("{pem}\n").into_bytes()),
        (format!("{label} PEM"), pem.into_bytes()),
    ]
}

fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = match contents.len() {
        short @ 0..=0x7f => vec![short as u8],
        long => vec![0x82, (long >> 8) as u8, long as u8],
    };
    [&[tag], &length[..], contents].concat()
}

#[test]
fn an_unknown_algorithm_is_refused() {
    let base = base(Algorithm::EdDSA);
    for name in ["EdDSA", "Ed25519"] {
        base.accepts(name, &base.with_header(&format!(r#"{{"alg":"{name}","kid":"k1"}}"#)));
    }
    for name in [
        "",
        "eddsa",
        "EDDSA",
        "EdDSA ",
        " EdDSA",
        "EdDSA\\u0000",
        "Ed448",
        "ES512",
        "ES256K",
        "HS1",
        "RS1",
        "RSA-OAEP",
        "A128KW",
        "dir",
        "HMAC",
        "null",
        "ED25519",
    ] {
        let token = base.with_header(&format!(r#"{{"alg":"{name}","kid":"k1"}}"#));
        base.refuses(name, &token, "28J10", "token algorithm is not supported");
    }
}

#[test]
fn the_algorithm_is_a_string() {
    let base = base(Algorithm::EdDSA);
    base.accepts("a string", &base.with_header(r#"{"alg":"EdDSA"}"#));
    for header in [
        r#"{}"#,
        r#"{"kid":"k1"}"#,
        r#"{"Alg":"EdDSA"}"#,
        r#"{"ALG":"EdDSA"}"#,
        r#"{"alg ":"EdDSA"}"#,
        r#"{"alg":null}"#,
        r#"{"alg":true}"#,
        r#"{"alg":8}"#,
        r#"{"alg":["EdDSA"]}"#,
        r#"{"alg":{"EdDSA":"EdDSA"}}"#,
    ] {
        base.refuses(header, &base.with_header(header), "28J01", "alg");
    }
}

/// The key decides which algorithms it may be used with: its `alg`, or the default of its type, or the
/// provider's list.
#[test]
fn the_algorithm_is_the_keys() {
    use Algorithm::*;
    let rsa = &base(RS256).key;
    let hmac = &base(HS256).key;
    let bare = |key: &Key| key.bare_public_jwk();
    let named = |key: &Key, name: &str| {
        let mut jwk = key.bare_public_jwk();
        jwk["alg"] = name.into();
        jwk
    };
    let ec = &base(ES256).key;
    let ed = &base(EdDSA).key;
    let cases: Vec<(&Key, Value, &[&str], Algorithm, bool)> = vec![
        (rsa, bare(rsa), &[], RS256, true),
        (rsa, bare(rsa), &[], RS384, false),
        (rsa, bare(rsa), &[], RS512, false),
        (rsa, bare(rsa), &[], PS256, false),
        (rsa, bare(rsa), &[], PS384, false),
        (rsa, bare(rsa), &[], PS512, false),
        (rsa, bare(rsa), &["PS256"], PS256, true),
        (rsa, bare(rsa), &["PS256"], RS256, false),
        (rsa, bare(rsa), &["RS384", "RS512"], RS384, true),
        (rsa, bare(rsa), &["RS384", "RS512"], RS512, true),
        (rsa, bare(rsa), &["RS384", "RS512"], RS256, false),
        (rsa, named(rsa, "RS256"), &[], RS256, true),
        (rsa, named(rsa, "RS256"), &[], PS256, false),
        (rsa, named(rsa, "RS256"), &[], RS384, false),
        (rsa, named(rsa, "RS256"), &["RS256", "PS256"], RS256, true),
        (rsa, named(rsa, "RS256"), &["RS256", "PS256"], PS256, false),
        (rsa, named(rsa, "PS256"), &[], PS256, true),
        (rsa, named(rsa, "PS256"), &[], RS256, false),
        (rsa, named(rsa, "PS256"), &[], PS384, false),
        (hmac, bare(hmac), &[], HS256, true),
        (hmac, bare(hmac), &[], HS384, false),
        (hmac, bare(hmac), &[], HS512, false),
        (hmac, bare(hmac), &["HS512"], HS512, true),
        (hmac, bare(hmac), &["HS512"], HS256, false),
        (hmac, named(hmac, "HS512"), &[], HS512, true),
        (hmac, named(hmac, "HS512"), &[], HS256, false),
        (ec, bare(ec), &[], ES256, true),
        (ec, bare(ec), &["ES256", "ES384"], ES256, true),
        (ed, named(ed, "Ed25519"), &["EdDSA"], EdDSA, true),
        (ed, named(ed, "EdDSA"), &["Ed25519"], EdDSA, true),
    ];
    for (key, jwk, listed, algorithm, allowed) in cases {
        let mut document = json!({"jwks": jwk});
        if !listed.is_empty() {
            document["algorithms"] = json!(listed);
        }
        let name = format!("{} with {listed:?} and {:?}", algorithm.name(), jwk["alg"]);
        let verifier = Verifier::new(Provider::parse_all(&document.to_string()).unwrap()).unwrap();
        let header = format!(r#"{{"alg":"{}"}}"#, algorithm.name());
        let signer = with_algorithm(key, algorithm);
        let token = signer.sign_raw(header.as_bytes(), CLAIMS.as_bytes());
        let outcome = verifier.verify(&token, NOW);
        if allowed {
            accepted(&name, outcome);
        } else {
            refused(&name, &token, outcome, "28J10", "token algorithm is not allowed");
        }
    }
}

/// A bare secret is used with HS256, unless the list has others for which it is long enough.
#[test]
fn a_secret_is_for_hs256() {
    use Algorithm::*;
    for (listed, length, algorithm, allowed) in [
        (json!(null), 64, HS256, true),
        (json!(null), 64, HS512, false),
        (json!(["HS256"]), 32, HS256, true),
        (json!(["HS512"]), 64, HS512, true),
        (json!(["HS512"]), 64, HS256, false),
        (json!(["HS256", "HS384", "HS512"]), 48, HS256, true),
        (json!(["HS256", "HS384", "HS512"]), 48, HS384, true),
        (json!(["HS256", "HS384", "HS512"]), 48, HS512, false),
    ] {
        let secret = &SECRET[..length];
        let mut document = json!({"secret": secret});
        if !listed.is_null() {
            document["algorithms"] = listed.clone();
        }
        let verifier = Verifier::new(Provider::parse_all(&document.to_string()).unwrap()).unwrap();
        let token = Key::from_secret(algorithm, secret.as_bytes()).sign(&json!({"exp": NOW + 1}));
        let name = format!("{} with {length} bytes and {listed}", algorithm.name());
        let outcome = verifier.verify(&token, NOW);
        if allowed {
            accepted(&name, outcome);
        } else {
            refused(&name, &token, outcome, "28J10", "token algorithm is not allowed");
        }
    }
    for (listed, length) in [(json!(["HS384"]), 47), (json!(["HS512"]), 63), (json!(["RS256"]), 64)]
    {
        let document = json!({"secret": &SECRET[..length], "algorithms": listed}).to_string();
        refused("short", &document, Provider::parse_all(&document), "22023", "no key fits");
    }
}

#[test]
fn the_algorithm_fits_the_keys_type() {
    for base in BASES.iter() {
        for other in BASES.iter().filter(|other| other.algorithm != base.algorithm) {
            let name = format!("{} for a key of {}", other.algorithm.name(), base.algorithm.name());
            base.refuses(&name, &other.token(), "28J10", "token algorithm is not allowed");
        }
    }
}

/// Two Ed25519 keys, `k1` and `k2`, and a third that is not trusted.
struct Pair {
    first: Key,
    second: Key,
    foreign: Key,
    verifier: Verifier,
}

impl Pair {
    fn new() -> Self {
        let key = |kid: &str| Key::generate(Algorithm::EdDSA).with_kid(kid);
        let (first, second) = (key("k1"), key("k2"));
        let set = json!({"keys": [first.public_jwk(), second.public_jwk()]}).to_string();
        let provider = Provider::with_default_policy("p", KeySet::parse(&set).unwrap());
        Self { first, second, foreign: key("k3"), verifier: Verifier::new(vec![provider]).unwrap() }
    }
}

#[test]
fn the_key_id_decides_which_key() {
    let Pair { first, second, foreign, verifier } = Pair::new();
    let header = |kid: &str| format!(r#"{{"alg":"EdDSA"{kid}}}"#);
    let none = ("28J01", "not a string");
    for (kid, signer, expected) in [
        (r#","kid":"k1""#, &first, Ok(())),
        (r#","kid":"k2""#, &second, Ok(())),
        (r#","kid":"\u006b2""#, &second, Ok(())),
        ("", &first, Ok(())),
        ("", &second, Ok(())),
        ("", &foreign, Err(("28J03", "kid none"))),
        (r#","kid":"k1""#, &second, Err(("28J03", "\"k1\""))),
        (r#","kid":"k2""#, &first, Err(("28J03", "\"k2\""))),
        (r#","kid":"k1""#, &foreign, Err(("28J03", "\"k1\""))),
        (r#","kid":"k3""#, &first, Err(("28J02", "\"k3\""))),
        (r#","kid":"k3""#, &foreign, Err(("28J02", "\"k1\", \"k2\""))),
        (r#","kid":"""#, &first, Err(("28J02", "\"\""))),
        (r#","kid":"K1""#, &first, Err(("28J02", "\"K1\""))),
        (r#","kid":" k1""#, &first, Err(("28J02", "\" k1\""))),
        (r#","kid":"k1 ""#, &first, Err(("28J02", "\"k1 \""))),
        (r#","kid":"k1\u0000""#, &first, Err(("28J02", "\"k1\\u"))),
        (r#","kid":"../../dev/null""#, &first, Err(("28J02", "dev/null"))),
        (r#","kid":"k1' OR '1'='1""#, &first, Err(("28J02", "OR"))),
        (r#","kid":null"#, &first, Ok(())),
        (r#","kid":null"#, &foreign, Err(("28J03", "kid none"))),
        (r#","kid":1"#, &first, Err(none)),
        (r#","kid":true"#, &first, Err(none)),
        (r#","kid":["k1"]"#, &first, Err(none)),
        (r#","kid":{"k1":"k1"}"#, &first, Err(none)),
    ] {
        let token = signer.sign_raw(header(kid).as_bytes(), CLAIMS.as_bytes());
        let outcome = verifier.verify(&token, NOW);
        match expected {
            Ok(()) => drop(accepted(kid, outcome)),
            Err((code, words)) => drop(refused(kid, &token, outcome, code, words)),
        }
    }
}

/// Only the key that the token names verifies it. Another key of the set does not, even if it fits the
/// algorithm.
#[test]
fn the_key_id_outranks_the_algorithm() {
    let ed = Key::generate(Algorithm::EdDSA).with_kid("ed");
    let ec = Key::generate(Algorithm::ES256).with_kid("ec");
    let set = json!({"keys": [ed.public_jwk(), ec.public_jwk()]}).to_string();
    let keys = KeySet::parse(&set).unwrap();
    for (header, signer, expected) in [
        (r#"{"alg":"EdDSA"}"#, &ed, None),
        (r#"{"alg":"ES256"}"#, &ec, None),
        (r#"{"alg":"EdDSA","kid":"ed"}"#, &ed, None),
        (r#"{"alg":"ES256","kid":"ec"}"#, &ec, None),
        (r#"{"alg":"EdDSA","kid":"ec"}"#, &ed, Some("28J10")),
        (r#"{"alg":"ES256","kid":"ed"}"#, &ec, Some("28J10")),
        (r#"{"alg":"EdDSA"}"#, &ec, Some("28J03")),
        (r#"{"alg":"RS256"}"#, &ec, Some("28J10")),
        (r#"{"alg":"RS256","kid":"rsa"}"#, &ec, Some("28J02")),
    ] {
        let token = signer.sign_raw(header.as_bytes(), CLAIMS.as_bytes());
        match expected {
            None => drop(accepted(header, verify_jws(&token, &keys))),
            Some(code) => drop(refused(header, &token, verify_jws(&token, &keys), code, "")),
        }
    }
}

/// The algorithm must be allowed for the chosen key, not only for another key of the set.
#[test]
fn an_algorithm_is_one_keys_not_the_sets() {
    use Algorithm::*;
    let pairs = [HS256, RS256].map(|algorithm| [(); 2].map(|()| Key::generate(algorithm)));
    for (one, other) in [(HS256, HS512), (RS256, PS256), (RS256, RS512)] {
        let [first, second] = &pairs[usize::from(one == RS256)];
        let (first, second) = (with_algorithm(first, one), with_algorithm(second, other));
        let set = json!({"keys": [first.public_jwk(), second.public_jwk()]}).to_string();
        let keys = KeySet::parse(&set).unwrap();
        for (signer, algorithm, allowed) in [
            (&first, one, true),
            (&second, other, true),
            (&first, other, false),
            (&second, one, false),
        ] {
            let name = format!("{} for {} and {}", algorithm.name(), one.name(), other.name());
            let token = with_algorithm(signer, algorithm).sign(&json!({"exp": NOW + 1}));
            let outcome = verify_jws(&token, &keys);
            if allowed {
                accepted(&name, outcome);
            } else {
                refused(&name, &token, outcome, "28J03", "does not verify");
            }
        }
    }
}

/// A token with `kid` is not verified with a JWK without `kid`. A bare `secret` cannot have one, so it
/// ignores the token's.
#[test]
fn a_key_without_id_serves_tokens_without_id() {
    let base = base(Algorithm::EdDSA);
    let keys = KeySet::parse(&base.key.bare_public_jwk().to_string()).unwrap();
    accepted("no kid", verify_jws(&base.with_header(r#"{"alg":"EdDSA"}"#), &keys));
    for kid in ["k1", ""] {
        let token = base.with_header(&format!(r#"{{"alg":"EdDSA","kid":"{kid}"}}"#));
        refused(
            kid,
            &token,
            verify_jws(&token, &keys),
            "28J02",
            "Add \"kid\" to the configured key",
        );
    }

    let document = json!({"secret": SECRET}).to_string();
    let verifier = Verifier::new(Provider::parse_all(&document).unwrap()).unwrap();
    let hmac = self::base(Algorithm::HS256);
    for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","kid":"any"}"#] {
        accepted(header, verifier.verify(&hmac.with_header(header), NOW));
    }
}

#[test]
fn parameters_that_change_what_is_signed_are_refused() {
    let base = base(Algorithm::EdDSA);
    let header = |member: &str| format!(r#"{{"alg":"EdDSA","kid":"k1"{member}}}"#);
    base.accepts("none of them", &base.with_header(&header("")));
    for member in [
        r#","crit":["exp"]"#,
        r#","crit":["alg"]"#,
        r#","crit":["b64"]"#,
        r#","crit":["b64"],"b64":true"#,
        r#","crit":["jku"],"jku":"https://issuer.example/jwks.json""#,
        r#","crit":["x5c"]"#,
        r#","crit":["http://example.com/x"],"http://example.com/x":1"#,
        r#","crit":[null]"#,
        r#","crit":[""]"#,
        r#","crit":[[]]"#,
        r#","crit":"exp""#,
        r#","crit":"""#,
        r#","crit":{}"#,
        r#","crit":false"#,
        r#","cr\u0069t":["exp"]"#,
        r#","b64":false"#,
        r#","b64":"true""#,
        r#","b64":1"#,
        r#","b64":[]"#,
        r#","b\u00364":false"#,
        r#","zip":"DEF""#,
        r#","zip":"""#,
        r#","zip":[]"#,
        r#","enc":"A128GCM""#,
    ] {
        let token = base.with_header(&header(member));
        base.refuses(member, &token, "28J01", "token header has an unsupported parameter");
    }
    let named = base.with_header(&header(r#","crit":["b64","x"]"#));
    base.refuses("crit", &named, "28J01", "names \"b64\", \"x\"");
}

/// Some libraries write parameters that they do not use.
#[test]
fn a_parameter_that_is_null_is_absent() {
    let base = base(Algorithm::EdDSA);
    for member in [
        r#""kid":null"#,
        r#""typ":null"#,
        r#""crit":null"#,
        r#""crit":[]"#,
        r#""b64":null"#,
        r#""b64":true"#,
        r#""zip":null"#,
        r#""enc":null"#,
        r#""jwk":null"#,
        r#""jku":null"#,
        r#""x5u":null"#,
        r#""x5c":null"#,
        r#""x5c":[]"#,
        r#""cty":null"#,
    ] {
        base.accepts(member, &base.with_header(&format!(r#"{{"alg":"EdDSA",{member}}}"#)));
    }
    for (name, header, words) in [
        ("alg", r#"{"alg":null,"kid":"k1"}"#, "It has no parameter \"alg\"."),
        ("twice", r#"{"alg":"EdDSA","kid":null,"kid":"k1"}"#, "twice"),
    ] {
        base.refuses(name, &base.with_header(header), "28J01", words);
    }
    // If the provider requires a type, an absent type is rejected.
    let verifier = provider(base, &json!({"typ": "at+jwt"}));
    let token = base.with_header(r#"{"alg":"EdDSA","typ":null}"#);
    refused("typ", &token, verifier.verify(&token, NOW), "28J01", "Its header has no typ");
}

/// A key in the token is ignored. The configured key decides, as if the token had none.
#[test]
fn a_key_in_the_token_is_not_trusted() {
    let base = base(Algorithm::EdDSA);
    let forger = Key::generate(Algorithm::EdDSA).with_kid("k1");
    let jwk = forger.public_jwk();
    for member in [
        "".to_owned(),
        format!(r#","jwk":{jwk}"#),
        r#","jwk":{}"#.to_owned(),
        r#","jwk":"x""#.to_owned(),
        r#","jku":"https://forger.example/jwks.json""#.to_owned(),
        r#","jku":7"#.to_owned(),
        r#","x5u":"https://forger.example/cert.pem""#.to_owned(),
        r#","x5c":["MIIB"]"#.to_owned(),
        r#","x5t":"dGhlIGNlcnRpZmljYXRl","x5t#S256":[null]"#.to_owned(),
        format!(r#","keys":[{jwk}]"#),
        format!(r#","JWK":{jwk}"#),
    ] {
        for kid in [r#","kid":"k1""#, ""] {
            let header = format!(r#"{{"alg":"EdDSA"{kid}{member}}}"#);
            base.accepts(&member, &base.with_header(&header));
            let token = forger.sign_raw(header.as_bytes(), CLAIMS.as_bytes());
            base.refuses(&member, &token, "28J03", "token signature does not verify");
        }
    }
    let twice = base.with_header(r#"{"alg":"EdDSA","jwk":{"kty":"OKP","kty":"RSA"}}"#);
    base.refuses("a member twice in it", &twice, "28J01", "twice");
}

#[test]
fn parameters_that_change_nothing_are_ignored() {
    let base = base(Algorithm::EdDSA);
    for member in [
        r#""cat":"cl_B7d4PD111AAA""#,
        r#""x5t":"dGhlIGNlcnRpZmljYXRl""#,
        r#""x5t#S256":"dGhlIGNlcnRpZmljYXRl""#,
        r#""iss":"https://issuer.example""#,
        r#""nonce":"n-0S6_WzA2Mj""#,
        r#""Crit":["exp"]"#,
        r#""unheard of":{"a":[1,2,{"b":null}]}"#,
        r#""":0"#,
    ] {
        base.accepts(
            member,
            &base.with_header(&format!(r#"{{"alg":"EdDSA","kid":"k1",{member}}}"#)),
        );
    }
}

#[test]
fn the_type_is_a_jwt() {
    let base = base(Algorithm::EdDSA);
    let token = |typ: &str| base.with_header(&format!(r#"{{"alg":"EdDSA"{typ}}}"#));
    base.accepts("no typ", &token(""));
    for typ in [
        "JWT",
        "jwt",
        "Jwt",
        "at+jwt",
        "AT+JWT",
        "application/jwt",
        "application/JWT",
        "application/at+jwt",
        "Application/At+Jwt",
        "at\\u002bjwt",
        "JOSE",
    ] {
        base.accepts(typ, &token(&format!(r#","typ":"{typ}""#)));
    }
    for typ in [
        "",
        "JWE",
        "JWS",
        "JOSE+JSON",
        "dpop+jwt",
        "secevent+jwt",
        "logout+jwt",
        "rt+jwt",
        "token-introspection+jwt",
        "vc+jwt",
        "JWT ",
        " JWT",
        "JWT;charset=utf-8",
        "text/jwt",
        "application/",
        "application/application/jwt",
        "application/json",
        "at+jwt+jwt",
        "ID",
        "Bearer",
        "JWT\\u0000",
    ] {
        let token = token(&format!(r#","typ":"{typ}""#));
        base.refuses_jwt(typ, &token, "28J01", "token type is not accepted");
    }
    for typ in ["1", "true", r#"["JWT"]"#, r#"{"JWT":1}"#] {
        let token = token(&format!(r#","typ":{typ}"#));
        base.refuses(typ, &token, "28J01", "The parameter \"typ\"");
    }
}

#[test]
fn a_parameter_stands_once() {
    let base = base(Algorithm::EdDSA);
    base.accepts("once", &base.with_header(r#"{"alg":"EdDSA","x":{"y":1},"y":1}"#));
    for header in [
        r#"{"alg":"EdDSA","alg":"EdDSA"}"#,
        r#"{"alg":"EdDSA","alg":"none"}"#,
        r#"{"alg":"none","alg":"EdDSA"}"#,
        r#"{"alg":"EdDSA","\u0061lg":"none"}"#,
        r#"{"\u0061\u006c\u0067":"EdDSA","alg":"EdDSA"}"#,
        r#"{"alg":"EdDSA","kid":"k1","kid":"k2"}"#,
        r#"{"alg":"EdDSA","typ":"JWT","typ":"JWT"}"#,
        r#"{"alg":"EdDSA","x":1,"x":1}"#,
        r#"{"alg":"EdDSA","x":{"y":1,"y":1}}"#,
        r#"{"alg":"EdDSA","x":[{"y":[{"z":1,"\u007a":2}]}]}"#,
    ] {
        base.refuses(header, &base.with_header(header), "28J01", "has the member");
    }
}

/// Text of a header is escaped and shortened in messages.
#[test]
fn what_a_message_quotes_is_harmless() {
    let base: &Base = base(Algorithm::EdDSA);
    let long = "x".repeat(4000);
    for (name, header) in [
        ("alg", format!(r#"{{"alg":"{long}"}}"#)),
        ("kid", format!(r#"{{"alg":"EdDSA","kid":"{long}"}}"#)),
        ("typ", format!(r#"{{"alg":"EdDSA","typ":"{long}"}}"#)),
        ("member", format!(r#"{{"alg":"EdDSA","{long}":1,"{long}":1}}"#)),
    ] {
        let refusal = base.verifier.verify(&base.with_header(&header), NOW).unwrap_err();
        assert!(refusal.detail().unwrap().len() < 400, "{name}: {refusal:?}");
    }
    let header = r#"{"alg":"EdDSA","kid":"a\n\r\u0000\u001b[31m\u202e\"b"}"#;
    let refusal = base.verifier.verify(&base.with_header(header), NOW).unwrap_err();
    let detail = refusal.detail().unwrap();
    for escape in [r"\n", r"\r", r"\u{1b}", r"\u{202e}", r#"\"b"#] {
        assert!(detail.contains(escape), "{escape} is not in {detail}");
    }
    assert!(!detail.contains(|c: char| c.is_control() || c == '\u{202e}'), "{detail}");
    // A `kid` that looks like base64url is not shown as a part of the token.
    let token = base.with_header(&format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, encode("k")));
    refused("kid", &token, base.verifier.verify(&token, NOW), "28J02", "\"aw\"");
}
