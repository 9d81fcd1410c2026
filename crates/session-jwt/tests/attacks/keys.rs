//! The contents of keys and key sets.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::CompressedEdwardsY;
use mint::{Algorithm, Key};
use serde_json::{Value, json};
use session_jwt::{KeySet, Provider, Verifier, verify_jws};

use crate::{
    BASES, CLAIMS, NOW, SECRET, accepted, base, decode, encode, hex, keeps_secret, refused,
};

/// The entry alone is rejected for this reason. In a set with a usable key, only the entry is skipped.
#[track_caller]
fn unusable(name: &str, entry: &Value, reason: &str) {
    let alone = entry.to_string();
    let as_key = json!({"keys": [entry]}).to_string();
    let words = "key set has no usable key";
    if entry.is_object() && entry.get("keys").is_none() && entry.get("kty").is_some() {
        refused(name, &alone, KeySet::parse(&alone), "22023", words);
    }
    refused(name, &as_key, KeySet::parse(&as_key), "22023", reason);

    let symmetric = entry.get("kty").is_some_and(|kty| kty == "oct");
    let good = if symmetric { base(Algorithm::HS256) } else { base(Algorithm::EdDSA) };
    for (set, index) in [
        (json!({"keys": [good.key.public_jwk(), entry]}), 1),
        (json!({"keys": [entry, good.key.public_jwk()]}), 0),
    ] {
        let keys = accepted(name, KeySet::parse(&set.to_string()));
        let [passed_over] = keys.unusable() else { panic!("{name}: {:?}", keys.unusable()) };
        assert_eq!(passed_over.index, index, "{name}");
        assert_eq!(passed_over.kid.as_deref(), entry.get("kid").and_then(Value::as_str), "{name}");
        assert!(passed_over.reason.contains(reason), "{name}: {}", passed_over.reason);
        keeps_secret(name, &as_key, &passed_over.reason);
        assert_eq!(keys.kids().collect::<Vec<_>>(), ["k1"], "{name}");
        accepted(name, verify_jws(&good.token(), &keys));
    }
}

#[track_caller]
fn usable(name: &str, entry: &Value) -> KeySet {
    let keys = accepted(name, KeySet::parse(&entry.to_string()));
    assert_eq!(keys.unusable(), [], "{name}");
    keys
}

/// A JWK with some members replaced. Null removes a member.
fn with(jwk: &Value, members: Value) -> Value {
    let mut jwk = jwk.clone();
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => drop(jwk.as_object_mut().unwrap().remove(name)),
            value => jwk[name] = value.clone(),
        }
    }
    jwk
}

fn bare(algorithm: Algorithm) -> Value {
    base(algorithm).key.bare_public_jwk()
}

/// An odd number of that many bits.
fn modulus(bits: usize) -> String {
    let mut bytes = vec![0xa5; bits.div_ceil(8)];
    bytes[0] = (0xffu16 >> (bytes.len() * 8 - bits)) as u8;
    encode(bytes)
}

