//! The fuzz targets `api` and `state`; see `tests/fuzz`. Bytes of any kind get an answer,
//! and a state that was taken can be worked with.

use std::sync::Arc;

use cli::api::{Batch, ExplainRequest, Trial};
use dataplane::connection::table::Table;
use dataplane::hops::Hops;
use sched::table::Limits;

use crate::director::control::state::State;
use crate::director::explain::{World, explain};
use crate::director::neighbours::View;
use crate::director::state_dir::document::{self, Header};
use crate::director::state_dir::restore;

/// Small, so that limits are met.
const LIMITS: Limits = Limits {
    services: 8,
    servers: 32,
};

/// Each line is one body. A batch or trial changes the state, a request is explained by it.
pub fn api(data: &[u8]) {
    let mut state = State::new(LIMITS);
    let table = Table::new(64, 1, 7);
    for (line, now_s) in data.split(|&byte| byte == b'\n').zip(0..) {
        if let Ok(request) = serde_json::from_slice::<ExplainRequest>(line) {
            let world = World {
                snapshot: Arc::new(state.snapshot(1, &nowhere())),
                steered: Default::default(),
                ports: vec!["eth0".into()],
            };
            let _ = explain(&world, &table, 1000, &request);
            continue;
        }
        let batch = serde_json::from_slice::<Batch>(line).or_else(|_| {
            serde_json::from_slice::<Trial>(line).map(|trial| Batch {
                commands: trial.commands,
                atomic: true,
            })
        });
        let Ok(batch) = batch else { continue };
        let before = state.config();
        let (refusals, _) = state.run(&batch, now_s, &|_| Ok(()));
        assert_eq!(refusals.len(), batch.commands.len());
        let is_refused = refusals.iter().any(Option::is_some);
        if batch.atomic && is_refused {
            assert_eq!(state.config(), before, "half a batch is in force");
        }
        state.snapshot(1, &nowhere());
        state.reap(now_s);
    }
}

/// A document, as it is; and its lines with checksums that fit, since no fuzzer guesses
/// those.
pub fn state(data: &[u8]) {
    take(data);
    let mut summed = document::write(&Header::default(), &[]).into_bytes();
    for line in data.split(|&byte| byte == b'\n') {
        summed.extend(format!("{:08x} ", crc32c::crc32c(line)).into_bytes());
        summed.extend(line);
        summed.push(b'\n');
    }
    take(&summed);
}

fn take(bytes: &[u8]) {
    let Ok((_, document)) = document::read(bytes) else {
        return;
    };
    let Ok(mut state) = restore(&document, LIMITS) else {
        return;
    };
    state.snapshot(1, &nowhere());
    state.config();
    if let Some(waiting) = document.waiting {
        let batch = Batch {
            commands: waiting.undo,
            atomic: false,
        };
        state.run(&batch, 1, &|_| Ok(()));
    }
    state.reap(1);
    state.snapshot(2, &nowhere());
}

/// A host without routes.
fn nowhere() -> View {
    View {
        hops: Hops::default(),
        ..View::default()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// What the fuzzer found worth keeping, again.
    fn replay(name: &str, body: fn(&[u8])) {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        let files: Vec<_> = fs::read_dir(corpora.join(name)).unwrap().collect();
        assert!(!files.is_empty(), "the corpus of {name} is gone");
        for file in files {
            body(&fs::read(file.unwrap().path()).unwrap());
        }
    }

    #[test]
    fn the_corpus_of_api() {
        replay("api", super::api);
    }

    #[test]
    fn the_corpus_of_state() {
        replay("state", super::state);
    }
}
