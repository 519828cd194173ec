//! Systems under test: how each is started between the two ports of a [`Bed`], bound to its
//! cores, with the configuration that its makers recommend for this work.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sched::service::Family;

use super::bed::{self, Bed, SERVERS, SYSTEM_PORTS};
use crate::world::{REAL_PORT, VIRTUAL_PORT};

/// How long a system may take to be ready, and to end.
const READY_WITHIN: Duration = Duration::from_secs(20);
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// What can be tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `lvx director`, by NAT.
    Lvx,
    /// `lvx director`, by direct routing.
    LvxDr,
    /// `lvx director`, by IP in IP.
    LvxIpip,
    /// A raw AF_XDP forwarder with the director's rings: the ceiling.
    Reflector,
    /// The same, made with the crate xsk-rs.
    XskRs,
    /// The kernel: nftables DNAT.
    Nftables,
    /// haproxy in TCP mode.
    Haproxy,
    /// nginx's stream module.
    Nginx,
    /// DPDK's testpmd on AF_XDP, which changes link addresses only.
    Testpmd,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Lvx,
        Self::LvxDr,
        Self::LvxIpip,
        Self::Reflector,
        Self::XskRs,
        Self::Nftables,
        Self::Haproxy,
        Self::Nginx,
        Self::Testpmd,
    ];

    /// As it is named on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lvx => "lvx",
            Self::LvxDr => "lvx-dr",
            Self::LvxIpip => "lvx-ipip",
            Self::Reflector => "reflector",
            Self::XskRs => "xsk-rs",
            Self::Nftables => "nftables",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Testpmd => "testpmd",
        }
    }

    /// Whether frames pass it one by one. Others end TCP connections themselves.
    pub fn forwards_frames(self) -> bool {
        !matches!(self, Self::Haproxy | Self::Nginx)
    }

    /// Whether clients' and servers' TCP can talk through it in both directions here.
    pub fn exchanges(self) -> bool {
        matches!(
            self,
            Self::Lvx | Self::Nftables | Self::Haproxy | Self::Nginx
        )
    }

    /// The longest frame that it can pass on over links of 1,500 bytes: a tunnel's outer IPv4
    /// header takes 20 of them.
    pub fn longest_frame_bytes(self) -> usize {
        match self {
            Self::LvxIpip => 1494,
            _ => 1514,
        }
    }

    /// Whether it is one process that takes frames from AF_XDP rings of a director's size.
    pub fn drains(self) -> bool {
        matches!(
            self,
            Self::Lvx | Self::LvxDr | Self::LvxIpip | Self::Reflector | Self::XskRs
        )
    }

    /// The program that it needs, where that is not lvx itself.
    fn program(self) -> Option<&'static str> {
        match self {
            Self::Nftables => Some("nft"),
            Self::Haproxy => Some("haproxy"),
            Self::Nginx => Some("nginx"),
            Self::Testpmd => Some("dpdk-testpmd"),
            _ => None,
        }
    }

    /// Whether it can be started here, or why not.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(self) -> Result<(), String> {
        let Some(program) = self.program() else {
            return Ok(());
        };
        let found = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
            .iter()
            .any(|folder| fs::exists(format!("{folder}/{program}")).unwrap_or(false));
        found
            .then_some(())
            .ok_or_else(|| format!("{program} is not installed"))
    }
}

/// How to start one.
#[derive(Clone, Debug)]
pub struct Setup {
    /// lvx's own binary.
    pub lvx: PathBuf,
    /// The cores to work on, one worker each.
    pub cores: Vec<usize>,
    /// Room for connections.
    pub connections: u64,
    /// lvx's workers never sleep.
    pub busy_poll: bool,
}

/// A system that runs. Ends when dropped.
#[derive(Debug)]
pub struct System {
    kind: Kind,
    child: Option<Child>,
    log: PathBuf,
    bed: Bed,
}