#[test]
fn rsa_keys_are_sound() {
    let rsa = bare(Algorithm::RS256);
    usable("as it should be", &rsa);
    for bits in [2048, 2049, 2056, 3072, 4096, 8191, 8192] {
        usable(&format!("{bits} bits"), &with(&rsa, json!({"n": modulus(bits)})));
    }
    for bits in [8, 512, 1024, 1536, 2040, 2047, 8193, 8200, 16384] {
        let words = format!("Its modulus has {bits} bits");
        unusable(&words, &with(&rsa, json!({"n": modulus(bits)})), &words);
    }
    let n = decode(rsa["n"].as_str().unwrap());
    let mut even = n.clone();
    *even.last_mut().unwrap() &= 0xfe;
    unusable("even n", &with(&rsa, json!({"n": encode(even)})), "Its modulus is even");
    let zero = "Its n or e is empty or zero";
    // Leading zeros do not change the number.
    for zeros in [1, 2, 256] {
        let padded = [&vec![0; zeros][..], &n].concat();
        usable("n with leading zeros", &with(&rsa, json!({"n": encode(padded)})));
    }
    unusable("n of zeros", &with(&rsa, json!({"n": encode([0; 256])})), zero);
    unusable("empty n", &with(&rsa, json!({"n": ""})), zero);
    unusable(
        "short n in 256 bytes",
        &with(
            &rsa,
            json!({"n": encode({
                let mut bytes = [0; 256];
                bytes[128..].copy_from_slice(&[0xa5; 128]);
                bytes
            })}),
        ),
        "Its modulus has 1024 bits",
    );

    for (name, e) in [
        ("3", &[3][..]),
        ("17", &[17]),
        ("65537", &[1, 0, 1]),
        ("2^32 + 1", &[1, 0, 0, 0, 1]),
        ("2^33 - 1", &[1, 0xff, 0xff, 0xff, 0xff]),
        ("65537 with a leading zero", &[0, 1, 0, 1]),
        ("65537 in eight bytes", &[0, 0, 0, 0, 0, 1, 0, 1]),
    ] {
        usable(&format!("e = {name}"), &with(&rsa, json!({"e": encode(e)})));
    }
    let exponent = "Its exponent is not an odd number";
    for (name, e, reason) in [
        ("1", &[1][..], exponent),
        ("2", &[2], exponent),
        ("65536", &[1, 0, 0], exponent),
        ("2^33 + 1", &[2, 0, 0, 0, 1], exponent),
        ("2^40 + 1", &[1, 0, 0, 0, 0, 1], exponent),
        ("2^64 + 3", &[1, 0, 0, 0, 0, 0, 0, 0, 3], exponent),
        ("as long as n", &[0xa5; 256], exponent),
        ("nothing", &[], zero),
        ("0", &[0], zero),
        ("2 with a leading zero", &[0, 2], exponent),
    ] {
        unusable(&format!("e = {name}"), &with(&rsa, json!({"e": encode(e)})), reason);
    }
    unusable("n equal to e", &with(&rsa, json!({"e": rsa["n"]})), exponent);
}

#[test]
fn hmac_keys_are_as_long_as_the_hash() {
    let secret = SECRET.as_bytes();
    let oct = |length: usize, alg: Option<&str>| {
        with(&json!({"kty": "oct", "k": encode(&secret[..length])}), json!({"alg": alg}))
    };
    for (alg, least) in [(None, 32), (Some("HS256"), 32), (Some("HS384"), 48), (Some("HS512"), 64)]
    {
        let name = format!("{alg:?}");
        usable(&name, &oct(least, alg));
        usable(&name, &oct(least + 1, alg));
        for length in [0, 1, least - 1] {
            let reason = format!("It has {length} bytes");
            unusable(&name, &oct(length, alg), &reason);
        }
    }
    unusable("32 bytes for HS512", &oct(32, Some("HS512")), "HS512 needs at least 64");
    unusable("32 bytes for HS384", &oct(32, Some("HS384")), "HS384 needs at least 48");
    // A list of algorithms does not make the secret longer.
    let keys = usable("32 bytes", &oct(32, None));
    let listed = [session_jwt::Algorithm::HS512].into_iter().collect();
    refused("listed", "", keys.with_algorithms(listed), "22023", "no key fits");
    let keys = usable("48 bytes", &oct(48, None));
    let listed = [session_jwt::Algorithm::HS384, session_jwt::Algorithm::HS512];
    let keys = keys.with_algorithms(listed.into_iter().collect()).unwrap();
    assert_eq!(keys.algorithms(), [session_jwt::Algorithm::HS384].into_iter().collect());
}

