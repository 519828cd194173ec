//! Arguments as meant: from options to a [`Request`], with ipvsadm's checks in ipvsadm's
//! order, so that a line with several faults gets the same message.

use sched::command::Command;
use sched::server::{Forwarding, ServerKey, ServerSpec, Tunnel, TunnelChecksum};
use sched::service::{Family, Protocol, ServiceKey, ServiceSpec};

use super::draft::{self, Draft, Method};
use super::failure::Failure;
use super::flags;
use super::legality::{self, TunnelKind};
use super::names::Names;
use super::request::{Columns, DaemonRole, DaemonSpec, Format, Listing, Request};
use super::slot::{Slot, Slots};
use super::typed::{Splitter, Typed};
use super::words::{Meaning, Verb};

/// `-s`, where it is not typed.
const DEFAULT_SCHEDULER: &str = "wlc";

/// Reads a line. `program` is the name that messages call us by; `words` come after it.
/// No words at all ask for the plain listing.
pub fn parse(program: &str, words: &[String], names: &dyn Names) -> Result<Request, Failure> {
    if words.is_empty() {
        return Ok(Request::List(Listing::Services, Format::default()));
    }
    let mut splitter = Splitter::new(words);
    let (verb, value) = match splitter.next_option() {
        Ok(Some(Typed {
            meaning: Meaning::Verb(verb),
            value,
        })) => (verb, value),
        _ => return Err(Failure::try_help(program)),
    };
    match verb {
        Verb::Help => return Ok(Request::Help),
        Verb::Version => return Ok(Request::Version),
        _ => {}
    }
    let role = daemon_role(verb, value)?;
    let draft = read_options(&mut splitter, names)?;
    let rest = splitter.into_rest();
    let timeouts_s = split_timeouts(verb, &rest)?;
    let flags = flags::parse(&draft.scheduler_flags, scheduler(&draft))?;
    legality::check_command(verb, draft.filled)?;
    let line = Line {
        draft,
        flags,
        role,
        timeouts_s,
    };
    line.request(verb)
}

fn daemon_role(verb: Verb, value: Option<&str>) -> Result<DaemonRole, Failure> {
    let message = match verb {
        Verb::StartDaemon => "illegal start-daemon parameter specified",
        Verb::StopDaemon => "illegal start_daemon specified",
        _ => return Ok(DaemonRole::Master),
    };
    DaemonRole::named(value.unwrap_or_default()).ok_or_else(|| Failure::usage(message))
}

fn read_options(splitter: &mut Splitter<'_>, names: &dyn Names) -> Result<Draft, Failure> {
    let mut draft = Draft::default();
    loop {
        match splitter.next_option() {
            Ok(None) => return Ok(draft),
            Ok(Some(Typed {
                meaning: Meaning::Flag(flag),
                value,
            })) => draft.take(flag, value, names)?,
            Ok(Some(_)) => {
                let word = splitter.last_word();
                return Err(Failure::usage(format!("invalid option `{word}'")));
            }
            Err(unreadable) => {
                let word = splitter.last_word();
                return Err(Failure::refused(format!("{word}: {}", unreadable.text())));
            }
        }
    }
}

/// The three timeouts of `--set`; nothing else may stand without an option's name.
fn split_timeouts(verb: Verb, rest: &[&str]) -> Result<[u32; 3], Failure> {
    let mut timeouts_s = [0; 3];
    let mut rest = rest;
    if verb == Verb::SetTimeouts {
        let Some((three, others)) = rest.split_at_checked(3) else {
            return Err(Failure::usage("--set option requires 3 timeout values"));
        };
        for (timeout_s, text) in timeouts_s.iter_mut().zip(three) {
            *timeout_s = draft::parse_timeout(text, 0)?;
        }
        rest = others;
    }
    match rest.first() {
        Some(word) => Err(Failure::usage(format!("unexpected argument {word}"))),
        None => Ok(timeouts_s),
    }
}

