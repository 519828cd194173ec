//! `lvx limit`: how many new connections services take.

use std::io::{self, Write};
use std::num::NonZeroU32;

use clap::{ArgGroup, Args, Subcommand};
use sched::command::Command;
use sched::limit::{PER_S_MAX, ServiceLimits};
use sched::service::{Family, Protocol, ServiceKey};
use serde::Serialize;

use crate::adm::SystemNames;
use crate::adm::endpoint::Endpoint;
use crate::api::Table;
use crate::client::Client;
use crate::commands::{Error, change, write_json};
use crate::director::Director;
use crate::shell::words;

/// What to do with limits.
#[derive(Debug, Subcommand)]
pub enum LimitAction {
    /// Set a service's limits
    #[command(
        after_help = "Example, 500 new connections per second, at most 20 of them from one /24:\n  \
                      lvx limit set -t 10.1.0.1:80 --per-s 500 --source-per-s 20 --source-v4 24"
    )]
    Set(SetArgs),
    /// Take a service's limits away
    #[command(after_help = "Example:\n  lvx limit del -t 10.1.0.1:80")]
    Del(ServiceArgs),
    /// Show the services that have limits
    #[command(after_help = "Examples:\n  lvx limit list\n  lvx limit list --json")]
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which service, as ipvsadm names it.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("service").required(true).args(["tcp", "udp", "sctp", "mark"])))]
pub struct ServiceArgs {
    /// A TCP service
    #[arg(short = 't', long = "tcp-service", value_name = "ADDRESS:PORT")]
    tcp: Option<String>,
    /// A UDP service
    #[arg(short = 'u', long = "udp-service", value_name = "ADDRESS:PORT")]
    udp: Option<String>,
    /// An SCTP service
    #[arg(long = "sctp-service", value_name = "ADDRESS:PORT")]
    sctp: Option<String>,
    /// A firewall mark's service
    #[arg(short = 'f', long = "fwmark-service", value_name = "MARK")]
    mark: Option<NonZeroU32>,
    /// The mark is of IPv6 packets
    #[arg(short = '6', long = "ipv6", requires = "mark")]
    ipv6: bool,
}

/// Limits to set. What is not named has no limit.
#[derive(Debug, Args)]
pub struct SetArgs {
    #[command(flatten)]
    service: ServiceArgs,
    /// New connections per second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(PER_S_MAX)))]
    #[arg(required_unless_present = "source_per_s")]
    per_s: Option<u32>,
    /// New connections per second from one client network
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(PER_S_MAX)))]
    source_per_s: Option<u32>,
    /// A client network's length in IPv4, bits
    #[arg(
        long,
        value_name = "BITS",
        requires = "source_per_s",
        default_value = "32"
    )]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=32))]
    source_v4: u8,
    /// A client network's length in IPv6, bits
    #[arg(
        long,
        value_name = "BITS",
        requires = "source_per_s",
        default_value = "56"
    )]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=128))]
    source_v6: u8,
}

/// A service that has limits.
#[derive(Debug, Serialize)]
struct Row {
    service: ServiceKey,
    limits: ServiceLimits,
}

impl ServiceArgs {
    fn key(&self) -> Result<ServiceKey, Error> {
        if let Some(mark) = self.mark {
            let family = if self.ipv6 { Family::V6 } else { Family::V4 };
            return Ok(ServiceKey::Fwmark { mark, family });
        }
        let typed = [
            (Protocol::Tcp, &self.tcp),
            (Protocol::Udp, &self.udp),
            (Protocol::Sctp, &self.sctp),
        ];
        let named = typed
            .into_iter()
            .find_map(|(p, text)| Some((p, text.as_ref()?)));
        let (protocol, text) = named.ok_or_else(|| Error::Refused("no service named".into()))?;
        let endpoint = Endpoint::parse(text, Some(protocol), &SystemNames::default());
        match endpoint.and_then(|endpoint| Some((endpoint.address, endpoint.port?))) {
            Some((address, port)) => Ok(ServiceKey::Address {
                protocol,
                address,
                port,
            }),
            None => Err(Error::Refused(format!(
                "`{text}` is no ADDRESS:PORT, for IPv6 [ADDRESS]:PORT"
            ))),
        }
    }
}

