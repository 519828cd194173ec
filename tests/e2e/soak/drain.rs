//! After the load: what is counted must agree, the table must hold as many connections as ever, and all must end.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use cli::api::{ConnectionRow, Sample, ServerRow, ServiceRow};
use cli::client::Client;

use sched::service::ServiceKey;

use super::traffic::{DATAGRAMS, SERVICES, add_services};
use super::{Scene, watch};
use crate::lab::{Family, Lab, enter};
use crate::raw::{send_at, udp};

/// Until counts agree: entries come to their end while one looks.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
/// The longest timeout is that of closed connections, 120 s.
const EMPTY_WITHIN: Duration = Duration::from_secs(150);
const FILL_PER_S: u32 = 15_000;
const FILL_ROUNDS: u32 = 3;

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

pub fn drain(scene: &Scene, lab: &Lab, base: &str) -> Drained {
    let mut client = Client::new(lab.socket());
    let mut drained = Drained {
        counted: settled(scene, lab, &mut client),
        ..Drained::default()
    };
    let saved = lab.ipvsadm("-S -n");
    if saved != base {
        scene.fault(format!(
            "services are not as at first: {saved}\nbut: {base}"
        ));
    }
    empty(scene, lab, &mut client, &mut drained);
    drained.filled = fill(scene, lab, &mut client);
    let (filled, capacity) = drained.filled;
    if filled < capacity {
        scene.fault(format!("the table of {capacity} holds {filled} only"));
    }
    drained
}

/// What is counted, once it agrees. Nothing begins any more, so each count is at most what was counted before it.
fn settled(scene: &Scene, lab: &Lab, client: &mut Client) -> [u64; 3] {
    let begin = Instant::now();
    loop {
        let first = sample(client).places.taken;
        let Listed { all, of_servers } = listed(lab);
        let counts = counts(&sample(client));
        let last = sample(client).places.taken;
        let gone = all - of_servers;
        let is_settled = first >= all && of_servers >= counts && counts + gone >= last;
        if is_settled && first - last <= 20 + first / 50 {
            return [first, all, counts + gone];
        }
        if begin.elapsed() > SETTLED_WITHIN {
            scene.fault(format!(
                "{first} places are taken, then {all} listed, {of_servers} of them of servers that are there, then \
                 servers count {counts}, then {last} are taken"
            ));
            return [first, all, counts + gone];
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn sample(client: &mut Client) -> Sample {
    client.sample().unwrap_or_else(|error| panic!("{error}"))
}

/// Places of the connections that a listing shows.
struct Listed {
    all: u64,
    /// Without those whose service has gone, which no server counts.
    of_servers: u64,
}

fn listed(lab: &Lab) -> Listed {
    let rows = lab.lvx("shell --json -c -Lnc");
    let mut listed = Listed {
        all: 0,
        of_servers: 0,
    };
    for row in rows.lines() {
        let row: ConnectionRow = serde_json::from_str(row).expect("a connection a line");
        let places = 1 + u64::from(row.client.is_ipv6());
        listed.all += places;
        if SERVICES.contains(&row.virtual_port) {
            listed.of_servers += places;
        }
    }
    listed
}

/// Places of the connections that servers count.
fn counts(sample: &Sample) -> u64 {
    let places = |service: &ServiceRow| match service.service {
        ServiceKey::Address { address, .. } => 1 + u64::from(address.is_ipv6()),
        ServiceKey::Fwmark { .. } => 1,
    };
    let of_server = |server: &ServerRow| server.active + server.inactive + server.persistent;
    let services = sample.table.services.iter();
    services
        .map(|service| {
            let servers = service.servers.iter().map(of_server).map(u64::from);
            places(service) * servers.sum::<u64>()
        })
        .sum()
}

/// Fills the empty table with connections that nobody ends for another: all places are there again.
fn fill(scene: &Scene, lab: &Lab, client: &mut Client) -> (u64, u64) {
    add_services(lab);
    let SocketAddr::V4(to) = Family::V4.service(DATAGRAMS).parse().expect("an address") else {
        panic!("an IPv4 service");
    };
    let capacity = sample(client).places.capacity;
    let mut filled = 0;
    // Some may be lost on the way.
    for round in 0..FILL_ROUNDS {
        let send = || {
            send_at(to, capacity as u32, FILL_PER_S, |number| {
                let from = Ipv4Addr::from_bits(0x0b80_0000 + (round << 20 | number >> 4));
                let from = SocketAddrV4::new(from, 1024 + (number & 15) as u16);
                udp(from.into(), to.into(), b"fill")
            })
        };
        thread::scope(|scope| scope.spawn(|| enter(&scene.client, send)).join()).expect("no panic");
        thread::sleep(Duration::from_millis(200));
        filled = sample(client).places.taken;
        if filled >= capacity {
            break;
        }
    }
    lab.ipvsadm("-C");
    (filled, capacity)
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
