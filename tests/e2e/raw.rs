//! Packets made by hand, for what no socket would send: floods of handshakes that nobody completes, and damaged frames.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};

/// The same numbers in each run (xorshift64); never from a seed of 0.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        // Seeds are often small numbers: their first numbers would be alike.
        Random((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1)
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// 0 to `end`, without it.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.number() >> 16) % end
    }

    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn of<'s, T>(&mut self, choices: &'s [T]) -> &'s T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// A time between two, ms.
    pub fn time_ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }
}

fn sum(words: impl Iterator<Item = u16>) -> u16 {
    let total: u64 = words.map(u64::from).sum();
    let folded = (0..4).fold(total, |total, _| (total & 0xffff) + (total >> 16));
    !folded as u16
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes
        .chunks(2)
        .map(|pair| u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))
}

/// An IPv4 or IPv6 packet around `payload`.
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = [0; 20];
            header[..10].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol]);
            header[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            let checksum = sum(words(&header));
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            header.to_vec()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = [0; 40];
            header[0] = 0x60;
            header[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
            header[6..8].copy_from_slice(&[protocol, 64]);
            header[8..24].copy_from_slice(&from.octets());
            header[24..40].copy_from_slice(&to.octets());
            header.to_vec()
        }
        _ => panic!("{from} and {to} are of two families"),
    };
    packet.extend_from_slice(payload);
    packet
}

/// An IP packet with a TCP or UDP header of these first bytes behind the ports, and its checksum.
fn transport(from: SocketAddr, to: SocketAddr, protocol: u8, at: usize, rest: &[u8]) -> Vec<u8> {
    let mut segment = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    segment.extend_from_slice(rest);
    let addresses = [from.ip(), to.ip()].map(|address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    });
    let pseudo = [u16::from(protocol), segment.len() as u16];
    let checksum = {
        let addresses = addresses.iter().flat_map(|bytes| words(bytes));
        sum(addresses.chain(pseudo).chain(words(&segment)))
    };
    segment[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    ip(from.ip(), to.ip(), protocol, &segment)
}

/// A TCP packet without data.
pub fn tcp(from: SocketAddr, to: SocketAddr, flags: u8) -> Vec<u8> {
    let rest = [0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
    transport(from, to, 6, 16, &rest)
}

pub fn udp(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut rest = (8 + data.len() as u16).to_be_bytes().to_vec();
    rest.extend_from_slice(&[0, 0]);
    rest.extend_from_slice(data);
    transport(from, to, 17, 6, &rest)
}

pub const SYN: u8 = 2;
pub const ACK: u8 = 16;

/// Takes whole IPv4 packets, of the namespace it is called in.
pub fn raw_socket() -> OwnedFd {
    let (family, kind) = (AddressFamily::INET, SocketType::RAW);
    let raw = Some(ipproto::RAW);
    socket_with(family, kind, SocketFlags::CLOEXEC, raw).expect("root may")
}

/// Sends packets `make` for the numbers from 0 to `count` at a steady rate, out of the namespace it is called in. How
/// long it took.
pub fn send_at(
    to: SocketAddrV4,
    count: u32,
    per_s: u32,
    mut make: impl FnMut(u32) -> Vec<u8>,
) -> Duration {
    let raw = raw_socket();
    let begin = Instant::now();
    for number in 0..count {
        // A full queue loses packets, as on any wire.
        let _ = sendto(&raw, &make(number), SendFlags::empty(), &to);
        if number % 100 == 99 {
            let due = Duration::from_secs_f64(f64::from(number + 1) / f64::from(per_s));
            thread::sleep(due.saturating_sub(begin.elapsed()));
        }
    }
    begin.elapsed()
}

/// Sends `count` handshakes' first packets from random addresses of a network at a steady rate.
pub fn flood(
    (network, length): (Ipv4Addr, u32),
    to: SocketAddrV4,
    count: u32,
    per_s: u32,
    random: &mut Random,
) -> Duration {
    send_at(to, count, per_s, |_| {
        let number = random.number();
        let host = (number >> 24) as u32 & (u32::MAX >> length);
        let from = Ipv4Addr::from_bits(network.to_bits() | host);
        let from = SocketAddrV4::new(from, number as u16 | 1024);
        tcp(from.into(), to.into(), SYN)
    })
}
