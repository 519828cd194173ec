//! The schedulers: one file each, all behind one trait. Each chooses the server that
//! Linux's IPVS would, for the same list order, weights and load; `tests/replay.rs` holds
//! it to what the kernel did.
//!
//! Known differences, none of which a kernel would notice in practice:
//!
//! | Scheduler | Linux | Here |
//! |-|-|-|
//! | twos | picks at random | picks by a mixed counter |
//! | lblc, lblcr | remember 16,384 addresses and more, for lblcr any number of servers each | remember 4096, or 1024 with 32 servers each; the address used longest ago makes room |
//! | lblc, lblcr | forget an address unused for a day within half an hour | forget it at once |
//! | wrr | walks every pass of its turn, under a lock | skips the passes that no server can meet |
//! | mh | keeps its table where servers outnumber its 4093 slots | fills it with the first 4093 |
//! | lc, wlc, sed, nq | overflow at 2^23 active connections | do not |

mod dh;
mod fo;
mod hash;
mod lblc;
mod lblcr;
mod lc;
mod locality;
mod mh;
mod nq;
mod ovf;
mod rr;
mod sed;
mod sh;
mod twos;
mod wlc;
mod wrr;

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::server::{RealServer, ServerId};
use crate::service::SchedulerFlags;

/// What a scheduler may know of the packet that opens a connection.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The client's address (CIP).
    pub client: IpAddr,
    /// The client's port.
    pub client_port: u16,
    /// The address that the client asked for (VIP).
    pub virtual_address: IpAddr,
    /// The port that the client asked for.
    pub virtual_port: u16,
    /// Time since some fixed point, s. lblc and lblcr age their tables by it.
    pub now_s: u64,
}

/// Chooses a server for a new connection.
///
/// Called by every worker at once: state that moves (a round robin's place) is atomic,
/// and a call neither locks, allocates, nor loops more than a few times over `servers`.
pub trait Scheduler: Debug + Send + Sync {
    /// The name that `-s` knows it by.
    fn name(&self) -> &'static str;

    /// The index in `servers` of the server to take, or none where no server is usable.
    /// `servers` is the service's list, in order, that this instance was built for.
    fn schedule(&self, request: &Request, servers: &[Arc<RealServer>]) -> Option<usize>;

    /// The instance for a changed list of servers (one added, edited or removed), with
    /// what should be kept of this one's state, as IPVS keeps it.
    fn revised(&self, servers: &[Arc<RealServer>], flags: SchedulerFlags) -> Arc<dyn Scheduler>;

    /// For a list that changes in many steps: what this instance keeps of its state through
    /// them, where the way there matters and not only the list at the end. `servers` is the
    /// list that it was built for.
    fn revision(&self, _servers: &[Arc<RealServer>]) -> Option<Box<dyn Revision>> {
        None
    }

    /// The instance for other flags and the same servers; none where flags mean nothing
    /// to it. Apart from `revised`, because an edit of the service leaves a round robin's
    /// place alone, and an edit of a server may not.
    fn reflagged(
        &self,
        _servers: &[Arc<RealServer>],
        _flags: SchedulerFlags,
    ) -> Option<Arc<dyn Scheduler>> {
        None
    }

    /// A copy that answers as this one would, and whose answers leave this one's state
    /// alone; none where an answer moves no state, so that this one may be asked itself.
    fn forked(&self) -> Option<Arc<dyn Scheduler>> {
        None
    }

    /// The slot of its table that a request hashes to, where it has such a table.
    fn slot(&self, _request: &Request) -> Option<usize> {
        None
    }

    /// What a server costs it, where it takes the one of least cost per weight (or of
    /// least cost, where weights do not matter to it).
    fn cost(&self, _server: &RealServer) -> Option<u64> {
        None
    }
}

