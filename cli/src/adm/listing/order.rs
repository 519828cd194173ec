//! The order of services and servers. ipvsadm compares 32-bit numbers by the sign of their
//! wrapped difference, so numbers more than 2^31 apart compare the wrong way round and the
//! relation is not an order at all: what comes out depends on the algorithm. Ours is the
//! one that glibc's `qsort` uses, a merge sort that splits at half the length.

use std::cmp::Ordering;
use std::net::IpAddr;

use sched::server::ServerKey;
use sched::service::{Family, ServiceKey};

/// Sorts services as ipvsadm lists them.
pub fn sort_services<T>(services: &mut Vec<T>, key: impl Fn(&T) -> ServiceKey) {
    merge_sort(services, &|a, b| compare_services(&key(a), &key(b)));
}

/// Sorts the servers of one service.
pub fn sort_servers<T>(servers: &mut Vec<T>, key: impl Fn(&T) -> ServerKey) {
    merge_sort(servers, &|a, b| compare_servers(&key(a), &key(b)));
}

fn compare_services(a: &ServiceKey, b: &ServiceKey) -> Ordering {
    let by_mark = wrapped(mark(a), mark(b));
    let by_family = || (a.family() == Family::V6).cmp(&(b.family() == Family::V6));
    by_mark
        .then_with(by_family)
        .then_with(|| match (a, b) {
            (
                ServiceKey::Address {
                    protocol: protocol_a,
                    address: address_a,
                    ..
                },
                ServiceKey::Address {
                    protocol: protocol_b,
                    address: address_b,
                    ..
                },
            ) => protocol_a
                .number()
                .cmp(&protocol_b.number())
                .then_with(|| compare_addresses(*address_a, *address_b)),
            _ => Ordering::Equal,
        })
        .then_with(|| a.port().cmp(&b.port()))
}

fn compare_servers(a: &ServerKey, b: &ServerKey) -> Ordering {
    compare_addresses(a.address, b.address).then_with(|| a.port.cmp(&b.port))
}

/// Word by word; the words that an IPv4 address lacks are 0.
fn compare_addresses(a: IpAddr, b: IpAddr) -> Ordering {
    words(a)
        .into_iter()
        .zip(words(b))
        .map(|(a, b)| wrapped(a, b))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => [address.to_bits(), 0, 0, 0],
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
        }
    }
}

fn wrapped(a: u32, b: u32) -> Ordering {
    (a.wrapping_sub(b) as i32).cmp(&0)
}

fn mark(service: &ServiceKey) -> u32 {
    match service {
        ServiceKey::Fwmark { mark, .. } => mark.get(),
        ServiceKey::Address { .. } => 0,
    }
}

fn merge_sort<T>(items: &mut Vec<T>, compare: &impl Fn(&T, &T) -> Ordering) {
    if items.len() < 2 {
        return;
    }
    let mut second = items.split_off(items.len() / 2);
    merge_sort(items, compare);
    merge_sort(&mut second, compare);
    let mut merged = Vec::with_capacity(items.len() + second.len());
    let mut first = std::mem::take(items).into_iter().peekable();
    let mut second = second.into_iter().peekable();
    while let (Some(a), Some(b)) = (first.peek(), second.peek()) {
        let next = match compare(a, b) {
            Ordering::Greater => second.next(),
            _ => first.next(),
        };
        merged.extend(next);
    }
    merged.extend(first);
    merged.extend(second);
    *items = merged;
}
