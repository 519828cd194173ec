//! Which state a connection is in, how long it may idle there, and whether it counts as
//! active: as the kernel's IPVS has it, because schedulers, listings and operators'
//! habits all depend on it. IPVS does not check sequence numbers, and neither does this:
//! one event per packet, one step.
//!
//! The tables were measured, not read: `scripts/measure-states.py` puts a kernel's
//! connections into every state and sends each event; its output is
//! `tests/data/states.tsv`, which `tests/states.rs` replays. Random walks of real packets
//! (7,200 steps) met no other step.

use sched::service::Protocol;

use crate::tunables::Tunables;

pub mod sctp;
pub mod tcp;
pub mod udp;

pub use sctp::{event_chunk, next as next_sctp};
pub use tcp::next as next_tcp;
pub use udp::next as next_udp;

/// Which way a packet goes, and whether the other way passes here at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the client; replies pass here as well (masquerading).
    Input,
    /// From the real server (masquerading).
    Output,
    /// From the client; replies do not pass here (direct routing, tunnels).
    InputOnly,
}

/// How long a connection in `state` may idle, s. `--set` changes ESTABLISHED and FIN_WAIT
/// of TCP, and UDP; nothing else.
#[inline]
pub fn timeout_s(protocol: Protocol, state: u8, tunables: &Tunables) -> u32 {
    match protocol {
        Protocol::Tcp => match state {
            tcp::ESTABLISHED => tunables.timeout_tcp_s,
            tcp::FIN_WAIT => tunables.timeout_tcp_fin_s,
            _ => tcp::TIMEOUTS_S[tcp::index(state)],
        },
        Protocol::Udp => tunables.timeout_udp_s,
        Protocol::Sctp => sctp::TIMEOUTS_S[sctp::index(state)],
    }
}

/// The state as `ipvsadm -L -n -c` prints it. `protocol` is an IP protocol number, 0 for
/// the templates of firewall marks.
pub fn name(protocol: u8, template: bool, state: u8) -> &'static str {
    if template {
        return template::NAMES[usize::from(state & template::ASSURED)];
    }
    match Protocol::from_number(protocol) {
        Some(Protocol::Tcp) => tcp::NAMES[tcp::index(state)],
        Some(Protocol::Udp) => udp::NAME,
        Some(Protocol::Sctp) => sctp::NAMES[sctp::index(state)],
        None => "NONE",
    }
}

/// Whether a connection counts as active (`ActiveConn`), which schedulers weigh.
#[inline]
pub fn is_active(protocol: Protocol, state: u8) -> bool {
    match protocol {
        Protocol::Tcp => matches!(
            state,
            tcp::ESTABLISHED | tcp::SYN_SENT | tcp::SYN_RECV | tcp::SYNACK
        ),
        Protocol::Udp => false,
        Protocol::Sctp => state == sctp::ESTABLISHED,
    }
}

/// Whether a packet that brought a connection into `state` proves its client real, and so
/// makes its template ASSURED: the first reply of UDP, ESTABLISHED of the others. A UDP
/// client under direct routing is never proven.
#[inline]
pub fn assures(protocol: Protocol, direction: Direction, state: u8) -> bool {
    match protocol {
        Protocol::Tcp => state == tcp::ESTABLISHED,
        Protocol::Udp => direction == Direction::Output,
        Protocol::Sctp => state == sctp::ESTABLISHED,
    }
}

/// Whether a SYN (or INIT) that meets a connection in `state` ends it and is scheduled
/// anew (`conn_reuse_mode`): 0 never; any other value where the connection is over; with
/// bit 1 also in FIN_WAIT where replies are not seen.
pub fn may_restart(protocol: Protocol, direction: Direction, state: u8, reuse_mode: u32) -> bool {
    if reuse_mode == 0 {
        return false;
    }
    match (protocol, state) {
        (Protocol::Tcp, tcp::TIME_WAIT | tcp::CLOSE) => true,
        (Protocol::Tcp, tcp::FIN_WAIT) => reuse_mode & 2 != 0 && direction == Direction::InputOnly,
        (Protocol::Sctp, state) => state == sctp::CLOSED,
        _ => false,
    }
}

/// States of a persistence template.
pub mod template {
    /// No connection of the client has got as far as to be believed.
    pub const NONE: u8 = 0;
    /// One has: the client is real, and the template is worth keeping.
    pub const ASSURED: u8 = 1;

