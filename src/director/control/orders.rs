//! What the rest of the process may ask of control.

use std::collections::BTreeMap;
use std::sync::Arc;

use cli::api::{Batch, Commit, Outcome, Trial};
use crossbeam_channel::{Receiver, Sender};
use sched::server::RealServer;
use tokio::sync::oneshot;

use super::NotSettled;
use super::look::{Look, Moment};
use crate::director::explain::World;

/// An answer that may come late, or never when control has ended.
pub(super) type Reply<T> = oneshot::Sender<T>;

/// What can be asked of control. What only looks gets a copy that costs control next to
/// nothing, and works on that elsewhere: it never holds up what changes.
#[derive(Debug)]
pub enum Order {
    /// Carry out commands. The error names what is not in force.
    Run(Batch, Reply<Result<Outcome, String>>),
    /// Carry out commands and take them back unless they are confirmed.
    Try(Trial, Reply<Result<Outcome, NotSettled>>),
    /// Confirm the commit that waits.
    Confirm(Reply<Result<Commit, NotSettled>>),
    /// Take back the commit that waits.
    TakeBack(Reply<Result<Commit, NotSettled>>),
    /// All that can be looked at.
    Look(Reply<Look>),
    /// List counters.
    Counters(Reply<BTreeMap<String, u64>>),
    /// All that moves, at one moment.
    Sample(Reply<Moment>),
    /// What an explanation is based on.
    World(Reply<World>),
    /// End, so that another process can go on: all servers that connections may name.
    HandOver(Reply<Vec<Arc<RealServer>>>),
    /// End.
    Stop,
}

/// Asks which workers have not turned since it was last asked.
pub(super) type Pulse = Reply<Vec<usize>>;

/// Orders to control. Any thread may hold one.
#[derive(Clone, Debug)]
pub struct Orders {
    orders: Sender<Order>,
    pulses: Sender<Pulse>,
}

/// Where orders arrive.
#[derive(Debug)]
pub struct Inbox {
    /// In turn.
    pub orders: Receiver<Order>,
    /// Out of turn: whether control lives must not wait behind its work.
    pub(super) pulses: Receiver<Pulse>,
}

impl Orders {
    /// A handle, and where its orders arrive.
    pub fn channel() -> (Self, Inbox) {
        let (order, orders) = crossbeam_channel::unbounded();
        let (pulse, pulses) = crossbeam_channel::unbounded();
        let handle = Self {
            orders: order,
            pulses: pulse,
        };
        (handle, Inbox { orders, pulses })
    }

    /// Sends an order; false when control has ended.
    pub fn send(&self, order: Order) -> bool {
        self.orders.send(order).is_ok()
    }

    /// Which workers have not turned since this was last asked; none when control does not
    /// answer. Waits for it.
    pub fn pulse(&self) -> Option<Vec<usize>> {
        let (reply, answer) = oneshot::channel();
        self.pulses.send(reply).ok()?;
        answer.blocking_recv().ok()
    }
}
