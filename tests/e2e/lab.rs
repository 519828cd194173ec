//! One lab per test: namespaces by `scripts/lab`, the director as a child process, both gone when the value is dropped.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The virtual addresses and, per family, how a URL and ipvsadm write them.
pub const VIP4: &str = "10.1.0.1";
pub const VIP6: &str = "fd01::1";
/// The director's own addresses on the clients' side.
pub const DIRECTOR4: &str = "10.1.0.253";
pub const DIRECTOR6: &str = "fd01::253";
pub const SERVERS: [&str; 3] = ["rs1", "rs2", "rs3"];

const READY_WITHIN: Duration = Duration::from_secs(15);
const GONE_WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Nat,
    Direct,
    Tunnel,
}

impl Method {
    /// ipvsadm's flag.
    pub fn flag(self) -> &'static str {
        match self {
            Method::Nat => "-m",
            Method::Direct => "-g",
            Method::Tunnel => "-i",
        }
    }

    /// The word that `scripts/lab method` and `scripts/real-server` use.
    pub fn word(self) -> &'static str {
        match self {
            Method::Nat => "nat",
            Method::Direct => "dr",
            Method::Tunnel => "tunnel",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn vip(self) -> &'static str {
        match self {
            Family::V4 => VIP4,
            Family::V6 => VIP6,
        }
    }

    /// `ADDRESS:PORT` of a service on the virtual address.
    pub fn service(self, port: u16) -> String {
        endpoint(self.vip(), port)
    }

    /// `ADDRESS:PORT` of a real server, 1 to 3.
    pub fn server(self, index: usize, port: u16) -> String {
        match self {
            Family::V4 => endpoint(&format!("10.2.0.1{index}"), port),
            Family::V6 => endpoint(&format!("fd02::1{index}"), port),
        }
    }
}