#[test]
fn ec_keys_are_points_on_their_curve() {
    let (p256, p384) = (bare(Algorithm::ES256), bare(Algorithm::ES384));
    usable("P-256", &p256);
    usable("P-384", &p384);
    for (jwk, other, length) in [(&p256, "P-384", 32), (&p384, "P-256", 48)] {
        let (x, y) = (decode(jwk["x"].as_str().unwrap()), decode(jwk["y"].as_str().unwrap()));
        let point =
            |x: &[u8], y: &[u8]| with(jwk, json!({"kid": "k1", "x": encode(x), "y": encode(y)}));
        let mut off = y.clone();
        off[length - 1] ^= 1;
        let zeros = vec![0; length];
        for (name, x, y) in [
            ("off the curve", &x, &off),
            ("coordinates exchanged", &y, &x),
            ("x twice", &x, &x),
            ("zeros", &zeros, &zeros),
            ("x zero", &zeros, &y),
            ("beyond the field", &vec![0xff; length], &y),
        ] {
            unusable(name, &point(x, y), "Its coordinates are no point on");
        }
        let padded = |bytes: &[u8]| [&[0], bytes].concat();
        for (name, x, y) in [
            ("a byte too many", [&x[..], &[1]].concat(), y.clone()),
            ("a byte moved over", x[..length - 1].to_vec(), [&x[length - 1..], &y[..]].concat()),
            ("no x", vec![], y.clone()),
            ("no y", x.clone(), vec![]),
            ("a whole point for x", [&[4], &x[..], &y[..]].concat(), y.clone()),
            ("the point at infinity", vec![0], vec![]),
        ] {
            unusable(name, &point(&x, &y), "Its coordinates have");
        }
        // Another number, with fewer bytes.
        for (x, y) in [(x[..length - 1].to_vec(), y.clone()), (x.clone(), y[..length - 1].to_vec())]
        {
            unusable("cut off", &point(&x, &y), "Its coordinates are no point on");
        }
        // Leading zeros do not change the number; neither do missing ones.
        let token = base(jwk_algorithm(length)).token();
        for (x, y) in [(padded(&x), y.clone()), (x.clone(), padded(&y)), (padded(&x), padded(&y))] {
            accepted("longer", verify_jws(&token, &usable("longer", &point(&x, &y))));
        }
        // The coordinates have the length of the named curve.
        let (words, name) =
            if length == 48 { ("have", "longer") } else { ("are no point", "shorter") };
        unusable(name, &with(jwk, json!({"crv": other})), &format!("Its coordinates {words}"));
        let resized = |bytes: &[u8]| {
            let mut bytes = [&[0; 16], bytes].concat();
            encode(bytes.split_off(bytes.len() - (80 - length)))
        };
        let relabelled = json!({"crv": other, "x": resized(&x), "y": resized(&y)});
        unusable(
            "another curve's length",
            &with(jwk, relabelled),
            "Its coordinates are no point on",
        );
        for crv in ["P-521", "P-224", "secp256k1", "p-256", "prime256v1", "Ed25519", ""] {
            unusable(crv, &with(jwk, json!({"crv": crv})), "is not supported");
        }
        unusable("no crv", &with(jwk, json!({"crv": null})), "It has no crv");
        unusable("no y at all", &with(jwk, json!({"y": null})), "It has no y");
    }
}

fn jwk_algorithm(length: usize) -> Algorithm {
    if length == 32 { Algorithm::ES256 } else { Algorithm::ES384 }
}

