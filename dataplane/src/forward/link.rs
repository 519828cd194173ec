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
    let length = match hop.vlan {
        None => ETHERNET_LENGTH,
        Some(_) => ETHERNET_LENGTH + VLAN_TAG_LENGTH,
    };
    if packet.network != length {
        resize(frame, packet, length)?;
    }
    let bytes = frame.bytes_mut();
    field::put(bytes, 0, hop.destination);
    field::put(bytes, 6, hop.source);
    let ether_type = match packet.family {
        Family::V4 => ether_type::IPV4,
        Family::V6 => ether_type::IPV6,
    };
    if let Some(id) = hop.vlan {
        field::put_u16(bytes, 12, ether_type::VLAN);
        field::put_u16(bytes, 14, id & 0x0fff);
    }
    field::put_u16(bytes, length - 2, ether_type);
    packet.vlan = hop.vlan.filter(|&id| id != 0);
    Ok(())
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
