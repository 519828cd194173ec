//! The XDP program that picks the director's frames out, and its maps. Attached to every
//! port by a BPF link, so that it goes when its owner goes, however that ends; unless it is
//! pinned (see `pinned`): then it stays until its owner ends in good order.
//!
//! Native mode is tried first; where the driver refuses, generic mode, in which frames are
//! copied once more. A device whose XDP program is someone else's is left alone.

mod error;
mod feeders;
mod model;
mod pinned;
mod pins;
mod prefixes;
mod rules;

use std::collections::hash_map;
use std::os::fd::{AsRawFd, BorrowedFd};

use ahash::HashMap;
use aya::maps::{Array, HashMap as BpfMap, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, Pod};

pub use error::SteeringError;
pub use model::Steered;
pub use pins::{Pins, PinsError};
pub use rules::{SteeredEndpoint, SteeringRules};

use crate::hops::PortId;
use crate::port::device::Device;
use error::errno_of;
pub(super) use error::map_failed;
use feeders::Quieted;
use rules::Contents;

/// The most ports of one director (steer.bpf.c).
pub const PORTS_MAX: usize = 16;
/// The most queues of one port (steer.bpf.c).
pub const QUEUES_MAX: u32 = 256;

/// The most link addresses beside the ports' own (steer.bpf.c).
const STATIONS_MAX: u32 = 4_096;

/// Built by build.rs from bpf/steer.bpf.c.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.bpf.o"));

/// How the program runs on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the kernel's stack, and why not in the driver.
    Generic(String),
    /// Not at all: the device is not there.
    Absent,
}

/// What is fixed when the program is loaded: room in its maps, and where it may run.
#[derive(Clone, Copy, Debug)]
pub struct SteeringOptions {
    /// Endpoints: of services, NAT servers and tunnels together.
    pub endpoints: u32,
    /// Their addresses.
    pub addresses: u32,
    /// VLANs over all ports.
    pub vlans: u32,
    /// Whether to try native mode: drivers exist where only generic mode is sound.
    pub may_be_native: bool,
    /// Whether frames may come in several buffers, as drivers give jumbo frames. Not without
    /// need: veth then lets senders leave the cutting of large packets to it.
    pub takes_frags: bool,
}

impl SteeringOptions {
    /// The program's name in steer.bpf.c.
    fn program(&self) -> &'static str {
        match self.takes_frags {
            true => "steer_frags",
            false => "steer",
        }
    }
}

impl Default for SteeringOptions {
    fn default() -> Self {
        Self {
            // More than the director's own limits of services, servers and marks allow, so that
            // those speak first. 8 MiB each while empty; entries take memory as they come.
            endpoints: 524_288,
            addresses: 524_288,
            vlans: 4_096,
            may_be_native: true,
            takes_frags: false,
        }
    }
}

/// What the program did with frames, all CPUs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteeringCounters {
    /// Frames left to the host.
    pub passed: u64,
    /// Frames given to a socket.
    pub redirected: u64,
    /// The director's frames for which no socket waited.
    pub dropped: u64,
    /// Frames of clients that are kept out.
    pub denied: u64,
}

/// The loaded program, attached to the ports. Dropping it detaches it from all.
///
/// Where it is pinned, dropping it takes the pins away too, unless [`Steering::leave`] was
/// called before.
#[derive(Debug)]
pub struct Steering {
    program: Program,
    maps: Maps,
    ports: Vec<Attached>,
    contents: Contents,
    options: SteeringOptions,
    quieted: Quieted,
    pins: Option<Pins>,
    /// Pinned links of another version's program, which [`Steering::set`] gives to this one.
    other: Vec<pinned::OtherLink>,
}

