//! Which machine, kernel and programs the figures are of.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// A machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Its processor.
    pub processor: String,
    /// Its cores.
    pub cores: usize,
    /// Its memory, GiB.
    pub memory_gib: f64,
    /// Whether it is a virtual one.
    pub is_virtual: bool,
    /// Its kernel.
    pub kernel: String,
    /// Programs and their versions.
    pub versions: BTreeMap<String, String>,
}

impl Machine {
    /// This one, with lvx's version.
    pub fn this(lvx: &str) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            line.split_once(':')
                .map(|(_, value)| value.trim().to_owned())
        };
        let mut versions = BTreeMap::from([("lvx".to_owned(), lvx.to_owned())]);
        for (name, words) in PROGRAMS {
            if let Some(version) = said(words) {
                versions.insert((*name).to_owned(), version);
            }
        }
        Self {
            processor: field("model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: cpuinfo
                .lines()
                .filter(|l| l.starts_with("processor"))
                .count(),
            memory_gib: memory_kib() as f64 / f64::from(1 << 20),
            is_virtual: field("flags").is_some_and(|flags| flags.contains("hypervisor")),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            versions,
        }
    }
}

/// Programs, and how they tell their version.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("nftables", &["nft", "--version"]),
    ("haproxy", &["haproxy", "-v"]),
    ("nginx", &["nginx", "-v"]),
    ("DPDK", &["dpkg-query", "-W", "-f", "${Version}", "dpdk"]),
    ("valgrind", &["valgrind", "--version"]),
];

fn said(words: &[&str]) -> Option<String> {
    let output = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    // nginx answers on standard error.
    let all = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&all);
    text.lines().next().map(version).filter(|v| !v.is_empty())
}

/// The version within a line such as `nginx version: nginx/1.22.1`.
fn version(line: &str) -> String {
    let start_of = |word: &str| word.find(|c: char| c.is_ascii_digit());
    let words = line.split([' ', '/']);
    let is_version = |word: &&str| word.contains('.') && start_of(word).is_some_and(|at| at <= 9);
    let word = words.clone().find(is_version).unwrap_or(line.trim());
    let start = start_of(word).unwrap_or(0);
    word[start..].trim_end_matches([',', ')']).to_owned()
}

fn memory_kib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// The time now, as people write it, in UTC.
pub fn now() -> String {
    said_whole(&["date", "-u", "+%Y-%m-%d %H:%M UTC"])
}

fn said_whole(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let rows = [
            ("nginx version: nginx/1.22.1", "1.22.1"),
            ("nftables v1.0.6 (Lester Gooch #5)", "1.0.6"),
            (
                "HAProxy version 2.6.12-1+deb12u4 2026/01/02 - https://haproxy.org/",
                "2.6.12-1+deb12u4",
            ),
            ("valgrind-3.19.0", "3.19.0"),
            ("22.11.11-0+deb12u1", "22.11.11-0+deb12u1"),
        ];
        for (line, expected) in rows {
            assert_eq!(version(line), expected, "{line}");
        }
    }

    #[test]
    fn this_machine_has_cores_and_a_kernel() {
        let machine = Machine::this("1.2.3");
        assert!(machine.cores > 0 && machine.memory_gib > 0.1 && !machine.kernel.is_empty());
        assert_eq!(machine.versions["lvx"], "1.2.3");
    }
}
