//! `wrr`, weighted round robin: passes over the list with a required weight that falls
//! from the greatest weight in steps of the weights' greatest common divisor. In a full
//! turn each usable server is taken `weight / divisor` times.
//!
//! As in Linux's `ip_vs_wrr.c`, any change of the list begins the pass anew at the list's
//! head but keeps the required weight, cut to the new weights. The kernel walks each pass
//! even where none can hit; here passes above every usable server's weight are skipped at
//! once, which chooses the same and bounds the loop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::{Before, Request, Revision, Scheduler, gcd};
use crate::server::RealServer;
use crate::service::SchedulerFlags;

/// Four passes suffice while no server changes between usable and not; a few more where
/// other workers bind connections meanwhile.
const PASSES_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct WeightedRoundRobin {
    /// A packed [`Place`].
    place: AtomicU64,
    /// The greatest weight less `step` - 1, so that the last pass requires 1.
    top: u32,
    /// The greatest common divisor of all weights other than 0.
    step: u32,
}

/// Where the walk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// The server taken last; none stands for the list's head.
    last: Option<u32>,
    /// The weight that this pass requires.
    required: u32,
}

impl Place {
    fn pack(self) -> u64 {
        let last = self.last.map_or(0, |index| u64::from(index) + 1);
        last << 32 | u64::from(self.required)
    }

    fn unpack(packed: u64) -> Self {
        Self {
            last: ((packed >> 32) as u32).checked_sub(1),
            required: packed as u32,
        }
    }
}

impl WeightedRoundRobin {
    pub fn new(servers: &[Arc<RealServer>]) -> Self {
        Self::requiring(|top, _| top, servers)
    }

    fn requiring(required: impl Fn(u32, u32) -> u32, servers: &[Arc<RealServer>]) -> Self {
        let weights = || servers.iter().map(|s| s.spec.weight).filter(|&w| w > 0);
        let step = weights().reduce(gcd).unwrap_or(1);
        let top = weights().max().map_or(0, |max| max - (step - 1));
        let place = Place {
            last: None,
            required: required(top, step),
        };
        Self {
            place: AtomicU64::new(place.pack()),
            top,
            step,
        }
    }

    /// One walk from `place` on: where it ends, and the server it chose.
    fn walk(&self, mut place: Place, servers: &[Arc<RealServer>]) -> (Place, Option<usize>) {
        let first = place.last;
        let (mut stop, mut last_pass, mut restarted) = (None, false, false);
        for _ in 0..PASSES_MAX {
            let mut greatest = 0;
            let from = place.last.map_or(0, |last| last as usize + 1);
            for (index, server) in servers.iter().enumerate().skip(from) {
                let weight = usable_weight(server);
                greatest = greatest.max(weight);
                place.last = Some(index as u32);
                if weight >= place.required {
                    return (place, Some(index));
                }
                if place.last == stop {
                    return (place, None);
                }
            }
            // Servers before `from` were not looked at in this pass.
            greatest = servers[..from.min(servers.len())]
                .iter()
                .map(|server| usable_weight(server))
                .fold(greatest, u32::max);
            place.last = None;
            if place.required <= self.step {
                place.required = self.top;
                if last_pass || first.is_none() {
                    return (place, None);
                }
                restarted = true;
            } else {
                place.required -= self.step;
            }
            place.required = self.skip_to(place.required, greatest);
            last_pass = place.required <= self.step;
            if last_pass && restarted {
                stop = first;
            }
        }
        (place, None)
    }

    /// The first pass at or below `required` that can hit a server of weight `greatest`,
    /// or the last pass of all.
    fn skip_to(&self, required: u32, greatest: u32) -> u32 {
        let target = greatest.max(self.step);
        let above = required.saturating_sub(target);
        required - above.div_ceil(self.step) * self.step
    }
}

impl Scheduler for WeightedRoundRobin {
    fn name(&self) -> &'static str {
        "wrr"
    }

    fn schedule(&self, _: &Request, servers: &[Arc<RealServer>]) -> Option<usize> {
        if self.top == 0 {
            return None;
        }
        let mut packed = self.place.load(Relaxed);
        loop {
            let (place, chosen) = self.walk(Place::unpack(packed), servers);
            let moved = self
                .place
                .compare_exchange_weak(packed, place.pack(), Relaxed, Relaxed);
            match moved {
                Ok(_) => return chosen,
                Err(now) => packed = now,
            }
        }
    }

    fn revised(&self, servers: &[Arc<RealServer>], _: SchedulerFlags) -> Arc<dyn Scheduler> {
        let before = Place::unpack(self.place.load(Relaxed)).required;
        let required = |top, step| still_required(before, top, step);
        Arc::new(Self::requiring(required, servers))
    }

    fn revision(&self, servers: &[Arc<RealServer>]) -> Option<Box<dyn Revision>> {
        let mut weights = Weights {
            required: Place::unpack(self.place.load(Relaxed)).required,
            counts: BTreeMap::new(),
            step: 1,
        };
        servers.iter().for_each(|s| weights.put(s.spec.weight));
        Some(Box::new(weights))
    }

    fn forked(&self) -> Option<Arc<dyn Scheduler>> {
        Some(Arc::new(Self {
            place: AtomicU64::new(self.place.load(Relaxed)),
            ..*self
        }))
    }
}

