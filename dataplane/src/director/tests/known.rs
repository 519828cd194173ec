//! The short way against the general one: two directors that meet the same frames, one in
//! bursts and by the short way where it can, one frame by frame by the general way. Verdicts,
//! bytes, counters, entries and loads must be the same throughout. The one also has each
//! snapshot made of the one before, the other each from nothing.

use super::*;
use crate::director::known::Glance;
use crate::port::{CHUNK_BYTES, HEADROOM_BYTES};

/// What happens between bursts.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Nothing,
    Pass(u8),
    Remove,
    Add,
    Weigh(u32),
    Method(u8),
    PathMtuDiscovery(bool),
    PathMtu(u16),
    Neighbours(bool),
    Links { vlan: bool, mtu: u16 },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => Just(Change::Nothing),
        3 => (0u8..100).prop_map(Change::Pass),
        1 => Just(Change::Remove),
        1 => Just(Change::Add),
        1 => (0u32..2).prop_map(Change::Weigh),
        1 => (0u8..5).prop_map(Change::Method),
        1 => any::<bool>().prop_map(Change::PathMtuDiscovery),
        1 => (500u16..1500).prop_map(Change::PathMtu),
        1 => any::<bool>().prop_map(Change::Neighbours),
        1 => (any::<bool>(), 600u16..1600).prop_map(|(vlan, mtu)| Change::Links { vlan, mtu }),
    ]
}

pub(super) fn method(number: u8) -> Forwarding {
    match number % 5 {
        0 | 1 => Forwarding::Masquerade,
        2 => Forwarding::Route,
        3 => Forwarding::Tunnel(Tunnel::Ipip),
        _ => Forwarding::Tunnel(Tunnel::Gue {
            port: 6080,
            checksum: Default::default(),
        }),
    }
}

/// Takes choices off a number.
struct Dice(u64);

impl Dice {
    fn of<'t, T: ?Sized>(&mut self, choices: &[&'t T]) -> &'t T {
        let choice = choices[(self.0 % choices.len() as u64) as usize];
        self.0 = (self.0 / choices.len() as u64) ^ self.0.rotate_left(29);
        choice
    }
}

/// A frame of a connection, or near to one. Most are as honest as can be.
fn text(dice: &mut Dice, protocol: Protocol) -> String {
    let v6 = dice.of(&["", "", "6"]) == "6";
    let (client, virtual_, real) = match v6 {
        true => ("fd09::", "fd01::1", "fd02::1"),
        false => ("10.9.0.", "10.1.0.1", "10.2.0.1"),
    };
    let client = format!("{client}{}", dice.of(&["1", "2"]));
    let port = dice.of(&["1001", "1002", "1003"]);
    let (name, virtual_port) = match protocol {
        Protocol::Udp => ("udp", "53"),
        Protocol::Tcp => ("tcp", "80"),
        Protocol::Sctp => ("sctp", "80"),
    };
    let reply = dice.of(&["", "", "r"]) == "r";
    let (from, to, ports) = if reply {
        let real = format!("{real}{}", dice.of(&["1", "2"]));
        let own = dice.of(&["8080", "8080", virtual_port]);
        (real, client, format!("{own} > {port}"))
    } else {
        (
            client,
            virtual_.to_owned(),
            format!("{port} > {virtual_port}"),
        )
    };
    let usual = "";
    let link = dice.of(&[
        usual,
        usual,
        usual,
        usual,
        "eth vlan=7 / ",
        "eth vlan=40960 / ",
    ]);
    let hops = dice.of(&[
        usual,
        usual,
        usual,
        usual,
        "ttl=2",
        "ttl=1",
        "ttl=255 tos=3",
    ]);
    let odd = match v6 {
        true => dice.of(&[
            usual,
            usual,
            usual,
            usual,
            usual,
            usual,
            "/ hop",
            "/ frag id=3",
        ]),
        false => dice.of(&[
            "df",
            "df",
            usual,
            usual,
            "tos=7",
            usual,
            "opts=94040000",
            "mf",
            "df off=8",
        ]),
    };
    let flags = match protocol {
        Protocol::Tcp => dice.of(&["S", "SA", "A", "A", "A", "A", "FA", "R", "PA", "F"]),
        _ => "",
    };
    let sum = dice.of(&[
        usual,
        usual,
        usual,
        usual,
        "sum=bad",
        "sum=partial",
        "sum=none",
    ]);
    let sum = if protocol != Protocol::Udp && sum == "sum=none" {
        usual
    } else {
        sum
    };
    let data = dice.of(&["0", "1", "6", "6", "100", "560", "1420", "1452", "1460"]);
    format!("{link}{from} > {to} {hops} {odd} / {name} {ports} {flags} {sum} / data {data}")
}

