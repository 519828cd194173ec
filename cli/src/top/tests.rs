//! Samples and keys in, screens out.

use std::collections::BTreeMap;
use std::time::Duration;

use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::widgets::Paragraph;
use ratatui::{Terminal, style::Modifier};
use sched::command::Command;

use super::reading::Reading;
use super::state::{Mode, Order, Sort, State, View};
use super::{parse_interval, print, screen};
use crate::api::{FramesRow, PlacesRow, Sample, Stats, Table, WorkerRow};

/// Two services, three servers; `step` seconds of the same traffic each.
fn sample(step: u64) -> Sample {
    let stats = |connections: u64, packets: u64| {
        serde_json::json!(Stats {
            connections: 5 + connections * step,
            in_packets: packets * step,
            out_packets: 2 * packets * step,
            in_bytes: 100 * packets * step,
            out_bytes: 1000 * packets * step,
        })
    };
    let rates = serde_json::json!({"connections": 0, "in_packets": 0, "out_packets": 0,
        "in_bytes": 0, "out_bytes": 0});
    let server = |address: &str, weight: u32, active: u32, packets: u64| {
        serde_json::json!({
            "server": {"address": address, "port": 80},
            "spec": {"forwarding": "masquerade", "weight": weight,
                     "upper_threshold": 9, "lower_threshold": 0},
            "local": false, "active": active, "inactive": 7, "persistent": 0,
            "stats": stats(packets / 10, packets), "rates": rates.clone()
        })
    };
    let service = |address: &str, port: u16, packets: u64, servers| {
        serde_json::json!({
            "service": {"address": {"protocol": "tcp", "address": address, "port": port}},
            "spec": {"scheduler": "wlc", "flags": 0, "persistence": null,
                     "netmask": 4294967295u32, "one_packet": false, "engine": null},
            "stats": stats(packets / 10, packets), "rates": rates.clone(), "servers": servers
        })
    };
    let services = serde_json::json!([
        service(
            "10.1.0.1",
            80,
            3000,
            vec![
                server("10.2.0.12", 2, 1200, 2000),
                server("10.2.0.11", 1, 600, 1000)
            ]
        ),
        service(
            "fd01::1",
            443,
            20_000,
            vec![server("fd02::11", 0, 3, 20_000)]
        ),
    ]);
    let worker = |number: usize, busy: u64| WorkerRow {
        worker: number,
        core: number + 2,
        busy_ns: busy * step,
        received: 10_000 * step,
        sent: 9_000 * step,
        to_host: 10 * step,
        dropped: 30 * step,
        frames: FramesRow::default(),
    };
    Sample {
        // The machine has run for longer.
        at_ns: 9_999_000_000_000 + step * 1_000_000_000,
        up_ns: 3_661_000_000_000 + step * 1_000_000_000,
        table: Table {
            version: "9.9.9".into(),
            size: 1_048_576,
            timeouts: serde_json::from_str(r#"{"tcp_s": 1, "tcp_fin_s": 1, "udp_s": 1}"#).unwrap(),
            services: serde_json::from_value(services).unwrap(),
            daemons: Vec::new(),
        },
        counters: BTreeMap::from([
            ("drop_no_route".to_owned(), 7 + 30 * step),
            ("drop_not_ip".to_owned(), 4),
            ("drop_port_full".to_owned(), 0),
            ("frames_received".to_owned(), 20_000 * step),
        ]),
        workers: vec![worker(0, 250_000_000), worker(1, 1_000_000_000)],
        places: PlacesRow::default(),
    }
}

/// After `steps` samples.
fn state(steps: u64) -> State {
    let mut state = State::new(Duration::from_secs(1), true);
    (0..steps).for_each(|step| state.take(Ok(sample(step))));
    state
}

fn shown_at(state: &State, columns: u16, rows: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    let draw = |frame: &mut ratatui::Frame<'_>| {
        let lines = screen::lines(state, columns, rows);
        assert!(lines.len() <= usize::from(rows));
        for line in &lines {
            assert!(line.width() <= usize::from(columns), "{columns}: {line}");
        }
        frame.render_widget(Paragraph::new(lines), frame.area());
    };
    terminal.draw(draw).unwrap();
    let cells = terminal.backend().buffer().content();
    let rows = cells.chunks(usize::from(columns));
    rows.map(|row| {
        row.iter()
            .map(|cell| cell.symbol())
            .collect::<String>()
            .trim_end()
            .to_owned()
    })
    .collect()
}

