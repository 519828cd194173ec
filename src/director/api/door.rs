//! Who is let in to the API. Strangers are hung up on at once, each user has a share of the
//! places, and nobody takes for ever to say what it wants or to take its answer.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::Listener;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Sleep, sleep, timeout};

use super::peers::{self, Groups};
use super::rights::{Access, CLIENTS_MAX, Pools};
use super::seats::{Full, Seat, Seats};
use super::{busy, error};

/// Who is turned away is told why, so many at once; more are only hung up on.
const FAREWELLS_MAX: usize = 32;
/// How long that may take.
const FAREWELL_WITHIN: Duration = Duration::from_secs(1);

/// How long a client may take from a request's first byte to the last of its head.
pub(super) const HEAD_WITHIN: Duration = match cfg!(test) {
    false => Duration::from_secs(10),
    true => Duration::from_millis(300),
};

/// How long the body may take: 32 MiB come within a second.
pub(super) const BODY_WITHIN: Duration = match cfg!(test) {
    false => Duration::from_secs(10),
    true => Duration::from_millis(1500),
};

/// Users whose groups are looked up at once: a directory server may take its time.
const LOOKUPS_MAX: usize = 32;
/// What was found is good for this long for the next client of the same user; each request
/// is judged again anyway.
const KNOWN_FOR: Duration = Duration::from_secs(1);
/// Users that are remembered for it.
const KNOWN_MAX: usize = 256;
/// Those that come while there is no place are told of in the log this often at most.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// A user and the group that it runs as.
type User = (u32, u32);

/// Who stands at the door, and what it may do.
struct Judged {
    stream: UnixStream,
    address: SocketAddr,
    user: User,
    access: Access,
}

/// The socket, with places for so many clients.
pub(super) struct Door {
    listener: UnixListener,
    groups: Groups,
    seats: Arc<Mutex<Seats>>,
    pools: Arc<Pools>,
    farewells: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    judge: mpsc::UnboundedSender<Judged>,
    judged: mpsc::UnboundedReceiver<Judged>,
    known: HashMap<User, (Access, Instant)>,
    warned: Option<Instant>,
}

impl Door {
    pub(super) fn new(listener: UnixListener, groups: Groups, pools: Arc<Pools>) -> Self {
        let (judge, judged) = mpsc::unbounded_channel();
        Self {
            listener,
            groups,
            seats: Arc::default(),
            pools,
            farewells: Arc::new(Semaphore::new(FAREWELLS_MAX)),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            judge,
            judged,
            known: HashMap::new(),
            warned: None,
        }
    }

    /// What whoever connected may do, where that is known; else it is looked up.
    fn look_at(&self, stream: UnixStream, address: SocketAddr) -> Option<Judged> {
        let user = stream.peer_cred().map(|peer| (peer.uid(), peer.gid()));
        let user = user.unwrap_or((u32::MAX, u32::MAX));
        let found = self.known.get(&user);
        let found = found.filter(|(_, at)| at.elapsed() < KNOWN_FOR);
        let access = peers::at_once(self.groups, user).or(found.map(|(access, _)| *access));
        let mut judged = Judged {
            stream,
            address,
            user,
            access: Access::Nothing,
        };
        if let Some(access) = access {
            judged.access = access;
            return Some(judged);
        }
        let Ok(turn) = self.lookups.clone().try_acquire_owned() else {
            self.pools.refused.clients.fetch_add(1, Relaxed);
            return None;
        };
        let (groups, judge) = (self.groups, self.judge.clone());
        tokio::spawn(async move {
            judged.access = peers::access(groups, Some(user)).await;
            let _ = judge.send(judged);
            drop(turn);
        });
        None
    }

    /// Gives a client its place, or turns it away.
    fn admit(&mut self, judged: Judged) -> Option<(Client, SocketAddr)> {
        let Judged {
            stream,
            address,
            user,
            access,
        } = judged;
        self.remember(user, access);
        if access == Access::Nothing {
            self.pools.refused.strangers.fetch_add(1, Relaxed);
            self.turn_away(stream, "403 Forbidden", peers::not_for(self.groups));
            return None;
        }
        let taken = self.seats.lock().take(user.0, access, Instant::now());
        match taken {
            Ok((seat, gave_way)) => {
                let gave_way = u64::from(gave_way);
                self.pools.refused.gave_way.fetch_add(gave_way, Relaxed);
                let client = Client::new(stream, seat, self.seats.clone(), self.pools.clone());
                Some((client, address))
            }
            Err(full) => {
                self.refuse(stream, full);
                None
            }
        }
    }

    fn remember(&mut self, user: User, access: Access) {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let now = Instant::now();
        let known = self.known.entry(user).or_insert((access, now));
        if known.1.elapsed() >= KNOWN_FOR {
            *known = (access, now);
        }
    }

    fn refuse(&mut self, stream: UnixStream, full: Full) {
        self.pools.refused.clients.fetch_add(1, Relaxed);
        let what = match full {
            Full::Places => format!("{CLIENTS_MAX} clients use the API already: try again later"),
            Full::Share(share) => {
                format!("this user has {share} clients at the API already: try again later")
            }
        };
        if self.warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
            self.warned = Some(Instant::now());
            tracing::warn!("{what} (more are refused until some end; see api_too_many_clients)");
        }
        self.turn_away(stream, "503 Service Unavailable", &what);
    }

    /// In words, where that does not keep others waiting.
    fn turn_away(&self, mut stream: UnixStream, status: &'static str, what: &str) {
        let Ok(permit) = self.farewells.clone().try_acquire_owned() else {
            return;
        };
        let body = serde_json::json!({ "error": what }).to_string();
        let answer = format!(
            "HTTP/1.1 {status}\r\nserver: lvx/{}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            env!("CARGO_PKG_VERSION"),
            body.len()
        );
        tokio::spawn(async move {
            let _permit = permit;
            let talk = async {
                let mut rest = [0; 4096];
                // An answer to what was not asked yet would not be understood.
                if !matches!(stream.read(&mut rest).await, Ok(1..)) {
                    return;
                }
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
                // Hung up on while it still asks, it would not read the answer.
                while matches!(stream.read(&mut rest).await, Ok(1..)) {}
            };
            let _ = timeout(FAREWELL_WITHIN, talk).await;
        });
    }
}

