//! Against the kernel's traces, and rows of what those do not show.

use proptest::prelude::*;

use super::error::message_checksum;
use super::*;
use crate::address::{Bits, Endpoint, bits};
use crate::forward::checksum;
use crate::frame::{Frame, Packet, field};
use crate::testing::{assert_frame, frame, roomy};
use crate::verdict::Reason;
use sched::service::Family;

fn address(text: &str) -> Bits {
    bits(text.parse().unwrap())
}

fn end(address_: &str, port: u16) -> Endpoint {
    Endpoint {
        address: address(address_),
        port,
    }
}

type Outcome = Result<Vec<u8>, Reason>;

/// The frame after `change`. What `change` returns must be what the frame says; where it
/// refuses, the frame must be as before.
fn run(
    before: &[u8],
    change: impl FnOnce(&mut Frame<'_>, &mut Packet) -> Result<Packet, Reason>,
) -> Outcome {
    let (mut memory, from, until) = roomy(before);
    let mut frame = Frame::new(&mut memory, from, until).unwrap();
    let mut packet = Packet::parse(&mut frame).unwrap();
    let vlan = packet.vlan;
    let after = match change(&mut frame, &mut packet) {
        Ok(after) => after,
        Err(reason) => {
            assert_frame("as before", frame.bytes(), before);
            return Err(reason);
        }
    };
    let ether_type = if after.family == Family::V4 {
        0x0800
    } else {
        0x86dd
    };
    field::put_u16(frame.bytes_mut(), after.network - 2, ether_type);
    assert_eq!(Packet::parse(&mut frame), Ok(Packet { vlan, ..after }));
    Ok(frame.bytes().to_vec())
}

fn error(before: &str, kind: ErrorKind, source: &str) -> Outcome {
    run(&frame(before), |f, p| {
        write_error(f, p, kind, address(source), 9)
    })
}

#[test]
fn errors_are_the_kernels() {
    let (syn, big) = ("tcp 1001 > 80 S", "tcp 1001 > 80 A / data 1441");
    let rows = [
        (
            "no server",
            ErrorKind::PortUnreachable,
            "10.1.0.1",
            format!("10.9.0.1 > 10.1.0.1 / {syn}"),
            format!("10.1.0.1 > 10.9.0.1 tos=192 id=9 / icmp 3 3 / 10.9.0.1 > 10.1.0.1 / {syn}"),
        ),
        (
            "hop limit spent",
            ErrorKind::TimeExceeded,
            "10.1.0.2",
            format!("10.9.0.3 > 10.1.0.2 ttl=1 / {syn}"),
            format!(
                "10.1.0.2 > 10.9.0.3 tos=192 id=9 / icmp 11 0 \
                  / 10.9.0.3 > 10.1.0.2 ttl=1 / {syn}"
            ),
        ),
        (
            "too big: 576 bytes in all",
            ErrorKind::TooBig { mtu: 1480 },
            "10.1.0.1",
            format!("eth vlan=5 / 10.9.0.1 > 10.1.0.1 df ttl=63 / {big}"),
            format!(
                "eth vlan=5 / 10.1.0.1 > 10.9.0.1 tos=192 id=9 / icmp 3 4 rest=5c8 / cut 548 \
                  / 10.9.0.1 > 10.1.0.1 df ttl=63 / {big}"
            ),
        ),
        (
            "no way to the host",
            ErrorKind::HostUnreachable,
            "10.1.0.1",
            format!("10.9.0.1 > 10.1.0.1 opts=94040000 / {syn}"),
            format!(
                "10.1.0.1 > 10.9.0.1 tos=192 id=9 / icmp 3 1 \
                  / 10.9.0.1 > 10.1.0.1 opts=94040000 / {syn}"
            ),
        ),
        (
            "no way to the network",
            ErrorKind::NetworkUnreachable,
            "10.1.0.1",
            "10.9.0.1 > 10.1.0.1 / icmp 8 0".to_owned(),
            "10.1.0.1 > 10.9.0.1 tos=192 id=9 / icmp 3 0 / 10.9.0.1 > 10.1.0.1 / icmp 8 0"
                .to_owned(),
        ),
        (
            "ipv6 no server",
            ErrorKind::PortUnreachable,
            "fd01::2",
            "fd09::1 > fd01::2 / udp 1001 > 53 / data 33".to_owned(),
            "fd01::2 > fd09::1 / icmp 1 4 / fd09::1 > fd01::2 / udp 1001 > 53 / data 33".to_owned(),
        ),
        (
            "ipv6 too big: 1,280 bytes in all",
            ErrorKind::TooBig { mtu: 1480 },
            "fd01::2",
            format!("fd09::1 > fd01::2 tos=187 / {big}"),
            format!(
                "fd01::2 > fd09::1 / icmp 2 0 rest=5c8 / cut 1232 \
                  / fd09::1 > fd01::2 tos=187 / {big}"
            ),
        ),
        (
            "ipv6 hop limit spent",
            ErrorKind::TimeExceeded,
            "fd01::2",
            format!("fd09::1 > fd01::2 ttl=1 / {syn}"),
            format!("fd01::2 > fd09::1 / icmp 3 0 / fd09::1 > fd01::2 ttl=1 / {syn}"),
        ),
    ];
    for (what, kind, source, before, after) in rows {
        let after = frame(&after);
        assert_frame(what, &error(&before, kind, source).unwrap(), &after);
    }
}

#[test]
fn some_packets_get_no_error() {
    let quote = "10.1.0.1 > 10.9.0.1 / tcp 1 > 2 S";
    let rows = [
        (
            "an error",
            format!("10.9.0.1 > 10.1.0.1 / icmp 3 3 / {quote}"),
        ),
        (
            "a redirect",
            format!("10.9.0.1 > 10.1.0.1 / icmp 5 0 / {quote}"),
        ),
        (
            "an ipv6 error",
            "fd09::1 > fd01::1 / icmp 1 4 / data 48".to_owned(),
        ),
        (
            "an ipv6 redirect",
            "fd09::1 > fd01::1 / icmp 137 0 / data 48".to_owned(),
        ),
        (
            "a later fragment",
            "10.9.0.1 > 10.1.0.1 off=8 / data 9".to_owned(),
        ),
        ("a link group", format!("eth to=0 / {quote}")),
        ("from nowhere", "0.0.0.0 > 10.1.0.1 / udp 1 > 2".to_owned()),
        (
            "from loopback",
            "127.0.0.1 > 10.1.0.1 / udp 1 > 2".to_owned(),
        ),
        (
            "from a group",
            "224.0.0.5 > 10.1.0.1 / udp 1 > 2".to_owned(),
        ),
        (
            "from broadcast",
            "255.255.255.255 > 10.1.0.1 / udp 1 > 2".to_owned(),
        ),
        (
            "to broadcast",
            "10.9.0.1 > 255.255.255.255 / udp 1 > 2".to_owned(),
        ),
        ("to a group", "10.9.0.1 > 239.1.1.1 / udp 1 > 2".to_owned()),
        ("ipv6 from nowhere", ":: > fd01::1 / udp 1 > 2".to_owned()),
        ("ipv6 from loopback", "::1 > fd01::1 / udp 1 > 2".to_owned()),
        (
            "ipv6 from a group",
            "ff02::1 > fd01::1 / udp 1 > 2".to_owned(),
        ),
        (
            "ipv6 to a group",
            "fd09::1 > ff02::1 / udp 1 > 2".to_owned(),
        ),
    ];
    for (what, text) in rows {
        let mut bytes = frame(&text);
        if text.contains("to=0") {
            bytes[0] |= 1;
        }
        let refused = run(&bytes, |f, p| {
            write_error(f, p, ErrorKind::PortUnreachable, 1, 1)
        });
        assert_eq!(refused, Err(Reason::IcmpForbidden), "{what}");
    }
}

#[test]
fn translates_for_nat() {
    let options = "opts=94040000";
    let rows = [
        // As in the kernel's traces icmp-nat and v6-nat-dr.
        ("a server's error to the client", false, end("10.1.0.1", 80),
         "10.2.0.11 > 10.9.0.1 ttl=63 / icmp 3 3 / cut 28 / 10.9.0.1 > 10.2.0.11 ttl=63 / tcp 1001 > 8080 S".to_owned(),
         "10.1.0.1 > 10.9.0.1 ttl=63 / icmp 3 3 / cut 28 / 10.9.0.1 > 10.1.0.1 ttl=63 / hex 03e90050000003e8".to_owned()),
        ("a client's too big to the server", true, end("10.2.0.11", 8080),
         "10.9.0.1 > 10.1.0.1 / icmp 3 4 rest=514 / cut 28 / 10.1.0.1 > 10.9.0.1 / tcp 80 > 1001 SA".to_owned(),
         "10.9.0.1 > 10.2.0.11 / icmp 3 4 rest=514 / cut 28 / 10.2.0.11 > 10.9.0.1 / hex 1f9003e9000003e8".to_owned()),
        ("options inside and out", false, end("10.1.0.1", 80),
         format!("10.2.0.11 > 10.9.0.1 {options} / icmp 11 0 / cut 32 / 10.9.0.1 > 10.2.0.11 {options} / udp 1 > 81 sum=none"),
         format!("10.1.0.1 > 10.9.0.1 {options} / icmp 11 0 / cut 32 / 10.9.0.1 > 10.1.0.1 {options} / udp 1 > 80 sum=none")),
        ("ipv6 to the client", false, end("fd01::1", 80),
         "fd02::12 > fd09::1 / icmp 1 4 / fd09::1 > fd02::12 / udp 1001 > 8080 sum=none / data 99".to_owned(),
         "fd01::1 > fd09::1 / icmp 1 4 / fd09::1 > fd01::1 / udp 1001 > 80 sum=none / data 99".to_owned()),
        ("ipv6 to the server, extension headers inside", true, end("fd02::12", 8080),
         "fd09::1 > fd01::1 / icmp 2 0 rest=514 / fd01::1 > fd09::1 / hop / udp 80 > 1 sum=none".to_owned(),
         "fd09::1 > fd02::12 / icmp 2 0 rest=514 / fd02::12 > fd09::1 / hop / udp 8080 > 1 sum=none".to_owned()),
    ];
    for (what, to_server, to, before, after) in rows {
        let before = cut_ip_length(&before);
        let after = cut_ip_length(&after);
        let got = run(&before, |f, p| {
            let inner = quoted(f, p).unwrap();
            match to_server {
                true => translate_to_server(f, p, &inner, to),
                false => translate_to_client(f, p, &inner, to),
            }
            let found = quoted(f, p).expect("its checksum is right");
            let changed = if to_server {
                found.source
            } else {
                found.destination
            };
            assert_eq!(changed, to, "{what}");
            Ok(*p)
        });
        assert_frame(what, &got.unwrap(), &after);
    }
}

/// A quotation written with `hex` instead of its transport header says a shorter length
/// and no protocol in its IP header: make both rows say the same.
fn cut_ip_length(text: &str) -> Vec<u8> {
    if !text.contains("hex") {
        return frame(text);
    }
    let (head, hex) = text.rsplit_once(" / hex").unwrap();
    frame(&format!("{head} proto=6 len=40 / hex{hex}"))
}

#[test]
fn reads_what_is_quoted() {
    let inner = "10.9.0.1 > 10.2.0.11 df / tcp 1001 > 8080 S";
    let rows = [
        (
            "ports",
            format!("1.1.1.1 > 10.9.0.1 / icmp 3 3 / cut 28 / {inner}"),
            Some((1001, 8080)),
        ),
        (
            "ports cut off",
            format!("1.1.1.1 > 10.9.0.1 / icmp 3 3 / cut 23 / {inner}"),
            Some((0, 0)),
        ),
        (
            "source quench",
            format!("1.1.1.1 > 10.9.0.1 / icmp 4 0 / {inner}"),
            Some((1001, 8080)),
        ),
        (
            "time exceeded",
            format!("1.1.1.1 > 10.9.0.1 / icmp 11 1 / {inner}"),
            Some((1001, 8080)),
        ),
        (
            "half a header",
            format!("1.1.1.1 > 10.9.0.1 / icmp 3 3 / cut 19 / {inner}"),
            None,
        ),
        (
            "a redirect is the host's",
            format!("1.1.1.1 > 10.9.0.1 / icmp 5 0 / {inner}"),
            None,
        ),
        (
            "a parameter problem too",
            format!("1.1.1.1 > 10.9.0.1 / icmp 12 0 / {inner}"),
            None,
        ),
        (
            "an echo",
            "1.1.1.1 > 10.9.0.1 / icmp 8 0 / data 40".to_owned(),
            None,
        ),
        (
            "a wrong checksum",
            format!("1.1.1.1 > 10.9.0.1 / icmp 3 3 sum=bad / {inner}"),
            None,
        ),
        (
            "about a later fragment",
            "1.1.1.1 > 10.9.0.1 / icmp 3 3 / 10.9.0.1 > 10.2.0.11 off=8 / data 20".to_owned(),
            None,
        ),
        (
            "ipv6",
            "fd02::fe > fd09::1 / icmp 3 0 / cut 44 / fd09::1 > fd02::11 / tcp 1 > 2 S".to_owned(),
            Some((1, 2)),
        ),
        (
            "ipv6 parameter problem",
            "fd02::fe > fd09::1 / icmp 4 0 / fd09::1 > fd02::11 / hop / udp 1 > 2".to_owned(),
            Some((1, 2)),
        ),
        (
            "ipv6 about a later fragment",
            "fd02::fe > fd09::1 / icmp 1 0 / fd09::1 > fd02::11 / frag off=8 / data 16".to_owned(),
            None,
        ),
    ];
    for (what, text, ports) in rows {
        let (mut memory, from, until) = roomy(&frame(&text));
        let mut f = Frame::new(&mut memory, from, until).unwrap();
        let packet = Packet::parse(&mut f).unwrap();
        let got = quoted(&f, &packet).map(|q| (q.source.port, q.destination.port));
        assert_eq!(got, ports, "{what}");
    }
}

fn relay(before: &[u8], source: Bits, identification: u16) -> Outcome {
    run(before, |f, p| {
        let outer = quoted(f, p).unwrap();
        let inner = outer.inside(f, |port| port == 6080).unwrap();
        relay_tunnel_error(f, p, &inner, source, identification)
    })
}

#[test]
fn does_as_the_kernel_did() {
    let rows = include_str!("kernel.txt")
        .lines()
        .filter(|l| !l.starts_with('#'));
    for row in rows {
        let columns: Vec<&str> = row.split(" | ").collect();
        let [before, after] = [3, 4].map(|i| {
            let packet = crate::testing::hex(columns[i]);
            let ether_type = if packet[0] >> 4 == 4 {
                [8, 0]
            } else {
                [0x86, 0xdd]
            };
            [
                &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..],
                &ether_type,
                &packet,
            ]
            .concat()
        });
        let got = match columns[0] {
            "relay" => relay(&before, address(columns[1]), field::u16_at(&after, 18)),
            direction => run(&before, |f, p| {
                let (to, port) = columns[1].split_once('#').unwrap();
                let to = end(to, port.parse().unwrap());
                let inner = quoted(f, p).unwrap();
                assert!(crate::forward::hop_limit::decrement(f, p));
                match direction {
                    "to_server" => translate_to_server(f, p, &inner, to),
                    _ => translate_to_client(f, p, &inner, to),
                }
                Ok(*p)
            }),
        };
        assert_frame(row, &got.unwrap(), &after);
    }
}

