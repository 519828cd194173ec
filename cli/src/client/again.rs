//! When a question is asked again: where it surely did nothing the first time, and the reason
//! will be over in a moment. Such are a take-over by another director, places at the API that
//! are all taken, and a connection that the director has closed while it rested.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::director::DirectorError;

/// Another director is about to take this one's place.
const TAKE_OVER: Duration = Duration::from_secs(10);
/// The socket is there, but nobody answers: a director is just ending or being started.
const REFUSED: Duration = Duration::from_secs(2);
/// So many want to be let in that the kernel takes no more, or the director said "later".
const CROWDED: Duration = Duration::from_secs(3);
/// The connection was closed.
const CLOSED: Duration = Duration::from_secs(2);

/// The first pause between two tries; each is twice as long as the last, up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Why there is no answer, and for how long it makes sense to ask again.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: DirectorError,
    pub again_for: Duration,
}

impl Failure {
    /// Asked again once the connection was closed.
    pub(super) fn closed(error: DirectorError) -> Self {
        Self {
            error,
            again_for: CLOSED,
        }
    }

    /// Asked again where the director said that it did nothing: later.
    pub(super) fn answered(error: DirectorError) -> Self {
        let is_later = matches!(error, DirectorError::Failed { status: 503, .. });
        Self {
            error,
            again_for: if is_later { CROWDED } else { Duration::ZERO },
        }
    }

    /// Connecting failed.
    pub(super) fn unreachable(path: &Path, source: io::Error) -> Self {
        let again_for = match source.kind() {
            // Where a director binds its socket before it takes another's place.
            _ if path.with_extension("next").exists() => TAKE_OVER,
            io::ErrorKind::ConnectionRefused => REFUSED,
            io::ErrorKind::WouldBlock => CROWDED,
            _ => Duration::ZERO,
        };
        Self {
            error: DirectorError::from_connect(path.to_owned(), source),
            again_for,
        }
    }
}

impl From<DirectorError> for Failure {
    /// It is not known whether it did something.
    fn from(error: DirectorError) -> Self {
        Self {
            error,
            again_for: Duration::ZERO,
        }
    }
}

/// How long one question has been tried.
#[derive(Debug)]
pub(super) struct Patience {
    begun: Instant,
    pause: Duration,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            pause: PAUSE_MIN,
        }
    }

    /// Waits a moment, or gives the failure up.
    pub(super) fn wait(&mut self, failure: Failure) -> Result<(), DirectorError> {
        if self.begun.elapsed() >= failure.again_for {
            return Err(failure.error);
        }
        thread::sleep(self.pause);
        self.pause = PAUSE_MAX.min(2 * self.pause);
        Ok(())
    }
}
