//! `lvx bench all` and `lvx bench report`: the whole run, and the page of its figures.

use std::path::PathBuf;

use ::bench::suite;
use ::bench::wire::Stop;
use clap::Args;

use super::named;

pub(super) const EXAMPLES: &str = "Examples:\n  lvx bench all --json figures.json --page benchmarks.md\n  \
    lvx bench all --quick --json figures.json\n  \
    lvx bench all --only wire,exchange --json figures.json   # the other parts' figures stay";

/// See [`suite::Options`].
#[derive(Debug, Args)]
pub struct All {
    /// The figures' file; parts that are not run keep what it holds
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
    /// Write the page of figures, and its plots beside it
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Under two minutes, and rough
    #[arg(long)]
    quick: bool,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    #[arg(value_parser = named(&suite::Part::ALL, suite::Part::name))]
    only: Vec<suite::Part>,
    /// The core for what is measured in memory [default: the last one]
    #[arg(long, value_name = "N")]
    core: Option<usize>,
}

/// The page from figures taken before.
#[derive(Debug, Args)]
pub struct Report {
    /// The figures' file
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
    /// The page to write, with its plots beside it
    #[arg(long, value_name = "FILE")]
    page: PathBuf,
}

impl All {
    pub(super) fn run(&self) -> Result<(), String> {
        let parts = match self.only.is_empty() {
            true => suite::Part::ALL.to_vec(),
            false => self.only.clone(),
        };
        let options = suite::Options {
            parts,
            quick: self.quick,
            json: self.json.clone(),
            lvx: std::env::current_exe().map_err(|error| error.to_string())?,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            core: self
                .core
                .or_else(|| super::cores().last().copied())
                .unwrap_or(0),
        };
        let stop = super::stop_flag()?;
        let figures = suite::run(&options, Stop(&stop)).map_err(|problem| {
            let json = self.json.display();
            format!("{problem}; the figures so far are in {json}: go on with --only")
        })?;
        println!("figures: {}", self.json.display());
        if let Some(page) = &self.page {
            suite::write(&figures, page)?;
            println!("page:    {}", page.display());
        }
        Ok(())
    }
}

impl Report {
    pub(super) fn run(&self) -> Result<(), String> {
        if !self.json.exists() {
            return Err(format!("{}: there is no such file", self.json.display()));
        }
        suite::write(&suite::load(&self.json)?, &self.page)
    }
}
