//! Services and servers in the shell's own words: what listings and differences show is
//! what can be typed.

use std::net::{IpAddr, Ipv4Addr};

use sched::limit::ServiceLimits;
use sched::server::{Forwarding, ServerKey, ServerSpec, Tunnel, TunnelChecksum};
use sched::service::{Family, ServiceKey, ServiceSpec};

use crate::adm::flags;

/// `ADDRESS:PORT`, an IPv6 address in brackets.
pub fn endpoint(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

/// A service's name.
pub fn service(key: &ServiceKey) -> String {
    match *key {
        ServiceKey::Address {
            protocol: of,
            address,
            port,
        } => format!("{} {}", of.name(), endpoint(address, port)),
        ServiceKey::Fwmark { mark, family } => match family {
            Family::V4 => format!("fwmark {mark}"),
            Family::V6 => format!("fwmark {mark} ipv6"),
        },
    }
}

/// A server's name.
pub fn server(key: &ServerKey) -> String {
    endpoint(key.address, key.port)
}

/// What a service is, part by part; each part is empty where it is the default.
pub fn service_parts(family: Family, spec: &ServiceSpec) -> Vec<(&'static str, String)> {
    let persistence = spec
        .persistence
        .map(|p| format!("persistent {}", p.timeout_s));
    let netmask = match family {
        Family::V4 if spec.netmask == u32::MAX => None,
        Family::V4 => Some(Ipv4Addr::from_bits(spec.netmask).to_string()),
        Family::V6 if spec.netmask == 128 => None,
        Family::V6 => Some(spec.netmask.to_string()),
    };
    let flags = (spec.flags.0 != 0).then(|| flags::text(spec.flags, &spec.scheduler));
    let named = |name: &str, value: Option<String>| {
        value
            .map(|value| format!("{name} {value}"))
            .unwrap_or_default()
    };
    vec![
        ("scheduler", format!("scheduler {}", spec.scheduler)),
        ("flags", named("flags", flags)),
        ("persistent", persistence.unwrap_or_default()),
        ("netmask", named("netmask", netmask)),
        ("engine", named("engine", spec.engine.clone())),
        (
            "one-packet",
            if spec.one_packet { "one-packet" } else { "" }.to_owned(),
        ),
    ]
}

/// What a service takes of new connections; empty where that is not limited.
pub fn limits(limits: Option<&ServiceLimits>) -> String {
    let Some(limits) = limits else {
        return String::new();
    };
    let mut parts = Vec::new();
    if limits.connections_per_s != 0 {
        parts.push(format!("limit {}/s", limits.connections_per_s));
    }
    if limits.source_connections_per_s != 0 {
        parts.push(format!(
            "source-limit {}/s per /{} (IPv6 /{})",
            limits.source_connections_per_s, limits.source_v4_bits, limits.source_v6_bits
        ));
    }
    parts.join(" ")
}

/// What a server is, part by part; thresholds are empty where there are none.
pub fn server_parts(spec: &ServerSpec) -> Vec<(&'static str, String)> {
    let limit = |name: &str, value: u32| match value {
        0 => String::new(),
        value => format!("{name} {value}"),
    };
    vec![
        ("forwarding", forwarding(spec.forwarding)),
        ("weight", format!("weight {}", spec.weight)),
        ("upper", limit("upper", spec.upper_threshold)),
        ("lower", limit("lower", spec.lower_threshold)),
    ]
}

/// Parts as one text.
pub fn joined(parts: &[(&'static str, String)]) -> String {
    let texts: Vec<_> = parts.iter().map(|(_, text)| text.as_str()).collect();
    texts
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// How packets reach a server.
pub fn forwarding(forwarding: Forwarding) -> String {
    let sum = |checksum| match checksum {
        TunnelChecksum::None => "",
        TunnelChecksum::Full => " checksum full",
        TunnelChecksum::Remote => " checksum remote",
    };
    match forwarding {
        Forwarding::Masquerade => "nat".to_owned(),
        Forwarding::Route => "route".to_owned(),
        Forwarding::Tunnel(Tunnel::Ipip) => "tunnel ipip".to_owned(),
        Forwarding::Tunnel(Tunnel::Gue { port, checksum }) => {
            format!("tunnel gue {port}{}", sum(checksum))
        }
        Forwarding::Tunnel(Tunnel::Gre { checksum }) => format!("tunnel gre{}", sum(checksum)),
    }
}
