//! Services and their servers (`-L`), in each of its layouts.

use std::io::{self, Write};
use std::net::Ipv4Addr;

use sched::server::{Forwarding, Tunnel, TunnelChecksum};
use sched::service::{Family, Protocol, ServiceKey, ServiceSpec};

use super::number::large;
use super::{Style, order};
use crate::adm::flags;
use crate::adm::request::{Columns, Format};
use crate::api::{Rates, ServerRow, ServiceRow, Stats, Table};

/// An IPv4 service's name is cut at this many bytes; an IPv6 one may push its row aside.
const SERVICE_V4_MAX_BYTES: usize = 33;
/// The same for servers.
const SERVER_V4_MAX_BYTES: usize = 28;

/// Writes every service of `table`.
pub fn services(
    out: &mut dyn Write,
    table: Table,
    format: &Format,
    style: Style<'_>,
) -> io::Result<()> {
    writeln!(out, "IP Virtual Server version 1.2.1 (size={})", table.size)?;
    heading(out, format.columns)?;
    let mut services = table.services;
    if !format.unsorted {
        order::sort_services(&mut services, |row| row.service);
    }
    services
        .into_iter()
        .try_for_each(|row| service_rows(out, row, format, style))
}

/// Writes one service.
pub fn service(
    out: &mut dyn Write,
    row: ServiceRow,
    format: &Format,
    style: Style<'_>,
) -> io::Result<()> {
    heading(out, format.columns)?;
    service_rows(out, row, format, style)
}

fn heading(out: &mut dyn Write, columns: Columns) -> io::Result<()> {
    let titled = |out: &mut dyn Write, titles: String| {
        writeln!(out, "{:<33}{titles}", "Prot LocalAddress:Port")?;
        writeln!(out, "  -> RemoteAddress:Port")
    };
    let counted = |names: [&str; 5]| names.map(|name| format!(" {name:>8}")).concat();
    match columns {
        Columns::Plain => writeln!(
            out,
            "Prot LocalAddress:Port Scheduler Flags\n\
             \x20 -> RemoteAddress:Port           Forward Weight ActiveConn InActConn"
        ),
        Columns::TunnelInfo => writeln!(
            out,
            "Prot LocalAddress:Port Scheduler Flags\n\
             \x20 -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn"
        ),
        Columns::Thresholds => titled(
            out,
            format!(
                " {:<10} {:<10} {:<10} {:<10}",
                "Uthreshold", "Lthreshold", "ActiveConn", "InActConn"
            ),
        ),
        Columns::PersistentConn => titled(
            out,
            format!(
                " {:<9} {:<11} {:<10} {:<10}",
                "Weight", "PersistConn", "ActiveConn", "InActConn"
            ),
        ),
        Columns::Stats => titled(
            out,
            counted(["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"]),
        ),
        Columns::Rate => titled(out, counted(["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"])),
    }
}

fn service_rows(
    out: &mut dyn Write,
    mut row: ServiceRow,
    format: &Format,
    style: Style<'_>,
) -> io::Result<()> {
    let name = service_name(&row.service, style);
    match format.columns {
        Columns::Stats => writeln!(out, "{name:<33}{}", stats(&row.stats, format.exact))?,
        Columns::Rate => writeln!(out, "{name:<33}{}", rates(&row.rates, format.exact))?,
        _ => {
            let details = details(row.service.family(), &row.spec);
            writeln!(out, "{name} {details}")?;
        }
    }
    if !format.unsorted {
        order::sort_servers(&mut row.servers, |server| server.server);
    }
    let protocol = protocol(&row.service);
    row.servers
        .iter()
        .try_for_each(|server| server_row(out, server, protocol, format, style))
}

fn service_name(service: &ServiceKey, style: Style<'_>) -> String {
    match *service {
        ServiceKey::Address {
            protocol,
            address,
            port,
        } => {
            let protocol_name = match protocol {
                Protocol::Tcp => "TCP",
                Protocol::Udp => "UDP",
                Protocol::Sctp => "SCTP",
            };
            let endpoint = style.endpoint(address, port, Some(protocol));
            let name = format!("{protocol_name:<4} {endpoint}");
            match address.is_ipv4() {
                true => cut(name, SERVICE_V4_MAX_BYTES),
                false => name,
            }
        }
        // ipvsadm prints the mark as a signed number.
        ServiceKey::Fwmark { mark, family } => match family {
            Family::V4 => format!("FWM  {}", mark.get().cast_signed()),
            Family::V6 => format!("FWM  {} IPv6", mark.get().cast_signed()),
        },
    }
}

