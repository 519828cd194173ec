//! What connections cost: to begin them, to keep them, to find them again, to let them
//! expire, and what more than one worker does to all that. Through the whole director, with
//! TCP over IPv4 and NAT.

use std::fs;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use dataplane::address::Endpoint;
use dataplane::connection::table::{Key, Table};
use dataplane::time::ticks;
use sched::service::{Family, Protocol};
use serde::{Deserialize, Serialize};

use crate::pipeline::{BURST, Bench, CONNECTIONS_MAX, Method, Options};
use crate::spread::Spread;
use crate::traffic::{ACK, SYN, client};
use crate::world::{VIRTUAL_PORT, World, virtual_address};

/// Room in a table beside the connections that are to fit: places that workers hold ready.
const SLACK: usize = 4096;

/// Packets of a round of look-ups.
const PACKETS: u64 = 500_000;

/// Longer than any state lasts, s.
const FOREVER_S: u32 = 1000;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Numbers of connections.
    pub sizes: Vec<u64>,
    /// Numbers of threads, for contention.
    pub threads: Vec<usize>,
    /// Connections for contention, all threads together.
    pub shared: u64,
    /// Rounds of look-ups.
    pub rounds: usize,
    /// The cores, one for each thread.
    pub cores: Vec<usize>,
}

/// What came out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// By number of connections.
    pub sizes: Vec<Size>,
    /// By number of threads.
    pub contention: Vec<Contention>,
}

/// At one number of connections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Size {
    /// Connections.
    pub connections: u64,
    /// To begin one, from its SYN: ns, the first time, when memory comes from the system.
    pub begin_ns: f64,
    /// The same again after all expired, when memory is there already.
    pub again_ns: f64,
    /// Growth of this process's memory for each, table and all.
    pub bytes: f64,
    /// A packet of one of them, at random, ns.
    pub packet_ns: Spread,
    /// The table's look-up alone, one after the other, ns.
    pub find_ns: Spread,
    /// To let one expire, ns.
    pub expire_ns: f64,
    /// The longest that one burst's share of that took, us.
    pub expire_most_us: f64,
}

/// With several threads over one table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contention {
    /// Threads, each with a core.
    pub threads: usize,
    /// New connections a second, all together.
    pub begun_per_s: f64,
    /// Packets of any of the connections a second, all together.
    pub packets_per_s: f64,
}

/// Measures.
///
/// # Errors
/// What the plan asks for that cannot be, in words.
pub fn run(plan: &Plan, mut said: impl FnMut(&str)) -> Result<Report, String> {
    check(plan)?;
    pin(plan.cores[0])?;
    let mut report = Report::default();
    for &connections in &plan.sizes {
        said(&format!("{connections} connections"));
        report.sizes.push(at_size(connections, plan.rounds));
    }
    for &threads in &plan.threads {
        said(&format!("{threads} threads"));
        report.contention.push(contention(plan, threads)?);
    }
    Ok(report)
}

fn check(plan: &Plan) -> Result<(), String> {
    let mut sizes = plan.sizes.iter().chain([&plan.shared]);
    if sizes.any(|n| *n < BURST as u64 || *n > CONNECTIONS_MAX / 2) {
        return Err(format!("{BURST} to {} connections", CONNECTIONS_MAX / 2));
    }
    let most = plan.threads.iter().max().copied().unwrap_or(1);
    if plan.cores.len() < most || plan.threads.contains(&0) {
        let has = plan.cores.len();
        return Err(format!(
            "{most} threads need as many cores, there are {has}"
        ));
    }
    match plan.rounds {
        0 => Err("at least one round".to_owned()),
        _ => Ok(()),
    }
}

fn pin(core: usize) -> Result<(), String> {
    core_affinity::set_for_current(core_affinity::CoreId { id: core })
        .then_some(())
        .ok_or_else(|| format!("core {core} cannot be had: name others with --cores"))
}

fn options(connections: u64) -> Options {
    Options {
        method: Method::Nat,
        family: Family::V4,
        protocol: Protocol::Tcp,
        frame_bytes: 64,
        connections,
        new_per_mille: 0,
        services: 1,
        servers: 3,
        scheduler: "rr".to_owned(),
        packets: PACKETS,
        rounds: 1,
        seed: 0x5eed,
    }
}

fn at_size(connections: u64, rounds: usize) -> Size {
    let options = options(connections);
    let before = resident_bytes();
    let table = Arc::new(Table::new(connections as usize + SLACK, 1, options.seed));
    let mut bench = Bench::over(&options, World::over(&options, table.clone(), 0));
    let begin_ns = begin(&mut bench, connections);
    let bytes = resident_bytes().saturating_sub(before) as f64 / connections as f64;
    for first in (0..connections).step_by(BURST) {
        bench.all_of(first, ACK);
    }
    let packet_ns: Vec<f64> = (0..rounds).map(|_| bench.round()).collect();
    let find_ns: Vec<f64> = (0..rounds).map(|n| find(&table, connections, n)).collect();
    let (expire_ns, expire_most_us) = expire(&mut bench, &table);
    let again_ns = begin(&mut bench, connections);
    Size {
        connections,
        begin_ns,
        again_ns,
        bytes,
        packet_ns: packet_ns.into(),
        find_ns: find_ns.into(),
        expire_ns,
        expire_most_us,
    }
}

/// Begins all connections: ns for each.
fn begin(bench: &mut Bench<'_>, connections: u64) -> f64 {
    let bursts = (0..connections).step_by(BURST);
    let spent: u128 = bursts.map(|first| bench.all_of(first, SYN)).sum();
    spent as f64 / connections as f64
}

