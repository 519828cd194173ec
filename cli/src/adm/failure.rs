//! Why a line was not carried out, with ipvsadm's words and exit statuses: scripts test
//! both.

use sched::command::{Command, Refusal};

/// What goes to standard error, and the exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit status.
    pub status: u8,
    /// The text, without its last newline.
    pub message: String,
    /// Ends `-R`. Otherwise the next line is tried.
    pub fatal: bool,
}

impl Failure {
    /// A line that makes no sense: status 2, ends `-R`.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            status: 2,
            message: message.into(),
            fatal: true,
        }
    }

    /// Not carried out, or an unreadable option: status 255, `-R` goes on.
    pub fn refused(message: impl Into<String>) -> Self {
        Self {
            status: 255,
            message: message.into(),
            fatal: false,
        }
    }

    /// A listing that failed: status 1, ends `-R`.
    pub fn listing(message: impl Into<String>) -> Self {
        Self {
            status: 1,
            message: message.into(),
            fatal: true,
        }
    }

    /// A first word that is no command: status 255, ends `-R`.
    pub fn try_help(program: &str) -> Self {
        Self {
            fatal: true,
            ..Self::refused(format!(
                "Try `{program} -h' or '{program} --help' for more information."
            ))
        }
    }

    /// ipvsadm's message for a refused command. What IPVS never refuses has lvx's own text.
    pub fn of(command: &Command, refusal: &Refusal) -> Self {
        let of_server = matches!(
            command,
            Command::AddServer { .. } | Command::EditServer { .. } | Command::DeleteServer { .. }
        );
        Self::refused(match refusal {
            Refusal::ServiceExists => "Service already exists".to_owned(),
            Refusal::NoSuchService if of_server => "Service not defined".to_owned(),
            Refusal::NoSuchService => "No such service".to_owned(),
            Refusal::ServerExists => "Destination already exists".to_owned(),
            Refusal::NoSuchServer => "No such destination".to_owned(),
            Refusal::NoSuchScheduler => "Scheduler or persistence engine not found".to_owned(),
            Refusal::OutOfRange { .. } => "Numerical result out of range".to_owned(),
            Refusal::Invalid { .. } => INVALID.to_owned(),
            Refusal::NotLocal { .. } | Refusal::NoSuchTunable { .. } | Refusal::Limit { .. } => {
                refusal.to_string()
            }
        })
    }
}

/// ipvsadm's text for EINVAL.
const INVALID: &str = "Invalid operation.  Possibly wrong module version, address not unicast, ...";
