//! The steering program, pinned: it is put under pins, and taken up from those that a killed
//! process left.
//!
//! In the pins' folder: a folder for each version of the program with its maps, and the
//! links, `link-DEVICE-MODE`. A link outlives versions: it is given to the new program in
//! one step.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::Pod;
use aya::maps::{HashMap as BpfMap, Map, MapData};
use aya::programs::Xdp;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya_obj::programs::XdpAttachType;

use super::error::{one_line, pin_failed};
use super::feeders::Quieted;
use super::pins::Pins;
use super::prefixes;
use super::rules::{Contents, filter_of, known_of};
use super::{
    Attached, Content, MAPS, Maps, Mode, OBJECT, PORTS_MAX, Program, Steering, SteeringError,
    SteeringOptions, check_free, map, program_on,
};
use crate::port::device::Device;

/// What a folder's name begins with that holds a version of the program.
const VERSION: &str = "program-";

impl Pins {
    fn version(&self, options: SteeringOptions) -> PathBuf {
        self.folder()
            .join(format!("{VERSION}{:016x}", version(options)))
    }

    /// The folders of all versions but `own`.
    fn other_versions(&self, own: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        paths
            .filter(|path| is_version(path) && path != own)
            .collect()
    }

    fn links(&self) -> Vec<Found> {
        let entries = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| Found::open(entry.path()))
            .collect()
    }
}

/// A pinned link.
#[derive(Debug)]
pub(super) struct Link {
    path: PathBuf,
    _link: FdLink,
}

/// A link that carries another version's program.
#[derive(Debug)]
pub(super) struct OtherLink {
    port: usize,
    path: PathBuf,
    link: FdLink,
}

impl OtherLink {
    pub(super) fn port(&self) -> usize {
        self.port
    }
}

impl Attached {
    /// Takes its pin away.
    pub(super) fn unpin(&mut self) {
        if let Some(link) = self.link.take() {
            let _ = fs::remove_file(&link.path);
        }
    }
}

/// A pinned link as it was found.
struct Found {
    path: PathBuf,
    device: u32,
    mode: Mode,
    joined_packets: bool,
    link: FdLink,
}

impl Found {
    fn open(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (device, mode) = name.strip_prefix("link-")?.split_once('-')?;
        let device = device.parse().ok()?;
        let (mode, joined_packets) = match mode {
            "native" => (Mode::Native, false),
            "generic" => (Mode::Generic("as before".into()), false),
            "joined" => (Mode::Generic("as before".into()), true),
            _ => return None,
        };
        let link = PinnedLink::from_pin(&path).ok()?.into();
        Some(Self {
            path,
            device,
            mode,
            joined_packets,
            link,
        })
    }

    /// Whether it still holds a program on its device, of this network namespace.
    fn is_alive(&self) -> bool {
        let program = self.link.info().ok().map(|info| info.program_id());
        program.is_some() && program == program_on(self.device)
    }
}

fn link_name(attached: &Attached) -> String {
    let mode = match (&attached.mode, attached.joined_packets) {
        // One that is absent has no link to name.
        (Mode::Native | Mode::Absent, _) => "native",
        (Mode::Generic(_), false) => "generic",
        (Mode::Generic(_), true) => "joined",
    };
    format!("link-{}-{mode}", attached.device.index)
}