/// The frame's bytes; of some, padded, cut or damaged.
pub(super) fn bytes(number: u64, protocol: Protocol) -> Vec<u8> {
    let mut dice = Dice(number);
    let mut bytes = frame(&text(&mut dice, protocol));
    match *dice.of(&[&0, &0, &0, &0, &0, &1, &2, &3]) {
        1 => bytes.extend([0xaa; 6]),
        2 => bytes.truncate((number >> 32) as usize % bytes.len()),
        3 => {
            let at = (number >> 32) as usize % bytes.len().min(60);
            bytes[at] ^= (number >> 56) as u8;
        }
        _ => {}
    }
    bytes
}

/// All that a director leaves behind.
pub(super) fn traces(world: &World) -> String {
    let director = &world.director;
    // Its `Debug` would tell where the counters lie, not what they are.
    let counters = &director.counters;
    let services = world.services.services();
    let servers = world.services.servers();
    format!(
        "{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}",
        (
            Reason::ALL
                .iter()
                .map(|reason| counters.drops(*reason))
                .collect::<Vec<_>>(),
            Event::ALL
                .iter()
                .map(|event| counters.events(*event))
                .collect::<Vec<_>>(),
        ),
        services
            .map(|service| counters.service(service.id))
            .collect::<Vec<_>>(),
        servers
            .map(|(server, _)| counters.server(server.id))
            .collect::<Vec<_>>(),
        world.rows(),
        (
            director.identification,
            director.packets_until_drop,
            director.table.len()
        ),
        world.services.servers().collect::<Vec<_>>(),
    )
}

pub(super) fn apply(world: &mut World, protocol: Protocol, change: &Change) {
    let port = if protocol == Protocol::Udp { 53 } else { 80 };
    let keys = [("10.1.0.1", "10.2.0.11"), ("fd01::1", "fd02::11")];
    let real_ports = [8080, port];
    match change {
        Change::Nothing => {}
        Change::Pass(seconds) => world.pass((*seconds).into()),
        Change::PathMtuDiscovery(is_on) => {
            world.tunables.pmtu_disc = *is_on;
            world.publish();
        }
        Change::PathMtu(mtu) => {
            let hops = &world.snapshot.hops;
            hops.path_mtus().learn(0x0a02_000b, *mtu, 1500, world.now);
        }
        Change::Neighbours(known) => {
            let known = neighbours().into_iter().filter(|_| *known);
            publish(world, &routing(), known);
        }
        Change::Links { vlan, mtu } => {
            let mut routing = routing();
            for link in &mut routing.links {
                link.mtu = (*mtu).into();
            }
            if *vlan {
                // The server side's port is a tagged device above a port of another index.
                let mut port = routing.links[1].clone();
                (port.device, port.vlan) = (9, None);
                routing.links[1].vlan = Some((9, 7));
                routing.links.push(port);
                routing.ports = vec![CLIENT_SIDE, 9];
            }
            publish(world, &routing, neighbours());
        }
        Change::Remove | Change::Add | Change::Weigh(_) | Change::Method(_) => {
            for ((vip, rip), real_port) in keys.iter().zip(real_ports.iter().cycle()) {
                let (service, server) = (service(protocol, vip, port), server(rip, *real_port));
                let spec = match change {
                    Change::Weigh(weight) => weighing(Forwarding::Masquerade, *weight),
                    Change::Method(number) => weighing(method(*number), 1),
                    _ => weighing(Forwarding::Masquerade, 1),
                };
                let command = match change {
                    Change::Remove => Command::DeleteServer { service, server },
                    Change::Add => Command::AddServer {
                        service,
                        server,
                        spec,
                    },
                    _ => Command::EditServer {
                        service,
                        server,
                        spec,
                    },
                };
                // What is not there cannot be changed: the same in both worlds.
                let _ = world.services.apply(&command, 0);
            }
            world.publish();
        }
    }
}

fn publish(world: &mut World, routing: &Routing, known: impl IntoIterator<Item = Neighbour>) {
    world.publish_with(Hops::new(routing, known));
}

