//! What runs, as a file that makes it so again.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use sched::limit::ServiceLimits;
use sched::prefix::Guard;
use sched::server::{Forwarding, Tunnel, TunnelChecksum};
use sched::service::{Family, ServiceKey, ServiceSpec};

use super::{Running, TIMEOUTS, Tunables};
use crate::adm::flags;
use crate::api::{ServerRow, ServiceRow};
use crate::shell::words;

/// A file's text. Tunables that have their default are left out.
pub fn write(running: &Running, defaults: &Tunables) -> String {
    let mut text = String::from(
        "# Written by `lvx save`. `lvx check FILE` judges it, `lvx director --config FILE`\n\
         # starts with it, SIGHUP puts an edited one in force.\n",
    );
    // Writing into a string does not fail.
    let _ = settings(&mut text, running, defaults);
    let mut rows: Vec<_> = running.table.services.iter().collect();
    rows.sort_by_key(|row| row.service);
    for row in rows {
        let _ = service(&mut text, row);
    }
    text
}

fn settings(text: &mut String, running: &Running, defaults: &Tunables) -> std::fmt::Result {
    let timeouts = running.table.timeouts;
    if timeouts != TIMEOUTS {
        writeln!(text, "\n[timeouts]")?;
        writeln!(text, "tcp_s = {}", timeouts.tcp_s)?;
        writeln!(text, "tcp_fin_s = {}", timeouts.tcp_fin_s)?;
        writeln!(text, "udp_s = {}", timeouts.udp_s)?;
    }
    let set = |(name, value): &(&String, &String)| defaults.get(*name) != Some(*value);
    let set: Vec<_> = running.tunables.iter().filter(set).collect();
    if !set.is_empty() {
        writeln!(text, "\n[tunables]")?;
    }
    for (name, value) in set {
        match value.parse::<u32>() {
            Ok(number) => writeln!(text, "{name} = {number}")?,
            Err(_) => writeln!(text, "{name} = {}", quoted(value))?,
        }
    }
    if !running.prefixes.is_empty() {
        writeln!(text, "\n[prefixes]")?;
        for (name, wanted) in [("allow", Guard::Allow), ("deny", Guard::Deny)] {
            writeln!(text, "{name} = [")?;
            for (prefix, _) in running.prefixes.iter().filter(|row| *row.1 == wanted) {
                writeln!(text, "    \"{prefix}\",")?;
            }
            writeln!(text, "]")?;
        }
    }
    for rule in &running.marks {
        writeln!(text, "\n[[fwmark]]")?;
        writeln!(text, "mark = {}", rule.mark)?;
        writeln!(text, "address = \"{}\"", rule.address)?;
        writeln!(text, "protocol = \"{}\"", rule.protocol.name())?;
        writeln!(text, "ports = {:?}", rule.ports)?;
    }
    Ok(())
}

fn service(text: &mut String, row: &ServiceRow) -> std::fmt::Result {
    writeln!(text, "\n[[service]]")?;
    match row.service {
        ServiceKey::Address {
            protocol,
            address,
            port,
        } => {
            writeln!(text, "protocol = \"{}\"", protocol.name())?;
            writeln!(text, "address = \"{}\"", words::endpoint(address, port))?;
        }
        ServiceKey::Fwmark { mark, family } => {
            writeln!(text, "fwmark = {mark}")?;
            if family == Family::V6 {
                writeln!(text, "ipv6 = true")?;
            }
        }
    }
    spec(text, row.service.family(), &row.spec)?;
    if let Some(limits) = &row.limits {
        self::limits(text, limits)?;
    }
    // The listing has the newest first.
    let mut servers = row.servers.iter().rev();
    servers.try_for_each(|server| self::server(text, &row.service, server))
}

fn spec(text: &mut String, family: Family, spec: &ServiceSpec) -> std::fmt::Result {
    writeln!(text, "scheduler = {}", quoted(&spec.scheduler))?;
    if spec.flags.0 != 0 {
        let names = flags::text(spec.flags, &spec.scheduler);
        let names: Vec<_> = names.split(',').map(quoted).collect();
        writeln!(text, "flags = [{}]", names.join(", "))?;
    }
    if let Some(persistence) = spec.persistence {
        writeln!(text, "persistent_s = {}", persistence.timeout_s)?;
    }
    match family {
        Family::V4 if spec.netmask != u32::MAX => {
            writeln!(text, "netmask = \"{}\"", Ipv4Addr::from_bits(spec.netmask))?;
        }
        Family::V6 if spec.netmask != 128 => writeln!(text, "netmask = {}", spec.netmask)?,
        _ => {}
    }
    if let Some(engine) = &spec.engine {
        writeln!(text, "engine = {}", quoted(engine))?;
    }
    if spec.one_packet {
        writeln!(text, "one_packet = true")?;
    }
    Ok(())
}

fn limits(text: &mut String, limits: &ServiceLimits) -> std::fmt::Result {
    writeln!(text, "[service.limits]")?;
    for (name, per_s) in [
        ("connections_per_s", limits.connections_per_s),
        ("source_connections_per_s", limits.source_connections_per_s),
    ] {
        if per_s != 0 {
            writeln!(text, "{name} = {per_s}")?;
        }
    }
    writeln!(text, "source_v4_bits = {}", limits.source_v4_bits)?;
    writeln!(text, "source_v6_bits = {}", limits.source_v6_bits)
}

fn server(text: &mut String, service: &ServiceKey, row: &ServerRow) -> std::fmt::Result {
    let spec = &row.spec;
    writeln!(text, "[[service.server]]")?;
    let address = match spec.forwarding {
        Forwarding::Masquerade => words::endpoint(row.server.address, row.server.port),
        _ if row.server.port == service.port() => plain(row.server.address),
        _ => words::endpoint(row.server.address, row.server.port),
    };
    writeln!(text, "address = \"{address}\"")?;
    match spec.forwarding {
        Forwarding::Masquerade => writeln!(text, "forwarding = \"nat\"")?,
        Forwarding::Route => writeln!(text, "forwarding = \"route\"")?,
        Forwarding::Tunnel(tunnel) => self::tunnel(text, tunnel)?,
    }
    writeln!(text, "weight = {}", spec.weight)?;
    for (name, value) in [
        ("upper", spec.upper_threshold),
        ("lower", spec.lower_threshold),
    ] {
        if value != 0 {
            writeln!(text, "{name} = {value}")?;
        }
    }
    Ok(())
}

fn tunnel(text: &mut String, tunnel: Tunnel) -> std::fmt::Result {
    writeln!(text, "forwarding = \"tunnel\"")?;
    let sum = match tunnel {
        Tunnel::Ipip => {
            writeln!(text, "tunnel = \"ipip\"")?;
            TunnelChecksum::None
        }
        Tunnel::Gue { port, checksum } => {
            writeln!(text, "tunnel = \"gue\"\ntunnel_port = {port}")?;
            checksum
        }
        Tunnel::Gre { checksum } => {
            writeln!(text, "tunnel = \"gre\"")?;
            checksum
        }
    };
    match sum {
        TunnelChecksum::None => Ok(()),
        TunnelChecksum::Full => writeln!(text, "tunnel_checksum = \"full\""),
        TunnelChecksum::Remote => writeln!(text, "tunnel_checksum = \"remote\""),
    }
}

fn plain(address: IpAddr) -> String {
    address.to_string()
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