fn shown(state: &State) -> String {
    shown_at(state, 80, 24).join("\n")
}

/// Presses keys by their letters; `^` is Esc, `$` Enter, `v` down, `~` Tab, `#` Backspace.
fn press(state: &mut State, keys: &str) -> Option<Order> {
    let mut last = None;
    for key in keys.chars() {
        let code = match key {
            '^' => KeyCode::Esc,
            '$' => KeyCode::Enter,
            'v' => KeyCode::Down,
            '~' => KeyCode::Tab,
            '#' => KeyCode::Backspace,
            letter => KeyCode::Char(letter),
        };
        last = state.key(KeyEvent::from(code));
    }
    last
}

#[test]
fn a_screen_of_80_by_24() {
    let wanted = "\
lvx 9.9.9  up 1h01m  2 services  3 servers  1 drained                  every 1 s
connections 1824 of 1.05M (0.2 %)          2300 new/s                          █
in    2.30M B/s    18.4M bit/s            23.0k pkt/s                          █
out   23.0M B/s     184M bit/s            46.0k pkt/s                          █
worker 0   25 % ██······  10.0k pkt/s   worker 1  100 % ████████  10.0k pkt/s
drops 30/s: no_route 30/s
▾SERVICE / SERVER           WEIGHT ACTIVE  INACT   CPS INPPS OUTPPS INBPS OUTBPS
tcp 10.1.0.1:80                wlc   1800     14   300  3000   6000  300k  3.00M
  10.2.0.11:80                   1    600      7   100  1000   2000  100k  1.00M
  10.2.0.12:80                   2   1200      7   200  2000   4000  200k  2.00M
tcp [fd01::1]:443              wlc      3      7  2000 20.0k  40.0k 2.00M  20.0M
  [fd02::11]:80            drained      3      7  2000 20.0k  40.0k 2.00M  20.0M











q leave  ? help  d drain  w weight  / filter  s sort  Tab drops, workers";
    let shown = shown(&state(2));
    assert_eq!(shown, wanted, "\n{shown}");
}

#[test]
fn a_first_sample_has_no_rates_and_another_director_begins_anew() {
    let first = shown(&state(1));
    assert!(first.contains("connections 1824 of"), "{first}");
    assert!(first.contains("      0 new/s"), "{first}");
    assert!(first.ends_with("rates come with the next look"), "{first}");
    let mut state = state(3);
    let mut newer = sample(0);
    newer.at_ns = 5;
    state.take(Ok(newer));
    assert!(shown(&state).contains("      0 new/s"));
    // Counters set to zero in between are no rate.
    let (mut before, after) = (sample(1), sample(2));
    before.table.services[0].stats.connections = 1 << 40;
    let reading = Reading::between(Some(&before), &after);
    assert_eq!(reading.services[0].traffic.connections_per_s, 0.0);
    assert_eq!(reading.services[1].traffic.connections_per_s, 2000.0);
}

/// The names of the shown rows, in order.
fn names(state: &State) -> Vec<String> {
    let lines = shown_at(state, 80, 24);
    let rows = lines[7..23].iter().take_while(|line| !line.is_empty());
    rows.map(|line| line[..27].trim_end().to_owned()).collect()
}

