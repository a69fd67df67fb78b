//! Directories by their descriptors, one step at a time: so that nobody who may write beside a path
//! can send what is written somewhere else. A symbolic link on the way is followed if it belongs to
//! root or to the user that this runs as, for those could write anywhere themselves.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, symlinkat, unlinkat};

/// The original's mode of everything that it makes.
const MODE: Mode = Mode::from_bits_truncate(0o750);

/// How a file is called while it is written.
const NEW: &str = ".pxp-";

/// How many links a path may lead through, as the kernel has it.
const MAX_LINKS: usize = 40;

/// Why a way through directories cannot be gone.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The system refuses a step.
    #[error("cannot use {}: {}", .0.display(), .1.desc())]
    Step(PathBuf, Errno),
    /// A link that somebody else could have put there.
    #[error(
        "{} is a symbolic link of another user (uid {owner}), and is not followed", path.display()
    )]
    ForeignLink {
        /// The link.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
}

/// A directory.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

/// What is at a place.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    /// A file that can be read.
    File(File),
    Directory,
    Symlink(PathBuf),
    /// A file that cannot be read, a device, a socket.
    Other,
}

/// A file that is not at its place yet, and removed if it never gets there.
#[derive(Debug)]
pub(super) struct New<'a> {
    parent: &'a Directory,
    file: File,
    temporary: OsString,
    name: &'a OsStr,
    finished: bool,
}

impl Directory {
    /// The directory at this path, made where it is missing.
    pub(super) fn make(path: &Path) -> Result<Self, TreeError> {
        let root = open(
            "/",
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        );
        let mut at = Self {
            fd: root.map_err(|errno| TreeError::Step("/".into(), errno))?,
            path: "/".into(),
        };
        let mut steps: VecDeque<OsString> = steps_of(path).collect();
        let mut links = 0;
        while let Some(step) = steps.pop_front() {
            let error = match at.enter(&step) {
                Ok(next) => {
                    at = next;
                    continue;
                }
                Err(error) => error,
            };
            let Some(target) = at.link(&step, &error)? else {
                return Err(error);
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(TreeError::Step(at.path.join(step), Errno::ELOOP));
            }
            if target.is_absolute() {
                at = Self::make(Path::new("/"))?;
            }
            for step in steps_of(&target).collect::<Vec<_>>().into_iter().rev() {
                steps.push_front(step);
            }
        }
        Ok(at)
    }

    /// The directory that this path lies in, made where it is missing, and the path's last part.
    pub(super) fn above(path: &Path) -> Result<(Self, OsString), TreeError> {
        let invalid = || TreeError::Step(path.to_owned(), Errno::EINVAL);
        let parent = path.parent().ok_or_else(invalid)?;
        let name = path.file_name().ok_or_else(invalid)?;
        Ok((Self::make(parent)?, name.to_owned()))
    }

