//! Bodies to commands, and values to answers. What may be long is done on a thread of its
//! own, in turns, so that neither control nor other answers wait for it.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinError;

use super::rights::{Access, Pools};
use super::{busy, error};

/// What is shorter is read at once, bytes.
const SHORT_BYTES: usize = 64 * 1024;
/// A long answer is handed over in pieces of this many bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// Why a body is not taken.
pub(super) type Fault = (StatusCode, String);

/// Whether a body says that it is JSON.
pub(super) fn is_json(headers: &HeaderMap) -> Result<(), Fault> {
    let kind = headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    match kind.eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => Err((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "a body is JSON: say so with `Content-Type: application/json`".into(),
        )),
    }
}

/// Reads a body that may have commands. How many is counted before any is made: one of a few
/// bytes takes a hundred times as much memory.
pub(super) fn read<T: DeserializeOwned>(
    body: &[u8],
    access: Access,
    pools: &Pools,
) -> Result<T, Fault> {
    let most = access.limits().commands;
    if let Ok(shape) = serde_json::from_slice::<Shape>(body)
        && shape.commands.0 > most
    {
        pools.refused.commands.fetch_add(1, Relaxed);
        let what = format!(
            "a batch has at most {most} commands, not {}: send them in parts",
            shape.commands.0
        );
        return Err((StatusCode::PAYLOAD_TOO_LARGE, what));
    }
    serde_json::from_slice(body).map_err(|error| match error.is_data() {
        true => (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        false => (StatusCode::BAD_REQUEST, error.to_string()),
    })
}

/// As [`read`], where a long body may keep nobody waiting.
pub(super) async fn take<T: DeserializeOwned + Send + 'static>(
    headers: &HeaderMap,
    body: Bytes,
    access: Access,
    pools: &Arc<Pools>,
) -> Result<T, Response> {
    let refused = |(status, what): Fault| error(status, &what);
    is_json(headers).map_err(refused)?;
    if body.len() <= SHORT_BYTES {
        return read(&body, access, pools).map_err(refused);
    }
    let own = pools.clone();
    on_its_own(access, pools, move || read(&body, access, &own))
        .await?
        .map_err(refused)
}

/// A turn at long work.
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// Waits for a turn.
pub(super) async fn turn(access: Access, pools: &Pools) -> Result<Turn, Response> {
    let permit = pools.work(access).await.ok_or_else(busy)?;
    Ok(Turn { _permit: permit })
}

impl Turn {
    /// Does the work on a thread of its own. The turn ends with it, also where its client has
    /// gone meanwhile.
    pub(super) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Response> {
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(self);
            done
        });
        let failed =
            |failed: JoinError| error(StatusCode::INTERNAL_SERVER_ERROR, &failed.to_string());
        done.await.map_err(failed)
    }
}

/// Does long work in its turn.
pub(super) async fn on_its_own<T: Send + 'static>(
    access: Access,
    pools: &Pools,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Response> {
    turn(access, pools).await?.run(work).await
}

/// Answers with a value that may be long: its text counts as in flight until it was taken.
pub(super) async fn weighed<T: Serialize + Send + 'static>(
    access: Access,
    pools: &Pools,
    value: T,
) -> Response {
    let text = on_its_own(access, pools, move || serde_json::to_vec(&value)).await;
    let text = match text {
        Ok(Ok(text)) => Bytes::from(text),
        Ok(Err(failed)) => return error(StatusCode::INTERNAL_SERVER_ERROR, &failed.to_string()),
        Err(response) => return response,
    };
    let Some(room) = pools.room(access, text.len()).await else {
        return busy();
    };
    let pieces = stream::unfold((text, room), |(mut text, room)| async move {
        if text.is_empty() {
            return None;
        }
        let piece = text.split_to(text.len().min(PIECE_BYTES));
        Some((Ok::<_, Infallible>(piece), (text, room)))
    });
    let kind = [(CONTENT_TYPE, "application/json")];
    (kind, Body::from_stream(pieces)).into_response()
}

/// How many commands a body has, and nothing else of it.
#[derive(Deserialize)]
struct Shape {
    commands: Count,
}

struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counting;

        impl<'de> Visitor<'de> for Counting {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of commands")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }

        deserializer.deserialize_seq(Counting)
    }
}
