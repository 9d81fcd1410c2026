//! A secret is what nobody else can read: public keys, documents, URLs and tokens are none, however
//! they are wrapped; what is random is one.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use mint::{Algorithm, Key};
use serde_json::{Value, json};
use session_jwt::{Code, KeySet, Provider, Rejection, Verifier};

const NOW: i64 = 2_000_000_000;

fn as_secret(secret: &str) -> Result<Vec<Provider>, Rejection> {
    Provider::parse_all(&json!({"secret": secret}).to_string())
}

fn as_oct(bytes: &[u8]) -> Result<KeySet, Rejection> {
    KeySet::parse(&json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(bytes)}).to_string())
}

/// Refused as a text and as the bytes of a JWK, in a row as in a setting.
#[track_caller]
fn public(name: &str, text: &str, what: &str) {
    let refusal = as_secret(text).expect_err(name);
    assert_eq!(refusal.code(), Code::Configuration, "{name}");
    let detail = refusal.detail().unwrap();
    assert!(detail.contains(what), "{name}: {detail}");
    assert!(refusal.hint().is_some(), "{name}");
    let row = json!({"name": "p", "secret": text}).to_string();
    assert!(Provider::from_row(&row).is_err(), "{name}");
    public_bytes(name, text.as_bytes(), what);
}

#[track_caller]
fn public_bytes(name: &str, bytes: &[u8], what: &str) {
    let refusal = as_oct(bytes).expect_err(name);
    assert_eq!(refusal.code(), Code::Configuration, "{name}");
    assert!(refusal.detail().unwrap().contains(what), "{name}: {refusal:?}");
    // Another key beside it does not help.
    let good = json!({"kty": "oct", "kid": "good", "k": URL_SAFE_NO_PAD.encode([7; 32])});
    let bad = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(bytes)});
    let set = json!({"keys": [good, bad]}).to_string();
    assert_eq!(KeySet::parse(&set).unwrap_err().message(), "key cannot be a secret", "{name}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lines(text: &str, end: &str) -> String {
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    lines.join(end)
}

fn spki() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let info: PublicKeyX509Der = rsa.public_key().as_der().unwrap();
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let ec_info: PublicKeyX509Der = ec.public_key().as_der().unwrap();
    (info.as_ref().to_vec(), rsa.public_key().as_ref().to_vec(), ec_info.as_ref().to_vec())
}

#[test]
fn a_public_key_is_no_secret() {
    let (info, pkcs1, ec_info) = spki();
    for (name, der) in [("SPKI", &info), ("PKCS #1", &pkcs1), ("P-256", &ec_info)] {
        let base64 = STANDARD.encode(der);
        for (how, text) in [
            ("base64", base64.clone()),
            ("base64url", URL_SAFE.encode(der)),
            ("base64url without padding", URL_SAFE_NO_PAD.encode(der)),
            ("base64 in lines", lines(&base64, "\n")),
            ("base64 in lines of another system", lines(&base64, "\r\n")),
            ("base64 in lines as in a program", lines(&base64, "\\n")),
            ("base64 in quotes", format!("\"{base64}\"")),
            ("base64 after a name", format!("JWT_SECRET={base64}")),
            ("base64 after a member's name", format!("public_key: {base64}")),
            ("base64 in a document", format!("{{public_key: '{base64}'}}")),
            ("base64 after a byte order mark", format!("\u{feff}{base64}")),
            ("base64 of base64", STANDARD.encode(&base64)),
            ("base64, cut off", base64[..base64.len() - 7].to_owned()),
            ("hex", hex(der)),
            ("hex in upper case", hex(der).to_uppercase()),
            ("hex of Postgres", format!("\\x{}", hex(der))),
            ("hex with colons", {
                der.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
            }),
        ] {
            public(&format!("{name}, {how}"), &text, "DER");
        }
        public_bytes(name, der, "DER");
        for label in ["PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE", "PGP PUBLIC KEY BLOCK"] {
            let pem = format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n");
            for (how, text) in [
                ("PEM", pem.clone()),
                ("behind a comment", format!("# the realm's key\n{pem}")),
                ("in quotes", format!("'{pem}'")),
                ("after a byte order mark", format!("\u{feff}{pem}")),
                ("in one line", pem.replace('\n', "\\n")),
                ("without line ends", pem.replace('\n', " ")),
                ("in lower case", pem.to_lowercase()),
                ("encoded", STANDARD.encode(&pem)),
                ("for a URL", pem.replace(' ', "%20").replace('\n', "%0A")),
                ("in JSON", json!({"secret": pem}).to_string()),
                ("as a JSON string", json!(pem).to_string()),
            ] {
                public(&format!("{label} {how}"), &text, "");
            }
            let utf16: Vec<u8> = pem.encode_utf16().flat_map(u16::to_le_bytes).collect();
            public_bytes("UTF-16", &utf16, "PEM");
        }
    }
    let ssh2 =
        "---- BEGIN SSH2 PUBLIC KEY ----\nAAAAB3NzaC1yc2EAAAADAQABAAABAQC\n---- END SSH2 ----";
    public("SSH2", ssh2, "PEM");
    for kind in ["ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com"] {
        let mut wire = vec![0, 0, 0, kind.len() as u8];
        wire.extend(kind.bytes());
        wire.extend([0, 0, 0, 32]);
        wire.extend([0xa7; 32]);
        let base64 = STANDARD.encode(&wire);
        public(kind, &format!("{kind} {base64} me@host"), "SSH");
        public(kind, &base64, "SSH");
        public(kind, &format!("from=\"*\" {kind} {base64}"), "SSH");
        public_bytes(kind, &wire, "SSH");
    }
    for algorithm in [Algorithm::ES256, Algorithm::ES384] {
        let jwk = Key::generate(algorithm).bare_public_jwk();
        let [x, y] = ["x", "y"].map(|m| URL_SAFE_NO_PAD.decode(jwk[m].as_str().unwrap()).unwrap());
        let point = [&[4], &x[..], &y[..]].concat();
        public_bytes("point", &point, "point");
        public_bytes("coordinates", &point[1..], "point");
        public("point in hex", &hex(&point), "point");
        public("point in base64", &STANDARD.encode(&point), "point");
    }
    let xml = format!("<RSAKeyValue><Modulus>{}</Modulus></RSAKeyValue>", STANDARD.encode(&info));
    public("XML", &xml, "XML");
}

