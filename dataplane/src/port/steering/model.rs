//! Which frames steer.bpf.c takes, said in Rust and with the reason: for explanations,
//! which must not count as frames. Tests hold it against the program itself.

use std::net::Ipv6Addr;

use sched::prefix::{Guard, decisive};

use super::rules::{AddressKey, Contents, EndpointKey, REAL, REAL_WHOLE, SteeringRules, TUNNEL};
use super::rules::{VIRTUAL, VlanKey};

/// As EXTENSIONS_MAX of steer.bpf.c.
const EXTENSIONS_MAX: usize = 7;

/// As TAGS_MAX of steer.bpf.c.
const TAGS_MAX: usize = 4;

/// What the program does with a frame, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steered {
    /// The host's: its link address is none of the port's.
    OtherStation,
    /// The host's: of a VLAN that the director does not serve.
    OtherVlan,
    /// The host's: not IP, or cut short.
    NotIp,
    /// The host's: nothing of the director's is named in it.
    NotOurs,
    /// Nobody's: its client is kept out.
    Denied,
    /// The director's: sent to a virtual service, or to what bears a mark.
    ToVirtual,
    /// The director's: from a masquerading server.
    FromReal,
    /// The director's: an ICMP error about a packet of its.
    AboutOurs,
}

impl Steered {
    /// Whether the director gets the frame.
    pub fn is_taken(self) -> bool {
        matches!(self, Self::ToVirtual | Self::FromReal | Self::AboutOurs)
    }
}

fn is_tag(kind: [u8; 2]) -> bool {
    matches!(kind, [0x81, 0] | [0x88, 0xa8])
}

impl SteeringRules {
    /// What the program does with a frame that came by this device.
    pub fn steer(&self, device: u32, frame: &[u8]) -> Steered {
        let contents = Contents::of(self);
        let mut stations = self.macs.iter().chain(&self.stations);
        let mut is_station = |mac: &[u8]| stations.any(|(d, m)| *d == device && m == mac);
        let Some((link, _)) = frame.split_first_chunk::<14>() else {
            return Steered::OtherStation;
        };
        if !is_station(&link[..6]) {
            return Steered::OtherStation;
        }
        let (mut kind, mut at) = ([link[12], link[13]], 14);
        for _ in 0..TAGS_MAX {
            if !is_tag(kind) {
                break;
            }
            let Some(&[high, low, a, b]) = frame[at..].first_chunk::<4>() else {
                return Steered::OtherVlan;
            };
            let id = u16::from_be_bytes([high, low]) & 0xfff;
            let key: VlanKey = super::rules::vlan_key(device, id);
            let is_nobodys = kind != [0x81, 0] || is_tag([a, b]);
            if id != 0 && (is_nobodys || !contents.vlans.contains_key(&key)) {
                return Steered::OtherVlan;
            }
            (kind, at) = ([a, b], at + 4);
        }
        if is_tag(kind) {
            return Steered::OtherVlan;
        }
        let Some(packet) = Read::new(kind, frame, at) else {
            return Steered::NotIp;
        };
        contents.judge(kind, frame, &packet)
    }
}

impl Contents {
    fn judge(&self, kind: [u8; 2], frame: &[u8], packet: &Read) -> Steered {
        if packet.is_icmp_error(kind, frame) && self.concerns_us(kind, frame, packet) {
            Steered::AboutOurs
        } else if self.is_any(&packet.destination, VIRTUAL, packet.partial) {
            match self.guard_of(&packet.source) {
                Some(Guard::Deny) => Steered::Denied,
                _ => Steered::ToVirtual,
            }
        } else if self.is_any(&packet.source, REAL, packet.partial) {
            Steered::FromReal
        } else {
            Steered::NotOurs
        }
    }

    fn guard_of(&self, client: &EndpointKey) -> Option<Guard> {
        let address: AddressKey = client[..16].try_into().unwrap_or_default();
        let client = Ipv6Addr::from(address).to_canonical();
        decisive(&self.prefixes, client).map(|(_, guard)| guard)
    }

