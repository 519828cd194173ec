//! Network address translation: another address and port for one side of a packet, every
//! checksum that covers them kept true, or exactly as wrong as it came.

use sched::service::Family;

use crate::address::Endpoint;
use crate::forward::checksum::{self, Sum};
use crate::forward::hop_limit;
use crate::frame::plain::{IPV4_LENGTH, IPV6_LENGTH};
use crate::frame::{Frame, Packet, field, protocol};

mod correction;
#[cfg(test)]
mod tests;

pub(crate) use correction::Correction;

/// Sends the packet to `to` instead. Tells whether a checksum was completed on the way
/// (see [`checksum::complete_if_partial`]).
///
/// The port is left alone where the packet has none. In fragments SCTP's checksum, which
/// covers the whole datagram, cannot be kept; put datagrams together first.
#[inline]
pub fn rewrite_destination(frame: &mut Frame<'_>, packet: &mut Packet, to: Endpoint) -> bool {
    let from = packet.destination;
    let (completed, port) = match packet.family {
        Family::V4 => translate(frame, packet, &Change::new(Family::V4, 16, 2, from, to)),
        Family::V6 => translate(frame, packet, &Change::new(Family::V6, 24, 2, from, to)),
    };
    packet.destination = Endpoint { port, ..to };
    complete_absent(frame, packet);
    completed
}

/// Lets the packet come from `to` instead. Otherwise as [`rewrite_destination`].
#[inline]
pub fn rewrite_source(frame: &mut Frame<'_>, packet: &mut Packet, to: Endpoint) -> bool {
    let from = packet.source;
    let (completed, port) = match packet.family {
        Family::V4 => translate(frame, packet, &Change::new(Family::V4, 12, 0, from, to)),
        Family::V6 => translate(frame, packet, &Change::new(Family::V6, 8, 0, from, to)),
    };
    packet.source = Endpoint { port, ..to };
    complete_absent(frame, packet);
    completed
}

/// Which side of a packet is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The receiver's: on the way to a server.
    Destination,
    /// The sender's: on the way back to the client.
    Source,
}

/// As [`rewrite_destination`] and [`rewrite_source`], and one hop off, for a plain packet (see
/// [`crate::frame::plain`]) whose IP header begins `ip`, which has a hop left, and whose
/// checksum is there and not partial. `correction` is that of the packet's connection. The
/// family, the protocol and the side are constants where it is called.
#[inline(always)]
pub(crate) fn translate_plain(
    ip: &mut [u8],
    (family, protocol, side): (Family, u8, Side),
    to: Endpoint,
    correction: Correction,
) {
    let (address_at, header) = match (family, side) {
        (Family::V4, Side::Destination) => (16, IPV4_LENGTH),
        (Family::V4, Side::Source) => (12, IPV4_LENGTH),
        (Family::V6, Side::Destination) => (24, IPV6_LENGTH),
        (Family::V6, Side::Source) => (8, IPV6_LENGTH),
    };
    let port_at = match side {
        Side::Destination => 2,
        Side::Source => 0,
    };
    let (head, segment) = ip.split_at_mut(header);
    field::put_address(head, family, address_at, to.address);
    field::put_u16(segment, port_at, to.port);
    match (family, side) {
        (Family::V6, _) => hop_limit::take_one(head, family),
        // The hop is a part of the correction.
        (Family::V4, side) => {
            hop_limit::take_one_unsummed(head);
            match side {
                Side::Destination => correction.header_there(head, checksum::IPV4_CHECKSUM),
                Side::Source => correction.header_back(head, checksum::IPV4_CHECKSUM),
            }
        }
    }
    let at = match protocol {
        protocol::TCP => checksum::TCP_CHECKSUM,
        _ => checksum::UDP_CHECKSUM,
    };
    match side {
        Side::Destination => correction.transport_there(segment, at),
        Side::Source => correction.transport_back(segment, at),
    }
    if protocol == protocol::UDP {
        let sum = field::u16_at(segment, at);
        field::put_u16(segment, at, checksum::sendable(protocol, sum));
    }
}

