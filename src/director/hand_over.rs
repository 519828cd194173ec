//! One director takes another's place without a pause: the old one stops its workers and
//! passes their sockets and frames; the new one goes on with the same rings. What comes in
//! meanwhile waits there.
//!
//! They talk over a socket in the state folder. The new process says `prepare` and learns
//! what it must be like; when it is ready, `go`. From there on the old one is of no use:
//! it answers with a file (a [`Handed`] in JSON) and the descriptors, and ends. Should the
//! new one fail before `go`, the old one forwards on.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use dataplane::port::afxdp::PassedQueues;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::compose::End;
use super::privilege;
use super::successor::{FIRST, FIRST_ENDS};

/// Counts changes to what is said here.
const FORMAT: u32 = 2;

/// The socket's name in the state folder.
const SOCKET: &str = "hand-over";

/// "Stop, and pass the queues."
const GO: &str = "go";

/// "Stop, and close the queues."
const GO_CLOSED: &str = "go-closed";

/// "Frames are forwarded: you can go."
const FORWARDING: &str = "forwarding";

/// How long the other process may take to say the next thing.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the new process may take from the answer until it forwards. It is ready before,
/// so that it needs milliseconds; nobody forwards meanwhile.
const FORWARDS_WITHIN: Duration = Duration::from_secs(10);

/// How long the old process may take to let the new one go on as the main process.
const LETS_GO_WITHIN: Duration = Duration::from_secs(2);

/// A worker's memory and its most queues.
const DESCRIPTORS_MAX: usize = 1 + super::worker::QUEUES_MAX;

/// What a director is like that may be taken over from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// See [`FORMAT`].
    pub format: u32,
    /// Its process.
    pub process: u32,
    /// The tap device.
    pub tap: String,
    /// The ports' device numbers, in order; 0 where it is absent.
    pub ports: Vec<u32>,
    /// Its workers.
    pub workers: usize,
    /// Why the queues are in copy mode, if they are.
    pub copies_because: Option<String>,
    /// Whether another process can go on with the queues: before Linux 6.4 it cannot.
    pub passes_queues: bool,
    /// Whether frames may take several chunks in them.
    pub several_chunks: bool,
    /// How often it has written the steering program's maps: who reads them before it stops
    /// must read them again if that grows.
    pub steered_times: u64,
}

impl Offer {
    /// An offer of this process, yet without what it runs on.
    pub fn of_this_process() -> Self {
        Self {
            format: FORMAT,
            process: std::process::id(),
            tap: String::new(),
            ports: Vec::new(),
            workers: 0,
            copies_because: None,
            passes_queues: true,
            several_chunks: false,
            steered_times: 0,
        }
    }
}

/// What goes with the descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// When workers were told to stop, ns of the monotonic clock.
    pub stopped_ns: u64,
    /// [`Offer::steered_times`] at the end.
    pub steered_times: u64,
    /// Active, inactive and persistent connections by the server's number.
    pub loads: Vec<(u32, [u32; 3])>,
    /// Each worker's queues; none where they could not be passed.
    pub workers: Vec<PassedQueues>,
}

/// A process that waits to go on.
#[derive(Debug)]
pub struct Request {
    stream: UnixStream,
    handle: io::Result<OwnedFd>,
    /// The process.
    pub process: u32,
    /// Whether it goes on with the queues; else they must be closed before the answer.
    pub wants_queues: bool,
}

