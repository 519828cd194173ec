//! IPsec's packets have no ports. As in IPVS (`ip_vs_proto_ah_esp.c`) they are of the connection in
//! which their keys were exchanged: UDP, port 500 on both ends (RFC 7296). Port 4500 is not asked
//! for, since whoever exchanges keys there has its packets in UDP, too (RFC 3948).

use crate::address::Endpoint;
use crate::frame::protocol;

/// The port of the Internet Key Exchange.
pub const IKE_PORT: u16 = 500;

/// Encapsulating security payload, authentication header.
pub const PROTOCOLS: [u8; 2] = [protocol::ESP, protocol::AUTHENTICATION];

/// Whether a protocol is IPsec's. Over IPv6 an authentication header is an extension header
/// before another protocol, so there it is never asked.
#[inline(always)]
pub fn is_ipsec(number: u8) -> bool {
    PROTOCOLS.contains(&number)
}

/// The protocol and the ends that a packet's connection is looked for by.
#[inline(always)]
pub fn looked_for(number: u8, source: Endpoint, destination: Endpoint) -> (u8, Endpoint, Endpoint) {
    if !is_ipsec(number) {
        return (number, source, destination);
    }
    let port = IKE_PORT;
    (
        protocol::UDP,
        Endpoint { port, ..source },
        Endpoint {
            port,
            ..destination
        },
    )
}
