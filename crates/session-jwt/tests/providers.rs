//! Tokens in the formats of identity providers. Each is verified with a document that an administrator
//! would write for the setting `pg_session_jwt.providers`.

use std::sync::LazyLock;

use mint::{Algorithm, Key};
use serde_json::{Value, json};
use session_jwt::{Claims, KeySet, Provider, Verifier};

/// The time of presentation: five minutes after the tokens were issued.
const NOW: i64 = 1_700_000_300;

/// RSA keys are slow to generate, so the tests share them. Each case sets its key ids.
static RSA: LazyLock<[Value; 3]> =
    LazyLock::new(|| [(); 3].map(|()| Key::generate(Algorithm::RS256).private_jwk().unwrap()));

fn rsa(place: usize, kid: &str) -> Key {
    Key::from_private_jwk(&RSA[place]).unwrap().with_kid(kid)
}

/// Removes the line breaks of a JSON text.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim_start).collect()
}

fn verifier(document: &str) -> Verifier {
    Verifier::new(Provider::parse_all(document).unwrap()).unwrap()
}

/// Verifies the token with the document. A token that is signed with another key under the same `kid`
/// is rejected, and so is one that is signed by another provider of the same verifier.
#[track_caller]
fn verify(document: &str, key: &Key, impostor: &Key, header: &str, claims: &str) -> Claims {
    let verifier = verifier(document);
    let token = key.sign_raw(header.as_bytes(), claims.as_bytes());
    let verified = verifier.verify(&token, NOW).unwrap_or_else(|refusal| panic!("{refusal:?}"));
    assert_eq!(verified.json(), claims);

    let forged = impostor.sign_raw(header.as_bytes(), claims.as_bytes());
    let refusal = verifier.verify(&forged, NOW).unwrap_err();
    assert_eq!(refusal.code().sqlstate(), "28J03", "{refusal:?}");

    // The same claims, presented to a verifier that trusts only the impostor.
    let elsewhere = json!({"name": "elsewhere", "jwks": public(impostor)}).to_string();
    let refusal = self::verifier(&elsewhere).verify(&token, NOW).unwrap_err();
    assert!(["28J02", "28J03"].contains(&refusal.code().sqlstate()), "{refusal:?}");

    // A verifier that trusts both, for different issuers.
    if verified.issuer().is_some() {
        let mut both = vec![serde_json::from_str::<Value>(document).unwrap()];
        both.push(json!({
            "name": "other",
            "issuer": "https://other.example",
            "jwks": public(impostor),
        }));
        let both = self::verifier(&Value::from(both).to_string());
        assert_eq!(both.verify(&token, NOW).unwrap(), verified);
        assert_eq!(both.verify(&forged, NOW).unwrap_err().code().sqlstate(), "28J03");
    }
    verified
}

fn public(key: &Key) -> Value {
    key.public_jwk()
}

#[test]
fn clerk() {
    let key = rsa(0, "ins_2bQ7mXjVqvzS1hPkFbJ0aN4tGfE");
    let document = format!(
        r#"{{
            "name": "clerk",
            "issuer": "https://example.clerk.accounts.dev",
            "jwks": {{"keys": [{}]}}
        }}"#,
        public(&key)
    );
    let header = &one_line(
        r#"{"alg":"RS256","cat":"cl_B7d4PD111AAA","kid":"ins_2bQ7mXjVqvzS1hPkFbJ0aN4tGfE",
         "typ":"JWT"}"#,
    );
    let claims = &one_line(
        r#"{"a":1,"azp":"http://localhost:3000","exp":1700000360,"iat":1700000300,"id":1,
         "iss":"https://example.clerk.accounts.dev","perm":[],"rid":1,
         "sub":"user_2f8Qk1h0Zp3sXw7vYtRbNcMdLeA"}"#,
    );
    let impostor = rsa(1, "ins_2bQ7mXjVqvzS1hPkFbJ0aN4tGfE");
    let claims = verify(&document, &key, &impostor, header, claims);
    assert_eq!(claims.provider(), "clerk");
    assert_eq!(claims.kid(), Some("ins_2bQ7mXjVqvzS1hPkFbJ0aN4tGfE"));
    assert_eq!(claims.issuer(), Some("https://example.clerk.accounts.dev"));
    assert_eq!(claims.user_id(), Some("user_2f8Qk1h0Zp3sXw7vYtRbNcMdLeA"));
    assert_eq!(claims.role(), None);
    assert_eq!(claims.email(), None);
    assert!(claims.audience().is_empty());
    assert_eq!(claims.valid_until(), Some(1_700_000_420));
}

