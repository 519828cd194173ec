//! What the table refuses, what it remembers, and how long it takes.

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::command;
use proptest::prelude::*;
use sched::command::{Command, Limited, Refusal};
use sched::scheduler::Request;
use sched::server::{Counted, ServerId};
use sched::service::ServiceId;
use sched::table::{Applied, Drafts, Limits, SavedServer, SavedService, ServiceTable, TRASH_S};

const LIMITS: Limits = Limits {
    services: 8,
    servers: 16,
};

fn table(lines: &[&str]) -> ServiceTable {
    let mut table = ServiceTable::new(LIMITS);
    for line in lines {
        apply(&mut table, line).unwrap_or_else(|refusal| panic!("{line}: {refusal}"));
    }
    table
}

fn apply(table: &mut ServiceTable, line: &str) -> Result<Applied, Refusal> {
    table.apply(&command(line), 0)
}

fn request() -> Request {
    Request {
        client: [10, 9, 0, 1].into(),
        client_port: 4000,
        virtual_address: [10, 1, 0, 1].into(),
        virtual_port: 80,
        now_s: 0,
    }
}

fn added(id: u32, zero: bool, fresh: bool) -> Result<Applied, Refusal> {
    let id = ServerId(id);
    Ok(Applied::ServerAdded { id, zero, fresh })
}

#[test]
fn refusals_come_in_the_kernels_order() {
    let lines = [
        "-A -t 10.1.0.1:80 -s rr",
        "-A -t [fd01::1]:80 -s rr -M 64",
        "-a -t 10.1.0.1:80 -r 10.2.0.11 -x 5 -y 4",
    ];
    let range = |what: &str| Refusal::OutOfRange { what: what.into() };
    let invalid = |what: &str| Refusal::Invalid { what: what.into() };
    let thresholds = || range("the lower threshold is above the upper threshold");
    let unicast = || invalid("a real server's address is a unicast address");
    let rows = [
        // Linux 6.1 gave each of these answers, to ipvsadm 1.31.
        ("-A -t 10.1.0.1:80 -s nosuch", Refusal::ServiceExists),
        ("-A -t 10.1.0.1:81 -s nosuch", Refusal::NoSuchScheduler),
        ("-A -t 10.1.0.1:81 -s rr --pe no", Refusal::NoSuchScheduler),
        ("-E -t 10.1.0.9:80 -s nosuch", Refusal::NoSuchService),
        ("-E -t 10.1.0.1:80 -s nosuch", Refusal::NoSuchScheduler),
        ("-E -t 10.1.0.1:80 -s rr --pe no", Refusal::NoSuchScheduler),
        ("-D -t 10.1.0.9:80", Refusal::NoSuchService),
        (
            "-a -t 10.1.0.9:80 -r 10.2.0.11 -x 5 -y 9",
            Refusal::NoSuchService,
        ),
        ("-a -t 10.1.0.1:80 -r 10.2.0.11 -x 5 -y 9", thresholds()),
        ("-a -t 10.1.0.1:80 -r 10.2.0.11", Refusal::ServerExists),
        ("-a -t 10.1.0.1:80 -r 224.0.0.1", unicast()),
        ("-a -t 10.1.0.1:80 -r 0.0.0.0", unicast()),
        ("-a -t 10.1.0.1:80 -r 255.255.255.255", unicast()),
        ("-e -t 10.1.0.9:80 -r 10.2.0.11", Refusal::NoSuchService),
        ("-e -t 10.1.0.1:80 -r 10.2.0.19 -x 5 -y 9", thresholds()),
        (
            "-e -t 10.1.0.1:80 -r 10.2.0.19 -x 5 -y 4",
            Refusal::NoSuchServer,
        ),
        ("-d -t 10.1.0.9:80 -r 10.2.0.19", Refusal::NoSuchService),
        ("-d -t 10.1.0.1:80 -r 10.2.0.19", Refusal::NoSuchServer),
        // These the kernel has from its source, or ipvsadm refuses before it asks.
        (
            "-A -t [fd01::2]:80 -s rr -M 0",
            range("an IPv6 persistence mask is 1 to 128 bits"),
        ),
        (
            "-A -t 10.1.0.1:81 -s rr -p 0",
            range("the persistence timeout is 1 to 2678400 s (31 days)"),
        ),
        (
            "-A -t 10.1.0.1:0 -s rr",
            invalid("port 0 stands for every port and needs persistence; name a port or add -p"),
        ),
        (
            "-a -t [fd01::1]:80 -r 10.2.0.11 -m -x 1 -y 2",
            invalid(
                "a real server of the other address family is reached by a tunnel only; use -i",
            ),
        ),
        (
            "-a -t 10.1.0.1:80 -r 10.2.0.12 -w 2147483648",
            range("weight and thresholds are 0 to 2147483647"),
        ),
    ];
    let before = table(&lines);
    for (line, expected) in rows {
        let mut table = before.clone();
        assert_eq!(apply(&mut table, line), Err(expected), "{line}");
        assert_eq!(format!("{table:?}"), format!("{before:?}"), "{line}");
    }
    let mut table = before;
    for line in [
        "-a -t 10.1.0.1:80 -r 240.0.0.1",
        "-a -t 10.1.0.1:80 -r 127.0.0.1",
        "-a -t 10.1.0.1:80 -r [fd02::11]:80 -i",
        "-A -t 10.1.0.1:0 -s rr -p 9",
        "-A -f 5 -s twos",
    ] {
        assert!(apply(&mut table, line).is_ok(), "{line}");
    }
}

