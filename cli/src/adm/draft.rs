//! What is known of a line while its options are read, one after the other. Order counts,
//! as in ipvsadm: a mask typed before `-t [ADDRESS]` is read as an IPv4 mask and then
//! forgotten, `-r` takes the port of a service typed before it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use sched::server::{ServerKey, TunnelChecksum};
use sched::service::{Family, Persistence, Protocol, ServiceKey};

use super::endpoint::{self, Endpoint};
use super::failure::Failure;
use super::legality::TunnelKind;
use super::names::Names;
use super::number;
use super::slot::Slots;
use super::words::Flag;

/// The longest timeout that ipvsadm takes: 31 days, s.
pub const TIMEOUT_MAX_S: i64 = 31 * 24 * 3600;
/// `-p` without a value, s.
const PERSISTENCE_DEFAULT_S: u32 = 360;
/// A device's name has at most 15 bytes (Linux's `IFNAMSIZ` less the terminator).
const DEVICE_NAME_MAX_BYTES: usize = 15;

/// The forwarding method as typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// `-m`
    Masquerade,
    /// `-g`
    #[default]
    Route,
    /// `-i`
    Tunnel,
}

/// A line so far.
#[derive(Debug)]
pub struct Draft {
    /// Which slots are filled.
    pub filled: Slots,
    /// Whether `-6` was typed after `-f`.
    pub ipv6_mark: bool,
    /// `-t`, `-u` or `--sctp-service`.
    pub service: Option<(Protocol, Endpoint)>,
    /// `-f`.
    pub mark: Option<NonZeroU32>,
    /// The persistence mask.
    pub netmask: u32,
    /// `-s`.
    pub scheduler: String,
    /// `-b`, not yet looked at: its names depend on the scheduler.
    pub scheduler_flags: String,
    /// `-p`.
    pub persistence: Option<Persistence>,
    /// `-o`.
    pub one_packet: bool,
    /// `--pe`.
    pub engine: Option<String>,
    /// `-r`.
    pub server: Option<ServerKey>,
    /// `-g`, `-i`, `-m`.
    pub method: Method,
    /// `-w`.
    pub weight: u32,
    /// `-x`.
    pub upper_threshold: u32,
    /// `-y`.
    pub lower_threshold: u32,
    /// `--tun-type`.
    pub tunnel: TunnelKind,
    /// `--tun-port`.
    pub tunnel_port: u16,
    /// `--tun-csum` and its like.
    pub tunnel_checksum: TunnelChecksum,
    /// `--mcast-interface`.
    pub interface: String,
    /// `--syncid`.
    pub sync_id: u8,
    /// `--sync-maxlen`.
    pub sync_max_length_bytes: Option<u16>,
    /// `--mcast-group`.
    pub group: Option<IpAddr>,
    /// `--mcast-port`.
    pub group_port: Option<u16>,
    /// `--mcast-ttl`.
    pub group_ttl: Option<u8>,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            filled: Slots::default(),
            ipv6_mark: false,
            service: None,
            mark: None,
            netmask: u32::MAX,
            scheduler: String::new(),
            scheduler_flags: String::new(),
            persistence: None,
            one_packet: false,
            engine: None,
            server: None,
            method: Method::default(),
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            tunnel: TunnelKind::default(),
            tunnel_port: 0,
            tunnel_checksum: TunnelChecksum::default(),
            interface: "eth0".to_owned(),
            sync_id: 0,
            sync_max_length_bytes: None,
            group: None,
            group_port: None,
            group_ttl: None,
        }
    }
}

impl Draft {
    /// The service that the line names, where it names one.
    pub fn service_key(&self) -> Option<ServiceKey> {
        if let Some(mark) = self.mark {
            let family = self.family();
            return Some(ServiceKey::Fwmark { mark, family });
        }
        let (protocol, endpoint) = self.service?;
        Some(ServiceKey::Address {
            protocol,
            address: endpoint.address,
            port: endpoint.port.unwrap_or(0),
        })
    }

