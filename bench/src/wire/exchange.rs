//! Whole TCP connections, both ends of them played by the generator: SYN, SYN-ACK, ACK,
//! request, response with FIN, FIN, ACK. The servers' end is stateless, so it talks as well
//! to a proxy that opens connections of its own. As many connections are open at a time as
//! asked for; each that ends begins another from an endpoint not used before.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use sched::service::Family;

use super::Stop;
use super::segment::{End, Segment, flag};
use super::station::{Side, Station};
use crate::traffic::client;

/// Bytes of a request and of a response.
const REQUEST_BYTES: u32 = 64;
const RESPONSE_BYTES: u32 = 128;

/// A connection that took longer has failed.
const PATIENCE: Duration = Duration::from_millis(250);

/// How often failed connections are looked for.
const LOOK: Duration = Duration::from_millis(10);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Exchanges {
    /// The service.
    pub to: End,
    /// The link address of the way there.
    pub gateway: [u8; 6],
    /// Connections open at a time.
    pub open: u64,
    /// The number of the first connection: another for each run, so that no endpoint comes
    /// again while the system remembers it.
    pub first: u64,
    /// For how long.
    pub duration: Duration,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Connections that went from SYN to the last ACK.
    pub complete: u64,
    /// Connections that were reset or took too long.
    pub failed: u64,
    /// Complete connections a second.
    pub rate: f64,
    /// From SYN to the last ACK, ns.
    pub time: Histogram<u64>,
    /// The first number that is free now.
    pub next: u64,
}

/// Opens and closes connections for a while.
///
/// # Errors
/// Where it was told to stop.
pub fn run(station: &mut Station, plan: Exchanges, stop: Stop<'_>) -> Result<Outcome, String> {
    station.empty();
    let start = Instant::now();
    let mut clients = Clients::new(plan);
    let mut outgoing: Vec<Segment> = Vec::with_capacity(1024);
    outgoing.extend((0..plan.open).map(|n| clients.begin(plan.first + n, start)));
    let mut looked = start;
    while start.elapsed() < plan.duration {
        stop.check()?;
        send(station, Side::Clients, &mut outgoing);
        station.receive(Side::Servers, |frame| {
            outgoing.extend(Segment::read(frame).and_then(|segment| serve(&segment)));
        });
        send(station, Side::Servers, &mut outgoing);
        let now = Instant::now();
        station.receive(Side::Clients, |frame| {
            if let Some(segment) = Segment::read(frame) {
                clients.take(&segment, now, &mut outgoing);
            }
        });
        if now - looked > LOOK {
            looked = now;
            clients.give_up(now, &mut outgoing);
        }
    }
    Ok(clients.outcome(start.elapsed()))
}

fn send(station: &mut Station, side: Side, segments: &mut Vec<Segment>) {
    let mut out = [0; 256];
    let queues = station.queues();
    for segment in segments.drain(..) {
        let length = segment.write(&mut out);
        // One connection stays on one queue. What finds no room is lost, as on any wire.
        let queue = usize::from(segment.source.1 ^ segment.destination.1) % queues;
        station.put(side, queue, &out[..length], |_| ());
    }
    station.flush(side);
}

/// What a server says to a segment, if anything.
fn serve(segment: &Segment) -> Option<Segment> {
    if segment.has(flag::RST) {
        None
    } else if segment.has(flag::SYN) {
        Some(Segment {
            sequence: 1_000_000,
            ..segment.answer(flag::SYN | flag::ACK, 0)
        })
    } else if segment.data_bytes > 0 {
        Some(segment.answer(flag::FIN | flag::PSH | flag::ACK, RESPONSE_BYTES))
    } else if segment.has(flag::FIN) {
        Some(segment.answer(flag::ACK, 0))
    } else {
        None
    }
}

/// A connection's end at the client.
#[derive(Clone, Copy, Debug)]
struct Connection {
    number: u64,
    begun: Instant,
    /// The number after its FIN, once that is sent.
    ends_at: Option<u32>,
}

/// All clients. Connection `n` is in place `n % open`, as there is one at a time in each.
struct Clients {
    plan: Exchanges,
    places: Vec<Option<Connection>>,
    next: u64,
    complete: u64,
    failed: u64,
    time: Histogram<u64>,
}

impl Clients {
    fn new(plan: Exchanges) -> Self {
        Self {
            plan,
            places: vec![None; plan.open as usize],
            next: plan.first,
            complete: 0,
            failed: 0,
            time: Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("bounds in order"),
        }
    }

    fn begin(&mut self, number: u64, now: Instant) -> Segment {
        self.next = self.next.max(number + 1);
        let place = (number % self.plan.open) as usize;
        self.places[place] = Some(Connection {
            number,
            begun: now,
            ends_at: None,
        });
        Segment {
            macs: [self.plan.gateway, [2, 0, 0, 0, 0xb0, 1]],
            source: end(number),
            destination: self.plan.to,
            sequence: number as u32,
            acknowledged: 0,
            flags: flag::SYN,
            data_bytes: 0,
        }
    }

