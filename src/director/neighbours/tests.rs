//! Against a real kernel, in namespaces of its own.

use std::net::IpAddr;

use dataplane::address::bits;
use dataplane::hops::{PortId, Way};
use sched::service::Family;

use super::*;
use crate::director::testing::{Pair, eventually};

struct Followed {
    views: Receiver<View>,
    now: View,
}

impl Followed {
    fn way(&mut self, to: &str) -> Way {
        while let Ok(view) = self.views.try_recv() {
            self.now = view;
        }
        let to: IpAddr = to.parse().unwrap();
        self.now.hops.lookup(Family::of(to), bits(to))
    }

    fn becomes(&mut self, to: &str, what: &str, is: impl Fn(&Way) -> bool) -> Way {
        eventually(&format!("{to} {what}"), || is(&self.way(to)));
        self.way(to)
    }
}

fn device(pair: &Pair, name: &str) -> u32 {
    let line = pair.ip(&format!("-o link show {name}"));
    line.split(':').next().unwrap().trim().parse().unwrap()
}

fn mac(text: &str) -> Mac {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

fn ready(way: &Way) -> bool {
    matches!(way, Way::Ready(_))
}

/// The virtual address stands on the port itself, as on a live director.
fn set_up() -> Option<(Pair, Mirror, Followed)> {
    let pair = Pair::new()?;
    pair.ip("addr add 10.99.1.1/24 dev cl0");
    pair.ip("addr add 10.99.1.100/32 dev cl0");
    pair.ip("addr add fd99::1/64 dev cl0 nodad");
    pair.peer_ip("addr add 10.99.1.2/24 dev peer0");
    pair.peer_ip("addr add fd99::2/64 dev peer0 nodad");
    let port = device(&pair, "cl0");
    let (sender, views) = crossbeam_channel::unbounded();
    let (mirror, now) = pair
        .inside(|| Mirror::start(vec![(port, "cl0".into())], sender))
        .unwrap();
    Some((pair, mirror, Followed { views, now }))
}

#[test]
fn neighbours_are_found_follow_moves_and_go() {
    let Some((pair, mirror, mut followed)) = set_up() else {
        return;
    };
    assert_eq!(followed.way("10.99.1.100"), Way::Local);
    assert_eq!(followed.way("fd99::1"), Way::Local);
    for to in ["10.99.1.2", "fd99::2"] {
        let way = followed.way(to);
        let Way::Unresolved(key, _) = way else {
            panic!("{to}: {way:?}");
        };
        mirror.resolver().resolve(key);
        followed.becomes(to, "answers", ready);
    }
    // The server's card is replaced: the entry follows.
    pair.peer_ip("link set peer0 address 02:00:00:00:99:02");
    let key = followed
        .now
        .hops
        .neighbour(Family::V4, bits("10.99.1.2".parse().unwrap()));
    pair.ip("neigh replace 10.99.1.2 lladdr 02:00:00:00:99:02 dev cl0 nud reachable");
    followed.becomes(
        "10.99.1.2",
        "has moved",
        |way| matches!(way, Way::Ready(hop) if hop.destination == mac("02:00:00:00:99:02")),
    );
    pair.ip("neigh del 10.99.1.2 dev cl0");
    followed.becomes(
        "10.99.1.2",
        "is forgotten",
        |way| matches!(way, Way::Unresolved(k, _) if Some(*k) == key),
    );
    // A watched neighbour is asked for without a packet.
    mirror.resolver().watch(vec![key.unwrap()]);
    followed.becomes("10.99.1.2", "is watched", ready);
}

#[test]
fn routes_and_links_are_followed() {
    let Some((pair, _mirror, mut followed)) = set_up() else {
        return;
    };
    assert_eq!(followed.way("203.0.113.1"), Way::None);
    pair.ip("route add 203.0.113.0/24 via 10.99.1.2 mtu 1400");
    let way = followed.becomes("203.0.113.1", "has a gateway", |way| *way != Way::None);
    let Way::Unresolved(key, hop) = way else {
        panic!("{way:?}");
    };
    assert_eq!(key.address, "10.99.1.2".parse::<IpAddr>().unwrap());
    assert_eq!(hop.mtu, 1400);
    assert_eq!(hop.local, bits("10.99.1.1".parse().unwrap()));
    pair.ip("route replace 203.0.113.0/24 via inet6 fd99::2 dev cl0");
    followed.becomes(
        "203.0.113.1",
        "goes by IPv6",
        |way| matches!(way, Way::Unresolved(k, _) if k.address.is_ipv6()),
    );
    pair.ip("route add blackhole 203.0.113.128/25");
    followed.becomes("203.0.113.200", "is a black hole", |way| *way == Way::None);
    pair.ip("link add other type bridge");
    pair.ip("addr add 10.99.8.1/24 dev other");
    pair.ip("link set other up");
    followed.becomes("10.99.8.2", "is elsewhere", |way| *way == Way::NotAPort);
    // Linux does not tell of the routes that go with a link.
    pair.ip("link set cl0 down");
    followed.becomes("203.0.113.1", "goes with its link", |way| *way == Way::None);
}

#[test]
fn vlans_are_followed() {
    let Some((pair, _mirror, mut followed)) = set_up() else {
        return;
    };
    if !pair.kernel_has_vlans() {
        eprintln!("skipped: this kernel has no 802.1Q devices");
        return;
    }
    pair.ip("link add link cl0 name cl0.7 type vlan id 7");
    pair.ip("addr add 10.99.7.1/24 dev cl0.7");
    pair.ip("link set cl0.7 up");
    followed.becomes(
        "10.99.7.2",
        "is on a VLAN",
        |way| matches!(way, Way::Unresolved(_, hop) if hop.vlan == Some(7)),
    );
    let port = device(&pair, "cl0");
    assert_eq!(followed.now.vlans, [(port, 7)]);
}

#[test]
fn macvlans_are_followed() {
    let Some((pair, _mirror, mut followed)) = set_up() else {
        return;
    };
    let port = device(&pair, "cl0");
    assert_eq!(followed.now.stations, []);
    pair.ip("link add link cl0 name vrrp.51 address 00:00:5e:00:01:33 type macvlan mode private");
    pair.ip("addr add 10.99.5.1/24 dev vrrp.51");
    pair.ip("link set vrrp.51 up");
    let own = mac("00:00:5e:00:01:33");
    let way = followed.becomes("10.99.5.2", "is on a macvlan", |way| *way != Way::None);
    assert!(
        matches!(way, Way::Unresolved(key, hop)
            if key.device != port && hop.port == PortId(0) && hop.source == own),
        "{way:?}"
    );
    eventually("its address is the port's too", || {
        let _ = followed.way("10.99.5.2");
        followed.now.stations == [(port, own)]
    });
    // A guest's is not the host's.
    pair.ip("link add link cl0 name guest address 02:00:00:00:55:55 type macvtap mode bridge");
    pair.ip("link set guest up");
    pair.ip("link set vrrp.51 down");
    eventually("nor is one that is down", || {
        let _ = followed.way("10.99.5.2");
        followed.now.stations.is_empty()
    });
    pair.ip("link set vrrp.51 up");
    eventually("up again", || {
        let _ = followed.way("10.99.5.2");
        followed.now.stations == [(port, own)]
    });
    pair.ip("link del vrrp.51");
    eventually("and gone", || {
        let _ = followed.way("10.99.5.2");
        followed.now.stations.is_empty()
    });
}

#[test]
fn a_vlan_link_names_its_port_and_tag() {
    use netlink_packet_route::link::{
        InfoData, InfoVlan, LinkAttribute, LinkInfo, LinkMessage, VlanProtocol,
    };
    let rows = [
        ("802.1Q", VlanProtocol::Ieee8021Q, Some((3, 7))),
        ("802.1ad", VlanProtocol::Ieee8021Ad, None),
    ];
    for (description, protocol, expected) in rows {
        let parts = vec![InfoVlan::Id(7), InfoVlan::Protocol(protocol)];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::Link(3),
            LinkAttribute::LinkInfo(vec![LinkInfo::Data(InfoData::Vlan(parts))]),
        ];
        assert_eq!(parse::link(&message).vlan, expected, "{description}");
    }
}

