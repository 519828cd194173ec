//! Asks the servers for their link addresses, twice a second, as long as they are watched.
//!
//! The host asks only for what it does not know or has not heard of for long: a server
//! whose link address changed in silence would get nothing for half a minute. So each is
//! asked at the address it had, and by broadcast once it does not answer there. Its answer
//! is for the host: that follows it as it follows any (RFC 826), and the mirror the host.
//!
//! A broadcast goes also to those not known yet, more often than the host's own each
//! second: the first is lost where a link has just come up.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use dataplane::hops::{Mac, NeighbourKey};
use dataplane::port::link_socket::LinkSocket;

/// How often a server is asked.
pub const PERIOD: Duration = Duration::from_millis(500);
/// How often it is looked who has not answered.
pub const LOOK: Duration = Duration::from_millis(125);
/// One that has not answered is asked for by broadcast at each look so often, and then no
/// more often than others: it will hardly answer soon.
const OFTEN_TIMES: u32 = 8;
/// How many are asked in one look. Of more servers each is asked less often.
const ASK_MAX: usize = 128;
/// How many of those by broadcast, which all hosts on the link must look at.
const BROADCASTS_MAX: usize = 16;

const ETHERTYPE_ARP: u16 = 0x0806;
const BROADCAST: Mac = [0xff; 6];

/// What is known of a neighbour that is to be asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// It.
    pub key: NeighbourKey,
    /// Its link address, where one is known.
    pub mac: Option<Mac>,
    /// This host's own link address on that device.
    pub own_mac: Mac,
    /// This host's own address there.
    pub own: Ipv4Addr,
}

/// Asks, and listens.
#[derive(Debug)]
pub struct Prober {
    socket: LinkSocket,
    known: HashMap<NeighbourKey, Known>,
    /// Where the last look ended, when there were too many to ask.
    place: usize,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    asked: Instant,
    /// Questions since it was last heard.
    unanswered: u32,
}

impl Prober {
    /// Needs CAP_NET_RAW, and only to begin.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            socket: LinkSocket::open(ETHERTYPE_ARP)?,
            known: HashMap::new(),
            place: 0,
        })
    }

    /// Takes in who has been heard.
    pub fn listen(&mut self) {
        let mut packet = [0; ARP_BYTES];
        while let Some((device, length)) = self.socket.receive(&mut packet) {
            let Some(address) = sender(&packet[..length]) else {
                continue;
            };
            let address = IpAddr::V4(address);
            if let Some(known) = self.known.get_mut(&NeighbourKey { device, address }) {
                known.unanswered = 0;
            }
        }
    }

    /// Asks those of `all` whose time it is.
    pub fn look(&mut self, all: &[Asked], now: Instant) {
        if self.known.len() > 2 * all.len() + ASK_MAX {
            self.known.clear();
        }
        let (mut asked, mut broadcast) = (0, 0);
        for step in 0..all.len() {
            let place = (self.place + step) % all.len();
            if asked == ASK_MAX || broadcast == BROADCASTS_MAX {
                self.place = place;
                return;
            }
            let to = self.look_at(&all[place], now);
            asked += usize::from(to.is_some());
            broadcast += usize::from(to == Some(BROADCAST));
        }
    }

    /// Where it was asked.
    fn look_at(&mut self, asked: &Asked, now: Instant) -> Option<Mac> {
        let known = self.known.entry(asked.key).or_insert(Known {
            asked: now - PERIOD,
            unanswered: 0,
        });
        let to = question(asked.mac, known.unanswered, now - known.asked)?;
        known.asked = now;
        known.unanswered += 1;
        let packet = request(asked);
        // A device that is down now is asked by again when it is up.
        let _ = self.socket.send(asked.key.device, to, &packet);
        Some(to)
    }
}

impl AsFd for Prober {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whom to ask now, of one at this link address, that has left so many questions without an
/// answer, the last of them so long ago.
fn question(mac: Option<Mac>, unanswered: u32, since: Duration) -> Option<Mac> {
    let (to, wait) = match (mac, unanswered) {
        (Some(mac), 0) => (mac, PERIOD),
        (_, 0..OFTEN_TIMES) => (BROADCAST, LOOK),
        _ => (BROADCAST, PERIOD),
    };
    (since >= wait).then_some(to)
}

/// Ethernet and IPv4 (RFC 826).
const ARP_BYTES: usize = 28;
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];

fn request(asked: &Asked) -> [u8; ARP_BYTES] {
    let IpAddr::V4(address) = asked.key.address else {
        unreachable!("IPv6 has no ARP, and is not asked here");
    };
    let mut packet = [0; ARP_BYTES];
    packet[..6].copy_from_slice(&ARP_HEAD);
    packet[7] = 1; // A request.
    packet[8..14].copy_from_slice(&asked.own_mac);
    packet[14..18].copy_from_slice(&asked.own.octets());
    packet[24..28].copy_from_slice(&address.octets());
    packet
}

/// Whom a packet is from.
fn sender(packet: &[u8]) -> Option<Ipv4Addr> {
    let is_arp = packet.len() == ARP_BYTES && packet.starts_with(&ARP_HEAD);
    let bytes: [u8; 4] = packet.get(14..18)?.try_into().ok()?;
    is_arp.then(|| bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_asked_for_loudly() {
        let mac = [2; 6];
        let ms = Duration::from_millis;
        let rows = [
            ("just asked", Some(mac), 0, ms(499), None),
            ("its turn", Some(mac), 0, ms(500), Some(mac)),
            ("a moment to answer", Some(mac), 1, ms(124), None),
            ("no answer", Some(mac), 1, ms(125), Some(BROADCAST)),
            ("not known", None, 1, ms(125), Some(BROADCAST)),
            ("not heard for long", Some(mac), 8, ms(499), None),
            ("less often", None, 8, ms(500), Some(BROADCAST)),
        ];
        for (what, mac, unanswered, since, to) in rows {
            assert_eq!(question(mac, unanswered, since), to, "{what}");
        }
    }

    #[test]
    fn a_request_is_as_rfc_826_has_it() {
        let asked = Asked {
            key: NeighbourKey {
                device: 1,
                address: "10.0.0.7".parse().unwrap(),
            },
            mac: None,
            own_mac: [2, 0, 0, 0, 0, 1],
            own: [10, 0, 0, 1].into(),
        };
        let packet = request(&asked);
        let expected = [
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 7,
        ];
        assert_eq!(packet, expected);
        assert_eq!(sender(&packet), Some([10, 0, 0, 1].into()));
        assert_eq!(sender(&packet[..27]), None);
        assert_eq!(sender(&[0; 28]), None);
    }
}
