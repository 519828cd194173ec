//! What the shell needs of a director beyond listings. A trait, so that the shell runs in
//! tests without one.

use sched::command::{Command, FwmarkRule, Refusal};

use crate::api::Waiting;
use crate::client::{Client, Values};
use crate::director::{Director, DirectorError};

/// Why each command was refused, or none.
pub type Refusals = Vec<Option<Refusal>>;

/// A director with all that its API offers.
pub trait Appliance: Director {
    /// Carries out commands, all or none.
    fn all_or_none(&mut self, commands: &[Command]) -> Result<Refusals, DirectorError>;
    /// What [`Appliance::all_or_none`] would say.
    fn check(&mut self, commands: &[Command]) -> Result<Refusals, DirectorError>;
    /// Carries out commands and takes them back unless they are confirmed.
    fn try_out(&mut self, commands: &[Command], within_s: u32) -> Result<Refusals, DirectorError>;
    /// The commit that waits for its confirmation.
    fn waiting(&mut self) -> Result<Option<Waiting>, DirectorError>;
    /// Confirms it.
    fn confirm(&mut self) -> Result<(), DirectorError>;
    /// Takes it back.
    fn take_back(&mut self) -> Result<(), DirectorError>;
    /// Tunables, name to value.
    fn tunables(&mut self) -> Result<Values, DirectorError>;
    /// Firewall marks.
    fn fwmarks(&mut self) -> Result<Vec<FwmarkRule>, DirectorError>;
    /// Drops and events.
    fn counters(&mut self) -> Result<Values, DirectorError>;
}

impl Appliance for Client {
    fn all_or_none(&mut self, commands: &[Command]) -> Result<Refusals, DirectorError> {
        self.batch(commands, true)
    }
    fn check(&mut self, commands: &[Command]) -> Result<Refusals, DirectorError> {
        Client::check(self, commands)
    }
    fn try_out(&mut self, commands: &[Command], within_s: u32) -> Result<Refusals, DirectorError> {
        Client::try_out(self, commands, within_s)
    }
    fn waiting(&mut self) -> Result<Option<Waiting>, DirectorError> {
        Client::waiting(self)
    }
    fn confirm(&mut self) -> Result<(), DirectorError> {
        Client::confirm(self)
    }
    fn take_back(&mut self) -> Result<(), DirectorError> {
        Client::take_back(self)
    }
    fn tunables(&mut self) -> Result<Values, DirectorError> {
        Client::tunables(self)
    }
    fn fwmarks(&mut self) -> Result<Vec<FwmarkRule>, DirectorError> {
        Client::fwmarks(self)
    }
    fn counters(&mut self) -> Result<Values, DirectorError> {
        Client::counters(self)
    }
}