/// A scheduler's state while its list changes step by step. Each step leads where
/// [`Scheduler::revised`] does, and costs the same however long the list is.
pub trait Revision: Debug + Send {
    /// A server was put at the list's head.
    fn added(&mut self, server: &RealServer);
    /// A server was edited.
    fn edited(&mut self, old: &RealServer, new: &RealServer);
    /// A server was removed. `before` tells who stood before it in the list.
    fn removed(&mut self, server: &RealServer, before: Before<'_>);
    /// The instance for the list that this led to.
    fn finish(self: Box<Self>, servers: &[Arc<RealServer>]) -> Arc<dyn Scheduler>;
}

/// Who stood before a server in the list; none for the list's head.
pub type Before<'a> = &'a dyn Fn() -> Option<ServerId>;

/// Makes a scheduler for a list of servers.
type Build = fn(&[Arc<RealServer>], SchedulerFlags) -> Arc<dyn Scheduler>;

/// Every scheduler by the name that `-s` knows it by.
const SCHEDULERS: [(&str, Build); 14] = [
    ("rr", |servers, _| Arc::new(rr::RoundRobin::new(servers))),
    ("wrr", |servers, _| {
        Arc::new(wrr::WeightedRoundRobin::new(servers))
    }),
    ("lc", |_, _| Arc::new(lc::LeastConnection)),
    ("wlc", |_, _| Arc::new(wlc::WeightedLeastConnection)),
    ("lblc", |servers, _| Arc::new(lblc::Locality::new(servers))),
    ("lblcr", |servers, _| {
        Arc::new(lblcr::ReplicatedLocality::new(servers))
    }),
    ("dh", |_, _| Arc::new(dh::DestinationHash)),
    ("sh", |servers, flags| {
        Arc::new(sh::SourceHash::new(servers, flags))
    }),
    ("mh", |servers, flags| {
        Arc::new(mh::Maglev::new(servers, flags))
    }),
    ("sed", |_, _| Arc::new(sed::ShortestExpectedDelay)),
    ("nq", |_, _| Arc::new(nq::NeverQueue)),
    ("fo", |_, _| Arc::new(fo::FailOver)),
    ("ovf", |_, _| Arc::new(ovf::Overflow)),
    ("twos", |_, _| Arc::new(twos::PowerOfTwo::default())),
];

/// The names of all schedulers.
pub fn names() -> impl Iterator<Item = &'static str> {
    SCHEDULERS.iter().map(|(name, _)| *name)
}

/// Whether there is a scheduler of this name.
pub fn is_known(name: &str) -> bool {
    names().any(|known| known == name)
}

/// A new scheduler of this name for `servers`; none where the name is unknown.
pub fn by_name(
    name: &str,
    flags: SchedulerFlags,
    servers: &[Arc<RealServer>],
) -> Option<Arc<dyn Scheduler>> {
    let (_, build) = SCHEDULERS.iter().find(|(known, _)| *known == name)?;
    Some(build(servers, flags))
}

/// What a server's connections cost: each 1, and an active one 256 more (Linux's
/// `ip_vs_dest_conn_overhead`; kernels before 2026 counted an active one 256 in all).
fn overhead(server: &RealServer) -> u64 {
    u64::from(active(server)) * 256 + u64::from(server.load.total())
}

/// What a server's active connections cost with one more.
fn expected_delay(server: &RealServer) -> u64 {
    u64::from(active(server)) + 1
}

fn active(server: &RealServer) -> u32 {
    server.load.active.load(Relaxed)
}

/// The usable server with the least `cost` per weight; of equals the first in the list.
fn least_by_weight<'a>(
    servers: impl Iterator<Item = (usize, &'a RealServer)>,
    cost: impl Fn(&RealServer) -> u64,
) -> Option<usize> {
    let mut least: Option<(usize, u64, u64)> = None;
    for (index, server) in servers.filter(|(_, server)| server.is_usable()) {
        let (cost, weight) = (cost(server), u64::from(server.spec.weight));
        // cost / weight < least cost / least weight, without dividing.
        let less = |(_, c, w): (usize, u64, u64)| {
            u128::from(c) * u128::from(weight) > u128::from(cost) * u128::from(w)
        };
        if least.is_none_or(less) {
            least = Some((index, cost, weight));
        }
    }
    least.map(|(index, ..)| index)
}

/// The servers with their places in the list.
fn numbered(servers: &[Arc<RealServer>]) -> impl Iterator<Item = (usize, &RealServer)> {
    servers.iter().map(|server| &**server).enumerate()
}

/// The usable server with the greatest weight; of equals the first in the list.
fn greatest_weight<'a>(servers: impl Iterator<Item = (usize, &'a RealServer)>) -> Option<usize> {
    servers
        .filter(|(_, server)| server.is_usable())
        .min_by_key(|(_, server)| std::cmp::Reverse(server.spec.weight))
        .map(|(index, _)| index)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Some request, for schedulers that do not look at it.
#[cfg(test)]
fn request() -> Request {
    Request {
        client: [10, 9, 0, 1].into(),
        client_port: 4000,
        virtual_address: [10, 1, 0, 1].into(),
        virtual_port: 80,
        now_s: 0,
    }
}