#[test]
fn bursts_of_changes_are_gathered() {
    let Some((pair, _mirror, mut followed)) = set_up() else {
        return;
    };
    let lines: String = (0..2000)
        .map(|n| {
            format!(
                "neigh add 10.99.{}.{} lladdr 02:00:00:00:00:01 dev cl0\n",
                2 + n / 250,
                1 + n % 250
            )
        })
        .collect();
    let file = std::env::temp_dir().join(format!("lvxc-{}-neighbours", std::process::id()));
    std::fs::write(&file, lines).unwrap();
    pair.ip(&format!("-batch {}", file.display()));
    std::fs::remove_file(&file).unwrap();
    pair.ip("route add 10.99.0.0/16 dev cl0");
    let mut views = 0;
    eventually("the last of 2,000", || {
        views += followed.views.len();
        ready(&followed.way("10.99.9.250"))
    });
    assert!(views < 200, "{views} tables for 2,000 changes");
}

#[test]
fn a_neighbour_that_only_changes_state_builds_no_table() {
    use NeighbourState::*;
    let key = NeighbourKey {
        device: 1,
        address: "10.0.0.1".parse().unwrap(),
    };
    let rows = [
        ("first seen, not answered", Incomplete, 0, Dirty::Nothing),
        ("answered", Reachable, 1, Dirty::Neighbours),
        ("grows stale", Stale, 1, Dirty::Nothing),
        ("probed", Probe, 1, Dirty::Nothing),
        ("moved", Reachable, 2, Dirty::Neighbours),
        ("failed", Failed, 0, Dirty::Neighbours),
        ("asked again", Incomplete, 0, Dirty::Nothing),
    ];
    let mut neighbours = HashMap::new();
    for (description, state, last, dirty) in rows {
        let mac = [0, 0, 0, 0, 0, last];
        let new = Neighbour { key, state, mac };
        assert_eq!(enter(&mut neighbours, new), dirty, "{description}");
    }
}

