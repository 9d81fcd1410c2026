//! Signatures that are nearly valid.

use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mint::{Algorithm, Key};
use serde_json::json;
use session_jwt::{Provider, Verifier};

use crate::with_algorithm;
use crate::{
    BASES, Base, CLAIMS, NOW, SECRET, accepted, base, decode, encode, hex, parts, refused, said,
};

/// The token with another third part.
fn with_signature(token: &str, signature: &[u8]) -> String {
    let [header, payload, _] = parts(token);
    format!("{header}.{payload}.{}", encode(signature))
}

#[test]
fn a_signature_is_whole() {
    for base in BASES.iter() {
        let name = base.algorithm.name();
        let token = base.token();
        base.accepts(&name, &token);
        let signature = decode(parts(&token)[2]);
        base.accepts("put back", &with_signature(&token, &signature));
        let half = signature.len() / 2;
        let changed = |place: usize, bit: u8| {
            let mut signature = signature.clone();
            signature[place] ^= 1 << bit;
            signature
        };
        let last = signature.len() - 1;
        for (defect, bytes) in [
            ("empty", vec![]),
            ("one byte", vec![0]),
            ("half", signature[..half].to_vec()),
            ("the other half", signature[half..].to_vec()),
            ("the last byte off", signature[..last].to_vec()),
            ("the first byte off", signature[1..].to_vec()),
            ("a byte behind", [&signature[..], &[0]].concat()),
            ("a byte before", [&[0], &signature[..]].concat()),
            ("twice", [&signature[..], &signature[..]].concat()),
            ("all zeros", vec![0; signature.len()]),
            ("all ones", vec![0xff; signature.len()]),
            ("backwards", signature.iter().rev().copied().collect()),
            ("the halves exchanged", [&signature[half..], &signature[..half]].concat()),
            ("the first bit", changed(0, 7)),
            ("a bit in the middle", changed(half, 0)),
            ("the last bit", changed(last, 0)),
        ] {
            let token = with_signature(&token, &bytes);
            base.refuses(&format!("{name}, {defect}"), &token, "28J03", "does not verify");
        }
    }
}

#[test]
fn a_signature_covers_header_and_payload() {
    for base in BASES.iter() {
        let name = base.algorithm.name();
        let header = base.header();
        let other_header = header.replace("\"typ\":\"JWT\"", "\"typ\":\"jwt\"");
        let other_claims = CLAIMS.replace("alice", "root");
        let token = base.token();
        let [first, second, signature] = parts(&token);
        for (defect, token) in [
            ("another payload", format!("{first}.{}.{signature}", encode(&other_claims))),
            ("another header", format!("{}.{second}.{signature}", encode(&other_header))),
            ("of another token", {
                let other = base.claims(&other_claims);
                format!("{first}.{second}.{}", parts(&other)[2])
            }),
            ("over the payload alone", {
                with_signature(&token, &base.key.signature(second.as_bytes()).unwrap())
            }),
            ("over the decoded texts", {
                let text = format!("{header}.{CLAIMS}");
                with_signature(&token, &base.key.signature(text.as_bytes()).unwrap())
            }),
        ] {
            base.refuses(&format!("{name}, {defect}"), &token, "28J03", "does not verify");
        }
        for other in [base.with_header(&other_header), base.claims(&other_claims)] {
            base.accepts("signed like that", &other);
        }
    }
}

#[test]
fn another_key_of_the_same_type_does_not_do() {
    for base in BASES.iter() {
        let stranger = match base.algorithm {
            Algorithm::RS384 | Algorithm::RS512 | Algorithm::PS384 | Algorithm::PS512 => continue,
            algorithm => Key::generate(algorithm).with_kid("k1"),
        };
        let token = stranger.sign_raw(base.header().as_bytes(), CLAIMS.as_bytes());
        base.refuses(&base.algorithm.name(), &token, "28J03", "does not verify");
    }
}

