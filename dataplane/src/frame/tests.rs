//! What parsing reads, refuses and mends.

use proptest::prelude::*;

use sched::service::Family;

use super::*;
use crate::address::Endpoint;
use crate::address::bits;
use crate::testing::{assert_frame, frame, roomy};
use crate::verdict::Reason;

fn parse(bytes: &[u8]) -> Result<(Packet, Vec<u8>), Reason> {
    let (mut memory, from, until) = roomy(bytes);
    let mut frame = Frame::new(&mut memory, from, until).unwrap();
    Packet::parse(&mut frame).map(|packet| (packet, frame.bytes().to_vec()))
}

fn parsed(text: &str) -> Packet {
    let (packet, bytes) = parse(&frame(text)).unwrap();
    assert_frame("parsing changes nothing", &bytes, &frame(text));
    packet
}

fn end(address: &str, port: u16) -> Endpoint {
    Endpoint {
        address: bits(address.parse().unwrap()),
        port,
    }
}

fn plain(family: Family, source: Endpoint, destination: Endpoint) -> Packet {
    let (header, dont_fragment) = match family {
        Family::V4 => (20, false),
        Family::V6 => (40, true),
    };
    Packet {
        vlan: None,
        network: 14,
        transport: 14 + header,
        family,
        protocol: 6,
        source,
        destination,
        hop_limit: 64,
        traffic_class: 0,
        dont_fragment,
        length: header + 20,
        tcp_flags: 0,
        sctp_chunk: 0,
        icmp_type: 0,
        icmp_code: 0,
        fragment: None,
    }
}

#[test]
fn reads_what_decides() {
    let v4 = plain(Family::V4, end("10.9.0.1", 1001), end("10.1.0.1", 80));
    let v6 = plain(Family::V6, end("fd09::1", 1001), end("fd01::1", 80));
    let later = FragmentInfo {
        identification: 5,
        offset_bytes: 800,
        more: false,
        header: 0,
        named_at: 0,
    };
    let rows = [
        (
            "tcp over ipv4",
            "10.9.0.1 > 10.1.0.1 ttl=9 tos=187 df / tcp 1001 > 80 SA / data 7",
            Packet {
                hop_limit: 9,
                traffic_class: 187,
                dont_fragment: true,
                length: 47,
                tcp_flags: 0x12,
                ..v4
            },
        ),
        (
            "in a vlan",
            "eth vlan=7 / 10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 S",
            Packet {
                vlan: Some(7),
                network: 18,
                transport: 38,
                tcp_flags: 2,
                ..v4
            },
        ),
        (
            "a priority tag",
            "eth vlan=57344 / 10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 S",
            Packet {
                network: 18,
                transport: 38,
                tcp_flags: 2,
                ..v4
            },
        ),
        (
            "a service tag's priority",
            "eth tags=88a8:57344 / 10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 S",
            Packet {
                network: 18,
                transport: 38,
                tcp_flags: 2,
                ..v4
            },
        ),
        (
            "four priority tags",
            "eth tags=8100:0,88a8:0,8100:0,8100:0 / 10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 S",
            Packet {
                network: 30,
                transport: 50,
                tcp_flags: 2,
                ..v4
            },
        ),
        (
            "a vlan behind a priority tag",
            "eth tags=88a8:0,8100:7 / 10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 S",
            Packet {
                vlan: Some(7),
                network: 22,
                transport: 42,
                tcp_flags: 2,
                ..v4
            },
        ),
        (
            "ip options",
            "10.9.0.1 > 10.1.0.1 opts=94040000 / udp 1001 > 80 / data 4",
            Packet {
                transport: 38,
                protocol: 17,
                length: 36,
                ..v4
            },
        ),
        (
            "sctp",
            "10.9.0.1 > 10.1.0.1 / sctp 1001 > 80 chunk=7",
            Packet {
                protocol: 132,
                length: 36,
                sctp_chunk: 7,
                ..v4
            },
        ),
        (
            "an icmp echo",
            "10.9.0.1 > 10.1.0.1 / icmp 8 0 rest=70001",
            Packet {
                protocol: 1,
                length: 28,
                icmp_type: 8,
                source: end("10.9.0.1", 0),
                destination: end("10.1.0.1", 0),
                ..v4
            },
        ),
        (
            "a first fragment",
            "10.9.0.1 > 10.1.0.1 id=5 mf / slice 0 8 / udp 1001 > 80 / data 100",
            Packet {
                protocol: 17,
                length: 28,
                fragment: Some(FragmentInfo {
                    offset_bytes: 0,
                    more: true,
                    ..later
                }),
                ..v4
            },
        ),
        (
            "a later fragment",
            "10.9.0.1 > 10.1.0.1 id=5 off=800 / slice 800 5 / udp 1001 > 80 / data 797",
            Packet {
                protocol: 17,
                length: 25,
                source: end("10.9.0.1", 0),
                destination: end("10.1.0.1", 0),
                fragment: Some(later),
                ..v4
            },
        ),
        (
            "tcp over ipv6",
            "fd09::1 > fd01::1 tos=187 flow=74565 / tcp 1001 > 80 R",
            Packet {
                traffic_class: 187,
                tcp_flags: 4,
                ..v6
            },
        ),
        (
            "behind extension headers",
            "fd09::1 > fd01::1 / hop / dest / route / dest / tcp 1001 > 80 F",
            Packet {
                transport: 86,
                length: 92,
                tcp_flags: 1,
                ..v6
            },
        ),
        (
            "an ipv6 later fragment",
            "fd09::1 > fd01::1 / hop / frag id=70000 off=8 mf / slice 8 16 / udp 1 > 2 / data 40",
            Packet {
                transport: 70,
                protocol: 17,
                length: 72,
                source: end("fd09::1", 0),
                destination: end("fd01::1", 0),
                fragment: Some(FragmentInfo {
                    identification: 70_000,
                    offset_bytes: 8,
                    more: true,
                    header: 62,
                    named_at: 54,
                }),
                ..v6
            },
        ),
        (
            "icmpv6",
            "fd09::1 > fd01::1 / icmp 128 0 rest=70001",
            Packet {
                protocol: 58,
                length: 48,
                icmp_type: 128,
                source: end("fd09::1", 0),
                destination: end("fd01::1", 0),
                ..v6
            },
        ),
        (
            "a protocol without ports",
            "10.9.0.1 > 10.1.0.1 proto=50 / data 20",
            Packet {
                protocol: 50,
                source: end("10.9.0.1", 0),
                destination: end("10.1.0.1", 0),
                ..v4
            },
        ),
    ];
    for (what, text, wanted) in rows {
        assert_eq!(parsed(text), wanted, "{what}");
    }
}

