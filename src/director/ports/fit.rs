//! What a port's device is among the host's links: whether it can be a port at all, how its
//! program must run, by which other devices its frames come, and how many queues they have.

use dataplane::port::device::{self, Device};

use crate::director::neighbours::links::{Kind, Links, Master, PortFacts};

/// Why a bond's program runs in generic mode.
const ONLY_THERE: &str = "in its members' drivers the frames are the members', not the bond's";

/// Why a device cannot be a port, where another can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Another device takes its frames.
    #[error(
        "{device} is a member of the {} {}, which takes its frames: give that instead (`--port {}`)",
        master.kind.word(), master.name, master.name
    )]
    Member {
        /// The device.
        device: String,
        /// What takes its frames.
        master: Master,
    },
    /// Frames with its tag come to the program of the device below it.
    #[error(
        "{0} is a VLAN device: give the device below it as the port (`ip -d link show {0}` names it \
         after the @), lvx serves its VLANs with it"
    )]
    Vlan(String),
}

/// Fits a device, as it was found by itself, in among the links.
///
/// # Errors
/// Another device is the one to give.
pub fn fit(device: &mut Device, links: &Links) -> Result<(), Unfit> {
    let Some(facts) = links.port(device.index) else {
        return Ok(());
    };
    if let Some(master) = facts.master {
        let device = device.name.clone();
        return Err(Unfit::Member { device, master });
    }
    if facts.kind == Kind::Vlan {
        return Err(Unfit::Vlan(device.name.clone()));
    }
    device.generic_because = only_generic(facts.kind);
    device.queues = queues(&facts, device.queues, device::queues_of);
    device.feeders = facts.feeders;
    Ok(())
}

/// Why the program cannot run in the drivers of devices of this kind.
fn only_generic(kind: Kind) -> Option<&'static str> {
    matches!(kind, Kind::Bond | Kind::Team).then_some(ONLY_THERE)
}

/// The queues of the device with this index, as they are now.
pub fn queues_now(index: u32, facts: &PortFacts) -> u32 {
    let own = device::queues_of(index).unwrap_or(1);
    queues(facts, own, device::queues_of)
}

/// The queues on which a port's frames may come: its own, as it says, but for devices whose
/// frames keep the number of the queue of another device that they came by.
fn queues(facts: &PortFacts, own: u32, queues_of: impl Fn(u32) -> Option<u32>) -> u32 {
    let keeps = matches!(facts.kind, Kind::Bond | Kind::Team);
    let fed = facts.feeders.iter().filter_map(|feeder| queues_of(*feeder));
    match fed.max().filter(|_| keeps) {
        Some(most) => most.clamp(1, facts.queues.max(1)),
        None => own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_of_devices_that_are_fed_by_others() {
        let facts = |kind, feeders: &[u32], queues| PortFacts {
            kind,
            feeders: feeders.to_vec(),
            queues,
            ..PortFacts::default()
        };
        // Device n has n queues; 9 does not say.
        let rows = [
            ("a card", facts(Kind::Plain, &[], 4), 4, 4),
            (
                "a bridge has its own",
                facts(Kind::Bridge, &[2, 3], 1),
                1,
                1,
            ),
            (
                "a bond: the most of its members",
                facts(Kind::Bond, &[2, 3], 16),
                1,
                3,
            ),
            ("a bond without members", facts(Kind::Bond, &[], 16), 1, 1),
            ("a bond made with few", facts(Kind::Bond, &[8], 4), 1, 4),
            ("members that do not say", facts(Kind::Bond, &[9], 16), 1, 1),
            ("a macvlan has its own", facts(Kind::Macvlan, &[4], 1), 1, 1),
        ];
        for (what, facts, own, expected) in rows {
            let queues_of = |device| (device != 9).then_some(device);
            assert_eq!(queues(&facts, own, queues_of), expected, "{what}");
        }
    }

    #[test]
    fn a_member_names_its_master() {
        let master = Master {
            kind: Kind::Bridge,
            name: "br0".into(),
        };
        let member = Unfit::Member {
            device: "eth0".into(),
            master,
        };
        assert_eq!(
            member.to_string(),
            "eth0 is a member of the bridge br0, which takes its frames: give that instead \
             (`--port br0`)"
        );
    }
}