/// The program, from this binary or from its pin.
#[derive(Debug)]
enum Program {
    /// With the program's name in steer.bpf.c.
    Own(Box<Ebpf>, &'static str),
    Pinned(Box<Xdp>),
}

impl Program {
    fn xdp(&mut self) -> &mut Xdp {
        match self {
            Self::Own(ebpf, name) => {
                let steer = ebpf
                    .program_mut(name)
                    .expect("steer.bpf.c has this program");
                steer.try_into().expect("it is of the XDP kind")
            }
            Self::Pinned(xdp) => xdp,
        }
    }
}

/// The program's maps by their names.
type Maps = std::collections::HashMap<&'static str, Map>;

/// All of them (steer.bpf.c).
const MAPS: [&str; 10] = [
    "endpoints",
    "known",
    "addresses",
    "filter",
    "vlans",
    "stations",
    "ports",
    "xsks",
    "counters",
    "prefixes",
];

#[derive(Debug)]
struct Attached {
    device: Device,
    mode: Mode,
    /// Put back on when the program leaves a port that it watched in generic mode.
    joined_packets: bool,
    /// What keeps it there, pinned.
    link: Option<pinned::Link>,
    /// What keeps it there, where it is not pinned.
    own: Option<XdpLink>,
}

impl Attached {
    /// A port whose device is absent, to be attached again when it comes.
    fn nowhere(device: &Device) -> Self {
        Self {
            device: device.clone(),
            mode: Mode::Absent,
            joined_packets: false,
            link: None,
            own: None,
        }
    }
}

impl Steering {
    /// Loads the program and attaches it to `devices`, but those that are absent; the place
    /// in that list is the port's [`PortId`]. Until rules are set every frame passes to the
    /// host.
    pub fn attach(devices: &[Device], options: SteeringOptions) -> Result<Self, SteeringError> {
        if devices.len() > PORTS_MAX {
            return Err(SteeringError::TooManyPorts(devices.len()));
        }
        // Asked first: loading a program only to find the device taken costs most.
        for device in devices.iter().filter(|device| device.is_there()) {
            check_free(device)?;
        }
        let mut steering = Self::load(options)?;
        for (index, device) in devices.iter().enumerate() {
            let attached = match device.is_there() {
                true => {
                    steering.set_mac(index, device.index, device.mac)?;
                    steering.attach_own(device)?
                }
                false => Attached::nowhere(device),
            };
            steering.ports.push(attached);
        }
        steering.quiet_feeders();
        Ok(steering)
    }

    /// Lets go of a port whose device has gone.
    pub fn detach(&mut self, port: PortId) {
        let place = usize::from(port.0);
        let Some(attached) = self.ports.get_mut(place) else {
            return;
        };
        attached.unpin();
        attached.own = None;
        attached.joined_packets = false;
        attached.device.feeders.clear();
        let gone = attached.device.index;
        self.other.retain(|other| other.port() != place);
        let _ = self.forget_devices(|device| device == gone);
        self.quiet_feeders();
    }

    /// Attaches the program to the device that has taken the place of the one that went.
    pub fn attach_again(&mut self, port: PortId, device: &Device) -> Result<(), SteeringError> {
        let place = usize::from(port.0);
        check_free(device)?;
        self.set_mac(place, device.index, device.mac)?;
        let pins = self.pins.clone().filter(|pins| pins.folder().is_dir());
        self.ports[place] = match pins {
            Some(pins) => self.attach_and_pin(device, &pins)?,
            None => self.attach_own(device)?,
        };
        self.quiet_feeders();
        Ok(())
    }

    fn load(options: SteeringOptions) -> Result<Self, SteeringError> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("endpoints", options.endpoints)
            .map_max_entries("addresses", options.addresses)
            .map_max_entries("vlans", options.vlans)
            .load(OBJECT)
            .map_err(|error| SteeringError::from_load(&error))?;
        let mut maps = Maps::new();
        for name in MAPS {
            let map = ebpf.take_map(name).expect("steer.bpf.c has this map");
            maps.insert(name, map);
        }
        let mut program = Program::Own(Box::new(ebpf), options.program());
        program
            .xdp()
            .load()
            .map_err(|error| SteeringError::from_load(&error))?;
        Ok(Self {
            program,
            maps,
            ports: Vec::new(),
            contents: Contents::default(),
            options,
            quieted: Quieted::default(),
            pins: None,
            other: Vec::new(),
        })
    }

