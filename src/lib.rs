//! The lvx binary's own library: the binary is [`main`] and nothing else, so that fuzz
//! targets reach the readers of state and bodies as tests do.

mod bench;
mod config;
mod director;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod log;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use cli::config::{CONNECTIONS as CONNECTIONS_ALLOWED, CORE_MAX, QUEUES};
use director::api::Groups;
use director::compose::{self, End, Options};
use director::take_up::StateOptions;
use director::{fault, privilege};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;

/// A Linux Virtual Server director in user space, over AF_XDP
#[derive(Debug, Parser)]
#[command(
    name = "lvx",
    version,
    after_help = "Examples:\n  lvx director --port eth0 --port eth1    \
                  # as a service, in the foreground\n  \
                  lvx adm -A -t 192.0.2.10:80 -s wlc       \
                  # ipvsadm's words; a link named ipvsadm does without `adm`\n  \
                  lvx adm -a -t 192.0.2.10:80 -r 10.0.0.11 -m\n  \
                  lvx top                                  # what goes on\n  \
                  lvx explain tcp 198.51.100.7:1024 192.0.2.10:80\n  \
                  lvx shell                                # a prompt, with TAB and `?`\n\n\
                  LVX_API names another director's socket than /run/lvx/lvx.sock."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a director in the foreground, until SIGTERM or SIGINT
    #[command(after_help = "Signals:\n  \
                      SIGTERM, SIGINT  end it, and remove all it set up\n  \
                      SIGHUP           take the configuration file up again\n  \
                      SIGUSR2          start the program anew, which takes over: an upgrade\n\n\
                      Examples:\n  lvx director --port eth0 --port eth1 --cores 2,3\n  \
                      lvx director --config /etc/lvx.toml")]
    Director(DirectorArguments),
    /// Judge a configuration file
    #[command(
        after_help = "Examples:\n  lvx check /etc/lvx.toml\n  lvx check --diff /etc/lvx.toml"
    )]
    Check(config::Check),
    /// Write the running services, servers and tunables as a configuration file
    #[command(after_help = "Examples:\n  lvx save\n  lvx save /etc/lvx.toml")]
    Save(config::Save),
    /// Remove what a killed director left: steering program, state, socket
    #[command(
        after_help = "A director started again takes all of it up: this is for when none \
                            comes after.\n\nExample:\n  lvx clean --api /run/lvx/lvx.sock"
    )]
    Clean(CleanArguments),
    /// Measure what the director costs on this machine
    #[command(subcommand)]
    Bench(bench::Bench),
    #[command(flatten)]
    Client(cli::commands::Commands),
    /// Print a shell's completion of `lvx`
    #[command(after_help = "Example:\n  lvx completions bash > /etc/bash_completion.d/lvx")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages of lvx and ipvsadm
    #[command(after_help = "Example:\n  lvx man /usr/local/share/man")]
    Man {
        /// The folder of manual pages: they go to its man1 and man8
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
struct DirectorArguments {
    /// A configuration file; options that are given here come first, SIGHUP takes it up again
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A network device to take frames from and send frames by; may be given again
    #[arg(long = "port", value_name = "DEV", required_unless_present = "config")]
    ports: Vec<String>,
    /// The API's socket [default: /run/lvx/lvx.sock]
    #[arg(long, value_name = "SOCKET", env = "LVX_API")]
    api: Option<PathBuf>,
    /// A group whose members may do all: the API's socket is 0660 and the group's
    #[arg(long, value_name = "GROUP")]
    api_group: Option<String>,
    /// A group whose members may look, and change nothing
    #[arg(long, value_name = "GROUP")]
    api_read_group: Option<String>,
    /// The workers' cores, such as 2,3 or 4-7 [default: from the first]
    #[arg(long, value_name = "LIST", value_parser = parse_cores)]
    cores: Option<CoreList>,
    /// Workers, one queue of each port each [default: the fewest queues of any port]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(i64::from(*QUEUES.start())..=i64::from(*QUEUES.end())))]
    queues: Option<u32>,
    /// The most IPv4 connections; one of IPv6 takes the room of two [default: 1048576]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(CONNECTIONS_ALLOWED))]
    connections: Option<u64>,
    /// Workers never sleep: the least delay, for a whole core each
    #[arg(long)]
    busy_poll: bool,
    /// Copy frames between driver and workers, without asking for zero-copy
    #[arg(long)]
    copy: bool,
    /// Refuse services whose address is not this host's own
    #[arg(long)]
    require_local: bool,
    /// Where the state is kept that outlives a killed director: connections, services,
    /// counters [default: a folder in /dev/shm for each API socket and network namespace].
    /// With this option it is kept after a clean end too
    #[arg(long, value_name = "DIR", conflicts_with = "no_state")]
    state_dir: Option<PathBuf>,
    /// Ignore the state that is there: begin without services and connections
    #[arg(long)]
    cold: bool,
    /// Keep no state: killed, this director leaves nothing and loses all connections
    #[arg(long)]
    no_state: bool,
    /// Take the place of the director that runs with this API socket (or --state-dir), which
    /// ends; for a new version without a pause
    #[arg(long, conflicts_with_all = ["cold", "no_state"])]
    take_over: bool,
    /// Put the connection table into the system's huge pages
    #[arg(long)]
    huge_pages: bool,
}

#[derive(Debug, Args)]
struct CleanArguments {
    /// The API's socket of the director that was killed
    #[arg(
        long,
        value_name = "SOCKET",
        env = "LVX_API",
        default_value = "/run/lvx/lvx.sock"
    )]
    api: PathBuf,
    /// The --state-dir that it was started with, if any
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct CoreList(Vec<usize>);

