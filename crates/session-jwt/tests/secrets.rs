//! Public keys, documents, URLs and tokens are rejected as secrets, in any encoding; random bytes are
//! accepted.

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

/// The text is rejected as a secret and as the bytes of a JWK, in a row and in a setting.
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
    // Another key in the provider does not make it acceptable.
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

/// A generator with the same numbers in each run (SplitMix64).
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
        assert!(refusal.hint().unwrap().contains("Remove the character"), "{refusal:?}");
        // If the character belongs to the secret, the secret can be given as a JWK.
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

/// The token is found with any text around it and with any line breaks.
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

/// Other alphabets, in which a text may resemble an address.
#[test]
fn random_letters_are_no_address() {
    let mut random = Random(5);
    let alphabets = [
        "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        "-._~:/?#[]@!$&'()*+,;=%0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    ];
    for alphabet in alphabets {
        for _ in 0..10_000 {
            let letters = alphabet.as_bytes();
            let secret: String =
                (0..44).map(|_| char::from(letters[random.below(letters.len())])).collect();
            assert!(as_secret(&secret).is_ok(), "{secret}");
        }
    }
}

fn bits(bytes: &[u8], digits: &str) -> String {
    let digits: Vec<char> = digits.chars().collect();
    let width = digits.len().ilog2() as usize;
    let all: Vec<u8> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |place| byte >> place & 1)).collect();
    all.chunks(width)
        .map(|chunk| {
            let value = chunk.iter().fold(0, |sum, bit| sum << 1 | usize::from(*bit));
            digits[value << (width - chunk.len())]
        })
        .collect()
}

fn groups(bytes: &[u8], digits: &str) -> String {
    let digits: Vec<char> = digits.chars().collect();
    let mut out = String::new();
    for chunk in bytes.chunks(4) {
        let mut four = [0; 4];
        four[..chunk.len()].copy_from_slice(chunk);
        let mut value = u32::from_be_bytes(four) as usize;
        let mut five = [' '; 5];
        for place in (0..5).rev() {
            five[place] = digits[value % 85];
            value /= 85;
        }
        out.extend(&five[..=chunk.len()]);
    }
    out
}

fn number(bytes: &[u8], digits: &str) -> String {
    let digits: Vec<char> = digits.chars().collect();
    let mut places = vec![0];
    for byte in bytes {
        let mut carry = usize::from(*byte);
        for place in &mut places {
            carry += *place * 256;
            *place = carry % digits.len();
            carry /= digits.len();
        }
        while carry != 0 {
            places.push(carry % digits.len());
            carry /= digits.len();
        }
    }
    places.iter().rev().map(|place| digits[*place]).collect()
}

fn joined(bytes: &[u8], separator: &str, write: fn(u8) -> String) -> String {
    bytes.iter().map(|byte| write(*byte)).collect::<Vec<_>>().join(separator)
}

const BASE32: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const BASE32_HEX: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUV";
const CROCKFORD: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const Z_BASE32: &str = "ybndrfg8ejkmcpqxot1uwisza345h769";
const ASCII85: &str =
    "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstu";
