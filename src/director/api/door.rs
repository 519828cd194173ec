//! Who is let in to the API: so many clients at once, and none that takes for ever to say
//! what it wants. The socket is root's, but a script gone wild is root too.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::unix::{SocketAddr, UCred};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};

use super::{BODY_BYTES_MAX, error};

/// Clients at once. Each costs a descriptor and some kilobytes.
pub(super) const CLIENTS_MAX: usize = 128;

/// Refused clients that are told so at once; more are only hung up on.
const FAREWELLS_MAX: usize = 32;

/// How long a client may take from a request's first byte to the last of its head.
pub(super) const HEAD_WITHIN: Duration = match cfg!(test) {
    false => Duration::from_secs(10),
    true => Duration::from_millis(300),
};

/// How long the body may take: 32 MiB come within a second.
pub(super) const BODY_WITHIN: Duration = match cfg!(test) {
    false => Duration::from_secs(10),
    true => Duration::from_secs(3),
};

/// What was refused.
#[derive(Debug, Default)]
pub(super) struct Refused {
    clients: AtomicU64,
    slow: AtomicU64,
    large: AtomicU64,
}

impl Refused {
    /// As counters, by name.
    pub(super) fn counters(&self) -> [(String, u64); 3] {
        [
            ("api_too_many_clients", &self.clients),
            ("api_too_slow", &self.slow),
            ("api_too_large", &self.large),
        ]
        .map(|(name, count)| (name.to_owned(), count.load(Relaxed)))
    }
}

/// The socket, with places for so many clients.
pub(super) struct Door {
    listener: UnixListener,
    places: Arc<Semaphore>,
    farewells: Arc<Semaphore>,
    refused: Arc<Refused>,
}

impl Door {
    pub(super) fn new(listener: UnixListener, refused: Arc<Refused>) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(CLIENTS_MAX)),
            farewells: Arc::new(Semaphore::new(FAREWELLS_MAX)),
            refused,
        }
    }

    /// In words, where that does not keep others waiting.
    fn refuse(&self, mut stream: UnixStream) {
        self.refused.clients.fetch_add(1, Relaxed);
        tracing::warn!(
            "{CLIENTS_MAX} clients use the API already: more are refused until some end"
        );
        let Ok(permit) = self.farewells.clone().try_acquire_owned() else {
            return;
        };
        tokio::spawn(async move {
            let _permit = permit;
            let body = format!(
                r#"{{"error":"{CLIENTS_MAX} clients use the API already: try again later"}}"#
            );
            let answer = format!(
                "HTTP/1.1 503 Service Unavailable\r\nserver: lvx/{}\r\nconnection: close\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                env!("CARGO_PKG_VERSION"),
                body.len()
            );
            let talk = async {
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
                // Hung up on while it still asks, it would not read the answer.
                let mut rest = [0; 4096];
                while matches!(stream.read(&mut rest).await, Ok(1..)) {}
            };
            let _ = timeout(Duration::from_secs(1), talk).await;
        });
    }
}

impl Listener for Door {
    type Io = Client;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Client, SocketAddr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            match self.places.clone().try_acquire_owned() {
                Ok(place) => {
                    let client = Client {
                        stream,
                        pace: Arc::default(),
                        answered: 0,
                        refused: self.refused.clone(),
                        deadline: Some(Box::pin(sleep(HEAD_WITHIN))),
                        _place: place,
                    };
                    return (client, address);
                }
                Err(_) => self.refuse(stream),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Whether a request is being answered: its head is complete, and the time is not the
/// client's.
#[derive(Debug, Default)]
pub(super) struct Pace {
    is_answering: AtomicBool,
    /// Requests whose heads were complete.
    heads: AtomicU64,
}

/// A client in its place.
pub(super) struct Client {
    stream: UnixStream,
    pace: Arc<Pace>,
    /// Requests that `deadline` is not for any more.
    answered: u64,
    refused: Arc<Refused>,
    /// When the head that has begun must have come.
    deadline: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Client {
    pub(super) fn credentials(&self) -> Option<UCred> {
        self.stream.peer_cred().ok()
    }

    pub(super) fn pace(&self) -> Arc<Pace> {
        self.pace.clone()
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let heads = self.pace.heads.load(Relaxed);
        if std::mem::replace(&mut self.answered, heads) != heads {
            self.deadline = None;
        }
        if self.pace.is_answering.load(Relaxed) {
            return polled;
        }
        if polled.is_ready() {
            if buffer.filled().len() > before && self.deadline.is_none() {
                self.deadline = Some(Box::pin(sleep(HEAD_WITHIN)));
            }
            return polled;
        }
        // Between two requests a client may rest as long as it likes.
        let Some(deadline) = &mut self.deadline else {
            return polled;
        };
        ready!(deadline.as_mut().poll(context));
        self.refused.slow.fetch_add(1, Relaxed);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// While a request is answered, its client is not slow.
pub(super) struct Answering(Arc<Pace>);

impl Pace {
    pub(super) fn answering(self: &Arc<Self>) -> Answering {
        self.is_answering.store(true, Relaxed);
        self.heads.fetch_add(1, Relaxed);
        Answering(self.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.is_answering.store(false, Relaxed);
    }
}

/// Reads the whole body before anyone works on it, in time and not too much of it.
pub(super) async fn whole_body(
    State(refused): State<Arc<Refused>>,
    request: Request,
    next: Next,
) -> Response {
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    match timeout(BODY_WITHIN, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(head, Body::from(bytes))).await,
        Ok(Err(failed)) => {
            use std::error::Error;
            let is_large = failed
                .source()
                .is_some_and(|e| e.to_string().contains("limit"));
            if !is_large {
                return error(StatusCode::BAD_REQUEST, &failed.to_string());
            }
            refused.large.fetch_add(1, Relaxed);
            let most = BODY_BYTES_MAX >> 20;
            let what = format!("a body has at most {most} MiB: send the commands in parts");
            error(StatusCode::PAYLOAD_TOO_LARGE, &what)
        }
        Err(_) => {
            refused.slow.fetch_add(1, Relaxed);
            let within = BODY_WITHIN.as_secs();
            let what = format!("the body did not come within {within} s");
            error(StatusCode::REQUEST_TIMEOUT, &what)
        }
    }
}
