//! Removes what a killed director left, for those that none comes after.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use dataplane::port::steering::Pins;

use super::state_dir::{StateDir, StateError};

/// What was removed, in words. Refuses while a director runs.
pub fn clean(folder: &Path, api: &Path) -> Result<Vec<String>, StateError> {
    let mut removed = Vec::new();
    if folder.exists() {
        let dir = StateDir::claim(folder)?;
        if let Some(pins) = Pins::existing(dir.name()) {
            pins.remove().map_err(|error| StateError::Folder {
                path: pins.folder().to_owned(),
                error,
            })?;
            removed.push(format!(
                "the steering program pinned at {}: services' frames are the host's again",
                pins.folder().display()
            ));
        }
        let path = dir.folder().to_owned();
        dir.remove();
        removed.push(format!("the state in {}", path.display()));
    }
    let is_socket = std::fs::symlink_metadata(api).is_ok_and(|m| m.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket
        && UnixStream::connect(api).is_err_and(refused)
        && std::fs::remove_file(api).is_ok()
    {
        removed.push(format!("the socket {}", api.display()));
    }
    Ok(removed)
}
