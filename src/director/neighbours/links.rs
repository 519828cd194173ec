//! What the host's links are to the director's ports: which stand on a port and bear further
//! link addresses of the host, by which others a port's frames come, and how a port fares.
//! Pure: `parse` fills it in, the mirror lists it again with each change of a link.

use dataplane::hops::Mac;

/// The kind of a link, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A network card, or what behaves as one (tap, dummy).
    #[default]
    Plain,
    /// One end of a cable between two namespaces.
    Veth,
    /// Gathers members to one link.
    Bond,
    /// The same, by teamd.
    Team,
    /// A switch.
    Bridge,
    /// One VLAN of the link below.
    Vlan,
    /// A further link address on the link below.
    Macvlan,
    /// A further link address too, but that of a guest behind a file, not the host's.
    Macvtap,
    /// Further IP addresses at the link address of the link below.
    Ipvlan,
    /// Routes apart from the others'. Its members keep their frames.
    Vrf,
    /// A kind that lvx does not know, with members (Open vSwitch).
    Switch,
}

impl Kind {
    /// What a link of this kind is called.
    pub fn word(self) -> &'static str {
        match self {
            Self::Plain => "device",
            Self::Veth => "veth",
            Self::Bond => "bond",
            Self::Team => "team",
            Self::Bridge => "bridge",
            Self::Vlan => "VLAN device",
            Self::Macvlan => "macvlan",
            Self::Macvtap => "macvtap",
            Self::Ipvlan => "ipvlan",
            Self::Vrf => "VRF",
            Self::Switch => "switch",
        }
    }

    /// Whether its members' frames are its own.
    fn takes_frames(self) -> bool {
        matches!(self, Self::Bond | Self::Team | Self::Bridge | Self::Switch)
    }

    /// Whether its frames come by the link below.
    fn stands_on_another(self) -> bool {
        matches!(
            self,
            Self::Vlan | Self::Macvlan | Self::Macvtap | Self::Ipvlan
        )
    }
}

/// A link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its interface index.
    pub device: u32,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Its link address.
    pub mac: Mac,
    /// Its limit on packets, bytes at layer 3.
    pub mtu: u32,
    /// It is up, as its operator wants it.
    pub is_up: bool,
    /// Its far end is there.
    pub has_carrier: bool,
    /// The link that it is a member of.
    pub master: Option<u32>,
    /// The link of this network namespace that it stands on.
    pub below: Option<u32>,
    /// The receive queues it was made with.
    pub queues: u32,
    /// An 802.1Q device's tag.
    pub tag: Option<u16>,
}

/// The link that a port is a member of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

/// How a port's device fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortFacts {
    /// Its kind.
    pub kind: Kind,
    /// It is up.
    pub is_up: bool,
    /// Its far end is there.
    pub has_carrier: bool,
    /// Its limit on packets, bytes at layer 3.
    pub mtu: u32,
    /// What takes its frames away.
    pub master: Option<Master>,
    /// The links by which its frames come, itself left out: members, the link below, theirs.
    pub feeders: Vec<u32>,
    /// The receive queues it was made with.
    pub queues: u32,
}

/// All links of a network namespace.
#[derive(Clone, Debug, Default)]
pub struct Links(pub Vec<Facts>);

impl Links {
    fn get(&self, device: u32) -> Option<&Facts> {
        self.0.iter().find(|link| link.device == device)
    }

    /// How the port on this device fares; none where there is no such device.
    pub fn port(&self, device: u32) -> Option<PortFacts> {
        let link = self.get(device)?;
        Some(PortFacts {
            kind: link.kind,
            is_up: link.is_up,
            has_carrier: link.has_carrier,
            mtu: link.mtu,
            master: self.master(link),
            feeders: self.feeders(device),
            queues: link.queues,
        })
    }

    fn master(&self, link: &Facts) -> Option<Master> {
        let master = self.get(link.master?)?;
        master.kind.takes_frames().then(|| Master {
            kind: master.kind,
            name: master.name.clone(),
        })
    }

    /// The links by which a link's frames come, nearest first.
    fn feeders(&self, device: u32) -> Vec<u32> {
        let mut found = vec![device];
        let mut next = 0;
        while let Some(&at) = found.get(next) {
            next += 1;
            for link in self.beneath(at) {
                if !found.contains(&link) {
                    found.push(link);
                }
            }
        }
        found.remove(0);
        found
    }

    fn beneath(&self, device: u32) -> impl Iterator<Item = u32> {
        let this = self.get(device);
        let takes = this.is_some_and(|link| link.kind.takes_frames());
        let members = self
            .0
            .iter()
            .filter(move |link| takes && link.master == Some(device));
        let below = this.and_then(|link| link.below);
        members.map(|link| link.device).chain(below)
    }