impl System {
    /// Starts it on a bed, and waits until it works.
    ///
    /// # Errors
    /// Why it does not start, with the end of its log.
    pub fn start(kind: Kind, bed: Bed, setup: &Setup) -> Result<Self, String> {
        kind.check()?;
        let mut system = Self {
            kind,
            child: None,
            log: bed.directory().join("log"),
            bed,
        };
        let started = match kind {
            Kind::Lvx => system.director(setup, &format!("-m:{REAL_PORT}")),
            Kind::LvxDr => system.director(setup, &format!("-g:{VIRTUAL_PORT}")),
            Kind::LvxIpip => system.director(setup, &format!("-i:{VIRTUAL_PORT}")),
            Kind::Reflector => system.reflector(setup, &[]),
            Kind::XskRs => system.reflector(setup, &["--with-xsk-rs"]),
            Kind::Nftables => system.nftables(setup),
            Kind::Haproxy => system.haproxy(setup),
            Kind::Nginx => system.nginx(setup),
            Kind::Testpmd => system.testpmd(setup),
        };
        started.map_err(|problem| format!("{}: {problem}{}", kind.name(), system.last_words()))?;
        Ok(system)
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it stands.
    pub fn bed(&self) -> &Bed {
        &self.bed
    }

    /// Its process, if it is one.
    pub fn process(&self) -> Option<Pid> {
        self.child.as_ref().map(Pid::from_child)
    }

    /// Stops it, so that it takes no time from others, or lets it go on.
    pub fn rest(&self, resting: bool) {
        let signal = if resting { Signal::STOP } else { Signal::CONT };
        if let Some(process) = self.process() {
            // Where it is gone, the measurement says so.
            let _ = kill_process(process, signal);
        }
    }

    /// The director's API.
    pub fn api(&self) -> PathBuf {
        self.bed.directory().join("api.sock")
    }

    /// `lvx adm` on the director.
    ///
    /// # Errors
    /// What it said.
    pub fn administer(&self, lvx: &std::path::Path, words: &str) -> Result<String, String> {
        let output = Command::new(lvx)
            .arg("adm")
            .args(words.split_whitespace())
            .env("LVX_API", self.api())
            .output();
        bed::succeeded(words, output)
    }

    fn director(&mut self, setup: &Setup, method: &str) -> Result<(), String> {
        let mut command = self.bed.command(&setup.lvx);
        command.arg("director").arg("--api").arg(self.api());
        command.args(["--cores", &list(&setup.cores)]);
        command.args(["--connections", &setup.connections.to_string()]);
        for port in SYSTEM_PORTS {
            command.args(["--port", port]);
        }
        if setup.busy_poll {
            command.arg("--busy-poll");
        }
        self.spawn(command)?;
        self.wait("the API", |system| {
            system.administer(&setup.lvx, "-L -n").is_ok()
        })?;
        let (flag, port) = method.split_once(':').expect("a flag and a port");
        for family in [Family::V4, Family::V6] {
            for protocol in ["-u", "-t"] {
                let service = endpoint(bed::virtual_address(family), VIRTUAL_PORT);
                self.administer(&setup.lvx, &format!("-A {protocol} {service} -s rr"))?;
                for number in 0..SERVERS {
                    let address = bed::server_address(family, number).to_string();
                    let server = match family {
                        Family::V4 => format!("{address}:{port}"),
                        Family::V6 => format!("[{address}]:{port}"),
                    };
                    self.administer(
                        &setup.lvx,
                        &format!("-a {protocol} {service} -r {server} {flag}"),
                    )?;
                }
            }
        }
        Ok(())
    }

    fn reflector(&mut self, setup: &Setup, words: &[&str]) -> Result<(), String> {
        let mut command = self.bed.command(&setup.lvx);
        command.args(["bench", "reflect", "--cores", &list(&setup.cores)]);
        command.args(words);
        for port in SYSTEM_PORTS {
            command.args(["--port", port]);
        }
        self.spawn(command)?;
        self.wait("`forwarding`", |system| system.log().contains("forwarding"))
    }

    /// The kernel works on the core that frames arrive on, which is the generator's: receive
    /// packet steering moves it to the system's.
    fn nftables(&mut self, setup: &Setup) -> Result<(), String> {
        let vip = bed::virtual_address(Family::V4);
        let servers: Vec<String> = (0..SERVERS)
            .map(|n| format!("{n} : {} . {REAL_PORT}", bed::server_address(Family::V4, n)))
            .collect();
        let rules = format!(
            "table ip bench {{\n chain pre {{\n  type nat hook prerouting priority dstnat;\n  \
             ip daddr {vip} meta l4proto {{ tcp, udp }} th dport {VIRTUAL_PORT} \
             dnat ip addr . port to numgen inc mod {SERVERS} map {{ {} }}\n }}\n}}\n",
            servers.join(", ")
        );
        let file = self.bed.directory().join("rules.nft");
        fs::write(&file, rules).map_err(|error| format!("{}: {error}", file.display()))?;
        self.bed.script(&format!("nft -f {}", file.display()))?;
        // Closed connections are forgotten soon: conntrack's table has a limit that only the
        // whole machine can raise.
        self.bed.script(
            "cd /proc/sys/net/netfilter; for name in time_wait close_wait last_ack fin_wait close; \
             do echo 1 >nf_conntrack_tcp_timeout_$name; done",
        )?;
        self.steer_to(setup)
    }

    fn steer_to(&self, setup: &Setup) -> Result<(), String> {
        let mask: u64 = setup.cores.iter().map(|core| 1 << (core & 63)).sum();
        self.bed.script(&format!(
            "for file in /sys/class/net/cl0/queues/rx-*/rps_cpus /sys/class/net/rs0/queues/rx-*/rps_cpus; \
             do echo {mask:x} >$file; done"
        ))
    }

    fn haproxy(&mut self, setup: &Setup) -> Result<(), String> {
        let vip = bed::virtual_address(Family::V4);
        let cores = list(&setup.cores);
        let mut text = format!(
            "global\n  maxconn 8000\n  nbthread {}\n  cpu-map auto:1/1-{} {}\n\
             defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 10s\n  timeout server 10s\n\
             listen bench\n  bind {vip}:{VIRTUAL_PORT} backlog 65535\n  balance roundrobin\n",
            setup.cores.len(),
            setup.cores.len(),
            cores.replace(',', " "),
        );
        for n in 0..SERVERS {
            let address = bed::server_address(Family::V4, n);
            text += &format!("  server s{n} {address}:{REAL_PORT}\n");
        }
        let file = self.proxy(setup, "haproxy.cfg", &text)?;
        let mut command = self.bed.command("haproxy");
        command.args(["-db", "-f"]).arg(file);
        self.spawn(command)?;
        self.wait_for_listener()
    }

    fn nginx(&mut self, setup: &Setup) -> Result<(), String> {
        let vip = bed::virtual_address(Family::V4);
        let mut servers = String::new();
        for n in 0..SERVERS {
            let address = bed::server_address(Family::V4, n);
            // Between rounds the servers are silent. nginx would hold the connections that it was
            // opening then against them, and use none of them for 10 s: a whole round.
            servers += &format!("server {address}:{REAL_PORT} max_fails=0; ");
        }
        let folder = self.bed.directory().display();
        let text = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
             daemon off; user root; worker_processes {}; worker_rlimit_nofile 65536;\n\
             pid {folder}/nginx.pid; error_log {folder}/error.log crit;\n\
             events {{ worker_connections 32768; multi_accept on; }}\n\
             stream {{ upstream bench {{ {servers}}}\n\
             server {{ listen {vip}:{VIRTUAL_PORT} backlog=65535 reuseport; proxy_pass bench; \
             proxy_connect_timeout 2s; tcp_nodelay on; }} }}\n",
            setup.cores.len(),
        );
        let file = self.proxy(setup, "nginx.conf", &text)?;
        let mut command = self.bed.command("taskset");
        command.args(["-c", &list(&setup.cores), "nginx", "-e", "stderr", "-c"]);
        command.arg(file);
        self.spawn(command)?;
        self.wait_for_listener()
    }

