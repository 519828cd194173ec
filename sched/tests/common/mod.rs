//! ipvsadm's words as commands, so that tests read like what operators type.

use std::net::SocketAddr;

use sched::command::Command;
use sched::server::{Forwarding, ServerKey, ServerSpec, Tunnel};
use sched::service::{Family, Persistence, Protocol, SchedulerFlags, ServiceKey, ServiceSpec};

/// As much of ipvsadm's grammar as the rows use.
pub fn command(line: &str) -> Command {
    let words: Vec<_> = line.split_whitespace().collect();
    let after = |option: &str| {
        let at = words.iter().position(|word| *word == option)?;
        words.get(at + 1).copied()
    };
    if words[0] == "-C" {
        return Command::Flush;
    }
    let service = service_key(&words, after);
    let server = after("-r").map(|name| server_key(name, &service));
    match words[0] {
        "-A" => Command::AddService {
            service,
            spec: service_spec(after),
        },
        "-E" => Command::EditService {
            service,
            spec: service_spec(after),
        },
        "-D" => Command::DeleteService { service },
        "-a" => Command::AddServer {
            service,
            server: server.unwrap(),
            spec: server_spec(&words, after),
        },
        "-e" => Command::EditServer {
            service,
            server: server.unwrap(),
            spec: server_spec(&words, after),
        },
        "-d" => Command::DeleteServer {
            service,
            server: server.unwrap(),
        },
        other => panic!("{other}?"),
    }
}

fn service_key<'a>(words: &[&str], after: impl Fn(&str) -> Option<&'a str>) -> ServiceKey {
    if let Some(mark) = after("-f") {
        let six = words.contains(&"-6");
        return ServiceKey::Fwmark {
            mark: mark.parse().unwrap(),
            family: if six { Family::V6 } else { Family::V4 },
        };
    }
    let (protocol, name) = match after("-t") {
        Some(name) => (Protocol::Tcp, name),
        None => (Protocol::Udp, after("-u").unwrap()),
    };
    let end: SocketAddr = name.parse().unwrap();
    ServiceKey::Address {
        protocol,
        address: end.ip(),
        port: end.port(),
    }
}

/// A server without a port has the service's.
fn server_key(name: &str, service: &ServiceKey) -> ServerKey {
    let end = name.parse::<SocketAddr>();
    let end = end.unwrap_or_else(|_| {
        let address = name.trim_matches(['[', ']']).parse().unwrap();
        SocketAddr::new(address, service.port())
    });
    ServerKey {
        address: end.ip(),
        port: end.port(),
    }
}

fn service_spec<'a>(after: impl Fn(&str) -> Option<&'a str>) -> ServiceSpec {
    let flag = |name: &str| match name {
        "flag-1" | "sh-fallback" | "mh-fallback" => SchedulerFlags::FALLBACK,
        "sh-port" | "mh-port" => SchedulerFlags::PORT,
        other => panic!("{other}?"),
    };
    let flags = after("-b").map_or(0, |names| names.split(',').map(flag).sum());
    ServiceSpec {
        scheduler: after("-s").unwrap().into(),
        flags: SchedulerFlags(flags),
        persistence: after("-p").map(|s| Persistence {
            timeout_s: s.parse().unwrap(),
        }),
        netmask: after("-M").map_or(128, |bits| bits.parse().unwrap()),
        one_packet: false,
        engine: after("--pe").map(Into::into),
    }
}

fn server_spec<'a>(words: &[&str], after: impl Fn(&str) -> Option<&'a str>) -> ServerSpec {
    let number = |option, default| after(option).map_or(default, |n| n.parse().unwrap());
    let forwarding = match words {
        _ if words.contains(&"-m") => Forwarding::Masquerade,
        _ if words.contains(&"-i") => Forwarding::Tunnel(Tunnel::Ipip),
        _ => Forwarding::Route,
    };
    ServerSpec {
        forwarding,
        weight: number("-w", 1),
        upper_threshold: number("-x", 0),
        lower_threshold: number("-y", 0),
    }
}
