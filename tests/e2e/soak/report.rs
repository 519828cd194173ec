//! What a soak found, as a table for people or as JSON, and the verdict.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Value, json};

use super::drain::Drained;
use super::watch::{ANONYMOUS, DESCRIPTORS, Look, NAMESPACES, OBJECTS, PINS, RESOURCES, THREADS};
use super::{Kind, Plan, Scene};

/// Anonymous memory that one process may gain after its first quarter: the allocator's own ups and downs.
const GAIN_KB_MAX: u64 = 4096;
/// Clients of the API come and go: descriptors and threads that one process may gain.
const GAIN_MAX: u64 = 8;

/// Why drops are no fault here. What is not named is.
const EXPECTED: [(&str, &str); 22] = [
    ("link_truncated", "damaged frames"),
    ("not_ip", "damaged frames"),
    ("network_malformed", "damaged frames"),
    ("network_checksum", "damaged frames"),
    ("transport_malformed", "damaged frames"),
    ("extension_limit", "damaged frames"),
    ("fragment_invalid", "damaged frames"),
    ("fragment_limit", "fragments whose fellows never come"),
    ("fragment_timeout", "fragments whose fellows never come"),
    ("hop_limit", "damaged frames"),
    ("icmp_malformed", "damaged frames"),
    ("icmp_forbidden", "damaged frames"),
    ("too_big", "damaged frames"),
    ("no_connection", "replies to nobody's connections"),
    ("no_server", "services that come and go"),
    ("server_gone", "services that come and go"),
    ("neighbour_unreachable", "servers that do not exist"),
    ("neighbour_limit", "servers that do not exist"),
    ("no_route", "servers that do not exist"),
    ("service_limit", "limits of services that come and go"),
    ("table_full", "floods"),
    ("drop_packet", "floods"),
];

pub struct Report {
    plan: Plan,
    took_s: f64,
    done: Vec<(&'static str, u64)>,
    gaps: Vec<(Kind, Vec<f64>)>,
    lost: Vec<String>,
    pub faults: Vec<String>,
    drops: BTreeMap<String, u64>,
    events: BTreeMap<String, u64>,
    looks: Vec<Look>,
    drained: Drained,
    pub kept: Option<String>,
}

impl Report {
    pub(super) fn new(scene: &Scene, looks: Vec<Look>, drained: Drained, counters: &str) -> Report {
        let tally = &scene.tally;
        let count = |of: &AtomicU64| of.load(Relaxed);
        let done = vec![
            ("downloads", count(&tally.downloads)),
            ("bytes_checked", count(&scene.downloads.bytes)),
            ("longest_pause_ms", count(&scene.downloads.pause_ms)),
            ("requests", count(&tally.requests)),
            ("datagrams_sent", count(&tally.sent)),
            ("datagrams_answered", count(&tally.answered)),
            ("edits", count(&tally.edits)),
            ("edits_repeated", count(&tally.repeated_edits)),
            ("restarts_compared", count(&tally.compared)),
            ("flood_packets", count(&tally.flooded)),
            ("damaged_frames", count(&tally.malformed)),
        ];
        let restarts = tally.restarts.lock().expect("no panic");
        let gaps = [Kind::Killed, Kind::TakenOver].map(|kind| {
            let of_kind = restarts.iter().filter(|restart| restart.kind == kind);
            let mut gaps: Vec<f64> = of_kind.map(|restart| restart.gap_ms).collect();
            gaps.sort_by(f64::total_cmp);
            (kind, gaps)
        });
        let all: BTreeMap<String, u64> = serde_json::from_str(counters).expect("lvx writes JSON");
        let (drops, events) = all
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .partition::<BTreeMap<_, _>, _>(|(name, _)| name.starts_with("drop_"));
        let drops = drops.into_iter();
        Report {
            plan: scene.plan,
            took_s: scene.at(),
            done,
            gaps: gaps.to_vec(),
            lost: tally.lost.lock().expect("no panic").clone(),
            faults: tally.faults.lock().expect("no panic").clone(),
            drops: drops
                .map(|(name, count)| (name["drop_".len()..].to_owned(), count))
                .collect(),
            events,
            looks,
            drained,
            kept: None,
        }
    }

    /// All that is wrong; nothing where the soak was passed.
    pub fn complaints(&self) -> Vec<String> {
        let mut all: Vec<String> = self.lost.iter().map(|l| format!("lost: {l}")).collect();
        all.extend(self.faults.iter().map(|fault| format!("fault: {fault}")));
        for (reason, count) in &self.drops {
            if why(reason).is_none() {
                all.push(format!("unexpected drops: {count} {reason}"));
            }
        }
        all.extend(self.leaks());
        for (name, count) in &self.done {
            if *count == 0 && !["edits_repeated", "longest_pause_ms"].contains(name) {
                all.push(format!("nothing was tried: no {name}"));
            }
        }
        if self.gaps.iter().all(|(_, gaps)| gaps.is_empty()) {
            all.push("nothing was tried: no restarts".into());
        }
        all
    }

