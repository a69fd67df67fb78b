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
use sandbox::cgroup::{CgroupError, Leaf, Taken};
use sandbox::{CgroupLimits, Plan, Step};
use sandbox_sys::{CloneRequest, Cloned, End, Reaped, SingleThreaded};

use crate::cell::{Cell, Entered};
use crate::ends::Ends;
use crate::fault::Fault;
use crate::task::Given;
use crate::{init, task};

/// A task's tree, from the making of its first process on. In a cgroup of its own, in a PID namespace
/// of its own, or in both.
#[derive(Debug)]
pub(crate) struct Tree {
    leaf: Option<Leaf>,
    main: Main,
}

/// The process that this one started.
#[derive(Debug)]
enum Main {
    /// The task's main process, in a cgroup.
    Task {
        pid: Pid,
        /// Whether it has ended and was reaped: the kernel counts it out of the cgroup a little
        /// before it can be.
        reaped: bool,
    },
    /// Process 1 of a PID namespace.
    Init {
        pid: Pid,
        process: OwnedFd,
        channel: UnixStream,
        /// How it ended. Nothing is left in the namespace then: the kernel sees to it.
        ended: Option<End>,
    },
}

/// Makes the tree that the plan asks for, in a cell that was prepared if it is one for this plan. `keep` is what this process owns: every other process
/// made here drops it before anything else, so that no end of it is held open by the task's side.
pub(crate) fn start<K: Debug>(
    alone: &SingleThreaded,
    plan: &Plan,
    given: &Given,
    ends: Ends,
    keep: K,
    cell: Option<Cell>,
) -> (K, Result<Tree, Fault>) {
    // It looks at what it has while the cgroup is made.
    let told = cell.and_then(|cell| cell.tell(plan, given));
    let leaf = match plan.steps().iter().find_map(|step| match step {
        Step::Cgroup { directory, limits } => Some(make_leaf(directory, limits)),
        _ => None,
    }) {
        None => None,
        Some(Ok(leaf)) => Some(leaf),
        Some(Err(fault)) => return (keep, Err(fault)),
    };
    let inside = leaf.as_ref().map(Leaf::open).transpose();
    let (keep, main) = match inside {
        Ok(inside) => match told.and_then(|told| told.begin(inside.as_ref())) {
            Some(Entered {
                pid,
                process,
                channel,
            }) => {
                let main = Main::Init {
                    pid,
                    process,
                    channel,
                    ended: None,
                };
                (keep, Ok(main))
            }
            None => bear(alone, plan, given, ends, keep, inside.as_ref()),
        },
        Err(error) => (keep, Err(Fault::new("cgroup", &error))),
    };
    match main {
        Ok(main) => (keep, Ok(Tree { leaf, main })),
        Err(mut fault) => {
            if let Some(Err(error)) = leaf.map(Leaf::remove) {
                fault.error.push_str("; afterwards: ");
                fault.error.push_str(&error.to_string());
            }
            (keep, Err(fault))
        }
    }
}

fn make_leaf(directory: &Path, limits: &CgroupLimits) -> Result<Leaf, Fault> {
    let leaf = Leaf::create(directory).map_err(|error| Fault::new("cgroup", &error))?;
    match leaf.limit(limits) {
        Ok(()) => Ok(leaf),
        Err(error) => {
            let mut fault = Fault::new("cgroup", &error);
            if let Err(error) = leaf.remove() {
                fault.error.push_str("; afterwards: ");
                fault.error.push_str(&error.to_string());
            }
            Err(fault)
        }
    }
}

