//! `lvx prefix`: which clients are let in or kept out, by the prefixes of their addresses.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand};
use sched::command::Command;
use sched::prefix::{Guard, Prefix, Prefixes, decisive};

use crate::client::Client;
use crate::commands::{Error, change, write_json};

/// Prefixes that go to the director at once.
const BATCH_MAX: usize = 50_000;

/// What to do with prefixes.
#[derive(Debug, Subcommand)]
pub enum PrefixAction {
    /// Keep clients out: the steering program drops what they send to services
    #[command(
        after_help = "Examples:\n  lvx prefix deny 192.0.2.0/24 2001:db8::/32\n  \
                            lvx prefix deny --file /etc/lvx/deny.txt"
    )]
    Deny(ListArgs),
    /// Let clients in, also out of a longer stretch that is kept out
    #[command(after_help = "Example, nobody but two networks:\n  \
                            lvx prefix allow 10.0.0.0/8 192.0.2.0/24\n  \
                            lvx prefix deny 0.0.0.0/0 ::/0")]
    Allow(ListArgs),
    /// Name prefixes no more
    #[command(
        after_help = "Examples:\n  lvx prefix forget 192.0.2.0/24\n  lvx prefix forget --all"
    )]
    Forget {
        /// Which
        #[command(flatten)]
        list: ListArgs,
        /// All of them
        #[arg(long, group = "which", conflicts_with_all = ["prefixes", "file"])]
        all: bool,
    },
    /// Show prefixes
    #[command(
        after_help = "Examples:\n  lvx prefix list\n  lvx prefix list --of 192.0.2.7\n  \
                            lvx prefix list --json"
    )]
    List {
        /// Only the one that decides about this client
        #[arg(long, value_name = "ADDRESS")]
        of: Option<IpAddr>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Prefixes, here or in a file.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).multiple(true)))]
pub struct ListArgs {
    /// Prefixes, or single addresses
    #[arg(value_name = "PREFIX", group = "which")]
    prefixes: Vec<Prefix>,
    /// A file of them, one a line, # for comments; - for standard input
    #[arg(long, value_name = "FILE", group = "which")]
    file: Option<PathBuf>,
}

impl ListArgs {
    fn list(&self) -> Result<Vec<Prefix>, Error> {
        let mut list = self.prefixes.clone();
        if let Some(path) = &self.file {
            list.extend(read(path)?);
        }
        Ok(list)
    }
}

fn read(path: &Path) -> Result<Vec<Prefix>, Error> {
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => io::stdin().read_to_string(&mut text).map(|_| ()),
        false => std::fs::read_to_string(path).map(|read| text = read),
    };
    read.map_err(|error| Error::Refused(format!("{}: {error}", path.display())))?;
    parse(&text)
        .map_err(|(line, what)| Error::Refused(format!("{}:{line}: {what}", path.display())))
}

/// The prefixes of a file's text, or its first wrong line.
fn parse(text: &str) -> Result<Vec<Prefix>, (usize, String)> {
    let mut list = Vec::new();
    for (place, line) in text.lines().enumerate() {
        let word = line.split('#').next().unwrap_or_default().trim();
        if !word.is_empty() {
            let prefix = word.parse::<Prefix>();
            list.push(prefix.map_err(|error| (place + 1, error.to_string()))?);
        }
    }
    Ok(list)
}

/// Carries `action` out.
pub(crate) fn run(
    client: &mut Client,
    out: &mut dyn Write,
    action: &PrefixAction,
) -> Result<(), Error> {
    match action {
        PrefixAction::Deny(args) => set(client, Some(Guard::Deny), &args.list()?),
        PrefixAction::Allow(args) => set(client, Some(Guard::Allow), &args.list()?),
        PrefixAction::Forget { list, all } => {
            let list = match all {
                true => client.prefixes()?.into_keys().collect(),
                false => list.list()?,
            };
            set(client, None, &list)
        }
        PrefixAction::List { of, json } => {
            let mut prefixes = client.prefixes()?;
            if let Some(address) = of {
                prefixes = decisive(&prefixes, *address).into_iter().collect();
            }
            match json {
                true => write_json(out, &prefixes)?,
                false => write(out, &prefixes)?,
            }
            Ok(())
        }
    }
}

fn set(client: &mut Client, guard: Option<Guard>, list: &[Prefix]) -> Result<(), Error> {
    list.chunks(BATCH_MAX).try_for_each(|part| {
        let prefixes = part.to_vec();
        change(client, Command::SetPrefixes { guard, prefixes })
    })
}

fn write(out: &mut dyn Write, prefixes: &Prefixes) -> io::Result<()> {
    prefixes.iter().try_for_each(|(prefix, guard)| {
        let word = match guard {
            Guard::Allow => "allow",
            Guard::Deny => "deny ",
        };
        writeln!(out, "{word} {prefix}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Root {
        #[command(subcommand)]
        action: PrefixAction,
    }

    #[test]
    fn what_is_typed() {
        use clap::Parser;
        let parse = |line: &str| {
            let words = std::iter::once("lvx prefix").chain(line.split(' '));
            Root::try_parse_from(words).map(|root| root.action)
        };
        let right = [
            "deny 10.0.0.0/8 ::/0",
            "deny --file x",
            "deny 10.0.0.0/8 --file x",
            "forget --all",
            "list --of 10.0.0.1",
        ];
        let wrong = [
            "deny",
            "deny 10.0.0.1/8",
            "deny --all",
            "forget",
            "forget --all 10.0.0.0/8",
        ];
        for line in right {
            assert!(parse(line).is_ok(), "{line}");
        }
        for line in wrong {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn files() {
        let text = "# bad ones\n192.0.2.0/24\n\n  2001:db8::1 # one\n";
        let list = parse(text).unwrap();
        let shown: Vec<_> = list.iter().map(Prefix::to_string).collect();
        assert_eq!(shown, ["192.0.2.0/24", "2001:db8::1/128"]);
        let (line, what) = parse("10.0.0.0/8\nnonsense\n").unwrap_err();
        assert_eq!((line, what.contains("nonsense")), (2, true));
    }

    #[test]
    fn the_listing() {
        let rows = [("192.0.2.0/24", Guard::Deny), ("::/0", Guard::Allow)];
        let prefixes = rows
            .map(|(text, guard)| (text.parse().unwrap(), guard))
            .into();
        let mut out = Vec::new();
        write(&mut out, &prefixes).unwrap();
        assert_eq!(out, b"deny  192.0.2.0/24\nallow ::/0\n");
        let json = serde_json::to_string(&prefixes).unwrap();
        assert_eq!(json, r#"{"192.0.2.0/24":"deny","::/0":"allow"}"#);
    }
}
