//! `HOST[:PORT]` as ipvsadm reads it.

use std::net::{IpAddr, Ipv6Addr};

use sched::service::Protocol;

use super::names::Names;
use super::number;

/// An address and, where it was typed, a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: Option<u16>,
}

impl Endpoint {
    /// Reads `text`; none where it is no endpoint. A port may be a service's name, if
    /// `protocol` is known. `[HOST]:PORT` keeps the port for an IPv6 address only: for
    /// anything else ipvsadm forgets it, and so do we.
    pub fn parse(text: &str, protocol: Option<Protocol>, names: &dyn Names) -> Option<Self> {
        let (host, bracketed_port) = split_brackets(text)?;
        let (address, port) = match host.parse::<Ipv6Addr>() {
            Ok(address) => (IpAddr::V6(address), bracketed_port),
            Err(_) => {
                let (host, port) = match host.rsplit_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (host, None),
                };
                (ipv4(host, names)?.into(), port)
            }
        };
        let port = match port {
            Some(port) => Some(parse_port(port, protocol, names)?),
            None => None,
        };
        Some(Self { address, port })
    }
}

/// An IPv4 address, or the first that a host name stands for.
pub fn ipv4(text: &str, names: &dyn Names) -> Option<std::net::Ipv4Addr> {
    number::ipv4(text).or_else(|| names.host_address(text))
}

fn split_brackets(text: &str) -> Option<(&str, Option<&str>)> {
    let Some(inner) = text.strip_prefix('[') else {
        return Some((text, None));
    };
    let (host, rest) = inner.split_once(']')?;
    Some((host, Some(rest.strip_prefix(':')?)))
}

fn parse_port(text: &str, protocol: Option<Protocol>, names: &dyn Names) -> Option<u16> {
    match number::decimal(text).map(u16::try_from) {
        Some(Ok(port)) => Some(port),
        _ => names.service_port(text, protocol?),
    }
}
