//! A connection's state after a packet, and the counts and timers that go with it.

use sched::server::Counted;
use sched::service::Protocol;

use super::observer::{Observer, Step};
use super::{Director, Moment};
use crate::connection::state::{self, Direction};
use crate::connection::table::{Cache, Connection, Handle, Table};
use crate::connection::word::Word;
use crate::frame::Packet;
use crate::time::ticks;

impl<O: Observer> Director<O> {
    /// Moves a connection on by one packet.
    pub(super) fn follow(
        &self,
        moment: Moment<'_>,
        handle: Handle,
        direction: Direction,
        packet: &Packet,
        protocol: Protocol,
    ) {
        let connection = self.table.view(handle);
        let Some(word) = self.transit(moment, connection, direction, packet, protocol) else {
            return;
        };
        if state::assures(protocol, direction, word.state()) {
            self.assure(connection);
        }
        let timeout_s = state::timeout_s(protocol, word.state(), &moment.snapshot.tunables);
        let timeout = ticks(timeout_s);
        self.observer.step(|| Step::State {
            protocol,
            state: word.state(),
            timeout_s,
        });
        if connection.timeout() == timeout {
            connection.touch(moment.now);
        } else {
            connection.set_timeout(moment.now, timeout);
        }
    }

    /// The state and flags after the packet; none where the connection just ended.
    fn transit(
        &self,
        moment: Moment<'_>,
        connection: Connection<'_>,
        direction: Direction,
        packet: &Packet,
        protocol: Protocol,
    ) -> Option<Word> {
        let mut old = Word(connection.word());
        loop {
            if old.is_ended() {
                return None;
            }
            let new = next(old, direction, packet, protocol, moment);
            if new == old {
                return Some(new);
            }
            match connection.replace_word(old.0, new.0) {
                Ok(()) => {
                    self.recount(moment, connection, old, new);
                    return Some(new);
                }
                Err(other) => old = Word(other),
            }
        }
    }

    fn recount(&self, moment: Moment<'_>, connection: Connection<'_>, old: Word, new: Word) {
        let Some(slot) = moment.snapshot.server(connection.server()) else {
            return;
        };
        match (old.is_inactive(), new.is_inactive()) {
            (true, false) => slot.server.activate(),
            (false, true) => slot.server.deactivate(),
            _ => {}
        }
    }

    fn assure(&self, connection: Connection<'_>) {
        let Some(template) = connection.template() else {
            return;
        };
        let template = self.table.view(template);
        let word = Word(template.word());
        if word.state() != state::template::ASSURED {
            // Where another packet was quicker, it set the same.
            let _ = template.replace_word(word.0, word.with_state(state::template::ASSURED).0);
        }
    }

    /// Takes a connection (or template) out of the table and out of its server's counts.
    pub(super) fn end(&mut self, moment: Moment<'_>, handle: Handle) {
        end(&self.table, &mut self.cache, moment, handle);
    }
}

/// See [`Director::end`].
pub(super) fn end(table: &Table, cache: &mut Cache, moment: Moment<'_>, handle: Handle) {
    let connection = table.view(handle);
    let template = connection.key().template;
    if !table.remove(cache, handle) {
        return;
    }
    let mut word = Word(connection.word());
    while let Err(other) = connection.replace_word(word.0, word.ended().0) {
        word = Word(other);
    }
    if let Some(slot) = moment.snapshot.server(connection.server()) {
        slot.server.unbind(counted(template, word));
    }
}

/// As what an entry counts.
fn counted(template: bool, word: Word) -> Counted {
    match (template, word.is_inactive()) {
        (true, _) => Counted::Template,
        (false, true) => Counted::Inactive,
        (false, false) => Counted::Active,
    }
}

fn next(
    old: Word,
    direction: Direction,
    packet: &Packet,
    protocol: Protocol,
    moment: Moment<'_>,
) -> Word {
    let (direction, base) = match (direction, old.is_one_sided()) {
        (Direction::Output, true) => (direction, old.two_sided()),
        (Direction::Input, true) => (Direction::InputOnly, old),
        _ => (direction, old),
    };
    let state = match protocol {
        Protocol::Tcp => {
            let secure = moment.snapshot.tunables.secure_tcp == 3;
            state::next_tcp(old.state(), direction, packet.tcp_flags, secure)
        }
        Protocol::Udp => state::next_udp(old.state()),
        Protocol::Sctp => state::next_sctp(old.state(), direction, packet.sctp_chunk),
    };
    base.with_state(state)
        .with_inactive(!state::is_active(protocol, state))
}
