//! The real director over bursts of frames in memory, on one core: parse, look up, state,
//! rewrite, checksums, counters. What a driver or a wire would add is not in it.

use std::fmt;
use std::hint::black_box;
use std::time::Instant;

use dataplane::time::Ticks;
use dataplane::verdict::Verdict;
use sched::server::{Forwarding, Tunnel, TunnelChecksum};
use sched::service::{Family, Protocol};
use serde::{Deserialize, Serialize};

use crate::counters::Counters;
use crate::spread::Spread;
use crate::traffic::{ACK, Burst, Content, End, SYN, Seat, client};
use crate::world::{REAL_PORT, VIRTUAL_PORT, World, virtual_address};

/// Frames handled in one go, as a worker's burst.
pub(crate) const BURST: usize = 64;

/// Connections that one core's ports and addresses can make; see [`client`].
pub const CONNECTIONS_MAX: u64 = 1 << 29;

/// How packets reach the servers, and which way they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// NAT, from clients.
    Nat,
    /// NAT, replies to clients.
    NatReply,
    /// Direct routing.
    Dr,
    /// IP in IP.
    Ipip,
    /// GUE, without checksum.
    Gue,
}

impl Method {
    /// The servers' forwarding method.
    pub fn forwarding(self) -> Forwarding {
        match self {
            Self::Nat | Self::NatReply => Forwarding::Masquerade,
            Self::Dr => Forwarding::Route,
            Self::Ipip => Forwarding::Tunnel(Tunnel::Ipip),
            Self::Gue => Forwarding::Tunnel(Tunnel::Gue {
                port: 6080,
                checksum: TunnelChecksum::None,
            }),
        }
    }

    /// Whether the servers see the virtual port.
    pub fn keeps_port(self) -> bool {
        !matches!(self, Self::Nat | Self::NatReply)
    }
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// How packets are forwarded.
    pub method: Method,
    /// The clients' and servers' family.
    pub family: Family,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The frames' length, bytes.
    pub frame_bytes: usize,
    /// Connections that are there before the clock starts; packets hit them at random.
    pub connections: u64,
    /// Of 1,000 packets, how many begin a connection.
    pub new_per_mille: u32,
    /// Virtual services.
    pub services: u32,
    /// Real servers of each.
    pub servers: u32,
    /// The scheduler.
    pub scheduler: String,
    /// Packets in one round.
    pub packets: u64,
    /// Rounds; the median counts.
    pub rounds: usize,
    /// Keys the table's hash and the order of packets.
    pub seed: u64,
}

/// What came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Nanoseconds a packet, by round.
    pub ns: Spread,
    /// What the processor counted for a packet, where it counts.
    pub counted: Option<Counted>,
}

/// Events for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Instructions.
    pub instructions: f64,
    /// Look-ups that the last level of the cache could not answer.
    pub cache_misses: Option<f64>,
    /// Whether callgrind counted, which simulates the cache.
    pub simulated: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let median = self.ns.median();
        write!(
            f,
            "{median:.1} ns a packet ({:.2} Mpps); {} rounds from {:.1} to {:.1} ns",
            1000.0 / median,
            self.ns.len(),
            self.ns.least(),
            self.ns.most(),
        )?;
        let Some(counted) = self.counted else {
            return Ok(());
        };
        write!(f, "; {:.0} instructions", counted.instructions)?;
        if let Some(misses) = counted.cache_misses {
            write!(f, ", {misses:.2} last-level cache misses")?;
        }
        f.write_str(if counted.simulated {
            " (by callgrind)"
        } else {
            ""
        })
    }
}

/// Measures. A verdict other than "transmit" is a mistake of the set-up, and ends it.
///
/// # Errors
/// What the options ask for that cannot be, in words.
pub fn run(options: &Options) -> Result<Report, String> {
    check(options)?;
    let mut bench = Bench::new(options);
    bench.fill();
    let ns: Vec<f64> = (0..options.rounds).map(|_| bench.round()).collect();
    // Apart from the clock's rounds: starting and stopping the counters takes time.
    let counted = bench.counted();
    Ok(Report {
        ns: ns.into(),
        counted,
    })
}

