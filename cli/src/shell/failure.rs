//! Why a line came to nothing.

use std::io;

use super::fault::Fault;
use crate::director::DirectorError;

/// Why a line came to nothing.
#[derive(Debug)]
pub enum Failure {
    /// The line is wrong, or the director refuses it.
    Fault(Fault),
    /// The director could not be asked.
    Director(DirectorError),
    /// The output could not be written.
    Output(io::Error),
    /// A line of ipvsadm's failed: its exit status and what it said.
    Adm(u8, String),
}

impl Failure {
    /// The exit status of a script that this ends.
    pub fn status(&self) -> u8 {
        match self {
            Self::Fault(_) | Self::Output(_) => 1,
            Self::Director(_) => 2,
            Self::Adm(status, _) => *status,
        }
    }

    /// What to tell people about `line`.
    pub fn text(&self, line: &str) -> String {
        match self {
            Self::Fault(fault) => fault.text(line),
            Self::Director(error) => {
                let text = error.to_string();
                text.strip_prefix("lvx: ").unwrap_or(&text).to_owned()
            }
            Self::Output(error) => format!("cannot write standard output: {error}"),
            Self::Adm(_, text) => text.trim_end().to_owned(),
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<DirectorError> for Failure {
    fn from(error: DirectorError) -> Self {
        match error {
            // A commit waits already, or none does: the director says so in full.
            DirectorError::Failed {
                status: 409,
                reason,
                ..
            } => Self::Fault(Fault::whole(error_text(&reason))),
            error => Self::Director(error),
        }
    }
}

fn error_text(body: &str) -> String {
    let value: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let text = value
        .as_ref()
        .and_then(|value| value.get("error")?.as_str());
    text.unwrap_or(body).to_owned()
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
