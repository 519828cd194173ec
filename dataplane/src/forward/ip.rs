//! Whole IP headers, for packets that the director writes itself.

use super::checksum;
use crate::frame::{IPV4_DONT_FRAGMENT, Packet, field};

/// Writes an IPv4 header without options for `packet` at the start of `ip`. A packet that
/// must not be fragmented needs no identification and bears 0, as Linux sends it.
pub(super) fn write_v4(ip: &mut [u8], packet: &Packet, identification: u16) {
    let (identification, flags) = match packet.dont_fragment {
        true => (0, IPV4_DONT_FRAGMENT),
        false => (identification, 0),
    };
    field::put(ip, 0, [0x45, packet.traffic_class]);
    field::put_u16(ip, 2, packet.length as u16);
    field::put_u16(ip, 4, identification);
    field::put_u16(ip, 6, flags);
    field::put(ip, 8, [packet.hop_limit, packet.protocol]);
    field::put_address(ip, packet.family, 12, packet.source.address);
    field::put_address(ip, packet.family, 16, packet.destination.address);
    checksum::write_header(ip);
}

/// Writes an IPv6 header with flow label 0 for `packet` at the start of `ip`.
pub(super) fn write_v6(ip: &mut [u8], packet: &Packet) {
    let class = packet.traffic_class;
    field::put(ip, 0, [0x60 | class >> 4, class << 4, 0, 0]);
    field::put_u16(ip, 4, (packet.length - 40) as u16);
    field::put(ip, 6, [packet.protocol, packet.hop_limit]);
    field::put_address(ip, packet.family, 8, packet.source.address);
    field::put_address(ip, packet.family, 24, packet.destination.address);
}