#[test]
fn limits_refuse() {
    let mut table = ServiceTable::new(Limits {
        services: 1,
        servers: 1,
    });
    assert!(apply(&mut table, "-A -f 1 -s rr").is_ok());
    assert!(apply(&mut table, "-a -f 1 -r 10.2.0.11").is_ok());
    let limit = |what| Err(Refusal::Limit { what, limit: 1 });
    assert_eq!(apply(&mut table, "-A -f 2 -s rr"), limit(Limited::Services));
    assert_eq!(
        apply(&mut table, "-a -f 1 -r 10.2.0.12"),
        limit(Limited::Servers)
    );
    assert!(apply(&mut table, "-d -f 1 -r 10.2.0.11").is_ok());
    assert_eq!(
        apply(&mut table, "-a -f 1 -r 10.2.0.12"),
        limit(Limited::Servers)
    );
    assert_eq!(
        apply(&mut table, "-a -f 1 -r 10.2.0.11"),
        added(0, false, false)
    );
    assert!(apply(&mut table, "-D -f 1").is_ok());
    assert_eq!(table.reap(TRASH_S), [ServerId(0)]);
    assert_eq!(
        apply(&mut table, "-A -f 2 -s rr"),
        Ok(Applied::ServiceAdded(ServiceId(0)))
    );
}

#[test]
fn new_servers_go_to_the_head() {
    let table = table(&[
        "-A -f 1 -s rr",
        "-a -f 1 -r 10.2.0.11",
        "-a -f 1 -r 10.2.0.12",
        "-a -f 1 -r 10.2.0.13",
        "-e -f 1 -r 10.2.0.12 -w 5",
    ]);
    let service = table.services().next().unwrap();
    let order: Vec<_> = service
        .servers
        .iter()
        .map(|s| (s.id.0, s.spec.weight))
        .collect();
    assert_eq!(order, [(2, 1), (1, 5), (0, 1)]);
}

