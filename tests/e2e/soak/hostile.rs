//! What nobody wants: floods of handshakes, damaged frames, and packets for services that come and go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{Scope, ScopedJoinHandle};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

use super::Scene;
use super::operate::OTHERS;
use super::traffic::{DATAGRAMS, DOWNLOADS, FLOODED, FRAGMENTED, REQUESTS};
use crate::lab::{Family, Lab, enter};
use crate::raw::{ACK, Random, SYN, flood, ip, tcp, udp};

/// Where floods and damaged frames come from: none of the soak's clients is there.
const FLOODERS: (Ipv4Addr, u32) = (Ipv4Addr::new(11, 0, 0, 0), 8);
const STRANGERS: u32 = 0xc612_0000; // 198.18.0.0/15
const FLOOD_PER_S: (u64, u64) = (3_000, 10_000);

/// Routes for answers to strangers, which end at the clients' gateway.
pub fn prepare(lab: &Lab) {
    lab.shell(
        "client",
        "ip route add blackhole 11.0.0.0/8; ip route add blackhole 198.18.0.0/15; ip -6 route add blackhole 2001:2::/48",
    );
    lab.shell(
        "director",
        "ip route add 11.0.0.0/8 via 10.1.0.254; ip route add 198.18.0.0/15 via 10.1.0.254; \
         ip -6 route add 2001:2::/48 via fd01::254",
    );
    for server in crate::lab::SERVERS {
        // Who floods is not asked again and again.
        lab.shell(server, "sysctl -qw net.ipv4.tcp_synack_retries=1");
    }
}

/// The link addresses of the director's ports, clients' side and servers' side.
pub struct Targets([[u8; 6]; 2]);

impl Targets {
    pub fn of(lab: &Lab) -> Targets {
        Targets(["cl0", "rs0"].map(|port| {
            let line = format!("cat /sys/class/net/{port}/address");
            let text = lab.shell("director", &line);
            let mut bytes = text.trim().split(':');
            std::array::from_fn(|_| {
                let byte = bytes.next().expect("six bytes");
                u8::from_str_radix(byte, 16).expect("hexadecimal digits")
            })
        }))
    }
}

pub fn begin<'s>(
    scope: &'s Scope<'s, '_>,
    scene: &'s Scene,
    targets: &'s Targets,
) -> Vec<ScopedJoinHandle<'s, ()>> {
    let [clients, servers] = targets.0;
    vec![
        scope.spawn(|| enter(&scene.servers[0], || not_accepting(scene))),
        scope.spawn(|| enter(&scene.servers[1], || not_accepting(scene))),
        scope.spawn(|| enter(&scene.servers[2], || not_accepting(scene))),
        scope.spawn(|| enter(&scene.client, || floods(scene))),
        scope.spawn(move || {
            enter(&scene.client, || {
                damaged(scene, "c0", clients, scene.random(4), from_client)
            })
        }),
        scope.spawn(move || {
            enter(&scene.servers[0], || {
                damaged(scene, "eth0", servers, scene.random(5), from_server)
            })
        }),
    ]
}

/// A server that answers handshakes, by cookies, and takes no connection.
fn not_accepting(scene: &Scene) {
    let _listener = std::net::TcpListener::bind(("::", FLOODED)).expect("the port is free");
    scene.rest(scene.plan.load * 2);
}

fn floods(scene: &Scene) {
    let mut random = scene.random(3);
    let SocketAddr::V4(to) = service(FLOODED) else {
        panic!("an IPv4 service");
    };
    loop {
        scene.rest(scene.plan.pause(&mut random, 3_000, 30_000));
        let lasts = scene.plan.pause(&mut random, 2_000, 12_000);
        let end = scene.begin.elapsed() + lasts;
        let per_s = FLOOD_PER_S.0 + random.below(FLOOD_PER_S.1 - FLOOD_PER_S.0);
        while !scene.is_over() && scene.begin.elapsed() < end {
            // A quarter of a second at a time.
            let count = (per_s / 4) as u32;
            flood(FLOODERS, to, count, per_s as u32, &mut random);
            scene.tally.flooded.fetch_add(count.into(), Relaxed);
        }
        if scene.is_over() {
            return;
        }
    }
}

fn service(port: u16) -> SocketAddr {
    Family::V4.service(port).parse().expect("an address")
}

/// Some hundred odd frames a second.
fn damaged(
    scene: &Scene,
    device: &str,
    to: [u8; 6],
    mut random: Random,
    packet: fn(&mut Random) -> Vec<u8>,
) {
    let link = Link::new(device);
    while !scene.is_over() {
        for _ in 0..10 {
            let packet = packet(&mut random);
            let frame = damage(&mut random, packet, to, link.own);
            link.send(&frame);
            scene.tally.malformed.fetch_add(1, Relaxed);
        }
        scene.rest(random.time_ms(5, 60));
    }
}