/// Has the first process born, in this cgroup and in the plan's namespaces.
fn bear<K>(
    alone: &SingleThreaded,
    plan: &Plan,
    given: &Given,
    ends: Ends,
    keep: K,
    cgroup: Option<&OwnedFd>,
) -> (K, Result<Main, Fault>) {
    let namespaces = plan.steps().iter().find_map(|step| match step {
        Step::Namespaces { user, isolated } => Some(init::namespaces(*user, *isolated)),
        _ => None,
    });
    let step = if namespaces.is_some() {
        "namespaces"
    } else {
        "cgroup"
    };
    let fault = |error: io::Error| Fault::new(step, &error);
    let request = CloneRequest {
        namespaces: namespaces.unwrap_or(CloneFlags::empty()),
        // Process 1 is no process of the task's.
        cgroup: cgroup.map(AsFd::as_fd).filter(|_| namespaces.is_none()),
    };
    let (mut channel, theirs) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(error) => return (keep, Err(fault(error))),
    };
    match sandbox_sys::clone(alone, &request) {
        Ok(Cloned::Child) => {
            drop(keep);
            drop(channel);
            if namespaces.is_some() {
                init::be(alone, plan.steps(), given, ends, cgroup, theirs)
            } else {
                drop(theirs);
                task::become_task(plan.steps(), given, ends)
            }
        }
        Ok(Cloned::Parent { pid, .. }) if namespaces.is_none() => {
            (keep, Ok(Main::Task { pid, reaped: false }))
        }
        Ok(Cloned::Parent { pid, pidfd }) => {
            // Should this fail, process 1 has ended or will, and its end says so.
            channel.write_all(&[init::GO]).ok();
            let main = Main::Init {
                pid,
                process: pidfd,
                channel,
                ended: None,
            };
            (keep, Ok(main))
        }
        Err(error) => (keep, Err(fault(error))),
    }
}

impl Tree {
    /// What to poll, beside SIGCHLD, to learn of a change.
    pub(crate) fn waits_on(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match (&self.main, &self.leaf) {
            // Afterwards its descriptor would stay readable.
            (
                Main::Init {
                    process,
                    ended: None,
                    ..
                },
                _,
            ) => Some((process.as_fd(), PollFlags::POLLIN)),
            (_, Some(leaf)) => Some((leaf.as_fd(), PollFlags::POLLPRI)),
            (_, None) => None,
        }
    }

    /// Reaps whatever has ended. Tells how the task's main process did, once that is known.
    pub(crate) fn reap(&mut self) -> io::Result<Option<End>> {
        let mut found = None;
        while let Reaped::Ended(child, end) = sandbox_sys::reap()? {
            match &mut self.main {
                Main::Task { pid, reaped } if *pid == child => {
                    *reaped = true;
                    found = Some(end);
                }
                Main::Init {
                    pid,
                    ended,
                    channel,
                    ..
                } if *pid == child => {
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
                Main::Task { .. } | Main::Init { .. } => {}
            }
        }
        Ok(found)
    }

    /// Whether nothing of the tree is left.
    pub(crate) fn is_empty(&self) -> Result<bool, CgroupError> {
        let over = match &self.main {
            Main::Task { reaped, .. } => *reaped,
            Main::Init { ended, .. } => ended.is_some(),
        };
        match &self.leaf {
            Some(leaf) => Ok(over && !leaf.populated()?),
            None => Ok(over),
        }
    }

    /// Asks every process of the tree to end.
    pub(crate) fn terminate(&mut self) -> Result<(), CgroupError> {
        match (&mut self.main, &self.leaf) {
            (Main::Init { channel, .. }, _) => {
                // It fails only when process 1 has ended, and everything with it.
                channel.write_all(&[init::TERMINATE]).ok();
                Ok(())
            }
            (Main::Task { .. }, Some(leaf)) => leaf.terminate(),
            (Main::Task { .. }, None) => Ok(()),
        }
    }

    /// Kills every process of the tree. They are gone when [`Tree::is_empty`] says so.
    pub(crate) fn kill(&self) -> Result<(), CgroupError> {
        if let Main::Init { process, .. } = &self.main {
            // It fails only when process 1 has ended, and everything with it.
            sandbox_sys::pidfd_send_signal(process.as_fd(), Signal::SIGKILL).ok();
        }
        self.leaf.as_ref().map_or(Ok(()), Leaf::kill)
    }

    /// What all of it took, as far as the kernel tells.
    pub(crate) fn taken(&self) -> Taken {
        self.leaf.as_ref().map(Leaf::taken).unwrap_or_default()
    }

    /// Removes what held the empty tree together.
    pub(crate) fn remove(self) -> Result<(), CgroupError> {
        self.leaf.map_or(Ok(()), Leaf::remove)
    }
}
