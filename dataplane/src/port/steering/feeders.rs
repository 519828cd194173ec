//! Devices by which the frames of ports in generic mode come: members, the device below. They
//! are kept from joining received packets to larger ones (GRO) for as long as they are such:
//! generic mode sees packets after that, and joined ones fit no frame.
//!
//! Which devices were changed is pinned beside the links, as folders of their names: who takes
//! up what a killed process left puts them back at its end.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Mode, Steering};
use crate::hops::PortId;
use crate::port::device;

/// What a folder's name begins with that says: this device joined packets before.
const MARK: &str = "joined-";

/// The devices that do not join packets now and did before.
#[derive(Debug, Default)]
pub(super) struct Quieted {
    devices: BTreeSet<u32>,
    folder: Option<PathBuf>,
}

impl Quieted {
    /// What an earlier process left under its pins.
    pub(super) fn found(folder: &Path) -> Self {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let number = |name: String| name.strip_prefix(MARK)?.parse().ok();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        Self {
            devices: names.filter_map(number).collect(),
            folder: Some(folder.to_owned()),
        }
    }

    /// From now on these devices join nothing; those of before that are not among them do again.
    fn set(&mut self, wanted: &BTreeSet<u32>) {
        let over: Vec<u32> = self.devices.difference(wanted).copied().collect();
        over.into_iter().for_each(|device| self.restore(device));
        let new: Vec<u32> = wanted.difference(&self.devices).copied().collect();
        for device in new {
            // One that cannot be asked joins nothing.
            if device::stop_joining(device).unwrap_or(false) {
                self.devices.insert(device);
                if let Some(mark) = self.mark(device) {
                    let _ = fs::create_dir(mark);
                }
            }
        }
    }

    fn restore(&mut self, device: u32) {
        // It may have gone; then there is nothing to put back.
        let _ = device::let_join(device);
        self.devices.remove(&device);
        if let Some(mark) = self.mark(device) {
            let _ = fs::remove_dir(mark);
        }
    }

    fn mark(&self, device: u32) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?;
        Some(folder.join(format!("{MARK}{device}")))
    }

    /// Puts all back.
    pub(super) fn end(&mut self) {
        self.set(&BTreeSet::new());
    }

    /// Leaves all as it is, for those who come later.
    pub(super) fn leave(&mut self) {
        self.devices.clear();
    }
}

impl Steering {
    /// Says by which other devices the frames of a port come now.
    pub fn set_feeders(&mut self, port: PortId, feeders: &[u32]) {
        let Some(attached) = self.ports.get_mut(usize::from(port.0)) else {
            return;
        };
        attached.device.feeders = feeders.to_vec();
        self.quiet_feeders();
    }

    /// Has the devices that feed ports in generic mode, and only those, join no packets.
    pub(super) fn quiet_feeders(&mut self) {
        let generic = self
            .ports
            .iter()
            .filter(|port| matches!(port.mode, Mode::Generic(_)));
        let wanted = generic.flat_map(|port| port.device.feeders.iter().copied());
        self.quieted.set(&wanted.collect());
    }
}
