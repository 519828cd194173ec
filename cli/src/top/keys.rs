//! What keys do to the view.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::INTERVAL_S;
use super::state::{Change, Mode, Note, Order, Row, Sort, State, View};

/// The highest weight that ipvsadm takes.
const WEIGHT_MAX: u32 = 2_147_483_647;
/// How far the page keys go.
const PAGE: isize = 10;

impl State {
    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent) -> Option<Order> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c' | 'd') => Some(Order::Quit),
                _ => None,
            };
        }
        match std::mem::take(&mut self.mode) {
            Mode::Normal => self.command(key.code),
            Mode::Help => None,
            Mode::Filter(text) => {
                self.filtering(key.code, text);
                None
            }
            Mode::Weight(change, text) => self.weighing(key.code, change, text),
            Mode::Confirm(change, weight) => match key.code {
                KeyCode::Char('y' | 'Y') | KeyCode::Enter => Some(self.ordered(&change, weight)),
                _ => None,
            },
        }
    }

    fn command(&mut self, code: KeyCode) -> Option<Order> {
        self.note = None;
        match code {
            KeyCode::Char('q' | 'Q') => return Some(Order::Quit),
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter(self.filter.clone()),
            KeyCode::Tab => self.turn_to(match self.view {
                View::Services => View::Counters,
                View::Counters => View::Workers,
                View::Workers => View::Services,
            }),
            KeyCode::BackTab => self.turn_to(match self.view {
                View::Services => View::Workers,
                View::Counters => View::Services,
                View::Workers => View::Counters,
            }),
            KeyCode::Char('s' | '>') => self.sort_by(1),
            KeyCode::Char('S' | '<') => self.sort_by(-1),
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Char('c') => self.is_folded = !self.is_folded,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('+') => return self.every(0.5),
            KeyCode::Char('-') => return self.every(2.0),
            KeyCode::Char('d') => self.drain(),
            KeyCode::Char('w') => {
                if let Some(change) = self.chosen() {
                    self.mode = Mode::Weight(change, String::new());
                }
            }
            KeyCode::Up | KeyCode::Char('k') => self.go(-1),
            KeyCode::Down | KeyCode::Char('j') => self.go(1),
            KeyCode::PageUp => self.go(-PAGE),
            KeyCode::PageDown => self.go(PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.go(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.go(isize::MAX),
            _ => {}
        }
        None
    }

    fn turn_to(&mut self, view: View) {
        self.view = view;
        self.scroll = 0;
    }

    fn sort_by(&mut self, step: isize) {
        let orders = Sort::ALL.len() as isize;
        let place = Sort::ALL.iter().position(|&sort| sort == self.sort);
        let place = place.unwrap_or(0) as isize + step;
        self.sort = Sort::ALL[place.rem_euclid(orders) as usize];
    }

    fn every(&mut self, factor: f64) -> Option<Order> {
        let seconds = self.interval.as_secs_f64() * factor;
        let seconds = seconds.clamp(*INTERVAL_S.start(), *INTERVAL_S.end());
        self.interval = Duration::from_secs_f64(seconds);
        Some(Order::Every(self.interval))
    }

    fn go(&mut self, step: isize) {
        if self.view != View::Services {
            let last = match self.view {
                View::Counters => self.counters().len(),
                _ => self.reading.as_ref().map_or(0, |r| r.workers.len()),
            };
            self.scroll = moved(self.scroll, step, last);
            return;
        }
        let rows = self.rows();
        let place = moved(self.place(&rows), step, rows.len());
        self.selected = rows.get(place).map(Row::key);
    }

    /// The selected server; a word where it is none.
    fn chosen(&mut self) -> Option<Change> {
        let rows = self.rows();
        let row = rows.get(self.place(&rows)).copied();
        let change = match row {
            Some(Row::Server(of, row)) if self.view == View::Services => Some(Change {
                service: of.service,
                server: row.server,
                spec: row.spec,
                live: row.traffic.live(),
            }),
            _ => None,
        };
        if change.is_none() {
            let text = "select a server first, with the arrow keys".to_owned();
            self.note = Some(Note { text, is_bad: true });
        }
        change
    }

    /// Weight 0, or back from it.
    fn drain(&mut self) {
        let Some(change) = self.chosen() else {
            return;
        };
        let key = (change.service, Some(change.server));
        let weight = match change.spec.weight {
            0 => self.weights.get(&key).copied().unwrap_or(1),
            _ => 0,
        };
        self.mode = Mode::Confirm(change, weight);
    }

    fn filtering(&mut self, code: KeyCode, mut text: String) {
        match code {
            KeyCode::Enter => {
                self.filter = text;
                return;
            }
            KeyCode::Esc => return,
            KeyCode::Backspace => _ = text.pop(),
            KeyCode::Char(letter) => text.push(letter),
            _ => {}
        }
        self.mode = Mode::Filter(text);
    }

    fn weighing(&mut self, code: KeyCode, change: Change, mut text: String) -> Option<Order> {
        match code {
            KeyCode::Esc => return None,
            KeyCode::Enter if text.is_empty() => return None,
            KeyCode::Enter => {
                if let Some(weight) = text.parse().ok().filter(|weight| *weight <= WEIGHT_MAX) {
                    return Some(self.ordered(&change, weight));
                }
                let text = format!("a weight is 0 to {WEIGHT_MAX}");
                self.note = Some(Note { text, is_bad: true });
            }
            KeyCode::Backspace => _ = text.pop(),
            KeyCode::Char(digit @ '0'..='9') if text.len() < 10 => text.push(digit),
            _ => {}
        }
        self.mode = Mode::Weight(change, text);
        None
    }

    fn ordered(&mut self, change: &Change, weight: u32) -> Order {
        self.note = None;
        let key = (change.service, Some(change.server));
        match (change.spec.weight, weight) {
            (before @ 1.., 0) => _ = self.weights.insert(key, before),
            _ => _ = self.weights.remove(&key),
        }
        let text = match weight {
            0 => format!("{} is drained", change.name()),
            weight => format!("{} has weight {weight}", change.name()),
        };
        Order::Run(change.to(weight), text)
    }
}

fn moved(place: usize, step: isize, rows: usize) -> usize {
    let last = rows.saturating_sub(1);
    place.saturating_add_signed(step).min(last)
}