#[test]
fn a_removed_server_returns_with_its_load() {
    let lines = ["-A -t 10.1.0.1:80 -s rr", "-a -t 10.1.0.1:80 -r 10.2.0.11"];
    let mut table = table(&lines);
    let server = table.server(ServerId(0)).unwrap().clone();
    server.bind(Counted::Active);
    server.bind(Counted::Template);

    apply(&mut table, "-d -t 10.1.0.1:80 -r 10.2.0.11").unwrap();
    let (removed, service) = table.servers().next().unwrap();
    assert!(!removed.available && service.is_some());
    // Another service's server of the same address is another server.
    apply(&mut table, "-A -u 10.1.0.1:80 -s rr").unwrap();
    assert_eq!(
        apply(&mut table, "-a -u 10.1.0.1:80 -r 10.2.0.11"),
        added(1, true, true)
    );
    assert_eq!(
        apply(&mut table, "-a -t 10.1.0.1:80 -r 10.2.0.11"),
        added(0, false, false)
    );
    assert_eq!(table.server(ServerId(0)).unwrap().load.total(), 1);

    // Its service's number stays taken while the server is remembered.
    apply(&mut table, "-D -t 10.1.0.1:80").unwrap();
    assert_eq!(table.servers().next().unwrap().1.map(|s| s.id), None);
    let again = apply(&mut table, "-A -t 10.1.0.1:80 -s rr");
    assert_eq!(again, Ok(Applied::ServiceAdded(ServiceId(2))));
    assert_eq!(
        apply(&mut table, "-a -t 10.1.0.1:80 -r 10.2.0.11"),
        added(0, true, false)
    );
    let (server, service) = table.servers().next().unwrap();
    assert!(server.available && server.load.total() == 1);
    assert_eq!(service.map(|s| s.id), Some(ServiceId(2)));
    let freed = apply(&mut table, "-A -f 7 -s rr");
    assert_eq!(freed, Ok(Applied::ServiceAdded(ServiceId(0))));
}

#[test]
fn the_trash_forgets_who_is_idle_for_long() {
    let mut table = table(&[
        "-A -f 1 -s rr",
        "-a -f 1 -r 10.2.0.11",
        "-a -f 1 -r 10.2.0.12",
    ]);
    let busy = table.server(ServerId(0)).unwrap().clone();
    busy.bind(Counted::Template);
    table.apply(&Command::Flush, 50).unwrap();
    assert_eq!(table.reap(50 + TRASH_S - 1), []);
    assert_eq!(table.reap(50 + TRASH_S), [ServerId(1)]);
    assert!(table.server(ServerId(1)).is_none());
    busy.unbind(Counted::Template);
    assert_eq!(table.reap(50 + TRASH_S), [ServerId(0)]);
    assert_eq!((table.servers().count(), table.services().count()), (0, 0));
    assert_eq!(
        apply(&mut table, "-A -f 1 -s rr"),
        Ok(Applied::ServiceAdded(ServiceId(0)))
    );
}

#[test]
fn thresholds_mark_and_lift_as_the_kernel_does() {
    let rows: [(&str, &str, &[i8], &[bool]); 6] = [
        ("no threshold", "", &[1, 1, 1], &[false, false, false]),
        (
            "75 % of the upper one lifts",
            "-x 4",
            &[1, 1, 1, 1, -1, -1],
            &[false, false, false, true, true, false],
        ),
        (
            "the lower one lifts",
            "-x 4 -y 2",
            &[1, 1, 1, 1, -1, -1, -1, 1],
            &[false, false, false, true, true, true, false, false],
        ),
        ("upper 1", "-x 1", &[1, -1, 1], &[true, false, true]),
        (
            "equal thresholds",
            "-x 2 -y 2",
            &[1, 1, -1],
            &[false, true, false],
        ),
        // 0 stands for a template.
        (
            "a template does not count",
            "-x 2",
            &[1, 0, 1],
            &[false, false, true],
        ),
    ];
    for (what, options, steps, expected) in rows {
        let line = format!("-a -f 1 -r 10.2.0.11 {options}");
        let table = table(&["-A -f 1 -s rr", &line]);
        let server = table.server(ServerId(0)).unwrap();
        let marks = steps.iter().map(|step| {
            match step {
                0 => server.bind(Counted::Template),
                -1 => server.unbind(Counted::Inactive),
                _ => server.bind(Counted::Inactive),
            }
            server.is_overloaded()
        });
        assert_eq!(marks.collect::<Vec<_>>(), expected, "{what}");
    }
}

