//! Both directions together: what comes in pieces, what goes out in pieces.

use proptest::prelude::*;

use super::*;
use crate::forward::tunnel::{self, Wrap};
use crate::frame::{Frame, Packet};
use crate::testing::{assert_frame, frame, roomy};
use crate::time::{Ticks, ticks};
use crate::verdict::Reason;

const TIMEOUT: Ticks = ticks(30);

fn offer(reassembly: &mut Reassembly, now: Ticks, bytes: &[u8]) -> Offered {
    let (mut memory, from, until) = roomy(bytes);
    let mut frame = Frame::new(&mut memory, from, until).unwrap();
    let packet = Packet::parse(&mut frame).unwrap();
    reassembly.offer(now, &frame, &packet)
}

/// What each fragment met, and the datagram if the last completed one.
fn gather(fragments: &[Vec<u8>]) -> (Vec<Offered>, Option<(Vec<u8>, Geometry)>) {
    let mut reassembly = Reassembly::new(8, TIMEOUT);
    let met = fragments
        .iter()
        .map(|f| offer(&mut reassembly, 0, f))
        .collect();
    let whole = reassembly.whole().map(|(frame, geometry)| {
        assert!(frame.headroom() >= 256);
        (frame.bytes().to_vec(), geometry.clone())
    });
    (met, whole)
}

fn split(bytes: &[u8], mtu: u16, geometry: Option<&Geometry>, id: u32) -> Vec<Vec<u8>> {
    let (mut memory, from, until) = roomy(bytes);
    let mut frame = Frame::new(&mut memory, from, until).unwrap();
    let packet = Packet::parse(&mut frame).unwrap();
    let mut pieces = Pieces::new();
    pieces.load(&frame, &packet, mtu, geometry, id);
    pull(&mut pieces)
}

fn pull(pieces: &mut Pieces) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let mut memory = vec![0xee; 4096];
        let mut piece = Frame::new(&mut memory, 64, 64).unwrap();
        if !pieces.next(&mut piece) {
            return out;
        }
        out.push(piece.bytes().to_vec());
    }
}

fn frames(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| frame(text)).collect()
}

const HELD: Offered = Offered::Held;
const WHOLE: Offered = Offered::Whole;
const INVALID: Offered = Offered::Drop(Reason::FragmentInvalid);

/// A fragment of the datagram that most rows use: 1,200 bytes of UDP over IPv4.
fn part(offset: usize, length: usize, words: &str) -> Vec<u8> {
    let more = if offset + length < 1208 { "mf" } else { "" };
    frame(&format!(
        "10.9.0.1 > 10.1.0.1 id=5 off={offset} {more} {words} \
         / slice {offset} {length} / udp 3001 > 53 / data 1200"
    ))
}

