//! Files in, configurations or pointed problems out; what runs survives the way through a
//! file; a transaction makes a director what its file says.

use proptest::prelude::*;
use sched::command::{Command, Refusal};

use super::*;
use crate::director::Director as _;
use crate::testing::MemoryDirector;

fn judge(name: &str, value: &str) -> Result<(), Refusal> {
    match (name, value) {
        ("expire_nodest_conn", "0" | "1") | ("sync_threshold", _) => Ok(()),
        ("expire_nodest_conn", _) => Err(Refusal::OutOfRange {
            what: "expire_nodest_conn is a number from 0 to 1".into(),
        }),
        _ => Err(Refusal::NoSuchTunable { name: name.into() }),
    }
}

const WHOLE: &str = r#"
[director]
ports = ["eth0", "eth1"]
api = "/run/lvx/a.sock"
cores = [2, 3]
queues = 2
connections = 4194304
require_local = true

[timeouts]
tcp_s = 600

[tunables]
expire_nodest_conn = true
"net.ipv4.vs.sync_threshold" = "5 60"

[prefixes]
allow = ["10.9.1.0/24"]
deny = ["10.9.0.0/16", "2001:db8::/32"]

[[fwmark]]
mark = 7
address = "10.1.0.9"
protocol = "tcp"
ports = [80, 443]

[[service]]
address = "10.1.0.1:80"
scheduler = "sh"
flags = ["sh-port", "sh-fallback"]
[service.limits]
connections_per_s = 1000
source_connections_per_s = 20
source_v4_bits = 24
[[service.server]]
address = "10.2.0.11:8080"
forwarding = "nat"
weight = 5
[[service.server]]
address = "10.2.0.12"

[[service]]
protocol = "udp"
address = "[fd01::1]:53"
netmask = 64
persistent_s = 300
one_packet = true
[[service.server]]
address = "10.2.0.13:53"
tunnel = "gue"
tunnel_port = 6080
tunnel_checksum = "remote"
upper = 100
lower = 50

[[service]]
fwmark = 7
netmask = 24
"#;

/// What `config` looks like once a director has carried it out.
fn carried_out(config: &Config) -> Running {
    let mut running = Running {
        table: MemoryDirector::default().table().unwrap(),
        marks: Vec::new(),
        prefixes: Arc::default(),
        tunables: defaults(),
    };
    running.table.timeouts = TIMEOUTS;
    carry_out(config, &mut running);
    running
}

fn defaults() -> Tunables {
    let row = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    [("expire_nodest_conn", "0"), ("sync_threshold", "3 50")]
        .map(row)
        .into()
}

/// Brings `running` to `config` by a transaction, through the director's own table.
fn carry_out(config: &Config, running: &mut Running) -> Vec<Command> {
    let commands = transaction(&running.config(), config, &defaults());
    let mut director = MemoryDirector::default();
    let as_it_is = Config {
        services: running.config().services,
        ..Config::default()
    };
    let empty = Config::default();
    let is_of_table = |c: &&Command| {
        use Command::*;
        !matches!(
            c,
            SetTimeouts { .. } | SetTunable { .. } | AddFwmark(_) | DeleteFwmark(_)
        )
    };
    for list in [
        transaction(&empty, &as_it_is, &defaults()),
        commands.clone(),
    ] {
        let list: Vec<_> = list.iter().filter(is_of_table).cloned().collect();
        let refusals = director.execute(&list).unwrap();
        assert!(
            refusals.iter().all(Option::is_none),
            "{list:?} {refusals:?}"
        );
    }
    let timeouts = running.table.timeouts;
    running.table = director.table().unwrap();
    running.table.timeouts = timeouts;
    for command in &commands {
        match command.clone() {
            Command::SetTimeouts {
                tcp_s,
                tcp_fin_s,
                udp_s,
            } => {
                running.table.timeouts = Timeouts {
                    tcp_s,
                    tcp_fin_s,
                    udp_s,
                };
            }
            Command::SetTunable { name, value } => _ = running.tunables.insert(name, value),
            Command::AddFwmark(rule) => running.marks.push(rule),
            Command::SetPrefixes { guard, prefixes } => {
                let all = Arc::make_mut(&mut running.prefixes);
                prefixes.into_iter().for_each(|prefix| match guard {
                    Some(guard) => _ = all.insert(prefix, guard),
                    None => _ = all.remove(&prefix),
                });
            }
            Command::DeleteFwmark(rule) => running.marks.retain(|other| *other != rule),
            _ => {}
        }
    }
    running.marks.sort();
    commands
}

