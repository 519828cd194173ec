//! What a director tells of its steps. In the packet path nobody listens: [`Silent`] is
//! empty, every step is made in a closure that is never called, and nothing of it is left
//! in the code. An explanation listens with [`Trace`] to the very same code.

use std::cell::RefCell;
use std::sync::Arc;

use sched::limit::{Above, ServiceLimits};
use sched::scheduler::Request;
use sched::server::{ServerKey, ServerSpec};
use sched::service::{Family, Protocol, Service};

use crate::address::Endpoint;
use crate::connection::table::{Draft, Key, Row};
use crate::connection::word::Method;
use crate::forward::icmp::{ErrorKind, Quoted};
use crate::frame::Packet;
use crate::hops::Way;
use crate::snapshot::ServerSlot;
use crate::verdict::Reason;

/// Listens to a director.
pub trait Observer {
    /// The director made a step.
    fn step(&self, step: impl FnOnce() -> Step);
}

/// Nobody listens.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Observer for Silent {
    #[inline(always)]
    fn step(&self, _: impl FnOnce() -> Step) {}
}

/// Writes every step down.
#[derive(Debug, Default)]
pub(crate) struct Trace(RefCell<Vec<Step>>);

impl Observer for Trace {
    fn step(&self, step: impl FnOnce() -> Step) {
        self.0.borrow_mut().push(step());
    }
}

impl Trace {
    /// The steps so far.
    pub(crate) fn take(&self) -> Vec<Step> {
        self.0.take()
    }
}

/// A server as a scheduler saw it when it chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which server.
    pub server: ServerKey,
    /// What it is.
    pub spec: ServerSpec,
    /// Its active connections.
    pub active: u32,
    /// Its other connections.
    pub inactive: u32,
    /// Whether it is above its threshold.
    pub overloaded: bool,
    /// What it costs this scheduler, where it weighs costs.
    pub cost: Option<u64>,
}

/// One step of a director's.
#[derive(Clone, Debug)]
pub enum Step {
    /// A packet was read.
    Packet(Packet),
    /// An ICMP packet; the packet that it quotes, if it is an error about one.
    Icmp(Option<Quoted>),
    /// A connection or template was looked for.
    Lookup {
        /// By this.
        key: Key,
        /// What was found.
        entry: Option<Row>,
    },
    /// A masqueraded connection was looked for by its server's side.
    LookupReply {
        /// The packet's family.
        family: Family,
        /// Its protocol's number.
        protocol: u8,
        /// The client.
        client: Endpoint,
        /// The server.
        real: Endpoint,
        /// What was found.
        entry: Option<Row>,
    },
    /// The connection found ends here, and the packet may begin another.
    Replaced {
        /// Its server was removed.
        gone: bool,
        /// Its server has weight 0.
        drained: bool,
    },
    /// The packet belongs to no connection and is none that begins one.
    MayNotBegin,
    /// A service was looked for.
    Service {
        /// The packet's firewall mark; 0 for none.
        mark: u32,
        /// The destination.
        destination: Endpoint,
        /// Its family.
        family: Family,
        /// The protocol.
        protocol: Protocol,
        /// What was found.
        service: Option<Arc<Service>>,
    },
    /// `drop_packet` drops one of so many packets here.
    DropRate(u32),
    /// The service has limits on new connections; above which this one is, if any.
    Limits {
        /// The limits.
        limits: ServiceLimits,
        /// The one that it is above.
        above: Option<Above>,
    },
    /// From FTP's data port, which no connection begins from.
    FtpData,
    /// The service is one of another port, and not persistent.
    OtherPort,
    /// The template found may not be followed any more.
    TemplateRetired,
    /// The scheduler was asked.
    Schedule {
        /// Of this service.
        service: Arc<Service>,
        /// The slot of its table, where it has one.
        slot: Option<usize>,
        /// The servers in list order.
        candidates: Vec<Candidate>,
        /// The one that it took.
        chosen: Option<usize>,
    },
    /// A connection begins.
    Begin(Draft),
    /// A connection's state after the packet.
    State {
        /// Its protocol.
        protocol: Protocol,
        /// The state's number.
        state: u8,
        /// How long it may idle there, s.
        timeout_s: u32,
    },
    /// The packet goes on to a server.
    Forward {
        /// The server and the way to it.
        server: ServerSlot,
        /// By this method.
        method: Method,
        /// To this endpoint.
        real: Endpoint,
    },
    /// The packet is compared with what the way has room for, bytes at layer 3.
    Room {
        /// What fits.
        room: usize,
        /// The packet.
        length: usize,
    },
    /// The packet is refused; its sender is told where that is allowed.
    Refuse {
        /// What its sender is told.
        kind: ErrorKind,
        /// Why.
        reason: Reason,
    },
    /// A packet (or an error about it) leaves.
    Leave {
        /// The packet as it leaves.
        packet: Packet,
        /// By this way.
        way: Way,
    },
    /// The packet is the host's.
    Host,
}

impl Step {
    pub(super) fn schedule(
        service: &Arc<Service>,
        request: &Request,
        chosen: Option<usize>,
    ) -> Self {
        use std::sync::atomic::Ordering::Relaxed;
        let candidates = service.servers.iter().map(|server| Candidate {
            server: server.key,
            spec: server.spec,
            active: server.load.active.load(Relaxed),
            inactive: server.load.inactive.load(Relaxed),
            overloaded: server.is_overloaded(),
            cost: service.scheduler.cost(server),
        });
        Self::Schedule {
            service: service.clone(),
            slot: service.scheduler.slot(request),
            candidates: candidates.collect(),
            chosen,
        }
    }
}
