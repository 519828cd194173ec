//! Names of hosts and ports. A trait, so that listings can be tested without a resolver.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use sched::service::Protocol;

/// Looks names up.
pub trait Names {
    /// The first IPv4 address of a host.
    fn host_address(&self, name: &str) -> Option<Ipv4Addr>;
    /// The host's name.
    fn host_name(&self, address: IpAddr) -> Option<String>;
    /// A port by its service's name.
    fn service_port(&self, name: &str, protocol: Protocol) -> Option<u16>;
    /// A port's service name.
    fn service_name(&self, port: u16, protocol: Protocol) -> Option<String>;
}

/// The system's resolver and `/etc/services`. Remembers what it has looked up, since one
/// listing asks for the same names again and again.
#[derive(Debug, Default)]
pub struct SystemNames {
    services: OnceCell<Vec<ServiceName>>,
    hosts: RefCell<HashMap<IpAddr, Option<String>>>,
}

impl Names for SystemNames {
    fn host_address(&self, name: &str) -> Option<Ipv4Addr> {
        if name.is_empty() || name.contains('\0') {
            return None;
        }
        (name, 0)
            .to_socket_addrs()
            .ok()?
            .find_map(|address| match address {
                SocketAddr::V4(address) => Some(*address.ip()),
                SocketAddr::V6(_) => None,
            })
    }

    fn host_name(&self, address: IpAddr) -> Option<String> {
        let mut hosts = self.hosts.borrow_mut();
        let name = hosts
            .entry(address)
            .or_insert_with(|| dns_lookup::lookup_addr(&address).ok());
        name.clone()
    }

    fn service_port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let named = |service: &&ServiceName| {
            service.protocol == protocol && service.names.iter().any(|known| known == name)
        };
        self.services()
            .iter()
            .find(named)
            .map(|service| service.port)
    }

    fn service_name(&self, port: u16, protocol: Protocol) -> Option<String> {
        let numbered =
            |service: &&ServiceName| service.protocol == protocol && service.port == port;
        let service = self.services().iter().find(numbered)?;
        service.names.first().cloned()
    }
}

impl SystemNames {
    fn services(&self) -> &[ServiceName] {
        self.services.get_or_init(|| {
            let text = std::fs::read_to_string("/etc/services").unwrap_or_default();
            text.lines().filter_map(ServiceName::parse).collect()
        })
    }
}

/// A line of `/etc/services` (services(5)).
#[derive(Debug, PartialEq, Eq)]
struct ServiceName {
    names: Vec<String>,
    port: u16,
    protocol: Protocol,
}

impl ServiceName {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split('#').next()?.split_whitespace();
        let name = words.next()?;
        let (port, protocol) = words.next()?.split_once('/')?;
        Some(Self {
            names: std::iter::once(name)
                .chain(words)
                .map(str::to_owned)
                .collect(),
            port: port.parse().ok()?,
            protocol: match protocol {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                "sctp" => Protocol::Sctp,
                _ => return None,
            },
        })
    }
}

/// The names of ports, but no host's: for what must not wait for a resolver.
#[derive(Debug, Default)]
pub struct PortNames(SystemNames);

impl Names for PortNames {
    fn host_address(&self, _: &str) -> Option<Ipv4Addr> {
        None
    }

    fn host_name(&self, _: IpAddr) -> Option<String> {
        None
    }

    fn service_port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.0.service_port(name, protocol)
    }

    fn service_name(&self, port: u16, protocol: Protocol) -> Option<String> {
        self.0.service_name(port, protocol)
    }
}

/// Names for tests: a few hosts and ports, the same everywhere.
#[cfg(any(test, fuzzing))]
#[derive(Debug, Default)]
pub(crate) struct FewNames;

#[cfg(any(test, fuzzing))]
impl Names for FewNames {
    fn host_address(&self, name: &str) -> Option<Ipv4Addr> {
        match name {
            "localhost" => Some(Ipv4Addr::LOCALHOST),
            "vip.example.org" => Some(Ipv4Addr::new(10, 55, 0, 1)),
            _ => None,
        }
    }

    fn host_name(&self, address: IpAddr) -> Option<String> {
        match address.to_string().as_str() {
            "127.0.0.1" => Some("localhost".to_owned()),
            "10.55.0.1" => Some("vip.example.org".to_owned()),
            "10.55.0.2" => Some(
                "averyveryverylonghostname-that-goes-on-and-on.example.organisation.example.com"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    fn service_port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        PORTS
            .iter()
            .find(|(_, number, known)| *known == name && *number == protocol)
            .map(|(port, ..)| *port)
    }

    fn service_name(&self, port: u16, protocol: Protocol) -> Option<String> {
        PORTS
            .iter()
            .find(|(number, of, _)| *number == port && *of == protocol)
            .map(|(.., name)| (*name).to_owned())
    }
}

#[cfg(any(test, fuzzing))]
const PORTS: [(u16, Protocol, &str); 9] = [
    (1, Protocol::Tcp, "tcpmux"),
    (9, Protocol::Tcp, "discard"),
    (53, Protocol::Udp, "domain"),
    (69, Protocol::Udp, "tftp"),
    (80, Protocol::Tcp, "http"),
    (443, Protocol::Tcp, "https"),
    (8080, Protocol::Tcp, "http-alt"),
    (8081, Protocol::Tcp, "tproxy"),
    (53, Protocol::Tcp, "domain"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_lines() {
        let rows = [
            (
                "http 80/tcp www # WorldWideWeb",
                Some((vec!["http", "www"], 80, Protocol::Tcp)),
            ),
            ("tftp\t\t69/udp", Some((vec!["tftp"], 69, Protocol::Udp))),
            ("# a comment", None),
            ("", None),
            ("odd 70000/tcp", None),
            ("other 5/ddp", None),
        ];
        for (line, expected) in rows {
            let parsed = ServiceName::parse(line).map(|s| (s.names, s.port, s.protocol));
            let expected = expected.map(|(names, port, protocol)| {
                (
                    names.into_iter().map(str::to_owned).collect(),
                    port,
                    protocol,
                )
            });
            assert_eq!(parsed, expected, "{line:?}");
        }
    }
}
