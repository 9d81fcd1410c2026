//! The examples that the JOSE documents publish, through the seam below the claims: RFC 7515
//! appendix A, RFC 7517 appendix A, RFC 7520 section 4, RFC 7638 section 3.1, RFC 7797 section 4
//! and RFC 8037 appendix A. `vectors/rfc.json` holds them as they are printed, line breaks undone,
//! each key without its private members, which stand beside it.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use session_jwt::{Algorithm, KeySet, Rejection, verify_jws};

static VECTORS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("vectors/rfc.json")).unwrap());

/// The example of a section, which must exist.
fn example(rfc: &str, section: &str) -> &'static Value {
    VECTORS[rfc].get(section).unwrap_or_else(|| panic!("no example {rfc} {section}"))
}

fn key_of(example: &Value) -> Result<KeySet, Rejection> {
    KeySet::parse(&example["jwk"].to_string())
}

fn text<'v>(example: &'v Value, member: &str) -> &'v str {
    example[member].as_str().unwrap_or_else(|| panic!("no {member}"))
}

/// The supported examples, with the algorithm if the key does not imply it.
const SUPPORTED: [(&str, &str, Option<Algorithm>); 8] = [
    ("rfc7515", "A.1", None),
    ("rfc7515", "A.2", None),
    ("rfc7515", "A.3", None),
    ("rfc7520", "4.1", None),
    ("rfc7520", "4.2", Some(Algorithm::PS384)),
    ("rfc7520", "4.4", None),
    ("rfc7797", "4.1", None),
    ("rfc8037", "A.4", None),
];

#[test]
fn supported_examples_verify_and_give_the_payload() {
    for (rfc, section, algorithm) in SUPPORTED {
        let example = example(rfc, section);
        let mut keys = key_of(example).unwrap();
        if let Some(algorithm) = algorithm {
            keys = keys.with_algorithms([algorithm].into_iter().collect()).unwrap();
        }
        let payload = verify_jws(text(example, "jws"), &keys);
        assert_eq!(
            payload.as_deref(),
            Ok(text(example, "payload").as_bytes()),
            "{rfc} section {section}"
        );
    }
}

#[test]
fn supported_examples_verify_with_no_other_key() {
    for (rfc, section, algorithm) in SUPPORTED {
        for (other_rfc, other_section, other_algorithm) in SUPPORTED {
            let (example, other) = (example(rfc, section), example(other_rfc, other_section));
            if example["jwk"] == other["jwk"] {
                continue;
            }
            let mut keys = key_of(other).unwrap();
            if let Some(algorithm) = other_algorithm {
                keys = keys.with_algorithms([algorithm].into_iter().collect()).unwrap();
            }
            let code = verify_jws(text(example, "jws"), &keys).unwrap_err().code().sqlstate();
            let named = section.starts_with("4.") && rfc == "rfc7520";
            let one_type = example["jwk"]["kty"] == other["jwk"]["kty"]
                && algorithm.is_none()
                && other_algorithm.is_none();
            let expected = match (named, one_type) {
                (true, _) => "28J02",
                (false, true) => "28J03",
                (false, false) => "28J10",
            };
            assert_eq!(
                code, expected,
                "{rfc} {section} with the key of {other_rfc} {other_section}"
            );
        }
    }
}

#[test]
fn pss_needs_to_be_listed_for_a_key_without_algorithm() {
    let example = example("rfc7520", "4.2");
    let keys = key_of(example).unwrap();
    assert_eq!(keys.algorithms(), [Algorithm::RS256].into_iter().collect());
    assert_eq!(verify_jws(text(example, "jws"), &keys).unwrap_err().code().sqlstate(), "28J10");
    let keys = keys.with_algorithms([Algorithm::PS384].into_iter().collect()).unwrap();
    assert!(verify_jws(text(example, "jws"), &keys).is_ok());
}