    pub(super) const NAMES: [&str; 2] = ["NONE", "ASSURED"];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(tcp: u32, tcp_fin: u32, udp: u32) -> Tunables {
        Tunables {
            timeout_tcp_s: tcp,
            timeout_tcp_fin_s: tcp_fin,
            timeout_udp_s: udp,
            ..Tunables::default()
        }
    }

    #[test]
    fn set_changes_three_states_and_no_other() {
        let (before, after) = (Tunables::default(), set(1000, 700, 800));
        for (protocol, states) in [
            (Protocol::Tcp, 11),
            (Protocol::Udp, 1),
            (Protocol::Sctp, 14),
        ] {
            for state in 0..states {
                let want = match (protocol, state) {
                    (Protocol::Tcp, tcp::ESTABLISHED) => 1000,
                    (Protocol::Tcp, tcp::FIN_WAIT) => 700,
                    (Protocol::Udp, _) => 800,
                    _ => timeout_s(protocol, state, &before),
                };
                let got = timeout_s(protocol, state, &after);
                assert_eq!(got, want, "{protocol:?} {state}");
            }
        }
    }

    #[test]
    fn a_connection_restarts_only_where_it_is_over() {
        use Direction::{Input, InputOnly};
        // What tests/oracle-extra's reuse-* scenarios show of the kernel.
        for (protocol, direction, state, modes) in [
            (
                Protocol::Tcp,
                Input,
                tcp::TIME_WAIT,
                [false, true, true, true],
            ),
            (Protocol::Tcp, Input, tcp::CLOSE, [false, true, true, true]),
            (
                Protocol::Tcp,
                InputOnly,
                tcp::FIN_WAIT,
                [false, false, true, true],
            ),
            (Protocol::Tcp, Input, tcp::FIN_WAIT, [false; 4]),
            (Protocol::Tcp, Input, tcp::SYN_RECV, [false; 4]),
            (Protocol::Tcp, InputOnly, tcp::ESTABLISHED, [false; 4]),
            (
                Protocol::Sctp,
                Input,
                sctp::CLOSED,
                [false, true, true, true],
            ),
            (Protocol::Sctp, Input, sctp::REJECTED, [false; 4]),
            (Protocol::Udp, InputOnly, udp::NORMAL, [false; 4]),
        ] {
            for (mode, want) in (0..).zip(modes) {
                let got = may_restart(protocol, direction, state, mode);
                assert_eq!(got, want, "{protocol:?} {direction:?} {state} mode {mode}");
            }
        }
    }

    #[test]
    fn a_client_is_proven_by_establishing_or_by_a_udp_reply() {
        use Direction::{Input, InputOnly, Output};
        for (protocol, direction, state, want) in [
            (Protocol::Tcp, Output, tcp::SYN_RECV, false),
            (Protocol::Tcp, Output, tcp::CLOSE, false),
            (Protocol::Tcp, Input, tcp::ESTABLISHED, true),
            (Protocol::Tcp, InputOnly, tcp::ESTABLISHED, true),
            (Protocol::Udp, Input, udp::NORMAL, false),
            (Protocol::Udp, InputOnly, udp::NORMAL, false),
            (Protocol::Udp, Output, udp::NORMAL, true),
            (Protocol::Sctp, Input, sctp::COOKIE_REPLIED, false),
            (Protocol::Sctp, Output, sctp::ESTABLISHED, true),
        ] {
            let got = assures(protocol, direction, state);
            assert_eq!(got, want, "{protocol:?} {direction:?} {state}");
        }
    }

    #[test]
    fn a_template_is_named_by_its_assurance() {
        for protocol in [0, 6, 17, 132] {
            assert_eq!(name(protocol, true, template::NONE), "NONE");
            assert_eq!(name(protocol, true, template::ASSURED), "ASSURED");
        }
    }

    #[test]
    fn numbers_that_are_no_state_do_no_harm() {
        for state in 0..=u8::MAX {
            for direction in [Direction::Input, Direction::Output, Direction::InputOnly] {
                assert!(next_tcp(state, direction, 0x02, true) <= tcp::SYNACK);
                assert!(next_sctp(state, direction, 1) <= sctp::CLOSED);
            }
            assert_eq!(next_udp(state), udp::NORMAL);
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                assert!(timeout_s(protocol, state, &Tunables::default()) > 0);
            }
        }
    }
}
