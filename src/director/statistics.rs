//! Counters as listings show them, and rates.
//!
//! As Linux does (net/netfilter/ipvs/ip_vs_est.c), both move only once in
//! [`ESTIMATE_S`]: between two estimates listings repeat themselves. Rates are
//! exponentially weighted, a quarter of the new sample and three of the old, in fixed
//! point so that they round as Linux's do.
//!
//! Workers' counters never go back: zeroing, and a number given to a new service, only
//! move the base that is taken off.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use cli::api::{Rates, Stats};
use dataplane::counters::{Counters, Traffic};
use sched::server::ServerId;
use sched::service::ServiceId;

use super::state_dir::journal::Base;

/// Time between estimates, s.
pub const ESTIMATE_S: u64 = 2;

/// Connections and packets per second are kept times 2^10, bytes times 2^5. The shift of
/// a sample is one less, as a sample spans 2 s.
const COUNT_SHIFT: u32 = 10;
const BYTES_SHIFT: u32 = 5;

/// Counters and rates of all services and servers. A clone costs little: it shares what
/// neither side changes.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    services: Meters,
    servers: Meters,
    /// Bases to be written down.
    changed: Vec<Base>,
}

/// Five counts in the order of [`Stats`].
type Counts = [u64; 5];

#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    base: Counts,
    shown: Counts,
    scaled: Counts,
}

/// Meters that lie together, and are copied together where a clone shares them.
const LOT: usize = 64;

/// Meters by number.
#[derive(Clone, Debug, Default)]
struct Meters(Vec<Arc<[Meter; LOT]>>);

impl Meters {
    fn get(&self, number: u32) -> Meter {
        let lot = self.0.get(number as usize / LOT);
        lot.map_or_else(Meter::default, |lot| lot[number as usize % LOT])
    }

    fn slot(&mut self, number: u32) -> &mut Meter {
        let lot = number as usize / LOT;
        if self.0.len() <= lot {
            let empty = || Arc::new([Meter::default(); LOT]);
            self.0.resize_with(lot + 1, empty);
        }
        &mut Arc::make_mut(&mut self.0[lot])[number as usize % LOT]
    }
}

impl Statistics {
    /// A new service has this number: it starts at 0.
    pub fn start_service(&mut self, id: ServiceId, workers: &[Arc<Counters>]) {
        let counts = service_counts(id, workers);
        *self.services.slot(id.0) = Meter::new(counts);
        self.changed.push(Base::Service(id, counts));
    }

    /// A new server has this number: it starts at 0.
    pub fn start_server(&mut self, id: ServerId, workers: &[Arc<Counters>]) {
        let counts = server_counts(id, workers);
        *self.servers.slot(id.0) = Meter::new(counts);
        self.changed.push(Base::Server(id, counts));
    }

    /// Sets a service back to 0.
    pub fn zero_service(&mut self, id: ServiceId) {
        let base = self.services.slot(id.0).zero();
        self.changed.push(Base::Service(id, base));
    }

    /// Sets a server back to 0.
    pub fn zero_server(&mut self, id: ServerId) {
        let base = self.servers.slot(id.0).zero();
        self.changed.push(Base::Server(id, base));
    }

    /// Goes on from the counters as they are, with the bases of before. Rates begin at 0.
    pub fn resume(bases: impl IntoIterator<Item = Base>, workers: &[Arc<Counters>]) -> Self {
        let mut statistics = Self::default();
        for base in bases {
            let (meter, base, counts) = match base {
                Base::Service(id, base) => {
                    let counts = service_counts(id, workers);
                    (statistics.services.slot(id.0), base, counts)
                }
                Base::Server(id, base) => {
                    let counts = server_counts(id, workers);
                    (statistics.servers.slot(id.0), base, counts)
                }
            };
            *meter = Meter {
                base,
                ..Meter::new(counts)
            };
        }
        statistics
    }

    /// The bases that changed since this was last asked.
    pub fn take_changed(&mut self) -> Vec<Base> {
        std::mem::take(&mut self.changed)
    }

