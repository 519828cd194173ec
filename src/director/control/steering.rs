//! What the steering program is to look for: what lives, and what is gone but still has
//! connections.

use dataplane::port::steering::{SteeredEndpoint, SteeringRules};
use sched::server::{Forwarding, RealServer};
use sched::service::{Protocol, ServiceKey};

use super::state::State;
use crate::director::neighbours::View;

/// FTP's control port (RFC 959).
const FTP: u16 = 21;

/// The rules for a state and a view of the host. In an order that the state alone decides, so
/// that those of equal states compare equal; sorting a hundred thousand servers at each edit
/// would cost more than the edit.
pub fn rules(state: &State, view: &View) -> SteeringRules {
    let mut rules = SteeringRules {
        vlans: view.vlans.clone(),
        macs: view.macs.clone(),
        stations: view.stations.clone(),
        prefixes: state.prefixes.clone(),
        ..SteeringRules::default()
    };
    for service in state.table.services() {
        add_service(&mut rules, &service.key);
    }
    for (server, live) in state.table.servers() {
        if !server.available && server.load.is_idle() {
            continue;
        }
        // A removed service is steered to for as long as connections live on its servers.
        let key = match live {
            Some(service) => &service.key,
            None => match state.keys.get(&server.service) {
                Some(key) => key,
                None => continue,
            },
        };
        if live.is_none() {
            add_service(&mut rules, key);
        }
        add_server(&mut rules, key, server, server.spec.forwarding);
        // What it forwarded in another way is over with its connections.
        if let Some(earlier) = state.forwarded.get(&server.id)
            && !server.load.is_idle()
        {
            for &forwarding in earlier {
                add_server(&mut rules, key, server, forwarding);
            }
        }
    }
    let mut places: Vec<_> = state.marks.places().map(|(place, _)| *place).collect();
    places.extend(state.marked.iter().map(|(place, _)| *place));
    places.sort_unstable();
    for (address, protocol, port) in places {
        rules.virtuals.push(SteeredEndpoint {
            address,
            protocol,
            port,
        });
    }
    rules.vlans.sort_unstable();
    rules.macs.sort_unstable();
    rules.stations.sort_unstable();
    rules
}

fn add_service(rules: &mut SteeringRules, key: &ServiceKey) {
    // Those of firewall marks come by the destinations that bear them.
    if let ServiceKey::Address {
        protocol,
        address,
        port,
    } = *key
    {
        // An FTP service's data connections may go to any port.
        let is_ftp = protocol == Protocol::Tcp && port == FTP;
        for port in [Some(port), is_ftp.then_some(0)].into_iter().flatten() {
            rules.virtuals.push(SteeredEndpoint {
                address,
                protocol,
                port,
            });
        }
    }
}

fn add_server(
    rules: &mut SteeringRules,
    service: &ServiceKey,
    server: &RealServer,
    forwarding: Forwarding,
) {
    let address = server.key.address;
    match (forwarding, service) {
        (Forwarding::Masquerade, &ServiceKey::Address { protocol, .. }) => {
            rules.reals.push(SteeredEndpoint {
                address,
                protocol,
                port: server.key.port,
            });
        }
        (Forwarding::Masquerade, ServiceKey::Fwmark { .. }) => rules.reals_whole.push(address),
        (Forwarding::Tunnel(tunnel), _) => rules.tunnels.push((address, tunnel)),
        (Forwarding::Route, _) => {}
    }
}