    /// How the program runs on each port, in the ports' order.
    pub fn modes(&self) -> impl Iterator<Item = (&Device, &Mode)> {
        self.ports.iter().map(|port| (&port.device, &port.mode))
    }

    /// Lets the program look for what `rules` say, from the next frame on. Only what has
    /// changed is written. After an error the maps may hold part of both: set again.
    pub fn set(&mut self, rules: &SteeringRules) -> Result<(), SteeringError> {
        for &(device, mac) in &rules.macs {
            let place = self
                .ports
                .iter()
                .position(|port| port.device.index == device);
            if let Some(index) = place
                && self.ports[index].device.mac != mac
            {
                self.set_mac(index, device, mac)?;
                self.ports[index].device.mac = mac;
            }
        }
        let new = Contents::of(rules);
        let old = &mut self.contents;
        let options = self.options;
        // The filter is looked at first, so it comes last and goes first: a frame never meets
        // an address without its endpoints.
        let maps = &mut self.maps;
        let mut grown = grow_ends(maps, options, old, &new);
        if matches!(grown, Err(SteeringError::Full { .. })) {
            // Together with what is to go it does not fit: that goes first.
            shrink(maps, "addresses", &mut old.addresses, &new.addresses)?;
            shrink(maps, "endpoints", &mut old.endpoints, &new.endpoints)?;
            grown = grow_ends(maps, options, old, &new);
        }
        grown?;
        overwrite(maps, "known", &mut old.known, &new.known)?;
        overwrite(maps, "filter", &mut old.filter, &new.filter)?;
        shrink(maps, "addresses", &mut old.addresses, &new.addresses)?;
        shrink(maps, "endpoints", &mut old.endpoints, &new.endpoints)?;
        grow(maps, "vlans", options.vlans, &mut old.vlans, &new.vlans)?;
        shrink(maps, "vlans", &mut old.vlans, &new.vlans)?;
        grow(
            maps,
            "stations",
            STATIONS_MAX,
            &mut old.stations,
            &new.stations,
        )?;
        shrink(maps, "stations", &mut old.stations, &new.stations)?;
        self.set_prefixes(&new.prefixes)?;
        self.take_over_links()
    }

    /// Gives the frames of a port's queue to this AF_XDP socket, bound to that queue. A
    /// socket that closes leaves by itself.
    pub fn register(
        &mut self,
        port: PortId,
        queue: u32,
        socket: BorrowedFd<'_>,
    ) -> Result<(), SteeringError> {
        if queue >= QUEUES_MAX || usize::from(port.0) >= PORTS_MAX {
            return Err(SteeringError::NoSuchQueue {
                port: port.0,
                queue,
            });
        }
        let failed = |error: MapError| map_failed("xsks", &error);
        let mut sockets = XskMap::try_from(map(&mut self.maps, "xsks")).map_err(failed)?;
        sockets
            .set(
                u32::from(port.0) * QUEUES_MAX + queue,
                socket.as_raw_fd(),
                0,
            )
            .map_err(failed)
    }

    /// What the program did so far.
    pub fn counters(&self) -> Result<SteeringCounters, SteeringError> {
        let failed = |error: MapError| map_failed("counters", &error);
        let map = self.maps.get("counters").expect("all maps are there");
        let counters = PerCpuArray::<_, u64>::try_from(map).map_err(failed)?;
        let sum = |which: u32| -> Result<u64, SteeringError> {
            let values = counters.get(&which, 0).map_err(failed)?;
            Ok(values.iter().sum())
        };
        Ok(SteeringCounters {
            passed: sum(0)?,
            redirected: sum(1)?,
            dropped: sum(2)?,
            denied: sum(3)?,
        })
    }

    fn set_mac(&mut self, index: usize, device: u32, mac: [u8; 6]) -> Result<(), SteeringError> {
        let mut value: PortValue = [0; 12];
        value[..4].copy_from_slice(&device.to_ne_bytes());
        value[4..10].copy_from_slice(&mac);
        value[10..].copy_from_slice(&(index as u16).to_ne_bytes());
        let mut ports = array::<PortValue>(&mut self.maps, "ports")?;
        // A device stays in its place when its number changes: its frames are never unknown.
        let place = place_of(&ports, device).or_else(|| place_of(&ports, NO_DEVICE));
        let place = place.ok_or(SteeringError::TooManyPorts(PORTS_MAX + 1))?;
        write(&mut ports, "ports", place, value)
    }