    fn concerns_us(&self, kind: [u8; 2], frame: &[u8], packet: &Read) -> bool {
        if self.roles(&packet.destination) & VIRTUAL != 0 {
            return true;
        }
        let quoted = Read::new(kind, frame, packet.transport + 8);
        quoted.is_some_and(|quoted| {
            self.is_any(&quoted.destination, REAL | TUNNEL, quoted.partial)
                || self.is_any(&quoted.source, REAL | VIRTUAL, quoted.partial)
        })
    }

    fn roles(&self, end: &EndpointKey) -> u32 {
        let address: AddressKey = end[..16].try_into().unwrap_or_default();
        self.addresses.get(&address).copied().unwrap_or(0)
    }

    fn is_any(&self, end: &EndpointKey, roles: u32, partial: bool) -> bool {
        let by_address = self.roles(end);
        if by_address & roles == 0 {
            return false;
        }
        if partial || (roles & REAL != 0 && by_address & REAL_WHOLE != 0) {
            return true;
        }
        let mut every_port = *end;
        every_port[16..18].fill(0);
        let at = |key: &EndpointKey| self.endpoints.get(key).copied().unwrap_or(0);
        (at(end) | at(&every_port)) & roles != 0
    }
}

/// An IP packet's ends; `struct packet` of steer.bpf.c.
struct Read {
    source: EndpointKey,
    destination: EndpointKey,
    protocol: u8,
    transport: usize,
    partial: bool,
}

impl Read {
    fn new(kind: [u8; 2], frame: &[u8], at: usize) -> Option<Self> {
        let mut read = match kind {
            [0x08, 0x00] => Self::v4(frame, at),
            [0x86, 0xdd] => Self::v6(frame, at),
            _ => None,
        }?;
        let protocol = read.protocol;
        (read.source[18], read.destination[18]) = (protocol, protocol);
        if !read.partial && matches!(protocol, 6 | 17 | 132) {
            let ports = frame.get(read.transport..)?.first_chunk::<4>()?;
            read.source[16..18].copy_from_slice(&ports[..2]);
            read.destination[16..18].copy_from_slice(&ports[2..]);
        }
        Some(read)
    }

    fn v4(frame: &[u8], at: usize) -> Option<Self> {
        let ip = frame.get(at..)?.first_chunk::<20>()?;
        if ip[0] >> 4 != 4 || ip[0] & 15 < 5 {
            return None;
        }
        let key = |from: usize| {
            let mut key = [0; 20];
            key[10..12].fill(0xff);
            key[12..16].copy_from_slice(&ip[from..from + 4]);
            key
        };
        Some(Self {
            source: key(12),
            destination: key(16),
            protocol: ip[9],
            transport: at + usize::from(ip[0] & 15) * 4,
            partial: (ip[6] & 0x3f, ip[7]) != (0, 0),
        })
    }

    fn v6(frame: &[u8], at: usize) -> Option<Self> {
        let ip = frame.get(at..)?.first_chunk::<40>()?;
        if ip[0] >> 4 != 6 {
            return None;
        }
        let key = |from: usize| {
            let mut key = [0; 20];
            key[..16].copy_from_slice(&ip[from..from + 16]);
            key
        };
        let (mut next, mut at, mut partial) = (ip[6], at + 40, true);
        for _ in 0..=EXTENSIONS_MAX {
            if !matches!(next, 0 | 43 | 51 | 60) {
                partial = next == 44;
                break;
            }
            let &[following, length] = frame.get(at..)?.first_chunk::<2>()?;
            at += match next {
                51 => (usize::from(length) + 2) * 4,
                _ => (usize::from(length) + 1) * 8,
            };
            next = following;
        }
        Some(Self {
            source: key(8),
            destination: key(24),
            protocol: next,
            transport: at,
            partial,
        })
    }

    fn is_icmp_error(&self, kind: [u8; 2], frame: &[u8]) -> bool {
        let Some(icmp) = frame.get(self.transport..self.transport + 8) else {
            return false;
        };
        match (self.partial, kind) {
            (true, _) => false,
            (_, [0x08, 0x00]) => self.protocol == 1 && matches!(icmp[0], 3 | 4 | 11),
            _ => self.protocol == 58 && icmp[0] < 128,
        }
    }
}
