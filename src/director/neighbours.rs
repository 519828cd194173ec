//! A live mirror of the host's routing, and the host's hand to find neighbours.
//!
//! Neighbours are followed change by change. Routes, addresses and links are listed anew
//! when any of them changed: Linux does not tell of every route that goes (IPv4 routes
//! leave with their device in silence), and the listing is short where directors run.
//! Changes are gathered for a few milliseconds, so a burst of them costs one table.
//!
//! A port is its device for as long as that lives, whatever its name. When it has gone, the
//! next device of that name takes its place.

pub mod links;
mod netlink;
mod parse;
mod probe;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use dataplane::address::bits;
use dataplane::hops::routing::{Address, Link, Neighbour, NeighbourState, Routing};
use dataplane::hops::{Hops, Mac, NeighbourKey, Way};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use probe::{Asked, Prober};
use sched::service::Family;

use super::privilege;
use links::{Facts, Links, PortFacts};
pub use netlink::Asker;
use netlink::{Follower, Notice};

/// How long changes are gathered.
const GATHER: Duration = Duration::from_millis(5);
/// A table is not built again before this many times the time that building it took, so
/// that a host with very many routes that flap keeps most of its core.
const REST: u32 = 10;
/// How often the servers' neighbours that are not known are asked for.
const ASK: Duration = Duration::from_secs(5);
/// Stale neighbours are confirmed every so many rounds of `ASK`. Frames that AF_XDP sends
/// do not show the host that a neighbour is in use, so without this it would never ask.
const CONFIRM_ROUNDS: u32 = 3;
/// Of how many neighbours at a time.
const CONFIRM_MAX: usize = 1024;
/// The same neighbour is not asked for again within this time: the host asks three times
/// itself, 1 s apart (Linux's mcast_solicit and retrans_time_ms).
const AGAIN: Duration = Duration::from_millis(250);
/// How many neighbours are remembered for that.
const AGAIN_MAX: usize = 4096;

/// The host's routing at a moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Where packets go.
    pub hops: Hops,
    /// The device of each port, in the ports' order; empty where nobody follows them.
    pub ports: Vec<PortDevice>,
    /// The ports' VLAN devices that are up: a port's interface index and the tag.
    pub vlans: Vec<(u32, u16)>,
    /// The ports' link addresses, by interface index.
    pub macs: Vec<(u32, Mac)>,
    /// Further link addresses of the host on ports (macvlans'), by the ports' indexes.
    pub stations: Vec<(u32, Mac)>,
    /// How each port's device fares, in the ports' order; none where it has none.
    pub facts: Vec<Option<PortFacts>>,
    /// From when on the ports' links have settled, since the system's start.
    ///
    /// For up to 2 s after it has given a link an IPv6 address, the host sends its multicast
    /// listener reports (RFC 3810: twice, each within 1 s). Until a switch that snoops has
    /// heard them, nobody's neighbour solicitations for the address need reach this host.
    pub settled_at: Duration,
}

/// The device that a port is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortDevice {
    /// Its interface index; none while there is no such device.
    pub index: Option<u32>,
    /// Grows whenever the device went: what comes back is another one, also where Linux
    /// gives it the same index.
    pub times_gone: u32,
}

/// The links of the calling thread's network namespace.
pub fn links_now() -> io::Result<Links> {
    list_links(&mut Asker::new()?)
        .map(|links| Links(links.into_iter().map(|(_, facts)| facts).collect()))
}

fn list_links(asker: &mut Asker) -> io::Result<Vec<(Link, Facts)>> {
    select(asker, Message::GetLink(Default::default()), |m| match m {
        Message::NewLink(link) => Some((parse::link(link), parse::facts(link))),
        _ => None,
    })
}

/// RFC 3810, 9.1 and 9.11: the robustness variable times the unsolicited report interval.
const REPORTS: Duration = Duration::from_secs(2);

/// Asks the host for neighbours. Any thread may hold one.
#[derive(Clone, Debug)]
pub struct Resolver {
    requests: Sender<Request>,
    wake: Arc<OwnedFd>,
}

