//! Providers in rows of a table, and the key sets that are fetched for them.

use mint::{Algorithm, Key};
use serde_json::{Value, json};
use session_jwt::{Code, KeySet, KeySource, Provider, Rejection, Verifier};

const ISSUER: &str = "https://issuer.example";
const URL: &str = "https://keys.example/jwks.json";
const NOW: i64 = 2_000_000_000;

fn key(kid: &str) -> Key {
    Key::generate(Algorithm::EdDSA).with_kid(kid)
}

/// A row with these columns. The others are null or absent.
fn row(columns: Value) -> Result<Provider, Rejection> {
    let mut row = json!({"name": "p", "issuer": null, "leeway": null, "last_error": "x"});
    row.as_object_mut().unwrap().extend(columns.as_object().unwrap().clone());
    Provider::from_row(&row.to_string())
}

fn refused(columns: Value, message: &str, detail: &str) {
    let rejection = row(columns.clone()).expect_err(&columns.to_string());
    assert_eq!((rejection.code(), rejection.message()), (Code::Configuration, message));
    let found = rejection.detail().unwrap_or_default();
    assert!(found.contains(detail), "{columns}: {found}");
}

#[test]
fn a_row_says_where_its_keys_are() {
    let jwks = key("k").public_jwk();
    let secret = "s".repeat(32);
    assert!(row(json!({"jwks": jwks})).unwrap().remote().is_none());
    assert!(row(json!({"secret": secret, "issuer": "i"})).unwrap().remote().is_none());
    let by_url = row(json!({"jwks_url": URL})).unwrap();
    assert_eq!(by_url.remote().unwrap().source().url(), URL);
    assert!(by_url.keys().is_empty());
    let discovered = row(json!({"issuer": ISSUER})).unwrap();
    match discovered.remote().unwrap().source() {
        KeySource::Discovery { issuer, document } => {
            assert_eq!(issuer, ISSUER);
            assert_eq!(document.as_str(), format!("{ISSUER}/.well-known/openid-configuration"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(by_url.remote().unwrap().keep_keys(), 86_400);
    let kept = row(json!({"jwks_url": URL, "keep_keys": 300})).unwrap();
    assert_eq!(kept.remote().unwrap().keep_keys(), 300);

    let two = "provider has two kinds of keys";
    refused(json!({"jwks_url": URL, "jwks": jwks}), two, "jwks_url");
    assert!(row(json!({"jwks_url": URL, "secret": secret})).unwrap().keys().is_waiting());
    assert!(row(json!({"jwks": jwks, "secret": secret})).unwrap().remote().is_none());
    refused(json!({}), "provider has no key", "no issuer, which OpenID discovery needs");
    let symmetric = json!({"jwks_url": URL, "algorithms": ["ES256", "HS256"]});
    refused(symmetric, "provider has an invalid member", "names HS256");
    refused(json!({"issuer": "example"}), "provider has no key", "OpenID discovery");
    refused(json!({"name": null, "jwks": jwks}), "provider has no name", "A row");
    for (member, value, detail) in [
        ("jwks_url", json!("ftp://keys.example/"), "https"),
        ("jwks_url", json!(7), "a number"),
        ("keep_keys", json!(299), "300 to 86400"),
        ("keep_keys", json!(86_401), "300 to 86400"),
        ("name", json!("x".repeat(91)), "longer than 90 bytes"),
        ("name", json!(""), "empty"),
        ("leeway", json!(-1), "0 to 3600"),
    ] {
        let mut columns = json!({"jwks_url": URL});
        columns[member] = value;
        refused(columns, "provider has an invalid member", detail);
    }
    // The keys of a provider in a setting are never fetched.
    let setting = json!({"issuer": ISSUER, "jwks_url": URL}).to_string();
    let rejection = Provider::parse_all(&setting).unwrap_err();
    assert!(
        rejection.hint().unwrap().contains("in a row of the table of providers"),
        "{rejection:?}"
    );
}

#[test]
fn fetched_keys_count_where_they_were_fetched_from() {
    let key = key("k");
    let fetched = KeySet::fetched(&json!({"keys": [key.public_jwk()]}).to_string(), None).unwrap();
    let jwks: Value = serde_json::from_str(&fetched.jwks).unwrap();
    let kids = |columns: Value| -> Vec<String> {
        row(columns).unwrap().keys().kids().map(str::to_owned).collect()
    };
    let document = format!("{ISSUER}/.well-known/openid-configuration");
    assert_eq!(kids(json!({"jwks_url": URL, "fetched_jwks": jwks, "fetched_from": URL})), ["k"]);
    let discovered = json!({"issuer": ISSUER, "fetched_jwks": jwks, "fetched_from": document});
    assert_eq!(kids(discovered), ["k"]);
    for columns in [
        json!({"jwks_url": URL, "fetched_jwks": jwks}),
        json!({"jwks_url": URL, "fetched_jwks": jwks, "fetched_from": ISSUER}),
        json!({"jwks_url": URL, "issuer": ISSUER, "fetched_jwks": jwks, "fetched_from": document}),
        json!({"jwks_url": URL, "fetched_from": URL}),
    ] {
        assert!(kids(columns.clone()).is_empty(), "{columns}");
    }
    // The stored keys are checked by the same rules.
    let secret = Key::generate(Algorithm::HS256).public_jwk();
    let columns = json!({"jwks_url": URL, "fetched_jwks": secret, "fetched_from": URL});
    refused(columns, "key set has no usable key", "symmetric");
    let columns = json!({"jwks_url": URL, "fetched_jwks": jwks, "fetched_from": URL,
                         "algorithms": ["RS256"]});
    refused(columns, "no key fits the listed algorithms", "RS256");
}

#[test]
fn a_fetched_set_is_reduced_to_what_is_used() {
    let (first, second) = (key("b\u{e9}\"\\"), key("a"));
    let rsa = Key::generate(Algorithm::RS256);
    let mut described = first.public_jwk();
    described["x5c"] = json!(["AAAA"]);
    described["use"] = json!("sig");
    let published = json!({"extra": 1, "keys": [
        described, rsa.bare_public_jwk(), second.public_jwk(), key("a").public_jwk(),
        key("p").private_jwk().unwrap(), Key::generate(Algorithm::HS256).public_jwk(),
        {"kty": "EC", "crv": "P-521", "kid": "e"}, null,
    ]});
    let fetched = KeySet::fetched(&published.to_string(), None).unwrap();
    assert!(fetched.jwks.is_ascii() && !fetched.jwks.contains("x5c"), "{}", fetched.jwks);
    let places: Vec<usize> = fetched.passed_over.iter().map(|key| key.index).collect();
    assert_eq!(places, [3, 4, 5, 6, 7]);
    // The stored text contains the same keys, and their order in the source does not matter.
    let again = KeySet::fetched(&fetched.jwks, None).unwrap();
    assert_eq!(again.jwks, fetched.jwks);
    assert!(again.passed_over.is_empty());
    let mut shuffled = published.clone();
    shuffled["keys"].as_array_mut().unwrap()[..3].reverse();
    assert_eq!(KeySet::fetched(&shuffled.to_string(), None).unwrap().jwks, fetched.jwks);
    let columns = json!({"jwks_url": URL, "fetched_from": URL,
                         "fetched_jwks": serde_json::from_str::<Value>(&fetched.jwks).unwrap()});
    let provider = row(columns).unwrap();
    let verifier = Verifier::default().with(provider).unwrap();
    for key in [&first, &second, &rsa] {
        let token = key.sign(&json!({"sub": "alice", "exp": NOW + 1}));
        assert_eq!(verifier.verify(&token, NOW).unwrap().user_id(), Some("alice"));
    }
}

#[test]
fn a_key_that_cannot_be_read_does_not_cost_the_others() {
    let good = key("good").public_jwk();
    let twice = r#"{"kty": "OKP", "kty": "OKP", "kid": "twice"}"#;
    let nul = key("a\0b").public_jwk();
    let text = format!("\u{feff}{{\"keys\": [{twice}, {nul}, {good}], \"more\": {twice}}}");
    let fetched = KeySet::fetched(&text, None).unwrap();
    let reasons: Vec<&str> = fetched.passed_over.iter().map(|key| key.reason.as_str()).collect();
    assert!(
        matches!(reasons[..], [twice, nul] if twice.contains("twice") && nul.contains("U+0000"))
    );
    assert!(fetched.jwks.contains("good") && !fetched.jwks.contains("twice"));
    // In a configured set, it is an error.
    let written = format!("{{\"keys\": [{twice}, {good}]}}");
    assert_eq!(KeySet::parse(&written).unwrap_err().message(), "key set is not valid JSON");
}

#[test]
fn a_set_without_a_usable_key_is_refused() {
    let many: Vec<Value> = (0..101).map(|n| key(&n.to_string()).public_jwk()).collect();
    for (set, message) in [
        (json!({"keys": []}), "key set has no usable key"),
        (json!({"keys": [null]}), "key set has no usable key"),
        (
            json!({"keys": [Key::generate(Algorithm::HS256).public_jwk()]}),
            "key set has no usable key",
        ),
        (json!({"keys": [key("p").private_jwk().unwrap()]}), "key set has no usable key"),
        (json!({"keys": many}), "key set has too many keys"),
        (json!({"keys": {}}), "key set is not a JWK or a JWK set"),
        (json!([]), "key set is not a JWK or a JWK set"),
    ] {
        let rejection = KeySet::fetched(&set.to_string(), None).err().unwrap();
        assert_eq!(rejection.message(), message);
    }
    let hundred = json!({"keys": many[..100]}).to_string();
    assert_eq!(KeySet::fetched(&hundred, None).unwrap().jwks.matches("\"kty\"").count(), 100);
    for text in ["", "<html>", "{\"keys\": [], \"keys\": []}"] {
        let rejection = KeySet::fetched(text, None).err().unwrap();
        assert_eq!(rejection.message(), "key set is not valid JSON");
    }
    let eddsa = json!({"keys": [key("k").public_jwk()]}).to_string();
    let listed = [session_jwt::Algorithm::RS256].into_iter().collect();
    let rejection = KeySet::fetched(&eddsa, Some(listed)).err().unwrap();
    assert_eq!(rejection.message(), "no key fits the listed algorithms");
}

#[test]
fn shared_keys_want_an_audience() {
    let jwks = key("k").public_jwk();
    for columns in [
        json!({"issuer": "https://accounts.google.com"}),
        json!({"issuer": "https://ACCOUNTS.google.com:443"}),
        json!({"issuer": "https://accounts.google.com", "jwks": jwks}),
        json!({"issuer": "accounts.google.com", "jwks": jwks}),
        json!({"issuer": "https://token.actions.githubusercontent.com"}),
        json!({"issuer": "https://cloud.google.com/iap", "jwks": jwks}),
        json!({"issuer": "https://app.terraform.io"}),
        json!({"issuer": "https://agent.buildkite.com"}),
        json!({"issuer": "https://oidc.vercel.com"}),
        json!({"issuer": "https://OIDC.Vercel.com./team"}),
        json!({"issuer": "https://login.salesforce.com"}),
        json!({"issuer": "https://test.salesforce.com"}),
        json!({"issuer": "https://api.workos.com"}),
        json!({"issuer": "https://api.workos.com/"}),
        json!({"issuer": "https://oidc.circleci.com/org/1234"}),
        json!({"issuer": "https://vstoken.dev.azure.com/1234"}),
        json!({"issuer": "https://securetoken.google.com/project"}),
        json!({"issuer": "https://discord.com"}),
        json!({"issuer": "https://www.linkedin.com/oauth"}),
        json!({"issuer": "https://api.gitpod.io/idp"}),
        json!({"issuer": "https://oidc.fly.io/org"}),
        json!({"issuer": "https://cognito-identity.cn-north-1.amazonaws.com.cn", "jwks": jwks}),
        json!({"issuer": "x", "jwks_url": "https://public-keys.auth.elb.eu-west-1.amazonaws.com/1"}),
        json!({"jwks_url": "https://www.gstatic.com/iap/verify/public_key-jwk"}),
        json!({"issuer": "x", "jwks_url": "https://API.WORKOS.com/sso/jwks/"}),
        json!({"issuer": "x", "jwks_url": "https://www.googleapis.com/oauth2/v3/certs"}),
        json!({"jwks_url": "https://login.microsoftonline.com/common/discovery/v2.0/keys"}),
    ] {
        refused(columns.clone(), "provider needs an audience", "signs the tokens");
        let mut with_audience = columns;
        with_audience["audience"] = json!(["me"]);
        assert!(row(with_audience).is_ok());
    }
    // Each customer has an issuer and keys of its own.
    for columns in [
        json!({"issuer": "https://api.workos.com/user_management/client_1",
               "jwks_url": "https://api.workos.com/sso/jwks/client_1"}),
        json!({"issuer": "https://acme.my.salesforce.com"}),
        json!({"issuer": "https://oidc.eks.eu-west-1.amazonaws.com/id/1234"}),
        json!({"issuer": "stytch.com/project", "jwks_url": "https://api.stytch.com/v1/sessions/jwks/1"}),
    ] {
        assert!(row(columns.clone()).is_ok(), "{columns}");
    }
    // The rule holds for a setting, too.
    let setting = json!({"issuer": "https://accounts.google.com", "jwks": jwks}).to_string();
    let rejection = Provider::parse_all(&setting).unwrap_err();
    assert_eq!(rejection.message(), "provider needs an audience");
}

#[test]
fn the_type_may_matter() {
    let key = key("k");
    let token = |typ: Option<&str>| {
        let mut header = json!({"alg": "EdDSA", "kid": "k"});
        if let Some(typ) = typ {
            header["typ"] = json!(typ);
        }
        let claims = json!({"sub": "alice", "exp": NOW + 1});
        key.sign_raw(header.to_string().as_bytes(), claims.to_string().as_bytes())
    };
    for (typ, good, bad) in [
        (json!("at+jwt"), vec!["at+jwt", "AT+JWT", "application/at+jwt"], vec!["JWT", "jwt", ""]),
        (json!(["Application/JWT"]), vec!["JWT", "application/jwt"], vec!["at+jwt", "x"]),
        (json!(["x", "at+jwt"]), vec!["x", "X", "at+jwt"], vec!["JWT", "application/", "x+jwt"]),
    ] {
        let provider = row(json!({"jwks": key.public_jwk(), "typ": typ})).unwrap();
        let verifier = Verifier::default().with(provider).unwrap();
        for good in good {
            assert!(verifier.verify(&token(Some(good)), NOW).is_ok(), "{typ} {good}");
        }
        for bad in bad.into_iter().map(Some).chain([None]) {
            let rejection = verifier.verify(&token(bad), NOW).unwrap_err();
            assert_eq!(rejection.message(), "token type is not accepted", "{typ} {bad:?}");
            assert_eq!(rejection.code(), Code::Malformed);
        }
    }
}
