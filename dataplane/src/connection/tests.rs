//! The table against a plain map, at its limits, from several threads, and taken up after
//! a death.

mod damage;

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use proptest::prelude::*;
use sched::server::ServerId;
use sched::service::Family;

use super::bucket::{Probe, SLOTS};
use super::hash::Other;
use super::table::*;
use crate::address::Endpoint;
use crate::time::{Ticks, is_due, ticks};

const CASES: u32 = if cfg!(miri) { 2 } else { 300 };

/// Of a masqueraded connection, and bits that mean nothing to the table.
const WORD: u32 = 0x00ab_0cef;

fn end(address: u128, port: u16) -> Endpoint {
    Endpoint { address, port }
}

fn v4_key(client: u32, port: u16) -> Key {
    Key {
        family: Family::V4,
        template: false,
        protocol: 6,
        client: end(client.into(), port),
        virtual_: end(0x0a00_0001, 80),
    }
}

fn draft(key: Key, real: Endpoint) -> Draft {
    Draft {
        key,
        real_family: key.family,
        real,
        server: ServerId(real.port.into()),
        word: WORD,
        mark: 0,
        template: None,
        timeout: ticks(60),
    }
}

fn v4(client: u32, port: u16) -> Draft {
    draft(v4_key(client, port), end(0xc0a8_0001, 8080))
}

fn new(table: &Table, cache: &mut Cache, draft: &Draft, now: Ticks) -> Handle {
    match table.insert(cache, draft, now) {
        Ok(Inserted::New(handle)) => handle,
        other => panic!("{other:?}"),
    }
}

/// Ends bursts until nothing that was freed waits any more.
fn settle(table: &Table, caches: &mut [Cache]) {
    for _ in 0..if cfg!(miri) { 150 } else { 1_000 } {
        caches.iter_mut().for_each(|cache| table.quiesce(cache));
    }
}

#[test]
fn every_field_comes_back() {
    let v6 = 0x2001_0db8_0000_0001_0002_0003_0004_0005_u128;
    let rows = [
        (
            "IPv4",
            Family::V4,
            false,
            6,
            end(1, 2),
            end(3, 4),
            Family::V4,
            end(5, 6),
        ),
        (
            "highest",
            Family::V4,
            false,
            255,
            end(0xffff_ffff, 65535),
            end(0xffff_fffe, 65534),
            Family::V4,
            end(0xffff_fffd, 65533),
        ),
        (
            "IPv6",
            Family::V6,
            false,
            17,
            end(v6, 9),
            end(v6 << 3, 10),
            Family::V6,
            end(!v6, 11),
        ),
        (
            "4 in 6",
            Family::V4,
            false,
            6,
            end(7, 8),
            end(9, 10),
            Family::V6,
            end(v6, 12),
        ),
        (
            "6 in 4",
            Family::V6,
            false,
            6,
            end(v6, 8),
            end(v6 + 1, 10),
            Family::V4,
            end(0x0102_0304, 12),
        ),
        (
            "template",
            Family::V4,
            true,
            6,
            end(0x0a00_0000, 0),
            end(9, 80),
            Family::V4,
            end(5, 6),
        ),
        (
            "fwmark template",
            Family::V6,
            true,
            0,
            end(v6, 0),
            end(77, 0),
            Family::V6,
            end(v6, 80),
        ),
    ];
    let table = Table::new(100, 1, 1);
    let mut cache = table.cache(0);
    for (what, family, template, protocol, client, virtual_, real_family, real) in rows {
        let key = Key {
            family,
            template,
            protocol,
            client,
            virtual_,
        };
        let draft = Draft {
            key,
            real_family,
            real,
            server: ServerId(0xfedc_ba98),
            word: 0x0012_3456,
            mark: 0xffff_fff0,
            template: None,
            timeout: 160,
        };
        let handle = new(&table, &mut cache, &draft, 1_000);
        assert_eq!(table.find(&key), Some(handle), "{what}");
        let seen = table.view(handle);
        assert_eq!(seen.handle(), handle, "{what}");
        assert_eq!(seen.key(), key, "{what}");
        assert_eq!(
            (seen.client(), seen.virtual_(), seen.real()),
            (client, virtual_, real),
            "{what}"
        );
        assert_eq!(seen.real_family(), real_family, "{what}");
        assert_eq!(
            (seen.server(), seen.mark()),
            (ServerId(0xfedc_ba98), 0xffff_fff0),
            "{what}"
        );
        assert_eq!(
            (seen.word(), seen.timeout(), seen.expires()),
            (0x0012_3456, 160, 1_160),
            "{what}"
        );
        assert_eq!((seen.controlled(), seen.template()), (0, None), "{what}");
        let row = table.read(handle.index).expect(what);
        assert_eq!(
            (row.key, row.real, row.real_family),
            (key, real, real_family),
            "{what}"
        );
        assert_eq!(
            (row.word, row.mark, row.server),
            (0x0012_3456, 0xffff_fff0, ServerId(0xfedc_ba98))
        );
        assert_eq!(
            (row.expires, row.timeout, row.controlled),
            (1_160, 160, 0),
            "{what}"
        );
        let replies = !template && family == real_family;
        let reply = table.find_reply(family, protocol, client, real);
        assert_eq!(reply, replies.then_some(handle), "{what}");
    }
    assert_eq!(table.len(), rows.len());
}

#[test]
fn a_key_that_differs_anywhere_is_another() {
    for (family, base) in [
        (Family::V4, 0x0a00_0000_u128),
        (Family::V6, 0x2001_0db8 << 96),
    ] {
        let table = Table::new(100, 1, 1);
        let mut cache = table.cache(0);
        let key = Key {
            family,
            template: false,
            protocol: 6,
            client: end(base, 1),
            virtual_: end(base + 1, 2),
        };
        let real = end(base + 2, 3);
        new(&table, &mut cache, &draft(key, real), 0);
        let top = if family == Family::V4 {
            1 << 31
        } else {
            1 << 127
        };
        let others = [
            Key {
                template: true,
                ..key
            },
            Key {
                protocol: 17,
                ..key
            },
            Key {
                client: end(base ^ 1, 1),
                ..key
            },
            Key {
                client: end(base ^ top, 1),
                ..key
            },
            Key {
                client: end(base, 9),
                ..key
            },
            Key {
                virtual_: end(base, 2),
                ..key
            },
            Key {
                virtual_: end((base + 1) ^ top, 2),
                ..key
            },
            Key {
                virtual_: end(base + 1, 3),
                ..key
            },
        ];
        for other in others {
            assert_eq!(table.find(&other), None, "{other:?}");
        }
        for other in [
            end(real.address ^ top, 3),
            end(real.address + 1, 3),
            end(real.address, 4),
        ] {
            assert_eq!(table.find_reply(family, 6, key.client, other), None);
        }
        // All of them fit beside each other.
        for other in others {
            new(&table, &mut cache, &draft(other, real), 0);
        }
        assert_eq!(table.len(), 9);
        assert!(others.iter().all(|other| table.find(other).is_some()));
    }
}

