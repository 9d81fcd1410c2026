//! The difference of two key sets of one provider.

use std::collections::{BTreeMap, BTreeSet};

use crate::key_set::KeySet;

/// The usable keys of two sets, compared by `kid` and by material. The spelling of a key, its `alg` and
/// its other members do not matter.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeyChanges {
    /// The `kid`s that only the later set has.
    pub added: Vec<Option<String>>,
    /// The `kid`s that only the earlier set has.
    pub removed: Vec<Option<String>>,
    /// The `kid`s that both sets have, with different keys.
    pub changed: Vec<Option<String>>,
    /// The `kid`s that both sets have, with the same keys.
    pub kept: Vec<Option<String>>,
}

type Materials = BTreeSet<Vec<u8>>;

impl KeyChanges {
    /// Compares two sets. Keys without `kid` are compared by material only.
    pub fn between(before: &KeySet, after: &KeySet) -> Self {
        let (before, after) = (by_kid(before), by_kid(after));
        let mut changes = Self::default();
        let none = Materials::new();
        for (kid, later) in &after {
            match (kid, before.get(kid)) {
                (None, earlier) => {
                    let earlier = earlier.unwrap_or(&none);
                    changes.added.extend(later.difference(earlier).map(|_| None));
                    changes.kept.extend(later.intersection(earlier).map(|_| None));
                }
                (Some(_), None) => changes.added.push(kid.clone()),
                (Some(_), Some(earlier)) if earlier == later => changes.kept.push(kid.clone()),
                (Some(_), Some(_)) => changes.changed.push(kid.clone()),
            }
        }
        for (kid, earlier) in &before {
            match kid {
                None => {
                    let later = after.get(kid).unwrap_or(&none);
                    changes.removed.extend(earlier.difference(later).map(|_| None));
                }
                Some(_) if !after.contains_key(kid) => changes.removed.push(kid.clone()),
                Some(_) => {}
            }
        }
        changes
    }
}

fn by_kid(set: &KeySet) -> BTreeMap<Option<String>, Materials> {
    let mut found: BTreeMap<_, Materials> = BTreeMap::new();
    for (kid, material) in set.materials() {
        found.entry(kid.map(str::to_owned)).or_default().insert(material);
    }
    found
}