#[test]
fn tells_the_client_of_trouble_in_the_tunnel() {
    let inner = "10.9.0.1 > 10.1.0.1 df ttl=63 / tcp 1001 > 80 A / data 100";
    let inner6 = "fd09::1 > fd01::1 / udp 1001 > 80 / data 100";
    let router = "10.2.0.254 > 10.2.0.1";
    let outer = "10.2.0.1 > 10.2.0.11";
    let answer = "10.1.0.1 > 10.9.0.1 tos=192 id=9";
    let rows = [
        (
            "ipip, too big",
            format!("{router} / icmp 3 4 rest=578 / {outer} / {inner}"),
            format!("{answer} / icmp 3 4 rest=564 / {inner}"),
        ),
        (
            "gue, too big",
            format!(
                "{router} / icmp 3 4 rest=578 / {outer} / udp 40000 > 6080 sum=none / gue / {inner}"
            ),
            format!("{answer} / icmp 3 4 rest=558 / {inner}"),
        ),
        (
            "gre with checksum, too big",
            format!("{router} / icmp 3 4 rest=578 / {outer} / gre sum / {inner}"),
            format!("{answer} / icmp 3 4 rest=55c / {inner}"),
        ),
        (
            "never below 68",
            format!("{router} / icmp 3 4 rest=28 / {outer} / {inner}"),
            format!("{answer} / icmp 3 4 rest=44 / {inner}"),
        ),
        (
            "host unreachable",
            format!("{router} / icmp 3 1 / {outer} / {inner}"),
            format!("{answer} / icmp 3 1 / {inner}"),
        ),
        (
            "time exceeded, little quoted",
            format!("{router} / icmp 11 0 / cut 48 / {outer} / {inner}"),
            format!("{answer} / icmp 11 0 / cut 28 / {inner}"),
        ),
        (
            "ipv6 in ipv4, too big",
            format!("{router} / icmp 3 4 rest=578 / {outer} / {inner6}"),
            format!("fd01::1 > fd09::1 / icmp 2 0 rest=564 / {inner6}"),
        ),
        (
            "ipv6 in ipv6, too big",
            format!("fd02::fe > fd02::1 / icmp 2 0 rest=578 / fd02::1 > fd02::11 / {inner6}"),
            format!("fd01::1 > fd09::1 / icmp 2 0 rest=550 / {inner6}"),
        ),
        (
            "ipv4 in ipv6, too big",
            format!("fd02::fe > fd02::1 / icmp 2 0 rest=578 / fd02::1 > fd02::11 / {inner}"),
            format!("{answer} / icmp 3 4 rest=550 / {inner}"),
        ),
    ];
    for (what, before, after) in rows {
        let source = if after.starts_with("fd") {
            "fd01::1"
        } else {
            "10.1.0.1"
        };
        let got = relay(&frame(&before), address(source), 9).unwrap();
        assert_frame(what, &got, &frame(&after));
    }
    let no_discovery = inner.replace(" df", "");
    let silent = [
        (
            "the client lets routers fragment",
            format!("{router} / icmp 3 4 rest=578 / {outer} / {no_discovery}"),
        ),
        (
            "no counterpart",
            format!("{router} / icmp 3 1 / {outer} / {inner6}"),
        ),
        (
            "an error inside",
            format!("{router} / icmp 3 1 / {outer} / 10.9.0.1 > 10.1.0.1 / icmp 3 3 / {inner}"),
        ),
    ];
    for (what, before) in silent {
        let refused = relay(&frame(&before), address("10.1.0.1"), 9);
        assert_eq!(refused, Err(Reason::IcmpForbidden), "{what}");
    }
}

