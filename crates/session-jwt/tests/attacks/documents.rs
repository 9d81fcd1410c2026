//! The contents of provider documents.

use mint::Algorithm;
use serde_json::{Value, json};
use session_jwt::{PROVIDER_MEMBERS, Provider, Rejection, Verifier};

use crate::{CLAIMS, NOW, SECRET, accepted, base, refused};

fn jwk() -> Value {
    base(Algorithm::EdDSA).key.public_jwk()
}

/// A document is accepted if it can be parsed and a verifier can be made from it.
fn load(text: &str) -> Result<Verifier, Rejection> {
    Verifier::new(Provider::parse_all(text)?)
}

#[track_caller]
fn wrong(document: &Value, words: &str) {
    let text = document.to_string();
    refused(&text, &text, load(&text), "22023", words);
    // An array of one provider is equivalent.
    let text = json!([document]).to_string();
    refused(&text, &text, load(&text), "22023", words);
}

#[track_caller]
fn right(document: &Value) -> Verifier {
    let text = document.to_string();
    accepted(&text, load(&json!([document]).to_string()));
    accepted(&text, load(&text))
}

/// A key in PEM: an Ed25519 key of RFC 8410 section 10.1.
fn public_key() -> &'static str {
    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
     -----END PUBLIC KEY-----\n"
}

/// A valid document with one member replaced.
fn with(member: &str, value: &Value) -> Value {
    let mut document = match member {
        "secret" => json!({}),
        _ => json!({"jwks": jwk()}),
    };
    document[member] = value.clone();
    document
}