#[test]
fn the_word_is_replaced_only_by_who_knows_it() {
    let table = Table::new(10, 1, 1);
    let mut cache = table.cache(0);
    let handle = new(&table, &mut cache, &v4(1, 1), 0);
    let seen = table.view(handle);
    assert_eq!(seen.replace_word(1, 2), Err(WORD));
    assert_eq!(seen.replace_word(WORD, 2), Ok(()));
    assert_eq!(seen.word(), 2);
}

#[test]
fn an_entry_ends_once() {
    let table = Table::new(10, 1, 1);
    let mut cache = table.cache(0);
    let handle = new(&table, &mut cache, &v4(1, 1), 0);
    assert_eq!(
        table.insert(&mut cache, &v4(1, 1), 0),
        Ok(Inserted::Found(handle))
    );
    assert!(table.remove(&mut cache, handle));
    assert!(!table.remove(&mut cache, handle));
    assert_eq!((table.find(&v4_key(1, 1)), table.len()), (None, 0));
    assert!(table.read(handle.index).is_none());
    settle(&table, std::slice::from_mut(&mut cache));
    // Used anew, the place bears another version: the old handle ends nobody else.
    let anew = new(&table, &mut cache, &v4(2, 2), 0);
    assert_eq!(anew.index, handle.index);
    assert!(!table.remove(&mut cache, handle));
    assert!(table.remove(&mut cache, anew));
}

#[test]
fn a_template_counts_its_connections() {
    let table = Table::new(100, 1, 1);
    let mut cache = table.cache(0);
    let template = draft(
        Key {
            template: true,
            ..v4_key(1, 0)
        },
        end(9, 9),
    );
    let held = new(&table, &mut cache, &template, 0);
    let mut by = v4(1, 1);
    by.template = Some(held);
    let first = new(&table, &mut cache, &by, 0);
    by.key.client.port = 2;
    let second = new(&table, &mut cache, &by, 0);
    assert_eq!(table.view(held).controlled(), 2);
    // A lost insertion holds nothing.
    assert_eq!(
        table.insert(&mut cache, &by, 0),
        Ok(Inserted::Found(second))
    );
    assert_eq!(table.view(held).controlled(), 2);
    assert_eq!(table.view(first).template(), Some(held));
    assert!(table.remove(&mut cache, first));
    assert_eq!(table.view(held).controlled(), 1);
    // The template goes first: its connection has none then, and so has a late one.
    assert!(table.remove(&mut cache, held));
    assert_eq!(table.view(second).template(), None);
    by.key.client.port = 3;
    let late = new(&table, &mut cache, &by, 0);
    assert_eq!(table.view(late).template(), None);
    settle(&table, std::slice::from_mut(&mut cache));
    let anew = (0..64).map(|i| new(&table, &mut cache, &v4(50, i), 0));
    let anew = anew.filter(|h| h.index == held.index).last();
    table.remove(&mut cache, second);
    assert_eq!(anew.map(|h| table.view(h).controlled()), Some(0));
}

/// Who is out of entries looks whether those freed before may be used again: none of them may be lost then.
#[test]
fn a_table_that_is_full_again_and_again_keeps_its_places() {
    let capacity = if cfg!(miri) { 64 } else { 300 };
    let table = Table::new(capacity, 1, 5);
    let mut caches = [table.cache(0)];
    let mut held = std::collections::VecDeque::new();
    for i in 0..20 * capacity as u32 {
        match table.insert(&mut caches[0], &v4(i, 9), 0) {
            Ok(Inserted::New(handle)) => held.push_back(handle),
            Ok(Inserted::Found(_)) => unreachable!("each comes once"),
            Err(Full) => {
                for handle in held.drain(..held.len() / 2) {
                    assert!(table.remove(&mut caches[0], handle));
                }
                table.resume(&mut caches[0]);
            }
        }
    }
    for handle in held {
        assert!(table.remove(&mut caches[0], handle));
    }
    settle(&table, &mut caches);
    let fits = (0..).take_while(|&i| table.insert(&mut caches[0], &v4(i, 9), 0).is_ok());
    assert!(fits.count() >= capacity);
}

#[test]
fn a_full_table_refuses_and_recovers() {
    for family in [Family::V4, Family::V6] {
        let (capacity, workers) = if cfg!(miri) { (60, 2) } else { (1_000, 2) };
        let table = Table::new(capacity, workers, 3);
        let mut caches: Vec<_> = (0..workers).map(|w| table.cache(w)).collect();
        let make = |i: u32| {
            let key = Key {
                family,
                ..v4_key(i, 7)
            };
            draft(key, end(5, 5))
        };
        let each = if family == Family::V4 { 1 } else { 2 };
        for round in 0..3 {
            let mut handles = vec![];
            for i in 0.. {
                match table.insert(&mut caches[i as usize % workers], &make(i), 0) {
                    Ok(Inserted::New(handle)) => handles.push(handle),
                    Ok(found) => panic!("{found:?}"),
                    Err(Full) => break,
                }
            }
            assert!(
                handles.len() * each >= capacity,
                "round {round}: {}",
                handles.len()
            );
            assert!(handles.len() * each <= capacity + workers * super::reclaim::SPARE_PER_WORKER);
            assert_eq!(table.len(), handles.len());
            // Those that are there feel nothing.
            for (i, handle) in handles.iter().enumerate() {
                assert_eq!(table.find(&make(i as u32).key), Some(*handle));
            }
            for (i, handle) in handles.into_iter().enumerate() {
                assert!(table.remove(&mut caches[i % workers], handle));
            }
            assert!(table.is_empty());
            settle(&table, &mut caches);
        }
    }
}

