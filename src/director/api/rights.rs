//! How much each may ask for, by what they may do: whoever may only look gets less, and what
//! one kind of client takes is not missing for the others.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// What a peer may do; more is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    Nothing,
    /// Look.
    Look,
    /// Change, as a member of the operators' group.
    Change,
    /// Change, as root or the director's own user.
    Root,
}

/// How much one kind of client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Clients of one user at once.
    pub share: usize,
    /// A request's body, bytes.
    pub body_bytes: usize,
    /// The commands of a batch.
    pub commands: usize,
    /// All bodies and weighed answers of this kind of client together, KiB.
    pub in_flight_kib: usize,
    /// Checks, explanations and other long work of this kind of client at once.
    pub works: usize,
    /// How long a client may take nothing of its answer.
    pub unread: Duration,
    /// How long it may take for the whole answer.
    pub answer: Option<Duration>,
}

/// Clients at once. Each costs a descriptor and some kilobytes.
pub(super) const CLIENTS_MAX: usize = 128;

/// Places that only root and the director's own user may take.
pub(super) const ROOT_PLACES: usize = 16;

/// The longest body of all: some 100,000 commands.
pub(super) const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How long a request waits for its turn.
pub(super) const TURN_WITHIN: Duration = match cfg!(test) {
    false => Duration::from_secs(10),
    true => Duration::from_millis(500),
};

/// A real client's time, or a test's.
const fn patience(s: u64) -> Duration {
    match cfg!(test) {
        false => Duration::from_secs(s),
        true => Duration::from_millis(200 + s),
    }
}

impl Access {
    pub(super) const fn limits(self) -> Limits {
        match self {
            Self::Nothing | Self::Look => Limits {
                share: 16,
                body_bytes: 8 << 20,
                commands: 65_536,
                in_flight_kib: 32 << 10,
                works: 1,
                unread: patience(10),
                answer: Some(patience(60)),
            },
            Self::Change => Limits {
                share: 32,
                body_bytes: BODY_BYTES_MAX,
                commands: 262_144,
                in_flight_kib: 128 << 10,
                works: 1,
                unread: patience(60),
                answer: Some(patience(600)),
            },
            // A pager may rest for a while on what root lists.
            Self::Root => Limits {
                share: CLIENTS_MAX,
                body_bytes: BODY_BYTES_MAX,
                commands: 262_144,
                in_flight_kib: 256 << 10,
                works: 2,
                unread: patience(600),
                answer: None,
            },
        }
    }
}

/// What was refused, or ended early.
#[derive(Debug, Default)]
pub(super) struct Refused {
    pub clients: AtomicU64,
    pub strangers: AtomicU64,
    pub gave_way: AtomicU64,
    pub slow: AtomicU64,
    pub unread: AtomicU64,
    pub large: AtomicU64,
    pub commands: AtomicU64,
    pub busy: AtomicU64,
}

impl Refused {
    /// As counters, by name.
    pub(super) fn counters(&self) -> [(String, u64); 8] {
        [
            ("api_too_many_clients", &self.clients),
            ("api_strangers", &self.strangers),
            ("api_gave_way", &self.gave_way),
            ("api_too_slow", &self.slow),
            ("api_unread", &self.unread),
            ("api_too_large", &self.large),
            ("api_too_many_commands", &self.commands),
            ("api_busy", &self.busy),
        ]
        .map(|(name, count)| (name.to_owned(), count.load(Relaxed)))
    }
}

/// What one kind of client shares.
#[derive(Debug)]
struct Pool {
    works: Arc<Semaphore>,
    in_flight: Arc<Semaphore>,
}

impl Pool {
    fn new(access: Access) -> Self {
        let limits = access.limits();
        Self {
            works: Arc::new(Semaphore::new(limits.works)),
            in_flight: Arc::new(Semaphore::new(limits.in_flight_kib)),
        }
    }
}

/// What all clients share, each kind of its own.
#[derive(Debug)]
pub(super) struct Pools {
    look: Pool,
    change: Pool,
    root: Pool,
    pub refused: Refused,
}

impl Pools {
    pub(super) fn new() -> Self {
        Self {
            look: Pool::new(Access::Look),
            change: Pool::new(Access::Change),
            root: Pool::new(Access::Root),
            refused: Refused::default(),
        }
    }

    fn of(&self, access: Access) -> &Pool {
        match access {
            Access::Nothing | Access::Look => &self.look,
            Access::Change => &self.change,
            Access::Root => &self.root,
        }
    }

    /// A turn at long work; none where it does not come in time.
    pub(super) async fn work(&self, access: Access) -> Option<OwnedSemaphorePermit> {
        self.turn(self.of(access).works.clone(), 1).await
    }

    /// Room for so many bytes; none where it does not come in time.
    pub(super) async fn room(&self, access: Access, bytes: usize) -> Option<OwnedSemaphorePermit> {
        // What is larger than all there is takes all.
        let kib = bytes.div_ceil(1024).min(access.limits().in_flight_kib);
        self.turn(self.of(access).in_flight.clone(), kib as u32)
            .await
    }

    async fn turn(&self, pool: Arc<Semaphore>, count: u32) -> Option<OwnedSemaphorePermit> {
        let permit = timeout(TURN_WITHIN, pool.acquire_many_owned(count)).await;
        let permit = permit.ok().and_then(Result::ok);
        if permit.is_none() {
            self.refused.busy.fetch_add(1, Relaxed);
        }
        permit
    }
}
