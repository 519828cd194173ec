//! Steps in words.

use std::net::SocketAddr;

use cli::api::{CandidateRow, ExplainedStep};
use dataplane::address::{Endpoint, address};
use dataplane::connection::state;
use dataplane::connection::table::{Key, Row};
use dataplane::connection::word::{Method, Word};
use dataplane::explain::{Explanation, Step};
use dataplane::forward::icmp::ErrorKind;
use dataplane::frame::{Frame, Packet};
use dataplane::hops::{Mac, PortId, Way};
use dataplane::port::steering::Steered;
use dataplane::time::{TICKS_PER_S, Ticks, is_due};
use dataplane::verdict::{Reason, Verdict};
use sched::limit::Above;
use sched::service::{Family, Protocol, ServiceKey};

use super::step;

pub fn steered(steered: Steered) -> &'static str {
    match steered {
        Steered::OtherStation => {
            "passed to the host: its link address is no port's (--any-link looks away from that)"
        }
        Steered::Denied => "dropped: its client is kept out (`lvx prefix list`)",
        Steered::OtherVlan => "passed to the host: its VLAN is none that a port serves",
        Steered::NotIp => "passed to the host: neither IPv4 nor IPv6, or cut short",
        Steered::NotOurs => {
            "passed to the host: no service, mark or masquerading server has its ends"
        }
        Steered::ToVirtual => "taken: its destination is a service's, or bears a mark",
        Steered::FromReal => "taken: it comes from a masquerading server",
        Steered::AboutOurs => "taken: an ICMP error about a packet of the director's",
    }
}

/// What the director did, step by step.
pub fn steps(explanation: &Explanation, now: Ticks, ports: &[String]) -> Vec<ExplainedStep> {
    let mut steps: Vec<ExplainedStep> = Vec::new();
    for told in explanation
        .steps
        .iter()
        .filter(|told| !goes_without_saying(told))
    {
        for said in one(told, now, ports) {
            // A packet leaves by the way that was found for its server: said once.
            let is_said = steps
                .iter()
                .any(|step| step.stage == "hop" && step.text == said.text);
            if said.stage != "hop" || !is_said {
                steps.push(said);
            }
        }
    }
    steps
}

/// What only repeats another step in the words of the packet path's inside.
fn goes_without_saying(told: &Step) -> bool {
    match told {
        // Where a template retired, the next has another number: the first stands for all.
        Step::Lookup { key, entry: None } => key.template && key.client.port != 0,
        Step::Room { room, length } => length <= room,
        _ => false,
    }
}

