//! What must hold of the schedulers for any list of servers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use proptest::prelude::*;
use sched::scheduler::{self, Request, Scheduler};
use sched::server::{Counted, Forwarding, RealServer, ServerId, ServerKey, ServerSpec};
use sched::service::{SchedulerFlags, ServiceId};

const STATELESS: [&str; 9] = ["lc", "wlc", "dh", "sh", "mh", "sed", "nq", "fo", "ovf"];

fn key(n: u32) -> ServerKey {
    ServerKey {
        address: Ipv4Addr::from_bits(0x0a02_0000 + n).into(),
        port: 80,
    }
}

fn spec(weight: u32, upper_threshold: u32) -> ServerSpec {
    ServerSpec {
        forwarding: Forwarding::Route,
        weight,
        upper_threshold,
        lower_threshold: 0,
    }
}

/// Servers with these weights and thresholds, and as many connections of each kind.
fn list(rows: &[(u32, u32, u8, u8)]) -> Vec<Arc<RealServer>> {
    let server = |(n, &(weight, upper, active, inactive)): (u32, &(u32, u32, u8, u8))| {
        let server = RealServer::new(ServerId(n), ServiceId(0), key(n), spec(weight, upper));
        (0..active).for_each(|_| server.bind(Counted::Active));
        (0..inactive).for_each(|_| server.bind(Counted::Inactive));
        Arc::new(server)
    };
    (0..).zip(rows).map(server).collect()
}

fn weighted(weights: &[u32]) -> Vec<Arc<RealServer>> {
    let rows: Vec<_> = weights.iter().map(|&weight| (weight, 0, 0, 0)).collect();
    list(&rows)
}

fn request(client: IpAddr, vip: u8) -> Request {
    Request {
        client,
        client_port: 4000,
        virtual_address: Ipv4Addr::new(10, 1, 0, vip).into(),
        virtual_port: 80,
        now_s: 5,
    }
}

fn build(name: &str, flags: u8, servers: &[Arc<RealServer>]) -> Arc<dyn Scheduler> {
    scheduler::by_name(name, SchedulerFlags(flags), servers).unwrap()
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ]
}

fn any_weight() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0), 6 => 1..10u32, 1 => 1..=i32::MAX as u32]
}

