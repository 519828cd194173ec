//! The fuzz targets `adm` and `config`; see `tests/fuzz`. Bytes of any kind get an answer,
//! and what was taken survives the way out and in again.

use std::io;

use sched::command::Refusal;

use crate::adm::names::FewNames;
use crate::adm::{Session, restore_words};
use crate::config;
use crate::shell::meaning;
use crate::testing::MemoryDirector;

/// Each line is one run of ipvsadm, and is read as one of `lvx shell`; a line that begins with `-R` reads all lines after it.
/// What `-Sn` prints then, `-R` takes without an error, and prints again.
pub fn adm(data: &[u8]) {
    let mut director = MemoryDirector::default();
    let mut rest = data;
    while !rest.is_empty() {
        let end = rest.iter().position(|&byte| byte == b'\n');
        let (line, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
        rest = after;
        let words = restore_words(line);
        run(&mut director, &words, &mut rest);
        let line = String::from_utf8_lossy(line);
        if let Err(fault) = meaning::parse(&line, &FewNames) {
            let _ = fault.text(&line);
        }
    }
    let saved = run(&mut director, &["-Sn".to_owned()], &mut io::empty());
    for listing in [
        "-Ln",
        "-L",
        "-Lcn",
        "-Ln --stats",
        "-Ln --rate",
        "-Ln --thresholds",
    ] {
        let words: Vec<_> = listing.split(' ').map(str::to_owned).collect();
        run(&mut director, &words, &mut io::empty());
    }
    let mut again = MemoryDirector::default();
    run(&mut again, &["-R".to_owned()], &mut saved.0.as_slice());
    let twice = run(&mut again, &["-Sn".to_owned()], &mut io::empty());
    // Marks from 2^31 on are printed as negative numbers, which `-R` refuses, as
    // ipvsadm's own does; and a mask is printed with persistence only.
    if !String::from_utf8_lossy(&saved.0).contains("-f -") {
        assert_eq!(
            String::from_utf8_lossy(&twice.0),
            String::from_utf8_lossy(&saved.0)
        );
    }
}

/// Standard output and standard error of a line.
fn run(
    director: &mut MemoryDirector,
    words: &[String],
    input: &mut dyn io::Read,
) -> (Vec<u8>, Vec<u8>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    Session {
        program: "ipvsadm",
        director,
        names: &FewNames,
        input: Some(input),
        out: &mut out,
        err: &mut err,
    }
    .run(words);
    (out, err)
}

/// A configuration file. What it says, the way through a running director and a file again
/// says too; where it says nothing that can be, the problems can be shown.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let judge = |name: &str, value: &str| match (name, value.parse::<u32>()) {
        ("drop_entry" | "sloppy_tcp" | "expire_nodest_conn", Ok(0..4)) => Ok(()),
        _ => Err(Refusal::NoSuchTunable {
            name: name.to_owned(),
        }),
    };
    let config = match config::read("fuzz.toml", &text, &judge) {
        Ok(config) => config,
        Err(problems) => {
            let _ = format!("{problems} {problems:?}");
            return;
        }
    };
    let none = config::Tunables::new();
    let commands = config::transaction(&config::Config::default(), &config, &none);
    let mut director = MemoryDirector::default();
    let refused = commands
        .iter()
        .filter(|command| !matches!(command, sched::command::Command::SetTunable { .. }))
        .any(|command| director.apply(command).is_err());
    if refused {
        return;
    }
    let running = config::Running {
        table: director.table,
        marks: config.marks.clone(),
        prefixes: config.prefixes.clone().unwrap_or_default(),
        tunables: config.tunables.clone(),
    };
    let written = config::write(&running, &none);
    let again = config::read("again.toml", &written, &judge);
    let again = again.unwrap_or_else(|problems| panic!("{problems}\n{written}"));
    let commands = config::transaction(&running.config(), &again, &none);
    assert!(commands.is_empty(), "{commands:?}\n{written}");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// What the fuzzer found worth keeping, again.
    fn replay(name: &str, body: fn(&[u8])) {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        let files: Vec<_> = fs::read_dir(corpora.join(name)).unwrap().collect();
        assert!(!files.is_empty(), "the corpus of {name} is gone");
        for file in files {
            body(&fs::read(file.unwrap().path()).unwrap());
        }
    }

    #[test]
    fn the_corpus_of_adm() {
        replay("adm", super::adm);
    }

    #[test]
    fn the_corpus_of_config() {
        replay("config", super::config);
    }
}
