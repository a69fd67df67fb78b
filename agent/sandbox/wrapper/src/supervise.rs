//! From the task's start to the end of its tree: one loop that moves the streams, watches the clock
//! and the requests, and is over when nothing of the task is left.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike};
use nix::sys::timerfd::{self, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use sandbox::cgroup::{CgroupError, Taken};
use sandbox::{KilledBy, Outcome, Plan, Report, RunDir, Usage};
use sandbox_sys::End;

use crate::bus::Door;
use crate::contain::Tree;
use crate::ends::{Ends, FarEnds, pair};
use crate::fault::{Fault, FaultReceiver};
use crate::streams::{Capture, Feed};

/// How long until a killed tree is looked at, and killed, once more; the pause doubles up to the
/// second number. The kernel tells of a cgroup's change too, but up to 10 ms late when there was
/// another just before. A process that hangs in the kernel can take for ever.
const LOOK_AGAIN_MS: (u16, u16) = (2, 1000);

/// Signals that ask the wrapper to end: it ends the task first. A machine that is shut down sends
/// them to everyone.
const END_SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Everything that the wrapper holds of a run, beside the tree.
#[derive(Debug)]
pub(crate) struct Supervisor {
    signals: SignalFd,
    control: File,
    timer: TimerFd,
    stdin: Feed,
    stdout: Capture,
    stderr: Capture,
    fault: FaultReceiver,
    bus: Option<Door>,
}

/// How far the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The task runs and may.
    Running,
    /// All of it was asked to end, and has until the timer to do so.
    Ending,
    /// All of it was killed, and is looked at again after so many milliseconds.
    Killed { pause: u16 },
}

/// What a supervisor needs of any run. The process hears signals through it only, from the moment it is made.
#[derive(Debug)]
pub(crate) struct Instruments {
    signals: SignalFd,
    timer: TimerFd,
    far: FarEnds,
}

impl Instruments {
    /// Makes them, and the ends that belong to the task's side.
    pub(crate) fn make() -> io::Result<(Self, Ends)> {
        let (ends, far) = pair()?;
        let instruments = Self {
            signals: signals()?,
            timer: timer()?,
            far,
        };
        Ok((instruments, ends))
    }
}

impl Supervisor {
    /// Opens all that is needed before the task is started.
    pub(crate) fn open(
        dir: &RunDir,
        plan: &Plan,
        input: Vec<u8>,
        instruments: Instruments,
    ) -> Result<Self, Fault> {
        let failed = |error: io::Error| Fault::new("prepare", &error);
        let Instruments {
            signals,
            timer,
            far,
        } = instruments;
        let limit = plan.output_limit();
        let stdout = Capture::create(far.stdout, &dir.stdout(), limit).map_err(failed)?;
        let stderr = Capture::create(far.stderr, &dir.stderr(), limit).map_err(failed)?;
        // For both, so that there is always a writer and the end of the last one is never seen.
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(dir.control_path())
            .map_err(failed)?;
        let bus = match plan.bus() {
            Some(socket) => Door::make(socket, dir.bus_path()).map_err(failed)?,
            None => None,
        };
        Ok(Self {
            signals,
            control,
            timer,
            stdin: Feed::new(far.stdin, input),
            stdout,
            stderr,
            fault: far.fault,
            bus,
        })
    }

    /// The socket that stands for the message bus's.
    pub(crate) fn bus(&self) -> Option<&Path> {
        self.bus.as_ref().map(Door::place)
    }

