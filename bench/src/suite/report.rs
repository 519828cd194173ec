//! The page of figures: docs/benchmarks.md and its plots.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::plot::{Axis, Line, Plot, Scale, number};
use super::targets::{Target, Verdict, targets};
use super::{Figures, Part};
use crate::spread::Spread;
use crate::wire::results::{Change, Results, SystemResults};

/// The load whose delays are drawn, percent.
const DRAWN_LOAD: u32 = 50;

/// Writes the page, and its plots into the folder `benchmarks` beside it.
///
/// # Errors
/// Where a file cannot be written.
pub fn write(figures: &Figures, page: &Path) -> Result<(), String> {
    let folder = page.with_extension("");
    let failed = |path: &Path, error| format!("{}: {error}", path.display());
    fs::create_dir_all(&folder).map_err(|error| failed(&folder, error))?;
    let mut drawn = Vec::new();
    for (name, plot) in plots(figures) {
        let path = folder.join(name);
        fs::write(&path, plot.svg()).map_err(|error| failed(&path, error))?;
        drawn.push(name);
    }
    let base = folder.file_name().unwrap_or_default().to_string_lossy();
    let text = text(figures, &base, &drawn);
    fs::write(page, text).map_err(|error| failed(page, error))
}

const THROUGHPUT: &str = "throughput.svg";
const CONNECTIONS: &str = "connections.svg";
const LATENCY: &str = "latency.svg";

fn plots(figures: &Figures) -> Vec<(&'static str, Plot)> {
    let mut plots = Vec::new();
    if let Some(results) = &figures.wire {
        plots.push((THROUGHPUT, throughput_plot(results)));
        plots.push((LATENCY, latency_plot(results)));
    }
    let nat: Vec<(f64, f64)> = cost_by_connections(figures);
    if nat.len() > 1 {
        plots.push((CONNECTIONS, connections_plot(figures, nat)));
    }
    plots
}

fn throughput_plot(results: &Results) -> Plot {
    let mut lines = Vec::new();
    let (mut most, mut sizes) = (0.0f64, Vec::new());
    for system in &results.systems {
        let point = |row: &crate::wire::results::Throughput| {
            (row.frame_bytes as f64, row.rate_pps.median() / 1e6)
        };
        let points: Vec<(f64, f64)> = system.throughput.iter().map(point).collect();
        most = points.iter().fold(most, |most, point| most.max(point.1));
        if points.len() > sizes.len() {
            sizes = points.iter().map(|point| point.0).collect();
        }
        lines.push(Line {
            name: system.system.clone(),
            points,
        });
    }
    Plot {
        title: "Forwarded frames by frame length",
        x: Axis {
            label: "frame length, bytes",
            scale: Scale::Log,
            ticks: sizes.iter().map(|n| (*n, format!("{n}"))).collect(),
        },
        y: Axis::from_zero("forwarded, millions of frames a second", most),
        lines,
    }
}

fn latency_plot(results: &Results) -> Plot {
    let mut lines = Vec::new();
    let (mut least, mut most) = (f64::MAX, 0.0f64);
    for system in &results.systems {
        let load = system
            .latency
            .iter()
            .find(|load| load.percent == DRAWN_LOAD);
        let points: Vec<(f64, f64)> = load
            .into_iter()
            .flat_map(|load| &load.distribution)
            .filter(|(quantile, _)| *quantile < 1.0)
            .map(|(quantile, ns)| (1.0 / (1.0 - quantile), *ns as f64 / 1e3))
            .collect();
        for (_, us) in &points {
            (least, most) = (least.min(*us), most.max(*us));
        }
        lines.push(Line {
            name: system.system.clone(),
            points,
        });
    }
    let ticks = [
        (1.0, "0"),
        (2.0, "50"),
        (10.0, "90"),
        (100.0, "99"),
        (1e3, "99.9"),
        (1e4, "99.99"),
    ];
    Plot {
        title: "Delay at half of the rate, 64-byte frames",
        x: Axis {
            label: "share of frames, percent",
            scale: Scale::Log,
            ticks: ticks.map(|(at, text)| (at, text.to_owned())).to_vec(),
        },
        y: Axis::decades("delay of that share at most, us", least.min(most), most),
        lines,
    }
}

