//! `POST /v1/explain`: a packet made up or given, through the steering rules and the packet
//! path's own code over copies, and told in words. Runs on the API's side, on what control
//! has published; nothing here changes a director.

mod frame;
#[cfg(test)]
mod tests;
mod words;

use std::net::SocketAddr;
use std::sync::Arc;

use cli::api::{ExplainRequest, ExplainedStep, Explanation};
use dataplane::address::{Endpoint, address, bits};
use dataplane::connection::table::{Key, Table};
use dataplane::explain as dry;
use dataplane::hops::{Mac, Way};
use dataplane::port::steering::{Steered, SteeringRules};
use dataplane::snapshot::Snapshot;
use dataplane::time::Ticks;
use dataplane::verdict::Verdict;
use sched::service::{Family, Protocol};

/// The longest frame that is explained; longer ones do not fit a port's memory either.
const FRAME_BYTES_MAX: usize = 65_550;

/// What an explanation is based on.
#[derive(Clone, Debug)]
pub struct World {
    /// What workers decide by.
    pub snapshot: Arc<Snapshot>,
    /// What the steering program looks for.
    pub steered: Arc<SteeringRules>,
    /// The ports' devices, by port number.
    pub ports: Vec<String>,
}

/// Explains a packet; the error says what is wrong with the request.
pub fn explain(
    world: &World,
    table: &Table,
    now: Ticks,
    request: &ExplainRequest,
) -> Result<Explanation, String> {
    let (device, bytes) = match request {
        ExplainRequest::Frame { hex, any_link } => given(world, hex, *any_link)?,
        ExplainRequest::Flow {
            protocol,
            client,
            destination,
            flags,
            from_server,
        } => {
            let (from, to) = match from_server {
                false => (*client, *destination),
                true => reply(table, *protocol, *client, *destination)?,
            };
            let (device, mac) = entrance(world, from)?;
            (device, frame::build(*protocol, from, to, flags, mac)?)
        }
    };
    let steered = world.steered.steer(device, &bytes);
    let mut steps = vec![step("steer", words::steered(steered))];
    if steered == Steered::Denied {
        steps.push(step("verdict", "dropped by the steering program"));
        return Ok(Explanation {
            steps,
            verdict: "drop".into(),
            reason: Some("steering_denied".into()),
            frame: hex(&bytes),
        });
    }
    if !steered.is_taken() {
        steps.push(step(
            "verdict",
            "the host's own stack gets it; the director never sees it",
        ));
        return Ok(Explanation {
            steps,
            verdict: "passed".into(),
            reason: None,
            frame: hex(&bytes),
        });
    }
    let dry = dry::explain(&world.snapshot, table, now, &bytes);
    steps.extend(words::steps(&dry, now, &world.ports));
    steps.extend(words::rewritten(&bytes, &dry.frame));
    steps.push(step("verdict", words::verdict(dry.verdict, &world.ports)));
    let reason = match dry.verdict {
        Verdict::Drop(reason) => Some(reason.name().to_owned()),
        _ => None,
    };
    Ok(Explanation {
        steps,
        verdict: words::verdict_name(dry.verdict).into(),
        reason,
        frame: hex(&dry.frame),
    })
}

fn step(stage: &str, text: impl Into<String>) -> ExplainedStep {
    ExplainedStep {
        stage: stage.into(),
        text: text.into(),
        servers: Vec::new(),
    }
}

/// A frame as it was given, and the port that it is addressed to (the first, if none).
fn given(world: &World, digits: &str, any_link: bool) -> Result<(u32, Vec<u8>), String> {
    let mut bytes = unhex(digits)?;
    let rules = &world.steered;
    let first = *rules.macs.first().ok_or("the director has no port")?;
    let mut stations = rules.macs.iter().chain(&rules.stations);
    let addressed = stations.find(|(_, mac)| bytes.starts_with(mac));
    if any_link && addressed.is_none() && bytes.len() >= 6 {
        bytes[..6].copy_from_slice(&first.1);
    }
    Ok((addressed.unwrap_or(&first).0, bytes))
}

/// The port by which packets from an address come: the one by which packets to it leave.
fn entrance(world: &World, from: SocketAddr) -> Result<(u32, Mac), String> {
    let rules = &world.steered;
    let way = world
        .snapshot
        .hops
        .lookup(Family::of(from.ip()), bits(from.ip()));
    let by_way = match way {
        Way::Ready(hop) | Way::Unresolved(_, hop) => {
            let mut stations = rules.macs.iter().chain(&rules.stations);
            stations.find(|(_, mac)| *mac == hop.source)
        }
        _ => None,
    };
    let port = by_way.or(rules.macs.first());
    Ok(*port.ok_or("the director has no port")?)
}

/// The ends of a server's reply to this flow.
fn reply(
    table: &Table,
    protocol: Protocol,
    client: SocketAddr,
    destination: SocketAddr,
) -> Result<(SocketAddr, SocketAddr), String> {
    let end = |end: SocketAddr| Endpoint {
        address: bits(end.ip()),
        port: end.port(),
    };
    let key = Key {
        family: Family::of(client.ip()),
        template: false,
        protocol: protocol.number(),
        client: end(client),
        virtual_: end(destination),
    };
    let Some(row) = dry::find(table, &key) else {
        return Err(format!(
            "{client} has no connection to {destination}, so no server replies to it; leave \
             --from-server out to see how it would begin"
        ));
    };
    let real = address(row.real_family, row.real.address);
    Ok((SocketAddr::new(real, row.real.port), client))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<char> = text
        .chars()
        .filter(|letter| !letter.is_whitespace() && *letter != ':')
        .collect();
    if digits.len() > 2 * FRAME_BYTES_MAX {
        return Err(format!("the frame is longer than {FRAME_BYTES_MAX} bytes"));
    }
    let value = |digit: &char| {
        digit
            .to_digit(16)
            .ok_or_else(|| format!("{digit} is no hexadecimal digit"))
    };
    let pair = |pair: &[char]| match pair {
        [high, low] => Ok((value(high)? << 4 | value(low)?) as u8),
        _ => Err("an odd number of hexadecimal digits".to_owned()),
    };
    digits.chunks(2).map(pair).collect()
}