/// A coordinate of 31 bytes, as libraries write it that strip leading zeros.
#[test]
fn a_short_coordinate_is_the_same_number() {
    for algorithm in [Algorithm::ES256, Algorithm::ES384] {
        let (key, member, number) = (0..)
            .find_map(|_| {
                let key = Key::generate(algorithm);
                let jwk = key.bare_public_jwk();
                ["x", "y"]
                    .into_iter()
                    .find_map(|member| {
                        let number = decode(jwk[member].as_str().unwrap());
                        (number[0] == 0).then(|| (key.bare_public_jwk(), member, number))
                    })
                    .map(|(_, member, number)| (key, member, number))
            })
            .unwrap();
        let jwk = key.bare_public_jwk();
        let short = with(&jwk, json!({member: encode(&number[1..])}));
        let token = key.sign(&json!({"sub": "alice"}));
        accepted("short", verify_jws(&token, &usable("short", &short)));
        // A fetched key is stored in a canonical form.
        let stored = |jwk: &Value| KeySet::fetched(&jwk.to_string(), None).unwrap().jwks;
        assert_eq!(stored(&short), stored(&jwk));
        assert!(stored(&short).contains(jwk[member].as_str().unwrap()));
    }
    let rsa = bare(Algorithm::RS256);
    let n = [&[0, 0], &decode(rsa["n"].as_str().unwrap())[..]].concat();
    let long = with(&rsa, json!({"n": encode(n), "e": "AAEAAQ"}));
    let stored = |jwk: &Value| KeySet::fetched(&jwk.to_string(), None).unwrap().jwks;
    assert_eq!(stored(&long), stored(&rsa));
    accepted(
        "long",
        verify_jws(
            &base(Algorithm::RS256).token(),
            &usable("long", &with(&long, json!({"kid": "k1"}))),
        ),
    );
}

/// Every encoding of the eight points whose order divides eight, the canonical ones first: order 1, 2,
/// 4, 4, and four of order 8; then those that a lenient decoder reads as the same points.
const SMALL_ORDER: [&str; 14] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

#[test]
fn ed25519_keys_are_not_of_small_order() {
    let torsion: Vec<_> = EIGHT_TORSION.iter().map(|point| point.compress().to_bytes()).collect();
    for encoding in &SMALL_ORDER[..8] {
        assert!(torsion.iter().any(|point| point[..] == hex(encoding)), "{encoding}");
    }
    for (place, encoding) in SMALL_ORDER.iter().enumerate() {
        let point = CompressedEdwardsY::from_slice(&hex(encoding)).unwrap().decompress().unwrap();
        assert!(point.is_small_order(), "{encoding}");
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": encode(hex(encoding))});
        let canonical = place < 8;
        let reason = if canonical { "a point of small order" } else { "no point on Ed25519" };
        unusable(encoding, &jwk, reason);
    }
}