const Z85: &str =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
const RFC1924: &str =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";
const BASE58: &str = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// Every supported encoding of bytes.
fn encodings(bytes: &[u8]) -> Vec<(&'static str, String)> {
    let mut base32 = bits(bytes, BASE32);
    base32.push_str(&"=".repeat(base32.len().next_multiple_of(8) - base32.len()));
    let python: String = bytes
        .iter()
        .map(|byte| match byte {
            b'\\' => "\\\\".to_owned(),
            b' '..=b'~' => char::from(*byte).to_string(),
            _ => format!("\\x{byte:02x}"),
        })
        .collect();
    vec![
        ("base64", STANDARD.encode(bytes)),
        ("base64 in lines with a mark", format!("> {}", lines(&STANDARD.encode(bytes), "\n> "))),
        ("hex", hex(bytes)),
        ("hex with a prefix", format!("0x{}", hex(bytes))),
        ("hex of Postgres", format!("\\x{}", hex(bytes))),
        ("base32", bits(bytes, BASE32)),
        ("base32 with padding", base32.clone()),
        ("base32 in lower case", base32.to_lowercase()),
        ("base32 in lines", lines(&base32, "\n")),
        ("base32 in groups", lines(&bits(bytes, BASE32), "-")),
        ("base32hex", bits(bytes, BASE32_HEX)),
        ("base32 of Crockford", bits(bytes, CROCKFORD)),
        ("z-base-32", bits(bytes, Z_BASE32)),
        ("binary digits", bits(bytes, "01")),
        ("Ascii85", groups(bytes, ASCII85)),
        ("Ascii85 of Adobe", format!("<~{}~>", lines(&groups(bytes, ASCII85), "\n"))),
        ("Z85", groups(bytes, Z85)),
        ("base85 of Python", groups(bytes, RFC1924)),
        ("base58", number(bytes, BASE58)),
        ("one decimal number", number(bytes, "0123456789")),
        ("decimal numbers", joined(bytes, " ", |byte| byte.to_string())),
        ("decimal numbers with commas", joined(bytes, ", ", |byte| byte.to_string())),
        ("signed numbers", joined(bytes, ", ", |byte| (byte as i8).to_string())),
        ("an array of Go", format!("[]byte{{{}}}", joined(bytes, ", ", |b| b.to_string()))),
        ("an array of C", format!("k[] = {{{}}};", joined(bytes, ", ", |b| format!("0x{b:02X}")))),
        ("hex with colons", joined(bytes, ":", |byte| format!("{byte:02x}"))),
        ("hex with dashes", joined(bytes, "-", |byte| format!("{byte:02X}"))),
        ("hex with spaces", joined(bytes, " ", |byte| format!("{byte:02x}"))),
        ("hex escapes", joined(bytes, "", |byte| format!("\\x{byte:02x}"))),
        ("octal escapes", joined(bytes, "", |byte| format!("\\{byte:03o}"))),
        ("octal numbers", joined(bytes, " ", |byte| format!("{byte:03o}"))),
        ("bytes in binary", joined(bytes, " ", |byte| format!("{byte:08b}"))),
        ("bytes of Python", format!("b'{python}'")),
        ("percent", joined(bytes, "", |byte| format!("%{byte:02X}"))),
        ("quoted-printable", joined(bytes, "", |byte| format!("={byte:02X}"))),
        ("references of HTML", joined(bytes, "", |byte| format!("&#{byte};"))),
        ("a dump", {
            let line = |(place, chunk): (usize, &[u8])| {
                let digits = joined(chunk, " ", |byte| format!("{byte:02x}"));
                format!("{:08x}  {digits}  |................|", place * 16)
            };
            bytes.chunks(16).enumerate().map(line).collect::<Vec<_>>().join("\n")
        }),
    ]
}

#[test]
fn what_is_public_is_found_in_every_encoding() {
    let (info, pkcs1, ec_info) = spki();
    let pem =
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END", lines(&STANDARD.encode(&info), "\n"));
    let key = Key::generate(Algorithm::ES256);
    let jwk = key.public_jwk().to_string();
    let token = key.sign(&json!({"sub": "alice"}));
    let url = "https://login.example.com/realms/app/protocol";
    let texts: [(&str, &[u8]); 7] = [
        ("SPKI", &info),
        ("PKCS #1", &pkcs1),
        ("P-256", &ec_info),
        ("PEM", pem.as_bytes()),
        ("JWK", jwk.as_bytes()),
        ("token", token.as_bytes()),
        ("URL", url.as_bytes()),
    ];
    for (name, bytes) in texts {
        for (how, text) in encodings(bytes) {
            // A dump breaks words, so only beginnings are found in it.
            if how == "a dump" && !["SPKI", "PKCS #1", "P-256"].contains(&name) {
                continue;
            }
            // Longer numbers are not decoded.
            if ["one decimal number", "base58"].contains(&how) && text.len() > 1400 {
                continue;
            }
            public(&format!("{name}, {how}"), &text, "");
        }
    }
    let utf16 = |text: &str| text.encode_utf16().collect::<Vec<_>>();
    for text in [&pem[..], &jwk, &token, url] {
        let units = utf16(text);
        let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        let wide: Vec<u8> =
            text.chars().flat_map(|character| u32::from(character).to_le_bytes()).collect();
        for bytes in [
            little.clone(),
            big.clone(),
            [&[0xff, 0xfe], &little[..]].concat(),
            [&[0xfe, 0xff], &big[..]].concat(),
            wide,
            STANDARD.encode(&little).into_bytes(),
        ] {
            public_bytes(text, &bytes, "");
        }
    }
}

