//! What a command may not ask for. The order of the checks is that of Linux's
//! `ip_vs_genl_set_cmd` and the functions it calls: ipvsadm reports the first refusal, so
//! scripts see the order.

use std::net::IpAddr;

use crate::command::{Limited, Refusal};
use crate::limit::{PER_S_MAX, ServiceLimits};
use crate::scheduler;
use crate::server::{Forwarding, ServerKey, ServerSpec, Tunnel, TunnelChecksum};
use crate::service::{Family, ServiceKey, ServiceSpec};

/// 31 days, the longest persistence that ipvsadm accepts, s.
const PERSISTENCE_MAX_S: u32 = 31 * 24 * 3600;
/// Weights and thresholds are a C `int` to the kernel and to ipvsadm.
const INT_MAX: u32 = i32::MAX as u32;

/// Checks what a service is to be. That it exists, or not, was checked before.
pub(super) fn service(key: &ServiceKey, spec: &ServiceSpec) -> Result<(), Refusal> {
    let engine_known = spec.engine.as_deref().is_none_or(|name| name == "sip");
    if !scheduler::is_known(&spec.scheduler) || !engine_known {
        return Err(Refusal::NoSuchScheduler);
    }
    if key.family() == Family::V6 && !(1..=128).contains(&spec.netmask) {
        return Err(out_of_range("an IPv6 persistence mask is 1 to 128 bits"));
    }
    // From here on what ipvsadm checks before it asks the kernel.
    match spec.persistence {
        Some(p) if !(1..=PERSISTENCE_MAX_S).contains(&p.timeout_s) => Err(out_of_range(
            "the persistence timeout is 1 to 2678400 s (31 days)",
        )),
        None if key.port() == 0 && matches!(key, ServiceKey::Address { .. }) => Err(invalid(
            "port 0 stands for every port and needs persistence; name a port or add -p",
        )),
        _ => Ok(()),
    }
}

/// Checks limits on new connections.
pub(super) fn limits(limits: &ServiceLimits) -> Result<(), Refusal> {
    let rates = [limits.connections_per_s, limits.source_connections_per_s];
    if rates.iter().any(|&rate| rate > PER_S_MAX) {
        return Err(out_of_range(
            "a limit is 0 to 1000000 connections per second",
        ));
    }
    let lengths_fit =
        (1..=32).contains(&limits.source_v4_bits) && (1..=128).contains(&limits.source_v6_bits);
    if !lengths_fit {
        return Err(out_of_range(
            "a client network is 1 to 32 bits long (IPv4), 1 to 128 (IPv6)",
        ));
    }
    Ok(())
}

/// Checks what a server is to be. That its service exists was checked before; whether
/// the server does is checked after.
pub(super) fn server(
    service: &ServiceKey,
    server: &ServerKey,
    spec: &ServerSpec,
) -> Result<(), Refusal> {
    let tunnelled = matches!(spec.forwarding, Forwarding::Tunnel(_));
    if Family::of(server.address) != service.family() && !tunnelled {
        return Err(invalid(
            "a real server of the other address family is reached by a tunnel only; use -i",
        ));
    }
    if [spec.weight, spec.upper_threshold, spec.lower_threshold]
        .iter()
        .any(|&n| n > INT_MAX)
    {
        return Err(out_of_range("weight and thresholds are 0 to 2147483647"));
    }
    if spec.lower_threshold > spec.upper_threshold {
        return Err(out_of_range(
            "the lower threshold is above the upper threshold",
        ));
    }
    match spec.forwarding {
        Forwarding::Tunnel(Tunnel::Gue { port: 0, .. }) => {
            Err(invalid("a GUE tunnel needs a UDP port; add --tun-port"))
        }
        Forwarding::Tunnel(Tunnel::Gre {
            checksum: TunnelChecksum::Remote,
        }) => Err(invalid("GRE has no remote checksum offload; use GUE")),
        _ => Ok(()),
    }
}

/// Checks that a new server's address can be a server's at all.
pub(super) fn address(address: IpAddr) -> Result<(), Refusal> {
    let usable = match address {
        IpAddr::V4(a) => a.octets()[0] != 0 && !a.is_multicast() && !a.is_broadcast(),
        IpAddr::V6(a) => !a.is_unspecified() && !a.is_multicast() && !a.is_unicast_link_local(),
    };
    if usable {
        Ok(())
    } else {
        Err(invalid("a real server's address is a unicast address"))
    }
}

/// Checks that there is room for one more.
pub(super) fn room(limit: u32, count: usize, what: Limited) -> Result<(), Refusal> {
    if count < limit as usize {
        return Ok(());
    }
    Err(Refusal::Limit {
        what,
        limit: limit.into(),
    })
}

fn out_of_range(what: &str) -> Refusal {
    Refusal::OutOfRange { what: what.into() }
}

fn invalid(what: &str) -> Refusal {
    Refusal::Invalid { what: what.into() }
}
