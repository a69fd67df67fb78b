//! Whether a view that was arranged a while ago is still what would be arranged now: nothing of it may be
//! taken on trust, since the host goes on meanwhile.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sandbox::Jail;

use super::{Names, View, at, failed};
use crate::fault::Failed;

/// Places that every view has from the host, or has something mounted over.
const ALWAYS: &[&str] = &["/dev/log", "/dev/shm", "/run", "/tmp", "/var/tmp"];

/// What of the host a view depends on, as seen from outside of it.
#[derive(Debug)]
pub(crate) struct Ground {
    /// Changes are told by this very descriptor, each once.
    mounts: File,
    names: Names,
    found: Vec<Found>,
    host_name: Option<String>,
}

/// What is at a place: device and inode number, and where it leads if it is a link. The number cannot pass to
/// another file while the view is there: what is mounted over one holds it.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    number: Option<(u64, u64)>,
    link: Option<PathBuf>,
}

impl Ground {
    /// Looks at the host. Before the view is made: what changes while it is made counts as a change.
    pub(crate) fn look(jail: &Jail) -> Result<Self, Failed> {
        let table = "/proc/self/mountinfo";
        let mounts = File::open(table).map_err(failed(table))?;
        let names = Names::find(jail)?;
        Ok(Self {
            mounts,
            found: found(&names)?,
            names,
            host_name: host_name(),
        })
    }

    /// What the view is about.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Whether the view would come out the same now. To be asked once, and by who has heard nothing of mounts.
    pub(crate) fn stands(self, jail: &Jail) -> bool {
        let same = Names::find(jail).is_ok_and(|names| names == self.names)
            && found(&self.names).is_ok_and(|found| found == self.found)
            && host_name() == self.host_name;
        // Last: what is found depends on mounts.
        let mut wait = [PollFd::new(self.mounts.as_fd(), PollFlags::POLLPRI)];
        same && poll(&mut wait, PollTimeout::ZERO) == Ok(0)
    }

    /// Urgently readable (`POLLPRI`), once, when something was mounted, unmounted or moved on the host.
    pub(crate) fn waits_on(&self) -> BorrowedFd<'_> {
        self.mounts.as_fd()
    }
}

/// A `confined` task has a copy of it.
fn host_name() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/hostname").ok()
}

fn found(names: &Names) -> Result<Vec<Found>, Failed> {
    let always = ALWAYS.iter().map(Path::new);
    let all = names.all().map(PathBuf::as_path).chain(always);
    all.map(|path| {
        let about = match fs::symlink_metadata(path) {
            Ok(about) => Some(about),
            Err(error) if missing(&error) => None,
            Err(error) => return Err(failed(path)(error)),
        };
        let link = about.as_ref().filter(|about| about.is_symlink());
        Ok(Found {
            number: about.as_ref().map(|about| (about.dev(), about.ino())),
            link: link.and_then(|_| fs::read_link(path).ok()),
        })
    })
    .collect()
}

/// What is seen in the view itself at each place of it: a mount of the view's, which the kernel takes away
/// when the host removes or replaces what is below it, or nothing.
#[derive(Debug)]
pub(crate) struct Seals(Vec<(PathBuf, Option<u64>)>);

impl Seals {
    /// Looks at a view that has just been arranged.
    pub(crate) fn of(view: &View) -> Result<Self, Failed> {
        let places = view.places.iter().cloned();
        let own = ["/dev", "/proc", "/tmp"].map(PathBuf::from);
        let seals = places.chain(own).map(|path| {
            let seen = seen_at(&path)?;
            Ok((path, seen))
        });
        seals.collect::<Result<_, _>>().map(Self)
    }

    /// Whether all of it is still seen.
    pub(crate) fn hold(&self) -> bool {
        let mut seals = self.0.iter();
        seals.all(|(path, seal)| seen_at(path).is_ok_and(|seen| seen == *seal))
    }
}

/// The mount that is seen at a place; what is not mounted there is an error.
fn seen_at(path: &Path) -> Result<Option<u64>, Failed> {
    let text = CString::new(path.as_os_str().as_bytes()).map_err(|_| at(path)(Errno::EINVAL))?;
    match sandbox_sys::mount_seen_at(&text) {
        Ok(Some(number)) => Ok(Some(number)),
        Ok(None) => Err(at(path)(Errno::ESTALE)),
        Err(error) if missing(&error) => Ok(None),
        Err(error) => Err(failed(path)(error)),
    }
}

fn missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