/// The project's shared secret, before it used signing keys.
#[test]
fn supabase_secret() {
    const SECRET: &str = "super-secret-jwt-token-with-at-least-32-characters-long";
    let document = format!(
        r#"{{
            "name": "supabase",
            "issuer": "https://abcdefghijklmnopqrst.supabase.co/auth/v1",
            "audience": "authenticated",
            "secret": "{SECRET}",
            "allowed_roles": ["authenticated", "anon"]
        }}"#
    );
    let key = Key::from_secret(Algorithm::HS256, SECRET.as_bytes());
    let impostor = Key::generate(Algorithm::HS256);
    let claims = &one_line(
        r#"{"aal":"aal1","amr":[{"method":"password","timestamp":1700000000}],
         "app_metadata":{"provider":"email","providers":["email"]},"aud":"authenticated",
         "email":"alice@example.com","exp":1700003600,"iat":1700000000,"is_anonymous":false,
         "iss":"https://abcdefghijklmnopqrst.supabase.co/auth/v1","phone":"",
         "role":"authenticated","session_id":"5b1c7f0e-5f7e-4a43-9a9b-1d3b0a7b9c11",
         "sub":"8d0fd2b3-9ca7-4d9e-a95f-9e13dded323e","user_metadata":{"email_verified":true}}"#,
    );
    for header in [
        r#"{"alg":"HS256","typ":"JWT"}"#,
        r#"{"alg":"HS256","kid":"hY5zKCnRVEMBSUNo","typ":"JWT"}"#,
    ] {
        let claims = verify(&document, &key, &impostor, header, claims);
        assert_eq!(claims.user_id(), Some("8d0fd2b3-9ca7-4d9e-a95f-9e13dded323e"));
        assert_eq!(claims.role(), Some("authenticated"));
        assert_eq!(claims.email(), Some("alice@example.com"));
        assert_eq!(claims.audience(), ["authenticated"]);
    }
    // The service key has no user id here.
    let claims = claims.replace(r#""role":"authenticated""#, r#""role":"service_role""#);
    let token = key.sign_raw(br#"{"alg":"HS256","typ":"JWT"}"#, claims.as_bytes());
    let refusal = verifier(&document).verify(&token, NOW).unwrap_err();
    assert_eq!(refusal.code().sqlstate(), "28J09");
}

/// Signing keys: the set as published, with `ext` and `key_ops`.
#[test]
fn supabase_signing_keys() {
    let kid = "3e4d2d5a-90a7-4e5d-8f3c-6d1f3c2b1a09";
    let (key, impostor) = (Key::generate(Algorithm::ES256), Key::generate(Algorithm::ES256));
    let (key, impostor) = (key.with_kid(kid), impostor.with_kid(kid));
    let mut jwk = public(&key);
    jwk["ext"] = true.into();
    jwk["key_ops"] = json!(["verify"]);
    let document = format!(
        r#"{{"issuer": "https://abcdefghijklmnopqrst.supabase.co/auth/v1",
              "jwks": {{"keys": [{jwk}]}}}}"#
    );
    let header = r#"{"alg":"ES256","kid":"3e4d2d5a-90a7-4e5d-8f3c-6d1f3c2b1a09","typ":"JWT"}"#;
    let claims = &one_line(
        r#"{"iss":"https://abcdefghijklmnopqrst.supabase.co/auth/v1",
         "sub":"8d0fd2b3-9ca7-4d9e-a95f-9e13dded323e","aud":"authenticated","exp":1700003600,
         "iat":1700000000,"role":"authenticated"}"#,
    );
    let claims = verify(&document, &key, &impostor, header, claims);
    assert_eq!(claims.provider(), "https://abcdefghijklmnopqrst.supabase.co/auth/v1");
    assert_eq!(claims.role(), Some("authenticated"));
}

