//! Arguments as meant: from options to a [`Request`], with ipvsadm's checks in ipvsadm's
//! order, so that a line with several faults gets the same message.

use sched::command::Command;
use sched::server::{Forwarding, ServerKey, ServerSpec, Tunnel, TunnelChecksum};
use sched::service::{Family, Protocol, ServiceKey, ServiceSpec};

use super::draft::{self, Draft, Method};
use super::failure::Failure;
use super::flags;
use super::legality::{self, TunnelKind};
use super::names::Names;
use super::request::{Columns, DaemonRole, DaemonSpec, Format, Listing, Request};
use super::typed::{Splitter, Typed};
use super::words::{Meaning, Slot, Slots, Verb};

/// `-s`, where it is not typed.
const DEFAULT_SCHEDULER: &str = "wlc";

/// Reads a line. `program` is the name that messages call us by; `words` come after it.
/// No words at all ask for the plain listing.
pub fn parse(program: &str, words: &[String], names: &dyn Names) -> Result<Request, Failure> {
    if words.is_empty() {
        return Ok(Request::List(Listing::Services, Format::default()));
    }
    let mut splitter = Splitter::new(words);
    let (verb, value) = match splitter.next_option() {
        Ok(Some(Typed {
            meaning: Meaning::Verb(verb),
            value,
        })) => (verb, value),
        _ => return Err(Failure::try_help(program)),
    };
    match verb {
        Verb::Help => return Ok(Request::Help),
        Verb::Version => return Ok(Request::Version),
        _ => {}
    }
    let role = daemon_role(verb, value)?;
    let draft = read_options(&mut splitter, names)?;
    let rest = splitter.into_rest();
    let timeouts_s = split_timeouts(verb, &rest)?;
    let flags = flags::parse(&draft.scheduler_flags, scheduler(&draft))?;
    legality::check_command(verb, draft.filled)?;
    let line = Line {
        draft,
        flags,
        role,
        timeouts_s,
    };
    line.request(verb)
}

fn daemon_role(verb: Verb, value: Option<&str>) -> Result<DaemonRole, Failure> {
    let message = match verb {
        Verb::StartDaemon => "illegal start-daemon parameter specified",
        Verb::StopDaemon => "illegal start_daemon specified",
        _ => return Ok(DaemonRole::Master),
    };
    DaemonRole::named(value.unwrap_or_default()).ok_or_else(|| Failure::usage(message))
}

fn read_options(splitter: &mut Splitter<'_>, names: &dyn Names) -> Result<Draft, Failure> {
    let mut draft = Draft::default();
    loop {
        match splitter.next_option() {
            Ok(None) => return Ok(draft),
            Ok(Some(Typed {
                meaning: Meaning::Flag(flag),
                value,
            })) => draft.take(flag, value, names)?,
            Ok(Some(_)) => {
                let word = splitter.last_word();
                return Err(Failure::usage(format!("invalid option `{word}'")));
            }
            Err(unreadable) => {
                let word = splitter.last_word();
                return Err(Failure::refused(format!("{word}: {}", unreadable.text())));
            }
        }
    }
}

/// The three timeouts of `--set`; nothing else may stand without an option's name.
fn split_timeouts(verb: Verb, rest: &[&str]) -> Result<[u32; 3], Failure> {
    let mut timeouts_s = [0; 3];
    let mut rest = rest;
    if verb == Verb::SetTimeouts {
        let Some((three, others)) = rest.split_at_checked(3) else {
            return Err(Failure::usage("--set option requires 3 timeout values"));
        };
        for (timeout_s, text) in timeouts_s.iter_mut().zip(three) {
            *timeout_s = draft::parse_timeout(text, 0)?;
        }
        rest = others;
    }
    match rest.first() {
        Some(word) => Err(Failure::usage(format!("unexpected argument {word}"))),
        None => Ok(timeouts_s),
    }
}

fn scheduler(draft: &Draft) -> &str {
    match draft.scheduler.as_str() {
        "" => DEFAULT_SCHEDULER,
        name => name,
    }
}

