//! What this host offers, by doing it: the same calls that a task's run makes, with nothing to run.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{getegid, geteuid, getpid};
use sandbox::cgroup::{self, Leaf};
use sandbox::profile::NOBODY;
use sandbox::profile::paths::SYSTEM_BUS;
use sandbox::{Controllers, Facility, Jail, Profile, Step, Support, User, UserIds};
use sandbox_sys::{CloneRequest, Cloned, Reaped, SingleThreaded};

use crate::fault::{self, Fault, FaultReceiver};
use crate::{init, privileges};

/// How long the one process of the trial may take to die.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints what works as JSON on stdout.
pub(crate) fn answer(alone: &SingleThreaded) -> io::Result<()> {
    let cgroup = facility(try_cgroup(alone));
    let controllers = match &cgroup {
        Facility::Available(base) => cgroup::enable(base),
        Facility::Missing(reason) => Controllers::missing(&format!("no cgroup: {reason}")),
    };
    let support = Support {
        cgroup,
        controllers,
        pid_namespace: facility(try_namespaces(alone, None)),
        standard: facility(try_namespaces(alone, Some(Profile::Standard)).map(drop)),
        confined: facility(try_namespaces(alone, Some(Profile::Confined)).map(drop)),
        message_bus: message_bus(),
        landlock: sandbox_sys::landlock_version(),
    };
    io::stdout().write_all(&serde_json::to_vec(&support)?)
}

fn facility<T>(tried: Result<T, Fault>) -> Facility<T> {
    match tried {
        Ok(found) => Facility::Available(found),
        Err(fault) => Facility::Missing(fault.error),
    }
}

fn message_bus() -> Facility<()> {
    if Path::new(SYSTEM_BUS).exists() {
        Facility::Available(())
    } else {
        Facility::Missing(format!(
            "there is no {SYSTEM_BUS}, so `systemctl` in a task of the profile standard has no way to \
             the service manager"
        ))
    }
}

/// A process is born in a leaf, killed there, and the leaf removed.
fn try_cgroup(alone: &SingleThreaded) -> Result<PathBuf, Fault> {
    let base = cgroup::base().map_err(|error| Fault::new("cgroup", &error))?;
    let failed = |error: io::Error| Fault::new("cgroup", &error);
    // No process but this one has the number now, and what an earlier one left is empty.
    let directory = base.join(format!("probe-{}", getpid()));
    if let Some(left) = Leaf::find(&directory).map_err(|error| Fault::new("cgroup", &error))? {
        left.reclaim(PATIENCE)
            .map_err(|error| Fault::new("cgroup", &error))?;
    }
    let leaf = Leaf::create(&directory).map_err(|error| Fault::new("cgroup", &error))?;
    let inside = leaf.open().map_err(|error| Fault::new("cgroup", &error))?;
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let request = CloneRequest {
        namespaces: nix::sched::CloneFlags::empty(),
        cgroup: Some(inside.as_fd()),
    };
    let born = match sandbox_sys::clone(alone, &request) {
        Ok(Cloned::Child) => {
            drop(ours);
            // Waits to be killed; it also ends when the wrapper does.
            io::Read::read(&mut &theirs, &mut [0]).ok();
            sandbox_sys::exit_now(0)
        }
        Ok(Cloned::Parent { .. }) => Ok(()),
        Err(error) => Err(failed(error)),
    };
    drop(theirs);
    let held = match leaf.populated() {
        Ok(false) if born.is_ok() => Err(failed(io::Error::other(
            "a process born in a cgroup is not there",
        ))),
        Ok(_) => Ok(()),
        Err(error) => Err(Fault::new("cgroup", &error)),
    };
    let reclaimed = leaf
        .reclaim(PATIENCE)
        .map_err(|error| Fault::new("cgroup", &error));
    drop(ours);
    reap_all().map_err(failed)?;
    born.and(held).and(reclaimed).map(|()| base)
}

/// A process 1 sets itself up, as one of this profile or for containment alone, and ends.
fn try_namespaces(
    alone: &SingleThreaded,
    profile: Option<Profile>,
) -> Result<Option<UserIds>, Fault> {
    let failed = |error: io::Error| Fault::new("namespaces", &error);
    let user = (!geteuid().is_root()).then(|| UserIds {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
    });
    let isolated = profile == Some(Profile::Confined);
    let arranged = profile.map_or(Step::Proc, |profile| {
        Step::Jail(Jail {
            profile,
            hidden: Vec::new(),
            read_only: Vec::new(),
            shared: Vec::new(),
            visible: Vec::new(),
            bus: (profile == Profile::Standard).then(|| SYSTEM_BUS.into()),
        })
    });
    let nobody = (isolated && user.is_none()).then(|| User {
        uid: NOBODY,
        gid: NOBODY,
        groups: Vec::new(),
    });
    let (sender, mut receiver) = fault::channel().map_err(failed)?;
    let request = CloneRequest {
        namespaces: init::namespaces(user, isolated),
        cgroup: None,
    };
    match sandbox_sys::clone(alone, &request).map_err(failed)? {
        Cloned::Child => {
            let done = init::set_up(&[Step::Namespaces { user, isolated }, arranged], None)
                .and_then(|()| {
                    profile.map_or(Ok(()), |profile| {
                        privileges::give_up(profile, nobody.as_ref())
                    })
                });
            match done {
                Ok(()) => sandbox_sys::exit_now(0),
                Err(failed) => sender.fail(failed),
            }
        }
        Cloned::Parent { .. } => drop(sender),
    }
    let fault = await_end(&mut receiver).map_err(failed)?;
    reap_all().map_err(failed)?;
    fault.map_or(Ok(user), |fault| {
        // Which of its steps is part of the reason.
        Err(Fault {
            error: format!("{}: {}", fault.step, fault.error),
            ..fault
        })
    })
}

/// The channel closes when the process at its other end has ended.
fn await_end(receiver: &mut FaultReceiver) -> io::Result<Option<Fault>> {
    let mut found = None;
    while let Some(descriptor) = receiver.waits_on() {
        poll(
            &mut [PollFd::new(descriptor, PollFlags::POLLIN)],
            PollTimeout::NONE,
        )?;
        found = found.or(receiver.receive());
    }
    Ok(found)
}

fn reap_all() -> io::Result<()> {
    while let Reaped::Ended(..) = sandbox_sys::reap()? {}
    Ok(())
}