#[test]
fn one_client_endpoint_may_have_thousands() {
    // In a table that is full otherwise.
    let (many, others) = if cfg!(miri) {
        (60, 200)
    } else {
        (5_000, 60_000)
    };
    let table = Table::new(others + many, 1, 4);
    let mut cache = table.cache(0);
    for i in 0..others as u32 {
        new(&table, &mut cache, &v4(i, 1), 0);
    }
    let scan = |i: usize| {
        let key = Key {
            virtual_: end(0x0a00_0001, i as u16),
            ..v4_key(0xdead_beef, 40_000)
        };
        draft(key, end(6, i as u16))
    };
    let handles: Vec<_> = (0..many)
        .map(|i| new(&table, &mut cache, &scan(i), 0))
        .collect();
    let check = |step: usize| {
        for i in (0..many).step_by(step) {
            let Draft { key, real, .. } = scan(i);
            assert_eq!(table.find(&key), Some(handles[i]));
            assert_eq!(
                table.find_reply(key.family, 6, key.client, real),
                Some(handles[i])
            );
        }
    };
    check(97);
    (0..others as u32).for_each(|i| assert!(table.find(&v4_key(i, 1)).is_some()));
    for i in (1..many).rev().filter(|i| i % 97 != 0) {
        assert!(table.remove(&mut cache, handles[i]));
    }
    check(97);
    for i in (0..many).step_by(97) {
        assert!(table.remove(&mut cache, handles[i]));
    }
    assert_eq!(table.len(), others);
    (0..others as u32).for_each(|i| {
        let handle = table.find(&v4_key(i, 1)).unwrap();
        assert!(table.remove(&mut cache, handle));
    });
    // Nobody is counted as passing any more.
    let passed = table
        .memory
        .buckets()
        .iter()
        .filter(|b| b.tags().passed())
        .count();
    assert_eq!(passed, 0);
}

#[test]
fn where_no_room_is_left_nothing_changes() {
    let client = v4(1, 1);
    // Others hold all the buckets that this connection may use, or all but the last it needs.
    for what in ["near and far", "near, and far by the real server"] {
        let table = Table::new(if cfg!(miri) { 100 } else { 200_000 }, 1, 4);
        let mut cache = table.cache(0);
        let hash = table.hash_of(&client.key);
        let by_virtual = table.far_of(hash, Other::Virtual(client.key.virtual_));
        let by_real = table.far_of(hash, Other::Real(client.real));
        let near = table.near_of(hash);
        let fill = |way: Probe<'_>| {
            way.for_each(|bucket| (0..SLOTS).for_each(|_| drop_slot(bucket.enter(1, 1))));
        };
        fill(near);
        fill(by_real);
        if what == "near and far" {
            fill(by_virtual);
        }
        assert_eq!(table.insert(&mut cache, &client, 0), Err(Full), "{what}");
        let untouched = |mut way: Probe<'_>| way.all(|bucket| !bucket.tags().passed());
        assert!([near, by_virtual, by_real].into_iter().all(untouched));
        let is_left = |way: Probe<'_>| way.into_iter().any(|b| b.slot_of(way.tag(), 1).is_some());
        assert!(![near, by_virtual, by_real].into_iter().any(is_left) || cfg!(miri));
        assert!(table.is_empty(), "{what}");
        if !cfg!(miri) {
            new(&table, &mut cache, &v4(2, 2), 0);
        }
    }
}

/// One client's endpoint fills a table, and its packets meet as few entries as before.
#[test]
fn no_endpoint_makes_its_look_ups_long() {
    let capacity = if cfg!(miri) { 100 } else { 100_000 };
    let table = Table::new(capacity, 1, 4);
    let mut cache = table.cache(0);
    let scan = |i: usize| {
        let key = Key {
            virtual_: end(0x0a00_0001 + (i >> 16) as u128, i as u16),
            ..v4_key(0xdead_beef, 40_000)
        };
        draft(key, end(6 + (i >> 16) as u128, i as u16))
    };
    let begun = (0..capacity)
        .take_while(|&i| table.insert(&mut cache, &scan(i), 0).is_ok())
        .count();
    assert!(begun * 6 >= capacity * 5, "{begun} of {capacity}");
    let stranger = end(0x0a00_0001, 80);
    let hash = table.hash_of(&v4_key(0xdead_beef, 40_000));
    for other in [Other::Virtual(stranger), Other::Real(stranger)] {
        let mut met = 0;
        let _: Option<()> = table.search(hash, other, |_, _, _| {
            met += 1;
            None
        });
        assert!(met <= 3 * SLOTS + 10, "{other:?}: {met}");
    }
    for i in (0..begun).step_by(97) {
        let Draft { key, real, .. } = scan(i);
        let handle = table.find(&key);
        assert!(handle.is_some());
        assert_eq!(table.find_reply(key.family, 6, key.client, real), handle);
        assert!(table.remove(&mut cache, handle.unwrap()));
        assert_eq!(table.find(&key), None);
        assert_eq!(table.find_reply(key.family, 6, key.client, real), None);
    }
}

fn drop_slot(_: Option<usize>) {}

/// Which connection a reply is taken for, after each step: connections by number, each by a
/// service of its own, all of one client to one server's endpoint.
#[test]
fn a_reply_is_of_the_preferred_of_several() {
    use super::word::{Method, Word};
    enum Step {
        Begin(u32, Method),
        End(u32),
        Prefer(u32),
        Part(u32),
        Use(u32),
    }
    use Step::{Begin, End, Part, Prefer, Use};
    const NAT: Method = Method::Masquerade;
    const DIRECT: Method = Method::Route;
    type Row<'r> = (&'r str, &'r [(Step, Option<u32>)]);
    let rows: [Row<'_>; 7] = [
        ("one", &[(Begin(1, NAT), Some(1)), (Part(1), Some(1))]),
        (
            "the newest",
            &[
                (Begin(1, NAT), Some(1)),
                (Begin(2, NAT), Some(2)),
                (Begin(3, NAT), Some(3)),
            ],
        ),
        (
            "one that is used does not become the newest by that",
            &[
                (Begin(1, NAT), Some(1)),
                (Begin(2, NAT), Some(2)),
                (Use(1), Some(2)),
                (Part(1), Some(2)),
            ],
        ),
        (
            "by turns",
            &[
                (Begin(1, NAT), Some(1)),
                (Begin(2, NAT), Some(2)),
                (Prefer(1), Some(1)),
                (Prefer(2), Some(2)),
                (Begin(3, NAT), Some(3)),
                (Prefer(1), Some(1)),
            ],
        ),
        (
            "the newest ends",
            &[
                (Begin(1, NAT), Some(1)),
                (Begin(2, NAT), Some(2)),
                (Begin(3, NAT), Some(3)),
                (Use(1), Some(3)),
                (End(3), Some(1)),
                (Use(2), Some(2)),
                (End(2), Some(1)),
                (End(1), None),
            ],
        ),
        (
            "direct ones have no replies here",
            &[
                (Begin(1, DIRECT), None),
                (Begin(2, NAT), Some(2)),
                (Begin(3, DIRECT), Some(2)),
                (Begin(4, Method::Tunnel), Some(2)),
                (End(2), None),
            ],
        ),
        (
            "a place that is used again",
            &[
                (Begin(1, NAT), Some(1)),
                (Begin(2, NAT), Some(2)),
                (End(1), Some(2)),
                (Begin(1, NAT), Some(1)),
            ],
        ),
    ];
    for ((what, steps), family) in rows.iter().flat_map(|r| [(r, Family::V4), (r, Family::V6)]) {
        for crowd in [0, 100] {
            let table = Table::new(1_000, 1, 1);
            let mut cache = table.cache(0);
            let base = match family {
                Family::V4 => 0x0a00_0000,
                Family::V6 => 0x2001_0db8 << 96,
            };
            let real = end(base + 77, 8080);
            let of = |number: u32, method, real| Draft {
                word: Word::new(method).0,
                ..draft(
                    Key {
                        family,
                        virtual_: end(base + u128::from(number), 80),
                        client: end(base + 99, 1001),
                        ..v4_key(0, 0)
                    },
                    real,
                )
            };
            // The same endpoint's connections to others may have taken all the room nearby.
            for i in 0..crowd {
                let other = of(1_000 + i, NAT, end(base + 78 + u128::from(i), 8080));
                new(&table, &mut cache, &other, 0);
            }
            let mut now = 100;
            let handle = |number| table.find(&of(number, NAT, real).key);
            for (number, (step, expected)) in steps.iter().enumerate() {
                now += 16;
                let view = |number: &u32| table.view(handle(*number).expect(what));
                match step {
                    Begin(number, method) => {
                        new(&table, &mut cache, &of(*number, *method, real), now);
                    }
                    End(number) => {
                        assert!(table.remove(&mut cache, handle(*number).expect(what)));
                    }
                    Prefer(number) => table.prefer(view(number)),
                    Part(number) => table.part(view(number)),
                    Use(number) => view(number).touch(now + view(number).timeout()),
                }
                let found = table.find_reply(family, 6, end(base + 99, 1001), real);
                let wanted = expected.map(|number| handle(number).expect(what));
                assert_eq!(found, wanted, "{what}, {family:?}, {crowd}, step {number}");
            }
        }
    }
}