pub fn endpoint(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// Builds a [`Lab`].
#[derive(Clone, Copy)]
pub struct Options {
    /// 2: the director stands between clients and servers; 1: all on one network.
    pub arms: u8,
    /// Queues of the director's ports, so its workers.
    pub queues: u8,
}

impl Default for Options {
    fn default() -> Self {
        Options { arms: 2, queues: 1 }
    }
}

/// Commands to a lab's director from wherever one has no lab at hand: it needs no director to be there.
#[derive(Clone)]
pub struct Operator {
    namespace: String,
    socket: PathBuf,
}

impl Operator {
    /// `ipvsadm`; words are split at spaces.
    pub fn ipvsadm(&self, words: &str) -> Output {
        self.run(ipvsadm(), &words.split_whitespace().collect::<Vec<_>>())
    }

    pub fn lvx(&self, words: &[&str]) -> Output {
        self.run(&lvx(), words)
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn run(&self, program: &Path, words: &[&str]) -> Output {
        exec(&self.namespace, program)
            .args(words)
            .env("LVX_API", &self.socket)
            .output()
            .expect("ip netns exec runs")
    }
}

pub struct Lab {
    name: String,
    director: Option<Director>,
    options: Options,
    is_kept: bool,
    // Last: the next lab may begin when this one is gone.
    _place: Place,
}

impl Lab {
    /// A lab without a director. Waits for its turn.
    pub fn new(name: &str, options: Options) -> Lab {
        assert!(
            rustix::process::geteuid().is_root(),
            "the end-to-end tests need root: run them with sudo"
        );
        allow_many_files();
        let place = Place::take();
        let name = format!("{name}-{}", std::process::id());
        let lab = Lab {
            name,
            director: None,
            options,
            is_kept: false,
            _place: place,
        };
        lab.script(&[
            "up",
            &lab.name,
            "--owner",
            &std::process::id().to_string(),
            "--arms",
            &options.arms.to_string(),
            "--queues",
            &options.queues.to_string(),
            "--file",
            LARGE
                .path
                .to_str()
                .expect("the build folder's name is UTF-8"),
        ]);
        lab
    }

    /// A lab with its director running and the real servers set up.
    pub fn forwarding(name: &str, options: Options, method: Method) -> Lab {
        let mut lab = Lab::new(name, options);
        lab.script(&["method", &lab.name, method.word()]);
        lab.start();
        lab
    }

    /// A lab with the real servers set up, whose director is still to be started.
    pub fn forwarding_not_yet(name: &str, method: Method) -> Lab {
        Lab::forwarding_not_yet_with(name, Options::default(), method)
    }

    pub fn forwarding_not_yet_with(name: &str, options: Options, method: Method) -> Lab {
        let lab = Lab::new(name, options);
        lab.script(&["method", &lab.name, method.word()]);
        lab
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the lab keeps its files: gone with it.
    pub fn dir(&self) -> PathBuf {
        Path::new("/run/lvx-lab").join(&self.name)
    }

    pub fn socket(&self) -> PathBuf {
        self.dir().join("api.sock")
    }

    pub fn ports(&self) -> &'static [&'static str] {
        if self.options.arms == 2 {
            &["cl0", "rs0"]
        } else {
            &["cl0"]
        }
    }

    /// Starts the director on all ports and waits until it obeys.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same, with more words on its command line.
    pub fn start_with(&mut self, words: &[&str]) {
        let mut command = self.director_command(self.ports(), &self.socket());
        command.args(words);
        self.run(command);
    }

    /// The same, with an environment of its own too.
    pub fn start_as(&mut self, words: &[&str], environment: &[(&str, &str)]) {
        let mut command = self.director_command(self.ports(), &self.socket());
        command.args(words).envs(environment.iter().copied());
        self.run(command);
    }

    pub fn start_on(&mut self, ports: &[&str]) {
        self.run(self.director_command(ports, &self.socket()));
    }

    /// Starts the director by a command of one's own.
    pub fn start_command(&mut self, command: Command) {
        self.run(command);
    }

    /// Starts another director in the place of the one that runs; how that one ended.
    pub fn take_over(&mut self, words: &[&str]) -> (ExitStatus, String) {
        let mut old = self.director.take().expect("a director runs");
        let mut command = self.director_command(self.ports(), &self.socket());
        command.arg("--take-over").args(words);
        let new = Director::spawn(command, &self.dir());
        let status = old
            .wait_within(READY_WITHIN)
            .unwrap_or_else(|| panic!("the old director runs on:\n{}{}", old.log(), new.log()));
        self.wait_for(new);
        (status, old.log())
    }

    /// Has the director start another in its own place; how it ended, which the log of both says.
    pub fn upgrade(&mut self) -> ExitStatus {
        // The process that nobody waits for any more is this one's then: how it ends can be seen.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .expect("any process may");
        let mut old = self.director.take().expect("a director runs");
        old.signal(Signal::USR2);
        let status = old
            .wait_within(READY_WITHIN)
            .unwrap_or_else(|| panic!("the old director runs on:\n{}", old.log()));
        let log = old.log();
        let number = log.rsplit("is started as process ").next();
        let number = number.and_then(|rest| rest.split(',').next()?.parse().ok());
        let number = number.unwrap_or_else(|| panic!("no word of another process:\n{log}"));
        self.wait_for(Director {
            process: Process::Adopted(Pid::from_raw(number).expect("a process")),
            log: old.log,
        });
        status
    }

    fn run(&mut self, command: Command) {
        assert!(self.director.is_none(), "one director per lab");
        let director = Director::spawn(command, &self.dir());
        self.wait_for(director);
    }

    /// Until it obeys.
    fn wait_for(&mut self, mut director: Director) {
        let begin = Instant::now();
        while !self.try_ipvsadm("-L -n").status.success() {
            if let Some(status) = director.try_wait() {
                panic!("the director ended ({status}):\n{}", director.log());
            }
            assert!(
                begin.elapsed() < READY_WITHIN,
                "the director is not ready:\n{}",
                director.log()
            );
            thread::sleep(Duration::from_millis(50));
        }
        self.director = Some(director);
    }

    /// Ends the director with `signal` and says how it ended.
    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        self.director.take().expect("a director runs").end(signal)
    }

    /// How the director ended, where it did so without being asked to; there is none then.
    pub fn ended(&mut self) -> Option<(ExitStatus, String)> {
        let director = self.director.as_mut()?;
        let status = director.try_wait()?;
        let log = director.log();
        self.director = None;
        Some((status, log))
    }

    /// Leaves the lab, and its director, as they are: `scripts/lab down` removes them.
    pub fn keep(mut self) {
        fs::write(self.dir().join("owner"), "0\n").expect("the lab's folder has room");
        self.is_kept = true;
    }

    pub fn director(&self) -> &Director {
        self.director.as_ref().expect("a director runs")
    }

    /// `lvx director` in the director's namespace, not yet started.
    pub fn director_command(&self, ports: &[&str], socket: &Path) -> Command {
        let mut command = self.exec("director", lvx());
        command.arg("director").arg("--api").arg(socket);
        for port in ports {
            command.args(["--port", port]);
        }
        command
    }

    /// A command in the namespace of `who`: client, director, rs1, rs2, rs3.
    pub fn exec(&self, who: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        exec(&self.namespace(who), program)
    }

    pub fn namespace(&self, who: &str) -> String {
        format!("lvx-{}-{who}", self.name)
    }

    /// A shell line in the namespace of `who`; its standard output. Fails the test where the line fails.
    pub fn shell(&self, who: &str, line: &str) -> String {
        let output = self
            .exec(who, "bash")
            .args(["-euo", "pipefail", "-c", line])
            .output()
            .expect("bash runs");
        assert!(
            output.status.success(),
            "{who}: {line}: {}\n{}{}",
            output.status,
            text(&output.stderr),
            self.log()
        );
        text(&output.stdout)
    }

    /// Runs `ipvsadm`; words are split at spaces. Fails the test where ipvsadm does.
    pub fn ipvsadm(&self, words: &str) -> String {
        let output = self.try_ipvsadm(words);
        assert!(
            output.status.success(),
            "ipvsadm {words}: {}\n{}{}",
            output.status,
            text(&output.stderr),
            self.log()
        );
        text(&output.stdout)
    }

    /// `ipvsadm -R` with the rules of a file on its standard input.
    pub fn restore(&self, rules: &Path) -> Output {
        let rules = File::open(rules).unwrap_or_else(|e| panic!("{}: {e}", rules.display()));
        let mut command = self.exec("director", ipvsadm());
        command
            .arg("-R")
            .env("LVX_API", self.socket())
            .stdin(rules)
            .output()
            .expect("ip netns exec runs")
    }

    pub fn try_ipvsadm(&self, words: &str) -> Output {
        self.operator().ipvsadm(words)
    }

    pub fn operator(&self) -> Operator {
        Operator {
            namespace: self.namespace("director"),
            socket: self.socket(),
        }
    }

    /// Runs `lvx` on the director; words are split at spaces. Fails the test where it fails.
    pub fn lvx(&self, words: &str) -> String {
        self.lvx_words(&words.split_whitespace().collect::<Vec<_>>())
    }

    pub fn lvx_words(&self, words: &[&str]) -> String {
        let output = self.operator().lvx(words);
        assert!(
            output.status.success(),
            "lvx {words:?}: {}\n{}{}",
            output.status,
            text(&output.stderr),
            self.log()
        );
        text(&output.stdout)
    }

    /// Adds a service and its three servers.
    pub fn add_service(
        &self,
        family: Family,
        port: u16,
        scheduler: &str,
        method: Method,
        server_port: u16,
    ) {
        let service = family.service(port);
        self.ipvsadm(&format!("-A -t {service} -s {scheduler}"));
        for index in 1..=SERVERS.len() {
            let server = family.server(index, server_port);
            self.ipvsadm(&format!("-a -t {service} -r {server} {}", method.flag()));
        }
    }

    /// Runs `body` on a thread that lives in the namespace of `who`: its sockets belong there for good.
    pub fn inside<T: Send>(&self, who: &str, body: impl FnOnce() -> T + Send) -> T {
        let namespace = self.namespace(who);
        let result = thread::scope(|scope| scope.spawn(|| enter(&namespace, body)).join());
        result.unwrap_or_else(|panic| {
            eprintln!("{}", self.log());
            std::panic::resume_unwind(panic)
        })
    }

    /// The director's log until now, with a heading.
    pub fn log(&self) -> String {
        self.director
            .as_ref()
            .map_or_else(String::new, |d| format!("director's log:\n{}", d.log()))
    }

    /// What a director may leave behind in its namespace: links, their XDP programs, routes and rules,
    /// pins and state.
    pub fn footprint(&self) -> String {
        let kept = format!(
            "find /run/lvx/bpf/lvx /dev/shm -path '*lvx-lab-{}-*' -not -name 'state*' 2>/dev/null | sort || true",
            self.name
        );
        let kept = self.shell("director", &kept);
        let lines = "ip -d -o link | sed -E 's/ (mtu|qlen|promiscuity|allmulti|gso_[a-z_0-9]*|gro_[a-z_0-9]*|tso_[a-z_]*) \
                     [0-9]+//g'; ip address | grep -v valid_lft; ip rule; ip route; ip -6 route; tc qdisc; nft list ruleset 2>/dev/null || true";
        self.shell("director", lines) + &kept
    }

    pub fn script(&self, words: &[&str]) {
        let output = run_lab(words);
        assert!(
            output.status.success(),
            "scripts/lab {}: {}",
            words.join(" "),
            text(&output.stderr)
        );
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Some(director) = self.director.take() {
            if thread::panicking() {
                eprintln!("director's log:\n{}", director.log());
            }
            director.end(Signal::TERM);
        }
        let output = run_lab(&["down", &self.name]);
        if !output.status.success() {
            eprintln!("scripts/lab down: {}", text(&output.stderr));
        }
    }
}

/// The director's process.
pub struct Director {
    process: Process,
    log: PathBuf,
}

enum Process {
    Child(Child),
    /// Started by a director that is gone.
    Adopted(Pid),
}

impl Director {
    fn spawn(mut command: Command, dir: &Path) -> Director {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let log = dir.join(format!("director-{number}.log"));
        let file = File::create(&log).unwrap_or_else(|e| panic!("{}: {e}", log.display()));
        let errors = file.try_clone().expect("a file handle can be cloned");
        let child = command
            .stdout(file)
            .stderr(errors)
            .spawn()
            .expect("ip netns exec runs");
        Director {
            process: Process::Child(child),
            log,
        }
    }

    fn pid(&self) -> Pid {
        match &self.process {
            Process::Child(child) => Pid::from_child(child),
            Process::Adopted(pid) => *pid,
        }
    }

    /// How it ended, if it has.
    fn try_wait(&mut self) -> Option<ExitStatus> {
        match &mut self.process {
            Process::Child(child) => child.try_wait().expect("a child can be waited for"),
            Process::Adopted(pid) => {
                let waited = rustix::process::waitpid(Some(*pid), WaitOptions::NOHANG);
                let (_, status) = waited.expect("an adopted child can be waited for")?;
                Some(ExitStatus::from_raw(status.as_raw()))
            }
        }
    }

    fn wait_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        loop {
            match self.try_wait() {
                None if begin.elapsed() < limit => thread::sleep(Duration::from_millis(5)),
                ended => return ended,
            }
        }
    }

    /// Sends a signal that does not end it.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("the director runs");
    }

    /// The id of the process: `ip netns exec` becomes the director.
    pub fn id(&self) -> u32 {
        self.pid().as_raw_nonzero().get() as u32
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The ids of the BPF programs and maps that the process holds, as `("prog"|"map", id)`.
    pub fn bpf_objects(&self) -> Vec<(&'static str, String)> {
        let mut objects = Vec::new();
        let folder = format!("/proc/{}/fdinfo", self.id());
        for entry in fs::read_dir(folder).expect("the director runs").flatten() {
            let info = fs::read_to_string(entry.path()).unwrap_or_default();
            for line in info.lines() {
                match line.split_once(':') {
                    Some(("prog_id", id)) => objects.push(("prog", id.trim().to_owned())),
                    Some(("map_id", id)) => objects.push(("map", id.trim().to_owned())),
                    _ => {}
                }
            }
        }
        objects
    }

    fn end(mut self, signal: Signal) -> ExitStatus {
        // An error here says that it ended already: its status says how.
        let _ = rustix::process::kill_process(self.pid(), signal);
        self.wait_within(GONE_WITHIN).unwrap_or_else(|| {
            let _ = rustix::process::kill_process(self.pid(), Signal::KILL);
            let status = self.wait_within(GONE_WITHIN);
            eprintln!("the director had to be killed:\n{}", self.log());
            status.expect("nobody outlives SIGKILL")
        })
    }
}

