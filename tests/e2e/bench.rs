//! The benchmarks work: each is run for a moment. What they measure is not looked at, a test's machine is never idle.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::lab::{Place, lvx, text, wait_within};

fn bench(words: &str) -> Value {
    let output = Command::new(lvx())
        .arg("bench")
        .args(words.split(' '))
        .output()
        .expect("lvx runs");
    let said = text(&output.stderr);
    assert!(
        output.status.success(),
        "{words}: {}\n{said}",
        output.status
    );
    let out = text(&output.stdout);
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{words}: {e}: {out}"))
}

#[test]
fn packets_and_connections_in_memory() {
    let _place = Place::take();
    let pipeline = bench("pipeline --method dr --packets 6400 --rounds 3 --json");
    assert!(
        pipeline["median_ns"].as_f64().is_some_and(|ns| ns > 0.0),
        "{pipeline}"
    );
    assert_eq!(pipeline["rounds_ns"].as_array().map(Vec::len), Some(3));
    let connections =
        bench("connections --sizes 50000 --threads 1,2 --shared 20000 --rounds 1 --json");
    let size = &connections["sizes"][0];
    assert!(
        size["bytes"].as_f64().is_some_and(|bytes| bytes > 60.0),
        "{connections}"
    );
    assert_eq!(connections["contention"].as_array().map(Vec::len), Some(2));
}

#[test]
fn systems_on_a_wire() {
    let _place = Place::take();
    let results = bench(
        "wire --system lvx,reflector,nftables,xsk-rs --part throughput,latency,overload,drain,exchange \
         --frame 64 --seconds 0.2 --rounds 1 --json",
    );
    let systems = results["systems"].as_array().expect("a list of systems");
    let names: Vec<&str> = systems
        .iter()
        .filter_map(|s| s["system"].as_str())
        .collect();
    assert_eq!(
        names,
        ["lvx", "reflector", "nftables", "xsk-rs"],
        "{results}"
    );
    for system in systems {
        let rate = system["throughput"][0]["rate_pps"][0].as_f64();
        assert!(rate.is_some_and(|pps| pps > 0.0), "{system}");
        assert_eq!(
            system["latency"].as_array().map(Vec::len),
            Some(3),
            "{system}"
        );
        assert_eq!(
            system["overload"].as_array().map(Vec::len),
            Some(1),
            "{system}"
        );
    }
    for with_tcp in [0, 2] {
        let exchange = &systems[with_tcp]["exchange"];
        assert!(
            exchange["rate"][0].as_f64().is_some_and(|rate| rate > 0.0),
            "{exchange}"
        );
        assert!(
            exchange["failed"][0]
                .as_f64()
                .is_some_and(|share| share < 1.0),
            "{exchange}"
        );
    }
}

/// An interrupted run takes its systems and namespaces with it.
#[test]
fn interrupted_it_leaves_nothing() {
    let _place = Place::take();
    let mut child = Command::new(lvx())
        .args([
            "bench",
            "wire",
            "--system",
            "lvx,nftables",
            "--seconds",
            "30",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("lvx runs");
    let beds = format!("/run/lvx-bench/{}", child.id());
    thread::sleep(Duration::from_secs(4));
    assert!(Path::new(&beds).exists(), "it has begun");
    let own = format!("lvxb-{}-", child.id());
    kill_process(Pid::from_child(&child), Signal::INT).expect("it still runs");
    let status = wait_within(&mut child, Duration::from_secs(10)).expect("it ends soon");
    assert_eq!(status.code(), Some(2));
    assert!(!Path::new(&beds).exists(), "{beds} is left");
    let left: Vec<_> = std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&own))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
