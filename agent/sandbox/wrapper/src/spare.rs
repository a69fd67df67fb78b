//! A wrapper that waits for its run, with a cell ready for it. It knows nothing of the run before it is told,
//! and whether the cell is one for it is looked at then.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sandbox::{Jail, MAX_PLAN_PATH};
use sandbox_sys::SingleThreaded;

use crate::cell::Cell;
use crate::ends::Ends;
use crate::supervise::Instruments;

/// A wrapper without a run.
#[derive(Debug)]
pub(crate) struct Spare {
    view: Vec<u8>,
    socket: OwnedFd,
}

/// What a run need not wait for.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) instruments: Instruments,
    pub(crate) ends: Ends,
    pub(crate) cell: Option<Cell>,
}

impl Ready {
    /// Without a cell, when there is a run already.
    pub(crate) fn now() -> io::Result<Self> {
        let (instruments, ends) = Instruments::make()?;
        Ok(Self {
            instruments,
            ends,
            cell: None,
        })
    }
}

impl Spare {
    /// One that will be told of its run through this socket, and whose task will most likely have this view.
    pub(crate) fn new(view: Vec<u8>, socket: OwnedFd) -> Self {
        Self { view, socket }
    }

    /// Waits for the run: the path of its plan, and what is ready for it. Nothing when there will be none.
    pub(crate) fn wait(self, alone: &SingleThreaded) -> io::Result<Option<(OsString, Ready)>> {
        let Self { view, socket } = self;
        let (instruments, ends) = Instruments::make()?;
        let keep = (socket, instruments);
        let ((socket, instruments), ends, mut cell) = match Jail::decode(&view) {
            Some(jail) => Cell::make(alone, jail, ends, keep),
            None => (keep, ends, None),
        };
        loop {
            let mut wait = vec![PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            let mounts = cell.as_ref().map(Cell::waits_on);
            wait.extend(mounts.map(|mounts| PollFd::new(mounts, PollFlags::POLLPRI)));
            match poll(&mut wait, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            // At once, not when there is a run: it could keep what was unmounted busy. The kernel tells it
            // once, so it must be heard here.
            if wait.get(1).and_then(PollFd::any).unwrap_or_default() {
                cell = None;
            }
            let mut plan = [0; MAX_PLAN_PATH];
            match sandbox_sys::receive(socket.as_fd(), &mut plan) {
                Ok((0, _)) => return Ok(None),
                Ok((length, streams)) => {
                    take(&three(streams)?)?;
                    let plan = plan.get(..length).unwrap_or_default();
                    let ready = Ready {
                        instruments,
                        ends,
                        cell,
                    };
                    return Ok(Some((OsStr::from_bytes(plan).to_owned(), ready)));
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Descriptors that came with a message, as the streams of a run.
pub(crate) fn three(streams: Vec<OwnedFd>) -> io::Result<[OwnedFd; 3]> {
    <[OwnedFd; 3]>::try_from(streams).map_err(|_| io::Error::other("a run has three streams"))
}

/// Makes them this process's own.
pub(crate) fn take([stdin, stdout, stderr]: &[OwnedFd; 3]) -> io::Result<()> {
    nix::unistd::dup2_stdin(stdin)?;
    nix::unistd::dup2_stdout(stdout)?;
    nix::unistd::dup2_stderr(stderr)?;
    Ok(())
}
