//! Against the kernel's traces, and what those do not show.

use proptest::prelude::*;

use super::*;
use crate::address::bits;
use crate::forward::hop_limit;
use crate::testing::{assert_frame, frame, hex, roomy};

fn address(text: &str) -> Bits {
    bits(text.parse().unwrap())
}

fn kind(text: &str) -> Tunnel {
    let (name, checksum) = text.split_once('+').unwrap_or((text, "none"));
    let checksum = match checksum {
        "none" => TunnelChecksum::None,
        "full" => TunnelChecksum::Full,
        "remote" => TunnelChecksum::Remote,
        other => panic!("{other}"),
    };
    match name {
        "ipip" => Tunnel::Ipip,
        "gue" => Tunnel::Gue {
            port: 6080,
            checksum,
        },
        "gre" => Tunnel::Gre { checksum },
        other => panic!("{other}"),
    }
}

fn run(before: &[u8], wrap: &Wrap, hops: bool) -> Result<Vec<u8>, Reason> {
    let (mut memory, from, until) = roomy(before);
    let mut frame = Frame::new(&mut memory, from, until).unwrap();
    let mut packet = Packet::parse(&mut frame).unwrap();
    if hops {
        assert!(hop_limit::decrement(&mut frame, &mut packet));
    }
    let outer = encapsulate(&mut frame, &packet, wrap)?;
    let hop = crate::hops::Hop {
        port: crate::hops::PortId(0),
        vlan: outer.vlan,
        source: [2, 0, 0, 0, 0, 2],
        destination: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        local: 0,
    };
    let mut linked = outer;
    crate::forward::link::address(&mut frame, &mut linked, &hop).unwrap();
    assert_eq!(linked, outer);
    assert_eq!(Packet::parse(&mut frame), Ok(outer));
    Ok(frame.bytes().to_vec())
}

/// The kernel's own choices: IPv4's identification and the UDP source port.
fn wrap_as(kind: Tunnel, ip: &[u8]) -> Wrap {
    let family = if ip[0] >> 4 == 4 {
        Family::V4
    } else {
        Family::V6
    };
    let (local, remote) = match family {
        Family::V4 => (12, 16),
        Family::V6 => (8, 24),
    };
    Wrap {
        kind,
        family,
        local: field::address_at(ip, family, local),
        remote: field::address_at(ip, family, remote),
        identification: field::u16_at(ip, 4),
    }
}

#[test]
fn wraps_as_the_kernel_does() {
    let rows = include_str!("kernel.txt")
        .lines()
        .filter(|l| !l.starts_with('#'));
    for row in rows {
        let columns: Vec<&str> = row.split(" | ").collect();
        let wanted = hex(columns[3]);
        let kind = kind(columns[0]);
        let wrap = wrap_as(kind, &wanted);
        let ether_type = |ip: &[u8]| if ip[0] >> 4 == 4 { "0800" } else { "86dd" };
        let link = |ip: &[u8]| {
            let mut out = hex(&format!("020000000001020000000002{}", ether_type(ip)));
            out.extend(ip);
            out
        };
        let mut got = run(&link(&hex(columns[2])), &wrap, true).unwrap();
        let wanted = link(&wanted);
        if matches!(kind, Tunnel::Gue { .. }) {
            take_port(&mut got, &wanted, 14 + ip_length(wrap.family));
        }
        assert_frame(row, &got, &wanted);
    }
}

/// Gives the UDP packet at `at` the other's source port, checksum and all.
fn take_port(bytes: &mut [u8], other: &[u8], at: usize) {
    let (mine, theirs) = (field::u16_at(bytes, at), field::u16_at(other, at));
    let sum = field::u16_at(bytes, at + 6);
    field::put_u16(bytes, at, theirs);
    if sum != 0 {
        field::put_u16(bytes, at + 6, checksum::update(sum, mine, theirs));
    }
}

