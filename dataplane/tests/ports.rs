//! Ports over real devices: what is attached, what is refused and in which words, and that
//! nothing stays behind. Each test has a network namespace without a name, which goes with
//! its thread. Needs root.

use std::process::Command;
use std::time::Instant;

use dataplane::hops::PortId;
use dataplane::port::afxdp::{self, AfXdpError, AfXdpOptions, Anchor, QueueSetup, Transfer};
use dataplane::port::device::{Device, DeviceError};
use dataplane::port::steering::{
    Mode, Pins, SteeredEndpoint, Steering, SteeringError, SteeringOptions, SteeringRules,
};
use dataplane::port::{Burst, MTU_MAX, ONE_CHUNK_MTU, Port};
use sched::service::Protocol;

/// Runs `work` on a thread in a new network namespace with a veth pair, `pa` and `pb`.
fn in_namespace(work: impl FnOnce() + Send + 'static) {
    let run = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
        ip("link add pa type veth peer name pb");
        ip("link set pa up");
        ip("link set pb up");
        work();
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn attach(devices: &[Device]) -> Result<Steering, SteeringError> {
    Steering::attach(devices, SteeringOptions::default())
}

fn device(name: &str) -> Device {
    Device::find(name).unwrap()
}

fn queue(device: &Device, queue: u32) -> QueueSetup<'_> {
    QueueSetup {
        port: PortId(0),
        device,
        queue,
    }
}

fn small() -> AfXdpOptions {
    AfXdpOptions {
        ring_entries: 64,
        frames_per_queue: 256,
        ..AfXdpOptions::default()
    }
}

#[test]
fn the_program_comes_and_goes_with_its_owner() {
    in_namespace(|| {
        ip("link add plain type bridge");
        let devices = [device("pa"), device("plain")];
        let steering = attach(&devices).unwrap();
        let modes: Vec<Mode> = steering.modes().map(|(_, mode)| mode.clone()).collect();
        assert_eq!(modes[0], Mode::Native);
        assert!(matches!(&modes[1], Mode::Generic(reason) if !reason.is_empty()));
        assert!(ip("link show pa").contains("xdp"));
        assert!(ip("link show plain").contains("xdpgeneric"));
        drop(steering);
        for name in ["pa", "plain"] {
            assert!(!ip(&format!("link show {name}")).contains("xdp"));
        }
    });
}

/// The device goes, with frames in its rings, and another of its name comes: sockets over
/// the memory that is in use, no frame lost, whether another socket is left or not.
#[test]
fn queues_are_opened_anew_over_the_same_frames() {
    in_namespace(|| {
        ip("link add pc type veth peer name pd");
        ip("link set pc up");
        ip("link set pd up");
        for others in [true, false] {
            let names: &[&str] = if others { &["pc", "pa"] } else { &["pa"] };
            let devices: Vec<Device> = names.iter().map(|name| device(name)).collect();
            let gone = PortId(devices.len() as u8 - 1);
            let mut steering = attach(&devices).unwrap();
            let setups = (0u8..).zip(&devices).map(|(place, device)| QueueSetup {
                port: PortId(place),
                device,
                queue: 0,
            });
            let opened = afxdp::open(&setups.collect::<Vec<_>>(), small()).unwrap();
            let (mut frames, transfer) = (opened.frames, opened.transfer);
            let ids = opened.ports.iter().map(|port| port.port());
            let mut ports: Vec<_> = ids
                .collect::<Vec<_>>()
                .into_iter()
                .zip(opened.ports)
                .collect();
            let mut anchor = Anchor::of(&frames, &ports, &transfer, small())
                .unwrap()
                .unwrap();
            let total = frames.total();
            for _ in 0..3 {
                let own = ports.last_mut().unwrap();
                let slot = frames.take_with(&[0xff; 60]).unwrap();
                own.1.send(&mut frames, slot).unwrap();
                own.1.flush(&mut frames);
                ip("link del pa");
                let slot = frames.take_with(&[0xff; 60]).unwrap();
                own.1.send(&mut frames, slot).unwrap();
                own.1.flush(&mut frames);
                own.1.reclaim(&mut frames);
                let (_, dead) = ports.pop().unwrap();
                let held = dead.held();
                assert_eq!(dead.unsent(), 1, "to nowhere");
                drop(dead);
                anchor.release(gone);
                steering.detach(gone);
                assert_eq!(frames.take_back(gone, []), held);

                ip("link add pa type veth peer name pb");
                ip("link set pa up");
                ip("link set pb up");
                let next = device("pa");
                steering.attach_again(gone, &next).unwrap();
                assert!(ip("link show pa").contains("xdp"));
                let setup = QueueSetup {
                    port: gone,
                    device: &next,
                    queue: 0,
                };
                let mut queues = anchor.open(&[setup]).unwrap();
                assert!(anchor.open(&[setup]).is_err(), "it is taken");
                let mut port = queues.remove(0);
                steering.register(gone, 0, port.socket()).unwrap();
                let mut burst = Burst::default();
                port.receive(&mut frames, &mut burst);
                let slot = frames.take_with(&[0xff; 60]).unwrap();
                port.send(&mut frames, slot).unwrap();
                port.flush(&mut frames);
                let sent = Instant::now();
                while port.unsent() > 0 && sent.elapsed().as_secs() < 2 {
                    port.flush(&mut frames);
                }
                assert_eq!(port.unsent(), 0, "it has left");
                ports.push((gone, port));
                let held: usize = ports.iter().map(|(_, port)| port.held()).sum();
                assert_eq!(frames.free() + held, total);
            }
            // Its peer got them.
            let shown = ip("-s link show pb");
            let received = shown
                .lines()
                .skip_while(|line| !line.contains("RX:"))
                .nth(1)
                .unwrap();
            let packets: u64 = received.split_whitespace().nth(1).unwrap().parse().unwrap();
            assert!(packets >= 1, "{shown}");
        }
    });
}

