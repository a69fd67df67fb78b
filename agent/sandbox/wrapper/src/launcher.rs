//! The wrapper that starts no task itself: for every run that it is told of it makes a copy of itself, which
//! goes on as a wrapper that was started for that run alone. What costs most of a start, loading the
//! program, has been done by then.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use sandbox::MAX_PLAN_PATH;
use sandbox_sys::{CloneRequest, Cloned, Reaped, SingleThreaded};

/// Makes wrappers until the socket on stdin closes. Returns in each of them with the path of its plan, and
/// with nothing when it is over.
pub(crate) fn serve(alone: &SingleThreaded) -> io::Result<Option<OsString>> {
    // What a wrapper that dies leaves behind is not this process's to wait for.
    set_child_subreaper(false)?;
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    // Only the copy: a wrapper has something else there.
    let null = OpenOptions::new().read(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    drop(null);
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    let ended = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    loop {
        let mut wait = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(ended.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut wait, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        while ended.read_signal()?.is_some() {}
        while let Reaped::Ended(..) = sandbox_sys::reap()? {}
        let mut text = [0; MAX_PLAN_PATH];
        match sandbox_sys::receive(socket.as_fd(), &mut text) {
            Ok((0, _)) => return Ok(None),
            Ok((length, streams)) => {
                let plan = text.get(..length).unwrap_or_default();
                if begin(alone, streams)? {
                    return Ok(Some(OsStr::from_bytes(plan).to_owned()));
                }
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

/// Makes the copy. Whether this is it.
fn begin(alone: &SingleThreaded, streams: Vec<OwnedFd>) -> io::Result<bool> {
    let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(streams) else {
        return Err(io::Error::other("a run has three streams"));
    };
    let request = CloneRequest {
        namespaces: CloneFlags::empty(),
        cgroup: None,
    };
    match sandbox_sys::clone(alone, &request) {
        Ok(Cloned::Parent { .. }) => Ok(false),
        Ok(Cloned::Child) => {
            nix::unistd::dup2_stdin(&stdin)?;
            nix::unistd::dup2_stdout(&stdout)?;
            nix::unistd::dup2_stderr(&stderr)?;
            Ok(true)
        }
        Err(error) => {
            // The run's log; the agent finds that nothing was begun.
            let line = format!("execution-wrapper: no process can be made: {error}\n");
            nix::unistd::write(&stderr, line.as_bytes()).ok();
            Ok(false)
        }
    }
}
