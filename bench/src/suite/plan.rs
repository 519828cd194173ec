//! Which commands make up a run.

/// A part of the run that can be repeated alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Packets in memory.
    Pipeline,
    /// Connections in memory.
    Connections,
    /// Frames over links.
    Wire,
    /// The shortest frames, many short rounds: what lvx is held against.
    Beside,
    /// TCP connections over links.
    Exchange,
    /// More than one worker.
    Scaling,
    /// Changes to a large table.
    Change,
}

impl Part {
    /// All, in order.
    pub const ALL: [Self; 7] = [
        Self::Pipeline,
        Self::Connections,
        Self::Wire,
        Self::Beside,
        Self::Exchange,
        Self::Scaling,
        Self::Change,
    ];

    /// As it is named on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Connections => "connections",
            Self::Wire => "wire",
            Self::Beside => "beside",
            Self::Exchange => "exchange",
            Self::Scaling => "scaling",
            Self::Change => "change",
        }
    }
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its part.
    pub part: Part,
    /// What it measures; several steps of one name are rounds.
    pub name: String,
    /// What follows `lvx bench`.
    pub words: Vec<String>,
    /// About how long it takes, s.
    pub seconds: u32,
}

/// Rows of the pipeline: a name, options, whether instructions are counted, whether the
/// short run has it, about how long it takes, s. What is held against each other stands side by
/// side, for the machine has moods of seconds.
const PIPELINE: &[(&str, &str, bool, bool, u32)] = &[
    ("1 connection", "--connections 1", false, false, 2),
    (
        "1 thousand connections",
        "--connections 1000",
        true,
        true,
        2,
    ),
    ("direct routing", "--method dr", true, true, 2),
    ("IP in IP", "--method ipip", true, true, 2),
    (
        "100 thousand connections",
        "--connections 100000",
        false,
        false,
        2,
    ),
    (
        "1 million connections",
        "--connections 1000000",
        false,
        true,
        4,
    ),
    (
        "10 million connections",
        "--connections 10000000",
        false,
        false,
        15,
    ),
    ("NAT, replies", "--method nat-reply", true, false, 2),
    ("GUE", "--method gue", true, false, 2),
    ("IPv6", "--family v6", true, false, 2),
    ("UDP", "--protocol udp", false, false, 2),
    ("1,514-byte frames", "--frame 1514", false, false, 3),
    (
        "10 % new connections",
        "--new-per-mille 100",
        false,
        false,
        3,
    ),
    (
        "1,000 services, 100 servers each",
        "--services 1000 --servers 100 --connections 100000",
        false,
        false,
        4,
    ),
    (
        "10 % new, wlc, 100 servers",
        "--new-per-mille 100 --scheduler wlc --servers 100",
        false,
        false,
        3,
    ),
    (
        "10 % new, mh, 100 servers",
        "--new-per-mille 100 --scheduler mh --servers 100",
        false,
        false,
        3,
    ),
];

/// The commands for these parts. Rounds of one figure never follow each other directly.
/// `core` is the one that works in memory, `cores` how many the machine has.
pub fn steps(parts: &[Part], quick: bool, core: usize, cores: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in Part::ALL.into_iter().filter(|part| parts.contains(part)) {
        match part {
            Part::Pipeline => pipeline(&mut steps, quick, core),
            Part::Connections => steps.push(connections(quick, cores)),
            Part::Wire => steps.push(wire(quick)),
            // The short run has one round of it in the part before.
            Part::Beside if quick => (),
            Part::Beside => steps.push(beside()),
            Part::Exchange => steps.push(exchange(quick)),
            Part::Scaling => {
                let rounds = if quick { 1 } else { 3 };
                let words = format!("wire --part scaling --rounds {rounds} --frame 64");
                steps.push(step(Part::Scaling, "", &words, 20));
            }
            // Restoring so large a table takes longer than the short run may.
            Part::Change if quick => (),
            Part::Change => steps.push(step(Part::Change, "", "wire --part change", 40)),
        }
    }
    steps
}

