//! ipvsadm's listings, byte for byte: scripts cut their columns.

mod connections;
#[cfg(test)]
mod golden;
mod number;
mod order;
mod rules;
mod table;

use std::io::{self, Write};
use std::net::IpAddr;

use sched::service::Protocol;

use super::names::Names;
use super::request::DaemonRole;
use crate::api::{DaemonRow, Timeouts};

pub use connections::{connection, connections_heading};
pub use rules::rules;
pub use table::{service, services};

/// ipvsadm keeps an endpoint's text in 60 bytes, the last of them a terminator.
const ENDPOINT_MAX_BYTES: usize = 59;

/// Writes the timeouts (`-L --timeout`).
pub fn timeouts(out: &mut dyn Write, timeouts: &Timeouts) -> io::Result<()> {
    let Timeouts {
        tcp_s,
        tcp_fin_s,
        udp_s,
    } = timeouts;
    writeln!(out, "Timeout (tcp tcpfin udp): {tcp_s} {tcp_fin_s} {udp_s}")
}

/// Writes the synchronization daemons (`-L --daemon`).
pub fn daemons(out: &mut dyn Write, daemons: &[DaemonRow]) -> io::Result<()> {
    for daemon in daemons {
        let role = match daemon.role {
            DaemonRole::Master => "master",
            DaemonRole::Backup => "backup",
        };
        let DaemonRow {
            interface,
            sync_id,
            max_length_bytes,
            group,
            port,
            ttl,
            ..
        } = daemon;
        writeln!(
            out,
            "{role} sync daemon (mcast={interface}, syncid={sync_id}, maxlen={max_length_bytes}, \
             group={group}, port={port}, ttl={ttl})"
        )?;
    }
    Ok(())
}

/// How endpoints are written: as numbers or by name.
#[derive(Clone, Copy)]
pub struct Style<'a> {
    /// Looks names up; none stands for `-n`.
    pub names: Option<&'a dyn Names>,
}

impl Style<'_> {
    /// `ADDRESS:PORT`, an IPv6 address in brackets, cut as ipvsadm cuts it. A port has a
    /// name only where its protocol is known, so not in fwmark services.
    fn endpoint(self, address: IpAddr, port: u16, protocol: Option<Protocol>) -> String {
        let host = self.names.and_then(|names| names.host_name(address));
        let host = host.unwrap_or_else(|| address_text(address));
        let service = match (self.names, protocol) {
            (Some(names), Some(protocol)) => names.service_name(port, protocol),
            _ => None,
        };
        let service = service.unwrap_or_else(|| port.to_string());
        let mut text = match address {
            IpAddr::V4(_) => format!("{host}:{service}"),
            IpAddr::V6(_) => format!("[{host}]:{service}"),
        };
        text.truncate(text.floor_char_boundary(ENDPOINT_MAX_BYTES));
        text
    }
}

/// As `inet_ntop` writes it: unlike Rust, it shows the last 32 bits of an IPv4-compatible
/// address (`::10.1.0.1`) in dotted form.
fn address_text(address: IpAddr) -> String {
    if let IpAddr::V6(v6) = address
        && let [0, 0, 0, 0, 0, 0, high, low] = v6.segments()
        && high != 0
    {
        let v4 = std::net::Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
        return format!("::{v4}");
    }
    address.to_string()
}