    /// Devices with these numbers are ports no more.
    fn forget_devices(&mut self, is_gone: impl Fn(u32) -> bool) -> Result<(), SteeringError> {
        let mut ports = array::<PortValue>(&mut self.maps, "ports")?;
        for place in 0..PORTS_MAX as u32 {
            if device_at(&ports, place).is_some_and(&is_gone) {
                write(&mut ports, "ports", place, [0; 12])?;
            }
        }
        Ok(())
    }

    fn attach_own(&mut self, device: &Device) -> Result<Attached, SteeringError> {
        let (mut attached, link) = self.attach_one(device)?;
        let link = self.take_link(link);
        let refused = |error| SteeringError::from_attach(device, &error);
        attached.own = Some(link.map_err(refused)?);
        Ok(attached)
    }

    /// The port, and its link.
    fn attach_one(
        &mut self,
        device: &Device,
    ) -> Result<(Attached, aya::programs::xdp::XdpLinkId), SteeringError> {
        let steer = self.program.xdp();
        let refused = |error| SteeringError::from_attach(device, &error);
        let mut attached = Attached {
            device: device.clone(),
            mode: Mode::Native,
            joined_packets: false,
            link: None,
            own: None,
        };
        let native = match (self.options.may_be_native, device.generic_because) {
            (false, _) => Err("not asked for".to_owned()),
            (true, Some(why)) => Err(why.to_owned()),
            (true, None) => match steer.attach_to_if_index(device.index, XdpMode::Driver) {
                Ok(link) => Ok(link),
                Err(error) if !may_try_generic(&error) => return Err(refused(error)),
                Err(error) => Err(error::one_line(&error)),
            },
        };
        let reason = match native {
            Ok(link) => return Ok((attached, link)),
            Err(reason) => reason,
        };
        attached.mode = Mode::Generic(reason);
        let link = steer
            .attach_to_if_index(device.index, XdpMode::Skb)
            .map_err(refused)?;
        // Generic mode sees packets after the stack has joined them, and then they fit no
        // frame.
        attached.joined_packets =
            device.joins_packets().unwrap_or(false) && device.set_joins_packets(false).is_ok();
        Ok((attached, link))
    }

    /// The link of a port just attached, taken out of the program.
    fn take_link(&mut self, link: aya::programs::xdp::XdpLinkId) -> Result<XdpLink, ProgramError> {
        self.program.xdp().take_link(link)
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        self.remove_pins();
        self.quieted.end();
        for port in &self.ports {
            if port.joined_packets {
                // The device may have gone; then there is nothing to put back.
                let _ = port.device.set_joins_packets(true);
            }
        }
    }
}

fn map<'a>(maps: &'a mut Maps, name: &str) -> &'a mut Map {
    maps.get_mut(name).expect("all maps are there")
}

/// Whether generic mode may do what native mode did not.
fn may_try_generic(error: &ProgramError) -> bool {
    !matches!(
        errno_of(error),
        Some(libc::EBUSY | libc::EEXIST | libc::EPERM | libc::ENODEV)
    )
}

pub(super) fn check_free(device: &Device) -> Result<(), SteeringError> {
    match program_on(device.index) {
        None => Ok(()),
        Some(id) => Err(error::occupied(device, id)),
    }
}

/// The XDP program that runs on a device.
fn program_on(device: u32) -> Option<u32> {
    let mut id = 0;
    // SAFETY: the call writes one number, and only for the time of the call.
    let answer = unsafe { libxdp_sys::bpf_xdp_query_id(device as i32, 0, &raw mut id) };
    (answer == 0 && id != 0).then_some(id)
}

type Content<K, V> = HashMap<K, V>;