#[test]
fn names_what_is_wrong() {
    let tcp = "tcp 1 > 80 S";
    let cut = |text: &str, length: usize| frame(text)[..length].to_vec();
    let v4 = format!("10.9.0.1 > 10.1.0.1 / {tcp}");
    let v6 = format!("fd09::1 > fd01::1 / {tcp}");
    let with = |text: &str, at: usize, value: u8| {
        let mut bytes = frame(text);
        bytes[at] = value;
        bytes
    };
    let many = ["dest"; MAX_EXTENSION_HEADERS + 1].join(" / ");
    let split = ["frag id=1"; 9].join(" / ");
    let rows = [
        ("nothing", vec![], Reason::LinkTruncated),
        ("half a link header", cut(&v4, 13), Reason::LinkTruncated),
        (
            "half a tag",
            cut(&format!("eth vlan=7 / {v4}"), 17),
            Reason::LinkTruncated,
        ),
        (
            "two tags",
            with(&format!("eth vlan=7 / {v4}"), 16, 0x81),
            Reason::LinkTruncated,
        ),
        (
            "a vlan in another",
            frame(&format!("eth tags=8100:7,8100:7 / {v4}")),
            Reason::LinkTruncated,
        ),
        (
            "a priority in a vlan",
            frame(&format!("eth tags=8100:7,8100:0 / {v4}")),
            Reason::LinkTruncated,
        ),
        (
            "a service vlan",
            frame(&format!("eth tags=88a8:7 / {v4}")),
            Reason::LinkTruncated,
        ),
        (
            "five priority tags",
            frame(&format!(
                "eth tags=8100:0,8100:0,8100:0,8100:0,8100:0 / {v4}"
            )),
            Reason::LinkTruncated,
        ),
        (
            "half a second tag",
            cut(&format!("eth tags=8100:0,8100:0 / {v4}"), 21),
            Reason::LinkTruncated,
        ),
        ("arp", with(&v4, 13, 6), Reason::NotIp),
        ("no ip header", cut(&v4, 14), Reason::NetworkMalformed),
        ("half an ip header", cut(&v4, 33), Reason::NetworkMalformed),
        (
            "the other version",
            with(&v4, 14, 0x65),
            Reason::NetworkMalformed,
        ),
        (
            "a header of 16 bytes",
            with(&v4, 14, 0x44),
            Reason::NetworkMalformed,
        ),
        (
            "longer than the frame",
            frame(&format!("10.9.0.1 > 10.1.0.1 len=41 / {tcp}")),
            Reason::NetworkMalformed,
        ),
        (
            "shorter than its header",
            frame(&format!("10.9.0.1 > 10.1.0.1 len=19 / {tcp}")),
            Reason::NetworkMalformed,
        ),
        (
            "a wrong header checksum",
            frame(&format!("10.9.0.1 > 10.1.0.1 sum=bad / {tcp}")),
            Reason::NetworkChecksum,
        ),
        (
            "options, a wrong header checksum",
            frame(&format!(
                "10.9.0.1 > 10.1.0.1 opts=94040000 sum=bad / {tcp}"
            )),
            Reason::NetworkChecksum,
        ),
        (
            "half a tcp header",
            frame("10.9.0.1 > 10.1.0.1 / cut 19 / tcp 1 > 80 S"),
            Reason::TransportMalformed,
        ),
        (
            "tcp options missing",
            with(&v4, 46, 0x60),
            Reason::TransportMalformed,
        ),
        (
            "half a udp header",
            frame("10.9.0.1 > 10.1.0.1 / cut 7 / udp 1 > 80"),
            Reason::TransportMalformed,
        ),
        (
            "sctp without a chunk",
            frame("10.9.0.1 > 10.1.0.1 / cut 15 / sctp 1 > 80"),
            Reason::TransportMalformed,
        ),
        (
            "half an icmp header",
            frame("10.9.0.1 > 10.1.0.1 / cut 7 / icmp 8 0"),
            Reason::TransportMalformed,
        ),
        (
            "an empty fragment",
            frame("10.9.0.1 > 10.1.0.1 mf / slice 0 0 / udp 1 > 2"),
            Reason::FragmentInvalid,
        ),
        (
            "a ragged fragment",
            frame("10.9.0.1 > 10.1.0.1 mf / slice 0 9 / udp 1 > 2 / data 9"),
            Reason::FragmentInvalid,
        ),
        (
            "a fragment past the end",
            frame("10.9.0.1 > 10.1.0.1 off=65528 / data 8"),
            Reason::FragmentInvalid,
        ),
        (
            "half an ipv6 header",
            cut(&v6, 53),
            Reason::NetworkMalformed,
        ),
        (
            "ipv6 longer than the frame",
            frame(&format!("fd09::1 > fd01::1 len=21 / {tcp}")),
            Reason::NetworkMalformed,
        ),
        (
            "half an extension header",
            frame("fd09::1 > fd01::1 / cut 7 / hop / data 9"),
            Reason::NetworkMalformed,
        ),
        (
            "an extension header longer than the packet",
            with(&format!("fd09::1 > fd01::1 / hop / {tcp}"), 55, 9),
            Reason::NetworkMalformed,
        ),
        (
            "more extension headers than fit 1,500 bytes",
            frame(&format!("fd09::1 > fd01::1 / {many} / {tcp}")),
            Reason::ExtensionLimit,
        ),
        (
            "nine fragment headers",
            frame(&format!("fd09::1 > fd01::1 / {split} / {tcp}")),
            Reason::ExtensionLimit,
        ),
    ];
    for (what, bytes, reason) in rows {
        assert_eq!(parse(&bytes), Err(reason), "{what}");
    }
}

