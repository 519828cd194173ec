//! Transport headers: ports, and the few fields that decide about connections.

use etherparse::TcpHeaderSlice;
use sched::service::Family;

use super::packet::FragmentInfo;
use super::{field, protocol};
use crate::connection::state::sctp::event_chunk;
use crate::verdict::Reason;

const MALFORMED: Reason = Reason::TransportMalformed;

/// What is read of a transport header; 0 where it has no such field.
#[derive(Clone, Copy, Default)]
pub(super) struct Transport {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) tcp_flags: u8,
    pub(super) sctp_chunk: u8,
    pub(super) icmp_type: u8,
    pub(super) icmp_code: u8,
}

/// Reads the transport header, whole, at the start of an IP payload.
#[inline(always)]
pub(super) fn parse(payload: &[u8], family: Family, number: u8) -> Result<Transport, Reason> {
    match (number, family) {
        (protocol::TCP, _) => {
            let header = TcpHeaderSlice::from_slice(payload).map_err(|_| MALFORMED)?;
            Ok(Transport {
                source_port: header.source_port(),
                destination_port: header.destination_port(),
                tcp_flags: header.slice()[TCP_FLAGS],
                ..Transport::default()
            })
        }
        (protocol::UDP, _) => ports(payload, UDP_LENGTH),
        (protocol::SCTP, _) => Ok(Transport {
            sctp_chunk: event_chunk(payload).ok_or(MALFORMED)?,
            ..ports(payload, SCTP_LENGTH + SCTP_CHUNK_LENGTH)?
        }),
        (protocol::ICMP, Family::V4) | (protocol::ICMPV6, Family::V6) => icmp(payload),
        _ => Ok(Transport::default()),
    }
}

/// Reads what a fragment holds of the transport header. The smallest first fragment has 8
/// bytes: the ports are there, more need not be. The whole header is checked once the
/// datagram is put together.
#[cold]
pub(super) fn parse_fragment(
    payload: &[u8],
    family: Family,
    number: u8,
    fragment: &FragmentInfo,
) -> Result<Transport, Reason> {
    if fragment.offset_bytes != 0 {
        return Ok(Transport::default());
    }
    let at = |index: usize| payload.get(index).copied().unwrap_or(0);
    match (number, family) {
        (protocol::TCP, _) => Ok(Transport {
            tcp_flags: at(TCP_FLAGS),
            ..ports(payload, SMALLEST_FRAGMENT)?
        }),
        (protocol::UDP, _) => ports(payload, UDP_LENGTH),
        (protocol::SCTP, _) => Ok(Transport {
            sctp_chunk: event_chunk(payload).unwrap_or(0),
            ..ports(payload, SMALLEST_FRAGMENT)?
        }),
        (protocol::ICMP, Family::V4) | (protocol::ICMPV6, Family::V6) => icmp(payload),
        _ => Ok(Transport::default()),
    }
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
/// The payload of the shortest fragment that another follows, bytes.
const SMALLEST_FRAGMENT: usize = 8;

#[inline(always)]
fn ports(payload: &[u8], length: usize) -> Result<Transport, Reason> {
    let header = payload.get(..length).ok_or(MALFORMED)?;
    Ok(Transport {
        source_port: field::u16_at(header, 0),
        destination_port: field::u16_at(header, 2),
        ..Transport::default()
    })
}

fn icmp(payload: &[u8]) -> Result<Transport, Reason> {
    let header = payload.get(..ICMP_LENGTH).ok_or(MALFORMED)?;
    Ok(Transport {
        icmp_type: header[0],
        icmp_code: header[1],
        ..Transport::default()
    })
}
