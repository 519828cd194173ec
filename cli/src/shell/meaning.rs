//! From words to an [`Action`].

use sched::command::{Command, FwmarkRule};
use sched::server::{Forwarding, ServerSpec, Tunnel, TunnelChecksum};
use sched::service::{Family, Persistence, Protocol, SchedulerFlags, ServiceKey, ServiceSpec};

use super::action::{Action, Change, Columns, Filter, ServerEdit, ServiceEdit, Show, What, Which};
use super::fault::{Fault, nearest};
use super::grammar::Kind;
use super::matcher::{Got, Place, Terminal};
use super::tokens::{self, Token};
use super::values;
use crate::adm::Names;

/// `persistent` without a time, s (as ipvsadm's `-p`).
const PERSISTENCE_DEFAULT_S: u32 = 360;
/// 31 days, s: the longest persistence that IPVS takes.
const PERSISTENCE_MAX_S: u32 = 31 * 24 * 3600;

/// Reads a line.
pub fn parse(line: &str, names: &dyn Names) -> Result<Action, Fault> {
    let mut tokens = tokens::split(line)?;
    if let Some(words) = adm_words(&tokens) {
        return Ok(Action::Adm(words));
    }
    // Habit types it with dashes.
    for token in tokens.iter_mut().filter(|token| token.text == "--json") {
        token.text = "json".to_owned();
    }
    if tokens.is_empty() {
        return Ok(Action::Nothing);
    }
    let (place, fault) = Place::follow_far(&tokens);
    let expected = place.expected();
    let words = Words {
        gotten: &place.gotten,
        names,
    };
    if let Some(fault) = fault {
        // What is wrong first is said first.
        words.check_values()?;
        return Err(fault);
    }
    if !expected.may_end {
        words.check_values()?;
        return Err(Fault::at(line.len()..line.len(), expected.missing()));
    }
    words.action()
}

/// A line in ipvsadm's own words.
pub fn adm_words(tokens: &[Token]) -> Option<Vec<String>> {
    let first = tokens.first()?;
    let skip = usize::from(first.text == "ipvsadm");
    if skip == 0 && !first.text.starts_with('-') {
        return None;
    }
    Some(tokens[skip..].iter().map(|t| t.text.clone()).collect())
}

/// The words of a whole line.
struct Words<'a> {
    gotten: &'a [Got],
    names: &'a dyn Names,
}

