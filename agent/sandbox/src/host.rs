//! The agent's side of a run: start the wrapper, find it again, ask it to stop, learn that it ended.
//! All of it goes through files of the run's directory; no process is ever named by a number that
//! was stored.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::{mkfifo, pipe2};

use crate::cgroup::{CgroupError, Leaf};
use crate::delivery::{Delivery, DeliveryError};
use crate::launcher::{Launcher, Streams};
use crate::plan::{Jail, Plan};
use crate::report::Report;
use crate::run_dir::{ReportError, RunDir};

/// How long the wrapper may take to read the next bytes of its delivery. It reads them before it
/// does anything else, so more than this is a host in deep trouble.
const DELIVERY_TIMEOUT_MS: u16 = 10_000;

/// How long killed processes of a lost task may take to be gone before that is an error.
const RECLAIM_TIMEOUT: Duration = Duration::from_secs(10);

/// A run that was under way when this was made.
///
/// Its descriptor becomes readable when the run has ended, and not before: when its report is there,
/// or its wrapper has died. Register it for reading and ask [`Alive::ended`] when it is reported
/// readable.
#[derive(Debug)]
pub struct Alive {
    dir: RunDir,
    alive: File,
    /// Held so that a request to stop waits in the FIFO even before the wrapper opens it.
    _control: File,
}

/// A run whose files are made, and which is still to be started.
pub struct Prepared {
    dir: RunDir,
    view: Option<Jail>,
    /// Secret.
    delivery: Vec<u8>,
    log: File,
    control: File,
    alive: File,
    write_end: File,
}

/// What became of a run that an earlier agent started.
#[derive(Debug)]
pub enum Adoption {
    /// Its wrapper lives.
    Running(Alive),
    /// It ended, and this is how.
    Ended(Report),
    /// Its wrapper died without a report, or never began. Nothing of the task is left running: its
    /// cgroup was killed and found empty, or the kernel has killed its PID namespace together with
    /// the wrapper.
    Lost,
}