/// The most IPv4 connections where nothing says otherwise.
const CONNECTIONS: u64 = 1 << 20;

/// `lvx check` knows the director's limits without the director.
const _: () = assert!(cli::config::PORTS_MAX == dataplane::port::steering::PORTS_MAX);

fn parse_cores(text: &str) -> Result<CoreList, String> {
    let wrong = || format!("`{text}` is no list of cores such as 2,3 or 4-7");
    let number = |word: &str| -> Result<usize, String> {
        let core: usize = word.parse().map_err(|_| wrong())?;
        if core > CORE_MAX {
            Err(wrong())
        } else {
            Ok(core)
        }
    };
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        for core in first..=last {
            if cores.contains(&core) {
                return Err(format!("core {core} is named twice"));
            }
            cores.push(core);
        }
    }
    Ok(CoreList(cores))
}

/// Runs what the process's arguments ask for.
pub fn main() -> ExitCode {
    if let Some(status) = cli::run_as_adm(std::env::args_os()) {
        return status;
    }
    match Arguments::parse().command {
        Command::Director(arguments) => run_director(arguments),
        Command::Check(check) => check.run(),
        Command::Save(save) => save.run(),
        Command::Clean(arguments) => run_clean(arguments),
        Command::Bench(bench) => bench.run(),
        Command::Client(command) => command.run(),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "lvx", &mut io::stdout());
            ExitCode::SUCCESS
        }
        Command::Man { directory } => match write_manual(&directory) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("lvx: {}: {error}", directory.display());
                ExitCode::FAILURE
            }
        },
    }
}

fn write_manual(directory: &Path) -> io::Result<()> {
    let [commands, administration] = ["man1", "man8"].map(|part| directory.join(part));
    std::fs::create_dir_all(&commands)?;
    std::fs::create_dir_all(&administration)?;
    clap_mangen::generate_to(Arguments::command(), &commands)?;
    cli::manual::write_to(&administration)
}

