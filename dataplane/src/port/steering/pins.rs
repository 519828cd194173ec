//! The program's pins: names in a BPF file system that keep program, maps and links when
//! their process is killed. Frames of services are dropped then, as no socket waits for
//! them, and the next process takes all of it up.
//!
//! Below the file system's root, in `lvx/NAME`. Several network namespaces may see one such
//! file system (containers that share the host's): NAME has the namespace's mark, and
//! whoever works over pins holds a lock on their folder, which all can see.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Access, FlockOperation, flock};

use super::SteeringError;
use super::error::pin_failed;
use super::program_on;

/// BPF_FS_MAGIC of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// Where BPF file systems are looked for. The second is for processes that do not see the
/// first: `ip netns exec` gives them another /sys.
const ROOTS: [&str; 2] = ["/sys/fs/bpf", "/run/lvx/bpf"];

/// How often a folder is made again that another process has just removed.
const TRIES: u32 = 10;

/// Why nothing can be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// There is no BPF file system, and none could be mounted.
    #[error(
        "no BPF file system at /sys/fs/bpf or /run/lvx/bpf ({0}): `mount -t bpf bpf \
         /sys/fs/bpf`, and start a container with `--volume /sys/fs/bpf:/sys/fs/bpf`"
    )]
    NoFileSystem(io::Error),
    /// There is one, but not for this process.
    #[error(
        "nothing can be pinned in the BPF file system at {root} ({error}): mount it writable \
         (`mount -o remount,rw {root}`; a container's volume without `:ro`), its folders for \
         this user alone"
    )]
    Closed {
        /// Where it is mounted.
        root: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// A director's pins.
#[derive(Clone, Debug)]
pub struct Pins {
    folder: PathBuf,
    /// Whether they stay when the [`Steering`](super::Steering) over them is dropped.
    keep: Arc<AtomicBool>,
    /// The folder, locked for as long as a director works over it.
    held: Arc<OnceLock<File>>,
}

impl Pins {
    /// The pins of this name, which may be there or not. Mounts a BPF file system where
    /// there is none; what an operator should know of that comes with it.
    pub fn find(name: &str) -> Result<(Self, Option<String>), PinsError> {
        if let Some(known) = Self::existing(name) {
            return Ok((known, None));
        }
        let mut closed = None;
        for root in mounted() {
            match check(root) {
                Ok(()) => return Ok((Self::at(root, name), None)),
                Err(error) => closed = closed.or(Some((root.to_owned(), error))),
            }
        }
        match (mount(), closed) {
            (Ok((root, warning)), _) => Ok((Self::at(root, name), warning)),
            (Err(_), Some((root, error))) => Err(PinsError::Closed { root, error }),
            (Err(error), None) => Err(PinsError::NoFileSystem(error)),
        }
    }

    /// The pins of this name, if there are any; mounts and makes nothing.
    pub fn existing(name: &str) -> Option<Self> {
        let all = mounted().map(|root| Self::at(root, name));
        all.into_iter().find(|pins| pins.folder.is_dir())
    }

    /// All pins whose names `is_meant` says; with the names.
    pub fn all(is_meant: impl Fn(&str) -> bool) -> Vec<(String, Self)> {
        let folders = mounted().filter_map(|root| Some((root, fs::read_dir(home(root)).ok()?)));
        let named = |(root, entries): (&'static Path, fs::ReadDir)| {
            let names = entries.flatten().map(|entry| entry.file_name());
            names.filter_map(move |name| Some((root, name.into_string().ok()?)))
        };
        folders
            .flat_map(named)
            .filter(|(_, name)| is_meant(name))
            .map(|(root, name)| (name.clone(), Self::at(root, &name)))
            .collect()
    }

    fn at(root: &Path, name: &str) -> Self {
        Self {
            // The kernel reserves the dot.
            folder: home(root).join(name.replace('.', "-")),
            keep: Arc::default(),
            held: Arc::default(),
        }
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Says whether they stay when the [`Steering`](super::Steering) over them ends.
    pub fn keep(&self, keep: bool) {
        self.keep.store(keep, Relaxed);
    }

    pub(super) fn stay(&self) -> bool {
        self.keep.load(Relaxed)
    }

    /// Makes the folder, and has everybody see that a director works over it, this one or
    /// the one that it takes over from.
    pub(super) fn hold(&self) -> Result<(), SteeringError> {
        let failed = |error: io::Error| pin_failed(&self.folder, error.to_string());
        for _ in 0..TRIES {
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.folder);
            let file = match made.and_then(|()| File::open(&self.folder)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(failed)?,
            };
            flock(&file, FlockOperation::LockShared).map_err(|error| failed(error.into()))?;
            if is_at(&file, &self.folder) {
                let _ = self.held.set(file);
                return Ok(());
            }
        }
        Err(failed(io::ErrorKind::NotFound.into()))
    }

    /// Takes all of them away: the program leaves the devices, unless a process holds it.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                self.remove_empty();
                Ok(())
            }
        }
    }

    /// Takes the folder away where nothing is in it, and the one of all directors so too.
    pub(super) fn remove_empty(&self) {
        let _ = fs::remove_dir(&self.folder);
        let _ = self.folder.parent().map(fs::remove_dir);
    }

    /// These, where nobody can want them any more who left them in another network
    /// namespace: no director works over them, and each device that the program was on is
    /// gone, or has come to the calling thread's namespace. Not so where it was on none.
    pub fn forsaken(&self) -> Option<Forsaken<'_>> {
        let lock = File::open(&self.folder).ok()?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
        let devices = self.devices();
        let is_lost = |&(device, program)| device == 0 || program_on(device) == Some(program);
        let are_lost = !devices.is_empty() && devices.iter().all(is_lost);
        are_lost.then_some(Forsaken {
            pins: self,
            _lock: lock,
        })
    }

    /// The device and the program of each link, in the device's namespace; device 0 where it
    /// is gone.
    fn devices(&self) -> Vec<(u32, u32)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.filter(|entry| entry.file_name().as_bytes().starts_with(b"link-"));
        names.filter_map(|entry| link_at(&entry.path())).collect()
    }
}