impl Words<'_> {
    fn action(&self) -> Result<Action, Fault> {
        Ok(match self.word(0) {
            "show" => Action::Show(self.show(1)?),
            "watch" => self.watch()?,
            "add" => Action::Change(self.add()?),
            "edit" if self.gotten.len() == 1 => Action::Edit,
            "edit" => Action::Change(self.edit()?),
            "delete" => Action::Change(self.delete()?),
            "drain" => Action::Change(self.drain()?),
            "set" => Action::Change(Change::Command(self.set()?)),
            "fwmark" => self.fwmark()?,
            "zero" => Action::Change(Change::Command(self.zero()?)),
            "clear" => Action::Change(Change::Command(Command::Flush)),
            "diff" => Action::Diff {
                json: self.has("json"),
            },
            "commit" => Action::Commit {
                confirm_within_s: self.after("confirmed").map(values::confirm_s).transpose()?,
            },
            "confirm" => Action::Confirm,
            "return" => Action::Return,
            "discard" => Action::Discard,
            "help" => Action::Help,
            _ => Action::Quit,
        })
    }

    /// The fixed word at a place; empty where there is another.
    fn word(&self, place: usize) -> &'static str {
        match self.gotten.get(place).map(|got| got.terminal) {
            Some(Terminal::Word(word)) => word.name,
            _ => "",
        }
    }

    fn has(&self, name: &str) -> bool {
        (0..self.gotten.len()).any(|place| self.word(place) == name)
    }

    /// The value after a fixed word.
    fn after(&self, name: &str) -> Option<&Got> {
        let place = (0..self.gotten.len()).find(|&place| self.word(place) == name)?;
        let got = self.gotten.get(place + 1)?;
        matches!(got.terminal, Terminal::Value(_)).then_some(got)
    }

    fn value(&self, wanted: Kind) -> Option<&Got> {
        self.gotten.iter().find(|got| kind(got) == Some(wanted))
    }

    /// Values that can be judged alone, where the line goes wrong later.
    fn check_values(&self) -> Result<(), Fault> {
        for got in self.gotten {
            match kind(got) {
                Some(Kind::Scheduler) => _ = values::scheduler(got)?,
                Some(Kind::NewMark | Kind::ServiceMark) => _ = values::mark(got)?,
                Some(Kind::Persistence) => _ = self.persistence_s(got)?,
                Some(Kind::Number) => _ = values::count(got)?,
                Some(Kind::Seconds) => _ = values::number(got, 1, u32::MAX)?,
                _ => {}
            }
        }
        self.service().map(|_| ())
    }

    /// The service that the line names.
    fn service(&self) -> Result<Option<ServiceKey>, Fault> {
        for (place, got) in self.gotten.iter().enumerate() {
            match kind(got) {
                Some(Kind::NewService | Kind::Service) => {
                    let protocol = protocol(self.word(place - 1));
                    let (address, port) = values::service(got, protocol, self.names)?;
                    return Ok(Some(ServiceKey::Address {
                        protocol,
                        address,
                        port,
                    }));
                }
                Some(Kind::NewMark | Kind::ServiceMark) => {
                    let family = match self.word(place + 1) {
                        "ipv6" => Family::V6,
                        _ => Family::V4,
                    };
                    let mark = values::mark(got)?;
                    return Ok(Some(ServiceKey::Fwmark { mark, family }));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// The grammar has seen to it that there is one.
    fn the_service(&self) -> Result<ServiceKey, Fault> {
        let service = self.service()?;
        service.ok_or_else(|| Fault::whole("which service?"))
    }

    fn which(&self, service: Option<ServiceKey>) -> Result<Option<Which>, Fault> {
        let servers = [Kind::Server, Kind::AnyServer, Kind::NewServer];
        let Some(got) = servers.into_iter().find_map(|kind| self.value(kind)) else {
            return Ok(None);
        };
        let protocol = service.map_or(Some(Protocol::Tcp), |key| match key {
            ServiceKey::Address { protocol, .. } => Some(protocol),
            ServiceKey::Fwmark { .. } => None,
        });
        let (address, port) = values::server(got, protocol, self.names)?;
        Ok(Some(Which { address, port }))
    }

    fn the_server(&self, service: ServiceKey) -> Result<Which, Fault> {
        let which = self.which(Some(service))?;
        which.ok_or_else(|| Fault::whole("which server?"))
    }

    fn add(&self) -> Result<Change, Fault> {
        let service = self.the_service()?;
        if self.word(1) == "service" {
            let spec = self.service_edit(service)?.apply(&default_spec(service));
            self.check_service(service, &spec)?;
            return Ok(Change::Command(Command::AddService { service, spec }));
        }
        let spec = self.server_edit()?.apply(DEFAULT_SERVER);
        let got = self.value(Kind::NewServer);
        let got = got.ok_or_else(|| Fault::whole("which server?"))?;
        let protocol = match service {
            ServiceKey::Address { protocol, .. } => Some(protocol),
            ServiceKey::Fwmark { .. } => None,
        };
        let server = values::server_key(got, protocol, service.port(), self.names)?;
        let by_address = matches!(service, ServiceKey::Address { .. });
        let translated = spec.forwarding == Forwarding::Masquerade;
        if by_address && !translated && server.port != service.port() {
            let message = "only nat can change the port; leave the port out, or add `nat`";
            return Err(Fault::at(got.token.span.clone(), message));
        }
        let tunnelled = matches!(spec.forwarding, Forwarding::Tunnel(_));
        if Family::of(server.address) != service.family() && !tunnelled {
            let message = "a server of the other address family is reached by `tunnel` only";
            return Err(Fault::at(got.token.span.clone(), message));
        }
        Ok(Change::Command(Command::AddServer {
            service,
            server,
            spec,
        }))
    }

    fn check_service(&self, service: ServiceKey, spec: &ServiceSpec) -> Result<(), Fault> {
        let ServiceKey::Address { protocol, port, .. } = service else {
            return Ok(());
        };
        let at = |place: Option<&Got>, message: &str| match place {
            Some(got) => Fault::at(got.token.span.clone(), message),
            None => Fault::whole(message),
        };
        if port == 0 && spec.persistence.is_none() {
            let message = "port 0 is every port, which needs persistence: add `persistent`";
            return Err(at(self.value(Kind::NewService), message));
        }
        if spec.one_packet && protocol != Protocol::Udp {
            let place = self
                .gotten
                .iter()
                .find(|got| got.terminal.name() == "one-packet");
            return Err(at(place, "one-packet scheduling is for UDP services only"));
        }
        Ok(())
    }

    fn edit(&self) -> Result<Change, Fault> {
        let service = self.the_service()?;
        if self.word(1) == "service" {
            let edit = self.service_edit(service)?;
            return Ok(Change::EditService(service, edit));
        }
        let server = self.the_server(service)?;
        Ok(Change::EditServer(service, server, self.server_edit()?))
    }

    fn delete(&self) -> Result<Change, Fault> {
        let service = self.the_service()?;
        Ok(match self.word(1) {
            "service" => Change::Command(Command::DeleteService { service }),
            _ => Change::DeleteServer(service, self.the_server(service)?),
        })
    }

    fn drain(&self) -> Result<Change, Fault> {
        let service = self.the_service()?;
        let edit = ServerEdit {
            weight: Some(0),
            ..ServerEdit::default()
        };
        Ok(Change::EditServer(service, self.the_server(service)?, edit))
    }

    fn service_edit(&self, service: ServiceKey) -> Result<ServiceEdit, Fault> {
        let scheduler = self.after("scheduler").map(values::scheduler).transpose()?;
        // An edit that names no scheduler keeps one that is not known here.
        let of = scheduler.as_deref().unwrap_or(match self.word(0) {
            "add" => DEFAULT_SCHEDULER,
            _ => "",
        });
        let flags = match self.after("flags") {
            Some(got) if of.is_empty() => Some(any_flags(got)?),
            Some(got) => Some(values::flags(got, of)?),
            None if self.has("no-flags") => Some(SchedulerFlags(0)),
            None => None,
        };
        let persistence = match self.after("persistent") {
            _ if self.has("not-persistent") => Some(None),
            Some(got) => Some(Some(self.persistence_s(got)?)),
            None => self
                .has("persistent")
                .then_some(Some(PERSISTENCE_DEFAULT_S)),
        };
        let engine = match self.after("engine") {
            Some(got) => Some(Some(values::engine(got)?)),
            None => self.has("no-engine").then_some(None),
        };
        let netmask = self.after("netmask");
        let netmask = netmask.map(|got| values::netmask(got, service.family()));
        let one_packet = self.has("one-packet").then_some(true);
        Ok(ServiceEdit {
            scheduler,
            flags,
            persistence: persistence.map(|p| p.map(|timeout_s| Persistence { timeout_s })),
            netmask: netmask.transpose()?,
            one_packet: one_packet.or(self.has("not-one-packet").then_some(false)),
            engine,
        })
    }

    /// Where no time stands, a misspelt word is likelier than a misspelt number.
    fn persistence_s(&self, got: &Got) -> Result<u32, Fault> {
        values::number(got, 1, PERSISTENCE_MAX_S).map_err(|fault| {
            let words = ["scheduler", "netmask", "engine", "flags", "one-packet"];
            match nearest(&got.token.text, words) {
                Some(word) => Fault::at(
                    got.token.span.clone(),
                    format!(
                        "`{}` is not known here; did you mean `{word}`?",
                        got.token.text
                    ),
                ),
                None => fault,
            }
        })
    }

    fn server_edit(&self) -> Result<ServerEdit, Fault> {
        let count = |name| self.after(name).map(values::count).transpose();
        Ok(ServerEdit {
            forwarding: self.forwarding()?,
            weight: count("weight")?,
            upper_threshold: count("upper")?,
            lower_threshold: count("lower")?,
        })
    }

    fn forwarding(&self) -> Result<Option<Forwarding>, Fault> {
        if self.has("nat") {
            return Ok(Some(Forwarding::Masquerade));
        }
        if self.has("route") {
            return Ok(Some(Forwarding::Route));
        }
        if !self.has("tunnel") {
            return Ok(None);
        }
        let checksum = match (self.has("full"), self.has("remote")) {
            (true, _) => TunnelChecksum::Full,
            (_, true) => TunnelChecksum::Remote,
            _ => TunnelChecksum::None,
        };
        let tunnel = match self.after("gue") {
            Some(got) => Tunnel::Gue {
                port: values::port(got)?,
                checksum,
            },
            None if self.has("gre") => Tunnel::Gre { checksum },
            None => Tunnel::Ipip,
        };
        Ok(Some(Forwarding::Tunnel(tunnel)))
    }

    fn set(&self) -> Result<Command, Fault> {
        if self.word(1) == "timeouts" {
            let of = |name| match self.after(name) {
                Some(got) => values::number(got, 0, PERSISTENCE_MAX_S),
                None => Ok(0),
            };
            return Ok(Command::SetTimeouts {
                tcp_s: of("tcp")?,
                tcp_fin_s: of("tcpfin")?,
                udp_s: of("udp")?,
            });
        }
        let text = |kind| self.value(kind).map_or("", |got| got.token.text.as_str());
        let name = text(Kind::Tunable);
        Ok(Command::SetTunable {
            name: name.strip_prefix("net.ipv4.vs.").unwrap_or(name).to_owned(),
            value: text(Kind::Setting).to_owned(),
        })
    }

    fn fwmark(&self) -> Result<Action, Fault> {
        if self.word(1) == "list" {
            return Ok(Action::Show(Show {
                json: self.has("json"),
                ..Show::all(What::Fwmarks)
            }));
        }
        let missing = || Fault::whole("which packets?");
        let value = |kind| self.value(kind).ok_or_else(missing);
        let rule = FwmarkRule {
            mark: values::mark(value(Kind::NewMark)?)?,
            address: values::address(value(Kind::Address)?)?,
            protocol: protocol(self.word(4)),
            ports: values::ports(value(Kind::Ports)?)?,
        };
        Ok(Action::Change(Change::Mark(self.word(1) == "add", rule)))
    }

    fn zero(&self) -> Result<Command, Fault> {
        let service = self.service()?;
        Ok(Command::Zero { service })
    }

    fn watch(&self) -> Result<Action, Fault> {
        let first = self
            .gotten
            .iter()
            .position(|got| got.terminal.name() == "show");
        let every = self.value(Kind::Seconds);
        Ok(Action::Watch {
            every_s: every.map_or(Ok(1), |got| values::number(got, 1, 86_400))?,
            count: match self.word(2) {
                "count" => self.after("count").map(values::count).transpose()?,
                _ => None,
            },
            show: self.show(first.unwrap_or_default() + 1)?,
        })
    }

    /// `from` is the place of what to show.
    fn show(&self, from: usize) -> Result<Show, Fault> {
        let service = self.service()?;
        let rest = Self {
            gotten: &self.gotten[from..],
            names: self.names,
        };
        let columns = match () {
            () if rest.has("stats") => Columns::Stats,
            () if rest.has("rates") => Columns::Rates,
            () if rest.has("thresholds") => Columns::Thresholds,
            () => Columns::Plain,
        };
        let what = match rest.word(0) {
            "services" => What::Services(columns),
            "servers" => What::Servers(columns),
            "connections" => What::Connections {
                limit: rest.after("limit").map(values::count).transpose()?,
                count: rest.has("count"),
            },
            "counters" => What::Counters {
                all: rest.has("all"),
            },
            "tunables" => {
                let name = rest.value(Kind::Tunable);
                What::Tunables(name.map(|got| got.token.text.clone()))
            }
            "fwmarks" => What::Fwmarks,
            "timeouts" => What::Timeouts,
            _ => What::Status,
        };
        let client = rest.value(Kind::Network).map(values::network).transpose()?;
        let state = match rest.value(Kind::State) {
            Some(got) => Some(got.token.text.to_uppercase()),
            None => ["ready", "drained"]
                .into_iter()
                .find(|name| rest.has(name))
                .map(str::to_owned),
        };
        Ok(Show {
            what,
            filter: Filter {
                service,
                server: rest.which(service)?,
                client,
                state,
            },
            json: rest.has("json"),
        })
    }
}

const DEFAULT_SCHEDULER: &str = "wlc";

const DEFAULT_SERVER: ServerSpec = ServerSpec {
    forwarding: Forwarding::Route,
    weight: 1,
    upper_threshold: 0,
    lower_threshold: 0,
};

fn default_spec(service: ServiceKey) -> ServiceSpec {
    ServiceSpec {
        scheduler: DEFAULT_SCHEDULER.to_owned(),
        flags: SchedulerFlags(0),
        persistence: None,
        netmask: match service.family() {
            Family::V4 => u32::MAX,
            Family::V6 => 128,
        },
        one_packet: false,
        engine: None,
    }
}

fn kind(got: &Got) -> Option<Kind> {
    match got.terminal {
        Terminal::Value(value) => Some(value.kind),
        Terminal::Word(_) => None,
    }
}

fn protocol(word: &str) -> Protocol {
    match word {
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

/// Flags of whichever scheduler has them.
fn any_flags(got: &Got) -> Result<SchedulerFlags, Fault> {
    let tries = ["sh", "mh"].map(|scheduler| values::flags(got, scheduler));
    let [first, second] = tries;
    first.or(second)
}

#[cfg(test)]
mod tests;
