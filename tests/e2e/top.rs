//! `lvx top` at a real pseudo-terminal over a real director under load.

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use crate::lab::{Family, Lab, Method, Options, lvx, text};
use crate::terminal::Terminal;

const TOP: [&str; 3] = ["top", "--interval", "0.2"];
const ESC: &str = "\x1b";

fn top(lab: &Lab) -> Terminal {
    Terminal::start(lab, &TOP, &lab.dir(), 24, 80)
}

fn once(lab: &Lab, words: &[&str]) -> Output {
    let mut command = Command::new(lvx());
    command.arg("top").args(words).env("LVX_API", lab.socket());
    command.stdin(Stdio::null()).output().expect("lvx runs")
}

/// Requests until the value is dropped.
fn under_load<T>(lab: &Lab, body: impl FnOnce() -> T) -> T {
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Relaxed) {
                lab.shell("client", "curl -s -o /dev/null http://10.1.0.1/");
            }
        });
        let value = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        ends.store(true, Relaxed);
        value.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The number before a word on the screen.
fn before(screen: &str, word: &str) -> f64 {
    let words: Vec<&str> = screen.split_whitespace().collect();
    let at = words.iter().position(|&one| one == word);
    let number = at.and_then(|at| words[at.checked_sub(1)?].parse().ok());
    number.unwrap_or(0.0)
}

#[test]
fn a_person_watches_and_drains() {
    let mut lab = Lab::forwarding("top", Options::default(), Method::Nat);
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    let mut terminal = top(&lab);
    terminal.shows("1 services  3 servers");
    terminal.shows("tcp 10.1.0.1:80");
    assert!(terminal.is_full_screen());
    under_load(&lab, || {
        terminal.sees("connections and packets", |screen| {
            before(screen, "new/s") > 0.0 && before(screen, "pkt/s") > 0.0
        });
        terminal.sees("a busy worker", |screen| {
            screen
                .lines()
                .any(|line| line.starts_with("worker 0") && before(line, "pkt/s") > 0.0)
        });
    });

    // A server is drained after a question, and comes back with its weight.
    terminal.press("jjd");
    terminal.shows("drain 10.2.0.12:80 of tcp 10.1.0.1:80?");
    terminal.press("y");
    terminal.shows("10.2.0.12:80 of tcp 10.1.0.1:80 is drained");
    assert!(
        lab.ipvsadm("-Ln")
            .contains("10.2.0.12:80                 Masq    0 ")
    );
    terminal.shows("1 drained");
    terminal.press("w37\r");
    terminal.shows("has weight 37");
    assert!(
        lab.ipvsadm("-Ln")
            .contains("10.2.0.12:80                 Masq    37 ")
    );
    terminal.press("/0.13\r");
    terminal.sees("one server", |s| {
        !s.contains("10.2.0.11") && s.contains("  10.2.0.13:80")
    });
    terminal.press(ESC);
    terminal.shows("10.2.0.11:80");
    terminal.press("\t");
    terminal.shows("frames_received");
    terminal.press("\t");
    terminal.shows("WORKER CORE  BUSY");
    terminal.press("\t?");
    terminal.shows("drain the selected server");
    terminal.press(" ");

    // Too small, and large again.
    terminal.resize(10, 60);
    terminal.shows("This terminal has 60 columns and 10 rows.");
    terminal.resize(30, 120);
    terminal.shows("tcp 10.1.0.1:80");

    // The director goes and comes back.
    assert!(lab.stop(Signal::TERM).success());
    terminal.shows("; asking again");
    terminal.sees("what was seen last", |screen| {
        screen.contains("10.2.0.11:80")
    });
    lab.start();
    terminal.sees("the new director", |screen| {
        screen.contains("no services: ") && !screen.contains("asking again")
    });
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
    assert!(terminal.is_restored(), "{}", terminal.screen());
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let mut lab = Lab::new("top-term", Options::default());
    lab.start();
    for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut terminal = top(&lab);
        terminal.shows("no services: ");
        terminal.signal(signal);
        assert_eq!(terminal.ends(), status);
        assert!(terminal.is_restored(), "{}", terminal.screen());
    }
}

#[test]
fn one_look_for_scripts() {
    let mut lab = Lab::forwarding("top-once", Options::default(), Method::Nat);
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    lab.ipvsadm("-e -t 10.1.0.1:80 -r 10.2.0.11:80 -m -w 0");
    under_load(&lab, || {
        let output = once(&lab, &["--json"]);
        assert_eq!(text(&output.stderr), "");
        let reading: Value = serde_json::from_slice(&output.stdout).unwrap();
        let service = &reading["services"][0];
        assert!(
            service["in_packets_per_s"].as_f64().unwrap() > 0.0,
            "{service}"
        );
        let servers = service["servers"].as_array().unwrap();
        let rate = |n: usize| servers[n]["in_packets_per_s"].as_f64().unwrap();
        assert_eq!(rate(0), 0.0, "drained");
        assert!(rate(1) + rate(2) > 0.0);
        let sum = rate(1) + rate(2);
        let all = service["in_packets_per_s"].as_f64().unwrap();
        assert!(
            (sum - all).abs() < 0.01,
            "servers sum to their service: {sum} {all}"
        );
        let worker = &reading["workers"][0];
        let busy = worker["busy_share"].as_f64().unwrap();
        assert!(
            busy > 0.0 && busy < 0.9,
            "a few requests are no full load: {busy}"
        );
        assert!(worker["received_per_s"].as_f64().unwrap() > all);
    });
    let output = once(&lab, &["--once", "--interval", "0.1", "--filter", "0.12"]);
    let out = text(&output.stdout);
    assert!(
        out.contains("  10.2.0.12:80") && !out.contains("10.2.0.11"),
        "{out}"
    );
    let output = once(&lab, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).starts_with("lvx: the live view needs a terminal; `lvx top --once`")
    );
    lab.stop(Signal::TERM);
    let output = once(&lab, &["--once"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("lvx: no director answers on "));
}