impl Request {
    /// Gives it what it needs: what is told, the state folder's lock, each worker's memory and
    /// sockets. The lock is never let go of in between: it is the same open file.
    pub fn answer(
        &self,
        handed: &Handed,
        lock: BorrowedFd<'_>,
        descriptors: &[Vec<OwnedFd>],
    ) -> io::Result<()> {
        let memory = rustix::fs::memfd_create("lvx-handed", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = File::from(memory);
        file.write_all(&serde_json::to_vec(handed)?)?;
        file.rewind()?;
        send(&self.stream, &[file.as_fd(), lock])?;
        for worker in descriptors {
            let borrowed: Vec<BorrowedFd<'_>> = worker.iter().map(AsFd::as_fd).collect();
            send(&self.stream, &borrowed)?;
        }
        Ok(())
    }

    /// Waits until it forwards.
    ///
    /// # Errors
    /// It has ended, or takes too long: somebody else must go on.
    pub fn await_forwarding(&self) -> io::Result<()> {
        let mut stream = self.stream.try_clone()?;
        stream.set_read_timeout(Some(FORWARDS_WITHIN))?;
        expect(&hear(&mut stream)?, &[FORWARDING])
    }

    /// Ends it for good: it has what only one process may have.
    pub fn end_it(&self) {
        let Ok(handle) = &self.handle else { return };
        let _ = pidfd_send_signal(handle, Signal::KILL);
        let mut list = [PollFd::new(handle, PollFlags::IN)];
        let timeout = Timespec::try_from(FORWARDS_WITHIN).ok();
        let _ = poll(&mut list, timeout.as_ref());
    }
}

/// The old process, which waits to hear that this one forwards.
#[derive(Debug)]
pub struct Waiting(UnixStream);

impl Waiting {
    /// Lets it go, and waits until it has told whom it must that this process is the one now.
    pub fn let_go(mut self) {
        let said = say(&mut self.0, FORWARDING);
        let _ = self.0.set_read_timeout(Some(LETS_GO_WITHIN));
        // It says nothing more: the end of the stream is the answer.
        let _ = said.and_then(|()| hear(&mut self.0).map(|_| ()));
    }
}

/// Waits for processes that would take over, for as long as this one lives.
pub fn listen(folder: &Path, offer: Arc<Mutex<Offer>>, end: Sender<End>) -> io::Result<()> {
    let _ = std::fs::remove_file(folder.join(SOCKET));
    let (_folder, path) = short(folder)?;
    let listener = UnixListener::bind(path)?;
    let serve = move || {
        for stream in listener.incoming() {
            match stream.and_then(|stream| converse(stream, &offer)) {
                Ok(request) => {
                    let _ = end.send(End::HandOver(Arc::new(request)));
                    return;
                }
                Err(error) => tracing::warn!("a process did not take over after all: {error}"),
            }
        }
    };
    std::thread::Builder::new()
        .name("lvx-hand-over".into())
        .spawn(move || {
            privilege::keep(privilege::OWNER);
            serve();
        })
        .map(|_| ())
}

fn converse(mut stream: UnixStream, offer: &Mutex<Offer>) -> io::Result<Request> {
    stream.set_read_timeout(Some(PATIENCE))?;
    check_peer(&stream)?;
    expect(&hear(&mut stream)?, &["prepare"])?;
    let offer = serde_json::to_string(&*offer.lock())?;
    say(&mut stream, &offer)?;
    let word = hear(&mut stream)?;
    expect(&word, &[GO, GO_CLOSED])?;
    let peer = rustix::net::sockopt::socket_peercred(&stream)?;
    Ok(Request {
        stream,
        handle: pidfd_open(peer.pid, PidfdFlags::empty()).map_err(io::Error::from),
        process: peer.pid.as_raw_nonzero().get() as u32,
        wants_queues: word == GO,
    })
}

/// A director that is there to be taken over from.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    /// What it is like.
    pub offer: Offer,
}

impl Predecessor {
    /// The director that uses this state folder; none where none does.
    pub fn find(folder: &Path) -> io::Result<Option<Self>> {
        if !folder.join(SOCKET).exists() {
            return Ok(None);
        }
        let (_folder, path) = short(folder)?;
        let mut stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
            Err(error) => return Err(error),
        };
        // Before anything is asked: whoever made a folder of this name first may be anybody.
        check_peer(&stream)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        say(&mut stream, "prepare")?;
        let offer: Offer = serde_json::from_str(&hear(&mut stream)?)?;
        if offer.format != FORMAT {
            return Err(io::Error::other(format!(
                "it hands over in format {}, this lvx takes over in format {FORMAT}",
                offer.format
            )));
        }
        if offer.process == FIRST {
            return Err(io::Error::other(format!("the director is {FIRST_ENDS}")));
        }
        Ok(Some(Self { stream, offer }))
    }

    /// Has it stop, and pass its queues or close them. Whoever calls this must go on in its
    /// place, and let it go then.
    pub fn succeed(mut self, with_queues: bool) -> io::Result<Legacy> {
        say(&mut self.stream, if with_queues { GO } else { GO_CLOSED })?;
        let mut first = receive(&self.stream)?.into_iter();
        let missing = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let mut file = File::from(first.next().ok_or_else(missing)?);
        let lock = first.next().ok_or_else(missing)?;
        let mut json = Vec::new();
        file.read_to_end(&mut json)?;
        let handed: Handed = serde_json::from_slice(&json)?;
        let workers = handed.workers.iter();
        let descriptors: io::Result<Vec<_>> = workers.map(|_| receive(&self.stream)).collect();
        Ok(Legacy {
            handed,
            lock,
            descriptors: descriptors?,
            waiting: Waiting(self.stream),
        })
    }
}