#[test]
fn who_is_alone_again_is_marked_so() {
    use super::word::{Method, Word};
    let table = Table::new(100, 1, 1);
    let mut cache = table.cache(0);
    let by = |service: u32| {
        let key = Key {
            virtual_: end(service.into(), 80),
            ..v4_key(1, 1)
        };
        Draft {
            word: Word::new(Method::Masquerade).0,
            ..draft(key, end(9, 9))
        }
    };
    let [a, b] = [1, 2].map(|service| new(&table, &mut cache, &by(service), 0));
    let word = |handle| Word(table.view(handle).word());
    assert!(word(a).is_shared() && !word(a).is_preferred());
    assert!(word(b).is_shared() && word(b).is_preferred());
    table.part(table.view(b));
    assert!(word(b).is_shared() && word(b).is_preferred(), "not alone");
    assert!(table.remove(&mut cache, a));
    table.part(table.view(b));
    assert_eq!(word(b), Word::new(Method::Masquerade));
    // The same client's connections to another server, or of another protocol, are no others.
    for other in [
        draft(by(3).key, end(9, 10)),
        draft(by(3).key, end(10, 9)),
        Draft {
            key: Key {
                protocol: 17,
                ..by(3).key
            },
            ..by(3)
        },
    ] {
        let handle = new(&table, &mut cache, &other, 0);
        assert!(!word(handle).is_shared() && !word(b).is_shared());
        assert!(table.remove(&mut cache, handle));
    }
}

#[test]
fn sleepers_are_not_waited_for() {
    let table = Table::new(10, 2, 1);
    let [mut a, mut b] = [table.cache(0), table.cache(1)];
    let handle = new(&table, &mut a, &v4(1, 1), 0);
    table.remove(&mut a, handle);
    let reused = |table: &Table, a: &mut Cache| {
        settle(table, std::slice::from_mut(a));
        let anew = new(table, a, &v4(2, 2), 0);
        table.remove(a, anew);
        anew.index == handle.index
    };
    // `b` is in the same burst still.
    assert!(!reused(&table, &mut a));
    table.pause(&mut b);
    assert!(reused(&table, &mut a));
    table.resume(&mut b);
    settle(&table, &mut [a, b]);
}

#[test]
fn the_sweep_calls_what_is_due() {
    type Act = fn(&Connection<'_>);
    let rows: [(&str, Act, u32); 6] = [
        ("left alone", |_| (), 60),
        ("touched for 90", |c| c.touch(ticks(90)), 90),
        ("never made earlier by a touch", |c| c.touch(0), 60),
        ("made longer", |c| c.set_timeout(ticks(10), ticks(900)), 910),
        ("made shorter", |c| c.set_timeout(ticks(10), ticks(10)), 20),
        (
            "longer, then shorter",
            |c| {
                c.set_timeout(ticks(10), ticks(900));
                c.set_timeout(ticks(11), ticks(120));
            },
            131,
        ),
    ];
    for start in [0, u32::MAX - ticks(45), 0_u32.wrapping_sub(ticks(60))] {
        for (what, act, expected_s) in rows {
            let table = Table::new(100, 2, 1);
            let mut cache = table.cache(0);
            let mut other = table.cache(1);
            let handle = new(&table, &mut cache, &v4(1, 1), start);
            // The rows count from the start.
            let shifted = table.view(handle);
            if start == 0 {
                act(&shifted);
            } else if what != "left alone" {
                continue;
            }
            let mut ended = None;
            for s in 0..1_000 {
                let now = start.wrapping_add(ticks(s));
                for cache in [&mut cache, &mut other] {
                    table.sweep(cache, now, 10_000, |table, cache, due| {
                        assert_eq!((due, ended), (handle, None), "{what}");
                        assert!(table.remove(cache, due));
                        ended = Some(s);
                    });
                }
            }
            assert_eq!(ended, Some(expected_s), "{what} from {start}");
        }
    }
}

#[test]
fn the_budget_shows_the_whole_share_once_a_second() {
    let entries = if cfg!(miri) { 300 } else { 50_000 };
    for workers in [1, 3] {
        let table = Table::new(entries, workers, 1);
        let mut caches: Vec<_> = (0..workers).map(|w| table.cache(w)).collect();
        for i in 0..entries as u32 {
            let mut draft = v4(i, 1);
            draft.timeout = if i % 50 == 0 { 16 } else { ticks(9_000) };
            new(&table, &mut caches[0], &draft, 0);
        }
        let mut met = HashMap::<Handle, u32>::new();
        // From 2 s to 4 s in ticks, several bursts each.
        for now in 32..=64 {
            for cache in &mut caches {
                loop {
                    let budget = table.sweep_budget(cache, now);
                    if budget == 0 {
                        break;
                    }
                    assert!(budget <= 2_048);
                    table.sweep(cache, now, budget, |_, _, h| {
                        *met.entry(h).or_default() += 1
                    });
                }
            }
        }
        assert_eq!(met.len(), entries.div_ceil(50));
        // A table of less than a run for each worker is seen more often.
        let most = 3 * (1_024 * workers).div_ceil(entries) as u32;
        let times = met.values();
        assert!(
            times.clone().all(|n| (1..=most).contains(n)),
            "{:?}",
            times.max()
        );
    }
}

impl std::hash::Hash for Handle {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u32(self.index);
    }
}