/// Why a run could not be started. Nothing runs then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The delivery cannot be delivered.
    #[error("the task's input cannot be handed over")]
    Delivery(#[source] DeliveryError),
    /// The plan has no written form.
    #[error("the plan cannot be written down")]
    Encode(#[source] serde_json::Error),
    /// A file of the run's directory cannot be made; it may be there already, for a directory is
    /// used once.
    #[error("cannot create {}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No wrapper can be made.
    #[error("cannot start {}", wrapper.display())]
    Spawn {
        /// The wrapper.
        wrapper: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The wrapper did not take its delivery.
    #[error("the execution wrapper does not take the task's input")]
    HandOver(#[source] io::Error),
}

/// Why it is not known what became of a run.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The report or the plan is unreadable.
    #[error("the run's files cannot be used")]
    Files(#[source] ReportError),
    /// A FIFO cannot be opened or read.
    #[error("cannot open {}", path.display())]
    Fifo {
        /// The FIFO.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The task's processes cannot be killed.
    #[error("what the lost task left behind cannot be ended")]
    Reclaim(#[source] CgroupError),
}

/// Why a run that ended has no report.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// The wrapper died before it could write one. Nothing of the task is left running.
    #[error("the execution wrapper ended without a report")]
    Lost,
    /// The wrapper cannot be waited for.
    #[error("cannot wait for the execution wrapper")]
    Wait(#[source] io::Error),
    /// What it left behind cannot be used, or not be ended.
    #[error("the run cannot be closed")]
    Close(#[source] AdoptError),
}

/// Why a task could not be asked to stop.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct StopError {
    path: PathBuf,
    source: io::Error,
}

/// Starts a run: [`Prepared::new`] and [`Prepared::start`] in one.
///
/// # Errors
/// When the run could not be started; then nothing runs.
pub fn start(
    launcher: &Launcher,
    plan: &Plan,
    dir: &RunDir,
    delivery: &Delivery,
) -> Result<Alive, StartError> {
    Prepared::new(plan, dir, delivery)?.start(launcher)
}

impl Prepared {
    /// Writes the plan and makes the files of a run.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn new(plan: &Plan, dir: &RunDir, delivery: &Delivery) -> Result<Self, StartError> {
        let delivery = delivery.encode().map_err(StartError::Delivery)?;
        let view = plan.view();
        let plan = plan.encode().map_err(StartError::Encode)?;
        let mut plan_file = create(&dir.plan_path())?;
        plan_file
            .write_all(&plan)
            .map_err(|source| StartError::Create {
                path: dir.plan_path(),
                source,
            })?;
        // Here, where what is wrong can still be told.
        dir.reserve_report().map_err(|source| StartError::Create {
            path: dir.unfinished_report_path(),
            source,
        })?;
        let log = create(&dir.wrapper_log_path())?;
        make_fifo(&dir.control_path())?;
        make_fifo(&dir.alive_path())?;
        // The read end first: a FIFO that nobody reads cannot be opened for writing.
        let control = open(&dir.control_path(), FifoEnd::Both)?;
        let alive = open(&dir.alive_path(), FifoEnd::Read)?;
        let write_end = open(&dir.alive_path(), FifoEnd::Write)?;
        Ok(Self {
            dir: dir.clone(),
            view,
            delivery,
            log,
            control,
            alive,
            write_end,
        })
    }

    /// Has a wrapper made and hands it the delivery. Returns when that is on its way, within a
    /// millisecond; what goes wrong after that is in the report.
    ///
    /// # Errors
    /// When the run could not be started; then nothing runs.
    pub fn start(self, launcher: &Launcher) -> Result<Alive, StartError> {
        let started =
            pipe2(OFlag::O_CLOEXEC)
                .map_err(io::Error::from)
                .and_then(|(theirs, ours)| {
                    let streams = Streams {
                        stdin: theirs.as_fd(),
                        stdout: self.write_end.as_fd(),
                        stderr: self.log.as_fd(),
                    };
                    launcher.launch(&self.dir.plan_path(), self.view.as_ref(), streams)?;
                    Ok(ours)
                });
        let stdin = started.map_err(|source| StartError::Spawn {
            wrapper: launcher.wrapper().to_path_buf(),
            source,
        })?;
        // A wrapper that does not get all of its delivery starts nothing: it finds the end in the middle.
        hand_over(&stdin, &self.delivery).map_err(StartError::HandOver)?;
        Ok(Alive {
            dir: self.dir,
            alive: self.alive,
            _control: self.control,
        })
    }
}

/// Finds out what became of a run that an earlier agent started. A lost task's processes are
/// killed before this returns.
///
/// # Errors
/// When that cannot be found out, or what is left cannot be killed.
pub fn adopt(dir: &RunDir) -> Result<Adoption, AdoptError> {
    if let Some(report) = dir.report().map_err(AdoptError::Files)? {
        return Ok(Adoption::Ended(report));
    }
    let fifo = |path: PathBuf| move |source| AdoptError::Fifo { path, source };
    let alive = match open_fifo(&dir.alive_path(), FifoEnd::Read) {
        Ok(alive) => alive,
        // The agent ended between making the directory and starting the wrapper.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Adoption::Lost),
        Err(error) => return Err(fifo(dir.alive_path())(error)),
    };
    let control =
        open_fifo(&dir.control_path(), FifoEnd::Both).map_err(fifo(dir.control_path()))?;
    let run = Alive {
        dir: dir.clone(),
        alive,
        _control: control,
    };
    if run.ended().map_err(fifo(dir.alive_path()))? {
        Ok(closed(dir)?.map_or(Adoption::Lost, Adoption::Ended))
    } else {
        Ok(Adoption::Running(run))
    }
}

/// Asks the wrapper to end the task: SIGTERM to its whole tree, the grace, then SIGKILL. Returns at
/// once; the end of the run is the answer. `false` when there is no wrapper to ask, and nobody holds
/// an [`Alive`] of the run either.
///
/// # Errors
/// When the request cannot be written.
pub fn stop(dir: &RunDir) -> Result<bool, StopError> {
    let path = dir.control_path();
    let control = match open_fifo(&path, FifoEnd::Write) {
        Ok(control) => control,
        Err(source) => {
            // No FIFO, or nobody who reads it.
            let nobody = [Errno::ENOENT, Errno::ENXIO].map(|errno| Some(errno as i32));
            if nobody.contains(&source.raw_os_error()) {
                return Ok(false);
            }
            return Err(StopError { path, source });
        }
    };
    match (&control).write(b"s") {
        Ok(_) => Ok(true),
        // Full of such requests already.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(source) => Err(StopError { path, source }),
    }
}

impl Alive {
    /// The run's directory.
    #[must_use]
    pub fn dir(&self) -> &RunDir {
        &self.dir
    }

    /// Whether the run has ended. Does not block.
    ///
    /// # Errors
    /// When the FIFO cannot be read.
    pub fn ended(&self) -> io::Result<bool> {
        // Nobody writes to this FIFO. Should somebody, it must not read as "ended", and must not
        // keep the descriptor readable for ever.
        let mut nothing = [0; 512];
        loop {
            match nix::unistd::read(&self.alive, &mut nothing) {
                Ok(0) => return Ok(true),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits for the run's end and reads its report, which need not be durable yet: the wrapper sees to
    /// that when everybody can read it. It blocks until the task has ended, so call it when
    /// [`Alive::ended`] has said so.
    ///
    /// # Errors
    /// When there is no report, or what the task left behind cannot be ended.
    pub fn finish(self) -> Result<Report, FinishError> {
        while !self.ended().map_err(FinishError::Wait)? {
            let mut wait = [PollFd::new(self.alive.as_fd(), PollFlags::POLLIN)];
            match poll(&mut wait, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(FinishError::Wait(errno.into())),
            }
        }
        let report = closed(&self.dir).map_err(FinishError::Close)?;
        report.ok_or(FinishError::Lost)
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Prepared");
        shown.field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl AsFd for Alive {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.alive.as_fd()
    }
}

impl AsRawFd for Alive {
    fn as_raw_fd(&self) -> RawFd {
        self.alive.as_raw_fd()
    }
}

/// The report of a run whose wrapper has ended, or, when there is none, the end of all it left.
fn closed(dir: &RunDir) -> Result<Option<Report>, AdoptError> {
    if let Some(report) = dir.report().map_err(AdoptError::Files)? {
        return Ok(Some(report));
    }
    // In a PID namespace the kernel has killed everything together with the wrapper.
    let plan = dir.plan().map_err(AdoptError::Files)?;
    if let Some(directory) = plan.as_ref().and_then(Plan::cgroup)
        && let Some(leaf) = Leaf::find(directory).map_err(AdoptError::Reclaim)?
    {
        leaf.reclaim(RECLAIM_TIMEOUT).map_err(AdoptError::Reclaim)?;
    }
    Ok(None)
}

/// Writes the delivery without trusting the wrapper to read it.
fn hand_over(stdin: &OwnedFd, delivery: &[u8]) -> io::Result<()> {
    fcntl(stdin, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut rest = delivery;
    while !rest.is_empty() {
        match nix::unistd::write(stdin, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut wait = [PollFd::new(stdin.as_fd(), PollFlags::POLLOUT)];
                if poll(&mut wait, PollTimeout::from(DELIVERY_TIMEOUT_MS))? == 0 {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            // It has ended, and its report says why.
            Err(Errno::EPIPE) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Which end of a FIFO is opened.
#[derive(Debug, Clone, Copy)]
enum FifoEnd {
    Read,
    Write,
    Both,
}

/// Never blocks, as opening a FIFO otherwise does. Refuses what is not a FIFO.
fn open_fifo(path: &Path, end: FifoEnd) -> io::Result<File> {
    use std::os::unix::fs::FileTypeExt;

    let (read, write) = match end {
        FifoEnd::Read => (true, false),
        FifoEnd::Write => (false, true),
        FifoEnd::Both => (true, true),
    };
    let file = OpenOptions::new()
        .read(read)
        .write(write)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits())
        .open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        Ok(file)
    } else {
        Err(io::Error::other("not a FIFO"))
    }
}

fn open(path: &Path, end: FifoEnd) -> Result<File, StartError> {
    open_fifo(path, end).map_err(|source| StartError::Create {
        path: path.to_path_buf(),
        source,
    })
}

fn make_fifo(path: &Path) -> Result<(), StartError> {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|errno| StartError::Create {
        path: path.to_path_buf(),
        source: errno.into(),
    })
}

fn create(path: &Path) -> Result<File, StartError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| StartError::Create {
            path: path.to_path_buf(),
            source,
        })
}
