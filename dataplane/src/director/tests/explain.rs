//! Explanations against what the director then really does, and that they leave no trace.

use super::*;
use crate::explain::{Explanation, Step, explain};
use std::sync::atomic::Ordering::Relaxed;

impl World {
    pub(super) fn explain(&self, bytes: &[u8]) -> Explanation {
        explain(&self.snapshot, &self.table, self.now, bytes)
    }

    /// All that an explanation might have changed, but for schedulers.
    fn traces(&self) -> String {
        let counters = &self.director.counters;
        let drops: Vec<u64> = Reason::ALL.iter().map(|&r| counters.drops(r)).collect();
        let events: Vec<u64> = Event::ALL.iter().map(|&e| counters.events(e)).collect();
        let traffic = |id| format!("{:?}", counters.server(sched::server::ServerId(id)));
        let traffic: Vec<String> = (0..8).map(traffic).collect();
        let load = |s: &RealServer| format!("{:?}", s.load);
        let loads: Vec<String> = self.services.servers().map(|(s, _)| load(s)).collect();
        let high_water = self.table.high_water();
        let schedulers: Vec<String> = self
            .services
            .services()
            .map(|service| format!("{:?}", service.scheduler))
            .collect();
        format!(
            "{drops:?} {events:?} {traffic:?} {loads:?} {:?} {high_water} {schedulers:?}",
            self.rows()
        )
    }

    /// The explanation, which the director then bears out, and which left no trace.
    fn borne_out(&mut self, what: &str, bytes: &[u8]) -> Explanation {
        let before = self.traces();
        let explanation = self.explain(bytes);
        assert_eq!(before, self.traces(), "{what}: no trace");
        let (verdict, out) = self.meet(bytes);
        assert_eq!(explanation.verdict, verdict, "{what}");
        assert_eq!(explanation.frame.len(), out.len(), "{what}");
        if !explanation.steps.iter().any(numbers_packets) {
            assert_frame(what, &explanation.frame, &out);
        }
        explanation
    }
}

/// A worker numbers the packets that it writes itself, from a count of its own.
fn numbers_packets(step: &Step) -> bool {
    use crate::connection::word::Method;
    match step {
        Step::Refuse { .. } | Step::Icmp(_) => true,
        Step::Forward { method, .. } => *method == Method::Tunnel,
        _ => false,
    }
}

fn name(step: &Step) -> &'static str {
    match step {
        Step::Packet(_) => "packet",
        Step::Icmp(_) => "icmp",
        Step::Lookup { key, entry } => match (key.template, entry) {
            (false, None) => "no-connection",
            (false, Some(_)) => "connection",
            (true, None) => "no-template",
            (true, Some(_)) => "template",
        },
        Step::LookupReply { entry: None, .. } => "no-reply",
        Step::LookupReply { .. } => "reply",
        Step::Replaced { .. } => "replaced",
        Step::MayNotBegin => "may-not-begin",
        Step::Service { service: None, .. } => "no-service",
        Step::Service { .. } => "service",
        Step::DropRate(_) => "drop-rate",
        Step::Limits { above: None, .. } => "within-limits",
        Step::Limits { .. } => "above-limits",
        Step::FtpData => "ftp-data",
        Step::OtherPort => "other-port",
        Step::TemplateRetired => "template-retired",
        Step::Schedule { chosen: None, .. } => "no-server",
        Step::Schedule { .. } => "schedule",
        Step::Begin(_) => "begin",
        Step::State { .. } => "state",
        Step::Forward { .. } => "forward",
        Step::Room { .. } => "room",
        Step::Refuse { .. } => "refuse",
        Step::Leave { .. } => "leave",
        Step::Host => "host",
    }
}

pub(super) fn names(explanation: &Explanation) -> String {
    let names: Vec<_> = explanation.steps.iter().map(name).collect();
    names.join(" ")
}

