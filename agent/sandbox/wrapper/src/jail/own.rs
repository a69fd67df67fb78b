//! What one task alone has in its mount namespace: its own files, and the socket that stands for the message
//! bus's. Taken from the host as mounts that are attached nowhere, they are put into their places last, in a
//! namespace where nobody can reach what they were made of.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use sandbox::{Jail, Profile};
use sandbox_sys::Restriction;

use super::{View, at, failed, inside, make_all, real};
use crate::fault::Failed;

/// What belongs to one task.
#[derive(Debug)]
pub(crate) struct Own {
    places: Vec<PathBuf>,
    files: Vec<OwnedFd>,
    /// The name of the bus's socket, and what is to be found there.
    bus: Option<(PathBuf, OwnedFd)>,
}

impl Own {
    /// Takes it from the mount namespace that this process is in.
    pub(crate) fn take(jail: &Jail, bus: Option<&Path>) -> Result<Self, Failed> {
        let restriction = match jail.profile {
            Profile::Confined => Restriction::READ_ONLY.and(Restriction::NO_SETUID),
            Profile::Standard | Profile::Host => Restriction::READ_ONLY,
        };
        let places = real(&jail.visible)?;
        let files = places.iter().map(|place| take(place, Some(restriction)));
        let files = files.collect::<Result<_, _>>()?;
        let bus = match (bus, jail.bus.as_deref().and_then(Path::file_name)) {
            (Some(socket), Some(name)) => Some((PathBuf::from(name), take(socket, None)?)),
            _ => None,
        };
        Ok(Self { places, files, bus })
    }

    /// Where the files are to be seen: where they are.
    pub(crate) fn places(&self) -> &[PathBuf] {
        &self.places
    }

    /// Another process's. The descriptors are those of [`Own::descriptors`], in their order; `None` when
    /// there are not as many as there must be.
    pub(crate) fn from_parts(
        places: Vec<PathBuf>,
        bus: Option<PathBuf>,
        mut descriptors: Vec<OwnedFd>,
    ) -> Option<Self> {
        let bus = match bus {
            Some(name) => Some((name, descriptors.pop()?)),
            None => None,
        };
        (descriptors.len() == places.len()).then_some(Self {
            places,
            files: descriptors,
            bus,
        })
    }

    /// The name of the bus's socket, if there is to be one.
    pub(crate) fn bus(&self) -> Option<&Path> {
        self.bus.as_ref().map(|(name, _)| name.as_path())
    }

    /// All mounts, that of the bus last.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let bus = self.bus.as_ref().map(|(_, socket)| socket);
        self.files.iter().chain(bus).map(AsFd::as_fd)
    }
}

impl View {
    /// Puts what is a task's own into its place.
    pub(crate) fn add(&self, own: &Own) -> Result<(), Failed> {
        for (place, files) in own.places.iter().zip(&own.files) {
            self.make_way(place)?;
            attach(files, place)?;
        }
        let (Some((name, socket)), Some(directory)) = (&own.bus, &self.bus) else {
            return Ok(());
        };
        let place = directory.join(name);
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let below = Path::new("bus").join(name);
        let mode = Mode::from_bits_truncate(0o644);
        drop(openat(&self.bench, &below, flags, mode).map_err(at(&place))?);
        attach(socket, &place)
    }

    /// Whether all of it can be put into its place.
    pub(crate) fn has_room_for(&self, own: &Own) -> bool {
        let closed = |place| self.masks.closed.iter().any(|hidden| inside(place, hidden));
        !own.places.iter().any(|place| closed(place))
    }

    /// Something to mount over.
    fn make_way(&self, place: &Path) -> Result<(), Failed> {
        if place.exists() {
            return Ok(());
        }
        let Some((below, mask)) = self.mask_above(place) else {
            // In a directory of the task's own.
            return make_all(place);
        };
        let mut directory = mask.to_owned();
        for part in below.components() {
            directory.push(part);
            match mkdirat(&self.bench, &directory, Mode::from_bits_truncate(0o755)) {
                Ok(()) => {
                    // Whatever the umask is.
                    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                    let made = openat(&self.bench, &directory, flags, Mode::empty());
                    made.and_then(|made| fchmod(made, Mode::from_bits_truncate(0o755)))
                        .map_err(at(place))?;
                }
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(at(place)(errno)),
            }
        }
        Ok(())
    }

    /// What is seen above this place, on the bench, and the way down from there.
    fn mask_above<'a>(&self, place: &'a Path) -> Option<(&'a Path, &Path)> {
        self.masks.open.iter().find_map(|(hidden, mask)| {
            let below = place.strip_prefix(hidden).ok()?;
            Some((below, mask.as_path()))
        })
    }
}

fn take(place: &Path, restriction: Option<Restriction>) -> Result<OwnedFd, Failed> {
    let tree = sandbox_sys::copy_tree(&text(place)?).map_err(failed(place))?;
    sandbox_sys::adapt_tree(tree.as_fd(), restriction).map_err(failed(place))?;
    Ok(tree)
}

fn attach(tree: &OwnedFd, place: &Path) -> Result<(), Failed> {
    sandbox_sys::attach_tree(tree.as_fd(), &text(place)?).map_err(failed(place))
}

fn text(path: &Path) -> Result<CString, Failed> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| at(path)(Errno::EINVAL))
}
