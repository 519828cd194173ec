//! Control over a stand-in for the rest of the process: a worker that adopts at once, and
//! a plant that writes down what it was told, and when.

use std::num::NonZeroU32;
use std::time::Duration;

use cli::api::FwmarkRule;
use dataplane::hops::Hops;
use dataplane::hops::routing::{Link, NextHop, Route, RouteKind, Routing};
use parking_lot::Mutex;
use sched::command::Refusal;
use sched::prefix::{Guard, Prefix};
use sched::server::{Counted, Forwarding, RealServer, ServerKey, ServerSpec};
use sched::service::{Protocol, SchedulerFlags, ServiceKey, ServiceSpec};
use tokio::sync::oneshot;

use super::*;
use crate::director::neighbours::PortDevice;

#[derive(Clone, Debug, PartialEq)]
enum Told {
    Adopted(u64),
    Steered(SteeringRules),
    Watched(Vec<NeighbourKey>),
    Gone(PortId),
    Back(PortId, u32),
}

type Diary = Arc<Mutex<Vec<Told>>>;

struct Scribe(Diary);

impl Plant for Scribe {
    fn steer(&mut self, rules: &SteeringRules) -> Result<(), String> {
        self.0.lock().push(Told::Steered(rules.clone()));
        Ok(())
    }
    fn resolve(&mut self, _key: NeighbourKey) {}
    fn watch(&mut self, keys: Vec<NeighbourKey>) {
        self.0.lock().push(Told::Watched(keys));
    }
    fn counters(&mut self) -> Vec<(String, u64)> {
        vec![("steering_passed".into(), 7)]
    }
    fn memory_pages(&self) -> (u64, u64) {
        (20_000, 20_000)
    }
    fn port_gone(&mut self, port: PortId) {
        self.0.lock().push(Told::Gone(port));
    }
    fn port_back(&mut self, port: PortId, index: u32) -> Result<(), String> {
        self.0.lock().push(Told::Back(port, index));
        match index {
            UNFIT => Err("too few queues".into()),
            _ => Ok(()),
        }
    }
    fn release_ports(&mut self) {}
    fn places(&self) -> PlacesRow {
        PlacesRow::default()
    }
    fn worker_ended(&mut self, _worker: usize, _reason: &str) {}
}

/// A port whose device goes, stays away, comes back unfit and is then opened.
#[test]
fn a_port_goes_and_comes_back_in_order() {
    let mut world = world(false);
    let now = |index, times_gone| View {
        ports: vec![PortDevice { index, times_gone }],
        ..View::default()
    };
    world.control.port_states = vec![ports::Port::first(&now(Some(2), 0).ports[0], true)];
    let (gone, back) = (Told::Gone(PortId(0)), |index| Told::Back(PortId(0), index));
    let rows: [(&str, View, &[Told], u64); 6] = [
        ("nothing new", now(Some(2), 0), &[], 0),
        ("gone", now(None, 1), std::slice::from_ref(&gone), 1),
        ("still away", now(None, 1), &[], 1),
        ("back, unfit", now(Some(UNFIT), 1), &[back(UNFIT)], 1),
        ("another, fit", now(Some(5), 2), &[back(5)], 0),
        (
            "replaced at once, with the same index",
            now(Some(5), 3),
            &[gone.clone(), back(5)],
            0,
        ),
    ];
    for (what, view, expected, away) in rows {
        world.diary.lock().clear();
        world.control.look_around(view);
        let diary = world.diary.lock().clone();
        let is_of_port = |told: &&Told| matches!(told, Told::Gone(_) | Told::Back(..));
        let told: Vec<Told> = diary.iter().filter(is_of_port).cloned().collect();
        assert_eq!(told, expected, "{what}");
        assert_eq!(world.control.all_counters()["ports_away"], away, "{what}");
        // Workers have let go before the next device is opened.
        let at = |wanted: &Told| diary.iter().position(|told| told == wanted);
        if let (Some(gone), Some(back)) = (at(&gone), at(&back(5))) {
            let between = &diary[gone..back];
            assert!(
                between.iter().any(|told| matches!(told, Told::Adopted(_))),
                "{what}"
            );
        }
    }
}

/// The index of a device that cannot be opened.
const UNFIT: u32 = 99;

pub(super) struct World {
    pub(super) control: Control,
    diary: Diary,
    snapshots: Arc<Mutex<Vec<u64>>>,
    counters: Arc<Counters>,
    last: Arc<Mutex<Option<Vec<Arc<RealServer>>>>>,
}