    /// The family of the service; IPv4 until one is named.
    pub fn family(&self) -> Family {
        match self.service {
            Some((_, endpoint)) => Family::of(endpoint.address),
            None if self.ipv6_mark => Family::V6,
            None => Family::V4,
        }
    }

    /// Reads one option. `value` is empty for options that take none.
    pub fn take(
        &mut self,
        flag: Flag,
        value: Option<&str>,
        names: &dyn Names,
    ) -> Result<(), Failure> {
        if let Some(slot) = flag.slot() {
            let fresh = self.filled.fill(slot);
            if !fresh {
                let message = format!("multiple '{}' options specified", slot.name());
                return Err(Failure::usage(message));
            }
        }
        self.read(flag, value, names)
    }

    fn read(&mut self, flag: Flag, value: Option<&str>, names: &dyn Names) -> Result<(), Failure> {
        let text = value.unwrap_or_default();
        match flag {
            Flag::TcpService => self.read_service(Protocol::Tcp, text, names)?,
            Flag::UdpService => self.read_service(Protocol::Udp, text, names)?,
            Flag::SctpService => self.read_service(Protocol::Sctp, text, names)?,
            Flag::FwmarkService => self.mark = Some(parse_mark(text)?),
            Flag::Ipv6 => self.read_ipv6()?,
            Flag::Scheduler => self.scheduler = text.to_owned(),
            Flag::Persistent => {
                let timeout_s = match value {
                    Some(text) => parse_timeout(text, 1)?,
                    None => PERSISTENCE_DEFAULT_S,
                };
                self.persistence = Some(Persistence { timeout_s });
            }
            Flag::Netmask => self.netmask = self.parse_netmask(text, names)?,
            Flag::RealServer => self.server = Some(self.parse_server(text, names)?),
            Flag::Masquerading => self.method = Method::Masquerade,
            Flag::Ipip => self.method = Method::Tunnel,
            Flag::Gatewaying => self.method = Method::Route,
            Flag::Weight => self.weight = parse_number(text, 0, i32::MAX as u32, "weight")?,
            Flag::UpperThreshold => {
                self.upper_threshold = parse_number(text, 0, i32::MAX as u32, "u_threshold")?;
            }
            Flag::LowerThreshold => {
                self.lower_threshold = parse_number(text, 0, i32::MAX as u32, "l_threshold")?;
            }
            Flag::OnePacket => self.one_packet = true,
            Flag::Engine => self.engine = (!text.is_empty()).then(|| text.to_owned()),
            Flag::SchedulerFlags => self.scheduler_flags = text.to_owned(),
            Flag::TunnelType => self.tunnel = parse_tunnel(text)?,
            Flag::TunnelPort => self.tunnel_port = parse_number(text, 1, 65535, "tunnel port")?,
            Flag::TunnelNoChecksum => self.tunnel_checksum = TunnelChecksum::None,
            Flag::TunnelChecksum => self.tunnel_checksum = TunnelChecksum::Full,
            Flag::TunnelRemoteChecksum => self.tunnel_checksum = TunnelChecksum::Remote,
            Flag::McastInterface => self.interface = device_name(text),
            Flag::SyncId => self.sync_id = parse_number(text, 0, 255, "syncid")?,
            Flag::SyncMaxLength => {
                self.sync_max_length_bytes = Some(parse_number(text, 1, 65507, "sync-maxlen")?);
            }
            Flag::McastGroup => self.group = Some(parse_group(text)?),
            Flag::McastPort => {
                self.group_port = Some(parse_number(text, 1, 65535, "mcast-port")?);
            }
            Flag::McastTtl => self.group_ttl = Some(parse_number(text, 1, 255, "mcast-ttl")?),
            Flag::Numeric
            | Flag::Connection
            | Flag::Timeout
            | Flag::Daemon
            | Flag::Stats
            | Flag::Rate
            | Flag::Thresholds
            | Flag::PersistentConn
            | Flag::NoSort
            | Flag::Sort
            | Flag::Exact
            | Flag::TunnelInfo => {}
        }
        Ok(())
    }