fn scheduler(draft: &Draft) -> &str {
    match draft.scheduler.as_str() {
        "" => DEFAULT_SCHEDULER,
        name => name,
    }
}

/// A line whose options may stand together.
struct Line {
    draft: Draft,
    flags: sched::service::SchedulerFlags,
    role: DaemonRole,
    timeouts_s: [u32; 3],
}

impl Line {
    fn request(self, verb: Verb) -> Result<Request, Failure> {
        let command = match verb {
            Verb::Help => return Ok(Request::Help),
            Verb::Version => return Ok(Request::Version),
            Verb::Restore => return Ok(Request::Restore),
            Verb::List => return self.listing(),
            Verb::Save => {
                let numeric = self.draft.filled.has(Slot::Numeric);
                return Ok(Request::Save { numeric });
            }
            Verb::StartDaemon => return Ok(Request::StartDaemon(self.daemon())),
            Verb::StopDaemon => {
                return Ok(Request::StopDaemon {
                    role: self.role,
                    sync_id: self.draft.sync_id,
                });
            }
            Verb::Flush => Command::Flush,
            Verb::Zero => Command::Zero {
                service: self.draft.service_key(),
            },
            Verb::SetTimeouts => {
                let [tcp_s, tcp_fin_s, udp_s] = self.timeouts_s;
                Command::SetTimeouts {
                    tcp_s,
                    tcp_fin_s,
                    udp_s,
                }
            }
            Verb::AddService => {
                let (service, spec) = self.service()?;
                Command::AddService { service, spec }
            }
            Verb::EditService => {
                let (service, spec) = self.service()?;
                Command::EditService { service, spec }
            }
            Verb::DeleteService => Command::DeleteService {
                service: self.service_key()?,
            },
            Verb::AddServer => {
                let (service, server, spec) = self.server()?;
                Command::AddServer {
                    service,
                    server,
                    spec,
                }
            }
            Verb::EditServer => {
                let (service, server, spec) = self.server()?;
                Command::EditServer {
                    service,
                    server,
                    spec,
                }
            }
            Verb::DeleteServer => Command::DeleteServer {
                service: self.service_key()?,
                server: self.server_key()?,
            },
        };
        Ok(Request::Change(command))
    }

    /// [`legality`] has seen to it that the line names a service.
    fn service_key(&self) -> Result<ServiceKey, Failure> {
        self.draft
            .service_key()
            .ok_or_else(|| Failure::usage("illegal virtual server address[:port] specified"))
    }

    /// [`legality`] has seen to it that the line names a server.
    fn server_key(&self) -> Result<ServerKey, Failure> {
        self.draft
            .server
            .ok_or_else(|| Failure::usage("illegal real server address[:port] specified"))
    }

    fn service(self) -> Result<(ServiceKey, ServiceSpec), Failure> {
        let key = self.service_key()?;
        if let ServiceKey::Address { protocol, port, .. } = key {
            if port == 0 && self.draft.persistence.is_none() {
                return Err(Failure::usage(
                    "Zero port specified for non-persistent service",
                ));
            }
            if self.draft.one_packet && protocol != Protocol::Udp {
                return Err(Failure::usage(
                    "One-Packet Scheduling is only for UDP virtual services",
                ));
            }
        }
        let spec = ServiceSpec {
            scheduler: scheduler(&self.draft).to_owned(),
            flags: self.flags,
            persistence: self.draft.persistence,
            netmask: self.draft.netmask,
            one_packet: self.draft.one_packet,
            engine: self.draft.engine,
        };
        Ok((key, spec))
    }

    fn server(self) -> Result<(ServiceKey, ServerKey, ServerSpec), Failure> {
        let service = self.service_key()?;
        let mut server = self.server_key()?;
        let draft = &self.draft;
        if draft.mark.is_none() && draft.method != Method::Masquerade {
            server.port = service.port();
        }
        if Family::of(server.address) != service.family() && draft.method != Method::Tunnel {
            return Err(Failure::usage(
                "Different address family is allowed only for tunneling servers",
            ));
        }
        let spec = ServerSpec {
            forwarding: forwarding(draft)?,
            weight: draft.weight,
            upper_threshold: draft.upper_threshold,
            lower_threshold: draft.lower_threshold,
        };
        Ok((service, server, spec))
    }