#[test]
fn keys_sort_filter_and_fold() {
    const FIRST: [&str; 3] = ["tcp 10.1.0.1:80", "  10.2.0.11:80", "  10.2.0.12:80"];
    const SECOND: [&str; 2] = ["tcp [fd01::1]:443", "  [fd02::11]:80"];
    let rows: [(&str, Vec<&str>); 9] = [
        ("", [&FIRST[..], &SECOND].concat()),
        (
            "r",
            [
                &SECOND[..],
                &["tcp 10.1.0.1:80", "  10.2.0.12:80", "  10.2.0.11:80"],
            ]
            .concat(),
        ),
        (
            "ss",
            vec![
                "tcp 10.1.0.1:80",
                "  10.2.0.12:80",
                "  10.2.0.11:80",
                SECOND[0],
                SECOND[1],
            ],
        ),
        ("ssr", [&SECOND[..], &FIRST].concat()),
        (
            "S",
            vec![
                SECOND[0],
                SECOND[1],
                "tcp 10.1.0.1:80",
                "  10.2.0.12:80",
                "  10.2.0.11:80",
            ],
        ),
        ("/0.12$", vec!["tcp 10.1.0.1:80", "  10.2.0.12:80"]),
        ("/drained$", SECOND.to_vec()),
        ("/FD01$", SECOND.to_vec()),
        ("c", vec!["tcp 10.1.0.1:80", "tcp [fd01::1]:443"]),
    ];
    for (keys, wanted) in rows {
        let mut state = state(2);
        assert_eq!(press(&mut state, keys), None, "{keys}");
        assert_eq!(names(&state), wanted, "{keys}");
    }
    let mut state = state(2);
    press(&mut state, "/nothing");
    assert!(
        shown(&state).contains("no line has this text"),
        "while it is typed"
    );
    press(&mut state, "^");
    assert_eq!(names(&state).len(), 5, "Esc leaves the filter as it was");
    press(&mut state, "/xy##fd$");
    assert_eq!(names(&state).len(), 2);
    assert!(shown(&state).contains("only lines with `fd` (Esc shows all)"));
    press(&mut state, "^");
    assert_eq!(names(&state).len(), 5);
}

#[test]
fn keys_change_weights_after_a_question() {
    let weight_of = |order: Option<Order>| match order {
        Some(Order::Run(Command::EditServer { server, spec, .. }, text)) => {
            assert_eq!(spec.upper_threshold, 9, "all else stays");
            (server.address.to_string(), spec.weight, text)
        }
        other => panic!("{other:?}"),
    };
    let done = |address: &str, weight, text: &str| (address.to_owned(), weight, text.to_owned());
    let mut state = state(2);
    assert_eq!(press(&mut state, "d"), None, "a service is selected");
    assert!(shown(&state).ends_with("select a server first, with the arrow keys"));
    press(&mut state, "vvd");
    let question = "drain 10.2.0.12:80 of tcp 10.1.0.1:80? its 1207 live connections stay (y/n)";
    assert!(shown(&state).ends_with(question));
    assert_eq!(press(&mut state, "n"), None);
    let order = press(&mut state, "dy");
    let text = "10.2.0.12:80 of tcp 10.1.0.1:80 is drained";
    assert_eq!(weight_of(order), done("10.2.0.12", 0, text));
    state.done(Ok(text.to_owned()));
    assert!(shown(&state).ends_with(text));
    // Once it is drained, the same key gives back what it had.
    let mut drained = sample(2);
    drained.table.services[0].servers[0].spec.weight = 0;
    state.take(Ok(drained.clone()));
    press(&mut state, "d");
    assert!(shown(&state).ends_with("give 10.2.0.12:80 of tcp 10.1.0.1:80 weight 2? (y/n)"));
    assert_eq!(weight_of(press(&mut state, "y")).1, 2);
    // One that was drained by others gets weight 1.
    press(&mut state, "vv");
    assert_eq!(weight_of(press(&mut state, "dy")).1, 1);
    let order = press(&mut state, "w70#5x$");
    let text = "[fd02::11]:80 of tcp [fd01::1]:443 has weight 75";
    assert_eq!(weight_of(order), done("fd02::11", 75, text));
    assert_eq!(press(&mut state, "w9999999999$"), None);
    assert!(
        matches!(state.mode, Mode::Weight(..)),
        "too much: asked again"
    );
    assert_eq!(press(&mut state, "^"), None);
    state.done(Err("refused: no such real server".into()));
    assert!(shown(&state).ends_with("refused: no such real server"));
}