/// The weight that the pass under way requires once weights have changed
/// (`ip_vs_wrr_dest_changed`).
fn still_required(before: u32, top: u32, step: u32) -> u32 {
    match before {
        0 => top,
        _ if before > top => top,
        _ if step > 1 => before / step * step + 1,
        _ => before,
    }
}

/// The weights of a list that changes step by step.
#[derive(Debug)]
struct Weights {
    required: u32,
    /// How many servers have each weight; 0 does not count.
    counts: BTreeMap<u32, u32>,
    /// The weights' greatest common divisor; 1 where there is none.
    step: u32,
}

impl Weights {
    fn put(&mut self, weight: u32) {
        if weight == 0 {
            return;
        }
        self.step = match self.counts.is_empty() {
            true => weight,
            false => gcd(self.step, weight),
        };
        *self.counts.entry(weight).or_default() += 1;
    }

    fn take(&mut self, weight: u32) {
        let Some(count) = self.counts.get_mut(&weight) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&weight);
            self.step = self.divisor();
        }
    }

    /// The divisor of weights that `step` divides: found as soon as it is down to that.
    fn divisor(&self) -> u32 {
        let mut divisor = 0;
        for &weight in self.counts.keys() {
            divisor = gcd(weight, divisor);
            if divisor == self.step {
                break;
            }
        }
        divisor.max(1)
    }

    fn top(&self) -> u32 {
        let greatest = self.counts.last_key_value();
        greatest.map_or(0, |(greatest, _)| greatest - (self.step - 1))
    }

    fn changed(&mut self) {
        self.required = still_required(self.required, self.top(), self.step);
    }
}

impl Revision for Weights {
    fn added(&mut self, server: &RealServer) {
        self.put(server.spec.weight);
        self.changed();
    }

    fn edited(&mut self, old: &RealServer, new: &RealServer) {
        self.take(old.spec.weight);
        self.put(new.spec.weight);
        self.changed();
    }

    fn removed(&mut self, server: &RealServer, _: Before<'_>) {
        self.take(server.spec.weight);
        self.changed();
    }

    fn finish(self: Box<Self>, servers: &[Arc<RealServer>]) -> Arc<dyn Scheduler> {
        Arc::new(WeightedRoundRobin::requiring(|_, _| self.required, servers))
    }
}

fn usable_weight(server: &RealServer) -> u32 {
    if server.is_usable() {
        server.spec.weight
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scheduler::{SchedulerFlags, by_name, request};
    use crate::server::{Counted, Forwarding, ServerId, ServerKey, ServerSpec};
    use crate::service::ServiceId;

    fn server(n: u32, weight: u32, full: bool) -> Arc<RealServer> {
        let key = ServerKey {
            address: std::net::Ipv4Addr::from_bits(n).into(),
            port: 80,
        };
        let spec = ServerSpec {
            forwarding: Forwarding::Route,
            weight,
            upper_threshold: 1,
            lower_threshold: 1,
        };
        let server = RealServer::new(ServerId(n), ServiceId(0), key, spec);
        if full {
            server.bind(Counted::Inactive);
        }
        Arc::new(server)
    }

    /// The rule without any skipping: go on from the server after the last one, require
    /// less by one step at each end of the list, and give up once every server was asked
    /// for a weight of at least 1.
    fn plain(wrr: &WeightedRoundRobin, servers: &[Arc<RealServer>]) -> Option<usize> {
        let mut place = Place::unpack(wrr.place.load(Relaxed));
        for _ in 0..10_000 {
            let next = place.last.map_or(0, |last| last as usize + 1);
            if next < servers.len() {
                place.last = Some(next as u32);
                if usable_weight(&servers[next]) >= place.required {
                    return Some(next);
                }
            } else {
                place.last = None;
                place.required = match place.required.checked_sub(wrr.step) {
                    None | Some(0) => wrr.top,
                    Some(required) => required,
                };
            }
        }
        None
    }

    proptest! {
        #[test]
        fn skipping_passes_chooses_the_same(
            weights in prop::collection::vec(0..20u32, 1..7),
            factor in prop_oneof![Just(1), Just(6)],
            turns in prop::collection::vec((any::<u8>(), any::<bool>()), 1..40),
        ) {
            let list = |full: u8| -> Vec<_> {
                let full = |n: u32| full & full >> 1 & 1 << n != 0;
                let row = |(n, &w): (u32, &u32)| server(n, w * factor, full(n));
                (0..).zip(&weights).map(row).collect()
            };
            let mut wrr = WeightedRoundRobin::new(&list(0));
            for (full, edited) in turns {
                let servers = list(full);
                if edited {
                    let required = Place::unpack(wrr.place.load(Relaxed)).required;
                    wrr = WeightedRoundRobin::new(&servers);
                    wrr.place = AtomicU64::new(Place { last: None, required }.pack());
                }
                let expected = if wrr.top == 0 { None } else { plain(&wrr, &servers) };
                prop_assert_eq!(wrr.schedule(&request(), &servers), expected);
            }
        }
    }

    #[test]
    fn great_weights_take_few_passes() {
        let servers = [server(0, i32::MAX as u32, true), server(1, 1, false)];
        let wrr = by_name("wrr", SchedulerFlags::default(), &servers).unwrap();
        for _ in 0..3 {
            assert_eq!(wrr.schedule(&request(), &servers), Some(1));
        }
    }
}
