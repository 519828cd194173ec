//! `lvx explain`: asks the director what it would do with a packet, and shows the answer.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::api::{ExplainRequest, ExplainedStep, Explanation};
use crate::client::Client;
use crate::commands::{Error, ProtocolName, write_json};
use crate::director::DirectorError;

/// Which packet.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The flow's protocol
    #[arg(requires = "destination", required_unless_present_any = ["frame", "pcap"])]
    protocol: Option<ProtocolName>,
    /// The client, ADDRESS:PORT; [ADDRESS]:PORT for IPv6
    client: Option<SocketAddr>,
    /// What it asks for, ADDRESS:PORT
    destination: Option<SocketAddr>,
    /// TCP's flags, of the letters FSRPAU
    #[arg(long, default_value = "S", value_parser = parse_flags)]
    flags: String,
    /// The server's reply to that flow
    #[arg(long)]
    from_server: bool,
    /// This frame, in hexadecimal digits, from its link header on
    #[arg(long, value_name = "HEX", conflicts_with_all = ["protocol", "pcap"])]
    frame: Option<String>,
    /// A frame of this capture (classic pcap, Ethernet)
    #[arg(long, value_name = "FILE", conflicts_with = "protocol")]
    pcap: Option<PathBuf>,
    /// Which frame of it, from 1
    #[arg(long, value_name = "N", default_value = "1", requires = "pcap")]
    packet: usize,
    /// As if the frame were addressed to a port of the director, whatever it says
    #[arg(long)]
    any_link: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

fn parse_flags(text: &str) -> Result<String, String> {
    match text.chars().find(|letter| !"FSRPAU".contains(*letter)) {
        Some(letter) => Err(format!("{letter} is none of the flags F, S, R, P, A and U")),
        None => Ok(text.to_owned()),
    }
}

pub(crate) fn run(
    client: &mut Client,
    out: &mut dyn Write,
    args: &ExplainArgs,
) -> Result<(), Error> {
    let explanation = client
        .explain(&request(args)?)
        .map_err(|error| match error {
            // What is wrong is the question.
            DirectorError::Failed {
                status: 400,
                reason,
                ..
            } => Error::Refused(reason),
            error => error.into(),
        })?;
    match args.json {
        true => write_json(out, &explanation)?,
        false => out.write_all(shown(&explanation).as_bytes())?,
    }
    Ok(())
}

fn request(args: &ExplainArgs) -> Result<ExplainRequest, Error> {
    if let (Some(protocol), Some(client), Some(destination)) =
        (args.protocol, args.client, args.destination)
    {
        return Ok(ExplainRequest::Flow {
            protocol: protocol.into(),
            client,
            destination,
            flags: args.flags.clone(),
            from_server: args.from_server,
        });
    }
    let hex = match (&args.frame, &args.pcap) {
        (Some(hex), _) => hex.clone(),
        (None, Some(path)) => captured(path, args.packet).map_err(Error::Refused)?,
        (None, None) => return Err(Error::Refused("name a flow, --frame or --pcap".into())),
    };
    Ok(ExplainRequest::Frame {
        hex,
        any_link: args.any_link,
    })
}

/// Frame `number` of a capture, in hexadecimal digits
/// (<https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html>).
fn captured(path: &Path, number: usize) -> Result<String, String> {
    let wrong = |what: &str| format!("{}: {what}", path.display());
    let bytes = fs::read(path).map_err(|error| wrong(&error.to_string()))?;
    let swapped = match bytes.first_chunk::<4>() {
        Some([0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1]) => false,
        Some([0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d]) => true,
        _ => {
            return Err(wrong(
                "not a classic pcap file; `tcpdump -r IN -w OUT` makes one",
            ));
        }
    };
    let word = |at: usize| -> Option<usize> {
        let word = *bytes.get(at..)?.first_chunk::<4>()?;
        let word = if swapped {
            u32::from_be_bytes(word)
        } else {
            u32::from_le_bytes(word)
        };
        Some(word as usize)
    };
    if word(20).is_none_or(|link| link & 0xffff != 1) {
        return Err(wrong("its frames are not Ethernet"));
    }
    let mut at = 24;
    for passed in 1.. {
        let Some(length) = word(at + 8) else {
            return Err(wrong(&format!(
                "has {} frames, no frame {number}",
                passed - 1
            )));
        };
        if passed == number {
            let frame = bytes.get(at + 16..at + 16 + length);
            let frame = frame.ok_or_else(|| wrong("ends within the frame"))?;
            return Ok(frame.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            }));
        }
        at += 16 + length;
    }
    Err(wrong("no such frame"))
}

