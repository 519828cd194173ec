//! What the kernel says of a network device that is to be a port. Asked over a socket, not
//! over /sys, so the answer is that of the calling thread's network namespace.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::hops::Mac;
use crate::port::afxdp::takes_several_chunks;
use crate::port::{MTU_MAX, ONE_CHUNK_MTU};

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its number in this network namespace; 0, which Linux gives to none, while it is absent.
    pub index: u32,
    /// Its link-layer address.
    pub mac: Mac,
    /// The largest packet it takes, bytes at layer 3.
    pub mtu: u32,
    /// Its receive queues.
    pub queues: u32,
    /// Other devices by which its frames come: its members, the device below it.
    pub feeders: Vec<u32>,
    /// Why the steering program may not run in its driver; none where it may.
    pub generic_because: Option<&'static str>,
}

/// Why a device cannot be a port.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is none of that name.
    #[error("no network device {0}: `ip link` lists those there are")]
    Missing(String),
    /// It is not of the Ethernet kind.
    #[error("{0} is not an Ethernet device: a port must be one")]
    NotEthernet(String),
    /// Its packets would not fit a frame.
    #[error(
        "{name} has an MTU of {mtu}, and {largest} is the most here (9216 from Linux 6.6 on): `ip link set {name} mtu {largest}`"
    )]
    MtuTooLarge {
        /// The device.
        name: String,
        /// Its MTU.
        mtu: u32,
        /// The largest that fits.
        largest: u32,
    },
    /// The kernel did not answer.
    #[error("cannot ask the kernel about {name} ({call}): {error}")]
    Kernel {
        /// The device.
        name: String,
        /// What was asked.
        call: &'static str,
        /// Its answer.
        error: io::Error,
    },
}

/// The largest MTU that this kernel can be served.
pub fn largest_mtu() -> u32 {
    match takes_several_chunks() {
        true => MTU_MAX,
        false => ONE_CHUNK_MTU,
    }
}

impl Device {
    /// A device that is not there, but is known from before: `queues` and `mtu` are what to
    /// make room for, until it comes.
    pub fn absent(name: &str, queues: u32, mtu: u32) -> Self {
        Self {
            name: name.to_owned(),
            index: 0,
            mac: [0; 6],
            mtu,
            queues,
            feeders: Vec::new(),
            generic_because: None,
        }
    }

    /// Whether it is there, or was when it was looked for.
    pub fn is_there(&self) -> bool {
        self.index != 0
    }

    /// The device of this name, checked to be fit for a port.
    pub fn find(name: &str) -> Result<Self, DeviceError> {
        let ask = Asker::new(name)?;
        let index = ask.index()?;
        let mac = ask.mac()?;
        let mtu = ask.mtu()?;
        let largest = largest_mtu();
        if mtu > largest {
            let name = name.to_owned();
            return Err(DeviceError::MtuTooLarge { name, mtu, largest });
        }
        let queues = ask.queues();
        let name = name.to_owned();
        Ok(Self {
            name,
            index,
            mac,
            mtu,
            queues,
            feeders: Vec::new(),
            generic_because: None,
        })
    }

    /// The device with this index, which may have got another name since it was last looked at.
    pub fn find_by_index(index: u32) -> Result<Self, DeviceError> {
        let name = name_of(index)?;
        let device = Self::find(&name)?;
        match device.index == index {
            true => Ok(device),
            false => Err(DeviceError::Missing(name)),
        }
    }

    /// Whether the device joins received packets to larger ones (GRO).
    pub fn joins_packets(&self) -> Result<bool, DeviceError> {
        Asker::new(&self.name)?
            .ethtool_value(ETHTOOL_GGRO, 0)
            .map(|on| on != 0)
    }

    /// Lets the device join received packets to larger ones (GRO), or not.
    pub fn set_joins_packets(&self, on: bool) -> Result<(), DeviceError> {
        Asker::new(&self.name)?
            .ethtool_value(ETHTOOL_SGRO, u32::from(on))
            .map(|_| ())
    }
}

/// The name of the device with this index.
fn name_of(index: u32) -> Result<String, DeviceError> {
    let gone = |request, error| failure(&format!("device {index}"), request, error);
    let socket = asking_socket().map_err(|error| gone("socket", error))?;
    rustix::net::netdevice::index_to_name(&socket, index)
        .map_err(|error| gone("SIOCGIFNAME", error.into()))
}

/// How many receive queues the device with this index says it has; none where it does not say.
pub fn queues_of(index: u32) -> Option<u32> {
    Asker::new(&name_of(index).ok()?).ok()?.channels()
}

