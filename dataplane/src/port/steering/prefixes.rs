//! The program's list of client prefixes: only what has changed is written.

use std::iter::Peekable;
use std::sync::Arc;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use sched::prefix::{Guard, PREFIXES_MAX, Prefix, Prefixes};

use super::error::{errno_of, map_failed};
use super::rules::{AddressKey, prefix_key, prefix_of};
use super::{Maps, Steering, SteeringError, map};

const NAME: &str = "prefixes";

impl Steering {
    /// Brings the list from what it has to `new`.
    pub(super) fn set_prefixes(&mut self, new: &Arc<Prefixes>) -> Result<(), SteeringError> {
        let old = self.contents.prefixes.clone();
        if Arc::ptr_eq(&old, new) {
            return Ok(());
        }
        let mut target = open(&mut self.maps)?;
        // Until all of it is written, nobody knows what is there.
        self.contents.prefixes = Arc::default();
        for change in Changes::between(&old, new) {
            match change {
                (prefix, Some(guard)) => insert(&mut target, prefix, guard)?,
                (prefix, None) => {
                    let removed = target.remove(&key(prefix));
                    removed.map_err(|error| map_failed(NAME, &error))?;
                }
            }
        }
        self.contents.prefixes = new.clone();
        Ok(())
    }
}

/// What is in the list now.
pub(super) fn read(maps: &mut Maps) -> Prefixes {
    let Ok(list) = open(maps) else {
        return Prefixes::new();
    };
    let row = |(key, denied): (Key<AddressKey>, u8)| {
        let guard = if denied == 0 {
            Guard::Allow
        } else {
            Guard::Deny
        };
        Some((prefix_of((key.prefix_len(), key.data()))?, guard))
    };
    list.iter().flatten().filter_map(row).collect()
}

fn open(maps: &mut Maps) -> Result<LpmTrie<&mut MapData, AddressKey, u8>, SteeringError> {
    LpmTrie::try_from(map(maps, NAME)).map_err(|error| map_failed(NAME, &error))
}

fn key(prefix: &Prefix) -> Key<AddressKey> {
    let (bits, address) = prefix_key(prefix);
    Key::new(bits, address)
}

fn insert(
    list: &mut LpmTrie<&mut MapData, AddressKey, u8>,
    prefix: &Prefix,
    guard: Guard,
) -> Result<(), SteeringError> {
    let failed = |error: MapError| match errno_of(&error) {
        Some(libc::ENOSPC | libc::ENOMEM) => SteeringError::Full {
            name: NAME,
            limit: PREFIXES_MAX,
        },
        _ => map_failed(NAME, &error),
    };
    list.insert(&key(prefix), u8::from(guard == Guard::Deny), 0)
        .map_err(failed)
}

/// What leads from one sorted list to another.
struct Changes<'a, I: Iterator<Item = (&'a Prefix, &'a Guard)>> {
    old: Peekable<I>,
    new: Peekable<I>,
}

impl<'a> Changes<'a, std::collections::btree_map::Iter<'a, Prefix, Guard>> {
    fn between(old: &'a Prefixes, new: &'a Prefixes) -> Self {
        Self {
            old: old.iter().peekable(),
            new: new.iter().peekable(),
        }
    }
}

impl<'a, I: Iterator<Item = (&'a Prefix, &'a Guard)>> Iterator for Changes<'a, I> {
    type Item = (&'a Prefix, Option<Guard>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match (self.old.peek().copied(), self.new.peek().copied()) {
                (None, None) => return None,
                (Some(old), Some(new)) if old == new => {
                    self.old.next();
                    self.new.next();
                }
                (Some((gone, _)), new) if new.is_none_or(|(new, _)| gone < new) => {
                    self.old.next();
                    return Some((gone, None));
                }
                (old, Some((prefix, guard))) => {
                    self.new.next();
                    if old.is_some_and(|(old, _)| old == prefix) {
                        self.old.next();
                    }
                    return Some((prefix, Some(*guard)));
                }
                (Some(_), None) => self.old.next().map_or((), drop),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn changes_lead_from_one_to_the_other(
            old in prop::collection::btree_map((0u8..20, 6u8..32), any::<bool>(), 0..30),
            new in prop::collection::btree_map((0u8..20, 6u8..32), any::<bool>(), 0..30),
        ) {
            let list = |rows: std::collections::BTreeMap<(u8, u8), bool>| -> Prefixes {
                let guard = |denied| if denied { Guard::Deny } else { Guard::Allow };
                let prefix = |(last, bits)| Prefix::of([10, 0, last, 0].into(), bits);
                rows.into_iter().map(|(row, denied)| (prefix(row), guard(denied))).collect()
            };
            let (old, new) = (list(old), list(new));
            let mut now = old.clone();
            for (prefix, guard) in Changes::between(&old, &new) {
                prop_assert_ne!(now.get(prefix).copied(), guard, "nothing in vain");
                match guard {
                    Some(guard) => _ = now.insert(*prefix, guard),
                    None => _ = now.remove(prefix),
                }
            }
            prop_assert_eq!(now, new);
        }
    }
}
