//! `lvx set`, `get`, `fwmark`, `counters`, `top`, `shell` and `adm`, for the root binary to mount.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use sched::command::{Command, FwmarkRule};
use sched::service::Protocol;
use serde::Serialize;
use serde_json::Value;

use crate::client::{Client, Values};
use crate::director::DirectorError;
use crate::output;

/// The commands that ask a running director.
#[derive(Debug, Subcommand)]
pub enum Commands {
    /// Virtual services and real servers, in ipvsadm's words
    #[command(
        disable_help_flag = true,
        after_help = "Example:\n  lvx adm -L -n --stats"
    )]
    Adm {
        /// What would follow `ipvsadm`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Work at a prompt, or carry out lines
    #[command(after_help = "Examples:\n  lvx shell\n  lvx shell --json -c -Ln\n  \
                            lvx shell -c edit -c -C -c diff")]
    Shell(crate::shell::ShellArgs),
    /// Set a tunable
    #[command(after_help = "Examples:\n  lvx set expire_nodest_conn 1\n  \
                            lvx set net.ipv4.vs.sloppy_tcp 1")]
    Set {
        /// A name as under net.ipv4.vs (see `lvx get`)
        name: String,
        /// Its value
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Show tunables
    #[command(after_help = "Examples:\n  lvx get\n  lvx get sloppy_tcp\n  lvx get --json")]
    Get {
        /// One tunable; all where it is left out
        name: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Give packets a firewall mark, as netfilter would
    Fwmark {
        /// What to do
        #[command(subcommand)]
        action: FwmarkAction,
    },
    /// Limit how many new connections services take
    Limit {
        /// What to do
        #[command(subcommand)]
        action: crate::limit::LimitAction,
    },
    /// Let clients in or keep them out, by the prefixes of their addresses
    Prefix {
        /// What to do
        #[command(subcommand)]
        action: crate::prefix::PrefixAction,
    },
    /// Show step by step what the director would do with a packet, and why
    #[command(after_help = "Nothing changes by asking.\n\nExamples:\n  \
                            lvx explain tcp 10.9.0.1:1001 10.1.0.1:80\n  \
                            lvx explain tcp 10.9.0.1:1001 10.1.0.1:80 --from-server --flags SA\n  \
                            lvx explain udp [fd09::1]:53 [fd01::1]:53 --json\n  \
                            lvx explain --pcap in.pcap --packet 3 --any-link")]
    Explain(crate::explain::ExplainArgs),
    /// Watch services, servers, drops and workers live
    #[command(
        after_help = "Examples:\n  lvx top\n  lvx top --interval 0.5 --filter 10.1.0.1\n  \
                            lvx top --once\n  lvx top --json"
    )]
    Top(crate::top::TopArgs),
    /// Show every drop reason and event with its count
    #[command(after_help = "Examples:\n  lvx counters\n  lvx counters --json")]
    Counters {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// What to do with firewall marks.
#[derive(Debug, Subcommand)]
pub enum FwmarkAction {
    /// Mark packets
    #[command(after_help = "Example, one service for HTTP and HTTPS:\n  \
                            lvx fwmark add 1 10.1.0.1 tcp 80,443\n  \
                            lvx adm -A -f 1 -s rr -p")]
    Add(MarkArgs),
    /// Mark them no longer
    #[command(after_help = "Example:\n  lvx fwmark del 1 10.1.0.1 tcp 80,443")]
    Del(MarkArgs),
    /// Show what is marked
    #[command(after_help = "Examples:\n  lvx fwmark list\n  lvx fwmark list --json")]
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which packets, and the mark they get.
#[derive(Debug, Args)]
pub struct MarkArgs {
    /// The mark, 1 to 4294967295
    mark: NonZeroU32,
    /// The packets' destination address
    address: IpAddr,
    /// Their protocol
    protocol: ProtocolName,
    /// Their destination ports; 0 stands for every port
    #[arg(value_delimiter = ',', required = true)]
    ports: Vec<u16>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ProtocolName {
    Tcp,
    Udp,
    Sctp,
}

impl From<ProtocolName> for Protocol {
    fn from(name: ProtocolName) -> Self {
        match name {
            ProtocolName::Tcp => Self::Tcp,
            ProtocolName::Udp => Self::Udp,
            ProtocolName::Sctp => Self::Sctp,
        }
    }
}

impl From<&MarkArgs> for FwmarkRule {
    fn from(args: &MarkArgs) -> Self {
        Self {
            mark: args.mark,
            address: args.address,
            protocol: args.protocol.into(),
            ports: args.ports.clone(),
        }
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Error {
    Director(DirectorError),
    Refused(String),
    Output(io::Error),
}

impl From<DirectorError> for Error {
    fn from(error: DirectorError) -> Self {
        Self::Director(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Commands {
    /// Runs the command on the director that the environment names.
    pub fn run(&self) -> ExitCode {
        if let Self::Adm { words } = self {
            return crate::run_adm("lvx adm", words.iter().cloned());
        }
        if let Self::Shell(args) = self {
            return ExitCode::from(crate::shell::run(args));
        }
        let mut out = BufWriter::new(io::stdout());
        if let Self::Top(args) = self {
            let ended = crate::top::run(Client::from_environment(), &mut out, args);
            let status = ended.unwrap_or_else(|error| status(Err(error), &mut io::stderr()));
            return ExitCode::from(status);
        }
        let mut client = Client::from_environment();
        let ended = self.run_with(&mut client, &mut out);
        ExitCode::from(status(ended, &mut io::stderr()))
    }

    fn run_with(&self, client: &mut Client, out: &mut dyn Write) -> Result<(), Error> {
        match self {
            Self::Adm { .. } | Self::Shell(_) | Self::Top(_) => {}
            Self::Set { name, value } => set(client, name, value)?,
            Self::Get { name, json } => get(client, out, name.as_deref(), *json)?,
            Self::Fwmark { action } => fwmark(client, out, action)?,
            Self::Limit { action } => crate::limit::run(client, out, action)?,
            Self::Prefix { action } => crate::prefix::run(client, out, action)?,
            Self::Explain(args) => crate::explain::run(client, out, args)?,
            Self::Counters { json } => {
                let counters = client.counters()?;
                write_values(out, &counters, *json)?;
            }
        }
        Ok(out.flush()?)
    }
}

fn status(ended: Result<(), Error>, err: &mut dyn Write) -> u8 {
    let (status, message) = match ended {
        Ok(()) => return 0,
        Err(Error::Output(error)) => return output::failed(err, "lvx", &error),
        Err(Error::Refused(message)) => (1, message),
        Err(Error::Director(error)) => (2, error.to_string()),
    };
    let prefix = if message.starts_with("lvx: ") {
        ""
    } else {
        "lvx: "
    };
    let _ = writeln!(err, "{prefix}{message}");
    status
}

fn set(client: &mut Client, name: &str, value: &str) -> Result<(), Error> {
    let command = Command::SetTunable {
        name: short_name(name).to_owned(),
        value: value.to_owned(),
    };
    change(client, command)
}

fn get(
    client: &mut Client,
    out: &mut dyn Write,
    name: Option<&str>,
    json: bool,
) -> Result<(), Error> {
    let tunables = client.tunables()?;
    let Some(name) = name.map(short_name) else {
        return Ok(write_values(out, &tunables, json)?);
    };
    let value = tunables.get(name).ok_or_else(|| {
        Error::Refused(format!("no tunable is called {name}; 'lvx get' lists them"))
    })?;
    match json {
        true => write_json(out, &Values::from([(name.to_owned(), value.clone())]))?,
        false => writeln!(out, "{}", plain(value))?,
    }
    Ok(())
}

/// Operators know the names with their sysctl prefix as well.
fn short_name(name: &str) -> &str {
    name.strip_prefix("net.ipv4.vs.").unwrap_or(name)
}

fn fwmark(client: &mut Client, out: &mut dyn Write, action: &FwmarkAction) -> Result<(), Error> {
    match action {
        FwmarkAction::Add(args) => change(client, Command::AddFwmark(args.into())),
        FwmarkAction::Del(args) => change(client, Command::DeleteFwmark(args.into())),
        FwmarkAction::List { json } => {
            let rules = client.fwmarks()?;
            match json {
                true => write_json(out, &rules)?,
                false => write_marks(out, &rules)?,
            }
            Ok(())
        }
    }
}

pub(crate) fn change(client: &mut Client, command: Command) -> Result<(), Error> {
    let refusals = client.batch(&[command], true)?;
    match refusals.into_iter().flatten().next() {
        Some(refusal) => Err(Error::Refused(refusal.to_string())),
        None => Ok(()),
    }
}

pub(crate) fn write_marks(out: &mut dyn Write, rules: &[FwmarkRule]) -> io::Result<()> {
    let addresses = rules.iter().map(|rule| rule.address.to_string().len());
    let width = addresses.max().unwrap_or(0).max("ADDRESS".len());
    writeln!(out, "{:<10} {:<width$} PROTOCOL PORTS", "MARK", "ADDRESS")?;
    rules.iter().try_for_each(|rule| {
        let protocol = rule.protocol.name();
        let ports: Vec<_> = rule.ports.iter().map(u16::to_string).collect();
        writeln!(
            out,
            "{:<10} {:<width$} {protocol:<8} {}",
            rule.mark,
            rule.address.to_string(),
            ports.join(",")
        )
    })
}

/// Names on the left, values flush right.
pub(crate) fn write_values(out: &mut dyn Write, values: &Values, json: bool) -> io::Result<()> {
    if json {
        return write_json(out, values);
    }
    let names = values.keys().map(|name| name.chars().count());
    let name_width = names.max().unwrap_or(0);
    let texts = values.values().map(|value| plain(value).chars().count());
    let width = texts.max().unwrap_or(0);
    values.iter().try_for_each(|(name, value)| {
        writeln!(out, "{name:<name_width$}  {:>width$}", plain(value))
    })
}

/// A value as people and `sysctl` write it: switches as 0 and 1.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(switch) => u8::from(*switch).to_string(),
        other => other.to_string(),
    }
}

pub(crate) fn write_json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "lvx")]
    struct Root {
        #[command(subcommand)]
        command: Commands,
    }

    fn parse(line: &str) -> Result<Commands, clap::Error> {
        Root::try_parse_from(line.split(' ')).map(|root| root.command)
    }

    #[test]
    fn grammar_is_sound() {
        Root::command().debug_assert();
    }

    #[test]
    fn every_example_in_a_help_text_parses() {
        let mut root = Root::command();
        root.build();
        let mut examples = 0;
        let mut pending: Vec<_> = root.get_subcommands().cloned().collect();
        while let Some(command) = pending.pop() {
            pending.extend(command.get_subcommands().cloned());
            let help = command.get_after_help().map(ToString::to_string);
            for line in help.iter().flat_map(|help| help.lines()) {
                if let Some(example) = line.strip_prefix("  ") {
                    parse(example).unwrap_or_else(|error| panic!("{example}: {error}"));
                    examples += 1;
                }
            }
        }
        assert!(examples >= 10, "{examples}");
    }

    #[test]
    fn marks() {
        let Ok(Commands::Fwmark {
            action: FwmarkAction::Add(args),
        }) = parse("lvx fwmark add 7 fd01::1 udp 53,0")
        else {
            panic!("not parsed");
        };
        let expected = FwmarkRule {
            mark: NonZeroU32::new(7).unwrap(),
            address: "fd01::1".parse().unwrap(),
            protocol: Protocol::Udp,
            ports: vec![53, 0],
        };
        assert_eq!(FwmarkRule::from(&args), expected);
        for wrong in [
            "add 0 10.1.0.1 tcp 80",
            "add 1 10.1.0.1 icmp 80",
            "add 1 10.1.0.1 tcp",
        ] {
            assert!(parse(&format!("lvx fwmark {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn adm_takes_its_words_raw() {
        for line in ["-h", "-L -n", "-A -t 10.1.0.1:80 --help"] {
            let Ok(Commands::Adm { words }) = parse(&format!("lvx adm {line}")) else {
                panic!("{line}");
            };
            let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
            assert_eq!(words.join(" "), line);
        }
    }

    #[test]
    fn listings() {
        let values = Values::from([
            ("am_droprate".to_owned(), 10.into()),
            ("sloppy_tcp".to_owned(), true.into()),
        ]);
        let rules = [FwmarkRule {
            mark: NonZeroU32::MIN,
            address: "10.1.0.1".parse().unwrap(),
            protocol: Protocol::Tcp,
            ports: vec![80, 443],
        }];
        let mut out = Vec::new();
        write_values(&mut out, &values, false).unwrap();
        write_marks(&mut out, &rules).unwrap();
        let expected = "am_droprate  10\nsloppy_tcp    1\n\
                        MARK       ADDRESS  PROTOCOL PORTS\n\
                        1          10.1.0.1 tcp      80,443\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn refusals_and_errors() {
        let rows = [
            (Ok(()), 0, ""),
            (Err(Error::Refused("no".to_owned())), 1, "lvx: no\n"),
            (
                Err(Error::Director(DirectorError::PermissionDenied)),
                2,
                "lvx: Permission denied (you must be root)\n",
            ),
            (
                Err(Error::Output(io::ErrorKind::BrokenPipe.into())),
                141,
                "",
            ),
        ];
        for (ended, expected, text) in rows {
            let mut err = Vec::new();
            assert_eq!(status(ended, &mut err), expected);
            assert_eq!(String::from_utf8(err).unwrap(), text);
        }
    }
}