/// NAT's rows that differ by their connections only.
fn cost_by_connections(figures: &Figures) -> Vec<(f64, f64)> {
    let is_plain = |name: &str| name.ends_with("connections") || name.ends_with("1 connection");
    let plain = figures
        .pipeline
        .iter()
        .filter(|row| is_plain(&row.name) && !row.name.contains("new") && row.method == "nat");
    plain
        .filter(|row| !row.ns.is_empty())
        .map(|row| (row.connections as f64, row.ns.median()))
        .collect()
}

fn connections_plot(figures: &Figures, nat: Vec<(f64, f64)>) -> Plot {
    let ends = nat.iter().map(|point| point.0);
    let mut most_connections = ends.fold(1.0, f64::max);
    let mut lines = vec![Line {
        name: "NAT packet".to_owned(),
        points: nat,
    }];
    if let Some(report) = &figures.connections {
        let of = |pick: fn(&crate::connections::Size) -> f64| {
            let point = |size: &crate::connections::Size| (size.connections as f64, pick(size));
            report.sizes.iter().map(point).collect::<Vec<_>>()
        };
        let rows: [(&str, Vec<(f64, f64)>); 3] = [
            ("new connection", of(|size| size.begin_ns)),
            ("table look-up", of(|size| size.find_ns.median())),
            ("expiry", of(|size| size.expire_ns)),
        ];
        for (name, points) in rows {
            let ends = points.iter().map(|point| point.0);
            most_connections = ends.fold(most_connections, f64::max);
            lines.push(Line {
                name: name.to_owned(),
                points,
            });
        }
    }
    let points = lines.iter().flat_map(|line| &line.points);
    let most = points.map(|point| point.1).fold(0.0, f64::max);
    Plot {
        title: "Cost by number of connections, in memory, one core",
        x: Axis::decades("connections in the table", 1.0, most_connections),
        y: Axis::from_zero("time for one, ns", most),
        lines,
    }
}

/// The page.
fn text(figures: &Figures, folder: &str, drawn: &[&str]) -> String {
    let mut out = String::new();
    head(&mut out, figures);
    target_table(&mut out, &targets(figures));
    let plot = |out: &mut String, name: &str, what: &str| {
        if drawn.contains(&name) {
            let _ = writeln!(out, "![{what}]({folder}/{name})\n");
        }
    };
    if let Some(results) = &figures.wire {
        section(&mut out, figures, Part::Wire, "On a wire", WIRE);
        plot(&mut out, THROUGHPUT, "Forwarded frames by frame length");
        wire_tables(&mut out, results);
        plot(&mut out, LATENCY, "Delay at half of the rate");
    }
    if let Some(results) = &figures.beside {
        section(&mut out, figures, Part::Beside, "Side by side", BESIDE);
        wire_tables(&mut out, results);
        out.push('\n');
    }
    if let Some(results) = &figures.exchange {
        section(
            &mut out,
            figures,
            Part::Exchange,
            "Connections on a wire",
            EXCHANGE,
        );
        exchange_table(&mut out, results);
    }
    if let Some(results) = &figures.scaling {
        section(
            &mut out,
            figures,
            Part::Scaling,
            "More than one worker",
            SCALING,
        );
        scaling_table(&mut out, results);
    }
    if let Some(change) = figures
        .change
        .as_ref()
        .and_then(|results| results.change.as_ref())
    {
        section(
            &mut out,
            figures,
            Part::Change,
            "Changes under load",
            CHANGE,
        );
        change_table(&mut out, change);
    }
    if !figures.pipeline.is_empty() {
        section(&mut out, figures, Part::Pipeline, "In memory", PIPELINE);
        plot(&mut out, CONNECTIONS, "Cost by number of connections");
        pipeline_table(&mut out, figures);
    }
    if figures.connections.is_some() {
        section(
            &mut out,
            figures,
            Part::Connections,
            "Connections in memory",
            CONNECTED,
        );
        connection_tables(&mut out, figures);
    }
    out
}

