//! Debian's ldirectord, unmodified, keeps a service's servers by HTTP checks: it calls
//! `/sbin/ipvsadm`, which is lvx.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{Lab, Method, Options, eventually, ipvsadm, text, wait_within};

const PATIENCE: Duration = Duration::from_secs(40);
const IPVSADM: &str = "/usr/sbin/ipvsadm";

struct Ldirectord<'a> {
    lab: &'a Lab,
    child: Child,
    log: PathBuf,
}

impl<'a> Ldirectord<'a> {
    /// In a mount namespace of its own, where `/sbin/ipvsadm` is lvx.
    fn start(lab: &'a Lab, quiescent: &str) -> Self {
        let log = lab.dir().join(format!("ldirectord-{quiescent}.log"));
        let configuration = lab.dir().join(format!("ldirectord-{quiescent}.cf"));
        let servers: String = ["10.2.0.11:80 masq 1", "10.2.0.12:80 masq 3"]
            .map(|server| format!("\treal={server}\n"))
            .concat();
        let lines = format!(
            "checktimeout=2\nnegotiatetimeout=2\ncheckinterval=1\ncheckcount=1\nautoreload=no\n\
             quiescent={quiescent}\nlogfile=\"{}\"\n\
             virtual=10.1.0.1:80\n{servers}\tservice=http\n\tscheduler=wrr\n\tprotocol=tcp\n\
             \tchecktype=negotiate\n\trequest=\"/\"\n\treceive=\"rs\"\n",
            log.display()
        );
        fs::write(&configuration, lines).unwrap();
        let line = format!(
            "mount --bind {} {IPVSADM} && exec /usr/sbin/ldirectord -d {} start",
            ipvsadm().canonicalize().unwrap().display(),
            configuration.display()
        );
        let mut command: Command = lab.exec("director", "unshare");
        let output = fs::File::create(lab.dir().join("ldirectord.out")).unwrap();
        let child = command
            .args(["--mount", "sh", "-c", &line])
            .env("LVX_API", lab.socket())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .expect("unshare runs");
        Self { lab, child, log }
    }

    /// Waits until `-S` shows these lines, in any order.
    #[track_caller]
    fn reaches(&self, what: &str, servers: &[&str]) {
        let mut wanted: Vec<String> = servers
            .iter()
            .map(|server| format!("-a -t 10.1.0.1:80 -r {server}"))
            .collect();
        wanted.push("-A -t 10.1.0.1:80 -s wrr".to_owned());
        wanted.sort();
        eventually(PATIENCE, || {
            let saved = self.lab.ipvsadm("-S -n");
            let mut lines: Vec<_> = saved.lines().map(str::trim_end).collect();
            lines.sort();
            match lines == wanted {
                true => Ok(()),
                false => Err(format!("{what}: {lines:#?}\n{}", self.words())),
            }
        });
    }

    fn words(&self) -> String {
        let out = fs::read_to_string(self.lab.dir().join("ldirectord.out"));
        let log = fs::read_to_string(&self.log);
        format!("{}\n{}", out.unwrap_or_default(), log.unwrap_or_default())
    }

    /// Ends it; it takes its service with it.
    fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let ended = wait_within(&mut self.child, PATIENCE);
        assert!(ended.is_some(), "no end:\n{}", self.words());
        assert_eq!(self.lab.ipvsadm("-S -n"), "", "{}", self.words());
    }
}

impl Drop for Ldirectord<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill_web_server(lab: &Lab, server: &str) {
    let file = lab.dir().join(server).join("nginx.pid");
    let pid = fs::read_to_string(&file).expect("nginx runs");
    lab.shell(server, &format!("kill -QUIT {}", pid.trim()));
}

fn start_web_server(lab: &Lab, server: &str) {
    let dir = lab.dir().join(server);
    let dir = dir.display();
    let line = format!("nginx -q -p {dir} -e {dir}/error.log -c {dir}/nginx.conf </dev/null");
    eventually(PATIENCE, || {
        let output = lab.exec(server, "sh").args(["-c", &line]).output().unwrap();
        output
            .status
            .success()
            .then_some(())
            .ok_or_else(|| text(&output.stderr))
    });
}

#[test]
fn dead_servers_leave_and_come_back() {
    let mut lab = Lab::new("ldirectord", Options::default());
    assert!(
        fs::exists("/usr/sbin/ldirectord").unwrap() && fs::exists(IPVSADM).unwrap(),
        "ldirectord is missing: scripts/test installs it"
    );
    lab.script(&["method", lab.name(), Method::Nat.word()]);
    lab.start();
    let (first, second) = ("10.2.0.11:80 -m -w 1", "10.2.0.12:80 -m -w 3");
    let ldirectord = Ldirectord::start(&lab, "no");
    ldirectord.reaches("both live", &[first, second]);
    assert_eq!(lab.shell("client", "curl -s http://10.1.0.1/").len(), 4);
    kill_web_server(&lab, "rs2");
    ldirectord.reaches("one is dead", &[first]);
    for _ in 0..4 {
        assert_eq!(lab.shell("client", "curl -s http://10.1.0.1/"), "rs1\n");
    }
    start_web_server(&lab, "rs2");
    ldirectord.reaches("both live again", &[first, second]);
    ldirectord.end();

    // With quiescent servers stay, with weight 0.
    let ldirectord = Ldirectord::start(&lab, "yes");
    ldirectord.reaches("both live", &[first, second]);
    kill_web_server(&lab, "rs1");
    ldirectord.reaches("one is quiescent", &["10.2.0.11:80 -m -w 0", second]);
    start_web_server(&lab, "rs1");
    ldirectord.reaches("both live once more", &[first, second]);
    ldirectord.end();
}
