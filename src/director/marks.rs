//! Firewall marks by destination: what `lvx fwmark` edits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;

use sched::command::{FwmarkRule, Limited, Refusal};
use sched::service::Protocol;

/// A destination that bears a mark; port 0 stands for every port.
pub type Place = (IpAddr, Protocol, u16);

/// The most destinations with marks.
const PLACES_MAX: usize = 65_536;

/// Which destinations bear which mark: at most one each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks(BTreeMap<Place, NonZeroU32>);

impl Marks {
    /// Marks a rule's destinations.
    pub fn add(&mut self, rule: &FwmarkRule) -> Result<(), Refusal> {
        let places = places(rule)?;
        for place in &places {
            if let Some(mark) = self.0.get(place) {
                let (address, protocol, port) = place;
                return Err(invalid(format!(
                    "{protocol:?} {address} port {port} bears mark {mark} already; delete that first"
                )));
            }
        }
        if self.0.len() + places.len() > PLACES_MAX {
            return Err(Refusal::Limit {
                what: Limited::Marks,
                limit: PLACES_MAX as u64,
            });
        }
        self.0
            .extend(places.into_iter().map(|place| (place, rule.mark)));
        Ok(())
    }

    /// Takes the mark off a rule's destinations, all of which must bear it.
    pub fn delete(&mut self, rule: &FwmarkRule) -> Result<(), Refusal> {
        let places = places(rule)?;
        if let Some((address, protocol, port)) =
            places.iter().find(|p| self.0.get(p) != Some(&rule.mark))
        {
            return Err(invalid(format!(
                "{protocol:?} {address} port {port} does not bear mark {}",
                rule.mark
            )));
        }
        places.iter().for_each(|place| _ = self.0.remove(place));
        Ok(())
    }

    /// The destinations and their marks.
    pub fn places(&self) -> impl Iterator<Item = (&Place, NonZeroU32)> {
        self.0.iter().map(|(place, mark)| (place, *mark))
    }

    /// As rules: one for each mark, address and protocol, in this order.
    pub fn rules(&self) -> Vec<FwmarkRule> {
        let mut rules: BTreeMap<(NonZeroU32, IpAddr, Protocol), Vec<u16>> = BTreeMap::new();
        for (&(address, protocol, port), &mark) in &self.0 {
            rules
                .entry((mark, address, protocol))
                .or_default()
                .push(port);
        }
        let rule = |((mark, address, protocol), ports)| FwmarkRule {
            mark,
            address,
            protocol,
            ports,
        };
        rules.into_iter().map(rule).collect()
    }
}

fn places(rule: &FwmarkRule) -> Result<Vec<Place>, Refusal> {
    let mut ports = rule.ports.clone();
    ports.sort_unstable();
    ports.dedup();
    if ports.is_empty() {
        return Err(invalid(
            "a mark needs a port; 0 stands for every port".into(),
        ));
    }
    let place = |port| (rule.address, rule.protocol, port);
    Ok(ports.into_iter().map(place).collect())
}

fn invalid(what: String) -> Refusal {
    Refusal::Invalid { what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(mark: u32, ports: &[u16]) -> FwmarkRule {
        FwmarkRule {
            mark: NonZeroU32::new(mark).unwrap(),
            address: "10.0.0.1".parse().unwrap(),
            protocol: Protocol::Tcp,
            ports: ports.to_vec(),
        }
    }

    #[test]
    fn a_destination_bears_one_mark() {
        let mut marks = Marks::default();
        marks.add(&rule(1, &[443, 80])).unwrap();
        assert_eq!(marks.rules(), [rule(1, &[80, 443])]);
        let before = marks.clone();
        for refused in [rule(2, &[8080, 80]), rule(1, &[80]), rule(3, &[])] {
            assert!(marks.add(&refused).is_err(), "{refused:?}");
            assert_eq!(marks, before);
        }
        for refused in [rule(2, &[80]), rule(1, &[80, 81]), rule(1, &[])] {
            assert!(marks.delete(&refused).is_err(), "{refused:?}");
            assert_eq!(marks, before);
        }
        marks.delete(&rule(1, &[80])).unwrap();
        assert_eq!(marks.rules(), [rule(1, &[443])]);
    }
}