    /// Watches over the tree until it is empty, and says how it went. The output is still to be
    /// made durable.
    ///
    /// # Errors
    /// Only when the kernel fails us; the tree is then left to whoever finds no report.
    pub(crate) fn supervise(
        mut self,
        mut tree: Tree,
        plan: &Plan,
    ) -> io::Result<(Report, [Capture; 2])> {
        let start = now()?;
        self.set_timer(plan.time_limit())?;
        let mut phase = Phase::Running;
        let mut cut_short = None;
        let mut end = None;
        let mut fault = None;
        loop {
            self.wait(&tree, phase)?;
            self.stdin.pump();
            self.stdout.pump();
            self.stderr.pump();
            self.open_bus();
            fault = fault.or_else(|| self.fault.receive());
            let stop = self.asked_to_stop()?;
            let time_is_up = self.time_is_up()?;
            end = end.or(tree.reap()?);
            if tree.is_empty().map_err(|error| failed(&error))? {
                break;
            }
            match phase {
                // The main process is the task: what it leaves behind ends with it.
                Phase::Running if end.is_some() => {
                    tree.kill().map_err(|error| failed(&error))?;
                    phase = Phase::Killed {
                        pause: LOOK_AGAIN_MS.0,
                    };
                }
                Phase::Running if stop || time_is_up => {
                    cut_short = Some(if stop {
                        Outcome::Stopped
                    } else {
                        Outcome::TimedOut
                    });
                    if let Err(error) = tree.terminate() {
                        // Whoever could not be asked is killed all the same.
                        note(&error);
                    }
                    self.set_timer(plan.grace())?;
                    phase = Phase::Ending;
                }
                Phase::Ending if time_is_up => {
                    tree.kill().map_err(|error| failed(&error))?;
                    phase = Phase::Killed {
                        pause: LOOK_AGAIN_MS.0,
                    };
                }
                Phase::Killed { pause } => {
                    // Whoever was moved in from elsewhere after the first time is caught here.
                    tree.kill().map_err(|error| failed(&error))?;
                    phase = Phase::Killed {
                        pause: (pause * 2).min(LOOK_AGAIN_MS.1),
                    };
                }
                Phase::Running | Phase::Ending => {}
            }
        }
        let duration = now()?.saturating_sub(start);
        let taken = tree.taken();
        fault = fault.or_else(|| self.fault.receive());
        if let Err(error) = tree.remove() {
            // An empty cgroup that stays is untidy, and no reason to keep the result back.
            note(&error);
        }
        if let Some(Err(error)) = self.bus.take().map(Door::close) {
            writeln!(io::stderr(), "the socket of the message bus stays: {error}").ok();
        }
        self.stdout.finish();
        self.stderr.finish();
        let outcome = outcome(fault, cut_short, end, plan);
        let report = self.report(outcome, duration, plan, taken);
        Ok((report, [self.stdout, self.stderr]))
    }

