//! `lvx shell` at a real pseudo-terminal over a real director: keys in, screen out.

use std::io::{Read, Write};
use std::num::NonZero;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use crate::lab::{Lab, Options, lvx};

const ROWS: u16 = 24;
const COLUMNS: u16 = 100;
const LIMIT: Duration = Duration::from_secs(20);
const TAB: &str = "\t";
const UP: &str = "\x1b[A";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";

struct Terminal {
    screen: Arc<Mutex<vt100::Parser>>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    _pty: Box<dyn MasterPty + Send>,
}

impl Terminal {
    fn shell(lab: &Lab, state: &Path) -> Self {
        let size = PtySize {
            rows: ROWS,
            cols: COLUMNS,
            pixel_width: 0,
            pixel_height: 0,
        };
        let pair = native_pty_system().openpty(size).expect("a pty");
        let mut command = CommandBuilder::new(lvx());
        command.arg("shell");
        command.env("LVX_API", lab.socket());
        command.env("XDG_STATE_HOME", state);
        command.env("TERM", "xterm");
        command.env_remove("PAGER");
        let child = pair.slave.spawn_command(command).expect("the shell starts");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(
            NonZero::new(ROWS).unwrap(),
            NonZero::new(COLUMNS).unwrap(),
            0,
        )));
        let mut output = pair.master.try_clone_reader().expect("the pty can be read");
        let shown = screen.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..length]);
            }
        });
        let keys = pair.master.take_writer().expect("the pty can be written");
        Self {
            screen,
            keys,
            child,
            _pty: pair.master,
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    fn screen(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Waits until the screen is as it should be.
    #[track_caller]
    fn sees(&self, what: &str, is: impl Fn(&str) -> bool) {
        let begin = Instant::now();
        while !is(&self.screen()) {
            if begin.elapsed() > LIMIT {
                panic!("never seen: {what}; the screen:\n{}", self.screen());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        self.sees(text, |screen| screen.contains(text));
    }

    /// Carries out a line and waits for the next prompt on a clear screen.
    #[track_caller]
    fn line(&mut self, line: &str, expected: &str) {
        self.press("\x0c");
        self.press(&format!("{line}\r"));
        self.sees(&format!("{expected} after {line}"), |screen| {
            let last = screen.trim_end().lines().last().unwrap_or_default();
            let waits = last.ends_with("]>") || last.ends_with('#') || last.contains("--more--");
            screen.contains(line) && screen.contains(expected) && waits
        });
    }

    fn ends(mut self) {
        let begin = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(
                begin.elapsed() < LIMIT,
                "the shell does not end:\n{}",
                self.screen()
            );
            thread::sleep(Duration::from_millis(20));
        }
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_person_at_a_terminal() {
    let mut lab = Lab::new("shell", Options::default());
    lab.start();
    let state = lab.dir().join("state");
    let mut terminal = Terminal::shell(&lab, &state);
    terminal.shows("lvx [0/0]>");

    // TAB completes words, `?` tells what may come and gives the line back.
    terminal.press(&format!("ad{TAB}se"));
    terminal.shows("> add se");
    terminal.press("?");
    terminal.shows("a virtual service");
    terminal.press(&format!("rvi{TAB}tcp 10.1.0.1:80 sched{TAB}r?"));
    terminal.shows("scheduler r");
    terminal.press("r\r");
    terminal.shows("lvx [1/0]>");

    // ipvsadm's lines as they are, and services of the director complete.
    terminal.line("-a -t 10.1.0.1:80 -r 10.2.0.11:80 -m -w 2", "lvx [1/1]>");
    terminal.press(&format!("\x0cdrain server tcp {TAB}{TAB}"));
    terminal.shows("drain server tcp 10.1.0.1:80 10.2.0.11:80");
    terminal.press("\r");
    terminal.shows("lvx [1/1 1 drained]>");

    // A wrong word is marked.
    terminal.line("show servces", "did you mean `services`?");
    terminal.shows("       ^^^^^^^");

    // A candidate: nothing happens until commit.
    terminal.line("edit", "edit *0#");
    terminal.line("edit server tcp 10.1.0.1:80 10.2.0.11 weight 7", "edit *1#");
    terminal.line("diff", "weight 0 -> weight 7");
    assert!(
        lab.ipvsadm("-Ln").contains("Masq    0 "),
        "not yet in force"
    );
    terminal.line("commit confirmed 8", " s]>");
    assert!(lab.ipvsadm("-Ln").contains("Masq    7 "), "in force");
    // The shell dies; the director takes the commit back all the same.
    drop(terminal);
    let begin = Instant::now();
    while !lab.ipvsadm("-Ln").contains("Masq    0 ") {
        assert!(begin.elapsed() < LIMIT, "not taken back");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(
        begin.elapsed() > Duration::from_secs(1),
        "not before its time"
    );

    // History lives on.
    let mut terminal = Terminal::shell(&lab, &state);
    terminal.shows("drained]>");
    terminal.press(UP);
    terminal.shows("> commit confirmed 8");
    terminal.press(CTRL_C);
    terminal.sees("a new prompt", |screen| screen.trim_end().ends_with("]>"));

    // Long output stops at each page, and ends when the reader has seen enough.
    terminal.line("show counters all", "--more--");
    terminal.press("q");
    terminal.sees("a prompt after the page", |screen| {
        !screen.contains("--more--") && screen.trim_end().ends_with("]>")
    });
    terminal.press("watch 1 show services\r");
    terminal.shows("(every 1 s; q ends)");
    terminal.press("q");
    terminal.sees("a prompt after watching", |screen| {
        screen.trim_end().ends_with("]>")
    });
    terminal.press(CTRL_D);
    terminal.ends();
}

/// Standard output, standard error, status.
fn script(lab: &Lab, args: &[&str], input: &str) -> (String, String, i32) {
    let mut child = Command::new(lvx())
        .arg("shell")
        .args(args)
        .env("LVX_API", lab.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        text(output.stdout),
        text(output.stderr),
        output.status.code().unwrap(),
    )
}

#[test]
fn scripts_and_lines() {
    let mut lab = Lab::new("shell-c", Options::default());
    lab.start();
    let add =
        "edit\nadd service tcp 10.1.0.1:80\nadd server tcp 10.1.0.1:80 10.2.0.11 nat\ncommit\n";
    let (out, err, status) = script(&lab, &[], add);
    assert_eq!((err.as_str(), status), ("", 0));
    assert!(out.ends_with("2 changes are in force\n"), "{out}");
    let (out, err, status) = script(&lab, &["-c", "show servers", "-c", "shwo", "-c", "-C"], "");
    assert!(out.contains("10.2.0.11:80"), "{out}");
    assert!(
        err.starts_with("lvx: -c 2: `shwo` is not known here"),
        "{err}"
    );
    assert_eq!(status, 1);
    let (out, _, status) = script(&lab, &["--json", "-c", "show services"], "");
    let services: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (services[0]["spec"]["scheduler"].as_str(), status),
        (Some("wlc"), 0)
    );
    // A commit that is refused changes nothing.
    let (_, err, status) = script(
        &lab,
        &[],
        "edit\nclear services\nset sloppy_tcp 7\ncommit\n",
    );
    assert!(
        err.contains("line 3: out of range: sloppy_tcp is a number from 0 to 1"),
        "{err}"
    );
    assert_eq!(status, 1);
    assert!(lab.ipvsadm("-Ln").contains("10.2.0.11"));
    lab.stop(rustix::process::Signal::TERM);
    let (_, err, status) = script(&lab, &["-c", "show status"], "");
    assert!(err.starts_with("lvx: -c 1: no director answers"), "{err}");
    assert_eq!(status, 2);
}