    fn read_service(
        &mut self,
        protocol: Protocol,
        text: &str,
        names: &dyn Names,
    ) -> Result<(), Failure> {
        let endpoint = Endpoint::parse(text, Some(protocol), names)
            .ok_or_else(|| Failure::usage("illegal virtual server address[:port] specified"))?;
        if endpoint.address.is_ipv6() {
            self.netmask = 128;
        }
        self.service = Some((protocol, endpoint));
        Ok(())
    }

    fn read_ipv6(&mut self) -> Result<(), Failure> {
        if self.mark.is_none() {
            return Err(Failure::usage("-6 used before -f\n"));
        }
        self.ipv6_mark = true;
        self.netmask = 128;
        Ok(())
    }

    fn parse_netmask(&self, text: &str, names: &dyn Names) -> Result<u32, Failure> {
        if self.family() == Family::V6 {
            let bits = number::leading_decimal(text);
            return match u32::try_from(bits) {
                Ok(bits @ 1..=128) => Ok(bits),
                _ => Err(Failure::usage("illegal ipv6 netmask specified")),
            };
        }
        endpoint::ipv4(text, names)
            .map(Ipv4Addr::to_bits)
            .ok_or_else(|| Failure::usage("illegal virtual server persistent mask specified"))
    }

    fn parse_server(&self, text: &str, names: &dyn Names) -> Result<ServerKey, Failure> {
        let (protocol, virtual_port) = match (self.mark, self.service) {
            (Some(_), _) => (Some(Protocol::Tcp), 0),
            (None, Some((protocol, endpoint))) => (Some(protocol), endpoint.port.unwrap_or(0)),
            (None, None) => (None, 0),
        };
        let endpoint = Endpoint::parse(text, protocol, names)
            .ok_or_else(|| Failure::usage("illegal real server address[:port] specified"))?;
        Ok(ServerKey {
            address: endpoint.address,
            port: endpoint.port.unwrap_or(virtual_port),
        })
    }
}

/// A timeout, s, from `minimum_s` to 31 days.
pub fn parse_timeout(text: &str, minimum_s: i64) -> Result<u32, Failure> {
    match number::decimal(text) {
        Some(value) if (minimum_s..=TIMEOUT_MAX_S).contains(&value) => Ok(value as u32),
        _ => Err(Failure::usage(format!(
            "invalid timeout value `{text}' specified"
        ))),
    }
}

fn parse_number<T: TryFrom<i64>>(
    text: &str,
    minimum: u32,
    maximum: u32,
    what: &str,
) -> Result<T, Failure> {
    number::decimal(text)
        .filter(|value| (i64::from(minimum)..=i64::from(maximum)).contains(value))
        .and_then(|value| T::try_from(value).ok())
        .ok_or_else(|| Failure::usage(format!("illegal {what} specified")))
}

fn parse_mark(text: &str) -> Result<NonZeroU32, Failure> {
    number::decimal(text)
        .and_then(|value| u32::try_from(value).ok())
        .and_then(NonZeroU32::new)
        .ok_or_else(|| Failure::usage(format!("invalid fwmark value `{text}' specified")))
}

fn parse_tunnel(text: &str) -> Result<TunnelKind, Failure> {
    TunnelKind::ALL
        .into_iter()
        .find(|kind| kind.name() == text)
        .ok_or_else(|| Failure::usage("illegal tunnel type specified"))
}

fn parse_group(text: &str) -> Result<IpAddr, Failure> {
    if let Ok(group) = text.parse::<Ipv6Addr>() {
        return match group.is_multicast() {
            true => Ok(group.into()),
            false => Err(Failure::usage(format!("invalid IPv6 mcast-group `{text}'"))),
        };
    }
    match text.parse::<Ipv4Addr>() {
        Ok(group) if group.is_multicast() => Ok(group.into()),
        _ => Err(Failure::usage(format!("invalid IPv4 mcast-group `{text}'"))),
    }
}

fn device_name(text: &str) -> String {
    let end = text.floor_char_boundary(DEVICE_NAME_MAX_BYTES);
    text[..end].to_owned()
}
