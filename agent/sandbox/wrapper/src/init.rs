//! Process 1 of a task's PID namespace. It sets the namespaces up, starts the task, reaps, and tells
//! the wrapper how the task ended. When it ends, the kernel kills everything that is left in the
//! namespace; when the wrapper ends, the kernel kills it.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::prctl::{set_dumpable, set_pdeathsig};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use sandbox::{Stage, Step, UserIds};
use sandbox_sys::{CloneRequest, Cloned, End, Reaped, SingleThreaded};

use crate::ends::Ends;
use crate::fault::Failed;
use crate::jail;
use crate::task::{self, Given};

/// The wrapper lives: go on.
pub(crate) const GO: u8 = b'g';
/// Ask everything in the namespace to end, and end when it has.
pub(crate) const TERMINATE: u8 = b't';

const EXITED: u8 = b'e';
const SIGNALED: u8 = b's';

/// The namespaces that go with a step.
pub(crate) fn namespaces(user: Option<UserIds>, isolated: bool) -> CloneFlags {
    let mut own = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    if isolated {
        own |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    }
    if user.is_some() {
        own | CloneFlags::CLONE_NEWUSER
    } else {
        own
    }
}

/// Is process 1: never returns.
pub(crate) fn be(
    alone: &SingleThreaded,
    steps: &[Step],
    given: &Given,
    ends: Ends,
    cgroup: Option<&OwnedFd>,
    mut wrapper: UnixStream,
) -> ! {
    let begun = stand_ready(&mut wrapper)
        .and_then(|()| set_up(steps, given.bus.as_deref()))
        .and_then(|()| begin(alone, cgroup.map(AsFd::as_fd)));
    go_on(begun, steps, given, ends, wrapper)
}

/// What both processes do from the task's birth on.
pub(crate) fn go_on(
    begun: Result<Started, Failed>,
    steps: &[Step],
    given: &Given,
    ends: Ends,
    mut wrapper: UnixStream,
) -> ! {
    let main = match begun {
        Ok(Started::Init { main }) => main,
        Ok(Started::Task) => task::become_task(steps, given, ends),
        Err(failed) => ends.fault.fail(failed),
    };
    // The streams and the fault channel are the task's alone from here on, or their ends would
    // never be seen.
    drop(ends);
    let code = i32::from(watch(main, &mut wrapper).is_err());
    sandbox_sys::exit_now(code)
}

/// Which of the two processes [`begin`] returned in.
pub(crate) enum Started {
    Init { main: Pid },
    Task,
}

/// Ends with the wrapper, and holds none of its streams.
pub(crate) fn stand_ready(wrapper: &mut UnixStream) -> Result<(), Failed> {
    die_with(wrapper)?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.map_err(Failed::io("namespaces"))?;
    let at = Failed::at("namespaces");
    // Not the wrapper's stdout: that one must close when the wrapper ends, and only then.
    nix::unistd::dup2_stdin(&null).map_err(at)?;
    nix::unistd::dup2_stdout(&null).map_err(at)?;
    nix::unistd::dup2_stderr(&null).map_err(at)
}

/// Has the task's process born, in this cgroup if this process is not in it.
pub(crate) fn begin(
    alone: &SingleThreaded,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Started, Failed> {
    // The task shares this PID namespace: it must not look into this process, nor trace it.
    set_dumpable(false).map_err(Failed::at("namespaces"))?;
    let request = CloneRequest {
        namespaces: CloneFlags::empty(),
        cgroup,
    };
    match sandbox_sys::clone(alone, &request).map_err(Failed::io("start"))? {
        Cloned::Child => Ok(Started::Task),
        Cloned::Parent { pid, .. } => Ok(Started::Init { main: pid }),
    }
}

/// Has the kernel kill this process when the wrapper ends, from before the task exists.
fn die_with(wrapper: &mut UnixStream) -> Result<(), Failed> {
    let at = Failed::at("namespaces");
    set_pdeathsig(Signal::SIGKILL).map_err(at)?;
    // A wrapper that ended before that call sends no signal any more; it sends no word either.
    let mut word = [0];
    wrapper
        .read_exact(&mut word)
        .map_err(Failed::io("namespaces"))?;
    if word == [GO] {
        Ok(())
    } else {
        Err(at(Errno::EINVAL))
    }
}

/// The steps of process 1, in their order.
pub(crate) fn set_up(steps: &[Step], bus: Option<&Path>) -> Result<(), Failed> {
    let mut user = None;
    for step in steps {
        match step {
            Step::Namespaces {
                user: Some(ids), ..
            } => {
                user = Some(*ids);
                map_user(*ids).map_err(Failed::io(step.name()))?;
            }
            Step::Jail(jail) => jail::enclose(jail, user, bus)?,
            Step::Proc => mount_proc().map_err(Failed::at(step.name()))?,
            _ => debug_assert_ne!(
                step.stage(),
                Stage::Init,
                "a step of this stage is left out"
            ),
        }
    }
    Ok(())
}

/// Maps the user to itself in its user namespace: same ids, same files, no others.
fn map_user(ids: UserIds) -> io::Result<()> {
    // An ordinary user may map its group only when groups cannot be dropped (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{0} {0} 1", ids.uid))?;
    fs::write("/proc/self/gid_map", format!("{0} {0} 1", ids.gid))
}

fn mount_proc() -> nix::Result<()> {
    let none = None::<&str>;
    // "Slave": what the host mounts and unmounts meanwhile is followed, or a task would keep a
    // removed disk busy. Nothing that is mounted in here is seen by the host.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none)
}

/// How the task ended, in the two bytes that are sent for it.
fn encode(end: End) -> [u8; 2] {
    // Both are below 256: wait(2) has eight bits for the code and seven for the signal.
    let byte = |value| u8::try_from(value).unwrap_or(u8::MAX);
    match end {
        End::Exited(code) => [EXITED, byte(code)],
        End::Signaled(signal) => [SIGNALED, byte(signal)],
    }
}

/// What [`encode`] made.
pub(crate) fn decode(word: [u8; 2]) -> Option<End> {
    match word {
        [EXITED, code] => Some(End::Exited(code.into())),
        [SIGNALED, signal] => Some(End::Signaled(signal.into())),
        _ => None,
    }
}

/// Reaps until the task has ended, or, when asked to terminate, until all have.
fn watch(main: Pid, wrapper: &mut UnixStream) -> io::Result<()> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    // Blocked since before the first child was made, so none of their ends is missed.
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut terminating = false;
    loop {
        loop {
            match sandbox_sys::reap()? {
                Reaped::Ended(pid, end) if pid == main => {
                    wrapper.write_all(&encode(end))?;
                    if !terminating {
                        return Ok(());
                    }
                }
                Reaped::Ended(..) => {}
                Reaped::NoneEnded => break,
                Reaped::NoChildren => return Ok(()),
            }
        }
        let mut wait = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(wrapper.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut wait, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let asked = wait.last().and_then(PollFd::any).unwrap_or_default();
        while signals.read_signal()?.is_some() {}
        if asked {
            let mut word = [0];
            wrapper.read_exact(&mut word)?;
            if word == [TERMINATE] && !terminating {
                terminating = true;
                // All but this process.
                kill(Pid::from_raw(-1), Signal::SIGTERM)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_an_end_that_is_sent_by_that_word_or_none() {
        for word in 0..=u16::MAX {
            let word = word.to_be_bytes();
            if let Some(end) = decode(word) {
                assert_eq!(encode(end), word);
            }
        }
        assert!(decode([EXITED, 3]).is_some() && decode([SIGNALED, 9]).is_some());
    }
}
