//! Lists of client prefixes that are let in or kept out, before anything else is asked.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The most prefixes of one director.
pub const PREFIXES_MAX: u32 = 1 << 20;

/// Addresses that begin alike. Bits beyond the length are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

/// What becomes of clients with a prefix. The longest prefix that fits decides; without
/// one a client is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guard {
    /// Let in, also out of a longer stretch that is kept out.
    Allow,
    /// Dropped by the steering program.
    Deny,
}

/// All prefixes.
pub type Prefixes = BTreeMap<Prefix, Guard>;

/// Why a text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PrefixError {
    /// Not an address with a length.
    #[error("`{0}` is no prefix such as 192.0.2.0/24 or 2001:db8::/32")]
    NoPrefix(String),
    /// Bits beyond the length.
    #[error("`{typed}` has bits beyond its length: is {meant} meant?")]
    Beyond {
        /// As typed.
        typed: String,
        /// With those bits 0.
        meant: Prefix,
    },
}

impl Prefix {
    /// The prefix of this length that an address has; a length that is too long is cut.
    pub fn of(address: IpAddr, bits: u8) -> Self {
        let bits = bits.min(if address.is_ipv4() { 32 } else { 128 });
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                Ipv4Addr::from_bits(v4.to_bits() & mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
        };
        Self { address, bits }
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Its length, bits.
    pub fn bits(&self) -> u8 {
        self.bits
    }
}

/// What decides about a client, if anything does: the longest of `prefixes` that fits.
pub fn decisive(prefixes: &Prefixes, client: IpAddr) -> Option<(Prefix, Guard)> {
    let longest = if client.is_ipv4() { 32 } else { 128 };
    (0..=longest).rev().find_map(|bits| {
        let prefix = Prefix::of(client, bits);
        prefixes.get(&prefix).map(|guard| (prefix, *guard))
    })
}

/// What leads from one list to another, prefix by prefix; none where it is named no more.
pub fn changes<'a>(
    from: &'a Prefixes,
    to: &'a Prefixes,
) -> impl Iterator<Item = (&'a Prefix, Option<Guard>)> {
    let (mut from, mut to) = (from.iter().peekable(), to.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            match (from.peek().copied(), to.peek().copied()) {
                (None, None) => return None,
                (Some(old), Some(new)) if old == new => {
                    from.next();
                    to.next();
                }
                (Some((gone, _)), new) if new.is_none_or(|(new, _)| gone < new) => {
                    from.next();
                    return Some((gone, None));
                }
                (old, Some((prefix, guard))) => {
                    to.next();
                    if old.is_some_and(|(old, _)| old == prefix) {
                        from.next();
                    }
                    return Some((prefix, Some(*guard)));
                }
                (Some(_), None) => _ = from.next(),
            }
        }
    })
}

/// The same by what becomes of them; a list that would be empty is left out.
pub fn changes_by_guard(from: &Prefixes, to: &Prefixes) -> Vec<(Option<Guard>, Vec<Prefix>)> {
    let mut lists = BTreeMap::<_, Vec<_>>::new();
    for (prefix, guard) in changes(from, to) {
        lists.entry(guard).or_default().push(*prefix);
    }
    lists.into_iter().collect()
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let none = || PrefixError::NoPrefix(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| none())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = bits.map_or(Ok(longest), |bits| bits.parse().map_err(|_| none()))?;
        if bits > longest {
            return Err(none());
        }
        let meant = Self::of(address, bits);
        if meant.address != address {
            let typed = text.to_owned();
            return Err(PrefixError::Beyond { typed, meant });
        }
        Ok(meant)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts() {
        let rows = [
            ("192.0.2.0/24", Ok("192.0.2.0/24")),
            ("192.0.2.7", Ok("192.0.2.7/32")),
            ("0.0.0.0/0", Ok("0.0.0.0/0")),
            ("2001:db8::/32", Ok("2001:db8::/32")),
            ("::/0", Ok("::/0")),
            (
                "192.0.2.7/24",
                Err("`192.0.2.7/24` has bits beyond its length: is 192.0.2.0/24 meant?"),
            ),
            (
                "192.0.2.0/33",
                Err("`192.0.2.0/33` is no prefix such as 192.0.2.0/24 or 2001:db8::/32"),
            ),
            (
                "www/8",
                Err("`www/8` is no prefix such as 192.0.2.0/24 or 2001:db8::/32"),
            ),
        ];
        for (text, expected) in rows {
            let read = text.parse::<Prefix>();
            let shown = read.map(|p| p.to_string()).map_err(|e| e.to_string());
            assert_eq!(shown.as_deref().map_err(String::as_str), expected, "{text}");
        }
    }

    #[test]
    fn the_longest_decides() {
        let list = [
            ("10.0.0.0/8", Guard::Deny),
            ("10.1.0.0/16", Guard::Allow),
            ("10.1.2.3/32", Guard::Deny),
            ("fd00::/8", Guard::Deny),
        ];
        let prefixes = list
            .map(|(text, guard)| (text.parse().unwrap(), guard))
            .into();
        let rows = [
            ("10.2.0.1", Some("10.0.0.0/8")),
            ("10.1.0.1", Some("10.1.0.0/16")),
            ("10.1.2.3", Some("10.1.2.3/32")),
            ("11.0.0.1", None),
            ("fd00::1", Some("fd00::/8")),
            ("2001:db8::1", None),
        ];
        for (client, expected) in rows {
            let found = decisive(&prefixes, client.parse().unwrap());
            let shown = found.map(|(prefix, _)| prefix.to_string());
            assert_eq!(shown.as_deref(), expected, "{client}");
        }
    }

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
            for (prefix, guard) in changes(&old, &new) {
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
