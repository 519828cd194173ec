//! What the director takes of the machine, every two seconds.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use cli::api::Sample;
use cli::client::Client;

use super::Scene;
use super::traffic::REQUESTS;
use crate::lab::{Family, Lab};

const EVERY: Duration = Duration::from_secs(2);

/// A moment.
#[derive(Clone, Debug)]
pub struct Look {
    pub at_s: f64,
    pub process: u32,
    pub resources: [u64; RESOURCES.len()],
    /// Frames in nobody's hand.
    pub lost_frames: u64,
}

/// What is looked at, in order.
pub const RESOURCES: [&str; 10] = [
    "resident_kb",
    "anonymous_kb",
    "state_kb",
    "descriptors",
    "threads",
    "bpf_objects",
    "bpf_pins",
    "namespaces",
    "places_taken",
    "frames_waiting",
];
pub const ANONYMOUS: usize = 1;
pub const DESCRIPTORS: usize = 3;
pub const THREADS: usize = 4;
pub const OBJECTS: usize = 5;
pub const PINS: usize = 6;
pub const NAMESPACES: usize = 7;

/// Where a lab's director leaves traces.
pub struct Place {
    name: String,
    state: PathBuf,
}

impl Place {
    pub fn of(lab: &Lab) -> Place {
        Place {
            name: lab.name().to_owned(),
            state: lab.dir().join("state"),
        }
    }
}

/// Until the servers are closed.
pub fn watch(scene: &Scene, place: &Place) -> Vec<Look> {
    let mut looks = Vec::new();
    let mut client = Client::new(scene.operator.socket());
    let mut known = 0;
    while !scene.closed.load(Relaxed) {
        let process = scene.process.load(Relaxed);
        if process != known {
            warm(scene);
            known = process;
        }
        // A director that goes while one looks leaves half a picture.
        let look = look(scene, place, process, &mut client);
        if let Some(look) = look.filter(|_| process == scene.process.load(Relaxed)) {
            if looks.len() % 15 == 0 {
                eprintln!("{:6.1} s: {:?}", look.at_s, look.resources);
            }
            looks.push(look);
        }
        std::thread::sleep(EVERY.min(scene.plan.load / 20));
    }
    looks
}

/// An explanation takes a director of its own for a moment, 8 MB, which the allocator keeps for the next: that is no leak,
/// so let each process have had it before it is looked at.
fn warm(scene: &Scene) {
    let to = Family::V4.service(REQUESTS);
    for _ in 0..2 {
        let words = ["explain", "tcp", "10.9.0.1:1001", &to];
        // Where the director is away, the next look says so.
        let _ = scene.operator.lvx(&words);
    }
}

fn look(scene: &Scene, place: &Place, process: u32, client: &mut Client) -> Option<Look> {
    if process == 0 {
        return None;
    }
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let of = |name: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let sample = client.sample().ok()?;
    let objects = bpf_objects(process)?;
    let resources = [
        of("VmRSS:")?,
        of("RssAnon:")?,
        folder_kb(&place.state),
        fs::read_dir(format!("/proc/{process}/fd")).ok()?.count() as u64,
        of("Threads:")?,
        objects,
        pins(&place.name),
        namespaces(&place.name),
        sample.places.taken,
        sample.workers.iter().map(|w| w.frames.waiting).sum(),
    ];
    Some(Look {
        at_s: scene.at(),
        process,
        resources,
        lost_frames: lost_frames(&sample),
    })
}

/// A worker may tell while one reads, so parts of two moments are a few frames apart; what stays is lost.
pub fn lost_frames(sample: &Sample) -> u64 {
    let lost = |frames: &cli::api::FramesRow| {
        let owned = frames.free + frames.in_rings + frames.waiting;
        frames.total.abs_diff(owned)
    };
    sample.workers.iter().map(|w| lost(&w.frames)).sum()
}

fn folder_kb(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let blocks = files.filter_map(|file| Some(file.metadata().ok()?.blocks()));
    blocks.sum::<u64>() / 2
}

fn bpf_objects(process: u32) -> Option<u64> {
    let entries = fs::read_dir(format!("/proc/{process}/fdinfo")).ok()?;
    let is_bpf = |text: &String| text.contains("prog_id:") || text.contains("map_id:");
    let texts = entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok());
    Some(texts.filter(is_bpf).count() as u64)
}

fn pins(name: &str) -> u64 {
    let folders = fs::read_dir("/run/lvx/bpf/lvx").into_iter().flatten();
    let ours = folders
        .flatten()
        .filter(|folder| folder.file_name().to_string_lossy().contains(name));
    ours.map(|folder| fs::read_dir(folder.path()).map_or(0, Iterator::count) as u64)
        .sum()
}

fn namespaces(name: &str) -> u64 {
    let all = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    all.filter(|entry| entry.file_name().to_string_lossy().contains(name))
        .count() as u64
}