#[test]
fn es512_is_refused_and_so_is_its_key() {
    for (rfc, section) in [("rfc7515", "A.4"), ("rfc7520", "4.3")] {
        let es512 = example(rfc, section);
        let refusal = key_of(es512).unwrap_err();
        assert_eq!(refusal.code().sqlstate(), "22023");
        assert!(refusal.detail().unwrap().contains("P-521"));
        for (other_rfc, other_section) in
            [("rfc7515", "A.3"), ("rfc7515", "A.2"), ("rfc7520", "4.1")]
        {
            let keys = key_of(example(other_rfc, other_section)).unwrap();
            let refusal = verify_jws(text(es512, "jws"), &keys).unwrap_err();
            assert_eq!(refusal.code().sqlstate(), "28J10", "{rfc} {section}");
        }
    }
    // In a set, the unusable key is skipped and the others are used.
    let set = json!({"keys": [example("rfc7515", "A.4")["jwk"], example("rfc7515", "A.3")["jwk"]]});
    let keys = KeySet::parse(&set.to_string()).unwrap();
    assert_eq!(keys.unusable().iter().map(|key| key.index).collect::<Vec<_>>(), [0]);
    assert!(verify_jws(text(example("rfc7515", "A.3"), "jws"), &keys).is_ok());
    let refusal = verify_jws(text(example("rfc7515", "A.4"), "jws"), &keys).unwrap_err();
    assert_eq!(refusal.code().sqlstate(), "28J10");
}

#[test]
fn unsecured_jws_is_refused_with_every_key() {
    let unsecured = text(example("rfc7515", "A.5"), "jws");
    for (rfc, section, _) in SUPPORTED {
        let keys = key_of(example(rfc, section)).unwrap();
        assert_eq!(verify_jws(unsecured, &keys).unwrap_err().code().sqlstate(), "28J10");
    }
}

/// RFC 7515 section 7.2: a JWT never uses a JSON serialization.
#[test]
fn json_serializations_are_refused() {
    let mut refused = 0;
    for (rfc, section) in [
        ("rfc7515", "A.6"),
        ("rfc7520", "4.1"),
        ("rfc7520", "4.2"),
        ("rfc7520", "4.3"),
        ("rfc7520", "4.4"),
        ("rfc7520", "4.5"),
        ("rfc7520", "4.6"),
        ("rfc7520", "4.7"),
        ("rfc7520", "4.8"),
    ] {
        let example = example(rfc, section);
        for form in ["general", "flattened"] {
            let Some(jws) = example.get(form) else {
                assert_eq!((section, form), ("4.8", "flattened"));
                continue;
            };
            for keys in
                [("rfc7515", "A.1"), ("rfc7515", "A.3"), ("rfc7520", "4.1"), ("rfc7520", "4.4")]
            {
                let keys = key_of(self::example(keys.0, keys.1)).unwrap();
                for jws in [jws.to_string(), serde_json::to_string_pretty(jws).unwrap()] {
                    let refusal = verify_jws(&jws, &keys).unwrap_err();
                    assert_eq!(refusal.code().sqlstate(), "28J01", "{rfc} {section} {form}");
                }
            }
            refused += 1;
        }
    }
    assert_eq!(refused, 17);
}

/// The serialization is rejected: the same signature over the same text is valid in the compact
/// serialization, if the header is protected and the algorithm supported.
#[test]
fn signatures_of_json_serializations_verify_in_the_compact_form() {
    let without_kid = |mut jwk: Value| {
        jwk.as_object_mut().unwrap().remove("kid");
        KeySet::parse(&jwk.to_string()).unwrap()
    };
    let hmac = || without_kid(example("rfc7520", "4.4")["jwk"].clone());
    let rsa = || without_kid(example("rfc7520", "4.1")["jwk"].clone());
    for (rfc, section, place, keys) in [
        ("rfc7515", "A.6", 0, key_of(example("rfc7515", "A.2")).unwrap()),
        ("rfc7515", "A.6", 1, key_of(example("rfc7515", "A.3")).unwrap()),
        ("rfc7520", "4.1", 0, key_of(example("rfc7520", "4.1")).unwrap()),
        ("rfc7520", "4.4", 0, key_of(example("rfc7520", "4.4")).unwrap()),
        ("rfc7520", "4.6", 0, hmac()),
        ("rfc7520", "4.8", 0, rsa()),
        ("rfc7520", "4.8", 2, key_of(example("rfc7520", "4.4")).unwrap()),
    ] {
        let general = &example(rfc, section)["general"];
        let (payload, signature) = (text(general, "payload"), &general["signatures"][place]);
        let jws =
            format!("{}.{payload}.{}", text(signature, "protected"), text(signature, "signature"));
        assert_eq!(
            verify_jws(&jws, &keys),
            Ok(URL_SAFE_NO_PAD.decode(payload).unwrap()),
            "{rfc} {section}"
        );
    }
}