#[test]
fn a_whole_file() {
    let config = read("f", WHOLE, &judge).unwrap();
    let director = &config.director;
    assert_eq!(director.ports, ["eth0", "eth1"]);
    assert_eq!(
        (director.queues, director.connections),
        (Some(2), Some(4_194_304))
    );
    assert!(director.require_local && !director.copy);
    assert_eq!((config.timeouts.tcp_s, config.timeouts.udp_s), (600, 300));
    assert_eq!(config.tunables["expire_nodest_conn"], "1");
    assert_eq!(config.tunables["sync_threshold"], "5 60");
    let [web, dns, marked] = &config.services[..] else {
        panic!("{:?}", config.services);
    };
    assert_eq!((web.spec.flags.0, web.spec.netmask), (3, u32::MAX));
    assert_eq!((web.servers[0].0.port, web.servers[1].0.port), (8080, 80));
    assert_eq!(
        (dns.spec.netmask, dns.servers[0].1.upper_threshold),
        (64, 100)
    );
    assert_eq!((marked.key.port(), marked.spec.netmask), (0, 0xffff_ff00));
    assert_eq!(marked.spec.scheduler, "wlc");
}

#[test]
fn what_runs_survives_the_way_through_a_file() {
    let config = read("f", WHOLE, &judge).unwrap();
    let mut running = carried_out(&config);
    let text = write(&running, &defaults());
    let again = read("g", &text, &judge).unwrap_or_else(|p| panic!("{p}\n{text}"));
    assert_eq!(carry_out(&again, &mut running), [], "{text}");
    let sorted = |config: &Config| {
        let mut services = config.services.clone();
        services.sort_by_key(|service| service.key);
        services
    };
    assert_eq!(sorted(&again), sorted(&config), "{text}");
}