    /// What is there under this name.
    pub(super) fn look(&self, name: &OsStr) -> Result<Found, TreeError> {
        let stat = match self.stat(name) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => return Ok(Found::Nothing),
            Err(errno) => return Err(self.step(name, errno)),
        };
        match kind(&stat) {
            SFlag::S_IFDIR => Ok(Found::Directory),
            SFlag::S_IFLNK => {
                let target = readlinkat(self.fd.as_fd(), name);
                let target = target.map_err(|errno| self.step(name, errno))?;
                Ok(Found::Symlink(target.into()))
            }
            SFlag::S_IFREG => self.open(name),
            _ => Ok(Found::Other),
        }
    }

    fn open(&self, name: &OsStr) -> Result<Found, TreeError> {
        // It may have become something else meanwhile, whose opening would wait.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = openat(self.fd.as_fd(), name, flags, Mode::empty());
        let opened = match opened {
            Ok(opened) => opened,
            Err(Errno::EACCES | Errno::ELOOP | Errno::ENXIO) => return Ok(Found::Other),
            Err(errno) => return Err(self.step(name, errno)),
        };
        let stat = fstat(&opened).map_err(|errno| self.step(name, errno))?;
        Ok(match kind(&stat) {
            SFlag::S_IFREG => Found::File(File::from(opened)),
            _ => Found::Other,
        })
    }

    /// Gives an open file of this directory the mode of everything that is downloaded.
    pub(super) fn set_mode(&self, file: &File, name: &OsStr) -> Result<(), TreeError> {
        fchmod(file, MODE).map_err(|errno| self.step(name, errno))
    }

    /// Begins a file that is to have this name once it is whole.
    pub(super) fn begin<'a>(&'a self, name: &'a OsStr) -> Result<New<'a>, TreeError> {
        let temporary = temporary();
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = openat(self.fd.as_fd(), temporary.as_os_str(), flags, mode);
        Ok(New {
            parent: self,
            file: File::from(file.map_err(|errno| self.step(name, errno))?),
            temporary,
            name,
            finished: false,
        })
    }

    /// Puts a link there, in the place of another one if there is one.
    pub(super) fn put_symlink(&self, name: &OsStr, to: &Path) -> Result<(), TreeError> {
        let temporary = temporary();
        symlinkat(to, self.fd.as_fd(), temporary.as_os_str())
            .map_err(|errno| self.step(name, errno))?;
        self.rename(&temporary, name)
            .inspect_err(|_| self.remove(&temporary))
    }

    /// One step down, or up; a directory is made if there is nothing.
    fn enter(&self, step: &OsStr) -> Result<Self, TreeError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let enter = || openat(self.fd.as_fd(), step, flags, Mode::empty());
        let fd = enter().or_else(|errno| match errno {
            Errno::ENOENT => match mkdirat(self.fd.as_fd(), step, MODE) {
                // Somebody else may have made it just now.
                Ok(()) | Err(Errno::EEXIST) => enter(),
                Err(errno) => Err(errno),
            },
            errno => Err(errno),
        });
        Ok(Self {
            fd: fd.map_err(|errno| self.step(step, errno))?,
            path: self.path.join(step),
        })
    }

    /// Where a link leads that could not be entered; nothing if it is none.
    fn link(&self, step: &OsStr, error: &TreeError) -> Result<Option<PathBuf>, TreeError> {
        if !matches!(error, TreeError::Step(_, Errno::ENOTDIR | Errno::ELOOP)) {
            return Ok(None);
        }
        let stat = self.stat(step).map_err(|errno| self.step(step, errno))?;
        if kind(&stat) != SFlag::S_IFLNK {
            return Ok(None);
        }
        if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
            return Err(TreeError::ForeignLink {
                path: self.path.join(step),
                owner: stat.st_uid,
            });
        }
        let target = readlinkat(self.fd.as_fd(), step).map_err(|errno| self.step(step, errno))?;
        Ok(Some(target.into()))
    }

    fn stat(&self, name: &OsStr) -> Result<FileStat, Errno> {
        fstatat(self.fd.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> Result<(), TreeError> {
        renameat(self.fd.as_fd(), from, self.fd.as_fd(), to).map_err(|errno| self.step(to, errno))
    }

    fn remove(&self, name: &OsStr) {
        // It is this process's own; were it left, its name says what it is.
        unlinkat(self.fd.as_fd(), name, UnlinkatFlags::NoRemoveDir).ok();
    }

    fn step(&self, name: &OsStr, errno: Errno) -> TreeError {
        TreeError::Step(self.path.join(name), errno)
    }
}

impl New<'_> {
    /// Where its content is written to.
    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Puts it in its place, whole and durable.
    pub(super) fn finish(mut self) -> Result<(), TreeError> {
        self.parent.set_mode(&self.file, self.name)?;
        self.file.sync_all().map_err(|error| {
            let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            self.parent.step(self.name, errno)
        })?;
        self.parent.rename(&self.temporary, self.name)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for New<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.parent.remove(&self.temporary);
        }
    }
}

fn steps_of(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        // In the targets of links only.
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

fn temporary() -> OsString {
    format!("{NEW}{}", uuid::Uuid::new_v4()).into()
}
