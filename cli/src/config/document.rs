//! The file as TOML: parts whose values know their places.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::Problem;
use crate::shell::nearest;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Document {
    pub director: Director,
    pub timeouts: Timeouts,
    pub tunables: BTreeMap<Spanned<String>, Spanned<Value>>,
    pub prefixes: Option<Prefixes>,
    pub fwmark: Vec<Mark>,
    pub service: Vec<Spanned<Service>>,
}

/// `[director]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Director {
    pub ports: Vec<Spanned<String>>,
    pub api: Option<PathBuf>,
    pub api_group: Option<String>,
    pub api_read_group: Option<String>,
    pub cores: Vec<Spanned<usize>>,
    pub queues: Option<Spanned<u32>>,
    pub connections: Option<Spanned<u64>>,
    pub busy_poll: bool,
    pub copy: bool,
    pub require_local: bool,
}

/// `[timeouts]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    pub tcp_s: Option<Spanned<u32>>,
    pub tcp_fin_s: Option<Spanned<u32>>,
    pub udp_s: Option<Spanned<u32>>,
}

/// `[prefixes]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prefixes {
    pub allow: Vec<Spanned<String>>,
    pub deny: Vec<Spanned<String>>,
}

/// `[[fwmark]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    pub mark: Spanned<u32>,
    pub address: Spanned<String>,
    pub protocol: Spanned<String>,
    pub ports: Spanned<Vec<u16>>,
}

/// `[[service]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    pub protocol: Option<Spanned<String>>,
    pub address: Option<Spanned<String>>,
    pub fwmark: Option<Spanned<u32>>,
    #[serde(default)]
    pub ipv6: bool,
    pub scheduler: Option<Spanned<String>>,
    #[serde(default)]
    pub flags: Vec<Spanned<String>>,
    pub persistent_s: Option<Spanned<u32>>,
    pub netmask: Option<Spanned<Value>>,
    pub engine: Option<Spanned<String>>,
    #[serde(default)]
    pub one_packet: bool,
    pub limits: Option<Spanned<Limits>>,
    #[serde(default)]
    pub server: Vec<Server>,
}

/// `[service.limits]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    #[serde(default)]
    pub connections_per_s: u32,
    #[serde(default)]
    pub source_connections_per_s: u32,
    pub source_v4_bits: Option<u8>,
    pub source_v6_bits: Option<u8>,
}

/// `[[service.server]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub address: Spanned<String>,
    pub forwarding: Option<Spanned<String>>,
    pub tunnel: Option<Spanned<String>>,
    pub tunnel_port: Option<Spanned<u16>>,
    pub tunnel_checksum: Option<Spanned<String>>,
    pub weight: Option<Spanned<u32>>,
    pub upper: Option<Spanned<u32>>,
    pub lower: Option<Spanned<u32>>,
}

/// Reads TOML.
pub fn parse(text: &str) -> Result<Document, Vec<Problem>> {
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        vec![told(span, error.message())]
    })
}

/// serde lists all words that it knows; people want the one that they meant.
fn told(span: std::ops::Range<usize>, message: &str) -> Problem {
    let mut words = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown field").then(|| words.next());
    let Some(Some(typed)) = unknown else {
        return Problem::at(span, message);
    };
    let known: Vec<&str> = words.collect();
    let help = match nearest(typed, known.iter().copied()) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("there are {}", known.join(", ")),
    };
    Problem::at(span, format!("nothing here is called `{typed}`")).help(help)
}
