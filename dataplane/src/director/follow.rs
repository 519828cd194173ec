//! A connection's state after a packet, and the counts and timers that go with it.

use sched::server::Counted;
use sched::service::Protocol;

use super::observer::{Observer, Step};
use super::{Director, Moment};
use crate::connection::state::{self, Direction};
use crate::connection::table::{Cache, Connection, Handle, Table};
use crate::connection::word::Word;
use crate::frame::tcp_flag;
use crate::time::{TICKS_PER_S, Ticks};

impl<O: Observer> Director<O> {
    /// Moves a connection, whose word was just read, on by one packet; `event` is what of the
    /// packet counts for the state ([`Packet::event`](crate::frame::Packet::event)).
    #[inline(always)]
    pub(super) fn follow(
        &self,
        moment: Moment<'_>,
        (connection, word): (Connection<'_>, Word),
        direction: Direction,
        event: u8,
        protocol: Protocol,
    ) {
        match steady(word, direction, event, protocol) {
            Some(state) => {
                // TCP's template was assured when the connection came into this state.
                if protocol == Protocol::Udp {
                    self.assure_by(connection, direction, protocol, state);
                }
                self.stay(moment, connection, protocol, state);
            }
            None => self.proceed(moment, connection, direction, event, protocol),
        }
    }

    /// "Cold" so that the short way keeps nothing in registers for this call.
    #[cold]
    #[inline(never)]
    fn proceed(
        &self,
        moment: Moment<'_>,
        connection: Connection<'_>,
        direction: Direction,
        event: u8,
        protocol: Protocol,
    ) {
        if let Some(word) = self.change(moment, connection, direction, event, protocol) {
            self.assure_by(connection, direction, protocol, word.state());
            self.stay(moment, connection, protocol, word.state());
        }
    }

    /// Lets the connection's template know that its client is real, where the packet proves it.
    #[inline(always)]
    fn assure_by(
        &self,
        connection: Connection<'_>,
        direction: Direction,
        protocol: Protocol,
        state: u8,
    ) {
        if connection.has_template() && state::assures(protocol, direction, state) {
            self.assure(connection);
        }
    }

    /// What a packet does to a connection beside its state, which is `state` by now.
    #[inline(always)]
    fn stay(&self, moment: Moment<'_>, connection: Connection<'_>, protocol: Protocol, state: u8) {
        let timeout = moment.snapshot.timeout(protocol, state);
        self.observer.step(|| Step::State {
            protocol,
            state,
            timeout_s: timeout / TICKS_PER_S,
        });
        if connection.timeout() == timeout {
            connection.touch(moment.now.wrapping_add(timeout));
        } else {
            self.set_timeout(connection, moment.now, timeout);
        }
    }

    #[cold]
    #[inline(never)]
    fn set_timeout(&self, connection: Connection<'_>, now: Ticks, timeout: Ticks) {
        connection.set_timeout(now, timeout);
    }

    /// The state and flags after the packet; none where the connection just ended.
    fn change(
        &self,
        moment: Moment<'_>,
        connection: Connection<'_>,
        direction: Direction,
        event: u8,
        protocol: Protocol,
    ) -> Option<Word> {
        let secure = moment.snapshot.tunables.secure_tcp == 3;
        let mut old = Word(connection.word());
        loop {
            if old.is_ended() {
                return None;
            }
            let new = next(old, direction, event, protocol, secure);
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

    #[cold]
    #[inline(never)]
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

    #[cold]
    #[inline(never)]
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

/// The state of a connection whose word a packet leaves as it is: asked without the tables, as
/// nearly all packets are of these two kinds. None where [`next`] might change the word, or
/// the connection has ended.
#[inline(always)]
fn steady(word: Word, direction: Direction, event: u8, protocol: Protocol) -> Option<u8> {
    let (state, is_inactive) = match protocol {
        Protocol::Tcp => (state::tcp::ESTABLISHED, false),
        Protocol::Udp => (state::udp::NORMAL, true),
        Protocol::Sctp => return None,
    };
    let is_usual = protocol == Protocol::Udp || event & tcp_flag::DECISIVE == tcp_flag::ACK;
    // A reply makes a connection two-sided that was not.
    let may_be_one_sided = direction == Direction::Input;
    (is_usual && word.is_in(state, is_inactive, may_be_one_sided)).then_some(state)
}

#[inline(always)]
fn next(old: Word, direction: Direction, event: u8, protocol: Protocol, secure: bool) -> Word {
    let (direction, base) = match (direction, old.is_one_sided()) {
        (Direction::Output, true) => (direction, old.two_sided()),
        (Direction::Input, true) => (Direction::InputOnly, old),
        _ => (direction, old),
    };
    let state = match protocol {
        Protocol::Tcp => state::next_tcp(old.state(), direction, event, secure),
        Protocol::Udp => state::next_udp(old.state()),
        Protocol::Sctp => state::next_sctp(old.state(), direction, event),
    };
    base.with_state(state)
        .with_inactive(!state::is_active(protocol, state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::word::Method;

    #[test]
    fn what_is_steady_does_not_change() {
        let mut steady = 0;
        for method in [Method::Masquerade, Method::Route] {
            let words = (0..=255).flat_map(|state| {
                let word = Word::new(method).with_state(state);
                let active = word.with_inactive(false);
                [
                    word,
                    active,
                    word.two_sided(),
                    active.two_sided(),
                    active.ended(),
                ]
            });
            for word in words {
                for direction in [Direction::Input, Direction::Output] {
                    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                        for event in 0..=255 {
                            let kept = super::steady(word, direction, event, protocol);
                            let Some(state) = kept else { continue };
                            assert_eq!(state, word.state());
                            steady += 1;
                            for secure in [false, true] {
                                let after = next(word, direction, event, protocol, secure);
                                assert_eq!(after, word, "{direction:?} {protocol:?} {event}");
                            }
                        }
                    }
                }
            }
        }
        assert!(steady > 500, "only {steady} cases are steady");
    }
}