const WIRE: &str = "UDP frames of 1,000 flows from an AF_XDP generator and sink on one core, over veth links \
between network namespaces, through the system on another core. The systems take turns, round by round (A B A B). \
**Forwarded** is with as much as the generator can send. **Core time** is how fast a full receive ring empties after \
the system was stopped: it does not depend on the generator. The reflector and testpmd only change link addresses. \
nftables runs in the kernel, moved to the system's core by receive packet steering; its core time is the busy \
share of that core at the forwarded rate. **Delays** are from the generator's write to the sink's read, at parts of the rate that lvx \
and the reflector both reach. **Overload** is 110 % of that rate for as long as a measurement, then half of it; where less is \
offered than asked for, the generator is the limit.";
const BESIDE: &str = "The shortest frames once more, in many short rounds, A B C A B C: the targets that \
    hold lvx against others are judged by these, round by round: a target's figure is the median over the rounds of \
    what lvx did, held against what the other did in the same round. What the machine does beside falls on \
    some rounds and not on others, for seconds on end.";
const EXCHANGE: &str = "Whole TCP exchanges (SYN, request, response, FIN), 256 open at a time; the generator plays both \
ends. haproxy and nginx end the clients' connections and open their own, which is more work: they are here as what \
people use instead.";
const SCALING: &str = "How fast full rings empty with one worker and with more, a queue and a core each. The last \
worker has the generator's core, which sleeps meanwhile.";
const CHANGE: &str = "One edit of a server's weight by `lvx adm -e`, from the start of that process until it ends; it \
ends when the change is in force on every core. 200,000 frames a second pass meanwhile.";
const PIPELINE: &str = "The director alone over bursts of 64 frames in memory, on one core, TCP over IPv4 by NAT \
where not said otherwise: no driver, no kernel. Packets hit all connections at random. Instructions are of a \
packet of a warm run by callgrind where the processor's counters cannot be read, cache misses then simulated.";
const CONNECTED: &str = "Through the whole director, from SYN frames on. Memory is the growth of the process, table and all.";

fn head(out: &mut String, figures: &Figures) {
    let machine = &figures.machine;
    let versions: Vec<String> = machine
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    let kind = if machine.is_virtual {
        "virtual"
    } else {
        "real"
    };
    let _ = writeln!(
        out,
        "# Benchmarks\n\n\
         Written by `scripts/bench`; do not edit. Figures are medians, with least and most in brackets.\n\n\
         | | |\n|-|-|\n| Machine | {}, {} cores, {:.0} GiB, {kind} |\n| Kernel | Linux {} |\n| Versions | {} |\n",
        machine.processor,
        machine.cores,
        machine.memory_gib,
        machine.kernel,
        versions.join(", ")
    );
    if figures.quick {
        out.push_str("**From a short run (`--quick`): rough figures.**\n\n");
    }
}

fn target_table(out: &mut String, rows: &[Target]) {
    out.push_str("## Targets\n\n| What | Target | Stretch | Measured | |\n|-|-|-|-|-|\n");
    for row in rows {
        let sign = if row.less_is_better {
            "at most"
        } else {
            "at least"
        };
        let stretch = row.stretch.map_or("-".to_owned(), number);
        let (measured, verdict) = match row.verdict() {
            Verdict::NotMeasured => ("-".to_owned(), "not measured"),
            verdict => (
                match row.measured {
                    Some(f64::INFINITY) => "frames were lost".to_owned(),
                    measured => measured.map_or(String::new(), figure),
                },
                match verdict {
                    Verdict::Stretch => "**stretch reached**",
                    Verdict::Met => "reached",
                    _ => "**missed**",
                },
            ),
        };
        let target = number(row.target);
        let what = row.what;
        let _ = writeln!(
            out,
            "| {what} | {sign} {target} | {stretch} | {measured} | {verdict} |"
        );
    }
    out.push('\n');
    let missed: Vec<&Target> = rows
        .iter()
        .filter(|row| row.verdict() == Verdict::Missed)
        .collect();
    if !missed.is_empty() {
        out.push_str("What holds the missed ones back:\n\n");
    }
    for row in &missed {
        let _ = writeln!(out, "- {}: {}.", row.what, row.hindrance);
    }
    if !missed.is_empty() {
        out.push('\n');
    }
}

