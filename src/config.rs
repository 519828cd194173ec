//! The configuration file from the process's side: `lvx check`, `lvx save`, and what a
//! director reads at its start and on SIGHUP.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use cli::client::Client;
use cli::config::{self, Config, Problems, Running, Tunables};
use cli::director::{Director, DirectorError};

use crate::director::settings::Settings;

/// `lvx check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The file; - for standard input
    file: PathBuf,
    /// Show what a running director would change to be so
    #[arg(long)]
    diff: bool,
    /// Problems as JSON
    #[arg(long)]
    json: bool,
}

/// `lvx save`.
#[derive(Debug, Args)]
pub struct Save {
    /// Where to; standard output where it is left out
    file: Option<PathBuf>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is wrong.
    #[error("{0}")]
    Wrong(Problems),
}

/// Reads a configuration file; `-` is standard input.
pub fn load(path: &Path) -> Result<Config, FileError> {
    let text = match path == Path::new("-") {
        true => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map(|_| text)
        }
        false => std::fs::read_to_string(path),
    };
    let text = text.map_err(|error| FileError::Unreadable {
        path: path.to_owned(),
        error,
    })?;
    let judge = |name: &str, value: &str| Settings::default().set(name, value);
    config::read(&path.display().to_string(), &text, &judge).map_err(FileError::Wrong)
}

/// The tunables' values where no file names others.
pub fn defaults() -> Tunables {
    let settings = Settings::default();
    let values = settings.values().iter();
    values
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

impl Check {
    /// Judges the file: 0 where it is right.
    pub fn run(&self) -> ExitCode {
        let name = self.file.display();
        let config = match load(&self.file) {
            Ok(config) => config,
            Err(FileError::Wrong(problems)) if self.json => {
                println!("{:#}", problems.json());
                return ExitCode::FAILURE;
            }
            Err(FileError::Wrong(problems)) => {
                eprint!("{}", problems.picture(io::stderr().is_terminal()));
                return ExitCode::FAILURE;
            }
            Err(error) => return failed(&error.to_string()),
        };
        if self.json {
            println!("[]");
        } else {
            let servers: usize = config.services.iter().map(|s| s.servers.len()).sum();
            println!(
                "{name}: right: {} services, {servers} servers, {} tunables, {} firewall marks",
                config.services.len(),
                config.tunables.len(),
                config.marks.len()
            );
        }
        if !self.diff {
            return ExitCode::SUCCESS;
        }
        match running() {
            Ok(running) => {
                let commands = config::transaction(&running.config(), &config, &defaults());
                match config::difference(&running, &commands) {
                    text if text.is_empty() => println!("the running director is so already"),
                    text => print!("{text}"),
                }
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error.to_string()),
        }
    }
}

impl Save {
    /// Writes what runs.
    pub fn run(&self) -> ExitCode {
        let text = match running() {
            Ok(running) => config::write(&running, &defaults()),
            Err(error) => return failed(&error.to_string()),
        };
        let written = match &self.file {
            None => io::stdout().write_all(text.as_bytes()),
            Some(path) => replace(path, &text),
        };
        match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(141),
            Err(error) => {
                let name = self.file.as_deref().unwrap_or(Path::new("standard output"));
                failed(&format!("{}: {error}", name.display()))
            }
        }
    }
}

/// A file is the old one or the new one, never a half.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = std::fs::File::create(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let replaced = written.and_then(|()| std::fs::rename(&beside, path));
    if replaced.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    replaced
}

fn running() -> Result<Running, DirectorError> {
    let mut client = Client::from_environment();
    let tunables = client.tunables()?.into_iter();
    Ok(Running {
        table: client.table()?,
        marks: client.fwmarks()?,
        prefixes: Arc::new(client.prefixes()?),
        tunables: tunables
            .map(|(name, value)| (name, cli::commands::plain(&value)))
            .collect(),
    })
}

fn failed(message: &str) -> ExitCode {
    eprintln!("lvx: {}", message.trim_start_matches("lvx: "));
    ExitCode::FAILURE
}