    fn report(&self, outcome: Outcome, duration: Duration, plan: &Plan, taken: Taken) -> Report {
        let error = self.stdout.error().or(self.stderr.error());
        let killed_by = match outcome {
            Outcome::TimedOut => Some(KilledBy::TimeLimit),
            Outcome::Stopped => Some(KilledBy::Stop),
            Outcome::Signaled { .. } if taken.killed_for_memory > 0 => Some(KilledBy::Memory),
            // A shell says so with an exit code when it was one of its children.
            Outcome::Exited { code } if code != 0 && taken.killed_for_memory > 0 => {
                Some(KilledBy::Memory)
            }
            Outcome::Exited { .. } | Outcome::Signaled { .. } | Outcome::SetupFailed { .. } => None,
        };
        // All children are reaped, so without a cgroup this is the same, but for processes whose
        // parents did not wait for them.
        let cpu = taken.cpu.or_else(children_cpu);
        Report {
            outcome,
            stdout_bytes: self.stdout.total(),
            stderr_bytes: self.stderr.total(),
            stdout_truncated: self.stdout.truncated(),
            stderr_truncated: self.stderr.truncated(),
            output_error: error.map(ToString::to_string),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            containment: Some(plan.containment()),
            usage: Usage {
                profile: Some(plan.profile()),
                killed_by,
                cpu_ms: cpu.map(|cpu| u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX)),
                peak_memory_bytes: taken.peak_memory,
                processes_refused: taken.processes_refused,
            },
        }
    }

    /// Waits until there is something to do.
    fn wait(&self, tree: &Tree, phase: Phase) -> io::Result<()> {
        let mut wait = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
        ];
        wait.extend(
            tree.waits_on()
                .map(|(descriptor, flags)| PollFd::new(descriptor, flags)),
        );
        let mut add = |descriptor: Option<_>, flags| {
            wait.extend(
                descriptor.map(|descriptor: BorrowedFd<'_>| PollFd::new(descriptor, flags)),
            );
        };
        add(self.stdin.waits_on(), PollFlags::POLLOUT);
        add(self.stdout.waits_on(), PollFlags::POLLIN);
        add(self.stderr.waits_on(), PollFlags::POLLIN);
        add(self.fault.waits_on(), PollFlags::POLLIN);
        add(
            self.bus.as_ref().and_then(Door::waits_on),
            PollFlags::POLLIN,
        );
        let timeout = match phase {
            Phase::Killed { pause } => PollTimeout::from(pause),
            Phase::Running | Phase::Ending => PollTimeout::NONE,
        };
        match poll(&mut wait, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// A task whose bus cannot be served finds that nobody answers.
    fn open_bus(&mut self) {
        if let Some(Err(error)) = self.bus.as_mut().map(Door::open) {
            writeln!(io::stderr(), "the message bus cannot be served: {error}").ok();
        }
    }

    /// Whether somebody wants the task to end: through the FIFO, or by a signal to this process.
    fn asked_to_stop(&mut self) -> io::Result<bool> {
        let mut stop = false;
        while let Some(signal) = self.signals.read_signal()? {
            stop |= END_SIGNALS
                .iter()
                .any(|end| *end as u32 == signal.ssi_signo);
        }
        let mut requests = [0; 64];
        match self.control.read(&mut requests) {
            Ok(length) => stop |= length > 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(stop)
    }

    /// Whether the timer has run out since it was set. Says so once.
    fn time_is_up(&self) -> io::Result<bool> {
        match self.timer.wait() {
            Ok(()) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn set_timer(&self, time: Duration) -> io::Result<()> {
        let expiration = Expiration::OneShot(TimeSpec::from_duration(time));
        Ok(self.timer.set(expiration, TimerSetTimeFlags::empty())?)
    }
}

fn outcome(
    fault: Option<Fault>,
    cut_short: Option<Outcome>,
    end: Option<End>,
    plan: &Plan,
) -> Outcome {
    if let Some(Fault { step, error }) = fault {
        let object = plan
            .steps()
            .iter()
            .find(|candidate| candidate.name() == step);
        let error = match object.and_then(sandbox::Step::path) {
            Some(path) => format!("{}: {error}", path.display()),
            None => error,
        };
        return Outcome::SetupFailed { step, error };
    }
    match (cut_short, end) {
        (Some(outcome), _) => outcome,
        (None, Some(End::Exited(code))) => Outcome::Exited { code },
        (None, Some(End::Signaled(signal))) => Outcome::Signaled { signal },
        // The tree is empty, so its main process has ended, and nobody but us reaps it.
        (None, None) => Outcome::Signaled {
            signal: Signal::SIGKILL as i32,
        },
    }
}

/// A descriptor for the end of children and for requests to end, which are blocked from here on in
/// this process; the task starts with none blocked.
fn signals() -> io::Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.extend(END_SIGNALS);
    mask.thread_block()?;
    Ok(SignalFd::with_flags(
        &mask,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

/// A timer that goes on while the machine sleeps and does not care when its clock is set.
fn timer() -> io::Result<TimerFd> {
    let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
    Ok(TimerFd::new(timerfd::ClockId::CLOCK_BOOTTIME, flags)?)
}

fn now() -> io::Result<Duration> {
    Ok(nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)?.into())
}

/// The processor time of all children that have ended.
fn children_cpu() -> Option<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).ok()?;
    let time = |value: TimeVal| {
        let microseconds = u64::try_from(value.num_microseconds()).ok()?;
        Some(Duration::from_micros(microseconds))
    };
    Some(time(usage.user_time())? + time(usage.system_time())?)
}

fn failed(error: &CgroupError) -> io::Error {
    io::Error::other(Fault::new("cgroup", error).error)
}

fn note(error: &CgroupError) {
    // A line in the wrapper's log; there is nothing better to do about it.
    writeln!(io::stderr(), "{}", Fault::new("cgroup", error).error).ok();
}