#[test]
fn generic_mode_keeps_packets_apart_while_it_lasts() {
    in_namespace(|| {
        let options = SteeringOptions {
            may_be_native: false,
            ..SteeringOptions::default()
        };
        device("pa").set_joins_packets(true).unwrap();
        let steering = Steering::attach(&[device("pa")], options).unwrap();
        assert!(!device("pa").joins_packets().unwrap());
        drop(steering);
        assert!(device("pa").joins_packets().unwrap());
    });
}

/// The number of the program on a device; 0 for none.
fn program(name: &str) -> u32 {
    let shown = ip(&format!("-d link show {name}"));
    let id = shown.split("prog/xdp id ").nth(1);
    id.map_or(0, |rest| rest.split(' ').next().unwrap().parse().unwrap())
}

/// A killed owner leaves program, maps and links; the next one takes them up, also with
/// another version of the program, and without a moment in which the device has none.
#[test]
fn a_pinned_program_waits_for_the_next_owner() {
    in_namespace(|| {
        let name = format!("test-waits-{}", std::process::id());
        let pins = Pins::find(&name).unwrap().0;
        let [pa, pb] = [device("pa"), device("pb")];
        let rules = SteeringRules {
            virtuals: vec![SteeredEndpoint {
                address: [10, 0, 0, 1].into(),
                protocol: Protocol::Tcp,
                port: 80,
            }],
            macs: vec![(pa.index, pa.mac)],
            ..SteeringRules::default()
        };
        let own = SteeringOptions::default();
        let start = |devices: &[&Device], options| {
            let devices: Vec<Device> = devices.iter().map(|&device| device.clone()).collect();
            Steering::attach_pinned(&devices, options, &pins).unwrap()
        };
        let kill = |steering| {
            pins.keep(true);
            drop::<Steering>(steering);
        };

        let (mut first, was_there) = start(&[&pa], own);
        assert!(!was_there && pins.folder().is_dir());
        first.set(&rules).unwrap();
        let id = program("pa");
        kill(first);
        assert_eq!(program("pa"), id, "it stays");

        let (mut second, was_there) = start(&[&pa], own);
        assert!(was_there);
        assert_eq!(second.modes().next().unwrap().1, &Mode::Native);
        second.set(&rules).unwrap();
        second.set(&SteeringRules::default()).unwrap();
        assert_eq!(program("pa"), id, "the very same");
        kill(second);

        let other = SteeringOptions {
            endpoints: 1000,
            ..own
        };
        let (mut third, was_there) = start(&[&pa], other);
        assert!(was_there);
        assert_eq!(program("pa"), id, "until the new one has its rules");
        third.set(&rules).unwrap();
        let newer = program("pa");
        assert!(newer != 0 && newer != id);
        kill(third);

        let (fourth, was_there) = start(&[&pb], other);
        assert!(!was_there, "no port of before is a port now");
        assert_eq!((program("pa"), program("pb")), (0, newer));
        drop(fourth);
        assert_eq!(
            program("pb"),
            0,
            "an end in good order takes all of it away"
        );
        assert!(!pins.folder().exists());
    });
}

