//! Clients of the API that ask for too much, never read or never leave: those who may only look
//! hold up nobody, and root always gets in.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::{Lab, Options, eventually, text};

/// Numbers that no account of a test machine has.
const OPERATORS: &str = "64001";
const READERS: &str = "64002";
const NEITHER: &str = "64003";

fn lab(name: &str) -> Lab {
    let mut lab = Lab::new(name, Options::default());
    // The lab's folder is root's own.
    fs::set_permissions(lab.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    lab.start_with(&["--api-group", OPERATORS, "--api-read-group", READERS]);
    lab
}

/// Clients of one user, until dropped.
struct Clients {
    child: Child,
    output: BufReader<ChildStdout>,
    // Its end is theirs.
    _input: ChildStdin,
}

impl Clients {
    fn new(lab: &Lab, user: u32, group: &str, mode: &str, count: usize) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/misbehave.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(lab.socket());
        command.args([mode, &count.to_string(), &user.to_string(), group]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("Python is there");
        Self {
            _input: child.stdin.take().expect("it is piped"),
            output: BufReader::new(child.stdout.take().expect("it is piped")),
            child,
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it says text");
        line.trim().to_owned()
    }

    /// What they say until all are done.
    fn done(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "it ended early: {said:?}");
            if line == "done" {
                return said;
            }
            said.push(line);
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn counter(lab: &Lab, name: &str) -> u64 {
    let counters = lab.lvx("counters --json");
    let counters: serde_json::Value = serde_json::from_str(&counters).expect("it is JSON");
    let count = counters[name].as_u64();
    count.unwrap_or_else(|| panic!("no {name}: {counters}"))
}

/// The longest that root waits for a change and a listing, `times` each.
fn root_waits(lab: &Lab, times: u32) -> Duration {
    let waits = (0..times).map(|n| {
        let begun = Instant::now();
        lab.ipvsadm(&format!("-A -t 10.1.0.1:{} -s rr", 1000 + n));
        lab.ipvsadm(&format!("-D -t 10.1.0.1:{}", 1000 + n));
        lab.ipvsadm("-Ln");
        begun.elapsed()
    });
    waits.max().unwrap_or_default()
}

/// A check of several MB took minutes, and eight of them stopped the watchdog's pulse for 21 s.
#[test]
fn checks_of_readers_hold_up_nobody() {
    let lab = lab("checks");
    let alone = root_waits(&lab, 5);
    for count in [1, 8] {
        let begun = Instant::now();
        let mut readers = Clients::new(&lab, 64_100, READERS, "check", count);
        let length = readers.line();
        let bytes = length.split(' ').next().and_then(|n| n.parse().ok());
        assert!(
            bytes.is_some_and(|bytes: u32| bytes > 5_000_000),
            "{length}"
        );
        let beside = root_waits(&lab, 5);
        let statuses = readers.done();
        println!(
            "{count} checks in {:?}; root waited {beside:?}, alone {alone:?}",
            begun.elapsed()
        );
        // Three commands, each a process and perhaps a busy machine.
        assert!(
            beside < Duration::from_secs(3) + 5 * alone,
            "{beside:?}, alone {alone:?}"
        );
        let is_answer = |status: &String| status == "200" || status == "503";
        assert!(statuses.iter().all(is_answer), "{statuses:?}");
        assert!(
            statuses.iter().any(|status| status == "200"),
            "{statuses:?}"
        );
    }
    assert_eq!(lab.ipvsadm("-Sn"), "", "a check changes nothing");
}

/// The director's memory, KiB.
fn resident_kib(lab: &Lab) -> u64 {
    let status = format!("/proc/{}/status", lab.director().id());
    let status = fs::read_to_string(status).expect("the director runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
    kib.unwrap_or_else(|| panic!("no size: {status}"))
}

/// Each answer that nobody read was held whole: 370 MB of a large table.
#[test]
fn answers_that_nobody_reads_hold_little() {
    let lab = lab("unread");
    let mut rules = "-A -t 10.1.0.1:80 -s rr\n".to_owned();
    for n in 0..20_000 {
        let (high, low) = (n / 250, n % 250 + 1);
        writeln!(rules, "-a -t 10.1.0.1:80 -r 10.3.{high}.{low}:80 -g").unwrap();
    }
    let file = lab.dir().join("rules");
    fs::write(&file, rules).expect("the lab's folder is writable");
    let restored = lab.restore(&file);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    let before = resident_kib(&lab);
    let mut readers = Clients::new(&lab, 64_100, READERS, "unread", 16);
    readers.done();
    let alone = Instant::now();
    let mut most = 0;
    while alone.elapsed() < Duration::from_secs(4) {
        most = most.max(resident_kib(&lab));
        lab.ipvsadm("-Ln -t 10.1.0.1:80");
    }
    println!("{before} KiB before, {most} KiB at most");
    assert!(
        most < before + 48 * 1024,
        "{before} KiB before, {most} KiB at most"
    );
    eventually(Duration::from_secs(40), || {
        match counter(&lab, "api_unread") {
            16 => Ok(()),
            count => Err(format!("{count} were hung up on")),
        }
    });
}

/// Anybody who might connect could rest on all 128 places.
#[test]
fn root_gets_in_however_many_rest() {
    let lab = lab("resting");
    let mut all: Vec<Clients> = (0..8)
        .map(|n| Clients::new(&lab, 64_100 + n, READERS, "rest", 20))
        .collect();
    let statuses: Vec<String> = all.iter_mut().flat_map(Clients::done).collect();
    let in_all = statuses.iter().filter(|status| *status == "200").count();
    assert!(in_all >= 112, "{statuses:?}");
    let refused = |status: &String| status == "503" || status == "none";
    let out = statuses.iter().filter(|status| refused(status)).count();
    assert_eq!(in_all + out, 160, "{statuses:?}");
    for _ in 0..5 {
        lab.ipvsadm("-A -t 10.1.0.1:80 -s rr");
        lab.ipvsadm("-D -t 10.1.0.1:80");
    }
    // Whoever comes later finds a place: one that rests gives way.
    let mut late = Clients::new(&lab, 64_200, READERS, "rest", 1);
    eventually(Duration::from_secs(20), || {
        let said = late.done();
        if said == ["200"] {
            return Ok(());
        }
        late = Clients::new(&lab, 64_200, READERS, "rest", 1);
        Err(format!("{said:?}"))
    });
    let refusals = counter(&lab, "api_too_many_clients") + counter(&lab, "api_gave_way");
    assert!(refusals >= 49, "{refusals}");
}

/// Who is in neither group does not get a place at all.
#[test]
fn strangers_get_no_place() {
    let lab = lab("strangers");
    let mut strangers = Clients::new(&lab, 64_100, NEITHER, "rest", 200);
    let statuses = strangers.done();
    let turned_away = |status: &String| status == "403" || status == "none";
    assert!(statuses.iter().all(turned_away), "{statuses:?}");
    assert!(
        statuses.iter().any(|status| status == "403"),
        "{statuses:?}"
    );
    assert_eq!(counter(&lab, "api_strangers"), 200);
    assert_eq!(counter(&lab, "api_too_many_clients"), 0);
    lab.ipvsadm("-Ln");
}