#[test]
fn steps_tell_the_way_of_a_packet() {
    let begun = "packet no-connection service schedule begin state forward room leave";
    let rows = [
        ("a SYN", "10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 S", begun),
        (
            "what follows",
            "10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 A",
            "packet connection state forward room leave",
        ),
        (
            "the reply",
            "eth to=3 from=12 / 10.2.0.12 > 10.9.0.1 / tcp 8080 > 1001 SA",
            "packet reply state leave",
        ),
        ("IPv6", "fd09::1 > fd01::1 / tcp 1001 > 80 S", begun),
        (
            "no SYN and no connection",
            "10.9.0.1 > 10.1.0.1 / tcp 7 > 80 A",
            "packet no-connection may-not-begin no-reply host",
        ),
        (
            "another port",
            "10.9.0.1 > 10.1.0.1 / tcp 7 > 81 S",
            "packet no-connection no-service no-reply host",
        ),
        (
            "a hop limit that ends here",
            "10.9.0.2 > 10.1.0.1 ttl=1 / tcp 1 > 80 S",
            "packet no-connection service schedule begin state forward refuse leave",
        ),
        (
            "an error about a reply",
            "10.9.0.1 > 10.1.0.1 / icmp 3 3 / 10.1.0.1 > 10.9.0.1 / tcp 80 > 1001 S",
            "packet icmp no-reply connection forward room leave",
        ),
        (
            "a wrong checksum",
            "10.9.0.1 > 10.1.0.1 sum=bad / tcp 1 > 80 S",
            "",
        ),
    ];
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    for (what, text, steps) in rows {
        let explanation = world.borne_out(what, &frame(text));
        assert_eq!(names(&explanation), steps, "{what}");
    }
}

#[test]
fn a_scheduler_is_shown_as_it_saw_its_servers() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    world.apply(Command::EditService {
        service: service(Protocol::Tcp, "10.1.0.1", 80),
        spec: ServiceSpec {
            scheduler: "wlc".to_owned(),
            ..spec("10.1.0.1")
        },
    });
    world.meet(&frame("10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 S"));
    let explanation = world.explain(&frame("10.9.0.1 > 10.1.0.1 / tcp 1002 > 80 S"));
    let found = explanation.steps.iter().find_map(|step| match step {
        Step::Schedule {
            candidates, chosen, ..
        } => Some((candidates, chosen)),
        _ => None,
    });
    let (candidates, chosen) = found.unwrap();
    let seen: Vec<_> = candidates.iter().map(|c| (c.active, c.cost)).collect();
    assert_eq!(seen, [(1, Some(257)), (0, Some(0))]);
    assert_eq!(*chosen, Some(1));
}

#[test]
fn templates_are_met_and_removed_servers_told() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    let key = service(Protocol::Tcp, "10.1.0.1", 80);
    world.apply(Command::EditService {
        service: key,
        spec: ServiceSpec {
            persistence: Some(Persistence { timeout_s: 20 }),
            netmask: 0xffff_ff00,
            ..spec("10.1.0.1")
        },
    });
    let syn = |last: u8| frame(&format!("10.9.7.{last} > 10.1.0.1 / tcp 1001 > 80 S"));
    let first = world.borne_out("the first of a network", &syn(1));
    assert!(
        names(&first).contains("no-template schedule"),
        "{}",
        names(&first)
    );
    let second = world.borne_out("another of it", &syn(2));
    let way = "packet no-connection service template begin state forward room leave";
    assert_eq!(names(&second), way);
    world.apply(Command::DeleteServer {
        service: key,
        server: server("10.2.0.12", 8080),
    });
    let third = world.borne_out("its server has gone", &syn(3));
    let names = names(&third).replace("no-template ", "");
    let anew = "service template template-retired schedule begin begin";
    assert!(names.contains(anew), "{names}");
    let fourth = world.borne_out(
        "a connection of the server",
        &frame("10.9.7.1 > 10.1.0.1 / tcp 1001 > 80 A"),
    );
    assert_eq!(fourth.verdict, Verdict::Drop(Reason::ServerGone));
    // The server returns and has the least load, but the network's newer template, in
    // another place than the retired one, names the other server.
    world.apply(Command::AddServer {
        service: key,
        server: server("10.2.0.12", 8080),
        spec: ServerSpec {
            forwarding: Forwarding::Masquerade,
            weight: 100,
            upper_threshold: 0,
            lower_threshold: 0,
        },
    });
    let fifth = world.borne_out("the template beside a retired one", &syn(4));
    let is_scheduled = fifth
        .steps
        .iter()
        .any(|s| matches!(s, Step::Schedule { .. }));
    assert!(!is_scheduled, "{:?}", fifth.steps);
}