#[test]
fn a_key_document_is_no_secret() {
    for key in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA].map(Key::generate) {
        let jwk = key.public_jwk();
        let set = json!({"keys": [jwk]});
        for document in [&jwk, &set] {
            let text = document.to_string();
            for (how, text) in [
                ("as it is", text.clone()),
                ("after a byte order mark", format!("\u{feff}{text}")),
                ("between line ends", format!("\n{text}\n")),
                ("with a trailing comma", format!("{},}}", &text[..text.len() - 1])),
                ("cut off", text[..text.len() - 1].to_owned()),
                ("in single quotes", text.replace('"', "'")),
                ("as a JSON string", json!(text).to_string()),
                ("as a JSON string, twice", json!(json!(text).to_string()).to_string()),
                ("escaped", text.replace('"', "\\\"")),
                ("in base64", STANDARD.encode(&text)),
                ("in base64url", URL_SAFE_NO_PAD.encode(&text)),
                ("in an array", format!("[{text}]")),
                ("within a document", json!({"jwt": document}).to_string()),
                ("for a URL", text.replace('"', "%22").replace('{', "%7B")),
                ("in hex", hex(text.as_bytes())),
                ("after a name", format!("JWKS={text}")),
            ] {
                public(how, &text, "J");
            }
        }
    }
    for text in [
        r#"{"issuer": "login.example", "jwks_uri": "keys.example/jwks"}"#,
        "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]",
    ] {
        public(text, text, "");
    }
}