fn check(options: &Options) -> Result<(), String> {
    let refused = if options.protocol == Protocol::Sctp {
        "TCP or UDP only: SCTP's checksum costs more than all else"
    } else if options.connections == 0 || options.connections > CONNECTIONS_MAX {
        "1 to 536,870,912 connections"
    } else if options.services == 0 || options.services > 4096 || options.servers == 0 {
        "1 to 4,096 services, with at least one server each"
    } else if options.servers > 200 {
        "at most 200 servers a service"
    } else if options.rounds == 0 || options.packets == 0 {
        "at least one round of at least one packet"
    } else if options.frame_bytes > 1514 {
        "frames of at most 1,514 bytes"
    } else if sched::scheduler::by_name(&options.scheduler, Default::default(), &[]).is_none() {
        "no scheduler of that name"
    } else {
        return Ok(());
    };
    Err(refused.to_owned())
}

pub(crate) struct Bench<'o> {
    options: &'o Options,
    pub(crate) world: World,
    burst: Burst,
    /// Where the reply of a connection comes from, for replies only.
    reals: Vec<End>,
    begun: u64,
    random: u64,
    now: Ticks,
}

impl<'o> Bench<'o> {
    fn new(options: &'o Options) -> Self {
        Self {
            options,
            world: World::new(options),
            burst: Burst::new(BURST),
            reals: Vec::new(),
            begun: 0,
            random: options.seed | 1,
            now: 1 << 20,
        }
    }

    /// Over a world of the caller's.
    pub(crate) fn over(options: &'o Options, world: World) -> Self {
        Self {
            world,
            ..Self::new(options)
        }
    }

    /// Begins all connections, and lets each be established from the client's side.
    fn fill(&mut self) {
        let all = self.options.connections;
        if self.options.method == Method::NatReply {
            (0..all).for_each(|number| self.begin(number));
        }
        for first in (0..all).step_by(BURST) {
            self.all_of(first, SYN);
            if self.options.protocol == Protocol::Tcp {
                self.all_of(first, ACK);
            }
        }
        self.begun = all;
    }

    /// A frame of each of the next [`BURST`] connections, round the whole number of them;
    /// what handling them took, ns.
    pub(crate) fn all_of(&mut self, first: u64, flags: u8) -> u128 {
        for index in 0..BURST {
            let number = (first + index as u64) % self.options.connections;
            let content = self.inbound(number, flags);
            self.burst.write(index, &content);
        }
        let begin = Instant::now();
        self.handle_burst();
        begin.elapsed().as_nanos()
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, ticks: Ticks) {
        self.now += ticks;
    }

    /// The moment.
    pub(crate) fn now(&self) -> Ticks {
        self.now
    }

    fn begin(&mut self, number: u64) {
        let content = self.inbound(number, SYN);
        let out = self.handle_one(&content);
        if self.options.method == Method::NatReply {
            self.reals
                .push((destination(&out, self.options.family), REAL_PORT));
        }
    }

    /// Handles one frame and returns what became of its first bytes.
    fn handle_one(&mut self, content: &Content) -> [u8; 64] {
        self.burst.write(0, content);
        let frame = &mut self.burst.seats()[0].frame;
        let verdict = self
            .world
            .director
            .handle(&self.world.snapshot, self.now, frame);
        assert!(
            matches!(verdict, Verdict::Transmit(_)),
            "{verdict:?} for {content:?}"
        );
        let mut first = [0; 64];
        let bytes = &frame.bytes()[..frame.len().min(64)];
        first[..bytes.len()].copy_from_slice(bytes);
        self.world.director.tidy(&self.world.snapshot, self.now);
        first
    }

    /// One round: nanoseconds a packet. Frames are written between the stops of the clock.
    pub(crate) fn round(&mut self) -> f64 {
        let bursts = self.options.packets.div_ceil(BURST as u64);
        let mut spent = 0u128;
        for _ in 0..bursts {
            self.write_burst();
            let begin = Instant::now();
            self.handle_burst();
            spent += begin.elapsed().as_nanos();
        }
        spent as f64 / (bursts * BURST as u64) as f64
    }

    /// A round under the processor's counters, where it has some.
    fn counted(&mut self) -> Option<Counted> {
        let mut counters = Counters::of_this_core()?;
        let bursts = self.options.packets.div_ceil(BURST as u64);
        for _ in 0..bursts {
            self.write_burst();
            counters.during(|| self.handle_burst());
        }
        let (instructions, misses) = counters.read()?;
        let packets = (bursts * BURST as u64) as f64;
        Some(Counted {
            instructions: instructions as f64 / packets,
            cache_misses: misses.map(|misses| misses as f64 / packets),
            simulated: false,
        })
    }

