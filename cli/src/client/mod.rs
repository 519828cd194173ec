//! A client of the director's API: HTTP/1.1 and JSON over a Unix socket. Blocks; connects
//! when first asked and keeps the connection, so one process can ask often. What did nothing
//! for a reason that passes is asked again for a few seconds.

mod again;
mod lines;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use sched::command::{Command, FwmarkRule, Refusal};
use sched::prefix::Prefixes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::api::{
    Batch, Commit, ConnectionRow, ExplainRequest, Explanation, Outcome, Part, Sample, Table, Trial,
    Waiting,
};
use crate::director::{Director, DirectorError};
use again::{Failure, Patience};
use lines::Lines;

/// The API's socket, where `LVX_API` names no other.
pub const DEFAULT_SOCKET: &str = "/run/lvx/lvx.sock";

/// How long a director may take to begin its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON object as the API sends it: names to plain values.
pub type Values = BTreeMap<String, serde_json::Value>;

/// A client of one director.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    link: Option<Link>,
    /// The version that the director last gave as its own.
    theirs: Option<String>,
}

#[derive(Debug)]
struct Link {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// A client of the director whose API is at `path`. Does not connect yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            link: None,
            theirs: None,
        }
    }

    /// A client of the director that `LVX_API` names, or else of the usual one.
    pub fn from_environment() -> Self {
        let path = std::env::var_os("LVX_API").filter(|path| !path.is_empty());
        Self::new(path.unwrap_or_else(|| DEFAULT_SOCKET.into()))
    }

    /// The API's socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Carries out `commands`; `atomic` ones all or none.
    pub fn batch(
        &mut self,
        commands: &[Command],
        atomic: bool,
    ) -> Result<Vec<Option<Refusal>>, DirectorError> {
        let batch = Batch {
            commands: commands.to_vec(),
            atomic,
        };
        let outcome: Outcome = self.post("/v1/commands", &batch)?;
        if outcome.refusals.len() != commands.len() {
            return Err(self.misunderstood("not one for each command"));
        }
        Ok(outcome.refusals)
    }

    /// What [`Client::batch`] would say of `commands`, all or none. Nothing is done.
    pub fn check(&mut self, commands: &[Command]) -> Result<Vec<Option<Refusal>>, DirectorError> {
        let batch = Batch {
            commands: commands.to_vec(),
            atomic: true,
        };
        let outcome: Outcome = self.post("/v1/check", &batch)?;
        Ok(outcome.refusals)
    }

    /// Carries out `commands`, all or none; the director takes them back unless
    /// [`Client::confirm`] comes within `confirm_within_s`.
    pub fn try_out(
        &mut self,
        commands: &[Command],
        confirm_within_s: u32,
    ) -> Result<Vec<Option<Refusal>>, DirectorError> {
        let trial = Trial {
            commands: commands.to_vec(),
            confirm_within_s,
        };
        let outcome: Outcome = self.post("/v1/commit", &trial)?;
        Ok(outcome.refusals)
    }

    /// The commit that waits for its confirmation.
    pub fn waiting(&mut self) -> Result<Option<Waiting>, DirectorError> {
        let commit: Commit = self.json(Method::GET, "/v1/commit", Vec::new())?;
        Ok(commit.waiting)
    }

    /// Confirms the commit that waits.
    pub fn confirm(&mut self) -> Result<(), DirectorError> {
        self.post("/v1/commit/confirm", &()).map(|_: Commit| ())
    }

    /// Takes back the commit that waits, at once.
    pub fn take_back(&mut self) -> Result<(), DirectorError> {
        self.post("/v1/commit/return", &()).map(|_: Commit| ())
    }

    fn post<T: DeserializeOwned>(
        &mut self,
        target: &str,
        body: &impl Serialize,
    ) -> Result<T, DirectorError> {
        let body = serde_json::to_vec(body).map_err(|error| self.version(error))?;
        self.json(Method::POST, target, body)
    }

    /// The tunables, name to value.
    pub fn tunables(&mut self) -> Result<Values, DirectorError> {
        self.json(Method::GET, "/v1/tunables", Vec::new())
    }

    /// The firewall mark rules.
    pub fn fwmarks(&mut self) -> Result<Vec<FwmarkRule>, DirectorError> {
        self.json(Method::GET, "/v1/fwmarks", Vec::new())
    }

    /// The client prefixes that are let in or kept out.
    pub fn prefixes(&mut self) -> Result<Prefixes, DirectorError> {
        self.json(Method::GET, "/v1/prefixes", Vec::new())
    }

    /// Every drop reason and event with its count.
    pub fn counters(&mut self) -> Result<Values, DirectorError> {
        self.json(Method::GET, "/v1/counters", Vec::new())
    }

    /// All that moves in the director, at this moment.
    pub fn sample(&mut self) -> Result<Sample, DirectorError> {
        self.json(Method::GET, "/v1/sample", Vec::new())
    }

    /// What the director would do with a packet.
    pub fn explain(&mut self, request: &ExplainRequest) -> Result<Explanation, DirectorError> {
        let body = serde_json::to_vec(request).map_err(|error| self.version(error))?;
        self.json(Method::POST, "/v1/explain", body)
    }

    fn json<T: DeserializeOwned>(
        &mut self,
        method: Method,
        target: &str,
        body: Vec<u8>,
    ) -> Result<T, DirectorError> {
        let response = self.ask(method, target, body)?;
        let bytes = self.collect(response.into_body())?;
        serde_json::from_slice(&bytes).map_err(|error| self.misunderstood(error))
    }

    fn ask(
        &mut self,
        method: Method,
        target: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, DirectorError> {
        let body = Bytes::from(body);
        let mut patience = Patience::new();
        loop {
            match self.ask_once(&method, target, body.clone()) {
                Ok(response) => return Ok(response),
                Err(failure) => patience.wait(failure)?,
            }
        }
    }

    fn ask_once(
        &mut self,
        method: &Method,
        target: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "lvx")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(error))?;
        let link = self.link()?;
        let sent = async {
            let answer = link.sender.try_send_request(request);
            tokio::time::timeout(ANSWER_TIMEOUT, answer).await
        };
        let response = match link.runtime.block_on(sent) {
            Ok(Ok(response)) => response,
            Ok(Err(mut failed)) => {
                // What comes back was not sent; what only asks may be sent twice.
                let is_safe = failed.take_message().is_some() || *method == Method::GET;
                let error = self.hung_up(&failed.into_error());
                self.link = None;
                return Err(match is_safe {
                    true => Failure::closed(error),
                    false => error.into(),
                });
            }
            Err(_) => {
                self.link = None;
                return Err(self
                    .broken(format!("no answer in {ANSWER_TIMEOUT:?}"))
                    .into());
            }
        };
        self.check_status(target, response)
            .map_err(Failure::answered)
    }

    fn check_status(
        &mut self,
        target: &str,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>, DirectorError> {
        let server = response.headers().get(header::SERVER);
        let version = server.and_then(|text| text.to_str().ok()?.strip_prefix("lvx/"));
        self.theirs = version.map(str::to_owned);
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::FORBIDDEN => Err(DirectorError::PermissionDenied),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                Err(self.version(format_args!("it does not know {target}")))
            }
            status => {
                let bytes = self.collect(response.into_body())?;
                // A command that an older director does not know fails to parse there.
                let is_same = self.theirs.as_deref() == Some(env!("CARGO_PKG_VERSION"));
                if status == StatusCode::UNPROCESSABLE_ENTITY && !is_same {
                    return Err(self.version("it does not understand the request"));
                }
                Err(DirectorError::Failed {
                    path: self.path.clone(),
                    status: status.as_u16(),
                    reason: reason(&bytes),
                })
            }
        }
    }

    fn collect(&mut self, body: Incoming) -> Result<Bytes, DirectorError> {
        let Some(link) = &self.link else {
            return Err(self.broken("the connection is closed"));
        };
        let collected = link.runtime.block_on(body.collect());
        let collected = collected.map_err(|error| self.broken(error))?;
        Ok(collected.to_bytes())
    }

    fn link(&mut self) -> Result<&mut Link, Failure> {
        let alive = |link: &Link| !link.sender.is_closed();
        let link = match self.link.take().filter(alive) {
            Some(link) => link,
            None => self.connect()?,
        };
        Ok(self.link.insert(link))
    }

    fn connect(&self) -> Result<Link, Failure> {
        let unreachable = |source| Failure::unreachable(&self.path, source);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(unreachable)?;
        let stream = runtime
            .block_on(UnixStream::connect(&self.path))
            .map_err(unreachable)?;
        let (sender, connection) = runtime
            .block_on(http1::handshake(TokioIo::new(stream)))
            .map_err(|error| self.broken(error))?;
        runtime.spawn(connection);
        Ok(Link { runtime, sender })
    }

    fn hung_up(&self, error: &hyper::Error) -> DirectorError {
        match error.is_incomplete_message() || error.is_canceled() {
            true => self.broken("it hung up before it answered"),
            false => self.broken(error),
        }
    }

    fn broken(&self, reason: impl ToString) -> DirectorError {
        DirectorError::Broken {
            path: self.path.clone(),
            reason: reason.to_string(),
        }
    }

    fn misunderstood(&self, reason: impl std::fmt::Display) -> DirectorError {
        self.version(format_args!(
            "its answer is another than expected: {reason}"
        ))
    }

    fn version(&self, reason: impl ToString) -> DirectorError {
        DirectorError::Version {
            path: self.path.clone(),
            theirs: self.theirs.clone().unwrap_or("of another version".into()),
            reason: reason.to_string(),
        }
    }
}

