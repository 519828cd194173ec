//! Network address translation: another address and port for one side of a packet, every
//! checksum that covers them kept true, or exactly as wrong as it came.

use sched::service::Family;

use crate::address::Endpoint;
use crate::forward::checksum::{self, Sum};
use crate::frame::{Frame, Packet, field, protocol};

#[cfg(test)]
mod tests;

/// Sends the packet to `to` instead. Tells whether a checksum was completed on the way
/// (see [`checksum::complete_if_partial`]).
///
/// The port is left alone where the packet has none. In fragments SCTP's checksum, which
/// covers the whole datagram, cannot be kept; put datagrams together first.
#[inline]
pub fn rewrite_destination(frame: &mut Frame<'_>, packet: &mut Packet, to: Endpoint) -> bool {
    let completed = checksum::complete_if_partial(frame, packet);
    let place = match packet.family {
        Family::V4 => 16,
        Family::V6 => 24,
    };
    let port = translate(frame, packet, place, 2, packet.destination, to);
    packet.destination = Endpoint { port, ..to };
    completed
}

/// Lets the packet come from `to` instead. Otherwise as [`rewrite_destination`].
#[inline]
pub fn rewrite_source(frame: &mut Frame<'_>, packet: &mut Packet, to: Endpoint) -> bool {
    let completed = checksum::complete_if_partial(frame, packet);
    let place = match packet.family {
        Family::V4 => 12,
        Family::V6 => 8,
    };
    let port = translate(frame, packet, place, 0, packet.source, to);
    packet.source = Endpoint { port, ..to };
    completed
}

/// Rewrites the address at `address_place` in the IP header and the port at `port_place` in
/// the transport header. The port that is now there, 0 for none.
#[inline(always)]
fn translate(
    frame: &mut Frame<'_>,
    packet: &Packet,
    address_place: usize,
    port_place: usize,
    from: Endpoint,
    to: Endpoint,
) -> u16 {
    let bytes = frame.bytes_mut();
    let family = packet.family;
    let change = Sum::default()
        .without_address(family, from.address)
        .address(family, to.address);
    let network = &mut bytes[packet.network..];
    field::put_address(network, family, address_place, to.address);
    if family == Family::V4 {
        apply(network, checksum::IPV4_CHECKSUM, change);
    }
    if packet.is_later_fragment() {
        return 0;
    }
    let transport = &mut bytes[packet.transport..];
    match packet.protocol {
        protocol::TCP => {
            field::put_u16(transport, port_place, to.port);
            let change = change.without_word(from.port).word(to.port);
            apply_if_there(transport, 16, change, packet);
            to.port
        }
        protocol::UDP => {
            field::put_u16(transport, port_place, to.port);
            let change = change.without_word(from.port).word(to.port);
            apply_udp(transport, change);
            to.port
        }
        protocol::SCTP => {
            sctp(
                &mut transport[..packet.payload_length()],
                packet,
                port_place,
                from,
                to,
            );
            to.port
        }
        protocol::ICMPV6 if family == Family::V6 => {
            apply(transport, 2, change);
            0
        }
        _ => 0,
    }
}

/// Updates the checksum at `at` by a change of what it covers.
#[inline(always)]
fn apply(header: &mut [u8], at: usize, change: Sum) {
    let sum = change.word(!field::u16_at(header, at)).checksum();
    field::put_u16(header, at, sum);
}

/// TCP's checksum may lie behind the end of a tiny first fragment.
#[inline(always)]
fn apply_if_there(header: &mut [u8], at: usize, change: Sum, packet: &Packet) {
    if packet.fragment.is_none() || header.len() >= at + 2 {
        apply(header, at, change);
    }
}

/// UDP without a checksum stays without.
#[inline(always)]
fn apply_udp(header: &mut [u8], change: Sum) {
    let before = field::u16_at(header, 6);
    if before != 0 {
        let after = change.word(!before).checksum();
        field::put_u16(header, 6, checksum::sendable(protocol::UDP, after));
    }
}

/// SCTP's checksum covers no addresses. IPVS computes it anew when a port changes (so a
/// wrong one becomes right) and leaves it alone otherwise.
#[cold]
fn sctp(segment: &mut [u8], packet: &Packet, place: usize, from: Endpoint, to: Endpoint) {
    if from.port == to.port {
        return;
    }
    field::put_u16(segment, place, to.port);
    if packet.fragment.is_none() {
        checksum::write_sctp(segment);
    }
}
