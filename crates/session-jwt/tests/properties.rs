//! Properties of all tokens, keys and documents: no change of a valid token is accepted, no input
//! causes a panic, limits hold, and accepted values are returned unchanged.

use std::sync::LazyLock;

use mint::{Algorithm, Key};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value, json};
use session_jwt::{Code, KeySet, MAX_TOKEN_BYTES, Provider, Verifier, verify_jws};

const NOW: i64 = 1_700_000_000;

/// A key, a verifier that trusts it, and a valid token.
struct Signer {
    algorithm: Algorithm,
    key: Key,
    keys: KeySet,
    verifier: Verifier,
    token: String,
}

/// One for each algorithm. The RSA algorithms share one pair.
static SIGNERS: LazyLock<Vec<Signer>> = LazyLock::new(|| {
    let rsa = Key::generate(Algorithm::RS256).private_jwk().unwrap();
    let signer = |algorithm: Algorithm| {
        let key = match algorithm.name().split_at(2).0 {
            "RS" | "PS" => Key::from_private_jwk(&rsa).unwrap().with_algorithm(algorithm),
            _ => Key::generate(algorithm),
        };
        let key = key.with_kid("k1");
        let keys = || KeySet::parse(&key.public_jwk().to_string()).unwrap();
        let token = key.sign(&json!({"sub": "alice", "iss": "https://a.example", "exp": NOW + 60}));
        let verifier = Verifier::new(vec![Provider::with_default_policy("p", keys())]).unwrap();
        verifier.verify(&token, NOW).unwrap();
        Signer { algorithm, keys: keys(), verifier, token, key }
    };
    Algorithm::ALL.into_iter().map(signer).collect()
});

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.algorithm, self.token)
    }
}

fn signers() -> impl Strategy<Value = &'static Signer> {
    (0..Algorithm::ALL.len()).prop_map(|place| &SIGNERS[place])
}

impl Signer {
    /// The token is rejected, and not by a check that requires a valid signature.
    fn refuses(&self, token: &str) -> Result<(), TestCaseError> {
        let name = self.algorithm.name();
        prop_assert!(verify_jws(token, &self.keys).is_err(), "{name} JWS {token}");
        match self.verifier.verify(token, NOW) {
            Ok(_) => prop_assert!(false, "{name} {token}"),
            Err(refusal) => prop_assert!(
                matches!(
                    refusal.code(),
                    Code::Malformed | Code::NoKey | Code::Signature | Code::Algorithm
                ),
                "{name} {token} {refusal:?}"
            ),
        }
        Ok(())
    }
}

/// Keys are generated for each run, so a seed would not reproduce a case.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Changes every position of every token once.
#[test]
fn no_byte_may_be_changed() {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for signer in SIGNERS.iter() {
        for place in 0..signer.token.len() {
            let mut bytes = signer.token.clone().into_bytes();
            bytes[place] = match ALPHABET.iter().position(|byte| *byte == bytes[place]) {
                Some(value) => ALPHABET[value ^ 1 << (place % 6)],
                None => b'A',
            };
            let token = String::from_utf8(bytes).unwrap();
            assert_ne!(token, signer.token);
            signer.refuses(&token).unwrap();
        }
    }
}

/// Combines header, payload and signature of two valid tokens.
#[test]
fn parts_may_not_be_exchanged() {
    for one in SIGNERS.iter() {
        for other in SIGNERS.iter() {
            let other = other.key.sign(&json!({"sub": "bob", "exp": NOW + 60}));
            for mixture in 1..7 {
                let parts = one.token.split('.').zip(other.split('.')).enumerate();
                let parts = parts.map(|(at, (one, other))| [one, other][mixture >> at & 1]);
                let mixed = parts.collect::<Vec<_>>().join(".");
                if mixed != one.token && mixed != other {
                    one.refuses(&mixed).unwrap();
                }
            }
        }
    }
}

/// A character that an edit inserts into a token, mostly of base64url.
fn character() -> impl Strategy<Value = char> {
    prop_oneof![
        8 => prop::char::ranges(vec!['A'..='Z', 'a'..='z', '-'..='9', '_'..='_', '+'..='='].into()),
        1 => any::<char>(),
        1 => (0u8..0x80).prop_map(char::from),
    ]
}

