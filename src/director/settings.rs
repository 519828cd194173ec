//! The tunables by name: IPVS's sysctls (Documentation/networking/ipvs-sysctl.rst), their
//! defaults and ranges.
//!
//! All of IPVS's names are known, so that a host's sysctl file can be carried over; what
//! this director does not act on is kept and said so when it is set.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use dataplane::tunables::Tunables;
use sched::command::Refusal;

const INT_MAX: i64 = i32::MAX as i64;
const SWITCH: RangeInclusive<i64> = 0..=1;
const LEVEL: RangeInclusive<i64> = 0..=3;
const ANY: RangeInclusive<i64> = 0..=INT_MAX;
/// The longest timeout that `--set` takes, s: Linux's limit at its 250 ticks a second.
const TIMEOUT_MAX_S: u32 = (i32::MAX / 250) as u32;

struct Known {
    name: &'static str,
    default: &'static str,
    range: RangeInclusive<i64>,
    /// None where the director does not act on it.
    set: Option<fn(&mut Tunables, u32)>,
}

const fn known(
    name: &'static str,
    default: &'static str,
    range: RangeInclusive<i64>,
    set: Option<fn(&mut Tunables, u32)>,
) -> Known {
    Known {
        name,
        default,
        range,
        set,
    }
}

static KNOWN: &[Known] = &[
    known(
        "am_droprate",
        "10",
        1..=INT_MAX,
        Some(|t, v| t.am_droprate = v),
    ),
    known("amemthresh", "1024", ANY, None),
    known("backup_only", "0", SWITCH, None),
    known(
        "cache_bypass",
        "0",
        SWITCH,
        Some(|t, v| t.cache_bypass = v != 0),
    ),
    known(
        "conn_reuse_mode",
        "1",
        LEVEL,
        Some(|t, v| t.conn_reuse_mode = v),
    ),
    known("conntrack", "0", SWITCH, None),
    known("drop_entry", "0", LEVEL, Some(|t, v| t.drop_entry = v)),
    known("drop_packet", "0", LEVEL, Some(|t, v| t.drop_packet = v)),
    known(
        "expire_nodest_conn",
        "0",
        SWITCH,
        Some(|t, v| t.expire_nodest_conn = v != 0),
    ),
    known(
        "expire_quiescent_template",
        "0",
        SWITCH,
        Some(|t, v| t.expire_quiescent_template = v != 0),
    ),
    known(
        "ignore_tunneled",
        "0",
        SWITCH,
        Some(|t, v| t.ignore_tunneled = v != 0),
    ),
    known(
        "nat_icmp_send",
        "0",
        SWITCH,
        Some(|t, v| t.nat_icmp_send = v != 0),
    ),
    known("pmtu_disc", "1", SWITCH, Some(|t, v| t.pmtu_disc = v != 0)),
    known("run_estimation", "1", SWITCH, Some(|_, _| {})),
    known(
        "schedule_icmp",
        "0",
        SWITCH,
        Some(|t, v| t.schedule_icmp = v != 0),
    ),
    known("secure_tcp", "0", LEVEL, Some(|t, v| t.secure_tcp = v)),
    known(
        "sloppy_sctp",
        "0",
        SWITCH,
        Some(|t, v| t.sloppy_sctp = v != 0),
    ),
    known(
        "sloppy_tcp",
        "0",
        SWITCH,
        Some(|t, v| t.sloppy_tcp = v != 0),
    ),
    known("snat_reroute", "1", SWITCH, None),
    known("sync_persist_mode", "0", SWITCH, None),
    known("sync_ports", "1", 1..=64, None),
    known("sync_qlen_max", "0", ANY, None),
    known("sync_refresh_period", "0", ANY, None),
    known("sync_retries", "0", LEVEL, None),
    known("sync_sock_size", "0", ANY, None),
    known("sync_threshold", "3 50", ANY, None),
    known("sync_version", "1", SWITCH, None),
];

/// All tunables' values.
#[derive(Clone, Debug)]
pub struct Settings {
    values: BTreeMap<&'static str, String>,
    tunables: Tunables,
}

impl Default for Settings {
    fn default() -> Self {
        let values = KNOWN.iter().map(|k| (k.name, k.default.to_owned()));
        Self {
            values: values.collect(),
            tunables: Tunables::default(),
        }
    }
}

impl Settings {
    /// What workers read.
    pub fn tunables(&self) -> &Tunables {
        &self.tunables
    }