/// What fails to start leaves the pins as they were: none where there were none.
#[test]
fn a_start_that_fails_leaves_pins_as_they_were() {
    in_namespace(|| {
        let name = format!("test-fails-{}", std::process::id());
        let pins = Pins::find(&name).unwrap().0;
        let _stranger = attach(&[device("pb")]).unwrap();
        let both = [device("pa"), device("pb")];
        let options = SteeringOptions::default();
        assert!(Steering::attach_pinned(&both, options, &pins).is_err());
        assert!(!pins.folder().exists() && program("pa") == 0);
        let (kept, _) = Steering::attach_pinned(&both[..1], options, &pins).unwrap();
        pins.keep(true);
        drop(kept);
        let id = program("pa");
        assert!(Steering::attach_pinned(&both, options, &pins).is_err());
        assert_eq!(program("pa"), id);
        pins.remove().unwrap();
        assert_eq!(program("pa"), 0);
    });
}

#[test]
fn anothers_program_is_named_and_stays() {
    in_namespace(|| {
        let first = attach(&[device("pa")]).unwrap();
        let error = attach(&[device("pb"), device("pa")]).unwrap_err();
        let SteeringError::Occupied {
            device: on,
            id,
            name,
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!((on.as_str(), name.as_str()), ("pa", "steer"));
        assert!(error.to_string().contains(&format!("(id {id})")), "{error}");
        assert!(ip("-d link show pa").contains(&format!("prog/xdp id {id} ")));
        assert!(
            !ip("link show pb").contains("xdp"),
            "nothing stays of the second"
        );
        drop(first);
        attach(&[device("pa")]).unwrap();
    });
}

#[test]
fn who_may_not_is_told_to_be_root() {
    in_namespace(|| {
        let devices = [device("pa")];
        let none = rustix::thread::CapabilitySet::empty();
        let sets = rustix::thread::CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        };
        rustix::thread::set_capabilities(None, sets).unwrap();
        let error = attach(&devices).unwrap_err();
        assert!(matches!(error, SteeringError::NotPermitted), "{error}");
        let error = afxdp::open(&[queue(&devices[0], 0)], small()).unwrap_err();
        assert!(matches!(error, AfXdpError::NotPermitted), "{error}");
    });
}

#[test]
fn a_device_that_went_is_named() {
    in_namespace(|| {
        let devices = [device("pa")];
        ip("link del pa");
        let error = attach(&devices).unwrap_err();
        assert!(
            matches!(&error, SteeringError::DeviceGone(name) if name == "pa"),
            "{error}"
        );
    });
}

#[test]
fn a_device_of_too_large_packets_is_refused() {
    in_namespace(|| {
        let largest = match afxdp::takes_several_chunks() {
            true => MTU_MAX,
            false => ONE_CHUNK_MTU,
        };
        ip(&format!("link set pa mtu {largest}"));
        assert_eq!(device("pa").mtu, largest);
        ip(&format!("link set pa mtu {}", largest + 1));
        let error = Device::find("pa").unwrap_err();
        let cure = format!("`ip link set pa mtu {largest}`");
        assert!(error.to_string().contains(&cure), "{error}");
        assert!(matches!(error, DeviceError::MtuTooLarge { mtu, .. } if mtu == largest + 1));
    });
}

#[test]
fn a_queue_has_one_socket_and_is_free_again_after_it() {
    in_namespace(|| {
        let a = device("pa");
        let _steering = attach(std::slice::from_ref(&a)).unwrap();
        let first = afxdp::open(&[queue(&a, 0)], small()).unwrap();
        assert!(matches!(&first.transfer, Transfer::Copy(reason) if !reason.is_empty()));
        let begin = Instant::now();
        let error = afxdp::open(&[queue(&a, 0)], small()).unwrap_err();
        assert!(matches!(error, AfXdpError::Busy { .. }), "{error}");
        // It is asked again for some seconds: a killed process's socket goes late.
        assert!(begin.elapsed().as_secs() < 8);
        drop(first);
        afxdp::open(&[queue(&a, 0)], small()).unwrap();
        let error = afxdp::open(&[queue(&a, 7)], small()).unwrap_err();
        assert!(
            matches!(error, AfXdpError::NoSuchQueue { queue: 7, .. }),
            "{error}"
        );
    });
}
