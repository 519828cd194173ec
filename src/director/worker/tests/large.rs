//! Frames of several chunks in a worker over memory.

use super::*;

/// A frame of this length whose first byte tells the script what to do.
fn frame(first: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![b'.'; length];
    bytes[0] = first;
    bytes
}

#[test]
fn every_verdict_is_carried_out_for_a_frame_of_several_chunks() {
    const LARGE: usize = 9_014;
    let pieces: [&[u8]; 3] = [b"2", b"1", b"0"];
    type Row<'a> = (&'a str, u8, [Vec<Vec<u8>>; 2], Vec<Vec<u8>>, Option<Reason>);
    let none = || [Vec::new(), Vec::new()];
    let given = || {
        pieces
            .iter()
            .map(|piece| piece.to_vec())
            .collect::<Vec<_>>()
    };
    let through = [b"->".as_slice(), &frame(b't', LARGE)].concat();
    let rows: [Row<'_>; 9] = [
        ("transmit", b't', [vec![], vec![through]], vec![], None),
        ("by no port", b'9', none(), vec![], Some(Reason::NotAPort)),
        ("host", b'h', none(), vec![frame(b'h', LARGE)], None),
        ("split", b's', [given(), vec![]], vec![], None),
        ("split for the host", b'S', none(), given(), None),
        (
            "unresolved",
            b'u',
            none(),
            vec![],
            Some(Reason::NeighbourLimit),
        ),
        ("ask", b'a', none(), vec![], None),
        ("held", b'f', none(), vec![], None),
        ("drop", b'd', none(), vec![], None),
    ];
    for (what, first, out, host, reason) in rows {
        let (mut control, mut worker) = worker(16, 16);
        worker.desk.queues[0].port.mtu = Some(9_000);
        offer(&mut worker, &[&frame(first, LARGE)]);
        assert!(worker.turn(Reading::of(NOW)), "{what}");
        assert_eq!([sent(&mut worker, 0), sent(&mut worker, 1)], out, "{what}");
        assert_eq!(worker.desk.host.got, host, "{what}");
        let asked = control.receive(Duration::ZERO);
        let asks = first == b'u' || first == b'a';
        assert_eq!(asked, asks.then(|| Report::Resolve(key())), "{what}");
        let counters = &worker.director.counters;
        for &known in Reason::ALL {
            let times = u64::from(reason == Some(known));
            assert_eq!(counters.drops(known), times, "{what}: {}", known.name());
        }
        assert_eq!(counters.events(Event::Received), 1, "{what}");
        let left = (out[0].len() + out[1].len()) as u64;
        assert_eq!(counters.events(Event::Sent), left, "{what}");
        assert_eq!(worker.desk.frames.free(), 16, "{what}");
    }
}

#[test]
fn frames_of_all_sizes_stay_in_order() {
    let (_control, mut worker) = worker(16, 16);
    worker.desk.queues[0].port.mtu = Some(9_000);
    let sizes = [60, 9_014, 61, 62, 5_000, 3_900, 63];
    for size in sizes {
        worker.desk.queues[0].port.offer(&frame(b'h', size));
    }
    worker.turn(Reading::of(NOW));
    let got: Vec<usize> = worker.desk.host.got.iter().map(Vec::len).collect();
    assert_eq!(got, sizes);
}

#[test]
fn a_queue_has_its_share_of_a_turn_also_with_large_frames() {
    let (_control, mut worker) = worker(16, 16);
    worker.desk.host.room = 1_000;
    worker.desk.queues[0].port.mtu = Some(9_000);
    for _ in 0..2 * BURST {
        worker.desk.queues[0].port.offer(&frame(b'h', 9_000));
    }
    worker.turn(Reading::of(NOW));
    assert_eq!(worker.desk.host.got.len(), BURST);
}

#[test]
fn a_full_way_out_is_counted_for_large_frames_too() {
    let (_control, mut worker) = worker(16, 0);
    worker.desk.queues[0].port.mtu = Some(9_000);
    offer(&mut worker, &[&frame(b't', 9_000)]);
    worker.turn(Reading::of(NOW));
    assert_eq!(worker.director.counters.drops(Reason::PortFull), 1);
}

/// What is larger than the port's MTU was joined by an offload: TCP is cut, the rest has a name.
#[test]
fn what_an_offload_joined_and_nobody_can_cut_is_named() {
    let (_control, mut worker) = worker(16, 16);
    worker.desk.queues[0].port.mtu = Some(1_500);
    offer(&mut worker, &[&frame(b't', 9_000)]);
    worker.turn(Reading::of(NOW));
    assert_eq!(worker.director.counters.drops(Reason::OffloadJoined), 1);
    assert!(sent(&mut worker, 1).is_empty());
}