#[test]
fn every_member_is_of_its_type() {
    let strings = [json!("x"), json!("https://issuer.example"), json!("a.b"), json!("\u{e9}")];
    let no_strings = [
        json!(true),
        json!(1),
        json!([]),
        json!({}),
        json!([1]),
        json!(""),
        json!("a\u{0}b"),
        json!(" "),
        json!(" x"),
        json!("x\n"),
        json!("a\u{7f}b"),
    ];
    let lists = [json!(["x"]), json!(["x", "y"]), json!(["x", "x"])];
    let no_lists = [
        json!(true),
        json!(1),
        json!({}),
        json!(""),
        json!([1]),
        json!([null]),
        json!([["x"]]),
        json!(["x", ""]),
        json!(["x", 1]),
        json!([""]),
        json!(["a\u{0}b"]),
    ];
    let paths = [json!("x"), json!("a.b"), json!("https://x/y"), json!("/a/b~1c/~0/0"), json!("/")];
    let no_paths = [
        json!("/a~"),
        json!("/~2"),
        json!("/~x/y"),
        json!("/a/b~"),
        json!("$.role"),
        json!(".role"),
        json!("roles[0]"),
        json!("/roles[0]"),
        json!("roles[\"x\"]"),
        json!("roles[*]"),
        json!("{roles,0}"),
        json!("roles->>0"),
    ];
    let not = |some: &[&[Value]]| some.concat();
    let table: [(&str, Vec<Value>, Vec<Value>); 19] = [
        ("name", strings.to_vec(), not(&[&no_strings, &lists])),
        ("issuer", strings.to_vec(), not(&[&no_strings, &lists])),
        ("audience", not(&[&strings, &lists]), not(&[&no_lists, &[json!([])]])),
        (
            "jwks",
            vec![jwk(), json!({"keys": [jwk()]})],
            not(&[&no_strings, &strings, &[json!([jwk()]), json!({"keys": []})]]),
        ),
        (
            "secret",
            vec![json!(SECRET), json!(SECRET[..32]), json!("\u{e9}".repeat(16))],
            not(&[
                &no_strings,
                &[
                    json!(SECRET[..31]),
                    json!([SECRET]),
                    json!({"k": SECRET}),
                    // Public texts are rejected as secrets.
                    json!(format!("\n-----BEGIN PUBLIC KEY-----\n{SECRET}")),
                    json!(jwk().to_string()),
                    json!(json!({"keys": [jwk()]}).to_string()),
                    json!(format!("https://example.com/{SECRET}")),
                ],
            ]),
        ),
        (
            "algorithms",
            vec![json!(["EdDSA"]), json!(["Ed25519"]), json!(["RS256", "EdDSA", "EdDSA"])],
            not(&[
                &no_lists,
                &[
                    json!([]),
                    json!("EdDSA"),
                    json!(["none"]),
                    json!(["eddsa"]),
                    json!(["ES512"]),
                    json!(["EdDSA", "none"]),
                    json!(["EdDSA", "RSA-OAEP"]),
                    json!(["RS256"]),
                    json!(["HS256"]),
                ],
            ]),
        ),
        (
            "leeway",
            vec![json!(0), json!(1), json!(60), json!(3600)],
            vec![
                json!(true),
                json!("60"),
                json!([]),
                json!({}),
                json!(-1),
                json!(3601),
                json!(1.5),
                json!(60.0),
                json!(u64::MAX),
                json!(i64::MIN),
                json!(1e300),
            ],
        ),
        (
            "required_claims",
            not(&[&lists, &[json!([]), json!(["/a/b"])]]),
            not(&[&no_lists, &[json!("exp"), json!(["/a~"]), json!(["$.a"])]]),
        ),
        ("user_id_claim", paths.to_vec(), not(&[&no_strings, &lists, &no_paths])),
        ("role_claim", paths.to_vec(), not(&[&no_strings, &lists, &no_paths])),
        ("default_role", strings.to_vec(), not(&[&no_strings, &lists])),
        ("allowed_roles", not(&[&lists, &[json!([])]]), not(&[&no_lists, &[json!("user")]])),
        ("allowed_roles_claim", paths.to_vec(), not(&[&no_strings, &lists, &no_paths])),
        ("claims_namespace", paths.to_vec(), not(&[&no_strings, &lists, &no_paths])),
        (
            "monotonic_jti",
            vec![json!(true), json!(false)],
            vec![json!("true"), json!(1), json!([]), json!({})],
        ),
        ("typ", not(&[&strings, &lists]), not(&[&no_lists, &[json!([])]])),
        (
            "public_key",
            vec![json!(public_key())],
            not(&[&no_strings, &strings, &[json!([public_key()]), jwk()]]),
        ),
        (
            "require",
            vec![
                json!({"azp": "app"}),
                json!({"/a/b": ["app", 1, true], "c.d": -0}),
                json!({"n": u64::MAX}),
                json!({"a": vec!["x"; 64]}),
            ],
            not(&[
                &no_strings[..4],
                &lists,
                &[
                    json!({}),
                    json!({"azp": null}),
                    json!({"azp": []}),
                    json!({"azp": {}}),
                    json!({"azp": 1.0}),
                    json!({"azp": 1e300}),
                    json!({"azp": [null]}),
                    json!({"azp": [["app"]]}),
                    json!({"azp": ["app", 1.5]}),
                    json!({"azp": ""}),
                    json!({"azp": "app "}),
                    json!({"azp": "a\u{0}b"}),
                    json!({"": "app"}),
                    json!({"azp ": "app"}),
                    json!({"$.azp": "app"}),
                    json!({"/a~": "app"}),
                    json!({"a": vec!["x"; 65]}),
                    (0..17).map(|n| (n.to_string(), json!("x"))).collect(),
                ],
            ]),
        ),
        (
            "max_token_age",
            vec![json!(1), json!(3600), json!(315_360_000)],
            vec![
                json!("60"),
                json!(0),
                json!(-1),
                json!(315_360_001),
                json!(60.0),
                json!(u64::MAX),
                json!([]),
            ],
        ),
    ];
    let names: Vec<&str> = PROVIDER_MEMBERS.iter().map(|member| member.name).collect();
    assert_eq!(table.each_ref().map(|(name, ..)| *name), names[..], "a member has no cases");
    for (name, good, bad) in table {
        for value in good {
            right(&with(name, &value));
        }
        // A member that is null counts as absent.
        let mut null = json!({"jwks": jwk()});
        if name == "jwks" {
            null = json!({"secret": SECRET});
        }
        null[name] = json!(null);
        right(&null);
        for value in bad {
            let words = match name {
                "jwks" | "secret" | "algorithms" | "public_key" => "",
                _ => "provider has an invalid member",
            };
            wrong(&with(name, &value), words);
        }
    }
}

