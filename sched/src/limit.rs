//! Limits on new connections: of a service, and of each client network that asks it.
//!
//! Both are leaky buckets: a second's worth may come at once, then as many as leak. They
//! are shared by all workers and written only when a connection begins. A race between two
//! workers is decided by one compare-and-swap each; who loses too often is refused.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

/// Ticks in a second, as the callers count time.
pub const TICKS_PER_S: u32 = 16;

/// The greatest limit, connections per second: what a bucket has bits for.
pub const PER_S_MAX: u32 = 1_000_000;

/// The networks that are told apart at a time, as sets of [`WAYS`].
const SETS: usize = 4096;
const WAYS: usize = 4;

/// Compare-and-swaps that may fail before a connection is refused.
const TRIES: u32 = 64;

/// What a service takes of new connections. 0 sets no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLimits {
    /// From all clients together, connections per second.
    #[serde(default)]
    pub connections_per_s: u32,
    /// From one client network, connections per second.
    #[serde(default)]
    pub source_connections_per_s: u32,
    /// A client network's length for IPv4 clients, 1 to 32 bits.
    #[serde(default = "length_v4_bits")]
    pub source_v4_bits: u8,
    /// A client network's length for IPv6 clients, 1 to 128 bits.
    #[serde(default = "length_v6_bits")]
    pub source_v6_bits: u8,
}

fn length_v4_bits() -> u8 {
    32
}

/// What providers give to one subscriber (RFC 6177).
fn length_v6_bits() -> u8 {
    56
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            connections_per_s: 0,
            source_connections_per_s: 0,
            source_v4_bits: length_v4_bits(),
            source_v6_bits: length_v6_bits(),
        }
    }
}

impl ServiceLimits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        self.connections_per_s == 0 && self.source_connections_per_s == 0
    }

    /// The network of a client, as an address whose other bits are 0.
    pub fn network(&self, client: IpAddr) -> IpAddr {
        match client {
            IpAddr::V4(address) => {
                let mask = u32::MAX << (32 - u32::from(self.source_v4_bits.clamp(1, 32)));
                std::net::Ipv4Addr::from_bits(address.to_bits() & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX << (128 - u32::from(self.source_v6_bits.clamp(1, 128)));
                std::net::Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
        }
    }
}

/// Which limit a connection is above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Above {
    /// The service's.
    Service,
    /// Its network's.
    Source,
}

/// A service's limits and what has come of late.
pub struct Limiter {
    limits: ServiceLimits,
    all: AtomicU64,
    sources: Box<[[AtomicU64; WAYS]]>,
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Limiter").field(&self.limits).finish()
    }
}

impl Limiter {
    /// Nothing has come yet.
    pub fn new(limits: ServiceLimits) -> Self {
        let sets = match limits.source_connections_per_s {
            0 => 0,
            _ => SETS,
        };
        Self {
            limits,
            all: AtomicU64::new(0),
            sources: (0..sets).map(|_| Default::default()).collect(),
        }
    }

    /// What is limited.
    pub fn limits(&self) -> &ServiceLimits {
        &self.limits
    }

    /// The same with buckets of its own, for trying out what would become of it.
    #[must_use]
    pub fn forked(&self) -> Self {
        let copy = |bucket: &AtomicU64| AtomicU64::new(bucket.load(Relaxed));
        let set = |set: &[AtomicU64; WAYS]| std::array::from_fn(|way| copy(&set[way]));
        Self {
            limits: self.limits,
            all: copy(&self.all),
            sources: self.sources.iter().map(set).collect(),
        }
    }

    /// Takes a connection in, or says what it is above. `now` in ticks; `hash` is of the
    /// client's [network](ServiceLimits::network), under a key that clients do not know.
    pub fn admit(&self, now: u32, hash: u64) -> Result<(), Above> {
        let limits = &self.limits;
        // The network first: what it is refused for must not cost the others.
        if limits.source_connections_per_s > 0
            && !self.admit_source(now, hash, limits.source_connections_per_s)
        {
            return Err(Above::Source);
        }
        if limits.connections_per_s > 0 && !pour::<Whole>(&self.all, now, limits.connections_per_s)
        {
            return Err(Above::Service);
        }
        Ok(())
    }

    fn admit_source(&self, now: u32, hash: u64, per_s: u32) -> bool {
        let set = &self.sources[(hash >> 40) as usize % SETS];
        let tag = hash & Tagged::TAG;
        let own = |bucket: &&AtomicU64| bucket.load(Relaxed) & Tagged::TAG == tag;
        if let Some(bucket) = set.iter().find(own) {
            return pour::<Tagged>(bucket, now, per_s);
        }
        // A new network takes the place of the one that has been silent longest.
        let silence = |bucket: &&AtomicU64| Tagged::since(bucket.load(Relaxed), now);
        let Some(bucket) = set.iter().max_by_key(silence) else {
            return true;
        };
        bucket.store(Tagged::pack(tag, now, 0), Relaxed);
        pour::<Tagged>(bucket, now, per_s)
    }
}