#[test]
fn what_is_public_is_found_however_often_it_is_encoded() {
    let (info, _, _) = spki();
    let url = "https://login.example.com/realms/app".to_owned();
    for start in [url, STANDARD.encode(&info)] {
        for count in [1, 5, 8, 12] {
            let mut text = start.clone();
            for _ in 0..count {
                text = STANDARD.encode(text);
            }
            public("base64", &text, "");
        }
        let mut text = start.clone();
        for step in ["hex", "base32", "base85", "percent", "json", "base64", "hex", "base32"] {
            text = match step {
                "hex" => hex(text.as_bytes()),
                "base32" => bits(text.as_bytes(), BASE32),
                "base85" => groups(text.as_bytes(), RFC1924),
                "percent" => text.replace('A', "%41").replace('%', "%25"),
                "json" => json!(text).to_string(),
                _ => STANDARD.encode(text),
            };
        }
        public("a mixture", &text, "");
    }
    // A text that exceeds the limits of the search is rejected.
    let mut text = "a secret of at least 32 bytes, I would say".to_owned();
    for _ in 0..40 {
        text = text.replace('%', "%25") + "%41";
    }
    public("too deep", &text, "cannot be told");
}

#[test]
fn what_is_public_is_found_where_it_is_compressed() {
    use flate2::Compression;
    use flate2::read::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use std::io::Read;
    let (info, _, _) = spki();
    let jwk = Key::generate(Algorithm::ES256).public_jwk().to_string();
    for bytes in [&info[..], jwk.as_bytes()] {
        let level = Compression::best();
        let read = |mut encoder: Box<dyn Read + '_>| {
            let mut out = Vec::new();
            encoder.read_to_end(&mut out).unwrap();
            out
        };
        for packed in [
            read(Box::new(GzEncoder::new(bytes, level))),
            read(Box::new(ZlibEncoder::new(bytes, level))),
            read(Box::new(DeflateEncoder::new(bytes, level))),
        ] {
            public_bytes("compressed", &packed, "");
            public("compressed, in base64", &STANDARD.encode(&packed), "");
        }
    }
    // Decompression of a small text to a huge one ends.
    let zeros = vec![0; 64 << 20];
    let mut bomb = Vec::new();
    GzEncoder::new(&zeros[..], Compression::best()).read_to_end(&mut bomb).unwrap();
    drop(as_oct(&bomb));
}