/// What is rewritten. The family and the places are constants at every call and all that
/// uses them is inlined, so that the branches on them fold.
struct Change {
    family: Family,
    /// Where the address lies in the IP header.
    address_at: usize,
    /// Where the port lies in the transport header.
    port_at: usize,
    from: Endpoint,
    to: Endpoint,
}

impl Change {
    #[inline(always)]
    fn new(
        family: Family,
        address_at: usize,
        port_at: usize,
        from: Endpoint,
        to: Endpoint,
    ) -> Self {
        Self {
            family,
            address_at,
            port_at,
            from,
            to,
        }
    }

    /// What the change of address adds to a sum.
    #[inline(always)]
    fn of_address(&self) -> Sum {
        Sum::default()
            .without_address(self.family, self.from.address)
            .address(self.family, self.to.address)
    }

    /// What the change of address and port adds to a sum.
    #[inline(always)]
    fn of_both(&self) -> Sum {
        self.of_address()
            .without_word(self.from.port)
            .word(self.to.port)
    }
}

/// Tells whether a checksum was completed, and the port that is now there, 0 for none.
#[inline(always)]
fn translate(frame: &mut Frame<'_>, packet: &Packet, change: &Change) -> (bool, u16) {
    let (head, segment) = frame.bytes_mut().split_at_mut(packet.transport);
    let completed = checksum::complete_segment(segment, packet, change.family);
    translate_network(&mut head[packet.network..], change);
    if packet.is_later_fragment() {
        return (completed, 0);
    }
    (completed, translate_transport(segment, packet, change))
}

#[inline(always)]
fn translate_network(header: &mut [u8], change: &Change) {
    match (change.family, header.first_chunk_mut::<20>()) {
        (Family::V4, Some(header)) => {
            field::put_address(header, Family::V4, change.address_at, change.to.address);
            apply(header, checksum::IPV4_CHECKSUM, change.of_address());
        }
        (family, _) => field::put_address(header, family, change.address_at, change.to.address),
    }
}

/// The port that is now there, 0 for none.
#[inline(always)]
fn translate_transport(segment: &mut [u8], packet: &Packet, change: &Change) -> u16 {
    match packet.protocol {
        protocol::TCP => match segment.first_chunk_mut::<TCP_LENGTH>() {
            Some(header) => translate_tcp(header, change),
            None => tiny_fragment(segment, change.port_at, change.to.port, change.of_both()),
        },
        protocol::UDP => {
            if let Some(header) = segment.first_chunk_mut::<UDP_LENGTH>() {
                translate_udp(header, change);
            }
        }
        protocol::SCTP => sctp(segment, packet, change.port_at, change.from, change.to),
        protocol::ICMPV6 if change.family == Family::V6 => {
            apply(segment, 2, change.of_address());
            return 0;
        }
        _ => return 0,
    }
    change.to.port
}

#[inline(always)]
fn translate_tcp(header: &mut [u8; TCP_LENGTH], change: &Change) {
    field::put_u16(header, change.port_at, change.to.port);
    apply(header, checksum::TCP_CHECKSUM, change.of_both());
}

#[inline(always)]
fn translate_udp(header: &mut [u8; UDP_LENGTH], change: &Change) {
    field::put_u16(header, change.port_at, change.to.port);
    apply_udp(header, change.of_both());
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

/// IPVS gives a checksum to UDP that came without (`udp_dnat_handler`, `udp_snat_handler`).
/// In fragments the sum cannot be computed, so those stay without.
#[inline(always)]
fn complete_absent(frame: &mut Frame<'_>, packet: &Packet) {
    if packet.protocol == protocol::UDP && packet.fragment.is_none() {
        let segment = &mut frame.bytes_mut()[packet.transport..];
        if segment.get(6..8) == Some(&[0, 0]) {
            checksum::write_udp(segment, packet);
        }
    }
}

/// UDP without a checksum is left to [`complete_absent`].
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
