//! A program at a real pseudo-terminal: keys in, screen out.

use std::io::{Read, Write};
use std::num::NonZero;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use crate::lab::{Lab, lvx};

/// How long a screen may take to come. Generous: two labs and other tests share the cores.
pub const LIMIT: Duration = Duration::from_secs(40);

pub struct Terminal {
    screen: Arc<Mutex<vt100::Parser>>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    pty: Box<dyn MasterPty + Send>,
}

fn size(rows: u16, columns: u16) -> PtySize {
    PtySize {
        rows,
        cols: columns,
        pixel_width: 0,
        pixel_height: 0,
    }
}

impl Terminal {
    /// `lvx WORDS` with the lab's director; `state` is where the shell keeps its history.
    pub fn start(lab: &Lab, words: &[&str], state: &Path, rows: u16, columns: u16) -> Self {
        let pair = native_pty_system()
            .openpty(size(rows, columns))
            .expect("a pty");
        let mut command = CommandBuilder::new(lvx());
        command.args(words);
        command.env("LVX_API", lab.socket());
        command.env("XDG_STATE_HOME", state);
        command.env("TERM", "xterm");
        command.env_remove("PAGER");
        command.env_remove("NO_COLOR");
        let child = pair.slave.spawn_command(command).expect("lvx starts");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(
            NonZero::new(rows).unwrap(),
            NonZero::new(columns).unwrap(),
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
            pty: pair.master,
        }
    }

    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let (rows_, columns_) = (NonZero::new(rows).unwrap(), NonZero::new(columns).unwrap());
        self.screen.lock().unwrap().set_size(rows_, columns_);
        self.pty.resize(size(rows, columns)).unwrap();
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = self.child.process_id().expect("it runs") as i32;
        let id = rustix::process::Pid::from_raw(id).expect("no process has the id 0");
        rustix::process::kill_process(id, signal).unwrap();
    }

    pub fn screen(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Whether the program has the whole screen, as editors do.
    pub fn is_full_screen(&self) -> bool {
        self.screen.lock().unwrap().screen().alternate_screen()
    }

    /// Waits until the screen is as it should be.
    #[track_caller]
    pub fn sees(&self, what: &str, is: impl Fn(&str) -> bool) {
        let begin = Instant::now();
        while !is(&self.screen()) {
            if begin.elapsed() > LIMIT {
                panic!("never seen: {what}; the screen:\n{}", self.screen());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    pub fn shows(&self, text: &str) {
        self.sees(text, |screen| screen.contains(text));
    }

    /// Whether the terminal is as a program should leave it: lines, echo, signals.
    pub fn is_restored(&self) -> bool {
        const ISIG_ICANON_ECHO: u32 = 0o1 | 0o2 | 0o10;
        let modes = self.pty.get_termios().expect("a pty has modes");
        modes.local_flags.bits() & ISIG_ICANON_ECHO == ISIG_ICANON_ECHO
            && !self.is_full_screen()
            && !self.screen.lock().unwrap().screen().hide_cursor()
    }

    /// Waits for the program's end; its exit status.
    #[track_caller]
    pub fn ends(&mut self) -> u32 {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // What it wrote last may still be on its way.
                thread::sleep(Duration::from_millis(100));
                return status.exit_code();
            }
            assert!(begin.elapsed() < LIMIT, "no end:\n{}", self.screen());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
