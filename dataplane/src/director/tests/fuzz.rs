//! The fuzz target `director`: bytes choose what two directors meet, one in bursts by the
//! short way, one frame by frame by the general way. They begin with a warm table, and
//! must agree throughout.

use super::known::{Change, apply, bytes, in_a_burst, method, one_by_one, traces};
use super::*;

/// As many frames as a worker takes at once.
const BURST: usize = 64;
/// The longest raw frame: jumbo frames are here too.
const RAW_MAX: usize = 9_100;

/// Frames to damage, beside those that `known` makes: the kinds that take odd ways.
const TEXTS: [&str; 22] = [
    "10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 A / data 9",
    "10.2.0.11 > 10.9.0.1 / tcp 8080 > 1001 A / data 9",
    "fd09::1 > fd01::1 / tcp 1001 > 80 A / data 9",
    "fd02::11 > fd09::1 / tcp 8080 > 1001 A / data 9",
    "10.9.0.1 > 10.1.0.1 id=7 mf / tcp 1001 > 80 A / data 100",
    "10.9.0.1 > 10.1.0.1 id=7 off=120 mf / data 400",
    "10.9.0.1 > 10.1.0.1 id=7 off=520 / data 30",
    "10.2.0.11 > 10.9.0.1 id=7 mf / udp 53 > 1001 / data 1000",
    "10.2.0.11 > 10.9.0.1 id=7 off=1008 / data 900",
    "fd09::1 > fd01::1 / frag id=7 mf / udp 1001 > 53 / data 1000",
    "fd09::1 > fd01::1 / frag id=7 off=1008 / data 500",
    "10.9.0.1 > 10.1.0.1 / icmp 8 0 / data 40",
    "10.9.0.254 > 10.1.0.1 / icmp 3 4 rest=500 / cut 28 / 10.1.0.1 > 10.9.0.1 / tcp 80 > 1001 A / data 9",
    "10.2.0.254 > 10.1.0.1 / icmp 11 0 / cut 28 / 10.9.0.1 > 10.2.0.11 / udp 1001 > 53 / data 9",
    "10.2.0.11 > 10.9.0.1 / icmp 3 3 / cut 28 / 10.9.0.1 > 10.2.0.11 / tcp 1001 > 8080 A",
    "10.2.0.254 > 10.2.0.1 / icmp 3 4 rest=500 / cut 60 / 10.2.0.1 > 10.2.0.11 / 10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 A",
    "fd09::1 > fd01::1 / icmp 2 0 rest=500 / cut 60 / fd01::1 > fd09::1 / tcp 80 > 1001 A",
    "fd02::11 > fd09::1 / icmp 1 4 / cut 60 / fd09::1 > fd02::11 / tcp 1001 > 8080 A",
    "fd09::1 > fd01::1 / hop / route / dest / tcp 1001 > 80 A / data 9",
    "10.9.0.1 > 10.1.0.1 opts=07040400 / tcp 1001 > 80 S / data 9",
    "10.9.0.1 > 10.1.0.1 / sctp 1001 > 80 chunk=1 / data 40",
    "eth vlan=7 / 10.9.0.1 > 10.1.0.1 / udp 1001 > 53 / data 9",
];

/// Bytes, taken off the front; zeros when they are gone.
struct Input<'d>(&'d [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    fn some(&mut self, length: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }
}

/// What bytes say happens next.
enum Step {
    Frame(Vec<u8>),
    Change(Change),
}

fn step(input: &mut Input<'_>, protocol: Protocol) -> Step {
    match input.byte() % 12 {
        0..4 => Step::Frame(bytes(input.number(), protocol)),
        4..8 => {
            let text = TEXTS[usize::from(input.byte()) % TEXTS.len()];
            let mut bytes = frame(text);
            for _ in 0..input.byte() % 6 {
                let place = usize::from(input.byte()) % bytes.len();
                bytes[place] = input.byte();
            }
            Step::Frame(bytes)
        }
        8 | 9 => {
            let length = usize::from(input.short()) % RAW_MAX;
            Step::Frame(input.some(length))
        }
        10 => Step::Change(Change::Pass(input.byte() % 100)),
        _ => Step::Change(change(input)),
    }
}

fn change(input: &mut Input<'_>) -> Change {
    match input.byte() % 9 {
        0 => Change::Nothing,
        1 => Change::Remove,
        2 => Change::Add,
        3 => Change::Weigh(u32::from(input.byte()) % 2),
        4 => Change::Method(input.byte()),
        5 => Change::PathMtuDiscovery(input.byte().is_multiple_of(2)),
        6 => Change::PathMtu(input.short()),
        7 => Change::Neighbours(input.byte().is_multiple_of(2)),
        _ => Change::Links {
            vlan: input.byte().is_multiple_of(2),
            mtu: input.short(),
        },
    }
}

/// Six clients of either family that are connected.
fn warm(world: &mut World, protocol: Protocol) {
    for ends in [("10.9.0.", "10.1.0.1"), ("fd09::", "fd01::1")] {
        for (client, port) in [
            (1, 1001),
            (1, 1002),
            (1, 1003),
            (2, 1001),
            (2, 1002),
            (2, 1003),
        ] {
            let ends = format!("{}{client} > {}", ends.0, ends.1);
            let layer = match protocol {
                Protocol::Tcp => format!("tcp {port} > 80 S"),
                Protocol::Udp => format!("udp {port} > 53"),
                Protocol::Sctp => format!("sctp {port} > 80 chunk=1"),
            };
            world.meet(&frame(&format!("{ends} / {layer}")));
        }
    }
    assert_eq!(world.table.len(), 12);
}

/// What becomes of two directors by these bytes. Panics where they differ.
pub(in crate::director) fn meet(data: &[u8]) {
    let mut input = Input(data);
    let protocol = match input.byte() % 8 {
        0..4 => Protocol::Tcp,
        4..7 => Protocol::Udp,
        _ => Protocol::Sctp,
    };
    let forwarding = method(input.byte());
    let [mut general, mut short] = [true, false].map(|afresh| {
        let mut world = World::serving(protocol, forwarding);
        world.afresh = afresh;
        warm(&mut world, protocol);
        world
    });
    let mut burst = Vec::new();
    while !input.0.is_empty() {
        match step(&mut input, protocol) {
            Step::Frame(bytes) => burst.push(bytes),
            Step::Change(change) => {
                agree(&mut general, &mut short, &mut burst);
                apply(&mut general, protocol, &change);
                apply(&mut short, protocol, &change);
            }
        }
        if burst.len() == BURST {
            agree(&mut general, &mut short, &mut burst);
        }
    }
    agree(&mut general, &mut short, &mut burst);
    assert_eq!(traces(&short), traces(&general));
}

fn agree(general: &mut World, short: &mut World, burst: &mut Vec<Vec<u8>>) {
    let wanted = one_by_one(general, burst);
    let got = in_a_burst(short, burst);
    for ((got, wanted), bytes) in got.iter().zip(&wanted).zip(&*burst) {
        assert_eq!(got, wanted, "{bytes:02x?}");
    }
    burst.clear();
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// What the fuzzer found worth keeping, again.
    #[test]
    fn the_corpus_of_director() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/director");
        let mut met = 0;
        for file in fs::read_dir(folder).unwrap() {
            super::meet(&fs::read(file.unwrap().path()).unwrap());
            met += 1;
        }
        assert!(met > 0, "the corpus is gone");
    }
}
