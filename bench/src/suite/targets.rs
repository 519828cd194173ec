//! What the director must show, what it does show, and what holds it back where it misses.

use super::Figures;
use crate::spread::Spread;
use crate::wire::Results;

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Target {
    /// What is measured, with its unit.
    pub what: &'static str,
    /// The figure that it must reach.
    pub target: f64,
    /// The figure that would be better still.
    pub stretch: Option<f64>,
    /// Whether less is better.
    pub less_is_better: bool,
    /// The figure measured.
    pub measured: Option<f64>,
    /// What stands in the way, if it is missed.
    pub hindrance: &'static str,
}

/// How a figure stands to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Better than the stretch.
    Stretch,
    /// Reached.
    Met,
    /// Missed.
    Missed,
    /// Not known.
    NotMeasured,
}

impl Target {
    /// How the figure stands.
    pub fn verdict(&self) -> Verdict {
        let Some(measured) = self.measured.filter(|figure| !figure.is_nan()) else {
            return Verdict::NotMeasured;
        };
        let reaches = |goal: f64| match self.less_is_better {
            true => measured <= goal,
            false => measured >= goal,
        };
        match self.stretch {
            Some(stretch) if reaches(stretch) => Verdict::Stretch,
            _ if reaches(self.target) => Verdict::Met,
            _ => Verdict::Missed,
        }
    }
}

const MEMORY: &str = "the packet path's own instructions, and with many connections the cache and \
    TLB misses of bucket, entry and counters that stages over a burst do not hide";
const WIRE: &str = "what the director does beyond the raw forwarder, see the figures in memory, and \
    its steering program (docs/decisions/steering.md), which on a veth link runs on the sender's \
    core, here the generator's; and with two cores generator and sink share one with the rest of \
    the machine, so that all of these rows swing by more than what they compare";
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// All rows.
pub fn targets(figures: &Figures) -> Vec<Target> {
    let mut rows = in_memory(figures);
    rows.extend(of_connections(figures));
    rows.extend(on_wire(figures.beside.as_ref().or(figures.wire.as_ref())));
    rows.push(of_changes(figures));
    rows
}

fn less(what: &'static str, target: f64, stretch: Option<f64>, measured: Option<f64>) -> Target {
    Target {
        what,
        target,
        stretch,
        less_is_better: true,
        measured,
        hindrance: MEMORY,
    }
}

fn more(what: &'static str, target: f64, stretch: Option<f64>, measured: Option<f64>) -> Target {
    Target {
        less_is_better: false,
        ..less(what, target, stretch, measured)
    }
}

fn in_memory(figures: &Figures) -> Vec<Target> {
    let ns = |name: &str| figures.row(name).map(|row| row.ns.median());
    let thousand = ns("1 thousand connections");
    let ten_million = ns("10 million connections");
    let instructions = figures
        .row("1 thousand connections")
        .and_then(|row| row.counted)
        .map(|counted| counted.instructions);
    let over_nat = |name: &str| {
        let nat = figures.row("1 thousand connections")?;
        let quotients = figures.row(name)?.ns.by_round(&nat.ns, |a, b| a / b);
        Some(quotients.median())
    };
    let others = over_nat("direct routing")
        .zip(over_nat("IP in IP"))
        .map(|(dr, ipip)| dr.max(ipip));
    let mut rows = vec![
        less(
            "NAT IPv4, 64 B, 1 thousand connections, ns a packet",
            35.0,
            Some(20.0),
            thousand,
        ),
        less(
            "NAT IPv4, 64 B, 1 million connections, ns a packet",
            55.0,
            Some(35.0),
            ns("1 million connections"),
        ),
        less(
            "NAT IPv4, 64 B, 10 million connections, ns a packet",
            90.0,
            Some(60.0),
            ten_million,
        ),
        less(
            "instructions for that packet, 1 thousand connections",
            250.0,
            Some(160.0),
            instructions,
        ),
        less(
            "the slower of DR and IP in IP over NAT, times",
            1.0,
            None,
            others,
        ),
        less(
            "10 million connections over 1 thousand, times",
            3.0,
            Some(2.0),
            ten_million.zip(thousand).map(|(most, least)| most / least),
        ),
    ];
    rows[3].hindrance = "three looks at each frame, the entry's check, state, timer and two sets of \
        counters are each small by now: docs/decisions/speed.md counts them";
    rows[4].hindrance = "IP in IP writes 34 bytes more than it was given, and sums them: \
        15 instructions more than NAT (docs/decisions/speed.md)";
    rows
}