#[test]
fn puts_together_as_the_kernel_does() {
    let datagram = |words: &str| {
        Some(format!(
            "10.9.0.1 > 10.1.0.1 id=5 {words} / udp 3001 > 53 / data 1200"
        ))
    };
    let rows = [
        (
            "in order",
            vec![part(0, 800, ""), part(800, 408, "")],
            vec![HELD, WHOLE],
            datagram(""),
        ),
        (
            "the last first",
            vec![part(800, 408, ""), part(0, 800, "")],
            vec![HELD, WHOLE],
            datagram(""),
        ),
        (
            "backwards in three",
            vec![part(800, 408, ""), part(400, 400, ""), part(0, 400, "")],
            vec![HELD, HELD, WHOLE],
            datagram(""),
        ),
        (
            "repetitions, also of a part, are ignored",
            vec![
                part(0, 800, ""),
                part(0, 800, ""),
                part(0, 400, ""),
                part(800, 408, ""),
            ],
            vec![HELD, HELD, HELD, WHOLE],
            datagram(""),
        ),
        (
            "an overlap ends the datagram",
            vec![part(0, 800, ""), part(792, 416, ""), part(800, 408, "")],
            vec![HELD, INVALID, HELD],
            None,
        ),
        (
            "nothing may follow the last",
            vec![
                part(800, 408, ""),
                frame("10.9.0.1 > 10.1.0.1 id=5 off=1208 mf proto=17 / data 8"),
            ],
            vec![HELD, INVALID],
            None,
        ),
        (
            "the last may not lie before what is there",
            vec![
                part(400, 400, ""),
                frame("10.9.0.1 > 10.1.0.1 id=5 off=8 proto=17 / data 8"),
            ],
            vec![HELD, INVALID],
            None,
        ),
        (
            "time to live and options are the first fragment's, congestion is anyone's",
            vec![
                part(0, 800, "ttl=9 tos=2 opts=94040000"),
                part(800, 408, "ttl=20 tos=3"),
            ],
            vec![HELD, WHOLE],
            datagram("ttl=9 tos=3 opts=94040000"),
        ),
        (
            "some ECN-capable and some not",
            vec![part(0, 800, "tos=1"), part(800, 408, "")],
            vec![HELD, INVALID],
            None,
        ),
        (
            "none to be fragmented",
            vec![part(0, 800, "df"), part(800, 408, "df")],
            vec![HELD, WHOLE],
            datagram("df"),
        ),
        (
            "only the shorter not to be fragmented",
            vec![part(0, 800, ""), part(800, 408, "df")],
            vec![HELD, WHOLE],
            datagram(""),
        ),
        (
            "another identification is another datagram",
            vec![part(0, 800, ""), part(800, 408, "id=6")],
            vec![HELD, HELD],
            None,
        ),
        (
            "more than 65,535 bytes with its header",
            frames(&[
                "10.9.0.1 > 10.1.0.1 id=5 off=65512 proto=17 / data 8",
                "10.9.0.1 > 10.1.0.1 id=5 mf proto=17 / data 65512",
            ]),
            vec![HELD, INVALID],
            None,
        ),
        (
            "ipv6, the last first",
            frames(&[
                "fd09::1 > fd01::1 / hop / frag id=7 off=800 / slice 800 408 / udp 1 > 2 / data 1200",
                "fd09::1 > fd01::1 ttl=3 / hop / frag id=7 mf / slice 0 800 / udp 1 > 2 / data 1200",
            ]),
            vec![HELD, WHOLE],
            Some("fd09::1 > fd01::1 ttl=3 / hop / udp 1 > 2 / data 1200".to_owned()),
        ),
        (
            "ipv6 in a vlan, congestion",
            frames(&[
                "eth vlan=7 / fd09::1 > fd01::1 tos=2 / frag id=7 mf / slice 0 8 / udp 1 > 2 / data 9",
                "eth vlan=7 / fd09::1 > fd01::1 tos=3 / frag id=7 off=8 / slice 8 9 / udp 1 > 2 / data 9",
            ]),
            vec![HELD, WHOLE],
            Some("eth vlan=7 / fd09::1 > fd01::1 tos=3 / udp 1 > 2 / data 9".to_owned()),
        ),
    ];
    for (what, fragments, met, datagram) in rows {
        let (got, whole) = gather(&fragments);
        assert_eq!(got, met, "{what}");
        match (whole, datagram) {
            (Some((got, _)), Some(wanted)) => assert_frame(what, &got, &frame(&wanted)),
            (got, wanted) => assert_eq!(got.is_some(), wanted.is_some(), "{what}"),
        }
    }
}

