//! What the short way of the director needs of a server, put together when the snapshot is
//! built and laid into one cache line: the link header that takes a packet there, its port,
//! how much fits. A server that cannot be reached at once has no track.

use std::net::IpAddr;

use sched::server::{Forwarding, Tunnel};
use sched::service::{Family, ServiceId};

use super::ServerSlot;
use crate::forward::link;
use crate::forward::tunnel::{LEAST_INSIDE_V4, LONGEST_INSIDE, Outer};
use crate::frame::plain::IPV4_LENGTH;
use crate::frame::{ETHERNET_LENGTH, VLAN_TAG_LENGTH};
use crate::hops::{Hop, PortId, Way};

/// The longest link header: with a VLAN tag.
pub(crate) const LINK_BYTES: usize = ETHERNET_LENGTH + VLAN_TAG_LENGTH;

/// A [`Hop`] made ready: its link header as it will stand in the frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exit {
    /// Its last `link_bytes` bytes are the link header.
    pub(crate) link: [u8; LINK_BYTES],
    pub(crate) link_bytes: u8,
    pub(crate) port: PortId,
    /// The largest packet that fits, bytes at layer 3; 0 where nobody is to leave so.
    pub(crate) mtu: u16,
}

/// See the module. All of it is what the [`ServerSlot`] of the same snapshot says.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Track {
    /// The outer header of an IP-in-IP tunnel over IPv4.
    pub(crate) outer: Outer,
    /// The server's address, of IPv4.
    pub(crate) address: u32,
    /// Nothing fits through it where there is no track.
    pub(crate) exit: Exit,
    /// The largest packet that fits a tunnel to the server, bytes; 0 where that is not IP in
    /// IP over IPv4.
    pub(crate) tunnel_room: u16,
    pub(crate) service: ServiceId,
}

const _: () = assert!(size_of::<Track>() == 64, "a track is one cache line");

impl Exit {
    pub(crate) const NONE: Self = Self {
        link: [0; LINK_BYTES],
        link_bytes: 0,
        port: PortId(0),
        mtu: 0,
    };

    /// The exit to a hop for packets of a family.
    pub(crate) fn new(hop: &Hop, family: Family) -> Self {
        let length = link::length(hop);
        let mut link = [0; LINK_BYTES];
        link::write(&mut link[LINK_BYTES - length..], hop, family);
        Self {
            link,
            link_bytes: length as u8,
            port: hop.port,
            mtu: hop.mtu,
        }
    }

    /// The link header.
    pub(crate) fn link(&self) -> &[u8] {
        &self.link[LINK_BYTES - usize::from(self.link_bytes)..]
    }
}

impl Track {
    /// No track: nothing fits.
    pub(super) const NONE: Self = Self {
        outer: Outer::NONE,
        address: 0,
        exit: Exit::NONE,
        tunnel_room: 0,
        service: ServiceId(0),
    };

    /// The track to a server.
    pub(super) fn new(slot: &ServerSlot) -> Self {
        let server = &slot.server;
        let Way::Ready(hop) = slot.way else {
            return Self::NONE;
        };
        if !server.available {
            return Self::NONE;
        }
        let address = server.key.address;
        let mut track = Self {
            exit: Exit::new(&hop, Family::of(address)),
            service: server.service,
            ..Self::NONE
        };
        // A server that was edited to another method keeps its tunnels: as IP in IP.
        let is_ipip = match server.spec.forwarding {
            Forwarding::Tunnel(kind) => kind == Tunnel::Ipip,
            Forwarding::Masquerade | Forwarding::Route => true,
        };
        if let IpAddr::V4(remote) = address {
            track.address = remote.to_bits();
            track.outer = Outer::new(hop.local as u32, track.address);
            track.tunnel_room = if is_ipip { tunnel_room(hop.mtu) } else { 0 };
        }
        track
    }

    /// The largest packet that fits `(outside, inside)` a tunnel, bytes, where the path takes
    /// no more than `path_mtu`.
    pub(crate) fn narrowed(&self, path_mtu: u16) -> (u16, u16) {
        let mtu = self.exit.mtu.min(path_mtu);
        (mtu, self.tunnel_room.min(tunnel_room(mtu)))
    }
}

/// What an IP-in-IP tunnel over IPv4 leaves of an MTU. Where that is narrower than a packet
/// inside may be, packets are refused the general way.
fn tunnel_room(mtu: u16) -> u16 {
    let room = mtu.saturating_sub(IPV4_LENGTH as u16).min(LONGEST_INSIDE);
    if usize::from(room) >= LEAST_INSIDE_V4 {
        room
    } else {
        0
    }
}