fn run_clean(arguments: CleanArguments) -> ExitCode {
    let options = StateOptions {
        folder: arguments.state_dir,
        off: false,
        cold: false,
        huge_pages: false,
        take_over: false,
    };
    let folder = options.folder(&arguments.api);
    match director::clean::clean(&folder, options.folder.is_some(), &arguments.api) {
        Ok(cleaned) => {
            if cleaned.removed.is_empty() {
                println!("there was nothing to remove");
            }
            let lines = cleaned.removed.iter().map(|what| format!("removed {what}"));
            let left = cleaned.left.iter().map(|what| format!("left {what}"));
            lines.chain(left).for_each(|line| println!("{line}"));
        }
        Err(error) => {
            eprintln!("lvx: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run_director(arguments: DirectorArguments) -> ExitCode {
    log::to_standard_error();
    let options = match options(arguments) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("lvx: {message}");
            return ExitCode::FAILURE;
        }
    };
    privilege::no_new();
    fault::end_on_panic();
    let (end, ends) = crossbeam_channel::unbounded();
    // Before anything is set up: a signal must never leave half of it behind.
    let ended = follow_signals(end.clone())
        .and_then(|()| compose::run(&options, end, &ends).map_err(io::Error::other));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lvx: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is given on the command line comes before what the file says.
fn options(arguments: DirectorArguments) -> Result<Options, String> {
    let file = arguments.config;
    let config = file.as_deref().map(config::load).transpose();
    let config = config.map_err(|error| error.to_string())?;
    let from_file = config.as_ref().map(|c| c.director.clone());
    let from_file = from_file.unwrap_or_default();
    let or = |given: Vec<String>, other| if given.is_empty() { other } else { given };
    let ports = or(arguments.ports, from_file.ports);
    if ports.is_empty() {
        return Err("no ports: name them with --port, or under [director] in the file".into());
    }
    let api = arguments.api.or(from_file.api);
    let cores = arguments.cores.map(|list| list.0);
    let connections = arguments.connections.or(from_file.connections);
    let groups = Groups::named(
        arguments.api_group.or(from_file.api_group).as_deref(),
        arguments
            .api_read_group
            .or(from_file.api_read_group)
            .as_deref(),
    );
    Ok(Options {
        groups: groups.map_err(|error| error.to_string())?,
        ports,
        api: api.unwrap_or_else(|| cli::client::DEFAULT_SOCKET.into()),
        cores: cores.unwrap_or(from_file.cores),
        queues: arguments.queues.or(from_file.queues),
        connections: connections.unwrap_or(CONNECTIONS) as usize,
        busy_poll: arguments.busy_poll || from_file.busy_poll,
        copy: arguments.copy || from_file.copy,
        require_local: arguments.require_local || from_file.require_local,
        state: StateOptions {
            folder: arguments.state_dir,
            off: arguments.no_state,
            cold: arguments.cold,
            huge_pages: arguments.huge_pages,
            take_over: arguments.take_over,
        },
        file,
        config,
    })
}

fn follow_signals(end: crossbeam_channel::Sender<End>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR2])?;
    let mut follow = move || {
        for signal in signals.forever() {
            let _ = end.send(match signal {
                SIGHUP => End::Reload,
                SIGUSR2 => End::Upgrade,
                SIGTERM => End::Signal("SIGTERM"),
                _ => End::Signal("SIGINT"),
            });
        }
    };
    std::thread::Builder::new()
        .name("lvx-signals".into())
        .spawn(move || {
            privilege::keep(privilege::NOTHING);
            follow();
        })
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_examples_parse() {
        let help = Arguments::command().get_after_help().unwrap().to_string();
        let lines = help.lines().filter_map(|line| line.strip_prefix("  "));
        let mut examples = 0;
        for line in lines {
            let words = line
                .split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace();
            Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            examples += 1;
        }
        assert_eq!(examples, 6);
    }

    #[test]
    fn core_lists() {
        let rows: [(&str, Option<&[usize]>); 8] = [
            ("0", Some(&[0])),
            ("2,3", Some(&[2, 3])),
            ("4-6,1", Some(&[4, 5, 6, 1])),
            ("", None),
            ("3-2", None),
            ("1,1", None),
            ("0-99999999999", None),
            ("a", None),
        ];
        for (text, expected) in rows {
            let cores = parse_cores(text).ok();
            assert_eq!(cores.map(|list| list.0).as_deref(), expected, "{text}");
        }
    }
}
