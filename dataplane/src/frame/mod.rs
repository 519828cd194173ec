//! Checked views of frames: parsed once, where they lie; after that reads cannot fail.

mod buffer;
pub mod field;
pub mod ipsec;
mod network;
mod packet;
pub(crate) mod plain;
#[cfg(test)]
mod tests;
mod transport;

pub use buffer::Frame;
pub use network::{Extensions, MAX_EXTENSION_HEADERS, extension_headers};
pub(crate) use network::{
    FRAGMENT_HEADER_LENGTH, IPV4_DONT_FRAGMENT, IPV4_FRAGMENT_OFFSET, IPV4_MORE_FRAGMENTS,
};
pub use packet::{ETHERNET_LENGTH, FragmentInfo, Packet, VLAN_TAG_LENGTH, ether_type};

/// TCP's flags (RFC 9293, section 3.1).
pub mod tcp_flag {
    /// Says that no more will be sent.
    pub const FIN: u8 = 0x01;
    /// Begins a connection.
    pub const SYN: u8 = 0x02;
    /// Ends a connection at once.
    pub const RST: u8 = 0x04;
    /// Asks to be handed to the program at once.
    pub const PSH: u8 = 0x08;
    /// Acknowledges what was received.
    pub const ACK: u8 = 0x10;
    /// Says that the sender's window was reduced (RFC 3168).
    pub const CWR: u8 = 0x80;
    /// Those that decide about a connection's state.
    pub const DECISIVE: u8 = SYN | FIN | RST | ACK;
}

/// Types of SCTP's chunks (RFC 9260, section 3.2).
pub mod sctp_chunk {
    /// Begins an association.
    pub const INIT: u8 = 1;
    /// Ends an association at once.
    pub const ABORT: u8 = 6;
}

/// IP protocol and IPv6 next-header numbers (IANA "Protocol Numbers").
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// IPv4 inside IP.
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 inside IP.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// GRE.
    pub const GRE: u8 = 47;
    /// Encapsulating security payload (RFC 4303).
    pub const ESP: u8 = 50;
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
}
