//! Where a system under test stands: its own network namespace between the two ends of a
//! generator, which stand in another. Removed when dropped; what a killed process left is
//! removed by the next one that starts.
//!
//! ```text
//!   gen                                  sut
//!   gc 10.1.0.254 ---------------- cl0 10.1.0.253, VIP 10.1.0.1
//!   gs            ---------------- rs0 10.2.0.1
//!   clients 10.9.0.0/18 behind gc, servers 10.2.0.11 ... behind gs
//! ```

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sched::service::Family;

/// Where all beds keep their files, one folder for each process.
const ROOT: &str = "/run/lvx-bench";

/// The generator's ports: at the clients' side, at the servers' side.
pub const GENERATOR_PORTS: [&str; 2] = ["gc", "gs"];
/// The system's ports, each opposite to the generator's one in its place.
pub const SYSTEM_PORTS: [&str; 2] = ["cl0", "rs0"];

/// Link addresses, by port.
const GENERATOR_MACS: [&str; 2] = ["02:00:00:00:b0:01", "02:00:00:00:b0:02"];
const SYSTEM_MACS: [&str; 2] = ["02:00:00:00:b1:01", "02:00:00:00:b1:02"];

/// The real servers.
pub const SERVERS: u32 = 3;

/// The virtual address.
pub fn virtual_address(family: Family) -> IpAddr {
    crate::world::virtual_address(family, 0)
}

/// A real server's address.
pub fn server_address(family: Family, number: u32) -> IpAddr {
    crate::world::real_address(family, number)
}

/// Two namespaces and the links between them.
#[derive(Debug)]
pub struct Bed {
    generator: String,
    system: String,
    directory: PathBuf,
}

impl Bed {
    /// Lays it out, with as many queues on each port.
    ///
    /// # Errors
    /// What could not be done, in words.
    pub fn new(queues: u32) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        sweep();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let name = format!("lvxb-{process}-{number}");
        let bed = Self {
            generator: format!("{name}-gen"),
            system: format!("{name}-sut"),
            directory: Path::new(ROOT).join(process.to_string()).join(&name),
        };
        fs::create_dir_all(&bed.directory)
            .map_err(|error| format!("{}: {error}", bed.directory.display()))?;
        for namespace in [&bed.generator, &bed.system] {
            run(&["ip", "netns", "add", namespace])?;
        }
        bed.set_up(queues)?;
        Ok(bed)
    }

    /// Where the system may keep files; gone with the bed.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A command within the system's namespace. `ip` becomes that command, so its process
    /// is the child itself.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.system])
            .arg(program)
            .stdin(Stdio::null());
        command
    }

    /// Runs a shell script within the system's namespace.
    ///
    /// # Errors
    /// What it said.
    pub fn script(&self, text: &str) -> Result<(), String> {
        let output = self.command("sh").args(["-euc", text]).output();
        succeeded("sh", output).map(|_| ())
    }

    /// Moves the calling thread to the generator's side, for good.
    ///
    /// # Errors
    /// Where that is not permitted.
    pub fn enter(&self) -> Result<(), String> {
        let path = format!("/run/netns/{}", self.generator);
        let failed = |error: io::Error| format!("{path}: {error}");
        let namespace = File::open(&path).map_err(failed)?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| failed(error.into()))
    }

    /// The link address of the system's port towards the clients.
    pub fn gateway() -> [u8; 6] {
        parse_mac(SYSTEM_MACS[0]).expect("a link address of this file")
    }

    fn set_up(&self, queues: u32) -> Result<(), String> {
        for place in 0..2 {
            self.link(place, queues)?;
        }
        self.script(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
             net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
             net.ipv4.conf.cl0.rp_filter=0 net.ipv4.conf.rs0.rp_filter=0",
        )?;
        self.addresses()
    }

    fn link(&self, place: usize, queues: u32) -> Result<(), String> {
        let (near, far) = (GENERATOR_PORTS[place], SYSTEM_PORTS[place]);
        let queues = queues.to_string();
        run(&[
            "ip",
            "-n",
            &self.generator,
            "link",
            "add",
            near,
            "address",
            GENERATOR_MACS[place],
            "numtxqueues",
            &queues,
            "numrxqueues",
            &queues,
            "type",
            "veth",
            "peer",
            "name",
            far,
            "address",
            SYSTEM_MACS[place],
            "netns",
            &self.system,
            "numtxqueues",
            &queues,
            "numrxqueues",
            &queues,
        ])?;
        for (namespace, port) in [(&self.generator, near), (&self.system, far)] {
            run(&["ip", "-n", namespace, "link", "set", port, "up"])?;
        }
        // Nothing but the benchmark's frames: a host's IPv6 chatter would be counted too.
        let quiet = format!("net.ipv6.conf.{near}.disable_ipv6=1");
        run(&[
            "ip",
            "netns",
            "exec",
            &self.generator,
            "sysctl",
            "-qw",
            &quiet,
        ])
    }

    fn addresses(&self) -> Result<(), String> {
        let mut lines = vec![
            "link set lo up".to_owned(),
            "address add 10.1.0.253/24 dev cl0".to_owned(),
            "address add 10.2.0.1/24 dev rs0".to_owned(),
            "address add fd01::fffd/64 dev cl0 nodad".to_owned(),
            "address add fd02::1/64 dev rs0 nodad".to_owned(),
        ];
        for (family, length, via) in [
            (Family::V4, 32, ("10.9.0.0/16", "10.1.0.254")),
            (Family::V6, 128, ("fd09::/64", "fd01::fffe")),
        ] {
            let (network, gateway) = via;
            let vip = virtual_address(family);
            let nodad = if family == Family::V6 { " nodad" } else { "" };
            lines.push(format!("address add {vip}/{length} dev cl0{nodad}"));
            let mac = GENERATOR_MACS[0];
            lines.push(format!(
                "neighbour add {gateway} lladdr {mac} dev cl0 nud permanent"
            ));
            lines.push(format!("route add {network} via {gateway}"));
            for number in 0..SERVERS {
                let (address, mac) = (server_address(family, number), GENERATOR_MACS[1]);
                lines.push(format!(
                    "neighbour add {address} lladdr {mac} dev rs0 nud permanent"
                ));
            }
        }
        let file = self.directory.join("addresses");
        fs::write(&file, lines.join("\n") + "\n")
            .map_err(|error| format!("{}: {error}", file.display()))?;
        let file = file.display().to_string();
        run(&["ip", "-n", &self.system, "-batch", &file])
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        remove(&self.generator);
        remove(&self.system);
        let _ = fs::remove_dir_all(&self.directory);
        // Succeeds for the last bed of this process, and of this machine.
        if let Some(parent) = self.directory.parent() {
            let _ = fs::remove_dir(parent);
        }
        let _ = fs::remove_dir(ROOT);
    }
}