    fn daemon(self) -> DaemonSpec {
        DaemonSpec {
            role: self.role,
            interface: self.draft.interface,
            sync_id: self.draft.sync_id,
            max_length_bytes: self.draft.sync_max_length_bytes,
            group: self.draft.group,
            port: self.draft.group_port,
            ttl: self.draft.group_ttl,
        }
    }

    fn listing(self) -> Result<Request, Failure> {
        const OTHER_THAN_SERVICES: Slots =
            Slots::of(&[Slot::Connection, Slot::Timeout, Slot::Daemon]);
        const COUNTING: Slots = Slots::of(&[Slot::Stats, Slot::Rate, Slot::Thresholds]);
        const NEITHER: Slots = Slots::of(&[Slot::Timeout, Slot::Daemon]);
        let filled = self.draft.filled;
        let conflict = filled.meets(OTHER_THAN_SERVICES) && filled.meets(COUNTING)
            || filled.meets(NEITHER) && filled.has(Slot::PersistentConn);
        if conflict {
            return Err(Failure::usage("options conflicts in the list command"));
        }
        let listing = match self.draft.service_key() {
            Some(service) => Listing::Service(service),
            None if filled.has(Slot::Connection) => Listing::Connections,
            None if filled.has(Slot::Timeout) => Listing::Timeouts,
            None if filled.has(Slot::Daemon) => Listing::Daemons,
            None => Listing::Services,
        };
        let format = Format {
            columns: columns(filled),
            numeric: filled.has(Slot::Numeric),
            exact: filled.has(Slot::Exact),
            unsorted: filled.has(Slot::NoSort),
            persistent_conn: filled.has(Slot::PersistentConn),
        };
        Ok(Request::List(listing, format))
    }
}

fn columns(filled: Slots) -> Columns {
    const PRECEDENCE: [(Slot, Columns); 5] = [
        (Slot::Stats, Columns::Stats),
        (Slot::Rate, Columns::Rate),
        (Slot::Thresholds, Columns::Thresholds),
        (Slot::PersistentConn, Columns::PersistentConn),
        (Slot::TunnelInfo, Columns::TunnelInfo),
    ];
    let asked = PRECEDENCE.into_iter().find(|(slot, _)| filled.has(*slot));
    asked.map_or(Columns::Plain, |(_, columns)| columns)
}

fn forwarding(draft: &Draft) -> Result<Forwarding, Failure> {
    const TUNNEL: Slots = Slots::of(&[
        Slot::TunnelType,
        Slot::TunnelPort,
        Slot::TunnelNoChecksum,
        Slot::TunnelChecksum,
        Slot::TunnelRemoteChecksum,
    ]);
    if draft.method != Method::Tunnel && draft.filled.meets(TUNNEL) {
        return Err(Failure::usage(
            "Tunnel options conflict with forward method",
        ));
    }
    match draft.method {
        Method::Masquerade => Ok(Forwarding::Masquerade),
        Method::Route => Ok(Forwarding::Route),
        Method::Tunnel => {
            legality::check_tunnel(draft.tunnel, draft.filled)?;
            Ok(Forwarding::Tunnel(tunnel(
                draft.tunnel,
                draft.tunnel_port,
                draft.tunnel_checksum,
            )))
        }
    }
}

fn tunnel(kind: TunnelKind, port: u16, checksum: TunnelChecksum) -> Tunnel {
    match kind {
        TunnelKind::Ipip => Tunnel::Ipip,
        TunnelKind::Gue => Tunnel::Gue { port, checksum },
        TunnelKind::Gre => Tunnel::Gre { checksum },
    }
}

#[cfg(test)]
mod tests;
