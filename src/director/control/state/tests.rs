//! What batches mean for the counters, and what they cost.

use std::time::{Duration, Instant};

use sched::server::{ServerKey, ServerSpec};
use sched::service::Protocol;

use super::*;

fn service(port: u16) -> ServiceKey {
    ServiceKey::Address {
        protocol: Protocol::Tcp,
        address: [192, 0, 2, 1].into(),
        port,
    }
}

fn add(port: u16) -> Command {
    let spec = serde_json::from_str(r#"{"scheduler": "rr", "netmask": 4294967295}"#);
    Command::AddService {
        service: service(port),
        spec: spec.unwrap(),
    }
}

fn key(number: u32) -> ServerKey {
    ServerKey {
        address: std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into(),
        port: 80,
    }
}

fn add_server(port: u16, number: u32) -> Command {
    Command::AddServer {
        service: service(port),
        server: key(number),
        spec: ServerSpec {
            forwarding: Forwarding::Route,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        },
    }
}

fn delete(port: u16, number: u32) -> Command {
    Command::DeleteServer {
        service: service(port),
        server: key(number),
    }
}

fn zero(port: Option<u16>) -> Command {
    let service = port.map(service);
    Command::Zero { service }
}

fn effects(state: &mut State, commands: Vec<Command>) -> Vec<Effect> {
    let atomic = false;
    let (refusals, effects) = state.run(&Batch { commands, atomic }, 0, &|_| Ok(()));
    assert!(refusals.iter().all(Option::is_none), "{refusals:?}");
    effects
}

/// Services 1 and 2 with servers 0 and 1.
fn two() -> State {
    let mut state = State::new(Limits {
        services: 8,
        servers: 200_000,
    });
    let commands = vec![add(1), add_server(1, 0), add(2), add_server(2, 1)];
    assert_eq!(effects(&mut state, commands).len(), 4);
    state
}

#[test]
fn what_zeroing_means() {
    let one = [
        Effect::ZeroService(ServiceId(0)),
        Effect::ZeroServer(ServerId(0)),
    ];
    let other = [
        Effect::ZeroService(ServiceId(1)),
        Effect::ZeroServer(ServerId(1)),
    ];
    let all = [one, other].concat();
    let again = vec![delete(1, 0), add_server(1, 0)];
    let come_back = |zero: Command| [vec![zero.clone()], again.clone(), vec![zero]].concat();
    let with = |list: &[Effect], more: Effect| [list, &[more]].concat();
    let back = Effect::ZeroServer(ServerId(0));
    let rows = [
        ("one", vec![zero(Some(1))], one.to_vec()),
        ("all", vec![zero(None)], all.clone()),
        ("twice", vec![zero(None), zero(None)], all.clone()),
        ("then one", vec![zero(None), zero(Some(1))], all.clone()),
        ("back in one", come_back(zero(Some(1))), with(&one, back)),
        ("back in all", come_back(zero(None)), with(&all, back)),
        (
            "a new one counts from 0 anyway",
            vec![zero(None), add_server(1, 9), zero(None)],
            with(&all, Effect::StartServer(ServerId(2))),
        ),
    ];
    for (what, commands, expected) in rows {
        assert_eq!(effects(&mut two(), commands), expected, "{what}");
    }
}

/// What a service was given in the same batch is zeroed too.
#[test]
fn zeroing_sees_what_the_batch_has_done() {
    let mut state = two();
    effects(&mut state, vec![delete(1, 0)]);
    let commands = vec![add_server(1, 0), add_server(1, 7), zero(Some(1))];
    let got = effects(&mut state, commands);
    let zeroed = got.iter().filter(|e| matches!(e, Effect::ZeroServer(_)));
    assert_eq!(zeroed.count(), 2, "{got:?}");
}

/// Batches that were made to take long, and those that only are long. Quadratic, each would
/// take minutes.
#[test]
fn long_batches_are_quick() {
    const MANY: u32 = 60_000;
    let servers = |n: u32| add_server(1, n + 2);
    let flip = |n: u32| match n % 2 {
        0 => add_server(1, MANY + 9),
        _ => delete(1, MANY + 9),
    };
    let rows: [(&str, &dyn Fn(u32) -> Command); 4] = [
        ("servers", &servers),
        ("all zeroed, again and again", &|_| zero(None)),
        ("one zeroed, again and again", &|_| zero(Some(1))),
        ("a server among many comes and goes", &flip),
    ];
    let mut state = two();
    for (what, command) in rows {
        let commands: Vec<Command> = (0..MANY).map(command).collect();
        let begun = Instant::now();
        let checked = state.trial(&commands, 0, &|_| Ok(())).unwrap();
        assert!(checked.1.len() <= 2 * MANY as usize + 8, "{what}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        effects(&mut state, commands);
        println!("{what}: {:?} for both", begun.elapsed());
    }
}

#[test]
fn a_trial_changes_nothing() {
    let state = two();
    let before = format!("{:?}", state.table);
    let commands = [add_server(1, 5), delete(2, 1), add(3), zero(None)];
    let (after, _) = state.trial(&commands, 0, &|_| Ok(())).unwrap();
    assert_eq!(after.table.services().count(), 3);
    let refused = state.trial(&[add(3), add(2)], 0, &|_| Ok(()));
    assert_eq!(refused.unwrap_err(), (1, Refusal::ServiceExists));
    assert_eq!(format!("{:?}", state.table), before);
}