    /// What a client does with a segment.
    fn take(&mut self, segment: &Segment, now: Instant, outgoing: &mut Vec<Segment>) {
        let Some(number) = number(segment.destination) else {
            return;
        };
        let place = (number % self.plan.open) as usize;
        let Some(connection) = self.places[place].as_mut().filter(|c| c.number == number) else {
            return;
        };
        if segment.has(flag::RST) {
            self.failed += 1;
            outgoing.push(self.begin(number + self.plan.open, now));
        } else if segment.has(flag::SYN | flag::ACK) {
            outgoing.push(segment.answer(flag::ACK, 0));
            outgoing.push(segment.answer(flag::PSH | flag::ACK, REQUEST_BYTES));
        } else if segment.has(flag::FIN) {
            let last = segment.answer(flag::FIN | flag::ACK, 0);
            connection.ends_at = Some(last.end());
            outgoing.push(last);
        } else if segment.data_bytes > 0 {
            outgoing.push(segment.answer(flag::ACK, 0));
        } else if connection.ends_at == Some(segment.acknowledged) {
            let time = now - connection.begun;
            self.time.saturating_record(time.as_nanos() as u64);
            self.complete += 1;
            outgoing.push(self.begin(number + self.plan.open, now));
        }
    }

    /// Counts connections that took too long as failed, and begins others in their places.
    fn give_up(&mut self, now: Instant, outgoing: &mut Vec<Segment>) {
        for place in 0..self.places.len() {
            let late = self.places[place].filter(|c| now.duration_since(c.begun) > PATIENCE);
            if let Some(connection) = late {
                self.failed += 1;
                outgoing.push(self.begin(connection.number + self.plan.open, now));
            }
        }
    }

    fn outcome(self, elapsed: Duration) -> Outcome {
        Outcome {
            complete: self.complete,
            failed: self.failed,
            rate: self.complete as f64 / elapsed.as_secs_f64(),
            time: self.time,
            next: self.next,
        }
    }
}

/// The client of a connection.
fn end(number: u64) -> End {
    match client(Family::V4, number) {
        (std::net::IpAddr::V4(address), port) => (address, port),
        _ => unreachable!("an IPv4 client was asked for"),
    }
}

/// The connection of a client; see [`client`].
fn number(end: End) -> Option<u64> {
    let host = u64::from(end.0.to_bits().checked_sub(0x0a09_0000)?);
    let port = u64::from(end.1.checked_sub(1024)?);
    (host < 1 << 14).then_some(host | port << 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_and_numbers_correspond() {
        for n in [0, 1, (1 << 14) - 1, 1 << 14, 123_456_789] {
            assert_eq!(number(end(n)), Some(n));
        }
        assert_eq!(number(([10, 1, 0, 1].into(), 2000)), None);
        assert_eq!(number(([10, 9, 0, 1].into(), 80)), None);
    }

    /// Client and server talk without a system between them.
    #[test]
    fn a_connection_runs_from_syn_to_the_last_ack() {
        let now = Instant::now();
        let mut clients = Clients::new(Exchanges {
            to: ([10, 1, 0, 1].into(), 80),
            gateway: [2, 0, 0, 0, 0, 1],
            open: 2,
            first: 0,
            duration: Duration::ZERO,
        });
        let mut to_server = vec![clients.begin(0, now)];
        let mut flags = Vec::new();
        while clients.complete == 0 {
            let segment = to_server.remove(0);
            flags.push(segment.flags);
            let Some(answer) = serve(&segment) else {
                continue;
            };
            flags.push(answer.flags);
            clients.take(&answer, now, &mut to_server);
        }
        use flag::{ACK, FIN, PSH, SYN};
        let order = [
            SYN,
            SYN | ACK,
            ACK,
            PSH | ACK,
            FIN | PSH | ACK,
            FIN | ACK,
            ACK,
        ];
        assert_eq!(flags, order);
        assert_eq!(to_server.len(), 1, "the next connection begins");
        assert_eq!((clients.failed, clients.next), (0, 3));
    }

    #[test]
    fn a_silent_or_reset_connection_has_failed() {
        let now = Instant::now();
        let mut clients = Clients::new(Exchanges {
            to: ([10, 1, 0, 1].into(), 80),
            gateway: [2, 0, 0, 0, 0, 1],
            open: 1,
            first: 9,
            duration: Duration::ZERO,
        });
        let syn = clients.begin(9, now);
        let mut outgoing = Vec::new();
        clients.give_up(now, &mut outgoing);
        assert!(outgoing.is_empty());
        clients.give_up(now + PATIENCE * 2, &mut outgoing);
        assert_eq!((clients.failed, outgoing.len()), (1, 1));
        clients.take(&syn.answer(flag::RST, 0), now, &mut outgoing);
        assert_eq!(clients.failed, 1, "it is of a connection given up already");
        clients.take(&outgoing[0].answer(flag::RST, 0), now, &mut outgoing);
        assert_eq!(clients.failed, 2);
    }
}
