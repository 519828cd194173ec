//! Which part of the table is asked for: the query of `GET /v1/table`. The whole table of
//! a big director is tens of MB of JSON; most that ask want a line of it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use sched::service::{Family, Protocol, ServiceKey};
use thiserror::Error;

use super::Table;

/// A part of the table. Its text is the query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All of it; no query.
    #[default]
    All,
    /// All but the services: `services=none`.
    NoServices,
    /// Of the services only this one, if there is it: `service=tcp:192.0.2.1:80`,
    /// `service=tcp:[2001:db8::1]:80`, `service=fwmark:5:v4`.
    Service(ServiceKey),
}

/// Why a query is not one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PartError {
    /// Another name or value.
    #[error(
        "`{0}` is no part of the table: ask for services=none, for service=KEY with a KEY such \
         as tcp:192.0.2.1:80, udp:[2001:db8::1]:53 or fwmark:5:v4, or for no part to have all"
    )]
    Unknown(String),
    /// More than one.
    #[error("`{0}` asks for more than one part of the table: ask for them one by one")]
    Several(String),
}

impl Part {
    /// Reads a query, percent-encoded or not.
    pub fn parse(query: &str) -> Result<Self, PartError> {
        if query.is_empty() {
            return Ok(Self::All);
        }
        if query.contains('&') {
            return Err(PartError::Several(query.to_owned()));
        }
        let part = match query.split_once('=') {
            Some(("services", "none")) => Some(Self::NoServices),
            Some(("service", key)) => {
                decoded(key).and_then(|key| read_key(&key).map(Self::Service))
            }
            _ => None,
        };
        part.ok_or_else(|| PartError::Unknown(query.to_owned()))
    }

    /// Whether a service belongs to it.
    pub fn has(&self, key: &ServiceKey) -> bool {
        match self {
            Self::All => true,
            Self::NoServices => false,
            Self::Service(wanted) => wanted == key,
        }
    }

    /// This part of `table`.
    pub fn of(&self, mut table: Table) -> Table {
        table.services.retain(|row| self.has(&row.service));
        table
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => Ok(()),
            Self::NoServices => f.write_str("services=none"),
            Self::Service(key) => {
                f.write_str("service=")?;
                write_key(key, f)
            }
        }
    }
}

fn write_key(key: &ServiceKey, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match *key {
        ServiceKey::Address {
            protocol,
            address,
            port,
        } => {
            let end = SocketAddr::new(address, port);
            write!(f, "{}:{end}", protocol.name())
        }
        ServiceKey::Fwmark { mark, family } => {
            let family = match family {
                Family::V4 => "v4",
                Family::V6 => "v6",
            };
            write!(f, "fwmark:{mark}:{family}")
        }
    }
}

fn read_key(text: &str) -> Option<ServiceKey> {
    let (kind, rest) = text.split_once(':')?;
    if kind == "fwmark" {
        let (mark, family) = rest.split_once(':')?;
        let family = match family {
            "v4" => Family::V4,
            "v6" => Family::V6,
            _ => return None,
        };
        let mark = mark.parse().ok()?;
        return Some(ServiceKey::Fwmark { mark, family });
    }
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = all.into_iter().find(|protocol| protocol.name() == kind)?;
    let end: SocketAddr = rest.parse().ok()?;
    // A scope would be lost.
    let is_plain = matches!(end, SocketAddr::V4(_)) || !rest.contains('%');
    let address: IpAddr = end.ip();
    is_plain.then_some(ServiceKey::Address {
        protocol,
        address,
        port: end.port(),
    })
}

/// Takes percent-encoding (RFC 3986, 2.1) away; none where it is broken.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(protocol: Protocol, end: &str) -> Part {
        let end: SocketAddr = end.parse().unwrap();
        Part::Service(ServiceKey::Address {
            protocol,
            address: end.ip(),
            port: end.port(),
        })
    }

    #[test]
    fn queries() {
        let mark = ServiceKey::Fwmark {
            mark: 5.try_into().unwrap(),
            family: Family::V6,
        };
        let web = key(Protocol::Tcp, "192.0.2.1:80");
        let rows = [
            ("nothing", "", Some(Part::All)),
            ("no services", "services=none", Some(Part::NoServices)),
            ("other services", "services=all", None),
            ("IPv4", "service=tcp:192.0.2.1:80", Some(web)),
            ("encoded", "service=tcp%3A192.0.2.1%3a80", Some(web)),
            ("half a code", "service=tcp%3", None),
            ("no code", "service=tcp%zz192.0.2.1:80", None),
            ("not UTF-8", "service=%ff", None),
            (
                "IPv6",
                "service=udp:[2001:db8::1]:53",
                Some(key(Protocol::Udp, "[2001:db8::1]:53")),
            ),
            ("a scope", "service=udp:[fe80::1%3]:53", None),
            ("a mark", "service=fwmark:5:v6", Some(Part::Service(mark))),
            ("mark 0", "service=fwmark:0:v4", None),
            ("no family", "service=fwmark:5", None),
            ("no port", "service=tcp:192.0.2.1", None),
            ("no protocol", "service=192.0.2.1:80", None),
            ("another protocol", "service=icmp:192.0.2.1:80", None),
            ("another name", "limit=3", None),
            ("two", "services=none&service=fwmark:5:v6", None),
        ];
        for (name, query, part) in rows {
            assert_eq!(Part::parse(query).ok(), part, "{name}: {query}");
        }
        let two = Part::parse("services=none&services=none").unwrap_err();
        assert!(two.to_string().contains("one by one"), "{two}");
    }

    proptest! {
        #[test]
        fn a_query_comes_back(port: u16, address: IpAddr, mark in 1..=u32::MAX, v6: bool) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let keys = [
                ServiceKey::Address { protocol: Protocol::Sctp, address, port },
                ServiceKey::Fwmark { mark: mark.try_into().unwrap(), family },
            ];
            for key in keys {
                let part = Part::Service(key);
                prop_assert_eq!(Part::parse(&part.to_string()), Ok(part));
            }
        }

        #[test]
        fn any_text_is_answered(query: String) {
            let _ = Part::parse(&query);
        }
    }
}