#[test]
fn leaves_as_the_kernel_lets_it() {
    let udp = "udp 3001 > 53 / data 1400";
    let rows = [
        ("fits", 1500, vec![], format!("10.9.0.1 > 10.1.0.1 / {udp}"),
         vec![format!("10.9.0.1 > 10.1.0.1 / {udp}")]),
        ("split by mtu, every fragment with its copied option", 1300, vec![],
         format!("10.9.0.1 > 10.1.0.1 id=602 opts=94040000 / {udp}"),
         vec![format!("10.9.0.1 > 10.1.0.1 id=602 mf opts=94040000 / slice 0 1272 / {udp}"),
              format!("10.9.0.1 > 10.1.0.1 id=602 off=1272 opts=94040000 / slice 1272 136 / {udp}")]),
        ("an option that is not copied becomes no-operations", 1300, vec![],
         format!("10.9.0.1 > 10.1.0.1 id=602 opts=0707040000000000 / {udp}"),
         vec![format!("10.9.0.1 > 10.1.0.1 id=602 mf opts=0707040000000000 / slice 0 1272 / {udp}"),
              format!("10.9.0.1 > 10.1.0.1 id=602 off=1272 opts=0101010101010100 / slice 1272 136 / {udp}")]),
        ("what is a fragment already", 300, vec![],
         "10.9.0.1 > 10.1.0.1 id=5 mf off=800 / slice 800 400 / udp 1 > 2 / data 1400".to_owned(),
         vec!["10.9.0.1 > 10.1.0.1 id=5 mf off=800 / slice 800 280 / udp 1 > 2 / data 1400".to_owned(),
              "10.9.0.1 > 10.1.0.1 id=5 mf off=1080 / slice 1080 120 / udp 1 > 2 / data 1400".to_owned()]),
        ("as it came", 1500, vec![part(0, 400, ""), part(400, 400, ""), part(800, 408, "")],
         "eth vlan=3 / 10.9.0.1 > 10.2.0.11 id=5 df / udp 3001 > 53 / data 1200".to_owned(),
         vec!["eth vlan=3 / 10.9.0.1 > 10.2.0.11 id=5 df mf / slice 0 400 / udp 3001 > 53 / data 1200".to_owned(),
              "eth vlan=3 / 10.9.0.1 > 10.2.0.11 id=5 df mf off=400 / slice 400 400 / udp 3001 > 53 / data 1200".to_owned(),
              "eth vlan=3 / 10.9.0.1 > 10.2.0.11 id=5 df off=800 / slice 800 408 / udp 3001 > 53 / data 1200".to_owned()]),
        ("as it came would not fit", 700, vec![part(0, 800, ""), part(800, 408, "")],
         "10.9.0.1 > 10.2.0.11 id=5 / udp 3001 > 53 / data 1200".to_owned(),
         vec!["10.9.0.1 > 10.2.0.11 id=5 mf / slice 0 680 / udp 3001 > 53 / data 1200".to_owned(),
              "10.9.0.1 > 10.2.0.11 id=5 off=680 / slice 680 528 / udp 3001 > 53 / data 1200".to_owned()]),
        ("ipv6 that fits", 1500, vec![], format!("fd09::1 > fd01::1 / hop / {udp}"),
         vec![format!("fd09::1 > fd01::1 / hop / {udp}")]),
        ("an ipv6 tunnel packet", 1500, vec![],
         "fd02::1 > fd02::13 / 10.9.0.1 > 10.1.0.3 / tcp 1 > 80 A / data 1440".to_owned(),
         vec!["fd02::1 > fd02::13 / frag id=77 mf / slice 0 1448 / 10.9.0.1 > 10.1.0.3 / tcp 1 > 80 A / data 1440".to_owned(),
              "fd02::1 > fd02::13 / frag id=77 off=1448 / slice 1448 32 / 10.9.0.1 > 10.1.0.3 / tcp 1 > 80 A / data 1440".to_owned()]),
        ("behind what every ipv6 fragment bears", 1280, vec![],
         format!("fd09::1 > fd01::1 / hop / dest / route / dest / {udp}"),
         vec![format!("fd09::1 > fd01::1 / hop / dest / route / frag id=77 mf / slice 0 1208 / dest / {udp}"),
              format!("fd09::1 > fd01::1 / hop / dest / route / frag id=77 off=1208 / slice 1208 208 / dest / {udp}")]),
        ("no room", 27, vec![], format!("10.9.0.1 > 10.1.0.1 / {udp}"), vec![]),
        ("no room in ipv6", 55, vec![], format!("fd09::1 > fd01::1 / {udp}"), vec![]),
    ];
    for (what, mtu, came, before, after) in rows {
        let geometry = gather(&came).1.map(|(_, geometry)| geometry);
        let got = split(&frame(&before), mtu, geometry.as_ref(), 77);
        assert_eq!(got.len(), after.len(), "{what}: pieces");
        for (got, wanted) in got.iter().zip(&after) {
            assert_frame(what, got, &frame(wanted));
        }
    }
}

