//! A director in memory with the whole API, for the shell's tests.

use std::num::NonZeroU32;
use std::ops::ControlFlow;

use sched::command::{Command, FwmarkRule, Refusal};
use sched::service::Protocol;

use super::appliance::{Appliance, Refusals};
use crate::api::{ConnectionRow, Table, Waiting};
use crate::client::Values;
use crate::director::{Director, DirectorError};
use crate::testing::MemoryDirector;

/// A director in memory.
#[derive(Default)]
pub struct Stub {
    /// Its table and connections.
    pub memory: MemoryDirector,
    /// The commit that waits, and the table before it.
    pub waiting: Option<(u32, Table)>,
    /// What was set.
    pub set: Vec<(String, String)>,
}

impl Director for Stub {
    fn execute(&mut self, commands: &[Command]) -> Result<Refusals, DirectorError> {
        self.memory.execute(commands)
    }
    fn table(&mut self) -> Result<Table, DirectorError> {
        self.memory.table()
    }
    fn connections(
        &mut self,
        each: &mut dyn FnMut(ConnectionRow) -> ControlFlow<()>,
    ) -> Result<(), DirectorError> {
        self.memory.connections(each)
    }
}

impl Appliance for Stub {
    fn all_or_none(&mut self, commands: &[Command]) -> Result<Refusals, DirectorError> {
        let before = self.memory.table.clone();
        self.memory.batches.push(commands.len());
        for (place, command) in commands.iter().enumerate() {
            let done = match command {
                Command::SetTunable { name, value } if value.parse::<u32>().is_ok() => {
                    self.set.push((name.clone(), value.clone()));
                    Ok(())
                }
                Command::SetTunable { name, .. } => Err(Refusal::OutOfRange {
                    what: format!("{name} is a number from 0 to 1"),
                }),
                command => self.memory.apply(command),
            };
            if let Err(refusal) = done {
                self.memory.table = before;
                let what = format!(
                    "not carried out, as command {} of the batch was refused",
                    place + 1
                );
                let mut refusals = vec![Some(Refusal::Invalid { what }); commands.len()];
                refusals[place] = Some(refusal);
                return Ok(refusals);
            }
        }
        Ok(vec![None; commands.len()])
    }
    fn check(&mut self, commands: &[Command]) -> Result<Refusals, DirectorError> {
        let before = self.memory.table.clone();
        let set = self.set.len();
        let refusals = self.all_or_none(commands);
        self.memory.table = before;
        self.memory.batches.pop();
        self.set.truncate(set);
        refusals
    }
    fn try_out(&mut self, commands: &[Command], within_s: u32) -> Result<Refusals, DirectorError> {
        if self.waiting.is_some() {
            return Err(conflict("a commit waits"));
        }
        let before = self.memory.table.clone();
        let refusals = self.all_or_none(commands)?;
        self.waiting = Some((within_s, before));
        Ok(refusals)
    }
    fn waiting(&mut self) -> Result<Option<Waiting>, DirectorError> {
        let waiting = self.waiting.as_ref();
        Ok(waiting.map(|&(left_s, _)| Waiting {
            left_s,
            undo: Vec::new(),
        }))
    }
    fn confirm(&mut self) -> Result<(), DirectorError> {
        self.waiting
            .take()
            .map(|_| ())
            .ok_or_else(|| conflict("no commit waits"))
    }
    fn take_back(&mut self) -> Result<(), DirectorError> {
        let (_, before) = self
            .waiting
            .take()
            .ok_or_else(|| conflict("no commit waits"))?;
        self.memory.table = before;
        Ok(())
    }
    fn tunables(&mut self) -> Result<Values, DirectorError> {
        let names = [
            "drop_packet",
            "expire_nodest_conn",
            "sloppy_sctp",
            "sloppy_tcp",
        ];
        Ok(names.map(|name| (name.to_owned(), "0".into())).into())
    }
    fn fwmarks(&mut self) -> Result<Vec<FwmarkRule>, DirectorError> {
        Ok(vec![FwmarkRule {
            mark: NonZeroU32::MIN,
            address: [10, 0, 0, 1].into(),
            protocol: Protocol::Tcp,
            ports: vec![80, 443],
        }])
    }
    fn counters(&mut self) -> Result<Values, DirectorError> {
        Ok([("drop_not_ip", 3), ("drop_ttl", 0)]
            .map(|(n, v)| (n.to_owned(), v.into()))
            .into())
    }
}

fn conflict(what: &str) -> DirectorError {
    DirectorError::Failed {
        path: "stub".into(),
        status: 409,
        reason: format!("{{\"error\": \"{what}\"}}"),
    }
}