/// A token of simple application code: no issuer, no audience, no key id.
#[test]
fn hand_made() {
    let secret = "0123456789abcdef0123456789abcdef";
    let document = format!(r#"{{"secret": "{secret}"}}"#);
    let key = Key::from_secret(Algorithm::HS256, secret.as_bytes());
    let impostor = Key::generate(Algorithm::HS256);
    for header in [
        r#"{"alg":"HS256","typ":"JWT"}"#,
        r#"{"typ":"JWT","alg":"HS256"}"#,
        r#"{"alg":"HS256"}"#,
        r#"{"alg":"HS256","kid":"v1"}"#,
    ] {
        let claims = r#"{"sub":"42","iat":1700000000,"exp":1700003600}"#;
        let claims = verify(&document, &key, &impostor, header, claims);
        assert_eq!(claims.user_id(), Some("42"));
        assert_eq!((claims.issuer(), claims.role()), (None, None));
    }
}

/// Neon's proxy signs a token for each session with a new key and a counter.
#[test]
fn neon_proxy() {
    let (key, impostor) = (Key::generate(Algorithm::EdDSA), Key::generate(Algorithm::EdDSA));
    let document =
        format!(r#"{{"name": "proxy", "jwks": {}, "monotonic_jti": true}}"#, key.bare_public_jwk());
    let header = r#"{"alg":"EdDSA"}"#;
    let claims = r#"{"sub":"user_01","exp":1700000360,"jti":1}"#;
    let verified = verify(&document, &key, &impostor, header, claims);
    assert_eq!(verified.user_id(), Some("user_01"));
    assert_eq!(verified.sequence(), Some(1));
    assert_eq!(verified.jti(), Some("1"));
    assert_eq!(verified.kid(), None);

    // The same with `pg_session_jwt.jwk`, which configures only the key.
    let keys = KeySet::parse(&key.bare_public_jwk().to_string()).unwrap();
    let provider = Provider::with_default_policy("pg_session_jwt.jwk", keys);
    let verifier = Verifier::new(vec![provider]).unwrap();
    let token = key.sign_raw(header.as_bytes(), claims.as_bytes());
    let verified = verifier.verify(&token, NOW).unwrap();
    assert_eq!(verified.provider(), "pg_session_jwt.jwk");
    assert_eq!(verified.user_id(), Some("user_01"));
    assert_eq!((verified.jti(), verified.sequence()), (Some("1"), None));
    let forged = impostor.sign_raw(header.as_bytes(), claims.as_bytes());
    assert_eq!(verifier.verify(&forged, NOW).unwrap_err().code().sqlstate(), "28J03");
}

/// A set of several keys that rotate, and the project as the audience.
#[test]
fn firebase() {
    let (old, new) = (rsa(0, "a9ef0a3c7f8b41d5"), rsa(1, "5f0d4e8b21c6a97e"));
    let document = format!(
        r#"{{
            "name": "firebase",
            "issuer": "https://securetoken.google.com/my-project",
            "audience": "my-project",
            "jwks": {{"keys": [{}, {}]}}
        }}"#,
        public(&old),
        public(&new)
    );
    let claims = &one_line(
        r#"{"iss":"https://securetoken.google.com/my-project","aud":"my-project",
         "auth_time":1699990000,"user_id":"Zx9TqLwPnVYh3kd7RcBm1sUeGf52",
         "sub":"Zx9TqLwPnVYh3kd7RcBm1sUeGf52","iat":1700000000,"exp":1700003600,
         "email":"alice@example.com","email_verified":true,
         "firebase":{"identities":{"email":["alice@example.com"]},"sign_in_provider":"password"}}"#,
    );
    for (key, kid) in [(&old, "a9ef0a3c7f8b41d5"), (&new, "5f0d4e8b21c6a97e")] {
        let header = format!(r#"{{"alg":"RS256","kid":"{kid}","typ":"JWT"}}"#);
        let claims = verify(&document, key, &rsa(2, kid), &header, claims);
        assert_eq!(claims.user_id(), Some("Zx9TqLwPnVYh3kd7RcBm1sUeGf52"));
        assert_eq!(claims.email(), Some("alice@example.com"));
        assert_eq!(claims.audience(), ["my-project"]);
        assert_eq!(claims.kid(), Some(kid));
    }
    // Google signs for every project with the same keys.
    let header = br#"{"alg":"RS256","kid":"a9ef0a3c7f8b41d5","typ":"JWT"}"#;
    for (claims, code) in [
        (claims.replace("my-project", "their-project"), "28J02"),
        (claims.replace(r#""aud":"my-project""#, r#""aud":"their-project""#), "28J07"),
    ] {
        let token = old.sign_raw(header, claims.as_bytes());
        let refusal = verifier(&document).verify(&token, NOW).unwrap_err();
        assert_eq!(refusal.code().sqlstate(), code);
    }
}

/// Several audiences, and claims whose names are URLs.
#[test]
fn auth0() {
    let key = rsa(0, "NjVBRjY5MDlCMUIwNzU4RTA2QzZFMDQ4QzQ2MDAyQjVDNjk1RTM2Qg");
    let mut jwk = public(&key);
    jwk["x5c"] = json!(["MIIDBzCCAe+gAwIBAgIJakoPho0MJr56MA0GCSqGSIb3DQEBCwUAMCE="]);
    jwk["x5t"] = "NjVBRjY5MDlCMUIwNzU4RTA2QzZFMDQ4QzQ2MDAyQjVDNjk1RTM2Qg".into();
    let document = format!(
        r#"{{
            "name": "auth0",
            "issuer": "https://example.eu.auth0.com/",
            "audience": ["https://api.example.com"],
            "jwks": {{"keys": [{jwk}]}},
            "user_id_claim": "https://example.com/user_id",
            "role_claim": "/https:~1~1example.com~1roles/0",
            "allowed_roles": ["editor", "viewer"]
        }}"#
    );
    let header = &one_line(
        r#"{"alg":"RS256","typ":"JWT",
         "kid":"NjVBRjY5MDlCMUIwNzU4RTA2QzZFMDQ4QzQ2MDAyQjVDNjk1RTM2Qg"}"#,
    );
    let claims = &one_line(
        r#"{"https://example.com/user_id":1042,"https://example.com/roles":["editor","viewer"],
         "iss":"https://example.eu.auth0.com/","sub":"auth0|507f1f77bcf86cd799439011",
         "aud":["https://api.example.com","https://example.eu.auth0.com/userinfo"],
         "iat":1700000000,"exp":1700086400,"scope":"openid profile email","azp":"my_client_id"}"#,
    );
    let impostor = rsa(1, "NjVBRjY5MDlCMUIwNzU4RTA2QzZFMDQ4QzQ2MDAyQjVDNjk1RTM2Qg");
    let claims = verify(&document, &key, &impostor, header, claims);
    assert_eq!(claims.user_id(), Some("1042"));
    assert_eq!(claims.subject(), Some("auth0|507f1f77bcf86cd799439011"));
    assert_eq!(claims.role(), Some("editor"));
    assert_eq!(
        claims.audience(),
        ["https://api.example.com", "https://example.eu.auth0.com/userinfo"]
    );
}

