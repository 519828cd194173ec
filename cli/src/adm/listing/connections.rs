//! The list of connections (`-L -c`). Written row by row as they come: there may be
//! millions.

use std::io::{self, Write};

use sched::service::Protocol;

use super::Style;
use crate::api::ConnectionRow;

/// Writes what stands above the connections. `persistent_conn` adds the columns of
/// `--persistent-conn`.
pub fn connections_heading(out: &mut dyn Write, persistent_conn: bool) -> io::Result<()> {
    writeln!(out, "IPVS connection entries")?;
    write!(
        out,
        "pro expire {:<11} {:<18} {:<18} ",
        "state", "source", "virtual"
    )?;
    match persistent_conn {
        false => writeln!(out, "destination"),
        true => writeln!(out, "{:<18} {:<16} pe_data", "destination", "pe name"),
    }
}

/// Writes one connection.
pub fn connection(out: &mut dyn Write, row: &ConnectionRow, style: Style<'_>) -> io::Result<()> {
    let protocol = Protocol::from_number(row.protocol);
    let name = match protocol {
        Some(Protocol::Tcp) => "TCP",
        Some(Protocol::Udp) => "UDP",
        Some(Protocol::Sctp) => "SCTP",
        None => "IP",
    };
    let client = style.endpoint(row.client, row.client_port, protocol);
    let virtual_end = style.endpoint(row.virtual_address, row.virtual_port, protocol);
    let server = style.endpoint(row.server, row.server_port, protocol);
    let (minutes, seconds) = (row.expires_s / 60, row.expires_s % 60);
    let expires = format!("{minutes:02}:{seconds:02}");
    writeln!(
        out,
        "{name:<3} {expires:<6} {:<11} {client:<18} {virtual_end:<18} {server}",
        row.state
    )
}
