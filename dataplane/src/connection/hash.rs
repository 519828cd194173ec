//! Where a client's connections begin in the index. Keyed, so that nobody who does not
//! know the seed can aim clients at one bucket. Own code and not ahash: the table may
//! live in shared memory, where the next process must compute the same, and ahash's
//! result depends on its version and on the target features it was built with.

use sched::service::Family;

use super::entry::family_bit;
use crate::address::Endpoint;

/// The hash of a client's endpoint in one table, computed once for several steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hash(pub(super) u64);

/// The seed, spread to what the rounds need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys([u64; 4]);

impl Keys {
    pub(super) fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| splitmix(&mut state)))
    }

    #[inline(always)]
    pub(super) fn hash(&self, family: Family, protocol: u8, client: Endpoint) -> Hash {
        let [k0, k1, k2, k3] = self.0;
        // Address and port as packets have them: nothing is turned round for it.
        let about = u64::from(client.port.to_be())
            | u64::from(protocol) << 16
            | u64::from(family_bit(family)) << 24;
        let first = match family {
            Family::V4 => fold(u64::from((client.address as u32).to_be()) ^ k0, about ^ k1),
            Family::V6 => {
                let address = client.address.to_be();
                fold(address as u64 ^ k0, (address >> 64) as u64 ^ k1) ^ about
            }
        };
        Hash(fold(first ^ k2, k3))
    }

    /// The hash of both ends of a connection, of that of its client and the other end.
    pub(super) fn with(&self, client: Hash, other: Other) -> Hash {
        let [k0, k1, k2, k3] = self.0;
        let (end, side) = match other {
            Other::Virtual(end) => (end, 0),
            Other::Real(end) => (end, 1 << 16),
        };
        let address = fold(end.address as u64 ^ k2, (end.address >> 64) as u64 ^ k3);
        let about = address ^ (u64::from(end.port) | side);
        // Twice, since one factor is the same for all of a client's.
        Hash(fold(fold(client.0 ^ k0, about ^ k1) ^ k2, k3))
    }
}

/// The other end of a connection, as seen from its client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Other {
    /// What the client asked for.
    Virtual(Endpoint),
    /// The server that answers it.
    Real(Endpoint),
}

impl Hash {
    /// All its bits, for tables of other kinds.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Of `buckets`, the first to look in.
    #[inline(always)]
    pub(super) fn home(self, buckets: usize) -> usize {
        (((self.0 >> 32) * buckets as u64) >> 32) as usize
    }

    /// How far the next bucket to look in is, 1 to `buckets` - 1. Of its own for each
    /// client, so that one client's thousands do not lie in its neighbours' way.
    #[inline]
    pub(super) fn stride(self, buckets: usize) -> usize {
        let low = self.0 & 0xffff_ffff;
        1 + ((low * (buckets as u64 - 1)) >> 32) as usize
    }

    /// What a bucket remembers of it; never 0, and odd.
    #[inline(always)]
    pub(super) fn tag(self) -> u16 {
        self.0 as u16 | 1
    }

    /// What a bucket remembers of the hash of both ends: never 0, and even, so that it is no
    /// [`Hash::tag`].
    pub(super) fn far_tag(self) -> u16 {
        (self.0 as u16 | 3) - 1
    }
}

/// Multiplies to 128 bits and folds the halves: each result bit hangs on all bits of both.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide >> 64) as u64 ^ wide as u64
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
/// The result is made odd: a key of 0 would swallow its factor.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) | 1
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Pearson's statistic of counts that should be equal, by degree of freedom.
    fn unevenness(counts: &[u32]) -> f64 {
        let mean = counts.iter().sum::<u32>() as f64 / counts.len() as f64;
        let sum: f64 = counts.iter().map(|&c| (c as f64 - mean).powi(2)).sum();
        sum / mean / (counts.len() - 1) as f64
    }

    #[test]
    fn ordinary_clients_spread_evenly_over_buckets_and_tags() {
        type Client = fn(u32) -> (Family, u128, u16);
        let rows: [(&str, Client); 5] = [
            ("one client, all ports", |i| {
                (Family::V4, 0x0a00_0001, i as u16)
            }),
            ("neighbours, one port", |i| {
                (Family::V4, 0x0a00_0000 + i as u128, 40_000)
            }),
            ("networks, one port", |i| {
                (Family::V4, (i as u128) << 16, 53)
            }),
            ("IPv6 hosts", |i| {
                (Family::V6, (0x2001_0db8 << 96) + i as u128, 1)
            }),
            ("IPv6 networks", |i| (Family::V6, (i as u128) << 64, 1)),
        ];
        for (what, client) in rows {
            for seed in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
                let keys = Keys::new(seed);
                let (mut homes, mut tags) = (vec![0; 509], vec![0; 256]);
                for i in 0..if cfg!(miri) { 2_000 } else { 60_000 } {
                    let (family, address, port) = client(i);
                    let hash = keys.hash(family, 6, Endpoint { address, port });
                    homes[hash.home(509)] += 1;
                    tags[usize::from(hash.tag() >> 8)] += 1;
                }
                for counts in [&homes, &tags] {
                    assert!(
                        unevenness(counts) < 1.4,
                        "{what}, seed {seed}: {}",
                        unevenness(counts)
                    );
                }
            }
        }
    }

    #[test]
    fn one_endpoints_connections_spread_evenly() {
        let client = Endpoint {
            address: 0x0a00_0001,
            port: 53,
        };
        type Ends = fn(u32) -> Other;
        let rows: [(&str, Ends); 4] = [
            ("all ports", |i| {
                Other::Virtual(Endpoint {
                    address: 0x0a01_0001,
                    port: i as u16,
                })
            }),
            ("neighbours", |i| {
                Other::Virtual(Endpoint {
                    address: 0x0a01_0000 + u128::from(i),
                    port: 80,
                })
            }),
            ("IPv6 networks", |i| {
                Other::Virtual(Endpoint {
                    address: u128::from(i) << 64,
                    port: 80,
                })
            }),
            ("servers", |i| {
                Other::Real(Endpoint {
                    address: 0x0a02_0000 + u128::from(i),
                    port: 80,
                })
            }),
        ];
        for (what, other) in rows {
            for seed in [0, 1, u64::MAX] {
                let keys = Keys::new(seed);
                let home = keys.hash(Family::V4, 17, client);
                let (mut homes, mut tags) = (vec![0; 509], vec![0; 256]);
                for i in 0..if cfg!(miri) { 2_000 } else { 60_000 } {
                    let hash = keys.with(home, other(i));
                    homes[hash.home(509)] += 1;
                    tags[usize::from(hash.far_tag() >> 8)] += 1;
                    assert!(hash.far_tag() != 0 && hash.far_tag().is_multiple_of(2));
                }
                for counts in [&homes, &tags] {
                    let uneven = unevenness(counts);
                    assert!(uneven < 1.4, "{what}, seed {seed}: {uneven}");
                }
            }
        }
    }

    #[test]
    fn all_that_identifies_a_client_counts() {
        let keys = Keys::new(7);
        let end = Endpoint {
            address: 9,
            port: 5,
        };
        let base = keys.hash(Family::V4, 6, end);
        let other = [
            keys.hash(Family::V6, 6, end),
            keys.hash(Family::V4, 17, end),
            keys.hash(Family::V4, 6, Endpoint { port: 6, ..end }),
            keys.hash(Family::V4, 6, Endpoint { address: 8, ..end }),
            Keys::new(8).hash(Family::V4, 6, end),
        ];
        assert!(other.iter().all(|h| *h != base));
    }
}