/// Hasura's claims are an object under one name, in two spellings.
#[test]
fn hasura() {
    let (key, impostor) = (Key::generate(Algorithm::ES384), Key::generate(Algorithm::ES384));
    for (name, pointer) in [
        ("claims.jwt.hasura.io", "/claims.jwt.hasura.io"),
        ("https://hasura.io/jwt/claims", "/https:~1~1hasura.io~1jwt~1claims"),
    ] {
        let document = format!(
            r#"{{
                "name": "hasura",
                "jwks": {},
                "user_id_claim": "{pointer}/x-hasura-user-id",
                "role_claim": "{pointer}/x-hasura-default-role",
                "allowed_roles": ["user"]
            }}"#,
            public(&key)
        );
        let header = r#"{"alg":"ES384","typ":"JWT"}"#;
        let claims = format!(
            r#"{{"sub":"login|7","name":"Alice","iat":1700000000,"exp":1700003600,
                 "{name}":{{"x-hasura-allowed-roles":["user","editor"],
                 "x-hasura-default-role":"user","x-hasura-user-id":"7",
                 "x-hasura-org-id":"acme"}}}}"#
        );
        let claims = verify(&document, &key, &impostor, header, &one_line(&claims));
        assert_eq!(claims.user_id(), Some("7"));
        assert_eq!(claims.role(), Some("user"));
        assert_eq!(claims.subject(), Some("login|7"));
    }
}