/// As people read it: the part of the way, then what happens there.
fn shown(explanation: &Explanation) -> String {
    let mut text = String::new();
    for step in &explanation.steps {
        let _ = writeln!(text, "{:<11} {}", step.stage, step.text);
        show_servers(&mut text, step);
    }
    text
}

fn show_servers(text: &mut String, step: &ExplainedStep) {
    if step.servers.is_empty() {
        return;
    }
    let address = |server: &sched::server::ServerKey| {
        SocketAddr::new(server.address, server.port).to_string()
    };
    let widths = step.servers.iter().map(|row| address(&row.server).len());
    let width = widths.max().unwrap_or(0).max("server".len());
    let _ = writeln!(
        text,
        "{:14}{:<width$} {:>8} {:>8} {:>8} {:>8} {:>12}",
        "", "server", "weight", "active", "inactive", "cost", "cost/weight"
    );
    for row in &step.servers {
        let cost = row
            .cost
            .map_or_else(|| "-".to_owned(), |cost| cost.to_string());
        // What the scheduler compares.
        let share = match (row.cost, row.weight) {
            (Some(cost), 1..) => format!("{:.2}", cost as f64 / f64::from(row.weight)),
            _ => "-".to_owned(),
        };
        let note = match (row.overloaded, row.weight) {
            (true, _) => "  overloaded",
            (false, 0) => "  drained",
            _ => "",
        };
        let _ = writeln!(
            text,
            "{:>13} {:<width$} {:>8} {:>8} {:>8} {cost:>8} {share:>12}{note}",
            if row.chosen { ">" } else { "" },
            address(&row.server),
            row.weight,
            row.active,
            row.inactive,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CandidateRow;

    #[test]
    fn explanations_are_shown_in_columns() {
        let row = |last: u8, cost, chosen| CandidateRow {
            server: sched::server::ServerKey {
                address: [10, 2, 0, last].into(),
                port: 80,
            },
            weight: u32::from(last != 12),
            active: 1,
            inactive: 2,
            overloaded: false,
            cost,
            chosen,
        };
        let step = |stage: &str, text: &str, servers| ExplainedStep {
            stage: stage.into(),
            text: text.into(),
            servers,
        };
        let explanation = Explanation {
            steps: vec![
                step("service", "tcp 10.1.0.1:80", vec![]),
                step(
                    "schedule",
                    "wlc",
                    vec![row(12, None, false), row(11, Some(258), true)],
                ),
            ],
            verdict: "transmit".into(),
            reason: None,
            frame: String::new(),
        };
        let wanted = "\
service     tcp 10.1.0.1:80
schedule    wlc
              server         weight   active inactive     cost  cost/weight
              10.2.0.12:80        0        1        2        -            -  drained
            > 10.2.0.11:80        1        1        2      258       258.00
";
        assert_eq!(shown(&explanation), wanted);
    }

    #[test]
    fn frames_of_captures_are_found() {
        let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
        file.extend([0; 12]);
        file.extend([1, 0, 0, 0]);
        for frame in [&[1, 2][..], &[0xab, 3, 4]] {
            file.extend([0; 8]);
            let length = (frame.len() as u32).to_le_bytes();
            file.extend([length, length].concat());
            file.extend(frame);
        }
        let path = std::env::temp_dir().join(format!("lvx-explain-{}.pcap", std::process::id()));
        fs::write(&path, &file).unwrap();
        let rows = [
            (1, Ok("0102")),
            (2, Ok("ab0304")),
            (3, Err("has 2 frames, no frame 3")),
        ];
        for (number, wanted) in rows {
            match (captured(&path, number), wanted) {
                (Ok(hex), Ok(wanted)) => assert_eq!(hex, wanted),
                (Err(error), Err(wanted)) => assert!(error.ends_with(wanted), "{error}"),
                (got, wanted) => panic!("{got:?}, not {wanted:?}"),
            }
        }
        fs::remove_file(&path).unwrap();
    }
}