/// What became of a frame: the verdict, where the frame begins then, its bytes, and the pieces that it leaves in.
pub(super) type Met = (Verdict, usize, Vec<u8>, Vec<Vec<u8>>);

/// The pieces behind a verdict, as a worker pulls them: into frames of the size that workers have. They come to an end,
/// and each is a packet that the next host can read.
fn pieces(world: &mut World, verdict: Verdict) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    if !matches!(verdict, Verdict::Split(_) | Verdict::SplitHost) {
        return pieces;
    }
    let mut memory = vec![0; CHUNK_BYTES];
    loop {
        let mut piece = Frame::new(&mut memory, HEADROOM_BYTES, HEADROOM_BYTES).unwrap();
        if !world.director.next_piece(&mut piece) {
            return pieces;
        }
        pieces.push(piece.bytes().to_vec());
        let read = Packet::parse(&mut piece).map(|_| ());
        assert_eq!(read, Ok(()), "{verdict:?}: {:02x?}", pieces.last());
        assert!(pieces.len() <= 65_535 / 8 + 1, "{verdict:?} has no end");
    }
}

/// Frame by frame, the general way.
pub(super) fn one_by_one(world: &mut World, frames: &[Vec<u8>]) -> Vec<Met> {
    let meet = |bytes: &Vec<u8>| {
        let (mut memory, start, end) = roomy(bytes);
        let mut frame = Frame::new(&mut memory, start, end).unwrap();
        let verdict = world
            .director
            .handle(&world.snapshot, world.now, &mut frame);
        let (start, bytes) = (frame.start(), frame.bytes().to_vec());
        (verdict, start, bytes, pieces(world, verdict))
    };
    let met = frames.iter().map(meet).collect();
    world.director.tidy(&world.snapshot, world.now);
    met
}

/// In stages, as a worker does it; and how many went the short way.
pub(super) fn in_a_burst(world: &mut World, frames: &[Vec<u8>]) -> Vec<Met> {
    let mut memories: Vec<_> = frames.iter().map(|bytes| roomy(bytes)).collect();
    let mut glances = vec![Glance::default(); frames.len()];
    for ((memory, start, end), glance) in memories.iter_mut().zip(&mut glances) {
        let frame = Frame::new(memory, *start, *end).unwrap();
        world.director.glance(&world.snapshot, &frame, glance);
    }
    glances.iter_mut().for_each(|g| world.director.reach(g));
    let mut met = Vec::new();
    for ((memory, start, end), glance) in memories.iter_mut().zip(&glances) {
        let mut frame = Frame::new(memory, *start, *end).unwrap();
        let verdict = world
            .director
            .handle_glanced(&world.snapshot, world.now, &mut frame, glance);
        let (start, bytes) = (frame.start(), frame.bytes().to_vec());
        met.push((verdict, start, bytes, pieces(world, verdict)));
    }
    world.director.tidy(&world.snapshot, world.now);
    met
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn both_ways_do_the_same(
        protocol in prop_oneof![
            4 => Just(Protocol::Tcp), 3 => Just(Protocol::Udp), 1 => Just(Protocol::Sctp)
        ],
        forwarding in any::<u8>().prop_map(method),
        // Whether frames are as a wire brings them.
        wired: bool,
        bursts in prop::collection::vec(
            (change(), prop::collection::vec(any::<u64>(), 1..40)),
            1..8,
        ),
    ) {
        let mut general = World::serving(protocol, forwarding);
        general.afresh = true;
        let mut short = World::serving(protocol, forwarding);
        short.director.expect_partial(!wired);
        let may_come = |number: &u64| {
            !wired || !text(&mut Dice(*number), protocol).contains("sum=partial")
        };
        for (change, mut numbers) in bursts {
            numbers.retain(may_come);
            apply(&mut general, protocol, &change);
            apply(&mut short, protocol, &change);
            let frames: Vec<_> = numbers.iter().map(|n| bytes(*n, protocol)).collect();
            let wanted = one_by_one(&mut general, &frames);
            let got = in_a_burst(&mut short, &frames);
            for ((got, wanted), number) in got.iter().zip(&wanted).zip(&numbers) {
                let what = text(&mut Dice(*number), protocol);
                prop_assert_eq!(got.0, wanted.0, "{}", what);
                prop_assert_eq!(got.1, wanted.1, "{}", what);
                assert_frame(&what, &got.2, &wanted.2);
                prop_assert_eq!(&got.3, &wanted.3, "{}", what);
            }
            prop_assert_eq!(traces(&short), traces(&general));
        }
    }
}