fn any_rows() -> impl Strategy<Value = Vec<(u32, u32, u8, u8)>> {
    prop::collection::vec((any_weight(), 0..8u32, 0..6u8, 0..6u8), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A fork answers as the original would have, and the original never hears of it.
    #[test]
    fn a_fork_answers_alike_and_leaves_no_trace(
        rows in any_rows(),
        name in prop::sample::select(scheduler::names().collect::<Vec<_>>()),
        before in 0..6usize,
        clients in prop::collection::vec((any_address(), 0..4u8), 1..8),
    ) {
        let servers = list(&rows);
        let fork_of = |scheduler: &Arc<dyn Scheduler>| {
            scheduler.forked().unwrap_or_else(|| scheduler.clone())
        };
        let [tried, untouched] = [(), ()].map(|()| build(name, 0, &servers));
        for n in 0..before {
            let (client, vip) = clients[n % clients.len()];
            let request = request(client, vip);
            tried.schedule(&request, &servers);
            untouched.schedule(&request, &servers);
        }
        let fork = fork_of(&tried);
        let answers = |scheduler: &Arc<dyn Scheduler>| -> Vec<Option<usize>> {
            let asked = clients.iter().map(|&(client, vip)| request(client, vip));
            asked.map(|r| scheduler.schedule(&r, &servers)).collect()
        };
        let forks = answers(&fork);
        prop_assert_eq!(&forks, &answers(&untouched), "as the original");
        prop_assert_eq!(&forks, &answers(&tried), "no trace");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Weight 0 takes no connection, and but for `lblc`'s kept address neither does a
    /// server above its threshold. Where one is usable, none of the schedulers that look
    /// at all of them refuses.
    #[test]
    fn only_usable_servers_are_chosen(
        rows in any_rows(),
        later in any_rows(),
        flags in 0..8u8,
        clients in prop::collection::vec((any_address(), 0..4u8), 1..20),
    ) {
        for name in scheduler::names() {
            let mut servers = list(&rows);
            let mut scheduler = build(name, flags, &servers);
            for (turn, (client, vip)) in clients.iter().enumerate() {
                if turn == clients.len() / 2 {
                    servers = list(&later);
                    scheduler = scheduler.revised(&servers, SchedulerFlags(flags));
                }
                let usable = servers.iter().any(|s| s.is_usable());
                let chosen = scheduler.schedule(&request(*client, *vip), &servers);
                if let Some(index) = chosen {
                    prop_assert!(servers[index].spec.weight > 0, "{name}");
                    prop_assert!(servers[index].is_usable() || name == "lblc", "{name}");
                }
                let may_refuse = matches!(name, "dh" | "sh" | "mh" | "ovf");
                prop_assert!(chosen.is_some() || !usable || may_refuse, "{name}");
            }
        }
    }

    /// In one turn of `wrr` each server is taken its weight's share of times, exactly.
    #[test]
    fn wrr_shares_are_exact(weights in prop::collection::vec(0..30u32, 1..9), turns in 1..4u32) {
        let servers = weighted(&weights);
        let scheduler = build("wrr", 0, &servers);
        let divisor = weights.iter().fold(0, |a, &b| gcd(a, b)).max(1);
        let in_turn: u32 = weights.iter().map(|weight| weight / divisor).sum();
        let mut taken = vec![0; weights.len()];
        for _ in 0..in_turn * turns {
            let chosen = scheduler.schedule(&request(Ipv4Addr::LOCALHOST.into(), 1), &servers);
            taken[chosen.unwrap()] += 1;
        }
        let expected: Vec<_> = weights.iter().map(|weight| weight / divisor * turns).collect();
        prop_assert_eq!(taken, expected);
    }

    /// In one round of `rr` each usable server is taken once, in order.
    #[test]
    fn rr_takes_turns(rows in any_rows()) {
        let servers = list(&rows);
        let scheduler = build("rr", 0, &servers);
        let usable: Vec<_> = (0..servers.len()).filter(|&n| servers[n].is_usable()).collect();
        for expected in usable.iter().chain(&usable) {
            let chosen = scheduler.schedule(&request(Ipv4Addr::LOCALHOST.into(), 1), &servers);
            prop_assert_eq!(chosen, Some(*expected));
        }
    }

    /// What does not move gives every worker the same answer, also to another instance.
    #[test]
    fn stateless_schedulers_agree(
        rows in any_rows(),
        flags in 0..4u8,
        clients in prop::collection::vec(any_address(), 1..8),
    ) {
        let servers = list(&rows);
        for name in STATELESS {
            let [one, other] = [(), ()].map(|()| build(name, flags, &servers));
            let ask = |scheduler: &dyn Scheduler| -> Vec<_> {
                let ask = |&client: &IpAddr| scheduler.schedule(&request(client, 1), &servers);
                clients.iter().map(ask).collect()
            };
            let workers: Vec<_> = std::thread::scope(|scope| {
                let spawn = |_| scope.spawn(|| ask(&*one));
                let workers: Vec<_> = (0..2).map(spawn).collect();
                workers.into_iter().map(|worker| worker.join().unwrap()).collect()
            });
            for answers in workers {
                prop_assert_eq!(answers, ask(&*other), "{}", name);
            }
        }
    }

    /// Clients spread over `mh`'s table by weight; where a server leaves, few of the
    /// others' clients move.
    #[test]
    fn mh_is_balanced_and_consistent(weights in prop::collection::vec(1..6u32, 2..9)) {
        const CLIENTS: u32 = 4000;
        let servers = weighted(&weights);
        let ask = |scheduler: &dyn Scheduler, servers: &[Arc<RealServer>], n: u32| {
            let client = Ipv4Addr::from_bits(n.wrapping_mul(0x9e37_79b1));
            let chosen = scheduler.schedule(&request(client.into(), 1), servers);
            servers[chosen.unwrap()].id
        };
        let before = build("mh", 0, &servers);
        let rest = &servers[1..];
        let after = before.revised(rest, SchedulerFlags::default());
        let (mut counts, mut moved) = (BTreeMap::new(), 0);
        for n in 0..CLIENTS {
            let id = ask(&*before, &servers, n);
            *counts.entry(id).or_insert(0u32) += 1;
            moved += u32::from(id != ServerId(0) && ask(&*after, rest, n) != id);
        }
        let total: u32 = weights.iter().sum();
        for server in &servers {
            let share = f64::from(CLIENTS * server.spec.weight) / f64::from(total);
            let count = f64::from(*counts.get(&server.id).unwrap_or(&0));
            // Five standard deviations of the clients' own randomness, and the table's grain.
            let slack = 5.0 * share.sqrt() + 20.0;
            prop_assert!((count - share).abs() < slack, "{count} clients instead of {share}");
        }
        prop_assert!(moved < CLIENTS / 4, "{moved} of {CLIENTS} moved");
    }
}

#[test]
fn workers_that_take_turns_together_share_exactly() {
    const EACH: usize = 3000;
    for (name, weights, expected) in [
        ("rr", [1, 1, 1], [2000, 2000, 2000]),
        ("wrr", [3, 2, 1], [3000, 2000, 1000]),
    ] {
        let servers = weighted(&weights);
        let scheduler = build(name, 0, &servers);
        let ask = || -> Vec<_> {
            let request = request(Ipv4Addr::LOCALHOST.into(), 1);
            let ask = |_| scheduler.schedule(&request, &servers).unwrap();
            (0..EACH).map(ask).collect()
        };
        let mut taken = [0; 3];
        std::thread::scope(|scope| {
            let workers = [scope.spawn(ask), scope.spawn(ask)];
            for worker in workers {
                worker
                    .join()
                    .unwrap()
                    .into_iter()
                    .for_each(|n| taken[n] += 1);
            }
        });
        assert_eq!(taken, expected, "{name}");
    }
}

#[test]
fn lblc_is_safe_under_many_workers_and_addresses() {
    for name in ["lblc", "lblcr"] {
        let servers = list(&[(1, 0, 9, 0), (2, 0, 0, 3), (0, 0, 0, 0), (9, 0, 1, 1)]);
        let scheduler = build(name, 0, &servers);
        let ask = |from: u32| {
            for n in 0..20_000 {
                let request = Request {
                    virtual_address: Ipv4Addr::from_bits(from + n % 7000).into(),
                    now_s: u64::from(n),
                    ..request(Ipv4Addr::LOCALHOST.into(), 1)
                };
                let chosen = scheduler.schedule(&request, &servers);
                assert!(servers[chosen.unwrap()].spec.weight > 0);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| ask(0));
            scope.spawn(|| ask(3500));
        });
    }
}

#[test]
fn twos_follows_weight_and_load() {
    let rows = [
        (
            "equal load: by weight",
            [(1, 0, 0, 0), (3, 0, 0, 0)],
            0.58,
            0.62,
        ),
        (
            "the loaded one is avoided",
            [(3, 0, 6, 0), (3, 0, 0, 0)],
            0.65,
            0.70,
        ),
    ];
    for (what, rows, least, most) in rows {
        let servers = list(&rows);
        let scheduler = build("twos", 0, &servers);
        let ask = |_| scheduler.schedule(&request(Ipv4Addr::LOCALHOST.into(), 1), &servers);
        let second = (0..10_000)
            .filter_map(ask)
            .filter(|&index| index == 1)
            .count();
        let share = second as f64 / 10_000.0;
        assert!((least..most).contains(&share), "{what}: {share}");
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