proptest! {
    #[test]
    fn translation_there_and_back_is_the_same(
        v6: bool, cut in 0usize..60, host: u8, port: u16, error in 0u8..3,
    ) {
        let (code, ends, inner, header) = match v6 {
            true => ([1, 2, 3][usize::from(error)], "fd02::1 > fd09::1",
                     format!("fd09::1 > fd02::{host:x} / udp 7 > {port}"), 40),
            false => ([3, 4, 11][usize::from(error)], "10.2.0.1 > 10.9.0.1",
                      format!("10.9.0.1 > 10.2.0.{host} / udp 7 > {port}"), 20),
        };
        let before = frame(&format!("{ends} / icmp {code} 0 / cut {} / {inner}", header + cut));
        let (mut memory, from, until) = roomy(&before);
        let mut f = Frame::new(&mut memory, from, until).unwrap();
        let mut packet = Packet::parse(&mut f).unwrap();
        let first = quoted(&f, &packet).unwrap();
        let origin = packet;
        let there = Endpoint { address: 0x0a01_0001, port: 99 };
        translate_to_client(&mut f, &mut packet, &first, there);
        let second = quoted(&f, &packet).unwrap();
        prop_assert_eq!(second.destination.address, there.address);
        // The outer source and the inner destination are two addresses on the way back.
        let bytes = f.bytes_mut();
        let place = if v6 { 8 } else { 12 };
        field::put_address(bytes, packet.family, packet.network + place, origin.source.address);
        let place = if v6 { 24 } else { 16 };
        field::put_address(bytes, packet.family, first.network + place, first.destination.address);
        if first.has_ports() {
            field::put_u16(bytes, first.transport + 2, first.destination.port);
        }
        if !v6 {
            checksum::write_header(&mut bytes[packet.network..]);
            checksum::write_header(&mut bytes[first.network..]);
        }
        message_checksum(bytes, &origin);
        prop_assert_eq!(f.bytes(), &before[..]);
    }
}
