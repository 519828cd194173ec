//! Parts of a file as meant. Every problem is collected with its place, so that one look
//! mends them all.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use sched::command::{Command, FwmarkRule, Refusal};
use sched::limit::ServiceLimits;
use sched::prefix::{Guard, Prefix, Prefixes};
use sched::scheduler;
use sched::server::{Forwarding, ServerKey, ServerSpec, Tunnel, TunnelChecksum};
use sched::service::{Family, Persistence, Protocol, SchedulerFlags, ServiceKey, ServiceSpec};
use sched::table::{Drafts, ServiceTable};
use toml::{Spanned, Value};

use super::document::{self, Document};
use super::{
    CONNECTIONS, CORE_MAX, Config, Director, Judge, PORTS_MAX, Problem, QUEUES, Service,
    TIMEOUT_MAX_S, TIMEOUTS, Tunables,
};
use crate::adm::flags;
use crate::api::Timeouts;
use crate::shell::{LIMITS, nearest};

/// The scheduler where none is named, as with ipvsadm.
const SCHEDULER: &str = "wlc";
const PROTOCOLS: [(&str, Protocol); 3] = [
    ("tcp", Protocol::Tcp),
    ("udp", Protocol::Udp),
    ("sctp", Protocol::Sctp),
];
const FORWARDINGS: [(&str, ()); 3] = [("nat", ()), ("route", ()), ("tunnel", ())];
const TUNNELS: [(&str, ()); 3] = [("ipip", ()), ("gue", ()), ("gre", ())];
const CHECKSUMS: [(&str, TunnelChecksum); 3] = [
    ("none", TunnelChecksum::None),
    ("full", TunnelChecksum::Full),
    ("remote", TunnelChecksum::Remote),
];

/// The configuration that a document means, or all its problems.
pub fn config(document: Document, judge: Judge<'_>) -> Result<Config, Vec<Problem>> {
    let mut reader = Reader {
        problems: Vec::new(),
        trial: ServiceTable::new(LIMITS),
        drafts: Drafts::default(),
        placed: HashMap::new(),
    };
    let config = Config {
        director: reader.director(document.director),
        timeouts: reader.timeouts(&document.timeouts),
        tunables: reader.tunables(document.tunables, judge),
        marks: reader.marks(&document.fwmark),
        prefixes: document.prefixes.map(|part| reader.prefixes(&part)),
        services: document
            .service
            .iter()
            .filter_map(|service| reader.service(service))
            .collect(),
    };
    if reader.problems.is_empty() {
        return Ok(config);
    }
    reader.problems.sort_by_key(|problem| problem.span.start);
    Err(reader.problems)
}

struct Reader {
    problems: Vec<Problem>,
    /// The director's own rules judge services and servers.
    trial: ServiceTable,
    drafts: Drafts,
    placed: HashMap<ServiceKey, Range<usize>>,
}

