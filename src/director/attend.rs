//! What the process does while its director runs: opens the API when it is time, takes up
//! an edited configuration file on SIGHUP, starts its successor on SIGUSR2, and tells the
//! service manager how it goes.
//!
//! systemd hears "ready" when the API is open, "reloading" around a reload, and is kept
//! from restarting the process only as long as control answers and every worker turns.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cli::api::{Batch, Part};
use cli::config::{self, Config, Running};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use sd_notify::NotifyState;
use tokio::sync::oneshot;

use super::compose::End;
use super::control::{Order, Orders};
use super::successor::Successor;
use crate::config::{defaults, load};

/// The least time between two looks at the workers: longer than any sleep of theirs.
const LOOK_MIN: Duration = Duration::from_millis(100);

/// Attends to a director.
#[derive(Debug)]
pub struct Attendant {
    orders: Orders,
    file: Option<PathBuf>,
    /// What only a start reads, as it was read then.
    started_with: config::Director,
    /// How often the service manager wants to hear.
    watchdog: Option<Duration>,
    /// None where no process could take over.
    successor: Option<Successor>,
}

impl Attendant {
    /// Of the director that obeys `orders` and was started with `config` from `file`.
    pub fn new(orders: Orders, file: Option<PathBuf>, config: Option<&Config>) -> Self {
        Self {
            orders,
            file,
            started_with: config.map(|c| c.director.clone()).unwrap_or_default(),
            // Twice as often, as systemd advises.
            watchdog: sd_notify::watchdog_enabled().map(|period| (period / 2).max(LOOK_MIN)),
            successor: None,
        }
    }

    /// Has this one take over when it is asked for.
    pub fn with_successor(self, successor: Option<Successor>) -> Self {
        Self { successor, ..self }
    }

    /// Waits for an end, until `until` at most where there is one.
    pub fn wait(&mut self, ends: &Receiver<End>, until: Option<Instant>) -> Option<End> {
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let wait = [left, self.watchdog].into_iter().flatten().min();
            let heard = match wait {
                Some(wait) => ends.recv_timeout(wait),
                None => ends.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match heard {
                Ok(End::Reload) => self.reload(),
                Ok(End::Upgrade) => self.upgrade(),
                Ok(End::SuccessorEnded(how)) => {
                    self.successor.iter_mut().for_each(|s| s.ended(&how));
                }
                Ok(end) => return Some(end),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if left == Some(Duration::ZERO) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    if until.is_none_or(|until| Instant::now() < until) {
                        self.watch();
                    } else {
                        return None;
                    }
                }
            }
        }
    }

    /// Tells the service manager; without one, nobody.
    pub fn say(&self, states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            tracing::warn!("the service manager does not hear: {error}");
        }
    }

    /// Tells the service manager which process it is to follow from here on. What that one
    /// says must come after this: then it is the main process's word, which is all that
    /// `NotifyAccess=main` admits. That is why the watchdog is fed in the same message: in
    /// a later one it would be a stranger's.
    pub fn say_main(&self, process: u32) {
        let states = [NotifyState::MainPid(process), NotifyState::Watchdog];
        let count = if self.watchdog.is_some() { 2 } else { 1 };
        self.say(&states[..count]);
    }

    /// Tells the service manager that the time it waits begins anew.
    pub fn say_alive(&self) {
        if self.watchdog.is_some() {
            self.say(&[NotifyState::Watchdog]);
        }
    }

    /// Ends a process that was to take over, if there is one.
    pub fn stop_successor(&self) {
        self.successor.iter().for_each(Successor::stop);
    }

    /// Brings the director to what `config` says, all or nothing. What has changed, as text.
    pub fn enforce(&self, config: &Config) -> Result<String, String> {
        let running = self.running().ok_or("control has ended")?;
        let commands = config::transaction(&running.config(), config, &defaults());
        let difference = config::difference(&running, &commands);
        if commands.is_empty() {
            return Ok(difference);
        }
        let shown = commands.clone();
        let batch = Batch {
            commands,
            atomic: true,
        };
        let outcome = self
            .ask(|reply| Order::Run(batch, reply))
            .ok_or("control has ended")??;
        // All or none: the command that was refused says why none was carried out.
        let refused = outcome.refusals.iter().zip(&shown);
        let reasons = refused.filter_map(|(refusal, command)| Some((refusal.as_ref()?, command)));
        let told = |(refusal, command): (&sched::command::Refusal, &sched::command::Command)| {
            format!(
                "{refusal} ({})",
                serde_json::to_string(command).unwrap_or_default()
            )
        };
        let other = "not carried out";
        match reasons.map(told).find(|text| !text.starts_with(other)) {
            Some(reason) => Err(reason),
            None => Ok(difference),
        }
    }

    fn upgrade(&mut self) {
        match &mut self.successor {
            Some(successor) => successor.start(),
            None => tracing::warn!(
                "SIGUSR2: no state is kept (--no-state, or it had no room), or nothing could be \
                 pinned, so no process can take over from this one: ignored"
            ),
        }
    }

    fn reload(&self) {
        let Some(file) = &self.file else {
            tracing::warn!("SIGHUP: there is no --config file to take up again");
            return;
        };
        let now = NotifyState::monotonic_usec_now();
        let now = now.unwrap_or(NotifyState::MonotonicUsec(0));
        self.say(&[NotifyState::Reloading, now]);
        match self.take_up(file) {
            Ok(changes) if changes.is_empty() => {
                tracing::info!("{}: nothing has changed", file.display());
            }
            Ok(changes) => {
                tracing::info!("{}: in force:", file.display());
                changes.lines().for_each(|line| tracing::info!("  {line}"));
            }
            Err(reason) => refuse(file, &reason),
        }
        self.say(&[NotifyState::Ready]);
    }

    fn take_up(&self, file: &Path) -> Result<String, String> {
        let config = load(file).map_err(|error| error.to_string())?;
        if config.director != self.started_with {
            tracing::warn!(
                "{}: [director] has changed; ports, cores and sizes take a restart",
                file.display()
            );
        }
        self.enforce(&config)
    }

    /// Only a director whose every part moves is alive.
    fn watch(&self) {
        match self.orders.pulse() {
            Some(silent) if silent.is_empty() => self.say(&[NotifyState::Watchdog]),
            Some(silent) => tracing::error!("workers {silent:?} do not turn any more"),
            None => tracing::error!("control does not answer"),
        }
    }

    fn running(&self) -> Option<Running> {
        let look = self.ask(Order::Look)?;
        Some(Running {
            table: look.table(&Part::All),
            marks: look.state.marks.rules(),
            prefixes: look.state.prefixes.clone(),
            tunables: look.tunables(),
        })
    }

    fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply));
        answer.blocking_recv().ok()
    }
}

/// Says that a file is not put in force, and why not.
pub fn refuse(file: &Path, reason: &str) {
    tracing::error!("{}: refused, all stays as it was:", file.display());
    reason.lines().for_each(|line| tracing::error!("  {line}"));
}
