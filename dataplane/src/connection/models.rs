//! All interleavings (with up to three or four preemptions) of two cores in the table, by loom:
//! `RUSTFLAGS="--cfg loom" cargo test -p lvx-dataplane --lib connection --release`.

use loom::sync::Arc;
use loom::thread;
use sched::server::ServerId;
use sched::service::Family;

use super::table::*;
use crate::address::Endpoint;
use crate::time::Ticks;

fn key(client: u128) -> Key {
    Key {
        family: Family::V4,
        template: false,
        protocol: 6,
        client: Endpoint {
            address: client,
            port: 1,
        },
        virtual_: Endpoint {
            address: 9,
            port: 80,
        },
    }
}

fn draft(client: u128) -> Draft {
    Draft {
        key: key(client),
        real_family: Family::V4,
        real: Endpoint {
            address: client << 8,
            port: 8080,
        },
        server: ServerId(client as u32),
        word: 0,
        mark: 0,
        template: None,
        timeout: 100,
    }
}

fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions + 1);
    builder.max_branches = 20_000;
    builder.check(check);
}

fn new(table: &Table, cache: &mut Cache, draft: &Draft, now: Ticks) -> Handle {
    match table.insert(cache, draft, now) {
        Ok(Inserted::New(handle)) => handle,
        other => panic!("{other:?}"),
    }
}

fn rows(table: &Table) -> usize {
    (0..table.high_water())
        .filter(|&i| table.read(i).is_some())
        .count()
}

#[test]
fn of_two_insertions_of_one_connection_one_stands() {
    model(3, || {
        let table = Arc::new(Table::new(2, 2, 1));
        let other = table.clone();
        let thread = thread::spawn(move || {
            let mut cache = other.cache(1);
            other.insert(&mut cache, &draft(1), 0)
        });
        let mut cache = table.cache(0);
        let mine = table.insert(&mut cache, &draft(1), 0);
        let theirs = thread.join().unwrap();
        let news = |r: &Result<Inserted, Full>| usize::from(matches!(r, Ok(Inserted::New(_))));
        assert!(news(&mine) + news(&theirs) <= 1);
        assert_eq!(rows(&table), news(&mine) + news(&theirs));
        assert_eq!(table.len(), rows(&table));
        let handle = |r| match r {
            Ok(Inserted::New(handle) | Inserted::Found(handle)) => Some(handle),
            Err(Full) => None,
        };
        if let (Some(mine), Some(theirs)) = (handle(mine), handle(theirs)) {
            assert_eq!(mine, theirs);
            assert_eq!(table.find(&key(1)), Some(mine));
        }
    });
}

#[test]
fn who_finds_an_entry_finds_all_of_it() {
    model(3, || {
        let table = Arc::new(Table::new(2, 2, 1));
        let other = table.clone();
        let thread = thread::spawn(move || {
            let mut cache = other.cache(1);
            new(&other, &mut cache, &draft(1), 7)
        });
        let reader = table.cache(0);
        let found = table.find(&key(1));
        if let Some(handle) = found {
            let seen = table.view(handle);
            assert_eq!((seen.real(), seen.server()), (draft(1).real, ServerId(1)));
            assert_eq!((seen.expires(), seen.timeout()), (107, 100));
        }
        let handle = thread.join().unwrap();
        assert!(found.is_none_or(|found| found == handle));
        assert_eq!(table.find(&key(1)), Some(handle));
        drop(reader);
    });
}

#[test]
fn an_entry_is_not_used_anew_while_somebody_looks() {
    model(2, || {
        let table = Arc::new(Table::new(1, 2, 1));
        let mut cache = table.cache(0);
        let mut reader = table.cache(1);
        new(&table, &mut cache, &draft(1), 0);
        let other = table.clone();
        let thread = thread::spawn(move || {
            if let Some(handle) = other.find(&key(1)) {
                let seen = other.view(handle);
                assert_eq!((seen.client(), seen.real()), (key(1).client, draft(1).real));
            }
            other.quiesce(&mut reader);
            other.pause(&mut reader);
        });
        let handle = table.find(&key(1)).unwrap();
        assert!(table.remove(&mut cache, handle));
        table.quiesce(&mut cache);
        table.quiesce(&mut cache);
        // Of the few entries, some are free at once, the first only when it is left alone.
        let mut second = 2;
        while table.insert(&mut cache, &draft(second), 0).is_ok() && second < 9 {
            second += 1;
        }
        thread.join().unwrap();
        assert_eq!(table.find(&key(1)), None);
    });
}

#[test]
fn a_worker_that_wakes_is_waited_for() {
    model(3, || {
        let table = Arc::new(Table::new(1, 2, 1));
        let mut cache = table.cache(0);
        let mut sleeper = table.cache(1);
        table.pause(&mut sleeper);
        let first = new(&table, &mut cache, &draft(1), 0);
        let other = table.clone();
        let thread = thread::spawn(move || {
            other.resume(&mut sleeper);
            if let Some(handle) = other.find(&key(1)) {
                assert_eq!(other.view(handle).real(), draft(1).real);
            }
        });
        assert!(table.remove(&mut cache, first));
        table.quiesce(&mut cache);
        table.quiesce(&mut cache);
        new(&table, &mut cache, &draft(2), 0);
        thread.join().unwrap();
    });
}

#[test]
fn one_of_two_removals_wins() {
    model(3, || {
        let table = Arc::new(Table::new(2, 2, 1));
        let mut cache = table.cache(0);
        let mut second = table.cache(1);
        let handle = new(&table, &mut cache, &draft(1), 0);
        let other = table.clone();
        let thread = thread::spawn(move || other.remove(&mut second, handle));
        let mine = table.remove(&mut cache, handle);
        assert!(mine != thread.join().unwrap());
        assert!(table.is_empty() && table.find(&key(1)).is_none());
    });
}

#[test]
fn the_sweep_meets_an_earlier_expiry() {
    model(3, || {
        let table = Arc::new(Table::new(2, 2, 1));
        let mut cache = table.cache(0);
        let handle = new(&table, &mut cache, &draft(1), 0);
        table.view(handle).set_timeout(0, 900);
        let other = table.clone();
        let thread = thread::spawn(move || other.view(handle).set_timeout(100, 50));
        // The hint says 100, the entry 900: the sweep sets it anew meanwhile.
        table.sweep(&mut cache, 100, 16, |_, _, _| panic!("nothing is due"));
        thread.join().unwrap();
        let mut due = 0;
        table.sweep(&mut cache, 150, 16, |_, _, _| due += 1);
        assert_eq!(due, 1);
    });
}

#[test]
fn a_template_that_ends_meanwhile_is_not_held() {
    model(2, || {
        let table = Arc::new(Table::new(3, 2, 1));
        let mut cache = table.cache(0);
        let mut second = table.cache(1);
        let mut of_template = draft(1);
        of_template.key.template = true;
        let template = new(&table, &mut cache, &of_template, 0);
        let other = table.clone();
        let thread = thread::spawn(move || other.remove(&mut second, template));
        let held = Draft {
            template: Some(template),
            ..draft(2)
        };
        let handle = new(&table, &mut cache, &held, 0);
        assert!(thread.join().unwrap());
        assert_eq!(table.view(handle).template(), None);
        assert!(table.remove(&mut cache, handle));
    });
}