/// With the neutral element as key, R = S·B is a signature of every message. The cryptographic library
/// accepts it, so such a key must be rejected.
#[test]
fn the_universal_forgery_has_no_key_to_work_with() {
    let (neutral, zero) = (hex(SMALL_ORDER[0]), [0; 32]);
    let signature = encode([&neutral[..], &zero].concat());
    let key = jsonwebtoken::DecodingKey::from_ed_der(&neutral);
    let header = encode(r#"{"alg":"EdDSA"}"#);
    for claims in [CLAIMS, r#"{"sub":"root","exp":1700000300}"#] {
        let input = format!("{header}.{}", encode(claims));
        let algorithm = jsonwebtoken::Algorithm::EdDSA;
        let verifies =
            jsonwebtoken::crypto::verify(&signature, input.as_bytes(), &key, algorithm).unwrap();
        assert!(verifies, "the forgery is none");

        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": encode(&neutral)}).to_string();
        let words = "key set has no usable key";
        refused("alone", &jwk, KeySet::parse(&jwk), "22023", words);
        let set = format!(r#"{{"keys":[{jwk},{}]}}"#, bare(Algorithm::EdDSA));
        let keys = accepted("in a set", KeySet::parse(&set));
        let token = format!("{input}.{signature}");
        refused("in a set", &token, verify_jws(&token, &keys), "28J03", "");
    }
}

#[test]
fn ed25519_keys_are_points() {
    let jwk = bare(Algorithm::EdDSA);
    usable("as it should be", &jwk);
    let x = decode(jwk["x"].as_str().unwrap());
    for (name, bytes) in [
        ("nothing", vec![]),
        ("31 bytes", x[..31].to_vec()),
        ("33 bytes", [&x[..], &[0]].concat()),
        ("33 bytes, the first zero", [&[0], &x[..]].concat()),
        ("64 bytes", [&x[..], &x[..]].concat()),
    ] {
        unusable(name, &with(&jwk, json!({"x": encode(bytes)})), "Ed25519 needs 32");
    }
    let off_curve = (2..=255)
        .map(|y| {
            let mut bytes = [0; 32];
            bytes[0] = y;
            bytes
        })
        .find(|bytes| CompressedEdwardsY(*bytes).decompress().is_none())
        .unwrap();
    let off_curve = with(&jwk, json!({"x": encode(off_curve)}));
    unusable("off the curve", &off_curve, "Its x is no point on Ed25519");
    for crv in ["X25519", "X448", "Ed448", "ed25519", "P-256", ""] {
        unusable(crv, &with(&jwk, json!({"crv": crv})), "is not supported");
    }
    unusable("no crv", &with(&jwk, json!({"crv": null})), "It has no crv");
    unusable("no x", &with(&jwk, json!({"x": null})), "It has no x");
}

/// RFC 7517 sections 4.1 to 4.5, for every type of key.
#[test]
fn a_key_says_what_it_is_for() {
    for algorithm in [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let jwk = bare(algorithm);
        for members in [
            json!({"use": "sig"}),
            json!({"key_ops": ["verify"]}),
            json!({"key_ops": ["sign", "verify"]}),
            json!({"use": "sig", "key_ops": ["verify"]}),
            json!({"alg": algorithm.name()}),
            json!({"kid": "any text"}),
            json!({"kid": ""}),
            json!({"x5c": ["MIIB"], "x5t": "dGhl", "ext": true, "unheard of": [1]}),
        ] {
            usable(&members.to_string(), &with(&jwk, members));
        }
        for (member, value, reason) in [
            ("use", json!("enc"), "Its use is \"enc\""),
            ("use", json!("SIG"), "Its use is \"SIG\""),
            ("use", json!("sign"), "Its use is"),
            ("use", json!(["sig"]), "Its use is an array"),
            ("use", json!(1), "Its use is a number"),
            ("key_ops", json!(["sign"]), "does not contain \"verify\""),
            ("key_ops", json!(["encrypt", "wrapKey"]), "does not contain \"verify\""),
            ("key_ops", json!(["Verify"]), "does not contain \"verify\""),
            ("key_ops", json!(["verify", "verify"]), "names one operation twice"),
            ("key_ops", json!(["verify", "sign", "sign"]), "names one operation twice"),
            ("key_ops", json!("verify"), "is not an array of strings"),
            ("key_ops", json!({"verify": true}), "is not an array of strings"),
            ("key_ops", json!(["verify", 1]), "is not an array of strings"),
            ("key_ops", json!(1), "is not an array of strings"),
            ("alg", json!("RSA-OAEP"), "Its alg \"RSA-OAEP\" is not supported"),
            ("alg", json!("none"), "Its alg \"none\" is not supported"),
            ("alg", json!("ES512"), "is not supported"),
            ("alg", json!("rs256"), "is not supported"),
            ("alg", json!(256), "Its alg is a number"),
            ("alg", json!([algorithm.name()]), "Its alg is an array"),
            ("kty", json!("oct "), "is not supported"),
            ("kty", json!("rsa"), "is not supported"),
            ("kty", json!("DH"), "is not supported"),
            ("kty", json!(""), "is not supported"),
            ("kty", json!(1), "Its kty is a number"),
            ("kid", json!(1), "Its kid is a number"),
            ("kid", json!(["k"]), "Its kid is an array"),
        ] {
            let name = format!("{}: {member} {value}", algorithm.name());
            unusable(&name, &with(&jwk, json!({member: value})), reason);
        }
        // Libraries write null or an empty list for values that are not set.
        for member in
            ["use", "alg", "kid", "key_ops", "x5c", "x5t", "oth", "d", "p", "priv", "keys"]
        {
            for none in [Value::Null, json!([])] {
                let mut jwk = jwk.clone();
                jwk[member] = none;
                usable(&format!("{member} absent"), &jwk);
            }
        }
        for other in BASES.iter().filter(|other| {
            other.key.bare_public_jwk()["kty"] != jwk["kty"] || other.algorithm == Algorithm::ES384
        }) {
            let name = other.algorithm.name();
            let jwk = with(&jwk, json!({"alg": name}));
            unusable(&name, &jwk, &format!("Its alg {name} does not fit its type"));
        }
    }
}

/// RFC 7518 section 2: base64url. Padding and the other alphabet are accepted, but not both.
#[test]
fn key_material_is_base64url() {
    for (algorithm, members) in [
        (Algorithm::HS256, &["k"][..]),
        (Algorithm::RS256, &["n", "e"]),
        (Algorithm::ES256, &["x", "y"]),
        (Algorithm::ES384, &["x", "y"]),
        (Algorithm::EdDSA, &["x"]),
    ] {
        // After a few keys, the members of one contain characters in which the alphabets differ.
        let jwk = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 | Algorithm::EdDSA => (0..)
                .map(|_| Key::generate(algorithm).bare_public_jwk())
                .find(|jwk| members.iter().all(|m| jwk[m].as_str().unwrap().contains(['-', '_'])))
                .unwrap(),
            _ => bare(algorithm),
        };
        usable("as it should be", &jwk);
        for &member in members {
            let text = jwk[member].as_str().unwrap();
            let padding = "=".repeat((4 - text.len() % 4) % 4);
            let standard = text.replace('-', "+").replace('_', "/");
            for other in [format!("{text}{padding}"), format!("{standard}{padding}"), standard] {
                usable(&other, &with(&jwk, json!({member: other})));
            }
            for other in [
                format!("{text}{padding}="),
                format!("{text}===="),
                format!("={text}"),
                format!("{text}\n"),
                format!(" {text}"),
                format!("{} {}", &text[..2], &text[2..]),
                format!("{text}AAA!"),
                format!("{}+/-_", &text[..text.len() - 4]),
            ] {
                let name = format!("{} {member} {other:?}", algorithm.name());
                let jwk = with(&jwk, json!({member: other}));
                unusable(&name, &jwk, &format!("Its {member} is not base64url"));
            }
            for value in [json!(1), json!(true), json!([text]), json!({"bytes": text})] {
                let reason = format!("Its {member} is");
                unusable(&value.to_string(), &with(&jwk, json!({member: value})), &reason);
            }
            let without = with(&jwk, json!({member: null}));
            unusable("without", &without, &format!("It has no {member}"));
        }
    }
}

#[test]
fn a_private_key_is_refused_at_once() {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA] {
        let base = base(algorithm);
        let public = base.key.public_jwk();
        usable("public", &public);
        let private = base.key.private_jwk().unwrap();
        let mut documents = vec![private.clone()];
        for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "priv"] {
            for value in [json!("AQAB"), json!(""), json!(1), json!({}), json!(["x"])] {
                let mut jwk = public.clone();
                jwk[member] = value;
                documents.push(jwk);
            }
            // The same if the key would be skipped anyway.
            let mut passed_over = with(&public, json!({"use": "enc"}));
            passed_over[member] = "AQAB".into();
            documents.push(passed_over);
        }
        for document in documents {
            let other = self::base(Algorithm::EdDSA).key.bare_public_jwk();
            for text in [
                document.to_string(),
                json!({"keys": [document]}).to_string(),
                json!({"keys": [other, document]}).to_string(),
            ] {
                let refusal = refused("private", &text, KeySet::parse(&text), "22023", "private");
                assert_eq!(refusal.message(), "key is private");
                assert!(refusal.hint().unwrap().contains("replace the key pair"));
            }
        }
    }
}