/// Carries `action` out.
pub(crate) fn run(
    client: &mut Client,
    out: &mut dyn Write,
    action: &LimitAction,
) -> Result<(), Error> {
    match action {
        LimitAction::Set(args) => {
            let limits = ServiceLimits {
                connections_per_s: args.per_s.unwrap_or(0),
                source_connections_per_s: args.source_per_s.unwrap_or(0),
                source_v4_bits: args.source_v4,
                source_v6_bits: args.source_v6,
            };
            let service = args.service.key()?;
            change(client, Command::LimitService { service, limits })
        }
        LimitAction::Del(args) => {
            let (service, limits) = (args.key()?, ServiceLimits::default());
            change(client, Command::LimitService { service, limits })
        }
        LimitAction::List { json } => {
            let rows = rows(&client.table()?);
            match json {
                true => write_json(out, &rows)?,
                false => write_rows(out, &rows)?,
            }
            Ok(())
        }
    }
}

fn rows(table: &Table) -> Vec<Row> {
    let services = table.services.iter();
    let mut rows: Vec<_> = services
        .filter_map(|row| {
            Some(Row {
                service: row.service,
                limits: row.limits?,
            })
        })
        .collect();
    rows.sort_by_key(|row| row.service);
    rows
}

fn write_rows(out: &mut dyn Write, rows: &[Row]) -> io::Result<()> {
    let names: Vec<String> = rows
        .iter()
        .map(|row| words::service(&row.service))
        .collect();
    let width = names
        .iter()
        .map(String::len)
        .max()
        .unwrap_or(0)
        .max("SERVICE".len());
    writeln!(
        out,
        "{:<width$} {:>8} {:>13}  NETWORK",
        "SERVICE", "PER-S", "SOURCE-PER-S"
    )?;
    let number = |per_s: u32| match per_s {
        0 => "-".to_owned(),
        per_s => per_s.to_string(),
    };
    for (name, Row { limits, .. }) in names.iter().zip(rows) {
        let network = match limits.source_connections_per_s {
            0 => "-".to_owned(),
            _ => format!("/{} /{}", limits.source_v4_bits, limits.source_v6_bits),
        };
        writeln!(
            out,
            "{name:<width$} {:>8} {:>13}  {network}",
            number(limits.connections_per_s),
            number(limits.source_connections_per_s),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Root {
        #[command(subcommand)]
        action: LimitAction,
    }

    fn parse(line: &str) -> Result<LimitAction, clap::Error> {
        let words = std::iter::once("lvx limit").chain(line.split(' '));
        Root::try_parse_from(words).map(|root| root.action)
    }

    #[test]
    fn what_is_typed() {
        let Ok(LimitAction::Set(args)) = parse("set -t 10.1.0.1:80 --per-s 5 --source-per-s 2")
        else {
            panic!("not parsed");
        };
        assert_eq!((args.per_s, args.source_per_s), (Some(5), Some(2)));
        assert_eq!((args.source_v4, args.source_v6), (32, 56));
        assert_eq!(
            words::service(&args.service.key().unwrap()),
            "tcp 10.1.0.1:80"
        );
        for wrong in [
            "set -t 10.1.0.1:80",
            "set --per-s 5",
            "set -t 10.1.0.1:80 -u 10.1.0.1:80 --per-s 5",
            "set -t 10.1.0.1:80 --per-s 0",
            "set -t 10.1.0.1:80 --per-s 1000001",
            "set -t 10.1.0.1:80 --per-s 5 --source-v4 24",
            "set -t 10.1.0.1:80 --source-per-s 5 --source-v4 33",
            "del",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let Ok(LimitAction::Del(args)) = parse("del -t nowhere") else {
            panic!("not parsed");
        };
        assert!(args.key().is_err());
    }

    #[test]
    fn the_listing() {
        let row = |mark: u32, connections_per_s, source_connections_per_s| Row {
            service: ServiceKey::Fwmark {
                mark: NonZeroU32::new(mark).unwrap(),
                family: Family::V4,
            },
            limits: ServiceLimits {
                connections_per_s,
                source_connections_per_s,
                ..ServiceLimits::default()
            },
        };
        let mut out = Vec::new();
        write_rows(&mut out, &[row(1, 500, 0), row(22, 0, 20)]).unwrap();
        let expected = "SERVICE      PER-S  SOURCE-PER-S  NETWORK\n\
                        fwmark 1       500             -  -\n\
                        fwmark 22        -            20  /32 /56\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
