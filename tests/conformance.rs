//! Packet for packet and word for word as the kernel's IPVS: recorded scenarios, played against the director.
//!
//! `tests/oracle/README.md` tells where they come from. Needs root and python3.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

/// Scenarios wait for packets more than they compute: two share the cores well.
const AT_ONCE: usize = 2;

#[test]
fn scenarios_are_as_the_kernel() {
    let names = listed("same.txt");
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
    let all: Vec<String> = known().into_iter().collect();
    let waiting: BTreeSet<String> = listed("not-yet.txt").into_iter().collect();
    for outcome in play(&all) {
        println!("{}", outcome.report);
        if outcome.same && waiting.contains(&outcome.name) {
            println!("   {} may move to same.txt", outcome.name);
        }
    }
}

#[test]
fn every_scenario_is_on_one_list() {
    let (same, waiting) = (listed("same.txt"), listed("not-yet.txt"));
    let mut on_lists: Vec<_> = same.iter().chain(&waiting).cloned().collect();
    on_lists.sort();
    assert_eq!(
        on_lists,
        Vec::from_iter(known()),
        "same.txt and not-yet.txt together name each scenario once"
    );
    let reasons = fs::read_to_string(folder().join("not-yet.txt")).expect("the list is there");
    for line in reasons.lines().filter(|l| !l.starts_with('#')) {
        assert!(
            line.split_once(": ")
                .is_some_and(|(_, why)| !why.is_empty()),
            "no reason: {line}"
        );
    }
}

/// The comparison can fail: a trace with one byte changed is another.
#[test]
fn comparison_sees_a_changed_byte() {
    let scratch = Scratch::new("changed");
    let golden =
        fs::read_to_string(folder().join("golden/nat-rr-tcp.json")).expect("the trace is there");
    for (trace, same) in [
        (golden.clone(), true),
        (golden.replacen("\"ttl\": 63", "\"ttl\": 62", 1), false),
    ] {
        fs::write(scratch.path.join("nat-rr-tcp.json"), &trace).expect("/tmp is writable");
        assert_eq!(compare("nat-rr-tcp", &scratch.path).same, same);
    }
}

struct Outcome {
    name: String,
    same: bool,
    report: String,
}

fn play(names: &[String]) -> Vec<Outcome> {
    assert!(
        names.is_empty() || rustix::process::geteuid().is_root(),
        "the scenarios need root: run them with sudo"
    );
    let (next, outcomes) = (Mutex::new(names.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(name) = next.lock().expect("no test panics with it").next() else {
                        return;
                    };
                    let outcome = play_one(name);
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
fn play_one(name: &str) -> Outcome {
    let scratch = Scratch::new(name);
    let lvx = std::env::var_os("LVX")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_lvx")), PathBuf::from);
    let output = Command::new("unshare")
        .args(["--net", "python3"])
        .arg(folder().join("oracle.py"))
        .arg("run")
        .arg(folder().join("scenarios").join(name).with_extension("txt"))
        .args(["--sut", "lvx", "--out"])
        .arg(&scratch.path)
        .env("LVX", lvx)
        .env(
            "ORACLE_NS",
            format!("lvx-conf-{}-{name}", std::process::id()),
        )
        .env("ORACLE_DIR", scratch.path.join("director"))
        .stdin(Stdio::null())
        .output()
        .expect("unshare and python3 are installed");
    let mut outcome = compare(name, &scratch.path);
    if !output.status.success() {
        outcome.same = false;
        outcome.report += &String::from_utf8_lossy(&[output.stdout, output.stderr].concat());
    }
    outcome
}

fn compare(name: &str, traces: &Path) -> Outcome {
    let output = Command::new("python3")
        .arg(folder().join("oracle.py"))
        .arg("diff")
        .arg(folder().join("golden"))
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

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle")
}

/// The scenarios that are there.
fn known() -> BTreeSet<String> {
    let entries = fs::read_dir(folder().join("scenarios")).expect("the folder is there");
    entries
        .map(|e| {
            e.expect("a readable folder")
                .path()
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

/// The names on a list; what follows a colon is a reason.
fn listed(list: &str) -> Vec<String> {
    let text = fs::read_to_string(folder().join(list)).expect("the list is there");
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|l| l.split(':').next().unwrap_or(l).to_owned())
        .collect()
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
