//! Mistakes in the values of providers. Each is rejected with a correction, and the correction is
//! accepted.

use mint::Algorithm;
use serde_json::{Value, json};
use session_jwt::{Code, KeySet, Provider, Rejection, quoted};

use crate::{SECRET, accepted, base, refused, said};

fn jwk() -> Value {
    base(Algorithm::EdDSA).key.public_jwk()
}

/// A provider with this member.
fn with(member: &str, value: &Value) -> String {
    // Some issuers need an audience.
    let mut document = json!({"name": "p", "jwks": jwk(), "audience": "app"});
    document[member] = value.clone();
    document.to_string()
}

/// The mistake is rejected, with the correction in the message.
#[track_caller]
fn slip(member: &str, value: &Value, advised: &Value) {
    let document = with(member, value);
    let name = format!("{member} {value}");
    let advice = match advised.as_str() {
        Some(text) => quoted(text),
        None => advised.as_array().map_or_else(String::new, |items| {
            let items: Vec<String> =
                items.iter().map(|item| quoted(item.as_str().unwrap())).collect();
            items.join(", ")
        }),
    };
    refused(&name, "", Provider::parse_all(&document), "22023", &advice);
    if !advised.is_null() {
        accepted(&format!("{name}: {advised}"), Provider::parse_all(&with(member, advised)));
    }
}

#[track_caller]
fn right(member: &str, value: &Value) {
    accepted(&format!("{member} {value}"), Provider::parse_all(&with(member, value)));
}

const PATHS: [&str; 4] = ["user_id_claim", "role_claim", "allowed_roles_claim", "claims_namespace"];

#[test]
fn a_path_that_matches_nothing_is_refused_with_one_that_does() {
    for (path, advised) in [
        ("/roles/*", "/roles"),
        ("/roles/-", "/roles"),
        ("/roles/-1", "/roles"),
        ("/roles/00", "/roles/0"),
        ("/roles/", "/roles"),
        ("//role", "/role"),
        ("role/", "/role"),
        ("realm_access/roles", "/realm_access/roles"),
        ("realm_access/roles", "/realm_access~1roles"),
        ("realm_access.roles", "/realm_access/roles"),
        ("app_metadata.role", "/app_metadata/role"),
        (
            "https://hasura.io/jwt/claims/x-hasura-role",
            "/https:~1~1hasura.io~1jwt~1claims/x-hasura-role",
        ),
        ("\"role\"", "/role"),
        ("'role'", "/role"),
        ("[role]", "/role"),
        ("/realm_access.roles", "/realm_access/roles"),
        ("role | [0]", "/role/0"),
        ("contains(roles, 'x')", "/roles"),
        (".realm_access.roles | .[0]", "/realm_access/roles/0"),
        (".role // empty", "/role"),
        ("claims->>'role'", "/role"),
        ("auth.jwt() -> 'app_metadata' ->> 'role'", "/app_metadata/role"),
        ("current_setting('request.jwt.claims', true)::json->>'role'", "/role"),
        ("{{role}}", "/role"),
        ("${role}", "/role"),
        ("<role>", "/role"),
        ("[\"realm_access\",\"roles\"]", "/realm_access/roles"),
        ("claims.role", "/role"),
        ("claims.role", "/claims.role"),
        ("token.role", "/role"),
        ("jwt.role", "/role"),
    ] {
        for member in PATHS {
            slip(member, &json!(path), &json!(advised));
        }
        let (value, advised) = (json!({path: "x"}), json!({advised: "x"}));
        refused(path, "", Provider::parse_all(&with("require", &value)), "22023", "write");
        right("require", &advised);
        refused(
            path,
            "",
            Provider::parse_all(&with("required_claims", &json!([path]))),
            "22023",
            "",
        );
    }
    slip("role_claim", &json!("/resource_access/*/roles"), &json!("/realm_access/roles/0"));
    slip("required_claims", &json!(["exp,sub"]), &json!(["exp", "sub"]));
    slip("required_claims", &json!(["exp", "sub, azp"]), &json!(["sub", "azp"]));
    for path in [
        "https://x.example/role",
        "https://hasura.io/jwt/claims",
        "/https:~1~1hasura.io~1jwt~1claims/x-hasura-role",
        "claims.jwt.hasura.io",
        "/claims.jwt.hasura.io/x-hasura-default-role",
        "kubernetes.io/serviceaccount/namespace",
        "com.example.role",
        "urn:zitadel:iam:org:project:roles",
        "cognito:groups",
        "custom:role",
        "x-hasura-role",
        "/tenants/007/role",
        "my role",
        "/",
    ] {
        for member in PATHS {
            right(member, &json!(path));
        }
    }
}

