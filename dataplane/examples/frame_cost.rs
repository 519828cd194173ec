//! Runs the per-packet steps so that callgrind can count their instructions:
//!
//! ```text
//! cargo build --release -p lvx-dataplane --example frame_cost
//! for step in parse rewrite decrement address; do
//!   valgrind --tool=callgrind --callgrind-out-file=/dev/null \
//!     --toggle-collect="frame_cost::$step*" target/release/examples/frame_cost tcp4
//! done
//! ```
//!
//! Divide "Collected" by the 1,000 rounds. The argument is `tcp4`, `udp4` or `tcp6`.

use std::hint::black_box;

use dataplane::address::Endpoint;
use dataplane::forward::{checksum, hop_limit, link, nat};
use dataplane::frame::{Frame, Packet};
use dataplane::hops::{Hop, PortId};

const ROUNDS: usize = 1000;

#[inline(never)]
fn parse(frame: &mut Frame<'_>) -> Packet {
    Packet::parse(frame).expect("a good frame")
}

#[inline(never)]
fn rewrite(frame: &mut Frame<'_>, packet: &mut Packet, to: Endpoint) -> bool {
    nat::rewrite_destination(frame, packet, to)
}

#[inline(never)]
fn decrement(frame: &mut Frame<'_>, packet: &mut Packet) -> bool {
    hop_limit::decrement(frame, packet)
}

#[inline(never)]
fn address(frame: &mut Frame<'_>, packet: &mut Packet, hop: &Hop) -> bool {
    link::address(frame, packet, hop).is_ok()
}

/// All of it, as a worker runs it: nothing kept from being inlined.
#[inline(never)]
fn together(frame: &mut Frame<'_>, to: Endpoint, hop: &Hop) -> bool {
    let mut packet = Packet::parse(frame).expect("a good frame");
    let alive = hop_limit::decrement(frame, &mut packet);
    nat::rewrite_destination(frame, &mut packet, to);
    alive && link::address(frame, &mut packet, hop).is_ok()
}

/// A frame of 64 bytes (TCP over IPv6: 74) between free space. Its transport checksum is
/// wrong, which costs a director nothing.
fn build(kind: &str) -> Vec<u8> {
    let (v6, number) = match kind {
        "udp4" => (false, 17),
        "tcp6" => (true, 6),
        _ => (false, 6),
    };
    let mut out = vec![0; 256];
    out.extend([1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
    if v6 {
        out.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, number, 64]);
        out.extend([9; 16]);
        out.extend([1; 16]);
    } else {
        out.extend([8, 0, 0x45, 0, 0, 50, 0, 1, 0, 0, 64, number, 0, 0]);
        out.extend([10, 9, 0, 1, 10, 1, 0, 1]);
        checksum::write_header(&mut out[256 + 14..]);
    }
    let length = if v6 { 20 } else { 30 };
    let transport = out.len();
    out.extend([3, 233, 0, 80, 0, length, 0x12, 0x34, 0, 0, 0, 0, 0x50, 0x10]);
    out.resize(transport + usize::from(length), 0);
    out[transport + 16] = 0x77;
    out.extend([0; 64]);
    out
}

fn main() {
    let kind = std::env::args().nth(1).unwrap_or_else(|| "tcp4".to_owned());
    let original = build(&kind);
    let end = original.len() - 64;
    let hop = Hop {
        port: PortId(0),
        vlan: None,
        source: [3; 6],
        destination: [4; 6],
        mtu: 1500,
        local: 0,
    };
    let to = Endpoint {
        address: 0x0a02_000b,
        port: 8080,
    };
    let mut memory = original.clone();
    for _ in 0..ROUNDS {
        memory.copy_from_slice(&original);
        let mut frame = Frame::new(&mut memory, 256, end).expect("it fits");
        let mut packet = parse(&mut frame);
        black_box(decrement(&mut frame, &mut packet));
        black_box(rewrite(&mut frame, &mut packet, black_box(to)));
        black_box(address(&mut frame, &mut packet, black_box(&hop)));
        memory.copy_from_slice(&original);
        let mut frame = Frame::new(&mut memory, 256, end).expect("it fits");
        black_box(together(&mut frame, black_box(to), black_box(&hop)));
    }
    println!("{kind}: {ROUNDS} rounds");
}