/// A value that was copied with surrounding text, or from another place, would match no token.
#[test]
fn what_no_token_can_match_is_refused() {
    let of = |member: &str, value: &str| json!({"jwks": jwk(), member: value});
    for (value, words) in [
        ("https://x.example ", "write \"https://x.example\""),
        ("\thttps://x.example", "write \"https://x.example\""),
        ("https://x.example\n", "write \"https://x.example\""),
        ("https:// x.example", "write \"https://x.example\""),
        ("\u{feff}https://x.example", "write \"https://x.example\""),
        ("https://x\u{200b}.example", "write \"https://x.example\""),
        ("https://x.example\u{a0}", "write \"https://x.example\""),
        ("\"https://x.example\"", "write \"https://x.example\""),
        ("<https://x.example>", "write \"https://x.example\""),
        ("https://x\u{7f}.example", "write \"https://x.example\""),
        (" \u{feff}", "is white space"),
        ("https://x.example/.well-known/openid-configuration", "\"https://x.example\" or the same"),
        ("https://x.example/a/.well-known/openid-configuration", "\"https://x.example/a\" or"),
        ("https://x.example//.well-known/openid-configuration/", "\"https://x.example\" or"),
        ("https://x.example/.well-known/openid-configuration?a=b#c", "\"https://x.example\" or"),
        ("https://x.example/.Well-Known/OpenID-Configuration", "\"https://x.example\" or"),
        ("https://x.example/.well-known/openid-configuration\n", "\"https://x.example\" or"),
        ("https://x.example/.well-known/oauth-authorization-server", "\"https://x.example\" or"),
        (
            "https://x.example/.well-known/oauth-authorization-server/t/1",
            "\"https://x.example/t/1\"",
        ),
        ("https://x.example/.well-known/jwks.json", "\"https://x.example\" or"),
    ] {
        wrong(&of("issuer", value), words);
    }
    for value in [
        "https://x.example/",
        "https://X.example:8443/a//b?c=d",
        "issuer.example",
        "https://x.example/.well-known/",
        "https://x.example/.well-known/other",
        "https://x.example/well-known/openid-configuration",
        "joe\u{e9}",
        "urn:x:y",
    ] {
        right(&of("issuer", value));
    }
    for member in ["audience", "name", "typ", "default_role", "user_id_claim", "role_claim"] {
        wrong(&of(member, "app "), "write \"app\"");
        wrong(&of(member, "\u{feff}ap\rp\u{200b}"), "write \"app\"");
        wrong(&of(member, "\u{3000}"), "is white space");
        right(&of(member, "my app"));
    }
    for member in ["audience", "allowed_roles", "required_claims", "typ"] {
        wrong(&json!({"jwks": jwk(), member: ["x", "app\n"]}), "write \"app\"");
    }
    // White space may belong to a secret.
    right(&json!({"secret": format!(" {}", &SECRET[..32])}));
}

#[test]
fn a_claim_in_foreign_syntax_is_refused_with_its_pointer() {
    let members = ["user_id_claim", "role_claim", "allowed_roles_claim", "claims_namespace"];
    for member in members {
        for (path, words) in [
            ("$.realm_access.roles[0]", "write \"/realm_access/roles/0\"."),
            (".a.\"b.c\"", "write \"/a/b.c\", or"),
            ("/roles[0]", "write \"/roles/0\"."),
            ("$role", "or \"/$role\" for the claim that has exactly this name."),
            ("$", "write a claim's name"),
            (" $.role", "write \"$.role\""),
        ] {
            wrong(&json!({"jwks": jwk(), member: path}), words);
        }
        for path in ["https://x.y/role", "app.role", "/$role", "/.a/b", "cognito:groups", "a[b"] {
            right(&json!({"jwks": jwk(), member: path}));
        }
    }
    wrong(&json!({"jwks": jwk(), "required_claims": ["sub", "$.a[0]"]}), "write \"/a/0\"");
    wrong(&json!({"jwks": jwk(), "require": {".a[0]": 1}}), "write \"/a/0\"");
}

#[test]
fn unknown_members_are_an_error() {
    right(&json!({"jwks": jwk()}));
    for member in [
        "Issuer",
        "issuers",
        "iss",
        "aud",
        "audiences",
        "jwk",
        "jwks_uri",
        "jwks_url",
        "url",
        "keys",
        "kty",
        "kid",
        "algorithm",
        "alg",
        "required",
        "clockSkew",
        "",
        " issuer",
        "issuer\u{0}",
    ] {
        wrong(&with(member, &json!("x")), "provider has an unknown member");
        wrong(&with(member, &json!(null)), "Known are name, issuer");
    }
    let text = r#"{"issuer":"a","issuer":"b","secret":"x"}"#;
    refused("a member twice", text, load(text), "22023", "twice");
    let text = r#"{"issuer":"a","\u0069ssuer":"b","secret":"x"}"#;
    refused("a member twice, escaped", text, load(text), "22023", "twice");
}