#[test]
fn a_reload_edits_what_stays() {
    let mut running = carried_out(&read("f", WHOLE, &judge).unwrap());
    let edited = WHOLE
        .replace("weight = 5", "weight = 0")
        .replace("tcp_s = 600\n", "")
        .replace("fwmark = 7\nnetmask = 24", "fwmark = 8")
        .replace("address = \"10.2.0.12\"", "address = \"10.2.0.14\"");
    let config = read("f", &edited, &judge).unwrap();
    let commands = carry_out(&config, &mut running);
    let names: Vec<String> = commands
        .iter()
        .map(|command| {
            format!("{command:?}")
                .split([' ', '('])
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    let expected = [
        "SetTimeouts",
        "DeleteService",
        "DeleteServer",
        "EditServer",
        "AddServer",
        "AddService",
    ];
    assert_eq!(names, expected, "{commands:?}");
    assert_eq!(carry_out(&config, &mut running), []);
}

#[test]
fn problems_are_pointed_at() {
    const SERVICE: &str = "[[service]]\naddress = \"10.1.0.1:80\"\n";
    let rows = [
        ("no TOML", "[director\n", "f:1:10: unclosed table"),
        (
            "an unknown word",
            "[director]\nprots = [\"eth0\"]\n",
            "f:2:1: nothing here is called `prots` (did you mean `ports`?)",
        ),
        (
            "a wrong type",
            "[director]\nqueues = \"two\"\n",
            "f:2:10: invalid type: string \"two\", expected u32",
        ),
        (
            "too many",
            "[director]\nqueues = 999\n",
            "f:2:10: queues are 1 to 256",
        ),
        (
            "a core twice",
            "[director]\ncores = [2, 3, 2]\n",
            "f:2:16: core 2 is named twice",
        ),
        (
            "no core",
            "[director]\ncores = [8192]\n",
            "f:2:10: cores are 0 to 8191",
        ),
        (
            "a port twice",
            "[director]\nports = [\"eth0\", \"eth0\"]\n",
            "f:2:18: port eth0 is named twice",
        ),
        (
            "more ports than there may be",
            concat!(
                "[director]\nports = [\n\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\",\n",
                "\"i\", \"j\", \"k\", \"l\", \"m\", \"n\", \"o\", \"p\",\n\"q\"]\n"
            ),
            "f:5:1: a director has 16 ports at most",
        ),
        (
            "a scheduler's name",
            &format!("{SERVICE}scheduler = \"wcl\"\n"),
            "f:3:13: no scheduler is called `wcl` (did you mean `wlc`?)",
        ),
        (
            "a tunable's name",
            "[tunables]\nexpire_nodest = 1\n",
            "f:2:1: no tunable is called expire_nodest; `lvx get` lists them",
        ),
        (
            "a tunable's value",
            "[tunables]\nexpire_nodest_conn = 7\n",
            "f:2:22: out of range: expire_nodest_conn is a number from 0 to 1",
        ),
        (
            "no port",
            "[[service]]\naddress = \"10.1.0.1\"\n",
            "f:2:11: an address without a port (write ADDRESS:PORT, for IPv6 [ADDRESS]:PORT)",
        ),
        (
            "a prefix",
            "[prefixes]\ndeny = [\"10.0.0.0/8\", \"10.0.0.1/8\"]\nallow = [\"10.0.0.0/8\"]\n",
            "f:2:9: 10.0.0.0/8 is both let in and kept out\n\
             f:2:23: `10.0.0.1/8` has bits beyond its length: is 10.0.0.0/8 meant?",
        ),
        (
            "a limit's range",
            &format!("{SERVICE}[service.limits]\nsource_v4_bits = 33\n"),
            "f:3:1: out of range: a client network is 1 to 32 bits long (IPv4), 1 to 128 (IPv6)",
        ),
        (
            "no address",
            "[[service]]\nscheduler = \"rr\"\n",
            "f:1:1: a service without an address (address = \"ADDRESS:PORT\", or fwmark = MARK)",
        ),
        (
            "a host's name",
            "[[service]]\naddress = \"www:80\"\n",
            "f:2:11: `www:80` is no ADDRESS:PORT \
             (such as \"10.0.0.1:80\" or \"[fd00::1]:80\"; no names)",
        ),
        (
            "twice",
            &format!("{SERVICE}{SERVICE}"),
            "f:4:11: this service stands twice in the file (the first one is on line 2)",
        ),
        (
            "a server twice",
            &format!(
                "{SERVICE}[[service.server]]\naddress = \"10.2.0.1\"\n\
                 [[service.server]]\naddress = \"10.2.0.1:80\"\n"
            ),
            "f:6:11: the real server already exists",
        ),
        (
            "another port without NAT",
            &format!("{SERVICE}[[service.server]]\naddress = \"10.2.0.1:81\"\n"),
            "f:4:11: only NAT changes the port: this server gets the service's own \
             (leave the port out, or forwarding = \"nat\")",
        ),
        (
            "a tunnel's word without a tunnel",
            &format!(
                "{SERVICE}[[service.server]]\naddress = \"10.2.0.1\"\nforwarding = \"nat\"\n\
                 tunnel_port = 6080\n"
            ),
            "f:6:15: a tunnel's setting, but the server's forwarding is nat \
             (forwarding = \"tunnel\")",
        ),
        (
            "two at once",
            "[timeouts]\ntcp_s = 0\n[[fwmark]]\nmark = 0\naddress = \"10.1.0.1\"\n\
             protocol = \"tpc\"\nports = [80]\n",
            "f:2:9: a timeout is 1 to 8589934 s\n\
             f:4:8: 0 is no firewall mark (a mark is 1 to 4294967295)\n\
             f:6:12: no protocol is called `tpc` (did you mean `tcp`?)",
        ),
        (
            "of ipvsadm-save, an unknown scheduler",
            "-A -t 10.1.0.1:80 -s wlc\n-A -t 10.1.0.1:81 -s nope\n",
            "f:2:1: no scheduler or persistence engine of that name",
        ),
        (
            "of ipvsadm-save, no such service",
            "# saved\n-a -t 10.1.0.1:80 -r 10.2.0.1:80 -m\n",
            "f:2:1: no such service",
        ),
    ];
    for (what, text, expected) in rows {
        let problems = read("f", text, &judge).unwrap_err();
        assert!(
            problems.to_string().starts_with(expected),
            "{what}:\n{problems}\nnot\n{expected}"
        );
    }
}

#[test]
fn a_problem_is_shown_in_its_line() {
    let text = "[[service]]\naddress = \"10.1.0.1:80\"\nscheduler = \"wcl\"\n";
    let problems = read("lvx.toml", text, &judge).unwrap_err();
    let picture = problems.picture(false);
    for part in [
        "lvx.toml:3:13",
        "scheduler = \"wcl\"",
        "─────",
        "did you mean `wlc`?",
    ] {
        assert!(picture.contains(part), "{part}:\n{picture}");
    }
    let json = problems.json();
    assert_eq!(
        (&json[0]["line"], &json[0]["column"]),
        (&3.into(), &13.into())
    );
}

#[test]
fn files_of_ipvsadm_save() {
    let text = "# kept\n-A -t 10.1.0.1:80 -s wlc -p 360\n\
                -a -t 10.1.0.1:80 -r 10.2.0.1:80 -m -w 1\n\
                -a -t 10.1.0.1:80 -r 10.2.0.2:80 -g -w 2\n\n-A -u [fd01::1]:53 -s rr\n";
    let config = read("f", text, &judge).unwrap();
    assert_eq!(config.services.len(), 2);
    assert_eq!(config.services[0].servers.len(), 2);
    assert_eq!(carried_out(&config).table.services.len(), 2);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*") {
        let _ = read("f", &text, &judge);
    }

    #[test]
    fn no_damage_makes_it_panic(place in 0..WHOLE.len(), with in "[\\PC\n]{0,4}", drop in 0..30usize) {
        let end = (place + drop).min(WHOLE.len());
        let text = format!("{}{with}{}", &WHOLE[..place], &WHOLE[end..]);
        if let Err(problems) = read("f", &text, &judge) {
            prop_assert!(!problems.list().is_empty());
            prop_assert!(!problems.picture(true).is_empty());
        }
    }
}