#[test]
fn an_edit_compares_with_the_new_thresholds_at_once() {
    // Five connections, the upper threshold is 4.
    let rows: [(&str, &[&str], bool); 10] = [
        ("the same", &["-x 4"], true),
        ("a smaller one", &["-x 1"], true),
        ("a greater one, reached", &["-x 5"], true),
        ("not reached, but not below 75 % of it", &["-x 6"], true),
        ("below 75 % of it", &["-x 7"], false),
        ("not below the lower one", &["-x 7 -y 5"], true),
        ("below the lower one", &["-x 7 -y 6"], false),
        ("none", &[""], false),
        ("none, then one that is reached", &["", "-x 5"], true),
        ("none, then one that is not", &["", "-x 6"], false),
    ];
    for (what, edits, expected) in rows {
        let mut table = table(&["-A -f 1 -s rr", "-a -f 1 -r 10.2.0.11 -x 4"]);
        let server = table.server(ServerId(0)).unwrap().clone();
        (0..5).for_each(|_| server.bind(Counted::Active));
        for options in edits {
            let mut draft = table.clone();
            apply(&mut draft, &format!("-e -f 1 -r 10.2.0.11 {options}")).unwrap();
            assert!(server.is_overloaded(), "{what}: a draft changes nothing");
            table = draft;
        }
        let server = table.server(ServerId(0)).unwrap();
        assert_eq!(server.is_overloaded(), expected, "{what}");
        (0..5).for_each(|_| server.unbind(Counted::Active));
        assert!(!server.is_overloaded(), "{what}");
    }
}

#[test]
fn a_worker_behind_the_last_edit_leaves_no_server_overloaded() {
    let mut table = table(&["-A -f 1 -s rr", "-a -f 1 -r 10.2.0.11 -x 2"]);
    let behind = table.server(ServerId(0)).unwrap().clone();
    (0..2).for_each(|_| behind.bind(Counted::Active));
    apply(&mut table, "-e -f 1 -r 10.2.0.11 -x 1").unwrap();
    let server = table.server(ServerId(0)).unwrap();
    assert!(server.is_overloaded());
    (0..2).for_each(|_| behind.unbind(Counted::Active));
    assert!(!server.is_overloaded());
    server.bind(Counted::Active);
    behind.bind(Counted::Active);
    behind.unbind(Counted::Active);
    assert!(server.is_overloaded());
}

#[test]
fn what_is_not_of_the_table_is_left_to_the_caller() {
    let mut table = ServiceTable::new(LIMITS);
    let zero = Command::Zero { service: None };
    assert_eq!(table.apply(&zero, 0), Ok(Applied::NotOfTable));
}

