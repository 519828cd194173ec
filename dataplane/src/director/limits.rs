//! A service's limits on new connections, before one is scheduled.

use sched::limit::Above;
use sched::service::Service;

use super::observer::{Observer, Step};
use super::{Director, Moment};
use crate::address::{Endpoint, address, bits};
use crate::connection::table::Key;
use crate::verdict::Reason;

impl<O: Observer> Director<O> {
    /// Why the service does not take one more connection now; none where it does.
    pub(super) fn above_limits(
        &mut self,
        moment: Moment<'_>,
        service: &Service,
        key: Key,
    ) -> Option<Reason> {
        let limiter = service.limiter.as_ref()?;
        let limits = limiter.limits();
        let network = limits.network(address(key.family, key.client.address));
        // Keyed by the table's seed: nobody can aim one network at another's bucket.
        let hash = self.table.hash(
            key.family,
            key.protocol,
            Endpoint {
                address: bits(network),
                port: 0,
            },
        );
        let above = limiter.admit(moment.now, hash.number()).err();
        self.observer.step(|| Step::Limits {
            limits: *limits,
            above,
        });
        above.map(|above| match above {
            Above::Service => Reason::ServiceLimit,
            Above::Source => Reason::SourceLimit,
        })
    }
}
