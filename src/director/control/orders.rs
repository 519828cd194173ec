//! What the rest of the process may ask of control.

use std::collections::BTreeMap;
use std::sync::Arc;

use cli::api::{Batch, Commit, FwmarkRule, Outcome, Part, Sample, Table, Trial};
use crossbeam_channel::{Receiver, Sender};
use sched::prefix::Prefixes;
use sched::server::RealServer;
use tokio::sync::oneshot;

use super::NotSettled;
use crate::director::explain::World;

/// An answer that may come late, or never when control has ended.
pub(super) type Reply<T> = oneshot::Sender<T>;

/// What can be asked of control.
#[derive(Debug)]
pub enum Order {
    /// Say which workers have not turned since it was last asked.
    Pulse(Reply<Vec<usize>>),
    /// Carry out commands. The error names what is not in force.
    Run(Batch, Reply<Result<Outcome, String>>),
    /// Say what commands, all or none, would come to.
    Check(Batch, Reply<Outcome>),
    /// Carry out commands and take them back unless they are confirmed.
    Try(Trial, Reply<Result<Outcome, NotSettled>>),
    /// Say which commit waits for its confirmation.
    Waiting(Reply<Commit>),
    /// Confirm the commit that waits.
    Confirm(Reply<Result<Commit, NotSettled>>),
    /// Take back the commit that waits.
    TakeBack(Reply<Result<Commit, NotSettled>>),
    /// List services and servers, or a part of them.
    Table(Part, Reply<Table>),
    /// List tunables.
    Tunables(Reply<BTreeMap<String, String>>),
    /// The client prefixes that are let in or kept out.
    Prefixes(Reply<Arc<Prefixes>>),
    /// List firewall marks.
    Fwmarks(Reply<Vec<FwmarkRule>>),
    /// List counters.
    Counters(Reply<BTreeMap<String, u64>>),
    /// All that moves, at one moment.
    Sample(Reply<Sample>),
    /// What an explanation is based on.
    World(Reply<World>),
    /// End, so that another process can go on: all servers that connections may name.
    HandOver(Reply<Vec<Arc<RealServer>>>),
    /// End.
    Stop,
}

/// Orders to control. Any thread may hold one.
#[derive(Clone, Debug)]
pub struct Orders(Sender<Order>);

impl Orders {
    /// A handle, and where its orders arrive.
    pub fn channel() -> (Self, Receiver<Order>) {
        let (sender, orders) = crossbeam_channel::unbounded();
        (Self(sender), orders)
    }

    /// Sends an order; false when control has ended.
    pub fn send(&self, order: Order) -> bool {
        self.0.send(order).is_ok()
    }
}
