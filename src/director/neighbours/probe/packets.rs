//! The questions, and whose answers are: ARP (RFC 826), neighbour discovery (RFC 4861).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::hops::Mac;

/// Ethernet and IPv4.
const ARP_BYTES: usize = 28;
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// "Who has `address`? Tell `own`."
pub(super) fn arp_request(address: Ipv4Addr, own: Ipv4Addr, own_mac: Mac) -> [u8; ARP_BYTES] {
    let mut packet = [0; ARP_BYTES];
    packet[..6].copy_from_slice(&ARP_HEAD);
    packet[7] = 1; // A request.
    packet[8..14].copy_from_slice(&own_mac);
    packet[14..18].copy_from_slice(&own.octets());
    packet[24..28].copy_from_slice(&address.octets());
    packet
}

/// Whom an ARP packet is from.
pub(super) fn arp_sender(packet: &[u8]) -> Option<IpAddr> {
    let bytes: [u8; 4] = packet.get(14..18)?.try_into().ok()?;
    let is_arp = packet.len() >= ARP_BYTES && packet.starts_with(&ARP_HEAD);
    is_arp.then(|| IpAddr::from(bytes))
}

pub(super) const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
pub(super) const ADVERTISEMENT: u8 = 136;
/// The header, the solicitation (4.3), and the option that bears a link address (4.6.1).
const SOLICITATION_BYTES: usize = 40 + 24 + 8;
/// Where an advertisement (4.4) has its type, and its target.
pub(super) const TYPE_AT: usize = 40;
const TARGET_AT: usize = 48;

/// Where those listen who have `address`: RFC 4291, 2.7.1, and RFC 2464, 7.
pub(super) fn solicited_node(address: Ipv6Addr) -> (Ipv6Addr, Mac) {
    let [.., a, b, c] = address.octets();
    let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    group[13..].copy_from_slice(&[a, b, c]);
    (group.into(), [0x33, 0x33, 0xff, a, b, c])
}

/// "Who has `address`? Tell `own`." `to` is that address, or its group.
pub(super) fn solicitation(
    address: Ipv6Addr,
    to: Ipv6Addr,
    own: Ipv6Addr,
    own_mac: Mac,
) -> [u8; SOLICITATION_BYTES] {
    let mut packet = [0; SOLICITATION_BYTES];
    packet[0] = 0x60;
    packet[5] = (SOLICITATION_BYTES - 40) as u8;
    packet[6] = ICMPV6;
    packet[7] = 255; // Shows that it crossed no router (4.3).
    packet[8..24].copy_from_slice(&own.octets());
    packet[24..40].copy_from_slice(&to.octets());
    packet[40] = SOLICITATION;
    packet[TARGET_AT..64].copy_from_slice(&address.octets());
    packet[64..66].copy_from_slice(&[1, 1]); // The source's link address, 8 bytes.
    packet[66..72].copy_from_slice(&own_mac);
    let sum = checksum(&packet);
    packet[42..44].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// ICMPv6's (RFC 4443, 2.3), over a packet whose own sum is 0: addresses, length, protocol
/// and message.
fn checksum(packet: &[u8; SOLICITATION_BYTES]) -> u16 {
    let length = (SOLICITATION_BYTES - 40) as u32;
    let words = packet[8..].chunks_exact(2);
    let sum: u32 = words
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    let sum = sum + length + u32::from(ICMPV6);
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// Whom an advertisement is about.
pub(super) fn advertised(packet: &[u8]) -> Option<IpAddr> {
    let bytes: [u8; 16] = packet.get(TARGET_AT..TARGET_AT + 16)?.try_into().ok()?;
    let is_advertisement = packet[6] == ICMPV6 && packet[TYPE_AT] == ADVERTISEMENT;
    is_advertisement.then(|| IpAddr::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_rfc_826_has_it() {
        let (address, own) = ([10, 0, 0, 7].into(), [10, 0, 0, 1].into());
        let packet = arp_request(address, own, [2, 0, 0, 0, 0, 1]);
        let expected = [
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 7,
        ];
        assert_eq!(packet, expected);
        assert_eq!(arp_sender(&packet), Some(own.into()));
        assert_eq!(arp_sender(&packet[..27]), None);
        assert_eq!(arp_sender(&[0; 28]), None);
    }

    #[test]
    fn a_solicitation_is_as_rfc_4861_has_it() {
        let address: Ipv6Addr = "fd02::12:3456".parse().unwrap();
        let (group, mac) = solicited_node(address);
        assert_eq!(group, "ff02::1:ff12:3456".parse::<Ipv6Addr>().unwrap());
        assert_eq!(mac, [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        let packet = solicitation(address, group, "fd02::1".parse().unwrap(), [2; 6]);
        // Summed with its own sum, all is ones (RFC 1071).
        assert_eq!(checksum(&packet), 0);
        assert_eq!(advertised(&packet), None, "a question");
        let mut answer = packet;
        answer[TYPE_AT] = ADVERTISEMENT;
        assert_eq!(advertised(&answer), Some(address.into()));
        assert_eq!(advertised(&answer[..63]), None);
    }
}
