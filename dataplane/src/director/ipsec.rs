//! Packets of IPsec (ESP and AH) go where their keys were exchanged, and keep that connection
//! alive; see [`crate::frame::ipsec`]. They begin none, and change no state: whose key exchange
//! is not known, theirs are the host's.

use sched::service::Protocol;

use super::inbound::{Course, Found, key};
use super::observer::Observer;
use super::{Director, Moment};
use crate::connection::table::Connection;
use crate::frame::ipsec::{self, is_ipsec};
use crate::frame::{Frame, Packet};
use crate::verdict::Verdict;

impl<O: Observer> Director<O> {
    /// A packet of a protocol that no service has.
    #[cold]
    #[inline(never)]
    pub(super) fn unbalanced(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
    ) -> Verdict {
        if !is_ipsec(packet.protocol) {
            return self.host(frame, packet);
        }
        let from_server = self.secured_reply(moment, frame, packet);
        from_server
            .or_else(|| self.secured(moment, frame, packet))
            .unwrap_or_else(|| self.host(frame, packet))
    }

    /// The verdict on a fragment, or none where it is to wait for its fellows. IPVS gathers none
    /// of these protocols' (`dont_defrag`), but its host does what is for itself.
    #[cold]
    pub(super) fn secured_fragment(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
    ) -> Option<Verdict> {
        if let Some(verdict) = self.secured_reply(moment, frame, packet) {
            return Some(verdict);
        }
        let is_strangers = self.find(key(packet)).is_none();
        is_strangers.then(|| self.host(frame, packet))
    }

    /// From a client.
    fn secured(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
    ) -> Option<Verdict> {
        let handle = self.find(key(packet))?;
        match self.judge(moment, handle, packet, Protocol::Udp) {
            Found::Use(_) => {}
            Found::Anew => return None,
            Found::Drop(reason) => return Some(Verdict::Drop(reason)),
        }
        let connection = self.table.view(handle);
        renew(moment, connection);
        let course = Course::of(connection);
        Some(self.forward(moment, frame, packet, course))
    }

    /// From a masquerading server.
    fn secured_reply(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
    ) -> Option<Verdict> {
        let (number, real, client) =
            ipsec::looked_for(packet.protocol, packet.source, packet.destination);
        let handle = self.find_reply(packet.family, number, client, real)?;
        let note = |_: &Self, connection: Connection<'_>| renew(moment, connection);
        Some(self.send_back(moment, frame, packet, handle, note))
    }
}

/// Linux's `ip_vs_conn_put`: by the timeout that the connection has.
fn renew(moment: Moment<'_>, connection: Connection<'_>) {
    connection.touch(moment.now.wrapping_add(connection.timeout()));
}