/// Linux's trace: two fragments of 1,400 and 1,008 bytes, then a GUE tunnel's 32 bytes in
/// front: the first would be longer than any that came, so the tunnel packet is split anew,
/// in packets as long as the longest that came.
#[test]
fn a_tunnel_packet_around_fragments() {
    let came = frames(&[
        "10.9.0.1 > 10.1.0.7 id=500 mf / slice 0 1400 / udp 1 > 53 / data 2400",
        "10.9.0.1 > 10.1.0.7 id=500 off=1400 / slice 1400 1008 / udp 1 > 53 / data 2400",
    ]);
    let (bytes, geometry) = gather(&came).1.unwrap();
    assert_eq!(geometry.largest, 1420);
    let (mut memory, from, until) = roomy(&bytes);
    let mut frame = Frame::new(&mut memory, from, until).unwrap();
    let packet = Packet::parse(&mut frame).unwrap();
    let wrap = Wrap {
        kind: sched::server::Tunnel::Gue {
            port: 6080,
            checksum: sched::server::TunnelChecksum::Full,
        },
        family: sched::service::Family::V4,
        local: 1,
        remote: 2,
        identification: 3,
    };
    let outer = tunnel::encapsulate(&mut frame, &packet, &wrap).unwrap();
    let mut pieces = Pieces::new();
    pieces.load(&frame, &outer, 1500, Some(&geometry), 0);
    let lengths: Vec<usize> = pull(&mut pieces).iter().map(|p| p.len() - 14).collect();
    assert_eq!(lengths, [1420, 1060]);
    // A first fragment with room to grow keeps the others as they came.
    let came = frames(&[
        "10.9.0.1 > 10.1.0.7 id=500 mf / slice 0 800 / udp 1 > 53 / data 2400",
        "10.9.0.1 > 10.1.0.7 id=500 off=800 / slice 800 1608 / udp 1 > 53 / data 2400",
    ]);
    let geometry = gather(&came).1.unwrap().1;
    pieces.load(&frame, &outer, 2000, Some(&geometry), 0);
    let lengths: Vec<usize> = pull(&mut pieces).iter().map(|p| p.len() - 14).collect();
    assert_eq!(lengths, [20 + 832, 20 + 1608]);
}

#[test]
fn a_piece_without_room_ends_the_datagram() {
    let bytes = frame("10.9.0.1 > 10.1.0.1 / udp 1 > 2 / data 3000");
    let (mut memory, from, until) = roomy(&bytes);
    let mut whole = Frame::new(&mut memory, from, until).unwrap();
    let packet = Packet::parse(&mut whole).unwrap();
    let mut pieces = Pieces::new();
    pieces.load(&whole, &packet, 1500, None, 0);
    let mut small = vec![0; 1000];
    assert!(!pieces.next(&mut Frame::new(&mut small, 0, 0).unwrap()));
    assert!(pull(&mut pieces).is_empty());
}

#[test]
fn forgets_what_stays_incomplete() {
    let mut reassembly = Reassembly::new(8, TIMEOUT);
    assert_eq!(offer(&mut reassembly, 100, &part(0, 800, "")), HELD);
    assert_eq!(reassembly.tidy(100 + TIMEOUT - 1), 0);
    assert_eq!(reassembly.tidy(100 + TIMEOUT), 1);
    assert_eq!(reassembly.tidy(100 + TIMEOUT), 0);
    assert_eq!(
        offer(&mut reassembly, 100 + TIMEOUT, &part(800, 408, "")),
        HELD
    );
    // Also where nobody tidied in between.
    let late = 100 + 2 * TIMEOUT;
    assert_eq!(offer(&mut reassembly, late, &part(0, 800, "")), HELD);
    assert_eq!(reassembly.tidy(late), 1);
    assert_eq!(offer(&mut reassembly, late, &part(800, 408, "")), WHOLE);
    assert_eq!(
        reassembly.tidy(late + TIMEOUT),
        0,
        "a whole datagram is not lost"
    );
}