/// A link address as people write it.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|part| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok())?)
        .collect();
    bytes?.try_into().ok()
}

/// Removes the beds of processes that are gone.
fn sweep() {
    let Ok(processes) = fs::read_dir(ROOT) else {
        return;
    };
    for process in processes.flatten() {
        let name = process.file_name();
        let alive = Path::new("/proc").join(&name).exists();
        let beds = match fs::read_dir(process.path()) {
            Ok(beds) if !alive => beds,
            _ => continue,
        };
        for bed in beds.flatten() {
            let bed = bed.file_name().to_string_lossy().into_owned();
            remove(&format!("{bed}-gen"));
            remove(&format!("{bed}-sut"));
        }
        let _ = fs::remove_dir_all(process.path());
    }
}

/// Ends what still runs in a namespace, and removes it.
fn remove(namespace: &str) {
    if !Path::new("/run/netns").join(namespace).exists() {
        return;
    }
    for signal in ["-TERM", "-KILL"] {
        let processes = match Command::new("ip")
            .args(["netns", "pids", namespace])
            .output()
        {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(_) => break,
        };
        // The calling process may have a thread in there.
        let own = std::process::id().to_string();
        let others: Vec<&str> = processes.split_whitespace().filter(|p| *p != own).collect();
        if others.is_empty() {
            break;
        }
        let _ = Command::new("kill").arg(signal).args(others).output();
        thread::sleep(Duration::from_millis(300));
    }
    let _ = run(&["ip", "netns", "del", namespace]);
}

/// Runs a command to its end.
pub(super) fn run(words: &[&str]) -> Result<(), String> {
    let output = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output();
    succeeded(&words.join(" "), output).map(|_| ())
}

/// What a command wrote, or how it failed.
pub(super) fn succeeded(what: &str, output: io::Result<Output>) -> Result<String, String> {
    let output = output.map_err(|error| format!("{what}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!(
            "{what}: {}: {}",
            output.status,
            text(&output.stderr)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_addresses() {
        let rows = [
            ("02:00:00:00:b1:01", Some([2, 0, 0, 0, 0xb1, 1])),
            ("02:00:00:00:b1", None),
            ("02:00:00:00:b1:01:02", None),
            ("02:00:00:00:b1:1", None),
            ("02:00:00:00:b1:xx", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_mac(text), expected, "{text}");
        }
    }
}
