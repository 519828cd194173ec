//! Room for new connections while a flood fills the table. IPVS's table grows until memory
//! ends; this one has a size, so it needs an answer of its own to the handshakes that nobody
//! completes: when hardly a place is free they are ended, the oldest first, whatever the
//! tunables say. What is established is never touched.
//!
//! A hand goes round the table. It ends handshakes above an age that halves in each tick in
//! which places are still missing, and doubles while they are not. New entries come into
//! places that were freed behind the hand, so it also meets old ones before young ones.

use sched::service::Protocol;

use super::expiry::is_half_open;
use super::{Director, Moment};
use crate::connection::table::{Row, Table};
use crate::counters::Event;
use crate::time::{TICKS_PER_S, Ticks};

/// Hardly a place is free: less than one of so many.
const RESERVE_SHARE: usize = 64;

/// At least so many places, also of a small table: a burst of connections.
const RESERVE_MIN: usize = 64;

/// Handshakes younger than this stay: their clients may be about to answer. Half a second is
/// a way around the earth and back; and a full table has room again so soon after a flood.
const AGE_MIN: Ticks = TICKS_PER_S / 2;

/// The longest timeout of a handshake, 60 s (Linux's `tcp_timeouts`).
const AGE_MAX: Ticks = 60 * TICKS_PER_S;

/// Entries looked at in one turn: few microseconds.
const LOOKS_PER_TURN: u32 = 128;

/// Entries looked at in one tick: under 1 % of a core's time, and enough for 60,000 new
/// connections a second for each worker.
const LOOKS_PER_TICK: u32 = 4096;

/// A worker's part in keeping room.
#[derive(Debug)]
pub(super) struct Room {
    worker: u32,
    round: u32,
    /// Places are missing.
    is_short: bool,
    /// Handshakes older than this are ended.
    age: Ticks,
    /// Looks left in this tick.
    looks: u32,
}

impl Room {
    pub(super) fn new(worker: usize) -> Self {
        Self {
            worker: worker as u32,
            round: 0,
            is_short: false,
            age: AGE_MAX / 2,
            looks: 0,
        }
    }

    /// A connection found no place.
    #[cold]
    pub(super) fn is_missed(&mut self) {
        self.is_short = true;
    }

    /// Once per tick.
    fn judge(&mut self, table: &Table) {
        self.looks = LOOKS_PER_TICK;
        self.is_short = left(table) < reserve(table);
        self.age = match self.is_short {
            true => (self.age / 2).max(AGE_MIN),
            false => (self.age * 2).min(AGE_MAX),
        };
    }

    /// The next entry to look at, of this worker's share.
    fn next(&mut self, table: &Table) -> u32 {
        let (workers, end) = (table.workers() as u32, table.high_water());
        let index = self.round * workers + self.worker;
        if index < end {
            self.round += 1;
            return index;
        }
        self.round = 1;
        self.worker
    }
}

fn left(table: &Table) -> usize {
    table.capacity().saturating_sub(table.taken())
}

fn reserve(table: &Table) -> usize {
    (table.capacity() / RESERVE_SHARE)
        .max(RESERVE_MIN)
        .min(table.capacity() / 2)
}

impl Director {
    /// Once per turn; `is_tick` in the first of each tick.
    pub(super) fn make_room(&mut self, moment: Moment<'_>, is_tick: bool) {
        if is_tick {
            self.room.judge(&self.table);
        }
        if !self.room.is_short || self.room.looks == 0 {
            return;
        }
        // Twice the reserve, so that not every tick begins with too little.
        let mut wanted = (2 * reserve(&self.table)).saturating_sub(left(&self.table));
        for _ in 0..LOOKS_PER_TURN.min(self.room.looks) {
            if wanted == 0 {
                return;
            }
            self.room.looks -= 1;
            let index = self.room.next(&self.table);
            let is_old = |row: &Row| age(row, moment.now) >= self.room.age;
            let found = self.table.read(index).filter(is_unanswered).filter(is_old);
            if let Some(row) = found {
                self.purge_entry(moment, &row.key);
                self.counters.event(Event::HalfOpenEnded, 1);
                wanted -= 1;
            }
        }
    }
}

/// A connection, of TCP or SCTP, whose handshake is not complete.
fn is_unanswered(row: &Row) -> bool {
    let protocol = Protocol::from_number(row.key.protocol);
    !row.key.template && protocol != Some(Protocol::Udp) && is_half_open(row)
}

/// Since the last packet that moved its expiry.
fn age(row: &Row, now: Ticks) -> Ticks {
    let left = row.expires.wrapping_sub(now) as i32;
    row.timeout.saturating_sub(left.max(0) as Ticks)
}
