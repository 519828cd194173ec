//! The director's API: HTTP and JSON on a Unix socket, for root and the director's own
//! user. It runs on a thread of its own and only passes orders on to control; nothing
//! here can hold up a packet. What only looks works on a copy of control's state, in turns
//! and within bounds: it cannot hold up those who change something either.

mod connections;
mod door;
mod listing;
mod openapi;
mod peers;
mod rights;
mod seats;
#[cfg(test)]
mod tests;
mod work;

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::header::SERVER;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json, Router};
use cli::api::{Batch, CONFIRM_MAX_S, ExplainRequest, Outcome, Part, Trial};
use rustix::fs::Mode;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::Serialize;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::sync::oneshot;

pub use connections::{ConnectionSource, TableSource};
pub use peers::Groups;

use door::Door;
use rights::{Access, BODY_BYTES_MAX, Pools};

use super::control::look::Look;
use super::control::{NotSettled, Order, Orders};
use super::privilege;

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Another director serves this socket.
    #[error(
        "a director already answers on {0}: end it, or give this one another socket with --api"
    )]
    Taken(PathBuf),
    /// Something else has this name.
    #[error("{0} exists and is not a socket: remove it, or name another one with --api")]
    NotASocket(PathBuf),
    /// The socket could not be made.
    #[error("the API socket {path} cannot be made: {error}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The socket, bound but not served yet. Removed when dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    /// The socket file's device and inode: another's file of the same name is left alone.
    identity: (u64, u64),
    listener: Option<StdListener>,
    groups: Groups,
}