/// What a director leaves to the one that takes its place.
#[derive(Debug)]
pub struct Legacy {
    /// What it says.
    pub handed: Handed,
    /// The state folder's lock, held.
    pub lock: OwnedFd,
    /// Each worker's memory and sockets.
    pub descriptors: Vec<Vec<OwnedFd>>,
    /// It waits to be let go.
    pub waiting: Waiting,
}

/// Only the same user may be talked to: what is passed is all that a director has.
fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?.uid;
    match peer == rustix::process::geteuid() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "the process at the other end is user {}'s, not this one's",
            peer.as_raw()
        ))),
    }
}

/// A path to the socket that fits into a socket's address, and what keeps it good.
fn short(folder: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    use std::os::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
    Ok((folder, path.into()))
}

fn say(stream: &mut UnixStream, line: &str) -> io::Result<()> {
    stream.write_all(format!("{line}\n").as_bytes())
}

/// The next line. Byte by byte: what follows may come with descriptors.
fn hear(stream: &mut UnixStream) -> io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < 1 << 16 {
        stream.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return String::from_utf8(line).map_err(io::Error::other);
        }
        line.push(byte[0]);
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn expect(heard: &str, words: &[&str]) -> io::Result<()> {
    if words.contains(&heard) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "it said {heard:?}, not {}",
        words[0]
    )))
}

fn send(stream: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(
        stream,
        &[IoSlice::new(b".")],
        &mut control,
        SendFlags::empty(),
    )?;
    Ok(())
}

fn receive(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut buffer = [IoSliceMut::new(&mut byte)];
    let received = recvmsg(stream, &mut buffer, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    Ok(descriptors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(tap: &str, ports: Vec<u32>, workers: usize) -> Offer {
        Offer {
            tap: tap.to_owned(),
            ports,
            workers,
            ..Offer::of_this_process()
        }
    }

    #[test]
    fn what_is_handed_arrives() {
        let (old, new) = UnixStream::pair().unwrap();
        let offer = offer("lvx7", vec![3, 9], 2);
        let own = offer.clone();
        let handed = Handed {
            stopped_ns: 5,
            steered_times: 2,
            loads: vec![(7, [1, 2, 3])],
            workers: vec![PassedQueues::default(), PassedQueues::default()],
        };
        let given = handed.clone();
        let thread = std::thread::spawn(move || {
            let request = converse(old, &Mutex::new(own)).unwrap();
            assert!(request.wants_queues);
            let fds = |n| {
                (0..n)
                    .map(|_| File::open("/dev/null").unwrap().into())
                    .collect()
            };
            let lock = File::open("/dev/null").unwrap();
            request
                .answer(&given, lock.as_fd(), &[fds(1), fds(DESCRIPTORS_MAX)])
                .unwrap();
            request.await_forwarding().unwrap();
        });
        let mut stream = new;
        say(&mut stream, "prepare").unwrap();
        let heard: Offer = serde_json::from_str(&hear(&mut stream).unwrap()).unwrap();
        assert_eq!(heard, offer);
        let legacy = Predecessor { stream, offer }.succeed(true).unwrap();
        assert_eq!(legacy.handed, handed);
        let counts: Vec<_> = legacy.descriptors.iter().map(Vec::len).collect();
        assert_eq!(counts, [1, DESCRIPTORS_MAX]);
        legacy.waiting.let_go();
        thread.join().unwrap();
    }

    #[test]
    fn who_says_something_else_is_refused() {
        let (old, mut new) = UnixStream::pair().unwrap();
        say(&mut new, "hello").unwrap();
        assert!(converse(old, &Mutex::new(offer("lvx0", vec![], 1))).is_err());
        let (old, new) = UnixStream::pair().unwrap();
        drop(new);
        assert!(converse(old, &Mutex::new(offer("lvx0", vec![], 1))).is_err());
    }

    /// The new process goes before it forwards: the old one hears of it at once.
    #[test]
    fn a_process_that_ends_before_it_forwards_is_not_waited_for() {
        let (old, new) = UnixStream::pair().unwrap();
        let request = Request {
            stream: old,
            handle: Err(io::ErrorKind::NotFound.into()),
            process: 1,
            wants_queues: true,
        };
        drop(new);
        let begin = std::time::Instant::now();
        assert!(request.await_forwarding().is_err());
        assert!(begin.elapsed() < FORWARDS_WITHIN);
    }
}
