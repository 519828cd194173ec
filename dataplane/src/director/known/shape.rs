//! Plain shapes: what is the same for all packets of one, so that the code for each has it
//! as constants, and reads and writes at places that are known when it is compiled.

use std::ops::Range;

use sched::service::{Family, Protocol};

use crate::frame::plain::{IPV4_LENGTH, IPV6_LENGTH, TAGGED, TCP_LENGTH, UDP_LENGTH, UNTAGGED};
use crate::snapshot::LINK_BYTES;

/// See the module.
pub(super) trait Shape {
    const IS_TAGGED: bool;
    const FAMILY: Family;
    const PROTOCOL: Protocol;

    /// From a client. Of TCP an ACK and no more ([`Course::decisive`] are the others).
    const REQUEST: Course = Course::new::<Self>(false);
    /// From a masquerading server, likewise.
    const REPLY: Course = Course::new::<Self>(true);

    /// Where the IP header begins.
    const NETWORK: usize = if Self::IS_TAGGED { TAGGED } else { UNTAGGED };
    /// How much of an exit's link can be other than the header, as long, that a packet came
    /// with: its family's type, which stands last, is the same.
    const OTHER_IN_LINK: Range<usize> = if Self::IS_TAGGED {
        0..LINK_BYTES
    } else {
        LINK_BYTES - UNTAGGED..LINK_BYTES - 2
    };
    /// How much of it is written where there was no header: 16 bytes are as quick as the 14 that
    /// need be.
    const ALL_OF_LINK: Range<usize> = if Self::IS_TAGGED {
        0..LINK_BYTES
    } else {
        LINK_BYTES - 16..LINK_BYTES
    };
    /// The IP header's length, bytes.
    const IP_BYTES: usize = match Self::FAMILY {
        Family::V4 => IPV4_LENGTH,
        Family::V6 => IPV6_LENGTH,
    };
    /// All headers without options, bytes.
    const HEAD_BYTES: usize = Self::NETWORK
        + Self::IP_BYTES
        + match Self::PROTOCOL {
            Protocol::Tcp => TCP_LENGTH,
            _ => UDP_LENGTH,
        };
}

/// The shape that these bits say.
pub(super) struct Plainly<const TAGGED: bool, const V6: bool, const UDP: bool>;

/// The most usual shapes.
pub(super) type TcpOverV4 = Plainly<false, false, false>;
pub(super) type UdpOverV4 = Plainly<false, false, true>;

impl<const IS_TAGGED: bool, const V6: bool, const UDP: bool> Shape for Plainly<IS_TAGGED, V6, UDP> {
    const IS_TAGGED: bool = IS_TAGGED;
    const FAMILY: Family = if V6 { Family::V6 } else { Family::V4 };
    const PROTOCOL: Protocol = if UDP { Protocol::Udp } else { Protocol::Tcp };
}

/// Which short way a frame may go: from a client or from a masquerading server, and its
/// shape; or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Course(u8);

impl Course {
    /// None.
    pub(super) const GENERAL: Self = Self(0);

    const SHORT: u8 = 1;
    const REPLY: u8 = 1 << 1;
    const UDP: u8 = 1 << 2;
    const V6: u8 = 1 << 3;
    const TAGGED: u8 = 1 << 4;
    const DECISIVE: u8 = 1 << 5;
    /// TCP's request over IPv4 behind no tag, as a sign: asked apart from all else, or the
    /// compiler makes it one of a jump through a table.
    const MOST_USUAL: u8 = 1 << 7;

    const fn new<S: Shape + ?Sized>(is_reply: bool) -> Self {
        let is_v6 = matches!(S::FAMILY, Family::V6);
        let is_udp = matches!(S::PROTOCOL, Protocol::Udp);
        let is_most_usual = !is_reply && !is_udp && !is_v6 && !S::IS_TAGGED;
        Self(
            Self::SHORT
                | (is_reply as u8 * Self::REPLY)
                | (is_udp as u8 * Self::UDP)
                | (is_v6 as u8 * Self::V6)
                | (S::IS_TAGGED as u8 * Self::TAGGED)
                | (is_most_usual as u8 * Self::MOST_USUAL),
        )
    }

    /// The same, with flags that may change the connection's state.
    pub(super) const fn decisive(self) -> Self {
        Self(self.0 & !Self::MOST_USUAL | Self::DECISIVE)
    }

    pub(super) const fn is_decisive(self) -> bool {
        self.0 & Self::DECISIVE != 0
    }

    pub(super) const fn is_most_usual(self) -> bool {
        (self.0 as i8) < 0
    }

    pub(super) const fn is_reply(self) -> bool {
        self.0 & Self::REPLY != 0
    }

    pub(super) const fn is_udp(self) -> bool {
        self.0 & Self::UDP != 0
    }

    pub(super) const fn is_v6(self) -> bool {
        self.0 & Self::V6 != 0
    }

    pub(super) const fn is_tagged(self) -> bool {
        self.0 & Self::TAGGED != 0
    }
}