/// Looks connections up in an order that no prefetcher guesses: ns for each.
fn find(table: &Table, connections: u64, round: usize) -> f64 {
    let keys: Vec<Key> = (0..PACKETS)
        .map(|n| key((n + round as u64 * PACKETS).wrapping_mul(611_953) % connections))
        .collect();
    let begin = Instant::now();
    let found = keys.iter().filter(|key| table.find(key).is_some()).count();
    let spent = begin.elapsed().as_nanos() as f64;
    assert_eq!(found, keys.len(), "every connection is there");
    spent / keys.len() as f64
}

fn key(number: u64) -> Key {
    let end = |(address, port): (std::net::IpAddr, u16)| Endpoint {
        address: match address {
            std::net::IpAddr::V4(v4) => u128::from(v4.to_bits()),
            std::net::IpAddr::V6(v6) => v6.to_bits(),
        },
        port,
    };
    Key {
        family: Family::V4,
        template: false,
        protocol: Protocol::Tcp.number(),
        client: end(client(Family::V4, number)),
        virtual_: end((virtual_address(Family::V4, 0), VIRTUAL_PORT)),
    }
}

/// Lets all connections expire: ns for each, and the longest share of a burst, us.
fn expire(bench: &mut Bench<'_>, table: &Table) -> (f64, f64) {
    let all = table.len();
    bench.wait(ticks(FOREVER_S));
    let (mut spent, mut most, mut left) = (0u128, 0u128, all);
    while left > 0 {
        // Between two ticks a worker has many bursts.
        for _ in 0..1000 {
            let now = bench.now();
            let World { director, snapshot } = &mut bench.world;
            let begin = Instant::now();
            director.tidy(snapshot, now);
            let took = begin.elapsed().as_nanos();
            spent += took;
            most = most.max(took);
        }
        left = table.len();
        bench.wait(1);
    }
    (spent as f64 / all.max(1) as f64, most as f64 / 1e3)
}

/// Each thread begins its share of the connections, then sends packets of all of them.
fn contention(plan: &Plan, threads: usize) -> Result<Contention, String> {
    let options = options(plan.shared / threads as u64);
    let all = options.connections * threads as u64;
    let table = Arc::new(Table::new(
        all as usize + SLACK * threads,
        threads,
        options.seed,
    ));
    let barrier = Barrier::new(threads);
    let rates = thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|worker| {
                let (table, barrier, options, plan) = (&table, &barrier, &options, plan);
                scope.spawn(move || {
                    let pinned = pin(plan.cores[worker]);
                    let result = one_of(plan, options, all, table, worker, barrier);
                    pinned.map(|()| result)
                })
            })
            .collect();
        let joined = handles.into_iter().map(|handle| {
            let died = |_| Err("a thread died".to_owned());
            handle.join().unwrap_or_else(died)
        });
        joined.collect::<Result<Vec<(f64, f64)>, String>>()
    })?;
    Ok(Contention {
        threads,
        begun_per_s: rates.iter().map(|(begun_ns, _)| 1e9 / begun_ns).sum(),
        packets_per_s: rates.iter().map(|(_, packet_ns)| 1e9 / packet_ns).sum(),
    })
}

/// One thread's: ns for a new connection, ns for a packet.
fn one_of(
    plan: &Plan,
    share: &Options,
    all: u64,
    table: &Arc<Table>,
    worker: usize,
    barrier: &Barrier,
) -> (f64, f64) {
    let all = Options {
        connections: all,
        seed: share.seed + 2 * worker as u64,
        ..share.clone()
    };
    let mut bench = Bench::over(&all, World::over(&all, table.clone(), worker));
    let first = share.connections * worker as u64;
    barrier.wait();
    let bursts = (first..first + share.connections).step_by(BURST);
    let spent: u128 = bursts.map(|first| bench.all_of(first, SYN)).sum();
    barrier.wait();
    let rounds: Spread = (0..plan.rounds)
        .map(|_| bench.round())
        .collect::<Vec<_>>()
        .into();
    (spent as f64 / share.connections as f64, rounds.median())
}

/// Memory of this process that is really there; counted page by page, unlike `statm`.
fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            sizes: vec![1000, 20_000],
            threads: vec![1],
            shared: 10_000,
            rounds: 1,
            cores: vec![0],
        }
    }

    #[test]
    fn connections_begin_are_found_and_expire() {
        let report = run(&plan(), |_| ()).unwrap();
        assert_eq!(report.sizes.len(), 2);
        for size in &report.sizes {
            let figures = [size.begin_ns, size.again_ns, size.expire_ns];
            assert!(figures.iter().all(|ns| *ns > 0.0), "{size:?}");
            assert!(size.packet_ns.median() > 0.0 && size.find_ns.median() > 0.0);
        }
        // The table's first page may be shared with what was there; entries are 64 bytes.
        assert!(report.sizes[1].bytes > 60.0, "{}", report.sizes[1].bytes);
        assert!(report.contention[0].begun_per_s > 0.0);
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        type Change = fn(&mut Plan);
        let rows: [(&str, Change); 4] = [
            ("no connections", |p| p.sizes = vec![0]),
            ("more threads than cores", |p| p.threads = vec![2]),
            ("no thread", |p| p.threads = vec![0]),
            ("no round", |p| p.rounds = 0),
        ];
        for (what, change) in rows {
            let mut plan = plan();
            change(&mut plan);
            assert!(run(&plan, |_| ()).is_err(), "{what}");
        }
    }
}