/// What a model keeps of one connection.
#[derive(Clone, Debug)]
struct Known {
    draft: Draft,
    handle: Handle,
    word: u32,
    timeout: Ticks,
    expires: Ticks,
    held: u32,
}

#[derive(Clone, Debug)]
enum Step {
    Insert {
        client: u8,
        service: u8,
        kind: u8,
        template: bool,
        timeout_s: u8,
    },
    Remove {
        pick: usize,
    },
    Touch {
        pick: usize,
    },
    SetTimeout {
        pick: usize,
        timeout_s: u8,
    },
    Word {
        pick: usize,
        word: u32,
    },
    Pass {
        ticks: u8,
    },
    Quiesce,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pick = any::<usize>;
    let step = prop_oneof![
        6 => (0..6_u8, 0..40_u8, 0..6_u8, any::<bool>(), 0..20_u8).prop_map(
            |(client, service, kind, template, timeout_s)|
            Step::Insert { client, service, kind, template, timeout_s }
        ),
        2 => pick().prop_map(|pick| Step::Remove { pick }),
        1 => pick().prop_map(|pick| Step::Touch { pick }),
        1 => (pick(), 0..20_u8).prop_map(|(pick, timeout_s)| Step::SetTimeout { pick, timeout_s }),
        1 => (pick(), any::<u32>()).prop_map(|(pick, word)| Step::Word { pick, word }),
        1 => (1..40_u8).prop_map(|ticks| Step::Pass { ticks }),
        2 => Just(Step::Quiesce),
    ];
    prop::collection::vec(step, if cfg!(miri) { 1..60 } else { 1..400 })
}

/// Kinds: IPv4, IPv6, 4 in 6, 6 in 4, and templates of the first two.
fn model_draft(client: u8, service: u8, kind: u8, timeout_s: u8) -> Draft {
    let v6 = |n: u8| end((0x2001_0db8 << 96) | u128::from(n) << 64 | 7, n.into());
    let v4 = |n: u8| end(0x0a00_0000 + u128::from(n), n.into());
    let (is_v6, real_v6) = ([1, 3, 5].contains(&kind), [1, 2, 5].contains(&kind));
    let of = |is_v6: bool, n| if is_v6 { v6(n) } else { v4(n) };
    let family = |is_v6: bool| if is_v6 { Family::V6 } else { Family::V4 };
    let key = Key {
        family: family(is_v6),
        template: kind >= 4,
        protocol: 6,
        client: of(is_v6, client),
        virtual_: of(is_v6, service),
    };
    Draft {
        real_family: family(real_v6),
        timeout: ticks(timeout_s.into()),
        ..draft(key, of(real_v6, service ^ 0x80))
    }
}

/// A table and the map that says what must be in it.
struct Twin {
    table: Table,
    cache: Cache,
    known: Vec<Known>,
    now: Ticks,
}

impl Twin {
    fn step(&mut self, step: &Step) {
        let now = self.now;
        match *step {
            Step::Insert {
                client,
                service,
                kind,
                template,
                timeout_s,
            } => {
                let mut draft = model_draft(client, service, kind, timeout_s);
                let templates = self.known.iter().filter(|k| k.draft.key.template);
                if template && kind < 4 {
                    draft.template = templates.clone().next_back().map(|k| k.handle);
                }
                self.insert(draft);
            }
            Step::Remove { pick } => {
                if let Some(i) = self.pick(pick) {
                    let gone = self.known.swap_remove(i);
                    assert!(self.table.remove(&mut self.cache, gone.handle));
                    assert!(!self.table.remove(&mut self.cache, gone.handle));
                    self.ended(&gone);
                }
            }
            Step::Touch { pick } => {
                if let Some(i) = self.pick(pick) {
                    let known = &mut self.known[i];
                    let seen = self.table.view(known.handle);
                    seen.touch(now.wrapping_add(seen.timeout()));
                    known.expires = known.expires.max(now + known.timeout);
                }
            }
            Step::SetTimeout { pick, timeout_s } => {
                if let Some(i) = self.pick(pick) {
                    let known = &mut self.known[i];
                    known.timeout = ticks(timeout_s.into());
                    known.expires = now + known.timeout;
                    self.table
                        .view(known.handle)
                        .set_timeout(now, known.timeout);
                }
            }
            Step::Word { pick, word } => {
                if let Some(i) = self.pick(pick) {
                    let known = &mut self.known[i];
                    let seen = self.table.view(known.handle);
                    assert_eq!(seen.replace_word(known.word, word), Ok(()));
                    known.word = word;
                }
            }
            Step::Pass { ticks } => {
                self.now += Ticks::from(ticks);
                self.sweep();
            }
            Step::Quiesce => self.table.quiesce(&mut self.cache),
        }
    }

    fn pick(&self, pick: usize) -> Option<usize> {
        (!self.known.is_empty()).then(|| pick % self.known.len())
    }

    fn insert(&mut self, draft: Draft) {
        let standing = self.known.iter().find(|k| k.draft.key == draft.key);
        match self.table.insert(&mut self.cache, &draft, self.now) {
            Ok(Inserted::Found(handle)) => assert_eq!(Some(handle), standing.map(|k| k.handle)),
            Ok(Inserted::New(handle)) => {
                assert!(standing.is_none());
                for known in &mut self.known {
                    known.held += u32::from(Some(known.handle) == draft.template);
                }
                let (timeout, word) = (draft.timeout, draft.word);
                let expires = self.now + timeout;
                self.known.push(Known {
                    draft,
                    handle,
                    word,
                    timeout,
                    expires,
                    held: 0,
                });
            }
            Err(Full) => {
                let slots = |k: &Known| {
                    1 + usize::from(
                        k.draft.key.family == Family::V6 || k.draft.real_family == Family::V6,
                    )
                };
                // Freed entries may still wait; used ones and those are all there are.
                let used: usize = self.known.iter().map(slots).sum();
                assert!(used <= self.table.capacity() + super::reclaim::SPARE_PER_WORKER);
                (0..200).for_each(|_| self.table.quiesce(&mut self.cache));
                if used + 2 <= self.table.capacity() {
                    assert!(self.table.insert(&mut self.cache, &draft, self.now).is_ok());
                    let handle = self.table.find(&draft.key).unwrap();
                    self.table.remove(&mut self.cache, handle);
                }
            }
        }
    }

    fn ended(&mut self, gone: &Known) {
        for known in &mut self.known {
            known.held -= u32::from(Some(known.handle) == gone.draft.template);
        }
    }

