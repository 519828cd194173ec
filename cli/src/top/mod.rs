//! `lvx top`: the director at work, live.
//!
//! Samples of the API become a [`reading`] (rates, as two samples differ), the [`state`]
//! takes readings and keys and gives orders, the [`screen`] is lines made of the state.
//! None of these knows a terminal, a clock or a socket: `live` does. [`print`] is for
//! scripts.

mod keys;
mod live;
mod number;
mod print;
mod reading;
mod screen;
mod state;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::time::Duration;

use crate::client::Client;
use crate::commands::Error;
use crate::shell::is_interactive;

/// How the live view is started.
#[derive(Clone, Debug, clap::Args)]
pub struct TopArgs {
    /// Time between two looks at the director, s
    #[arg(long, short = 'd', value_name = "SECONDS", default_value = "1")]
    #[arg(value_parser = parse_interval)]
    interval: Duration,
    /// Show only services and servers whose line has this text
    #[arg(long, short, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Look twice, an interval apart, print what was seen, and leave
    #[arg(long)]
    once: bool,
    /// The same, as JSON
    #[arg(long)]
    json: bool,
}

/// The shortest and the longest interval, s.
const INTERVAL_S: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

fn parse_interval(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if INTERVAL_S.contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("it is 0.1 to 3600 seconds".to_owned()),
    }
}

/// Runs the view on the director that the environment names. The exit status.
pub(crate) fn run(client: Client, out: &mut dyn Write, args: &TopArgs) -> Result<u8, Error> {
    if args.once || args.json {
        let mut client = client;
        let first = client.sample()?;
        std::thread::sleep(args.interval);
        let reading = reading::Reading::between(Some(&first), &client.sample()?);
        print::reading(out, &reading, &args.filter, args.json)?;
        out.flush()?;
        return Ok(0);
    }
    if !is_interactive() {
        return Err(Error::Refused(
            "the live view needs a terminal; `lvx top --once` prints what it would show".into(),
        ));
    }
    // Whoever typed a wrong socket learns it as from every other command.
    let mut client = client;
    let first = client.sample()?;
    let mut state = state::State::new(args.interval, std::env::var_os("NO_COLOR").is_none());
    state.filter.clone_from(&args.filter);
    state.take(Ok(first));
    live::run(client, state).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Error::Output(error),
        _ => Error::Refused(format!("the terminal cannot be used: {error}")),
    })
}