/// Texts that resemble tokens, keys or documents.
fn pieces() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\u0000",
        "\\ud800",
        " ",
        "\n",
        "0",
        "-1",
        "1e9",
        "1e400",
        "1700000060",
        "true",
        "null",
        "\"alg\"",
        "\"EdDSA\"",
        "\"none\"",
        "\"kid\"",
        "\"k1\"",
        "\"typ\"",
        "\"JWT\"",
        "\"crit\"",
        "\"exp\"",
        "\"nbf\"",
        "\"iss\"",
        "\"aud\"",
        "\"sub\"",
        "\"keys\"",
        "\"kty\"",
        "\"OKP\"",
        "\"RSA\"",
        "\"EC\"",
        "\"oct\"",
        "\"crv\"",
        "\"Ed25519\"",
        "\"P-256\"",
        "\"x\"",
        "\"y\"",
        "\"n\"",
        "\"e\"",
        "\"k\"",
        "\"AQAB\"",
        "\"d\"",
        "\"use\"",
        "\"sig\"",
        "\"key_ops\"",
        "\"name\"",
        "\"issuer\"",
        "\"audience\"",
        "\"jwks\"",
        "\"secret\"",
        "\"algorithms\"",
        "\"leeway\"",
        "\"required_claims\"",
        "\"user_id_claim\"",
        "\"/a~1/0\"",
        "\"role_claim\"",
        "\"allowed_roles\"",
        "\"monotonic_jti\"",
        "\u{e9}",
        "\0",
        "\u{feff}",
        ".",
        "..",
        "e30",
        "eyJhbGciOiJFZERTQSJ9",
        "eyJhbGciOiJub25lIn0",
    ]);
    prop::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat())
}

/// JSON in the shapes of keys and documents, with values of every type in every member.
fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[A-Za-z0-9_-]{0,44}".prop_map(Value::from),
        prop::sample::select(vec![
            "OKP", "RSA", "EC", "oct", "Ed25519", "P-256", "P-384", "sig", "enc", "verify",
            "EdDSA", "RS256", "HS256", "AQAB", "/a/0", "/~", "exp", "",
        ])
        .prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "keys",
        "kty",
        "crv",
        "x",
        "y",
        "n",
        "e",
        "k",
        "d",
        "use",
        "key_ops",
        "alg",
        "kid",
        "name",
        "issuer",
        "audience",
        "jwks",
        "secret",
        "algorithms",
        "leeway",
        "required_claims",
        "user_id_claim",
        "role_claim",
        "allowed_roles",
        "monotonic_jti",
        "unknown",
    ]);
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..8)
                .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

/// Claims sets that `jsonb` can store.
fn claims() -> impl Strategy<Value = Map<String, Value>> {
    let text = || any::<String>().prop_map(|text| text.replace('\0', ""));
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..4)
                .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
        ]
    });
    // The names exclude those with a meaning.
    let name = any::<String>().prop_map(|text| format!("custom {}", text.replace('\0', "")));
    prop::collection::btree_map(name, value, 0..6).prop_map(|members| members.into_iter().collect())
}

