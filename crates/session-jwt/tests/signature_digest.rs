//! What a digest of a verified signature depends on, and what is checked where a signature is known.

use std::cell::Cell;
use std::sync::Arc;

use mint::{Algorithm, Key};
use serde_json::json;
use session_jwt::{Code, Provider, Rejection, UnjudgedClaims, authenticate};

fn provider(document: &serde_json::Value) -> Provider {
    Provider::parse_all(&document.to_string()).unwrap().remove(0)
}

fn digest(scope: u32, provider: &Provider, token: &str) -> [u8; 32] {
    *provider.signature_digest(scope, token).unwrap().as_bytes()
}

#[test]
fn a_digest_depends_on_scope_document_and_token() {
    let keys = [(); 2].map(|()| Key::generate(Algorithm::ES256).with_kid("k"));
    let document =
        |key: &Key| json!({"name": "p", "issuer": "https://p", "jwks": key.public_jwk()});
    let base = document(&keys[0]);
    let token = "header.payload.signature";
    let expected = digest(1, &provider(&base), token);
    assert_eq!(digest(1, &provider(&base), token), expected, "the same again");
    assert_ne!(digest(2, &provider(&base), token), expected, "another scope");
    assert_ne!(digest(1, &provider(&base), "header.payload.signaturf"), expected, "another token");
    assert_ne!(digest(1, &provider(&document(&keys[1])), token), expected, "another key");
    for (member, value) in [
        ("name", json!("q")),
        ("issuer", json!("https://q")),
        ("audience", json!("a")),
        ("leeway", json!(1)),
        ("algorithms", json!(["ES256"])),
    ] {
        let mut changed = base.clone();
        changed[member] = value;
        assert_ne!(digest(1, &provider(&changed), token), expected, "another {member}");
    }
}

/// The digest is of all 256 bits of SHA-256 over the scope, the digest of the document, and the token.
#[test]
fn a_digest_is_a_sha256() {
    use aws_lc_rs::digest::{SHA256, digest as hash};
    let jwk = Key::generate(Algorithm::ES256).public_jwk().to_string();
    let row =
        json!({"name": "p", "jwks": serde_json::from_str::<serde_json::Value>(&jwk).unwrap()});
    let row = row.to_string();
    for (reading, text, provider) in [
        (0, &jwk, Provider::of_keys("p", &jwk).unwrap()),
        (1, &row, Provider::parse_all(&row).unwrap().remove(0)),
        (2, &row, Provider::from_row(&row).unwrap()),
    ] {
        let text = hash(&SHA256, text.as_bytes());
        let document = hash(&SHA256, &[&[reading], text.as_ref()].concat());
        let message = [&7_u32.to_le_bytes(), document.as_ref(), b"token"].concat();
        assert_eq!(digest(7, &provider, "token"), hash(&SHA256, &message).as_ref(), "{reading}");
    }
}

#[test]
fn providers_without_a_document_have_no_digest() {
    let jwk = Key::generate(Algorithm::ES256).public_jwk().to_string();
    let keys = session_jwt::KeySet::parse(&jwk).unwrap();
    let provider = Provider::with_default_policy("p", keys);
    assert!(provider.signature_digest(1, "token").is_none());
}

/// The digest of a weak secret can be searched for, so that nothing shows it.
#[test]
fn digests_are_not_shown() {
    let jwk = Key::generate(Algorithm::ES256).public_jwk().to_string();
    let provider = Provider::of_keys("p", &jwk).unwrap();
    assert!(format!("{provider:?}").contains("DocumentDigest"), "{provider:?}");
    assert_eq!(format!("{:?}", provider.signature_digest(1, "t").unwrap()), "SignatureDigest");
}

/// Authenticates a token whose signature counts as known. Returns how often that was asked, too.
fn authenticate_known(
    token: &str,
    provider: &Arc<Provider>,
) -> (Result<UnjudgedClaims, Rejection>, u32) {
    let asked = Cell::new(0);
    let outcome = authenticate(
        token,
        |_| Ok(Arc::clone(provider)),
        |_| {
            asked.set(asked.get() + 1);
            true
        },
    );
    (outcome, asked.get())
}

#[test]
fn a_known_signature_is_all_that_is_not_checked() {
    let key = Key::generate(Algorithm::ES256);
    let provider = Arc::new(provider(&json!({
        "name": "p", "issuer": "https://p", "audience": "here", "jwks": key.public_jwk(), "typ": "JWT",
        "required_claims": ["exp", "sub"], "leeway": 0,
    })));
    let good = json!({"iss": "https://p", "aud": "here", "sub": "ann", "exp": 100});
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = good.clone();
        claims[name] = value;
        key.sign(&claims)
    };
    let (outcome, asked) = authenticate_known(&key.sign(&good), &provider);
    let claims = outcome.unwrap();
    assert_eq!(asked, 1, "a good token");
    assert_eq!(claims.judge_presentation(99).unwrap().user_id(), Some("ann"));
    assert_eq!(claims.judge_presentation(100).unwrap_err().code(), Code::Expired);
    for (name, token, code) in [
        ("iss", with("iss", json!("https://q")), Code::Issuer),
        ("aud", with("aud", json!("there")), Code::Audience),
        ("sub", with("sub", json!(null)), Code::Claim),
        ("exp", with("exp", json!("soon")), Code::Claim),
        ("form", format!("{}.x", key.sign(&good)), Code::Malformed),
    ] {
        let (outcome, _) = authenticate_known(&token, &provider);
        assert_eq!(outcome.unwrap_err().code(), code, "{name}");
    }
    // The type of the token, and the choice of the provider, come before.
    let typed = key.sign_raw(br#"{"alg":"ES256","typ":"at+jwt"}"#, good.to_string().as_bytes());
    let (outcome, asked) = authenticate_known(&typed, &provider);
    assert_eq!((outcome.unwrap_err().code(), asked), (Code::Malformed, 0), "typ");
    // Whether a signature is known is asked once, and what is not known is verified.
    let stranger = Key::generate(Algorithm::ES256).sign(&good);
    let outcome = authenticate(&stranger, |_| Ok(Arc::clone(&provider)), |_| false);
    assert_eq!(outcome.unwrap_err().code(), Code::Signature, "a stranger's");
}
