//! What becomes of a frame. Each frame gets one verdict, and each drop a name.

use crate::hops::{PortId, Way};

/// What is to be done with the frame in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The frame is complete, link header included: send it on this port.
    Transmit(PortId),
    /// The datagram leaves in pieces: pull them with `Director::next_piece`, send each on
    /// this port, give the frame in hand back.
    Split(PortId),
    /// A datagram that was put together from fragments is for the host: pull its pieces
    /// with `Director::next_piece`, hand each to the tap device, give the frame back.
    SplitHost,
    /// For the host's own stack: hand it to the tap device.
    Host,
    /// All is decided but the next hop's link address is not known yet: keep the frame
    /// (bounded), ask the host to resolve it, and offer the frame to `Director::finish`
    /// once the neighbour of this `Way::Unresolved` is known.
    Unresolved(Way),
    /// As `Unresolved`, but the packet cannot wait: give the frame back, and ask.
    Ask(Way),
    /// A fragment that was copied and waits for its fellows: give the frame back.
    Held,
    /// Give the frame back; the director has counted it under this reason.
    Drop(Reason),
}

macro_rules! reasons {
    ($($(#[$doc:meta])+ $name:ident = $text:literal,)+) => {
        /// Why a frame was dropped. The names are what operators list and scripts read.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])+ $name,)+ }

        impl Reason {
            /// Every reason, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The name that listings show.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

reasons! {
    /// Shorter than its link header, or an odd stack of VLAN tags.
    LinkTruncated = "link_truncated",
    /// Neither IPv4 nor IPv6.
    NotIp = "not_ip",
    /// The IP header does not fit the frame or contradicts itself.
    NetworkMalformed = "network_malformed",
    /// An IPv4 header with a wrong checksum.
    NetworkChecksum = "network_checksum",
    /// The transport header does not fit the packet or contradicts itself.
    TransportMalformed = "transport_malformed",
    /// More IPv6 extension headers than are followed.
    ExtensionLimit = "extension_limit",
    /// A fragment that overlaps another or runs past 65,535 bytes.
    FragmentInvalid = "fragment_invalid",
    /// No room to keep another incomplete datagram.
    FragmentLimit = "fragment_limit",
    /// An incomplete datagram's time ran out.
    FragmentTimeout = "fragment_timeout",
    /// The hop limit is spent (an ICMP error was sent where that is due).
    HopLimit = "hop_limit",
    /// Its connection's server was removed.
    ServerGone = "server_gone",
    /// The connection table is full.
    TableFull = "table_full",
    /// From a masquerading server but of no connection (answered with `nat_icmp_send`).
    NoConnection = "no_connection",
    /// No server is usable (and no ICMP error could be sent).
    NoServer = "no_server",
    /// No route to the next hop.
    NoRoute = "no_route",
    /// The route leaves by a device that is not a port of the director.
    NotAPort = "not_a_port",
    /// The next hop's link address was not found in time.
    NeighbourUnreachable = "neighbour_unreachable",
    /// Too many frames wait for link addresses.
    NeighbourLimit = "neighbour_limit",
    /// Larger than the way out allows and not to be fragmented (an ICMP error was sent
    /// where that is due).
    TooBig = "too_big",
    /// The way to a tunnel's end is too narrow for what a tunnel must carry (IPv6: 1,280).
    TunnelMtu = "tunnel_mtu",
    /// No room before the packet for the headers it needs.
    NoHeadroom = "no_headroom",
    /// No free frame for a piece of a datagram.
    NoFrame = "no_frame",
    /// The way out was full.
    PortFull = "port_full",
    /// The tap device to the host was full or gone.
    HostFull = "host_full",
    /// An ICMP message that belongs to a connection but cannot be translated.
    IcmpMalformed = "icmp_malformed",
    /// An ICMP error would answer an ICMP error, a broadcast or a later fragment.
    IcmpForbidden = "icmp_forbidden",
    /// More new connections than the service's limit lets in.
    ServiceLimit = "service_limit",
    /// More new connections than one client network is let.
    SourceLimit = "source_limit",
    /// Dropped by `drop_packet` to protect memory.
    DropPacket = "drop_packet",
    /// The port's device is away, or went away before the frame had left.
    PortGone = "port_gone",
    /// Larger than the MTU of the port it came by, as a sender's or a device's offload made it,
    /// and not TCP, which is cut again: turn that offload off.
    OffloadJoined = "offload_joined",
}
