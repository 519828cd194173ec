//! The live view at a terminal: keys in, screens out; samples come from a thread of their
//! own, so that a director that hangs does not hold up the keys.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::widgets::Paragraph;
use ratatui::{DefaultTerminal, Frame};
use sched::command::Command;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::screen;
use super::state::{Order, State};
use crate::api::Sample;
use crate::client::Client;
use crate::director::DirectorError;

/// How often samples and signals are looked for while no key comes.
const LOOK: Duration = Duration::from_millis(50);

/// What the asking thread is told.
enum Ask {
    Run(Command, String),
    Every(Duration),
}

/// What the asking thread tells.
enum Told {
    Sample(Result<Sample, String>),
    Done(Result<String, String>),
}

/// Runs until the user leaves or a signal comes. The exit status.
pub fn run(client: Client, state: State) -> io::Result<u8> {
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGTERM, SIGINT] {
        signal_hook::flag::register_usize(number, signal.clone(), number as usize)?;
    }
    let (ask, asked) = channel();
    let (tell, told) = channel();
    let interval = state.interval;
    thread::Builder::new()
        .name("lvx-top-asks".into())
        .spawn(move || follow(client, interval, &asked, &tell))?;
    // Also restores the terminal when a thread panics.
    let mut terminal = ratatui::try_init()?;
    let ended = watch(&mut terminal, state, &signal, &ask, &told);
    ratatui::restore();
    ended
}

fn watch(
    terminal: &mut DefaultTerminal,
    mut state: State,
    signal: &AtomicUsize,
    ask: &Sender<Ask>,
    told: &Receiver<Told>,
) -> io::Result<u8> {
    let mut is_stale = true;
    loop {
        if std::mem::take(&mut is_stale) {
            terminal.draw(|frame| draw(frame, &state))?;
        }
        if event::poll(LOOK)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match state.key(key) {
                    Some(Order::Quit) => return Ok(0),
                    // A thread that is gone shows below.
                    Some(Order::Run(command, text)) => _ = ask.send(Ask::Run(command, text)),
                    Some(Order::Every(interval)) => _ = ask.send(Ask::Every(interval)),
                    None => {}
                },
                _ => {}
            }
            is_stale = true;
        }
        match signal.load(Relaxed) {
            0 => {}
            // As a shell shows a process that the signal ended.
            number => return Ok(128 + number as u8),
        }
        loop {
            match told.try_recv() {
                Ok(Told::Sample(sample)) => state.take(sample),
                Ok(Told::Done(ended)) => state.done(ended),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    return Err(io::Error::other(
                        "the thread that asks the director has ended",
                    ));
                }
            }
            is_stale = true;
        }
    }
}

fn draw(frame: &mut Frame<'_>, state: &State) {
    let area = frame.area();
    let lines = screen::lines(state, area.width, area.height);
    frame.render_widget(Paragraph::new(lines), area);
}

/// Asks the director until nobody listens.
fn follow(mut client: Client, mut interval: Duration, asked: &Receiver<Ask>, tell: &Sender<Told>) {
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        match asked.recv_timeout(left) {
            Ok(Ask::Every(other)) => {
                interval = other;
                next = next.min(Instant::now() + interval);
                continue;
            }
            Ok(Ask::Run(command, text)) => {
                let ended = carry_out(&mut client, command).map(|()| text);
                if tell.send(Told::Done(ended)).is_err() {
                    return;
                }
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let sample = client.sample().map_err(|error| brief(&error));
        if tell.send(Told::Sample(sample)).is_err() {
            return;
        }
        next = Instant::now() + interval;
    }
}

fn carry_out(client: &mut Client, command: Command) -> Result<(), String> {
    let refusals = client
        .batch(&[command], true)
        .map_err(|error| brief(&error))?;
    match refusals.into_iter().flatten().next() {
        Some(refusal) => Err(format!("refused: {refusal}")),
        None => Ok(()),
    }
}

/// What fits one line of a screen.
fn brief(error: &DirectorError) -> String {
    match error {
        DirectorError::Unreachable { path, source } => {
            format!("no director answers on {}: {source}", path.display())
        }
        DirectorError::Broken { path, .. } => {
            format!("the director on {} broke off", path.display())
        }
        other => other.to_string(),
    }
}
