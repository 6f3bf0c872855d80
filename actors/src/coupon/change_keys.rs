//! The keys of a coupon's latest changes, by which a repeated change is recognised.
//!
//! They are in the coupon's row, written by the statement that stores the change. So whichever node owns the
//! coupon next knows them, and a key is known exactly if its change is stored.

use std::fmt::Write;

use xxhash_rust::xxh3::xxh3_128;

use crate::coupon::change::Change;
use crate::coupon::wire;
use crate::ids::RequestKey;

/// Maximum number of keys that a coupon keeps. A client repeats a change within minutes, and administrators
/// make few changes meanwhile. With the longest keys the column takes 10 KB.
///
/// Changes that alter nothing cost a client nothing, so their keys are evicted first.
pub const CHANGE_KEYS_MAX: usize = 32;

/// A change that had a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedChange {
    /// The key.
    pub key: RequestKey,
    /// The version that the change made; `None` if it altered nothing.
    pub version: Option<u64>,
    /// Distinguishes another change with the same key; see [`KeyedChange::digest`].
    pub digest: u128,
}

impl KeyedChange {
    /// Returns the digest of what a change asks for. It is stored, so it must stay the same in all releases.
    /// It need not withstand an attack: a client that finds two changes with one digest misleads only itself.
    pub fn digest(change: &Change) -> u128 {
        xxh3_128(&wire::write_change(change.clone()))
    }
}

/// The latest changes that had keys, oldest first; at most [`CHANGE_KEYS_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangeKeys(Vec<KeyedChange>);

impl ChangeKeys {
    /// Returns the change that had this key.
    pub fn find(&self, key: &RequestKey) -> Option<&KeyedChange> {
        self.0.iter().find(|change| change.key == *key)
    }

    /// Returns the list with this change added. If there are too many, the oldest that altered nothing is
    /// left out, or the oldest of all if each altered something. The new change is always in the list.
    #[must_use]
    pub fn with(&self, change: KeyedChange) -> Self {
        let mut changes = self.0.clone();
        if changes.len() >= CHANGE_KEYS_MAX {
            let idle = changes.iter().position(|change| change.version.is_none());
            changes.remove(idle.unwrap_or(0));
        }
        changes.push(change);
        Self(changes)
    }

    /// Returns the text of the column: a line `key version digest` for each change; `None` if there is none.
    /// The version 0 is that of a change that altered nothing.
    pub fn column(&self) -> Option<String> {
        let mut text = String::new();
        for KeyedChange { key, version, digest } in &self.0 {
            let version = version.unwrap_or(0);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key} {version} {digest:032x}");
        }
        (!text.is_empty()).then_some(text)
    }

    /// Reads the text of the column; `None` if it is not such a text.
    pub fn parse(column: Option<&str>) -> Option<Self> {
        let lines = column.unwrap_or_default().lines();
        let changes = lines.map(|line| {
            let mut words = line.split(' ');
            let change = KeyedChange {
                key: RequestKey::parse(words.next()?).ok()?,
                version: Some(words.next()?.parse().ok()?).filter(|version| *version > 0),
                digest: u128::from_str_radix(words.next()?, 16).ok()?,
            };
            words.next().is_none().then_some(change)
        });
        let changes = changes.collect::<Option<Vec<_>>>()?;
        (changes.len() <= CHANGE_KEYS_MAX).then_some(Self(changes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::coupon::offer::OfferPatch;

    fn change(number: u64, alters: bool) -> KeyedChange {
        KeyedChange {
            key: RequestKey::parse(&format!("key-{number}")).unwrap(),
            version: alters.then_some(number),
            digest: u128::from(number) << 100,
        }
    }

    /// Returns the numbers of the changes whose keys are kept after all of these, each with whether it
    /// altered something. Numbers count from 1.
    fn kept(changes: &[bool]) -> Vec<u64> {
        let mut keys = ChangeKeys::default();
        assert_eq!(keys.column(), None);
        assert_eq!(ChangeKeys::parse(None), Some(keys.clone()));
        let all: Vec<KeyedChange> = (1..)
            .zip(changes)
            .map(|(number, alters)| change(number, *alters))
            .collect();
        for change in &all {
            keys = keys.with(change.clone());
            assert_eq!(ChangeKeys::parse(keys.column().as_deref()), Some(keys.clone()));
        }
        let is_kept = |change: &&KeyedChange| keys.find(&change.key) == Some(*change);
        let kept = all.iter().filter(is_kept);
        kept.map(|change| u64::try_from(change.digest >> 100).unwrap())
            .collect()
    }

    #[test]
    fn the_latest_keys_are_kept_and_read_as_they_were_written() {
        assert_eq!(kept(&[true; 40]), (9..=40).collect::<Vec<u64>>());
        assert_eq!(kept(&[false; 40]), (9..=40).collect::<Vec<u64>>());
    }

    proptest! {
        /// However many changes alter nothing, the keys stay of the latest that altered something, and that
        /// of the last change of all.
        #[test]
        fn changes_without_effect_evict_no_key_of_a_change_with_effect(
            changes in prop::collection::vec(prop::bool::weighted(0.3), 1..200),
        ) {
            let kept = kept(&changes);
            let altering: Vec<u64> = (1..).zip(&changes).filter(|(_, alters)| **alters).map(|(number, _)| number).collect();
            let latest = altering.iter().rev().take(CHANGE_KEYS_MAX - 1);
            for number in latest {
                prop_assert!(kept.contains(number), "{number} is not in {kept:?}");
            }
            prop_assert_eq!(kept.last(), Some(&(changes.len() as u64)));
            prop_assert_eq!(kept.len(), changes.len().min(CHANGE_KEYS_MAX));
        }
    }

    #[test]
    fn a_text_that_is_no_list_of_keys_is_not_read() {
        for text in [
            "key",
            "key 1",
            "key 1 xyz",
            "key one 00",
            "key 1 00 more",
            "\u{e9} 1 00",
            "\n",
        ] {
            assert_eq!(ChangeKeys::parse(Some(text)), None, "{text:?}");
        }
        let too_many: String = (0..=CHANGE_KEYS_MAX)
            .map(|number| format!("k{number} 1 00\n"))
            .collect();
        assert_eq!(ChangeKeys::parse(Some(&too_many)), None);
    }

    /// Pins the digests that rows may have.
    #[test]
    fn the_digest_of_a_change_is_pinned() {
        let patch = |title: &str| {
            let patch = OfferPatch {
                title: Some(title.to_owned()),
                total_quantity: Some(None),
                ..OfferPatch::default()
            };
            Change::Patch(Box::new(patch))
        };
        let digests = [
            Change::Pause,
            Change::Resume,
            Change::Close,
            patch("a"),
            patch("b"),
        ]
        .map(|change| format!("{:032x}", KeyedChange::digest(&change)));
        assert_eq!(
            digests,
            [
                "8742f574ac294c8947b365ac7d81b697",
                "7d4278f839feeb5ebc1bc47b06a7627a",
                "2ba04c4b26c1b025565d384bd847874d",
                "0ba03b3f370e99fe99022b8b3d88f52f",
                "4e8d6ce3642031d1448bb63f36f73074",
            ]
        );
    }
}