#[test]
fn a_url_and_a_token_are_no_secrets() {
    for url in [
        "https://login.example.com/.well-known/jwks.json",
        "HTTPS://LOGIN.EXAMPLE.COM/.WELL-KNOWN/JWKS.JSON",
        "http://keycloak:8080/realms/app/protocol/openid-connect/certs",
        "see https://login.example.com/realms/app for the key",
        "\"https:\\/\\/login.example.com\\/realms\\/app\"",
        "https%3A%2F%2Flogin.example.com%2Frealms%2Fapp",
        "login.example.com/realms/app/protocol/openid-connect",
        "LOGIN.EXAMPLE.COM/realms/app/protocol/openid-connect",
        "//login.example.com/realms/app/protocol/openid",
        "keycloak:8080/realms/app/protocol/openid-connect/certs",
        "192.168.17.23:8443/realms/app/protocol/openid-connect",
        "abcdefghijklmnopqrst.supabase.co",
        "dev-abcdefgh12345678.eu.auth0.com",
        "postgres://user@db.example.com/app?sslmode=require",
        "redis://cache.example.com:6379/0/with/more",
        "data:text/plain;base64,aGVsbG8gd29ybGQsIGFnYWlu",
        "data:,hello%20world%2C%20a%20text%20in%20a%20URL",
        "urn:ietf:params:oauth:jwk-thumbprint:sha-256:NzbLsXh8uDCcd",
        "did:web:login.example.com:users:alice:and:more",
    ] {
        public(url, url, "URL");
        public(url, &STANDARD.encode(url), "URL");
    }
    let token = Key::generate(Algorithm::ES256).sign(&json!({"role": "anon"}));
    let parts: Vec<&str> = token.split('.').collect();
    for (how, text) in [
        ("as it is", token.clone()),
        ("with Bearer", format!("Authorization: Bearer {token}")),
        ("in quotes", format!("'{token}'")),
        ("unsigned", format!("{}.{}.", parts[0], parts[1])),
        ("cut off", format!("{}.{}", parts[0], parts[1])),
        ("encrypted", format!("{}.{}.AAAA.BBBB.CCCC", parts[0], parts[1])),
        ("encoded", STANDARD.encode(&token)),
        ("after a name", format!("anon_key={token}")),
    ] {
        public(how, &text, "token");
    }
    for key in [
        "sb_publishable_ACJWlzQHlZjBrEguHvfOxg_3BJgxAaH",
        "pk_live_Y2xlcmsuZXhhbXBsZS5jb20kY2xlcmsuZXhhbXBs",
        "pk_test_Y2xlcmsuZXhhbXBsZS5jb20kY2xlcmsuZXhhbXBs",
        "NEXT_PUBLIC_KEY=pk_test_Y2xlcmsuZXhhbXBsZS5jb20k",
        "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    ] {
        public(key, key, "publishable");
    }
}

/// A generator whose numbers are the same in each run (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

#[test]
fn what_is_random_is_a_secret() {
    const WORDS: [&str; 24] = [
        "correct", "horse", "battery", "staple", "key", "keys", "public", "begin", "secret",
        "data", "http", "www", "token", "Bearer", "ssh", "rsa", "host", "example", "2024", "a",
        "über", "and", "kty", "end",
    ];
    let mut random = Random(1);
    for _ in 0..10_000 {
        let length = [32, 48, 64][random.below(3)];
        let bytes = random.bytes(length);
        let oct = as_oct(&bytes);
        assert!(oct.is_ok(), "{bytes:?} {oct:?}");
        let printable: String =
            (0..length).map(|_| char::from(b' ' + random.below(95) as u8)).collect();
        let separator = [".", "-", " ", "_", ", ", ": "][random.below(6)];
        let mut words: Vec<&str> = (0..8).map(|_| WORDS[random.below(WORDS.len())]).collect();
        words.extend(["correct", "horse", "battery", "staple"]);
        for secret in [
            STANDARD.encode(&bytes),
            URL_SAFE_NO_PAD.encode(&bytes),
            hex(&bytes),
            printable,
            words.join(separator),
        ] {
            let outcome = as_secret(&secret);
            assert!(outcome.is_ok(), "{secret:?} {outcome:?}");
        }
    }
    for secret in [
        "super-secret-jwt-token-with-at-least-32-characters-long",
        "a secret of at least 32 bytes, I would say",
        "sb_secret_0123456789abcdef0123456789abcdef",
        "pk_ is how it begins, but it is a passphrase",
        "either/or: and.so.on, e.g. this or that, 50%",
    ] {
        assert!(as_secret(secret).is_ok(), "{secret}");
    }
}

#[test]
fn a_line_end_around_a_secret_is_named() {
    let secret = "a secret of at least 32 bytes, I would say";
    for text in [
        format!("{secret}\n"),
        format!("{secret}\r\n"),
        format!("\n{secret}"),
        format!("{secret}\t"),
        format!("\u{feff}{secret}"),
        format!("{secret}\u{2028}"),
        format!("{secret}\u{7f}"),
    ] {
        let refusal = as_secret(&text).unwrap_err();
        assert_eq!(refusal.code(), Code::Configuration, "{text:?}");
        assert!(refusal.detail().unwrap().contains("line end"), "{refusal:?}");
        assert!(refusal.hint().unwrap().contains("Leave the character out"), "{refusal:?}");
        // Where it belongs to the secret, it can be given.
        assert!(as_oct(text.as_bytes()).is_ok(), "{text:?}");
    }
    assert!(as_secret(&format!(" {secret} ")).is_ok());
}

