//! Rows of commits: what they change must be as before once they are taken back, and what
//! others changed meanwhile must stay.

use std::time::Duration;

use sched::command::FwmarkRule;
use sched::table::Limits;

use super::super::tests::{add, add_server, server, spec, vip, world};
use super::*;
use sched::server::Forwarding::{Masquerade, Route};

fn state(commands: &[Command]) -> State {
    let limits = Limits {
        services: 16,
        servers: 64,
    };
    let mut state = State::new(limits);
    run(&mut state, commands.to_vec());
    state
}

fn run(state: &mut State, commands: Vec<Command>) {
    let batch = Batch {
        commands,
        atomic: true,
    };
    let (refusals, _) = state.run(&batch, 0, &|_| Ok(()));
    assert!(refusals.iter().all(Option::is_none), "{refusals:?}");
}

/// All that an operator sees of a state.
fn seen(state: &State) -> impl PartialEq + std::fmt::Debug {
    let mut services: Vec<_> = state
        .table
        .services()
        .map(|s| {
            let servers: Vec<_> = s.servers.iter().map(|s| (s.key, s.spec)).collect();
            (s.key, s.spec.clone(), servers)
        })
        .collect();
    services.sort_by_key(|(key, ..)| *key);
    (
        services,
        state.settings.values().clone(),
        state.settings.tunables(),
        state.marks.rules(),
    )
}

#[test]
fn what_a_commit_changed_is_as_before() {
    let mark = |ports: &[u16]| FwmarkRule {
        mark: std::num::NonZeroU32::MIN,
        address: "192.0.2.1".parse().unwrap(),
        protocol: sched::service::Protocol::Tcp,
        ports: ports.to_vec(),
    };
    let before = state(&[
        add(vip(80)),
        add_server(vip(80), "10.0.0.1", Masquerade),
        add_server(vip(80), "10.0.0.2", Masquerade),
        add(vip(81)),
        add_server(vip(81), "10.0.0.3", Route),
        Command::AddFwmark(mark(&[80, 443])),
    ]);
    let edit = |weight| Command::EditServer {
        service: vip(80),
        server: server("10.0.0.1"),
        spec: sched::server::ServerSpec {
            weight,
            ..spec(Masquerade)
        },
    };
    let delete = Command::DeleteServer {
        service: vip(80),
        server: server("10.0.0.1"),
    };
    let rows: [(&str, Vec<Command>); 9] = [
        ("nothing", vec![]),
        ("a weight", vec![edit(0)]),
        (
            "a server added",
            vec![add_server(vip(81), "10.0.0.4", Route)],
        ),
        (
            "a service deleted",
            vec![Command::DeleteService { service: vip(81) }],
        ),
        ("all deleted", vec![Command::Flush]),
        (
            "another table",
            vec![
                Command::Flush,
                add(vip(82)),
                add_server(vip(82), "10.0.0.9", Route),
            ],
        ),
        (
            "deleted, added otherwise",
            vec![delete, add_server(vip(80), "10.0.0.1", Route), edit(7)],
        ),
        (
            "settings",
            vec![
                Command::SetTunable {
                    name: "sloppy_tcp".into(),
                    value: "1".into(),
                },
                Command::SetTimeouts {
                    tcp_s: 5,
                    tcp_fin_s: 0,
                    udp_s: 6,
                },
            ],
        ),
        (
            "marks",
            vec![
                Command::DeleteFwmark(mark(&[443])),
                Command::AddFwmark(mark(&[444])),
            ],
        ),
    ];
    for (what, commands) in rows {
        let mut after = before.clone();
        run(&mut after, commands);
        let undo = undo(&after, &before);
        run(&mut after, undo.clone());
        if what == "deleted, added otherwise" {
            // The server that was added again stays at the front of the list.
            assert_eq!(undo.len(), 1, "{what}");
            continue;
        }
        assert_eq!(seen(&after), seen(&before), "{what}");
    }
}

#[test]
fn a_commit_that_nobody_confirms_is_taken_back_and_others_changes_stay() {
    let mut world = world(false);
    world.good(vec![
        add(vip(80)),
        add_server(vip(80), "10.0.0.1", Masquerade),
    ]);
    let trial = |commands, confirm_within_s| Trial {
        commands,
        confirm_within_s,
    };
    let control = &mut world.control;
    assert!(matches!(control.confirm(), Err(NotSettled::Conflict(_))));
    // What is refused does not wait.
    let outcome = control.try_out(trial(vec![add(vip(80))], 60)).unwrap();
    assert!(outcome.refusals[0].is_some() && control.commit().waiting.is_none());
    control
        .try_out(trial(vec![Command::Flush, add(vip(81))], 1))
        .unwrap();
    let waiting = control.commit().waiting.unwrap();
    assert_eq!((waiting.left_s, waiting.undo.len()), (1, 3));
    let second = control.try_out(trial(vec![add(vip(83))], 60));
    assert!(matches!(second, Err(NotSettled::Conflict(_))));
    world.good(vec![add(vip(82))]);
    let control = &mut world.control;
    let due = control.confirmation_due();
    due.recv_timeout(Duration::from_secs(5)).expect("in time");
    control.take_back_unconfirmed();
    let mut ports: Vec<u16> = control
        .table()
        .services
        .iter()
        .map(|s| s.service.port())
        .collect();
    ports.sort_unstable();
    assert_eq!(ports, [80, 82]);
    assert!(control.commit().waiting.is_none());
    // Confirmed, it stays.
    control.try_out(trial(vec![add(vip(84))], 60)).unwrap();
    control.confirm().unwrap();
    assert_eq!(control.table().services.len(), 3);
    assert!(matches!(control.take_back(), Err(NotSettled::Conflict(_))));
}