#[test]
fn names_and_fingerprints_are_no_secrets() {
    let thumb = "3f".repeat(32);
    let (modulus, number) = ("w9P_uASNFZ4mrze8BI0VniQ".repeat(12), "2519590847".repeat(50));
    for (text, what) in [
        ("login.customers.example.com", "URL"),
        ("identity.acme-corporation.cloud", "URL"),
        ("auth.internal.acme-corp.tech:8443", "URL"),
        ("auth.example.software/realms/acme", "URL"),
        ("tenant-12345.identity.acme.co.nz", "URL"),
        ("accounts.very-long-company-name.xyz", "URL"),
        ("alice.with.a.long.name@mail.example.com", "a name"),
        ("Alice Example <alice.example@example.com>", "a name"),
        ("terraform@my-project-12345.iam.gserviceaccount.com", "a name"),
        ("arn:aws:iam::123456789012:oidc-provider/acme", "a name"),
        ("arn:aws-us-gov:kms:us-gov-west-1:1:key/abc-def", "a name"),
        ("projects/acme-prod/locations/global/keyRings/r/cryptoKeys/k", "a name"),
        ("projects/1234567890/serviceAccounts/robot-account", "a name"),
        ("/subscriptions/0b1f6471-1bf0-4dda-aec3-cb9272f09590/resourceGroups/g", "a name"),
        ("CN=login.example.com,O=Acme Corporation,C=US", "a name"),
        ("/C=US/O=Acme Corporation/CN=login.example.com", "a name"),
        ("SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8", "fingerprint"),
        ("2048 SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8 me@host (RSA)", "fingerprint"),
        ("MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48", "fingerprint"),
        ("x5t#S256: NzbLsXh8uDCcdGHdyqkXlNzbLsXh8uDCcd-6MNwXF4W", "fingerprint"),
        ("[Peer] PublicKey = HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=", "named public"),
        ("public key: HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=", "named public"),
        ("ed25519:HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=", "named public"),
        ("16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48", "fingerprint"),
        ("B5:35:CC:4A:A8:E8:08:97:DD:75:66:D1:4A:29:05:4B:A9:DE:64:9C", "fingerprint"),
        (
            "sha1 Fingerprint=B5:35:CC:4A:A8:E8:08:97:DD:75:66:D1:4A:29:05:4B:A9:DE:64:9C",
            "fingerprint",
        ),
        (&format!("sha256:{thumb}"), "fingerprint"),
        ("sha384-oqVuAfXRKap7fdgcCY5uykM6+R9GqQ8K/uxy9rx7HNQlGYl1kPzQho1wx4JwY8wC", "fingerprint"),
        ("age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", "a public key"),
        ("RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3", "a public key"),
        ("untrusted comment: minisign public key 8A1B2C3D\nRWQf6LRC", "a public key"),
        ("keycloak:8080/a/path/of/some/length/to/keys", "URL"),
        ("Modulus=C0FFEE0123456789ABCDEF0123456789ABCDEF", "openssl"),
        (
            "Public-Key: (2048 bit)\nModulus:\n    00:c0:ff:ee:01:23:45:67:89:ab:cd:ef:\nExponent: 65537 (0x10001)",
            "openssl",
        ),
        ("<RSAKeyValue><Modulus>wP/uASNFZ4mrze8BI0VniQ==</Modulus><Exponent>AQAB", "openssl"),
        (r#"{"type":"Buffer","data":[48,130,1,34,48,13,6,9,42]}"#, "J"),
        (&format!("{{n: '{modulus}', e: 'AQAB'}}"), "openssl"),
        (&format!("n={modulus}&e=AQAB"), "openssl"),
        (&format!("{{:n=>\"{modulus}\", :e=>\"AQAB\"}}"), "openssl"),
        (&format!("{modulus}.AQAB"), "openssl"),
        (&format!("{modulus}\nAQAB"), "openssl"),
        (&format!("RSAPublicNumbers(e=65537, n={number})"), "openssl"),
        (&format!("PublicKey({number}, 65537)"), "openssl"),
        (&format!("&{{{number} 65537}}"), "openssl"),
        ("AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTY", "SSH"),
    ] {
        public(text, text, what);
        public(text, &STANDARD.encode(text), what);
    }
    let cose = [&[0xa5, 1, 2, 3, 0x26, 0x20, 1, 0x21, 0x58, 0x20], &[7; 32][..]].concat();
    public_bytes("COSE", &cose, "a public key");
    let openpgp = [&[0x99, 1, 0x0d, 4, 0x5f, 0, 0, 0, 1, 8, 0], &[7; 64][..]].concat();
    public_bytes("OpenPGP", &openpgp, "a public key");
    public("OpenPGP in base64", &STANDARD.encode(&openpgp), "a public key");
    // The message names a private key as such.
    let pkcs8 =
        [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 34, 4, 32], &[9; 32][..]]
            .concat();
    public_bytes("PKCS #8", &pkcs8, "a private key");
    public("PKCS #8 in base64", &STANDARD.encode(&pkcs8), "a private key");
}

