//! Words of the user's as values, each with a fault that points at it.

use std::net::IpAddr;
use std::num::NonZeroU32;

use sched::scheduler;
use sched::server::ServerKey;
use sched::service::{Family, Protocol, SchedulerFlags};

use super::fault::{Fault, nearest};
use super::matcher::Got;
use crate::adm::Names;
use crate::adm::endpoint::Endpoint;
use crate::adm::flags;
use crate::api::CONFIRM_MAX_S;

/// Clients whose addresses begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    length_bits: u32,
}

impl Network {
    /// Whether `address` belongs to it.
    pub fn has(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let differ = a.to_bits() ^ b.to_bits();
                differ.leading_zeros() >= self.length_bits
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let differ = a.to_bits() ^ b.to_bits();
                differ.leading_zeros() >= self.length_bits
            }
            _ => false,
        }
    }
}

fn wrong(got: &Got, what: &str) -> Fault {
    Fault::at(
        got.token.span.clone(),
        format!("`{}` is {what}", got.token.text),
    )
}

/// A number from `minimum` to `maximum`.
pub fn number(got: &Got, minimum: u32, maximum: u32) -> Result<u32, Fault> {
    let number = got.token.text.parse().ok();
    number
        .filter(|number| (minimum..=maximum).contains(number))
        .ok_or_else(|| wrong(got, &format!("no number from {minimum} to {maximum}")))
}

/// A weight, a threshold or a limit.
pub fn count(got: &Got) -> Result<u32, Fault> {
    number(got, 0, i32::MAX as u32)
}

/// A time to wait for a confirmation, s.
pub fn confirm_s(got: &Got) -> Result<u32, Fault> {
    number(got, 1, CONFIRM_MAX_S)
}

/// A port other than 0.
pub fn port(got: &Got) -> Result<u16, Fault> {
    number(got, 1, u16::MAX.into()).map(|port| port as u16)
}

/// Ports with commas between.
pub fn ports(got: &Got) -> Result<Vec<u16>, Fault> {
    let ports = got.token.text.split(',').map(str::parse);
    ports
        .collect::<Result<_, _>>()
        .map_err(|_| wrong(got, "no list of ports such as 80,443"))
}

/// A firewall mark.
pub fn mark(got: &Got) -> Result<NonZeroU32, Fault> {
    let mark = got.token.text.parse().ok();
    mark.ok_or_else(|| wrong(got, "no mark: a number from 1 to 4294967295"))
}

/// An address.
pub fn address(got: &Got) -> Result<IpAddr, Fault> {
    let address = got.token.text.parse().ok();
    address.ok_or_else(|| wrong(got, "no IPv4 or IPv6 address"))
}

/// `ADDRESS[/LENGTH]`.
pub fn network(got: &Got) -> Result<Network, Fault> {
    let text = got.token.text.as_str();
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let parsed = || {
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length_bits = length.map_or(Some(most), |text| text.parse().ok())?;
        (length_bits <= most).then_some(Network {
            address,
            length_bits,
        })
    };
    parsed().ok_or_else(|| wrong(got, "no address or network such as 10.0.0.0/8"))
}

/// `ADDRESS:PORT` of a service.
pub fn service(got: &Got, protocol: Protocol, names: &dyn Names) -> Result<(IpAddr, u16), Fault> {
    let endpoint = Endpoint::parse(&got.token.text, Some(protocol), names)
        .ok_or_else(|| wrong(got, "no ADDRESS:PORT"))?;
    let port = endpoint.port.ok_or_else(|| {
        wrong(
            got,
            "an address without a port; write ADDRESS:PORT, for IPv6 [ADDRESS]:PORT",
        )
    })?;
    Ok((endpoint.address, port))
}

/// `ADDRESS[:PORT]` of a server.
pub fn server(
    got: &Got,
    protocol: Option<Protocol>,
    names: &dyn Names,
) -> Result<(IpAddr, Option<u16>), Fault> {
    let endpoint = Endpoint::parse(&got.token.text, protocol, names)
        .ok_or_else(|| wrong(got, "no ADDRESS[:PORT]"))?;
    Ok((endpoint.address, endpoint.port))
}

/// The same where a port that is not typed is `port`.
pub fn server_key(
    got: &Got,
    protocol: Option<Protocol>,
    port: u16,
    names: &dyn Names,
) -> Result<ServerKey, Fault> {
    let (address, typed) = server(got, protocol, names)?;
    Ok(ServerKey {
        address,
        port: typed.unwrap_or(port),
    })
}

/// A scheduler's name.
pub fn scheduler(got: &Got) -> Result<String, Fault> {
    known(got, "scheduler", &scheduler::names().collect::<Vec<_>>())
}

/// A persistence engine's name.
pub fn engine(got: &Got) -> Result<String, Fault> {
    known(got, "persistence engine", &["sip"])
}

/// One of the names that are known.
pub fn known(got: &Got, what: &str, names: &[&str]) -> Result<String, Fault> {
    let typed = got.token.text.as_str();
    if names.contains(&typed) {
        return Ok(typed.to_owned());
    }
    let hint = match nearest(typed, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if names.len() <= 16 => format!("there are {}", names.join(", ")),
        None => "`?` in its place lists them".to_owned(),
    };
    let message = format!("no {what} is called `{typed}`; {hint}");
    Err(Fault::at(got.token.span.clone(), message))
}

/// The scheduler's flags.
pub fn flags(got: &Got, scheduler: &str) -> Result<SchedulerFlags, Fault> {
    flags::parse(&got.token.text, scheduler).map_err(|failure| {
        let names: Vec<_> = flags::names().collect();
        let message = format!("{} (there are {})", failure.message, names.join(", "));
        Fault::at(got.token.span.clone(), message)
    })
}

/// A persistence netmask.
pub fn netmask(got: &Got, family: Family) -> Result<u32, Fault> {
    match family {
        Family::V4 => match got.token.text.parse::<std::net::Ipv4Addr>() {
            Ok(mask) => Ok(mask.to_bits()),
            Err(_) => Err(wrong(got, "no mask such as 255.255.255.0")),
        },
        Family::V6 => number(got, 1, 128),
    }
}