/// The time that this thread has had a core, ns: what others do meanwhile does not count.
fn core_time_ns() -> u64 {
    // Linux brings the number up to date when a thread gives its core up.
    std::thread::yield_now();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

/// What a batch of commands costs, made by `line` of a number: the best of three, ns.
fn batch_ns(count: u32, line: &dyn Fn(u32) -> String) -> u64 {
    let commands: Vec<_> = (0..count).map(|n| command(&line(n))).collect();
    let took = (0..3).map(|_| {
        let mut table = ServiceTable::new(Limits {
            services: count + 1,
            servers: 2 * count,
        });
        table.apply(&command("-A -f 1 -s wrr"), 0).unwrap();
        let begun = core_time_ns();
        let mut drafts = Drafts::default();
        for command in &commands {
            table.draft(command, 0, &mut drafts).unwrap();
        }
        table.settle(&mut drafts);
        core_time_ns() - begun
    });
    took.min().unwrap()
}

/// Sixteen times the commands take 16 times as long, and not 256 times.
#[test]
fn a_batch_costs_as_its_length() {
    let address = |n: u32| format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
    let rows: [(&str, &dyn Fn(u32) -> String); 4] = [
        ("servers of one service", &|n| {
            format!("-a -f 1 -r {} -w {}", address(n), n % 7 + 1)
        }),
        ("services", &|n| format!("-A -f {} -s mh", n + 2)),
        ("edits of one service", &|n| {
            format!("-E -f 1 -s wrr -p {}", n % 100 + 1)
        }),
        ("one server comes, is edited and goes", &|n| match n % 4 {
            0 => format!("-a -f 1 -r {}", address(n)),
            1 => format!("-a -f 1 -r {}", address(n)),
            2 => format!("-e -f 1 -r {} -w 9", address(n - 2)),
            _ => format!("-d -f 1 -r {}", address(n - 3)),
        }),
    ];
    for (what, line) in rows {
        let [few, many] = [2048, 16 * 2048].map(|count| batch_ns(count, line));
        println!("{what}: {few} ns, {many} ns");
        assert!(many < 80 * few, "{what}: {few} ns, {many} ns");
    }
}

#[test]
fn a_thousand_services_of_a_hundred_servers_are_quick() {
    let mut table = ServiceTable::new(Limits {
        services: 1000,
        servers: 100_000,
    });
    let vips: Vec<_> = (0..1000)
        .map(|n| format!("10.1.{}.{}:80", n / 250, n % 250 + 1))
        .collect();
    let begun = Instant::now();
    for vip in &vips {
        let add = command(&format!("-A -t {vip} -s rr"));
        table.apply(&add, 0).unwrap();
        for server in 1..=100 {
            let add = command(&format!("-a -t {vip} -r 10.2.0.{server} -w {server}"));
            table.apply(&add, 0).unwrap();
        }
    }
    println!("filled in {:?}", begun.elapsed());

    for scheduler in ["wlc", "mh"] {
        for vip in &vips {
            let edit = command(&format!("-E -t {vip} -s {scheduler}"));
            table.apply(&edit, 0).unwrap();
        }
        let (cloned, mut draft) = timed(|| table.clone());
        let took = [50, 51].map(|server| {
            let edit = command(&format!("-e -t {} -r 10.2.0.{server} -w 9", vips[500]));
            timed(|| draft.apply(&edit, 0).unwrap()).0
        });
        let live = |table: &ServiceTable| table.servers().filter(|(_, s)| s.is_some()).count();
        let (walked, listed) = timed(|| live(&draft));
        println!(
            "{scheduler}: clone {cloned:?}, its first edit {:?}, the next {:?}; \
             all servers listed in {walked:?}",
            took[0], took[1]
        );
        assert_eq!(listed, 100_000);
        assert!(
            took.iter().all(|t| *t < Duration::from_millis(500)),
            "{took:?}"
        );
    }
}

type Parts = (Vec<SavedService>, Vec<SavedServer>);

/// A table as it is written down.
fn parts(table: &ServiceTable) -> Parts {
    let removals = table.removals();
    let services = table.services().map(|s| ServiceTable::saved_service(s));
    let servers = table.servers();
    let servers = servers.map(|(server, _)| server.saved(removals.get(&server.id).copied()));
    (services.collect(), servers.collect())
}

/// The same table, from its parts.
fn rebuilt(table: &ServiceTable) -> ServiceTable {
    let (services, servers) = parts(table);
    ServiceTable::restore(LIMITS, services, servers).expect("a table's own parts fit")
}

#[test]
fn a_rebuilt_table_goes_on() {
    let mut table = ServiceTable::new(LIMITS);
    for line in [
        "-A -t 10.1.0.1:80 -s rr",
        "-a -t 10.1.0.1:80 -r 10.2.0.1 -m",
        "-a -t 10.1.0.1:80 -r 10.2.0.2 -m -w 5",
        "-e -t 10.1.0.1:80 -r 10.2.0.2 -m -w 0",
        "-d -t 10.1.0.1:80 -r 10.2.0.1",
        "-A -t 10.1.0.2:80 -s mh",
        "-a -t 10.1.0.2:80 -r 10.2.0.9 -i",
        "-D -t 10.1.0.2:80",
    ] {
        table.apply(&command(line), 100).unwrap();
    }
    let mut rebuilt = rebuilt(&table);
    assert_eq!(parts(&rebuilt), parts(&table));
    let drained = rebuilt
        .servers()
        .map(|(s, _)| s)
        .find(|s| s.id.0 == 1)
        .unwrap();
    assert_eq!((drained.spec.weight, drained.last_weight), (0, 5));
    drained.restore_load(3, 2, 1);
    assert_eq!((drained.load.total(), drained.is_usable()), (5, false));
    // A server that was removed gets its number back; another one gets a free one.
    let back = command("-a -t 10.1.0.1:80 -r 10.2.0.1 -m");
    for table in [&mut table, &mut rebuilt] {
        let Ok(Applied::ServerAdded { id, fresh, .. }) = table.apply(&back, 110) else {
            panic!("it comes back");
        };
        assert_eq!((id.0, fresh), (0, false));
        assert_eq!(table.reap(219), []);
        assert_eq!(table.reap(220).len(), 1);
    }
}

/// Parts that contradict each other are refused, each for its reason.
#[test]
fn parts_that_do_not_fit_are_refused() {
    let mut table = ServiceTable::new(LIMITS);
    for line in [
        "-A -t 10.1.0.1:80 -s rr",
        "-a -t 10.1.0.1:80 -r 10.2.0.1 -m",
        "-a -t 10.1.0.1:80 -r 10.2.0.2 -m",
        "-A -t 10.1.0.2:80 -s rr",
    ] {
        table.apply(&command(line), 0).unwrap();
    }
    type Change = fn(&mut Parts);
    let rows: [(&str, Change, &str); 11] = [
        (
            "a service twice",
            |p| p.0.push(p.0[0].clone()),
            "another's key",
        ),
        ("one number", |p| p.0[1].id = p.0[0].id, "twice"),
        (
            "a number too high",
            |p| p.0[1].id.0 = LIMITS.services,
            "limit",
        ),
        ("a server too high", |p| p.1[0].id.0 = u32::MAX, "limit"),
        ("a server twice", |p| p.1.push(p.1[0].clone()), "twice"),
        (
            "a server listed twice",
            |p| p.0[0].servers.extend_from_within(..1),
            "list",
        ),
        (
            "a server listed elsewhere",
            |p| p.0[1].servers = p.0[0].servers.clone(),
            "list",
        ),
        (
            "a server in no list",
            |p| p.0[0].servers.truncate(1),
            "list",
        ),
        ("an unknown server", |p| p.0[0].servers[0].0 = 7, "list"),
        (
            "a scheduler unknown",
            |p| p.0[0].spec.scheduler = "x".into(),
            "scheduler",
        ),
        (
            "two servers of a key",
            |p| p.1[0].key = p.1[1].key,
            "another's key",
        ),
    ];
    for (description, change, expected) in rows {
        let mut parts = parts(&table);
        change(&mut parts);
        let error = ServiceTable::restore(LIMITS, parts.0, parts.1).err();
        let text = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains(expected), "{description}: {text}");
    }
}