fn pipeline(steps: &mut Vec<Step>, quick: bool, core: usize) {
    let rows = || PIPELINE.iter().filter(|row| !quick || row.3);
    let (rounds, amount) = match quick {
        true => (1, " --rounds 3 --packets 500000"),
        false => (3, ""),
    };
    for _ in 0..rounds {
        for (name, options, _, _, seconds) in rows() {
            let words = format!("pipeline {options} --core {core}{amount}");
            steps.push(step(Part::Pipeline, name, &words, *seconds));
        }
    }
    for (name, options, _, _, _) in rows().filter(|row| row.2) {
        let words =
            format!("pipeline {options} --core {core} --rounds 1 --packets 64 --instructions");
        steps.push(step(Part::Pipeline, name, &words, 6));
    }
}

fn connections(quick: bool, cores: usize) -> Step {
    let threads: Vec<String> = (0..)
        .map(|n| 1usize << n)
        .take_while(|n| *n <= cores)
        .map(|n| n.to_string())
        .collect();
    let (sizes, seconds) = match quick {
        true => ("1000000", 8),
        false => ("1000000,10000000,20000000", 90),
    };
    let words = format!(
        "connections --sizes {sizes} --threads {}",
        threads.join(",")
    );
    step(Part::Connections, "", &words, seconds)
}

fn wire(quick: bool) -> Step {
    let (words, seconds) = match quick {
        true => (
            "wire --system lvx,reflector,nftables --frame 64,1514 --seconds 0.3 --rounds 1 \
             --part throughput,latency,overload,drain",
            20,
        ),
        false => (
            "wire --system lvx,reflector,xsk-rs,nftables,testpmd,lvx-dr,lvx-ipip \
             --frame 64,128,256,512,1024,1514 --seconds 0.6 --rounds 3 \
             --part throughput,latency,overload,drain",
            200,
        ),
    };
    step(Part::Wire, "", words, seconds)
}

/// A virtual machine is stopped now and then for milliseconds: short rounds tell those in which
/// it was from the others, and the median is of the others. Many, because rounds differ by far more
/// than systems do: of 31 rounds, the delays' medians differed by -27 to +17 us from run to run.
fn beside() -> Step {
    let words = "wire --system lvx,reflector,nftables --frame 64 --seconds 0.05 --rounds 101 \
                 --part throughput,latency,drain";
    step(Part::Beside, "", words, 150)
}

fn exchange(quick: bool) -> Step {
    let (amount, seconds) = match quick {
        true => ("--seconds 0.5 --rounds 1", 8),
        false => ("--seconds 1 --rounds 3", 20),
    };
    let words = format!("wire --system lvx,nftables,haproxy,nginx --part exchange {amount}");
    step(Part::Exchange, "", &words, seconds)
}

fn step(part: Part, name: &str, words: &str, seconds: u32) -> Step {
    Step {
        part,
        name: name.to_owned(),
        words: words
            .split_whitespace()
            .chain(["--json"])
            .map(str::to_owned)
            .collect(),
        seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(steps: &[Step]) -> u32 {
        steps.iter().map(|step| step.seconds).sum()
    }

    #[test]
    fn the_short_run_is_short_and_the_long_one_not_too_long() {
        assert!(seconds(&steps(&Part::ALL, true, 1, 2)) < 110);
        assert!(seconds(&steps(&Part::ALL, false, 1, 2)) < 12 * 60);
    }

    #[test]
    fn rounds_alternate() {
        let steps = steps(&[Part::Pipeline], false, 0, 2);
        assert!(steps.windows(2).all(|pair| pair[0].name != pair[1].name));
        let rounds = steps.iter().filter(|step| step.name == "IP in IP").count();
        assert_eq!(rounds, 4, "three rounds, and instructions once");
    }

    #[test]
    fn only_the_parts_asked_for_are_run() {
        let steps = steps(&[Part::Change], false, 0, 2);
        assert_eq!(steps.len(), 1);
        assert_eq!(steps[0].words, ["wire", "--part", "change", "--json"]);
    }
}
