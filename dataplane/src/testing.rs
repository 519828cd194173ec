//! Frames written as text, for rows of (description, in, out).
//!
//! A line names layers from the outside in, between slashes. Checksums and lengths are
//! computed here, in the plainest way, apart from the code under test.
//!
//! ```text
//! eth to=1 from=2 vlan=7            optional, first
//! 10.9.0.1 > 10.1.0.1 ttl=64 tos=0 id=1 df mf off=800 opts=94040000 sum=bad len=40
//! fd09::1 > fd01::1 ttl=64 tos=0 flow=0
//! hop | dest | route | frag id=1 off=0 mf          IPv6 extension headers
//! tcp 1001 > 80 SA seq=1000 | udp 1 > 2 | sctp 1 > 2 chunk=1     sum=bad|none|partial
//! icmp 3 4 rest=5c8                 type, code, the 4 bytes behind the checksum
//! gue sum | gre sum                 gue between udp and the inner packet
//! cut 28                            only so many bytes of what follows
//! slice 800 408                     only these bytes of what follows
//! data 20 | hex 0011
//! ```

use std::collections::HashMap;
use std::net::IpAddr;

/// The bytes of the frame that `text` describes.
pub fn frame(text: &str) -> Vec<u8> {
    let layers: Vec<Layer> = text.split(" / ").map(Layer::parse).collect();
    let (link, rest) = match layers[0].name() {
        "eth" => (layers[0].clone(), &layers[1..]),
        _ => (Layer::parse("eth"), &layers[..]),
    };
    let mac = |n: usize| [2, 0, 0, 0, 0, n as u8];
    let mut out = Vec::new();
    out.extend(mac(link.number("to", 1)));
    out.extend(mac(link.number("from", 2)));
    if let Some(vlan) = link.get("vlan") {
        out.extend(0x8100u16.to_be_bytes());
        out.extend(vlan.parse::<u16>().unwrap().to_be_bytes());
    }
    for tag in link
        .get("tags")
        .into_iter()
        .flat_map(|tags| tags.split(','))
    {
        let (kind, id) = tag.split_once(':').unwrap();
        out.extend(u16::from_str_radix(kind, 16).unwrap().to_be_bytes());
        out.extend(id.parse::<u16>().unwrap().to_be_bytes());
    }
    let ether_type: u16 = if rest[0].words[0].contains(':') {
        0x86dd
    } else {
        0x0800
    };
    out.extend(ether_type.to_be_bytes());
    out.extend(build(rest, None).0);
    out
}

