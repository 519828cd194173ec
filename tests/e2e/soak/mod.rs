//! Everything at once, for as long as one likes: downloads whose bytes are checked, short requests, datagrams, edits,
//! kills and take-overs, floods, malformed frames. Afterwards nothing may be lost, and nothing left over.
//!
//! `scripts/soak` runs it for minutes; a short one is part of the tests. What is random comes from a seed, so a run's
//! choices can be repeated (its moments only nearly so).

mod drain;
mod hostile;
mod operate;
mod report;
mod supervise;
mod traffic;
mod watch;

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::downloads::Load;
use crate::lab::{Lab, Operator, Options, SERVERS, text};
use crate::raw::Random;
use report::Report;

/// What a soak is to be.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long there is load; draining comes on top.
    pub load: Duration,
    pub seed: u64,
    /// Places in the connection table: a flood fills them all.
    pub connections: u32,
    /// Wait until every connection has run out by itself, which takes two minutes. Else they end with their servers.
    pub patient: bool,
    /// Leave the lab as it is at the end.
    pub keep: bool,
}

impl Plan {
    /// Restarts end here: what follows is one process's, and shows what it leaks.
    fn restarts_end(&self) -> Duration {
        self.load.mul_f64(0.6)
    }

    /// Something that comes `times` in a minute of a long soak, and at least a few times in a short one.
    fn pause(&self, random: &mut Random, from_ms: u64, to_ms: u64) -> Duration {
        let most = self.load / 8;
        random.time_ms(from_ms, to_ms).min(most)
    }
}

/// What the threads of a soak share.
struct Scene {
    plan: Plan,
    begin: Instant,
    operator: Operator,
    client: String,
    servers: [String; 3],
    /// The load is to end.
    over: AtomicBool,
    /// The servers are to end.
    closed: AtomicBool,
    /// The director's process; 0 while another is being started.
    process: AtomicU32,
    /// Held while services are edited: a restart that compares what was before and after waits for it.
    editing: Mutex<()>,
    downloads: Load,
    tally: Tally,
}

/// What happened.
#[derive(Default)]
struct Tally {
    downloads: AtomicU64,
    requests: AtomicU64,
    sent: AtomicU64,
    answered: AtomicU64,
    edits: AtomicU64,
    repeated_edits: AtomicU64,
    flooded: AtomicU64,
    malformed: AtomicU64,
    compared: AtomicU64,
    restarts: Mutex<Vec<Restart>>,
    lost: Mutex<Vec<String>>,
    faults: Mutex<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Killed,
    TakenOver,
}

struct Restart {
    kind: Kind,
    /// As the director says it: from its start to forwarding, or how long the one before stood still.
    gap_ms: f64,
}

impl Scene {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn random(&self, stream: u64) -> Random {
        Random::new(self.plan.seed ^ stream.wrapping_mul(0x1000_0000_01b3))
    }

    fn at(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    /// A connection, request or answer that a client lost.
    fn lost(&self, what: String) {
        let line = format!("{:.1} s: {what}", self.at());
        eprintln!("LOST at {line}");
        self.tally.lost.lock().expect("no panic").push(line);
    }

    /// Anything else that should not be.
    fn fault(&self, what: String) {
        let line = format!("{:.1} s: {what}", self.at());
        eprintln!("FAULT at {line}");
        self.tally.faults.lock().expect("no panic").push(line);
    }

    /// Sleeps, but not longer than there is load.
    fn rest(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_over() && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

/// Ends the load and the servers, also where a step between fails: nobody would come back else.
struct EndAll<'a>(&'a Scene);

impl Drop for EndAll<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
        self.0.closed.store(true, Ordering::Relaxed);
    }
}

fn words(lab: &Lab, plan: &Plan) -> Vec<String> {
    let folder = lab.dir().join("state");
    let folder = folder.to_str().expect("UTF-8").to_owned();
    let connections = plan.connections.to_string();
    ["--state-dir", &folder, "--connections", &connections]
        .map(str::to_owned)
        .to_vec()
}