#[test]
fn an_issuer_that_no_token_has_is_refused_with_one_that_tokens_have() {
    for (issuer, advised) in [
        ("https://x.example/realms/a/protocol/openid-connect/certs", "https://x.example/realms/a"),
        ("https://x.example/realms/a/protocol/openid-connect/token", "https://x.example/realms/a"),
        ("https://x.example/realms/a/protocol/openid-connect/auth", "https://x.example/realms/a"),
        (
            "https://x.example/realms/a/protocol/openid-connect/userinfo",
            "https://x.example/realms/a",
        ),
        ("https://x.example/certs/", "https://x.example"),
        ("https://x.okta.com/oauth2/v1/keys", "https://x.okta.com"),
        ("https://x.okta.com/oauth2/default/v1/keys", "https://x.okta.com/oauth2/default"),
        (
            "https://login.microsoftonline.com/3f1c/discovery/v2.0/keys",
            "https://login.microsoftonline.com/3f1c/v2.0",
        ),
        ("https://x.example/adfs/discovery/keys", "https://x.example/adfs"),
        ("https://x.example/jwks", "https://x.example"),
        ("https://x.example/JWKS.json?a=b", "https://x.example"),
        ("https://x.example/oauth2/jwks", "https://x.example"),
        ("https://x.example/openid-connect/jwks", "https://x.example"),
        ("https://x.example/.well-known/openid-configuration/jwks", "https://x.example"),
        ("https://x.example/.well-known/keys", "https://x.example"),
        ("https://x.example/cdn-cgi/access/certs", "https://x.example"),
        ("htps://x.example/jwks", "https://x.example"),
        ("htps://x.example", "https://x.example"),
        ("https//x.example", "https://x.example"),
        ("https:/x.example", "https://x.example"),
        ("https:://x.example", "https://x.example"),
        ("https:///x.example", "https://x.example"),
        ("https:x.example", "https://x.example"),
        ("https:\\\\x.example", "https://x.example"),
        ("https://https://x.example", "https://x.example"),
        ("https://htps://x.example", "https://x.example"),
        ("htp://x.example", "http://x.example"),
        ("\"https://x.example\"", "https://x.example"),
        ("'https://x.example'", "https://x.example"),
        ("`https://x.example`", "https://x.example"),
        ("[\"https://x.example\"]", "https://x.example"),
        ("{https://x.example}", "https://x.example"),
        ("Bearer https://x.example", "https://x.example"),
        ("iss: https://x.example", "https://x.example"),
        ("issuer=https://x.example", "https://x.example"),
    ] {
        slip("issuer", &json!(issuer), &json!(advised));
    }
    let google = "https://www.googleapis.com/oauth2/v3/certs";
    let refusal = Provider::parse_all(&with("issuer", &json!(google))).unwrap_err();
    assert!(said(&refusal).contains("\"https://accounts.google.com\""), "{refusal:?}");
    for (issuers, first) in [
        ("https://a.example https://b.example", "\"https://a.example\", \"https://b.example\""),
        ("https://a.example,https://b.example", "\"https://a.example\", \"https://b.example\""),
        ("{https://a.example,https://b.example}", "\"https://a.example\", \"https://b.example\""),
        ("[\"https://a.example\", \"https://b.example\"]", "\"https://a.example\", \"https://b.e"),
        ("https://a.example\nhttps://b.example", "a provider for each"),
    ] {
        let outcome = Provider::parse_all(&with("issuer", &json!(issuers)));
        refused(issuers, "", outcome, "22023", first);
    }
    for (issuer, placeholder) in [
        ("https://login.microsoftonline.com/{tenantid}/v2.0", "{tenantid}"),
        ("https://login.microsoftonline.com/{tenant}/v2.0", "{tenant}"),
        ("https://login.microsoftonline.com/TENANT_ID/v2.0", "TENANT_ID"),
        ("https://login.microsoftonline.com/common/v2.0", "common"),
        ("https://login.microsoftonline.com/organizations/v2.0", "organizations"),
        ("https://sts.windows.net/common/", "common"),
        ("https://securetoken.google.com/<project>", "<project>"),
        ("https://example.okta.com/oauth2/[server]", "[server]"),
        ("https://YOUR_DOMAIN/", "YOUR_DOMAIN"),
        ("https://YOUR_DOMAIN.auth0.com/", "YOUR_DOMAIN"),
        ("https://your-tenant.eu.auth0.com/", "your-tenant"),
        ("https://yourdomain.example/", "yourdomain"),
        ("https://<tenant>.auth0.com/", "<tenant>"),
        ("https://${AUTH0_DOMAIN}/", "${AUTH0_DOMAIN}"),
        ("https://{{domain}}/", "{{domain}}"),
        ("https://[tenant].auth0.com/", "[tenant]"),
        ("https://dev-xxxx.us.auth0.com/", "dev-xxxx"),
        ("https://xxxxxxxx.supabase.co/auth/v1", "xxxxxxxx"),
        ("https://REF.supabase.co/auth/v1", "REF"),
        ("https://....example/", "..."),
        ("P2abc\u{2026}", "\u{2026}"),
        ("{issuer}", "{issuer}"),
    ] {
        let outcome = Provider::parse_all(&with("issuer", &json!(issuer)));
        refused(issuer, "", outcome, "22023", &format!("for {}", quoted(placeholder)));
    }
    for issuer in [
        "my-service",
        "accounts.example.com",
        "joe@project.iam.gserviceaccount.com",
        "3f1c2b7e-0a64-4a0e-9f53-1f0a7ad3b6f1",
        "https://example.auth0.com/",
        "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI",
        "https://login.microsoftonline.com/3f1c2b7e-0a64-4a0e-9f53-1f0a7ad3b6f1/v2.0",
        "https://sts.windows.net/3f1c2b7e-0a64-4a0e-9f53-1f0a7ad3b6f1/",
        "https://[2001:db8::1]:8443/a",
        "http://keycloak:8080/realms/app",
        "https://x.example/certsx",
        "https://x.example/keys-and-more",
        "https://x.example/?a=https://b.example",
        "https://x.example/%7Ba",
        "https://your-energy.example",
        "https://domain.example/region/tenant",
        "MY_SERVICE",
        "https-service",
        "http",
        "httpbin",
        "urn:example:issuer",
        "issuer",
        "issuer:acme",
        "bearer",
        "a,b",
        "did:web:x.example",
    ] {
        right("issuer", &json!(issuer));
    }
    // Wherever characters of several bytes begin.
    for count in 0..64 {
        right("issuer", &json!(format!("https://\u{ff0e}{}\u{ff0e}", "a".repeat(count))));
        right("issuer", &json!(format!("https://x\u{ff0e}{}", "a".repeat(count))));
    }
}

