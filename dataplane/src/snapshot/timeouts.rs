//! How long connections may idle, in ticks: reckoned once for a snapshot, not for each packet.

use sched::service::Protocol;

use crate::connection::state;
use crate::time::{Ticks, ticks};
use crate::tunables::Tunables;

/// States of each protocol, up to a power of two: a state's number is cut to fit.
const STATES: usize = 16;

/// By protocol, then by state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timeouts([[Ticks; STATES]; 3]);

impl Timeouts {
    pub(super) fn new(tunables: &Tunables) -> Self {
        let row = |protocol| {
            std::array::from_fn(|state| ticks(state::timeout_s(protocol, state as u8, tunables)))
        };
        Self([Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(row))
    }

    #[inline(always)]
    pub(super) fn of(&self, protocol: Protocol, state: u8) -> Ticks {
        let row = match protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
            Protocol::Sctp => 2,
        };
        self.0[row][usize::from(state) % STATES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_those_of_the_states() {
        let tunables = Tunables {
            timeout_tcp_s: 1000,
            timeout_udp_s: 77,
            ..Tunables::default()
        };
        let timeouts = Timeouts::new(&tunables);
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            for state in 0..STATES as u8 {
                let wanted = ticks(state::timeout_s(protocol, state, &tunables));
                assert_eq!(timeouts.of(protocol, state), wanted, "{protocol:?} {state}");
            }
        }
    }
}