fn of_connections(figures: &Figures) -> Vec<Target> {
    let sizes = figures.connections.as_ref().map(|report| &report.sizes);
    let largest = sizes.and_then(|sizes| sizes.iter().max_by_key(|size| size.connections));
    let begun = sizes
        .and_then(|sizes| sizes.first())
        .map(|size| 1e3 / size.begin_ns);
    let bytes = largest.map(|size| size.bytes);
    let mut rows = vec![
        more(
            "new connections in memory, one core, millions a second",
            2.0,
            Some(4.0),
            begun,
        ),
        less(
            "memory per IPv4 connection, all counted, B",
            96.0,
            Some(80.0),
            bytes,
        ),
        more(
            "connections in 4 GiB, by that memory, millions",
            20.0,
            Some(40.0),
            bytes.map(|bytes| 4.0 * GIB / bytes / 1e6),
        ),
    ];
    rows[0].hindrance = "the first packet's longer way: schedule, entry, index, and memory that \
        the kernel gives page by page";
    rows[1].hindrance = "an entry's 64 bytes, its place in the index and its hint for the sweep";
    rows[2].hindrance = rows[1].hindrance;
    rows
}

fn on_wire(results: Option<&Results>) -> Vec<Target> {
    let rate = |name: &str| Some(&results?.system(name)?.throughput.first()?.rate_pps);
    let core = |name: &str| Some(&results?.system(name)?.drain_ns);
    let p99 = |name: &str| {
        let loads = &results?.system(name)?.latency;
        let half = loads.iter().find(|load| load.percent == 50)?;
        Some(&half.p99_ns)
    };
    // Round by round: they take turns, so that the machine's slow moments fall on both.
    let times = |mine: Option<&Spread>, theirs| {
        Some(
            mine?
                .by_round(theirs?, |mine, theirs| mine / theirs)
                .median(),
        )
    };
    let more_us = |mine: Option<&Spread>, theirs| {
        Some(
            mine?
                .by_round(theirs?, |mine, theirs| (mine - theirs) / 1e3)
                .median(),
        )
    };
    let mut rows = vec![
        more(
            "forwarding over veth, 64 B, over the raw reflector, rate",
            0.95,
            Some(0.98),
            times(rate("lvx"), rate("reflector")),
        ),
        less(
            "core time a frame over the raw reflector's, times",
            1.15,
            Some(1.08),
            times(core("lvx"), core("reflector")),
        ),
        more(
            "the same rate over nftables DNAT's",
            1.15,
            Some(1.3),
            times(rate("lvx"), rate("nftables")),
        ),
        less(
            "added p99 latency over the reflector at half load, us",
            5.0,
            Some(2.0),
            more_us(p99("lvx"), p99("reflector")),
        ),
    ];
    rows.iter_mut().for_each(|row| row.hindrance = WIRE);
    rows
}

/// The slowest scheduler's median. A lost frame is a miss, however fast the change.
fn of_changes(figures: &Figures) -> Target {
    let change = figures
        .change
        .as_ref()
        .and_then(|results| results.change.as_ref());
    let measured = change.map(|change| match change.lost {
        0 => change
            .edit_ms
            .iter()
            .map(|(_, ms)| ms.median())
            .fold(0.0, f64::max),
        _ => f64::INFINITY,
    });
    Target {
        hindrance: "a snapshot copies what lists all services and servers; or frames were lost meanwhile",
        ..less(
            "a change to 1,000 services with 100 servers each in force, no frame lost, ms",
            20.0,
            Some(5.0),
            measured,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let rows = [
            (less("", 35.0, Some(20.0), Some(20.0)), Verdict::Stretch),
            (less("", 35.0, Some(20.0), Some(35.0)), Verdict::Met),
            (less("", 35.0, Some(20.0), Some(35.1)), Verdict::Missed),
            (less("", 1.0, None, Some(0.9)), Verdict::Met),
            (less("", 35.0, None, None), Verdict::NotMeasured),
            (less("", 35.0, None, Some(f64::NAN)), Verdict::NotMeasured),
            (more("", 2.0, Some(4.0), Some(4.0)), Verdict::Stretch),
            (more("", 2.0, Some(4.0), Some(3.0)), Verdict::Met),
            (more("", 2.0, Some(4.0), Some(1.9)), Verdict::Missed),
        ];
        for (target, verdict) in rows {
            assert_eq!(target.verdict(), verdict, "{target:?}");
        }
    }

    #[test]
    fn without_figures_all_is_unknown() {
        let rows = targets(&Figures::default());
        assert_eq!(rows.len(), 14);
        assert!(rows.iter().all(|row| row.verdict() == Verdict::NotMeasured));
    }
}
