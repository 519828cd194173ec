//! The raw forwarder: what comes in on one port leaves by the other with its link addresses
//! swapped, or by the same port where there is one only. The rings, bursts and sleeps are
//! those of a director's worker, and nothing else is done; so it is the most that a director
//! can reach on the same devices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use dataplane::hops::PortId;
use dataplane::port::afxdp::{self, AfXdpOptions, AfXdpPort, QueueSetup};
use dataplane::port::device::Device;
use dataplane::port::everything::Everything;
use dataplane::port::{Burst, Frames, IDLE, Port, SLEEP, Slot};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Forwards between one or two devices of this namespace until `stop` is set, with one
/// worker on each of `cores`: worker *n* has queue *n* of each device. Calls `ready` once.
///
/// # Errors
/// What could not be had, in words.
pub fn run(
    ports: &[String],
    cores: &[usize],
    stop: &AtomicBool,
    ready: impl FnOnce(),
) -> Result<(), String> {
    if ports.is_empty() || ports.len() > 2 || cores.is_empty() {
        return Err("one or two ports, and at least one core".to_owned());
    }
    let devices = ports.iter().map(|name| Device::find(name));
    let devices: Vec<Device> = devices
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())?;
    let mut programs = devices
        .iter()
        .map(Everything::attach)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| e.to_string())?;
    let mut workers = Vec::new();
    for (queue, &core) in cores.iter().enumerate() {
        workers.push(Worker::open(&devices, queue as u32, core, &mut programs)?);
    }
    ready();
    thread::scope(|scope| {
        for worker in workers {
            scope.spawn(|| worker.run(stop));
        }
    });
    Ok(())
}

struct Worker {
    core: usize,
    frames: Frames,
    ports: Vec<AfXdpPort>,
    burst: Burst,
}

impl Worker {
    fn open(
        devices: &[Device],
        queue: u32,
        core: usize,
        programs: &mut [Everything],
    ) -> Result<Self, String> {
        let setups: Vec<QueueSetup<'_>> = devices
            .iter()
            .enumerate()
            .map(|(place, device)| QueueSetup {
                port: PortId(place as u8),
                device,
                queue,
            })
            .collect();
        let opened =
            afxdp::open(&setups, AfXdpOptions::default()).map_err(|error| error.to_string())?;
        for (port, program) in opened.ports.iter().zip(programs) {
            program
                .register(queue, port.socket())
                .map_err(|error| error.to_string())?;
        }
        Ok(Self {
            core,
            frames: opened.frames,
            ports: opened.ports,
            burst: Burst::default(),
        })
    }

    fn run(mut self, stop: &AtomicBool) {
        if !core_affinity::set_for_current(core_affinity::CoreId { id: self.core }) {
            eprintln!(
                "lvx: core {} cannot be had; the worker is not pinned",
                self.core
            );
        }
        let mut idle_since = None;
        while !stop.load(Ordering::Relaxed) {
            if self.turn() {
                idle_since = None;
            } else if idle_since.get_or_insert_with(Instant::now).elapsed() >= IDLE {
                self.sleep();
            }
        }
    }

    fn turn(&mut self) -> bool {
        let mut received = 0;
        for place in 0..self.ports.len() {
            self.ports[place].reclaim(&mut self.frames);
            self.ports[place].receive(&mut self.frames, &mut self.burst);
            received += self.burst.len();
            let other = self.ports.len() - 1 - place;
            for mut slot in self.burst.drain() {
                self.frames.edit(&mut slot, |frame| swap(frame.bytes_mut()));
                send(&mut self.ports[other], &mut self.frames, slot);
            }
        }
        for port in &mut self.ports {
            port.flush(&mut self.frames);
        }
        received > 0
    }

    fn sleep(&self) {
        let mut list: Vec<PollFd<'_>> = self
            .ports
            .iter()
            .map(|port| PollFd::from_borrowed_fd(port.socket(), PollFlags::IN))
            .collect();
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: SLEEP.as_nanos() as i64,
        };
        let _ = poll(&mut list, Some(&timeout));
    }
}

fn send(port: &mut AfXdpPort, frames: &mut Frames, slot: Slot) {
    let Err(slot) = port.send(frames, slot) else {
        return;
    };
    port.flush(frames);
    if let Err(slot) = port.send(frames, slot) {
        frames.give(slot);
    }
}

/// Swaps the link addresses.
pub(crate) fn swap(frame: &mut [u8]) {
    if let Some(addresses) = frame.first_chunk_mut::<12>() {
        let (to, from) = addresses.split_at_mut(6);
        to.swap_with_slice(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_addresses_are_swapped() {
        let mut frame = *b"to....from..type";
        swap(&mut frame);
        assert_eq!(&frame, b"from..to....type");
        let mut short = *b"short";
        swap(&mut short);
        assert_eq!(&short, b"short");
    }

    #[test]
    fn what_is_no_device_is_named() {
        let stop = AtomicBool::new(true);
        let error = run(&["lvxb-none".to_owned()], &[0], &stop, || ()).unwrap_err();
        assert!(error.contains("lvxb-none"), "{error}");
        assert!(run(&[], &[0], &stop, || ()).is_err());
    }
}
