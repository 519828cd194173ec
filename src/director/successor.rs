//! The process that takes this one's place, started by this one itself: on SIGUSR2 a
//! director runs its own program anew, with its own arguments and `--take-over`.
//!
//! So an upgrade needs nobody beside the service manager's unit: the new process is the
//! old one's child, in the same sandbox. Until it has taken over, the old one forwards;
//! should it end before, the old one goes on and can be asked again.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::compose::End;
use super::privilege;

/// The option of a director that takes another's place.
const TAKE_OVER: &str = "--take-over";

/// The process of a container whose end is the end of all others there.
pub const FIRST: u32 = 1;

/// Why nothing takes over from it.
pub const FIRST_ENDS: &str = "its container's first process, with which all others there end, \
                              and so would the one that takes over; start the container with an \
                              init (`--init`)";

/// How this process was started, so that another can be started like it.
#[derive(Clone, Debug)]
pub struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// None where the system does not say.
    cores: Option<CpuSet>,
}

impl Launch {
    /// Of this process. To be called before its first thread moves to other cores.
    pub fn of_this_process() -> io::Result<Self> {
        let own = std::env::current_exe()?;
        let mut words = std::env::args_os();
        let name = words.next().unwrap_or_default();
        let folders = std::env::var_os("PATH").unwrap_or_default();
        Ok(Self {
            program: program(&name, &folders, &own),
            arguments: taking_over(words),
            cores: sched_getaffinity(None).ok(),
        })
    }

    /// Runs the program in the place of this process, as it was called first: what it left is
    /// taken up. Comes back only where that fails.
    pub fn start_again(&self) -> io::Error {
        use std::os::unix::process::CommandExt;
        if let Some(cores) = &self.cores
            && let Err(error) = sched_setaffinity(None, cores)
        {
            tracing::warn!("this process may not run on all its cores: {error}");
        }
        let words = self.arguments.iter().filter(|word| *word != TAKE_OVER);
        let mut command = Command::new(&self.program);
        command.args(words);
        let failed = privilege::hand_down(|| Err::<(), _>(command.exec()));
        failed.err().unwrap_or_else(|| io::ErrorKind::Other.into())
    }

    /// Starts the program that is now where this one's was. A child has the capabilities
    /// and the cores of the thread that starts it: the calling one must still have both.
    fn start(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        if sd_notify::watchdog_enabled().is_some() {
            // Names this process; without it, the watchdog is whoever's reads it.
            command.env_remove("WATCHDOG_PID");
        }
        let Some(cores) = &self.cores else {
            return privilege::hand_down(|| command.spawn());
        };
        // It keeps off its own workers' cores by itself, but first it must see them.
        let own = sched_getaffinity(None)?;
        sched_setaffinity(None, cores)?;
        let child = privilege::hand_down(|| command.spawn());
        if let Err(error) = sched_setaffinity(None, &own) {
            tracing::warn!("this thread may run on the workers' cores: {error}");
        }
        child
    }
}

/// Where the program of this process is, as it was called: a file put in its place is the
/// new version. `own`, where that leads to another program than the running one.
fn program(name: &OsStr, folders: &OsStr, own: &Path) -> PathBuf {
    let identity = |path: &Path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.dev(), meta.ino()))
    };
    let called = if name.as_encoded_bytes().contains(&b'/') {
        std::path::absolute(name).ok()
    } else {
        let files = std::env::split_paths(folders).map(|folder| folder.join(name));
        let found = files.filter_map(|file| std::path::absolute(file).ok());
        found.into_iter().find(|file| file.is_file())
    };
    let running = identity(own);
    let same = |path: &PathBuf| running.is_some() && identity(path) == running;
    called.filter(same).unwrap_or_else(|| own.to_owned())
}

/// A director's arguments, for one that takes over from it.
fn taking_over(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let is_of_a_start = |word: &OsString| word == "--cold" || word == TAKE_OVER;
    let mut words: Vec<OsString> = words.filter(|word| !is_of_a_start(word)).collect();
    words.push(TAKE_OVER.into());
    words
}

/// Starts the next process when it is asked to, one at a time.
#[derive(Debug)]
pub struct Successor {
    launch: Launch,
    end: Sender<End>,
    running: Option<Running>,
}

/// How long a process may take to take over until another one may be started in its place.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Running {
    process: u32,
    handle: io::Result<OwnedFd>,
    since: Instant,
}

