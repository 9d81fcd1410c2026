//! The keys of two sets are compared by their material.

use mint::{Algorithm, Key};
use serde_json::{Value, json};
use session_jwt::{KeyChanges, KeySet};

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(&json!({ "keys": keys }).to_string()).unwrap()
}

fn kids(list: &[Option<String>]) -> Vec<Option<&str>> {
    list.iter().map(Option::as_deref).collect()
}

fn key(algorithm: Algorithm, kid: &str) -> Value {
    Key::generate(algorithm).with_kid(kid).public_jwk()
}

#[test]
fn keys_are_compared_by_id_and_material() {
    for algorithm in [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA] {
        let [kept, changed, gone, new] =
            ["kept", "changed", "gone", "new"].map(|kid| key(algorithm, kid));
        let replaced = key(algorithm, "changed");
        let mut spelled = kept.clone();
        spelled["alg"] = json!(algorithm.name());
        spelled["x5t"] = json!("x");
        let changes =
            KeyChanges::between(&set(&[kept, changed, gone]), &set(&[new, replaced, spelled]));
        assert_eq!(kids(&changes.added), [Some("new")]);
        assert_eq!(kids(&changes.removed), [Some("gone")]);
        assert_eq!(kids(&changes.changed), [Some("changed")]);
        assert_eq!(kids(&changes.kept), [Some("kept")]);
    }
}

#[test]
fn a_key_of_another_type_is_another_key() {
    let (before, after) = (key(Algorithm::ES256, "a"), key(Algorithm::RS256, "a"));
    let changes = KeyChanges::between(&set(&[before]), &set(&[after]));
    assert_eq!(kids(&changes.changed), [Some("a")]);
}

#[test]
fn keys_without_ids_are_compared_by_material_alone() {
    let [kept, gone, new] = [(); 3].map(|()| Key::generate(Algorithm::ES256).public_jwk());
    let changes = KeyChanges::between(&set(&[kept.clone(), gone]), &set(&[new, kept]));
    assert_eq!(kids(&changes.added), [None]);
    assert_eq!(kids(&changes.removed), [None]);
    assert_eq!(kids(&changes.kept), [None]);
    assert!(changes.changed.is_empty());
}