#[test]
fn other_views() {
    let mut state = state(4);
    press(&mut state, "~");
    let drops = shown_at(&state, 80, 24)[6..10].to_vec();
    let wanted = [
        "DROPS AND EVENTS                  TOTAL      PER S",
        "drop_no_route                        97         30                           ███",
        "drop_not_ip                           4          0",
        "frames_received                   60000      20.0k                           ███",
    ];
    assert_eq!(drops, wanted);
    press(&mut state, "v");
    assert!(shown_at(&state, 80, 24)[7].starts_with("drop_not_ip"));
    press(&mut state, "~");
    assert_eq!(state.view, View::Workers);
    let workers = shown_at(&state, 80, 24)[6..9].to_vec();
    let wanted = [
        "WORKER CORE  BUSY      IN/S     OUT/S    HOST/S   DROPS/S",
        "     0    2  25 %     10.0k      9000        10        30                    ▂▂▂",
        "     1    3 100 %     10.0k      9000        10        30                    ███",
    ];
    assert_eq!(workers, wanted);
    press(&mut state, "~");
    assert_eq!(state.view, View::Services);
    press(&mut state, "?");
    assert!(shown(&state).contains("drain the selected server"));
    press(&mut state, "q");
    assert_eq!((state.mode.clone(), names(&state).len()), (Mode::Normal, 5));
}

#[test]
fn a_lost_director_is_named_until_it_is_back() {
    let mut state = state(2);
    state.take(Err("no director answers on /run/x: gone".into()));
    let lost = shown(&state);
    assert!(
        lost.ends_with("no director answers on /run/x: gone; asking again"),
        "{lost}"
    );
    assert_eq!(names(&state).len(), 5, "what was last seen stays");
    state.take(Ok(sample(3)));
    assert!(!shown(&state).contains("asking again"));
}

#[test]
fn pausing_leaving_and_intervals() {
    let mut state = state(2);
    press(&mut state, "p");
    state.take(Ok(sample(9)));
    assert!(shown(&state).contains("PAUSED") && shown(&state).contains("up 1h01m"));
    press(&mut state, " ");
    let mut later = sample(10);
    later.at_ns += 7_200_000_000_000;
    later.up_ns += 7_200_000_000_000;
    state.take(Ok(later));
    assert!(shown(&state).contains("up 3h01m"));
    assert_eq!(
        press(&mut state, "+"),
        Some(Order::Every(Duration::from_millis(500)))
    );
    assert_eq!(
        press(&mut state, "--"),
        Some(Order::Every(Duration::from_secs(2)))
    );
    assert_eq!(press(&mut state, "q"), Some(Order::Quit));
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    press(&mut state, "/text");
    assert_eq!(state.key(control_c), Some(Order::Quit), "from everywhere");
    let rows = [
        ("0.1", true),
        ("3600", true),
        ("0.09", false),
        ("NaN", false),
        ("x", false),
    ];
    for (text, good) in rows {
        assert_eq!(parse_interval(text).is_ok(), good, "{text}");
    }
}

