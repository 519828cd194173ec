//! Whole runs of the real ipvsadm 1.31 on Linux 6.1, recorded and replayed: arguments,
//! standard input, exit status, standard output, standard error, all byte for byte.

use std::io::Read;

use serde::Deserialize;

use super::Session;
use super::names::FewNames;
use crate::testing::MemoryDirector;

struct Ran {
    status: u8,
    out: String,
    err: String,
}

fn run(director: &mut MemoryDirector, words: &[String], mut input: impl Read) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = Session {
        program: "ipvsadm",
        director,
        names: &FewNames,
        input: Some(&mut input),
        out: &mut out,
        err: &mut err,
    }
    .run(words);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        status,
        out: text(out),
        err: text(err),
    }
}

fn run_line(director: &mut MemoryDirector, line: &str) -> String {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let ran = run(director, &words, std::io::empty());
    assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{line}");
    ran.out
}

#[derive(Deserialize)]
struct Row(Vec<String>, Option<String>, u8, String, String);

#[test]
fn recorded_runs() {
    let mut director = MemoryDirector::default();
    let mut wrong = Vec::new();
    for line in include_str!("../../tests/data/replay.jsonl").lines() {
        let Row(words, input, status, out, err) = serde_json::from_str(line).unwrap();
        let input = input.unwrap_or_default();
        let ran = run(&mut director, &words, input.as_bytes());
        if (ran.status, &ran.out, &ran.err) != (status, &out, &err) {
            wrong.push(format!(
                "{words:?} {input:?}\n got {} {:?}\n{}\n not {status} {err:?}\n{out}",
                ran.status, ran.err, ran.out
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[derive(Deserialize)]
struct Order {
    commands: Vec<String>,
    nosort: String,
    sorted: String,
}

/// Among these are numbers more than 2^31 apart, where ipvsadm's comparison is no order.
#[test]
fn order_of_services_and_servers() {
    let order: Order = serde_json::from_str(include_str!("../../tests/data/order.json")).unwrap();
    let mut director = MemoryDirector::default();
    for command in &order.commands {
        run_line(&mut director, command);
    }
    assert_eq!(run_line(&mut director, "-Ln --nosort"), order.nosort);
    assert_eq!(run_line(&mut director, "-Ln"), order.sorted);
}