    /// VLANs whose frames the host takes by these ports: a port's interface index and the tag.
    pub fn vlans(&self, ports: &[u32]) -> Vec<(u32, u16)> {
        let of_port = |port: u32| {
            // Frames with two tags are none of the director's.
            let single = self.above(port).into_iter().filter(|(_, tags)| *tags == 1);
            single.filter_map(move |(link, _)| Some((port, link.tag?)))
        };
        let mut all: Vec<_> = ports.iter().copied().flat_map(of_port).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Link addresses of the host that frames may bear which come by these ports, beside the
    /// ports' own: those of members, and of macvlans and VLAN devices above. With the port's
    /// interface index.
    pub fn stations(&self, ports: &[u32]) -> Vec<(u32, Mac)> {
        let mut all: Vec<_> = ports
            .iter()
            .filter_map(|port| self.get(*port))
            .flat_map(|port| {
                let members = self.members(port);
                let above = self.above(port.device).into_iter();
                let others = above.map(|(link, _)| link).chain(members);
                let others = others.filter(|link| link.mac != port.mac && is_unicast(link.mac));
                others.map(|link| (port.device, link.mac))
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn members(&self, port: &Facts) -> impl Iterator<Item = &Facts> {
        let takes = port.kind.takes_frames();
        let device = port.device;
        self.0
            .iter()
            .filter(move |link| takes && link.master == Some(device))
    }

    /// The links above, that are up and whose frames come by this one as they are, with the
    /// tags that those bear: not what a guest behind it takes, nor what another namespace has.
    fn above(&self, device: u32) -> Vec<(&Facts, u32)> {
        let mut found: Vec<(&Facts, u32)> = Vec::new();
        let mut below = vec![(device, 0)];
        while let Some((at, tags)) = below.pop() {
            let stands_there = |link: &&Facts| {
                link.below == Some(at)
                    && link.is_up
                    && matches!(link.kind, Kind::Vlan | Kind::Macvlan)
            };
            for link in self.0.iter().filter(stands_there) {
                if !found.iter().any(|(known, _)| known.device == link.device) {
                    let tags = tags + u32::from(link.kind == Kind::Vlan);
                    found.push((link, tags));
                    below.push((link.device, tags));
                }
            }
        }
        found
    }
}

impl Facts {
    /// As listed: what it stands on is kept only where frames come by that.
    pub fn settled(mut self) -> Self {
        self.below = self.below.filter(|_| self.kind.stands_on_another());
        self
    }
}

/// Whether a link address is one host's, not a group's and not none.
fn is_unicast(mac: Mac) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(device: u32, kind: Kind) -> Facts {
        Facts {
            device,
            kind,
            name: format!("dev{device}"),
            mac: [2, 0, 0, 0, 0, device as u8],
            is_up: true,
            ..Facts::default()
        }
    }

    fn over(device: u32, kind: Kind, below: u32) -> Facts {
        Facts {
            below: Some(below),
            ..link(device, kind)
        }
    }

    fn member(device: u32, kind: Kind, master: u32) -> Facts {
        Facts {
            master: Some(master),
            ..link(device, kind)
        }
    }

    #[test]
    fn a_ports_further_addresses() {
        use Kind::{Bond, Bridge, Ipvlan, Macvlan, Macvtap, Plain, Vlan, Vrf};
        let down = |link: Facts| Facts {
            is_up: false,
            ..link
        };
        let same = |link: Facts| Facts {
            mac: [2, 0, 0, 0, 0, 1],
            ..link
        };
        let group = |link: Facts| Facts {
            mac: [1, 0, 0x5e, 0, 0, 1],
            ..link
        };
        let port = || link(1, Plain);
        // The port is device 1; of the others, those whose addresses are its.
        let rows: Vec<(&str, Vec<Facts>, &[u8])> = vec![
            ("alone", vec![port()], &[]),
            ("a macvlan on it", vec![port(), over(2, Macvlan, 1)], &[2]),
            (
                "one that is down",
                vec![port(), down(over(2, Macvlan, 1))],
                &[],
            ),
            (
                "one on another device",
                vec![port(), link(3, Plain), over(2, Macvlan, 3)],
                &[],
            ),
            ("a VLAN device's own", vec![port(), over(2, Vlan, 1)], &[2]),
            (
                "a VLAN device's with the same",
                vec![port(), same(over(2, Vlan, 1))],
                &[],
            ),
            (
                "a macvlan on a VLAN device",
                vec![over(3, Macvlan, 2), over(2, Vlan, 1), port()],
                &[2, 3],
            ),
            (
                "a VLAN device on a macvlan",
                vec![port(), over(3, Vlan, 2), over(2, Macvlan, 1)],
                &[2, 3],
            ),
            (
                "on a VLAN device that is down",
                vec![port(), down(over(2, Vlan, 1)), over(3, Macvlan, 2)],
                &[],
            ),
            ("a guest's", vec![port(), over(2, Macvtap, 1)], &[]),
            ("an ipvlan has none", vec![port(), over(2, Ipvlan, 1)], &[]),
            ("a group's", vec![port(), group(over(2, Macvlan, 1))], &[]),
            (
                "a bond's members",
                vec![link(1, Bond), member(2, Plain, 1), member(3, Plain, 1)],
                &[2, 3],
            ),
            (
                "a bridge's members and a macvlan on it",
                vec![link(1, Bridge), member(2, Plain, 1), over(4, Macvlan, 1)],
                &[2, 4],
            ),
            (
                "a VRF's members",
                vec![link(1, Vrf), member(2, Plain, 1)],
                &[],
            ),
            (
                "links that stand on each other",
                vec![port(), over(2, Macvlan, 3), over(3, Macvlan, 2)],
                &[],
            ),
        ];
        for (what, links, expected) in rows {
            let found = Links(links).stations(&[1, 77]);
            let last: Vec<u8> = found.iter().map(|(_, mac)| mac[5]).collect();
            assert_eq!(last, expected, "{what}");
            assert!(found.iter().all(|(port, _)| *port == 1), "{what}");
        }
    }

    #[test]
    fn the_vlans_of_a_port() {
        use Kind::{Bridge, Macvlan, Plain, Vlan};
        let tagged = |device, below, tag| Facts {
            tag: Some(tag),
            ..over(device, Vlan, below)
        };
        let rows: Vec<(&str, Vec<Facts>, &[u16])> = vec![
            ("none", vec![link(1, Plain)], &[]),
            (
                "two",
                vec![link(1, Plain), tagged(2, 1, 9), tagged(3, 1, 7)],
                &[7, 9],
            ),
            (
                "on a macvlan",
                vec![link(1, Plain), over(2, Macvlan, 1), tagged(3, 2, 7)],
                &[7],
            ),
            (
                "under a macvlan",
                vec![link(1, Plain), tagged(2, 1, 7), over(3, Macvlan, 2)],
                &[7],
            ),
            (
                "two tags",
                vec![link(1, Plain), tagged(2, 1, 7), tagged(3, 2, 8)],
                &[7],
            ),
            (
                "a port that is one",
                vec![tagged(1, 5, 7), link(5, Plain), tagged(3, 1, 8)],
                &[8],
            ),
            (
                "on a bridge of one",
                vec![
                    link(1, Bridge),
                    Facts {
                        master: Some(1),
                        ..tagged(2, 5, 7)
                    },
                    link(5, Plain),
                    tagged(3, 1, 8),
                ],
                &[8],
            ),
            ("802.1ad", vec![link(1, Plain), over(2, Vlan, 1)], &[]),
        ];
        for (what, links, expected) in rows {
            let found = Links(links).vlans(&[1]);
            let tags: Vec<u16> = found.iter().map(|(_, tag)| *tag).collect();
            assert_eq!(tags, expected, "{what}");
        }
    }

    #[test]
    fn the_links_that_feed_a_port() {
        use Kind::{Bond, Bridge, Macvlan, Plain, Vlan};
        let links = Links(vec![
            link(1, Plain),
            member(2, Plain, 3),
            member(3, Bond, 5),
            member(4, Plain, 3),
            link(5, Bridge),
            over(6, Vlan, 5),
            over(7, Macvlan, 6),
            Facts {
                below: Some(9),
                ..link(8, Plain)
            }
            .settled(),
        ]);
        let rows: [(&str, u32, &[u32]); 6] = [
            ("a card", 1, &[]),
            ("a bond", 3, &[2, 4]),
            ("a bridge with a bond", 5, &[3, 2, 4]),
            ("a VLAN device on it", 6, &[5, 3, 2, 4]),
            ("a macvlan on that", 7, &[6, 5, 3, 2, 4]),
            ("a veth, whose other end is no feeder", 8, &[]),
        ];
        for (what, device, expected) in rows {
            let port = links.port(device).expect("it is there");
            assert_eq!(port.feeders, expected, "{what}");
        }
        assert_eq!(links.port(77), None);
    }

    #[test]
    fn masters_that_take_frames_are_named() {
        let rows = [
            (Kind::Bridge, true),
            (Kind::Bond, true),
            (Kind::Team, true),
            (Kind::Switch, true),
            (Kind::Vrf, false),
        ];
        for (kind, takes) in rows {
            let links = Links(vec![member(1, Kind::Plain, 2), link(2, kind)]);
            let master = links.port(1).expect("it is there").master;
            let named = Master {
                kind,
                name: "dev2".to_owned(),
            };
            assert_eq!(master, takes.then_some(named), "{kind:?}");
        }
    }
}