#[test]
fn every_size_is_drawn_and_small_ones_say_so() {
    let small = shown_at(&state(2), 60, 10);
    assert_eq!(small[0], "This terminal has 60 columns and 10 rows.");
    assert_eq!(small[1], "lvx top needs 80 and 16:");
    let views = ["", "~", "~~", "?", "/x", "vw", "vd"];
    for keys in views {
        let mut state = state(3);
        press(&mut state, keys);
        for (columns, rows) in [
            (1, 1),
            (3, 50),
            (79, 24),
            (80, 16),
            (81, 17),
            (120, 40),
            (400, 100),
        ] {
            let lines = shown_at(&state, columns, rows);
            assert_eq!(lines.len(), usize::from(rows), "{keys} {columns} {rows}");
        }
    }
    // Wide terminals have a history for each line.
    let wide = shown_at(&state(4), 120, 24);
    assert!(wide[8].ends_with("███"), "{}", wide[8]);
}

#[test]
fn long_lists_scroll_with_the_selected_line() {
    let mut many = sample(1);
    let row = many.table.services[0].servers[0].clone();
    many.table.services[0].servers = (0..200u8)
        .map(|last| {
            let mut row = row.clone();
            row.server.address = [10, 3, 0, last].into();
            row
        })
        .collect();
    let mut state = state(1);
    state.take(Ok(many));
    for step in 0..203 {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let lines = screen::lines(&state, 80, 24);
        terminal
            .draw(|frame| frame.render_widget(Paragraph::new(lines), frame.area()))
            .unwrap();
        // The heading is reversed too.
        let buffer = terminal.backend().buffer();
        let reversed = |y: &u16| buffer[(0, *y)].modifier.contains(Modifier::REVERSED);
        assert_eq!((0..24).filter(reversed).count(), 2, "{step}");
        press(&mut state, "v");
    }
    assert!(shown(&state).contains("[fd02::11]:80"));
    press(&mut state, "g");
    assert_eq!(names(&state)[0], "tcp 10.1.0.1:80");
}

#[test]
fn a_sorted_selection_follows_its_line() {
    let mut state = state(2);
    press(&mut state, "v");
    let selected = state.selected;
    press(&mut state, "S");
    assert_eq!((state.sort, state.selected), (Sort::OutBytes, selected));
    let rows = state.rows();
    assert_eq!(state.place(&rows), 4);
}

#[test]
fn one_look_for_scripts() {
    let reading = Reading::between(Some(&sample(0)), &sample(2));
    let printed = |filter: &str, json| {
        let mut out = Vec::new();
        print::reading(&mut out, &reading, filter, json).unwrap();
        String::from_utf8(out).unwrap()
    };
    let wanted = "\
lvx 9.9.9, up 3663 s; rates over 2.0 s
1824 of 1048576 connections, 2300 new/s; in 23.0k pkt/s 2.30M B/s, out 46.0k pkt/s 23.0M B/s; 30 drops/s

SERVICE / SERVER   WEIGHT  ACTIVE  INACT   CPS  INPPS  OUTPPS  INBPS  OUTBPS
tcp [fd01::1]:443  wlc          3      7  2000  20.0k   40.0k  2.00M   20.0M
  [fd02::11]:80    0            3      7  2000  20.0k   40.0k  2.00M   20.0M

WORKER  CORE  BUSY %   IN/S  OUT/S  HOST/S  DROPS/S
     0     2      25  10.0k   9000      10       30
     1     3     100  10.0k   9000      10       30

DROPS AND EVENTS  TOTAL  PER S
drop_no_route        67     30
drop_not_ip           4      0
frames_received   40000  20.0k
";
    let text = printed("fd01", false);
    assert_eq!(text, wanted, "\n{text}");
    let json: serde_json::Value = serde_json::from_str(&printed("0.12", true)).unwrap();
    assert_eq!(json["services"].as_array().unwrap().len(), 1);
    let server = &json["services"][0]["servers"][0];
    assert_eq!(server["server"]["address"], "10.2.0.12");
    assert_eq!(server["in_packets_per_s"], 2000.0);
    assert_eq!(json["total"]["out_bytes_per_s"], 23_000_000.0);
    assert_eq!(json["workers"][1]["busy_share"], 1.0);
    assert_eq!(json["drops_per_s"], 30.0);
}