/// Anything that a stranger may send to a service: all kinds, whole for now.
fn from_client(random: &mut Random) -> Vec<u8> {
    let others = OTHERS.start + random.below(OTHERS.len() as u64) as u16;
    let ports = [REQUESTS, DOWNLOADS, DATAGRAMS, FRAGMENTED, others, others];
    let port = *random.of(&ports);
    let from = stranger(random);
    let to = match from {
        SocketAddr::V4(_) => service(port),
        SocketAddr::V6(_) => Family::V6.service(port).parse().expect("an address"),
    };
    kinds(random, from, to)
}

/// Replies of a masquerading server to nobody's connections.
fn from_server(random: &mut Random) -> Vec<u8> {
    let to = stranger(random);
    let port = *random.of(&[REQUESTS, DOWNLOADS, DATAGRAMS, FRAGMENTED]);
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let from = family.server(1, port).parse().expect("an address");
    kinds(random, from, to)
}

fn stranger(random: &mut Random) -> SocketAddr {
    let port = 1024 + random.below(60_000) as u16;
    let address: IpAddr = match random.one_in(3) {
        true => Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, random.below(65_536) as u16).into(),
        false => Ipv4Addr::from_bits(STRANGERS | random.below(1 << 17) as u32).into(),
    };
    (address, port).into()
}

fn kinds(random: &mut Random, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let noise = |random: &mut Random, longest: u64| {
        let length = random.below(longest);
        (0..length)
            .map(|_| random.number() as u8)
            .collect::<Vec<u8>>()
    };
    match random.below(8) {
        0 => tcp(from, to, SYN),
        1 => tcp(from, to, ACK),
        2 => tcp(from, to, random.number() as u8),
        3 => {
            let data = noise(random, 1200);
            udp(from, to, &data)
        }
        // An error about a packet that never was.
        4 => {
            let quoted = tcp(to, from, ACK);
            let (protocol, kind) = if from.is_ipv4() { (1, 3) } else { (58, 1) };
            let code = random.below(6) as u8;
            let head = [kind, code, 0, 0, 0, 0, 5, 0];
            ip(from.ip(), to.ip(), protocol, &[&head, &quoted[..]].concat())
        }
        // A fragment whose fellows never come.
        5 => {
            let data = noise(random, 800);
            let mut packet = udp(from, to, &data);
            if from.is_ipv4() {
                packet[6..8].copy_from_slice(&(0x2000 | random.below(100) as u16).to_be_bytes());
            } else {
                packet[6] = 44;
            }
            packet
        }
        6 => {
            let data = noise(random, 100);
            ip(from.ip(), to.ip(), random.number() as u8, &data)
        }
        _ => noise(random, 1500),
    }
}

/// The frame of a packet, half of the time with wrong bytes, cut short or with bytes behind.
fn damage(random: &mut Random, mut packet: Vec<u8>, to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    if random.one_in(2) && !packet.is_empty() {
        for _ in 0..=random.below(4) {
            let place = random.below(packet.len().min(80) as u64) as usize;
            packet[place] = random.number() as u8;
        }
    }
    match random.below(6) {
        0 => packet.truncate(random.below(packet.len() as u64 + 1) as usize),
        1 => packet.extend(vec![0xa5; random.below(100) as usize]),
        _ => {}
    }
    let is_v6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
    let ether_type: [u8; 2] = match random.below(20) {
        0 => (random.number() as u16).to_be_bytes(),
        1 => [0x81, 0],
        _ if is_v6 => [0x86, 0xdd],
        _ => [8, 0],
    };
    let mut frame = [to, from].concat();
    frame.extend(ether_type);
    frame.extend(packet);
    frame.truncate(1514);
    frame
}

/// A device to put whole frames on.
struct Link {
    socket: OwnedFd,
    address: LinkAddr,
    own: [u8; 6],
}

impl Link {
    fn new(device: &str) -> Link {
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        );
        let address = getifaddrs()
            .expect("Linux tells them")
            .filter(|entry| entry.interface_name == device)
            .find_map(|entry| entry.address?.as_link_addr().copied())
            .unwrap_or_else(|| panic!("no device {device}"));
        Link {
            socket: socket.expect("root may"),
            address,
            own: address.addr().expect("Ethernet"),
        }
    }

    fn send(&self, frame: &[u8]) {
        // A frame too short or a full queue is no matter.
        let fd = self.socket.as_raw_fd();
        let _ = sendto(fd, frame, &self.address, MsgFlags::empty());
    }
}
