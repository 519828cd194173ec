//! The supervisor: kills the director and starts it again, has others take its place, and notices when it ends by itself.

use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Kind, Restart, Scene, tail};
use crate::lab::Lab;
use crate::raw::Random;

pub fn supervise(scene: &Scene, lab: &mut Lab, words: &[&str]) {
    let mut random = scene.random(1);
    let pause = |random: &mut Random| scene.plan.pause(random, 3_000, 20_000);
    let mut next = Instant::now() + pause(&mut random);
    while scene.begin.elapsed() < scene.plan.load {
        thread::sleep(Duration::from_millis(50));
        if let Some((status, log)) = lab.ended() {
            scene.fault(format!(
                "the director ended by itself ({status}):\n{}",
                tail(&log)
            ));
            scene.process.store(0, Relaxed);
            lab.start_with(words);
            scene.process.store(lab.director().id(), Relaxed);
        }
        if Instant::now() >= next && scene.begin.elapsed() < scene.plan.restarts_end() {
            restart(scene, lab, words, &mut random);
            next = Instant::now() + pause(&mut random);
        }
    }
}

/// Half of all restarts come between two edits, and nothing may differ afterwards; the others come amid them.
fn restart(scene: &Scene, lab: &mut Lab, words: &[&str], random: &mut Random) {
    let still = random
        .one_in(2)
        .then(|| scene.editing.lock().expect("no panic"));
    let before = still.is_some().then(|| saved(lab));
    let kind = *random.of(&[Kind::Killed, Kind::TakenOver]);
    scene.process.store(0, Relaxed);
    match kind {
        Kind::Killed => {
            lab.stop(Signal::KILL);
            thread::sleep(random.time_ms(0, 200));
            lab.start_with(words);
        }
        Kind::TakenOver => {
            let (status, log) = lab.take_over(words);
            if !status.success() {
                let log = tail(&log);
                scene.fault(format!("the director that was replaced: {status}\n{log}"));
            }
        }
    }
    scene.process.store(lab.director().id(), Relaxed);
    if let Some(before) = before {
        let after = saved(lab);
        if after != before {
            scene.fault(format!(
                "after a restart services differ: {after}\nbefore: {before}"
            ));
        }
        scene.tally.compared.fetch_add(1, Relaxed);
    }
    drop(still);
    match gap_ms(kind, &lab.director().log()) {
        Some(gap_ms) => {
            eprintln!("{:6.1} s: {kind:?}, {gap_ms} ms", scene.at());
            let mut restarts = scene.tally.restarts.lock().expect("no panic");
            restarts.push(Restart { kind, gap_ms });
        }
        None => scene.fault(format!(
            "{kind:?}: no word of connections that were taken up:\n{}",
            tail(&lab.director().log())
        )),
    }
}

/// All that an operator has set. A defence of level 1 shows as 2 while it is in force, which comes and goes by itself.
fn saved(lab: &Lab) -> String {
    let tunables = lab.lvx("get");
    let tunables = tunables.lines().map(|line| match line.split_once(' ') {
        Some(("drop_entry", level)) => line.replace(level, &level.replace('2', "1")),
        _ => line.to_owned(),
    });
    let tunables: Vec<String> = tunables.collect();
    lab.ipvsadm("-S -n") + &lab.lvx("fwmark list") + &lab.lvx("prefix list") + &tunables.join("\n")
}

/// `forwarding after 43 ms`, `stood still for 5.2 ms`.
fn gap_ms(kind: Kind, log: &str) -> Option<f64> {
    let before = match kind {
        Kind::Killed => "connections, forwarding after ",
        Kind::TakenOver => "stood still for ",
    };
    log.split(before)
        .nth(1)?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}
