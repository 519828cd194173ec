//! The state that outlives the process: a folder with the connection table, the counters
//! and the document. One director at a time uses it, which its lock sees to.
//!
//! | File | What |
//! |-|-|
//! | `lock` | locked while a director runs |
//! | `state` | the document: services, servers, marks, tunables |
//! | `table` | the connection table, mapped (or a file of huge pages elsewhere) |
//! | `counters` | every worker's counters, mapped |
//! | `refused/` | the last state that was set aside |

pub mod document;
pub mod journal;
mod restore;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use dataplane::port::namespace::Namespace;
use dataplane::port::shared_memory::SharedMemory;
use rustix::fs::{FlockOperation, flock};

use document::{Document, Header, Refused};
pub use restore::{Loads, restore};

/// Where states live whose folder nobody named.
const SHARED_MEMORY: &str = "/dev/shm";

/// TMPFS_MAGIC and RAMFS_MAGIC of linux/magic.h: file systems that are memory.
const MEMORY_FILE_SYSTEMS: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// HUGETLBFS_MAGIC of linux/magic.h.
const HUGETLBFS_MAGIC: u64 = 0x958458f6;

/// The size of the pages there.
const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// Why no state can be kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another director uses it.
    #[error(
        "{0} is in use by a running director: end it, take its place with --take-over, or name \
         another folder with --state-dir"
    )]
    InUse(PathBuf),
    /// It is another network namespace's, whose next director will want it.
    #[error(
        "the state in {0} is of another network namespace, where its director was killed: start \
         the next one there, give it up with `lvx clean` there, or name another folder with \
         --state-dir"
    )]
    Elsewhere(PathBuf),
    /// There is no shared memory to make the folder in.
    #[error(
        "no shared memory at {SHARED_MEMORY} ({0}): `mount -t tmpfs -o size=1g tmpfs \
         {SHARED_MEMORY}`, start a container with `--shm-size 1g`, or name a folder with \
         --state-dir"
    )]
    NoSharedMemory(io::Error),
    /// The folder cannot be used.
    #[error("the state folder {path} cannot be used ({error}): name another with --state-dir")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// There is not enough room.
    #[error(
        "{path} has no room for the {what}, {needed_mib} MiB ({error}): make its file system \
         larger (`mount -o remount,size=SIZE MOUNTPOINT`, a container's /dev/shm with `--shm-size`), \
         lower --connections, or name another folder with --state-dir"
    )]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// What was to be in it.
        what: &'static str,
        /// How much that is.
        needed_mib: u64,
        /// What the kernel said.
        error: io::Error,
    },
}

/// A state folder that this process has locked.
#[derive(Debug)]
pub struct StateDir {
    folder: PathBuf,
    lock: File,
    /// What pins are named by in all network namespaces.
    stem: String,
    namespace: Namespace,
}

/// What an earlier process left.
#[derive(Debug)]
pub struct Left {
    /// What it belongs to.
    pub header: Header,
    /// What was written down.
    pub document: Document,
}

impl StateDir {
    /// The folder of a director in the calling thread's network namespace whose API is
    /// `api`, where nobody named another.
    pub fn default_folder(api: &Path) -> PathBuf {
        let mark = Namespace::current().map_or_else(|_| String::new(), Namespace::mark);
        let name = format!("{}{mark}", Self::default_stem(api));
        Path::new(SHARED_MEMORY).join(name)
    }

    fn default_stem(api: &Path) -> String {
        // The same for the same socket, wherever a director is started.
        let path = std::path::absolute(api).unwrap_or_else(|_| api.to_owned());
        format!("lvx-{}", name_of(&path))
    }