/// A port is its device, whatever its name; when that has gone, the next of its name.
#[test]
fn a_port_finds_the_device_that_takes_its_place() {
    let Some((pair, _mirror, mut followed)) = set_up() else {
        return;
    };
    let first = followed.now.ports[0];
    assert_eq!((first.index.is_some(), first.times_gone), (true, 0));
    let port = |followed: &mut Followed| {
        let _ = followed.way("10.99.1.2");
        followed.now.ports[0]
    };
    pair.ip("link set cl0 down");
    pair.ip("link set cl0 name other");
    pair.ip("link set other up");
    followed.becomes("10.99.1.2", "is back", |way| {
        matches!(way, Way::Unresolved(..) | Way::Ready(_))
    });
    assert_eq!(port(&mut followed), first, "the same device");
    pair.ip("link set other down");
    pair.ip("link set other name cl0");
    pair.ip("link del cl0");
    eventually("it goes", || port(&mut followed).index.is_none());
    let again = format!(
        "link add cl0 index {} type veth peer name far0",
        first.index.unwrap()
    );
    pair.ip(&again);
    eventually("another comes", || port(&mut followed).index.is_some());
    // In one blow: no listing need have shown that it was away.
    pair.ip("link del cl0");
    pair.ip(&again);
    eventually("and another", || {
        let now = port(&mut followed);
        (now.index, now.times_gone) == (first.index, 2)
    });
}
