//! ICMP errors that cross NAT: the message and the packet inside both change their names.

use sched::service::Family;

use super::Quoted;
use super::error::message_checksum;
use crate::address::Endpoint;
use crate::forward::checksum;
use crate::frame::{Frame, Packet, field};

/// Translates a client's ICMP error about a reply for the real server behind the virtual
/// service: it goes to `real`, and so says the packet inside (`ip_vs_nat_icmp`).
pub fn translate_to_server(
    frame: &mut Frame<'_>,
    packet: &mut Packet,
    quoted: &Quoted,
    real: Endpoint,
) {
    translate(frame, packet, quoted, real, Side::Server);
    packet.destination.address = real.address;
}

/// Translates an ICMP error about a client's packet, from a real server or a router on the
/// way to it: it comes from `virtual_`, and so says the packet inside.
pub fn translate_to_client(
    frame: &mut Frame<'_>,
    packet: &mut Packet,
    quoted: &Quoted,
    virtual_: Endpoint,
) {
    translate(frame, packet, quoted, virtual_, Side::Client);
    packet.source.address = virtual_.address;
}

/// Which end of a translated error changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The error's destination, and the source of the reply inside.
    Server,
    /// The error's source, and the destination of the request inside.
    Client,
}

fn translate(frame: &mut Frame<'_>, packet: &Packet, quoted: &Quoted, to: Endpoint, side: Side) {
    let family = packet.family;
    let (source, destination) = match family {
        Family::V4 => (12, 16),
        Family::V6 => (8, 24),
    };
    let (outer_place, inner_place, port_place) = match side {
        Side::Server => (destination, source, 0),
        Side::Client => (source, destination, 2),
    };
    let bytes = frame.bytes_mut();
    field::put_address(bytes, family, packet.network + outer_place, to.address);
    field::put_address(bytes, family, quoted.network + inner_place, to.address);
    if quoted.has_ports() {
        field::put_u16(bytes, quoted.transport + port_place, to.port);
    }
    if family == Family::V4 {
        checksum::write_header(&mut bytes[packet.network..]);
        checksum::write_header(&mut bytes[quoted.network..]);
    }
    let mut after = *packet;
    match side {
        Side::Server => after.destination.address = to.address,
        Side::Client => after.source.address = to.address,
    }
    message_checksum(bytes, &after);
}
