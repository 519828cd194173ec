//! What the connection table costs: inserts a second, look-ups by number of connections,
//! memory by connection, the sweep. `cargo run --release --example table -- [CONNECTIONS ...]`

use std::hint::black_box;
use std::time::Instant;

use dataplane::address::Endpoint;
use dataplane::connection::table::{Cache, Draft, Key, Table};
use sched::server::ServerId;
use sched::service::Family;

const BURST: usize = 64;

fn main() {
    let mut sizes: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|a| a.parse().ok())
        .collect();
    if sizes.is_empty() {
        sizes = vec![1_000, 1_000_000, 10_000_000];
    }
    println!(
        "connections  insert_ns  again_ns  M_inserts_s  find_ns  reply_ns  staged_ns  miss_ns  touch_ns  sweep_ns_entry  remove_ns  bytes_connection"
    );
    for n in sizes {
        measure(n);
    }
}

fn measure(n: usize) {
    let before = resident_bytes();
    let table = Table::new(n, 1, 0x1234_5678);
    let mut cache = table.cache(0);
    let insert = timed(n, || fill(&table, &mut cache, n));
    let bytes = (resident_bytes() - before) as f64 / n as f64;
    let looks = 4_000_000;
    let find = best(looks, || looked(n, looks, |key| table.find(key).is_some()));
    let reply = best(looks, || {
        looked(n, looks, |k| {
            table.find_reply(k.family, 6, k.client, real(k)).is_some()
        })
    });
    let stages = best(looks, || staged(&table, n, looks, |_| ()));
    let touched = best(looks, || {
        staged(&table, n, looks, |handle| table.view(handle).touch(77))
    });
    let miss = best(looks, || {
        let found = looked(n, looks, |key| {
            let client = Endpoint {
                port: 1,
                ..key.client
            };
            table.find(&Key { client, ..*key }).is_none()
        });
        assert_eq!(found, looks);
        found
    });
    let sweep = timed(n, || {
        let mut left = n + 32;
        while left > 0 {
            let budget = left.min(2_048);
            table.sweep(&mut cache, 10, budget, |_, _, _| ());
            left -= budget;
        }
    });
    let removed = n.min(1_000_000);
    let remove = timed(removed, || {
        for i in 0..removed {
            let handle = table.find(&key(scatter(i, n))).expect("there");
            assert!(table.remove(&mut cache, handle));
            if i % BURST == 0 {
                table.quiesce(&mut cache);
            }
        }
    });
    for i in removed..n {
        let handle = table.find(&key(scatter(i, n))).expect("there");
        assert!(table.remove(&mut cache, handle));
        table.quiesce(&mut cache);
    }
    let again = timed(n, || fill(&table, &mut cache, n));
    println!(
        "{n:>11}  {insert:>9.1}  {again:>9.1}  {:>11.2}  {find:>7.1}  {reply:>8.1}  {stages:>9.1}  {miss:>7.1}  {touched:>8.1}  {sweep:>14.2}  {remove:>9.1}  {bytes:>16.1}",
        1e3 / again
    );
}

fn fill(table: &Table, cache: &mut Cache, n: usize) {
    let mut drafts = Vec::with_capacity(BURST);
    for first in (0..n).step_by(BURST) {
        drafts.clear();
        drafts.extend((first..n.min(first + BURST)).map(draft));
        for draft in &drafts {
            table.prefetch(Family::V4, 6, draft.key.client);
        }
        for draft in &drafts {
            table.insert(cache, draft, 0).expect("room");
        }
        table.quiesce(cache);
    }
}

/// Looks at random connections, one after the other as each packet's look-up would be.
fn looked(n: usize, looks: usize, look: impl Fn(&Key) -> bool) -> usize {
    (0..looks).filter(|&i| look(&key(scatter(i, n)))).count()
}

fn staged(
    table: &Table,
    n: usize,
    looks: usize,
    then: impl Fn(dataplane::connection::table::Handle),
) -> usize {
    let mut found = 0;
    for first in (0..looks).step_by(BURST) {
        let keys: [Key; BURST] = std::array::from_fn(|i| key(scatter(first + i, n)));
        let hashes = keys.map(|k| table.hash(k.family, k.protocol, k.client));
        hashes.iter().for_each(|hash| table.prefetch_bucket(*hash));
        hashes
            .iter()
            .for_each(|hash| _ = table.prefetch_entry(*hash));
        for (key, hash) in keys.iter().zip(hashes) {
            if let Some(handle) = table.find_hashed(hash, key) {
                then(handle);
                found += 1;
            }
        }
    }
    found
}

/// Visits each of 0 .. n once in n steps, in an order that no prefetcher guesses: the step
/// is prime, and spread by the hash.
fn scatter(i: usize, n: usize) -> usize {
    i % n * 611_953 % n
}

fn key(i: usize) -> Key {
    Key {
        family: Family::V4,
        template: false,
        protocol: 6,
        client: Endpoint {
            address: 0x0a00_0000 + (i as u128 >> 10),
            port: 2_000 + (i & 1_023) as u16,
        },
        virtual_: Endpoint {
            address: 0xc0a8_0001,
            port: 80,
        },
    }
}

fn real(key: &Key) -> Endpoint {
    Endpoint {
        address: 0xac10_0000 + u128::from(key.client.port & 7),
        port: 8_080,
    }
}

fn draft(i: usize) -> Draft {
    let key = key(i);
    Draft {
        key,
        real_family: Family::V4,
        real: real(&key),
        server: ServerId(1),
        word: 1,
        mark: 0,
        template: None,
        timeout: 14_400,
    }
}

fn timed<T>(times: usize, work: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    black_box(work());
    start.elapsed().as_nanos() as f64 / times as f64
}

/// The median of five.
fn best<T>(times: usize, mut work: impl FnMut() -> T) -> f64 {
    let mut all: Vec<f64> = (0..5).map(|_| timed(times, &mut work)).collect();
    all.sort_by(f64::total_cmp);
    all[2]
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse::<usize>().ok());
    pages.expect("resident pages") * 4_096
}