/// Access tokens have a client in place of an audience, and no `typ`.
#[test]
fn cognito() {
    let key = rsa(0, "1x7dTzcvPyJ2Uq5b0gXl4mQK8sRhYwEaNfOoZpVtLDk=");
    let document = |audience: &str| {
        format!(
            r#"{{
                "name": "cognito",
                "issuer": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI",
                {audience}
                "jwks": {{"keys": [{}]}},
                "required_claims": ["exp", "client_id", "token_use"],
                "role_claim": "/cognito:groups/0"
            }}"#,
            public(&key)
        )
    };
    let header = r#"{"kid":"1x7dTzcvPyJ2Uq5b0gXl4mQK8sRhYwEaNfOoZpVtLDk=","alg":"RS256"}"#;
    let claims = &one_line(
        r#"{"sub":"c2e5b454-10f1-70a3-2b6e-8d9a4f1e7c55","cognito:groups":["staff"],
         "iss":"https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI",
         "version":2,"client_id":"6abc7def8ghi9jkl0mno1pqr2s","origin_jti":"a0b1",
         "event_id":"c2d3","token_use":"access","scope":"openid","auth_time":1700000000,
         "exp":1700003600,"iat":1700000000,"jti":"e4f5","username":"alice"}"#,
    );
    let impostor = rsa(1, "1x7dTzcvPyJ2Uq5b0gXl4mQK8sRhYwEaNfOoZpVtLDk=");
    let verified = verify(&document(""), &key, &impostor, header, claims);
    assert_eq!(verified.user_id(), Some("c2e5b454-10f1-70a3-2b6e-8d9a4f1e7c55"));
    assert_eq!(verified.role(), Some("staff"));
    assert_eq!(verified.jti(), Some("e4f5"));
    assert!(verified.audience().is_empty());

    // A configured audience is required.
    let strict = verifier(&document(r#""audience": "6abc7def8ghi9jkl0mno1pqr2s","#));
    let token = key.sign_raw(header.as_bytes(), claims.as_bytes());
    assert_eq!(strict.verify(&token, NOW).unwrap_err().code().sqlstate(), "28J07");
    // An identity token has the client as its audience.
    let identity = claims.replace("\"client_id\":", "\"client_id\":\"x\",\"aud\":");
    let token = key.sign_raw(header.as_bytes(), identity.as_bytes());
    assert_eq!(strict.verify(&token, NOW).unwrap().audience(), ["6abc7def8ghi9jkl0mno1pqr2s"]);
}

/// A set with an encryption key beside the signing key, `typ` among the claims, and roles in an object.
#[test]
fn keycloak() {
    let key = rsa(0, "FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE");
    let mut encryption = rsa(1, "m1s9dQKx0fRzWb6yVnPcAeHtLuYgJi3oXp7Zk2Dw4TE").public_jwk();
    encryption["use"] = "enc".into();
    encryption["alg"] = "RSA-OAEP".into();
    let document = format!(
        r#"{{
            "name": "keycloak",
            "issuer": "https://sso.example.com/realms/app",
            "audience": "account",
            "jwks": {{"keys": [{encryption}, {}]}},
            "role_claim": "/realm_access/roles/0",
            "allowed_roles": ["default-roles-app"]
        }}"#,
        public(&key)
    );
    let header =
        r#"{"alg":"RS256","typ" : "JWT","kid" : "FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE"}"#;
    let claims = &one_line(
        r#"{"exp":1700000600,"iat":1700000300,"jti":"onrtac:2b1f7c3e-9a54-4d0e-8b6f-1c2d3e4f5a6b",
         "iss":"https://sso.example.com/realms/app","aud":"account",
         "sub":"f1c2d3e4-5a6b-4c7d-8e9f-0a1b2c3d4e5f","typ":"Bearer","azp":"web",
         "sid":"0d9c8b7a","acr":"1","allowed-origins":["https://app.example.com"],
         "realm_access":{"roles":["default-roles-app","offline_access","uma_authorization"]},
         "resource_access":{"account":{"roles":["manage-account"]}},
         "scope":"openid profile email","email_verified":true,"preferred_username":"alice",
         "email":"alice@example.com"}"#,
    );
    let impostor = rsa(2, "FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE");
    let verified = verify(&document, &key, &impostor, header, claims);
    assert_eq!(verified.user_id(), Some("f1c2d3e4-5a6b-4c7d-8e9f-0a1b2c3d4e5f"));
    assert_eq!(verified.role(), Some("default-roles-app"));
    assert_eq!(verified.email(), Some("alice@example.com"));
    let providers = Provider::parse_all(&document).unwrap();
    assert_eq!(providers[0].keys().unusable().len(), 1);

    // The encryption key verifies no signature.
    let header = header.replace(
        "FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE",
        "m1s9dQKx0fRzWb6yVnPcAeHtLuYgJi3oXp7Zk2Dw4TE",
    );
    let token = rsa(1, "").sign_raw(header.as_bytes(), claims.as_bytes());
    let refusal = verifier(&document).verify(&token, NOW).unwrap_err();
    assert_eq!(refusal.code().sqlstate(), "28J02");
}