#[test]
fn an_explanation_moves_no_round_robin() {
    for scheduler in sched::scheduler::names() {
        let mut world = World::serving(Protocol::Tcp, Forwarding::Route);
        world.apply(Command::EditService {
            service: service(Protocol::Tcp, "10.1.0.1", 80),
            spec: ServiceSpec {
                scheduler: scheduler.to_owned(),
                ..spec("10.1.0.1")
            },
        });
        for port in 1..6 {
            let syn = frame(&format!("10.9.0.1 > 10.1.0.1 / tcp {port} > 80 S"));
            for _ in 0..3 {
                world.explain(&syn);
            }
            world.borne_out(scheduler, &syn);
        }
        let active = world
            .services
            .servers()
            .map(|(s, _)| s.load.active.load(Relaxed));
        assert!(active.sum::<u32>() >= 4, "{scheduler}");
    }
}

#[test]
fn a_full_table_is_told() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    let syn = |n: u16| frame(&format!("10.9.1.1 > 10.1.0.1 / tcp {n} > 80 S"));
    let refused = (1..10_000).find(|&n| world.meet(&syn(n)).0 == Verdict::Drop(Reason::TableFull));
    let told = world.borne_out("full", &syn(refused.unwrap() + 1));
    assert_eq!(told.verdict, Verdict::Drop(Reason::TableFull));
    let known = world.borne_out("a known connection", &syn(1));
    assert_eq!(known.verdict, TO_SERVER);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever packets came before, the explanation of the next is what then happens.
    #[test]
    fn explanations_come_true(
        scheduler in prop::sample::select(sched::scheduler::names().collect::<Vec<_>>()),
        forwarding in prop::sample::select(vec![
            Forwarding::Masquerade,
            Forwarding::Route,
            Forwarding::Tunnel(Tunnel::Ipip),
        ]),
        persistent: bool,
        nodest: bool,
        removed_at in 0..20usize,
        packets in prop::collection::vec((0..7usize, 1..4u8, 0..3usize, 1..4u8), 1..20),
    ) {
        let mut world = World::serving(Protocol::Tcp, forwarding);
        world.tunables.expire_nodest_conn = nodest;
        let key = service(Protocol::Tcp, "10.1.0.1", 80);
        world.apply(Command::EditService {
            service: key,
            spec: ServiceSpec {
                scheduler: scheduler.to_owned(),
                persistence: persistent.then_some(Persistence { timeout_s: 20 }),
                netmask: 0xffff_ff00,
                ..spec("10.1.0.1")
            },
        });
        let real = if forwarding == Forwarding::Masquerade { 8080 } else { 80 };
        for (n, (kind, client, flags, ttl)) in packets.into_iter().enumerate() {
            if n == removed_at {
                let server = server("10.2.0.12", real);
                world.apply(Command::DeleteServer { service: key, server });
            }
            let flags = ["S", "A", "FA"][flags];
            let server = 11 + client % 2;
            let text = match kind {
                0..3 => format!("10.9.0.{client} > 10.1.0.1 ttl={ttl} / tcp 7 > 80 {flags}"),
                3 => format!("10.2.0.{server} > 10.9.0.{client} ttl={ttl} / tcp 8080 > 7 {flags}A"),
                4 => format!("fd09::{client} > fd01::1 ttl={ttl} / tcp 7 > 80 {flags}"),
                5 => format!(
                    "10.9.0.{client} > 10.1.0.1 / icmp 3 3 / 10.1.0.1 > 10.9.0.{client} / tcp 80 > 7 S"
                ),
                _ => format!(
                    "10.2.0.{server} > 10.9.0.{client} / icmp 3 3 / 10.9.0.{client} > 10.2.0.{server} / tcp 7 > 8080 S"
                ),
            };
            world.borne_out(&format!("packet {n}: {text}"), &frame(&text));
            world.pass(u32::from(ttl));
        }
    }
}
