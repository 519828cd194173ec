//! The program's list of client prefixes: only what has changed is written.

use std::sync::Arc;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use sched::prefix::{Guard, PREFIXES_MAX, Prefix, Prefixes, changes};

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
        for change in changes(&old, new) {
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