/// A line whose options may stand together.
struct Line {
    draft: Draft,
    flags: sched::service::SchedulerFlags,
    role: DaemonRole,
    timeouts_s: [u32; 3],
}

impl Line {
    fn request(self, verb: Verb) -> Result<Request, Failure> {
        let command = match verb {
            Verb::Help => return Ok(Request::Help),
            Verb::Version => return Ok(Request::Version),
            Verb::Restore => return Ok(Request::Restore),
            Verb::List => return self.listing(),
            Verb::Save => {
                let numeric = self.draft.filled.has(Slot::Numeric);
                return Ok(Request::Save { numeric });
            }
            Verb::StartDaemon => return Ok(Request::StartDaemon(self.daemon())),
            Verb::StopDaemon => {
                return Ok(Request::StopDaemon {
                    role: self.role,
                    sync_id: self.draft.sync_id,
                });
            }
            Verb::Flush => Command::Flush,
            Verb::Zero => Command::Zero {
                service: self.draft.service_key(),
            },
            Verb::SetTimeouts => {
                let [tcp_s, tcp_fin_s, udp_s] = self.timeouts_s;
                Command::SetTimeouts {
                    tcp_s,
                    tcp_fin_s,
                    udp_s,
                }
            }
            Verb::AddService => {
                let (service, spec) = self.service()?;
                Command::AddService { service, spec }
            }
            Verb::EditService => {
                let (service, spec) = self.service()?;
                Command::EditService { service, spec }
            }
            Verb::DeleteService => Command::DeleteService {
                service: self.service_key()?,
            },
            Verb::AddServer => {
                let (service, server, spec) = self.server()?;
                Command::AddServer {
                    service,
                    server,
                    spec,
                }
            }
            Verb::EditServer => {
                let (service, server, spec) = self.server()?;
                Command::EditServer {
                    service,
                    server,
                    spec,
                }
            }
            Verb::DeleteServer => Command::DeleteServer {
                service: self.service_key()?,
                server: self.server_key()?,
            },
        };
        Ok(Request::Change(command))
    }

    /// [`legality`] has seen to it that the line names a service.
    fn service_key(&self) -> Result<ServiceKey, Failure> {
        self.draft
            .service_key()
            .ok_or_else(|| Failure::usage("illegal virtual server address[:port] specified"))
    }

    /// [`legality`] has seen to it that the line names a server.
    fn server_key(&self) -> Result<ServerKey, Failure> {
        self.draft
            .server
            .ok_or_else(|| Failure::usage("illegal real server address[:port] specified"))
    }

    fn service(self) -> Result<(ServiceKey, ServiceSpec), Failure> {
        let key = self.service_key()?;
        if let ServiceKey::Address { protocol, port, .. } = key {
            if port == 0 && self.draft.persistence.is_none() {
                return Err(Failure::usage(
                    "Zero port specified for non-persistent service",
                ));
            }
            if self.draft.one_packet && protocol != Protocol::Udp {
                return Err(Failure::usage(
                    "One-Packet Scheduling is only for UDP virtual services",
                ));
            }
        }
        let spec = ServiceSpec {
            scheduler: scheduler(&self.draft).to_owned(),
            flags: self.flags,
            persistence: self.draft.persistence,
            netmask: self.draft.netmask,
            one_packet: self.draft.one_packet,
            engine: self.draft.engine,
        };
        Ok((key, spec))
    }

    fn server(self) -> Result<(ServiceKey, ServerKey, ServerSpec), Failure> {
        let service = self.service_key()?;
        let mut server = self.server_key()?;
        let draft = &self.draft;
        if draft.mark.is_none() && draft.method != Method::Masquerade {
            server.port = service.port();
        }
        if Family::of(server.address) != service.family() && draft.method != Method::Tunnel {
            return Err(Failure::usage(
                "Different address family is allowed only for tunneling servers",
            ));
        }
        let spec = ServerSpec {
            forwarding: forwarding(draft)?,
            weight: draft.weight,
            upper_threshold: draft.upper_threshold,
            lower_threshold: draft.lower_threshold,
        };
        Ok((service, server, spec))
    }

