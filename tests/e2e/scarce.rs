//! What a director needs is not there, or runs out while it works: it says so, says what to do, and goes on.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::lab::{Family, Lab, Method};
use crate::load::{connect_all, round};

/// A file system of a few megabytes.
struct Small(PathBuf);

impl Small {
    fn mount(path: PathBuf) -> Small {
        fs::create_dir(&path).expect("own folder");
        let words = ["-t", "tmpfs", "-o", "size=12m", "none"];
        let status = Command::new("mount").args(words).arg(&path).status();
        assert!(status.expect("mount runs").success());
        Small(path)
    }

    /// Takes all the room there is.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).expect("it takes names");
        let block = [0x5a; 4096];
        while file.write_all(&block).is_ok() {}
        path
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Also while the director that has files there is about to end.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Room for changes is taken beforehand. What does not fit all the same is refused, and what was acknowledged before
/// outlives a kill.
#[test]
fn a_disk_that_fills_up_loses_nothing_acknowledged() {
    let mut lab = Lab::forwarding_not_yet("disk-full", Method::Nat);
    let small = Small::mount(lab.dir().join("small"));
    let folder = small.path().join("state");
    let words = [
        "--state-dir",
        folder.to_str().expect("UTF-8"),
        "--connections",
        "1024",
    ];
    lab.start_with(&words);
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    let mut clients = lab.inside("client", || connect_all(&Family::V4.service(80), 10));
    let filler = small.fill();

    for port in 1000..1200 {
        lab.ipvsadm(&format!("-A -t {}", Family::V4.service(port)));
    }
    let saved = lab.ipvsadm("-S -n");
    assert!(saved.contains("10.1.0.1:1199"), "{saved}");

    // Some megabytes at once.
    let rules = lab.dir().join("many");
    let many = |count: usize| {
        let lines = (0..count).map(|n| {
            let (high, low) = (n >> 8, n & 255);
            format!("-a -t 10.1.0.1:80 -r 10.3.{high}.{low}:80 -m\n")
        });
        fs::write(&rules, lines.collect::<String>()).expect("the lab's folder has room");
    };
    many(20_000);
    let refused = lab.restore(&rules);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("cannot be saved"),
        "{said}"
    );
    assert_eq!(lab.ipvsadm("-S -n"), saved, "nothing of it is in force");
    let log = lab.director().log();
    assert!(log.contains("ERROR") && log.contains("make some"), "{log}");
    lab.inside("client", || round(&mut clients));

    lab.stop(Signal::KILL);
    lab.start_with(&words);
    assert_eq!(lab.ipvsadm("-S -n"), saved);
    lab.inside("client", || round(&mut clients));

    fs::remove_file(filler).expect("own file");
    many(1_000);
    let output = lab.restore(&rules);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(lab.stop(Signal::TERM).success());
}

/// No huge pages: a warning with the command to call, small pages, and all works.
#[test]
fn without_huge_pages_small_ones_do() {
    let mut lab = Lab::forwarding_not_yet("no-huge", Method::Nat);
    // More than any machine has set aside.
    lab.start_with(&["--huge-pages", "--connections", "1000000"]);
    let log = lab.director().log();
    let is_told = log.contains("vm.nr_hugepages=") || log.contains("mount -t hugetlbfs");
    assert!(log.contains("WARN") && is_told, "{log}");
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    let mut clients = lab.inside("client", || connect_all(&Family::V4.service(80), 5));
    lab.stop(Signal::KILL);
    lab.start_with(&["--huge-pages", "--connections", "1000000"]);
    lab.inside("client", || round(&mut clients));
}