    /// The default folders for this API that other network namespaces have, or had.
    pub fn default_folders_elsewhere(api: &Path) -> Vec<PathBuf> {
        let (stem, own) = (Self::default_stem(api), Self::default_folder(api));
        let entries = fs::read_dir(SHARED_MEMORY).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            is_marked(&name, &stem) && *path != own && path.is_dir()
        });
        paths.collect()
    }

    /// A folder that another director still has locked; see [`StateDir::lock`].
    pub fn follow(folder: &Path) -> Result<Self, StateError> {
        Self::open(folder)
    }

    /// Locks a folder, which is made where it is not there.
    pub fn claim(folder: &Path) -> Result<Self, StateError> {
        let dir = Self::open(folder)?;
        dir.lock()?;
        Ok(dir)
    }

    /// Locks it, if nobody else has.
    pub fn lock(&self) -> Result<(), StateError> {
        match flock(&self.lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse(self.folder.clone())),
            Err(error) => Err(StateError::Folder {
                path: self.folder.clone(),
                error: error.into(),
            }),
        }
    }

    fn open(folder: &Path) -> Result<Self, StateError> {
        let failed = |error: io::Error| StateError::Folder {
            path: folder.to_owned(),
            error,
        };
        match folder.parent() {
            // Not made: on a disk it would be none.
            Some(parent) if parent == Path::new(SHARED_MEMORY) => {
                fs::metadata(parent).map_err(StateError::NoSharedMemory)?;
            }
            Some(parent) => fs::create_dir_all(parent).map_err(failed)?,
            None => {}
        }
        // It holds all clients' addresses.
        let mode = rustix::fs::Mode::RWXU;
        match rustix::fs::mkdir(folder, mode) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(failed(error.into())),
        }
        check_owner(folder).map_err(failed)?;
        let lock = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(folder.join("lock"))
            .map_err(failed)?;
        let folder = fs::canonicalize(folder).map_err(failed)?;
        let namespace = Namespace::current().map_err(failed)?;
        let stem = stem_of(&folder);
        Ok(Self {
            stem,
            namespace,
            lock,
            folder,
        })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The network namespace that this process is in.
    pub fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// What else of this director is named by: pins, a file of huge pages.
    pub fn name(&self) -> String {
        self.name_in(self.namespace.number())
    }

    /// The same for a director of this folder in another network namespace; 0 where an lvx
    /// that did not tell them apart used it.
    pub fn name_in(&self, namespace: u64) -> String {
        let mark = match namespace {
            0 => String::new(),
            number => Namespace::of(number).mark(),
        };
        format!("{}{mark}", self.stem)
    }

    /// Has a state that another network namespace left be this one's.
    pub fn adopt(&self, header: &mut Header) {
        let theirs = huge_file(&self.name_in(header.namespace));
        let own = huge_file(&self.name());
        if let (Some(theirs), Some(own)) = (theirs, own)
            && Path::new(&header.table_file) == theirs
            && fs::rename(&theirs, &own).is_ok()
        {
            header.table_file = own.to_string_lossy().into_owned();
        }
        header.namespace = self.namespace.number();
    }

    /// Whether another network namespace's director of this folder has this name, or one of
    /// an lvx that did not tell them apart.
    pub fn is_name_elsewhere(&self, name: &str) -> bool {
        is_marked(name, &self.stem) && name != self.name()
    }

    /// Whether the folder's files are on a disk, which writes them back again and again.
    pub fn is_on_disk(&self) -> bool {
        let kind = rustix::fs::statfs(&self.folder).map(|found| found.f_type as u64);
        kind.is_ok_and(|kind| !MEMORY_FILE_SYSTEMS.contains(&kind))
    }

    /// The document's file.
    pub fn document(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Changes whenever the document does.
    pub fn stamp(&self) -> (u64, u64) {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(self.document()).map_or((0, 0), |meta| (meta.ino(), meta.len()))
    }

    /// What an earlier process left; none where there is nothing.
    pub fn read(&self) -> Result<Option<Left>, Refused> {
        let path = self.document();
        let failed = |error: io::Error| Refused::File {
            what: path.display().to_string(),
            why: error.to_string(),
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        let length = file
            .take(document::BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if length as u64 == document::BYTES_MAX {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        let (header, document) = document::read(&bytes)?;
        Ok(Some(Left { header, document }))
    }

    /// Maps the table that a header names.
    pub fn open_table(&self, header: &Header) -> Result<SharedMemory, Refused> {
        let path = PathBuf::from(&header.table_file);
        let refused = |error: io::Error| Refused::File {
            what: path.display().to_string(),
            why: error.to_string(),
        };
        // The header is only text: what it names must be what this director would name so.
        let is_own =
            path == self.folder.join("table") || Some(&path) == huge_file(&self.name()).as_ref();
        if !is_own {
            return Err(refused(io::ErrorKind::InvalidInput.into()));
        }
        let file = File::options().read(true).write(true).open(&path);
        let file = file.map_err(refused)?;
        SharedMemory::map(&file).map_err(refused)
    }

    /// Memory for a new table, all zero, and where it is. `huge` asks for huge pages; why
    /// they are not used, where they are not, comes with it.
    pub fn new_table(
        &self,
        bytes: usize,
        huge: bool,
    ) -> Result<(SharedMemory, PathBuf, Option<String>), StateError> {
        let mut warning = None;
        if huge {
            match self.new_huge_table(bytes as u64) {
                Ok((memory, path)) => return Ok((memory, path, None)),
                Err(why) => warning = Some(why),
            }
        }
        let path = self.folder.join("table");
        let bytes = bytes.next_multiple_of(4096) as u64;
        let memory = reserve(&path, bytes, "connection table")?;
        Ok((memory, path, warning))
    }

    fn new_huge_table(&self, bytes: u64) -> Result<(SharedMemory, PathBuf), String> {
        let path = huge_file(&self.name()).ok_or(
            "no file system of huge pages is mounted (`mkdir -p /dev/hugepages && mount -t \
             hugetlbfs none /dev/hugepages`): the table is in pages of 4 KiB",
        )?;
        let bytes = bytes.next_multiple_of(HUGE_PAGE_BYTES);
        let pages = bytes / HUGE_PAGE_BYTES;
        match reserve(&path, bytes, "connection table") {
            Ok(memory) => Ok((memory, path)),
            Err(_) => {
                let _ = fs::remove_file(&path);
                Err(format!(
                    "there are no {pages} free huge pages (`sysctl -w vm.nr_hugepages={pages}` \
                     or more): the table is in pages of 4 KiB"
                ))
            }
        }
    }

    /// The memory for counters, at least `bytes`: what is there, made longer if need be.
    pub fn counters(&self, bytes: usize, go_on: bool) -> Result<SharedMemory, StateError> {
        let path = self.folder.join("counters");
        if !go_on {
            let _ = fs::remove_file(&path);
        }
        let there = fs::metadata(&path).map_or(0, |meta| meta.len());
        let bytes = (bytes as u64).next_multiple_of(4096).max(there);
        reserve(&path, bytes, "counters")
    }

    /// Puts what is there aside, in the place of what was put aside before.
    pub fn set_aside(&self) -> PathBuf {
        let aside = self.folder.join("refused");
        let _ = fs::remove_dir_all(&aside);
        if fs::create_dir(&aside).is_ok() {
            for name in ["state", "table", "counters"] {
                let _ = fs::rename(self.folder.join(name), aside.join(name));
            }
        }
        // What could not be renamed must go all the same.
        self.clear();
        aside
    }

    /// Removes what was set aside.
    pub fn forget_refused(&self) -> bool {
        fs::remove_dir_all(self.folder.join("refused")).is_ok()
    }

    /// Removes all but the folder, the lock and what was set aside.
    pub fn clear(&self) {
        for name in ["state", "state.new", "table", "counters", "hand-over"] {
            let _ = fs::remove_file(self.folder.join(name));
        }
        if let Some(path) = huge_file(&self.name()) {
            let _ = fs::remove_file(path);
        }
    }

    /// Removes the file of huge pages that it had in another network namespace.
    pub fn remove_huge_file(&self, namespace: u64) {
        if let Some(path) = huge_file(&self.name_in(namespace)) {
            let _ = fs::remove_file(path);
        }
    }

    /// Removes all of it.
    pub fn remove(self) {
        self.clear();
        let _ = fs::remove_dir_all(self.folder.join("refused"));
        let _ = fs::remove_file(self.folder.join("lock"));
        let _ = fs::remove_dir(&self.folder);
        drop(self.lock);
    }

    /// The open file that is locked.
    pub fn lock_file(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Goes on with the lock of the process before: it is of the open file, not of a process
    /// (flock(2)), so it is never let go of.
    pub fn adopt_lock(&mut self, lock: OwnedFd) {
        self.lock = lock.into();
    }
}

/// In a folder that all may write to, another's folder of our name is no state of ours.
fn check_owner(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::symlink_metadata(folder)?;
    let is_own = meta.uid() == rustix::process::geteuid().as_raw() || meta.uid() == 0;
    if meta.is_dir() && is_own && meta.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::other(
        "it is no folder that only this user may write to",
    ))
}

/// Takes the memory now: a page that cannot be had later would end the process.
fn reserve(path: &Path, bytes: u64, what: &'static str) -> Result<SharedMemory, StateError> {
    let no_room = |error: io::Error| StateError::NoRoom {
        path: path.to_owned(),
        what,
        needed_mib: bytes.div_ceil(1 << 20),
        error,
    };
    let is_new = !path.exists();
    let made = || -> io::Result<SharedMemory> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        SharedMemory::create(&file, bytes)
    };
    made().map_err(|error| {
        if is_new {
            let _ = fs::remove_file(path);
        }
        no_room(error)
    })
}

/// A path as a file's name: readable, and never the same for two paths.
fn name_of(path: &Path) -> String {
    let text = path.to_string_lossy();
    let sum = crc32c::crc32c(text.as_bytes());
    let readable: String = text
        .trim_start_matches('/')
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let from = readable.len().saturating_sub(100);
    format!("{}-{sum:08x}", &readable[from..])
}

/// The file of huge pages of this name, where there is a file system of such.
fn huge_file(name: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut folders = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (folder, kind) = (words.nth(1)?, words.next()?);
        let path = PathBuf::from(folder);
        let found = rustix::fs::statfs(&path).ok()?;
        let fits = kind == "hugetlbfs"
            && found.f_type as u64 == HUGETLBFS_MAGIC
            && found.f_bsize as u64 == HUGE_PAGE_BYTES;
        fits.then_some(path)
    });
    Some(folders.next()?.join(format!("lvx-{}", name)))
}

/// What names pins for a folder in whatever network namespace: a default one's name has a
/// namespace's mark itself.
fn stem_of(folder: &Path) -> String {
    let text = folder.to_string_lossy();
    let is_default = text.starts_with(&format!("{SHARED_MEMORY}/lvx-"));
    let unmarked = text.rsplit_once("-net").map(|(unmarked, _)| unmarked);
    let unmarked = unmarked.filter(|unmarked| is_default && is_marked(&text, unmarked));
    name_of(Path::new(unmarked.unwrap_or(&text)))
}

/// Whether a name is a stem, or one with a network namespace's mark.
fn is_marked(name: &str, stem: &str) -> bool {
    let is_mark = |rest: &str| {
        let number = rest.strip_prefix("-net");
        let number = number.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number.is_some_and(|number| Namespace::of(number).mark() == rest)
    };
    name.strip_prefix(stem)
        .is_some_and(|rest| rest.is_empty() || is_mark(rest))
}

/// This boot's name.
pub fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}
