//! Network namespaces for tests: a director's and a peer's, joined by a veth pair. They
//! go when the test ends, however it ends.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Two namespaces: the director's has `cl0`, the peer's `peer0` at its other end.
pub struct Pair {
    name: String,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Pair {
    /// Makes both; none, with a word on standard error, where that is not permitted.
    pub fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root for network namespaces");
            return None;
        }
        let number = NEXT.fetch_add(1, Relaxed);
        let pair = Self {
            name: format!("lvxc{}x{number}", std::process::id()),
        };
        let (director, peer) = (pair.director(), pair.peer());
        run(&format!("ip netns add {director}"));
        run(&format!("ip netns add {peer}"));
        run(&format!(
            "ip -n {director} link add cl0 type veth peer name peer0 netns {peer}"
        ));
        for (namespace, device) in [(&director, "cl0"), (&peer, "peer0")] {
            run(&format!("ip -n {namespace} link set lo up"));
            run(&format!("ip -n {namespace} link set {device} up"));
        }
        Some(pair)
    }

    /// The director's namespace.
    pub fn director(&self) -> String {
        format!("{}d", self.name)
    }

    /// The peer's namespace.
    pub fn peer(&self) -> String {
        format!("{}p", self.name)
    }

    /// `ip` in the director's namespace.
    pub fn ip(&self, arguments: &str) -> String {
        run(&format!("ip -n {} {arguments}", self.director()))
    }

    /// `ip` in the peer's namespace.
    pub fn peer_ip(&self, arguments: &str) -> String {
        run(&format!("ip -n {} {arguments}", self.peer()))
    }

    /// Whether the kernel has 802.1Q devices.
    pub fn kernel_has_vlans(&self) -> bool {
        let line = format!(
            "-n {} link add link cl0 name probe type vlan id 9",
            self.director()
        );
        let made = Command::new("ip").args(line.split(' ')).output().unwrap();
        if made.status.success() {
            self.ip("link del probe");
        }
        made.status.success()
    }

    /// Runs `work` on a thread in the director's namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.director(), work)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in [self.director(), self.peer()] {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

/// Runs `work` on a thread in a namespace. What it spawns stays there.
pub fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let enter = || {
            let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        match scope.spawn(enter).join() {
            Ok(answer) => answer,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Runs a command line; its output, or a panic with its error.
pub fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until `condition` holds, 5 s at most.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{what}: not within 5 s");
}