/// The texts of a rejection are short and on one line.
fn is_presentable(refusal: &session_jwt::Rejection) -> Result<(), TestCaseError> {
    for text in [refusal.detail().unwrap_or_default(), refusal.hint().unwrap_or_default()] {
        prop_assert!(text.len() < 5000, "{} bytes", text.len());
        prop_assert!(!text.contains(char::is_control), "{text:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn a_changed_token_is_refused(
        signer in signers(),
        place in any::<prop::sample::Index>(),
        character in character(),
    ) {
        let token = &signer.token;
        let place = place.index(token.len());
        prop_assume!(!token[place..].starts_with(character));
        let (before, after) = (&token[..place], &token[place + 1..]);
        signer.refuses(&format!("{before}{character}{after}"))?;
    }

    #[test]
    fn a_longer_or_shorter_token_is_refused(
        signer in signers(),
        place in any::<prop::sample::Index>(),
        length in 1usize..80,
        inserted in prop::collection::vec(character(), 1..5),
    ) {
        let token = &signer.token;
        let place = place.index(token.len());
        let inserted: String = inserted.into_iter().collect();
        signer.refuses(&format!("{}{inserted}{}", &token[..place], &token[place..]))?;
        signer.refuses(&format!("{token}{inserted}"))?;
        let end = token.len().min(place + length);
        signer.refuses(&format!("{}{}", &token[..place], &token[end..]))?;
        signer.refuses(&token[..place])?;
        if place != 0 {
            signer.refuses(&token[place..])?;
        }
    }

    #[test]
    fn no_text_panics(text in prop_oneof![any::<String>(), pieces()]) {
        for signer in SIGNERS.iter().step_by(3) {
            signer.refuses(&text)?;
        }
        let _ = KeySet::parse(&text);
        let _ = Provider::parse_all(&text);
    }

    #[test]
    fn no_signed_text_panics(
        header in prop_oneof![
            Just(r#"{"alg":"EdDSA"}"#.to_owned()),
            pieces(),
            pieces().prop_map(|inner| format!(r#"{{"alg":"EdDSA",{inner}}}"#)),
        ],
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            pieces().prop_map(String::into_bytes),
            pieces().prop_map(|inner| format!(r#"{{"exp":1700000060,{inner}}}"#).into_bytes()),
        ],
        now in any::<i64>(),
    ) {
        let signer = SIGNERS.iter().find(|signer| signer.algorithm == Algorithm::EdDSA).unwrap();
        let token = signer.key.sign_raw(header.as_bytes(), &payload);
        if let Err(refusal) = signer.verifier.verify(&token, now) {
            is_presentable(&refusal)?;
        }
    }

    #[test]
    fn no_document_panics(document in documents()) {
        let text = document.to_string();
        for refusal in [
            KeySet::parse(&text).err(),
            KeySet::parse(&json!({"keys": [document]}).to_string()).err(),
            Provider::parse_all(&text).and_then(Verifier::new).err(),
            Provider::parse_all(&json!({"jwks": document}).to_string()).err(),
        ]
        .into_iter()
        .flatten()
        {
            prop_assert_eq!(refusal.code(), Code::Configuration);
            is_presentable(&refusal)?;
        }
    }

    #[test]
    fn an_accepted_token_gives_its_text(mut claims in claims(), user in any::<String>()) {
        let signer = SIGNERS.iter().find(|signer| signer.algorithm == Algorithm::EdDSA).unwrap();
        let user = user.replace('\0', "");
        claims.insert("exp".to_owned(), (NOW + 60).into());
        claims.insert("sub".to_owned(), user.as_str().into());
        let text = Value::from(claims).to_string();
        let token = signer.key.sign_raw(br#"{"alg":"EdDSA"}"#, text.as_bytes());
        prop_assume!(token.len() <= MAX_TOKEN_BYTES);
        let verified = signer.verifier.verify(&token, NOW).unwrap();
        prop_assert_eq!(verified.json(), &text);
        // An empty string is not a user id.
        let user_id = Some(user.as_str()).filter(|id| !id.is_empty());
        prop_assert_eq!(verified.user_id(), user_id);
    }

    #[test]
    fn times_decide_as_the_rfc_says(
        exp in NOW - 5000..NOW + 5000,
        nbf in prop::option::of(NOW - 5000..NOW + 5000),
        leeway in 0i64..=3600,
    ) {
        let signer = SIGNERS.iter().find(|signer| signer.algorithm == Algorithm::HS256).unwrap();
        let document = json!({"jwks": signer.key.public_jwk(), "leeway": leeway}).to_string();
        let verifier = Verifier::new(Provider::parse_all(&document).unwrap()).unwrap();
        let mut claims = json!({"exp": exp});
        if let Some(nbf) = nbf {
            claims["nbf"] = nbf.into();
        }
        let outcome = verifier.verify(&signer.key.sign(&claims), NOW);
        let expected = if nbf.is_some_and(|nbf| NOW < nbf - leeway) {
            Some(Code::NotYetValid)
        } else if NOW >= exp + leeway {
            Some(Code::Expired)
        } else {
            None
        };
        prop_assert_eq!(outcome.err().map(|refusal| refusal.code()), expected);
    }
}

proptest! {
    #![proptest_config(cases(100))]

    /// For any content, and any text before it.
    #[test]
    fn no_token_is_longer_than_the_limit(
        signer in signers(),
        more in 1usize..5000,
        filler in character(),
    ) {
        let filler = filler.to_string().repeat(MAX_TOKEN_BYTES + more);
        for text in [filler.clone(), format!("{}{filler}", signer.token)] {
            for refusal in [
                signer.verifier.verify(&text, NOW).unwrap_err(),
                verify_jws(&text, &signer.keys).unwrap_err(),
            ] {
                prop_assert_eq!(refusal.code(), Code::Malformed);
                prop_assert_eq!(refusal.message(), "token is too long");
            }
        }
    }

    /// For any nesting of arrays and objects.
    #[test]
    fn nothing_nests_deeper_than_the_limit(
        arrays in prop::collection::vec(any::<bool>(), 32..200),
    ) {
        let open: String = arrays.iter().map(|a| if *a { "[" } else { "{\"a\":" }).collect();
        let close: String = arrays.iter().rev().map(|a| if *a { "]" } else { "}" }).collect();
        let signer = SIGNERS.iter().find(|signer| signer.algorithm == Algorithm::EdDSA).unwrap();
        let claims = format!(r#"{{"exp":1700000060,"x":{open}0{close}}}"#);
        let token = signer.key.sign_raw(br#"{"alg":"EdDSA"}"#, claims.as_bytes());
        let refusal = signer.verifier.verify(&token, NOW).unwrap_err();
        prop_assert_eq!(refusal.code(), Code::Malformed);
        let document = format!(r#"{{"x":{open}0{close}}}"#);
        prop_assert_eq!(KeySet::parse(&document).unwrap_err().code(), Code::Configuration);
        prop_assert_eq!(Provider::parse_all(&document).unwrap_err().code(), Code::Configuration);
    }
}

/// A claim's name as providers and administrators choose it: words with dashes, colons and dots, and
/// URLs.
fn claim_names() -> impl Strategy<Value = String> {
    let word = "[a-z][a-zA-Z0-9_]{0,12}";
    prop_oneof![
        word.prop_map(String::from),
        prop::collection::vec(word, 1..4).prop_map(|words| words.join("-")),
        prop::collection::vec(word, 1..4).prop_map(|words| words.join(":")),
        ("[a-z]{2,10}", word).prop_map(|(host, path)| format!("{host}.example/{path}")),
        ("[a-z]{2,10}", prop::collection::vec(word, 0..4))
            .prop_map(|(host, path)| format!("https://{host}.example/{}", path.join("/"))),
        "com\\.[a-z]{2,10}\\.[a-z]{2,10}",
        Just("https://hasura.io/jwt/claims".to_owned()),
        Just("claims.jwt.hasura.io".to_owned()),
    ]
}

/// The name of a member within a claim, or an index.
fn steps() -> impl Strategy<Value = String> {
    let escaped = |name: String| name.replace('~', "~0").replace('/', "~1");
    prop_oneof![
        4 => claim_names().prop_map(escaped),
        1 => "0|[1-9][0-9]{0,8}",
        1 => "[a-zA-Z~@$ {}<()|'.,-]{2,8}x".prop_map(escaped),
    ]
}

proptest! {
    #![proptest_config(cases(2000))]

    /// The name of any claim is accepted in every member that takes a claim, and finds the claim's
    /// value.
    #[test]
    fn claims_are_named_freely(
        name in claim_names(),
        path in prop::collection::vec(steps(), 1..5),
        value in "[a-zA-Z0-9:/.@_-]{1,3}y[a-zA-Z0-9:/.@_ -]{0,20}z",
    ) {
        let pointer = format!("/{}", path.join("/"));
        for claim in [name, pointer] {
            let document = json!({
                "secret": "0123456789abcdef0123456789abcdef",
                "user_id_claim": claim, "role_claim": claim, "claims_namespace": claim,
                "required_claims": [claim], "require": {claim.clone(): value},
                "audience": [value], "allowed_roles": [value],
            });
            let outcome = Provider::parse_all(&document.to_string());
            prop_assert!(outcome.is_ok(), "{claim:?} {value:?} {outcome:?}");
        }
    }

    /// An issuer need not be a URL.
    #[test]
    fn issuers_are_named_freely(
        issuer in prop_oneof![
            "[a-z][a-z0-9-]{0,20}",
            "[a-z]{1,8}\\.[a-z]{1,8}\\.example",
            "[a-z]{1,8}@[a-z]{1,8}\\.iam\\.gserviceaccount\\.com",
            "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}",
            "https://[a-z]{1,8}\\.example(:[1-9][0-9]{3})?(/[a-zA-Z0-9_.~-]{1,8}e){0,3}/?",
            "urn:[a-z]{2,8}:[a-z]{1,8}",
        ],
    ) {
        let document = json!({"issuer": issuer, "secret": "0123456789abcdef0123456789abcdef"});
        let outcome = Provider::parse_all(&document.to_string());
        prop_assert!(outcome.is_ok(), "{issuer:?} {outcome:?}");
    }

    /// A similar issuer is not accepted, and the comparison does not panic.
    #[test]
    fn any_text_is_a_slip_or_none(text in any::<String>(), more in pieces()) {
        for text in [text, more] {
            let members = ["issuer", "audience", "role_claim", "default_role", "typ"];
            for member in members.iter().chain(&["jwks_url"]) {
                let row = json!({"name": "p", "issuer": "https://a.example", (*member): text});
                let _ = Provider::from_row(&row.to_string());
            }
            let _ = Provider::parse_all(&text);
            let _ = SIGNERS[0].verifier.verify(&format!("{text}{}", SIGNERS[0].token), NOW);
        }
    }
}

/// Pieces that the code looks for in configured texts and tokens, and characters of several bytes, at which a
/// text must not be cut.
const PIECES: [&str; 72] = [
    "",
    "a",
    "é",
    "．",
    "😀",
    "\u{feff}",
    "\u{0}",
    "\n",
    "\r\n",
    " ",
    "\t",
    "\u{a0}",
    "/",
    "//",
    ".",
    "..",
    ":",
    ",",
    "*",
    "'",
    "\"",
    "`",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "<",
    ">",
    "|",
    "#",
    "?",
    "&",
    "=",
    "%",
    "%e2",
    "%C3%A9",
    "+",
    "-",
    "_",
    "~0",
    "~1",
    "~",
    "$",
    "$.",
    "${",
    "->",
    "->>",
    "\\",
    "\\u00",
    "\\x3",
    "&#x",
    "&quot;",
    "0x",
    "https://",
    "http:",
    "www.",
    ":443",
    "/.well-known/openid-configuration",
    "/.well-known/jwks.json",
    "/v2.0",
    "eyJ",
    "e30",
    "-----BEGIN ",
    "PUBLIC KEY-----",
    "-----END ",
    "MIIB",
    "ssh-rsa ",
    "modulus",
    "SHA256:",
    "age1",
];

/// Some pieces; or characters of several bytes throughout, so that few places are between two of them.
fn odd_text() -> impl Strategy<Value = String> {
    let pieces = prop::collection::vec(prop::sample::select(&PIECES[..]), 0..12);
    let wide = (0..4_usize, prop::sample::select(&["é", "．", "😀"][..]), 1..60_usize);
    let wide = wide.prop_map(|(narrow, wide, count)| "a".repeat(narrow) + &wide.repeat(count));
    let pieces = pieces.prop_map(|pieces| pieces.concat());
    (pieces, prop_oneof![Just(String::new()), wide]).prop_map(|(pieces, wide)| pieces + &wide)
}

fn members() -> Vec<&'static str> {
    let rows = session_jwt::ROW_MEMBERS.iter().map(|member| member.name);
    session_jwt::PROVIDER_MEMBERS.iter().map(|member| member.name).chain(rows).collect()
}

proptest! {
    #![proptest_config(cases(3000))]

    /// A text of pieces that the code looks for is judged without a panic, wherever it is cut.
    #[test]
    fn odd_texts_are_judged(
        text in odd_text(),
        tail in odd_text(),
        member in prop::sample::select(members()),
    ) {
        let signer = &SIGNERS[0];
        let mut row = json!({"name": "p", "jwks": signer.key.public_jwk()});
        for value in [json!(text), json!([text, tail]), json!({(text.clone()): [tail]})] {
            row[member] = value;
            let row = row.to_string();
            drop(Provider::from_row(&row));
            drop(Provider::parse_all(&row));
        }
        drop(KeySet::parse(&text));
        drop(KeySet::fetched(&text, None));
        drop(session_jwt::HttpHosts::parse(&text));
        drop(session_jwt::ClaimPath::parse(&text));
        for token in [text.clone() + &tail, signer.token.clone() + &text, text.clone() + &signer.token] {
            let is_whole = token == signer.token;
            prop_assert_eq!(signer.verifier.verify(&token, NOW).is_ok(), is_whole);
        }
        let named = signer.key.sign(&json!({"iss": text, "exp": NOW + 60}));
        drop(signer.verifier.verify(&named, NOW));
    }
}
