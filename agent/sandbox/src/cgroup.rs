//! The files of cgroup v2: where a task's leaf may be made, and what can be done to all in it.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::{AccessFlags, Pid, access};

mod base;
mod controllers;

pub use base::base;
pub use controllers::{Taken, enable};

/// How often an emptying cgroup is looked at when the kernel sends no event: it merges events
/// that are less than 10 ms apart, so the last one can be late.
const LOOK_AGAIN_MS: u8 = 5;

/// The cgroup of one task. Only that task's processes are ever in it, so its directory, and never
/// a number, says whom to signal.
#[derive(Debug)]
pub struct Leaf {
    directory: PathBuf,
    /// `cgroup.events`, held open: only a reader of this very descriptor is told of changes.
    events: File,
}

/// Why something could not be done with a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file of the kernel cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file of the kernel cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A cgroup cannot be made.
    #[error("cannot make the cgroup {}", path.display())]
    Create {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A cgroup cannot be removed.
    #[error("cannot remove the cgroup {}", path.display())]
    Remove {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Some process of a cgroup cannot be signalled.
    #[error("cannot signal the processes of {}", path.display())]
    Signal {
        /// The cgroup's directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No cgroup v2 file system is mounted.
    #[error("no cgroup v2 file system is mounted")]
    NotMounted,
    /// The directory is not a cgroup.
    #[error("{} is not on a cgroup v2 file system", .0.display())]
    NotCgroup(PathBuf),
    /// The kernel is older than 5.14.
    #[error("this kernel has no cgroup.kill")]
    NoKill,
    /// Killed processes are still there: they hang in the kernel.
    #[error("processes of {} are still there {} s after they were killed", path.display(), waited.as_secs())]
    NotEmpty {
        /// The cgroup's directory.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
}

impl Leaf {
    /// Makes the cgroup. One that is there already is somebody else's, and an error.
    ///
    /// # Errors
    /// When it cannot be made, or the kernel cannot kill a cgroup.
    pub fn create(directory: &Path) -> Result<Self, CgroupError> {
        let parent = directory.parent().unwrap_or(directory);
        on_cgroup2(parent)?;
        fs::DirBuilder::new()
            .mode(0o755)
            .create(directory)
            .map_err(|source| CgroupError::Create {
                path: directory.to_path_buf(),
                source,
            })?;
        let leaf = Self::hold(directory)?;
        if leaf.file("cgroup.kill").exists() {
            Ok(leaf)
        } else {
            leaf.remove()?;
            Err(CgroupError::NoKill)
        }
    }

    /// The cgroup of a task whose wrapper is gone; `None` when the cgroup is gone too.
    ///
    /// # Errors
    /// When there is a directory that is not a cgroup.
    pub fn find(directory: &Path) -> Result<Option<Self>, CgroupError> {
        if !directory.exists() {
            return Ok(None);
        }
        on_cgroup2(directory)?;
        Self::hold(directory).map(Some)
    }

    fn hold(directory: &Path) -> Result<Self, CgroupError> {
        let path = directory.join("cgroup.events");
        match File::open(&path) {
            Ok(events) => Ok(Self {
                directory: directory.to_path_buf(),
                events,
            }),
            Err(source) => Err(CgroupError::Read { path, source }),
        }
    }

    /// The open directory, for a process to be born in it.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self) -> Result<OwnedFd, CgroupError> {
        File::open(&self.directory)
            .map(OwnedFd::from)
            .map_err(|source| CgroupError::Read {
                path: self.directory.clone(),
                source,
            })
    }

    /// Whether any process is left in the cgroup or below. The leaf's own descriptor becomes
    /// urgently readable (`POLLPRI`) when the answer may have changed since it was last asked for.
    ///
    /// # Errors
    /// When `cgroup.events` cannot be read.
    pub fn populated(&self) -> Result<bool, CgroupError> {
        let mut text = [0; 128];
        match self.events.read_at(&mut text, 0) {
            Ok(length) => {
                let text = text.get(..length).unwrap_or_default();
                Ok(!text
                    .split(|byte| *byte == b'\n')
                    .any(|line| line == b"populated 0"))
            }
            Err(source) => Err(CgroupError::Read {
                path: self.file("cgroup.events"),
                source,
            }),
        }
    }

    /// Kills every process in the cgroup and below, and every one that is being forked there.
    ///
    /// # Errors
    /// When `cgroup.kill` cannot be written.
    pub fn kill(&self) -> Result<(), CgroupError> {
        let path = self.file("cgroup.kill");
        OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(b"1"))
            .map_err(|source| CgroupError::Write { path, source })
    }

    /// Asks every process in the cgroup and below to end. One that is forked meanwhile may be
    /// missed: the kill that follows misses none.
    ///
    /// # Errors
    /// When the processes cannot be listed, or one of them cannot be signalled.
    pub fn terminate(&self) -> Result<(), CgroupError> {
        let signal = |source| CgroupError::Signal {
            path: self.directory.clone(),
            source,
        };
        let mut opened = Vec::new();
        for pid in self.processes()? {
            match sandbox_sys::pidfd_open(pid) {
                Ok(process) => opened.push((pid, process)),
                Err(error) if ended(&error) => {}
                Err(error) => return Err(signal(error)),
            }
        }
        // A number may have passed to a stranger before its descriptor was opened. Whoever is
        // listed now under that number, and was open before, is the same process.
        let listed = self.processes()?;
        for (pid, process) in opened {
            if !listed.contains(&pid) {
                continue;
            }
            match sandbox_sys::pidfd_send_signal(process.as_fd(), Signal::SIGTERM) {
                Err(error) if !ended(&error) => return Err(signal(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Kills everything in the cgroup, waits until it is empty, and removes it.
    ///
    /// # Errors
    /// When that fails, or processes are still there after `patience`.
    pub fn reclaim(self, patience: Duration) -> Result<(), CgroupError> {
        let start = Instant::now();
        while self.populated()? || !self.removed()? {
            // Again each time: a process that was frozen or being moved is caught by the next.
            self.kill()?;
            if start.elapsed() > patience {
                return Err(CgroupError::NotEmpty {
                    path: self.directory,
                    waited: patience,
                });
            }
            let mut wait = [PollFd::new(self.events.as_fd(), PollFlags::POLLPRI)];
            match poll(&mut wait, PollTimeout::from(LOOK_AGAIN_MS)) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => {
                    let path = self.file("cgroup.events");
                    return Err(CgroupError::Read {
                        path,
                        source: errno.into(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Removes the empty cgroup, with the cgroups that the task made below it.
    ///
    /// # Errors
    /// When a directory cannot be removed.
    pub fn remove(self) -> Result<(), CgroupError> {
        match remove_below(&self.directory) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CgroupError::Remove {
                path: self.directory,
                source,
            }),
            _ => Ok(()),
        }
    }

    /// Removes it unless it is not empty: a process was born in it a moment ago, by one outside of it that
    /// the kernel is still to kill.
    fn removed(&self) -> Result<bool, CgroupError> {
        match remove_below(&self.directory) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
            Err(source) => Err(CgroupError::Remove {
                path: self.directory.clone(),
                source,
            }),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn processes(&self) -> Result<Vec<Pid>, CgroupError> {
        let mut found = Vec::new();
        let mut directories = vec![self.directory.clone()];
        while let Some(directory) = directories.pop() {
            let path = directory.join("cgroup.procs");
            match fs::read_to_string(&path) {
                Ok(text) => {
                    // 0 is a process outside of our PID namespace, and as a target of kill(2) it
                    // would mean ourselves.
                    let pids = text.lines().filter_map(|line| line.parse().ok());
                    found.extend(pids.filter(|pid| *pid > 0).map(Pid::from_raw));
                }
                // A cgroup below that was removed meanwhile has nobody in it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(CgroupError::Read { path, source }),
            }
            directories.extend(subdirectories(&directory));
        }
        Ok(found)
    }
}

impl AsFd for Leaf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

fn ended(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32)
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// From the deepest up. A loop, not recursion: the task decides how deep it is.
fn remove_below(directory: &Path) -> io::Result<()> {
    // Hardly a task makes any.
    if fs::remove_dir(directory).is_ok() {
        return Ok(());
    }
    let mut found = vec![directory.to_path_buf()];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        let below = subdirectories(parent);
        found.extend(below);
        next += 1;
    }
    found.iter().rev().try_for_each(fs::remove_dir)
}

fn on_cgroup2(directory: &Path) -> Result<(), CgroupError> {
    match statfs(directory) {
        Ok(found) if found.filesystem_type() == CGROUP2_SUPER_MAGIC => Ok(()),
        Ok(_) => Err(CgroupError::NotCgroup(directory.to_path_buf())),
        Err(errno) => Err(CgroupError::Read {
            path: directory.to_path_buf(),
            source: errno.into(),
        }),
    }
}

/// Whether we may write `cgroup.procs` of this cgroup: what the kernel asks of whoever has a
/// process born below it.
fn writable(directory: &Path) -> bool {
    access(&directory.join("cgroup.procs"), AccessFlags::W_OK).is_ok()
        && access(directory, AccessFlags::W_OK).is_ok()
}

/// Whether systemd gave this cgroup away (`Delegate=yes`).
fn delegated(directory: &Path) -> bool {
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else {
        return false;
    };
    [c"trusted.delegate", c"user.delegate"]
        .into_iter()
        .any(|name| {
            sandbox_sys::attribute(&path, name).is_ok_and(|value| value.as_deref() == Some(b"1"))
        })
}