fn one(told: &Step, now: Ticks, ports: &[String]) -> Vec<ExplainedStep> {
    let said = match told {
        Step::Packet(packet) => step("parse", parsed(packet)),
        Step::Icmp(None) => step("parse", "an ICMP message that is no error about a packet"),
        Step::Icmp(Some(quoted)) => step(
            "parse",
            format!(
                "an ICMP error about {} {} > {}",
                protocol_name(quoted.protocol),
                end(quoted.family, quoted.source),
                end(quoted.family, quoted.destination)
            ),
        ),
        Step::Lookup { key, entry } => step(
            if key.template {
                "template"
            } else {
                "connection"
            },
            match entry {
                Some(row) => found(row, now),
                None if key.template => format!("none yet of {}", key_text(key)),
                None => format!("none of {}", key_text(key)),
            },
        ),
        Step::LookupReply {
            family,
            protocol,
            client,
            real,
            entry,
        } => step(
            "connection",
            match entry {
                Some(row) => found(row, now),
                None => format!(
                    "none that {} {} > {} would be a server's reply of",
                    protocol_name(*protocol),
                    end(*family, *real),
                    end(*family, *client)
                ),
            },
        ),
        Step::Replaced { gone: true, .. } => step(
            "connection",
            "ends: its server was removed (expire_nodest_conn)",
        ),
        Step::Replaced { drained: true, .. } => step(
            "connection",
            "ends: its server has weight 0 (expire_nodest_conn)",
        ),
        Step::Replaced { .. } => step(
            "connection",
            "ends: the client begins anew (conn_reuse_mode)",
        ),
        Step::MayNotBegin => step(
            "service",
            "not asked: no packet that begins a connection (TCP: SYN, SCTP: INIT; sloppy_tcp and \
             sloppy_sctp are for others)",
        ),
        Step::Service {
            mark,
            destination,
            family,
            protocol,
            service,
        } => {
            let asked = format!("{} {}", protocol.name(), end(*family, *destination));
            let service = service.as_ref().map(|service| (service.key, &service.spec));
            let text = match service {
                None if *mark == 0 => format!("none for {asked}, by its port or by port 0"),
                None => format!("none for {asked}, by mark {mark}, by its port or by port 0"),
                Some((key, spec)) => format!(
                    "{} ({}), scheduler {}{}{}",
                    service_name(key),
                    match key {
                        ServiceKey::Fwmark { .. } => "by its firewall mark",
                        ServiceKey::Address { port: 0, .. } => "by port 0, which takes any",
                        ServiceKey::Address { .. } => "by its exact port",
                    },
                    spec.scheduler,
                    match spec.persistence {
                        Some(p) => format!(", persistent {} s", p.timeout_s),
                        None => String::new(),
                    },
                    if spec.one_packet {
                        ", one packet each"
                    } else {
                        ""
                    },
                ),
            };
            step("service", text)
        }
        Step::DropRate(rate) => step(
            "service",
            format!("drop_packet drops 1 of {rate} packets here; taken to be another's turn"),
        ),
        Step::Limits { limits, above } => {
            let text = match above {
                None => "within its limits on new connections".to_owned(),
                Some(Above::Service) => format!(
                    "above the service's limit of {} new connections per second",
                    limits.connections_per_s
                ),
                Some(Above::Source) => format!(
                    "above the limit of {} new connections per second from one client network",
                    limits.source_connections_per_s
                ),
            };
            step("service", text)
        }
        Step::FtpData => step(
            "service",
            "not asked further: from port 20, FTP's data, none begins",
        ),
        Step::OtherPort => step("service", "its port is another, and it is not persistent"),
        Step::TemplateRetired => step("template", "not followed: its server is gone or drained"),
        Step::Schedule {
            service,
            slot,
            candidates,
            chosen,
        } => {
            let name = service.scheduler.name();
            let slot = slot.map_or_else(String::new, |slot| format!(", hash slot {slot}"));
            let taken = match chosen.and_then(|chosen| candidates.get(chosen)) {
                Some(taken) => format!(
                    "takes {}",
                    SocketAddr::new(taken.server.address, taken.server.port)
                ),
                None if candidates.is_empty() => "takes none: the service has no server".to_owned(),
                None => "takes none: every server is drained or overloaded".to_owned(),
            };
            let row = |(place, candidate): (usize, &dataplane::explain::Candidate)| CandidateRow {
                server: candidate.server,
                weight: candidate.spec.weight,
                active: candidate.active,
                inactive: candidate.inactive,
                overloaded: candidate.overloaded,
                cost: candidate.cost,
                chosen: *chosen == Some(place),
            };
            ExplainedStep {
                servers: candidates.iter().enumerate().map(row).collect(),
                ..step("schedule", format!("{name}{slot} {taken}"))
            }
        }
        Step::Begin(draft) => step(
            if draft.key.template {
                "template"
            } else {
                "connection"
            },
            format!(
                "begins: {} on server {}",
                key_text(&draft.key),
                end(draft.real_family, draft.real)
            ),
        ),
        Step::State {
            protocol,
            state,
            timeout_s,
        } => step(
            "state",
            format!(
                "{}, expires in {timeout_s} s unless another packet comes",
                state::name(protocol.number(), false, *state)
            ),
        ),
        Step::Forward {
            server,
            method,
            real,
        } => {
            let family = Family::of(server.server.key.address);
            let by = match method {
                Method::Masquerade => "by NAT",
                Method::Local => "which is this host",
                Method::Tunnel => "by tunnel",
                Method::Route => "by direct routing",
            };
            let text = format!("to server {} {by}", end(family, *real));
            return vec![step("forward", text), step("hop", way(server.way, ports))];
        }
        Step::Room { room, length } => step(
            "hop",
            format!("too long: {length} bytes, where {room} fit beside what the method adds"),
        ),
        Step::Refuse { kind, reason } => step(
            "refuse",
            format!(
                "{}: its sender is told {}",
                reason.name(),
                error_text(*kind)
            ),
        ),
        Step::Leave { way: by, .. } => step("hop", way(*by, ports)),
        Step::Host => step(
            "forward",
            "to the host's own stack: it is not the director's",
        ),
    };
    vec![said]
}

