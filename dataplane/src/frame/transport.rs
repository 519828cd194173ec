//! Transport headers: ports, and the few fields that decide about connections.

use etherparse::TcpHeaderSlice;
use sched::service::Family;

use super::packet::Packet;
use super::{field, protocol};
use crate::connection::state::sctp::event_chunk;
use crate::verdict::Reason;

const MALFORMED: Reason = Reason::TransportMalformed;

/// Reads the transport header; `bytes` ends where the IP packet does.
#[inline(always)]
pub(super) fn parse(bytes: &[u8], packet: &mut Packet) -> Result<(), Reason> {
    let here = bytes.get(packet.transport..).ok_or(MALFORMED)?;
    if packet.fragment.is_some() {
        return first_fragment(here, packet);
    }
    match (packet.protocol, packet.family) {
        (protocol::TCP, _) => {
            let header = TcpHeaderSlice::from_slice(here).map_err(|_| MALFORMED)?;
            packet.source.port = header.source_port();
            packet.destination.port = header.destination_port();
            packet.tcp_flags = header.slice()[TCP_FLAGS];
        }
        (protocol::UDP, _) => ports(here, packet, UDP_LENGTH)?,
        (protocol::SCTP, _) => {
            ports(here, packet, SCTP_LENGTH + SCTP_CHUNK_LENGTH)?;
            packet.sctp_chunk = event_chunk(here).unwrap_or(0);
        }
        (protocol::ICMP, Family::V4) | (protocol::ICMPV6, Family::V6) => icmp(here, packet)?,
        _ => {}
    }
    Ok(())
}

/// Offset of TCP's flag byte (RFC 9293).
const TCP_FLAGS: usize = 13;
/// UDP's header, bytes.
const UDP_LENGTH: usize = 8;
/// SCTP's common header, bytes (RFC 9260).
const SCTP_LENGTH: usize = 12;
/// SCTP's chunk header, bytes.
const SCTP_CHUNK_LENGTH: usize = 4;
/// What every ICMP message has, bytes (RFC 792, RFC 4443).
const ICMP_LENGTH: usize = 8;

#[inline(always)]
fn ports(here: &[u8], packet: &mut Packet, length: usize) -> Result<(), Reason> {
    let header = here.get(..length).ok_or(MALFORMED)?;
    packet.source.port = field::u16_at(header, 0);
    packet.destination.port = field::u16_at(header, 2);
    Ok(())
}

fn icmp(here: &[u8], packet: &mut Packet) -> Result<(), Reason> {
    let header = here.get(..ICMP_LENGTH).ok_or(MALFORMED)?;
    packet.icmp_type = header[0];
    packet.icmp_code = header[1];
    Ok(())
}

/// The smallest first fragment has 8 bytes: the ports are there, more need not be. The
/// whole header is checked once the datagram is put together.
#[cold]
fn first_fragment(here: &[u8], packet: &mut Packet) -> Result<(), Reason> {
    if packet.is_later_fragment() {
        return Ok(());
    }
    match (packet.protocol, packet.family) {
        (protocol::TCP, _) => {
            ports(here, packet, 8)?;
            packet.tcp_flags = here.get(TCP_FLAGS).copied().unwrap_or(0);
        }
        (protocol::UDP, _) => ports(here, packet, UDP_LENGTH)?,
        (protocol::SCTP, _) => {
            ports(here, packet, 8)?;
            packet.sctp_chunk = event_chunk(here).unwrap_or(0);
        }
        (protocol::ICMP, Family::V4) | (protocol::ICMPV6, Family::V6) => icmp(here, packet)?,
        _ => {}
    }
    Ok(())
}
