//! Wrappers that need not be loaded for each run: a process of the same program that has started once, and
//! makes a copy of itself for every run that it is told of. It holds nothing of a run; with its starter, it
//! ends. A wrapper is the same whichever way it came to be.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};

use crate::plan::Jail;

/// The wrapper's argument that makes it a launcher. The next one says whose, for people who look at
/// processes; its stdin is the socket that it is told through.
pub const LAUNCHER_ARGUMENT: &str = "--launcher";

/// The longest path of a plan that a launcher takes, in bytes: what the kernel takes (`PATH_MAX`).
pub const MAX_PLAN_PATH: usize = 4096;

/// The longest description of a task's view that a launcher takes, in bytes: some hundred protected paths.
/// For one that is longer nothing is prepared.
pub const MAX_VIEW: usize = 32 * 1024;

/// Starts wrappers. The process behind it is there while there is work for it.
pub struct Launcher {
    wrapper: PathBuf,
    owner: PathBuf,
    running: Mutex<Option<Running>>,
    starting: Arc<RwLock<()>>,
}

struct Running {
    socket: OwnedFd,
    process: Child,
    used: Instant,
}

/// What a new wrapper has as its stdin, stdout and stderr.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams<'a> {
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
}

impl Launcher {
    /// A launcher of this wrapper. `owner` is shown in its command line: the directory that its runs are
    /// in. No process is started yet.
    #[must_use]
    pub fn new(wrapper: PathBuf, owner: PathBuf) -> Self {
        Self {
            wrapper,
            owner,
            running: Mutex::new(None),
            starting: Arc::default(),
        }
    }

    /// To be read while a file is written that is to be executed. While the process behind this is made,
    /// and until its `execve`, it holds all our descriptors; executing a file that was being written just
    /// then would fail with "text file busy".
    #[must_use]
    pub fn starting(&self) -> Arc<RwLock<()>> {
        Arc::clone(&self.starting)
    }

    /// The program.
    #[must_use]
    pub fn wrapper(&self) -> &Path {
        &self.wrapper
    }

    /// Has a wrapper begin with this plan. Should the process behind this have died, another one is
    /// started. One that dies right now takes the wrapper with it: the run ends without a report.
    ///
    /// `view` says what the task's mount namespace is made from: the next run's is prepared like it.
    pub(crate) fn launch(
        &self,
        plan: &Path,
        view: Option<&Jail>,
        streams: Streams<'_>,
    ) -> io::Result<()> {
        let mut message = plan.as_os_str().as_bytes().to_vec();
        message.push(0);
        message.extend(view.map(|view| view.encode(MAX_VIEW)).unwrap_or_default());
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(launcher) = running.as_mut() {
            match launcher.tell(&message, streams) {
                Ok(()) => return Ok(()),
                Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        if let Some(dead) = running.take() {
            dead.end();
        }
        let launcher = running.insert(self.start()?);
        Ok(launcher.tell(&message, streams)?)
    }

    /// Ends the process if it was not used for so long. Whether there is none any more.
    pub fn rest(&self, unused: Duration) -> bool {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running.take_if(|launcher| launcher.used.elapsed() >= unused) {
            Some(launcher) => {
                launcher.end();
                true
            }
            None => running.is_none(),
        }
    }

    fn start(&self) -> io::Result<Running> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        let _starting = self.starting.write();
        let process = Command::new(&self.wrapper)
            .arg(LAUNCHER_ARGUMENT)
            .arg(&self.owner)
            .env_clear()
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Running {
            socket: ours,
            process,
            used: Instant::now(),
        })
    }
}

impl Running {
    fn tell(&mut self, message: &[u8], streams: Streams<'_>) -> Result<(), Errno> {
        let Streams {
            stdin,
            stdout,
            stderr,
        } = streams;
        let descriptors = [stdin, stdout, stderr].map(|stream| stream.as_raw_fd());
        let text = [IoSlice::new(message)];
        let control = [ControlMessage::ScmRights(&descriptors)];
        loop {
            let socket = self.socket.as_fd().as_raw_fd();
            match sendmsg::<()>(socket, &text, &control, MsgFlags::MSG_NOSIGNAL, None) {
                Err(Errno::EINTR) => {}
                sent => {
                    self.used = Instant::now();
                    return sent.map(drop);
                }
            }
        }
    }

    /// It ends when its socket closes, at once.
    fn end(self) {
        let Self {
            socket,
            mut process,
            ..
        } = self;
        drop(socket);
        // It fails only for what is no child of ours.
        process.wait().ok();
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let running = self.running.get_mut();
        if let Some(running) = running.unwrap_or_else(PoisonError::into_inner).take() {
            running.end();
        }
    }
}

impl fmt::Debug for Launcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Launcher");
        shown
            .field("wrapper", &self.wrapper)
            .finish_non_exhaustive()
    }
}
