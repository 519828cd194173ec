//! Removes what a killed director left, for those that none comes after.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use dataplane::port::steering::Pins;

use super::state_dir::document::Header;
use super::state_dir::{self, StateDir, StateError};

/// What was done, in words.
#[derive(Debug, Default)]
pub struct Cleaned {
    /// What was removed.
    pub removed: Vec<String>,
    /// What was left, and why.
    pub left: Vec<String>,
}

/// Removes the state in `folder` and what belongs to it; where nobody named that folder,
/// also what network namespaces that are gone left for the same API. Refuses while a
/// director runs, and leaves what one in another network namespace may still take up.
pub fn clean(folder: &Path, is_named: bool, api: &Path) -> Result<Cleaned, StateError> {
    let mut cleaned = Cleaned::default();
    if folder.exists() || !is_named {
        let was_there = folder.exists();
        let dir = StateDir::claim(folder)?;
        cleaned.own(&dir)?;
        cleaned.elsewhere(&dir, (!is_named).then_some(api));
        let path = dir.folder().display().to_string();
        dir.remove();
        if was_there {
            cleaned.removed.push(format!("the state in {path}"));
        }
    }
    cleaned.socket(api);
    Ok(cleaned)
}

/// Removes what directors like this folder's left in network namespaces that are gone: none
/// works there any more, and each device that their program was on is gone or has come to
/// this one. `api`, where the folder is its default one.
pub fn clean_elsewhere(dir: &StateDir, api: Option<&Path>) -> Cleaned {
    let mut cleaned = Cleaned::default();
    cleaned.elsewhere(dir, api);
    cleaned
}

impl Cleaned {
    /// The pins that go with a state, which may be of another network namespace.
    fn own(&mut self, dir: &StateDir) -> Result<(), StateError> {
        let own = dir.namespace().number();
        let before = header(dir).map_or(own, |header| header.namespace);
        if let Some(pins) = Pins::existing(&dir.name()) {
            self.pins(&pins, pins.remove())?;
        }
        if before == own {
            return Ok(());
        }
        if let Some(pins) = Pins::existing(&dir.name_in(before)) {
            let elsewhere = || StateError::Elsewhere(dir.folder().to_owned());
            let forsaken = pins.forsaken().ok_or_else(elsewhere)?;
            self.pins(&pins, forsaken.remove())?;
        }
        dir.remove_huge_file(before);
        Ok(())
    }

    fn elsewhere(&mut self, dir: &StateDir, api: Option<&Path>) {
        let folders = api.map(StateDir::default_folders_elsewhere);
        for folder in folders.unwrap_or_default() {
            self.state_elsewhere(&folder);
        }
        for (_, pins) in Pins::all(|name| dir.is_name_elsewhere(name)) {
            if let Some(forsaken) = pins.forsaken()
                && let Err(error) = self.pins(&pins, forsaken.remove())
            {
                self.left.push(error.to_string());
            }
        }
    }

    fn state_elsewhere(&mut self, folder: &Path) {
        let path = folder.display().to_string();
        let dir = match StateDir::claim(folder) {
            Ok(dir) => dir,
            Err(StateError::InUse(_)) => return,
            Err(error) => return self.left.push(error.to_string()),
        };
        let Some(header) = header(&dir) else {
            return self
                .left
                .push(format!("{path}: it is not known whose it is"));
        };
        if header.boot == state_dir::boot() {
            let pins = Pins::existing(&dir.name_in(header.namespace));
            if let Err(why) = self.pins_elsewhere(pins.as_ref()) {
                return self.left.push(format!("{path}: {why}"));
            }
        }
        dir.remove_huge_file(header.namespace);
        dir.remove();
        self.removed.push(format!("the state in {path}"));
    }

    fn pins_elsewhere(&mut self, pins: Option<&Pins>) -> Result<(), String> {
        let why = "a director in its network namespace may take it up; `lvx clean` there, or \
                   remove the folder";
        let pins = pins.ok_or(why)?;
        let forsaken = pins.forsaken().ok_or(why)?;
        let removed = self.pins(pins, forsaken.remove());
        removed.map_err(|error| error.to_string())
    }

    fn pins(&mut self, pins: &Pins, removed: io::Result<()>) -> Result<(), StateError> {
        let path = pins.folder();
        removed.map_err(|error| StateError::Folder {
            path: path.to_owned(),
            error,
        })?;
        self.removed.push(format!(
            "the steering program pinned at {}: services' frames are the host's again",
            path.display()
        ));
        Ok(())
    }

    fn socket(&mut self, api: &Path) {
        let is_socket = std::fs::symlink_metadata(api).is_ok_and(|m| m.file_type().is_socket());
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if is_socket
            && UnixStream::connect(api).is_err_and(refused)
            && std::fs::remove_file(api).is_ok()
        {
            self.removed.push(format!("the socket {}", api.display()));
        }
    }
}

/// What a folder's state belongs to, as far as it can be read.
fn header(dir: &StateDir) -> Option<Header> {
    Some(dir.read().ok()??.header)
}