    fn sweep(&mut self) {
        let mut due = vec![];
        // Twice the whole, so that what its look budget cut short is reached.
        for _ in 0..64 {
            self.table
                .sweep(&mut self.cache, self.now, 4_096, |table, cache, handle| {
                    assert!(table.remove(cache, handle));
                    due.push(handle);
                });
        }
        let now = self.now;
        let (ended, stay) = self.known.drain(..).partition(|k| is_due(k.expires, now));
        let ended: Vec<Known> = ended;
        self.known = stay;
        let mut expected: Vec<_> = ended.iter().map(|k| k.handle.index).collect();
        let mut due: Vec<_> = due.iter().map(|h| h.index).collect();
        expected.sort();
        due.sort();
        assert_eq!(due, expected);
        ended.iter().for_each(|k| self.ended(k));
    }

    fn check(&self) {
        let table = &self.table;
        assert_eq!(table.len(), self.known.len());
        for known in &self.known {
            let (key, handle) = (&known.draft.key, known.handle);
            assert_eq!(table.find(key), Some(handle));
            let row = table.read(handle.index).expect("a row");
            assert_eq!((row.key, row.real), (*key, known.draft.real));
            let fields = (row.word, row.timeout, row.expires, row.controlled);
            assert_eq!(
                fields,
                (known.word, known.timeout, known.expires, known.held)
            );
            let lives = |h: &Handle| self.known.iter().any(|k| k.handle == *h);
            let template = known.draft.template.filter(lives);
            assert_eq!(table.view(handle).template(), template);
            if !key.template && key.family == known.draft.real_family {
                let reply = table.find_reply(key.family, 6, key.client, known.draft.real);
                let is_answered = super::word::Word(known.word).is_masqueraded();
                assert_eq!(reply, is_answered.then_some(handle));
            }
        }
        for (client, service, kind) in [(0, 0, 0), (1, 39, 1), (2, 5, 2), (3, 7, 3), (5, 20, 4)] {
            let key = model_draft(client, service, kind, 0).key;
            let known = self.known.iter().find(|k| k.draft.key == key);
            assert_eq!(table.find(&key), known.map(|k| k.handle));
        }
        let rows = (0..table.high_water()).filter(|&i| table.read(i).is_some());
        assert_eq!(rows.count(), self.known.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_does_what_a_map_does(steps in steps(), seed: u64, capacity in 8..200_usize) {
        let table = Table::new(capacity, 1, seed);
        let cache = table.cache(0);
        let mut twin = Twin { table, cache, known: vec![], now: 100 };
        for step in &steps {
            twin.step(step);
        }
        twin.check();
    }
}

/// A line of shared memory.
#[repr(align(64))]
#[derive(Clone)]
struct Zeroed(#[allow(dead_code, reason = "only its room counts")] [u8; 64]);

/// Memory that outlives its tables, as shared memory does.
fn shared_memory(bytes: usize) -> (Vec<Zeroed>, NonNull<[u8]>) {
    let mut lines = vec![Zeroed([0; 64]); bytes.div_ceil(64)];
    let start = NonNull::new(lines.as_mut_ptr()).unwrap().cast();
    (lines, NonNull::slice_from_raw_parts(start, bytes))
}

#[test]
#[allow(unsafe_code, reason = "takes up a table in memory of the test's own")]
fn the_next_process_takes_the_table_up() {
    let (capacity, connections) = if cfg!(miri) { (100, 40) } else { (500, 200) };
    let workers = 2;
    let bytes = Table::needed_bytes(capacity, workers);
    let (_owner, memory) = shared_memory(bytes);
    // SAFETY: the memory is zeroed, long enough, and only the tables below use it.
    let table = unsafe { Table::create_in(memory, capacity, workers, 77) }.unwrap();
    let [mut a, mut b] = [table.cache(0), table.cache(1)];
    let template = new(
        &table,
        &mut a,
        &draft(
            Key {
                template: true,
                ..v4_key(9, 0)
            },
            end(1, 1),
        ),
        0,
    );
    let mut kept = vec![];
    for i in 0..connections as u32 {
        let mut draft = model_draft(i as u8, (i >> 3) as u8, (i % 4) as u8, 60);
        draft.template = (i % 3 == 0).then_some(template);
        let handle = new(
            &table,
            if i % 2 == 0 { &mut a } else { &mut b },
            &draft,
            100,
        );
        match i % 5 {
            0 => assert!(table.remove(&mut a, handle)),
            _ => kept.push((draft, handle)),
        }
    }
    let held = kept.iter().filter(|(d, _)| d.template.is_some()).count() as u32;
    // Killed with an insertion half done, one aborted, one removal half done, and counts
    // that were not yet written.
    let half = |phase: u32, port: u16, a: &mut Cache| {
        let handle = new(&table, a, &v4(0x7777_0000, port), 0);
        let head = &table.entry(handle.index).head;
        let now = head.load(Ordering::Relaxed);
        head.store(super::entry::in_phase(now, phase), Ordering::Relaxed);
    };
    half(super::entry::TENTATIVE, 1, &mut a);
    half(super::entry::ABORTED, 2, &mut a);
    half(super::entry::DEAD, 3, &mut b);
    table.memory.workers()[1]
        .changing
        .store(1, Ordering::Relaxed);
    table.view(template); // Its count is wrong by a hold that led to nothing:
    table
        .entry(template.index)
        .controlled
        .fetch_add(1, Ordering::Relaxed);
    drop((a, b, table));

    // SAFETY: as above, and the table before has ended.
    let (table, recovered) = unsafe { Table::adopt(memory, 3, &mut |_| true) }.unwrap();
    assert_eq!(
        recovered,
        Recovered {
            kept: kept.len() + 1,
            dropped: 2
        }
    );
    assert_eq!(
        (table.capacity(), table.workers(), table.len()),
        (capacity, 3, kept.len() + 1)
    );
    assert_eq!(table.view(template).controlled(), held);
    for (draft, handle) in &kept {
        assert_eq!(table.find(&draft.key), Some(*handle));
        let seen = table.view(*handle);
        assert_eq!(
            (seen.real(), seen.word(), seen.expires()),
            (draft.real, draft.word, 100 + ticks(60))
        );
        assert_eq!(seen.template(), draft.template);
    }
    assert_eq!(table.find(&v4_key(0x7777_0000, 1)), None);
    // All other room is there again, and what was kept expires.
    let mut caches: Vec<_> = (0..3).map(|w| table.cache(w)).collect();
    let mut ended = 0;
    for _ in 0..100 {
        for cache in &mut caches {
            table.sweep(cache, ticks(100), 10_000, |table, cache, due| {
                ended += u32::from(table.remove(cache, due));
            });
        }
    }
    assert_eq!((ended as usize, table.len()), (kept.len() + 1, 0));
    settle(&table, &mut caches);
    let fits = (0..).take_while(|&i| table.insert(&mut caches[0], &v4(i, 9), 0).is_ok());
    assert!(fits.count() >= capacity);
}

/// A settled table goes on as if nothing had happened: nothing is lost, all room is there,
/// and it is settled only once.
#[test]
#[allow(unsafe_code, reason = "takes up a table in memory of the test's own")]
fn a_settled_table_is_taken_up_as_it_is() {
    let (capacity, connections) = if cfg!(miri) { (100, 40) } else { (500, 300) };
    let bytes = Table::needed_bytes(capacity, 2);
    let (_owner, memory) = shared_memory(bytes);
    // SAFETY: the memory is zeroed, long enough, and only the tables below use it.
    let table = unsafe { Table::create_in(memory, capacity, 2, 78) }.unwrap();
    let mut caches = [table.cache(0), table.cache(1)];
    let mut kept = vec![];
    for i in 0..connections as u32 {
        let cache = &mut caches[i as usize % 2];
        let handle = new(&table, cache, &v4(i, 9), 0);
        if i % 3 == 0 {
            assert!(table.remove(cache, handle));
        } else {
            kept.push((v4(i, 9).key, handle));
        }
        if i % 50 == 0 {
            table.quiesce(cache);
        }
    }
    // SAFETY: as above; this one is only asked whether it is settled.
    let unsettled = unsafe { Table::adopt_settled(memory, 1) }.unwrap();
    assert!(unsettled.is_none());
    let seed = table.seed();
    table.leave(caches);
    drop(table);
    // SAFETY: as above, and the table before has ended.
    let adopt = || unsafe { Table::adopt_settled(memory, 3) }.unwrap();
    let table = adopt().expect("settled");
    assert!(adopt().is_none(), "only once");
    assert_eq!((table.len(), table.seed()), (kept.len(), seed));
    for (key, handle) in &kept {
        assert_eq!(table.find(key), Some(*handle));
    }
    let mut cache = table.cache(0);
    let more = (1_000..).take_while(|&i| table.insert(&mut cache, &v4(i, 9), 0).is_ok());
    assert!(more.count() >= capacity - kept.len());
}

/// What the caller does not want is gone, and its room is free.
#[test]
#[allow(unsafe_code, reason = "takes up a table in memory of the test's own")]
fn the_next_process_chooses_what_it_takes_up() {
    choose(false);
    choose(true);
}

#[allow(unsafe_code, reason = "takes up a table in memory of the test's own")]
fn choose(was_changing: bool) {
    let bytes = Table::needed_bytes(100, 1);
    let (_owner, memory) = shared_memory(bytes);
    // SAFETY: the memory is zeroed, long enough, and only the tables below use it.
    let table = unsafe { Table::create_in(memory, 100, 1, 79) }.unwrap();
    let mut cache = table.cache(0);
    for i in 0..10 {
        let mut draft = v4(i, 9);
        draft.server = sched::server::ServerId(i % 2);
        new(&table, &mut cache, &draft, 0);
    }
    let line = &table.memory.workers()[0];
    line.changing.store(was_changing.into(), Ordering::Relaxed);
    drop((table, cache));
    let mut seen = 0;
    let mut keep = |survivor: Survivor| {
        seen += 1;
        survivor.server.0 == 1
    };
    // SAFETY: as above, and the table before has ended.
    let (table, recovered) = unsafe { Table::adopt(memory, 1, &mut keep) }.unwrap();
    assert_eq!((seen, recovered.kept, recovered.dropped), (10, 5, 5));
    assert_eq!(table.find(&v4(2, 9).key), None);
    assert!(table.find(&v4(3, 9).key).is_some());
    let mut cache = table.cache(0);
    let more = (100..).take_while(|&i| table.insert(&mut cache, &v4(i, 9), 0).is_ok());
    assert!(more.count() >= 95, "the room of what is gone is free");
}

/// Killed between bursts: the index stands, and what the workers had taken for themselves
/// comes back; also of connections that take two entries.
#[test]
#[allow(unsafe_code, reason = "takes up a table in memory of the test's own")]
fn a_whole_index_is_gone_on_with() {
    let capacity = if cfg!(miri) { 64 } else { 400 };
    let bytes = Table::needed_bytes(capacity, 2);
    let (_owner, memory) = shared_memory(bytes);
    // SAFETY: the memory is zeroed, long enough, and only the tables below use it.
    let table = unsafe { Table::create_in(memory, capacity, 2, 80) }.unwrap();
    let mut caches = [table.cache(0), table.cache(1)];
    let mut kept = vec![];
    for i in 0..capacity as u32 / 2 {
        let cache = &mut caches[i as usize % 2];
        let mut draft = model_draft(i as u8, (i >> 3) as u8, (i % 4) as u8, 60);
        draft.server = sched::server::ServerId(i % 3);
        let Ok(Inserted::New(handle)) = table.insert(cache, &draft, 100) else {
            continue;
        };
        if i % 4 == 0 {
            assert!(table.remove(cache, handle));
        } else if i % 3 != 0 {
            kept.push((draft, handle));
        }
    }
    drop((caches, table));
    let mut keep = |survivor: Survivor| survivor.server.0 != 0;
    // SAFETY: as above, and the table before has ended.
    let (table, recovered) = unsafe { Table::adopt(memory, 2, &mut keep) }.unwrap();
    assert_eq!((recovered.kept, table.len()), (kept.len(), kept.len()));
    let is_extended = |(draft, _): &&(Draft, Handle)| super::entry::needs_extension(draft);
    let extended = kept.iter().filter(is_extended).count();
    assert!(extended > 0);
    assert_eq!(table.taken(), kept.len() + extended);
    for (draft, handle) in &kept {
        assert_eq!(table.find(&draft.key), Some(*handle));
        assert_eq!(table.view(*handle).real(), draft.real);
    }
    let mut caches = [table.cache(0), table.cache(1)];
    for (_, handle) in &kept {
        assert!(table.remove(&mut caches[0], *handle));
    }
    assert_eq!(table.taken(), 0);
    settle(&table, &mut caches);
    let more = (1_000..).take_while(|&i| table.insert(&mut caches[1], &v4(i, 9), 0).is_ok());
    assert!(more.count() >= capacity);
}

#[test]
#[allow(unsafe_code, reason = "offers a table memory of the test's own")]
fn memory_that_is_no_table_is_refused() {
    let bytes = Table::needed_bytes(100, 1);
    let (_owner, memory) = shared_memory(bytes);
    // SAFETY: the memory is zeroed and only this test uses it, one table at a time.
    let adopt = |memory| unsafe { Table::adopt(memory, 1, &mut |_| true) }.err();
    let part = |from: usize, len| {
        // SAFETY: within the memory above.
        NonNull::slice_from_raw_parts(unsafe { memory.cast::<u8>().add(from) }, len)
    };
    assert_eq!(adopt(memory), Some(RegionError::NotATable));
    assert_eq!(
        adopt(part(0, 64)),
        Some(RegionError::TooSmall { needed_bytes: 256 })
    );
    assert_eq!(adopt(part(8, bytes - 8)), Some(RegionError::Unaligned));
    // SAFETY: as above.
    let create = |memory| unsafe { Table::create_in(memory, 100, 1, 1) }.err();
    assert_eq!(
        create(part(0, bytes - 1)),
        Some(RegionError::TooSmall {
            needed_bytes: bytes
        })
    );
    assert_eq!(create(memory), None);
    assert_eq!(
        adopt(part(0, bytes - 1)),
        Some(RegionError::TooSmall {
            needed_bytes: bytes
        })
    );
    assert_eq!(adopt(memory), None);
    let write = |word: usize, value: u64| {
        // SAFETY: a header's word, while no table uses the memory.
        unsafe { memory.cast::<u64>().add(word).write(value) }
    };
    write(4, u64::MAX);
    assert_eq!(adopt(memory), Some(RegionError::Damaged));
    write(1, 9);
    assert_eq!(adopt(memory), Some(RegionError::OtherLayout { found: 9 }));
}

/// Threads insert, find, remove, touch and sweep the same few connections. Each key's
/// entry in force is counted: never two at once, and at the end none is lost.
#[test]
fn threads_agree() {
    let (threads, keys, rounds) = if cfg!(miri) {
        (2, 3, 60)
    } else {
        (4, 24, 60_000)
    };
    let table = Table::new(64, threads, 9);
    let in_force: Vec<_> = (0..keys).map(|_| AtomicU32::new(0)).collect();
    let full = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    let make = |i: usize| {
        let kind = (i % 4) as u8;
        model_draft((i % 3) as u8, i as u8, kind, 5)
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut rows = 0_u64;
            let began = std::time::Instant::now();
            // The limit ends it where a worker failed and the end is never told.
            while !done.load(Ordering::Relaxed) && began.elapsed().as_secs() < 60 {
                for index in 0..table.high_water() {
                    if let Some(row) = table.read(index) {
                        let i = usize::from(row.key.virtual_.port);
                        let draft = make(i);
                        assert_eq!((row.key, row.real), (draft.key, draft.real));
                        assert_eq!(row.server, draft.server);
                        rows += 1;
                    }
                }
                std::thread::yield_now();
            }
            rows
        });
        let workers: Vec<_> = (0..threads)
            .map(|w| {
                let (table, in_force, full) = (&table, &in_force, &full);
                scope.spawn(move || {
                    let mut cache = table.cache(w);
                    let mut random = (w as u32).wrapping_mul(2_654_435_761) | 1;
                    for round in 0..rounds {
                        random ^= random << 13;
                        random ^= random >> 17;
                        random ^= random << 5;
                        let i = random as usize % keys;
                        let draft = make(i);
                        let remove = |table: &Table, cache: &mut Cache, handle| {
                            let key = table.view(handle).key();
                            let i = usize::from(key.virtual_.port);
                            assert_eq!(key, make(i).key);
                            // Counted down before: another may enter it right after.
                            in_force[i].fetch_sub(1, Ordering::SeqCst);
                            if !table.remove(cache, handle) {
                                in_force[i].fetch_add(1, Ordering::SeqCst);
                            }
                        };
                        match random >> 8 & 7 {
                            0..=2 => match table.insert(&mut cache, &draft, round) {
                                Ok(Inserted::New(handle)) => {
                                    in_force[i].fetch_add(1, Ordering::SeqCst);
                                    assert_eq!(table.view(handle).real(), draft.real);
                                }
                                Ok(Inserted::Found(handle)) => {
                                    assert_eq!(table.view(handle).key(), draft.key);
                                }
                                Err(Full) => drop(full.fetch_add(1, Ordering::Relaxed)),
                            },
                            3..=4 => {
                                if let Some(handle) = table.find(&draft.key) {
                                    let seen = table.view(handle);
                                    assert_eq!((seen.key(), seen.real()), (draft.key, draft.real));
                                    seen.touch(round.wrapping_add(seen.timeout()));
                                }
                            }
                            5 => {
                                if let Some(handle) = table.find(&draft.key) {
                                    table.view(handle).set_timeout(round, random >> 16 & 31);
                                }
                            }
                            6 => {
                                if let Some(handle) = table.find(&draft.key) {
                                    remove(table, &mut cache, handle);
                                }
                            }
                            _ => table.sweep(&mut cache, round, 100, remove),
                        }
                        if random >> 24 & 3 == 0 {
                            table.quiesce(&mut cache);
                        }
                        if random >> 20 & 255 == 0 {
                            table.pause(&mut cache);
                            std::thread::yield_now();
                            table.resume(&mut cache);
                        }
                    }
                    table.pause(&mut cache);
                })
            })
            .collect();
        workers
            .into_iter()
            .for_each(|worker| worker.join().unwrap());
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    for (i, count) in in_force.iter().enumerate() {
        let found = table.find(&make(i).key).is_some() as u32;
        assert_eq!(count.load(Ordering::SeqCst), found, "key {i}");
    }
    let sum: u32 = in_force.iter().map(|n| n.load(Ordering::SeqCst)).sum();
    assert_eq!(table.len(), sum as usize);
    let rows = (0..table.high_water()).filter(|&i| table.read(i).is_some());
    assert_eq!(rows.count(), sum as usize);
}

/// Two threads meet at each key: one entry, and both have it.
#[test]
fn of_two_insertions_one_stands() {
    let rounds = if cfg!(miri) { 20 } else { 20_000 };
    // Room for both drafts of every key: the losers' places are not free again before
    // bursts end, and here none ends.
    let table = Table::new(2 * rounds as usize, 2, 5);
    let barrier = AtomicU32::new(0);
    let enter = |w: usize| {
        let mut cache = table.cache(w);
        let mut new = vec![];
        for i in 0..rounds {
            // Together every 100 keys only: on a busy machine each wait may cost a time slice.
            if i % 100 == 0 {
                barrier.fetch_add(1, Ordering::SeqCst);
                while barrier.load(Ordering::SeqCst) < 2 * (i / 100 + 1) {
                    std::thread::yield_now();
                }
            }
            match table.insert(&mut cache, &v4(i, 1), 0).unwrap() {
                Inserted::New(handle) => new.push((handle, true)),
                Inserted::Found(handle) => new.push((handle, false)),
            }
        }
        new
    };
    let (a, b) = std::thread::scope(|scope| {
        let a = scope.spawn(|| enter(0));
        (enter(1), a.join().unwrap())
    });
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(a.0, b.0);
        assert!(a.1 != b.1, "{a:?} {b:?}");
    }
    assert_eq!(table.len(), rounds as usize);
}
