//! The tunables by name: IPVS's sysctls (Documentation/networking/ipvs-sysctl.rst), their
//! defaults and ranges.
//!
//! All of IPVS's names are known, so that a host's sysctl file can be carried over; what
//! this director does not act on is kept and said so when it is set.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use cli::api::Timeouts;
use cli::config::TIMEOUT_MAX_S;
use dataplane::tunables::Tunables;
use sched::command::Refusal;

const INT_MAX: i64 = i32::MAX as i64;
const SWITCH: RangeInclusive<i64> = 0..=1;
const LEVEL: RangeInclusive<i64> = 0..=3;
const ANY: RangeInclusive<i64> = 0..=INT_MAX;

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
    known("amemthresh", "1024", ANY, Some(|_, _| {})),
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
    /// The connection table's memory, in pages.
    all_pages: u64,
    /// Memory that was left at the last look, in pages; none where it was not short.
    short_pages: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        let values = KNOWN.iter().map(|k| (k.name, k.default.to_owned()));
        Self {
            values: values.collect(),
            tunables: Tunables::default(),
            all_pages: 0,
            short_pages: None,
        }
    }
}

impl Settings {
    /// What workers read: the defences that are in force show as always on (3), others as
    /// off.
    pub fn tunables(&self) -> Tunables {
        let in_force = |level: u32| match level {
            3 => 3,
            2 if self.short_pages.is_some() => 3,
            _ => 0,
        };
        let rate = match (self.tunables.drop_packet, self.short_pages) {
            (2, Some(left)) => {
                let wanted = self.low_pages();
                (wanted / (wanted - left).max(1)).max(1) as u32
            }
            _ => self.tunables.am_droprate,
        };
        Tunables {
            am_droprate: rate,
            drop_entry: in_force(self.tunables.drop_entry),
            drop_packet: in_force(self.tunables.drop_packet),
            secure_tcp: in_force(self.tunables.secure_tcp),
            ..self.tunables.clone()
        }
    }

    /// Looks whether memory is short, and takes the defences of levels 1 and 2 up or back
    /// (Linux's `update_defense_level`, each second): level 1 becomes 2 where it is, 2
    /// becomes 1 where it is not. Memory is the connection table: `left_pages` of
    /// `all_pages` pages of 4096 bytes are free, short is less than `amemthresh`, or than an
    /// eighth of a small table. Whether what workers read has changed.
    pub fn defend(&mut self, left_pages: u64, all_pages: u64) -> bool {
        let before = self.tunables();
        self.all_pages = all_pages;
        self.short_pages = (left_pages < self.low_pages()).then_some(left_pages);
        let (from, to) = match self.short_pages {
            Some(_) => (1, 2),
            None => (2, 1),
        };
        let levels: [(&str, &mut u32); 3] = [
            ("drop_entry", &mut self.tunables.drop_entry),
            ("drop_packet", &mut self.tunables.drop_packet),
            ("secure_tcp", &mut self.tunables.secure_tcp),
        ];
        for (name, level) in levels {
            if *level == from {
                *level = to;
                if let Some(value) = self.values.get_mut(name) {
                    *value = to.to_string();
                }
                match to {
                    2 => tracing::warn!("the connection table is nearly full: {name} is in force"),
                    _ => tracing::info!("the connection table has room again: {name} rests"),
                }
            }
        }
        self.tunables() != before
    }

    /// Below how many pages memory is short.
    fn low_pages(&self) -> u64 {
        let wanted = self.values["amemthresh"].parse().unwrap_or(0);
        u64::min(wanted, self.all_pages / 8)
    }

    /// The timeouts of `--set`.
    pub fn timeouts(&self) -> Timeouts {
        Timeouts {
            tcp_s: self.tunables.timeout_tcp_s,
            tcp_fin_s: self.tunables.timeout_tcp_fin_s,
            udp_s: self.tunables.timeout_udp_s,
        }
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
        assert_eq!(settings.tunables(), Tunables::default());
        assert!(KNOWN.is_sorted_by_key(|known| known.name));
    }

    #[test]
    fn defences_come_up_when_memory_is_short() {
        let mut settings = Settings::default();
        let shown = |settings: &Settings| {
            let value = |name: &str| settings.values[name].clone();
            ["drop_entry", "drop_packet", "secure_tcp"]
                .map(value)
                .join(" ")
        };
        let in_force = |settings: &Settings| {
            let t = settings.tunables();
            (t.drop_entry, t.drop_packet, t.secure_tcp, t.am_droprate)
        };
        for (name, value) in [
            ("drop_entry", "1"),
            ("drop_packet", "1"),
            ("secure_tcp", "3"),
        ] {
            settings.set(name, value).unwrap();
        }
        let rows = [
            ("room enough", 1024, false, "1 1 3", (0, 0, 3, 10)),
            ("short", 1023, true, "2 2 3", (3, 3, 3, 1024)),
            ("shorter: a greater share", 512, true, "2 2 3", (3, 3, 3, 2)),
            ("full: every packet", 0, true, "2 2 3", (3, 3, 3, 1)),
            ("the same again", 0, false, "2 2 3", (3, 3, 3, 1)),
            ("room again", 5000, true, "1 1 3", (0, 0, 3, 10)),
        ];
        for (what, left, changed, text, expected) in rows {
            assert_eq!(settings.defend(left, 20_000), changed, "{what}");
            assert_eq!(shown(&settings), text, "{what}");
            assert_eq!(in_force(&settings), expected, "{what}");
        }
        settings.set("drop_entry", "0").unwrap();
        settings.defend(99, 800);
        assert_eq!(
            in_force(&settings),
            (0, 3, 3, 100),
            "an eighth of a small table"
        );
        settings.defend(100, 800);
        assert_eq!(in_force(&settings).1, 0);
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