/// Bytes from hexadecimal digits.
pub fn hex(text: &str) -> Vec<u8> {
    let digit = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

/// Memory with room on both sides of a frame, and where the frame lies.
pub fn roomy(bytes: &[u8]) -> (Vec<u8>, usize, usize) {
    let mut memory = vec![0xee; 256];
    memory.extend(bytes);
    memory.extend([0xee; 256]);
    (memory, 256, 256 + bytes.len())
}

/// Bytes as rows of 16, for messages.
pub fn dump(bytes: &[u8]) -> String {
    let row = |r: &[u8]| {
        r.iter()
            .map(|b| format!("{b:02x}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    bytes.chunks(16).map(row).collect::<Vec<_>>().join("\n")
}

/// Fails with both frames in full where they differ.
pub fn assert_frame(what: &str, got: &[u8], wanted: &[u8]) {
    assert!(
        got == wanted,
        "{what}\ngot ({} bytes)\n{}\nwanted ({} bytes)\n{}",
        got.len(),
        dump(got),
        wanted.len(),
        dump(wanted)
    );
}

/// The Internet checksum of RFC 1071, word by word.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum as u16
}

/// A checksum off by a fixed amount, as ones' complement counts.
fn wrong(checksum: u16) -> u16 {
    let (sum, carry) = checksum.overflowing_add(0x1111);
    sum + u16::from(carry)
}

#[derive(Clone)]
struct Layer {
    words: Vec<String>,
    keys: HashMap<String, String>,
}

impl Layer {
    fn parse(text: &str) -> Self {
        let (keys, words): (Vec<&str>, Vec<&str>) =
            text.split_whitespace().partition(|w| w.contains('='));
        let pair = |k: &str| {
            let (name, value) = k.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        };
        Self {
            words: words.into_iter().map(str::to_owned).collect(),
            keys: keys.into_iter().map(pair).collect(),
        }
    }

    fn name(&self) -> &str {
        &self.words[0]
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    fn number(&self, key: &str, default: usize) -> usize {
        self.get(key).map_or(default, |v| v.parse().unwrap())
    }

    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|w| w == word)
    }

    fn word(&self, index: usize) -> usize {
        self.words[index].parse().unwrap()
    }
}

/// The addresses that a pseudo-header names.
type Ends = (IpAddr, IpAddr);

/// The bytes of these layers and the protocol number of the first.
fn build(layers: &[Layer], ends: Option<Ends>) -> (Vec<u8>, u8) {
    let Some((layer, rest)) = layers.split_first() else {
        return (Vec::new(), 59);
    };
    if layer.words.get(1).is_some_and(|w| w == ">") {
        return ip(layer, rest);
    }
    let (inner, number) = build(rest, ends);
    match layer.name() {
        "tcp" => tcp(layer, &inner, ends),
        "udp" => udp(layer, &inner, ends),
        "sctp" => sctp(layer, &inner),
        "icmp" => icmp(layer, &inner, ends),
        "gue" => ([&[0, number, 0, 0][..], &inner].concat(), 255),
        "gre" => gre(layer, &inner, number),
        "cut" => (inner[..layer.word(1).min(inner.len())].to_vec(), number),
        "slice" => (
            inner[layer.word(1)..layer.word(1) + layer.word(2)].to_vec(),
            number,
        ),
        "data" => ((0..layer.word(1)).map(|i| i as u8).collect(), 59),
        "hex" => (hex(&layer.words[1]), 59),
        "frag" => extension_frag(layer, &inner, number),
        "hop" => ([&[number, 0, 1, 4, 0, 0, 0, 0][..], &inner].concat(), 0),
        "dest" => ([&[number, 0, 1, 4, 0, 0, 0, 0][..], &inner].concat(), 60),
        "route" => ([&[number, 0, 4, 0, 0, 0, 0, 0][..], &inner].concat(), 43),
        other => panic!("no such layer: {other}"),
    }
}

fn ip(layer: &Layer, rest: &[Layer]) -> (Vec<u8>, u8) {
    let ends: Ends = (
        layer.words[0].parse().unwrap(),
        layer.words[2].parse().unwrap(),
    );
    let (inner, number) = build(rest, Some(ends));
    let number = layer.number("proto", number.into()) as u8;
    let (ttl, tos) = (layer.number("ttl", 64) as u8, layer.number("tos", 0) as u8);
    match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let options = hex(layer.get("opts").unwrap_or(""));
            let header = 20 + options.len();
            let length = layer.number("len", header + inner.len()) as u16;
            let flags = u16::from(layer.has("df")) << 14 | u16::from(layer.has("mf")) << 13;
            let place = flags | (layer.number("off", 0) / 8) as u16;
            let mut out = vec![0x40 | (header / 4) as u8, tos];
            out.extend(length.to_be_bytes());
            out.extend((layer.number("id", 1) as u16).to_be_bytes());
            out.extend(place.to_be_bytes());
            out.extend([ttl, number, 0, 0]);
            out.extend(source.octets());
            out.extend(destination.octets());
            out.extend(options);
            let sum = checksum(&out)
                ^ if layer.get("sum") == Some("bad") {
                    0x5555
                } else {
                    0
                };
            out[10..12].copy_from_slice(&sum.to_be_bytes());
            out.extend(inner);
            (out, 4)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = layer.number("len", inner.len()) as u16;
            let first = 6 << 28 | u32::from(tos) << 20 | layer.number("flow", 0) as u32;
            let mut out = first.to_be_bytes().to_vec();
            out.extend(length.to_be_bytes());
            out.extend([number, ttl]);
            out.extend(source.octets());
            out.extend(destination.octets());
            out.extend(inner);
            (out, 41)
        }
        _ => panic!("mixed families"),
    }
}

fn extension_frag(layer: &Layer, inner: &[u8], number: u8) -> (Vec<u8>, u8) {
    let place = layer.number("off", 0) as u16 | u16::from(layer.has("mf"));
    let mut out = vec![number, 0];
    out.extend(place.to_be_bytes());
    out.extend((layer.number("id", 1) as u32).to_be_bytes());
    out.extend(inner);
    (out, 44)
}