/// The message names the issuer in the token, and does not repeat the token.
#[test]
fn a_token_or_a_key_is_no_issuer() {
    let base = base(Algorithm::EdDSA);
    let token = base.claims(r#"{"iss":"https://x.example","sub":"alice"}"#);
    for text in [token.clone(), format!("Bearer {token}"), format!("\"{token}\"")] {
        let outcome = Provider::parse_all(&with("issuer", &json!(text)));
        let words = "is a token; write what tokens name in \"iss\": \"https://x.example\"";
        refused("token", &token, outcome, "22023", words);
    }
    let jwk = jwk().to_string();
    let outcome = Provider::parse_all(&with("issuer", &json!(jwk)));
    refused("JWK", &jwk, outcome, "22023", "is a JWK");
    let pem = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----";
    let outcome = Provider::parse_all(&with("issuer", &json!(pem)));
    refused("PEM", pem, outcome, "22023", "as \"public_key\"");
}

#[test]
fn items_of_lists_are_single_values() {
    for (item, advised) in [
        ("app,other", json!(["app", "other"])),
        ("app, other", json!(["app", "other"])),
        ("[\"app\"]", json!(["app"])),
        ("[\"app\", \"other\"]", json!(["app", "other"])),
        ("{app}", json!(["app"])),
        ("{app,other}", json!(["app", "other"])),
        ("\"app\"", json!(["app"])),
        ("'app'", json!(["app"])),
        ("https//api.example.com", json!(["https://api.example.com"])),
        ("htps://api.example.com/", json!(["https://api.example.com/"])),
    ] {
        for member in ["audience", "allowed_roles", "typ"] {
            slip(member, &json!([item]), &advised);
        }
        slip("audience", &json!(item), &advised);
    }
    for (item, words) in [
        ("*", "a wildcard"),
        ("https://*.example", "a wildcard"),
        ("<client_id>", "a placeholder"),
        ("${AUDIENCE}", "a placeholder"),
        ("{{audience}}", "a placeholder"),
        ("YOUR_CLIENT_ID", "a placeholder"),
        ("your-client-id", "a placeholder"),
        ("https://YOUR_DOMAIN/api", "\"YOUR_DOMAIN\""),
        ("API_CLIENT_ID", "a placeholder"),
    ] {
        for member in ["audience", "allowed_roles", "typ"] {
            let outcome = Provider::parse_all(&with(member, &json!(["app", item])));
            refused(item, "", outcome, "22023", words);
        }
    }
    for item in [
        "app",
        "https://api.example.com/v1?x=y",
        "api://3f1c2b7e-0a64-4a0e-9f53-1f0a7ad3b6f1",
        "1234567890-abc.apps.googleusercontent.com",
        "my app",
        "at+jwt",
        "spiffe://acme.example/orders",
        "it's",
        "a{b",
        "\u{e9}",
    ] {
        right("audience", &json!([item]));
        right("allowed_roles", &json!([item]));
        right("require", &json!({"azp": [item]}));
    }
    slip("default_role", &json!("\"app\""), &json!("app"));
    let outcome = Provider::parse_all(&with("default_role", &json!("<role>")));
    refused("placeholder", "", outcome, "22023", "a placeholder");
    for (algorithms, words) in [
        (json!(["EdDSA,ES256"]), "\"EdDSA\", \"ES256\""),
        (json!(["{EdDSA}"]), "write each item as a string of its own: \"EdDSA\""),
        (json!(["*"]), "a wildcard"),
        (json!(["eddsa"]), "write \"EdDSA\""),
        (json!(["none"]), "supported are HS256"),
    ] {
        let outcome = Provider::parse_all(&with("algorithms", &algorithms));
        refused(&algorithms.to_string(), "", outcome, "22023", words);
    }
}

/// A claim's value may be any text, except a text that is certainly a mistake.
#[test]
fn values_that_are_required_are_values() {
    let of = |value: Value| Provider::parse_all(&with("require", &json!({"azp": value})));
    for (value, words) in [
        (json!("\"app\""), "write \"app\""),
        (json!(["x", "[\"app\"]"]), "a string of its own: \"app\""),
        (json!("{app,other}"), "\"app\", \"other\""),
        (json!("${CLIENT}"), "a placeholder"),
        (json!("YOUR_CLIENT_ID"), "a placeholder"),
        (json!(1.0), "write 1."),
        (json!(-2.0), "write -2."),
        (json!(1.5), "with a fraction or an exponent."),
    ] {
        refused(&value.to_string(), "", of(value), "22023", words);
    }
    let text = with("require", &json!({"azp": 7})).replace("\"azp\":7", "\"azp\":1e2");
    refused("1e2", "", Provider::parse_all(&text), "22023", "write 100.");
    for value in [
        "cn=admins,ou=groups,dc=example",
        "Doe, Jane",
        "[admins, users]",
        "[admins]",
        "*",
        "repo:acme/app:*",
        "a \"b\" c",
    ] {
        accepted(value, of(json!(value)));
    }
}

/// A row of the table with these columns.
fn row(columns: Value) -> Result<Provider, Rejection> {
    let mut row = json!({"name": "p", "audience": ["app"]});
    row.as_object_mut().unwrap().extend(columns.as_object().unwrap().clone());
    Provider::from_row(&row.to_string())
}

#[test]
fn the_url_of_keys_is_a_url_of_keys() {
    let right = |url: &str| drop(accepted(url, row(json!({"jwks_url": url}))));
    for (url, advised) in [
        ("login.example.com/keys", "https://login.example.com/keys"),
        ("login.example.com:8443/keys", "https://login.example.com:8443/keys"),
        ("htps://login.example.com/keys", "https://login.example.com/keys"),
        ("https//login.example.com/keys", "https://login.example.com/keys"),
        (" https://login.example.com/keys\n", "https://login.example.com/keys"),
        ("\"https://login.example.com/keys\"", "https://login.example.com/keys"),
    ] {
        let words = format!("write {}", quoted(advised));
        refused(url, "", row(json!({"jwks_url": url})), "22023", &words);
        right(advised);
    }
    for url in [
        "https://x.example/a/.well-known/openid-configuration",
        "https://x.example/a/.well-known/openid-configuration/?b",
        "https://x.example/a/.Well-Known/OpenID-Configuration",
        "https://x.example/a/.well-known/oauth-authorization-server",
    ] {
        let words = "omit the member and write \"https://x.example/a\" as \"issuer\"";
        refused(url, "", row(json!({"jwks_url": url})), "22023", words);
        accepted(url, row(json!({"issuer": "https://x.example/a"})));
    }
    let token = base(Algorithm::EdDSA).token();
    let jwk = jwk().to_string();
    for (name, text, words) in [
        ("a token", token.as_str(), "is a token, not the URL"),
        ("a JWK", &jwk, "is a JWK, not the URL of a JWK set: Give it as \"jwks\""),
        (
            "a PEM",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
            "as \"public_key\"",
        ),
        ("a placeholder", "https://{tenant}.example/jwks", "\"{tenant}\""),
        ("a placeholder", "https://YOUR_DOMAIN/.well-known/jwks.json", "\"YOUR_DOMAIN\""),
        ("a host", "keycloak", "is not an https URL"),
        ("no https", "ftp://keys.example.com/", "is not an https URL"),
    ] {
        let secret = if text.starts_with("http") { "" } else { text };
        refused(name, secret, row(json!({"jwks_url": text})), "22023", words);
    }
    for url in [
        "https://x.example/.well-known/jwks.json",
        "https://x.example/.well-known/openid-configuration/jwks",
        "https://login.microsoftonline.com/3f1c/discovery/v2.0/keys?appid=7",
        "https://x.example",
        "http://keycloak:8080/realms/x/protocol/openid-connect/certs",
    ] {
        right(url);
    }
}

#[test]
fn a_document_in_another_form_is_named() {
    let token = base(Algorithm::EdDSA).token();
    let (one, jwk) = (json!({"jwks": jwk()}).to_string(), jwk().to_string());
    let pem = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----";
    for (name, text, words) in [
        ("nothing", "", "It is empty."),
        ("PEM", pem, "It is a key or a certificate in PEM."),
        ("PEM, its place", pem, "as \"public_key\""),
        ("a URL", "https://x.example/jwks", "It is a URL."),
        ("a token", &token, "It is a token."),
        ("an array of SQL", &format!("ARRAY['{one}']"), "It is an array of SQL."),
        (
            "an array of SQL",
            &format!("{{{}}}", Value::from(one.as_str())),
            "It is an array of SQL.",
        ),
        ("quotes of SQL", &format!("'{one}'"), "It is JSON in the quotes of SQL."),
        ("dollar quotes", &format!("$${one}$$"), "It is JSON in the quotes of SQL."),
        ("single quotes", &one.replace('"', "'"), "strings are in single quotes"),
        ("YAML", "issuer: https://x.example\njwks:\n  keys: []\n", "It is YAML."),
        ("YAML", "# ours\n---\n- name: x\n", "It is YAML."),
        ("a file", "/etc/postgresql/jwks.json", "It is the name of a file."),
    ] {
        refused(name, text, Provider::parse_all(text), "22023", words);
        let keys = KeySet::parse(text).map(drop);
        refused(name, text, keys, "22023", words);
    }
    // The path continues within a string.
    for text in [
        Value::from(jwk.as_str()).to_string(),
        Value::from(format!(r#"{{"keys":[{jwk}]}}"#)).to_string(),
    ] {
        let hint = "without quotes around it";
        refused("a string", &text, KeySet::parse(&text).map(drop), "22023", hint);
        let fetched = KeySet::fetched(&text, None).map(|keys| keys.jwks);
        refused("a string", &text, fetched, "22023", "a string that holds a JWK");
        let inner: Value = serde_json::from_str(&text).unwrap();
        let document = with("jwks", &inner);
        refused("a string", &text, Provider::parse_all(&document), "22023", hint);
    }
    accepted("the object", KeySet::parse(&jwk).map(drop));
}

/// The members of Hasura and of other libraries.
#[test]
fn members_of_other_servers_are_translated() {
    for (document, words) in [
        (json!({"type": "RS256", "key": "-----BEGIN PUBLIC KEY-----"}), "\"public_key\""),
        (
            json!({"type": "RS256", "key": "-----BEGIN PUBLIC KEY-----"}),
            "the members \"key\", \"type\"",
        ),
        (json!({"type": "RS256", "key": "-----BEGIN PUBLIC KEY-----"}), "\"algorithms\""),
        (json!({"type": "HS256", "key": SECRET}), "as \"secret\""),
        (
            json!({"jwk_url": "https://x.example"}),
            "\"jwks_url\" in a row of the table of providers",
        ),
        (
            json!({"jwksUri": "https://x.example"}),
            "\"jwks_url\" in a row of the table of providers",
        ),
        (
            json!({"jwks_uri": "https://x.example"}),
            "\"jwks_url\" in a row of the table of providers",
        ),
        (
            json!({"jwks_url": "https://x.example"}),
            "\"jwks_url\" in a row of the table of providers",
        ),
        (json!({"claims_namespace_path": "$"}), "as \"claims_namespace\""),
        (json!({"iss": "x"}), "as \"issuer\""),
        (json!({"issuerBaseURL": "x"}), "as \"issuer\""),
        (json!({"aud": "x"}), "as \"audience\""),
        (json!({"clientId": "x"}), "as \"audience\""),
        (json!({"kid": "x"}), "as \"jwks\""),
        (json!({"keys": []}), "as \"jwks\""),
        (json!({"allowed_skew": 1}), "as \"leeway\""),
        (json!({"pem": "x"}), "as \"public_key\""),
        (json!({"jwt_secret": "x"}), "as \"secret\""),
        (json!({"maxAge": 1}), "as \"max_token_age\""),
        (json!({"jwt-role-claim-key": ".role"}), "as \"role_claim\""),
        (json!({"Issuer": "x"}), "In place of \"Issuer\" write \"issuer\"."),
        (json!({"public-key": "x"}), "In place of \"public-key\" write \"public_key\"."),
        (json!({"roleClaim": "x"}), "In place of \"roleClaim\" write \"role_claim\"."),
        (json!({"frobnicate": 1}), "Known are name, issuer"),
    ] {
        let text = document.to_string();
        let refusal = refused(&text, "", Provider::parse_all(&text), "22023", words);
        assert_eq!(refusal.message(), "provider has an unknown member");
        assert_eq!(refusal.code(), Code::Configuration);
    }
}