    /// What both proxies need: ports and backlog for many short connections.
    fn proxy(&self, setup: &Setup, name: &str, text: &str) -> Result<PathBuf, String> {
        let file = self.bed.directory().join(name);
        fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        self.bed.script(
            "cd /proc/sys/net; echo '1024 65535' >ipv4/ip_local_port_range; \
             echo 65535 >core/somaxconn; echo 65535 >ipv4/tcp_max_syn_backlog; \
             echo 1 >ipv4/tcp_tw_reuse",
        )?;
        self.steer_to(setup)?;
        Ok(file)
    }

    fn testpmd(&mut self, setup: &Setup) -> Result<(), String> {
        // The main thread only waits; the last core forwards.
        let core = setup.cores.last().copied().unwrap_or_default();
        let prefix = format!("lvxb{}", std::process::id());
        let mut command = self.bed.command("dpdk-testpmd");
        command.args([
            "--no-huge",
            "-m",
            "512",
            "--no-pci",
            "--no-telemetry",
            "--file-prefix",
            &prefix,
        ]);
        command.args(["--lcores", &format!("0@{core},1@{core}")]);
        for (n, port) in SYSTEM_PORTS.iter().enumerate() {
            command.args(["--vdev", &format!("net_af_xdp{n},iface={port}")]);
        }
        command.args([
            "--",
            "--forward-mode=macswap",
            "--nb-cores=1",
            "--auto-start",
            "--rxd=2048",
            "--txd=2048",
            "--burst=64",
            "--stats-period=3600",
            "--total-num-mbufs=16384",
        ]);
        self.spawn(command)?;
        self.wait("its statistics", |system| {
            system.log().contains("NIC statistics")
        })
    }

    fn spawn(&mut self, mut command: Command) -> Result<(), String> {
        let failed = |error| format!("{}: {error}", self.log.display());
        let log = File::create(&self.log).map_err(failed)?;
        let copy = log.try_clone().map_err(failed)?;
        let child = command.stdout(log).stderr(copy).spawn();
        self.child = Some(child.map_err(|error| error.to_string())?);
        Ok(())
    }

    fn wait_for_listener(&mut self) -> Result<(), String> {
        self.wait("its listener", |system| {
            let listens = format!("ss -Hltn 'sport = :{VIRTUAL_PORT}' | grep -q .");
            system.bed.script(&listens).is_ok()
        })
    }

    fn wait(&mut self, what: &str, mut ready: impl FnMut(&Self) -> bool) -> Result<(), String> {
        let begin = Instant::now();
        while !ready(self) {
            let ended = self.child.as_mut().map(Child::try_wait);
            if let Some(Ok(Some(status))) = ended {
                return Err(format!("it ended with {status}"));
            }
            if begin.elapsed() > READY_WITHIN {
                return Err(format!("{what} was not there within {READY_WITHIN:?}"));
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines
            .iter()
            .rev()
            .map(|line| format!("\n  {line}"))
            .collect()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let process = Pid::from_child(&child);
        let _ = kill_process(process, Signal::CONT);
        let _ = kill_process(process, Signal::TERM);
        let begin = Instant::now();
        while begin.elapsed() < GONE_WITHIN {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// `2,3`
fn list(cores: &[usize]) -> String {
    let words: Vec<String> = cores.iter().map(usize::to_string).collect();
    words.join(",")
}

fn endpoint(address: std::net::IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}
