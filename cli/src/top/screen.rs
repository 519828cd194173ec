//! The view as lines. Each is cut to the terminal's width, and there are as many as it has.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::number::{bar, count, duration, short, sparkline};
use super::reading::{CounterReading, Reading, Traffic, WorkerReading};
use super::state::{HISTORY, Mode, Row, Sort, State, Track, View};
use crate::shell::words;

/// What the view needs.
pub const COLUMNS_MIN: u16 = 80;
/// What the view needs.
pub const ROWS_MIN: u16 = 16;

/// The columns after the name: heading (of rates as `ipvsadm --rate` has it) and width.
const COLUMNS: [(&str, usize); 8] = [
    ("WEIGHT", 7),
    ("ACTIVE", 7),
    ("INACT", 7),
    ("CPS", 6),
    ("INPPS", 6),
    ("OUTPPS", 7),
    ("INBPS", 6),
    ("OUTBPS", 7),
];
const COLUMNS_WIDTH: usize = 53;
/// A history for each line is shown where there is room for this much more.
const HISTORY_WIDTH: usize = 20;
/// The widest name there can be, of IPv6.
const NAME_MAX: usize = 52;
/// Workers in the heading, two on a line.
const WORKERS_SHOWN: usize = 4;

/// The whole screen.
pub fn lines(state: &State, columns: u16, rows: u16) -> Vec<Line<'static>> {
    if columns < COLUMNS_MIN || rows < ROWS_MIN {
        return too_small(columns, rows);
    }
    let (width, height) = (usize::from(columns), usize::from(rows));
    let Some(reading) = &state.reading else {
        return vec![Line::raw("waiting for the director ...")];
    };
    let screen = Screen { state, width };
    let mut lines = screen.head(reading);
    let room = height.saturating_sub(lines.len() + 1);
    let mut main = match (&state.mode, state.view) {
        (Mode::Help, _) => help(),
        (_, View::Services) => screen.services(reading, room),
        (_, View::Counters) => screen.counters(reading, room),
        (_, View::Workers) => screen.workers(reading, room),
    };
    main.resize(room, Line::default());
    lines.extend(main);
    lines.push(screen.foot(reading));
    lines
}

/// In as few words as the room asks for.
fn too_small(columns: u16, rows: u16) -> Vec<Line<'static>> {
    let texts = [
        format!("This terminal has {columns} columns and {rows} rows."),
        format!("lvx top needs {COLUMNS_MIN} and {ROWS_MIN}:"),
        "please make it larger.".to_owned(),
        "q leaves.".to_owned(),
    ];
    let width = usize::from(columns.max(1));
    let letters = texts.iter().map(|text| text.chars().collect::<Vec<_>>());
    let pieces: Vec<String> = letters
        .flat_map(|text| {
            text.chunks(width)
                .map(String::from_iter)
                .collect::<Vec<_>>()
        })
        .collect();
    let lines = pieces.into_iter().map(Line::raw);
    lines.take(rows.into()).collect()
}

fn help() -> Vec<Line<'static>> {
    const KEYS: [(&str, &str); 12] = [
        (
            "arrows j k g G",
            "select a line; PageUp and PageDown go ten lines",
        ),
        ("d", "drain the selected server (weight 0), or undo that"),
        ("w", "set the selected server's weight"),
        (
            "/",
            "show only lines with a text (`drained` is one); Esc: all",
        ),
        ("s S", "sort by the next column, the one before"),
        ("r", "turn the order round"),
        ("c", "services only, or their servers too"),
        (
            "Tab",
            "services, then drop reasons and events, then workers",
        ),
        ("p, space", "hold the picture, or go on"),
        ("+ -", "look twice as often, half as often"),
        ("q, Ctrl-C", "leave"),
        ("CPS PPS BPS", "connections, packets, bytes per second"),
    ];
    let line = |(key, what): &(&str, &str)| Line::raw(format!("  {key:<16}{what}"));
    let mut lines = vec![Line::default()];
    lines.extend(KEYS.iter().map(line));
    lines
}

struct Screen<'a> {
    state: &'a State,
    width: usize,
}