#[test]
fn what_stands_for_a_secret_is_none() {
    for text in [
        "${SUPABASE_JWT_SECRET_FOR_PRODUCTION}",
        "\"${SUPABASE_JWT_SECRET_FOR_PRODUCTION:-}\"",
        "{{ .Values.auth.jwt.secretForProduction }}",
        "{{resolve:secretsmanager:jwt:SecretString:key}}",
        "$(cat /run/secrets/jwt_hs256_signing_key)",
        "$(openssl rand -base64 48 | tr -d '\\n')",
        "$SUPABASE_JWT_SECRET_FOR_PRODUCTION",
        "%SUPABASE_JWT_SECRET_FOR_PRODUCTION%",
        "process.env.SUPABASE_JWT_SECRET_PRODUCTION",
        "os.environ['SUPABASE_JWT_SECRET_PRODUCTION']",
        "YOUR_SUPER_SECRET_JWT_SIGNING_KEY_HERE",
        "<your-hs256-secret-at-least-32-bytes-long>",
        "/run/secrets/jwt_hs256_signing_key",
        "/etc/postgresql/16/main/jwt.secret.key",
        "~/projects/app/config/jwt_secret.txt",
        "./config/secrets/production/jwt_secret.key",
        "@/run/secrets/jwt_hs256_signing_key",
        "C:\\Users\\me\\secrets\\jwt_signing_key.txt",
        "********************************",
        "s3cr\u{2022}\u{2022}\u{2022}\u{2022}\u{2022}\u{2022}\u{2022}\u{2022}\u{2022}\u{2022}\u{2022}\u{2022}",
    ] {
        public(text, text, "a placeholder");
    }
}