impl Reader {
    fn blame(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn director(&mut self, part: document::Director) -> Director {
        if let Some(queues) = &part.queues
            && !QUEUES.contains(queues.get_ref())
        {
            self.blame(Problem::at(queues.span(), "queues are 1 to 256"));
        }
        if let Some(connections) = &part.connections
            && !CONNECTIONS.contains(connections.get_ref())
        {
            self.blame(Problem::at(
                connections.span(),
                "connections are 1024 to 268435456",
            ));
        }
        Director {
            ports: self.ports(part.ports),
            api: part.api,
            api_group: part.api_group,
            api_read_group: part.api_read_group,
            cores: self.cores(part.cores),
            queues: part.queues.map(Spanned::into_inner),
            connections: part.connections.map(Spanned::into_inner),
            busy_poll: part.busy_poll,
            copy: part.copy,
            require_local: part.require_local,
        }
    }

    fn ports(&mut self, part: Vec<Spanned<String>>) -> Vec<String> {
        if let Some(port) = part.get(PORTS_MAX) {
            let text = format!("a director has {PORTS_MAX} ports at most");
            self.blame(Problem::at(port.span(), text));
        }
        self.each_once(part, "port")
    }

    fn cores(&mut self, part: Vec<Spanned<usize>>) -> Vec<usize> {
        for core in part.iter().filter(|core| *core.get_ref() > CORE_MAX) {
            let text = format!("cores are 0 to {CORE_MAX}");
            self.blame(Problem::at(core.span(), text));
        }
        self.each_once(part, "core")
    }

    /// The values of a list that names none of them twice.
    fn each_once<T: PartialEq + Display>(&mut self, part: Vec<Spanned<T>>, what: &str) -> Vec<T> {
        for (place, value) in part.iter().enumerate() {
            if part[..place]
                .iter()
                .any(|other| other.get_ref() == value.get_ref())
            {
                let text = format!("{what} {} is named twice", value.get_ref());
                self.blame(Problem::at(value.span(), text));
            }
        }
        part.into_iter().map(Spanned::into_inner).collect()
    }

    fn timeouts(&mut self, part: &document::Timeouts) -> Timeouts {
        let mut one = |value: &Option<Spanned<u32>>, default_s| match value {
            None => default_s,
            Some(value) => {
                let timeout_s = *value.get_ref();
                if !(1..=TIMEOUT_MAX_S).contains(&timeout_s) {
                    let text = format!("a timeout is 1 to {TIMEOUT_MAX_S} s");
                    self.problems.push(Problem::at(value.span(), text));
                }
                timeout_s
            }
        };
        Timeouts {
            tcp_s: one(&part.tcp_s, TIMEOUTS.tcp_s),
            tcp_fin_s: one(&part.tcp_fin_s, TIMEOUTS.tcp_fin_s),
            udp_s: one(&part.udp_s, TIMEOUTS.udp_s),
        }
    }

    fn tunables(
        &mut self,
        part: std::collections::BTreeMap<Spanned<String>, Spanned<Value>>,
        judge: Judge<'_>,
    ) -> Tunables {
        let mut tunables = Tunables::new();
        for (name, value) in part {
            let text = match value.get_ref() {
                Value::String(text) => text.clone(),
                Value::Boolean(switch) => u8::from(*switch).to_string(),
                other => other.to_string(),
            };
            let short = name.get_ref().trim_start_matches("net.ipv4.vs.");
            match judge(short, &text) {
                Ok(()) => _ = tunables.insert(short.to_owned(), text),
                Err(refusal @ Refusal::NoSuchTunable { .. }) => {
                    self.blame(Problem::at(name.span(), refusal.to_string()));
                }
                Err(refusal) => self.blame(Problem::at(value.span(), refusal.to_string())),
            }
        }
        tunables
    }

    fn marks(&mut self, parts: &[document::Mark]) -> Vec<FwmarkRule> {
        let mut rules: Vec<_> = parts.iter().filter_map(|part| self.mark(part)).collect();
        rules.sort();
        rules
    }

    fn prefixes(&mut self, part: &document::Prefixes) -> Arc<Prefixes> {
        let mut prefixes = Prefixes::new();
        for (guard, list) in [(Guard::Allow, &part.allow), (Guard::Deny, &part.deny)] {
            for text in list {
                match text.get_ref().parse() {
                    Err::<Prefix, _>(error) => {
                        self.blame(Problem::at(text.span(), error.to_string()))
                    }
                    Ok(prefix) => match prefixes.insert(prefix, guard) {
                        Some(before) if before != guard => {
                            let what = format!("{prefix} is both let in and kept out");
                            self.blame(Problem::at(text.span(), what));
                        }
                        _ => {}
                    },
                }
            }
        }
        Arc::new(prefixes)
    }

    fn mark(&mut self, part: &document::Mark) -> Option<FwmarkRule> {
        let mark = self.mark_number(&part.mark);
        let address = self.parsed::<IpAddr>(&part.address, "IPv4 or IPv6 address");
        let protocol = self.named(&part.protocol, "protocol", &PROTOCOLS);
        let ports = part.ports.get_ref().clone();
        if ports.is_empty() {
            let problem = Problem::at(part.ports.span(), "no ports").help("0 stands for every");
            self.blame(problem);
        }
        Some(FwmarkRule {
            mark: mark?,
            address: address?,
            protocol: protocol?,
            ports,
        })
    }

    fn mark_number(&mut self, mark: &Spanned<u32>) -> Option<NonZeroU32> {
        let number = NonZeroU32::new(*mark.get_ref());
        if number.is_none() {
            let problem = Problem::at(mark.span(), "0 is no firewall mark");
            self.blame(problem.help("a mark is 1 to 4294967295"));
        }
        number
    }

    fn service(&mut self, part: &Spanned<document::Service>) -> Option<Service> {
        let (key, place) = self.service_key(part)?;
        let part = part.get_ref();
        if let Some(first) = self.placed.get(&key) {
            let problem = Problem::at(place, "this service stands twice in the file");
            let first = Some(first.clone());
            self.blame(Problem { first, ..problem });
            return None;
        }
        self.placed.insert(key, place.clone());
        let spec = self.service_spec(key, part)?;
        let add = Command::AddService {
            service: key,
            spec: spec.clone(),
        };
        if let Err(refusal) = self.trial.draft(&add, 0, &mut self.drafts) {
            self.blame(Problem::at(place, refusal.to_string()));
            return None;
        }
        let limits = self.limits(key, part.limits.as_ref());
        let servers = part.server.iter();
        let servers = servers.filter_map(|server| self.server(key, server));
        let servers = servers.collect();
        Some(Service {
            key,
            spec,
            limits,
            servers,
        })
    }

    fn service_key(
        &mut self,
        part: &Spanned<document::Service>,
    ) -> Option<(ServiceKey, Range<usize>)> {
        let whole = part.span();
        let part = part.get_ref();
        match (&part.address, &part.fwmark) {
            (Some(address), None) => {
                let place = address.span();
                let protocol = match &part.protocol {
                    Some(protocol) => self.named(protocol, "protocol", &PROTOCOLS),
                    None => Some(Protocol::Tcp),
                };
                let (address, port) = self.endpoint(address)?;
                let Some(port) = port else {
                    let problem = Problem::at(place, "an address without a port");
                    self.blame(problem.help("write ADDRESS:PORT, for IPv6 [ADDRESS]:PORT"));
                    return None;
                };
                let key = ServiceKey::Address {
                    protocol: protocol?,
                    address,
                    port,
                };
                Some((key, place))
            }
            (None, Some(fwmark)) => {
                if let Some(protocol) = &part.protocol {
                    let problem = Problem::at(protocol.span(), "a fwmark service has no protocol");
                    self.blame(problem.help("it takes what bears the mark: leave it out"));
                }
                let mark = self.mark_number(fwmark)?;
                let family = if part.ipv6 { Family::V6 } else { Family::V4 };
                Some((ServiceKey::Fwmark { mark, family }, fwmark.span()))
            }
            (Some(address), Some(_)) => {
                let problem = Problem::at(address.span(), "both an address and a fwmark");
                self.blame(problem.help("a service is found by one of them"));
                None
            }
            (None, None) => {
                let problem = Problem::at(whole, "a service without an address");
                self.blame(problem.help("address = \"ADDRESS:PORT\", or fwmark = MARK"));
                None
            }
        }
    }

    fn service_spec(&mut self, key: ServiceKey, part: &document::Service) -> Option<ServiceSpec> {
        let scheduler = match &part.scheduler {
            Some(name) => {
                let known: Vec<_> = scheduler::names().map(|name| (name, ())).collect();
                self.named(name, "scheduler", &known)?;
                name.get_ref().clone()
            }
            None => SCHEDULER.to_owned(),
        };
        let is_udp =
            !matches!(key, ServiceKey::Address { protocol, .. } if protocol != Protocol::Udp);
        if part.one_packet && !is_udp {
            let place = self.placed[&key].clone();
            self.blame(Problem::at(place, "one_packet is for UDP services only"));
        }
        Some(ServiceSpec {
            flags: self.flags(&part.flags, &scheduler),
            persistence: part.persistent_s.as_ref().map(|timeout_s| Persistence {
                timeout_s: *timeout_s.get_ref(),
            }),
            netmask: self.netmask(key.family(), part.netmask.as_ref())?,
            one_packet: part.one_packet,
            engine: match &part.engine {
                Some(name) => {
                    self.named(name, "persistence engine", &[("sip", ())])?;
                    Some(name.get_ref().clone())
                }
                None => None,
            },
            scheduler,
        })
    }

    fn limits(
        &mut self,
        service: ServiceKey,
        part: Option<&Spanned<document::Limits>>,
    ) -> ServiceLimits {
        let default = ServiceLimits::default();
        let Some(part) = part else {
            return default;
        };
        let typed = part.get_ref();
        let limits = ServiceLimits {
            connections_per_s: typed.connections_per_s,
            source_connections_per_s: typed.source_connections_per_s,
            source_v4_bits: typed.source_v4_bits.unwrap_or(default.source_v4_bits),
            source_v6_bits: typed.source_v6_bits.unwrap_or(default.source_v6_bits),
        };
        let command = Command::LimitService { service, limits };
        if let Err(refusal) = self.trial.draft(&command, 0, &mut self.drafts) {
            self.blame(Problem::at(part.span(), refusal.to_string()));
        }
        limits
    }

    fn flags(&mut self, names: &[Spanned<String>], scheduler: &str) -> SchedulerFlags {
        let mut bits = 0;
        for name in names {
            match flags::parse(name.get_ref(), scheduler) {
                Ok(flag) => bits |= flag.0,
                Err(failure) => {
                    let known: Vec<_> = flags::names().collect();
                    let problem = Problem::at(name.span(), failure.message);
                    self.blame(problem.help(format!("there are {}", known.join(", "))));
                }
            }
        }
        SchedulerFlags(bits)
    }

    /// A mask such as "255.255.255.0", or a length such as 24.
    fn netmask(&mut self, family: Family, part: Option<&Spanned<Value>>) -> Option<u32> {
        let Some(part) = part else {
            return Some(match family {
                Family::V4 => u32::MAX,
                Family::V6 => 128,
            });
        };
        let mask = match (family, part.get_ref()) {
            (Family::V4, Value::String(text)) => text.parse().ok().map(Ipv4Addr::to_bits),
            (Family::V4, &Value::Integer(bits @ 0..=32)) => {
                Some(u32::MAX.checked_shl(32 - bits as u32).unwrap_or(0))
            }
            (Family::V6, &Value::Integer(bits @ 1..=128)) => Some(bits as u32),
            _ => None,
        };
        if mask.is_none() {
            let text = match family {
                Family::V4 => "an IPv4 netmask is a mask such as \"255.255.255.0\", or 0 to 32",
                Family::V6 => "an IPv6 netmask is 1 to 128",
            };
            self.blame(Problem::at(part.span(), text));
        }
        mask
    }

    fn server(
        &mut self,
        service: ServiceKey,
        part: &document::Server,
    ) -> Option<(ServerKey, ServerSpec)> {
        let forwarding = self.forwarding(part)?;
        let (address, port) = self.endpoint(&part.address)?;
        let keeps_port = forwarding != Forwarding::Masquerade;
        if let Some(port) = port
            && keeps_port
            && port != service.port()
            && matches!(service, ServiceKey::Address { .. })
        {
            let text = "only NAT changes the port: this server gets the service's own";
            let problem = Problem::at(part.address.span(), text);
            self.blame(problem.help("leave the port out, or forwarding = \"nat\""));
            return None;
        }
        let key = ServerKey {
            address,
            port: port.unwrap_or(service.port()),
        };
        let number = |part: &Option<Spanned<u32>>, default| match part {
            Some(number) => *number.get_ref(),
            None => default,
        };
        let spec = ServerSpec {
            forwarding,
            weight: number(&part.weight, 1),
            upper_threshold: number(&part.upper, 0),
            lower_threshold: number(&part.lower, 0),
        };
        let add = Command::AddServer {
            service,
            server: key,
            spec,
        };
        match self.trial.draft(&add, 0, &mut self.drafts) {
            Ok(_) => Some((key, spec)),
            Err(refusal) => {
                self.blame(Problem::at(part.address.span(), refusal.to_string()));
                None
            }
        }
    }

    fn forwarding(&mut self, part: &document::Server) -> Option<Forwarding> {
        let method = match &part.forwarding {
            Some(name) => {
                self.named(name, "forwarding method", &FORWARDINGS)?;
                name.get_ref().as_str()
            }
            None if part.tunnel.is_some() => "tunnel",
            None => "route",
        };
        let tunnel_words = [
            part.tunnel.as_ref().map(Spanned::span),
            part.tunnel_port.as_ref().map(Spanned::span),
            part.tunnel_checksum.as_ref().map(Spanned::span),
        ];
        if let Some(span) = tunnel_words.into_iter().flatten().next()
            && method != "tunnel"
        {
            let text = format!("a tunnel's setting, but the server's forwarding is {method}");
            self.blame(Problem::at(span, text).help("forwarding = \"tunnel\""));
            return None;
        }
        match method {
            "nat" => Some(Forwarding::Masquerade),
            "route" => Some(Forwarding::Route),
            _ => self.tunnel(part).map(Forwarding::Tunnel),
        }
    }

    fn tunnel(&mut self, part: &document::Server) -> Option<Tunnel> {
        let checksum = match &part.tunnel_checksum {
            Some(name) => self.named(name, "tunnel checksum", &CHECKSUMS)?,
            None => TunnelChecksum::None,
        };
        let Some(kind) = &part.tunnel else {
            return Some(Tunnel::Ipip);
        };
        self.named(kind, "tunnel", &TUNNELS)?;
        match (kind.get_ref().as_str(), &part.tunnel_port) {
            ("gue", Some(port)) => Some(Tunnel::Gue {
                port: *port.get_ref(),
                checksum,
            }),
            ("gue", None) => {
                let problem = Problem::at(kind.span(), "a GUE tunnel without a UDP port");
                self.blame(problem.help("tunnel_port = 6080, or what the server listens on"));
                None
            }
            (_, Some(port)) => {
                self.blame(Problem::at(port.span(), "only GUE tunnels have a port"));
                None
            }
            ("gre", None) => Some(Tunnel::Gre { checksum }),
            (_, None) => Some(Tunnel::Ipip),
        }
    }

    /// `ADDRESS[:PORT]`, an IPv6 address with a port in brackets. No host names: a director
    /// must start without a resolver.
    fn endpoint(&mut self, text: &Spanned<String>) -> Option<(IpAddr, Option<u16>)> {
        let typed = text.get_ref();
        if let Ok(address) = typed.parse::<IpAddr>() {
            return Some((address, None));
        }
        if let Ok(both) = typed.parse::<std::net::SocketAddr>() {
            return Some((both.ip(), Some(both.port())));
        }
        let problem = Problem::at(text.span(), format!("`{typed}` is no ADDRESS:PORT"));
        self.blame(problem.help("such as \"10.0.0.1:80\" or \"[fd00::1]:80\"; no names"));
        None
    }

    fn parsed<T: std::str::FromStr>(&mut self, text: &Spanned<String>, what: &str) -> Option<T> {
        let typed = text.get_ref();
        let parsed = typed.parse().ok();
        if parsed.is_none() {
            self.blame(Problem::at(text.span(), format!("`{typed}` is no {what}")));
        }
        parsed
    }

    fn named<T: Copy>(
        &mut self,
        name: &Spanned<String>,
        what: &str,
        known: &[(&str, T)],
    ) -> Option<T> {
        let typed = name.get_ref();
        let found = known.iter().find(|(name, _)| name == typed);
        if found.is_none() {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            let help = match nearest(typed, names.iter().copied()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("there are {}", names.join(", ")),
            };
            let problem = Problem::at(name.span(), format!("no {what} is called `{typed}`"));
            self.blame(problem.help(help));
        }
        found.map(|(_, value)| *value)
    }
}