#[test]
fn a_larger_rsa_key_verifies() {
    let pair = Key::generate_rsa(Algorithm::RS256, KeySize::Rsa4096);
    for algorithm in [Algorithm::RS256, Algorithm::RS512, Algorithm::PS512] {
        let base = Base::new(algorithm, with_algorithm(&pair, algorithm).with_kid("k1"));
        let token = base.token();
        base.accepts("as it should be", &token);
        let mut signature = decode(parts(&token)[2]);
        signature[100] ^= 1;
        let token = with_signature(&token, &signature);
        base.refuses("a bit changed", &token, "28J03", "does not verify");
    }
}

/// The bytes of a secret are neither decoded nor trimmed, in every form of configuration.
#[test]
fn a_secret_is_its_bytes() {
    let spaced = format!(" {SECRET}\n");
    for secret in [SECRET, &spaced, &encode(SECRET), "caf\u{e9} 0123456789abcdef0123456789abcdef"] {
        let jwk = json!({"kty": "oct", "k": encode(secret)});
        let as_bytes = json!({"jwks": jwk});
        // A line end at the end of a text is nearly always a mistake.
        let as_text = (secret != spaced).then(|| json!({"secret": secret}));
        for document in as_text.into_iter().chain([as_bytes]) {
            let providers = Provider::parse_all(&document.to_string()).unwrap();
            let verifier = Verifier::new(providers).unwrap();
            let token = |secret: &[u8]| {
                Key::from_secret(Algorithm::HS256, secret)
                    .sign_raw(br#"{"alg":"HS256"}"#, CLAIMS.as_bytes())
            };
            accepted("the secret", verifier.verify(&token(secret.as_bytes()), NOW));
            for other in [
                encode(secret).into_bytes(),
                secret.trim().into(),
                secret.to_uppercase().into_bytes(),
                [secret.as_bytes(), b"\n"].concat(),
                secret.as_bytes()[1..].into(),
                secret.chars().map(|character| character as u8).collect(),
                URL_SAFE_NO_PAD.decode(secret).unwrap_or_default(),
            ] {
                if other != secret.as_bytes() {
                    let token = token(&other);
                    refused(secret, &token, verifier.verify(&token, NOW), "28J03", "");
                }
            }
        }
    }
}

/// RFC 7518 section 3.4 requires r and s concatenated. Most other protocols use DER for the same
/// numbers.
#[test]
fn ecdsa_signatures_are_not_der() {
    let base = base(Algorithm::ES256);
    let token = base.token();
    let signature = decode(parts(&token)[2]);
    let integer = |bytes: &[u8]| {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let mut bytes = bytes[zeros..].to_vec();
        if bytes.first().is_none_or(|byte| *byte >= 0x80) {
            bytes.insert(0, 0);
        }
        [&[0x02, bytes.len() as u8], &bytes[..]].concat()
    };
    let (r, s) = signature.split_at(32);
    let body = [integer(r), integer(s)].concat();
    let der = [&[0x30, body.len() as u8], &body[..]].concat();

    let jwk = base.key.public_jwk();
    let coordinate = |name: &str| decode(jwk[name].as_str().unwrap());
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let [header, payload, _] = parts(&token);
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
        .verify(format!("{header}.{payload}").as_bytes(), &der)
        .unwrap();

    base.accepts("side by side", &token);
    base.refuses("DER", &with_signature(&token, &der), "28J03", "does not verify");
    base.refuses("DER", &with_signature(&token, &der), "28J03", "(RFC 7518 section 3.4)");
}

/// The group orders of P-256 and P-384 (SP 800-186 section 3.2.1), big-endian.
const P256_ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
const P384_ORDER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf\
                          581a0db248b0a77aecec196accc52973";

#[test]
fn ecdsa_numbers_are_within_the_group_order() {
    for (algorithm, order) in [(Algorithm::ES256, P256_ORDER), (Algorithm::ES384, P384_ORDER)] {
        let base = base(algorithm);
        let token = base.token();
        base.accepts("as it should be", &token);
        let signature = decode(parts(&token)[2]);
        let length = signature.len() / 2;
        let (r, s) = signature.split_at(length);
        let (zero, order) = (vec![0; length], hex(order));
        let mut one = zero.clone();
        one[length - 1] = 1;
        for (name, r, s) in [
            ("r = 0", &zero[..], s),
            ("s = 0", r, &zero[..]),
            ("r = s = 0", &zero[..], &zero[..]),
            ("r = n", &order[..], s),
            ("s = n", r, &order[..]),
            ("r = s = n", &order[..], &order[..]),
            ("r = n, s = 0", &order[..], &zero[..]),
            ("r = s = 1", &one[..], &one[..]),
            ("r = s", r, r),
        ] {
            let token = with_signature(&token, &[r, s].concat());
            base.refuses(name, &token, "28J03", "does not verify");
        }
    }
}

/// The order of Ed25519's base point (RFC 8032 section 5.1), little-endian.
const ED25519_ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

/// RFC 8032 section 5.1.7: S is below the group order. Otherwise a signature would have several
/// encodings.
#[test]
fn ed25519_s_is_canonical() {
    let base = base(Algorithm::EdDSA);
    let token = base.token();
    base.accepts("as it should be", &token);
    let signature = decode(parts(&token)[2]);
    let (r, s) = signature.split_at(32);
    let mut sum = s.to_vec();
    // S stays below 2^256 with several times the order added.
    for times in 1..=4 {
        sum = add(&sum, &hex(ED25519_ORDER));
        let token = with_signature(&token, &[r, &sum].concat());
        base.refuses(&format!("S + {times} L"), &token, "28J03", "does not verify");
    }
    let zero = [0; 32];
    for (name, bytes) in [("S = 0", [r, &zero].concat()), ("R = 0", [&zero, s].concat())] {
        base.refuses(name, &with_signature(&token, &bytes), "28J03", "does not verify");
    }
}

/// The sum of two little-endian numbers of 32 bytes.
fn add(one: &[u8], other: &[u8]) -> Vec<u8> {
    let mut carry = 0;
    let sum = one.iter().zip(other).map(|(one, other)| {
        let sum = u16::from(*one) + u16::from(*other) + carry;
        carry = sum >> 8;
        sum as u8
    });
    sum.collect()
}

/// A file or `echo` adds a line end, so the signer's secret is longer than the configured one.
#[test]
fn a_line_end_after_the_signers_secret_is_named() {
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let documents = [
            json!({"secret": SECRET, "algorithms": [algorithm.name()]}),
            json!({"jwks": {"kty": "oct", "alg": algorithm.name(), "k": encode(SECRET)}}),
        ];
        for document in documents {
            let document = document.to_string();
            let verifier = Verifier::new(Provider::parse_all(&document).unwrap()).unwrap();
            let signed = |secret: String| {
                let header = format!(r#"{{"alg":"{}"}}"#, algorithm.name());
                Key::from_secret(algorithm, secret.as_bytes())
                    .sign_raw(header.as_bytes(), CLAIMS.as_bytes())
            };
            let verify = |token: &str| verifier.verify(token, NOW);
            accepted("the secret", verify(&signed(SECRET.to_owned())));
            for (end, words) in
                [("\n", "followed by a line feed"), ("\r\n", "followed by CR and LF")]
            {
                let token = signed(format!("{SECRET}{end}"));
                let refusal = refused(words, &token, verify(&token), "28J03", words);
                assert!(refusal.hint().unwrap().contains("Remove the line end"), "{refusal:?}");
            }
            for other in [format!("{SECRET} "), format!("{SECRET}\n\n"), format!("\n{SECRET}")] {
                let token = signed(other);
                let refusal = refused("other", &token, verify(&token), "28J03", "");
                assert!(!said(&refusal).contains("line end"), "{refusal:?}");
            }
        }
    }
}
