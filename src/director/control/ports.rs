//! Ports whose devices go and come back. The workers first decide by routes without the
//! device, then its sockets are closed; what comes back is opened before routes by it are
//! in force. A device that cannot be opened yet is tried again each second.

use dataplane::counters::Event;
use dataplane::hops::PortId;
use dataplane::port::ONE_CHUNK_MTU;

use super::{ADOPTION, Control};
use crate::director::clock;
use crate::director::neighbours::{PortDevice, View};
use crate::director::ports::health::{self, Health, Word};

/// How long it is until lost frames are spoken of again, s.
const SILENCE_S: u64 = 600;

/// Frames that were lost for their length.
#[derive(Debug, Default)]
pub(super) struct TooLong {
    /// All, when they were last spoken of; what an earlier process counted is no news.
    said: Option<u64>,
    said_at_s: u64,
}

impl TooLong {
    /// How many are to be spoken of now.
    fn news(&mut self, all: u64, now_s: u64) -> Option<u64> {
        let said = *self.said.get_or_insert(all);
        let is_quiet = self.said_at_s != 0 && now_s < self.said_at_s + SILENCE_S;
        if all <= said || is_quiet {
            return None;
        }
        (self.said, self.said_at_s) = (Some(all), now_s);
        Some(all - said)
    }
}

/// A port, as control has it.
#[derive(Debug)]
pub(super) struct Port {
    /// The device that it was last looked at as.
    device: PortDevice,
    /// Whether workers have its queues.
    is_plugged: bool,
    /// Why the device that is there could not be opened; said once.
    refusal: Option<String>,
    /// What was last said of it.
    health: Health,
    /// The devices by which its frames come.
    feeders: Vec<u32>,
    /// Why its queues are not followed; said once.
    unfollowed: Option<String>,
}

impl Port {
    /// As a director starts with it: open, on the first device of its name, or absent.
    pub(super) fn first(now: &PortDevice, is_plugged: bool) -> Self {
        Self {
            device: PortDevice {
                times_gone: 0,
                ..*now
            },
            is_plugged,
            refusal: None,
            health: Health::default(),
            feeders: Vec::new(),
            unfollowed: None,
        }
    }
}

impl Control {
    /// Takes up how the host routes now.
    pub(super) fn look_around(&mut self, view: View) {
        self.view = view;
        let have_gone = self.note_gone();
        self.publish();
        let _ = self.steer();
        if have_gone {
            // So that the workers have let go when the next device is opened.
            let mut heard = Vec::new();
            let generation = self.generation;
            self.workers
                .await_adoption(generation, ADOPTION, |report| heard.push(report));
            heard.into_iter().for_each(|report| self.hear(report));
        }
        self.open_returned();
        self.look_at_ports();
    }

    /// Says what has changed about the ports' devices, and has those that feed them followed.
    pub(super) fn look_at_ports(&mut self) {
        let largest = self.plant.largest_mtu();
        for (place, port) in self.port_states.iter_mut().enumerate() {
            let facts = self.view.facts.get(place).and_then(Option::as_ref);
            let (Some(facts), true) = (facts, port.is_plugged) else {
                port.health = Health::default();
                continue;
            };
            let words = port.health.change(&self.ports[place], facts, largest);
            words.iter().for_each(Word::say);
            if port.feeders != facts.feeders {
                self.plant.set_feeders(PortId(place as u8), &facts.feeders);
                port.feeders.clone_from(&facts.feeders);
            }
        }
    }

    /// Says which ports have the program outside of their drivers.
    pub(super) fn say_modes(&self) {
        for (place, port) in self.port_states.iter().enumerate() {
            if port.is_plugged {
                self.say_mode(place);
            }
        }
    }

    fn say_mode(&self, place: usize) {
        let facts = self.view.facts.get(place).and_then(Option::as_ref);
        let kind = facts.map(|facts| facts.kind).unwrap_or_default();
        if let Some(why) = self.plant.generic_because(PortId(place as u8)) {
            let takes_large = self.plant.largest_mtu() > ONE_CHUNK_MTU;
            health::generic_words(&self.ports[place], kind, &why, takes_large)
                .iter()
                .for_each(Word::say);
        }
    }

