//! After the load: what is counted must agree, the table must hold as many connections as ever, and all must end.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use cli::api::{ConnectionRow, Sample};
use cli::client::Client;

use super::traffic::DATAGRAMS;
use super::{Scene, watch};
use crate::lab::{Family, Lab, enter};
use crate::raw::{send_at, udp};

/// Until counts agree: entries come to their end while one looks.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
/// The longest timeout is that of closed connections, 120 s.
const EMPTY_WITHIN: Duration = Duration::from_secs(150);
const FILL_PER_S: u32 = 15_000;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Drained {
    /// Places taken when the load had ended, as the table, a listing and the servers' counts tell it.
    pub counted: [u64; 3],
    /// As many as a table full of datagrams' connections held, of as many.
    pub filled: (u64, u64),
    /// How long it took until nothing was left, and what was.
    pub empty_after_s: f64,
    pub left: u64,
    pub lost_frames: u64,
}

pub fn drain(scene: &Scene, lab: &mut Lab, base: &str) -> Drained {
    let mut client = Client::new(lab.socket());
    let mut drained = Drained::default();
    let begin = Instant::now();
    loop {
        drained.counted = counted(&mut client, lab);
        let [table, listed, counts] = drained.counted;
        if table == listed && listed == counts {
            break;
        }
        if begin.elapsed() > SETTLED_WITHIN {
            scene.fault(format!(
                "{table} places are taken, {listed} listed, servers count {counts}"
            ));
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let saved = lab.ipvsadm("-S -n");
    if saved != base {
        scene.fault(format!(
            "services are not as at first: {saved}\nbut: {base}"
        ));
    }
    drained.filled = fill(scene, &mut client);
    let (filled, capacity) = drained.filled;
    if filled < capacity {
        scene.fault(format!("the table of {capacity} holds {filled} only"));
    }
    empty(scene, lab, &mut client, &mut drained);
    drained
}

fn sample(client: &mut Client) -> Sample {
    client.sample().unwrap_or_else(|error| panic!("{error}"))
}

fn counted(client: &mut Client, lab: &Lab) -> [u64; 3] {
    let before = sample(client).places.taken;
    let rows = lab.lvx("shell --json -c -Lnc");
    let rows = rows
        .lines()
        .map(serde_json::from_str)
        .map(|row| row.expect("a connection a line"));
    let listed = rows
        .map(|row: ConnectionRow| 1 + u64::from(row.client.is_ipv6()))
        .sum();
    let now = sample(client);
    let mut counts = 0;
    for service in &now.table.services {
        let is_v6 = match service.service {
            sched::service::ServiceKey::Address { address, .. } => address.is_ipv6(),
            sched::service::ServiceKey::Fwmark { .. } => false,
        };
        for server in &service.servers {
            let all = server.active + server.inactive + server.persistent;
            counts += u64::from(all) * (1 + u64::from(is_v6));
        }
    }
    // Both looks must say the same, else the middle one is of another moment.
    let taken = match before == now.places.taken {
        true => before,
        false => u64::MAX,
    };
    [taken, listed, counts]
}

/// Fills the table with connections that nothing but time ends.
fn fill(scene: &Scene, client: &mut Client) -> (u64, u64) {
    let SocketAddr::V4(to) = Family::V4.service(DATAGRAMS).parse().expect("an address") else {
        panic!("an IPv4 service");
    };
    let capacity = sample(client).places.capacity;
    let send = || {
        send_at(to, capacity as u32 * 9 / 8, FILL_PER_S, |number| {
            let from = Ipv4Addr::from_bits(0x0b80_0000 + (number >> 4));
            let from = SocketAddrV4::new(from, 1024 + (number & 15) as u16);
            udp(from.into(), to.into(), b"fill")
        })
    };
    thread::scope(|scope| scope.spawn(|| enter(&scene.client, send)).join()).expect("no panic");
    (sample(client).places.taken, capacity)
}

fn empty(scene: &Scene, lab: &Lab, client: &mut Client, drained: &mut Drained) {
    if !scene.plan.patient {
        lab.lvx("set expire_nodest_conn 1");
        lab.ipvsadm("-C");
    }
    let begin = Instant::now();
    loop {
        let now = sample(client);
        drained.left = now.places.taken;
        drained.lost_frames = watch::lost_frames(&now);
        drained.empty_after_s = begin.elapsed().as_secs_f64();
        if drained.left == 0 && drained.lost_frames == 0 {
            break;
        }
        if begin.elapsed() > EMPTY_WITHIN {
            let lost = drained.lost_frames;
            scene.fault(format!(
                "{} entries and {lost} frames are left over:\n{}",
                drained.left,
                lab.ipvsadm("-Lnc")
                    .lines()
                    .take(20)
                    .collect::<Vec<_>>()
                    .join("\n")
            ));
            break;
        }
        thread::sleep(Duration::from_millis(200));
    }
    if scene.plan.patient {
        lab.lvx("set expire_nodest_conn 1");
        lab.ipvsadm("-C");
    }
}
