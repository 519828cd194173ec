//! A packet of a flow, made up: the smallest that there can be, with true checksums.

use std::net::{IpAddr, SocketAddr};

use dataplane::address::bits;
use dataplane::forward::checksum::{self, Sum};
use dataplane::hops::Mac;
use sched::service::{Family, Protocol};

/// From no card in particular: locally administered (IEEE 802, 8.4).
const STRANGER: Mac = [2, 0, 0, 0, 0, 0xfe];

/// The frame from one end to the other, addressed to a port.
pub fn build(
    protocol: Protocol,
    from: SocketAddr,
    to: SocketAddr,
    flags: &str,
    port: Mac,
) -> Result<Vec<u8>, String> {
    let family = Family::of(from.ip());
    if family != Family::of(to.ip()) {
        return Err(format!("{from} and {to} are of two families"));
    }
    let mut segment = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    match protocol {
        Protocol::Tcp => {
            segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, tcp_flags(flags)?]);
            segment.extend([0xff, 0xff, 0, 0, 0, 0]);
        }
        Protocol::Udp => segment.extend([0, 8, 0, 0]),
        Protocol::Sctp => {
            let chunk = if flags.contains('S') { 1 } else { 0 };
            segment.extend([0, 0, 0, 1, 0, 0, 0, 0, chunk, 0, 0, 20]);
            segment.extend([0, 0, 0, 1, 0, 0, 255, 255, 0, 1, 0, 1, 0, 0, 0, 1]);
        }
    }
    seal(protocol, family, from, to, &mut segment);
    let mut frame = [port, STRANGER].concat();
    match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((20 + segment.len() as u16).to_be_bytes());
            frame.extend([0, 1, 0x40, 0, 64, protocol.number(), 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
            checksum::write_header(&mut frame[14..]);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((segment.len() as u16).to_be_bytes());
            frame.extend([protocol.number(), 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => return Err("two families".into()),
    }
    frame.extend(segment);
    Ok(frame)
}

fn tcp_flags(letters: &str) -> Result<u8, String> {
    letters
        .chars()
        .try_fold(0, |flags, letter| match "FSRPAU".find(letter) {
            Some(bit) => Ok(flags | 1 << bit),
            None => Err(format!(
                "{letter} is none of TCP's flags F, S, R, P, A and U"
            )),
        })
}

fn seal(protocol: Protocol, family: Family, from: SocketAddr, to: SocketAddr, segment: &mut [u8]) {
    let at = match protocol {
        Protocol::Tcp => 16,
        Protocol::Udp => 6,
        Protocol::Sctp => return checksum::write_sctp(segment),
    };
    let sum = Sum::default()
        .address(family, bits(from.ip()))
        .address(family, bits(to.ip()))
        .word(u16::from(protocol.number()))
        .word(segment.len() as u16)
        .bytes(segment)
        .checksum();
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}