/// Pins that nobody can want, locked.
#[derive(Debug)]
pub struct Forsaken<'a> {
    pins: &'a Pins,
    _lock: File,
}

impl Forsaken<'_> {
    /// Takes them away.
    pub fn remove(self) -> io::Result<()> {
        self.pins.remove()
    }

    /// Makes them these, so that no frame passes to the host meanwhile; or takes them away,
    /// where that fails.
    pub fn become_those(self, pins: &Pins) -> io::Result<()> {
        let _ = fs::remove_dir(&pins.folder);
        fs::rename(&self.pins.folder, &pins.folder).or_else(|_| self.remove())
    }
}

/// Where all directors' pins are in a BPF file system.
fn home(root: &Path) -> PathBuf {
    root.join("lvx")
}

fn mounted() -> impl Iterator<Item = &'static Path> {
    let is_bpf = |path: &Path| {
        rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u64 == BPF_FS_MAGIC)
    };
    ROOTS.iter().map(Path::new).filter(move |root| is_bpf(root))
}

/// Whether this process may pin there, and no other user beside it.
fn check(root: &Path) -> io::Result<()> {
    let home = home(root);
    match fs::symlink_metadata(&home) {
        Ok(meta) => {
            let own = rustix::process::geteuid().as_raw();
            let is_own = meta.uid() == own || meta.uid() == 0;
            if !meta.is_dir() || !is_own || meta.mode() & 0o022 != 0 {
                let what = format!("others may write to {}", home.display());
                return Err(io::Error::other(what));
            }
            Ok(rustix::fs::access(&home, Access::WRITE_OK)?)
        }
        Err(_) => Ok(rustix::fs::access(root, Access::WRITE_OK)?),
    }
}

/// Whether an open folder is still the one of this name.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let (opened, named) = (file.metadata(), fs::metadata(path));
    opened.is_ok_and(|opened| named.is_ok_and(|named| identity(named) == identity(opened)))
}

/// The device and the program of a pinned link to a device.
fn link_at(path: &Path) -> Option<(u32, u32)> {
    let name = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: the name ends with a zero and lives for the call.
    let descriptor = unsafe { libxdp_sys::bpf_obj_get(name.as_ptr()) };
    if descriptor < 0 {
        return None;
    }
    // SAFETY: the call has just opened it, and nobody else knows its number.
    let link = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // SAFETY: numbers, of which zero is one.
    let mut info: libxdp_sys::bpf_link_info = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&info) as u32;
    // SAFETY: the call writes at most `length` bytes of numbers, and only for its time.
    let answer = unsafe {
        libxdp_sys::bpf_obj_get_info_by_fd(
            link.as_raw_fd(),
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    // SAFETY: the kernel fills this variant in for links of the XDP kind; numbers all the same.
    let device = unsafe { info.__bindgen_anon_1.xdp.ifindex };
    let is_xdp = answer == 0 && info.type_ == libxdp_sys::bpf_link_type_BPF_LINK_TYPE_XDP;
    is_xdp.then_some((device, info.prog_id))
}

/// Mounts a BPF file system where one is usually found.
fn mount() -> io::Result<(&'static Path, Option<String>)> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for root in ROOTS.map(Path::new) {
        // The first is made by the kernel, or not at all.
        let made = missing(root);
        let _ = fs::create_dir_all(root);
        match mount_at(root) {
            Ok(()) => return Ok((root, own_mounts_warning(root))),
            Err(error) => last = error,
        }
        made.into_iter().for_each(|path| _ = fs::remove_dir(path));
    }
    Err(last)
}

/// The folders on the way to `path` that are not there, the innermost first.
fn missing(path: &Path) -> Vec<&Path> {
    let way = path.ancestors();
    way.take_while(|folder| !folder.exists()).collect()
}

fn mount_at(root: &Path) -> io::Result<()> {
    let target = CString::new(root.as_os_str().as_bytes())?;
    let kind = c"bpf".as_ptr();
    // Whoever may write there can take the program away.
    let options = c"mode=0700".as_ptr().cast();
    // SAFETY: all strings end with a zero and live for the call.
    let answer = unsafe { libc::mount(kind, target.as_ptr(), kind, 0, options) };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A process with mounts of its own (`ip netns exec`) takes the file system with it.
fn own_mounts_warning(root: &Path) -> Option<String> {
    let mounts = |who: &str| fs::read_link(format!("/proc/{who}/ns/mnt")).ok();
    let own = mounts("self");
    let parent = std::os::unix::process::parent_id().to_string();
    let other = mounts("1").or_else(|| mounts(&parent));
    (other.is_some() && own != other).then(|| {
        format!(
            "the BPF file system at {} was mounted for this process alone: should it be \
             killed, its services' frames pass to the host. Before starting it: `mkdir -p \
             /run/lvx/bpf && mount -t bpf bpf /run/lvx/bpf`, outside of `ip netns exec`",
            root.display()
        )
    })
}