#[test]
fn a_secret_is_not_made_of_its_own_document() {
    let keys = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA].map(Key::generate);
    let mut jwks: Vec<Value> = keys.iter().map(Key::bare_public_jwk).collect();
    let kid = "the-key-that-signs-in-production-since-2024";
    jwks[0]["kid"] = kid.into();
    jwks[0]["x5t#S256"] = "NzbLsXh8uDCcdGHdyqkXlNzbLsXh8uDCcd-6MNwXF4W".into();
    jwks[1]["kid"] = "second".into();
    jwks[2]["kid"] = "third".into();
    let document = |secret: &str| {
        json!({
            "name": "the production identity provider of Acme",
            "issuer": "acme-identity-production-environment",
            "audience": ["short", "the-application-of-acme-in-production"],
            "jwks": {"keys": jwks},
            "secret": secret,
        })
    };
    let member = |place: usize, name: &str| jwks[place][name].as_str().unwrap().to_owned();
    let thumbprint = {
        let text = format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, member(0, "e"), member(0, "n"));
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref().to_vec()
    };
    let n = URL_SAFE_NO_PAD.decode(member(0, "n")).unwrap();
    for (secret, what) in [
        (member(0, "n"), "public keys"),
        (member(1, "x"), "public keys"),
        (member(1, "y"), "public keys"),
        (member(2, "x"), "public keys"),
        (format!("key-{}-key", member(2, "x")), "public keys"),
        (STANDARD.encode(&n), "public keys"),
        (hex(&n), "public keys"),
        (hex(&n).to_uppercase(), "public keys"),
        (number(&n, "0123456789"), "public keys"),
        (joined(&n, ":", |byte| format!("{byte:02x}")), "public keys"),
        (bits(&n, BASE32), "public keys"),
        (STANDARD.encode(member(0, "n")), "public keys"),
        (URL_SAFE_NO_PAD.encode(&thumbprint), "public keys"),
        (hex(&thumbprint), "public keys"),
        (member(0, "x5t#S256"), "public keys"),
        (kid.to_owned(), "public keys"),
        ("the production identity provider of Acme".to_owned(), "name"),
        ("The Production Identity Provider of ACME!".to_owned(), "name"),
        ("acme-identity-production-environment".to_owned(), "issuer"),
        (STANDARD.encode("acme-identity-production-environment"), "issuer"),
        ("the-application-of-acme-in-production".to_owned(), "audience"),
        ("secret-the-application-of-acme-in-production".to_owned(), "audience"),
    ] {
        let refusal = Provider::parse_all(&document(&secret).to_string()).expect_err(&secret);
        assert_eq!(refusal.message(), "secret cannot be used", "{secret}");
        assert!(refusal.detail().unwrap().contains(what), "{secret}: {refusal:?}");
        assert!(refusal.hint().is_some(), "{secret}");
        assert!(Provider::from_row(&document(&secret).to_string()).is_err(), "{secret}");
    }
    let mut random = Random(9);
    for _ in 0..50 {
        let secret = STANDARD.encode(random.bytes(32));
        for secret in [secret.clone(), format!("acme-identity-production-environment:{secret}")] {
            Provider::parse_all(&document(&secret).to_string()).expect(&secret);
        }
    }
    // The same as the bytes of a JWK.
    let oct = |text: &str| {
        json!({"issuer": "acme-identity-production-environment",
        "jwks": {"kty": "oct", "k": URL_SAFE_NO_PAD.encode(text)}})
    };
    assert!(Provider::parse_all(&oct("acme-identity-production-environment").to_string()).is_err());
    assert!(
        Provider::parse_all(&oct("a secret of at least 32 bytes, I would say").to_string()).is_ok()
    );
    // Keys that are fetched later do not make the row unreadable. The secret is ignored.
    let row = |secret: &str| {
        json!({
            "name": "p", "jwks_url": "https://keys.example/jwks", "secret": secret,
            "fetched_jwks": {"keys": [jwks[2]]}, "fetched_from": "https://keys.example/jwks",
        })
        .to_string()
    };
    let x = member(2, "x");
    let forged = Key::from_secret(Algorithm::HS256, x.as_bytes());
    let forged = forged.sign(&json!({"sub": "alice", "exp": NOW + 1}));
    let provider = Provider::from_row(&row(&x)).unwrap();
    assert!(provider.keys().unusable()[0].reason.contains("public"));
    let verifier = Verifier::default().with(provider).unwrap();
    assert!(verifier.verify(&forged, NOW).is_err());
    let genuine = keys[2].sign(&json!({"sub": "alice", "exp": NOW + 1}));
    assert!(verifier.verify(&genuine, NOW).is_ok());
    assert!(
        Provider::from_row(&row("a secret of at least 32 bytes, I would say"))
            .unwrap()
            .keys()
            .unusable()
            .is_empty()
    );
}

