//! The descriptors that the task's side of the run holds: its three streams and the way to say that
//! a step failed.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use crate::fault::{FaultReceiver, FaultSender};

/// What the task's side gets. All of it closes on exec; the three streams are copied to 0, 1 and 2.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) fault: FaultSender,
}

/// What the wrapper keeps: the other end of each, never blocking.
#[derive(Debug)]
pub(crate) struct FarEnds {
    pub(crate) stdin: File,
    pub(crate) stdout: File,
    pub(crate) stderr: File,
    pub(crate) fault: FaultReceiver,
}

/// Makes both sides.
pub(crate) fn pair() -> io::Result<(Ends, FarEnds)> {
    let (stdin, feed) = pipe2(OFlag::O_CLOEXEC)?;
    let (capture_stdout, stdout) = pipe2(OFlag::O_CLOEXEC)?;
    let (capture_stderr, stderr) = pipe2(OFlag::O_CLOEXEC)?;
    let (fault_sender, fault) = crate::fault::channel()?;
    for descriptor in [&feed, &capture_stdout, &capture_stderr] {
        // Of this end only: the task's end stays blocking, as every program expects.
        fcntl(descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    Ok((
        Ends {
            stdin,
            stdout,
            stderr,
            fault: fault_sender,
        },
        FarEnds {
            stdin: feed.into(),
            stdout: capture_stdout.into(),
            stderr: capture_stderr.into(),
            fault,
        },
    ))
}