    /// The bases of these services and servers.
    pub fn bases(
        &self,
        services: impl Iterator<Item = ServiceId>,
        servers: impl Iterator<Item = ServerId>,
    ) -> Vec<Base> {
        let base = |meters: &Meters, number: u32| meters.get(number).base;
        let services = services.map(|id| Base::Service(id, base(&self.services, id.0)));
        let servers = servers.map(|id| Base::Server(id, base(&self.servers, id.0)));
        services.chain(servers).collect()
    }

    /// Takes up what workers have counted: to be called every [`ESTIMATE_S`].
    pub fn estimate(
        &mut self,
        services: impl Iterator<Item = ServiceId>,
        servers: impl Iterator<Item = ServerId>,
        workers: &[Arc<Counters>],
    ) {
        for id in services {
            self.services
                .slot(id.0)
                .estimate(service_counts(id, workers));
        }
        for id in servers {
            self.servers.slot(id.0).estimate(server_counts(id, workers));
        }
    }

    /// What listings show of a service.
    pub fn service(&self, id: ServiceId) -> (Stats, Rates) {
        read(&self.services, id.0)
    }

    /// What a service has counted until this moment, whatever was estimated last.
    pub fn live_service(&self, id: ServiceId, workers: &[Arc<Counters>]) -> Stats {
        live(&self.services, id.0, service_counts(id, workers))
    }

    /// What a server has counted until this moment.
    pub fn live_server(&self, id: ServerId, workers: &[Arc<Counters>]) -> Stats {
        live(&self.servers, id.0, server_counts(id, workers))
    }

    /// What listings show of a server.
    pub fn server(&self, id: ServerId) -> (Stats, Rates) {
        read(&self.servers, id.0)
    }
}

impl Meter {
    fn new(counts: Counts) -> Self {
        Self {
            base: counts,
            shown: counts,
            scaled: [0; 5],
        }
    }

    /// The base is what was shown last, so what came in since the last estimate still
    /// shows at the next one (`ip_vs_zero_stats`).
    fn zero(&mut self) -> Counts {
        self.base = self.shown;
        self.scaled = [0; 5];
        self.base
    }

    fn estimate(&mut self, counts: Counts) {
        for (place, &count) in counts.iter().enumerate() {
            let sample = count.wrapping_sub(self.shown[place]) << (shift(place) - 1);
            let old = self.scaled[place] as i64;
            self.scaled[place] = (old + ((sample as i64 - old) >> 2)) as u64;
        }
        self.shown = counts;
    }

    fn stats(&self) -> Stats {
        self.since_base(self.shown)
    }

    fn since_base(&self, counts: Counts) -> Stats {
        let [connections, in_packets, out_packets, in_bytes, out_bytes] =
            std::array::from_fn(|i| counts[i].wrapping_sub(self.base[i]));
        Stats {
            connections,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
        }
    }

    fn rates(&self) -> Rates {
        let [connections, in_packets, out_packets, in_bytes, out_bytes] =
            std::array::from_fn(|i| (self.scaled[i] + (1 << (shift(i) - 1)) - 1) >> shift(i));
        Rates {
            connections,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
        }
    }
}

fn shift(place: usize) -> u32 {
    if place < 3 { COUNT_SHIFT } else { BYTES_SHIFT }
}

fn read(meters: &Meters, number: u32) -> (Stats, Rates) {
    let meter = meters.get(number);
    (meter.stats(), meter.rates())
}

fn live(meters: &Meters, number: u32, counts: Counts) -> Stats {
    meters.get(number).since_base(counts)
}

fn service_counts(id: ServiceId, workers: &[Arc<Counters>]) -> Counts {
    sum(workers.iter().map(|counters| counters.service(id)))
}

fn server_counts(id: ServerId, workers: &[Arc<Counters>]) -> Counts {
    sum(workers.iter().map(|counters| counters.server(id)))
}

