//! What a command line needs of a director. A trait, so that the same code runs against
//! the API and, in tests, against a table in memory.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use sched::command::{Command, Refusal};
use thiserror::Error;

use crate::api::{ConnectionRow, Part, Table};

/// A director that carries out commands and can be asked.
pub trait Director {
    /// Carries out `commands` in order, each on its own. One answer for each.
    fn execute(&mut self, commands: &[Command]) -> Result<Vec<Option<Refusal>>, DirectorError>;

    /// The table.
    fn table(&mut self) -> Result<Table, DirectorError>;

    /// A part of the table. A director that cannot give parts may look at all of it.
    fn table_part(&mut self, part: &Part) -> Result<Table, DirectorError> {
        self.table().map(|table| part.of(table))
    }

    /// Hands every connection to `each`, until it breaks off.
    fn connections(
        &mut self,
        each: &mut dyn FnMut(ConnectionRow) -> ControlFlow<()>,
    ) -> Result<(), DirectorError>;
}

/// Why a director could not be asked. Says what to do.
#[derive(Debug, Error)]
pub enum DirectorError {
    /// Nobody listens.
    #[error(
        "lvx: no director answers on {}: {source}; start it with 'lvx director --port DEV', \
         or name its socket in LVX_API", path.display()
    )]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket may not be opened.
    #[error("Permission denied (you must be root)")]
    PermissionDenied,
    /// The connection broke.
    #[error("lvx: the director on {} broke off: {reason}; see its log", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// An answer that this version does not understand.
    #[error(
        "lvx: the director on {} is lvx {theirs}, this is lvx {}, and {reason}; start the director \
         anew with this version, or use the one that it was started with",
        path.display(), env!("CARGO_PKG_VERSION")
    )]
    Version {
        /// The socket.
        path: PathBuf,
        /// The director's version, as far as it says.
        theirs: String,
        /// What was not understood.
        reason: String,
    },
    /// The director answered that it could not.
    #[error("lvx: the director on {} answered {status}: {reason}", path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// The HTTP status.
        status: u16,
        /// Its text.
        reason: String,
    },
}

impl DirectorError {
    /// Why connecting to `path` failed.
    pub fn from_connect(path: PathBuf, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::PermissionDenied,
            _ => Self::Unreachable { path, source },
        }
    }
}