#[derive(Debug)]
enum Request {
    Resolve(NeighbourKey),
    Watch(Vec<NeighbourKey>),
    Stop,
}

impl Resolver {
    /// Has the host ask for a neighbour. The answer comes as a new [`View`].
    pub fn resolve(&self, key: NeighbourKey) {
        self.send(Request::Resolve(key));
    }

    /// From now on these neighbours (the real servers') are asked for again and again
    /// until they are known. Replaces the last list.
    pub fn watch(&self, keys: Vec<NeighbourKey>) {
        self.send(Request::Watch(keys));
    }

    fn send(&self, request: Request) {
        // A mirror that ended needs no waking.
        if self.requests.send(request).is_ok() {
            let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        }
    }
}

/// The mirror's thread. Ends when dropped.
#[derive(Debug)]
pub struct Mirror {
    resolver: Resolver,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    /// Follows the routing of the calling thread's network namespace. `ports` are the
    /// director's ports, interface index (0 where the device is absent) and name, in the
    /// ports' order. The first view is the answer, all later ones go to `views`.
    pub fn start(ports: Vec<(u32, String)>, views: Sender<View>) -> io::Result<(Self, View)> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let wake = Arc::new(wake);
        let (requests, orders) = crossbeam_channel::unbounded();
        let mut follower = Loop::new(ports, views, orders, wake.clone())?;
        let first = follower.view();
        let thread = std::thread::Builder::new()
            .name("lvx-neighbours".into())
            .spawn(move || {
                privilege::keep(privilege::MIRROR);
                follower.run()
            })?;
        let mirror = Self {
            resolver: Resolver { requests, wake },
            thread: Some(thread),
        };
        Ok((mirror, first))
    }

    /// A handle to ask for neighbours.
    pub fn resolver(&self) -> Resolver {
        self.resolver.clone()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.resolver.send(Request::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Dirty {
    Nothing,
    Neighbours,
    Routing,
    Everything,
}

/// A port, to find its device again.
#[derive(Debug)]
struct Followed {
    name: String,
    device: PortDevice,
    /// The index of its last device, which may have gone.
    last: u32,
    /// Linux told that the device is gone.
    is_gone: bool,
}

impl Followed {
    fn new((index, name): (u32, String)) -> Self {
        Self {
            name,
            device: PortDevice {
                index: Some(index).filter(|index| *index != NO_DEVICE),
                times_gone: 0,
            },
            last: index,
            is_gone: false,
        }
    }

    /// Finds the port's device among those there are.
    fn find(&mut self, links: &[Link]) {
        let known = self.device.index.filter(|_| !self.is_gone);
        if let Some(link) = links.iter().find(|link| Some(link.device) == known) {
            // It may be given another name.
            self.name.clone_from(&link.name);
            return;
        }
        if self.device.index.is_some() {
            self.device.times_gone += 1;
        }
        self.is_gone = false;
        let next = links.iter().find(|link| link.name == self.name);
        self.device.index = next.map(|link| link.device);
        self.last = self.device.index.unwrap_or(self.last);
    }
}

/// No device has this index.
const NO_DEVICE: u32 = 0;

struct Loop {
    asker: Asker,
    follower: Follower,
    prober: Prober,
    views: Sender<View>,
    orders: Receiver<Request>,
    wake: Arc<OwnedFd>,
    routing: Routing,
    links: Links,
    ports: Vec<Followed>,
    hops: Hops,
    neighbours: HashMap<NeighbourKey, Neighbour>,
    watched: Vec<NeighbourKey>,
    asked: HashMap<NeighbourKey, Instant>,
    dirty: Dirty,
    due: Option<Instant>,
    rested: Instant,
    warned_of_rules: bool,
    settled_at: Duration,
}

impl Loop {
    fn new(
        ports: Vec<(u32, String)>,
        views: Sender<View>,
        orders: Receiver<Request>,
        wake: Arc<OwnedFd>,
    ) -> io::Result<Self> {
        let mut mirror = Self {
            // First the notices, then the listing: no change falls between.
            follower: Follower::new()?,
            asker: Asker::new()?,
            prober: Prober::new()?,
            views,
            orders,
            wake,
            routing: Routing {
                ports: ports.iter().map(|(index, _)| *index).collect(),
                ..Routing::default()
            },
            links: Links::default(),
            ports: ports.into_iter().map(Followed::new).collect(),
            hops: Hops::default(),
            neighbours: HashMap::new(),
            watched: Vec::new(),
            asked: HashMap::new(),
            dirty: Dirty::Nothing,
            due: None,
            rested: Instant::now(),
            warned_of_rules: false,
            settled_at: Duration::ZERO,
        };
        mirror.read(Dirty::Everything)?;
        Ok(mirror)
    }

    fn run(&mut self) {
        let mut round = 0;
        let mut ask_at = Instant::now() + ASK;
        let mut probe_at = Instant::now();
        loop {
            let is_probing = !self.watched.is_empty();
            self.wait(if is_probing {
                probe_at.min(ask_at)
            } else {
                ask_at
            });
            if let Err(error) = self.follow() {
                tracing::error!("following the host's routing: {error}; trying again");
                std::thread::sleep(Duration::from_secs(1));
                self.mark(Dirty::Everything);
            }
            if !self.obey() {
                return;
            }
            let now = Instant::now();
            if self.due.is_some_and(|due| due <= now) {
                self.renew();
            }
            self.prober.listen();
            if is_probing && probe_at <= now {
                self.probe(now);
                probe_at = now + probe::LOOK;
            }
            if ask_at <= now {
                round += 1;
                self.ask_watched();
                if round % CONFIRM_ROUNDS == 0 {
                    self.confirm_stale();
                }
                ask_at = now + ASK;
            }
        }
    }

    fn wait(&self, ask_at: Instant) {
        let until = self.due.map_or(ask_at, |due| due.min(ask_at));
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let [arp, ipv6] = self.prober.sockets();
        let mut fds = [
            PollFd::new(&self.follower, PollFlags::IN),
            PollFd::new(&*self.wake, PollFlags::IN),
            PollFd::from_borrowed_fd(arp, PollFlags::IN),
            PollFd::from_borrowed_fd(ipv6, PollFlags::IN),
        ];
        // An interrupted wait is a short one.
        let _ = rustix::event::poll(&mut fds, Some(&timeout));
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
    }

    /// Takes in what has changed.
    fn follow(&mut self) -> io::Result<()> {
        let mut dirty = Dirty::Nothing;
        let (neighbours, ports) = (&mut self.neighbours, &mut self.ports);
        self.follower.drain(|notice| {
            dirty = dirty.max(match notice {
                Notice::Lost => Dirty::Everything,
                Notice::Change(change) => {
                    note_gone(ports, &change);
                    note(neighbours, &change)
                }
            });
        })?;
        self.mark(dirty);
        Ok(())
    }

    fn mark(&mut self, dirty: Dirty) {
        if dirty == Dirty::Nothing {
            return;
        }
        self.dirty = self.dirty.max(dirty);
        let due = (Instant::now() + GATHER).max(self.rested);
        self.due.get_or_insert(due);
    }

    /// Does what was asked; false when that was to stop.
    fn obey(&mut self) -> bool {
        let mut is_told = false;
        while let Ok(request) = self.orders.try_recv() {
            match request {
                Request::Resolve(key) => self.ask(key),
                Request::Watch(keys) => {
                    self.watched = keys;
                    is_told = true;
                }
                Request::Stop => return false,
            }
        }
        // Once, for the newest list: a long restore sends many.
        if is_told {
            self.ask_watched();
        }
        true
    }

    fn renew(&mut self) {
        let begin = Instant::now();
        let dirty = std::mem::replace(&mut self.dirty, Dirty::Nothing);
        self.due = None;
        if let Err(error) = self.read(dirty) {
            tracing::warn!("reading the host's routing: {error}; trying again");
            self.rested = Instant::now() + Duration::from_secs(1);
            self.mark(dirty);
            return;
        }
        let view = self.view();
        self.rested = Instant::now() + begin.elapsed() * REST;
        let _ = self.views.send(view);
    }

    fn read(&mut self, dirty: Dirty) -> io::Result<()> {
        if dirty == Dirty::Everything {
            self.read_neighbours()?;
            self.look_at_rules();
        }
        let neighbours = || self.neighbours.values().copied();
        if dirty < Dirty::Routing {
            self.hops = self.hops.with_neighbours(neighbours());
            return Ok(());
        }
        let links = list_links(&mut self.asker)?;
        (self.routing.links, self.links.0) = links.into_iter().unzip();
        for (port, index) in self.ports.iter_mut().zip(&mut self.routing.ports) {
            port.find(&self.routing.links);
            *index = port.device.index.unwrap_or(NO_DEVICE);
        }
        let addresses = Message::GetAddress(Default::default());
        let addresses = select(&mut self.asker, addresses, |m| match m {
            Message::NewAddress(message) => {
                parse::address(message).map(|address| (address, parse::created(message)))
            }
            _ => None,
        })?;
        let reported = |(address, created): &(Address, Option<Duration>)| {
            let is_of_port = self.routing.ports.contains(&address.device);
            created.filter(|_| is_of_port && address.address.is_ipv6())
        };
        let newest = addresses.iter().filter_map(reported).max();
        self.settled_at = newest.map_or(Duration::ZERO, |created| created + REPORTS);
        self.routing.addresses = addresses.into_iter().map(|(address, _)| address).collect();
        let routes = Message::GetRoute(Default::default());
        self.routing.routes = select(&mut self.asker, routes, |m| match m {
            Message::NewRoute(route) => parse::route(route),
            _ => None,
        })?;
        self.hops = Hops::new(&self.routing, self.neighbours.values().copied());
        Ok(())
    }

    fn read_neighbours(&mut self) -> io::Result<()> {
        let all = Message::GetNeighbour(NeighbourMessage::default());
        let neighbours = select(&mut self.asker, all, |m| match m {
            Message::NewNeighbour(neighbour) => parse::neighbour(neighbour),
            _ => None,
        })?;
        self.neighbours = neighbours.into_iter().map(|n| (n.key, n)).collect();
        Ok(())
    }

    /// Rules that choose tables by more than the destination are beyond this mirror: say
    /// so, once.
    fn look_at_rules(&mut self) {
        if self.warned_of_rules {
            return;
        }
        let rules = select(
            &mut self.asker,
            Message::GetRule(Default::default()),
            |m| match m {
                Message::NewRule(rule) => (!parse::is_default_rule(rule)).then_some(()),
                _ => None,
            },
        );
        if rules.is_ok_and(|unusual| !unusual.is_empty()) {
            self.warned_of_rules = true;
            tracing::warn!(
                "`ip rule` has rules beside local, main and default: lvx does not follow them \
                 and routes by these three tables"
            );
        }
    }

    fn view(&self) -> View {
        let ports = &self.routing.ports;
        View {
            hops: self.hops.clone(),
            ports: self.ports.iter().map(|port| port.device).collect(),
            vlans: self.links.vlans(ports),
            stations: self.links.stations(ports),
            facts: ports.iter().map(|port| self.links.port(*port)).collect(),
            macs: self
                .routing
                .links
                .iter()
                .filter(|link| ports.contains(&link.device))
                .map(|link| (link.device, link.mac))
                .collect(),
            settled_at: self.settled_at,
        }
    }

    fn ask(&mut self, key: NeighbourKey) {
        let now = Instant::now();
        if self.asked.get(&key).is_some_and(|at| now - *at < AGAIN) {
            return;
        }
        if self.asked.len() >= AGAIN_MAX {
            self.asked.retain(|_, at| now - *at < AGAIN);
        }
        if self.asked.len() < AGAIN_MAX {
            self.asked.insert(key, now);
        }
        if let Err(error) = self.asker.use_neighbour(key) {
            let NeighbourKey { device, address } = key;
            tracing::debug!("asking for {address} on device {device}: {error}");
        }
    }

    /// Asks servers for their link addresses, heard of lately or not.
    fn probe(&mut self, now: Instant) {
        let mut all = Vec::new();
        for key in &self.watched {
            let (family, to) = (Family::of(key.address), bits(key.address));
            // Only where the host itself would ask for it: on the link.
            if self.hops.neighbour(family, to) != Some(*key) {
                continue;
            }
            let (mac, hop) = match self.hops.lookup(family, to) {
                Way::Ready(hop) => (Some(hop.destination), hop),
                Way::Unresolved(_, hop) => (None, hop),
                _ => continue,
            };
            all.push(Asked {
                key: *key,
                mac,
                own_mac: hop.source,
                own: hop.local,
            });
        }
        self.prober.look(&all, now);
    }

    fn ask_watched(&mut self) {
        let unknown = |key: &NeighbourKey| {
            let neighbour = self.neighbours.get(key);
            neighbour.is_none_or(|n| !n.state.is_usable())
        };
        let keys: Vec<_> = self.watched.iter().copied().filter(unknown).collect();
        keys.into_iter().for_each(|key| self.ask(key));
    }

    fn confirm_stale(&mut self) {
        let ports = &self.routing.ports;
        let devices: Vec<u32> = self
            .routing
            .links
            .iter()
            .filter(|l| {
                ports.contains(&l.device) || l.vlan.is_some_and(|(b, _)| ports.contains(&b))
            })
            .map(|link| link.device)
            .collect();
        let stale =
            |n: &&Neighbour| n.state == NeighbourState::Stale && devices.contains(&n.key.device);
        let neighbours = self.neighbours.values().filter(stale);
        let keys: Vec<_> = neighbours.take(CONFIRM_MAX).map(|n| n.key).collect();
        keys.into_iter().for_each(|key| self.ask(key));
    }
}

/// Notes that a port's device has gone, also where another comes with its index before the
/// links are listed.
fn note_gone(ports: &mut [Followed], change: &Message) {
    let Message::DelLink(link) = change else {
        return;
    };
    // A device that leaves a bridge is told of with the bridge's family.
    if link.header.interface_family != AddressFamily::Unspec {
        return;
    }
    let index = Some(link.header.index);
    let name = parse::link(link).name;
    let own = ports.iter_mut().filter(|port| Some(port.last) == index);
    for port in own {
        port.is_gone = port.device.index == index;
        // Its last one: it may have got it since the links were listed.
        if !name.is_empty() {
            port.name.clone_from(&name);
        }
    }
}

/// Enters a notice about a neighbour; tells what a notice makes stale.
fn note(neighbours: &mut HashMap<NeighbourKey, Neighbour>, change: &Message) -> Dirty {
    match change {
        Message::NewNeighbour(message) => match parse::neighbour(message) {
            Some(new) => enter(neighbours, new),
            None => Dirty::Nothing,
        },
        Message::DelNeighbour(message) => {
            match parse::neighbour(message).and_then(|gone| neighbours.remove(&gone.key)) {
                Some(_) => Dirty::Neighbours,
                None => Dirty::Nothing,
            }
        }
        Message::NewRule(_) | Message::DelRule(_) => Dirty::Everything,
        Message::NewLink(_)
        | Message::DelLink(_)
        | Message::NewAddress(_)
        | Message::DelAddress(_)
        | Message::NewRoute(_)
        | Message::DelRoute(_) => Dirty::Routing,
        _ => Dirty::Nothing,
    }
}

/// Only a change that workers would see makes the table stale: most notices tell of
/// states that come and go without one.
fn enter(neighbours: &mut HashMap<NeighbourKey, Neighbour>, new: Neighbour) -> Dirty {
    let visible = |n: &Neighbour| n.state.is_usable().then_some(n.mac);
    let old = neighbours.insert(new.key, new);
    if old.as_ref().and_then(visible) == visible(&new) {
        Dirty::Nothing
    } else {
        Dirty::Neighbours
    }
}

fn select<T>(
    asker: &mut Asker,
    request: Message,
    choose: impl Fn(&Message) -> Option<T>,
) -> io::Result<Vec<T>> {
    Ok(asker.list(request)?.iter().filter_map(choose).collect())
}
