//! The link header for a next hop.

use sched::service::Family;

use crate::frame::{ETHERNET_LENGTH, Frame, Packet, VLAN_TAG_LENGTH, ether_type, field};
use crate::hops::Hop;
use crate::verdict::Reason;

/// Writes the link header that takes the frame to `hop`: both MAC addresses, the VLAN tag
/// the route asks for (or none), the EtherType of the packet's family.
///
/// # Errors
/// [`Reason::NoHeadroom`] where a tag is to be added and there is no room for it; the frame
/// is then as before.
#[inline]
pub fn address(frame: &mut Frame<'_>, packet: &mut Packet, hop: &Hop) -> Result<(), Reason> {
    let length = length(hop);
    if packet.network != length {
        resize(frame, packet, length)?;
    }
    write(&mut frame.bytes_mut()[..length], hop, packet.family);
    packet.vlan = hop.vlan.filter(|&id| id != 0);
    Ok(())
}

/// The length of the link header for `hop`, bytes.
#[inline]
pub(crate) fn length(hop: &Hop) -> usize {
    match hop.vlan {
        None => ETHERNET_LENGTH,
        Some(_) => ETHERNET_LENGTH + VLAN_TAG_LENGTH,
    }
}

/// Writes the link header for `hop`, before a packet of `family`, over `header`, which has that
/// [`length`].
#[inline]
pub(crate) fn write(header: &mut [u8], hop: &Hop, family: Family) {
    field::put(header, 0, hop.destination);
    field::put(header, 6, hop.source);
    if let Some(id) = hop.vlan {
        field::put_u16(header, 12, ether_type::VLAN);
        field::put_u16(header, 14, id & 0x0fff);
    }
    let ether_type = match family {
        Family::V4 => ether_type::IPV4,
        Family::V6 => ether_type::IPV6,
    };
    field::put_u16(header, header.len() - 2, ether_type);
}

/// Moves the frame's start so that `length` bytes lie before the IP header.
#[cold]
fn resize(frame: &mut Frame<'_>, packet: &mut Packet, length: usize) -> Result<(), Reason> {
    let added = length.saturating_sub(packet.network);
    let removed = packet.network.saturating_sub(length);
    if !frame.grow_front(added) {
        return Err(Reason::NoHeadroom);
    }
    frame.shrink_front(removed);
    packet.shift(added, removed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hops::PortId;
    use crate::testing::{assert_frame, frame, roomy};

    const IP: &str = "10.9.0.1 > 10.1.0.1 / tcp 1 > 80 S";
    const IPV6: &str = "fd09::1 > fd01::1 / frag id=3 off=8 mf / hex 0011223344556677";

    fn hop(vlan: Option<u16>) -> Hop {
        Hop {
            port: PortId(0),
            vlan,
            source: [2, 0, 0, 0, 0, 8],
            destination: [2, 0, 0, 0, 0, 9],
            mtu: 1500,
            local: 0,
        }
    }

    #[test]
    fn writes_what_the_hop_asks_for() {
        let rows = [
            (
                "no tag, none asked for",
                format!("eth / {IP}"),
                None,
                format!("eth to=9 from=8 / {IP}"),
            ),
            (
                "adds a tag",
                format!("eth / {IP}"),
                Some(7),
                format!("eth to=9 from=8 vlan=7 / {IP}"),
            ),
            (
                "changes a tag, priority gone",
                format!("eth vlan=24580 / {IP}"),
                Some(7),
                format!("eth to=9 from=8 vlan=7 / {IP}"),
            ),
            (
                "removes a tag",
                format!("eth vlan=4 / {IP}"),
                None,
                format!("eth to=9 from=8 / {IP}"),
            ),
            (
                "removes a priority tag",
                format!("eth vlan=40960 / {IP}"),
                None,
                format!("eth to=9 from=8 / {IP}"),
            ),
            (
                "adds a tag before ipv6 fragments",
                format!("eth / {IPV6}"),
                Some(4094),
                format!("eth to=9 from=8 vlan=4094 / {IPV6}"),
            ),
        ];
        for (what, before, vlan, after) in rows {
            let (mut memory, from, until) = roomy(&frame(&before));
            let mut f = Frame::new(&mut memory, from, until).unwrap();
            let mut packet = Packet::parse(&mut f).unwrap();
            address(&mut f, &mut packet, &hop(vlan)).unwrap();
            assert_frame(what, f.bytes(), &frame(&after));
            assert_eq!(Packet::parse(&mut f), Ok(packet), "{what}");
        }
    }

    #[test]
    fn a_tag_needs_room() {
        let mut bytes = frame(IP);
        let end = bytes.len();
        let mut f = Frame::new(&mut bytes, 0, end).unwrap();
        let mut packet = Packet::parse(&mut f).unwrap();
        let refused = address(&mut f, &mut packet, &hop(Some(7)));
        assert_eq!(refused, Err(Reason::NoHeadroom));
        assert_frame("as before", f.bytes(), &frame(IP));
    }
}
