//! Lines and what they mean, by hand and as recorded from the real ipvsadm.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::adm::names::FewNames;
use crate::adm::words::{Argument, WORDS};

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn read(line: &str) -> Request {
    parse("ipvsadm", &words(line), &FewNames).unwrap_or_else(|f| panic!("{line}: {f:?}"))
}

/// Every row was typed into ipvsadm 1.31 on Linux 6.1: arguments, status, standard
/// error. Status 0 also stands for lines that only the table refused.
#[test]
fn as_the_real_ipvsadm() {
    let rows = include_str!("../../../tests/data/grammar.jsonl");
    let mut wrong = Vec::new();
    for row in rows.lines() {
        let (line, status, message): (Vec<String>, u8, String) = serde_json::from_str(row).unwrap();
        let got = match parse("ipvsadm", &line, &FewNames) {
            Ok(_) => (0, String::new()),
            Err(failure) => (failure.status, failure.message),
        };
        if got != (status, message.clone()) {
            wrong.push(format!("{line:?}: {got:?}, not {status} {message:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(rows.lines().count() > 1000);
}

fn tcp(address: &str, port: u16) -> ServiceKey {
    ServiceKey::Address {
        protocol: Protocol::Tcp,
        address: address.parse().unwrap(),
        port,
    }
}

fn mark(mark: u32, family: Family) -> ServiceKey {
    let mark = NonZeroU32::new(mark).unwrap();
    ServiceKey::Fwmark { mark, family }
}

fn spec(scheduler: &str) -> ServiceSpec {
    ServiceSpec {
        scheduler: scheduler.to_owned(),
        flags: sched::service::SchedulerFlags(0),
        persistence: None,
        netmask: u32::MAX,
        one_packet: false,
        engine: None,
    }
}

#[test]
fn services() {
    let persistent = |timeout_s, netmask| ServiceSpec {
        persistence: Some(sched::service::Persistence { timeout_s }),
        netmask,
        ..spec("wlc")
    };
    let rows = [
        ("-A -t 10.1.0.1:80", tcp("10.1.0.1", 80), spec("wlc")),
        ("-At10.1.0.1:http -s=rr", tcp("10.1.0.1", 80), spec("rr")),
        ("-A -t localhost:81", tcp("127.0.0.1", 81), spec("wlc")),
        ("-A -t 10.1:80", tcp("10.0.0.1", 80), spec("wlc")),
        (
            "-A -t 10.1.0.1 -p",
            tcp("10.1.0.1", 0),
            persistent(360, u32::MAX),
        ),
        (
            "-A -t 10.1.0.1:80 -p77",
            tcp("10.1.0.1", 80),
            persistent(77, u32::MAX),
        ),
        (
            "-A -t 10.1.0.1:80 --persistent=9 -M 255.0.255.0",
            tcp("10.1.0.1", 80),
            persistent(9, 0xff00_ff00),
        ),
        (
            "-A -t 10.1.0.1:80 -p -M 24",
            tcp("10.1.0.1", 80),
            persistent(360, 24),
        ),
        (
            "-A -t fd01::1 -p 60 -M 64",
            tcp("fd01::1", 0),
            persistent(60, 64),
        ),
        (
            "-A -M 24 -t [fd01::1]:5 -p",
            tcp("fd01::1", 5),
            persistent(360, 128),
        ),
        (
            "-A -f 7 -M 255.255.0.0 -6 -p",
            mark(7, Family::V6),
            persistent(360, 128),
        ),
        ("-A -f 4294967295", mark(u32::MAX, Family::V4), spec("wlc")),
        (
            "-A -b mh-port,mh-fallback -t 10.1.0.1:80 -s mh",
            tcp("10.1.0.1", 80),
            ServiceSpec {
                flags: sched::service::SchedulerFlags(3),
                ..spec("mh")
            },
        ),
        (
            "-A -f 7 -o --pe sip",
            mark(7, Family::V4),
            ServiceSpec {
                one_packet: true,
                engine: Some("sip".to_owned()),
                ..spec("wlc")
            },
        ),
    ];
    for (line, service, spec) in rows {
        let expected = Request::Change(Command::AddService { service, spec });
        assert_eq!(read(line), expected, "{line}");
    }
}

#[test]
fn servers() {
    use TunnelChecksum::{Full, Remote};
    let via = |forwarding| ServerSpec {
        forwarding,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    };
    let route = via(Forwarding::Route);
    let nat = via(Forwarding::Masquerade);
    let tunnel = |tunnel| via(Forwarding::Tunnel(tunnel));
    let gue = |checksum| {
        tunnel(Tunnel::Gue {
            port: 6080,
            checksum,
        })
    };
    let vip = "-a -t 10.1.0.1:80";
    let rows = [
        ("-r 10.2.0.1", "10.2.0.1", 80, route),
        ("-r 10.2.0.1:81", "10.2.0.1", 80, route),
        ("-r 10.2.0.1:81 -m", "10.2.0.1", 81, nat),
        ("-r 10.2.0.1 -m", "10.2.0.1", 80, nat),
        ("-r 10.2.0.1:0 -m", "10.2.0.1", 0, nat),
        ("-r fd02::1 -i", "fd02::1", 80, tunnel(Tunnel::Ipip)),
        (
            "-r 10.2.0.1 -i --tun-type gue --tun-port 6080 --tun-remcsum",
            "10.2.0.1",
            80,
            gue(Remote),
        ),
        (
            "-r 10.2.0.1 -i --tun-type=gre --tun-csum",
            "10.2.0.1",
            80,
            tunnel(Tunnel::Gre { checksum: Full }),
        ),
        (
            "-r 10.2.0.1 -w 0",
            "10.2.0.1",
            80,
            ServerSpec { weight: 0, ..route },
        ),
        (
            "-r 10.2.0.1 -x 100 -y 50 -w010",
            "10.2.0.1",
            80,
            ServerSpec {
                upper_threshold: 100,
                lower_threshold: 50,
                weight: 10,
                ..route
            },
        ),
    ];
    for (options, address, port, spec) in rows {
        let expected = Command::AddServer {
            service: tcp("10.1.0.1", 80),
            server: ServerKey {
                address: address.parse().unwrap(),
                port,
            },
            spec,
        };
        assert_eq!(
            read(&format!("{vip} {options}")),
            Request::Change(expected),
            "{options}"
        );
    }
    let before = Command::DeleteServer {
        service: mark(6, Family::V6),
        server: ServerKey {
            address: "fd02::4".parse().unwrap(),
            port: 8,
        },
    };
    assert_eq!(read("-d -r [fd02::4]:8 -f 6 -6"), Request::Change(before));
}

#[test]
fn listings() {
    let plain = Format::default();
    let numeric = Format {
        numeric: true,
        ..plain
    };
    let rows = [
        ("", Listing::Services, plain),
        ("-Ln", Listing::Services, numeric),
        (
            "-lnX --nosort",
            Listing::Services,
            Format {
                exact: true,
                unsorted: true,
                ..numeric
            },
        ),
        (
            "-Lnt 10.1.0.1:80",
            Listing::Service(tcp("10.1.0.1", 80)),
            numeric,
        ),
        (
            "-L --rate --stats",
            Listing::Services,
            Format {
                columns: Columns::Stats,
                ..plain
            },
        ),
        (
            "-L --tun-info --thresholds",
            Listing::Services,
            Format {
                columns: Columns::Thresholds,
                ..plain
            },
        ),
        (
            "-Lnc --persistent-conn",
            Listing::Connections,
            Format {
                columns: Columns::PersistentConn,
                persistent_conn: true,
                ..numeric
            },
        ),
        ("-L --timeout", Listing::Timeouts, plain),
        ("-L --daemon", Listing::Daemons, plain),
    ];
    for (line, listing, format) in rows {
        assert_eq!(read(line), Request::List(listing, format), "{line}");
    }
}

#[test]
fn other_requests() {
    let daemon = DaemonSpec {
        role: DaemonRole::Backup,
        interface: "lo".to_owned(),
        sync_id: 7,
        max_length_bytes: Some(1000),
        group: Some("224.1.2.3".parse().unwrap()),
        port: Some(999),
        ttl: Some(3),
    };
    let rows = [
        ("-Sn", Request::Save { numeric: true }),
        ("-R", Request::Restore),
        ("-C --sort", Request::Change(Command::Flush)),
        ("-Z", Request::Change(Command::Zero { service: None })),
        (
            "--set 1 0 +3",
            Request::Change(Command::SetTimeouts {
                tcp_s: 1,
                tcp_fin_s: 0,
                udp_s: 3,
            }),
        ),
        ("-h nonsense", Request::Help),
        (
            "--start-daemon backup --mcast-interface lo --syncid 7 --sync-maxlen 1000 \
             --mcast-group 224.1.2.3 --mcast-port 999 --mcast-ttl 3",
            Request::StartDaemon(daemon),
        ),
        (
            "--stop-daemon=master --syncid 0",
            Request::StopDaemon {
                role: DaemonRole::Master,
                sync_id: 0,
            },
        ),
    ];
    for (line, request) in rows {
        assert_eq!(read(line), request, "{line}");
    }
}

/// Words that are often right, so that some lines get far.
fn likely_word() -> impl Strategy<Value = String> {
    let names = WORDS.iter().flat_map(|word| {
        let long = format!("--{}", word.long);
        let short = word.short.map(|letter| format!("-{letter}"));
        let values: &[&str] = match word.argument {
            Argument::None => &[],
            _ => &[
                "5",
                "10.1.0.1:80",
                "[fd01::1]:http",
                "gue",
                "master",
                "sh-port",
                "",
            ],
        };
        let attached: Vec<_> = values.iter().map(|v| format!("{long}={v}")).collect();
        std::iter::once(long).chain(short).chain(attached)
    });
    let names: Vec<_> = names.collect();
    prop_oneof![
        4 => proptest::sample::select(names),
        1 => "\\PC{0,8}",
        1 => "-\\PC{0,4}",
        1 => proptest::sample::select(vec!["10.1.0.1:80", "10.2.0.1", "7", "rr", "--", "-"])
            .prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn no_line_panics(line in proptest::collection::vec(likely_word(), 0..8)) {
        if let Err(failure) = parse("ipvsadm", &line, &FewNames) {
            prop_assert!(matches!(failure.status, 2 | 255), "{:?}", failure);
            prop_assert!(!failure.message.is_empty());
        }
    }
}