#[test]
fn a_set_is_of_one_kind_and_names_each_key_once() {
    let key = |algorithm: Algorithm, kid: &str| with(&bare(algorithm), json!({"kid": kid}));
    let (ed, ec) = (key(Algorithm::EdDSA, "ed"), key(Algorithm::ES256, "ec"));
    let (rsa, oct) = (key(Algorithm::RS256, "rsa"), key(Algorithm::HS256, "oct"));
    let twice = "key set has a duplicate key id";
    let mixed = "key set mixes symmetric and asymmetric keys";
    let none = "key set has no usable key";
    let other_rsa = Key::generate(Algorithm::RS256).with_kid("rsa").bare_public_jwk();
    let other_rsa = with(&other_rsa, json!({"kid": "rsa"}));
    let other_ed = with(&Key::generate(Algorithm::EdDSA).bare_public_jwk(), json!({"kid": "ed"}));
    let encryption = with(&key(Algorithm::RS256, "ed"), json!({"use": "enc"}));
    for (keys, expected) in [
        (json!([ed]), None),
        (json!([ed, ec, rsa]), None),
        (json!([oct, key(Algorithm::HS512, "oct2")]), None),
        (json!([bare(Algorithm::EdDSA), bare(Algorithm::ES256)]), None),
        (json!([ed, with(&ec, json!({"kid": "Ed"}))]), None),
        // A key that occurs twice is one key, and keys of different algorithms are not ambiguous.
        (json!([ed, ed]), None),
        (json!([ed, rsa, with(&ec, json!({"kid": "ed"}))]), None),
        (
            json!([with(&rsa, json!({"alg": "RS256"})), with(&other_rsa, json!({"alg": "RS512"}))]),
            None,
        ),
        (json!([rsa, other_rsa]), Some(twice)),
        (json!([rsa, with(&other_rsa, json!({"alg": "RS256"}))]), Some(twice)),
        (
            json!([
                with(&rsa, json!({"alg": "RS512"})),
                ed,
                with(&rsa, json!({"alg": "RS256"})),
                with(&other_rsa, json!({"alg": "RS256"}))
            ]),
            Some(twice),
        ),
        // A skipped key has no `kid`.
        (json!([ed, encryption]), None),
        (json!([encryption, ed]), None),
        (json!([other_ed, encryption, ed]), Some(twice)),
        (json!([ed, oct]), Some(mixed)),
        (json!([oct, rsa]), Some(mixed)),
        (json!([oct, ec, rsa, ed]), Some(mixed)),
        (json!([bare(Algorithm::HS256), bare(Algorithm::RS256)]), Some(mixed)),
        // The same for a key that is skipped because it is weak.
        (json!([ed, {"kty": "oct", "k": "c2hvcnQ"}]), Some(mixed)),
        (json!([oct, null, {"kty": 1}]), None),
        (json!([]), Some(none)),
        (json!([encryption]), Some(none)),
        (json!([null, 1]), Some(none)),
    ] {
        let text = json!({"keys": keys}).to_string();
        match expected {
            None => drop(accepted(&text, KeySet::parse(&text))),
            Some(words) => drop(refused(&text, &text, KeySet::parse(&text), "22023", words)),
        }
    }
    let escaped = other_ed.to_string().replace("\"ed\"", r#""\u0065d""#);
    let escaped = format!(r#"{{"keys":[{ed},{escaped}]}}"#);
    refused("escaped", &escaped, KeySet::parse(&escaped), "22023", twice);
}

#[test]
fn an_entry_that_is_no_object_costs_only_itself() {
    for (entry, reason) in [
        (json!(null), "It is null"),
        (json!(true), "It is a boolean"),
        (json!(1), "It is a number"),
        (json!("k1"), "It is a string"),
        (json!([]), "It is an array"),
        (json!({}), "It has no kty"),
        (json!({"kid": "x"}), "It has no kty"),
        (json!({"keys": [bare(Algorithm::EdDSA)]}), "It has no kty"),
    ] {
        unusable(&entry.to_string(), &entry, reason);
    }
}

#[test]
fn a_key_document_is_a_jwk_or_a_jwk_set() {
    let jwk = bare(Algorithm::EdDSA).to_string();
    let set = format!(r#"{{"keys":[{jwk}]}}"#);
    let inner = &jwk[1..jwk.len() - 1];
    for text in [
        jwk.clone(),
        set.clone(),
        format!(" \r\n\t{set}\n"),
        format!(r#"{{"x":0,"keys":[{jwk}],"cache":{{"a":1}}}}"#),
    ] {
        accepted(&text, KeySet::parse(&text));
    }
    let json = "key set is not valid JSON";
    let neither = "key set is not a JWK or a JWK set";
    let deep = format!(r#"{{{inner},"x":{}{}}}"#, "[".repeat(32), "]".repeat(32));
    for (name, text, words) in [
        ("nothing", String::new(), json),
        ("white space", " ".to_owned(), json),
        ("a byte order mark", format!("\u{feff}{jwk}"), json),
        ("something behind it", format!("{jwk}x"), json),
        ("two keys in a row", format!("{jwk}{jwk}"), json),
        ("a trailing comma", format!("{{{inner},}}"), json),
        ("a comment", format!("/* */{jwk}"), json),
        ("single quotes", jwk.replace('"', "'"), json),
        ("cut off", jwk[..jwk.len() - 1].to_owned(), json),
        ("too deep", deep, "32 levels"),
        ("PEM", "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----".to_owned(), json),
        ("a URL", "https://issuer.example/jwks.json".to_owned(), json),
        ("a member twice", format!(r#"{{{inner},{inner}}}"#), "twice"),
        ("kty twice", format!(r#"{{"kty":"oct",{inner}}}"#), "twice"),
        ("kty twice, escaped", format!(r#"{{"\u006bty":"oct",{inner}}}"#), "twice"),
        ("x twice within a set", format!(r#"{{"keys":[{{{inner},"x":"AA"}}]}}"#), "twice"),
        ("keys twice", format!(r#"{{"keys":[{jwk}],"keys":[{jwk}]}}"#), "twice"),
        ("a key and a set", format!(r#"{{{inner},"keys":[{jwk}]}}"#), "both"),
        ("an array of keys", format!("[{jwk}]"), neither),
        ("a string", serde_json::Value::from(jwk.as_str()).to_string(), neither),
        ("a number", "1".to_owned(), neither),
        ("null", "null".to_owned(), neither),
        ("true", "true".to_owned(), neither),
        ("an empty object", "{}".to_owned(), neither),
        ("another object", r#"{"jwks":[]}"#.to_owned(), neither),
        ("keys an object", format!(r#"{{"keys":{jwk}}}"#), neither),
        ("keys null", r#"{"keys":null}"#.to_owned(), neither),
        ("keys a string", r#"{"keys":"x"}"#.to_owned(), neither),
    ] {
        refused(name, &text, KeySet::parse(&text), "22023", words);
    }
}

#[test]
fn debug_forms_show_no_key() {
    for base in BASES.iter() {
        let jwk = base.key.public_jwk();
        // The set has another key that is rejected because it is short or of another curve.
        let bad = json!({"kty": jwk["kty"], "k": encode(&SECRET[..31]), "crv": "x", "x": jwk["x"],
                         "n": encode([0xa5; 64]), "e": "AQAB"});
        let text = json!({"keys": [jwk, bad]}).to_string();
        let keys = KeySet::parse(&text).unwrap();
        assert_eq!(keys.unusable().len(), 1);
        let debug = format!("{keys:?} {keys:#?}");
        assert!(debug.contains("k1"), "{debug}");
        keeps_secret("KeySet", &text, &debug);

        let verifier = Verifier::new(vec![Provider::with_default_policy("p", keys)]).unwrap();
        let debug = format!("{verifier:?} {:?}", verifier.providers());
        keeps_secret("Verifier", &text, &debug);

        let token = base.token();
        let claims = verifier.verify(&token, NOW).unwrap();
        keeps_secret("Claims", &token, &format!("{claims:?} {claims:#?}"));
    }
    let document = json!({"secret": SECRET}).to_string();
    let providers = Provider::parse_all(&document).unwrap();
    keeps_secret("Provider", &document, &format!("{providers:?} {providers:#?}"));
}