    fn write_burst(&mut self) {
        for index in 0..BURST {
            let content = self.next_content();
            self.burst.write(index, &content);
        }
    }

    /// What a worker does with a burst. Never inlined, so that callgrind can count it alone:
    /// `valgrind --tool=callgrind --toggle-collect='*handle_burst*'`.
    #[inline(never)]
    fn handle_burst(&mut self) {
        let World { director, snapshot } = &mut self.world;
        for seat in self.burst.seats() {
            director.glance(snapshot, &seat.frame, &mut seat.glance);
        }
        for seat in self.burst.seats() {
            director.reach(&mut seat.glance);
        }
        let mut ports = 0;
        for Seat { frame, glance } in self.burst.seats() {
            match director.handle_glanced(snapshot, self.now, frame, glance) {
                Verdict::Transmit(port) => ports |= port.0,
                verdict => unexpected(&verdict),
            }
        }
        black_box(ports);
        director.tidy(snapshot, self.now);
    }

    fn next_content(&mut self) -> Content {
        let random = self.next_random();
        let is_new = random % 1000 < u64::from(self.options.new_per_mille);
        if is_new && self.begun < CONNECTIONS_MAX {
            self.begun += 1;
            return self.inbound(self.begun - 1, SYN);
        }
        let number = (random >> 20) % self.options.connections;
        match self.options.method {
            Method::NatReply => self.reply(number),
            _ => self.inbound(number, ACK),
        }
    }

    fn inbound(&self, number: u64, flags: u8) -> Content {
        let service = (number % u64::from(self.options.services)) as u32;
        let destination = virtual_address(self.options.family, service);
        self.content(
            client(self.options.family, number),
            (destination, VIRTUAL_PORT),
            flags,
        )
    }

    fn reply(&self, number: u64) -> Content {
        let source = self.reals[number as usize];
        self.content(source, client(self.options.family, number), ACK)
    }

    fn content(&self, source: End, destination: End, flags: u8) -> Content {
        Content {
            protocol: self.options.protocol,
            source,
            destination,
            flags,
            length: self.options.frame_bytes,
        }
    }

    /// xorshift64: spreads packets over connections the same way in every run.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[cold]
fn unexpected(verdict: &Verdict) -> ! {
    panic!("a packet of a known connection: {verdict:?}")
}

/// The destination address of a frame.
fn destination(frame: &[u8; 64], family: Family) -> std::net::IpAddr {
    match family {
        Family::V4 => <[u8; 4]>::try_from(&frame[30..34]).map(Into::into),
        Family::V6 => <[u8; 16]>::try_from(&frame[38..54]).map(Into::into),
    }
    .expect("as many bytes as an address has")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(method: Method) -> Options {
        Options {
            method,
            family: Family::V4,
            protocol: Protocol::Tcp,
            frame_bytes: 64,
            connections: 100,
            new_per_mille: 0,
            services: 2,
            servers: 3,
            scheduler: "rr".to_owned(),
            packets: 640,
            rounds: 3,
            seed: 7,
        }
    }

    #[test]
    fn every_method_and_family_runs() {
        for method in [
            Method::Nat,
            Method::NatReply,
            Method::Dr,
            Method::Ipip,
            Method::Gue,
        ] {
            for family in [Family::V4, Family::V6] {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let options = Options {
                        family,
                        protocol,
                        new_per_mille: 50,
                        ..options(method)
                    };
                    let report = run(&options).unwrap();
                    assert_eq!(report.ns.len(), 3);
                    assert!(report.ns.median() > 0.0);
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        type Change = fn(&mut Options);
        let rows: [(&str, Change); 4] = [
            ("no connection", |o| o.connections = 0),
            ("no server", |o| o.servers = 0),
            ("an unknown scheduler", |o| o.scheduler = "best".to_owned()),
            ("SCTP", |o| o.protocol = Protocol::Sctp),
        ];
        for (what, change) in rows {
            let mut options = options(Method::Nat);
            change(&mut options);
            assert!(run(&options).is_err(), "{what}");
        }
    }
}
