//! `lvx shell` at a real pseudo-terminal over a real director: keys in, screen out.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Lab, Options, lvx};
use crate::terminal::{LIMIT, Terminal};

const TAB: &str = "\t";
const UP: &str = "\x1b[A";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";

fn shell(lab: &Lab, state: &Path) -> Terminal {
    Terminal::start(lab, &["shell"], state, 24, 100)
}

/// Carries out a line on a clear screen and waits for the next prompt.
#[track_caller]
fn line(terminal: &mut Terminal, line: &str, expected: &str) {
    terminal.press(&format!("\x0c{line}\r"));
    terminal.sees(&format!("{expected} after {line}"), |screen| {
        let last = screen.trim_end().lines().last().unwrap_or_default();
        let waits = last.ends_with("]>") || last.ends_with('#') || last.contains("--more--");
        screen.contains(line) && screen.contains(expected) && waits
    });
}

#[test]
fn a_person_at_a_terminal() {
    let mut lab = Lab::new("shell", Options::default());
    lab.start();
    let state = lab.dir().join("state");
    let mut terminal = shell(&lab, &state);
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
    line(
        &mut terminal,
        "-a -t 10.1.0.1:80 -r 10.2.0.11:80 -m -w 2",
        "lvx [1/1]>",
    );
    terminal.press(&format!("\x0cdrain server tcp {TAB}{TAB}"));
    terminal.shows("drain server tcp 10.1.0.1:80 10.2.0.11:80");
    terminal.press("\r");
    terminal.shows("lvx [1/1 1 drained]>");

    // A wrong word is marked.
    line(&mut terminal, "show servces", "did you mean `services`?");
    terminal.shows("       ^^^^^^^");

    // Nothing that is typed ahead of the prompt is lost, and pasted lines are carried out
    // one by one.
    terminal.press("\x0cset sloppy_tcp 1\rset sync_ports 3\rshow tunables sync_ports\r");
    terminal.sees("the third line's answer", |screen| {
        screen.contains("sync_ports  3")
    });
    terminal
        .press("\x0c\x1b[200~set sloppy_tcp 0\nset sync_ports 1\nshwo\nclear services\x1b[201~\r");
    terminal.shows("`shwo` is not known here");
    line(&mut terminal, "show tunables sync_ports", "sync_ports  1");
    assert!(
        lab.ipvsadm("-Ln").contains("10.1.0.1:80"),
        "what follows an error is not carried out"
    );

    // What removes everything asks first.
    terminal.press("\x0cclear services\r");
    terminal.shows("remove 1 service, with 0 live connections? [y/N]");
    terminal.press("\r");
    terminal.shows("nothing was changed");
    assert!(lab.ipvsadm("-Ln").contains("10.1.0.1:80"), "Enter is no");

    // A candidate: nothing happens until commit.
    line(&mut terminal, "edit", "edit *0#");
    line(
        &mut terminal,
        "edit server tcp 10.1.0.1:80 10.2.0.11 weight 7",
        "edit *1#",
    );
    line(&mut terminal, "diff", "weight 0 -> weight 7");
    assert!(
        lab.ipvsadm("-Ln").contains("Masq    0 "),
        "not yet in force"
    );
    line(&mut terminal, "commit confirmed 15", " s]>");
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
    let mut terminal = shell(&lab, &state);
    terminal.shows("drained]>");
    terminal.press(UP);
    terminal.shows("> commit confirmed 15");
    terminal.press(CTRL_C);
    terminal.sees("a new prompt", |screen| screen.trim_end().ends_with("]>"));

    // Long output stops at each page, and ends when the reader has seen enough.
    line(&mut terminal, "show counters all", "--more--");
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
    // Ctrl-C while a pager runs reaches the shell as a signal.
    terminal.signal(rustix::process::Signal::INT);
    line(&mut terminal, "show status", "servers_drained");
    terminal.press(CTRL_D);
    assert_eq!(terminal.ends(), 0);
    assert!(terminal.is_restored());
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
