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
    let (head, transport) = frame.bytes_mut().split_at_mut(packet.transport);
    let network = &mut head[packet.network..];
    let family = packet.family;
    let change = Sum::default()
        .without_address(family, from.address)
        .address(family, to.address);
    match (family, network.first_chunk_mut::<20>()) {
        (Family::V4, Some(header)) => {
            field::put_address(header, family, address_place, to.address);
            apply(header, checksum::IPV4_CHECKSUM, change);
        }
        _ => field::put_address(network, family, address_place, to.address),
    }
    if packet.is_later_fragment() {
        return 0;
    }
    let with_port = change.without_word(from.port).word(to.port);
    match packet.protocol {
        protocol::TCP => {
            if let Some(header) = transport.first_chunk_mut::<TCP_LENGTH>() {
                field::put_u16(header, port_place, to.port);
                apply(header, 16, with_port);
            } else {
                tiny_fragment(transport, port_place, to.port, with_port);
            }
            to.port
        }
        protocol::UDP => {
            if let Some(header) = transport.first_chunk_mut::<UDP_LENGTH>() {
                field::put_u16(header, port_place, to.port);
                apply_udp(header, with_port);
            }
            to.port
        }
        protocol::SCTP => {
            sctp(transport, packet, port_place, from, to);
            to.port
        }
        protocol::ICMPV6 if family == Family::V6 => {
            apply(transport, 2, change);
            0
        }
        _ => 0,
    }
}

/// TCP's header without options, bytes.
const TCP_LENGTH: usize = 20;
/// UDP's header, bytes.
const UDP_LENGTH: usize = 8;

/// Updates the checksum at `at` by a change of what it covers.
#[inline(always)]
fn apply(header: &mut [u8], at: usize, change: Sum) {
    let sum = change.word(!field::u16_at(header, at)).checksum();
    field::put_u16(header, at, sum);
}

/// A first fragment that ends within TCP's header, perhaps before the checksum.
#[cold]
fn tiny_fragment(header: &mut [u8], port_place: usize, port: u16, change: Sum) {
    field::put_u16(header, port_place, port);
    if header.len() >= 18 {
        apply(header, 16, change);
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
