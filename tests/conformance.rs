//! Packet for packet and word for word as the kernel's IPVS: recorded scenarios, played against the director.
//!
//! `tests/oracle/README.md` tells where they come from. Needs root and python3.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

/// Scenarios sleep and wait for packets far more than they compute.
const AT_ONCE: usize = 6;

/// Where scenarios and what the kernel did with them are kept.
#[derive(Clone, Copy)]
struct Suite(&'static str);

const SUITES: [Suite; 2] = [Suite("tests/oracle"), Suite("tests/oracle-extra")];

/// One scenario of a suite.
type Scenario = (Suite, String);

#[test]
fn scenarios_are_as_the_kernel() {
    let names = of_all(|suite| suite.listed("same.txt"));
    let outcomes = play(&names);
    let different: Vec<_> = outcomes
        .iter()
        .filter(|o| !o.same)
        .map(|o| o.report.as_str())
        .collect();
    assert!(
        different.is_empty(),
        "{} of {} scenarios differ:\n{}",
        different.len(),
        names.len(),
        different.join("\n")
    );
}

/// Not a test: prints how far each scenario is, and which of not-yet.txt belong in same.txt.
#[test]
#[ignore = "a report, run by hand"]
fn report_all() {
    let waiting = SUITES.map(|suite| suite.listed("not-yet.txt")).concat();
    for outcome in play(&of_all(|suite| suite.known().into_iter().collect())) {
        println!("{}", outcome.report);
        if outcome.same && waiting.contains(&outcome.name) {
            println!("   {} may move to same.txt", outcome.name);
        }
    }
}

#[test]
fn every_scenario_is_on_one_list() {
    for suite in SUITES {
        let (same, waiting) = (suite.listed("same.txt"), suite.listed("not-yet.txt"));
        let mut on_lists: Vec<_> = same.iter().chain(&waiting).cloned().collect();
        on_lists.sort();
        assert_eq!(
            on_lists,
            Vec::from_iter(suite.known()),
            "{}: same.txt and not-yet.txt together name each scenario once",
            suite.0
        );
        let reasons = suite.folder().join("not-yet.txt");
        let reasons = fs::read_to_string(reasons).expect("the list is there");
        for line in reasons.lines().filter(|l| !l.starts_with('#')) {
            let reason = line.split_once(": ").map(|(_, why)| why);
            assert!(
                reason.is_some_and(|why| !why.is_empty()),
                "no reason: {line}"
            );
        }
    }
}

/// The comparison can fail: a trace with one byte changed is another.
#[test]
fn comparison_sees_a_changed_byte() {
    let scratch = Scratch::new("changed");
    let suite = SUITES[0];
    let golden = fs::read_to_string(suite.folder().join("golden/nat-rr-tcp.json"))
        .expect("the trace is there");
    for (trace, same) in [
        (golden.clone(), true),
        (golden.replacen("\"ttl\": 63", "\"ttl\": 62", 1), false),
    ] {
        fs::write(scratch.path.join("nat-rr-tcp.json"), &trace).expect("/tmp is writable");
        assert_eq!(compare(suite, "nat-rr-tcp", &scratch.path).same, same);
    }
}

struct Outcome {
    name: String,
    same: bool,
    report: String,
}

fn play(names: &[Scenario]) -> Vec<Outcome> {
    assert!(
        names.is_empty() || rustix::process::geteuid().is_root(),
        "the scenarios need root: run them with sudo"
    );
    let (next, outcomes) = (Mutex::new(names.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let scenario = next.lock().expect("no test panics with it").next();
                    let Some((suite, name)) = scenario else {
                        return;
                    };
                    let outcome = play_one(*suite, name);
                    outcomes
                        .lock()
                        .expect("no test panics with it")
                        .push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no test panics with it");
    outcomes.sort_by(|a, b| a.name.cmp(&b.name));
    outcomes
}

/// Plays a scenario. The far ends of the director's links live in a namespace of the runner's own.
fn play_one(suite: Suite, name: &str) -> Outcome {
    let scratch = Scratch::new(name);
    let lvx = std::env::var_os("LVX")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_lvx")), PathBuf::from);
    let output = Command::new("unshare")
        .args(["--net", "python3"])
        .arg(runner())
        .arg("run")
        .arg(
            suite
                .folder()
                .join("scenarios")
                .join(name)
                .with_extension("txt"),
        )
        .args(["--sut", "lvx", "--out"])
        .arg(&scratch.path)
        .env("LVX", lvx)
        .env(
            "ORACLE_NS",
            format!("lvx-conf-{}-{name}", std::process::id()),
        )
        .env("ORACLE_DIR", scratch.path.join("director"))
        .env("ORACLE_GOLDEN", suite.folder().join("golden"))
        .stdin(Stdio::null())
        .output()
        .expect("unshare and python3 are installed");
    let mut outcome = compare(suite, name, &scratch.path);
    if !output.status.success() {
        outcome.same = false;
        outcome.report += &String::from_utf8_lossy(&[output.stdout, output.stderr].concat());
    }
    outcome
}

fn compare(suite: Suite, name: &str, traces: &Path) -> Outcome {
    let output = Command::new("python3")
        .arg(runner())
        .arg("diff")
        .arg(suite.folder().join("golden"))
        .arg(traces)
        .arg(name)
        .output()
        .expect("python3 is installed");
    let mut report = String::from_utf8_lossy(&output.stdout).into_owned();
    report += &String::from_utf8_lossy(&output.stderr);
    // The closing sum of one scenario says nothing new.
    let report = report
        .lines()
        .filter(|l| !l.contains(" scenarios the same; "))
        .collect::<Vec<_>>()
        .join("\n");
    Outcome {
        name: name.to_owned(),
        same: output.status.success(),
        report,
    }
}

fn runner() -> PathBuf {
    SUITES[0].folder().join("oracle.py")
}

fn of_all(names: impl Fn(Suite) -> Vec<String>) -> Vec<Scenario> {
    let named = |suite| names(suite).into_iter().map(move |name| (suite, name));
    SUITES.into_iter().flat_map(named).collect()
}

impl Suite {
    fn folder(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(self.0)
    }

    /// The scenarios that are there.
    fn known(self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.folder().join("scenarios")).expect("the folder is there");
        let stem = |path: PathBuf| path.file_stem().map(|s| s.to_string_lossy().into_owned());
        entries
            .map(|entry| stem(entry.expect("a readable folder").path()).expect("a name"))
            .collect()
    }

    /// The names on a list; what follows a colon is a reason.
    fn listed(self, list: &str) -> Vec<String> {
        let text = fs::read_to_string(self.folder().join(list)).expect("the list is there");
        let lines = text.lines().map(str::trim);
        lines
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
            .map(|l| l.split(':').next().unwrap_or(l).to_owned())
            .collect()
    }
}

/// A folder that goes with its value.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path =
            std::env::temp_dir().join(format!("lvx-conformance-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("/tmp is writable");
        Scratch { path }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