/// How a bucket lies in a word.
trait Bucket {
    /// Ticks since the last drop fell in.
    fn since(word: u64, now: u32) -> u32;
    /// What was in it then, in sixteenths of a connection.
    fn level(word: u64) -> u32;
    /// The same bucket at another time and level.
    fn at(word: u64, now: u32, level: u32) -> u64;
}

/// 32 bits of time, 32 of level.
struct Whole;

impl Bucket for Whole {
    fn since(word: u64, now: u32) -> u32 {
        now.wrapping_sub((word >> 32) as u32)
    }

    fn level(word: u64) -> u32 {
        word as u32
    }

    fn at(_: u64, now: u32, level: u32) -> u64 {
        u64::from(now) << 32 | u64::from(level)
    }
}

/// 20 bits of time (18 hours, after which a silent network seems a little less silent), 24
/// of level, 20 of the network's hash.
struct Tagged;

impl Tagged {
    const TAG: u64 = (1 << 20) - 1;
    const TIME: u32 = (1 << 20) - 1;

    fn pack(tag: u64, now: u32, level: u32) -> u64 {
        u64::from(now & Self::TIME) << 44 | u64::from(level) << 20 | tag
    }
}

impl Bucket for Tagged {
    fn since(word: u64, now: u32) -> u32 {
        now.wrapping_sub((word >> 44) as u32) & Self::TIME
    }

    fn level(word: u64) -> u32 {
        (word >> 20) as u32 & 0xff_ffff
    }

    fn at(word: u64, now: u32, level: u32) -> u64 {
        Self::pack(word & Self::TAG, now, level)
    }
}

/// Lets the bucket leak until now, and one more connection in if it fits.
fn pour<B: Bucket>(bucket: &AtomicU64, now: u32, per_s: u32) -> bool {
    let mut word = bucket.load(Relaxed);
    for _ in 0..TRIES {
        let leaked = B::since(word, now).saturating_mul(per_s);
        let level = B::level(word).saturating_sub(leaked) + TICKS_PER_S;
        if level > per_s * TICKS_PER_S {
            return false;
        }
        match bucket.compare_exchange_weak(word, B::at(word, now, level), Relaxed, Relaxed) {
            Ok(_) => return true,
            Err(other) => word = other,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(connections_per_s: u32, source_connections_per_s: u32) -> Limiter {
        Limiter::new(ServiceLimits {
            connections_per_s,
            source_connections_per_s,
            ..ServiceLimits::default()
        })
    }

    /// How many of so many connections at once get in.
    fn burst(limiter: &Limiter, now: u32, hash: u64, of: u32) -> usize {
        (0..of).filter(|_| limiter.admit(now, hash).is_ok()).count()
    }

    #[test]
    fn a_second_at_once_then_as_many_as_leak() {
        let rows = [
            ("at the beginning, whatever the time", 5_000_000, 100),
            ("at once again", 5_000_000, 0),
            ("a tick later", 5_000_001, 6),
            ("half a second later", 5_000_009, 50),
            ("a long time later", 6_000_000, 100),
        ];
        for (whole, limiter) in [(true, limiter(100, 0)), (false, limiter(0, 100))] {
            for (what, now, expected) in rows {
                assert_eq!(burst(&limiter, now, 7, 1000), expected, "{what}, {whole}");
            }
        }
    }

    #[test]
    fn networks_do_not_pay_for_each_other() {
        let limiter = limiter(0, 10);
        for network in 0..1000u64 {
            let hash = network.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert_eq!(burst(&limiter, 99, hash, 20), 10, "{network}");
        }
        assert_eq!(limiter.admit(99, 0x9e37_79b9_7f4a_7c15), Err(Above::Source));
    }

    #[test]
    fn what_a_network_is_refused_costs_the_service_nothing() {
        let limiter = limiter(15, 10);
        assert_eq!(burst(&limiter, 1, 1, 1000), 10);
        assert_eq!(burst(&limiter, 1, 2 << 40, 1000), 5);
        assert_eq!(limiter.admit(1, 3 << 41), Err(Above::Service));
    }

    #[test]
    fn the_greatest_limit_fits() {
        let limiter = limiter(PER_S_MAX, PER_S_MAX);
        assert_eq!(burst(&limiter, 3, 1, PER_S_MAX + 5), PER_S_MAX as usize);
        assert_eq!(burst(&limiter, 4, 1, PER_S_MAX), PER_S_MAX as usize / 16);
    }

    #[test]
    fn a_fork_leaves_no_trace() {
        let limiter = limiter(5, 5);
        assert_eq!(burst(&limiter.forked(), 1, 1, 9), 5);
        assert_eq!(burst(&limiter, 1, 1, 9), 5);
        assert_eq!(burst(&limiter.forked(), 1, 1, 9), 0);
    }

    #[test]
    fn networks() {
        let limits = ServiceLimits {
            source_v4_bits: 24,
            source_v6_bits: 56,
            ..ServiceLimits::default()
        };
        let rows = [
            ("10.1.2.3", "10.1.2.0"),
            ("fd01:2:3:4567::1", "fd01:2:3:4500::"),
        ];
        for (client, network) in rows {
            let network: IpAddr = network.parse().unwrap();
            assert_eq!(limits.network(client.parse().unwrap()), network);
        }
    }
}