fn section(out: &mut String, figures: &Figures, part: Part, title: &str, about: &str) {
    let _ = writeln!(out, "## {title}\n\n{about}\n");
    let name = part.name();
    let commands = figures
        .commands
        .get(name)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let taken = figures
        .taken
        .get(name)
        .map(String::as_str)
        .unwrap_or("unknown");
    let _ = writeln!(out, "Taken {taken} by\n\n```");
    // The pipeline's commands stand in its table.
    let shown = if part == Part::Pipeline {
        &commands[..commands.len().min(1)]
    } else {
        commands
    };
    for command in shown {
        let _ = writeln!(out, "{command}");
    }
    out.push_str("```\n\n");
}

fn wire_tables(out: &mut String, results: &Results) {
    out.push_str("| System | Frame, B | Forwarded, Mpps | Offered, Mpps | Lost | Core time, ns a frame |\n|-|-|-|-|-|-|\n");
    for system in &results.systems {
        for (place, row) in system.throughput.iter().enumerate() {
            let core = if place == 0 {
                core_time(system)
            } else {
                String::new()
            };
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {:.2} % | {core} |",
                system.system,
                row.frame_bytes,
                spread(&row.rate_pps, 1e6),
                figure(row.offered_pps.median() / 1e6),
                row.loss.median() * 100.0,
            );
        }
    }
    out.push_str(
        "\n| System | Load | Mpps | p50, us | p99, us | p99.9, us | Lost |\n|-|-|-|-|-|-|-|\n",
    );
    for system in &results.systems {
        for row in &system.latency {
            let _ = writeln!(
                out,
                "| {} | {} % | {} | {} | {} | {} | {:.3} % |",
                system.system,
                row.percent,
                figure(row.offered_pps.median() / 1e6),
                spread(&row.p50_ns, 1e3),
                spread(&row.p99_ns, 1e3),
                spread(&row.p999_ns, 1e3),
                row.loss.median() * 100.0,
            );
        }
    }
    overload_table(out, results);
    for skipped in &results.skipped {
        let why = skipped.why.lines().next().unwrap_or_default();
        let _ = writeln!(out, "Left out: {} ({why}).\n", skipped.system);
    }
}

fn overload_table(out: &mut String, results: &Results) {
    if results
        .systems
        .iter()
        .all(|system| system.overload.is_empty())
    {
        return;
    }
    out.push_str("\n| System | Overload asked for, Mpps | Offered, Mpps | Lost | Loss ended after |\n|-|-|-|-|-|\n");
    for system in &results.systems {
        if system.overload.is_empty() {
            continue;
        }
        let all = |pick: fn(&crate::wire::results::Overload) -> f64| {
            Spread::from(system.overload.iter().map(pick).collect::<Vec<_>>())
        };
        let recoveries: Option<Vec<f64>> = system.overload.iter().map(|o| o.recovery_ms).collect();
        let recovery = match recoveries {
            Some(ms) => format!("{} ms", figure(Spread::from(ms).median())),
            None => "it did not, in a round".to_owned(),
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {:.2} % | {recovery} |",
            system.system,
            figure(all(|o| o.asked_pps).median() / 1e6),
            figure(all(|o| o.offered_pps).median() / 1e6),
            all(|o| o.loss).median() * 100.0,
        );
    }
    out.push('\n');
}

/// By draining where that can be; for the kernel by its core's busy share.
fn core_time(system: &SystemResults) -> String {
    if !system.drain_ns.is_empty() {
        return spread(&system.drain_ns, 1.0);
    }
    let first = system.throughput.first();
    match first.filter(|row| system.system == "nftables" && !row.busy.is_empty()) {
        Some(row) => figure(row.busy.median() * 1e9 / row.rate_pps.median()),
        None => "-".to_owned(),
    }
}