fn details(family: Family, spec: &ServiceSpec) -> String {
    let mut text = spec.scheduler.clone();
    if spec.flags.0 != 0 {
        let names = flags::text(spec.flags, &spec.scheduler);
        text += &format!(" ({names})");
    }
    if let Some(persistence) = spec.persistence {
        text += &format!(" persistent {}", persistence.timeout_s);
        if let Some(mask) = mask(family, spec.netmask) {
            text += &format!(" mask {mask}");
        }
        if let Some(engine) = &spec.engine {
            text += &format!(" pe {engine}");
        }
    }
    if spec.one_packet {
        text += " ops";
    }
    text
}

fn server_row(
    out: &mut dyn Write,
    row: &ServerRow,
    protocol: Option<Protocol>,
    format: &Format,
    style: Style<'_>,
) -> io::Result<()> {
    let mut name = style.endpoint(row.server.address, row.server.port, protocol);
    if row.server.address.is_ipv4() {
        name = cut(name, SERVER_V4_MAX_BYTES);
    }
    write!(out, "  -> {name:<28}")?;
    let weight = row.spec.weight;
    let (active, inactive) = (row.active, row.inactive);
    match format.columns {
        Columns::Stats => writeln!(out, "{}", stats(&row.stats, format.exact)),
        Columns::Rate => writeln!(out, "{}", server_rates(&row.rates, format.exact)),
        Columns::Thresholds => writeln!(
            out,
            " {:<10} {:<10} {active:<10} {inactive:<10}",
            row.spec.upper_threshold, row.spec.lower_threshold
        ),
        Columns::PersistentConn => writeln!(
            out,
            " {weight:<9} {:<11} {active:<10} {inactive:<10}",
            row.persistent
        ),
        Columns::TunnelInfo => writeln!(
            out,
            " {:<7} {:<13} {weight:<6} {active:<10} {inactive:<10}",
            method(row),
            tunnel_info(row.spec.forwarding)
        ),
        Columns::Plain => writeln!(
            out,
            " {:<7} {weight:<6} {active:<10} {inactive:<10}",
            method(row)
        ),
    }
}

/// Not `Local`, though ipvsadm knows that word: the kernel has not told it of local servers
/// since 2.6.37, it finds them by route, packet by packet.
fn method(row: &ServerRow) -> &'static str {
    match row.spec.forwarding {
        Forwarding::Masquerade => "Masq",
        Forwarding::Route => "Route",
        Forwarding::Tunnel(_) => "Tunnel",
    }
}

fn tunnel_info(forwarding: Forwarding) -> String {
    let flag = |checksum| match checksum {
        TunnelChecksum::None => "-c",
        TunnelChecksum::Full => "+c",
        TunnelChecksum::Remote => "r+c",
    };
    match forwarding {
        Forwarding::Tunnel(Tunnel::Ipip) => "ipip".to_owned(),
        Forwarding::Tunnel(Tunnel::Gue { port, checksum }) => {
            format!("gue:{port}:{}", flag(checksum))
        }
        Forwarding::Tunnel(Tunnel::Gre { checksum }) => format!("gre:{}", flag(checksum)),
        Forwarding::Masquerade | Forwarding::Route => "n/a".to_owned(),
    }
}

fn stats(stats: &Stats, exact: bool) -> String {
    [
        stats.connections,
        stats.in_packets,
        stats.out_packets,
        stats.in_bytes,
        stats.out_bytes,
    ]
    .map(|number| large(number, exact))
    .concat()
}

fn rates(rates: &Rates, exact: bool) -> String {
    [
        rates.connections,
        rates.in_packets,
        rates.out_packets,
        rates.in_bytes,
        rates.out_bytes,
    ]
    .map(|number| large(number, exact))
    .concat()
}

/// A server's first three rates are never shortened.
fn server_rates(rates: &Rates, exact: bool) -> String {
    let Rates {
        connections,
        in_packets,
        out_packets,
        ..
    } = rates;
    format!(
        " {connections:8} {in_packets:8} {out_packets:8}{}{}",
        large(rates.in_bytes, exact),
        large(rates.out_bytes, exact)
    )
}

/// The protocol that gives a service's ports their names.
pub(super) fn protocol(service: &ServiceKey) -> Option<Protocol> {
    match *service {
        ServiceKey::Address { protocol, .. } => Some(protocol),
        ServiceKey::Fwmark { .. } => None,
    }
}

/// The persistence mask, where it is not the default.
pub(super) fn mask(family: Family, netmask: u32) -> Option<String> {
    match family {
        Family::V4 if netmask == u32::MAX => None,
        Family::V4 => Some(Ipv4Addr::from_bits(netmask).to_string()),
        Family::V6 if netmask == 128 => None,
        Family::V6 => Some(netmask.to_string()),
    }
}

fn cut(mut text: String, length_bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(length_bytes));
    text
}