fn pseudo(ends: Option<Ends>, number: u8, length: usize) -> Vec<u8> {
    let (source, destination) = ends.expect("a transport layer needs an IP layer around it");
    let mut out = Vec::new();
    for end in [source, destination] {
        match end {
            IpAddr::V4(v4) => out.extend(v4.octets()),
            IpAddr::V6(v6) => out.extend(v6.octets()),
        }
    }
    out.extend((length as u32).to_be_bytes());
    out.extend([0, 0, 0, number]);
    out
}

/// Fills the checksum at `at` as the layer's `sum` asks.
fn seal(
    layer: &Layer,
    mut segment: Vec<u8>,
    at: usize,
    number: u8,
    pseudo: &[u8],
) -> (Vec<u8>, u8) {
    let full = checksum(&[pseudo, &segment].concat());
    let sum = match layer.get("sum") {
        None if number == 17 && full == 0 => 0xffff,
        None => full,
        Some("none") => 0,
        Some("bad") => wrong(full),
        Some("partial") => !checksum(pseudo),
        Some(other) => u16::from_str_radix(other, 16).unwrap(),
    };
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    (segment, number)
}

fn ports(layer: &Layer) -> Vec<u8> {
    let port = |i: usize| (layer.word(i) as u16).to_be_bytes();
    [port(1), port(3)].concat()
}

fn tcp(layer: &Layer, inner: &[u8], ends: Option<Ends>) -> (Vec<u8>, u8) {
    let letters = layer.words.get(4).map_or("", String::as_str);
    let bit = |c: char| 1u8 << "FSRPAU".find(c).unwrap();
    let flags = letters
        .chars()
        .filter(|&c| c != '-')
        .map(bit)
        .fold(0, |a, b| a | b);
    let mut out = ports(layer);
    out.extend((layer.number("seq", 1000) as u32).to_be_bytes());
    out.extend([0, 0, 0, 0, 5 << 4, flags, 0x20, 0, 0, 0, 0, 0]);
    out.extend(inner);
    let pseudo = pseudo(ends, 6, out.len());
    seal(layer, out, 16, 6, &pseudo)
}

fn udp(layer: &Layer, inner: &[u8], ends: Option<Ends>) -> (Vec<u8>, u8) {
    let mut out = ports(layer);
    out.extend((8 + inner.len() as u16).to_be_bytes());
    out.extend([0, 0]);
    out.extend(inner);
    let pseudo = pseudo(ends, 17, out.len());
    seal(layer, out, 6, 17, &pseudo)
}

fn icmp(layer: &Layer, inner: &[u8], ends: Option<Ends>) -> (Vec<u8>, u8) {
    let rest = u32::from_str_radix(layer.get("rest").unwrap_or("0"), 16).unwrap();
    let mut out = vec![layer.word(1) as u8, layer.word(2) as u8, 0, 0];
    out.extend(rest.to_be_bytes());
    out.extend(inner);
    match ends {
        Some((IpAddr::V6(_), _)) => {
            let pseudo = pseudo(ends, 58, out.len());
            seal(layer, out, 2, 58, &pseudo)
        }
        _ => seal(layer, out, 2, 1, &[]),
    }
}

fn sctp(layer: &Layer, inner: &[u8]) -> (Vec<u8>, u8) {
    let chunk = layer.number("chunk", 1) as u8;
    let mut out = ports(layer);
    out.extend([0, 0, 0, 1, 0, 0, 0, 0, chunk, 0]);
    out.extend((4 + inner.len() as u16).to_be_bytes());
    out.extend(inner);
    let crc = match layer.get("sum") {
        Some("partial") => 0,
        Some("bad") => crc32c(&out) ^ 1,
        _ => crc32c(&out),
    };
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    (out, 132)
}

/// CRC32c bit by bit (RFC 9260, appendix A; the polynomial reflected).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
    !bytes
        .iter()
        .fold(u32::MAX, |crc, &b| (0..8).fold(crc ^ u32::from(b), step))
}

fn gre(layer: &Layer, inner: &[u8], number: u8) -> (Vec<u8>, u8) {
    let ether_type: u16 = if number == 41 { 0x86dd } else { 0x0800 };
    let mut out = vec![0, 0];
    out.extend(ether_type.to_be_bytes());
    if layer.has("sum") {
        out[0] = 0x80;
        out.extend([0; 4]);
    }
    out.extend(inner);
    if layer.has("sum") {
        let sum = checksum(&out);
        out[4..6].copy_from_slice(&sum.to_be_bytes());
    }
    (out, 47)
}