impl Listener for Door {
    type Io = Client;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Client, SocketAddr) {
        loop {
            let judged = tokio::select! {
                (stream, address) = Listener::accept(&mut self.listener) => {
                    self.look_at(stream, address)
                }
                judged = self.judged.recv() => judged,
            };
            if let Some(admitted) = judged.and_then(|judged| self.admit(judged)) {
                return admitted;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A client in its place.
pub(super) struct Client {
    stream: UnixStream,
    seat: Arc<Seat>,
    seats: Arc<Mutex<Seats>>,
    pools: Arc<Pools>,
    /// Requests that `head_until` is not for any more.
    answered: u64,
    /// When the head that has begun must have come.
    head_until: Option<Pin<Box<Sleep>>>,
    /// The request whose answer is being written.
    writing: u64,
    /// When something of the answer must have been taken.
    unread_until: Option<Pin<Box<Sleep>>>,
    /// When all of it must have been.
    answer_until: Option<Pin<Box<Sleep>>>,
}

impl Client {
    fn new(
        stream: UnixStream,
        seat: Arc<Seat>,
        seats: Arc<Mutex<Seats>>,
        pools: Arc<Pools>,
    ) -> Self {
        Self {
            stream,
            seat,
            seats,
            pools,
            answered: 0,
            head_until: Some(Box::pin(sleep(HEAD_WITHIN))),
            writing: 0,
            unread_until: None,
            answer_until: None,
        }
    }

    pub(super) fn user(&self) -> Option<User> {
        let peer = self.stream.peer_cred().ok()?;
        Some((peer.uid(), peer.gid()))
    }

    pub(super) fn seat(&self) -> Arc<Seat> {
        self.seat.clone()
    }

    fn gives_way(&self, context: &Context<'_>) -> io::Result<()> {
        match self.seat.gives_way(context) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }

    fn hang_up(&self, why: &AtomicU64) -> io::Error {
        why.fetch_add(1, Relaxed);
        io::ErrorKind::TimedOut.into()
    }

    /// Watches how the client takes its answer.
    fn taken(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let limits = self.seat.access.limits();
        let heads = self.seat.heads();
        if std::mem::replace(&mut self.writing, heads) != heads {
            self.answer_until = limits.answer.map(|within| Box::pin(sleep(within)));
        }
        if polled.is_ready() {
            self.unread_until = None;
            self.seat.moved();
            return polled;
        }
        let fresh = || Box::pin(sleep(limits.unread));
        let unread = self.unread_until.get_or_insert_with(fresh).as_mut();
        let is_unread = unread.poll(context).is_ready();
        let whole = self.answer_until.as_mut();
        let is_late = whole.is_some_and(|until| until.as_mut().poll(context).is_ready());
        match is_unread || is_late {
            true => Poll::Ready(Err(self.hang_up(&self.pools.refused.unread))),
            false => Poll::Pending,
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.seats.lock().leave(&self.seat);
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.gives_way(context)?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let is_more = polled.is_ready() && buffer.filled().len() > before;
        if is_more {
            self.seat.moved();
        }
        let heads = self.seat.heads();
        if std::mem::replace(&mut self.answered, heads) != heads {
            self.head_until = None;
        }
        if self.seat.is_answering() {
            return polled;
        }
        if polled.is_ready() {
            if is_more && self.head_until.is_none() {
                self.head_until = Some(Box::pin(sleep(HEAD_WITHIN)));
            }
            return polled;
        }
        // Between two requests a client may rest, as long as there are places for others.
        let Some(until) = &mut self.head_until else {
            return polled;
        };
        ready!(until.as_mut().poll(context));
        Poll::Ready(Err(self.hang_up(&self.pools.refused.slow)))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.gives_way(context)?;
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.taken(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Reads the whole body before anyone works on it, in time and not too much of it. Its bytes
/// count as in flight until the request is answered.
pub(super) async fn whole_body(
    State(pools): State<Arc<Pools>>,
    Extension(access): Extension<Access>,
    request: Request,
    next: Next,
) -> Response {
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    let most = access.limits().body_bytes;
    let (head, body) = request.into_parts();
    let expected = body.size_hint().exact().unwrap_or(u64::MAX);
    let expected = usize::try_from(expected).unwrap_or(most).min(most);
    let Some(_room) = pools.room(access, expected).await else {
        return busy();
    };
    match timeout(BODY_WITHIN, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(head, Body::from(bytes))).await,
        Ok(Err(failed)) => {
            use std::error::Error;
            let is_large = failed
                .source()
                .is_some_and(|e| e.to_string().contains("limit"));
            if !is_large {
                return error(StatusCode::BAD_REQUEST, &failed.to_string());
            }
            pools.refused.large.fetch_add(1, Relaxed);
            let most = most >> 20;
            let what = format!("a body has at most {most} MiB: send the commands in parts");
            error(StatusCode::PAYLOAD_TOO_LARGE, &what)
        }
        Err(_) => {
            pools.refused.slow.fetch_add(1, Relaxed);
            let within = BODY_WITHIN.as_secs();
            let what = format!("the body did not come within {within} s");
            error(StatusCode::REQUEST_TIMEOUT, &what)
        }
    }
}