#[test]
fn wraps_what_the_kernel_was_not_asked() {
    let v4 = |kind, identification| Wrap {
        kind,
        family: Family::V4,
        local: address("10.2.0.1"),
        remote: address("10.2.0.11"),
        identification,
    };
    let rows = [
        (
            "a partial checksum is completed first",
            v4(Tunnel::Ipip, 7),
            "10.9.0.1 > 10.1.0.1 / tcp 1 > 80 S sum=partial / data 9",
            "10.2.0.1 > 10.2.0.11 id=7 / 10.9.0.1 > 10.1.0.1 / tcp 1 > 80 S / data 9",
        ),
        (
            "in a vlan, ECT(1) stays",
            v4(kind("gre+full"), 7),
            "eth vlan=9 / 10.9.0.1 > 10.1.0.1 tos=1 / udp 1 > 80 / data 9",
            "eth vlan=9 / 10.2.0.1 > 10.2.0.11 tos=1 id=7 / gre sum \
          / 10.9.0.1 > 10.1.0.1 tos=1 / udp 1 > 80 / data 9",
        ),
    ];
    for (what, wrap, before, after) in rows {
        let got = run(&frame(before), &wrap, false).unwrap();
        assert_frame(what, &got, &frame(after));
    }
}

#[test]
fn refuses_without_changing_anything() {
    let wrap = Wrap {
        kind: Tunnel::Ipip,
        family: Family::V4,
        local: 1,
        remote: 2,
        identification: 3,
    };
    let mut tight = frame("10.9.0.1 > 10.1.0.1 / tcp 1 > 80 S");
    let before = tight.clone();
    let end = tight.len();
    let mut f = Frame::new(&mut tight, 0, end).unwrap();
    let packet = Packet::parse(&mut f).unwrap();
    assert_eq!(encapsulate(&mut f, &packet, &wrap), Err(Reason::NoHeadroom));
    assert_frame("no headroom", f.bytes(), &before);
    let longest = frame("10.9.0.1 > 10.1.0.1 / udp 1 > 80 / data 65500");
    assert_eq!(run(&longest, &wrap, false), Err(Reason::TooBig));
}

#[test]
fn flows_spread_over_source_ports() {
    let port = |i: u16| {
        let text = format!("10.9.0.1 > 10.1.0.1 / tcp {} > 80 S", 1000 + i);
        let (mut memory, from, until) = roomy(&frame(&text));
        let mut f = Frame::new(&mut memory, from, until).unwrap();
        flow_port(&Packet::parse(&mut f).unwrap())
    };
    let ports: std::collections::HashSet<u16> = (0..200).map(port).collect();
    assert!(ports.len() > 190, "{} ports for 200 flows", ports.len());
    assert!(ports.iter().all(|p| (32_768..61_000).contains(p)));
    assert_eq!(port(5), port(5));
}

proptest! {
    #[test]
    fn strips_to_the_same(
        v6: bool, outer_v6: bool, kind in 0usize..6, class: u8, length in 0usize..200,
        local: u128, remote: u128,
    ) {
        let ends = if v6 { "fd09::1 > fd01::1" } else { "10.9.0.1 > 10.1.0.1" };
        let before = frame(&format!("{ends} tos={class} / udp 1 > 2 / data {length}"));
        let family = if outer_v6 { Family::V6 } else { Family::V4 };
        let mask = if outer_v6 { u128::MAX } else { 0xffff_ffff };
        let names = ["ipip", "gue", "gue+full", "gue+remote", "gre", "gre+full"];
        let kind = super::tests::kind(names[kind]);
        let wrap = Wrap { kind, family, local: local & mask, remote: remote & mask,
            identification: 5 };
        let got = run(&before, &wrap, false).unwrap();
        prop_assert_eq!(&got[14 + overhead(wrap.kind, family)..], &before[14..]);
        // A receiver's sum over what the tunnel's own checksum covers.
        let payload = &got[14 + ip_length(family)..];
        let sum = Sum::default().bytes(payload);
        match wrap.kind {
            Tunnel::Gue { checksum, .. } if checksum != TunnelChecksum::None => {
                let whole = sum.pseudo_header(family, wrap.local, wrap.remote, 17,
                    payload.len());
                prop_assert_eq!(whole.fold(), 0xffff);
            }
            Tunnel::Gre { checksum: TunnelChecksum::Full } => {
                prop_assert_eq!(sum.fold(), 0xffff);
            }
            _ => {}
        }
    }
}
