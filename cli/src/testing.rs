//! A director in memory for tests: it refuses what IPVS refuses and keeps IPVS's order of
//! servers, so that recorded runs of the real ipvsadm can be replayed against it.

use std::net::IpAddr;
use std::ops::ControlFlow;

use sched::command::{Command, Refusal};
use sched::server::{ServerKey, ServerSpec};
use sched::service::{ServiceKey, ServiceSpec};

use crate::api::{ConnectionRow, Rates, ServerRow, ServiceRow, Stats, Table, Timeouts};
use crate::director::{Director, DirectorError};

const SCHEDULERS: &str = "rr wrr lc wlc lblc lblcr dh sh sed nq fo ovf mh twos";

/// A table without packets.
#[derive(Debug)]
pub struct MemoryDirector {
    /// The table.
    pub table: Table,
    /// The connections.
    pub connections: Vec<ConnectionRow>,
    /// How many batches came, and how long each was.
    pub batches: Vec<usize>,
}

impl Default for MemoryDirector {
    fn default() -> Self {
        Self {
            table: Table {
                version: "test".to_owned(),
                size: 4096,
                timeouts: Timeouts {
                    tcp_s: 900,
                    tcp_fin_s: 120,
                    udp_s: 300,
                },
                services: Vec::new(),
                daemons: Vec::new(),
            },
            connections: Vec::new(),
            batches: Vec::new(),
        }
    }
}

impl Director for MemoryDirector {
    fn execute(&mut self, commands: &[Command]) -> Result<Vec<Option<Refusal>>, DirectorError> {
        self.batches.push(commands.len());
        Ok(commands.iter().map(|c| self.apply(c).err()).collect())
    }

    fn table(&mut self) -> Result<Table, DirectorError> {
        Ok(self.table.clone())
    }

    fn connections(
        &mut self,
        each: &mut dyn FnMut(ConnectionRow) -> ControlFlow<()>,
    ) -> Result<(), DirectorError> {
        let _ = self.connections.iter().cloned().try_for_each(each);
        Ok(())
    }
}

impl MemoryDirector {
    /// Carries out one command.
    pub fn apply(&mut self, command: &Command) -> Result<(), Refusal> {
        match command {
            Command::AddService { service, spec } => self.add_service(*service, spec),
            Command::EditService { service, spec } => {
                let row = self.service(service)?;
                check_service(spec)?;
                row.spec = spec.clone();
                Ok(())
            }
            Command::LimitService { service, limits } => {
                self.service(service)?.limits = Some(*limits).filter(|l| !l.is_none());
                Ok(())
            }
            Command::DeleteService { service } => {
                self.service(service)?;
                self.table.services.retain(|row| row.service != *service);
                Ok(())
            }
            Command::Flush => {
                self.table.services.clear();
                Ok(())
            }
            Command::AddServer {
                service,
                server,
                spec,
            } => add_server(self.service(service)?, *server, *spec),
            Command::EditServer {
                service,
                server,
                spec,
            } => {
                let row = self.service(service)?;
                check_server(server, spec)?;
                find(row, server)?.spec = *spec;
                Ok(())
            }
            Command::DeleteServer { service, server } => {
                let row = self.service(service)?;
                find(row, server)?;
                row.servers.retain(|row| row.server != *server);
                Ok(())
            }
            Command::Zero { service: Some(key) } => self.service(key).map(|_| ()),
            Command::Zero { service: None } => Ok(()),
            Command::SetTimeouts {
                tcp_s,
                tcp_fin_s,
                udp_s,
            } => {
                let timeouts = &mut self.table.timeouts;
                keep_zero(&mut timeouts.tcp_s, *tcp_s);
                keep_zero(&mut timeouts.tcp_fin_s, *tcp_fin_s);
                keep_zero(&mut timeouts.udp_s, *udp_s);
                Ok(())
            }
            Command::SetTunable { name, .. } => Err(Refusal::NoSuchTunable { name: name.clone() }),
            Command::AddFwmark(_) | Command::DeleteFwmark(_) | Command::SetPrefixes { .. } => {
                Ok(())
            }
        }
    }

    fn add_service(&mut self, service: ServiceKey, spec: &ServiceSpec) -> Result<(), Refusal> {
        if self.service(&service).is_ok() {
            return Err(Refusal::ServiceExists);
        }
        check_service(spec)?;
        self.table.services.push(ServiceRow {
            service,
            spec: spec.clone(),
            limits: None,
            stats: Stats::default(),
            rates: Rates::default(),
            servers: Vec::new(),
        });
        Ok(())
    }

    fn service(&mut self, key: &ServiceKey) -> Result<&mut ServiceRow, Refusal> {
        let mut services = self.table.services.iter_mut();
        services
            .find(|row| row.service == *key)
            .ok_or(Refusal::NoSuchService)
    }
}

fn find<'a>(row: &'a mut ServiceRow, key: &ServerKey) -> Result<&'a mut ServerRow, Refusal> {
    let mut servers = row.servers.iter_mut();
    servers
        .find(|row| row.server == *key)
        .ok_or(Refusal::NoSuchServer)
}

fn add_server(row: &mut ServiceRow, server: ServerKey, spec: ServerSpec) -> Result<(), Refusal> {
    check_server(&server, &spec)?;
    if find(row, &server).is_ok() {
        return Err(Refusal::ServerExists);
    }
    let added = ServerRow {
        server,
        spec,
        local: false,
        active: 0,
        inactive: 0,
        persistent: 0,
        stats: Stats::default(),
        rates: Rates::default(),
    };
    row.servers.insert(0, added);
    Ok(())
}

fn check_service(spec: &ServiceSpec) -> Result<(), Refusal> {
    let known = SCHEDULERS.split(' ').any(|name| name == spec.scheduler);
    let engine_known = spec.engine.as_deref().is_none_or(|engine| engine == "sip");
    match known && engine_known {
        true => Ok(()),
        false => Err(Refusal::NoSuchScheduler),
    }
}

fn check_server(server: &ServerKey, spec: &ServerSpec) -> Result<(), Refusal> {
    if spec.lower_threshold > spec.upper_threshold {
        return Err(Refusal::OutOfRange {
            what: "the lower threshold".to_owned(),
        });
    }
    let unicast = match server.address {
        IpAddr::V4(v4) => !v4.is_multicast() && !v4.is_broadcast() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_unspecified(),
    };
    match unicast {
        true => Ok(()),
        false => Err(Refusal::Invalid {
            what: "not unicast".to_owned(),
        }),
    }
}

fn keep_zero(value_s: &mut u32, new_s: u32) {
    if new_s != 0 {
        *value_s = new_s;
    }
}