impl Steering {
    /// As [`Steering::attach`], pinned. What an earlier process left under these pins is
    /// taken up, without a moment in which a service's frames pass to the host; also where
    /// that process ran another version of the program, whose place this one takes when
    /// rules are set. True where the rules of before are in force.
    ///
    /// The pins stay where this fails and where they were there before; else they go with
    /// the value, unless [`Pins::keep`] says otherwise.
    pub fn attach_pinned(
        devices: &[Device],
        options: SteeringOptions,
        pins: &Pins,
    ) -> Result<(Self, bool), SteeringError> {
        if devices.len() > PORTS_MAX {
            return Err(SteeringError::TooManyPorts(devices.len()));
        }
        let (alive, dead): (Vec<Found>, Vec<Found>) =
            pins.links().into_iter().partition(Found::is_alive);
        dead.into_iter().for_each(unpin);
        let (mut ours, gone): (Vec<Found>, Vec<Found>) = alive
            .into_iter()
            .partition(|found| devices.iter().any(|device| device.index == found.device));
        for device in devices.iter().filter(|device| device.is_there()) {
            if !ours.iter().any(|found| found.device == device.index) {
                check_free(device)?;
            }
        }
        let was_there = !ours.is_empty();
        pins.keep(was_there);
        pins.hold()?;
        let version = pins.version(options);
        let taken_up = Self::from_pins(&version, options);
        let is_same = taken_up.is_some();
        let mut steering = match taken_up {
            Some(steering) => steering,
            None => Self::loaded_and_pinned(&version, options).inspect_err(|_| {
                remove_all([version.clone()]);
                pins.remove_empty();
            })?,
        };
        steering.pins = Some(pins.clone());
        steering.quieted = Quieted::found(pins.folder());
        steering.forget_devices(|known| !devices.iter().any(|own| own.index == known))?;
        for (place, device) in devices.iter().enumerate() {
            if !device.is_there() {
                steering.ports.push(Attached::nowhere(device));
                continue;
            }
            steering.set_mac(place, device.index, device.mac)?;
            let at = ours.iter().position(|found| found.device == device.index);
            match at.map(|at| ours.swap_remove(at)) {
                Some(found) => steering.take_up(place, device, found, is_same),
                None => {
                    let attached = steering.attach_and_pin(device, pins)?;
                    steering.ports.push(attached);
                }
            }
        }
        gone.into_iter().for_each(unpin);
        steering.quiet_feeders();
        steering.read_again();
        if steering.other.is_empty() {
            remove_all(pins.other_versions(&version));
        }
        Ok((steering, was_there))
    }

    /// Reads what the maps hold, where another process wrote them: it may have gone on to write
    /// since this one read them first.
    pub fn read_again(&mut self) {
        if !matches!(self.program, Program::Pinned(_)) {
            return;
        }
        let endpoints = read(&mut self.maps, "endpoints");
        let addresses = read(&mut self.maps, "addresses");
        self.contents = Contents {
            known: known_of(&endpoints),
            filter: filter_of(&addresses),
            endpoints,
            addresses,
            vlans: read(&mut self.maps, "vlans"),
            stations: read(&mut self.maps, "stations"),
            prefixes: Arc::new(prefixes::read(&mut self.maps)),
        };
    }

    fn from_pins(folder: &Path, options: SteeringOptions) -> Option<Self> {
        let xdp = Xdp::from_pin(folder.join("program"), XdpAttachType::Interface).ok()?;
        let mut maps = Maps::new();
        for name in MAPS {
            let data = MapData::from_pin(folder.join(name)).ok()?;
            let map = match name {
                "xsks" => Map::XskMap(data),
                "counters" => Map::PerCpuArray(data),
                "prefixes" => Map::LpmTrie(data),
                "filter" | "known" | "ports" => Map::Array(data),
                _ => Map::HashMap(data),
            };
            maps.insert(name, map);
        }
        Some(Self {
            program: Program::Pinned(Box::new(xdp)),
            maps,
            ports: Vec::new(),
            contents: Contents::default(),
            options,
            quieted: Quieted::default(),
            pins: None,
            other: Vec::new(),
        })
    }

    fn loaded_and_pinned(folder: &Path, options: SteeringOptions) -> Result<Self, SteeringError> {
        let failed = |cause: String| pin_failed(folder, cause);
        remove_all([folder.to_owned()]); // Half of it, where its maker was killed.
        // Again: another director that ends may take the folder above away meanwhile.
        let made = fs::create_dir_all(folder).or_else(|_| fs::create_dir_all(folder));
        made.map_err(|error| failed(error.to_string()))?;
        let mut steering = Self::load(options)?;
        for (name, map) in &steering.maps {
            map.pin(folder.join(name))
                .map_err(|e| failed(one_line(&e)))?;
        }
        let program = steering.program.xdp();
        program
            .pin(folder.join("program"))
            .map_err(|e| failed(one_line(&e)))?;
        Ok(steering)
    }

