//! Attacks on tokens, keys and provider documents. Each input has one defect, and the same input
//! without the defect is accepted. Each rejection is checked for its SQLSTATE, and for parts of the
//! token or of a key in its texts.

mod claims;
mod documents;
mod encoding;
mod header;
mod keys;
mod signature;
mod slips;

use std::fmt::Debug;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mint::{Algorithm, Key};
use serde_json::{Value, json};
use session_jwt::{KeySet, Provider, Rejection, Verifier, verify_jws};

/// The default time of verification, in seconds since 1970.
const NOW: i64 = 1_700_000_000;

/// A claims set that every provider with the default policy accepts at [`NOW`].
const CLAIMS: &str = r#"{"sub":"alice","exp":1700000300}"#;

/// The secret of every HMAC key, or a part of it.
const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-hunter2-hunter2-hunter2-hunter2-hunter2";

/// A key pair with the `kid` `k1`, and the JWK to configure.
struct Base {
    algorithm: Algorithm,
    key: Key,
    keys: KeySet,
    verifier: Verifier,
}

/// One for each algorithm. The RSA algorithms share one pair.
static BASES: LazyLock<Vec<Base>> = LazyLock::new(|| {
    let rsa = Key::generate(Algorithm::RS256);
    let base = |algorithm: Algorithm| {
        let key = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
                Key::from_secret(algorithm, SECRET.as_bytes())
            }
            Algorithm::ES256 | Algorithm::ES384 | Algorithm::EdDSA => Key::generate(algorithm),
            _ => with_algorithm(&rsa, algorithm),
        };
        Base::new(algorithm, key.with_kid("k1"))
    };
    Algorithm::ALL.into_iter().map(base).collect()
});

fn base(algorithm: Algorithm) -> &'static Base {
    BASES.iter().find(|base| base.algorithm == algorithm).unwrap()
}

/// The same pair with another algorithm of its type.
fn with_algorithm(key: &Key, algorithm: Algorithm) -> Key {
    Key::from_private_jwk(&key.private_jwk().unwrap()).unwrap().with_algorithm(algorithm)
}

impl Base {
    fn new(algorithm: Algorithm, key: Key) -> Self {
        let keys = || KeySet::parse(&key.public_jwk().to_string()).unwrap();
        let verifier = Verifier::new(vec![Provider::with_default_policy("p", keys())]).unwrap();
        Self { algorithm, keys: keys(), verifier, key }
    }

    /// The header of the base's tokens.
    fn header(&self) -> String {
        format!(r#"{{"alg":"{}","kid":"k1","typ":"JWT"}}"#, self.algorithm.name())
    }

    /// A token with these claims.
    fn claims(&self, claims: &str) -> String {
        self.key.sign_raw(self.header().as_bytes(), claims.as_bytes())
    }

    /// A token with this header, signed by the key.
    fn with_header(&self, header: &str) -> String {
        self.key.sign_raw(header.as_bytes(), CLAIMS.as_bytes())
    }

    /// An accepted token.
    fn token(&self) -> String {
        self.claims(CLAIMS)
    }

    /// A token whose first two parts are these texts, base64url or not.
    fn sign_parts(&self, header: &str, payload: &str) -> String {
        let input = format!("{header}.{payload}");
        format!("{input}.{}", encode(self.key.signature(input.as_bytes()).unwrap()))
    }

    /// The token is accepted by `Verifier::verify` and by `verify_jws`.
    #[track_caller]
    fn accepts(&self, name: &str, token: &str) {
        accepted(name, self.verifier.verify(token, NOW));
        accepted(name, verify_jws(token, &self.keys));
    }

    /// Both reject the token for the same reason.
    #[track_caller]
    fn refuses(&self, name: &str, token: &str, code: &str, words: &str) {
        let refusal = refused(name, token, self.verifier.verify(token, NOW), code, words);
        let below = refused(name, token, verify_jws(token, &self.keys), code, words);
        // `Verifier::verify` adds the name of the provider.
        let gist = |refusal: &Rejection| (refusal.code(), refusal.message());
        assert_eq!(gist(&refusal), gist(&below), "{name}");
    }

    /// The token is rejected as a JWT, although it is a JWS with a valid signature.
    #[track_caller]
    fn refuses_jwt(&self, name: &str, token: &str, code: &str, words: &str) {
        refused(name, token, self.verifier.verify(token, NOW), code, words);
        accepted(name, verify_jws(token, &self.keys));
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(part: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(part).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// The three parts of a token.
fn parts(token: &str) -> [&str; 3] {
    token.split('.').collect::<Vec<_>>().try_into().unwrap()
}

/// A verifier for one provider with the key of `base` and these members.
fn provider(base: &Base, members: &Value) -> Verifier {
    let mut document = json!({"name": "p", "jwks": base.key.public_jwk()});
    document.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    accepted("provider", Verifier::new(Provider::parse_all(&document.to_string()).unwrap()))
}

#[track_caller]
fn accepted<T>(name: &str, outcome: Result<T, Rejection>) -> T {
    outcome.unwrap_or_else(|refusal| panic!("{name} is refused: {refusal:?}"))
}

/// The outcome is a rejection with this code, and with these words in one of its texts. Its texts
/// contain no part of `input`, which is the rejected token or document.
#[track_caller]
fn refused<T: Debug>(
    name: &str,
    input: &str,
    outcome: Result<T, Rejection>,
    code: &str,
    words: &str,
) -> Rejection {
    let refusal = match outcome {
        Ok(accepted) => panic!("{name} is accepted: {accepted:?}"),
        Err(refusal) => refusal,
    };
    assert_eq!(refusal.code().sqlstate(), code, "{name}: {refusal:?}");
    let said = said(&refusal);
    assert!(said.contains(words), "{name}: {words:?} is not in {said:?}");
    keeps_secret(name, input, &said);
    refusal
}

/// The texts of a rejection.
fn said(refusal: &Rejection) -> String {
    [refusal.message(), refusal.detail().unwrap_or_default(), refusal.hint().unwrap_or_default()]
        .join(" / ")
}

/// A text contains no part of a token, no key material and not the secret.
#[track_caller]
fn keeps_secret(name: &str, input: &str, text: &str) {
    /// The minimum length of a part of a token or of a key that is not accidental.
    const TELLING: usize = 12;
    let secrets = [SECRET.to_owned(), encode(SECRET), STANDARD.encode(SECRET)];
    let mut material = Vec::new();
    match serde_json::from_str::<Value>(input) {
        Ok(document) => collect_material(&document, &mut material),
        Err(_) => material.extend(input.split('.').map(str::to_owned)),
    }
    for secret in secrets.iter().chain(&material) {
        let bytes = secret.as_bytes();
        for window in bytes.windows(TELLING).filter_map(|window| std::str::from_utf8(window).ok()) {
            assert!(!text.contains(window), "{name}: {window:?} is in {text:?}");
        }
    }
}

/// The values of the members that contain keys, at any depth.
fn collect_material(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_material(item, out)),
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if MATERIAL.contains(&name.as_str()) => {
                        out.push(text.clone());
                    }
                    other => collect_material(other, out),
                }
            }
        }
        _ => {}
    }
}

const MATERIAL: [&str; 12] = ["k", "n", "e", "x", "y", "d", "p", "q", "dp", "dq", "qi", "secret"];