/// The API's errors are `{"error": TEXT}`.
fn reason(body: &[u8]) -> String {
    let json: Option<Values> = serde_json::from_slice(body).ok();
    match json.as_ref().and_then(|json| json.get("error")?.as_str()) {
        Some(text) => text.to_owned(),
        None => String::from_utf8_lossy(body).trim().to_owned(),
    }
}

impl Director for Client {
    fn execute(&mut self, commands: &[Command]) -> Result<Vec<Option<Refusal>>, DirectorError> {
        self.batch(commands, false)
    }

    fn table(&mut self) -> Result<Table, DirectorError> {
        self.json(Method::GET, "/v1/table", Vec::new())
    }

    /// A director of a version that knows no parts gives all of it.
    fn table_part(&mut self, part: &Part) -> Result<Table, DirectorError> {
        let target = match part {
            Part::All => "/v1/table".to_owned(),
            part => format!("/v1/table?{part}"),
        };
        let table = self.json(Method::GET, &target, Vec::new())?;
        Ok(part.of(table))
    }

    /// One JSON object a line; only the unfinished line is held.
    fn connections(
        &mut self,
        each: &mut dyn FnMut(ConnectionRow) -> ControlFlow<()>,
    ) -> Result<(), DirectorError> {
        let response = self.ask(Method::GET, "/v1/connections", Vec::new())?;
        let mut body = response.into_body();
        let mut lines = Lines::default();
        loop {
            let Some(link) = &self.link else {
                return Err(self.broken("the connection is closed"));
            };
            let Some(frame) = link.runtime.block_on(body.frame()) else {
                break;
            };
            let frame = frame.map_err(|error| self.broken(error))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let flow = lines.push(&data, each).map_err(|e| self.misunderstood(e))?;
            if flow.is_break() {
                // What is still on its way belongs to this answer: the connection is spent.
                self.link = None;
                return Ok(());
            }
        }
        lines.finish().map_err(|error| self.broken(error))
    }
}