    fn take_up(&mut self, port: usize, device: &Device, found: Found, is_same: bool) {
        let mut attached = Attached {
            device: device.clone(),
            mode: found.mode,
            joined_packets: found.joined_packets,
            link: None,
            own: None,
        };
        let (path, link) = (found.path, found.link);
        if is_same {
            attached.link = Some(Link { path, _link: link });
        } else {
            self.other.push(OtherLink { port, path, link });
        }
        self.ports.push(attached);
    }

    pub(super) fn attach_and_pin(
        &mut self,
        device: &Device,
        pins: &Pins,
    ) -> Result<Attached, SteeringError> {
        let (mut attached, link) = self.attach_one(device)?;
        let path = pins.folder().join(link_name(&attached));
        let failed = |cause| pin_failed(&path, cause);
        let link = self.take_link(link).map_err(|e| failed(one_line(&e)))?;
        let link = FdLink::try_from(link).map_err(|e| failed(one_line(&e)))?;
        let link = link.pin(&path).map_err(|e| failed(one_line(&e)))?;
        let (path, link) = (path.clone(), FdLink::from(link));
        attached.link = Some(Link { path, _link: link });
        Ok(attached)
    }

    /// Puts this program in the place of another version's, now that it has its rules.
    pub(super) fn take_over_links(&mut self) -> Result<(), SteeringError> {
        if self.other.is_empty() {
            return Ok(());
        }
        while let Some(other) = self.other.pop() {
            let OtherLink { port, path, link } = other;
            let failed = |cause| pin_failed(&path, cause);
            let link = XdpLink::try_from(link).map_err(|e| failed(one_line(&e)))?;
            let program = self.program.xdp();
            let link = program
                .attach_to_link(link)
                .and_then(|link| program.take_link(link))
                .map_err(|e| failed(one_line(&e)))?;
            let link = FdLink::try_from(link).map_err(|e| failed(one_line(&e)))?;
            self.ports[port].link = Some(Link { path, _link: link });
        }
        if let Some(pins) = &self.pins {
            remove_all(pins.other_versions(&pins.version(self.options)));
        }
        Ok(())
    }

    /// Where the pins are not to stay.
    pub(super) fn remove_pins(&mut self) {
        let Some(pins) = self.pins.take().filter(|pins| !pins.stay()) else {
            if self.ports.iter().any(|port| port.link.is_some()) {
                // Those who come later put it back.
                self.ports
                    .iter_mut()
                    .for_each(|port| port.joined_packets = false);
                self.quieted.leave();
            }
            return;
        };
        // Links first: a program without its maps' names is still whole.
        self.ports.iter_mut().for_each(Attached::unpin);
        let _ = pins.remove();
    }
}

fn is_version(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(VERSION)) && path.is_dir()
}

fn unpin(found: Found) {
    let _ = fs::remove_file(&found.path);
}

fn remove_all(folders: impl IntoIterator<Item = PathBuf>) {
    for folder in folders {
        let _ = fs::remove_dir_all(folder);
    }
}

fn read<K: Pod + Eq + std::hash::Hash, V: Pod>(maps: &mut Maps, name: &str) -> Content<K, V> {
    match BpfMap::<_, K, V>::try_from(map(maps, name)) {
        Ok(map) => map.iter().flatten().collect(),
        Err(_) => Content::default(),
    }
}

/// Tells programs apart whose maps one must not take for the other's (FNV-1a).
fn version(options: SteeringOptions) -> u64 {
    let sizes = [options.endpoints, options.addresses, options.vlans];
    let bytes = OBJECT.iter().chain(options.program().as_bytes()).copied();
    bytes
        .chain(sizes.iter().flat_map(|size| size.to_le_bytes()))
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}