#[test]
fn a_refused_token_says_what_may_be_wrong_with_the_secret() {
    let verify = |document: Value, key: &Key| {
        let verifier = Verifier::new(Provider::parse_all(&document.to_string()).unwrap()).unwrap();
        verifier.verify(&key.sign(&json!({"sub": "alice", "exp": NOW + 1})), NOW)
    };
    let bytes = Random(2).bytes(32);
    let key = Key::from_secret(Algorithm::HS256, &bytes);
    for (secret, encoding) in [(STANDARD.encode(&bytes), "base64"), (hex(&bytes), "hexadecimal")] {
        let refusal = verify(json!({"secret": secret}), &key).unwrap_err();
        assert_eq!(refusal.code(), Code::Signature);
        let hint = refusal.hint().unwrap();
        assert!(hint.contains(encoding) && hint.contains("oct"), "{hint}");
    }
    let oct = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(&bytes)});
    assert!(verify(json!({"jwks": oct}), &key).is_ok());
    let passphrase = json!({"secret": "a secret of at least 32 bytes, I would say"});
    let refusal = verify(passphrase.clone(), &key).unwrap_err();
    assert!(!refusal.hint().unwrap().contains("base64"));

    for (algorithm, least) in [(Algorithm::HS384, 48), (Algorithm::HS512, 64)] {
        let key = Key::from_secret(algorithm, &bytes);
        for document in [json!({"jwks": oct}), json!({"secret": "s".repeat(32)})] {
            let refusal = verify(document.clone(), &key).unwrap_err();
            assert_eq!(refusal.code(), Code::Algorithm);
            let hint = refusal.hint().unwrap();
            assert!(
                hint.contains("32 bytes") && hint.contains(&format!("least {least}")),
                "{hint}"
            );
            let mut listed = document;
            listed["algorithms"] = json!([algorithm.name()]);
            let refusal = Provider::parse_all(&listed.to_string()).unwrap_err();
            assert!(refusal.detail().unwrap().contains(&format!("least {least}")), "{refusal:?}");
        }
    }
}

/// Whatever stands before it and after it, and however its lines are broken.
#[test]
fn what_is_public_is_found_within_other_text() {
    let (info, pkcs1, ec_info) = spki();
    let token = Key::generate(Algorithm::ES256).sign(&json!({"sub": "alice", "exp": NOW}));
    for text in [
        format!("access_token={token}&token_type=Bearer&expires_in=3600"),
        format!("/callback?id_token={token}&x=1"),
        format!("{token}!"),
        format!("@{token}"),
        format!("Bearer+{token}"),
        format!("session_{token}"),
        lines(&token, "\n"),
    ] {
        public("token", &text, "a token");
    }
    for der in [&info, &pkcs1, &ec_info] {
        let base64 = STANDARD.encode(der);
        for text in [
            format!("# our key\n{}", lines(&base64, "\n")),
            format!("> {}", lines(&base64, "\n> ")),
            format!("BEGIN KEY\n{}\nEND KEY", lines(&base64, "\n")),
            format!("#{base64}"),
            format!("RSA-{base64}"),
            format!("key={base64}&use=sig"),
        ] {
            public("DER", &text, "in DER");
        }
    }
    let jwk = Key::generate(Algorithm::ES256).public_jwk().to_string();
    for text in [
        jwk.replace('"', "&quot;"),
        jwk.replace('"', "\\u0022"),
        jwk.to_uppercase() + ",",
        "{:kty=>\"RSA\", :n=>\"x8Ah2aLmmNo9pWkGtXYVQeaA9Nw\"}".to_owned(),
        "\"n\":\"x8Ah2aLmmNo9pWkGtXYVQeaA9Nw\",\"e\":\"AQAB\",\"kid\":\"k1\"".to_owned(),
        "\"crv\":\"P-256\",\"x\":\"x8Ah2aLmmNo9pWkGtXYVQeaA9Nw\"".to_owned(),
    ] {
        public("JWK", &text, "a JWK");
    }
    for text in [
        "keycloak/realms/acme/protocol/openid-connect/certs",
        "issuer: login.acme.example/realms/acme/with/a/path",
        "https:/login.acme.example/a/path/of/some/length",
    ] {
        public("URL", text, "a URL");
    }
}

/// Other alphabets, in which a text may look like an address. Of random bytes that have the length of a
/// compressed point, one in 256 are one.
#[test]
fn random_letters_are_no_address() {
    let mut random = Random(5);
    let mut points = 0;
    let alphabets = [
        "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        "-._~:/?#[]@!$&'()*+,;=%0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    ];
    let mut refused = 0;
    for alphabet in alphabets {
        for _ in 0..10_000 {
            let letters = alphabet.as_bytes();
            let secret: String =
                (0..44).map(|_| char::from(letters[random.below(letters.len())])).collect();
            if let Err(refusal) = as_secret(&secret) {
                let is_point = refusal.detail().unwrap().contains("a point on an elliptic curve");
                *(if is_point { &mut points } else { &mut refused }) += 1;
            }
        }
    }
    assert_eq!(refused, 0);
    assert!(points < 60, "{points}");
}
