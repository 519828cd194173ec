//! Asks the servers for their link addresses, twice a second, as long as they are watched.
//!
//! The host asks only for what it does not know or has not heard of for long: a server
//! whose link address changed in silence would get nothing for half a minute. So each is
//! asked at the address it had, and by broadcast once it does not answer there. Its answer
//! is for the host: that follows it as it follows any (RFC 826), and the mirror the host.
//!
//! A broadcast goes also to those not known yet, more often than the host's own each
//! second: the first is lost where a link has just come up.

mod packets;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use dataplane::address::{Bits, address};
use dataplane::hops::{Mac, NeighbourKey};
use dataplane::port::link_socket::LinkSocket;
use packets::{ADVERTISEMENT, ICMPV6, TYPE_AT};
use sched::service::Family;

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
const ETHERTYPE_IPV6: u16 = 0x86dd;
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
    /// This host's own address there, of the same family.
    pub own: Bits,
}

/// Asks, and listens.
#[derive(Debug)]
pub struct Prober {
    arp: LinkSocket,
    ipv6: LinkSocket,
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
            arp: LinkSocket::open(ETHERTYPE_ARP, &[])?,
            ipv6: LinkSocket::open(
                ETHERTYPE_IPV6,
                &[(6, ICMPV6), (TYPE_AT as u32, ADVERTISEMENT)],
            )?,
            known: HashMap::new(),
            place: 0,
        })
    }

    /// Takes in who has been heard.
    pub fn listen(&mut self) {
        let mut packet = [0; 128];
        let mut hear = |device, address: Option<IpAddr>| {
            let key = address.map(|address| NeighbourKey { device, address });
            if let Some(known) = key.and_then(|key| self.known.get_mut(&key)) {
                known.unanswered = 0;
            }
        };
        while let Some((device, length)) = self.arp.receive(&mut packet) {
            hear(device, packets::arp_sender(&packet[..length]));
        }
        while let Some((device, length)) = self.ipv6.receive(&mut packet) {
            hear(device, packets::advertised(&packet[..length]));
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
            broadcast += usize::from(to == Some(Whom::All));
        }
    }

    /// Where it was asked.
    fn look_at(&mut self, asked: &Asked, now: Instant) -> Option<Whom> {
        let known = self.known.entry(asked.key).or_insert(Known {
            asked: now - PERIOD,
            unanswered: 0,
        });
        let to = question(asked.mac, known.unanswered, now - known.asked)?;
        known.asked = now;
        known.unanswered += 1;
        // A device that is down now is asked by again when it is up.
        let _ = self.send(asked, to);
        Some(to)
    }
}

impl Prober {
    fn send(&self, asked: &Asked, to: Whom) -> io::Result<()> {
        let (key, own_mac) = (asked.key, asked.own_mac);
        match (key.address, address(Family::of(key.address), asked.own)) {
            (IpAddr::V4(address), IpAddr::V4(own)) => {
                let packet = packets::arp_request(address, own, own_mac);
                self.arp.send(key.device, to.mac(BROADCAST), &packet)
            }
            (IpAddr::V6(address), IpAddr::V6(own)) if own != Ipv6Addr::UNSPECIFIED => {
                let (group, group_mac) = packets::solicited_node(address);
                let towards = match to {
                    Whom::One(_) => address,
                    Whom::All => group,
                };
                let packet = packets::solicitation(address, towards, own, own_mac);
                self.ipv6.send(key.device, to.mac(group_mac), &packet)
            }
            // Without an address of its own there the host could not be answered.
            _ => Ok(()),
        }
    }

    /// Readable when somebody was heard.
    pub fn sockets(&self) -> [BorrowedFd<'_>; 2] {
        [self.arp.as_fd(), self.ipv6.as_fd()]
    }
}

/// To whom a question goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    /// The one at this link address.
    One(Mac),
    /// All who may have the address.
    All,
}

impl Whom {
    fn mac(self, all: Mac) -> Mac {
        match self {
            Self::One(mac) => mac,
            Self::All => all,
        }
    }
}

/// Whom to ask now, of one at this link address, that has left so many questions without an
/// answer, the last of them so long ago.
fn question(mac: Option<Mac>, unanswered: u32, since: Duration) -> Option<Whom> {
    let (to, wait) = match (mac, unanswered) {
        (Some(mac), 0) => (Whom::One(mac), PERIOD),
        (_, 0..OFTEN_TIMES) => (Whom::All, LOOK),
        _ => (Whom::All, PERIOD),
    };
    (since >= wait).then_some(to)
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
            ("its turn", Some(mac), 0, ms(500), Some(Whom::One(mac))),
            ("a moment to answer", Some(mac), 1, ms(124), None),
            ("no answer", Some(mac), 1, ms(125), Some(Whom::All)),
            ("not known", None, 1, ms(125), Some(Whom::All)),
            ("not heard for long", Some(mac), 8, ms(499), None),
            ("less often", None, 8, ms(500), Some(Whom::All)),
        ];
        for (what, mac, unanswered, since, to) in rows {
            assert_eq!(question(mac, unanswered, since), to, "{what}");
        }
    }
}