/// What keeps the test above honest: these do go the short way.
#[test]
fn usual_packets_go_the_short_way() {
    for number in 0..4 {
        for (protocol, begin, on) in [
            (Protocol::Tcp, "tcp 1001 > 80 S", "tcp 1001 > 80 A"),
            (Protocol::Udp, "udp 1001 > 53", "udp 1001 > 53"),
        ] {
            let mut world = World::serving(protocol, method(number));
            for ends in ["10.9.0.1 > 10.1.0.1", "fd09::1 > fd01::1"] {
                world.meet(&frame(&format!("{ends} / {begin}")));
                let bytes = frame(&format!("{ends} / {on} / data 9"));
                let is_short = shortly(&mut world, &bytes).is_some();
                let is_tunnel = matches!(method(number), Forwarding::Tunnel(_));
                let is_wanted = !(is_tunnel && ends.contains(':'));
                assert_eq!(is_short, is_wanted, "{protocol:?} {number} {ends}");
            }
        }
    }
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    for (begin, reply) in [
        ("10.9.0.1 > 10.1.0.1", "10.2.0.12 > 10.9.0.1"),
        ("fd09::1 > fd01::1", "fd02::12 > fd09::1"),
    ] {
        world.meet(&frame(&format!("{begin} / tcp 1001 > 80 S")));
        let reply = frame(&format!("{reply} / tcp 8080 > 1001 SA"));
        assert!(shortly(&mut world, &reply).is_some(), "{begin}");
    }
}

/// Who shares its endpoints does not, until it is alone again.
#[test]
fn who_shares_its_replies_goes_the_long_way() {
    for (protocol, name) in [(Protocol::Tcp, "tcp"), (Protocol::Udp, "udp")] {
        let mut world = World::new();
        world.two_services(protocol, Forwarding::Masquerade);
        let packet = |ends: &str, ports: &str, flags: &str| {
            let flags = if protocol == Protocol::Tcp { flags } else { "" };
            frame(format!("{ends} / {name} {ports} {flags}").trim_end())
        };
        let first = |flags| packet("10.9.0.1 > 10.1.0.1", "1001 > 80", flags);
        let reply = packet("10.2.0.11 > 10.9.0.1", "8080 > 1001", "A");
        world.meet(&first("S"));
        assert!(shortly(&mut world, &first("A")).is_some());
        assert!(shortly(&mut world, &reply).is_some());
        world.meet(&packet("10.9.0.1 > 10.1.0.2", "1001 > 81", "S"));
        assert_eq!(shortly(&mut world, &first("A")), None);
        assert_eq!(shortly(&mut world, &reply), None);
        let second = world
            .rows()
            .into_iter()
            .find(|row| row.key.virtual_.port == 81);
        let second = world.table.find(&second.unwrap().key).unwrap();
        world.end(second);
        world.meet(&reply);
        assert!(shortly(&mut world, &first("A")).is_some());
        assert!(shortly(&mut world, &reply).is_some());
    }
}

#[test]
fn open_checksums_are_looked_for_where_they_may_come() {
    for (name, protocol) in [
        ("tcp 1001 > 80 A", Protocol::Tcp),
        ("udp 1001 > 53", Protocol::Udp),
    ] {
        let mut world = World::serving(protocol, Forwarding::Masquerade);
        let ends = "10.9.0.1 > 10.1.0.1";
        world.meet(&frame(&format!("{ends} / {}", name.replace(" A", " S"))));
        let open = frame(&format!("{ends} / {name} sum=partial / data 9"));
        assert_eq!(shortly(&mut world, &open), None, "{name}: completed first");
        world.director.expect_partial(false);
        assert!(shortly(&mut world, &open).is_some(), "{name}: not asked");
    }
}

impl World {
    fn end(&mut self, handle: crate::connection::table::Handle) {
        let moment = Moment {
            snapshot: &self.snapshot,
            now: self.now,
        };
        self.director.end(moment, handle);
    }
}

fn shortly(world: &mut World, bytes: &[u8]) -> Option<PortId> {
    let (mut memory, start, end) = roomy(bytes);
    let mut frame = Frame::new(&mut memory, start, end).unwrap();
    let mut glance = Glance::default();
    world.director.glance(&world.snapshot, &frame, &mut glance);
    world.director.reach(&mut glance);
    world
        .director
        .shortly(&world.snapshot, world.now, &mut frame, &glance)
}