fn exchange_table(out: &mut String, results: &Results) {
    out.push_str("| System | Connections a second | p50, us | p99, us | Failed |\n|-|-|-|-|-|\n");
    for system in &results.systems {
        let Some(exchange) = &system.exchange else {
            continue;
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {:.2} % |",
            system.system,
            spread(&exchange.rate, 1.0),
            spread(&exchange.p50_ns, 1e3),
            spread(&exchange.p99_ns, 1e3),
            exchange.failed.median() * 100.0,
        );
    }
    out.push('\n');
    for skipped in &results.skipped {
        let why = skipped.why.lines().next().unwrap_or_default();
        let _ = writeln!(out, "Left out: {} ({why}).\n", skipped.system);
    }
}

fn scaling_table(out: &mut String, results: &Results) {
    out.push_str("| System | Workers | ns a frame, together | Mpps, together | Times one worker |\n|-|-|-|-|-|\n");
    for row in &results.scaling {
        let one = results
            .scaling
            .iter()
            .find(|one| one.system == row.system && one.workers == 1);
        let times = one.map_or(f64::NAN, |one| {
            one.drain_ns.median() / row.drain_ns.median()
        });
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            row.system,
            row.workers,
            spread(&row.drain_ns, 1.0),
            figure(1e3 / row.drain_ns.median()),
            figure(times),
        );
    }
    out.push('\n');
}

fn change_table(out: &mut String, change: &Change) {
    let _ = writeln!(
        out,
        "{} services with {} servers each, restored by `lvx adm -R` in {:.1} s.\n\n\
         | Change | ms |\n|-|-|",
        number(change.services.into()),
        change.servers,
        change.restore_s
    );
    for (scheduler, ms) in &change.edit_ms {
        let _ = writeln!(
            out,
            "| a weight of a {scheduler} service | {} |",
            spread(ms, 1.0)
        );
    }
    let _ = writeln!(
        out,
        "| a command that changes nothing | {} |\n\nFrames lost meanwhile: {} of {}; the sink's own ring, whose core the commands share, had no room for {} more.\n",
        spread(&change.command_ms, 1.0),
        change.lost,
        change.sent,
        change.missed
    );
}

fn pipeline_table(out: &mut String, figures: &Figures) {
    out.push_str("| What | ns a packet | Mpps | Instructions | Cache misses |\n|-|-|-|-|-|\n");
    for row in &figures.pipeline {
        let instructions = row
            .counted
            .map_or("-".to_owned(), |c| format!("{:.0}", c.instructions));
        let misses = row.counted.and_then(|c| c.cache_misses);
        let misses = misses.map_or("-".to_owned(), |misses| format!("{misses:.2}"));
        let _ = writeln!(
            out,
            "| {} | {} | {} | {instructions} | {misses} |",
            row.name,
            spread(&row.ns, 1.0),
            figure(1e3 / row.ns.median()),
        );
    }
    out.push_str("\n<details><summary>All commands</summary>\n\n```\n");
    for command in figures
        .commands
        .get(Part::Pipeline.name())
        .into_iter()
        .flatten()
    {
        let _ = writeln!(out, "{command}");
    }
    out.push_str("```\n\n</details>\n\n");
}

fn connection_tables(out: &mut String, figures: &Figures) {
    let Some(report) = &figures.connections else {
        return;
    };
    out.push_str(
        "| Connections | New, M/s (ns) | New in memory used before, M/s | B each | Packet, ns | Look-up alone, ns | Expiry, ns | Longest share of it in a burst, us |\n|-|-|-|-|-|-|-|-|\n",
    );
    for size in &report.sizes {
        let _ = writeln!(
            out,
            "| {} | {} ({:.0}) | {} | {:.1} | {} | {} | {} | {} |",
            number(size.connections as f64),
            figure(1e3 / size.begin_ns),
            size.begin_ns,
            figure(1e3 / size.again_ns),
            size.bytes,
            spread(&size.packet_ns, 1.0),
            spread(&size.find_ns, 1.0),
            figure(size.expire_ns),
            figure(size.expire_most_us),
        );
    }
    out.push_str("\n| Threads over one table | New connections, M/s | Packets, Mpps |\n|-|-|-|\n");
    for row in &report.contention {
        let _ = writeln!(
            out,
            "| {} | {} | {} |",
            row.threads,
            figure(row.begun_per_s / 1e6),
            figure(row.packets_per_s / 1e6)
        );
    }
    out.push('\n');
}