    /// What grew within the last process, which nobody ended, or stands where it should not.
    fn leaks(&self) -> Vec<String> {
        let Some(last) = self.looks.last() else {
            return vec!["nobody looked at the director".into()];
        };
        let own: Vec<&Look> = self
            .looks
            .iter()
            .filter(|look| look.process == last.process)
            .collect();
        let settled = own[own.len() / 4];
        let mut leaks = Vec::new();
        let mut gain = |resource: usize, most: u64| {
            let (first, last) = (settled.resources[resource], last.resources[resource]);
            if last > first + most {
                let name = RESOURCES[resource];
                leaks.push(format!("leak: {name} grew from {first} to {last}"));
            }
        };
        gain(ANONYMOUS, GAIN_KB_MAX);
        gain(DESCRIPTORS, GAIN_MAX);
        gain(THREADS, GAIN_MAX);
        gain(OBJECTS, 0);
        for resource in [PINS, NAMESPACES] {
            let (first, last) = (self.looks[0].resources[resource], last.resources[resource]);
            if first != last {
                let name = RESOURCES[resource];
                leaks.push(format!("leak: {name} went from {first} to {last}"));
            }
        }
        // One look may be of two moments; frames that stay lost are lost in each.
        if own[own.len() / 2..].iter().all(|look| look.lost_frames > 0) {
            leaks.push(format!("leak: {} frames are nobody's", last.lost_frames));
        }
        leaks
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| _ = writeln!(out, "{text}");
        line(format!(
            "soak of {:.0} s and {:.0} s after it, seed {}",
            self.plan.load.as_secs_f64(),
            self.took_s - self.plan.load.as_secs_f64(),
            self.plan.seed
        ));
        for (name, count) in &self.done {
            line(format!("  {name:<24}{count:>14}"));
        }
        line(format!("  {:<24}{:>14}", "lost", self.lost.len()));
        self.lost
            .iter()
            .for_each(|lost| line(format!("    {lost}")));
        for (kind, gaps) in &self.gaps {
            let (name, what) = match kind {
                Kind::Killed => ("killed and started", "forwarding after"),
                Kind::TakenOver => ("taken over", "stood still for"),
            };
            let span = match (gaps.first(), gaps.get(gaps.len() / 2), gaps.last()) {
                (Some(least), Some(middle), Some(most)) => {
                    format!("{what} {least} / {middle} / {most} ms (least, median, most)")
                }
                _ => String::new(),
            };
            line(format!("  {name:<24}{:>14}  {span}", gaps.len()));
        }
        line("drops".into());
        for (reason, count) in &self.drops {
            let why = why(reason).unwrap_or("UNEXPECTED");
            line(format!("  {reason:<24}{count:>14}  {why}"));
        }
        line("events".into());
        for (name, count) in &self.events {
            line(format!("  {name:<24}{count:>14}"));
        }
        line(format!(
            "{:<26}{:>12}{:>12}{:>12}",
            "resources", "first", "last", "most"
        ));
        for (resource, [first, last, most]) in self.spans() {
            line(format!("  {resource:<24}{first:>12}{last:>12}{most:>12}"));
        }
        let Drained {
            counted: [table, listed, counts],
            filled: (filled, capacity),
            empty_after_s,
            left,
            lost_frames,
        } = self.drained;
        line("afterwards".into());
        line(format!(
            "  places taken              {table}, listed {listed}, counted by servers {counts}"
        ));
        line(format!(
            "  the table took            {filled} of {capacity}"
        ));
        line(format!(
            "  left after {empty_after_s:.0} s           {left} entries, {lost_frames} lost frames"
        ));
        if let Some(name) = &self.kept {
            line(format!(
                "kept: lab {name}; remove it by scripts/lab down {name}"
            ));
        }
        let complaints = self.complaints();
        complaints.iter().for_each(|what| line(what.clone()));
        line(match complaints.is_empty() {
            true => "passed".into(),
            false => format!("FAILED: {} complaints", complaints.len()),
        });
        out
    }

    fn spans(&self) -> Vec<(&'static str, [u64; 3])> {
        let span = |resource: usize| {
            let values = || self.looks.iter().map(|look| look.resources[resource]);
            [values().next(), values().next_back(), values().max()].map(Option::unwrap_or_default)
        };
        let names = RESOURCES.iter().enumerate();
        names
            .map(|(resource, name)| (*name, span(resource)))
            .collect()
    }

    pub fn json(&self) -> String {
        let pairs = |pairs: &[(&str, u64)]| -> Value {
            pairs
                .iter()
                .map(|(name, n)| (name.to_string(), json!(n)))
                .collect()
        };
        let gaps = |kind: Kind| {
            let found = self.gaps.iter().find(|(k, _)| *k == kind);
            found.map(|(_, gaps)| gaps.clone()).unwrap_or_default()
        };
        let resources: BTreeMap<&str, Value> = self
            .spans()
            .into_iter()
            .map(|(name, [first, last, most])| {
                (name, json!({ "first": first, "last": last, "most": most }))
            })
            .collect();
        let looks = self.looks.iter().map(|look| {
            json!({ "at_s": look.at_s, "process": look.process, "resources": look.resources })
        });
        let complaints = self.complaints();
        let report = json!({
            "load_s": self.plan.load.as_secs_f64(),
            "took_s": self.took_s,
            "seed": self.plan.seed,
            "done": pairs(&self.done),
            "lost": self.lost,
            "killed_forwarding_after_ms": gaps(Kind::Killed),
            "taken_over_stood_still_ms": gaps(Kind::TakenOver),
            "drops": self.drops,
            "unexpected_drops": self.drops.keys().filter(|r| why(r).is_none()).collect::<Vec<_>>(),
            "events": self.events,
            "resources": resources,
            "looks": looks.collect::<Vec<_>>(),
            "afterwards": {
                "places_taken": self.drained.counted[0],
                "listed": self.drained.counted[1],
                "counted_by_servers": self.drained.counted[2],
                "filled": self.drained.filled.0,
                "capacity": self.drained.filled.1,
                "empty_after_s": self.drained.empty_after_s,
                "left": self.drained.left,
                "lost_frames": self.drained.lost_frames,
            },
            "complaints": complaints,
            "passed": complaints.is_empty(),
        });
        serde_json::to_string_pretty(&report).expect("plain values") + "\n"
    }
}

fn why(reason: &str) -> Option<&'static str> {
    let found = EXPECTED.iter().find(|(name, _)| *name == reason);
    found.map(|(_, why)| *why)
}