/// Secrets that programs and people generate.
#[test]
fn secrets_of_every_shape_are_accepted() {
    let mut random = Random(11);
    let pick = |random: &mut Random, alphabet: &str, length: usize| -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        (0..length).map(|_| letters[random.below(letters.len())]).collect()
    };
    const ALPHANUMERIC: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const DJANGO: &str = "abcdefghijklmnopqrstuvwxyz0123456789!@#$%^&*(-_=+)";
    const PASSWORD: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!@#$%^&*()-_=+[]{};:,.<>/?~|";
    for _ in 0..500 {
        let length = [32, 48, 64][random.below(3)];
        let bytes = random.bytes(length);
        let uuid = |random: &mut Random| {
            let digits = hex(&random.bytes(16));
            format!(
                "{}-{}-{}-{}-{}",
                &digits[..8],
                &digits[8..12],
                &digits[12..16],
                &digits[16..20],
                &digits[20..]
            )
        };
        for secret in [
            bits(&bytes, BASE32),
            bits(&bytes, BASE32).to_lowercase(),
            lines(&bits(&bytes, BASE32), "-"),
            bits(&bytes, CROCKFORD),
            groups(&bytes, Z85),
            groups(&bytes, RFC1924),
            groups(&bytes, ASCII85),
            number(&bytes, "0123456789"),
            number(&bytes, BASE58),
            pick(&mut random, "0123456789", 40),
            pick(&mut random, ALPHANUMERIC, 64),
            pick(&mut random, ALPHANUMERIC, 40),
            pick(&mut random, DJANGO, 50),
            pick(&mut random, PASSWORD, 32),
            pick(&mut random, PASSWORD, 64),
            joined(&bytes, ":", |byte| format!("{byte:02x}")),
            joined(&bytes, " ", |byte| format!("{byte:02X}")),
            joined(&bytes, ",", |byte| byte.to_string()),
            format!("base64:{}", STANDARD.encode(&bytes)),
            format!("base64://{}", STANDARD.encode(&bytes)),
            format!("/{}/{}", pick(&mut random, ALPHANUMERIC, 20), STANDARD.encode(&bytes)),
            format!("django-insecure-{}", pick(&mut random, DJANGO, 50)),
            format!("whsec_{}", STANDARD.encode(&bytes)),
            hex(&random.bytes(64)),
            uuid(&mut random),
            STANDARD.encode(random.bytes(33)),
            uuid(&mut random) + &uuid(&mut random),
            format!("{}:{}", uuid(&mut random), uuid(&mut random)),
            STANDARD.encode(hex(&bytes)),
            hex(STANDARD.encode(&bytes).as_bytes()),
        ] {
            let outcome = as_secret(&secret);
            assert!(outcome.is_ok(), "{secret:?} {outcome:?}");
        }
        let length = [32, 40, 48, 64, 128, 256, 512][random.below(7)];
        let bytes = random.bytes(length);
        assert!(as_oct(&bytes).is_ok(), "{bytes:?}");
    }
    for secret in [
        "correct.horse.battery.staple.and.a.long.word.is.it",
        "Tr0ub4dor&3 is not a good password, but this is long",
        "my-modulus-operandi-is-a-long-passphrase",
        "the sha256 of nothing is not a secret but this is",
        "never gonna give you up, never gonna let you down",
        "sha256-modulus-data-battery-hash-com-token-certificate",
        "rsa-md5-staple-horse-sha256-exponent-net-begin-public",
        "qjjl-jt1n-fjn2-omd5-f8hi-ujpx-zrz8-nj0y-h5aa-05g9-2xk6-q6pk",
        "md5-data-folder-signature-public-signature-begin-hash",
        "price: $5_000 for 32 bytes or more of a secret",
        "the <tag> and the {{template}} are a part of it",
        "mountains/and/rivers/are/far/away/from/here",
        "l=f3a$l*!iktx9isfxs8s^vs$n)1o$0z+s=9nx-3tze&++kf-p",
        // Bytes that are a stream of deflate, or the beginning of a packet of OpenPGP, by chance.
        "6D4808C9-B720-4B9F-962B-15D245294B3E",
        "gu62ywqzpvc6e46j7wbttefzanzrsqktqbjuis2ighcifoybdgk2ijnbgs6vo4yl",
        "vTuO8kxjKdmfxS0fGxJqleu69oU3Q2BuxYrjXqfHsYNisHRQld8UTWLiG8fQNo88",
        "gqkPTSoUudXoqUCgVuRYeZKAjwi33gyaSANh7e6TJGbmhsvHnVmBM3gbbfH67C9K",
        "xmIEZSwuThoICYCDD2ZUVRlfx7R3gZCM",
        "projects and folders are words of a passphrase",
        "base64:2/vyTVM9Nu4ZPQ/NwEEdIUKE1OzZO46STzMaVUYCIgtqPYoxRhhg7C+NBVYOk9Dv",
        "mail me at work; the password is long enough",
    ] {
        assert!(as_secret(secret).is_ok(), "{secret}");
    }
}