fn sum<'a>(traffic: impl Iterator<Item = &'a Traffic>) -> Counts {
    let mut total = [0u64; 5];
    for one in traffic {
        let counts = [
            &one.connections,
            &one.in_packets,
            &one.out_packets,
            &one.in_bytes,
            &one.out_bytes,
        ];
        for (sum, count) in total.iter_mut().zip(counts) {
            *sum = sum.wrapping_add(count.load(Relaxed));
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ServiceId = ServiceId(1);

    fn workers() -> Vec<Arc<Counters>> {
        (0..2).map(|_| Arc::new(Counters::new(2, 2))).collect()
    }

    fn estimate(statistics: &mut Statistics, workers: &[Arc<Counters>]) {
        statistics.estimate([ID].into_iter(), [ServerId(0)].into_iter(), workers);
    }

    #[test]
    fn rates_follow_linux_estimator() {
        // 1,000 connections at once, then silence: rate * 2^10 after each step by hand.
        let workers = workers();
        let mut statistics = Statistics::default();
        statistics.start_service(ID, &workers);
        for _ in 0..500 {
            workers.iter().for_each(|w| w.service(ID).connection());
        }
        let mut expected: i64 = 0;
        for step in 0..6 {
            estimate(&mut statistics, &workers);
            let sample = if step == 0 { 1000 << 9 } else { 0 };
            expected += (sample - expected) >> 2;
            let rate = statistics.service(ID).1.connections;
            assert_eq!(rate, (expected as u64 + 0x1ff) >> 10, "step {step}");
        }
        assert_eq!(statistics.service(ID).0.connections, 1000);
    }

    #[test]
    fn bytes_round_as_linux_rounds() {
        let workers = workers();
        let mut statistics = Statistics::default();
        statistics.start_service(ID, &workers);
        workers[0].service(ID).inbound(1500);
        estimate(&mut statistics, &workers);
        let rates = statistics.service(ID).1;
        // 1500 << 4 = 24000, a quarter is 6000; (6000 + 15) >> 5 = 187.
        assert_eq!(rates.in_bytes, 187);
        // 1 << 9 = 512, a quarter is 128; (128 + 511) >> 10 = 0.
        assert_eq!(rates.in_packets, 0);
    }

    #[test]
    fn counters_move_at_estimates_only_and_zero_takes_what_was_shown() {
        let workers = workers();
        let mut statistics = Statistics::default();
        statistics.start_service(ID, &workers);
        let shown = |s: &Statistics| s.service(ID).0.in_packets;
        workers[0].service(ID).inbound(100);
        assert_eq!(shown(&statistics), 0, "before an estimate");
        assert_eq!(statistics.live_service(ID, &workers).in_packets, 1, "live");
        estimate(&mut statistics, &workers);
        assert_eq!(shown(&statistics), 1);
        workers[1].service(ID).inbound(100);
        statistics.zero_service(ID);
        assert_eq!(shown(&statistics), 0, "zeroed");
        assert_eq!(statistics.service(ID).1, Rates::default());
        estimate(&mut statistics, &workers);
        assert_eq!(
            shown(&statistics),
            1,
            "what came before the zero but after the estimate"
        );
    }

    #[test]
    fn the_next_process_goes_on() {
        let workers = workers();
        let mut before = Statistics::default();
        workers[0].service(ID).inbound(100);
        before.start_service(ID, &workers);
        workers[1].service(ID).inbound(70);
        let bases = before.take_changed();
        let after = Statistics::resume(bases.clone(), &workers);
        assert_eq!(after.service(ID).0.in_bytes, 70);
        assert_eq!(after.bases([ID].into_iter(), [].into_iter()), bases);
    }

    #[test]
    fn a_number_used_again_starts_at_zero() {
        let workers = workers();
        let mut statistics = Statistics::default();
        workers[0].service(ID).inbound(100);
        statistics.start_service(ID, &workers);
        estimate(&mut statistics, &workers);
        assert_eq!(statistics.service(ID).0, Stats::default());
        assert_eq!(statistics.service(ID).1, Rates::default());
    }
}
