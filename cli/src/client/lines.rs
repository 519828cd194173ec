//! JSON objects, one a line, out of a stream that is cut anywhere.

use std::ops::ControlFlow;

use serde::de::DeserializeOwned;

/// Joins what is cut. Holds at most one unfinished line.
#[derive(Debug, Default)]
pub struct Lines {
    unfinished: Vec<u8>,
}

impl Lines {
    /// Hands every row that `data` completes to `each`, until it breaks off.
    pub fn push<T: DeserializeOwned>(
        &mut self,
        data: &[u8],
        each: &mut dyn FnMut(T) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, serde_json::Error> {
        let mut rest = data;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, after) = rest.split_at(end);
            rest = &after[1..];
            let flow = if self.unfinished.is_empty() {
                read(line, each)?
            } else {
                self.unfinished.extend_from_slice(line);
                let flow = read(&self.unfinished, each)?;
                self.unfinished.clear();
                flow
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        self.unfinished.extend_from_slice(rest);
        Ok(ControlFlow::Continue(()))
    }

    /// Whether the stream ended at the end of a line.
    pub fn finish(self) -> Result<(), &'static str> {
        match self.unfinished.is_empty() {
            true => Ok(()),
            false => Err("the list of connections is cut off"),
        }
    }
}

fn read<T: DeserializeOwned>(
    line: &[u8],
    each: &mut dyn FnMut(T) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, serde_json::Error> {
    match line.trim_ascii() {
        [] => Ok(ControlFlow::Continue(())),
        line => serde_json::from_slice(line).map(each),
    }
}