/// IPVS serves them, so does lvx.
#[test]
fn many_extension_headers_are_read() {
    for count in [9, 12, 100, MAX_EXTENSION_HEADERS] {
        let headers = vec!["dest"; count].join(" / ");
        let text = format!("fd09::1 > fd01::1 / {headers} / tcp 1 > 80 S");
        let packet = parsed(&text);
        assert_eq!(packet.transport, 14 + 40 + 8 * count, "{count}");
        assert_eq!(
            (packet.protocol, packet.destination.port),
            (6, 80),
            "{count}"
        );
    }
    let split = ["frag id=1"; 8].join(" / ");
    let (packet, _) = parse(&frame(&format!(
        "fd09::1 > fd01::1 / {split} / tcp 1 > 80 S"
    )))
    .unwrap();
    assert_eq!(packet.transport, 14 + 40);
}

#[test]
fn cuts_off_padding_and_needless_fragment_headers() {
    let mut padded = frame("10.9.0.1 > 10.1.0.1 / tcp 1 > 80 S");
    padded.extend([0; 6]);
    let (packet, bytes) = parse(&padded).unwrap();
    assert_frame(
        "padding",
        &bytes,
        &frame("10.9.0.1 > 10.1.0.1 / tcp 1 > 80 S"),
    );
    assert_eq!(packet.length, 40);
    let rows = [
        (
            "one",
            "fd09::1 > fd01::1 / frag id=502 / udp 3001 > 53 / data 100",
            "fd09::1 > fd01::1 / udp 3001 > 53 / data 100",
        ),
        (
            "between others",
            "eth vlan=7 / fd09::1 > fd01::1 / hop / frag id=1 / dest / tcp 1 > 2 S",
            "eth vlan=7 / fd09::1 > fd01::1 / hop / dest / tcp 1 > 2 S",
        ),
        (
            "two",
            "fd09::1 > fd01::1 / frag id=1 / frag id=2 / udp 1 > 2",
            "fd09::1 > fd01::1 / udp 1 > 2",
        ),
    ];
    for (what, before, after) in rows {
        let (packet, bytes) = parse(&frame(before)).unwrap();
        assert_frame(what, &bytes, &frame(after));
        assert_eq!(packet, parsed(after), "{what}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }
}