/// One worker on a thread, which adopts as real ones do unless it `hangs`.
pub(super) fn world(hangs: bool) -> World {
    let view = View {
        hops: Hops::new(&routing(), []),
        ports: Vec::new(),
        vlans: vec![(2, 7)],
        macs: vec![(2, [2; 6])],
        stations: vec![(2, [6; 6])],
        facts: Vec::new(),
        settled_at: Duration::ZERO,
    };
    let (workers, mut links) = link::link(1, ControlThread::first_snapshot(&view)).unwrap();
    let diary = Diary::default();
    let snapshots = Arc::new(Mutex::new(Vec::new()));
    let last = Arc::new(Mutex::new(None));
    let (own_diary, own_snapshots, own_last) = (diary.clone(), snapshots.clone(), last.clone());
    let mut link = links.pop().unwrap();
    std::thread::spawn(move || {
        while !link.is_stopping() {
            if !hangs && link.adopt() {
                let generation = link.snapshot().generation;
                own_diary.lock().push(Told::Adopted(generation));
                own_snapshots.lock().push(generation);
                let servers =
                    (0..8).filter_map(|n| link.snapshot().server(sched::server::ServerId(n)));
                *own_last.lock() = Some(servers.map(|slot| slot.server.clone()).collect());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let counters = Arc::new(Counters::new(16, 16));
    let setup = Setup {
        limits: Limits {
            services: 16,
            servers: 16,
        },
        size: 4096,
        counters: vec![counters.clone()],
        cores: vec![3],
        ports: vec!["cl0".into()],
        absent: Vec::new(),
        view,
        require_local: false,
        resume: Resume::default(),
    };
    World {
        control: Control::new(setup, workers, Box::new(Scribe(diary.clone()))),
        diary,
        snapshots,
        counters,
        last,
    }
}

/// The director is 10.0.0.254 on device 2, its only port.
fn routing() -> Routing {
    let route = |prefix: &str, length, kind| Route {
        table: dataplane::hops::routing::Table::Main,
        prefix: prefix.parse().unwrap(),
        length,
        kind,
        metric: 0,
        scope: 253,
        source: None,
        mtu: None,
        next_hops: vec![NextHop {
            device: 2,
            gateway: None,
            weight: 1,
            dead: false,
            encapsulates: false,
        }],
    };
    Routing {
        routes: vec![
            route("10.0.0.0", 24, RouteKind::Unicast),
            route("10.0.0.254", 32, RouteKind::Local),
        ],
        links: vec![Link {
            device: 2,
            name: "cl0".into(),
            mac: [2; 6],
            mtu: 1500,
            up: true,
            neighbourless: false,
            vlan: None,
            over: None,
        }],
        addresses: Vec::new(),
        ports: vec![2],
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn vip(port: u16) -> ServiceKey {
    ServiceKey::Address {
        protocol: Protocol::Tcp,
        address: ip("192.0.2.1"),
        port,
    }
}

pub(super) fn add(service: ServiceKey) -> Command {
    let spec = ServiceSpec {
        scheduler: "rr".into(),
        flags: SchedulerFlags(0),
        persistence: None,
        netmask: match service.family() {
            Family::V4 => u32::MAX,
            Family::V6 => 128,
        },
        one_packet: false,
        engine: None,
    };
    Command::AddService { service, spec }
}

pub(super) fn server(address: &str) -> ServerKey {
    ServerKey {
        address: ip(address),
        port: 80,
    }
}

pub(super) fn spec(forwarding: Forwarding) -> ServerSpec {
    ServerSpec {
        forwarding,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

pub(super) fn add_server(service: ServiceKey, address: &str, forwarding: Forwarding) -> Command {
    Command::AddServer {
        service,
        server: server(address),
        spec: spec(forwarding),
    }
}

impl World {
    fn run(&mut self, commands: Vec<Command>, atomic: bool) -> Result<Outcome, String> {
        let (reply, mut answer) = oneshot::channel();
        let (_sender, orders) = crossbeam_channel::unbounded();
        let batch = Batch { commands, atomic };
        self.control.run_together(batch, reply, &orders);
        answer.try_recv().unwrap()
    }

    pub(super) fn good(&mut self, commands: Vec<Command>) {
        let outcome = self.run(commands, false).unwrap();
        assert!(outcome.refusals.iter().all(Option::is_none), "{outcome:?}");
    }

    fn rules(&self) -> SteeringRules {
        (*self.control.steered).clone()
    }

    fn endpoint(address: &str, port: u16) -> dataplane::port::steering::SteeredEndpoint {
        dataplane::port::steering::SteeredEndpoint {
            address: ip(address),
            protocol: Protocol::Tcp,
            port,
        }
    }
}

#[test]
fn a_batch_is_one_snapshot_and_workers_know_before_steering() {
    let mut world = world(false);
    let mut commands = vec![add(vip(80))];
    let addresses = (1..=10).map(|n| format!("10.0.0.{n}"));
    commands.extend(addresses.map(|a| add_server(vip(80), &a, Forwarding::Masquerade)));
    world.good(commands);
    assert_eq!(*world.snapshots.lock(), [2]);
    let diary = world.diary.lock().clone();
    let place = |is: &dyn Fn(&Told) -> bool| diary.iter().position(is).unwrap();
    let adopted = place(&|told| *told == Told::Adopted(2));
    let steered = place(&|told| matches!(told, Told::Steered(_)));
    assert!(adopted < steered, "{diary:?}");
    let rules = world.rules();
    assert_eq!(rules.virtuals, [World::endpoint("192.0.2.1", 80)]);
    assert_eq!(rules.reals.len(), 10);
    assert_eq!(rules.vlans, [(2, 7)]);
    let watched = diary.iter().find_map(|told| match told {
        Told::Watched(keys) => Some(keys.len()),
        _ => None,
    });
    assert_eq!(watched, Some(10));
}

#[test]
fn refusals_stand_alone_or_undo_all() {
    let mut world = world(false);
    let twice = || vec![add(vip(80)), add(vip(80)), add(vip(81))];
    let outcome = world.run(twice(), true).unwrap();
    assert_eq!(outcome.refusals[1], Some(Refusal::ServiceExists));
    assert!(outcome.refusals.iter().all(Option::is_some));
    assert!(world.control.table().services.is_empty());
    assert!(world.snapshots.lock().is_empty(), "nothing to adopt");
    let outcome = world.run(twice(), false).unwrap();
    assert_eq!(outcome.refusals, [None, Some(Refusal::ServiceExists), None]);
    assert_eq!(world.control.table().services.len(), 2);
}

#[test]
fn each_limit_that_was_reached_is_counted() {
    let mut world = world(false);
    let reached = |world: &mut World| {
        let all = world.control.all_counters();
        let names = ["services", "servers", "prefixes", "marks"];
        names.map(|name| all[&format!("limit_{name}")])
    };
    assert_eq!(reached(&mut world), [0; 4]);
    let services: Vec<_> = (1..=18).map(|port| add(vip(port))).collect();
    let outcome = world.run(services, false).unwrap();
    let refused = Some(Refusal::Limit {
        what: Limited::Services,
        limit: 16,
    });
    assert_eq!(outcome.refusals[15..], [None, refused.clone(), refused]);
    assert_eq!(reached(&mut world), [2, 0, 0, 0]);
    let server = |port| Command::AddServer {
        service: vip(1),
        server: ServerKey {
            address: ip("10.0.0.9"),
            port,
        },
        spec: spec(Forwarding::Route),
    };
    let outcome = world.run((1..=17).map(server).collect(), true).unwrap();
    assert!(outcome.refusals.iter().all(Option::is_some), "all or none");
    assert_eq!(reached(&mut world), [2, 1, 0, 0]);
    let rule = |address: &str| FwmarkRule {
        mark: NonZeroU32::new(1).unwrap(),
        address: ip(address),
        protocol: Protocol::Tcp,
        ports: (1..=u16::MAX).collect(),
    };
    let marks = ["192.0.2.7", "192.0.2.8"].map(|a| Command::AddFwmark(rule(a)));
    let _ = world.run(marks.into(), false).unwrap();
    assert_eq!(reached(&mut world), [2, 1, 0, 1]);
    let count = sched::prefix::PREFIXES_MAX + 1;
    let prefix = |n: u32| Prefix::of(IpAddr::from((n << 8).to_be_bytes()), 24);
    let prefixes = (0..count).map(prefix).collect();
    let guard = Some(Guard::Deny);
    let _ = world.run(vec![Command::SetPrefixes { guard, prefixes }], false);
    assert_eq!(reached(&mut world), [2, 1, 1, 1]);
}

#[test]
fn services_of_foreign_addresses_are_refused_on_request() {
    let service = |address: &str| ServiceKey::Address {
        protocol: Protocol::Tcp,
        address: ip(address),
        port: 80,
    };
    let mark = NonZeroU32::new(7).unwrap();
    let family = Family::V4;
    let fwmark = ServiceKey::Fwmark { mark, family };
    let not_local = |address: &str| {
        let address = ip(address);
        Some(Refusal::NotLocal { address })
    };
    // (service, refused with --require-local)
    let rows = [
        (service("10.0.0.254"), None),
        (service("10.0.0.1"), not_local("10.0.0.1")),
        (service("192.0.2.1"), not_local("192.0.2.1")),
        (service("2001:db8::1"), not_local("2001:db8::1")),
        (fwmark, None),
    ];
    for require_local in [false, true] {
        let mut world = world(false);
        world.control.require_local = require_local;
        for (service, refusal) in &rows {
            let outcome = world.run(vec![add(*service)], false).unwrap();
            let expected = refusal.clone().filter(|_| require_local);
            assert_eq!(outcome.refusals, [expected], "{service:?}");
        }
    }
}

#[test]
fn a_hanging_worker_is_named() {
    let mut world = world(true);
    let error = world.run(vec![add(vip(80))], false).unwrap_err();
    assert!(error.contains("worker [0]"), "{error}");
    assert_eq!(
        world.control.table().services.len(),
        1,
        "applied all the same"
    );
}

#[test]
fn what_has_connections_is_steered_on_until_they_end() {
    let mut world = world(false);
    world.good(vec![
        add(vip(80)),
        add_server(vip(80), "10.0.0.1", Forwarding::Masquerade),
        add_server(vip(80), "10.0.0.2", Forwarding::Masquerade),
    ]);
    let servers = world.last.lock().clone().unwrap();
    let busy = servers
        .iter()
        .find(|s| s.key == server("10.0.0.1"))
        .unwrap();
    busy.bind(Counted::Active);
    let edit = Command::EditServer {
        service: vip(80),
        server: server("10.0.0.1"),
        spec: spec(Forwarding::Route),
    };
    world.good(vec![edit]);
    let real = World::endpoint("10.0.0.1", 80);
    assert!(
        world.rules().reals.contains(&real),
        "edited, but connections live"
    );
    world.good(vec![Command::DeleteService { service: vip(80) }]);
    let rules = world.rules();
    assert_eq!(
        rules.virtuals,
        [World::endpoint("192.0.2.1", 80)],
        "deleted"
    );
    assert_eq!(rules.reals, [real], "only the busy server");
    busy.unbind(Counted::Active);
    world.control.tick();
    let rules = world.rules();
    assert!(
        rules.virtuals.is_empty() && rules.reals.is_empty(),
        "{rules:?}"
    );
}

#[test]
fn marks_are_steered_and_their_servers_whole() {
    let mut world = world(false);
    let mark = NonZeroU32::new(5).unwrap();
    let service = ServiceKey::Fwmark {
        mark,
        family: Family::V4,
    };
    let rule = FwmarkRule {
        mark,
        address: ip("192.0.2.9"),
        protocol: Protocol::Tcp,
        ports: vec![80, 443],
    };
    world.good(vec![
        Command::AddFwmark(rule.clone()),
        add(service),
        Command::AddServer {
            service,
            server: ServerKey {
                address: ip("10.0.0.3"),
                port: 0,
            },
            spec: spec(Forwarding::Masquerade),
        },
    ]);
    let rules = world.rules();
    assert_eq!(rules.virtuals.len(), 2);
    assert_eq!(rules.reals_whole, [ip("10.0.0.3")]);
    world.good(vec![Command::DeleteFwmark(rule)]);
    world.control.state.reap(0);
    world.control.tick();
    assert!(world.rules().virtuals.is_empty());
}

#[test]
fn listings_show_local_servers_loads_and_counts() {
    let mut world = world(false);
    world.good(vec![
        add(vip(80)),
        add_server(vip(80), "10.0.0.1", Forwarding::Masquerade),
        add_server(vip(80), "10.0.0.254", Forwarding::Masquerade),
    ]);
    let servers = world.last.lock().clone().unwrap();
    let first = servers
        .iter()
        .find(|s| s.key == server("10.0.0.1"))
        .unwrap();
    first.bind(Counted::Active);
    world.counters.server(first.id).inbound(60);
    world.counters.service(first.service).inbound(60);
    world.control.tick();
    let table = world.control.table();
    let rows = &table.services[0].servers;
    let local: Vec<(IpAddr, bool)> = rows.iter().map(|r| (r.server.address, r.local)).collect();
    assert_eq!(
        local,
        [(ip("10.0.0.254"), true), (ip("10.0.0.1"), false)],
        "newest first"
    );
    assert_eq!((rows[1].active, rows[1].stats.in_bytes), (1, 60));
    assert_eq!(table.services[0].stats.in_packets, 1);
    let delete = Command::DeleteServer {
        service: vip(80),
        server: server("10.0.0.1"),
    };
    world.good(vec![delete]);
    let table = world.control.table();
    assert_eq!(
        table.services[0].stats.in_packets, 1,
        "a removed server's share stays"
    );
    world.good(vec![Command::Zero { service: None }]);
    assert_eq!(world.control.table().services[0].stats.in_packets, 0);
    assert_eq!(world.control.all_counters()["steering_passed"], 7);
}

#[test]
fn an_ftp_service_is_steered_with_all_ports() {
    let mut world = world(false);
    world.good(vec![add(vip(21))]);
    let ports: Vec<u16> = world.rules().virtuals.iter().map(|end| end.port).collect();
    assert_eq!(ports, [21, 0]);
}