/// A command in a namespace, not yet started.
fn exec(namespace: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", namespace])
        .arg(program)
        .stdin(Stdio::null());
    command
}

/// Runs `body` in a namespace. The calling thread belongs there for good.
pub fn enter<T>(namespace: &str, body: impl FnOnce() -> T) -> T {
    let path = format!("/run/netns/{namespace}");
    let namespace = File::open(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("root may enter a namespace");
    body()
}

/// The exit status, or `None` where the child still runs after `limit`.
pub fn wait_within(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if begin.elapsed() > limit {
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Tries `check` until it gives `Ok`, for at most `limit`; then fails the test with its last word.
pub fn eventually<T>(limit: Duration, mut check: impl FnMut() -> Result<T, String>) -> T {
    let begin = Instant::now();
    loop {
        match check() {
            Ok(value) => return value,
            Err(why) if begin.elapsed() > limit => panic!("not within {limit:?}: {why}"),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The binary under test.
pub fn lvx() -> PathBuf {
    std::env::var_os("LVX").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_lvx")), PathBuf::from)
}

/// A link to the binary, under the name that makes it speak ipvsadm's grammar.
pub fn ipvsadm() -> &'static Path {
    static LINK: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("names");
        fs::create_dir_all(&folder).expect("cargo's folder for tests is writable");
        let link = folder.join("ipvsadm");
        let fresh = folder.join(format!("ipvsadm.{}", std::process::id()));
        std::os::unix::fs::symlink(lvx(), &fresh).expect("cargo's folder takes links");
        fs::rename(fresh, &link).expect("a link can be renamed");
        link
    });
    &LINK
}

/// The file that the real servers give as `/large`: random, so that no byte may be lost or swapped unseen.
pub struct Large {
    pub path: PathBuf,
    pub sha256: String,
}

const LARGE_BYTES: usize = 200 * 1024 * 1024;
pub static LARGE: LazyLock<Large> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("large");
    if fs::metadata(&path).map_or(0, |m| m.len()) != LARGE_BYTES as u64 {
        write_large(&path);
    }
    let output = Command::new("sha256sum")
        .arg(&path)
        .output()
        .expect("coreutils are there");
    let sha256 = text(&output.stdout)
        .split_whitespace()
        .next()
        .expect("sha256sum prints a sum")
        .to_owned();
    Large { path, sha256 }
});

/// xorshift64: fast, and the same bytes in each run.
fn write_large(path: &Path) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut file = File::create(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut block = vec![0; 1 << 20];
    for _ in 0..LARGE_BYTES >> 20 {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block).expect("200 MB fit beside the build");
    }
}

fn run_lab(words: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lab");
    Command::new(script)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("scripts/lab runs")
}

/// A thousand connections need more files than a login shell allows.
fn allow_many_files() {
    let limit = Rlimit {
        current: Some(8192),
        maximum: rustix::process::getrlimit(Resource::Nofile).maximum,
    };
    rustix::process::setrlimit(Resource::Nofile, limit).expect("root may open 8192 files");
}

/// Two labs at once: more would only wait for each other's cores.
pub struct Place;

static FREE: Mutex<u8> = Mutex::new(2);
static FREED: Condvar = Condvar::new();

impl Place {
    /// Waits for its turn, which lasts until the value is dropped.
    pub fn take() -> Place {
        let free = FREE.lock().unwrap_or_else(|e| e.into_inner());
        let mut free = FREED
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(|e| e.into_inner());
        *free -= 1;
        Place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *FREE.lock().unwrap_or_else(|e| e.into_inner()) += 1;
        FREED.notify_one();
    }
}