#[test]
fn a_provider_has_keys_that_go_together() {
    assert!(!right(&json!({"jwks": jwk()})).has_secret());
    assert!(right(&json!({"secret": SECRET})).has_secret());
    assert!(right(&json!({"jwks": jwk(), "secret": SECRET})).has_secret());
    right(&json!({"jwks": jwk(), "public_key": public_key(), "secret": SECRET}));
    let symmetric = base(Algorithm::HS256).key.bare_public_jwk();
    for member in ["secret", "public_key"] {
        let mut document = json!({"jwks": symmetric, "secret": SECRET});
        if member == "public_key" {
            document = json!({"jwks": symmetric, "public_key": public_key()});
        }
        wrong(&document, "provider has two kinds of keys");
    }
    wrong(&json!({"jwks": null, "secret": null}), "provider has no key");
    wrong(&json!({}), "provider has no key");
    wrong(&json!({"name": "x", "issuer": "y", "audience": "z"}), "\"x\" has none of");
    // The message about a key names the provider.
    let private = base(Algorithm::EdDSA).key.private_jwk().unwrap();
    wrong(&json!({"name": "x", "jwks": private}), "Provider \"x\": Key 1");
    wrong(&json!({"issuer": "y", "secret": &SECRET[..31]}), "Provider \"y\": It has 31 bytes");
    wrong(&json!({"jwks": {"keys": []}}), "Provider 1: It has no keys");
    let mixed = json!({"keys": [jwk(), base(Algorithm::HS256).key.bare_public_jwk()]});
    wrong(&json!({"jwks": mixed}), "mixes symmetric and asymmetric keys");
    // It is an error even if other keys are usable.
    wrong(&json!({"secret": SECRET, "jwks": private}), "");
    wrong(&json!({"jwks": jwk(), "secret": "short"}), "");
}

#[test]
fn providers_are_objects() {
    let one = json!({"jwks": jwk()}).to_string();
    for text in [one.clone(), format!("[{one}]"), format!(" {one}\n"), "[]".to_owned()] {
        accepted(&text, load(&text));
    }
    let json = "providers are not valid JSON";
    let no_object = "provider is not a JSON object";
    for (name, text, words) in [
        ("nothing", String::new(), json),
        ("white space", " ".to_owned(), json),
        ("two documents", format!("{one}{one}"), json),
        ("a comma too many", format!("[{one},]"), json),
        ("a comment", format!("-- x\n{one}"), json),
        ("a byte order mark", format!("\u{feff}{one}"), json),
        ("too deep", format!("{}{}", "[".repeat(33), "]".repeat(33)), "32 levels"),
        ("null", "null".to_owned(), no_object),
        ("a string", "\"x\"".to_owned(), no_object),
        ("a number", "1".to_owned(), no_object),
        ("true", "true".to_owned(), no_object),
        ("an array of arrays", format!("[[{one}]]"), "Provider 1 is an array"),
        ("null among them", format!("[{one},null]"), "Provider 2 is null"),
        ("a string among them", format!("[\"x\",{one}]"), "Provider 1 is a string"),
    ] {
        refused(name, &text, load(&text), "22023", words);
    }
}

/// The provider of a token is never ambiguous.
#[test]
fn providers_differ() {
    let document = |name: Option<&str>, issuer: Option<&str>| {
        let mut document = json!({"jwks": jwk()});
        for (member, value) in [("name", name), ("issuer", issuer)] {
            if let Some(value) = value {
                document[member] = value.into();
            }
        }
        document
    };
    let (name, issuer) = ("two providers have the same name", "two providers have the same issuer");
    for (documents, expected) in [
        (vec![document(None, Some("a")), document(None, Some("b")), document(None, None)], None),
        (vec![document(None, Some("a")), document(None, Some("A"))], None),
        (vec![document(None, Some("a")), document(None, Some("a/"))], None),
        (vec![document(Some("x"), Some("a")), document(Some("y"), Some("b"))], None),
        (vec![document(None, Some("a")), document(None, Some("a"))], Some(issuer)),
        (vec![document(Some("x"), Some("a")), document(Some("y"), Some("a"))], Some(issuer)),
        (vec![document(None, None), document(None, None)], Some(issuer)),
        (vec![document(Some("x"), None), document(Some("y"), None)], Some("have no issuer")),
        (
            vec![document(None, Some("a")), document(None, Some("b")), document(None, Some("a"))],
            Some(issuer),
        ),
        (vec![document(Some("x"), Some("a")), document(Some("x"), Some("b"))], Some(name)),
        (vec![document(Some("x"), Some("a")), document(Some("x"), None)], Some(name)),
        // Messages name a provider without `name` by its issuer.
        (vec![document(None, Some("a")), document(Some("a"), Some("b"))], Some(name)),
    ] {
        let text = Value::from(documents).to_string();
        match expected {
            None => drop(accepted(&text, load(&text))),
            Some(words) => drop(refused(&text, &text, load(&text), "22023", words)),
        }
    }
}

/// Without a provider, every token is rejected.
#[test]
fn no_provider_serves_nobody() {
    let base = base(Algorithm::EdDSA);
    let with_issuer = base.claims(&CLAIMS.replace("\"sub\"", "\"iss\":\"a\",\"sub\""));
    for verifier in [Verifier::default(), Verifier::new(Vec::new()).unwrap(), load("[]").unwrap()] {
        for token in [base.token(), with_issuer.clone()] {
            refused(
                "nobody",
                &token,
                verifier.verify(&token, NOW),
                "28J02",
                "no provider is configured",
            );
        }
    }
}