/// RFC 7515 appendix F: detached content. The compact serialization without the content is a JWS over
/// an empty payload, which is not signed.
#[test]
fn detached_content_is_refused() {
    let example = example("rfc7520", "4.5");
    let refusal = verify_jws(text(example, "jws"), &key_of(example).unwrap()).unwrap_err();
    assert_eq!(refusal.code().sqlstate(), "28J03");
}

/// RFC 7797 section 4.2: the unencoded payload is rejected in every form.
#[test]
fn unencoded_payload_is_refused() {
    let example = example("rfc7797", "4.2");
    let detached = text(example, "detached");
    for jws in
        [detached.to_owned(), detached.replace("..", ".$.02."), detached.replace("..", ".JC4wMg.")]
    {
        let refusal = verify_jws(&jws, &key_of(example).unwrap()).unwrap_err();
        assert_eq!(refusal.code().sqlstate(), "28J01", "{jws}");
    }
}

#[test]
fn public_key_forms() {
    let keys = KeySet::parse(&example("rfc7638", "3.1").to_string()).unwrap();
    assert_eq!(keys.kids().collect::<Vec<_>>(), ["2011-04-29"]);
    assert_eq!(keys.algorithms(), [Algorithm::RS256].into_iter().collect());
    assert!(!keys.is_symmetric() && keys.unusable().is_empty());

    let keys = KeySet::parse(&example("rfc7517", "A.1").to_string()).unwrap();
    assert_eq!(keys.kids().collect::<Vec<_>>(), ["2011-04-29"]);
    assert_eq!(keys.algorithms(), [Algorithm::RS256].into_iter().collect());
    let [encryption] = keys.unusable() else { panic!("{:?}", keys.unusable()) };
    assert_eq!((encryption.index, encryption.kid.as_deref()), (0, Some("1")));
    assert!(encryption.reason.contains("\"enc\""), "{}", encryption.reason);

    let keys = KeySet::parse(&example("rfc8037", "A.2").to_string()).unwrap();
    assert_eq!(keys.kids().count(), 0);
    assert_eq!(keys.algorithms(), [Algorithm::EdDSA].into_iter().collect());
    assert!(!keys.is_symmetric() && keys.unusable().is_empty());
}

#[test]
fn symmetric_key_forms() {
    let keys = KeySet::parse(&example("rfc7517", "A.3").to_string()).unwrap();
    assert!(keys.is_symmetric());
    assert_eq!(keys.kids().collect::<Vec<_>>(), ["HMAC key used in JWS spec Appendix A.1 example"]);
    assert_eq!(keys.algorithms(), [Algorithm::HS256].into_iter().collect());
    let [wrapping] = keys.unusable() else { panic!("{:?}", keys.unusable()) };
    assert_eq!((wrapping.index, wrapping.kid.as_deref()), (0, None));
    assert!(wrapping.reason.contains("A128KW"), "{}", wrapping.reason);
    // The key is that of RFC 7515 appendix A.1, whose token has no `kid`.
    assert!(verify_jws(text(example("rfc7515", "A.1"), "jws"), &keys).is_ok());
}

#[test]
fn private_key_forms_are_refused() {
    let mut private = vec![("rfc7517", "A.2", example("rfc7517", "A.2").clone())];
    for (rfc, section) in [
        ("rfc7515", "A.2"),
        ("rfc7515", "A.3"),
        ("rfc7515", "A.4"),
        ("rfc7520", "4.1"),
        ("rfc7520", "4.3"),
        ("rfc8037", "A.4"),
    ] {
        let example = example(rfc, section);
        let mut jwk = example["jwk"].clone();
        jwk["d"] = example["private"]["d"].clone();
        private.push((rfc, section, jwk));
    }
    for (rfc, section, key) in private {
        let refusal = KeySet::parse(&key.to_string()).unwrap_err();
        assert_eq!(refusal.code().sqlstate(), "22023", "{rfc} {section}");
        assert_eq!(refusal.message(), "key is private", "{rfc} {section}");
        assert!(refusal.detail().unwrap().contains("\"d\""), "{rfc} {section}");
        assert!(refusal.hint().unwrap().contains("public key"), "{rfc} {section}");
    }
}