/// Writes what is new or changed.
fn grow<K: Pod + Eq + std::hash::Hash, V: Pod + Eq>(
    maps: &mut Maps,
    name: &'static str,
    limit: u32,
    old: &mut Content<K, V>,
    new: &Content<K, V>,
) -> Result<(), SteeringError> {
    let mut target = typed::<K, V>(maps, name)?;
    for (&key, &value) in new {
        let known = old.entry(key);
        if matches!(&known, hash_map::Entry::Occupied(entry) if *entry.get() == value) {
            continue;
        }
        if let Err(error) = target.insert(key, value, 0) {
            return Err(match errno_of(&error) {
                Some(libc::E2BIG | libc::ENOMEM) => SteeringError::Full { name, limit },
                _ => map_failed(name, &error),
            });
        }
        known.insert_entry(value);
    }
    Ok(())
}

fn grow_ends(
    maps: &mut Maps,
    options: SteeringOptions,
    old: &mut Contents,
    new: &Contents,
) -> Result<(), SteeringError> {
    let (endpoints, addresses) = (options.endpoints, options.addresses);
    grow(
        maps,
        "endpoints",
        endpoints,
        &mut old.endpoints,
        &new.endpoints,
    )?;
    grow(
        maps,
        "addresses",
        addresses,
        &mut old.addresses,
        &new.addresses,
    )
}

/// Writes the places that have changed.
fn overwrite<V: Pod + Eq>(
    maps: &mut Maps,
    name: &'static str,
    old: &mut [V],
    new: &[V],
) -> Result<(), SteeringError> {
    let mut target = array::<V>(maps, name)?;
    for (place, (old, &new)) in old.iter_mut().zip(new).enumerate() {
        if *old != new {
            write(&mut target, name, place as u32, new)?;
            *old = new;
        }
    }
    Ok(())
}

/// Takes out what is gone.
fn shrink<K: Pod + Eq + std::hash::Hash, V: Pod>(
    maps: &mut Maps,
    name: &'static str,
    old: &mut Content<K, V>,
    new: &Content<K, V>,
) -> Result<(), SteeringError> {
    let mut target = typed::<K, V>(maps, name)?;
    let gone: Vec<K> = old
        .keys()
        .filter(|key| !new.contains_key(*key))
        .copied()
        .collect();
    for key in gone {
        match target.remove(&key) {
            Ok(()) => {}
            // What is to be gone is gone: a predecessor took it out while it still could.
            Err(error) if errno_of(&error) == Some(libc::ENOENT) => {}
            Err(error) => return Err(map_failed(name, &error)),
        }
        old.remove(&key);
    }
    Ok(())
}

fn array<'a, V: Pod>(
    maps: &'a mut Maps,
    name: &'static str,
) -> Result<Array<&'a mut MapData, V>, SteeringError> {
    Array::try_from(map(maps, name)).map_err(|error| map_failed(name, &error))
}

fn write<V: Pod>(
    array: &mut Array<&mut MapData, V>,
    name: &'static str,
    place: u32,
    value: V,
) -> Result<(), SteeringError> {
    array
        .set(place, value, 0)
        .map_err(|error| map_failed(name, &error))
}

/// `struct port` of steer.bpf.c: device, link address, number.
type PortValue = [u8; 12];

/// The device of a place that no port has.
const NO_DEVICE: u32 = 0;

fn device_at(ports: &Array<&mut MapData, PortValue>, place: u32) -> Option<u32> {
    let value = ports.get(&place, 0).ok()?;
    value
        .first_chunk()
        .map(|device| u32::from_ne_bytes(*device))
}

fn place_of(ports: &Array<&mut MapData, PortValue>, device: u32) -> Option<u32> {
    (0..PORTS_MAX as u32).find(|&place| device_at(ports, place) == Some(device))
}

fn typed<'a, K: Pod, V: Pod>(
    maps: &'a mut Maps,
    name: &'static str,
) -> Result<BpfMap<&'a mut MapData, K, V>, SteeringError> {
    BpfMap::try_from(map(maps, name)).map_err(|error| map_failed(name, &error))
}

#[cfg(test)]
mod tests;