/// Runs a soak, from nothing to nothing.
pub fn soak(plan: Plan) -> Report {
    let options = Options {
        queues: 2,
        ..Options::default()
    };
    let mut lab = Lab::new("soak", options);
    lab.script(&["method", lab.name(), "mixed"]);
    hostile::prepare(&lab);
    let before = lab.footprint();
    let words = words(&lab, &plan);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    lab.start_with(&words);
    traffic::add_services(&lab);
    let base = lab.ipvsadm("-S -n");
    let scene = Scene {
        plan,
        begin: Instant::now(),
        operator: lab.operator(),
        client: lab.namespace("client"),
        servers: SERVERS.map(|who| lab.namespace(who)),
        over: AtomicBool::new(false),
        closed: AtomicBool::new(false),
        process: AtomicU32::new(lab.director().id()),
        editing: Mutex::new(()),
        downloads: Load::default(),
        tally: Tally::default(),
    };
    let targets = hostile::Targets::of(&lab);
    let (samples, drained) = thread::scope(|scope| {
        let _end = EndAll(&scene);
        let scene = &scene;
        traffic::serve(scope, scene);
        thread::sleep(Duration::from_millis(200));
        let mut load = traffic::begin(scope, scene);
        load.push(scope.spawn(|| operate::edit(scene)));
        load.extend(hostile::begin(scope, scene, &targets));
        let place = watch::Place::of(&lab);
        let watch = scope.spawn(move || watch::watch(scene, &place));
        supervise::supervise(scene, &mut lab, &words);
        scene.over.store(true, Ordering::Relaxed);
        for thread in load {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        let drained = drain::drain(scene, &lab, &base);
        scene.closed.store(true, Ordering::Relaxed);
        (watch.join().expect("no panic"), drained)
    });
    let counters = lab.lvx("counters --json");
    let report = Report::new(&scene, samples, drained, &counters);
    if plan.keep {
        let mut report = report;
        report.kept = Some(lab.name().to_owned());
        lab.keep();
        return report;
    }
    finish(scene, lab, &before, report)
}

/// Ends the director and sees that it leaves nothing but the folder that was named.
fn finish(scene: Scene, mut lab: Lab, before: &str, mut report: Report) -> Report {
    let log = lab.director().log();
    let status = lab.stop(Signal::TERM);
    if !status.success() {
        scene.fault(format!("the director ended with {status}: {log}"));
    }
    let after = lab.footprint();
    if after != *before {
        scene.fault(format!("left behind:\n{after}\nbefore it was:\n{before}"));
    }
    report.faults = scene.tally.faults.into_inner().expect("no panic");
    report
}

/// Prints the report, or writes it to the file that `LVX_SOAK_REPORT` names, and judges.
fn tell(report: &Report) {
    let as_json = std::env::var_os("LVX_SOAK_JSON").is_some();
    let told = match as_json {
        true => report.json(),
        false => report.text(),
    };
    match std::env::var_os("LVX_SOAK_REPORT").map(PathBuf::from) {
        Some(file) => fs::write(&file, told).unwrap_or_else(|e| panic!("{}: {e}", file.display())),
        None => println!("{told}"),
    }
    let complaints = report.complaints();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// That the soak itself works, and that half a minute finds nothing.
#[test]
fn half_a_minute_finds_nothing() {
    tell(&soak(Plan {
        load: Duration::from_secs(20),
        seed: 1,
        connections: 8192,
        patient: false,
        keep: false,
    }));
}

/// For `scripts/soak`.
#[test]
#[ignore = "takes as long as LVX_SOAK_S says: see scripts/soak"]
fn as_long_as_told() {
    let number = |name: &str| {
        let value = std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
        let number: u64 = value.parse().unwrap_or_else(|e| panic!("{name}: {e}"));
        number
    };
    tell(&soak(Plan {
        load: Duration::from_secs(number("LVX_SOAK_S")),
        seed: number("LVX_SOAK_SEED"),
        connections: 65_536,
        patient: true,
        keep: std::env::var_os("LVX_SOAK_KEEP").is_some(),
    }));
}

/// The end of a text, for messages.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

fn output_text(output: &std::process::Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}