    /// Takes up queues that devices have got. Linux does not tell of them.
    pub(super) fn follow_queues(&mut self) {
        let mut is_news = false;
        for (place, port) in self.port_states.iter_mut().enumerate() {
            let facts = self.view.facts.get(place).and_then(Option::as_ref);
            let (Some(index), Some(facts), true) = (port.device.index, facts, port.is_plugged)
            else {
                continue;
            };
            let name = &self.ports[place];
            let followed = self
                .plant
                .follow_queues(PortId(place as u8), (index, facts));
            let refusal = match followed {
                Ok(None) => None,
                Ok(Some((before, now))) => {
                    health::queues_word(name, facts.kind, before, now, self.cores.len()).say();
                    is_news = true;
                    None
                }
                Err(why) => Some(why),
            };
            if let Some(why) = refusal
                .as_ref()
                .filter(|why| port.unfollowed.as_ref() != Some(why))
            {
                tracing::warn!(
                    "port {name} has other queues than at start, and they are not taken up: {why}; \
                     what comes by them is dropped as `steering_dropped`"
                );
            }
            port.unfollowed = refusal;
        }
        if is_news {
            self.publish();
        }
    }

    /// Says when frames were lost for their length, now and then.
    pub(super) fn look_for_long_frames(&mut self) {
        let all = self
            .counters
            .iter()
            .map(|counters| counters.events(Event::TooLong))
            .sum();
        let now_s = clock::monotonic().as_secs();
        if let Some(lost) = self.too_long.news(all, now_s) {
            let generic = (0..self.ports.len())
                .filter(|place| self.plant.generic_because(PortId(*place as u8)).is_some());
            let names: Vec<&str> = generic.map(|place| self.ports[place].as_str()).collect();
            health::too_long_word(lost, &names, self.plant.largest_mtu()).say();
        }
    }

    /// Lets go of ports whose devices have gone; whether there are any.
    pub(super) fn note_gone(&mut self) -> bool {
        let mut have_gone = false;
        for (place, now) in self.view.ports.iter().enumerate() {
            let Some(port) = self.port_states.get_mut(place) else {
                break;
            };
            let is_gone = now.times_gone != port.device.times_gone;
            let before = std::mem::replace(&mut port.device, *now);
            if !is_gone {
                continue;
            }
            port.refusal = None;
            if std::mem::replace(&mut port.is_plugged, false) {
                tracing::warn!(
                    "the device {} of port {} has gone: what would leave by it is dropped until \
                     one of that name is there again",
                    before.index.unwrap_or_default(),
                    self.ports[place]
                );
                self.plant.port_gone(PortId(place as u8));
                have_gone = true;
            }
        }
        have_gone
    }

    /// Opens the devices that took the place of those that went.
    pub(super) fn open_returned(&mut self) {
        let mut have_come = Vec::new();
        for (place, port) in self.port_states.iter_mut().enumerate() {
            let (Some(index), false) = (port.device.index, port.is_plugged) else {
                continue;
            };
            let name = &self.ports[place];
            match self.plant.port_back(PortId(place as u8), index) {
                Ok(()) => {
                    tracing::info!("port {name} is back, as device {index}, and open");
                    port.is_plugged = true;
                    port.refusal = None;
                    have_come.push(place);
                }
                Err(why) if port.refusal.as_ref() == Some(&why) => {}
                Err(why) => {
                    tracing::error!(
                        "port {name} is back, as device {index}, but is not opened: {why}; trying \
                         again each second"
                    );
                    port.refusal = Some(why);
                }
            }
        }
        if !have_come.is_empty() {
            self.publish();
        }
        have_come.into_iter().for_each(|place| self.say_mode(place));
    }

    /// Ports that cannot send now.
    pub(super) fn ports_away(&self) -> u64 {
        let away = self.port_states.iter().filter(|port| !port.is_plugged);
        away.count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_frames_are_spoken_of_now_and_then() {
        let mut lost = TooLong::default();
        let rows = [
            ("an earlier process's", 7, 1000, None),
            ("nothing new", 7, 1001, None),
            ("the first", 9, 1002, Some(2)),
            ("more, at once", 12, 1003, None),
            ("more, later", 20, 1002 + SILENCE_S, Some(11)),
            ("no more, much later", 20, 9000, None),
        ];
        for (what, all, now_s, expected) in rows {
            assert_eq!(lost.news(all, now_s), expected, "{what}");
        }
    }
}