    /// Every name and its value.
    pub fn values(&self) -> &BTreeMap<&'static str, String> {
        &self.values
    }

    /// Whether counters and rates are estimated.
    pub fn estimates(&self) -> bool {
        self.values["run_estimation"] != "0"
    }

    /// Sets a tunable by its name, with or without `net.ipv4.vs.` before it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let short = name.strip_prefix("net.ipv4.vs.").unwrap_or(name);
        let Some(known) = KNOWN.iter().find(|k| k.name == short) else {
            return Err(Refusal::NoSuchTunable { name: name.into() });
        };
        let text = if known.name == "sync_threshold" {
            pair(known, value)?
        } else {
            let number = number(known, value)?;
            if let Some(set) = known.set {
                set(&mut self.tunables, number);
            }
            number.to_string()
        };
        if known.set.is_none() {
            tracing::warn!("{short} is kept, but this version of lvx does not act on it");
        }
        self.values.insert(known.name, text);
        Ok(())
    }

    /// Sets the timeouts of `--set`; 0 keeps a value.
    pub fn set_timeouts(&mut self, tcp_s: u32, fin_s: u32, udp_s: u32) -> Result<(), Refusal> {
        if [tcp_s, fin_s, udp_s].iter().any(|&s| s > TIMEOUT_MAX_S) {
            let what = format!("timeouts are 0 to {TIMEOUT_MAX_S} s");
            return Err(Refusal::OutOfRange { what });
        }
        let keep = |old: &mut u32, new| *old = if new == 0 { *old } else { new };
        keep(&mut self.tunables.timeout_tcp_s, tcp_s);
        keep(&mut self.tunables.timeout_tcp_fin_s, fin_s);
        keep(&mut self.tunables.timeout_udp_s, udp_s);
        Ok(())
    }
}

fn number(known: &Known, text: &str) -> Result<u32, Refusal> {
    let number: Option<i64> = text.trim().parse().ok();
    match number.filter(|n| known.range.contains(n)) {
        Some(number) => Ok(number as u32),
        None => Err(Refusal::OutOfRange {
            what: format!(
                "{} is a number from {} to {}",
                known.name,
                known.range.start(),
                known.range.end()
            ),
        }),
    }
}

/// `sync_threshold`: two numbers, the first below the second unless that is 0.
fn pair(known: &Known, text: &str) -> Result<String, Refusal> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if let [first, second] = words[..] {
        let (first, second) = (number(known, first)?, number(known, second)?);
        if first < second || second == 0 {
            return Ok(format!("{first} {second}"));
        }
    }
    Err(Refusal::OutOfRange {
        what: format!("{} is two numbers, the first below the second", known.name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let rows = [
            ("drop_packet", "3", Some("3")),
            ("drop_packet", "4", None),
            ("drop_packet", "-1", None),
            ("drop_packet", "x", None),
            ("net.ipv4.vs.conn_reuse_mode", "0", Some("0")),
            ("am_droprate", "0", None),
            ("am_droprate", "20", Some("20")),
            ("sync_threshold", "3 50", Some("3 50")),
            ("sync_threshold", "50 3", None),
            ("sync_threshold", "5 0", Some("5 0")),
            ("sync_threshold", "5", None),
            ("expire_nodest_conn", "2", None),
        ];
        for (name, value, expected) in rows {
            let mut settings = Settings::default();
            let before = settings.values.clone();
            let short = name.trim_start_matches("net.ipv4.vs.");
            match (settings.set(name, value), expected) {
                (Ok(()), Some(text)) => assert_eq!(settings.values[short], text, "{name}={value}"),
                (Err(Refusal::OutOfRange { .. }), None) => assert_eq!(settings.values, before),
                (other, _) => panic!("{name}={value}: {other:?}"),
            }
        }
        let unknown = Settings::default().set("droppacket", "1");
        assert!(matches!(unknown, Err(Refusal::NoSuchTunable { name }) if name == "droppacket"));
    }

    #[test]
    fn names_defaults_and_workers_defaults_agree() {
        let mut settings = Settings::default();
        for known in KNOWN {
            settings.set(known.name, known.default).unwrap();
        }
        assert_eq!(*settings.tunables(), Tunables::default());
        assert!(KNOWN.is_sorted_by_key(|known| known.name));
    }

    #[test]
    fn a_timeout_of_zero_keeps_the_old_one() {
        let mut settings = Settings::default();
        settings.set_timeouts(0, 30, 0).unwrap();
        let tunables = settings.tunables();
        assert_eq!(
            [
                tunables.timeout_tcp_s,
                tunables.timeout_tcp_fin_s,
                tunables.timeout_udp_s
            ],
            [900, 30, 300]
        );
        assert!(settings.set_timeouts(u32::MAX, 0, 0).is_err());
    }
}