/// `12.3 (11.9 to 14.0)`, in units of `unit`.
fn spread(spread: &Spread, unit: f64) -> String {
    match spread.len() {
        0 => "-".to_owned(),
        1 => figure(spread.median() / unit),
        _ => format!(
            "{} ({} to {})",
            figure(spread.median() / unit),
            figure(spread.least() / unit),
            figure(spread.most() / unit)
        ),
    }
}

/// Three digits that count, more where they stand before the point.
fn figure(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    match value.abs() {
        v if v >= 1e6 => number(value),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::PipelineRow;
    use crate::wire::results::{Latency, Throughput};

    fn figures() -> Figures {
        let row = |name: &str, connections, ns: f64| PipelineRow {
            name: name.to_owned(),
            method: "nat".to_owned(),
            connections,
            ns: vec![ns, ns + 1.0, ns + 2.0].into(),
            counted: None,
        };
        let system = |name: &str, pps: f64| SystemResults {
            system: name.to_owned(),
            throughput: vec![Throughput {
                frame_bytes: 64,
                rate_pps: vec![pps].into(),
                offered_pps: vec![pps].into(),
                ..Throughput::default()
            }],
            latency: vec![Latency {
                percent: 50,
                p99_ns: vec![1e10 / pps].into(),
                distribution: vec![(0.0, 900), (0.5, 1000), (0.99, 4000)],
                ..Latency::default()
            }],
            drain_ns: vec![400.0].into(),
            ..SystemResults::default()
        };
        Figures {
            pipeline: vec![
                row("1 thousand connections", 1000, 30.0),
                row("10 million connections", 10_000_000, 120.0),
            ],
            wire: Some(Results {
                systems: vec![system("lvx", 1.9e6), system("reflector", 2e6)],
                ..Results::default()
            }),
            ..Figures::default()
        }
    }

    #[test]
    fn the_page_has_verdicts_tables_and_plots() {
        let folder = std::env::temp_dir().join(format!("lvx-report-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let page = folder.join("benchmarks.md");
        write(&figures(), &page).unwrap();
        let text = fs::read_to_string(&page).unwrap();
        for part in [
            "| NAT IPv4, 64 B, 1 thousand connections, ns a packet | at most 35 | 20 | 31.0 | reached |",
            "| NAT IPv4, 64 B, 10 million connections, ns a packet | at most 90 | 60 | 121 | **missed** |",
            "- NAT IPv4, 64 B, 10 million connections, ns a packet: ",
            "rate | at least 0.95 | 0.98 | 0.950 | reached |",
            "added p99 latency over the reflector at half load, us | at most 5 | 2 | 0.263 | **stretch reached** |",
            "| instructions for that packet, 1 thousand connections | at most 250 | 160 | - | not measured |",
            "](benchmarks/throughput.svg)",
            "](benchmarks/connections.svg)",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
        for name in [THROUGHPUT, CONNECTIONS, LATENCY] {
            assert!(folder.join("benchmarks").join(name).exists(), "{name}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn an_empty_run_has_a_page_too() {
        let text = text(&Figures::default(), "benchmarks", &[]);
        assert!(text.contains("not measured") && !text.contains("**missed**"));
    }

    #[test]
    fn figures_have_three_digits() {
        let rows = [
            (1234.5, "1234"),
            (123.4, "123"),
            (12.34, "12.3"),
            (1.234, "1.23"),
            (0.1234, "0.123"),
            (0.0, "0.00"),
            (2_500_000.0, "2.5M"),
            (f64::NAN, "-"),
        ];
        for (value, expected) in rows {
            assert_eq!(figure(value), expected);
        }
    }
}
