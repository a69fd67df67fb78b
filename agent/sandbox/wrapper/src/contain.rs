//! The tree of processes that a task is, and what can be done to all of it: made, asked to end,
//! killed, found empty.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::poll::PollFlags;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use sandbox::cgroup::{CgroupError, Leaf};
use sandbox::{Plan, Step, UserIds};
use sandbox_sys::{CloneRequest, Cloned, End, Reaped, SingleThreaded};

use crate::ends::Ends;
use crate::fault::Fault;
use crate::task::Given;
use crate::{init, task};

/// A task's tree, from the making of its first process on.
#[derive(Debug)]
pub(crate) enum Tree {
    /// All that is in a cgroup of its own.
    Cgroup {
        leaf: Leaf,
        /// The task's main process.
        main: Pid,
        /// Whether it has ended and was reaped: the kernel counts it out of the cgroup a little
        /// before it can be.
        reaped: bool,
    },
    /// All that is in a PID namespace of its own.
    Namespace {
        /// Its process 1.
        init: Pid,
        process: OwnedFd,
        channel: UnixStream,
        /// How process 1 ended. Nothing is left then: the kernel sees to it.
        ended: Option<End>,
    },
}

/// Makes the tree that the plan asks for. `keep` is what this process owns: every other process
/// made here drops it before anything else, so that no end of it is held open by the task's side.
pub(crate) fn start<K: Debug>(
    alone: &SingleThreaded,
    plan: &Plan,
    given: &Given,
    ends: Ends,
    keep: K,
) -> (K, Result<Tree, Fault>) {
    for step in plan.steps() {
        match step {
            Step::Cgroup { directory } => {
                return in_cgroup(alone, plan, given, ends, keep, directory);
            }
            Step::Namespaces { user } => {
                return in_namespaces(alone, plan, given, ends, keep, *user);
            }
            Step::Proc | Step::WorkingDirectory { .. } | Step::Execute { .. } => {}
        }
    }
    // A checked plan has one of the two.
    (
        keep,
        Err(Fault::new(
            "start",
            &io::Error::from(io::ErrorKind::InvalidInput),
        )),
    )
}

fn in_cgroup<K>(
    alone: &SingleThreaded,
    plan: &Plan,
    given: &Given,
    ends: Ends,
    keep: K,
    directory: &Path,
) -> (K, Result<Tree, Fault>) {
    let leaf = match Leaf::create(directory) {
        Ok(leaf) => leaf,
        Err(error) => return (keep, Err(Fault::new("cgroup", &error))),
    };
    let born = leaf
        .open()
        .map_err(|error| Fault::new("cgroup", &error))
        .and_then(|inside| {
            let request = CloneRequest {
                namespaces: CloneFlags::empty(),
                cgroup: Some(inside.as_fd()),
            };
            sandbox_sys::clone(alone, &request).map_err(|error| Fault::new("cgroup", &error))
        });
    match born {
        Ok(Cloned::Child) => {
            drop(keep);
            task::become_task(plan.steps(), given, ends)
        }
        Ok(Cloned::Parent { pid, .. }) => (
            keep,
            Ok(Tree::Cgroup {
                leaf,
                main: pid,
                reaped: false,
            }),
        ),
        Err(mut fault) => {
            if let Err(error) = leaf.remove() {
                fault.error.push_str("; afterwards: ");
                fault.error.push_str(&error.to_string());
            }
            (keep, Err(fault))
        }
    }
}

fn in_namespaces<K>(
    alone: &SingleThreaded,
    plan: &Plan,
    given: &Given,
    ends: Ends,
    keep: K,
    user: Option<UserIds>,
) -> (K, Result<Tree, Fault>) {
    let fault = |error: io::Error| Fault::new("namespaces", &error);
    let request = CloneRequest {
        namespaces: init::namespaces(user),
        cgroup: None,
    };
    let (mut channel, theirs) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(error) => return (keep, Err(fault(error))),
    };
    match sandbox_sys::clone(alone, &request) {
        Ok(Cloned::Child) => {
            drop(keep);
            drop(channel);
            init::be(alone, plan.steps(), given, ends, theirs)
        }
        Ok(Cloned::Parent { pid, pidfd }) => {
            // Should this fail, process 1 has ended or will, and its end says so.
            channel.write_all(&[init::GO]).ok();
            let tree = Tree::Namespace {
                init: pid,
                process: pidfd,
                channel,
                ended: None,
            };
            (keep, Ok(tree))
        }
        Err(error) => (keep, Err(fault(error))),
    }
}

impl Tree {
    /// What to poll, beside SIGCHLD, to learn of a change.
    pub(crate) fn waits_on(&self) -> (BorrowedFd<'_>, PollFlags) {
        match self {
            Self::Cgroup { leaf, .. } => (leaf.as_fd(), PollFlags::POLLPRI),
            Self::Namespace { process, .. } => (process.as_fd(), PollFlags::POLLIN),
        }
    }

    /// Reaps whatever has ended. Tells how the task's main process did, once that is known.
    pub(crate) fn reap(&mut self) -> io::Result<Option<End>> {
        let mut found = None;
        while let Reaped::Ended(pid, end) = sandbox_sys::reap()? {
            match self {
                Self::Cgroup { main, reaped, .. } if *main == pid => {
                    *reaped = true;
                    found = Some(end);
                }
                Self::Namespace {
                    init,
                    ended,
                    channel,
                    ..
                } if *init == pid => {
                    *ended = Some(end);
                    // What it sent before it ended is still there.
                    let mut word = [0; 2];
                    let sent = channel
                        .read_exact(&mut word)
                        .ok()
                        .and_then(|()| init::decode(word));
                    found = Some(sent.unwrap_or(end));
                }
                // A daemon's end, after its parent's.
                Self::Cgroup { .. } | Self::Namespace { .. } => {}
            }
        }
        Ok(found)
    }

    /// Whether nothing of the tree is left.
    pub(crate) fn is_empty(&self) -> Result<bool, CgroupError> {
        match self {
            Self::Cgroup { leaf, reaped, .. } => Ok(!leaf.populated()? && *reaped),
            Self::Namespace { ended, .. } => Ok(ended.is_some()),
        }
    }

    /// Asks every process of the tree to end.
    pub(crate) fn terminate(&mut self) -> Result<(), CgroupError> {
        match self {
            Self::Cgroup { leaf, .. } => leaf.terminate(),
            Self::Namespace { channel, .. } => {
                // It fails only when process 1 has ended, and everything with it.
                channel.write_all(&[init::TERMINATE]).ok();
                Ok(())
            }
        }
    }

    /// Kills every process of the tree. They are gone when [`Tree::is_empty`] says so.
    pub(crate) fn kill(&self) -> Result<(), CgroupError> {
        match self {
            Self::Cgroup { leaf, .. } => leaf.kill(),
            Self::Namespace { process, .. } => {
                // It fails only when process 1 has ended, and everything with it.
                sandbox_sys::pidfd_send_signal(process.as_fd(), Signal::SIGKILL).ok();
                Ok(())
            }
        }
    }

    /// Removes what held the empty tree together.
    pub(crate) fn remove(self) -> Result<(), CgroupError> {
        match self {
            Self::Cgroup { leaf, .. } => leaf.remove(),
            Self::Namespace { .. } => Ok(()),
        }
    }
}
