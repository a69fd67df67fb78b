//! The wrapper that starts no task itself: for every run that it is told of it makes a copy of itself, which
//! goes on as a wrapper that was started for that run alone. What costs most of a start, loading the
//! program, has been done by then. Runs come in rows: for the next one that is like the last it has a copy
//! ready, a [`Spare`].

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use nix::unistd::Pid;
use sandbox::{MAX_PLAN_PATH, MAX_VIEW};
use sandbox_sys::{CloneRequest, Cloned, Reaped, SingleThreaded};

use crate::spare::{Spare, take, three};

/// How many spares there are at most, each for another kind of run: one for each profile.
const MAX_SPARES: usize = 3;

/// For how long no run was begun before a spare is made, when there are more runs than processors. A spare
/// costs more, in all, than a copy that is made when there is a run; time is better spent on those then.
const QUIET_MS: u8 = 2;

/// What a copy is to do.
#[derive(Debug)]
pub(crate) enum Begun {
    /// The run of this plan.
    Run { plan: OsString },
    /// To wait for a run.
    Spare(Spare),
}

/// A spare as its maker has it.
struct Kept {
    pid: Pid,
    view: Vec<u8>,
    socket: OwnedFd,
}

/// Makes wrappers until the socket on stdin closes. Returns in each of them, and with nothing when it is over.
pub(crate) fn serve(alone: &SingleThreaded) -> io::Result<Option<Begun>> {
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
    let mut spares: VecDeque<Kept> = VecDeque::new();
    // The kind of run that there should be a spare for.
    let mut wanted: Option<Vec<u8>> = None;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut running: Vec<Pid> = Vec::new();
    let mut message = vec![0; MAX_PLAN_PATH + 1 + MAX_VIEW];
    loop {
        let mut wait = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(ended.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = match wanted {
            Some(_) if running.len() > processors => PollTimeout::from(QUIET_MS),
            // Whoever has a run now goes first all the same.
            Some(_) => PollTimeout::ZERO,
            None => PollTimeout::NONE,
        };
        match poll(&mut wait, timeout) {
            Ok(0) => {
                if let Some(spare) = wanted.take().map(|view| prepare(alone, &mut spares, view)) {
                    match spare? {
                        Some(spare) => return Ok(Some(Begun::Spare(spare))),
                        None => continue,
                    }
                }
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        while ended.read_signal()?.is_some() {}
        while let Reaped::Ended(ended, _) = sandbox_sys::reap()? {
            running.retain(|pid| *pid != ended);
        }
        match sandbox_sys::receive(socket.as_fd(), &mut message) {
            Ok((0, _)) => return Ok(None),
            Ok((length, streams)) => {
                let message = message.get(..length).unwrap_or_default();
                let (plan, view) = parts(message);
                match hand_over(&mut spares, plan, view, &streams) {
                    Some(pid) => running.push(pid),
                    None => match begin(alone, streams)? {
                        Some(Cloned::Child) => {
                            return Ok(Some(Begun::Run {
                                plan: OsStr::from_bytes(plan).to_owned(),
                            }));
                        }
                        Some(Cloned::Parent { pid, .. }) => running.push(pid),
                        None => {}
                    },
                }
                wanted = Some(view.to_owned());
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

/// A message is a plan's path, and behind a NUL what the run's view is made from. What that means is not
/// this process's to know.
fn parts(message: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = message.splitn(2, |byte| *byte == 0);
    let plan = parts.next().unwrap_or_default();
    (plan, parts.next().unwrap_or_default())
}

/// Makes a spare for this kind of run, if there is none. Returns it in the copy.
fn prepare(
    alone: &SingleThreaded,
    spares: &mut VecDeque<Kept>,
    view: Vec<u8>,
) -> io::Result<Option<Spare>> {
    if spares.iter().any(|spare| spare.view == view) {
        return Ok(None);
    }
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    match copy(alone) {
        Ok(Cloned::Child) => {
            spares.clear();
            drop(ours);
            Ok(Some(Spare::new(view, theirs)))
        }
        Ok(Cloned::Parent { pid, .. }) => {
            // The one that was not used for longest ends when its socket closes.
            spares.truncate(MAX_SPARES - 1);
            spares.push_front(Kept {
                pid,
                view,
                socket: ours,
            });
            Ok(None)
        }
        // A run that cannot be begun tells why.
        Err(_) => Ok(None),
    }
}

/// Has a spare begin with this plan: which one, if there was one.
fn hand_over(
    spares: &mut VecDeque<Kept>,
    plan: &[u8],
    view: &[u8],
    streams: &[OwnedFd],
) -> Option<Pid> {
    let place = spares.iter().position(|spare| spare.view == view)?;
    let spare = spares.remove(place)?;
    let descriptors: Vec<_> = streams.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&descriptors)];
    let socket = spare.socket.as_raw_fd();
    // It has a place for one message, and this is the one. Had the process died, this one would be told.
    sendmsg::<()>(
        socket,
        &[IoSlice::new(plan)],
        &control,
        MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
        None,
    )
    .is_ok()
    .then_some(spare.pid)
}

/// Makes the copy; in it, the streams are its own. Nothing when there can be none.
fn begin(alone: &SingleThreaded, streams: Vec<OwnedFd>) -> io::Result<Option<Cloned>> {
    let streams = three(streams)?;
    match copy(alone) {
        Ok(Cloned::Child) => {
            take(&streams)?;
            Ok(Some(Cloned::Child))
        }
        Ok(parent) => Ok(Some(parent)),
        Err(error) => {
            // The run's log; the agent finds that nothing was begun.
            let line = format!("execution-wrapper: no process can be made: {error}\n");
            let [_, _, log] = &streams;
            nix::unistd::write(log, line.as_bytes()).ok();
            Ok(None)
        }
    }
}

fn copy(alone: &SingleThreaded) -> io::Result<Cloned> {
    let request = CloneRequest {
        namespaces: CloneFlags::empty(),
        cgroup: None,
    };
    sandbox_sys::clone(alone, &request)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_message_is_a_path_without_a_nul_and_a_rest(
            message in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let (plan, view) = parts(&message);
            prop_assert!(!plan.contains(&0));
            prop_assert!(plan.len() + view.len() <= message.len());
        }
    }
}