/// Several providers in one setting.
#[test]
fn together() {
    let (clerk, firebase) = (rsa(0, "ins_1"), rsa(1, "f1"));
    let proxy = Key::generate(Algorithm::EdDSA);
    let document = format!(
        r#"[
            {{"name": "clerk", "issuer": "https://example.clerk.accounts.dev", "jwks": {}}},
            {{
                "name": "firebase",
                "issuer": "https://securetoken.google.com/my-project",
                "audience": "my-project",
                "jwks": {{"keys": [{}]}}
            }},
            {{"name": "proxy", "jwks": {}, "monotonic_jti": true}}
        ]"#,
        public(&clerk),
        public(&firebase),
        proxy.bare_public_jwk()
    );
    let verifier = verifier(&document);
    let names: Vec<_> = verifier.providers().iter().map(|provider| provider.name()).collect();
    assert_eq!(names, ["clerk", "firebase", "proxy"]);
    let clerk_claims = json!({
        "iss": "https://example.clerk.accounts.dev", "sub": "user_1", "exp": NOW + 60,
    });
    let firebase_claims = json!({
        "iss": "https://securetoken.google.com/my-project", "aud": "my-project", "sub": "f",
        "exp": NOW + 60,
    });
    let proxy_claims = json!({"sub": "p", "jti": 7, "exp": NOW + 60});
    for (key, claims, expected) in [
        (&clerk, &clerk_claims, Ok("clerk")),
        (&firebase, &firebase_claims, Ok("firebase")),
        (&proxy, &proxy_claims, Ok("proxy")),
        // No provider verifies the tokens of another.
        (&clerk, &firebase_claims, Err("28J02")),
        (&firebase, &clerk_claims, Err("28J02")),
        (&proxy, &clerk_claims, Err("28J10")),
        (&clerk, &proxy_claims, Err("28J02")),
    ] {
        let outcome = verifier.verify(&key.sign(claims), NOW);
        let outcome = outcome.as_ref().map(Claims::provider).map_err(|e| e.code().sqlstate());
        assert_eq!(outcome, expected, "{claims}");
    }
}
