//! The schedulers: one file each, all behind one trait.

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use crate::server::RealServer;
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
}