fn parsed(packet: &Packet) -> String {
    let mut text = format!(
        "{} {} > {}, {} bytes, hop limit {}",
        protocol_name(packet.protocol),
        end(packet.family, packet.source),
        end(packet.family, packet.destination),
        packet.length,
        packet.hop_limit
    );
    if packet.protocol == Protocol::Tcp.number() {
        let set = |(bit, _): &(usize, char)| packet.tcp_flags & 1 << bit != 0;
        let letters = "FSRPAU".chars().enumerate().filter(set);
        let letters: String = letters.map(|(_, letter)| letter).collect();
        text += &format!(", flags {letters}");
    }
    if let Some(vlan) = packet.vlan {
        text += &format!(", VLAN {vlan}");
    }
    text
}

fn found(row: &Row, now: Ticks) -> String {
    let left = if is_due(row.expires, now) {
        0
    } else {
        row.expires.wrapping_sub(now) / TICKS_PER_S
    };
    format!(
        "found: {} on server {}, state {}, expires in {left} s",
        key_text(&row.key),
        end(row.real_family, row.real),
        state::name(row.key.protocol, row.key.template, Word(row.word).state()),
    )
}

fn key_text(key: &Key) -> String {
    let to = end(key.family, key.virtual_);
    match key.template {
        // Of the client's network; a firewall mark stands in the address's place.
        true if key.protocol == 0 => {
            let client = address(key.family, key.client.address);
            format!("client {client} to mark {}", key.virtual_.address as u32)
        }
        true => format!("client {} to {to}", address(key.family, key.client.address)),
        false => format!(
            "{} {} > {to}",
            protocol_name(key.protocol),
            end(key.family, key.client)
        ),
    }
}

fn service_name(key: ServiceKey) -> String {
    match key {
        ServiceKey::Fwmark { mark, .. } => format!("mark {mark}"),
        ServiceKey::Address {
            protocol,
            address,
            port,
        } => format!("{} {}", protocol.name(), SocketAddr::new(address, port)),
    }
}

fn error_text(kind: ErrorKind) -> String {
    match kind {
        ErrorKind::PortUnreachable => "port unreachable".into(),
        ErrorKind::HostUnreachable => "host unreachable".into(),
        ErrorKind::NetworkUnreachable => "network unreachable".into(),
        ErrorKind::TimeExceeded => "time exceeded".into(),
        ErrorKind::TooBig { mtu } => format!("too big, {mtu} bytes would fit"),
    }
}

fn port_name(ports: &[String], port: PortId) -> String {
    match ports.get(usize::from(port.0)) {
        Some(name) => name.clone(),
        None => format!("port {}", port.0),
    }
}

fn way(way: Way, ports: &[String]) -> String {
    let by = |hop: dataplane::hops::Hop, to: String| {
        let vlan = hop.vlan.map_or_else(String::new, |v| format!(", VLAN {v}"));
        let port = port_name(ports, hop.port);
        format!("by {port} to {to}, MTU {}{vlan}", hop.mtu)
    };
    match way {
        Way::Ready(hop) => by(hop, mac(hop.destination)),
        Way::Unresolved(key, hop) => by(
            hop,
            format!(
                "neighbour {}, whose link address the host does not know yet",
                key.address
            ),
        ),
        Way::Local => "nowhere: the address is this host's".into(),
        Way::NotAPort => "by a device that is no port of the director".into(),
        Way::None => "nowhere: no route".into(),
    }
}

