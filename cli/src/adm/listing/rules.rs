//! The table as lines for `-R` (`-S`). Thresholds are not among them, as in ipvsadm.

use std::io::{self, Write};

use sched::server::{Forwarding, Tunnel, TunnelChecksum};
use sched::service::{Family, Protocol, ServiceKey};

use super::{Style, order};
use crate::adm::flags;
use crate::api::{ServerRow, ServiceRow, Table};

/// Writes every service and server of `table` as a line.
pub fn rules(out: &mut dyn Write, table: Table, style: Style<'_>) -> io::Result<()> {
    let mut services = table.services;
    order::sort_services(&mut services, |row| row.service);
    for mut row in services {
        order::sort_servers(&mut row.servers, |server| server.server);
        service(out, &row, style)?;
    }
    Ok(())
}

fn service(out: &mut dyn Write, row: &ServiceRow, style: Style<'_>) -> io::Result<()> {
    let name = service_option(&row.service, style);
    let spec = &row.spec;
    write!(out, "-A {name} -s {}", spec.scheduler)?;
    if let Some(persistence) = spec.persistence {
        write!(out, " -p {}", persistence.timeout_s)?;
        if let Some(mask) = super::table::mask(row.service.family(), spec.netmask) {
            write!(out, " -M {mask}")?;
        }
    }
    if let Some(engine) = &spec.engine {
        write!(out, " --pe {engine}")?;
    }
    if spec.one_packet {
        write!(out, " -o")?;
    }
    if spec.flags.0 != 0 {
        write!(out, " -b {}", flags::text(spec.flags, &spec.scheduler))?;
    }
    writeln!(out)?;
    let protocol = super::table::protocol(&row.service);
    row.servers
        .iter()
        .try_for_each(|row| server(out, &name, protocol, row, style))
}

fn service_option(service: &ServiceKey, style: Style<'_>) -> String {
    match *service {
        ServiceKey::Address {
            protocol,
            address,
            port,
        } => {
            let option = match protocol {
                Protocol::Tcp => "-t",
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
            };
            let endpoint = style.endpoint(address, port, Some(protocol));
            format!("{option} {endpoint}")
        }
        ServiceKey::Fwmark { mark, family } => match family {
            Family::V4 => format!("-f {}", mark.get().cast_signed()),
            Family::V6 => format!("-f {} -6", mark.get().cast_signed()),
        },
    }
}

fn server(
    out: &mut dyn Write,
    service: &str,
    protocol: Option<Protocol>,
    row: &ServerRow,
    style: Style<'_>,
) -> io::Result<()> {
    let endpoint = style.endpoint(row.server.address, row.server.port, protocol);
    let weight = row.spec.weight;
    let (method, tunnel) = match row.spec.forwarding {
        Forwarding::Masquerade => ("-m", String::new()),
        Forwarding::Route => ("-g", String::new()),
        Forwarding::Tunnel(tunnel) => ("-i", tunnel_options(tunnel)),
    };
    writeln!(
        out,
        "-a {service} -r {endpoint} {method} -w {weight}{tunnel}"
    )
}

fn tunnel_options(tunnel: Tunnel) -> String {
    let option = |checksum| match checksum {
        TunnelChecksum::None => "--tun-nocsum",
        TunnelChecksum::Full => "--tun-csum",
        TunnelChecksum::Remote => "--tun-remcsum",
    };
    match tunnel {
        Tunnel::Ipip => " --tun-type ipip".to_owned(),
        Tunnel::Gue { port, checksum } => {
            format!(" --tun-type gue --tun-port {port} {}", option(checksum))
        }
        Tunnel::Gre { checksum } => format!(" --tun-type gre {}", option(checksum)),
    }
}