    fn daemon(self) -> DaemonSpec {
        DaemonSpec {
            role: self.role,
            interface: self.draft.interface,
            sync_id: self.draft.sync_id,
            max_length_bytes: self.draft.sync_max_length_bytes,
            group: self.draft.group,
            port: self.draft.group_port,
            ttl: self.draft.group_ttl,
        }
    }

    fn listing(self) -> Result<Request, Failure> {
        const OTHER_THAN_SERVICES: Slots =
            Slots::of(&[Slot::Connection, Slot::Timeout, Slot::Daemon]);
        const COUNTING: Slots = Slots::of(&[Slot::Stats, Slot::Rate, Slot::Thresholds]);
        const NEITHER: Slots = Slots::of(&[Slot::Timeout, Slot::Daemon]);
        let filled = self.draft.filled;
        let conflict = filled.meets(OTHER_THAN_SERVICES) && filled.meets(COUNTING)
            || filled.meets(NEITHER) && filled.has(Slot::PersistentConn);
        if conflict {
            return Err(Failure::usage("options conflicts in the list command"));
        }
        let listing = match self.draft.service_key() {
            Some(service) => Listing::Service(service),
            None if filled.has(Slot::Connection) => Listing::Connections,
            None if filled.has(Slot::Timeout) => Listing::Timeouts,
            None if filled.has(Slot::Daemon) => Listing::Daemons,
            None => Listing::Services,
        };
        let format = Format {
            columns: columns(filled),
            numeric: filled.has(Slot::Numeric),
            exact: filled.has(Slot::Exact),
            unsorted: filled.has(Slot::NoSort),
            persistent_conn: filled.has(Slot::PersistentConn),
        };
        Ok(Request::List(listing, format))
    }
}

fn columns(filled: Slots) -> Columns {
    const PRECEDENCE: [(Slot, Columns); 5] = [
        (Slot::Stats, Columns::Stats),
        (Slot::Rate, Columns::Rate),
        (Slot::Thresholds, Columns::Thresholds),
        (Slot::PersistentConn, Columns::PersistentConn),
        (Slot::TunnelInfo, Columns::TunnelInfo),
    ];
    let asked = PRECEDENCE.into_iter().find(|(slot, _)| filled.has(*slot));
    asked.map_or(Columns::Plain, |(_, columns)| columns)
}

fn forwarding(draft: &Draft) -> Result<Forwarding, Failure> {
    const TUNNEL: Slots = Slots::of(&[
        Slot::TunnelType,
        Slot::TunnelPort,
        Slot::TunnelNoChecksum,
        Slot::TunnelChecksum,
        Slot::TunnelRemoteChecksum,
    ]);
    if draft.method != Method::Tunnel && draft.filled.meets(TUNNEL) {
        return Err(Failure::usage(
            "Tunnel options conflict with forward method",
        ));
    }
    match draft.method {
        Method::Masquerade => Ok(Forwarding::Masquerade),
        Method::Route => Ok(Forwarding::Route),
        Method::Tunnel => {
            legality::check_tunnel(draft.tunnel, draft.filled)?;
            Ok(Forwarding::Tunnel(tunnel(
                draft.tunnel,
                draft.tunnel_port,
                draft.tunnel_checksum,
            )))
        }
    }
}

fn tunnel(kind: TunnelKind, port: u16, checksum: TunnelChecksum) -> Tunnel {
    match kind {
        TunnelKind::Ipip => Tunnel::Ipip,
        TunnelKind::Gue => Tunnel::Gue { port, checksum },
        TunnelKind::Gre => Tunnel::Gre { checksum },
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::super::names::FewNames;
    use super::super::words::{Argument, WORDS};
    use super::*;

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
        let rows = include_str!("../../tests/data/grammar.jsonl");
        let mut wrong = Vec::new();
        for row in rows.lines() {
            let (line, status, message): (Vec<String>, u8, String) =
                serde_json::from_str(row).unwrap();
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
}