impl Screen<'_> {
    fn style(&self, colour: Color) -> Style {
        match self.state.has_colour {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    fn head(&self, reading: &Reading) -> Vec<Line<'static>> {
        let mut lines = vec![
            self.title(reading),
            self.connections(reading),
            self.packets(
                "in ",
                &Track::In,
                reading.total.in_packets_per_s,
                reading.total.in_bytes_per_s,
            ),
            self.packets(
                "out",
                &Track::Out,
                reading.total.out_packets_per_s,
                reading.total.out_bytes_per_s,
            ),
        ];
        let shown = &reading.workers[..reading.workers.len().min(WORKERS_SHOWN)];
        for pair in shown.chunks(2) {
            let parts = pair.iter().map(|worker| self.worker_summary(worker));
            lines.push(Line::from(parts.collect::<Vec<_>>().join("   ")));
        }
        lines.push(self.drops(reading));
        lines
    }

    fn title(&self, reading: &Reading) -> Line<'static> {
        let servers = || reading.services.iter().flat_map(|row| &row.servers);
        let drained = servers().filter(|row| row.spec.weight == 0).count();
        let mut text = format!(
            "lvx {}  up {}  {} services  {} servers",
            reading.version,
            duration(reading.up_s as u64),
            reading.services.len(),
            servers().count(),
        );
        if drained > 0 {
            text += &format!("  {drained} drained");
        }
        let every = self.state.interval.as_secs_f64();
        let right = match self.state.is_paused {
            true => "PAUSED".to_owned(),
            false => format!("every {every} s"),
        };
        let gap = self.width.saturating_sub(text.chars().count());
        text += &format!("{right:>gap$}");
        Line::styled(
            cut(&text, self.width),
            Style::new().add_modifier(Modifier::BOLD),
        )
    }

    fn connections(&self, reading: &Reading) -> Line<'static> {
        let live = reading.total.live();
        let share = live as f64 / reading.connections_max.max(1) as f64;
        let left = format!(
            "connections {live} of {} ({:.1} %)",
            count(reading.connections_max),
            share * 100.0
        );
        let right = format!("{:>7} new/s ", short(reading.total.connections_per_s));
        self.tracked(&left, &right, &Track::Connections)
    }

    fn packets(&self, way: &str, track: &Track, packets: f64, bytes: f64) -> Line<'static> {
        let left = format!(
            "{way} {:>7} B/s  {:>7} bit/s",
            short(bytes),
            short(bytes * 8.0)
        );
        let right = format!("{:>7} pkt/s ", short(packets));
        self.tracked(&left, &right, track)
    }

    /// Words at the left, then a rate and its history at the right.
    fn tracked(&self, left: &str, right: &str, track: &Track) -> Line<'static> {
        let history = self.state.history(track);
        let most = history.iter().copied().fold(0.0, f32::max);
        let used = 40.max(left.chars().count()) + right.len();
        let room = self.width.saturating_sub(used).min(HISTORY);
        Line::from(vec![
            Span::raw(format!("{left:<40}{right}")),
            Span::styled(sparkline(&history, most, room), self.style(Color::Cyan)),
        ])
    }

    fn worker_summary(&self, worker: &WorkerReading) -> String {
        let share = worker.busy_share;
        format!(
            "worker {:<2} {:>3.0} % {} {:>6} pkt/s",
            worker.worker,
            share * 100.0,
            bar(share, 8),
            short(worker.received_per_s)
        )
    }

    fn drops(&self, reading: &Reading) -> Line<'static> {
        let mut now: Vec<&CounterReading> = reading.counters.iter().collect();
        now.retain(|counter| counter.is_drop() && counter.per_s > 0.0);
        now.sort_by(|a, b| b.per_s.total_cmp(&a.per_s));
        let all = count(reading.drops());
        if now.is_empty() {
            return Line::raw(format!("drops none now, {all} in all"));
        }
        let shown = now.iter().take(3).map(|counter| {
            let name = counter.name.strip_prefix("drop_").unwrap_or(&counter.name);
            format!("{name} {}/s", short(counter.per_s))
        });
        let text = format!(
            "drops {}/s: {}{}",
            short(reading.drops_per_s()),
            shown.collect::<Vec<_>>().join(", "),
            if now.len() > 3 { " ..." } else { "" }
        );
        Line::styled(cut(&text, self.width), self.style(Color::Red))
    }

    fn heading(&self, text: &str) -> Line<'static> {
        let style = Style::new().add_modifier(Modifier::REVERSED);
        Line::styled(
            format!("{:<width$}", cut(text, self.width), width = self.width),
            style,
        )
    }

    fn name_width(&self) -> usize {
        let room = self.width - COLUMNS_WIDTH;
        match room.checked_sub(HISTORY_WIDTH + 1) {
            Some(rest) if rest >= 30 => rest.min(NAME_MAX),
            _ => room.min(NAME_MAX),
        }
    }

    fn history_width(&self) -> usize {
        let rest = self.width - COLUMNS_WIDTH - self.name_width();
        rest.saturating_sub(1).min(HISTORY)
    }

    fn services(&self, reading: &Reading, room: usize) -> Vec<Line<'static>> {
        let rows = self.state.rows();
        let name_width = self.name_width();
        let mut heading = format!("{:<name_width$}", self.mark("SERVICE / SERVER", Sort::Name));
        for ((name, width), sort) in COLUMNS.into_iter().zip(&Sort::ALL[1..]) {
            heading += &format!("{:>width$}", self.mark(name, *sort));
        }
        let mut lines = vec![self.heading(&heading)];
        if rows.is_empty() {
            let text = match reading.services.is_empty() {
                true => "  no services: `ipvsadm -A` or `lvx shell` add some",
                false => "  no line has this text; Esc shows all",
            };
            lines.push(Line::raw(text));
            return lines;
        }
        let place = self.state.place(&rows);
        let height = room.saturating_sub(1);
        let first = place
            .saturating_sub(height / 2)
            .min(rows.len().saturating_sub(height));
        let shown = rows.iter().enumerate().skip(first).take(height);
        lines.extend(shown.map(|(at, row)| self.service_line(row, at == place)));
        lines
    }

    /// The sorted column is marked, the others keep their room.
    fn mark(&self, name: &str, sort: Sort) -> String {
        match (self.state.sort == sort, self.state.is_reversed) {
            (false, _) => name.to_owned(),
            (true, false) => format!("▾{name}"),
            (true, true) => format!("▴{name}"),
        }
    }

    fn service_line(&self, row: &Row<'_>, is_selected: bool) -> Line<'static> {
        let name_width = self.name_width();
        let (name, weight) = match row {
            Row::Service(row) => (words::service(&row.service), row.spec.scheduler.to_string()),
            Row::Server(_, row) => (
                format!("  {}", words::server(&row.server)),
                match row.spec.weight {
                    0 => "drained".to_owned(),
                    weight => weight_text(weight),
                },
            ),
        };
        let name = cut(&name, name_width - 1);
        let mut text = format!("{name:<name_width$}{weight:>7}");
        text += &traffic(row.traffic());
        let mut style = match row {
            Row::Service(_) => Style::new().add_modifier(Modifier::BOLD),
            Row::Server(_, row) if row.spec.weight == 0 => self.style(Color::Yellow),
            Row::Server(..) => Style::new(),
        };
        if is_selected {
            style = style.add_modifier(Modifier::REVERSED);
        }
        let width = self.history_width();
        let history = self.state.history(&Track::Row(row.key()));
        let most = history.iter().copied().fold(0.0, f32::max);
        let history = match width {
            HISTORY_WIDTH.. => format!(" {}", sparkline(&history, most, width)),
            _ => String::new(),
        };
        Line::from(vec![
            Span::styled(text, style),
            Span::styled(history, self.style(Color::Cyan)),
        ])
    }

    fn counters(&self, reading: &Reading, room: usize) -> Vec<Line<'static>> {
        let mut lines = vec![self.heading("DROPS AND EVENTS                  TOTAL      PER S")];
        let rows = self.state.counters();
        if rows.is_empty() {
            let text = match reading.drops() {
                0 => "  nothing has been counted",
                _ => "  no line has this text; Esc shows all",
            };
            lines.push(Line::raw(text));
        }
        let shown = rows
            .iter()
            .skip(self.state.scroll)
            .take(room.saturating_sub(1));
        lines.extend(shown.map(|row| {
            let history = self.state.history(&Track::Counter(row.name.clone()));
            let most = history.iter().copied().fold(0.0, f32::max);
            let width = self.width.saturating_sub(51).min(HISTORY);
            let colour = if row.is_drop() {
                Color::Red
            } else {
                Color::Cyan
            };
            Line::from(vec![
                Span::raw(format!(
                    "{:<26}{:>13}{:>11} ",
                    cut(&row.name, 26),
                    row.total,
                    short(row.per_s)
                )),
                Span::styled(sparkline(&history, most, width), self.style(colour)),
            ])
        }));
        lines
    }

    fn workers(&self, reading: &Reading, room: usize) -> Vec<Line<'static>> {
        let heading = "WORKER CORE  BUSY      IN/S     OUT/S    HOST/S   DROPS/S";
        let mut lines = vec![self.heading(heading)];
        let rows = reading.workers.iter().skip(self.state.scroll);
        lines.extend(rows.take(room.saturating_sub(1)).map(|row| {
            let history = self.state.history(&Track::Worker(row.worker));
            let width = self.width.saturating_sub(58).min(HISTORY);
            let text = format!(
                "{:>6} {:>4} {:>3.0} % {:>9} {:>9} {:>9} {:>9} ",
                row.worker,
                row.core,
                row.busy_share * 100.0,
                short(row.received_per_s),
                short(row.sent_per_s),
                short(row.to_host_per_s),
                short(row.dropped_per_s)
            );
            Line::from(vec![
                Span::raw(text),
                Span::styled(sparkline(&history, 1.0, width), self.style(Color::Cyan)),
            ])
        }));
        lines
    }

    /// The last line: a question, what went wrong, what was done, or the keys.
    fn foot(&self, reading: &Reading) -> Line<'static> {
        let state = self.state;
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let (text, style) = match &state.mode {
            Mode::Filter(text) => (format!("/{text}_   (Enter keeps, Esc leaves)"), bold),
            Mode::Weight(change, text) => {
                let now = change.spec.weight;
                (
                    format!("weight of {} (now {now}): {text}_", change.name()),
                    bold,
                )
            }
            Mode::Confirm(change, 0) => {
                let text = format!(
                    "drain {}? its {} live connections stay (y/n)",
                    change.name(),
                    change.live
                );
                (text, bold)
            }
            Mode::Confirm(change, weight) => (
                format!("give {} weight {weight}? (y/n)", change.name()),
                bold,
            ),
            _ => match (&state.lost, &state.note) {
                (Some(why), _) => (
                    format!("{}; asking again", why.trim_start_matches("lvx: ")),
                    self.style(Color::Red).add_modifier(Modifier::BOLD),
                ),
                (None, Some(note)) => (
                    note.text.clone(),
                    self.style(if note.is_bad {
                        Color::Red
                    } else {
                        Color::Green
                    }),
                ),
                (None, None) if !state.filter.is_empty() => (
                    format!("only lines with `{}` (Esc shows all)", state.filter),
                    bold,
                ),
                (None, None) if reading.over_s.is_none() => {
                    ("rates come with the next look".to_owned(), Style::new())
                }
                (None, None) => (
                    "q leave  ? help  d drain  w weight  / filter  s sort  Tab drops, workers"
                        .to_owned(),
                    Style::new().add_modifier(Modifier::DIM),
                ),
            },
        };
        Line::styled(cut(&text, self.width), style)
    }
}

fn weight_text(weight: u32) -> String {
    match weight {
        0..=999_999 => weight.to_string(),
        _ => short(weight.into()),
    }
}

fn traffic(traffic: &Traffic) -> String {
    let mut text = format!("{:>7}{:>7}", count(traffic.active), count(traffic.inactive));
    for (rate, (_, width)) in traffic.rates().iter().zip(&COLUMNS[3..]) {
        text += &format!("{:>width$}", short(*rate));
    }
    text
}

/// At most this many columns; what is cut off is shown by a mark.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}
