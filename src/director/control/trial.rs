//! Commits that are taken back unless they are confirmed. What takes one back is worked
//! out when it is made, from the state before and after it, and carried out command by
//! command: what others change meanwhile (health checks, say) stays as it is, and the
//! numbers of servers that live connections name are never reused by going back in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cli::api::{Batch, CONFIRM_MAX_S, Commit, Outcome, Trial};
use cli::config;
use crossbeam_channel::Receiver;
use sched::command::Command;

use super::look::left_s;
use super::state::State;
use super::{Control, has_effect};
use crate::director::clock;
use crate::director::state_dir::document::SavedWaiting;

/// Why a commit was not made, confirmed or taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSettled {
    /// Another commit waits, or none does.
    Conflict(String),
    /// It is applied, but not in force.
    Failed(String),
}

/// A commit in force that waits for its confirmation.
#[derive(Debug)]
pub(super) struct Waiting {
    until: Instant,
    /// Shared with those who look at it.
    saved: Arc<SavedWaiting>,
}

impl Waiting {
    fn new(undo: Vec<Command>, within: Duration) -> Self {
        let until_ms = (clock::monotonic() + within).as_millis() as u64;
        Self {
            until: Instant::now() + within,
            saved: Arc::new(SavedWaiting { undo, until_ms }),
        }
    }

    /// One that an earlier process began to wait for. Its time may be up.
    pub(super) fn resumed(saved: SavedWaiting) -> Self {
        let until = Duration::from_millis(saved.until_ms);
        let longest = Duration::from_secs(CONFIRM_MAX_S.into());
        let left = until.saturating_sub(clock::monotonic()).min(longest);
        Self {
            until: Instant::now() + left,
            saved: Arc::new(saved),
        }
    }

    /// As it is to be written down.
    pub(super) fn saved(&self) -> &SavedWaiting {
        &self.saved
    }

    /// Until when it waits, and for what, for those who look.
    pub(super) fn shared(&self) -> (Instant, Arc<SavedWaiting>) {
        (self.until, self.saved.clone())
    }
}

impl Control {
    /// Carries out a trial's commands and begins to wait.
    pub(super) fn try_out(&mut self, trial: Trial) -> Result<Outcome, NotSettled> {
        if let Some(waiting) = &self.waiting {
            return Err(NotSettled::Conflict(format!(
                "a commit waits for its confirmation, {} s more: confirm it or take it back first",
                left_s(waiting.until)
            )));
        }
        let before = self.state.clone();
        let batch = Batch {
            commands: trial.commands,
            atomic: true,
        };
        let outcome = self.apply(&batch);
        if !has_effect(&outcome) {
            return Ok(outcome);
        }
        let undo = undo(&self.state, &before);
        let within = Duration::from_secs(trial.confirm_within_s.into());
        self.waiting = Some(Waiting::new(undo, within));
        if let Err(reason) = self.save_or_undo(before) {
            self.waiting = None;
            return Err(NotSettled::Failed(reason));
        }
        // Also where a worker lags: what is applied must be taken back all the same.
        self.enforce().map_err(NotSettled::Failed)?;
        Ok(outcome)
    }

    /// The commit that waits.
    pub(super) fn commit(&self) -> Commit {
        self.look().commit()
    }

    /// Keeps what the waiting commit changed.
    pub(super) fn confirm(&mut self) -> Result<Commit, NotSettled> {
        match self.waiting.take() {
            Some(_) => {
                self.unsaved = true;
                let _ = self.save();
                Ok(self.commit())
            }
            None => Err(none_waits()),
        }
    }

    /// Takes the waiting commit back.
    pub(super) fn take_back(&mut self) -> Result<Commit, NotSettled> {
        let waiting = self.waiting.take().ok_or_else(none_waits)?;
        let batch = Batch {
            commands: waiting.saved.undo.clone(),
            atomic: false,
        };
        let outcome = self.apply(&batch);
        for (command, refusal) in batch.commands.iter().zip(&outcome.refusals) {
            if let Some(refusal) = refusal {
                tracing::warn!("taking back a commit: {command:?}: {refusal}");
            }
        }
        if has_effect(&outcome) {
            self.enforce().map_err(NotSettled::Failed)?;
        }
        let _ = self.save();
        Ok(self.commit())
    }

    /// When the time of the waiting commit is up; never where none waits.
    pub(super) fn confirmation_due(&self) -> Receiver<Instant> {
        match &self.waiting {
            Some(waiting) => crossbeam_channel::at(waiting.until),
            None => crossbeam_channel::never(),
        }
    }

    /// Takes the waiting commit back because nobody confirmed it.
    pub(super) fn take_back_unconfirmed(&mut self) {
        tracing::warn!("nobody confirmed the last commit in time: it is taken back");
        // What went wrong is logged by `enforce`.
        let _ = self.take_back();
    }
}

fn none_waits() -> NotSettled {
    NotSettled::Conflict(
        "no commit waits for its confirmation: it was confirmed, or its time was up and it was \
         taken back"
            .into(),
    )
}

/// The commands that lead from one state to another.
fn undo(from: &State, to: &State) -> Vec<Command> {
    config::transaction(&from.config(), &to.config(), &config::Tunables::new())
}

#[cfg(test)]
mod tests;
