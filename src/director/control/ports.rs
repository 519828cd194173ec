//! Ports whose devices go and come back. The workers first decide by routes without the
//! device, then its sockets are closed; what comes back is opened before routes by it are
//! in force. A device that cannot be opened yet is tried again each second.

use dataplane::hops::PortId;

use super::{ADOPTION, Control};
use crate::director::neighbours::{PortDevice, View};

/// A port, as control has it.
#[derive(Debug)]
pub(super) struct Port {
    /// The device that it was last looked at as.
    device: PortDevice,
    /// Whether workers have its queues.
    is_plugged: bool,
    /// Why the device that is there could not be opened; said once.
    refusal: Option<String>,
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
        let mut have_come = false;
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
                    have_come = true;
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
        if have_come {
            self.publish();
        }
    }

    /// Ports that cannot send now.
    pub(super) fn ports_away(&self) -> u64 {
        let away = self.port_states.iter().filter(|port| !port.is_plugged);
        away.count() as u64
    }
}