fn timed<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let begun = Instant::now();
    let result = run();
    (begun.elapsed(), result)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Commands in one batch lead where they lead one by one, whatever state the schedulers
    /// had, and are refused alike.
    #[test]
    fn a_batch_is_its_commands(
        first in prop::collection::vec((0..9u8, 0..3u8, 0..6u8, 0..13u32), 0..30),
        asked in 0..20,
        steps in prop::collection::vec((0..14u8, 0..3u8, 0..6u8, 0..13u32), 1..40),
    ) {
        let line = |&(what, service, server, weight): &(u8, u8, u8, u32)| {
            let name = format!("-f {}", service + 1);
            let real = format!("{name} -r 10.2.0.{}", server + 1);
            let scheduler = ["rr", "wrr", "mh", "sh"][weight as usize % 4];
            match what {
                0 => format!("-A {name} -s {scheduler}"),
                1 => format!("-E {name} -s {scheduler}"),
                2 => format!("-E {name} -s sh -b sh-port"),
                3 => format!("-D {name}"),
                9 if weight == 0 => "-C".into(),
                10 => format!("-e {real} -w {weight}"),
                11..=13 => format!("-d {real}"),
                _ => format!("-a {real} -w {weight}"),
            }
        };
        let mut one = ServiceTable::new(Limits { services: 4, servers: 12 });
        for service in 1..4 {
            one.apply(&command(&format!("-A -f {service} -s rr")), 0).unwrap();
        }
        for step in &first {
            let _ = one.apply(&command(&line(step)), 0);
        }
        for service in one.services() {
            for _ in 0..asked {
                service.scheduler.schedule(&request(), &service.servers);
            }
        }
        let (mut batch, mut drafts) = (one.clone(), Drafts::default());
        for step in &steps {
            let command = command(&line(step));
            let drafted = batch.draft(&command, 1, &mut drafts);
            prop_assert_eq!(one.apply(&command, 1), drafted, "{:?}", command);
        }
        batch.settle(&mut drafts);
        prop_assert_eq!(format!("{:#?}", one), format!("{:#?}", batch));
    }

    /// Whatever is asked: numbers stay dense and unique, lists name what the table knows,
    /// a refusal changes nothing, and no count is lost.
    #[test]
    fn the_table_stays_consistent(
        steps in prop::collection::vec((0..9u8, 0..3u8, 0..4u8, 0..4u32, any::<bool>()), 1..80),
    ) {
        let mut table = ServiceTable::new(Limits { services: 5, servers: 9 });
        let mut now_s = 0;
        let mut bound: BTreeMap<(u8, u8), u32> = BTreeMap::new();
        for (what, service, server, weight, bind) in steps {
            now_s += 40;
            let name = format!("-f {}", service + 1);
            let real = format!("{name} -r 10.2.0.{}", server + 1);
            let line = match what {
                0 => format!("-A {name} -s wrr"),
                1 => format!("-E {name} -s mh -b mh-fallback"),
                2 => format!("-D {name}"),
                3..=5 => format!("-a {real} -w {weight}"),
                6 => format!("-e {real} -w {weight}"),
                7 => format!("-d {real}"),
                _ => "-C".into(),
            };
            let before = table.clone();
            let outcome = table.apply(&command(&line), now_s);
            if outcome.is_err() {
                prop_assert_eq!(format!("{:?}", before), format!("{:?}", table));
            }
            if let (Ok(Applied::ServerAdded { id, .. }), true) = (outcome, bind) {
                table.server(id).unwrap().bind(Counted::Active);
                *bound.entry((service, server)).or_default() += 1;
            }
            for id in table.reap(now_s) {
                prop_assert!(table.server(id).is_none());
            }
            prop_assert_eq!(parts(&rebuilt(&table)), parts(&table));
            let mut ids = BTreeMap::new();
            for (server, service) in table.servers() {
                prop_assert!(server.id.0 < 9);
                prop_assert!(ids.insert(server.id, service.map(|s| s.id)).is_none());
                let listed = service.is_some_and(|s| s.servers.iter().any(|l| l.id == server.id));
                prop_assert_eq!(listed, server.available);
            }
            for service in table.services() {
                for server in &service.servers {
                    prop_assert_eq!(ids.get(&server.id), Some(&Some(service.id)));
                }
            }
            let total: u32 = table.servers().map(|(server, _)| server.load.total()).sum();
            prop_assert_eq!(total, bound.values().sum::<u32>());
        }
    }
}
