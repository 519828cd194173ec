//! Rows against frames built from scratch, and the incremental sums against full ones.

use proptest::prelude::*;

use super::*;
use crate::address::bits;
use crate::testing::{self, assert_frame, frame, roomy};

fn end(text: &str) -> Endpoint {
    let (address, port) = text.rsplit_once('#').unwrap();
    Endpoint {
        address: bits(address.parse().unwrap()),
        port: port.parse().unwrap(),
    }
}

type Rewrite = fn(&mut Frame<'_>, &mut Packet, Endpoint) -> bool;

/// The frame afterwards, and whether a checksum was completed. What the packet says
/// afterwards must be what a new parse says.
fn run(before: &[u8], rewrite: Rewrite, to: Endpoint) -> (Vec<u8>, bool) {
    let (mut memory, from, until) = roomy(before);
    let mut frame = Frame::new(&mut memory, from, until).unwrap();
    let mut packet = Packet::parse(&mut frame).unwrap();
    let completed = rewrite(&mut frame, &mut packet, to);
    assert_eq!(Packet::parse(&mut frame), Ok(packet));
    (frame.bytes().to_vec(), completed)
}

#[test]
fn rewrites_the_destination() {
    let rows = [
        (
            "tcp over ipv4",
            "10.2.0.11#8080",
            "10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 S / data 7",
            "10.9.0.1 > 10.2.0.11 / tcp 1001 > 8080 S / data 7",
        ),
        (
            "with ip options",
            "10.2.0.11#8080",
            "10.9.0.1 > 10.1.0.1 opts=94040000 / tcp 1001 > 80 S",
            "10.9.0.1 > 10.2.0.11 opts=94040000 / tcp 1001 > 8080 S",
        ),
        (
            "in a vlan",
            "10.2.0.11#8080",
            "eth vlan=7 / 10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 A",
            "eth vlan=7 / 10.9.0.1 > 10.2.0.11 / tcp 1001 > 8080 A",
        ),
        (
            "a wrong checksum stays wrong by as much",
            "10.2.0.11#80",
            "10.9.0.2 > 10.1.0.1 / tcp 1001 > 80 S sum=bad",
            "10.9.0.2 > 10.2.0.11 / tcp 1001 > 80 S sum=bad",
        ),
        (
            "udp over ipv4",
            "10.2.0.12#5353",
            "10.9.0.2 > 10.1.0.1 / udp 2002 > 53 / data 40",
            "10.9.0.2 > 10.2.0.12 / udp 2002 > 5353 / data 40",
        ),
        (
            "udp without a checksum gets one, as IPVS does",
            "10.2.0.12#5353",
            "10.9.0.2 > 10.1.0.1 / udp 2002 > 53 sum=none / data 40",
            "10.9.0.2 > 10.2.0.12 / udp 2002 > 5353 / data 40",
        ),
        (
            "tcp over ipv6",
            "fd02::12#8080",
            "fd09::1 > fd01::1 / tcp 1001 > 80 S",
            "fd09::1 > fd02::12 / tcp 1001 > 8080 S",
        ),
        (
            "udp behind ipv6 options",
            "fd02::12#5353",
            "fd09::1 > fd01::1 / hop / dest / udp 1 > 53 / data 3",
            "fd09::1 > fd02::12 / hop / dest / udp 1 > 5353 / data 3",
        ),
        (
            "sctp",
            "10.2.0.12#2906",
            "10.9.0.2 > 10.1.0.1 / sctp 2002 > 2905 / data 40",
            "10.9.0.2 > 10.2.0.12 / sctp 2002 > 2906 / data 40",
        ),
        (
            "sctp, a wrong checksum and a new port: it becomes right, as in IPVS",
            "10.2.0.12#2906",
            "10.9.0.2 > 10.1.0.1 / sctp 2002 > 2905 sum=bad / data 40",
            "10.9.0.2 > 10.2.0.12 / sctp 2002 > 2906 / data 40",
        ),
        (
            "sctp, a wrong checksum and the same port: it stays",
            "10.2.0.12#2905",
            "10.9.0.2 > 10.1.0.1 / sctp 2002 > 2905 sum=bad / data 40",
            "10.9.0.2 > 10.2.0.12 / sctp 2002 > 2905 sum=bad / data 40",
        ),
        (
            "a first fragment",
            "10.2.0.11#5353",
            "10.9.0.1 > 10.1.0.1 id=5 mf / slice 0 800 / udp 3001 > 53 / data 1200",
            "10.9.0.1 > 10.2.0.11 id=5 mf / slice 0 800 / udp 3001 > 5353 / data 1200",
        ),
        (
            "a later fragment",
            "10.2.0.11#5353",
            "10.9.0.1 > 10.1.0.1 id=5 off=800 / slice 800 408 / udp 3001 > 53 / data 1200",
            "10.9.0.1 > 10.2.0.11 id=5 off=800 / slice 800 408 / udp 3001 > 53 / data 1200",
        ),
        (
            "a first fragment without all of tcp's header",
            "10.2.0.11#81",
            "10.9.0.1 > 10.1.0.1 id=5 mf / slice 0 8 / tcp 3001 > 80 S",
            "10.9.0.1 > 10.2.0.11 id=5 mf / slice 0 8 / tcp 3001 > 81 S",
        ),
        (
            "an icmp echo has no port",
            "10.2.0.11#80",
            "10.9.0.1 > 10.1.0.1 / icmp 8 0 rest=70001 / data 4",
            "10.9.0.1 > 10.2.0.11 / icmp 8 0 rest=70001 / data 4",
        ),
        (
            "an icmpv6 echo: its checksum covers the addresses",
            "fd02::11#80",
            "fd09::1 > fd01::1 / icmp 128 0 rest=70001 / data 4",
            "fd09::1 > fd02::11 / icmp 128 0 rest=70001 / data 4",
        ),
    ];
    for (what, to, before, after) in rows {
        let (got, completed) = run(&frame(before), rewrite_destination, end(to));
        assert_frame(what, &got, &frame(after));
        assert!(!completed, "{what}");
    }
}

#[test]
fn rewrites_the_source() {
    let rows = [
        (
            "tcp over ipv4",
            "10.1.0.1#80",
            "10.2.0.11 > 10.9.0.1 / tcp 8080 > 1001 SA",
            "10.1.0.1 > 10.9.0.1 / tcp 80 > 1001 SA",
        ),
        (
            "udp over ipv6",
            "fd01::1#53",
            "fd02::12 > fd09::1 / udp 5353 > 1001 / data 99",
            "fd01::1 > fd09::1 / udp 53 > 1001 / data 99",
        ),
        (
            "sctp over ipv6",
            "fd01::1#53",
            "fd02::12 > fd09::1 / sctp 5353 > 1001 / data 9",
            "fd01::1 > fd09::1 / sctp 53 > 1001 / data 9",
        ),
    ];
    for (what, to, before, after) in rows {
        let (got, completed) = run(&frame(before), rewrite_source, end(to));
        assert_frame(what, &got, &frame(after));
        assert!(!completed, "{what}");
    }
}

#[test]
fn completes_what_the_sender_left_to_its_hardware() {
    let rows = [
        (
            "tcp over ipv4",
            "10.1.0.1#80",
            "10.2.0.11 > 10.9.0.1 / tcp 8080 > 1001 SA sum=partial / data 5",
            "10.1.0.1 > 10.9.0.1 / tcp 80 > 1001 SA / data 5",
        ),
        (
            "tcp over ipv6",
            "fd01::1#80",
            "fd02::11 > fd09::1 / tcp 8080 > 1001 PA sum=partial / data 1400",
            "fd01::1 > fd09::1 / tcp 80 > 1001 PA / data 1400",
        ),
        (
            "udp over ipv4",
            "10.1.0.1#53",
            "10.2.0.11 > 10.9.0.1 / udp 53 > 1001 sum=partial / data 5",
            "10.1.0.1 > 10.9.0.1 / udp 53 > 1001 / data 5",
        ),
        (
            "sctp, port unchanged",
            "10.1.0.1#53",
            "10.2.0.11 > 10.9.0.1 / sctp 53 > 1001 sum=partial / data 5",
            "10.1.0.1 > 10.9.0.1 / sctp 53 > 1001 / data 5",
        ),
    ];
    for (what, to, before, after) in rows {
        let (got, completed) = run(&frame(before), rewrite_source, end(to));
        assert_frame(what, &got, &frame(after));
        assert!(completed, "{what}");
    }
}

#[test]
fn a_complete_checksum_that_looks_partial_is_left_alone() {
    // Search the sequence number whose full checksum equals the pseudo-header's sum.
    let partial = frame("10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 S sum=partial");
    let wanted = u16::from_be_bytes([partial[50], partial[51]]);
    let text = |seq: u32| format!("10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 S seq={seq}");
    let seq = (0..=u32::from(u16::MAX))
        .find(|&seq| frame(&text(seq))[50..52] == wanted.to_be_bytes())
        .expect("one of all sums");
    let to = end("10.2.0.11#8080");
    let (got, completed) = run(&frame(&text(seq)), rewrite_destination, to);
    let after = format!("10.9.0.1 > 10.2.0.11 / tcp 1001 > 8080 S seq={seq}");
    assert_frame("one in 65,536", &got, &frame(&after));
    assert!(!completed);
}

fn text(v6: bool, kind: u8, ports: (u16, u16), hosts: (u8, u8), length: usize) -> String {
    let name = ["tcp", "udp", "sctp"][usize::from(kind % 3)];
    let ends = match v6 {
        true => format!("fd09::{:x} > fd01::{:x}", hosts.0, hosts.1),
        false => format!("10.9.0.{} > 10.1.0.{}", hosts.0, hosts.1),
    };
    format!("{ends} / {name} {} > {} / data {length}", ports.0, ports.1)
}

proptest! {
    #[test]
    fn incremental_is_full_and_there_and_back_is_the_same(
        v6: bool, kind: u8, ports: (u16, u16), hosts: (u8, u8), length in 0usize..300,
        address: u128, port: u16, partial: bool,
    ) {
        let address = if v6 { address } else { address & 0xffff_ffff };
        let to = Endpoint { address, port };
        let whole = frame(&text(v6, kind, ports, hosts, length));
        let layer = text(v6, kind, ports, hosts, length);
        let sent = match partial {
            true => frame(&layer.replace(" / data", " sum=partial / data")),
            false => whole.clone(),
        };
        let (there, completed) = run(&sent, rewrite_destination, to);
        // A pseudo-header's sum may by chance be the right checksum already.
        prop_assert!(completed == (partial && sent != whole));
        prop_assert!(is_right(&there));
        let (mut memory, from, until) = roomy(&whole);
        let mut f = Frame::new(&mut memory, from, until).unwrap();
        let origin = Packet::parse(&mut f).unwrap().destination;
        let (back, _) = run(&there, rewrite_destination, origin);
        prop_assert_eq!(back, whole);
    }
}

/// Every checksum of a whole frame without options, in full.
fn is_right(bytes: &[u8]) -> bool {
    let v4 = bytes[12] == 8;
    let (header, number, addresses) = match v4 {
        true => (34, bytes[23], 26..34),
        false => (54, bytes[20], 22..54),
    };
    let segment = &bytes[header..];
    let network = !v4 || testing::checksum(&bytes[14..34]) == 0;
    let mut summed = bytes[addresses].to_vec();
    summed.extend((segment.len() as u32).to_be_bytes());
    summed.extend([0, 0, 0, number]);
    summed.extend(segment);
    network
        && match number {
            132 => checksum::sctp(segment).to_le_bytes() == segment[8..12],
            _ => testing::checksum(&summed) == 0,
        }
}
