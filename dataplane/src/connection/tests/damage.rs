//! A table whose memory was damaged while no process had it: taking it up never panics, and
//! neither does working on with it.
#![allow(unsafe_code, reason = "takes up a table in memory of the test's own")]

use super::*;

const CAPACITY: usize = 60;
const WORKERS: usize = 1;

/// A table with connections of one and of two entries, and templates, whose process ended.
fn left(memory: NonNull<[u8]>) -> Vec<Key> {
    // SAFETY: the memory is zeroed, long enough, and only the tables of this test use it.
    let table = unsafe { Table::create_in(memory, CAPACITY, WORKERS, 81) }.unwrap();
    let mut cache = table.cache(0);
    let mut keys = Vec::new();
    let mut template = None;
    for i in 0..CAPACITY as u8 / 2 {
        let mut draft = model_draft(i, i >> 3, i % 4, 60);
        draft.template = template.filter(|_| i % 3 == 0);
        if let Ok(Inserted::New(handle)) = table.insert(&mut cache, &draft, 100) {
            keys.push(draft.key);
            template = Some(handle);
        }
    }
    keys
}

/// Everything that a director does with a table.
fn use_it(table: &Table, keys: &[Key]) {
    let mut cache = table.cache(0);
    for index in 0..table.high_water() {
        let _ = table.read(index);
    }
    for key in keys {
        if let Some(handle) = table.find(key) {
            let view = table.view(handle);
            let _ = (view.key(), view.real(), view.virtual_(), view.client());
            let _ = table.find_reply(key.family, key.protocol, key.client, view.real());
            if key.client.port % 2 == 0 {
                table.remove(&mut cache, handle);
            }
        }
    }
    // Half of what is left runs out.
    let late = 100 + ticks(1_000_000);
    for _ in 0..10 {
        table.sweep(&mut cache, late, 10_000, |table, cache, due| {
            if due.index % 2 == 0 {
                table.remove(cache, due);
            }
        });
        table.quiesce(&mut cache);
    }
    for i in 0..2 * CAPACITY as u32 {
        let _ = table.insert(&mut cache, &v4(i, 9), 100);
        table.quiesce(&mut cache);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_survived(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u32>()), 1..40),
        far in any::<bool>(),
    ) {
        let bytes = Table::needed_bytes(CAPACITY, WORKERS);
        let (mut owner, memory) = shared_memory(bytes);
        let keys = left(memory);
        let words = owner.len() * 16;
        for (place, value) in changes {
            let place = place.index(words);
            let line = &mut owner[place / 16].0;
            let at = place % 16 * 4;
            // Small numbers are likelier to be taken for something.
            let value = if far { value } else { value % 128 };
            line[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        // SAFETY: as above, and the table before has ended.
        let taken_up = unsafe { Table::adopt(memory, WORKERS, &mut |s| s.server.0 % 5 != 0) };
        if let Ok((table, _)) = taken_up {
            use_it(&table, &keys);
        }
        drop(owner);
    }
}