#[test]
fn nobody_takes_all_the_room() {
    let first = |host: usize, id: usize| {
        frame(&format!(
            "10.9.0.{host} > 10.1.0.1 id={id} mf / slice 0 8 / udp 1 > 2 / data 8"
        ))
    };
    let last = |host: usize, id: usize| {
        frame(&format!(
            "10.9.0.{host} > 10.1.0.1 id={id} off=8 / slice 8 8 / udp 1 > 2 / data 8"
        ))
    };
    let mut reassembly = Reassembly::new(8, TIMEOUT);
    assert_eq!(offer(&mut reassembly, 0, &first(9, 1)), HELD);
    for id in 0..20 {
        assert_eq!(offer(&mut reassembly, 1 + id as Ticks, &first(1, id)), HELD);
    }
    assert_eq!(reassembly.evicted(), 18, "a quarter of eight is two");
    assert_eq!(
        offer(&mut reassembly, 30, &last(1, 19)),
        WHOLE,
        "the newest stay"
    );
    assert_eq!(
        offer(&mut reassembly, 30, &last(9, 1)),
        WHOLE,
        "others feel nothing"
    );
    // Many senders: the oldest goes.
    let mut reassembly = Reassembly::new(8, TIMEOUT);
    for host in 0..9 {
        assert_eq!(offer(&mut reassembly, host as Ticks, &first(host, 1)), HELD);
    }
    assert_eq!(reassembly.evicted(), 1);
    assert_eq!(offer(&mut reassembly, 9, &last(1, 1)), WHOLE);
    assert_eq!(offer(&mut reassembly, 9, &last(0, 1)), HELD);
}

proptest! {
    #[test]
    fn split_then_put_together_is_the_same(
        v6: bool, options: bool, length in 0usize..9000, mtu in 68u16..2000, order: u64,
    ) {
        let mtu = if v6 { mtu + 1212 } else { mtu };
        let text = match (v6, options) {
            (true, true) => format!("fd09::1 > fd01::1 tos=5 / hop / route / udp 1 > 2 / data {length}"),
            (true, false) => format!("fd09::1 > fd01::1 flow=7 / udp 1 > 2 / data {length}"),
            (false, true) => format!("10.9.0.1 > 10.1.0.1 opts=94040000 / udp 1 > 2 / data {length}"),
            (false, false) => format!("10.9.0.1 > 10.1.0.1 tos=9 / udp 1 > 2 / data {length}"),
        };
        let datagram = frame(&text);
        let pieces = split(&datagram, mtu, None, 0xdead_beef);
        prop_assert!(pieces.iter().all(|p| p.len() - 14 <= usize::from(mtu)));
        if pieces.len() == 1 {
            prop_assert_eq!(&pieces[0], &datagram);
            return Ok(());
        }
        let mut shuffled = pieces.clone();
        let mut seed = order;
        for i in (1..shuffled.len()).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            shuffled.swap(i, (seed >> 33) as usize % (i + 1));
        }
        let (met, whole) = gather(&shuffled);
        let (last, others) = met.split_last().unwrap();
        prop_assert!(*last == WHOLE && others.iter().all(|&m| m == HELD));
        let (whole, geometry) = whole.unwrap();
        prop_assert_eq!(&whole, &datagram);
        prop_assert_eq!(split(&whole, 9000, Some(&geometry), 0xdead_beef), pieces);
    }

    /// Whatever arrives, the reassembly answers, and a datagram that it calls whole parses
    /// up to its transport header.
    #[test]
    fn any_fragments_are_survived(
        parts in prop::collection::vec((0usize..40, 1usize..20, any::<bool>(), 0u32..2, any::<bool>()), 1..40),
    ) {
        let mut reassembly = Reassembly::new(2, TIMEOUT);
        for (offset, length, more, id, v6) in parts {
            let flag = if more { "mf" } else { "" };
            let bytes = match v6 {
                true => frame(&format!("fd09::1 > fd01::1 / frag id={id} off={} {flag} / data {}",
                    offset * 8, length * 8)),
                false => frame(&format!("10.9.0.1 > 10.1.0.1 id={id} off={} {flag} / data {}",
                    offset * 8, length * 8)),
            };
            let (mut memory, from, until) = roomy(&bytes);
            let mut f = Frame::new(&mut memory, from, until).unwrap();
            let packet = Packet::parse(&mut f).unwrap();
            let met = reassembly.offer(0, &f, &packet);
            if packet.fragment.is_some() && met == WHOLE {
                let (mut whole, _) = reassembly.whole().unwrap();
                prop_assert!(Packet::parse(&mut whole).unwrap().fragment.is_none());
            }
        }
    }
}