/// Has the device with this index join no received packets; whether it did before.
pub fn stop_joining(index: u32) -> Result<bool, DeviceError> {
    let name = name_of(index)?;
    let asker = Asker::new(&name)?;
    let did = asker.ethtool_value(ETHTOOL_GGRO, 0)? != 0;
    if did {
        asker.ethtool_value(ETHTOOL_SGRO, 0)?;
    }
    Ok(did)
}

/// Lets the device with this index join received packets.
pub fn let_join(index: u32) -> Result<(), DeviceError> {
    let name = name_of(index)?;
    Asker::new(&name)?
        .ethtool_value(ETHTOOL_SGRO, 1)
        .map(|_| ())
}

// linux/ethtool.h
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// `struct ethtool_channels` of linux/ethtool.h.
#[repr(C)]
#[derive(Default)]
struct EthtoolChannels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// A socket that only questions are put to.
fn asking_socket() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::INET, SocketType::DGRAM);
    Ok(rustix::net::socket_with(
        family,
        kind,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

struct Asker<'a> {
    name: &'a str,
    socket: OwnedFd,
}

impl<'a> Asker<'a> {
    fn new(name: &'a str) -> Result<Self, DeviceError> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
            return Err(DeviceError::Missing(name.to_owned()));
        }
        let socket = asking_socket().map_err(|error| failure(name, "socket", error))?;
        Ok(Self { name, socket })
    }

    fn index(&self) -> Result<u32, DeviceError> {
        let request = self.ask(libc::SIOCGIFINDEX, "SIOCGIFINDEX", self.request())?;
        // SAFETY: the kernel has just written this member of the union.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex } as u32)
    }

    fn mtu(&self) -> Result<u32, DeviceError> {
        let request = self.ask(libc::SIOCGIFMTU, "SIOCGIFMTU", self.request())?;
        // SAFETY: the kernel has just written this member of the union.
        Ok(unsafe { request.ifr_ifru.ifru_mtu } as u32)
    }

    fn mac(&self) -> Result<Mac, DeviceError> {
        let request = self.ask(libc::SIOCGIFHWADDR, "SIOCGIFHWADDR", self.request())?;
        // SAFETY: the kernel has just written this member of the union.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        if address.sa_family != libc::ARPHRD_ETHER {
            return Err(DeviceError::NotEthernet(self.name.to_owned()));
        }
        Ok(std::array::from_fn(|i| address.sa_data[i] as u8))
    }

    /// Devices that do not tell have one.
    fn queues(&self) -> u32 {
        self.channels().unwrap_or(1)
    }

    fn channels(&self) -> Option<u32> {
        let mut channels = EthtoolChannels {
            command: ETHTOOL_GCHANNELS,
            ..EthtoolChannels::default()
        };
        self.ethtool(&mut channels, "ETHTOOL_GCHANNELS").ok()?;
        Some((channels.rx + channels.combined).max(1))
    }

    fn ethtool_value(&self, command: u32, data: u32) -> Result<u32, DeviceError> {
        let mut value = EthtoolValue { command, data };
        self.ethtool(&mut value, "SIOCETHTOOL")?;
        Ok(value.data)
    }

    fn ethtool<T>(&self, value: &mut T, call: &'static str) -> Result<(), DeviceError> {
        let mut request = self.request();
        request.ifr_ifru.ifru_data = std::ptr::from_mut(value).cast();
        self.ask(libc::SIOCETHTOOL, call, request).map(|_| ())
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: an ifreq of zeroes is a valid one: it holds only integers and pointers.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.bytes()) {
            *to = from as libc::c_char;
        }
        request
    }

    fn ask(
        &self,
        code: libc::Ioctl,
        call: &'static str,
        mut request: libc::ifreq,
    ) -> Result<libc::ifreq, DeviceError> {
        // SAFETY: each of these codes reads and writes one ifreq, and the data it points
        // to is the structure that the command in it stands for.
        let answer = unsafe { libc::ioctl(self.socket.as_raw_fd(), code, &raw mut request) };
        if answer == 0 {
            return Ok(request);
        }
        let error = io::Error::last_os_error();
        Err(match error.raw_os_error() {
            Some(libc::ENODEV) => DeviceError::Missing(self.name.to_owned()),
            _ => failure(self.name, call, error),
        })
    }
}

fn failure(name: &str, call: &'static str, error: io::Error) -> DeviceError {
    let name = name.to_owned();
    DeviceError::Kernel { name, call, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_device_is_named() {
        for name in ["", "lvxp-none", "a-name-that-is-far-too-long"] {
            let error = Device::find(name).unwrap_err();
            assert!(
                matches!(&error, DeviceError::Missing(n) if n == name),
                "{error}"
            );
        }
    }

    #[test]
    fn the_loopback_is_no_port() {
        let error = Device::find("lo").unwrap_err();
        assert!(matches!(error, DeviceError::NotEthernet(_)), "{error}");
    }
}