impl Socket {
    /// Makes the socket and its directory. A socket that no director serves any more is
    /// replaced.
    pub fn bind(path: &Path) -> Result<Self, ApiError> {
        let failed = |error| ApiError::Bind {
            path: path.to_owned(),
            error,
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        clear(path)?;
        Self::bind_at(path).map_err(failed)
    }

    /// Makes a socket beside that of a director that is to hand over; see
    /// [`Socket::take_place`].
    pub fn bind_beside(path: &Path) -> Result<Self, ApiError> {
        let beside = path.with_extension("next");
        let _ = fs::remove_file(&beside);
        Self::bind_at(&beside).map_err(|error| ApiError::Bind {
            path: beside,
            error,
        })
    }

    /// Puts the socket in another's place, in one step: clients find the one or the other.
    pub fn take_place(&mut self, path: &Path) -> Result<(), ApiError> {
        fs::rename(&self.path, path).map_err(|error| ApiError::Bind {
            path: path.to_owned(),
            error,
        })?;
        self.path = path.to_owned();
        Ok(())
    }

    /// Lets these groups' members in as well.
    pub fn admit(&mut self, groups: Groups) -> Result<(), ApiError> {
        self.groups = groups;
        groups.open(&self.path).map_err(|error| ApiError::Bind {
            path: self.path.clone(),
            error,
        })
    }

    fn bind_at(path: &Path) -> io::Result<Self> {
        // Nobody else may connect even for a moment, so the mode comes with the file: Linux
        // gives it the socket's own (`unix_bind_bsd`, net/unix/af_unix.c). A umask would do
        // too, but is the whole process's: other threads' files would have it meanwhile.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600))?;
        net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        net::listen(&socket, BACKLOG)?;
        let listener = StdListener::from(socket);
        let identity = identity(path)?;
        Ok(Self {
            path: path.to_owned(),
            identity,
            listener: Some(listener),
            groups: Groups::default(),
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// Makes way for a socket, unless someone lives there.
fn clear(path: &Path) -> Result<(), ApiError> {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !meta.file_type().is_socket() {
        return Err(ApiError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|error| ApiError::Bind {
                path: path.to_owned(),
                error,
            }),
        _ => Err(ApiError::Taken(path.to_owned())),
    }
}

/// The API's thread. Ends, after the answers under way, when dropped.
#[derive(Debug)]
pub struct Api {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Api {
    /// No API: what stands in its place before it is served and after it has ended.
    pub fn idle() -> Self {
        Self {
            stop: None,
            thread: None,
        }
    }

    /// Serves on `socket`.
    pub fn serve(
        mut socket: Socket,
        orders: Orders,
        connections: Arc<dyn ConnectionSource>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("lvx-api".into())
            .spawn(move || {
                // Answers may wait, frames may not: a listing of a million connections runs
                // where workers leave time. Where that is refused, all are equal.
                let _ = rustix::process::setpriority_process(None, NICENESS);
                let Some(listener) = socket.listener.take() else {
                    return;
                };
                privilege::keep(privilege::NOTHING);
                let shared = Shared {
                    orders,
                    connections,
                    groups: socket.groups,
                    pools: Arc::new(Pools::new()),
                };
                let served = runtime.block_on(run(listener, shared, stopped));
                if let Err(error) = served {
                    tracing::error!("the API has ended: {error}");
                }
                drop(socket);
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Clients that the kernel lets wait to be let in: as many as are let in at once.
const BACKLOG: i32 = rights::CLIENTS_MAX as i32;

/// Of the API's thread alone: Linux keeps niceness by thread.
const NICENESS: i32 = 10;

/// How long answers under way may take once the end was asked for.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(2);

async fn run(
    listener: StdListener,
    shared: Shared,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let listener = Door::new(listener, shared.groups, shared.pools.clone());
    let (begin, begun) = oneshot::channel();
    let service = router(shared).into_make_service_with_connect_info::<peers::Peer>();
    let server = axum::serve(listener, service).with_graceful_shutdown(async move {
        let _ = stopped.await;
        let _ = begin.send(());
    });
    // A client that never reads its answer must not keep the director.
    let farewell = async {
        let _ = begun.await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        served = server.into_future() => served,
        () = farewell => Ok(()),
    }
}

#[derive(Clone)]
struct Shared {
    orders: Orders,
    connections: Arc<dyn ConnectionSource>,
    groups: Groups,
    pools: Arc<Pools>,
}

/// A route: its path, its methods in lower case, and what answers.
type Route = (&'static str, &'static [&'static str], MethodRouter<Shared>);

fn routes() -> Vec<Route> {
    vec![
        ("/v1/table", &["get"], get(table)),
        ("/v1/commands", &["post"], post(commands)),
        ("/v1/check", &["post"], post(check)),
        ("/v1/commit", &["get", "post"], get(waiting).post(commit)),
        ("/v1/commit/confirm", &["post"], post(confirm)),
        ("/v1/commit/return", &["post"], post(take_back)),
        ("/v1/connections", &["get"], get(connection_rows)),
        ("/v1/tunables", &["get"], get(tunables)),
        ("/v1/fwmarks", &["get"], get(fwmarks)),
        ("/v1/prefixes", &["get"], get(prefixes)),
        ("/v1/counters", &["get"], get(counters)),
        ("/v1/sample", &["get"], get(sample)),
        ("/v1/explain", &["post"], post(explain)),
        ("/v1/openapi.json", &["get"], get(document)),
    ]
}

fn router(shared: Shared) -> Router {
    let add = |router: Router<Shared>, (path, _, answer): Route| router.route(path, answer);
    routes()
        .into_iter()
        .fold(Router::new(), add)
        .fallback(|| async { error(StatusCode::NOT_FOUND, "no such path; see /v1/openapi.json") })
        .method_not_allowed_fallback(|| async {
            error(
                StatusCode::METHOD_NOT_ALLOWED,
                "not by this method; see /v1/openapi.json",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(
            shared.pools.clone(),
            door::whole_body,
        ))
        .layer(middleware::from_fn_with_state(shared.groups, peers::admit))
        .layer(middleware::map_response(signed))
        .with_state(shared)
}

/// Names the director's version on every answer, so that a client of another version can
/// say what is the matter.
async fn signed(mut response: Response) -> Response {
    const NAME: HeaderValue = HeaderValue::from_static(concat!("lvx/", env!("CARGO_PKG_VERSION")));
    response.headers_mut().insert(SERVER, NAME);
    response
}

fn error(status: StatusCode, what: &str) -> Response {
    (status, Json(json!({ "error": what }))).into_response()
}

fn ending() -> Response {
    error(StatusCode::SERVICE_UNAVAILABLE, "the director is ending")
}

/// The answer to those whose turn did not come in time.
fn busy() -> Response {
    let what = "too much else is asked for at this moment: try again later";
    error(StatusCode::SERVICE_UNAVAILABLE, what)
}

async fn ask<T>(shared: &Shared, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    shared.orders.send(order(reply)).then_some(())?;
    answer.await.ok()
}

fn answer<T: Serialize>(body: Option<T>) -> Response {
    match body {
        Some(body) => Json(body).into_response(),
        None => ending(),
    }
}

async fn look(shared: &Shared) -> Result<Look, Response> {
    ask(shared, Order::Look).await.ok_or_else(ending)
}

/// An answer, or what is answered instead.
type Answer = Result<Response, Response>;

async fn table(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Answer {
    match Part::parse(query.as_deref().unwrap_or_default()) {
        Ok(part) => Ok(listing::table(look(&shared).await?, &part)),
        Err(what) => Err(error(StatusCode::BAD_REQUEST, &what.to_string())),
    }
}

async fn commands(
    State(shared): State<Shared>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let batch: Batch = work::take(&headers, body, access, &shared.pools).await?;
    match ask(&shared, |reply| Order::Run(batch, reply)).await {
        Some(Err(what)) => Err(error(StatusCode::INTERNAL_SERVER_ERROR, &what)),
        Some(Ok(outcome)) => Ok(come_to(&shared, access, outcome).await),
        None => Err(ending()),
    }
}

/// What became of a batch.
async fn come_to(shared: &Shared, access: Access, outcome: Outcome) -> Response {
    match outcome.refusals.len() {
        0..=OUTCOME_SHORT => answer(Some(outcome)),
        _ => work::weighed(access, &shared.pools, outcome).await,
    }
}

/// The outcome of so many commands is written at once.
const OUTCOME_SHORT: usize = 500;

async fn check(
    State(shared): State<Shared>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let refused = |(status, what): work::Fault| error(status, &what);
    work::is_json(&headers).map_err(refused)?;
    let pools = shared.pools.clone();
    let turn = work::turn(access, &shared.pools).await?;
    let look = look(&shared).await?;
    let checked = turn.run(move || -> Result<_, work::Fault> {
        let batch: Batch = work::read(&body, access, &pools)?;
        let checked = look.check(&batch.commands);
        Ok(listing::Checked::new(batch.commands.len(), checked))
    });
    let checked = checked.await?.map_err(refused)?;
    Ok(listing::checked(checked))
}

async fn commit(
    State(shared): State<Shared>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let trial: Trial = work::take(&headers, body, access, &shared.pools).await?;
    if !(1..=CONFIRM_MAX_S).contains(&trial.confirm_within_s) {
        let what = format!("confirm_within_s is 1 to {CONFIRM_MAX_S}");
        return Err(error(StatusCode::UNPROCESSABLE_ENTITY, &what));
    }
    match ask(&shared, |reply| Order::Try(trial, reply)).await {
        Some(Ok(outcome)) => Ok(come_to(&shared, access, outcome).await),
        other => Err(settled(other)),
    }
}

async fn waiting(State(shared): State<Shared>, Extension(access): Extension<Access>) -> Answer {
    let look = look(&shared).await?;
    if look.waiting.is_none() {
        return Ok(answer(Some(look.commit())));
    }
    let commit = work::on_its_own(access, &shared.pools, move || look.commit()).await?;
    Ok(work::weighed(access, &shared.pools, commit).await)
}

async fn confirm(State(shared): State<Shared>) -> Response {
    settled(ask(&shared, Order::Confirm).await)
}

async fn take_back(State(shared): State<Shared>) -> Response {
    settled(ask(&shared, Order::TakeBack).await)
}

/// The answer to what a commit that waits, or does not, can make impossible.
fn settled<T: Serialize>(body: Option<Result<T, NotSettled>>) -> Response {
    match body {
        Some(Ok(body)) => answer(Some(body)),
        Some(Err(NotSettled::Conflict(what))) => error(StatusCode::CONFLICT, &what),
        Some(Err(NotSettled::Failed(what))) => error(StatusCode::INTERNAL_SERVER_ERROR, &what),
        None => answer::<()>(None),
    }
}

async fn connection_rows(State(shared): State<Shared>) -> Response {
    connections::stream(shared.connections)
}

async fn tunables(State(shared): State<Shared>) -> Answer {
    Ok(answer(Some(look(&shared).await?.tunables())))
}

async fn fwmarks(State(shared): State<Shared>, Extension(access): Extension<Access>) -> Answer {
    let marks = look(&shared).await?.state.marks;
    let rules = work::on_its_own(access, &shared.pools, move || marks.rules()).await?;
    Ok(work::weighed(access, &shared.pools, rules).await)
}

async fn prefixes(State(shared): State<Shared>) -> Answer {
    Ok(listing::prefixes(look(&shared).await?.state.prefixes))
}

async fn counters(State(shared): State<Shared>) -> Response {
    let counters = ask(&shared, Order::Counters).await;
    answer(counters.map(|mut all| {
        all.extend(shared.pools.refused.counters());
        all
    }))
}

async fn sample(State(shared): State<Shared>) -> Answer {
    let mut moment = ask(&shared, Order::Sample).await.ok_or_else(ending)?;
    moment.counters.extend(shared.pools.refused.counters());
    Ok(listing::sample(moment))
}

async fn explain(
    State(shared): State<Shared>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let request: ExplainRequest = work::take(&headers, body, access, &shared.pools).await?;
    let turn = work::turn(access, &shared.pools).await?;
    let world = ask(&shared, Order::World).await.ok_or_else(ending)?;
    // Copies all servers: not what other answers should wait for.
    let source = shared.connections.clone();
    let explained = turn.run(move || source.explain(&world, &request));
    match explained.await? {
        Ok(explanation) => Ok(work::weighed(access, &shared.pools, explanation).await),
        Err(what) => Err(error(StatusCode::BAD_REQUEST, &what)),
    }
}

async fn document() -> Response {
    Json(openapi::document()).into_response()
}