/// What the director changed of the packet.
pub fn rewritten(before: &[u8], after: &[u8]) -> Vec<ExplainedStep> {
    let read = |bytes: &[u8]| {
        let mut memory = bytes.to_vec();
        let end = memory.len();
        let mut frame = Frame::new(&mut memory, 0, end)?;
        Packet::parse(&mut frame).ok()
    };
    let (Some(old), Some(new)) = (read(before), read(after)) else {
        return Vec::new();
    };
    let mut changes = Vec::new();
    let mut note = |what: &str, old: String, new: String| {
        if old != new {
            changes.push(step("rewrite", format!("{what} {old} -> {new}")));
        }
    };
    let link = |bytes: &[u8], at: usize| {
        let mac_at = bytes.get(at..).and_then(|b| b.first_chunk::<6>());
        mac_at.map_or_else(String::new, |bytes| mac(*bytes))
    };
    note("link destination", link(before, 0), link(after, 0));
    note("link source", link(before, 6), link(after, 6));
    note(
        "protocol",
        protocol_name(old.protocol),
        protocol_name(new.protocol),
    );
    note(
        "source",
        end(old.family, old.source),
        end(new.family, new.source),
    );
    note(
        "destination",
        end(old.family, old.destination),
        end(new.family, new.destination),
    );
    note(
        "hop limit",
        old.hop_limit.to_string(),
        new.hop_limit.to_string(),
    );
    note("length", old.length.to_string(), new.length.to_string());
    changes
}

pub fn verdict(verdict: Verdict, ports: &[String]) -> String {
    match verdict {
        Verdict::Transmit(port) => format!("sent by {}", port_name(ports, port)),
        Verdict::Split(port) => format!("sent by {} in pieces", port_name(ports, port)),
        Verdict::Host => "the host's own stack gets it, as it came".into(),
        Verdict::SplitHost => "the host's own stack gets it, in pieces".into(),
        Verdict::Unresolved(_) => "waits while the host asks for the neighbour".into(),
        Verdict::Ask(_) => "dropped: neighbour_unreachable, while the host asks for it".into(),
        Verdict::Held => "kept until the datagram's other fragments come".into(),
        Verdict::Drop(reason) => format!("dropped: {} ({})", reason.name(), advice(reason)),
    }
}

/// What a drop means, and what to look at.
fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::NoServer => {
            "no server is usable: `ipvsadm -Ln --thresholds` shows weights and load"
        }
        Reason::NoRoute => "the host has no route to the next hop: `ip route get ADDRESS`",
        Reason::NotAPort => {
            "the route leaves by a device that is no port: start the director with it as --port"
        }
        Reason::ServerGone => {
            "its connection's server was removed; it waits for the server's return"
        }
        Reason::NeighbourUnreachable | Reason::NeighbourLimit => {
            "the next hop answers no ARP or neighbour discovery: `ip neigh`"
        }
        Reason::NoConnection => "a server's packet of no connection: it answers to nobody",
        Reason::TableFull => "the connection table is full: start the director with --connections",
        Reason::HopLimit => "it has been under way for too long: a routing loop?",
        Reason::TooBig | Reason::TunnelMtu => "it does not fit the way out and may not be cut",
        Reason::OffloadJoined => {
            "an offload made it larger than its port's MTU: turn GRO off on the port's device, \
             and UDP segmentation off where it is sent"
        }
        Reason::DropPacket => "drop_packet protects memory: `lvx get drop_packet`",
        Reason::NetworkChecksum
        | Reason::NetworkMalformed
        | Reason::TransportMalformed
        | Reason::LinkTruncated => "the packet itself is broken",
        _ => "`lvx counters` tells how often",
    }
}

pub fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Transmit(_) => "transmit",
        Verdict::Split(_) => "split",
        Verdict::Host => "host",
        Verdict::SplitHost => "split_host",
        Verdict::Unresolved(_) => "wait",
        Verdict::Held => "held",
        Verdict::Ask(_) | Verdict::Drop(_) => "drop",
    }
}

fn end(family: Family, end: Endpoint) -> String {
    SocketAddr::new(address(family, end.address), end.port).to_string()
}

fn protocol_name(number: u8) -> String {
    match (Protocol::from_number(number), number) {
        (Some(protocol), _) => protocol.name().into(),
        (None, 0) => "any protocol".into(),
        (None, 1) => "icmp".into(),
        (None, 4 | 41) => "ip in ip".into(),
        (None, 47) => "gre".into(),
        (None, 58) => "icmpv6".into(),
        (None, other) => format!("protocol {other}"),
    }
}

fn mac(mac: Mac) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