impl Successor {
    /// One like this process. `end` hears when it ends.
    pub fn new(launch: Launch, end: Sender<End>) -> Self {
        Self {
            launch,
            end,
            running: None,
        }
    }

    /// Starts it, by the calling thread.
    pub fn start(&mut self) {
        if let Some(Running { process, since, .. }) = self.running {
            if since.elapsed() < PATIENCE {
                tracing::warn!("SIGUSR2: process {process} is about to take over already: ignored");
                return;
            }
            tracing::error!("process {process}, which was to take over, hangs: it is ended");
            self.signal(Signal::KILL);
            self.running = None;
        }
        if std::process::id() == FIRST {
            tracing::error!("SIGUSR2: this is {FIRST_ENDS}: this process goes on");
            return;
        }
        let started = self.try_start();
        let program = self.launch.program.display();
        match started {
            Ok(process) => {
                tracing::info!("SIGUSR2: {program} is started as process {process}, to take over");
            }
            Err(error) => tracing::error!(
                "SIGUSR2: {program} cannot be started ({error}): this process goes on; put the \
                 program there and try again"
            ),
        }
    }

    fn try_start(&mut self) -> io::Result<u32> {
        // Before the child: who is started is waited for.
        let (give, take) = crossbeam_channel::bounded(1);
        let end = self.end.clone();
        std::thread::Builder::new()
            .name("lvx-successor".into())
            .spawn(move || {
                privilege::keep(privilege::NOTHING);
                wait(&take, &end);
            })?;
        let child = self.launch.start()?;
        let process = child.id();
        let id = Pid::from_child(&child);
        let handle = pidfd_open(id, PidfdFlags::empty()).map_err(io::Error::from);
        let _ = give.send(child);
        let since = Instant::now();
        self.running = Some(Running {
            process,
            handle,
            since,
        });
        Ok(process)
    }

    /// It has ended, and this process is still there.
    pub fn ended(&mut self, how: &str) {
        if let Some(Running { process, .. }) = self.running.take() {
            tracing::error!(
                "process {process}, which was to take over, ended before it had ({how}): this \
                 process goes on; see what it said, and try again"
            );
        }
    }

    /// Ends it: whoever ends this process wants no other in its place.
    pub fn stop(&self) {
        let Some(Running { process, .. }) = &self.running else {
            return;
        };
        tracing::info!("process {process}, which was to take over, is ended too");
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        let Some(Running {
            process, handle, ..
        }) = &self.running
        else {
            return;
        };
        if let Ok(handle) = handle
            && let Err(error) = pidfd_send_signal(handle, signal)
        {
            tracing::debug!("process {process}: {error}");
        }
    }
}

fn wait(take: &Receiver<Child>, end: &Sender<End>) {
    let Ok(mut child) = take.recv() else {
        return;
    };
    let how = match child.wait() {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    let _ = end.send(End::SuccessorEnded(how));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_the_next() {
        let rows = [
            (
                "as usual",
                "director --port a",
                "director --port a --take-over",
            ),
            (
                "once only",
                "director --take-over --port a",
                "director --port a --take-over",
            ),
            (
                "not cold",
                "director --cold --port a",
                "director --port a --take-over",
            ),
        ];
        for (what, words, expected) in rows {
            let next = taking_over(words.split(' ').map(OsString::from));
            assert_eq!(next.join(OsStr::new(" ")), expected, "{what}");
        }
    }

    #[test]
    fn the_program_is_found_as_it_was_called() {
        let folder = std::env::temp_dir().join(format!("lvx-successor-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (file, other) = (folder.join("lvx-1"), folder.join("other"));
        std::fs::write(&file, "").unwrap();
        std::fs::write(&other, "").unwrap();
        let link = folder.join("lvx");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let folders = std::env::join_paths(["/nowhere".as_ref(), folder.as_path()]).unwrap();
        let rows: [(&str, &OsStr, &Path); 5] = [
            ("by its path", file.as_os_str(), &file),
            (
                "by a link, which may lead elsewhere soon",
                link.as_os_str(),
                &link,
            ),
            ("by a name alone", OsStr::new("lvx"), &link),
            ("a name that is another's", other.as_os_str(), &file),
            ("a name that is nobody's", OsStr::new("nobody"), &file),
        ];
        for (what, name, expected) in rows {
            assert_eq!(program(name, &folders, &file), expected, "{what}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
